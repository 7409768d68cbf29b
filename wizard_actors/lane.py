"""One model within one request: its attempts, the delays between them, and when it is given up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, TypeVar

import trio
from attrs import define

from wizard_actors.actor import Ask
from wizard_actors.attempt import Attempt
from wizard_actors.books import Books
from wizard_actors.errors import ActorCrashedError, ActorStoppedError, DeadlineExceededError, WizardError
from wizard_actors.events import BudgetExhausted, BudgetSpent, Retrying
from wizard_actors.plan import Choice, Probe, Why
from wizard_actors.port import Patience, Port, deadline_exceeded
from wizard_actors.providers.base import Call
from wizard_actors.request import Delivery
from wizard_actors.retry import retry_delay
from wizard_actors.routing import ClaimProbe, ProbeOver
from wizard_actors.types import ContentDelta, Finished, Raw, UsageUpdate
from wizard_actors.verdict import Again

__all__ = ["Begun", "Lane", "ask_router"]

R = TypeVar("R")

NO_CONTENT: Final = (UsageUpdate, Finished, Raw)
"""The events that are no part of an answer."""


async def ask_router(books: Books, message: Ask[R]) -> R:
    """Ask within the request's deadline."""
    try:
        return await books.shared.router.ask(message, deadline=books.request.deadline)
    except DeadlineExceededError:
        raise deadline_exceeded(books.request.given) from None


class Exchange:
    """Holds an attempt open for as long as its block lasts; closed twice, it is closed once."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt: Attempt | None = attempt

    async def __aenter__(self) -> None:
        """The attempt has been entered."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            await attempt.__aexit__(kind, error, trace)  # noqa: ASYNC102 - shields itself where it must

    async def aclose(self) -> None:
        """Close the attempt."""
        await self.__aexit__(None, None, None)


@define(eq=False)
class Begun:
    """An answer that can be delivered: as a whole, or from its first content on, `events`.

    `exchange` holds the attempt open while more is to be read, and is to be left in any case.
    """

    lane: Lane
    attempt: Attempt
    events: list[ContentDelta]
    exchange: Exchange

    def take(self) -> list[ContentDelta]:
        """Return what has arrived and not been delivered, once."""
        events, self.events = self.events, []
        return events


class Others(Protocol):
    """Whoever knows what other models there are for a request."""

    @property
    def waiting(self) -> bool:
        """Whether another model waits to be asked."""

    @property
    def remain(self) -> bool:
        """Whether another model waits to be asked, or is being asked."""


