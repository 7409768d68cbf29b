"""The seam between sessions and whatever keeps them: what a storage is asked, and what it promises.

A storage is opened by an async context manager and used inside it, under Trio, by many tasks at once:

    async with open_it() as storage:
        await storage.save(SessionRecord("alice", created_at=now))
        record = await storage.load("alice")

It knows records and versions, and nothing of turns, models or actors. It reads no clock: all times are wall-clock
seconds in what it is given. `wizard_actors.testing.storage` holds its promises as tests.

**Versions are optimistic.** A record of version n takes the place of version n - 1 of the same session, and of nothing
else; version 1 that of none, or of one that is stored as expired, whatever its version. "The same session" is the same
`id` and `created_at`, so that a writer who slept through a deletion cannot write over the session that was made anew.
The comparison and the write are one step, also against other processes where the storage has them: of two writers of
one version one is told `SessionConflictError`, and loses nothing but the race.

**Durable when it returns.** What `save` has returned from is there for every later call, and after the storage was
opened again, as far as the backend claims to be durable.

**Deadlines are the caller's.** A storage may hang: on a dead disk, a lock, a network. Whoever calls puts a deadline
round each call (`trio.fail_after`), so every method can be cancelled while it waits, and a call in a cancelled scope is
not begun. A cancelled `save` or `delete` leaves the old or the new, whole; so does one that raised `StorageError`.
`load` tells which. What was already handed to a thread or a server may still land after the call has returned, as a
write like any other: over the very version that it was to replace, or not at all.

**Errors.** A backend's own errors are turned into `StorageError`, chained, whose message names backend and session
(`storage_error`). A record that is stored and cannot be understood is a `SerializationError` of that one session
(`decode_session` raises it), and all others are served. No new session is stored over it: it stays where it is, so that
each `load` tells, until it is deleted; or `load` sets it aside under another name, which its error tells, and the
session's name is free. After a `delete` it is free in either case. One that a newer version stored is not damaged: it
always stays.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Protocol

from wizard_actors.errors import SessionConflictError, StorageError
from wizard_actors.session_record import SessionRecord, SessionState, SessionSummary

__all__ = [
    "MAX_PAGE",
    "SessionStorage",
    "check_busy",
    "check_limit",
    "check_prefix",
    "check_replaces",
    "newest_first",
    "storage_error",
]

MAX_PAGE: Final = 1_000
"""The most sessions that one call lists or removes."""


class SessionStorage(Protocol):
    """Sessions, kept. All methods may be called by many tasks at once; see the module for what holds for all."""

    async def load(self, session: str) -> SessionRecord | None:
        """Return the version of a session that is stored, None where there is none: any text may be asked for.

        Raises `SerializationError` where what is stored is damaged, `StorageError` where it cannot be read.
        """

    async def save(self, record: SessionRecord) -> None:
        """Store a record in the place of the version before it; returns once it is safe.

        Raises `SessionConflictError` where something else is stored (`check_replaces`), `SerializationError` where the
        record cannot be stored at all, `StorageError` where the backend fails; the stored version is then as it was,
        except that a `StorageError` may hide a write that succeeded: `load` tells.
        """

    async def delete(self, session: str) -> bool:
        """Remove a session, whatever its version; False where there was none."""

    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        """Return a page of what is stored: by `used_at`, newest first, equal ones by `id` in the order of code points.

        Only sessions whose id begins with `prefix`, code point for code point: `%`, `*` and the like stand for
        themselves, and no case, accent or normal form is folded. Any text may be asked for; "" is every session.

        A page has `limit` sessions, 1 to 1,000; fewer only where there are no more. The next page begins `after` the
        last of this one, whether that is still there or not: a session that nobody touches meanwhile stands on exactly
        one page. One that is used meanwhile moves to the front, and may be seen there only. Whether a damaged
        one is listed is the backend's to choose; it keeps no other from being listed.

        Raises `ValueError` for a limit out of its bounds, `TypeError` for a prefix that is no text (`check_prefix`),
        and `StorageError`.
        """

    async def purge(
        self,
        *,
        limit: int,
        used_before: float | None = None,
        created_before: float | None = None,
        busy: Collection[str] = (),
    ) -> Sequence[str]:
        """Remove sessions last used before one instant, or created before another, and return their ids.

        At most `limit` (1 to 1,000), those unused for longest first, whatever their state. Never one whose id is in
        `busy`, a list or a set of ids; those do not count towards the limit, so that a call which removes fewer than
        `limit` has found them all. Each is looked at and removed in one step: a session that was saved in between is
        judged by what was saved. Cancelled, it has removed some, each of them whole. Without an instant nothing is
        removed.

        Raises `ValueError` for a limit out of its bounds, `TypeError` for a text as `busy` (`check_busy`), and
        `StorageError`.
        """


def newest_first(summary: SessionSummary) -> tuple[float, str]:
    """The sort key of a list of sessions; a page after `last` has those whose key is more than `newest_first(last)`."""
    return (-summary.used_at, summary.id)


def check_limit(limit: int) -> None:
    """Raise `ValueError` for a limit that is no whole number of 1 to 1,000."""
    given: object = limit  # a program without a type checker may give anything
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= MAX_PAGE:
        raise ValueError(f"limit must be 1 to {MAX_PAGE}, not {limit!r}")


def check_busy(busy: Collection[str]) -> frozenset[str]:
    """Return the ids in `busy`; raise `TypeError` for a text, whose letters would be taken for ids."""
    if isinstance(busy, str):
        raise TypeError(f"busy must be a collection of ids, not a text: [{busy!r}]")
    return frozenset(busy)


def check_prefix(prefix: str) -> str:
    """Return `prefix`; raise `TypeError` where it is no text: None or bytes would be found nowhere, or everywhere."""
    given: object = prefix
    if not isinstance(given, str):
        raise TypeError(f'prefix must be a text, "" for every session, not {prefix!r}')
    return prefix


def check_replaces(backend: str, record: SessionRecord, stored: SessionSummary | None) -> None:
    """Raise `SessionConflictError` unless `record` is the version after the one that is stored, or version 1 in the
    place of none, or of one that is stored as expired.
    """
    version, born = (0, record.created_at) if stored is None else (stored.version, stored.created_at)
    if record.version == version + 1 and record.created_at == born:
        return
    if record.version == 1 and stored is not None and stored.state is SessionState.EXPIRED:
        return
    advice = "load the session again"
    if stored is None:
        found = "is not stored: it was deleted, or never saved"
        advice = "there is nothing to load, begin it anew"
    elif born != record.created_at:
        found = "was deleted, and another one of the same name was created since"
    else:
        found = f"is stored in version {version}"
    raise SessionConflictError(
        f"{backend}: session {record.id!r} {found}; version {record.version} was not saved: {advice}",
        session=record.id,
        version=record.version,
        stored=None if stored is None else stored.version,
    )


def storage_error(backend: str, session: str | None, reason: str, *, path: str | None = None) -> StorageError:
    """Return the error for a backend that failed: `backend: session 'id' reason`; no session where it is about all."""
    about = "" if session is None else f"session {session!r} "
    return StorageError(f"{backend}: {about}{reason}", path=path, backend=backend, session=session)
