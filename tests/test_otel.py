"""Spans and metrics: one span a request and one an attempt, each ended once, with the conventions' names."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Any

import pytest
import trio
from attrs import fields
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, server_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.trace import SpanKind
from trio.testing import MockClock

from tests.models import NO_JITTER, SILENT, USAGE, Scripted, client_of, cut, fails, model, says
from tests.otel_recorded import Recorded, children, facts, failed, happened, seconds
from wizard_actors import ModelConfig, ResilientClient, WizardConfig, WizardError
from wizard_actors.config import (
    BreakerConfig,
    CacheConfig,
    LoggingConfig,
    PriceConfig,
    RetryConfig,
    RouteConfig,
    ServerConfig,
    StreamConfig,
    TelemetryConfig,
)
from wizard_actors.errors import (
    MailboxFullError,
    NetworkError,
    OverloadedError,
    ProviderTimeoutError,
    RateLimitError,
    RequestError,
    SerializationError,
    StorageError,
)
from wizard_actors.event_stream import EventStream
from wizard_actors.events import AttemptBegan, AttemptEnded, Event, FirstToken, RequestBegan, RequestEnded
from wizard_actors.otel import spans, trace
from wizard_actors.otel.conventions import (
    DURATION,
    FIRST_CHUNK,
    MOST_TEXT,
    REASONS,
    SECONDS,
    TOKENS,
    Names,
    reason,
    upstream_of,
)
from wizard_actors.otel.conventions import (
    USAGE as TOKEN_USAGE,
)
from wizard_actors.otel.spans import OpenTelemetry
from wizard_actors.testing.sink import SinkContract

ANSWER = says(0.5, "Hello ", 1.0, "there", USAGE)
PRICE = PriceConfig(input=Decimal(1), output=Decimal(2))
BUSY = OverloadedError("busy, busy", model="a", status=503)


@pytest.fixture
def recorded() -> Recorded:
    """Spans and measurements in memory."""
    return Recorded()


# -- what is recorded --------------------------------------------------------------------------------------------------


async def test_a_request_is_a_span_with_one_below_it_for_its_attempt(
    recorded: Recorded, autojump_clock: MockClock
) -> None:
    """Both say what they are in the conventions' words, and last as long as Trio's clock says."""
    async with client_of(Scripted(ANSWER), model("a", price=PRICE)) as client:
        recorded.of(client)
        response = await client.generate("Why?")

    (request,), (attempt,) = recorded.requests, recorded.attempts
    assert (request.name, request.kind) == ("chat wizard", SpanKind.INTERNAL)
    assert (attempt.name, attempt.kind) == ("chat a", SpanKind.CLIENT)
    assert children(recorded.spans, request) == [attempt]
    assert not failed(request)
    assert not failed(attempt)
    assert [seconds(request), seconds(attempt)] == pytest.approx([1.5, 1.5])
    assert facts(request) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "wizard",
        "gen_ai.request.model": "wizard",
        "wizard.request_id": response.request_id,
        "wizard.route": "wizard",
        "wizard.strategy": "sequential",
        "wizard.served_by": "direct",
        "wizard.cached": False,
        "wizard.cancelled": False,
        "wizard.model": "a",
        "wizard.attempts": 1,
        "wizard.upstream_calls": 1,
        "wizard.overhead": 0.0,
        "wizard.first_token": 0.5,
        "wizard.input_tokens": 10,
        "wizard.output_tokens": 5,
        "wizard.cost": 0.00002,
    }
    assert facts(attempt) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "simulated",
        "gen_ai.request.model": "a",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "upstream",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.5,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "wizard.model": "a",
        "wizard.attempt": 1,
        "wizard.hedge": False,
        "wizard.sent": True,
        "wizard.cancelled": False,
        "wizard.delay": 0.0,
        "wizard.slot_wait": 0.0,
        "wizard.rate_wait": 0.0,
        "wizard.cost": 0.00002,
    }
    assert happened(attempt) == [("wizard.first_token", {})]


async def test_what_a_provider_says_of_itself_is_the_responses_model(
    recorded: Recorded, autojump_clock: MockClock
) -> None:
    """The name that was asked for is the configuration's, the one that answered the provider's."""
    config = WizardConfig.from_toml('[[models]]\nname = "a"\nmodel = "large-1"\nprovider = "simulated"\n', env={})
    async with ResilientClient.open(config) as client:
        recorded.of(client)
        response = await client.generate("Why?")

    (attempt,) = recorded.attempts
    assert attempt.name == "chat large-1"
    assert facts(attempt)["gen_ai.request.model"] == "large-1"
    assert facts(attempt).get("gen_ai.response.model") == response.upstream_model
    assert response.upstream_model is not None


async def test_retries_and_fallbacks_are_events_of_the_request(recorded: Recorded, autojump_clock: MockClock) -> None:
    """Each failed attempt is an error with its code and reason; the request that was answered is none."""
    models = [model("a", retry=NO_JITTER), model("b")]
    a, b = Scripted(fails(BUSY), fails(BUSY), fails(BUSY)), Scripted(ANSWER)
    async with client_of({"a": a, "b": b}, *models) as client:
        recorded.of(client)
        await client.generate("Why?")

    (request,), attempts = recorded.requests, recorded.attempts
    assert [span.name for span in attempts] == [*["chat a"] * (len(attempts) - 1), "chat b"]
    assert [failed(span) for span in attempts] == [*[True] * (len(attempts) - 1), False]
    assert all(facts(span)["error.type"] == "overloaded" for span in attempts[:-1])
    assert attempts[0].status.description == "the provider is overloaded or unavailable (HTTP 503)"
    names = [name for name, _ in happened(request)]
    assert names == [*["wizard.retry"] * (len(attempts) - 2), "wizard.fallback"]
    assert happened(request)[-1][1] == {
        "wizard.failed_model": "a",
        "wizard.model": "b",
        "error.type": "overloaded",
    }
    assert not failed(request)
    assert facts(request)["wizard.served_by"] == "fallback"
    assert children(recorded.spans, request) != []


async def test_a_request_that_fails_is_an_error_with_its_own_code(
    recorded: Recorded, autojump_clock: MockClock
) -> None:
    """It is described as the last failure is."""
    async with client_of(Scripted(fails(NetworkError("the line is dead", model="a")))) as client:
        recorded.of(client)
        with pytest.raises(WizardError) as raised:
            await client.generate("Why?")

    (request,) = recorded.requests
    assert failed(request)
    assert facts(request)["error.type"] == raised.value.code
    assert request.status.description == "the connection failed"
    assert "wizard.model" not in facts(request)


async def test_an_open_circuit_is_told_of_in_the_attempt_that_it_refused(
    recorded: Recorded, autojump_clock: MockClock
) -> None:
    """Nothing was sent, and nothing is measured."""
    never = BreakerConfig(failure_threshold=1, open_for=1000.0)
    async with client_of(Scripted(fails(BUSY)), model("a", breaker=never, retry=NO_JITTER)) as client:
        for _ in range(3):
            with pytest.raises(WizardError):
                await client.generate("Why?")
        recorded.of(client)
        with pytest.raises(WizardError):
            await client.generate("Why?")

    (attempt,) = recorded.attempts
    assert facts(attempt)["error.type"] == "circuit_open"
    assert facts(attempt)["wizard.sent"] is False
    assert happened(attempt) == [("wizard.circuit_open", {})]
    assert recorded.points(DURATION) == []


async def test_the_loser_of_a_race_is_ended_as_cancelled(recorded: Recorded, autojump_clock: MockClock) -> None:
    """It is no error, and its span ends where the race does, not with the answer."""
    slow, quick = Scripted(SILENT), Scripted(says(0.1, "Hello ", 5.0, "there", USAGE))
    route = RouteConfig(name="wizard", strategy="hedged", hedge_delay=1.0)
    async with client_of({"a": slow, "b": quick}, route=route) as client:
        recorded.of(client)
        async with client.stream("Why?") as stream:
            assert [text async for text in stream.text()] == ["Hello ", "there"]

    (request,), (loser, winner) = recorded.requests, recorded.attempts
    assert (facts(loser)["wizard.cancelled"], facts(loser)["wizard.hedge"]) == (True, False)
    assert (facts(winner)["wizard.cancelled"], facts(winner)["wizard.hedge"]) == (False, True)
    assert not failed(loser)
    assert "error.type" not in facts(loser)
    assert [seconds(loser), seconds(winner)] == pytest.approx([1.1, 5.1])
    assert len(children(recorded.spans, request)) == 2
    codes = [point.attributes.get("error.type") for point in recorded.points(DURATION) if point.attributes]
    assert sorted(map(str, codes)) == ["None", "cancelled"]


@pytest.mark.parametrize("how", ["cancelled", "left early"])
async def test_a_stream_that_ends_midway_ends_its_spans(
    how: str, recorded: Recorded, autojump_clock: MockClock
) -> None:
    """Both are marked as cancelled, at the instant in which they were."""
    async with client_of(Scripted(says(0.5, "Hello ", 100.0, "there"))) as client:
        recorded.of(client)
        with trio.move_on_after(2.0 if how == "cancelled" else math.inf):
            async with client.stream("Why?") as stream:
                async for _ in stream.text():
                    if how == "left early":
                        await trio.sleep(1.5)
                        break
        assert recorded.telemetry.open_spans == 0

    (request,), (attempt,) = recorded.requests, recorded.attempts
    assert [facts(span)["wizard.cancelled"] for span in (request, attempt)] == [True, True]
    assert [failed(span) for span in (request, attempt)] == [False, False]
    assert [seconds(span) for span in (request, attempt)] == pytest.approx([2.0, 2.0])


async def test_an_interrupted_stream_is_an_error_of_both(recorded: Recorded, autojump_clock: MockClock) -> None:
    """The part that came was measured."""
    async with client_of(Scripted(cut("Hello ")), stream=StreamConfig(on_interruption="fail")) as client:
        recorded.of(client)
        with pytest.raises(WizardError):
            async with client.stream("Why?") as stream:
                [text async for text in stream.text()]

    (request,), (attempt,) = recorded.requests, recorded.attempts
    assert facts(request)["error.type"] == facts(attempt)["error.type"] == "stream_interrupted"
    assert "gen_ai.response.finish_reasons" not in facts(attempt)


async def test_a_shed_request_is_a_span_of_no_length(recorded: Recorded, autojump_clock: MockClock) -> None:
    """And an error: whoever looks for refusals finds them."""
    async with (
        client_of(Scripted(ANSWER), server=ServerConfig(max_in_flight=1)) as client,
        trio.open_nursery() as nursery,
    ):
        recorded.of(client)
        nursery.start_soon(client.generate, "Why?")
        await trio.sleep(0.1)
        with pytest.raises(MailboxFullError):
            await client.generate("Why?")

    shed, answered = recorded.requests
    assert (shed.name, seconds(shed), failed(shed)) == ("chat wizard", 0.0, True)
    assert facts(shed)["error.type"] == "mailbox_full"
    assert children(recorded.spans, shed) == []
    assert not failed(answered)


async def test_an_answer_from_the_cache_has_no_attempt(recorded: Recorded, autojump_clock: MockClock) -> None:
    """What the look came to is an event."""
    async with client_of(Scripted(ANSWER), cache=CacheConfig(max_entries=10)) as client:
        await client.generate("Why?")
        recorded.of(client)
        await client.generate("Why?")

    (request,) = recorded.requests
    assert recorded.attempts == []
    assert (facts(request)["wizard.cached"], facts(request)["wizard.served_by"]) == (True, "cache")
    assert "wizard.cost" not in facts(request)
    assert happened(request) == [("wizard.cache", {"wizard.outcome": "hit"})]
    assert recorded.points(TOKEN_USAGE) == []


async def test_an_answer_that_stands_in_is_told_of(recorded: Recorded, autojump_clock: MockClock) -> None:
    """The request is no error then, but says why it is what it is."""
    route = RouteConfig(name="wizard", static_answer="Later.")
    async with client_of(Scripted(fails(NetworkError("dead", model="a"))), route=route) as client:
        recorded.of(client)
        await client.generate("Why?")

    (request,) = recorded.requests
    name, what = happened(request)[-1]
    assert (name, what["wizard.outcome"]) == ("wizard.degraded", "static")
    assert (failed(request), facts(request)["wizard.served_by"]) == (False, "static")


async def test_measurements_have_the_advised_buckets_and_labels(recorded: Recorded, autojump_clock: MockClock) -> None:
    """What is measured is each attempt that was sent, by model; nothing of a request is among the labels."""
    async with client_of({"a": Scripted(ANSWER), "b": Scripted(ANSWER, streams=False)}) as client:
        recorded.of(client)
        for name in ("a", "a", "b"):
            await client.generate("Why?", model=name)

    labels = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "simulated", "gen_ai.request.model": "a"}
    a, b = sorted(recorded.points(DURATION), key=lambda point: point.count, reverse=True)
    assert dict(a.attributes or {}) == labels
    assert [a.count, a.sum] == pytest.approx([2, 3.0])
    assert (b.attributes or {}).get("gen_ai.request.model") == "b"
    assert list(a.explicit_bounds) == list(SECONDS)
    (first,) = recorded.points(FIRST_CHUNK)
    assert dict(first.attributes or {}) == labels
    assert [first.count, first.sum] == pytest.approx([2, 1.0])
    used = {
        str((point.attributes or {})["gen_ai.token.type"]): point
        for point in recorded.points(TOKEN_USAGE)
        if (point.attributes or {})["gen_ai.request.model"] == "a"
    }
    assert {kind: (point.count, point.sum) for kind, point in used.items()} == {"input": (2, 20), "output": (2, 10)}
    assert list(used["input"].explicit_bounds) == list(TOKENS)


async def test_no_prompt_and_no_answer_is_recorded(recorded: Recorded, autojump_clock: MockClock) -> None:
    """Whatever becomes of them."""
    a, b = Scripted(cut("canary-answer", USAGE), says("canary-answer", USAGE)), Scripted(says("canary-answer"))
    async with client_of({"a": a, "b": b}, cache=CacheConfig(max_entries=9)) as client:
        recorded.of(client)
        await client.generate("canary-prompt")
        await client.generate("canary-prompt")

    assert len(recorded.spans) >= 4
    assert "canary" not in "".join(span.to_json() for span in recorded.spans)


def echoed(kind: type[WizardError]) -> WizardError:
    """Return a failure of that kind, of a provider that repeats what it was asked."""
    required = {
        "feature": "canary-prompt",
        "model": "a",
        "actor": "canary-prompt",
        "phase": "stall",
        "retry_at": 1.0,
        "retry_after": 1.0,
    }
    facts: dict[str, Any] = {part.name: required[part.name] for part in fields(kind) if part.name in required}
    return kind("cannot answer: canary-prompt", **facts)


@pytest.mark.parametrize("kind", [*REASONS, SerializationError, StorageError], ids=lambda kind: str(kind.__name__))
async def test_a_provider_that_repeats_the_prompt_gets_it_into_no_span(
    kind: type[WizardError], recorded: Recorded, autojump_clock: MockClock
) -> None:
    """Of a failure are recorded its code, its status and words of ours; of the request that it ended, too."""
    answers = {"a": Scripted(fails(echoed(kind))), "b": Scripted(fails(echoed(kind)))}
    models = [model(name, retry=RetryConfig(max_attempts=1)) for name in "ab"]
    async with client_of(answers, *models, cache=CacheConfig(max_entries=9)) as client:
        recorded.of(client)
        with pytest.raises(WizardError, match="canary"):
            await client.generate("canary-prompt")

    assert failed(recorded.requests[0])
    assert failed(recorded.attempts[0])
    assert "canary" not in "".join(span.to_json() for span in recorded.spans)
    assert b"canary" not in encode_spans(recorded.spans).SerializeToString()


async def test_whoever_lets_the_log_show_prompts_has_the_messages_of_providers_in_spans(
    recorded: Recorded, autojump_clock: MockClock
) -> None:
    """`logging.log_content` asks for both."""
    refused = fails(RequestError("cannot answer: canary-prompt", model="a", status=400))
    async with client_of(Scripted(refused), logging=LoggingConfig(log_content=True)) as client:
        recorded.of(client)
        with pytest.raises(WizardError):
            await client.generate("canary-prompt")

    assert recorded.attempts[0].status.description == "cannot answer: canary-prompt"
    assert recorded.requests[0].status.description == "cannot answer: canary-prompt"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RequestError("no", model="a", status=400), "the provider refused the request as wrong (HTTP 400)"),
        (RateLimitError("no", model="a", status=429), "over a limit (HTTP 429)"),
        (RateLimitError("no", model="a", source="limiter"), "over a limit (our own)"),
        (ProviderTimeoutError("no", model="a", phase="first_token"), "the provider was late (first_token)"),
        (NetworkError("no", model="a"), "the connection failed"),
        (StorageError("no"), "storage"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, WizardError) else None,
)
def test_a_failure_is_told_in_words_of_ours(error: WizardError, said: str) -> None:
    """With the facts that say more."""
    assert reason(error) == said


# -- ended exactly once ------------------------------------------------------------------------------------------------


async def test_a_thousand_requests_with_random_cancels_leave_no_open_span(
    recorded: Recorded, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """However each ends, its spans end once, inside of their parents, and there are as many as events tell of."""
    random, told = Random(7), list[Event]()
    a = Scripted(ANSWER, fails(BUSY), cut("Hel"), SILENT, *[ANSWER] * 20, streams=True)
    turns = [ANSWER, fails(BUSY), cut("Hel"), says(3.0, "slow")]
    a.turns = [random.choice(turns) for _ in range(2000)]
    b = Scripted()
    b.turns = [random.choice(turns) for _ in range(2000)]
    models = [model("a", slots=400), model("b", slots=400)]
    route = RouteConfig(name="wizard", strategy="hedged", hedge_delay=0.7)
    server = ServerConfig(max_in_flight=900)

    async def ask(client: ResilientClient, number: int) -> None:
        await trio.sleep(random.uniform(0, 1))
        with trio.move_on_after(random.choice([0.0, 0.3, 1.0, 2.0, 60.0])):
            try:
                if number % 2:
                    await client.generate("Why?")
                else:
                    async with client.stream("Why?") as stream:
                        [text async for text in stream.text()]
            except WizardError:
                return

    async with client_of({"a": a, "b": b}, *models, route=route, server=server) as client:
        recorded.of(client)
        client.events.listen(told.append)
        with caplog.at_level(logging.WARNING, "opentelemetry"):
            async with trio.open_nursery() as nursery:
                for number in range(1000):
                    nursery.start_soon(ask, client, number)
        assert recorded.telemetry.open_spans == 0
        assert client.events.listener_failures == 0

    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]
    began = sum(isinstance(event, RequestBegan) for event in told)
    assert began > 500
    assert len(recorded.requests) == began + sum(type(event).__name__ == "Shed" for event in told)
    assert len(recorded.attempts) == sum(isinstance(event, AttemptBegan) for event in told) > 500
    by_id = {span.get_span_context().span_id: span for span in recorded.requests}  # type: ignore[union-attr]  # has one
    for span in recorded.attempts:
        assert span.parent is not None
        above = by_id[span.parent.span_id]
        assert (above.start_time or 0) <= (span.start_time or 0) <= (span.end_time or 0) <= (above.end_time or 0)


async def test_a_request_that_began_before_anybody_listened_has_no_span(
    recorded: Recorded, autojump_clock: MockClock
) -> None:
    """Nor have its attempts; what they took is measured all the same."""
    async with client_of(Scripted(ANSWER)) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.generate, "Why?")
        await trio.sleep(0.2)
        recorded.of(client)

    assert recorded.spans == ()
    assert len(recorded.points(DURATION)) == 1


async def test_whoever_stops_listening_leaves_no_open_span(recorded: Recorded, autojump_clock: MockClock) -> None:
    """Spans end as they stand, and what comes after makes no new ones."""
    async with client_of(Scripted(ANSWER)) as client, trio.open_nursery() as nursery:
        stop = trace(client, tracer_provider=recorded.tracers, meter_provider=recorded.meters)
        nursery.start_soon(client.generate, "Why?")
        await trio.sleep(0.2)
        stop()
        assert len(recorded.spans) == 2
        stop()
        await client.generate("Why?")

    assert len(recorded.spans) == 2


def test_an_event_that_comes_as_somebody_stops_listening_leaves_no_open_span(recorded: Recorded) -> None:
    """The thread in which it is told may be at it just then."""
    events = EventStream()
    recorded.on(events, WizardConfig(models=[model()]))
    recorded.telemetry.close()
    events.publish(RequestBegan(1.0, "r", "wizard", "sequential"))

    assert (recorded.telemetry.open_spans, len(recorded.spans)) == (0, 1)


def test_what_is_held_is_bounded(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ends are not heard, the oldest request makes room, and its span is ended."""
    monkeypatch.setattr(spans, "OPEN_AT_MOST", 100)
    events = EventStream()
    recorded.on(events, WizardConfig(models=[model()]))
    for number in range(102):
        events.publish(RequestBegan(1.0, str(number), "wizard", "sequential"))

    assert recorded.telemetry.open_spans == 100
    assert [facts(span)["wizard.request_id"] for span in recorded.spans] == ["0", "1"]


