"""Hedging: the next model starts when the first is late, and at once when it has failed; the first to deliver wins."""

from collections import Counter

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import (
    DONE,
    SILENT,
    Calls,
    Scripted,
    Turn,
    assert_nothing_held,
    breaker,
    client_of,
    cut,
    fails,
    model,
    says,
)
from wizard_actors import (
    AuthError,
    ContentFilterError,
    DeadlineExceededError,
    FallbackError,
    NetworkError,
    OverloadedError,
    Prompt,
    ServedBy,
    StreamInterruptedError,
    TextDelta,
    Tool,
)
from wizard_actors.breaker_core import Circuit
from wizard_actors.config import (
    BreakerConfig,
    RetryBudgetConfig,
    RetryConfig,
    RouteConfig,
    StreamConfig,
    SupportsConfig,
    TimeoutsConfig,
)
from wizard_actors.events import (
    AttemptBegan,
    AttemptEnded,
    BudgetExhausted,
    BudgetSpent,
    FellBack,
    RequestEnded,
)
from wizard_actors.lane import Begun, Lane

HEDGED = RouteConfig(name="wizard", strategy="hedged", hedge_delay=1.0)
PARALLEL = RouteConfig(name="wizard", strategy="parallel")
ONCE = RetryConfig(max_attempts=1)


def slow(seconds: float, *words: str) -> Turn:
    """Return a turn whose first word takes so long."""
    return says(seconds, *words)


async def test_a_model_in_time_is_asked_alone(autojump_clock: MockClock) -> None:
    """A hedge costs, so there is none without need."""
    a, b = Scripted(slow(0.9, "a")), Scripted(says("b"))
    async with client_of({"a": a, "b": b}, route=HEDGED) as client:
        answer = await client.generate("Why?")
        assert (answer.text, answer.served_by, len(answer.attempts)) == ("a", ServedBy.DIRECT, 1)
        assert b.calls == []


async def test_a_late_model_is_hedged_and_the_first_whole_answer_wins(autojump_clock: MockClock) -> None:
    """The loser is cancelled and returns everything; it stands among the attempts, marked."""
    a, b = Scripted(slow(10.0, "a")), Scripted(slow(0.5, "b"))
    async with client_of({"a": a, "b": b}, route=HEDGED) as client:
        answer = await client.generate("Why?")
        assert (answer.text, answer.model, answer.served_by) == ("b", "b", ServedBy.FALLBACK)
        assert trio.current_time() == 1.5
        assert [(each.model, each.cancelled, each.error) for each in answer.attempts] == [
            ("a", True, None),
            ("b", False, None),
        ]
        assert a.calls[0].left_with is trio.Cancelled
        await assert_nothing_held(client, a, b)


async def test_a_late_model_that_answers_first_all_the_same_wins(autojump_clock: MockClock) -> None:
    """A hedge is a second chance, not a change of mind."""
    a, b = Scripted(slow(1.2, "a")), Scripted(slow(5.0, "b"))
    async with client_of({"a": a, "b": b}, route=HEDGED) as client:
        answer = await client.generate("Why?")
        assert (answer.text, answer.served_by) == ("a", ServedBy.DIRECT)
        assert trio.current_time() == 1.2
        await assert_nothing_held(client, a, b)


async def test_a_long_answer_that_has_begun_is_not_late(autojump_clock: MockClock) -> None:
    """Late is who says nothing: latency follows the answer's length."""
    a, b = Scripted(says(0.5, "long ", 0.9, "and ", 0.9, "longer")), Scripted(says("b"))
    async with client_of({"a": a, "b": b}, route=HEDGED) as client:
        assert (await client.generate("Why?")).text == "long and longer"
        assert b.calls == []


