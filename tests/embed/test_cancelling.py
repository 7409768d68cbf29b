"""A caller that is cancelled gets out once the call has ended upstream, in every host whose tasks can be cancelled."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
import trio

from tests.embed.hosts import Cut, Host, everywhere, nothing_held
from tests.models import DONE, Scripted, Turn, model, says
from wizard_actors import ResilientClient, StreamInterruptedError, WizardResponse
from wizard_actors.config import CacheConfig

CLOSING = 0.06
SLOW = Turn(("one ", 5.0, "two", DONE), closing=CLOSING)
BEFORE_THE_HEAD = Turn(("one ", DONE), head=5.0)


async def generate(client: ResilientClient) -> object:
    """Ask."""
    return await client.generate("Why?")


async def read(client: ResilientClient) -> object:
    """Read a stream."""
    async with client.stream("Why?") as stream:
        return [text async for text in stream.text()]


async def batch(client: ResilientClient) -> object:
    """Ask two at once."""
    return await client.generate_batch(["Why?", "How?"])


async def warm(client: ResilientClient) -> object:
    """Warm the cache."""
    return await client.warm(["Why?"])


@pytest.mark.parametrize("times", [1, 2, 4])
@pytest.mark.parametrize("ask", [generate, read, batch, warm])
@everywhere
async def test_a_cancelled_caller_gets_out_when_its_call_has_ended(
    canceller: Host, ask: Callable[[ResilientClient], Awaitable[object]], times: int
) -> None:
    """Not before the exchange is closed, however often it is cancelled meanwhile; everything has been given back."""
    a = Scripted(SLOW)
    open_at_the_end: list[int] = []

    async def asks() -> None:
        try:
            await ask(client)
        finally:
            open_at_the_end.append(a.in_flight)

    async with canceller.open(a, cache=CacheConfig(max_entries=5)) as client:
        async with canceller.beside(asks) as task:
            await canceller.until(lambda: a.in_flight == (2 if ask is batch else 1) and a.calls[-1].opened)
            start = time.monotonic()
            for _ in range(times):
                task.cancel()
                await canceller.sleep(0.01)
            assert a.in_flight > 0
            assert not task.over
            await canceller.until(lambda: task.over)
            assert CLOSING * 0.9 <= time.monotonic() - start < 1.0
        assert isinstance(task.error, Cut)
        assert open_at_the_end == [0]
        await nothing_held(client, a)
        a.turns = [says("yes")]
        assert (await client.generate("Why?")).text == "yes"


@pytest.mark.parametrize("ask", [generate, read, batch])
@everywhere
async def test_a_call_is_cancelled_at_whichever_moment(
    canceller: Host, ask: Callable[[ResilientClient], Awaitable[object]]
) -> None:
    """Before it has begun, while it waits for a slot, for the head, or for text: nothing is held, and none goes on."""
    a = Scripted(Turn(("one ", 0.004, "two", DONE), head=0.004, closing=0.002))
    async with canceller.open(a, model(slots=1)) as client:
        for step in range(16):
            async with (
                canceller.beside(partial(ask, client)) as first,
                canceller.beside(partial(ask, client)) as second,
            ):
                await canceller.sleep(step / 1000)
                first.cancel()
                await canceller.sleep(step % 3 / 1000)
                second.cancel()
                second.cancel()
            assert a.in_flight == 0
            for task in (first, second):
                assert isinstance(task.outcome, Cut | WizardResponse | list)
        await nothing_held(client, a)


@everywhere
async def test_a_call_that_waits_for_the_head_is_cancelled(canceller: Host) -> None:
    """The model sees it leave."""
    a = Scripted(BEFORE_THE_HEAD)
    async with canceller.open(a) as client:
        async with canceller.beside(partial(generate, client)) as task:
            await canceller.until(lambda: a.in_flight == 1)
            task.cancel()
        assert isinstance(task.error, Cut)
        assert not a.calls[0].opened
        await nothing_held(client, a)


@everywhere
async def test_who_reads_on_after_a_cancelled_read_learns_so(canceller: Host) -> None:
    """An iteration that just ended would pass a part of an answer for the whole."""
    a = Scripted(SLOW)
    told: list[str] = []

    async def asks() -> None:
        async with client.stream("Why?") as stream:
            await anext(stream)
            try:
                await anext(stream)
            finally:
                told.append(f"open: {a.in_flight}")
                with pytest.raises(StreamInterruptedError, match="cancelled"):
                    await anext(stream)
                told.append("told")

    async with canceller.open(a) as client:
        async with canceller.beside(asks) as task:
            await canceller.until(lambda: a.in_flight == 1 and a.calls[0].opened)
            await canceller.sleep(0.01)
            task.cancel()
        assert isinstance(task.error, Cut)
        assert told == ["open: 0", "told"]
        await nothing_held(client, a)


@everywhere
async def test_a_reader_that_is_cancelled_outside_of_a_read_closes_its_stream(canceller: Host) -> None:
    """On its way out of the block, however often it is cancelled there."""
    a = Scripted(SLOW)
    left: list[int] = []

    async def asks() -> None:
        try:
            async with client.stream("Why?") as stream:
                await anext(stream)
                await canceller.sleep(5.0)
        finally:
            left.append(a.in_flight)

    async with canceller.open(a) as client:
        async with canceller.beside(asks) as task:
            await canceller.until(lambda: a.in_flight == 1 and a.calls[0].opened)
            await canceller.sleep(0.01)
            for _ in range(3):
                task.cancel()
                await canceller.sleep(0.01)
            assert a.in_flight == 1
        assert isinstance(task.error, Cut)
        assert left == [0]
        await nothing_held(client, a)


@everywhere
async def test_leaving_early_can_be_cancelled_and_still_closes(canceller: Host) -> None:
    """The exchange is closed before the block is left; then the cancellation counts."""
    a = Scripted(SLOW)
    left: list[int] = []

    async def asks() -> None:
        try:
            async with client.stream("Why?") as stream:
                await anext(stream)
        finally:
            left.append(a.in_flight)
        await canceller.sleep(5.0)

    async with canceller.open(a) as client:
        start = time.monotonic()
        async with canceller.beside(asks) as task:
            await canceller.until(lambda: a.in_flight == 1 and a.calls[0].opened)
            await canceller.sleep(0.03)
            task.cancel()
        assert isinstance(task.error, Cut)
        assert time.monotonic() - start < 2.0
        assert left == [0]
        await nothing_held(client, a)


@everywhere
async def test_a_batch_is_cancelled_while_its_prompts_wait(canceller: Host) -> None:
    """Where they come from is cancelled too, in the caller's task; no prompt is taken any more."""
    a = Scripted(SLOW)
    waits = False
    ended: list[str] = []

    async def prompts() -> AsyncIterator[str]:
        nonlocal waits
        try:
            yield "first"
            waits = True
            await canceller.sleep(5.0)
            yield "never"
        finally:
            ended.append("prompts")

    async with canceller.open(a) as client:
        start = time.monotonic()
        async with canceller.beside(lambda: client.generate_batch(prompts())) as task:
            await canceller.until(lambda: waits and a.in_flight == 1)
            task.cancel()
        assert isinstance(task.error, Cut)
        assert time.monotonic() - start < 1.0
        assert ended == ["prompts"]
        assert [call.prompt for call in a.calls] == ["first"]
        await nothing_held(client, a)


