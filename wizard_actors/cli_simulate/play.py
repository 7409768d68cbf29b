"""What the command does: play a scenario once or with many seeds, print what came of it, write it to files.

While a scenario is played, or printed, no signal is waited for: its handler ends the process at once, and nothing is
left half done. Only files are written under Trio, to their end.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Final

import msgspec
import trio
from attrs import frozen
from rich.console import RenderableType
from rich.text import Text

from wizard_actors.cli_config import set_up_logs
from wizard_actors.cli_output import Errors, ExitStatus, Output
from wizard_actors.cli_signals import Signals
from wizard_actors.cli_simulate.files import check_output, read_standard_input, write_file
from wizard_actors.cli_simulate.shown import (
    Seed,
    Seeds,
    list_table,
    shown_violation,
    summary_table,
    violations_table,
)
from wizard_actors.cli_simulate.status_line import status_line
from wizard_actors.config import WizardConfig
from wizard_actors.config.source import parse, read
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.frozen_json import LARGEST_INTEGER
from wizard_actors.testing.simulation.report import Report
from wizard_actors.testing.simulation.run import simulate
from wizard_actors.testing.simulation.scenario import Scenario
from wizard_actors.testing.simulation.scenario_file import (
    SHIPPED,
    load_scenario,
    scenario_from_toml,
    scenario_text,
    simulated_config,
)
from wizard_actors.testing.simulation.timeline import timeline_svg
from wizard_actors.testing.simulation.trace import trace, trace_hash
from wizard_actors.testing.simulation.with_config import part_of, with_config
from wizard_actors.testing.simulation.without_effect import met_by_nobody, settings_without_effect

__all__ = ["STANDARD_INPUT", "Play", "list_scenarios"]

STANDARD_INPUT: Final = "-"

UNBOUNDED: Final = 10_000
"""Columns of what goes into a file or a pipe: nothing in it is cut or wrapped."""

SEEDS_TOLD: Final = 10
"""Of those in which invariants did not hold, or nobody asked."""

NOBODY_ASKED: Final = "no request arrived, so that nothing was checked: raise `duration` or `workload.rate`"


def list_scenarios(output: Output, *, as_json: bool) -> int:
    """Print the shipped scenarios, and return the exit status."""
    scenarios = {name: load_scenario(name) for name in SHIPPED}
    if as_json:
        _print_json(output, {"scenarios": [{"name": name, "about": each.about} for name, each in scenarios.items()]})
    else:
        _print(output, list_table(scenarios))
    return ExitStatus.OK


@frozen(kw_only=True)
class Play:
    """What is played, with whose configuration (None: the scenario's own), and where it is told."""

    source: str
    config: str | None
    output: Output
    errors: Errors
    signals: Signals
    as_json: bool = False
    verbose: bool = False
    """Whether the client's own warnings are logged."""

    def show(self) -> int:
        """Print the scenario's text as it is, and return the exit status. Raises `ConfigError` where it is wrong."""
        text, file = self._text()
        scenario = scenario_from_toml(text, file)
        if self.as_json:
            _print_json(self.output, {"scenario": scenario.name, "toml": text})
            return ExitStatus.OK
        return self.signals.run(partial(_show, self.output, text))

    def one(self, seed: int | None, *, svg: str | None = None, trace_file: str | None = None) -> int:
        """Play it once, with its own seed where none is given, and return the exit status: 1 where an invariant did not
        hold, or nobody asked.

        Raises `ConfigError` for what cannot be played or written to, before anything is printed, `StorageError` where
        writing fails after all.
        """
        for name, file in (("svg", svg), ("trace", trace_file)):
            if file is not None:
                check_output(name, file, self._inputs())
        scenario, notes = self._scenario()
        report = self._play(scenario, seed)
        hashed = trace_hash(report)
        files: dict[str, str] = {}
        if svg is not None:
            files[svg] = timeline_svg(report)
        if trace_file is not None:
            files[trace_file] = "".join(f"{line}\n" for line in trace(report))
        if files and (status := self.signals.run(partial(_write, files))):
            return status
        self._tell(report, hashed, notes)
        return ExitStatus.FAILED if report.violations or not report.requests else ExitStatus.OK

    def many(self, first: int, count: int) -> int:
        """Play it with so many seeds, and return the exit status: 1 where an invariant did not hold with any of them,
        or nobody asked with all of them.

        Each run is printed once it is over. Raises `ConfigError` for what cannot be played.
        """
        if count < 1:
            raise ConfigError([ConfigProblem("seeds", f"must be at least 1, not {count}")])
        if first + count > LARGEST_INTEGER:
            reason = f"go beyond the greatest seed there is, {LARGEST_INTEGER - 1:,}"
            raise ConfigError([ConfigProblem("seeds", reason, "begin with a smaller `--seed`")])
        (scenario, notes), runs = self._scenario(), list[Seed]()
        unmet: list[str] | None = None
        for seed in range(first, first + count):
            report = self._play(scenario, seed, done=f", {len(runs)} of {count} seeds done")
            runs.append(Seed(seed, report.summary, len(report.violations)))
            if report.requests:
                found = list(met_by_nobody(report))
                unmet = found if unmet is None else [each for each in unmet if each in found]
            if self.as_json:
                _print_json(self.output, _shown(report, trace_hash(report), notes))
            else:
                _print(self.output, runs[-1].line)
        seeds = Seeds(tuple(runs))
        if self.as_json:
            _print_json(self.output, {"scenario": scenario.name, **seeds.to_dict()})
        else:
            _print(self.output, seeds.lines)
        for note in unmet or ():
            self._note(f"with every seed {note}")
        silent = [run.seed for run in runs if not run.summary.requests]
        if silent:
            self._note(f"with {len(silent)} seeds ({_some(silent)}) {NOBODY_ASKED}")
        if seeds.violated:
            count_ = f"{len(seeds.violated)} seeds ({_some(seeds.violated)})"
            self._note(f"invariants did not hold with {count_}: {self._again(seeds.violated[0])}")
        return ExitStatus.FAILED if seeds.violated or len(silent) == count else ExitStatus.OK

    # -- steps -------------------------------------------------------------------------------------------------------

    def _text(self) -> tuple[str, str]:
        """Return the scenario's text, and what messages call the file that it is in."""
        if self.source != STANDARD_INPUT:
            return scenario_text(self.source)
        return read_standard_input("standard input"), "standard input"

    def _inputs(self) -> list[Path]:
        """Return the files that are read: the scenario, the configuration that it names, and the one in its place."""
        inputs = [] if self.config is None else [Path(self.config)]
        if self.source != STANDARD_INPUT:
            text, file = self._text()
            named = parse(text, file).get("config")
            inputs += [Path(file), *([Path(file).parent / named] if isinstance(named, str) else [])]
        return inputs

    def _scenario(self) -> tuple[Scenario, list[str]]:
        """Return the scenario, with the configuration that was named in the place of its own, and what was said of
        settings without effect.
        """
        scenario = scenario_from_toml(*self._text())
        notes = list(settings_without_effect(scenario))
        if self.config is not None:
            config = _read_config(self.config)
            for theirs, ours in part_of(scenario, config).items():
                has = "no model has the part of" if ours is None else f"{ours} has the part of"
                self._note(f"{has} {theirs}")
            if scenario.config.cache.max_entries and not config.cache.max_entries:
                notes.append(
                    f"{scenario.name} is played with a cache, and {self.config} has none: `[cache] max_entries` is 0"
                )
            scenario = with_config(scenario, config)
        set_up_logs(scenario.config, verbose=self.verbose)
        for note in notes:
            self._note(note)
        return scenario, notes

    def _play(self, scenario: Scenario, seed: int | None, done: str = "") -> Report:
        said = f"playing {scenario.name}, seed {scenario.seed if seed is None else seed}{done} ..."
        try:
            with status_line(said, sys.stderr, self.signals):
                return simulate(scenario, seed=seed, logs=self.verbose)
        except ConfigError as error:
            if error.file is None:
                raise ConfigError(error.problems, file=self.source) from error
            raise

    def _tell(self, report: Report, hashed: str, notes: Sequence[str]) -> None:
        if self.as_json:
            _print_json(self.output, _shown(report, hashed, notes))
            return
        tables: list[RenderableType] = [summary_table(report, hashed)]
        if report.violations:
            tables += [Text(), violations_table(report.violations)]
        _print(self.output, *tables)
        for note in _unmet(report):
            self._note(note)
        if report.violations:
            names = len({violation.invariant for violation in report.violations})
            said = "1 invariant" if names == 1 else f"{names} invariants"
            self._note(f"{said} did not hold: {self._again(report.scenario.seed)}")

    def _again(self, seed: int) -> str:
        config = "" if self.config is None else f" --config {shlex.quote(self.config)}"
        command = f"wizard simulate {shlex.quote(self.source)}{config} --seed {seed}"
        return f"`{command}` replays that, and `--trace FILE` has it write down every step"

    def _note(self, message: str) -> None:
        if not self.as_json:
            self.errors.note(message)


def _read_config(file: str) -> WizardConfig:
    text = read(Path(file))
    return simulated_config(parse(text, file), file, text)


def _unmet(report: Report) -> list[str]:
    return list(met_by_nobody(report)) if report.requests else [NOBODY_ASKED]


def _some(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds[:SEEDS_TOLD])) + (", ..." if seeds[SEEDS_TOLD:] else "")


def _shown(report: Report, hashed: str, notes: Sequence[str]) -> dict[str, object]:
    return {
        "scenario": report.scenario.name,
        "seed": report.scenario.seed,
        "summary": report.summary.to_dict(),
        "violations": [shown_violation(each) for each in report.violations],
        "notes": [*notes, *_unmet(report)],
        "trace": hashed,
    }


async def _show(output: Output, text: str) -> int:
    await output.text(text)
    return ExitStatus.OK


async def _write(files: Mapping[str, str]) -> int:
    for file, text in files.items():
        await trio.to_thread.run_sync(write_file, file, text)
    return ExitStatus.OK


def _print(output: Output, *pieces: RenderableType) -> None:
    page = StringIO()
    console = output.console(page, width=None if output.is_terminal else UNBOUNDED)
    for piece in pieces:
        console.print(piece)
    output.write_now(output.rendered(page))


def _print_json(output: Output, value: Mapping[str, object]) -> None:
    output.write_now(msgspec.json.encode(value) + b"\n")
