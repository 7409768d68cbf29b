"""A line on a terminal that says what goes on, and is gone when that is over."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from wizard_actors.cli_output import CONTROLS
from wizard_actors.cli_signals import Signals

__all__ = ["status_line"]

ERASE: Final = b"\r\x1b[K"


@contextmanager
def status_line(said: str, stream: TextIO | None, signals: Signals) -> Iterator[None]:
    """Show a line while the block lasts, where `stream` is a terminal; a signal that ends the process takes it away."""
    if stream is None or not stream.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    fd, columns = stream.fileno(), shutil.get_terminal_size().columns
    line = said.translate(CONTROLS).replace("\n", " ").encode("utf-8", "replace")[: columns - 1]

    def erase() -> Callable[[], None]:
        _write(fd, ERASE)
        return lambda: _write(fd, line)

    _write(fd, line)
    try:
        with signals.at_terminal(erase):
            yield
    finally:
        _write(fd, ERASE)


def _write(fd: int, data: bytes) -> None:
    try:
        os.write(fd, data)
    except OSError:
        return  # there is nobody left to tell
