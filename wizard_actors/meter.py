"""One limit of an account, and the plan of a queue that waits for two: pace, cap, and what is known of them. Pure."""

from __future__ import annotations

import math

from attrs import evolve

from wizard_actors.pace import STEP_EVERY, Gcra, Pace, Scale
from wizard_actors.token_window import TokenWindow
from wizard_actors.types import LimitWindow

__all__ = ["Meter", "Plan"]


class Meter:
    """One limit: of requests, or of tokens. `per_minute` None: none is configured. `burst` counts where one is.

    `window` caps what is granted in any minute, beside the pace.
    """

    __slots__ = ("_base", "_bucket", "_burst", "_held", "_scale", "_window", "pace")

    def __init__(
        self, scale: Scale, per_minute: float | None, burst: float, pace: Pace, window: TokenWindow | None = None
    ) -> None:
        self._scale = scale
        self._base = 60.0 / per_minute if per_minute else 0.0
        self._burst = burst
        self._window = window
        self._held = -math.inf
        self.pace = pace
        self._bucket = Gcra(pace.interval(self._base), self._at_once(pace))

    def copy(self, *, own_window: bool = False) -> Meter:
        """Return a meter that goes its own way from here, but for the window, unless it gets its own."""
        other: Meter = Meter.__new__(Meter)
        other._scale, other._base, other._burst, other.pace = self._scale, self._base, self._burst, self.pace
        other._bucket, other._held = self._bucket.copy(), self._held
        other._window = self._window.copy() if own_window and self._window is not None else self._window
        return other

    @property
    def base(self) -> float:
        """Seconds from one unit to the next as configured, 0.0 where nothing is."""
        return self._base

    @property
    def bucket(self) -> Gcra:
        """What has been saved up, or is owed."""
        return self._bucket

    @property
    def window(self) -> TokenWindow | None:
        """What was granted in the last minute, where that is capped."""
        return self._window

    def due(self, amount: int) -> float:
        """Return the instant at which `amount` may go at this pace; nothing is always due."""
        if not amount:
            return -math.inf
        due = self._bucket.due(amount)
        return due if self._window is None else max(due, self._window.free_at(amount))

    def hold(self, amount: int, now: float) -> None:
        """Note that `amount` is the next to go, and has to wait. While a full minute is what it waits for, nothing is
        saved up: the next ten seconds' worth would go in a lump, and so each minute for ever.
        """
        if self._window is not None and (at := self._window.free_at(amount)) > now:
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
        bucket.charge(amount, now)
        if self._window is not None:
            self._window.add(amount, now)
        if self.pace.starting and self.pace.learned_until == math.inf:
            self.pace = self.pace.begun(now)

    def settle(self, taken: int, used: int, taken_at: float, now: float) -> None:
        """Account for `used` where `taken` was taken at the instant `taken_at`: the rest comes back, or is owed.

        Where headers tell what is left, and it is little or nothing else is known, the pace is theirs: many providers
        charge what a request may use, not what it used, and the next headers tell what this one does.
        """
        headers_rule = self.pace.learned and not self.pace.starting
        if not (headers_rule and (not self._base or self.pace.learned_until < math.inf)):
            self._bucket.credit(taken - used) if used <= taken else self._bucket.charge(used - taken, now)
        if self._window is None:
            return
        if used > taken:
            self._window.add(used - taken, now)
        else:
            self._window.give_back(taken - used, taken_at)

    def refund(self, amount: int, taken_at: float) -> None:
        """Put back `amount` of what was taken at `taken_at`."""
        self._bucket.credit(amount)
        if self._window is not None:
            self._window.give_back(amount, taken_at)

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
        pace = self.pace if window is None else self.pace.taught(window, unseen, now, self._scale)
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
