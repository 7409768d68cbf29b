"""Actors: state that one task owns, reached by typed messages over bounded lanes.

An actor's handlers are plain synchronous methods: they get the message, a `Reply` and `now`, hold no reference to
another actor and never wait, so that no cycle of asks and no deadlock can exist. A handler answers at once, or keeps
its `Reply` and answers later, from another handler or from `tick`.

    @frozen
    class Take(Ask[int]):
        count: int

    class Stock(Actor):
        def __init__(self) -> None:
            self.left = 10

        @handles(Take)
        def take(self, message: Take, reply: Reply[int], now: float) -> None:
            self.left -= message.count
            reply.send(self.left)

mypy checks that the handler of an `Ask[int]` is given a `Reply[int]`. A `Mailbox` belongs to the supervisor, not to the
actor: it outlives crashes, and so do the messages in it and every `ActorRef`. See `wizard_actors.supervisor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
from types import MappingProxyType
from typing import ClassVar, Generic, TypeAlias, TypeVar

import trio

from wizard_actors.errors import ActorError, DeadlineExceededError, MailboxFullError
from wizard_actors.mailbox import Ask, Ledger, Mailbox, Notice, Reply, Return, Waiter

__all__ = [
    "Actor",
    "ActorRef",
    "Ask",
    "Ledger",
    "Notice",
    "Reply",
    "Return",
    "Waiter",
    "handles",
    "hears",
    "serve",
    "takes_back",
]

A_co = TypeVar("A_co", covariant=True)
G = TypeVar("G")
M = TypeVar("M")
P_co = TypeVar("P_co", covariant=True)
R = TypeVar("R")
S = TypeVar("S")


AskHandler: TypeAlias = "Callable[[S, A_co, Reply[R], float], None]"


class handles(Generic[A_co]):  # noqa: N801 - reads as the decorator that it is
    """Mark a method `(self, message, reply, now)` as the handler of one class of `Ask`."""

    def __init__(self, message: type[A_co]) -> None:
        self._message = message

    def __call__(self: handles[Ask[R]], method: AskHandler[S, A_co, R]) -> AskHandler[S, A_co, R]:
        """Mark the method."""
        return _mark(method, "asks", self._message)


class takes_back(Generic[A_co]):  # noqa: N801 - reads as the decorator that it is
    """Mark a method `(self, grant, message, now)` as the handler of one class of `Return` or `Notice`."""

    def __init__(self, message: type[A_co]) -> None:
        self._message = message

    def __call__(
        self: takes_back[Return[G] | Notice[G]], method: Callable[[S, G, A_co, float], None]
    ) -> Callable[[S, G, A_co, float], None]:
        """Mark the method."""
        return _mark(method, "returns", self._message)


class hears(Generic[M]):  # noqa: N801 - reads as the decorator that it is
    """Mark a method `(self, message, now)` as the handler of one class of told messages."""

    def __init__(self, message: type[M]) -> None:
        self._message = message

    def __call__(self, method: Callable[[S, M, float], None]) -> Callable[[S, M, float], None]:
        """Mark the method."""
        return _mark(method, "tells", self._message)


F = TypeVar("F", bound=Callable[..., None])


def _mark(method: F, lane: str, message: type) -> F:
    if iscoroutinefunction(method):
        raise TypeError(
            f"{method.__qualname__} is async: a handler never waits; it answers at once, or keeps its reply"
        )
    method.__dict__["_handles"] = (lane, message)
    return method


class Actor:
    """Base of all actors. Subclasses own state and change it in handlers; only a bug makes a handler raise.

    An instance is one incarnation: after a crash its supervisor makes the next one. An actor that keeps replies
    overrides `forget`.
    """

    _handlers: ClassVar[Mapping[str, Mapping[type, str]]] = MappingProxyType({})

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        found: dict[str, dict[type, str]] = {lane: {} for lane in ("asks", "returns", "tells")}
        for base in reversed(cls.__mro__):
            for name, value in vars(base).items():
                if mark := getattr(value, "_handles", None):
                    lane, message = mark
                    found[lane][message] = name
        cls._handlers = MappingProxyType(found)

    async def start(self) -> None:
        """Acquire what the incarnation needs, before its first message; bounded by its spec's `start_timeout`."""

    async def stop(self) -> None:
        """Release what `start` acquired, also after a crash or a start that failed half-way; bounded by its spec's
        `shutdown_timeout`. Where the actor itself is cancelled, the last resort, this begins
        cancelled: shield what has to happen.
        """

    def accepting(self) -> bool:
        """Whether another ask may be received. An actor with one queue says no while its waiting room is full: the ask
        lane then fills, and `ask` waits.
        """
        return True

    def wake_at(self) -> float:
        """Return the next instant at which `tick` has something to do; infinite where nothing is due."""
        return math.inf

    def tick(self, now: float) -> None:
        """Do what is due at `now`. Has to make progress: `wake_at` moves on, or a reply is answered."""

    def finished(self) -> bool:
        """Whether the actor has done all that it was for. It then ends without a failure, and is started again only
        where its spec says PERMANENT.
        """
        return False

    def forget(self, waiter: Waiter, now: float) -> None:
        """Drop the kept reply `waiter`, whose caller has gone, and free its place."""

    def snapshot(self) -> object:
        """Return a frozen view of the state, taken after every message, for readers who do not ask
        (`ActorRef.published`), and for the next incarnation (its `carry`).
        """
        return None


