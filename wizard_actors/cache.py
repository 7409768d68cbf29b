"""The response cache: which answers are stored, and which calls are under way. See `wizard_actors.cache_messages`."""

from __future__ import annotations

import fnmatch
import math
import re
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import attrs
from attrs import define, evolve, field, frozen

from wizard_actors.actor import Actor, Ledger, Reply, Waiter, handles, hears
from wizard_actors.cache_key import Key
from wizard_actors.cache_messages import (
    Follow,
    Hit,
    Invalidate,
    Landed,
    Lead,
    Look,
    Lookup,
    Miss,
    SharedCall,
    Store,
    cacheable,
)
from wizard_actors.config import CacheConfig
from wizard_actors.errors import MailboxFullError
from wizard_actors.flight import MAX_FOLLOWERS, Flight
from wizard_actors.lru import Sweep, TtlLru
from wizard_actors.types import Signature, WizardResponse

__all__ = ["CacheState", "ResponseCache"]

MAX_FLIGHTS: Final = 10_000
MAX_SWEEPS: Final = 16
SLICE: Final = 200_000
"""Characters that one turn of an invalidation looks at: some milliseconds."""


@frozen
class _Stored:
    """One answer, what globs are matched against, and the instant at which it was stored."""

    response: WizardResponse
    model: str
    text: str
    at: float

    def size(self) -> int:
        """How many bytes it takes."""
        response = self.response
        parts: list[object] = [self, self.at, self.model, self.text]
        parts += [response, response.text, response.model, response.upstream_model, response.raw_finish_reason]
        parts += [response.thoughts, response.tool_calls]
        for call in response.tool_calls:
            parts += [call, call.id, call.name, call.arguments, *_signature(call.signature)]
        for thought in response.thoughts:
            parts += [thought, thought.text, thought.id, *_signature(thought.signature)]
        usage = response.usage
        if usage is not None:
            parts += [usage, usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens]
            parts.append(usage.cache_write_tokens)
        return sum(map(_bytes_of, parts))


def _bytes_of(part: object) -> int:
    """Return what a value takes: of a text that is not ASCII, with the copy in UTF-8 that CPython keeps of it once it
    has been encoded, whether it has that yet or not.
    """
    if not isinstance(part, str) or part.isascii():
        return sys.getsizeof(part)
    return sys.getsizeof(part + " ") + len(part.encode("utf-8", "surrogatepass"))  # the sum is a new text, without one


def _signature(signature: Signature | None) -> tuple[object, ...]:
    return () if signature is None else (signature, signature.protocol, signature.value)


@define
class _Counts:
    """What the cache has done since its tree was started."""

    hits: int = 0
    misses: int = 0
    stale: int = 0
    stored: int = 0
    invalidated: int = 0
    led: int = 0
    followed: int = 0


@frozen
class CacheState:
    """What the cache holds, `entries` and `bytes`, and what it has done since its tree was started, crashes or not.

    `hits` and `misses` count lookups, `stale` those misses for which a stored answer could stand in; `stored`,
    `evicted` (to make room), `expired` and `invalidated` count answers, `led` and `followed` callers. `flights` are the
    calls under way, of equal ones the newest: a view of the actor's own table, which the next incarnation goes on with.
    """

    entries: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0
    stale: int = 0
    stored: int = 0
    evicted: int = 0
    expired: int = 0
    invalidated: int = 0
    led: int = 0
    followed: int = 0
    flights: Mapping[Key, SharedCall] = field(factory=dict, repr=lambda flights: str(len(flights)))

    def to_dict(self) -> dict[str, int]:
        """Return the counts, that of the flights among them."""
        shown: dict[str, int] = {each.name: getattr(self, each.name) for each in attrs.fields(CacheState)[:-1]}
        return {**shown, "flights": len(self.flights)}


def _matching(message: Invalidate) -> Callable[[_Stored], bool]:
    """Return the test that an invalidation puts to every answer."""
    model, text = _pattern(message.model_glob), _pattern(message.text_glob)
    return lambda stored: (
        (model is None or model.match(stored.model) is not None)
        and (text is None or text.match(stored.text) is not None)
    )


def _pattern(glob: str) -> re.Pattern[str] | None:
    return None if glob == "*" else re.compile(fnmatch.translate(glob))


