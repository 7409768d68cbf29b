"""One run of `wizard batch`: what is left of the input is asked, and each outcome appended to the output."""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, Self

import trio
from attrs import Factory, define, frozen

from wizard_actors.batch import Patient, run_batch
from wizard_actors.cli_batch.lines import Line, Lines
from wizard_actors.cli_batch.output import OutputFile, Recorded, refused
from wizard_actors.cli_batch.progress import ProgressReport, Tally
from wizard_actors.cli_batch.questions import LONGEST_LINE, Question, question_of
from wizard_actors.cli_output import Errors, ExitStatus, exit_status
from wizard_actors.client import ResilientClient
from wizard_actors.config import WizardConfig
from wizard_actors.config.values import BadValue, parse_seconds
from wizard_actors.errors import ConfigError, ConfigProblem, InvalidPromptError, WizardError
from wizard_actors.patience import Barred, failure_behind, refusal_of, wait_after
from wizard_actors.types import WizardResponse

__all__ = ["BatchJob", "deadline_of"]

STANDARD_INPUT: Final = "-"
ANOTHER: Final = "name a new output with -o for another input"

GOES_ON: Final = "not all lines were reached: the same command goes on where this one stopped"
PUT_RIGHT: Final = (
    "no model of the route can be asked, and waiting does not help: stopped. Nothing is recorded for the lines that "
    "met this; once it is put right, the same command goes on"
)
LATER: Final = (
    "no model of the route can be asked for longer than a batch waits: stopped. Nothing is recorded for the lines that "
    "met this; later on the same command goes on"
)

ENOUGH: Final = 3
"""Lines that meet barred models only, without an answer between them, until the run is stopped."""

WAIT_TOLD: Final = 1.0
"""Seconds from which a wait is worth a line."""


@frozen(kw_only=True)
class BatchJob:
    """What `wizard batch` was asked to do: `source` is the input's path or "-", `target` the output's.

    `deadline`, seconds or a text such as "30s", bounds each question; `max_concurrency` None means the configuration's.
    The other settings are those of the command's flags.
    """

    source: str
    target: Path
    route: str | None
    model: str | None
    deadline: float | str | None
    max_concurrency: int | None
    retry_errors: bool
    strategy: str | None = None

    async def run(self, config: WizardConfig, errors: Errors) -> int:
        """Answer what has no outcome yet, and return the exit status: 0 where every line of the input has an answer.

        Cancelling cancels the questions under way, and records those that are answered. Raises `ConfigError` for
        files, names and numbers that are wrong, `StorageError` where the output takes no more; where no model of the
        route can be asked, and waiting does not help, the error that the last line met.
        """
        seconds = self._check(config)
        at_once = config.batch.max_concurrency if self.max_concurrency is None else self.max_concurrency
        async with (
            _opened(self.source) as source,
            OutputFile.open(self.target, source=source.fd, note=errors.note) as output,
        ):
            total = await source.survey(output.recorded)
            tally = Tally()
            terminal = None if _logs() or sys.stderr is None or not sys.stderr.isatty() else sys.stderr
            report = ProgressReport(tally, errors, total=total, terminal=terminal)
            run = _Run(self, source, output, tally, report, Barred(self._models(config)))
            ended, advice = False, GOES_ON
            try:
                with report:
                    async with ResilientClient.open(config) as client:
                        await run.run(client, at_once, seconds)
                ended = True
            except WizardError as error:  # going on meets again what is wrong with the command or its files
                advice = "" if exit_status(error) is ExitStatus.WRONG else run.advice
                raise
            finally:
                if ended or tally.done:
                    errors.note(f"{output.path}: {tally.summary(report.seconds)}")
                if advice and not ended:
                    errors.note(advice)
        if tally.failed or tally.failed_before:
            errors.note("--retry-errors asks the failed lines again")
        return ExitStatus.OK if tally.all_answered else ExitStatus.FAILED

    def _check(self, config: WizardConfig) -> float | None:
        """Refuse names and numbers that are wrong before a file is touched; return the deadline in seconds."""
        config.route(self.route or config.fallback.name)
        if self.model is not None:
            config.model(self.model)
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise ConfigError([ConfigProblem("max-concurrency", f"must be at least 1, not {self.max_concurrency}")])
        return None if self.deadline is None else deadline_of(self.deadline)

    def _models(self, config: WizardConfig) -> list[str]:
        """Return the models that are asked."""
        chain = config.route(self.route or config.fallback.name).chain if self.model is None else (self.model,)
        return [name for name in chain if config.model(name).enabled]


