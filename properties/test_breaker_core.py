"""The circuit breaker's core against a list of everything that was told to it."""

import math
from copy import deepcopy
from random import Random

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wizard_actors.breaker_core import TRANSITIONS, BreakerCore, BreakerState, Circuit, Permit, Refused
from wizard_actors.config import BreakerConfig
from wizard_actors.verdict import Outcome

STEPS = st.one_of(*[st.integers(0, 30).map(float)] * 4, st.sampled_from([-50.0, 61.0, 1e6]))
OUTCOMES = st.sampled_from([Outcome.FAILURE] * 3 + [Outcome.SUCCESS] * 2 + [Outcome.IGNORED])


class Breaker(RuleBasedStateMachine):
    """Calls that are admitted, end in any order or never, and a clock that may go back."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.out: list[Permit] = []
        self.ended: list[Permit] = []
        self.heard: set[Permit] = set()
        self.failures: list[float] = []  # of the present generation
        self.successes = 0
        self.fragile_until = -math.inf

    @initialize(
        threshold=st.integers(1, 4), successes=st.integers(1, 3), probes=st.integers(1, 3), seed=st.integers(0, 99)
    )
    def build(self, threshold: int, successes: int, probes: int, seed: int) -> None:
        self.config = BreakerConfig(
            failure_threshold=threshold,
            success_threshold=successes,
            half_open_probes=probes,
            window=60.0,
            open_for=30.0,
        )
        self.core = BreakerCore(self.config, Random(seed))
        self.before = self.core.snapshot()

    @rule(count=st.integers(1, 4))
    def ask(self, count: int) -> None:
        self.admit(count)

    def admit(self, count: int) -> None:
        for _ in range(count):
            self.before = before = self.core.snapshot()
            allowed = before.allows(self.now)
            answer = self.core.admit(self.now)
            assert isinstance(answer, Permit) is allowed
            if isinstance(answer, Refused):
                assert answer.retry_at > self.now
                assert before.circuit is not Circuit.OPEN or answer.retry_at == before.retry_at
                continue
            assert self.core.snapshot().honours(answer)
            assert answer.probe is (before.circuit is not Circuit.CLOSED)
            self.out.append(answer)
            if before.circuit is Circuit.OPEN:
                self._began(Circuit.HALF_OPEN)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=OUTCOMES)
    def settle(self, data: st.DataObject, outcome: Outcome) -> None:
        # The newest most often, which is what decides; but sometimes one of long ago.
        self._settle(self.out.pop(-data.draw(st.integers(1, min(len(self.out), 6)))), outcome)

    @rule(calls=st.lists(st.tuples(st.integers(0, 30).map(float), OUTCOMES), min_size=1, max_size=6))
    def call(self, calls: list[tuple[float, Outcome]]) -> None:
        for step, outcome in calls:
            out = len(self.out)
            self.now += step
            self.admit(1)
            if len(self.out) > out:
                self._settle(self.out.pop(), outcome)

    def _settle(self, permit: Permit, outcome: Outcome) -> None:
        self.before = before = self.core.snapshot()
        self.core.settle(permit, outcome, self.now)
        self.ended.append(permit)
        if permit.generation != before.generation or outcome is Outcome.IGNORED:
            self._nothing_learned(before)
        elif before.circuit is Circuit.CLOSED:
            self._settled_closed(outcome)
        else:
            self._settled_probe(outcome)

    @rule(outcome=st.sampled_from([Outcome.FAILURE, Outcome.SUCCESS, Outcome.SUCCESS]))
    def record(self, outcome: Outcome) -> None:
        """Tell of a call without a permit: by the rules of one that is admitted and ends at once."""
        if self.core.snapshot().circuit is Circuit.OPEN and self.core.snapshot().allows(self.now):
            self.before = self.core.snapshot()
            self.core.come_due(self.now)
            self._began(Circuit.HALF_OPEN)
        self.before = before = self.core.snapshot()
        self.core.record(outcome, self.now)
        after = self.core.snapshot()
        assert (after.in_flight, after.admitted, after.refused) == (before.in_flight, before.admitted, before.refused)
        if not before.allows(self.now):
            assert after == evolve(before, fenced=before.fenced + 1)
        elif before.circuit is Circuit.CLOSED:
            self._settled_closed(outcome)
        else:
            self._settled_probe(outcome)

    @precondition(lambda self: self.out)
    @rule()
    def forget(self) -> None:
        before = self.core.snapshot()
        permit = self.out.pop()
        self.core.forget(permit)
        self.ended.append(permit)
        self._nothing_learned(before)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), again=st.booleans())
    def hear(self, data: st.DataObject, again: bool) -> None:
        before = self.core.snapshot()
        permit = self.out[-data.draw(st.integers(1, min(len(self.out), 6)))]
        for _ in range(1 + again):
            self.core.hear(permit)
        self.heard.add(permit)
        after = self.core.snapshot()
        assert after == evolve(before, probes_free=after.probes_free)  # it teaches nothing
        if before.circuit is not Circuit.HALF_OPEN or permit.generation != before.generation:
            assert after == before

    @precondition(lambda self: self.ended)
    @rule()
    def hear_too_late(self) -> None:
        before = self.core.snapshot()
        self.core.hear(self.ended[-1])
        assert self.core.snapshot() == before

    @precondition(lambda self: self.ended)
    @rule(outcome=st.sampled_from(Outcome))
    def settle_again(self, outcome: Outcome) -> None:
        before = self.core.snapshot()
        self.core.settle(self.ended[-1], outcome, self.now)
        assert self.core.snapshot() == before

    def _nothing_learned(self, before: BreakerState) -> None:
        after = self.core.snapshot()
        assert (after.circuit, after.generation, after.failures) == (before.circuit, before.generation, before.failures)
        assert after.in_flight == before.in_flight - 1

    def _settled_closed(self, outcome: Outcome) -> None:
        if outcome is Outcome.FAILURE:
            self.failures.append(self.now)
        newest = self.failures[-self.config.failure_threshold :]
        enough = len(newest) == self.config.failure_threshold and self.now - newest[0] <= self.config.window
        trips = outcome is Outcome.FAILURE and (enough or self.now < self.fragile_until)
        if trips:
            self._began(Circuit.OPEN)
        else:
            assert self.core.snapshot().generation == self.before.generation

    def _settled_probe(self, outcome: Outcome) -> None:
        self.successes += outcome is Outcome.SUCCESS
        if outcome is Outcome.FAILURE:
            self._began(Circuit.OPEN)
        elif self.successes == self.config.success_threshold:
            self._began(Circuit.CLOSED)
        else:
            assert self.core.snapshot().generation == self.before.generation

    def _began(self, circuit: Circuit) -> None:
        after = self.core.snapshot()
        assert after.circuit is circuit in TRANSITIONS[self.before.circuit].values()
        assert after.generation == self.before.generation + 1
        if circuit is Circuit.OPEN:
            again = 2 if self.before.circuit is Circuit.HALF_OPEN else 1
            assert 0.8 * 30.0 * again <= after.retry_at - self.now <= 30.0 * again
        self.failures, self.successes, self.fragile_until = [], 0, -math.inf

    @rule(step=STEPS)
    def wait(self, step: float) -> None:
        self.now += step

    @precondition(lambda self: self.core.snapshot().circuit is Circuit.OPEN)
    @rule()
    def wait_until_due(self) -> None:
        self.now = max(self.now, self.core.snapshot().retry_at)

    @rule(now=st.sampled_from([True, False, False, False]))
    def restart(self, now: bool) -> None:
        if not now:
            return
        before = self.core.snapshot()
        self.core = BreakerCore.restore(self.config, Random(1), before, self.now)
        after = self.core.snapshot()
        assert not any(after.honours(permit) for permit in self.out)
        assert (after.circuit is Circuit.CLOSED) is (before.circuit is Circuit.CLOSED)
        assert after.circuit is Circuit.CLOSED or after.retry_at == before.retry_at
        for permit in self.out:  # fenced by the ledger, but even if they came back
            self.core.settle(permit, Outcome.FAILURE, self.now)
        assert self.core.snapshot() == after
        self.ended += self.out
        self.out.clear()
        self.failures, self.successes = [], 0
        self.fragile_until = self.now + self.config.window if before.circuit is Circuit.CLOSED else -math.inf

    @precondition(lambda self: self.core.snapshot().circuit is not Circuit.HALF_OPEN)
    @rule(threshold=st.integers(1, 4), successes=st.integers(1, 3), probes=st.integers(1, 3))
    def reconfigure(self, threshold: int, successes: int, probes: int) -> None:
        """The state and what was counted go on; of more failures than trip it now, the newest are known."""
        before = self.core.snapshot()
        self.config = evolve(
            self.config, failure_threshold=threshold, success_threshold=successes, half_open_probes=probes
        )
        self.core.reconfigure(self.config)
        assert self.core.snapshot() == evolve(before, failures=min(before.failures, threshold))
        self.failures = self.failures[-threshold:]
        self.before = self.core.snapshot()

    @invariant()
    def probes_are_bounded(self) -> None:
        state = self.core.snapshot()
        probes = [permit for permit in self.out if permit.generation == state.generation]
        unheard = sum(permit not in self.heard for permit in probes)
        if state.circuit is Circuit.HALF_OPEN:
            places, all_in_all = self.config.half_open_probes, len(probes)
            assert unheard <= places
            assert all_in_all <= places + self.config.success_threshold
            free = min(places - unheard, places + self.config.success_threshold - all_in_all)
            assert state.probes_free == free >= 0
        assert state.in_flight == len(self.out)
        assert state.failures <= self.config.failure_threshold

    def teardown(self) -> None:
        """Once every call has ended and the model is well again, the circuit closes: nothing sticks."""
        if not hasattr(self, "core"):
            return
        core, now = deepcopy(self.core), self.now
        for permit in tuple(core._live):
            core.forget(permit)
        now = max(now, core.snapshot().retry_at)
        for _ in range(self.config.success_threshold):
            permit_or_refusal = core.admit(now)
            assert isinstance(permit_or_refusal, Permit)
            core.settle(permit_or_refusal, Outcome.SUCCESS, now)
        assert core.snapshot().circuit is Circuit.CLOSED


TestBreaker = Breaker.TestCase
TestBreaker.settings = settings(stateful_step_count=40, max_examples=2 * settings().max_examples)


@given(
    st.sampled_from([0.2, 0.5, 1.0]),
    st.integers(1, 12),
    st.lists(st.tuples(st.floats(0.0, 9.0), st.sampled_from(Outcome)), max_size=80),
)
def test_a_rate_trips_just_when_enough_calls_of_the_window_failed(
    rate: float, minimum_calls: int, calls: list[tuple[float, Outcome]]
) -> None:
    """Slices of the window count as a whole, and only a failure trips."""
    config = BreakerConfig(failure_rate=rate, minimum_calls=minimum_calls, window=50.0, failure_threshold=1)
    core = BreakerCore(config, Random(0))
    now, told = 0.0, list[tuple[int, bool]]()
    for step, outcome in calls:
        now += step
        permit = core.admit(now)
        assert isinstance(permit, Permit)
        core.settle(permit, outcome, now)
        if outcome is not Outcome.IGNORED:
            told.append((math.floor(now / 5.0), outcome is Outcome.FAILURE))
        window = [failed for number, failed in told if number > math.floor(now / 5.0) - 10]
        enough = len(window) >= minimum_calls and sum(window) / len(window) >= rate
        tripped = core.snapshot().circuit is Circuit.OPEN
        assert tripped is (outcome is Outcome.FAILURE and enough)
        if tripped:
            return


@given(st.lists(st.tuples(STEPS, st.sampled_from(Outcome)), min_size=40, max_size=80))
def test_a_rate_holds_ten_slices_at_most(calls: list[tuple[float, Outcome]]) -> None:
    """Neither many calls nor a jumping clock make a breaker grow."""
    core = BreakerCore(BreakerConfig(failure_rate=1.0, minimum_calls=1000), Random(0))
    now = 0.0
    for step, outcome in calls:
        now += step
        permit = core.admit(now)
        assert isinstance(permit, Permit)
        core.settle(permit, outcome, now)
    assert len(core._failures._slices) <= 10  # type: ignore[union-attr]  # a rate was configured
    assert core.snapshot().in_flight == 0
