"""A run in figures: how many were answered, by whom, how soon, and what it took. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Final

from attrs import frozen

from wizard_actors.cost import MONEY
from wizard_actors.seats import model_path
from wizard_actors.testing.simulation.records import RequestRecord
from wizard_actors.testing.simulation.scenario import FaultWindow, Scenario

if TYPE_CHECKING:
    from wizard_actors.testing.simulation.report import Report

__all__ = ["Lane", "Percentiles", "Summary", "answer_seconds", "availability", "first_model", "summarize"]

ANSWERED: Final = "answered"
OWN: Final = frozenset({"cancelled", "left"})
"""The outcomes that are a caller's own doing: they say nothing of how available the models were."""

FULL: Final = "mailbox_full"
SESSIONS: Final = "wizard/sessions"
FIRST_MINUTE: Final = 60.0


@frozen
class Percentiles:
    """Of some values the 50th, 90th and 99th percentile: each the least value that so many of them do not exceed."""

    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Percentiles | None:
        """Return those of `values`, None where there are none."""
        ordered = sorted(values)
        return cls(*(_nearest(ordered, rank) for rank in (50, 90, 99))) if ordered else None

    def to_dict(self) -> dict[str, float]:
        """Return `{p50, p90, p99}`."""
        return {"p50": self.p50, "p90": self.p90, "p99": self.p99}


@frozen
class Lane:
    """How deep an actor's ask lane ever was when it was looked at, and its bound."""

    deepest: int
    bound: int

    def to_dict(self) -> dict[str, int]:
        """Return `{deepest, bound}`."""
        return {"deepest": self.deepest, "bound": self.bound}


@frozen(kw_only=True)
class Summary:
    """A run in figures. Times are in seconds, shares from 0 to 1; None stands where there was nothing to count.

    `availability` is how many of the requests were answered: answered / (answered + failed), where those that their own
    caller cancelled or left count in neither. `availability_in_faults` is that of the requests that were under way
    while any fault of a model was on, `availability_in_storage_faults` that of the turns of sessions under way while
    their storage had one, `fallback_share` how many of those that arrived while the route's first model had a fault
    were answered by another model, be it that the first one failed, was passed over, or was slower than a hedge: None
    where there is no other.

    `outcomes` counts what callers got: "answered", "cancelled", "left", an error's code; `shed` those that ended in
    "mailbox_full", by what had no room for them: "server.max_in_flight", or the path of an actor: the sessions', for
    their turns, or a model's worker, for its slots. `answered_by` counts the answers by model, `served_by` by the way
    they came. `latency` is how long answers took, but for those that were read slowly, `first_token` how long their
    first words did. `cost` is in US dollars, of all requests whose cost is known, None where none of those that were
    answered by a model is; `unpriced` counts these, whose models have no price.

    `retries` and `hedges` are those that the retry budget paid for, `refused_retries` those that it had nothing left
    for; `hedge_answers` counts the answers that hedges gave. `calls` counts, by model, the calls that reached it, by
    what its circuit breaker showed as they began; `calls_per_request` is all of them for each request. `faults` counts
    the calls that met a fault, by its kind; `late_calls`, by model, those that reached it when a fault of its had been
    on for a minute or longer.

    `waiting` is how many calls waited for a slot or a rate limit of a model at once, at most, when it was looked at.
    `lanes` is the actors' ask lanes, `restarts` how often each was restarted, `openings` how often each model's circuit
    opened. `ended` is when the last request had.
    """

    requests: int
    outcomes: Mapping[str, int]
    shed: Mapping[str, int]
    availability: float | None
    availability_in_faults: float | None
    availability_in_storage_faults: float | None
    fallback_share: float | None
    answered_by: Mapping[str, int]
    served_by: Mapping[str, int]
    latency: Percentiles | None
    first_token: Percentiles | None
    cost: Decimal | None
    unpriced: int
    retries: int
    hedges: int
    hedge_answers: int
    refused_retries: int
    calls: Mapping[str, Mapping[str, int]]
    calls_per_request: float | None
    faults: Mapping[str, int]
    late_calls: Mapping[str, int]
    waiting: Mapping[str, int]
    lanes: Mapping[str, Lane]
    restarts: Mapping[str, int]
    openings: Mapping[str, int]
    ended: float

    def share_of(self, model: str) -> float:
        """Return which share of the answers a model gave, 0 where there are none."""
        answers = sum(self.answered_by.values())
        return self.answered_by.get(model, 0) / answers if answers else 0.0

    def to_dict(self) -> dict[str, object]:
        """Return all of it in JSON's types, the cost as a text."""
        return {
            "requests": self.requests,
            "outcomes": dict(self.outcomes),
            "shed": dict(self.shed),
            "availability": self.availability,
            "availability_in_faults": self.availability_in_faults,
            "availability_in_storage_faults": self.availability_in_storage_faults,
            "fallback_share": self.fallback_share,
            "answered_by": dict(self.answered_by),
            "served_by": dict(self.served_by),
            "latency": None if self.latency is None else self.latency.to_dict(),
            "first_token": None if self.first_token is None else self.first_token.to_dict(),
            "cost": None if self.cost is None else f"{self.cost:f}",
            "unpriced": self.unpriced,
            "retries": self.retries,
            "hedges": self.hedges,
            "hedge_answers": self.hedge_answers,
            "refused_retries": self.refused_retries,
            "calls": {model: dict(circuits) for model, circuits in self.calls.items()},
            "calls_per_request": self.calls_per_request,
            "faults": dict(self.faults),
            "late_calls": dict(self.late_calls),
            "waiting": dict(self.waiting),
            "lanes": {path: lane.to_dict() for path, lane in self.lanes.items()},
            "restarts": dict(self.restarts),
            "openings": dict(self.openings),
            "ended": self.ended,
        }