def deadline_of(given: float | str) -> float:
    """Return the seconds of a deadline that is a number, as a text too, or a duration as in a configuration.

    Raises `ConfigError` for what is none.
    """
    try:
        try:
            seconds = parse_seconds(float(given))
        except ValueError:  # BadValue is one
            seconds = parse_seconds(given)
    except BadValue as found:
        raise ConfigError([ConfigProblem("deadline", found.reason, found.hint)]) from None
    if seconds <= 0:
        raise ConfigError([ConfigProblem("deadline", f"must be more than 0 seconds, not {seconds:g}")])
    return seconds


def _logs() -> bool:
    """Say whether logs are printed: a bar and they would overwrite each other."""
    return bool(logging.getLogger("wizard_actors").handlers)


# -- the input -------------------------------------------------------------------------------------------------------


@define
class _Source:
    """The open input."""

    fd: int
    name: str
    _again: bool
    """Whether it can be read twice: a pipe cannot."""

    def lines(self) -> Lines:
        """Return the lines from the beginning, of a pipe from where it stands."""
        if self._again:
            os.lseek(self.fd, 0, os.SEEK_SET)
        return Lines(self.fd, self.name, longest=LONGEST_LINE)

    async def survey(self, recorded: Recorded) -> int | None:
        """Return how many lines there are that are not blank; None for a pipe, which is checked while it is answered.

        Raises `ConfigError` where the output belongs to another input.
        """
        if not self._again:
            return None
        count = last = 0
        async for line in self.lines():
            last = line.number
            if not line.blank:
                count += 1
            self.check(line, recorded)
        beyond = max(recorded.digests, default=0)
        if beyond > last:
            raise refused(self.name, f"it has {last} lines, but the output holds one for line {beyond}", ANOTHER)
        return count

    def check(self, line: Line, recorded: Recorded) -> None:
        """Raise `ConfigError` where the line's recorded outcome belongs to another text."""
        if recorded.differs(line):
            raise refused(self.name, f"its line {line.number} has changed since the output was written", ANOTHER)


@asynccontextmanager
async def _opened(path: str) -> AsyncIterator[_Source]:
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise InvalidPromptError("there is no standard input to read: it is closed")
        fd, name = sys.stdin.fileno(), "standard input"
        yield _Source(fd, name, False)
        return
    try:  # in a thread: a named pipe may wait for its writer
        fd = await trio.to_thread.run_sync(os.open, path, os.O_RDONLY, abandon_on_cancel=True)
    except OSError as error:
        raise refused(path, f"the input cannot be read: {error.strerror}") from error
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISDIR(kind):
            raise refused(path, "the input is a directory")
        yield _Source(fd, path, stat.S_ISREG(kind))
    finally:
        os.close(fd)


# -- the run ---------------------------------------------------------------------------------------------------------


