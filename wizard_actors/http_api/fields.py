"""A JSON object that somebody sent, read strictly: what is wrong with it is told by its place. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Self

__all__ = ["BadRequestError", "Fields", "said"]

KINDS: Final[Mapping[type, str]] = MappingProxyType(
    {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
        type(None): "null",
    }
)
"""What JSON calls the types that it is read into."""

LONGEST_SHOWN: Final = 60


class BadRequestError(Exception):
    """Raised for a request that is wrong in itself: no model is asked.

    `param` is the place in the body, None where it is about no place; `status` the HTTP status; `code` the
    error's own.
    """

    def __init__(
        self, message: str, *, param: str | None = None, status: int = 400, code: str = "invalid_request"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.status = status
        self.code = code


class Fields:
    """One object of a body, at `place` ("" for the body itself, else "messages[0]" or so). null counts as not given.

    All methods raise `BadRequestError` where a field is not what it has to be.
    """

    def __init__(self, given: Mapping[str, object], place: str = "") -> None:
        self.given = given
        self.place = place

    @classmethod
    def of(cls, value: object, place: str = "") -> Self:
        """Return the fields of a value that has to be an object."""
        if not isinstance(value, dict):
            where = f"`{place}`" if place else "the body"
            raise BadRequestError(f"{where} must be an object, not {_kind(value)}", param=place or None)
        return cls(value, place)

    def path(self, name: str) -> str:
        """Return the place of a field, its name not longer than a line."""
        shown = name if name.isprintable() else repr(name)[1:-1]
        if len(shown) > LONGEST_SHOWN:
            shown = f"{shown[:LONGEST_SHOWN]}..."
        return f"{self.place}.{shown}" if self.place else shown

    def get(self, name: str) -> object:
        """Return a field, whatever it is; None where it is not given."""
        return self.given.get(name)

    def text(self, name: str) -> str | None:
        """Return a text, None where it is not given."""
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise self.no(name, "a text")
        return value

    def needed_text(self, name: str) -> str:
        """Return a text that has to be there."""
        value = self.text(name)
        if value is None:
            raise self.missing(name)
        return value

    def number(self, name: str) -> float | None:
        """Return a number, None where it is not given."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.no(name, "a number")
        return value

    def whole(self, name: str) -> int | None:
        """Return a whole number, None where it is not given."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.no(name, "a whole number")
        return value

    def flag(self, name: str) -> bool | None:
        """Return true or false, None where it is not given."""
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.no(name, "true or false")
        return value

    def inner(self, name: str) -> Fields | None:
        """Return an object's fields, None where it is not given."""
        value = self.get(name)
        return None if value is None else Fields.of(value, self.path(name))

    def needed_inner(self, name: str) -> Fields:
        """Return the fields of an object that has to be there."""
        inner = self.inner(name)
        if inner is None:
            raise self.missing(name)
        return inner

    def items(self, name: str) -> Sequence[object] | None:
        """Return a list, None where it is not given."""
        value = self.get(name)
        if value is not None and not isinstance(value, list):
            raise self.no(name, "a list")
        return value

    def each(self, name: str) -> Sequence[Fields]:
        """Return the objects of a list; none where it is not given."""
        return [Fields.of(item, f"{self.path(name)}[{index}]") for index, item in enumerate(self.items(name) or ())]

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list's texts, or the one that stands there alone; none where it is not given."""
        value = self.get(name)
        if isinstance(value, str):
            return (value,)
        found = self.items(name) or ()
        texts = tuple(item for item in found if isinstance(item, str))
        if len(texts) < len(found):
            raise self.no(name, "a text, or a list of texts")
        return texts

    def one_of(self, name: str, words: Collection[str]) -> str | None:
        """Return a text that is one of `words`, None where it is not given."""
        value = self.text(name)
        if value is not None and value not in words:
            raise self.wrong(name, f"must be one of {', '.join(words)}, not {said(value)}")
        return value

    def mapping(self, name: str) -> Mapping[str, object] | None:
        """Return an object as it is, None where it is not given."""
        inner = self.inner(name)
        return None if inner is None else inner.given

    def rest(self, known: Collection[str]) -> dict[str, object]:
        """Return the fields that are not `known`, without those that are null."""
        return {name: value for name, value in self.given.items() if name not in known and value is not None}

    def missing(self, name: str) -> BadRequestError:
        """Return the error for a field that has to be there."""
        return self.wrong(name, "is missing")

    def wrong(self, name: str, reason: str) -> BadRequestError:
        """Return the error for a field; `reason` reads on from its name."""
        return BadRequestError(f"`{self.path(name)}` {reason}", param=self.path(name))

    def no(self, name: str, what: str) -> BadRequestError:
        """Return the error for a field that is of another type."""
        return self.wrong(name, f"must be {what}, not {_kind(self.get(name))}")


def said(text: str) -> str:
    """Return what somebody sent as it may stand in a message: quoted, and not longer than a line."""
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...")


def _kind(value: object) -> str:
    return KINDS.get(type(value), "that")
