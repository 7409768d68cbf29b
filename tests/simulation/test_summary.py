"""A run in figures: each from records that were made by hand."""

from decimal import Decimal

import msgspec
import pytest
from attrs import evolve, fields

from tests.simulation.made_up import attempt
from wizard_actors import WizardConfig
from wizard_actors.cli_simulate.shown import summary_table
from wizard_actors.testing import FaultWindow, Report, Scenario, Upstream, Workload
from wizard_actors.testing.simulation.records import CallRecord, CircuitChange, RequestRecord, Spent
from wizard_actors.testing.simulation.scenario import StorageFault
from wizard_actors.testing.simulation.summary import Percentiles, Summary, summarize

MODELS = """
[[models]]
name = "primary"
provider = "openai"
[[models]]
name = "backup"
provider = "openai"
[[routes]]
name = "quick"
chain = ["backup", "primary"]
"""
SCENARIO = Scenario(config=WizardConfig.from_toml(MODELS, env={}), duration=600)
DOWN = FaultWindow(kind="down", models=("primary",), start=100, lasts=200)


def request(number: int, outcome: str = "answered", *, at: float = 0.0, takes: float = 1.0) -> RequestRecord:
    """A request; an answer is the primary's."""
    answered = outcome == "answered"
    return RequestRecord(
        number=number,
        kind="generate",
        prompt=number,
        prompt_words=10,
        tenant="",
        session=None,
        deadline=None,
        arrived=at,
        ended=at + takes,
        outcomes=(outcome,),
        model="primary" if answered else None,
        served_by="direct" if answered else None,
    )


def by_backup(number: int, *, at: float) -> RequestRecord:
    """A request that the backup answers."""
    return evolve(request(number, at=at), model="backup", served_by="fallback")


def call(number: int, model: str, at: float, *, circuit: str = "closed", fault: str | None = None) -> CallRecord:
    """A call that is over at once."""
    return CallRecord(
        number=number,
        model=model,
        request_id="id",
        prompt=0,
        tenant="",
        began=at,
        heard=at,
        over=at,
        closed=at,
        steps=(0, 1, 2, 3),
        circuit=circuit,
        generation=0,
        fault=fault,
        status=200,
        end="complete",
        asked_tokens=1,
        billed=2,
    )


def report(*requests: RequestRecord, calls: tuple[CallRecord, ...] = (), scenario: Scenario = SCENARIO) -> Report:
    """What is known of a run with these requests and calls."""
    return Report(
        scenario=scenario,
        requests=requests,
        calls=calls,
        circuits=(),
        spent=(),
        samples=(),
        lanes={},
        restarts={},
        sessions={},
        counts={},
        held=(),
        finished=True,
        ended=600.0,
    )


def test_those_who_left_by_themselves_count_in_no_availability() -> None:
    """Answered by answered and failed; cancelled and left are in the outcomes alone."""
    outcomes = ["answered"] * 3 + ["overloaded", "cancelled", "left", "left"]
    summary = summarize(report(*(request(number, outcome) for number, outcome in enumerate(outcomes))))
    assert summary.availability == 0.75
    assert summary.requests == 7
    assert summary.outcomes == {"answered": 3, "cancelled": 1, "left": 2, "overloaded": 1}


def test_who_got_nothing_was_failed() -> None:
    """A request without any outcome is no answer."""
    summary = summarize(report(request(0), evolve(request(1), outcomes=())))
    assert (summary.availability, summary.outcomes) == (0.5, {"answered": 1, "nothing": 1})


def test_where_nobody_asked_there_is_nothing_to_count() -> None:
    """None stands for what nothing is known of."""
    summary = summarize(report())
    unknown = [summary.availability, summary.availability_in_faults, summary.fallback_share, summary.latency]
    assert [*unknown, summary.first_token, summary.cost, summary.calls_per_request] == [None] * 7
    assert summary.share_of("primary") == 0.0


def test_availability_within_faults_is_that_of_the_requests_under_way_then() -> None:
    """A request that a fault broke off counts, though it arrived before; one that arrived after the fault does not."""
    scenario = evolve(SCENARIO, faults=(DOWN,))
    broken, rescued = request(0, "stream_interrupted", at=99.5, takes=0.5), by_backup(1, at=200.0)
    outside = [request(2, at=50.0), request(3, "overloaded", at=300.0)]
    summary = summarize(report(broken, rescued, *outside, scenario=scenario))
    assert summary.availability_in_faults == 0.5
    assert summary.availability == 0.5


