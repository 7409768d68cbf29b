"""The histogram of durations: what it tells of them, and what it refuses."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest

from wizard_actors.histogram import BOUNDS, EXPORTED_BOUNDS, RELATIVE_ERROR, Histogram, HistogramSnapshot


def observed(*seconds: float) -> Histogram:
    """Return a histogram of these durations."""
    histogram = Histogram()
    for each in seconds:
        histogram.observe(each)
    return histogram


def test_the_buckets_reach_from_100_microseconds_to_10_minutes() -> None:
    """They ascend, and two neighbours are so close that the middle keeps the promised error."""
    assert BOUNDS[0] == 1e-4
    assert BOUNDS[-1] == 600.0
    assert len(BOUNDS) == 164
    for low, high in pairwise(BOUNDS):
        assert 0.0 < (high - low) / (high + low) <= RELATIVE_ERROR


def test_the_exported_bounds_are_bounds_of_buckets() -> None:
    """Else their counts could not be exact."""
    assert set(EXPORTED_BOUNDS) <= set(BOUNDS)
    assert len(EXPORTED_BOUNDS) == 22
    assert {1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0, 600.0} <= set(EXPORTED_BOUNDS)


def test_nothing_observed_has_no_quantile() -> None:
    """No number is invented."""
    empty = Histogram()
    assert empty.count == 0
    assert empty.sum == 0.0
    assert empty.quantile(0.5) is None
    shown = {"count": 0, "sum": 0.0, "p50": None, "p90": None, "p99": None, "max": None}
    assert empty.snapshot().to_dict() == shown
    assert empty.snapshot() == HistogramSnapshot()


def test_count_sum_and_the_extremes_are_exact() -> None:
    """Whatever the buckets do to the rest."""
    histogram = observed(0.25, 3.0, 0.5)
    assert (histogram.count, histogram.sum) == (3, 3.75)
    assert histogram.quantile(0.0) == pytest.approx(0.25, rel=RELATIVE_ERROR)
    assert histogram.quantile(1.0) == pytest.approx(3.0, rel=RELATIVE_ERROR)
    assert (histogram.snapshot().lowest, histogram.snapshot().highest) == (0.25, 3.0)


def test_the_quantiles_of_one_duration_are_that_duration() -> None:
    """The extremes bound every estimate."""
    assert {observed(0.0123).quantile(q) for q in (0.0, 0.5, 0.99, 1.0)} == {0.0123}


def test_no_wait_at_all_stays_none() -> None:
    """The many that waited for nothing do not look as if they had waited a little."""
    waits = observed(0.0, 0.0, 0.0, 2.0)
    assert waits.quantile(0.5) == 0.0


def test_what_is_longer_than_the_last_bucket_counts_as_the_longest() -> None:
    """An hour is not shown as ten minutes."""
    histogram = observed(1.0, 1000.0, 3600.0)
    assert histogram.quantile(0.99) == 3600.0
    assert histogram.snapshot().cumulative()[-2:] == ((600.0, 1), (math.inf, 3))


def test_the_median_of_a_hundred_is_the_fiftieth() -> None:
    """Ranks do not move because 0.07 times 100 is a little more than 7."""
    histogram = observed(*(float(second) for second in range(1, 101)))
    for q, exact in [(0.07, 7.0), (0.29, 29.0), (0.5, 50.0), (0.57, 57.0), (0.99, 99.0)]:
        assert histogram.quantile(q) == pytest.approx(exact, rel=RELATIVE_ERROR)
    assert observed(*[1.0] * 7, *[100.0] * 93).quantile(0.07) == 1.0


@pytest.mark.parametrize("q", [-0.01, 1.01, math.nan])
def test_a_quantile_lies_between_0_and_1(q: float) -> None:
    """A percentage by mistake is told, not answered."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        observed(1.0).quantile(q)


def test_a_clock_that_went_back_counts_as_no_time() -> None:
    """A negative duration is one observation of 0."""
    histogram = observed(-5.0)
    assert (histogram.count, histogram.sum, histogram.quantile(0.5)) == (1, 0.0, 0.0)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf])
def test_what_is_no_duration_is_refused_and_spoils_nothing(seconds: float) -> None:
    """One bad number would make the sum useless for ever."""
    histogram = observed(1.0)
    with pytest.raises(ValueError, match="finite number of seconds"):
        histogram.observe(seconds)
    assert histogram.snapshot() == observed(1.0).snapshot()


def test_a_bucket_includes_its_upper_bound() -> None:
    """Prometheus's `le` means at most."""
    steps = dict(observed(0.001, 0.0010001, 1.0).snapshot().cumulative())
    assert steps[0.001] == 1
    assert steps[0.002154] == 2
    assert steps[1.0] == 3


def test_a_snapshot_stays_as_it_was() -> None:
    """What is observed later does not reach it."""
    histogram = observed(1.0)
    before = histogram.snapshot()
    histogram.observe(2.0)
    assert before == observed(1.0).snapshot()


def test_merging_is_as_if_one_had_observed_everything() -> None:
    """An empty one changes nothing."""
    both = observed(0.5, 1.0).snapshot().merged(observed(0.25, 700.0).snapshot())
    assert both == observed(0.5, 1.0, 0.25, 700.0).snapshot()
    assert both.merged(HistogramSnapshot()) == both


def test_a_snapshot_is_shown_as_json() -> None:
    """Seconds, with the quantiles that people look for."""
    shown = observed(*[0.1] * 95, *[9.0] * 5).snapshot().to_dict()
    assert json.loads(json.dumps(shown, allow_nan=False)) == {
        "count": 100,
        "sum": pytest.approx(54.5),
        "p50": pytest.approx(0.1, rel=RELATIVE_ERROR),
        "p90": pytest.approx(0.1, rel=RELATIVE_ERROR),
        "p99": pytest.approx(9.0, rel=RELATIVE_ERROR),
        "max": 9.0,
    }
