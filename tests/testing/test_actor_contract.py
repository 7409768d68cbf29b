"""The contract of actors: sound ones pass it, and each promise is broken by an actor that is caught by its test."""

from __future__ import annotations

import unittest
from collections import deque
from collections.abc import Sequence
from random import Random

import pytest
import trio
from attrs import frozen

from tests.testing.parks import (
    SEEDS,
    Amnesiac,
    Brittle,
    CarPark,
    CarParkContract,
    Crashing,
    Dicing,
    Forgetful,
    Global,
    Hoarding,
    Keeping,
    Lazy,
    Leaking,
    Lingering,
    Mute,
    Overbooking,
    Roomy,
    Sleepy,
    Spinning,
    Stuck,
    Undoing,
    Unforgetting,
)
from wizard_actors.actor import Actor, Ask, Ledger, Reply, Waiter, handles, hears
from wizard_actors.config import ModelConfig
from wizard_actors.leaf import Leaf
from wizard_actors.slots import WorkerState
from wizard_actors.testing.actor import ActorContract
from wizard_actors.testing.actor_run import Run
from wizard_actors.verdict import Outcome
from wizard_actors.worker import FirstToken, ModelWorker, Release, TakeSlot


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


class Unknown(CarParkContract):
    def tells(self) -> Sequence[object]:
        return ["hello"]


@pytest.mark.parametrize(
    ("contract", "complaint"),
    [
        (NoWayBack, "`returns` does not say which messages"),
        (Unheard, "no handler for Get: give it a method"),
        (Unknown, "no handler for str: give it a method with @hears"),
    ],
)
def test_a_contract_that_is_not_filled_in_says_so(contract: type[ActorContract], complaint: str) -> None:
    """A grant that cannot be given back, and a message without a handler, are told, and no test passes over them."""
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


def test_the_order_of_trio_s_tasks_is_put_back() -> None:
    """What a run seeds is Trio's own: whoever runs tasks afterwards, in the same process, is not bound to it."""
    order: Random = trio._core._run._r
    order.seed(3)
    before = order.getstate()

    Run(CarParkContract(), Random(1)).simulate()

    assert order.getstate() == before
