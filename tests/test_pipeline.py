"""A request's way: what follows from each failure, delays and budgets, which model comes next, what the caller is told.

The verdict table is walked row by row through the public path.
"""

import copy
import gc
import pickle
import weakref
from itertools import pairwise

import pytest
import trio
from attrs import frozen
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import (
    DONE,
    NO_JITTER,
    SILENT,
    Calls,
    Scripted,
    Turn,
    assert_nothing_held,
    breaker,
    client_of,
    fails,
    limiter,
    model,
    node,
    says,
)
from wizard_actors import (
    ActorCrashedError,
    ActorStoppedError,
    AuthError,
    CircuitOpenError,
    ContentFilterError,
    DeadlineExceededError,
    FallbackError,
    InvalidPromptError,
    MailboxFullError,
    ModelNotFoundError,
    NetworkError,
    OverloadedError,
    ParseError,
    Prompt,
    ProviderBugError,
    ProviderError,
    ProviderTimeoutError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    ResilientClient,
    RetryError,
    ServedBy,
    StreamInterruptedError,
    TokenLimitError,
    UnsupportedError,
    WizardError,
    WizardResponse,
)
from wizard_actors.config import (
    BreakerConfig,
    RateLimitConfig,
    RetryBudgetConfig,
    RetryConfig,
    ServerConfig,
    SupervisionConfig,
)
from wizard_actors.events import (
    AttemptBegan,
    AttemptEnded,
    BudgetSpent,
    Event,
    FellBack,
    FirstToken,
    RequestBegan,
    RequestEnded,
    Retrying,
)
from wizard_actors.routing import RouterState
from wizard_actors.specs import State

BROKEN = NetworkError("the connection broke", model="a")
BUG = RuntimeError("planted")

# -- the verdict table -------------------------------------------------------------------------------------------------


@frozen
class Row:
    """A model fails with `error` each time: how often it is `tried` beside another model, and `alone`; whether the
    other one answers, what its breaker counts, whether it is barred.
    """

    error: Exception
    tried: int = 1
    alone: int = 1
    next: bool = True
    failures: int = 0
    bars: bool = False


TABLE: dict[str, Row] = {
    "invalid prompt": Row(InvalidPromptError("no"), next=False),
    "content filter": Row(ContentFilterError("no", model="a"), next=False),
    "token limit": Row(TokenLimitError("too long", model="a")),
    "unsupported": Row(UnsupportedError("no", feature="tools", model="a")),
    "another 4xx": Row(RequestError("no", model="a", status=422)),
    "provider's bug": Row(KeyError("bug")),
    "key": Row(AuthError("no", model="a", status=401), bars=True),
    "name": Row(ModelNotFoundError("no", model="a", status=404), bars=True),
    "quota": Row(QuotaExhaustedError("no", model="a", status=429), bars=True),
    "429": Row(RateLimitError("slow down", model="a", status=429), tried=3, alone=3),
    "409": Row(ProviderError("conflict", model="a", status=409), tried=3, alone=3, failures=3),
    "503": Row(OverloadedError("busy", model="a", status=503), tried=3, alone=3, failures=3),
    "network": Row(BROKEN, tried=3, alone=3, failures=3),
    "parse": Row(ParseError("what?", model="a"), tried=3, alone=3, failures=3),
    "interrupted": Row(StreamInterruptedError("cut", model="a"), tried=3, alone=3, failures=3),
    "connect": Row(ProviderTimeoutError("late", model="a", phase="connect"), tried=3, alone=3, failures=3),
    "first token": Row(ProviderTimeoutError("late", model="a", phase="first_token"), alone=2, failures=1),
    "stall": Row(ProviderTimeoutError("late", model="a", phase="stall"), alone=2, failures=1),
    "total": Row(ProviderTimeoutError("late", model="a", phase="total"), alone=2, failures=1),
}
every_row = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)


@every_row
async def test_what_follows_from_an_error_beside_another_model(autojump_clock: MockClock, row: Row) -> None:
    """How often the model is tried, who answers, what the breaker learns, and whether the model is barred."""
    a, b = Scripted(fails(row.error)), Scripted(says("from b"))
    async with client_of({"a": a, "b": b}) as client:
        calls = Calls()
        await calls.generate(client)

        assert len(a.calls) == row.tried
        assert [answer.model for answer in calls.answers] == (["b"] if row.next else [])
        assert [type(error) for error in calls.errors] == ([] if row.next else [type(row.error)])
        assert (await breaker(client)).failures == row.failures
        assert list(bars(client)) == (["a"] if row.bars else [])
        await assert_nothing_held(client, a, b)


