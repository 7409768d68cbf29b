"""An actor of an app's own beside ours: it may crash, stop and go, and no call notices."""

from __future__ import annotations

import asyncio

import pytest
import trio
from attrs import frozen

from wizard_actors import ActorCrashedError, ActorStoppedError, ResilientClient, WizardConfig
from wizard_actors.actor import Actor, Ask, Ledger, Reply, handles
from wizard_actors.supervisor import ChildSpec, GroupSpec, State

CONFIG = """
[supervision]
max_restarts = 2

[[models]]
name = "only"
provider = "simulated"
simulated = { answer = "yes", first_token = 0 }
"""


@frozen
class Double(Ask[int]):
    number: int


@frozen
class Break(Ask[int]):
    pass


class Doubler(Actor):
    def __init__(self, journal: list[str] | None = None) -> None:
        self.journal = [] if journal is None else journal

    @handles(Double)
    def double(self, message: Double, reply: Reply[int], now: float) -> None:
        reply.send(2 * message.number)

    @handles(Break)
    def crash(self, message: Break, reply: Reply[int], now: float) -> None:
        raise ZeroDivisionError("a bug of the app's")

    async def stop(self) -> None:
        self.journal.append("doubler")


def doubler(ledger: Ledger, carry: object) -> Actor:
    """Make an incarnation."""
    return Doubler()


SPEC = ChildSpec("doubler", doubler)


def config() -> WizardConfig:
    """Return a configuration of one model that answers."""
    return WizardConfig.from_toml(CONFIG, env={})


async def test_it_is_asked_beside_ours_and_seen_in_the_tree(autojump_clock: trio.testing.MockClock) -> None:
    """It stands under the client's root, and is asked like any actor."""
    async with ResilientClient.open(config()) as client:
        await client.supervisor.add(SPEC)

        assert await client.run(client.supervisor.ref("doubler", object).ask, Double(21)) == 42
        assert [node.path for node in client.tree().children][-1] == "wizard/doubler"


async def test_calls_go_on_while_it_crashes_and_when_it_is_down(autojump_clock: trio.testing.MockClock) -> None:
    """Over its limit of crashes it is down, asks of it fail at once; no neighbour is restarted or refuses a call."""
    async with ResilientClient.open(config()) as client:
        await client.supervisor.add(SPEC)
        ref = client.supervisor.ref("doubler", object)
        for _ in range(3):
            with pytest.raises(ActorCrashedError):
                await ref.ask(Break())
            assert (await client.generate("still there?")).text == "yes"
            await trio.sleep(1)  # over the backoff

        began = trio.current_time()
        with pytest.raises(ActorCrashedError):
            await ref.ask(Double(1))

        assert trio.current_time() == began
        nodes = {node.path: node for node in client.tree().walk()}
        assert nodes["wizard/doubler"].state is State.DOWN
        assert {node.restarts for path, node in nodes.items() if path != "wizard/doubler"} == {0}
        assert (await client.generate("still there?")).text == "yes"


async def test_it_comes_back_from_being_down(autojump_clock: trio.testing.MockClock) -> None:
    """What is down is tried again every `down_retry` seconds."""
    async with ResilientClient.open(config()) as client:
        await client.supervisor.add(SPEC)
        ref = client.supervisor.ref("doubler", object)
        for _ in range(3):
            with pytest.raises(ActorCrashedError):
                await ref.ask(Break())
            await trio.sleep(1)

        await trio.sleep(client.config.supervision.down_retry)

        assert await ref.ask(Double(4)) == 8


async def test_it_stops_before_ours_when_the_client_is_left(autojump_clock: trio.testing.MockClock) -> None:
    """The last one added is the first one stopped; whoever asks it from then on is told so."""
    stopped: list[str] = []

    async with ResilientClient.open(config()) as client:
        for name in ("first", "second"):
            await client.supervisor.add(ChildSpec(name, lambda ledger, carry, name=name: Named(name, stopped)))  # type: ignore[misc]
        ref = client.supervisor.ref("first", object)

    assert stopped == ["second", "first"]
    with pytest.raises(ActorStoppedError):
        await ref.ask(Double(1))


class Named(Doubler):
    def __init__(self, name: str, journal: list[str]) -> None:
        super().__init__(journal)
        self.name = name

    async def stop(self) -> None:
        self.journal.append(self.name)


@pytest.mark.parametrize("name", ["router", "models", "doubler"])
async def test_a_name_that_is_taken_is_refused(name: str, autojump_clock: trio.testing.MockClock) -> None:
    """Neither ours nor one's own are replaced by a namesake."""
    async with ResilientClient.open(config()) as client:
        await client.supervisor.add(SPEC)

        with pytest.raises(ValueError, match=f"'{name}'"):
            await client.supervisor.add(ChildSpec(name, doubler))

        assert (await client.generate("still there?")).text == "yes"


async def test_it_can_be_removed_and_its_name_used_again(autojump_clock: trio.testing.MockClock) -> None:
    """What is removed refuses asks, and leaves no trace; a group of one's own is a child like any other."""
    async with ResilientClient.open(config()) as client:
        await client.supervisor.add(SPEC)
        ref = client.supervisor.ref("doubler", object)

        await client.supervisor.remove("doubler")

        with pytest.raises(ActorStoppedError):
            await ref.ask(Double(1))
        await client.supervisor.add(GroupSpec("doubler", [SPEC]))
        assert await client.supervisor.ref("doubler/doubler", object).ask(Double(1)) == 2


def test_it_is_asked_from_asyncio() -> None:
    """Beside a client under asyncio it is added, asked and removed through `client.run`."""

    async def main() -> list[object]:
        async with ResilientClient.open(config()) as client:
            await client.run(client.supervisor.add, SPEC)
            ref = client.supervisor.ref("doubler", object)
            answers: list[object] = [await client.run(ref.ask, Double(number)) for number in range(3)]
            try:
                await client.run(ref.ask, Break())
            except ActorCrashedError as error:
                answers.append(type(error.__cause__))
            await client.run(client.supervisor.remove, "doubler")
            return [*answers, (await client.generate("still there?")).text]

    assert asyncio.run(main()) == [0, 2, 4, ZeroDivisionError, "yes"]
