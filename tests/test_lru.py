"""The store of the cache: its bounds in entries, bytes and time."""

import math

from wizard_actors.lru import ENTRY_OVERHEAD, Found, Sweep, TtlLru


def store(*, entries: int = 3, size: int = 1_000_000, ttl: float = 10.0, stale_for: float = 0.0) -> TtlLru[str]:
    """Return a store of texts."""
    return TtlLru(max_entries=entries, max_bytes=size, ttl=ttl, stale_for=stale_for)


def filled(lru: TtlLru[str], *keys: bytes, size: int = 1, now: float = 0.0) -> TtlLru[str]:
    """Store the name of each key under it."""
    for key in keys:
        assert lru.put(key, key.decode(), size, now)
    return lru


# -- bounds


def test_the_least_recently_used_makes_room() -> None:
    """Reading counts as use, peeking does not."""
    lru = filled(store(), b"a", b"b", b"c")
    lru.get(b"a", 0.0)
    lru.peek(b"b")
    filled(lru, b"d")

    assert list(lru) == [b"c", b"a", b"d"]
    assert lru.evicted == 1


def test_bytes_are_bounded_with_their_overhead() -> None:
    """As many entries as needed make room for a large one; one that never fits is refused, and drops what it was to
    replace.
    """
    lru = filled(store(size=3 * (ENTRY_OVERHEAD + 100)), b"a", b"b", b"c", size=100)
    assert lru.bytes == 3 * (ENTRY_OVERHEAD + 100)

    filled(lru, b"d", size=ENTRY_OVERHEAD + 200)
    assert list(lru) == [b"c", b"d"]
    assert lru.bytes == 3 * (ENTRY_OVERHEAD + 100)

    assert not lru.put(b"d", "too large", 1_000_000, 0.0)
    assert list(lru) == [b"c"]


def test_a_store_of_no_entries_stores_nothing() -> None:
    """Off is off."""
    lru = store(entries=0)
    assert not lru.put(b"a", "a", 1, 0.0)
    assert (len(lru), lru.bytes) == (0, 0)


def test_one_entry_may_be_all_there_is_room_for() -> None:
    """By their number, or to the last byte."""
    one = filled(store(entries=1), b"a", b"b", b"c")
    assert (list(one), one.evicted) == ([b"c"], 2)

    lru = filled(store(size=ENTRY_OVERHEAD + 100), b"a", size=100)
    assert lru.bytes == ENTRY_OVERHEAD + 100
    assert not lru.put(b"b", "a byte too many", 101, 0.0)


# -- time


def test_an_entry_is_fresh_then_expired_then_gone() -> None:
    """Each ends at its instant, to the second."""
    lru = filled(store(ttl=10.0, stale_for=5.0), b"a")
    assert lru.get(b"a", 9.9) == Found("a", fresh=True)
    assert lru.get(b"a", 10.0) == Found("a", fresh=False)
    assert lru.get(b"a", 14.9) == Found("a", fresh=False)
    assert lru.get(b"a", 15.0) is None
    assert (len(lru), lru.bytes, lru.expired) == (0, 0, 1)


def test_what_is_over_is_dropped_unasked() -> None:
    """`next_expiry` names the instant, `expire` does it; what was stored again later stays."""
    lru = filled(store(ttl=10.0, stale_for=5.0), b"a", b"b")
    filled(lru, b"a", now=4.0)
    assert lru.next_expiry() == 15.0

    lru.expire(15.0)
    assert list(lru) == [b"a"]
    assert lru.next_expiry() == 19.0
    lru.expire(19.0)
    assert lru.next_expiry() == math.inf
    assert lru.expired == 2


def test_what_is_over_makes_room_before_what_is_not() -> None:
    """However recently it was looked at."""
    lru = filled(store(entries=2, stale_for=5.0), b"old")
    filled(lru, b"young", now=14.0)
    lru.get(b"old", 14.5)
    filled(lru, b"new", now=15.0)

    assert list(lru) == [b"young", b"new"]
    assert (lru.evicted, lru.expired) == (0, 1)


def test_a_clock_that_goes_back_only_keeps_longer() -> None:
    """Nothing is served late for it, and nothing is lost."""
    lru = filled(store(ttl=10.0), b"a", now=100.0)
    filled(lru, b"b", now=50.0)

    assert lru.get(b"a", 50.0) == Found("a", fresh=True)
    lru.expire(70.0)
    assert lru.get(b"b", 70.0) is None
    assert lru.get(b"a", 109.0) == Found("a", fresh=True)
    lru.expire(110.0)
    assert len(lru) == 0


# -- removal


def test_a_sweep_removes_what_matches_some_at_a_time() -> None:
    """Of what was there when it began; what has gone meanwhile is not counted."""
    lru = filled(store(entries=9), b"a1", b"b1", b"a2", b"a3")
    sweep = Sweep(lru, lambda text: text.startswith("a"))

    assert not sweep.advance(1, len)
    assert list(lru) == [b"a1", b"b1", b"a2"]
    lru.remove(b"a2")
    filled(lru, b"a4")
    assert sweep.advance(100, len)
    assert (list(lru), sweep.removed) == ([b"b1", b"a4"], 2)


def test_unless_told_otherwise_nothing_stands_in_once_its_time_has_passed() -> None:
    """It is gone at that instant, whoever finds out; and each is counted."""
    lru: TtlLru[str] = TtlLru(max_entries=9, max_bytes=1_000_000, ttl=10.0)
    filled(lru, b"a", b"b", b"c")
    assert [lru.get(key, 10.0) for key in (b"a", b"b")] == [None, None]
    assert lru.next_expiry() == 10.0
    lru.expire(10.0)
    assert (lru.expired, len(lru)) == (3, 0)


def test_a_sweep_looks_at_no_more_than_its_budget_allows() -> None:
    """One entry more only where something of the budget is left for it."""
    sweep = Sweep(filled(store(entries=5), b"a", b"b", b"c", b"d"), lambda _: True)
    assert not sweep.advance(2, len)
    assert sweep.removed == 2
    assert not sweep.advance(0, len)
    assert sweep.removed == 2


def test_clearing_leaves_nothing() -> None:
    """Not a byte."""
    lru = filled(store(), b"a", b"b")
    assert lru.clear() == 2
    assert (len(lru), lru.bytes, lru.next_expiry()) == (0, 0, math.inf)
    assert not lru.remove(b"a")
