"""Many prompts through one client: an outcome each, in order, so many at once."""

from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from tests.models import USAGE, Scripted, assert_nothing_held, client_of, cut, fails, model, says
from wizard_actors import (
    AuthError,
    ConfigError,
    InvalidPromptError,
    OverloadedError,
    Prompt,
    RateLimitError,
    RequestError,
    WizardError,
    WizardResponse,
)
from wizard_actors.config import (
    BatchConfig,
    CacheConfig,
    PriceConfig,
    RateLimitConfig,
    RetryConfig,
    RouteConfig,
    ServerConfig,
)


async def test_a_batch_keeps_its_order_and_gives_each_prompt_one_outcome(autojump_clock: MockClock) -> None:
    """A prompt that fails, or is none, stands in its place as its error, and stops none of the others."""
    a = Scripted(says(3.0, "1"), fails(RequestError("bad", model="a")), says("3"), says(1.0, "4"))
    async with client_of(a) as client:
        outcomes = await client.generate_batch(["p", Prompt("q"), "r", "", "s"])
        shown = [each.text if isinstance(each, WizardResponse) else each.code for each in outcomes]
        assert shown[3] == InvalidPromptError.code
        assert sorted(shown[:3] + shown[4:]) == ["1", "3", "4", RequestError.code]
        await assert_nothing_held(client, a)


async def test_a_batch_asks_so_many_at_once(autojump_clock: MockClock) -> None:
    """As configured, or as the caller says; the next prompt is taken when one has ended."""
    for given, most in ((None, 4), (2, 2)):
        a = Scripted(says(1.0, "x"))
        async with client_of(a, batch=BatchConfig(max_concurrency=4)) as client:
            seen: list[int] = []
            a.on_open = lambda _seen, a=a, seen=seen: seen.append(a.in_flight)
            told: list[tuple[int, int | None]] = []
            began = trio.current_time()
            prompts = (str(number) for number in range(8))
            await client.generate_batch(
                prompts, max_concurrency=given, on_progress=lambda *far, told=told: told.append(far)
            )
            assert max(seen) == most
            assert trio.current_time() - began == 8 / most
            assert told == [(number, None) for number in range(1, 9)]


async def test_options_that_no_prompt_could_be_asked_with_are_refused_at_once(autojump_clock: MockClock) -> None:
    """One error, and not one for every prompt."""
    a = Scripted()
    async with client_of(a) as client:
        for options in ({"route": "none"}, {"model": "none"}, {"deadline": -1.0}):
            with pytest.raises(ConfigError):
                await client.generate_batch(["p"], **options)
        with pytest.raises(ConfigError):
            await client.generate_batch(["p"], max_concurrency=0)
        assert a.calls == []


async def test_a_cancelled_batch_leaves_nothing_running(autojump_clock: MockClock) -> None:
    """Neither calls nor tasks."""
    a = Scripted(says(10.0, "x"))
    async with client_of(a, model(slots=3)) as client:
        with trio.move_on_after(5.0) as scope:
            await client.generate_batch([str(number) for number in range(10)], max_concurrency=8)
        assert scope.cancelled_caught
        await assert_nothing_held(client, a)


# -- patience ----------------------------------------------------------------------------------------------------------


def codes(outcomes: list[WizardResponse | WizardError]) -> Counter[str]:
    """Count the outcomes by their error's code, answers by their text."""
    return Counter(each.code if isinstance(each, WizardError) else each.text for each in outcomes)


def prompts(count: int) -> list[str]:
    """Return so many different prompts."""
    return [f"prompt {number}" for number in range(count)]


async def test_a_rate_limit_slows_a_batch_and_burns_nothing(autojump_clock: MockClock) -> None:
    """A hundred prompts at twelve a minute take the eight minutes that they need, asked once each and in order."""
    a = Scripted(says(1.0, "x"))
    async with client_of(a, model(limit=RateLimitConfig(requests_per_minute=12))) as client:
        began = trio.current_time()
        assert codes(await client.generate_batch(prompts(100))) == {"x": 100}
        assert 470 < trio.current_time() - began < 520
        asked = [int(seen.prompt.split()[1]) for seen in a.calls]
        assert max(abs(number - place) for place, number in enumerate(asked)) < 8
        await assert_nothing_held(client, a)


async def test_a_failure_that_several_items_share_is_paid_for_once(autojump_clock: MockClock) -> None:
    """The sum of a batch is what its calls cost."""
    a = Scripted(cut("Half", USAGE))
    priced = model(price=PriceConfig(input=100_000, output=0), retry=RetryConfig(max_attempts=1))
    async with client_of(a, priced, cache=CacheConfig(max_entries=10)) as client:
        outcomes = await client.generate_batch(["same"] * 5)

        assert len(a.calls) == 1
        assert sorted(outcome.cost or 0 for outcome in outcomes) == [0, 0, 0, 0, 1]
        assert client.metrics().requests.cost == 1


