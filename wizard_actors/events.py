"""What happens, as it happens: frozen events, which `wizard_actors.event_stream` brings to logs, metrics and the demo.

A request publishes `RequestBegan`, for each attempt `AttemptBegan` and `AttemptEnded` with a `FirstToken` between them,
what its caller's route does after a failure (`BudgetSpent`, `BudgetExhausted`, `Retrying`, `FellBack`), and in the end
`RequestEnded`. A request that is shed publishes `Shed` and nothing else. A turn of a session ends with `SessionTurn`,
after the request that it made.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Literal

from attrs import field, fields, frozen, has

from wizard_actors.errors import WizardError
from wizard_actors.failure import Shown

__all__ = [
    "AttemptBegan",
    "AttemptEnded",
    "BreakerChanged",
    "BudgetExhausted",
    "BudgetSpent",
    "CacheLooked",
    "CacheOutcome",
    "Degraded",
    "DegradedTo",
    "Event",
    "FellBack",
    "FirstToken",
    "RequestBegan",
    "RequestEnded",
    "Retrying",
    "SessionTurn",
    "Shed",
    "TurnOutcome",
    "event_types",
    "plain",
    "type_of",
]

log = logging.getLogger("wizard_actors.events")

CacheOutcome = Literal["hit", "lead", "follow", "miss", "bypass"]
"""What a look into the cache came to."""

DegradedTo = Literal["stale", "static"]
"""What stood in for an answer: one whose time in the cache had passed, or the configured text."""

TurnOutcome = Literal["stored", "failed", "cancelled", "unsaved"]
"""What a turn of a session came to; "unsaved": the answer came, and could not be stored."""

WITHHELD = frozenset({"attempts", "partial"})
"""What an event does not repeat of an error: other attempts have events of their own, and no event shows an answer."""


def plain(value: object) -> object:
    """Return `value` in JSON's types: a Decimal as text, an infinite number as None, an attrs class as an object."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _plain_whole(value)


def _plain_whole(value: object) -> object:
    kind = type(value)
    if isinstance(value, WizardError):
        return {key: plain(fact) for key, fact in value.to_dict().items() if key not in WITHHELD}
    if isinstance(value, Shown):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if has(kind):
        return {attribute.name: plain(getattr(value, attribute.name)) for attribute in fields(kind)}
    return str(value)


@frozen
class Event:
    """Base of all events; `at` is the instant on Trio's clock."""

    at: float

    def to_dict(self) -> dict[str, object]:
        """Return `{type, at, <facts>}` in JSON's types, where `type` is the class's name in snake case.

        An error is shown without the attempts and the partial answer that it carries.
        """
        return {"type": type_of(type(self))} | {
            fact.name: plain(getattr(self, fact.name)) for fact in fields(type(self))
        }


def type_of(kind: type[Event]) -> str:
    """Return what events of a class are called in JSON: its name in snake case."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def event_types() -> frozenset[str]:
    """Return what all events are called in JSON."""
    kinds, found = [Event], set[str]()
    while kinds:
        below = kinds.pop().__subclasses__()
        found.update(map(type_of, below))
        kinds += below
    return frozenset(found)


# -- a request ---------------------------------------------------------------------------------------


@frozen
class RequestBegan(Event):
    """A request was let in; `strategy` is how its `route` is gone."""

    request_id: str
    route: str
    strategy: str


@frozen
class Shed(Event):
    """A request was refused because `max_in_flight` others were under way. It neither begins nor ends."""

    request_id: str
    route: str | None = field(default=None, kw_only=True)


@frozen
class CacheLooked(Event):
    """The cache was asked for the request's answer, or was not: "bypass"."""

    request_id: str
    outcome: CacheOutcome


@frozen
class Degraded(Event):
    """Every model failed, the last or foremost with `error`, and something else stood in for the answer."""

    request_id: str
    to: DegradedTo
    error: WizardError


