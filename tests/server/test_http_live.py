"""What clients of others' making see of an answer while it is written, and what stops when they stop: over sockets."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import trio
from attrs import field, frozen

from tests.loopback import Wire, chunk, response, serving
from tests.models import SILENT, Scripted, Seen, Turn, cut, says
from tests.server.http_asked import ANSWER, FORMATS, PATHS, How, body_of, listened, whole
from tests.server.http_sdks import Sdks, beside
from tests.server.http_wire import served
from tests.server.keyed import key
from tests.server.live import Files, live
from wizard_actors.config import Secret
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.openai import OpenAIProvider

ASKED: Any = [{"role": "user", "content": "Why?"}]
QUICK_ENOUGH = 0.2
"""Seconds within which a call has to be stopped."""

SPEAKS = Turn(("One ", "two ", 1000.0))
both_sdks = pytest.mark.parametrize("sdk", ["openai", "anthropic"])


# -- clients that stop -----------------------------------------------------------------------------------------------


@both_sdks
async def test_a_stream_that_its_reader_leaves_stops_the_call(sdk: str) -> None:
    """After the first words."""

    def leave(client: openai.OpenAI) -> str:
        with client.chat.completions.create(model="first", messages=ASKED, stream=True) as stream:
            return next(chunk.choices[0].delta.content for chunk in stream if chunk.choices[0].delta.content)

    def leave_messages(client: anthropic.Anthropic) -> str:
        with client.messages.stream(model="first", messages=ASKED, max_tokens=10) as stream:
            return next(iter(stream.text_stream))

    async with beside(SPEAKS) as sdks:
        said = await (sdks.ask_openai(leave) if sdk == "openai" else sdks.ask_anthropic(leave_messages))
        assert said == "One "
        assert await sdks.left() < QUICK_ENOUGH
        assert len(sdks.second.calls) == 1


@both_sdks
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("turn", [SILENT, SPEAKS], ids=["silent", "speaking"])
async def test_a_cancelled_task_of_asyncio_stops_the_call(sdk: str, stream: bool, turn: Turn) -> None:
    """Also in the silence before the first word; the SDK does not come again."""
    async with beside(turn) as sdks:
        begun = asyncio.Event()

        async def main() -> None:
            loop = asyncio.get_running_loop()

            def on_open(_seen: Seen) -> None:
                loop.call_soon_threadsafe(begun.set)

            sdks.second.on_open = on_open
            task = asyncio.create_task(_ask(sdks, sdk, stream=stream))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        await trio.to_thread.run_sync(lambda: asyncio.run(main()))
        assert await sdks.left() < QUICK_ENOUGH
        assert len(sdks.second.calls) == 1


async def _ask(sdks: Sdks, sdk: str, *, stream: bool) -> None:
    """Ask with an SDK's asynchronous client, and read to the end."""
    if sdk == "openai":
        base = f"http://127.0.0.1:{sdks.port}/v1"
        direct = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(base_url=base, api_key="none", http_client=direct) as client:
            asked: Any = client.chat.completions.create(model="first", messages=ASKED, stream=stream)
            answer = await asked
            async for _ in answer if stream else _nothing():
                pass
    else:
        http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
        base = f"http://127.0.0.1:{sdks.port}"
        async with anthropic.AsyncAnthropic(base_url=base, api_key="none", http_client=http) as messages:
            asked = messages.messages.create(model="first", messages=ASKED, max_tokens=10, stream=stream)
            answer = await asked
            async for _ in answer if stream else _nothing():
                pass


async def _nothing() -> AsyncIterator[None]:
    for _ in ():
        yield


# -- streams that fail -----------------------------------------------------------------------------------------------


@both_sdks
async def test_a_stream_that_breaks_off_raises(sdk: str) -> None:
    """Where the SDK's reader is: it never takes a part for the whole."""
    said: list[str] = []

    def read(client: openai.OpenAI) -> None:
        with client.chat.completions.create(model="first", messages=ASKED, stream=True) as stream:
            said.extend(chunk.choices[0].delta.content or "" for chunk in stream)

    def read_messages(client: anthropic.Anthropic) -> None:
        with client.messages.stream(model="first", messages=ASKED, max_tokens=10) as stream:
            said.extend(stream.text_stream)

    async with beside(cut("One ", "two ")) as sdks:
        with pytest.raises((openai.APIError, anthropic.APIError), match="second"):
            await (sdks.ask_openai(read) if sdk == "openai" else sdks.ask_anthropic(read_messages))
        assert "".join(said) == "One two "
        assert len(sdks.second.calls) == 1


# -- lists of models -------------------------------------------------------------------------------------------------


