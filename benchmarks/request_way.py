"""What the way of a request costs without any network.

    python -m benchmarks.request_way

A checkpoint of Trio, to compare machines by; an ask of an actor, alone and from many callers at once; a whole call
through router, bulkhead, limiter and breaker to a model that answers at once; a streamed chunk more. Each time is the
best of the rounds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from attrs import frozen

from wizard_actors import ResilientClient, WizardConfig
from wizard_actors.actor import Actor, ActorRef, Ask, Reply, handles
from wizard_actors.config import ModelConfig, RouteConfig, SimulatedConfig
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor

ROUNDS: Final = 15
CALLERS: Final = 64
WORDS: Final = 201


@frozen
class Echo(Ask[int]):
    """Ask for the number back."""

    number: int


class Wall(Actor):
    """Answers with what it was asked."""

    @handles(Echo)
    def echo(self, message: Echo, reply: Reply[int], now: float) -> None:
        """Answer."""
        reply.send(message.number)


async def best(work: Callable[[], Awaitable[object]], times: int) -> float:
    """Return how many microseconds one of `times` runs of `work` takes, in the best round."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            await work()
        rounds.append((time.perf_counter() - began) / times)
    return min(rounds) * 1e6


async def asks() -> None:
    """Measure asks."""

    async def one() -> None:
        await ref.ask(Echo(1))

    async def many() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(ten)

    async def ten() -> None:
        for _ in range(10):
            await ref.ask(Echo(1))

    async with Supervisor(GroupSpec("bench", [ChildSpec("wall", lambda _ledger, _carry: Wall())])) as tree:
        ref: ActorRef[object] = tree.ref("wall", object)
        say("an ask, one caller", await best(one, 2_000))
        say(f"an ask, {CALLERS} callers at once", await best(many, 5) / (CALLERS * 10))


async def calls() -> None:
    """Measure calls and streams of a model that answers at once."""

    async def short() -> None:
        await client.generate("Go.")

    async def long() -> None:
        async with client.stream("Go.", route="long") as stream:
            async for _ in stream:
                pass

    config = WizardConfig(
        models=[at_once("one word", 1), at_once("many words", WORDS)],
        routes=[RouteConfig(name="long", chain=["many words"])],
    )
    async with ResilientClient.open(config) as client:
        call = await best(short, 200)
        say("a whole call, nothing sent", call)
        say("one streamed chunk more", (await best(long, 10) - call) / (WORDS - 1))


def at_once(name: str, words: int) -> ModelConfig:
    """Return a model that answers with so many words, one a chunk, without any delay."""
    answer = " ".join(["word"] * words)
    return ModelConfig(
        name=name, provider="simulated", simulated=SimulatedConfig(answer=answer, first_token=0, per_chunk=0)
    )


def say(what: str, microseconds: float) -> None:
    """Print a figure."""
    sys.stdout.write(f"  {what:<30} {microseconds:6.1f} us\n")


async def main() -> None:
    """Print the figures."""
    sys.stdout.write(f"best of {ROUNDS} rounds\n")
    say("a checkpoint", await best(trio.lowlevel.checkpoint, 5_000))
    await asks()
    await calls()


if __name__ == "__main__":
    trio.run(main)
