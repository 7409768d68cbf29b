"""JSON that somebody else wrote: read with what is wrong about it mended, its parts as what they should be. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec
from attrs import frozen

__all__ = ["BAD_JSON", "JsonStream", "count_of", "decode", "table_of", "text_of"]

MOST_TOKENS: Final = 2**53
"""Beyond any count of tokens, and the largest whole number that JSON carries everywhere."""

NOTHING: Final[Mapping[str, object]] = MappingProxyType({})

BAD_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What bytes that cannot be read as JSON raise."""

MOST_ODD: Final = 2**20
"""Bytes of JSON that are read once more, slowly, where they break the standard's rules; no chunk is larger."""

HALVES: Final = re.compile(rb"\\u[dD][89a-fA-F]")
"""The escapes of halves of characters, as UTF-16 has them. Of the two that stand together JSON makes a character."""

UNKNOWN: Final = "\N{REPLACEMENT CHARACTER}"

Container = list[object] | dict[str, object]
Path = tuple["Path", int | str] | None
"""Where a container stands: in which other, and under which key of that."""

_decoder = msgspec.json.Decoder()


# -- parts -------------------------------------------------------------------------------------------


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


# -- reading -----------------------------------------------------------------------------------------


def decode(data: bytes) -> object:
    """Return what the JSON says. Raises one of `BAD_JSON`.

    What programs write that take the standard lightly is read too: `NaN`, infinities and numbers out of all range are
    None, half a character (a lone surrogate) is U+FFFD. So all texts in it are valid Unicode.
    """
    value, halved = _decode(data)
    if halved:
        value, ends = _mended(value)
        _join(ends, None)
    return value


class JsonStream:
    """The JSON values of one stream, as `decode` reads them, but for the characters that were cut in two.

    Upstreams that count in UTF-16 may end a piece of a text with the first half of a character, and begin the next with
    the second. So a value with a text that ends in a first half waits for the next value: if the text in the same place
    there begins with a second half, they are joined.
    """

    __slots__ = ("_ends", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[object, str]] = []  # one at most
        self._ends: list[_End] = []  # of the texts in it that end in a first half

    def feed(self, data: bytes, name: str) -> list[tuple[object, str]]:
        """Return the values that are complete now, each with the name it came under. Raises one of `BAD_JSON`."""
        value, halved = _decode(data)
        if not halved and not self._waiting:
            return [(value, name)]
        ready = self._release(value)
        if halved:
            value, self._ends = _mended(value)
        if self._ends:
            self._waiting = [(value, name)]
        else:
            ready.append((value, name))
        return ready

    def flush(self) -> list[tuple[object, str]]:
        """Return the value that waits for another, for there is none."""
        return self._release(None)

    def _release(self, following: object) -> list[tuple[object, str]]:
        _join(self._ends, following)
        self._ends = []
        ready, self._waiting = self._waiting, []
        return ready


def _decode(data: bytes) -> tuple[object, bool]:
    """Return what the JSON says, and whether halves of characters may stand in it."""
    try:
        return _decoder.decode(data), False
    except msgspec.DecodeError as error:
        if len(data) > MOST_ODD:
            raise
        try:
            value: object = json.loads(data.decode(), parse_constant=_no_number, parse_float=_finite)
        except (ValueError, RecursionError):
            raise error from None
        return value, HALVES.search(data) is not None


def _no_number(_: str) -> None:
    """Return None for what JSON has no number for."""


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


# -- halves of characters ----------------------------------------------------------------------------


@frozen
class _End:
    """A text that ended in `half` a character, which is off it now: where it stands, and where that is in the whole."""

    container: Container
    key: int | str
    path: Path
    half: str


def _mended(value: object) -> tuple[object, list[_End]]:
    """Return `value`, in which every text is valid, and the texts that ended in the first half of a character."""
    if isinstance(value, str):
        return _valid(value), []
    ends: list[_End] = []
    rest: list[tuple[Container, Path]] = [(value, None)] if isinstance(value, (list, dict)) else []
    while rest:  # no recursion: what was just deep enough for the decoder might be too deep
        container, path = rest.pop()
        if isinstance(container, dict):
            _mend_keys(container)
        for key, inner in _entries(container):
            if isinstance(inner, str):
                half = inner[-1:] if "\ud800" <= inner[-1:] <= "\udbff" else ""
                _put(container, key, _valid(inner.removesuffix(half)))
                if half:
                    ends.append(_End(container, key, (path, key), half))
            elif isinstance(inner, (list, dict)):
                rest.append((inner, (path, key)))
    return value, ends


def _join(ends: Iterable[_End], following: object) -> None:
    """Complete the texts with what stands in the same places in `following`, and take that from there."""
    for end in ends:
        container, key = _place(following, end.path)
        text = None if container is None else _get(container, key)
        second = text[0] if isinstance(text, str) and "\udc00" <= text[:1] <= "\udfff" else ""
        if container is not None and second and isinstance(text, str):
            _put(container, key, text[1:])
        _put(end.container, end.key, f"{_get(end.container, end.key)}{_valid(end.half + second)}")


def _place(value: object, path: Path) -> tuple[Container | None, int | str]:
    """Return what in `value` has the path's last key, and that key; None where the path leads nowhere."""
    keys = list[int | str]()
    while path is not None:
        path, key = path
        keys.append(key)
    inner = value
    for key in reversed(keys[1:]):
        inner = _get(inner, key)
    return (inner, keys[0]) if isinstance(inner, (list, dict)) else (None, keys[0])


def _valid(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _mend_keys(table: dict[str, object]) -> None:
    entries = [(_valid(key), value) for key, value in table.items()]
    table.clear()
    table.update(entries)


def _entries(container: Container) -> list[tuple[int | str, object]]:
    return [*container.items()] if isinstance(container, dict) else [*enumerate(container)]


def _get(container: object, key: int | str) -> object:
    if isinstance(container, dict):
        return container.get(key)
    return container[key] if isinstance(container, list) and isinstance(key, int) and key < len(container) else None


def _put(container: Container, key: int | str, text: str) -> None:
    match container, key:
        case dict(), str():
            container[key] = text
        case list(), int():
            container[key] = text
