"""The session store: turns as leases, over cancellations, crashes and stops."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from wizard_actors.actor import ActorRef, Ledger, Reply
from wizard_actors.errors import ActorCrashedError, ActorStoppedError, DeadlineExceededError, MailboxFullError
from wizard_actors.session_store import Begin, Busy, End, Lease, SessionStore, SessionStoreState
from wizard_actors.supervisor import ChildSpec, GroupSpec, RestartPolicy, Supervisor

Ref = ActorRef[SessionStoreState]
HOUR = 3600.0


@asynccontextmanager
async def store_of(bound: int = 100, mailbox: int = 8) -> AsyncIterator[tuple[Supervisor, Ref]]:
    """Run one store."""
    spec = ChildSpec("sessions", lambda ledger, carry: SessionStore(bound, ledger, carry), mailbox=mailbox)
    async with Supervisor(GroupSpec("wizard", [spec])) as tree:
        yield tree, tree.ref("sessions", SessionStoreState)


async def state(ref: Ref) -> SessionStoreState:
    """Return what the store publishes once all is quiet."""
    await wait_all_tasks_blocked()
    published = ref.published
    assert published is not None
    return published


class Takers:
    """Tasks that take turns of one session, and what became of each, by its name."""

    def __init__(self, ref: Ref, nursery: trio.Nursery, session: str = "alice") -> None:
        self.ref = ref
        self.nursery = nursery
        self.session = session
        self.got: dict[str, Lease] = {}
        self.failed: dict[str, Exception] = {}
        self.scopes: dict[str, trio.CancelScope] = {}

    async def take(self, *names: str) -> None:
        """Have each of `names` begin a turn, in that order."""
        for name in names:
            self.nursery.start_soon(self._take, name)
            await wait_all_tasks_blocked()

    async def _take(self, name: str) -> None:
        with trio.CancelScope() as self.scopes[name]:
            try:
                self.got[name] = await self.ref.ask(Begin(self.session, name))
            except (ActorCrashedError, MailboxFullError) as error:
                self.failed[name] = error

    async def end(self, *names: str) -> None:
        """Have each of `names` end its turn."""
        for name in names:
            self.ref.give_back(self.got[name], End())
            await wait_all_tasks_blocked()


async def test_turns_of_a_session_follow_each_other_and_others_do_not_wait(autojump_clock: MockClock) -> None:
    """In order of arrival; the snapshot and `Busy` tell what is in progress."""
    async with store_of() as (_, ref), trio.open_nursery() as nursery:
        alice, bob = Takers(ref, nursery), Takers(ref, nursery, "bob")
        await alice.take("one", "two", "three")
        await bob.take("other")
        assert (list(alice.got), list(bob.got)) == (["one"], ["other"])
        assert await ref.ask(Busy()) == {"alice", "bob"}
        assert await state(ref) == SessionStoreState(turns=2, waiting=2, granted=2)

        await bob.end("other")
        await alice.end("one")

        assert list(alice.got) == ["one", "two"]
        assert await ref.ask(Busy()) == {"alice"}
        await alice.end("two", "three")
        assert await state(ref) == SessionStoreState(granted=4)


async def test_a_store_that_is_full_says_which_bound_was_met(autojump_clock: MockClock) -> None:
    """At once, however many wait: it never stops receiving."""
    async with store_of(bound=20, mailbox=2) as (_, ref), trio.open_nursery() as nursery:
        alice, bob = Takers(ref, nursery), Takers(ref, nursery, "bob")
        await alice.take(*map(str, range(17)))
        with pytest.raises(MailboxFullError, match="16 turns wait for session 'alice'") as of_session:
            await ref.ask(Begin("alice", "late"))
        await bob.take("a", "b", "c")
        with pytest.raises(MailboxFullError, match=r"20 turns .* `sessions\.max_sessions`") as of_all:
            await ref.ask(Begin("carol", "late"))

        assert of_session.value.actor == of_all.value.actor == "sessions"
        assert (await state(ref)).rejected == 2
        await alice.end(*map(str, range(17)))
        await bob.end("a", "b", "c")


async def test_whoever_leaves_costs_no_turn(autojump_clock: MockClock) -> None:
    """Neither one that left before, nor one that leaves in the step in which its turn comes."""
    async with store_of() as (tree, ref), trio.open_nursery() as nursery:
        for _ in range(20):
            takers = Takers(ref, nursery)
            await takers.take("one", "before", "meanwhile", "next")
            takers.scopes["before"].cancel()
            await wait_all_tasks_blocked()
            takers.scopes["meanwhile"].cancel()
            await takers.end("one")

            assert list(takers.got) == ["one", "next"]
            await takers.end("next")
        assert tree.outstanding == {}
        assert (await state(ref)).turns == 0


async def test_a_caller_waits_no_longer_than_it_says(autojump_clock: MockClock) -> None:
    """Its deadline is round its ask, and its place is free again."""
    async with store_of() as (_, ref):
        lease = await ref.ask(Begin("alice", "long"))

        with pytest.raises(DeadlineExceededError):
            await ref.ask(Begin("alice", "short"), deadline=2.0)

        assert trio.current_time() == 2.0
        assert (await state(ref)).waiting == 0
        ref.give_back(lease, End())


async def test_after_a_crash_the_live_turns_go_on(autojump_clock: MockClock) -> None:
    """Their holders give them back as before; those who waited are told of the crash, nobody gets a turn too many."""
    async with store_of() as (tree, ref), trio.open_nursery() as nursery:
        takers = Takers(ref, nursery)
        await takers.take("one", "waiting")

        tree.kill("sessions", RuntimeError("planted"))
        await wait_all_tasks_blocked()

        assert list(takers.failed) == ["waiting"]
        assert await ref.ask(Busy()) == {"alice"}
        await takers.take("two")
        assert "two" not in takers.got
        await takers.end("one")
        assert "two" in takers.got
        await takers.end("two")
        assert await state(ref) == SessionStoreState(granted=2)


# -- chaos


@define(eq=False)
class World:
    """One seeded run: clients that take turns, and are cancelled; crashes, and perhaps an early stop."""

    rng: Random
    holding: dict[str, int] = field(factory=dict)
    doubled: int = 0
    begun: int = 0
    ended: int = 0
    scopes: dict[int, trio.CancelScope] = field(factory=dict)

    async def run(self) -> None:
        early = self.rng.random() < 0.4
        spec = ChildSpec("sessions", make_store, mailbox=4)
        policy = RestartPolicy(max_restarts=4, window=1.0, max_backoff=0.3, healthy_after=0.5, down_retry=1.0)
        tree = Supervisor(GroupSpec("chaos", [spec], policy=policy), rng=self.rng, drain_timeout=HOUR)
        with trio.fail_after(HOUR):  # nothing takes that long: who still waits then waits for ever
            async with trio.open_nursery() as clients, tree:
                ref = tree.ref("sessions", SessionStoreState)
                async with trio.open_nursery() as actors:
                    for number in range(self.rng.randint(4, 10)):
                        (clients if early else actors).start_soon(self.client, number, ref)
                    actors.start_soon(self.canceller)
                    actors.start_soon(self.crasher, tree)
                if not early:
                    await trio.sleep(5)  # whatever is in backoff comes back
                    assert await ref.ask(Busy()) == frozenset()
                    await trio.sleep(1)
                    published = ref.published
                    assert published is not None
                    assert (published.turns, published.waiting) == (0, 0)
        assert tree.outstanding == {}
        assert self.begun == self.ended
        assert self.doubled == 0

    async def client(self, number: int, ref: Ref) -> None:
        for _ in range(self.rng.randint(3, 8)):
            with trio.CancelScope() as scope:
                self.scopes[number] = scope
                if self.rng.random() < 0.2:
                    scope.deadline = trio.current_time() + self.rng.choice([0.0, 0.01, 0.1])
                await self.turn(ref, self.rng.choice(["alice", "alice", "bob"]))
            self.scopes.pop(number, None)
            with trio.CancelScope(shield=True):
                await self.pause()

    async def turn(self, ref: Ref, session: str) -> None:
        self.begun += 1
        try:
            lease = await ref.ask(Begin(session, "r"))
            held = self.holding[session] = self.holding.get(session, 0) + 1
            self.doubled += held > 1
            try:
                await self.pause()
            finally:
                self.holding[session] -= 1
                ref.give_back(lease, End())
                ref.give_back(lease, End())  # a second end is ignored
        except (ActorCrashedError, ActorStoppedError, MailboxFullError):
            pass
        finally:
            self.ended += 1

    async def canceller(self) -> None:
        for _ in range(12):
            await self.pause()
            for number in self.rng.sample(sorted(self.scopes), k=self.rng.randint(0, len(self.scopes))):
                self.scopes[number].cancel()

    async def crasher(self, tree: Supervisor) -> None:
        for _ in range(self.rng.randint(0, 6)):
            await self.pause()
            if self.rng.random() < 0.4:
                tree.kill("sessions", RuntimeError("planned"))

    async def pause(self) -> None:
        if self.rng.random() < 0.7:
            for _ in range(self.rng.randint(1, 5)):
                await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(self.rng.choice([0.005, 0.01, 0.1]))


def make_store(ledger: Ledger, carry: object) -> SessionStore:
    """Make an incarnation with little room."""
    return SessionStore(6, ledger, carry)


def simulate(seed: int) -> None:
    """Run one seed under a virtual clock, Trio's own scheduling seeded as well."""
    run = trio._core._run  # Trio has no public way to seed its scheduling
    run._r.seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        trio.run(World(Random(seed)).run, clock=MockClock(autojump_threshold=0))


