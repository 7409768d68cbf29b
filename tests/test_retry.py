"""Retry delays, the retry budget and Retry-After, case by case."""

import time
from random import Random

import pytest

from wizard_actors.config import ErrorRetryConfig, RetryBudgetConfig, RetryConfig
from wizard_actors.errors import (
    ActorCrashedError,
    AuthError,
    CircuitOpenError,
    NetworkError,
    OverloadedError,
    ParseError,
    ProviderTimeoutError,
    RateLimitError,
    WizardError,
)
from wizard_actors.retry import RetryBudget, full_jitter, parse_retry_after, parse_retry_delay, retry_delay

CONFIG = RetryConfig()
WALL_NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def delay_after(
    *failures: WizardError, last: bool = False, seed: int = 1, config: RetryConfig = CONFIG
) -> float | None:
    """Return the delay that `config` gives: the defaults, unless it is another."""
    return retry_delay(failures, config, last=last, rng=Random(seed))


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


def test_clamping_after_jitter_would_remove_it_at_the_cap() -> None:
    """Where the bound has grown far beyond the cap, delays still spread over all of it, and few come near it."""
    rng = Random(4)
    delays = [full_jitter(20, CONFIG, rng) for _ in range(1000)]
    assert sum(delay > 0.99 * CONFIG.max_delay for delay in delays) < 30
    assert len(set(delays)) == 1000


# -- policies for one kind of error


def test_an_errors_own_bound_replaces_the_models() -> None:
    """Larger or smaller; the errors without one keep the model's."""
    config = RetryConfig(
        max_attempts=3,
        errors={"overloaded": ErrorRetryConfig(max_attempts=5), "parse": ErrorRetryConfig(max_attempts=1)},
    )
    assert delay_after(*[overloaded(0.0)] * 4, config=config) is not None
    assert delay_after(*[overloaded(0.0)] * 5, config=config) is None
    assert delay_after(ParseError("no JSON", model="m"), config=config) is None
    assert delay_after(broken(), broken(), config=config) is not None
    assert delay_after(broken(), broken(), broken(), config=config) is None


def test_every_bound_counts_all_attempts_at_the_model() -> None:
    """The error of the newest attempt decides which bound holds; a mixture never gets more than the largest."""
    config = RetryConfig(max_attempts=3, errors={"overloaded": ErrorRetryConfig(max_attempts=5)})
    assert delay_after(broken(), broken(), broken(), overloaded(0.0), config=config) is not None
    assert delay_after(overloaded(0.0), overloaded(0.0), overloaded(0.0), broken(), config=config) is None
    assert delay_after(*[broken()] * 4, overloaded(0.0), config=config) is None


def test_an_errors_own_delays_replace_the_models() -> None:
    """Each key by itself: with another base alone, the model's cap still holds."""
    config = RetryConfig(
        base_delay=1,
        max_delay=2,
        errors={"overloaded": ErrorRetryConfig(base_delay=10), "network": ErrorRetryConfig(max_delay=0.1)},
    )
    busy = [delay_after(overloaded(0.0), config=config, seed=seed) or 0.0 for seed in range(200)]
    cut = [delay_after(broken(), config=config, seed=seed) or 0.0 for seed in range(200)]
    plain = [delay_after(ParseError("no JSON", model="m"), config=config, seed=seed) or 0.0 for seed in range(200)]
    assert 1.9 < max(busy) <= 2.0
    assert 0.095 < max(cut) <= 0.1
    assert 0.95 < max(plain) <= 1.0


def test_a_silent_model_with_a_bound_of_its_own_is_asked_that_often() -> None:
    """Somebody decided so; while another model remains it is still left alone."""
    config = RetryConfig(errors={"timeout": ErrorRetryConfig(max_attempts=4)})
    assert delay_after(silent(), silent(), silent(), last=True, config=config) is not None
    assert delay_after(*[silent()] * 4, last=True, config=config) is None
    assert delay_after(silent(), last=False, config=config) is None
    only_slower = RetryConfig(errors={"timeout": ErrorRetryConfig(base_delay=9)})
    assert delay_after(silent(), silent(), last=True, config=only_slower) is None


