"""The error tree: codes, facts, kinship, and what survives being shown, copied and pickled."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType

import pytest

from wizard_actors import errors
from wizard_actors.errors import (
    AccessDeniedError,
    ActorCrashedError,
    ActorError,
    ActorStoppedError,
    Attempt,
    AuthError,
    CircuitOpenError,
    ConfigError,
    ConfigProblem,
    ContentFilterError,
    DeadlineExceededError,
    EnvVarError,
    FallbackError,
    InvalidPromptError,
    InvalidStateTransitionError,
    MailboxFullError,
    ModelNotFoundError,
    NetworkError,
    OverloadedError,
    ParseError,
    ProviderBugError,
    ProviderError,
    ProviderTimeoutError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    RetryError,
    SerializationError,
    SessionConflictError,
    SessionNotInitializedError,
    StorageError,
    StreamInterruptedError,
    SupervisorError,
    TokenLimitError,
    UnsupportedError,
    WizardError,
)

STABLE: Mapping[type[WizardError], str] = MappingProxyType(
    {
        WizardError: "wizard_error",
        ConfigError: "config",
        EnvVarError: "env_var",
        InvalidPromptError: "invalid_prompt",
        TokenLimitError: "token_limit",
        UnsupportedError: "unsupported",
        InvalidStateTransitionError: "invalid_state_transition",
        SessionNotInitializedError: "session_not_initialized",
        SessionConflictError: "session_conflict",
        StorageError: "storage",
        SerializationError: "serialization",
        DeadlineExceededError: "deadline_exceeded",
        AccessDeniedError: "access_denied",
        ProviderError: "provider_error",
        AuthError: "auth",
        ContentFilterError: "content_filter",
        ModelNotFoundError: "model_not_found",
        QuotaExhaustedError: "quota_exhausted",
        RateLimitError: "rate_limit",
        RequestError: "request",
        OverloadedError: "overloaded",
        NetworkError: "network",
        ProviderTimeoutError: "timeout",
        ParseError: "parse",
        StreamInterruptedError: "stream_interrupted",
        ProviderBugError: "provider_bug",
        CircuitOpenError: "circuit_open",
        RetryError: "retries_exhausted",
        FallbackError: "all_models_failed",
        MailboxFullError: "mailbox_full",
        ActorError: "actor",
        ActorCrashedError: "actor_crashed",
        ActorStoppedError: "actor_stopped",
        SupervisorError: "supervisor",
    }
)
"""Other programs match on these: a change here breaks them."""

TRIED = (
    Attempt("primary", 1.0, 0.25, error=NetworkError("refused", model="primary")),
    Attempt("backup", 1.5, 2.0, delay=0.25, cost=Decimal("0.0021")),
)

PROVIDER: dict[str, object] = {"model": "primary", "status": None, "request_id": None, "retry_after": None}

FACTS: list[tuple[WizardError, dict[str, object]]] = [
    (WizardError("said"), {}),
    (AccessDeniedError("said", key="alice"), {"key": "alice"}),
    (
        ConfigError([ConfigProblem("cache.ttl", "must be more than 0", "say 60")], file="wizard.toml"),
        {
            "file": "wizard.toml",
            "problems": [{"key": "cache.ttl", "reason": "must be more than 0", "hint": "say 60"}],
        },
    ),
    (
        EnvVarError("API_KEY", key="models[0].api_key_env", reason="is not set"),
        {
            "file": None,
            "problems": [{"key": "models[0].api_key_env", "reason": "is not set", "hint": ""}],
            "variable": "API_KEY",
        },
    ),
    (InvalidPromptError("said"), {}),
    (TokenLimitError("said", model="m", requested=9, max=8), {"model": "m", "requested": 9, "max": 8}),
    (UnsupportedError("said", feature="tools"), {"feature": "tools", "model": None}),
    (InvalidStateTransitionError("said", from_state="a", to_state="b"), {"from_state": "a", "to_state": "b"}),
    (SessionNotInitializedError("said", from_state="a", to_state="b"), {"from_state": "a", "to_state": "b"}),
    (
        SessionConflictError("said", session="s", version=3, stored=4),
        {"session": "s", "version": 3, "stored": 4},
    ),
    (
        StorageError("said", path="wizard.db", backend="sqlite", session="s"),
        {"path": "wizard.db", "backend": "sqlite", "session": "s"},
    ),
    (SerializationError("said"), {}),
    (DeadlineExceededError("said", deadline=2.5), {"deadline": 2.5}),
    (
        ProviderError("said", model="m", status=500, request_id="r", retry_after=3.0),
        {"model": "m", "status": 500, "request_id": "r", "retry_after": 3.0},
    ),
    (AuthError("said", model="primary"), PROVIDER),
    (ContentFilterError("said", model="primary"), PROVIDER),
    (ModelNotFoundError("said", model="primary"), PROVIDER),
    (QuotaExhaustedError("said", model="primary"), PROVIDER),
    (RateLimitError("said", model="primary", source="limiter"), PROVIDER | {"source": "limiter"}),
    (RequestError("said", model="primary"), PROVIDER),
    (OverloadedError("said", model="primary"), PROVIDER),
    (NetworkError("said", model="primary"), PROVIDER),
    (ProviderTimeoutError("said", model="primary", phase="stall"), PROVIDER | {"phase": "stall"}),
    (ParseError("said", model="primary", text="Yes."), PROVIDER | {"text": "Yes."}),
    (StreamInterruptedError("said", model="primary", partial="half"), PROVIDER | {"partial": "half"}),
    (ProviderBugError("said", model="primary"), PROVIDER),
    (
        CircuitOpenError("said", model="m", retry_at=30.0, retry_after=5.0),
        {"model": "m", "retry_at": 30.0, "retry_after": 5.0},
    ),
    (RetryError("said", attempts=TRIED), {}),
    (FallbackError("said", attempts=TRIED), {}),
    (MailboxFullError("said", actor="wizard/a"), {"actor": "wizard/a", "silent": False}),
    (ActorError("said", actor="wizard/a"), {"actor": "wizard/a"}),
    (ActorCrashedError("said", actor="wizard/a"), {"actor": "wizard/a"}),
    (ActorStoppedError("said", actor="wizard/a"), {"actor": "wizard/a"}),
    (SupervisorError("said", actor="wizard"), {"actor": "wizard"}),
]

every_error = pytest.mark.parametrize(("error", "facts"), FACTS, ids=[type(error).__name__ for error, _ in FACTS])


def test_every_class_of_the_tree_has_its_line_here() -> None:
    """What is public in `errors` is listed above: codes, and an example with all its facts."""
    named = [getattr(errors, name) for name in errors.__all__]
    classes = {item for item in named if isinstance(item, type) and issubclass(item, WizardError)}
    assert classes == set(STABLE)
    assert classes == {type(error) for error, _ in FACTS}


def test_codes_are_stable_and_unique() -> None:
    """A code says which class, and stays what it is."""
    assert {kind: kind.code for kind in STABLE} == STABLE
    assert len(set(STABLE.values())) == len(STABLE)


@pytest.mark.parametrize(
    ("base", "kinds"),
    [
        (ConfigError, {EnvVarError}),
        (InvalidPromptError, {TokenLimitError}),
        (InvalidStateTransitionError, {SessionNotInitializedError}),
        (
            ProviderError,
            {
                AuthError,
                ContentFilterError,
                ModelNotFoundError,
                QuotaExhaustedError,
                RateLimitError,
                RequestError,
                OverloadedError,
                NetworkError,
                ProviderTimeoutError,
                ParseError,
                StreamInterruptedError,
                ProviderBugError,
            },
        ),
        (ActorError, {ActorCrashedError, ActorStoppedError, SupervisorError}),
        (WizardError, set(STABLE) - {WizardError}),
    ],
    ids=lambda item: item.__name__ if isinstance(item, type) else "",
)
def test_a_base_catches_its_own_and_nothing_else(base: type[WizardError], kinds: set[type[WizardError]]) -> None:
    """Kinship is part of the contract: people write `except ProviderError`."""
    assert {kind for kind in STABLE if issubclass(kind, base)} - {base} == kinds


@every_error
def test_facts_are_attributes_and_shown(error: WizardError, facts: dict[str, object]) -> None:
    """`to_dict` is `{code, message, <facts>}`, and JSON as it is."""
    shown = error.to_dict()
    tried, cost = shown.pop("attempts", None), shown.pop("cost", None)
    assert cost == (None if error.cost is None else str(error.cost))
    assert shown == {"code": error.code, "message": error.message, **facts}
    assert (tried is not None) == bool(error.attempts)
    assert json.loads(json.dumps(shown)) == shown
    for name, value in facts.items():
        if name != "problems":
            assert getattr(error, name) == value


@every_error
def test_the_message_is_what_an_error_says_of_itself(error: WizardError, facts: dict[str, object]) -> None:
    """`str` is the message, `repr` names the class too."""
    assert str(error) == error.message
    assert repr(error) == f"{type(error).__name__}({error.message!r})"
    assert error.message


@every_error
def test_an_error_survives_pickling_and_copying(error: WizardError, facts: dict[str, object]) -> None:
    """Class, message, facts, attempts and verdict are the same; it can still be raised."""
    twins = [
        error.copy(),
        copy.copy(error),
        copy.deepcopy(error),
        *(pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, 6)),  # noqa: S301 - our own bytes
    ]
    for twin in twins:
        assert twin is not error
        assert type(twin) is type(error)
        assert twin.to_dict() == error.to_dict()
        assert twin.verdict == error.verdict
        with pytest.raises(type(error)) as caught:
            raise twin
        assert str(caught.value) == str(error)


def test_a_raiser_keeps_the_cause_and_a_copy_has_none() -> None:
    """Each who is told the same news chains it from causes of their own."""
    cause = OSError("refused")
    error = NetworkError("cannot connect", model="primary")
    with pytest.raises(NetworkError) as caught:
        raise error from cause
    assert caught.value.__cause__ is cause
    twin = caught.value.copy()
    assert (twin.__cause__, twin.__context__, twin.__traceback__) == (None, None, None)


def test_a_copy_goes_its_own_way() -> None:
    """What is recorded on one is not recorded on the other."""
    error = NetworkError("cannot connect", model="primary")
    twin = error.copy().with_attempts(TRIED)
    assert (error.attempts, twin.attempts) == ((), TRIED)


def test_attempts_are_shown_with_their_errors_and_costs() -> None:
    """As a list in order, in JSON's types; absent where nothing was tried."""
    error = FallbackError("all failed").with_attempts(list(TRIED))
    shown = error.to_dict()["attempts"]
    assert shown == [
        {
            "model": "primary",
            "start": 1.0,
            "duration": 0.25,
            "delay": 0.0,
            "error": {"code": "network", "message": "refused", **PROVIDER},
            "cost": None,
            "sent": True,
            "cancelled": False,
        },
        {
            "model": "backup",
            "start": 1.5,
            "duration": 2.0,
            "delay": 0.25,
            "error": None,
            "cost": "0.0021",
            "sent": True,
            "cancelled": False,
        },
    ]
    assert json.loads(json.dumps(shown)) == shown
    assert "attempts" not in FallbackError("nothing tried").to_dict()


