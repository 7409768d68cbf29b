"""What a whole client promises about its sends, whatever its callers, its models and the clock do."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations, combinations_with_replacement
from typing import cast

import pytest
import trio
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from properties.sends import (
    ANSWERS,
    EVERYTHING,
    FUZZ,
    QUIET_JUMPS,
    REFUSALS,
    Ask,
    Jump,
    Pause,
    Played,
    Scenario,
    Sent,
    Upstream,
    Work,
    asks,
    few,
    finds,
    play,
    turns,
    works,
)
from tests.models import Turn, breaker, fails, model, says
from wizard_actors import (
    NetworkError,
    OverloadedError,
    Prompt,
    ProviderError,
    RateLimitError,
    ResilientClient,
    TokenUsage,
    WizardError,
)
from wizard_actors.attempt import Attempt
from wizard_actors.breaker_core import BreakerCore, BreakerState, Circuit, Permit
from wizard_actors.config import (
    BreakerConfig,
    CacheConfig,
    RateLimitConfig,
    RetryBudgetConfig,
    RetryConfig,
    ServerConfig,
    Strategy,
    TimeoutsConfig,
)
from wizard_actors.estimate import estimate_input
from wizard_actors.events import AttemptBegan, AttemptEnded, BudgetSpent, Event, FellBack, RequestBegan
from wizard_actors.flight import Flight
from wizard_actors.gcra import GcraCore, Grant
from wizard_actors.request import Delivery
from wizard_actors.retry import RetryBudget
from wizard_actors.token_window import TokenWindow
from wizard_actors.types import UsageUpdate
from wizard_actors.verdict import Outcome
from wizard_actors.way import Way

MINUTE = 60.0
STRATEGIES: tuple[Strategy, ...] = ("sequential", "hedged", "parallel", "adaptive", "cheapest")
TIMEOUTS = TimeoutsConfig(first_token=4.0, stall=3.0, total=30.0)
SLOW = [says("Hello ", seconds, "you") for seconds in (8.0, 9.0, 10.0, 11.0, 12.0)]
AGAIN = RetryConfig(base_delay=0.2, max_delay=1.0, max_attempts=4)


pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of planned failures need no log."""
    caplog.set_level("CRITICAL", logger="wizard_actors")


# -- requests a minute -------------------------------------------------------------------------------------------------


@st.composite
def limited_requests(draw: st.DrawFn) -> Scenario:
    """Two models under a limit of requests, each its own or one for both, with retries and hedges."""
    limit = RateLimitConfig(
        requests_per_minute=draw(st.sampled_from([20, 60, 90, 600])),
        burst=draw(st.integers(1, 5)),
        max_wait=draw(st.sampled_from([0.0, 2.0, 30.0, 600.0, 600.0])),
        adaptive=draw(st.booleans()),
        queue=draw(st.sampled_from([3, 1000])),
    )
    calm = BreakerConfig(failure_threshold=draw(st.sampled_from([3, 1000])), open_for=3.0)
    slots, patient = draw(st.sampled_from([2, 6, 6, 32])), TimeoutsConfig(first_token=20.0, stall=20.0)
    one = model("a", limit=limit, breaker=calm, retry=AGAIN, timeouts=patient, slots=slots)
    each = st.one_of(st.sampled_from(SLOW), st.sampled_from(SLOW), st.sampled_from(ANSWERS), EVERYTHING)
    group = draw(st.sampled_from([None, "account"]))
    return Scenario(
        models=(evolve(one, rate_limit_group=group), evolve(one, name="b", model="b", rate_limit_group=group)),
        turns=(draw(turns(each=each)), draw(turns(each=each))),
        work=draw(works(asks(least=12, most=40), jumps=QUIET_JUMPS)),
        strategy=draw(st.sampled_from(STRATEGIES)),
        budget=RetryBudgetConfig(enabled=False),
    )


