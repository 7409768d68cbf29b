"""What a simulation writes to files: whole or not at all, for a thread, as it waits; and standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from wizard_actors.conversion import from_os
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.whole_file import is_special, write_all, write_over

__all__ = ["check_output", "read_standard_input", "write_file"]

LARGEST: Final = 4 * 1024 * 1024
"""Bytes of a scenario."""


def read_standard_input(name: str) -> str:
    """Return what standard input holds; `name` is what messages call it. Raises `ConfigError`."""
    reason = "it is closed"
    if sys.stdin is not None:
        try:
            data = sys.stdin.buffer.read(LARGEST + 1)
            if len(data) <= LARGEST:
                return data.decode()
            reason = f"it is longer than {LARGEST} bytes"
        except UnicodeDecodeError as error:
            reason = f"it is not UTF-8 text: {error.reason} at byte {error.start}"
        except OSError as error:
            reason = f"it cannot be read: {error.strerror}"
    raise ConfigError([ConfigProblem("", reason)], file=name)


def check_output(option: str, file: str, inputs: Iterable[Path]) -> None:
    """Raise `ConfigError` where a file has no folder to be in, is one, or is one of `inputs`: sooner than what it is to
    hold is made.
    """
    path = Path(file)
    if not file:
        raise ConfigError([ConfigProblem(option, "names no file: its name is empty")])
    try:
        path.resolve()
        if any(path.exists() and each.exists() and path.samefile(each) for each in inputs):
            reason = "is what is played, and would be written over"
        else:
            reason = "is a folder" if path.is_dir() else "" if path.parent.is_dir() else f"has no folder {path.parent}"
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, links in a circle, a null character
        reason = f"cannot be a file: {error}"
    if reason:
        raise ConfigError([ConfigProblem(option, f"{file!r} {reason}", "name another file, in a folder that there is")])


def write_file(file: str, text: str) -> None:
    """Write a file anew; what is special, as a pipe or a terminal, is written to. Raises `StorageError`."""
    try:
        if is_special(file):
            handle = os.open(file, os.O_WRONLY | os.O_APPEND)
            try:
                write_all(handle, text.encode())
            finally:
                os.close(handle)
        else:
            _write_over(Path(file), text)
    except OSError as error:
        raise from_os(error, file) from error


def _write_over(path: Path, text: str) -> None:
    """Write a file anew; a new one has the rights that the process gives to any: there is no secret in it."""
    is_new = not path.exists()
    path.touch()
    try:
        write_over(path, text)
    except BaseException:
        if is_new:
            with suppress(OSError):  # the first error is the one to tell
                path.unlink(missing_ok=True)
        raise
