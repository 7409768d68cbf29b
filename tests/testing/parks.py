"""A sound actor, a car park whose guests wait in line or for so many seconds; and parks with one mistake each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from random import Random

import trio
from attrs import define, frozen

from wizard_actors.actor import Actor, Ask, Ledger, Notice, Reply, Return, Waiter, handles, hears, takes_back
from wizard_actors.errors import MailboxFullError
from wizard_actors.testing.actor import ActorContract

SEEDS = 12


@frozen
class Place:
    number: int


@frozen
class Park(Ask[Place]):
    patience: float = math.inf


@frozen
class Count(Ask[int]):
    pass


@frozen
class Drive(Return[Place]):
    pass


@frozen
class Wash(Notice[Place]):
    pass


@frozen
class Rain:
    litres: int


@frozen
class View:
    free: int
    numbered: int
    rained: int = 0


class CarPark(Actor):
    """Three places; who finds none waits for as long as it has patience."""

    places = 3
    room = 5

    def __init__(self, ledger: Ledger, carry: object) -> None:
        before = carry if isinstance(carry, View) else View(self.places, 0)
        self.live = {grant for grant in ledger if isinstance(grant, Place)}
        self.numbered = before.numbered
        self.rained = before.rained
        self.waiting: dict[Waiter, tuple[Reply[Place], float]] = {}

    def accepting(self) -> bool:
        return len(self.waiting) < self.room

    @handles(Park)
    def park(self, message: Park, reply: Reply[Place], now: float) -> None:
        self.waiting[reply] = (reply, now + message.patience)
        self.serve()

    @handles(Count)
    def count(self, message: Count, reply: Reply[int], now: float) -> None:
        reply.send(len(self.live))

    @takes_back(Drive)
    def drive(self, grant: Place, message: Drive, now: float) -> None:
        self.live.discard(grant)
        self.serve()

    @takes_back(Wash)
    def wash(self, grant: Place, message: Wash, now: float) -> None:
        self.rained += 1

    @hears(Rain)
    def rain(self, message: Rain, now: float) -> None:
        self.rained += message.litres

    def wake_at(self) -> float:
        return min((due for _, due in self.waiting.values()), default=math.inf)

    def tick(self, now: float) -> None:
        for reply, due in tuple(self.waiting.values()):
            if due <= now:
                del self.waiting[reply]
                reply.fail(MailboxFullError("the car park is full", actor="park"))

    def forget(self, waiter: Waiter, now: float) -> None:
        del self.waiting[waiter]

    def snapshot(self) -> object:
        return View(self.places - len(self.live), self.numbered, self.rained)

    def serve(self) -> None:
        while self.waiting and len(self.live) < self.places:
            reply, _ = self.waiting.pop(next(iter(self.waiting)))
            self.grant(reply)

    def grant(self, reply: Reply[Place]) -> None:
        self.numbered += 1
        place = Place(self.numbered)
        self.live.add(place)
        if not reply.grant(place):
            self.live.discard(place)


class CarParkContract(ActorContract):
    """Not collected by itself: its subclasses name the actor."""

    seeds = SEEDS
    actor: type[CarPark] = CarPark

    def make(self, ledger: Ledger, carry: object) -> Actor:
        return self.actor(ledger, carry)

    def asks(self) -> Sequence[Ask[object]]:
        return [Park(), Park(patience=0.05), Park(), Count()]

    def tells(self) -> Sequence[object]:
        return [Rain(1)]

    def returns(self, grant: object) -> Sequence[object]:
        return [Drive()]

    def notices(self, grant: object) -> Sequence[object]:
        return [Wash()]

    def always(self, snapshot: object) -> None:
        assert isinstance(snapshot, View)
        assert 0 <= snapshot.free <= CarPark.places, f"{snapshot.free} places are free"

    def at_rest(self, snapshot: object) -> None:
        assert isinstance(snapshot, View)
        assert snapshot.free == CarPark.places, f"{snapshot.free} of {CarPark.places} places are free"


# -- parks with a mistake


class Crashing(CarPark):
    @handles(Count)
    def count(self, message: Count, reply: Reply[int], now: float) -> None:
        raise ZeroDivisionError("a bug")


class Mute(CarPark):
    """Answers nobody who finds the park full."""

    def wake_at(self) -> float:
        return math.inf

    def serve(self) -> None:
        if len(self.waiting) == 1:
            super().serve()


class Sleepy(CarPark):
    """Forgets to wake up for those who have lost patience; here nobody else is let in."""

    places = 3

    def wake_at(self) -> float:
        return math.inf

    def serve(self) -> None:
        for waiter, (reply, due) in tuple(self.waiting.items()):
            if due == math.inf and len(self.live) < self.places:
                del self.waiting[waiter]
                self.grant(reply)


class Spinning(CarPark):
    """Asks to be woken a moment from now, for ever."""

    due = 0.0

    def wake_at(self) -> float:
        return self.due

    def tick(self, now: float) -> None:
        self.due = now + 1e-9


class Stuck(CarPark):
    """Asks to be woken, and does nothing then."""

    def wake_at(self) -> float:
        return 0.01

    def tick(self, now: float) -> None:
        pass


class Unforgetting(CarPark):
    """Ignores that callers leave."""

    def forget(self, waiter: Waiter, now: float) -> None:
        self.gone = (*getattr(self, "gone", ()), waiter)
        del self.waiting[waiter]


class Hoarding(CarPark):
    """Keeps the place of a caller who has gone, and grants nothing to anybody else then."""

    room = 2

    def forget(self, waiter: Waiter, now: float) -> None:
        self.room -= 1
        del self.waiting[waiter]


class Undoing(CarPark):
    """Does not undo a grant that could not be delivered."""

    def grant(self, reply: Reply[Place]) -> None:
        self.numbered += 1
        place = Place(self.numbered)
        self.live.add(place)
        reply.grant(place)


class Keeping(CarPark):
    """Never frees a place."""

    @takes_back(Drive)
    def drive(self, grant: Place, message: Drive, now: float) -> None:
        if grant.number % 4:
            super().drive(grant, message, now)


class Amnesiac(CarPark):
    """Numbers its places anew after a crash: a number may be live already."""

    def __init__(self, ledger: Ledger, carry: object) -> None:
        super().__init__(ledger, None)
        self.live = set()


class Overbooking(CarPark):
    """Does not adopt what an earlier incarnation granted."""

    def __init__(self, ledger: Ledger, carry: object) -> None:
        super().__init__(ledger, carry)
        self.live = set()

    @takes_back(Drive)
    def drive(self, grant: Place, message: Drive, now: float) -> None:
        self.live.remove(grant)
        self.serve()


class Brittle(CarPark):
    """Cannot read its own carry."""

    def __init__(self, ledger: Ledger, carry: object) -> None:
        super().__init__(ledger, carry)
        self.first: int = carry[0] if carry is not None else 0  # type: ignore[index]  # it is the bug


class Forgetful(CarPark):
    """Serves nobody after a crash."""

    def __init__(self, ledger: Ledger, carry: object) -> None:
        super().__init__(ledger, carry)
        self.closed = carry is not None

    @handles(Count)
    def count(self, message: Count, reply: Reply[int], now: float) -> None:
        if not self.closed:
            reply.send(0)


@define
class LiveView:
    free: int
    parked: list[Place]


class Leaking(CarPark):
    """Publishes what it goes on changing."""

    def __init__(self, ledger: Ledger, carry: object) -> None:
        super().__init__(ledger, None)
        self.numbered = max((place.number for place in self.live), default=0)
        self.parked: list[Place] = []

    def snapshot(self) -> object:
        self.parked[:] = sorted(self.live, key=lambda place: place.number)
        return LiveView(self.places - len(self.live), self.parked)


class Roomy(CarPark):
    places = 4


class Lingering(CarPark):
    async def stop(self) -> None:
        await trio.sleep(3)


class Dicing(CarPark):
    """Draws random numbers that no seed controls."""

    dice = Random()

    def snapshot(self) -> object:
        return View(self.places - len(self.live), self.numbered, self.dice.randrange(10**9))


class Global(CarPark):
    """Counts outside of itself."""

    everywhere = count()

    def snapshot(self) -> object:
        return View(self.places - len(self.live), self.numbered, next(self.everywhere))


class Lazy(CarPark):
    """Frees the place of who has gone, and drops the entry with the next `tick`."""

    def __init__(self, ledger: Ledger, carry: object) -> None:
        super().__init__(ledger, carry)
        self.gone: list[Waiter] = []

    def forget(self, waiter: Waiter, now: float) -> None:
        super().forget(waiter, now)
        self.gone.append(waiter)
        self.due = now + 1

    def wake_at(self) -> float:
        return min(self.due, super().wake_at()) if self.gone else super().wake_at()

    def tick(self, now: float) -> None:
        super().tick(now)
        if self.gone and self.due <= now:
            self.gone.clear()
