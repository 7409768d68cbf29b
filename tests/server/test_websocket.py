"""Requests over a connection: each has exactly one response, whatever it asks and however it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.models import Scripted, Turn, assert_nothing_held, fails, says
from tests.server.wire import key, served
from wizard_actors.config import ServerConfig
from wizard_actors.errors import RateLimitError
from wizard_actors.server import methods
from wizard_actors.server.call import Call
from wizard_actors.server.key_settings import KeysConfig

SLOW = says(1000.0, "late")


async def test_an_answer_comes_as_the_response(autojump_clock: MockClock) -> None:
    """A request to generate has one response, the whole answer."""
    async with served(Scripted(says("Hello"))) as server:
        wire = await server.connect()

        answer = await wire.call("generate", prompt="Why?")

        assert (answer["text"], answer["model"]) == ("Hello", "a")
        assert wire.seen == []


async def test_responses_come_in_the_order_in_which_requests_end(autojump_clock: MockClock) -> None:
    """A slow request holds up no other one of its connection."""
    async with served({"slow": Scripted(says(5.0, "late")), "quick": Scripted(says("soon"))}) as server:
        wire = await server.connect()
        slow = await wire.ask("generate", prompt="Why?", model="slow")
        quick = await wire.ask("generate", prompt="Why?", model="quick")

        assert [(await wire.next())["id"], (await wire.next())["id"]] == [quick, slow]


async def test_a_failure_carries_code_facts_and_attempts(autojump_clock: MockClock) -> None:
    """What a model said travels as facts, with instants that mean something elsewhere."""
    limited = Scripted(fails(RateLimitError("slow down", model="a", status=429, retry_after=700.0)))
    async with served(limited) as server:
        wire = await server.connect()

        error = await wire.failure("generate", prompt="Why?")

        assert error["code"] == -32000
        (attempt,) = error["data"]["attempts"]
        assert attempt["error"]["code"] == "rate_limit"
        assert attempt["error"]["retry_after"] == 700.0
        assert attempt["error"]["retry_at"] > 1_700_000_000


@pytest.mark.parametrize(
    ("method", "params", "said"),
    [
        ("generate", {}, "`prompt` is missing"),
        ("generate", {"prompt": "Why?", "temprature": 1}, "'temprature'"),
        ("generate", {"prompt": "Why?", "tenant": "bob"}, "'tenant'"),
        ("generate", {"prompt": {"messages": [{"role": "robot", "content": "x"}]}}, "messages[0]"),
        ("generate", {"prompt": "Why?", "route": 5}, "`route` must be a text, not a number"),
        ("generate", {"prompt": "Why?", "strategy": []}, "`strategy` must be a text, not a list"),
        ("generate", {"prompt": "Why?", "deadline": [1]}, "`deadline` must be a number of seconds, not a list"),
        ("generate", {"prompt": "Why?", "deadline": True}, "`deadline` must be a number"),
        ("generate", {"prompt": "Why?", "deadline": -1}, "deadline"),
        ("generate", {"prompt": "Why?", "cache": "often"}, "cache"),
        ("generate", {"prompt": "Why?", "raw": "yes"}, "`raw` must be true or false, not a text"),
        ("generate", {"prompt": "Why?", "route": "nowhere"}, "nowhere"),
        ("stream", {"prompt": "Why?", "credit": -1}, "`credit` must be a whole number from 0 to 65,536"),
        ("stream", {"prompt": "Why?", "credit": 65_537}, "`credit`"),
        ("stream", {"prompt": "Why?", "credit": 1.5}, "`credit`"),
        ("stream", {"prompt": "Why?", "delivery": "slowly"}, "delivery"),
        ("batch", {"prompts": "Why?"}, "`prompts` must be a list, not a text"),
        ("batch", {"prompts": ["a", {"messages": 5}]}, "prompts[1]"),
        ("batch", {"prompts": ["a"], "max_concurrency": 0}, "`max_concurrency`"),
        ("session.send", {"session": "s"}, "`prompt` is missing"),
        ("session.send", {"session": "s", "prompt": {"messages": "x", "system": "y"}}, "prompt.system"),
        ("session.create", {"session": ""}, "1 to 200 characters"),
        ("session.create", {"session": "s", "context": []}, "`context` must be an object"),
        ("session.list", {"limit": 0}, "`limit` must be a whole number from 1 to 1,000"),
        ("session.list", {"after": {"id": 1}}, "`after`"),
        ("models", {"all": True}, "it takes none"),
        ("cache.invalidate", {"text": 5}, "`text` must be a text"),
        ("cache.warm", {"prompts": ["a"], "key": "bob"}, "`key`"),
        ("subscribe", {"types": ["a", 5]}, "`types` must be a list of texts"),
        ("cancel", {}, "`id` is missing"),
        ("cancel", {"id": None}, "`id` must be the id of a request"),
        ("unsubscribe", {"id": 1.5}, "`id` must be the id of a request"),
    ],
)
async def test_wrong_parameters_are_told_by_name(
    autojump_clock: MockClock, method: str, params: dict[str, Any], said: str
) -> None:
    """Nothing is begun, and the connection goes on."""
    model = Scripted()
    async with served(model) as server:
        wire = await server.connect()

        error = await wire.failure(method, **params)

        assert error["code"] == -32602
        assert said in error["message"]
        assert model.calls == []
        assert await wire.call("models")


@pytest.mark.parametrize(
    ("frame", "code", "number"),
    [
        ("{", -32700, None),
        (b"{}", -32700, None),
        ('{"a": ' * 200 + "1" + "}" * 200, -32700, None),
        ("[]", -32600, None),
        ('{"jsonrpc": "2.0", "method": "models"}', -32600, None),
        ('{"jsonrpc": "2.0", "method": "credit", "params": {"id": "x", "n": 0}}', -32602, None),
        ('{"jsonrpc": "2.0", "id": null, "method": "models"}', -32600, None),
        ('{"jsonrpc": "1.0", "id": 7, "method": "models"}', -32600, 7),
        ('{"jsonrpc": "2.0", "id": 7, "method": "no.such"}', -32601, 7),
        ('{"jsonrpc": "2.0", "id": 7, "method": "credit", "params": {"id": "x", "n": 1}}', -32601, 7),
        ('{"jsonrpc": "2.0", "id": 7, "method": "models", "params": []}', -32602, 7),
    ],
)
async def test_what_is_no_request_is_answered_and_ends_nothing(
    autojump_clock: MockClock, frame: str | bytes, code: int, number: int | None
) -> None:
    """Each frame that cannot be done has an error of its own."""
    async with served(Scripted()) as server:
        wire = await server.connect()

        await wire.send(frame)
        response = await wire.response(number)

        assert response["error"]["code"] == code
        assert await wire.call("models")


async def test_an_id_in_use_is_refused_and_the_first_request_goes_on(autojump_clock: MockClock) -> None:
    """Also where the second one is wrong in another way: an error with that id would pass for the first one's."""
    async with served(Scripted(says(5.0, "Hello"))) as server:
        wire = await server.connect()
        request = {"jsonrpc": "2.0", "id": 1, "method": "generate", "params": {"prompt": "Why?"}}
        await wire.send(request)
        await wire.send(request)
        await wire.send({**request, "params": []})
        await wire.send({**request, "method": "cancel", "params": {"id": 1}})

        frames = [await wire.next() for _ in range(4)]

        assert [frame["id"] for frame in frames] == [None, None, None, 1]
        assert [frame["error"]["data"]["id"] for frame in frames[:3]] == [1, 1, 1]
        assert frames[3]["result"]["text"] == "Hello"


