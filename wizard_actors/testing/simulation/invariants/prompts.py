"""What models are asked: the prompts of those who asked, and nobody else's. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from wizard_actors.testing.simulation.invariants.answers import may_expire
from wizard_actors.testing.simulation.invariants.invariant import Invariant
from wizard_actors.testing.simulation.records import CallRecord, RequestRecord
from wizard_actors.testing.simulation.report import Report

__all__ = ["PROMPTS"]


def _right_prompt(report: Report) -> Iterator[str]:
    requests = {request.request_id: request for request in report.requests if request.request_id is not None}
    histories = _histories(report)
    for call in report.calls:
        request = requests.get(call.request_id)
        if request is None:
            yield f"call {call.number} was made for nobody's request: {call.request_id!r}"
        elif not call.prompts or call.prompts[-1] != request.prompt:
            yield f"call {call.number} asked {call.prompt}, and request {request.number} asks {request.prompt}"
        elif request.session is None and len(call.prompts) > 1:
            yield f"call {call.number} showed {len(call.prompts)} prompts, and request {request.number} has no session"
        elif request.session is not None and (wrong := histories[request.session].wrong(call)):
            yield f"call {call.number} for request {request.number}: {wrong}"


def _histories(report: Report) -> dict[str, _History]:
    """Return the turns of each session."""
    turns: dict[str, list[RequestRecord]] = defaultdict(list)
    for request in report.requests:
        if request.session is not None:
            turns[request.session].append(request)
    config = report.scenario.config
    windowed = config.sessions.context_tokens is not None or any(
        model.context_window is not None for model in config.models
    )
    shown_whole = not windowed and not may_expire(report)
    return {session: _History(of_it, shown_whole=shown_whole) for session, of_it in turns.items()}


class _History:
    """The turns of a session, in the order in which they ended. `shown_whole`: no old turn is ever left out."""

    def __init__(self, turns: Sequence[RequestRecord], *, shown_whole: bool) -> None:
        answered = sorted((turn for turn in turns if turn.code is None), key=_ended)
        self._shown_whole = shown_whole
        self._acknowledged = [turn for turn in answered if turn.outcome == "answered"]
        self._ends = [turn.ended for turn in self._acknowledged]
        self._possible = Counter(turn.prompt for turn in answered)
        self._places = {turn.prompt: place for place, turn in enumerate(answered)}

    def wrong(self, call: CallRecord) -> str | None:
        """Return what is wrong with what a call showed of them, None where nothing is.

        Of a turn whose caller got no answer nobody knows whether it was stored.
        """
        shown = call.prompts[:-1]
        if any(self._possible[prompt] < times for prompt, times in Counter(shown).items()):
            return "it showed what is no turn of its session"
        once = [self._places[prompt] for prompt in shown if self._possible[prompt] == 1]
        if any(earlier >= later for earlier, later in pairwise(once)):
            return "it showed the turns of its session in another order"
        before = bisect_left(self._ends, call.began)
        if self._shown_whole and self._left_out(shown, before):
            return f"it showed {len(shown)} turns of its session, which has {before}"
        return None

    def _left_out(self, shown: Sequence[int], before: int) -> bool:
        """Whether one of so many acknowledged turns is not among those that were shown."""
        if len(shown) < before:
            return True
        return bool(Counter(turn.prompt for turn in self._acknowledged[:before]) - Counter(shown))


def _ended(turn: RequestRecord) -> float:
    return turn.ended


PROMPTS: Final = (
    Invariant(
        "right-prompt",
        "A call asks what its request asks: its prompt, after the turns of its session, and nothing else.",
        _right_prompt,
    ),
)