def test_a_turn_under_way_while_the_storage_is_faulty_is_counted_apart() -> None:
    """Of the sessions' turns alone, nobody else meets it; it is no fault of a model."""
    scenario = evolve(SCENARIO, storage_faults=(StorageFault(kind="failing", start=100, lasts=50),))
    turns = [
        evolve(request(number, outcome, at=at), session="s")
        for number, (outcome, at) in enumerate(
            [("answered", 98.9), ("answered", 99.5), ("storage", 120.0), ("storage", 149.9), ("storage", 150.0)]
        )
    ]
    summary = summarize(report(*turns, request(5, at=120.0), scenario=scenario))
    assert summary.availability_in_storage_faults == pytest.approx(1 / 3)
    assert summary.availability_in_faults is None


def test_what_shed_a_request_is_named() -> None:
    """The client counts those that it refused itself; others found a session's turns taken, or a model's slots."""
    late = evolve(request(3, "mailbox_full"), ends=1, attempts=(attempt(1, error="mailbox_full", model="backup"),))
    shed = [request(number, "mailbox_full") for number in range(3)]
    summary = summarize(evolve(report(*shed, late, request(4)), counts={"shed": 2}))
    assert summary.shed == {
        "server.max_in_flight": 2,
        "wizard/sessions": 1,
        "wizard/models/model:backup/worker": 1,
    }
    assert summarize(report(request(0, "overloaded"))).shed == {}


def test_answers_of_hedges_are_counted() -> None:
    """Where the hedge was the one that answered, not where it was too late."""
    both = (attempt(1, model="primary", hedge=False), attempt(2, model="backup", hedge=True))
    won = evolve(by_backup(0, at=0.0), attempts=both)
    lost = evolve(request(1), attempts=both)
    assert summarize(report(won, lost, by_backup(2, at=0.0))).hedge_answers == 1


def test_the_table_says_what_its_figures_are_of() -> None:
    """What shed a request is named below the outcomes, and shares say of whom they are."""
    scenario = evolve(SCENARIO, faults=(DOWN,), storage_faults=(StorageFault(kind="failing"),))
    turn = evolve(request(1, "storage", at=150.0), session="s")
    of = report(by_backup(0, at=150.0), turn, request(2, "mailbox_full"), scenario=scenario)
    table = summary_table(evolve(of, counts={"shed": 1}, spent=(Spent(1.0, "id", "backup", True, True),)), "hash")
    shown = dict(zip(*(map(str, column.cells) for column in table.columns), strict=True))
    assert shown["  mailbox_full, by what was full"] == "server.max_in_flight 1"
    assert shown["  of sessions, while their storage was faulty"] == "0.00 %"
    assert shown["  by another model, while the first was faulty"] == "50.00 %"
    assert shown["retries and hedges"] == "0 retries, 1 hedges (0 answered)"


def test_fallbacks_are_counted_while_the_first_model_is_faulty() -> None:
    """Of those that arrived then: an answer of the faulty model's own, a failure and a fallback."""
    scenario = evolve(SCENARIO, faults=(DOWN,))
    requests = [request(0, at=100.0), request(1, "timeout", at=150.0), by_backup(2, at=299.0), by_backup(3, at=300.0)]
    summary = summarize(report(*requests, request(4, "cancelled", at=200.0), scenario=scenario))
    assert summary.fallback_share == pytest.approx(1 / 3)


def test_the_first_model_is_that_of_the_route_that_is_asked() -> None:
    """A fault of the default route's first model is none of the first of this one."""
    scenario = evolve(SCENARIO, faults=(DOWN,), workload=Workload(route="quick"))
    assert summarize(report(by_backup(0, at=150.0), scenario=scenario)).fallback_share is None


def test_shares_are_of_the_answers() -> None:
    """By model and by the way they came, every model named."""
    summary = summarize(report(request(0), request(1), request(2), by_backup(3, at=0.0), request(4, "overloaded")))
    assert (summary.share_of("primary"), summary.share_of("backup"), summary.share_of("nobody")) == (0.75, 0.25, 0.0)
    assert summary.served_by == {"direct": 3, "fallback": 1}
    assert list(summarize(report(by_backup(0, at=0.0))).answered_by.items()) == [("primary", 0), ("backup", 1)]


def test_percentiles_are_values_that_there_were() -> None:
    """The least one that so many do not exceed; of one value, that one; in whatever order they come."""
    assert Percentiles.of(float(each) for each in reversed(range(1, 201))) == Percentiles(100.0, 180.0, 198.0)
    assert Percentiles.of([7.0]) == Percentiles(7.0, 7.0, 7.0)
    assert Percentiles.of([]) is None


def test_latency_is_that_of_answers() -> None:
    """A failure that took an hour, one that took no time, and a slow reader's own time say nothing of it."""
    slow = evolve(request(3, takes=900.0), reader="slow")
    failures = [request(1, "timeout", takes=3600.0), request(2, "circuit_open", takes=0.0)]
    answer = evolve(request(0, takes=2.0), first_token=0.5)
    summary = summarize(report(answer, slow, *failures))
    assert (summary.latency, summary.first_token) == (Percentiles(2.0, 2.0, 2.0), Percentiles(0.5, 0.5, 0.5))


