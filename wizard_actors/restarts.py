"""When a crashed actor comes back: pure decisions over the instants of its crashes."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from random import Random

from attrs import field, frozen
from attrs.validators import ge, gt

__all__ = ["Comeback", "Decision", "RestartPolicy", "RestartWindow"]


class Comeback(StrEnum):
    """How a crashed actor comes back."""

    AT_ONCE = "at_once"
    BACKOFF = "backoff"
    GIVE_UP = "give_up"


@frozen
class Decision:
    """What follows from a crash: how the actor comes back, and after how many seconds."""

    comeback: Comeback
    delay: float = 0.0


@frozen
class RestartPolicy:
    """How often and how fast an actor is restarted. All times in seconds.

    The first restart is immediate; further ones wait U(0, min(max_backoff, min_backoff * 2**n)), until the actor has
    run for `healthy_after`. More than `max_restarts` within `window`, or `max_failed_starts` failed starts in a row,
    and its supervisor gives up: the actor is DOWN and tried again every `down_retry`, or the failure escalates.
    """

    max_restarts: int = field(default=5, validator=ge(0))
    window: float = field(default=30.0, validator=gt(0))
    min_backoff: float = field(default=0.2, validator=gt(0))
    max_backoff: float = field(default=10.0, validator=gt(0))
    healthy_after: float = field(default=30.0, validator=ge(0))
    max_failed_starts: int = field(default=3, validator=ge(1))
    down_retry: float = field(default=60.0, validator=gt(0))


class RestartWindow:
    """The crashes of one actor (or of one group that restarts together), and what follows from the next."""

    def __init__(self, policy: RestartPolicy, rng: Random) -> None:
        self._policy = policy
        self._rng = rng
        self._restarts: deque[float] = deque(maxlen=max(policy.max_restarts, 1))
        self._in_a_row = 0
        self._failed_starts = 0
        self._down = False

    def crashed(self, now: float, *, started: float | None) -> Decision:
        """Decide what follows from a crash at `now` of what had run since `started`; None: it did not even start."""
        policy = self._policy
        if started is None:
            self._failed_starts += 1
        else:
            self._failed_starts = 0
            if now - started >= policy.healthy_after:
                self._in_a_row = 0
                self._down = False
        recent = sum(1 for instant in self._restarts if now - instant < policy.window)
        if self._down or recent >= policy.max_restarts or self._failed_starts >= policy.max_failed_starts:
            self._down = True
            return Decision(Comeback.GIVE_UP, policy.down_retry)
        self._restarts.append(now)
        self._in_a_row += 1
        if self._in_a_row == 1:
            return Decision(Comeback.AT_ONCE)
        limit = min(policy.max_backoff, policy.min_backoff * 2.0 ** min(self._in_a_row - 2, 60))
        return Decision(Comeback.BACKOFF, self._rng.uniform(0.0, limit))