async def test_an_id_is_free_again_once_its_response_was_read(autojump_clock: MockClock) -> None:
    """From that very moment on, a hundred times over; and 1 is not "1"."""
    async with served(Scripted()) as server:
        wire = await server.connect()

        for _ in range(100):
            await wire.send({"jsonrpc": "2.0", "id": 1, "method": "models"})
            assert "result" in await wire.response(1)
        for number in (1, "1"):
            await wire.send({"jsonrpc": "2.0", "id": number, "method": "generate", "params": {"prompt": "Why?"}})
        assert {(await wire.next())["id"], (await wire.next())["id"]} == {1, "1"}


async def test_a_request_is_cancelled_by_its_id(autojump_clock: MockClock) -> None:
    """A cancel stops the call upstream first, and then the request ends with the error for it."""
    slow = Scripted(SLOW)
    async with served(slow) as server:
        wire = await server.connect()
        request = await wire.ask("generate", prompt="Why?")
        await trio.sleep(1)
        assert slow.in_flight == 1

        assert await wire.call("cancel", id=request) == {"cancelled": True}
        response = await wire.response(request)

        assert slow.in_flight == 0
        assert (response["error"]["code"], response["error"]["data"]["code"]) == (-32800, "cancelled")
        assert await wire.call("cancel", id=request) == {"cancelled": False}
        await assert_nothing_held(server.client, slow)


