"""The live page over HTTP: files that are for everybody, and data that are for admins."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import NO_JITTER, SILENT, Scripted, fails, model, says
from tests.server.http_wire import HttpWire, Served, served
from tests.server.keyed import key
from wizard_actors import __version__
from wizard_actors.config import RouteConfig, ServerConfig
from wizard_actors.errors import OverloadedError
from wizard_actors.server.key_settings import KeyConfig, KeyLimitConfig, KeysConfig

FILES: Final = {
    "/": "text/html; charset=utf-8",
    "/page.css": "text/css; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
    "/page.svg": "image/svg+xml",
}
DATA: Final = ("/api/state", "/api/events")
ADMIN: Final = {"authorization": "Bearer wz_alice"}
DOWN: Final = fails(OverloadedError("down", model="a", status=503))


def keys(*, admin: bool = True) -> list[KeyConfig]:
    """Return the keys of alice, who may be an admin, and of bob, who is none."""
    return [key("alice", admin=admin), key("bob")]


async def put(server: Served, *now: KeyConfig) -> None:
    """Have other keys be in force."""
    server.service.access.replace(KeysConfig(keys=now), bound=[])
    await wait_all_tasks_blocked()


def subscriptions(server: Served) -> int:
    """Return how many read the client's events."""
    return len(server.client.events._subscriptions)


async def listening(server: Served, query: str = "", **headers: str) -> HttpWire:
    """Return a connection on which events come from now on."""
    wire = server.connect()
    await wire.send("GET", f"/api/events{query}", **headers)
    assert (await wire.head())[0] == 200
    assert await wire.piece() == b": here\n\n"
    return wire


async def told(wire: HttpWire) -> dict[str, Any]:
    """Return the next event, but for pings: what its data say."""
    with trio.fail_after(60):
        while b"data: " not in (piece := await wire.piece() or b"data: null"):
            pass
    read: dict[str, Any] = json.loads(piece.decode().partition("data: ")[2].splitlines()[0])
    return read


async def rest(wire: HttpWire) -> bytes:
    """Return what comes until the response ends, as it should."""
    said = b""
    with trio.fail_after(60):
        while (piece := await wire.piece()) is not None:
            said += piece
    return said


# -- the files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES)
async def test_the_page_s_files_are_for_everybody(path: str) -> None:
    """With headers by which nothing comes from elsewhere and nobody frames them; their content says nothing."""
    async with served(Scripted(), keys=keys()) as server:
        reply = await server.connect().ask("GET", path)
        assert (reply.status, reply.headers["content-type"]) == (200, FILES[path])
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        policy = dict(part.strip().split(" ", 1) for part in reply.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"


async def test_the_page_asks_nobody_else_and_writes_no_html() -> None:
    """Its files name no other host, and what they show goes in as text."""
    async with served(Scripted()) as server:
        wire = server.connect()
        text = "".join([(await wire.ask("GET", path)).body.decode() for path in FILES])
        assert re.findall(r"https?://[^\"']+", text) == ["http://www.w3.org/2000/svg"]
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage| style=", text
        )


# -- who may see the data --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DATA)
async def test_the_data_are_for_admins(autojump_clock: MockClock, path: str) -> None:
    """401 without a key or with a wrong one, 403 with one that is no admin's; nobody is left subscribed."""
    async with served(Scripted(), keys=keys()) as server:
        wire = server.connect()
        assert (await wire.ask("GET", path)).status == 401
        assert (await wire.ask("GET", path, authorization="Bearer wz_nobody")).status == 401
        refused = await wire.ask("GET", path, authorization="Bearer wz_bob")
        assert (refused.status, refused.json["error"]["code"]) == (403, "access_denied")
        assert "bob" in refused.json["error"]["message"]
        assert subscriptions(server) == 0


async def test_an_admin_and_where_there_are_no_keys_everybody_sees_the_state(autojump_clock: MockClock) -> None:
    """Nothing that stores responses keeps it."""
    async with served(Scripted(), keys=keys()) as server:
        reply = await server.connect().ask("GET", "/api/state", **ADMIN)
        assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
        assert reply.json["server"]["keys"] is True
    async with served(Scripted()) as server:
        assert (await server.connect().ask("GET", "/api/state")).json["server"]["keys"] is False


# -- how everything stands -------------------------------------------------------------------------------


