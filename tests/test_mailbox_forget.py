"""Callers that leave: each frees its place, once, and nothing of it reaches anybody else."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.kernel_actors import (
    AnswerKept,
    BoomError,
    Clerk,
    ClerkView,
    Do,
    Echo,
    Keep,
    Told,
    clerk,
    collect,
    lanes_of,
    quiet,
    tree,
)
from wizard_actors.errors import ActorCrashedError, DeadlineExceededError
from wizard_actors.specs import ChildSpec

Clock = trio.testing.MockClock


async def test_a_caller_that_is_cancelled_frees_its_place(autojump_clock: Clock) -> None:
    """The actor forgets a kept ask whose caller has gone, and the place serves another."""
    made: list[Clerk] = []
    answers: list[object] = []
    async with tree(ChildSpec("a", clerk("a", None, made, room=1), mailbox=1)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(1):
                await ref.ask(Keep("gone"))
            nursery.start_soon(collect, answers, ref, Keep("stays"))
            await quiet()
            assert made[0].journal == ["start a", "forget gone"]
            made[0].room = 2
            ref.tell(Told("there is room again"))
            assert await ref.ask(AnswerKept()) == 1
    assert answers == ["stays"]


async def test_a_caller_that_is_late_frees_its_place(autojump_clock: Clock) -> None:
    """A deadline forgets a kept ask as a cancellation does."""
    made: list[Clerk] = []
    async with tree(ChildSpec("a", clerk("a", None, made))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        with pytest.raises(DeadlineExceededError, match="wizard/a did not answer Keep in time"):
            await ref.ask(Keep("late"), deadline=2.0)
        assert trio.current_time() == 2.0
        await quiet()
        assert made[0].journal == ["start a", "forget late"]
        assert lanes_of(supervisor).kept == 0


async def test_a_deadline_that_has_passed_answers_nothing(autojump_clock: Clock) -> None:
    """An ask that comes too late is never handled."""
    made: list[Clerk] = []
    async with tree(ChildSpec("a", clerk("a", None, made))) as supervisor:
        with pytest.raises(DeadlineExceededError):
            await supervisor.ref("a", ClerkView).ask(Echo(), deadline=-1.0)
        await quiet()
        assert made[0].echoed == 0


async def test_an_answer_within_the_deadline_is_returned(autojump_clock: Clock) -> None:
    """A deadline that is kept changes nothing."""
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        assert await supervisor.ref("a", ClerkView).ask(Keep("in time", until=1.0), deadline=2.0) == "in time"


async def test_an_ask_abandoned_before_receipt_is_skipped(autojump_clock: Clock) -> None:
    """It is not handled, and leaves nothing to forget."""
    made: list[Clerk] = []
    async with tree(ChildSpec("a", clerk("a", None, made, room=0), mailbox=4)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        with trio.move_on_after(1):
            try:
                await ref.ask(Echo("abandoned"))
            finally:
                assert lanes_of(supervisor).returns == 0
        made[0].room = 1
        assert await ref.ask(Echo("wanted")) == "wanted"
        assert made[0].journal == ["start a", "echo wanted"]


async def test_a_caller_cancelled_while_it_waits_for_room_was_never_there(autojump_clock: Clock) -> None:
    """Its message does not enter the lane."""
    made: list[Clerk] = []
    async with tree(ChildSpec("a", clerk("a", None, made, room=0), mailbox=1)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        answers: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, answers, ref, Echo("first"))
            await quiet()
            with pytest.raises(DeadlineExceededError):
                await ref.ask(Echo("outside"), deadline=1.0)
            assert lanes_of(supervisor).senders_waiting == 0
            made[0].room = 1
            ref.tell(Told("go on"))
        assert made[0].journal == ["start a", "hear go on", "echo first"]


async def test_an_ask_answered_just_as_its_caller_leaves_is_not_forgotten_too(autojump_clock: Clock) -> None:
    """The answer that is not delivered settles the ask; the caller's later forget finds nothing."""
    made: list[Clerk] = []
    async with tree(ChildSpec("a", clerk("a", None, made))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        scope = trio.CancelScope()
        answers: list[object] = []

        async def caller() -> None:
            with scope:
                await collect(answers, ref, Keep("both"))

        def leave_then_answer() -> int:
            scope.cancel()
            return sum(reply.send("too late") for reply, _ in made[0].kept.values())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller)
            await quiet()
            assert await ref.ask(Do(leave_then_answer)) == 0
        await quiet()
        assert answers == []
        assert made[0].journal == ["start a"]
        assert lanes_of(supervisor).kept == 0


async def test_a_forget_that_a_crash_overtakes_does_not_reach_the_next_incarnation(autojump_clock: Clock) -> None:
    """The crash has settled every kept ask; the next incarnation knows none of them."""
    made: list[Clerk] = []
    scope = trio.CancelScope()
    async with tree(ChildSpec("a", clerk("a", None, made))) as supervisor:
        ref = supervisor.ref("a", ClerkView)

        async def leaver() -> None:
            with scope:
                try:
                    await ref.ask(Keep("gone"))
                finally:  # the forget is queued, and the crash comes before it
                    supervisor.kill("a", BoomError("planted"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leaver)
            await quiet()
            scope.cancel()
        await quiet()
        assert await ref.ask(Echo("alive")) == "alive"
        assert made[1].journal == ["start a", "echo alive"]
        assert lanes_of(supervisor).returns == 0


async def test_a_crash_in_the_turn_in_which_the_caller_leaves_settles_its_ask(autojump_clock: Clock) -> None:
    """The caller is cancelled, and nothing more: no error reaches it, no forget the next incarnation."""
    made: list[Clerk] = []
    scope = trio.CancelScope()
    answers: list[object] = []
    async with tree(ChildSpec("a", clerk("a", None, made))) as supervisor:
        ref = supervisor.ref("a", ClerkView)

        async def leaver() -> None:
            with scope:
                await collect(answers, ref, Keep("gone"))

        def leave_and_crash() -> None:
            scope.cancel()
            raise BoomError("planted")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leaver)
            await quiet()
            with pytest.raises(ActorCrashedError):
                await ref.ask(Do(leave_and_crash))
        await quiet()
        assert (answers, scope.cancelled_caught) == ([], True)
        assert made[1].journal == ["start a"]