async def test_cancelling_waits_for_nobody_and_the_response_for_the_end(autojump_clock: MockClock) -> None:
    """The cancel is answered at once; the request once its call has been left, however long that takes."""
    lingering = Scripted(Turn((1000.0,), closing=3.0))
    async with served(lingering) as server:
        wire = await server.connect()
        request = await wire.ask("generate", prompt="Why?")
        await trio.sleep(1)

        await wire.tell("cancel", id=request)
        assert await wire.call("models")
        began = trio.current_time()
        await wire.response(request)

        assert trio.current_time() - began == pytest.approx(3.0)
        assert lingering.in_flight == 0


async def test_a_bug_is_the_answer_to_its_request_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its traceback; also one that comes in a group; the connection and the server go on."""

    async def buggy(call: Call) -> object:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise ZeroDivisionError

    monkeypatch.setattr("wizard_actors.server.connection.METHODS", {**methods.METHODS, "models": buggy})
    async with served(Scripted()) as server:
        wire = await server.connect()

        with caplog.at_level(logging.ERROR, "wizard_actors.server"):
            error = await wire.failure("models")

        assert (error["code"], error["data"]["code"]) == (-32603, "internal")
        assert "ZeroDivisionError" in caplog.text
        assert "ZeroDivisionError" not in error["message"]
        assert (await wire.call("generate", prompt="Why?"))["text"] == "Hello"


async def test_a_result_that_no_json_can_hold_is_a_bug(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The request has its response all the same."""

    async def buggy(call: Call) -> object:  # noqa: ASYNC124 - as methods are
        return {"a": object()}

    monkeypatch.setattr("wizard_actors.server.connection.METHODS", {**methods.METHODS, "models": buggy})
    async with served(Scripted()) as server:
        wire = await server.connect()

        assert (await wire.failure("models"))["code"] == -32603


async def test_more_requests_than_may_be_in_progress_are_refused_at_once(autojump_clock: MockClock) -> None:
    """A connection's bound: those in progress go on, and when one has ended there is room."""
    async with served(Scripted(says(5.0, "Hello")), server=ServerConfig(max_per_connection=2)) as server:
        wire = await server.connect()
        requests = [await wire.ask("generate", prompt="Why?") for _ in range(3)]

        refused = (await wire.response(requests[2]))["error"]

        assert trio.current_time() < 1
        assert (refused["data"]["code"], refused["data"]["actor"]) == ("mailbox_full", "server")
        for request in requests[:2]:
            assert (await wire.response(request))["result"]["text"] == "Hello"
        for _ in range(5):
            assert await wire.call("models")


async def test_a_keys_bound_is_one_for_all_its_connections(autojump_clock: MockClock) -> None:
    """And no other key's."""
    keys = [key("alice", max_in_flight=1), key("bob")]
    async with served(Scripted(says(5.0, "Hello")), keys=keys) as server:
        first, second = [await server.connect(bearer="wz_alice") for _ in range(2)]
        other = await server.connect(bearer="wz_bob")
        await first.ask("generate", prompt="Why?")
        await trio.testing.wait_all_tasks_blocked()

        assert (await second.failure("generate", prompt="Why?"))["data"]["code"] == "mailbox_full"
        assert (await other.call("generate", prompt="Why?"))["text"] == "Hello"