@frozen
class RequestEnded(Event):
    """A request ended: answered by `model`, or failed with the error `code` ("cancelled" where its caller left).

    `seconds` is the whole time, from the ask to the end, and `overhead` the part of it in which neither a model was
    being asked nor a delay waited out. `first_token` is in seconds from the ask, None where no content came. `attempts`
    counts all, `upstream_calls` those that were sent. Tokens are the answer's, also of one from the cache; `cost`, in
    US dollars, is that of all attempts together, as far as it is known; None where nothing is. `refused`: every model
    failed for the request's own fault, which `code` does not tell.
    """

    request_id: str
    route: str
    model: str | None
    code: str | None
    attempts: int
    seconds: float
    served_by: str | None = field(default=None, kw_only=True)
    overhead: float = field(default=0.0, kw_only=True)
    first_token: float | None = field(default=None, kw_only=True)
    input_tokens: int = field(default=0, kw_only=True)
    output_tokens: int = field(default=0, kw_only=True)
    cost: Decimal | None = field(default=None, kw_only=True)
    upstream_calls: int = field(default=0, kw_only=True)
    refused: bool = field(default=False, kw_only=True)


# -- an attempt --------------------------------------------------------------------------------------


@frozen
class AttemptBegan(Event):
    """An attempt at `model` begins: the first, or a further one, of the request; a `hedge` beside one under way."""

    request_id: str
    model: str
    number: int
    hedge: bool = field(default=False, kw_only=True)


@frozen
class FirstToken(Event):
    """The first content of an attempt's answer arrived, `after` seconds from the send."""

    request_id: str
    model: str
    number: int
    after: float


@frozen
class AttemptEnded(Event):
    """An attempt ended; `error` is None where the model answered, `sent` False where nothing reached it.

    `cancelled`: its caller left, or another attempt was faster. `duration` is in seconds from the send to the end, 0.0
    where nothing was sent; `delay` what was waited for before the attempt, `slot_wait` and `rate_wait` in the queues of
    the bulkhead and of the limiter. `cost` is in US dollars, None where unknown. `upstream_model` is what the provider
    says that it is, None where it does not, `finish_reason` why its answer ended, None where that is not whole;
    `streamed`: it was asked for in pieces.
    """

    request_id: str
    model: str
    number: int
    sent: bool
    error: WizardError | None
    hedge: bool = field(default=False, kw_only=True)
    cancelled: bool = field(default=False, kw_only=True)
    duration: float = field(default=0.0, kw_only=True)
    delay: float = field(default=0.0, kw_only=True)
    slot_wait: float = field(default=0.0, kw_only=True)
    rate_wait: float = field(default=0.0, kw_only=True)
    input_tokens: int = field(default=0, kw_only=True)
    output_tokens: int = field(default=0, kw_only=True)
    cost: Decimal | None = field(default=None, kw_only=True)
    upstream_model: str | None = field(default=None, kw_only=True)
    finish_reason: str | None = field(default=None, kw_only=True)
    streamed: bool = field(default=False, kw_only=True)


@frozen
class Retrying(Event):
    """The same model is asked again after `delay` seconds; its rate limiter may add to that."""

    request_id: str
    model: str
    delay: float


@frozen
class FellBack(Event):
    """The request moves on to the next model of its route, because of `error`."""

    request_id: str
    failed: str
    model: str
    error: WizardError


@frozen
class BudgetSpent(Event):
    """The retry budget paid for a retry, or a `hedge`, at `model`."""

    request_id: str
    model: str
    hedge: bool


@frozen
class BudgetExhausted(Event):
    """The retry budget had nothing left for a retry, or a `hedge`, at `model`: there is none."""

    request_id: str
    model: str
    hedge: bool


# -- a session ---------------------------------------------------------------------------------------


@frozen
class SessionTurn(Event):
    """A turn of `session` ended; `request_id` is that of the request it made.

    `left_out` is how many of the session's turns the model was not shown, for want of room, and `turns` how many the
    session has now.
    """

    session: str
    request_id: str
    outcome: TurnOutcome
    left_out: int
    turns: int


# -- a model -----------------------------------------------------------------------------------------


@frozen
class BreakerChanged(Event):
    """The circuit of `model` changed to "closed", "open" or "half_open".

    `retry_at` is the instant of the first probe where it opened.
    """

    model: str
    circuit: str
    retry_at: float
