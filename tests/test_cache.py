"""The response cache as an actor: what it answers, what it keeps over a crash, and how a request goes on without it."""

import math
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from random import Random

import msgspec
import pytest
import trio
from attrs import define, evolve, field
from trio.testing import MockClock, wait_all_tasks_blocked

from wizard_actors.actor import Actor, ActorRef, Ledger, Reply, handles
from wizard_actors.cache import CacheState, ResponseCache
from wizard_actors.cache_messages import (
    BYPASS,
    PATIENCE,
    Follow,
    Hit,
    Invalidate,
    Landed,
    Lead,
    Look,
    Lookup,
    Miss,
    Store,
    cacheable,
    served,
)
from wizard_actors.config import CacheConfig
from wizard_actors.errors import DeadlineExceededError, MailboxFullError, NetworkError, WizardError
from wizard_actors.failure import Attempt
from wizard_actors.flight import MAX_FOLLOWERS, Flight
from wizard_actors.supervisor import ChildSpec, GroupSpec, RestartPolicy, Supervisor
from wizard_actors.types import FinishReason, ServedBy, Signature, Thought, TokenUsage, ToolCall, WizardResponse

Ref = ActorRef[CacheState]

KEY, OTHER = b"key", b"other"
HOUR = 3600.0
"""Whoever waits that long would wait for ever."""
ANSWER = WizardResponse("Because.", "a", request_id="first", cost=Decimal("0.5"), attempts=(Attempt("a", 0.0, 1.0),))
COMPLETE = (FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS)
STORED = evolve(ANSWER, request_id="", cost=None, attempts=())


@asynccontextmanager
async def cache_of(
    *,
    entries: int = 100,
    size: int = 1_000_000,
    ttl: float = 10.0,
    stale: float = 0.0,
    max_flights: int = 100,
    max_followers: int = 100,
    tells: int = 1024,
    max_restarts: int = 5,
) -> AsyncIterator[tuple[Supervisor, Ref]]:
    """Run one cache."""
    config = CacheConfig(max_entries=entries, max_bytes=size, ttl=ttl, stale_if_error=stale)

    def factory(ledger: Ledger, carry: object) -> Actor:
        return ResponseCache(config, ledger, carry, max_flights=max_flights, max_followers=max_followers)

    group = GroupSpec("wizard", [ChildSpec("cache", factory, tells=tells)], policy=RestartPolicy(max_restarts))
    async with Supervisor(group, rng=Random(1)) as tree:
        yield tree, tree.ref("cache", CacheState)


async def state(ref: Ref) -> CacheState:
    """Return what the cache publishes once all is quiet."""
    await wait_all_tasks_blocked()
    assert ref.published is not None
    return ref.published


def store(ref: Ref, key: bytes = KEY, response: WizardResponse = ANSWER, *, text: str = "Why?") -> None:
    """Store an answer."""
    ref.tell(Store(key, response, response.model, text))


