"""How many requests may be in progress, and what the one too many is told."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest

from wizard_actors.config import ServerConfig
from wizard_actors.errors import MailboxFullError
from wizard_actors.server.access import Caller
from wizard_actors.server.admission import Admission

BOUNDS = ServerConfig(max_per_connection=2, max_per_key=3, max_in_flight=4)
ALICE, BOB = Caller("alice"), Caller("bob")


@pytest.mark.parametrize(
    ("in_progress", "caller", "connection", "setting"),
    [
        ([(ALICE, 1), (ALICE, 1)], ALICE, 1, "server.max_per_connection"),
        ([(ALICE, 1), (ALICE, 1), (ALICE, 2)], ALICE, 3, "server.max_per_key"),
        ([(ALICE, 1), (ALICE, 1), (BOB, 2), (BOB, 2)], BOB, 3, "server.max_in_flight"),
        ([(Caller("eve", max_in_flight=1), 1)], Caller("eve", max_in_flight=1), 2, "max_in_flight of the key 'eve'"),
    ],
)
def test_the_one_too_many_is_told_which_bound_it_met(
    in_progress: list[tuple[Caller, int]], caller: Caller, connection: int, setting: str
) -> None:
    """At once, by the name of the setting; and nothing of it is counted."""
    admission = Admission()
    with ExitStack() as stack:
        for who, where in in_progress:
            stack.enter_context(admission.request(who, where, BOUNDS))

        with pytest.raises(MailboxFullError, match=setting), admission.request(caller, connection, BOUNDS):
            pass

        assert admission.in_progress == len(in_progress)


def test_the_room_is_that_of_the_key_and_of_the_server() -> None:
    """Whichever is less; none is no room, also where a reload has lowered a bound."""
    admission = Admission()
    with admission.request(ALICE, 1, BOUNDS), admission.request(BOB, 2, BOUNDS):
        assert (admission.room(ALICE, BOUNDS), admission.room(Caller("eve", max_in_flight=1), BOUNDS)) == (2, 1)
        assert admission.room(ALICE, ServerConfig(max_in_flight=1)) == 0
        with admission.request(BOB, 2, BOUNDS):
            assert admission.room(ALICE, BOUNDS) == 1


@pytest.mark.parametrize(("most", "others", "count"), [(1, 0, 1), (2, 0, 2), (9, 0, 3), (9, 2, 2), (9, 3, 1)])
def test_who_asks_several_things_at_once_takes_the_room_that_there_is(most: int, others: int, count: int) -> None:
    """Its own place among them; what it takes nobody else has, until it ends."""
    admission = Admission()
    with ExitStack() as stack:
        stack.enter_context(admission.request(ALICE, 1, BOUNDS))
        for number in range(others):
            stack.enter_context(admission.request(BOB, 2 + number, BOUNDS))

        with admission.several(ALICE, BOUNDS, most) as at_once:
            assert at_once == count
            assert (admission.of_key("alice"), admission.in_progress) == (count, count + others)
        assert (admission.of_key("alice"), admission.in_progress) == (1, 1 + others)


def test_what_ends_makes_room_however_it_ends() -> None:
    """Also by an error; and no count goes below zero."""
    admission, tight = Admission(), ServerConfig(max_per_connection=1)

    for error in (None, KeyError(), None):
        with suppress(KeyError), admission.request(ALICE, 1, tight):
            assert (admission.in_progress, admission.of_key("alice")) == (1, 1)
            if error is not None:
                raise error

    assert (admission.in_progress, admission.of_key("alice")) == (0, 0)


def test_who_has_nothing_in_progress_leaves_no_trace() -> None:
    """Millions of connections that have been leave nothing behind."""
    admission = Admission()

    for number in range(100):
        with admission.request(Caller(f"key-{number}"), number, BOUNDS):
            pass

    assert not admission._keys
    assert not admission._connections


def test_bounds_that_a_reload_lowers_refuse_newcomers_alone() -> None:
    """What is in progress ends as it would have."""
    admission, lower = Admission(), ServerConfig(max_per_connection=1)
    with admission.request(ALICE, 1, BOUNDS), admission.request(ALICE, 1, BOUNDS):
        with pytest.raises(MailboxFullError), admission.request(ALICE, 1, lower):
            pass

        assert admission.in_progress == 2
