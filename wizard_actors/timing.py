"""The deadlines of one attempt: how long each wait may take, what it means when one passes, and whose fault that is."""

from __future__ import annotations

import math
from typing import Final

import trio

from wizard_actors.errors import ProviderTimeoutError, TimeoutPhase, WizardError
from wizard_actors.lag import excused
from wizard_actors.port import Patience, Port, deadline_exceeded
from wizard_actors.slots import Health

__all__ = ["Timing"]

BENEFIT_OF_DOUBT: Final = 300.0
"""Seconds of silence for which a model that was seen to be slow counts as slow rather than dead to hurried callers."""

USAGE_WAIT: Final = 1.0
"""Seconds for which the usage is awaited once an answer is complete."""

PROBE_GETS: Final = 5.0
"""Seconds that a probe's first token gets in any case."""


def _slowest_first_token(port: Port) -> float:
    state = port.worker.published
    return 0.0 if state is None else state.health.slowest_first_token


class Timing:
    """The deadlines of one attempt, from its sending on. `streams`: the answer comes in pieces, as far as is known.

    While other models remain, a first token gets at most half of what remains of the caller's time at the sending; that
    of a `probe`, whose circuit is half open, at most twice what the newest ones took, but 5 s at least.
    """

    def __init__(self, port: Port, patience: Patience, *, streams: bool, probe: bool) -> None:
        now, timeouts = trio.current_time(), port.config.timeouts
        half = math.inf if patience.last else (patience.deadline - now) / 2
        if probe and not patience.last and (known := _slowest_first_token(port)):
            half = min(half, max(PROBE_GETS, 2 * known))
        self.sent_at = now
        self._port = port
        self._patience = patience
        self._streams = streams
        self._hurried = half < timeouts.first_token
        self._first_token = min(half, timeouts.first_token)
        self._total_at = now + timeouts.total
        self._started = False
        self._finished_at = math.inf
        self._left_at = now
        self._stalls_before_send = self._stalls_before_wait = port.lag.mark()

    @property
    def hurried(self) -> bool:
        """Whether the caller's deadline has shortened the first token's limit."""
        return self._hurried

    def until(self) -> float:
        """Begin a wait for the model, and return the instant until which it may take.

        What has passed since the last wait was the consumer's time, and is not held against the model.
        """
        now = trio.current_time()
        away = now - self._left_at
        self._total_at += away
        self._finished_at += away
        self._stalls_before_wait = self._port.lag.mark()
        if self._finished_at < math.inf:
            limit = self._finished_at + USAGE_WAIT
        elif not self._streams:
            limit = math.inf
        elif self._started:
            limit = now + self._port.config.timeouts.stall
        else:
            limit = self.sent_at + self._first_token
        return min(limit, self._total_at, self._patience.deadline)

    def waited(self) -> float:
        """Note the end of a wait, and return the seconds since the sending."""
        self._left_at = trio.current_time()
        return self._left_at - self.sent_at

    def heard(self, *, started: bool, finished: bool) -> None:
        """Note what has arrived so far: content, and the model's sign that this was all."""
        self._started = started
        if finished and self._finished_at == math.inf:
            self._finished_at = self._left_at

    def late(self, request_id: str | None) -> WizardError:
        """Return the error for a wait that took too long; `request_id` is the provider's."""
        now, timeouts = trio.current_time(), self._port.config.timeouts
        if now >= self._patience.deadline:
            return deadline_exceeded(self._patience.given)
        phase: TimeoutPhase = "total" if now >= self._total_at else "stall" if self._started else "first_token"
        seconds = {"first_token": self._first_token, "stall": timeouts.stall, "total": timeouts.total}[phase]
        name = self._port.name
        return ProviderTimeoutError(
            f"{name} was too late: {phase.replace('_', ' ')} after {seconds:.3g} s",
            model=name,
            phase=phase,
            request_id=request_id,
        )

    def excuses(self, error: ProviderTimeoutError) -> bool:
        """Whether a model's timeout is not its fault.

        Our own event loop may be to blame, where it stood still meanwhile. So may the caller's hurry, which shortened
        the limit: where somebody else got a first token in that time, or the model has lately been seen to take longer
        and answer all the same.
        """
        if self._stalled(error.phase):
            return True
        state = self._port.worker.published
        if not self._hurried or error.phase != "first_token" or state is None:
            return False
        return state.health.first_token_at >= self.sent_at or self._may_be_slow(state.health, self._first_token)

    def met_silence(self, for_at_least: float = 0.0) -> bool:
        """Whether the model, asked `for_at_least` so many seconds ago, says nothing to anybody."""
        now, state = trio.current_time(), self._port.worker.published
        waited = now - self.sent_at
        if state is None or self._started or waited < for_at_least or not state.health.silent(now):
            return False
        return not (
            self._may_be_slow(state.health, waited) or excused(self._port.lag.since(self._stalls_before_send), waited)
        )

    @staticmethod
    def _may_be_slow(health: Health, waited: float) -> bool:
        """Whether the model has lately been seen to take longer than `waited` seconds, and to answer all the same."""
        silent_for = trio.current_time() - health.first_token_at
        return health.slowest_first_token > waited and silent_for <= BENEFIT_OF_DOUBT

    def _stalled(self, phase: TimeoutPhase) -> bool:
        """Whether our own event loop stood still for a good part of the time that the model was given."""
        timeouts = self._port.config.timeouts
        limits = {"connect": timeouts.connect, "first_token": self._first_token, "stall": timeouts.stall}
        before = self._stalls_before_wait if phase == "stall" else self._stalls_before_send
        return excused(self._port.lag.since(before), limits.get(phase, timeouts.total))
