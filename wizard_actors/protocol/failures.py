"""Errors as they travel: `error.data` of JSON-RPC, and back into the classes that a client raises. Pure.

    {"code": -32000, "message": "primary failed too often: ...", "data": {"code": "circuit_open",
     "message": ..., "model": "primary", "retry_after": 4.2, "retry_at": 1767225604.2, "attempts": [...]}}

`retry_at` is in Unix seconds here, for no two machines share a supervisor's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Final

from attrs import fields

from wizard_actors import errors
from wizard_actors.errors import (
    AccessDeniedError,
    Attempt,
    ConfigError,
    ConfigProblem,
    FallbackError,
    InvalidPromptError,
    RetryError,
    SerializationError,
    WizardError,
)
from wizard_actors.protocol.frames import Code, Fault, RequestId

__all__ = [
    "attempt_from",
    "attempt_to",
    "cancelled",
    "cost_from",
    "error_from",
    "error_to",
    "fault_of",
    "invalid",
]

THE_CALLERS: Final = (AccessDeniedError, ConfigError, InvalidPromptError, SerializationError)
"""What is wrong with what was asked, not with what happened then."""


CLASSES: Final[Mapping[str, type[WizardError]]] = MappingProxyType(
    {kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WizardError)}
)
"""The classes of `wizard_actors.errors`, by their codes."""

LEVELS: Final = 4
"""How deep attempts are read that errors of attempts have."""

LARGEST: Final = 1e15
"""Seconds: beyond all that are sensible."""

COST_DIGITS: Final = 100
"""Of a cost, before and after the point, so that costs can be added up."""


def invalid(message: str, request: RequestId | None) -> Fault:
    """Return the fault for parameters that are wrong."""
    return Fault(Code.INVALID_PARAMS, message, request=request, data={"code": "invalid_params", "message": message})


def cancelled(request: RequestId) -> Fault:
    """Return the fault of a request that was cancelled."""
    return Fault(Code.CANCELLED, "the request was cancelled", request=request, data={"code": "cancelled"})


def fault_of(error: WizardError, request: RequestId | None, *, now: float) -> Fault:
    """Return the fault that tells of `error`; `now` is in Unix seconds."""
    code = Code.INVALID_PARAMS if isinstance(error, THE_CALLERS) else Code.FAILED
    return Fault(code, error.message, request=request, data=error_to(error, now=now))


def error_to(error: WizardError, *, now: float) -> dict[str, object]:
    """Return what a fault's `data` says of an error: its code, message, facts and attempts."""
    shown = error.to_dict()
    shown.pop("retry_at", None)  # an instant of this process's own clock
    retry_after = shown.get("retry_after")
    if isinstance(retry_after, float | int):
        shown["retry_at"] = round(now + retry_after, 3)
    if error.attempts:
        shown["attempts"] = [attempt_to(attempt, now=now) for attempt in error.attempts]
    return shown


def attempt_to(attempt: Attempt, *, now: float) -> dict[str, object]:
    """Return an attempt in JSON's types, its error too."""
    error = None if attempt.error is None else error_to(attempt.error, now=now)
    return {**attempt.to_dict(), "error": error}


# -- and back ----------------------------------------------------------------------------------------


def error_from(fault: Fault, *, now: float) -> WizardError:
    """Return the error that a fault tells of, as this client raises it; `now` is on this client's own clock.

    An error of a class that is not known here, or of the protocol itself, is a `WizardError`.
    """
    return _error(fault.data, fault.message, now)


def _error(data: Mapping[str, object], message: str, now: float, levels: int = LEVELS) -> WizardError:
    code = data.get("code")
    kind = CLASSES.get(code if isinstance(code, str) else "", WizardError)
    error = _made(kind, data, message, now)
    attempts = _list(data.get("attempts")) if levels else []
    error.with_attempts([_attempt(each, now, levels - 1) for each in attempts])
    if isinstance(error, FallbackError | RetryError):
        error.__cause__ = next((each.error for each in error.attempts if each.error is not None and each.sent), None)
    return error


def _made(kind: type[WizardError], data: Mapping[str, object], message: str, now: float) -> WizardError:
    said = _text(data.get("message")) or message
    facts: dict[str, object] = {fact.name: _fact(data.get(fact.name)) for fact in fields(kind)}
    facts.update(message=said, attempts=())
    if "retry_at" in facts:
        facts["retry_after"] = _seconds(data.get("retry_after"))
        facts["retry_at"] = now + _seconds(data.get("retry_after"))
    if "problems" in facts:
        facts["problems"] = _problems(data) or (ConfigProblem("", said),)
    error = kind.__new__(kind, said)
    error.__dict__.update(facts)
    return error


def _problems(data: Mapping[str, object]) -> tuple[ConfigProblem, ...]:
    return tuple(
        ConfigProblem(_text(each.get("key")), _text(each.get("reason")), _text(each.get("hint")))
        for each in _list(data.get("problems"))
    )


def _fact(value: object) -> str | float | bool | None:
    return value if isinstance(value, str | float | int | bool) else None


def _list(value: object) -> Sequence[Mapping[str, object]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def attempt_from(data: Mapping[str, object], *, now: float) -> Attempt:
    """Return an attempt, as far as it can be read."""
    return _attempt(data, now, LEVELS)


def _attempt(data: Mapping[str, object], now: float, levels: int) -> Attempt:
    error = data.get("error")
    return Attempt(
        model=_text(data.get("model")),
        start=_seconds(data.get("start")),
        duration=_seconds(data.get("duration")),
        delay=_seconds(data.get("delay")),
        error=_error(error, "", now, levels) if isinstance(error, Mapping) else None,
        cost=cost_from(data.get("cost")),
        sent=data.get("sent") is not False,
        cancelled=data.get("cancelled") is True,
    )


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, float | int) and abs(value) < LARGEST else 0.0


def cost_from(value: object) -> Decimal | None:
    """Return a cost in US dollars; None where there is none, or it cannot be read."""
    try:
        cost = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        return None
    return cost if cost is not None and cost.is_finite() and abs(cost.adjusted()) <= COST_DIGITS else None
