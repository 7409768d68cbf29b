"""Scenarios: what varies varies as it says, windows open when they say, and a mistake is told by its key."""

import math
from collections.abc import Callable, Mapping
from random import Random
from statistics import quantiles
from typing import Any

import pytest

from wizard_actors.config import WizardConfig
from wizard_actors.errors import ConfigError
from wizard_actors.testing.simulation.scenario import (
    ClockJump,
    FaultWindow,
    Kill,
    Scenario,
    Spread,
    StorageFault,
    Upstream,
    Workload,
)

CONFIG = WizardConfig.from_toml('[[models]]\nname = "a"\nprovider = "openai"\n', env={})


# -- what varies -----------------------------------------------------------------------------------------------------


def test_a_spread_has_the_percentiles_that_it_names() -> None:
    """Half of the draws are below the median, one in a hundred above the 99th percentile."""
    spread, rng = Spread(median=0.3, p99=2.4), Random(5)

    hundredths = quantiles([spread.draw(rng) for _ in range(40_000)], n=100)

    assert hundredths[49] == pytest.approx(0.3, rel=0.03)
    assert hundredths[98] == pytest.approx(2.4, rel=0.08)


@pytest.mark.parametrize("spread", [Spread(median=0.3), Spread(median=0.3, p99=0.3), Spread(median=0.0)])
def test_what_does_not_vary_draws_nothing(spread: Spread) -> None:
    """It is the median, and the random source is where it was."""
    rng = Random(5)

    assert spread.draw(rng) == spread.median
    assert rng.random() == Random(5).random()


def test_what_varies_beyond_all_numbers_stays_one() -> None:
    """From the least to the largest: no draw is an error, and none is infinite."""
    spread, rng = Spread(median=1e-300, p99=1e300), Random(5)

    assert all(math.isfinite(spread.draw(rng)) for _ in range(1000))


def test_durations_may_be_texts() -> None:
    """As everywhere in a configuration."""
    texts: dict[str, Any] = {"median": "250ms", "p99": "2s"}

    assert Spread(**texts) == Spread(median=0.25, p99=2.0)
    assert ClockJump(at=1, seconds="1m") == ClockJump(at=1, seconds=60.0)  # type: ignore[arg-type]  # as in TOML


# -- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "open_at", "shut_at"),
    [
        (FaultWindow(kind="error"), [0.0, 1e9], []),
        (FaultWindow(kind="error", start=10), [10.0, 1e9], [0.0, 9.999]),
        (FaultWindow(kind="error", start=10, lasts=5), [10.0, 14.999], [9.999, 15.0, 1e9]),
        (FaultWindow(kind="error", start=10, until=12), [10.0, 11.999], [12.0, 1e9]),
        (FaultWindow(kind="error", start=10, lasts=5, until=12), [10.0, 11.999], [12.0, 14.0]),
        (
            FaultWindow(kind="error", start=10, lasts=5, every=20, until=52),
            [10.0, 14.999, 30.0, 34.999, 50.0, 51.999],
            [9.0, 15.0, 29.999, 35.0, 52.0, 70.0, 90.0],
        ),
    ],
)
def test_a_window_is_open_from_its_start_until_it_has_lasted(
    window: FaultWindow, open_at: list[float], shut_at: list[float]
) -> None:
    """It opens with its first instant and is shut at its last; `every` opens it again, `until` shuts it for good."""
    assert [at for at in open_at if window.began(at) is None] == []
    assert [at for at in shut_at if window.began(at) is not None] == []


def test_a_window_that_comes_again_has_one_beginning_each_time() -> None:
    """All instants of a window agree, to the last bit, when it began: quotas are kept by it."""
    window = FaultWindow(kind="rate_limit", start=0.1, lasts=0.7, every=1.1)

    begun = {window.began(0.1 + 1.1 * number + rest / 97) for number in range(200) for rest in range(1, 67)}

    assert len(begun) == 200


