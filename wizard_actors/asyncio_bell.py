"""A bell for a task under asyncio, and how such a task waits until something has come to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context

import anyio

__all__ = ["AsyncioBell"]


class AsyncioBell:
    """A bell for tasks of one loop of asyncio, or uvloop. Raises `RuntimeError` where no event loop runs."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._waiters: set[asyncio.Future[None]] = set()
        self._rung = False
        self._on_its_way = False
        """A ring has been sent to the loop and has not arrived: a loop that stands still is sent no second one."""

    def ring(self) -> bool:
        """Wake whoever waits; False where the loop is closed."""
        if self._on_its_way:
            return True
        self._on_its_way = True
        try:
            self.loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            self._on_its_way = False
            return False
        return True

    def call(self, callback: Callable[[], object], context: Context | None = None) -> bool:
        """Call `callback` in the loop's thread soon; False where the loop is closed."""
        try:
            self.loop.call_soon_threadsafe(callback, context=context)
        except RuntimeError:
            return False
        return True

    async def heard(self) -> None:
        """Wait until it has been rung since the last time. Cancelling is safe."""
        if not self._rung:
            waiter = self.loop.create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        self._rung = False

    async def outlast(self, over: Callable[[], bool]) -> None:
        """Wait until `over` says so, whoever cancels meanwhile: asyncio keeps count of that, and the caller raises.

        The shield is for anyio, which cancels anew at every turn of the loop.
        """
        with anyio.CancelScope(shield=True):
            while not over():  # noqa: ASYNC913 - what is over needs no wait
                try:
                    await self.heard()
                except asyncio.CancelledError:  # noqa: ASYNC103 - see above
                    continue  # noqa: ASYNC104 - see above

    def _wake(self) -> None:
        self._on_its_way = False
        self._rung = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
