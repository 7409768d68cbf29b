"""The metrics as Prometheus reads them: its own parsers take them, and they say what the snapshot says."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, TypeVar, cast

import pytest
import trio
from attrs import AttrsInstance, evolve, fields
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from trio.testing import MockClock

from tests.busy_client import busy_client
from tests.models import Scripted, client_of
from wizard_actors.histogram import Histogram, HistogramSnapshot
from wizard_actors.metrics import (
    AttemptMetrics,
    BreakerMetrics,
    CacheGauges,
    Gauges,
    LaneGauges,
    Metrics,
    MetricsSnapshot,
    ModelGauges,
    RequestMetrics,
    SessionGauges,
)
from wizard_actors.prometheus import WizardCollector, exposition

OPENMETRICS = "application/openmetrics-text"
EMPTY = Metrics(0.0).snapshot(0.0)
P = TypeVar("P", bound=AttrsInstance)
Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(snapshot: MetricsSnapshot, accept: str | None = None) -> list[Metric]:
    """Return the families of a scrape, as the format's own parser reads them."""
    body, content_type = exposition(snapshot, accept)
    parse = parse_openmetrics if content_type.startswith(OPENMETRICS) else parse_text
    return list(parse(body.decode()))


def series(families: Iterable[Metric]) -> Series:
    """Return the value of every series, none of which may be there twice."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for sample in (sample for family in families for sample in family.samples):
        key = (sample.name, frozenset((label, value) for label, value in sample.labels.items() if value))
        assert key not in found
        found[key] = sample.value
    return found


def total(found: Series, name: str, **labels: str) -> float:
    """Return the sum of the series of that name and those labels."""
    return sum(value for (each, pairs), value in found.items() if each == name and set(labels.items()) <= pairs)


def named(found: Series) -> set[str]:
    """Return the names of series."""
    return {name for name, _ in found}


def spread(*seconds: float) -> HistogramSnapshot:
    """Return a histogram of these durations."""
    histogram = Histogram()
    for each in seconds:
        histogram.observe(each)
    return histogram.snapshot()


# -- a client that has done everything ---------------------------------------------------------------------------------


async def test_both_formats_say_the_same(autojump_clock: MockClock) -> None:
    """Each is read by its own parser, the strict one too, and every series is in both, once, with one value."""
    async with busy_client() as client:
        snapshot = client.metrics()
    text, openmetrics = parsed(snapshot), parsed(snapshot, OPENMETRICS)

    assert series(text) == series(openmetrics)
    assert all(family.documentation.endswith(".") for family in text)
    assert {family.unit for family in openmetrics if family.unit} == {"seconds", "bytes", "dollars"}


async def test_requests_are_counted_by_how_they_ended(autojump_clock: MockClock) -> None:
    """The sums of their series are the snapshot's totals: what was shed is beside those that ended."""
    async with busy_client() as client:
        snapshot = client.metrics()
    found, requests = series(parsed(snapshot)), snapshot.requests

    assert total(found, "wizard_requests_total", outcome="answered") == sum(requests.answered.values()) == 9
    assert total(found, "wizard_requests_total", served_by="stale", route="alone") == 1
    assert total(found, "wizard_requests_total", outcome="failed") == sum(requests.failed.values()) == 3
    assert total(found, "wizard_requests_total", code="circuit_open") == 1
    assert total(found, "wizard_requests_total", outcome="cancelled") == requests.cancelled == 2
    assert total(found, "wizard_requests_total", outcome="shed") == requests.shed == 1
    assert total(found, "wizard_requests_in_flight") == requests.in_flight == 1
    ended = total(found, "wizard_request_duration_seconds_count")
    assert total(found, "wizard_requests_total") == ended + requests.shed == requests.began - 1 + requests.shed