def no_window_holds_too_many_sends(scenario: Scenario) -> None:
    """Measure every window that begins and ends with a send."""
    played = play(scenario)
    first = scenario.models[0]
    shared = first.rate_limit_group is not None
    per_second, burst = (first.rate_limit.requests_per_minute or 0.0) / MINUTE, first.rate_limit.burst or 0
    for names in [("a", "b")] if shared else [("a",), ("b",)]:
        sends = [sent.at for sent in played.to(*names)]
        for since, until in combinations(range(len(sends)), 2):
            assert until - since + 1 <= burst + (sends[until] - sends[since]) * per_second + FUZZ


@few()
@given(limited_requests())
def test_in_no_window_are_more_sends_than_the_burst_and_what_the_rate_allows_in_it(scenario: Scenario) -> None:
    """Retries and hedges count, a shared limit counts for both models, and so it is at any jump of the clock."""
    no_window_holds_too_many_sends(scenario)


def test_time_that_passes_between_the_leave_and_the_send_lets_no_more_through() -> None:
    """The clock jumps while those who have leave ask the breaker: what they hold is of before the jump."""
    limit = RateLimitConfig(requests_per_minute=60, burst=3, max_wait=600)
    for batches in range(12):
        work = Work(asks=(Ask(),) * 8, jumps=(Jump(batches, 7.0, quiet=False),))
        one = model("a", limit=limit)
        no_window_holds_too_many_sends(Scenario((one, evolve(one, name="b", model="b")), ((says(),), (says(),)), work))


def test_leave_that_is_refunded_and_used_all_the_same_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled call that was sent has cost a request."""
    refund = GcraCore.refund

    def careless(self: GcraCore[object], grant: Grant, tokens: int, now: float) -> None:
        refund(self, grant, now)

    monkeypatch.setattr(GcraCore, "settle", careless)

    assert finds(limited_requests(), no_window_holds_too_many_sends)


def test_leave_that_is_held_while_a_slot_is_waited_for_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was granted over some seconds would be sent at once when slots are free."""
    get_leave, get_rate = Attempt._get_leave, Attempt._get_rate

    async def too_early(self: Attempt) -> None:
        self._grant = await get_rate(self)
        await get_leave(self)

    monkeypatch.setattr(Attempt, "_get_leave", too_early)
    monkeypatch.setattr("wizard_actors.attempt.LATE", math.inf)

    assert finds(limited_requests(), no_window_holds_too_many_sends, most=300)


# -- tokens a minute ---------------------------------------------------------------------------------------------------

WORDS = Prompt("Why?", max_tokens=1)
BEFORE = estimate_input(WORDS)


def of(tokens: int) -> Prompt:
    """Return a prompt for which so many tokens are reserved."""
    return evolve(WORDS, max_tokens=tokens - BEFORE)


def uses(tokens: int) -> UsageUpdate:
    """Return the usage of so many tokens in all."""
    return UsageUpdate(TokenUsage(input_tokens=BEFORE, output_tokens=tokens - BEFORE))


@st.composite
def limited_tokens(draw: st.DrawFn) -> Scenario:
    """One model under a limit of tokens; nobody's estimate is too small."""
    limit = RateLimitConfig(
        tokens_per_minute=draw(st.sampled_from([200, 400, 1000])),
        requests_per_minute=draw(st.sampled_from([None, 30])),
        max_wait=draw(st.sampled_from([2.0, 60.0, 600.0])),
        adaptive=draw(st.booleans()),
    )
    smallest = draw(st.sampled_from([20, 150]))
    answers = [says("Hello", uses(used)) for used in (10, 20, smallest)]
    slow = [Turn((*each.steps[:1], 5.0, *each.steps[1:]), head=1.0) for each in answers]
    each = st.one_of(st.sampled_from([*answers, *slow]), st.sampled_from([ANSWERS[0], *REFUSALS]))
    prompts = [of(tokens) for tokens in (smallest, 150, 300, 450)]
    return Scenario(
        models=(model("a", limit=limit, retry=AGAIN, timeouts=TIMEOUTS, breaker=BreakerConfig(open_for=3.0)),),
        turns=(draw(turns(each=each)),),
        work=draw(works(asks(prompts=prompts), jumps=QUIET_JUMPS)),
    )


