"""Retry delays, the retry budget and Retry-After, case by case."""

import time
from random import Random

import pytest

from wizard_actors.config import RetryBudgetConfig, RetryConfig
from wizard_actors.errors import (
    ActorCrashedError,
    AuthError,
    CircuitOpenError,
    NetworkError,
    OverloadedError,
    ProviderTimeoutError,
    RateLimitError,
    WizardError,
)
from wizard_actors.retry import RetryBudget, full_jitter, parse_retry_after, retry_delay

CONFIG = RetryConfig()
WALL_NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def delay_after(*failures: WizardError, last: bool = False, seed: int = 1) -> float | None:
    """Return the delay that the defaults give."""
    return retry_delay(failures, CONFIG, last=last, rng=Random(seed))


def broken() -> NetworkError:
    """Return a failure that is worth another try."""
    return NetworkError("connection reset", model="m")


def overloaded(retry_after: float) -> OverloadedError:
    """Return a 503 that names a time."""
    error = OverloadedError("busy", model="m")
    error.retry_after = retry_after
    return error


def limited(retry_after: float | None = None) -> RateLimitError:
    """Return a provider's 429."""
    return RateLimitError("429", model="m", retry_after=retry_after)


def silent() -> ProviderTimeoutError:
    """Return the error of a model that stayed silent."""
    return ProviderTimeoutError("late", model="m", phase="first_token")


# -- delays


@pytest.mark.parametrize(("doublings", "bound"), [(0, 0.5), (1, 1.0), (3, 4.0), (4, 8.0), (50, 8.0), (10_000, 8.0)])
def test_delays_spread_over_the_whole_of_a_doubling_bound(doublings: int, bound: float) -> None:
    """Full jitter: from nothing to the bound, which doubles up to the cap; at the cap they still differ."""
    rng = Random(3)
    delays = [full_jitter(doublings, CONFIG, rng) for _ in range(1000)]
    assert 0.0 <= min(delays) < 0.02 * bound
    assert 0.98 * bound < max(delays) <= bound
    assert sum(delays) / 1000 == pytest.approx(bound / 2, rel=0.1)


def test_each_retry_doubles_the_bound() -> None:
    """The second retry may wait twice as long as the first."""
    first = max(delay_after(broken(), seed=seed) or 0.0 for seed in range(200))
    second = max(delay_after(broken(), broken(), seed=seed) or 0.0 for seed in range(200))
    assert 0.45 < first <= 0.5
    assert 0.9 < second <= 1.0


def test_a_model_gets_three_attempts() -> None:
    """Two retries, then the next model."""
    assert delay_after(broken(), broken()) is not None
    assert delay_after(broken(), broken(), broken()) is None


@pytest.mark.parametrize(
    "error", [AuthError("bad key", model="m"), CircuitOpenError("open", model="m", retry_at=9.0, retry_after=1.0)]
)
def test_what_cannot_help_is_not_retried(error: WizardError) -> None:
    """The verdict table decides."""
    assert delay_after(error, last=True) is None


def test_a_crash_before_the_send_is_made_up_for_once_and_costs_no_attempt() -> None:
    """At once, because nothing was sent."""
    crash = ActorCrashedError("a bug", actor="w/m/limiter")
    assert delay_after(crash) == 0.0
    assert delay_after(broken(), crash, broken()) is not None
    assert delay_after(crash, broken(), crash) is None


def test_a_silent_model_is_asked_again_once_and_only_where_no_other_remains() -> None:
    """Waiting twice as long for the same silence helps nobody who has an alternative."""
    assert delay_after(silent()) is None
    assert delay_after(silent(), last=True) is not None
    assert delay_after(silent(), silent(), last=True) is None


# -- Retry-After


def test_a_wait_that_the_provider_asks_for_is_the_least() -> None:
    """Jitter comes on top: all clients were told the same, and must not come back at the same instant."""
    delays = {delay_after(overloaded(4.0), seed=seed) or 0.0 for seed in range(100)}
    assert len(delays) == 100
    assert 4.0 <= min(delays) <= max(delays) <= 4.5


