"""One attempt at one model, in the task of whoever asked: leave from its actors, the call, its deadlines, the books.

The order is that of trials: slot, then rate, then permit. A permit taken before the limiter's wait lets calls out while
the circuit is open; rate before slot sends more than the limit in a window, because the slot is waited for with the
leave in hand. And a permit counts only if the breaker's published generation is still its own in the very step in which
the breaker's answer resumes this task: between the grant and that step the circuit may have opened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from decimal import Decimal
from types import TracebackType
from typing import Final, Self, TypeVar

import trio
from attrs import frozen

from wizard_actors.actor import ActorRef, Ask
from wizard_actors.breaker_core import BreakerState, Permit
from wizard_actors.circuit_breaker import Admit, Ended, circuit_open
from wizard_actors.config import ModelConfig, PriceConfig
from wizard_actors.errors import (
    DeadlineExceededError,
    MailboxFullError,
    ProviderBugError,
    ProviderTimeoutError,
    RateLimitError,
    StreamInterruptedError,
    TimeoutPhase,
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

__all__ = ["Attempt", "Patience", "Port"]

R = TypeVar("R")

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

    `deadline` is the request's, an instant; `given` is what the caller had named, in seconds. `queue_timeout` and
    `first_token` are in seconds. `shortened`: the first-token limit is less than the model's own, because the caller's
    deadline has to do for other models too.
    """

    queue_timeout: float
    first_token: float
    deadline: float = math.inf
    given: float | None = None
    shortened: bool = False


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
        self._call = call
        self._patience = patience
        self._delay = delay
        self._slot: Slot | None = None
        self._grant: Grant | None = None
        self._permit: Permit | None = None
        self._streams = True
        self._exchange: AbstractAsyncContextManager[Answer] | None = None
        self._answer: Answer
        self._finished_at = self._total_at = self._first_token_at = math.inf
        self._told = False

    # -- what it was

    @property
    def upstream_model(self) -> str | None:
        """What the provider calls the model."""
        return self._answer.upstream_model if self._exchange is not None else None

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
            self._settle(error.verdict.breaker, error)
            raise
        finally:
            if self._exchange is None:
                self._settle(Outcome.IGNORED, None)  # cancelled
        return self

    async def read(self) -> Sequence[ModelEvent] | None:
        """Wait for the next events of the answer; None once it is complete, with or without its usage.

        Raises a `ProviderError` where it breaks off, ends too soon, or takes longer than the model's timeouts allow;
        `DeadlineExceededError` where the caller's own deadline passes.
        """
        finished = self.assembly.finished is not None
        try:
            with trio.CancelScope(deadline=self._read_until(finished=finished)) as scope, self._bugs():
                self._tell_limits()
                events = await self._answer.read()
        except WizardError:
            if not finished:
                raise
            self._done()  # what breaks after the end of an answer does not make it less complete
            return None
        if scope.cancelled_caught:
            if finished:
                self._done()
                return None
            raise self._late("stall" if self.assembly.started else "first_token")
        if events is None:
            if not finished:
                raise StreamInterruptedError(
                    f"{self.port.name} ended its answer without saying that it was complete",
                    model=self.port.name,
                    request_id=self._answer.upstream_id,
                )
            self._done()
            return None
        self._take(events)
        return events

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, WizardError):
            self._settle(self._outcome(error), error)
        try:
            if self._exchange is not None:
                await self._exchange.__aexit__(kind, error, trace)
        finally:
            self._settle(Outcome.IGNORED, None)

    # -- leave

    async def _get_leave(self) -> None:
        now, name = trio.current_time(), self.port.name
        state = self.port.breaker.published
        if state is not None and not state.allows(now):
            raise circuit_open(name, state.retry_at, now)
        self._slot = await self._ask(
            self.port.worker,
            TakeSlot(self._call.request_id),
            now + self._patience.queue_timeout,
            lambda: MailboxFullError(
                f"{name} is full: no slot came free in {self._patience.queue_timeout:g} s", actor=self.port.worker.path
            ),
        )
        longest = self.port.config.rate_limit.max_wait
        self._grant = await self._ask(
            self.port.limiter,
            Acquire(self._patience.deadline),
            trio.current_time() + longest,
            lambda: RateLimitError(
                f"{name} is at its rate limit: no turn in {longest:g} s", model=name, source="limiter"
            ),
        )
        self._permit = await self.port.breaker.ask(Admit())
        state = self.port.breaker.published
        if state is None or not state.honours(self._permit):
            raise circuit_open(name, trio.current_time() if state is None else state.retry_at, trio.current_time())

    async def _ask(self, ref: ActorRef[object], message: Ask[R], until: float, late: Callable[[], WizardError]) -> R:
        """Ask within the request's deadline and until the instant `until`; raise what `late` makes after that."""
        with trio.CancelScope(deadline=min(until, self._patience.deadline)):
            return await ref.ask(message)
        raise self._deadline_exceeded() if trio.current_time() >= self._patience.deadline else late()

    # -- time

    async def _open(self) -> None:
        now = self.sent_at = trio.current_time()
        self._streams = self.port.provider.streams
        self._total_at = now + self.port.config.timeouts.total
        self._first_token_at = now + self._patience.first_token if self._streams else math.inf
        limit = min(self._first_token_at, self._total_at, self._patience.deadline)
        with trio.CancelScope(deadline=limit) as scope, self._bugs():
            exchange = self.port.provider.open(self._call)
            self._answer = await exchange.__aenter__()
            self._exchange = exchange
        if scope.cancelled_caught:
            raise self._late("first_token")

    def _read_until(self, *, finished: bool) -> float:
        """Return until when the next read may take."""
        if finished:
            limit = self._finished_at + USAGE_WAIT
        elif not self._streams:
            limit = math.inf
        elif self.assembly.started:
            limit = trio.current_time() + self.port.config.timeouts.stall
        else:
            limit = self._first_token_at
        return min(limit, self._total_at, self._patience.deadline)

    def _late(self, phase: TimeoutPhase) -> WizardError:
        """Return the error for a wait that took too long."""
        now, timeouts = trio.current_time(), self.port.config.timeouts
        if now >= self._patience.deadline:
            return self._deadline_exceeded()
        if now >= self._total_at:
            phase = "total"
        seconds = self._patience.first_token if phase == "first_token" else getattr(timeouts, phase)
        return ProviderTimeoutError(
            f"{self.port.name} was too late: {phase.replace('_', ' ')} after {seconds:.3g} s",
            model=self.port.name,
            phase=phase,
            request_id=self._answer.upstream_id if self._exchange is not None else None,
        )

    def _deadline_exceeded(self) -> DeadlineExceededError:
        given = self._patience.given
        return DeadlineExceededError(
            f"the request's deadline of {given:g} s passed" if given is not None else "the deadline passed",
            deadline=given,
        )

    # -- the books

    def _tell_limits(self) -> None:
        """Let the limiter know what the response's head said, whatever its body says."""
        if not self._told and self._grant is not None and (limits := self._answer.limits) is not None:
            self.port.limiter.notify(self._grant, HeadersSeen(limits))
        self._told = True

    def _take(self, events: Sequence[ModelEvent]) -> None:
        """Put the events together, and tell the worker of the first token."""
        before = self.assembly.started
        self.assembly.extend(events)
        now = trio.current_time()
        if not before and self.assembly.started and self._slot is not None and self.sent_at is not None:
            self.port.worker.notify(self._slot, FirstToken(now - self.sent_at))
        if self.assembly.finished is not None and self._finished_at == math.inf:
            self._finished_at = now

    def _done(self) -> None:
        self.complete = True
        self._settle(Outcome.SUCCESS, None)

    def _outcome(self, error: WizardError) -> Outcome:
        """Return what the breaker learns: nothing from a limit that a hurried caller shortened, where somebody else got
        a first token meanwhile, or the model has been seen to take longer and answer all the same.
        """
        hurried = self._patience.shortened and isinstance(error, ProviderTimeoutError) and error.phase == "first_token"
        if not hurried:
            return error.verdict.breaker
        state = self.port.worker.published
        sent = trio.current_time() if self.sent_at is None else self.sent_at
        if state is not None and (
            state.health.first_token_at >= sent or state.health.slowest_first_token > self._patience.first_token
        ):
            return Outcome.IGNORED
        return error.verdict.breaker

    def _settle(self, outcome: Outcome, error: WizardError | None) -> None:
        """Give back whatever is held, once."""
        self.ended_at = trio.current_time() if self.ended_at is None else self.ended_at
        sent = self.sent_at is not None
        permit, self._permit = self._permit, None
        if permit is not None:
            self.port.breaker.give_back(permit, Ended(outcome))
        grant, self._grant = self._grant, None
        if grant is not None:
            if isinstance(error, RateLimitError) and sent:
                self.port.limiter.give_back(grant, Settle(limited=True, retry_after=error.retry_after))
            else:
                self.port.limiter.give_back(grant, Settle(sent=sent))
        slot, self._slot = self._slot, None
        if slot is not None:
            self.port.worker.give_back(slot, Release(outcome if sent else None))

    @contextmanager
    def _bugs(self) -> Iterator[None]:
        """Turn whatever a provider raises unforeseen into that request's `ProviderBugError`."""
        try:
            yield
        except WizardError:
            raise
        except Exception as error:
            raise ProviderBugError(
                f"the provider of {self.port.name} failed unexpectedly: {type(error).__name__}: {error}",
                model=self.port.name,
            ) from error


def _cost(price: PriceConfig, usage: TokenUsage) -> Decimal:
    cached_price = price.input if price.cached_input is None else price.cached_input
    fresh = usage.input_tokens - usage.cached_tokens
    return (fresh * price.input + usage.cached_tokens * cached_price + usage.output_tokens * price.output) / MILLION
