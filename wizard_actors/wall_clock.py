"""The wall clock, which never goes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

__all__ = ["WALL", "WallClock"]

WALL: Final[ContextVar[Callable[[], float]]] = ContextVar("wizard_actors_wall_clock", default=time.time)
"""What tells the seconds since 1970 to whoever is given no other clock; a simulation sets its own."""


class WallClock:
    """Wall-clock seconds since 1970, as `source` tells them, except that no call returns less than one before it.

    What has expired by this clock stays so: whoever reads it later never finds alive what was found dead. Where the
    computer's clock is set back, this one stands still until that has caught up. One Trio run uses it. Without a
    `source` it is as `WALL` says.
    """

    def __init__(self, source: Callable[[], float] | None = None) -> None:
        self._source = WALL.get() if source is None else source
        self._last = self._source()

    def __call__(self) -> float:
        """Return the present instant."""
        self._last = max(self._last, self._source())
        return self._last
