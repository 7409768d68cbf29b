"""The core of the rate limiter: a bucket that is one stored instant, the pace at which it refills, and who waits.

The bucket is the generic cell rate algorithm (ITU-T I.371), which stores the instant at which the next request is due
instead of a balance: a balance of floats is not always full at the instant that it names itself. While an instant lies
in the past, each interval since then is one more request that may go at once, up to the burst.

The pace changes by itself at known instants only, so that everybody's turn can be told at any time:

- Additive increase, multiplicative decrease (Chiu and Jain 1989): a 429 halves the share of the configured rate that is
  used, once for all requests that were granted before; every 7.5 s after the pause an eighth of the configured rate
  comes back. A client that was stopped completely is at its full rate after a minute.
- What headers teach. Once `remaining` is at most half of `limit`, requests are paced so that what remains would last
  until `reset`. Where a limit refills steadily, this settles at half of it; where it is a fixed window, it is spread.
  An account that others have drained refills long before its `reset`, and only an answer can tell: so the interval
  grows at once to ten times `reset / limit` at most, and never beyond a minute.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final, Generic, Self, TypeVar

from attrs import evolve, frozen

from wizard_actors.config import RateLimitConfig
from wizard_actors.types import LimitHeaders, LimitWindow
from wizard_actors.waiting import Rejected, Ticked, Waiting, WaitingRoom

__all__ = ["Gcra", "GcraCore", "Grant", "LimiterState", "Pace"]

K = TypeVar("K", bound=Hashable)

LEAST_SHARE: Final = 1 / 16
SHARE_STEP: Final = 1 / 8  # sums of it are exact
STEP_EVERY: Final = 7.5
LONGEST_INTERVAL: Final = 60.0
SHORTEST_INTERVAL: Final = 0.001  # a thousand requests a second are no limit worth keeping


@frozen(eq=False)
class Grant:
    """Leave to send one request, given at the instant `at`. No two grants are equal: each is given back as itself."""

    at: float


class Gcra:
    """One bucket: a request every `interval` seconds (0: no limit), and up to `burst` at once after a rest. It is full
    at first.
    """

    def __init__(self, interval: float, burst: int) -> None:
        self._interval = interval
        self._burst = burst
        self._ready_at = -math.inf
        self._last_taken = -math.inf

    @property
    def interval(self) -> float:
        """Seconds from one request to the next."""
        return self._interval

    @property
    def ready_at(self) -> float:
        """The instant at which the next request is due; `try_take` at that instant always succeeds."""
        return self._ready_at

    def try_take(self, now: float) -> bool:
        """Take one request if it is due."""
        if now < self._ready_at:
            return False
        self._ready_at = self.saved_since(now) + self._interval
        self._last_taken = max(self._last_taken, now)
        return True

    def give_back(self, taken_at: float, fastest: float) -> None:
        """Return a request that was taken at `taken_at` and never sent: as much of it as nobody else got the use of.

        Without it the bucket might have been full for a part of the time up to the last taken request, and would have
        refilled nothing meanwhile. As much as refills in that time, at most, is lost: one request every `fastest`
        seconds. (Go's x/time/rate computes a cancelled reservation's worth so.)
        """
        elapsed = max(0.0, self._last_taken - taken_at)
        if fastest > 0.0:
            self._ready_at -= max(0.0, 1.0 - elapsed / fastest) * self._interval
        elif elapsed == 0.0:
            self._ready_at -= self._interval

    def forgo(self, before: float) -> None:
        """Drop what was saved up before the instant `before`: from then on, one request is due."""
        self._ready_at = max(self._ready_at, before)

    def empty(self, now: float) -> None:
        """Take whatever there is, for requests that nobody knows of."""
        self.forgo(now + self._interval)
        self._last_taken = max(self._last_taken, now)

    def set_interval(self, interval: float, at: float) -> None:
        """Change the pace from the instant `at` on; what was saved up, or is owed, keeps its worth in requests."""
        owed = (self.saved_since(at) - at) * (interval / self._interval) if self._interval else 0.0
        self._ready_at = at + owed
        self._interval = interval

    def saved_since(self, now: float) -> float:
        """Return the instant since which requests have been saved up, in the future where the next one is not due."""
        return max(self._ready_at, now - (self._burst - 1) * self._interval)


@frozen
class Pace:
    """How fast requests may go, and when that changes by itself.

    `share` is the part of the configured rate in use, and grows at `step_at`. `learned` is the interval in seconds that
    an answer's headers taught, until `learned_until`; 0.0: none.
    """

    share: float = 1.0
    step_at: float = math.inf
    learned: float = 0.0
    learned_until: float = math.inf

    @property
    def changes_at(self) -> float:
        """The instant of the next change, always for the faster."""
        return min(self.step_at, self.learned_until)

    def interval(self, base: float) -> float:
        """Return the seconds from one request to the next where the configured rate allows one every `base`."""
        return max(base / self.share, self.learned)

    def next(self) -> Pace:
        """Return the pace from `changes_at` on."""
        if self.learned_until <= self.step_at:
            return evolve(self, learned=0.0, learned_until=math.inf)
        share = min(1.0, self.share + SHARE_STEP)
        return evolve(self, share=share, step_at=self.step_at + STEP_EVERY if share < 1.0 else math.inf)

    def halved(self, resume_at: float) -> Pace:
        """Return the pace after a 429, recovering from `resume_at` on."""
        return evolve(self, share=max(self.share / 2, LEAST_SHARE), step_at=resume_at + STEP_EVERY)

    def taught(self, window: LimitWindow, now: float) -> Pace:
        """Return the pace after an answer that described its limit so; see the module's docstring."""
        if window.remaining is None or window.reset is None:
            return self
        if not (0.0 <= window.remaining < math.inf and 0.0 < window.reset < math.inf):  # "-1" and "0" have been seen
            return self
        limit = window.limit if window.limit and 0.0 < window.limit < math.inf else 0.0
        spread = window.reset / window.remaining if window.remaining else math.inf
        most = max(10 * window.reset / limit, self.learned) if limit else math.inf
        interval = min(spread, most, LONGEST_INTERVAL)
        if window.remaining > limit / 2 > 0.0 or interval < SHORTEST_INTERVAL:
            return evolve(self, learned=0.0, learned_until=math.inf) if self.learned else self
        return evolve(self, learned=interval, learned_until=now + window.reset)


