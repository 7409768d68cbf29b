"""One call for all who ask the same: who leads, who is told what, and that nobody waits for ever."""

import gc
from collections.abc import Callable, Sequence
from decimal import Decimal

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from wizard_actors.errors import Attempt, NetworkError, WizardError
from wizard_actors.flight import Flight

CALL = 5.0
HOUR = 3600.0
"""Whoever waits that long would wait for ever."""


@define
class Crowd:
    """Equal callers of one flight: the upstream's log, what each got, and how each call ends."""

    flight: Flight[str] = field(factory=Flight)
    outcome: Callable[[], str] = lambda: "answer"
    calls: list[str] = field(factory=list)
    at_once: int = 0
    answers: dict[str, str] = field(factory=dict)
    errors: dict[str, WizardError] = field(factory=dict)
    scopes: dict[str, trio.CancelScope] = field(factory=dict)
    before_hand_over: tuple[str, ...] = ()
    after_hand_over: tuple[str, ...] = ()

    async def caller(self, name: str, *, leads: bool = False) -> None:
        """Lead or follow, as a request does."""
        with trio.fail_after(HOUR), self.scopes.setdefault(name, trio.CancelScope()):
            try:
                answer = None if leads else await self.flight.follow()
                self.answers[name] = await self.lead(name) if answer is None else answer
            except WizardError as error:
                self.errors[name] = error

    async def lead(self, name: str) -> str:
        """Call upstream, and end the flight."""
        try:
            answer = await self.call(name)
            self.flight.land(answer)
            return answer
        except WizardError as error:
            self.flight.fail(error)
            raise
        finally:
            self.cancel(self.before_hand_over)
            self.flight.hand_over()
            self.cancel(self.after_hand_over)

    def cancel(self, names: Sequence[str]) -> None:
        """Cancel some callers."""
        for name in names:
            self.scopes[name].cancel()

    async def call(self, name: str) -> str:
        """Take some time."""
        self.calls.append(name)
        self.at_once += 1
        assert self.at_once == 1
        try:
            await trio.sleep(CALL)
            return self.outcome()
        finally:
            self.at_once -= 1


async def fifty(crowd: Crowd, nursery: trio.Nursery) -> None:
    """Start a leader and 49 followers, in order, and wait until all wait."""
    nursery.start_soon(lambda: crowd.caller("0", leads=True))
    for number in range(1, 50):
        nursery.start_soon(crowd.caller, str(number))
        await wait_all_tasks_blocked()


async def follow_in(scope: trio.CancelScope, flight: Flight[str]) -> None:
    """Follow until the scope is cancelled."""
    with scope:
        await flight.follow()


def fails() -> str:
    """End a call badly."""
    raise NetworkError("reset", model="a")


async def test_fifty_callers_share_one_call(autojump_clock: MockClock) -> None:
    """One call, fifty answers, in one call's time."""
    crowd = Crowd()
    async with trio.open_nursery() as nursery:
        await fifty(crowd, nursery)
        assert crowd.flight.followers == 49

    assert crowd.calls == ["0"]
    assert list(crowd.answers.values()) == ["answer"] * 50
    assert trio.current_time() == pytest.approx(CALL)
    assert (crowd.flight.over, crowd.flight.followers) == (True, 0)


async def test_fifty_callers_and_a_cancelled_leader_make_two_calls(autojump_clock: MockClock) -> None:
    """The oldest follower leads on; 49 answers."""
    crowd = Crowd()
    async with trio.open_nursery() as nursery:
        await fifty(crowd, nursery)
        crowd.scopes["0"].cancel()

    assert crowd.calls == ["0", "1"]
    assert len(crowd.answers) == 49
    assert not crowd.errors


async def test_fifty_callers_share_one_failure_each_by_a_copy_of_its_own(autojump_clock: MockClock) -> None:
    """One call's worth of attempts; each copy chained to the leader's error, and no two the same object."""
    crowd = Crowd(outcome=fails)
    async with trio.open_nursery() as nursery:
        await fifty(crowd, nursery)

    assert crowd.calls == ["0"]
    first = crowd.errors.pop("0")
    assert len(crowd.errors) == 49
    assert len({id(error) for error in crowd.errors.values()} | {id(first)}) == 50
    assert all(type(error) is NetworkError and error.__cause__ is first for error in crowd.errors.values())
    assert {error.to_dict()["message"] for error in crowd.errors.values()} == {"reset"}


async def test_a_failure_is_paid_for_once_however_many_share_it(autojump_clock: MockClock) -> None:
    """The leader's error tells the cost; a follower's lists the same attempts, at no cost."""
    flight: Flight[str] = Flight()
    error = NetworkError("reset", model="a", attempts=[Attempt("a", 1.0, 2.0, cost=Decimal(2)), Attempt("b", 3.0, 4.0)])
    flight.fail(error)
    with pytest.raises(NetworkError) as caught:
        await flight.follow()

    assert (error.cost, caught.value.cost) == (Decimal(2), Decimal(0))
    assert caught.value.attempts == (
        Attempt("a", 1.0, 2.0, cost=Decimal(0)),
        Attempt("b", 3.0, 4.0, cost=Decimal(0)),
    )


