"""The two-lane mailbox of an actor, and its replies.

The *ask* lane is a bounded memory channel: when it is full, `ask` waits; that is the backpressure. The *return* lane
is served first and never refuses, because it is bounded by what it settles: for each live grant one notice and one end,
for each abandoned ask one forget. Told messages have a bounded lane of their own that drops the oldest.

States of a reply:

    OPEN ──send, grant, fail──> ANSWERED        the caller's task is rescheduled with the outcome: delivered
      └───the caller leaves──> ABANDONED        marked by the abort function, which does nothing else: Trio calls those
                                                in an order that no seed controls. The caller's task then posts the
                                                forget when it resumes, if the reply was kept and is kept still
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, cast

import outcome
import trio
from attrs import frozen

from wizard_actors.errors import DeadlineExceededError, UnsupportedError, WizardError
from wizard_actors.event_stream import in_listener
from wizard_actors.ledger import Ledger
from wizard_actors.message import Ask

__all__ = ["ASK_THERE", "Lanes", "Mailbox", "Reply", "Turn", "Waiter", "elsewhere"]

log = logging.getLogger("wizard_actors.supervisor")

UNHEARD_AT_MOST: Final = 64
"""Of how many classes of messages without a handler a mailbox logs."""

AT_ONCE_IN_A_ROW: Final = 8
"""Of the answers that an actor gives at once, every eighth lets others run first: that costs more than a handler."""

ASK_THERE: Final = "`await client.run(ref.ask, message)`, or `client.run(...)` of a BlockingClient"

R = TypeVar("R")

Refusal: TypeAlias = Callable[[], WizardError]


def elsewhere(path: str, instead: str) -> UnsupportedError:
    """Return the error of a call that has to be made in the Trio run of the tree, and was made outside of it."""
    return UnsupportedError(
        f"{path} lives in the Trio thread of its supervisor, and was called from outside of Trio there (in thread "
        f"{threading.current_thread().name!r}); beside a client, {instead}",
        feature="event loop",
    )


class Turn(Protocol):
    """One look of an actor at its lanes."""

    def run(self, now: float) -> None:
        """Handle what is there."""

    def rests_until(self) -> float | None:
        """Return when there is something to do even if nothing comes; None where the actor has ended."""


class _Is(Enum):
    OPEN = "open"
    ANSWERED = "answered"
    ABANDONED = "abandoned"


class Waiter:
    """One caller that waits for an answer, whatever its type: what a kept reply is to the kernel."""

    __slots__ = ("_mailbox", "_outcome", "_state", "_task")

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._state = _Is.OPEN
        self._task: trio.lowlevel.Task | None = None
        self._outcome: outcome.Outcome[object] | None = None

    @property
    def wanted(self) -> bool:
        """Whether the caller still waits."""
        return self._state is _Is.OPEN

    def fail(self, error: WizardError) -> bool:
        """Answer by raising `error` in the caller; return whether that was delivered."""
        if not isinstance(error, Exception):
            raise TypeError(
                f"{self._mailbox.path}: reply.fail takes an error to raise in the caller, such as an instance of a "
                f"subclass of WizardError, not an object of type {type(error).__name__}"
            )
        return self._settle(outcome.Error(error))

    def _settle(self, result: outcome.Outcome[object]) -> bool:
        self._mailbox.kept.pop(self, None)
        self._mailbox.answers += 1
        if self._state is not _Is.OPEN:
            return False
        self._state = _Is.ANSWERED
        if self._task is None:  # answered before the caller waits: it is about to resume from sending
            self._outcome = result
        else:
            trio.lowlevel.reschedule(self._task, result)
        return True

    async def _wait(self, task: trio.lowlevel.Task) -> object:
        if self._outcome is not None:  # it is delivered: a cancellation comes with the caller's next wait
            self._mailbox.at_once += 1
            if not self._mailbox.at_once % AT_ONCE_IN_A_ROW:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return self._outcome.unwrap()
        self._task = task
        try:
            return await trio.lowlevel.wait_task_rescheduled(self._abandon)
        finally:
            if self._state is _Is.ABANDONED and self in self._mailbox.kept:
                self._mailbox.forget(self)

    def _abandon(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._state = _Is.ABANDONED  # a mark, and nothing else: see the module's docstring
        return trio.lowlevel.Abort.SUCCEEDED


class Reply(Waiter, Generic[R]):
    """The way back to one caller. Its methods never wait; each returns whether it was delivered.

    At most one answer is ever delivered. An actor that gets False back from `grant` has to undo the grant at once.
    Nothing raises but `grant`, and only for a grant that the ledger cannot tell from a live one: a bug of the actor.
    """

    __slots__ = ()

    def send(self, value: R) -> bool:
        """Answer with `value`."""
        return self._settle(outcome.Value(value))

    def grant(self, value: R) -> bool:
        """Answer with a `value` that the caller has to give back; it stands in the ledger until then."""
        if self.wanted:
            self._mailbox.ledger.enter(value)  # first: what it refuses, nobody may hold
        return self._settle(outcome.Value(value))

    async def wait(self, task: trio.lowlevel.Task) -> R:
        """Wait for the answer, in the caller's `task`."""
        return cast("R", await self._wait(task))  # `send` and `grant` took nothing but an R


