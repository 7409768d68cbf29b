"""A FastAPI application under uvicorn, over real sockets, whose clients leave whenever they like."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from random import Random

import anyio
import pytest
import uvicorn
from attrs import define
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from tests.models import Scripted, Step, Turn, model, says
from wizard_actors import ResilientClient, WizardConfig
from wizard_actors.config import CacheConfig, ServerConfig, TimeoutsConfig
from wizard_actors.specs import State

CLIENTS = 200
LONG = 60.0
"""Seconds that a model goes on where its caller stays: longer than the test."""

CHUNK = "x" * 4096 + " "
CHUNKS = 100


@define
class Service:
    """The application, what it runs on, and what its event loop complained of."""

    models: dict[str, Scripted]
    client: ResilientClient
    complaints: list[object]
    port: int = 0


def application(models: dict[str, Scripted], ready: list[Service]) -> FastAPI:
    """Return an app as users write it: one client for its life, a streaming endpoint and a plain one."""
    config = WizardConfig(
        models=[model(name, slots=300, timeouts=TimeoutsConfig(first_token=LONG, total=LONG)) for name in models],
        cache=CacheConfig(max_entries=0),
        server=ServerConfig(drain_timeout=5.0),
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        async with ResilientClient.open(config, rng=Random(1), providers=models) as client:
            ready.append(Service(models, client, complaints))
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/stream/{name}")
    async def stream(name: str, prompt: str) -> StreamingResponse:
        async def text() -> AsyncIterator[str]:
            async with ready[0].client.stream(prompt, model=name) as answer:
                async for piece in answer.text():
                    yield piece  # noqa: ASYNC119 - as applications write it

        return StreamingResponse(text(), media_type="text/plain")

    @app.get("/plain/{name}")
    async def plain(name: str, prompt: str, request: Request) -> str:
        """Answer whole; who goes away takes the call along, which no framework does by itself."""
        answers: list[str] = []
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(watch)
            answers.append((await ready[0].client.generate(prompt, model=name)).text)
            group.cancel_scope.cancel()
        return answers[0] if answers else ""

    return app


@contextmanager
def served(models: dict[str, Scripted], loop: str) -> Iterator[Service]:
    """Serve the app in a thread of its own."""
    ready: list[Service] = []
    settings = uvicorn.Config(application(models, ready), port=0, loop=loop, ws="none", log_level="warning")
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    try:
        eventually(lambda: server.started or not thread.is_alive())
        service = ready[0]
        service.port = server.servers[0].sockets[0].getsockname()[1]
        yield service
    finally:
        server.should_exit = True
        thread.join(10.0)
    assert not thread.is_alive()


def eventually(true: Callable[[], object], seconds: float = 10.0) -> float:
    """Wait until something is true, for so long at most; return how long that took."""
    start = time.monotonic()
    while not true() and time.monotonic() - start < seconds:
        time.sleep(0.005)
    return time.monotonic() - start


# -- clients -----------------------------------------------------------------------------------------------------------


class Visitor:
    """Asks once over a socket of its own, and leaves as it likes."""

    def __init__(self, port: int, number: int, rng: Random) -> None:
        self.port, self.number, self.rng = port, number, rng

    async def visit(self, how: str, path: str) -> str:
        """Return the body, as far as this client stayed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**12)
        try:
            writer.write(f"GET {path}?prompt={self.number} HTTP/1.0\r\nHost: here\r\n\r\n".encode())
            await writer.drain()
            if how == "at once":
                return ""
            if how == "soon":
                await asyncio.sleep(self.rng.uniform(0.0, 0.3))
                return ""
            async with asyncio.timeout(self.rng.uniform(0.1, 0.5) if how == "mid-stream" else LONG):
                return await self.read(reader, how)
        except TimeoutError:
            assert how == "mid-stream"
            return ""
        finally:
            if self.rng.random() < 0.5:
                writer.transport.abort()  # a reset, as of a process that was killed
            else:
                writer.close()

    async def read(self, reader: asyncio.StreamReader, how: str) -> str:
        body, bites = b"", self.rng.randint(1, 30) if how == "mid-stream" else 10**9
        while bites and (bite := await reader.read(1000 if how == "mid-stream" else 2**16)):
            body += bite
            bites -= 1
            if how == "slow":
                await asyncio.sleep(self.rng.uniform(0.0, 0.02))
        head, _, text = body.partition(b"\r\n\r\n")
        return (whole(text) if b"chunked" in head and how != "mid-stream" else text).decode()


