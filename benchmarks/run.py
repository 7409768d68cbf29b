"""Every benchmark in one run: whole clients side by side, then what is measured inside one process.

    python -m benchmarks.run [--peers] [--only SUITE,...] [--rounds 3] [--write]

Each contender runs in a process of its own, in front of one mock upstream; in each round every contender once, so that
whatever else the machine does falls on all of them. Times are scaled by a loop that is timed beside each. The results
are printed as tables and kept in `build/bench/results.json`; with `--write` they go into `docs/performance.md` and
`docs/performance.json`, too. A contender that fails stands in the tables with its reason, and the run goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import cattrs
from attrs import Factory, define, frozen

from benchmarks import environments, report
from benchmarks.children import ROOT, ChildError, output
from benchmarks.figure import Figure
from benchmarks.machine import Machine
from benchmarks.results import Missing, Results, Run, medians, read, written
from benchmarks.suites.__main__ import names as suites_of_figures
from benchmarks.upstream import running

__all__ = ["CONTENDERS", "SUITES", "Contender", "measured", "race"]

RESULTS: Final = ROOT / "build" / "bench" / "results.json"
PAGE: Final = ROOT / "docs" / "performance.md"
KEPT: Final = ROOT / "docs" / "performance.json"
LIMIT: Final = 180.0
"""Seconds that one contender may take for one suite."""
FIGURES_LIMIT: Final = 1_200.0
"""Seconds that one suite of figures may take."""


@frozen
class Load:
    """How much of a suite is measured: so many calls, from so many callers at once."""

    calls: int
    callers: int = 1


SUITES: Final[Mapping[str, Load]] = {
    "call": Load(400),
    "crowd": Load(960, 32),
    "stream": Load(100),
    "hit": Load(1_000),
    "retry": Load(100),
    "ask": Load(5_000),
    "ask64": Load(12_800, 64),
    "endpoint": Load(960, 16),
}


@frozen
class Contender:
    """A script in `benchmarks/contenders`, the suites it has, and whose environment it runs in; None: ours."""

    name: str
    suites: Sequence[str]
    environment: str | None = None


CLIENT: Final = ("call", "crowd", "stream", "retry")
ASKS: Final = ("ask", "ask64")
CONTENDERS: Final = (
    Contender("httpx_trio", CLIENT),
    Contender("httptools_trio", ("call", "crowd", "stream")),
    Contender("wizard", (*CLIENT, "hit")),
    Contender("wizard_fast", (*CLIENT, "hit")),
    Contender("openai_sdk", CLIENT),
    Contender("pydantic_ai", CLIENT, "pydantic_ai"),
    Contender("langchain", (*CLIENT, "hit"), "langchain"),
    Contender("litellm", (*CLIENT, "hit"), "litellm"),
    Contender("litellm_router", (*CLIENT, "hit"), "litellm"),
    Contender("hishel", ("hit",), "hishel"),
    Contender("wizard_messages", ASKS),
    Contender("trio_messages", ASKS),
    Contender("anyio_messages", ASKS),
    Contender("triotp", ASKS, "triotp"),
    Contender("pykka", ASKS, "pykka"),
    Contender("wizard_endpoint", ("endpoint",)),
    Contender("litellm_proxy", ("endpoint",), "litellm"),
)


def say(line: str) -> None:
    """Print a line of progress."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


# -- whole clients -----------------------------------------------------------------------------------


def command(python: Path | str, contender: str, suite: str, upstream: str) -> list[str]:
    """Return what runs one contender in one suite."""
    load = SUITES[suite]
    script = str(ROOT / "benchmarks" / "contenders" / f"{contender}.py")
    sizes = ["--calls", str(load.calls), "--callers", str(load.callers)]
    return [str(python), script, suite, "--upstream", upstream, *sizes, "--calibrate"]


@define
class Race:
    """The contenders' runs so far, and what there is none of."""

    runs: list[Run] = Factory(list)
    missing: list[Missing] = Factory(list)

    def run(self, contender: str, suite: str, started: Sequence[str], *, limit: float = LIMIT) -> None:
        """Let one run, and keep what it printed, or why there is nothing."""
        try:
            lines = output(started, limit=limit).splitlines()
            told = json.loads(lines[-1] if lines else "")
            run = cattrs.structure({**told, "contender": contender, "suite": suite}, Run)
        except ChildError as error:
            self.fail(contender, suite, str(error))
        except (ValueError, TypeError, KeyError, cattrs.BaseValidationError) as error:
            self.fail(contender, suite, f"printed no result: {error}")
        else:
            self.runs.append(run)
            say(f"  {suite:<9} {contender:<16} {run.p50_us:>10,.1f} us")

    def fail(self, contender: str, suite: str, reason: str) -> None:
        """Keep a reason."""
        self.missing.append(Missing(contender, suite, reason))
        say(f"  {suite:<9} {contender:<16} failed: {reason}")

    def failed(self, contender: str, suite: str) -> bool:
        """Say whether it has failed before: it would again, and take as long."""
        return any((each.contender, each.suite) == (contender, suite) for each in self.missing)


