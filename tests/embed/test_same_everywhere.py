"""What a client answers, refuses, streams and shows is the same in every host."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial

import anyio
import pytest
import trio
from attrs import asdict, frozen, has

from tests.embed.blocking import Awaited
from tests.embed.hosts import HOSTS, Host, everywhere, nothing_held
from tests.models import DONE, NO_JITTER, USAGE, Scripted, Seen, Turn, fails, model, says
from wizard_actors import (
    AuthError,
    ConfigError,
    DeadlineExceededError,
    FallbackError,
    InvalidPromptError,
    NetworkError,
    Prompt,
    ProviderTimeoutError,
    UnsupportedError,
    WizardError,
)
from wizard_actors.actor import Actor, Ask, Ledger, Reply, handles
from wizard_actors.config import CacheConfig, PriceConfig, RetryConfig, TimeoutsConfig
from wizard_actors.event_stream import EventStream
from wizard_actors.events import Event, RequestBegan, RequestEnded
from wizard_actors.specs import ChildSpec, State

BROKEN = NetworkError("the connection broke", model="a", status=None)
TIMES = frozenset({"start", "duration", "delay", "slot_wait", "rate_wait", "first_token"})

# -- answers and errors ------------------------------------------------------------------------------------------------


def facts(value: object) -> object:
    """Return a value without its instants and durations, which no two runs share."""
    if isinstance(value, dict):
        return {key: facts(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list | tuple):
        return [facts(item) for item in value]
    if isinstance(value, WizardError):
        return type(value), str(value), facts(list(value.attempts))
    return facts(asdict(value)) if has(type(value)) else value  # type: ignore[arg-type]  # `has` is no guard


def chain(error: BaseException | None) -> list[tuple[type[BaseException], str]]:
    """Return an error, and what it was raised from."""
    found = []
    while error is not None:
        found.append((type(error), str(error)))
        error = error.__cause__
    return found


def test_an_answer_is_equal_in_every_field() -> None:
    """Text, usage, cost, ids, attempts, and what failed on the way."""

    async def program(host: Host) -> object:
        a = Scripted(fails(BROKEN), Turn(("one ", "two", USAGE, DONE)))
        priced = model(retry=NO_JITTER, price=PriceConfig(input=1, output=2))
        async with host.open(a, priced) as client:
            return facts(await client.generate(Prompt("Why?", system="Be brief")))

    answers = [host.run(partial(program, host)) for host in HOSTS]

    assert isinstance(answers[0], dict)
    assert answers[0]["text"] == "one two"
    assert len(answers[0]["attempts"]) == 2
    assert answers[1:] == answers[:1] * 3


def test_an_error_is_of_the_same_class_attempts_and_causes() -> None:
    """The last model's own error does not come in place of the first real cause, and nothing is put between."""

    async def program(host: Host) -> tuple[list[tuple[type[BaseException], str]], object, object]:
        models = {"a": Scripted(fails(BROKEN)), "b": Scripted(fails(AuthError("no such key", model="b", status=401)))}
        async with host.open(models, model("a", retry=RetryConfig(max_attempts=2, base_delay=0)), model("b")) as client:
            with pytest.raises(FallbackError) as caught:
                await client.generate("Why?")
            await nothing_held(client, *models.values())
        return chain(caught.value), facts(list(caught.value.attempts)), type(caught.value.__context__)

    failures = [host.run(partial(program, host)) for host in HOSTS]

    causes, attempts, _ = failures[0]
    assert [kind for kind, _ in causes] == [FallbackError, NetworkError]
    assert isinstance(attempts, list)
    assert len(attempts) == 3
    assert failures[1:] == failures[:1] * 3


@everywhere
async def test_options_that_are_wrong_send_nothing(host: Host) -> None:
    """The same `ConfigError`, wherever they are given; a prompt that is none is told first."""
    a = Scripted()
    async with host.open(a) as client:
        with pytest.raises(ConfigError, match=r"deadline.* must be more than 0 seconds"):
            await client.generate("Why?", deadline=-1.0)
        with pytest.raises(ConfigError, match=r"unknown|no route|'nowhere'"):
            client.stream("Why?", route="nowhere")
        with pytest.raises(ConfigError, match='must be "live" or "buffered"'):
            client.stream("Why?", delivery="loud")  # type: ignore[arg-type]  # the mistake
        with pytest.raises(ConfigError, match="max_concurrency"):
            await client.generate_batch(["Why?"], max_concurrency=0)
        with pytest.raises(InvalidPromptError, match="put a single text into a list"):
            await client.generate_batch("Why?")
        with pytest.raises(InvalidPromptError, match="a str or a Prompt, not list"):
            await client.generate(["Why?"])  # type: ignore[arg-type]  # the mistake
        with pytest.raises(ConfigError, match=r"cache.* is off"):
            await client.warm(["Why?"])
        with pytest.raises(ConfigError, match=r"cache.* is off"):
            await client.invalidate()
    assert a.calls == []


