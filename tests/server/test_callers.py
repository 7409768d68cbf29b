"""What a caller may do with a client: its routes and models, its cache, its sessions, and what its limits leave it."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.conversations import Shelf
from tests.models import SILENT, USAGE, Scripted, fails, model, says
from tests.server.keyed import (
    ASKED,
    RESERVED,
    Served,
    budget,
    end_of,
    key,
    per_minute,
    read,
    refused,
    served,
    spent,
    taken,
)
from wizard_actors import WizardConfig
from wizard_actors.ask_options import AskOptions
from wizard_actors.batch import run_batch
from wizard_actors.config import CacheConfig, RouteConfig, SessionsConfig, StreamConfig
from wizard_actors.errors import (
    AccessDeniedError,
    ConfigError,
    DeadlineExceededError,
    InvalidStateTransitionError,
    RateLimitError,
    RequestError,
    SerializationError,
    WizardError,
)
from wizard_actors.request import Delivery
from wizard_actors.server.access import Access, Caller
from wizard_actors.server.callers import CallersClient
from wizard_actors.server.key_settings import KeyLimitConfig, KeysConfig
from wizard_actors.server.limits import Limits
from wizard_actors.session import Settings
from wizard_actors.session_question import as_question
from wizard_actors.trio_client import TrioClient
from wizard_actors.types import End, Prompt, ServedBy, TextDelta, WizardResponse

# -- routes and models -------------------------------------------------------------------------------------------------

TWO = {"a": Scripted(says("from a")), "b": Scripted(says("from b"))}
CHEAP = RouteConfig(name="cheap", chain=("b",))


async def test_a_key_without_lists_may_use_everything(autojump_clock: MockClock) -> None:
    """Every route and model, also by name."""
    async with served(key("alice"), providers=TWO, routes=[CHEAP]) as server:
        alice = server.of("alice")

        answers = [await alice.generate("?"), await alice.generate("?", route="cheap")]
        answers.append(await alice.generate("?", model="b"))

        assert [answer.text for answer in answers] == ["from a", "from b", "from b"]
        assert alice.models() == {
            "models": [{"name": "a"}, {"name": "b"}],
            "routes": [{"name": "wizard", "models": ["a", "b"]}, {"name": "cheap", "models": ["b"]}],
        }


@pytest.mark.parametrize(
    ("settings", "options", "named"),
    [
        ({"routes": ["wizard"]}, {"route": "cheap"}, "the route 'cheap'"),
        ({"routes": ["wizard"]}, {"route": "there is none"}, "the route 'there is none'"),
        ({"routes": ["cheap"]}, {"route": "wizard"}, "the route 'wizard'"),
        ({"models": ["a"]}, {"model": "b"}, "the model 'b'"),
        ({"models": ["a"]}, {"route": "cheap"}, "route 'cheap'"),
        ({"routes": ["cheap"]}, {"route": "wizard", "model": "a"}, "the route 'wizard'"),
    ],
)
async def test_what_a_key_may_not_use_is_refused_by_name(
    autojump_clock: MockClock, settings: dict[str, object], options: AskOptions, named: str
) -> None:
    """The error names the key and what it asked for; nothing is begun."""
    async with served(key("alice", **settings), providers=TWO, routes=[CHEAP]) as server:
        with pytest.raises(AccessDeniedError) as caught:
            server.of("alice").request("?", Delivery.WHOLE, options)

    assert caught.value.key == "alice"
    assert "'alice'" in str(caught.value)
    assert named in str(caught.value)


async def test_a_route_goes_on_without_the_models_that_a_key_may_not_use(autojump_clock: MockClock) -> None:
    """They are not even a fallback; and the key sees no more than that."""
    providers = {"a": Scripted(fails(RequestError("no", model="a", status=400))), "b": Scripted(says("from b"))}
    async with served(key("alice", models=["a"]), key("bob"), providers=providers, routes=[CHEAP]) as server:
        alice = server.of("alice")
        with pytest.raises(RequestError):
            await alice.generate("?")

        assert alice.models() == {"models": [{"name": "a"}], "routes": [{"name": "wizard", "models": ["a"]}]}
        assert (await server.of("bob").generate("?")).text == "from b"


async def test_a_key_without_the_default_route_goes_its_own_first(autojump_clock: MockClock) -> None:
    """Where no route is named, in sessions too: nobody has to repeat it with each request."""
    async with served(key("alice", routes=["cheap"]), providers=TWO, routes=[CHEAP]) as server:
        alice = server.of("alice")
        held = await alice.sessions.open("s")

        assert (await alice.generate("?")).text == "from b"
        turn = alice.sessions.turn(held, as_question("?", None), Delivery.WHOLE, {})
        assert (await alice.sessions.send(turn)).text == "from b"
        assert [route["name"] for route in _listed(alice.models(), "routes")] == ["cheap"]


def _listed(models: dict[str, object], what: str) -> list[dict[str, object]]:
    listed = models[what]
    assert isinstance(listed, list)
    return listed


@pytest.mark.parametrize("tenant", ["bob", "", "alice"])
async def test_the_tenant_is_the_keys_own(autojump_clock: MockClock, tenant: str) -> None:
    """Nobody says it, not even rightly."""
    async with served(key("alice")) as server:
        with pytest.raises(ConfigError, match=r"this call: `tenant`"):
            server.of("alice").request("?", Delivery.WHOLE, {"tenant": tenant})
        assert server.of("alice").request("?", Delivery.WHOLE, {}).tenant == "alice"


async def test_a_disabled_model_is_not_shown(autojump_clock: MockClock) -> None:
    """Nobody could ask it."""
    config = WizardConfig(models=[model("a"), model("off", enabled=False)], sessions=SessionsConfig(storage="memory:"))
    async with TrioClient.open(config, providers={"a": Scripted()}) as client:
        anybody = CallersClient(client, Caller(admin=True), Limits(client.supervisor), Access(None))

        assert _listed(anybody.models(), "models") == [{"name": "a"}]


# -- the cache ---------------------------------------------------------------------------------------------------------


async def test_a_key_hits_nothing_that_another_key_has_cached(autojump_clock: MockClock) -> None:
    """Its own it does, and pays for it once."""
    provider = Scripted(says("1"), says("2"), says("3"))
    async with served(key("alice"), key("bob"), providers=provider, cache=CacheConfig(max_entries=10)) as server:
        texts = [(await server.of(name).generate("Why?")).text for name in ("alice", "alice", "bob", "bob", "alice")]

    assert texts == ["1", "1", "2", "2", "1"]
    assert len(provider.calls) == 2


async def test_keys_that_ask_the_same_at_once_share_no_call(autojump_clock: MockClock) -> None:
    """Each has a call of its own under way."""
    provider = Scripted(says(1.0, "Because"))
    async with (
        served(key("alice"), key("bob"), providers=provider, cache=CacheConfig(max_entries=10)) as server,
        trio.open_nursery() as nursery,
    ):
        for name in ("alice", "bob", "alice"):
            nursery.start_soon(server.of(name).generate, "Why?")
        await wait_all_tasks_blocked()
        assert len(provider.calls) == 2


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_a_key_over_its_rate_is_refused_at_once(autojump_clock: MockClock) -> None:
    """Unsent, by its name, with the time after which it may come again; and then it may."""
    provider = Scripted()
    async with served(key("alice", rate_limit=per_minute(6)), providers=provider) as server:
        alice, began = server.of("alice"), trio.current_time()
        await alice.generate("1?")

        error = await refused(alice)
        assert trio.current_time() == began
        assert error.model == "key 'alice'"
        assert error.retry_after == pytest.approx(10.0)
        assert "'alice'" in str(error)
        assert len(provider.calls) == 1

        await trio.sleep(error.retry_after or math.nan)
        await alice.generate("2?")
        assert len(provider.calls) == 2


async def test_a_rate_may_let_its_key_wait(autojump_clock: MockClock) -> None:
    """As long as `max_wait` says, and no longer."""
    async with served(key("alice", rate_limit=per_minute(6, max_wait=15))) as server:
        alice, ended = server.of("alice"), list[float]()
        began = trio.current_time()

        async def ask() -> None:
            with suppress(RateLimitError):
                await alice.generate("?")
                ended.append(trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)

        assert ended == [0.0, pytest.approx(10.0)]


async def test_the_limits_of_two_keys_are_apart(autojump_clock: MockClock) -> None:
    """What one has used up, the other has."""
    limits = {"rate_limit": per_minute(1), "token_budget": budget(2 * RESERVED)}
    async with served(key("alice", **limits), key("bob", **limits)) as server:
        await server.of("alice").generate(ASKED)
        await refused(server.of("alice"))

        await server.of("bob").generate(ASKED)


async def test_a_budget_is_for_its_whole_window(autojump_clock: MockClock) -> None:
    """All of it may go at once; then nothing, until it slides out of the window. The refusal says so."""
    async with served(key("alice", token_budget=budget(3 * RESERVED, 3600))) as server:
        alice = server.of("alice")
        for _ in range(15):  # 15 tokens each
            await alice.generate(ASKED)

        error = await refused(alice)
        assert "token_budget of 327 tokens in 3600 s" in str(error)
        assert error.model == "key 'alice'"
        assert error.retry_after is not None
        assert 0 < error.retry_after <= 3600 * 1.01

        await trio.sleep(error.retry_after)
        await alice.generate(ASKED)


async def test_a_refused_request_costs_nothing(autojump_clock: MockClock) -> None:
    """What one limiter has granted goes back where the other refuses."""
    async with served(
        key("alice", rate_limit=per_minute(1), token_budget=budget(10 * RESERVED)),
    ) as server:
        alice = server.of("alice")
        await alice.generate(ASKED)
        before = (await server.limiter("alice/budget")).tokens_settled
        for _ in range(5):
            await refused(alice)

        after = await server.limiter("alice/budget")
        assert (after.tokens_settled, after.refunded) == (before, 5)


@pytest.mark.parametrize(
    ("provider", "tokens"),
    [
        (Scripted(says("Because", USAGE)), 15),
        (Scripted(says("Because")), RESERVED),
        (Scripted(fails(RequestError("no", model="a", status=400))), 0),
    ],
    ids=["as the usage says", "as estimated where nobody knows", "nothing where refused"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_what_was_used_is_settled(
    autojump_clock: MockClock, provider: Scripted, tokens: int, streamed: bool
) -> None:
    """By the answer's usage; else by what is known of the attempts."""
    async with served(key("alice", token_budget=budget(1000)), providers=Scripted(*provider.turns)) as server:
        alice = server.of("alice")
        with suppress(WizardError):
            if streamed:
                await read(alice.source(alice.request(ASKED, Delivery.LIVE, {})))
            else:
                await alice.generate(ASKED)

        assert await spent(server) == tokens


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_cached_answer_costs_no_tokens(autojump_clock: MockClock, streamed: bool) -> None:
    """It counts as a request all the same: that is what the server did."""
    async with served(
        key("alice", token_budget=budget(1000), rate_limit=per_minute(60)), cache=CacheConfig(max_entries=10)
    ) as server:
        alice = server.of("alice")
        await alice.generate(ASKED)
        await trio.sleep(1)
        before = await spent(server)

        if streamed:
            end = (await read(alice.source(alice.request(ASKED, Delivery.LIVE, {}))))[-1]
            assert isinstance(end, End)
            answer = end.response
        else:
            answer = await alice.generate(ASKED)

        assert answer.served_by is ServedBy.CACHE
        assert await spent(server) == before
        await refused(alice)


