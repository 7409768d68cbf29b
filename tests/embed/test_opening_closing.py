"""How a client opens and closes in every host, and what becomes of the calls in flight."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import trio

from tests.embed.hosts import Cut, Host, everywhere, nothing_held, our_threads
from tests.models import Scripted, Turn, model, says
from wizard_actors import (
    ActorError,
    ActorStoppedError,
    BlockingClient,
    ConfigError,
    InvalidStateTransitionError,
    ModelConfig,
    ResilientClient,
    SupervisorError,
    WizardConfig,
    WizardError,
    WizardResponse,
)
from wizard_actors.config import CacheConfig, ServerConfig
from wizard_actors.specs import State
from wizard_actors.worker import ModelWorker

# -- opening -----------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_bad_configuration_is_the_same_error(host: Host, tmp_path: Path) -> None:
    """With the file, and every problem; nothing is left behind."""
    path = tmp_path / "wizard.toml"
    path.write_text("[[models]]\nname = 1\n")
    with pytest.raises(ConfigError, match=r"wizard\.toml") as caught:
        async with host.enter(str(path)):
            pass
    assert len(caught.value.problems) > 1
    assert our_threads() == []
    with pytest.raises(ConfigError, match="no provider was given for this model"):
        async with host.enter(WizardConfig(models=[ModelConfig(name="a", provider="custom")])):
            pass
    assert our_threads() == []
    with pytest.raises(ConfigError, match="must be a WizardConfig or a path"):
        async with host.enter(7):  # type: ignore[arg-type]  # the mistake
            pass
    assert our_threads() == []


@everywhere
async def test_a_client_is_opened_once(host: Host) -> None:
    """The block is; `open` makes another. A `BlockingClient` is open as soon as it is there."""
    if host.name == "threads":
        client = BlockingClient.open(WizardConfig(models=[model()]))
        with client, client:
            pass
        with pytest.raises(ActorStoppedError, match="closed"):
            client.generate("Why?")
        return
    block = ResilientClient.open(WizardConfig(models=[model()]))
    async with block:
        with pytest.raises(InvalidStateTransitionError, match="opened once"):
            await block.__aenter__()
    with pytest.raises(InvalidStateTransitionError, match="opened once"):
        await block.__aenter__()


class SlowWorker(ModelWorker):
    """One that takes its time to start."""

    async def start(self) -> None:
        await trio.sleep(0.15)


@pytest.mark.parametrize("after", [None, 0.0, 0.001, 0.05])
@everywhere
async def test_opening_that_is_cancelled_half_way_leaves_nothing(canceller: Host, after: float | None) -> None:
    """At whichever moment, the first included: the tree is stopped first, and the block gets no further."""
    waited = False

    async def opens() -> None:
        nonlocal waited
        async with canceller.open(Scripted()):
            await canceller.sleep(0.3)
            waited = True

    with patch("wizard_actors.worker.ModelWorker", SlowWorker):
        async with canceller.beside(opens) as task:
            if after is not None:
                await canceller.sleep(after)
            task.cancel()
    assert isinstance(task.error, Cut)
    assert not waited
    assert our_threads() == []


# -- closing -----------------------------------------------------------------------------------------------------------


async def read(client: ResilientClient) -> list[str]:
    """Read a stream to its end."""
    async with client.stream("Why?") as stream:
        return [text async for text in stream.text()]


class Caller:
    """Asks a client that is opened only later, and closed before its task or thread ends."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.client: ResilientClient | None = None
        self.full = False
        self.late_until = math.inf

    async def ask(self) -> WizardResponse:
        await self._host.until(lambda: self.client is not None)
        assert self.client is not None
        return await self.client.generate("Why?")

    async def read(self) -> list[str]:
        await self._host.until(lambda: self.client is not None)
        assert self.client is not None
        return await read(self.client)

    async def batch(self) -> list[WizardResponse | WizardError]:
        await self._host.until(lambda: self.client is not None)
        assert self.client is not None
        return await self.client.generate_batch(["Why?"])

    async def late(self) -> WizardResponse:
        await self._host.until(lambda: self.full)
        try:
            return await self.ask()
        finally:
            self.late_until = time.monotonic()


@everywhere
async def test_closing_waits_for_calls_in_flight(host: Host) -> None:
    """Calls and streams of other tasks or threads end as if nothing happened; whoever waits for a slot is refused."""
    a, caller = Scripted(says("in ", 0.15, "time")), Caller(host)
    async with (
        host.beside(caller.ask) as asked,
        host.beside(caller.read) as streamed,
        host.beside(caller.late) as late,
        host.open(a, model(slots=2)) as caller.client,
    ):
        await host.until(lambda: a.in_flight == 2)
        caller.full = True
        await host.sleep(0.03)
    assert our_threads() == []
    assert asked.result().text == "in time"
    assert streamed.result() == ["in ", "time"]
    assert isinstance(late.error, ActorStoppedError)
    assert len(a.calls) == 2


@everywhere
async def test_a_client_that_is_closed_refuses_at_once_and_can_be_looked_at(host: Host) -> None:
    """With an error that says so, however it is asked."""
    async with host.open(Scripted(), cache=CacheConfig(max_entries=5)) as client:
        pass
    asks: list[Callable[[], Awaitable[object]]] = [partial(client.generate, "Why?"), partial(read, client)]
    asks += [client.invalidate]
    if host.name != "trio":  # where there is nothing that could be closed
        asks += [partial(client.run, trio.sleep, 0), partial(client.generate_batch, ["Why?"])]
    for ask in asks:
        start = time.monotonic()
        with pytest.raises(ActorStoppedError):
            await ask()
        assert time.monotonic() - start < 0.2
    assert {node.state for node in client.tree().walk()} == {State.STOPPED}
    assert client.cache is not None