def test_a_policy_for_429s_leaves_the_pause_to_the_limiter() -> None:
    """It decides how often; the call still only acquires again."""
    config = RetryConfig(errors={"rate_limit": ErrorRetryConfig(max_attempts=5, base_delay=4)})
    assert delay_after(*[limited()] * 4, config=config) == 0.0
    assert delay_after(*[limited()] * 5, config=config) is None


def test_a_refusal_of_the_limiter_is_no_429() -> None:
    """Nothing was sent, and its policy does not make the call ask again."""
    config = RetryConfig(errors={"rate_limit": ErrorRetryConfig(max_attempts=9)})
    refusal = RateLimitError("too long a queue", model="m", source="limiter")
    assert delay_after(refusal, config=config, last=True) is None


# -- Retry-After


def test_a_wait_that_the_provider_asks_for_is_the_least() -> None:
    """Jitter comes on top: all clients were told the same, and must not come back at the same instant."""
    delays = {delay_after(overloaded(4.0), seed=seed) or 0.0 for seed in range(100)}
    assert len(delays) == 100
    assert 4.0 <= min(delays) <= max(delays) <= 4.5


def test_a_wait_of_less_than_a_second_is_waited_for() -> None:
    """However short: the provider knows when it is back."""
    delays = [delay_after(overloaded(0.4), seed=seed) or 0.0 for seed in range(100)]
    assert 0.4 <= min(delays) < 0.45


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


def test_a_429_mid_stream_does_not_spin() -> None:
    """Each of them costs an attempt, wherever it stood, so that without any pause there are only so many."""
    failures: list[WizardError] = [limited(0.0)]
    while delay_after(*failures, last=True) is not None:
        failures.append(limited(0.0))
    assert len(failures) == CONFIG.max_attempts


@pytest.mark.parametrize(
    ("absurd", "delayed"), [(-5.0, True), (float("nan"), True), (float("inf"), False), (1e300, False), (1e-9, True)]
)
def test_an_absurd_retry_after_neither_spins_nor_sleeps_for_ever(absurd: float, delayed: bool) -> None:
    """A provider of somebody's own may say anything: less than nothing is not said, far too much ends the matter."""
    delays = [delay_after(overloaded(absurd), last=True, seed=seed) for seed in range(50)]
    if delayed:
        assert all(delay is not None and 0.0 <= delay <= 0.51 for delay in delays)
        assert len(set(delays)) == 50
    else:
        assert set(delays) == {None}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("48s", 48.0),
        ("1.5s", 1.5),
        ("0s", 0.0),
        ("0.000000001s", 1e-9),
        ("-3s", 0.0),
        ("86400s", 86400.0),
        ("86401s", None),
        ("999999999999s", None),
        ("9" * 400 + "s", None),
        ("48", None),
        ("48ms", None),
        (" 48s", None),
        ("48s\n", None),
        ("1e3s", None),
        ("nans", None),
        ("infs", None),
        ("\u0664s", None),
        ("s", None),
        ("", None),
    ],
)
def test_a_delay_in_geminis_body_is_read(text: str, seconds: float | None) -> None:
    """Seconds with a fraction and an `s`; the past is now, and the absurd was not said."""
    assert parse_retry_delay(text) == seconds


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


def test_retries_and_hedges_pay_from_one_balance() -> None:
    """A hedge that was paid for is a retry less: together they never send more than the budget holds."""
    budget = RetryBudget(RetryBudgetConfig(initial=3, refill_per_second=0.0, deposit=0.0), 0.0)
    paid = {"retry": 0, "hedge": 0}
    for payer in ("retry", "hedge", "hedge", "retry", "hedge"):
        paid[payer] += budget.try_spend(0.0)
    assert paid == {"retry": 1, "hedge": 2}


def test_a_budget_that_is_off_pays_for_everything() -> None:
    """`enabled = false` leaves the attempts a model as the only bound."""
    assert spent(RetryBudget(RetryBudgetConfig(enabled=False, initial=0.0), 0.0), 0.0) == 1000