async def leave(server: Served, how: str, after: float) -> None:
    """Ask as alice, and leave after so many seconds."""
    alice = server.of("alice")
    with trio.move_on_after(after):
        if how == "whole":
            await alice.generate(ASKED)
        elif how == "streamed":
            await read(alice.source(alice.request(ASKED, Delivery.LIVE, {})))
        else:
            held = await alice.sessions.open("s")
            await alice.sessions.send(alice.sessions.turn(held, as_question(ASKED, None), Delivery.WHOLE, {}))


@pytest.mark.parametrize("how", ["whole", "streamed", "session"])
async def test_a_request_that_is_cancelled_unsent_gives_everything_back(autojump_clock: MockClock, how: str) -> None:
    """Here it waits for a slot of a model that is busy with somebody else."""
    provider = Scripted(says(100.0, "Because"))
    limits = {"rate_limit": per_minute(1), "token_budget": budget(1000)}
    async with (
        served(key("alice", **limits), key("bob"), providers=provider) as server,
        trio.open_nursery() as nursery,
    ):
        for _ in range(32):
            nursery.start_soon(server.of("bob").generate, "?")
        await wait_all_tasks_blocked()

        await leave(server, how, 5.0)

        assert await spent(server) == 0
        assert (await server.limiter("alice/rate")).refunded == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["whole", "streamed", "session"])