class Lane:
    """One model's part in one request. `tokens` is the estimated length of the prompt; `hedge`: it is asked because
    another model, which still runs, was late.

    A lane is closed by whoever made it, however it ends: `close`.
    """

    def __init__(self, books: Books, port: Port, choice: Choice, others: Others, *, tokens: int, hedge: bool) -> None:
        self.port = port
        self.choice = choice
        self.attempts = 0
        self._hedge = hedge
        self._others = others
        self._books = books
        self._tokens = tokens
        self._failures: list[WizardError] = []
        self._delay = 0.0
        self._probe: Probe | None = None
        self._attempt: Attempt | None = None
        self._number = 0
        self._heard = self._sent = False

    @property
    def model(self) -> str:
        """The model's name."""
        return self.port.name

    @property
    def heard(self) -> bool:
        """Whether the present attempt has got its first token."""
        return self._heard

    async def claim(self) -> bool:
        """Claim the probe of a model whose bar has expired; return whether the model may be asked."""
        if self.choice.why is not Why.PROBE or self._probe is not None:
            return True
        try:
            self._probe = await ask_router(self._books, ClaimProbe(self.model))
        except ActorCrashedError:
            return True
        return self._probe is not None

    async def begin(self) -> Begun:
        """Ask the model, and ask it again where that makes sense, until there is something to deliver: live, the first
        content; else the whole answer.

        Raises the error for which the model is given up. Holds nothing but a claimed probe while it waits for the next
        attempt.
        """
        while True:
            await self._wait()
            attempt = self._next_attempt()
            try:
                return await self._read(attempt)
            except WizardError as error:
                self.failed(error)
                if not self.again():
                    raise

    async def read(self, attempt: Attempt) -> Sequence[ContentDelta]:
        """Read the attempt on, and return what of the answer has arrived. It says itself when it is complete."""
        batch = await attempt.read()
        if not self._heard and attempt.first_token is not None:
            self._heard = True
            self._books.heard(attempt, self._number)
            self._give_back_probe()  # that the model answers is known; how long its answer is concerns nobody else
        if batch is None:
            self._note(None)
            return ()
        return [event for event in batch if not isinstance(event, NO_CONTENT)]

    def lost(self, delay: float) -> None:
        """Note that a hedge, begun when this model was `delay` seconds late, has won: the lane will be cancelled."""
        if self._attempt is not None and not self._hedge:
            self._attempt.lost(delay)

    def failed(self, error: WizardError) -> None:
        """Note that the attempt has failed."""
        self._note(error)
        self._failures.append(error)

    def again(self) -> bool:
        """Decide, after a failure, whether the model is asked again, and after which delay."""
        books, now = self._books, trio.current_time()
        request_id, name = books.request.request_id, self.model
        delay = retry_delay(self._failures, self.port.config.retry, last=not self._others.remain, rng=books.shared.rng)
        if delay is None:
            return False
        if now + delay >= books.request.deadline:
            books.hurried = True
            return False
        if self._sent:
            if not books.shared.budget.try_spend(now):
                books.publish(BudgetExhausted(now, request_id, name, hedge=False))
                return False
            books.publish(BudgetSpent(now, request_id, name, hedge=False))
        self._delay = delay
        books.publish(Retrying(now, request_id, name, delay))
        return True

    def close(self) -> None:
        """Give the probe back, and note an attempt that was neither answered nor failed: it was cancelled."""
        self._note(None, cancelled=True)
        self._give_back_probe()

    def _give_back_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            self._books.shared.router.give_back(probe, ProbeOver())

    # -- one attempt

    async def _wait(self) -> None:
        """Wait out the delay."""
        if self._delay <= 0.0:
            return
        with trio.move_on_after(self._delay):
            await self._books.shared.stopping.wait()
            raise ActorStoppedError("the client was closed before the next attempt", actor="wizard") from (
                self._failures[-1]
            )

    def _next_attempt(self) -> Attempt:
        request = self._books.request
        self.attempts += 1
        self._number = self._books.begin(self.model, hedge=self._hedge and self.attempts == 1)
        self._heard = False
        call = Call(request.prompt, request.request_id, request.raw)
        patience, delay = self._patience(), self._delay
        self._attempt = Attempt(self.port, call, patience, delay=delay, input_tokens=self._tokens)
        return self._attempt

    async def _read(self, attempt: Attempt) -> Begun:
        """Read until something can be delivered."""
        delivery, held = self._books.request.delivery, list[ContentDelta]()
        await attempt.__aenter__()
        exchange = Exchange(attempt)
        try:
            while not attempt.complete and not (delivery is Delivery.LIVE and held):
                events = await self.read(attempt)
                if delivery is not Delivery.WHOLE:
                    held += events
            if attempt.complete:
                await exchange.aclose()
        except BaseException as error:
            await exchange.__aexit__(type(error), error, error.__traceback__)  # noqa: ASYNC102 - shields itself where it must
            raise
        return Begun(self, attempt, held, exchange)

    def _patience(self) -> Patience:
        """Say how long the next attempt may take.

        A pause that a 429 asked for is obeyed up to a cap, which is lower while other models remain: whoever was told
        waits it out, whatever else the limiter's queue may cost, and whoever comes later does not begin to.
        """
        config, request, retry = self._books.shared.config, self._books.request, self.port.config.retry
        last = not self._others.remain
        obeyed = retry.retry_after_cap if last else retry.retry_after_cap_with_fallback
        told = bool(self._failures) and self._failures[-1].verdict.again is Again.REACQUIRE
        max_wait = self.port.config.rate_limit.max_wait
        return Patience(
            queue_timeout=config.server.queue_timeout,
            max_wait=max(max_wait, obeyed) if told else max_wait,
            longest_pause=math.inf if last else obeyed,
            deadline=request.deadline,
            given=request.given,
            last=not self._others.waiting,
        )

    def _note(self, error: WizardError | None, *, cancelled: bool = False) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self._sent = attempt.sent_at is not None
            hedge = self._hedge and self.attempts == 1
            self._books.end(attempt, self._number, error, hedge=hedge, cancelled=cancelled)
