"""What the log says of refused handshakes: enough to see them, and no more, for whoever has no key could fill it."""

from __future__ import annotations

import logging
import math
from typing import Final

from wizard_actors.server.handshake import Refusal

__all__ = ["Refusals"]

log = logging.getLogger("wizard_actors.server")

EVERY: Final = 10.0
"""Seconds in which at most one is logged."""


class Refusals:
    """The refused handshakes of one server."""

    def __init__(self) -> None:
        self._logged_at = -math.inf
        self._more = 0

    def log(self, refusal: Refusal, now: float) -> None:
        """Log one at `now`, in seconds, unless one was a moment ago: the next line says how many were not."""
        if now < self._logged_at + EVERY:
            self._more += 1
            return
        more = f", and {self._more} others before, not logged" if self._more else ""
        log.info("a handshake was refused with %d: %s%s", refusal.status, refusal.message, more)
        self._logged_at, self._more = now, 0
