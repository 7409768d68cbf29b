"""The contract of actors: sound ones pass it, and each promise is broken by an actor that is caught by its test."""

from __future__ import annotations

import math
import unittest
from collections import deque
from collections.abc import Sequence
from copy import deepcopy
from itertools import count
from random import Random

import pytest
import trio
from attrs import define, frozen

from wizard_actors.actor import Actor, Ask, Ledger, Notice, Reply, Return, Waiter, handles, hears, takes_back
from wizard_actors.config import ModelConfig
from wizard_actors.errors import MailboxFullError
from wizard_actors.leaf import Leaf
from wizard_actors.mailbox import Mailbox
from wizard_actors.slots import WorkerState
from wizard_actors.testing.actor import ActorContract
from wizard_actors.testing.looking import frozen_copy, held_replies
from wizard_actors.verdict import Outcome
from wizard_actors.worker import FirstToken, ModelWorker, Release, TakeSlot

SEEDS = 12

# -- a sound actor: a car park whose guests wait in line, or for so many seconds


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


class TestCarPark(CarParkContract):
    """A sound actor with a queue, grants and a clock keeps every promise."""


# -- an actor whose answers need another message


@frozen
class Get(Ask[str]):
    pass


@frozen
class Put:
    item: str = "lamp"


class Shelf(Actor):
    def __init__(self) -> None:
        self.items: deque[str] = deque(maxlen=10)
        self.waiting: dict[Waiter, Reply[str]] = {}

    def accepting(self) -> bool:
        return len(self.waiting) < 3

    @handles(Get)
    def get(self, message: Get, reply: Reply[str], now: float) -> None:
        self.waiting[reply] = reply
        self.serve()

    @hears(Put)
    def put(self, message: Put, now: float) -> None:
        self.items.append(message.item)
        self.serve()

    def serve(self) -> None:
        while self.items and self.waiting:
            reply = self.waiting.pop(next(iter(self.waiting)))
            if reply.send(self.items[0]):
                self.items.popleft()

    def forget(self, waiter: Waiter, now: float) -> None:
        del self.waiting[waiter]


class TestShelf(ActorContract):
    """An actor that keeps asks until something is brought keeps every promise, where the contract brings it."""

    seeds = SEEDS

    def make(self, ledger: Ledger, carry: object) -> Actor:
        return Shelf()

    def asks(self) -> Sequence[Ask[object]]:
        return [Get()]

    def tells(self) -> Sequence[object]:
        return [Put()]

    def settling(self) -> Sequence[object]:
        return [Put("chair")]


# -- one of ours


class TestModelWorker(ActorContract):
    """The worker of a model, whose slots are grants, keeps every promise; who gives up when stays in a heap."""

    seeds = SEEDS
    forgets_at_once = False

    def make(self, ledger: Ledger, carry: object) -> Actor:
        return ModelWorker(ModelConfig(name="only", provider="simulated", max_concurrency=2), 5, ledger, carry)

    def asks(self) -> Sequence[Ask[object]]:
        return [TakeSlot("a"), TakeSlot("b", give_up_at=0.02), TakeSlot("c", give_up_at=-1.0)]

    def returns(self, grant: object) -> Sequence[object]:
        return [Release(), Release(Outcome.FAILURE), Release(Outcome.SUCCESS, output_tokens=5)]

    def notices(self, grant: object) -> Sequence[object]:
        return [FirstToken(0.1)]

    def always(self, snapshot: object) -> None:
        assert isinstance(snapshot, WorkerState)
        assert 0 <= snapshot.in_use <= 2

    def at_rest(self, snapshot: object) -> None:
        assert isinstance(snapshot, WorkerState)
        assert snapshot.in_use == 0


# -- broken actors, and which test catches them


def breaks(actor: type[CarPark], test: str) -> str:
    """Run one test of the contract over `actor`, and return what it complains of."""
    contract = type("Broken", (CarParkContract,), {"actor": actor})()
    with pytest.raises(AssertionError) as caught:
        getattr(contract, test)()
    return str(caught.value)


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