async def leave(ref: Ref, key: bytes) -> None:
    """Ask, and leave before the answer."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await ref.ask(Lookup(key))
    await wait_all_tasks_blocked()


# -- what is stored


async def test_a_stored_answer_is_a_hit_until_its_time_is_over(autojump_clock: MockClock) -> None:
    """Without what belonged to the first request; then it is a miss, and gone from memory unasked."""
    async with cache_of(ttl=10.0) as (_, ref):
        store(ref)
        await trio.sleep(4.0)
        assert await ref.ask(Lookup(KEY)) == Hit(STORED, 4.0)
        assert await ref.ask(Look(KEY)) == Hit(STORED, 4.0)
        assert (await state(ref)).entries == 1

        await trio.sleep(6.0)
        assert await ref.ask(Look(KEY)) == Miss()
        seen = await state(ref)
        assert (seen.entries, seen.bytes, seen.expired, seen.hits, seen.misses) == (0, 0, 1, 2, 1)


async def test_an_expired_answer_may_stand_in(autojump_clock: MockClock) -> None:
    """It comes with the miss, for as long as the configuration says."""
    async with cache_of(ttl=10.0, stale=5.0) as (_, ref):
        store(ref)
        await trio.sleep(12.0)
        found = await ref.ask(Lookup(KEY))
        assert isinstance(found, Lead)
        assert found.stale == STORED
        assert await ref.ask(Look(KEY)) == Miss(STORED)
        assert (await state(ref)).stale == 2

        await trio.sleep(3.0)
        assert await ref.ask(Look(KEY)) == Miss()


@pytest.mark.parametrize(("stale", "stands_in"), [(0.0, None), (5.0, STORED)])
async def test_a_refresh_asks_a_model_whatever_is_stored(
    autojump_clock: MockClock, stale: float, stands_in: WizardResponse | None
) -> None:
    """What is stored stands in only where old answers may; others who ask meanwhile still hit it."""
    async with cache_of(stale=stale) as (_, ref):
        store(ref)
        found = await ref.ask(Lookup(KEY, fresh_only=True))
        assert isinstance(found, Lead)
        assert found.stale == stands_in
        assert isinstance(await ref.ask(Lookup(KEY)), Hit)
        assert isinstance(await ref.ask(Lookup(KEY, fresh_only=True)), Follow)


@pytest.mark.parametrize(("stale", "stands_in"), [(0.0, None), (5.0, STORED)])
async def test_a_stream_that_refreshes_counts_as_a_miss(
    autojump_clock: MockClock, stale: float, stands_in: WizardResponse | None
) -> None:
    """What it is to replace is no hit; it comes with the miss where old answers may stand in."""
    async with cache_of(stale=stale) as (_, ref):
        store(ref)
        assert await ref.ask(Look(KEY, fresh_only=True)) == Miss(stands_in)
        seen = await state(ref)
        assert (seen.hits, seen.misses, seen.stale) == (0, 1, int(stands_in is not None))
        assert await ref.ask(Look(KEY)) == Hit(STORED, 0.0)


async def test_what_is_no_complete_answer_of_a_model_is_not_stored(autojump_clock: MockClock) -> None:
    """Nor what came out of the cache, or stands for an answer."""
    bad = [
        evolve(ANSWER, finish_reason=FinishReason.CONTENT_FILTER),
        evolve(ANSWER, finish_reason=FinishReason.OTHER),
        evolve(ANSWER, served_by=ServedBy.CACHE),
        evolve(ANSWER, served_by=ServedBy.STALE),
        evolve(ANSWER, served_by=ServedBy.STATIC),
        evolve(ANSWER, cached=True),
        evolve(ANSWER, stale=True),
    ]
    good = [evolve(ANSWER, finish_reason=reason) for reason in COMPLETE]
    good += [evolve(ANSWER, served_by=served_by) for served_by in (ServedBy.RETRY, ServedBy.FALLBACK)]
    assert [cacheable(response) for response in bad + good] == [False] * 7 + [True] * 5

    async with cache_of() as (_, ref):
        for response in bad:
            store(ref, response=response)
        assert (await state(ref)).entries == 0


def test_a_served_answer_is_marked_and_has_its_own_id() -> None:
    """At no cost, without attempts; also one that stands in."""
    hit = served(STORED, "second")
    assert (hit.text, hit.model, hit.request_id, hit.attempts) == ("Because.", "a", "second", ())
    assert hit.cost == 0
    assert (hit.cached, hit.stale, hit.served_by) == (True, False, ServedBy.CACHE)

    old = served(STORED, "second", stale=True)
    assert (old.cached, old.stale, old.served_by) == (True, True, ServedBy.STALE)
    assert (old.request_id, old.attempts) == ("second", ())
    assert old.cost == 0


async def test_entries_and_bytes_are_bounded(autojump_clock: MockClock) -> None:
    """The least recently used answers make room; one that is too large is not stored."""
    async with cache_of(entries=10, size=40_000) as (_, ref):
        for number in range(20):
            store(ref, bytes([number]), evolve(ANSWER, text="x" * 100 * number))
        seen = await state(ref)
        assert 0 < seen.entries <= 10
        assert seen.bytes <= 40_000
        assert seen.stored == 20
        assert seen.evicted == 20 - seen.entries

        store(ref, b"large", evolve(ANSWER, text="x" * 40_000))
        assert (await state(ref)).stored == 20


@pytest.mark.parametrize("text", ["x" * 2000, "\N{SNOWMAN}" * 2000, ""])
async def test_bytes_are_counted_honestly(autojump_clock: MockClock, text: str) -> None:
    """A thousand answers of 2 KB take under 10 MB in all, and never more than is counted, also once they were sent on:
    then Python keeps a second copy of what is not ASCII.
    """
    async with cache_of(entries=1000, size=2**30, ttl=1e6) as (_, ref):
        await state(ref)
        answers: list[str] = []
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(1000):
                answer = text and text[:-4] + f"{number:4}"  # a text of its own
                response = WizardResponse(
                    answer, "a", f"upstream-{number}", TokenUsage(1000 + number, 2000 + number), request_id="r"
                )
                store(ref, number.to_bytes(32), response, text=f"question {number}")
                answers.append(answer)
                await trio.lowlevel.checkpoint()
            seen = await state(ref)
            for answer in answers:
                msgspec.json.encode(answer)
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
    assert seen.entries == 1000
    assert taken < 12_000_000
    assert 0.5 * seen.bytes < taken < 1.05 * seen.bytes


async def test_tool_calls_count_in_full(autojump_clock: MockClock) -> None:
    """An answer is not its text alone."""
    calls = tuple(ToolCall(f"call-{number}", "look", "x" * 1000) for number in range(10))
    async with cache_of() as (_, ref):
        store(ref, response=evolve(ANSWER, text="", thoughts=(Thought("y" * 5000),), tool_calls=calls), text="z" * 3000)
        assert (await state(ref)).bytes > 18_000


LARGE = "x" * 5000


@pytest.mark.parametrize(
    "response",
    [
        evolve(ANSWER, thoughts=(Thought(id=LARGE),)),
        evolve(ANSWER, thoughts=(Thought(signature=Signature("anthropic", LARGE)),)),
        evolve(ANSWER, tool_calls=(ToolCall("1", "look", "{}", Signature("gemini", LARGE)),)),
        evolve(ANSWER, usage=TokenUsage(cache_write_tokens=1 << 40_000)),
    ],
    ids=["a thought's id", "its signature", "a call's signature", "tokens"],
)
async def test_each_part_of_an_answer_counts(autojump_clock: MockClock, response: WizardResponse) -> None:
    """Whatever is kept takes room."""
    async with cache_of() as (_, ref):
        store(ref, response=response)
        assert (await state(ref)).bytes > 5000


# -- single-flight


async def test_the_first_leads_and_the_others_follow(autojump_clock: MockClock) -> None:
    """One key, one flight; another key has its own; a landed flight is not followed any more."""
    async with cache_of() as (_, ref):
        first = await ref.ask(Lookup(KEY))
        assert isinstance(first, Lead)
        assert await ref.ask(Lookup(KEY)) == Follow(first.flight)
        assert isinstance(await ref.ask(Lookup(OTHER)), Lead)
        assert len((await state(ref)).flights) == 2

        first.flight.land(ANSWER)
        ref.tell(Landed(KEY, first.flight))
        seen = await state(ref)
        assert list(seen.flights) == [OTHER]
        assert (seen.led, seen.followed) == (2, 1)
        assert seen.to_dict()["flights"] == 1


async def test_a_flight_whose_landing_was_never_told_blocks_nothing(autojump_clock: MockClock) -> None:
    """That it is over shows by itself, and its place is found again."""
    async with cache_of(max_flights=3) as (_, ref):
        first = await ref.ask(Lookup(KEY))
        assert isinstance(first, Lead)
        first.flight.land(ANSWER)
        second = await ref.ask(Lookup(KEY))
        assert isinstance(second, Lead)
        assert second.flight is not first.flight

        ref.tell(Landed(KEY, first.flight))
        assert (await state(ref)).flights[KEY] is second.flight
        for number in range(30):
            found = await ref.ask(Lookup(bytes([number])))
            assert isinstance(found, Lead)
            flights = (await state(ref)).flights
            assert len(flights) <= 3
            assert flights[bytes([number])] is found.flight
            found.flight.land(ANSWER)
        assert (await state(ref)).flights[KEY] is second.flight


async def test_a_flight_that_was_handed_over_goes_on(autojump_clock: MockClock) -> None:
    """Its first leader's `Landed` does not end it."""
    async with cache_of() as (_, ref):
        found = await ref.ask(Lookup(KEY))
        assert isinstance(found, Lead)
        await ref.ask(Lookup(KEY))
        found.flight.hand_over()
        ref.tell(Landed(KEY, found.flight))

        assert (await state(ref)).flights[KEY] is found.flight
        assert await ref.ask(Lookup(KEY)) == Follow(found.flight)
        assert await found.flight.follow() is None


