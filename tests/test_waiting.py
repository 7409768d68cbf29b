"""The waiting room's edges; what it does in general is a property."""

import math

import pytest

from wizard_actors.waiting import WaitingRoom


def test_a_full_room_lets_nobody_in() -> None:
    """Its owner has to look before."""
    room: WaitingRoom[str] = WaitingRoom(1)
    room.enter("a", math.inf)
    with pytest.raises(ValueError, match="full"):
        room.enter("b", math.inf)


def test_nobody_waits_twice() -> None:
    """A key stands for one waiter."""
    room: WaitingRoom[str] = WaitingRoom(2)
    room.enter("a", math.inf)
    with pytest.raises(ValueError, match="'a' waits"):
        room.enter("a", math.inf)


def test_a_room_for_nobody_is_a_mistake() -> None:
    """A bound below one is refused when the room is made."""
    with pytest.raises(ValueError, match="not 0"):
        WaitingRoom[str](0)


def test_those_who_left_are_not_kept() -> None:
    """A hundred thousand callers that come and are cancelled leave nothing behind."""
    room: WaitingRoom[int] = WaitingRoom(10)
    for key in range(100_000):
        room.enter(key, 1000.0 + key)
        room.leave(key)
    assert len(room._give_ups) <= 65
    assert room.next_give_up() == math.inf
