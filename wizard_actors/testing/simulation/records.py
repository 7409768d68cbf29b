"""The facts of a simulation, one by one: requests and their attempts, calls to models, changes of circuits, and how
everything stood at an instant. All times are seconds from the scenario's beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, TypeAlias

from attrs import frozen

from wizard_actors.types import TokenUsage

__all__ = [
    "AttemptRecord",
    "CallEnd",
    "CallRecord",
    "CircuitChange",
    "ModelSample",
    "ReaderKind",
    "RequestKind",
    "RequestRecord",
    "Sample",
    "Spent",
    "Violation",
]

RequestKind: TypeAlias = Literal["generate", "stream", "buffered", "session"]
ReaderKind: TypeAlias = Literal["eager", "slow", "stopped"]
CallEnd: TypeAlias = Literal["complete", "refused", "broken", "left"]
"""How a model's call ended: its last word was said; an error status, or no connection; the connection broke, or the
body ended too early or made no sense; its caller left before any of these."""


@frozen
class AttemptRecord:
    """One attempt of a request at a model. `error` is its error's code, None where it answered or was cancelled;
    `retry_after` for how many seconds the model wants to be left alone, as that error says.
    """

    number: int
    model: str
    began: float
    ended: float
    sent: bool
    hedge: bool
    cancelled: bool
    error: str | None
    duration: float
    delay: float
    slot_wait: float
    rate_wait: float
    cost: Decimal | None
    retry_after: float | None = None


@frozen
class RequestRecord:
    """One request, as its caller saw it, and what was reported of it.

    `number` counts requests in the order of their arrival. `outcomes` is what its caller got: exactly one of
    "answered", an error's code, "left" (a reader who stopped) or "cancelled". `code` is what was reported:
    None for an answer; `ends` how often its end was reported, `began_reports` how often its beginning was. `model` and
    `served_by` are those of an answer; `answer` is the number of the call whose whole answer it was, None where it was
    no call's whole answer; `delivered` is the same of what its caller has read, piece by piece where it was a stream.
    `prompt` is the number of its prompt, `prompt_words` how long that was, and
    `estimated_tokens` what the client takes it for, without the history of its session. `cache` is what the look into
    the cache came to, None where there was none; `fallbacks` counts the models that it moved on to. `bug` is the last
    line of an error that is none of the client's own, whose name is then its outcome ("bug:KeyError"). `cost` is what
    was reported; `told_cost`, `told_usage` and `finish_reason` are what the answer itself tells its caller, and `cut`
    says that its text ends where it had as many tokens as were wanted.
    """

    number: int
    kind: RequestKind
    prompt: int
    prompt_words: int
    tenant: str
    session: str | None
    deadline: float | None
    arrived: float
    ended: float
    outcomes: tuple[str, ...]
    request_id: str | None = None
    code: str | None = None
    began_reports: int = 0
    ends: int = 0
    model: str | None = None
    served_by: str | None = None
    answer: int | None = None
    first_token: float | None = None
    overhead: float = 0.0
    cost: Decimal | None = None
    attempts: tuple[AttemptRecord, ...] = ()
    reader: ReaderKind = "eager"
    estimated_tokens: int = 0
    cache: str | None = None
    fallbacks: int = 0
    delivered: int | None = None
    bug: str | None = None
    told_cost: Decimal | None = None
    told_usage: TokenUsage | None = None
    finish_reason: str | None = None
    cut: bool = False

    @property
    def outcome(self) -> str:
        """What its caller got; "nothing" where it got none."""
        return self.outcomes[0] if self.outcomes else "nothing"

    @property
    def seconds(self) -> float:
        """How long its caller waited."""
        return self.ended - self.arrived


@frozen
class CallRecord:
    """One call that reached a model, as the model saw it.

    `began`, `heard` (its first word was read), `over` (its last word was, or nobody listened any more) and `closed` are
    instants, None where it never came to that; `steps` are the places of the same four among all such steps of the run,
    which tell what came first where instants are equal. `circuit` and `generation` are what the model's breaker showed
    as it began. `prompts` are the numbers of the prompts in the bytes that were sent, the last of them `prompt` (-1:
    none). `asked_tokens` is how long all that was, `billed` what it has cost in all. `fault` is the kind of the fault
    that it met, None: none.
    """

    number: int
    model: str
    request_id: str
    prompt: int
    tenant: str
    began: float
    heard: float | None
    over: float | None
    closed: float | None
    steps: tuple[int, int | None, int | None, int | None]
    circuit: str
    generation: int
    fault: str | None
    status: int | None
    end: CallEnd
    asked_tokens: int
    billed: int
    prompts: tuple[int, ...] = ()


@frozen
class CircuitChange:
    """A model's circuit changed, to "closed", "open" or "half_open"."""

    at: float
    model: str
    circuit: str


@frozen
class Spent:
    """The retry budget paid for a retry or a `hedge` of a request, or, not `paid`, had nothing left for it."""

    at: float
    request_id: str
    model: str
    hedge: bool
    paid: bool


@frozen
class ModelSample:
    """How a model's actors stood: `waiting` in the worker's queue, `limiter_waiting` in the limiter's, paused for
    `paused_for` seconds.
    """

    circuit: str
    slots_in_use: int
    waiting: int
    limiter_waiting: int
    paused_for: float


@frozen
class Sample:
    """How the client stood at an instant; `budget` is what was left for retries, in retries."""

    at: float
    in_flight: int
    budget: float
    models: Mapping[str, ModelSample]


@frozen
class Violation:
    """An invariant that did not hold: its name, and what was seen, in a sentence that names requests and calls."""

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"
