"""Errands: what a call in Trio's thread lets its caller do meanwhile, in the caller's own thread and context.

An iterable of prompts may block, wait on the caller's event loop, or touch what belongs to the caller's thread; so may
a callback. They are run there, and the call waits for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Generic, ParamSpec, Protocol, TypeVar

from wizard_actors.bells import Bell, TrioBell

__all__ = ["AT_HOME", "Errand", "Errands", "Home", "NextItem"]

T = TypeVar("T")
P = ParamSpec("P")


class Home(Protocol):
    """The caller's side of a call: where its iterables are read and its callbacks called."""

    def items(self, items: Iterable[T] | AsyncIterable[T]) -> Iterable[T] | AsyncIterable[T]:
        """Return `items`, to be read from Trio's thread. They are not closed."""

    def told(self, callback: Callable[P, None]) -> Callable[P, Awaitable[None]]:
        """Return `callback`, to be called from Trio's thread; what it raises is raised there."""


class _AtHome:
    """A caller in Trio's own thread."""

    def items(self, items: Iterable[T] | AsyncIterable[T]) -> Iterable[T] | AsyncIterable[T]:
        return items

    def told(self, callback: Callable[P, None]) -> Callable[P, Awaitable[None]]:
        async def call(*args: P.args, **kwargs: P.kwargs) -> None:  # noqa: ASYNC124 - as others call it
            callback(*args, **kwargs)

        return call


AT_HOME: Home = _AtHome()


class Errand:
    """One thing to do at home; `awaited`: `job` returns an awaitable. `abandoned`: nobody waits for it any more;
    `cancel` is set by whoever can end it.
    """

    def __init__(self, job: Callable[[], object], *, awaited: bool) -> None:
        self.job = job
        self.awaited = awaited
        self.abandoned = False
        self.cancel: Callable[[], object] | None = None
        self._ended = TrioBell()
        self._over = False
        self._value: object = None
        self._error: BaseException | None = None

    async def outcome(self) -> object:
        """Wait for its end, in Trio's thread, and return what came of it, or raise it. Cancelled, abandon it."""
        try:
            while not self._over:
                await self._ended.heard()
        finally:
            if not self._over:
                self.abandoned = True
                if self.cancel is not None:
                    self.cancel()
        error, self._error = self._error, None  # its traceback holds this frame
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self._value

    def ended(self, value: object, error: BaseException | None) -> None:
        """Tell Trio's thread what came of it."""
        self._value, self._error = value, error
        self._over = True
        self._ended.ring()


class Errands:
    """The errands of one call, for the caller whom `bell` wakes; a `Home` in another thread.

    `awaits`: the caller can read asynchronous iterables.
    """

    awaits = False

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._waiting: deque[Errand] = deque()

    def next(self) -> Errand | None:
        """Return the next errand, in the caller's thread; None where there is none now."""
        while self._waiting:
            errand = self._waiting.popleft()
            if not errand.abandoned:
                return errand
        return None

    def items(self, items: Iterable[T] | AsyncIterable[T]) -> AsyncIterable[T]:
        """Return `items`, read one by one at home."""
        return _Items(self, NextItem(items, awaits=self.awaits))

    def told(self, callback: Callable[P, None]) -> Callable[P, Awaitable[None]]:
        """Return `callback`, called at home."""

        async def call(*args: P.args, **kwargs: P.kwargs) -> None:
            await self.call(partial(callback, *args, **kwargs))

        return call

    async def run(self, job: Callable[[], object], *, awaited: bool = False) -> object:
        """Have `job` done at home, one after the other, and return what it returns, or, `awaited`, what that is."""
        errand = Errand(job, awaited=awaited)
        self._waiting.append(errand)
        return await self._told(errand, heard=self._bell.ring())

    async def call(self, job: Callable[[], object]) -> object:
        """Have a `job` that waits for nothing done at home: beside the others, where the caller can."""
        return await self.run(job)

    async def _told(self, errand: Errand, *, heard: bool) -> object:
        if not heard:
            raise RuntimeError("the event loop of whoever asked is closed")
        return await errand.outcome()


class _End:
    """What stands for the end of an iterable: StopIteration cannot be raised through a coroutine."""


class NextItem(Generic[T]):
    """Takes the next item of an iterable: one to be `awaited` where that is asynchronous, and the caller `awaits`."""

    def __init__(self, items: Iterable[T] | AsyncIterable[T], *, awaits: bool) -> None:
        self._items = items
        self.awaited = isinstance(items, AsyncIterable) and (awaits or not isinstance(items, Iterable))
        self._plain: Iterator[T] | None = None
        self._async: AsyncIterator[T] | None = None

    def __call__(self) -> T | type[_End] | Awaitable[T | type[_End]]:
        """Return the next item, or an awaitable of it, or what stands for the end."""
        if isinstance(self._items, AsyncIterable) and self.awaited:
            self._async = self._async or aiter(self._items)
            return self._wait(self._async)
        if isinstance(self._items, Iterable) and self._plain is None:
            self._plain = iter(self._items)
        return _End if self._plain is None else next(self._plain, _End)

    async def _wait(self, iterator: AsyncIterator[T]) -> T | type[_End]:
        return await anext(iterator, _End)


class _Items(Generic[T]):
    def __init__(self, errands: Errands, next_item: NextItem[T]) -> None:
        self._errands = errands
        self._next = next_item

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        item = await self._errands.run(self._next, awaited=self._next.awaited)
        if item is _End:
            raise StopAsyncIteration
        return item  # type: ignore[return-value]  # what `NextItem[T]` takes is a T, on its way through `object`