@everywhere
async def test_a_deadline_and_a_timeout_end_a_call(host: Host) -> None:
    """In time; what was open is closed."""
    a, b = Scripted(Turn(head=5.0)), Scripted(says("one ", 5.0, "two"))
    patient = model("a", timeouts=TimeoutsConfig(first_token=0.03, stall=60), retry=RetryConfig(max_attempts=1))
    async with host.open({"a": a, "b": b}, patient, model("b")) as client:
        with pytest.raises(ProviderTimeoutError) as late:
            await client.generate("Why?", model="a")
        with pytest.raises(DeadlineExceededError) as caught:
            await client.generate("Why?", model="b", deadline=0.03)
        assert (late.value.phase, caught.value.deadline) == ("first_token", 0.03)
        await nothing_held(client, a, b)


# -- several at once ---------------------------------------------------------------------------------------------------


@everywhere
async def test_many_callers_use_one_client_at_once(host: Host) -> None:
    """Each gets its own answer; they do not wait for each other."""
    a = Scripted(says(0.1, "yes"))
    async with host.open(a, model(slots=16)) as client:
        tasks = await host.together(*[partial(client.generate, f"Why {number}?") for number in range(16)])
        await nothing_held(client, a)
        assert len({task.result().request_id for task in tasks}) == 16
        assert max(call.start for call in a.calls) < min(call.end for call in a.calls)


@everywhere
async def test_two_clients_live_in_one_program(host: Host) -> None:
    """They share nothing; the inner may be closed while the outer goes on."""
    a, b = Scripted(says("from a")), Scripted(says("from b"))
    async with host.open(a) as outer:
        async with host.open(b) as inner:
            assert (await inner.generate("Why?")).text == "from b"
            assert (await outer.generate("Why?")).text == "from a"
        assert (await outer.generate("Why?")).text == "from a"
    assert (len(a.calls), len(b.calls)) == (2, 1)


@everywhere
async def test_a_client_is_not_waited_for_where_it_lives(host: Host) -> None:
    """In its own thread that would wait for itself for ever: it is refused. Under Trio there is no other place."""
    async with host.open(Scripted(says("yes"))) as client:
        facade: object = client

        async def ask() -> None:
            if isinstance(facade, Awaited):
                facade.blocking.generate("Why?")
            else:
                await client.generate("Why?")

        async def read() -> None:
            if isinstance(facade, Awaited):
                with facade.blocking.stream("Why?") as stream:
                    next(stream)
            else:
                async with client.stream("Why?") as events:
                    await anext(events)

        async def close() -> None:
            if isinstance(facade, Awaited):
                facade.blocking.close()
            elif host.name != "trio":
                await client.invalidate()

        for use in (ask, read, close):
            if host.name == "trio":
                await client.run(use)
            else:
                with pytest.raises(UnsupportedError, match=r"opened at .*hosts\.py:\d+"):
                    await client.run(use)
        assert (await client.generate("Why?")).text == "yes"


# -- what a caller brings along ----------------------------------------------------------------------------------------

CALLER: ContextVar[str] = ContextVar("CALLER", default="nobody")