async def test_a_request_that_is_cancelled_when_sent_costs_its_estimate(autojump_clock: MockClock, how: str) -> None:
    """The model was at work, and nobody knows for how long: leaving early is no way to ask for nothing."""
    async with served(key("alice", token_budget=budget(1000)), providers=Scripted(says("half", 100.0))) as server:
        await leave(server, how, 5.0)

        assert await spent(server) == RESERVED


async def test_a_request_that_is_cancelled_in_its_limiters_queue_takes_nothing(autojump_clock: MockClock) -> None:
    """Nor does it hold up whoever comes after it."""
    limits = {"rate_limit": per_minute(1, max_wait=100), "token_budget": budget(1000)}
    async with served(key("alice", **limits)) as server:
        await server.of("alice").generate(ASKED)
        before = await spent(server)

        await leave(server, "whole", 5.0)

        assert await spent(server) == before
        assert (await server.limiter("alice/rate")).waiting == 0


async def test_a_stream_takes_leave_with_its_first_read(autojump_clock: MockClock) -> None:
    """One that is never read costs nothing; one that is left early costs its estimate."""
    async with served(
        key("alice", token_budget=budget(1000)), providers=Scripted(says("one", 1.0, "two", USAGE))
    ) as server:
        alice = server.of("alice")
        unread = alice.source(alice.request(ASKED, Delivery.LIVE, {}))
        await unread.aclose()
        assert await spent(server) == 0

        source = alice.source(alice.request(ASKED, Delivery.LIVE, {}))
        assert await anext(source) == TextDelta("one")
        await source.aclose()
        assert await spent(server) == RESERVED


