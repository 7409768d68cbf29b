"""Retry delays, the budget and Retry-After for every input."""

import math
from collections.abc import Sequence
from email.utils import formatdate
from fractions import Fraction
from random import Random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.config import ErrorRetryConfig, RetriedError, RetryBudgetConfig, RetryConfig
from wizard_actors.errors import (
    ActorCrashedError,
    AuthError,
    InvalidPromptError,
    NetworkError,
    OverloadedError,
    ProviderTimeoutError,
    RateLimitError,
    WizardError,
)
from wizard_actors.retry import RetryBudget, full_jitter, parse_retry_after, parse_retry_delay, retry_delay
from wizard_actors.verdict import Again

pytestmark = pytest.mark.long

DELAYS = st.floats(0, 100, allow_nan=False)
RANDOMS = st.integers(0, 2**32).map(Random)


def _overloaded(retry_after: float | None) -> WizardError:
    error = OverloadedError("busy", model="m")
    error.retry_after = retry_after
    return error


ERRORS: st.SearchStrategy[WizardError] = st.one_of(
    st.sampled_from(
        [
            NetworkError("reset", model="m"),
            AuthError("bad key", model="m"),
            InvalidPromptError("empty"),
            ProviderTimeoutError("silent", model="m", phase="first_token"),
            ProviderTimeoutError("unreachable", model="m", phase="connect"),
            ActorCrashedError("a bug", actor="w/m"),
        ]
    ),
    st.one_of(st.none(), DELAYS).map(_overloaded),
    st.one_of(st.none(), DELAYS).map(lambda wait: RateLimitError("429", model="m", retry_after=wait)),
)
CONFIGS = st.builds(
    RetryConfig,
    max_attempts=st.integers(1, 5),
    base_delay=DELAYS,
    max_delay=DELAYS,
    retry_after_cap=DELAYS,
    retry_after_cap_with_fallback=DELAYS,
    errors=st.dictionaries(
        st.sampled_from(get_args(RetriedError)),
        st.builds(
            ErrorRetryConfig,
            max_attempts=st.none() | st.integers(1, 8),
            base_delay=st.none() | DELAYS,
            max_delay=st.none() | DELAYS,
        ),
        max_size=4,
    ),
)


@given(st.integers(0, 10**6), CONFIGS, RANDOMS)
def test_a_jittered_delay_stays_in_its_bounds(doublings: int, config: RetryConfig, rng: Random) -> None:
    """No number of doublings leaves [0, min(max_delay, base_delay * 2^n)]."""
    bound = min(Fraction(config.max_delay), Fraction(config.base_delay) * 2 ** min(doublings, 64))
    assert 0.0 <= full_jitter(doublings, config, rng) <= bound


@given(st.lists(ERRORS, min_size=15, max_size=15), CONFIGS, st.booleans(), RANDOMS)
def test_retries_of_one_model_end(errors: list[WizardError], config: RetryConfig, last: bool, rng: Random) -> None:
    """Whatever goes wrong, a model gets as many attempts that were sent as the largest of its bounds allows, one more
    that was not sent, and no endless wait; and the error of the last one had no attempts left.
    """
    failures: list[WizardError] = []
    delay: float | None = 0.0
    while delay is not None:
        failures.append(errors[len(failures)])
        delay = retry_delay(failures, config, last=last, rng=rng)
        _delay_fits(delay, failures, config, last)
    unsent = sum(error.verdict.again is Again.AT_ONCE for error in failures)
    bounds = [config.max_attempts, *(policy.max_attempts or 0 for policy in config.errors.values())]
    assert len(failures) - unsent <= max(bounds)
    assert all(
        index + 1 < config.after(error.code).max_attempts
        for index, error in enumerate(each for each in failures[:-1] if each.verdict.again is not Again.AT_ONCE)
    )
    assert unsent <= 2  # the second one is not made up for
    silent = sum(error.verdict.again is Again.IF_LAST for error in failures)
    counted = "timeout" in config.errors and config.errors["timeout"].max_attempts is not None
    assert silent <= 1 if not last else counted or silent <= 2


def _delay_fits(delay: float | None, failures: Sequence[WizardError], config: RetryConfig, last: bool) -> None:
    again = failures[-1].verdict.again
    wanted = getattr(failures[-1], "retry_after", None) or 0.0
    cap = config.retry_after_cap if last else config.retry_after_cap_with_fallback
    if delay is None:
        return
    assert again is not Again.NO
    assert wanted <= cap
    if again in {Again.REACQUIRE, Again.AT_ONCE}:
        assert delay == 0.0
    else:
        assert wanted <= delay <= wanted + config.after(failures[-1].code).max_delay


