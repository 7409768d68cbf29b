"""Actors: which handler gets what, when `tick` runs, what is published, and what an `ActorRef` says."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from attrs import frozen

from tests.kernel_actors import (
    AnswerKept,
    BoomError,
    Clerk,
    ClerkView,
    Do,
    Echo,
    Keep,
    TellOnly,
    Told,
    Unheard,
    clerk,
    collect,
    crash,
    crash_with,
    lanes_of,
    quiet,
    tree,
)
from wizard_actors.actor import Actor, Ask, Ledger, Reply, handles, hears
from wizard_actors.errors import ActorCrashedError, ActorError, InvalidPromptError
from wizard_actors.specs import ChildSpec, GroupSpec, State
from wizard_actors.supervisor import RestartPolicy, Supervisor

Clock = trio.testing.MockClock

# -- handlers


async def test_an_ask_is_answered_by_the_handler_of_its_class(autojump_clock: Clock) -> None:
    """The answer is what the handler sends."""
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        assert await supervisor.ref("a", ClerkView).ask(Echo("hi")) == "hi"


async def test_an_ask_without_a_handler_is_a_reply_and_no_crash(autojump_clock: Clock) -> None:
    """The mistake is the caller's: the actor goes on."""
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        with pytest.raises(ActorError, match="wizard/a has no handler for Unheard") as caught:
            await ref.ask(Unheard())
        assert caught.value.actor == "wizard/a"
        assert await ref.ask(Echo("alive")) == "alive"
        assert supervisor.tree().children[0].restarts == 0


async def test_a_told_message_without_a_handler_is_dropped_and_counted(autojump_clock: Clock) -> None:
    """The mistake is the sender's: the actor goes on, however often it is made, and hears what comes behind."""
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        for message in (TellOnly(), Told("1"), TellOnly(), TellOnly(), Told("2")):
            ref.tell(message)
        await quiet()
        [node] = supervisor.tree().children
        assert (node.state, node.restarts, node.error) == (State.RUNNING, 0, None)
        lanes = lanes_of(supervisor)
        assert (lanes.dropped, lanes.handled) == (3, 2)
        assert ref.published is not None
        assert ref.published.heard == ("1", "2")


