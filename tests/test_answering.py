"""Degradation step by step: the cache, the models, an expired answer, a static one; and calls that are shared."""

from collections import Counter
from decimal import Decimal

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import (
    DONE,
    SILENT,
    USAGE,
    Calls,
    Scripted,
    Turn,
    assert_nothing_held,
    client_of,
    cut,
    fails,
    model,
    says,
)
from wizard_actors import (
    ConfigError,
    ContentFilterError,
    DeadlineExceededError,
    End,
    FallbackError,
    NetworkError,
    OverloadedError,
    Prompt,
    ReasoningDelta,
    RequestError,
    ResilientClient,
    ResponseStream,
    ServedBy,
    StreamEvent,
    StreamInterruptedError,
    TextDelta,
    ToolCallDelta,
)
from wizard_actors.config import CacheConfig, PriceConfig, RetryConfig, RouteConfig, ServerConfig, StreamConfig
from wizard_actors.events import CacheLooked, Degraded
from wizard_actors.request import CacheUse

ON = CacheConfig(max_entries=100, ttl=60.0)
STALE = CacheConfig(max_entries=100, ttl=60.0, stale_if_error=3600.0)
STATIC = RouteConfig(name="wizard", static_answer="Please come back later.")
ONCE = RetryConfig(max_attempts=1)
WORDS = [f"w{number} " for number in range(40)]
BUSY = fails(OverloadedError("busy", model="a"))


async def looked(client: ResilientClient, *prompts: str) -> list[str]:
    """Ask one after the other, and return what each look into the cache came to."""
    with client.events.subscribe() as events:
        for prompt in prompts:
            await client.generate(prompt)
        return [event.outcome for event in events.drain() if isinstance(event, CacheLooked)]


async def stream_events(client: ResilientClient) -> list[StreamEvent]:
    """Read a stream to its end."""
    async with client.stream("Why?") as stream:
        return [event async for event in stream]


async def listen(stream: ResponseStream, heard: list[str]) -> None:
    """Keep every piece of text as it comes."""
    async for text in stream.text():
        heard.append(text)  # noqa: PERF401 - what came before an error counts


# -- the cache


async def test_an_answer_is_given_again_without_a_call(autojump_clock: MockClock) -> None:
    """It is marked as cached, cost nothing, made no attempt, and belongs to its own request."""
    a = Scripted(says("yes", USAGE))
    price = PriceConfig(input=Decimal(1), output=Decimal(1))
    async with client_of(a, model(price=price), cache=ON) as client:
        first, second = await client.generate("Why?"), await client.generate("Why?")

        assert len(a.calls) == 1
        assert (first.cached, first.served_by, len(first.attempts)) == (False, ServedBy.DIRECT, 1)
        assert (second.text, second.cached, second.stale, second.served_by) == ("yes", True, False, ServedBy.CACHE)
        assert (second.cost, second.usage, second.attempts) == (Decimal(0), first.usage, ())
        assert second.request_id != first.request_id


async def test_without_a_cache_every_call_is_made(autojump_clock: MockClock) -> None:
    """It is off unless it is configured."""
    a = Scripted()
    async with client_of(a) as client:
        await client.generate("Why?")
        await client.generate("Why?")
        assert len(a.calls) == 2
        assert client.cache is None


async def test_use_refresh_and_bypass(autojump_clock: MockClock) -> None:
    """A refresh asks a model and replaces what is stored; a bypass neither reads nor writes."""
    a = Scripted(says("1"), says("2"), says("3"), says("4"))
    async with client_of(a, cache=ON) as client:
        uses: list[CacheUse] = ["bypass", "use", "use", "refresh", "use", "bypass", "use"]
        answers = [(await client.generate("Why?", cache=use)).text for use in uses]
        assert answers == ["1", "2", "2", "3", "3", "4", "3"]
        with pytest.raises(ConfigError, match="use, refresh, bypass"):
            await client.generate("Why?", cache="no")  # type: ignore[arg-type]  # what an untyped caller may write


async def test_tenants_do_not_share_answers(autojump_clock: MockClock) -> None:
    """Nor do they see that somebody asked the same."""
    a = Scripted(says("1"), says("2"))
    async with client_of(a, cache=ON) as client:
        texts = [(await client.generate("Why?", tenant=tenant)).text for tenant in ("x", "y", "x")]
        assert texts == ["1", "2", "1"]