def run_seeds(seeds: int) -> None:
    """Run many seeds."""
    for seed in range(seeds):
        simulate(seed)


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Hundreds of planned crashes need no log."""
    caplog.set_level("CRITICAL", logger="wizard_actors.supervisor")


def test_no_session_ever_has_two_turns_and_nobody_is_forgotten(quiet: None, pytestconfig: pytest.Config) -> None:
    """Whatever is cancelled, crashes or stops: every ask ends, and every lease comes back."""
    run_seeds(pytestconfig.getoption("seeds"))


def _forgets_live_turns(patch: pytest.MonkeyPatch) -> None:
    honest = SessionStore.__init__
    patch.setattr(SessionStore, "__init__", lambda self, bound, ledger, carry: honest(self, bound, Ledger(), carry))


def _keeps_undelivered_turns(patch: pytest.MonkeyPatch) -> None:
    def deliver(self: SessionStore, reply: Reply[Lease], lease: Lease, now: float) -> None:
        reply.grant(lease)

    def pass_on(self: SessionStore, lease: Lease, now: float) -> None:
        following = self._queue.release(lease, now)
        if following is not None:
            self._replies.pop(following[0]).grant(following[1])

    patch.setattr(SessionStore, "_deliver", deliver)
    patch.setattr(SessionStore, "_pass_on", pass_on)


@pytest.mark.parametrize("plant", [_forgets_live_turns, _keeps_undelivered_turns])
def test_a_store_with_a_planted_bug_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None], quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chaos test that nothing fails proves nothing."""
    plant(monkeypatch)

    with pytest.raises((AssertionError, trio.TooSlowError, ExceptionGroup)):
        run_seeds(50)