async def test_attempts_are_counted_by_how_they_ended(autojump_clock: MockClock) -> None:
    """For each model: what it answered, failed, was not sent, and what was cancelled; hedges, and who paid."""
    async with busy_client() as client:
        snapshot = client.metrics()
    found, attempts = series(parsed(snapshot)), snapshot.attempts

    assert total(found, "wizard_attempts_total", outcome="answered") == attempts.answered
    assert total(found, "wizard_attempts_total", model="down", code="overloaded", outcome="failed") == 4
    assert total(found, "wizard_attempts_total", model="down", code="circuit_open", outcome="unsent") == 1
    assert total(found, "wizard_attempts_total", outcome="cancelled") == attempts.cancelled
    assert total(found, "wizard_hedges_total", model="quick", outcome="won") == 1
    assert total(found, "wizard_hedges_total", model="quick", outcome="lost") == 1
    assert total(found, "wizard_retry_budget_spent_total") == sum(attempts.budget_spent.values()) == 4
    assert total(found, "wizard_retry_budget_refused_total", model="flaky", purpose="retry") == 1
    assert total(found, "wizard_cost_dollars_total") == pytest.approx(float(attempts.cost)) == 0.00012
    assert total(found, "wizard_request_cost_dollars_total", route="wizard") == pytest.approx(0.00012)


async def test_a_models_circuit_is_in_one_state(autojump_clock: MockClock) -> None:
    """That state's series is 1 and the others are 0, for models that nothing ever happened to, too."""
    async with busy_client() as client:
        found = series(parsed(client.metrics()))

    for name, open_ in [("down", 1.0), ("spare", 0.0)]:
        assert total(found, "wizard_breaker_state", model=name) == 1
        assert total(found, "wizard_breaker_state", model=name, state="open") == open_
    assert total(found, "wizard_breaker_changes_total", model="down", state="open") == 2
    assert ("wizard_breaker_changes_total", frozenset({("model", "spare"), ("state", "open")})) in found


async def test_a_client_that_was_never_asked_shows_its_models(autojump_clock: MockClock) -> None:
    """Their counters stand at 0, so that the first failure is an increase."""
    async with client_of({"a": Scripted(), "b": Scripted()}) as client:
        found = series(parsed(client.metrics()))

    for name in ("a", "b"):
        assert found["wizard_attempts_total", frozenset({("model", name), ("outcome", "answered")})] == 0
        assert found["wizard_cost_dollars_total", frozenset({("model", name)})] == 0
    assert "wizard_requests_total" not in named(found)
    assert not named(found) & {"wizard_cache_entries", "wizard_limiter_remaining_tokens"}


async def test_an_actor_that_came_back_is_counted(autojump_clock: MockClock) -> None:
    """By its place in the tree; every actor is there from the start."""
    async with client_of(Scripted()) as client:
        before = series(parsed(client.metrics()))
        client.supervisor.kill("models/model:a/breaker", RuntimeError("planted"))
        await trio.sleep(1.0)
        found = series(parsed(client.metrics()))

    assert total(before, "wizard_actor_restarts_total") == 0
    assert total(found, "wizard_actor_restarts_total", actor="wizard/models/model:a/breaker") == 1
    assert total(found, "wizard_actor_restarts_total") == 1
    actors = {labels for name, labels in found if name == "wizard_actor_restarts_total"}
    assert actors == {labels for name, labels in found if name == "wizard_lane_depth"}


@pytest.mark.parametrize("accept", [None, OPENMETRICS])
def test_responses_of_a_server_are_shown_beside_what_its_client_counts(accept: str | None) -> None:
    """By format and status; without a server there are none."""
    body, content_type = exposition(SEEN, accept, {("openai", 200): 3, ("anthropic", 429): 1})
    parse = parse_openmetrics if content_type.startswith(OPENMETRICS) else parse_text
    found = series(parse(body.decode()))

    assert total(found, "wizard_http_responses_total", format="openai", status="200") == 3
    assert total(found, "wizard_http_responses_total") == 4
    assert "wizard_http_responses_total" not in named(series(parsed(SEEN, accept)))
    assert "wizard_http_responses" in {family.name for family in WizardCollector(lambda: SEEN).describe()}


# -- every field -------------------------------------------------------------------------------------------------------

GAUGES = Gauges(
    budget=1.0, models={"m": ModelGauges()}, lanes={"a": LaneGauges(1, 2)}, cache=CacheGauges(1, 2), in_flight=1
)
SEEN = evolve(EMPTY, routes={"r": RequestMetrics()}, models={"m": AttemptMetrics()}, gauges=GAUGES)
NOT_SHOWN: Mapping[type, set[str]] = {
    RequestMetrics: {"began"},  # those that ended, and those in flight
    AttemptMetrics: {"began", "hedges"},  # those that ended, and those that slots are used for
    Gauges: {"in_flight"},  # the sum of the routes'
}