async def test_a_failure_starts_the_next_model_at_once(autojump_clock: MockClock) -> None:
    """Nobody waits for a delay when it is known that the first will not answer."""
    a, b = Scripted(Turn(head=OverloadedError("busy", model="a"))), Scripted(slow(0.2, "b"))
    async with client_of({"a": a, "b": b}, model("a", retry=ONCE), model("b"), route=HEDGED) as client:
        with client.events.subscribe() as events:
            answer = await client.generate("Why?")
            kinds = Counter(type(event) for event in events.drain())
        assert answer.text == "b"
        assert trio.current_time() == 0.2
        assert kinds[FellBack] == 1
        assert kinds[BudgetSpent] == 0  # it is a fallback, not a hedge


async def test_the_next_model_starts_as_soon_as_a_running_one_is_given_up(autojump_clock: MockClock) -> None:
    """Three models: one is late, one fails beside it, the third starts in that moment."""
    a, b, c = Scripted(SILENT), Scripted(Turn((0.3, NetworkError("x", model="b")))), Scripted(says("c"))
    models = [model("a"), model("b", retry=ONCE), model("c")]
    async with client_of({"a": a, "b": b, "c": c}, *models, route=HEDGED) as client:
        answer = await client.generate("Why?")
        assert answer.text == "c"
        assert trio.current_time() == pytest.approx(1.3)
        await assert_nothing_held(client, a, b, c)


async def test_parallel_asks_all_at_once(autojump_clock: MockClock) -> None:
    """It is hedging with a delay of 0."""
    models = {name: Scripted(slow(seconds, name)) for name, seconds in (("a", 3.0), ("b", 1.0), ("c", 2.0))}
    async with client_of(models, route=PARALLEL) as client:
        answer = await client.generate("Why?")
        assert (answer.text, trio.current_time()) == ("b", 1.0)
        assert [call.start for provider in models.values() for call in provider.calls] == [0.0, 0.0, 0.0]
        assert sorted(each.cancelled for each in answer.attempts) == [False, True, True]
        await assert_nothing_held(client, *models.values())


async def test_a_hedge_is_paid_from_the_retry_budget(autojump_clock: MockClock) -> None:
    """In an outage, hedges would double the load: without budget the late model is waited for."""
    a, b = Scripted(slow(3.0, "a")), Scripted(says("b"))
    budget = RetryBudgetConfig(initial=1, refill_per_second=0, deposit=0)
    async with client_of({"a": a, "b": b}, route=HEDGED, budget=budget) as client:
        with client.events.subscribe() as events:
            assert (await client.generate("Why?")).text == "b"
            assert (await client.generate("Why?")).text == "a"
            told = [event for event in events.drain() if isinstance(event, BudgetSpent | BudgetExhausted)]
        assert [(type(event), event.hedge) for event in told] == [(BudgetSpent, True), (BudgetExhausted, True)]


async def test_a_fallback_is_free_while_the_budget_is_spent(autojump_clock: MockClock) -> None:
    """A model that failed is replaced whatever the budget says."""
    a, b = Scripted(Turn(head=OverloadedError("busy", model="a"))), Scripted(says("b"))
    budget = RetryBudgetConfig(initial=0, refill_per_second=0, deposit=0)
    async with client_of({"a": a, "b": b}, route=HEDGED, budget=budget) as client:
        assert (await client.generate("Why?")).text == "b"


async def test_a_live_stream_is_won_by_the_first_content_and_read_on(autojump_clock: MockClock) -> None:
    """The loser is gone before the first word is delivered, and the winner's words come as they arrive."""
    a, b = Scripted(slow(10.0, "a")), Scripted(says(0.5, "b1 ", 2.0, "b2"))
    async with client_of({"a": a, "b": b}, route=HEDGED) as client, client.stream("Why?") as stream:
        first = await anext(stream)
        assert isinstance(first, TextDelta)
        assert (first.text, trio.current_time(), a.in_flight) == ("b1 ", 1.5, 0)
        assert [text async for text in stream.text()] == ["b2"]
        assert trio.current_time() == 3.5
        assert stream.response.model == "b"
        await assert_nothing_held(client, a, b)