def no_minute_costs_more_tokens_than_the_limit(scenario: Scenario) -> None:
    """Look at every minute that ends with a send: what was sent in it, by what each call had cost or might cost."""
    sends = play(scenario).sent
    limit = scenario.models[0].rate_limit.tokens_per_minute or 0.0
    for number, last in enumerate(sends):
        minute = [known_by(sent, last.at) for sent in sends[: number + 1] if sent.at > last.at - MINUTE + FUZZ]
        assert sum(minute) <= limit or sum(map(bool, minute)) == 1


def known_by(sent: Sent, at: float) -> int:
    """Return what a call counts for at an instant: what it cost once it is over, what is reserved for it until then."""
    return sent.billed if sent.over_at is not None and sent.over_at <= at else sent.reserved


@few()
@given(limited_tokens())
def test_in_no_minute_are_more_tokens_sent_than_the_limit(scenario: Scenario) -> None:
    """What is reserved counts until it is known what was used; only a single call above the limit goes, alone."""
    no_minute_costs_more_tokens_than_the_limit(scenario)


@few()
@given(limited_tokens())
def test_what_nobody_gives_back_counts_as_it_was_reserved(scenario: Scenario) -> None:
    """Where no answer says what it used, the reserved tokens of no minute are more than the limit."""
    silent = tuple(evolve(turn, steps=tuple(step for step in turn.steps if unsaid(step))) for turn in scenario.turns[0])
    sends = play(evolve(scenario, turns=(silent,))).sent
    limit = scenario.models[0].rate_limit.tokens_per_minute or 0.0
    kept = [sent for sent in sends if sent.billed]
    for last in kept:
        minute = [sent.reserved for sent in kept if last.at - MINUTE + FUZZ < sent.at <= last.at]
        assert sum(minute) <= limit or len(minute) == 1


def unsaid(step: object) -> bool:
    """Return whether a step says nothing of tokens."""
    return not isinstance(step, UsageUpdate)


def test_five_concurrent_calls_of_150_tokens_against_400_a_minute_never_more_than_the_limit_in_any_minute() -> None:
    """All five are answered, two a minute."""
    limit = RateLimitConfig(tokens_per_minute=400, max_wait=600)
    work = Work(asks=tuple(Ask(prompt=of(150)) for _ in range(5)))
    scenario = Scenario((model("a", limit=limit),), ((says("Hello", uses(150)),),), work)

    played = play(scenario)

    assert [sent.reserved for sent in played.sent] == [sent.billed for sent in played.sent] == [150] * 5
    assert list(played.outcomes.values()) == [["answered"]] * 5
    assert played.sent[-1].at <= 2 * MINUTE + 1
    no_minute_costs_more_tokens_than_the_limit(scenario)


def test_a_minute_without_a_cap_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace alone lets more through: what its burst holds comes on top of the limit."""
    monkeypatch.setattr(TokenWindow, "free_at", lambda self, amount: float("-inf"))

    assert finds(limited_tokens(), no_minute_costs_more_tokens_than_the_limit)


def test_a_cancelled_call_that_costs_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Providers bill it."""
    monkeypatch.setattr(Attempt, "_used", lambda self: 0)

    assert finds(limited_tokens(), no_minute_costs_more_tokens_than_the_limit)


# -- the circuit breaker -----------------------------------------------------------------------------------------------