@pytest.mark.parametrize(
    ("window", "after", "starts"),
    [
        (FaultWindow(kind="down", start=10), 0.0, 10.0),
        (FaultWindow(kind="down", start=10), 10.0, math.inf),
        (FaultWindow(kind="down", start=10, lasts=5, every=20), 10.0, 30.0),
        (FaultWindow(kind="down", start=10, lasts=5, every=20), 29.0, 30.0),
        (FaultWindow(kind="down", start=10, lasts=5, every=20, until=30), 12.0, math.inf),
    ],
)
def test_the_next_window_is_the_first_that_begins_later(window: FaultWindow, after: float, starts: float) -> None:
    """Not one that has begun, and none that `until` forbids."""
    assert window.next_start(after) == starts


@pytest.mark.parametrize(
    ("names", "concerned"),
    [
        ({}, True),
        ({"models": ["a"]}, True),
        ({"models": ["b"]}, False),
        ({"regions": ["east"]}, True),
        ({"regions": ["west"]}, False),
        ({"models": ["b"], "regions": ["east"]}, True),
    ],
)
def test_a_fault_concerns_the_models_and_the_regions_that_it_names(
    names: Mapping[str, list[str]], *, concerned: bool
) -> None:
    """Naming none it concerns all."""
    assert FaultWindow(kind="down", **names).concerns("a", "east") is concerned  # type: ignore[arg-type]  # as in TOML


def test_a_storage_fault_is_on_while_it_lasts() -> None:
    """From its start, before its end."""
    fault = StorageFault(kind="slow", start=5, lasts=2)

    assert [at for at in (4.9, 5.0, 6.9, 7.0) if fault.is_on(at)] == [5.0, 6.9]
    assert StorageFault(kind="slow").is_on(1e9)


# -- models ----------------------------------------------------------------------------------------------------------