async def test_a_hedged_stream_is_read_inside_any_scope_of_its_consumer(autojump_clock: MockClock) -> None:
    """Each read may have a timeout of its own: no nursery is open between reads."""
    a, b = Scripted(slow(10.0, "a")), Scripted(says(0.5, "b1 ", 2.0, "b2"))
    async with client_of({"a": a, "b": b}, route=HEDGED) as client, client.stream("Why?") as stream:
        with trio.fail_after(5):
            await anext(stream)
        with trio.move_on_after(0.5) as scope:
            await anext(stream)
        assert scope.cancelled_caught
    assert b.in_flight == 0


async def test_an_error_in_a_hedged_streams_block_is_raised_as_it_is(autojump_clock: MockClock) -> None:
    """It is the program's own, not a group's."""
    async with client_of({"a": Scripted(slow(10.0, "a")), "b": Scripted()}, route=HEDGED) as client:

        async def read() -> None:
            async with client.stream("Why?") as stream:
                await anext(stream)
                raise KeyError("own")

        with pytest.raises(KeyError, match="own"):
            await read()


async def test_a_hedged_stream_that_breaks_off_is_reset_to_what_remains(autojump_clock: MockClock) -> None:
    """After the reset the third model's whole answer follows."""
    a, b, c = Scripted(SILENT), Scripted(cut("half")), Scripted(says("whole"))
    models = [model("a"), model("b", retry=ONCE), model("c")]
    stream_config = StreamConfig(on_interruption="reset")
    async with client_of({"a": a, "b": b, "c": c}, *models, route=HEDGED, stream=stream_config) as client:
        async with client.stream("Why?") as stream:
            kinds = [event.type async for event in stream]
        assert kinds == ["text", "reset", "text", "end"]
        assert stream.response.text == "whole"
        await assert_nothing_held(client, a, b, c)


async def test_a_loser_is_asked_again_where_the_winner_breaks_off(autojump_clock: MockClock) -> None:
    """It had not failed: it was only slower."""
    a, b = Scripted(slow(5.0, "a")), Scripted(cut("half"))
    config = StreamConfig(on_interruption="reset")
    async with client_of({"a": a, "b": b}, model("a"), model("b", retry=ONCE), route=PARALLEL, stream=config) as client:
        async with client.stream("Why?") as stream:
            kinds = [event.type async for event in stream]
        assert kinds == ["text", "reset", "text", "end"]
        assert (stream.response.text, len(a.calls)) == ("a", 2)
        await assert_nothing_held(client, a, b)


async def test_a_cancelled_loser_does_not_count_as_a_failure(autojump_clock: MockClock) -> None:
    """What failed once failed once, whoever ran beside it: the error is its own. All attempts are listed."""
    a, b = Scripted(SILENT), Scripted(cut("half"))
    async with client_of({"a": a, "b": b}, model("a"), model("b", retry=ONCE), route=PARALLEL) as client:
        async with client.stream("Why?") as stream:
            await anext(stream)
            with pytest.raises(StreamInterruptedError) as caught:
                await anext(stream)
        assert {each.model: each.cancelled for each in caught.value.attempts} == {"a": True, "b": False}


async def test_attempts_stand_in_the_order_of_their_beginning(autojump_clock: MockClock) -> None:
    """Also those that began in the same instant."""
    models = {name: Scripted(slow(seconds, name)) for name, seconds in (("a", 3.0), ("b", 1.0), ("c", 2.0))}
    async with client_of(models, route=PARALLEL) as client:
        with client.events.subscribe() as events:
            answer = await client.generate("Why?")
            began = [event.model for event in events.drain() if isinstance(event, AttemptBegan)]
        assert [each.model for each in answer.attempts] == began


@pytest.mark.parametrize("delivery", ["live", "buffered"])
async def test_when_all_fail_the_error_lists_every_attempt(autojump_clock: MockClock, delivery: str) -> None:
    """From the first real cause."""
    a = Scripted(Turn(head=OverloadedError("busy", model="a")))
    b = Scripted(Turn(head=NetworkError("gone", model="b")))
    async with client_of({"a": a, "b": b}, model("a", retry=ONCE), model("b", retry=ONCE), route=HEDGED) as client:
        with pytest.raises(FallbackError) as caught:
            async with client.stream("Why?", delivery="live" if delivery == "live" else "buffered") as stream:
                await anext(stream)
        assert [each.model for each in caught.value.attempts] == ["a", "b"]
        assert isinstance(caught.value.__cause__, OverloadedError)
        await assert_nothing_held(client, a, b)


