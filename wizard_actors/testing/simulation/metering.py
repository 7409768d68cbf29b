"""What calls cost: what one is billed for, and the limits a minute of a model. Pure."""

from __future__ import annotations

import math
from typing import Final

from attrs import frozen

from wizard_actors.testing.simulation.formats import Left

__all__ = ["LEAST", "MOST", "Meter", "Quota"]

MINUTE: Final = 60.0

LEAST: Final = 1e-12
MOST: Final = 1e15
"""Between these two is what is reckoned with, whatever a scenario says, and `MOST` may be added and multiplied."""

ROUNDING: Final = 1e-6
"""How much less than what is asked for a quota may have: a caller who waited exactly as long as it has to is let in."""


@frozen
class Meter:
    """What a call is billed for, in tokens: its prompt once the model has `taken` it, and each word once it is there,
    the first after `first` seconds and then one each `per_word`, `words` in all, but none after `until`. All seconds
    count from the call's beginning.
    """

    prompt: int
    words: int
    taken: float
    first: float
    per_word: float
    until: float = math.inf

    def tokens(self, seconds: float = math.inf) -> int:
        """Return what is billed to a caller who leaves after so many seconds: models stop then. Never: for all of it,
        as far as it comes. Reading slowly saves nothing.
        """
        spent = min(seconds, self.until)
        if spent < self.taken:
            return 0
        if spent < self.first:
            return self.prompt
        later = math.floor(min(self.words, (spent - self.first) / self.per_word + ROUNDING))
        return self.prompt + min(self.words, later + 1)


class Quota:
    """A limit a minute, as a bucket of what falls due in `burst` seconds, and of one at least."""

    def __init__(self, per_minute: float, burst: float, now: float) -> None:
        self.per_minute = min(per_minute, MOST)
        self._rate = max(LEAST, self.per_minute / MINUTE)
        self._size = max(1.0, min(self._rate * burst, MOST))
        self._level, self._at = self._size, now

    def wait(self, amount: float, now: float) -> float:
        """Return for how many seconds `amount` is not to be had yet, 0 where it is; more than all is had for all."""
        self._level = min(self._size, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now
        short = min(amount, self._size) - self._level
        return short / self._rate if short > ROUNDING else 0.0

    def take(self, amount: float) -> None:
        """Take `amount`, of which there may be less: a debt then."""
        self._level -= amount

    def left(self) -> Left:
        """Return what is left."""
        return Left(
            limit=max(1, round(self.per_minute)),
            remaining=max(0, math.floor(self._level + ROUNDING)),
            reset=max(0.0, (self._size - self._level) / self._rate),
        )
