"""Graceful degradation: the cache before the models, and what stands in for them when all have failed.

    cache ─> the way through the models (breaker, fallback, retry) ─> an expired entry of the cache ─> a static answer

Who asks the same at once shares one call: its leader's. Streams read and fill the cache, but neither lead nor follow. A
cache that does not answer is bypassed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import TypeVar

import trio
from attrs import evolve

from wizard_actors.actor import Ask
from wizard_actors.books import Books
from wizard_actors.cache_key import Key, cache_key
from wizard_actors.cache_messages import (
    BYPASS,
    PATIENCE,
    Hit,
    Landed,
    Lead,
    Look,
    Lookup,
    Miss,
    SharedCall,
    Store,
    cacheable,
    served,
)
from wizard_actors.errors import DeadlineExceededError, WizardError
from wizard_actors.events import CacheLooked, CacheOutcome, Degraded, DegradedTo
from wizard_actors.lane import Begun, Lane
from wizard_actors.port import deadline_exceeded
from wizard_actors.reporting import reported
from wizard_actors.request import Request
from wizard_actors.shared import Shared
from wizard_actors.types import (
    End,
    ReasoningDelta,
    ServedBy,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    UsageUpdate,
    WizardResponse,
)
from wizard_actors.verdict import Row
from wizard_actors.way import Way

__all__ = ["Answering"]

R = TypeVar("R")

CALLERS_FAULT = frozenset({Row.BAD_PROMPT, Row.TOO_LONG, Row.REFUSED})
"""What no substitute is given for: the request itself is at fault, and its caller has to learn so."""


class Answering:
    """One request, from the cache to the last resort."""

    def __init__(self, shared: Shared, request: Request) -> None:
        self._shared = shared
        self._request = request
        self._books = Books(shared, request)
        self._way = Way(self._books)
        self._key = self._make_key()
        self._stale: WizardResponse | None = None

    @trio.lowlevel.enable_ki_protection
    async def whole(self) -> WizardResponse:
        """Return the whole answer. Raises what `Way` says, where nothing stands in for it.

        A Ctrl-C waits for the next wait: anywhere else it could come between a grant and its keeper.
        """
        with reported(self._books):
            self._books.response = await self._whole()
            return self._books.response

    async def _whole(self) -> WizardResponse:
        key = self._key
        looked = None if key is None else await self._ask(Lookup(key, fresh_only=self._request.cache == "refresh"))
        if isinstance(looked, Hit):
            self._looked("hit")
            return served(looked.response, self._request.request_id)
        if key is None or looked is None:
            self._looked("bypass")
            return await self._from_models()
        if isinstance(looked, Lead):
            self._looked("lead")
            self._stale = looked.stale
            return await self._lead(key, looked.flight)
        self._looked("follow")
        shared = await self._follow(looked.flight)
        if shared is not None:
            return served(shared, self._request.request_id)
        return await self._lead(key, looked.flight, promoted=True)

    @trio.lowlevel.enable_ki_protection
    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events of the answer, which end with `End` or an error. To be closed in the task that reads it.

        There is no other generator below: each would add to what a chunk costs.
        """
        way, books = self._way, self._books
        with reported(books):
            try:
                begun = await self._next()
                while isinstance(begun, Begun):
                    try:
                        async with begun.exchange:
                            for event in way.deliver(begun.events):
                                yield event  # noqa: ASYNC119 - see above
                            while not begun.attempt.complete:
                                for event in way.deliver(await begun.lane.read(begun.attempt)):
                                    yield event  # noqa: ASYNC119 - see above
                        break
                    except WizardError as error:
                        failure = error
                    begun = await self._next(begun, failure)
                response = way.answered(begun) if isinstance(begun, Begun) else begun
                self._store(response)
                for event in way.deliver(replay(response, content=response is begun)):
                    yield event  # noqa: ASYNC119 - see above
            finally:
                way.leave()

    async def _next(self, broken: Begun | None = None, error: WizardError | None = None) -> Begun | WizardResponse:
        """Return what can be delivered next, at first or after `broken` has failed with `error`: an answer that has
        begun, or the whole response that stands in for one.
        """
        lane: Lane | None = None
        try:
            if broken is not None and error is not None:
                lane = self._way.broken(broken, error)
            elif (hit := await self._stored()) is not None:
                self._books.response = hit
                return hit
            else:
                await self._way.plan()
            return await self._way.begin(lane)
        except WizardError as failure:
            response = None if self._way.delivered else self._substitute(failure)
            if response is None:
                raise
            self._books.response = response
            return response

    async def _stored(self) -> WizardResponse | None:
        """Return a stored answer that is fresh; keep one that is not for when all models fail."""
        if self._key is None:
            return None
        looked = await self._ask(Look(self._key))
        if isinstance(looked, Hit):
            if self._request.cache == "use":
                self._looked("hit")
                return served(looked.response, self._request.request_id)
            if self._shared.config.cache.stale_if_error:
                self._stale = looked.response
        elif looked is not None:
            self._stale = looked.stale
        self._looked("bypass" if looked is None else "miss")
        return None

    # -- single flight

    async def _lead(self, key: Key, flight: SharedCall, *, promoted: bool = False) -> WizardResponse:
        """Answer for everybody who follows. Cancelled, or out of its own time, hand them over to the oldest of them.

        `promoted`: it was the leader before this one whom the cache told what it has.
        """
        try:
            if promoted and isinstance(looked := await self._ask(Look(key)), Miss):
                self._stale = looked.stale
            response = await self._from_models()
            flight.land(response)
            return response
        except DeadlineExceededError:
            raise
        except Exception as error:  # a bug too: everybody in turn would meet it
            flight.fail(error)
            raise
        finally:
            flight.hand_over()
            if self._shared.cache is not None:
                self._shared.cache.tell(Landed(key, flight))

    async def _follow(self, flight: SharedCall) -> WizardResponse | None:
        """Wait for the leader's answer, within the request's own deadline; None: lead from here on."""
        with trio.CancelScope(deadline=self._request.deadline):
            since = trio.current_time()
            try:
                return await flight.follow()
            finally:
                self._books.waited(since, trio.current_time())
        raise deadline_exceeded(self._request.given)

    # -- the cache

    def _make_key(self) -> Key | None:
        """Return the request's key; None where the cache has nothing to do with it."""
        shared, request = self._shared, self._request
        if shared.cache is None or request.cache == "bypass":
            return None
        models = [shared.ports[name].config for name in request.route.chain if name in shared.ports]
        return cache_key(request.prompt, models, tenant=request.tenant)

    async def _ask(self, message: Ask[R]) -> R | None:
        """Ask the cache; None where it does not answer soon: nobody waits for a cache that is down."""
        if self._shared.cache is None:
            return None
        deadline = min(self._request.deadline, trio.current_time() + PATIENCE)
        try:
            return await self._shared.cache.ask(message, deadline=deadline)
        except BYPASS:
            return None

    def _store(self, response: WizardResponse) -> None:
        if self._key is not None and self._shared.cache is not None and cacheable(response):
            text = "\n".join(message.text for message in self._request.prompt.conversation)
            self._shared.cache.tell(Store(self._key, response, response.model, text))

    # -- the models, and what stands in for them

    async def _from_models(self) -> WizardResponse:
        try:
            await self._way.plan()
            response = self._way.answered(await self._way.begin())
        except WizardError as error:
            substitute = self._substitute(error)
            if substitute is None:
                raise
            return substitute
        finally:
            self._way.leave()
        self._store(response)
        return response

    def _substitute(self, error: WizardError) -> WizardResponse | None:
        """Return what stands in for an answer that no model gave, None where the caller has to learn of the error."""
        rows = {record.error.row for record in error.attempts if record.error is not None} or {error.row}
        answer, stale = self._request.route.static_answer, self._stale
        if rows <= CALLERS_FAULT or error.row is Row.BAD_PROMPT or (stale is None and answer is None):
            return None
        now, books = trio.current_time(), self._books
        to: DegradedTo = "static" if stale is None else "stale"
        books.publish(Degraded(now, self._request.request_id, to, error))
        if stale is not None:
            response = served(stale, self._request.request_id, stale=True)
        else:
            response = WizardResponse(
                text=answer or "",
                model="",
                cost=Decimal(0),
                served_by=ServedBy.STATIC,
                request_id=self._request.request_id,
            )
        return evolve(response, attempts=books.attempts)

    def _looked(self, outcome: CacheOutcome) -> None:
        if self._shared.cache is not None:
            self._books.publish(CacheLooked(trio.current_time(), self._request.request_id, outcome))


def replay(response: WizardResponse, *, content: bool) -> list[StreamEvent]:
    """Return the end of the stream of a response, after its `content` where that has not been delivered."""
    events: list[StreamEvent] = []
    if content and response.reasoning:
        events.append(ReasoningDelta(response.reasoning))
    if content and response.text:
        events.append(TextDelta(response.text))
    if content:
        calls = enumerate(response.tool_calls)
        events += [ToolCallDelta(index, call.id, call.name, call.arguments) for index, call in calls]
    if response.usage is not None:
        events.append(UsageUpdate(response.usage))
    return [*events, End(response)]