async def test_a_stream_fills_the_cache_and_is_replayed_from_it(autojump_clock: MockClock) -> None:
    """Reasoning, text and tool calls come again, in a piece each, then usage and the end."""
    call = ToolCallDelta(0, "id", "look", "{}")
    a = Scripted(Turn((ReasoningDelta("hm"), "yes ", "yes", call, USAGE, DONE)))
    async with client_of(a, cache=ON) as client:
        async with client.stream("Why?") as first:
            async for _event in first:
                pass
        async with client.stream("Why?") as stream:
            events = [event async for event in stream]

        assert len(a.calls) == 1
        assert [event.type for event in events] == ["reasoning", "text", "tool_call", "usage", "end"]
        assert events[:3] == [ReasoningDelta("hm"), TextDelta("yes yes"), call]
        assert (stream.response.text, stream.response.cached) == ("yes yes", True)
        assert (await client.generate("Why?")).served_by is ServedBy.CACHE


async def test_a_stream_that_is_left_early_stores_nothing(autojump_clock: MockClock) -> None:
    """Half an answer is none."""
    a = Scripted(says("one ", 1.0, "two"))
    async with client_of(a, cache=ON) as client:
        async with client.stream("Why?") as stream:
            await anext(stream)
        await wait_all_tasks_blocked()
        assert client.cache is not None
        assert client.cache.entries == 0


async def test_failures_are_not_cached(autojump_clock: MockClock) -> None:
    """The next caller asks again."""
    a = Scripted(BUSY, says("yes"))
    async with client_of(a, model(retry=ONCE), cache=ON) as client:
        with pytest.raises(OverloadedError):
            await client.generate("Why?")
        assert (await client.generate("Why?")).text == "yes"


async def test_a_cache_that_is_down_is_bypassed(autojump_clock: MockClock) -> None:
    """Its crashes cost a cache hit, never an answer."""
    a = Scripted()
    async with client_of(a, cache=ON) as client:
        for _ in range(12):
            client.supervisor.kill("cache", RuntimeError("planned"))
            assert (await client.generate("Why?")).text == "Hello"
        assert await looked(client, "Why?") == ["bypass"]
        await trio.sleep(61)  # DOWN actors are tried again
        assert await looked(client, "Why?", "Why?") == ["lead", "hit"]


# -- shared calls


async def test_fifty_equal_calls_are_one_and_the_leaders_end_is_a_followers_beginning(
    autojump_clock: MockClock,
) -> None:
    """The leader is cancelled in mid-call: the oldest follower asks anew, and 49 are answered by two calls in all."""
    a, calls = Scripted(says(5.0, "yes")), Calls()
    async with client_of(a, cache=ON) as client:
        async with trio.open_nursery() as nursery:
            leader = trio.CancelScope()

            async def lead() -> None:
                with leader:
                    await calls.generate(client)

            nursery.start_soon(lead)
            await wait_all_tasks_blocked()
            for _ in range(49):
                nursery.start_soon(calls.generate, client)
            await trio.sleep(2.0)
            leader.cancel()

        assert len(a.calls) == 2
        assert [answer.text for answer in calls.answers] == ["yes"] * 49
        assert Counter(answer.cached for answer in calls.answers) == {True: 48, False: 1}
        assert calls.errors == []
        await assert_nothing_held(client, a)


async def test_fifty_equal_calls_that_fail_make_one_calls_attempts(autojump_clock: MockClock) -> None:
    """Each gets an error of its own, chained to the leader's: handing over on errors would make 50 calls in a row."""
    a, calls = Scripted(Turn((1.0, OverloadedError("busy", model="a")))), Calls()
    async with client_of(a, cache=ON) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(calls.generate, client)

        assert len(a.calls) == 3
        assert len(calls.errors) == 50
        assert len({id(error) for error in calls.errors}) == 50
        assert {type(error).__name__ for error in calls.errors} == {"RetryError"}
        assert Counter(len(getattr(error, "attempts", ())) for error in calls.errors) == {3: 50}
        await assert_nothing_held(client, a)


