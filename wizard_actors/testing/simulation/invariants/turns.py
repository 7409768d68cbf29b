"""The turns of a session take place one after the other, in the order in which they were asked for. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from wizard_actors.testing.simulation.invariants.invariant import FUZZ, Invariant
from wizard_actors.testing.simulation.records import RequestRecord
from wizard_actors.testing.simulation.report import Report

__all__ = ["TURNS"]


def _turns_in_order(report: Report) -> Iterator[str]:
    if report.scenario.storage_faults:
        return  # whom the storage keeps waiting before his turn comes later to it
    sessions: dict[str, list[RequestRecord]] = defaultdict(list)
    for request in report.requests:
        if request.session is not None and request.outcome == "answered":
            sessions[request.session].append(request)
    for session, turns in sessions.items():
        before, latest, at_once = -math.inf, -math.inf, -math.inf
        for turn in turns:  # in the order of their arrival
            if turn.arrived > before + FUZZ:  # those that arrive at one instant come in any order
                latest, before = max(latest, at_once), turn.arrived
            if turn.ended < latest - FUZZ:
                yield (
                    f"the turn of session {session!r} that request {turn.number} asked for was over at "
                    f"{turn.ended:.3f} s, and one of before it only at {latest:.3f} s"
                )
            at_once = max(at_once, turn.ended)


TURNS: Final = (
    Invariant(
        "turns-in-order",
        "The turns of a session that are answered end in the order in which they were asked for.",
        _turns_in_order,
    ),
)
