"""What models are promised: which calls reach them, and how many at a time. Pure."""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from wizard_actors.breaker_core import TRANSITIONS
from wizard_actors.flight import MAX_FOLLOWERS
from wizard_actors.testing.simulation.invariants.invariant import Invariant
from wizard_actors.testing.simulation.invariants.jumps import Jumps
from wizard_actors.testing.simulation.records import CallRecord, RequestRecord
from wizard_actors.testing.simulation.report import Report

__all__ = ["CALLS"]

TICK: Final = 0.001
"""Seconds by which a call may be closed later than it has to be."""

LEGAL: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {circuit.value: frozenset(to.value for to in turns.values()) for circuit, turns in TRANSITIONS.items()}
)


def _beside(calls: Iterable[CallRecord], ends: Callable[[CallRecord], float]) -> Iterator[tuple[CallRecord, int]]:
    """Yield every call with the number of those before it that had not come to their end yet; `ends` is that step."""
    going: list[float] = []
    for call in calls:
        while going and going[0] < call.steps[0]:
            heapq.heappop(going)
        yield call, len(going)
        heapq.heappush(going, ends(call))


def _first_of(*steps: int | None) -> float:
    return min((step for step in steps if step is not None), default=math.inf)


def _over(call: CallRecord) -> float:
    return _first_of(call.steps[2], call.steps[3])


def _heard(call: CallRecord) -> float:
    return _first_of(*call.steps[1:])


def _closed(call: CallRecord) -> float:
    return _first_of(call.steps[3])


# -- the breaker -------------------------------------------------------------------------------------------------------


def _no_call_while_open(report: Report) -> Iterator[str]:
    for call in report.calls:
        if call.circuit == "open":
            yield f"call {call.number} to {call.model} began at {call.began:.3f} s, while its circuit was open"


def _probes_bounded(report: Report) -> Iterator[str]:
    breakers = {model.name: model.circuit_breaker for model in report.scenario.config.models}
    probes: dict[tuple[str, int], list[CallRecord]] = defaultdict(list)
    for call in report.calls:
        if call.circuit == "half_open":
            probes[call.model, call.generation].append(call)
    for (model, _), calls in probes.items():
        places, spare = breakers[model].half_open_probes, breakers[model].success_threshold
        for call, unheard in _beside(calls, _heard):
            if unheard >= places:
                yield f"call {call.number} to {model} is a probe beside {unheard} unheard, of {places} at most in all"
        for call, out in _beside(calls, _over):
            if out >= places + spare:
                yield f"call {call.number} to {model} is a probe beside {out}, of {places + spare} at most in all"


def _legal_circuits(report: Report) -> Iterator[str]:
    circuits: dict[str, str] = {}
    for change in report.circuits:
        before = circuits.get(change.model, "closed")
        if change.circuit not in LEGAL[before]:
            yield f"the circuit of {change.model} was {before} and became {change.circuit} at {change.at:.3f} s"
        circuits[change.model] = change.circuit


# -- the end -----------------------------------------------------------------------------------------------------------


def _calls_end(report: Report) -> Iterator[str]:
    requests = {request.request_id: request for request in report.requests}
    jumps = Jumps(report.scenario)
    for call in report.calls:
        request = requests.get(call.request_id)
        if request is None or call.closed is None or not request.outcomes:
            continue  # told by others
        if call.closed > request.ended + TICK + jumps.met_in(request.ended, call.closed):
            yield (
                f"call {call.number} was closed at {call.closed:.3f} s, and request {request.number} had ended at "
                f"{request.ended:.3f} s"
            )


def _timeouts_kept(report: Report) -> Iterator[str]:
    total = {model.name: model.timeouts.total for model in report.scenario.config.models}
    readers = {request.request_id: request.reader for request in report.requests}
    jumps = Jumps(report.scenario)
    for call in report.calls:
        if call.closed is None or readers.get(call.request_id) != "eager":
            continue
        took = call.closed - call.began
        if took > total[call.model] + TICK + jumps.met_in(call.began, call.closed):
            yield f"call {call.number} to {call.model} took {took:.3f} s, of {total[call.model]:g} at most"


# -- the bulkhead and the cache ----------------------------------------------------------------------------------------


def _bulkhead(report: Report) -> Iterator[str]:
    for model in report.scenario.config.models:
        calls = (call for call in report.calls if call.model == model.name)
        for call, going in _beside(calls, _closed):
            if going >= model.max_concurrency:
                yield f"call {call.number} to {model.name} began beside {going}, of {model.max_concurrency} at most"


def _one_call_per_key(report: Report) -> Iterator[str]:
    if not report.scenario.config.cache.max_entries:
        return
    shared = {
        request.request_id: request
        for request in report.requests
        if request.kind == "generate" and request.cache in {"lead", "follow"}
    }
    calls: dict[tuple[str, int], list[CallRecord]] = defaultdict(list)
    for call in report.calls:
        if call.request_id in shared:
            calls[call.tenant, call.prompt].append(call)
    crowded = _crowded(shared.values())
    for key, of_key in calls.items():
        if key not in crowded:
            yield from _by_several(of_key)


def _crowded(requests: Iterable[RequestRecord]) -> set[tuple[str, int]]:
    """Return what so many ask that one call has no room for all of them."""
    asked = Counter((request.tenant, request.prompt) for request in requests)
    return {key for key, times in asked.items() if times > MAX_FOLLOWERS}


def _by_several(calls: Iterable[CallRecord]) -> Iterator[str]:
    """Tell of calls that begin while another request makes one; hedges are of one request."""
    going: list[tuple[float, str]] = []
    open_: Counter[str] = Counter()
    for call in calls:
        while going and going[0][0] < call.steps[0]:
            _, over = heapq.heappop(going)
            open_[over] -= 1
            if not open_[over]:
                del open_[over]
        if len(open_) > (call.request_id in open_):
            yield f"call {call.number} for prompt {call.prompt} of tenant {call.tenant!r} began beside one for the same"
        heapq.heappush(going, (_closed(call), call.request_id))
        open_[call.request_id] += 1


CALLS: Final = (
    Invariant("no-call-while-open", "No call begins while its model's circuit is open.", _no_call_while_open),
    Invariant(
        "probes-bounded",
        "Of a half-open circuit's probes no more than half_open_probes wait for a first word at a time.",
        _probes_bounded,
    ),
    Invariant("legal-circuits", "A circuit changes only as the breaker's table of transitions says.", _legal_circuits),
    Invariant("calls-end", "No call goes on when its request has ended.", _calls_end),
    Invariant("timeouts-kept", "No call takes longer than its model's timeouts.total.", _timeouts_kept),
    Invariant("bulkhead", "A model never has more calls open than max_concurrency.", _bulkhead),
    Invariant(
        "one-call-per-key",
        "With the cache on, one request at a time asks models for the same prompt of the same tenant.",
        _one_call_per_key,
    ),
)
