"""What a key may ask while keys change, and what it is charged however its requests end."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import USAGE, Scripted, cut, fails, model, says
from tests.server.keyed import ASKED, RESERVED, Served, budget, key, per_minute, read, served, spent
from tests.server.wire import key as wire_key
from tests.server.wire import served as wire_served
from wizard_actors import WizardConfig
from wizard_actors.batch import run_batch
from wizard_actors.config import PriceConfig, RetryConfig, RouteConfig
from wizard_actors.errors import (
    AccessDeniedError,
    NetworkError,
    RateLimitError,
    RequestError,
    StreamInterruptedError,
    WizardError,
)
from wizard_actors.estimate import estimate_input, estimate_text
from wizard_actors.request import Delivery
from wizard_actors.server.access import Access, Caller
from wizard_actors.server.callers import CallersClient
from wizard_actors.server.key_settings import KeyConfig, KeysConfig
from wizard_actors.server.limits import Limits
from wizard_actors.session_question import as_question
from wizard_actors.trio_client import TrioClient
from wizard_actors.types import Prompt, ReasoningDelta, TextDelta, ToolCallDelta, WizardResponse

ROOT = key("root", admin=True)
LONG = "word " * 400
EXTRA = Prompt("Why?", extra={"model": "dear", "n": 50})
ONCE = RetryConfig(max_attempts=1)


def charged(text: str) -> int:
    """Return what an answer is charged of which so much has come."""
    return math.ceil(estimate_input(ASKED) + estimate_text(text))


# -- a key that is good no more ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gone", [[ROOT], [ROOT, key("alice", enabled=False)], [ROOT, KeyConfig(name="alice", hash="sha256:" + "0" * 64)]]
)
async def test_each_prompt_of_a_batch_asks_whether_its_key_is_still_good(
    autojump_clock: MockClock, gone: list[KeyConfig]
) -> None:
    """Removed, disabled or replaced: nothing more is asked of a model from that moment on."""
    upstream, outcomes = Scripted(says(1.0, "Because")), list[WizardResponse | WizardError]()
    async with served(ROOT, key("alice", rate_limit=per_minute(6000)), providers=upstream) as server:

        async def done(_index: int, _prompt: str | Prompt, outcome: WizardResponse | WizardError) -> None:
            outcomes.append(outcome)

        async def batch() -> None:
            with server.of("alice").patient({}) as ask:
                await run_batch(ask, ["?"] * 10, max_concurrency=1, done=done)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(batch)
            await trio.sleep(2.5)
            await server.set(*gone)

        assert len(upstream.calls) == 3
        assert [type(each) for each in outcomes] == [WizardResponse] * 3 + [AccessDeniedError] * 7


@pytest.mark.parametrize("ask", ["answer", "source", "session", "request"])
async def test_whatever_was_begun_before_a_key_went_is_refused_when_it_asks(
    autojump_clock: MockClock, ask: str
) -> None:
    """Nobody is asked for it, and nothing is held."""
    upstream = Scripted()
    async with served(ROOT, key("alice"), providers=upstream) as server:
        alice = server.of("alice")
        request = alice.request("?", Delivery.LIVE, {})
        held = await alice.sessions.open("s")
        await server.set(ROOT)

        async def begin() -> None:
            if ask == "answer":
                await alice.answer(request)
            elif ask == "source":
                await read(alice.source(request))
            elif ask == "session":
                await alice.sessions.send(alice.sessions.turn(held, as_question("?", None), Delivery.WHOLE, {}))
            else:
                alice.request("?", Delivery.WHOLE, {})

        with pytest.raises(AccessDeniedError):
            await begin()

        assert upstream.calls == []


async def test_who_waits_for_a_limit_of_a_key_that_goes_is_refused(autojump_clock: MockClock) -> None:
    """The limit goes with it: who waited for that must not be let through without."""
    upstream, refused = Scripted(), list[WizardError]()
    async with served(ROOT, key("alice", rate_limit=per_minute(1, max_wait=1000)), providers=upstream) as server:

        async def ask() -> None:
            try:
                await server.of("alice").generate("?")
            except WizardError as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
            await trio.sleep(1)
            await server.set(ROOT)

        assert len(upstream.calls) == 1
        assert [type(error) for error in refused] == [AccessDeniedError] * 4
        assert not server.limits._reserved


async def test_no_moment_of_a_reload_lets_a_removed_key_ask_without_its_limits(autojump_clock: MockClock) -> None:
    """Many ask all the while; one a minute is all that any of them gets."""
    others = [key(f"k{number}", rate_limit=per_minute(1)) for number in range(5)]
    upstream, over = Scripted(), trio.Event()
    async with served(ROOT, key("alice", rate_limit=per_minute(1)), *others, providers=upstream) as server:

        async def attack() -> None:
            alice = server.of("alice")
            while not over.is_set():
                try:
                    await alice.generate("?")
                except RateLimitError:
                    await trio.lowlevel.checkpoint()
                except AccessDeniedError:
                    return

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(attack)
            for _ in range(50):
                await trio.lowlevel.checkpoint()
            await server.set(ROOT)
            for _ in range(50):
                await trio.lowlevel.checkpoint()
            over.set()

        assert len(upstream.calls) == 1


@pytest.mark.parametrize("steps", range(12))
@pytest.mark.parametrize("before", [{}, {"token_budget": budget(500, 60.0)}], ids=["a new limit", "another window"])
async def test_whoever_asks_while_a_limit_is_begun_waits_for_it(
    autojump_clock: MockClock, before: dict[str, object], steps: int
) -> None:
    """However far the reload has come, nothing goes past the new limit but what the old one has let through."""
    async with served(ROOT, key("alice", **before)) as server, trio.open_nursery() as nursery:
        keys = KeysConfig(keys=[ROOT, key("alice", token_budget=budget(200))])
        nursery.start_soon(server.limits.prepare, keys)
        while not server.limits.bound("alice"):
            await trio.lowlevel.checkpoint()
        for _ in range(steps):
            await trio.lowlevel.checkpoint()

        request = server.of("alice").request(ASKED, Delivery.WHOLE, {})
        reservation = await server.limits.reserve("alice", request, server.client.shared.events)

        assert reservation.limited
        reservation.settle(None)


async def test_the_limits_of_keys_that_are_to_go_stay_until_they_are_dropped(autojump_clock: MockClock) -> None:
    """What a reload adds is there before its keys are, what it takes away until they are not."""
    async with served(ROOT, key("alice", rate_limit=per_minute(1))) as server:
        now = KeysConfig(keys=[ROOT, key("bob", rate_limit=per_minute(1))])

        await server.limits.prepare(now)
        assert (server.limits.bound("alice"), server.limits.bound("bob")) == (True, True)
        await server.limits.drop(now)
        assert (server.limits.bound("alice"), server.limits.bound("bob")) == (False, True)


# -- what goes to providers as it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("admin", [False, True])
async def test_a_key_sends_no_fields_of_its_own_unless_it_may(autojump_clock: MockClock, admin: bool) -> None:
    """They could name any model, and hide what was used: an admin, too, has to be told."""
    upstream = Scripted()
    async with served(key("alice", admin=admin), key("bob", admin=admin, extra=True), providers=upstream) as server:
        for how in (Delivery.WHOLE, Delivery.LIVE):
            with pytest.raises(AccessDeniedError, match=r"(?s)'alice'.*model.*n.*`extra = true`") as caught:
                server.of("alice").request(EXTRA, how, {})
            assert caught.value.key == "alice"
        with pytest.raises(AccessDeniedError), server.of("alice").patient({}) as ask:
            await ask(EXTRA)
        assert upstream.calls == []

        await server.of("bob").generate(EXTRA)
        assert len(upstream.calls) == 1


@pytest.mark.parametrize("method", ["session.send", "session.stream"])
async def test_a_session_is_no_way_round_that(autojump_clock: MockClock, method: str) -> None:
    """A turn has its prompt only once it is its turn: nothing of it is asked, stored or counted."""
    upstream = Scripted()
    keys = [wire_key("alice", rate_limit=per_minute(60, tokens=1000)), wire_key("bob", extra=True)]
    async with wire_served(upstream, keys=keys) as server:
        alice, bob = await server.connect(bearer="wz_alice"), await server.connect(bearer="wz_bob")
        prompt = {"messages": "Why?", "extra": {"model": "dear", "n": 50}}

        error = await alice.failure(method, session="s", prompt=prompt)

        assert (error["data"]["code"], "model" in error["message"]) == ("access_denied", True)
        assert upstream.calls == []
        assert (await alice.call("session.history", session="s")) is None
        left = server.service.limits.left("alice")
        assert (left.requests, left.tokens) == (1, 1000)
        assert (await bob.call(method, session="s", prompt=prompt))["text"] == "Hello"
        assert len(upstream.calls) == 1


async def test_without_keys_extra_fields_are_sent(autojump_clock: MockClock) -> None:
    """There is nothing that they could get round."""
    async with TrioClient.open(WizardConfig(models=[model("a")]), providers={"a": Scripted()}) as client:
        access = Access(None)
        anybody = CallersClient(client, access.caller(None), Limits(client.supervisor), access)

        assert (await anybody.generate(EXTRA)).text == "Hello"


# -- names -------------------------------------------------------------------------------------------------------------

CHEAP = RouteConfig(name="cheap", chain=("b",))


async def test_a_key_of_routes_alone_asks_by_name_the_models_of_those(autojump_clock: MockClock) -> None:
    """A route would else be no bound at all; where the key names models, these decide."""
    providers = {"a": Scripted(), "b": Scripted()}
    keys = [key("alice", routes=["cheap"]), key("bob", routes=["cheap"], models=["a"])]
    async with served(*keys, providers=providers, routes=[CHEAP]) as server:
        alice, bob = server.of("alice"), server.of("bob")

        with pytest.raises(AccessDeniedError, match="may not use the model 'a'; models for it: b"):
            await alice.generate("?", model="a")
        assert (await alice.generate("?", model="b")).model == "b"
        assert alice.models()["models"] == [{"name": "b"}]
        assert (await bob.generate("?", model="a")).model == "a"
        with pytest.raises(AccessDeniedError, match="the key 'bob' may use none of the models of the route 'cheap'"):
            await bob.generate("?")


# -- what is charged ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        (TextDelta(LONG),),
        (TextDelta(LONG[:1000]), TextDelta(LONG[1000:])),
        (ReasoningDelta(LONG),),
        (ToolCallDelta(0, "c", "find", LONG),),
    ],
    ids=["text", "pieces", "reasoning", "tool arguments"],
)
async def test_a_stream_that_is_left_early_is_charged_for_what_has_come(
    autojump_clock: MockClock, events: tuple[object, ...]
) -> None:
    """Leaving just before the end is no way to read for the price of the reservation."""
    upstream = Scripted(says(*events, 100.0, USAGE))  # type: ignore[arg-type]  # steps of any kind
    async with served(key("alice", token_budget=budget(10_000)), providers=upstream) as server:
        alice = server.of("alice")
        source = alice.source(alice.request(ASKED, Delivery.LIVE, {}))
        for _ in events:
            await anext(source)
        await source.aclose()

        assert charged(LONG) <= await spent(server) <= charged(LONG) + 20
        assert charged(LONG) > 3 * RESERVED


async def test_a_stream_that_nobody_reads_is_charged_for_what_has_come(autojump_clock: MockClock) -> None:
    """Also where it ends because of that."""
    async with served(key("alice", token_budget=budget(10_000)), providers=Scripted(says(LONG, 1.0, "x"))) as server:
        alice = server.of("alice")
        source = alice.source(alice.request(ASKED, Delivery.LIVE, {}))
        await anext(source)
        await trio.sleep(1000)

        assert await spent(server) == charged(LONG)
        await source.aclose()


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_an_answer_without_usage_is_charged_for_what_has_come(autojump_clock: MockClock, streamed: bool) -> None:
    """However little the key said that it wanted."""
    async with served(key("alice", token_budget=budget(10_000)), providers=Scripted(says(LONG))) as server:
        alice = server.of("alice")
        if streamed:
            await read(alice.source(alice.request(ASKED, Delivery.LIVE, {})))
        else:
            await alice.generate(ASKED)

        assert await spent(server) == charged(LONG)


async def test_every_attempt_that_may_have_used_something_is_charged(autojump_clock: MockClock) -> None:
    """What broke, at its estimate, and the one that answered, by its usage; what was refused costs nothing."""
    broken, refused = NetworkError("gone", model="a"), RequestError("no", model="b", status=400)
    providers = {"a": Scripted(says("half", broken)), "b": Scripted(fails(refused)), "c": Scripted(says("fine", USAGE))}
    chain = RouteConfig(name="abc", chain=("a", "b", "c"))
    async with served(key("alice", token_budget=budget(10_000)), providers=providers, routes=[chain]) as server:
        response = await server.of("alice").generate(ASKED, route="abc")

        assert (response.model, len(providers["a"].calls), len(providers["b"].calls)) == ("c", 3, 1)
        assert await spent(server) == 3 * RESERVED + 15


async def test_a_race_is_charged_for_all_who_ran(autojump_clock: MockClock) -> None:
    """The winner by its usage, the others, which were at work too, at their estimates."""
    providers = {"a": Scripted(says(1.0, "fast", USAGE)), "b": Scripted(says(50.0, "slow", USAGE))}
    race = RouteConfig(name="race", chain=("a", "b"), strategy="parallel")
    async with served(key("alice", token_budget=budget(10_000)), providers=providers, routes=[race]) as server:
        assert (await server.of("alice").generate(ASKED, route="race")).model == "a"

        assert await spent(server) == 15 + RESERVED


async def test_a_usage_so_far_is_not_taken_for_the_whole(autojump_clock: MockClock) -> None:
    """Some models tell what the prompt took at once, and the rest at the end, which did not come."""
    upstream = Scripted(says(USAGE, LONG, 100.0))
    async with served(key("alice", token_budget=budget(10_000)), providers=upstream) as server:
        alice = server.of("alice")
        source = alice.source(alice.request(ASKED, Delivery.LIVE, {}))
        while not isinstance(await anext(source), TextDelta):
            pass
        await source.aclose()

        assert await spent(server) == charged(LONG)


async def test_what_has_arrived_of_an_answer_that_broke_off_is_charged(autojump_clock: MockClock) -> None:
    """Also of one that nobody was shown."""
    upstream = Scripted(cut(LONG))
    async with served(key("alice", token_budget=budget(10_000)), providers=upstream) as server:
        with pytest.raises(WizardError) as caught:
            await server.of("alice").generate(ASKED)

        interrupted = [isinstance(each.error, StreamInterruptedError) for each in caught.value.attempts]
        assert interrupted
        assert all(interrupted)
        assert await spent(server) == len(interrupted) * charged(LONG)


async def test_what_is_free_of_charge_still_counts_as_used(autojump_clock: MockClock) -> None:
    """A model that costs nothing has not refused for it."""
    free = model("a", price=PriceConfig(input=Decimal(0), output=Decimal(0)), retry=ONCE)
    keys = KeysConfig(keys=[key("alice", token_budget=budget(10_000))])
    upstream = Scripted(says("half", USAGE, NetworkError("gone", model="a")))
    async with TrioClient.open(WizardConfig(models=[free]), providers={"a": upstream}) as client:
        server = Served(client, keys.keys)
        await server.limits.prepare(keys)
        with pytest.raises(WizardError):
            await server.of("alice").generate(ASKED)

        assert await spent(server) == RESERVED


# -- what is held ------------------------------------------------------------------------------------------------------


async def test_a_stream_that_was_never_read_holds_no_configuration(autojump_clock: MockClock) -> None:
    """A reload would else wait for it for as long as anybody has its request."""
    async with served(key("alice")) as server:
        alice = server.of("alice")
        request = alice.request("?", Delivery.LIVE, {})
        assert request.hold is not None
        before = len(request.hold.holds._taken)

        await alice.source(request).aclose()

        assert len(request.hold.holds._taken) == before - 1


async def test_what_is_left_is_told(autojump_clock: MockClock) -> None:
    """Of each limit; None where there is none."""
    limit = evolve(per_minute(60, tokens=1000), burst=3)
    async with served(key("alice", rate_limit=limit, token_budget=budget(500)), key("bob")) as server:
        before, none = server.limits.left("alice"), server.limits.left("bob")
        await server.of("alice").generate(ASKED)
        await wait_all_tasks_blocked()
        after = server.limits.left("alice")
        await trio.sleep(3600)
        rested = server.limits.left("alice")

    assert (none.requests, none.tokens, none.budget) == (None, None, None)
    assert (before.requests, before.tokens, before.budget) == (3, 1000, 500)
    assert (after.requests, after.tokens, after.budget) == (2, 985, 485)
    assert (rested.requests, rested.tokens) == (3, 1000)


@pytest.mark.parametrize("allowed", [lambda caller: caller.extra, lambda caller: caller.admin])
def test_a_caller_may_nothing_by_default(allowed: Callable[[Caller], bool]) -> None:
    """What is not granted is not there."""
    assert not allowed(Caller("alice"))
