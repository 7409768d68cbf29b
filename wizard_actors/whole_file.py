"""Files of a user's own, in UTF-8: whole or not at all, and for their owner alone. All of it waits, so it is for a
thread.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from typing import Final

__all__ = ["is_special", "write_all", "write_new", "write_over"]

LONGEST_PREFIX: Final = 40


def write_new(path: Path, text: str) -> None:
    """Write a file that its owner alone can read; what fails leaves none.

    Raises `FileExistsError` where there is one, another `OSError` where it cannot be written, and `ValueError` for what
    no file can be called, or be.
    """
    data = text.encode()
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # from here on the name is ours
    try:
        _replace(path, data)
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            path.unlink(missing_ok=True)
        raise


def write_over(path: Path, text: str) -> None:
    """Write a file anew: what was there stays where this fails, keeps its rights, and stays a link where it was one. A
    new one can be read by its owner alone. Raises as `write_new`, but for `FileExistsError`.
    """
    _replace(path.resolve(), text.encode())


def is_special(file: str) -> bool:
    """Whether that is the name of no file on a disk, but of a pipe or a terminal, say, or of somebody's open file."""
    path = Path(file)
    try:
        return path.is_relative_to("/dev") or not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def write_all(handle: int, data: bytes) -> None:
    """Write all of `data` to an open file."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _replace(path: Path, data: bytes) -> None:
    """Write a file beside its place, and put it there."""
    handle, name = mkstemp(prefix=f".{path.name[:LONGEST_PREFIX]}-", dir=path.parent)  # for its owner alone
    unfinished = Path(name)
    try:
        try:
            write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        with suppress(FileNotFoundError):
            unfinished.chmod(stat.S_IMODE(path.stat().st_mode))
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            unfinished.unlink(missing_ok=True)
        raise
