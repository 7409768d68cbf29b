"""What was typed into the chat before, in a file of the user's own."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

__all__ = ["history_file", "open_history"]

LARGEST: Final = 2**20
"""Bytes of the file beyond which its older half is dropped when the chat begins."""

ENTRY: Final = b"\n\n# "
"""What stands before each entry."""


def history_file(env: Mapping[str, str]) -> Path | None:
    """Return where the history is kept: in the state folder of the XDG specification; None where there is no home."""
    state = Path(env.get("XDG_STATE_HOME", ""))
    if state.is_absolute():
        return state / "wizard" / "chat_history"
    try:
        return Path.home() / ".local" / "state" / "wizard" / "chat_history"
    except RuntimeError:
        return None


def open_history(path: Path | None) -> History:
    """Return the history in the file at `path`, which only its owner may read. Where it cannot be written, or is a link
    or a device, one that lasts as long as the chat.
    """
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Through a link, somebody else's file would get this one's mode and text.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return InMemoryHistory()
            os.fchmod(descriptor, 0o600)
            _shorten(path, status.st_size)
        finally:
            os.close(descriptor)
    except OSError:
        return InMemoryHistory()
    return _File(path)


def _shorten(path: Path, size: int) -> None:
    if size <= LARGEST:
        return
    data = path.read_bytes()
    begin = data.find(ENTRY, len(data) // 2)
    kept = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with kept.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data[begin:] if begin >= 0 else b"")
        kept.replace(path)
    finally:
        kept.unlink(missing_ok=True)


class _File(FileHistory):
    """A file that may fail at any time: then the history is that of this chat alone."""

    def load_history_strings(self) -> Iterable[str]:
        with suppress(OSError):
            yield from super().load_history_strings()

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string.encode("utf-8", "replace").decode())
