"""Seeded schedules in which tasks ask, cancel each other at random batches, crash actors and stop the tree.

`pytest -q tests/test_kernel_chaos.py --seeds 1000` prints what became of every ask. Each way to break the kernel that
is planted below makes the same run fail: a chaos test that nothing fails proves nothing.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import pytest
import trio
import trio.testing
from attrs import define, field, frozen

from wizard_actors.actor import Actor, Ask, Ledger, Notice, Reply, Return, Waiter, handles, hears, takes_back
from wizard_actors.errors import ActorCrashedError, ActorStoppedError, MailboxFullError
from wizard_actors.mailbox import Mailbox
from wizard_actors.supervisor import ChildSpec, GroupSpec, RestartPolicy, Strategy, Supervisor

CAPACITY = 3
ROOM = 6
HOUR = 3600.0

# -- the actors


@frozen
class Place:
    """A grant: one of CAPACITY places."""

    number: int


@frozen
class Take(Ask[Place]):
    ask_id: int


@frozen
class GiveBack(Return[Place]):
    pass


@frozen
class Working(Notice[Place]):
    progress: int


@frozen
class Nudge:
    number: int


@frozen
class Books:
    """What the worker publishes; the next incarnation goes on counting where this one stopped."""

    free: int
    numbered: int


@frozen
class Echo(Ask[int]):
    ask_id: int


class Places(Actor):
    """A bulkhead with a bounded waiting room, as the kernel's users write them."""

    def __init__(self, world: World, ledger: Ledger, carry: object) -> None:
        self.world = world
        self.live = world.adopt(ledger)
        self.numbered = carry.numbered if isinstance(carry, Books) else 0
        self.waiting: dict[Waiter, Callable[[Place], bool]] = {}
        self.asked: dict[Waiter, int] = {}

    def accepting(self) -> bool:
        return len(self.waiting) < ROOM

    @handles(Take)
    def take(self, message: Take, reply: Reply[Place], now: float) -> None:
        self.world.note("take", message.ask_id, now)
        self.waiting[reply] = reply.grant
        self.asked[reply] = message.ask_id
        self.serve(now)

    @takes_back(GiveBack)
    def give_back(self, grant: Place, message: GiveBack, now: float) -> None:
        self.world.note("back", grant.number, now)
        self.live.discard(grant)
        self.serve(now)

    @takes_back(Working)
    def working(self, grant: Place, message: Working, now: float) -> None:
        self.world.note("working", grant.number, message.progress)

    @hears(Nudge)
    def nudge(self, message: Nudge, now: float) -> None:
        self.world.note("nudge", message.number, now)

    def forget(self, waiter: Waiter, now: float) -> None:
        self.world.note("forget", self.asked.pop(waiter), now)
        del self.waiting[waiter]
        self.serve(now)

    def serve(self, now: float) -> None:
        while self.waiting and len(self.live) < CAPACITY:
            waiter, grant = next(iter(self.waiting.items()))
            del self.waiting[waiter]
            ask_id = self.asked.pop(waiter)
            self.numbered += 1
            place = Place(self.numbered)
            self.live.add(place)
            if grant(place):
                self.world.delivered[ask_id] += 1
            else:
                self.world.undo(self.live, place)
            self.world.note("grant", ask_id, now)

    def snapshot(self) -> Books:
        return Books(CAPACITY - len(self.live), self.numbered)


