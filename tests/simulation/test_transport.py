"""A call to a simulated model ends as the client sees it, however it ends, and what is written down of it is true."""

import math
from typing import Final

import attrs
import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.simulation.exchanges import FORMATS, WORDS, Exchange, Model, model_of
from wizard_actors.config import PRESETS, LocalConfig, ModelConfig, Secret, SimulatedConfig, TimeoutsConfig
from wizard_actors.errors import (
    NetworkError,
    ParseError,
    ProviderTimeoutError,
    RateLimitError,
    StreamInterruptedError,
    WizardError,
)
from wizard_actors.providers.base import Call
from wizard_actors.testing.simulation.formats import WireFormat
from wizard_actors.testing.simulation.records import CallEnd
from wizard_actors.testing.simulation.scenario import FaultKind, FaultWindow, Upstream
from wizard_actors.testing.simulation.transport import format_of, provider_of, without_secrets
from wizard_actors.testing.simulation.upstream import answer_text
from wizard_actors.types import FinishReason, Prompt

BOTH: Final = pytest.mark.parametrize("whole", [False, True], ids=["stream", "whole"])
EVERY_FORMAT: Final = pytest.mark.parametrize("form", FORMATS)
FIRST: Final = 0.7
LAST: Final = FIRST + 0.1 * (WORDS - 1)


# -- what is written down --------------------------------------------------------------------------------------------

ENDS: Final[list[tuple[FaultKind, type[WizardError], type[WizardError], CallEnd]]] = [
    ("down", NetworkError, NetworkError, "refused"),
    ("unreachable", ProviderTimeoutError, ProviderTimeoutError, "refused"),
    ("cut", StreamInterruptedError, StreamInterruptedError, "broken"),
    ("malformed", ParseError, ParseError, "broken"),
]


@EVERY_FORMAT
@pytest.mark.parametrize(("kind", "stream", "whole", "end"), ENDS, ids=lambda value: value if value in FORMATS else "")
async def test_faults_are_the_errors_that_they_are_to_the_client(
    autojump_clock: MockClock,
    form: WireFormat,
    kind: FaultKind,
    stream: type[WizardError],
    whole: type[WizardError],
    end: CallEnd,
) -> None:
    """For streams and for whole answers."""
    streamed = await Model(model_of(form), FaultWindow(kind=kind, after_words=4)).ask()
    at_once = await Model(model_of(form, whole=True), FaultWindow(kind=kind, after_words=4)).ask()

    assert (type(streamed.error), streamed.call.end) == (stream, end)
    assert (type(at_once.error), at_once.call.end) == (whole, end)
    assert streamed.call.closed is not None
    assert at_once.call.closed is not None


async def test_a_model_that_cannot_be_reached_costs_the_time_that_a_connection_may_take(
    autojump_clock: MockClock,
) -> None:
    """The model's `timeouts.connect`, whose error says so."""
    config = attrs.evolve(model_of("chat"), timeouts=TimeoutsConfig(connect=3.0))

    got = await Model(config, FaultWindow(kind="unreachable")).ask()

    assert isinstance(got.error, ProviderTimeoutError)
    assert got.error.phase == "connect"
    assert trio.current_time() == pytest.approx(3.0)
    assert (got.call.end, got.call.billed) == ("refused", 0)


@BOTH
@EVERY_FORMAT
async def test_an_answer_is_cut_where_its_request_says(
    autojump_clock: MockClock, form: WireFormat, *, whole: bool
) -> None:
    """The client reads that it was for its length, what it has cost, and that nothing is missing."""
    got = await Model(attrs.evolve(model_of(form, whole=whole), max_tokens=5)).ask()

    assert got.error is None
    assert got.parts.text == "<0:5> word word word <cut>"
    assert got.parts.finished is not None
    assert got.parts.finished.reason is FinishReason.LENGTH
    assert got.parts.usage is not None
    assert (got.parts.usage.output_tokens, got.call.end) == (5, "complete")


@EVERY_FORMAT
async def test_a_truncated_stream_has_no_finish_and_a_truncated_body_makes_no_sense(
    autojump_clock: MockClock, form: WireFormat
) -> None:
    """Its end comes cleanly: that it is none is for the reader to see."""
    streamed = await Model(model_of(form), FaultWindow(kind="truncated", after_words=4)).ask()
    at_once = await Model(model_of(form, whole=True), FaultWindow(kind="truncated", after_words=4)).ask()

    assert (streamed.error, streamed.parts.finished) == (None, None)
    assert streamed.parts.text == f"<0:{WORDS}> word word word "
    assert streamed.call.end == "broken"
    assert isinstance(at_once.error, ParseError)


