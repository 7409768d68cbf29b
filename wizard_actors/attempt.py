"""One attempt at one model, in the task of whoever asked: leave from its actors, the call, its deadlines, the books.

The order is that of trials: slot, then rate, then permit. A permit taken before the limiter's wait lets calls out while
the circuit is open; rate before slot sends more than the limit in a window, because the slot is waited for with the
leave in hand. And a permit counts only if the breaker's published generation is still its own in the very step in which
the breaker's answer resumes this task: between the grant and that step the circuit may have opened.

Everything goes back where it came from in the reverse order: the permit and the grant as soon as it is known how the
call ended, the slot once the exchange is closed, for until then the model is busy with it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from decimal import Decimal
from types import TracebackType
from typing import Final, Self, TypeVar

import trio
from attrs import frozen

from wizard_actors.actor import ActorRef, Ask
from wizard_actors.breaker_core import BreakerState, Permit
from wizard_actors.circuit_breaker import Admit, Ended, refusal
from wizard_actors.config import ModelConfig, PriceConfig
from wizard_actors.errors import (
    DeadlineExceededError,
    MailboxFullError,
    ProviderBugError,
    ProviderTimeoutError,
    RateLimitError,
    SerializationError,
    StreamInterruptedError,
    TimeoutPhase,
    UnsupportedError,
    WizardError,
)
from wizard_actors.failure import Attempt as Record
from wizard_actors.gcra import Grant, LimiterState
from wizard_actors.providers.base import Answer, Call, Provider
from wizard_actors.rate_limit import Acquire, HeadersSeen, Settle
from wizard_actors.slots import Slot, WorkerState
from wizard_actors.streaming import Assembly
from wizard_actors.types import ModelEvent, TokenUsage
from wizard_actors.verdict import Outcome
from wizard_actors.worker import FirstToken, Release, TakeSlot

__all__ = ["Attempt", "Patience", "Port", "deadline_exceeded"]

log = logging.getLogger("wizard_actors.attempt")

R = TypeVar("R")

BENEFIT_OF_DOUBT: Final = 300.0
"""Seconds of silence for which a model that was seen to be slow counts as slow rather than dead to hurried callers."""

USAGE_WAIT: Final = 1.0
"""Seconds for which the usage is awaited once an answer is complete."""

MILLION: Final = Decimal(1_000_000)


@frozen
class Port:
    """One model, as an attempt reaches it."""

    config: ModelConfig
    provider: Provider
    worker: ActorRef[WorkerState]
    limiter: ActorRef[LimiterState]
    breaker: ActorRef[BreakerState]

    @property
    def name(self) -> str:
        """What callers call the model."""
        return self.config.name

    @property
    def down(self) -> bool:
        """Whether one of the model's actors takes no asks."""
        return not (self.worker.available and self.limiter.available and self.breaker.available)


@frozen
class Patience:
    """How long one attempt may take.

    `deadline` is the request's, an instant; `given` is what the caller had named, in seconds. At most `queue_timeout`
    seconds are waited for a slot, `max_wait` for the limiter's turn, nothing while the limiter stands still for more
    than `longest_pause`. `last`: no other model remains; else a first token gets at most half of what remains of the
    caller's time when the request is sent.
    """

    queue_timeout: float
    max_wait: float
    longest_pause: float = math.inf
    deadline: float = math.inf
    given: float | None = None
    last: bool = True


def deadline_exceeded(given: float | None) -> DeadlineExceededError:
    """Return the error for a request whose deadline, `given` seconds, has passed."""
    return DeadlineExceededError(
        "the request's deadline passed" if given is None else f"the request's deadline of {given:g} s passed",
        deadline=given,
    )


