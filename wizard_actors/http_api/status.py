"""What became of a request, as an HTTP status: one table for every format. Pure.

Clients decide by it whether to ask again: 429 and 503 come with `Retry-After`, other 4xx say that the request itself is
at fault, and 502 and 504 that the models are, all that could be tried having been tried.

Where several models failed, what each of them came to in the end is judged together; the first line that holds counts:

    one of them is overloaded                                503, with when to come again
    one was over a limit, or full, or has an open circuit    429, with when to come again; 503 where those are circuits
    all came to the same status                              that one: 400 where the request is at fault, 502, 504, ...
    all were late, but those that do not count               504
    else                                                     502

What does not count says nothing of how the others are: the server's own key, account or name of a model is wrong, or
the model is none for this request (it cannot do it, or its context window is too small).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from attrs import frozen

from wizard_actors.errors import (
    AccessDeniedError,
    ActorCrashedError,
    ActorStoppedError,
    AuthError,
    CircuitOpenError,
    ConfigError,
    ContentFilterError,
    DeadlineExceededError,
    FallbackError,
    InvalidPromptError,
    MailboxFullError,
    ModelNotFoundError,
    OverloadedError,
    ProviderError,
    ProviderTimeoutError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    RetryError,
    SerializationError,
    TokenLimitError,
    UnsupportedError,
    WizardError,
)
from wizard_actors.http_api.fields import BadRequestError

__all__ = ["Failure", "failure_of"]

STATUSES: Final[Mapping[type[WizardError], int]] = MappingProxyType(
    {
        InvalidPromptError: 400,  # TokenLimitError too
        ContentFilterError: 400,
        RequestError: 400,
        UnsupportedError: 400,
        ConfigError: 400,
        SerializationError: 400,
        AccessDeniedError: 403,
        RateLimitError: 429,
        MailboxFullError: 429,
        AuthError: 502,  # of our own key: the caller's is good
        ModelNotFoundError: 502,
        QuotaExhaustedError: 502,
        OverloadedError: 503,
        ProviderTimeoutError: 504,
        DeadlineExceededError: 504,
        ProviderError: 502,
        FallbackError: 502,  # where nobody knows of what
        RetryError: 502,
        CircuitOpenError: 503,
        ActorCrashedError: 503,
        ActorStoppedError: 503,
    }
)
"""The status of an error, by its class or the nearest base of it; everything else is a bug here: 500."""

SOON: Final = 1.0
"""Seconds after which to ask again where nothing says when there will be room."""

PASSING: Final = (OverloadedError, RateLimitError, CircuitOpenError, MailboxFullError)
"""What passes by itself, so that asking again makes sense."""

NOT_COUNTED: Final = (AuthError, ModelNotFoundError, QuotaExhaustedError, UnsupportedError, TokenLimitError)
"""What says nothing of other models: what the server's operator has to put right, and that a model cannot do this."""


@frozen
class Failure:
    """What a client is told of a request that failed.

    `code` is that of the error. `retry_after` is in seconds, None where asking again is no use or nobody knows when;
    `again`: asking again makes sense, for nothing else was tried. `param` is the place in the body that is at fault.
    """

    status: int
    code: str
    message: str
    retry_after: float | None = None
    param: str | None = None
    error: WizardError | None = None

    @property
    def again(self) -> bool:
        """Whether a client should ask again by itself: not where every model has been tried as often as it may."""
        return self.status in {429, 503}


def failure_of(error: WizardError | BadRequestError) -> Failure:
    """Return what a client is told of an error."""
    if isinstance(error, BadRequestError):
        return Failure(error.status, error.code, error.message, param=error.param)
    causes = _causes(error) if isinstance(error, FallbackError | RetryError) else [error]
    status = _together(causes)
    return Failure(status, error.code, error.message, _retry_after(status, causes), error=error)


def _causes(error: WizardError) -> Sequence[WizardError]:
    """Return what each model came to in the end, but for crashes of ours, where anything else is known."""
    last = {attempt.model: attempt.error for attempt in error.attempts if attempt.error is not None}
    causes = list(last.values())
    return [cause for cause in causes if not isinstance(cause, ActorCrashedError)] or causes or [error]


def _together(causes: Sequence[WizardError]) -> int:
    """Return the status for models that failed, each for its own reason."""
    passing = [cause for cause in causes if isinstance(cause, PASSING)]
    if passing:
        overloaded = any(isinstance(cause, OverloadedError) for cause in passing)
        return 503 if overloaded or all(isinstance(cause, CircuitOpenError) for cause in passing) else 429
    statuses = {_status(cause) for cause in causes}
    if len(statuses) == 1:
        return statuses.pop()
    return 504 if {_status(cause) for cause in causes if not isinstance(cause, NOT_COUNTED)} == {504} else 502


def _status(error: WizardError) -> int:
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


def _retry_after(status: int, causes: Sequence[WizardError]) -> float | None:
    """Return for how long to stay away: until the first model may answer again."""
    if status not in {429, 503}:
        return None
    passing = [cause for cause in causes if isinstance(cause, PASSING)]
    named = [seconds for cause in passing if (seconds := getattr(cause, "retry_after", None)) is not None]
    return min(named, default=SOON)
