"""The contract of providers: ours keep to it, and each way to break it is found by the test of that name."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import ClassVar
from unittest import SkipTest

import httpx
import pytest
import trio
from attrs import frozen

from wizard_actors.config import ScriptStep, Secret, SimulatedConfig
from wizard_actors.errors import WizardError
from wizard_actors.providers.base import Answer, Call, Provider
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.providers.simulated import SimulatedProvider
from wizard_actors.testing.http_provider import HttpProviderContract, Reply
from wizard_actors.testing.provider import PACE, Act, Bench, ProviderContract
from wizard_actors.types import (
    Finished,
    FinishReason,
    Image,
    Message,
    ModelEvent,
    Prompt,
    Role,
    TextDelta,
    TokenUsage,
    UsageUpdate,
)

KEY = "sk-a-key-that-nobody-sees"


# -- our own -----------------------------------------------------------------------------------------


def sse(*chunks: object) -> list[bytes]:
    """Return server-sent events, one piece each."""
    return [b"data: " + (each if isinstance(each, bytes) else utf8(each)) + b"\n\n" for each in chunks]


def utf8(value: object) -> bytes:
    """Return JSON as upstreams send it."""
    return json.dumps(value, ensure_ascii=False).encode()


def refused(status: int, code: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a refusal that repeats the key."""
    body = json.dumps({"error": {"message": f"not with {KEY}", "code": code}}).encode()
    return Reply([body], status, {"content-type": "application/json", **(headers or {})})


class TestOpenAI(HttpProviderContract):
    """Chat Completions, streamed."""

    key: ClassVar[str] = KEY
    retry_after: ClassVar[float | None] = 7.0
    unsupported: ClassVar[Sequence[Prompt]] = (
        Prompt([Message(Role.SYSTEM, (Image(url="https://example.com/a.png"),)), Message(Role.USER, "?")]),
    )

    def provider(self, http: httpx.AsyncClient) -> Provider:
        settings = HttpSettings(name="yours", model="m", base_url="http://up.test/v1", api_key=Secret(self.key))
        return OpenAIProvider(settings, http)

    def reply(self, act: Act, text: str) -> Reply | None:
        headers = {"content-type": "text/event-stream", "x-request-id": f"r-{KEY}"}
        words = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in text.partition(" ")]
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        match act:
            case Act.ANSWERS:
                return Reply([b": ping\n\n", *sse(*words, end, b"[DONE]")], headers=headers)
            case Act.GARBAGE:
                return Reply(sse(words[0], f"{{{KEY}".encode()), headers=headers)
            case Act.REFUSES_KEY:
                return refused(401, "invalid_api_key")
            case Act.LIMITED:
                return refused(429, "rate_limit_exceeded", {"retry-after": "7"})
            case _:
                return refused(500, "server_error")


class TestOpenAIUnary(TestOpenAI):
    """Chat Completions, one JSON object."""

    def provider(self, http: httpx.AsyncClient) -> Provider:
        settings = HttpSettings(
            name="yours", model="m", base_url="http://up.test/v1", api_key=Secret(self.key), upstream="unary"
        )
        return OpenAIProvider(settings, http)

    def reply(self, act: Act, text: str) -> Reply | None:
        if act is Act.ANSWERS:
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            body = utf8({"choices": [choice]})
            return Reply([body], headers={"content-type": "application/json"})
        if act is Act.GARBAGE:
            return Reply([b'{"choices": [', KEY.encode()], headers={"content-type": "application/json"})
        return super().reply(act, text)


STEPS = {
    Act.ANSWERS: ScriptStep(fault="ok"),
    Act.SLOW: ScriptStep(fault="ok"),
    Act.JOINED: ScriptStep(fault="ok"),
    Act.TORN: ScriptStep(fault="ok"),
    Act.CUT: ScriptStep(fault="disconnect", after_words=2),
    Act.ENDS_EARLY: ScriptStep(fault="truncate", after_words=2),
    Act.STALLS: ScriptStep(fault="stall", after_words=2),
    Act.SILENT: ScriptStep(fault="silent"),
    Act.UNREACHABLE: ScriptStep(fault="disconnect"),
    Act.GARBAGE: ScriptStep(fault="malformed", after_words=1),
    Act.REFUSES_KEY: ScriptStep(fault="auth"),
    Act.LIMITED: ScriptStep(fault="rate_limit", retry_after=7.0),
    Act.FAILS: ScriptStep(fault="error"),
}