async def test_the_state_says_what_there_is_and_how_it_stands(autojump_clock: MockClock) -> None:
    """The tree, the metrics, and the configuration's names."""
    both = {"a": Scripted(says("Yes.")), "b": Scripted()}
    async with served(both, routes=[RouteConfig(name="cheap", chain=("b", "a"), strategy="adaptive")]) as server:
        await trio.sleep(60)
        wire = server.connect()
        await wire.chat()
        state = (await wire.ask("GET", "/api/state")).json
        assert state["server"]["version"] == __version__
        assert state["server"]["uptime"] == pytest.approx(60, abs=1)
        assert [each["name"] for each in state["models"]] == ["a", "b"]
        assert state["models"][0]["provider"] == "simulated"
        assert state["routes"] == [
            {"name": "wizard", "strategy": "sequential", "chain": ["a", "b"]},
            {"name": "cheap", "strategy": "adaptive", "chain": ["b", "a"]},
        ]
        assert state["metrics"]["requests"]["answered"] == {"direct": 1}
        assert state["metrics"]["gauges"]["models"]["a"]["circuit"] == "closed"
        models = next(each for each in state["tree"]["children"] if each["name"] == "models")
        limiter = models["children"][0]["children"][0]
        assert (limiter["path"], limiter["restarts"]) == ("wizard/models/model:a/limiter", 0)
        assert limiter["lanes"]["asks_bound"] > 0
        assert state["failures"] == state["in_progress"] == []


async def test_the_state_says_what_keys_have_left(autojump_clock: MockClock) -> None:
    """Where there are any: as `stats` tells it over the WebSocket."""
    bounded = key("bob", rate_limit=KeyLimitConfig(requests_per_minute=3))
    async with served(Scripted(says("Yes.")), keys=[key("alice", admin=True), bounded]) as server:
        wire = server.connect()
        body = {"model": "wizard", "messages": [{"role": "user", "content": "Why?"}]}
        await wire.ask("POST", "/v1/chat/completions", body, authorization="Bearer wz_bob")
        shown = (await wire.ask("GET", "/api/state", **ADMIN)).json["keys"]
        assert list(shown) == ["alice", "bob"]
        assert shown["alice"]["requests_left"] is None
        assert shown["bob"]["requests_left"] == pytest.approx(2, abs=0.1)
        assert shown["bob"]["in_progress"] == 0
    async with served(Scripted()) as server:
        assert (await server.connect().ask("GET", "/api/state")).json["keys"] == {}


async def test_the_state_tells_what_has_failed_and_not_what_was_asked(autojump_clock: MockClock) -> None:
    """Each attempt with its model and error; neither prompts, nor answers, nor keys."""
    models = [model("a", retry=NO_JITTER), model("b")]
    both = {"a": Scripted(DOWN), "b": Scripted(says("A canary answers."))}
    async with served(both, *models, keys=keys()) as server:
        wire = server.connect()
        body = {"model": "wizard", "messages": [{"role": "user", "content": "canary in a mine"}]}
        asked = await wire.ask("POST", "/v1/chat/completions", body, **ADMIN)
        reply = await wire.ask("GET", "/api/state", **ADMIN)
        [failure] = reply.json["failures"]
        assert (failure["request_id"], failure["model"]) == (asked.headers["x-request-id"], "b")
        tried = [(each["model"], each["error"] and each["error"]["code"]) for each in failure["tried"]]
        assert tried == [("a", "overloaded")] * 3 + [("b", None)]
        assert b"canary" not in reply.body
        assert b"wz_" not in reply.body


async def test_the_state_shows_requests_in_progress(autojump_clock: MockClock) -> None:
    """For how long, and whom they ask."""
    async with served(Scripted(SILENT)) as server:
        asking = server.connect()
        await asking.send(
            "POST", "/v1/chat/completions", {"model": "a", "messages": [{"role": "user", "content": "?"}]}
        )
        await trio.sleep(3)
        [shown] = (await server.connect().ask("GET", "/api/state")).json["in_progress"]
        assert (shown["model"], shown["answering"]) == ("a", False)
        assert shown["seconds"] == pytest.approx(3, abs=0.5)


# -- what happens ----------------------------------------------------------------------------------------


async def test_events_come_as_they_happen(autojump_clock: MockClock) -> None:
    """All of them, or those that are asked for; none shows what was asked or answered."""
    async with served(Scripted(says("A canary."))) as server:
        everything, ends = await listening(server), await listening(server, "?types=request_ended,attempt_ended")
        await server.connect().chat("canary")
        assert (await told(everything))["event"]["type"] == "request_began"
        assert (await told(ends))["event"]["type"] == "attempt_ended"
        server.drain()
        said = await rest(everything)
        assert b"request_ended" in said
        assert b"canary" not in said