class Echoes(Actor):
    """Answers every second ask at once and the others a little later, by its clock."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.later: deque[tuple[float, Reply[int], int]] = deque()

    def accepting(self) -> bool:
        return len(self.later) < ROOM

    @handles(Echo)
    def echo(self, message: Echo, reply: Reply[int], now: float) -> None:
        self.world.note("echo", message.ask_id, now)
        if message.ask_id % 2:
            self.answer(reply, message.ask_id)
        else:
            self.later.append((now + 0.01, reply, message.ask_id))

    def answer(self, reply: Reply[int], ask_id: int) -> None:
        if reply.send(ask_id):
            self.world.delivered[ask_id] += 1

    def wake_at(self) -> float:
        return self.later[0][0] if self.later else math.inf

    def tick(self, now: float) -> None:
        while self.later and self.later[0][0] <= now:
            _, reply, ask_id = self.later.popleft()
            self.answer(reply, ask_id)

    def forget(self, waiter: Waiter, now: float) -> None:
        self.world.note("forget echo", 0, now)
        self.later = deque(item for item in self.later if item[1] is not waiter)


# -- the world


@define
class Report:
    """What became of the asks of one or many runs."""

    asks: int = 0
    answered: int = 0
    lost: int = 0
    doubled: int = 0
    permits_lost: int = 0
    tasks_left: int = 0

    def add(self, other: Report) -> None:
        self.asks += other.asks
        self.answered += other.answered
        self.lost += other.lost
        self.doubled += other.doubled
        self.permits_lost += other.permits_lost
        self.tasks_left += other.tasks_left

    @property
    def clean(self) -> bool:
        return self.answered == self.asks and not (self.lost or self.doubled or self.permits_lost or self.tasks_left)

    def __str__(self) -> str:
        return (
            f"asks {self.asks}, answered {self.answered}, lost {self.lost}, doubled {self.doubled}, "
            f"permits lost {self.permits_lost}, tasks left {self.tasks_left}"
        )


@define(eq=False)
class World:
    """One seeded run: clients, cancellers, a crasher, and perhaps an early stop."""

    rng: Random
    trace: list[tuple[object, ...]] = field(factory=list)
    delivered: Counter[int] = field(factory=Counter)
    received: Counter[int] = field(factory=Counter)
    begun: int = 0
    ended: int = 0
    holding: int = 0
    held_at_most: int = 0
    scopes: dict[int, trio.CancelScope] = field(factory=dict)
    places: list[Places] = field(factory=list)
    pending: set[int] = field(factory=set)

    def note(self, *event: object) -> None:
        self.trace.append(event)

    def adopt(self, ledger: Ledger) -> set[Place]:
        return {grant for grant in ledger if isinstance(grant, Place)}

    def undo(self, live: set[Place], place: Place) -> None:
        live.discard(place)

    def make_places(self, ledger: Ledger, carry: object) -> Actor:
        self.places.append(Places(self, ledger, carry))
        return self.places[-1]

    async def run(self, report: Report) -> None:
        before = trio.lowlevel.current_statistics().tasks_living
        strategy = self.rng.choice([Strategy.ONE_FOR_ONE, Strategy.ONE_FOR_ONE, Strategy.ONE_FOR_ALL])
        policy = RestartPolicy(max_restarts=4, window=1.0, max_backoff=0.3, healthy_after=0.5, down_retry=1.0)
        spec = GroupSpec(
            "chaos",
            [
                ChildSpec("places", self.make_places, mailbox=4),
                ChildSpec("echoes", lambda ledger, carry: Echoes(self), mailbox=2),
            ],
            strategy=strategy,
            policy=policy,
        )
        early = self.rng.random() < 0.5
        supervisor = Supervisor(spec, rng=self.rng, drain_timeout=HOUR)
        with trio.move_on_after(HOUR):  # nothing here takes that long: who still waits then waits for ever
            async with trio.open_nursery() as clients, supervisor:
                async with trio.open_nursery() as actors:
                    for number in range(self.rng.randint(6, 12)):
                        (clients if early else actors).start_soon(self.client, number, supervisor)
                    for _ in range(3):
                        actors.start_soon(self.canceller)
                    actors.start_soon(self.crasher, supervisor)
                if not early:
                    await trio.sleep(5)  # whatever is in backoff comes back
                    await self.audit(report, supervisor)
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        self.count(report, supervisor, early=early)
        report.tasks_left = trio.lowlevel.current_statistics().tasks_living - before

    def count(self, report: Report, supervisor: Supervisor, *, early: bool) -> None:
        report.asks = self.begun
        report.answered = self.ended
        report.lost = len(self.pending)
        report.doubled = sum((self.delivered - self.received).values()) + sum((self.received - self.delivered).values())
        report.doubled += sum(1 for times in self.received.values() if times > 1)
        report.doubled += max(0, self.held_at_most - CAPACITY)
        lanes = [node.lanes for node in supervisor.tree().walk() if node.lanes is not None]
        report.permits_lost += sum(supervisor.outstanding.values()) + sum(lane.kept for lane in lanes)
        if not early:  # every actor has had the time to settle
            report.permits_lost += sum(lane.grants + lane.returns for lane in lanes)
            report.permits_lost += len(self.places[-1].live) + len(self.places[-1].waiting)

    # -- who does what

    async def client(self, number: int, supervisor: Supervisor) -> None:
        for _ in range(self.rng.randint(3, 9)):
            with trio.CancelScope() as scope:
                self.scopes[number] = scope
                if self.rng.random() < 0.2:
                    scope.deadline = trio.current_time() + self.rng.choice([0.0, 0.01, 0.05])
                await self.rng.choice([self.hold, self.hold, self.echo, self.burst])(supervisor)
            self.scopes.pop(number, None)
            with trio.CancelScope(shield=True):
                await self.pause()

    @contextmanager
    def asking(self) -> Iterator[int]:
        self.begun += 1
        ask_id = self.begun
        self.pending.add(ask_id)
        how = "value"
        try:
            yield ask_id
        except (ActorCrashedError, ActorStoppedError, MailboxFullError) as error:
            how = error.code
        finally:
            self.ended += 1
            if trio.current_time() < HOUR:
                self.pending.discard(ask_id)
            self.note("ended", ask_id, how, trio.current_time())

    async def hold(self, supervisor: Supervisor) -> None:
        ref = supervisor.ref("places", Books)
        with self.asking() as ask_id:
            place = await (ref.ask if self.rng.random() < 0.9 else ref.ask_nowait)(Take(ask_id))
            self.received[ask_id] += 1
            self.holding += 1
            self.held_at_most = max(self.held_at_most, self.holding)
            try:
                for progress in range(self.rng.randint(0, 3)):
                    ref.notify(place, Working(progress))
                    await self.pause()
            finally:
                self.holding -= 1
                ref.give_back(place, GiveBack())
                ref.give_back(place, GiveBack())  # a second end is ignored
                ref.tell(Nudge(place.number))

    async def echo(self, supervisor: Supervisor) -> None:
        with self.asking() as ask_id:
            answer = await supervisor.ref("echoes", object).ask(Echo(ask_id))
            self.received[ask_id] += 1
            assert answer == ask_id

    async def burst(self, supervisor: Supervisor) -> None:
        """Ask from several tasks that one cancellation hits together, in an order that Trio does not promise."""
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(self.hold, supervisor)

    async def audit(self, report: Report, supervisor: Supervisor) -> None:
        """Hold every place, let others wait and leave: nothing of them may stay behind."""
        ref = supervisor.ref("places", Books)
        places = [await ref.ask(Take(0)) for _ in range(CAPACITY)]
        async with trio.open_nursery() as leavers:
            for _ in range(ROOM - 1):
                leavers.start_soon(self.hold, supervisor)
            await trio.sleep(1)
            leavers.cancel_scope.cancel()
        await trio.sleep(1)
        report.permits_lost += len(self.places[-1].waiting)
        for place in places:
            ref.give_back(place, GiveBack())
        self.delivered[0] = 0
        await trio.sleep(1)

    async def canceller(self) -> None:
        for _ in range(12):
            await self.pause()
            if self.scopes and self.rng.random() < 0.6:
                for number in self.rng.sample(sorted(self.scopes), k=self.rng.randint(1, len(self.scopes))):
                    self.scopes[number].cancel()

    async def crasher(self, supervisor: Supervisor) -> None:
        for _ in range(self.rng.randint(0, 8)):
            await self.pause()
            if self.rng.random() < 0.4:
                supervisor.kill(self.rng.choice(["places", "echoes"]), RuntimeError("planned"))

    async def pause(self) -> None:
        if self.rng.random() < 0.8:
            for _ in range(self.rng.randint(1, 5)):
                await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(self.rng.choice([0.005, 0.01, 0.1]))


def simulate(seed: int, make: Callable[[Random], World] = World) -> tuple[Report, list[tuple[object, ...]]]:
    """Run one seed under a virtual clock, Trio's own scheduling seeded as well."""
    run = trio._core._run  # Trio has no public way to seed its scheduling
    run._r.seed(seed)
    world, report = make(Random(seed)), Report()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        trio.run(world.run, report, clock=trio.testing.MockClock(autojump_threshold=0))
    return report, world.trace


