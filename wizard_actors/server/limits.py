"""What keys may use: rate limits and token budgets, each an actor in the client's tree.

    wizard ─ keys ─ <name of the key> ─ budget, rate

Kept in memory: after a restart of the process, all begin anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

import trio
from attrs import define, frozen

from wizard_actors.actor import Actor, ActorRef, Ledger
from wizard_actors.config import RateLimitConfig
from wizard_actors.errors import ActorStoppedError, DeadlineExceededError, RateLimitError
from wizard_actors.estimate import estimate_input, estimate_output
from wizard_actors.event_stream import EventStream
from wizard_actors.events import AttemptBegan, AttemptEnded, Event
from wizard_actors.gcra import Grant, LimiterState
from wizard_actors.port import deadline_exceeded
from wizard_actors.rate_limit import Acquire, RateLimiter, Reconfigure, Settle
from wizard_actors.request import Request
from wizard_actors.server.key_settings import KeyConfig, KeysConfig
from wizard_actors.specs import ChildSpec, GroupSpec
from wizard_actors.supervisor import Supervisor
from wizard_actors.types import Prompt, ServedBy, WizardResponse

__all__ = ["Limits", "Reservation"]

Kind: TypeAlias = Literal["budget", "rate"]

KINDS: Final[tuple[Kind, ...]] = ("budget", "rate")
"""In the order in which they are asked: nobody waits for a rate whose budget is used up."""

GROUP: Final = "keys"


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

    def make(self, ledger: Ledger, carry: object) -> Actor:
        bound = self.bound
        return RateLimiter.factory(shown(self.key), bound.limits, window=bound.window)(ledger, carry)

    def stands(self, ref: ActorRef[LimiterState]) -> None:
        self._ref = ref

    def change(self, bound: _Bound) -> None:
        self.bound = bound
        self.ref.tell(Reconfigure(bound.limits))

    @property
    def ref(self) -> ActorRef[LimiterState]:
        if self._ref is None:
            raise RuntimeError("a limiter is asked once it has been started")
        return self._ref

    async def grant(self, request: Request, tokens: int, expected: int) -> Grant:
        """Return leave for a request. Raises `RateLimitError` and `DeadlineExceededError`."""
        acquire = Acquire(
            trio.current_time(),
            self.bound.limits.max_wait,
            request.deadline,
            tokens=tokens,
            expected=expected,
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


class Reservation:
    """What one request has been granted by its key's limiters, to be settled once, however it ends."""

    def __init__(self) -> None:
        self._grants: list[tuple[ActorRef[LimiterState], Grant]] = []
        self._over: list[Callable[[], object]] = []
        self._begun = self._sent = self._used = False

    def add(self, ref: ActorRef[LimiterState], grant: Grant) -> None:
        """Note a grant."""
        self._grants.append((ref, grant))

    def when_over(self, call: Callable[[], object]) -> None:
        """Have `call` called when it is settled."""
        self._over.append(call)

    def note(self, event: AttemptBegan | AttemptEnded) -> None:
        """Note what has become of an attempt of the request."""
        self._begun = True
        if isinstance(event, AttemptEnded) and event.sent:
            self._sent = True
            self._used |= event.error is None or event.cost != 0  # what a provider refused costs nothing

    def lost(self) -> None:
        """Note that nobody reads the answer, so that its call is about to be stopped, and will tell nobody."""
        self._sent = self._used = self._begun

    def settle(self, response: WizardResponse | None) -> None:
        """Say how the request has ended: with a whole answer, or None. The first time counts."""
        grants, self._grants = self._grants, []
        over, self._over = self._over, []
        settle = self._settlement(response)
        for ref, grant in grants:
            ref.give_back(grant, settle)
        for call in over:
            call()

    def _settlement(self, response: WizardResponse | None) -> Settle:
        own = response is not None and not response.cached and response.served_by is not ServedBy.STATIC
        if response is not None and own:
            tokens = None if response.usage is None else max(0, response.usage.total_tokens)
            return Settle(succeeded=True, tokens=tokens)
        tokens = None if self._used else 0  # what was used is known of whole answers alone
        if response is not None:
            return Settle(succeeded=True, tokens=tokens)
        return Settle(sent=self._sent, tokens=tokens if self._sent else None)


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
        tokens, expected = _estimate(request.prompt)
        reservation = Reservation()
        try:
            for kind in KINDS:
                await self._reserve(key, kind, request, reservation, tokens, expected)
        except BaseException:
            reservation.settle(None)
            raise
        self._watch(events)
        self._reserved[request.request_id] = reservation
        reservation.when_over(lambda: self._reserved.pop(request.request_id, None))
        return reservation

    async def _reserve(
        self, key: str, kind: Kind, request: Request, reservation: Reservation, tokens: int, expected: int
    ) -> None:
        while (limit := self._limit(key, kind)) is not None:
            try:
                reservation.add(limit.ref, await limit.grant(request, tokens, expected))
            except ActorStoppedError:
                if self._limit(key, kind) is limit:  # else the key has lost that limit meanwhile
                    raise
            else:
                return

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

    async def set(self, keys: KeysConfig | None) -> None:
        """Let the limits be those of `keys` from now on. What a key has used counts on, by the new limits; a budget of
        another window begins anew, and so does that of a key that was gone. Nobody's requests are waited for.

        Raises `ActorStoppedError` where the tree is stopping. Cancelled once it has begun, it is done all the same.
        """
        wanted = {} if keys is None else {key.name: bounds for key in keys.keys if (bounds := _bounds(key))}
        async with self._changing:
            with trio.CancelScope(shield=True):  # limiters start and stop without waiting for anything
                for key in list(self._limits):
                    await self._remove(key, wanted.get(key, {}))
                for key, bounds in wanted.items():
                    for kind, bound in bounds.items():
                        await self._put(key, kind, bound)

    async def _remove(self, key: str, wanted: Mapping[Kind, _Bound]) -> None:
        """Remove the limiters of a key that it is to have no more."""
        limits = self._limits[key]
        gone = [kind for kind, limit in limits.items() if not _same_kind(limit.bound, wanted.get(kind))]
        for kind in gone:
            del limits[kind]  # first: whoever asks from now on asks no more for this one
        if not limits:
            del self._limits[key]
        for path in [f"{GROUP}/{key}/{kind}" for kind in gone] if limits else [f"{GROUP}/{key}"]:
            await self._tree.remove(path, drain_timeout=0.0)

    async def _put(self, key: str, kind: Kind, bound: _Bound) -> None:
        limit = self._limit(key, kind)
        if limit is not None:
            if limit.bound != bound:
                limit.change(bound)
            return
        if not self._grouped:
            await self._tree.add(GroupSpec(GROUP))
            self._grouped = True
        if key not in self._limits:
            await self._tree.add(GroupSpec(key), under=GROUP)
        limit = _Limit(key, bound)
        await self._tree.add(ChildSpec(kind, limit.make), under=f"{GROUP}/{key}")
        limit.stands(self._tree.ref(f"{GROUP}/{key}/{kind}", LimiterState))
        self._limits.setdefault(key, {})[kind] = limit


def _bounds(key: KeyConfig) -> dict[Kind, _Bound]:
    """Return what the limiters of a key are to hold to."""
    bounds: dict[Kind, _Bound] = {}
    if key.token_budget is not None:
        limits = RateLimitConfig(tokens_per_minute=key.token_budget.tokens, adaptive=False, max_wait=0.0)
        bounds["budget"] = _Bound(limits, key.token_budget.window)
    if key.rate_limit is not None:
        bounds["rate"] = _Bound(key.rate_limit)
    return bounds


def _same_kind(bound: _Bound, wanted: _Bound | None) -> bool:
    """Whether a limiter can go on as another one."""
    return wanted is not None and wanted.window == bound.window


def _estimate(prompt: Prompt) -> tuple[int, int]:
    """Return how many tokens a request takes, and how many of them are merely what is expected of the answer."""
    output = estimate_output(prompt)
    return estimate_input(prompt) + output, output if prompt.max_tokens is None else 0