def test_a_model_behaves_as_its_own_entry_says_or_as_that_of_all_others() -> None:
    """The entry of "*" is for every model without one; without either there are defaults."""
    own, others = Upstream(model="a", pieces=7), Upstream(model="*", pieces=9)

    assert Scenario(config=CONFIG, upstreams=(others, own)).upstream("a") is own
    assert Scenario(config=CONFIG, upstreams=(others,)).upstream("a") is others
    assert Scenario(config=CONFIG).upstream("a") == Upstream(model="a")


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Spread(median=-1), "median"),
        (lambda: Spread(median=2, p99=1), "p99"),
        (lambda: Spread(median=0, p99=1), "p99"),
        (lambda: Upstream(model="a", pieces=0), "pieces"),
        (lambda: Upstream(model="a", requests_per_minute=0), "requests_per_minute"),
        (lambda: Upstream(model="a", tokens_per_minute=0), "tokens_per_minute"),
        (lambda: Upstream(model="a", burst=0), "burst"),
        (lambda: FaultWindow(kind="flood"), "kind"),  # type: ignore[arg-type]  # the mistake
        (lambda: FaultWindow(kind="down", models="a"), "models"),
        (lambda: FaultWindow(kind="down", start=-1), "start"),
        (lambda: FaultWindow(kind="down", lasts=0), "lasts"),
        (lambda: FaultWindow(kind="down", every=5), "every"),
        (lambda: FaultWindow(kind="down", lasts=5, every=5), "every"),
        (lambda: FaultWindow(kind="down", lasts=1e-310, every=1e-309), "every"),
        (lambda: FaultWindow(kind="down", until=0), "until"),
        (lambda: FaultWindow(kind="down", share=1.1), "share"),
        (lambda: FaultWindow(kind="error", status=399), "status"),
        (lambda: FaultWindow(kind="error", status=600), "status"),
        (lambda: FaultWindow(kind="rate_limit", retry_after=-1), "retry_after"),
        (lambda: FaultWindow(kind="slow_first_token", delay=-1), "delay"),
        (lambda: FaultWindow(kind="slow_tokens", factor=0), "factor"),
        (lambda: FaultWindow(kind="cut", after_words=-1), "after_words"),
        (lambda: FaultWindow(kind="rate_limit", requests_per_minute=0), "requests_per_minute"),
        (lambda: FaultWindow(kind="down", requests_per_minute=5), "requests_per_minute"),
        (lambda: Workload(rate=0), "rate"),
        (lambda: Workload(arrival="tides"), "arrival"),  # type: ignore[arg-type]  # the mistake
        (lambda: Workload(burst=0), "burst"),
        (lambda: Workload(burst=100_001), "burst"),
        (lambda: Workload(sessions=100_001), "sessions"),
        (lambda: Workload(distinct=0), "distinct"),
        (lambda: Workload(tenants=0), "tenants"),
        (lambda: Workload(stream=0.5, buffered=0.6), "stream"),
        (lambda: Workload(slow_readers=0.5, stopped_readers=0.6), "slow_readers"),
        (lambda: Workload(sessions_share=0.5), "sessions"),
        (lambda: Workload(cancel_share=-0.1), "cancel_share"),
        (lambda: Workload(deadline_share=1.1), "deadline_share"),
        (lambda: Kill(actor="*", at=-1), "at"),
        (lambda: Kill(actor="*", at=1, every=0), "every"),
        (lambda: Kill(actor="*", at=1, times=0), "times"),
        (lambda: ClockJump(at=-1, seconds=1), "at"),
        (lambda: ClockJump(at=1, seconds=-1), "seconds"),
        (lambda: ClockJump(at=1, seconds=1e300), "seconds"),
        (lambda: ClockJump(at=1, seconds=-1e10, wall=True), "seconds"),
        (lambda: StorageFault(kind="wet"), "kind"),  # type: ignore[arg-type]  # the mistake
        (lambda: StorageFault(kind="slow", lasts=0), "lasts"),
        (lambda: StorageFault(kind="slow", share=2), "share"),
        (lambda: StorageFault(kind="slow", delay=-1), "delay"),
        (lambda: Scenario(config=CONFIG, duration=0), "duration"),
        (lambda: Scenario(config=CONFIG, duration=1e10), "duration"),
        (lambda: Scenario(config=CONFIG, seed=-1), "seed"),
        (lambda: Scenario(config=CONFIG, duration=20, workload=Workload(rate=50_001)), "workload.rate"),
        (lambda: Scenario(config=CONFIG, workload=Workload(route="nope")), "workload.route"),
        (lambda: Scenario(config=CONFIG, kills=[Kill(actor="router", at=1, every=1e-300, times=10**9)]), "kills"),
        (lambda: Scenario(config=CONFIG, kills=[Kill(actor="router", at=1, every=1e-4, times=60_000)] * 2), "kills"),
        (lambda: Scenario(config=CONFIG, upstreams=(Upstream(model="b"),)), "upstreams[0].model"),
        (lambda: Scenario(config=CONFIG, upstreams=(Upstream(model="a"), Upstream(model="a"))), "upstreams[1].model"),
        (lambda: Scenario(config=CONFIG, faults=(FaultWindow(kind="down", models=("b",)),)), "faults[0].models"),
        (lambda: Scenario(config=CONFIG, faults=(FaultWindow(kind="down", start=5, until=5),)), "faults[0].until"),
        (
            lambda: Scenario(
                config=CONFIG, faults=(FaultWindow(kind="down"), FaultWindow(kind="down", regions=("east",)))
            ),
            "faults[1].regions",
        ),
    ],
)
def test_a_mistake_is_told_by_its_key(make: Callable[[], object], key: str) -> None:
    """Whatever is wrong is found where it is written, before anything is played."""
    with pytest.raises(ConfigError) as raised:
        make()

    assert [problem.key for problem in raised.value.problems] == [key]
    assert all(problem.reason for problem in raised.value.problems)


def test_a_route_that_nobody_has_is_told_with_the_one_that_was_meant() -> None:
    """The default one has a name, too."""
    with pytest.raises(ConfigError, match="did you mean 'wizard'"):
        Scenario(config=CONFIG, workload=Workload(route="wizzard"))

    assert Scenario(config=CONFIG, workload=Workload(route="wizard")).workload.route == "wizard"


def test_kills_count_as_far_as_they_come() -> None:
    """Again and again to the end is no mistake, however often that would be."""
    kill = Kill(actor="router", at=10, every=1, times=10**9)

    assert [kill.within(duration) for duration in (10, 10.5, 60)] == [0, 1, 50]
    assert Kill(actor="router", at=10, times=3).within(60) == 1
    assert Scenario(config=CONFIG, kills=[kill]).kills == (kill,)


def test_a_wall_clock_may_be_set_back() -> None:
    """Only the clock that counts seconds runs forward for ever."""
    assert ClockJump(at=1, seconds=-5, wall=True).seconds == -5
