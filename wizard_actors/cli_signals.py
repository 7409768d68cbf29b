"""Ctrl-C and its like: the first one stops what runs in good order, the second one ends the process at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Final, TypeAlias

import trio

__all__ = ["PutRight", "Signals"]

HANDLED: Final = (
    (signal.SIGINT, signal.SIGTERM)
    if sys.platform == "win32"
    else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
)

HANGUP: Final = None if sys.platform == "win32" else signal.SIGHUP

PutRight: TypeAlias = Callable[[], Callable[[], None]]
"""Puts a terminal right, and returns what makes it again as it was. Neither waits or raises."""


class Signals:
    """SIGINT, SIGTERM and SIGHUP for a program that does its work in `run`.

    The handler raises nothing, so that nothing is torn apart half-way: it cancels, and Trio takes everything down as
    after any cancellation. Where there is nothing to cancel, before and after the work, and with the second signal, it
    ends the process without more ado; whatever was written has left already. SIGQUIT always does, as it is used to.
    A server takes its signals otherwise: see `serving`.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        """The number of the first signal that came while the work ran."""
        self._cancel: Callable[[], None] | None = None
        self._interrupt: Callable[[], None] | None = None
        self._wind_up: Callable[[], None] | None = None
        self._reload: Callable[[], None] | None = None
        self._put_right: PutRight | None = None
        self._went_on: threading.Event | None = None

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
        if sys.platform != "win32" and number == signal.SIGQUIT:
            self._end(number)
        elif number == HANGUP and self._reload is not None:
            self._reload()
        elif self._wind_up is not None:
            wind_up, self._wind_up, self._cancel = self._wind_up, None, None  # the next one ends the process
            wind_up()
        elif number == signal.SIGINT and interrupt is not None and self.received is None:
            interrupt()
        elif self._cancel is not None and self.received == number == HANGUP:
            pass  # a terminal that is closed says so several times
        elif self._cancel is None or self.received is not None:
            self._end(number)
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

    @contextmanager
    def serving(self, *, stop: Callable[[], None], reload: Callable[[], None]) -> Iterator[None]:
        """For the length of a block have the first SIGINT or SIGTERM call `stop` instead of cancelling the work, and
        SIGHUP call `reload`, both soon afterwards, under Trio; the next SIGINT or SIGTERM ends the process at once.

        Neither function is to wait or to raise. Several SIGHUP that come at once may call `reload` only once.
        """
        token = trio.lowlevel.current_trio_token()
        self._wind_up = partial(token.run_sync_soon, stop)
        self._reload = partial(token.run_sync_soon, reload, idempotent=True)
        try:
            yield
        finally:
            self._wind_up = self._reload = None

    @contextmanager
    def at_terminal(self, put_right: PutRight) -> Iterator[None]:
        """For the length of a block have `put_right` called before a signal ends the process at once, or stops it; one
        that was stopped makes the terminal as it was when it goes on.
        """
        self._put_right = put_right
        before = _handle_stops(self._stop)
        try:
            yield
        finally:
            self._put_right = None
            if before is not None:
                _handle_stops(before)

    def stop(self) -> None:
        """Stop the process, as Ctrl-Z does, and return when it goes on. For any thread but the main one, whose handler
        does it, and inside `at_terminal`; where stops are ignored, nothing happens.
        """
        if sys.platform == "win32" or signal.getsignal(signal.SIGTSTP) != self._stop:
            return
        self._went_on = went_on = threading.Event()
        os.kill(os.getpid(), signal.SIGTSTP)
        went_on.wait()

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

    def _end(self, number: int) -> None:
        if self._put_right is not None:
            self._put_right()
        if sys.platform != "win32" and number == signal.SIGQUIT:
            _by_default(number)  # it leaves a core where those are wanted
        os._exit(128 + number)

    def _stop(self, number: int, _frame: FrameType | None = None) -> None:
        went_on, self._went_on = self._went_on, None
        try:
            make_as_it_was = _nothing if self._put_right is None else self._put_right()
            _by_default(number)
            signal.signal(number, self._stop)
            make_as_it_was()
        finally:
            if went_on is not None:
                went_on.set()


_Handler: TypeAlias = Callable[[int, FrameType | None], None] | int | None


def _handle_stops(handler: _Handler) -> _Handler:
    """Handle SIGTSTP, where there is one that is not ignored; return what handled it before, None: nothing is done."""
    if sys.platform == "win32" or signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN:
        return None
    return signal.signal(signal.SIGTSTP, handler)


def _by_default(number: int) -> None:
    """Have the system do what it does with a signal that nobody handles."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _nothing() -> None:
    pass