async def test_a_prompt_that_nobody_would_answer_ends_the_race(autojump_clock: MockClock) -> None:
    """The other model is cancelled, and the error is raised as it is, no group."""
    a, b = Scripted(slow(10.0, "a")), Scripted(Turn(head=ContentFilterError("no", model="b")))
    async with client_of({"a": a, "b": b}, route=HEDGED) as client:
        with pytest.raises(ContentFilterError) as caught:
            await client.generate("Why?")
        assert [(each.model, each.cancelled) for each in caught.value.attempts] == [("a", True), ("b", False)]
        await assert_nothing_held(client, a, b)


async def test_the_deadline_bounds_a_race(autojump_clock: MockClock) -> None:
    """Both are silent: the caller's time is what counts, and nothing goes on afterwards."""
    a, b = Scripted(SILENT), Scripted(SILENT)
    async with client_of({"a": a, "b": b}, route=HEDGED) as client:
        with pytest.raises(DeadlineExceededError):
            await client.generate("Why?", deadline=5.0)
        assert trio.current_time() == 5.0
        await assert_nothing_held(client, a, b)


async def test_a_cancelled_race_leaves_nothing_running(autojump_clock: MockClock) -> None:
    """Both attempts end with their caller, and both are told as cancelled."""
    a, b = Scripted(slow(10.0, "a")), Scripted(slow(10.0, "b"))
    async with client_of({"a": a, "b": b}, route=HEDGED) as client:
        with client.events.subscribe() as events:
            with trio.move_on_after(2.0):
                await client.generate("Why?")
            ended = [event for event in events.drain() if isinstance(event, AttemptEnded)]
        assert sorted((event.model, event.cancelled, event.sent) for event in ended) == [
            ("a", True, True),
            ("b", True, True),
        ]
        await assert_nothing_held(client, a, b)


async def test_two_answers_in_the_same_tick_are_one_answer(autojump_clock: MockClock) -> None:
    """One wins, the other is closed; nothing is held and nothing is answered twice."""
    for live in (False, True):
        a, b = Scripted(Turn((2.0, "a", DONE))), Scripted(Turn((1.0, "b", DONE)))
        async with client_of({"a": a, "b": b}, route=HEDGED) as client:
            if live:
                async with client.stream("Why?") as stream:
                    text = [piece async for piece in stream.text()]
                answer = stream.response
            else:
                answer = await client.generate("Why?")
                text = [answer.text]
            assert text in (["a"], ["b"])
            assert len(answer.attempts) == 2
            await assert_nothing_held(client, a, b)


async def test_a_hedge_does_not_probe_a_barred_model(autojump_clock: MockClock) -> None:
    """Whose bar has expired is tried by one request that has nothing better, not beside a model that works."""
    a = Scripted(says("a"), slow(5.0, "a"))
    b = Scripted(Turn(head=AuthError("no key", model="b")), says("b"))
    async with client_of({"a": a, "b": b}, route=HEDGED) as client:
        await client.generate("Why?", model="a")
        with pytest.raises(AuthError):
            await client.generate("Why?", model="b")
        await trio.sleep(61)
        answer = await client.generate("Why?")
        assert (answer.text, len(b.calls)) == ("a", 1)


async def test_attempts_tell_which_are_hedges(autojump_clock: MockClock) -> None:
    """Metrics count them apart."""
    a, b = Scripted(slow(10.0, "a")), Scripted(says("b"))
    async with client_of({"a": a, "b": b}, route=HEDGED) as client:
        with client.events.subscribe() as events:
            await client.generate("Why?")
            began = [event for event in events.drain() if isinstance(event, AttemptBegan)]
        assert [(event.model, event.hedge) for event in began] == [("a", False), ("b", True)]
        total = client.metrics().attempts
        assert (total.hedges, total.hedges_won, total.hedges_lost) == (1, 1, 0)