@everywhere
async def test_context_variables_reach_the_provider_and_the_listener(host: Host) -> None:
    """Those of the call, in a request, a stream and a batch; each caller has its own."""
    seen: dict[str, list[str]] = {"open": [], "listener": []}
    a = Scripted(says(0.01, "yes"), on_open=lambda _seen: seen["open"].append(CALLER.get()))

    def listen(event: Event) -> None:
        if isinstance(event, RequestBegan):
            seen["listener"].append(CALLER.get())

    async def ask(name: str) -> None:
        CALLER.set(name)
        await client.generate("Why?")
        CALLER.set(f"{name}, streaming")
        async with client.stream("Why?") as stream:
            assert [text async for text in stream.text()] == ["yes"]
        CALLER.set(f"{name}, in a batch")
        await client.generate_batch(["Why?"])

    async with host.open(a) as client:
        client.events.listen(listen)
        for task in await host.together(partial(ask, "one"), partial(ask, "two")):
            task.result()

    said = sorted(f"{name}{how}" for name in ("one", "two") for how in ("", ", streaming", ", in a batch"))
    assert (sorted(seen["open"]), sorted(seen["listener"])) == (said, said)


@everywhere
async def test_a_provider_finds_itself_under_trio(host: Host) -> None:
    """Whatever library of the caller's asks which event loop there is, and whatever the caller's context says."""
    found: list[str] = []

    def look(_seen: Seen) -> None:
        found.append(anyio.get_current_task().name or "?")
        assert trio.lowlevel.in_trio_task()

    async with host.open(Scripted(says("yes"), on_open=look)) as client:
        await client.generate("Why?")
        await client.run(anyio.sleep, 0)
    assert len(found) == 1


# -- looking, changing -------------------------------------------------------------------------------------------------


@everywhere
async def test_the_cache_is_warmed_read_and_invalidated(host: Host) -> None:
    """With the same counts; the progress is told."""
    a = Scripted(says("yes"))
    told: list[tuple[int, int | None]] = []
    async with host.open(a, cache=CacheConfig(max_entries=10)) as client:
        warmed = await client.warm(
            ["one", "two", "two"], on_progress=lambda *done: told.append(done), max_concurrency=1
        )
        assert (warmed.stored, warmed.already, warmed.failed) == (2, 1, ())
        assert (await client.generate("one")).cached
        assert client.cache is not None
        assert client.cache.entries == 2
        assert await client.invalidate(text="o*") == 1
        assert not (await client.generate("one")).cached
    assert told == [(1, 3), (2, 3), (3, 3)]


@everywhere
async def test_the_tree_and_the_metrics_can_be_looked_at(host: Host) -> None:
    """While it is open, and afterwards."""
    async with host.open(Scripted(says("yes"))) as client:
        await client.generate("Why?")
        assert {node.state for node in client.tree().walk()} == {State.RUNNING}
        assert client.metrics().requests.answered == {"direct": 1}
    assert {node.state for node in client.tree().walk()} == {State.STOPPED}
    assert client.metrics().requests.answered == {"direct": 1}


@everywhere
async def test_events_are_read_as_they_come(host: Host) -> None:
    """By a reader that waits for them, in its own task or thread, and by a listener; both are told the same."""
    heard: list[Event] = []
    events = EventStream()
    with events.subscribe() as told:
        async with host.open(Scripted(fails(BROKEN), says("yes")), model(retry=NO_JITTER), events=events) as client:
            assert client.events is events
            client.events.listen(heard.append)
            async with host.beside(partial(host.heard, told, RequestEnded)) as reader:
                await client.generate("Why?")
    kinds = [type(event).__name__ for event in reader.result()]
    assert kinds[0] == "RequestBegan"
    assert kinds.count("AttemptEnded") == 2
    assert [type(event).__name__ for event in heard][: len(kinds)] == kinds


@frozen
class Double(Ask[int]):
    number: int


class Doubler(Actor):
    """An actor of a user's own."""

    @handles(Double)
    def double(self, message: Double, reply: Reply[int], now: float) -> None:
        reply.send(2 * message.number)


def doubler(ledger: Ledger, carry: object) -> Actor:
    """Make an incarnation."""
    return Doubler()


@everywhere
async def test_an_actor_of_ones_own_is_added_and_asked(host: Host) -> None:
    """Beside ours; it is in the tree, and stops with it. What it raises comes through."""
    async with host.open(Scripted()) as client:
        await client.run(client.supervisor.add, ChildSpec("doubler", doubler))
        ref = client.supervisor.ref("doubler", object)
        asked = await host.together(*[partial(client.run, ref.ask, Double(number)) for number in range(5)])
        assert [task.result() for task in asked] == [0, 2, 4, 6, 8]
        with pytest.raises(ValueError, match="doubler"):
            await client.run(client.supervisor.add, ChildSpec("doubler", doubler))
    assert ref.available is False
