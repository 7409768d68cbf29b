"""One seeded run of an actor: callers who ask, hold, leave, and crash it, and what all that came to."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import ClassVar, Final, cast
from unittest import SkipTest

import trio
import trio.testing
from attrs import define, field

from wizard_actors.actor import Actor, ActorRef, Ask, Ledger, Notice, Return, Waiter
from wizard_actors.errors import ActorCrashedError, ActorError, ActorStoppedError, WizardError
from wizard_actors.event_stream import EventStream
from wizard_actors.events import Event
from wizard_actors.supervisor import ActorChanged, ChildSpec, GroupSpec, RestartPolicy, State, Supervisor
from wizard_actors.testing.looking import frozen_copy, held_replies

__all__ = ["PlantedError", "Run", "Subject"]

TICKS_AT_MOST: Final = 1000
"""How often `tick` may run in one virtual second: far more often than any actor needs, and a spin has no end."""

SNAPSHOTS_AT_MOST: Final = 500
HOLD: Final = (0.0, 0.01, 0.1)
HOUR: Final = 3600.0


class PlantedError(Exception):
    """What a run crashes an actor with."""


class Subject:
    """The actor that is run, and what is sent to it. `make` and `asks` have to be filled in, the rest where it applies.

    `answer_within` and `stop_within` are in seconds; `mailbox` bounds the ask lane. `forgets_at_once`: set it to False
    for an actor that frees the place of a caller who has gone, but keeps its entry until that is due.
    """

    answer_within: ClassVar[float] = 60.0
    stop_within: ClassVar[float] = 1.0
    mailbox: ClassVar[int] = 4
    forgets_at_once: ClassVar[bool] = True

    def make(self, ledger: Ledger, carry: object) -> Actor:
        """Return an incarnation: the factory of the actor's `ChildSpec`."""
        raise NotImplementedError("`make` returns the actor: the factory of its ChildSpec")

    def asks(self) -> Sequence[Ask[object]]:
        """Return one sample at least of every ask, those that are refused among them."""
        raise NotImplementedError("`asks` returns samples of what the actor is asked")

    def tells(self) -> Sequence[object]:
        """Return one sample at least of everything that the actor is told."""
        return ()

    def returns(self, grant: object) -> Sequence[object]:
        """Return the messages that give `grant` back, a `Return` each; one of them is sent."""
        return ()

    def notices(self, grant: object) -> Sequence[object]:
        """Return samples of what is told of a live `grant`, a `Notice` each."""
        return ()

    def settling(self) -> Sequence[object]:
        """Return what is sent every second while callers wait, asks or told messages: for an actor that keeps an ask
        until somebody brings what it needs.
        """
        return ()

    def always(self, snapshot: object) -> None:
        """Assert what holds of every snapshot, such as a bound."""

    def at_rest(self, snapshot: object) -> None:
        """Assert what holds of the snapshot when nobody waits and no grant is out, such as that every place is free."""


