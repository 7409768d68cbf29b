"""The sliding minute of tokens against a plain list of what was added."""

import math

from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.token_window import TokenWindow

STEPS = st.lists(
    st.tuples(
        st.one_of(st.floats(0.0, 20.0), st.integers(0, 80).map(lambda quarters: quarters / 4), st.just(1e6)),
        st.integers(0, 120),
        st.sampled_from(["take", "take", "take", "give back", "owe"]),
    ),
    max_size=60,
)


@given(st.integers(1, 100), STEPS)
def test_never_more_than_the_limit_in_any_minute(limit: int, steps: list[tuple[float, int, str]]) -> None:
    """Whatever comes back and whatever is owed: what is granted fits every sixty seconds, or goes alone."""
    window, now = TokenWindow(limit), 0.0
    added: list[tuple[float, int]] = []
    for step, amount, kind in steps:
        now += step
        recent = sum(tokens for at, tokens in added if now - 60.0 <= at)
        if kind == "take" and window.free_at(amount) <= now:
            assert recent + amount <= limit or recent == 0
            window.add(amount, now)
            added.append((now, amount))
        elif kind == "owe":
            window.add(amount, now)
            added.append((now, amount))
        elif kind == "give back" and added:
            at, tokens = added.pop()
            window.give_back(tokens, at)
        assert window.total >= 0
        assert len(window.spent[1]) <= 242
        assert TokenWindow(limit, window.spent).total == window.total


@given(st.integers(1, 100), STEPS, st.one_of(st.floats(0.01, 1e7), st.sampled_from([1.0, 3600.0, 86_400.0])))
def test_any_window_is_as_exact(limit: int, steps: list[tuple[float, int, str]], seconds: float) -> None:
    """In proportion: never too much in any window, held too long by a 120th of it at most, in as many numbers."""
    window, now = TokenWindow(limit, window=seconds), 0.0
    added: list[tuple[float, int]] = []
    for step, amount, _ in steps:
        now += step * seconds / 60.0
        recent = sum(tokens for at, tokens in added if now - seconds <= at)
        free_at = window.free_at(amount)
        assert free_at <= now + seconds * (1 + 1 / 120) * (1 + 1e-9)
        if free_at <= now:
            assert recent + amount <= limit or recent == 0
            window.add(amount, now)
            added.append((now, amount))
        assert len(window.spent[1]) <= 242
        assert TokenWindow(limit, window.spent, window=seconds).total == window.total


@given(st.integers(1, 100), STEPS, st.integers(0, 200))
def test_what_is_free_then_is_free_then(limit: int, steps: list[tuple[float, int, str]], amount: int) -> None:
    """At the instant that the window names an amount fits; never later than a slot beyond what a minute needs."""
    window, now = TokenWindow(limit), 0.0
    for step, tokens, _ in steps:
        now += step
        window.add(tokens, now)
    free_at = window.free_at(amount)
    assert free_at <= now + 60.25
    window.expire(max(now, free_at))
    assert window.free_at(amount) == -math.inf
