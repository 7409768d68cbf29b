"""What the log says of who is refused: enough to see them, and no more, for whoever has no key could fill it."""

from __future__ import annotations

import logging
import math
from typing import Final

__all__ = ["Refusals"]

log = logging.getLogger("wizard_actors.server")

EVERY: Final = 10.0
"""Seconds in which at most one is logged."""


class Refusals:
    """Those of one endpoint; `what` is refused there: "a handshake"."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._logged_at = -math.inf
        self._more = 0

    def log(self, status: int, message: str, now: float) -> None:
        """Log one at `now`, in seconds, with its HTTP status and what its client is told, unless one was logged a
        moment ago: the next line says how many were not.
        """
        if now < self._logged_at + EVERY:
            self._more += 1
            return
        more = f", and {self._more} others before, not logged" if self._more else ""
        log.info("%s was refused with %d: %s%s", self._what, status, message, more)
        self._logged_at, self._more = now, 0