async def test_flights_are_bounded(autojump_clock: MockClock) -> None:
    """Whoever comes beyond that goes a way of their own, which nobody joins; full ones make room for further ones."""
    async with cache_of(max_flights=2, max_followers=1) as (_, ref):
        for key in (KEY, OTHER):
            assert isinstance(await ref.ask(Lookup(key)), Lead)
        alone = [await ref.ask(Lookup(b"third")) for _ in range(2)]
        assert all(isinstance(found, Lead) for found in alone)

        kinds = [type(await ref.ask(Lookup(KEY))) for _ in range(4)]
        assert kinds == [Follow, Lead, Follow, Lead]
        seen = await state(ref)
        assert set(seen.flights) == {KEY, OTHER}
        assert (seen.led, seen.followed) == (6, 2)


async def test_whoever_finds_a_flight_full_begins_another_to_be_shared(autojump_clock: MockClock) -> None:
    """No stampede beyond the bound; the first one's `Landed` leaves the second alone."""
    async with cache_of(max_followers=2) as (_, ref):
        found = [await ref.ask(Lookup(KEY)) for _ in range(6)]
        assert [type(each) for each in found] == [Lead, Follow, Follow, Lead, Follow, Follow]
        first, second = (each.flight for each in found if isinstance(each, Lead))
        assert [each.flight for each in found if isinstance(each, Follow)] == [first, first, second, second]

        first.land(ANSWER)
        ref.tell(Landed(KEY, first))
        assert (await state(ref)).flights == {KEY: second}
        second.land(ANSWER)
        ref.tell(Landed(KEY, second))
        assert (await state(ref)).flights == {}


