"""How callers reach what runs under Trio, whatever they run under themselves: the seam, and the plainest host."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Protocol, TypeVar

import trio

from wizard_actors.embed.errands import AT_HOME, Home
from wizard_actors.errors import UnsupportedError
from wizard_actors.response_stream import Source, Taken

__all__ = ["Here", "Host", "working"]

T = TypeVar("T")


async def _read_one_by_one() -> None:  # noqa: ASYNC124 - as others wait
    """Wait for nothing: here an event is made when its reader asks for it."""


def working(function: Callable[..., object], *args: object, **kwargs: object) -> Callable[[], Awaitable[object]]:
    """Return the work of calling `function`, async or plain. Raises `TypeError` for what is no function."""
    if not callable(function):
        raise TypeError(
            f"run() takes a function and its arguments, and calls it in the client's Trio thread; it got {function!r}"
        )

    async def work() -> object:
        value = function(*args, **kwargs)
        return await value if isawaitable(value) else value

    return work


class Host(Protocol):
    """Runs functions where the resource lives, for callers under Trio or asyncio."""

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` awaits to. Cancelled, it returns once `work` has ended, and given everything back."""

    async def run_for(self, work: Callable[[Home], Awaitable[T]]) -> T:
        """Return what `work` awaits to, which may use its caller's home meanwhile. Cancelled like `run`."""

    def look(self, function: Callable[[], T]) -> T:
        """Return what `function` returns, which waits for nothing."""

    def source(self, begin: Callable[[Taken], Source], *, patience: float) -> Source:
        """Return the events of the stream that `begin` begins, to be read here; it begins with the first read.

        `patience` is after how many seconds a stream that nobody reads is lost.
        """


class Here:
    """For callers in the very event loop in which the resource lives: nothing is between them.

    `block` is what the resource lives in, which must not be collected before its clients are.
    """

    def __init__(self, block: object) -> None:
        self._block = block
        self._home = trio.lowlevel.current_trio_token()
        self._process = os.getpid()

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` awaits to. Raises `UnsupportedError` in another event loop."""
        self._refuse_other_loops()
        return await work()

    async def run_for(self, work: Callable[[Home], Awaitable[T]]) -> T:
        """Return what `work` awaits to. Raises `UnsupportedError` in another event loop."""
        self._refuse_other_loops()
        return await work(AT_HOME)

    def look(self, function: Callable[[], T]) -> T:
        """Return what `function` returns."""
        return function()

    def source(self, begin: Callable[[Taken], Source], *, patience: float) -> Source:
        """Return the stream's own source, which watches over itself. Raises `UnsupportedError` as `run`."""
        self._refuse_other_loops()
        return begin(_read_one_by_one)

    def _refuse_other_loops(self) -> None:
        if self._process != os.getpid():
            raise UnsupportedError(
                "the client was opened before this process was forked off, and works in its parent only: open one in "
                "each process",
                feature="fork",
            )
        if not trio.lowlevel.in_trio_run() or trio.lowlevel.current_trio_token() is not self._home:
            raise UnsupportedError(
                "the client was opened in another run of Trio, and works there only: open one here",
                feature="event loop",
            )