@st.composite
def broken(draw: st.DrawFn) -> Scenario:
    """A model that fails a lot, another one beside it."""
    failures = draw(st.sampled_from([1, 2, 3, None]))
    fragile = evolve(
        BreakerConfig(failure_rate=0.5, minimum_calls=2)
        if failures is None
        else BreakerConfig(failure_threshold=failures),
        open_for=draw(st.sampled_from([0.5, 0.5, 3.0])),
        half_open_probes=draw(st.integers(1, 3)),
        success_threshold=draw(st.integers(1, 3)),
    )
    burst = draw(st.sampled_from([None, None, None, 1, 2, 4]))
    limit = RateLimitConfig(requests_per_minute=60 if burst else None, burst=burst)
    one = model("a", breaker=fragile, limit=limit, retry=AGAIN, timeouts=TIMEOUTS, slots=draw(st.sampled_from([2, 32])))
    each = st.one_of(st.sampled_from(ANSWERS), st.sampled_from(REFUSALS), st.just(REFUSALS[1]), st.just(REFUSALS[1]))
    gaps: st.SearchStrategy[Pause] = st.sampled_from([0, 1, 1, 1, 1, 2, 3, 1.0, 3.0])
    return Scenario(
        models=(one, evolve(one, name="b", model="b")),
        turns=(draw(turns(each=each)), draw(turns(each=each))),
        work=draw(works(asks(gaps=gaps, deadlines=st.none(), least=20, most=60))),
        strategy=draw(st.sampled_from(STRATEGIES)),
        budget=RetryBudgetConfig(enabled=False),
    )


async def recovers(client: ResilientClient, upstreams: dict[str, Upstream]) -> None:
    """Let both models be well again, and ask each of them as often as closes its circuit."""
    for name, upstream in upstreams.items():
        upstream.turns = [says("well again")]
        assert (await breaker(client, name)).in_flight == 0
    await trio.sleep(600.0)  # bars, pauses and open times are over
    for name in upstreams:
        for _ in range(client.config.model(name).circuit_breaker.success_threshold):
            await client.generate("Why?", model=name)
        state = await breaker(client, name)
        assert (state.circuit, state.in_flight) == (Circuit.CLOSED, 0)


def no_call_goes_against_the_breaker(scenario: Scenario) -> None:
    """Look at the state that was published when each call was sent, and at the probes out then."""
    played = play(scenario, recovers)
    for name in ("a", "b"):
        sends = played.to(name)
        for sent in sends:
            state = sent.breaker
            assert state is not None
            assert state.circuit is not Circuit.OPEN
            if state.circuit is Circuit.HALF_OPEN:
                out = [probe for probe in sent.not_over if probe.model == name and same_generation(probe, state)]
                config = scenario.models[0].circuit_breaker
                assert sum(probe in sent.unheard for probe in out) < config.half_open_probes
                assert len(out) < config.half_open_probes + config.success_threshold


def same_generation(sent: Sent, state: BreakerState) -> bool:
    """Return whether no transition lies between a send and `state`."""
    return sent.breaker is not None and sent.breaker.generation == state.generation


@few(4)
@given(broken())
def test_no_call_is_sent_while_the_circuit_is_open_and_few_while_it_is_half_open(scenario: Scenario) -> None:
    """And no permit is lost: once the model is well again, as many calls as it takes close its circuit."""
    no_call_goes_against_the_breaker(scenario)


def test_a_permit_of_before_the_circuit_opened_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the grant and the step in which it counts the circuit may have opened."""
    monkeypatch.setattr(BreakerState, "honours", lambda self, permit: True)

    assert finds(broken(), no_call_goes_against_the_breaker, most=600)


def test_a_probe_too_many_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than may be out."""
    free = cast("property", BreakerCore._probes_free).fget
    assert free is not None
    monkeypatch.setattr(BreakerCore, "_probes_free", property(lambda self: free(self) + 1))

    assert finds(broken(), no_call_goes_against_the_breaker)


def test_a_permit_that_is_lost_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe's place would be taken for ever."""
    settle = BreakerCore.settle

    def forgetful(self: BreakerCore, permit: Permit, outcome: Outcome, now: float) -> None:
        if outcome is not Outcome.IGNORED or not permit.probe:
            settle(self, permit, outcome, now)

    monkeypatch.setattr(BreakerCore, "settle", forgetful)

    assert finds(broken(), no_call_goes_against_the_breaker)


