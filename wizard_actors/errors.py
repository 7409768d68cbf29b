"""The error tree: every failure is a `WizardError` with a stable code, its facts and its chained cause.

Nothing is ever parsed back out of a message. What follows from an error (the same model again? the next one? what does
the breaker learn?) is its `verdict`, looked up in `wizard_actors.verdict.VERDICTS` by the error's `row`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import define, field, frozen

from wizard_actors.failure import Attempt, WizardError
from wizard_actors.verdict import Row

__all__ = [
    "AccessDeniedError",
    "ActorCrashedError",
    "ActorError",
    "ActorStoppedError",
    "Attempt",
    "AuthError",
    "CircuitOpenError",
    "ConfigError",
    "ConfigProblem",
    "ContentFilterError",
    "DeadlineExceededError",
    "EnvVarError",
    "FallbackError",
    "InvalidPromptError",
    "InvalidStateTransitionError",
    "MailboxFullError",
    "ModelNotFoundError",
    "NetworkError",
    "OverloadedError",
    "ParseError",
    "ProviderBugError",
    "ProviderError",
    "ProviderTimeoutError",
    "QuotaExhaustedError",
    "RateLimitError",
    "RequestError",
    "RetryError",
    "SerializationError",
    "SessionConflictError",
    "SessionNotInitializedError",
    "StorageError",
    "StreamInterruptedError",
    "SupervisorError",
    "TimeoutPhase",
    "TokenLimitError",
    "UnsupportedError",
    "WizardError",
]

TimeoutPhase = Literal["connect", "first_token", "stall", "total"]
"""What a provider was late with: the connection, the first content, the next bytes, or the whole answer."""

# -- configuration -----------------------------------------------------------------------------------


@frozen
class ConfigProblem:
    """One thing wrong with a configuration.

    `key` is its path ("models[0].timeouts.stall"), "" for the file itself; `reason` reads on from it ("must be more
    than 0"), and `hint` says what to do.
    """

    key: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        problem = f"`{self.key}` {self.reason}" if self.key else self.reason
        return f"{problem}; {self.hint}" if self.hint else problem

    def to_dict(self) -> dict[str, object]:
        """Return `{key, reason, hint}`."""
        return {"key": self.key, "reason": self.reason, "hint": self.hint}


@define(slots=False, eq=False, repr=False, init=False)
class ConfigError(WizardError):
    """Raised when a configuration cannot be used; `problems` holds everything found wrong, at once."""

    code = "config"

    file: str | None
    problems: tuple[ConfigProblem, ...]

    def __init__(self, problems: Sequence[ConfigProblem], *, file: str | None = None) -> None:
        self.problems = tuple(problems)
        self.file = file
        where = file or "configuration"
        if len(self.problems) == 1:
            message = f"{where}: {self.problems[0]}"
        else:
            message = f"{where}: {len(self.problems)} problems" + "".join(f"\n  {item}" for item in self.problems)
        WizardError.__init__(self, message)


@define(slots=False, eq=False, repr=False, init=False)
class EnvVarError(ConfigError):  # type: ignore[override]  # of an initialiser that attrs would make
    """Raised when an environment variable that the configuration names is missing or empty."""

    code = "env_var"

    variable: str

    def __init__(self, variable: str, *, key: str, file: str | None = None, reason: str | None = None) -> None:
        self.variable = variable
        said = reason or f"names the environment variable {variable}, which is not set"
        super().__init__([ConfigProblem(key, said)], file=file)


# -- what the caller asked for -----------------------------------------------------------------------


class InvalidPromptError(WizardError):
    """Raised when a prompt cannot be sent to any model: empty, not text, contradictory."""

    code = "invalid_prompt"
    _row = Row.BAD_PROMPT


@define(slots=False, eq=False, repr=False, kw_only=True)
class TokenLimitError(InvalidPromptError):
    """Raised when a prompt is longer than a model's context window. Counts are tokens, None where unknown."""

    code = "token_limit"
    _row = Row.TOO_LONG

    model: str | None = None
    requested: int | None = None
    max: int | None = None


@define(slots=False, eq=False, repr=False, kw_only=True)
class UnsupportedError(WizardError):
    """Raised when a model, or this installation, cannot do what was asked; nothing was sent."""

    code = "unsupported"
    _row = Row.REFUSED

    feature: str
    model: str | None = None


@define(slots=False, eq=False, repr=False, kw_only=True)
class InvalidStateTransitionError(WizardError):
    """Raised when something is asked that its state forbids."""

    code = "invalid_state_transition"

    from_state: str
    to_state: str


class SessionNotInitializedError(InvalidStateTransitionError):
    """Raised when a session is used before it was created."""

    code = "session_not_initialized"


@define(slots=False, eq=False, repr=False, kw_only=True)
class SessionConflictError(WizardError):
    """Raised when another writer stored a newer version of a session, or deleted it.

    `version` was to be saved; `stored` is the one that is stored, None where there is none.
    """

    code = "session_conflict"

    session: str | None = None
    version: int | None = None
    stored: int | None = None


@define(slots=False, eq=False, repr=False, kw_only=True)
class StorageError(WizardError):
    """Raised when a file, or the `backend` of a `session`, cannot be read or written."""

    code = "storage"

    path: str | None = None
    backend: str | None = None
    session: str | None = None


class SerializationError(WizardError):
    """Raised when a value of ours cannot be turned into JSON, or stored JSON not back into it."""

    code = "serialization"


@define(slots=False, eq=False, repr=False, kw_only=True)
class DeadlineExceededError(WizardError):
    """Raised when the caller's own deadline has passed. `deadline` is in seconds, as it was given."""

    code = "deadline_exceeded"

    deadline: float | None = None


@define(slots=False, eq=False, repr=False, kw_only=True)
class AccessDeniedError(WizardError):
    """Raised when a server refuses a key, or what a key asks for; nothing was begun. `key` is the key's name, None
    where none is known.
    """

    code = "access_denied"

    key: str | None = None


# -- what a provider did -----------------------------------------------------------------------------


def _as_seconds(value: float | None) -> float | None:
    """Return a time; None where it is no number, or a negative one: whoever raises it may have read it anywhere."""
    return value if isinstance(value, float | int) and value >= 0 else None


@define(slots=False, eq=False, repr=False, kw_only=True)
class ProviderError(WizardError):
    """Raised when a provider failed: a 5xx, 408 or 409, or one of the subclasses.

    `status` is the HTTP status, None where no answer came; `request_id` is the provider's own id for the call;
    `retry_after` is for how many seconds it asked to be left alone, None where it did not say, or nothing sensible.
    """

    code = "provider_error"
    _row = Row.FAILED

    model: str
    status: int | None = None
    request_id: str | None = None
    retry_after: float | None = field(default=None, converter=_as_seconds)


class AuthError(ProviderError):
    """Raised when a provider refused the key."""

    code = "auth"
    _row = Row.BARRED


class ContentFilterError(ProviderError):
    """Raised when a provider refused to answer this content."""

    code = "content_filter"
    _row = Row.BAD_PROMPT


class ModelNotFoundError(ProviderError):
    """Raised when a provider does not know the model's upstream id."""

    code = "model_not_found"
    _row = Row.BARRED


class QuotaExhaustedError(ProviderError):
    """Raised when the account has no credit left: waiting does not help."""

    code = "quota_exhausted"
    _row = Row.BARRED


@define(slots=False, eq=False, repr=False, kw_only=True)
class RateLimitError(ProviderError):
    """Raised when a call is over a limit.

    `source` is "provider" for a 429, "limiter" where our own limiter would have made the call wait too long and nothing
    was sent.
    """

    code = "rate_limit"

    source: Literal["provider", "limiter"] = "provider"

    @property
    def row(self) -> Row:
        """A 429 is waited out by the limiter; a refusal of the limiter itself was not sent."""
        return Row.RATE_LIMITED if self.source == "provider" else Row.UNSENT


class RequestError(ProviderError):
    """Raised when a provider refused the request as wrong: a 4xx that no other class covers."""

    code = "request"
    _row = Row.REFUSED


class OverloadedError(ProviderError):
    """Raised when a provider says that it is overloaded or unavailable: 503, 529, `overloaded_error`."""

    code = "overloaded"


class NetworkError(ProviderError):
    """Raised when the connection failed: refused, reset, name not found, TLS."""

    code = "network"


@define(slots=False, eq=False, repr=False, kw_only=True)
class ProviderTimeoutError(ProviderError):
    """Raised when a provider was late; `phase` says with what."""

    code = "timeout"

    phase: TimeoutPhase

    @property
    def row(self) -> Row:
        """Nothing was sent where there was no connection; otherwise the model stayed silent."""
        return Row.FAILED if self.phase == "connect" else Row.SILENT


@define(slots=False, eq=False, repr=False, kw_only=True)
class ParseError(ProviderError):
    """Raised when a provider's answer cannot be understood; `text` is one that is merely not what was asked for."""

    code = "parse"

    text: str = ""


@define(slots=False, eq=False, repr=False, kw_only=True)
class StreamInterruptedError(ProviderError):
    """Raised when an answer ended before it was complete; `partial` is the text that had arrived."""

    code = "stream_interrupted"

    partial: str = ""


class ProviderBugError(ProviderError):
    """Raised when a provider's code here raised something unforeseen: a bug, of that one request only."""

    code = "provider_bug"
    _row = Row.BUG


# -- what our own actors decided ---------------------------------------------------------------------


@define(slots=False, eq=False, repr=False, kw_only=True)
class CircuitOpenError(WizardError):
    """Raised when a call is refused unsent; `retry_at` is the instant of the next probe on the supervisor's clock.

    `retry_after` is the same in seconds from the refusal.
    """

    code = "circuit_open"
    _row = Row.UNSENT

    model: str
    retry_at: float
    retry_after: float


class RetryError(WizardError):
    """Raised when a model's attempts are used up and the route has no other; chained from the first real failure."""

    code = "retries_exhausted"


class FallbackError(WizardError):
    """Raised when every model of a route failed; chained from the first real cause."""

    code = "all_models_failed"


@define(slots=False, eq=False, repr=False, kw_only=True)
class MailboxFullError(WizardError):
    """Raised when a bounded queue has no room; nothing was started.

    `silent`: it is a model's queue, and the model has said nothing to anybody for a while.
    """

    code = "mailbox_full"

    actor: str
    silent: bool = False

    @property
    def row(self) -> Row:
        """A model that is busy is waited for; one that is silent is as good as one that cannot be asked."""
        return Row.UNSENT if self.silent else Row.FULL


@define(slots=False, eq=False, repr=False, kw_only=True)
class ActorError(WizardError):
    """Base of what happens to an ask when its actor cannot answer; `actor` is the actor's path."""

    code = "actor"
    _row = Row.REFUSED

    actor: str


class ActorCrashedError(ActorError):
    """Raised when the actor crashed with the ask in hand, or is waiting to be restarted; chained from the crash."""

    code = "actor_crashed"
    _row = Row.CRASHED


class ActorStoppedError(ActorError):
    """Raised when the actor has stopped, or its tree is stopping."""

    code = "actor_stopped"


class SupervisorError(ActorError):
    """Raised when a supervision tree cannot go on; chained from the failure that ended it."""

    code = "supervisor"
    _row = Row.FINAL