def run_seeds(seeds: int, make: Callable[[Random], World] = World) -> tuple[Report, int]:
    """Run many seeds, each twice; return what became of the asks, and how many seeds gave two different traces."""
    total, strayed = Report(), 0
    for seed in range(seeds):
        report, trace = simulate(seed, make)
        total.add(report)
        strayed += trace != simulate(seed, make)[1]
    return total, strayed


def finds(wrong: Callable[[Report], object], make: Callable[[Random], World] = World) -> bool:
    """Say whether the report of one of the first seeds is wrong so; none after it is run."""
    return any(wrong(simulate(seed, make)[0]) for seed in range(PLANTED_SEEDS))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of planned crashes need no log."""
    caplog.set_level("CRITICAL", logger="wizard_actors.supervisor")


def test_every_ask_ends_once_and_no_permit_is_lost(
    pytestconfig: pytest.Config, report_line: Callable[[str], None]
) -> None:
    """Whatever is cancelled, crashes or stops: each ask has one end, each grant comes back, no task is left."""
    seeds = pytestconfig.getoption("seeds")

    total, strayed = run_seeds(seeds)

    report_line(str(total))

    assert total.clean, str(total)
    assert strayed == 0, f"{strayed} of {seeds} seeds gave another trace the second time"
    assert total.asks > 20 * seeds


# -- planted bugs: each has to be found


class ForgetfulWorld(World):
    """A worker that forgets its live grants at a restart."""

    def adopt(self, ledger: Ledger) -> set[Place]:
        return set()


class StubbornWorld(World):
    """A worker that does not undo a grant that could not be delivered."""

    def undo(self, live: set[Place], place: Place) -> None:
        pass


PLANTED_SEEDS = 400


@pytest.mark.parametrize("make", [ForgetfulWorld, StubbornWorld])
def test_a_worker_with_a_planted_bug_is_caught(make: Callable[[Random], World]) -> None:
    """An actor that forgets its ledger, or keeps an undelivered grant, shows in the report."""
    assert finds(lambda report: report.doubled or report.permits_lost, make)


def test_an_ignored_forget_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that ignores forgets leaves places of callers that have gone."""
    monkeypatch.setattr(Mailbox, "forget", lambda self, waiter: None)

    assert finds(lambda report: not report.clean)