# -- the bulkhead ------------------------------------------------------------------------------------------------------


@st.composite
def crowded(draw: st.DrawFn) -> Scenario:
    """Few slots, and exchanges that take their time, some of them to close."""
    one = model(
        "a",
        slots=draw(st.integers(1, 3)),
        retry=AGAIN,
        timeouts=TIMEOUTS,
        breaker=BreakerConfig(failure_threshold=1000),
    )
    return Scenario(
        models=(one, evolve(one, name="b", model="b")),
        turns=(draw(turns()), draw(turns())),
        work=draw(works(asks(gaps=st.sampled_from([0, 0, 1, 4, 0.1, 2.0])))),
        strategy=draw(st.sampled_from(STRATEGIES)),
        server=ServerConfig(queue_timeout=draw(st.sampled_from([0.0, 2.0, 30.0]))),
    )


def no_exchange_is_one_too_many(scenario: Scenario) -> None:
    """Count those that are open as each begins."""
    for sent in play(scenario).sent:
        beside = [other for other in sent.not_closed if other.model == sent.model]
        assert len(beside) < scenario.models[0].max_concurrency


@few()
@given(crowded())
def test_there_are_never_more_exchanges_open_than_slots(scenario: Scenario) -> None:
    """An exchange is open until it is closed, however it ended."""
    no_exchange_is_one_too_many(scenario)


def test_a_slot_that_is_free_before_its_exchange_is_closed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is still busy with it."""
    settle = Attempt._settle

    def hasty(self: Attempt, outcome: Outcome, error: WizardError | None) -> None:
        settle(self, outcome, error)
        self._release()

    monkeypatch.setattr(Attempt, "_settle", hasty)

    assert finds(crowded(), no_exchange_is_one_too_many)


# -- the cache ---------------------------------------------------------------------------------------------------------


@st.composite
def equal_calls(draw: st.DrawFn) -> Scenario:
    """A few prompts, asked by many at once, of two models."""
    one = model("a", retry=AGAIN, timeouts=TIMEOUTS, breaker=BreakerConfig(failure_threshold=1000))
    prompts = [Prompt("Why?"), Prompt("Why?"), Prompt("How?")]
    asked = asks(prompts=prompts, how=st.just(Delivery.WHOLE), cache=("use", "use", "refresh"))
    return Scenario(
        models=(one, evolve(one, name="b", model="b")),
        turns=(draw(turns()), draw(turns())),
        # Who waits a second for the cache, as in a loop that stands still, goes on without it.
        work=draw(works(asked, jumps=QUIET_JUMPS)),
        cache=CacheConfig(
            max_entries=draw(st.sampled_from([1, 20])), ttl=5.0, stale_if_error=draw(st.sampled_from([0.0, 60.0]))
        ),
    )


def nobody_asks_beside_another(scenario: Scenario) -> None:
    """Look at what else of the same prompt is open when a call is sent."""
    played = play(scenario)
    for sent in played.sent:
        assert sent.prompt not in [other.prompt for other in sent.not_closed]
    assert all(len(outcomes) == 1 for outcomes in played.outcomes.values())
    assert len(played.outcomes) == len(scenario.work.asks)
    assert_each_ended_once(played)


def assert_each_ended_once(played: Played) -> None:
    """Every request was reported once."""
    ended = Counter(event.request_id for event in played.ended)
    assert len(ended) == len(played.scenario.work.asks)
    assert set(ended.values()) == {1}


@few()
@given(equal_calls())
def test_at_most_one_call_of_a_key_is_upstream_and_everybody_gets_one_outcome(scenario: Scenario) -> None:
    """Whoever leads, is cancelled, or fails."""
    nobody_asks_beside_another(scenario)


def test_followers_who_all_lead_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that has gone is followed by one."""

    def everybody(self: Flight[object]) -> None:
        while self._seats:
            seat, _ = self._seats.popitem()
            seat.leads = True
            seat.woken.set()

    monkeypatch.setattr(Flight, "hand_over", everybody)

    assert finds(equal_calls(), nobody_asks_beside_another)


