"""A session as a row: what is done with a connection, in its thread. `sqlite_file` has the table."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from itertools import islice
from typing import Final

from wizard_actors.errors import SerializationError
from wizard_actors.session_json import decode_session
from wizard_actors.session_record import SessionRecord, SessionState, SessionSummary
from wizard_actors.storage.base import check_replaces

__all__ = ["BACKEND", "delete", "load", "page", "purge", "save"]

BACKEND: Final = "sqlite"

SHOWN: Final = "id, version, state, turns, created_at, updated_at, used_at"

LOAD: Final = "SELECT version, created_at, CAST(data AS BLOB) FROM sessions WHERE id = ?"
FIND: Final = f"SELECT {SHOWN} FROM sessions WHERE id = ?"  # noqa: S608 - of constants
INSERT: Final = """INSERT OR IGNORE INTO sessions (version, state, turns, updated_at, used_at, data, id, created_at)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
REPLACE: Final = INSERT.replace("IGNORE", "REPLACE")
UPDATE: Final = """UPDATE sessions SET version = ?, state = ?, turns = ?, updated_at = ?, used_at = ?, data = ?
                   WHERE id = ? AND created_at = ? AND version = ?"""
DELETE: Final = "DELETE FROM sessions WHERE id = ?"
PAGE: Final = f"""SELECT {SHOWN} FROM sessions
                  WHERE used_at <= ?1 AND (used_at < ?1 OR id > ?2) AND substr(id, 1, ?4) = ?3
                  ORDER BY used_at DESC, id"""  # noqa: S608 - of constants
OLD: Final = "SELECT rowid, id FROM sessions WHERE used_at < ? OR created_at < ? ORDER BY used_at"
REMOVE: Final = "DELETE FROM sessions WHERE rowid = ?"

STATES: Final = frozenset(SessionState)


def load(db: sqlite3.Connection, session: str) -> SessionRecord | None:
    """Return the record of a session, None where there is none."""
    try:
        row = db.execute(LOAD, [session]).fetchone()
    except UnicodeEncodeError:
        return None  # no session can have that name
    if row is None:
        return None
    version, created_at, data = row
    record = decode_session(data or b"", session)
    if (record.version, record.created_at) != (version, created_at):
        raise _damaged(session, "version or time are not those that its row says")
    return record


def save(db: sqlite3.Connection, record: SessionRecord, data: bytes) -> None:
    """Store a record, and its JSON, in the place of the version before it."""
    new = record.summary
    values = [new.version, new.state.value, new.turns, new.updated_at, new.used_at, data, new.id, new.created_at]
    statement = (INSERT, values) if new.version == 1 else (UPDATE, [*values, new.version - 1])
    if db.execute(*statement).rowcount == 1:
        return
    row = db.execute(FIND, [new.id]).fetchone()
    stored = None if row is None else _summary(row)
    if row is not None and stored is None:
        raise _damaged(new.id, "its row holds what no session can have")
    check_replaces(BACKEND, record, stored)
    db.execute(REPLACE, values)


def delete(db: sqlite3.Connection, session: str) -> bool:
    """Remove a session; False where there was none."""
    try:
        return db.execute(DELETE, [session]).rowcount == 1
    except UnicodeEncodeError:
        return False  # no session can have that name


def page(db: sqlite3.Connection, limit: int, after: SessionSummary | None, prefix: str) -> Sequence[SessionSummary]:
    """Return a page of the sessions; those whose row is damaged are left out."""
    used_at, name = (math.inf, "") if after is None else (after.used_at, after.id)
    try:
        rows = db.execute(PAGE, [used_at, name, prefix, len(prefix)])
    except UnicodeEncodeError:
        return []  # no session can have such a name
    with closing(rows):
        found = (_summary(row) for row in rows)
        return list(islice((summary for summary in found if summary is not None), limit))


def purge(
    db: sqlite3.Connection, limit: int, used_before: float | None, created_before: float | None, busy: AbstractSet[str]
) -> Sequence[str]:
    """Remove sessions that are old and not busy, and return their ids."""
    instants = [None if instant is None else float(instant) for instant in (used_before, created_before)]
    with closing(db.execute(OLD, instants)) as rows:
        old = list(islice((row for row in rows if row[1] not in busy), limit))
    db.executemany(REMOVE, [(rowid,) for rowid, _ in old])
    return [name for _, name in old]


def _summary(row: Sequence[object]) -> SessionSummary | None:
    """Return what a list shows of a row, None where it is damaged."""
    match row:
        case [str(name), int(version), str(state), int(turns), float(created_at), float(updated_at), float(used_at)]:
            if state in STATES and not any("\ud800" <= character <= "\udfff" for character in name):
                return SessionSummary(name, version, SessionState(state), turns, created_at, updated_at, used_at)
    return None


def _damaged(session: str, reason: str) -> SerializationError:
    return SerializationError(f"what is stored of session {session!r} cannot be read: {reason}")
