"""Batches are the same in every host: prompts are taken, and progress is told, where the caller is."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest

from tests.embed.hosts import HOSTS, Host, everywhere, nothing_held
from tests.embed.test_same_everywhere import BROKEN, CALLER, facts
from tests.models import Scripted, Turn, fails, model, says
from wizard_actors import InvalidPromptError, NetworkError, WizardError, WizardResponse
from wizard_actors.config import RetryConfig

ONCE = RetryConfig(max_attempts=1)


def said(outcomes: list[WizardResponse | WizardError]) -> list[str]:
    """Return the texts."""
    return [outcome.text if isinstance(outcome, WizardResponse) else type(outcome).__name__ for outcome in outcomes]


def test_outcomes_are_equal_and_in_order() -> None:
    """Answers and errors."""

    async def program(host: Host) -> object:
        a = Scripted(says("one"), fails(BROKEN), says("three"))
        async with host.open(a, model(retry=ONCE)) as client:
            return facts(await client.generate_batch(["a", "b", "c", ""], max_concurrency=1))

    outcomes = [host.run(partial(program, host)) for host in HOSTS]

    assert isinstance(outcomes[0], list)
    assert [outcome["text"] if isinstance(outcome, dict) else outcome[0] for outcome in outcomes[0]] == [
        "one",
        NetworkError,
        "three",
        InvalidPromptError,
    ]
    assert outcomes[1:] == outcomes[:1] * 3


@everywhere
async def test_plain_prompts_are_taken_and_progress_is_told_in_the_callers_thread(host: Host) -> None:
    """With its context, one prompt at a time, and never more than there is room for."""
    places: set[object] = set()
    told: list[tuple[int, int | None]] = []
    taken = 0

    def prompts() -> Iterator[str]:
        nonlocal taken
        for number in range(12):
            places.add((threading.get_ident(), CALLER.get()))
            taken += 1
            yield f"Why {number}?"

    def tell(done: int, total: int | None) -> None:
        places.add((threading.get_ident(), CALLER.get()))
        assert taken <= done + 3
        told.append((done, total))

    CALLER.set("batch")
    a = Scripted(says(0.005, "yes"))
    async with host.open(a) as client:
        outcomes = await client.generate_batch(prompts(), max_concurrency=3, on_progress=tell)
        await nothing_held(client, a)
    assert said(outcomes) == ["yes"] * 12
    assert places == {(threading.get_ident(), "batch")}
    assert sorted(told) == [(number, None) for number in range(1, 13)]


class Pulled:
    """Prompts that wait in the caller's event loop, and know who pulls."""

    def __init__(self, host: Host, count: int) -> None:
        self._host = host
        self._left = count
        self._busy = False
        self.tasks: set[object] = set()
        self.overlaps = 0

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        self.overlaps += self._busy
        self._busy = True
        self.tasks.add(self._host.here())
        await self._host.sleep(0.003)
        self._busy = False
        self._left -= 1
        if self._left < 0:
            raise StopAsyncIteration
        return f"Why {self._left}?"


@everywhere
async def test_prompts_that_wait_do_so_in_the_callers_task(canceller: Host) -> None:
    """One pull at a time; what was pulled is asked meanwhile."""
    a, prompts = Scripted(says(0.01, "yes")), Pulled(canceller, 10)
    async with canceller.open(a) as client:
        me = canceller.here()
        outcomes = await client.generate_batch(prompts, max_concurrency=4)
        await nothing_held(client, a)
    assert said(outcomes) == ["yes"] * 10
    assert (prompts.tasks, prompts.overlaps) == ({me}, 0)


@everywhere
async def test_what_prompts_raise_is_raised(host: Host) -> None:
    """As it is; the calls under way are ended first."""
    a = Scripted(Turn((5.0, "late"), closing=0.03))

    def prompts() -> Iterator[str]:
        yield "first"
        end = time.monotonic() + 2.0
        while not (a.in_flight and a.calls[0].opened) and time.monotonic() < end:
            if host.name == "trio":
                break
            time.sleep(0.001)  # in the caller's thread: the client's goes on
        raise ZeroDivisionError("planted")

    async with host.open(a) as client:
        with pytest.raises(ZeroDivisionError, match="planted") as caught:
            await client.generate_batch(prompts())
        assert a.in_flight == 0
        assert caught.value.__cause__ is None
        await nothing_held(client, a)


@everywhere
async def test_what_progress_raises_is_raised(canceller: Host) -> None:
    """As it is, also while the prompts wait: they are cancelled, and the caller is not."""
    a = Scripted(says(0.03, "one"), Turn((5.0, "late"), closing=0.03))
    ended: list[str] = []

    async def prompts() -> AsyncIterator[str]:
        try:
            yield "first"
            yield "second"
            await canceller.sleep(5.0)
        finally:
            ended.append("prompts")

    def tell(done: int, total: int | None) -> None:
        raise ZeroDivisionError("planted")

    async with canceller.open(a) as client:
        start = time.monotonic()
        with pytest.raises(ZeroDivisionError, match="planted"):
            await client.generate_batch(prompts(), on_progress=tell)
        assert time.monotonic() - start < 1.0
        assert (a.in_flight, ended) == (0, ["prompts"])
        await canceller.sleep(0.01)  # nobody is cancelled any more
        await nothing_held(client, a)


def not_endless(done: int, total: int | None) -> None:
    """End a batch that finds no end."""
    assert done <= 2


@everywhere
async def test_prompts_that_wait_are_no_prompts_for_threads(host: Host) -> None:
    """There is no event loop in which they could: that is said, and nothing is left un-awaited."""
    a = Scripted(says("yes"))
    async with host.open(a) as client:
        batch = client.generate_batch(Pulled(host, 2), on_progress=not_endless)
        if host.name == "threads":
            with pytest.raises(InvalidPromptError, match="async"):
                await batch
            assert a.calls == []
        else:
            assert said(await batch) == ["yes"] * 2
