"""Bugs that are planted into each core of the client: a simulation catches them, and has nothing against it without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import pytest
import trio
from attrs import evolve, field, frozen

from tests.simulation.bugs import (
    Patch,
    all_promoted,
    boundless_budget,
    choking,
    deaf_to_deadlines,
    discouraged,
    distrustful,
    endless_minute,
    endlessly_patient,
    failing,
    flattered,
    forgetful,
    free_hedges,
    garbled,
    hasty_release,
    hurried,
    kept,
    lingering,
    lost_replies,
    one_for_all_tenants,
    permit_first,
    probes_for_all,
    refusing,
    rounded_balance,
    same_for_all,
    told_twice,
    trusting,
    uncounted,
    unfenced,
    unlimited,
    unpromoted,
    unstored,
)
from tests.simulation.bugs_of_way import (
    backwards,
    impatient,
    miscounted,
    never_open,
    overcharged,
    restless,
    shuffled,
    single_minded,
    undying,
)
from wizard_actors import WizardConfig
from wizard_actors.testing import ClockJump, FaultWindow, Kill, Scenario, Spread, Upstream, Workload, simulate
from wizard_actors.testing.simulation import transport
from wizard_actors.testing.simulation.trace import trace_hash


def config(text: str = "", *, a: str = "", b: str = "") -> WizardConfig:
    """Two models, what else is set for each of them, and the rest."""
    models = "".join(
        f'[[models]]\nname = "{name}"\nprovider = "openai"\nmodel = "m"\n{own}\n' for name, own in (("a", a), ("b", b))
    )
    return WizardConfig.from_toml(models + text, env={})


# -- what each of them does --------------------------------------------------------------------------------------------


@frozen
class Planted:
    """A bug, a scenario in which it shows, and the invariant that it is against. `waits`: somebody does, for ever."""

    plant: Callable[[Patch], None]
    against: str
    scenario: Scenario
    waits: bool = field(default=False, kw_only=True)


CALM: Final = "circuit_breaker = { failure_threshold = 1000 }"
PRICE: Final = "price = { input = 1, output = 2 }"
DOWN: Final = FaultWindow(kind="down", models=("a",))
BUSY: Final = Workload(rate=10.0)
CACHED: Final = "[cache]\nmax_entries = 100\nttl = 0.1\n"
SAME: Final = Workload(rate=10.0, distinct=1, cancel_share=0.3, cancel_after=Spread(median=0.4))
SMALL: Final = "[retry_budget]\ninitial = 2\nrefill_per_second = 0\nrefill_to = 0\ndeposit = 0.1\n"
SLOW: Final = Upstream(model="*", first_token=Spread(median=2.0))

PLANTED: Final[Mapping[str, Planted]] = {
    "a rounded balance of floats": Planted(
        rounded_balance,
        "requests-per-minute",
        Scenario(config=config(a="rate_limit = { requests_per_minute = 60 }"), duration=6.0),
    ),
    "a minute without a cap": Planted(
        endless_minute,
        "tokens-per-minute",
        Scenario(
            config=config(a="rate_limit = { tokens_per_minute = 2000, max_wait = 600 }"),
            duration=12.0,
            workload=Workload(rate=1.0, prompt_tokens=Spread(median=300.0)),
        ),
    ),
    "permits of before": Planted(
        unfenced,
        "probes-bounded",
        Scenario(
            config=config(a="circuit_breaker = { failure_threshold = 2, open_for = 0.5, success_threshold = 9 }"),
            duration=6.0,
            faults=(evolve(DOWN, kind="error", share=0.3),),
            workload=BUSY,
            upstreams=(SLOW,),
        ),
    ),
    "unbounded probes": Planted(
        probes_for_all,
        "probes-bounded",
        Scenario(
            config=config(a="circuit_breaker = { failure_threshold = 2, open_for = 2 }"),
            duration=6.0,
            faults=(evolve(DOWN, lasts=2.0),),
            workload=BUSY,
        ),
    ),
    "a permit before the limiter's wait": Planted(
        permit_first,
        "no-call-while-open",
        Scenario(
            config=config(a="rate_limit = { requests_per_minute = 120 }\ncircuit_breaker = { failure_threshold = 2 }"),
            duration=6.0,
            faults=(evolve(DOWN, start=2.0),),
            workload=BUSY,
        ),
    ),
    "a permit that is kept": Planted(
        kept("_permit"),
        "nothing-left",
        Scenario(config=config(), duration=6.0, workload=evolve(BUSY, cancel_share=0.2)),
    ),
    "leave that is kept": Planted(
        kept("_grant"),
        "nothing-left",
        Scenario(config=config(), duration=6.0, workload=evolve(BUSY, cancel_share=0.2)),
    ),
    "a slot that is free too early": Planted(
        hasty_release, "bulkhead", Scenario(config=config(a="max_concurrency = 2"), duration=6.0, workload=BUSY)
    ),
    "an answer that was cut short": Planted(
        trusting,
        "whole-answers",
        Scenario(
            config=config(), duration=6.0, faults=(FaultWindow(kind="truncated"),), workload=evolve(BUSY, stream=1.0)
        ),
    ),
    "a deadline that nobody keeps": Planted(
        deaf_to_deadlines,
        "deadlines-kept",
        Scenario(config=config(), duration=6.0, workload=evolve(BUSY, deadline=Spread(median=1.0)), upstreams=(SLOW,)),
    ),
    "retries without a budget": Planted(
        boundless_budget,
        "retry-budget",
        Scenario(config=config(SMALL, a=CALM, b=CALM), duration=6.0, faults=(FaultWindow(kind="down"),)),
    ),
    "hedges that cost nothing": Planted(
        free_hedges,
        "retry-budget",
        Scenario(config=config(SMALL + '[fallback]\nstrategy = "parallel"\n'), duration=6.0, workload=BUSY),
    ),
    "a cancelled leader without an heir": Planted(
        unpromoted, "nothing-left", Scenario(config=config(CACHED), duration=6.0, workload=SAME), waits=True
    ),
    "a cancelled leader with many heirs": Planted(
        all_promoted, "one-call-per-key", Scenario(config=config(CACHED), duration=6.0, workload=SAME)
    ),
    "a key without the tenant": Planted(
        one_for_all_tenants,
        "tenants-apart",
        Scenario(config=config(CACHED), duration=6.0, workload=Workload(rate=10.0, distinct=2, tenants=3)),
    ),
    "a reply that is lost in a crash": Planted(
        lost_replies,
        "nothing-left",
        Scenario(
            config=config(a="rate_limit = { requests_per_minute = 60 }"),
            duration=6.0,
            workload=BUSY,
            kills=(Kill(actor="models/model:a/limiter", at=3.0),),
        ),
        waits=True,
    ),
    "turns that are never stored": Planted(
        unstored,
        "sessions-stored",
        Scenario(config=config(), duration=6.0, workload=Workload(sessions=2, sessions_share=1.0)),
    ),
    "one body for all": Planted(same_for_all, "right-prompt", Scenario(config=config(), duration=6.0)),
    "a session without its history": Planted(
        forgetful,
        "right-prompt",
        Scenario(config=config(), duration=6.0, workload=Workload(sessions=2, sessions_share=1)),
    ),
    "a stream of something else": Planted(
        garbled,
        "whole-answers",
        Scenario(config=config(), duration=6.0, workload=evolve(BUSY, stream=0.5, buffered=0.5)),
    ),
    "a parser that chokes": Planted(
        choking, "no-provider-bug", Scenario(config=config(), duration=6.0, workload=evolve(BUSY, stream=0.5))
    ),
    "an error of no kind": Planted(failing, "no-bug", Scenario(config=config(), duration=6.0, workload=BUSY)),
    "a client that refuses everybody": Planted(
        refusing, "answers-where-it-can", Scenario(config=config(), duration=6.0)
    ),
    "whole answers that are not believed": Planted(
        distrustful, "whole-calls-count", Scenario(config=config(), duration=6.0)
    ),
    "connections that stay open": Planted(
        lingering, "calls-end", Scenario(config=config(), duration=6.0, workload=evolve(BUSY, cancel_share=0.4))
    ),
    "endless patience": Planted(
        endlessly_patient,
        "timeouts-kept",
        Scenario(
            config=config(a="timeouts = { first_token = 2, stall = 2, total = 5 }"),
            duration=6.0,
            faults=(FaultWindow(kind="silent", models=("a",), lasts=3.0),),
        ),
    ),
    "no limiter, before the clock jumps": Planted(
        unlimited,
        "requests-per-minute",
        Scenario(
            config=config(a="rate_limit = { requests_per_minute = 60 }"),
            duration=12.0,
            workload=Workload(rate=1.9),
            clock_jumps=tuple(ClockJump(at=11.0 + number / 10, seconds=70.0) for number in range(7)),
        ),
    ),
    "no count of tokens, before the clock jumps": Planted(
        unlimited,
        "tokens-per-minute",
        Scenario(
            config=config(a="rate_limit = { tokens_per_minute = 2000, max_wait = 600 }"),
            duration=12.0,
            workload=Workload(rate=1.0, prompt_tokens=Spread(median=300.0)),
            clock_jumps=tuple(ClockJump(at=11.0 + number / 10, seconds=70.0) for number in range(7)),
        ),
    ),
    "cancelled, and told as answered": Planted(
        flattered, "answered-once", Scenario(config=config(), duration=6.0, workload=evolve(BUSY, cancel_share=0.3))
    ),
    "a deadline that nobody gave": Planted(hurried, "answered-once", Scenario(config=config(), duration=6.0)),
    "any number in flight": Planted(
        uncounted,
        "lanes-bounded",
        Scenario(
            config=config("[server]\nmax_in_flight = 3\n"),
            duration=6.0,
            workload=Workload(rate=5.0, arrival="bursts", burst=10),
        ),
    ),
    "a crash that fails who waits for a turn": Planted(
        discouraged,
        "crash-survived",
        Scenario(
            config=config(),
            duration=6.0,
            workload=Workload(rate=5.0, sessions=1, sessions_share=1.0),
            kills=(Kill(actor="sessions", at=3.0),),
        ),
    ),
    "no fallback": Planted(single_minded, "falls-back", Scenario(config=config(), duration=6.0, faults=(DOWN,))),
    "a chain that is tried from its end": Planted(backwards, "follows-chain", Scenario(config=config(), duration=6.0)),
    "hedges without a delay": Planted(
        impatient,
        "hedges-wait",
        Scenario(config=config('[fallback]\nstrategy = "hedged"\nhedge_delay = 1\n'), duration=6.0, upstreams=(SLOW,)),
    ),
    "answers that are kept for ever": Planted(
        undying, "fresh-answers", Scenario(config=config(CACHED), duration=6.0, workload=Workload(distinct=2))
    ),
    "circuits that never open": Planted(
        never_open, "circuit-opens", Scenario(config=config(), duration=6.0, faults=(DOWN,))
    ),
    "a pause that is not kept": Planted(
        restless,
        "pauses-kept",
        Scenario(config=config(), duration=6.0, faults=(evolve(DOWN, kind="rate_limit", retry_after=4.0),)),
    ),
    "a thousandfold bill": Planted(overcharged, "told-right", Scenario(config=config(a=PRICE), duration=6.0)),
    "tokens that nobody is told of": Planted(miscounted, "told-right", Scenario(config=config(), duration=6.0)),
    "turns that are shuffled in a crash": Planted(
        shuffled,
        "turns-in-order",
        Scenario(
            config=config(),
            duration=6.0,
            workload=Workload(rate=2.0, arrival="steady", sessions=1, sessions_share=1.0),
            upstreams=(SLOW,),
            kills=(Kill(actor="sessions", at=4.2),),
        ),
    ),
    "an end that is told twice": Planted(
        told_twice, "answered-once", Scenario(config=config(), duration=6.0, workload=evolve(BUSY, cancel_share=0.2))
    ),
}


@pytest.mark.parametrize("bug", [pytest.param(bug, id=what) for what, bug in PLANTED.items()])
def test_a_planted_bug_is_caught(bug: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the invariant that it is against; without the bug the same scenario is against none."""
    assert simulate(bug.scenario).violations == ()

    bug.plant(monkeypatch)
    report = simulate(bug.scenario)

    assert bug.against in {violation.invariant for violation in report.violations}
    assert report.finished is not bug.waits


def close_in_abort_function(patch: Patch) -> None:
    """A connection is closed in the abort function, and not when its task resumes: Trio calls those in any order."""
    exchange = transport._Exchange

    async def wait(self: transport._Exchange, seconds: float) -> None:
        due = self._due + seconds

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            if trio.current_time() < due:
                self.close()
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.move_on_at(due):
            await trio.lowlevel.wait_task_rescheduled(abort)
        self._due = due

    patch.setattr(exchange, "wait", wait)


@pytest.mark.long
def test_an_effect_in_an_abort_function_gives_one_seed_two_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hedges that are cancelled together: without the bug, all runs are the same to the last step."""
    third = '[[models]]\nname = "c"\nprovider = "openai"\n'
    scenario = Scenario(
        config=config(third + '[fallback]\nstrategy = "parallel"\n'),
        duration=3.0,
        upstreams=(SLOW, Upstream(model="a")),
        workload=BUSY,
    )

    def traces() -> set[str]:
        return {trace_hash(simulate(scenario)) for _ in range(3)}

    assert len(traces()) == 1

    close_in_abort_function(monkeypatch)

    assert len(traces()) > 1
