"""Batches under random delays, errors and cancels: one outcome each, in order, and never more at once than allowed."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import trio
from attrs import define, field, frozen
from hypothesis import event, given
from hypothesis import strategies as st
from trio.testing import MockClock

from wizard_actors.batch import gather, run_batch
from wizard_actors.errors import NetworkError, WizardError

DELAYS = st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.0, 2.0])


@frozen
class Item:
    """One item of a batch: it arrives, is worked on, perhaps fails, and its outcome is taken, each after some time."""

    number: int
    arrives: float
    takes: float
    fails: bool
    taken: float


@st.composite
def batches(draw: st.DrawFn) -> list[Item]:
    """Return some items."""
    drawn = draw(st.lists(st.tuples(DELAYS, DELAYS, st.booleans(), DELAYS), max_size=12))
    return [Item(number, *each) for number, each in enumerate(drawn)]


@define
class Run:
    """What a batch did."""

    pulled: list[int] = field(factory=list)
    running: int = 0
    held: int = 0
    most: int = 0
    taken: dict[int, int | WizardError] = field(factory=dict)

    async def items(self, batch: list[Item]) -> AsyncGenerator[Item, None]:
        """Yield the items as they arrive."""
        for item in batch:
            await trio.sleep(item.arrives)
            self.pulled.append(item.number)
            self.held += 1
            self.most = max(self.most, self.held)
            yield item

    async def work(self, item: Item) -> int:
        """Take the item's time, then fail or return its number."""
        self.running += 1
        try:
            await trio.sleep(item.takes)
        finally:
            self.running -= 1
        if item.fails:
            raise NetworkError("scripted", model=str(item.number))
        return item.number

    async def done(self, index: int, item: Item, outcome: int | WizardError) -> None:
        """Take an outcome: the first and only one of its item."""
        assert index == item.number
        assert index not in self.taken
        self.taken[index] = outcome
        await trio.sleep(item.taken)
        self.held -= 1


def right(item: Item, outcome: int | WizardError) -> bool:
    """Say whether an outcome is the item's."""
    if item.fails:
        return isinstance(outcome, NetworkError) and outcome.model == str(item.number)
    return outcome == item.number


@given(batch=batches(), at_once=st.integers(1, 5), order=st.random_module())
def test_every_item_has_its_outcome_in_order(batch: list[Item], at_once: int, order: object) -> None:
    """`gather` returns one outcome for each item, its own, in the order of the items."""
    run, told = Run(), []

    async def progress(done: int) -> None:
        told.append(done)

    async def scenario() -> list[int | WizardError]:
        return await gather(run.work, run.items(batch), max_concurrency=at_once, on_progress=progress)

    outcomes = trio.run(scenario, clock=MockClock(autojump_threshold=0))
    assert len(outcomes) == len(batch)
    assert all(right(item, outcome) for item, outcome in zip(batch, outcomes, strict=True))
    assert told == list(range(1, len(batch) + 1))


@given(batch=batches(), at_once=st.integers(1, 5), cancel_at=DELAYS | st.floats(0, 20), order=st.random_module())
def test_a_bound_holds_and_a_cancel_leaves_nothing(
    batch: list[Item], at_once: int, cancel_at: float, order: object
) -> None:
    """At most so many items are pulled and not yet through, whenever the batch is cancelled; then nothing runs."""
    run = Run()

    async def scenario() -> bool:
        items = run.items(batch)
        with trio.move_on_after(cancel_at) as scope:
            await run_batch(run.work, items, max_concurrency=at_once, done=run.done)
        await items.aclose()
        before = (run.running, len(run.pulled), len(run.taken))
        await trio.sleep(100)
        assert before == (0, len(run.pulled), len(run.taken))
        return scope.cancelled_caught

    cancelled = trio.run(scenario, clock=MockClock(autojump_threshold=0))
    event("cancelled" if cancelled else "ran to its end")
    assert run.most <= at_once
    assert run.pulled == list(range(len(run.pulled)))
    assert all(right(batch[index], outcome) for index, outcome in run.taken.items())
    assert cancelled or (len(run.taken) == len(batch) and run.held == 0)


@given(batch=batches(), at_once=st.integers(1, 5), bug=st.integers(0, 11), order=st.random_module())
def test_a_bug_ends_the_batch_and_nothing_runs_on(batch: list[Item], at_once: int, bug: int, order: object) -> None:
    """It is raised as it is, once everything else has been cancelled."""
    run = Run()

    async def work(item: Item) -> int:
        await run.work(item)
        if item.number == bug:
            raise ZeroDivisionError
        return item.number

    async def scenario() -> bool:
        items = run.items([Item(each.number, each.arrives, each.takes, False, each.taken) for each in batch])
        try:
            await run_batch(work, items, max_concurrency=at_once, done=run.done)
        except ZeroDivisionError:
            return True
        finally:
            await items.aclose()
        return False

    assert trio.run(scenario, clock=MockClock(autojump_threshold=0)) is (bug < len(batch))
    assert run.running == 0
