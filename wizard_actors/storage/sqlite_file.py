"""The file of a SQLite storage: made, looked at before anything is changed in it, brought up to date, set aside.

It is this package's where its `application_id` says so; `user_version` counts the steps that its tables have been taken
through. A file of other tables, or of more steps than are known here, is left as it is. What is no database at all, or
so damaged that its tables cannot be told, is renamed, never written over.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from wizard_actors.errors import StorageError
from wizard_actors.storage.base import storage_error
from wizard_actors.storage.sqlite_connection import SqliteConnection, connect, identity, watch_beside
from wizard_actors.storage.sqlite_rows import BACKEND
from wizard_actors.storage.sqlite_thread import patiently, primary_code

if sys.platform != "win32":
    import fcntl

__all__ = ["APPLICATION_ID", "STEPS", "failure", "open_to_read", "open_to_write"]

APPLICATION_ID: Final = int.from_bytes(b"WzAc")
"""What the header of our files says whose they are."""

STEPS: Final[Sequence[Sequence[str]]] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        """CREATE TABLE sessions (
               id TEXT NOT NULL PRIMARY KEY,
               version INTEGER NOT NULL,
               state TEXT NOT NULL,
               turns INTEGER NOT NULL,
               created_at REAL NOT NULL,
               updated_at REAL NOT NULL,
               used_at REAL NOT NULL,
               data BLOB NOT NULL
           )""",
        "CREATE INDEX sessions_by_use ON sessions (used_at DESC, id)",
    ),
)
"""What makes the tables, and then each next version of them out of the one before. A step that was released stays."""

TOLD: Final = {
    sqlite3.SQLITE_BUSY: "another program keeps it locked; try again when that is done",
    sqlite3.SQLITE_FULL: "make room on the disk, or raise its limit",
    sqlite3.SQLITE_READONLY: "this user may not write to it, to its folder, or to its -wal and -shm files beside it",
    sqlite3.SQLITE_CANTOPEN: "it is no file, or this user may not open it or write to its folder",
    sqlite3.SQLITE_CORRUPT: "a part of it is damaged: `sqlite3 FILE .recover` saves what is left of it",
    sqlite3.SQLITE_NOTADB: "something else was written over it",
}
"""What an error of SQLite means for who runs the program, and what to do."""

DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

ENDS: Final = ("", "-journal", "-wal", "-shm")
"""How the names of a file, and of those that SQLite keeps beside it, end."""

_CREATING: Final = threading.Lock()


def failure(path: Path, session: str | None, failed: str, error: Exception) -> StorageError:
    """Return the error for something that failed with the file: `failed` says what, `error` why."""
    code = primary_code(error) if isinstance(error, sqlite3.Error) else -1
    told = f"; {TOLD[code]}" if code in TOLD else ""
    return storage_error(BACKEND, session, f"{failed}: {path}: {error}{told}", path=str(path))


# -- opening -----------------------------------------------------------------------------------------


def open_to_write(path: Path, busy_timeout: float, steps: Sequence[Sequence[str]] = STEPS) -> SqliteConnection:
    """Open the file for the one thread that writes, make it where there is none, and bring it up to date.

    Raises `StorageError`, having changed nothing where the file is somebody else's, or a newer version's, or where this
    process was forked off one that had it open.
    """
    try:
        _create(path)
        db = connect(path)
    except (OSError, ValueError, sqlite3.Error) as error:  # ValueError: a null in its name
        raise failure(path, None, "cannot be opened", error) from error
    try:
        _prepare(db, path, busy_timeout, steps)
        watch_beside(db)
    except sqlite3.Error as error:
        damaged = primary_code(error) in DAMAGE
        told = _set_aside(path, db.held.file, db, error) if damaged else failure(path, None, "cannot be opened", error)
        db.close()
        raise told from error
    except BaseException:
        db.close()
        raise
    return db


def open_to_read(path: Path) -> SqliteConnection:
    """Open the file, which is up to date, once more, to read beside the thread that writes."""
    try:
        db = connect(path)
    except (OSError, sqlite3.Error) as error:
        raise failure(path, None, "cannot be opened", error) from error
    try:
        db.execute("PRAGMA query_only = ON")
        watch_beside(db)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path, busy_timeout: float, steps: Sequence[Sequence[str]]) -> None:
    def migrate() -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            for step in steps[_steps_taken(db, path, len(steps)) :]:
                for statement in step:
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(steps)}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def look() -> int:
        db.execute("BEGIN")  # another process may just be making its tables
        try:
            return _steps_taken(db, path, len(steps))
        finally:
            if db.in_transaction:  # else SQLite has ended it: another error would hide why
                db.execute("ROLLBACK")

    taken = patiently(look, busy_timeout)
    patiently(lambda: db.execute("PRAGMA journal_mode = WAL").fetchone(), busy_timeout)
    db.execute("PRAGMA synchronous = EXTRA")  # as FULL with a WAL; safe too where the file system allows none
    db.execute("PRAGMA fullfsync = ON")  # else macOS leaves a commit in the cache of the disk
    if taken < len(steps):
        patiently(migrate, busy_timeout)


def _steps_taken(db: sqlite3.Connection, path: Path, known: int) -> int:
    """Return how many steps the tables have been taken through; raise `StorageError` for what is not ours to touch."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (taken,) = db.execute("PRAGMA user_version").fetchone()
    ours = application == APPLICATION_ID
    if application in {0, APPLICATION_ID}:  # else its tables are nobody's business, damaged or not
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        if not (application or taken or tables):
            return 0
        ours = ours and "sessions" in tables
    if not ours:
        raise storage_error(
            BACKEND,
            None,
            f"{path} is a database of something else, and was left as it is: name another file for the sessions",
            path=str(path),
        )
    if taken > known:
        raise storage_error(
            BACKEND,
            None,
            f"{path} was made by a newer version of wizard_actors, in version {taken} of its tables; this one knows "
            f"them up to version {known}, and left it as it is: upgrade wizard_actors, or name another file",
            path=str(path),
        )
    return int(taken)


