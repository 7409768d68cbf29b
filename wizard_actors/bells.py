"""Bells: what a task or a thread waits for, and anybody rings, from any thread.

Whoever waits makes a bell where it stands, gives it to whoever will have news, looks whether there is any, and then
waits to hear it. A ring is never lost: one that comes before the wait ends it at once.
"""

from __future__ import annotations

import sys
from queue import SimpleQueue
from typing import Protocol

import trio

__all__ = ["Bell", "ThreadBell", "TrioBell", "bell_here", "under_asyncio"]


class Bell(Protocol):
    """What anybody can ring."""

    def ring(self) -> bool:
        """Wake whoever waits; False where nobody can hear it any more, because their event loop is closed."""


class Heard(Bell, Protocol):
    """A bell that is waited for in a task."""

    async def heard(self) -> None:
        """Wait until it has been rung since the last time. Cancelling is safe."""


class TrioBell:
    """A bell for a task under Trio."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._rung = trio.Event()

    def ring(self) -> bool:
        """Wake the task: at once where it runs in this thread, so that the order of things is that of a program."""
        if trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is self._token:
            self._rung.set()
            return True
        try:
            self._token.run_sync_soon(self._rung.set, idempotent=True)
        except (trio.RunFinishedError, OSError):  # OSError: Trio itself broke down, and its socket is closed
            return False
        return True

    async def heard(self) -> None:
        """Wait until it has been rung since the last time. Cancelling is safe."""
        await self._rung.wait()
        self._rung = trio.Event()


class ThreadBell:
    """A bell for a thread without an event loop."""

    def __init__(self) -> None:
        self._rings: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> bool:
        """Wake the thread."""
        self._rings.put(None)
        return True

    def heard(self) -> None:
        """Wait until it has been rung. In the main thread a Ctrl-C interrupts the wait."""
        self._rings.get()


def bell_here() -> Heard:
    """Return a bell for the task that asks, under Trio or asyncio. Raises `RuntimeError` outside of both."""
    if trio.lowlevel.in_trio_task():
        return TrioBell()
    from wizard_actors.asyncio_bell import AsyncioBell  # who gets here has imported asyncio; nobody else pays for it

    return AsyncioBell()


def under_asyncio() -> bool:
    """Say whether an asyncio loop runs in this thread; asyncio is not imported for the question."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
