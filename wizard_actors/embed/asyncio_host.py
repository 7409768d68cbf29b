"""How tasks under asyncio reach what runs in Trio's thread.

Whoever is cancelled tells Trio's thread so, and waits until what it asked for has ended and given everything back,
however often it is cancelled meanwhile; then it raises the first `CancelledError`. asyncio counts the cancels of a
task, so that none is lost by that.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from functools import partial
from typing import Generic, Self, TypeVar

from wizard_actors.asyncio_bell import AsyncioBell
from wizard_actors.embed.call import Call
from wizard_actors.embed.errands import Errand, Errands, Home
from wizard_actors.embed.pipe import Pipe
from wizard_actors.embed.place import Place
from wizard_actors.embed.thread import TrioThread
from wizard_actors.errors import UnsupportedError
from wizard_actors.response_stream import Source, Taken
from wizard_actors.types import StreamEvent

__all__ = ["AsyncioHost"]

R = TypeVar("R")
T = TypeVar("T")


class AsyncioHost(Generic[R]):
    """A thread that runs Trio, for tasks under asyncio; any number of loops may use it at once.

    Where nobody holds it any more, and it was not closed, it is stopped, with a warning that names `where`.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[R]], where: Place) -> None:
        self._thread = TrioThread(opening, where)
        self._finalizer = weakref.finalize(self, self._thread.forgotten)
        self._finalizer.atexit = False  # the threads see to that themselves

    async def open(self) -> R:
        """Start the thread and return what it has opened, or raise why it could not. Cancelled, leave nothing."""
        thread, bell = self._thread, AsyncioBell()
        thread.start(bell)
        try:
            while not (thread.is_open or thread.over):  # noqa: ASYNC913 - it waits until then
                await bell.heard()
            return thread.opened()
        except BaseException as error:
            await self._stopped(bell, error)  # noqa: ASYNC102 - it outlasts any cancel
            raise

    async def close(self) -> None:
        """Stop the thread in order, and raise why it ended by itself, where it did."""
        thread, bell = self._thread, AsyncioBell()
        thread.stop(bell)
        try:
            while not thread.over:  # noqa: ASYNC913 - it waits until then
                await bell.heard()
        except BaseException as error:
            await self._stopped(bell, error)  # noqa: ASYNC102 - it outlasts any cancel
            raise
        self._finalizer.detach()
        thread.ended()

    async def _stopped(self, bell: AsyncioBell, why: BaseException) -> None:
        self._thread.stop()
        if not isinstance(why, GeneratorExit):  # a coroutine that is thrown away cannot wait
            await bell.outlast(lambda: self._thread.over)
            self._thread.join(1.0)  # its last steps
        self._finalizer.detach()

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` awaits to, in Trio's thread."""
        bell = self._bell()
        call = Call(work, bell)
        try:
            self._thread.begin(call)
            while not call.over:  # noqa: ASYNC913 - it waits until then
                await bell.heard()
        except BaseException as error:
            await self.cancel(call, bell, error)  # noqa: ASYNC102 - it outlasts any cancel
            raise
        return call.result()

    async def run_for(self, work: Callable[[Home], Awaitable[T]]) -> T:
        """Return what `work` awaits to, in Trio's thread; meanwhile do what it has to be done here."""
        bell = self._bell()
        errands = _Errands(bell)
        call = Call(partial(work, errands), bell)
        try:
            self._thread.begin(call)
            while not call.over:  # noqa: ASYNC913 - it waits until then
                errand = errands.next()
                await (bell.heard() if errand is None else _do(errand, bell))
        except BaseException as error:
            await self.cancel(call, bell, error)  # noqa: ASYNC102 - it outlasts any cancel
            raise
        return call.result()

    def look(self, function: Callable[[], T]) -> T:
        """Return what `function` returns, in Trio's thread; the loop waits for it, for a moment."""
        return self._thread.look(function)

    def source(self, begin: Callable[[Taken], Source], *, patience: float) -> Source:
        """Return the events of the stream that `begin` begins in Trio's thread."""
        return _Source(self, begin, patience)

    # -- for the streams

    def begin(self, work: Callable[[], Awaitable[T]], bell: AsyncioBell) -> Call[T]:
        """Begin a call that `bell` tells of."""
        call = Call(work, bell)
        self._thread.begin(call)
        return call

    async def cancel(self, call: Call[T], bell: AsyncioBell, why: BaseException) -> None:
        """Cancel a call because of `why`, and wait for its end whatever happens."""
        self._thread.cancel(call)
        if not isinstance(why, GeneratorExit):  # a coroutine that is thrown away cannot wait
            await bell.outlast(lambda: call.over)

    async def end(self, call: Call[T], bell: AsyncioBell) -> None:
        """Cancel a call that nobody wants any more, and wait for its end. Cancelled, wait for it all the same."""
        self._thread.cancel(call)
        try:
            while not call.over:  # noqa: ASYNC913 - it waits until then
                await bell.heard()
        except BaseException as error:
            await self.cancel(call, bell, error)  # noqa: ASYNC102 - it outlasts any cancel
            raise

    def refuse_fork(self) -> None:
        """Raise where this is another process than the one that has the thread."""
        self._thread.refuse_fork()

    def _bell(self) -> AsyncioBell:
        self._thread.refuse_fork()
        try:
            return AsyncioBell()
        except RuntimeError:
            raise UnsupportedError(
                f"the client opened at {self._thread.where} under asyncio can only be called from asyncio; under Trio "
                "open another one there, in a plain thread use a BlockingClient",
                feature="event loop",
            ) from None


class _Source:
    """A stream's events, read in a task under asyncio. `host` is held, so that the client lives as long as it."""

    def __init__(self, host: AsyncioHost[R], begin: Callable[[Taken], Source], patience: float) -> None:
        self._host = host
        self._source = begin
        self._patience = patience
        self._pipe: Pipe
        self._bell: AsyncioBell
        self._call: Call[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        call = self._call or self._begun()
        self._host.refuse_fork()
        while True:
            over = call.over  # looked at before the pipe: what is over writes nothing any more
            event = self._pipe.take()
            if event is not None:
                return event
            if over:
                call.result()
                raise StopAsyncIteration
            try:
                await self._bell.heard()
            except BaseException as error:
                await self._host.cancel(call, self._bell, error)  # noqa: ASYNC102 - it outlasts any cancel
                raise

    async def aclose(self) -> None:
        """Cancel what is left of the stream, and wait for its end."""
        if self._call is not None and not self._call.over:
            await self._host.end(self._call, self._bell)

    def _begun(self) -> Call[None]:
        self._bell = self._host._bell()  # noqa: SLF001 - one thing in two classes
        pipe, begin = Pipe(self._bell, patience=self._patience), self._source
        self._pipe, self._call = pipe, self._host.begin(lambda: pipe.pump(begin(pipe.taken)), self._bell)
        return self._call


class _Errands(Errands):
    """Errands of a call from asyncio. What waits for nothing is done beside what the caller's task waits for, in a copy
    of its context.
    """

    awaits = True

    def __init__(self, bell: AsyncioBell) -> None:
        super().__init__(bell)
        self._loop_bell = bell
        self._context = copy_context()

    async def call(self, job: Callable[[], object]) -> object:
        """Have `job` done in the loop's thread."""
        errand = Errand(job, awaited=False)
        return await self._told(errand, heard=self._loop_bell.call(partial(_do_at_once, errand), self._context))


def _do_at_once(errand: Errand) -> None:
    if errand.abandoned:
        return
    try:
        value = errand.job()
    except (KeyboardInterrupt, SystemExit) as error:  # meant for the whole program
        errand.ended(None, error)
        raise
    except BaseException as error:  # noqa: ASYNC103, BLE001 - raised where the call waits for it
        errand.ended(None, error)
    else:
        errand.ended(value, None)


class _Cut:
    """Ends an errand that nobody wants any more: cancels the caller's task, and takes that back."""

    def __init__(self, errand: Errand, bell: AsyncioBell) -> None:
        self._task = asyncio.current_task()
        self._before = 0 if self._task is None else self._task.cancelling()
        self._made = self._over = False
        errand.cancel = partial(bell.call, self._cut)

    def taken_back(self) -> bool:
        """Say whether the task was cancelled for this alone."""
        self._over = True
        return self._made and self._task is not None and self._task.uncancel() <= self._before

    def _cut(self) -> None:
        if not self._over and self._task is not None:
            self._made = self._task.cancel()


async def _do(errand: Errand, bell: AsyncioBell) -> None:
    """Do an errand in the caller's own task, until the call wants it no more.

    Without a scope round it: what an iterable opens between two items may stay open.
    """
    cut = _Cut(errand, bell)
    if errand.abandoned:  # since before it could be cancelled
        return
    try:
        value = errand.job()
        if errand.awaited and isinstance(value, Awaitable):
            value = await value
    except asyncio.CancelledError:  # noqa: ASYNC103 - its own is taken back
        if not cut.taken_back():
            raise
    except Exception as error:  # noqa: BLE001 - raised where the call waits for it
        cut.taken_back()
        errand.ended(None, error)
    else:
        cut.taken_back()
        errand.ended(value, None)