def summarize(report: Report) -> Summary:
    """Return the figures of a run."""
    scenario, requests = report.scenario, report.requests
    answers = [request for request in requests if request.outcome == ANSWERED]
    costs = [request.cost for request in requests if request.cost is not None]
    unpriced = sum(request.cost is None and request.model is not None for request in answers)
    calls = {model: Counter(call.circuit for call in report.calls if call.model == model) for model in report.models}
    return Summary(
        requests=len(requests),
        outcomes=_counted(request.outcome for request in requests),
        shed=_shed(report),
        availability=availability(requests),
        availability_in_faults=availability(request for request in requests if _met(request, scenario.faults)),
        availability_in_storage_faults=availability(
            request for request in requests if request.session is not None and _met_storage(request, scenario)
        ),
        fallback_share=_fallback_share(scenario, requests),
        answered_by=_counted((request.model for request in answers if request.model is not None), report.models),
        served_by=_counted(request.served_by for request in answers if request.served_by is not None),
        latency=answer_seconds(requests),
        first_token=Percentiles.of(request.first_token for request in answers if request.first_token is not None),
        cost=_total(costs) if any(costs) or (costs and not unpriced) else None,
        unpriced=unpriced,
        retries=sum(spent.paid and not spent.hedge for spent in report.spent),
        hedges=sum(spent.paid and spent.hedge for spent in report.spent),
        hedge_answers=sum(_by_hedge(request) for request in answers),
        refused_retries=sum(not spent.paid for spent in report.spent),
        calls={model: dict(sorted(circuits.items())) for model, circuits in calls.items()},
        calls_per_request=len(report.calls) / len(requests) if requests else None,
        faults=_counted(call.fault for call in report.calls if call.fault is not None),
        late_calls=_late_calls(report),
        waiting=_waiting(report),
        lanes={path: Lane(*lane) for path, lane in sorted(report.lanes.items())},
        restarts=dict(sorted(report.restarts.items())),
        openings=_counted((change.model for change in report.circuits if change.circuit == "open"), report.models),
        ended=report.ended,
    )


def availability(requests: Iterable[RequestRecord]) -> float | None:
    """Return answered / (answered + failed), None where there was neither."""
    outcomes = [request.outcome for request in requests if request.outcome not in OWN]
    return outcomes.count(ANSWERED) / len(outcomes) if outcomes else None


def answer_seconds(requests: Iterable[RequestRecord]) -> Percentiles | None:
    """Return how long answers took, but for those that were read slowly: that is their readers' own time."""
    return Percentiles.of(
        request.seconds for request in requests if request.outcome == ANSWERED and request.reader == "eager"
    )


