"""The rate limiter of one model: turns in order, refusals at once, pauses, and what providers' answers teach."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wizard_actors import ActorCrashedError, RateLimitError, WizardError
from wizard_actors.actor import ActorRef
from wizard_actors.config import RateLimitConfig
from wizard_actors.gcra import Grant, LimiterState
from wizard_actors.rate_limit import Acquire, HeadersSeen, RateLimiter, Reconfigure, Settle
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor
from wizard_actors.types import LimitHeaders, LimitWindow

Ref = ActorRef[LimiterState]

A_SECOND = RateLimitConfig(requests_per_minute=60, burst=1)
NO_LIMIT = RateLimitConfig()


@asynccontextmanager
async def limiter_of(config: RateLimitConfig = A_SECOND, seed: int = 1) -> AsyncIterator[tuple[Supervisor, Ref]]:
    """Run one limiter."""
    spec = ChildSpec("limiter", RateLimiter.factory("a", config, rng=Random(seed)), mailbox=2)
    async with Supervisor(GroupSpec("wizard", [spec])) as tree:
        yield tree, tree.ref("limiter", LimiterState)


async def state(ref: Ref) -> LimiterState:
    """Return what the limiter publishes once all is quiet."""
    await wait_all_tasks_blocked()
    published = ref.published
    assert published is not None
    return published


async def turn(ref: Ref, max_wait: float = 30.0, deadline: float = math.inf, tokens: int = 0) -> Grant:
    """Wait for one turn."""
    return await ref.ask(Acquire(trio.current_time(), max_wait, deadline, tokens))


class Callers:
    """Tasks that wait for their turns, and what became of each, by its number: when it came, or why not."""

    def __init__(self, ref: Ref, nursery: trio.Nursery) -> None:
        self.ref = ref
        self.nursery = nursery
        self.came: dict[int, float] = {}
        self.errors: dict[int, WizardError] = {}
        self.scopes: dict[int, trio.CancelScope] = {}

    async def come(self, count: int, max_wait: float = 100.0) -> None:
        """Let `count` callers come, one after the other."""
        for _ in range(count):
            self.nursery.start_soon(self._call, len(self.scopes), max_wait)
            await wait_all_tasks_blocked()

    async def _call(self, number: int, max_wait: float) -> None:
        with trio.CancelScope() as self.scopes[number]:
            try:
                grant = await turn(self.ref, max_wait)
            except WizardError as error:
                self.errors[number] = error
            else:
                self.came[number] = trio.current_time()
                self.ref.give_back(grant, Settle())


async def test_turns_come_in_order_at_the_rate(autojump_clock: MockClock) -> None:
    """One a second; nobody overtakes."""
    async with limiter_of() as (_, ref), trio.open_nursery() as nursery:
        callers = Callers(ref, nursery)
        await callers.come(4)
        await trio.sleep(10.0)

        assert callers.came == {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0}
        assert (await state(ref)).throttled == 3


async def test_without_a_limit_nobody_waits(autojump_clock: MockClock) -> None:
    """Once a first answer has shown that a provider says nothing of limits."""
    async with limiter_of(NO_LIMIT) as (_, ref), trio.open_nursery() as nursery:
        ref.give_back(await turn(ref), Settle(succeeded=True))
        callers = Callers(ref, nursery)
        await callers.come(50)

        assert set(callers.came.values()) == {0.0}


async def test_whoever_would_be_too_late_is_told_at_once(autojump_clock: MockClock) -> None:
    """By its own patience, or by its deadline, whichever it was; with the wait that a newcomer would have."""
    async with limiter_of() as (_, ref), trio.open_nursery() as nursery:
        callers = Callers(ref, nursery)
        await callers.come(3)

        for max_wait, deadline, bound in (
            (2.9, math.inf, r"max_wait \(2.9 s\) allows"),
            (30.0, 2.9, r"its deadline, in 2.9 s, allows"),
        ):
            with pytest.raises(RateLimitError, match=f"the call would wait another 3 s, longer than {bound}") as caught:
                await turn(ref, max_wait, deadline)
            assert (caught.value.source, caught.value.retry_after, caught.value.model) == ("limiter", 3.0, "a")
        assert trio.current_time() == 0.0


async def refusal(ref: Ref, ask: Acquire) -> str:
    """Ask, and return what the refusal says."""
    with pytest.raises(RateLimitError) as caught:
        await ref.ask(ask)
    return str(caught.value).removeprefix("a is at its rate limit: ")


async def test_a_refusal_names_the_bound_that_made_it(autojump_clock: MockClock) -> None:
    """The setting, where the patience is a model's configured one; and how long the call has waited already."""
    async with limiter_of(RateLimitConfig(requests_per_minute=1, burst=1, max_wait=30)) as (_, ref):
        await turn(ref)
        now = trio.current_time()

        assert await refusal(ref, Acquire(now, 30.0, model="a")) == (
            "the call would wait another 60 s, longer than rate_limit.max_wait (30 s) allows"
        )
        assert await refusal(ref, Acquire(now - 10.0, 15.0, model="a")) == (
            "the call has waited 10 s, and would wait another 60 s, longer than max_wait (15 s) allows"
        )
        assert await refusal(ref, Acquire(now, 30.0, deadline=now + 20.0, model="a")) == (
            "the call would wait another 60 s, longer than its deadline, in 20 s, allows"
        )