async def test_a_full_flight_stays_known_where_its_successor_has_no_leader(autojump_clock: MockClock) -> None:
    """Who was to lead it has left: a seat that gets free in the first is found again."""
    async with cache_of(max_followers=1) as (_, ref):
        first = await ref.ask(Lookup(KEY))
        assert isinstance(first, Lead)
        assert await ref.ask(Lookup(KEY)) == Follow(first.flight)
        await leave(ref, KEY)
        first.flight.release()
        assert await ref.ask(Lookup(KEY)) == Follow(first.flight)


async def test_flights_are_shared_under_their_own_key_and_answers_under_the_question(autojump_clock: MockClock) -> None:
    """Who asks the same in another way makes a call of its own, and hits what any of them has stored."""
    async with cache_of() as (_, ref):
        first = await ref.ask(Lookup(KEY, flight_key=b"key, one way"))
        other = await ref.ask(Lookup(KEY, flight_key=b"key, another way"))
        assert isinstance(first, Lead)
        assert isinstance(other, Lead)
        assert await ref.ask(Lookup(KEY, flight_key=b"key, one way")) == Follow(first.flight)
        assert await ref.ask(Lookup(KEY, True, b"key, another way")) == Follow(other.flight)
        assert isinstance(await ref.ask(Lookup(KEY)), Lead)

        store(ref)
        first.flight.land(ANSWER)
        ref.tell(Landed(b"key, one way", first.flight))
        assert set((await state(ref)).flights) == {KEY, b"key, another way"}
        assert isinstance(await ref.ask(Lookup(KEY, flight_key=b"key, another way")), Hit)


async def test_a_promoted_leader_gets_what_may_stand_in(autojump_clock: MockClock) -> None:
    """With its seat, as every follower does, and once it leads."""
    async with cache_of(ttl=10.0, stale=60.0) as (_, ref):
        store(ref)
        await trio.sleep(12.0)
        first, second = [await ref.ask(Lookup(KEY)) for _ in range(2)]
        assert isinstance(first, Lead)
        assert second == Follow(first.flight, STORED)

        first.flight.hand_over()
        ref.tell(Landed(KEY, first.flight))
        assert await first.flight.follow() is None
        assert await ref.ask(Look(KEY)) == await ref.ask(Look(KEY, fresh_only=True)) == Miss(STORED)
        assert (await state(ref)).flights == {KEY: first.flight}


