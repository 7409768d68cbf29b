"""The sliding minute of tokens, case by case; what it promises in general is a property."""

import math

from wizard_actors.token_window import TokenWindow


def test_what_was_added_counts_for_a_minute() -> None:
    """Never less, and at most a slot of a quarter of a second longer."""
    window = TokenWindow(100)
    window.add(60, 10.1)
    window.add(40, 20.0)
    assert window.free_at(50) == 70.25
    assert window.free_at(90) == 80.25
    window.expire(70.2)
    assert window.total == 100
    window.expire(70.25)
    assert window.total == 40


def test_what_fits_is_free_at_once() -> None:
    """Up to the limit itself."""
    window = TokenWindow(100)
    window.add(60, 10.0)
    assert window.free_at(40) == -math.inf
    assert window.free_at(41) > 70.0


def test_an_amount_above_the_limit_fits_an_empty_minute_only() -> None:
    """It would never go otherwise; and nothing goes beside it."""
    window = TokenWindow(100)
    assert window.free_at(500) == -math.inf
    window.add(1, 0.0)
    assert window.free_at(500) == 60.25
    window.add(500, 61.0)
    assert window.total == 500
    assert window.free_at(1) == 121.25


def test_what_comes_back_is_free_at_once() -> None:
    """So far as it still counts."""
    window = TokenWindow(100)
    window.add(100, 0.0)
    window.give_back(70, 0.0)
    assert window.total == 30
    window.give_back(70, 0.0)
    assert window.total == 0
    window.give_back(70, 500.0)
    assert window.total == 0


def test_what_comes_back_comes_out_of_the_slot_that_it_went_into() -> None:
    """Late in the life of a clock too; and what was never added cannot come back."""
    window = TokenWindow(100)
    window.add(60, 1000.0)
    window.add(30, 1002.0)
    window.give_back(50, 1000.0)
    assert (window.total, window.free_at(70), window.free_at(90)) == (40, 1060.25, 1062.25)
    window.give_back(50, 1002.25)
    assert window.total == 40


def test_a_long_rest_leaves_no_slots() -> None:
    """However far the clock jumps."""
    window = TokenWindow(100)
    window.add(1, 0.0)
    window.add(1, 1e9)
    assert window.spent == (4 * 10**9, (1,))


def test_a_clock_that_goes_back_frees_nothing_early() -> None:
    """What is added then counts with the newest."""
    window = TokenWindow(100)
    window.add(50, 100.0)
    window.add(50, 10.0)
    assert window.free_at(100) == 160.25


def test_a_copy_goes_its_own_way_and_a_spent_minute_can_be_taken_over() -> None:
    """A plan spends nothing; a restart forgets nothing."""
    window = TokenWindow(100)
    window.add(50, 1.0)
    window.add(20, 9.0)
    copy, again = window.copy(), TokenWindow(100, window.spent)
    copy.add(10, 2.0)
    assert (window.total, copy.total, again.total) == (70, 80, 70)
    assert again.free_at(80) == window.free_at(80) == 61.25