@define
class _Run:
    """Questions in, records out."""

    _job: BatchJob
    _source: _Source
    _output: OutputFile
    _tally: Tally
    _report: ProgressReport
    _barred: Barred
    advice: str = GOES_ON
    """How to go on where not all lines were reached."""
    _scope: trio.CancelScope = Factory(trio.CancelScope)
    _stopped: WizardError | None = None
    _withheld: list[tuple[Question, WizardError]] = Factory(list)
    """Lines that met barred models only, since the last answer."""
    _enough: int = ENOUGH
    _told: bool = False

    async def run(self, client: ResilientClient, at_once: int, deadline: float | None) -> None:
        """Ask and record until the input ends. Raises what nothing can go on after."""
        questions = _Questions(self._source, self._output.recorded, self._tally, self._report, self._job.retry_errors)
        self._enough = min(at_once, ENOUGH)
        ask = Patient(partial(self._ask, client), rng=Random(), deadline=deadline, waits=self._waits)
        with self._scope:
            await run_batch(ask, questions, max_concurrency=at_once, done=self._take)
        if self._stopped is None and self._withheld:
            self._stop(self._withheld[-1][1], PUT_RIGHT)
        if self._stopped is not None:
            raise self._stopped

    async def _ask(
        self, client: ResilientClient, question: Question, /, *, deadline: float | None = None
    ) -> WizardResponse:
        job = self._job
        return await client.generate(
            question.prompt, route=job.route, model=job.model, strategy=job.strategy, deadline=deadline
        )

    def _waits(self, error: WizardError, seconds: float) -> None:
        """Say once why nothing seems to happen."""
        if not self._told and seconds >= WAIT_TOLD:
            self._told = True
            self._report.note(f"waiting {seconds:.3g} s: {error.message} (further waits are not told)")

    async def _take(self, _index: int, question: Question, outcome: WizardResponse | WizardError) -> None:
        """Record an outcome, unless it is every line's and no line's fault."""
        failure = failure_behind(outcome)
        if self._barred.heard(outcome) and failure is not None:
            self._withheld.append((question, failure))
            if len(self._withheld) >= self._enough:
                self._stop(failure, PUT_RIGHT)
        elif isinstance(failure, ConfigError):
            self._stop(failure)
        elif failure is not None and _too_long(failure):
            self._stop(failure, LATER)
        else:
            await self._record(question, outcome if failure is None else failure)
            if failure is None:  # then it was these lines' own after all
                withheld, self._withheld = self._withheld, []
                for each in withheld:
                    await self._record(*each)

    async def _record(self, question: Question, outcome: WizardResponse | WizardError) -> None:
        record: dict[str, object] = {"line": question.line, "id": question.id, "digest": question.digest}
        failed = isinstance(outcome, WizardError)
        record["error" if failed else "response"] = outcome.to_dict()
        try:
            await self._output.append(record)
        except WizardError as error:
            self._stop(error)
            return
        self._count(question, outcome)

    def _count(self, question: Question, outcome: WizardResponse | WizardError) -> None:
        if isinstance(outcome, WizardError):
            self._tally.failed += 1
            if self._tally.failed == 1:
                self._report.note(f"line {question.line} failed: {outcome.message} (further failures are only counted)")
        else:
            self._tally.answered += 1
        self._tally.spend(outcome.cost)
        self._report.update()

    def _stop(self, error: WizardError, advice: str = GOES_ON) -> None:
        if self._stopped is None:  # the first says why; others follow from it
            self._stopped, self.advice = error, advice
        self._scope.cancel()


def _too_long(error: WizardError) -> bool:
    """Say whether `error` is a refusal that names a longer wait than a batch has patience for."""
    now = trio.current_time()
    return refusal_of(error, now) is not None and wait_after(error, now) is None


class _Questions:
    """What is to be asked, line by line; lines that are broken are reported, and counted as others are."""

    def __init__(
        self, source: _Source, recorded: Recorded, tally: Tally, report: ProgressReport, retry_errors: bool
    ) -> None:
        self._source = source
        self._lines = source.lines()
        self._recorded = recorded
        self._tally = tally
        self._report = report
        self._retry_errors = retry_errors

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Question:
        async for line in self._lines:
            if line.blank:
                continue
            self._source.check(line, self._recorded)
            if self._is_there(line):
                continue
            try:
                return question_of(line)
            except InvalidPromptError as error:
                self._tally.broken += 1
                self._report.note(f"line {line.number} is skipped: {error.message}")
            self._report.update()
        raise StopAsyncIteration

    def _is_there(self, line: Line) -> bool:
        failed = line.number in self._recorded.failed
        if line.number not in self._recorded.digests or (failed and self._retry_errors):
            return False
        self._tally.already += 1
        self._tally.failed_before += failed
        return True
