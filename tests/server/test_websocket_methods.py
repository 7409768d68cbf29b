"""What the methods do: batches, sessions, and what admins look at."""

from __future__ import annotations

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.conversations import Shelf
from tests.models import Scripted, assert_nothing_held, fails, model, says
from tests.server.wire import key, served
from wizard_actors import ToolCallDelta
from wizard_actors.config import BatchConfig, CacheConfig, RouteConfig
from wizard_actors.errors import RequestError, StorageError
from wizard_actors.server.call import MOST_PROMPTS
from wizard_actors.server.key_settings import KeyLimitConfig, KeysConfig
from wizard_actors.session_record import SessionRecord


@pytest.mark.parametrize(
    ("method", "name"), [("generate", "deadline"), ("batch", "deadline"), ("session.send", "created_at")]
)
async def test_a_number_that_nothing_can_hold_is_told_by_its_name(
    autojump_clock: MockClock, method: str, name: str
) -> None:
    """JSON's whole numbers have no bound."""
    upstream = Scripted()
    async with served(upstream) as server:
        wire = await server.connect()
        params: dict[str, object] = {"prompts": ["?"]} if method == "batch" else {"prompt": "?"}
        if method == "session.send":
            params["session"] = "s"

        error = await wire.failure(method, **params, **{name: 10**400})

        assert (error["code"], f"`{name}`" in error["message"]) == (-32602, True)
        assert upstream.calls == []


# -- batches -----------------------------------------------------------------------------------------


async def test_each_prompt_of_a_batch_has_an_outcome(autojump_clock: MockClock) -> None:
    """Answers and errors alike, each with its index; then the total."""
    picky = Scripted(says("one"), fails(RequestError("no", model="a", status=400)), says("three"))
    async with served(picky) as server:
        wire = await server.connect()

        result = await wire.call("batch", prompts=["1", "2", {"messages": "3"}], max_concurrency=1)

        outcomes = wire.notifications("outcome")
        assert result == {"total": 3}
        assert [outcome["index"] for outcome in outcomes] == [0, 1, 2]
        assert [outcome.get("response", {}).get("text") for outcome in outcomes] == ["one", None, "three"]
        assert outcomes[1]["error"]["code"] == "request"


async def test_outcomes_spend_credit_and_hold_the_batch_up(autojump_clock: MockClock) -> None:
    """What has not been taken holds its place: no further prompt is asked."""
    quick = Scripted(says("a"))
    async with served(quick, batch=BatchConfig(max_concurrency=2)) as server:
        wire = await server.connect()
        request = await wire.ask("batch", prompts=["?"] * 10, credit=3, max_concurrency=1000)
        await wait_all_tasks_blocked(0.1)
        await wire.call("models")

        assert len(wire.notifications("outcome")) == 3
        assert len(quick.calls) == 5

        await wire.tell("credit", id=request, n=7)
        assert (await wire.response(request))["result"] == {"total": 10}


async def test_a_batch_that_gets_no_credit_ends(autojump_clock: MockClock) -> None:
    """With one error, though several outcomes wait; and nothing of it goes on."""
    quick = Scripted(says("a"))
    async with served(quick) as server:
        wire = await server.connect()

        error = await wire.failure("batch", prompts=["?"] * 10, credit=0)

        assert error["data"]["code"] == "deadline_exceeded"
        await assert_nothing_held(server.client, quick)


async def test_no_prompt_of_a_batch_is_asked_where_one_is_wrong(autojump_clock: MockClock) -> None:
    """All are read first."""
    quick = Scripted()
    async with served(quick) as server:
        wire = await server.connect()

        error = await wire.failure("batch", prompts=["?", {"messages": [{"role": "robot", "content": "?"}]}])

        assert "prompts[1].messages[0]" in error["message"]
        assert quick.calls == []


async def test_a_batch_has_a_bound(autojump_clock: MockClock) -> None:
    """More prompts than that are refused, and the first bad one is named before any is asked."""
    model = Scripted()
    async with served(model) as server:
        wire = await server.connect()

        error = await wire.failure("batch", prompts=["a"] * (MOST_PROMPTS + 1))
        bad = await wire.failure("batch", prompts=[*["a"] * (MOST_PROMPTS - 1), 5])

        assert (error["code"], "10,000" in error["message"]) == (-32602, True)
        assert f"prompts[{MOST_PROMPTS - 1}]" in bad["message"]
        assert model.calls == []


