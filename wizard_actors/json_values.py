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
from operator import or_
from types import GenericAlias
from typing import Annotated, Final, get_args, get_origin

import attrs
import msgspec
from attrs import frozen
from cattrs import Converter
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ClassValidationError,
    IterableValidationError,
)

from wizard_actors.class_fields import ClassField, fields_of, is_named_tuple, is_union, plain_class

__all__ = ["Problem", "converter", "problems_in"]

PRIMITIVES: Final = (str, bytes, int, float, bool, Enum)
"""What cattrs would convert rather than refuse."""

REFUSALS: Final = (BaseValidationError, ValueError, TypeError)
"""What a value is refused with; anything else is a bug in a class."""


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
    made.register_structure_hook_factory(_has_fields, _Instances(made).of)
    made.register_structure_hook_factory(_has_keys_of_its_own, lambda kind: _mapping(kind, made))
    made.register_structure_hook_factory(is_union, lambda kind: _union(kind, made))
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


def _has_fields(kind: object) -> bool:
    """Whether `kind` is a class that is made by its initialiser, and no dict."""
    plain = plain_class(kind)
    return plain is not None and (attrs.has(plain) or dataclasses.is_dataclass(plain) or is_named_tuple(plain))


class _Instances:
    """How classes are made: through their own initialisers, from the properties that these have parameters for."""

    def __init__(self, made: Converter) -> None:
        self._made = made
        self._met: set[object] = set()

    def of(self, kind: object) -> Callable[[object, object], object]:
        """Return what makes a class of an object. Raises `StructureHandlerNotFoundError` for types that nobody makes,
        in a field as well.
        """
        fields = fields_of(kind) or ()
        if kind not in self._met:  # a class may hold itself
            self._met.add(kind)
            for each in fields:
                self._made.get_structure_hook(typing.cast("type[object]", each.kind))
        initialiser = typing.cast("Callable[..., object]", plain_class(kind))

        def structure(value: object, _kind: object) -> object:
            given = typing.cast("dict[str, object]", value)
            taken, wrong = self._taken(fields, given)
            if not wrong:
                try:
                    return initialiser(**taken)
                except REFUSALS as error:
                    wrong.append(error)
            raise ClassValidationError("", wrong, typing.cast("type[object]", initialiser))

        return structure

    def _taken(
        self, fields: tuple[ClassField, ...], given: dict[str, object]
    ) -> tuple[dict[str, object], list[Exception]]:
        """Return the arguments that were given, and what is wrong with them."""
        taken: dict[str, object] = {}
        wrong: list[Exception] = []
        for each in fields:
            if each.name not in given:
                continue
            try:
                taken[each.name] = self._made.structure(given[each.name], typing.cast("type[object]", each.kind))
            except REFUSALS as error:
                error.add_note(AttributeValidationNote(each.name, each.name, each.kind))
                wrong.append(error)
        return taken, wrong


def _shape(kind: object) -> type[object] | None:
    """Return what JSON writes a collection or a class as: a dict, or a list; None for all that msgspec makes."""
    origin = get_origin(kind) or kind
    if not isinstance(origin, type):
        return None
    if _has_fields(origin) or typing.is_typeddict(origin) or _is_mapping(origin):
        return dict
    if issubclass(origin, str | bytes | bytearray | memoryview):
        return None
    return list if issubclass(origin, Sequence | AbstractSet) else None


# -- unions ----------------------------------------------------------------------------------------------------------


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
