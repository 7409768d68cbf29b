"""The traps of actor runtimes, Trio, circuit breakers, rate limiters and retries: what made others fail.

Each test is named after its trap, and says where that was seen. Where a test of the module concerned meets the trap
already, it stands in this table instead:

    a lossy or endless mailbox (Pekko, OTP, Pykka)
        tests/test_mailbox.py::test_an_actor_that_accepts_no_more_fills_its_lane_and_then_asks_wait
    a return that a full lane refuses
        tests/test_mailbox.py::test_a_thousand_returns_in_one_tick_all_arrive
    a failed start leaves a zombie
        tests/test_supervisor_starts.py::test_a_start_that_fails_is_a_crash
    restarts without a backoff (OTP)
        tests/test_supervisor_restarts.py::test_only_the_first_restart_is_immediate
    a queue lost where a whole group restarts (kameo #335)
        tests/test_supervisor_groups.py::test_queues_below_a_group_that_restarts_at_once_are_kept
    an actor that waits for itself (Pykka #76)
        tests/test_mailbox.py::test_an_actor_that_tells_itself_goes_on_and_lets_others_run
    Trio: a start that never says that it is ready
        tests/test_supervisor_starts.py::test_a_start_that_takes_too_long_is_a_crash
    Trio: a child cancelled before it has started
        tests/test_supervisor_stop.py::test_a_start_that_has_not_begun_when_the_stop_comes_never_begins
    the same, by its removal
        tests/test_supervisor_removal.py::test_a_child_removed_while_it_starts_is_not_waited_for
    Trio #1521: services die beside their clients
        tests/test_supervisor_stop.py::test_grants_come_back_from_a_body_that_is_cancelled
    the same, in order
        tests/test_supervisor_stop.py::test_a_body_that_is_cancelled_leaves_by_the_ordered_stop
    Trio: a shielded tree hangs on Ctrl-C
        tests/test_supervisor_interrupt.py::test_ctrl_c_in_the_body_stops_the_tree_in_order
    Trio: closing drops silently what is buffered
        tests/test_supervisor_asks.py::test_every_unanswered_ask_fails_as_soon_as_stopping_begins
    a supervisor gives up and its body goes on
        tests/test_supervisor_failures.py::test_a_root_that_gives_up_cancels_the_body_and_raises_from_the_cause
    unlimited probes (hyx: 50 of 50)
        tests/test_breaker_handle.py::test_fifty_tasks_make_one_probe
    open times on the wall clock
        tests/test_circuit_breaker.py::test_open_times_are_not_the_wall_clocks
    a call of before the opening decides (gobreaker)
        tests/test_breaker_core.py::test_what_began_before_the_circuit_opened_neither_closes_nor_reopens_it
    a permit leaked by a cancelled caller
        tests/test_circuit_breaker.py::test_no_permit_is_leaked_however_its_caller_ends
    a probe that holds its place for as long as its stream lasts
        tests/test_breaker_core.py::test_a_probe_that_streams_for_minutes_keeps_nobody_waiting
    a place that a probe which was heard of keeps for ever
        tests/test_breaker_core.py::test_heard_probes_that_end_without_a_verdict_leak_no_place
    a permit lost where an outcome cannot be told
        tests/test_breaker_handle.py::test_no_permit_is_lost_where_an_outcome_cannot_be_told
    a rate of two calls trips (Polly's minimum)
        tests/test_breaker_core.py::test_a_rate_needs_enough_calls
    fixed windows (resilience4j)
        tests/test_gcra.py::test_fixed_windows_let_twice_the_rate_through_at_a_boundary
    a heap ordered by amount (aiolimiter)
        tests/test_gcra.py::test_a_heap_ordered_by_amount_starved_an_8_unit_waiter_behind_1_unit_ones_for_4_s
    callers asleep until a time told once (40 waiters: 39 s)
        tests/test_rate_limit.py::test_those_behind_one_who_leaves_move_up
    an interrupted waiter is not refunded
        tests/test_limiter_handle.py::test_a_cancelled_wait_costs_nothing
    a refund of what others already took (x/time/rate)
        tests/test_gcra.py::test_a_late_refund_is_worth_what_nobody_else_got_the_use_of
    waiting for what comes too late (x/time/rate)
        tests/test_limiter_handle.py::test_whoever_would_wait_too_long_is_told_at_once
    a float balance is not there when it said
        properties/test_gcra.py::test_a_request_is_always_there_when_the_bucket_says
    clamping after jitter
        tests/test_retry.py::test_clamping_after_jitter_would_remove_it_at_the_cap
    retries multiply an outage (Finagle, gRPC)
        tests/test_pipeline.py::test_an_exhausted_budget_stops_retries_and_not_fallbacks
    hedges beside the budget
        tests/test_race.py::test_a_hedge_is_paid_from_the_retry_budget
    a quantile of too few samples (Polly, failsafe-go)
        tests/test_plan.py::test_hedges_start_after_the_first_models_quantile_once_it_is_known
    latency follows the answer's length
        tests/test_race.py::test_a_long_answer_that_has_begun_is_not_late
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections import Counter
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

import wizard_actors
from tests.kernel_actors import (
    Act,
    BoomError,
    Clerk,
    ClerkView,
    Echo,
    Keep,
    Told,
    clerk,
    collect,
    crash,
    crash_with,
    fragile,
    quiet,
    tree,
)
from tests.models import (
    SILENT,
    Scripted,
    Turn,
    assert_nothing_held,
    breaker,
    client_of,
    fails,
    limiter,
    model,
    says,
)
from wizard_actors import (
    ActorCrashedError,
    ContentFilterError,
    DeadlineExceededError,
    InvalidPromptError,
    MailboxFullError,
    NetworkError,
    RateLimitError,
    RequestError,
    WizardError,
)
from wizard_actors.actor import Actor, ActorRef, Ask, Reply, Waiter, handles
from wizard_actors.breaker_core import Circuit
from wizard_actors.config import BreakerConfig, RetryConfig
from wizard_actors.event_stream import EventStream
from wizard_actors.specs import ActorChanged, ChildSpec, Factory, GroupSpec, State, TreeNode
from wizard_actors.supervisor import RestartPolicy, Supervisor

ONCE = RetryConfig(max_attempts=1)
DOWN_AT_ONCE = RestartPolicy(max_restarts=0)


def node(supervisor: Supervisor, name: str = "a") -> TreeNode:
    """Return the node called `name`."""
    return next(node for node in supervisor.tree().walk() if node.name == name)


def given(actor: Actor) -> Factory:
    """Return a factory of this one actor."""
    return lambda _ledger, _carry: actor


# -- actors ------------------------------------------------------------------------------------------------------------


async def test_a_crash_never_leaves_its_asker_hanging(autojump_clock: MockClock) -> None:
    """Seen in triotp 0.3.1: whoever had asked an actor that crashed waited for ever."""
    answers: list[object] = []
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        with trio.fail_after(1):
            async with trio.open_nursery() as askers:
                askers.start_soon(collect, answers, ref, Keep("kept by the actor"))
                await quiet()
                with pytest.raises(ActorCrashedError) as caught:
                    await ref.ask(crash_with(BoomError("planted")))

    assert isinstance(caught.value.__cause__, BoomError)
    assert [type(answer) for answer in answers] == [ActorCrashedError]


async def answers_of(ref: ActorRef[ClerkView], *asks: Ask[object]) -> list[object]:
    """Queue the asks in this order at a clerk with room for one, which is busy until 1 s; return its answers."""
    answers: list[object] = []
    with trio.move_on_after(1.5):
        async with trio.open_nursery() as askers:
            for ask in (Keep("busy", until=trio.current_time() + 1), *asks):
                askers.start_soon(collect, answers, ref, ask)
                await quiet()
    return answers


async def test_a_crash_does_not_destroy_the_mailbox(autojump_clock: MockClock) -> None:
    """Seen in triotp 0.3.1 and OTP: what was queued behind a crash was lost with the process."""
    async with tree(ChildSpec("a", clerk("a", room=1))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        answers = await answers_of(ref, crash_with(BoomError("planted")), Echo("one"), Echo("two"))

        assert node(supervisor).restarts == 1
        assert {answer for answer in answers if isinstance(answer, str)} == {"busy", "one", "two"}


class Slow(Clerk):
    """Answers all that it was ever asked, also who has long gone."""

    def forget(self, waiter: Waiter, now: float) -> None:
        """Keep the reply all the same."""


async def test_a_late_reply_does_not_crash_the_server(autojump_clock: MockClock) -> None:
    """Seen in triotp: the reply to a caller whose timeout had passed crashed the server."""
    made: list[Slow] = []

    def factory(_ledger: object, _carry: object) -> Actor:
        made.append(Slow())
        return made[-1]

    async with tree(ChildSpec("a", factory)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        with pytest.raises(DeadlineExceededError):
            await ref.ask(Keep("late", until=5.0), deadline=1.0)
        await trio.sleep(9)

        assert made[0].ticks == [5.0]
        assert (node(supervisor).state, node(supervisor).restarts) == (State.RUNNING, 0)
        assert await ref.ask(Echo()) == "hello"


async def test_a_timeout_covers_the_wait_for_room(autojump_clock: MockClock) -> None:
    """Seen in triotp: the timeout began once the message was in the mailbox, and 1 s took 31 s."""
    async with tree(ChildSpec("a", clerk("a", room=1), mailbox=1)) as supervisor, trio.open_nursery() as askers:
        ref = supervisor.ref("a", ClerkView)
        for text in ("kept", "in the lane", "waits for room"):
            askers.start_soon(collect, [], ref, Keep(text))
        await quiet()

        with pytest.raises(DeadlineExceededError):
            await ref.ask(Echo(), deadline=1.0)
        assert trio.current_time() == 1.0
        askers.cancel_scope.cancel()


class Broken(Clerk):
    """Neither starts nor stops."""

    async def start(self) -> None:
        """Fail."""
        raise BoomError("no file")

    async def stop(self) -> None:
        """Fail."""
        raise BoomError("nothing to close")


async def test_a_failing_start_is_neither_masked_nor_a_zombie(autojump_clock: MockClock) -> None:
    """Seen in triotp: the clean-up's own error hid why a start had failed, or a dead child stayed addressable."""
    spec = GroupSpec("wizard", [ChildSpec("a", lambda _ledger, _carry: Broken())], policy=DOWN_AT_ONCE)
    async with Supervisor(spec) as supervisor:
        await quiet()
        assert (node(supervisor).state, node(supervisor).error) == (State.DOWN, "BoomError: no file")
        with trio.fail_after(1), pytest.raises(ActorCrashedError) as caught:
            await supervisor.ref("a", ClerkView).ask(Echo())
        assert str(caught.value.__cause__) == "no file"


