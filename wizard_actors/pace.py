"""How fast requests, or tokens, may go: a bucket that is one stored instant, and the pace at which it fills. Pure.

The bucket is the generic cell rate algorithm (ITU-T I.371) for amounts. It stores the instant at which it was, or will
be, empty instead of a balance: a balance of floats is not always full at the instant that it names itself. While that
instant lies in the past, each interval since then is one unit more that may go at once, up to the burst.

The pace changes by itself at known instants only, so that everybody's turn can be told at any time:

- Additive increase, multiplicative decrease (Chiu and Jain 1989): a 429 halves the share of the configured rate that is
  used, once for all requests that were granted before; every 7.5 s after the pause an eighth of the configured rate
  comes back. A client that was stopped completely is at its full rate after a minute.
- What headers teach. While more than half of `limit` remains, what is over the half may go at once, and after it as
  fast as the limit refills (no slower than its size a minute). Once at most half remains, it is paced so that what
  remains would last until `reset`. Where a limit refills steadily, this settles at half of it; where it is a fixed
  window, it is spread. What was granted since the call that the headers answer is taken off first. An account that
  others have drained refills long before its `reset`, and only an answer can tell: so the interval grows at once to ten
  times `reset / limit` at most, and never beyond a minute for a request, or a thousand tokens.
- The slow start. Where no rate is configured, nobody knows what the account allows before its first answer: 32 requests
  and 20,000 tokens may go at once, then 4 and 1,000 a second. That ends with the first answer, or after 5 s, so that a
  slow model delays nobody for longer. A 429 where nothing is known of the limit starts it again, at a quarter, and with
  a single request.
"""

from __future__ import annotations

import math
from typing import Final

from attrs import evolve, frozen

from wizard_actors.types import LimitWindow

__all__ = ["REQUESTS", "STEP_EVERY", "TOKENS", "Gcra", "Pace", "Scale"]

LEAST_SHARE: Final = 1 / 16
SHARE_STEP: Final = 1 / 8  # sums of it are exact
STEP_EVERY: Final = 7.5
START_LASTS: Final = 5.0
MINUTE: Final = 60.0


@frozen
class Scale:
    """What differs between requests and tokens. `longest` and `shortest` bound a learned interval (below the shortest
    a limit is not worth keeping), `at_least` may go at once where little remains. `start_at_once` and
    `start_interval` are the slow start's, and `again_at_once` what may go at once when it begins again.
    """

    longest: float
    shortest: float
    at_least: float
    start_at_once: float
    start_interval: float
    again_at_once: float


REQUESTS: Final = Scale(60.0, 0.001, 1.0, 32.0, 1 / 4, 1.0)
TOKENS: Final = Scale(0.06, 1e-6, 0.0, 20_000.0, 1 / 1_000, 5_000.0)


class Gcra:
    """One bucket: a unit every `interval` seconds (0: no limit), and up to `burst` units at once after a rest. It is
    full at first. An amount above the burst needs a full bucket, and leaves a debt.
    """

    __slots__ = ("_burst", "_empty_at", "_interval", "_last_taken")

    def __init__(self, interval: float, burst: float, empty_at: float = -math.inf) -> None:
        self._interval = interval
        self._burst = burst
        self._empty_at = empty_at
        self._last_taken = -math.inf

    @property
    def interval(self) -> float:
        """Seconds from one unit to the next."""
        return self._interval

    @property
    def empty_at(self) -> float:
        """The instant at which the bucket was empty, in the future where it is in debt."""
        return self._empty_at

    def copy(self) -> Gcra:
        """Return a bucket that goes its own way from here."""
        other = Gcra(self._interval, self._burst, self._empty_at)
        other._last_taken = self._last_taken
        return other

    def due(self, amount: float = 1.0) -> float:
        """Return the instant at which `amount` is due; `try_take` at that instant always succeeds."""
        if not self._interval:
            return -math.inf
        return self._empty_at + min(amount, self._burst) * self._interval

    def saved(self, now: float) -> float:
        """Return how much may go at once, below zero where the bucket is in debt; infinite where there is no limit."""
        return (now - self._saved_since(now)) / self._interval if self._interval else math.inf

    def used(self, now: float) -> float:
        """Return how much of the burst may not go at once; at most all of it."""
        return min(self._burst - self.saved(now), self._burst) if self._interval else 0.0

    def try_take(self, now: float, amount: float = 1.0) -> bool:
        """Take `amount` if it is due."""
        if now < self.due(amount):
            return False
        self.charge(amount, now)
        return True

    def charge(self, amount: float, now: float) -> None:
        """Take `amount`, due or not: what is not there becomes a debt."""
        self._empty_at = self._saved_since(now) + amount * self._interval
        self._last_taken = max(self._last_taken, now)

    def credit(self, amount: float) -> None:
        """Put `amount` in, or write off a debt; what flows over is found out when something is taken next."""
        self._empty_at -= amount * self._interval

    def forgive(self, after: float) -> None:
        """Write off what would be owed after the instant `after`."""
        self._empty_at = min(self._empty_at, after)

    def give_back(self, taken_at: float, fastest: float) -> None:
        """Return one unit that was taken at `taken_at` and never used: as much of it as nobody else got the use of.

        Without it the bucket might have been full for a part of the time up to the last taken unit, and would have
        refilled nothing meanwhile. As much as refills in that time, at most, is lost: one unit every `fastest` seconds.
        (Go's x/time/rate computes a cancelled reservation's worth so.)
        """
        elapsed = max(0.0, self._last_taken - taken_at)
        if fastest > 0.0:
            self.credit(max(0.0, 1.0 - elapsed / fastest))
        elif elapsed == 0.0:
            self.credit(1.0)

    def forgo(self, before: float, amount: float = 1.0) -> None:
        """Drop what was saved up before the instant `before`: from then on, `amount` is due."""
        self._empty_at = max(self._empty_at, before - min(amount, self._burst) * self._interval)

    def leave(self, amount: float, now: float) -> None:
        """Leave no more than `amount` that may go at once at `now`."""
        self._empty_at = max(self._empty_at, now - amount * self._interval)

    def fill(self, amount: float, now: float) -> None:
        """Let `amount` go at once at `now`, whatever there was before."""
        self._empty_at = now - amount * self._interval

    def drain(self, now: float) -> None:
        """Begin empty at `now`, or later where there is a debt; for what nobody knows was taken."""
        self._empty_at = max(self._empty_at, now)
        self._last_taken = max(self._last_taken, now)

    def set_pace(self, interval: float, burst: float, at: float) -> None:
        """Change the pace from the instant `at` on; what was saved up, or is owed, keeps its worth in units. A bucket
        that had no limit begins full.
        """
        if not interval:
            self._empty_at = -math.inf
        elif self._interval:
            self._empty_at = at + (self._saved_since(at) - at) * (interval / self._interval)
        else:
            self._empty_at = at - burst * interval
        self._interval, self._burst = interval, burst

    def _saved_since(self, now: float) -> float:
        return max(self._empty_at, now - self._burst * self._interval) if self._interval else now


