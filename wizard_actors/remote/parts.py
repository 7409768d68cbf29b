"""The prompts of a batch in parts, each of which travels in one request."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Final

import msgspec

from wizard_actors.remote.options import said
from wizard_actors.types import Prompt

__all__ = ["Parts"]

MOST_AT_ONCE: Final = 1000
LARGEST_AT_ONCE: Final = 2**20
"""How many prompts travel in one request, and of how many bytes together: a server takes 4 MiB as it comes."""

AROUND: Final = 4096
"""Bytes that are left for what a request has beside its prompts."""


class Parts:
    """Takes prompts from `items`, as they travel, so many at once; `largest` is what the server takes in a message, in
    bytes, where that is known. No generator: nothing has to close it.
    """

    def __init__(
        self, items: Iterable[str | Prompt] | AsyncIterable[str | Prompt], *, largest: int | None = None
    ) -> None:
        self._items = aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        self._largest = LARGEST_AT_ONCE if largest is None else min(LARGEST_AT_ONCE, largest - AROUND)
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
            if part and size > self._largest:
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
    """Return how many bytes a prompt has in a request, a comma among them; any number where it cannot be sent, of which
    the request tells.
    """
    try:
        return len(msgspec.json.encode(travels)) + 1
    except (TypeError, ValueError, OverflowError, RecursionError):
        return 1