async def test_what_is_queued_at_a_give_up_is_not_lost(autojump_clock: MockClock) -> None:
    """Seen in kameo #335: messages in the queue of an actor that was given up vanished without a word."""
    spec = GroupSpec("wizard", [ChildSpec("a", clerk("a", room=1))], policy=DOWN_AT_ONCE)
    async with Supervisor(spec) as supervisor:
        answers = await answers_of(supervisor.ref("a", ClerkView), crash_with(BoomError("planted")), *[Echo()] * 5)

        assert node(supervisor).state is State.DOWN
        assert Counter(map(type, answers)) == {str: 1, ActorCrashedError: 6}


def actors() -> Iterator[type[Actor]]:
    """Yield every class of actors in the package."""
    for module in pkgutil.walk_packages(wizard_actors.__path__, "wizard_actors."):
        if module.name != "wizard_actors.__main__":
            importlib.import_module(module.name)
    found = [Actor]
    for kind in found:
        found += kind.__subclasses__()
    yield from (kind for kind in found[1:] if kind.__module__.startswith("wizard_actors."))


def test_no_actor_can_wait_for_itself_or_for_another() -> None:
    """Seen in Pykka #76, and on bounded channels anywhere: a self-ask, or two actors asking each other, hung for ever.

    Handlers are plain functions: none of them can wait for an answer.
    """
    kinds = list(actors())
    assert len(kinds) >= 5
    for kind in kinds:
        for name in [name for table in kind._handlers.values() for name in table.values()]:
            assert not inspect.iscoroutinefunction(getattr(kind, name)), f"{kind.__name__}.{name} may wait"