def race(only: Collection[str], *, rounds: int, peers: bool, install: bool) -> Race:
    """Let every contender run in each of these suites, round by round.

    With `peers` those that need an environment of their own, too; with `install` one that is missing is made first.
    """
    found = Race()
    entered = [each for each in CONTENDERS if peers or each.environment is None]
    pythons = _interpreters(entered, only, found, install=install)
    with running() as upstream:
        for number in range(1, rounds + 1):
            say(f"round {number} of {rounds}")
            for suite in SUITES:
                for each in entered:
                    python = pythons.get(each.environment)
                    if python is None or suite not in each.suites or suite not in only:
                        continue
                    if not found.failed(each.name, suite):
                        found.run(each.name, suite, command(python, each.name, suite, upstream))
    return found


def _interpreters(
    entered: Sequence[Contender], only: Collection[str], found: Race, *, install: bool
) -> dict[str | None, Path]:
    """Return each environment's interpreter. What has none is told of each of its contenders."""
    pythons: dict[str | None, Path] = {None: Path(sys.executable)}
    reasons: dict[str, str] = {}
    for each in entered:
        suites = [suite for suite in each.suites if suite in only]
        if each.environment is None or not suites:
            continue
        if each.environment not in pythons and each.environment not in reasons:
            say(f"environment {each.environment}")
            try:
                make = environments.installed if install else environments.python_of
                pythons[each.environment] = make(each.environment)
            except ChildError as error:
                reasons[each.environment] = str(error)
        if (reason := reasons.get(each.environment)) is not None:
            for suite in suites:
                found.fail(each.name, suite, reason)
    return pythons


# -- inside one process ------------------------------------------------------------------------------


def figures(only: Collection[str], missing: list[Missing]) -> Iterator[Figure]:
    """Yield the figures of these suites, each measured in a process of its own; say what is `missing`, and why."""
    for name in suites_of_figures():
        if name not in only:
            continue
        say(f"suite {name}")
        try:
            lines = output([sys.executable, "-m", "benchmarks.suites", name], limit=FIGURES_LIMIT).splitlines()
            found = [cattrs.structure(json.loads(line), Figure) for line in lines]
        except ChildError as error:
            reason = str(error)
        except (ValueError, TypeError, KeyError, cattrs.BaseValidationError) as error:
            reason = f"printed what is no figure: {error}"
        else:
            yield from found
            continue
        missing.append(Missing("figures", name, reason))
        say(f"  failed: {reason}")


# -- all of it ---------------------------------------------------------------------------------------


def measured(only: Collection[str], *, rounds: int, peers: bool, install: bool = True) -> Results:
    """Measure these suites of both kinds, and return what came of it."""
    found = Race()
    if not SUITES.keys().isdisjoint(only):
        found = race(only, rounds=rounds, peers=peers, install=install)
    kept = tuple(figures(only, found.missing))
    versions = _versions(found.runs)
    return Results(Machine.this(), rounds, versions, medians(found.runs), tuple(found.missing), kept)


def _versions(runs: Sequence[Run]) -> dict[str, str]:
    """Return the version of each package, all of them where environments have different ones."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for package, version in run.versions.items():
            found.setdefault(package, set()).add(version)
    return {package: " and ".join(sorted(found[package])) for package in sorted(found)}


def main() -> None:
    """Measure as the command line says."""
    known = [*SUITES, *suites_of_figures()]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--peers", action="store_true", help="the peers too: installs what is missing into build/peers")
    parser.add_argument("--only", metavar="SUITE,...", help=f"some of: {', '.join(known)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write docs/performance.md and docs/performance.json")
    given = parser.parse_args()
    only = given.only.split(",") if given.only else known
    if unknown := sorted(set(only) - set(known)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    try:
        results = measured(only, rounds=max(given.rounds, 1), peers=given.peers)
    except KeyboardInterrupt:
        sys.exit(130)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(written(results), encoding="utf-8")
    say(f"\n{report.generated(results)}\nkept in {RESULTS.relative_to(ROOT)}")
    if given.write:
        KEPT.write_text(written(results), encoding="utf-8")
        page = PAGE.read_text(encoding="utf-8")
        # Of what was kept: it is rounded, and the page can be made of it again.
        PAGE.write_text(report.with_figures(page, report.generated(read(KEPT))), encoding="utf-8")


if __name__ == "__main__":
    main()
