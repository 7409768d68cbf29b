"""What of a scenario has no effect: settings that nothing uses, and what nobody met in a run. Pure.

It is told, and refused nowhere: a scenario is changed bit by bit, made up, or played with another configuration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final, TypeAlias

from attrs import AttrsInstance

from wizard_actors.config.strict import chosen
from wizard_actors.testing.simulation.records import CallRecord
from wizard_actors.testing.simulation.report import Report
from wizard_actors.testing.simulation.scenario import FaultWindow, Kill, Scenario, StorageFault, Upstream, Workload
from wizard_actors.testing.simulation.upstream import MIDWAY, REFUSALS

__all__ = ["met_by_nobody", "settings_without_effect"]

Needs: TypeAlias = "Mapping[str, tuple[str, Callable[[Workload], object]]]"

OF_WORKLOADS: Final[Needs] = {
    "burst": ('`arrival = "bursts"`', lambda workload: workload.arrival == "bursts"),
    "sessions": ("`sessions_share`", lambda workload: workload.sessions_share),
    "deadline_share": ("`deadline`", lambda workload: workload.deadline),
    "cancel_after": ("`cancel_share`", lambda workload: workload.cancel_share),
    "slow_readers": ("`stream` or `buffered`", lambda workload: workload.stream or workload.buffered),
    "stopped_readers": ("`stream` or `buffered`", lambda workload: workload.stream or workload.buffered),
    "reads_every": ("`slow_readers`", lambda workload: workload.slow_readers),
}
"""By setting: what it has no effect without, and whether a workload has that."""

OF_FAULTS: Final[Mapping[str, Collection[str]]] = {
    "status": REFUSALS,
    "retry_after": REFUSALS,
    "delay": {"slow_first_token"},
    "factor": {"slow_first_token", "slow_tokens"},
    "after_words": MIDWAY,
}
"""By setting: the kinds of faults that it is for."""

OF_STORAGE_FAULTS: Final[Mapping[str, Collection[str]]] = {"delay": {"slow"}}


def settings_without_effect(scenario: Scenario) -> Iterator[str]:
    """Yield a sentence for each setting that nothing uses, by its key; one at its default is none."""
    found = [
        *((f"upstreams[{index}]", _of_upstream(each)) for index, each in enumerate(scenario.upstreams)),
        *((f"faults[{index}]", _of_kinds(each, each.kind, OF_FAULTS)) for index, each in enumerate(scenario.faults)),
        ("workload", _of_workload(scenario.workload)),
        *((f"kills[{index}]", _of_kill(each)) for index, each in enumerate(scenario.kills)),
        *(
            (f"storage_faults[{index}]", _of_kinds(each, each.kind, OF_STORAGE_FAULTS))
            for index, each in enumerate(scenario.storage_faults)
        ),
    ]
    return (f"`{table}.{name}` has no effect {where}" for table, settings in found for name, where in settings)


def _of_upstream(upstream: Upstream) -> Iterator[tuple[str, str]]:
    if "burst" in chosen(upstream) and upstream.requests_per_minute is None and upstream.tokens_per_minute is None:
        yield "burst", "without `requests_per_minute` or `tokens_per_minute`"


def _of_workload(workload: Workload) -> Iterator[tuple[str, str]]:
    set_ = chosen(workload)
    for name, (needed, has_it) in OF_WORKLOADS.items():
        if name in set_ and not has_it(workload):
            yield name, f"without {needed}"


def _of_kill(kill: Kill) -> Iterator[tuple[str, str]]:
    if kill.times > 1 and kill.every is None:
        yield "times", "without `every`"
    elif kill.times == 1 and kill.every is not None:
        yield "every", "without `times`"


def _of_kinds(fault: AttrsInstance, kind: str, kinds: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str]]:
    set_ = chosen(fault)
    return ((name, f'on "{kind}"') for name, meant in kinds.items() if name in set_ and kind not in meant)


# -- what nobody met -------------------------------------------------------------------------------------------------


def met_by_nobody(report: Report) -> Iterator[str]:
    """Yield a sentence for each fault that no call met, and for what was to happen when the run was over already.

    They are named by what they are: of a scenario that is played with another configuration some are left out. Calls
    are told with the kind of their fault alone, so of faults that look alike to a call, each counts as met.
    """
    scenario = report.scenario
    for fault in scenario.faults:
        models = {name for name in report.models if fault.concerns(name, scenario.upstream(name).region)}
        if not any(call.model in models and _may_have_met(fault, call) for call in report.calls):
            yield f'the fault "{fault.kind}"{_of_whom(fault)}, from {_seconds(fault.start)} on, met no call'
    for storage in scenario.storage_faults:
        if not any(_may_have_been_met(storage, *turn) for turn in _turns(report)):
            yield f'the storage fault "{storage.kind}", from {_seconds(storage.start)} on, met no turn of a session'
    if report.finished:
        late = [(f"the kill of {kill.actor}", kill.at) for kill in scenario.kills]
        late += [("the jump of the clock", jump.at) for jump in scenario.clock_jumps]
        for what, at in late:
            if at >= report.ended:
                yield f"{what} at {_seconds(at)} never came: the run was over before"


def _may_have_met(fault: FaultWindow, call: CallRecord) -> bool:
    is_open = fault.began(call.began) is not None
    if call.fault != "down":
        return is_open and call.fault == fault.kind
    # It began while its model was down, or another fault was on, or none; perhaps its model went down meanwhile.
    until = math.inf if call.over is None else call.over
    return is_open or (fault.kind == "down" and fault.next_start(call.began) <= until)


def _turns(report: Report) -> Iterator[tuple[float, float]]:
    return ((each.arrived, each.ended) for each in report.requests if each.session is not None)


def _may_have_been_met(fault: StorageFault, arrived: float, ended: float) -> bool:
    return ended >= fault.start and (fault.lasts is None or arrived < fault.start + fault.lasts)


def _of_whom(fault: FaultWindow) -> str:
    names = [*fault.models, *(f"region {region}" for region in fault.regions)]
    return f" of {', '.join(names)}" if names else ""


def _seconds(seconds: float) -> str:
    return f"{seconds:.10g} s"
