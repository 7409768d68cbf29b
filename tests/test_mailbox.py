"""The two lanes: what they hold, in which order they are served, and what they refuse."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from tests.kernel_actors import (
    Act,
    BoomError,
    Clerk,
    ClerkView,
    Do,
    Echo,
    Garage,
    Keep,
    Lease,
    Rent,
    Told,
    Vacate,
    clerk,
    collect,
    garage,
    lanes_of,
    quiet,
    tree,
)
from wizard_actors.actor import Actor, Reply, Waiter, handles, hears, takes_back
from wizard_actors.errors import ActorCrashedError, MailboxFullError
from wizard_actors.event_stream import EventStream
from wizard_actors.events import Event
from wizard_actors.mailbox import Lanes, Mailbox
from wizard_actors.specs import ChildSpec

Clock = trio.testing.MockClock


# -- the ask lane


async def test_an_actor_that_accepts_no_more_fills_its_lane_and_then_asks_wait(autojump_clock: Clock) -> None:
    """The waiting room fills first, then the lane, then callers wait outside: that is the backpressure."""
    spec = ChildSpec("a", clerk("a", room=2), mailbox=3)
    answers: list[object] = []
    async with tree(spec) as supervisor, trio.open_nursery() as nursery:
        ref = supervisor.ref("a", ClerkView)
        for number in range(9):
            nursery.start_soon(collect, answers, ref, Keep(str(number), until=5.0 + number))
        await quiet()
        lanes = lanes_of(supervisor)
    assert (lanes.kept, lanes.asks, lanes.asks_bound, lanes.senders_waiting) == (2, 3, 3, 4)
    assert sorted(map(str, answers)) == [str(number) for number in range(9)]


async def test_asks_are_received_in_the_order_in_which_they_were_sent(autojump_clock: Clock) -> None:
    """Those that wait outside a full lane come after those in it, each in its turn."""
    journal: list[str] = []
    made: list[Clerk] = []
    answers: list[object] = []
    async with tree(ChildSpec("a", clerk("a", journal, made, room=0), mailbox=2)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(collect, answers, ref, Echo(str(number)))
                await quiet()
            made[0].room = 1
            ref.tell(Told("go on"))
    echoed = [line for line in journal if line.startswith("echo")]
    assert echoed == [f"echo {number}" for number in range(6)]
    assert len(answers) == 6


async def test_ask_nowait_is_refused_at_once_where_the_lane_is_full(autojump_clock: Clock) -> None:
    """It names the actor, posts nothing, and takes no time."""
    answers: list[object] = []
    async with tree(ChildSpec("a", clerk("a", room=0), mailbox=1), drain_timeout=0) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, answers, ref, Echo())
            await quiet()
            with pytest.raises(MailboxFullError, match="wizard/a is full") as caught:
                await ref.ask_nowait(Echo())
            assert caught.value.actor == "wizard/a"
            assert lanes_of(supervisor).asks == 1
            assert trio.current_time() == 0
            nursery.cancel_scope.cancel()


async def test_ask_nowait_is_answered_where_there_is_room(autojump_clock: Clock) -> None:
    """Room in the lane is all it needs: the answer is waited for."""
    async with tree(ChildSpec("a", clerk("a"), mailbox=1)) as supervisor:
        assert await supervisor.ref("a", ClerkView).ask_nowait(Echo("hi")) == "hi"


async def test_an_answer_to_a_caller_that_is_let_in_and_served_in_one_turn_arrives(autojump_clock: Clock) -> None:
    """A caller that waited for room may be answered before its task has run again."""
    made: list[Clerk] = []
    answers: list[object] = []
    async with tree(ChildSpec("a", clerk("a", None, made, room=0), mailbox=1)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(collect, answers, ref, Echo("let in"))
            await quiet()
            made[0].room = 1
            ref.tell(Told("one turn serves all three"))
            await quiet()
            assert answers == ["let in"] * 3


# -- the return lane


class Witness(Actor):
    """Notes the order in which its lanes are served; receives no ask while it is not `open`, which a forget changes."""

    def __init__(self) -> None:
        self.open = True
        self.kept: list[Waiter] = []
        self.due = math.inf
        self.order: list[str] = []

    def accepting(self) -> bool:
        """Whether it is open."""
        return self.open

    def wake_at(self) -> float:
        """When it is due."""
        return self.due

    def tick(self, now: float) -> None:
        """Note it, once."""
        self.order.append("tick")
        self.due = math.inf

    def forget(self, waiter: Waiter, now: float) -> None:
        """Note it."""
        self.order.append("forget")
        self.open = True

    @handles(Keep)
    def keep(self, message: Keep, reply: Reply[str], now: float) -> None:
        """Keep it."""
        self.kept.append(reply)

    @handles(Rent)
    def rent(self, message: Rent, reply: Reply[Lease], now: float) -> None:
        """Grant it."""
        self.order.append("ask")
        reply.grant(Lease(len(self.order)))

    @takes_back(Vacate)
    def vacate(self, grant: Lease, message: Vacate, now: float) -> None:
        """Note it."""
        self.order.append("return")

    @hears(Told)
    def hear(self, message: Told, now: float) -> None:
        """Note it."""
        self.order.append("tell")

    @hears(Act)
    def act(self, message: Act, now: float) -> None:
        """Run the action."""
        message.action()


async def test_a_turn_serves_forgets_and_returns_then_what_is_due_then_tells_then_asks(autojump_clock: Clock) -> None:
    """The order is that of the lanes, whatever arrived first."""
    actor = Witness()
    answers: list[object] = []
    async with tree(ChildSpec("a", lambda _ledger, _carry: actor), drain_timeout=0) as supervisor:
        ref = supervisor.ref("a", object)
        lease = await ref.ask(Rent())

        def send() -> None:  # in the opposite order
            ref.tell(Told("news"))
            actor.due = trio.current_time()
            ref.give_back(lease, Vacate())
            ref._mailbox.forget(actor.kept[0])  # as its caller's task does that is cancelled

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, answers, ref, Keep())
            await quiet()
            actor.open = False
            nursery.start_soon(collect, answers, ref, Rent())
            await quiet()
            actor.order.clear()
            ref.tell(Act(send))
            await quiet()
            nursery.cancel_scope.cancel()
    assert actor.order == ["forget", "return", "tick", "tell", "ask"]


async def test_returns_reach_an_actor_that_accepts_no_asks(autojump_clock: Clock) -> None:
    """A full waiting room and a full lane keep nothing back that would empty them."""
    made: list[Garage] = []
    answers: list[object] = []
    async with tree(ChildSpec("a", garage(made, room=1), mailbox=1)) as supervisor:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(collect, answers, ref, Rent())
            await quiet()
            assert lanes_of(supervisor).senders_waiting == 2
            for served in range(1, 5):
                ref.give_back(lease, Vacate())
                await quiet()
                assert len(answers) == served
                latest = answers[-1]
                assert isinstance(latest, Lease)
                lease = latest
        ref.give_back(lease, Vacate())


async def test_a_thousand_returns_in_one_tick_all_arrive(autojump_clock: Clock) -> None:
    """The return lane never refuses: it is bounded by the grants that it settles."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made, places=1000), mailbox=1)) as supervisor:
        ref = supervisor.ref("a", int)
        leases = [await ref.ask(Rent()) for _ in range(1000)]

        def give_all_back() -> int:
            for lease in leases:
                ref.give_back(lease, Vacate())
            return lanes_of(supervisor).returns

        assert await ref.ask(Do(give_all_back)) == 1000
        await quiet()
        assert [lease for lease, _ in made[0].seen] == leases
        assert ref.published == 0
        assert lanes_of(supervisor).grants == 0