def first_model(scenario: Scenario) -> str:
    """Return the enabled model that the workload's route asks first."""
    return _chain(scenario)[0]


def _chain(scenario: Scenario) -> Sequence[str]:
    """Return the models that the workload's route asks, the enabled ones where there are any."""
    config = scenario.config
    route = config.fallback if scenario.workload.route is None else config.route(scenario.workload.route)
    return [name for name in route.chain if config.model(name).enabled] or route.chain


def _fallback_share(scenario: Scenario, requests: Sequence[RequestRecord]) -> float | None:
    first, *others = _chain(scenario)
    if not others:
        return None
    faults = _faults_of(scenario, first)
    concerned = [request for request in requests if any(fault.began(request.arrived) is not None for fault in faults)]
    counted = [request for request in concerned if request.outcome not in OWN]
    rescued = sum(request.outcome == ANSWERED and request.model not in {None, first} for request in counted)
    return rescued / len(counted) if counted else None


def _total(costs: Iterable[Decimal]) -> Decimal:
    with localcontext(MONEY):
        return sum(costs, Decimal())


def _waiting(report: Report) -> dict[str, int]:
    most = dict.fromkeys(report.models, 0)
    for sample in report.samples:
        for name, model in sample.models.items():
            most[name] = max(most.get(name, 0), model.waiting + model.limiter_waiting)
    return most


def _late_calls(report: Report) -> dict[str, int]:
    late = dict.fromkeys(report.models, 0)
    faults = {model: _faults_of(report.scenario, model) for model in report.models}
    for call in report.calls:
        began = [since for fault in faults[call.model] if (since := fault.began(call.began)) is not None]
        late[call.model] += bool(began) and call.began - min(began) >= FIRST_MINUTE
    return late


def _faults_of(scenario: Scenario, model: str) -> list[FaultWindow]:
    region = scenario.upstream(model).region
    return [fault for fault in scenario.faults if fault.concerns(model, region)]


def _met(request: RequestRecord, faults: Iterable[FaultWindow]) -> bool:
    """Whether a request was under way while one of `faults` was on."""
    arrived, ended = request.arrived, request.ended
    return any(fault.began(arrived) is not None or fault.next_start(arrived) <= ended for fault in faults)


def _met_storage(request: RequestRecord, scenario: Scenario) -> bool:
    """Whether a request was under way while a fault of the storage was on."""
    return any(
        fault.is_on(request.arrived) or request.arrived < fault.start <= request.ended
        for fault in scenario.storage_faults
    )


def _by_hedge(request: RequestRecord) -> bool:
    """Whether a hedge answered a request."""
    won = (each for each in request.attempts if each.error is None and not each.cancelled)
    return any(each.hedge and each.model == request.model for each in won)


def _shed(report: Report) -> dict[str, int]:
    """Return by what requests were shed: the client, which counts them and reports none of them, or an actor."""
    refused = [request for request in report.requests if request.outcome == FULL]
    unreported = sum(not request.ends for request in refused)
    by_client = min(report.counts.get("shed", 0), unreported)
    workers = Counter(_full_worker(request) for request in refused if request.ends)
    shed = {"server.max_in_flight": by_client, SESSIONS: unreported - by_client + workers.pop(SESSIONS, 0)}
    return {by: count for by, count in {**shed, **dict(sorted(workers.items()))}.items() if count}


def _full_worker(request: RequestRecord) -> str:
    """Return the worker at which a request was refused last; where it got to none, it waited for a turn."""
    models = [attempt.model for attempt in request.attempts if attempt.error == FULL]
    return f"wizard/{model_path(models[-1])}/worker" if models else SESSIONS


def _counted(names: Iterable[str], all_of_them: Iterable[str] = ()) -> dict[str, int]:
    """Return how often each name comes, in the order of `all_of_them`, the others by their names."""
    counts = Counter(names)
    return {name: counts[name] for name in (*dict.fromkeys(all_of_them), *sorted(counts.keys() - set(all_of_them)))}


def _nearest(ordered: Sequence[float], rank: int) -> float:
    return ordered[math.ceil(rank * len(ordered) / 100) - 1]