@every_row
async def test_what_follows_from_an_error_alone(autojump_clock: MockClock, row: Row) -> None:
    """Without another model some errors are worth one more try; then the caller gets the model's own error."""
    a = Scripted(fails(row.error))
    async with client_of(a) as client:
        calls = Calls()
        await calls.generate(client)

        [error] = calls.errors
        assert isinstance(error, WizardError)
        assert len(a.calls) == len(error.attempts) == row.alone
        cause = error if row.alone == 1 else error.__cause__
        assert isinstance(error, RetryError) == (row.alone > 1)
        assert type(cause) is (ProviderBugError if isinstance(row.error, KeyError) else type(row.error))
        await assert_nothing_held(client, a)


@every_row
async def test_every_error_can_be_shown_copied_and_pickled_as_it_reaches_the_caller(
    autojump_clock: MockClock, row: Row
) -> None:
    """With the attempts that it lists, and without holding itself."""
    async with client_of(Scripted(fails(row.error))) as client:
        calls = Calls()
        await calls.generate(client)

        [error] = calls.errors
        assert isinstance(error, WizardError)
        shown = error.to_dict()
        assert shown["code"] == error.code
        assert len(error.attempts) == row.alone
        assert pickle.loads(pickle.dumps(error)).to_dict() == shown  # noqa: S301 - our own bytes
        assert copy.deepcopy(error).to_dict() == shown


def bars(client: ResilientClient) -> list[str]:
    """Return the models that the router has barred."""
    state = client.supervisor.ref("router", RouterState).published
    assert state is not None
    return list(state.bars)


# -- delays and budget -------------------------------------------------------------------------------------------------


async def test_retries_wait_ever_longer_with_full_jitter(autojump_clock: MockClock) -> None:
    """Each delay lies below its doubling bound, and in all they are spread over it."""
    delays: list[tuple[float, float]] = []
    for seed in range(20):
        a = Scripted(fails(BROKEN))
        async with client_of(a, seed=seed) as client:
            await Calls().generate(client)
        first, second, third = (call.start for call in a.calls)
        delays.append((second - first, third - second))

    assert max(first for first, _ in delays) <= 0.5 < max(second for _, second in delays) <= 1.0
    assert min(first for first, _ in delays) < 0.1
    assert max(first for first, _ in delays) > 0.4


async def test_a_retry_after_is_the_least_delay(autojump_clock: MockClock) -> None:
    """Also for an overload, which no limiter waits out; the jitter comes on top, so that not all are back at once."""
    delays = set()
    for seed in range(5):
        a = Scripted(fails(OverloadedError("busy", model="a", retry_after=3.0)), says("back"))
        async with client_of(a, seed=seed) as client:
            answer = await client.generate("Why?")
        assert answer.attempts[1].delay == pytest.approx(a.calls[1].start - a.calls[0].start)
        assert answer.served_by is ServedBy.RETRY
        delays.add(answer.attempts[1].delay)

    assert all(3.0 <= delay <= 3.5 for delay in delays)
    assert len(delays) == 5


async def test_the_next_model_is_asked_without_a_delay(autojump_clock: MockClock) -> None:
    """What was waited for the last one is none of its business."""
    a, b = Scripted(fails(BROKEN)), Scripted(says("from b"))
    async with client_of({"a": a, "b": b}) as client:
        answer = await client.generate("Why?")

        assert a.calls[1].start > a.calls[0].start
        assert b.calls[0].start == a.calls[2].end
        assert answer.attempts[-1].delay == 0.0


async def test_a_delay_beyond_the_deadline_is_not_begun(autojump_clock: MockClock) -> None:
    """The next model is asked at once instead."""
    a = Scripted(fails(OverloadedError("busy", model="a", retry_after=3.0)))
    b = Scripted(says("from b"))
    async with client_of({"a": a, "b": b}) as client:
        answer = await client.generate("Why?", deadline=3.0)

        assert (answer.model, trio.current_time(), len(a.calls)) == ("b", 0.0, 1)


async def test_an_exhausted_budget_stops_retries_and_not_fallbacks(autojump_clock: MockClock) -> None:
    """One retry for the whole client: the second request moves on after its first failure."""
    a, b = Scripted(fails(BROKEN)), Scripted(says("from b"))
    budget = RetryBudgetConfig(initial=1.0, refill_per_second=0.0, deposit=0.0)
    config = model("a", retry=NO_JITTER, breaker=BreakerConfig(failure_threshold=100))
    async with client_of({"a": a, "b": b}, config, model("b"), budget=budget) as client:
        first, second = await client.generate("Why?"), await client.generate("Why?")

        assert [attempt.model for attempt in first.attempts] == ["a", "a", "b"]
        assert [attempt.model for attempt in second.attempts] == ["a", "b"]


async def test_requests_pay_into_the_budget(autojump_clock: MockClock) -> None:
    """Every fifth request of a busy client may be retried."""
    a, b = Scripted(fails(BROKEN)), Scripted(says("from b"))
    budget = RetryBudgetConfig(initial=0.0, refill_per_second=0.0, deposit=0.2)
    config = model("a", retry=NO_JITTER, breaker=BreakerConfig(failure_threshold=100))
    async with client_of({"a": a, "b": b}, config, model("b"), budget=budget) as client:
        for _ in range(10):
            await client.generate("Why?")

        assert len(a.calls) == 12


