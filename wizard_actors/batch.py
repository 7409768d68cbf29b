"""Many items through one piece of work: so many at once, pulled as there is room, one outcome each.

No actor and no queue: an item is pulled only when a place is free, so a million of them never stand in memory, and
whoever is slow to take an outcome holds the pulling up.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sized
from typing import Generic, TypeVar

import trio

from wizard_actors.errors import ConfigError, ConfigProblem, InvalidPromptError, WizardError

__all__ = ["gather", "run_batch"]

T = TypeVar("T")
R = TypeVar("R")


async def run_batch(
    work: Callable[[T], Awaitable[R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    max_concurrency: int,
    done: Callable[[int, T, R | WizardError], Awaitable[None]],
) -> int:
    """Do `work` for each of `items`, at most `max_concurrency` at once, and return how many there were.

    `done(index, item, outcome)` is awaited once for every item, in the order in which they end; `index` counts from 0
    in the order of `items`. The outcome is what `work` returned, or the `WizardError` that it raised. An item keeps its
    place until `done` has returned, and the next one is pulled only then: at most `max_concurrency` are in memory.
    `done` runs for several items at once where it waits.

    A plain iterable is read in the caller's thread, and should not block. Iterators are not closed: that is for whoever
    opened them.

    Raises `ConfigError` for a `max_concurrency` below 1, `InvalidPromptError` where `items` is a single text. Any other
    error of `work`, and every error of `items` and `done`, cancels what is under way and is raised; several at the same
    moment come as an `ExceptionGroup`. Cancelling stops everything, and nothing is left running.
    """
    _check(items, max_concurrency)
    places = trio.Semaphore(max_concurrency)

    async def one(index: int, item: T) -> None:
        outcome: R | WizardError
        try:
            outcome = await work(item)
        except WizardError as error:
            outcome = error
        await done(index, item, outcome)
        places.release()

    count, failures = 0, None
    try:
        async with trio.open_nursery() as nursery:
            await places.acquire()
            async for item in _Pulled(items):
                nursery.start_soon(one, count, item)
                count += 1
                await places.acquire()
    except ExceptionGroup as group:
        failures = group
    if failures is not None:  # raised out here, where nothing is under way that would become its context
        raise failures.exceptions[0] if len(failures.exceptions) == 1 else failures
    return count


async def gather(
    work: Callable[[T], Awaitable[R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    max_concurrency: int,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> list[R | WizardError]:
    """Do `work` for each of `items`, at most `max_concurrency` at once, and return the outcomes in the items' order.

    An outcome is what `work` returned, or the `WizardError` that it raised. `on_progress(done, total)` is called after
    each; `total` is None where `items` does not know its length.

    Raises, and is cancelled, as `run_batch`; an error of `on_progress` is raised too.
    """
    total = len(items) if isinstance(items, Sized) else None
    outcomes: dict[int, R | WizardError] = {}

    async def done(index: int, _item: T, outcome: R | WizardError) -> None:  # noqa: ASYNC124 - for run_batch to await
        outcomes[index] = outcome
        if on_progress is not None:
            on_progress(len(outcomes), total)

    count = await run_batch(work, items, max_concurrency=max_concurrency, done=done)
    return [outcomes[index] for index in range(count)]


def _check(items: object, max_concurrency: object) -> None:
    if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or max_concurrency < 1:
        raise ConfigError(
            [ConfigProblem("max_concurrency", f"must be a whole number of at least 1, not {max_concurrency!r}")]
        )
    if isinstance(items, str | bytes):
        raise InvalidPromptError("a batch takes several prompts: put a single text into a list")


class _Pulled(Generic[T]):
    """An asynchronous iterator over either kind of iterable. No generator: nothing has to close it."""

    def __init__(self, items: Iterable[T] | AsyncIterable[T]) -> None:
        self._items = aiter(items) if isinstance(items, AsyncIterable) else iter(items)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if isinstance(self._items, AsyncIterator):
            return await anext(self._items)
        for item in self._items:
            return item
        raise StopAsyncIteration
