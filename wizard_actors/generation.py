"""Generations: one configuration of a client each, and who still uses it.

A reload makes another generation the current one. The one before ends once nobody holds it: requests hold the one in
which they were made, from then to their end, however late they begin. What is removed then is removed under nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Final, Self

__all__ = ["Generation", "Hold"]

NUMBERS: Final = count(1)


class Generation:
    """Who holds one configuration. Holds are taken and dropped in any thread, all else is Trio's.

    No lock: what is called when an object goes may come in the middle of anything, where a lock could wait for itself.
    Each step is one operation on a dict, and whoever takes a hold looks afterwards whether the generation has ended.
    `number` tells it from every other one of the process.
    """

    def __init__(self) -> None:
        self.number = next(NUMBERS)
        self._holds: dict[object, None] = {}
        self._retired: Callable[[], object] | None = None
        self._ended = False

    @property
    def held(self) -> int:
        """How many requests hold it."""
        return len(self._holds)

    def hold(self) -> Hold | None:
        """Return a hold; None where it has ended: then another generation is the current one."""
        hold = Hold(self)
        if not self._ended:
            return hold
        hold.release()
        return None

    def retire(self, empty: Callable[[], object]) -> None:
        """Note that another generation is the current one: from now on `empty` is called, in any thread, whenever
        nobody holds this one.
        """
        self._retired = empty
        if not self._holds:
            empty()

    def end(self) -> bool:
        """End it, for good, where nobody holds it; return whether it has ended."""
        self._ended = True  # first: who takes a hold meanwhile sees it, or is seen
        self._ended = not self._holds
        return self._ended

    def take(self, token: object) -> None:
        """Count a hold; for `Hold`."""
        self._holds[token] = None

    def drop(self, token: object) -> None:
        """Count it no more; for `Hold`. Dropping twice is dropping once."""
        self._holds.pop(token, None)
        if not self._holds and self._retired is not None:
            self._retired()


class Hold:
    """What keeps a generation in use: until it is released, or left as often as entered, or nobody has it any more."""

    __slots__ = ("_entered", "_token", "generation")

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self._token = object()
        self._entered = 0
        generation.take(self._token)

    def release(self) -> None:
        """Give it back; while it is entered, that is done as it is left. Releasing twice is releasing once."""
        if not self._entered:
            self.generation.drop(self._token)

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
        self.generation.drop(self._token)
