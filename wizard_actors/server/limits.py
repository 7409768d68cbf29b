"""What keys may use: rate limits and token budgets, each an actor in the client's tree.

    wizard ─ keys ─ <name of the key> ─ budget, rate

Kept in memory: after a restart of the process, all begin anew.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final, Literal, TypeAlias

import trio
from attrs import define, evolve, field, frozen

from wizard_actors.actor import Actor, ActorRef, Ledger
from wizard_actors.config import RateLimitConfig
from wizard_actors.errors import ActorStoppedError, DeadlineExceededError, RateLimitError
from wizard_actors.event_stream import EventStream
from wizard_actors.events import AttemptBegan, AttemptEnded, Event
from wizard_actors.gcra import Grant, LimiterState
from wizard_actors.port import deadline_exceeded
from wizard_actors.rate_limit import Acquire, RateLimiter, Reconfigure
from wizard_actors.request import Request
from wizard_actors.server.key_settings import KeyConfig, KeysConfig
from wizard_actors.server.reservation import Reservation
from wizard_actors.specs import ChildSpec, GroupSpec
from wizard_actors.supervisor import Supervisor

__all__ = ["Left", "Limits"]

Kind: TypeAlias = Literal["budget", "rate"]

KINDS: Final[tuple[Kind, ...]] = ("budget", "rate")
"""In the order in which they are asked: nobody waits for a rate whose budget is used up."""

GROUP: Final = "keys"

ROUNDING: Final = 1e-6
"""Of a request: instants are floats."""


@frozen
class Left:
    """What a key may still ask for at once, and how many tokens of the minute and of its budget it has; None: as many
    as it likes.
    """

    requests: int | None = None
    tokens: int | None = None
    budget: int | None = None


@frozen
class _Bound:
    """What one limiter is to hold to. `window`: the amounts are for so many seconds, None: for a minute."""

    limits: RateLimitConfig
    window: float | None = None


@define(eq=False)
class _Limit:
    """One limiter of a key. Its next incarnation holds to what `bound` is then."""

    key: str
    bound: _Bound
    _ref: ActorRef[LimiterState] | None = None
    _standing: trio.Event = field(factory=trio.Event)

    def make(self, ledger: Ledger, carry: object) -> Actor:
        bound = self.bound
        return RateLimiter.factory(shown(self.key), bound.limits, window=bound.window)(ledger, carry)

    def stands(self, ref: ActorRef[LimiterState]) -> None:
        self._ref = ref
        self._standing.set()

    def fails(self) -> None:
        """Note that the tree is stopping: whoever asks is told."""
        self._standing.set()

    def change(self, bound: _Bound) -> None:
        self.bound = bound
        self.ref.tell(Reconfigure(bound.limits))

    @property
    def ref(self) -> ActorRef[LimiterState]:
        if self._ref is None:
            raise ActorStoppedError(f"the limiter of {shown(self.key)} could not be started", actor=GROUP)
        return self._ref

    @property
    def state(self) -> LimiterState | None:
        """How it stood last; None before it has been started."""
        return None if self._ref is None else self._ref.published

    async def grant(self, request: Request, wanted: Reservation) -> Grant:
        """Return leave for a request. Raises `RateLimitError` and `DeadlineExceededError`."""
        await self._standing.wait()  # for as long as a limiter takes to start
        acquire = Acquire(
            trio.current_time(),
            self.bound.limits.max_wait,
            request.deadline,
            tokens=wanted.input + wanted.output,
            expected=wanted.expected,
            model=shown(self.key),
        )
        try:
            return await self.ref.ask(acquire, deadline=request.deadline)
        except DeadlineExceededError:
            raise deadline_exceeded(request.given) from None
        except RateLimitError as error:
            if self.bound.window is not None:
                error.message = self._used_up(self.bound.window, error.retry_after)
            raise

    def _used_up(self, window: float, retry_after: float | None) -> str:
        tokens = self.bound.limits.tokens_per_minute or 0
        soon = "" if retry_after is None else f", in {max(1.0, retry_after):,.0f} s"
        return (
            f"{shown(self.key)} has no room left for this request in its token_budget of {tokens:,.0f} tokens in "
            f"{window:g} s: ask again when there is some{soon}"
        )


def shown(key: str) -> str:
    """Return how errors call a key, where otherwise a model is named."""
    return f"key {key!r}"


class Limits:
    """The limiters of all keys, in `tree`."""

    def __init__(self, tree: Supervisor) -> None:
        self._tree = tree
        self._limits: dict[str, dict[Kind, _Limit]] = {}
        self._changing = trio.Lock()
        self._grouped = False
        self._reserved: dict[str, Reservation] = {}
        self._events: EventStream | None = None

    # -- requests

    def bound(self, key: str) -> bool:
        """Whether the key of that name has any limit."""
        return key in self._limits

    async def reserve(self, key: str, request: Request, events: EventStream) -> Reservation:
        """Return leave for a request of the key of that name, to be settled. `events` are the client's, which tell
        whether anything of it was sent.

        Raises `RateLimitError` (source "limiter") where the key is over a limit, `DeadlineExceededError`, and what else
        its limiters fail with; then, and when it is cancelled, nothing is reserved.
        """
        reservation = Reservation(request.prompt)
        if not self.bound(key):
            return reservation
        try:
            for kind in KINDS:
                await self._reserve(key, kind, request, reservation)
        except BaseException:
            reservation.settle(None)
            raise
        self._watch(events)
        self._reserved[request.request_id] = reservation
        reservation.when_over(lambda: self._reserved.pop(request.request_id, None))
        return reservation

    async def _reserve(self, key: str, kind: Kind, request: Request, reservation: Reservation) -> None:
        while (limit := self._limit(key, kind)) is not None:
            try:
                grant = await limit.grant(request, reservation)
            except ActorStoppedError:
                if self._limit(key, kind) is limit:  # else the key has lost that limit meanwhile
                    raise
            else:
                reservation.add(limit.ref, grant)
                return

    def left(self, key: str) -> Left:
        """Return what the key of that name has left at present."""
        rate, budget = self._state(key, "rate"), self._state(key, "budget")
        return Left(
            requests=None if rate is None else _requests_left(rate),
            tokens=None if rate is None else _tokens_left(rate),
            budget=None if budget is None else _tokens_left(budget),
        )

    def _state(self, key: str, kind: Kind) -> LimiterState | None:
        limit = self._limit(key, kind)
        state = None if limit is None else limit.state
        return None if state is None else state.at(trio.current_time())

    def _limit(self, key: str, kind: Kind) -> _Limit | None:
        return self._limits.get(key, {}).get(kind)

    def _watch(self, events: EventStream) -> None:
        if events is not self._events:
            self._events = events
            events.listen(self._hear)

    def _hear(self, event: Event) -> None:
        if isinstance(event, AttemptBegan | AttemptEnded) and (found := self._reserved.get(event.request_id)):
            found.note(event)

    # -- keys

    async def prepare(self, keys: KeysConfig | None) -> None:
        """Add and change limits, so that they are those of `keys`, but for the ones that `drop` removes: that is for
        when those keys are in force, so that nobody is ever let in without a limit.

        What a key has used counts on, by the new limits; a budget of another window begins anew. Nobody's requests are
        waited for. Raises `ActorStoppedError` where the tree is stopping. Cancelled once it has begun, it is done all
        the same.
        """
        async with self._changing:
            with trio.CancelScope(shield=True):  # limiters start and stop without waiting for anything
                for key, bounds in _wanted(keys).items():
                    for kind, bound in bounds.items():
                        await self._put(key, kind, bound)

    async def drop(self, keys: KeysConfig | None) -> None:
        """Remove the limits that `keys` have no more; those of a key that is gone begin anew when it comes back.

        Raises, and is cancelled, as `prepare`.
        """
        async with self._changing:
            with trio.CancelScope(shield=True):
                wanted = _wanted(keys)
                for key in list(self._limits):
                    await self._remove(key, wanted.get(key, {}))

    async def _remove(self, key: str, wanted: Collection[Kind]) -> None:
        """Remove the limiters of a key that it is to have no more."""
        limits = self._limits[key]
        gone = [kind for kind in limits if kind not in wanted]
        for kind in gone:
            del limits[kind]  # first: whoever asks from now on asks no more for this one
        if not limits:
            del self._limits[key]
        for path in [f"{GROUP}/{key}/{kind}" for kind in gone] if limits else [f"{GROUP}/{key}"]:
            await self._tree.remove(path, drain_timeout=0.0)

    async def _put(self, key: str, kind: Kind, bound: _Bound) -> None:
        old = self._limit(key, kind)
        if old is not None and old.bound.window == bound.window:
            if old.bound != bound:
                old.change(bound)
            return
        await self._group(key)
        # First: whoever asks from now on asks this one, and waits until it stands.
        limit = self._limits.setdefault(key, {})[kind] = _Limit(key, bound)
        path = f"{GROUP}/{key}"
        try:
            if old is not None:
                await self._tree.remove(f"{path}/{kind}", drain_timeout=0.0)
            await self._tree.add(ChildSpec(kind, limit.make), under=path)
            limit.stands(self._tree.ref(f"{path}/{kind}", LimiterState))
        except ActorStoppedError:
            limit.fails()
            raise

    async def _group(self, key: str) -> None:
        if not self._grouped:
            await self._tree.add(GroupSpec(GROUP))
            self._grouped = True
        if key not in self._limits:
            await self._tree.add(GroupSpec(key), under=GROUP)


def _wanted(keys: KeysConfig | None) -> dict[str, dict[Kind, _Bound]]:
    return {} if keys is None else {key.name: bounds for key in keys.keys if (bounds := _bounds(key))}


def _at_once(limits: RateLimitConfig) -> RateLimitConfig:
    """Return the limits of a caller, whose requests may come in one moment: a provider's are spread, so as to meet none
    of its 429s, but a caller who may ask three times a minute asks three times.
    """
    if limits.burst is not None or limits.requests_per_minute is None:
        return limits
    return evolve(limits, burst=max(1, int(limits.requests_per_minute)))


def _bounds(key: KeyConfig) -> dict[Kind, _Bound]:
    """Return what the limiters of a key are to hold to."""
    bounds: dict[Kind, _Bound] = {}
    if key.token_budget is not None:
        limits = RateLimitConfig(tokens_per_minute=key.token_budget.tokens, adaptive=False, max_wait=0.0)
        bounds["budget"] = _Bound(limits, key.token_budget.window)
    if key.rate_limit is not None:
        bounds["rate"] = _Bound(_at_once(key.rate_limit))
    return bounds


def _requests_left(state: LimiterState) -> int | None:
    """Return how many requests may go at once."""
    meter = state.requests
    if not meter.base:
        return None
    saved = (state.as_of - max(meter.empty_at, state.paused_until)) / meter.base
    return max(0, math.floor(min(meter.burst, saved) + ROUNDING))


def _tokens_left(state: LimiterState) -> int | None:
    left = state.remaining_tokens
    return None if left is None else math.floor(left)