# -- the told lane


async def test_the_told_lane_drops_the_oldest_and_counts_it(autojump_clock: Clock) -> None:
    """Telling never waits; over the bound the oldest message is lost, and `tree` says how many were."""
    made: list[Clerk] = []
    async with tree(ChildSpec("a", clerk("a", None, made), tells=3)) as supervisor:
        ref = supervisor.ref("a", ClerkView)

        def tell_too_much() -> Lanes:
            for number in range(5):
                ref.tell(Told(str(number)))
            return lanes_of(supervisor)

        before = await ref.ask(Do(tell_too_much))
        await quiet()
        after = lanes_of(supervisor)
        assert made[0].heard == ["2", "3", "4"]
    assert isinstance(before, Lanes)
    assert (before.tells, before.tells_bound, before.dropped) == (3, 3, 2)
    assert (after.tells, after.dropped, after.handled) == (0, 2, 4)


async def test_telling_a_stopped_actor_does_nothing(autojump_clock: Clock) -> None:
    """Nothing piles up where nobody will ever read."""
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
    ref.tell(Told("too late"))
    assert lanes_of(supervisor).tells == 0


async def test_an_actor_that_tells_itself_goes_on_and_lets_others_run(autojump_clock: Clock) -> None:
    """A message told in the middle of a turn is heard in a later one, and every turn ends in a checkpoint."""
    made: list[Clerk] = []
    async with tree(ChildSpec("a", clerk("a", None, made))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        await ref.ask(Do(lambda: ref.tell(Told("to myself"))))
        await quiet()
        assert made[0].heard == ["to myself"]


# -- what it says of itself


def test_a_mailbox_counts_what_waits_in_it() -> None:
    """Also where nobody is there yet to read it."""
    mailbox = Mailbox("wizard/a", bound=1, tells=1)
    for grant in ("one", "two"):
        mailbox.ledger.enter(grant)
        mailbox.notify(grant, "news")
        mailbox.give_back(grant, "over")
    mailbox.tell("first")
    mailbox.tell("second")
    lanes = mailbox.lanes()
    assert (lanes.grants, lanes.returns, lanes.tells, lanes.dropped) == (2, 4, 1, 1)
    assert (mailbox.ledger.outstanding, mailbox.settled, mailbox.full) == (0, False, False)


def test_a_mailbox_says_how_full_it_is() -> None:
    """`lanes` shows depths and bounds of an untouched mailbox."""
    lanes = Mailbox("wizard/a", bound=7, tells=9).lanes()
    assert (lanes.asks, lanes.asks_bound, lanes.tells, lanes.tells_bound) == (0, 7, 0, 9)
    assert (lanes.returns, lanes.kept, lanes.grants, lanes.handled, lanes.dropped) == (0, 0, 0, 0, 0)


# -- whose task takes a turn


async def test_a_sleeping_actor_answers_in_the_step_in_which_it_is_asked(autojump_clock: Clock) -> None:
    """No change of tasks: what the caller has told before is heard first, and nobody else has run."""
    journal: list[str] = []
    async with tree(ChildSpec("a", clerk("a", journal))) as supervisor, trio.open_nursery() as nursery:
        ref = supervisor.ref("a", ClerkView)
        await quiet()
        nursery.start_soon(lambda: _note(journal, "somebody else"))
        ref.tell(Told("news"))
        await ref.ask(Echo())
        journal.append("answered")
    assert journal[1:5] == ["hear news", "echo hello", "answered", "somebody else"]


async def _note(journal: list[str], line: str) -> None:
    await trio.lowlevel.checkpoint()
    journal.append(line)


async def test_answers_that_are_there_at_once_keep_nobody_out_for_long(autojump_clock: Clock) -> None:
    """Of many asks in a row, every eighth lets others run."""
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await trio.lowlevel.checkpoint()

    async with tree(ChildSpec("a", clerk("a"))) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(80):
            await supervisor.ref("a", ClerkView).ask(Echo())
        nursery.cancel_scope.cancel()
    assert others >= 9


async def test_an_actor_that_answers_two_at_a_time_keeps_nobody_out_either(autojump_clock: Clock) -> None:
    """What counts are the asks in a row, whatever else their handlers answer."""
    others = 0

    class Two(Clerk):
        def echo(self, message: Echo, reply: Reply[str], now: float) -> None:
            """Answer, and try to once more."""
            super().echo(message, reply, now)
            reply.send("again")

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await trio.lowlevel.checkpoint()

    actor = Two()
    async with tree(ChildSpec("a", lambda _ledger, _carry: actor)) as supervisor, trio.open_nursery() as nursery:
        ref = supervisor.ref("a", ClerkView)
        await ref.ask(Do(lambda: None))  # an odd number of answers from here on
        nursery.start_soon(other)
        for _ in range(80):
            await ref.ask(Echo())
        nursery.cancel_scope.cancel()
    assert others >= 9


async def test_a_cancelled_caller_asks_nothing(autojump_clock: Clock) -> None:
    """The actor never hears of it."""
    made: list[Clerk] = []
    async with tree(ChildSpec("a", clerk("a", None, made))) as supervisor:
        with trio.CancelScope() as scope:
            scope.cancel()
            await supervisor.ref("a", ClerkView).ask(Echo())
        assert scope.cancelled_caught
        assert made[0].echoed == 0


async def test_an_answer_that_is_there_is_delivered_whatever_is_cancelled_meanwhile(autojump_clock: Clock) -> None:
    """A grant never goes to somebody who does not get it: the cancellation comes with the next wait."""
    made: list[Garage] = []
    held: list[Lease] = []
    async with tree(ChildSpec("a", garage(made, places=20))) as supervisor:
        ref = supervisor.ref("a", int)
        with trio.CancelScope() as scope:
            for _ in range(9):  # one of them lets others run before it returns
                made[0].after_grant = scope.cancel
                held.append(await ref.ask(Rent()))
        assert scope.cancelled_caught
        assert len(held) == len(made[0].live) == 1
        ref.give_back(held[0], Vacate())


async def test_a_crash_in_the_step_of_a_sender_is_the_actors_own(autojump_clock: Clock) -> None:
    """Who tells goes on, who asks learns of a crash, and the actor is started again."""

    def fail() -> None:
        raise BoomError("planted")

    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        ref.tell(Act(fail))
        assert supervisor.tree().children[0].error is None  # its own task has yet to find out
        await quiet()
        assert isinstance(ref.failure, BoomError)
        with pytest.raises(ActorCrashedError, match="planted"):
            await ref.ask(Do(fail))
        await trio.sleep(1)
        assert supervisor.tree().children[0].restarts == 2


async def test_what_a_turn_brings_forward_wakes_the_actor_in_time(autojump_clock: Clock) -> None:
    """An actor that slept without an end, and is told of something due in a second, does it in a second."""
    answers: list[object] = []
    async with tree(ChildSpec("a", clerk("a"))) as supervisor, trio.open_nursery() as nursery:
        ref = supervisor.ref("a", ClerkView)
        await quiet()
        nursery.start_soon(collect, answers, ref, Keep("in five", until=5.0))
        nursery.start_soon(collect, answers, ref, Keep("in one", until=1.0))
        await trio.sleep(1.0)
        await quiet()
        assert (answers, trio.current_time()) == (["in one"], 1.0)


async def test_a_listener_may_send_to_an_actor_that_publishes(autojump_clock: Clock) -> None:
    """The actor's turn is not taken in the middle of another event: it publishes after that."""
    heard: list[object] = []
    stream = EventStream()
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        await quiet()

        def listener(event: Event) -> None:
            heard.append(event)
            if len(heard) == 1:
                ref.tell(Act(lambda: stream.publish(Event(2.0))))

        stream.listen(listener)
        stream.publish(Event(1.0))
        assert heard == [Event(1.0)]
        await quiet()
        assert heard == [Event(1.0), Event(2.0)]
        assert (ref.failure, stream.listener_failures) == (None, 0)