@pytest.mark.parametrize("query", ["?types=request_ended,nonsense", "?bound=3", "?types="])
async def test_events_that_there_are_not_are_refused(autojump_clock: MockClock, query: str) -> None:
    """With 400, and nobody is subscribed."""
    async with served(Scripted()) as server:
        assert (await server.connect().ask("GET", f"/api/events{query}")).status == 400
        assert subscriptions(server) == 0


async def test_a_head_of_the_events_ends_at_once(autojump_clock: MockClock) -> None:
    """There is nothing to wait for."""
    async with served(Scripted()) as server:
        wire = server.connect()
        await wire.stream.send_all(b"HEAD /api/events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert bytes(await wire.stream.receive_some()).startswith(b"HTTP/1.1 200")
        await wait_all_tasks_blocked()
        assert subscriptions(server) == 0


async def test_a_stream_of_events_says_every_ten_seconds_that_it_is_there(autojump_clock: MockClock) -> None:
    """For as long as it is read, however little happens."""
    async with served(Scripted()) as server:
        wire = await listening(server)
        began = trio.current_time()
        with trio.fail_after(2000):
            for pings in range(1, 101):
                assert await wire.piece() == b": ping\n\n"
                assert trio.current_time() - began == pytest.approx(10 * pings)


async def test_who_reads_too_slowly_is_told_what_was_dropped(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest make room, and nobody waits for the reader."""
    monkeypatch.setattr("wizard_actors.server.http_page.EVENTS_KEPT", 3)
    async with served(Scripted(says("Yes."))) as server:
        wire = await listening(server)
        asking = server.connect()
        reads_again = trio.Event()
        line = server.ends[0]._inner.send_stream  # type: ignore[attr-defined]  # a stapled stream, in memory
        pump = line.send_all_hook

        async def late() -> None:
            await reads_again.wait()
            await pump()

        line.send_all_hook = late
        for _ in range(6):
            await asking.chat()
        assert server.client.events.dropped > 10
        reads_again.set()
        said = b""
        with trio.move_on_after(5):
            while b"dropped" not in said and (piece := await wire.piece()) is not None:
                said += piece
        assert re.search(rb'event: dropped\ndata: {"dropped":\d\d}', said)


async def test_who_is_gone_is_subscribed_no_more(autojump_clock: MockClock) -> None:
    """At once."""
    async with served(Scripted()) as server:
        wire = await listening(server)
        assert subscriptions(server) == 1
        await wire.stream.aclose()
        await trio.sleep(2)
        assert (subscriptions(server), server.endpoint.connections) == (0, 0)


async def test_who_takes_nothing_is_subscribed_no_more(autojump_clock: MockClock) -> None:
    """After `server.send_timeout`, and something that was to be sent."""
    async with served(Scripted(), server=ServerConfig(send_timeout=5.0)) as server:
        await listening(server)
        server.ends[-1].stuck = True
        await trio.sleep(20)
        assert (subscriptions(server), server.endpoint.connections) == (0, 0)


@pytest.mark.parametrize("now", [[key("bob")], [key("alice"), key("bob")], [key("alice", admin=True, enabled=False)]])
async def test_a_stream_of_events_ends_with_the_key_s_right_to_it(
    autojump_clock: MockClock, now: list[KeyConfig]
) -> None:
    """Where the key is gone, is no admin's any more, or is shut out; it says so."""
    async with served(Scripted(), keys=keys()) as server:
        wire = await listening(server, **ADMIN)
        await put(server, *now)
        said = await rest(wire)
        assert said.startswith(b"event: end\ndata: ")
        assert b'"access_denied"' in said
        assert subscriptions(server) == 0


async def test_a_stream_of_events_goes_on_where_other_keys_change(autojump_clock: MockClock) -> None:
    """As long as its own is an admin's."""
    async with served(Scripted(says("Yes.")), keys=keys()) as server:
        wire = await listening(server, **ADMIN)
        await put(server, key("alice", admin=True), key("carol"))
        assert await wire.piece() == b": ping\n\n"
        assert subscriptions(server) == 1


async def test_a_stream_of_events_ends_when_the_server_drains(autojump_clock: MockClock) -> None:
    """It says why, and no new one begins."""
    async with served(Scripted()) as server:
        wire, other = await listening(server), server.connect()
        await other.stream.send_all(b"GET /api/events HTTP/1.1\r\nhost: 127.0.0.1\r\n")
        await trio.sleep(1)
        server.service.draining.set()
        assert b'"actor_stopped"' in await rest(wire)
        await other.stream.send_all(b"\r\n")
        assert bytes(await other.stream.receive_some()).startswith(b"HTTP/1.1 503")
        assert subscriptions(server) == 0