@pytest.mark.parametrize("after_words", [0, WORDS, 500])
async def test_a_cut_before_the_first_word_or_after_the_last_is_a_cut(
    autojump_clock: MockClock, after_words: int
) -> None:
    """All of the words without the finish are no answer."""
    got = await Model(model_of("chat"), FaultWindow(kind="cut", after_words=after_words)).ask()

    assert isinstance(got.error, StreamInterruptedError)
    assert got.parts.text == (answer_text(0, WORDS) if after_words else "")
    assert (got.call.heard is None) is (after_words == 0)


@BOTH
async def test_a_body_under_way_breaks_when_the_model_goes_down(autojump_clock: MockClock, *, whole: bool) -> None:
    """Nobody waits longer than that, and the call is billed for its prompt and four words."""
    got = await Model(model_of("chat", whole=whole), FaultWindow(kind="down", start=1.05)).ask()

    assert isinstance(got.error, NetworkError if whole else StreamInterruptedError)
    assert trio.current_time() == pytest.approx(1.05)
    assert (got.call.end, got.call.billed) == ("broken", got.call.asked_tokens + 4)


@pytest.mark.parametrize(("patience", "fault"), [(10.0, "silent"), (math.inf, "down")])
async def test_a_fault_that_comes_after_its_caller_has_left_is_not_the_calls(
    autojump_clock: MockClock, patience: float, fault: FaultKind
) -> None:
    """Only who waits until the model goes down has met that."""
    silent, down = FaultWindow(kind="silent", lasts=5.0), FaultWindow(kind="down", start=100.0)

    with trio.move_on_after(patience):
        await (model := Model(model_of("chat"), silent, down)).ask()

    [call] = model.recorder.calls
    assert call.fault == fault


@pytest.mark.parametrize(
    ("fault", "whole", "leaves", "heard", "billed"),
    [
        (None, False, 0.1, False, None),
        (None, False, 0.4, False, 0),
        (None, False, 0.95, True, 3),
        (None, True, 0.1, False, None),
        (None, True, 0.95, False, 3),
        ("silent", False, 50.0, False, None),
        ("stall", False, 50.0, True, 10),
        ("stall", True, 50.0, False, 10),
        ("error", False, 0.1, False, None),
    ],
)
async def test_a_caller_who_leaves_ends_the_call_and_pays_for_what_was_said(
    autojump_clock: MockClock, fault: FaultKind | None, leaves: float, billed: int | None, *, whole: bool, heard: bool
) -> None:
    """Before the head, before the first word, in the middle or in a silence: the exchange is closed at once."""
    faults = () if fault is None else (FaultWindow(kind=fault),)
    model = Model(model_of("chat", whole=whole), *faults)

    with trio.move_on_after(leaves):
        await model.ask()

    (call,) = model.calls
    record = call.record()
    assert (record.end, record.over, record.closed) == ("left", leaves, leaves)
    assert (record.heard is not None) is heard
    assert record.billed == (0 if billed is None else call.asked_tokens + billed)


async def test_a_body_that_is_never_read_is_left(autojump_clock: MockClock) -> None:
    """Closing it closes the exchange, once; reading on finds it closed."""
    model = Model(model_of("chat"))
    response = await model.http.send(httpx.Request("POST", "http://simulated.invalid/v1", content=b'{"stream":true}'))
    await trio.sleep(10.0)

    await response.aclose()
    closed = model.calls[0].closed
    await trio.sleep(1.0)
    await response.stream.aclose()  # type: ignore[union-attr]  # an asynchronous one

    assert closed is not None
    assert (model.calls[0].closed, model.calls[0].record().end) == (closed, "left")
    with pytest.raises(httpx.ReadError):
        await anext(aiter(response.stream))  # type: ignore[arg-type]  # as above


async def test_a_refusal_is_one_though_nobody_reads_why(autojump_clock: MockClock) -> None:
    """The status alone says so."""
    model = Model(model_of("chat"), FaultWindow(kind="error"))

    async with model.provider.open(Call(Prompt("why"), "request-1")):
        pass

    assert model.calls[0].record().end == "refused"


