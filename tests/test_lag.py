"""The watch on the event loop's own stalls, with a clock that the tests set; and with real ones, where that is what is
measured.
"""

import asyncio
import math
import time

import outcome
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import Scripted, breaker, client_of, model, says
from wizard_actors import ProviderTimeoutError
from wizard_actors.breaker_core import Circuit
from wizard_actors.config import BreakerConfig, RetryConfig, TimeoutsConfig
from wizard_actors.lag import STALL, LagWatch, excused, watching

# -- what counts, on a clock that the test sets


class Loop:
    """An event loop's turns, played by hand."""

    def __init__(self, threshold: float = STALL) -> None:
        self.now = 100.0
        self.watch = LagWatch(threshold=threshold, clock=lambda: self.now)

    def wait(self, seconds: float, timeout: float) -> None:
        """End the batch that runs, and begin the next one after a wait for I/O."""
        self.watch.before_io_wait(timeout)
        self.now += seconds
        self.watch.after_io_wait(timeout)


def loop() -> Loop:
    """Return a loop in its first known batch."""
    played = Loop()
    played.wait(0.0, 0.0)
    return played


def figures(watch: LagWatch) -> tuple[float, float, int]:
    """Return all that a watch has to say, in milliseconds."""
    return round(watch.stalled * 1000), round(watch.longest * 1000), watch.count


def test_a_long_batch_is_a_stall() -> None:
    """All of it, and the longest is kept."""
    played = loop()
    for seconds in (0.2, 0.3, 0.1):
        played.now += seconds
        played.wait(0.0, 0.0)
    assert figures(played.watch) == (600, 300, 3)


def test_a_busy_loop_is_no_stall() -> None:
    """Short batches, however many of them."""
    played = loop()
    for _ in range(1000):
        played.now += 0.049
        played.wait(0.0, 0.0)
    assert figures(played.watch) == (0, 0, 0)


def test_a_wait_that_comes_back_late_is_a_stall() -> None:
    """By as much as it was late: the process was stopped, or starved."""
    played = loop()
    played.wait(2.3, 2.0)
    assert figures(played.watch) == (300, 300, 1)


@pytest.mark.parametrize(("seconds", "timeout"), [(60.0, 60.0), (60.04, 60.0), (59.0, 86_400.0), (0.0, 0.0)])
def test_waiting_is_no_stall(seconds: float, timeout: float) -> None:
    """However long: nothing was due."""
    played = loop()
    played.wait(seconds, timeout)
    assert figures(played.watch) == (0, 0, 0)


def test_what_was_before_the_first_turn_is_unknown() -> None:
    """A watch that is made long before it is installed has seen no stall."""
    played = Loop()
    played.now += 1000.0
    assert played.watch.mark() == 0.0
    played.wait(1000.0, 1000.0)
    assert figures(played.watch) == (0, 0, 0)


# -- what overlaps a wait


def test_a_stall_of_the_batch_in_which_a_wait_begins_came_before_it() -> None:
    """Another task blocked, then the wait began, in one and the same batch: it lost nothing."""
    played = loop()
    played.now += 0.5
    mark = played.watch.mark()
    played.now += 0.01
    played.wait(1.0, 1.0)
    assert played.watch.since(mark) == pytest.approx(0.01)


def test_a_stall_after_the_wait_has_begun_counts_from_there() -> None:
    """Also in the batch in which it began."""
    played = loop()
    mark = played.watch.mark()
    played.now += 0.5
    played.wait(0.0, 0.0)
    assert played.watch.since(mark) == pytest.approx(0.5)


def test_a_stall_of_the_batch_in_which_a_timeout_is_seen_came_after_it() -> None:
    """Timeouts are looked for between batches: what another task then blocks for excuses nothing."""
    played = loop()
    mark = played.watch.mark()
    played.wait(1.0, 1.0)
    played.now += 0.5
    assert played.watch.since(mark) == 0.0


def test_nothing_is_ever_stalled_for_less_than_no_time() -> None:
    """Asked in the batch of the mark itself, whose stall has not been summed."""
    played = loop()
    played.now += 0.5
    assert played.watch.since(played.watch.mark()) == 0.0


@pytest.mark.parametrize(
    ("stalled", "limit", "is_excused"),
    [
        (0.099, 0.2, False),  # noise: less than two stalls
        (0.1, 0.2, True),
        (0.1, 2.0, True),
        (0.1, 2.1, False),  # 5 %, from 2 s on
        (2.9, 60.0, False),
        (3.0, 60.0, True),
        (0.0, 0.0, False),
        (1e9, math.inf, False),
    ],
)
def test_a_timeout_is_excused_by_a_tenth_of_a_second_and_five_percent(
    stalled: float, limit: float, is_excused: bool
) -> None:
    """Both: little is noise beside a short limit, and nothing beside a long one."""
    assert excused(stalled, limit) is is_excused