async def test_the_p99_of_a_model_with_a_long_tail_is_halved_for_few_more_calls(autojump_clock: MockClock) -> None:
    """One call in twenty takes ten seconds; the hedge answers it after the delay. At most 8 % more calls are made."""
    count = 1000

    def tail(number: int) -> Turn:
        return slow(10.0 if number % 20 == 7 else 0.3, "x")

    async def p99(route: RouteConfig) -> tuple[float, int]:
        a = Scripted(*[tail(number) for number in range(count)])
        b = Scripted(*[tail(number + 10) for number in range(count)])
        seconds = []
        async with client_of({"a": a, "b": b}, route=route) as client:
            for _ in range(count):
                began = trio.current_time()
                await client.generate("Why?")
                seconds.append(trio.current_time() - began)
        return sorted(seconds)[int(count * 0.99)], len(a.calls) + len(b.calls)

    alone, calls_alone = await p99(RouteConfig(name="wizard", chain=["a"]))
    hedged, calls_hedged = await p99(HEDGED)

    assert hedged <= alone / 2
    assert calls_alone == count
    assert count < calls_hedged <= 1.08 * count


async def test_many_hedged_calls_end_once_each(autojump_clock: MockClock) -> None:
    """Whatever wins, fails or is cancelled: one outcome a call, and nothing is left running."""
    broken = fails(NetworkError("x", model="a"))
    a = Scripted(*[slow(number % 4, "a") if number % 5 else broken for number in range(90)])
    b = Scripted(*[slow(number % 3, "b") if number % 7 else broken for number in range(90)])
    calls, timeouts = Calls(), TimeoutsConfig(first_token=3.5)
    never = BreakerConfig(failure_threshold=1000)
    models = [model(name, timeouts=timeouts, breaker=never) for name in ("a", "b")]
    async with client_of({"a": a, "b": b}, *models, route=HEDGED) as client:
        async with trio.open_nursery() as nursery:
            for number in range(80):
                nursery.start_soon(lambda n: calls.generate(client, deadline=2.0 + n % 5), number)
        assert len(calls.answers) + len(calls.errors) == 80
        assert len(calls.answers) > 40
        await assert_nothing_held(client, a, b)


async def test_a_loser_that_answers_others_is_not_blamed(autojump_clock: MockClock) -> None:
    """A model with a long tail loses races, and is well: its circuit stays closed."""
    count = 200
    a = Scripted(*[slow(10.0 if number % 10 == 7 else 0.3, "a") for number in range(count)])
    async with client_of({"a": a, "b": Scripted(slow(0.3, "b"))}, route=HEDGED) as client:
        for _ in range(count):
            await client.generate("Why?")
        assert (await breaker(client, "a")).opened == 0


async def test_a_hedge_that_loses_is_not_blamed(autojump_clock: MockClock) -> None:
    """It is cancelled before it can answer, again and again: that says nothing of it."""
    a, b = Scripted(slow(2.5, "a")), Scripted(slow(5.0, "b"))
    async with client_of({"a": a, "b": b}, route=HEDGED) as client:
        for _ in range(30):
            await client.generate("Why?")
        assert (await breaker(client, "b")).opened == 0


async def test_a_silent_model_behind_which_all_slots_wait_is_left_at_once(autojump_clock: MockClock) -> None:
    """Its slots are full because it says nothing, not because it is busy: nobody waits for one of them for half a
    minute, and then fails.
    """
    calls = Calls()
    models = {"a": Scripted(SILENT), "b": Scripted(says("b"))}
    async with client_of(models, model("a", slots=2), model("b")) as client, trio.open_nursery() as nursery:
        nursery.start_soon(calls.generate, client)
        nursery.start_soon(calls.generate, client)
        await trio.sleep(11.0)
        began = trio.current_time()
        answer = await client.generate("Why?")
        assert (answer.text, trio.current_time() - began) == ("b", 0.0)
        assert [each.sent for each in answer.attempts] == [False, True]
        nursery.cancel_scope.cancel()


