"""Sessions as files of one folder: names, forms, locks, and what is known of each file without reading it.

Everything here blocks, and is called in threads by `wizard_actors.storage.file`. A file is JSON, one session each:

    {"format":1,"summary":{"id":"alice","version":3, ...},
    "session":{"schema":1,"id":"alice", ...}}

The first line is enough for a list. What lists and comparisons need is kept in memory beside the file's stamp (times of
change, size, inode), and read again where the stamp is another one, whoever wrote the file.

Writers of this and other processes exclude each other by sixteen lock files, one for each first digit of the names'
digests: `flock` and its like end with their process, however that ends. A file is written beside its place, one such
file a lock, and renamed: readers need no lock, and what a killed process left is overwritten by the next writer.
"""

from __future__ import annotations

import errno
import hashlib
import heapq
import itertools
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from attrs import frozen
from filelock import FileLock, Timeout

from wizard_actors.errors import SerializationError
from wizard_actors.session_json import SCHEMA, decode_session, encode_session
from wizard_actors.session_record import SessionRecord, SessionSummary
from wizard_actors.storage.base import check_replaces, newest_first

__all__ = ["BACKEND", "LOCKS", "SessionFiles", "TakenError", "file_name", "lock_of"]

BACKEND: Final = "file"

LOCKS: Final = 16
"""How many locks the sessions of a folder share."""

FORMAT: Final = 1
"""The version of a file's own form; that of the session in it is its `schema`."""

HEAD: Final = 4_096
"""More bytes than the first line of a file can have."""

NAME: Final = re.compile(r"(?:[a-z0-9-]{1,40}-)?[0-9a-f]{32}\.json")
OTHERS: Final = re.compile(r"[^a-z0-9]+")
UNREADABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EIO})

Stamp: TypeAlias = tuple[int, int, int]


class TakenError(Exception):
    """Raised when somebody else holds the lock: try again."""


class _Head(msgspec.Struct):
    summary: SessionSummary


class _File(msgspec.Struct):
    format: int
    session: msgspec.Raw


class _Session(msgspec.Struct):
    schema: int


@frozen
class _Known:
    """What is known of the file that has a stamp; `whole`: all of it was read, or written, and it is sound."""

    stamp: Stamp
    summary: SessionSummary | None
    whole: bool = False