def whole(body: bytes) -> bytes:
    """Return a body that came in chunks; raise where its end is missing."""
    text = b""
    while True:
        size, found, body = body.partition(b"\r\n")
        assert found, "cut off"
        if not (length := int(size, 16)):
            return text
        text, body = text + body[:length], body[length + 2 :]


async def crowd(port: int, rng: Random, wanted: dict[str, str]) -> Counter[str]:
    """Send all the clients; return how many came in each way, and assert that who stayed got everything."""
    came: Counter[str] = Counter()

    async def one(number: int) -> None:
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        how = rng.choice(["at once", "soon", "soon", "mid-stream", "mid-stream", "slow", "whole", "whole"])
        stays = how in ("slow", "whole")
        name = rng.choice(["short", "big"] if stays else ["short", "big", "endless", "silent"])
        kind = "stream" if name == "big" or rng.random() < 0.7 else "plain"
        text = await Visitor(port, number, rng).visit(how, f"/{kind}/{name}")
        came[how] += 1
        if stays:
            assert (json.loads(text) if kind == "plain" else text) == wanted[name]

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(one(number))
    return came


def scripted() -> dict[str, Scripted]:
    """Return models that are short, big, endless, and silent."""
    words: list[Step] = ["one ", 0.01, "two ", 0.01, "three"]
    endless: list[Step] = ["word ", 0.005] * 20
    return {
        "short": Scripted(says(*words)),
        "big": Scripted(says(*[CHUNK] * CHUNKS)),
        "endless": Scripted(says(*endless, LONG)),
        "silent": Scripted(Turn(head=LONG)),
    }


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_clients_that_disconnect_at_random_leave_nothing(
    loop: str, caplog: pytest.LogCaptureFixture, report_line: Callable[[str], None]
) -> None:
    """The supervisor is healthy, every upstream call has stopped, and who stayed got the whole answer."""
    models = scripted()
    wanted = {"short": "one two three", "big": CHUNK * CHUNKS}

    with served(models, loop) as service:
        came = asyncio.run(crowd(service.port, Random(7), wanted))

        seconds = eventually(lambda: not any(each.in_flight for each in models.values()), 5.0)
        calls = sum(len(each.calls) for each in models.values())
        cut_off = sum(call.left_with is not None for each in models.values() for call in each.calls)
        report_line(
            f"uvicorn on {loop}: {came.total()} clients {dict(sorted(came.items()))}, {calls} calls upstream, "
            f"{cut_off} of them cut off, none left {seconds:.3f} s after the last client"
        )
        assert seconds < 1.0
        eventually(lambda: not service.client.metrics().requests.in_flight, 1.0)
        requests = service.client.metrics().requests
        nodes = list(service.client.tree().walk())
    assert requests.in_flight == 0
    assert requests.began == sum(requests.answered.values()) + sum(requests.failed.values()) + requests.cancelled
    assert not requests.failed
    assert cut_off > CLIENTS / 8
    assert {node.state for node in nodes} == {State.RUNNING}
    assert sum(node.restarts for node in nodes) == 0
    assert service.client.supervisor.outstanding == {}
    assert service.complaints == []
    assert [record.message for record in caplog.records if record.name != "asyncio"] == []  # asyncio tells of resets
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("wizard_actors")]


def test_a_reader_that_is_slow_sets_the_pace_of_the_model() -> None:
    """Its answer is not heaped up: what fills the sockets and the pipe stops the model."""
    read = 0

    def step() -> Iterator[Step]:
        nonlocal read
        for _ in range(20_000):
            read += 1
            yield CHUNK

    turn = says()
    object.__setattr__(turn, "steps", step())  # a model that makes up its answer as it is read
    models = {"big": Scripted(turn)}
    with served(models, "asyncio") as service:

        async def look() -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port, limit=2**12)
            writer.write(b"GET /stream/big?prompt=1 HTTP/1.0\r\nHost: here\r\n\r\n")
            await reader.read(1000)
            before = -1
            while before != read:
                before = read
                await asyncio.sleep(0.2)
            writer.transport.abort()
            return read

        stopped_at = asyncio.run(look())
        eventually(lambda: not models["big"].in_flight, 2.0)
    assert stopped_at < 5_000  # of 20,000, as much as the system's buffers take
    assert models["big"].in_flight == 0
