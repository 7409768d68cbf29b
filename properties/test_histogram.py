"""The histogram against the list of everything that was observed."""

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.histogram import BOUNDS, RELATIVE_ERROR, Histogram, HistogramSnapshot

ROUNDING = 1 + 1e-9
DURATIONS = st.one_of(
    st.floats(0.0, 2e-4),
    st.floats(1e-4, 600.0),
    st.floats(500.0, 1e6),
    st.sampled_from(BOUNDS),
    st.sampled_from(BOUNDS).map(lambda bound: math.nextafter(bound, math.inf)),
)
LISTS = st.lists(DURATIONS, max_size=60)
THOUSANDTHS = st.integers(0, 1000)


def _of(durations: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in durations:
        histogram.observe(seconds)
    return histogram


def _exact(durations: list[float], thousandths: int) -> float:
    rank = max(1, math.ceil(Fraction(thousandths, 1000) * len(durations)))
    return sorted(durations)[rank - 1]


@given(LISTS.filter(bool), THOUSANDTHS)
def test_a_quantile_is_within_the_stated_error_of_the_exact_one(durations: list[float], thousandths: int) -> None:
    """Relative from 100 us to 600 s, absolute below; above, the longest of all."""
    exact = _exact(durations, thousandths)
    found = _of(durations).quantile(thousandths / 1000)
    assert found is not None
    if exact <= BOUNDS[0]:
        assert 0.0 <= found <= exact
    elif exact <= BOUNDS[-1]:
        assert abs(found - exact) <= RELATIVE_ERROR * exact * ROUNDING
    else:
        assert found == max(durations)


@given(LISTS.filter(bool), THOUSANDTHS, THOUSANDTHS)
def test_a_higher_quantile_is_never_lower(durations: list[float], one: int, other: int) -> None:
    """And all lie between the extremes."""
    snapshot = _of(durations).snapshot()
    low, high = (snapshot.quantile(q / 1000) for q in sorted([one, other]))
    assert low is not None
    assert high is not None
    assert min(durations) <= low <= high <= max(durations)


@given(LISTS)
def test_cumulative_counts_are_exact(durations: list[float]) -> None:
    """At every exported bound, as counted one by one."""
    for bound, count in _of(durations).snapshot().cumulative():
        assert count == sum(seconds <= bound for seconds in durations)


@given(st.lists(LISTS, max_size=4))
def test_merging_loses_nothing(parts: list[list[float]]) -> None:
    """In whatever parts the durations were observed."""
    merged = HistogramSnapshot()
    for part in parts:
        merged = merged.merged(_of(part).snapshot())
    together = _of([seconds for part in parts for seconds in part]).snapshot()
    assert (merged.counts, merged.lowest, merged.highest) == (together.counts, together.lowest, together.highest)
    assert math.isclose(merged.sum, together.sum, rel_tol=1e-12)