@frozen
class SimulatedBench:
    """A simulated model is its own upstream."""

    provider: SimulatedProvider
    said: str

    @property
    def sent(self) -> int:
        return len(self.provider.calls)

    @property
    def held(self) -> int:
        return self.provider.in_flight

    def asked(self, number: int) -> None:
        return None

    def text(self, number: int) -> str:
        return self.said


class TestSimulated(ProviderContract):
    """The scripted model."""

    retry_after = 7.0

    @asynccontextmanager
    async def bench(self, *acts: Act) -> AsyncIterator[Bench]:
        pace = PACE if Act.SLOW in acts else 0.01
        said = "An answer of several words."
        script = [STEPS[act] for act in acts]
        settings = SimulatedConfig(answer=said, first_token=pace, per_chunk=pace, script=script)
        yield SimulatedBench(SimulatedProvider("yours", settings=settings, calls_kept=2), said)
        await trio.lowlevel.checkpoint()


# -- ways to break it --------------------------------------------------------------------------------


class Spoiled:
    """A provider that is right but for what a subclass spoils: it hands everything on."""

    def __init__(self, inner: Provider) -> None:
        self.inner = inner

    @property
    def streams(self) -> bool:
        return self.inner.streams

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        return SpoiledExchange(self, self.inner.open(call))

    async def enter(self, exchange: AbstractAsyncContextManager[Answer]) -> Answer:
        return await exchange.__aenter__()

    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        return await answer.read()

    async def leave(self, exchange: AbstractAsyncContextManager[Answer]) -> bool | None:
        return await exchange.__aexit__(None, None, None)


class SpoiledExchange(AbstractAsyncContextManager[Answer]):
    def __init__(self, provider: Spoiled, inner: AbstractAsyncContextManager[Answer]) -> None:
        self.provider, self.inner = provider, inner

    async def __aenter__(self) -> Answer:
        return SpoiledAnswer(self.provider, await self.provider.enter(self.inner))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self.provider.leave(self.inner)  # noqa: ASYNC102 - shields itself where it must


class SpoiledAnswer:
    def __init__(self, provider: Spoiled, inner: Answer) -> None:
        self.provider, self.inner = provider, inner
        self.limits, self.upstream_model, self.upstream_id = inner.limits, inner.upstream_model, inner.upstream_id

    async def read(self) -> Sequence[ModelEvent] | None:
        return await self.provider.read(self.inner)


class NurseryLeftOpen(Spoiled):
    async def enter(self, exchange: AbstractAsyncContextManager[Answer]) -> Answer:
        self.nursery = trio.open_nursery()
        await self.nursery.__aenter__()
        return await super().enter(exchange)

    async def leave(self, exchange: AbstractAsyncContextManager[Answer]) -> bool | None:
        await super().leave(exchange)
        return await self.nursery.__aexit__(None, None, None)


class ScopeLeftOpen(Spoiled):
    async def enter(self, exchange: AbstractAsyncContextManager[Answer]) -> Answer:
        self.scope = trio.CancelScope()
        self.scope.__enter__()
        return await super().enter(exchange)

    async def leave(self, exchange: AbstractAsyncContextManager[Answer]) -> bool | None:
        await super().leave(exchange)
        self.scope.__exit__(None, None, None)
        return None


class FinishedTwice(Spoiled):
    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        events = await super().read(answer)
        return events and [
            again for each in events for again in ([each, each] if isinstance(each, Finished) else [each])
        ]


class FinishedAnyway(Spoiled):
    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        try:
            events = await super().read(answer)
        except WizardError:
            events = None
        return [Finished(FinishReason.STOP)] if events is None else events


class SaysFinishedAtTheEnd(Spoiled):
    """Takes the end of the body for the end of the answer."""

    def __init__(self, inner: Provider) -> None:
        super().__init__(inner)
        self.ended = False

    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        if self.ended:
            return None
        try:
            events = await super().read(answer)
        except WizardError:
            events = None
        if events is None:
            self.ended = True
            return [Finished(FinishReason.STOP)]
        return [each for each in events if not isinstance(each, Finished)]


class SwallowsCancellationReading(Spoiled):
    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        try:
            return await super().read(answer)
        except trio.Cancelled:  # noqa: ASYNC103 - the fault
            return ()  # noqa: ASYNC104