@frozen
class Pace:
    """How fast units may go, and when that changes by itself.

    `share` is the part of the configured rate in use, and grows at `step_at`. `learned` is the interval in seconds that
    an answer's headers taught, until `learned_until`, and `at_once` how many units may be saved up meanwhile; 0.0:
    none. `after` is the interval from then on, with `at_once_after`. `starting`: nobody has answered yet.
    """

    share: float = 1.0
    step_at: float = math.inf
    learned: float = 0.0
    at_once: float = math.inf
    learned_until: float = math.inf
    after: float = 0.0
    at_once_after: float = math.inf
    starting: bool = False

    @classmethod
    def start(cls, scale: Scale, part: float = 1.0) -> Pace:
        """Return the pace of a slow start, or of `part` of one."""
        return cls(learned=scale.start_interval / part, at_once=scale.start_at_once * part, starting=True)

    @property
    def changes_at(self) -> float:
        """The instant of the next change."""
        return min(self.step_at, self.learned_until)

    def interval(self, base: float) -> float:
        """Return the seconds from one unit to the next where the configured rate allows one every `base`."""
        return max(base / self.share, self.learned)

    def next(self) -> Pace:
        """Return the pace from `changes_at` on."""
        if self.learned_until <= self.step_at:
            return self._learned(self.after, self.at_once_after, math.inf)
        share = min(1.0, self.share + SHARE_STEP)
        return evolve(self, share=share, step_at=self.step_at + STEP_EVERY if share < 1.0 else math.inf)

    def halved(self, resume_at: float) -> Pace:
        """Return the pace after a 429, recovering from `resume_at` on."""
        return evolve(self, share=max(self.share / 2, LEAST_SHARE), step_at=resume_at + STEP_EVERY)

    def begun(self, now: float) -> Pace:
        """Return the pace once the first unit of a slow start was taken."""
        return evolve(self, learned_until=now + START_LASTS)

    def answered(self) -> Pace:
        """Return the pace after an answer that said nothing of limits: it ends a slow start."""
        return self._learned(0.0, math.inf, math.inf) if self.starting else self

    def taught(self, window: LimitWindow, unseen: float, now: float, scale: Scale, *, minute: float = MINUTE) -> Pace:
        """Return the pace after an answer that described its limit so; see the module's docstring.

        `unseen` is what was granted after the call that was answered, which the answer may not know of. `minute` is in
        how many seconds the limit refills, where it is none a minute.
        """
        if window.remaining is None or window.reset is None:
            return self
        if not (0.0 <= window.remaining < math.inf and 0.0 < window.reset < math.inf):  # "-1" and "0" have been seen
            return self
        reset = window.reset
        limit = window.limit if window.limit and 1.0 <= window.limit < math.inf else 0.0
        left = max(0.0, window.remaining - unseen)
        used = limit - window.remaining
        refill = min(minute / limit, reset / used if used > 0.0 else math.inf) if limit else 0.0
        if refill < scale.shortest:
            refill = 0.0
        half = limit / 2
        if left > half > 0.0:
            return self._learned(refill, max(half, 1.0) if refill else math.inf, math.inf)
        known = 0.0 if self.starting else self.learned
        most = max(10 * reset / limit, known) if limit else math.inf
        interval = max(refill, min(reset / left if left else math.inf, most, scale.longest))
        if interval < scale.shortest:
            return self._learned(0.0, math.inf, math.inf)
        after = (refill, max(half, 1.0)) if refill else (0.0, math.inf)
        return self._learned(interval, scale.at_least, now + reset, after)

    def reconfigured(self, scale: Scale, *, was_limited: bool, limited: bool, adaptive: bool) -> Pace:
        """Return the pace once other settings hold: `limited`, a rate is configured; `adaptive`, answers may teach.

        What answers taught of the account goes on, and so does a share that recovers. A configured rate ends a slow
        start; where one goes away, and nothing has been learned, one begins, as at first.
        """
        if not adaptive:
            return Pace()
        if limited:
            return self.answered()
        if not was_limited:
            return self
        return evolve(self, share=1.0, step_at=math.inf) if self.learned else Pace.start(scale)

    def _learned(
        self, interval: float, at_once: float, until: float, after: tuple[float, float] = (0.0, math.inf)
    ) -> Pace:
        return Pace(self.share, self.step_at, interval, at_once, until, *after)