async def test_a_refusal_after_a_wait_names_what_came_between(autojump_clock: MockClock) -> None:
    """A slower pace, or a pause of more than the call's cap."""
    for cap, said in (
        (math.inf, "the call has waited 0.5 s, and would wait for longer than max_wait (5 s) allows"),
        (4.0, "a 429 has paused it for another 2e+03 s, longer than the cap on Retry-After (4 s) allows"),
    ):
        refusals: list[str] = []

        async def call(ref: Ref, cap: float, refusals: list[str]) -> None:
            refusals.append(await refusal(ref, Acquire(trio.current_time(), 5.0, longest_pause=cap)))

        async with limiter_of() as (_, ref), trio.open_nursery() as nursery:
            sent = await turn(ref)
            nursery.start_soon(call, ref, cap, refusals)
            await trio.sleep(0.5)
            ref.give_back(sent, Settle(limited=True, retry_after=2000.0))
            await wait_all_tasks_blocked()

            assert refusals == [said.replace("2e+03", "2000")]
            if cap < math.inf:
                assert "paused it for another 2000 s" in await refusal(ref, Acquire(0.5, 5.0, longest_pause=cap))


async def test_whoever_has_waited_its_time_out_is_told_so(autojump_clock: MockClock) -> None:
    """Where the turn was late and not planned so: the loop stood still."""
    for max_wait, patience, said in (
        (30.0, math.inf, "the call has waited 32 s, and that is all that rate_limit.max_wait (30 s) allows"),
        (40.0, 30.0, "the call has waited 32 s, and its deadline has come"),
    ):
        refusals: list[str] = []

        async def call(ref: Ref, acquire: Acquire, refusals: list[str]) -> None:
            refusals.append(await refusal(ref, acquire))

        async with limiter_of(RateLimitConfig(requests_per_minute=2, max_wait=30)) as (_, ref):
            async with trio.open_nursery() as nursery:
                await turn(ref)
                now = trio.current_time()
                nursery.start_soon(call, ref, Acquire(now, max_wait, now + patience, model="a"), refusals)
                await wait_all_tasks_blocked()
                autojump_clock.jump(32.0)

            assert refusals == [said]


BAD_ASKS: list[dict[str, object]] = [
    {"max_wait": None},
    {"max_wait": "5s"},
    {"max_wait": math.nan},
    {"deadline": math.nan},
    {"deadline": 10**400},
    {"longest_pause": None},
    {"asked_at": "now"},
    {"tokens": 1.5},
    {"tokens": -1},
    {"tokens": None},
    {"expected": "many"},
]


@pytest.mark.parametrize("bad", BAD_ASKS, ids=str)
def test_an_ask_with_bad_numbers_cannot_be_made(bad: dict[str, object]) -> None:
    """Whoever makes it is told, and nobody else."""
    with pytest.raises((TypeError, ValueError), match=next(iter(bad))):
        Acquire(**{"asked_at": 0.0, "max_wait": 1.0, **bad})  # type: ignore[arg-type]  # what it refuses


