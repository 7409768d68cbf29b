"""The turn queue against plain lists: one turn of a session at a time, in order, bounded, nothing lost."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wizard_actors.turn_queue import MAX_WAITING, Full, Lease, SessionStoreState, TurnQueue
from wizard_actors.waiting import Waiting

NAMES = st.sampled_from(["alice", "bob", "carol"])


class Turns(RuleBasedStateMachine):
    """Requests that come, wait, leave and give back, and crashes in between."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = 0
        self.now = 0.0
        self.waiting: dict[str, list[int]] = {}
        self.live: dict[str, Lease] = {}
        self.returned: list[Lease] = []
        self.granted = self.rejected = 0

    @initialize(bound=st.sampled_from([1, 2, 5, 25, 1000]))
    def build(self, bound: int) -> None:
        self.bound = bound
        self.queue: TurnQueue[int] = TurnQueue(bound)

    @property
    def held(self) -> int:
        return len(self.live) + sum(map(len, self.waiting.values()))

    @rule(session=NAMES, times=st.integers(1, 20))
    def take(self, session: str, times: int) -> None:
        for _ in range(times):
            self.keys += 1
            self.now += 1.0
            before = self.held
            answer = self.queue.take(session, self.keys, f"request {self.keys}", self.now)
            queued = len(self.waiting.get(session, []))
            if queued >= MAX_WAITING:
                assert answer == Full(of_session=True, bound=MAX_WAITING)
                self.rejected += 1
            elif before >= self.bound:
                assert answer == Full(of_session=False, bound=self.bound)
                self.rejected += 1
            elif session in self.live:
                assert answer == Waiting()
                self.waiting.setdefault(session, []).append(self.keys)
            else:
                assert isinstance(answer, Lease)
                self._granted(session, self.keys, answer)

    def _granted(self, session: str, key: int, lease: Lease) -> None:
        assert (lease.session, lease.request_id, lease.since) == (session, f"request {key}", self.now)
        assert session not in self.live
        self.live[session] = lease
        self.granted += 1

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(self.live)))
        lease = self.live.pop(session)
        self.returned.append(lease)
        self.now += 1.0
        following = self.queue.release(lease, self.now)
        waiting = self.waiting.get(session)
        if waiting:
            assert following is not None
            assert following[0] == waiting.pop(0)
            self._granted(session, *following)
        else:
            assert following is None

    @precondition(lambda self: self.returned)
    @rule(data=st.data())
    def release_again(self, data: st.DataObject) -> None:
        assert self.queue.release(data.draw(st.sampled_from(self.returned)), self.now) is None

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        key = data.draw(st.integers(0, self.keys))
        self.queue.forget(key)
        for waiting in self.waiting.values():
            if key in waiting:
                waiting.remove(key)

    @rule()
    def restart(self) -> None:
        carry = self.queue.snapshot()
        self.queue = TurnQueue.restore(self.bound, self.live.values(), carry)
        self.waiting.clear()  # a kept reply fails with its actor

    @invariant()
    def everything_is_accounted_for(self) -> None:
        assert self.queue.busy == set(self.live)
        assert self.queue.snapshot() == SessionStoreState(
            turns=len(self.live),
            waiting=sum(map(len, self.waiting.values())),
            granted=self.granted,
            rejected=self.rejected,
        )
        assert self.held <= self.bound
        left = [session for session, waiting in self.waiting.items() if waiting]
        assert set(self.queue._waiting) == set(left)


TestTurns = Turns.TestCase
TestTurns.settings = settings(stateful_step_count=40)
