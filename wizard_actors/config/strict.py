"""The one door through which every setting comes in, from a file, the environment or code: cattrs, made strict.

cattrs structures and collects; the hooks here refuse what it would convert ("false" is no boolean, 5 no text), and the
checks that fields name as attrs validators run in the same place, so that one pass finds everything wrong.
"""

from __future__ import annotations

import functools
import json
import re
import types
from collections.abc import Callable, Iterator, Mapping
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.cols import is_mapping, list_structure_factory, mapping_structure_factory
from cattrs.errors import BaseValidationError, ClassValidationError, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from wizard_actors.config.secret import Secret, secret
from wizard_actors.config.values import DURATION, BadValue, closest, described, parse_number, parse_seconds, unquoted
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.frozen_json import LARGEST_INTEGER, FrozenDict, NotJsonError, frozen_json

__all__ = [
    "Field",
    "KeyPath",
    "admit",
    "all_of",
    "check",
    "chosen",
    "default_of",
    "inner_table",
    "is_choice",
    "is_list",
    "is_seconds",
    "named_tables",
    "problems_in",
    "settings",
    "shown_key",
    "strict",
    "structure",
]

T = TypeVar("T")
Field: TypeAlias = "attrs.Attribute[Any]"
KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a setting stands: ("models", 0, "timeouts", "stall")."""

Hook: TypeAlias = Callable[[Any, Any], Any]
Hinted: TypeAlias = Callable[[KeyPath], str]

CHECK: Final = "wizard_actors.check"
BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def strict(_cls: type, fields: list[Field]) -> list[Field]:
    """Transform a table's fields (attrs' `field_transformer`), so that code too must give them what they take.

    Private fields are not settings: they are left alone.
    """
    return [field if field.name.startswith("_") else _admitting(field) for field in fields]


def _admitting(field: Field) -> Field:
    # A declared converter only tells type checkers what else the field takes; `admit` is what converts.
    converter = ADMIT if field.converter is None else attrs.converters.pipe(field.converter, ADMIT)
    return field.evolve(converter=converter, validator=None, metadata={CHECK: field.validator, **field.metadata})


def settings(table: type[attrs.AttrsInstance]) -> Iterator[Field]:
    """The fields of a table that people set."""
    return (field for field in attrs.fields(table) if not field.name.startswith("_"))


def default_of(setting: Field, table: attrs.AttrsInstance) -> object:
    """Return what a setting is where nobody gives it, in a table like `table`; attrs.NOTHING where it is required."""
    default: Any = setting.default
    if hasattr(default, "takes_self"):  # an attrs.Factory, which is no class to type checkers
        return default.factory(table) if default.takes_self else default.factory()
    return default


def all_of(table: attrs.AttrsInstance) -> dict[str, object]:
    """Return every setting of `table`."""
    return {each.name: getattr(table, each.name) for each in settings(type(table))}


def chosen(table: attrs.AttrsInstance) -> dict[str, object]:
    """Return the settings of `table` that are not at their defaults."""
    defaults = {each.name: default_of(each, table) for each in settings(type(table))}
    return {name: value for name, value in all_of(table).items() if value != defaults[name]}


def admit(value: object, field: Field) -> Any:  # noqa: ANN401 - of the field's own type, which attrs does not carry
    """Return `value` as the field takes it; raises ConfigError."""
    try:
        return check(field, value)
    except (BadValue, BaseValidationError) as found:
        raise ConfigError(list(problems_in(found, (field.name,)))) from None


ADMIT: Final = attrs.Converter(admit, takes_field=True)  # one for all fields: attrs inspects it when it is made


def structure(tables: Mapping[str, object], kind: type[T]) -> T:
    """Build `kind` from plain tables; raises what `problems_in` explains."""
    return STRICT.structure(tables, kind)


def check(field: Field, value: object, _type: object = None) -> Any:  # noqa: ANN401 - as above
    """Return `value` as the field takes it; raises what `problems_in` explains."""
    kind: Any = field.type
    admitted = STRICT.structure(value, kind)
    bounds = field.metadata[CHECK]
    if bounds is not None and admitted is not None:
        bounds(None, field, admitted)
    return admitted


# -- what went wrong, and where ---------------------------------------------------------------------------------------


def no_hint(_path: KeyPath) -> str:
    """Return no hint: code that names an unknown key is told so by Python."""
    return ""


def problems_in(error: Exception, path: KeyPath = (), hint: Hinted = no_hint) -> Iterator[ConfigProblem]:
    """Everything that one failed structuring found; `hint` is asked about each unknown key. Bugs are raised on."""
    if isinstance(error, BaseValidationError):
        for cause, place in _causes(error):
            yield from problems_in(cause, (*path, *place), hint)
        return
    match error:
        case ForbiddenExtraKeysError():
            for key in sorted(error.extra_fields):
                yield ConfigProblem(shown_key((*path, key)), "is unknown", hint((*path, key)))
        case ConfigError():
            for problem in error.problems:
                yield attrs.evolve(problem, key=_joined(shown_key(path), problem.key))
        case BadValue():
            yield ConfigProblem(shown_key(path), error.reason, error.hint)
        case KeyError():  # what cattrs raises for a key that is required and absent
            yield ConfigProblem(shown_key(path), "is required")
        case _:
            raise error


def _causes(error: BaseValidationError) -> Iterator[tuple[Exception, KeyPath]]:
    """What a group of findings holds, each with its place in the table or list; () for what concerns all of it."""
    if isinstance(error, ClassValidationError):
        noted, bare = error.group_exceptions()
        yield from ((cause, (note.name,)) for cause, note in noted)
        yield from ((cause, ()) for cause in bare)
    elif isinstance(error, IterableValidationError):
        yield from ((cause, (note.index,)) for cause, note in error.group_exceptions()[0])


def shown_key(path: KeyPath) -> str:
    """Return `path` as messages show it: "models[0].timeouts.stall"."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown = _joined(shown, part if BARE_KEY.fullmatch(part) else json.dumps(part))
    return shown


