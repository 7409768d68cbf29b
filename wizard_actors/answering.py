"""Graceful degradation: the cache before the models, and what stands in for them when all have failed.

    cache ─> the way through the models (breaker, fallback, retry) ─> an expired entry of the cache ─> a static answer

Who asks the same at once shares one call: its leader's. Streams read and fill the cache, but neither lead nor follow. A
cache that does not answer is bypassed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from decimal import Decimal
from typing import Final, TypeVar

import trio
from attrs import evolve, frozen

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
    SharedCall,
    Store,
    cacheable,
    served,
)
from wizard_actors.errors import DeadlineExceededError, WizardError
from wizard_actors.events import CacheLooked, CacheOutcome, Degraded, DegradedTo
from wizard_actors.failure import total_cost
from wizard_actors.lane import Begun, Lane
from wizard_actors.metrics import overhead
from wizard_actors.port import deadline_exceeded
from wizard_actors.reporting import Reported
from wizard_actors.request import Request
from wizard_actors.shared import Shared
from wizard_actors.types import (
    End,
    ReasoningDelta,
    ServedBy,
    StreamEvent,
    TextDelta,
    Thought,
    ThoughtEnded,
    ToolCallDelta,
    UsageUpdate,
    WizardResponse,
)
from wizard_actors.verdict import Row
from wizard_actors.way import Way, forget_frames

__all__ = ["Answering", "SoFar"]

R = TypeVar("R")

CALLERS_FAULT: Final = frozenset({Row.TOO_LONG, Row.REFUSED})
"""Where every model says no more than this, the request itself is at fault, and its caller has to learn so."""


@frozen
class SoFar:
    """How a request stands, while it is answered and afterwards.

    `model` is the one whose answer is being delivered, by its configured name, and `served_by` the step of the way; ""
    and None before there is one. So many `attempts` have begun. `overhead` are the seconds that were neither a model's
    nor a wait; None while a stream has yet to begin, for what goes on then is known once it is over. `cache` is what
    the look into it came to, None where there was none.
    """

    model: str
    served_by: ServedBy | None
    attempts: int
    overhead: float | None
    cache: CacheOutcome | None


class Answering:
    """One request, from the cache to the last resort.

    `over`: it holds nothing any more, whatever is left to read. `hit`: its answer was in the cache, and fresh.
    """

    def __init__(self, shared: Shared, request: Request) -> None:
        self._shared = shared
        self._request = request
        self._books = Books(shared, request)
        self._way = Way(self._books)
        self._key = self._make_key()
        self._flight: Key | None = None
        self._stale: WizardResponse | None = None
        self._begun: Begun | WizardResponse | None = None
        self._look: CacheOutcome | None = None
        self._seeking = False  # nothing can be delivered, and it is being waited for
        self.over = False
        self.hit = False

    @property
    def so_far(self) -> SoFar:
        """How it stands now."""
        books, now, served_by = self._books, trio.current_time(), None
        waits, model = books.waits, ""
        if isinstance(self._begun, Begun):
            model, served_by = self._begun.lane.model, self._way.served_by(self._begun)
            sent_at = self._begun.attempt.sent_at
            waits = waits if sent_at is None else [*waits, (sent_at, now)]
        if books.response is not None:
            model, served_by = books.response.model, books.response.served_by
        spent = None if self._seeking else overhead(books.began, now, waits)
        return SoFar(model, served_by, books.begun, spent, self._look)

    @trio.lowlevel.enable_ki_protection
    async def whole(self) -> WizardResponse:
        """Return the whole answer. Raises what `Way` says, where nothing stands in for it.

        A Ctrl-C waits for the next wait: anywhere else it could come between a grant and its keeper.
        """
        with Reported(self._books):
            try:
                self._books.response = await self._whole()
            except WizardError as error:
                self._books.response = self._substitute(error)
                if self._books.response is None:
                    raise
            return self._books.response

    async def _whole(self) -> WizardResponse:
        key, refresh = self._key, self._request.cache == "refresh"
        looked = None if key is None else await self._ask(Lookup(key, refresh, flight_key=self._flight_key(key)))
        if isinstance(looked, Hit):
            return self._found(looked)
        if key is None or looked is None:
            self._looked("bypass")
            return await self._from_models()
        self._stale = looked.stale
        if isinstance(looked, Lead):
            self._looked("lead")
            return await self._lead(key, looked.flight)
        self._looked("follow")
        shared = await self._follow(key, looked.flight)
        if shared is not None:
            return served(shared, self._request.request_id)
        return await self._lead(key, looked.flight)

    @trio.lowlevel.enable_ki_protection
    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events of the answer, which end with `End` or an error. To be closed in the task that reads it.

        There is no other generator below: each would add to what a chunk costs.
        """
        way = self._way
        with Reported(self._books):
            try:
                begun = self._begun = await self._next()
                while isinstance(begun, Begun) and not begun.attempt.complete:
                    failure: WizardError | None = None
                    try:
                        async with begun.exchange:
                            for event in way.deliver(begun.take()):
                                yield event  # noqa: ASYNC119 - see above
                            while not begun.attempt.complete:
                                for event in way.deliver(await begun.lane.read(begun.attempt)):
                                    yield event  # noqa: ASYNC119 - see above
                    except WizardError as error:
                        failure = error
                    if failure is not None:
                        begun = self._begun = await self._next(begun, failure)
                rest = self._rest(begun)
            finally:
                way.leave()
        self.over = True
        for event in rest:
            yield event

    def _rest(self, begun: Begun | WizardResponse) -> Sequence[StreamEvent]:
        """Return what is left to deliver of a whole answer, and store it."""
        if isinstance(begun, WizardResponse):
            return self._way.deliver(replay(begun, content=True))
        response = self._way.answered(begun)
        self._store(response)
        return self._way.deliver([*begun.take(), *replay(response, content=False)])

    async def _next(self, broken: Begun | None = None, error: WizardError | None = None) -> Begun | WizardResponse:
        """Return what can be delivered next, at first or after `broken` has failed with `error`: an answer that has
        begun, or the whole response that stands in for one.
        """
        lane: Lane | None = None
        self._seeking = True
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
        finally:
            self._seeking = False

    async def _stored(self) -> WizardResponse | None:
        """Return a stored answer that is fresh; keep one that is not for when all models fail."""
        if self._key is None:
            return None
        looked = await self._ask(Look(self._key, fresh_only=self._request.cache == "refresh"))
        if isinstance(looked, Hit):
            return self._found(looked)
        self._looked("bypass" if looked is None else "miss")
        self._stale = None if looked is None else looked.stale
        return None

    def _found(self, stored: Hit) -> WizardResponse:
        self._looked("hit")
        self.hit = True
        return served(stored.response, self._request.request_id)

    # -- single flight

    async def _lead(self, key: Key, flight: SharedCall) -> WizardResponse:
        """Answer for everybody who follows. Cancelled, or failed for want of time, hand them over to the oldest of
        them, who may have more. What stands in for an answer is each caller's own affair.
        """
        try:
            response = await self._from_models()
            flight.land(response)
            return response
        except Exception as error:  # a bug too: everybody in turn would meet it
            if not (isinstance(error, DeadlineExceededError) or self._books.hurried):
                flight.fail(error)
            raise
        finally:
            flight.hand_over()
            self._tell_landed(key, flight)

    def _tell_landed(self, key: Key, flight: SharedCall) -> None:
        if self._shared.cache is not None:
            self._shared.cache.tell(Landed(self._flight_key(key), flight))

    async def _follow(self, key: Key, flight: SharedCall) -> WizardResponse | None:
        """Wait for the leader's answer, within the request's own deadline; None: lead from here on."""
        with trio.CancelScope(deadline=self._request.deadline):
            since = trio.current_time()
            try:
                return await flight.follow()
            finally:
                self._books.waited(since, trio.current_time())
                if flight.abandoned:  # it was handed to us as we were cancelled, and nobody else follows
                    self._tell_landed(key, flight)
        raise deadline_exceeded(self._request.given)

    # -- the cache

    def _make_key(self) -> Key | None:
        """Return the request's key; None where the cache has nothing to do with it."""
        shared, request = self._shared, self._request
        if shared.cache is None or request.cache == "bypass" or request.raw:
            return None
        models = [shared.ports[name].config for name in request.route.chain if name in shared.ports]
        return cache_key(request.prompt, models, tenant=request.tenant)

    def _flight_key(self, key: Key) -> Key:
        """Return under which key the call is shared: who asks the same in another way, or in another configuration of
        the client, makes a call of its own.
        """
        if self._flight is None:
            route = self._request.route
            how = (self._shared.holds.number, route.strategy, route.spill, route.hedge_delay, route.hedge_quantile)
            self._flight = key + repr(how).encode()
        return self._flight

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
        finally:
            self._way.leave()
        self._store(response)
        return response

    def _substitute(self, error: WizardError) -> WizardResponse | None:
        """Return what stands in for an answer that no model gave, None where the caller has to learn of the error.

        The attempts are this request's own; none, where it shared those of another.
        """
        rows = {record.error.row for record in error.attempts if record.error is not None} or {error.row}
        if Row.BAD_PROMPT in {*rows, error.row} or rows <= CALLERS_FAULT or self._shared.stopping.is_set():
            return None
        stale, answer = self._stale, self._request.route.static_answer
        if stale is None and answer is None:
            return None
        attempts = self._books.attempts
        for record in attempts:
            forget_frames(record.error)
        to: DegradedTo = "static" if stale is None else "stale"
        self._books.publish(Degraded(trio.current_time(), self._request.request_id, to, error))
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
        return evolve(response, attempts=attempts, cost=total_cost(attempts) or Decimal(0))

    def _looked(self, outcome: CacheOutcome) -> None:
        if self._shared.cache is not None:
            self._look = outcome
            self._books.publish(CacheLooked(trio.current_time(), self._request.request_id, outcome))


def replay(response: WizardResponse, *, content: bool) -> list[StreamEvent]:
    """Return the end of the stream of a response, after its `content` where that has not been delivered.

    Only the last thought may be left without an end, as it may have come, where it is a text and nothing else.
    """
    events: list[StreamEvent] = []
    for number, thought in enumerate(response.thoughts if content else (), 1):
        if thought.text:
            events.append(ReasoningDelta(thought.text))
        if number < len(response.thoughts) or not thought.text or thought != Thought(thought.text):
            events.append(ThoughtEnded(thought.signature, thought.redacted, thought.id))
    if content and response.text:
        events.append(TextDelta(response.text))
    if content:
        calls = enumerate(response.tool_calls)
        events += [ToolCallDelta(index, call.id, call.name, call.arguments, call.signature) for index, call in calls]
    if response.usage is not None:
        events.append(UsageUpdate(response.usage))
    return [*events, End(response)]
