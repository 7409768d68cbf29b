"""A stored session: what is kept of a conversation, as frozen values. `wizard_actors.session_json` is its JSON.

Times are wall-clock seconds since 1970, given by whoever makes a record: nothing here reads a clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import Factory, field, frozen

from wizard_actors.errors import SerializationError
from wizard_actors.frozen_json import LARGEST_INTEGER, FrozenDict, NotJsonError, frozen_json
from wizard_actors.types import FinishReason, Message, TokenUsage

if TYPE_CHECKING:
    from attrs import Attribute

__all__ = ["MAX_ID", "SessionRecord", "SessionState", "SessionSummary", "TurnRecord", "check_id"]

MAX_ID: Final = 200
"""Characters of a session's id."""

COST_DIGITS: Final = 30
COST_DECIMALS: Final = 100
"""Digits of a turn's cost before and after the point, at most: no sum of them overflows, and each can be printed."""

NOT_IN_AN_ID: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class SessionState(StrEnum):
    """Where a session is in its life."""

    CREATED = "created"
    ACTIVE = "active"
    CLOSED = "closed"
    EXPIRED = "expired"


# -- what a record takes -----------------------------------------------------------------------------

Check: TypeAlias = "Callable[[object, Attribute[Any], object], None]"


def _refuse(place: Attribute[Any], what: str, value: object) -> SerializationError:
    return SerializationError(f"a session's {place.name} must be {what}, not {type(value).__name__}")


def _is(what: str, *kinds: type) -> Check:
    """Return a check that a value is of one of `kinds`, and of no subclass, whose own fields would not be stored."""

    def check(_record: object, place: Attribute[Any], value: object) -> None:
        if type(value) not in kinds:
            raise _refuse(place, what, value)

    return check


def _all_are(kind: type) -> Check:
    """Return a check that a tuple holds only objects of `kind`, and of no subclass."""

    def check(_record: object, place: Attribute[Any], value: object) -> None:
        for item in value if isinstance(value, tuple) else ():
            if type(item) is not kind:
                raise _refuse(place, f"{kind.__name__} objects", item)

    return check