def _joined(start: str, rest: str) -> str:
    return start + rest if not start or rest.startswith("[") else f"{start}.{rest}"


# -- the hooks --------------------------------------------------------------------------------------------------------


def inner_table(kind: object) -> type[attrs.AttrsInstance] | None:
    """Return the table that a field's type holds: `Table`, `Table | None` or `tuple[Table, ...]`; else None."""
    if isinstance(kind, type) and attrs.has(kind):
        return kind
    if get_origin(kind) in (tuple, Union, types.UnionType):
        return next((table for part in get_args(kind) if (table := inner_table(part)) is not None), None)
    return None


def named_tables(kind: object) -> tuple[tuple[str, ...], type[attrs.AttrsInstance]] | None:
    """Return the names and the table of a field whose type is `Mapping[Literal[...], Table]`; else None."""
    names, table = get_args(kind) if is_mapping(kind) and len(get_args(kind)) == 2 else (None, None)
    inner = inner_table(table)
    return (get_args(names), inner) if is_choice(names) and inner is not None else None


def _text(value: object, _type: object) -> str:
    if not isinstance(value, str):
        raise BadValue(f"must be a text, got {described(value)}", "write it in quotes" if is_scalar(value) else "")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadValue("must be valid Unicode, and holds half of a surrogate pair") from None
    return value


def is_scalar(value: object) -> bool:
    """Say whether `value` is a number or a boolean."""
    return isinstance(value, (bool, int, float))


