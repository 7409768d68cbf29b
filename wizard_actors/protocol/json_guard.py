"""JSON that strangers send, read with care: within bounds that are known before much is made of it. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["MOST_VALUES", "BadJsonError", "check_amount", "check_shape", "decoded", "read_json"]

MOST_VALUES: Final = 100_000
"""In one request: what is wrong with each of them has to be found out while everybody else waits."""

PIECE: Final = 2**20
"""Characters that are looked through at once."""


class BadJsonError(Exception):
    """Raised for what is no JSON, nests too deeply, or holds too many values."""


def read_json(text: str, *, max_depth: int) -> object:
    """Return what is in `text`, in Python's types. Raises `BadJsonError`, also beyond `MOST_VALUES` values or
    `max_depth` levels of lists and objects.
    """
    check_amount(text, MOST_VALUES)
    value = decoded(text, max_depth)
    check_shape(value, max_depth)
    return value


def decoded(text: str | bytes, max_depth: int | None = None) -> object:
    """Return what is in `text`; `max_depth` is for the error alone. Raises `BadJsonError`."""
    try:
        plain: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadJsonError(f"the message is no JSON: {error}") from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    return plain


def check_amount(text: str, most: int) -> None:
    """Raise where a message surely holds more than `most` values, before anything is made of it: millions of empty
    lists would take most of a second, and fifty times the message's size.
    """
    signs = 2 * most  # a value has a comma or a bracket before it, an empty list or object a bracket inside
    if _signs(text) <= signs:
        return
    bare = text.replace("\\\\", "").replace('\\"', "")
    if bare.count('"') > 4 * most:  # a value has at most its own text, and its key's
        raise _too_many(most)
    outside = inside = 0
    for start in range(0, len(bare), PIECE):
        pieces = bare[start : start + PIECE].split('"')
        outside += _signs("".join(pieces[inside::2]))
        inside ^= len(pieces) % 2 ^ 1
        if outside > signs:
            raise _too_many(most)


def _signs(text: str) -> int:
    return text.count(",") + text.count("[") + text.count("{")


def _too_many(most: int) -> BadJsonError:
    return BadJsonError(f"the message holds more than {most:,} values")


def _too_deep(max_depth: int | None) -> BadJsonError:
    bound = "" if max_depth is None else f": at most {max_depth} levels (server.max_json_depth)"
    return BadJsonError(f"the message is nested too deeply{bound}")


def check_shape(value: object, max_depth: int) -> None:
    """Raise where `value` nests more than so many levels of lists and objects, or holds more than `MOST_VALUES`."""
    row, values, levels = [value], 1, 0
    while outer := [item for item in row if isinstance(item, dict | list)]:
        row = [item for each in outer for item in (each.values() if isinstance(each, dict) else each)]
        values, levels = values + len(row), levels + 1
        if values > MOST_VALUES:
            raise _too_many(MOST_VALUES)
    if levels > max_depth:
        raise _too_deep(max_depth)