# -- 429 ---------------------------------------------------------------------------------------------------------------


def limited(retry_after: float | None = None) -> RateLimitError:
    """Return a 429."""
    return RateLimitError("slow down", model="a", status=429, retry_after=retry_after)


async def test_a_429_pauses_the_model_for_everybody(autojump_clock: MockClock) -> None:
    """The limiter holds the pause: the one who was told and those who come later are sent when it is over."""
    a = Scripted(fails(limited(4.0)), says("back"))
    async with client_of(a) as client:
        calls = Calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.generate, client)
            await trio.sleep(1.0)
            nursery.start_soon(calls.generate, client)

        assert [call.start for call in a.calls] == [0.0, 4.0, 4.0]
        told = next(answer for answer in calls.answers if len(answer.attempts) == 2)
        assert told.attempts[1].delay == 4.0
        assert told.served_by is ServedBy.RETRY


async def test_a_429_without_a_time_pauses_for_a_jittered_backoff(autojump_clock: MockClock) -> None:
    """Not next to nothing, and longer from one 429 to the next."""
    pauses: list[list[float]] = []
    for seed in range(10):
        a = Scripted(fails(limited()), fails(limited()), says("back"))
        async with client_of(a, seed=seed) as client:
            await client.generate("Why?")
        starts = [call.start for call in a.calls]
        pauses.append([after - before for before, after in pairwise(starts)])

    assert all(0.25 <= first <= 0.5 <= second <= 1.0 for first, second in pauses)
    assert len({first for first, _ in pauses}) == 10


async def test_a_round_of_429s_is_one_429(autojump_clock: MockClock) -> None:
    """Ten calls that were under way together do not make the pause ten doublings long."""
    a = Scripted(*[Turn((0.1, limited()))] * 10, says("back"))
    async with client_of(a) as client:
        calls = Calls()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(calls.generate, client)

        assert len(calls.answers) == 10
        assert max(call.start for call in a.calls) <= 0.6


async def test_a_429_halves_a_known_rate(autojump_clock: MockClock) -> None:
    """Where a rate is configured, and once for all calls that were under way."""
    a = Scripted(*[fails(limited(1.0))] * 2, says("back"))
    async with client_of(a, model(limit=RateLimitConfig(requests_per_minute=600, burst=2))) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Calls().generate, client)
            nursery.start_soon(Calls().generate, client)

        assert (await limiter(client)).rate == 300.0


async def test_a_pause_beyond_the_cap_moves_on_while_another_model_remains(autojump_clock: MockClock) -> None:
    """Five seconds are waited for, six are not."""
    for pause, served_by in ((5.0, "a"), (6.0, "b")):
        a, b = Scripted(fails(limited(pause)), says("back")), Scripted(says("from b"))
        async with client_of({"a": a, "b": b}) as client:
            began = trio.current_time()
            answer = await client.generate("Why?")

            assert answer.model == served_by
            assert trio.current_time() - began == (5.0 if served_by == "a" else 0.0)


async def test_alone_a_pause_is_obeyed_up_to_a_minute(autojump_clock: MockClock) -> None:
    """Also beyond the limiter's longest wait, which is for those who were not told. More than a minute ends it."""
    a = Scripted(fails(limited(60.0)), says("back"), fails(limited(61.0)))
    async with client_of(a) as client:
        answer = await client.generate("Why?")
        assert (answer.text, a.calls[1].start) == ("back", 60.0)

        with pytest.raises(RateLimitError) as caught:
            await client.generate("Why?")
        assert caught.value.retry_after == 61.0
        assert trio.current_time() == 60.0


async def test_a_silent_model_is_tried_once_more_only_where_it_is_the_last(autojump_clock: MockClock) -> None:
    """The time is better spent on another model."""
    a, b = Scripted(SILENT), Scripted(SILENT, says("from b"))
    async with client_of({"a": a, "b": b}) as client:
        answer = await client.generate("Why?")

        assert [attempt.model for attempt in answer.attempts] == ["a", "b", "b"]


async def test_a_model_full_of_calls_that_wait_for_its_limiter_is_limited_not_full(autojump_clock: MockClock) -> None:
    """Its slots are held by calls that the limiter holds back: whoever finds none goes on to the next model."""
    a, b = Scripted(says("from a")), Scripted(says("from b"))
    limited_model = model("a", slots=1, limit=RateLimitConfig(requests_per_minute=2, burst=1))
    async with client_of({"a": a, "b": b}, limited_model, model("b"), server=ServerConfig(queue_timeout=2.0)) as client:
        await client.generate("takes the burst")
        calls = Calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.generate, client)
            await trio.sleep(1.0)
            await calls.generate(client)

        first, second = calls.answers
        error = first.attempts[0].error
        assert (first.model, second.model) == ("b", "a")
        assert isinstance(error, RateLimitError)
        assert error.source == "limiter"
        assert isinstance(error.__cause__, MailboxFullError)