async def test_a_caller_who_leaves_before_the_answer_leads_and_follows_nothing(autojump_clock: MockClock) -> None:
    """No flight without a leader, no seat without a follower."""
    async with cache_of() as (_, ref):
        await leave(ref, KEY)
        assert (await state(ref)).flights == {}
        found = await ref.ask(Lookup(KEY))
        assert isinstance(found, Lead)
        await leave(ref, KEY)
        assert found.flight.followers == 0
        assert (await state(ref)).led == 1


# -- invalidation


async def test_globs_choose_what_is_dropped(autojump_clock: MockClock) -> None:
    """On the whole of the model's name and of the prompt's text, line breaks too, upper and lower case apart."""
    texts = ["Why?", "why?", "Why\nnot?", "Who [1]?"]

    async def left(*globs: str) -> tuple[int, list[str]]:
        async with cache_of() as (_, ref):
            for model in ("a-1", "b-1"):
                for text in texts:
                    store(ref, f"{model}{text}".encode(), evolve(ANSWER, model=model), text=text)
            removed = await ref.ask(Invalidate(*globs))
            keys = [f"{model}{text}" for model in ("a-1", "b-1") for text in texts]
            there = [key for key in keys if isinstance(await ref.ask(Look(key.encode())), Hit)]
            seen = await state(ref)
            assert seen.invalidated == removed == 8 - seen.entries == 8 - len(there)
            return removed, there

    assert await left("*", "*") == (8, [])
    assert await left() == (8, [])
    assert await left("a-*") == (4, ["b-1Why?", "b-1why?", "b-1Why\nnot?", "b-1Who [1]?"])
    assert await left("?-1", "Why*") == (4, ["a-1why?", "a-1Who [1]?", "b-1why?", "b-1Who [1]?"])
    assert (await left("b-1", "*[[]1]?"))[0] == 1
    assert (await left("B-*"))[0] == 0
    assert (await left("a-1", "[!wW]*"))[0] == 0