async def test_a_follower_that_leaves_as_it_is_to_lead_leaves_no_flight_behind(autojump_clock: MockClock) -> None:
    """Whoever is cancelled in that moment is the last who could tell the cache."""
    async with client_of(Scripted(says(5.0, "late")), cache=ON) as client, trio.open_nursery() as nursery:

        async def ask(scope: trio.CancelScope, prompt: str) -> None:
            with scope:
                await client.generate(prompt)

        for number in range(200):  # one of them is that moment: Trio decides who is first
            steps = number % 8
            leader, follower = trio.CancelScope(), trio.CancelScope()
            for scope in (leader, follower):
                nursery.start_soon(ask, scope, f"Why {number}?")
                await wait_all_tasks_blocked()
            leader.cancel()
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            follower.cancel()
            await wait_all_tasks_blocked()
            assert client.cache is not None
            assert client.cache.flights == {}


async def test_a_leader_out_of_its_own_time_hands_over(autojump_clock: MockClock) -> None:
    """Its deadline is not its followers'."""
    a, calls = Scripted(says(5.0, "yes")), Calls()
    async with client_of(a, cache=ON) as client, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: calls.generate(client, deadline=2.0))
        await wait_all_tasks_blocked()
        nursery.start_soon(calls.generate, client)
    assert [type(error) for error in calls.errors] == [DeadlineExceededError]
    assert [answer.text for answer in calls.answers] == ["yes"]
    assert [call.start for call in a.calls] == [0.0, 2.0]


async def test_a_followers_deadline_is_its_own(autojump_clock: MockClock) -> None:
    """It is told in time, and the leader goes on."""
    a, calls = Scripted(says(5.0, "yes")), Calls()
    async with client_of(a, cache=ON) as client, trio.open_nursery() as nursery:
        nursery.start_soon(calls.generate, client)
        await wait_all_tasks_blocked()
        with pytest.raises(DeadlineExceededError):
            await client.generate("Why?", deadline=1.0)
        assert trio.current_time() == 1.0
    assert len(calls.answers) == len(a.calls) == 1


async def test_streams_neither_lead_nor_follow(autojump_clock: MockClock) -> None:
    """A stream's consumer may be slow, and nobody should wait for that."""
    a, calls = Scripted(says(5.0, "yes")), Calls()
    async with client_of(a, cache=ON) as client, trio.open_nursery() as nursery:
        nursery.start_soon(calls.generate, client)
        await wait_all_tasks_blocked()
        async with client.stream("Why?") as stream:
            assert [text async for text in stream.text()] == ["yes"]
    assert len(a.calls) == 2


async def test_followers_survive_a_crash_of_the_cache(autojump_clock: MockClock) -> None:
    """The flight is theirs and the leader's; the cache only knew of it."""
    a, calls = Scripted(says(5.0, "yes")), Calls()
    async with client_of(a, cache=ON) as client, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(calls.generate, client)
        await wait_all_tasks_blocked()
        client.supervisor.kill("cache", RuntimeError("planned"))
        await wait_all_tasks_blocked()
        nursery.start_soon(calls.generate, client)  # flights are carried over
    assert (len(calls.answers), len(a.calls)) == (21, 1)


async def test_what_stands_in_for_the_leader_is_not_shared(autojump_clock: MockClock) -> None:
    """Its deadline has passed, not that of the others: they are answered by a model."""
    a, calls = Scripted(says(5.0, "yes")), Calls()
    async with client_of(a, route=STATIC, cache=ON) as client, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: calls.generate(client, deadline=2.0))
        await wait_all_tasks_blocked()
        nursery.start_soon(calls.generate, client)
    assert [(answer.served_by, answer.text) for answer in calls.answers] == [
        (ServedBy.STATIC, "Please come back later."),
        (ServedBy.DIRECT, "yes"),
    ]


async def test_a_leader_that_had_no_time_for_a_retry_hands_over(autojump_clock: MockClock) -> None:
    """One more attempt answers, for whoever has the time."""
    config = model(retry=RetryConfig(base_delay=5.0, max_delay=5.0))
    a, calls = Scripted(Turn((0.3, NetworkError("x", model="a"))), says("yes")), Calls()
    async with client_of(a, config, cache=ON, seed=3) as client, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: calls.generate(client, deadline=0.4))
        await wait_all_tasks_blocked()
        nursery.start_soon(calls.generate, client)
    assert len(calls.errors) == 1
    assert [answer.text for answer in calls.answers] == ["yes"]


