"""What became of a request, as a status: of one error, and of several models that failed, each for its own reason."""

from __future__ import annotations

from typing import Final

import pytest

from wizard_actors.errors import (
    AccessDeniedError,
    ActorCrashedError,
    ActorStoppedError,
    Attempt,
    AuthError,
    CircuitOpenError,
    ConfigError,
    ContentFilterError,
    DeadlineExceededError,
    FallbackError,
    InvalidPromptError,
    MailboxFullError,
    ModelNotFoundError,
    NetworkError,
    OverloadedError,
    ParseError,
    ProviderError,
    ProviderTimeoutError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    RetryError,
    SerializationError,
    StreamInterruptedError,
    TokenLimitError,
    UnsupportedError,
    WizardError,
)
from wizard_actors.http_api.fields import BadRequestError
from wizard_actors.http_api.status import SOON, failure_of

AUTH: Final = AuthError("no", model="m", status=401)
BROKEN: Final = ProviderError("broken", model="m", status=500)
BUSY: Final = OverloadedError("busy", model="m", status=503)
BUSY_7: Final = OverloadedError("busy", model="m", status=503, retry_after=7.0)
CIRCUIT: Final = CircuitOpenError("open", model="m", retry_at=99.0, retry_after=5.0)
CRASHED: Final = ActorCrashedError("crashed", actor="models/m")
FILTERED: Final = ContentFilterError("no", model="m", status=400)
FULL: Final = MailboxFullError("full", actor="models/m")
LATE: Final = ProviderTimeoutError("late", model="m", phase="first_token")
LIMITED: Final = RateLimitError("slow down", model="m", status=429)
LIMITED_2: Final = RateLimitError("slow down", model="m", status=429, retry_after=2.0)
LIMITED_9: Final = RateLimitError("slow down", model="m", source="limiter", retry_after=9.0)
LOST: Final = NetworkError("reset", model="m")
QUOTA: Final = QuotaExhaustedError("no credit", model="m", status=429, retry_after=1.0)
TOO_LONG: Final = TokenLimitError("too long", model="m")
UNABLE: Final = UnsupportedError("no pictures", feature="pictures", model="m")
UNKNOWN: Final = ModelNotFoundError("no such model", model="m", status=404)
UNREADABLE: Final = ParseError("what?", model="m")
WRONG: Final = RequestError("wrong", model="m", status=400)


def failed(*errors: WizardError) -> FallbackError:
    """Return what a caller is told of a route whose models failed in these ways, one each."""
    attempts = [Attempt(f"m{number}", 0.0, 0.1, error=error) for number, error in enumerate(errors)]
    return FallbackError("every model of the route failed", attempts=attempts)


