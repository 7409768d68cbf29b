"""What a batch waits out, for how long, and what nobody waits for."""

from random import Random

import pytest

from wizard_actors.errors import (
    Attempt,
    AuthError,
    CircuitOpenError,
    DeadlineExceededError,
    FallbackError,
    InvalidPromptError,
    MailboxFullError,
    ModelNotFoundError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitError,
    RetryError,
    WizardError,
)
from wizard_actors.patience import Barred, Gate, Refusal, failure_behind, refusal_of, wait_after
from wizard_actors.types import ServedBy, WizardResponse

FULL = MailboxFullError("full", actor="wizard")
OVERLOADED = OverloadedError("overloaded", model="a")


def limited(retry_after: float | None, *, by_provider: bool = False) -> RateLimitError:
    """Return a refusal by the limiter, or a 429."""
    return RateLimitError(
        "limited", model="a", retry_after=retry_after, source="provider" if by_provider else "limiter"
    )


def is_open(retry_at: float) -> CircuitOpenError:
    """Return a refusal by the breaker."""
    return CircuitOpenError("open", model="a", retry_at=retry_at, retry_after=99.0)


def tried(*errors: WizardError | None, models: str = "", cancelled: bool = False) -> tuple[Attempt, ...]:
    """Return attempts that ended so, at models of one letter each (default: a)."""
    names = models or "a" * len(errors)
    return tuple(
        Attempt(name, 0.0, 1.0, error=error, cancelled=cancelled) for name, error in zip(names, errors, strict=True)
    )


def together(*errors: WizardError) -> FallbackError:
    """Return the error of a route whose models failed so."""
    return FallbackError("all", attempts=tried(*errors))


# -- the rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (limited(7.0), Refusal(7.0, named=True, sent=False)),
        (limited(None), Refusal(1.0, named=False, sent=False)),
        (is_open(130.0), Refusal(30.0, named=True, sent=False)),
        (is_open(90.0), Refusal(0.0, named=True, sent=False)),
        (FULL, Refusal(1.0, named=False, sent=False)),
        (MailboxFullError("silent", actor="a", silent=True), Refusal(1.0, named=False, sent=False)),
        (limited(90.0, by_provider=True), Refusal(90.0, named=True, sent=True)),
        (together(is_open(130.0), limited(5.0), FULL), Refusal(5.0, named=True, sent=False)),
        (together(limited(90.0, by_provider=True), limited(80.0)), Refusal(80.0, named=True, sent=True)),
        (RetryError("used up", attempts=tried(FULL, FULL)), Refusal(1.0, named=False, sent=False)),
    ],
)
def test_a_refusal_is_waited_out_for_the_shortest_time_that_it_names(error: WizardError, refusal: Refusal) -> None:
    """Nothing was sent, or a 429 said when to come back."""
    assert wait_after(error, 100.0) == refusal


@pytest.mark.parametrize(
    "error",
    [
        OVERLOADED,
        together(OVERLOADED, limited(5.0)),
        together(limited(5.0), limited(None, by_provider=True)),
        limited(None, by_provider=True),
        limited(0.0, by_provider=True),
        DeadlineExceededError("late", attempts=tried(limited(5.0))),
        InvalidPromptError("empty"),
        AuthError("key", model="a"),
        FallbackError("all"),
    ],
)
def test_what_was_sent_and_failed_is_an_outcome(error: WizardError) -> None:
    """So is what waiting cannot change."""
    assert wait_after(error, 100.0) is None
    assert refusal_of(error, 100.0) is None


def test_nobody_is_waited_for_longer_than_ten_minutes() -> None:
    """A daily limit is no matter for a batch."""
    assert wait_after(limited(600.0), 0.0) is not None
    assert wait_after(limited(601.0), 0.0) is None
    assert refusal_of(limited(601.0), 0.0) == Refusal(601.0, named=True, sent=False)


def test_a_provider_that_refuses_for_ever_is_not_asked_for_ever() -> None:
    """Five 429s of one item are waited out, while what costs nobody anything is without a bound."""
    assert wait_after(limited(5.0, by_provider=True), 0.0, sent=4) is not None
    assert wait_after(limited(5.0, by_provider=True), 0.0, sent=5) is None
    assert wait_after(limited(5.0), 0.0, sent=5) is not None


# -- what stands in for an answer ------------------------------------------------------------------------------------