async def test_a_zero_retry_after_is_no_advice(autojump_clock: MockClock) -> None:
    """The provider has just refused: not at once, whatever it says."""
    a = Scripted(fails(limited(0.0)), says("back"))
    async with client_of(a) as client:
        await client.generate("Why?")

        assert 0.25 <= a.calls[1].start <= 0.5


# -- full, crashed, down -----------------------------------------------------------------------------------------------


async def test_a_full_models_calls_move_on_only_where_the_route_says_so(autojump_clock: MockClock) -> None:
    """A bulkhead protects the models behind it, too: spilling over is a choice."""
    for spill in (False, True):
        a, b = Scripted(says(100.0, "late")), Scripted(says("from b"))
        async with client_of(
            {"a": a, "b": b}, model("a", slots=1), model("b"), spill=spill, server=ServerConfig(queue_timeout=5.0)
        ) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Calls().generate, client)
                await wait_all_tasks_blocked()
                calls = Calls()
                await calls.generate(client)
                nursery.cancel_scope.cancel()

            assert [answer.model for answer in calls.answers] == (["b"] if spill else [])
            assert [type(error) for error in calls.errors] == ([] if spill else [MailboxFullError])
            await assert_nothing_held(client, a, b)


async def kill(client: ResilientClient, path: str) -> None:
    """Crash an actor, and return once its supervisor has acted on it."""
    client.supervisor.kill(path, BUG)
    await wait_all_tasks_blocked()


async def test_a_crash_before_the_send_is_made_up_for_at_once(autojump_clock: MockClock) -> None:
    """A call that waits for the limiter when it crashes goes to it again: no delay, no budget, no other model."""
    a, b = Scripted(says("from a")), Scripted(says("from b"))
    slow = model("a", limit=RateLimitConfig(requests_per_minute=30, burst=1))
    budget = RetryBudgetConfig(initial=0.0, refill_per_second=0.0, deposit=0.0)
    async with client_of({"a": a, "b": b}, slow, model("b"), budget=budget) as client:
        await client.generate("takes the burst")
        calls = Calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.generate, client)
            await trio.sleep(0.5)
            await kill(client, "models/model:a/limiter")

        [answer] = calls.answers
        first, second = answer.attempts
        assert isinstance(first.error, ActorCrashedError)
        assert first.error.__cause__ is BUG
        assert (first.sent, first.duration, first.delay) == (False, 0.0, 0.5)
        assert (second.model, second.start, second.sent) == ("a", 0.5, True)


async def test_a_second_crash_moves_on(autojump_clock: MockClock) -> None:
    """Once is made up for; then the next model is asked."""
    a, b = Scripted(says("from a")), Scripted(says("from b"))
    slow = model("a", limit=RateLimitConfig(requests_per_minute=6, burst=1))
    async with client_of({"a": a, "b": b}, slow, model("b")) as client:
        await client.generate("takes the burst")
        calls = Calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.generate, client)
            for _ in range(2):
                await trio.sleep(0.5)
                await kill(client, "models/model:a/limiter")

        [answer] = calls.answers
        assert [(attempt.model, attempt.sent) for attempt in answer.attempts] == [
            ("a", False),
            ("a", False),
            ("b", True),
        ]


@pytest.mark.parametrize("actor", ["worker", "limiter", "breaker"])
async def test_a_model_whose_actor_keeps_crashing_is_down_and_comes_back(autojump_clock: MockClock, actor: str) -> None:
    """No call in flight is lost, every later request is answered; `tree()` tells; after a minute it serves again."""
    a, b = Scripted(says(20.0, "long"), says("from a")), Scripted(says("from b"))
    path = f"models/model:a/{actor}"
    async with client_of({"a": a, "b": b}) as client:
        in_flight, later = Calls(), Calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_flight.generate, client)
            await wait_all_tasks_blocked()
            for _ in range(6):
                await kill(client, path)
                await later.generate(client)
                await trio.sleep(2.0)  # longer than any backoff so far
            assert node(client, path).state is State.DOWN
            assert "planted" in str(node(client, path).error)
            await later.generate(client)

        assert [answer.text for answer in in_flight.answers] == ["long"]
        assert in_flight.errors == later.errors == []
        assert later.answers[-1].model == "b"
        assert [attempt.model for attempt in later.answers[-1].attempts] == ["b"]
        await trio.sleep(60.0)
        assert node(client, path).state is State.RUNNING
        assert (await client.generate("back")).model == "a"
        await assert_nothing_held(client, a, b)


