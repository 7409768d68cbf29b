"""A stream whose consumer reads nothing is ended, in time, and whoever reads on is told."""

import logging

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import Scripted, assert_nothing_held, client_of, cut, model, says
from wizard_actors import DeadlineExceededError, ResilientClient, StreamInterruptedError, TextDelta
from wizard_actors.config import CacheConfig, RetryConfig, StreamConfig
from wizard_actors.events import RequestEnded

IDLE = StreamConfig(consumer_idle=5.0)


async def first_word(client: ResilientClient, idle: float) -> list[str]:
    """Read one word, then nothing for a while, then the rest."""
    async with client.stream("Why?") as stream:
        event = await anext(stream)
        assert isinstance(event, TextDelta)
        await trio.sleep(idle)
        return [event.text, *[text async for text in stream.text()]]


async def test_a_consumer_that_reads_nothing_loses_its_stream(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """After `consumer_idle` seconds the model has its slot back, and the connection is closed, while nobody reads."""
    a = Scripted(says("one ", "two ", "three"))
    async with client_of(a, stream=IDLE) as client:
        async with client.stream("Why?") as stream:
            await anext(stream)
            await trio.sleep(4.9)
            assert a.in_flight == 1
            await trio.sleep(0.2)
            assert a.in_flight == 0
            await assert_nothing_held(client, a)
            for _ in range(2):
                with pytest.raises(DeadlineExceededError, match="consumer_idle"):
                    await anext(stream)
        assert stream.request_id in caplog.text


async def test_a_stream_that_has_ended_is_not_idle(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Its reader may stop at the end and stay in the block: the request is over, and reading on finds the end again."""
    async with client_of(Scripted(says("one")), stream=IDLE) as client, client.stream("Why?") as stream:
        while (await anext(stream)).type != "end":
            pass
        assert client.metrics().requests.in_flight == 0
        await trio.sleep(60.0)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert caplog.text == ""


async def test_a_slow_consumer_keeps_its_stream(autojump_clock: MockClock) -> None:
    """What counts is the time since the last read, however long the whole takes."""
    a = Scripted(says(*["word "] * 10))
    async with client_of(a, stream=IDLE) as client:
        texts = []
        async with client.stream("Why?") as stream:
            async for text in stream.text():
                texts.append(text)
                await trio.sleep(4.0)
        assert len(texts) == 10
        assert trio.current_time() == 40.0


async def test_a_model_that_is_slow_is_not_a_consumer_that_is(autojump_clock: MockClock) -> None:
    """Whoever waits for the next word reads."""
    a = Scripted(says("one ", 20.0, "two"))
    async with client_of(a, stream=IDLE) as client:
        assert await first_word(client, 0.0) == ["one ", "two"]


async def test_a_whole_answer_waits_for_its_reader(autojump_clock: MockClock) -> None:
    """Buffered, or from the cache: it holds no connection and no place, so there is no hurry."""
    config = StreamConfig(consumer_idle=5.0, delivery="buffered")
    a = Scripted(says("one ", "two"))
    async with client_of(a, stream=config, cache=CacheConfig(max_entries=5)) as client:
        for _ in range(2):
            async with client.stream("Why?") as stream:
                await anext(stream)
                assert client.metrics().requests.in_flight == 0
                await trio.sleep(60.0)
                assert [event.type async for event in stream][-1] == "end"


async def test_each_of_many_streams_has_its_own_time(autojump_clock: MockClock) -> None:
    """The watch sleeps until the longest idle one, and ends those alone whose time has come."""
    a = Scripted(says("one ", "two"))
    outcomes: dict[int, str] = {}

    async def consumer(number: int) -> None:
        await trio.sleep(number / 10)
        try:
            await first_word(client, idle=number / 2 + 0.1)
            outcomes[number] = "read"
        except DeadlineExceededError:
            outcomes[number] = "lost"

    async with client_of(a, model(slots=50), stream=IDLE) as client, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(consumer, number)
    assert outcomes == {number: "read" if number / 2 < 5.0 else "lost" for number in range(20)}


async def test_a_request_whose_consumer_was_too_slow_has_been_cancelled(autojump_clock: MockClock) -> None:
    """It ends once; nothing went wrong upstream, and the breaker learns nothing."""
    async with client_of(Scripted(says("one ", "two")), stream=IDLE) as client:
        with client.events.subscribe() as events:
            with pytest.raises(DeadlineExceededError):
                await first_word(client, 6.0)
            ended = [event for event in events.drain() if isinstance(event, RequestEnded)]
        assert [event.code for event in ended] == ["cancelled"]


async def test_leaving_while_the_watch_ends_the_stream_is_no_second_end(autojump_clock: MockClock) -> None:
    """The consumer leaves in the very tick: the exchange is closed once, and nothing hangs."""
    a = Scripted(says("one ", "two"))
    async with client_of(a, stream=IDLE) as client:
        with client.events.subscribe() as events:
            async with client.stream("Why?") as stream:
                await anext(stream)
                await trio.sleep(5.0)
            await wait_all_tasks_blocked()
            ended = [event for event in events.drain() if isinstance(event, RequestEnded)]
        assert len(ended) == 1
        await assert_nothing_held(client, a)


async def test_a_read_that_was_cancelled_is_not_taken_for_the_end(autojump_clock: MockClock) -> None:
    """The stream is over, and says so: a loop that just ended would pass a part for the whole."""
    async with client_of(Scripted(says("one ", 10.0, "two"))) as client, client.stream("Why?") as stream:
        await anext(stream)
        with trio.move_on_after(1.0):
            await anext(stream)
        for _ in range(2):
            with pytest.raises(StreamInterruptedError):
                await anext(stream)


async def test_a_read_that_failed_fails_again(autojump_clock: MockClock) -> None:
    """With the same error."""
    once = model(retry=RetryConfig(max_attempts=1))
    async with client_of(Scripted(cut("one ")), once) as client, client.stream("Why?") as stream:
        await anext(stream)
        for _ in range(2):
            with pytest.raises(StreamInterruptedError, match="broke off"):
                await anext(stream)


async def test_the_watch_does_not_wrap_what_the_block_raises(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A program's error leaves the client's block as it is, while a stream is idle."""
    caplog.set_level(logging.CRITICAL)

    async def program() -> None:
        a = Scripted(says("one ", "two"))
        async with client_of(a, stream=IDLE) as client, client.stream("Why?") as stream:
            await anext(stream)
            raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        await program()
