"""Calls of tools in a conversation, and the results that answer them: what every protocol has to tell apart. Pure."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

__all__ = ["TOOL_ID_SIZE", "OpenCalls", "fitting_id"]

T = TypeVar("T")

TOOL_ID_SIZE: Final = 9
"""Characters of the id that a tool call is given in place of one that the upstream would refuse: all take that many."""


class OpenCalls(Generic[T]):
    """Which call a result answers, where ids come again; `T` is what the protocol has to know of the call.

    Who has no ids counts from zero in each answer, and some give the calls of one answer the same id. So a result
    belongs to the latest message that calls with its id, and of the calls there to the first that has no result.
    """

    def __init__(self) -> None:
        self._open: dict[str, deque[T]] = {}

    def called(self, calls: Iterable[tuple[str, T]]) -> None:
        """Take the calls of one message, each with its id."""
        latest: dict[str, deque[T]] = {}
        for call_id, known in calls:
            latest.setdefault(call_id, deque()).append(known)
        self._open.update(latest)

    def answered(self, call_id: str) -> T | None:
        """Return the call that the next result with this id answers, None for none; a result too many is the last's."""
        calls = self._open.get(call_id)
        if calls is None:
            return None
        return calls.popleft() if len(calls) > 1 else calls[0]


def fitting_id(call_id: str, pattern: str) -> str:
    """Return the id as an upstream takes it that wants it to match `pattern`, always the same for the same id.

    A conversation that another provider began has ids of its kind.
    """
    if re.fullmatch(pattern, call_id):
        return call_id
    return hashlib.blake2b(call_id.encode(errors="replace"), digest_size=5).hexdigest()[:TOOL_ID_SIZE]
