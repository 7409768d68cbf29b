"""The waiting room against a plain list."""

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wizard_actors.waiting import WaitingRoom

GIVE_UPS = st.one_of(st.integers(0, 20).map(float), st.just(math.inf))


class Room(RuleBasedStateMachine):
    """Enter, leave and give up in any order; the list says what the room has to hold."""

    def __init__(self) -> None:
        super().__init__()
        self.room: WaitingRoom[int] = WaitingRoom(6)
        self.model: list[tuple[int, float]] = []

    @precondition(lambda self: not self.room.full)
    @rule(key=st.integers(0, 6), give_up_at=GIVE_UPS)
    def enter(self, key: int, give_up_at: float) -> None:
        if all(key != waiting for waiting, _ in self.model):
            self.room.enter(key, give_up_at)
            self.model.append((key, give_up_at))

    @rule(key=st.integers(0, 6))
    def leave(self, key: int) -> None:
        there = any(key == waiting for waiting, _ in self.model)
        assert self.room.leave(key) is there
        self.model = [waiter for waiter in self.model if waiter[0] != key]

    @rule(now=st.integers(-1, 20).map(float))
    def turn_out(self, now: float) -> None:
        overdue = sorted((waiter for waiter in self.model if waiter[1] <= now), key=lambda waiter: waiter[1])
        assert self.room.turn_out(now) == [key for key, _ in overdue]
        self.model = [waiter for waiter in self.model if waiter[1] > now]

    @invariant()
    def agrees(self) -> None:
        assert list(self.room) == self.model
        assert len(self.room) == len(self.model)
        assert self.room.full == (len(self.model) == 6)
        assert self.room.next_give_up() == min((give_up_at for _, give_up_at in self.model), default=math.inf)
        if self.model:
            assert self.room.first() == self.model[0]


TestRoom = Room.TestCase
TestRoom.settings = settings(stateful_step_count=40, max_examples=3 * settings().max_examples)
