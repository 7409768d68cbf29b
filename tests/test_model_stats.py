"""What is learned about one model, case by case. Times are seconds from an arbitrary start."""

from decimal import Decimal

import pytest

from wizard_actors.errors import (
    AuthError,
    ContentFilterError,
    DeadlineExceededError,
    NetworkError,
    ProviderTimeoutError,
    RateLimitError,
    RequestError,
    TokenLimitError,
    WizardError,
)
from wizard_actors.model_stats import BELIEVED_FROM, WINDOW, ModelStats, Wait

DOWN = NetworkError("reset", model="a")
SILENT = ProviderTimeoutError("late", model="a", phase="first_token")


def after(*errors: WizardError | None, now: float = 100.0) -> ModelStats:
    """Return the statistics after attempts that ended so, all at once."""
    stats = ModelStats()
    for error in errors:
        stats = stats.observed(error, started=now - 1.0, now=now)
    return stats


def waited(*seconds: float, broken_off: tuple[float, ...] = ()) -> ModelStats:
    """Return the statistics of these waits for first tokens, and of these that were broken off."""
    stats = ModelStats()
    for wait in seconds:
        stats = stats.observed(None, started=0.0, now=9.0, first_token=wait)
    for wait in broken_off:
        stats = stats.observed(None, started=0.0, now=wait, cancelled=True)
    return stats


# -- successes and failures


def test_an_answer_is_a_success_and_an_error_a_failure() -> None:
    """Of each, as many as there were."""
    stats = after(None, DOWN, None)
    assert (stats.attempts, stats.successes, stats.failures) == (3, 2.0, 1.0)


@pytest.mark.parametrize(
    "error", [DOWN, SILENT, RateLimitError("429", model="a"), RequestError("400", model="a", status=400)]
)
def test_whatever_sends_a_request_to_another_model_is_a_failure(error: WizardError) -> None:
    """Also a 429, which is never a success, and a refusal."""
    assert (after(error).successes, after(error).failures) == (0.0, 1.0)


@pytest.mark.parametrize(
    "error",
    [
        ContentFilterError("no", model="a"),
        TokenLimitError("too long"),
        DeadlineExceededError("late"),
        AuthError("bad key", model="a"),
    ],
)
def test_what_is_not_the_models_fault_is_neutral(error: WizardError) -> None:
    """The prompt's faults, the caller's own time; and a key that is wrong bars the model, which is enough."""
    assert after(error) == ModelStats(attempts=1, at=100.0, waits=after(error).waits)


@pytest.mark.parametrize("error", [None, DOWN])
def test_a_cancelled_attempt_is_neutral(error: WizardError | None) -> None:
    """A hedge's loser has neither answered nor failed."""
    stats = ModelStats().observed(error, started=0.0, now=1.0, cost=Decimal(1), cancelled=True)
    assert (stats.attempts, stats.successes, stats.failures, stats.mean_cost) == (1, 0.0, 0.0, None)


def test_an_observation_counts_half_after_the_half_life() -> None:
    """Five minutes; whether anything else happens meanwhile or not."""
    assert after(None, None).aged(400.0).successes == pytest.approx(1.0)
    stepwise = after(None, None).aged(170.0).aged(251.0).aged(400.0)
    assert stepwise.successes == pytest.approx(1.0)
    assert after(None, None).observed(None, started=400.0, now=400.0).successes == pytest.approx(2.0)


def test_a_model_that_nobody_asks_becomes_unknown_again() -> None:
    """Neither good nor bad for ever."""
    bad = after(*[DOWN] * 50)
    assert bad.failing
    assert not bad.aged(100.0 + 3600.0).failing
    assert bad.aged(100.0 + 3600.0).success_chance > 0.98


def test_a_clock_that_goes_back_ages_nothing() -> None:
    """And does not stop later ageing."""
    stats = after(None, DOWN).aged(-1e9)
    assert (stats.successes, stats.failures) == (1.0, 1.0)
    assert stats.aged(-1e9 + 300.0).successes == pytest.approx(0.5)


def test_an_unknown_model_is_expected_to_work() -> None:
    """One failure halves that."""
    assert ModelStats().success_chance == 1.0
    assert after(DOWN).success_chance == 0.5
    assert after(None, DOWN).success_chance == pytest.approx(2 / 3)


def test_a_model_is_failing_where_fewer_than_one_in_five_succeed() -> None:
    """Of three at least."""
    assert not after(DOWN, DOWN).failing
    assert after(DOWN, DOWN, DOWN).failing
    assert not after(None, *[DOWN] * 4).failing
    assert after(None, *[DOWN] * 5).failing


# -- costs