async def test_the_sdks_list_what_may_be_asked() -> None:
    """And show one of it; what is not there is a `NotFoundError`."""

    def look(client: openai.OpenAI | anthropic.Anthropic) -> tuple[list[str], str]:
        with pytest.raises((openai.NotFoundError, anthropic.NotFoundError)):
            client.models.retrieve("first")
        return [each.id for each in client.models.list()], client.models.retrieve("second").id

    async with beside(whole(), keys=[key("alice", models=["second"])]) as sdks:
        assert await sdks.ask_openai(look, "wz_alice") == (["second", "wizard"], "second")
        assert await sdks.ask_anthropic(look, "wz_alice") == (["second", "wizard"], "second")


# -- the whole server ------------------------------------------------------------------------------------------------


async def test_a_server_from_its_files_answers_what_is_in_progress_when_it_stops(tmp_path: Path) -> None:
    """Beside the WebSocket; and takes nothing new."""
    files = Files(tmp_path, 'http = "127.0.0.1:0"', {"first": {"per_chunk": 0.1}}, keys={"alice": "wz_alice"})

    def use(base_url: str, stop: Callable[[], None]) -> str:
        said, direct = "", openai.DefaultHttpxClient(trust_env=False)
        with openai.OpenAI(base_url=base_url, api_key="wz_alice", http_client=direct, max_retries=0) as client:
            with client.chat.completions.create(model="wizard", messages=ASKED, stream=True) as stream:
                for chunk in stream:
                    if chunk.choices[0].delta.content and not said:
                        trio.from_thread.run_sync(stop)
                    said += chunk.choices[0].delta.content or ""
            with pytest.raises((openai.APIConnectionError, openai.InternalServerError)):
                client.models.list()
        return said

    with trio.fail_after(20):
        async with live(files) as running:
            [url] = [each for each in running.endpoints if each.startswith("http://")]
            assert await trio.to_thread.run_sync(use, f"{url}/v1", running.server.stop) == "All is well."
            await running.ended.wait()


# -- curl ------------------------------------------------------------------------------------------------------------


def piece(text: str) -> bytes:
    """Return a chunk of an upstream's stream."""
    return chunk(b'data: {"id":"1","model":"m","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text.encode())


FINISH = chunk(b'data: {"id":"1","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')


@frozen
class Upstream:
    """A model that says its first word, and its last when it is let."""

    seen: trio.Event = field(factory=trio.Event)
    log: list[str] = field(factory=list)

    async def __call__(self, wire: Wire) -> None:
        await wire.request()
        await wire.send(response(200, {"content-type": "text/event-stream"}, [], cut=True))
        for word in ("first", "last"):
            if word == "last":
                await self.seen.wait()
            self.log.append(word)
            await wire.send(piece(word))
        await wire.send(FINISH + chunk(b"data: [DONE]\n\n") + chunk(b""))


@asynccontextmanager
async def curl(*arguments: str) -> AsyncIterator[trio.Process]:
    """Run curl for the length of a block."""
    found = shutil.which("curl")
    if found is None:
        pytest.skip("there is no curl here")
    process = await trio.lowlevel.open_process(
        [found, "-sS", "--noproxy", "*", "--max-time", "10", *arguments], stdout=subprocess.PIPE
    )
    async with trio.open_nursery() as nursery:
        try:
            yield process
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", FORMATS)
async def test_curl_shows_the_first_word_before_the_upstream_has_said_its_last(how: How) -> None:
    """`curl -N`: nothing holds a stream up on its way."""
    upstream = Upstream()
    async with serving(upstream) as base_url, make_http_client() as http:
        settings = HttpSettings(name="a", model="m", base_url=base_url, api_key=Secret("sk-1"), upstream="auto")
        with trio.fail_after(15):
            async with served({"a": OpenAIProvider(settings, http)}) as server:
                url = f"http://127.0.0.1:{await listened(server)}{PATHS[how]}"
                body = json.dumps(body_of(how, stream=True))
                async with curl("-N", "-H", "content-type: application/json", "-d", body, url) as process:
                    said = b""
                    assert process.stdout is not None
                    while b"first" not in said:
                        said += await process.stdout.receive_some()
                    assert upstream.log == ["first"]
                    upstream.seen.set()
                    while more := await process.stdout.receive_some():
                        said += more
                assert b"last" in said
                assert (b"[DONE]" if how == "openai" else b"message_stop") in said


async def test_curl_that_is_interrupted_stops_the_call() -> None:
    """A process that ends closes its connection."""
    upstream = Scripted(says("One ", 1000.0, ANSWER))
    with trio.fail_after(15):
        async with served(upstream) as server:
            url = f"http://127.0.0.1:{await listened(server)}/v1/chat/completions"
            body = '{"model": "a", "stream": true, "messages": [{"role": "user", "content": "Why?"}]}'
            async with curl("-N", "-d", body, url) as process:
                assert process.stdout is not None
                await process.stdout.receive_some()
            while upstream.in_flight:  # noqa: ASYNC110 - a process, and no event of ours
                await trio.sleep(0.005)
            await trio.testing.wait_all_tasks_blocked(0.005)
            assert server.client.supervisor.outstanding == {}