@given(st.text(), st.text(), st.floats(0, 4e9))
def test_any_header_is_a_usable_delay_or_none(seconds: str, milliseconds: str, wall_now: float) -> None:
    """No text in a header raises, or asks for a wait of more than a day."""
    delay = parse_retry_after({"retry-after": seconds, "retry-after-ms": milliseconds}, wall_now=wall_now)
    assert delay is None or 0.0 <= delay <= 86_400.0


@given(st.text() | st.from_regex(r"-?[0-9]+(\.[0-9]+)?s", fullmatch=True))
def test_any_text_in_a_body_is_a_usable_delay_or_none(text: str) -> None:
    """No text raises, or asks for a wait of more than a day."""
    delay = parse_retry_delay(text)
    assert delay is None or 0.0 <= delay <= 86_400.0


@given(st.integers(0, 4_000_000_000), st.integers(-100_000, 86_400))
def test_a_date_is_as_far_away_as_it_says(wall_now: int, ahead: int) -> None:
    """An HTTP date counts from the wall clock, and never backwards."""
    date = formatdate(wall_now + ahead, usegmt=True)
    assert parse_retry_after({"retry-after": date}, wall_now=float(wall_now)) == max(ahead, 0)


BUDGETS = st.builds(
    RetryBudgetConfig,
    initial=st.integers(0, 3).map(float),
    refill_per_second=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    refill_to=st.integers(0, 5).map(float),
    deposit=st.sampled_from([0.0, 0.1, 0.2, 1.0]),
    max=st.integers(5, 8).map(float),
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["deposit", "spend", "look"]), st.integers(-50, 1000).map(lambda ms: ms / 64)),
    max_size=60,
)


@given(BUDGETS, STEPS)
def test_the_budget_is_exact_to_the_last_fraction(config: RetryBudgetConfig, steps: list[tuple[str, float]]) -> None:
    """Deposits, refills and costs add up as in exact arithmetic, also where the clock goes back or jumps."""
    now = latest = 100.0
    budget = RetryBudget(config, now)
    balance = Fraction(config.initial)
    for step, by in steps:
        now += by
        if now > latest:
            filled = balance + Fraction(str(config.refill_per_second)) * Fraction(now - latest)
            balance = max(balance, min(filled, Fraction(config.refill_to)))
            latest = now
        if step == "deposit":
            budget.deposit(now)
            balance = min(balance + Fraction(str(config.deposit)), Fraction(config.max))
        elif step == "spend":
            assert budget.try_spend(now) is (balance >= 1)
            balance -= 1 if balance >= 1 else 0
        assert math.isclose(budget.balance(now), float(balance), abs_tol=1e-12)


@given(
    BUDGETS,
    st.lists(
        st.tuples(st.sampled_from(["deposit", "retry", "hedge"]), st.floats(-1e4, 1e4) | st.floats(-1.0, 1.0)),
        max_size=60,
    ),
)
def test_the_budget_is_never_exceeded(config: RetryBudgetConfig, steps: list[tuple[str, float]]) -> None:
    """Retries and hedges together cost at most what was there, what requests added and what time could refill, over any
    sequence, also where the clock jumps; and never more at one instant than the balance can hold.
    """
    now = began = latest = 1e6
    budget = RetryBudget(config, now)
    available, spent, burst = config.initial, 0, 0
    for step, by in steps:
        now += by
        burst = burst if now <= latest else 0
        latest = max(latest, now)
        if step == "deposit":
            budget.deposit(now)
            available += config.deposit
            burst = 0
        elif budget.try_spend(now):
            spent, burst = spent + 1, burst + 1
        assert spent <= available + config.refill_per_second * (latest - began) + 1e-6
        assert burst <= config.max


@given(st.lists(st.integers(0, 10**6), max_size=30), st.integers(1, 20))
def test_looking_often_wins_nothing(instants: list[int], spent: int) -> None:
    """The balance at an instant does not depend on how often anybody looked before."""
    often, once = RetryBudget(RetryBudgetConfig(), 0.0), RetryBudget(RetryBudgetConfig(), 0.0)
    for _ in range(spent):
        often.try_spend(0.0)
        once.try_spend(0.0)
    for instant in sorted(instants):
        often.balance(instant / 3e6)
    assert often.balance(0.4) == once.balance(0.4)