def _whole(value: object, _type: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValue(f"must be a whole number, got {described(value)}", unquoted(value, int))
    if not -LARGEST_INTEGER <= value < LARGEST_INTEGER:
        raise BadValue("must be a whole number of at most 64 bits")
    return value


def _flag(value: object, _type: object) -> bool:
    if not isinstance(value, bool):
        hint = "write it without quotes" if value in ("true", "false") else ""
        raise BadValue(f"must be true or false, got {described(value)}", hint)
    return value


def _decimal(value: object, _type: object) -> Decimal:
    if isinstance(value, Decimal) and value.is_finite():
        return value
    # Through the shortest text that reads back as the same float: 0.1 is meant to be 0.1.
    return (
        Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else Decimal(str(parse_number(value)))
    )


def _path(value: object, _type: object) -> Path:
    if not isinstance(value, (str, Path)) or not str(value).strip() or not str(value).isprintable():
        raise BadValue("must be the path of a file")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise BadValue("must be the path of a file, and names the home of an unknown user") from None


def _json(value: object, _type: object) -> object:
    try:
        return frozen_json(value)
    except NotJsonError as error:
        where = f", at {error.place} in it" if error.place else ""
        hint = "write it in quotes" if issubclass(error.found, (date, time)) else ""
        raise BadValue(f"{error.reason}{where}", hint) from None


def _choice(value: object, kind: object) -> object:
    options = get_args(kind)
    if isinstance(value, str) and value in options:
        return value
    listed = ", ".join(json.dumps(option) for option in options)
    meant = closest(value, options)
    raise BadValue(f"must be one of {listed}", f"did you mean {json.dumps(meant)}?" if meant else "")


def _table(kind: type[attrs.AttrsInstance], converter: Converter) -> Hook:
    hooks: dict[str, Any] = {field.name: override(omit=True) for field in attrs.fields(kind)}
    hooks |= {field.name: override(struct_hook=functools.partial(check, field)) for field in settings(kind)}
    fill: Hook = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, **hooks)

    def to_table(value: object, _type: object) -> object:
        if isinstance(value, kind):
            return value
        if isinstance(value, (list, tuple)):
            raise BadValue("must be a table, got a list", "write its header with single brackets: `[...]`")
        if not isinstance(value, Mapping):
            raise BadValue(f"must be a table, got {described(value)}")
        return fill(value, kind)

    return to_table


def _tuple(kind: Any, converter: Converter) -> Hook:  # noqa: ANN401 - a type form, which typing cannot name yet
    items: Any = types.GenericAlias(list, get_args(kind)[:1])
    collect: Hook = list_structure_factory(items, converter)

    def to_tuple(value: object, _type: object) -> object:
        if not isinstance(value, (list, tuple)):
            brackets = "write its header with double brackets: `[[...]]`" if isinstance(value, Mapping) else ""
            raise BadValue(f"must be a list, got {described(value)}", brackets)
        return tuple(collect(value, items))

    return to_tuple


def _mapping(kind: Any, converter: Converter) -> Hook:  # noqa: ANN401 - a type form, as above
    collect: Hook = mapping_structure_factory(kind, converter)

    def to_mapping(value: object, _type: object) -> object:
        if not isinstance(value, Mapping):
            raise BadValue(f"must be a table, got {described(value)}")
        return FrozenDict(collect(value, kind))

    return to_mapping


def _strict_converter() -> Converter:
    converter = Converter(detailed_validation=True)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(int, _whole)
    converter.register_structure_hook(bool, _flag)
    converter.register_structure_hook(float, lambda value, _: parse_number(value))
    converter.register_structure_hook(Decimal, _decimal)
    converter.register_structure_hook(Path, _path)
    converter.register_structure_hook(Secret, lambda value, _: secret(value))
    converter.register_structure_hook_func(lambda kind: kind is object, _json)
    converter.register_structure_hook_func(is_choice, _choice)
    converter.register_structure_hook_func(is_seconds, lambda value, _: parse_seconds(value))
    converter.register_structure_hook_factory(is_mapping, _mapping)
    converter.register_structure_hook_factory(is_list, _tuple)
    converter.register_structure_hook_factory(attrs.has, _table)
    return converter


def is_list(kind: object) -> bool:
    """Say whether a field's type is `tuple[..., ...]`."""
    return get_origin(kind) is tuple


def is_choice(kind: object) -> bool:
    """Say whether a field's type is `Literal[...]`."""
    origin: object = get_origin(kind)
    return origin is Literal


def is_seconds(kind: object) -> bool:
    """Say whether a field's type is `Seconds`."""
    return get_origin(kind) is Annotated and DURATION in get_args(kind)


STRICT: Final = _strict_converter()