class Attempt:
    """An async context manager: entered once the response's head is here, then read until None, then left.

    Everything that it was granted is given back exactly once, with what was learned, however it ends: the caller's own
    cancellation, and a consumer that leaves early, are neutral. `delay` is what has been waited for it already, in
    seconds.
    """

    def __init__(self, port: Port, call: Call, patience: Patience, *, delay: float = 0.0) -> None:
        self.port = port
        self.assembly = Assembly()
        self.began = trio.current_time()
        self.sent_at: float | None = None
        self.complete = False
        self.ended_at: float | None = None
        self.upstream_model: str | None = None
        self._call = call
        self._patience = patience
        self._delay = delay
        self._slot: Slot | None = None
        self._grant: Grant | None = None
        self._permit: Permit | None = None
        self._streams = True
        self._exchange: AbstractAsyncContextManager[Answer] | None = None
        self._answer: Answer
        self._first_token = math.inf
        self._hurried = False
        self._finished_at = self._total_at = self._first_token_at = math.inf
        self._left_at = math.inf
        self._told = False
        self._ending = Outcome.IGNORED

    # -- what it was

    @property
    def cost(self) -> Decimal | None:
        """What the attempt has cost so far, in US dollars; None where the usage or the price is unknown."""
        price, usage = self.port.config.price, self.assembly.usage
        return None if price is None or usage is None else _cost(price, usage)

    def record(self, error: WizardError | None) -> Record:
        """Return the attempt as responses and errors list it."""
        sent = self.sent_at
        ended = trio.current_time() if self.ended_at is None else self.ended_at
        return Record(
            model=self.port.name,
            start=self.began,
            duration=0.0 if sent is None else ended - sent,
            delay=self._delay + ((ended if sent is None else sent) - self.began),
            error=error,
            cost=self.cost,
            sent=sent is not None,
        )

    # -- the call

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        """Get leave, send the request, and wait for the response's head. Raises what forbids or breaks the call."""
        try:
            await self._get_leave()
            await self._open()
        except WizardError as error:
            self._settle(self._outcome(error), error)
            raise
        finally:
            if self._exchange is None:
                self._settle(Outcome.IGNORED, None)  # cancelled
                self._release()
        return self

    async def read(self) -> Sequence[ModelEvent] | None:
        """Wait for the next events of the answer; None once it is complete, with or without its usage.

        Raises a `ProviderError` where it breaks off, ends too soon, or takes longer than the model's timeouts allow;
        `DeadlineExceededError` where the caller's own deadline passes.
        """
        now = trio.current_time()
        away = now - self._left_at  # the consumer's time is not the model's
        self._total_at += away
        self._finished_at += away
        finished = self.assembly.finished is not None
        try:
            events = await self._next(self._until(now, finished=finished))
        except WizardError:
            if not finished:
                raise
            events = None  # what breaks after the end of an answer does not make it less complete
        self._left_at = trio.current_time()
        if events is not None:
            self._take(events)
            return events
        if not finished:
            raise StreamInterruptedError(
                f"{self.port.name} ended its answer without saying that it was complete",
                model=self.port.name,
                request_id=self._upstream_id(),
            )
        self._done()
        return None

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, WizardError):
            self._settle(self._outcome(error), error)
        try:
            if self._exchange is not None:
                with self._bugs():
                    await self._exchange.__aexit__(kind, error, trace)  # noqa: ASYNC102 - shields itself where it must
        except WizardError as failure:
            if failure is not error:  # a whole answer is no less whole for it, and a failure stays what it was
                log.warning(
                    "%s: closing an exchange failed: %s", self.port.name, type(failure.__cause__ or failure).__name__
                )
        finally:
            self._settle(Outcome.IGNORED, None)
            self._release()

    # -- leave

    async def _get_leave(self) -> None:
        self._peek()
        patience, now = self._patience, trio.current_time()
        try:
            slot = await self._ask(self.port.worker, TakeSlot(self._call.request_id, now + patience.queue_timeout))
        except MailboxFullError as error:
            limiter = self.port.limiter.published
            if limiter is None or not limiter.waiting:
                raise
            raise self._rate_limited(limiter.paused_until - trio.current_time()) from error  # that is what all wait for
        self._slot = slot
        now = trio.current_time()
        self._grant = await self._ask(self.port.limiter, Acquire(now, patience.max_wait, patience.deadline))
        while self._permit is None:
            permit = await self.port.breaker.ask(Admit())
            state = self.port.breaker.published
            if state is not None and state.honours(permit):
                self._permit = permit
            else:  # of an earlier generation: the circuit has opened, or closed again, since it was granted
                self.port.breaker.give_back(permit, Ended(Outcome.IGNORED))
                self._peek()

    def _peek(self) -> None:
        """Raise where it is known that there would be no leave, so that nothing is spent on it."""
        now, name = trio.current_time(), self.port.name
        circuit, limiter = self.port.breaker.published, self.port.limiter.published
        if circuit is not None and (refused := refusal(name, circuit, now)) is not None:
            raise refused
        pause = 0.0 if limiter is None else limiter.paused_until - now
        if pause > self._patience.longest_pause:
            raise self._rate_limited(pause)

    def _rate_limited(self, pause: float) -> RateLimitError:
        """Return the error for a call that the limiter would hold back for too long; `pause` is its present one."""
        how = f" for another {pause:.3g} s" if pause > 0 else ""
        return RateLimitError(
            f"{self.port.name} is at its rate limit{how}",
            model=self.port.name,
            retry_after=pause if pause > 0 else None,
            source="limiter",
        )

    async def _ask(self, ref: ActorRef[object], message: Ask[R]) -> R:
        """Ask within the request's deadline."""
        try:
            return await ref.ask(message, deadline=self._patience.deadline)
        except DeadlineExceededError:
            raise deadline_exceeded(self._patience.given) from None

    # -- time

    async def _open(self) -> None:
        now = self.sent_at = trio.current_time()
        timeouts, deadline = self.port.config.timeouts, self._patience.deadline
        half = math.inf if self._patience.last else (deadline - now) / 2
        self._hurried = half < timeouts.first_token
        self._first_token = min(half, timeouts.first_token)
        self._total_at = now + timeouts.total
        with self._bugs():
            self._streams = self.port.provider.streams
        if self._streams:
            self._first_token_at = now + self._first_token
        try:
            with trio.CancelScope(deadline=self._until(now, finished=False)) as scope, self._bugs():
                exchange = self.port.provider.open(self._call)
                self._answer = await exchange.__aenter__()
                self._exchange = exchange
        except (SerializationError, UnsupportedError):
            self.sent_at = None  # by their meaning: such a prompt cannot be sent
            raise
        if scope.cancelled_caught:
            raise self._late("first_token")
        self._left_at = trio.current_time()

    async def _next(self, until: float) -> Sequence[ModelEvent] | None:
        with trio.CancelScope(deadline=until):
            try:
                if not self._told:
                    self._tell_limits()
                return await self._answer.read()
            except WizardError:
                raise
            except Exception as error:
                raise self._bug(error) from error
        raise self._late("stall" if self.assembly.started else "first_token")

    def _until(self, now: float, *, finished: bool) -> float:
        """Return until when a wait that begins at `now` may take."""
        if finished:
            limit = self._finished_at + USAGE_WAIT
        elif not self._streams:
            limit = math.inf
        elif self.assembly.started:
            limit = now + self.port.config.timeouts.stall
        else:
            limit = self._first_token_at
        return min(limit, self._total_at, self._patience.deadline)

    def _late(self, phase: TimeoutPhase) -> WizardError:
        """Return the error for a wait that took too long."""
        now, timeouts = trio.current_time(), self.port.config.timeouts
        if now >= self._patience.deadline:
            return deadline_exceeded(self._patience.given)
        if now >= self._total_at:
            phase = "total"
        seconds = {"first_token": self._first_token, "stall": timeouts.stall, "total": timeouts.total}[phase]
        return ProviderTimeoutError(
            f"{self.port.name} was too late: {phase.replace('_', ' ')} after {seconds:.3g} s",
            model=self.port.name,
            phase=phase,
            request_id=self._upstream_id(),
        )

    def _upstream_id(self) -> str | None:
        if self._exchange is None:
            return None
        with self._bugs():
            return self._answer.upstream_id

    # -- the books

    def _tell_limits(self) -> None:
        """Let the limiter know what the response's head said, whatever its body says."""
        self._told = True
        if self._grant is not None and (limits := self._answer.limits) is not None:
            self.port.limiter.notify(self._grant, HeadersSeen(limits))

    def _take(self, events: Sequence[ModelEvent]) -> None:
        """Put the events together, and tell the worker of the first token."""
        before = self.assembly.started
        self.assembly.extend(events)
        if not before and self.assembly.started and self._slot is not None and self.sent_at is not None:
            self.port.worker.notify(self._slot, FirstToken(self._left_at - self.sent_at))
        if self.assembly.finished is not None and self._finished_at == math.inf:
            self._finished_at = self._left_at

    def _done(self) -> None:
        with self._bugs():
            self.upstream_model = self._answer.upstream_model
        self.complete = True
        self._settle(Outcome.SUCCESS, None)

    def _outcome(self, error: WizardError) -> Outcome:
        """Return what the breaker learns: nothing from a limit that a hurried caller shortened, where somebody else got
        a first token meanwhile, or the model has lately been seen to take longer and answer all the same.
        """
        outcome, state = error.verdict.breaker, self.port.worker.published
        if not self._hurried or not isinstance(error, ProviderTimeoutError) or error.phase != "first_token":
            return outcome
        if state is None or self.sent_at is None:
            return outcome
        health = state.health
        silent_for = trio.current_time() - health.first_token_at
        if health.first_token_at >= self.sent_at or (
            health.slowest_first_token > self._first_token and silent_for <= BENEFIT_OF_DOUBT
        ):
            return Outcome.IGNORED
        return outcome

    def _settle(self, outcome: Outcome, error: WizardError | None) -> None:
        """Say how the call ended, and give back the permit and the grant, once."""
        if self.ended_at is None:
            self.ended_at, self._ending = trio.current_time(), outcome
        permit, self._permit = self._permit, None
        if permit is not None:
            self.port.breaker.give_back(permit, Ended(outcome))
        grant, self._grant = self._grant, None
        if grant is not None:
            sent = self.sent_at is not None
            if isinstance(error, RateLimitError) and sent:
                self.port.limiter.give_back(grant, Settle(limited=True, retry_after=error.retry_after))
            else:
                self.port.limiter.give_back(grant, Settle(sent=sent, succeeded=outcome is Outcome.SUCCESS))

    def _release(self) -> None:
        """Give back the slot, once: the exchange is closed."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self.port.worker.give_back(slot, Release(None if self.sent_at is None else self._ending))

    @contextmanager
    def _bugs(self) -> Iterator[None]:
        """Turn whatever a provider raises unforeseen into that request's `ProviderBugError`."""
        try:
            yield
        except WizardError:
            raise
        except Exception as error:
            raise self._bug(error) from error

    def _bug(self, error: Exception) -> ProviderBugError:
        return ProviderBugError(
            f"the provider of {self.port.name} failed unexpectedly: {type(error).__name__}: {error}",
            model=self.port.name,
        )


def _cost(price: PriceConfig, usage: TokenUsage) -> Decimal:
    cached_price = price.input if price.cached_input is None else price.cached_input
    fresh = usage.input_tokens - usage.cached_tokens
    return (fresh * price.input + usage.cached_tokens * cached_price + usage.output_tokens * price.output) / MILLION
