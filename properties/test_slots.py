"""The bulkhead's core against plain lists: bounded, in order, nothing lost, nothing granted to whoever has given up."""

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wizard_actors.slots import Slot, SlotCore
from wizard_actors.verdict import Outcome
from wizard_actors.waiting import Rejected, Waiting


class Worker(RuleBasedStateMachine):
    """Callers that come, wait, leave and give back, crashes in between, and a clock that may go back."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.keys = 0
        self.waiting: dict[int, float] = {}
        self.live: list[Slot] = []
        self.returned: list[Slot] = []

    @initialize(slots=st.integers(1, 4), queue=st.integers(1, 6))
    def build(self, slots: int, queue: int) -> None:
        self.slots, self.queue = slots, queue
        self.core: SlotCore[int] = SlotCore(slots, queue)

    @rule(patiences=st.lists(st.one_of(st.integers(0, 20).map(float), st.just(math.inf)), min_size=1, max_size=5))
    def take(self, patiences: list[float]) -> None:
        for patience in patiences:
            self.keys += 1
            at_once = len(self.live) < self.slots and not self.waiting
            room = len(self.waiting) < self.queue
            assert self.core.full is not room
            answer = self.core.take(self.keys, f"request {self.keys}", self.now, self.now + patience)
            if isinstance(answer, Slot):
                assert at_once
                self._granted(self.keys, answer)
            elif isinstance(answer, Waiting):
                assert not at_once
                assert room
                self.waiting[self.keys] = self.now + patience
            else:
                assert answer == Rejected()
                assert not at_once
                assert not room or patience == 0.0

    def _granted(self, key: int, slot: Slot) -> None:
        assert (slot.request_id, slot.since) == (f"request {key}", self.now)
        self.live.append(slot)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        slot = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        self.core.release(slot, self.now)
        self.returned.append(slot)
        assert not self.waiting or len(self.live) >= self.slots or self.core.wake_at() <= self.now

    @precondition(lambda self: self.returned)
    @rule()
    def release_again(self) -> None:
        before = self.core.snapshot()
        self.core.release(self.returned[-1], self.now)
        assert self.core.snapshot() == before

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(list(self.waiting)))
        self.core.forget(key)
        del self.waiting[key]

    @rule(step=st.one_of(st.integers(0, 10).map(float), st.integers(0, 10).map(float), st.sampled_from([-7.0, 1e6])))
    def wait(self, step: float) -> None:
        self.now += step

    @rule()
    def tick(self) -> None:
        free = self.slots - len(self.live)
        answers = self.core.tick(self.now)
        still = {key: give_up_at for key, give_up_at in self.waiting.items() if give_up_at >= self.now}
        expected = list(still)[: max(free, 0)]
        assert [key for key, _ in answers.granted] == expected
        gone = [key for key, give_up_at in self.waiting.items() if give_up_at <= self.now and key not in expected]
        assert sorted(answers.rejected) == gone
        for key, slot in answers.granted:
            self._granted(key, slot)
            del self.waiting[key]
        for key in answers.rejected:
            del self.waiting[key]
        assert self.core.wake_at() > self.now

    @precondition(lambda self: self.core.wake_at() < math.inf)
    @rule()
    def wake(self) -> None:
        self.now = max(self.now, self.core.wake_at())
        waiting = len(self.waiting)
        self.tick()
        assert len(self.waiting) < waiting

    @rule(now=st.sampled_from([True, False, False, False]), slots=st.integers(1, 4))
    def restart(self, now: bool, slots: int) -> None:
        if now:
            before = self.core.snapshot()
            self.slots = slots  # also fewer than are live
            self.core = SlotCore.restore(slots, self.queue, self.live, before)
            assert self.core.snapshot().health == before.health
            self.waiting.clear()  # a kept reply fails with its actor

    @rule(slots=st.integers(1, 4))
    def reconfigure(self, slots: int) -> None:
        self.slots = slots  # also fewer than are live
        self.core.reconfigure(slots, self.now)
        assert not self.waiting or len(self.live) >= slots or self.core.wake_at() <= self.now

    @rule(outcome=st.sampled_from(Outcome))
    def fare(self, outcome: Outcome) -> None:
        before = self.core.snapshot().health
        self.core.first_token(0.5, self.now)
        self.core.ended(outcome, self.now)
        after = self.core.snapshot().health
        assert after.first_token_at == max(before.first_token_at, self.now)
        assert len(after.first_tokens) <= 16
        assert after.succeeded + after.failed + after.ignored == before.succeeded + before.failed + before.ignored + 1

    @invariant()
    def everything_is_accounted_for(self) -> None:
        state = self.core.snapshot()
        assert state.in_use == len(self.live)
        assert set(self.core.in_flight) == set(self.live)
        assert state.waiting == len(self.waiting) <= self.queue
        assert set(self.core._request_ids) == set(self.waiting)
        assert self.waiting or self.core.wake_at() == math.inf


TestWorker = Worker.TestCase
TestWorker.settings = settings(stateful_step_count=40, max_examples=3 * settings().max_examples)