@pytest.mark.parametrize(
    ("actor", "test", "complaint"),
    [
        (Crashing, "test_no_sample_crashes_it", "the actor crashed: ZeroDivisionError: a bug"),
        (Mute, "test_every_ask_is_answered", "Park was not answered within 60 s"),
        (Sleepy, "test_every_ask_is_answered", "Park was not answered within 60 s"),
        (Spinning, "test_every_ask_is_answered", "`tick` ran 1000 times in a second"),
        (Stuck, "test_every_ask_is_answered", "made no progress"),
        (Unforgetting, "test_who_leaves_is_forgotten", "replies whose callers have gone: override `forget`"),
        (Hoarding, "test_who_leaves_is_forgotten", "was not answered within 60 s: `forget` has to free the place"),
        (Undoing, "test_who_leaves_is_forgotten", "places are free"),
        (Keeping, "test_grants_come_back", "of 3 places are free"),
        (Amnesiac, "test_it_comes_back_after_a_crash", "is live already"),
        (Overbooking, "test_it_comes_back_after_a_crash", "the actor crashed: KeyError"),
        (Brittle, "test_it_comes_back_after_a_crash", "the actor crashed: TypeError"),
        (Forgetful, "test_a_crash_loses_no_queued_ask", "after a crash, Count was not answered"),
        (Leaking, "test_published_snapshots_do_not_change", "changed after it had been published"),
        (Roomy, "test_snapshots_keep_their_invariant", "4 places are free"),
        (Lingering, "test_it_stops_promptly", "it took 3 s to stop, not 1 s"),
        (Dicing, "test_one_seed_gives_one_trace", "two runs of it part at"),
        (Global, "test_one_seed_gives_one_trace", "two runs of it part at"),
    ],
)
def test_a_broken_actor_is_caught(actor: type[CarPark], test: str, complaint: str) -> None:
    """Each promise is broken by an actor, and the test that is named after the promise says so."""
    assert complaint in breaks(actor, test)


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


class TestLazy(CarParkContract):
    """An actor that says it is lazy may be so, as long as nothing stays for ever."""

    actor = Lazy
    forgets_at_once = False


def test_laziness_has_to_be_said() -> None:
    """The same actor is caught where the contract does not say that it is lazy."""
    assert "replies whose callers have gone" in breaks(Lazy, "test_who_leaves_is_forgotten")


class NoWayBack(CarParkContract):
    def returns(self, grant: object) -> Sequence[object]:
        return ()


class Unheard(CarParkContract):
    def asks(self) -> Sequence[Ask[object]]:
        return [Get()]


@pytest.mark.parametrize(
    ("contract", "complaint"),
    [(NoWayBack, "`returns` does not say which messages"), (Unheard, "no handler for Get: give it a method")],
)
def test_a_contract_that_is_not_filled_in_says_so(contract: type[ActorContract], complaint: str) -> None:
    """A grant that cannot be given back, and an ask without a handler, are told, and no test passes over them."""
    with pytest.raises(AssertionError, match=complaint):
        contract().test_no_sample_crashes_it()


def test_a_queue_that_is_lost_with_a_crash_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the queue emptied when an actor crashes, those who stood in it would be told of, one by one."""
    start = Leaf.start

    async def emptied(self: Leaf) -> None:
        self.mailbox.refuse(self._crashed)
        await start(self)

    monkeypatch.setattr(Leaf, "start", emptied)

    assert "was queued when the actor crashed" in breaks(CarPark, "test_a_crash_loses_no_queued_ask")


def test_the_contract_runs_without_pytest() -> None:
    """A subclass that is a `unittest.TestCase` too is run by the standard library's runner."""
    case = type("Case", (CarParkContract, unittest.TestCase), {"seeds": 1})
    result = unittest.TestResult()

    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)

    assert result.testsRun >= 10
    assert result.wasSuccessful(), result.failures


def test_replies_are_found_wherever_they_are_kept() -> None:
    """In a queue, behind a bound method, in a closure or an object's slots: a reply that is kept is seen."""
    mailbox = Mailbox("somewhere", bound=1, tells=1)
    replies = [Reply[int](mailbox) for _ in range(4)]

    class Holder:
        __slots__ = ("kept",)

        def __init__(self, kept: object) -> None:
            self.kept = kept

    actor = Shelf()
    vars(actor).update(a=deque([replies[0]]), b=replies[1].send, c=lambda: replies[2], d=Holder(replies[3]))

    assert set(held_replies(actor)) == set(replies)


@pytest.mark.parametrize(
    "value", [[1, [2]], {"a": [1]}, {1, 2}, (1, [2]), LiveView(1, [Place(1)]), {"a": {"b": LiveView(1, [])}}]
)
def test_a_copy_is_equal_to_that_of_an_equal_value(value: object) -> None:
    """Copies of equal values are equal, whatever they are made of."""
    assert frozen_copy(value) == frozen_copy(deepcopy(value))


def test_a_copy_is_not_reached_by_later_changes() -> None:
    """What is changed deep inside, or contains itself, differs from its copy."""
    inner: list[object] = [1]
    value: list[object] = [{"a": LiveView(1, [])}, inner]
    inner.append(value)
    before = frozen_copy(value)

    inner.append(2)

    assert frozen_copy(value) != before
