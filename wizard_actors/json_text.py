"""The JSON in what a model wrote: alone, in a fence, or after some words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

__all__ = ["NoJsonError", "json_in"]

FENCE: Final = re.compile(r"[ \t]*```([\w+-]*)[ \t]*\r?\Z")
"""A line that opens a fenced block, or, without a word, closes one."""

BRACKETS: Final = (("{", "}"), ("[", "]"))


class NoJsonError(ValueError):
    """What a text raises that is no JSON value, and does not hold just one; its message reads on from "it"."""


def json_in(text: str, *, an_object: bool = False) -> object:
    """Return the one JSON value in `text`: the whole of it, what stands in its fenced block, or all that is between the
    first opening bracket and the last closing one. `an_object`: nothing else will do, so that a "[1]" among the words
    is none. Takes time linear in the text. Raises `NoJsonError`.
    """
    if not text.strip():
        raise NoJsonError("is empty")
    try:
        return _decoded(text)
    except NoJsonError as error:
        reason = str(error)
    fenced = _values(list(_fenced(text)))
    if an_object:
        fenced = [value for value in fenced if isinstance(value, dict)] or fenced
    if len(fenced) > 1:
        raise NoJsonError(f"holds {len(fenced)} blocks of JSON, and one was asked for")
    found = fenced or _values(_between_brackets(text, BRACKETS[:1] if an_object else BRACKETS))[:1]
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


def _fenced(text: str) -> Iterator[str]:
    """Yield the lines of each fenced block. A text of JSON holds no line break, so no fence stands inside of one."""
    block: list[str] | None = None
    for line in text.split("\n"):
        fence = FENCE.match(line)
        if block is None and fence is not None:
            block = []
        elif block is not None and fence is not None and not fence[1]:
            yield "\n".join(block)
            block = None
        elif block is not None:
            block.append(line)


def _values(texts: list[str]) -> list[object]:
    """Return the values of those of `texts` that are JSON."""
    values = []
    for text in texts:
        try:
            values.append(_decoded(text))
        except NoJsonError:
            continue
    return values


def _between_brackets(text: str, brackets: tuple[tuple[str, str], ...]) -> list[str]:
    """Return what may be an object or a list with words around it, what begins first first."""
    spans = [(text.find(opening), text.rfind(closing)) for opening, closing in brackets]
    return [text[start : end + 1] for start, end in sorted(spans) if 0 <= start < end]