# -- the retry budget --------------------------------------------------------------------------------------------------


@st.composite
def scarce(draw: st.DrawFn) -> Scenario:
    """A small budget, and models that need a large one."""
    budget = RetryBudgetConfig(
        initial=draw(st.sampled_from([0.0, 1.0, 3.0])),
        refill_per_second=draw(st.sampled_from([0.0, 0.1, 2.0])),
        refill_to=draw(st.sampled_from([0.0, 2.0])),
        deposit=draw(st.sampled_from([0.0, 0.2, 0.5])),
        max=draw(st.sampled_from([3.0, 5.0])),
    )
    one = model("a", retry=AGAIN, timeouts=TIMEOUTS, breaker=BreakerConfig(failure_threshold=1000))
    each = st.one_of(st.sampled_from(ANSWERS), st.sampled_from(REFUSALS), st.sampled_from(REFUSALS))
    return Scenario(
        models=(one, evolve(one, name="b", model="b"), evolve(one, name="c", model="c")),
        turns=(draw(turns(each=each)), draw(turns(each=each)), draw(turns(each=each))),
        work=draw(works()),
        strategy=draw(st.sampled_from(["sequential", "hedged", "parallel"])),
        budget=budget,
    )


def the_budget_holds(scenario: Scenario) -> None:
    """Count the sends that were neither a request's first nor a fallback's; and what was paid in any span of time."""
    played, budget = play(scenario), scenario.budget
    begun = [event.at for event in played.events if isinstance(event, RequestBegan)]

    def allowance(stock: float, since: float, until: float) -> float:
        requests = sum(since <= at <= until for at in begun)
        return stock + budget.refill_per_second * (until - since) + budget.deposit * requests + FUZZ

    for number, sent in enumerate(played.sent):
        extra = not_free(played.sent[: number + 1], played.events[: sent.events])
        paid = sum(isinstance(event, BudgetSpent) for event in played.events[: sent.events])
        assert extra <= paid
        assert extra <= allowance(budget.initial, played.began, sent.at)
    spent = [event.at for event in played.events if isinstance(event, BudgetSpent)]
    for first, last in combinations_with_replacement(range(len(spent)), 2):
        assert last - first + 1 <= allowance(budget.max, spent[first], spent[last])


def not_free(sent: Sequence[Sent], events: Sequence[Event]) -> int:
    """Return how many calls were retries or hedges: each request's first is free, and each that follows a failure."""
    calls = Counter(each.request_id for each in sent)
    calls.subtract(dict.fromkeys(calls, 1))
    calls.subtract(event.request_id for event in events if isinstance(event, FellBack) and event.request_id in calls)
    return sum(extra for extra in calls.values() if extra > 0)


@few()
@given(scarce())
def test_retries_and_hedges_never_cost_more_than_the_budget_has(scenario: Scenario) -> None:
    """Not from the beginning, and not in any span of time."""
    the_budget_holds(scenario)


def test_hedges_that_cost_nothing_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are calls like any other."""
    monkeypatch.setattr(Way, "_pay", lambda self, name: True)

    assert finds(scarce(), the_budget_holds)


def test_a_budget_that_fills_while_nobody_asks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time fills it only up to a bound."""
    monkeypatch.setattr(RetryBudget, "try_spend", lambda self, now: True)

    assert finds(scarce(), the_budget_holds)


# -- delays between attempts -------------------------------------------------------------------------------------------