async def test_a_large_batch_lets_others_have_a_turn_while_it_is_read(autojump_clock: MockClock) -> None:
    """One for each hundred prompts."""
    async with served(Scripted()) as server:
        wire = await server.connect()
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        batch = await wire.ask("batch", prompts=[*["a"] * (MOST_PROMPTS - 1), 5])
        server.nursery.start_soon(others)
        await wire.response(batch)

        assert turns >= MOST_PROMPTS / 100


@pytest.mark.parametrize(("asked", "busy", "at_once"), [(1, 0, 1), (8, 0, 4), (8, 2, 2), (8, 3, 1)])
async def test_a_batch_asks_as_many_at_once_as_its_key_has_room_for(
    autojump_clock: MockClock, asked: int, busy: int, at_once: int
) -> None:
    """And they are taken: another request of the key finds no room, until the batch has ended."""
    models = {"a": Scripted(says(1.0, "Hello")), "busy": Scripted(says(1000.0, "late"))}
    async with served(models, keys=[key("alice", max_in_flight=4)]) as server:
        wire = await server.connect(bearer="wz_alice")
        for _ in range(busy):
            await wire.ask("generate", prompt="Why?", model="busy")
        batch = await wire.ask("batch", prompts=["a", "b", "c", "d", "e", "f"], max_concurrency=asked, model="a")
        await trio.sleep(0.5)

        assert models["a"].in_flight == at_once
        assert server.service.admission.of_key("alice") == busy + at_once
        assert (await wire.response(batch))["result"] == {"total": 6}
        assert server.service.admission.of_key("alice") == busy


async def test_a_batch_waits_for_the_limits_of_its_key(autojump_clock: MockClock) -> None:
    """Where a single request is refused at once, a batch is patient."""
    alice = key("alice", rate_limit=KeyLimitConfig(requests_per_minute=60, burst=1))
    async with served(Scripted(), keys=[alice]) as server:
        wire = await server.connect(bearer="wz_alice")

        assert await wire.call("batch", prompts=["?"] * 5) == {"total": 5}

        assert all("response" in outcome for outcome in wire.notifications("outcome"))
        assert 3 <= trio.current_time() < 8
        assert (await wire.failure("generate", prompt="?"))["data"]["code"] == "rate_limit"


@pytest.mark.parametrize("method", ["batch", "cache.warm"])
@pytest.mark.parametrize("way", [{"route": "old"}, {"model": "a"}])
async def test_a_batch_goes_on_though_what_it_asks_is_taken_away(
    autojump_clock: MockClock, method: str, way: dict[str, str]
) -> None:
    """Its later prompts go the old way, in the configuration in which it began; and that goes once it has ended."""
    models = {"a": Scripted(says(1.0, "a")), "b": Scripted()}
    routes = [RouteConfig(name="old", chain=("a",))]
    async with served(models, routes=routes, cache=CacheConfig(max_entries=10)) as server:
        wire, client = await server.connect(), server.client
        asked = await wire.ask(method, prompts=["1", "2", "3"], max_concurrency=1, **way)
        await trio.sleep(0.5)

        only_b = evolve(client.config, models=[model("b")], routes=[], fallback=RouteConfig(name="wizard"))
        await client.reload(only_b)
        result = (await wire.response(asked))["result"]

        assert len(models["a"].calls) == 3
        if method == "batch":
            assert ["response" in outcome for outcome in wire.notifications("outcome")] == [True] * 3
        else:
            assert (result["stored"], result["failed"]) == (3, [])
        await wait_all_tasks_blocked()
        assert client._inside._reloading.former == []


# -- sessions ----------------------------------------------------------------------------------------


async def test_a_session_goes_on_over_requests_and_connections(autojump_clock: MockClock) -> None:
    """Created with settings, sent to, streamed, listed, looked at and deleted."""
    async with served(Scripted(says("Hello"))) as server:
        wire, other = await server.connect(), await server.connect()

        created = await wire.call("session.create", session="s", system="Be brief", context={"n": 1})
        await wire.call("session.send", session="s", prompt="Why?")
        await other.call("session.stream", session="s", prompt={"messages": "And?", "temperature": 0.0})
        history = await other.call("session.history", session="s")

        assert (created["id"], created["system"], created["context"]) == ("s", "Be brief", {"n": 1})
        assert [message["content"] for turn in history["turns"] for message in turn["messages"]] == [
            "Why?",
            "Hello",
            "And?",
            "Hello",
        ]
        assert await wire.call("session.delete", session="s") == {"deleted": True}
        assert await wire.call("session.delete", session="s") == {"deleted": False}
        assert await wire.call("session.history", session="s") is None