# -- files -------------------------------------------------------------------------------------------


def _create(path: Path) -> None:
    """Make an empty file that only its owner may read, and the folders above it, unless it is there."""
    if path.exists():
        with _CREATING:  # whoever is just making it has yet to close it
            return
    for folder in reversed([folder for folder in path.parents if not folder.exists()]):
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync(folder.parent)
    # Closing a file gives up the locks that this process holds on it: nobody here may have it open yet.
    with _CREATING, suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if sys.platform != "win32":
        with _opened(folder) as number:
            os.fsync(number)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    number = os.open(folder, os.O_RDONLY)
    try:
        yield number
    finally:
        os.close(number)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other thread or process into the same block of the same folder."""
    if sys.platform == "win32":  # no file that somebody has open can be renamed there
        yield
        return
    with _opened(folder) as number:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield


def _set_aside(path: Path, found: tuple[int, int], db: sqlite3.Connection, damage: sqlite3.Error) -> StorageError:
    """Rename the damaged file that was `found`, unless another process was first; return the error that says so.

    It is renamed while it is open: closing it under its name would write to it what lies beside it, and remove that.
    """
    if sys.platform == "win32":  # nothing that is open can be renamed there
        db.close()
    path = Path(os.path.realpath(path))  # SQLite too keeps the other two files beside what a link points to
    try:
        with _alone(path.parent):
            if not path.exists() or identity(path) != found:
                told = "another program has set it aside meanwhile, under a name that begins with "
                return failure(path, None, f"was damaged, and {told}{path.name}.damaged-: open it again", damage)
            aside = _unused(path)
            for end in reversed(ENDS):  # the file itself last: until then it is still found damaged
                with suppress(FileNotFoundError):
                    path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
            _sync(path.parent)
    except OSError as error:
        return failure(path, None, f"is damaged ({damage}), and could not be set aside: move it away", error)
    return storage_error(
        BACKEND,
        None,
        f"{path} is damaged: {damage}; it was set aside as {aside}, and the next opening begins an empty one",
        path=str(path),
    )


def _unused(path: Path) -> Path:
    """Return a name for a damaged file that nothing has."""
    name = f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for number in itertools.count(1):
        aside = path.with_name(name if number == 1 else f"{name}-{number}")
        if not any(os.path.lexists(aside.with_name(aside.name + end)) for end in ENDS):
            return aside
    raise AssertionError  # there is always another number