def file_name(session: str) -> str:
    """Return the name of a session's file: what can be read of the id, and a digest, another one for any other id.

    Lower-case letters, digits and hyphens, so that no file system takes two for one, or any for something special.
    """
    readable = OTHERS.sub("-", session[:100].lower())[:40].strip("-")
    digest = hashlib.blake2b(session.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{readable}-{digest}.json" if readable else f"{digest}.json"


def lock_of(session: str) -> int:
    """Return the number of the lock under which a session is written, 0 to 15."""
    return int(file_name(session)[-37], 16)


class SessionFiles:
    """The files of one folder. Calls that change a session are made inside `locked`."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).absolute()
        self._known: dict[str, _Known] = {}

    def prepare(self) -> None:
        """Make the folder where it is missing, and remove what killed writers left, and no living one."""
        missing = list(itertools.takewhile(lambda each: not each.is_dir(), (self.folder, *self.folder.parents)))
        for folder in reversed(missing):
            folder.mkdir(mode=0o700 if folder == self.folder else 0o777, exist_ok=True)
            _sync(folder.parent)
        found = set(self.folder.iterdir())
        for number in range(LOCKS):
            unfinished = self._unfinished(number)
            if unfinished in found:
                # Whoever writes holds the lock. A folder that cannot be written to can still be read from.
                with suppress(TakenError, OSError), self.locked(number):
                    unfinished.unlink(missing_ok=True)

    @contextmanager
    def locked(self, number: int) -> Iterator[None]:
        """Hold a lock for the length of a block; `TakenError` where another thread or process has it."""
        self.folder.stat()  # where the folder is gone, taking a lock in it would make a new one
        lock = FileLock(self.folder / f".lock-{number:x}", mode=0o600)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise TakenError from None
        try:
            yield
        finally:
            lock.release()

    def path(self, session: str) -> Path:
        """Return where a session's file is, if there is one."""
        return self.folder / file_name(session)

    # -- one session

    def read(self, session: str) -> SessionRecord | None:
        """Return what is stored; `SerializationError` where it is damaged."""
        try:
            data, stamp = _content(self.path(session))
        except FileNotFoundError:
            self.folder.stat()  # a folder that is gone is no folder without the session
            return None
        record = _decode(data, session)
        self._known[file_name(session)] = _Known(stamp, record.summary, whole=True)
        return record

    def replace(self, record: SessionRecord) -> None:
        """Store a record in the place of the version before it; `SessionConflictError` where that is not there."""
        data = _encode(record)
        path = self.path(record.id)
        check_replaces(BACKEND, record, self._stored(record.id, path))
        stamp = self._write(path, data, lock_of(record.id))
        self._known[path.name] = _Known(stamp, record.summary, whole=True)

    def remove(self, session: str) -> bool:
        """Remove a session's file, whatever is in it; False where there is none."""
        removed = self._unlink(session)
        if removed:
            _sync(self.folder)
        return removed

    def set_aside(self, session: str) -> SessionRecord | None:
        """Give a damaged file another name and raise `SerializationError`; return what is stored where it is sound."""
        try:
            return self.read(session)
        except SerializationError as error:
            path = self.path(session)
            if _is_newer(_content(path)[0]):
                raise
            aside = _free(path, datetime.now(tz=UTC))
            path.rename(aside)
            _sync(self.folder)
            raise SerializationError(
                f"{error}; its file {path} was set aside as {aside.name}: look at it there; the session can be begun "
                "anew"
            ) from error

    # -- many

    def page(self, limit: int, after: SessionSummary | None, prefix: str) -> Sequence[SessionSummary]:
        """Return a page of the sessions."""
        named = (each for each in self._summaries() if each.id.startswith(prefix))
        rest = (each for each in named if after is None or newest_first(each) > newest_first(after))
        return heapq.nsmallest(limit, rest, key=newest_first)

    def oldest(self, limit: int, due: Callable[[SessionSummary], bool], spared: Collection[str]) -> Sequence[str]:
        """Return the ids of those that are due, unused for longest first."""
        old = ((each.used_at, each.id) for each in self._summaries() if due(each) and each.id not in spared)
        return [session for _, session in heapq.nsmallest(limit, old)]

    def remove_due(self, sessions: Sequence[str], due: Callable[[SessionSummary], bool]) -> Sequence[str]:
        """Remove those of some sessions that are due still, and return their ids; damaged ones stay."""
        removed = [session for session in sessions if self._is_due(session, due) and self._unlink(session)]
        if removed:
            _sync(self.folder)
        return removed

    # -- what is known

    def _is_due(self, session: str, due: Callable[[SessionSummary], bool]) -> bool:
        try:
            stored = self._stored(session, self.path(session))
        except SerializationError:
            return False  # whoever loads it is told
        return stored is not None and due(stored)

    def _stored(self, session: str, path: Path) -> SessionSummary | None:
        """Return what is stored; the file is read, unless it is known to be sound."""
        try:
            stamp = _stamp(path.stat())
        except FileNotFoundError:
            return None
        known = self._known.get(path.name)
        if known is not None and known.whole and known.stamp == stamp:
            return known.summary
        record = self.read(session)
        return None if record is None else record.summary

    def _summaries(self) -> Sequence[SessionSummary]:
        """Return a summary of each session, of what has changed since the last time from its file."""
        found: dict[str, _Known] = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if NAME.fullmatch(entry.name) and (known := self._look(entry)) is not None:
                    found[entry.name] = known
        for name in self._known.keys() - found.keys():
            self._known.pop(name, None)
        return [known.summary for known in found.values() if known.summary is not None]

    def _look(self, entry: os.DirEntry[str]) -> _Known | None:
        """Return what is known of a file, None where it is gone or cannot be read: whoever loads it is told."""
        try:
            state = entry.stat(follow_symlinks=False)
            known = self._known.get(entry.name)
            if known is None or known.stamp != _stamp(state):
                if not stat.S_ISREG(state.st_mode):
                    return None
                known = self._known[entry.name] = _headed(Path(entry.path))
            return known
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            return None

    # -- writing

    def _unfinished(self, number: int) -> Path:
        return self.folder / f".unfinished-{number:x}"

    def _write(self, path: Path, data: bytes, number: int) -> Stamp:
        """Put a file in its place: whole or not at all, and safe when this returns."""
        unfinished = self._unfinished(number)
        try:
            handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                # File systems count time in steps of milliseconds: two versions of one step could have the same stamp.
                now = time.time_ns()
                os.utime(unfinished, ns=(now, now))
                os.fsync(handle)
                stamp = _stamp(os.fstat(handle))
            unfinished.replace(path)
        except OSError:
            with suppress(OSError):  # the first error is the one to tell
                unfinished.unlink(missing_ok=True)
            raise
        _sync(self.folder)
        return stamp

    def _unlink(self, session: str) -> bool:
        path = self.path(session)
        self._known.pop(path.name, None)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        return True


# -- files -------------------------------------------------------------------------------------------


def _sync(folder: Path) -> None:
    """Make the names in a folder safe, where the system can."""
    directory = getattr(os, "O_DIRECTORY", None)
    if directory is None:  # Windows opens no folders
        return
    handle = os.open(folder, os.O_RDONLY | directory)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems have it for files alone
            raise
    finally:
        os.close(handle)


def _stamp(state: os.stat_result) -> Stamp:
    return (state.st_mtime_ns, state.st_size, state.st_ino)


def _content(path: Path) -> tuple[bytes, Stamp]:
    with path.open("rb") as file:
        stamp = _stamp(os.fstat(file.fileno()))
        return file.read(), stamp


def _free(path: Path, now: datetime) -> Path:
    """Return a name for a damaged file that nothing has."""
    wanted = f"{path.name}.damaged-{now:%Y%m%dT%H%M%SZ}"
    aside = path.with_name(wanted)
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{wanted}-{number}")
    return aside


# -- their form --------------------------------------------------------------------------------------


def _encode(record: SessionRecord) -> bytes:
    session = encode_session(record)
    summary = msgspec.json.encode(record.summary)
    return b'{"format":%d,"summary":%s,\n"session":%s}\n' % (FORMAT, summary, session)


def _decode(data: bytes, session: str) -> SessionRecord:
    try:
        file = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SerializationError(f"what is stored of session {session!r} cannot be read: {error}") from error
    if file.format > FORMAT:
        raise SerializationError(
            f"session {session!r} was stored by a newer version of wizard_actors, in a file of format {file.format}; "
            f"this one reads up to format {FORMAT}: upgrade it, or leave the session to the newer one"
        )
    return decode_session(bytes(file.session), session)


def _is_newer(data: bytes) -> bool:
    """Say whether a newer version wrote a file: it is not damaged, and stays."""
    try:
        file = msgspec.json.decode(data, type=_File)
        return file.format > FORMAT or msgspec.json.decode(file.session, type=_Session).schema > SCHEMA
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _headed(path: Path) -> _Known:
    """Read what a list shows of a file; nothing where it is damaged, or another session's."""
    with path.open("rb") as file:
        stamp = _stamp(os.fstat(file.fileno()))
        line = file.read(HEAD).partition(b"\n")[0]
    try:
        summary = msgspec.json.decode(line.rstrip().removesuffix(b",") + b"}", type=_Head).summary
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Known(stamp, None)
    return _Known(stamp, summary if file_name(summary.id) == path.name else None)
