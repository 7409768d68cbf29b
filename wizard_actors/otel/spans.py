"""Spans and metrics out of a client's events: one span a request, and below it one for each attempt.

    RequestBegan ──> open ──AttemptBegan──> open, n attempts ──RequestEnded──> ended
                                │    ▲
                                └────┘ AttemptEnded

A span is ended exactly once, by whoever takes it out of the books: the event that tells of its end, or, for an attempt,
that of its request's. What began before somebody listened has no span. Needs the extra `otel`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import trio
from attrs import define, field
from opentelemetry import context, metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from wizard_actors.config import WizardConfig
from wizard_actors.errors import CircuitOpenError, MailboxFullError
from wizard_actors.events import (
    AttemptBegan,
    AttemptEnded,
    BudgetExhausted,
    CacheLooked,
    Degraded,
    Event,
    FellBack,
    FirstToken,
    RequestBegan,
    RequestEnded,
    Retrying,
    Shed,
)
from wizard_actors.otel.conventions import (
    CHAT,
    DURATION,
    FIRST_CHUNK,
    OURSELVES,
    SECONDS,
    TOKENS,
    USAGE,
    Ask,
    Names,
    Upstream,
    number,
    reason,
    text,
    unknown,
    upstream_of,
)

__all__ = ["OPEN_AT_MOST", "OpenTelemetry"]

SCOPE: Final = "wizard_actors"
CANCELLED: Final = "cancelled"
FROM_CACHE: Final = frozenset({"cache", "stale"})

OPEN_AT_MOST: Final = 100_000
"""Requests whose spans are held: far beyond what a client has in flight. The oldest makes room."""

Facts = dict[str, str | int | float | bool | tuple[str, ...]]


@define
class _Attempt:
    span: Span
    first_token: float | None = None


@define
class _Request:
    """A request under way. `epoch`, in nanoseconds since 1970, is the beginning of Trio's clock; `inside` the context
    in which its attempts' spans begin; `said` what is said of its last failure.
    """

    span: Span
    inside: context.Context
    epoch: int
    attempts: dict[int, _Attempt] = field(factory=dict)
    said: str = ""

    def end(self, at: float | None) -> None:
        """End the request's span, and those of attempts whose end nobody has told; None: now."""
        when = None if at is None else _nanoseconds(self.epoch, at)
        for attempt in tuple(self.attempts.values()):  # who stops listening may do so in another thread
            attempt.span.set_attribute(Names.CANCELLED, True)
            attempt.span.end(when)
        self.span.end(when)


