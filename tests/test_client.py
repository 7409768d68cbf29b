"""The client: how it opens and closes, what it accepts, which errors reach its callers, and Ctrl-C."""

import math
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import (
    NO_JITTER,
    Calls,
    Scripted,
    Turn,
    client_of,
    fails,
    model,
    says,
)
from wizard_actors import (
    ActorStoppedError,
    ConfigError,
    EnvVarError,
    InvalidPromptError,
    InvalidStateTransitionError,
    ModelConfig,
    NetworkError,
    Prompt,
    ResilientClient,
    SupervisorError,
    UnsupportedError,
    WizardConfig,
)
from wizard_actors.config import (
    RetryConfig,
    RouteConfig,
    ServerConfig,
)
from wizard_actors.event_stream import EventStream
from wizard_actors.events import RequestEnded
from wizard_actors.specs import State
from wizard_actors.types import TextDelta

BROKEN = NetworkError("the connection broke", model="a")

TOML = """
[[models]]
name = "a"
provider = "simulated"
simulated = { answer = "from a" }
[[models]]
name = "b"
provider = "simulated"
simulated = { answer = "from b" }
[[models]]
name = "off"
provider = "simulated"
enabled = false
[[routes]]
name = "fast"
chain = ["b"]
"""

# -- opening -----------------------------------------------------------------------------------------------------------


async def test_a_client_opens_from_a_path_or_a_config(autojump_clock: MockClock, tmp_path: Path) -> None:
    """A path as a string or an object, or settings made in code."""
    path = tmp_path / "wizard.toml"
    path.write_text(TOML)
    for source in (path, str(path), WizardConfig.load(path)):
        async with ResilientClient.open(source) as client:
            assert (await client.generate("Why?")).text == "from a"
            assert client.config == WizardConfig.load(path)


async def test_a_config_that_cannot_be_used_opens_nothing(autojump_clock: MockClock, tmp_path: Path) -> None:
    """The error names the file; nothing is left behind."""
    path = tmp_path / "wizard.toml"
    path.write_text("[[models]]\nname = 1\n")
    with pytest.raises(ConfigError, match=r"wizard\.toml") as caught:
        await open_and_close(path)
    assert len(caught.value.problems) > 1
    with pytest.raises(ConfigError, match="nowhere"):
        await open_and_close(tmp_path / "nowhere.toml")


async def open_and_close(source: WizardConfig | Path) -> None:
    """Open a client for a moment."""
    async with ResilientClient.open(source):
        pass


async def test_a_seed_makes_a_client_repeatable(autojump_clock: MockClock) -> None:
    """Request ids and delays come from the one source of chance that is passed in."""

    async def run() -> tuple[str, float]:
        a = Scripted(fails(BROKEN), says("yes"))
        async with client_of(a, seed=7) as client:
            answer = await client.generate("Why?")
            return answer.request_id, answer.attempts[1].delay

    assert await run() == await run()


async def test_events_go_to_the_stream_that_was_passed_in(autojump_clock: MockClock) -> None:
    """Whoever opens a client may have subscribed before."""
    events = EventStream()
    with events.subscribe() as told:
        async with client_of(Scripted(), events=events) as client:
            assert client.events is events
            await client.generate("Why?")

        assert any(isinstance(event, RequestEnded) for event in told.drain())


# -- the arguments of a call -------------------------------------------------------------------------------------------


async def test_a_call_names_a_route_or_a_model(autojump_clock: MockClock) -> None:
    """The default route is "wizard"; a model is asked alone."""
    a, b = Scripted(says("from a"), fails(BROKEN)), Scripted(says("from b"))
    fast = RouteConfig(name="fast", chain=("b", "a"))
    once = model("a", retry=RetryConfig(max_attempts=1))
    async with client_of({"a": a, "b": b}, once, model("b"), routes=[fast]) as client:
        assert (await client.generate("Why?", route="wizard")).model == "a"
        assert (await client.generate("Why?", route="fast")).model == "b"
        assert (await client.generate("Why?", model="b")).model == "b"
        with pytest.raises(NetworkError):
            await client.generate("Why?", model="a")
        async with client.stream("Why?", model="b") as stream:
            assert await anext(stream) == TextDelta("from b")


async def test_unknown_names_are_told_with_those_there_are(autojump_clock: MockClock) -> None:
    """Before anything is sent."""
    a = Scripted()
    async with client_of({"a": a}, model("a"), model("off", enabled=False)) as client:
        for route, name, match in (
            ("wizzard", None, "did you mean 'wizard'"),
            (None, "zzz", "there are: a, off"),
            (None, "off", "is disabled"),
        ):
            with pytest.raises(ConfigError, match=match):
                await client.generate("Why?", route=route, model=name)
            with pytest.raises(ConfigError, match=match):
                client.stream("Why?", route=route, model=name)
        assert a.calls == []


def test_a_client_needs_an_event_loop() -> None:
    """Whoever drives a coroutine by hand is told so at once, and what to use in a plain program."""
    entering = ResilientClient.open(WizardConfig(models=[model()])).__aenter__()

    with pytest.raises(UnsupportedError, match="use a BlockingClient"):
        entering.send(None)


