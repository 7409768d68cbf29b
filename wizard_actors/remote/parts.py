"""The prompts of a batch in parts, each of which travels in one request."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Final

from wizard_actors.remote.options import said
from wizard_actors.types import Prompt

__all__ = ["Parts"]

MOST_AT_ONCE: Final = 1000
LARGEST_AT_ONCE: Final = 2**20
"""How many prompts travel in one request, and of how many characters together: a server takes 4 MiB as it comes."""


class Parts:
    """Takes prompts from `items`, as they travel, so many at once. No generator: nothing has to close it."""

    def __init__(self, items: Iterable[str | Prompt] | AsyncIterable[str | Prompt]) -> None:
        self._items = aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        self._next: list[object] = []

    async def next(self) -> list[object]:
        """Return the next part; an empty one at the end. Raises `InvalidPromptError`, and any error of the items."""
        part, self._next = self._next, []
        size = sum(map(_size, part))
        while len(part) < MOST_AT_ONCE:
            prompt = await self._pulled()
            if prompt is None:
                break
            travels = said(prompt)
            size += _size(travels)
            if part and size > LARGEST_AT_ONCE:
                self._next.append(travels)
                break
            part.append(travels)
        return part

    async def _pulled(self) -> str | Prompt | None:
        if isinstance(self._items, AsyncIterator):
            async for item in self._items:
                return item
            return None
        for item in self._items:
            return item
        return None


def _size(travels: object) -> int:
    return len(travels if isinstance(travels, str) else repr(travels))