async def test_a_stream_over_the_limit_is_refused_by_its_first_read(autojump_clock: MockClock) -> None:
    """As a whole answer is."""
    async with served(key("alice", rate_limit=per_minute(1))) as server:
        alice = server.of("alice")
        await alice.generate("?")
        source = alice.source(alice.request("?", Delivery.LIVE, {}))

        with pytest.raises(RateLimitError):
            await anext(source)
        await source.aclose()


async def test_a_stream_that_nobody_reads_is_settled_when_it_is_lost(autojump_clock: MockClock) -> None:
    """Its call is stopped, and the reservation does not wait for a reader who may never come back."""
    async with served(
        key("alice", token_budget=budget(1000)),
        providers=Scripted(says("one", 1.0, "two", USAGE)),
        stream=StreamConfig(consumer_idle=10),
    ) as server:
        alice, lost = server.of("alice"), list[float]()
        source = alice.source(alice.request(ASKED, Delivery.LIVE, {}), on_lost=lambda: lost.append(trio.current_time()))
        await anext(source)
        await trio.sleep(20)

        assert len(lost) == 1
        assert server.client.supervisor.outstanding == {}
        assert await spent(server) == RESERVED
        with pytest.raises(DeadlineExceededError):
            await anext(source)
        await source.aclose()


