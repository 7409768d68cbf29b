"""At most one call a flight's key in flight through the actor, over any interleaving of callers, cancels, failures and
crashes; more only where more callers come than may follow one.
"""

import pytest
import trio
from attrs import define, field
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from wizard_actors.actor import ActorRef
from wizard_actors.cache import CacheState, ResponseCache
from wizard_actors.cache_messages import Follow, Hit, Landed, Lookup, Store
from wizard_actors.config import CacheConfig
from wizard_actors.errors import NetworkError, WizardError
from wizard_actors.flight import Flight
from wizard_actors.specs import ChildSpec, GroupSpec
from wizard_actors.supervisor import RestartPolicy, Supervisor
from wizard_actors.types import WizardResponse

HOUR = 3600.0
TTL = 3.0
INSTANTS = st.integers(0, 8).map(float)
KEYS = st.sampled_from([b"one", b"two"])
WAYS = st.sampled_from([None, b", in parallel"])


@define
class Caller:
    """What one caller asks and in which way, when it comes, how its call would go, when it is cancelled."""

    key: bytes
    way: bytes | None
    comes: float
    takes: float
    fails: bool
    cancelled: float | None
    ended: str = ""

    @property
    def flight_key(self) -> bytes:
        """Who has an equal one shares its call."""
        return self.key + (self.way or b"")


CALLERS = st.lists(
    st.builds(Caller, KEYS, WAYS, INSTANTS, INSTANTS, st.sampled_from([False, False, True]), st.none() | INSTANTS),
    min_size=1,
    max_size=12,
)


@define
class World:
    """The callers, the instants at which the cache crashes, and the calls under way for each flight's key."""

    callers: list[Caller]
    crashes: list[float]
    max_followers: int = 100
    at_most: int = 1
    calls: int = 0
    under_way: dict[bytes, int] = field(factory=dict)
    state: CacheState | None = None

    async def run(self) -> None:
        config = CacheConfig(max_entries=10, ttl=TTL)
        followers = self.max_followers
        spec = ChildSpec("cache", lambda *given: ResponseCache(config, *given, max_followers=followers))
        group = GroupSpec("wizard", [spec], policy=RestartPolicy(max_restarts=100))
        with trio.fail_after(HOUR):
            async with Supervisor(group) as tree:
                ref = tree.ref("cache", CacheState)
                async with trio.open_nursery() as nursery:
                    for caller in self.callers:
                        nursery.start_soon(self.live, caller, ref)
                    for instant in self.crashes:
                        nursery.start_soon(self.crash, instant, tree)
                await trio.sleep(60.0)  # beyond any backoff
                self.state = ref.published

    async def crash(self, instant: float, tree: Supervisor) -> None:
        await trio.sleep(instant)
        tree.kill("cache", RuntimeError("planted"))

    async def live(self, caller: Caller, ref: ActorRef[CacheState]) -> None:
        await trio.sleep(caller.comes)
        with trio.CancelScope() as scope:
            if caller.cancelled is not None:
                scope.deadline = trio.current_time() + caller.cancelled
            try:
                answer = await self.ask(caller, ref)
                assert answer.text == caller.key.decode()
                caller.ended = "answered"
            except WizardError:
                caller.ended = "failed"
        caller.ended = caller.ended or "cancelled"

    async def ask(self, caller: Caller, ref: ActorRef[CacheState]) -> WizardResponse:
        while True:
            try:
                found = await ref.ask(Lookup(caller.key, flight_key=caller.way and caller.flight_key))
            except WizardError:  # in backoff: here a caller waits, so that every call goes through the cache
                await trio.sleep(1.0)
                continue
            break
        if isinstance(found, Hit):
            assert found.age < TTL
            return found.response
        if isinstance(found, Follow):
            try:
                answer = await found.flight.follow()
            finally:
                if found.flight.abandoned:
                    ref.tell(Landed(caller.flight_key, found.flight))
            if answer is not None:
                return answer
        return await self.lead(caller, ref, found.flight)

    async def lead(self, caller: Caller, ref: ActorRef[CacheState], flight: Flight[WizardResponse]) -> WizardResponse:
        try:
            answer = await self.call(caller)
            flight.land(answer)
            ref.tell(Store(caller.key, answer, "a", "Why?"))
            return answer
        except WizardError as error:
            flight.fail(error)
            raise
        finally:
            flight.hand_over()
            ref.tell(Landed(caller.flight_key, flight))

    async def call(self, caller: Caller) -> WizardResponse:
        key = caller.flight_key
        self.calls += 1
        self.under_way[key] = self.under_way.get(key, 0) + 1
        assert self.under_way[key] <= self.at_most
        try:
            await trio.sleep(caller.takes)
            if caller.fails:
                raise NetworkError("reset", model="a")
            return WizardResponse(caller.key.decode(), "a")
        finally:
            self.under_way[key] -= 1


def simulate(world: World, seed: int) -> None:
    """Run the callers under a virtual clock, Trio's own scheduling seeded."""
    run = trio._core._run  # Trio has no public way to seed its scheduling
    run._r.seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        trio.run(world.run, clock=MockClock(autojump_threshold=0))


@example(  # a follower who is cancelled as it is handed the flight
    [
        Caller(b"one", None, 0.0, 6.0, fails=False, cancelled=None),
        Caller(b"one", None, 3.0, 0.0, fails=False, cancelled=None),
        Caller(b"one", None, 3.0, 0.0, fails=False, cancelled=None),
        Caller(b"one", b", in parallel", 0.0, 0.0, fails=False, cancelled=None),
        Caller(b"two", None, 4.0, 5.0, fails=False, cancelled=5.0),
        Caller(b"two", None, 5.0, 0.0, fails=False, cancelled=4.0),
    ],
    [],
    0,
)
@settings(max_examples=2 * settings().max_examples)
@given(CALLERS, st.lists(INSTANTS, max_size=2), st.integers(0, 2**32))
def test_at_most_one_call_a_key_is_in_flight(callers: list[Caller], crashes: list[float], seed: int) -> None:
    """Every caller ends; no flight is left; nobody is told another key's answer, or an old one."""
    world = World(callers, crashes)
    simulate(world, seed)

    assert all(caller.ended for caller in callers)
    assert all(caller.ended != "cancelled" or caller.cancelled is not None for caller in callers)
    for key in {caller.flight_key for caller in callers}:
        if not any(caller.fails for caller in callers if caller.flight_key == key):
            assert all(caller.ended != "failed" for caller in callers if caller.flight_key == key)
    assert world.state is not None
    assert world.state.flights == {}


@given(st.integers(1, 40), st.integers(0, 8), st.integers(0, 2**32))
def test_no_more_calls_than_followers_need_leaders(callers: int, max_followers: int, seed: int) -> None:
    """Who come at once and stay: each call but the last has as many followers as may be."""
    crowd = [Caller(b"one", None, comes=0.0, takes=1.0, fails=False, cancelled=None) for _ in range(callers)]
    needed = -(-callers // (max_followers + 1))
    world = World(crowd, [], max_followers, at_most=needed)
    simulate(world, seed)

    assert world.calls == needed
    assert {caller.ended for caller in crowd} == {"answered"}