class Player(Clerk):
    """Tells the other one twice of everything that it hears, until it has heard enough."""

    other: ActorRef[ClerkView]

    def hear(self, message: Told, now: float) -> None:
        """Return the ball."""
        super().hear(message, now)
        if len(self.heard) < 1000:
            self.other.tell(message)
            self.other.tell(message)


async def test_two_actors_that_flood_each_other_do_not_hang(autojump_clock: MockClock) -> None:
    """Seen on bounded channels anywhere: both were full, and each waited for room in the other."""
    players = {name: Player(name) for name in ("a", "b")}
    specs = [ChildSpec(name, given(player), mailbox=1, tells=1) for name, player in players.items()]
    async with tree(*specs) as supervisor:
        a, b = (supervisor.ref(name, ClerkView) for name in ("a", "b"))
        players["a"].other, players["b"].other = b, a
        a.tell(Told("ball"))

        with trio.fail_after(1):
            assert [await a.ask(Echo("a")), await b.ask(Echo("b"))] == ["a", "b"]
            await quiet()
        # One of them plays while the other is in the middle of a turn, and hears twice as much.
        assert sorted(len(player.heard) // 499 for player in players.values()) == [1, 2]


async def test_a_full_mailbox_does_not_kill_the_sender(autojump_clock: MockClock) -> None:
    """Seen in actor-ts #919: sending to a full mailbox raised in the sender, which crashed for another's slowness."""
    async with tree(ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b", room=1), mailbox=1, tells=2)) as supervisor:
        a, b = (supervisor.ref(name, ClerkView) for name in ("a", "b"))

        def send_many() -> None:
            for number in range(100):
                b.tell(Told(str(number)))

        async with trio.open_nursery() as askers:
            for ask in (Keep("busy", until=1.0), Echo()):
                askers.start_soon(collect, [], b, ask)
                await quiet()
            b.tell(Act(lambda: a.tell(Act(send_many))))  # `a` sends while `b` is in the middle of a turn
            with pytest.raises(MailboxFullError):
                await b.ask_nowait(Echo())
        await quiet()

        assert [node(supervisor, name).restarts for name in ("a", "b")] == [0, 0]
        lanes = node(supervisor, "b").lanes
        assert lanes is not None
        assert lanes.dropped == 98
        assert b.published == ClerkView(1, ("98", "99"), 0)


class Restless(Clerk):
    """Crashes a second after each start."""

    def wake_at(self) -> float:
        """In a second."""
        return self.born + 1

    def tick(self, now: float) -> None:
        """Crash."""
        raise BoomError("planted")

    async def start(self) -> None:
        """Note when."""
        self.born = trio.current_time()


async def test_a_crash_loop_is_not_silent(autojump_clock: MockClock) -> None:
    """Seen in actor-ts #916: an actor crashed and was restarted for ever, and nobody was told."""
    events = EventStream()
    spec = GroupSpec("wizard", [ChildSpec("a", lambda _ledger, _carry: Restless())])
    with events.subscribe() as told:
        async with Supervisor(spec, events=events) as supervisor:
            await trio.sleep(59)
            assert (node(supervisor).state, node(supervisor).error) == (State.DOWN, "BoomError: planted")
        changes = [event for event in told.drain() if isinstance(event, ActorChanged)]

    crashes = [change for change in changes if change.state is State.BACKOFF]
    assert {change.error for change in crashes} == {"BoomError: planted"}
    assert len(crashes) >= 3
    assert [change.error for change in changes if change.state is State.DOWN] == ["BoomError: planted"]


# -- Trio --------------------------------------------------------------------------------------------------------------


async def test_a_crash_cancels_no_sibling(autojump_clock: MockClock) -> None:
    """Seen in any plain nursery: the first child that raises cancels all others."""
    made: list[Clerk] = []
    answers: list[object] = []
    async with tree(ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b", None, made))) as supervisor:
        async with trio.open_nursery() as askers:
            askers.start_soon(collect, answers, supervisor.ref("b", ClerkView), Keep("kept", until=5.0))
            await quiet()
            for _ in range(9):
                await crash(supervisor.ref("a", ClerkView))
        assert (answers, len(made), trio.current_time()) == (["kept"], 1, 5.0)


async def test_a_cancellation_during_a_start_does_not_hang(autojump_clock: MockClock) -> None:
    """Seen in Trio #2544 and #2895: `nursery.start` of a shielded child, cancelled from outside, hung for ever."""
    journal: list[str] = []
    never_up = ChildSpec("b", fragile("b", journal, 9999.0), start_timeout=4)
    with trio.move_on_after(1) as scope:
        async with tree(ChildSpec("a", clerk("a", journal)), never_up):
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert trio.current_time() == 4
    assert journal[:3] == ["start a", "start b", "stop b"]
    assert journal[-1] == "stop a"


# -- breakers ----------------------------------------------------------------------------------------------------------


PROBING = BreakerConfig(failure_threshold=1, open_for=30.0, success_threshold=1, half_open_probes=1)
BUSY = NetworkError("planted", model="a")


async def test_a_cancelled_call_is_no_failure(autojump_clock: MockClock) -> None:
    """Seen in resilience4j #682: callers who lost patience opened the circuit to everybody else."""
    a = Scripted(Turn((100.0,)))
    async with client_of(a, model(breaker=PROBING)) as client:
        for _ in range(20):
            with trio.move_on_after(1):
                await client.generate("Why?")

        state = await breaker(client)
        assert (len(a.calls), state.circuit, state.failures) == (20, Circuit.CLOSED, 0)


async def test_a_cancelled_probe_neither_closes_nor_leaks(autojump_clock: MockClock) -> None:
    """Seen in Polly and hyx, where it closed the circuit, and in resilience4j #903, where its place was gone."""
    a = Scripted(fails(BUSY), SILENT, says("well"))
    async with client_of(a, model(breaker=PROBING, retry=ONCE)) as client:
        with pytest.raises(NetworkError):
            await client.generate("Why?")
        await trio.sleep(30)
        with trio.move_on_after(1):
            await client.generate("Why?")

        state = await breaker(client)
        assert (state.circuit, state.probes_free, state.in_flight) == (Circuit.HALF_OPEN, 1, 0)
        assert (await client.generate("Why?")).text == "well"
        assert (await breaker(client)).circuit is Circuit.CLOSED


NEUTRAL: list[Turn] = [
    fails(RateLimitError("429", model="a")),
    fails(ContentFilterError("no", model="a")),
    fails(InvalidPromptError("empty")),
    fails(RequestError("400", model="a", status=400)),
    fails(ZeroDivisionError("a bug of the provider's")),
    Turn(head=RateLimitError("429", model="a")),
]


@pytest.mark.parametrize("turn", NEUTRAL, ids=lambda turn: repr(turn.steps or turn.head)[:30])
async def test_a_neutral_probe_neither_closes_nor_leaks(autojump_clock: MockClock, turn: Turn) -> None:
    """Seen in resilience4j #903, #935 and #542: permits that never came back left the circuit half-open for ever."""
    a = Scripted(fails(BUSY), turn, says("well"))
    async with client_of(a, model(breaker=PROBING, retry=ONCE)) as client:
        with pytest.raises(NetworkError):
            await client.generate("Why?")
        await trio.sleep(30)
        with pytest.raises(WizardError):
            await client.generate("Why?")

        state = await breaker(client)
        assert (state.circuit, state.probes_free, state.in_flight) == (Circuit.HALF_OPEN, 1, 0)
        assert (await client.generate("Why?")).text == "well"
        await assert_nothing_held(client, a)


# -- limits and retries ------------------------------------------------------------------------------------------------


async def test_long_answers_slow_nothing_down(autojump_clock: MockClock) -> None:
    """Seen in adaptive concurrency on total latency: a language model takes as long as its answer is."""
    a = Scripted(says("once"), says("once ", 20.0, "upon ", 20.0, "a ", 20.0, "time"))
    async with client_of(a) as client:
        for _ in range(20):
            await client.generate("Why?")

        state, circuit = await limiter(client), await breaker(client)
        assert (state.interval, state.throttled, circuit.failures) == (0.0, 0, 0)
        assert trio.current_time() == 19 * 60


def test_an_async_handler_is_refused_when_its_class_is_made() -> None:
    """Seen in Pykka #76: a handler that waits for its own actor waits for ever; so would whoever had asked it."""
    with pytest.raises(TypeError, match="is async"):

        class Waiting(Actor):
            @handles(Echo)  # type: ignore[arg-type]  # what an untyped program may write
            async def echo(self, message: Echo, reply: Reply[str], now: float) -> None:
                reply.send("never")