class SwallowsCancellationLeaving(Spoiled):
    async def leave(self, exchange: AbstractAsyncContextManager[Answer]) -> bool | None:
        await super().leave(exchange)
        return True


class LeaksAKeyError(Spoiled):
    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        try:
            return await super().read(answer)
        except WizardError:
            raise KeyError("choices") from None


class RaisesTheRefusalOnEntry(Spoiled):
    async def enter(self, exchange: AbstractAsyncContextManager[Answer]) -> Answer:
        answer = await super().enter(exchange)
        try:
            await answer.read()
            await answer.read()  # its error's body has an end
        except WizardError:
            await super().leave(exchange)  # noqa: ASYNC120 - nobody cancels it
            raise
        return answer


class WaitsForWholeEvents(Spoiled):
    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        events: Sequence[ModelEvent] | None = ()
        while events is not None and not events:
            events = await super().read(answer)
        return events


class NeverCloses(Spoiled):
    async def leave(self, exchange: AbstractAsyncContextManager[Answer]) -> bool | None:
        return None


class ReadsOnWhileLeaving(Spoiled):
    async def enter(self, exchange: AbstractAsyncContextManager[Answer]) -> Answer:
        self.answer = await super().enter(exchange)
        return self.answer

    async def leave(self, exchange: AbstractAsyncContextManager[Answer]) -> bool | None:
        with trio.CancelScope(shield=True), trio.move_on_after(30.0):
            while await self.answer.read() is not None:
                pass
        return await super().leave(exchange)


class ClosesOnlyIfAllowedToWait(Spoiled):
    async def leave(self, exchange: AbstractAsyncContextManager[Answer]) -> bool | None:
        await trio.sleep(0.01)
        return await super().leave(exchange)


class LeavesATask(Spoiled):
    async def enter(self, exchange: AbstractAsyncContextManager[Answer]) -> Answer:
        trio.lowlevel.spawn_system_task(trio.sleep, 3600.0)
        return await super().enter(exchange)


class KeepsTheLastCallsAnswer(Spoiled):
    answer: Answer

    async def enter(self, exchange: AbstractAsyncContextManager[Answer]) -> Answer:
        self.answer = await super().enter(exchange)
        return self.answer

    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        return await self.answer.read()


class RaisesAfterTheEnd(Spoiled):
    ended = False

    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        if self.ended:
            raise StopAsyncIteration
        events = await super().read(answer)
        self.ended = events is None
        return events


class SendsEmptyTexts(Spoiled):
    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        events = await super().read(answer)
        return events if events is None else [TextDelta(""), *events]


class ShowsItsKey(Spoiled):
    def __repr__(self) -> str:
        return f"<provider with {KEY}>"


class LearnsLimitsLate(Spoiled):
    async def enter(self, exchange: AbstractAsyncContextManager[Answer]) -> Answer:
        answer = await super().enter(exchange)
        return NoLimits(self.inner, answer)


class NoLimits(SpoiledAnswer):
    def __init__(self, provider: Provider, inner: Answer) -> None:
        self.inner = inner
        self.limits = None
        self.upstream_model, self.upstream_id = inner.upstream_model, inner.upstream_id

    async def read(self) -> Sequence[ModelEvent] | None:
        return await self.inner.read()


class SendsBeforeItLooks(Spoiled):
    async def enter(self, exchange: AbstractAsyncContextManager[Answer]) -> Answer:
        async with self.inner.open(Call(Prompt("Are you there?"), "probe")):
            pass
        return await super().enter(exchange)


class HasNoEnd(Spoiled):
    """Its answers never end."""

    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        events = await super().read(answer)
        return () if events is None else events


class HasNoEarlyEnd(Spoiled):
    """Nor does this one's, where upstream ends before it has said that the answer is complete."""

    complete = False

    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        events = await super().read(answer)
        self.complete = self.complete or any(isinstance(each, Finished) for each in events or ())
        return () if events is None and not self.complete else events


class SaysTextsAreEvents(Spoiled):
    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        events = await super().read(answer)
        return events and [each.text if isinstance(each, TextDelta) else each for each in events]  # type: ignore[misc]


class CountsInTexts(Spoiled):
    async def read(self, answer: Answer) -> Sequence[ModelEvent] | None:
        events = await super().read(answer)
        usage = TokenUsage("12", "3")  # type: ignore[arg-type]  # the fault
        return events and [*events, UsageUpdate(usage)]