async def test_without_a_router_the_chains_own_order_has_to_do(autojump_clock: MockClock) -> None:
    """Every request is answered while the router is down, whichever way it went down."""
    a, b = Scripted(fails(BROKEN), says("from a")), Scripted(says("from b"))
    async with client_of({"a": a, "b": b}, model("a", retry=RetryConfig(max_attempts=1)), model("b")) as client:
        answers = []
        for _ in range(6):
            await kill(client, "router")
            answers.append(await client.generate("Why?"))
            await trio.sleep(2.0)  # longer than any backoff so far
        assert node(client, "router").state is State.DOWN
        answers.append(await client.generate("Why?"))

        assert answers[0].model == "b"
        assert {answer.model for answer in answers[1:]} == {"a"}
        await assert_nothing_held(client, a, b)


async def test_a_router_that_crashes_with_a_plan_in_hand_is_bypassed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request that it crashed over is answered."""

    def crash(*_args: object) -> None:
        raise BUG

    monkeypatch.setattr("wizard_actors.routing.plan", crash)
    a = Scripted(says("from a"))
    async with client_of(a) as client:
        assert (await client.generate("Why?")).text == "from a"
        assert node(client, "router").restarts == 1


async def test_when_every_model_is_down_the_request_says_so(autojump_clock: MockClock) -> None:
    """The one that is left is tried all the same; its crash is the cause."""
    a = Scripted(says("from a"))
    async with client_of(a, supervision=SupervisionConfig(max_restarts=0)) as client:
        await kill(client, "models/model:a/breaker")

        with pytest.raises(RetryError) as caught:
            await client.generate("Why?")

        assert isinstance(caught.value.__cause__, ActorCrashedError)
        assert [attempt.sent for attempt in caught.value.attempts] == [False, False]
        await assert_nothing_held(client, a)


async def test_a_client_runs_no_more_calls_at_once_than_it_may(autojump_clock: MockClock) -> None:
    """Beyond that a call is refused at once, whoever is full or not; a call that has ended makes room."""
    a, b = Scripted(says(5.0, "done")), Scripted(says("from b"))
    async with client_of({"a": a, "b": b}, spill=True, server=ServerConfig(max_in_flight=2)) as client:
        calls = Calls()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(calls.generate, client)
            await wait_all_tasks_blocked()

            [error] = calls.errors
            assert isinstance(error, MailboxFullError)
            assert "server.max_in_flight" in str(error)
            assert error.attempts == ()

        assert (await client.generate("Why?")).model == "a"


# -- which model comes next --------------------------------------------------------------------------------------------


async def test_a_prompt_too_long_goes_only_to_larger_models(autojump_clock: MockClock) -> None:
    """A model whose known window is no larger cannot help; one whose window nobody knows may."""
    too_long = TokenLimitError("too long", model="a", requested=3000, max=1000)
    models = [model("a", window=1000), model("b", window=1000), model("c", window=4000)]
    a, b, c = Scripted(fails(too_long)), Scripted(says("from b")), Scripted(says("from c"))
    async with client_of({"a": a, "b": b, "c": c}, *models) as client:
        assert (await client.generate("Why?")).model == "c"
        assert b.calls == []

    b = Scripted(says("from b"))
    async with client_of({"a": a, "b": b}, model("a", window=1000), model("b")) as client:
        assert (await client.generate("Why?")).model == "b"


async def test_a_prompt_too_long_for_all_is_told_so(autojump_clock: MockClock) -> None:
    """The model's own error, with what it had counted."""
    too_long = TokenLimitError("too long", model="a", requested=3000, max=1000)
    models = [model("a", window=1000), model("b", window=500)]
    async with client_of({"a": Scripted(fails(too_long)), "b": Scripted()}, *models) as client:
        with pytest.raises(TokenLimitError) as caught:
            await client.generate("Why?")

        assert (caught.value.requested, caught.value.max) == (3000, 1000)


AUTH = AuthError("wrong key", model="a", status=401)


async def test_a_barred_model_is_left_out_for_a_minute_then_probed_by_one(autojump_clock: MockClock) -> None:
    """Not even an attempt is listed; at the minute's end one request finds out, and the others go on without it."""
    a = Scripted(fails(AUTH), Turn((5.0, "back", DONE)))
    b = Scripted(says("from b"))
    async with client_of({"a": a, "b": b}) as client:
        assert (await client.generate("bars it")).model == "b"
        await trio.sleep(59.0)
        assert [attempt.model for attempt in (await client.generate("still barred")).attempts] == ["b"]
        await trio.sleep(1.0)

        calls = Calls()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(calls.generate, client)

        assert sorted(answer.model for answer in calls.answers) == ["a", "b", "b", "b", "b"]
        assert len(a.calls) == 2
        assert (await client.generate("free again")).model == "a"