@frozen
class LimiterState:
    """What others see of a limiter, and what its next incarnation starts from.

    `rate` is requests a minute at present, None where unlimited; nobody is granted anything before `paused_until`.
    `throttled` counts the requests that had to wait, `refunded` the grants that came back unsent.
    """

    paused_until: float = -math.inf
    slowed_at: float = -math.inf
    pace: Pace = Pace()
    rate: float | None = None
    waiting: int = 0
    granted: int = 0
    throttled: int = 0
    rejected: int = 0
    refunded: int = 0


class GcraCore(Generic[K]):
    """Requests a minute: grants in order of arrival, each as soon as it is due, or a rejection as soon as it is clear
    that it will come too late.

    A waiter is any hashable key. Whoever waits holds nothing: one who is forgotten costs nothing, and the others move
    up. Every method takes the present instant `now`; an instant before an earlier one is harmless. What becomes due, or
    has to be rejected, is handed out by `tick`; `wake_at` says when that is. `config.burst` None is what the configured
    rate allows in one second, at least 1.
    """

    def __init__(self, config: RateLimitConfig) -> None:
        rate = config.requests_per_minute
        self._base = 60.0 / rate if rate else 0.0
        self._bucket = Gcra(self._base, config.burst or max(1, int((rate or 0.0) // 60)))
        self._pace = Pace()
        self._paused_until = -math.inf
        self._slowed_at = -math.inf
        self._room: WaitingRoom[K] = WaitingRoom(config.queue)
        self._late: dict[K, None] = {}
        self._late_since = math.inf
        self._granted = self._throttled = self._rejected = self._refunded = 0

    @classmethod
    def restore(cls, config: RateLimitConfig, carry: LimiterState, now: float) -> Self:
        """Make the next incarnation after a crash: its bucket is empty, a running pause and a slow-down go on."""
        core = cls(config)
        core._paused_until, core._slowed_at = carry.paused_until, carry.slowed_at
        core._set_pace(carry.pace, now)
        core._advance(now)
        core._bucket.empty(now)
        core._granted, core._throttled = carry.granted, carry.throttled
        core._rejected, core._refunded = carry.rejected, carry.refunded
        return core

    # -- requests

    def acquire(self, key: K, now: float, give_up_at: float) -> Grant | Waiting | Rejected:
        """Ask for one request, at the instant `give_up_at` at the latest. Nobody overtakes who waits already."""
        self._advance(now)
        if not self._room and now <= give_up_at and self._try_take(now):
            return Grant(now)
        due = self._due(len(self._room), now)
        if due > give_up_at or self._room.full:
            self._rejected += 1
            return Rejected(due - now)
        self._room.enter(key, give_up_at)
        self._throttled += 1
        return Waiting(due)

    def forget(self, key: K) -> None:
        """Drop a waiter that has gone; the others move up."""
        if not self._room.leave(key) and key in self._late:
            del self._late[key]

    def refund(self, grant: Grant, now: float) -> None:
        """Take back a grant whose request was never sent; to be called once a grant at most."""
        self._advance(now)
        self._refunded += 1
        self._bucket.give_back(grant.at, self._base)

    @property
    def full(self) -> bool:
        """Whether nobody else may wait."""
        return self._room.full

    # -- what providers say

    def pause(self, until: float, now: float) -> None:
        """Grant nothing before `until`. A shorter pause never ends a longer one, and nothing is saved up meanwhile."""
        if until <= self._paused_until:
            return
        self._advance(now)
        self._paused_until = until
        if self._pace.step_at < math.inf:
            self._pace = evolve(self._pace, step_at=max(self._pace.step_at, until + STEP_EVERY))
        self._replan(now)

    def slow_down(self, granted_at: float, now: float) -> None:
        """Halve the rate after a 429 to a request that was granted at `granted_at`, where a rate is configured.

        The answers to requests that were under way when the rate was halved say nothing about the new one.
        """
        if not self._base or granted_at <= self._slowed_at:
            return
        self._advance(now)
        self._slowed_at = now
        self._bucket.forgo(now)
        self._set_pace(self._pace.halved(max(now, self._paused_until)), now)
        self._replan(now)

    def observe(self, limits: LimitHeaders, now: float) -> None:
        """Learn from an answer's headers, before there is a 429. Only slows down; absurd values are ignored."""
        if limits.requests is None:
            return
        self._advance(now)
        pace = self._pace.taught(limits.requests, now)
        if pace is self._pace:
            return
        self._set_pace(pace, now)
        if pace.learned and limits.requests.remaining is not None:
            # What was saved up here is not there if the provider does not know of it.
            self._bucket.forgo(now - (limits.requests.remaining - 1.0) * self._bucket.interval)
        self._replan(now)

    # -- time

    def wake_at(self) -> float:
        """Return the next instant at which `tick` has something to do; infinite where nobody waits."""
        if self._late:
            return self._late_since
        if not self._room:
            return math.inf
        return min(self._ready_at, self._pace.changes_at, self._room.next_give_up())

    def tick(self, now: float) -> Ticked[K, Grant]:
        """Hand out what is due at `now`: grants, and rejections to those who would be too late."""
        self._advance(now)
        granted: list[tuple[K, Grant]] = []
        rejected = list(self._late)
        self._late.clear()
        while self._room:
            key, give_up_at = self._room.first()
            if self._due(0, now) > give_up_at:
                rejected.append(key)
            elif self._try_take(now):
                granted.append((key, Grant(now)))
            else:
                break
            self._room.leave(key)
        rejected += self._room.turn_out(now)
        self._rejected += len(rejected)
        return Ticked(tuple(granted), tuple(rejected), Rejected(self._due(len(self._room), now) - now))

    def snapshot(self) -> LimiterState:
        """Return the state, for readers and for the next incarnation."""
        return LimiterState(
            paused_until=self._paused_until,
            slowed_at=self._slowed_at,
            pace=self._pace,
            rate=60.0 / self._bucket.interval if self._bucket.interval else None,
            waiting=len(self._room) + len(self._late),
            granted=self._granted,
            throttled=self._throttled,
            rejected=self._rejected,
            refunded=self._refunded,
        )

    @property
    def _ready_at(self) -> float:
        return max(self._bucket.ready_at, self._paused_until)

    def _try_take(self, now: float) -> bool:
        if now < self._paused_until:
            return False
        self._bucket.forgo(self._paused_until)
        if not self._bucket.try_take(now):
            return False
        self._granted += 1
        return True

    def _advance(self, now: float) -> None:
        """Make the changes of pace that have become due."""
        while (at := self._pace.changes_at) <= now:
            self._set_pace(self._pace.next(), at)

    def _set_pace(self, pace: Pace, at: float) -> None:
        self._pace = pace
        self._bucket.forgo(min(self._paused_until, at))
        interval = pace.interval(self._base)
        if interval != self._bucket.interval:
            self._bucket.set_interval(interval, at)

    def _due(self, ahead: int, now: float) -> float:
        """Return when a waiter with `ahead` others before it will be granted, if nothing happens but time."""
        ready, pause = self._bucket.saved_since(now), self._paused_until
        pace, interval = self._pace, self._bucket.interval
        while (due := max(ready, pause) + ahead * interval) > (end := pace.changes_at):
            pace = pace.next()
            scale = pace.interval(self._base) / interval
            if max(ready, pause) < end:  # some are granted before the pace changes; what is left shrinks with it
                ready, pause, ahead = end + (due - end) * scale, -math.inf, 0
            else:
                ready = end + (max(ready, end) - end) * scale
            interval *= scale
        return max(now, due)

    def _replan(self, now: float) -> None:
        """Set aside, for the next tick, whoever would be granted too late now."""
        ahead = 0
        for key, give_up_at in tuple(self._room):
            if self._due(ahead, now) > give_up_at:
                self._room.leave(key)
                self._late[key] = None
                self._late_since = min(self._late_since, now) if len(self._late) > 1 else now
            else:
                ahead += 1