@everywhere
async def test_closing_waits_no_longer_than_the_drain_timeout(host: Host) -> None:
    """What runs longer is cut off where the client has a thread of its own; under Trio it is left to itself."""
    a, caller = Scripted(Turn(("one ", 5.0, "late"), closing=0.02)), Caller(host)
    async with (
        host.beside(caller.ask) as asked,
        host.beside(caller.read) as streamed,
        host.beside(caller.batch) as many,
    ):
        start = time.monotonic()
        async with host.open(a, server=ServerConfig(drain_timeout=0.1)) as client:
            caller.client = client
            await host.until(lambda: a.in_flight == 3)
        assert 0.09 < time.monotonic() - start < 1.0
        if host.name == "trio":
            assert not asked.over
            for task in (asked, streamed, many):
                task.cancel()
    assert a.in_flight == 0
    expected = Cut if host.name == "trio" else ActorStoppedError
    assert [type(task.error) for task in (asked, streamed, many)] == [expected] * 3


@everywhere
async def test_the_bodys_own_error_comes_out_as_it_is(host: Host) -> None:
    """Not in a group, not converted, without another in front of it."""

    async def fail() -> None:
        async with host.open(Scripted()) as client:
            await client.generate("Why?")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await fail()
    assert caught.value.__cause__ is None


# -- crashes -----------------------------------------------------------------------------------------------------------


@everywhere
async def test_calls_go_on_over_crashes(host: Host) -> None:
    """Each actor on a call's way crashes once, while calls are under way and others begin."""
    a = Scripted(says(0.02, "yes"))

    async def kill() -> None:
        for path in ("router", "models/model:a/limiter", "models/model:a/breaker", "models/model:a/worker"):
            await trio.sleep(0.01)
            client.supervisor.kill(path, RuntimeError("planted"))

    async def ask() -> list[str]:
        return [(await client.generate("Why?")).text for _ in range(5)]

    async with host.open(a, model(slots=4)) as client:
        tasks = await host.together(partial(client.run, kill), *[ask] * 4)
        assert [task.result() for task in tasks] == [None, *[["yes"] * 5] * 4]
        assert sum(node.restarts for node in client.tree().walk()) >= 4
        await nothing_held(client, a)


# -- a tree that cannot go on ------------------------------------------------------------------------------------------


async def give_up(client: ResilientClient) -> None:
    """Let the tree fail, under Trio."""
    await trio.lowlevel.checkpoint()
    client.supervisor.give_up(RuntimeError("planted"))


@everywhere
async def test_a_tree_that_cannot_go_on_fails_whoever_asks(host: Host) -> None:
    """Pending and later calls, and leaving; each gets an error of its own."""
    a, caller = Scripted(says("one ", 5.0, "late")), Caller(host)

    async def opens() -> None:
        async with host.open(a, server=ServerConfig(drain_timeout=0.1)) as caller.client:
            await host.until(lambda: a.in_flight == 2)
            await caller.client.run(give_up, caller.client)
            await host.sleep(0.3)
            if host.name != "trio":  # which has cancelled the block
                with pytest.raises(SupervisorError, match="planted"):
                    await caller.ask()

    async with host.beside(caller.ask) as asked, host.beside(caller.read) as streamed:
        with pytest.raises(SupervisorError, match="cannot go on: planted") as caught:
            await opens()
        assert isinstance(caught.value.__cause__, RuntimeError)
        if host.name == "trio":
            asked.cancel()
            streamed.cancel()
    if host.name != "trio":
        assert [type(task.error) for task in (asked, streamed)] == [SupervisorError] * 2
        assert asked.error is not streamed.error
        assert isinstance(asked.error.__cause__, RuntimeError)
    assert a.in_flight == 0
    with pytest.raises(SupervisorError, match="planted"):
        await caller.ask()


@everywhere
async def test_the_bodys_own_error_comes_before_the_trees(host: Host) -> None:
    """It is what the program has to say."""

    async def fail() -> None:
        async with host.open(Scripted()) as client:
            await client.run(give_up, client)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


@everywhere
async def test_calls_that_wait_for_a_slot_learn_that_the_tree_has_failed(host: Host) -> None:
    """At once, not after the drain."""
    a, caller, started = Scripted(says("one ", 5.0, "late")), Caller(host), list[float]()

    async def opens() -> None:
        async with host.open(a, model(slots=1), server=ServerConfig(drain_timeout=0.5)) as caller.client:
            await host.until(lambda: a.in_flight == 1)
            caller.full = True
            await host.sleep(0.03)
            started.append(time.monotonic())
            await caller.client.run(give_up, caller.client)

    async with host.beside(caller.ask) as asked, host.beside(caller.late) as late:
        with pytest.raises(SupervisorError):
            await opens()
        if host.name == "trio":
            asked.cancel()
    assert caller.late_until - started[0] < 0.3
    assert isinstance(late.error, ActorError)
    if host.name != "trio":
        assert isinstance(late.error, SupervisorError)
