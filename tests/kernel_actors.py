"""The actors that the kernel's tests supervise, and short ways to set up trees of them and to talk to them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from itertools import count
from random import Random

import trio
from attrs import frozen

from wizard_actors.actor import (
    Actor,
    ActorRef,
    Ask,
    Ledger,
    Notice,
    Reply,
    Return,
    Waiter,
    handles,
    hears,
    takes_back,
)
from wizard_actors.errors import WizardError
from wizard_actors.mailbox import Lanes
from wizard_actors.specs import ChildSpec, GroupSpec
from wizard_actors.supervisor import Supervisor


@frozen
class Echo(Ask[str]):
    """Is answered with its own text."""

    text: str = "hello"


@frozen
class Do(Ask[object]):
    """Runs `action` inside the actor's turn, and is answered with what it returns; what it raises is a crash."""

    action: Callable[[], object]


@frozen
class Keep(Ask[str]):
    """Is kept until `AnswerKept`, or until `until` where that is given."""

    text: str = "kept"
    until: float = math.inf


@frozen
class AnswerKept(Ask[int]):
    """Answers what is kept; is answered with how many answers were delivered."""


@frozen
class Unheard(Ask[str]):
    """No actor has a handler for this."""


@frozen
class Told:
    """A told message."""

    text: str


@frozen
class Act:
    """A told message that runs `action` inside the actor's turn: what that sends to the actor waits in its lanes."""

    action: Callable[[], object]


@frozen
class TellOnly:
    """A told message that no actor hears."""


@frozen
class ClerkView:
    """What a clerk publishes: how many it has echoed, what it has heard, how many it keeps."""

    echoed: int
    heard: tuple[str, ...]
    kept: int


class Clerk(Actor):
    """Answers, keeps, hears; notes in `journal` what happens to it. `room` bounds how many asks it keeps."""

    def __init__(self, name: str = "clerk", journal: list[str] | None = None, *, room: int = 1000) -> None:
        self.name = name
        self.journal = [] if journal is None else journal
        self.room = room
        self.kept: dict[Waiter, tuple[Reply[str], Keep]] = {}
        self.heard: list[str] = []
        self.echoed = 0
        self.ticks: list[float] = []

    async def start(self) -> None:
        """Note it."""
        self.journal.append(f"start {self.name}")

    async def stop(self) -> None:
        """Note it."""
        self.journal.append(f"stop {self.name}")

    def accepting(self) -> bool:
        """Whether there is room to keep one more."""
        return len(self.kept) < self.room

    def wake_at(self) -> float:
        """When the first kept ask is due."""
        return min((keep.until for _, keep in self.kept.values()), default=math.inf)

    def tick(self, now: float) -> None:
        """Answer what is due."""
        self.ticks.append(now)
        for reply, keep in tuple(self.kept.values()):
            if keep.until <= now:
                del self.kept[reply]
                reply.send(keep.text)

    def forget(self, waiter: Waiter, now: float) -> None:
        """Drop the ask."""
        _, keep = self.kept.pop(waiter)
        self.journal.append(f"forget {keep.text}")

    def snapshot(self) -> ClerkView:
        """Return the counts."""
        return ClerkView(self.echoed, tuple(self.heard), len(self.kept))

    @handles(Echo)
    def echo(self, message: Echo, reply: Reply[str], now: float) -> None:
        """Answer at once."""
        self.echoed += 1
        self.journal.append(f"echo {message.text}")
        reply.send(message.text)

    @handles(Do)
    def do(self, message: Do, reply: Reply[object], now: float) -> None:
        """Run the action."""
        reply.send(message.action())

    @handles(Keep)
    def keep(self, message: Keep, reply: Reply[str], now: float) -> None:
        """Keep the reply."""
        self.kept[reply] = (reply, message)

    @handles(AnswerKept)
    def answer_kept(self, message: AnswerKept, reply: Reply[int], now: float) -> None:
        """Answer everything that is kept."""
        delivered = sum(kept.send(keep.text) for kept, keep in self.kept.values())
        self.kept.clear()
        reply.send(delivered)

    @hears(Told)
    def hear(self, message: Told, now: float) -> None:
        """Note it."""
        self.heard.append(message.text)
        self.journal.append(f"hear {message.text}")

    @hears(Act)
    def act(self, message: Act, now: float) -> None:
        """Run the action."""
        message.action()


@frozen
class Lease:
    """The grant that a garage gives out."""

    number: int


@frozen
class Rent(Ask[Lease]):
    """Is answered with a lease, once a place is free."""


@frozen
class Vacate(Return[Lease]):
    """The lease is over."""

    note: str = ""


@frozen
class Mileage(Notice[Lease]):
    """Something to know about a lease while it lasts."""

    kilometres: int


@frozen
class Unforeseen(Return[Lease]):
    """No garage takes this back."""


def nothing() -> None:
    """Do nothing."""