async def test_a_client_is_opened_once() -> None:
    """A block that has been entered is used up, also once it has been left."""
    block = ResilientClient.open(WizardConfig(models=[model()]))
    async with block:
        pass

    with pytest.raises(InvalidStateTransitionError, match="opened once"):
        await block.__aenter__()


@pytest.mark.parametrize("deadline", [0.0, -1.0, math.nan, True, "soon"])
async def test_a_deadline_is_a_time_ahead(autojump_clock: MockClock, deadline: float) -> None:
    """Anything else is a mistake of the caller's, not a passed deadline."""
    async with client_of(Scripted()) as client:
        with pytest.raises(ConfigError, match=r"^this call: `deadline` must be more than 0 seconds"):
            await client.generate("Why?", deadline=deadline)


async def test_a_delivery_that_is_none_is_a_mistake(autojump_clock: MockClock) -> None:
    """And named."""
    async with client_of(Scripted()) as client:
        for mistake in ("loud", "whole"):
            with pytest.raises(ConfigError, match=f'must be "live" or "buffered", not \'{mistake}\''):
                client.stream("Why?", delivery=mistake)  # type: ignore[arg-type]  # the mistake


async def test_an_empty_prompt_is_refused_before_anything_begins(autojump_clock: MockClock) -> None:
    """No request, no event."""
    async with client_of(Scripted()) as client:
        with client.events.subscribe() as events:
            with pytest.raises(InvalidPromptError):
                await client.generate("")
            assert events.drain() == []


async def test_a_prompt_of_another_kind_is_refused_too(autojump_clock: MockClock) -> None:
    """As a prompt that is none, not as a bug of each provider."""
    async with client_of(Scripted()) as client:
        with pytest.raises(InvalidPromptError, match="a str or a Prompt, not list"):
            await client.generate(["Why?"])  # type: ignore[arg-type]  # the mistake


async def test_a_prompt_reaches_the_model_as_it_is(autojump_clock: MockClock) -> None:
    """Text, or a whole conversation."""
    a = Scripted()
    async with client_of(a) as client:
        await client.generate("Why?")
        await client.generate(Prompt("Why?", system="Be brief. "))

        assert [call.prompt for call in a.calls] == ["Why?", "Be brief. Why?"]


# -- closing -----------------------------------------------------------------------------------------------------------


async def test_closing_waits_for_calls_in_flight(autojump_clock: MockClock) -> None:
    """They end as if nothing happened; then the tree stops."""
    a = Scripted(says(6.0, "in time"))
    calls = Calls()
    async with trio.open_nursery() as nursery:
        async with client_of(a) as client:
            nursery.start_soon(calls.generate, client)  # noqa: ASYNC111 - it outlives the block, and has to
            await wait_all_tasks_blocked()
        assert trio.current_time() == 6.0
        assert all(found.state is State.STOPPED for found in client.tree().walk())

    assert [answer.text for answer in calls.answers] == ["in time"]


async def test_closing_waits_no_longer_than_it_should(autojump_clock: MockClock) -> None:
    """A call that takes longer than `drain_timeout` is left to itself."""
    a = Scripted(says(60.0, "late"))
    async with trio.open_nursery() as nursery:
        async with client_of(a, server=ServerConfig(drain_timeout=7.0)) as client:
            nursery.start_soon(Calls().generate, client)  # noqa: ASYNC111 - it outlives the block, and has to
            await wait_all_tasks_blocked()
        assert trio.current_time() == 7.0
        nursery.cancel_scope.cancel()
    assert a.in_flight == 0


async def test_closing_refuses_whoever_is_not_in_flight_yet(autojump_clock: MockClock) -> None:
    """A call that waits for a slot, and one that comes when all is over, are told that the client is closed."""
    a = Scripted(says(6.0, "in time"))
    calls = Calls()
    async with trio.open_nursery() as nursery:
        async with client_of(a, model(slots=1)) as client:
            for _ in range(2):
                nursery.start_soon(calls.generate, client)  # noqa: ASYNC111 - it outlives the block, and has to
            await wait_all_tasks_blocked()
        await calls.generate(client)

    assert [answer.text for answer in calls.answers] == ["in time"]
    assert [type(error) for error in calls.errors] == [ActorStoppedError, ActorStoppedError]


async def give_up(config: WizardConfig) -> None:
    """Open a client whose tree fails."""
    async with ResilientClient.open(config) as client:
        client.supervisor.give_up(RuntimeError("planted"))
        await trio.sleep_forever()


class Closing:
    """Stands in for an HTTP client, and knows whether it was closed."""

    def __init__(self, made: list["Closing"]) -> None:
        self.closed = False
        made.append(self)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed = True


@pytest.fixture
def http(monkeypatch: pytest.MonkeyPatch) -> list[Closing]:
    """Return the HTTP clients that are made."""
    made: list[Closing] = []
    monkeypatch.setattr("wizard_actors.builder.make_http_client", lambda **_kwargs: Closing(made))
    return made