@pytest.mark.parametrize(
    "change",
    [lambda keys: [key("alice", enabled=False)], lambda keys: [key("bob")], lambda keys: [key("alice", "new")]],
)
async def test_a_key_that_is_in_force_no_more_ends_what_it_has_in_progress_and_its_connections(
    autojump_clock: MockClock, change: Callable[[object], list[Any]]
) -> None:
    """At once, also where nothing is asked: removed, disabled or replaced. Other keys go on."""
    model, others = Scripted(says(5.0, "Hello")), key("other", admin=True)
    async with served(model, keys=[key("alice", admin=True), others]) as server:
        wire, quiet = [await server.connect(bearer="wz_alice") for _ in range(2)]
        other = await server.connect(bearer="wz_other")
        asked = [await wire.ask("generate", prompt="Why?"), await wire.ask("batch", prompts=["a", "b"])]
        subscription, going_on = await wire.ask("subscribe"), await other.ask("generate", prompt="Why?")
        await trio.testing.wait_all_tasks_blocked()

        server.service.access.replace(KeysConfig(keys=[*change(None), others]), bound=[])
        with trio.fail_after(1):
            codes = {(await each.closed())[0] for each in (wire, quiet)}
            errors = [(await wire.response(each))["error"]["data"] for each in (*asked, subscription)]

        assert codes == {1008}
        assert {(error["code"], error["key"]) for error in errors} == {("access_denied", "alice")}
        assert (await other.response(going_on))["result"]["text"] == "Hello"
        await assert_nothing_held(server.client, model)


async def test_a_key_that_stays_keeps_its_connections(autojump_clock: MockClock) -> None:
    """Keys are replaced, again and again, and this one is among them; then it is not."""
    async with served(Scripted(), keys=[key("alice")]) as server:
        wire = await server.connect(bearer="wz_alice")
        for number in range(3):
            server.service.access.replace(KeysConfig(keys=[key("alice"), key(f"k{number}")]), bound=[])
            await trio.testing.wait_all_tasks_blocked()
            assert await wire.call("models")

        server.service.access.replace(KeysConfig(keys=[key("bob")]), bound=[])

        with trio.fail_after(1):
            assert (await wire.closed())[0] == 1008


async def test_a_connection_that_is_closed_for_its_key_takes_no_requests(autojump_clock: MockClock) -> None:
    """Though the key is in force again before it is closed: what was begun now would be cut off."""
    model = Scripted(Turn((1000.0,), closing=3.0))
    async with served(model, keys=[key("alice")]) as server:
        wire = await server.connect(bearer="wz_alice")
        await wire.ask("generate", prompt="Why?")
        await trio.sleep(1)
        server.service.access.replace(KeysConfig(keys=[key("bob")]), bound=[])
        await trio.testing.wait_all_tasks_blocked()
        server.service.access.replace(KeysConfig(keys=[key("alice")]), bound=[])

        error = await wire.failure("generate", prompt="Why?")
        code, _reason = await wire.closed()

        assert (error["data"]["code"], code) == ("access_denied", 1008)
        assert len(model.calls) == 1


@pytest.mark.parametrize("method", ["tree", "stats", "cache.invalidate", "cache.warm", "subscribe"])
async def test_only_admins_look_at_the_server(autojump_clock: MockClock, method: str) -> None:
    """Others are refused, and told so, and stay connected."""
    async with served(Scripted(), keys=[key("alice"), key("root", admin=True)]) as server:
        wire = await server.connect(bearer="wz_alice")

        with trio.fail_after(10):
            error = await wire.failure(method)

        assert (error["code"], error["data"]["code"]) == (-32602, "access_denied")
        assert await wire.call("models")