async def test_each_caller_has_its_own_routes_static_answer(autojump_clock: MockClock) -> None:
    """Two routes over one chain share a call, and what they make of its failure is their own affair."""
    a, calls = Scripted(Turn((1.0, OverloadedError("busy", model="a")))), Calls()
    plain = RouteConfig(name="plain", chain=["a"])
    for leads_with_static in (True, False):
        async with client_of(a, model(retry=ONCE), route=STATIC, routes=[plain], cache=ON) as client:
            outcomes: dict[str, str] = {}

            async def ask(route: str, client: ResilientClient = client, told: dict[str, str] = outcomes) -> None:
                try:
                    told[route] = (await client.generate("Why?", route=route)).text
                except OverloadedError as error:
                    told[route] = error.code

            async with trio.open_nursery() as nursery:
                routes = ["wizard", "plain"] if leads_with_static else ["plain", "wizard"]
                for route in routes:
                    nursery.start_soon(ask, route)
                    await wait_all_tasks_blocked()
            assert outcomes == {"wizard": "Please come back later.", "plain": "overloaded"}
    assert len(a.calls) == 2
    assert calls.errors == []


async def test_callers_of_another_strategy_make_a_call_of_their_own(autojump_clock: MockClock) -> None:
    """Who asks several models at once does not wait behind one who asks one after the other."""
    models, calls = {"a": Scripted(says(30.0, "a")), "b": Scripted(says(1.0, "b"))}, Calls()
    async with client_of(models, cache=ON) as client, trio.open_nursery() as nursery:
        nursery.start_soon(calls.generate, client)
        await wait_all_tasks_blocked()
        assert (await client.generate("Why?", strategy="parallel")).text == "b"
        assert trio.current_time() == 1.0


# -- stale, and static


async def test_an_expired_answer_stands_in_when_every_model_fails(autojump_clock: MockClock) -> None:
    """It says so, and lists the attempts that failed."""
    a = Scripted(says("old"), BUSY)
    async with client_of(a, model(retry=ONCE), cache=STALE) as client:
        await client.generate("Why?")
        await trio.sleep(120.0)
        with client.events.subscribe() as events:
            answer = await client.generate("Why?")
            told = [event for event in events.drain() if isinstance(event, Degraded)]

        assert (answer.text, answer.stale, answer.cached, answer.served_by) == ("old", True, True, ServedBy.STALE)
        assert [type(each.error) for each in answer.attempts] == [OverloadedError]
        assert [event.to for event in told] == ["stale"]
        assert client.metrics().degraded == {"stale": 1}


async def test_a_refresh_falls_back_on_what_it_was_to_replace(autojump_clock: MockClock) -> None:
    """Whole or as a stream: an old answer is better than none, where the configuration says so."""
    a = Scripted(says("old"), BUSY)
    async with client_of(a, model(retry=ONCE), cache=STALE) as client:
        await client.generate("Why?")
        whole = await client.generate("Why?", cache="refresh")
        async with client.stream("Why?", cache="refresh") as stream:
            texts = [text async for text in stream.text()]
        assert [(whole.text, whole.stale), (texts[0], stream.response.stale)] == [("old", True)] * 2


async def test_a_bug_in_a_provider_is_not_the_callers_fault(autojump_clock: MockClock) -> None:
    """What stands in for a failed model stands in for a broken provider, too."""
    async with client_of(Scripted(fails(KeyError("bug"))), route=STATIC) as client:
        assert (await client.generate("Why?")).served_by is ServedBy.STATIC


async def test_an_expired_answer_waits_for_the_models(autojump_clock: MockClock) -> None:
    """While one of them answers, what it says counts, and is stored."""
    a = Scripted(says("old"), says("new"))
    async with client_of(a, cache=STALE) as client:
        await client.generate("Why?")
        await trio.sleep(120.0)
        assert [(await client.generate("Why?")).text for _ in range(2)] == ["new", "new"]


async def test_followers_share_what_stands_in(autojump_clock: MockClock) -> None:
    """All of them are told the old answer, marked; no more attempts are made for it than for one."""
    a, calls = Scripted(says("old"), Turn((1.0, OverloadedError("busy", model="a")))), Calls()
    async with client_of(a, model(retry=ONCE), cache=STALE) as client:
        await client.generate("Why?")
        await trio.sleep(120.0)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(calls.generate, client)
        assert [(answer.text, answer.stale, answer.served_by) for answer in calls.answers] == [
            ("old", True, ServedBy.STALE)
        ] * 10
        assert len(a.calls) == 2


