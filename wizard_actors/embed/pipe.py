"""A stream's events on their way from Trio's thread to a reader in another one.

The reader's pace is the stream's: at most `WINDOW` events stand unread, then nobody reads the model's socket. Neither
side wakes the other for each event: the writer rings where the reader waits, the reader where half the window is free.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Final

import trio

from wizard_actors.bells import Bell, TrioBell
from wizard_actors.response_stream import Source, unread
from wizard_actors.types import StreamEvent

__all__ = ["Pipe"]

WINDOW: Final = 16

SLOW: Final = 0.05
"""Seconds after which a writer that waits is woken by each read: a stream whose reader is slow is not idle."""

GRACE: Final = 1.0
"""Seconds that a full pipe is waited for beyond the time in which a stream that nobody reads is lost."""


class Pipe:
    """The events between one source and one reader, whom `bell` wakes; `patience` is the stream's `consumer_idle`."""

    def __init__(self, bell: Bell, *, patience: float) -> None:
        self._bell = bell
        self._patience = patience
        self._events: deque[StreamEvent] = deque()
        # Each flag is raised before the last look at the events, by the side that then waits; the other side looks at
        # it after it has changed them: so one of the two sees what the other has done.
        self._reader_waits = False
        self._writer_waits = False
        self._room: TrioBell
        self._waits_since = 0.0
        self._slow = min(SLOW, patience / 4)

    async def pump(self, source: Source) -> None:
        """Read `source` to its end, in Trio's thread. Cancelled, or where no reader is left, close it."""
        self._room = TrioBell()
        try:
            async for event in source:
                self._events.append(event)
                if self._reader_waits:
                    self._reader_waits = False
                    if not self._bell.ring():
                        return
                await self._until_room()
        finally:
            await source.aclose()  # noqa: ASYNC102 - as its own block does: quick, and where cancelled, at once

    async def _until_room(self) -> None:
        """Wait while the pipe is full, no longer than it takes to lose the stream: reading on then says so."""
        if len(self._events) < WINDOW:
            return
        self._waits_since = monotonic()
        with trio.move_on_after(self._patience + GRACE):
            while len(self._events) >= WINDOW:
                self._writer_waits = True
                if len(self._events) >= WINDOW:
                    await self._room.heard()

    async def taken(self) -> None:
        """Wait, in Trio's thread, until the reader has read all that is there, and asks for more.

        Raises `DeadlineExceededError` where it has not for `patience` seconds.
        """
        self._waits_since = monotonic()
        while self._events or not self._reader_waits:
            self._writer_waits = True
            if self._events or not self._reader_waits:
                with trio.move_on_after(self._patience) as patience:  # each event that is read renews it
                    await self._room.heard()
                if patience.cancelled_caught:
                    raise unread(self._patience)

    def take(self) -> StreamEvent | None:
        """Return the next event; None: there is none yet, and the bell rings when there is."""
        if not self._events:
            self._reader_waits = True
            if not self._events:
                if self._writer_waits:
                    self._writer_waits = False
                    self._room.ring()
                return None
        self._reader_waits = False  # it may have found nothing a moment ago
        event = self._events.popleft()
        if self._writer_waits and (len(self._events) <= WINDOW // 2 or monotonic() - self._waits_since > self._slow):
            self._writer_waits = False
            self._room.ring()
        return event