def changed(value: object) -> object:
    """Return another value of the same type."""
    match value:
        case HistogramSnapshot():
            return value.merged(spread(2.0))
        case str():
            return "open"
        case None:
            return 7.0
        case int() | float() | Decimal():
            return value + 7
        case Mapping():
            return {**value, "hedge": 7}
    raise TypeError(f"how does a {type(value).__name__} change?")


def with_part(part: object) -> MetricsSnapshot:
    """Return a snapshot that has that part in its place."""
    gauged = {ModelGauges: "models", LaneGauges: "lanes", CacheGauges: "cache", SessionGauges: "sessions"}
    match part:
        case RequestMetrics():
            return evolve(SEEN, routes={"r": part})
        case AttemptMetrics():
            return evolve(SEEN, models={"m": part})
        case Gauges():
            return evolve(SEEN, gauges=part)
    place = gauged[type(part)]
    return evolve(SEEN, gauges=with_value(GAUGES, place, {"m": part} if place in {"models", "lanes"} else part))


def with_value(part: P, name: str, value: object) -> P:
    """Return `part` with that value in the field of that name."""
    other: P = evolve(cast("Any", part), **{name: value})  # of what class only the caller knows
    return other


@pytest.mark.parametrize(
    "part",
    [RequestMetrics(), AttemptMetrics(), ModelGauges(), LaneGauges(1, 2), CacheGauges(), SessionGauges(), GAUGES],
    ids=lambda part: type(part).__name__,
)
def test_every_field_of_the_snapshot_is_shown(part: AttrsInstance) -> None:
    """Who adds a field has to show it, or to say why not."""
    simple = [each.name for each in fields(type(part)) if each.name not in {"models", "lanes", "cache", "sessions"}]
    before = exposition(with_part(part), None)

    hidden = {
        name
        for name in simple
        if exposition(with_part(with_value(part, name, changed(getattr(part, name)))), None) == before
    }

    assert hidden == NOT_SHOWN.get(type(part), set())


@pytest.mark.parametrize("name", ["at", "peak_in_flight", "cache", "degraded", "sessions"])
def test_what_belongs_to_no_route_or_model_is_shown(name: str) -> None:
    """Each has series of its own."""
    assert exposition(with_value(SEEN, name, changed(getattr(SEEN, name))), None) != exposition(SEEN, None)


def test_totals_are_not_shown_beside_what_they_are_the_sum_of() -> None:
    """Whoever sums a metric's series has counted nothing twice."""
    with_totals = evolve(SEEN, requests=RequestMetrics(answered={"direct": 7}), attempts=AttemptMetrics(answered=7))

    assert exposition(with_totals, None) == exposition(SEEN, None)


def test_what_was_shed_before_its_route_was_known_has_none() -> None:
    """It stands in the total alone, so it needs a series of its own."""
    snapshot = evolve(SEEN, requests=RequestMetrics(shed=5), routes={"r": RequestMetrics(shed=2)})
    found = series(parsed(snapshot))

    assert found["wizard_requests_total", frozenset({("outcome", "shed")})] == 3
    assert total(found, "wizard_requests_total", outcome="shed") == 5


def test_a_snapshot_without_gauges_shows_counts_alone() -> None:
    """Nobody looked: neither budget, nor slots, nor an empty cache; circuits are as they were last heard of."""
    breakers = {"m": BreakerMetrics("half_open", {"open": 1, "half_open": 1})}
    families = parsed(evolve(SEEN, gauges=None, breakers=breakers))
    found = series(families)

    absent = (
        "wizard_slots",
        "wizard_limiter",
        "wizard_lane",
        "wizard_cache_b",
        "wizard_loop",
        "wizard_retry_budget_rem",
    )
    assert not [name for name in named(found) if name.startswith(absent)]
    assert all(family.samples for family in families)
    assert total(found, "wizard_breaker_state", model="m", state="half_open") == 1