# -- in a running loop


def test_our_own_stall_is_known_when_the_timeout_fires() -> None:
    """A task blocks the loop while another waits with a timeout: as the timeout is seen, the stall has been summed."""
    told: list[float] = []

    async def waits(watch: LagWatch) -> None:
        mark = watch.mark()
        with trio.move_on_after(0.1) as scope:
            await trio.sleep_forever()
        assert scope.cancelled_caught
        told.append(watch.since(mark))

    async def blocks() -> None:
        await wait_all_tasks_blocked()
        time.sleep(0.2)  # noqa: ASYNC251 - that is what is measured

    async def main() -> None:
        with watching() as outer, watching() as watch:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waits, watch)
                nursery.start_soon(blocks)
            assert min(outer.longest, watch.longest) >= 0.2  # each sums for itself

    trio.run(main)

    assert told[0] >= 0.2
    assert excused(told[0], 0.1)


def test_under_guest_mode_the_hosts_stall_is_ours() -> None:
    """Where the host's loop is blocked beyond a deadline of ours, the deadline passes in the stall."""
    told: list[float] = []
    waits = asyncio.Event()

    async def main() -> None:
        with watching() as watch:
            mark = watch.mark()
            waits.set()
            with trio.move_on_after(0.2):
                await trio.sleep_forever()
            told.append(watch.since(mark))

    async def host() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        ended: list[outcome.Outcome[None]] = []

        def is_done(result: outcome.Outcome[None]) -> None:
            ended.append(result)
            done.set()

        trio.lowlevel.start_guest_run(main, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=is_done)
        await waits.wait()
        await asyncio.sleep(0.01)
        time.sleep(0.35)  # noqa: ASYNC251 - that is what is measured
        await done.wait()
        ended[0].unwrap()

    asyncio.run(host())

    assert told[0] >= 0.1
    assert excused(told[0], 0.2)


def test_a_client_shows_how_often_and_for_how_long_its_loop_stood_still() -> None:
    """One long stall is told from a short one."""

    async def main() -> tuple[int, float]:
        async with client_of(Scripted()) as client:
            before = client.metrics().gauges
            time.sleep(0.3)  # noqa: ASYNC251 - that is what is measured
            await trio.sleep(0.01)
            after = client.metrics().gauges
        assert before is not None
        assert after is not None
        return after.loop_stalls - before.loop_stalls, after.loop_stalled - before.loop_stalled

    stalls, seconds = trio.run(main)

    assert stalls >= 1
    assert seconds >= 0.3


def test_a_watch_ends_with_its_block() -> None:
    """However the block ends, nothing of it stays in the loop."""

    async def main() -> None:
        with pytest.raises(ValueError, match="planted"), watching() as watch:
            raise ValueError("planted")
        with pytest.raises(KeyError):
            trio.lowlevel.remove_instrument(watch)

    trio.run(main)


async def test_the_jump_of_a_virtual_clock_is_no_stall(autojump_clock: MockClock) -> None:
    """A day passes in no time: the loop has not stood still for a day."""
    watch = LagWatch()
    trio.lowlevel.add_instrument(watch)
    await trio.sleep(86_400)
    trio.lowlevel.remove_instrument(watch)
    assert watch.stalled < 60.0


@pytest.mark.parametrize("rate", [0.0, 10.0])
def test_on_a_virtual_clock_nothing_is_watched(rate: float) -> None:
    """What a simulation does must not depend on how busy the machine is."""

    async def main() -> None:
        with watching() as watch:
            with pytest.raises(KeyError):
                trio.lowlevel.remove_instrument(watch)
            assert watch.since(watch.mark()) == 0.0

    trio.run(main, clock=MockClock(rate=rate, autojump_threshold=0))


# -- through a client


@pytest.mark.parametrize(("blocked", "circuit"), [(0.2, Circuit.CLOSED), (0.0, Circuit.OPEN)])
def test_our_own_stall_trips_no_breaker(blocked: float, circuit: Circuit) -> None:
    """A first token that is late while our loop stands still is no failure; one that is late by itself is."""
    config = model(
        retry=RetryConfig(max_attempts=1),
        breaker=BreakerConfig(failure_threshold=1),
        timeouts=TimeoutsConfig(first_token=0.1),
    )

    async def block() -> None:
        await trio.sleep(0.02)
        time.sleep(blocked)  # noqa: ASYNC251 - that is what is measured

    async def main() -> None:
        async with client_of(Scripted(says(0.15, "late")), config) as client, trio.open_nursery() as nursery:
            nursery.start_soon(block)
            with pytest.raises(ProviderTimeoutError):
                await client.generate("Why?")
            await trio.sleep(0.01)
            assert (await breaker(client)).circuit is circuit

    trio.run(main)
