"""How durations are spread, in a fixed amount of memory: 165 buckets from 100 us to 600 s. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import Final

from attrs import frozen

__all__ = ["BOUNDS", "EXPORTED_BOUNDS", "RELATIVE_ERROR", "Histogram", "HistogramSnapshot"]

SHORTEST: Final = 1e-4
LONGEST: Final = 600.0
PER_DECADE: Final = 24
EXPORTED_EVERY: Final = 8

BOUNDS: Final[tuple[float, ...]] = (
    # Four digits: they are shown to people, and 10^(1/24) gives way to them by less than a thousandth.
    *(float(f"{SHORTEST * 10 ** (step / PER_DECADE):.4g}") for step in range(163)),
    LONGEST,
)
"""The buckets' upper bounds in seconds, each included in its bucket: 24 a decade, evenly on a logarithmic scale.

One bucket more holds what is longer.
"""

EXPORTED_BOUNDS: Final[tuple[float, ...]] = (*BOUNDS[:-1:EXPORTED_EVERY], LONGEST)
"""Three of them a decade: enough for graphs, few enough for an exporter."""

RELATIVE_ERROR: Final = 0.05
"""How far a quantile may be off, as a part of the exact one, from 100 us to 600 s."""


@frozen
class HistogramSnapshot:
    """Durations in seconds, as they were at one instant.

    `counts` has one number a bucket of `BOUNDS`, and one for what is longer. `lowest` and `highest` are exact, and
    infinite and 0.0 where nothing was observed.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    sum: float = 0.0
    lowest: float = math.inf
    highest: float = 0.0

    @property
    def count(self) -> int:
        """How many durations were observed."""
        return sum(self.counts)

    def quantile(self, q: float) -> float | None:
        """Return the duration that the part `q` of all does not exceed, None where nothing was observed.

        It is the observation of rank ceil(q x count), at least the first, within `RELATIVE_ERROR`; below 100 us within
        100 us, and above 600 s the longest of all. Raises `ValueError` where `q` is not between 0 and 1.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
        count = self.count
        if not count:
            return None
        rank = max(1, math.ceil(round(q * count, 6)))  # 0.07 x 100 is a little more than 7
        bucket = bisect_left(tuple(accumulate(self.counts)), rank)
        return min(max(_estimate(bucket), self.lowest), self.highest)

    def merged(self, other: HistogramSnapshot) -> HistogramSnapshot:
        """Return what one histogram would hold that had observed both."""
        return HistogramSnapshot(
            tuple(map(int.__add__, self.counts, other.counts)),
            self.sum + other.sum,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
        )

    def cumulative(self) -> tuple[tuple[float, int], ...]:
        """Return, for each of `EXPORTED_BOUNDS` and infinity, how many durations did not exceed it: Prometheus's form.

        These counts are exact.
        """
        passed = tuple(accumulate(self.counts))
        return tuple((bound, passed[bisect_left(BOUNDS, bound)]) for bound in (*EXPORTED_BOUNDS, math.inf))

    def to_dict(self) -> dict[str, object]:
        """Return `{count, sum, p50, p90, p99, max}`; seconds, None where nothing was observed."""
        return {
            "count": self.count,
            "sum": self.sum,
            "p50": self.quantile(0.5),
            "p90": self.quantile(0.9),
            "p99": self.quantile(0.99),
            "max": self.highest if self.count else None,
        }


def _estimate(bucket: int) -> float:
    """Return the value whose relative distance to both ends of the bucket is the same, and hence the least."""
    if bucket == 0:
        return 0.0
    if bucket == len(BOUNDS):
        return math.inf
    low, high = BOUNDS[bucket - 1], BOUNDS[bucket]
    return 2 * low * high / (low + high)


class Histogram:
    """Counts durations. See `HistogramSnapshot` for what can be learned of them."""

    __slots__ = ("_counts", "_highest", "_lowest", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0
        self._lowest = math.inf
        self._highest = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration; a negative one, as of a clock that went back, as 0.

        Raises `ValueError`, having counted nothing, for what is no finite number.
        """
        if not 0.0 <= seconds < math.inf:
            seconds = _not_negative(seconds)
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds
        if seconds < self._lowest:  # noqa: PLR1730 - several times as fast as min() and max(), at every event
            self._lowest = seconds
        if seconds > self._highest:  # noqa: PLR1730
            self._highest = seconds

    @property
    def count(self) -> int:
        """How many durations were observed."""
        return sum(self._counts)

    @property
    def sum(self) -> float:
        """All of them together, in seconds."""
        return self._sum

    def quantile(self, q: float) -> float | None:
        """Return what `HistogramSnapshot.quantile` would."""
        return self.snapshot().quantile(q)

    def snapshot(self) -> HistogramSnapshot:
        """Return the histogram as it stands."""
        return HistogramSnapshot(tuple(self._counts), self._sum, self._lowest, self._highest)


def _not_negative(seconds: float) -> float:
    if not math.isfinite(seconds):
        raise ValueError(f"a duration is a finite number of seconds, not {seconds}")
    return 0.0
