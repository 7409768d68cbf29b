"""A chain against an independent upstream over real sockets, judged by that upstream's own verdict on its client.

Both models of the chain have one upstream id, so that the upstream sees the fallback as what it is to a person:
another try of the same call.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from tests.integration.llmock import Behavior, LlmockServer, delay, fail, reply, slow_first_token, stream_fault
from tests.loopback import Wire, chunk, response, serving
from wizard_actors import (
    FallbackError,
    RequestError,
    ResilientClient,
    ServedBy,
    TextDelta,
    WizardConfig,
    WizardResponse,
)
from wizard_actors.providers.base import Answer, Call
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.openai import OpenAIProvider

SENTENCE = "Actors own their state, and whoever asked owns the call."


class AfterTheFirst:
    """A provider that sends nothing before the upstream has noted the end of what came before.

    Its verdict takes two requests for one call only where it saw the first one end, and a fallback is quicker than
    that.
    """

    streams = True

    def __init__(self, provider: OpenAIProvider, server: LlmockServer) -> None:
        self._provider = provider
        self._server = server

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Answer]:
        """Send the call."""
        with trio.move_on_after(0.2):  # a silent upstream notes no end
            await self._server.requests()
        async with self._provider.open(call) as answer:
            yield answer


@asynccontextmanager
async def chain(
    base_url: str, *, attempts: int = 3, delivery: str = "live", judge: LlmockServer | None = None
) -> AsyncIterator[ResilientClient]:
    """A client of two models at one upstream, impatient enough for a test; `judge` is to take them for one."""
    config = WizardConfig.from_toml(
        f"""
        [defaults]
        timeouts = {{ first_token = 0.4, stall = 0.4 }}
        retry = {{ max_attempts = {attempts}, base_delay = 0.2 }}
        [[models]]
        name = "primary"
        provider = "openai"
        model = "gpt-test"
        base_url = "{base_url}"
        [[models]]
        name = "backup"
        provider = "openai"
        model = "gpt-test"
        base_url = "{base_url}"
        [stream]
        delivery = "{delivery}"
        """,
        env={},
    )
    async with make_http_client() as http:
        backup = OpenAIProvider.from_config(config.model("backup"), http)
        providers = {} if judge is None else {"backup": AfterTheFirst(backup, judge)}
        async with ResilientClient.open(config, rng=Random(1), providers=providers) as client:
            yield client


async def streamed(client: ResilientClient, prompt: str) -> WizardResponse:
    """Read a stream to its end; what was delivered is the whole answer, and nothing of a failed attempt."""
    async with client.stream(prompt) as stream:
        delivered = [event.text async for event in stream if isinstance(event, TextDelta)]
    assert "".join(delivered) == stream.response.text
    return stream.response


async def test_a_429_is_waited_out(llmock_server: LlmockServer) -> None:
    """The same model is asked again, not before the upstream allows it."""
    await llmock_server.script(fail(429, retry_after=1), reply(SENTENCE))
    async with chain(llmock_server.base_url) as client:
        answer = await client.generate("wait for me")

    first, second = await llmock_server.requests()
    assert answer.text == SENTENCE
    assert (answer.model, answer.served_by) == ("primary", ServedBy.RETRY)
    assert float(str(second["started_at"])) - float(str(first["ended_at"])) >= 1.0
    assert await llmock_server.findings() == []


@pytest.mark.parametrize("status", [500, 503, 529])
async def test_a_server_error_is_retried(llmock_server: LlmockServer, status: int) -> None:
    """One failure costs a second try of the same model, after a pause."""
    await llmock_server.script(fail(status, retry_after=0.1), reply(SENTENCE))
    async with chain(llmock_server.base_url) as client:
        answer = await client.generate(f"again after {status}")

    assert (answer.text, answer.model, len(answer.attempts)) == (SENTENCE, "primary", 2)
    assert await llmock_server.findings() == []


async def test_a_400_is_not_retried_and_reported(llmock_server: LlmockServer) -> None:
    """A refused request is not sent to the same model again; alone, the model's own error reaches the caller."""
    await llmock_server.script(fail(400, message="you cannot say that", times=None))
    async with chain(llmock_server.base_url) as client:
        with pytest.raises(RequestError, match="you cannot say that") as caught:
            await client.generate("bad request", model="primary")

    assert caught.value.status == 400
    assert len(await llmock_server.requests()) == 1
    assert await llmock_server.findings() == []


