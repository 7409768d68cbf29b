"""One limit of an account, the plan of a queue that waits for two, and what others see of them: pace, cap, and what is
known of them. Pure.
"""

from __future__ import annotations

import math
from typing import Final

from attrs import evolve, frozen

from wizard_actors.pace import REQUESTS, STEP_EVERY, TOKENS, Gcra, Pace, Scale
from wizard_actors.token_window import MINUTE, Spent, TokenWindow
from wizard_actors.types import LimitWindow

__all__ = ["LimiterState", "Meter", "MeterState", "Plan"]

NO_LIMIT: Final = Pace()


@frozen
class MeterState:
    """One limit as it stood at an instant: all that time needs to tell how it stands later.

    `base` is the seconds from one unit to the next as configured, 0.0 where nothing is; `burst` what may go at once
    then, `limit` the most of a minute, None: no cap. `empty_at` is the instant at which the bucket was or will be
    empty, `spent` the minute's units by slots. `left` is what headers said to be left, less what has been granted
    since, and the instant until which that says anything. `window` is how many seconds a minute has: 60, unless the
    amounts are meant for another time.
    """

    pace: Pace = NO_LIMIT
    base: float = 0.0
    burst: float = 0.0
    limit: int | None = None
    empty_at: float = -math.inf
    spent: Spent = (0, ())
    left: tuple[float, float] | None = None
    window: float = MINUTE


