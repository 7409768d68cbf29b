"""The wall clock, which never goes back."""

import time

from wizard_actors.wall_clock import WallClock


def test_it_follows_its_source_and_never_goes_back() -> None:
    """Where the computer's clock is set back, it stands still until that has caught up."""
    told = iter([100.0, 101.0, 50.0, 60.0, 102.0])
    wall = WallClock(lambda: next(told))

    assert [wall() for _ in range(4)] == [101.0, 101.0, 101.0, 102.0]


def test_it_tells_the_time_of_day() -> None:
    """Seconds since 1970, unless told otherwise."""
    before = time.time()

    assert before <= WallClock()() <= time.time()