async def test_a_request_waits_for_its_limits_no_longer_than_its_deadline(autojump_clock: MockClock) -> None:
    """It is told at once that its turn would come too late."""
    async with served(key("alice", rate_limit=per_minute(1, max_wait=100))) as server:
        alice, began = server.of("alice"), trio.current_time()
        await alice.generate("?")

        with pytest.raises(RateLimitError):
            await alice.generate("?", deadline=5)
        assert trio.current_time() == began


async def test_a_batch_of_a_key_waits_for_the_keys_limits(autojump_clock: MockClock) -> None:
    """Every prompt is answered, at the key's pace."""
    provider, outcomes = Scripted(), dict[int, WizardResponse | WizardError]()
    async with served(key("alice", rate_limit=per_minute(6)), providers=provider) as server:

        async def done(index: int, _prompt: str | Prompt, outcome: WizardResponse | WizardError) -> None:
            outcomes[index] = outcome

        began = trio.current_time()
        prompts: list[str | Prompt] = ["1?", "2?", "3?", "4?"]
        with server.of("alice").patient({}) as ask:
            await run_batch(ask, prompts, max_concurrency=4, done=done)

        assert all(isinstance(outcome, WizardResponse) for outcome in outcomes.values())
        assert len(outcomes) == len(provider.calls) == 4
        assert 30 <= trio.current_time() - began < 40


async def test_a_batch_with_wrong_options_is_refused_as_a_whole(autojump_clock: MockClock) -> None:
    """Before its first prompt."""
    async with served(key("alice", models=["a"]), providers=TWO) as server:
        with pytest.raises(AccessDeniedError), server.of("alice").patient({"model": "b"}):
            pass


# -- reloads -----------------------------------------------------------------------------------------------------------


async def test_what_was_spent_outlives_a_reload_of_other_keys_and_of_the_limit_itself(
    autojump_clock: MockClock,
) -> None:
    """A larger budget has room for the difference, and no more."""
    async with served(key("alice", token_budget=budget(120))) as server:
        await server.of("alice").generate(ASKED)
        assert await spent(server) == 15
        await refused(server.of("alice"))

        await server.set(key("alice", token_budget=budget(120)), key("bob", token_budget=budget(120)))
        await refused(server.of("alice"))
        await server.of("bob").generate(ASKED)

        await server.set(key("alice", token_budget=budget(15 + RESERVED)))
        await server.of("alice").generate(ASKED)
        assert await spent(server) == 30
        await refused(server.of("alice"))


async def test_what_was_spent_outlives_a_crash_with_the_limits_of_the_last_reload(autojump_clock: MockClock) -> None:
    """The next incarnation does not go back to what the key was first allowed."""
    async with served(key("alice", token_budget=budget(120))) as server:
        await server.of("alice").generate(ASKED)
        await refused(server.of("alice"))
        await server.set(key("alice", token_budget=budget(10_000)))
        await wait_all_tasks_blocked()

        server.client.supervisor.kill("keys/alice/budget", RuntimeError("a bug"))
        await wait_all_tasks_blocked()
        assert await spent(server) == 15

        await server.of("alice").generate(ASKED)
        assert await spent(server) == 30


