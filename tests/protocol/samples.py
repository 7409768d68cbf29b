"""One error of each class, with facts, and other values that travel."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import fields

from wizard_actors import errors
from wizard_actors.errors import ConfigError, ConfigProblem, EnvVarError, WizardError

__all__ = ["FACTS", "NOW", "error_classes", "facts_of", "sample"]

NOW: Final = 1_767_225_600.0
"""Unix seconds on the server."""

FACTS: Final[Mapping[str, object]] = MappingProxyType(
    {
        "actor": "models/model:a/worker",
        "backend": "sqlite",
        "deadline": 2.5,
        "feature": "seed",
        "from_state": "closed",
        "key": "alice",
        "max": 8192,
        "model": "primary",
        "partial": "Because the",
        "path": "sessions.db",
        "phase": "stall",
        "request_id": "req_1",
        "requested": 9000,
        "retry_after": 4.25,
        "retry_at": 12.5,
        "session": "alice",
        "silent": True,
        "source": "limiter",
        "status": 503,
        "stored": 7,
        "text": "almost JSON",
        "to_state": "active",
        "version": 6,
    }
)
"""A value for every fact that an error has, none of them its default."""


def error_classes() -> Iterator[type[WizardError]]:
    """Yield every class of the error tree."""
    for _name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, WizardError):
            yield kind


def sample(kind: type[WizardError], message: str = "what happened, and what to do") -> WizardError:
    """Return an error of that class, with all its facts."""
    if kind is EnvVarError:
        return EnvVarError("OPENAI_API_KEY", key="models[0].api_key_env", file="wizard.toml")
    if kind is ConfigError:
        problems = [ConfigProblem("cache", "is off", "set it"), ConfigProblem("", "is empty")]
        return ConfigError(problems, file="wizard.toml")
    names = [fact.name for fact in fields(kind) if fact.name not in {"message", "attempts"}]
    facts: dict[str, Any] = {name: FACTS[name] for name in names}
    return kind(message, **facts)


def facts_of(error: WizardError) -> dict[str, object]:
    """Return what an error says of itself, but for its attempts."""
    return {fact.name: getattr(error, fact.name) for fact in fields(type(error)) if fact.name != "attempts"}