class Meter:
    """One limit: of requests, or of tokens. It begins as `state` says."""

    __slots__ = ("_base", "_bucket", "_burst", "_counter", "_former", "_held", "_left", "_scale", "_window", "pace")

    def __init__(self, scale: Scale, state: MeterState) -> None:
        self._scale = scale
        self._base, self._burst, self.pace = state.base, state.burst, state.pace
        self._window = state.window
        self._counter = None if state.limit is None else TokenWindow(state.limit, state.spent, window=state.window)
        # Of limits that were taken away meanwhile; what they had counted came with the state.
        self._former: tuple[Gcra | None, Spent] = (None, (0, ()) if state.limit is not None else state.spent)
        self._held = -math.inf
        self._left = state.left
        self._bucket = Gcra(self.pace.interval(self._base), self._at_once(self.pace), state.empty_at)

    def copy(self, *, own_window: bool = False) -> Meter:
        """Return a meter that goes its own way from here, but for the window, unless it gets its own."""
        other: Meter = Meter.__new__(Meter)
        other._scale, other._base, other._burst, other.pace = self._scale, self._base, self._burst, self.pace
        other._window, other._former = self._window, (None, (0, ()))
        other._bucket, other._held, other._left = self._bucket.copy(), self._held, None
        other._counter = self._counter.copy() if own_window and self._counter is not None else self._counter
        return other

    @property
    def state(self) -> MeterState:
        """How the limit stands: what another meter can be made from."""
        counter = self._counter
        return MeterState(
            self.pace,
            self._base,
            self._burst,
            None if counter is None else counter.limit,
            self._bucket.empty_at,
            self._former[1] if counter is None else counter.spent,
            self._left,
            self._window,
        )

    def reconfigure(self, given: MeterState, *, adaptive: bool, now: float, paused_until: float) -> None:
        """Go by `base`, `burst` and `limit` of `given` from `now` on. What was saved up, or is owed, keeps its worth in
        units, what the minute has spent counts on, and so does what answers taught, unless they may not: `adaptive`.
        A limit that was taken away comes back with what had been taken of it by then.
        """
        before = self._base, self._burst, self.pace
        bucket, spent = self._former
        if self._base and not given.base:
            bucket = self._bucket.copy()
        if self._counter is not None and given.limit is None:
            spent = self._counter.spent
        self._former = bucket, spent
        self._base, self._burst = given.base, given.burst
        if self._counter is None or given.limit is None:
            self._counter = None if given.limit is None else TokenWindow(given.limit, spent, window=self._window)
        else:
            self._counter.limit = given.limit
        limited = bool(given.base)
        pace = self.pace.reconfigured(self._scale, was_limited=bool(before[0]), limited=limited, adaptive=adaptive)
        if (self._base, self._burst, pace) != before:
            if bucket is not None and given.base and not before[0]:
                self._bucket = bucket
            self.set_pace(pace, now, paused_until)
        if self._counter is not None:  # the same debt may be longer now: see `_charge`
            self._bucket.forgive(now + self._window / pace.share)

    @property
    def base(self) -> float:
        """Seconds from one unit to the next as configured, 0.0 where nothing is."""
        return self._base

    @property
    def bucket(self) -> Gcra:
        """What has been saved up, or is owed."""
        return self._bucket

    def used(self, now: float, paused_until: float) -> float:
        """Return how much of what may go at once after a rest cannot go at `now`. A pause is no rest."""
        self._bucket.forgo(min(paused_until, now), self._scale.at_least)
        return self._bucket.used(now)

    def owed(self, now: float) -> float:
        """Return how much more than allowed was taken by `now`."""
        interval = self._bucket.interval
        return max(0.0, self._bucket.empty_at - now) / interval if interval else 0.0

    def remaining(self, now: float) -> float | None:
        """Return what the account has left, as far as known: by headers, as long as they say something, else by what
        was granted of a configured minute.
        """
        if self._left is not None and now < self._left[1]:
            return max(0.0, self._left[0])
        if self._counter is None:
            return None
        self._counter.expire(now)
        return max(0.0, self._counter.limit - self._counter.total)

    def due(self, amount: int) -> float:
        """Return the instant at which `amount` may go at this pace; nothing is always due."""
        if not amount:
            return -math.inf
        due = self._bucket.due(amount)
        return due if self._counter is None else max(due, self._counter.free_at(amount))

    def hold(self, amount: int, now: float) -> None:
        """Note that `amount` is the next to go, and has to wait. While a full minute is what it waits for, nothing is
        saved up: the next ten seconds' worth would go in a lump, and so each minute for ever.
        """
        if self._counter is not None and (at := self._counter.free_at(amount)) > now:
            self._held = max(self._held, at)

    def take(self, amount: int, now: float, paused_until: float) -> None:
        """Take `amount`, which is due."""
        if not amount:
            return
        bucket = self._bucket
        if paused_until > -math.inf:
            bucket.forgo(paused_until, amount)
        if self._held > -math.inf:
            bucket.forgo(min(self._held, now), amount)
            self._held = -math.inf
        self._charge(amount, now)
        if self._counter is not None:
            self._counter.add(amount, now)
        if self._left is not None:
            self._left = (self._left[0] - amount, self._left[1])
        if self.pace.starting and self.pace.learned_until == math.inf:
            self.pace = self.pace.begun(now)

    def _charge(self, amount: int, now: float) -> None:
        """Take `amount` from the bucket. What a minute does not allow is owed for a minute at most, or for as much
        longer as a 429 slowed the pace down: by then the provider has forgotten it.
        """
        owed_until = self._bucket.empty_at
        self._bucket.charge(amount, now)
        self._bucket.forgive(max(owed_until, now + self._window / self.pace.share))

    def settle(self, taken: int, used: int, taken_at: float, now: float) -> None:
        """Account for `used` where `taken` was taken at the instant `taken_at`: the rest comes back, or is owed.

        Where headers tell what is left, and it is little or nothing else is known, the pace is theirs: many providers
        charge what a request may use, not what it used, and the next headers tell what this one does.
        """
        headers_rule = self.pace.learned and not self.pace.starting
        if not (headers_rule and (not self._base or self.pace.learned_until < math.inf)):
            self._bucket.credit(taken - used) if used <= taken else self._charge(used - taken, now)
        if self._counter is None:
            return
        if used > taken:
            self._counter.add(used - taken, now)
        else:
            self._counter.give_back(taken - used, taken_at)

    def refund(self, amount: int, taken_at: float) -> None:
        """Put back `amount` of what was taken at `taken_at`."""
        self._bucket.credit(amount)
        if self._counter is not None:
            self._counter.give_back(amount, taken_at)

    def advance(self, now: float, paused_until: float) -> None:
        """Make the changes of pace that have become due."""
        while (at := self.pace.changes_at) <= now:
            self.set_pace(self.pace.next(), at, paused_until)

    def set_pace(self, pace: Pace, at: float, paused_until: float) -> None:
        """Change the pace from the instant `at` on."""
        self.pace = pace
        if paused_until > -math.inf:
            self._bucket.forgo(min(paused_until, at), self._scale.at_least)
        self._bucket.set_pace(pace.interval(self._base), self._at_once(pace), at)

    def postpone(self, until: float) -> None:
        """Let a share that was halved grow again only after `until`."""
        if self.pace.step_at < math.inf:
            self.pace = evolve(self.pace, step_at=max(self.pace.step_at, until + STEP_EVERY))

    def _at_once(self, pace: Pace) -> float:
        return self._burst if self._base else pace.at_once

    def slow_down(self, now: float, paused_until: float) -> None:
        """Halve a configured rate after a 429; forget what was saved up; start slowly where no limit is known."""
        if self._base:
            self._bucket.forgo(now, self._scale.at_least)
            self.set_pace(self.pace.halved(max(now, paused_until)), now, paused_until)
        elif self.pace.learned and not self.pace.starting:
            self._bucket.leave(self._scale.at_least, now)
        else:
            self.set_pace(Pace.start(self._scale, 1 / 4), now, paused_until)
            self._bucket.fill(self._scale.again_at_once, max(now, paused_until))

    def answered(self, now: float, paused_until: float) -> None:
        """Note an answer: it ends a slow start."""
        if self.pace.starting:
            self.set_pace(self.pace.answered(), now, paused_until)

    def observe(self, window: LimitWindow | None, unseen: float, now: float, paused_until: float) -> bool:
        """Learn from an answer's headers; return whether anybody may be later for it."""
        if window is not None and window.remaining is not None and 0.0 <= window.remaining < math.inf:
            reset = window.reset if window.reset is not None and 0.0 < window.reset < math.inf else self._window
            self._left = (window.remaining - unseen, now + reset)
        pace = self.pace
        if window is not None:
            pace = pace.taught(window, unseen, now, self._scale, minute=self._window)
        if pace is self.pace:
            return False
        before = self._bucket.interval, self._bucket.empty_at
        if pace != self.pace:
            self.set_pace(pace, now, paused_until)
        if pace.learned and window is not None and window.remaining is not None:
            self._level(max(0.0, window.remaining - unseen), pace, now)
        return self._bucket.interval > before[0] or self._bucket.empty_at > before[1]

    def _level(self, left: float, pace: Pace, now: float) -> None:
        """Have no more saved up than the account has `left`; where only it says what is allowed, just as much."""
        if self._base:
            self._bucket.leave(left, now)
        elif pace.learned_until == math.inf:
            self._bucket.fill(max(left - pace.at_once, 1.0), now)
        else:
            self._bucket.leave(min(left, self._scale.at_least), now)


