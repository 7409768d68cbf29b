"""What of a scenario has no effect: settings that nothing uses, and what nobody met in a run."""

from __future__ import annotations

import pytest

from tests.simulation.made_up import CONFIG, call, conversation, report, request
from wizard_actors.testing import (
    ClockJump,
    FaultWindow,
    Kill,
    Report,
    Scenario,
    Spread,
    StorageFault,
    Upstream,
    Workload,
    load_scenario,
)
from wizard_actors.testing.simulation.scenario_file import SHIPPED
from wizard_actors.testing.simulation.without_effect import met_by_nobody, settings_without_effect


def scenario(**tables: object) -> Scenario:
    """Return a scenario of the models "a" and "b"."""
    return Scenario(config=CONFIG, **tables)  # type: ignore[arg-type]  # admitted, or an error


USELESS: list[tuple[Scenario, str]] = [
    (scenario(workload=Workload(burst=5)), "workload.burst"),
    (scenario(workload=Workload(sessions=5)), "workload.sessions"),
    (scenario(workload=Workload(deadline_share=0.5)), "workload.deadline_share"),
    (scenario(workload=Workload(cancel_after=Spread(median=2))), "workload.cancel_after"),
    (scenario(workload=Workload(slow_readers=0.5)), "workload.slow_readers"),
    (scenario(workload=Workload(stopped_readers=0.5)), "workload.stopped_readers"),
    (scenario(workload=Workload(reads_every=2)), "workload.reads_every"),
    (scenario(upstreams=[Upstream(model="b"), Upstream(model="a", burst=2)]), "upstreams[1].burst"),
    (scenario(faults=[FaultWindow(kind="down", status=500)]), "faults[0].status"),
    (scenario(faults=[FaultWindow(kind="cut", retry_after=5)]), "faults[0].retry_after"),
    (scenario(faults=[FaultWindow(kind="slow_tokens", delay=5)]), "faults[0].delay"),
    (scenario(faults=[FaultWindow(kind="down"), FaultWindow(kind="error", factor=5)]), "faults[1].factor"),
    (scenario(faults=[FaultWindow(kind="silent", after_words=5)]), "faults[0].after_words"),
    (scenario(kills=[Kill(actor="*", at=1, times=2)]), "kills[0].times"),
    (scenario(kills=[Kill(actor="*", at=1, every=2)]), "kills[0].every"),
    (scenario(storage_faults=[StorageFault(kind="failing", delay=2)]), "storage_faults[0].delay"),
]


@pytest.mark.parametrize(("made", "key"), USELESS, ids=[key for _, key in USELESS])
def test_a_setting_that_nothing_uses_is_named(made: Scenario, key: str) -> None:
    """Alone, with what it would need; the scenario is valid all the same."""
    [said] = settings_without_effect(made)
    assert said.startswith(f"`{key}` has no effect ")


USED = scenario(
    upstreams=[Upstream(model="a", burst=2, tokens_per_minute=100)],
    faults=[
        FaultWindow(kind="rate_limit", status=503, retry_after=2),
        FaultWindow(kind="slow_first_token", delay=2, factor=3),
        FaultWindow(kind="truncated", after_words=2),
    ],
    workload=Workload(
        arrival="bursts",
        burst=2,
        buffered=0.5,
        sessions=2,
        sessions_share=0.5,
        deadline=Spread(median=9),
        deadline_share=0.5,
        cancel_share=0.5,
        cancel_after=Spread(median=2),
        slow_readers=0.5,
        reads_every=2,
        stopped_readers=0.5,
    ),
    kills=[Kill(actor="*", at=1, every=2, times=2)],
    storage_faults=[StorageFault(kind="slow", delay=2)],
)


@pytest.mark.parametrize("made", [USED, *map(load_scenario, SHIPPED)], ids=lambda made: made.name)
def test_a_setting_that_is_used_is_not_named(made: Scenario) -> None:
    """All of them together, and those of the scenarios that are shipped."""
    assert list(settings_without_effect(made)) == []


def of(made: Scenario, *faults: str | None) -> Report:
    """Return a report of calls at "a", one each 10 s, that met these faults; the run ends 1 s after the last began."""
    calls = [call(number, 10.0 * number, fault=fault) for number, fault in enumerate(faults)]
    asked = [request(number, 10.0 * number) for number in range(len(faults))]
    return report(asked, calls, scenario=made, ended=10.0 * len(faults) - 9.0)


def test_a_fault_that_no_call_met_is_told_by_what_it_is() -> None:
    """One of another model, one that came too late, and one of a region that nobody asked; not the one that was met."""
    faults = [
        FaultWindow(kind="error", models=["a"], start=5),
        FaultWindow(kind="error", models=["b"]),
        FaultWindow(kind="cut", start=90),
        FaultWindow(kind="silent", regions=["east"]),
    ]
    upstreams = [Upstream(model="b", region="east")]

    told = list(met_by_nobody(of(scenario(faults=faults, upstreams=upstreams), None, "error")))

    assert told == [
        'the fault "error" of b, from 0 s on, met no call',
        'the fault "cut", from 90 s on, met no call',
        'the fault "silent" of region east, from 0 s on, met no call',
    ]


def test_a_model_that_goes_down_during_a_call_meets_it() -> None:
    """Its fault began after the call did; what the call met before is not known, and counts as met."""
    down, slow = FaultWindow(kind="down", start=0.5), FaultWindow(kind="slow_tokens", lasts=1)

    assert list(met_by_nobody(of(scenario(faults=[down, slow]), "down"))) == []
    assert len(list(met_by_nobody(of(scenario(faults=[down, slow]), None)))) == 2


def test_what_was_to_happen_after_the_run_is_told() -> None:
    """Requests may run on after `duration`: what counts is when the last of them ended."""
    late = scenario(
        duration=5,
        kills=[Kill(actor="router", at=11), Kill(actor="*", at=10.5)],
        clock_jumps=[ClockJump(at=12, seconds=1), ClockJump(at=6, seconds=1)],
    )

    told = list(met_by_nobody(of(late, None, None)))

    assert told == [
        "the kill of router at 11 s never came: the run was over before",
        "the jump of the clock at 12 s never came: the run was over before",
    ]


def test_a_fault_of_the_storage_is_met_by_turns_of_sessions_alone() -> None:
    """Where nobody has a session, or no turn is under way meanwhile, it met nobody."""
    on, late = StorageFault(kind="slow"), StorageFault(kind="failing", start=90, lasts=5)
    made = scenario(storage_faults=[on, late])
    unmet = 'the storage fault "failing", from 90 s on, met no turn of a session'
    talk = conversation((0,), (0, 1))

    assert list(met_by_nobody(report(talk.requests, talk.calls, scenario=made))) == [unmet]
    assert list(met_by_nobody(of(made, None))) == [
        'the storage fault "slow", from 0 s on, met no turn of a session',
        unmet,
    ]
