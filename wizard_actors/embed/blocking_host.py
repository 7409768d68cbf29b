"""How plain threads reach what runs in Trio's thread.

A Ctrl-C in the main thread cancels what the thread waits for, and is raised once that has ended; a second one is raised
at once, and the rest is done without anybody waiting.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Generic, TypeVar

from wizard_actors.bells import ThreadBell
from wizard_actors.embed.call import Call
from wizard_actors.embed.errands import Errand, Errands, Home
from wizard_actors.embed.pipe import Pipe
from wizard_actors.embed.place import Place
from wizard_actors.embed.thread import TrioThread
from wizard_actors.errors import UnsupportedError
from wizard_actors.response_stream import Source, Taken
from wizard_actors.types import StreamEvent

__all__ = ["BlockingHost", "BlockingSource"]

R = TypeVar("R")
T = TypeVar("T")


class BlockingHost(Generic[R]):
    """A thread that runs Trio, for any number of plain threads.

    Where nobody holds it any more, and it was not closed, it is stopped, with a warning that names `where`.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[R]], where: Place) -> None:
        self._thread = TrioThread(opening, where)
        self._finalizer = weakref.finalize(self, self._thread.forgotten)
        self._finalizer.atexit = False  # the threads see to that themselves

    def open(self) -> R:
        """Start the thread and return what it has opened, or raise why it could not. Interrupted, leave nothing."""
        thread, bell = self._thread, ThreadBell()
        try:
            thread.start(bell)
            while not (thread.is_open or thread.over):
                bell.heard()
            return thread.opened()
        except BaseException:
            self._stopped(bell)
            raise

    def close(self) -> None:
        """Stop the thread in order, and raise why it ended by itself, where it did. Closing twice is closing once."""
        self._refuse_own_thread()
        self._stopped(ThreadBell())
        self._thread.ended()

    def _stopped(self, bell: ThreadBell) -> None:
        self._thread.stop(bell)
        while not self._thread.over:
            bell.heard()
        self._thread.join(1.0)  # its last steps
        self._finalizer.detach()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` awaits to, in Trio's thread."""
        return self.run_for(lambda _home: work())

    def run_for(self, work: Callable[[Home], Awaitable[T]]) -> T:
        """Return what `work` awaits to, in Trio's thread; meanwhile do what it has to be done here."""
        self._refuse_own_thread()
        bell = ThreadBell()
        errands = Errands(bell)
        call = Call(partial(work, errands), bell)
        try:
            self._thread.begin(call)
            while not call.over:
                errand = errands.next()
                if errand is None:
                    bell.heard()
                else:
                    _do(errand)
        except BaseException:
            try:
                self.cancel(call, bell)
            finally:
                self._thread.cancel(call)  # also where a second Ctrl-C came before the first was passed on
            raise
        return call.result()

    def look(self, function: Callable[[], T]) -> T:
        """Return what `function` returns, in Trio's thread."""
        return self._thread.look(function)

    def source(self, begin: Callable[[Taken], Source], *, patience: float) -> BlockingSource:
        """Return the events of the stream that `begin` begins in Trio's thread."""
        return BlockingSource(self, begin, patience)

    # -- for the streams

    def begin(self, call: Call[T]) -> None:
        """Begin a call."""
        self._refuse_own_thread()
        self._thread.begin(call)

    def cancel(self, call: Call[T], bell: ThreadBell) -> None:
        """Cancel a call, and wait for its end; interrupted, no longer."""
        self._thread.cancel(call)
        if self._thread.here():
            return  # it would wait for itself
        while not call.over:
            bell.heard()
        bell.ring()  # another thread may wait for the same

    def refuse_fork(self) -> None:
        """Raise where this is another process than the one that has the thread."""
        self._thread.refuse_fork()

    def _refuse_own_thread(self) -> None:
        if self._thread.here():
            raise UnsupportedError(
                f"the client opened at {self._thread.where} is called from its own thread, by a listener or a provider "
                "for example, and would wait for itself",
                feature="event loop",
            )


class BlockingSource:
    """A stream's events, read in a plain thread. `host` is held, so that the client lives as long as it."""

    def __init__(self, host: BlockingHost[R], begin: Callable[[Taken], Source], patience: float) -> None:
        self._host = host
        self._source = begin
        self._bell = ThreadBell()
        self._pipe = Pipe(self._bell, patience=patience)
        self._call: Call[None] | None = None

    def __iter__(self) -> Iterator[StreamEvent]:
        return self

    def __next__(self) -> StreamEvent:
        call = self._call
        if call is None:
            pipe, begin = self._pipe, self._source
            call = self._call = Call(lambda: pipe.pump(begin(pipe.taken)), self._bell)
            self._host.begin(call)
        self._host.refuse_fork()
        while True:
            over = call.over  # looked at before the pipe: what is over writes nothing any more
            event = self._pipe.take()
            if event is not None:
                return event
            if over:
                self._bell.ring()  # another thread may wait for the same
                call.result()
                raise StopIteration
            try:
                self._bell.heard()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Cancel what is left of the stream, and wait for its end."""
        if self._call is not None:
            self._host.cancel(self._call, self._bell)


def _do(errand: Errand) -> None:
    """Do an errand in the caller's thread; a Ctrl-C is the caller's."""
    try:
        errand.ended(errand.job(), None)
    except Exception as error:  # noqa: BLE001 - raised where the call waits for it
        errand.ended(None, error)
