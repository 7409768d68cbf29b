"""Who holds a configuration: nobody takes one that has ended, and none ends that somebody holds."""

from __future__ import annotations

import gc

from wizard_actors.generation import Generation


def test_one_that_has_ended_cannot_be_held() -> None:
    """And who tried holds nothing of it."""
    generation = Generation()
    assert generation.end()

    assert generation.hold() is None
    assert generation.held == 0


def test_one_that_is_held_does_not_end() -> None:
    """It can be held by others, too, until the last of them gives it back."""
    generation, rung = Generation(), list[str]()
    first = generation.hold()
    generation.retire(lambda: rung.append("empty"))
    assert not generation.end()
    second = generation.hold()

    assert first is not None
    first.release()
    assert (generation.held, rung) == (1, [])
    del second
    gc.collect()
    assert (generation.held, rung) == (0, ["empty"])
    assert generation.end()


def test_an_end_right_before_a_hold_is_taken_is_seen() -> None:
    """Whoever was about to take it gets none."""

    class EndsFirst(Generation):
        def take(self, token: object) -> None:
            assert self.end()
            super().take(token)

    generation = EndsFirst()
    assert generation.hold() is None
    assert generation.held == 0


def test_a_hold_right_before_an_end_prevents_it() -> None:
    """Whoever has taken it keeps it."""
    ended: list[bool] = []

    class EndsAfter(Generation):
        def take(self, token: object) -> None:
            super().take(token)
            ended.append(self.end())

    hold = EndsAfter().hold()
    assert ended == [False]
    assert hold is not None
    assert hold.generation.held == 1


def test_a_hold_counts_until_it_is_left_as_often_as_entered() -> None:
    """Released meanwhile, it is given back as it is left."""
    generation = Generation()
    hold = generation.hold()
    assert hold is not None
    with hold:
        with hold:
            hold.release()
        assert generation.held == 1
    assert generation.held == 0