class ResponseCache(Actor):
    """Keeps answers and knows the calls under way. After a crash it is empty, and the flights are carried.

    It never stops receiving. Everything is bounded: answers by `config`, flights (whoever comes beyond that leads one
    that nobody joins), the followers of each (whoever comes beyond that leads a further one, which the next ones join),
    invalidations at a time. A told message that was dropped costs an answer not stored; a flight that is over is
    recognised without it.
    """

    def __init__(
        self,
        config: CacheConfig,
        ledger: Ledger,
        carry: object,
        *,
        max_flights: int = MAX_FLIGHTS,
        max_followers: int = MAX_FOLLOWERS,
    ) -> None:
        self._serves_stale = config.stale_if_error > 0
        self._max_flights = max_flights
        self._max_followers = max_followers
        self._store: TtlLru[_Stored] = TtlLru(
            max_entries=config.max_entries,
            max_bytes=config.max_bytes,
            ttl=config.ttl,
            stale_for=config.stale_if_error,
        )
        self._flights: OrderedDict[Key, SharedCall] = OrderedDict()
        self._view = MappingProxyType(self._flights)
        self._counts = _Counts()
        self._sweeps: deque[tuple[Reply[int], Sweep[_Stored]]] = deque()
        self._sweep_at = math.inf
        if isinstance(carry, CacheState):
            self._take_over(carry)

    def _take_over(self, carry: CacheState) -> None:
        self._flights.update((key, flight) for key, flight in carry.flights.items() if not flight.over)
        self._counts = _Counts(**{each.name: getattr(carry, each.name) for each in attrs.fields(_Counts)})
        self._store.evicted, self._store.expired = carry.evicted, carry.expired

    # -- answers

    @handles(Lookup)
    def lookup(self, message: Lookup, reply: Reply[Hit | Lead | Follow], now: float) -> None:
        """Answer with what is stored, else with a flight to lead or to follow."""
        found = self._stored(message.key, now, refresh=message.fresh_only)
        if isinstance(found, Hit):
            reply.send(found)
            return
        flight_key = message.key if message.flight_key is None else message.flight_key
        flight = self._flights.get(flight_key)
        if flight is None or flight.over or flight.full:
            self._lead(flight_key, found, reply)
        else:
            self._follow(flight, found, reply)

    @handles(Look)
    def look(self, message: Look, reply: Reply[Hit | Miss], now: float) -> None:
        """Answer with what is stored."""
        reply.send(self._stored(message.key, now, refresh=message.fresh_only))

    def _stored(self, key: Key, now: float, *, refresh: bool) -> Hit | Miss:
        found = self._store.get(key, now)
        if found is not None and found.fresh and not refresh:
            self._counts.hits += 1
            return Hit(found.value.response, max(0.0, now - found.value.at))
        self._counts.misses += 1
        if found is None or not self._serves_stale:
            return Miss()
        self._counts.stale += 1
        return Miss(found.value.response)

    @hears(Store)
    def keep(self, message: Store, now: float) -> None:
        """Store an answer, without what belongs to the request that it was for."""
        if not cacheable(message.response):
            return
        response = evolve(message.response, attempts=(), cost=None, request_id="")
        stored = _Stored(response, message.model, message.text, now)
        self._counts.stored += self._store.put(message.key, stored, stored.size(), now)

    # -- flights

    def _lead(self, flight_key: Key, found: Miss, reply: Reply[Hit | Lead | Follow]) -> None:
        """Let the caller lead a new flight, known to others once it has been told, in place of one that is over or
        full; where there are as many as may be, one that nobody joins.
        """
        self._tidy()
        known = flight_key in self._flights or len(self._flights) < self._max_flights
        flight: SharedCall = Flight(max_followers=self._max_followers)
        if not reply.send(Lead(flight, found.stale)):
            return
        self._counts.led += 1
        if known:
            self._flights[flight_key] = flight

    def _follow(self, flight: SharedCall, found: Miss, reply: Reply[Hit | Lead | Follow]) -> None:
        flight.reserve()
        if reply.send(Follow(flight, found.stale)):
            self._counts.followed += 1
        else:
            flight.release()

    def _tidy(self) -> None:
        """Drop flights that are over and whose `Landed` was lost: two are looked at for each one that is added."""
        for _ in range(min(2, len(self._flights))):
            key, flight = self._flights.popitem(last=False)
            if not flight.over:
                self._flights[key] = flight

    @hears(Landed)
    def landed(self, message: Landed, now: float) -> None:
        """Drop a flight that is over, unless another has taken its place."""
        if message.flight.over and self._flights.get(message.flight_key) is message.flight:
            del self._flights[message.flight_key]

    # -- invalidation

    @handles(Invalidate)
    def invalidate(self, message: Invalidate, reply: Reply[int], now: float) -> None:
        """Drop what matches; in slices where that is much, so that nobody else has to wait for it."""
        if len(self._sweeps) >= MAX_SWEEPS:
            reply.fail(MailboxFullError(f"{MAX_SWEEPS} invalidations are under way already", actor="cache"))
        elif message.model_glob == message.text_glob == "*":
            self._counts.invalidated += (removed := self._store.clear())
            reply.send(removed)
        else:
            self._sweeps.append((reply, Sweep(self._store, _matching(message))))
            if len(self._sweeps) == 1:
                self._sweep_at = now - 1.0
                self._work()

    def _work(self) -> None:
        """Work on the oldest invalidation for one slice. The next one is due at once, but after everybody else's turn:
        at an instant that has passed, and still moves on.
        """
        reply, sweep = self._sweeps[0]
        before = sweep.removed
        done = sweep.advance(SLICE, lambda stored: len(stored.text) + len(stored.model) + 100)
        self._counts.invalidated += sweep.removed - before
        if done:
            self._sweeps.popleft()
            reply.send(sweep.removed)
        self._sweep_at = math.nextafter(self._sweep_at, math.inf) if self._sweeps else math.inf

    def forget(self, waiter: Waiter, now: float) -> None:
        """Leave an invalidation unfinished: nobody waits for it."""
        self._sweeps = deque(each for each in self._sweeps if each[0] is not waiter)
        if not self._sweeps:
            self._sweep_at = math.inf

    # -- time

    def wake_at(self) -> float:
        """When the oldest answer's time is over, or an invalidation goes on."""
        return min(self._store.next_expiry(), self._sweep_at)

    def tick(self, now: float) -> None:
        """Drop what is over; go on with an invalidation."""
        self._store.expire(now)
        if self._sweeps:
            self._work()

    def snapshot(self) -> CacheState:
        """Return what is held and what has been done."""
        counts = self._counts
        return CacheState(
            len(self._store),
            self._store.bytes,
            counts.hits,
            counts.misses,
            counts.stale,
            counts.stored,
            self._store.evicted,
            self._store.expired,
            counts.invalidated,
            counts.led,
            counts.followed,
            self._view,
        )
