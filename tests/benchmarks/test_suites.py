"""The in-process suites: a look at each, too short to be worth reading."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from trio.testing import MockClock

from benchmarks.figure import Figure
from benchmarks.suites import actors, imports, memory, micro
from benchmarks.suites._clients import http, simulated
from benchmarks.suites._measure import Rounds, Taken, late

TINY: dict[str, Callable[[], Iterator[Figure]]] = {
    "actors": partial(actors.figures, actors.Size(rounds=1, calls=64)),
    "micro": partial(micro.figures, micro.Size(rounds=2, runs=2)),
}


@pytest.mark.parametrize("suite", TINY)
def test_each_figure_is_a_number_and_has_a_name_of_its_own(suite: str) -> None:
    """A suite yields finite figures, none below zero, each named once and under the suite's own name."""
    figures = list(TINY[suite]())

    assert figures
    assert all(math.isfinite(figure.value) and figure.value >= 0 for figure in figures)
    assert {figure.suite for figure in figures} == {suite}
    assert max(Counter(figure.name for figure in figures).values()) == 1


def test_a_figure_is_the_median_of_its_rounds() -> None:
    """One round that the machine spoiled moves neither the figure nor its percentile."""
    rounds = Rounds("some")

    for wall in (1e-6, 2e-6, 900e-6):
        rounds.add("call", Taken([wall, wall, 3 * wall], cpu=wall, calls=3), bound=5.0)

    [figure] = rounds.figures()
    assert (figure.suite, figure.name, figure.unit, figure.bound, figure.calls) == ("some", "call", "us", 5.0, 9)
    assert (figure.value, figure.p99, figure.cpu) == pytest.approx((2.0, 6.0, 2.0))


def test_what_was_timed_as_one_has_no_percentile() -> None:
    """Where single calls were not timed, nobody says how late the latest were."""
    rounds = Rounds("some")

    rounds.add("piece", Taken([1e-6], cpu=1e-6, calls=2_000))

    assert next(rounds.figures()).p99 is None


def test_the_late_ones_are_one_in_a_hundred() -> None:
    """Of 200 times the 99th percentile leaves out two, and of a few it is the slowest."""
    assert late([float(number) for number in range(200)]) == 198.0
    assert late([3.0, 1.0, 2.0]) == 3.0


def test_the_heaviest_modules_are_those_with_the_most_time_of_their_own() -> None:
    """What a module imports does not count as its own time, and lines of other kinds are passed over."""
    trace = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       100 |        100 |   small\n"
        "import time:      2500 |       2500 |     large\n"
        "import time:       300 |       2900 | whole\n"
    )

    assert imports.heaviest(trace) == [("large", 2.5), ("whole", 0.3), ("small", 0.1)]


@pytest.mark.parametrize("what", memory.WAYS)
async def test_memory_is_found_before_while_and_after_something_is_held(
    what: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Each process looks at its memory before it holds something, while it does, and once that has gone."""
    looks = iter((50.0, 60.0, 55.0))
    monkeypatch.setattr(memory, "settled", lambda: next(looks))

    told = await memory.WAYS[what](2)

    assert told == {"before": 50.0, "held": 60.0, "after": 0.0 if what == "idle" else 55.0}


def test_what_things_take_is_told_for_all_for_each_and_for_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process had before does not count, and the median of the processes does."""
    found = iter((60.0, 90.0, 61.0))
    monkeypatch.setattr(memory, "child", lambda _command: {"before": 50.0, "held": next(found), "after": 52.0})

    whole, each, left = memory.growth("things", "cached", 100, 3, bound=9.5)

    assert whole == Figure("memory", "things", "MiB", 11.0, rss=61.0, bound=9.5, calls=100)
    assert each == Figure("memory", "things, for each", "MiB", 0.11, calls=100)
    assert left == Figure("memory", "things, left afterwards", "MiB", 2.0, rss=52.0)


def test_the_measured_clients_have_every_concern_on() -> None:
    """Calls are counted by limiter, breaker and cache, and another model stands behind the first."""
    over_http, without = http("http://127.0.0.1:9"), simulated(3)

    for config in (over_http, without):
        assert config.cache.max_entries > 0
        assert all(model.rate_limit.requests_per_minute is not None for model in config.models)
    assert len(over_http.fallback.chain) == 2
    assert without.fallback.chain == ("model-0", "model-1", "model-2")
