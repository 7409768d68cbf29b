"""Streams are the same in every host: what they yield, when they may be read, and how they end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.embed.hosts import HOSTS, Host, everywhere, nothing_held
from tests.embed.test_same_everywhere import BROKEN, facts
from tests.models import DONE, NO_JITTER, USAGE, Scripted, Step, Turn, cut, fails, model, says
from wizard_actors import (
    DeadlineExceededError,
    InvalidStateTransitionError,
    StreamInterruptedError,
    TextDelta,
)
from wizard_actors.config import CacheConfig, RetryConfig, StreamConfig

ONCE = RetryConfig(max_attempts=1)

# -- what they yield ---------------------------------------------------------------------------------------------------


def test_events_come_in_the_same_order() -> None:
    """Every one, over a fallback and a reset too, and from the cache; the response is theirs."""

    async def program(host: Host) -> object:
        models = {
            "a": Scripted(cut("one ", "two ")),
            "b": Scripted(fails(BROKEN), Turn(("three ", "four", USAGE, DONE))),
        }
        config = StreamConfig(on_interruption="reset")
        found: list[object] = []
        once, again = model("a", retry=ONCE), model("b", retry=NO_JITTER)
        async with host.open(models, once, again, stream=config, cache=CacheConfig(max_entries=5)) as client:
            for _ in range(2):
                async with client.stream("Why?") as stream:
                    found.append([(event.type, facts(event)) async for event in stream])
                    found.append(facts(stream.response))
            await nothing_held(client, *models.values())
        return found

    streams = [host.run(partial(program, host)) for host in HOSTS]

    assert isinstance(streams[0], list)
    assert [kind for kind, _ in streams[0][0]] == [
        *["text"] * 2,
        "reset",
        *["text"] * 2,
        "usage",
        "end",
    ]
    assert streams[0][1]["text"] == "three four"
    assert streams[1:] == streams[:1] * 3


@everywhere
async def test_a_long_stream_arrives_whole_and_in_order(host: Host) -> None:
    """Beyond what may stand unread, with a reader that is faster, and one that is slower than the model."""
    words = [f"{number} " for number in range(300)]
    async with host.open(Scripted(says(*words))) as client:
        async with client.stream("Why?") as stream:
            assert [text async for text in stream.text()] == words
        async with client.stream("Why?") as stream:
            found = []
            async for text in stream.text():
                found.append(text)
                if len(found) % 50 == 0:
                    await host.sleep(0.01)
            assert found == words
        assert stream.response.text == "".join(words)


@everywhere
async def test_buffered_delivery_discards_a_failed_part(host: Host) -> None:
    """Nobody sees what the first model began to say."""
    models = {"a": Scripted(cut("one ")), "b": Scripted(says("two"))}
    async with host.open(models, model("a", retry=ONCE), model("b")) as client:
        async with client.stream("Why?", delivery="buffered") as stream:
            assert [text async for text in stream.text()] == ["two"]
        assert stream.response.model == "b"


# -- when they may be read ---------------------------------------------------------------------------------------------


@everywhere
async def test_a_stream_is_read_in_its_block_and_once(host: Host) -> None:
    """Before, after and a second time it is refused; so is the response before the end. Nothing is sent for that."""
    a = Scripted(says("one ", "two"))
    async with host.open(a) as client:
        stream = client.stream("Why?")
        with pytest.raises(InvalidStateTransitionError, match="inside its block"):
            await anext(stream)
        async with stream:
            pass
        assert a.calls == []
        with pytest.raises(InvalidStateTransitionError, match="one call"):
            async with stream:
                pass
        with pytest.raises(InvalidStateTransitionError, match="inside its block"):
            await anext(stream)
        async with client.stream("Why?") as stream:
            with pytest.raises(InvalidStateTransitionError, match="has not ended"):
                _ = stream.response
            assert [text async for text in stream.text()] == ["one ", "two"]
            assert stream.response.text == "one two"
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            with pytest.raises(InvalidStateTransitionError, match="one call"):
                await stream.__aenter__()
        assert len(a.calls) == 1


# -- how they end ------------------------------------------------------------------------------------------------------


@everywhere
async def test_leaving_early_closes_the_exchange_first(host: Host) -> None:
    """The block is left once that is done, by a break as by an error, and everything has been given back."""
    a = Scripted(Turn(("one ", 5.0, "two", DONE), closing=0.03))
    async with host.open(a) as client:
        for _ in range(2):
            start = time.monotonic()
            async with client.stream("Why?") as stream:
                async for _text in stream.text():
                    break
                assert a.in_flight == 1
            assert a.in_flight == 0
            assert 0.03 <= time.monotonic() - start < 1.0
            await nothing_held(client, a)

        async def fail() -> None:
            async with client.stream("Why?") as stream:
                await anext(stream)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert a.in_flight == 0
        await nothing_held(client, a)
        assert client.metrics().requests.cancelled == 3


@everywhere
async def test_leaving_early_raises_what_closing_raised(host: Host) -> None:
    """The same as under Trio, which is nothing of a provider's."""
    a = Scripted(Turn(("one ", 5.0, "two", DONE), closing=ZeroDivisionError("planted")))
    async with host.open(a) as client:
        async with client.stream("Why?") as stream:
            await anext(stream)
        await nothing_held(client, a)