def test_a_model_that_is_gone_has_no_circuit() -> None:
    """What was counted of it stays: a counter that vanished would be one that fell."""
    seen = evolve(
        SEEN, models={"old": AttemptMetrics(answered=3)}, breakers={"old": BreakerMetrics("open", {"open": 1})}
    )
    found = series(parsed(seen))

    assert {labels for name, labels in found if name == "wizard_breaker_state" and ("model", "old") in labels} == set()
    assert total(found, "wizard_breaker_changes_total", model="old", state="open") == 1
    assert total(found, "wizard_attempts_total", model="old") == 3


def test_buckets_are_cumulative_and_end_at_infinity() -> None:
    """Their counts are exact, in both formats."""
    seen = evolve(SEEN, routes={"r": RequestMetrics(duration=spread(0.05, 0.1, 3.0, 9999.0))})
    for accept in (None, OPENMETRICS):
        [family] = [each for each in parsed(seen, accept) if each.name == "wizard_request_duration_seconds"]
        buckets = {float(s.labels["le"]): s.value for s in family.samples if s.name.endswith("_bucket")}

        assert (buckets[0.1], buckets[1.0], buckets[10.0], buckets[600.0], buckets[math.inf]) == (2, 2, 3, 3, 4)
        assert list(buckets.values()) == sorted(buckets.values())
        sums = {s.name.rpartition("_")[2]: s.value for s in family.samples if "le" not in s.labels}
        assert sums == {"count": 4, "sum": pytest.approx(10002.15)}


@pytest.mark.parametrize("accept", [None, OPENMETRICS])
def test_names_are_escaped(accept: str | None) -> None:
    """A model may be called anything."""
    odd = 'back\\slash "quoted"\nline {brace="x"} \u00fc'
    found = series(parsed(evolve(SEEN, models={odd: AttemptMetrics(answered=3)}), accept))

    assert total(found, "wizard_attempts_total", model=odd) == 3


# -- scrapes and registries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        (OPENMETRICS, True),
        ("Application/OpenMetrics-Text; Version=1.0.0", True),
        (f"{OPENMETRICS};version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1", True),
        (f"text/plain;version=0.0.4;q=0.6,{OPENMETRICS};version=1.0.0;q=0.5,*/*;q=0.1", False),
        (f"{OPENMETRICS};q=0", False),
        (f"{OPENMETRICS};q=often", False),
        (f"{OPENMETRICS};version=one", True),
        (f"{OPENMETRICS};version=1.0.0;escaping=values", True),
        ("text/plain;version=x.y", False),
        (";;,;=,,q=", False),
    ],
)
def test_the_accept_header_says_which_format(accept: str | None, openmetrics: bool) -> None:
    """OpenMetrics goes to those that name it and prefer no plain text; no header is an error."""
    body, content_type = exposition(SEEN, accept)

    assert content_type.startswith(
        "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain; version=0"
    )
    assert body.endswith(b"# EOF\n") is openmetrics
    assert b"\nwizard_attempts_total{" in body


def test_a_collector_stands_beside_others_in_a_registry() -> None:
    """It is registered without a look at the client, asked once a scrape, and no second one has the same names."""
    asked: list[float] = []

    def snapshot() -> MetricsSnapshot:
        asked.append(1.0)
        return evolve(SEEN, at=float(len(asked)))

    registry = CollectorRegistry(auto_describe=True)
    registry.register(WizardCollector(snapshot))
    assert asked == []
    assert [registry.get_sample_value("wizard_uptime_seconds") for _ in range(2)] == [1.0, 2.0]
    with pytest.raises(ValueError, match="wizard_requests"):
        registry.register(WizardCollector(snapshot))


def test_what_is_described_is_all_there_can_be() -> None:
    """Names that would clash are known before anything has happened."""
    described = {family.name for family in WizardCollector(lambda: SEEN).describe()}

    assert {family.name for family in WizardCollector(lambda: SEEN).collect()} <= described
    assert {"wizard_cache_entries", "wizard_requests", "wizard_limiter_remaining_tokens"} <= described


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named; whoever shows no metrics does not need it."""
    for name in [name for name in sys.modules if name.startswith("wizard_actors.prometheus")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'wizard-actors\[http\]'"):
        importlib.import_module("wizard_actors.prometheus")
