"""How many notifications a request may send: as many as its client has granted, so that nobody is sent more than they
have room for. Pure; whoever has to wait for more does so elsewhere.

    granted by the request and by `credit`     spent by each notification     left = granted - spent
"""

from __future__ import annotations

from typing import Final

__all__ = ["FIRST_CREDIT", "MOST_CREDIT", "Credit", "OverdrawnError"]

FIRST_CREDIT: Final = 32
"""What a request has that does not say."""

MOST_CREDIT: Final = 65_536
"""What may be outstanding at once. More is no longer a bound that anybody has thought of."""


class OverdrawnError(Exception):
    """Raised when a client grants more than may be outstanding."""


class Credit:
    """The credit of one request. `left` is what may be sent now."""

    def __init__(self, left: int = FIRST_CREDIT) -> None:
        self.left = left

    def grant(self, more: int) -> None:
        """Add to it. Raises `OverdrawnError`, and adds nothing, where more than `MOST_CREDIT` would be outstanding."""
        if self.left + more > MOST_CREDIT:
            raise OverdrawnError(
                f"{more:,} more make {self.left + more:,} of credit outstanding, and at most {MOST_CREDIT:,} may be"
            )
        self.left += more

    def spend(self) -> bool:
        """Take 1 for a notification; return False where nothing is left."""
        if not self.left:
            return False
        self.left -= 1
        return True
