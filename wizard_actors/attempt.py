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
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from types import TracebackType
from typing import Final, Self, TypeVar

import trio

from wizard_actors.actor import ActorRef, Ask
from wizard_actors.breaker_core import Permit
from wizard_actors.circuit_breaker import Admit, Ended, Heard
from wizard_actors.config import ModelConfig
from wizard_actors.errors import (
    DeadlineExceededError,
    MailboxFullError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitError,
    SerializationError,
    StreamInterruptedError,
    UnsupportedError,
    WizardError,
)
from wizard_actors.estimate import estimate_output
from wizard_actors.failure import Attempt as Record
from wizard_actors.gcra import Grant
from wizard_actors.port import Patience, Port, deadline_exceeded
from wizard_actors.prices import Bill
from wizard_actors.providers.base import Answer, Call
from wizard_actors.providers.unforeseen import bug
from wizard_actors.rate_limit import Acquire, HeadersSeen, Settle
from wizard_actors.slots import Slot
from wizard_actors.streaming import Assembly
from wizard_actors.timing import Timing
from wizard_actors.types import ModelEvent
from wizard_actors.verdict import Outcome
from wizard_actors.worker import FirstToken, Release, TakeSlot

__all__ = ["Attempt"]

log = logging.getLogger("wizard_actors.attempt")

R = TypeVar("R")

LATE: Final = 0.05
"""Seconds. Leave that is older by the time of the sending, because our event loop stood still, is asked for anew. Each
time it may be four times as old: thousands that come at once are slower than that, and would else ask for ever.
"""

READS_IN_A_ROW: Final = 128
"""After so many, an attempt gives way once: a provider whose reads never wait must not keep everybody else waiting.

Some milliseconds' worth; and the checkpoint, shared among so many, costs a chunk next to nothing.
"""


