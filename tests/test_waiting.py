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


def test_whoever_comes_back_has_the_new_time_only() -> None:
    """What a waiter that left had said of its patience does not count any more."""
    room: WaitingRoom[str] = WaitingRoom(2)
    room.enter("a", 1.0)
    room.leave("a")
    room.enter("a", 9.0)
    assert room.next_give_up() == 9.0
    assert room.turn_out(5.0) == []
    assert len(room) == 1


def test_those_who_stay_give_up_in_the_right_order_after_many_left() -> None:
    """The most impatient first, whoever came and went meanwhile."""
    room: WaitingRoom[int] = WaitingRoom(300)
    for key in range(300):
        room.enter(key, float(key * 7919 % 300))
    for key in range(250):
        room.leave(key)
    assert room.turn_out(300.0) == sorted(range(250, 300), key=lambda key: key * 7919 % 300)
