"""What a run came to, in one value: written to a file, read back, and made from what each child process printed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import cattrs
from attrs import asdict, field, frozen

from benchmarks.figure import Figure
from benchmarks.machine import Machine

__all__ = ["Missing", "Outcome", "Results", "Run", "medians", "read", "written"]

TIMES: Final = ("p50_us", "p99_us", "cpu_us", "import_s")
"""What a machine that is slow at the moment makes longer."""


@frozen
class Run:
    """What one process of a contender printed about one suite, in the units that the names say; None where it makes
    no sense. `calibration_s` is what a fixed loop took beside it.
    """

    contender: str
    suite: str
    calls: int
    p50_us: float
    p99_us: float | None = None
    cpu_us: float | None = None
    rss_mib: float | None = None
    import_s: float | None = None
    import_rss_mib: float | None = None
    per_s: float | None = None
    calibration_s: float | None = None
    versions: Mapping[str, str] = field(factory=dict)


@frozen
class Outcome:
    """The medians of a contender's runs of one suite, as they would be at the machine's usual pace."""

    contender: str
    suite: str
    calls: int
    p50_us: float
    p99_us: float | None = None
    cpu_us: float | None = None
    rss_mib: float | None = None
    import_s: float | None = None
    import_rss_mib: float | None = None
    per_s: float | None = None


@frozen
class Missing:
    """A contender, or a suite of figures, without a result, and why: what it said, or what became of it."""

    contender: str
    suite: str
    reason: str


@frozen
class Results:
    """All of it. `rounds` is how often each contender ran."""

    machine: Machine
    rounds: int
    versions: Mapping[str, str] = field(factory=dict)
    outcomes: Sequence[Outcome] = ()
    missing: Sequence[Missing] = ()
    figures: Sequence[Figure] = ()

    def outcome(self, contender: str, suite: str) -> Outcome | None:
        """Return what a contender came to in a suite; None where it has no result."""
        found = (each for each in self.outcomes if (each.contender, each.suite) == (contender, suite))
        return next(found, None)


def medians(runs: Iterable[Run]) -> list[Outcome]:
    """Return one outcome for each contender and suite, in the order in which they first ran.

    Where a loop was timed beside a run, the run's times are scaled by how much slower than usual that was: by the
    median of all.
    """
    by_what: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        by_what.setdefault((run.suite, run.contender), []).append(run)
    paces = [run.calibration_s for each in by_what.values() for run in each if run.calibration_s is not None]
    usual = statistics.median(paces) if paces else None
    return [_median(each, usual) for each in by_what.values()]


def _median(runs: Sequence[Run], usual: float | None) -> Outcome:
    def of(name: str) -> float | None:
        values = [_scaled(run, name, usual) for run in runs]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    names = (*TIMES[1:], "rss_mib", "import_rss_mib", "per_s")
    first = runs[0]
    p50 = cast("float", of("p50_us"))
    return Outcome(first.contender, first.suite, first.calls, p50, **{name: of(name) for name in names})


def _scaled(run: Run, name: str, usual: float | None) -> float | None:
    value = cast("float | None", getattr(run, name))
    if value is None or usual is None or run.calibration_s is None:
        return value
    slower = run.calibration_s / usual
    if name == "per_s":
        return value * slower
    return value / slower if name in TIMES else value


def written(results: Results) -> str:
    """Return them as JSON; what does not apply is left out, and no figure is finer than it can be measured."""
    return f"{json.dumps(_sparse(asdict(results)), indent=1)}\n"


def _sparse(value: object) -> object:
    if isinstance(value, dict):
        return {key: _sparse(each) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_sparse(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def read(file: Path) -> Results:
    """Read them back. Raises cattrs' errors where the file is of another form."""
    return cattrs.structure(json.loads(file.read_text(encoding="utf-8")), Results)