def test_facts_are_given_by_name_and_cannot_be_misspelt() -> None:
    """An error is never raised without what it promises to carry."""
    with pytest.raises(TypeError, match="model"):
        ProviderError("no model")  # type: ignore[call-arg]  # what is tested
    with pytest.raises(TypeError, match="modle"):
        ProviderError("no model", modle="m")  # type: ignore[call-arg]  # what is tested


def test_a_fact_of_any_type_can_be_shown() -> None:
    """What JSON has no type for is shown as text, sequences and nested errors as what they hold."""
    error = StorageError("said")
    error.path = (Decimal("1.5"), WizardError("inner"), None)  # type: ignore[assignment]  # of any type
    assert error.to_dict()["path"] == ["1.5", {"code": "wizard_error", "message": "inner"}, None]


# -- configuration errors


def test_one_problem_is_told_in_one_line() -> None:
    """File, key, reason and hint."""
    error = ConfigError([ConfigProblem("a.b", "must be a number", "write 5")], file="wizard.toml")
    assert str(error) == "wizard.toml: `a.b` must be a number; write 5"


def test_several_problems_are_told_one_a_line() -> None:
    """All at once, whatever they are about."""
    error = ConfigError([ConfigProblem("a.b", "must be a number"), ConfigProblem("", "is empty")])
    assert str(error) == "configuration: 2 problems\n  `a.b` must be a number\n  is empty"


def test_a_missing_variable_is_named() -> None:
    """The key that names it, and the variable itself."""
    error = EnvVarError("API_KEY", key="models[0].api_key_env", file="wizard.toml")
    assert str(error) == (
        "wizard.toml: `models[0].api_key_env` names the environment variable API_KEY, which is not set"
    )
