"""The easy way to guard anything with a circuit breaker: a handle on its actor.

breaker = Breaker(supervisor.ref("breaker", BreakerState))
async with breaker.permit():
    await fetch()
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

import trio

from wizard_actors.actor import ActorRef
from wizard_actors.breaker_core import BreakerState, Permit
from wizard_actors.circuit_breaker import Admit, Ended, Heard, RecordFailure, RecordSuccess
from wizard_actors.verdict import Outcome

__all__ = ["Breaker", "PermitScope"]


RUN_IT_THERE: Final = (
    "put the whole block into an async function, and `await client.run(function)`, or `client.run(function)` of a "
    "BlockingClient"
)


class Breaker:
    """A handle on the `CircuitBreaker` at `ref`, good over all of its restarts; share it among any number of tasks.

    A permit is entered in the Trio run of the breaker's tree. All the rest works from any thread and event loop.

    `permit` is the whole protection: at most the configured number of probes, and no call that began before a
    transition counts after it. Code that cannot hold a permit looks at `is_open`, calls, and says how that went; what
    it records counts as `RecordSuccess` says, and any number of such callers may probe at once.
    """

    def __init__(self, ref: ActorRef[BreakerState]) -> None:
        self._ref = ref

    @property
    def state(self) -> BreakerState:
        """The breaker's last published state: no message, no wait."""
        return self._ref.published or BreakerState()

    @property
    def is_open(self) -> bool:
        """Whether a call would be refused at this instant, from `state` alone.

        False as soon as an open circuit is due: somebody has to try. True again while its probes' places are taken.
        """
        published = self._ref.published
        return published is not None and not published.allows(self._ref.now)

    def record_success(self) -> None:
        """Say that a call without a permit succeeded. Never waits; the oldest unread one is dropped in a flood."""
        self._ref.tell(RecordSuccess())

    def record_failure(self) -> None:
        """Say that a call without a permit failed. Never waits; the oldest unread one is dropped in a flood."""
        self._ref.tell(RecordFailure())

    def permit(self, *, failures: type[Exception] | Iterable[type[Exception]] = Exception) -> PermitScope:
        """Return an async context manager for one call; see `PermitScope`.

        `failures` are the exceptions that count against what is guarded, one class or several; any other one teaches
        nothing. An exception group counts where any of its parts does. Raises `TypeError`, at once, where `failures`
        holds something else than classes of `Exception`: a cancellation or Ctrl-C counts against nobody.
        """
        return PermitScope(self._ref, _classes(failures))

    def __repr__(self) -> str:
        return f"<Breaker {self._ref.path} {self.state.circuit}>"


class PermitScope:
    """Leave to make one call, and its report: `async with breaker.permit() as permit: ...`.

    Entering asks for the permit and raises `CircuitOpenError` where there is none, `ActorCrashedError` where the
    breaker itself is not running, `ActorStoppedError` once its tree is stopping; the body has not begun then. A permit
    is honoured in the very step in which the body begins: had the circuit opened between the grant and that step, it
    is given back and the circuit asked again. In another thread or event loop than the tree's it raises
    `UnsupportedError`, and can still be entered where it belongs.

    Leaving gives the permit back, exactly once: a body that ends well is a success, one that raises a failure; one that
    is cancelled teaches nothing, and so does any other `BaseException` that is no `Exception`. Bound the body in time:
    a probe that hangs keeps its place. One that goes on for long though it has been answered, such as a stream, calls
    `heard`.
    """

    def __init__(self, ref: ActorRef[BreakerState], failures: tuple[type[Exception], ...]) -> None:
        self._ref = ref
        self._failures = failures
        self._permit: Permit | None = None
        self._used = False
        self._ignored = False

    def heard(self) -> None:
        """Say that the first of the answer is there, though the call goes on: its place is free for another probe.

        Never waits. The call counts by how it ends, as ever. Matters of probes only; does nothing outside the block.
        """
        if self._permit is not None:
            self._ref.notify(self._permit, Heard())

    def ignore(self) -> None:
        """Let the breaker learn nothing from this call, however it ends: what happened was not the callee's doing."""
        self._ignored = True

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        if self._used:
            raise RuntimeError(f"a permit of {self._ref.path} is for one call: ask for another one")
        self._ref.check_here(RUN_IT_THERE)
        self._used = True
        while True:
            permit = await self._ref.ask(Admit())
            state = self._ref.published
            if state is not None and state.honours(permit):
                self._permit = permit
                return self
            self._ref.give_back(permit, Ended(Outcome.IGNORED))

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        permit, self._permit = self._permit, None
        outcome = Outcome.IGNORED
        try:
            outcome = self._outcome(error)
        finally:  # a class may have its own, broken idea of what its instances are
            if permit is not None:
                self._ref.give_back(permit, Ended(outcome))

    def _outcome(self, error: BaseException | None) -> Outcome:
        if self._ignored:
            return Outcome.IGNORED
        if error is None:
            return Outcome.SUCCESS
        return Outcome.FAILURE if _counts(error, self._failures) else Outcome.IGNORED


def _classes(failures: object) -> tuple[type[Exception], ...]:
    given = failures if isinstance(failures, Iterable) and not isinstance(failures, type) else (failures,)
    classes: list[type[Exception]] = []
    for each in given:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise TypeError(f"failures has to be classes of Exception, such as (OSError, ValueError); {each!r} is none")
        classes.append(each)
    return tuple(classes)


def _counts(error: BaseException, failures: tuple[type[Exception], ...]) -> bool:
    if isinstance(error, failures):
        return True
    # A group with a cancellation in it is no `ExceptionGroup`.
    return isinstance(error, ExceptionGroup) and any(_counts(part, failures) for part in error.exceptions)
