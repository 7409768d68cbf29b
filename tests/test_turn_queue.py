"""The turn queue's core: one turn of a session at a time, in order, and bounds that say which one was met."""

import pytest

from wizard_actors.turn_queue import MAX_WAITING, Full, Lease, SessionStoreState, TurnQueue
from wizard_actors.waiting import Waiting


def taken(queue: TurnQueue[str], session: str, key: str, now: float = 0.0) -> Lease:
    """Take a turn that is free."""
    lease = queue.take(session, key, f"request {key}", now)
    assert isinstance(lease, Lease)
    return lease


def test_a_lease_says_whose_turn_it_is() -> None:
    """The session, the request, and since when."""
    lease = taken(TurnQueue(10), "alice", "a", now=5.0)

    assert (lease.session, lease.request_id, lease.since) == ("alice", "request a", 5.0)


def test_who_asks_again_has_the_place_of_the_first_time() -> None:
    """By the number of its arrival, whenever it comes."""
    queue: TurnQueue[str] = TurnQueue(10)
    lease = taken(queue, "alice", "a")
    for key, arrival in (("b", 4), ("d", 2), ("c", 3)):
        assert queue.take("alice", key, f"request {key}", 1.0, arrival) == Waiting()

    order = []
    while (following := queue.release(lease, 2.0)) is not None:
        key, lease = following
        order.append(key)

    assert order == ["d", "c", "b"]


def test_turns_of_one_session_follow_each_other_in_order() -> None:
    """Other sessions do not wait for them, and nothing is granted while nobody waits."""
    queue: TurnQueue[str] = TurnQueue(10)
    first = taken(queue, "alice", "a")
    assert queue.take("alice", "b", "request b", 1.0) == Waiting()
    assert queue.take("alice", "c", "request c", 2.0) == Waiting()
    other = taken(queue, "bob", "d")

    assert queue.busy == {"alice", "bob"}
    assert queue.release(other, 3.0) is None
    following = queue.release(first, 3.0)
    assert following is not None
    key, lease = following
    assert (key, lease.session, lease.request_id, lease.since) == ("b", "alice", "request b", 3.0)
    queue.forget("c")
    assert queue.release(lease, 4.0) is None
    assert queue.busy == frozenset()


def test_sixteen_wait_for_one_session_and_no_more() -> None:
    """The seventeenth is told that it is this session that is full; another session has room."""
    queue: TurnQueue[str] = TurnQueue(1000)
    taken(queue, "alice", "first")
    for number in range(MAX_WAITING):
        assert queue.take("alice", str(number), "r", 0.0) == Waiting()

    assert queue.take("alice", "late", "r", 0.0) == Full(of_session=True, bound=16)
    taken(queue, "bob", "other")
    queue.forget("3")
    assert queue.take("alice", "again", "r", 0.0) == Waiting()
    assert queue.snapshot() == SessionStoreState(turns=2, waiting=16, granted=2, rejected=1)


def test_turns_in_progress_and_waiting_are_bounded_together() -> None:
    """Whoever comes beyond that is told that it is all of them."""
    queue: TurnQueue[str] = TurnQueue(3)
    lease = taken(queue, "alice", "a")
    taken(queue, "bob", "b")
    assert queue.take("alice", "c", "r", 0.0) == Waiting()

    assert queue.take("carol", "d", "r", 0.0) == Full(of_session=False, bound=3)
    queue.forget("c")
    queue.release(lease, 0.0)
    taken(queue, "carol", "e")


def test_a_queue_holds_at_least_one_turn() -> None:
    """None would be a store that refuses everybody."""
    with pytest.raises(ValueError, match="at least one turn, not 0"):
        TurnQueue(0)