def test_the_cost_of_an_answer_is_the_mean_of_the_known_ones() -> None:
    """In US dollars. Failures and answers without a known cost are left out."""
    stats = ModelStats()
    for cost, error in [(Decimal("0.01"), None), (None, None), (Decimal(9), DOWN), (Decimal("0.03"), None)]:
        stats = stats.observed(error, started=0.0, now=1.0, cost=cost)
    assert stats.cost_per_answer == pytest.approx(0.02)
    assert ModelStats().cost_per_answer is None


def test_newer_costs_weigh_more() -> None:
    """After two half-lives an old one counts a quarter."""
    stats = ModelStats().observed(None, started=0.0, now=0.0, cost=Decimal(5))
    assert stats.observed(None, started=600.0, now=600.0, cost=Decimal(10)).cost_per_answer == pytest.approx(9.0)


def test_an_old_cost_is_believed_no_longer() -> None:
    """Prompts may have become quite different ones."""
    stats = ModelStats().observed(None, started=0.0, now=0.0, cost=Decimal(5))
    assert stats.aged(990.0).cost_per_answer == 5.0
    assert stats.aged(1000.0).cost_per_answer is None


# -- first tokens


def test_a_quantile_is_believed_from_twenty_first_tokens_on() -> None:
    """Fewer say little of a tail, however many waits were broken off."""
    assert waited(*[0.3] * (BELIEVED_FROM - 1), broken_off=(1.0,) * 50).first_token_quantile(0.5) is None
    assert waited(*[0.3] * BELIEVED_FROM).first_token_quantile(0.5) == 0.3


@pytest.mark.parametrize("count", [20, 21, 50, 100, WINDOW])
def test_a_quantile_is_the_shortest_time_within_which_so_many_came(count: int) -> None:
    """Of a hundred, the ninety-fifth for 0.95: rounding never makes it the next."""
    shares = [n / count for n in range(1, count)]
    stats = waited(1.0, *reversed(shares))
    assert [stats.first_token_quantile(share) for share in shares] == shares


def test_the_newest_waits_are_kept() -> None:
    """A model that became slower is slower."""
    stats = waited(*[0.1] * 500, *[5.0] * WINDOW)
    assert len(stats.waits) == WINDOW
    assert stats.first_token_quantile(0.01) == 5.0


def test_a_loser_that_was_slow_does_not_make_the_model_look_fast() -> None:
    """A tenth of the calls are so slow that a hedge wins: without them the 0.95 quantile would be the others'."""
    fast = [0.3] * 90
    assert waited(*fast).first_token_quantile(0.95) == 0.3
    assert waited(*fast, broken_off=(2.3,) * 10).first_token_quantile(0.95) is None
    assert waited(*fast, 8.0, broken_off=(2.3,) * 9).first_token_quantile(0.95) == 8.0


def test_a_wait_that_was_broken_off_does_not_count_as_a_first_token() -> None:
    """The tokens would have come later: of those that waited so long, half came after 6 s."""
    stats = waited(*[0.3] * 20, *[6.0] * 10, *[9.0] * 10, broken_off=(1.0,) * 40)
    assert stats.first_token_quantile(0.6) == 6.0
    assert stats.first_token_quantile(0.9) == 9.0


def test_what_was_broken_off_before_any_token_could_come_is_not_kept() -> None:
    """Callers in a hurry do not push out what is known."""
    stats = waited(*[0.3] * 20, broken_off=(0.01,) * 1000)
    assert stats.first_token_quantile(0.95) == 0.3
    assert len(stats.waits) == 20


def test_what_was_broken_off_when_the_first_token_could_have_come_is_kept() -> None:
    """So is whatever was broken off while no first token is known, however soon."""
    assert len(waited(0.5, broken_off=(0.5,)).waits) == 2
    assert waited(broken_off=(0.25,)).waits == (Wait(0.25, broken_off=True),)


@pytest.mark.parametrize(
    ("error", "cancelled", "waits"),
    [
        (None, True, (Wait(7.0, broken_off=True),)),
        (SILENT, False, (Wait(7.0, broken_off=True),)),
        (DeadlineExceededError("late"), False, (Wait(7.0, broken_off=True),)),
        (DOWN, False, ()),
        (None, False, ()),
    ],
    ids=["cancelled", "late", "deadline", "refused", "in one piece"],
)
def test_a_wait_without_a_first_token_counts_where_it_was_broken_off(
    error: WizardError | None, cancelled: bool, waits: tuple[Wait, ...]
) -> None:
    """An error that the model answers with, and an answer in one piece, say nothing of first tokens."""
    assert ModelStats().observed(error, started=1.0, now=8.0, cancelled=cancelled).waits == waits


def test_a_first_token_counts_however_the_attempt_ended() -> None:
    """It came."""
    for error, cancelled in [(None, True), (DOWN, False), (None, False)]:
        stats = ModelStats().observed(error, started=1.0, now=8.0, first_token=0.5, cancelled=cancelled)
        assert stats.waits == (Wait(0.5),)