async def test_a_bug_of_the_leader_is_told_as_an_error_of_ours(autojump_clock: MockClock) -> None:
    """Followers never raise what nobody foresaw, and do not repeat the call one by one."""
    flight: Flight[str] = Flight()
    bug = TypeError("planted")
    flight.fail(bug)
    with pytest.raises(WizardError, match="TypeError: planted") as caught:
        await flight.follow()
    assert caught.value.__cause__ is bug


async def test_a_promoted_follower_cancelled_before_it_resumes_hands_over_again(autojump_clock: MockClock) -> None:
    """In the very tick in which it is promoted, together with those next in line."""
    crowd = Crowd(after_hand_over=("1", "2", "3"))
    async with trio.open_nursery() as nursery:
        await fifty(crowd, nursery)
        crowd.cancel("0")

    assert crowd.calls == ["0", "1", "4"]
    assert len(crowd.answers) == 46


async def test_a_follower_whose_cancellation_comes_first_hands_on_what_it_is_handed(autojump_clock: MockClock) -> None:
    """It has not resumed yet, and still has its seat, when the leader hands over to it: it never leads."""
    crowd = Crowd(before_hand_over=("1", "2", "3"))
    async with trio.open_nursery() as nursery:
        await fifty(crowd, nursery)
        crowd.cancel("0")

    assert crowd.calls == ["0", "4"]
    assert len(crowd.answers) == 46


async def test_a_cancelled_follower_leaves_and_costs_nothing(autojump_clock: MockClock) -> None:
    """Its seat is free; everybody else is answered by the one call."""
    crowd = Crowd()
    async with trio.open_nursery() as nursery:
        await fifty(crowd, nursery)
        crowd.scopes["7"].cancel()
        await wait_all_tasks_blocked()
        assert crowd.flight.followers == 48

    assert crowd.calls == ["0"]
    assert len(crowd.answers) == 49


async def test_a_follower_who_comes_too_late_is_told_all_the_same(autojump_clock: MockClock) -> None:
    """The answer, or the error, of a flight that is over."""
    flight: Flight[str] = Flight()
    flight.land("answer")
    assert await flight.follow() == "answer"

    failed: Flight[str] = Flight()
    failed.fail(NetworkError("reset", model="a"))
    with pytest.raises(NetworkError):
        await failed.follow()


async def test_followers_who_find_no_leader_make_one_call(autojump_clock: MockClock) -> None:
    """Sent to a flight whose leader was cancelled before they came: the first leads, the others follow it."""
    crowd = Crowd()
    for _ in range(3):
        crowd.flight.reserve()
    crowd.flight.hand_over()
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(crowd.caller, name)
    assert len(crowd.calls) == 1
    assert len(crowd.answers) == 3
    assert crowd.flight.over


async def test_a_flight_that_nobody_leads_or_follows_is_over(autojump_clock: MockClock) -> None:
    """Whoever asks then begins another; a seat that was kept in vain holds it open no longer than it is kept."""
    flight: Flight[str] = Flight()
    assert repr(flight) == "<Flight led, 0 follow>"
    flight.reserve()
    flight.hand_over()
    assert repr(flight) == "<Flight vacant, 1 follow>"
    flight.release()
    assert repr(flight) == "<Flight over, 0 follow>"


async def test_a_follower_cancelled_at_its_first_step_does_not_keep_the_lead(autojump_clock: MockClock) -> None:
    """It was to lead a vacant flight, and is cancelled in its checkpoint."""
    flight: Flight[str] = Flight()
    flight.reserve()
    flight.hand_over()
    scope = trio.CancelScope()
    scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow_in, scope, flight)
    assert scope.cancelled_caught
    assert flight.over


async def test_the_end_counts_once(autojump_clock: MockClock) -> None:
    """What comes after an end changes nothing: `hand_over` in `finally` is safe."""
    flight: Flight[str] = Flight()
    flight.land("first")
    flight.land("second")
    flight.fail(NetworkError("late", model="a"))
    flight.hand_over()
    assert flight.over
    assert await flight.follow() == "first"


async def test_followers_are_bounded(autojump_clock: MockClock) -> None:
    """A seat counts from its reservation until its follower has gone."""
    crowd = Crowd(Flight(max_followers=2))
    crowd.flight.reserve()
    crowd.flight.reserve()
    full = [crowd.flight.full]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.caller, "a")
        await wait_all_tasks_blocked()
        full.append(crowd.flight.full)
        crowd.cancel("a")
        await wait_all_tasks_blocked()
        full.append(crowd.flight.full)

    assert full == [True, True, False]
    assert crowd.flight.followers == 1


async def test_following_is_a_checkpoint(autojump_clock: MockClock) -> None:
    """Also where nothing has to be waited for."""
    flight: Flight[str] = Flight()
    flight.land("answer")
    with trio.testing.assert_checkpoints():
        await flight.follow()


async def test_a_flight_keeps_nothing_once_its_callers_have_gone(autojump_clock: MockClock) -> None:
    """No task, no seat, no answer: it goes with the last one who holds it."""
    crowd = Crowd()
    async with trio.open_nursery() as nursery:
        await fifty(crowd, nursery)
    del crowd
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, Flight)]
