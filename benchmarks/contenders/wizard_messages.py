"""An ask of an actor of Wizard Actors: its kernel alone, as it is given, with a supervisor and a mailbox."""

from __future__ import annotations

from _harness import Bench, importing, main

with importing():
    import trio
    from attrs import frozen

    from wizard_actors.actor import Actor, ActorRef, Ask, Reply, handles
    from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor


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


async def run(bench: Bench, *, crowd: bool) -> None:
    """Time asks of one actor."""

    async def one() -> None:
        await ref.ask(Echo(1))

    async with Supervisor(GroupSpec("bench", [ChildSpec("wall", lambda _ledger, _carry: Wall())])) as tree:
        ref: ActorRef[object] = tree.ref("wall", object)
        bench.same(await ref.ask(Echo(7)), 7)
        await (bench.trio_crowd(one, shared=True) if crowd else bench.sequential(one))


def ask(bench: Bench) -> None:
    """One after another."""
    trio.run(lambda: run(bench, crowd=False))


def ask64(bench: Bench) -> None:
    """Many at once."""
    trio.run(lambda: run(bench, crowd=True))


if __name__ == "__main__":
    main({"ask": ask, "ask64": ask64}, "wizard-actors", "trio")
