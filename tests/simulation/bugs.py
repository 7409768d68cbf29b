"""Bugs to plant into the client, each into one of its cores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pytest
import trio
from attrs import evolve

from wizard_actors import DeadlineExceededError, NetworkError, StreamInterruptedError, WizardError
from wizard_actors.attempt import Attempt
from wizard_actors.breaker_core import BreakerCore, Circuit, Permit
from wizard_actors.cache_key import cache_key
from wizard_actors.circuit_breaker import Admit
from wizard_actors.config import ModelConfig
from wizard_actors.event_stream import EventStream
from wizard_actors.events import Event, RequestEnded
from wizard_actors.flight import Flight
from wizard_actors.keeping import Keeping
from wizard_actors.mailbox import Mailbox, Refusal
from wizard_actors.pace import Gcra
from wizard_actors.providers.base import Call
from wizard_actors.providers.http_provider import HttpAnswer, HttpProvider
from wizard_actors.providers.wire import Outgoing, Wire
from wizard_actors.request import Request
from wizard_actors.response_stream import ResponseStream
from wizard_actors.retry import RetryBudget
from wizard_actors.session import Session
from wizard_actors.session_store import Begin, Lease
from wizard_actors.session_turn import Turn
from wizard_actors.shared import InFlight
from wizard_actors.testing.simulation import transport
from wizard_actors.timing import Timing
from wizard_actors.token_window import TokenWindow
from wizard_actors.types import ModelEvent, Prompt, StreamEvent, TextDelta
from wizard_actors.verdict import Outcome
from wizard_actors.way import Way
from wizard_actors.worker import TakeSlot

Patch: TypeAlias = pytest.MonkeyPatch


# -- limits ------------------------------------------------------------------------------------------------------------


def rounded_balance(patch: Patch) -> None:
    """A bucket that is a rounded balance of floats, and never in debt: half a unit is as good as one."""

    def due(self: Gcra, amount: float = 1.0) -> float:
        return self.empty_at + (min(amount, self._burst) - 0.5) * self.interval if self.interval else -math.inf

    def charge(self: Gcra, amount: float, now: float) -> None:
        self._empty_at = min(now, self._saved_since(now) + amount * self.interval)

    patch.setattr(Gcra, "due", due)
    patch.setattr(Gcra, "charge", charge)


def endless_minute(patch: Patch) -> None:
    """Nobody counts the minute's tokens: what the bucket holds comes on top of the limit."""
    patch.setattr(TokenWindow, "free_at", lambda self, amount: -math.inf)


# -- the breaker -------------------------------------------------------------------------------------------------------


def unfenced(patch: Patch) -> None:
    """Permits of an earlier generation count: a call of before the circuit opened frees the place of a probe."""

    def settle(self: BreakerCore, permit: Permit, outcome: Outcome, now: float) -> None:
        if permit in self._live:
            self._live.remove(permit)
            self._heard.discard(permit)
            self._probes_out -= self._circuit is Circuit.HALF_OPEN
            self._learn(outcome, now)

    patch.setattr(BreakerCore, "settle", settle)


def probes_for_all(patch: Patch) -> None:
    """A half-open circuit has a place for everybody."""
    patch.setattr(BreakerCore, "_probes_free", property(lambda self: 1000))


def permit_first(patch: Patch) -> None:
    """The breaker is asked first, and the limiter waited for with its permit in hand."""

    async def get_leave(self: Attempt) -> None:
        self._permit = await self.port.breaker.ask(Admit())
        self._slot = await self._ask(self.port.worker, TakeSlot(self._call.request_id, math.inf))
        self._grant = await self._get_rate()

    patch.setattr(Attempt, "_get_leave", get_leave)


# -- the attempt -------------------------------------------------------------------------------------------------------


