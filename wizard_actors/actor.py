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

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from threading import get_ident
from types import MappingProxyType
from typing import ClassVar, Final, Generic, TypeAlias, TypeVar

import trio

from wizard_actors.errors import MailboxFullError
from wizard_actors.ledger import Ledger
from wizard_actors.mailbox import ASK_THERE, Mailbox, Reply, Waiter
from wizard_actors.message import Ask, Notice, Return

__all__ = [
    "Actor",
    "ActorRef",
    "Ask",
    "Home",
    "Ledger",
    "Notice",
    "Reply",
    "Return",
    "Waiter",
    "handles",
    "hears",
    "takes_back",
]

log = logging.getLogger("wizard_actors.supervisor")

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
        _check_class("handles", message)
        if not issubclass(message, Ask):
            raise TypeError(f"@handles({message.__name__}): {message.__name__} is no Ask; what is told takes @hears")
        self._message = message

    def __call__(self: handles[Ask[R]], method: AskHandler[S, A_co, R]) -> AskHandler[S, A_co, R]:
        """Mark the method."""
        return _mark(method, "asks", self._message)


class takes_back(Generic[A_co]):  # noqa: N801 - reads as the decorator that it is
    """Mark a method `(self, grant, message, now)` as the handler of one class of `Return` or `Notice`."""

    def __init__(self, message: type[A_co]) -> None:
        _check_class("takes_back", message)
        if not issubclass(message, Return | Notice):
            raise TypeError(f"@takes_back({message.__name__}): {message.__name__} is neither a Return nor a Notice")
        self._message = message

    def __call__(
        self: takes_back[Return[G] | Notice[G]], method: Callable[[S, G, A_co, float], None]
    ) -> Callable[[S, G, A_co, float], None]:
        """Mark the method."""
        return _mark(method, "returns", self._message)


class hears(Generic[M]):  # noqa: N801 - reads as the decorator that it is
    """Mark a method `(self, message, now)` as the handler of one class of told messages."""

    def __init__(self, message: type[M]) -> None:
        _check_class("hears", message)
        if issubclass(message, Ask | Return | Notice):
            name, right = message.__name__, "handles" if issubclass(message, Ask) else "takes_back"
            raise TypeError(f"@hears({name}): {name} is no told message; its handler takes @{right}")
        self._message = message

    def __call__(self, method: Callable[[S, M, float], None]) -> Callable[[S, M, float], None]:
        """Mark the method."""
        return _mark(method, "tells", self._message)


F = TypeVar("F", bound=Callable[..., None])


PARAMETERS: Final = {
    "asks": ("self", "message", "reply", "now"),
    "returns": ("self", "grant", "message", "now"),
    "tells": ("self", "message", "now"),
}
"""What the handlers of each lane are called with."""


def _check_class(decorator: str, message: object) -> None:
    if isinstance(message, type):
        return
    if function := getattr(message, "__qualname__", None):
        raise TypeError(f"@{decorator} above {function} names no message: write @{decorator}(ClassOfMessages)")
    raise TypeError(f"@{decorator} takes the class of the messages, not {message!r}")