async def test_the_actors_are_those_that_the_keys_need(autojump_clock: MockClock) -> None:
    """Added, and removed, as keys and their limits come and go; none is left over."""
    rate, tokens = {"rate_limit": per_minute(6)}, {"token_budget": budget(100)}
    async with served() as server:
        seen = []
        for keys in (
            [key("alice")],
            [key("alice", **rate), key("bob", **tokens)],
            [key("alice", **rate, **tokens), key("carol", **rate)],
            [key("alice", **tokens, enabled=False), key("carol")],
            [],
        ):
            await server.set(*keys)
            seen.append(sorted(server.key_paths()))

    assert seen == [
        [],
        ["alice", "alice/rate", "bob", "bob/budget"],
        ["alice", "alice/budget", "alice/rate", "carol", "carol/rate"],
        ["alice", "alice/budget"],
        [],
    ]


async def test_a_reload_waits_for_nobody_and_nobody_fails_by_it(autojump_clock: MockClock) -> None:
    """Who waits for a limit that is taken away goes on without it, and what is under way ends as it would have."""
    provider = Scripted(says(5.0, "Because"))
    async with served(key("alice", rate_limit=per_minute(1, max_wait=1000)), providers=provider) as server:
        ended: list[float] = []
        began = trio.current_time()

        async def ask() -> None:
            await server.of("alice").generate("?")
            ended.append(trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await trio.sleep(1)
            await server.set(key("alice"))
            assert trio.current_time() - began == 1

        assert ended == [5, 6]


@pytest.mark.parametrize("steps", range(8))
async def test_a_reload_that_is_cancelled_is_done_all_the_same_or_not_begun(
    autojump_clock: MockClock, steps: int
) -> None:
    """Half of it would leave some keys with the limits of another reload; the new ones come, and then the old go."""
    provider = Scripted(says(100.0, "Because"))
    limit = per_minute(1)
    async with (
        served(key("alice", rate_limit=limit), key("bob", rate_limit=limit), providers=provider) as server,
        trio.open_nursery() as nursery,
    ):
        for name in ("alice", "bob"):
            nursery.start_soon(server.of(name).generate, "?")
        await wait_all_tasks_blocked()
        reload = trio.CancelScope()

        async def change() -> None:
            keys = KeysConfig(keys=[key("carol", rate_limit=limit), key("dave", rate_limit=limit)])
            with reload:
                await server.limits.prepare(keys)
                await server.limits.drop(keys)

        nursery.start_soon(change)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        reload.cancel()
        await wait_all_tasks_blocked()

        before, now = ["alice", "alice/rate", "bob", "bob/rate"], ["carol", "carol/rate", "dave", "dave/rate"]
        assert sorted(server.key_paths()) in (before, before + now, now)
        nursery.cancel_scope.cancel()


async def test_a_hundred_reloads_under_load_fail_nothing_and_leak_nothing(autojump_clock: MockClock) -> None:
    """Limits that come and go beneath requests under way."""
    provider, failed = Scripted(says(0.3, "Because", USAGE)), list[Exception]()
    many = {
        "rate_limit": KeyLimitConfig(requests_per_minute=1e6, burst=1000, max_wait=10),
        "token_budget": budget(10**9),
    }
    async with served(key("alice", **many), providers=provider) as server:

        async def ask() -> None:
            for _ in range(40):
                try:
                    await server.of("alice").generate("?")
                except WizardError as error:
                    failed.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(ask)
            for number in range(100):
                await trio.sleep(0.1)
                await server.set(key("alice", **(many if number % 2 else {})))

        assert not failed
        assert sorted(server.key_paths()) == ["alice", "alice/budget", "alice/rate"]
        assert not server.limits._reserved


# -- sessions ----------------------------------------------------------------------------------------------------------


async def say(caller: CallersClient, session: str, text: str = "?") -> WizardResponse:
    """Have one turn of a session."""
    held = await caller.sessions.open(session)
    return await caller.sessions.send(caller.sessions.turn(held, as_question(text, None), Delivery.WHOLE, {}))


async def test_a_key_sees_its_own_sessions_alone(autojump_clock: MockClock) -> None:
    """By the names that it has given them; two keys may use one name for two sessions."""
    shelf = Shelf()
    async with served(key("alice"), key("al"), shelf=shelf) as server:
        alice, al = server.of("alice"), server.of("al")
        await say(alice, "one", "alice's")
        await say(alice, "two")
        await say(al, "one", "al's")
        await say(al, "ice/one")

        assert sorted(each.id for each in await alice.sessions.list()) == ["one", "two"]
        assert [each.id for each in await alice.sessions.list(prefix="t")] == ["two"]
        assert sorted(each.id for each in await al.sessions.list()) == ["ice/one", "one"]
        record = await alice.sessions.load("one")
        assert record is not None
        assert (record.id, record.messages[0].text) == ("one", "alice's")
        assert await al.sessions.load("two") is None
        assert await al.sessions.delete("two") is False
        assert await alice.sessions.delete("two") is True
        assert sorted(each.id for each in await shelf.list()) == ["al/ice/one", "al/one", "alice/one"]


async def test_pages_follow_each_other_by_the_names_that_the_key_sees(autojump_clock: MockClock) -> None:
    """`after` is the last one of the page before, as it was shown."""
    async with served(key("alice"), key("bob")) as server:
        for name in ("1", "2", "3"):
            await say(server.of("alice"), name)
            await say(server.of("bob"), name)
            await trio.sleep(1)
        sessions = server.of("alice").sessions

        first = await sessions.list(limit=2)
        second = await sessions.list(limit=2, after=first[-1])

        assert sorted(each.id for each in (*first, *second)) == ["1", "2", "3"]


async def test_without_keys_sessions_have_the_names_that_they_always_had(autojump_clock: MockClock) -> None:
    """What a program has stored is there for whoever is on its machine."""
    shelf = Shelf()
    async with served(shelf=shelf) as server:
        anybody = CallersClient(server.client, Caller(admin=True), server.limits, Access(None))
        await say(anybody, "one")

        assert [each.id for each in await shelf.list()] == ["one"]


async def test_a_session_goes_on_streamed_and_whole_and_is_shown_by_its_name(autojump_clock: MockClock) -> None:
    """Its settings are stored, and what was said comes back."""
    provider = Scripted(says("one", USAGE), says("two", USAGE))
    async with served(key("alice"), providers=provider) as server:
        sessions = server.of("alice").sessions
        held = await sessions.open("s", Settings(system="Be brief"))
        await sessions.update(held, Settings(system="Be brief"))
        await sessions.send(sessions.turn(held, as_question("1?", None), Delivery.WHOLE, {}))
        turn = sessions.turn(held, as_question("2?", None), Delivery.LIVE, {})

        events = await read(sessions.source(turn, taken))

        assert isinstance(events[-1], End)
        record = sessions.record(held)
        assert (record.id, record.system) == ("s", "Be brief")
        assert [message.text for message in record.messages] == ["1?", "one", "2?", "two"]
        assert provider.calls[1].prompt == "Be brief1?one2?"


@pytest.mark.parametrize("name", ["", "x" * 195, "a\nb", "\ud800"])
async def test_a_name_that_cannot_be_stored_is_told_as_the_key_sees_it(autojump_clock: MockClock, name: str) -> None:
    """Its bound is what the key's own name leaves."""
    async with served(key("alice")) as server:
        sessions = server.of("alice").sessions
        for ask in (sessions.open, sessions.load, sessions.delete):
            with pytest.raises(SerializationError) as caught:
                await ask(name)
            assert "alice" not in str(caught.value)
            if len(name) > 100:
                assert "at most 194 characters" in str(caught.value)
        await sessions.open("x" * 194)


@pytest.mark.parametrize("name", ["s", "it's", 'a"b'])
async def test_errors_name_a_session_as_the_key_does(autojump_clock: MockClock, name: str) -> None:
    """Whoever raises them: the machine of states, the storage, a turn on its way, a stream."""
    shelf = Shelf()
    async with served(key("alice"), shelf=shelf) as server:
        sessions, said = server.of("alice").sessions, list[str]()
        await say(server.of("alice"), name)
        held = await sessions.open(name)
        await server.client.sessions.close(held)

        for delivery in (Delivery.WHOLE, Delivery.LIVE):
            turn = sessions.turn(held, as_question("?", None), delivery, {})
            with pytest.raises(InvalidStateTransitionError) as caught:
                await end_of(server.of("alice"), turn, delivery)
            said.append(str(caught.value))
        with pytest.raises(InvalidStateTransitionError) as caught:
            await sessions.update(held, Settings(system="another"))
        said.append(str(caught.value))

    assert all(f"session {name!r} is closed" in each for each in said)
    assert not any("alice" in each for each in said)


async def test_a_conflict_names_its_session_as_the_key_does(autojump_clock: MockClock) -> None:
    """In its facts too."""
    async with served(key("alice")) as server:
        sessions = server.of("alice").sessions
        await say(server.of("alice"), "s")
        held = await sessions.open("s")
        await sessions.delete("s")

        with pytest.raises(WizardError) as caught:
            await sessions.send(sessions.turn(held, as_question("?", None), Delivery.WHOLE, {}))

    shown = caught.value.to_dict()
    assert shown["session"] == "s"
    assert "alice" not in str(shown)


async def test_a_session_asks_no_model_or_route_that_its_key_may_not_use(autojump_clock: MockClock) -> None:
    """Neither when it is told to, nor when it was told before the key lost them."""
    async with served(key("alice"), providers=TWO, routes=[CHEAP]) as server:
        sessions = server.of("alice").sessions
        held = await sessions.open("s", Settings(route="cheap"))
        await sessions.update(held, Settings(route="cheap"))
        await server.set(key("alice", routes=["wizard"], models=["a"]))
        sessions = server.of("alice").sessions

        for settings in (Settings(route="cheap"), Settings(model="b")):
            with pytest.raises(AccessDeniedError):
                await sessions.open("other", settings)
        held = await sessions.open("s")
        with pytest.raises(AccessDeniedError):
            await sessions.send(sessions.turn(held, as_question("?", None), Delivery.WHOLE, {}))


async def test_the_turns_of_a_session_are_limited_as_any_request(autojump_clock: MockClock) -> None:
    """Whole and streamed; the session is as it was before."""
    async with served(key("alice", rate_limit=per_minute(1))) as server:
        alice = server.of("alice")
        await say(alice, "s")
        held = await alice.sessions.open("s")

        for delivery in (Delivery.WHOLE, Delivery.LIVE):
            turn = alice.sessions.turn(held, as_question("again?", None), delivery, {})
            with pytest.raises(RateLimitError):
                await end_of(alice, turn, delivery)

        record = await alice.sessions.load("s")
        assert record is not None
        assert len(record.turns) == 1


async def test_a_model_that_is_silent_does_not_hold_a_reservation_for_ever(autojump_clock: MockClock) -> None:
    """The deadline ends the request, and what it had reserved is settled."""
    async with served(key("alice", token_budget=budget(1000)), providers=Scripted(SILENT)) as server:
        with pytest.raises(WizardError):
            await server.of("alice").generate(ASKED, deadline=5)

        assert server.client.supervisor.outstanding == {}
        assert await spent(server) == RESERVED


async def test_who_waits_for_a_rate_waits_on_under_the_key_s_new_name(autojump_clock: MockClock) -> None:
    """A key that is renamed has other limiters: nobody gets past them because the former ones have gone."""
    alice = key("alice", rate_limit=per_minute(6, max_wait=1000.0))
    answered: list[str] = []

    async with served(alice) as server, trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            answered.append((await server.of("alice").generate(f"Why {number}?")).text)

        for number in range(10):
            nursery.start_soon(ask, number)
        await wait_all_tasks_blocked()
        await server.set(evolve(alice, name="alicia"))
        await trio.sleep(1)

        assert 1 <= len(answered) <= 2
        nursery.cancel_scope.cancel()