def openai(name: str = "remote", *, key: str | None = None, provider: str = "openai") -> ModelConfig:
    """Return the configuration of a model behind HTTP."""
    return ModelConfig(name=name, provider=provider, base_url="http://127.0.0.1:9/v1", api_key_env=key)


async def test_http_clients_are_closed_with_the_client(autojump_clock: MockClock, http: list[Closing]) -> None:
    """Also for a body that was cancelled: closing is shielded."""
    with trio.move_on_after(1.0):
        async with ResilientClient.open(WizardConfig(models=[openai()])):
            await trio.sleep_forever()

    assert [client.closed for client in http] == [True]


async def test_http_clients_are_closed_where_opening_fails(
    autojump_clock: MockClock, http: list[Closing], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing key, and a provider that nobody gave."""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(EnvVarError, match="NO_SUCH_KEY"):
        await open_and_close(WizardConfig(models=[openai("one"), openai("two", key="NO_SUCH_KEY")]))
    with pytest.raises(ConfigError, match="two"):
        await open_and_close(WizardConfig(models=[openai("one"), openai("two", provider="custom")]))

    assert [client.closed for client in http] == [True, True]


async def test_http_clients_are_closed_where_the_tree_fails(autojump_clock: MockClock, http: list[Closing]) -> None:
    """A tree that cannot go on cancels the block, and says why."""
    with pytest.raises(SupervisorError, match="cannot go on: planted"):
        await give_up(WizardConfig(models=[openai()]))

    assert [made.closed for made in http] == [True]


async def test_the_bodys_own_error_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    """Not in a group, not converted."""
    with pytest.raises(ZeroDivisionError):
        async with client_of(Scripted()):
            raise ZeroDivisionError


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


def interrupted(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario that a Ctrl-C ends, and make sure that it does."""
    with pytest.raises(KeyboardInterrupt):
        trio.run(scenario, clock=MockClock(autojump_threshold=0))


def test_ctrl_c_stops_a_call_and_closes_everything() -> None:
    """The exchange is closed, and nobody waits for grants that never come back."""
    a = Scripted(Turn(("half", 99.0)), on_open=lambda _seen: signal.raise_signal(signal.SIGINT))
    ended: list[float] = []

    async def scenario() -> None:
        try:
            async with client_of(a) as client:
                await client.generate("Why?")
        finally:
            ended.append(trio.current_time())

    interrupted(scenario)

    assert a.in_flight == 0
    assert ended == [0.0]


WAY = ("reporting", "answering", "way", "lane", "books", "attempt")
FILES = frozenset(f"{name}.py" for name in (*WAY, "mailbox", "client"))


def test_ctrl_c_at_any_moment_of_a_calls_way_leaks_nothing() -> None:
    """Wherever it strikes, the tree stops without waiting for a grant that its keeper never got."""
    leaks: list[tuple[int, str]] = []

    def run(strike: int) -> bool:
        """Strike at that moment; say whether the call's way was that long."""
        seen, where = 0, ""

        def watch(frame: FrameType, event: str, _argument: object) -> None:
            nonlocal seen, where
            # Round each call of C code: there the interpreter looks for signals, and not where a task resumes.
            if event in {"c_call", "c_return"} and Path(frame.f_code.co_filename).name in FILES:
                seen += 1
                if seen == strike:
                    where = f"{frame.f_code.co_filename}:{frame.f_lineno}, at a {event}"
                    signal.raise_signal(signal.SIGINT)

        a = Scripted(fails(BROKEN), says("one", 1.0, "two"))

        async def scenario() -> None:
            try:
                async with client_of(a, model(retry=NO_JITTER)) as client:
                    sys.setprofile(watch)
                    try:
                        await client.generate("Why?")
                    finally:
                        sys.setprofile(None)
            finally:
                if trio.current_time() > 5.0 or a.in_flight:
                    leaks.append((strike, where))

        try:
            trio.run(scenario, clock=MockClock(autojump_threshold=0))
        except KeyboardInterrupt:
            return True
        return seen >= strike

    strike = 1
    while run(strike):
        strike += 1

    assert strike > 150
    assert leaks == []


async def test_options_that_do_not_exist_are_told_with_where_they_belong(autojump_clock: MockClock) -> None:
    """All that is wrong at once."""
    async with client_of(Scripted()) as client:
        with pytest.raises(ConfigError) as caught:
            await client.generate("Why?", temperature=5, strategy="best", model=["a"])  # type: ignore[call-arg, arg-type]  # what an untyped program may write
        assert [problem.key for problem in caught.value.problems] == ["temperature", "strategy", "strategy", "model"]


async def test_a_closed_client_says_so(autojump_clock: MockClock) -> None:
    """Not that some actor of its has stopped."""
    async with client_of(Scripted()) as client:
        pass
    with pytest.raises(ActorStoppedError, match="the client is closed"):
        await client.generate("Why?")


async def test_a_client_opens_from_nothing_else_than_a_config_or_a_path(autojump_clock: MockClock) -> None:
    """The error says what it takes."""
    with pytest.raises(ConfigError, match="a WizardConfig or a path"):
        async with ResilientClient.open(None):  # type: ignore[arg-type]  # what an untyped program may write
            pass