@pytest.mark.parametrize("bad", [{"retry_after": "5"}, {"tokens": -1}, {"tokens": 0.5}], ids=str)
def test_a_settlement_with_bad_numbers_cannot_be_made(bad: dict[str, object]) -> None:
    """Nor headers with anything but numbers."""
    with pytest.raises((TypeError, ValueError), match=next(iter(bad))):
        Settle(**bad)  # type: ignore[arg-type]  # what it refuses
    for window in (LimitWindow("10"), LimitWindow(reset=10**400)):  # type: ignore[arg-type]  # what it refuses
        with pytest.raises((TypeError, ValueError), match=r"limit|reset"):
            HeadersSeen(LimitHeaders(tokens=window))


async def test_no_number_that_can_be_said_harms_the_limiter(autojump_clock: MockClock) -> None:
    """However large, or no time at all: the next call goes within minutes, and nobody's ask fails."""
    settles = [
        Settle(limited=True, retry_after=math.nan),
        Settle(limited=True, retry_after=-5.0),
        Settle(limited=True, retry_after=-math.inf),
        Settle(succeeded=True, tokens=10**400),
    ]
    for settle in settles:
        granted: list[Grant] = []

        async def wait(ref: Ref, granted: list[Grant]) -> None:
            granted.append(await turn(ref, max_wait=math.inf, tokens=100))

        async with limiter_of(RateLimitConfig(tokens_per_minute=600)) as (_, ref), trio.open_nursery() as nursery:
            began = trio.current_time()
            full = await turn(ref, tokens=600)
            nursery.start_soon(wait, ref, granted)
            await wait_all_tasks_blocked()
            ref.give_back(full, settle)
            await trio.sleep(75.0)

            assert [grant.at <= began + 75.0 for grant in granted] == [True]
            nursery.cancel_scope.cancel()
    async with limiter_of(RateLimitConfig(tokens_per_minute=600)) as (_, ref):
        huge = await turn(ref, tokens=10**400)
        waits = [await refusal(ref, Acquire(trio.current_time(), wait, -math.inf)) for wait in (math.inf, 0)]
        ref.give_back(huge, Settle())

        assert len(waits) == 2
        assert (await turn(ref, max_wait=math.inf, tokens=100)).at <= trio.current_time() + 75.0


async def test_the_wait_counts_from_the_asking(autojump_clock: MockClock) -> None:
    """Also while the ask still stood in its lane; but what is due at once is not too late."""
    async with limiter_of() as (_, ref):
        first = await turn(ref)
        with pytest.raises(RateLimitError):
            await ref.ask(Acquire(asked_at=-30.0, max_wait=30.5))
        ref.give_back(first, Settle())
        await trio.sleep(5.0)

        assert (await ref.ask(Acquire(asked_at=0.0, max_wait=1.0))).at == 5.0


async def test_those_behind_one_who_leaves_move_up(autojump_clock: MockClock) -> None:
    """Of 40 who wait 30 leave: the last call goes after 9 s, not after 39."""
    async with limiter_of() as (_, ref), trio.open_nursery() as nursery:
        callers = Callers(ref, nursery)
        await callers.come(40)
        for number in range(5, 35):
            callers.scopes[number].cancel()
        await trio.sleep(60.0)

        assert len(callers.came) == 10
        assert max(callers.came.values()) == 9.0


async def test_a_turn_that_reaches_nobody_is_refunded(autojump_clock: MockClock) -> None:
    """A caller that leaves in the very step in which its turn comes costs nothing."""
    for seed in range(20):
        async with limiter_of(seed=seed) as (tree, ref), trio.open_nursery() as nursery:
            callers = Callers(ref, nursery)
            await callers.come(3)
            nursery.start_soon(leave_at, callers.scopes[1], trio.current_time() + 1.0)
            began = trio.current_time()
            await trio.sleep(5.0)

            taken = 1 in callers.came  # the turn may have come before the leaving
            assert callers.came[2] - began == (2.0 if taken else 1.0)
            assert tree.outstanding == {}


async def leave_at(scope: trio.CancelScope, instant: float) -> None:
    """Cancel a task in the instant in which something else is due."""
    await trio.sleep_until(instant)
    scope.cancel()