@pytest.mark.parametrize(("faults", "end"), [((), "complete"), ((FaultWindow(kind="truncated"),), "broken")])
async def test_a_cancelled_read_takes_nothing_and_the_end_stays_the_end(
    autojump_clock: MockClock, faults: tuple[FaultWindow, ...], end: CallEnd
) -> None:
    """Whoever reads on after a cancelled read gets all of the body, and after its end the end again, at once."""
    model = Model(model_of("chat"), *faults)
    response = await model.http.send(httpx.Request("POST", "http://simulated.invalid/v1", content=b'{"stream":true}'))
    body, pieces = aiter(response.stream), list[bytes]()  # type: ignore[arg-type]  # an asynchronous one
    with trio.move_on_after(0.2) as scope:
        await anext(body)
    pieces += [piece async for piece in body]
    ended, call = trio.current_time(), model.calls[0]

    with pytest.raises(StopAsyncIteration):
        await anext(body)

    assert scope.cancelled_caught
    assert b"".join(pieces).startswith(b'data: {"id":"chatcmpl-0"')
    assert (trio.current_time(), call.end) == (ended, end)
    assert ended == pytest.approx(LAST if end == "complete" else FIRST + 1.0)
    await response.aclose()


async def test_a_slow_reader_finds_ready_what_has_come_meanwhile(autojump_clock: MockClock) -> None:
    """A model says its words whether they are read or not."""
    got = await Model(model_of("chat")).ask(pause=5.0)

    assert got.error is None
    assert got.read_at[0] == pytest.approx(FIRST)
    assert got.read_at[1:] == pytest.approx([FIRST + 5.0 * number for number in range(1, len(got.read_at))])


# -- which models ----------------------------------------------------------------------------------------------------


def models() -> list[ModelConfig]:
    """Return a model of every kind, with all that leads out of a simulation."""
    secret: dict[str, object] = {"api_key_env": "NO_SUCH_VARIABLE", "headers": {"x-key": Secret("s3cret")}}
    out: dict[str, object] = {"proxy": "http://proxy.invalid:1", "ca_file": "/no/such/file"}
    of_azure = {"base_url": "https://r.invalid/openai/deployments/d", "api_version": "2024-10-21"}
    return [
        ModelConfig(**table)  # type: ignore[arg-type]  # each is what its field takes
        for table in [
            *[{"name": name, "provider": name, **secret, **out} for name in PRESETS if name != "azure"],
            *[{"name": name, "provider": name, **secret, **out} for name in ("openai", "anthropic", "gemini")],
            {"name": "by its deployment", "provider": "azure", **of_azure, **secret},
            {"name": "by the new way", "provider": "azure", "base_url": "https://r.invalid", "api": "responses"},
            {"name": "Wörter/1", "provider": "simulated", "simulated": SimulatedConfig(answer="no")},
            {"name": "embedded", "provider": "local", "local": LocalConfig()},
            {"name": "own", "provider": "custom", "options": {"a": 1}, "extra": {"stream": False}},
        ]
    ]


@BOTH
async def test_every_kind_of_model_is_answered_and_no_secret_is_looked_for(
    autojump_clock: MockClock, *, whole: bool
) -> None:
    """All presets, Azure's addresses, embedded and simulated models and those of one's own."""
    asked_for = [Model(_forced(config, whole=whole)) for config in models()]

    answers: list[Exchange] = [await model.ask() for model in asked_for]

    assert [got.parts.text for got in answers] == [answer_text(0, WORDS)] * len(answers)


def _forced(config: ModelConfig, *, whole: bool) -> ModelConfig:
    return attrs.evolve(without_secrets(config), upstream="unary" if whole else "auto")


def test_a_model_speaks_what_the_client_speaks_to_it() -> None:
    """Its format is that of the provider that reads it."""
    spoken = {config.name: format_of(config) for config in models()}

    assert (spoken["anthropic"], spoken["gemini"], spoken["by the new way"]) == ("anthropic", "gemini", "responses")
    assert {form for name, form in spoken.items() if name not in {"anthropic", "gemini", "by the new way"}} == {"chat"}


def test_a_provider_is_made_without_a_key() -> None:
    """Whatever the environment holds."""
    config = ModelConfig(name="primary", provider="openai", environ={"OPENAI_API_KEY": "s3cret"})

    provider = provider_of(config, httpx.AsyncClient(trust_env=False), lambda: 0.0)

    assert "authorization" not in dict(getattr(provider, "headers"))  # noqa: B009 - of the HTTP providers alone


async def test_a_refused_rate_limit_is_the_clients_own_error(autojump_clock: MockClock) -> None:
    """A model's own quota is told as the provider would tell it."""
    model = Model(model_of("anthropic"), upstream=Upstream(model="primary", requests_per_minute=1, burst=1))

    await model.ask()
    got = await model.ask()

    assert isinstance(got.error, RateLimitError)
    assert got.error.retry_after is not None
    assert got.error.retry_after == math.ceil(got.error.retry_after)