async def test_a_probe_that_fails_bars_the_model_again(autojump_clock: MockClock) -> None:
    """For another minute."""
    a, b = Scripted(fails(AUTH)), Scripted(says("from b"))
    async with client_of({"a": a, "b": b}) as client:
        for _ in range(150):
            assert (await client.generate("Why?")).model == "b"
            await trio.sleep(1.0)

        assert [call.start for call in a.calls] == [0.0, 60.0, 120.0]


async def test_a_probe_that_taught_nothing_is_left_to_the_next(autojump_clock: MockClock) -> None:
    """Its caller went away: the next request probes."""
    a, b = Scripted(fails(AUTH), SILENT, says("back")), Scripted(says("from b"))
    async with client_of({"a": a, "b": b}) as client:
        await client.generate("bars it")
        await trio.sleep(60.0)
        with trio.move_on_after(1.0):
            await client.generate("probes, and leaves")

        assert (await client.generate("Why?")).model == "a"
        await assert_nothing_held(client, a, b)


async def test_models_that_were_left_out_are_named(autojump_clock: MockClock) -> None:
    """The second of two equal calls asks one model where the first asked two: its error tells of the other."""
    providers = {"a": Scripted(fails(AUTH)), "b": Scripted(fails(AuthError("wrong key", model="b", status=401)))}
    async with client_of(providers, model("a"), model("b")) as client:
        with pytest.raises(FallbackError) as first:
            await client.generate("Why?")
        with pytest.raises(AuthError) as second:
            await client.generate("Why?")
    assert "not asked" not in str(first.value)
    assert "(not asked: b is left out for a while: its key, its name or its quota failed lately)" in str(second.value)
    assert "not asked" not in str(second.value.attempts[0].error)


async def test_a_prompt_that_no_protocol_has_a_place_for_is_unsupported(autojump_clock: MockClock) -> None:
    """As where the configuration says so: no model has failed."""
    providers = {
        name: Scripted(fails(UnsupportedError(f"{name} takes no seed", feature="seed", model=name))) for name in "ab"
    }
    async with client_of(providers, model("a"), model("b")) as client:
        with pytest.raises(UnsupportedError, match="a takes no seed; b takes no seed") as caught:
            await client.generate("Why?")
    assert (caught.value.feature, caught.value.model) == ("seed", None)
    assert [attempt.model for attempt in caught.value.attempts] == ["a", "b"]
    assert isinstance(caught.value.__cause__, UnsupportedError)


async def test_alone_a_barred_model_is_tried_all_the_same(autojump_clock: MockClock) -> None:
    """There is nobody else; also while its probe is out."""
    a = Scripted(fails(AUTH), fails(AUTH), Turn((5.0, "one", DONE)), Turn((5.0, "two", DONE)))
    async with client_of(a) as client:
        for _ in range(2):
            with pytest.raises(AuthError):
                await client.generate("Why?")
        await trio.sleep(60.0)

        calls = Calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.generate, client)
            nursery.start_soon(calls.generate, client)

        assert sorted(answer.text for answer in calls.answers) == ["one", "two"]
        await assert_nothing_held(client, a)


async def test_a_router_that_crashes_under_a_probe_changes_nothing_for_it(autojump_clock: MockClock) -> None:
    """The request goes on; without a router nobody has to ask for leave to probe."""
    a, b = Scripted(fails(AUTH), Turn((5.0, "back", DONE)), says("from a")), Scripted(says("from b"))
    async with client_of({"a": a, "b": b}, supervision=SupervisionConfig(max_restarts=1)) as client:
        await client.generate("bars it")
        await trio.sleep(60.0)
        calls = Calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.generate, client)
            await trio.sleep(1.0)
            await kill(client, "router")

        await assert_nothing_held(client, a, b)
        assert [answer.model for answer in calls.answers] == ["a"]
        assert bars(client) == []


