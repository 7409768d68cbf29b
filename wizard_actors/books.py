"""The books of one request: its attempts as they begin and end, and what others learn of them."""

from __future__ import annotations

from typing import Final

import trio

from wizard_actors.attempt import Attempt
from wizard_actors.errors import StreamInterruptedError, WizardError
from wizard_actors.events import AttemptBegan, AttemptEnded, Event, FirstToken
from wizard_actors.failure import Attempt as Record
from wizard_actors.request import Request
from wizard_actors.routing import Observed
from wizard_actors.shared import Shared
from wizard_actors.types import WizardResponse

__all__ = ["Books"]

WAIT_FROM: Final = 0.001
"""Seconds from which the time until an attempt is sent counts as a wait, and not as the work of asking for leave."""


class Books:
    """What has become of one request so far. Hedges write here too.

    `response` is its answer, once that is whole. `hurried`: somebody with more time might have been answered.
    """

    def __init__(self, shared: Shared, request: Request) -> None:
        self.shared = shared
        self.request = request
        self.began = trio.current_time()
        self.first_token: float | None = None
        self.response: WizardResponse | None = None
        self.hurried = False
        self._records: dict[int, Record] = {}
        self.waits: list[tuple[float, float]] = []
        self._begun = 0

    @property
    def attempts(self) -> tuple[Record, ...]:
        """Every attempt that has ended, in the order of their beginning."""
        return tuple(record for _, record in sorted(self._records.items()))

    @property
    def begun(self) -> int:
        """How many attempts have begun, whether or not they have ended."""
        return self._begun

    def publish(self, event: Event) -> None:
        """Tell everybody who listens."""
        self.shared.events.publish(event)

    def begin(self, model: str, *, hedge: bool) -> int:
        """Note that an attempt begins, and return its number: the first one is 1."""
        self._begun += 1
        now = trio.current_time()
        self.publish(AttemptBegan(now, self.request.request_id, model, self._begun, hedge=hedge))
        return self._begun

    def heard(self, attempt: Attempt, number: int) -> None:
        """Note the first token of an attempt; to be called once for each."""
        now = trio.current_time()
        if self.first_token is None:
            self.first_token = now - self.began
        after = attempt.first_token or 0.0
        self.publish(FirstToken(now, self.request.request_id, attempt.port.name, number, after))

    def end(
        self, attempt: Attempt, number: int, error: WizardError | None, *, hedge: bool, cancelled: bool = False
    ) -> None:
        """Note how an attempt ended, and tell the router of one that was sent."""
        if isinstance(error, StreamInterruptedError):
            error.partial = attempt.assembly.text
        self.hurried |= error is not None and attempt.hurried
        self._records[number] = attempt.record(error, cancelled=cancelled)
        now, sent_at, usage = trio.current_time(), attempt.sent_at, attempt.assembly.usage
        finished = attempt.assembly.finished if attempt.complete else None
        self.waited(attempt.began - (attempt.delay - attempt.leave), attempt.began)
        if attempt.leave >= WAIT_FROM:
            self.waited(attempt.began, attempt.began + attempt.leave)
        if sent_at is not None:
            self.waited(sent_at, sent_at + attempt.duration)
            port, first_token = attempt.port, attempt.first_token
            observed = Observed(port.name, error, sent_at, first_token, attempt.cost, cancelled, port.worker.path)
            self.shared.router.tell(observed)
        self.publish(
            AttemptEnded(
                now,
                self.request.request_id,
                attempt.port.name,
                number,
                sent_at is not None,
                error,
                hedge=hedge,
                cancelled=cancelled,
                duration=attempt.duration,
                delay=attempt.delay,
                slot_wait=attempt.slot_wait,
                rate_wait=attempt.rate_wait,
                input_tokens=0 if usage is None else usage.input_tokens,
                output_tokens=0 if usage is None else usage.output_tokens,
                cost=attempt.cost,
                upstream_model=attempt.upstream_model,
                finish_reason=None if finished is None else finished.reason.value,
                streamed=attempt.streamed,
            )
        )

    def waited(self, since: float, until: float) -> None:
        """Note a time that is not our own work: a model's, a delay, a queue."""
        if until > since:
            self.waits.append((since, until))
