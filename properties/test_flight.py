"""At most one call a key in flight, over any interleaving of callers, cancels, failures and deadlines."""

import pytest
import trio
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from wizard_actors.errors import NetworkError, WizardError
from wizard_actors.flight import Flight

HOUR = 3600.0
INSTANTS = st.integers(0, 6).map(float)


@define
class Caller:
    """When one caller comes, how long its call would take and whether it would fail, when it is cancelled.

    `resumes` is how many scheduler's turns pass between being sent to a flight and coming to it.
    """

    comes: float
    takes: float
    fails: bool
    cancelled: float | None
    out_of_time: float | None
    ended: str = ""


CALLERS = st.lists(
    st.builds(
        Caller, INSTANTS, INSTANTS, st.sampled_from([False, False, True]), st.none() | INSTANTS, st.none() | INSTANTS
    ),
    min_size=1,
    max_size=12,
)


@define
class World:
    """The callers, the one key's flight as an actor would know it, and the calls under way."""

    callers: list[Caller]
    flight: Flight[int] | None = None
    under_way: int = 0
    calls: int = 0
    handed_over: int = 0
    answered: list[int] = field(factory=list)

    async def run(self) -> None:
        with trio.fail_after(HOUR):
            async with trio.open_nursery() as nursery:
                for caller in self.callers:
                    nursery.start_soon(self.live, caller)

    async def live(self, caller: Caller) -> None:
        await trio.sleep(caller.comes)
        with trio.CancelScope() as scope:
            if caller.cancelled is not None:
                scope.deadline = trio.current_time() + caller.cancelled
            try:
                self.answered.append(await self.ask(caller))
                caller.ended = "answered"
            except WizardError:
                caller.ended = "failed"
            except trio.TooSlowError:
                caller.ended = "late"
        caller.ended = caller.ended or "cancelled"

    async def ask(self, caller: Caller) -> int:
        flight = self.flight
        if flight is None or flight.over:
            flight = self.flight = Flight()
        else:
            flight.reserve()
            answer = await flight.follow()
            if answer is not None:
                return answer
        try:
            answer = await self.call(caller)
            flight.land(answer)
            return answer
        except WizardError as error:
            flight.fail(error)
            raise
        finally:
            self.handed_over += not flight.over
            flight.hand_over()

    async def call(self, caller: Caller) -> int:
        self.calls += 1
        self.under_way += 1
        assert self.under_way == 1
        try:
            with trio.fail_after(caller.out_of_time if caller.out_of_time is not None else HOUR):
                await trio.sleep(caller.takes)
            if caller.fails:
                raise NetworkError("reset", model="a")
            return self.calls
        finally:
            self.under_way -= 1


def simulate(callers: list[Caller], seed: int) -> World:
    """Run the callers under a virtual clock, Trio's own scheduling seeded."""
    run = trio._core._run  # Trio has no public way to seed its scheduling
    run._r.seed(seed)
    world = World(callers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        trio.run(world.run, clock=MockClock(autojump_threshold=0))
    return world


@settings(max_examples=2 * settings().max_examples)
@given(CALLERS, st.integers(0, 2**32))
def test_at_most_one_call_is_in_flight_and_nobody_waits_for_ever(callers: list[Caller], seed: int) -> None:
    """Every caller ends, by an answer, an error, its cancellation or its own time; an error is nobody's but shared."""
    world = simulate(callers, seed)

    assert world.under_way == 0
    assert all(caller.ended for caller in callers)
    assert all(caller.ended != "cancelled" or caller.cancelled is not None for caller in callers)
    assert all(caller.ended != "late" or caller.out_of_time is not None for caller in callers)
    if not any(caller.fails for caller in callers):
        assert all(caller.ended != "failed" for caller in callers)
    if not any(caller.fails or caller.cancelled is not None or caller.out_of_time is not None for caller in callers):
        assert {caller.ended for caller in callers} == {"answered"}
    assert world.flight is not None
    assert world.flight.over
    assert world.flight.followers == 0


@given(st.integers(2, 30), st.integers(0, 5), st.integers(0, 2**32))
def test_as_many_calls_as_leaders_were_cancelled_and_one_more(callers: int, cancelled: int, seed: int) -> None:
    """Callers who come at once: each cancelled leader costs a call, and nobody's cancellation an answer."""
    cancelled = min(cancelled, callers - 1)
    crowd = [
        Caller(comes=0.0, takes=3.0, fails=False, cancelled=1.0 if number < cancelled else None, out_of_time=None)
        for number in range(callers)
    ]
    world = simulate(crowd, seed)

    assert world.calls == 1 + world.handed_over <= 1 + cancelled
    assert len(world.answered) == callers - cancelled
