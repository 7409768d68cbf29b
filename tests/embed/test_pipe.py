"""The pipe of a stream: bounded, in order, and nobody sleeps while there is something to do."""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Self

import pytest
import trio
import trio.testing

from wizard_actors import DeadlineExceededError
from wizard_actors.bells import ThreadBell
from wizard_actors.embed.pipe import GRACE, WINDOW, Pipe
from wizard_actors.types import StreamEvent, TextDelta


class Numbers:
    """A source of numbered events. `error` ends it; `closed` counts how often it was closed."""

    def __init__(self, count: float, *, error: Exception | None = None, every: int = 0) -> None:
        self.count, self.error, self.every = count, error, every
        self.given = self.closed = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        if self.given >= self.count:
            if self.error is not None:
                raise self.error
            raise StopAsyncIteration
        if self.every and self.given % self.every == 0:
            await trio.lowlevel.checkpoint()
        self.given += 1
        return TextDelta(str(self.given))

    async def aclose(self) -> None:
        self.closed += 1


class Bell:
    """A bell that counts."""

    def __init__(self, *, heard: bool = True) -> None:
        self.rings, self.hears = 0, heard

    def ring(self) -> bool:
        self.rings += 1
        return self.hears


def texts(events: list[StreamEvent | None]) -> list[str | None]:
    """Return what the events say."""
    return [event.text if isinstance(event, TextDelta) else None for event in events]


# -- one thread --------------------------------------------------------------------------------------------------------


async def test_events_come_in_order_and_then_none() -> None:
    """The writer ends by itself where everything fits."""
    pipe, source = Pipe(Bell(), patience=60.0), Numbers(3)

    await pipe.pump(source)

    assert texts([pipe.take() for _ in range(5)]) == ["1", "2", "3", None, None]
    assert source.closed == 1


async def test_no_more_than_a_window_is_read_ahead(nursery: trio.Nursery) -> None:
    """The model's socket is read at the reader's pace."""
    pipe, source = Pipe(Bell(), patience=60.0), Numbers(math.inf)
    nursery.start_soon(pipe.pump, source)
    await trio.testing.wait_all_tasks_blocked()
    assert source.given == WINDOW
    for _ in range(100):
        assert pipe.take() is not None
        await trio.testing.wait_all_tasks_blocked()
        assert len(pipe._events) <= WINDOW
    nursery.cancel_scope.cancel()


