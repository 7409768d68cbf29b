"""`simulate`: what it promises of every run, whatever the scenario is."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import localcontext
from typing import Any

import pytest
import trio
from attrs import evolve

from wizard_actors import ConfigError, ResilientClient, UnsupportedError, WizardConfig
from wizard_actors.config import SupervisionConfig
from wizard_actors.metrics import MetricsSnapshot
from wizard_actors.testing import (
    INVARIANTS,
    ClockJump,
    FaultWindow,
    Invariant,
    Kill,
    Report,
    Scenario,
    Spread,
    StorageFault,
    Upstream,
    Workload,
    scenario_from_toml,
    simulate,
    trace_hash,
)
from wizard_actors.testing.simulation import run
from wizard_actors.testing.simulation.callers import Callers
from wizard_actors.testing.simulation.checking import check
from wizard_actors.testing.simulation.recorder import Request

TWO = WizardConfig.from_toml(
    'models = [{ name = "a", provider = "openai" }, { name = "b", provider = "anthropic" }]', env={}
)
BUSY = Scenario(
    config=TWO,
    duration=20.0,
    faults=[FaultWindow(kind="error", models=["a"], share=0.3)],
    workload=Workload(rate=5.0, stream=0.3, cancel_share=0.1, sessions=2, sessions_share=0.2),
)
TURNS = evolve(BUSY, faults=(), workload=Workload(rate=1.0, arrival="steady", sessions=1, sessions_share=1.0))

CROWD = evolve(BUSY, workload=Workload(rate=10.0, arrival="bursts", burst=20, stream=0.3, cancel_share=0.3))
"""What becomes of it depends on the order of tasks."""


@pytest.mark.long
def test_the_same_seed_is_the_same_run_and_another_is_another() -> None:
    """In one process too, and `seed` stands in for the scenario's own."""
    first, again, other = simulate(BUSY), simulate(BUSY), simulate(BUSY, seed=2)

    assert (first.requests, first.calls, first.samples) == (again.requests, again.calls, again.samples)
    assert other.requests != first.requests
    assert other.scenario.seed == 2
    assert simulate(evolve(BUSY, seed=2)).requests == other.requests


def test_nothing_is_left_behind_in_trio_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Its flag, its random numbers and the loggers' filters are as they were, also after a scenario that cannot be."""
    inside, log = trio._core._run, logging.getLogger("wizard_actors")

    def state() -> tuple[object, ...]:
        return inside._ALLOW_DETERMINISTIC_SCHEDULING, inside._r.getstate(), log.level, list(log.filters)

    before = state()
    simulate(BUSY)
    assert state() == before
    with pytest.raises(ConfigError):
        simulate(evolve(BUSY, kills=[Kill(actor="nobody", at=1.0)]))
    assert state() == before
    assert caplog.records == []


def test_the_log_can_be_had(caplog: pytest.LogCaptureFixture) -> None:
    """With `logs=True`, as any client logs."""
    simulate(evolve(BUSY, kills=[Kill(actor="router", at=1.0)]), logs=True)

    assert "killed, as the scenario says" in caplog.text


def test_only_the_simulation_is_quiet(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever level a logger has; and what other threads log meanwhile is logged."""
    caplog.set_level(logging.DEBUG, "wizard_actors.supervisor")
    run_callers = Callers.run

    async def beside_another_thread(self: Callers, *given: Any) -> None:  # noqa: ANN401 - passed on
        elsewhere = logging.getLogger("wizard_actors.health")
        await trio.to_thread.run_sync(elsewhere.warning, "of another thread")
        await run_callers(self, *given)

    monkeypatch.setattr(Callers, "run", beside_another_thread)
    simulate(evolve(BUSY, kills=[Kill(actor="router", at=1.0)]))

    assert caplog.messages == ["of another thread"]


def test_a_kill_of_nobody_is_told_with_who_was_meant() -> None:
    """Before anything is played."""
    with pytest.raises(ConfigError) as caught:
        simulate(evolve(BUSY, kills=[Kill(actor="models/model:a/breakr", at=1.0)]))

    [problem] = caught.value.problems
    assert problem.key == "kills[0].actor"
    assert "models/model:a/breaker" in problem.hint


def test_a_trio_that_cannot_repeat_itself_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than that something is played which nobody can play again."""
    monkeypatch.delattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING")

    with pytest.raises(UnsupportedError, match="install a version that simulations know"):
        simulate(BUSY)


def test_a_storage_that_fails_from_the_start_fails_turns_and_not_the_run() -> None:
    """Opening a session is a part of its turn; what jumps of the clock break in it is the turn's, too."""
    failing = simulate(evolve(TURNS, storage_faults=[StorageFault(kind="failing", lasts=10.0)]))
    jumping = simulate(evolve(TURNS, clock_jumps=[ClockJump(at=0.0, seconds=10.0)]))

    assert failing.violations == jumping.violations == ()
    assert failing.summary.outcomes == {"answered": 10, "storage": 10}
    assert failing.sessions == {"s0": (10, 10)}
    assert jumping.summary.availability is not None


def test_an_invariant_of_ones_own_is_checked_and_no_other() -> None:
    """Those that are given, in place of ours."""

    def nobody_waits_a_second(report: Report) -> Iterator[str]:
        yield from (f"request {request.number}" for request in report.requests if request.seconds > 1.0)

    own = Invariant("quick", "Nobody waits for a second.", nobody_waits_a_second)
    report = simulate(BUSY, invariants=[own])

    slow = [request.number for request in report.requests if request.seconds > 1.0]
    assert slow
    assert [(found.invariant, found.what) for found in report.violations] == [
        ("quick", f"request {number}") for number in slow[:20]
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scenario": "provider-outage"}, "`scenario` must be a Scenario, got a text; `load_scenario` makes one"),
        ({"scenario": None}, "`scenario` must be a Scenario, got nothing"),
        ({"invariants": None}, "`invariants` must be a list of Invariants, got nothing"),
        ({"invariants": "quick"}, "`invariants` must be a list of Invariants, got a text"),
        ({"invariants": INVARIANTS[0]}, "`invariants` must be a list of Invariants, got a value of type Invariant"),
        ({"invariants": [*INVARIANTS, 7]}, "`invariants` must be Invariants, got 7"),
        ({"seed": "7"}, "`seed` must be a whole number"),
    ],
)
def test_what_is_no_scenario_and_no_invariant_is_told(given: dict[str, Any], said: str) -> None:
    """By what was wanted, and what makes it, before anything is played."""
    with pytest.raises(ConfigError, match=re.escape(said)):
        simulate(**{"scenario": BUSY, **given})


