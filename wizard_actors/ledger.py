"""The ledger of an actor: the grants that are live, and what has come back for them and is yet to be read."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Ledger", "Loan"]


class Loan:
    """What the return lane holds for one live grant."""

    __slots__ = ("end", "notice")

    def __init__(self) -> None:
        self.notice: object = None
        self.end: object = None


class Ledger:
    """The live grants of one actor, oldest first. The supervisor keeps it over restarts.

    A factory hands it to the next incarnation, which adopts what it finds, or fences it with `clear`.
    """

    def __init__(self) -> None:
        self._loans: dict[object, Loan] = {}

    def enter(self, grant: object) -> None:
        """Add a grant, which has to be hashable and unlike every other live one."""
        if grant in self._loans:
            raise ValueError(f"{grant!r} is live already: a grant must be unlike every other live grant")
        self._loans[grant] = Loan()

    def clear(self) -> None:
        """Fence every live grant: what comes back for it is ignored."""
        self._loans.clear()

    @property
    def outstanding(self) -> int:
        """How many grants nobody has given back yet."""
        return sum(1 for loan in self._loans.values() if loan.end is None)

    def loan(self, grant: object) -> Loan | None:
        """Return what the return lane holds for `grant`; None where it is not live."""
        return self._loans.get(grant)

    def strike(self, grant: object) -> None:
        """Take out a grant that has come back."""
        del self._loans[grant]

    def __iter__(self) -> Iterator[object]:
        return iter(tuple(self._loans))

    def __len__(self) -> int:
        return len(self._loans)

    def __contains__(self, grant: object) -> bool:
        return grant in self._loans
