"""Many items through one piece of work: so many at once, pulled as there is room, one outcome each.

No actor and no queue: an item is pulled only when a place is free, so a million of them never stand in memory, and
whoever is slow to take an outcome holds the pulling up. What is refused for now waits in its place: see `Patient`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from random import Random
from typing import Generic, Protocol, TypeVar

import trio

from wizard_actors.errors import ConfigError, ConfigProblem, DeadlineExceededError, InvalidPromptError, WizardError
from wizard_actors.patience import Gate, failure_behind, wait_after
from wizard_actors.types import WizardResponse

__all__ = ["Patient", "check_batch", "gather", "run_batch"]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
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
    check_batch(items, max_concurrency)
    places = trio.Semaphore(max_concurrency)

    async def one(index: int, item: T) -> None:
        outcome: R | WizardError
        try:
            outcome = await work(item)
        except WizardError as error:
            outcome = error
        await done(index, item, outcome)
        places.release()

    count = 0
    failures: BaseExceptionGroup | None = None
    try:
        async with trio.open_nursery() as nursery:
            await places.acquire()
            async for item in _Pulled(items):
                nursery.start_soon(one, count, item)
                count += 1
                await places.acquire()
    except BaseExceptionGroup as group:
        failures = group
    if failures is not None:  # raised out here, where nothing is under way that would become its context
        raise failures.exceptions[0] if len(failures.exceptions) == 1 else failures
    return count


async def gather(
    work: Callable[[T], Awaitable[R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    max_concurrency: int,
    on_progress: Callable[[int], Awaitable[None]] | None = None,
) -> list[R | WizardError]:
    """Do `work` for each of `items`, at most `max_concurrency` at once, and return the outcomes in the items' order.

    An outcome is what `work` returned, or the `WizardError` that it raised. `on_progress(done)` is awaited after each.

    Raises, and is cancelled, as `run_batch`, and raises an error of `on_progress` too: the outcomes are lost then.
    """
    outcomes: dict[int, R | WizardError] = {}

    async def done(index: int, _item: T, outcome: R | WizardError) -> None:
        outcomes[index] = outcome
        if on_progress is not None:
            await on_progress(len(outcomes))

    count = await run_batch(work, items, max_concurrency=max_concurrency, done=done)
    return [outcomes[index] for index in range(count)]


class Asks(Protocol[T_contra]):
    """Asks a client, within `deadline` seconds where they are given."""

    def __call__(self, item: T_contra, /, *, deadline: float | None) -> Awaitable[WizardResponse]:
        """Return the answer; raises `WizardError`."""


class Patient(Generic[T]):
    """The work of a batch of questions: `ask`, and ask again once a refusal is over, as `wait_after` decides.

    Everybody who is refused, or comes meanwhile, waits at one gate, in the order of coming. With `deadline`, in
    seconds, an item is over so long after it was first asked, waits included: where a wait would be longer, its refusal
    is its outcome. The time at the gate before that first time is not the item's. `waits(error, seconds)` is told of a
    wait that a refusal names. A static or stale answer that stands in for a refusal is waited out like it.

    Raises what `ask` raises. Cancelling ends a wait at once.
    """

    def __init__(
        self,
        ask: Asks[T],
        *,
        rng: Random,
        deadline: float | None = None,
        waits: Callable[[WizardError, float], None] | None = None,
    ) -> None:
        self._ask = ask
        self._deadline = deadline
        self._waits = waits
        self._gate = Gate(rng)
        self._turn = trio.Lock()
        self._sleep = trio.CancelScope()

    async def __call__(self, item: T) -> WizardResponse:
        """Return the answer to one item."""
        ticket = await self._pass()
        until = math.inf if self._deadline is None else trio.current_time() + self._deadline
        left, sent = self._deadline, 0
        while True:
            outcome = await self._outcome(item, left)
            now, failure = trio.current_time(), failure_behind(outcome)
            refusal = None if failure is None else wait_after(failure, now, sent=sent)
            if failure is None or refusal is None:
                self._gate.ended(ticket, now)
                self._wake()
                return _returned(outcome)
            self._gate.refused(refusal, now)
            self._wake()
            if self._gate.opens_at >= until:
                return _returned(outcome)
            if self._waits is not None and refusal.named:
                self._waits(failure, refusal.seconds)
            sent += refusal.sent
            with trio.move_on_at(until) as scope:
                ticket = await self._pass()
            left = None if self._deadline is None else until - trio.current_time()
            if scope.cancelled_caught or (left is not None and left <= 0.0):
                return _returned(outcome)

    async def _outcome(self, item: T, left: float | None) -> WizardResponse | WizardError:
        try:
            return await self._ask(item, deadline=left)
        except DeadlineExceededError as error:
            if left == self._deadline:
                return error
            said = f"the deadline of {self._deadline:g} s passed, waits included"
            late = DeadlineExceededError(said, deadline=self._deadline, attempts=error.attempts)
            late.__cause__ = error.__cause__
            return late
        except WizardError as error:
            return error

    async def _pass(self) -> int:
        """Wait until the gate lets this one through."""
        if self._turn.locked() or self._gate.opens_at > trio.current_time():
            async with self._turn:
                while self._gate.opens_at > trio.current_time():
                    with trio.CancelScope(deadline=self._gate.opens_at) as self._sleep:
                        await trio.sleep_forever()
                return self._gate.passed(trio.current_time())
        return self._gate.passed(trio.current_time())

    def _wake(self) -> None:
        """Let whoever is first at the gate know that its instant has changed."""
        self._sleep.deadline = self._gate.opens_at


def _returned(outcome: WizardResponse | WizardError) -> WizardResponse:
    if isinstance(outcome, WizardError):
        raise outcome
    return outcome


def check_batch(items: object, max_concurrency: object) -> None:
    """Raise what makes no batch: `ConfigError` and `InvalidPromptError`, as `run_batch`."""
    if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or max_concurrency < 1:
        raise ConfigError(
            [ConfigProblem("max_concurrency", f"must be a whole number of at least 1, not {max_concurrency!r}")]
        )
    if isinstance(items, str | bytes):
        raise InvalidPromptError("a batch takes several prompts: put a single text into a list")
    if not isinstance(items, Iterable | AsyncIterable):
        raise InvalidPromptError(f"a batch takes several prompts, in a list for example, not {type(items).__name__}")


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
