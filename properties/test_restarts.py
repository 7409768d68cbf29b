"""Restart decisions, for any series of crashes."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.restarts import Comeback, RestartPolicy, RestartWindow

policies = st.builds(
    RestartPolicy,
    max_restarts=st.integers(0, 6),
    window=st.floats(0.5, 60),
    min_backoff=st.floats(0.01, 5),
    max_backoff=st.floats(0.01, 20),
    healthy_after=st.floats(0, 60),
    max_failed_starts=st.integers(1, 5),
)
crashes = st.lists(st.tuples(st.floats(0, 90), st.none() | st.floats(0, 90)), max_size=40)
"""Pauses between crashes, and for how long the incarnation had run; None: it did not start."""


def series(steps: list[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """Turn pauses and ages into instants: when it crashed, and since when it had run."""
    now = 1_000.0
    instants: list[tuple[float, float | None]] = []
    for pause, age in steps:
        now += pause
        instants.append((now, None if age is None else now - min(age, pause)))
    return instants


@given(policy=policies, steps=crashes, seed=st.integers())
def test_no_window_ever_holds_more_restarts_than_allowed(
    policy: RestartPolicy, steps: list[tuple[float, float | None]], seed: int
) -> None:
    """However the crashes come, at most `max_restarts` restarts are granted within `window` seconds."""
    restarts = RestartWindow(policy, Random(seed))
    granted: list[float] = []
    for now, started in series(steps):
        if restarts.crashed(now, started=started).comeback is not Comeback.GIVE_UP:
            granted.append(now)
            assert sum(1 for instant in granted if now - instant < policy.window) <= policy.max_restarts


@given(policy=policies, steps=crashes, seed=st.integers())
def test_every_delay_is_within_its_bounds(
    policy: RestartPolicy, steps: list[tuple[float, float | None]], seed: int
) -> None:
    """No wait at once, up to the longest backoff in backoff, and exactly the retry interval after giving up."""
    restarts = RestartWindow(policy, Random(seed))
    for now, started in series(steps):
        decision = restarts.crashed(now, started=started)
        match decision.comeback:
            case Comeback.AT_ONCE:
                assert decision.delay == 0
            case Comeback.BACKOFF:
                assert 0 <= decision.delay <= policy.max_backoff
            case Comeback.GIVE_UP:
                assert decision.delay == policy.down_retry


@given(policy=policies, steps=crashes, seed=st.integers())
def test_only_a_first_crash_or_one_after_health_is_restarted_at_once(
    policy: RestartPolicy, steps: list[tuple[float, float | None]], seed: int
) -> None:
    """Two immediate restarts always have a healthy run between them: nothing spins."""
    restarts = RestartWindow(policy, Random(seed))
    begun = False
    for now, started in series(steps):
        healthy = started is not None and now - started >= policy.healthy_after
        at_once = restarts.crashed(now, started=started).comeback is Comeback.AT_ONCE
        assert not at_once or healthy or not begun
        begun = begun or at_once


@given(policy=policies, steps=crashes, seed=st.integers())
def test_who_was_given_up_needs_health_to_be_restarted_soon_again(
    policy: RestartPolicy, steps: list[tuple[float, float | None]], seed: int
) -> None:
    """Once given up, every crash gives up again until one ends a healthy run."""
    restarts = RestartWindow(policy, Random(seed))
    given_up = False
    for now, started in series(steps):
        healthy = started is not None and now - started >= policy.healthy_after
        decision = restarts.crashed(now, started=started)
        assert not given_up or healthy or decision.comeback is Comeback.GIVE_UP
        given_up = decision.comeback is Comeback.GIVE_UP
