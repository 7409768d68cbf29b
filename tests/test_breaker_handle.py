"""The handle on a circuit breaker: what its permits tell of the calls made with them, and what it shows unasked."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wizard_actors.actor import Reply
from wizard_actors.breaker_core import BreakerState, Circuit, Permit
from wizard_actors.breaker_core import Turn as CircuitTurn
from wizard_actors.breaker_handle import Breaker
from wizard_actors.circuit_breaker import Admit, CircuitBreaker
from wizard_actors.config import BreakerConfig
from wizard_actors.errors import ActorCrashedError, ActorStoppedError, CircuitOpenError
from wizard_actors.supervisor import ChildSpec, GroupSpec, RestartPolicy, Supervisor

TWO = BreakerConfig(failure_threshold=2, open_for=30.0, success_threshold=2, half_open_probes=1)
ONE = BreakerConfig(failure_threshold=1, open_for=30.0, success_threshold=1, half_open_probes=1)


@contextlib.asynccontextmanager
async def breaker_of(
    config: BreakerConfig = TWO, policy: RestartPolicy | None = None
) -> AsyncIterator[tuple[Supervisor, Breaker]]:
    """Run one breaker, and hand out its handle; in the end nothing may be held."""
    spec = ChildSpec("breaker", CircuitBreaker.factory("a", config, rng=Random(1)))
    async with Supervisor(GroupSpec("shop", [spec], policy=policy or RestartPolicy()), rng=Random(1)) as tree:
        yield tree, Breaker(tree.ref("breaker", BreakerState))
        assert tree.outstanding == {}


async def settled(breaker: Breaker) -> BreakerState:
    """Return the state once all is quiet."""
    await wait_all_tasks_blocked()
    return breaker.state


async def call(breaker: Breaker, error: OSError | None = None) -> None:
    """Make a call that ends so."""
    with contextlib.suppress(OSError):
        async with breaker.permit():
            if error is not None:
                raise error
    await wait_all_tasks_blocked()


async def open_it(breaker: Breaker) -> None:
    """Let calls fail until the circuit is open."""
    while not breaker.is_open:
        await call(breaker, OSError("planted"))


async def test_what_raises_is_a_failure_and_what_ends_is_a_success(autojump_clock: MockClock) -> None:
    """The circuit opens, refuses without running the body, probes, and closes."""
    async with breaker_of() as (_, breaker):
        await call(breaker)
        await call(breaker, OSError("planted"))
        assert breaker.state.circuit is Circuit.CLOSED
        await call(breaker, OSError("planted"))
        assert breaker.is_open
        with pytest.raises(CircuitOpenError, match="a failed too often"):
            async with breaker.permit():
                pytest.fail("the body must not run")

        await trio.sleep(30.0)
        await call(breaker)
        await call(breaker)
        assert breaker.state.circuit is Circuit.CLOSED
        assert breaker.state.in_flight == 0


async def test_the_body_s_own_error_comes_out(autojump_clock: MockClock) -> None:
    """A guard reports, and hides nothing."""
    async with breaker_of() as (_, breaker):
        with pytest.raises(OSError, match="planted"):
            async with breaker.permit():
                raise OSError("planted")


async def test_a_cancelled_body_teaches_nothing(autojump_clock: MockClock) -> None:
    """A caller that loses patience neither opens the circuit nor closes it, and its place is free again."""
    async with breaker_of(ONE) as (_, breaker):
        with trio.move_on_after(1.0):
            async with breaker.permit():
                await trio.sleep_forever()
        await wait_all_tasks_blocked()
        assert breaker.state.circuit is Circuit.CLOSED

        await open_it(breaker)
        await trio.sleep(30.0)
        with trio.move_on_after(1.0):
            async with breaker.permit():
                await trio.sleep_forever()
        await wait_all_tasks_blocked()
        assert (breaker.state.circuit, breaker.state.probes_free) == (Circuit.HALF_OPEN, 1)


async def test_a_body_that_fails_as_it_is_cancelled_teaches_nothing(autojump_clock: MockClock) -> None:
    """A group of a cancellation and an error is a cancellation."""
    async with breaker_of(ONE) as (_, breaker):

        async def fails_in_the_end() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("closed too early")

        async def late() -> None:
            with trio.move_on_after(1.0):
                async with breaker.permit(), trio.open_nursery() as nursery:
                    nursery.start_soon(fails_in_the_end)
                    await trio.sleep_forever()

        with pytest.raises(ExceptionGroup):
            await late()
        await wait_all_tasks_blocked()
        assert breaker.state.circuit is Circuit.CLOSED


@pytest.mark.parametrize(
    ("error", "circuit"),
    [
        (ConnectionError("down"), Circuit.OPEN),
        (TimeoutError("late"), Circuit.OPEN),
        (ValueError("a bad question"), Circuit.CLOSED),
        (ExceptionGroup("both", [ValueError("a bad question"), ConnectionError("down")]), Circuit.OPEN),
        (ExceptionGroup("one", [ValueError("a bad question")]), Circuit.CLOSED),
        (SystemExit(1), Circuit.CLOSED),
    ],
)
async def test_only_the_failures_that_are_named_count(
    error: BaseException, circuit: Circuit, autojump_clock: MockClock
) -> None:
    """Any other exception teaches nothing: it is not the callee's doing."""
    async with breaker_of(ONE) as (_, breaker):
        with pytest.raises(type(error)):
            async with breaker.permit(failures=(ConnectionError, TimeoutError)):
                raise error
        await wait_all_tasks_blocked()
        assert breaker.state.circuit is circuit
        assert breaker.state.in_flight == 0