def test_a_request_of_the_same_id_ends_the_one_before(recorded: Recorded) -> None:
    """Two clients that publish in one place, of one seed, give the same ids: neither's span is left open."""
    events = EventStream()
    recorded.on(events, WizardConfig(models=[model()]))
    for _ in range(2):
        events.publish(RequestBegan(1.0, "r", "wizard", "sequential"))
        events.publish(AttemptBegan(1.0, "r", "a", 1))
        events.publish(AttemptBegan(1.0, "r", "a", 1))
    for _ in range(2):
        events.publish(AttemptEnded(2.0, "r", "a", 1, True, None))
        events.publish(RequestEnded(2.0, "r", "wizard", "a", None, 1, 1.0))

    assert recorded.telemetry.open_spans == 0
    assert len(recorded.spans) == 6


def test_a_request_ends_the_attempts_of_which_nobody_told(recorded: Recorded) -> None:
    """As cancelled, in the same instant."""
    events = EventStream()
    recorded.on(events, WizardConfig(models=[model()]))
    events.publish(RequestBegan(1.0, "r", "wizard", "sequential"))
    events.publish(AttemptBegan(1.5, "r", "a", 1))
    events.publish(FirstToken(1.7, "r", "a", 2, 0.1))
    events.publish(RequestEnded(2.0, "r", "wizard", None, "cancelled", 1, 1.0))

    (attempt,) = recorded.attempts
    assert facts(attempt)["wizard.cancelled"] is True
    assert seconds(attempt) == pytest.approx(0.5)