async def test_settings_are_stored_at_once_and_taken_back_by_null(autojump_clock: MockClock) -> None:
    """A session that is created without any begins with its first turn."""
    async with served(Scripted()) as server:
        wire = await server.connect()

        assert (await wire.call("session.create", session="bare"))["id"] == "bare"
        assert await wire.call("session.history", session="bare") is None
        await wire.call("session.create", session="s", system="Be brief")
        assert (await wire.call("session.history", session="s"))["system"] == "Be brief"
        await wire.call("session.create", session="s", system=None)
        assert "system" not in await wire.call("session.history", session="s")


async def test_sessions_are_listed_in_pages(autojump_clock: MockClock) -> None:
    """The last entry of a page, as it came, leads to the next one; the last page says that it is."""
    async with served(Scripted()) as server:
        wire = await server.connect()
        for number in range(5):
            await wire.call("session.create", session=f"s{number}", system="x")
            await trio.sleep(1)
        await wire.call("session.create", session="other", system="x")

        names: list[list[str]] = []
        after: dict[str, object] = {}
        while True:
            page = await wire.call("session.list", prefix="s", limit=2, **after)
            names.append([each["id"] for each in page["sessions"]])
            if not page["more"]:
                break
            after = {"after": page["sessions"][-1]}

        assert sorted(name for each in names for name in each) == ["s0", "s1", "s2", "s3", "s4"]
        assert [len(each) for each in names] == [2, 2, 1]


@pytest.mark.parametrize("method", ["session.send", "session.stream"])
async def test_a_turn_of_a_session_that_was_deleted_is_refused(autojump_clock: MockClock, method: str) -> None:
    """It would be the first one of another session, and its client would never know."""
    async with served(Scripted(says("Hello"))) as server:
        wire = await server.connect()
        first = await wire.call(method, session="s", prompt="Why?")
        seen = first["session"]["created_at"]
        again = await wire.call(method, session="s", prompt="Why?", created_at=seen)
        await wire.call("session.delete", session="s")
        gone = await wire.failure(method, session="s", prompt="And?", created_at=seen)
        await wire.call(method, session="s", prompt="Why?")
        other = await wire.failure(method, session="s", prompt="And?", created_at=seen)

        assert again["session"] == first["session"]
        assert [error["data"]["code"] for error in (gone, other)] == ["session_conflict", "session_conflict"]
        assert len((await wire.call("session.history", session="s"))["turns"]) == 1


async def test_a_key_sees_its_own_sessions_alone(autojump_clock: MockClock) -> None:
    """Two keys may have sessions of one name; neither ever reads its prefix."""
    async with served(Scripted(says("Hello")), keys=[key("alice"), key("bob")]) as server:
        alice, bob = await server.connect(bearer="wz_alice"), await server.connect(bearer="wz_bob")
        await alice.call("session.send", session="s", prompt="Alice's")

        assert await bob.call("session.history", session="s") is None
        assert await bob.call("session.list") == {"sessions": [], "more": False}
        assert await bob.call("session.delete", session="s") == {"deleted": False}
        await bob.call("session.send", session="s", prompt="Bob's")
        assert (await alice.call("session.history", session="s"))["id"] == "s"
        assert [each["id"] for each in (await alice.call("session.list"))["sessions"]] == ["s"]


async def test_results_of_tools_go_on_from_the_sessions_own_messages(autojump_clock: MockClock) -> None:
    """A turn may consist of them alone."""
    call = ToolCallDelta(index=0, id="c1", name="add", arguments="{}")
    async with served(Scripted(says(call), says("5"))) as server:
        wire = await server.connect()
        tools = [{"name": "add", "parameters": {"type": "object"}}]
        answer = await wire.call("session.send", session="s", prompt={"messages": "2 + 3?", "tools": tools})
        assert answer["tool_calls"][0]["id"] == "c1"

        result = {"role": "tool", "tool_call_id": "c1", "content": "5"}
        answer = await wire.call("session.send", session="s", prompt={"messages": [result], "tools": tools})

        assert answer["text"] == "5"


async def test_an_answer_that_cannot_be_stored_is_said_to_be_lost(autojump_clock: MockClock) -> None:
    """Nobody holds it here: the client is not told to fetch it."""
    shelf = Shelf()

    def broken(record: SessionRecord) -> float:
        raise StorageError("the disk is full", session=record.id)

    shelf.fault = broken
    async with served(Scripted(), storage=shelf.open) as server:
        wire = await server.connect()

        error = await wire.failure("session.send", session="s", prompt="Why?")

        assert error["data"]["code"] == "storage"
        assert error["message"].endswith("the answer is not stored, and lost: send the turn again")


