"""Whole clients in generated outages: every invariant holds, and what is changed for the better makes nothing worse."""

from __future__ import annotations

import os

import pytest
from attrs import evolve
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from wizard_actors.config import CacheConfig, ModelConfig, RateLimitConfig, RouteConfig, WizardConfig
from wizard_actors.testing import Report, Scenario, Spread, Upstream, Workload, simulate
from wizard_actors.testing.simulation.scenario import FaultKind, FaultWindow
from wizard_actors.testing.simulation.scenario_file import scenario_to_toml
from wizard_actors.testing.simulation.trace import trace
from wizard_actors.testing.strategies import check, configurations, fault_plans, scenarios, workloads
from wizard_actors.testing.strategies.outages import KINDS

STRANDS = 4
SCENARIOS = int(os.environ.get("SCENARIOS", "80"))
"""How many are played, of all strands together; `make simulations` says more."""

few = settings(max_examples=12)
"""Two runs an example."""

CURED_ELSEWHERE: tuple[FaultKind, ...] = tuple(kind for kind in KINDS if kind != "content_filter")
"""What another model may answer in spite of; a prompt that is refused for its content is not taken elsewhere."""

WORKLOADS = workloads().map(
    lambda work: evolve(
        work,
        deadline=None,
        deadline_share=1.0,
        cancel_share=0.0,
        stream=0.0,
        buffered=work.buffered,
        sessions=0,
        sessions_share=0.0,
        slow_readers=0.0,
        stopped_readers=0.0,
    )
)
"""Callers who wait for whole answers as long as it takes."""

ROUTE = RouteConfig(name="wizard", spill=True)
"""All models, one after the other; calls that have waited for a full one for too long go on to the next."""

HEALTHY = ModelConfig(name="healthy", provider="openai")


@pytest.mark.parametrize("strand", range(STRANDS))
def test_every_invariant_holds_in_every_scenario(strand: int) -> None:
    """Whatever goes wrong, every promise is kept. Each strand plays scenarios of its own."""

    @seed(strand)
    @settings(max_examples=SCENARIOS // STRANDS, database=None)
    @given(scenario=scenarios())
    def holds(scenario: Scenario) -> None:
        check(scenario)

    holds()


@few
@given(scenario=scenarios())
def test_the_same_scenario_is_played_in_the_same_way(scenario: Scenario) -> None:
    """Two runs have the same facts, one by one."""
    once, again = (list(trace(simulate(scenario))) for _ in range(2))

    assert once == again


def answered(report: Report) -> int:
    """Return how many requests were answered."""
    return sum(request.outcome == "answered" for request in report.requests)


@st.composite
def outages(draw: st.DrawFn) -> Scenario:
    """Return scenarios of faults alone, with a sequential chain whose last model is healthy and has no limits."""
    config = draw(configurations(max_models=2, strategies=["sequential"]))
    names = [model.name for model in config.models]
    duration = draw(st.sampled_from([10.0, 30.0]))
    return Scenario(
        seed=draw(st.integers(0, 99)),
        duration=duration,
        config=WizardConfig(
            models=[*config.models, HEALTHY], fallback=ROUTE, stream=config.stream, retry_budget=config.retry_budget
        ),
        faults=[
            evolve(fault, models=fault.models or tuple(names))
            for fault in draw(fault_plans(names, duration, kinds=CURED_ELSEWHERE))
        ],
        workload=draw(WORKLOADS),
    )


@few
@given(scenario=outages())
def test_a_healthy_model_at_the_end_of_the_chain_lowers_no_number_of_answers(scenario: Scenario) -> None:
    """Where callers wait for whole answers, without deadlines, and full models are passed by, all of them get one."""
    *others, _healthy = scenario.config.models
    without = evolve(scenario, config=scenario.config.changed(models=others, fallback=ROUTE))

    before, after = (simulate(each) for each in (without, scenario))

    assert answered(before) <= answered(after) == len(after.requests), scenario_to_toml(scenario)


@few
@given(
    limits=st.lists(st.sampled_from([6, 12, 30, 60, 120]), min_size=2, max_size=2, unique=True).map(sorted),
    max_wait=st.sampled_from([0.0, 1.0, 10.0]),
    burst=st.sampled_from([None, 1, 5]),
    work=WORKLOADS,
    seed=st.integers(0, 99),
)
def test_raising_a_limit_adds_no_refusals(
    limits: list[int], max_wait: float, burst: int | None, work: Workload, seed: int
) -> None:
    """With one healthy model, what its own limiter refuses gets no more as it is allowed more."""

    def refused(limit: int) -> int:
        rate_limit = RateLimitConfig(requests_per_minute=limit, burst=burst, max_wait=max_wait)
        model = evolve(HEALTHY, rate_limit=rate_limit, max_concurrency=1000)
        scenario = Scenario(seed=seed, duration=30, config=WizardConfig(models=[model]), workload=work)
        return simulate(scenario).summary.outcomes.get("rate_limit", 0)

    low, high = limits

    assert refused(high) <= refused(low)


@few
@given(
    work=workloads().map(lambda work: evolve(work, deadline=None, deadline_share=1.0, distinct=work.distinct or 2)),
    first_token=st.sampled_from([Spread(median=0.3), Spread(median=2.0), Spread(median=0.5, p99=5.0)]),
    entries=st.sampled_from([100, 2]),
    ttl=st.sampled_from([60.0, 5.0]),
    seed=st.integers(0, 99),
)
def test_a_cache_adds_no_calls(work: Workload, first_token: Spread, entries: int, ttl: float, seed: int) -> None:
    """With healthy models, a client that caches makes no more calls than one that does not."""

    def calls(cache: CacheConfig) -> int:
        config = WizardConfig(models=[HEALTHY], cache=cache)
        upstreams = [Upstream(model="*", first_token=first_token)]
        return len(simulate(Scenario(seed=seed, duration=30, config=config, upstreams=upstreams, workload=work)).calls)

    assert calls(CacheConfig(max_entries=entries, ttl=ttl)) <= calls(CacheConfig())


@pytest.mark.parametrize("kind", KINDS)
def test_one_fault_alone_breaks_no_promise(kind: FaultKind) -> None:
    """Every kind of fault, from the beginning to the end, at the only model."""
    config = WizardConfig(models=[HEALTHY])
    work = Workload(rate=1, stream=0.3, buffered=0.3)

    check(Scenario(duration=20, config=config, workload=work, faults=[FaultWindow(kind=kind)]))
