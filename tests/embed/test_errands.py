"""Errands: what a call has done by its caller meanwhile, one after the other, until one of the two wants no more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio
import trio.testing

from tests.models import Scripted, Turn, model, says
from wizard_actors import ResilientClient, WizardConfig, WizardResponse
from wizard_actors.blocking import BlockingClient
from wizard_actors.config import ServerConfig, TimeoutsConfig
from wizard_actors.embed.errands import AT_HOME, Errand, Errands

LONG = 60.0
CONFIG = WizardConfig(
    models=[model(timeouts=TimeoutsConfig(first_token=LONG, total=LONG))], server=ServerConfig(drain_timeout=0.1)
)


class Bell:
    """A bell that counts, which nobody hears any more once it is `deaf`."""

    rings = 0
    deaf = False

    def ring(self) -> bool:
        self.rings += 1
        return not self.deaf


def do(errand: Errand | None) -> None:
    """Do an errand as a thread does."""
    assert errand is not None
    try:
        errand.ended(errand.job(), None)
    except Exception as error:  # noqa: BLE001 - raised where the call waits for it
        errand.ended(None, error)


# -- the errands of one call -------------------------------------------------------------------------------------------


async def test_errands_are_done_in_the_order_in_which_they_are_asked(nursery: trio.Nursery) -> None:
    """One after the other; the caller is woken for each."""
    bell, done = Bell(), list[int]()
    errands = Errands(bell)
    for number in range(3):
        nursery.start_soon(errands.run, lambda number=number: done.append(number))
        await trio.testing.wait_all_tasks_blocked()
    assert (bell.rings, done) == (3, [])
    for _ in range(3):
        do(errands.next())
    await trio.testing.wait_all_tasks_blocked()

    assert (done, errands.next()) == ([0, 1, 2], None)


async def test_what_an_errand_raises_is_raised_where_the_call_waits(nursery: trio.Nursery) -> None:
    """In the work, which may handle it."""
    errands, raised = Errands(Bell()), list[BaseException]()

    async def work() -> None:
        try:
            await errands.run(lambda: list[int]().pop())
        except IndexError as error:
            raised.append(error)

    nursery.start_soon(work)
    await trio.testing.wait_all_tasks_blocked()
    do(errands.next())
    await trio.testing.wait_all_tasks_blocked()

    assert len(raised) == 1


async def test_an_errand_that_nobody_waits_for_is_not_begun(nursery: trio.Nursery) -> None:
    """Its call was cancelled meanwhile."""
    errands, done = Errands(Bell()), list[int]()
    with trio.move_on_after(0):
        await errands.run(lambda: done.append(1))
    nursery.start_soon(errands.run, lambda: done.append(2))
    await trio.testing.wait_all_tasks_blocked()
    do(errands.next())

    assert (done, errands.next()) == ([2], None)


async def test_an_errand_that_is_under_way_is_cancelled_by_whoever_does_it() -> None:
    """And what comes of it then is nobody's."""
    errands, cancelled = Errands(Bell()), list[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(errands.run, lambda: None)
        await trio.testing.wait_all_tasks_blocked()
        errand = errands.next()
        assert errand is not None
        errand.cancel = lambda: cancelled.append(1)
        nursery.cancel_scope.cancel()

    assert (cancelled, errand.abandoned) == ([1], True)
    errand.ended(None, KeyError("too late"))


async def test_an_errand_that_has_ended_is_not_cancelled() -> None:
    """Its outcome is there, and counts."""
    errands, cancelled = Errands(Bell()), list[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(errands.run, lambda: 1)
        await trio.testing.wait_all_tasks_blocked()
        errand = errands.next()
        assert errand is not None
        errand.cancel = lambda: cancelled.append(1)
        do(errand)
        nursery.cancel_scope.cancel()

    assert (cancelled, errand.abandoned) == ([], False)


async def test_a_caller_whose_loop_is_closed_fails_the_errand() -> None:
    """Nobody is there to do it; the call does not wait for ever."""
    bell = Bell()
    bell.deaf = True
    with pytest.raises(RuntimeError, match="closed"):
        await Errands(bell).run(lambda: None)


async def test_items_are_read_one_by_one_and_end(nursery: trio.Nursery) -> None:
    """Each `next` is the caller's; `StopIteration` does not get lost in a coroutine."""
    errands, read = Errands(Bell()), list[str]()

    async def work() -> None:
        async for item in errands.items(iter(["one", "two"])):
            read.append(item)
        read.append("end")

    nursery.start_soon(work)
    for wanted in (["one"], ["one", "two"], ["one", "two", "end"]):
        await trio.testing.wait_all_tasks_blocked()
        do(errands.next())
        await trio.testing.wait_all_tasks_blocked()
        assert read == wanted


async def test_at_home_nothing_is_between() -> None:
    """Where the caller is under Trio itself."""
    items, told = ["one"], list[int]()
    assert AT_HOME.items(items) is items
    await AT_HOME.told(told.append)(1)
    assert told == [1]


# -- in their hosts ----------------------------------------------------------------------------------------------------


def threads_of(seen: list[int]) -> Callable[[int, int | None], None]:
    """Return an `on_progress` that notes in which thread it is called."""
    return lambda _done, _total: seen.append(threading.get_ident())


def test_prompts_and_progress_are_the_callers_own_in_a_thread() -> None:
    """They run in the thread that asks, and may use the client themselves."""
    seen: list[int] = []

    def prompts() -> Iterator[str]:
        for number in range(3):
            seen.append(threading.get_ident())
            yield client.generate(f"a prompt, please: {number}").text

    with BlockingClient.open(CONFIG, providers={"a": Scripted(says("Hello"))}) as client:
        outcomes = client.generate_batch(prompts(), on_progress=threads_of(seen), cache="bypass")
    assert [type(outcome) for outcome in outcomes] == [WizardResponse] * 3
    assert set(seen) == {threading.get_ident()}
    assert len(seen) == 6


def test_prompts_and_progress_are_the_callers_own_under_asyncio() -> None:
    """They run in the caller's task, and may wait there, for the client too."""
    seen: list[int] = []
    tasks: set[asyncio.Task[object] | None] = set()

    async def prompts(client: ResilientClient) -> AsyncIterator[str]:
        for number in range(3):
            tasks.add(asyncio.current_task())
            await asyncio.sleep(0)
            yield (await client.generate(f"a prompt, please: {number}")).text

    async def main() -> None:
        async with ResilientClient.open(CONFIG, providers={"a": Scripted(says("Hello"))}) as client:
            await client.generate_batch(prompts(client), on_progress=threads_of(seen), cache="bypass")
        assert tasks == {asyncio.current_task()}

    asyncio.run(main())
    assert seen == [threading.get_ident()] * 3


@pytest.mark.parametrize("kind", ["prompts", "progress"])
def test_their_errors_are_the_batches(kind: str) -> None:
    """Raised to the caller, and nothing goes on upstream."""
    a = Scripted(Turn(head=LONG)) if kind == "prompts" else Scripted(says("Hello"))

    def prompts() -> Iterator[str]:
        yield "one"
        if kind == "prompts":
            raise KeyError("mine")

    def progress(_done: int, _total: int | None) -> None:
        raise KeyError("mine")

    async def main() -> None:
        async with ResilientClient.open(CONFIG, providers={"a": a}) as client:
            with pytest.raises(KeyError, match="mine"):
                await client.generate_batch(prompts(), on_progress=progress)
            assert a.in_flight == 0

    with BlockingClient.open(CONFIG, providers={"a": a}) as client:
        with pytest.raises(KeyError, match="mine"):
            client.generate_batch(prompts(), on_progress=progress)
        assert a.in_flight == 0
    asyncio.run(main())


def test_a_prompt_that_is_waited_for_is_given_up_with_the_batch() -> None:
    """Another prompt's progress raises while the caller's task waits in its own iterable: it is cancelled there."""
    left: list[str] = []

    async def prompts() -> AsyncIterator[str]:
        yield "one"
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            left.append("cancelled")
            raise

    def progress(_done: int, _total: int | None) -> None:
        raise KeyError("mine")

    async def main() -> int:
        async with ResilientClient.open(CONFIG, providers={"a": Scripted(says(0.1, "Hello"))}) as client:
            async with asyncio.timeout(5.0):
                with pytest.raises(KeyError, match="mine"):
                    await client.generate_batch(prompts(), on_progress=progress)
        current = asyncio.current_task()
        assert current is not None
        return current.cancelling()

    assert asyncio.run(main()) == 0
    assert left == ["cancelled"]


def test_a_cancelled_batch_leaves_its_iterable_where_it_was() -> None:
    """The cancel reaches it as it does in any task; it is not closed behind its owner's back."""

    async def prompts() -> AsyncIterator[str]:
        yield "one"
        yield "two"

    a = Scripted(Turn(head=LONG))

    async def main() -> list[str]:
        mine = prompts()
        async with ResilientClient.open(CONFIG, providers={"a": a}) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.generate_batch(mine, max_concurrency=1)
            assert a.in_flight == 0
        return [item async for item in mine]

    assert asyncio.run(main()) == ["two"]
