"""One run of `wizard batch`: what is left of the input is asked, and each outcome appended to the output."""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import trio
from attrs import Factory, define, frozen

from wizard_actors.batch import run_batch
from wizard_actors.cli_batch.lines import Line, Lines
from wizard_actors.cli_batch.output import OutputFile, Recorded, refused
from wizard_actors.cli_batch.progress import ProgressReport, Tally
from wizard_actors.cli_batch.questions import LONGEST_LINE, Question, question_of
from wizard_actors.cli_output import Errors, ExitStatus
from wizard_actors.client import ResilientClient
from wizard_actors.config import WizardConfig
from wizard_actors.errors import ConfigError, ConfigProblem, InvalidPromptError, WizardError
from wizard_actors.types import WizardResponse

__all__ = ["BatchJob"]

STANDARD_INPUT: Final = "-"
ANOTHER: Final = "name a new output with -o for another input"


@frozen(kw_only=True)
class BatchJob:
    """What `wizard batch` was asked to do: `source` is the input's path or "-", `target` the output's.

    `deadline` is in seconds and bounds each question; `max_concurrency` None means the configuration's. The other
    settings are those of the command's flags.
    """

    source: str
    target: Path
    route: str | None
    model: str | None
    deadline: float | None
    max_concurrency: int | None
    retry_errors: bool

    async def run(self, config: WizardConfig, errors: Errors) -> int:
        """Answer what has no outcome yet, and return the exit status: 0 where every line of the input has an answer.

        Cancelling cancels the questions under way, and records those that are answered. Raises `ConfigError` for
        files, names and numbers that are wrong, `StorageError` where the output takes no more.
        """
        self._check(config)
        at_once = config.batch.max_concurrency if self.max_concurrency is None else self.max_concurrency
        async with (
            _opened(self.source) as source,
            OutputFile.open(self.target, source=source.fd, note=errors.note) as output,
        ):
            total = await source.survey(output.recorded)
            tally = Tally()
            terminal = None if _logs() or sys.stderr is None or not sys.stderr.isatty() else sys.stderr
            report = ProgressReport(tally, errors, total=total, terminal=terminal)
            ended = False
            try:
                with report:
                    async with ResilientClient.open(config) as client:
                        await _Run(self, client, source, output, tally, report).run(at_once)
                ended = True
            finally:
                if ended or tally.done:
                    errors.note(f"{output.path}: {tally.summary(report.seconds)}")
                if not ended:
                    errors.note("not all lines were reached: the same command goes on where this one stopped")
        if tally.failed or tally.failed_before:
            errors.note("--retry-errors asks the failed lines again")
        return ExitStatus.OK if tally.all_answered else ExitStatus.FAILED

    def _check(self, config: WizardConfig) -> None:
        """Refuse names and numbers that are wrong before a file is touched."""
        config.route(self.route or config.fallback.name)
        if self.model is not None:
            config.model(self.model)
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise ConfigError([ConfigProblem("max-concurrency", f"must be at least 1, not {self.max_concurrency}")])


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
    _client: ResilientClient
    _source: _Source
    _output: OutputFile
    _tally: Tally
    _report: ProgressReport
    _scope: trio.CancelScope = Factory(trio.CancelScope)
    _stopped: WizardError | None = None

    async def run(self, at_once: int) -> None:
        """Ask and record until the input ends. Raises what nothing can go on after."""
        questions = _Questions(self._source, self._output.recorded, self._tally, self._report, self._job.retry_errors)
        with self._scope:
            await run_batch(self._ask, questions, max_concurrency=at_once, done=self._record)
        if self._stopped is not None:
            raise self._stopped

    async def _ask(self, question: Question) -> WizardResponse:
        job = self._job
        return await self._client.generate(question.prompt, route=job.route, model=job.model, deadline=job.deadline)

    async def _record(self, _index: int, question: Question, outcome: WizardResponse | WizardError) -> None:
        if isinstance(outcome, ConfigError):  # then it is every line's, and no line's fault
            self._stop(outcome)
            return
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

    def _stop(self, error: WizardError) -> None:
        self._stopped = self._stopped or error  # the first says why; others follow from it
        self._scope.cancel()


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