def _mark(method: F, lane: str, message: type) -> F:
    name = getattr(method, "__qualname__", repr(method))
    if iscoroutinefunction(method) or isasyncgenfunction(method):
        raise TypeError(f"{name} is async: a handler never waits; it answers at once, or keeps its reply")
    if isgeneratorfunction(method):
        raise TypeError(f"{name} is a generator: a handler is called, and done when it returns; take out the `yield`")
    try:
        signature(method).bind(*PARAMETERS[lane])
    except TypeError:
        taken = ", ".join(PARAMETERS[lane])
        raise TypeError(f"{name} cannot be called as a handler of {message.__name__}: it takes ({taken})") from None
    if "_handles" in vars(method):
        other = vars(method)["_handles"][1].__name__
        raise TypeError(
            f"{name} handles {other} and {message.__name__}: each class of messages has a method of its own"
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
            own: dict[type, str] = {}
            for name, value in vars(base).items():
                if mark := getattr(value, "_handles", None):
                    lane, message = mark
                    if message in own:
                        both = f"`{own[message]}` and `{name}`"
                        raise TypeError(
                            f"{base.__qualname__} has two handlers for {message.__name__}, {both}: keep one"
                        )
                    found[lane][message] = own[message] = name
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


class Home:
    """The Trio run in which a tree lives, for callers anywhere; unknown until the tree starts.

    `thread` identifies its thread, None while it is unknown.
    """

    __slots__ = ("_clock", "_token", "thread")

    def __init__(self) -> None:
        self.thread: int | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._clock: trio.abc.Clock | None = None

    def settle(self) -> None:
        """Be this Trio run from now on."""
        self._token, self._clock = trio.lowlevel.current_trio_token(), trio.lowlevel.current_clock()
        self.thread = get_ident()

    @property
    def here(self) -> bool:
        """Whether the caller is in the run, or the run is unknown yet."""
        return self.thread is None or (get_ident() == self.thread and trio.lowlevel.in_trio_task())

    def now(self) -> float:
        """Return the instant on the run's clock; callable from any thread once the tree has started."""
        return trio.current_time() if self._clock is None else self._clock.current_time()

    def do(self, function: Callable[..., None], *args: object) -> None:
        """Call what never waits in the run: at once where the caller is in it, else soon, or not at all where the run
        is over.
        """
        if self._token is None or (get_ident() == self.thread and trio.lowlevel.in_trio_task()):
            function(*args)
            return
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(_handed_over, function, args)


def _handed_over(function: Callable[..., None], args: tuple[object, ...]) -> None:
    try:
        function(*args)
    except Exception:  # its caller has gone on, and the run must not end by it
        log.exception("what another thread sent failed: %s", function.__qualname__)


class ActorRef(Generic[P_co]):
    """The address of one actor, good for as long as its supervisor lives, over all restarts.

    `P_co` is what the actor publishes as its snapshot. `tell`, `give_back`, `notify` and all that is only read work in
    any thread and event loop; an ask is made in the Trio run of the tree, and raises `UnsupportedError` elsewhere.
    """

    __slots__ = ("_home", "_mailbox")

    def __init__(self, mailbox: Mailbox, home: Home | None = None) -> None:
        self._mailbox = mailbox
        self._home = home or Home()

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

    @property
    def now(self) -> float:
        """The instant on the clock of the actor's tree, from any thread."""
        return self._home.now()

    def check_here(self, instead: str = ASK_THERE) -> None:
        """Raise what `ask` raises outside of the Trio run of the tree; `instead` says what to do beside a client."""
        if not self._home.here:
            raise self._mailbox.elsewhere(instead)

    async def ask(self, message: Ask[R], *, deadline: float = math.inf) -> R:
        """Send `message`, wait for room and for the answer, and return it. Always a point at which a cancellation is
        noticed; other tasks run meanwhile where the answer is waited for, and now and then where it is there at once.

        `deadline` is an instant of Trio's clock. A caller that is cancelled or late has not been answered: it is
        forgotten, and whatever was granted to it is undone. Either the answer arrives or the cancellation, never both.

        Raises `ActorCrashedError` where the actor crashed with this ask in hand, or is waiting for its restart;
        `ActorStoppedError` once its tree is stopping; `DeadlineExceededError`; whatever the handler answers with; and
        `UnsupportedError` (feature "event loop"), with nothing sent, in another thread or event loop than the tree's.
        """
        if get_ident() != self._home.thread:  # the mailbox itself refuses who is in that thread, but not in Trio
            self.check_here()
        return await self._mailbox.ask(message, deadline)

    async def ask_nowait(self, message: Ask[R]) -> R:
        """As `ask`, but raise `MailboxFullError` at once where there is no room in the lane."""
        self.check_here()
        if self._mailbox.full:
            raise MailboxFullError(
                f"the mailbox of {self.path} is full ({self._mailbox.bound} asks wait)", actor=self.path
            )
        return await self._mailbox.ask(message)

    def tell(self, message: object) -> None:
        """Send `message` without an answer. Never waits: over the bound the oldest one is dropped, and counted.

        From any thread, as `give_back` and `notify`: the messages of one thread arrive in their order, as soon as Trio
        runs. What the actor has no handler for is dropped too, counted, and logged once.
        """
        self._home.do(self._mailbox.tell, message)

    def give_back(self, grant: G, message: Return[G]) -> None:
        """End a live `grant`. Never waits or refuses; ignored where the grant has ended, or the actor has stopped."""
        self._home.do(self._mailbox.give_back, grant, message)

    def notify(self, grant: G, message: Notice[G]) -> None:
        """Tell something of a live `grant`; replaces an earlier notice of it that has not been read yet."""
        self._home.do(self._mailbox.notify, grant, message)

    def __repr__(self) -> str:
        return f"<ActorRef {self.path} {self._mailbox.state}>"
