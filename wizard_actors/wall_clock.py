"""The wall clock, which never goes back."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["WallClock"]


class WallClock:
    """Wall-clock seconds since 1970, as `source` tells them, except that no call returns less than one before it.

    What has expired by this clock stays so: whoever reads it later never finds alive what was found dead. Where the
    computer's clock is set back, this one stands still until that has caught up. One Trio run uses it.
    """

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._last = source()

    def __call__(self) -> float:
        """Return the present instant."""
        self._last = max(self._last, self._source())
        return self._last