@define(eq=False, repr=False)
class Run:
    """One seeded run, and what it came to."""

    subject: Subject
    rng: Random
    leave: bool = False
    crash: bool = False
    stop: bool = False
    ambush: bool = False
    callers: int = 6
    samples: Sequence[object] | None = None

    trace: list[tuple[object, ...]] = field(factory=list)
    unanswered: list[str] = field(factory=list)
    refused: list[str] = field(factory=list)
    flaws: list[str] = field(factory=list)
    crashes: list[str] = field(factory=list)
    crashed: Exception | None = None
    broken: AssertionError | None = None
    snapshots: list[tuple[object, object]] = field(factory=list)
    outstanding: int = 0
    dropped: int = 0
    held: int = 0
    stopping: float = 0.0
    published: object = None

    _actor: Actor | None = None
    _ledger: Ledger = field(factory=Ledger)
    _scopes: dict[int, trio.CancelScope] = field(factory=dict)
    _ticks: tuple[float, int] = (-math.inf, 0)

    def __repr__(self) -> str:
        what = [name for name in ("leave", "crash", "stop") if getattr(self, name)]
        return f"{type(self.subject).__name__}, a run with {' and '.join(what) if what else 'patient callers'}"

    # -- what it came to

    def sound(self) -> Run:
        """Raise where the run itself went wrong, or the actor crashed by itself: every promise presupposes neither."""
        if self.flaws:
            raise AssertionError(f"{self}: {self.flaws[0]}")
        if self.crashes:
            raise AssertionError(
                f"{self}: the actor crashed: {self.crashes[0]}. Only a bug may raise in a handler, `tick`, `forget`, "
                "`start` or the factory: answer what is wrong with a request by `reply.fail`"
            ) from self.crashed
        return self

    def heard(self) -> None:
        """Raise where a told message was dropped, which one alone is only where there is no handler for it."""
        if self.dropped and self.samples:
            name = type(self.samples[0]).__name__
            raise AssertionError(f"{self}: no handler for {name}: give it a method with @hears({name})")

    def rest(self) -> None:
        """Check the snapshot of an actor at rest."""
        try:
            self.subject.at_rest(self.published)
        except AssertionError as error:
            raise AssertionError(
                f"{self}: nobody waits, nothing is granted, and the snapshot breaks `at_rest`: {error}"
            ) from error

    # -- the actor, watched

    def _make(self, ledger: Ledger, carry: object) -> Actor:
        self._ledger = ledger
        self._actor = actor = self.subject.make(ledger, carry)
        snapshot, tick, forget = actor.snapshot, actor.tick, actor.forget
        vars(actor).update(
            snapshot=lambda: self._published(snapshot()),
            tick=lambda now: self._tick(tick, now),
            forget=lambda waiter, now: self._forget(forget, waiter, now),
        )
        return actor

    def _published(self, snapshot: object) -> object:
        copy = frozen_copy(snapshot)
        self.trace.append(("published", copy))
        if len(self.snapshots) < SNAPSHOTS_AT_MOST:
            self.snapshots.append((snapshot, copy))
        try:
            self.subject.always(snapshot)
        except AssertionError as error:
            self.broken = self.broken or error
        return snapshot

    def _tick(self, tick: Callable[[float], None], now: float) -> None:
        since, count = self._ticks
        self._ticks = (since, count + 1) if now < since + 1 else (now, 1)
        if self._ticks[1] > TICKS_AT_MOST:
            raise RuntimeError(f"`tick` ran {count} times in a second: `wake_at` has to name the next instant of use")
        tick(now)

    def _forget(self, forget: Callable[[Waiter, float], None], waiter: Waiter, now: float) -> None:
        forget(waiter, now)
        if self.subject.forgets_at_once:
            self.held += any(reply is waiter for reply in held_replies(self._actor))

    def _note(self, event: Event) -> None:
        if not isinstance(event, ActorChanged):
            return
        self.trace.append((round(event.at, 6), event.state.value))
        if self.unanswered:  # a crash over the `forget` of a lost ask is not the first thing to tell
            return
        if event.state is State.CRASHED and PlantedError.__name__ not in (event.error or ""):
            self.crashes.append(event.error or "without an error")

    # -- the run

    def simulate(self) -> Run:
        """Run on virtual time, Trio's own order seeded too; raise `SkipTest` where this Trio cannot do that."""
        with _one_order(self.rng.getrandbits(32)), _quietly():
            trio.run(self._main, clock=trio.testing.MockClock(autojump_threshold=0))
        return self

    async def _main(self) -> None:
        events = EventStream()
        events.listen(self._note)
        policy = RestartPolicy(max_restarts=100, healthy_after=0.0)  # each restart is immediate: no ask is refused
        spec = GroupSpec("contract", [ChildSpec("actor", self._make, mailbox=self.subject.mailbox)], policy=policy)
        supervisor = Supervisor(spec, rng=self.rng, drain_timeout=HOUR, events=events)
        began = math.inf
        async with trio.open_nursery() as outside:
            async with supervisor:
                ref = supervisor.ref("actor", object)
                if self.stop:
                    outside.start_soon(self._crowd, supervisor, ref)
                    await trio.sleep(self.rng.choice([0.0, 0.005, 0.05, 0.2]))
                else:
                    await self._crowd(supervisor, ref)
                    await self._afterwards(supervisor, ref)
                began = trio.current_time()
            self.stopping = trio.current_time() - began
            if self.stop:
                await trio.sleep(1)  # an error reaches its caller in no time
                self.unanswered += [f"caller {number}'s ask" for number in self._scopes]
                outside.cancel_scope.cancel()

    async def _crowd(self, supervisor: Supervisor, ref: ActorRef[object], *, calm: bool = False) -> None:
        """Let everybody do what they do, until every caller has gone."""
        async with trio.open_nursery() as background:
            if self.subject.settling():
                background.start_soon(self._settle, ref)
            async with trio.open_nursery() as callers:
                for number in range(self.callers):
                    callers.start_soon(self._caller, number, supervisor, ref)
                if self.leave and not calm:
                    callers.start_soon(self._canceller)
                if self.crash and not calm:
                    callers.start_soon(self._crasher, supervisor)
                if self.ambush:  # before the actor has taken anything: everything is queued still, or waits for room
                    supervisor.kill("actor", PlantedError("planted"))
            background.cancel_scope.cancel()

    async def _afterwards(self, supervisor: Supervisor, ref: ActorRef[object]) -> None:
        """Ask everything once more, calmly, and look at what is left."""
        if self.samples is None and not self.unanswered:
            await self._crowd(supervisor, ref, calm=True)
        await trio.sleep(self.subject.answer_within)  # whatever is dropped by the clock is dropped now
        self.dropped = sum(node.lanes.dropped for node in supervisor.tree().walk() if node.lanes is not None)
        self.outstanding = sum(supervisor.outstanding.values()) or len(self._ledger)
        self.held += sum(not reply.wanted for reply in held_replies(self._actor))
        self.published, self.crashed = ref.published, ref.failure

    async def _caller(self, number: int, supervisor: Supervisor, ref: ActorRef[object]) -> None:
        everything = [*self.subject.asks(), *self.subject.tells()]
        some = self.rng.choices(everything, k=self.rng.randint(2, 6)) if self.samples is None else self.samples
        for message in some:
            if supervisor.stopping.is_set():
                return
            await self._send(number, message, supervisor, ref)
            await self._pause()

    async def _send(self, number: int, message: object, supervisor: Supervisor, ref: ActorRef[object]) -> None:
        if not isinstance(message, Ask):
            ref.tell(message)
            return
        name = type(message).__name__
        answer: object = "nothing: it left"
        with trio.CancelScope() as scope:
            self._scopes[number] = scope
            answer = await self._ask(name, message, ref)
        self._scopes.pop(number, None)
        self.trace.append((round(trio.current_time(), 6), number, name, frozen_copy(answer)))
        if _hashable(answer) and answer in self._ledger:
            await self._hold(answer, supervisor, ref)

    async def _ask(self, name: str, message: Ask[object], ref: ActorRef[object]) -> object:
        with trio.move_on_after(self.subject.answer_within):
            try:
                return await ref.ask(message)
            except ActorCrashedError as error:
                self.refused.append(name)
                return type(error).__name__
            except ActorStoppedError as error:
                return type(error).__name__
            except WizardError as error:
                if type(error) is ActorError:
                    self.flaws.append(f"{error}: give it a method with `@handles`")
                return type(error).__name__
        self.unanswered.append(name)
        return None

    async def _hold(self, grant: object, supervisor: Supervisor, ref: ActorRef[object]) -> None:
        for notice in self.subject.notices(grant):
            if self.rng.random() < 0.5:
                ref.notify(grant, cast("Notice[object]", notice))  # a subclass knows its own messages
        ends = self.subject.returns(grant)
        if not ends:
            self.flaws.append(f"{grant!r} was granted, and `returns` does not say which messages give it back")
            return
        with trio.move_on_after(self.rng.choice(HOLD)):
            await supervisor.stopping.wait()
        ref.give_back(grant, cast("Return[object]", self.rng.choice(ends)))

    async def _settle(self, ref: ActorRef[object]) -> None:
        async with trio.open_nursery() as asking:
            while True:
                await trio.sleep(1)
                for message in self.subject.settling():
                    if isinstance(message, Ask):
                        asking.start_soon(self._ask, type(message).__name__, message, ref)
                    else:
                        ref.tell(message)

    async def _canceller(self) -> None:
        """Cancel callers at random batches: timers alone would never hit the batch in which an answer arrives."""
        for _ in range(20):
            await self._pause()
            if self._scopes:
                for number in self.rng.sample(sorted(self._scopes), k=self.rng.randint(1, len(self._scopes))):
                    self._scopes[number].cancel()

    async def _crasher(self, supervisor: Supervisor) -> None:
        for _ in range(self.rng.randint(1, 4)):
            await self._pause()
            supervisor.kill("actor", PlantedError("planted"))

    async def _pause(self) -> None:
        if self.rng.random() < 0.7:
            for _ in range(self.rng.randint(1, 5)):
                await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(self.rng.choice((0.001, 0.01, 0.1)))


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave planned crashes out of the log."""
    log = logging.getLogger("wizard_actors.supervisor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


@contextmanager
def _one_order(seed: int) -> Iterator[None]:
    """Seed the order in which Trio runs its tasks, for which it has private names only; put both back afterwards."""
    run = getattr(getattr(trio, "_core", None), "_run", None)
    order, allowed = getattr(run, "_r", None), getattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", None)
    if run is None or order is None or allowed is None:
        raise SkipTest(f"Trio {trio.__version__} cannot be made to run its tasks in a seeded order")
    before = order.getstate()
    try:
        order.seed(seed)
        run._ALLOW_DETERMINISTIC_SCHEDULING = True  # noqa: SLF001 - Trio has no public way
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = allowed  # noqa: SLF001
        order.setstate(before)