def test_costs_are_added_up_where_they_are_known() -> None:
    """Of failures too: they were paid for."""
    costs = [Decimal("0.1"), None, Decimal("0.25")]
    requests = [evolve(request(number, "overloaded"), cost=cost) for number, cost in enumerate(costs)]
    assert summarize(report(*requests)).cost == Decimal("0.35")


def test_a_cost_that_nobody_knows_is_none() -> None:
    """A refusal costs nothing: what the answers cost is not known by that."""
    unpriced = [evolve(request(number), cost=None) for number in range(2)]
    refused = evolve(request(2, "overloaded"), cost=Decimal(0))
    priced = evolve(request(3), cost=Decimal("0.1"))

    assert (summarize(report(*unpriced, refused)).cost, summarize(report(*unpriced, refused)).unpriced) == (None, 2)
    assert (summarize(report(*unpriced, priced)).cost, summarize(report(*unpriced, priced)).unpriced) == (
        Decimal("0.1"),
        2,
    )
    assert summarize(report(refused)).cost == 0


def test_calls_are_counted_by_model_and_circuit_and_by_the_fault_they_met() -> None:
    """Every model is named, also one that nobody called."""
    calls = (call(0, "primary", 1.0), call(1, "primary", 2.0, circuit="half_open", fault="down"))
    summary = summarize(report(request(0), calls=calls))
    assert summary.calls == {"primary": {"closed": 1, "half_open": 1}, "backup": {}}
    assert (summary.faults, summary.calls_per_request) == ({"down": 1}, 2.0)


def test_calls_after_a_faults_first_minute_are_counted() -> None:
    """Of the model that has it, from that minute's end to the fault's; in every region that it names."""
    upstreams = (Upstream(model="backup", region="here"),)
    region = FaultWindow(kind="error", regions=("here",), start=0, lasts=90, every=100)
    scenario = evolve(SCENARIO, upstreams=upstreams, faults=(DOWN, region))
    primary = [call(number, "primary", at) for number, at in enumerate((100.0, 159.9, 160.0, 299.9, 300.0))]
    backup = [call(number, "backup", at) for number, at in enumerate((59.0, 60.0, 95.0, 170.0), 5)]
    summary = summarize(report(calls=(*primary, *backup), scenario=scenario))
    assert summary.late_calls == {"primary": 2, "backup": 2}


def test_a_fault_that_joins_another_begins_no_new_first_minute() -> None:
    """The model has been faulty since the first of them."""
    second = FaultWindow(kind="error", models=("primary",), start=170, lasts=200)
    scenario = evolve(SCENARIO, faults=(second, DOWN))
    calls = (call(0, "primary", 180.0), call(1, "primary", 301.0))
    assert summarize(report(calls=calls, scenario=scenario)).late_calls == {"primary": 2, "backup": 0}


def test_retries_and_hedges_are_those_that_were_paid_for() -> None:
    """What the budget had nothing left for is counted apart."""
    spent = [(False, True), (False, True), (True, True), (False, False), (True, False)]
    facts = tuple(Spent(1.0, "id", "primary", hedge, paid) for hedge, paid in spent)
    summary = summarize(evolve(report(), spent=facts))
    assert (summary.retries, summary.hedges, summary.refused_retries) == (2, 1, 2)


def test_circuits_lanes_and_restarts_are_told_by_name() -> None:
    """Openings alone are counted of a circuit's changes."""
    circuits = tuple(CircuitChange(1.0, "backup", circuit) for circuit in ("open", "half_open", "open", "closed"))
    summary = summarize(
        evolve(report(), circuits=circuits, lanes={"wizard/router": (3, 256)}, restarts={"b": 1, "a": 2})
    )
    assert summary.openings == {"primary": 0, "backup": 2}
    assert (summary.lanes["wizard/router"].deepest, summary.lanes["wizard/router"].bound) == (3, 256)
    assert list(summary.restarts.items()) == [("a", 2), ("b", 1)]


def test_a_summary_becomes_json_and_back() -> None:
    """Every figure is there, in JSON's own types; the cost is a text."""
    answer = evolve(request(0), cost=Decimal("1E-7"), first_token=0.25)
    summary = evolve(report(answer, calls=(call(0, "primary", 1.0),)), lanes={"wizard/router": (3, 256)}).summary
    shown = summary.to_dict()
    assert msgspec.json.decode(msgspec.json.encode(shown)) == shown
    assert shown.keys() == {field.name for field in fields(Summary)}
    assert (shown["cost"], shown["lanes"]) == ("0.0000001", {"wizard/router": {"deepest": 3, "bound": 256}})


def test_a_report_has_its_summary() -> None:
    """Made once."""
    of = report(request(0))
    assert of.summary == summarize(of)
    assert of.summary is of.summary
