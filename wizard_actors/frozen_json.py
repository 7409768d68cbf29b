"""JSON values that nobody can change: a dict and a list that refuse it, and the check that a value is JSON all through.

They are a dict and a list to whoever reads them: equal to plain ones, written by any JSON encoder, copied and pickled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NoReturn, Self, TypeVar

from attrs import define, field

__all__ = ["LARGEST_INTEGER", "MAX_DEPTH", "MAX_VALUES", "FrozenDict", "FrozenList", "NotJsonError", "frozen_json"]

K = TypeVar("K")
V = TypeVar("V")

MAX_DEPTH: Final = 64
"""How deep values may nest: far from where readers of JSON give up."""

MAX_VALUES: Final = 100_000
"""How many values one may hold, each counted as often as it occurs: as often as it would be written."""

LARGEST_INTEGER: Final = 2**63  # what readers of JSON agree on


def _refuse(self: object, *_args: object, **_keywords: object) -> NoReturn:
    raise TypeError(f"a {type(self).__name__} cannot be changed: `dict(...)` or `list(...)` of it makes one that can")


class FrozenDict(dict[K, V]):
    """A dict that cannot be changed; `dict(...)` makes a copy that can. What it holds is as it was given."""

    __slots__ = ()

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[dict[K, V]]]:
        return type(self), (dict(self),)  # for pickle and copy, which would fill it item by item


class FrozenList(list[V]):
    """A list that cannot be changed; `list(...)` makes a copy that can. What it holds is as it was given."""

    __slots__ = ()

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __copy__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[list[V]]]:
        return type(self), (list(self),)  # as above


class NotJsonError(ValueError):
    """What a value is not. `place` is where in it, `['tags'][0]`; `reason` reads on from there, and repeats no value;
    `found` is the type of what was found there.
    """

    def __init__(self, place: str, reason: str, found: type) -> None:
        super().__init__(f"{place} {reason}".lstrip())
        self.place = place
        self.reason = reason
        self.found = found


def frozen_json(value: object) -> object:
    """Return a copy of a value that is JSON all through, and that cannot be changed; tuples become lists.

    Raises `NotJsonError` for what JSON cannot hold, or what its readers disagree on: keys that are no texts, numbers
    that are not finite or have more than 64 bits, halves of surrogate pairs, more than 64 levels or 100,000 values.
    """
    return _Freezing().take(value)


@define
class _Freezing:
    """One value on its way: the keys that lead to where it is looked at, and how many more values it may hold."""

    path: list[str | int] = field(factory=list)
    left: int = MAX_VALUES

    def take(self, value: object) -> object:
        self.left -= 1
        if self.left < 0:
            raise NotJsonError("", f"holds more than {MAX_VALUES:,} values", type(value))
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(value, "is")
        if isinstance(value, int | float):
            return self.number(value)
        if isinstance(value, list | tuple | Mapping) and len(self.path) >= MAX_DEPTH:
            raise NotJsonError("", f"nests deeper than {MAX_DEPTH} levels", type(value))
        if isinstance(value, list | tuple):
            return FrozenList(self.inside(index, item) for index, item in enumerate(value))
        if isinstance(value, Mapping):
            return FrozenDict((self.key(key), self.inside(key, item)) for key, item in value.items())
        kind = type(value).__name__
        raise self.refusal(
            f"is no JSON value: it is of type {kind}; JSON holds texts, numbers, booleans, None, lists and mappings",
            value,
        )

    def inside(self, key: str | int, item: object) -> object:
        self.path.append(key)
        frozen = self.take(item)
        self.path.pop()
        return frozen

    def number(self, value: float) -> float:
        if isinstance(value, int):
            if not -LARGEST_INTEGER <= value < LARGEST_INTEGER:
                raise self.refusal("is no JSON value: a whole number may have at most 64 bits", value)
            return int(value)
        if not math.isfinite(value):
            raise self.refusal("is no JSON value: a number that is not finite", value)
        return float(value)

    def key(self, key: object) -> str:
        if not isinstance(key, str):
            raise self.refusal(f"has a key of type {type(key).__name__}; JSON's keys are texts", key)
        return self.text(key, "has a key that is")

    def text(self, text: str, which: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise self.refusal(f"{which} not valid Unicode: {error.reason} at character {error.start}", text) from None
        return str.__str__(text)

    def refusal(self, reason: str, value: object) -> NotJsonError:
        return NotJsonError("".join(f"[{key!r}]" for key in self.path), reason, type(value))
