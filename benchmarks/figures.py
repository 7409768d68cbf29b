"""What the client makes of the shipped scenarios: the table in docs/simulation.md, from running them.

    python -m benchmarks.figures

Plays each scenario with its own seed, and writes the table into the page, between its two marks.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import trio

from wizard_actors.testing import SHIPPED, Report, load_scenario, simulate

__all__ = ["BEGIN", "END", "HEAD", "PAGE", "played_with", "row", "with_table"]

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "simulation.md"
BEGIN: Final = "<!-- figures, by `make figures` -->\n"
END: Final = "<!-- end of the figures -->\n"
HEAD: Final = (
    "| scenario | requests | answered | of those in a fault | after moving on | calls for each | most for one |"
    " retries refused | violations |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def played_with() -> str:
    """Return what the figures depend on, besides the code: the versions of Python and Trio."""
    return f"Python {'.'.join(platform.python_version_tuple()[:2])}, Trio {trio.__version__}"


def row(report: Report) -> str:
    """Return a run's line of the table."""
    summary = report.summary
    moved = [each for each in report.requests if each.fallbacks and each.outcome not in {"cancelled", "left"}]
    rescued = sum(each.outcome == "answered" for each in moved)
    cells = (
        f"`{report.scenario.name}`",
        f"{summary.requests:,}",
        _percent(summary.availability),
        _percent(summary.availability_in_faults),
        f"{rescued:,} of {len(moved):,}",
        f"{summary.calls_per_request or 0:.3f}",
        f"{max((sum(attempt.sent for attempt in each.attempts) for each in report.requests), default=0)}",
        f"{summary.refused_retries}",
        f"{len(report.violations)}",
    )
    return f"| {' | '.join(cells)} |\n"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.2f} %"


def with_table(page: str, rows: Iterable[str]) -> str:
    """Return the page with these rows in its table."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page has not the marks {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\nPlayed with {played_with()}:\n\n{HEAD}{''.join(rows)}\n{END}{after}"


def main() -> None:
    """Play all of them, and renew the table."""
    rows = []
    for name in SHIPPED:
        rows.append(row(simulate(load_scenario(name))))
        sys.stdout.write(rows[-1])
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
