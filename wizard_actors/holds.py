"""Holds: who still uses a configuration of a client.

A reload makes another configuration the current one. The one before ends once nobody holds it: requests hold the one in
which they were made, from then to their end, however late they begin. What is removed then is removed under nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Final, Self

__all__ = ["Hold", "Holds"]

NUMBERS: Final = count(1)


class Holds:
    """Who holds one configuration. Holds are taken and dropped in any thread, all else is Trio's.

    No lock: what is called when an object goes may come in the middle of anything, where a lock could wait for itself.
    Each step is one operation on a dict, and whoever takes a hold looks afterwards whether the configuration has ended.
    `number` tells it from every other one of the process.
    """

    def __init__(self) -> None:
        self.number = next(NUMBERS)
        self._taken: dict[object, None] = {}
        self._retired: Callable[[], object] | None = None
        self._ended = False

    def hold(self) -> Hold | None:
        """Return a hold; None where the configuration has ended: then another one is current."""
        hold = Hold(self)
        if not self._ended:
            return hold
        hold.release()
        return None

    def retire(self, empty: Callable[[], object]) -> None:
        """Note that another configuration is the current one: from now on `empty` is called, in any thread, whenever
        nobody holds this one.
        """
        self._retired = empty
        if not self._taken:
            empty()

    def end(self) -> bool:
        """End it, for good, where nobody holds it; return whether it has ended."""
        self._ended = True  # first: who takes a hold meanwhile sees it, or is seen
        self._ended = not self._taken
        return self._ended

    def take(self, token: object) -> None:
        """Count a hold; for `Hold`."""
        self._taken[token] = None

    def drop(self, token: object) -> None:
        """Count it no more; for `Hold`. Dropping twice is dropping once."""
        self._taken.pop(token, None)
        if not self._taken and self._retired is not None:
            self._retired()


class Hold:
    """What keeps a configuration in use: until it is released, or left as often as entered, or nobody has it any more.
    `holds` are all those of that configuration.
    """

    __slots__ = ("_entered", "_token", "holds")

    def __init__(self, holds: Holds) -> None:
        self.holds = holds
        self._token = object()
        self._entered = 0
        holds.take(self._token)

    def release(self) -> None:
        """Give it back; while it is entered, that is done as it is left. Releasing twice is releasing once."""
        if not self._entered:
            self.holds.drop(self._token)

    def __enter__(self) -> Self:
        self._entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if not self._entered:
            self.release()

    def __del__(self) -> None:
        self.holds.drop(self._token)