def kept(what: str) -> Callable[[Patch], None]:
    """Return the bug of an attempt that gives back what it was granted only where its call has come to an end."""

    def plant(patch: Patch) -> None:
        settle = Attempt._settle

        def forgetful(self: Attempt, outcome: Outcome, error: WizardError | None) -> None:
            if outcome is Outcome.IGNORED:
                setattr(self, what, None)
            settle(self, outcome, error)

        patch.setattr(Attempt, "_settle", forgetful)

    return plant


def hasty_release(patch: Patch) -> None:
    """A slot is free before its exchange is closed: here, as soon as the call was sent."""
    open_ = Attempt._open

    async def hasty(self: Attempt) -> None:
        self._release()
        await open_(self)

    patch.setattr(Attempt, "_open", hasty)


def trusting(patch: Patch) -> None:
    """An answer that ends without a finish signal passes for a whole one."""
    read = Attempt.read

    async def careless(self: Attempt) -> object:
        try:
            return await read(self)
        except StreamInterruptedError:
            self._done()
            return None

    patch.setattr(Attempt, "read", careless)


def deaf_to_deadlines(patch: Patch) -> None:
    """A call takes as long as its model's own limits allow."""
    patch.setattr(Timing, "until", lambda self: self._total_at)


# -- the retry budget --------------------------------------------------------------------------------------------------


def boundless_budget(patch: Patch) -> None:
    """Every retry is paid for."""
    patch.setattr(RetryBudget, "try_spend", lambda self, now: True)


def free_hedges(patch: Patch) -> None:
    """Hedges cost nothing."""
    patch.setattr(Way, "_pay", lambda self, name: True)


# -- the cache ---------------------------------------------------------------------------------------------------------


def unpromoted(patch: Patch) -> None:
    """Nobody takes a cancelled leader's place."""
    patch.setattr(Flight, "hand_over", lambda self: None)


def all_promoted(patch: Patch) -> None:
    """Everybody takes a cancelled leader's place."""

    def everybody(self: Flight[object]) -> None:
        while self._seats:
            seat, _ = self._seats.popitem()
            seat.leads = True
            seat.woken.set()

    patch.setattr(Flight, "hand_over", everybody)


def one_for_all_tenants(patch: Patch) -> None:
    """The cache's key has no tenant."""

    def without(prompt: Prompt, models: Sequence[ModelConfig], *, tenant: str) -> bytes | None:
        return cache_key(prompt, models)

    patch.setattr("wizard_actors.answering.cache_key", without)


# -- the kernel, sessions, and the books -------------------------------------------------------------------------------


def lost_replies(patch: Patch) -> None:
    """Whoever an actor keeps waiting hears nothing of its crash."""

    def forget(self: Mailbox, make: Refusal) -> None:
        self.in_hand = None
        self.kept.clear()

    patch.setattr(Mailbox, "fail_kept", forget)


def unstored(patch: Patch) -> None:
    """A turn is acknowledged, and its answer is only in memory."""

    async def put(self: Keeping, session: Session) -> Session:
        await trio.lowlevel.checkpoint()
        return session.saved()

    patch.setattr(Keeping, "put", put)


def discouraged(patch: Patch) -> None:
    """A turn that waits for another one of its session fails where the store of sessions crashes."""

    async def take(self: Keeping, session: str, request_id: str, *, deadline: float = math.inf) -> Lease:
        return await self.store.ask(Begin(session, request_id), deadline=deadline)

    patch.setattr(Keeping, "take", take)


def told_twice(patch: Patch) -> None:
    """A cancelled request is reported twice."""
    publish = EventStream.publish

    def twice(self: EventStream, event: Event) -> None:
        publish(self, event)
        if isinstance(event, RequestEnded) and event.code == "cancelled":
            publish(self, event)

    patch.setattr(EventStream, "publish", twice)


# -- what is sent, and what is read ------------------------------------------------------------------------------------


def same_for_all(patch: Patch) -> None:
    """Every call sends what the first one sent."""
    first: list[bytes] = []
    ask = HttpProvider.ask

    async def stuck(self: HttpProvider, call: Call, wire: Wire, outgoing: Outgoing) -> HttpAnswer:
        first.append(outgoing.body)
        return await ask(self, call, wire, evolve(outgoing, body=first[0]))

    patch.setattr(HttpProvider, "ask", stuck)


