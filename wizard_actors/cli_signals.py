"""Ctrl-C and its like: the first one stops what runs in good order, the second one ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Final

import trio

__all__ = ["Signals"]

HANDLED: Final = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """SIGINT and SIGTERM for a program that does its work in `run`.

    The handler raises nothing, so that nothing is torn apart half-way: it cancels, and Trio takes everything down as
    after any cancellation. Where there is nothing to cancel, before and after the work, and with the second signal, it
    ends the process without more ado; whatever was written has left already.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        """The number of the first signal that came while the work ran."""
        self._cancel: Callable[[], None] | None = None
        self._interrupt: Callable[[], None] | None = None
        self._before_exit: Callable[[], None] = _nothing

    @property
    def status(self) -> int | None:
        """The exit status that says which signal it was, None where none came."""
        return None if self.received is None else 128 + self.received

    def install(self) -> None:
        """Handle the signals from now on; one that whoever started the program had it ignore stays ignored."""
        for each in HANDLED:
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, self.handle)

    def handle(self, number: int, _frame: FrameType | None = None) -> None:
        """Do what the signal `number` asks for."""
        interrupt, self._interrupt = self._interrupt, None
        if number == signal.SIGINT and interrupt is not None and self.received is None:
            interrupt()
        elif self._cancel is None or self.received is not None:
            self._before_exit()
            os._exit(128 + number)
        else:
            self.received = number
            self._cancel()

    def interruptible(self) -> trio.CancelScope:
        """Return a scope, to be entered at once, that the next SIGINT cancels, and it alone: the program goes on.

        The SIGINT after that one ends the program, unless the program has asked for another scope meanwhile. One that
        comes between two scopes, when the last one has been left, is without effect.
        """
        scope, token = trio.CancelScope(), trio.lowlevel.current_trio_token()
        self._interrupt = lambda: token.run_sync_soon(scope.cancel)
        return scope

    def before_exit(self, function: Callable[[], None]) -> None:
        """Call `function` where a signal ends the process at once: it puts a terminal right, say, and never waits."""
        self._before_exit = function

    def run(self, work: Callable[[], Awaitable[int]]) -> int:
        """Run `work` on Trio, and return its exit status, or the signal's where one stopped it.

        Raises what `work` raises.
        """
        try:
            return trio.run(self._cancellable, work)
        finally:
            self._cancel = self._interrupt = None

    async def _cancellable(self, work: Callable[[], Awaitable[int]]) -> int:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            self._cancel = lambda: token.run_sync_soon(scope.cancel)
            return await work()
        return self.status or 0


def _nothing() -> None:
    pass
