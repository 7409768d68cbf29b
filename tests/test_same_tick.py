"""A thousand calls that end, or are cancelled, in one tick: not a slot, turn, token or permit is lost, whoever waits
for what.

Trio resumes the tasks of one tick in an order of its own, another one each run; the counts must not depend on it.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import USAGE, Scripted, assert_nothing_held, breaker, client_of, limiter, model, says, worker
from wizard_actors import ResilientClient
from wizard_actors.config import CacheConfig, RateLimitConfig, ServerConfig

CALLS: Final = 1000
MORE: Final = 100
TOKENS: Final = 10_000_000

LIMIT: Final = RateLimitConfig(
    requests_per_minute=600.0, tokens_per_minute=TOKENS, burst=CALLS, max_wait=1000.0, adaptive=False
)
"""Ten a second, a thousand at once after a rest."""

ENDS_AT: Final = 5.0
ANSWER: Final = says("one ", ENDS_AT, "two", USAGE)
"""All calls of one instant end in one tick, five seconds later."""

pytestmark = pytest.mark.long

Ask: TypeAlias = Callable[[ResilientClient, str], Awaitable[str]]


async def whole(client: ResilientClient, prompt: str) -> str:
    """Ask for a whole answer."""
    return (await client.generate(prompt)).text


async def live(client: ResilientClient, prompt: str) -> str:
    """Read a live stream."""
    async with client.stream(prompt) as stream:
        return "".join([text async for text in stream.text()])


WAYS: Final[dict[str, Ask]] = {"generate": whole, "stream": live}


@define
class Crowd:
    """Many calls, each in a task and a scope of its own: how many were answered, and how many cancelled."""

    client: ResilientClient
    ask: Ask
    answered: int = 0
    cancelled: int = 0
    scopes: list[trio.CancelScope] = field(factory=list)

    def start(self, nursery: trio.Nursery, calls: int, prompt: str | None = None) -> None:
        """Start so many calls in this instant; without `prompt` each asks something else."""
        for number in range(calls):
            scope = trio.CancelScope()
            self.scopes.append(scope)
            nursery.start_soon(self._call, scope, prompt or f"question {number}")

    async def _call(self, scope: trio.CancelScope, prompt: str) -> None:
        with scope:
            assert await self.ask(self.client, prompt) == "one two"
            self.answered += 1
            return
        self.cancelled += 1

    def cancel(self, first: int = 0, last: int = CALLS) -> None:
        """Cancel these calls, in one step of one task."""
        for scope in self.scopes[first:last]:
            scope.cancel()


async def assert_the_books_add_up(client: ResilientClient, a: Scripted, *, answered: int) -> None:
    """What was granted was sent or came back; what was sent ended; tokens are settled as used, or at their estimate."""
    await assert_nothing_held(client, a)
    turns, slots, permits = await limiter(client), await worker(client), await breaker(client)
    health, sent = slots.health, len(a.calls)
    assert turns.granted - turns.refunded == sent
    assert turns.rejected == slots.rejected == 0
    assert (health.succeeded, health.failed, health.ignored) == (answered, 0, sent - answered)
    assert permits.admitted >= sent
    assert (permits.opened, permits.refused, permits.fenced) == (0, 0, 0)
    gauges = client.metrics().gauges
    assert gauges is not None
    assert gauges.in_flight == 0


async def assert_the_next_ones_keep_pace(client: ResilientClient, a: Scripted, ask: Ask, *, began: float) -> None:
    """Another hundred calls pass as soon as the rate allows, counted from all that was sent since the instant `began`.

    One turn, slot or permit too few and somebody would wait longer, or for ever; one too many, and less long.
    """
    sent, now = len(a.calls), trio.current_time()
    after = Crowd(client, ask)
    async with trio.open_nursery() as nursery:
        after.start(nursery, MORE)
    assert after.answered == MORE
    due = [max(now, began + (sent + number - CALLS) * 60.0 / 600.0) for number in range(1, MORE + 1)]
    assert sorted(call.start for call in a.calls[sent:]) == pytest.approx(due)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("slots", [CALLS, 100])
async def test_a_thousand_calls_end_in_one_tick(autojump_clock: MockClock, slots: int, way: str) -> None:
    """All at once, or in ten ticks of a hundred, each of which lets the next hundred in."""
    a = Scripted(ANSWER)
    async with client_of(a, model(slots=slots, limit=LIMIT), server=ServerConfig(queue_timeout=100.0)) as client:
        began, crowd = trio.current_time(), Crowd(client, WAYS[way])
        async with trio.open_nursery() as nursery:
            crowd.start(nursery, CALLS)

        assert (crowd.answered, len(a.calls)) == (CALLS, CALLS)
        assert {call.end - began for call in a.calls} == {ENDS_AT * (n + 1) for n in range(CALLS // slots)}
        await assert_the_books_add_up(client, a, answered=CALLS)
        turns = await limiter(client)
        assert (turns.tokens_settled, turns.remaining_tokens) == (15 * CALLS, TOKENS - 15 * CALLS)
        assert (await worker(client)).granted == CALLS
        await assert_the_next_ones_keep_pace(client, a, WAYS[way], began=began)
        await assert_nothing_held(client, a)


@pytest.mark.parametrize("scopes", ["one scope each", "a shared scope"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("slots", [CALLS, 100])
async def test_a_thousand_calls_are_cancelled_in_one_tick(
    autojump_clock: MockClock, slots: int, way: str, scopes: str
) -> None:
    """In the middle of their answers, or nine of ten while they wait for a slot, in the room, its lane or before it."""
    a = Scripted(ANSWER)
    async with client_of(a, model(slots=slots, limit=LIMIT)) as client:
        began, crowd = trio.current_time(), Crowd(client, WAYS[way])
        async with trio.open_nursery() as nursery:
            crowd.start(nursery, CALLS)
            await trio.sleep(1.0)
            if scopes == "one scope each":
                crowd.cancel()
            else:
                nursery.cancel_scope.cancel()

        assert trio.current_time() - began == 1.0
        assert (crowd.answered, len(a.calls)) == (0, slots)
        assert crowd.cancelled == (CALLS if scopes == "one scope each" else 0)
        await assert_the_books_add_up(client, a, answered=0)
        turns = await limiter(client)
        assert turns.tokens_settled == turns.tokens_reserved > 0
        assert turns.remaining_tokens == TOKENS - turns.tokens_reserved
        assert (await worker(client)).granted == slots
        await assert_the_next_ones_keep_pace(client, a, WAYS[way], began=began)
        await assert_nothing_held(client, a)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("slots", [CALLS, 100])
async def test_of_a_thousand_calls_half_end_and_half_are_cancelled_in_one_tick(
    autojump_clock: MockClock, slots: int, way: str
) -> None:
    """In the very tick in which all would end: each has one end, and those that nobody cancelled an answer."""
    a = Scripted(ANSWER)
    async with client_of(a, model(slots=slots, limit=LIMIT), server=ServerConfig(queue_timeout=100.0)) as client:
        began, crowd = trio.current_time(), Crowd(client, WAYS[way])
        async with trio.open_nursery() as nursery:
            crowd.start(nursery, CALLS)
            await trio.sleep(ENDS_AT)
            crowd.cancel(CALLS // 2)

        assert crowd.answered + crowd.cancelled == CALLS
        assert CALLS // 2 <= crowd.answered < CALLS
        answered = (await worker(client)).health.succeeded
        assert crowd.answered <= answered <= len(a.calls)  # who is cancelled once the answer is whole has had it
        await assert_the_books_add_up(client, a, answered=answered)
        await assert_the_next_ones_keep_pace(client, a, WAYS[way], began=began)
        await assert_nothing_held(client, a)


@pytest.mark.parametrize("way", WAYS)
async def test_a_thousand_who_wait_for_the_limiter_are_cancelled_in_one_tick(
    autojump_clock: MockClock, way: str
) -> None:
    """All but the first hold a slot and wait for their turn: none is spent, and the next call gets the next one."""
    a = Scripted(ANSWER)
    limit = RateLimitConfig(requests_per_minute=60.0, tokens_per_minute=TOKENS, burst=1, max_wait=10_000.0)
    async with client_of(a, model(slots=CALLS, limit=limit)) as client:
        began, crowd = trio.current_time(), Crowd(client, WAYS[way])
        async with trio.open_nursery() as nursery:
            crowd.start(nursery, CALLS)
            await trio.sleep(0.5)
            waiting = (await worker(client)).in_use
            crowd.cancel()

        assert (waiting, crowd.cancelled, len(a.calls)) == (CALLS, CALLS, 1)
        await assert_the_books_add_up(client, a, answered=0)
        after = Crowd(client, WAYS[way])
        async with trio.open_nursery() as nursery:
            after.start(nursery, 5)
        assert after.answered == 5
        assert [call.start - began for call in a.calls] == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
        await assert_nothing_held(client, a)


@pytest.mark.parametrize("way", WAYS)
async def test_who_is_cancelled_in_the_tick_of_its_turn_gives_it_to_the_next(
    autojump_clock: MockClock, way: str
) -> None:
    """A hundred turns are granted in the instant in which their callers leave: sent or given back, none is lost."""
    a = Scripted(ANSWER)
    limit = RateLimitConfig(requests_per_minute=600.0, burst=1, max_wait=1000.0, adaptive=False)
    async with client_of(a, model(slots=CALLS, limit=limit)) as client:
        began, crowd = trio.current_time(), Crowd(client, WAYS[way])
        async with trio.open_nursery() as nursery:
            crowd.start(nursery, CALLS)
            for tenth in range(1, 11):
                await trio.sleep_until(began + tenth / 10)
                crowd.cancel(0, tenth * CALLS // 10)

        assert crowd.answered + crowd.cancelled == CALLS
        turns = await limiter(client)
        assert turns.granted - turns.refunded == len(a.calls)
        assert len(a.calls) <= 11  # one a tenth of a second, and the first
        await assert_nothing_held(client, a)
        assert await WAYS[way](client, "and now?") == "one two"
        assert a.calls[-1].start - began <= 1.1 + 1e-9


@pytest.mark.parametrize("leaving", [CALLS, CALLS // 2])
async def test_a_leader_and_its_followers_are_cancelled_in_one_tick(autojump_clock: MockClock, leaving: int) -> None:
    """One asks for a thousand. When all leave, the flight is over; when half stay, one of them asks anew for all."""
    a = Scripted(ANSWER)
    cache = CacheConfig(max_entries=100)
    async with client_of(a, model(slots=CALLS, limit=LIMIT), cache=cache) as client:
        crowd = Crowd(client, whole)
        with trio.fail_after(60.0):
            async with trio.open_nursery() as nursery:
                crowd.start(nursery, 1, "the same")
                await wait_all_tasks_blocked()
                crowd.start(nursery, CALLS - 1, "the same")
                await trio.sleep(1.0)
                led, followed, flights = shared(client)
                crowd.cancel(0, leaving)

        stayed = CALLS - leaving
        assert (led, followed, flights) == (1, CALLS - 1, 1)
        assert (crowd.answered, crowd.cancelled) == (stayed, leaving)
        assert len(a.calls) == (2 if stayed else 1)
        await assert_the_books_add_up(client, a, answered=1 if stayed else 0)
        assert shared(client)[2] == 0

        assert await whole(client, "the same") == "one two"
        assert len(a.calls) == 2  # the cache has what the second leader got; else this is the second call
        await assert_nothing_held(client, a)
        assert shared(client)[2] == 0


def shared(client: ResilientClient) -> tuple[int, int, int]:
    """Return how many have led and followed a call so far, and how many such calls are under way."""
    state = client.cache
    assert state is not None
    return state.led, state.followed, len(state.flights)
