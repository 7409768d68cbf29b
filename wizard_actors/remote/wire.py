"""The stream under a WebSocket: it notes when a byte came last, gives up where none leaves, and tells when none will
come any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

__all__ = ["Wire"]

PIECE: Final = 65_536
"""Bytes that are sent at once: each piece that leaves is a sign of life."""

LEAVES_WITHIN: Final = 40.0
"""Seconds that a piece has to leave: a server that takes nothing for so long is dead, whatever else it says."""


class Wire(trio.abc.Stream):
    """`stream`, watched: when a byte was last `received`; `on_end` is called once none comes any more."""

    def __init__(self, stream: trio.abc.Stream, on_end: Callable[[], object]) -> None:
        self.received = trio.current_time()
        self.stuck = False
        """Whether the server took too long to take what was sent; the stream is broken then."""
        self._stream = stream
        self._on_end: Callable[[], object] | None = on_end
        self._sent = trio.Event()
        self._sent.set()

    def trust(self) -> None:
        """Tell nobody of the end: whoever reads notices it."""
        self._on_end = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, piece by piece. Raises `trio.BrokenResourceError` where a piece takes more than 40 s."""
        view = memoryview(data)
        self._sent = trio.Event()
        try:
            for start in range(0, len(view), PIECE):
                with trio.move_on_after(LEAVES_WITHIN) as patience:
                    await self._stream.send_all(view[start : start + PIECE])
                if patience.cancelled_caught:
                    self.stuck = True
                    raise trio.BrokenResourceError(f"nothing of it left within {LEAVES_WITHIN:g} s")
        finally:
            self._sent.set()

    async def sent(self) -> None:
        """Wait until what is being sent now has left, or has failed to."""
        await self._sent.wait()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream does."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return what came; nothing at the end."""
        data: bytes | bytearray = b""
        try:
            data = await self._stream.receive_some(max_bytes)
        finally:
            if not data:
                self._ended()
        self.received = trio.current_time()
        return data

    async def aclose(self) -> None:
        """Close the stream."""
        self._ended()
        await self._stream.aclose()

    def _ended(self) -> None:
        tell, self._on_end = self._on_end, None
        if tell is not None:
            tell()