class Garage(Actor):
    """Rents out places in order; who finds none waits. Adopts live leases at a restart, or fences them."""

    numbers = count()

    def __init__(self, ledger: Ledger, *, places: int = 1, room: int = 1000, fence: bool = False) -> None:
        if fence:
            ledger.clear()
        self.live = {grant for grant in ledger if isinstance(grant, Lease)}
        self.adopted = len(self.live)
        self.places = places
        self.room = room
        self.waiting: deque[Reply[Lease]] = deque()
        self.undone: list[Lease] = []
        self.seen: list[tuple[Lease, str]] = []
        self.on_return = nothing
        self.before_grant = nothing
        self.after_grant = nothing

    def accepting(self) -> bool:
        """Whether one more may wait."""
        return len(self.waiting) < self.room

    def forget(self, waiter: Waiter, now: float) -> None:
        """Free the place in the queue."""
        self.waiting = deque(reply for reply in self.waiting if reply is not waiter)

    def snapshot(self) -> int:
        """Return how many places are taken."""
        return len(self.live)

    def _grant(self, reply: Reply[Lease]) -> None:
        lease = Lease(next(self.numbers))
        self.live.add(lease)
        self.before_grant()
        if not reply.grant(lease):
            self.live.discard(lease)
            self.undone.append(lease)
        self.after_grant()

    @handles(Rent)
    def rent(self, message: Rent, reply: Reply[Lease], now: float) -> None:
        """Grant a place, or keep the reply."""
        if len(self.live) < self.places:
            self._grant(reply)
        else:
            self.waiting.append(reply)

    @takes_back(Vacate)
    def vacate(self, grant: Lease, message: Vacate, now: float) -> None:
        """Free the place, and grant it to the next in line."""
        self.seen.append((grant, f"vacate {message.note}"))
        self.on_return()
        self.live.discard(grant)
        while self.waiting and len(self.live) < self.places:
            self._grant(self.waiting.popleft())

    @takes_back(Mileage)
    def mileage(self, grant: Lease, message: Mileage, now: float) -> None:
        """Note it."""
        self.seen.append((grant, f"mileage {message.kilometres}"))

    @handles(Do)
    def do(self, message: Do, reply: Reply[object], now: float) -> None:
        """Run the action."""
        reply.send(message.action())


class BoomError(Exception):
    """What the tests make actors crash with."""


def crash_with(error: Exception) -> Do:
    """Return a message whose handler raises `error`."""

    def action() -> object:
        raise error

    return Do(action)


def clerk(
    name: str,
    journal: list[str] | None = None,
    made: list[Clerk] | None = None,
    *,
    room: int = 1000,
) -> Callable[[Ledger, object], Actor]:
    """Return a factory of clerks, which collects them in `made`."""

    def factory(ledger: Ledger, carry: object) -> Actor:
        actor = Clerk(name, journal, room=room)
        if made is not None:
            made.append(actor)
        return actor

    return factory


def garage(
    made: list[Garage], *, places: int = 1, room: int = 1000, fence: bool = False
) -> Callable[[Ledger, object], Actor]:
    """Return a factory of garages, which collects them in `made`."""

    def factory(ledger: Ledger, carry: object) -> Actor:
        actor = Garage(ledger, places=places, room=room, fence=fence)
        made.append(actor)
        return actor

    return factory


class Fragile(Clerk):
    """A clerk whose start goes as it is told: it raises, or takes so many seconds."""

    def __init__(self, name: str, journal: list[str], starting: Exception | float) -> None:
        super().__init__(name, journal)
        self.starting = starting

    async def start(self) -> None:
        """Note it, and do as told."""
        await super().start()
        if isinstance(self.starting, Exception):
            raise self.starting
        await trio.sleep(self.starting)


def fragile(name: str, journal: list[str], *starts: Exception | float) -> Callable[[Ledger, object], Actor]:
    """Return a factory whose incarnations start as `starts` says, one after the other, and well after that."""
    plan = iter(starts)

    def factory(ledger: Ledger, carry: object) -> Actor:
        return Fragile(name, journal, next(plan, 0.0))

    return factory


def never_two_at_once(journal: list[str]) -> bool:
    """Say whether each actor stopped between any two starts of it."""
    up: dict[str, bool] = {}
    for line in journal:
        what, _, name = line.partition(" ")
        if what == "start" and up.get(name):
            return False
        up[name] = what == "start"
    return True


def tree(*children: ChildSpec | GroupSpec, drain_timeout: float = 10.0) -> Supervisor:
    """Return a supervisor of `children`, its jitter seeded."""
    return Supervisor(GroupSpec("wizard", children), rng=Random(1), drain_timeout=drain_timeout)


def lanes_of(supervisor: Supervisor) -> Lanes:
    """Return the lanes of the only child."""
    lanes = supervisor.tree().children[0].lanes
    assert lanes is not None
    return lanes


async def collect(into: list[object], ref: ActorRef[object], message: Ask[object]) -> None:
    """Ask, and append the answer, or the error, to `into`."""
    try:
        into.append(await ref.ask(message))
    except WizardError as error:
        into.append(error)


async def crash(ref: ActorRef[object], error: Exception | None = None) -> None:
    """Crash the actor in a handler, and return once its supervisor has acted on it."""
    answers: list[object] = []
    await collect(answers, ref, crash_with(error or BoomError("planted")))
    await quiet()


async def quiet() -> None:
    """Wait until every task has nothing more to do at this instant."""
    await trio.testing.wait_all_tasks_blocked()