@st.composite
def delayed(draw: st.DrawFn) -> Scenario:
    """Failures that ask for some time, or do not say."""
    waits = st.sampled_from([None, None, 0.3, 2.0, 4.9, 7.0, 30.0, 90.0])
    each = st.one_of(
        st.sampled_from(ANSWERS),
        waits.map(lambda after: Turn(head=OverloadedError("busy", model="m", status=503, retry_after=after))),
        waits.map(lambda after: fails(OverloadedError("busy", model="m", retry_after=after))),
        waits.map(lambda after: Turn(head=RateLimitError("slow down", model="m", status=429, retry_after=after))),
        st.just(fails(NetworkError("broken", model="m"))),
    )
    retry = RetryConfig(
        max_attempts=4,
        base_delay=draw(st.sampled_from([0.0, 0.5, 4.0])),
        max_delay=draw(st.sampled_from([0.0, 1.0, 8.0])),
        retry_after_cap=draw(st.sampled_from([1.0, 60.0])),
        retry_after_cap_with_fallback=draw(st.sampled_from([0.0, 5.0])),
    )
    limit = RateLimitConfig(
        requests_per_minute=draw(st.sampled_from([None, 60])), max_wait=draw(st.sampled_from([0.0, 30.0]))
    )
    calm = BreakerConfig(failure_threshold=1000)
    one = model("a", retry=retry, limit=limit, breaker=calm, slots=draw(st.sampled_from([1, 32])))
    models = (one, evolve(one, name="b", model="b"))[: draw(st.integers(1, 2))]
    return Scenario(
        models=models,
        turns=tuple(draw(turns(each=each)) for _ in models),
        work=draw(works(asks(deadlines=st.sampled_from([None, None, 20.0])), jumps=st.just(()))),
        budget=RetryBudgetConfig(enabled=False),
    )


def delays_are_within_bounds(scenario: Scenario) -> None:
    """Look at every two attempts that follow each other at the same model in one request."""
    played, retry = play(scenario), scenario.models[0].retry
    began = {(event.request_id, event.number): event.at for event in played.events if isinstance(event, AttemptBegan)}
    ended: dict[tuple[str, str], list[AttemptEnded]] = defaultdict(list)
    for event in played.events:
        if isinstance(event, AttemptEnded) and event.sent:
            ended[event.request_id, event.model].append(event)
    for (request_id, name), attempts in ended.items():
        sends = [sent for sent in played.to(name) if sent.request_id == request_id]
        last = name == scenario.models[-1].name
        cap = retry.retry_after_cap if last else retry.retry_after_cap_with_fallback
        for before, sent, after, sent_again in zip(attempts, sends, attempts[1:], sends[1:], strict=False):
            assert sent.over_at is not None
            error = before.error
            asked = (error.retry_after if isinstance(error, ProviderError) else None) or 0.0
            longest = 0.0 if isinstance(error, RateLimitError) else asked + retry.max_delay
            assert asked <= cap
            assert sent_again.at - sent.over_at >= asked - FUZZ
            assert began[request_id, after.number] - sent.over_at <= longest + FUZZ
            assert after.slot_wait <= scenario.server.queue_timeout + FUZZ
            assert after.rate_wait <= max(scenario.models[0].rate_limit.max_wait, cap) + FUZZ
            waited = after.slot_wait + after.rate_wait
            assert sent_again.at == pytest.approx(began[request_id, after.number] + waited)


@few()
@given(delayed())
def test_between_two_attempts_lies_what_was_asked_for_and_not_much_more(scenario: Scenario) -> None:
    """At least a Retry-After within its cap; at most that, the longest delay, and the wait for the limiter."""
    delays_are_within_bounds(scenario)


def test_a_retry_after_that_is_not_obeyed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is back too soon is sent away for longer."""
    monkeypatch.setattr("wizard_actors.retry._asked_for", lambda error: 0.0)

    assert finds(delayed(), delays_are_within_bounds)


def test_a_429_that_pauses_nobody_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limiter holds the pause, and the call only acquires again."""
    monkeypatch.setattr(GcraCore, "pause", lambda self, until, now: None)

    assert finds(delayed(), delays_are_within_bounds)