async def test_a_request_that_was_not_sent_costs_nothing(autojump_clock: MockClock) -> None:
    """Its turn comes back, and the next one is due earlier by it."""
    async with limiter_of() as (_, ref):
        ref.give_back(await turn(ref), Settle(sent=False))
        assert (await state(ref)).refunded == 1

        assert (await turn(ref)).at == 0.0


async def test_a_429_pauses_everybody_for_as_long_as_it_says(autojump_clock: MockClock) -> None:
    """Those who wait too; whoever would now be too late is told at once."""
    async with limiter_of() as (_, ref), trio.open_nursery() as nursery:
        sent = await turn(ref)
        callers = Callers(ref, nursery)
        await callers.come(2, max_wait=5.0)
        await callers.come(1)

        ref.give_back(sent, Settle(limited=True, retry_after=20.0))
        await wait_all_tasks_blocked()

        assert {type(error) for error in callers.errors.values()} == {RateLimitError}
        assert sorted(callers.errors) == [0, 1]
        await trio.sleep(30.0)
        assert callers.came == {2: 20.0}


async def test_pauses_that_nobody_stated_grow_from_round_to_round(autojump_clock: MockClock) -> None:
    """They double up to the longest delay, are jittered in their upper half, and start over after an answer."""
    async with limiter_of(NO_LIMIT) as (_, ref):
        pauses = []
        for _ in range(7):
            ref.give_back(await turn(ref), Settle(limited=True))
            pauses.append((await state(ref)).paused_until - trio.current_time())
            await trio.sleep(10.0)
        limits = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
        assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, limits, strict=True))

        await trio.sleep(10.0)
        ref.give_back(await turn(ref), Settle())  # neither answered nor limited: no news
        ref.give_back(await turn(ref), Settle(limited=True))
        assert (await state(ref)).paused_until - trio.current_time() >= 4.0
        await trio.sleep(10.0)
        ref.give_back(await turn(ref), Settle(succeeded=True))
        await wait_all_tasks_blocked()
        ref.give_back(await turn(ref), Settle(limited=True))

        assert (await state(ref)).paused_until - trio.current_time() <= 0.5


async def test_an_answer_to_a_call_of_before_the_429_is_old_news(autojump_clock: MockClock) -> None:
    """It was under way already when the provider refused."""
    async with limiter_of(NO_LIMIT) as (_, ref):
        old = await turn(ref)
        for _ in range(5):
            ref.give_back(await turn(ref), Settle(limited=True))
            await trio.sleep(10.0)
        ref.give_back(old, Settle(succeeded=True))
        ref.give_back(await turn(ref), Settle(limited=True))

        assert (await state(ref)).paused_until - trio.current_time() >= 4.0


async def test_no_pause_is_longer_than_a_day_or_nothing_at_all(autojump_clock: MockClock) -> None:
    """Whoever asks for more has a broken clock; whoever asks for nothing has refused all the same."""
    for said, least, most in ((1e9, 86_400.0, 86_400.0), (math.inf, 86_400.0, 86_400.0), (0.0, 0.25, 0.5)):
        async with limiter_of(NO_LIMIT) as (_, ref):
            ref.give_back(await turn(ref), Settle(limited=True, retry_after=said))

            assert least <= (await state(ref)).paused_until - trio.current_time() <= most


async def test_calls_that_were_under_way_together_meet_one_429(autojump_clock: MockClock) -> None:
    """However many of them are refused, the pause is that of one round, and the rate is halved once."""
    config = RateLimitConfig(requests_per_minute=600, burst=20)
    async with limiter_of(config) as (_, ref):
        sent = [await turn(ref) for _ in range(20)]
        for grant in sent:
            await trio.sleep(0.01)
            ref.give_back(grant, Settle(limited=True))

        after = await state(ref)
        assert after.paused_until - trio.current_time() <= 0.5
        assert after.rate == 300.0


async def test_a_limit_that_is_not_adaptive_pauses_and_keeps_its_rate(autojump_clock: MockClock) -> None:
    """Headers teach it nothing."""
    config = RateLimitConfig(requests_per_minute=60, adaptive=False)
    async with limiter_of(config) as (_, ref):
        grant = await turn(ref)
        headers = LimitHeaders(requests=LimitWindow(limit=100.0, remaining=1.0, reset=60.0))
        ref.notify(grant, HeadersSeen(headers))
        ref.give_back(grant, Settle(limited=True, retry_after=7.0))

        after = await state(ref)
        assert (after.rate, after.paused_until) == (60.0, 7.0)