@pytest.mark.parametrize("error", [None, OSError("planted")])
async def test_an_ignored_call_teaches_nothing(error: OSError | None, autojump_clock: MockClock) -> None:
    """However it ends; and its probe's place is free again."""
    async with breaker_of(ONE) as (_, breaker):
        await open_it(breaker)
        await trio.sleep(30.0)
        with contextlib.suppress(OSError):
            async with breaker.permit() as permit:
                permit.ignore()
                if error is not None:
                    raise error
        await wait_all_tasks_blocked()
        assert (breaker.state.circuit, breaker.state.probes_free) == (Circuit.HALF_OPEN, 1)


@pytest.mark.parametrize(
    "failures", [OSError, [ConnectionError, OSError], {OSError}, (each for each in (ValueError, OSError))]
)
async def test_failures_may_be_one_class_or_any_number(
    failures: type[Exception] | Iterable[type[Exception]], autojump_clock: MockClock
) -> None:
    """However they are put together, they count, and the permit comes back."""
    async with breaker_of(ONE) as (_, breaker):
        with pytest.raises(OSError, match="planted"):
            async with breaker.permit(failures=failures):
                raise OSError("planted")
        await wait_all_tasks_blocked()
        assert (breaker.state.circuit, breaker.state.in_flight) == (Circuit.OPEN, 0)


@pytest.mark.parametrize("failures", [None, 500, "OSError", [OSError, "ValueError"], int, BaseException, (SystemExit,)])
async def test_failures_that_are_no_exceptions_are_refused_at_once(failures: object, autojump_clock: MockClock) -> None:
    """Before there is a permit to lose; nor may anybody count cancellations."""
    async with breaker_of() as (_, breaker):
        with pytest.raises(TypeError, match="failures has to be classes of Exception"):
            breaker.permit(failures=failures)  # type: ignore[arg-type]  # that is the point
        await wait_all_tasks_blocked()
        assert breaker.state == BreakerState()


async def test_no_permit_is_lost_where_an_outcome_cannot_be_told(autojump_clock: MockClock) -> None:
    """A class whose instances cannot be told breaks the report: its probe's place is free again all the same."""

    class Moody(type):
        def __instancecheck__(cls, instance: object) -> bool:
            raise RuntimeError("ask me later")

    class Mood(Exception, metaclass=Moody):  # noqa: N818 - no error of the project
        pass

    async with breaker_of(ONE) as (_, breaker):
        await open_it(breaker)
        await trio.sleep(30.0)
        with pytest.raises(RuntimeError, match="ask me later"):
            async with breaker.permit(failures=Mood):
                raise OSError("planted")
        await wait_all_tasks_blocked()
        assert (breaker.state.circuit, breaker.state.probes_free) == (Circuit.HALF_OPEN, 1)


async def test_a_stream_that_has_begun_keeps_no_place(autojump_clock: MockClock) -> None:
    """It says so once the first of it is there: others probe beside it, and its own end counts as ever."""
    async with breaker_of(TWO) as (_, breaker):
        await open_it(breaker)
        await trio.sleep(30.0)
        async with breaker.permit() as stream:
            assert breaker.is_open
            stream.heard()
            stream.heard()
            await call(breaker)
            assert (breaker.state.circuit, breaker.state.probes_free) == (Circuit.HALF_OPEN, 1)
            await trio.sleep(90.0)
        stream.heard()  # too late to matter
        await wait_all_tasks_blocked()
        assert (breaker.state.circuit, breaker.state.in_flight) == (Circuit.CLOSED, 0)


def turning(monkeypatch: pytest.MonkeyPatch, turn: Callable[[CircuitBreaker, float], None]) -> None:
    """Have the circuit turn once, after the first permit was granted and before its caller resumes."""
    admit = CircuitBreaker.admit
    turns = [turn]

    def patched(self: CircuitBreaker, message: Admit, reply: Reply[Permit], now: float) -> None:
        admit(self, message, reply, now)
        if turns:
            turns.pop()(self, now)

    monkeypatch.setattr(CircuitBreaker, "admit", patched)