class KeepsEveryCall(Spoiled):
    def __init__(self, inner: Provider) -> None:
        super().__init__(inner)
        self.calls: list[object] = []

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        self.calls.append(call)
        return super().open(call)


class KeepsEveryPrompt(KeepsEveryCall):
    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        self.calls.append(call.prompt)
        return Spoiled.open(self, call)


class AsksSomethingElse(Spoiled):
    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        return super().open(Call(Prompt("hi"), call.request_id))


class AsksTheLastMessageOnly(Spoiled):
    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        return super().open(Call(Prompt(call.prompt.messages[-1]), call.request_id))


class LogsItsKey(Spoiled):
    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        logging.getLogger("acme").debug("sending %s", KEY)
        return super().open(call)


BROKEN: Sequence[tuple[Callable[[Provider], Provider], str]] = [
    (NurseryLeftOpen, "test_it_is_entered_read_and_left_in_different_tasks"),
    (ScopeLeftOpen, "test_it_is_entered_read_and_left_in_different_tasks"),
    (FinishedTwice, "test_a_whole_answer_says_once_that_it_is_complete"),
    (FinishedAnyway, "test_a_whole_answer_says_once_that_it_is_complete"),
    (SendsEmptyTexts, "test_a_whole_answer_says_once_that_it_is_complete"),
    (RaisesAfterTheEnd, "test_the_end_is_none_for_ever"),
    (KeepsTheLastCallsAnswer, "test_two_calls_at_once_share_nothing"),
    (SaysFinishedAtTheEnd, "test_a_cut_answer_is_no_success"),
    (SaysFinishedAtTheEnd, "test_a_client_falls_back_from_it"),
    (WaitsForWholeEvents, "test_a_read_makes_at_most_one_wait"),
    (WaitsForWholeEvents, "test_a_client_answers_with_it"),
    (RaisesTheRefusalOnEntry, "test_it_is_entered_as_soon_as_the_head_is_here"),
    (RaisesTheRefusalOnEntry, "test_a_refusal_is_raised_by_read"),
    (NeverCloses, "test_leaving_closes_the_exchange_at_once"),
    (ReadsOnWhileLeaving, "test_leaving_closes_the_exchange_at_once"),
    (SwallowsCancellationLeaving, "test_leaving_with_an_error_lets_it_pass"),
    (SwallowsCancellationLeaving, "test_a_call_that_is_cancelled_while_it_is_read_leaves_nothing"),
    (SwallowsCancellationReading, "test_a_call_that_is_cancelled_while_it_is_read_leaves_nothing"),
    (ClosesOnlyIfAllowedToWait, "test_a_call_that_is_left_under_cancellation_leaves_nothing"),
    (ClosesOnlyIfAllowedToWait, "test_a_cancelled_client_leaves_nothing_held"),
    (LeavesATask, "test_calls_one_after_the_other_are_all_answered"),
    (LeaksAKeyError, "test_whatever_goes_wrong_is_one_of_our_errors"),
    (LeaksAKeyError, "test_garbage_is_a_parse_error"),
    (LearnsLimitsLate, "test_limits_are_known_from_the_start"),
    (SendsBeforeItLooks, "test_what_it_cannot_do_is_refused_before_anything_is_sent"),
    (ShowsItsKey, "test_the_key_is_shown_nowhere"),
    (LogsItsKey, "test_the_key_is_shown_nowhere"),
    (HasNoEnd, "test_a_whole_answer_says_once_that_it_is_complete"),
    (HasNoEnd, "test_two_calls_at_once_share_nothing"),
    (HasNoEnd, "test_a_read_makes_at_most_one_wait"),
    (HasNoEarlyEnd, "test_a_cut_answer_is_no_success"),
    (HasNoEarlyEnd, "test_whatever_goes_wrong_is_one_of_our_errors"),
    (SaysTextsAreEvents, "test_a_whole_answer_says_once_that_it_is_complete"),
    (CountsInTexts, "test_a_whole_answer_says_once_that_it_is_complete"),
    (KeepsEveryCall, "test_nothing_of_a_call_is_kept"),
    (KeepsEveryPrompt, "test_nothing_of_a_call_is_kept"),
    (AsksSomethingElse, "test_the_prompt_reaches_upstream"),
    (AsksTheLastMessageOnly, "test_the_prompt_reaches_upstream"),
]