async def test_an_open_circuit_is_waited_out(autojump_clock: MockClock) -> None:
    """What was sent and failed is an outcome; everything after it waits for the probe, and one goes first."""
    a = Scripted(*[fails(OverloadedError("busy", model="a"))] * 6, says(0.5, "x"))
    async with client_of(a) as client:
        outcomes = codes(await client.generate_batch(prompts(100)))
        assert outcomes == {"retries_exhausted": 6, "x": 94}
        assert len(a.calls) == 100


async def test_more_at_once_than_the_client_takes_are_asked_as_there_is_room(autojump_clock: MockClock) -> None:
    """`max_in_flight` stays full all the time, and nobody fails for it."""
    a = Scripted(says(1.0, "x"))
    async with client_of(a, server=ServerConfig(max_in_flight=5)) as client:
        began = trio.current_time()
        assert codes(await client.generate_batch(prompts(100), max_concurrency=20)) == {"x": 100}
        assert trio.current_time() - began < 22


async def test_full_slots_are_waited_for_beyond_the_queue_timeout(autojump_clock: MockClock) -> None:
    """As long as it takes."""
    a = Scripted(says(1.0, "x"))
    async with client_of(a, model(slots=2), server=ServerConfig(queue_timeout=3)) as client:
        assert codes(await client.generate_batch(prompts(40), max_concurrency=20)) == {"x": 40}


async def test_a_pause_that_a_provider_asks_for_is_obeyed_by_the_whole_batch(autojump_clock: MockClock) -> None:
    """Longer than a single request would wait for; and nobody asks meanwhile."""
    a = Scripted(fails(RateLimitError("429", model="a", retry_after=120.0)), says(0.1, "x"))
    async with client_of(a) as client:
        began = trio.current_time()
        assert codes(await client.generate_batch(prompts(30), max_concurrency=1)) == {"x": 30}
        assert [seen.start - began < 120 for seen in a.calls] == [True] + [False] * 30


async def test_a_deadline_bounds_an_items_waits(autojump_clock: MockClock) -> None:
    """What would have to wait longer keeps its refusal; those that were not asked yet are not burnt with it."""
    a = Scripted(says("x"))
    async with client_of(a, model(limit=RateLimitConfig(requests_per_minute=12, burst=1))) as client:
        began = trio.current_time()
        outcomes = codes(await client.generate_batch(prompts(12), max_concurrency=3, deadline=4.0))
        assert outcomes.keys() == {"x", "rate_limit"}
        assert outcomes["x"] >= 5
        assert trio.current_time() - began > 20


async def test_a_static_answer_is_no_reason_not_to_wait(autojump_clock: MockClock) -> None:
    """It stands in for a failure, not for a turn that comes later."""
    a = Scripted(says("x"))
    route = RouteConfig(name="wizard", static_answer="later")
    async with client_of(a, model(limit=RateLimitConfig(requests_per_minute=12)), route=route) as client:
        assert codes(await client.generate_batch(prompts(30))) == {"x": 30}


async def test_a_wait_can_be_cancelled(autojump_clock: MockClock) -> None:
    """At once, with everything given back."""
    a = Scripted(fails(RateLimitError("429", model="a", retry_after=300.0)))
    async with client_of(a) as client:
        began = trio.current_time()
        with trio.move_on_after(5.0) as scope:
            await client.generate_batch(prompts(30))
        assert scope.cancelled_caught
        assert trio.current_time() - began == 5.0
        await assert_nothing_held(client, a)


async def test_warm_waits_and_counts_what_is_stored(autojump_clock: MockClock) -> None:
    """Its progress is told as a batch's is."""
    a, told = Scripted(says("x")), list[tuple[int, int | None]]()
    limit = RateLimitConfig(requests_per_minute=12)
    async with client_of(a, model(limit=limit), cache=CacheConfig(max_entries=100)) as client:
        warmed = await client.warm(prompts(30), on_progress=lambda *far: told.append(far))
        assert (warmed.stored, warmed.already, warmed.failed) == (30, 0, ())
        assert told == [(number, 30) for number in range(1, 31)]
        assert (await client.warm(prompts(30))).already == 30


async def test_warm_does_not_count_static_and_stale_answers_as_stored(autojump_clock: MockClock) -> None:
    """They are failures, with the error behind them."""
    a = Scripted(says("x"), fails(RequestError("bad", model="a")), fails(AuthError("key", model="a")))
    route, cache = RouteConfig(name="wizard", static_answer="later"), CacheConfig(max_entries=9, ttl=10)
    async with client_of(a, route=route, cache=cache) as client:
        await client.generate("p")
        await trio.sleep(11)
        warmed = await client.warm(["q", "p"], max_concurrency=1)
        shown = [(number, error.code) for number, error in warmed.failed]
        assert (warmed.stored, warmed.already, shown) == (0, 0, [(0, "request"), (1, "auth")])
