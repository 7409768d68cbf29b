"""One measured figure: what every suite in `benchmarks.suites` yields, and what the tables are made of."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import frozen

__all__ = ["Figure", "Unit"]

Unit: TypeAlias = Literal["us", "ms", "s", "MiB", "1/s", "x"]


@frozen
class Figure:
    """What `name` of a suite came to: `value`, a median where there are many, and `p99`, both in `unit`.

    `cpu` is microseconds of processor time a call, `rss` the memory of the process in MiB, `calls` how many were
    timed, each None where it makes no sense. `bound` is what the design promises, in the unit: the most that `value`
    may be, or the least, where the unit is "1/s".
    """

    suite: str
    name: str
    unit: Unit
    value: float
    p99: float | None = None
    cpu: float | None = None
    rss: float | None = None
    bound: float | None = None
    calls: int | None = None