async def test_a_static_answer_is_the_last_resort(autojump_clock: MockClock) -> None:
    """No model gave it, it cost nothing, and it is not cached."""
    a = Scripted(BUSY, says("yes"))
    async with client_of(a, model(retry=ONCE), route=STATIC, cache=ON) as client:
        answer = await client.generate("Why?")
        assert (answer.text, answer.model, answer.served_by) == ("Please come back later.", "", ServedBy.STATIC)
        assert [type(each.error) for each in answer.attempts] == [OverloadedError]
        assert (await client.generate("Why?")).text == "yes"


async def test_an_expired_answer_comes_before_a_static_one(autojump_clock: MockClock) -> None:
    """It is at least an answer to the question."""
    a = Scripted(says("old"), BUSY)
    async with client_of(a, model(retry=ONCE), route=STATIC, cache=STALE) as client:
        await client.generate("Why?")
        await trio.sleep(120.0)
        assert (await client.generate("Why?")).served_by is ServedBy.STALE


@pytest.mark.parametrize("error", [ContentFilterError("no", model="a"), RequestError("bad", model="a")])
async def test_nothing_stands_in_where_the_request_is_at_fault(
    autojump_clock: MockClock, error: ContentFilterError | RequestError
) -> None:
    """A caller who is told "later" would ask the same again for ever."""
    async with client_of(Scripted(fails(error)), route=STATIC) as client:
        with pytest.raises(type(error)):
            await client.generate("Why?")


async def test_nothing_stands_in_where_any_model_refused_the_content(autojump_clock: MockClock) -> None:
    """Whatever the order in which the models failed."""
    refused = fails(ContentFilterError("no", model="b"))
    async with client_of({"a": Scripted(BUSY), "b": Scripted(refused)}, route=STATIC) as client:
        with pytest.raises(FallbackError):
            await client.generate("Why?")


async def test_what_stands_in_keeps_no_frames(autojump_clock: MockClock) -> None:
    """The attempts' errors are news; their tracebacks would hold the prompt for as long as the response."""
    async with client_of(Scripted(BUSY), model(retry=ONCE), route=STATIC) as client:
        [attempt] = (await client.generate("Why?")).attempts
        assert attempt.error is not None
        assert attempt.error.__traceback__ is None


async def test_a_deadline_that_passes_is_answered_by_what_stands_in(autojump_clock: MockClock) -> None:
    """In time: the caller has waited as long as it wanted to."""
    async with client_of(Scripted(SILENT), route=STATIC) as client:
        answer = await client.generate("Why?", deadline=3.0)
        assert (answer.served_by, trio.current_time()) == (ServedBy.STATIC, 3.0)


async def test_a_stream_ends_with_what_stands_in(autojump_clock: MockClock) -> None:
    """As a stream of its own, where nothing had been delivered."""
    async with client_of(Scripted(BUSY), model(retry=ONCE), route=STATIC) as client:
        async with client.stream("Why?") as stream:
            events = [event async for event in stream]
        assert [event.type for event in events] == ["text", "end"]
        assert stream.response.served_by is ServedBy.STATIC


async def test_a_stream_that_broke_off_is_not_completed_by_what_stands_in(autojump_clock: MockClock) -> None:
    """Half an answer and a static text make no answer."""
    async with client_of(Scripted(cut("half ")), model(retry=ONCE), route=STATIC) as client:
        with pytest.raises(StreamInterruptedError) as caught:
            await stream_events(client)
        assert caught.value.partial == "half "


async def test_after_a_reset_what_stands_in_follows(autojump_clock: MockClock) -> None:
    """The consumer has dropped what it had."""
    config = StreamConfig(on_interruption="reset")
    async with client_of(Scripted(cut("half ")), model(retry=ONCE), route=STATIC, stream=config) as client:
        events = await stream_events(client)
        assert [event.type for event in events] == ["text", "reset", "text", "end"]
        assert events[2] == TextDelta("Please come back later.")


