"""What a simulation writes down while it runs: from the client's events, its callers, and the models."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from decimal import Decimal
from threading import RLock
from typing import Final

from attrs import define, field

from wizard_actors.breaker_core import BreakerState
from wizard_actors.errors import ProviderError
from wizard_actors.estimate import estimate_input
from wizard_actors.events import (
    AttemptBegan,
    AttemptEnded,
    BreakerChanged,
    BudgetExhausted,
    BudgetSpent,
    CacheLooked,
    Event,
    FellBack,
    RequestBegan,
    RequestEnded,
)
from wizard_actors.metrics import Gauges
from wizard_actors.testing.simulation.records import (
    AttemptRecord,
    CallEnd,
    CallRecord,
    CircuitChange,
    ModelSample,
    RequestRecord,
    Sample,
    Spent,
)
from wizard_actors.testing.simulation.workload import Asked
from wizard_actors.types import Prompt, TokenUsage

__all__ = ["ASKING", "Call", "Recorder", "Request"]

ASKING: Final[ContextVar[Request]] = ContextVar("wizard_actors_simulated_request")
"""The request that a caller's task is making: the client does all for it in that task, or in children of it."""


@define(eq=False)
class Request:
    """One request while it runs."""

    asked: Asked
    arrived: float
    ended: float = 0.0
    outcomes: list[str] = field(factory=list)
    request_id: str | None = None
    began_reports: int = 0
    end: RequestEnded | None = None
    ends: int = 0
    model: str | None = None
    served_by: str | None = None
    answer: int | None = None
    cache: str | None = None
    fallbacks: int = 0
    delivered: int | None = None
    bug: str | None = None
    told_cost: Decimal | None = None
    told_usage: TokenUsage | None = None
    finish_reason: str | None = None
    cut: bool = False
    begun: dict[int, float] = field(factory=dict)
    attempts: list[AttemptRecord] = field(factory=list)

    def record(self) -> RequestRecord:
        """Return what has come of it."""
        asked, end = self.asked, self.end
        return RequestRecord(
            number=asked.number,
            kind=asked.kind,
            prompt=asked.prompt,
            prompt_words=asked.words,
            tenant=asked.tenant,
            session=asked.session,
            deadline=asked.deadline,
            arrived=self.arrived,
            ended=self.ended,
            outcomes=tuple(self.outcomes),
            request_id=self.request_id,
            code=None if end is None else end.code,
            began_reports=self.began_reports,
            ends=self.ends,
            model=self.model,
            served_by=self.served_by,
            answer=self.answer,
            first_token=None if end is None else end.first_token,
            overhead=0.0 if end is None else end.overhead,
            cost=None if end is None else end.cost,
            attempts=tuple(self.attempts),
            reader=asked.reader,
            estimated_tokens=estimate_input(Prompt(asked.text)),
            cache=self.cache,
            fallbacks=self.fallbacks,
            delivered=self.delivered,
            bug=self.bug,
            told_cost=self.told_cost,
            told_usage=self.told_usage,
            finish_reason=self.finish_reason,
            cut=self.cut,
        )


@define(eq=False)
class Call:
    """One call to a model while it runs."""

    number: int
    model: str
    request_id: str
    request: Request | None
    began: float
    began_step: int
    breaker: BreakerState | None
    asked_tokens: int
    prompts: tuple[int, ...] = ()
    fault: str | None = None
    status: int | None = None
    complete: bool = False
    end: CallEnd | None = None
    billed: int = 0
    heard: tuple[float, int] | None = None
    over: tuple[float, int] | None = None
    closed: tuple[float, int] | None = None

    def record(self) -> CallRecord:
        """Return what has come of it."""
        state = self.breaker or BreakerState()
        heard, over, closed = (moment or (None, None) for moment in (self.heard, self.over, self.closed))
        return CallRecord(
            number=self.number,
            model=self.model,
            request_id=self.request_id,
            prompt=self.prompts[-1] if self.prompts else -1,
            tenant="" if self.request is None else self.request.asked.tenant,
            began=self.began,
            heard=heard[0],
            over=over[0],
            closed=closed[0],
            steps=(self.began_step, heard[1], over[1], closed[1]),
            circuit=state.circuit.value,
            generation=state.generation,
            fault=self.fault,
            status=self.status,
            end=self.end or "left",
            asked_tokens=self.asked_tokens,
            billed=self.billed,
            prompts=self.prompts,
        )


