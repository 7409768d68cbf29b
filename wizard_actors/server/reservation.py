"""What one request of a key has been granted, and what it turns out to have used."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from wizard_actors.actor import ActorRef
from wizard_actors.errors import StreamInterruptedError
from wizard_actors.estimate import estimate_input, estimate_output, estimate_text
from wizard_actors.events import AttemptBegan, AttemptEnded
from wizard_actors.gcra import Grant, LimiterState
from wizard_actors.rate_limit import Settle
from wizard_actors.types import (
    Prompt,
    ReasoningDelta,
    ServedBy,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    WizardResponse,
)

__all__ = ["Reservation"]

A_CALL: Final = 8.0
"""Tokens of a tool call beside its text."""


class Reservation:
    """What a request for the answer to `prompt` has been granted by its key's limiters, to be settled once, however it
    ends: with what its attempts have used, all of them.

    Where an attempt's usage is not known, it is taken to have used what was reserved, or, where that is more, what the
    prompt and what has arrived of its answer are estimated at: whoever leaves before the usage comes gets nothing for
    less. What a provider refused, and what was never sent, has used nothing.
    """

    def __init__(self, prompt: Prompt) -> None:
        self.input = estimate_input(prompt)
        self.output = estimate_output(prompt)
        self.expected = self.output if prompt.max_tokens is None else 0
        """How much of `output` is merely what is expected of the answer."""
        self._grants: list[tuple[ActorRef[LimiterState], Grant]] = []
        self._over: list[Callable[[], object]] = []
        self._under_way: set[int] = set()
        self._sent = False
        self._known = 0
        self._unknown: list[float] = []  # what has arrived in each attempt whose usage nobody knows
        self._arrived = 0.0

    @property
    def limited(self) -> bool:
        """Whether there is anything to be settled."""
        return bool(self._grants)

    def add(self, ref: ActorRef[LimiterState], grant: Grant) -> None:
        """Note a grant."""
        self._grants.append((ref, grant))

    def when_over(self, call: Callable[[], object]) -> None:
        """Have `call` called when it is settled."""
        self._over.append(call)

    # -- what becomes of it

    def note(self, event: AttemptBegan | AttemptEnded) -> None:
        """Note what has become of an attempt of the request."""
        if isinstance(event, AttemptBegan):
            self._under_way.add(event.number)
            return
        self._under_way.discard(event.number)
        if not event.sent:
            return
        self._sent = True
        usage = event.input_tokens + event.output_tokens
        if usage and event.error is None and not event.cancelled:
            self._known += usage
        elif usage or event.error is None or event.cost != 0:  # what a provider refused costs nothing
            partial = event.error.partial if isinstance(event.error, StreamInterruptedError) else None
            arrived = max(0.0, usage - self.input, estimate_text(partial or ""))
            self._unknown.append(arrived)

    def saw(self, event: StreamEvent) -> None:
        """Note what has arrived of the answer."""
        match event:
            case TextDelta() | ReasoningDelta():
                self._arrived += estimate_text(event.text)
            case ToolCallDelta():
                self._arrived += estimate_text(event.name or "") + estimate_text(event.arguments)
                self._arrived += A_CALL if event.name else 0.0

    def lost(self) -> None:
        """Note that nobody reads the answer, so that its call is about to be stopped, and will tell nobody."""
        self._sent = self._sent or bool(self._under_way)
        self._unknown += [0.0] * len(self._under_way)
        self._under_way.clear()

    # -- the end

    def settle(self, response: WizardResponse | None) -> None:
        """Say how the request has ended: with a whole answer, or None. The first time counts."""
        grants, self._grants = self._grants, []
        over, self._over = self._over, []
        for ref, grant in grants:
            ref.give_back(grant, self._settlement(response, grant))
        for call in over:
            call()

    def _settlement(self, response: WizardResponse | None, grant: Grant) -> Settle:
        if response is None:
            return Settle(sent=self._sent, tokens=self._used(grant, self._arrived) if self._sent else None)
        if response.cached or response.served_by is ServedBy.STATIC:
            return Settle(succeeded=True, tokens=self._used(grant, 0.0))
        return Settle(succeeded=True, tokens=self._used_for(response, grant))

    def _used_for(self, response: WizardResponse, grant: Grant) -> int:
        usage = 0 if response.usage is None else response.usage.total_tokens
        if usage > 0:
            return max(self._used(grant, 0.0), usage)
        return self._used(grant, _estimate(response))

    def _used(self, grant: Grant, arrived: float) -> int:
        """Return what all attempts together have used, where `arrived` tokens of the last unknown one have come."""
        unknown = [*self._unknown]
        if unknown:
            unknown[-1] = max(unknown[-1], arrived)
        return self._known + sum(max(grant.tokens, math.ceil(self.input + each)) for each in unknown)


def _estimate(response: WizardResponse) -> float:
    """Return about how many tokens an answer has taken."""
    calls = sum(A_CALL + estimate_text(call.name) + estimate_text(call.arguments) for call in response.tool_calls)
    return estimate_text(response.text) + estimate_text(response.reasoning or "") + calls