class Attempt:
    """An async context manager: entered once the response's head is here, then read until None, then left.

    Everything that it was granted is given back exactly once, with what was learned, however it ends: the caller's own
    cancellation, and a consumer that leaves early, are neutral. `delay` is what has been waited for it already, in
    seconds; `input_tokens` is what the prompt is estimated to take.
    """

    def __init__(
        self, port: Port, call: Call, patience: Patience, *, delay: float = 0.0, input_tokens: int = 0
    ) -> None:
        self.port = port
        self.assembly = Assembly()
        self.began = trio.current_time()
        self.sent_at: float | None = None
        self.slot_wait = self.rate_wait = 0.0
        self.first_token: float | None = None
        self.complete = False
        self.ended_at: float | None = None
        self.upstream_model: str | None = None
        self.streamed = False
        self._call = call
        self._patience = patience
        self._delay = delay
        self._input_tokens = input_tokens
        self._slot: Slot | None = None
        self._grant: Grant | None = None
        self._permit: Permit | None = None
        self._timing: Timing
        self._exchange: AbstractAsyncContextManager[Answer] | None = None
        self._answer: Answer
        self.hurried = False
        self._told = False
        self._reads = 0
        self._refused = False
        self._bill = Bill(port.price)
        self._bugs = _Bugs(port.config)
        self._if_cancelled = self._ending = Outcome.IGNORED

    # -- what it was

    @property
    def cost(self) -> Decimal | None:
        """What the attempt has cost so far, in US dollars: None where the usage or the price is unknown, 0 where the
        provider has refused it.
        """
        usage = self.assembly.usage
        if usage is None:
            return Decimal(0) if self._refused else None
        return self._bill.cost(usage, self.upstream_model)

    @property
    def leave(self) -> float:
        """Seconds from the beginning until the request was sent, or until it was clear that it would not be."""
        ended = trio.current_time() if self.ended_at is None else self.ended_at
        return (ended if self.sent_at is None else self.sent_at) - self.began

    @property
    def delay(self) -> float:
        """Seconds that were waited for the attempt, and in it before it was sent."""
        return self._delay + self.leave

    @property
    def duration(self) -> float:
        """Seconds from the send to the end, 0.0 where nothing was sent."""
        ended = trio.current_time() if self.ended_at is None else self.ended_at
        return 0.0 if self.sent_at is None else ended - self.sent_at

    def record(self, error: WizardError | None, *, cancelled: bool = False) -> Record:
        """Return the attempt as responses and errors list it."""
        return Record(
            model=self.port.name,
            start=self.began,
            duration=self.duration,
            delay=self.delay,
            error=error,
            cost=self.cost,
            sent=self.sent_at is not None,
            cancelled=cancelled,
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
                self._settle(self._if_cancelled, None)
                self._release()
        return self

    async def read(self) -> Sequence[ModelEvent] | None:
        """Wait for the next events of the answer; None once it is complete, with or without its usage.

        Raises a `ProviderError` where it breaks off, ends too soon, is none, or takes longer than the model's timeouts
        allow; `DeadlineExceededError` where the caller's own deadline passes.
        """
        finished = self.assembly.finished is not None
        try:
            events = await self._next()
        except WizardError:
            if not finished:
                raise
            events = None  # what breaks after the end of an answer does not make it less complete
        after = self._timing.waited()
        if events is not None:
            self._heard(after)
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
        try:
            if isinstance(error, WizardError):
                self._settle(self._outcome(error), error)
            if self._exchange is not None:
                self._learn_name()
                with self._bugs:
                    await self._exchange.__aexit__(kind, error, trace)  # noqa: ASYNC102 - shields itself where it must
        except WizardError as failure:
            if failure is not error:  # a whole answer is no less whole for it, and a failure stays what it was
                log.warning(
                    "%s: closing an exchange failed: %s", self.port.name, type(failure.__cause__ or failure).__name__
                )
        finally:
            self._settle(self._if_cancelled, None)
            self._release()

    def lost(self, delay: float) -> None:
        """Note that a hedge which was started `delay` seconds later has won: the attempt is about to be cancelled.

        That is neutral, as every cancellation; but where the model says nothing to anybody, nobody else would find out.
        """
        if self.sent_at is not None and self._timing.met_silence(delay):
            self._if_cancelled = Outcome.FAILURE

    # -- leave

    async def _get_leave(self) -> None:
        self.port.peek(self._patience.longest_pause)
        now = trio.current_time()
        give_up_at = now if self._silent() else now + self._patience.queue_timeout
        try:
            self._slot = await self._ask(self.port.worker, TakeSlot(self._call.request_id, give_up_at))
        except MailboxFullError as error:
            limiter = self.port.limiter.published
            if limiter is not None and limiter.waiting:  # that is what all of them wait for
                raise self.port.rate_limited(limiter.paused_until - trio.current_time()) from error
            if self._silent():
                said = f"{self.port.name} is full, and says nothing: all its slots wait for a first token"
                raise MailboxFullError(said, actor=self.port.name, silent=True) from error
            raise
        self.slot_wait = trio.current_time() - now
        oldest = LATE
        while self._permit is None:
            if self._grant is None:
                self._grant = await self._get_rate()
            permit = await self.port.breaker.ask(Admit())
            state, late = self.port.breaker.published, trio.current_time() - self._grant.at > oldest
            if state is not None and state.honours(permit) and not late:
                self._permit = permit
                return
            # Of an earlier generation: the circuit has opened, or closed again, since it was granted.
            self.port.breaker.give_back(permit, Ended(Outcome.IGNORED))
            if late:  # used now, it would come on top of what has been saved up since
                self.port.limiter.give_back(self._grant, Settle(sent=False))
                self._grant, oldest = None, 4 * oldest
            self.port.peek(self._patience.longest_pause)

    async def _get_rate(self) -> Grant:
        asked_at, patience, state = trio.current_time(), self._patience, self.port.worker.published
        prompt, typical = self._call.prompt, None if state is None else state.health.typical_output
        output = estimate_output(prompt, typical)
        acquire = Acquire(
            asked_at,
            patience.max_wait,
            patience.deadline,
            tokens=self._input_tokens + output,
            expected=output if prompt.max_tokens is None else 0,
            model=self.port.name,
            longest_pause=patience.longest_pause,
        )
        try:
            return await self._ask(self.port.limiter, acquire)
        except RateLimitError:
            self.hurried = patience.deadline < asked_at + patience.max_wait
            raise
        finally:
            self.rate_wait += trio.current_time() - asked_at

    def _silent(self) -> bool:
        """Whether there is somebody better to ask than a model that says nothing."""
        return not self._patience.last and self.port.silent

    async def _ask(self, ref: ActorRef[object], message: Ask[R]) -> R:
        """Ask within the request's deadline."""
        try:
            return await ref.ask(message, deadline=self._patience.deadline)
        except DeadlineExceededError:
            raise deadline_exceeded(self._patience.given) from None

    # -- time

    async def _open(self) -> None:
        with self._bugs:
            streams = self.streamed = self.port.provider.streams
        probe = self._permit is not None and self._permit.probe
        timing = self._timing = Timing(self.port, self._patience, streams=streams, probe=probe)
        self.sent_at = timing.sent_at
        self.hurried = timing.hurried
        try:
            with trio.CancelScope(deadline=timing.until()) as scope, self._bugs:
                exchange = self.port.provider.open(self._call)
                self._answer = await exchange.__aenter__()
                self._exchange = exchange
        except (SerializationError, UnsupportedError):
            self.sent_at = None  # by their meaning: such a prompt cannot be sent
            raise
        if scope.cancelled_caught:
            raise timing.late(None)
        timing.waited()

    async def _next(self) -> Sequence[ModelEvent] | None:
        with trio.CancelScope(deadline=self._timing.until()):
            try:
                if not self._told:
                    self._tell_limits()
                self._reads += 1
                if not self._reads % READS_IN_A_ROW:
                    await trio.lowlevel.checkpoint()
                events = await self._answer.read()
                if events is not None:
                    self.assembly.extend(events)
                return events
            except WizardError:
                raise
            except Exception as error:  # noqa: BLE001 - raised on, as what it means to the request
                found = bug(error, self.port.config)
                raise found from found.__cause__
        raise self._timing.late(self._upstream_id())

    def _upstream_id(self) -> str | None:
        if self._exchange is None:
            return None
        with self._bugs:
            return self._answer.upstream_id

    # -- the books

    def _tell_limits(self) -> None:
        """Let the limiter know what the response's head said, whatever its body says."""
        self._told = True
        if self._grant is not None and (limits := self._answer.limits) is not None:
            self.port.limiter.notify(self._grant, HeadersSeen(limits))

    def _heard(self, after: float) -> None:
        """Tell the worker of a first token, which came `after` so many seconds."""
        parts = self.assembly
        self._timing.heard(started=parts.started, finished=parts.finished is not None)
        if self.first_token is None and parts.started and self._slot is not None:
            self.first_token = after
            self.port.worker.notify(self._slot, FirstToken(after))
            if self._permit is not None and self._permit.probe:
                self.port.breaker.notify(self._permit, Heard())

    def _learn_name(self) -> None:
        """Note which model the provider says that it is, where it said so before the end: what came of an answer that
        was broken off is billed as that model's, too.
        """
        if self.complete:
            return
        try:
            with self._bugs:
                self.upstream_model = self._answer.upstream_model
        except WizardError as failure:  # it changes nothing of why the answer was broken off
            kind = type(failure.__cause__ or failure).__name__
            log.warning("%s: asking an answer for its model's name failed: %s", self.port.name, kind)

    def _done(self) -> None:
        with self._bugs:
            self.upstream_model = self._answer.upstream_model
        self.complete = True
        self._settle(Outcome.SUCCESS, None)

    def _outcome(self, error: WizardError) -> Outcome:
        """Return what the breaker learns."""
        if isinstance(error, ProviderTimeoutError) and self._timing.excuses(error):
            return Outcome.IGNORED
        if isinstance(error, DeadlineExceededError) and self.sent_at is not None and self._timing.met_silence():
            return Outcome.FAILURE  # as a lost race: nobody else would find out
        return error.verdict.breaker

    def _settle(self, outcome: Outcome, error: WizardError | None) -> None:
        """Say how the call ended, and give back the permit and the grant, once."""
        if self.ended_at is None:
            self.ended_at, self._ending = trio.current_time(), outcome
            refused = isinstance(error, ProviderError) and (error.status or 0) >= 400  # under a 200, it is billed
            self._refused = refused and not self.assembly.started
        permit, self._permit = self._permit, None
        if permit is not None:
            self.port.breaker.give_back(permit, Ended(outcome))
        grant, self._grant = self._grant, None
        if grant is not None:
            settle = Settle(sent=self.sent_at is not None)
            try:
                settle = self._settlement(outcome, error)
            finally:  # a wrong figure may spoil the limiter's books, but no grant is lost over it
                self.port.limiter.give_back(grant, settle)

    def _settlement(self, outcome: Outcome, error: WizardError | None) -> Settle:
        sent, used = self.sent_at is not None, self._used()
        if isinstance(error, RateLimitError) and sent:
            return Settle(limited=True, retry_after=error.retry_after, tokens=used)
        return Settle(sent=sent, succeeded=outcome is Outcome.SUCCESS, tokens=used)

    def _used(self) -> int | None:
        """Return the tokens that the call has used, None where nobody knows: then it is taken at its estimate."""
        usage = self.assembly.usage
        if usage is not None and self.assembly.finished is not None:
            return max(0, usage.total_tokens)
        return 0 if self._refused else None

    def _release(self) -> None:
        """Give back the slot, once: the exchange is closed."""
        slot, self._slot = self._slot, None
        if slot is not None:
            usage = self.assembly.usage if self.complete else None
            spoken = None if usage is None else usage.output_tokens
            self.port.worker.give_back(slot, Release(None if self.sent_at is None else self._ending, spoken))


class _Bugs:
    """Turns whatever a provider raises unforeseen in its block into that request's `ProviderBugError`. A class, for a
    generator costs several times as much, and an attempt enters four.
    """

    __slots__ = ("_config",)

    def __init__(self, config: ModelConfig) -> None:
        self._config = config

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, WizardError):
            found = bug(error, self._config)
            raise found from found.__cause__