class Recorder:
    """Writes down; `clock` tells the seconds since the scenario's beginning."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._step = 0
        self._numbering = RLock()
        """Several clients, each in a thread of its own, may have one recorder."""
        self.requests: list[Request] = []
        self.calls: list[Call] = []
        self.circuits: list[CircuitChange] = []
        self.spent: list[Spent] = []
        self.samples: list[Sample] = []
        self.lanes: dict[str, tuple[int, int]] = {}
        self._by_id: dict[str, Request] = {}

    def now(self) -> float:
        """Return the seconds since the scenario's beginning."""
        return self._clock()

    def moment(self) -> tuple[float, int]:
        """Return the present instant, and the number of this step among all that are written down."""
        with self._numbering:
            self._step += 1
            return self._clock(), self._step

    # -- callers and models ------------------------------------------------------------------------------------------

    def ask(self, asked: Asked) -> Request:
        """Begin a request, for the caller whose task this is."""
        request = Request(asked, self._clock())
        self.requests.append(request)
        ASKING.set(request)
        return request

    def call(
        self,
        model: str,
        request_id: str,
        breaker: BreakerState | None,
        asked_tokens: int,
        prompts: tuple[int, ...] = (),
    ) -> Call:
        """Begin a call to a model; `prompts` are the numbers of those that were sent."""
        request = self._by_id.get(request_id)
        with self._numbering:
            at, step = self.moment()
            call = Call(len(self.calls), model, request_id, request, at, step, breaker, asked_tokens, prompts)
            self.calls.append(call)
        return call

    # -- the client's events -----------------------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """Take in an event; its instants are on Trio's clock."""
        match event:
            case RequestBegan():
                self._began_request(event)
            case AttemptBegan() if event.request_id in self._by_id:
                self._by_id[event.request_id].begun[event.number] = self._clock()
            case AttemptEnded() if event.request_id in self._by_id:
                self._ended_attempt(self._by_id[event.request_id], event)
            case RequestEnded() if event.request_id in self._by_id:
                request = self._by_id[event.request_id]
                request.end, request.ends = event, request.ends + 1
            case CacheLooked() if event.request_id in self._by_id:
                self._by_id[event.request_id].cache = event.outcome
            case FellBack() if event.request_id in self._by_id:
                self._by_id[event.request_id].fallbacks += 1
            case BreakerChanged():
                self.circuits.append(CircuitChange(self._clock(), event.model, event.circuit))
            case BudgetSpent() | BudgetExhausted():
                paid = isinstance(event, BudgetSpent)
                self.spent.append(Spent(self._clock(), event.request_id, event.model, event.hedge, paid))
            case _:
                pass

    def _began_request(self, event: RequestBegan) -> None:
        request = ASKING.get(None)
        if request is not None:
            request.request_id = event.request_id
            request.began_reports += 1
            self._by_id[event.request_id] = request

    def _ended_attempt(self, request: Request, event: AttemptEnded) -> None:
        ended = self._clock()
        cost: Decimal | None = event.cost
        wanted = event.error.retry_after if isinstance(event.error, ProviderError) else None
        request.attempts.append(
            AttemptRecord(
                number=event.number,
                model=event.model,
                began=request.begun.get(event.number, ended),
                ended=ended,
                sent=event.sent,
                hedge=event.hedge,
                cancelled=event.cancelled,
                error=None if event.error is None else event.error.code,
                duration=event.duration,
                delay=event.delay,
                slot_wait=event.slot_wait,
                rate_wait=event.rate_wait,
                cost=cost,
                retry_after=wanted,
            )
        )

    def look(self, gauges: Gauges) -> None:
        """Take in how everything stands."""
        models = {
            name: ModelSample(
                circuit=model.circuit,
                slots_in_use=model.slots_in_use,
                waiting=model.waiting,
                limiter_waiting=model.limiter_waiting,
                paused_for=model.paused_for,
            )
            for name, model in gauges.models.items()
        }
        self.samples.append(Sample(self._clock(), gauges.in_flight, gauges.budget, models))
        for path, lane in gauges.lanes.items():
            deepest = max(lane.depth, self.lanes.get(path, (0, 0))[0])
            self.lanes[path] = (deepest, lane.bound)
