"""The base of all errors, and the record of one attempt that responses and errors carry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal, localcontext
from typing import ClassVar, Final, Protocol, Self, TypeVar, runtime_checkable

from attrs import define, field, fields, frozen

from wizard_actors.verdict import VERDICTS, Row, Verdict

__all__ = ["Attempt", "WizardError", "total_cost"]

MONEY: Final = Context(prec=40)
"""In which costs are added up: the caller's own context may round, or raise."""

E = TypeVar("E", bound="WizardError")


def _as_tuple(attempts: Iterable[Attempt]) -> tuple[Attempt, ...]:
    return tuple(attempts)


@runtime_checkable
class Shown(Protocol):
    """A fact that knows how to be shown in JSON's types."""

    def to_dict(self) -> dict[str, object]:
        """Return the fact."""


@define(slots=False, eq=False, repr=False)
class WizardError(Exception):
    """Base of everything this package raises: `WizardError(message, **facts)`.

    `code` is stable across releases. The facts are keyword arguments and attributes, and `to_dict` shows them.
    `attempts` lists what was tried before the error, where anything was. Errors can be pickled and copied.
    """

    code: ClassVar[str] = "wizard_error"
    _row: ClassVar[Row] = Row.FINAL

    message: str
    attempts: tuple[Attempt, ...] = field(default=(), kw_only=True, converter=_as_tuple)

    @property
    def row(self) -> Row:
        """The line of the verdict table that this error falls under."""
        return self._row

    @property
    def cost(self) -> Decimal | None:
        """What the `attempts` cost together, in US dollars, as far as it is known: see `total_cost`."""
        return total_cost(self.attempts)

    @property
    def verdict(self) -> Verdict:
        """What follows from this error."""
        return VERDICTS[self.row]

    def copy(self) -> Self:
        """Return an equal error without traceback or cause, for telling somebody else the same news."""
        return _rebuild(type(self), dict(self.__dict__))

    def with_attempts(self, attempts: Sequence[Attempt]) -> Self:
        """Record what was tried, and return the error itself."""
        self.attempts = tuple(attempts)
        return self

    def to_dict(self) -> dict[str, object]:
        """Return `{code, message, <facts>, attempts, cost}` in JSON's types, as `--json` and the endpoints show it."""
        shown: dict[str, object] = {"code": self.code, "message": self.message}
        names = [fact.name for fact in fields(type(self)) if fact.name not in {"message", "attempts"}]
        shown.update({name: _plain(getattr(self, name)) for name in names})
        if self.attempts:
            shown["attempts"] = [attempt.to_dict() for attempt in self.attempts]
            shown["cost"] = None if self.cost is None else str(self.cost)
        return shown

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own would call the subclass with the message alone, which most subclasses refuse.
        return (_rebuild, (type(self), dict(self.__dict__)))


def _rebuild(kind: type[E], state: Mapping[str, object]) -> E:
    error = kind.__new__(kind, state["message"])
    error.__dict__.update(state)
    return error


def _plain(value: object) -> object:
    """Return a fact in JSON's types."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Shown):
        return value.to_dict()
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return str(value)


@frozen
class Attempt:
    """One attempt at one model, as responses and errors list it.

    `start` is in seconds of the supervisor's clock, `delay` the seconds waited before it (backoff, and the limiter's
    and the bulkhead's queues), `duration` the seconds from the send to the end, 0.0 where nothing was sent. `error` is
    None for the attempt that answered, and for one that was `cancelled` because another answered first. `cost` is in
    US dollars: None where unknown, 0 where the provider refused the call, and for the attempts of another request whose
    failure was shared.
    """

    model: str
    start: float
    duration: float
    delay: float = 0.0
    error: WizardError | None = None
    cost: Decimal | None = None
    sent: bool = True
    cancelled: bool = False

    def to_dict(self) -> dict[str, object]:
        """Return the attempt in JSON's types; its error as `{code, message, ...}`."""
        return {
            "model": self.model,
            "start": self.start,
            "duration": self.duration,
            "delay": self.delay,
            "error": None if self.error is None else self.error.to_dict(),
            "cost": None if self.cost is None else str(self.cost),
            "sent": self.sent,
            "cancelled": self.cancelled,
        }


def total_cost(attempts: Iterable[Attempt]) -> Decimal | None:
    """Return what attempts cost together, in US dollars. One whose cost is unknown adds nothing.

    None where no cost is known; and where nothing was answered, and all that is known is that some attempts cost
    nothing: the others may have cost something, and nobody knows what.
    """
    listed = list(attempts)
    if len(listed) == 1:
        return listed[0].cost
    with localcontext(MONEY):
        total = sum((attempt.cost for attempt in listed if attempt.cost is not None), Decimal(0))
    unknown = any(attempt.sent and attempt.cost is None for attempt in listed)
    known = [attempt for attempt in listed if attempt.cost is not None]
    answered = any(attempt.error is None and not attempt.cancelled for attempt in known)
    return total if total or answered or (known and not unknown) else None
