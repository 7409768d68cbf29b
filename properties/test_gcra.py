"""The rate limiter's core: exact turns, never too much in any window, nobody overtaken, forgotten or kept in vain."""

import math
from copy import deepcopy
from itertools import combinations

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wizard_actors.config import RateLimitConfig
from wizard_actors.gcra import GcraCore, Grant
from wizard_actors.pace import REQUESTS, TOKENS, Gcra, Pace, Scale
from wizard_actors.types import LimitHeaders, LimitWindow
from wizard_actors.waiting import Rejected, Ticked, Waiting

pytestmark = pytest.mark.long

FUZZ = 1e-6  # seconds; what rounding may shift an instant of this size by, and much more

INTERVALS = st.one_of(st.sampled_from([0.0, 0.1, 1 / 3, 0.12, 1.0, 60.0]), st.floats(1e-4, 100.0))
STEPS = st.one_of(st.integers(0, 40).map(lambda quarters: quarters / 4), st.floats(0.0, 30.0))
# Beside the round instants at which things happen here: on them rounding decides who is too late.
AMOUNTS = st.sampled_from([0, 0, 1, 7, 20, 90, 300])
PATIENCE = st.one_of(st.sampled_from([0.0, math.inf]), st.integers(0, 100).map(lambda seconds: seconds + math.pi / 100))


def sends_fit(sends: list[float], burst: int, interval: float) -> bool:
    """Whether no window, however long and wherever it begins, holds more than the burst and what refills in it."""
    ordered = sorted(sends)
    return all(
        last - first + 1 <= burst + (ordered[last] - ordered[first] + FUZZ) / interval
        for first, last in combinations(range(len(ordered)), 2)
    )


@given(
    INTERVALS,
    st.integers(1, 5),
    st.floats(0.0, 1e9),
    st.lists(
        st.one_of(
            STEPS.map(lambda step: ("take", step)),
            STEPS.map(lambda step: ("give_back", step)),
            STEPS.map(lambda step: ("forgo", step)),
            INTERVALS.map(lambda interval: ("set_interval", interval)),
        ),
        max_size=30,
    ),
)
def test_a_request_is_always_there_when_the_bucket_says(
    interval: float, burst: int, start: float, steps: list[tuple[str, float]]
) -> None:
    """`try_take(due)` succeeds after any history, and not one representable instant earlier."""
    bucket = Gcra(interval, burst)
    now = start
    for step, value in steps:
        now += value if step != "set_interval" else 0.0
        if step == "take":
            bucket.try_take(now)
        elif step == "give_back":
            bucket.give_back(now - value, interval)
        elif step == "forgo":
            bucket.forgo(now)
        else:
            bucket.set_pace(value, burst, now)
        for amount in (1.0, 2.5, 100.0):
            early, due = bucket.copy(), bucket.copy()
            assert due.try_take(max(due.due(amount), start), amount)
            assert early.due(amount) == -math.inf or not early.try_take(
                math.nextafter(early.due(amount), -math.inf), amount
            )


@given(st.floats(1e-3, 10.0), st.integers(1, 5), st.lists(STEPS, max_size=40))
def test_an_unsent_request_given_back_at_once_leaves_no_trace(interval: float, burst: int, steps: list[float]) -> None:
    """Taking and giving back makes no difference to anybody's turn, where nobody came between."""
    plain, other = Gcra(interval, burst), Gcra(interval, burst)
    now = 0.0
    for step in steps:
        now += step
        if other.try_take(now):
            other.give_back(now, interval)
        assert math.isclose(max(now, plain.due()), max(now, other.due()), abs_tol=FUZZ)
        if plain.try_take(now):
            assert other.try_take(max(now, other.due()))


@given(
    st.integers(1, 4),
    st.lists(
        st.one_of(
            st.integers(0, 8).map(lambda quarters: ("take", quarters / 4)),
            st.integers(0, 8).map(lambda quarters: ("take", quarters / 4)),
            st.integers(1, 4).map(lambda newest: ("give_back", float(newest))),
            st.sampled_from([1.0, 1.5, 4.0]).map(lambda interval: ("set_interval", interval)),
        ),
        max_size=40,
    ),
)
def test_no_window_of_sends_is_too_full(burst: int, steps: list[tuple[str, float]]) -> None:
    """Whatever is given back unsent, however late, and however the pace changes: what is sent fits the fastest pace."""
    bucket = Gcra(1.0, burst)
    now, sends = 0.0, list[float]()
    for step, value in steps:
        if step == "take":
            now += value
            if bucket.try_take(now):
                sends.append(now)
        elif step == "set_interval":
            bucket.set_pace(value, burst, now)
        elif len(sends) >= value:
            bucket.give_back(sends.pop(-int(value)), 1.0)
        assert sends_fit(sends, burst, 1.0)