class ActorRef(Generic[P_co]):
    """The address of one actor, good for as long as its supervisor lives, over all restarts.

    `P_co` is what the actor publishes as its snapshot.
    """

    __slots__ = ("_mailbox",)

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    @property
    def path(self) -> str:
        """Where the actor stands in its tree, such as "wizard/models/model:primary/limiter"."""
        return self._mailbox.path

    @property
    def published(self) -> P_co | None:
        """The actor's last snapshot, readable at any time without a message; None before its first start."""
        return self._mailbox.published  # type: ignore[return-value]  # the mailbox stores any actor's snapshot

    @property
    def failure(self) -> Exception | None:
        """What the actor failed of last; None where it never did."""
        return self._mailbox.failure

    @property
    def available(self) -> bool:
        """Whether an ask would be taken: not while the actor waits out a backoff, is DOWN, or is stopped."""
        return self._mailbox.refusal is None

    async def ask(self, message: Ask[R], *, deadline: float = math.inf) -> R:
        """Send `message`, wait for room and for the answer, and return it. A checkpoint in every case.

        `deadline` is an instant of Trio's clock. A caller that is cancelled or late has not been answered: it is
        forgotten, and whatever was granted to it is undone. Either the answer arrives or the cancellation, never both.

        Raises `ActorCrashedError` where the actor crashed with this ask in hand, or is waiting for its restart;
        `ActorStoppedError` once its tree is stopping; `DeadlineExceededError`; and whatever the handler answers with.
        """
        if deadline == math.inf:
            return await self._mailbox.ask(message)
        with trio.CancelScope(deadline=deadline):
            return await self._mailbox.ask(message)
        raise DeadlineExceededError(f"{self.path} did not answer {type(message).__name__} in time")

    async def ask_nowait(self, message: Ask[R]) -> R:
        """As `ask`, but raise `MailboxFullError` at once where there is no room in the lane."""
        if self._mailbox.full:
            raise MailboxFullError(
                f"the mailbox of {self.path} is full ({self._mailbox.bound} asks wait)", actor=self.path
            )
        return await self._mailbox.ask(message)

    def tell(self, message: object) -> None:
        """Send `message` without an answer. Never waits: over the bound the oldest one is dropped, and counted."""
        self._mailbox.tell(message)

    def give_back(self, grant: G, message: Return[G]) -> None:
        """End a live `grant`. Never waits or refuses; ignored where the grant has ended, or the actor has stopped."""
        self._mailbox.give_back(grant, message)

    def notify(self, grant: G, message: Notice[G]) -> None:
        """Tell something of a live `grant`; replaces an earlier notice of it that has not been read yet."""
        self._mailbox.notify(grant, message)

    def __repr__(self) -> str:
        return f"<ActorRef {self.path} {self._mailbox.state}>"


async def serve(actor: Actor, mailbox: Mailbox) -> None:
    """Run `actor` on `mailbox` until it is halted, or has finished, and its return lane is empty; raise what a handler
    raises.
    """
    turn = _Turn(actor, mailbox)
    while True:
        if mailbox.poison is not None:
            error, mailbox.poison = mailbox.poison, None
            raise error
        mailbox.awake = False
        turn.run(trio.current_time())
        if (mailbox.halting or actor.finished()) and mailbox.settled:
            return
        await mailbox.park(actor.wake_at())


class _Turn:
    """One pass over the lanes: returns first, then what is due, then what was told, then asks."""

    def __init__(self, actor: Actor, mailbox: Mailbox) -> None:
        self.actor = actor
        self.mailbox = mailbox
        tables = actor._handlers  # noqa: SLF001 - the loop is the actor's other half
        self.asks = {kind: getattr(actor, name) for kind, name in tables.get("asks", {}).items()}
        self.returns = {kind: getattr(actor, name) for kind, name in tables.get("returns", {}).items()}
        self.tells = {kind: getattr(actor, name) for kind, name in tables.get("tells", {}).items()}

    def run(self, now: float) -> None:
        mailbox = self.mailbox
        while (reply := mailbox.next_forget()) is not None:
            self.actor.forget(reply, now)
            self._handled()
        while (item := mailbox.next_return()) is not None:
            grant, message = item
            self._handler(self.returns, message)(grant, message, now)
            self._handled()
        if self.actor.wake_at() <= now:
            self._tick(now)
        for _ in range(mailbox.told):
            message = mailbox.next_tell()
            self._handler(self.tells, message)(message, now)
            self._handled()
        while not mailbox.halting and self.actor.accepting() and (envelope := mailbox.next_ask()) is not None:
            self._answer(*envelope, now)

    def _handler(self, table: Mapping[type, Callable[..., None]], message: object) -> Callable[..., None]:
        """Return the handler of a message that nobody waits for: without one, only a crash tells of the bug."""
        handler = table.get(type(message))
        if handler is None:
            raise TypeError(f"{self.mailbox.path} has no handler for {type(message).__name__}")
        return handler

    def _answer(self, message: Ask[object], reply: Waiter, now: float) -> None:
        handler = self.asks.get(type(message))
        if handler is None:
            kind = type(message).__name__
            reply.fail(ActorError(f"{self.mailbox.path} has no handler for {kind}", actor=self.mailbox.path))
            return
        self.mailbox.in_hand = reply
        handler(message, reply, now)
        self.mailbox.in_hand = None
        if reply.wanted:
            self.mailbox.kept[reply] = None
        self._handled()

    def _tick(self, now: float) -> None:
        due, answers = self.actor.wake_at(), self.mailbox.answers
        self.actor.tick(now)
        self._handled()
        if self.actor.wake_at() <= due and self.mailbox.answers == answers:
            raise RuntimeError(f"{self.mailbox.path}: tick({now}) made no progress on what was due at {due}")

    def _handled(self) -> None:
        self.mailbox.handled += 1
        self.mailbox.published = self.actor.snapshot()
