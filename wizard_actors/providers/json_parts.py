"""The parts of decoded JSON that somebody else wrote, as what they should be, or as nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["count_of", "table_of", "text_of"]

MOST_TOKENS: Final = 2**53
"""Beyond any count of tokens, and the largest whole number that JSON carries everywhere."""

NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


def text_of(value: object) -> str | None:
    """Return a text that says something, None for anything else."""
    return value if value and isinstance(value, str) else None


def table_of(value: object) -> Mapping[str, object]:
    """Return an object, an empty one for anything else."""
    return value if isinstance(value, dict) else NOTHING


def count_of(value: object) -> int:
    """Return a count of tokens, 0 for anything that is none; some state it as a float."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST_TOKENS else 0