async def test_a_silent_model_that_is_the_only_one_is_waited_for(autojump_clock: MockClock) -> None:
    """There is nobody better to ask."""
    a = Scripted(slow(15.0, "a"), slow(0.1, "a"))
    async with client_of({"a": a}, model("a", slots=1)) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.generate, "Why?")
        await trio.sleep(11.0)
        assert (await client.generate("Why?")).text == "a"


async def test_a_probe_of_a_silent_model_is_short_while_another_remains(autojump_clock: MockClock) -> None:
    """The request that probes would else wait out the whole first-token limit for what is probably still dead."""
    fast = [slow(0.2, "a") for _ in range(3)]
    a, b = Scripted(*fast, *[SILENT] * 8, slow(0.2, "a")), Scripted(says("b"))
    models = [model("a", retry=ONCE, timeouts=TimeoutsConfig(first_token=10.0)), model("b")]
    async with client_of({"a": a, "b": b}, *models) as client:
        for _ in range(8):
            await client.generate("Why?")
        assert (await breaker(client, "a")).circuit is Circuit.OPEN
        await trio.sleep(30.0)
        began = trio.current_time()
        assert (await client.generate("Why?")).text == "b"
        assert trio.current_time() - began == 5.0


async def test_a_model_that_has_begun_is_waited_for_whoever_was_started_last(autojump_clock: MockClock) -> None:
    """A hedge that says nothing yet is no reason for a third model while the first one talks."""
    a, b, c = Scripted(says(1.5, "a", 3.0, "a")), Scripted(slow(20.0, "b")), Scripted(says("c"))
    async with client_of({"a": a, "b": b, "c": c}, route=HEDGED) as client:
        assert (await client.generate("Why?")).text == "aa"
        assert c.calls == []


async def test_models_that_run_side_by_side_have_the_callers_whole_time(autojump_clock: MockClock) -> None:
    """Half of it is kept for a model that waits to be asked; here, from the start or once the hedge runs, none does."""
    for route, text, seconds in ((PARALLEL, "a", 6.0), (HEDGED, "b", 7.5)):
        a, b = Scripted(slow(6.0, "a")), Scripted(slow(6.5, "b"))
        async with client_of({"a": a, "b": b}, route=route) as client:
            began = trio.current_time()
            assert (await client.generate("Why?", deadline=10.0)).text == text
            assert trio.current_time() - began == seconds


async def test_a_bug_in_a_race_is_raised_as_it_is(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as a group of one."""

    async def broken(self: Lane) -> Begun:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    monkeypatch.setattr(Lane, "begin", broken)
    async with client_of({"a": Scripted(), "b": Scripted()}, route=PARALLEL) as client:
        with client.events.subscribe() as events:
            with pytest.raises(ZeroDivisionError):
                await client.generate("Why?")
            assert [event.code for event in events.drain() if isinstance(event, RequestEnded)] == ["bug"]


async def test_without_its_router_a_client_still_skips_what_cannot_answer(autojump_clock: MockClock) -> None:
    """What is configured is known: a prompt with tools goes to the model that can use them."""
    a, b = Scripted(says("a")), Scripted(says("b"))
    cannot = evolve(model("a"), supports=SupportsConfig(tools=False))
    async with client_of({"a": a, "b": b}, cannot, model("b")) as client:
        for _ in range(10):
            client.supervisor.kill("router", RuntimeError("planned"))
            await wait_all_tasks_blocked()
        assert (await client.generate(Prompt("Why?", tools=[Tool("look")]))).text == "b"
        assert a.calls == []


async def test_a_model_that_lets_every_deadline_pass_opens_its_breaker(autojump_clock: MockClock) -> None:
    """Each caller's own time was up, and nobody ever heard a word: that is no coincidence."""
    async with client_of(Scripted(SILENT)) as client, trio.open_nursery() as nursery:
        calls = Calls()
        for number in range(20):
            nursery.start_soon(lambda: calls.generate(client, deadline=12.0))
            await trio.sleep(1.0 + number % 2)
        await trio.sleep(13.0)
        assert (await breaker(client)).opened >= 1