async def test_headers_slow_an_adaptive_limit_down(autojump_clock: MockClock) -> None:
    """What remains has to last until the reset."""
    async with limiter_of(NO_LIMIT) as (_, ref):
        grant = await turn(ref)
        ref.notify(grant, HeadersSeen(LimitHeaders(requests=LimitWindow(limit=100.0, remaining=20.0, reset=60.0))))
        ref.give_back(grant, Settle())

        assert (await state(ref)).rate == pytest.approx(20.0)


async def test_a_full_waiting_room_lets_the_lane_fill(autojump_clock: MockClock) -> None:
    """Asks wait for room, and are answered no later than those before them."""
    config = RateLimitConfig(requests_per_minute=60, burst=1, queue=1)
    async with limiter_of(config) as (tree, ref), trio.open_nursery() as nursery:
        callers = Callers(ref, nursery)
        await callers.come(6, max_wait=2.0)
        [lanes] = [node.lanes for node in tree.tree().children]
        assert lanes is not None
        assert (lanes.kept, lanes.asks, lanes.senders_waiting) == (1, 2, 2)

        await trio.sleep(10.0)

        assert callers.came == {0: 0.0, 1: 1.0, 2: 2.0}
        assert [type(error) for error in callers.errors.values()] == [RateLimitError] * 3


async def test_after_a_crash_the_pause_goes_on_and_the_bucket_is_empty(autojump_clock: MockClock) -> None:
    """Nobody gets more out of a limiter because it crashed; who waited asks again."""
    async with limiter_of(RateLimitConfig(requests_per_minute=60, burst=10)) as (tree, ref):
        sent = await turn(ref)
        async with trio.open_nursery() as nursery:
            callers = Callers(ref, nursery)
            ref.give_back(sent, Settle(limited=True, retry_after=5.0))
            await wait_all_tasks_blocked()
            await callers.come(1)
            tree.kill("limiter", RuntimeError("planted"))
            await wait_all_tasks_blocked()
            assert [type(error) for error in callers.errors.values()] == [ActorCrashedError]
            await callers.come(2)

        assert list(callers.came.values()) == [5.0, 7.0]


async def test_a_turn_of_before_the_crash_comes_back_without_harm(autojump_clock: MockClock) -> None:
    """It is settled like any other, and gives nobody a second turn."""
    async with limiter_of() as (tree, ref):
        grant = await turn(ref)
        tree.kill("limiter", RuntimeError("planted"))
        await wait_all_tasks_blocked()
        ref.give_back(grant, Settle())
        await wait_all_tasks_blocked()

        assert tree.outstanding == {}
        second = await turn(ref)
        assert second.at == 1.0
        ref.give_back(second, Settle())


# -- tokens


TOKENS = RateLimitConfig(tokens_per_minute=400)


async def test_token_limits_race_five_concurrent_calls_spent_663_tokens_of_100(autojump_clock: MockClock) -> None:
    """Five at once, of 150 tokens against 400 a minute: never more than the limit in any minute."""
    granted: list[Grant] = []

    async def call(ref: Ref) -> None:
        grant = await turn(ref, max_wait=math.inf, tokens=150)
        granted.append(grant)
        await trio.sleep(2.0)
        ref.give_back(grant, Settle(succeeded=True, tokens=150))

    async with limiter_of(TOKENS) as (_, ref), trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(call, ref)

    assert len(granted) == 5
    assert all(sum(g.tokens for g in granted if s.at <= g.at <= s.at + 60.0) <= 400 for s in granted)


async def test_a_cancelled_call_settles_at_its_estimate(autojump_clock: MockClock) -> None:
    """Providers bill it; only a refusal, or a request that was never sent, costs nothing."""
    for settle, left in (
        (Settle(), 300.0),
        (Settle(tokens=40), 360.0),
        (Settle(limited=True, retry_after=1.0), 400.0),
        (Settle(sent=False), 400.0),
    ):
        async with limiter_of(TOKENS) as (_, ref):
            ref.give_back(await turn(ref, tokens=100), settle)
            assert (await state(ref)).remaining_tokens == left