def _text(_record: object, place: Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise _refuse(place, "a text", value)
    _encodable(value, f"a session's {place.name}")


def _text_or_none(record: object, place: Attribute[Any], value: object) -> None:
    if value is not None:
        _text(record, place, value)


def _encodable(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SerializationError(f"{what} is not valid Unicode: {error.reason} at character {error.start}") from error


def check_id(value: object) -> None:
    """Raise `SerializationError` for what no session can be called."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID or NOT_IN_AN_ID.search(value):
        given = f"{len(value)} characters" if isinstance(value, str) and len(value) > MAX_ID else repr(value)
        raise SerializationError(
            f"a session's id is a text of 1 to {MAX_ID} characters, no control character or half a surrogate pair "
            f"among them; not {given}"
        )


def _id(_record: object, _place: Attribute[Any], value: object) -> None:
    check_id(value)


def _as_time(value: float) -> float:
    """Return a time as the float that JSON will hold, so that a record equals what is read back of it."""
    if type(value) not in {int, float} or not abs(value) < LARGEST_INTEGER:
        raise SerializationError(f"a session's times must be wall-clock seconds, finite numbers, not {value!r}")
    return float(value)


def _version(_record: object, _place: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < LARGEST_INTEGER:
        raise SerializationError(f"a session's version must be a whole number from 1 on, not {value!r}")


def _cost(_record: object, _place: Attribute[Any], value: object) -> None:
    if value is None:
        return
    if not isinstance(value, Decimal) or not value.is_finite():
        raise SerializationError(f"a turn's cost must be a finite Decimal, not {value!r}")
    exponent = value.as_tuple().exponent
    if value.adjusted() >= COST_DIGITS or not isinstance(exponent, int) or exponent < -COST_DECIMALS:
        raise SerializationError(
            f"a turn's cost has at most {COST_DIGITS} digits before the point and {COST_DECIMALS} after it"
        )


def _messages(record: object, place: Attribute[Any], value: object) -> None:
    if not value:
        raise SerializationError("a turn has at least one message")
    _all_are(Message)(record, place, value)


def _as_context(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return a copy of context values that is JSON all through, and that nobody can change."""
    try:
        copied = frozen_json(values)
    except NotJsonError as error:
        raise SerializationError(f"a session's context{error.place} {error.reason}") from error
    if not isinstance(copied, FrozenDict):
        raise SerializationError(f"a session's context must be a mapping, not {type(values).__name__}")
    return copied


def _as_state(value: str) -> SessionState:
    try:
        return SessionState(value)
    except ValueError:
        raise SerializationError(f"a session's state is one of {', '.join(SessionState)}, not {value!r}") from None


def _as_messages(messages: Iterable[Message]) -> tuple[Message, ...]:
    return tuple(messages)


def _as_turns(turns: Iterable[TurnRecord]) -> tuple[TurnRecord, ...]:
    return tuple(turns)


# -- the records -------------------------------------------------------------------------------------


@frozen
class TurnRecord:
    """One turn: the messages that it added, the question first and the answer last, and what the answer cost. There is
    at least one message.

    `at` is when it was stored. `model`, `upstream_model`, `usage`, `cost`, `finish_reason` and `request_id` are those
    of the `WizardResponse` that ended it; a turn that no model answered has no model: "". A cost has at most 30 digits
    before the point and 100 after it.

    Raises `SerializationError` for what cannot be stored.
    """

    messages: tuple[Message, ...] = field(converter=_as_messages, validator=_messages)
    at: float = field(kw_only=True, converter=_as_time)
    model: str = field(default="", kw_only=True, validator=_text)
    upstream_model: str | None = field(default=None, kw_only=True, validator=_text_or_none)
    usage: TokenUsage | None = field(default=None, kw_only=True, validator=_is("a TokenUsage", TokenUsage, type(None)))
    cost: Decimal | None = field(default=None, kw_only=True, validator=_cost)
    finish_reason: FinishReason = field(
        default=FinishReason.STOP, kw_only=True, validator=_is("a FinishReason", FinishReason)
    )
    request_id: str = field(default="", kw_only=True, validator=_text)


@frozen
class SessionSummary:
    """What a list shows of a session, without its content; `turns` is their number, the rest as in `SessionRecord`."""

    id: str
    version: int
    state: SessionState
    turns: int
    created_at: float
    updated_at: float
    used_at: float


@frozen
class SessionRecord:
    """One version of a session, whole.

    `id` is a text of 1 to 200 characters without control characters; ids that differ in anything, also in case or in a
    space, are different sessions. `version` counts from 1: each save is of the version after the one that is stored.
    A session is known by its `id` and `created_at` together: one that was deleted and made anew is another one.

    `system` is the system prompt, and belongs to no turn. `route` and `model` say whom to ask where that is not the
    default. `context` are values of the program's own, in JSON's types, at most 100,000 in 64 levels; the record keeps
    a copy that cannot be changed: `dict(...)` or `list(...)` of a part makes one that can. `updated_at` is when the
    record last changed, `used_at` when the session was last used, by a turn or another change that was stored: lists
    and idle expiry go by that.

    Raises `SerializationError` for what cannot be stored.
    """

    id: str = field(validator=_id)
    created_at: float = field(kw_only=True, converter=_as_time)
    version: int = field(default=1, kw_only=True, validator=_version)
    state: SessionState = field(default=SessionState.CREATED, kw_only=True, converter=_as_state)
    system: str | None = field(default=None, kw_only=True, validator=_text_or_none)
    route: str | None = field(default=None, kw_only=True, validator=_text_or_none)
    model: str | None = field(default=None, kw_only=True, validator=_text_or_none)
    context: Mapping[str, object] = field(factory=dict, kw_only=True, converter=_as_context)
    turns: tuple[TurnRecord, ...] = field(default=(), kw_only=True, converter=_as_turns, validator=_all_are(TurnRecord))
    updated_at: float = field(
        default=Factory(lambda self: self.created_at, takes_self=True), kw_only=True, converter=_as_time
    )
    used_at: float = field(
        default=Factory(lambda self: self.updated_at, takes_self=True), kw_only=True, converter=_as_time
    )

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of all turns, in order."""
        return tuple(message for turn in self.turns for message in turn.messages)

    @property
    def cost(self) -> Decimal | None:
        """What all turns cost together; one of unknown cost adds nothing. None where no cost is known."""
        costs = [turn.cost for turn in self.turns if turn.cost is not None]
        return sum(costs, Decimal(0)) if costs else None

    @property
    def usage(self) -> TokenUsage:
        """The tokens of all turns together; a turn of unknown usage adds nothing."""
        known = [turn.usage for turn in self.turns if turn.usage is not None]
        return TokenUsage(
            input_tokens=sum(usage.input_tokens for usage in known),
            output_tokens=sum(usage.output_tokens for usage in known),
            cached_tokens=sum(usage.cached_tokens for usage in known),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in known),
            cache_write_tokens=sum(usage.cache_write_tokens for usage in known),
        )

    @property
    def summary(self) -> SessionSummary:
        """What a list shows of it."""
        return SessionSummary(
            id=self.id,
            version=self.version,
            state=self.state,
            turns=len(self.turns),
            created_at=self.created_at,
            updated_at=self.updated_at,
            used_at=self.used_at,
        )