TABLE: Final[list[tuple[tuple[WizardError, ...], int, float | None]]] = [
    # one is overloaded
    ((BUSY,), 503, SOON),
    ((BUSY_7, BUSY), 503, 7.0),
    ((BUSY, LIMITED_2), 503, 2.0),
    ((BUSY_7, CIRCUIT), 503, 5.0),
    ((BUSY, FULL), 503, SOON),
    ((BUSY, BROKEN), 503, SOON),
    ((BUSY_7, AUTH), 503, 7.0),
    # one was over a limit, or full, or has an open circuit
    ((CIRCUIT, CIRCUIT), 503, 5.0),
    ((CIRCUIT, AUTH), 503, 5.0),
    ((CIRCUIT, BROKEN), 503, 5.0),
    ((LIMITED, LIMITED), 429, SOON),
    ((LIMITED_9, LIMITED_2), 429, 2.0),
    ((LIMITED_9, CIRCUIT), 429, 5.0),
    ((FULL, CIRCUIT), 429, 5.0),
    ((FULL, FULL), 429, SOON),
    ((LIMITED_2, AUTH), 429, 2.0),
    ((LIMITED_2, UNKNOWN), 429, 2.0),
    ((LIMITED_2, QUOTA), 429, 2.0),
    ((LIMITED_2, UNABLE), 429, 2.0),
    ((LIMITED_2, TOO_LONG), 429, 2.0),
    ((LIMITED_2, WRONG), 429, 2.0),
    ((LIMITED_2, LATE, LOST), 429, 2.0),
    ((LIMITED_2, CRASHED), 429, 2.0),
    # all came to the same
    ((WRONG, FILTERED), 400, None),
    ((TOO_LONG, UNABLE), 400, None),
    ((WRONG, TOO_LONG), 400, None),
    ((AUTH, QUOTA, UNKNOWN), 502, None),
    ((BROKEN, LOST, UNREADABLE), 502, None),
    ((LATE, LATE), 504, None),
    ((WRONG, CRASHED), 400, None),
    ((CRASHED, CRASHED), 503, SOON),
    # all were late, but those that do not count
    ((LATE, AUTH), 504, None),
    ((LATE, UNABLE, TOO_LONG), 504, None),
    # else
    ((LATE, BROKEN), 502, None),
    ((LATE, WRONG), 502, None),
    ((BROKEN, AUTH), 502, None),
    ((BROKEN, WRONG), 502, None),
    ((BROKEN, TOO_LONG), 502, None),
    ((FILTERED, BROKEN), 502, None),
    ((AUTH, WRONG), 502, None),
    ((AUTH, UNABLE), 502, None),
    ((), 502, None),
]


def names(errors: tuple[WizardError, ...]) -> str:
    """Return what a row is called."""
    return "-".join(type(error).__name__.removesuffix("Error") for error in errors) or "nothing"


@pytest.mark.parametrize(("errors", "status", "retry_after"), TABLE, ids=[names(errors) for errors, *_ in TABLE])
def test_models_that_failed_are_judged_together(
    errors: tuple[WizardError, ...], status: int, retry_after: float | None
) -> None:
    """In any order; when to come again is told wherever it makes sense to."""
    for order in (errors, errors[::-1]):
        failure = failure_of(failed(*order))
        assert (failure.status, failure.retry_after) == (status, retry_after)
        assert failure.again == (retry_after is not None)
        assert failure.code == "all_models_failed"


def test_what_a_model_came_to_in_the_end_counts() -> None:
    """It was over a limit before, and is broken now."""
    attempts = [Attempt("m", 0.0, 0.1, error=error) for error in (LIMITED_2, BROKEN)]
    failure = failure_of(RetryError("failed twice", attempts=attempts))

    assert (failure.status, failure.retry_after) == (502, None)


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (InvalidPromptError("empty"), 400, None),
        (TOO_LONG, 400, None),
        (FILTERED, 400, None),
        (WRONG, 400, None),
        (UNABLE, 400, None),
        (ConfigError([]), 400, None),
        (SerializationError("no JSON"), 400, None),
        (AccessDeniedError("no", key="k"), 403, None),
        (LIMITED, 429, SOON),
        (LIMITED_2, 429, 2.0),
        (FULL, 429, SOON),
        (AUTH, 502, None),
        (UNKNOWN, 502, None),
        (QUOTA, 502, None),
        (BROKEN, 502, None),
        (LOST, 502, None),
        (StreamInterruptedError("cut", model="m"), 502, None),
        (BUSY, 503, SOON),
        (BUSY_7, 503, 7.0),
        (CIRCUIT, 503, 5.0),
        (CRASHED, 503, SOON),
        (ActorStoppedError("stopped", actor="wizard"), 503, SOON),
        (LATE, 504, None),
        (DeadlineExceededError("too late", deadline=1.0), 504, None),
        (WizardError("unforeseen"), 500, None),
        (BadRequestError("too large", status=413), 413, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_alone_has_its_status(
    error: WizardError | BadRequestError, status: int, retry_after: float | None
) -> None:
    """By its class, or the nearest base of it."""
    failure = failure_of(error)

    assert (failure.status, failure.retry_after) == (status, retry_after)