async def test_the_error_names_the_model_where_a_limiter_is_shared(autojump_clock: MockClock) -> None:
    """And the limiter itself where nobody said for whom."""
    async with limiter_of() as (_, ref):
        await turn(ref)
        for name, shown in (("primary", "primary"), (None, "a")):
            with pytest.raises(RateLimitError, match=f"^{shown} is at its rate limit") as caught:
                await ref.ask(Acquire(trio.current_time(), 0.0, model=name))
            assert caught.value.model == shown


async def test_a_thousand_grants_settled_in_one_tick_lose_nothing(autojump_clock: MockClock) -> None:
    """Every token comes back, and nothing stays outstanding."""
    config = RateLimitConfig(requests_per_minute=1e6, burst=1000, tokens_per_minute=1e6)
    async with limiter_of(config) as (tree, ref):
        grants = [await turn(ref, tokens=100) for _ in range(1000)]
        for number, grant in enumerate(grants):
            ref.give_back(grant, Settle(sent=number % 2 == 0, succeeded=True, tokens=60))

        after = await state(ref)
        assert tree.outstanding == {}
        assert (after.refunded, after.tokens_settled, after.remaining_tokens) == (500, 30_000, 970_000)


async def test_a_thousand_waiters_forgotten_in_one_tick_lose_nothing(autojump_clock: MockClock) -> None:
    """Their places are free, and the next caller has to wait for nobody."""
    async with limiter_of(RateLimitConfig(tokens_per_minute=600, queue=1000)) as (tree, ref):
        ref.give_back(await turn(ref, tokens=100), Settle())
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(lambda: turn(ref, max_wait=math.inf, tokens=100))
            await wait_all_tasks_blocked()
            assert (await state(ref)).waiting == 1000
            nursery.cancel_scope.cancel()

        assert (await state(ref)).waiting == 0
        assert tree.outstanding == {}
        assert (await turn(ref, tokens=10)).at == trio.current_time() == 1.0


async def test_headers_of_tokens_slow_an_adaptive_limit_down(autojump_clock: MockClock) -> None:
    """Before the first 429, where no tokens a minute are configured."""
    async with limiter_of(NO_LIMIT) as (_, ref):
        grant = await turn(ref, tokens=100)
        ref.notify(grant, HeadersSeen(LimitHeaders(tokens=LimitWindow(limit=10_000.0, remaining=1000.0, reset=50.0))))
        ref.give_back(grant, Settle(succeeded=True, tokens=100))

        assert (await state(ref)).token_rate == pytest.approx(1200.0)
        await turn(ref, tokens=100)
        assert (await turn(ref, tokens=100)).at == pytest.approx(5.0)


async def test_a_guess_at_the_answer_reserves_no_more_than_a_quarter_of_a_minute(autojump_clock: MockClock) -> None:
    """What a prompt asks for counts in full."""
    async with limiter_of(TOKENS) as (_, ref):
        guessed = await ref.ask(Acquire(trio.current_time(), 0.0, tokens=5_010, expected=5_000))
        ref.give_back(guessed, Settle(tokens=0))
        named = await ref.ask(Acquire(trio.current_time(), 0.0, tokens=5_010))

        assert (guessed.tokens, named.tokens) == (110, 5_010)


async def test_a_limiter_that_is_reconfigured_keeps_its_waiters(autojump_clock: MockClock) -> None:
    """Who waits is due by the new pace, in order; who would be too late for it is told at once."""
    async with limiter_of() as (_, ref), trio.open_nursery() as nursery:
        callers = Callers(ref, nursery)
        began = trio.current_time()
        await callers.come(4)
        await callers.come(1, max_wait=5.0)
        ref.tell(Reconfigure(RateLimitConfig(requests_per_minute=6, burst=1)))
        await wait_all_tasks_blocked()

        assert list(callers.errors) == [4]
        await trio.sleep(100)
        assert [round(at - began) for at in callers.came.values()] == [0, 10, 20, 30]


@pytest.mark.parametrize("window", [0.0, -1.0, math.inf, math.nan])
def test_a_window_that_is_no_time_is_refused(window: float) -> None:
    """At once, and not by the first request."""
    with pytest.raises(ValueError, match="window"):
        RateLimiter.factory("budget", RateLimitConfig(tokens_per_minute=1), window=window)
