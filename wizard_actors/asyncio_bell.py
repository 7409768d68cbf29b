"""A bell for a task under asyncio, and how such a task waits until something has come to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio

__all__ = ["AsyncioBell"]


class AsyncioBell:
    """A bell for one task under asyncio, or uvloop. Raises `RuntimeError` where no event loop runs."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._rung = False

    def ring(self) -> bool:
        """Wake the task; False where its loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            return False
        return True

    def call(self, callback: Callable[[], None]) -> bool:
        """Call `callback` in the loop's thread soon; False where the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    async def heard(self) -> None:
        """Wait until it has been rung since the last time. Cancelling is safe.

        Raises `RuntimeError` where another task waits already: it would never be woken.
        """
        if self._waiter is not None:
            raise RuntimeError("another task waits for this already: a stream is read by one task at a time")
        if not self._rung:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
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
        self._rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