class Plan:
    """When each of a queue will be granted, if nothing happens but time: both meters, copied, and time let pass."""

    __slots__ = ("_at", "_paused_until", "_requests", "_tokens")

    def __init__(self, requests: Meter, tokens: Meter, paused_until: float, now: float) -> None:
        self._requests = requests.copy()
        self._tokens = tokens.copy(own_window=True)
        self._paused_until = paused_until
        self._at = now

    def next(self, amount: int, now: float, give_up_at: float = math.inf) -> float:
        """Return when one request of `amount` tokens more is due, and grant it if that is in time."""
        requests, tokens, paused = self._requests, self._tokens, self._paused_until
        at = max(self._at, now)
        due = max(at, paused, requests.due(1), tokens.due(amount))
        while due >= (change := min(requests.pace.changes_at, tokens.pace.changes_at)):
            if requests is self._requests:  # the plan stays as it is for those after it, if this one is too late
                requests, tokens = requests.copy(), tokens.copy()
            requests.advance(change, paused)
            tokens.advance(change, paused)
            due = max(at, change, paused, requests.due(1), tokens.due(amount))
        if due <= give_up_at:
            tokens.hold(amount, at)
            requests.take(1, due, paused)
            tokens.take(amount, due, paused)
            self._at, self._requests, self._tokens = due, requests, tokens
        return due


