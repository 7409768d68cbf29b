"""Where in a program something was done: the line that a warning names."""

from __future__ import annotations

import inspect
import warnings
from typing import Final

from attrs import frozen

__all__ = ["Place", "place_outside"]

OURS: Final = frozenset({"wizard_actors", "contextlib", "functools"})


@frozen
class Place:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def warn(self, message: str) -> None:
        """Show a `RuntimeWarning` of that line, as Python does for a coroutine that was never awaited."""
        warnings.warn_explicit(message, RuntimeWarning, self.file, self.line)


def place_outside() -> Place:
    """Return the line of the caller's program that led here: the first one outside of this package."""
    frame = inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in OURS:
        frame = frame.f_back
    return Place("<unknown>", 0) if frame is None else Place(frame.f_code.co_filename, frame.f_lineno)