async def test_a_told_message_without_a_handler_is_logged_once_a_class_and_actor(
    caplog: pytest.LogCaptureFixture, autojump_clock: Clock
) -> None:
    """The line names both, and says what to do; over a restart too it is not said again."""
    async with tree(ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b"))) as supervisor:
        for _ in range(2):
            for name in ("a", "b"):
                supervisor.ref(name, ClerkView).tell(TellOnly())
            supervisor.ref("a", ClerkView).tell(Unheard())
            await quiet()
            supervisor.kill("a", BoomError("planted"))
            await quiet()
    said = [record.getMessage() for record in caplog.records if "no handler" in record.getMessage()]
    dropped = "what it is told of them is dropped, and counted;"
    assert sorted(said) == [
        f"wizard/a has no handler for TellOnly: {dropped} mark a method @hears(it)",
        f"wizard/a has no handler for Unheard: {dropped} `await ref.ask(message)` sends an Ask",
        f"wizard/b has no handler for TellOnly: {dropped} mark a method @hears(it)",
    ]


async def test_told_messages_behind_a_crash_are_heard_by_the_next_incarnation(autojump_clock: Clock) -> None:
    """Only the message in hand is lost: the lane outlives the crash."""
    made: list[Clerk] = []

    class Touchy(Clerk):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        @hears(Told)
        def hear(self, message: Told, now: float) -> None:
            if message.text == "crash":
                raise BoomError("planted")
            super().hear(message, now)

    async with tree(ChildSpec("a", lambda _ledger, _carry: Touchy())) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        for text in ("1", "crash", "2", "3"):
            ref.tell(Told(text))
        await quiet()
        assert [actor.heard for actor in made] == [["1"], ["2", "3"]]


async def test_a_handler_may_fail_its_caller_without_crashing(autojump_clock: Clock) -> None:
    """Rejections are replies: the caller gets the very error, the actor goes on."""

    class Picky(Clerk):
        @handles(Echo)
        def echo(self, message: Echo, reply: Reply[str], now: float) -> None:
            reply.fail(InvalidPromptError("not that"))

    async with tree(ChildSpec("a", lambda _ledger, _carry: Picky())) as supervisor:
        with pytest.raises(InvalidPromptError, match="not that"):
            await supervisor.ref("a", ClerkView).ask(Echo())
        assert supervisor.tree().children[0].restarts == 0


async def test_a_second_answer_is_not_delivered(autojump_clock: Clock) -> None:
    """The first one counts; the handler is told that the second went nowhere."""
    delivered: list[bool] = []

    class Talkative(Clerk):
        @handles(Echo)
        def echo(self, message: Echo, reply: Reply[str], now: float) -> None:
            delivered.extend([reply.wanted, reply.send("first"), reply.wanted, reply.send("second")])
            delivered.append(reply.fail(InvalidPromptError("third")))

    async with tree(ChildSpec("a", lambda _ledger, _carry: Talkative())) as supervisor:
        assert await supervisor.ref("a", ClerkView).ask(Echo()) == "first"
    assert delivered == [True, True, False, False, False]


async def test_a_kept_reply_is_answered_from_another_handler(autojump_clock: Clock) -> None:
    """Who neither answers nor fails keeps the reply, and may answer it at any later time."""
    answers: list[object] = []
    async with tree(ChildSpec("a", clerk("a"))) as supervisor, trio.open_nursery() as nursery:
        ref = supervisor.ref("a", ClerkView)
        nursery.start_soon(collect, answers, ref, Keep("later"))
        await trio.sleep(5)
        assert answers == []
        assert await ref.ask(AnswerKept()) == 1
        await quiet()
        assert answers == ["later"]


async def test_handlers_are_inherited_and_overridden(autojump_clock: Clock) -> None:
    """A subclass answers what its base does, in its own way where it overrides a handler, marked again or not."""

    class Base(Actor):
        @handles(Echo)
        def echo(self, message: Echo, reply: Reply[str], now: float) -> None:
            reply.send("base")

        @hears(Told)
        def hear(self, message: Told, now: float) -> None:
            """Do nothing."""

    class Derived(Base):
        def echo(self, message: Echo, reply: Reply[str], now: float) -> None:
            reply.send("derived")

    async with tree(
        ChildSpec("base", lambda _ledger, _carry: Base()), ChildSpec("derived", lambda _ledger, _carry: Derived())
    ) as supervisor:
        assert await supervisor.ref("base", object).ask(Echo()) == "base"
        assert await supervisor.ref("derived", object).ask(Echo()) == "derived"


@frozen
class Now(Ask[float]):
    """Is answered with the instant that the handler was given."""


async def test_a_plain_actor_needs_nothing_but_its_handlers(autojump_clock: Clock) -> None:
    """Start, stop, forget, tick and snapshot all have defaults; `now` is Trio's clock."""

    class Plain(Actor):
        @handles(Now)
        def now(self, message: Now, reply: Reply[float], now: float) -> None:
            reply.send(now)

        @handles(Keep)
        def keep(self, message: Keep, reply: Reply[str], now: float) -> None:
            """Keep it."""

    async with tree(ChildSpec("a", lambda _ledger, _carry: Plain())) as supervisor:
        ref = supervisor.ref("a", object)
        await trio.sleep(3)
        assert await ref.ask(Now()) == 3.0
        with trio.move_on_after(1):
            await ref.ask(Keep())
        await quiet()
        assert ref.published is None
        assert supervisor.tree().children[0].restarts == 0


# -- time


async def test_tick_runs_at_the_instant_that_wake_at_names(autojump_clock: Clock) -> None:
    """Neither before nor after, once for each instant, and not at all where nothing is due."""
    made: list[Clerk] = []
    answers: list[object] = []
    async with tree(ChildSpec("a", clerk("a", None, made))) as supervisor, trio.open_nursery() as nursery:
        ref = supervisor.ref("a", ClerkView)
        for due in (7.0, 2.0, 2.0):
            nursery.start_soon(collect, answers, ref, Keep(str(due), until=due))
        await trio.sleep(100)
        assert made[0].ticks == [2.0, 7.0]
        assert answers == ["2.0", "2.0", "7.0"]


async def test_what_is_due_at_once_is_ticked_at_once(autojump_clock: Clock) -> None:
    """An instant in the past needs no time to pass."""
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        await trio.sleep(5)
        assert await supervisor.ref("a", ClerkView).ask(Keep("overdue", until=1.0)) == "overdue"
        assert trio.current_time() == 5.0


class Stuck(Clerk):
    """Its `tick` does nothing about what is due, unless it answers one kept ask at a time."""

    def __init__(self, *, answers: bool) -> None:
        super().__init__()
        self.answers = answers
        self.due = math.inf

    def wake_at(self) -> float:
        """Stay where it is."""
        return self.due

    def tick(self, now: float) -> None:
        """Answer the oldest, if it answers at all; move on only when nothing is kept."""
        self.ticks.append(now)
        if self.answers and self.kept:
            reply, keep = self.kept.pop(next(iter(self.kept)))
            reply.send(keep.text)
        if self.answers and not self.kept:
            self.due = math.inf

    @hears(Told)
    def hear(self, message: Told, now: float) -> None:
        """Become due."""
        self.due = now


async def test_a_tick_without_progress_is_a_crash_and_no_endless_loop(autojump_clock: Clock) -> None:
    """The same instant due again, and every kept ask still waiting, would spin for ever: a bug, said loudly."""
    answers: list[object] = []
    async with tree(ChildSpec("a", lambda _ledger, _carry: Stuck(answers=False))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, answers, ref, Keep())
            await quiet()
            ref.tell(Told("be due"))
        error = supervisor.tree().children[0].error
        assert error == "RuntimeError: wizard/a: tick(0.0) made no progress on what was due at 0.0"
        assert isinstance(answers[0], ActorCrashedError)


async def test_a_tick_that_answers_somebody_has_made_progress(autojump_clock: Clock) -> None:
    """The same instant may stay due as long as fewer and fewer wait for it."""
    actor = Stuck(answers=True)
    answers: list[object] = []
    async with tree(ChildSpec("a", lambda _ledger, _carry: actor)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(collect, answers, ref, Keep(str(number)))
            await quiet()
            ref.tell(Told("be due"))
        assert sorted(map(str, answers)) == ["0", "1", "2"]
        assert actor.ticks == [0.0] * 3
        assert supervisor.tree().children[0].restarts == 0


# -- what is published


async def test_the_snapshot_is_published_after_every_message(autojump_clock: Clock) -> None:
    """Who only reads need not ask, and finds the state as the last message left it."""
    supervisor = tree(ChildSpec("a", clerk("a")))
    ref = supervisor.ref("a", ClerkView)
    seen = [ref.published]
    async with supervisor:
        seen.append(ref.published)
        await ref.ask(Echo())
        seen.append(ref.published)
        ref.tell(Told("news"))
        await quiet()
        seen.append(ref.published)
    assert seen == [None, ClerkView(0, (), 0), ClerkView(1, (), 0), ClerkView(1, ("news",), 0)]


async def test_a_factory_gets_the_last_snapshot_of_the_incarnation_before(autojump_clock: Clock) -> None:
    """None at first; after a crash, the state before the message that crashed it."""
    carries: list[object] = []

    def factory(ledger: Ledger, carry: object) -> Actor:
        carries.append(carry)
        return Clerk()

    async with tree(ChildSpec("a", factory)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        await ref.ask(Echo())
        await crash(ref)
    assert carries == [None, ClerkView(echoed=1, heard=(), kept=0)]


# -- the reference


async def test_a_reference_says_where_it_points_and_how_things_stand(autojump_clock: Clock) -> None:
    """Path, state and availability, from before the start to after the stop."""
    supervisor = tree(GroupSpec("group", [ChildSpec("a", clerk("a"))]))
    ref = supervisor.ref("group/a", ClerkView)
    assert (ref.path, repr(ref)) == ("wizard/group/a", "<ActorRef wizard/group/a idle>")
    async with supervisor:
        assert (repr(ref), ref.available) == ("<ActorRef wizard/group/a running>", True)
    assert (repr(ref), ref.available) == ("<ActorRef wizard/group/a stopped>", False)


async def test_a_reference_says_what_its_actor_failed_of_last(autojump_clock: Clock) -> None:
    """None as long as it never did; the last failure is kept over restarts."""
    bug = BoomError("planted")
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        seen = [ref.failure]
        await crash(ref, bug)
        assert ref.available
        seen.append(ref.failure)
    assert seen == [None, bug]


async def test_an_ask_before_the_start_is_served_after_it(autojump_clock: Clock) -> None:
    """The mailbox is there before the first incarnation."""
    answers: list[object] = []
    async with trio.open_nursery() as nursery:
        supervisor = tree(ChildSpec("a", clerk("a")))
        nursery.start_soon(collect, answers, supervisor.ref("a", ClerkView), Echo("early"))
        await quiet()
        async with supervisor:
            await quiet()
            assert answers == ["early"]


async def test_an_ask_at_the_instant_of_the_comeback_is_refused_or_answered(autojump_clock: Clock) -> None:
    """Asks sent in every step round a restart each get one of the two, and nothing else."""

    class Gradual(Clerk):
        async def start(self) -> None:
            for _ in range(5):
                await trio.lowlevel.checkpoint()

    children = [ChildSpec("a", lambda _ledger, _carry: Gradual())]
    answers: list[object] = []
    async with Supervisor(GroupSpec("wizard", children, policy=RestartPolicy(max_restarts=0))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        await crash(ref)
        assert supervisor.tree().children[0].state is State.DOWN
        async with trio.open_nursery() as nursery:
            await trio.sleep_until(60)
            for _ in range(20):
                for _ in range(5):
                    nursery.start_soon(collect, answers, ref, Echo())
                await trio.lowlevel.checkpoint()
    assert {type(answer) for answer in answers} == {ActorCrashedError, str}
    assert len(answers) == 100


async def test_an_ask_is_a_checkpoint_even_where_it_is_refused(autojump_clock: Clock) -> None:
    """A caller that loops over asks lets others run, and can be cancelled."""
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
    with trio.move_on_after(0) as scope:
        await ref.ask(Echo())
    assert scope.cancelled_caught


async def test_what_a_handler_raises_reaches_its_caller_as_the_cause(autojump_clock: Clock) -> None:
    """`ActorCrashedError` is raised from the bug itself and names the actor."""
    bug = BoomError("planted")
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        with pytest.raises(ActorCrashedError, match="wizard/a crashed: BoomError: planted") as caught:
            await supervisor.ref("a", ClerkView).ask(crash_with(bug))
    assert caught.value.__cause__ is bug
    assert caught.value.actor == "wizard/a"


async def test_a_caller_that_was_answered_before_the_crash_keeps_its_answer(autojump_clock: Clock) -> None:
    """A handler that answers and then raises has answered."""

    class Hasty(Clerk):
        @handles(Do)
        def do(self, message: Do, reply: Reply[object], now: float) -> None:
            reply.send("done")
            message.action()

    def fail() -> object:
        raise BoomError("after the answer")

    async with tree(ChildSpec("a", lambda _ledger, _carry: Hasty())) as supervisor:
        assert await supervisor.ref("a", ClerkView).ask(Do(fail)) == "done"
        await quiet()
        assert supervisor.tree().children[0].restarts == 1
