"""How a batch gets on, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from decimal import Decimal
from types import TracebackType
from typing import Final, Self, TextIO

import trio
from attrs import define
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from wizard_actors.cli_output import CONTROLS, Errors

__all__ = ["ProgressReport", "Tally"]

LINE_EVERY: Final = 30.0
"""Seconds between two lines where there is no bar."""


@define
class Tally:
    """The lines of a batch so far: answered and failed in this run, there already (some of these as an error), broken.

    `cost` is in US dollars, of this run's prompts whose cost is known; None where none is.
    """

    answered: int = 0
    failed: int = 0
    already: int = 0
    failed_before: int = 0
    broken: int = 0
    cost: Decimal | None = None

    @property
    def done(self) -> int:
        """All lines that need nothing more."""
        return self.answered + self.failed + self.already + self.broken

    @property
    def all_answered(self) -> bool:
        """Whether every line so far has an answer."""
        return not (self.failed or self.failed_before or self.broken)

    def spend(self, cost: Decimal | None) -> None:
        """Add what a prompt cost."""
        if cost is not None:
            self.cost = cost if self.cost is None else self.cost + cost

    def summary(self, seconds: float) -> str:
        """Return the counts, the cost and the time in one line."""
        before = f" ({self.failed_before} of them failed)" if self.failed_before else ""
        cost = "unknown" if self.cost is None else f"{self.cost:f} USD"
        return (
            f"{self.answered} answered, {self.failed} failed, {self.already} there already{before}, "
            f"{self.broken} broken; cost {cost}; {seconds:.1f} s"
        )


class _Terminal(Console):
    """A console that leaves the cursor alone: a second Ctrl-C ends the process at once, and would leave it hidden."""

    def show_cursor(self, show: bool = True) -> bool:
        """Do nothing."""
        return False


class ProgressReport:
    """Shows a tally while its block lasts. `total` is the number of lines, None where nobody knows.

    `terminal` is where a bar is drawn, None: a line each 30 seconds instead.
    """

    def __init__(self, tally: Tally, errors: Errors, *, total: int | None, terminal: TextIO | None) -> None:
        self._tally = tally
        self._errors = errors
        self._total = total
        self._began = self._told = trio.current_time()
        self._bar: Progress | None = None
        if terminal is not None:
            self._bar = Progress(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[said]}"),
                TimeRemainingColumn(),
                console=_Terminal(file=terminal),
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._bar.add_task("", total=total, said="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self.update()
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return trio.current_time() - self._began

    def note(self, message: str) -> None:
        """Say something, above the bar where there is one."""
        if self._bar is None:
            self._errors.note(message)
        else:
            self._bar.console.print(Text(f"wizard: {' '.join(message.translate(CONTROLS).split())}"), soft_wrap=True)

    def update(self) -> None:
        """Show the tally as it stands now."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self._tally.done, said=self._said())
        elif trio.current_time() - self._told >= LINE_EVERY:
            self._told = trio.current_time()
            of_all = "" if self._total is None else f" of {self._total}"
            self._errors.note(f"{self._tally.done}{of_all} done, {self._said()}")

    def _said(self) -> str:
        tally = self._tally
        rate = (tally.answered + tally.failed) / max(self.seconds, 0.001)
        cost = "" if tally.cost is None else f", {tally.cost:f} USD"
        return f"{tally.failed} failed, {rate:.1f} a second{cost}"
