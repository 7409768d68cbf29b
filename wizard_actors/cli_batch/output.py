"""A batch's output: one record a line, appended whole or not at all, and what earlier runs have left in it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import msgspec
import trio
from attrs import Factory, define

from wizard_actors.cli_batch.lines import Line, Lines
from wizard_actors.conversion import from_os
from wizard_actors.errors import ConfigError, ConfigProblem, StorageError, UnsupportedError

if sys.platform != "win32":
    import fcntl

__all__ = ["OutputFile", "Recorded", "refused"]

LONGEST_RECORD: Final = 2**30
BEGINNING: Final = b'{"line":'
"""Of every record: what tells the torn end of one from a file of somebody else's."""
SYNC_EVERY: Final = 2.0
"""Seconds of answers that a crash of the machine may cost; the death of the process alone costs none."""


def refused(path: str, reason: str, hint: str = "") -> ConfigError:
    """Return the error of a file that a batch cannot work with."""
    return ConfigError([ConfigProblem("", reason, hint)], file=path)


class Record(msgspec.Struct, frozen=True):
    """What is read of a line of the output; exactly one of `response` and `error` is there."""

    line: int
    digest: str
    response: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


@define
class Recorded:
    """Which lines of the input have an outcome in the output, and which of these an error.

    A line's number and digest are kept, some 150 bytes a line.
    """

    digests: dict[int, int] = Factory(dict)
    failed: set[int] = Factory(set)

    def add(self, record: Record) -> None:
        """Take a record in; where a line has several, its answer counts."""
        if record.response is not msgspec.UNSET:
            self.failed.discard(record.line)
        elif record.line not in self.digests:
            self.failed.add(record.line)
        self.digests[record.line] = int(record.digest, 16)

    def differs(self, line: Line) -> bool:
        """Say whether the line's outcome belongs to another text."""
        known = self.digests.get(line.number)
        return known is not None and known != int(line.digest, 16)


DECODER: Final = msgspec.json.Decoder(Record)


@define
class OutputFile:
    """An output that is open, and locked for as long."""

    path: str
    recorded: Recorded
    _fd: int
    _size: int
    _lock: trio.Lock = Factory(trio.Lock)
    _synced: float = Factory(trio.current_time)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, *, source: int, note: Callable[[str], None]) -> AsyncIterator[Self]:
        """Open the output at `path`, or make it; read what it holds; cut off half a line at its end, saying so.

        `source` is the open input. Raises `ConfigError` where the output is the input, no regular file, in use by
        another process, or not of this command's making: nothing is changed then.
        """
        if sys.platform == "win32":
            raise UnsupportedError("wizard batch does not run on Windows: it cannot lock its output", feature="batch")
        name = str(path)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise refused(name, f"the output cannot be opened: {error.strerror}") from error
        try:
            _own(fd, name, source)
            recorded, size = await _scan(fd, name)
            torn = os.fstat(fd).st_size - size
            if torn:
                note(f"{name} ended in half a line, of a write that was cut short: its {torn} bytes are cut off")
                os.ftruncate(fd, size)
            output = cls(name, recorded, fd, size)
            try:
                yield output
            finally:
                output._sync()  # nothing else runs any more
        finally:
            os.close(fd)

    async def append(self, record: dict[str, object]) -> None:
        """Write one record as a whole line, with a single call; a cancellation waits for it.

        Raises `StorageError` where there is no room for all of it: what had been written of it is taken back.
        """
        data = msgspec.json.encode(record) + b"\n"
        with trio.CancelScope(shield=True):
            async with self._lock:
                await trio.to_thread.run_sync(self._append, data)
                if trio.current_time() - self._synced >= SYNC_EVERY:
                    await trio.to_thread.run_sync(self._sync)
                    self._synced = trio.current_time()

    def _append(self, data: bytes) -> None:
        try:
            written = os.write(self._fd, data)
            if written == len(data):
                self._size += written
                return
            os.ftruncate(self._fd, self._size)
        except OSError as error:
            raise StorageError(f"{self.path} takes no further line: {error.strerror}", path=self.path) from error
        raise StorageError(f"{self.path} takes no further line: there is no room for all of it", path=self.path)

    def _sync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise from_os(error, self.path) from error


def _own(fd: int, name: str, source: int) -> None:
    """Refuse an output that is no file of ours alone, and lock it."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise refused(name, "the output is no regular file, and a later run could not go on with it")
    if os.path.samestat(status, os.fstat(source)):
        raise refused(name, "the output is the input", "name another file with -o")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise refused(name, "another process is writing this output", "wait for it, or name another file") from None
    except OSError as error:
        raise refused(name, f"the output cannot be locked: {error.strerror}") from error


async def _scan(fd: int, name: str) -> tuple[Recorded, int]:
    """Read an output; return what it holds, and how many bytes of it are whole lines."""
    recorded, size = Recorded(), 0
    async for line in Lines(fd, name, longest=LONGEST_RECORD):
        text = line.text or b""
        if not line.whole and _torn(text):
            return recorded, line.start
        if not line.blank:
            recorded.add(_record(name, line.number, text))
        size = line.end
    return recorded, size


def _torn(text: bytes) -> bool:
    """Say whether `text` is the beginning of a record; a crash of the machine may leave zeros in its place."""
    text = text.rstrip(b"\0")
    return text.startswith(BEGINNING) or BEGINNING.startswith(text)


def _record(name: str, number: int, text: bytes) -> Record:
    try:
        record = DECODER.decode(text)
        int(record.digest, 16)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        record = None
    if record is None or record.line < 1 or (record.response is msgspec.UNSET) == (record.error is msgspec.UNSET):
        raise refused(name, f"its line {number} is none of wizard batch's", "name a new file with -o")
    return record