RAW = (LeaksAKeyError, "test_garbage_is_a_parse_error")
"""What a test does not look for comes out as it is."""


@pytest.mark.parametrize(("spoil", "name"), BROKEN)
def test_a_broken_provider_is_found(spoil: Callable[[Provider], Provider], name: str) -> None:
    """By the test whose name says what is broken."""

    class Broken(TestOpenAI):
        def provider(self, http: httpx.AsyncClient) -> Provider:
            return spoil(super().provider(http))

    with pytest.raises(KeyError if (spoil, name) == RAW else AssertionError):
        getattr(Broken(), name)()


def test_a_provider_that_only_hands_on_is_right() -> None:
    """So it is the fault that each broken provider is found by."""

    class Right(TestOpenAI):
        def provider(self, http: httpx.AsyncClient) -> Provider:
            return Spoiled(super().provider(http))

    for name in {name for _, name in BROKEN}:
        getattr(Right(), name)()


class Changed(httpx.AsyncByteStream):
    """A response's bytes, each piece of them changed."""

    def __init__(self, inner: object, change: Callable[[bytes], bytes]) -> None:
        assert isinstance(inner, httpx.AsyncByteStream)
        self.inner, self.change = inner, change

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self.inner:
            yield self.change(piece)

    async def aclose(self) -> None:
        await self.inner.aclose()


def decoded_by_itself(piece: bytes) -> bytes:
    """Half a character is none."""
    return piece.decode(errors="replace").encode()


def its_first_event(piece: bytes) -> bytes:
    """Take a piece for an event."""
    event, end, _ = piece.partition(b"\n\n")
    return event + end


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (decoded_by_itself, "test_an_answer_is_the_same_in_any_pieces"),
        (decoded_by_itself, "test_a_read_makes_at_most_one_wait"),
        (its_first_event, "test_an_answer_is_the_same_in_any_pieces"),
    ],
)
def test_whoever_takes_pieces_for_more_than_they_are_is_found(change: Callable[[bytes], bytes], name: str) -> None:
    """The two classic mistakes in reading a stream."""

    class Broken(TestOpenAI):
        def provider(self, http: httpx.AsyncClient) -> Provider:
            async def hook(response: httpx.Response) -> None:
                response.stream = Changed(response.stream, change)

            http.event_hooks["response"].append(hook)
            return super().provider(http)

    with pytest.raises(AssertionError):
        getattr(Broken(), name)()


def test_a_key_in_the_address_is_found() -> None:
    """HTTP clients log the addresses that they call."""

    class KeyInTheAddress(TestOpenAI):
        def provider(self, http: httpx.AsyncClient) -> Provider:
            async def hook(request: httpx.Request) -> None:
                request.url = request.url.copy_add_param("key", self.key)

            http.event_hooks["request"].append(hook)
            return super().provider(http)

    with pytest.raises(AssertionError, match="the key is logged"):
        KeyInTheAddress().test_the_key_is_shown_nowhere()


def test_an_answer_without_end_fails_no_client_by_hanging() -> None:
    """Each test of the suite ends, whatever the provider does."""

    class Endless(TestOpenAI):
        def provider(self, http: httpx.AsyncClient) -> Provider:
            return HasNoEarlyEnd(super().provider(http))

    Endless().test_a_client_falls_back_from_it()


def test_what_a_protocol_has_not_is_skipped() -> None:
    """Not passed: the runner's report says what was not tried."""

    class Plain(TestOpenAI):
        key = ""
        retry_after = None
        unsupported = ()

        def reply(self, act: Act, text: str) -> Reply | None:
            return super().reply(act, text) if act is Act.ANSWERS else None

    skipped = []
    for name in (name for name in dir(Plain) if name.startswith("test_")):
        try:
            getattr(Plain(), name)()
        except SkipTest:
            skipped.append(name)

    assert skipped == [
        "test_a_failure_of_upstream_is_one_for_the_breaker",
        "test_a_reached_limit_is_a_rate_limit_error",
        "test_a_refusal_is_raised_by_read",
        "test_a_refused_key_is_an_auth_error",
        "test_garbage_is_a_parse_error",
        "test_limits_are_known_from_the_start",
        "test_the_key_is_shown_nowhere",
        "test_what_it_cannot_do_is_refused_before_anything_is_sent",
    ]
