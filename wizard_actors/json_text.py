"""The JSON in what a model wrote: alone, in a fence, or after some words. Pure."""

from __future__ import annotations

import re
from typing import Final

import msgspec

__all__ = ["NoJsonError", "json_in"]

FENCED: Final = re.compile(r"^[ \t]*```[\w+-]*[ \t]*\r?\n(.*?)^[ \t]*```[ \t]*\r?$", re.MULTILINE | re.DOTALL)
"""A fenced block: its lines. A text of JSON holds no line break, so no closing fence stands inside of one."""

BRACKETS: Final = (("{", "}"), ("[", "]"))


class NoJsonError(ValueError):
    """What a text raises that is no JSON value, and does not hold just one; its message reads on from "it"."""


def json_in(text: str) -> object:
    """Return the one JSON value in `text`: the whole of it, what stands in its fenced block, or all that is between the
    first opening bracket and the last closing one. Raises `NoJsonError`.
    """
    if not text.strip():
        raise NoJsonError("is empty")
    try:
        return _decoded(text)
    except NoJsonError as error:
        reason = str(error)
    fenced = _values(FENCED.findall(text))
    if len(fenced) > 1:
        raise NoJsonError(f"holds {len(fenced)} blocks of JSON, and one was asked for")
    found = fenced or _values(_between_brackets(text))[:1]
    if not found:
        raise NoJsonError(reason)
    return found[0]


def _decoded(text: str) -> object:
    try:
        value: object = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise NoJsonError(f"is no JSON: {error}") from None
    except (UnicodeEncodeError, RecursionError):  # half a pair of surrogates
        raise NoJsonError("is no JSON that can be read: it nests too deeply, or is not valid Unicode") from None
    return value


def _values(texts: list[str]) -> list[object]:
    """Return the values of those of `texts` that are JSON."""
    values = []
    for text in texts:
        try:
            values.append(_decoded(text))
        except NoJsonError:
            continue
    return values


def _between_brackets(text: str) -> list[str]:
    """Return what may be an object or a list with words around it, what begins first first."""
    spans = [(text.find(opening), text.rfind(closing)) for opening, closing in BRACKETS]
    return [text[start : end + 1] for start, end in sorted(spans) if 0 <= start < end]