# -- what can be sent --------------------------------------------------------------------------------------------------


def test_what_a_provider_says_cannot_break_what_is_sent(recorded: Recorded) -> None:
    """Half a character, a number beyond all bounds, a text without end: one of them would cost a whole batch."""
    events = EventStream()
    recorded.on(events, WizardConfig(models=[model()], logging=LoggingConfig(log_content=True)))
    said = NetworkError("\ud83e" + "x" * 10_000, model="a")
    events.publish(RequestBegan(1.0, "r", "wizard", "sequential"))
    events.publish(AttemptBegan(1.0, "r", "a", 1))
    events.publish(
        AttemptEnded(2.0, "r", "a", 1, True, said, input_tokens=2**63, cost=Decimal("1E+400"), upstream_model="\udd19")
    )
    events.publish(RequestEnded(2.0, "r", "wizard", None, "network", 1, 1.0, input_tokens=2**64))

    assert b"?xxx" in encode_spans(recorded.spans).SerializeToString()
    assert len(str(recorded.attempts[0].status.description)) <= MOST_TEXT


class TestSink(SinkContract):
    """What every sink has to keep to."""

    def make(self, events: EventStream) -> Callable[[Event], None]:
        self.recorded = Recorded()
        self.telemetry = OpenTelemetry(
            lambda: WizardConfig(models=[model()]),
            tracer_provider=self.recorded.tracers,
            meter_provider=self.recorded.meters,
        )
        return self.telemetry.hear

    def series(self) -> list[str]:
        names = (DURATION, FIRST_CHUNK, TOKEN_USAGE)
        return [f"{name} {dict(point.attributes or {})}" for name in names for point in self.recorded.points(name)]