async def test_a_probe_whose_claim_crashes_the_router_is_made_without_leave(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of the router's costs no request its answer."""

    def crash(*_args: object) -> None:
        raise BUG

    a, b = Scripted(fails(AUTH), says("back")), Scripted(says("from b"))
    async with client_of({"a": a, "b": b}) as client:
        await client.generate("bars it")
        await trio.sleep(60.0)
        monkeypatch.setattr("wizard_actors.plan.Bars.claim", crash)

        assert (await client.generate("Why?")).model == "a"


# -- what the caller is told -------------------------------------------------------------------------------------------


async def test_when_all_fail_the_cause_is_the_first_real_one(autojump_clock: MockClock) -> None:
    """A fallback's own refusal never masks why the primary failed."""
    refused = RequestError("unknown field", model="b", status=400)
    async with client_of({"a": Scripted(fails(BROKEN)), "b": Scripted(fails(refused))}) as client:
        with pytest.raises(FallbackError) as caught:
            await client.generate("Why?")

        assert isinstance(caught.value.__cause__, NetworkError)
        assert [attempt.model for attempt in caught.value.attempts] == ["a", "a", "a", "b"]
        assert "unknown field" in str(caught.value)
        assert "the connection broke" in str(caught.value)


async def test_a_fallbacks_verdict_on_the_prompt_masks_nothing_either(autojump_clock: MockClock) -> None:
    """It may be its own filter only."""
    filtered = ContentFilterError("no", model="b")
    async with client_of({"a": Scripted(fails(BROKEN)), "b": Scripted(fails(filtered))}) as client:
        with pytest.raises(FallbackError) as caught:
            await client.generate("Why?")

        assert isinstance(caught.value.__cause__, NetworkError)


async def test_the_same_models_verdict_on_the_prompt_is_the_answer(autojump_clock: MockClock) -> None:
    """That a first try broke off is no reason to hide why the second one was refused."""
    filtered = ContentFilterError("no", model="a")
    async with client_of(Scripted(fails(BROKEN), fails(filtered)), model(retry=NO_JITTER)) as client:
        with pytest.raises(ContentFilterError) as caught:
            await client.generate("Why?")

        assert [type(attempt.error) for attempt in caught.value.attempts] == [NetworkError, ContentFilterError]


@pytest.mark.parametrize(
    ("last", "cause"),
    [
        (fails(RequestError("no", model="b")), RequestError),
        (Turn(head=UnsupportedError("no", feature="tools")), UnsupportedError),
        (fails(BROKEN), CircuitOpenError),
    ],
    ids=["a refusal", "an unsent one", "none"],
)
async def test_an_open_circuit_is_no_cause_where_there_is_another(
    autojump_clock: MockClock, last: Turn, cause: type[WizardError]
) -> None:
    """It says nothing of why; only where no model was even asked it is all there is to say."""
    once = RetryConfig(max_attempts=1)
    broken = [model(name, retry=once, breaker=BreakerConfig(failure_threshold=1)) for name in "ab"]
    a, b = Scripted(fails(BROKEN)), Scripted(last)
    async with client_of({"a": a, "b": b}, *broken) as client:
        await Calls().generate(client)

        with pytest.raises(FallbackError) as caught:
            await client.generate("Why?")

        assert isinstance(caught.value.attempts[0].error, CircuitOpenError)
        assert type(caught.value.__cause__) is cause


async def test_retries_used_up_are_told_with_the_first_failure_as_cause(autojump_clock: MockClock) -> None:
    """All attempts are listed, with what each of them met."""
    a = Scripted(fails(BROKEN), fails(ParseError("what?", model="a")), fails(OverloadedError("busy", model="a")))
    async with client_of(a) as client:
        with pytest.raises(RetryError, match="a failed 3 times: busy") as caught:
            await client.generate("Why?")

        assert isinstance(caught.value.__cause__, NetworkError)
        kinds = [type(attempt.error) for attempt in caught.value.attempts]
        assert kinds == [NetworkError, ParseError, OverloadedError]


async def test_a_passed_deadline_is_told_with_what_was_tried(autojump_clock: MockClock) -> None:
    """The caller's own time was up; why it took so long stands in the attempts, and in the cause."""
    a, b = Scripted(fails(BROKEN)), Scripted(SILENT)
    once = model("a", retry=RetryConfig(max_attempts=1))
    async with client_of({"a": a, "b": b}, once, model("b")) as client:
        with pytest.raises(DeadlineExceededError) as caught:
            await client.generate("Why?", deadline=5.0)

        assert [attempt.model for attempt in caught.value.attempts] == ["a", "b"]
        assert isinstance(caught.value.__cause__, NetworkError)
        assert trio.current_time() == 5.0
        caught.value.to_dict()


async def test_a_deadline_that_passed_before_the_first_attempt_is_told_alike(autojump_clock: MockClock) -> None:
    """A stream whose reader came too late asked nobody."""
    a = Scripted()
    async with client_of(a) as client, client.stream("Why?", deadline=2.0) as stream:
        await trio.sleep(3.0)

        with pytest.raises(DeadlineExceededError, match="deadline of 2 s passed") as caught:
            await anext(stream)

        assert caught.value.deadline == 2.0
        assert a.calls == []


async def test_a_deadline_that_passes_at_the_probes_claim_lists_the_attempts(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever waits within a request is bounded by its deadline, the router's answers too."""
    monkeypatch.setattr("wizard_actors.routing.Router.claim_probe", lambda *_args: None)  # keeps its reply for ever
    once = model("a", retry=RetryConfig(max_attempts=1))
    a, b = Scripted(says("from a"), fails(BROKEN)), Scripted(fails(AuthError("wrong key", model="b")))
    async with client_of({"a": a, "b": b}, once, model("b")) as client:
        await Calls().generate(client, model="b")  # bars it
        await trio.sleep(60.0)
        await client.generate("fine")

        with pytest.raises(DeadlineExceededError) as caught:
            await client.generate("Why?", deadline=5.0)

        assert [attempt.model for attempt in caught.value.attempts] == ["a"]


async def test_who_answered_and_how_is_told(autojump_clock: MockClock) -> None:
    """The first try, a further one, or a later model."""
    for turns, served_by in (
        ([says("yes")], ServedBy.DIRECT),
        ([fails(BROKEN), says("yes")], ServedBy.RETRY),
        ([fails(RequestError("no", model="a"))], ServedBy.FALLBACK),
    ):
        async with client_of({"a": Scripted(*turns), "b": Scripted()}) as client:
            answer = await client.generate("Why?")

            assert answer.served_by is served_by
            assert answer.upstream_model == "upstream"
            assert answer.attempts[-1].error is None


async def test_a_kept_response_keeps_nothing_of_the_failed_attempts_but_their_news(autojump_clock: MockClock) -> None:
    """Tracebacks would hold the frames of the whole call, and the prompt: nothing waits for the garbage collector."""

    async def ask(client: ResilientClient) -> tuple[WizardResponse, weakref.ref[Prompt]]:
        prompt = Prompt("a very long one")
        return await client.generate(prompt), weakref.ref(prompt)

    timeout = ProviderTimeoutError("late", model="a", phase="connect")
    timeout.__cause__ = OSError("planted")
    async with client_of(Scripted(fails(BROKEN), fails(timeout), says("yes")), model(retry=NO_JITTER)) as client:
        gc.disable()
        try:
            response, prompt = await ask(client)
            await client.generate("another")

            assert len(response.attempts) == 3
            assert prompt() is None
        finally:
            gc.enable()


async def test_a_bug_that_was_made_up_for_can_still_be_found(autojump_clock: MockClock) -> None:
    """Its traceback is the only trace of it."""
    async with client_of({"a": Scripted(fails(KeyError("bug"))), "b": Scripted()}) as client:
        error = (await client.generate("Why?")).attempts[0].error

        assert error is not None
        assert error.__cause__ is not None
        assert error.__cause__.__traceback__ is not None


# -- what others learn -------------------------------------------------------------------------------------------------


async def test_events_tell_a_requests_whole_way(autojump_clock: MockClock) -> None:
    """Each attempt's beginning and end, each retry and fallback, and the request's end, once."""
    a, b = Scripted(fails(BROKEN), fails(RequestError("no", model="a"))), Scripted(says("from b"))
    async with client_of({"a": a, "b": b}, model("a", retry=NO_JITTER), model("b")) as client:
        with client.events.subscribe() as events:
            answer = await client.generate("Why?")
            await wait_all_tasks_blocked()
            told: list[Event] = events.drain()

        assert [type(event) for event in told] == [
            RequestBegan,
            *(AttemptBegan, AttemptEnded, BudgetSpent, Retrying),
            *(AttemptBegan, AttemptEnded, FellBack),
            *(AttemptBegan, FirstToken, AttemptEnded),
            RequestEnded,
        ]
        ended = told[-1]
        assert isinstance(ended, RequestEnded)
        assert (ended.request_id, ended.route, ended.model, ended.code, ended.attempts) == (
            answer.request_id,
            "wizard",
            "b",
            None,
            3,
        )
        numbers = [event.number for event in told if isinstance(event, AttemptBegan | AttemptEnded)]
        assert numbers == [1, 1, 2, 2, 3, 3]
        assert {call.request_id for call in (*a.calls, *b.calls)} == {answer.request_id}


async def test_a_request_that_fails_or_is_cancelled_ends_once_too(autojump_clock: MockClock) -> None:
    """With the error's code, or as cancelled."""
    for turn, code in ((fails(RequestError("no", model="a")), "request"), (SILENT, "cancelled")):
        async with client_of(Scripted(turn)) as client:
            with client.events.subscribe() as events:
                with trio.move_on_after(5.0):
                    await Calls().generate(client)
                ended = [event for event in events.drain() if isinstance(event, RequestEnded)]

            assert [(event.code, event.model) for event in ended] == [(code, None)]
            assert ended[0].seconds == (5.0 if code == "cancelled" else 0.0)


async def test_what_happens_while_the_tree_stops_reaches_the_caller(autojump_clock: MockClock) -> None:
    """A call in flight that fails then is not retried, and the caller hears why at once."""
    calls = Calls()
    a = Scripted(Turn((2.0, BROKEN)), says("never"))
    async with trio.open_nursery() as nursery, client_of(a) as client:
        nursery.start_soon(calls.generate, client)  # noqa: ASYNC111 - it outlives the block, and has to
        await wait_all_tasks_blocked()

    [error] = calls.errors
    assert isinstance(error, ActorStoppedError)
    assert isinstance(error.__cause__, NetworkError)
    assert [attempt.sent for attempt in error.attempts] == [True]