def forgetful(patch: Patch) -> None:
    """A model is shown nothing of what was said before."""
    request = Turn._request

    def without_history(self: Turn, session: Session) -> Request:
        return request(self, evolve(session, record=evolve(session.record, turns=())))

    patch.setattr(Turn, "_request", without_history)


def garbled(patch: Patch) -> None:
    """The pieces of a stream are not those of its answer."""
    read = ResponseStream.__anext__

    async def garble(self: ResponseStream) -> StreamEvent:
        event = await read(self)
        return evolve(event, text="?") if isinstance(event, TextDelta) else event

    patch.setattr(ResponseStream, "__anext__", garble)


def choking(patch: Patch) -> None:
    """The parser fails on every third answer."""
    read, count = HttpAnswer._read, itertools.count()

    async def choke(self: HttpAnswer) -> list[ModelEvent]:
        if next(count) % 3 == 2:
            raise KeyError("choices")
        return await read(self)

    patch.setattr(HttpAnswer, "_read", choke)


def failing(patch: Patch) -> None:
    """What should never happen happens after three seconds."""
    make_plan = Way.plan

    async def fail(self: Way) -> None:
        if trio.current_time() > 3:
            raise KeyError("a")
        await make_plan(self)

    patch.setattr(Way, "plan", fail)


# -- who is answered, and until when -----------------------------------------------------------------------------------


def refusing(patch: Patch) -> None:
    """Everybody is refused at once."""

    async def refuse(self: Way) -> None:
        await trio.lowlevel.checkpoint()
        raise NetworkError("no", model="a")

    patch.setattr(Way, "plan", refuse)


def distrustful(patch: Patch) -> None:
    """A whole answer passes for one that broke off."""
    read = Attempt.read

    async def doubt(self: Attempt) -> object:
        part = await read(self)
        if part is None:
            raise StreamInterruptedError("it broke off", model="a")
        return part

    patch.setattr(Attempt, "read", doubt)


def lingering(patch: Patch) -> None:
    """The connection of whoever has left is closed five seconds later."""
    close = transport._Exchange.close

    async def later(exchange: transport._Exchange) -> None:
        await trio.sleep(5.0)
        close(exchange)

    def linger(self: transport._Exchange) -> None:
        if self.call.over is None:
            trio.lowlevel.spawn_system_task(later, self)
        else:
            close(self)

    patch.setattr(transport._Exchange, "close", linger)


def endlessly_patient(patch: Patch) -> None:
    """Only the caller's own deadline ends a call."""
    patch.setattr(Timing, "until", lambda self: min(self._patience.deadline, trio.current_time() + 3000))


def unlimited(patch: Patch) -> None:
    """No limiter has anybody wait."""
    patch.setattr(Gcra, "due", lambda self, amount=1.0: -math.inf)
    endless_minute(patch)


def flattered(patch: Patch) -> None:
    """Who was cancelled is told as answered."""
    publish = EventStream.publish

    def flatter(self: EventStream, event: Event) -> None:
        if isinstance(event, RequestEnded) and event.code == "cancelled":
            event = evolve(event, code=None)
        publish(self, event)

    patch.setattr(EventStream, "publish", flatter)


def hurried(patch: Patch) -> None:
    """Every second request has a deadline that nobody gave."""
    make_plan, count = Way.plan, itertools.count()

    async def hurry(self: Way) -> None:
        if next(count) % 2:
            raise DeadlineExceededError("the deadline of 0 s has passed", deadline=0.0)
        await make_plan(self)

    patch.setattr(Way, "plan", hurry)


def uncounted(patch: Patch) -> None:
    """Nobody counts how many are in flight."""
    patch.setattr(InFlight, "count", property(lambda self: 0, lambda self, count: None))