def test_a_failed_check_of_ones_own_says_what_the_command_knows() -> None:
    """As a comment, so that the whole tail of the message can be written to a file; ours alone need no such word."""
    own = Invariant("nobody", "Nobody asks.", lambda report: [f"{len(report.requests)} asked"])
    calm = evolve(BUSY, duration=1.0)

    with pytest.raises(AssertionError) as caught:
        check(calm, own)

    written = str(caught.value).partition("with this in the file:")[2]
    assert "`wizard simulate` checks the built-in invariants alone" in written
    assert scenario_from_toml(written) == calm


# -- beside other things in its process --------------------------------------------------------------------------------


@pytest.mark.long
def test_simulations_in_two_threads_are_what_each_is_alone() -> None:
    """The second waits for the first, and nothing of either is left in Trio or in the log."""
    inside, log = trio._core._run, logging.getLogger("wizard_actors")
    scenarios = [CROWD, evolve(CROWD, seed=2)]
    alone = [trace_hash(simulate(scenario)) for scenario in scenarios]
    before = inside._ALLOW_DETERMINISTIC_SCHEDULING, inside._r, log.level

    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(trace_hash, threads.map(simulate, scenarios)))

    assert together == alone
    assert (inside._ALLOW_DETERMINISTIC_SCHEDULING, inside._r, log.level) == before


@pytest.mark.long
def test_another_trio_run_beside_it_changes_nothing() -> None:
    """It draws its random numbers from Trio's own source, and the simulation from that of its seed."""
    done = threading.Event()

    async def run_on() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            if done.is_set():
                return

    async def busy() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(run_on)

    alone = trace_hash(simulate(CROWD))
    beside = threading.Thread(target=trio.run, args=(busy,))
    beside.start()
    try:
        assert trace_hash(simulate(CROWD)) == alone
    finally:
        done.set()
        beside.join()


async def test_inside_a_trio_run_it_is_said_what_to_do() -> None:
    """There it would be a run inside a run; in a thread it is one of its own."""
    with pytest.raises(UnsupportedError, match=r"trio\.to_thread\.run_sync\(simulate, scenario\)"):
        simulate(BUSY)

    assert (await trio.to_thread.run_sync(simulate, BUSY)).violations == ()


def request_that(does: Callable[[], object]) -> Callable[[Callers, Request], object]:
    """Return what is in the place of a request that asks the client."""

    async def ask(_: Callers, request: Request) -> None:
        if request.asked.number == 3:
            while True:
                does()
                await trio.lowlevel.checkpoint()
        request.outcomes.append("answered")

    return ask


def test_ctrl_c_is_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """No group of errors, wherever it strikes: who waits for it knows it."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Callers, "_ask", request_that(interrupted))

    with pytest.raises(KeyboardInterrupt):
        simulate(BUSY)


# -- runs that do not end ----------------------------------------------------------------------------------------------


def test_tasks_that_run_on_while_no_time_passes_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told when they did, and what had happened until then."""
    monkeypatch.setattr(run, "ROUNDS", 5_000)
    monkeypatch.setattr(Callers, "_ask", request_that(lambda: None))

    report = simulate(evolve(BUSY, workload=Workload(rate=1.0, arrival="steady")))

    assert not report.finished
    assert report.held == ("spins at t = 3.000 s: tasks run on and on, and no time passes",)
    assert [request.outcome for request in report.requests] == ["answered"] * 3 + ["nothing"]