async def test_no_body_begins_once_the_circuit_has_opened(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens between the grant and the step in which the caller resumes: the permit is worth nothing."""
    turning(monkeypatch, lambda actor, now: actor._core._open(CircuitTurn.TRIPPED, now))
    async with breaker_of() as (_, breaker):
        with pytest.raises(CircuitOpenError):
            async with breaker.permit():
                pytest.fail("the body must not run")
        await wait_all_tasks_blocked()
        assert (breaker.state.circuit, breaker.state.in_flight) == (Circuit.OPEN, 0)


async def test_a_permit_of_before_the_closing_is_changed_for_a_new_one(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The circuit closes in that step: no reason to refuse the call, and its outcome counts."""

    def close(actor: CircuitBreaker, now: float) -> None:
        actor._core._open(CircuitTurn.TRIPPED, now)
        actor._core._turn(CircuitTurn.DUE)
        actor._core._turn(CircuitTurn.RECOVERED)

    turning(monkeypatch, close)
    async with breaker_of(ONE) as (_, breaker):
        await call(breaker, OSError("planted"))
        assert breaker.state.circuit is Circuit.OPEN
        assert (breaker.state.admitted, breaker.state.in_flight) == (2, 0)


async def test_a_permit_is_for_one_call(autojump_clock: MockClock) -> None:
    """Whoever enters it again is told so: two calls on one permit would leak one."""
    async with breaker_of() as (_, breaker):
        permit = breaker.permit()
        async with permit:
            with pytest.raises(RuntimeError, match="shop/breaker is for one call"):
                async with permit:
                    pytest.fail("the body must not run")
        with pytest.raises(RuntimeError, match="for one call"):
            async with permit:
                pytest.fail("the body must not run")
        await wait_all_tasks_blocked()
        assert breaker.state.in_flight == 0


async def test_fifty_tasks_make_one_probe(autojump_clock: MockClock) -> None:
    """Unlimited probes would be the outage's last straw."""
    async with breaker_of(ONE) as (_, breaker):
        await open_it(breaker)
        await trio.sleep(30.0)
        ran: list[int] = []

        async def probe(number: int) -> None:
            with contextlib.suppress(CircuitOpenError):
                async with breaker.permit():
                    ran.append(number)
                    assert breaker.is_open
                    await trio.sleep(1.0)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(probe, number)
        await wait_all_tasks_blocked()
        assert len(ran) == 1
        assert breaker.state.circuit is Circuit.CLOSED


async def test_a_caller_without_permits_opens_and_closes_it(autojump_clock: MockClock) -> None:
    """`is_open`, then the call, then how it went: no message waits for an answer."""
    async with breaker_of() as (_, breaker):
        for _ in range(2):
            breaker.record_failure()
        assert (await settled(breaker)).circuit is Circuit.OPEN
        await trio.sleep(30.0)
        assert not breaker.is_open  # somebody has to try
        breaker.record_success()
        breaker.record_success()
        assert (await settled(breaker)).circuit is Circuit.CLOSED


async def test_a_handle_is_good_over_restarts(autojump_clock: MockClock) -> None:
    """A call that was on its way as the breaker crashed is fenced, and the next one is counted."""
    async with breaker_of() as (tree, breaker):
        async with breaker.permit():
            tree.kill("breaker", RuntimeError("planted"))
            await wait_all_tasks_blocked()
        await call(breaker, OSError("planted"))
        assert breaker.state.circuit is Circuit.OPEN  # after a crash, one failure is enough


async def test_a_breaker_that_is_down_lets_nobody_begin(autojump_clock: MockClock) -> None:
    """Whoever wants a permit learns that there is no guard; what is recorded waits for it."""
    async with breaker_of(policy=RestartPolicy(max_restarts=0)) as (tree, breaker):
        tree.kill("breaker", RuntimeError("planted"))
        await wait_all_tasks_blocked()
        with pytest.raises(ActorCrashedError):
            async with breaker.permit():
                pytest.fail("the body must not run")
        breaker.record_failure()
        assert not breaker.is_open


async def test_after_its_tree_has_stopped_a_handle_is_harmless(autojump_clock: MockClock) -> None:
    """It still shows the last state, refuses permits, and takes what is recorded for nothing."""
    async with breaker_of() as (_, breaker):
        assert repr(breaker) == "<Breaker shop/breaker closed>"
    breaker.record_failure()
    assert not breaker.is_open
    with pytest.raises(ActorStoppedError):
        async with breaker.permit():
            pytest.fail("the body must not run")


async def test_before_its_start_a_breaker_is_closed(autojump_clock: MockClock) -> None:
    """Nothing has been published, and nothing has failed."""
    tree = Supervisor(GroupSpec("shop", [ChildSpec("breaker", CircuitBreaker.factory("a", TWO))]))
    breaker = Breaker(tree.ref("breaker", BreakerState))
    assert not breaker.is_open
    assert breaker.state == BreakerState()
