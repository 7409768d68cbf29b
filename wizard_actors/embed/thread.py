"""A thread that runs Trio, and in it one resource, such as a client, until it is told to stop.

opening ──> open ──stop()──> stopping ──> over          each change rings the bells of those who watch
   └──cannot be opened────────────────────┘
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from itertools import count
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

import trio

from wizard_actors.bells import Bell
from wizard_actors.embed.call import Call
from wizard_actors.embed.place import Place
from wizard_actors.errors import ActorStoppedError, SupervisorError, UnsupportedError, WizardError

__all__ = ["TrioThread"]

R = TypeVar("R")
T = TypeVar("T")

FAREWELL: Final = 0.8
"""Seconds for which a program that ends waits for the threads that nobody has stopped."""

FORGOTTEN: Final = "the client that was opened here was never closed: use it in a `with` block, or close it"

numbers = count(1)
running: dict[TrioThread[object], None] = {}
"""Every thread that runs, of this process, in the order of their beginning."""


class TrioThread(Generic[R]):
    """Runs `opening` under Trio in a thread of its own, and calls beside it; `where` is the line that asked for it.

    It is a daemon thread, so that a program which forgets to stop it can end; a warning names the line then.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[R]], where: Place) -> None:
        self.where = where
        self.is_open = False
        self.over = False
        self._opening = opening
        self._opened: list[R] = []
        self._failure: BaseException | None = None
        self._bells: list[Bell] = []
        self._pending: set[Call[object]] = set()
        self._started = self._stopping = False
        self._process = os.getpid()
        self._token: trio.lowlevel.TrioToken | None = None
        self._block = trio.CancelScope()
        self._stop = trio.Event()
        self._calls: trio.Nursery
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._main,), name=f"wizard_actors-{next(numbers)}", daemon=True
        )

    # -- for its users, in any thread

    def start(self, bell: Bell) -> None:
        """Begin; `bell` rings when it is open, or over."""
        self._bells.append(bell)
        self._thread.start()
        self._started = True  # interrupted before this, nobody waits for the thread; should it run, it sees `_stopping`

    def opened(self) -> R:
        """Return what was opened, or raise why it could not be."""
        self._bells.clear()
        if self.is_open:
            return self._opened[0]
        raise self._why() or ActorStoppedError("it was stopped before it was open", actor="wizard")

    def begin(self, call: Call[T]) -> None:
        """Let `call` begin. Where it cannot, it is over at once, with the error that says why."""
        if self._process != os.getpid():
            call.finish(forked(self.where))
            return
        self._pending.add(call)  # type: ignore[arg-type]  # whatever it returns: it is only ended
        if self.over or not self._soon(lambda: self._begin(call)):
            self._ended(call)

    def cancel(self, call: Call[T]) -> None:
        """Cancel `call`, which is over once it has given everything back, or at once where it has not begun."""
        if self._process != os.getpid():
            call.finish(forked(self.where))
        if not self._soon(lambda: self._cancel(call)):
            self._ended(call)

    def look(self, function: Callable[[], T]) -> T:
        """Return what `function`, which waits for nothing, returns in Trio's thread; here, where that is over."""
        self.refuse_fork()
        seen: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()

        def see() -> None:
            try:
                seen.put((function(), None))
            except Exception as error:  # noqa: BLE001 - the asker's to see, whatever it is
                seen.put((None, error))

        if self.over or self.here() or not self._soon(see):
            return function()
        while True:
            try:
                value, error = seen.get(timeout=1.0)
            except Empty:
                if not self._thread.is_alive():
                    return function()
            else:
                if error is not None:
                    raise error
                return value  # type: ignore[return-value]  # no error: it is what `function` returned

    def refuse_fork(self) -> None:
        """Raise where this is another process than the one that has the thread."""
        if self._process != os.getpid():
            raise forked(self.where)

    def here(self) -> bool:
        """Say whether this is the thread itself."""
        return threading.current_thread() is self._thread

    def stop(self, bell: Bell | None = None) -> None:
        """Stop in order: what was opened is closed, then what still runs is cancelled. `bell` rings when it is over."""
        if bell is not None:
            self._bells.append(bell)
        self._stopping = True
        self._soon(self._stop_soon)
        if self._process != os.getpid() or not self._started:
            self.over = True  # there is no thread to wait for: not in a process that was forked off

    def abandon(self) -> bool:
        """Stop without waiting for anything that runs; return whether nobody had asked it to stop."""
        if self._process != os.getpid() or self.over or not self._started:
            return False
        forgotten = not self._stopping
        self.stop()
        self._soon(self._cut_off)
        return forgotten

    def forgotten(self) -> None:
        """Stop because nobody is left who could, and say so."""
        if self.abandon():
            self.where.warn(FORGOTTEN)

    def ended(self) -> None:
        """Wait for the thread's last steps, once it is over, and raise why it ended by itself, where it did."""
        if self._process == os.getpid():
            self._thread.join()
        if (why := self._why()) is not None:
            raise why

    def mute(self) -> None:
        """Wake nobody any more, for the program ends: a thread that failed now would only print a traceback."""
        for call in tuple(self._pending):
            call.mute()

    def join(self, seconds: float) -> None:
        """Wait for its end for so many seconds at most."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    # -- in the thread

    def _main(self) -> None:
        running[self] = None  # type: ignore[index]  # whatever is in it: it is only stopped
        try:
            trio.run(self._run)
        except BaseException as error:  # noqa: ASYNC103, BLE001 - Trio has ended: whoever waits is told
            self._failed(error)
        finally:
            self.over = True
            running.pop(self, None)  # type: ignore[arg-type]  # see above
            for call in tuple(self._pending):
                self._ended(call)
            self._ring()

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._calls:
            try:
                with self._block:
                    if self._stopping:
                        self._block.cancel()
                    async with self._opening() as opened:
                        self._opened.append(opened)
                        self.is_open = True
                        self._ring()
                        await self._stop.wait()
            except Exception as error:  # noqa: BLE001 - whoever waits is told
                self._failed(error)
            self._calls.cancel_scope.cancel()

    def _begin(self, call: Call[T]) -> None:
        if self._calls.cancel_scope.cancel_called:
            self._ended(call)
        elif not call.over:
            call.begun = True
            call.context.run(self._calls.start_soon, self._serve, call)

    def _cancel(self, call: Call[T]) -> None:
        call.cancel()
        if not call.begun:
            self._ended(call)

    async def _serve(self, call: Call[T]) -> None:
        try:
            await call.serve(self._stopped)
        finally:
            self._pending.discard(call)

    def _ended(self, call: Call[T]) -> None:
        call.finish(self._stopped())
        self._pending.discard(call)

    def _stop_soon(self) -> None:
        self._stop.set()
        if not self.is_open:
            self._block.cancel()

    def _cut_off(self) -> None:
        self._calls.cancel_scope.cancel()

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, WizardError) and self.is_open:
            said = SupervisorError(f"the thread of the client ended: {error!r}", actor="wizard")
            said.__cause__ = error
            error = said
        self._failure = error

    def _why(self) -> BaseException | None:
        """Return why the thread ended by itself, None where it did not: for each caller an error of its own."""
        failure = self._failure
        if not isinstance(failure, WizardError):
            return failure
        error = failure.copy()
        error.__cause__ = failure.__cause__
        return error

    def _stopped(self) -> Exception:
        """Return the error of a call that comes too late, or is cut off."""
        if self._process != os.getpid():
            return forked(self.where)
        why = self._why()
        if isinstance(why, SupervisorError):
            return why
        return ActorStoppedError("the client is closed: it takes no more requests", actor="wizard")

    # -- both

    def _soon(self, callback: Callable[[], object]) -> bool:
        """Have `callback`, which must not raise, called in Trio's thread; False where that has ended."""
        if self._token is None or self.over or self._process != os.getpid():
            return False  # in a process that was forked off a lock of Trio's may be held for ever
        try:
            self._token.run_sync_soon(callback)
        except (trio.RunFinishedError, OSError):  # OSError: Trio itself broke down, and its socket is closed
            return False
        return True

    def _ring(self) -> None:
        for bell in tuple(self._bells):
            bell.ring()


def forked(where: Place) -> UnsupportedError:
    """Return the error of a process that uses what its parent has opened."""
    return UnsupportedError(
        f"the client was opened at {where} before this process was forked off, and works in its parent only: open one "
        "in each process",
        feature="fork",
    )


@atexit.register
def stop_forgotten() -> None:
    """Stop the threads that nobody has stopped, before the interpreter ends, and say which those were."""
    until = time.monotonic() + FAREWELL
    threads = tuple(running)
    for thread in threads:
        thread.mute()
    forgotten = [thread for thread in threads if thread.abandon()]
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    for thread in forgotten:
        thread.where.warn(FORGOTTEN)