async def test_spans_that_are_not_sampled_cost_no_facts(autojump_clock: MockClock) -> None:
    """Where the sampler says no, nothing is ended twice, and nothing raises."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    async with client_of(Scripted(fails(BUSY), ANSWER), model("a", retry=NO_JITTER)) as client:
        trace(client, tracer_provider=provider)
        await client.generate("Why?")
        assert client.events.listener_failures == 0


# -- what models are called --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "base_url", "expected"),
    [
        ("openai", None, ("openai", "api.openai.com", 443)),
        ("openai", "http://127.0.0.1:8080/v1", ("openai", "127.0.0.1", 8080)),
        ("openai", "http://[::1]/v1", ("openai", "::1", 80)),
        ("anthropic", None, ("anthropic", "api.anthropic.com", 443)),
        ("gemini", None, ("gcp.gemini", "generativelanguage.googleapis.com", 443)),
        ("gemini", "https://europe-west1-aiplatform.googleapis.com/v1", ("gcp.vertex_ai",)),
        ("azure", "https://me.openai.azure.com/openai/v1", ("azure.ai.openai", "me.openai.azure.com", 443)),
        ("deepseek", None, ("deepseek", "api.deepseek.com", 443)),
        ("groq", None, ("groq", "api.groq.com", 443)),
        ("mistral", None, ("mistral_ai", "api.mistral.ai", 443)),
        ("perplexity", None, ("perplexity", "api.perplexity.ai", 443)),
        ("xai", None, ("x_ai", "api.x.ai", 443)),
        ("ollama", None, ("ollama", "127.0.0.1", 11434)),
        ("simulated", None, ("simulated", None, None)),
        ("local", None, ("local", None, None)),
    ],
)
def test_a_models_provider_and_address_are_the_conventions(
    provider: str, base_url: str | None, expected: tuple[object, ...]
) -> None:
    """Names that the conventions know are theirs; others are ours."""
    ask = upstream_of(ModelConfig(name="m", provider=provider, base_url=base_url)).ask

    assert (ask[Names.PROVIDER], ask.get(Names.ADDRESS), ask.get(Names.PORT))[: len(expected)] == expected
    known = {member.value for member in gen_ai_attributes.GenAiProviderNameValues}
    assert ask[Names.PROVIDER] in known or ask[Names.PROVIDER] == provider


def test_names_are_those_of_the_installed_conventions() -> None:
    """All but those below `wizard.`, of attributes as of metrics; and the buckets are the advised ones."""
    attributes = {
        value
        for module in (gen_ai_attributes, server_attributes, error_attributes)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    ours = [value for key, value in vars(Names).items() if key.isupper()]
    assert len(ours) > 30
    assert [name for name in ours if not name.startswith("wizard.") and name not in attributes] == []
    assert DURATION == gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION
    assert FIRST_CHUNK == gen_ai_metrics.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK
    assert TOKEN_USAGE == gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE
    assert SECONDS == (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
    assert TOKENS == (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


async def test_a_model_that_a_reload_has_taken_away_keeps_its_name(
    recorded: Recorded, autojump_clock: MockClock
) -> None:
    """A request that was made before ends as what it was."""
    two = (
        '[[models]]\nname = "a"\nmodel = "A"\nprovider = "simulated"\n[[models]]\nname = "b"\nprovider = "simulated"\n'
    )
    one = '[[models]]\nname = "b"\nprovider = "simulated"\n'
    async with ResilientClient.open(WizardConfig.from_toml(two, env={})) as client:
        trace(client, tracer_provider=recorded.tracers, meter_provider=recorded.meters)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.generate, "Why?")
            await trio.sleep(0.1)
            await client.reload(WizardConfig.from_toml(one, env={}))
        await client.generate("Why?")

    assert sorted(str(facts(span)["gen_ai.request.model"]) for span in recorded.attempts) == ["A", "b"]
    models = {str((point.attributes or {})["gen_ai.request.model"]) for point in recorded.points(DURATION)}
    assert models == {"A", "b"}


async def test_a_reload_leaves_the_setting_as_it_is(autojump_clock: MockClock) -> None:
    """And says that it waits for a restart."""
    config = WizardConfig(models=[model()])
    async with ResilientClient.open(config) as client:
        reloaded = await client.reload(config.changed(telemetry=TelemetryConfig(otel=True)))

        assert reloaded.later == ("telemetry.otel",)
        assert client.config.telemetry == TelemetryConfig()
