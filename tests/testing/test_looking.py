"""How contracts look into actors and snapshots: which replies are kept, and what has changed."""

from __future__ import annotations

from collections import deque
from copy import deepcopy

import pytest

from tests.testing.parks import LiveView, Place
from wizard_actors.actor import Actor, Reply
from wizard_actors.mailbox import Mailbox
from wizard_actors.testing.looking import frozen_copy, held_replies


def test_replies_are_found_wherever_they_are_kept() -> None:
    """In a queue, behind a bound method, in a closure or an object's slots: a reply that is kept is seen."""
    mailbox = Mailbox("somewhere", bound=1, tells=1)
    replies = [Reply[int](mailbox) for _ in range(4)]

    class Holder:
        __slots__ = ("kept",)

        def __init__(self, kept: object) -> None:
            self.kept = kept

    actor = Actor()
    vars(actor).update(a=deque([replies[0]]), b=replies[1].send, c=lambda: replies[2], d=Holder(replies[3]))

    assert set(held_replies(actor)) == set(replies)


@pytest.mark.parametrize(
    "value", [[1, [2]], {"a": [1]}, {1, 2}, (1, [2]), LiveView(1, [Place(1)]), {"a": {"b": LiveView(1, [])}}]
)
def test_a_copy_is_equal_to_that_of_an_equal_value(value: object) -> None:
    """Copies of equal values are equal, whatever they are made of."""
    assert frozen_copy(value) == frozen_copy(deepcopy(value))


def test_a_copy_is_not_reached_by_later_changes() -> None:
    """What is changed deep inside, or contains itself, differs from its copy."""
    inner: list[object] = [1]
    value: list[object] = [{"a": LiveView(1, [])}, inner]
    inner.append(value)
    before = frozen_copy(value)

    inner.append(2)

    assert frozen_copy(value) != before