@pytest.mark.parametrize(
    ("wanted", "last", "waited"),
    [(5.0, False, True), (5.1, False, False), (60.0, True, True), (60.1, True, False)],
)
def test_a_wait_beyond_its_cap_is_not_waited_for(wanted: float, last: bool, waited: bool) -> None:
    """The call moves on, sooner while another model remains."""
    delay = delay_after(overloaded(wanted), last=last)
    assert (delay is not None and delay >= wanted) is waited
    assert (delay_after(limited(wanted), last=last) == 0.0) is waited


def test_after_a_429_the_limiter_holds_the_pause() -> None:
    """The call itself only acquires again, but not for ever."""
    assert delay_after(limited()) == 0.0
    assert delay_after(limited(2.0), limited(2.0)) == 0.0
    assert delay_after(limited(2.0), limited(2.0), limited(2.0)) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "86400"}, 86400.0),
        ({"retry-after": "86401"}, None),
        ({"retry-after": "1700000030"}, None),  # an instant in place of a duration
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "nan", "retry-after": "1"}, 1.0),
        ({"retry-after-ms": "later", "retry-after": "1"}, 1.0),
        ({"retry-after-ms": "1e12", "retry-after": "1"}, 1.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 -0000"}, 30.0),
        ({"retry-after": "Wed, 15 Nov 2023 00:13:50 +0200"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:10:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 14 Nov 2024 22:13:50 GMT"}, None),
        ({"retry-after": "Tue, 99 Nov 2023 22:13:50 GMT"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    """Milliseconds first, then seconds or a date; the past is now, and the absurd was not said."""
    assert parse_retry_after(headers, wall_now=WALL_NOW) == seconds


def test_a_date_without_a_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the machine stands."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        headers = {"retry-after": "Tue, 14 Nov 2023 22:13:50 -0000"}
        assert parse_retry_after(headers, wall_now=WALL_NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


# -- the budget


def spent(budget: RetryBudget, now: float) -> int:
    """Return how many retries of a thousand the budget pays for at `now`."""
    return sum(budget.try_spend(now) for _ in range(1000))


def test_the_budget_starts_with_ten_and_refills_ten_a_second_up_to_ten() -> None:
    """Enough for a client that rarely asks, and no flood after a rest."""
    budget = RetryBudget(RetryBudgetConfig(), 100.0)
    assert spent(budget, 100.0) == 10
    assert spent(budget, 100.05) == 0
    assert spent(budget, 100.5) == 5
    assert spent(budget, 1000.0) == 10


def test_five_requests_pay_for_one_retry() -> None:
    """Exactly: fractions are not lost on the way."""
    budget = RetryBudget(RetryBudgetConfig(), 0.0)
    spent(budget, 0.0)
    for _ in range(4):
        budget.deposit(0.0)
    assert spent(budget, 0.0) == 0
    budget.deposit(0.0)
    assert spent(budget, 0.0) == 1


def test_deposits_fill_it_to_a_hundred_and_time_adds_nothing_there() -> None:
    """Above ten only requests count."""
    budget = RetryBudget(RetryBudgetConfig(), 0.0)
    for _ in range(10_000):
        budget.deposit(0.0)
    assert budget.balance(1e6) == 100.0
    assert spent(budget, 1e6) == 100


def test_time_counts_once_where_the_clock_goes_back() -> None:
    """Going back and forth wins nothing."""
    budget = RetryBudget(RetryBudgetConfig(), 0.0)
    spent(budget, 1.0)
    for _ in range(100):
        assert spent(budget, 0.0) == 0
        assert spent(budget, 1.0) == 0


def test_a_budget_that_is_off_pays_for_everything() -> None:
    """`enabled = false` leaves the attempts a model as the only bound."""
    assert spent(RetryBudget(RetryBudgetConfig(enabled=False, initial=0.0), 0.0), 0.0) == 1000