def test_a_kept_reply_that_a_crash_does_not_fail_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that forgets kept replies at a crash leaves their callers waiting for ever."""
    monkeypatch.setattr(Mailbox, "fail_kept", lambda self, make: self.kept.clear())

    assert finds(lambda report: report.lost)


def test_a_return_lane_that_drops_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A return lane with a fixed length loses grants."""
    honest = Mailbox.__init__

    def lossy(self: Mailbox, path: str, *, bound: int, tells: int) -> None:
        honest(self, path, bound=bound, tells=tells)
        self._returns = deque(maxlen=1)

    monkeypatch.setattr(Mailbox, "__init__", lossy)

    assert finds(lambda report: report.permits_lost or report.lost)


def test_an_effect_in_an_abort_function_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trio calls abort functions in an order that no seed controls: an effect in one gives a seed several traces."""
    mark = Waiter._abandon

    def hasty(self: Waiter, raise_cancel: object) -> trio.lowlevel.Abort:
        aborted = mark(self, raise_cancel)
        if self in self._mailbox.kept:
            self._mailbox.forget(self)
        return aborted

    monkeypatch.setattr(Waiter, "_abandon", hasty)

    assert any(simulate(seed)[1] != simulate(seed)[1] for seed in range(PLANTED_SEEDS))
