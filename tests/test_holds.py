"""Who holds a configuration: nobody takes one that has ended, and none ends that somebody holds."""

from __future__ import annotations

import gc

from wizard_actors.holds import Holds


def test_one_that_has_ended_cannot_be_held() -> None:
    """And who tried holds nothing of it."""
    holds = Holds()
    assert holds.end()

    assert holds.hold() is None
    assert holds.end()


def test_one_that_is_held_does_not_end() -> None:
    """It can be held by others, too, until the last of them gives it back."""
    holds, rung = Holds(), list[str]()
    first = holds.hold()
    holds.retire(lambda: rung.append("empty"))
    assert not holds.end()
    second = holds.hold()

    assert first is not None
    first.release()
    assert rung == []
    assert not holds.end()
    del second
    gc.collect()
    assert rung == ["empty"]
    assert holds.end()


def test_an_end_right_before_a_hold_is_taken_is_seen() -> None:
    """Whoever was about to take it gets none."""

    class EndsFirst(Holds):
        def take(self, token: object) -> None:
            assert self.end()
            super().take(token)

    holds = EndsFirst()
    assert holds.hold() is None
    assert holds.end()


def test_a_hold_right_before_an_end_prevents_it() -> None:
    """Whoever has taken it keeps it."""
    ended: list[bool] = []

    class EndsAfter(Holds):
        def take(self, token: object) -> None:
            super().take(token)
            ended.append(self.end())

    hold = EndsAfter().hold()
    assert ended == [False]
    assert hold is not None
    assert not hold.holds.end()


def test_a_hold_counts_until_it_is_left_as_often_as_entered() -> None:
    """Released meanwhile, it is given back as it is left."""
    holds = Holds()
    hold = holds.hold()
    assert hold is not None
    with hold:
        with hold:
            hold.release()
        assert not holds.end()
    assert holds.end()
