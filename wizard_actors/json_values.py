"""JSON values as instances of classes: attrs classes and dataclasses through their own initialisers, whatever else the
class's schema can name as msgspec reads it. Pure.

msgspec alone would not do: it runs no converters of attrs classes. cattrs alone neither: it takes "5" for a number.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import reduce
from inspect import get_annotations
from operator import or_
from types import GenericAlias
from typing import Annotated, Final, Union, get_args, get_origin

import attrs
import msgspec
from attrs import frozen
from cattrs import Converter
from cattrs.errors import BaseValidationError, ClassValidationError, IterableValidationError

__all__ = ["Problem", "converter", "problems_in"]

PRIMITIVES: Final = (str, bytes, int, float, bool, Enum)
"""What cattrs would convert rather than refuse."""


@frozen
class Problem:
    """One thing wrong with a JSON value: its `place`, "$.homes[0].street", with "$" for all of it, and the `reason`."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"`{self.place}`: {self.reason}"


def converter() -> Converter:
    """Return what turns JSON values into a class. It keeps what it has learned of each class it meets."""
    made = Converter(detailed_validation=True)
    for kind in PRIMITIVES:
        made.register_structure_hook(kind, _leaf)
    made.register_structure_hook_func(_is_leaf, _leaf)
    made.register_structure_hook_factory(_is_named_tuple, lambda kind: _named_tuple(kind, made))
    made.register_structure_hook_factory(_has_keys_of_its_own, lambda kind: _mapping(kind, made))
    made.register_structure_hook_factory(_is_union, lambda kind: _union(kind, made))
    return made


def _leaf(value: object, kind: object) -> object:
    """Return `value` as msgspec reads it."""
    return msgspec.convert(value, typing.cast("type[object]", kind), str_keys=True)


def _is_leaf(kind: object) -> bool:
    """Whether no class of one's own can stand inside of `kind`, other than those that msgspec makes."""
    plain = get_origin(kind) or kind
    if plain is Annotated:
        return _is_leaf(get_args(kind)[0])
    if not isinstance(plain, type) or plain is types.UnionType:
        return False
    return _shape(kind) is None


def _has_keys_of_its_own(kind: object) -> bool:
    """Whether `kind` is a mapping whose keys are no texts: JSON's are, and only msgspec reads others from them."""
    arguments = get_args(kind)
    return _is_mapping(kind) and len(arguments) == 2 and arguments[0] not in {str, typing.Any}


def _mapping(kind: object, made: Converter) -> Callable[[dict[str, object], object], object]:
    key, item = get_args(kind)

    def structure(value: dict[str, object], _kind: object) -> object:
        keys = typing.cast("dict[object, None]", _leaf(dict.fromkeys(value), GenericAlias(dict, (key, None))))
        items = dict(zip(keys, value.values(), strict=True))
        structured: object = made.structure(items, typing.cast("type[object]", GenericAlias(dict, (typing.Any, item))))
        return structured

    return structure


def _is_mapping(kind: object) -> bool:
    origin = get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, Mapping) and not typing.is_typeddict(origin)


def _is_named_tuple(kind: object) -> bool:
    """Whether `kind` is a tuple whose places have names and types, however it was made."""
    return isinstance(kind, type) and issubclass(kind, tuple) and bool(get_annotations(kind))


def _named_tuple(kind: Callable[..., object], made: Converter) -> Callable[[list[object], object], object]:
    hints = tuple(typing.get_type_hints(kind, include_extras=True).values())

    def structure(value: list[object], _kind: object) -> object:
        given = GenericAlias(tuple, hints[: len(value)])  # the last ones may have defaults
        places: tuple[object, ...] = made.structure(value, typing.cast("type[tuple[object, ...]]", given))
        return kind(*places)

    return structure


def _shape(kind: object) -> type[object] | None:
    """Return what JSON writes a collection or a class as: a dict, or a list; None for all that msgspec makes."""
    origin = get_origin(kind) or kind
    if not isinstance(origin, type):
        return None
    if attrs.has(origin) or dataclasses.is_dataclass(origin) or typing.is_typeddict(origin) or _is_mapping(origin):
        return dict
    if issubclass(origin, str | bytes | bytearray | memoryview) or (
        hasattr(origin, "_fields") and not _is_named_tuple(origin)
    ):
        return None
    return list if issubclass(origin, Sequence | AbstractSet) else None


# -- unions ----------------------------------------------------------------------------------------------------------


def _is_union(kind: object) -> bool:
    return get_origin(kind) in {Union, types.UnionType}


def _union(kind: object, made: Converter) -> Callable[[object, object], object]:
    """Return what chooses the member of a union by what the value is in JSON. msgspec writes a schema only for unions
    in which that decides: with one class, say, beside a list, texts and numbers.
    """
    members = get_args(kind)
    collections = [(shape, member) for member in members if (shape := _shape(member)) is not None]
    plain = [member for member in members if _shape(member) is None]
    leaves: object = reduce(or_, plain) if plain else None

    def choose(value: object, _kind: object) -> object:
        for shape, member in collections:
            if type(value) is shape:
                chosen: object = made.structure(value, typing.cast("type[object]", member))
                return chosen
        return _leaf(value, leaves)

    return choose


# -- what went wrong, and where --------------------------------------------------------------------------------------


def problems_in(error: BaseValidationError, place: str) -> Iterator[Problem]:
    """Yield what a value at `place` was refused for: wrong types, and each ValueError and TypeError of a validator, a
    converter or an initialiser. Any other error of theirs is a bug, and raised.
    """
    for cause, inside in _causes(error):
        where = f"{place}{inside}"
        match cause:
            case BaseValidationError():
                yield from problems_in(cause, where)
            case ValueError() | TypeError():
                yield Problem(where, _said(cause))
            case _:
                raise cause


def _causes(error: BaseValidationError) -> Iterator[tuple[Exception, str]]:
    """Yield what a group of findings holds, each with its place below the group's."""
    if isinstance(error, ClassValidationError):
        noted, bare = error.group_exceptions()
        yield from ((cause, f".{note.name}") for cause, note in noted)
        yield from ((cause, "") for cause in bare)
    elif isinstance(error, IterableValidationError):
        listed, bare = error.group_exceptions()
        yield from ((cause, f"[{note.index!r}]") for cause, note in listed)
        yield from ((cause, "") for cause in bare)


def _said(error: Exception) -> str:
    """Return the first of an error's arguments: attrs' own validators hand the field and the value over as well."""
    return str(error.args[0]) if error.args else type(error).__name__
