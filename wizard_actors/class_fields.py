"""What an answer may say of a class: the parameters of its initialiser, by the names and types that they have. Pure.

The schema that is sent and the reader of its answers both go by this, so that what is asked for can be read.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import attrs
import msgspec
from attrs import frozen

__all__ = ["ClassField", "fields_of", "is_named_tuple", "is_union", "plain_class", "stand_in"]

UNIONS: Final = (Union, types.UnionType)

PRESENCE: Final = (typing.Required, typing.NotRequired)


@frozen
class ClassField:
    """One parameter: its `name` is the property's in JSON, `kind` its type; `required`: it has no default."""

    name: str
    kind: object
    required: bool


def fields_of(kind: object) -> tuple[ClassField, ...] | None:
    """Return the fields of an attrs class, a dataclass, a named tuple or a TypedDict, None for any other type.

    Left out are those that the initialiser does not take; an attrs field is known by its alias there, `_name` as
    `name`. Raises NameError, TypeError or SyntaxError for an annotation in quotes that names nothing.
    """
    plain = plain_class(kind)
    if plain is None:
        return None
    listed = _listed(plain)
    if listed is None:
        return None
    hints, bound = _hints(plain), _bound(kind)
    return tuple(
        ClassField(name, _filled(_without_presence(hints.get(attribute, declared)), bound), required)
        for attribute, name, declared, required in listed
    )


def plain_class(kind: object) -> type[object] | None:
    """Return the class that `kind` is, with or without parameters; None for what is no class."""
    plain = get_origin(kind) or kind
    return plain if isinstance(plain, type) else None


def is_named_tuple(kind: object) -> bool:
    """Whether `kind` is a tuple whose places have names, however it was made."""
    plain = plain_class(kind)
    return plain is not None and issubclass(plain, tuple) and hasattr(plain, "_fields")


def is_union(kind: object) -> bool:
    """Whether `kind` is a union, in either notation."""
    return get_origin(kind) in UNIONS


Listed = tuple[str, str, object, bool]
"""A field's attribute, its name for the initialiser, the type beside it, and whether it has no default."""


def _listed(plain: type[object]) -> list[Listed] | None:
    if attrs.has(plain):
        return [
            (each.name, each.alias or each.name, Any if each.type is None else each.type, each.default is attrs.NOTHING)
            for each in attrs.fields(plain)
            if each.init
        ]
    if dataclasses.is_dataclass(plain):
        missing = dataclasses.MISSING
        return [
            (each.name, each.name, each.type, each.default is missing and each.default_factory is missing)
            for each in dataclasses.fields(plain)
            if each.init
        ]
    if typing.is_typeddict(plain):
        needed: frozenset[str] = getattr(plain, "__required_keys__", frozenset())
        return [(name, name, Any, name in needed) for name in plain.__annotations__]
    if is_named_tuple(plain):
        names: tuple[str, ...] = getattr(plain, "_fields", ())
        defaults: Mapping[str, object] = getattr(plain, "_field_defaults", {})
        return [(name, name, Any, name not in defaults) for name in names]
    return None


# -- types ------------------------------------------------------------------------------------------------------------


def _hints(plain: type[object]) -> dict[str, Any]:
    """Return the types of a class's annotations, names in quotes looked up, wherever in a type they stand."""
    try:
        return typing.get_type_hints(plain, include_extras=True)
    except NameError:  # inside of a function a class cannot be found, and is the one that it most often names
        return typing.get_type_hints(plain, localns={plain.__name__: plain}, include_extras=True)


def _without_presence(kind: object) -> object:
    return get_args(kind)[0] if get_origin(kind) in PRESENCE else kind


def _bound(kind: object) -> dict[object, object]:
    """Return what a generic class's type variables stand for, and those of the classes that it is made from."""
    plain = get_origin(kind) or kind
    bound: dict[object, object] = dict(zip(getattr(plain, "__parameters__", ()), get_args(kind), strict=False))
    for base in getattr(plain, "__orig_bases__", ()):
        for variable, argument in _bound(base).items():
            bound.setdefault(variable, _filled(argument, bound))
    return bound


def _filled(kind: object, bound: Mapping[object, object]) -> object:
    """Return a type with what its type variables stand for."""
    if isinstance(kind, TypeVar):
        return bound.get(kind, kind.__bound__ or Any)
    return _rebuilt(kind, lambda inner: _filled(inner, bound))


def _rebuilt(kind: object, change: Callable[[object], object]) -> object:
    """Return a type with its arguments changed."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is None or origin is Literal or not arguments:
        return kind
    if origin is Annotated:
        return Annotated[(change(arguments[0]), *arguments[1:])]
    changed = tuple(change(argument) for argument in arguments)
    if all(one is other for one, other in zip(changed, arguments, strict=True)):
        return kind
    if origin in UNIONS:
        return reduce(or_, changed)
    rebuilt: object = origin[changed[0] if len(changed) == 1 else changed]
    return rebuilt


# -- what is shown of them --------------------------------------------------------------------------------------------


def stand_in(kind: object) -> object:
    """Return the type whose JSON Schema shows `kind` as an answer may say it: each class in it is an object with the
    properties of `fields_of`. What `msgspec.Struct`s hold is theirs, and shown as it is.

    Raises what `fields_of` raises, and TypeError for what no dict can have as a key.
    """
    return _StandIns().of(kind)


class _StandIns:
    """The classes that stand for those of one type, each made once: a class may hold itself."""

    def __init__(self) -> None:
        self._made: dict[object, type[msgspec.Struct]] = {}

    def of(self, kind: object) -> object:
        fields = fields_of(kind)
        if fields is not None:
            return self._made.get(kind) or self._class(kind, fields)
        plain = plain_class(kind)
        if plain is not None and issubclass(plain, msgspec.Struct):
            return kind
        return _rebuilt(kind, self.of)

    def _class(self, kind: object, fields: tuple[ClassField, ...]) -> type[msgspec.Struct]:
        plain = plain_class(kind) or object
        places = {f"f{number}": each for number, each in enumerate(fields)}  # a property may have any name
        made = self._made[kind] = msgspec.defstruct(
            _name(kind, plain),
            [(place, Any) if each.required else (place, Any, None) for place, each in places.items()],
            rename={place: each.name for place, each in places.items()},
            namespace={"__doc__": _doc(plain)},
            module=plain.__module__,
            kw_only=True,
        )
        # Only where two classes have one name; and a Struct may hold the same tuple in its own way.
        made.__qualname__ = f"{plain.__qualname__}_" if is_named_tuple(plain) else plain.__qualname__
        made.__annotations__ = {place: self.of(each.kind) for place, each in places.items()}
        return made


def _name(kind: object, plain: type[object]) -> str:
    arguments = ", ".join(_names(get_args(kind)))
    return f"{plain.__name__}[{arguments}]" if arguments else plain.__name__


def _names(arguments: tuple[object, ...]) -> Iterator[str]:
    for argument in arguments:
        yield argument.__name__ if isinstance(argument, type) else repr(argument)


def _doc(plain: type[object]) -> str | None:
    """Return a class's own words; dataclasses and named tuples are otherwise described by their signatures."""
    doc = plain.__doc__
    return None if doc is None or (doc.startswith(f"{plain.__name__}(") and doc.endswith(")")) else doc