async def test_the_writer_wakes_when_half_the_window_is_free_and_not_for_each_event(nursery: trio.Nursery) -> None:
    """A wake costs more than an event."""
    pipe, source = Pipe(Bell(), patience=60.0), Numbers(math.inf)
    nursery.start_soon(pipe.pump, source)
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(WINDOW // 2 - 1):
        pipe.take()
    await trio.testing.wait_all_tasks_blocked()
    assert source.given == WINDOW
    pipe.take()
    await trio.testing.wait_all_tasks_blocked()
    assert source.given == WINDOW + WINDOW // 2
    nursery.cancel_scope.cancel()


async def test_the_reader_is_woken_where_it_waits_and_only_there() -> None:
    """The bell rings once for each time that `take` had nothing."""
    bell = Bell()
    pipe = Pipe(bell, patience=60.0)
    await pipe.pump(Numbers(5))
    assert bell.rings == 0
    while pipe.take() is not None:
        pass
    await pipe.pump(Numbers(5))
    assert bell.rings == 1


async def test_a_reader_who_cannot_hear_ends_the_source() -> None:
    """Its loop is closed: nobody will read what the model says, and pays for."""
    pipe, source = Pipe(Bell(heard=False), patience=60.0), Numbers(math.inf)
    assert pipe.take() is None

    await pipe.pump(source)

    assert (source.given, source.closed) == (1, 1)


async def test_a_cancelled_writer_closes_the_source(nursery: trio.Nursery) -> None:
    """Also where it waits for room."""
    pipe, source = Pipe(Bell(), patience=60.0), Numbers(math.inf)
    nursery.start_soon(pipe.pump, source)
    await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await trio.testing.wait_all_tasks_blocked()
    assert source.closed == 1


async def test_what_came_before_an_error_can_be_read() -> None:
    """The error is the writer's end."""
    pipe, source = Pipe(Bell(), patience=60.0), Numbers(2, error=KeyError("broken"))
    with pytest.raises(KeyError):
        await pipe.pump(source)

    assert texts([pipe.take(), pipe.take(), pipe.take()]) == ["1", "2", None]
    assert source.closed == 1


async def test_a_full_pipe_is_waited_for_no_longer_than_the_stream_lives(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """After `patience` and a grace the source is read, which says that it was lost."""
    pipe, source = Pipe(Bell(), patience=5.0), Numbers(math.inf)
    nursery.start_soon(pipe.pump, source)

    await trio.sleep(5.0 + GRACE - 0.1)
    assert source.given == WINDOW
    await trio.sleep(0.2)
    assert source.given == WINDOW + 1
    nursery.cancel_scope.cancel()


async def test_a_slow_reader_that_goes_on_reading_is_waited_for(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event that is read renews the reader's patience; the wait ends when it asks for more than there is."""
    monkeypatch.setattr("wizard_actors.embed.pipe.monotonic", autojump_clock.current_time)
    pipe, asked = Pipe(Bell(), patience=5.0), trio.Event()

    async def write() -> None:
        await pipe.pump(Numbers(3))
        await pipe.taken()
        asked.set()

    nursery.start_soon(write)
    for _ in range(3):
        await trio.sleep(4.0)
        assert pipe.take() is not None
        assert not asked.is_set()
    await trio.sleep(4.0)
    assert pipe.take() is None
    await asked.wait()


async def test_a_reader_that_stops_reading_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """After `patience` its stream is lost."""
    pipe = Pipe(Bell(), patience=5.0)
    await pipe.pump(Numbers(3))

    with pytest.raises(DeadlineExceededError, match="nobody read the stream for 5 s"):
        await pipe.taken()


async def test_a_reader_that_found_nothing_and_then_something_has_not_asked_for_more() -> None:
    """It saw an empty pipe, and took what came that moment: the end is not due before it asks again."""
    pipe = Pipe(Bell(), patience=0.01)
    await pipe.pump(Numbers(0))

    class Late(deque[StreamEvent]):
        def __bool__(self) -> bool:
            if not len(self) and not pipe._reader_waits:
                self.append(TextDelta("last"))
                return False
            return len(self) > 0

    pipe._events = Late()
    assert texts([pipe.take()]) == ["last"]
    pipe._events = deque()

    with pytest.raises(DeadlineExceededError):
        await pipe.taken()


# -- two threads -------------------------------------------------------------------------------------------------------


class Reading:
    """Reads a pipe in this thread while Trio writes it in another."""

    def __init__(self, source: Numbers) -> None:
        self.bell = ThreadBell()
        self.pipe = Pipe(self.bell, patience=60.0)
        self.over = False
        self.most = self.waits = 0
        self.thread = threading.Thread(target=self.write, args=(source,))

    def write(self, source: Numbers) -> None:
        trio.run(self.pipe.pump, source)
        self.over = True
        self.bell.ring()

    def events(self) -> Iterator[StreamEvent]:
        """Read as the hosts do."""
        self.thread.start()
        while True:
            over = self.over
            self.most = max(self.most, len(self.pipe._events))
            event = self.pipe.take()
            if event is not None:
                yield event
            elif over:
                break
            else:
                self.waits += 1
                self.bell.heard()
        self.thread.join()


@pytest.mark.parametrize(
    ("events", "interval", "every"),
    [(100_000, 0.005, 0), (100_000, 1e-6, 0), (50_000, 1e-6, 1), (50_000, 1e-6, 7)],
    ids=["fast", "switching", "a checkpoint each", "bursts"],
)
def test_nothing_is_lost_between_threads(
    events: int, interval: float, every: int, report_line: Callable[[str], None]
) -> None:
    """Every event comes, in order, no more than a window is held, and neither side sleeps for ever."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        reading = Reading(Numbers(events, every=every))
        wanted = 0
        for event in reading.events():
            wanted += 1
            assert isinstance(event, TextDelta)
            assert event.text == str(wanted)
    finally:
        sys.setswitchinterval(before)

    report_line(f"pipe: {events} events, {reading.waits} waits of the reader, at most {reading.most} held")
    assert wanted == events
    assert reading.most <= WINDOW


def test_a_reader_that_looks_once_before_it_waits_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag is raised before the last look: without that look an event that comes between is slept through."""
    slept = threading.Event()

    def take(self: Pipe) -> StreamEvent | None:
        if not self._events:
            looked.set()
            came.wait(2.0)  # the writer goes on here
            self._reader_waits = True
            return None
        return self._events.popleft()

    class Once(Numbers):
        async def __anext__(self) -> StreamEvent:
            if self.given:
                came.set()
                await trio.sleep(0.3)
                raise StopAsyncIteration
            await trio.to_thread.run_sync(looked.wait, 2.0)
            return await super().__anext__()

    came, looked = threading.Event(), threading.Event()
    monkeypatch.setattr(Pipe, "take", take)
    reading = Reading(Once(1))

    heard = reading.bell.heard

    def sleep() -> None:
        if reading.pipe._events:
            slept.set()
        heard()

    monkeypatch.setattr(reading.bell, "heard", sleep)
    assert len(list(reading.events())) == 1
    assert slept.is_set()