async def test_a_large_invalidation_lets_others_go_first(autojump_clock: MockClock) -> None:
    """It goes on slice by slice; asks are answered in between, and its own answer comes once all is done."""
    async with cache_of(entries=1000, size=2**30) as (_, ref):
        for number in range(100):
            store(ref, bytes([number]), text="x" * 50_000 + str(number))
            await wait_all_tasks_blocked()
        removed: list[int] = []
        between: list[int] = []

        async def invalidate(glob: str) -> None:
            removed.append(await ref.ask(Invalidate("*", glob)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(invalidate, "*x1?")
            nursery.start_soon(invalidate, "*x2?")
            while len(removed) < 2:
                assert isinstance(await ref.ask(Look(b"\x05")), Hit)
                between.append(len(removed))
        assert removed == [10, 10]
        assert between.count(0) > 10
        assert (await state(ref)).entries == 80


async def test_invalidations_are_bounded_and_forgotten_with_their_callers(autojump_clock: MockClock) -> None:
    """The seventeenth at a time is refused; a caller who leaves takes its own along."""
    async with cache_of(entries=1000, size=2**30) as (_, ref):
        for number in range(100):
            store(ref, bytes([number]), text="x" * 50_000)
            await wait_all_tasks_blocked()
        refused: list[MailboxFullError] = []

        async def invalidate() -> None:
            try:
                await ref.ask(Invalidate("*", "nothing"))
            except MailboxFullError as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(invalidate)
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert len(refused) == 4
        assert await ref.ask(Invalidate("*", "*y")) == 0


def test_a_glob_is_bounded() -> None:
    """What a pattern may cost is bounded by its length."""
    with pytest.raises(ValueError, match="text_glob has 201 characters; at most 200 are taken"):
        Invalidate("*", "?" * 201)


# -- crashes, and a cache that does not answer


@define
class Client:
    """Requests as the pipeline makes them: how they ask, what they do without an answer, and how they end a flight."""

    ref: ActorRef[object]
    takes: float = 5.0
    fails: bool = False
    calls: int = 0
    at_once: int = 0
    answers: list[WizardResponse] = field(factory=list)
    errors: list[WizardError] = field(factory=list)
    bypassed: int = 0
    scopes: list[trio.CancelScope] = field(factory=list)

    async def request(self, number: int = 0, *, deadline: float = math.inf) -> None:
        """Make one request."""
        scope = trio.CancelScope()
        self.scopes.append(scope)
        with trio.fail_after(HOUR), scope:
            try:
                self.answers.append(await self.generate(str(number), deadline))
            except WizardError as error:
                self.errors.append(error)

    async def generate(self, request_id: str, deadline: float) -> WizardResponse:
        """Hit, lead, follow; or go on without a cache."""
        try:
            found = await self.ref.ask(Lookup(KEY), deadline=min(deadline, trio.current_time() + PATIENCE))
        except BYPASS:
            if trio.current_time() >= deadline:
                raise
            self.bypassed += 1
            return await self.call()
        if isinstance(found, Hit):
            return served(found.response, request_id)
        if isinstance(found, Follow):
            answer = await found.flight.follow()
            if answer is not None:
                return served(answer, request_id)
        return await self.lead(found.flight)

    async def lead(self, flight: Flight[WizardResponse]) -> WizardResponse:
        """Call, and end the flight."""
        try:
            response = await self.call()
            flight.land(response)
            self.ref.tell(Store(KEY, response, "a", "Why?"))
            return response
        except WizardError as error:
            flight.fail(error)
            raise
        finally:
            flight.hand_over()
            self.ref.tell(Landed(KEY, flight))

    async def call(self) -> WizardResponse:
        """Take some time upstream."""
        self.calls += 1
        self.at_once += 1
        try:
            await trio.sleep(self.takes)
            if self.fails:
                raise NetworkError("reset", model="a")
            return ANSWER
        finally:
            self.at_once -= 1


async def fifty(client: Client, nursery: trio.Nursery, order: Sequence[int] = range(50)) -> None:
    """Make fifty equal requests at once."""
    for number in order:
        nursery.start_soon(client.request, number)
    await wait_all_tasks_blocked()


async def test_fifty_equal_requests_make_one_call(autojump_clock: MockClock) -> None:
    """In the same tick; the next one hits."""
    async with cache_of() as (_, ref):
        client = Client(ref)
        async with trio.open_nursery() as nursery:
            await fifty(client, nursery)
        await client.request(50)
        assert (client.calls, len(client.answers)) == (1, 51)
        assert len({answer.request_id for answer in client.answers}) == 51
        assert sum(answer.cached for answer in client.answers) == 50
        assert (await state(ref)).flights == {}


async def test_three_thousand_equal_requests_make_three_calls(autojump_clock: MockClock) -> None:
    """A thousand follow each leader."""
    async with cache_of(max_followers=MAX_FOLLOWERS) as (_, ref):
        client = Client(ref)
        async with trio.open_nursery() as nursery:
            for number in range(3000):
                nursery.start_soon(client.request, number)
        assert (client.calls, len(client.answers), client.bypassed) == (3, 3000, 0)
        seen = await state(ref)
        assert (seen.led, seen.followed, seen.flights) == (3, 2997, {})


async def test_fifty_equal_requests_and_a_cancelled_leader_make_two_calls(autojump_clock: MockClock) -> None:
    """49 answers."""
    async with cache_of() as (_, ref):
        client = Client(ref)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.request)
            await wait_all_tasks_blocked()
            await fifty(client, nursery, range(1, 50))
            client.scopes[0].cancel()
        assert (client.calls, len(client.answers), len(client.errors)) == (2, 49, 0)
        assert (await state(ref)).flights == {}


async def test_a_leader_cancelled_as_it_is_told_leaves_one_call_to_those_sent_to_it(autojump_clock: MockClock) -> None:
    """Its followers are on their way, and have no seat yet."""
    async with cache_of() as (_, ref):
        client = Client(ref)
        sent = [await ref.ask(Lookup(KEY)) for _ in range(10)]
        assert isinstance(sent[0], Lead)
        sent[0].flight.hand_over()
        ref.tell(Landed(KEY, sent[0].flight))
        await wait_all_tasks_blocked()

        async def arrive() -> None:
            if await sent[0].flight.follow() is None:  # type: ignore[union-attr]  # a Lead, as said above
                await client.lead(sent[0].flight)  # type: ignore[union-attr]  # the same

        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(arrive)
            nursery.start_soon(client.request)
        assert client.calls == 1


async def test_fifty_equal_requests_share_one_failure(autojump_clock: MockClock) -> None:
    """One call, fifty errors, each its own and chained to the leader's."""
    async with cache_of() as (_, ref):
        client = Client(ref, fails=True)
        async with trio.open_nursery() as nursery:
            await fifty(client, nursery)
        (leader,) = (error for error in client.errors if error.__cause__ is None)
        assert (client.calls, len({id(error) for error in client.errors})) == (1, 50)
        assert all(error.__cause__ is leader for error in client.errors if error is not leader)


async def test_a_crash_strands_nobody_and_carries_the_flights(autojump_clock: MockClock) -> None:
    """While fifty wait: all are answered by the one call, and who comes after the crash follows it; the answers that
    were stored are gone, the counts are not.
    """
    async with cache_of() as (tree, ref):
        store(ref, OTHER)
        client = Client(ref)
        async with trio.open_nursery() as nursery:
            await fifty(client, nursery)
            tree.kill("cache", RuntimeError("planted"))
            await wait_all_tasks_blocked()
            nursery.start_soon(client.request, 50)
            await wait_all_tasks_blocked()
            seen = await state(ref)
            assert (seen.entries, seen.stored, seen.followed, len(seen.flights)) == (0, 1, 50, 1)
        assert (client.calls, len(client.answers)) == (1, 51)
        assert (await state(ref)).flights == {}


async def test_a_flight_that_landed_during_a_crash_is_not_carried(autojump_clock: MockClock) -> None:
    """What is over is left behind."""
    async with cache_of() as (tree, ref):
        found = await ref.ask(Lookup(KEY))
        assert isinstance(found, Lead)
        tree.kill("cache", RuntimeError("planted"))
        found.flight.land(ANSWER)
        assert (await state(ref)).flights == {}


class Stuck(Actor):
    """Takes every ask and never answers."""

    @handles(Lookup)
    def lookup(self, message: Lookup, reply: Reply[Hit | Lead | Follow], now: float) -> None:
        """Keep the reply."""


class NeverStarts(Stuck):
    """Hangs in its start, as one does whose host does not answer."""

    async def start(self) -> None:
        """Wait for ever."""
        await trio.sleep_forever()


def test_redis_without_a_timeout_hung_every_request() -> None:
    """A cache that takes asks and never answers costs a request its patience, and nothing else."""

    async def run() -> None:
        async with Supervisor(GroupSpec("wizard", [ChildSpec("cache", lambda *_: Stuck(), mailbox=2)])) as tree:
            client = Client(tree.ref("cache", object))
            async with trio.open_nursery() as nursery:
                await fifty(client, nursery)
            assert (len(client.answers), client.bypassed) == (50, 50)
            assert trio.current_time() == pytest.approx(PATIENCE + client.takes)

            await client.request(deadline=trio.current_time() + PATIENCE / 2)
            assert [type(error) for error in client.errors] == [DeadlineExceededError]

    trio.run(run, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("how", ["down", "removed", "crashing"])
async def test_a_cache_that_is_not_there_is_bypassed_at_once(autojump_clock: MockClock, how: str) -> None:
    """DOWN, stopped, or crashing with the ask in hand."""
    async with cache_of(max_restarts=0 if how == "down" else 5) as (tree, ref):
        client = Client(ref, takes=0.0)
        if how == "removed":
            await tree.remove("cache")
        elif how == "down":
            tree.kill("cache", RuntimeError("planted"))
            await wait_all_tasks_blocked()
            assert not ref.available
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.request)
            if how == "crashing":
                tree.kill("cache", RuntimeError("planted"))
        assert len(client.answers) == 1
        assert trio.current_time() == 0.0
        assert client.bypassed == (how != "crashing")  # queued at an immediate restart: the next incarnation answers


async def test_told_messages_that_are_dropped_do_no_harm(autojump_clock: MockClock) -> None:
    """The lane has room for one: answers are not stored, and every request is answered all the same."""
    async with cache_of(tells=1) as (_, ref):
        client = Client(ref)
        for number in range(5):
            async with trio.open_nursery() as nursery:
                await fifty(client, nursery)
            assert len(client.answers) == 50 * (number + 1)
        assert client.calls <= 5
