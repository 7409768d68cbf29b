"""The endpoint under everything at once: whatever peers do, each request has one response at most, and just one where
its connection lives; and when all of them have gone, nothing is left.
"""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed
from wsproto.utilities import LocalProtocolError

from tests.models import SILENT, Scripted, Turn, assert_nothing_held, cut, fails, says
from tests.server.wire import Served, Wire, served
from wizard_actors.config import BatchConfig, CacheConfig, ServerConfig, StreamConfig
from wizard_actors.errors import OverloadedError

GARBAGE: Final[tuple[str | bytes, ...]] = (
    "",
    "null",
    "{",
    "[]",
    b"\x00",
    '{"jsonrpc": "2.0", "id": {}, "method": "models"}',
    '{"jsonrpc": "2.0", "method": 5}',
    '{"jsonrpc": "2.0", "id": 1.5, "method": "models"}',
    '{"a": ' * 300 + "1" + "}" * 300,
)


def flaky(rng: Random) -> Scripted:
    """Return a model that answers, dawdles, breaks off, fails and hangs."""
    ways = [
        says("Hello"),
        says("a", 0.5, "b", 0.5, "c"),
        says(*"abcdefghij"),
        cut("a", 0.3),
        fails(OverloadedError("busy", model="a", status=529)),
        Turn((3.0, "late"), closing=0.2),
        SILENT,
    ]
    return Scripted(*rng.choices(ways, k=60), says("Hello"))


def some_request(rng: Random, recent: list[int]) -> tuple[str, dict[str, Any]]:
    """Return a method and parameters, right or wrong."""
    other = rng.choice(recent) if recent else 0
    deadline: dict[str, Any] = rng.choice([{}, {"deadline": 2.0}, {"deadline": 0.5}])
    credit: dict[str, Any] = rng.choice([{}, {"credit": 0}, {"credit": 2}])
    session = rng.choice("xyz")
    return rng.choice(
        [
            ("generate", {"prompt": f"q{rng.randrange(5)}", **deadline}),
            ("stream", {"prompt": f"q{rng.randrange(5)}", **deadline, **credit}),
            ("batch", {"prompts": ["a"] * rng.randrange(6), **deadline, **credit}),
            ("session.send", {"session": session, "prompt": "?", **deadline}),
            ("session.stream", {"session": session, "prompt": "?", **deadline, **credit}),
            ("session.create", {"session": session, "system": "x"}),
            ("session.history", {"session": session}),
            ("session.delete", {"session": session}),
            ("session.list", {}),
            ("subscribe", {**credit, "bound": 3}),
            ("unsubscribe", {"id": other}),
            ("cancel", {"id": other}),
            ("cache.warm", {"prompts": ["a", "b"], **deadline}),
            ("cache.invalidate", {}),
            ("tree", {}),
            ("stats", {}),
            ("models", {}),
            ("models", {"wrong": 1}),
            ("no.such", {}),
            ("generate", {"prompt": 5}),
        ]
    )


async def misbehave(server: Served, rng: Random, *, leaves: bool) -> None:
    """Be one peer: ask, cancel, grant, send garbage; then leave rudely, or see that all is answered."""
    wire = await server.connect()
    asked: list[int] = []
    responses: Counter[object] = Counter()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count, wire, responses)
            for number in range(rng.randrange(5, 40)):
                await step(wire, rng, number, asked)
                await trio.sleep(rng.choice([0.0, 0.0, 0.01, 0.2]))
            if leaves:
                await rng.choice([wire.stream.aclose, wire.socket.aclose])()
            else:
                for number in asked:
                    await wire.tell("cancel", id=number)
                await trio.sleep(5)
            nursery.cancel_scope.cancel()
    except* (ConnectionClosed, LocalProtocolError):
        assert leaves
    finally:
        duplicates = {number: times for number, times in responses.items() if number is not None and times > 1}
        assert duplicates == {}
    assert leaves or set(responses) - {None} == set(asked)


async def step(wire: Wire, rng: Random, number: int, asked: list[int]) -> None:
    """Do one thing."""
    match rng.randrange(10):
        case 0:
            await wire.send(rng.choice(GARBAGE))
        case 1 if asked:
            await wire.tell("cancel", id=rng.choice(asked))
        case 2 if asked:
            await wire.tell("credit", id=rng.choice(asked), n=rng.choice([1, 5, 70_000]))
        case _:
            method, params = some_request(rng, asked)
            await wire.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
            asked.append(number)


async def count(wire: Wire, responses: Counter[object]) -> None:
    """Count the responses that come, each a frame of JSON."""
    while True:
        frame = json.loads(await wire.socket.get_message())
        if "method" not in frame:
            responses[frame["id"]] += 1


@pytest.mark.parametrize("seed", range(25))
async def test_each_request_has_one_response_and_nothing_is_left(
    autojump_clock: MockClock, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Random methods, cancels, credit, garbage and disconnects, on several connections at once; no bug is logged."""
    rng = Random(seed)
    upstream = flaky(rng)
    settings = ServerConfig(max_per_connection=12, max_per_key=30)
    async with served(
        upstream,
        server=settings,
        cache=CacheConfig(max_entries=3),
        batch=BatchConfig(max_concurrency=3),
        stream=StreamConfig(consumer_idle=2.0),
    ) as server:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                leaves = rng.random() < 0.5
                nursery.start_soon(lambda leaves: misbehave(server, Random(rng.random()), leaves=leaves), leaves)
        await trio.sleep(5)
        server.service.draining.set()
        server.service.ending.set()
        await wait_all_tasks_blocked()
        await trio.sleep(5)

        assert server.endpoint.connections == 0
        assert server.idle
        await assert_nothing_held(server.client, upstream)
    assert [record.getMessage() for record in caplog.records if record.name == "wizard_actors.server"] == []


async def test_a_hundred_random_cancels_leave_nothing(autojump_clock: MockClock) -> None:
    """Each at another moment of its request's life."""
    rng = Random(7)
    upstream = Scripted(says("a", 0.1, "b", 0.1, "c", 0.1, "d", 0.1, "e", 0.1))
    async with served(upstream) as server:
        wire = await server.connect()
        for number in range(100):
            method = rng.choice(["generate", "stream", "session.stream"])
            session = {"session": str(number)} if method == "session.stream" else {}
            request = await wire.ask(method, prompt="?", **session)
            await trio.sleep(rng.random() * 0.6)
            cancelled = await wire.call("cancel", id=request)

            response = await wire.response(request)

            assert cancelled["cancelled"] or "result" in response
            assert "result" in response or response["error"]["code"] == -32800
        await assert_nothing_held(server.client, upstream)
        assert server.idle