async def test_when_every_model_fails_the_error_lists_every_attempt(llmock_server: LlmockServer) -> None:
    """The caller learns what each model said."""
    await llmock_server.script(fail(500, times=None, retry_after=0.1))
    async with chain(llmock_server.base_url, attempts=2) as client:
        with pytest.raises(FallbackError) as caught:
            await client.generate("nobody answers")

    assert [attempt.model for attempt in caught.value.attempts] == ["primary", "primary", "backup", "backup"]


MID_STREAM = {
    "disconnect": stream_fault("disconnect", after_chunks=4),
    "truncate": stream_fault("truncate", after_chunks=4),
    "malformed": stream_fault("malformed", after_chunks=4),
    "stall": stream_fault("stall", after_chunks=4),
    "slow first token": slow_first_token(30),
    "silent server": delay(30),
}
BEFORE_CONTENT = {
    "disconnect": stream_fault("disconnect"),
    "truncate": stream_fault("truncate"),
    "malformed": stream_fault("malformed"),
    "stall": stream_fault("stall"),
    "slow first token": slow_first_token(30),
    "silent server": delay(30),
}


@pytest.mark.parametrize("fault", MID_STREAM.values(), ids=MID_STREAM.keys())
async def test_buffered_a_broken_stream_ends_in_the_fallbacks_whole_answer(
    llmock_server: LlmockServer, fault: Behavior
) -> None:
    """Whatever breaks in the middle of an answer, the consumer gets another model's whole answer instead."""
    await llmock_server.script(fault, reply(SENTENCE, times=2))
    async with chain(llmock_server.base_url, attempts=1, delivery="buffered", judge=llmock_server) as client:
        answer = await streamed(client, "buffered")

    assert (answer.text, answer.model, answer.served_by) == (SENTENCE, "backup", ServedBy.FALLBACK)
    assert [attempt.model for attempt in answer.attempts] == ["primary", "backup"]
    assert await llmock_server.findings() == []


@pytest.mark.parametrize("fault", BEFORE_CONTENT.values(), ids=BEFORE_CONTENT.keys())
async def test_live_a_stream_that_breaks_before_its_content_falls_back_unseen(
    llmock_server: LlmockServer, fault: Behavior
) -> None:
    """Nothing was delivered yet, so the fallback's answer is all that the consumer sees."""
    await llmock_server.script(fault, reply(SENTENCE, times=2))
    async with chain(llmock_server.base_url, attempts=1, judge=llmock_server) as client:
        answer = await streamed(client, "live")

    assert (answer.text, answer.model) == (SENTENCE, "backup")
    assert await llmock_server.findings() == []


@pytest.mark.parametrize("fault", MID_STREAM.values(), ids=MID_STREAM.keys())
async def test_generate_survives_a_broken_stream_too(llmock_server: LlmockServer, fault: Behavior) -> None:
    """`generate` asks upstream for a stream as well, so the same deadlines protect it."""
    await llmock_server.script(fault, reply(SENTENCE, times=2))
    async with chain(llmock_server.base_url, attempts=1, judge=llmock_server) as client:
        answer = await client.generate("whole")

    assert (answer.text, answer.model) == (SENTENCE, "backup")
    assert await llmock_server.findings() == []


async def test_cancelling_a_caller_mid_stream_closes_the_upstream_connection_at_once() -> None:
    """A caller that leaves stops costing money within 100 ms."""
    delta = b'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
    hung_up = trio.Event()
    hung_up_at = 0.0

    async def upstream(wire: Wire) -> None:
        nonlocal hung_up_at
        await wire.request()
        await wire.send(response(200, {"content-type": "text/event-stream"}, [delta], cut=True))
        await wire.send(chunk(delta))
        await wire.gone()
        hung_up_at = time.perf_counter()
        hung_up.set()

    async with serving(upstream) as base_url, chain(base_url) as client, trio.open_nursery() as nursery:

        async def caller(seen: trio.Event) -> None:
            async with client.stream("tell me everything") as stream:
                async for _ in stream:
                    seen.set()

        seen = trio.Event()
        nursery.start_soon(caller, seen)
        await seen.wait()
        left_at = time.perf_counter()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(5):
            await hung_up.wait()

    assert hung_up_at - left_at < 0.1