def test_a_static_or_stale_answer_is_the_failure_behind_it() -> None:
    """The last attempt's error, with every attempt; a model's own answer is none."""
    attempts = tried(FULL, OVERLOADED)
    for served_by in (ServedBy.STATIC, ServedBy.STALE):
        failure = failure_behind(WizardResponse("later", "", served_by=served_by, attempts=attempts))
        assert isinstance(failure, OverloadedError)
        assert failure.attempts == attempts
    assert isinstance(failure_behind(WizardResponse("later", "", served_by=ServedBy.STATIC)), FallbackError)
    assert failure_behind(WizardResponse("yes", "a", served_by=ServedBy.FALLBACK, attempts=attempts)) is None
    assert failure_behind(FULL) is FULL


# -- the gate --------------------------------------------------------------------------------------------------------


def test_a_gate_stands_open_until_somebody_is_refused() -> None:
    """Any number may pass at one instant."""
    gate = Gate(Random(1))
    assert [gate.passed(5.0) for _ in range(3)] == [0, 0, 0]
    assert gate.opens_at < 5.0


def test_a_shut_gate_opens_after_the_longest_time_that_was_named() -> None:
    """And a little later, differently for each client."""
    gates = [Gate(Random(seed)) for seed in range(5)]
    for gate in gates:
        gate.refused(Refusal(30.0, named=True, sent=False), 10.0)
        gate.refused(Refusal(5.0, named=True, sent=False), 10.0)
    assert all(40.0 <= gate.opens_at <= 40.1 for gate in gates)
    assert len({gate.opens_at for gate in gates}) == 5


def test_those_behind_the_first_follow_a_moment_apart() -> None:
    """Each outcome halves the moment, until nobody is kept apart any more."""
    gate = Gate(Random(1))
    gate.refused(Refusal(1.0, named=True, sent=False), 0.0)
    moments, now = [], 10.0
    for _ in range(8):
        ticket = gate.passed(now)
        moments.append(max(gate.opens_at - now, 0.0))
        now = max(now, gate.opens_at)
        gate.ended(ticket, now)
    assert moments == pytest.approx([0.1 / 2**n for n in range(7)] + [0.0])


def test_an_outcome_of_before_says_nothing_about_after() -> None:
    """Who passed before the gate was shut does not bring the others closer together."""
    gate = Gate(Random(1))
    early = gate.passed(0.0)
    gate.refused(Refusal(1.0, named=True, sent=False), 0.0)
    for _ in range(20):
        gate.ended(early, 0.5)
    gate.passed(5.0)
    assert gate.opens_at == pytest.approx(5.1)


def test_an_outcome_ends_a_wait_that_was_only_guessed() -> None:
    """It means that there is room; an instant that was named stays."""
    guessed, named = Gate(Random(1)), Gate(Random(1))
    guessed.refused(Refusal(1.0, named=False, sent=False), 0.0)
    named.refused(Refusal(1.0, named=True, sent=False), 0.0)
    for gate in (guessed, named):
        gate.ended(0, 0.25)
    assert guessed.opens_at <= 0.25
    assert named.opens_at >= 1.0


# -- who is barred ---------------------------------------------------------------------------------------------------


def test_a_route_is_barred_once_each_of_its_models_refuses_for_good() -> None:
    """Whichever outcomes have told it: an answer of the second model tells it of the first."""
    key, quota = AuthError("key", model="a"), QuotaExhaustedError("quota", model="b")
    barred = Barred(["a", "b"])
    assert not barred.heard(WizardResponse("yes", "b", attempts=tried(key, None, models="ab")))
    assert not barred.heard(FULL)
    assert barred.heard(FallbackError("all", attempts=tried(quota, models="b")))
    assert barred.heard(WizardResponse("later", "", served_by=ServedBy.STATIC, attempts=tried(quota, models="b")))


@pytest.mark.parametrize("last", [None, OVERLOADED])
def test_a_model_that_says_something_else_is_barred_no_longer(last: WizardError | None) -> None:
    """Its last word counts."""
    barred, unknown = Barred(["a"]), ModelNotFoundError("name", model="a", attempts=tried(AuthError("key", model="a")))
    assert barred.heard(unknown)
    assert not barred.heard(RetryError("used up", attempts=tried(AuthError("key", model="a"), last)))


def test_one_bad_key_of_two_is_no_reason_to_stop() -> None:
    """The other model was busy, or was never asked; a hedge that was cancelled has said nothing."""
    key = AuthError("key", model="a")
    assert not Barred("ab").heard(FallbackError("all", attempts=tried(key, OVERLOADED, models="ab")))
    assert not Barred("ab").heard(key.copy().with_attempts(tried(key)))
    assert not Barred("a").heard(key.copy().with_attempts(tried(None, cancelled=True)))