def test_what_is_known_of_a_run_that_was_broken_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for ever has waited to the end; the client's counts, crashes and sessions are there."""
    ask = Callers._ask

    async def wait_for_ever(self: Callers, request: Request) -> None:
        await ask(self, request) if request.asked.number < 5 else await trio.sleep_forever()

    monkeypatch.setattr(Callers, "_ask", wait_for_ever)

    report = simulate(evolve(TURNS, kills=[Kill(actor="router", at=1.5)]))

    assert not report.finished
    assert report.ended > TURNS.duration + 86_400
    assert {request.ended for request in report.requests if not request.outcomes} == {report.ended}
    assert min(request.seconds for request in report.requests) >= 0
    assert (report.counts["began"], report.counts["answered"]) == (5, 5)
    assert report.restarts == {"wizard/router": 1}
    assert report.sessions == {"s0": (5, 5)}


SLOW = Workload(rate=0.5, stream=1.0, slow_readers=1.0, reads_every=172_800.0)


PATIENT = WizardConfig.from_toml("""
    [[models]]
    name = "a"
    provider = "openai"
    rate_limit = { requests_per_minute = 0.0005, max_wait = "30d" }
    """)


@pytest.mark.parametrize(
    "scenario",
    [
        evolve(BUSY, clock_jumps=[ClockJump(at=5.0, seconds=172_800.0)]),
        evolve(BUSY, workload=SLOW),
        Scenario(config=PATIENT, duration=4.0, workload=Workload(rate=1.0, arrival="steady")),
    ],
    ids=["jump", "slow readers", "a limit"],
)
def test_a_wait_of_days_that_the_scenario_asks_for_is_no_wait_for_ever(scenario: Scenario) -> None:
    """What it makes people wait itself counts as no patience of theirs."""
    report = simulate(scenario)

    assert report.finished
    assert report.violations == ()


def test_an_actor_is_killed_up_to_the_end_of_the_scenario() -> None:
    """Not for as long as its last requests run on."""
    killed = evolve(TURNS, duration=4.0, kills=[Kill(actor="router", at=1.0, every=1.0, times=1_000_000)])
    slow = evolve(killed, upstreams=[Upstream(model="*", first_token=Spread(median=20.0))])

    assert simulate(slow).restarts["wizard/router"] <= 4


def test_the_callers_own_decimal_context_changes_nothing() -> None:
    """Who rounds their own sums to three places sees the same run, and costs that add up."""
    priced = WizardConfig.from_toml(
        'models = [{ name = "a", provider = "openai", price = { input = 1.234, output = 5.678 } }]', env={}
    )
    scenario = evolve(TURNS, config=priced)
    plain = simulate(scenario)

    with localcontext(prec=3):
        report = simulate(scenario)

        assert trace_hash(report) == trace_hash(plain)
        assert report.summary.cost == plain.summary.cost
        assert report.violations == ()


# -- chance ------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_kills_by_lot_at_one_instant_have_lots_of_their_own() -> None:
    """Three of them crash three actors, or some of them the same one: not always all the same."""
    kills = [Kill(actor="*", at=5.0)] * 3

    struck = [len(simulate(evolve(BUSY, kills=kills), seed=seed).restarts) for seed in (1, 2, 3)]

    assert max(struck) > 1


def test_prompts_are_as_long_as_the_seed_says_and_the_same_prompt_always_as_long() -> None:
    """Within a run; another seed has other lengths."""
    work = Workload(rate=5.0, distinct=4, prompt_tokens=Spread(median=50.0, p99=900.0))
    lengths = []
    for seed in (1, 2):
        asked = {(each.prompt, each.prompt_words) for each in simulate(evolve(BUSY, workload=work), seed=seed).requests}
        assert len(asked) == 4
        lengths.append(asked)

    assert not lengths[0] & lengths[1]


# -- what is left ------------------------------------------------------------------------------------------------------


def test_an_actor_that_is_down_hides_nothing_of_other_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it shows itself is of before; what the others hold is told."""
    metrics = ResilientClient.metrics

    def leaking(client: ResilientClient) -> MetricsSnapshot:
        shown = metrics(client)
        assert shown.gauges is not None
        models = {name: evolve(model, slots_in_use=1) for name, model in shown.gauges.models.items()}
        return evolve(shown, gauges=evolve(shown.gauges, models=models))

    monkeypatch.setattr(ResilientClient, "metrics", leaking)
    fragile = TWO.changed(supervision=SupervisionConfig(max_restarts=0))

    report = simulate(evolve(BUSY, config=fragile, kills=[Kill(actor="models/model:b/worker", at=19.0)]))

    assert report.held == ("a: 1 slots when all was over",)
