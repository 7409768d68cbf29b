"""A limiter that guards something that is no language model, under a supervisor of the user's own."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wizard_actors import RateLimitError
from wizard_actors.config import RateLimitConfig, RetryConfig
from wizard_actors.errors import DeadlineExceededError
from wizard_actors.gcra import LimiterState
from wizard_actors.limiter_handle import Limiter
from wizard_actors.rate_limit import RateLimiter
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor
from wizard_actors.types import LimitHeaders, LimitWindow

LIMITS = RateLimitConfig(requests_per_minute=60, burst=1, tokens_per_minute=600)


@asynccontextmanager
async def geocoder(limits: RateLimitConfig = LIMITS) -> AsyncIterator[tuple[Supervisor, Limiter]]:
    """Run a limiter that knows nothing of models."""
    spec = ChildSpec("limiter", RateLimiter.factory("geocoder", limits, retry=RetryConfig(base_delay=4, max_delay=4)))
    async with Supervisor(GroupSpec("app", [spec])) as tree:
        yield tree, Limiter(tree.ref("limiter", LimiterState))


async def state(limiter: Limiter) -> LimiterState:
    """Return what is published once all is quiet."""
    await wait_all_tasks_blocked()
    assert limiter.state is not None
    return limiter.state


async def test_requests_go_at_the_rate(autojump_clock: MockClock) -> None:
    """One a second, each in its block."""
    async with geocoder() as (_, limiter):
        instants = []
        for _ in range(3):
            async with limiter.request() as leave:
                instants.append(leave.at)
    assert instants == [0.0, 1.0, 2.0]


async def test_whoever_would_wait_too_long_is_told_at_once(autojump_clock: MockClock) -> None:
    """By its patience, or its deadline; with the name of whom it is about."""
    async with geocoder() as (_, limiter):
        async with limiter.request():
            pass
        for request in (limiter.request(max_wait=0.5), limiter.request(deadline=trio.current_time() + 0.5)):
            with pytest.raises(RateLimitError, match="geocoder is at its rate limit"):
                async with request:
                    raise AssertionError("entered")
        with pytest.raises(DeadlineExceededError):
            async with limiter.request(deadline=-math.inf):
                raise AssertionError("entered")


async def test_what_was_used_is_settled_when_the_block_ends(autojump_clock: MockClock) -> None:
    """Said, it counts; unsaid, the reservation does, also after an exception or a cancellation."""
    async with geocoder() as (tree, limiter):
        async with limiter.request(100) as leave:
            leave.used(30)
        assert (await state(limiter)).remaining_tokens == 570
        with pytest.raises(ZeroDivisionError):
            async with limiter.request(50):
                raise ZeroDivisionError
        with trio.move_on_after(5.0):
            async with limiter.request(50):
                await trio.sleep_forever()
        async with limiter.request(50) as leave:
            leave.unsent()
        assert (await state(limiter)).remaining_tokens == 470
        assert tree.outstanding == {}


@pytest.mark.parametrize("bad", ["5s", math.nan, -1.0], ids=str)
async def test_a_bad_patience_is_the_callers_mistake(bad: float, autojump_clock: MockClock) -> None:
    """It is told at once, before anything is asked."""
    async with geocoder() as (_, limiter):
        with pytest.raises((TypeError, ValueError), match="max_wait"):
            limiter.request(max_wait=bad)
        with pytest.raises((TypeError, ValueError), match="tokens"):
            limiter.request(bad)  # type: ignore[arg-type]  # what it refuses
        with pytest.raises((TypeError, ValueError), match="deadline"):
            limiter.request(deadline=math.nan)


async def test_patience_without_an_end_waits_for_ever(autojump_clock: MockClock) -> None:
    """None says so."""
    async with geocoder() as (_, limiter):
        async with limiter.request() as leave:
            leave.limited(retry_after=3600)
        async with limiter.request(max_wait=None) as leave:
            assert leave.at == 3600.0


@pytest.mark.parametrize("said", [math.nan, -5.0, 0])
async def test_a_refusal_that_names_no_time_to_come_says_nothing(said: float, autojump_clock: MockClock) -> None:
    """The pause is that of the retry policy, as where nothing was said."""
    async with geocoder() as (_, limiter):
        async with limiter.request() as leave:
            leave.limited(retry_after=said)
            with pytest.raises(TypeError, match="retry_after"):
                leave.limited(retry_after="soon")  # type: ignore[arg-type]  # what it refuses
        assert 2.0 <= (await state(limiter)).paused_until <= 4.0


async def test_the_state_is_that_of_now(autojump_clock: MockClock) -> None:
    """Also where nothing has happened for an hour."""
    async with geocoder() as (_, limiter):
        async with limiter.request(100) as leave:
            leave.used(1_000)
            leave.limited(retry_after=5)
        busy = await state(limiter)
        await trio.sleep(3600.0)
        idle = await state(limiter)
        assert (busy.rate, busy.remaining_tokens) == (30.0, 0)
        assert (idle.rate, idle.remaining_tokens, idle.token_debt, idle.burst_used) == (60.0, 600, 0.0, 0.0)


async def test_a_refusal_holds_everybody_back(autojump_clock: MockClock) -> None:
    """As long as it says, else as the retry policy says."""
    async with geocoder() as (_, limiter):
        async with limiter.request() as leave:
            leave.limited(retry_after=7)
        assert (await state(limiter)).paused_until == 7.0
        async with limiter.request() as leave:
            assert leave.at == 7.0
            leave.limited()
        assert 9.0 <= (await state(limiter)).paused_until <= 11.0


async def test_headers_teach(autojump_clock: MockClock) -> None:
    """At once, while the request still runs."""
    async with geocoder(RateLimitConfig()) as (_, limiter), limiter.request() as leave:
        leave.learn(LimitHeaders(LimitWindow(limit=100, remaining=10, reset=20)))
        assert (await state(limiter)).rate == pytest.approx(30.0)


async def test_a_cancelled_wait_costs_nothing(autojump_clock: MockClock) -> None:
    """Nor does one that is cancelled in the very instant of its grant."""
    for patience in (0.5, 1.0):
        async with geocoder() as (tree, limiter):
            began = trio.current_time()
            async with limiter.request():
                pass
            with trio.move_on_at(began + patience):
                async with limiter.request() as leave:
                    leave.unsent()
                    await trio.sleep_forever()
            assert tree.outstanding == {} or (await state(limiter)).waiting == 0
            async with limiter.request() as leave:
                assert leave.at - began <= 1.0


async def test_a_request_is_made_once() -> None:
    """Another one needs another call of `request`."""
    async with geocoder() as (_, limiter):
        request = limiter.request()
        async with request:
            pass
        with pytest.raises(RuntimeError, match="made already"):
            async with request:
                raise AssertionError("entered")