@everywhere
async def test_a_stream_that_breaks_off_tells_what_there_was(host: Host) -> None:
    """After the events that had come; and again to whoever reads on."""
    a = Scripted(cut("one ", "two "))
    async with host.open(a, model(retry=ONCE)) as client:
        async with client.stream("Why?") as stream:
            assert [(await anext(stream)).type, (await anext(stream)).type] == ["text"] * 2
            for _ in range(2):
                with pytest.raises(StreamInterruptedError) as caught:
                    await anext(stream)
                assert caught.value.partial == "one two "
                assert len(caught.value.attempts) == 1
        with pytest.raises(InvalidStateTransitionError):
            _ = stream.response
        await nothing_held(client, a)


@everywhere
async def test_plain_text_cannot_tell_of_a_reset(host: Host) -> None:
    """It raises; leaving the block then closes the fallback's exchange."""
    models = {"a": Scripted(cut("one ")), "b": Scripted(says("two ", 5.0, "three"))}
    config = StreamConfig(on_interruption="reset")
    async with host.open(models, model("a", retry=ONCE), model("b"), stream=config) as client:
        async with client.stream("Why?") as stream:
            texts = stream.text()
            assert await anext(texts) == "one "
            with pytest.raises(InvalidStateTransitionError, match="starts again"):
                await anext(texts)
            assert models["b"].in_flight == 1
        await nothing_held(client, *models.values())


@everywhere
async def test_a_deadline_ends_a_stream(host: Host) -> None:
    """In time, after what had come."""
    a = Scripted(says("one ", 5.0, "two"))
    async with host.open(a) as client:
        start = time.monotonic()
        async with client.stream("Why?", deadline=0.05) as stream:
            assert await anext(stream) == TextDelta("one ")
            with pytest.raises(DeadlineExceededError):
                await anext(stream)
        assert time.monotonic() - start < 1.0
        await nothing_held(client, a)


# -- the reader's pace -------------------------------------------------------------------------------------------------


class Counted(tuple[Step, ...]):  # noqa: SLOT001 - it counts
    """Steps that know how far a model has got."""

    taken = 0

    def __iter__(self) -> Iterator[Step]:
        for step in super().__iter__():
            self.taken += 1
            yield step


@everywhere
async def test_a_reader_that_is_slow_stops_the_reading_upstream(host: Host) -> None:
    """Of a thousand chunks the model has sent a few more than were taken, however long that lasts."""
    steps = Counted([f"{number} " for number in range(1000)] + [DONE])
    async with host.open(Scripted(Turn(steps))) as client:
        async with client.stream("Why?") as stream:
            for taken in (1, 40):
                for _ in range(taken):
                    await anext(stream)
                await host.sleep(0.05)
                assert steps.taken <= 41 + 20
            assert steps.taken < 1 + 40 + 20
        assert steps.taken < 1 + 40 + 20


@everywhere
async def test_a_stream_that_nobody_reads_is_lost(host: Host) -> None:
    """After `consumer_idle` seconds the model has its slot back, while nobody reads; who reads on is told at last."""
    a = Scripted(says(*["word "] * 100))
    async with host.open(a, stream=StreamConfig(consumer_idle=0.1)) as client, client.stream("Why?") as stream:
        await anext(stream)
        await host.until(lambda: a.in_flight == 0)
        await nothing_held(client, a)
        unread = 0

        async def read_on() -> None:
            nonlocal unread
            async for _event in stream:
                unread += 1

        with pytest.raises(DeadlineExceededError, match="consumer_idle"):
            await read_on()
        assert unread < 30
        with pytest.raises(DeadlineExceededError, match="consumer_idle"):
            await anext(stream)


@everywhere
async def test_a_slow_reader_keeps_its_stream(host: Host) -> None:
    """What counts is the time since the last read, however long the whole takes."""
    async with host.open(Scripted(says(*["word "] * 26)), stream=StreamConfig(consumer_idle=0.15)) as client:
        count = 0
        async with client.stream("Why?") as stream:
            async for _text in stream.text():
                count += 1
                await host.sleep(0.03)
        assert count == 26