async def test_a_cut_after_forty_words_is_reset_to_the_fallbacks_answer(autojump_clock: MockClock) -> None:
    """Live: the 40 words, a reset, then the whole answer of the fallback."""
    a, b = Scripted(cut(*WORDS)), Scripted(says("a ", "better ", "answer"))
    models, config = [model("a", retry=ONCE), model("b")], StreamConfig(on_interruption="reset")
    async with client_of({"a": a, "b": b}, *models, stream=config) as client:
        *events, end = await stream_events(client)
        assert [event.type for event in events] == [*["text"] * 40, "reset", *["text"] * 3]
        joined = "".join(event.text for event in events[41:] if isinstance(event, TextDelta))
        assert isinstance(end, End)
        assert joined == end.response.text == "a better answer"


async def test_a_cut_after_forty_words_fails_with_those_words(autojump_clock: MockClock) -> None:
    """By default: what was delivered cannot be taken back, and a fallback's answer would not fit to it."""
    a, b = Scripted(cut(*WORDS)), Scripted(says("never"))
    async with client_of({"a": a, "b": b}, model("a", retry=ONCE), model("b")) as client:
        heard: list[str] = []
        async with client.stream("Why?") as stream:
            with pytest.raises(StreamInterruptedError) as caught:
                await listen(stream, heard)
        assert heard == WORDS
        assert caught.value.partial == "".join(WORDS)
        assert b.calls == []


# -- the cache as an operator sees it


async def test_warm_fills_the_cache_with_bounded_concurrency(autojump_clock: MockClock) -> None:
    """It tells how far it is, what was there already, and what failed."""
    most, told = 0, list[tuple[int, int | None]]()

    def count(_seen: object) -> None:
        nonlocal most
        most = max(most, a.in_flight)

    a = Scripted(says(1.0, "x"), on_open=count)
    async with client_of(a, cache=ON) as client:
        await client.generate("0")
        warmed = await client.warm(
            [str(number) for number in range(20)], max_concurrency=3, on_progress=lambda *far: told.append(far)
        )
        assert (warmed.stored, warmed.already, warmed.failed) == (19, 1, ())
        assert most <= 3
        assert told == [(number, 20) for number in range(1, 21)]
        assert await looked(client, "7", "19") == ["hit", "hit"]


async def test_warm_reports_failures_by_number(autojump_clock: MockClock) -> None:
    """One prompt that fails stops none of the others."""
    a = Scripted(says("x"), fails(RequestError("bad", model="a")), says("x"))
    async with client_of(a, cache=ON) as client:
        warmed = await client.warm(["p", "q", "r"], max_concurrency=1)
        assert (warmed.stored, [(number, error.code) for number, error in warmed.failed]) == (2, [(1, "request")])


async def test_invalidate_drops_by_model_and_text(autojump_clock: MockClock) -> None:
    """Globs over both; what does not match stays."""
    models = {"big": Scripted(says("x")), "small": Scripted(says("y"))}
    async with client_of(models, cache=ON) as client:
        for prompt in ("cats and dogs", "dogs", "birds"):
            await client.generate(prompt)
        await client.generate("dogs", model="small")

        assert await client.invalidate(model="b*", text="*dogs*") == 2
        assert await looked(client, "birds", "dogs") == ["hit", "lead"]
        assert await client.invalidate() == 3


async def test_the_caches_methods_need_a_cache(autojump_clock: MockClock) -> None:
    """The error says what to set."""
    async with client_of(Scripted()) as client:
        with pytest.raises(ConfigError, match="max_entries"):
            await client.warm(["x"])
        with pytest.raises(ConfigError, match="max_entries"):
            await client.invalidate()


async def test_shed_requests_do_not_reach_the_cache(autojump_clock: MockClock) -> None:
    """The bound on requests in flight is the first thing that they meet."""
    a, calls = Scripted(says(5.0, "yes")), Calls()
    async with client_of(a, cache=ON, server=ServerConfig(max_in_flight=10)) as client, trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(calls.generate, client)
    assert (len(calls.answers), [error.code for error in calls.errors]) == (10, ["mailbox_full"] * 2)  # type: ignore[attr-defined]
    assert len(a.calls) == 1


async def test_all_models_failing_without_a_substitute_is_an_error(autojump_clock: MockClock) -> None:
    """A cache that has nothing changes nothing."""
    broken = Scripted(fails(NetworkError("x", model="a")))
    async with client_of({"a": broken, "b": Scripted(BUSY)}, cache=STALE) as client:
        with pytest.raises(FallbackError):
            await client.generate(Prompt("Why?"))