class Limiter(RuleBasedStateMachine):
    """One limiter, its callers and its provider: everything that can happen to it, in any order, at any time.

    `sends` are the grants that did not come back unsent, `spent` the tokens of each: what it used, or what is reserved.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.latest = 1000.0  # the clock may go back
        self.keys = 0
        self.waiting: dict[int, float] = {}  # in order of arrival, with who gives up when
        self.sends: list[Grant] = []
        self.spent: dict[Grant, int] = {}
        self.debts: list[tuple[float, int]] = []
        self.live: list[Grant] = []
        self.paused_until = -math.inf
        self.since = 0  # the first of the sends at the present pace
        self.held_up = False  # a tick came late: whoever that made too late is found out only at its turn

    @initialize(
        rate=st.sampled_from([None, 1, 7, 60, 60, 90, 500]),
        burst=st.sampled_from([None, 1, 2, 3, 10]),
        limit=st.sampled_from([None, None, 60, 100, 1000]),
        queue=st.integers(1, 9),
    )
    def build(self, rate: float | None, burst: int | None, limit: int | None, queue: int) -> None:
        self._configured(rate, burst, limit, queue)
        self.core: GcraCore[int] = GcraCore(self.config)

    def _configured(self, rate: float | None, burst: int | None, limit: int | None, queue: int) -> None:
        self.config = RateLimitConfig(requests_per_minute=rate, tokens_per_minute=limit, burst=burst, queue=queue)
        self.limit = limit
        self.interval = 60 / rate if rate else 0.0
        self.burst = burst or max(1, int((rate or 0) // 60))

    @precondition(lambda self: self.now >= self.latest)
    @rule(
        now=st.sampled_from([True, False, False]),
        rate=st.sampled_from([None, 1, 7, 60, 500]),
        burst=st.sampled_from([None, 1, 3, 10]),
        limit=st.sampled_from([None, 60, 100, 1000]),
        queue=st.integers(1, 9),
    )
    def reconfigure(self, now: bool, rate: float | None, burst: int | None, limit: int | None, queue: int) -> None:
        """Nobody is lost, the pause goes on, and what a minute holds is counted on where it was counted before."""
        if not now:
            return
        self.tick()
        if self.limit is None:  # nobody has counted: a minute begins
            self.spent, self.debts = dict.fromkeys(self.spent, 0), []
        self._configured(rate, burst, limit, queue)
        self.core.reconfigure(self.config, self.now)
        self.since = len(self.sends)  # another pace, and what was saved up at the former one may go at once
        state = self.core.snapshot()
        assert (state.waiting, state.paused_until) == (len(self.waiting), self.paused_until)
        self._tick_at_once()

    # -- callers

    @rule(requests=st.lists(st.tuples(PATIENCE, AMOUNTS), min_size=1, max_size=6))
    def acquire(self, requests: list[tuple[float, int]]) -> None:
        if self.core.wake_at() <= self.now:  # as an actor's loop does before it takes an ask
            self.tick()
        for patience, tokens in requests:
            self._acquire(patience, tokens)

    def _acquire(self, patience: float, tokens: int) -> None:
        self.keys += 1
        give_up_at = self.now + patience
        full = self.core.full
        due = None if full else self._granted_at(self.keys, tokens)
        answer = self.core.acquire(self.keys, self.now, give_up_at, tokens)
        if isinstance(answer, Grant):
            assert due == self.now
            assert not self.waiting
            self._granted(answer, give_up_at)
        elif isinstance(answer, Waiting):
            assert due is not None
            assert answer.due is not None
            assert self.held_up or answer.due >= due - FUZZ
            assert answer.due <= give_up_at
            self.waiting[self.keys] = give_up_at
        else:
            assert answer.retry_after is not None
            assert full or self.now + answer.retry_after > give_up_at
            assert due is None or self.held_up or math.isclose(self.now + answer.retry_after, due, abs_tol=FUZZ)

    def _granted_at(self, key: int, tokens: int) -> float:
        """When a newcomer with all the patience there is gets its turn, if nothing happens but time."""
        core = deepcopy(self.core)
        answer = core.acquire(key, self.now, math.inf, tokens)
        assert not isinstance(answer, Rejected)
        return self.now if isinstance(answer, Grant) else self._run_out(core)[key]

    def _run_out(self, core: GcraCore[int]) -> dict[int, float]:
        """Let time pass until nobody waits; return who was granted when."""
        granted: dict[int, float] = {}
        now = self.now
        for _ in range(100):
            if (due := core.wake_at()) == math.inf:
                return granted
            now = max(now, due)
            granted.update((key, now) for key, _ in core.tick(now).granted)
        raise AssertionError(f"still {core.snapshot().waiting} waiting after 100 wake-ups")

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(list(self.waiting)))
        self.core.forget(key)
        del self.waiting[key]

    def _returned(self, data: st.DataObject) -> Grant:
        recent = self.live[-6:]
        grant = recent[data.draw(st.integers(0, len(recent) - 1))]
        self.live.remove(grant)
        return grant

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def refund(self, data: st.DataObject) -> None:
        grant = self._returned(data)
        self.core.refund(grant, self.now)
        self.sends.remove(grant)
        del self.spent[grant]

    @precondition(lambda self: self.live)
    @rule(data=st.data(), used=AMOUNTS)
    def settle(self, data: st.DataObject, used: int) -> None:
        grant = self._returned(data)
        self.core.settle(grant, used, self.now)
        self.spent[grant] = min(used, grant.tokens)
        if used > grant.tokens:
            self.debts.append((self.now, used - grant.tokens))
        self._tick_at_once()

    # -- the provider

    @rule(wait=STEPS)
    def pause(self, wait: float) -> None:
        self.core.pause(self.now + wait, self.now)
        self.paused_until = max(self.paused_until, self.now + wait)
        self._tick_at_once()

    @rule(age=STEPS)
    def slow_down(self, age: float) -> None:
        self.core.slow_down(self.now - age, self.now)
        self._tick_at_once()

    @rule(
        limit=st.one_of(st.none(), st.integers(-1, 20)),
        remaining=st.one_of(st.none(), st.integers(-1, 20)),
        reset=st.one_of(st.none(), st.integers(-1, 90), st.just(math.nan), st.just(math.inf)),
        tokens=st.sampled_from([0, 0, 100]),
        data=st.data(),
    )
    def observe(
        self, limit: float | None, remaining: float | None, reset: float | None, tokens: int, data: st.DataObject
    ) -> None:
        grant = data.draw(st.sampled_from([*self.live[-3:], None]))
        if tokens:
            window = LimitWindow(limit and limit * tokens, remaining and remaining * tokens, reset)
            self.core.observe(LimitHeaders(tokens=window), self.now, grant)
        else:
            self.core.observe(LimitHeaders(requests=LimitWindow(limit, remaining, reset)), self.now, grant)
        self._tick_at_once()

    def _tick_at_once(self) -> None:
        """Whoever is too late now is told now, and whoever is not will get a turn, if nothing happens but time."""
        if self.core.wake_at() <= self.now:
            self.tick()
        if self.now >= self.latest and not self.held_up:
            patient = self._run_out(deepcopy(self.core))
            assert self.waiting.keys() <= patient.keys()

    # -- time

    @rule(step=st.one_of(STEPS, STEPS, STEPS, STEPS, st.sampled_from([-500.0, -3.0, -0.25, 600.0, 1e6])))
    def wait(self, step: float) -> None:
        self.now += step
        self.held_up = bool(self.waiting) and (self.held_up or self.core.wake_at() < self.now)

    @rule()
    def tick(self) -> None:
        answers = self.core.tick(self.now)
        self.latest = max(self.latest, self.now)
        self._answered(answers)
        assert self.core.wake_at() > self.now

    @precondition(lambda self: self.core.wake_at() < math.inf)
    @rule()
    def wake(self) -> None:
        due = self.core.wake_at()
        self.now = max(self.now, due)
        answers = self.core.tick(self.now)
        self.latest = max(self.latest, self.now)
        self._answered(answers)
        assert self.core.wake_at() > self.now

    def _answered(self, answers: Ticked[int, Grant]) -> None:
        for key in answers.rejected:
            del self.waiting[key]
        for key, grant in answers.granted:
            assert key == next(iter(self.waiting)), "somebody was overtaken"
            self._granted(grant, self.waiting.pop(key))
        event(f"granted by a tick: {min(len(answers.granted), 3)}, rejected: {min(len(answers.rejected), 3)}")

    def _granted(self, grant: Grant, give_up_at: float) -> None:
        assert grant.at == self.now
        assert self.paused_until <= self.now <= give_up_at
        if self.limit is not None and grant.tokens:
            self._fits_the_minute(grant, self.limit)
        self.sends.append(grant)
        self.live.append(grant)
        self.spent[grant] = grant.tokens

    def _fits_the_minute(self, grant: Grant, limit: int) -> None:
        """Whether no more than the limit is granted in the minute that ends now; what is too large goes alone."""
        before = sum(tokens for sent, tokens in self.spent.items() if self.now - 60.0 <= sent.at <= self.now)
        before += sum(tokens for at, tokens in self.debts if self.now - 60.0 <= at <= self.now)
        assert before + grant.tokens <= limit or before == 0

    # -- crashes

    @precondition(lambda self: self.now >= self.latest)
    @rule(now=st.sampled_from([True, False, False, False]))
    def restart(self, now: bool) -> None:
        if not now:
            return
        self.tick()
        rate = self.core.snapshot().rate
        self.core = GcraCore.restore(self.config, self.core.snapshot(), self.now)
        assert self.core.snapshot().rate == rate
        self.waiting.clear()  # a kept reply fails with its actor
        assert self.core.snapshot().paused_until == self.paused_until
        if self.interval:
            assert self.core._requests.due(1) >= self.now + self.interval - FUZZ

    # -- always

    @invariant()
    def no_window_holds_too_much(self) -> None:
        if self.interval:
            assert sends_fit([grant.at for grant in self.sends[self.since :][-60:]], self.burst, self.interval)

    @invariant()
    def never_faster_than_configured(self) -> None:
        rate = self.core.snapshot().rate
        if self.interval:
            assert rate is not None
            assert rate <= 60 / self.interval + FUZZ

    @invariant()
    def nobody_is_lost(self) -> None:
        state = self.core.snapshot()
        assert state.waiting == len(self.waiting)
        assert self.core.full is (state.waiting >= self.config.queue)
        assert state.paused_until == self.paused_until
        assert (self.core.wake_at() < math.inf) is bool(self.waiting)


TestLimiter = Limiter.TestCase
TestLimiter.settings = settings(stateful_step_count=50, max_examples=2 * settings().max_examples)

PACES = st.builds(
    Pace,
    share=st.sampled_from([1 / 16, 0.25, 0.5, 0.75, 1.0]),
    learned=st.sampled_from([0.0, 0.5, 60.0]),
)


@given(PACES, st.floats(0.0, 1e6))
def test_a_pace_recovers_completely_within_a_minute_and_its_reset(pace: Pace, now: float) -> None:
    """Left alone, every slow-down ends, in a handful of steps, each for the faster."""
    slowed = pace.halved(now)
    steps = 0
    while slowed.changes_at < math.inf:
        coming = slowed.next()
        assert coming.interval(1.0) <= slowed.interval(1.0)
        assert slowed.changes_at <= now + 60.0 + FUZZ or slowed.learned
        slowed = coming
        steps += 1
    assert steps <= 9
    assert slowed.share == 1.0


NUMBERS = st.one_of(st.none(), st.floats(), st.integers(-2, 10**6).map(float))


@given(
    PACES,
    st.builds(LimitWindow, NUMBERS, NUMBERS, NUMBERS),
    st.integers(0, 1000),
    st.floats(0.0, 1e9),
    st.sampled_from([REQUESTS, TOKENS]),
)
def test_any_headers_teach_a_bearable_pace_or_nothing(
    pace: Pace, window: LimitWindow, unseen: int, now: float, scale: Scale
) -> None:
    """No header stops a limiter, or speeds it up beyond what is configured."""
    taught = pace.taught(window, unseen, now, scale)
    assert taught.interval(1.0) >= Pace(pace.share).interval(1.0)
    if taught is not pace:
        assert taught.share == pace.share
        assert 0.0 <= taught.learned <= 60.0
        assert 0.0 <= taught.next().learned <= 60.0 if taught.learned_until < math.inf else True
        assert (taught.at_once < math.inf) is (taught.learned > 0.0)