@everywhere
async def test_a_function_that_is_run_is_cancelled_where_it_runs(canceller: Host) -> None:
    """And the caller gets out once it has ended."""
    ended: list[str] = []

    async def function() -> None:
        try:
            await trio.sleep(5.0)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.03)
            ended.append("function")

    async def asks() -> None:
        try:
            await client.run(function)
        finally:
            ended.append("caller")

    async with canceller.open(Scripted()) as client:
        async with canceller.beside(asks) as task:
            await canceller.sleep(0.02)
            task.cancel()
        assert isinstance(task.error, Cut)
    assert ended == ["function", "caller"]


@everywhere
async def test_closing_that_is_cancelled_still_closes(canceller: Host) -> None:
    """The calls of others are waited for as before; then the cancellation counts."""
    a = Scripted(says("in ", 0.1, "time"))
    clients: list[ResilientClient] = []

    async def opens() -> None:
        async with canceller.open(a) as client:
            clients.append(client)
            await canceller.until(lambda: a.in_flight == 1)
        await canceller.sleep(5.0)

    async def asks() -> WizardResponse:
        await canceller.until(lambda: len(clients) == 1)
        return await clients[0].generate("Why?")

    async with canceller.beside(asks) as asked, canceller.beside(opens) as opened:
        await canceller.until(lambda: a.in_flight == 1)
        await canceller.sleep(0.02)
        for _ in range(2):
            opened.cancel()
            await canceller.sleep(0.01)
        assert not opened.over
    assert isinstance(opened.error, Cut)
    assert asked.result().text == "in time"
