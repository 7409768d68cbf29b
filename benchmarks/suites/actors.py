"""What the kernel costs: asks, what comes back for a grant, what is told, and a restart."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from itertools import count
from typing import Final

import trio
from attrs import field, frozen

from benchmarks.figure import Figure
from benchmarks.suites._measure import Rounds, Taken, one_by_one
from wizard_actors.actor import Actor, ActorRef, Ask, Reply, Return, handles, hears, takes_back
from wizard_actors.errors import ActorCrashedError
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor

__all__ = ["Size", "figures"]

CALLERS: Final = 64
IN_A_ROW: Final = 200
"""Returns and tells that are sent before the actor gets to them."""


@frozen
class Size:
    """How much is measured: so many `rounds`, of so many `calls` of each thing."""

    rounds: int = 9
    calls: int = 1_000


@frozen
class Echo(Ask[int]):
    """Ask for the number back."""

    number: int


@frozen(eq=False)
class Loan:
    """What is granted."""


@frozen
class Borrow(Ask[Loan]):
    """Ask for a loan."""


@frozen
class Returned(Return[Loan]):
    """The loan has come back."""


@frozen
class Said:
    """Something that is told."""


@frozen
class Crash(Ask[int]):
    """Ask it to crash."""


class Wall(Actor):
    """Answers with what it was asked, lends, listens, and crashes where it is told to."""

    @handles(Echo)
    def echo(self, message: Echo, reply: Reply[int], now: float) -> None:
        """Answer."""
        reply.send(message.number)

    @handles(Borrow)
    def borrow(self, message: Borrow, reply: Reply[Loan], now: float) -> None:
        """Lend."""
        reply.grant(Loan())

    @takes_back(Returned)
    def returned(self, grant: Loan, message: Returned, now: float) -> None:
        """Take it."""

    @hears(Said)
    def said(self, message: Said, now: float) -> None:
        """Listen."""

    @handles(Crash)
    def crash(self, message: Crash, reply: Reply[int], now: float) -> None:
        """Crash."""
        raise RuntimeError("as it was asked to")


def wall(name: str) -> ChildSpec:
    """Return the spec of such an actor."""
    return ChildSpec(name, lambda _ledger, _carry: Wall(), tells=2 * IN_A_ROW)


@frozen
class Bench:
    """A tree with one such actor, and what is done to it."""

    tree: Supervisor
    ref: ActorRef[object]
    names: Iterator[int] = field(factory=count)

    async def ask(self) -> None:
        """Ask, and be answered."""
        await self.ref.ask(Echo(1))

    async def asks_at_once(self, times: int) -> Taken:
        """Time asks of many callers at once: the time of all, for one."""

        async def caller() -> None:
            for _ in range(each):
                await self.ref.ask(Echo(1))

        each = max(1, times // CALLERS)
        spent, began = time.process_time(), time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(caller)
        return self._shared(began, spent, each * CALLERS)

    async def returns(self) -> Taken:
        """Time giving back some grants, until the actor has taken all of them."""
        loans = [await self.ref.ask(Borrow()) for _ in range(IN_A_ROW)]
        spent, began = time.process_time(), time.perf_counter()
        for loan in loans:
            self.ref.give_back(loan, Returned())
        await self.ask()
        return self._shared(began, spent, IN_A_ROW)

    async def tells(self) -> Taken:
        """Time telling something, until the actor has heard all of it."""
        spent, began = time.process_time(), time.perf_counter()
        for _ in range(IN_A_ROW):
            self.ref.tell(Said())
        await self.ask()
        return self._shared(began, spent, IN_A_ROW)

    async def restart(self) -> float:
        """Return how long it takes from a crash to the next incarnation's first answer.

        Of an actor of its own, which has not crashed yet: only a first restart is immediate.
        """
        name = f"other-{next(self.names)}"
        await self.tree.add(wall(name))
        ref: ActorRef[object] = self.tree.ref(name, object)
        await ref.ask(Echo(1))
        began = time.perf_counter()
        try:
            await ref.ask(Crash())
        except ActorCrashedError:
            await ref.ask(Echo(1))
        taken = time.perf_counter() - began
        await self.tree.remove(name)
        return taken

    async def restarts(self, times: int) -> Taken:
        """Time some restarts."""
        spent = time.process_time()
        walls = [await self.restart() for _ in range(times)]
        return Taken(walls, (time.process_time() - spent) / times, times)

    @staticmethod
    def _shared(began: float, spent: float, calls: int) -> Taken:
        wall_time = (time.perf_counter() - began) / calls
        return Taken([wall_time], (time.process_time() - spent) / calls, calls)


async def measure(size: Size) -> Rounds:
    """Measure every round."""
    rounds = Rounds("actors")
    async with Supervisor(GroupSpec("bench", [wall("wall")])) as tree:
        bench = Bench(tree, tree.ref("wall", object))
        await one_by_one(bench.ask, size.calls // 10)
        for _ in range(size.rounds):
            rounds.add("a checkpoint of Trio", await one_by_one(trio.lowlevel.checkpoint, size.calls))
            rounds.add("ask, alone", await one_by_one(bench.ask, size.calls), bound=15.0)
            rounds.add(f"ask, {CALLERS} callers at once", await bench.asks_at_once(size.calls), bound=4.0)
            rounds.add("return", await bench.returns())
            rounds.add("tell", await bench.tells())
            rounds.add("restart, crash to first answer", await bench.restarts(max(1, size.calls // 50)))
    return rounds


def figures(size: Size | None = None) -> Iterator[Figure]:
    """Measure the kernel, and yield the figures."""
    supervisor = logging.getLogger("wizard_actors.supervisor")
    quiet, supervisor.disabled = supervisor.disabled, True  # a crash is logged with its traceback
    try:
        rounds = trio.run(measure, size or Size())
    finally:
        supervisor.disabled = quiet
    yield from rounds.figures()