class OpenTelemetry:
    """A listener that makes spans and metrics of the events of one client: `client.events.listen(telemetry.hear)`.

    `config` returns the client's configuration in force: it says where a model's calls go. Without providers of their
    own, spans and metrics go to those that the program has set for the whole process; where it has set none, nowhere.
    A request's span has as its parent what is current where the request is made. No prompt and no answer is recorded,
    and of errors the code, the status and words of ours: only where `logging.log_content` is on, their own messages,
    which may quote them.
    """

    def __init__(
        self,
        config: Callable[[], WizardConfig],
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._config = config
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._duration = meter.create_histogram(
            DURATION, "s", "GenAI operation duration.", explicit_bucket_boundaries_advisory=SECONDS
        )
        self._first_chunk = meter.create_histogram(
            FIRST_CHUNK, "s", "Time to receive the first chunk.", explicit_bucket_boundaries_advisory=SECONDS
        )
        self._tokens = meter.create_histogram(
            USAGE,
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )
        self._open: dict[str, _Request] = {}
        self._closed = False
        self._known: WizardConfig | None = None
        self._upstreams: dict[str, Upstream] = {}

    @property
    def open_spans(self) -> int:
        """How many spans have begun and not ended."""
        return sum(1 + len(request.attempts) for request in tuple(self._open.values()))

    def hear(self, event: Event) -> None:
        """Take an event; those that it does not know are passed over."""
        match event:
            case RequestBegan():
                self._request_began(event)
            case Shed():
                self._shed(event)
            case AttemptBegan():
                self._attempt_began(event)
            case AttemptEnded():
                self._attempt_ended(event)
            case FirstToken():
                self._first_token(event)
            case RequestEnded():
                self._request_ended(event)
            case CacheLooked() | Retrying() | FellBack() | BudgetExhausted() | Degraded():
                self._note(event)

    def close(self) -> None:
        """End every span that is open, as it stands, for its end will not be heard. In any thread."""
        self._closed = True
        while self._open:
            self._open.popitem()[1].end(None)

    # -- requests

    def _request_began(self, event: RequestBegan) -> None:
        request = self._begin(event, event.route)
        request.span.set_attribute(Names.STRATEGY, text(event.strategy))
        former = self._open.pop(event.request_id, None)
        if former is not None:  # of another client that publishes here
            former.end(event.at)
        elif len(self._open) >= OPEN_AT_MOST:
            self._open.pop(next(iter(self._open))).end(event.at)
        self._open[event.request_id] = request
        if self._closed:  # meanwhile, in another thread
            self.close()

    def _shed(self, event: Shed) -> None:
        request = self._begin(event, event.route or "")
        _fail(request.span, MailboxFullError.code, "as many calls are in flight as server.max_in_flight allows")
        request.end(event.at)

    def _begin(self, event: RequestBegan | Shed, route: str) -> _Request:
        parent, epoch, name = context.get_current(), _epoch(event.at), text(route)
        asked: Facts = {Names.OPERATION: CHAT, Names.PROVIDER: OURSELVES, Names.REQUEST_ID: text(event.request_id)}
        if name:
            asked |= {Names.REQUEST_MODEL: name, Names.ROUTE: name}
        span = self._tracer.start_span(
            f"{CHAT} {name}".strip(),
            parent,
            SpanKind.INTERNAL,
            attributes=asked,
            start_time=_nanoseconds(epoch, event.at),
        )
        return _Request(span, trace.set_span_in_context(span, parent), epoch)

    def _request_ended(self, event: RequestEnded) -> None:
        request = self._open.pop(event.request_id, None)
        if request is None:
            return
        if request.span.is_recording():
            request.span.set_attributes(_end_of_request(event))
            if event.code not in {None, CANCELLED}:
                _fail(request.span, event.code or "", request.said or event.code or "")
        request.end(event.at)

    def _note(self, event: CacheLooked | Retrying | FellBack | BudgetExhausted | Degraded) -> None:
        """Write into a request's span what happened on its way."""
        request = self._open.get(event.request_id)
        if request is None or not request.span.is_recording():
            return
        name, facts = _noted(event)
        request.span.add_event(name, facts, _nanoseconds(request.epoch, event.at))

    # -- attempts

    def _attempt_began(self, event: AttemptBegan) -> None:
        request = self._open.get(event.request_id)
        if request is None:
            return
        upstream = self._upstream(event.model)
        span = self._tracer.start_span(
            upstream.span,
            request.inside,
            SpanKind.CLIENT,
            attributes={
                **upstream.ask,
                Names.MODEL: text(event.model),
                Names.ATTEMPT: number(event.number),
                Names.HEDGE: event.hedge,
            },
            start_time=_nanoseconds(request.epoch, event.at),
        )
        former = request.attempts.pop(event.number, None)
        if former is not None:
            former.span.end()
        request.attempts[event.number] = _Attempt(span)

    def _first_token(self, event: FirstToken) -> None:
        request = self._open.get(event.request_id)
        attempt = None if request is None else request.attempts.get(event.number)
        if request is not None and attempt is not None:
            attempt.first_token = event.after
            attempt.span.add_event(Names.HEARD_EVENT, timestamp=_nanoseconds(request.epoch, event.at))

    def _attempt_ended(self, event: AttemptEnded) -> None:
        request = self._open.get(event.request_id)
        attempt = None if request is None else request.attempts.pop(event.number, None)
        first_token = None if attempt is None else attempt.first_token
        self._measure(event, first_token)
        if request is None or attempt is None:
            return
        at, span, error = _nanoseconds(request.epoch, event.at), attempt.span, event.error
        if error is not None:
            request.said = text(str(error)) if self._config().logging.log_content else reason(error)
        if span.is_recording():
            span.set_attributes(_end_of_attempt(event, first_token))
            if isinstance(error, CircuitOpenError):
                span.add_event(Names.REFUSED_EVENT, timestamp=at)
            if error is not None:
                _fail(span, error.code, request.said)
        span.end(at)

    def _measure(self, event: AttemptEnded, first_token: float | None) -> None:
        """Record what an attempt took and used, whether or not it has a span."""
        if not event.sent:
            return
        labels: Ask = self._upstream(event.model).ask
        code = CANCELLED if event.cancelled else None if event.error is None else event.error.code
        self._duration.record(event.duration, labels if code is None else {**labels, Names.ERROR: code})
        if event.streamed and first_token is not None:
            self._first_chunk.record(first_token, labels)
        if event.input_tokens:
            self._tokens.record(number(event.input_tokens), {**labels, Names.USED_TYPE: "input"})
        if event.output_tokens:
            self._tokens.record(number(event.output_tokens), {**labels, Names.USED_TYPE: "output"})

    def _upstream(self, name: str) -> Upstream:
        """Return where the calls of a model go; after a reload, of one that is gone, where they went."""
        config = self._config()
        if config is not self._known:
            last = () if self._known is None else self._known.models
            self._upstreams = {model.name: upstream_of(model) for model in (*last, *config.models)}
            self._known = config
        return self._upstreams.get(name) or unknown(name)


def _end_of_request(event: RequestEnded) -> Facts:
    facts: Facts = {
        Names.ATTEMPTS: number(event.attempts),
        Names.UPSTREAM_CALLS: number(event.upstream_calls),
        Names.OVERHEAD: event.overhead,
        Names.INPUT: number(event.input_tokens),
        Names.OUTPUT: number(event.output_tokens),
        Names.CACHED: event.served_by in FROM_CACHE,
        Names.CANCELLED: event.code == CANCELLED,
    }
    if event.model:
        facts[Names.MODEL] = text(event.model)
    if event.served_by is not None:
        facts[Names.SERVED_BY] = text(event.served_by)
    if event.first_token is not None:
        facts[Names.HEARD] = event.first_token
    if event.cost is not None:
        facts[Names.COST] = float(event.cost)
    return facts


def _end_of_attempt(event: AttemptEnded, first_token: float | None) -> Facts:
    facts: Facts = {
        Names.SENT: event.sent,
        Names.DELAY: event.delay,
        Names.SLOT_WAIT: event.slot_wait,
        Names.RATE_WAIT: event.rate_wait,
        Names.CANCELLED: event.cancelled,
    }
    if event.sent:
        facts[Names.STREAM] = event.streamed
    if event.streamed and first_token is not None:
        facts[Names.TIME_TO_FIRST_CHUNK] = first_token
    if event.input_tokens or event.output_tokens:
        facts[Names.USED_INPUT] = number(event.input_tokens)
        facts[Names.USED_OUTPUT] = number(event.output_tokens)
    if event.upstream_model:
        facts[Names.RESPONSE_MODEL] = text(event.upstream_model)
    if event.finish_reason is not None:
        facts[Names.FINISH_REASONS] = (text(event.finish_reason),)
    if event.cost is not None:
        facts[Names.COST] = float(event.cost)
    return facts


def _noted(
    event: CacheLooked | Retrying | FellBack | BudgetExhausted | Degraded,
) -> tuple[str, Mapping[str, str | float]]:
    match event:
        case CacheLooked():
            return Names.CACHE_EVENT, {Names.OUTCOME: event.outcome}
        case Retrying():
            return Names.RETRY_EVENT, {Names.MODEL: text(event.model), Names.DELAY: event.delay}
        case FellBack():
            failed, model = text(event.failed), text(event.model)
            facts = {Names.FAILED_MODEL: failed, Names.MODEL: model, Names.ERROR: event.error.code}
            return Names.FALLBACK_EVENT, facts
        case BudgetExhausted():
            return Names.BUDGET_EVENT, {Names.MODEL: text(event.model)}
        case Degraded():
            return Names.DEGRADED_EVENT, {Names.OUTCOME: event.to, Names.ERROR: event.error.code}


def _fail(span: Span, code: str, said: str) -> None:
    span.set_attribute(Names.ERROR, code)
    span.set_status(Status(StatusCode.ERROR, said))


def _epoch(at: float) -> int:
    """Return when Trio's clock began, in nanoseconds since 1970, as both clocks tell now.

    Asked anew for each request: the computer's clock may be set meanwhile. Outside of Trio it is taken to be `at` now.
    """
    try:
        now = trio.current_time()
    except RuntimeError:
        now = at
    return _nanoseconds(time.time_ns(), -now)


def _nanoseconds(epoch: int, at: float) -> int:
    return epoch + round(at * 1e9)