# -- admins ------------------------------------------------------------------------------------------


async def test_admins_see_the_tree_and_the_counts(autojump_clock: MockClock) -> None:
    """As objects of JSON."""
    async with served(Scripted()) as server:
        wire = await server.connect()
        await wire.call("generate", prompt="Why?")

        tree, stats = await wire.call("tree"), await wire.call("stats")

        assert (tree["name"], tree["state"]) == ("wizard", "running")
        assert "models" in [child["name"] for child in tree["children"]]
        assert stats["peak_in_flight"] == 1


async def test_admins_warm_and_empty_the_cache_of_a_key(autojump_clock: MockClock) -> None:
    """What was warmed for a key is that key's alone."""
    keys = [key("root", admin=True), key("alice")]
    upstream = Scripted(says("warm"))
    async with served(upstream, cache=CacheConfig(max_entries=10), keys=keys) as server:
        root, alice = await server.connect(bearer="wz_root"), await server.connect(bearer="wz_alice")

        warmed = await root.call("cache.warm", prompts=["a", "b"], key="alice")
        again = await root.call("cache.warm", prompts=["a", "b"], key="alice")

        assert (warmed, again) == (
            {"stored": 2, "already": 0, "failed": []},
            {"stored": 0, "already": 2, "failed": []},
        )
        assert (await alice.call("generate", prompt="a"))["cached"] is True
        assert (await root.call("generate", prompt="a"))["cached"] is False
        assert await root.call("cache.invalidate", model="a") == {"dropped": 3}
        assert (await alice.call("generate", prompt="a"))["cached"] is False


async def test_what_cannot_be_warmed_is_named(autojump_clock: MockClock) -> None:
    """By its number, with its error."""
    refusing = Scripted(fails(RequestError("no", model="a", status=400)))
    async with served(refusing, cache=CacheConfig(max_entries=10)) as server:
        wire = await server.connect()

        warmed = await wire.call("cache.warm", prompts=["a"])

        ((index, error),) = warmed["failed"]
        assert (index, error["code"]) == (0, "request")


async def test_a_subscription_sends_events_until_it_is_ended(autojump_clock: MockClock) -> None:
    """Only of the types asked for; unsubscribing is its proper end."""
    async with served(Scripted()) as server:
        wire = await server.connect()
        request = await wire.ask("subscribe", types=["request_ended"])
        await wire.call("generate", prompt="Why?")
        await wait_all_tasks_blocked()

        assert await wire.call("unsubscribe", id=request) == {"unsubscribed": True}
        assert (await wire.response(request))["result"] == {"dropped": 0}
        events = wire.notifications("event")
        assert [(event["id"], event["event"]["type"]) for event in events] == [(request, "request_ended")]
        assert await wire.call("unsubscribe", id=request) == {"unsubscribed": False}


async def test_a_subscription_without_credit_drops_events_and_holds_nothing_up(autojump_clock: MockClock) -> None:
    """However long it gets none; what it lost is counted."""
    async with served(Scripted()) as server:
        wire = await server.connect()
        request = await wire.ask("subscribe", types=["request_ended"], credit=0, bound=4)
        await wait_all_tasks_blocked()
        for _ in range(20):
            await wire.call("generate", prompt="Why?")
        await trio.sleep(1000)

        await wire.tell("credit", id=request, n=100)
        await wait_all_tasks_blocked()
        await wire.call("unsubscribe", id=request)
        dropped = (await wire.response(request))["result"]["dropped"]

        assert dropped > 50
        assert 1 <= len(wire.notifications("event")) <= 5


async def test_a_subscription_ends_with_its_keys_rights(autojump_clock: MockClock) -> None:
    """It is not an admin's any more: no further event is sent."""
    async with served(Scripted(), keys=[key("root", admin=True)]) as server:
        wire = await server.connect(bearer="wz_root")
        request = await wire.ask("subscribe")
        await wait_all_tasks_blocked()
        server.service.access.replace(KeysConfig(keys=[key("root")]), bound=[])
        await wire.call("generate", prompt="Why?")

        error = (await wire.response(request))["error"]

        assert error["data"]["code"] == "access_denied"
        assert wire.notifications("event") == []
