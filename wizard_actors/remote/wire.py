"""The stream under a WebSocket, which notes when it moved last, and tells when nothing more will come of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

__all__ = ["Wire"]

PIECE: Final = 65_536
"""Bytes that are sent at once: each piece that leaves is a sign of life."""


class Wire(trio.abc.Stream):
    """`stream`, watched: when a byte was last `received`, and `sent`; `on_end` is called once none comes any more."""

    def __init__(self, stream: trio.abc.Stream, on_end: Callable[[], object]) -> None:
        self.received = self.sent = trio.current_time()
        self._stream = stream
        self._on_end: Callable[[], object] | None = on_end

    def trust(self) -> None:
        """Tell nobody of the end: whoever reads notices it."""
        self._on_end = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, piece by piece."""
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            await self._stream.send_all(view[start : start + PIECE])
            self.sent = trio.current_time()

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
