"""A connection to a SQLite file that knows which file it has open: this one's locks, and in its place still.

SQLite trusts a name for as long as a connection lasts, and a process to be one. Where another file takes the name, or
none has it, commits go on into what nobody will open again. And the locks of a file belong to a process: one that is
forked off inherits SQLite's list of them, not the locks, so that its own connections would lock nothing. Both lose what
was acknowledged, and both are refused here.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

from attrs import frozen

from wizard_actors.storage.sqlite_thread import POLL

__all__ = ["FileError", "SqliteConnection", "check_in_place", "connect", "identity", "watch_beside"]

BESIDE: Final = ("-wal", "-shm")
"""How the names of the files end that SQLite keeps beside its own as long as anybody has it open."""

TRIES: Final = 3
"""How often a file is opened that is replaced in that very moment."""

Identity: TypeAlias = tuple[int, int]


class FileError(sqlite3.OperationalError):
    """The file is not one that may be used; the text says why, and what to do."""


@frozen(eq=False)
class _Held:
    """A file that a process has open."""

    process: int
    file: Identity


# Kept without a lock, which a fork might copy while it is taken: what a set does here is one step.
_HELD: Final[set[_Held]] = set()


class SqliteConnection(sqlite3.Connection):
    """A connection that `connect` has made."""

    held: _Held
    places: Mapping[Path, Identity]

    def close(self) -> None:
        """Close it, and let processes that are forked off later open the file."""
        super().close()
        _HELD.discard(self.held)


def connect(path: Path) -> SqliteConnection:
    """Open a file that is there.

    Raises `FileError` in a process that was forked off one which had the file open, `OSError` where there is none, and
    `sqlite3.Error`.
    """
    for _ in range(TRIES):
        held = _Held(os.getpid(), identity(path))
        _refuse_fork_of_holder(held)
        _HELD.add(held)  # first: another thread may fork at any moment
        try:
            db = sqlite3.connect(
                f"{path.as_uri()}?mode=rw", uri=True, timeout=POLL, isolation_level=None, factory=SqliteConnection
            )
        except BaseException:
            _HELD.discard(held)
            raise
        db.held = held
        if identity_or_none(path) == held.file:  # some file systems make a copy of what is opened to be written
            db.places = {path: held.file}
            db.text_factory = _text
            return db
        db.close()
    raise FileError("it was replaced while it was being opened: open it again")


def watch_beside(db: SqliteConnection) -> None:
    """Have `check_in_place` look also at what SQLite keeps beside the file; it is there once the file has been read."""
    (path,) = db.places
    real = Path(os.path.realpath(path))
    beside = [real.with_name(real.name + end) for end in BESIDE]
    found = {each: identity_or_none(each) for each in beside}
    db.places = {path: db.held.file} | {each: known for each, known in found.items() if known is not None}


def check_in_place(db: sqlite3.Connection) -> None:
    """Raise `FileError` unless the file, and what is beside it, are the ones that were opened, under their names."""
    if not isinstance(db, SqliteConnection):
        return
    for place, opened in db.places.items():
        if identity_or_none(place) != opened:
            raise FileError(
                f"{place.name} was removed, moved or replaced while it was in use: put it back, or close what uses it "
                "and open it again"
            )


def identity(path: Path) -> Identity:
    """Return which file has a name. Raises `OSError` where none has."""
    found = path.stat()
    return found.st_dev, found.st_ino


def identity_or_none(path: Path) -> Identity | None:
    """Return which file has a name, None where that cannot be told."""
    try:
        return identity(path)
    except OSError:
        return None


def _refuse_fork_of_holder(wanted: _Held) -> None:
    if any(held.file == wanted.file and held.process != wanted.process for held in list(_HELD)):
        raise FileError(
            "this process was forked off one that had the file open, and cannot lock it: fork before the sessions are "
            "first used, or close the client before, or start processes by multiprocessing's spawn or forkserver"
        )


def _text(stored: bytes) -> str:
    """Return a text as it is stored: damaged ones too, for nothing else of their rows would be read either."""
    return stored.decode(errors="surrogateescape")
