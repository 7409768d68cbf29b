"""Files of JSON lines, read a piece at a time: no more of them is in memory than a line and a piece."""

from __future__ import annotations

import codecs
import os
from collections import deque
from hashlib import blake2b
from typing import Final, Self

import trio
from attrs import frozen

from wizard_actors.conversion import from_os

__all__ = ["Line", "Lines"]

PIECE: Final = 2**18
"""Bytes that are read at once."""


@frozen
class Line:
    """One line of a file: its number from 1, its text without the newline, None where it is too long.

    It begins `start` bytes into what was read, and ends, its newline included, at `end`. `whole` is false for text at
    the file's end that has no newline.
    """

    number: int
    text: bytes | None
    start: int
    end: int
    whole: bool

    @property
    def blank(self) -> bool:
        """Whether there is nothing but white space."""
        return self.text is not None and not self.text.strip()

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that tell this line from others; the white space around it does not count."""
        return blake2b((self.text or b"").strip(), digest_size=8).hexdigest()


class Lines:
    """The lines of the open file `fd`, from where it stands; `longest` bytes of each, at most.

    Only a newline ends a line. A byte order mark at the beginning is left out. Reading happens in threads, for a pipe
    may keep its reader waiting; cancelling leaves the thread behind. Raises `StorageError`, naming `path`.
    """

    def __init__(self, fd: int, path: str, *, longest: int) -> None:
        self._fd = fd
        self._path = path
        self._longest = longest
        self._ready: deque[bytes] = deque()
        self._rest = b""
        self._cut = 0
        """Bytes of the line under way that were too many and are gone."""
        self._number = 0
        self._start = 0
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Line:
        while not self._ready and not self._ended:
            self._take(await self._piece())
        if self._ready:
            return self._line(self._ready.popleft(), whole=True)
        if self._rest or self._cut:
            rest, self._rest = self._rest, b""
            return self._line(rest, whole=False)
        raise StopAsyncIteration

    async def _piece(self) -> bytes:
        try:
            return await trio.to_thread.run_sync(os.read, self._fd, PIECE, abandon_on_cancel=True)
        except OSError as error:
            raise from_os(error, self._path) from error

    def _take(self, piece: bytes) -> None:
        self._ended = not piece
        *whole, rest = (self._rest + piece).split(b"\n")
        self._ready.extend(whole)
        if not whole and self._cut + len(rest) > self._longest:  # the rest of a line is of no use then
            self._cut, rest = self._cut + len(rest), b""
        self._rest = rest

    def _line(self, text: bytes, *, whole: bool) -> Line:
        self._number += 1
        size = self._cut + len(text)
        start, end = self._start, self._start + size + whole
        self._start, self._cut = end, 0
        if size > self._longest:
            return Line(self._number, None, start, end, whole)
        if self._number == 1:
            text = text.removeprefix(codecs.BOM_UTF8)
        return Line(self._number, text, start, end, whole)
