"""When a crashed actor comes back: the pure decisions."""

from __future__ import annotations

from random import Random

import pytest

from wizard_actors.restarts import Comeback, Decision, RestartPolicy, RestartWindow


class Highest(Random):
    """Draws the upper end of every range, so that bounds show."""

    def uniform(self, a: float, b: float) -> float:
        """Return the upper end."""
        return b


def window(**settings: float) -> RestartWindow:
    """Return a window of the default policy but for `settings`, whose delays are the longest possible."""
    return RestartWindow(RestartPolicy(**settings), Highest())  # type: ignore[arg-type]  # whole numbers where wanted


def test_the_first_restart_is_immediate() -> None:
    """One crash costs nobody a wait."""
    assert window().crashed(100.0, started=99.0) == Decision(Comeback.AT_ONCE, 0.0)


def test_further_restarts_wait_twice_as_long_each_up_to_the_longest() -> None:
    """Full jitter over 0.2 s, doubling to 10 s."""
    restarts = window(max_restarts=100)
    decisions = [restarts.crashed(float(now), started=float(now)) for now in range(10)]
    assert [decision.delay for decision in decisions] == pytest.approx([0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10])
    assert {decision.comeback for decision in decisions[1:]} == {Comeback.BACKOFF}


def test_the_doubling_does_not_overflow_after_thousands_of_crashes() -> None:
    """The longest delay stays what it is, however long the series."""
    restarts = window(max_restarts=10_000)
    decisions = [restarts.crashed(float(now), started=float(now)) for now in range(5_000)]
    assert decisions[-1] == Decision(Comeback.BACKOFF, 10.0)


@pytest.mark.parametrize("most", [0, 1, 5])
def test_a_long_life_of_crashes_leaves_nothing_behind(most: int) -> None:
    """No more instants are kept than can count."""
    restarts = window(max_restarts=most)
    for now in range(0, 100_000, 100):
        restarts.crashed(float(now), started=float(now) - 90.0)
    assert len(restarts._restarts) <= most


def test_the_delays_are_drawn_from_the_whole_range() -> None:
    """Full jitter: anything from nothing to the bound."""
    delays = []
    for seed in range(200):
        restarts = RestartWindow(RestartPolicy(min_backoff=1.0), Random(seed))
        restarts.crashed(0.0, started=0.0)
        delays.append(restarts.crashed(0.0, started=0.0).delay)
    assert 0 <= min(delays) < 0.05
    assert 0.95 < max(delays) <= 1


def test_the_same_seed_draws_the_same_delays() -> None:
    """All chance comes from the generator that was passed in."""

    def delays() -> list[Decision]:
        restarts = RestartWindow(RestartPolicy(), Random(7))
        return [restarts.crashed(float(now), started=float(now)) for now in range(5)]

    assert delays() == delays()


def test_after_a_healthy_run_the_next_restart_is_immediate_again() -> None:
    """30 s without a crash, to the instant, and what came before is forgiven."""
    restarts = window()
    restarts.crashed(0.0, started=0.0)
    assert restarts.crashed(29.9, started=0.0).comeback is Comeback.BACKOFF
    assert restarts.crashed(60.0, started=30.0).comeback is Comeback.AT_ONCE


def test_more_crashes_than_the_limit_within_the_window_give_up() -> None:
    """Five restarts in 30 s are allowed; the sixth crash is one too many."""
    restarts = window()
    decisions = [restarts.crashed(now, started=now) for now in (0.0, 5.0, 10.0, 15.0, 20.0, 29.9)]
    assert [decision.comeback for decision in decisions[1:5]] == [Comeback.BACKOFF] * 4
    assert decisions[5] == Decision(Comeback.GIVE_UP, 60.0)


def test_restarts_leave_the_window_as_time_passes() -> None:
    """The crash that comes when the first one is 30 s old finds room again."""
    restarts = window()
    for now in (0.0, 5.0, 10.0, 15.0, 20.0):
        restarts.crashed(now, started=now)
    assert restarts.crashed(30.0, started=29.0).comeback is Comeback.BACKOFF


def test_no_restarts_allowed_means_giving_up_at_the_first_crash() -> None:
    """`max_restarts=0` is a policy like any other."""
    assert window(max_restarts=0).crashed(0.0, started=0.0) == Decision(Comeback.GIVE_UP, 60.0)


def test_failed_starts_in_a_row_give_up_before_the_window_does() -> None:
    """What never even starts is not tried five times."""
    restarts = window()
    decisions = [restarts.crashed(float(now), started=None) for now in range(3)]
    assert [decision.comeback for decision in decisions] == [Comeback.AT_ONCE, Comeback.BACKOFF, Comeback.GIVE_UP]


def test_a_start_that_works_breaks_the_row_of_failed_ones() -> None:
    """Only failed starts one after the other count."""
    restarts = window(max_restarts=100)
    starts = [None, None, 2.0, None, None]
    decisions = [restarts.crashed(float(now), started=started) for now, started in enumerate(starts)]
    assert Comeback.GIVE_UP not in {decision.comeback for decision in decisions}


def test_who_was_given_up_stays_so_until_it_has_been_healthy() -> None:
    """A retry that crashes again within 30 s is down again for a minute, without a new series of restarts."""
    restarts = window(max_restarts=1)
    restarts.crashed(0.0, started=0.0)
    assert restarts.crashed(1.0, started=1.0).comeback is Comeback.GIVE_UP
    assert restarts.crashed(70.0, started=61.0).comeback is Comeback.GIVE_UP
    assert restarts.crashed(130.0, started=None).comeback is Comeback.GIVE_UP
    assert restarts.crashed(230.0, started=190.0) == Decision(Comeback.AT_ONCE)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_restarts": -1},
        {"window": 0},
        {"min_backoff": 0},
        {"max_backoff": -1},
        {"healthy_after": -1},
        {"max_failed_starts": 0},
        {"down_retry": 0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_policy_refuses_what_makes_no_sense(settings: dict[str, float]) -> None:
    """A bound that cannot be kept is refused when the policy is made."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        RestartPolicy(**settings)  # type: ignore[arg-type]  # one of them, by name