@frozen
class LimiterState:
    """What others see of a limiter, and what its next incarnation starts from.

    It tells how the limiter stood at the instant `as_of`, its last message; `at` tells how it stands later, if nothing
    has happened but time. Nobody is granted anything before the instant `paused_until`; `slowed_at` is the instant of
    the last halving. `waiting` is how many wait, `throttled` how many had to so far. `granted` and `rejected` (their
    turn would have come too late) count requests, `refunded` the grants that came back unsent.

    `tokens_reserved` counts the tokens of all grants that were sent or still may be, as estimated; `tokens_settled`
    those that answers are known to have used, or are taken to have used where nobody knows. `requests` and `tokens` are
    the two limits, for the next incarnation.
    """

    as_of: float = -math.inf
    paused_until: float = -math.inf
    slowed_at: float = -math.inf
    waiting: int = 0
    granted: int = 0
    throttled: int = 0
    rejected: int = 0
    refunded: int = 0
    tokens_reserved: int = 0
    tokens_settled: int = 0
    requests: MeterState = MeterState()
    tokens: MeterState = MeterState()

    def at(self, now: float) -> LimiterState:
        """Return the state as of the instant `now`: paces recovered, debts paid, the minute's tokens passed, and what
        headers said forgotten after their reset.
        """
        return evolve(self, as_of=max(self.as_of, now))

    @property
    def interval(self) -> float:
        """Seconds from one request to the next, 0.0 where unlimited."""
        return self._meter(REQUESTS, self.requests).bucket.interval

    @property
    def token_interval(self) -> float:
        """Seconds from one token to the next, 0.0 where unlimited."""
        return self._meter(TOKENS, self.tokens).bucket.interval

    @property
    def rate(self) -> float | None:
        """Requests a minute at most; None where unlimited, or where only a window bounds them."""
        return 60.0 / self.interval if self.interval else None

    @property
    def token_rate(self) -> float | None:
        """Tokens a minute at most; None where unlimited, or where only a window bounds them."""
        return 60.0 / self.token_interval if self.token_interval else None

    @property
    def burst_used(self) -> float:
        """How many of the requests that may go at once after a rest cannot go."""
        if self.as_of == -math.inf:
            return 0.0
        return self._meter(REQUESTS, self.requests).used(self.as_of, self.paused_until)

    @property
    def token_debt(self) -> float:
        """How many tokens more than allowed were used, and have to be waited for: never more than a minute's worth."""
        return self._meter(TOKENS, self.tokens).owed(self.as_of)

    @property
    def remaining_requests(self) -> float | None:
        """What the account has left, by the last headers less what has been granted since; None where nobody knows,
        as after the reset that they named, or a minute where they named none.
        """
        return self._meter(REQUESTS, self.requests).remaining(self.as_of)

    @property
    def remaining_tokens(self) -> float | None:
        """As `remaining_requests`; where the headers say nothing, what is left of a configured minute's tokens."""
        return self._meter(TOKENS, self.tokens).remaining(self.as_of)

    def _meter(self, scale: Scale, state: MeterState) -> Meter:
        meter = Meter(scale, state)
        meter.advance(self.as_of, self.paused_until)
        return meter
