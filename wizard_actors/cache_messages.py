"""What requests and the response cache say to each other, and answers as the cache gives them.

The cache only answers questions; the call, and the flight that it may share, stay in the callers' tasks. A request that
uses it asks within a short time of its own, and goes on as if there were none where that fails:

    try:
        found = await cache.ask(Lookup(key), deadline=min(deadline, trio.current_time() + PATIENCE))
    except BYPASS:      # crashed, down, full or late; only the caller's own deadline is an error
        ...
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, TypeAlias

import attrs
from attrs import evolve, field, frozen

from wizard_actors.actor import Ask
from wizard_actors.cache_key import Key
from wizard_actors.errors import ActorError, DeadlineExceededError, MailboxFullError
from wizard_actors.flight import Flight
from wizard_actors.types import FinishReason, ServedBy, WizardResponse

__all__ = [
    "BYPASS",
    "PATIENCE",
    "Follow",
    "Hit",
    "Invalidate",
    "Landed",
    "Lead",
    "Look",
    "Lookup",
    "Miss",
    "SharedCall",
    "Store",
    "cacheable",
    "served",
]

SharedCall: TypeAlias = "Flight[WizardResponse]"

BYPASS: Final = (ActorError, MailboxFullError, DeadlineExceededError)
"""What a request that asks the cache goes on without it for: it is crashed, DOWN or stopped, full, or late."""

PATIENCE: Final = 1.0
"""Seconds that a request gives the cache to answer, before it goes on without it."""

LONGEST_GLOB: Final = 200


def cacheable(response: WizardResponse) -> bool:
    """Say whether an answer may be stored: a model's own, complete, and not one that came from here."""
    complete = response.finish_reason in {FinishReason.STOP, FinishReason.TOOL_CALLS, FinishReason.LENGTH}
    own = response.served_by in {ServedBy.DIRECT, ServedBy.RETRY, ServedBy.FALLBACK}
    return complete and own and not response.cached and not response.stale


def served(response: WizardResponse, request_id: str, *, stale: bool = False) -> WizardResponse:
    """Return a stored or shared answer of a model as the answer of another request: marked, at no cost, and without
    attempts. `stale` marks one that stands in for an answer that no model gave.
    """
    return evolve(
        response,
        attempts=(),
        cost=Decimal(0),
        served_by=ServedBy.STALE if stale else ServedBy.CACHE,
        cached=True,
        stale=stale,
        request_id=request_id,
    )


@frozen
class Hit:
    """A fresh answer, stored `age` seconds ago. See `served`."""

    response: WizardResponse
    age: float


@frozen
class Miss:
    """Nothing fresh, or fresh and not wanted. `stale` may stand in where every model fails."""

    stale: WizardResponse | None = None


@frozen
class Lead:
    """As a `Miss`, and no call is under way that has room: the caller makes one, and ends `flight`."""

    flight: SharedCall
    stale: WizardResponse | None = None


@frozen
class Follow:
    """As a `Miss`, and somebody asks already: a seat in `flight` is kept for the caller."""

    flight: SharedCall
    stale: WizardResponse | None = None


@frozen
class Lookup(Ask[Hit | Lead | Follow]):
    """Ask for an answer, or how to come by one. With `fresh_only` what is stored is no hit: the answer comes from a
    model, by a call of one's own or one that is under way.

    Stored answers are told apart by `key`, flights by `flight_key`: None where every call for `key` may be shared, else
    the key of what else has to be equal, `key` included. From the answer to the `try` whose `finally` ends the flight,
    or to `follow`, nothing may be awaited.
    """

    key: Key
    fresh_only: bool = False
    flight_key: Key | None = None


@frozen
class Look(Ask[Hit | Miss]):
    """Ask for an answer, without leading or following: for streams, and for a follower who has come to lead.

    With `fresh_only` what is stored is no hit: it comes with the miss where old answers may stand in.
    """

    key: Key
    fresh_only: bool = False


@frozen
class Invalidate(Ask[int]):
    """Drop every stored answer whose model's name and whose prompt's text match; answered with how many did.

    Globs (`*`, `?`, `[a-z]`, `[!a-z]`) match the whole name or text, upper and lower case apart, and have at most 200
    characters, else `ValueError`. A call under way is left alone: its answer is stored when it lands. Answered with
    `MailboxFullError` while 16 others are worked on; where the caller leaves, some of the answers have been dropped.
    """

    model_glob: str = field(default="*")
    text_glob: str = field(default="*")

    @model_glob.validator
    @text_glob.validator
    def _short(self, attribute: attrs.Attribute[str], value: str) -> None:
        if len(value) > LONGEST_GLOB:
            raise ValueError(f"{attribute.name} has {len(value)} characters; at most {LONGEST_GLOB} are taken")


@frozen
class Landed:
    """Tell that the caller has ended, or handed over, a flight; `flight_key` is that of the `Lookup`, or its `key`."""

    flight_key: Key
    flight: SharedCall


@frozen
class Store:
    """Tell the answer to keep under `key`; `model` and `text`, the prompt's, are what globs are matched against."""

    key: Key
    response: WizardResponse
    model: str
    text: str
