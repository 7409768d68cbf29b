"""The embedded model under supervision: its process, the actor that owns it, and the provider in front of it."""

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import httpx
import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import Scripted, node, says
from wizard_actors import (
    ConfigError,
    ConfigProblem,
    ModelConfig,
    NetworkError,
    ResilientClient,
    RetryError,
    UnsupportedError,
    WizardConfig,
)
from wizard_actors.config import LocalConfig, RetryConfig, Secret
from wizard_actors.specs import State

ENGINE = "models/model:inside/engine"


@define
class World:
    """What the servers of a test do, and what became of them."""

    start_takes: float = 0.5
    fails: Exception | None = None
    servers: list["Server"] = field(factory=list)
    requests: list[httpx.Request] = field(factory=list)

    @property
    def running(self) -> list["Server"]:
        """The servers whose process runs."""
        return [server for server in self.servers if server.running]

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer a chat completion, where a server listens."""
        self.requests.append(request)
        if not any(request.url.port == server.port for server in self.running):
            raise httpx.ConnectError("refused", request=request)
        chunk = {"choices": [{"delta": {"content": "inside"}, "finish_reason": "stop"}], "usage": None}
        body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
        return httpx.Response(200, text=body, headers={"content-type": "text/event-stream"})


class Server:
    """Stands in for a `LocalServer`."""

    def __init__(self, world: World, gguf: Path | None, *, context: int, threads: int | None) -> None:
        self.world = world
        self.made_with = (gguf, context, threads)
        self.port = 4000 + len(world.servers)
        self.api_key = Secret(f"key-{self.port}")
        self.exit_status: int | None = None
        self.running = False
        self.stops = 0
        world.servers.append(self)

    async def start(self) -> str:
        await trio.sleep(self.world.start_takes)
        if self.world.fails is not None:
            raise self.world.fails
        self.running = True
        return f"http://127.0.0.1:{self.port}/v1"

    async def stop(self) -> None:
        await trio.lowlevel.checkpoint()
        self.running = False
        self.stops += 1

    def die(self, status: int = -9) -> None:
        """End as a process that was killed."""
        self.running = False
        self.exit_status = status


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world of servers that are none, reached without sockets."""
    world = World()
    monkeypatch.setattr("wizard_actors.providers.engine.LocalServer", lambda *args, **kw: Server(world, *args, **kw))
    monkeypatch.setattr(
        "wizard_actors.builder.make_http_client",
        lambda **_settings: httpx.AsyncClient(transport=httpx.MockTransport(world.answer)),
    )
    return world


@asynccontextmanager
async def client_inside(*, start_timeout: float = 30.0, fallback: bool = False) -> AsyncIterator[ResilientClient]:
    """Open a client of an embedded model, alone or before another."""
    local = LocalConfig(gguf=Path("tiny.gguf"), context=512, threads=2, start_timeout=start_timeout)
    inside = ModelConfig(
        name="inside", provider="local", local=local, retry=RetryConfig(max_attempts=2, base_delay=0.0)
    )
    others = [ModelConfig(name="b", provider="simulated")] if fallback else []
    providers = {"b": Scripted(says("from b"))} if fallback else {}
    config = WizardConfig(models=[inside, *others])
    async with ResilientClient.open(config, rng=Random(1), providers=providers) as client:
        yield client


async def test_the_engine_lives_as_long_as_the_client(autojump_clock: MockClock, world: World) -> None:
    """It is started with the tree, from what the configuration says, and ended with it."""
    async with client_inside() as client:
        assert trio.current_time() == 0.5
        assert [server.made_with for server in world.running] == [(Path("tiny.gguf"), 512, 2)]

        await trio.sleep(10.0)
        answer = await client.generate("Why?")

        assert answer.text == "inside"
        assert node(client, ENGINE).restarts == 0
        [request] = world.requests
        assert str(request.url) == "http://127.0.0.1:4000/v1/chat/completions"
        assert request.headers["authorization"] == "Bearer key-4000"
        assert json.loads(request.content)["stream"] is True
    assert world.running == []
    assert [server.stops for server in world.servers] == [1]


async def test_a_process_that_dies_is_replaced(autojump_clock: MockClock, world: World) -> None:
    """Within a second; calls then go to where the new one listens, with its key."""
    async with client_inside() as client:
        await client.generate("Why?")
        world.servers[0].die()
        await trio.sleep(2.0)

        assert node(client, ENGINE).restarts == 1
        assert "ended with status -9" in str(node(client, ENGINE).error)
        assert world.servers[0].stops == 1
        await client.generate("Why?")
        assert [request.url.port for request in world.requests] == [4000, 4001]
        assert world.requests[1].headers["authorization"] == "Bearer key-4001"


async def test_while_nothing_runs_the_model_is_unreachable(autojump_clock: MockClock, world: World) -> None:
    """Dead and not noticed yet, or waiting out a backoff: a network error, which the next model makes up for."""
    async with client_inside(fallback=True) as client:
        world.servers[0].die()
        unnoticed = await client.generate("Why?")
        await trio.sleep(2.0)
        world.servers[1].die()
        await trio.sleep(1.0)
        assert node(client, ENGINE).state in {State.BACKOFF, State.STARTING}
        waiting = await client.generate("Why?")

        for answer in (unnoticed, waiting):
            assert answer.model == "b"
            assert {type(attempt.error) for attempt in answer.attempts[:-1]} == {NetworkError}
        assert "is not running" in str(waiting.attempts[0].error)


async def test_an_engine_that_cannot_start_keeps_nobody_from_opening(autojump_clock: MockClock, world: World) -> None:
    """The other models answer; alone, the error says why it does not run, and is not retried where that is hopeless."""
    for reason, kind, tries in (
        (UnsupportedError("the engine is not installed", feature="local"), UnsupportedError, 1),
        (ConfigError([ConfigProblem("local.gguf", "is not installed")]), UnsupportedError, 1),
        (OSError("is not installed"), RetryError, 2),
    ):
        world.fails = reason
        async with client_inside(fallback=True) as client:
            assert (await client.generate("Why?")).model == "b"
        async with client_inside() as client:
            with pytest.raises(kind) as caught:
                await client.generate("Why?")

            assert "is not installed" in str(caught.value)
            assert len(caught.value.attempts) == tries
            assert "is not installed" in str(node(client, ENGINE).error)
            await trio.sleep(30.0)
            assert node(client, ENGINE).state is State.DOWN
    assert world.running == []


async def test_a_start_that_takes_too_long_is_given_up(autojump_clock: MockClock, world: World) -> None:
    """After `start_timeout`; what it had begun is ended."""
    world.start_takes = math.inf
    async with client_inside(start_timeout=4.0) as client:
        assert trio.current_time() == 4.0
        assert "did not start in 4 s" in str(node(client, ENGINE).error)
        assert world.servers[0].stops == 1


async def test_the_provider_stays_the_same_while_the_engine_does(autojump_clock: MockClock, world: World) -> None:
    """What it has learned of the server is not forgotten from call to call."""
    async with client_inside() as client:
        provider = client._inside.shared.ports["inside"].provider
        await client.generate("Why?")
        first = provider._provider  # type: ignore[attr-defined]  # a look inside
        await client.generate("Why?")
        assert provider._provider is first  # type: ignore[attr-defined]  # a look inside

        world.servers[0].die()
        await trio.sleep(2.0)
        await client.generate("Why?")
        await wait_all_tasks_blocked()
        assert provider._provider is not first  # type: ignore[attr-defined]  # a look inside
