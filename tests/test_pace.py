"""Buckets and paces, alone and exactly. Times are seconds from an arbitrary start."""

import math

import pytest

from wizard_actors.pace import REQUESTS, STEP_EVERY, Gcra, Pace
from wizard_actors.types import LimitWindow

TAUGHT = Pace(learned=2.0, at_once=1.0, learned_until=100.0, after=0.5, at_once_after=60.0)
"""What an answer taught that left little: one each two seconds until the reset."""

HALVED = Pace(share=0.5, step_at=50.0)


def taught(limit: float | None, remaining: float, reset: float, unseen: int = 0) -> Pace:
    """Return the pace of requests after an answer with these headers at the instant 10, the first that taught."""
    return Pace().taught(LimitWindow(limit, remaining, reset), unseen, 10.0, REQUESTS)


# -- the bucket


def test_a_bucket_without_a_limit_holds_everything() -> None:
    """Whatever is taken of it, nothing of it is ever used."""
    bucket = Gcra(0.0, 1.0)
    bucket.charge(1_000.0, 5.0)
    assert (bucket.saved(5.0), bucket.used(5.0), bucket.due(1_000.0)) == (math.inf, 0.0, -math.inf)


def test_what_is_given_back_late_is_worth_what_did_not_refill_meanwhile() -> None:
    """A second after the last one was taken, half of one remains where one refills each two seconds."""
    bucket = Gcra(2.0, 2.0)
    assert bucket.try_take(0.0)
    assert bucket.try_take(1.0)
    assert bucket.due() == 2.0
    bucket.give_back(0.0, 2.0)
    assert bucket.due() == 1.0


def test_what_is_given_back_at_once_is_worth_one_where_nobody_knows_what_refills() -> None:
    """One was taken, so one comes back; after another one was taken, none."""
    bucket = Gcra(2.0, 2.0)
    assert bucket.try_take(0.0)
    assert bucket.try_take(0.0)
    bucket.give_back(0.0, 0.0)
    assert bucket.saved(0.0) == 1.0
    bucket.give_back(-1.0, 0.0)
    assert bucket.saved(0.0) == 1.0


def test_of_what_was_saved_up_before_an_instant_one_is_left() -> None:
    """Unless another amount is named, and never more than there was."""
    bucket = Gcra(1.0, 5.0)
    bucket.forgo(10.0)
    assert (bucket.due(), bucket.due(2.0)) == (10.0, 11.0)
    bucket.forgo(9.0)
    assert bucket.due() == 10.0


# -- what headers teach


def test_headers_with_a_reset_of_zero_seconds_say_nothing() -> None:
    """What others taught before goes on."""
    assert TAUGHT.taught(LimitWindow(100.0, 10.0, 0.0), 0, 10.0, REQUESTS) == TAUGHT


def test_a_limit_of_one_is_a_limit() -> None:
    """One that is left is more than half of it: it may go at once, and the next a minute later."""
    assert taught(1.0, 1.0, 30.0) == Pace(learned=60.0, at_once=1.0)


def test_a_limit_without_bounds_is_none() -> None:
    """What is left of it has to last until the reset, as where headers name no limit."""
    assert taught(math.inf, 5.0, 10.0) == taught(None, 5.0, 10.0) == Pace(learned=2.0, at_once=1.0, learned_until=20.0)


@pytest.mark.parametrize(("remaining", "unseen"), [(0.0, 0), (3.0, 3), (3.0, 4)])
def test_where_nothing_is_left_nobody_goes_before_a_near_reset(remaining: float, unseen: int) -> None:
    """The interval is the longest there is, and ends with the reset."""
    assert taught(None, remaining, 10.0, unseen) == Pace(learned=60.0, at_once=1.0, learned_until=20.0)


def test_an_answer_ends_a_slow_start_and_nothing_else() -> None:
    """What headers taught outlasts an answer that says nothing of limits."""
    assert TAUGHT.answered() == TAUGHT
    assert Pace.start(REQUESTS).begun(0.0).answered() == Pace()


# -- other settings


def reconfigured(pace: Pace, *, was_limited: bool, limited: bool, adaptive: bool = True) -> Pace:
    """Return the pace of requests under other settings."""
    return pace.reconfigured(REQUESTS, was_limited=was_limited, limited=limited, adaptive=adaptive)


@pytest.mark.parametrize("was_limited", [False, True])
def test_a_configured_rate_ends_a_slow_start_and_keeps_what_is_known(was_limited: bool) -> None:
    """What headers taught, and the share that a 429 left."""
    assert reconfigured(Pace.start(REQUESTS), was_limited=was_limited, limited=True) == Pace()
    for pace in (TAUGHT, HALVED):
        assert reconfigured(pace, was_limited=was_limited, limited=True) == pace


def test_a_rate_that_goes_away_leaves_a_slow_start_where_nothing_was_learned() -> None:
    """As at first, for nobody knows what the account allows; the share of the rate goes with it."""
    for pace in (Pace(), HALVED):
        assert reconfigured(pace, was_limited=True, limited=False) == Pace.start(REQUESTS)


def test_a_rate_that_goes_away_takes_its_share_along_and_leaves_what_was_learned() -> None:
    """The share was one of the rate, so it is whole and recovers no more."""
    known = Pace(0.5, 50.0, 2.0, 1.0, 100.0, 0.5, 60.0)
    assert reconfigured(known, was_limited=True, limited=False) == TAUGHT


def test_where_there_is_no_rate_before_and_after_nothing_changes() -> None:
    """Neither does a slow start begin again, nor end."""
    for pace in (Pace(), TAUGHT, Pace.start(REQUESTS).begun(0.0)):
        assert reconfigured(pace, was_limited=False, limited=False) == pace


def test_who_may_not_learn_forgets_what_was_taught() -> None:
    """And goes at the whole rate."""
    for pace in (TAUGHT, HALVED, Pace.start(REQUESTS)):
        assert reconfigured(pace, was_limited=True, limited=True, adaptive=False) == Pace()


def test_two_changes_at_one_instant_are_both_made() -> None:
    """A share grows though the limits that headers taught are reset at the same time."""
    pace = Pace(share=0.5, step_at=100.0, learned=2.0, at_once=1.0, learned_until=100.0)
    assert pace.next().changes_at == 100.0
    assert pace.next().next() == Pace(share=0.625, step_at=100.0 + STEP_EVERY)