@frozen
class Lanes:
    """How full a mailbox is, and what has gone through it."""

    asks: int
    asks_bound: int
    senders_waiting: int
    returns: int
    tells: int
    tells_bound: int
    kept: int
    grants: int
    handled: int
    dropped: int


class Mailbox:
    """The lanes of one actor. The supervisor owns it; incarnations borrow it one after the other.

    `bound` is the ask lane's, `tells` the told lane's. `refusal` makes the error for an ask that is not taken.
    """

    def __init__(self, path: str, *, bound: int, tells: int) -> None:
        self.path = path
        self.bound = bound
        self.state = "new"
        self.ledger = Ledger()
        self.published: object = None
        self.failure: Exception | None = None
        self.refusal: Refusal | None = None
        self.kept: dict[Waiter, None] = {}
        self.in_hand: Waiter | None = None
        self.halting = False
        self.poison: BaseException | None = None
        self.returned: Callable[[], None] | None = None
        self.handled = 0
        self.answers = 0  # tried, delivered or not
        self.at_once = 0  # answers that nobody had to wait for
        self.posted = 0  # asks in the lane, and those that wait for room in it
        self._send, self._receive = trio.open_memory_channel[tuple[Ask[object], Waiter]](bound)
        self._returns: deque[tuple[object, bool]] = deque()
        self._forgets: deque[Waiter] = deque()
        self._tells: deque[object] = deque(maxlen=tells)
        self._dropped = 0
        self._unheard: set[type] = set()
        self._sleeper: trio.lowlevel.Task | None = None
        self._turn: Turn
        self._until = math.inf
        self.awake = False

    # -- for callers

    @trio.lowlevel.enable_ki_protection
    async def ask(self, message: Ask[R], deadline: float = math.inf) -> R:
        """Post `message` and wait for its answer. Protected from Ctrl-C: nobody could tell who holds the answer."""
        refusal = self.refusal
        try:
            task = trio.lowlevel.current_task()
        except RuntimeError:  # before anything is touched
            raise self.elsewhere() from None
        if refusal is not None:
            await trio.lowlevel.checkpoint()
            raise refusal()  # it stood when we asked, even if the actor is back by now
        await trio.lowlevel.checkpoint_if_cancelled()  # who has been cancelled, or is late, asks nothing
        if deadline < math.inf and deadline <= trio.current_time():
            await trio.lowlevel.checkpoint()
            raise self._too_late(message)
        reply: Reply[R] = Reply(self)
        if (posted := self._post_nowait(message, reply)) and (deadline == math.inf or not reply.wanted):
            return await reply.wait(task)
        with trio.CancelScope(deadline=deadline):
            if not posted:
                await self._post(message, reply)
            return await reply.wait(task)
        raise self._too_late(message)

    def _too_late(self, message: object) -> DeadlineExceededError:
        return DeadlineExceededError(f"{self.path} did not answer {type(message).__name__} in time")

    def _post_nowait(self, message: Ask[object], reply: Waiter) -> bool:
        """Post an ask where there is room; return whether there was."""
        try:
            self._send.send_nowait((message, reply))
        except trio.WouldBlock:
            return False
        self.posted += 1
        self.wake()
        return True

    async def _post(self, message: Ask[object], reply: Waiter) -> None:
        """Wait for room, and post an ask."""
        self.posted += 1
        try:
            await self._send.send((message, reply))
        except BaseException:
            self.posted -= 1
            raise
        self.wake()

    def elsewhere(self, instead: str = ASK_THERE) -> WizardError:
        """Return the error of an ask from outside of the tree's Trio run."""
        gone = self.refusal if self.stopped else None
        return elsewhere(self.path, instead) if gone is None else gone()

    @property
    def full(self) -> bool:
        """Whether an ask would have to wait for room."""
        return self._send.statistics().current_buffer_used >= self.bound

    def tell(self, message: object) -> None:
        """Queue a told message, the oldest making room."""
        if self.stopped:
            return
        if len(self._tells) == self._tells.maxlen:
            self._dropped += 1
        self._tells.append(message)
        self.wake()

    def give_back(self, grant: object, message: object) -> None:
        """Queue the end of a live grant; the first one counts."""
        loan = self.ledger.loan(grant)
        if loan is None or loan.end is not None or self.stopped:
            return
        loan.end = message
        self._returns.append((grant, True))
        self.wake()
        if self.returned is not None:
            self.returned()

    def notify(self, grant: object, message: object) -> None:
        """Queue a notice of a live grant; the latest one counts."""
        loan = self.ledger.loan(grant)
        if loan is None or loan.end is not None or self.stopped:
            return
        if loan.notice is None:
            self._returns.append((grant, False))
        loan.notice = message
        self.wake()

    def forget(self, waiter: Waiter) -> None:
        """Queue the news that the caller of a kept reply has gone."""
        self._forgets.append(waiter)
        self.wake()

    # -- for the supervisor

    def close(self) -> None:
        """End the mailbox with its actor, once it refuses asks: what comes back from now on is ignored."""
        self.state = "stopped"
        self._send.close()
        self._receive.close()

    @property
    def stopped(self) -> bool:
        """Whether the actor has ended for good."""
        return self.state == "stopped"

    def refuse(self, refusal: Refusal) -> None:
        """Take no more asks, and fail those that wait in the lane or for room in it."""
        self.refusal = refusal
        while (envelope := self.next_ask()) is not None:
            envelope[1].fail(refusal())

    def fail_kept(self, make: Refusal) -> None:
        """Fail the ask in hand and every kept one."""
        if self.in_hand is not None:
            self.in_hand.fail(make())
            self.in_hand = None
        for reply in tuple(self.kept):
            reply.fail(make())

    @trio.lowlevel.enable_ki_protection
    def wake(self) -> None:
        """Let the actor look at its lanes. Where its loop sleeps, that look is taken here, in the sender's task. Its
        loop is woken for all else: an end, a crash, something that came meanwhile, an earlier instant to wake at; and
        for a listener, as handlers may publish.
        """
        sleeper = self._sleeper
        if sleeper is None:
            self.awake = True
            return
        self._sleeper = None  # a turn that sends to its own actor leaves that to the loop
        if self.poison is None and not (self.halting or in_listener()) and self._rests():
            self._sleeper = sleeper
        else:
            trio.lowlevel.reschedule(sleeper)

    def _rests(self) -> bool:
        """Take a turn, and return whether the loop may sleep on."""
        try:
            self._turn.run(trio.current_time())
            due = self._turn.rests_until()
        except BaseException as error:  # noqa: ASYNC103, BLE001 - the crash is the actor's: its loop raises it
            self.poison = error
            return False  # noqa: ASYNC104 - nothing in a turn waits, so that nothing of it is cancelled
        return due is not None and due >= self._until and not self.awake

    def lanes(self) -> Lanes:
        """Return how full the lanes are."""
        asks = self._send.statistics()
        return Lanes(
            asks=asks.current_buffer_used,
            asks_bound=self.bound,
            senders_waiting=asks.tasks_waiting_send,
            returns=len(self._returns) + len(self._forgets),
            tells=len(self._tells),
            tells_bound=self._tells.maxlen or 0,
            kept=len(self.kept),
            grants=len(self.ledger),
            handled=self.handled,
            dropped=self._dropped,
        )

    # -- for the loop

    def next_ask(self) -> tuple[Ask[object], Waiter] | None:
        """Return the oldest ask that somebody still waits for; None where there is none."""
        while self.posted:  # asked before the channel is: that answers with an exception
            try:
                envelope = self._receive.receive_nowait()
            except trio.WouldBlock:  # a caller that waits for room has been cancelled, and has yet to run
                return None
            self.posted -= 1
            if envelope[1].wanted:  # else abandoned before receipt
                return envelope
        return None

    def next_return(self) -> tuple[object, object] | None:
        """Return the oldest `(grant, message)` of the return lane; an end strikes its grant from the ledger first, so
        that a crash while it is handled cannot leave the grant live for ever.
        """
        while self._returns:
            grant, is_end = self._returns.popleft()
            loan = self.ledger.loan(grant)
            if loan is None:  # fenced by a restart
                continue
            if is_end:
                self.ledger.strike(grant)
                return grant, loan.end
            notice, loan.notice = loan.notice, None
            return grant, notice
        return None

    def next_forget(self) -> Waiter | None:
        """Return the next kept reply whose caller has gone."""
        while self._forgets:
            reply = self._forgets.popleft()
            if reply in self.kept:  # else failed by a crash meanwhile
                del self.kept[reply]
                return reply
        return None

    @property
    def told(self) -> int:
        """How many told messages wait."""
        return len(self._tells)

    def next_tell(self) -> object:
        """Return the oldest told message, one at a time: those after it outlive a crash of its handler."""
        return self._tells.popleft()

    def unheard(self, message: object) -> None:
        """Count a told message that has no handler as dropped; the first one of its class is logged."""
        self._dropped += 1
        kind = type(message)
        if kind not in self._unheard and len(self._unheard) < UNHEARD_AT_MOST:
            self._unheard.add(kind)
            hint = "`await ref.ask(message)` sends an Ask" if issubclass(kind, Ask) else "mark a method @hears(it)"
            said = "%s has no handler for %s: what it is told of them is dropped, and counted; %s"
            log.warning(said, self.path, kind.__name__, hint)

    @property
    def settled(self) -> bool:
        """Whether the return lane is empty."""
        return not self._returns and not self._forgets

    async def park(self, until: float, turn: Turn) -> None:
        """Sleep until the loop is needed, or until the instant `until`; meanwhile, who sends something takes the turn.
        Always a checkpoint.
        """
        self._turn, self._until = turn, until
        if self.awake:
            await trio.lowlevel.checkpoint()
        elif until == math.inf:
            await self._sleep()
        else:
            with trio.CancelScope(deadline=until):
                await self._sleep()

    async def _sleep(self) -> None:
        self._sleeper = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._wake_up)

    def _wake_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED
