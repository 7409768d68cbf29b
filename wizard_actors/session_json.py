"""A stored session as JSON and back, exactly: cattrs, made strict both ways, over msgspec's bytes.

    {"schema": 1, "id": "alice", "created_at": ..., "version": 3, "state": "active", ..., "turns": [
        {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}],
         "at": ..., "model": "primary", "usage": {"input_tokens": 9, "output_tokens": 2}, "cost": "0.0012"}]}

What is at its default is left out. The parts of a message carry their `type`, a picture's data is base64 text, a cost
is a text, so that no digit is lost. `schema` is the version of this form: it is raised when an older reader would
misread a newer record, and the reader here knows all versions up to its own.
"""

from __future__ import annotations

import base64
import json
import types
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final, TypeAlias, TypeVar, get_args

import attrs
import msgspec
from cattrs import Converter
from cattrs.cols import is_mapping
from cattrs.errors import (
    BaseValidationError,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

from wizard_actors.errors import SerializationError, WizardError
from wizard_actors.frozen_json import LARGEST_INTEGER, NotJsonError, frozen_json
from wizard_actors.session_record import SessionRecord, SessionState
from wizard_actors.types import Content, FinishReason, Image, Role, Text

__all__ = ["SCHEMA", "decode_json", "decode_session", "encode_session", "structured", "unstructured"]

SCHEMA: Final = 1
"""The version of the JSON form that is written."""

SHOWN_KEYS: Final = 5
"""Of those that are unknown, in an error's message."""

Hook: TypeAlias = Callable[[Any, Any], Any]

T = TypeVar("T")


class _BadValueError(ValueError):
    """What a value of a record is not; its text says so without repeating the value, which is somebody's content."""


def encode_session(record: SessionRecord) -> bytes:
    """Return a record as JSON, in UTF-8.

    Raises `SerializationError`, which names the session, where the record holds what would not come back as it is.
    """
    try:
        return msgspec.json.encode({"schema": SCHEMA, **CONVERTER.unstructure(record, SessionRecord)})
    except (_BadValueError, UnicodeEncodeError) as error:
        reason = "is not valid Unicode" if isinstance(error, UnicodeEncodeError) else str(error)
        raise SerializationError(f"session {record.id!r} cannot be stored: a value of it {reason}") from error


def decode_session(data: bytes, session: str) -> SessionRecord:
    """Return the record that `encode_session` turned into `data`; `session` is the id under which it was found.

    Raises `SerializationError`, which names the session, where `data` is damaged, of another session, or was written by
    a newer version of this package.
    """
    try:
        plain = decode_json(data)
    except SerializationError as error:
        raise _damaged(session, error.message) from error.__cause__
    schema = plain.pop("schema", None) if isinstance(plain, dict) else None
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise _damaged(session, "it is no session: it has no `schema`")
    if schema > SCHEMA:
        raise SerializationError(
            f"session {session!r} was stored by a newer version of wizard_actors, in schema {schema}; this one reads "
            f"up to schema {SCHEMA}: upgrade it, or leave the session to the newer one"
        )
    try:
        record = structured(plain, SessionRecord)
    except SerializationError as error:
        raise _damaged(session, error.message) from error.__cause__
    if record.id != session:
        raise _damaged(session, f"it holds the session {record.id!r}")
    return record


def decode_json(data: bytes) -> object:
    """Return what stands there as JSON. Raises `SerializationError`, whose message begins with "it" or "the key"."""
    try:
        plain: object = msgspec.json.decode(data)
        if msgspec.json.encode(plain) != data:  # nobody here wrote that: a key may stand there twice
            json.loads(data, object_pairs_hook=_once, parse_int=str, parse_float=str)
    except _BadValueError as error:
        raise SerializationError(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SerializationError(f"it is no JSON: {error}") from error
    return plain


def structured(plain: object, kind: type[T], whole: str = "", *, newer: bool = False) -> T:
    """Return a part of a record, a `Message` say, from its JSON values; or anything else that is made of such parts.

    `newer`: a newer version may have written it, and keys that are not known here are passed over.

    Raises `SerializationError`: the first thing that is wrong, with its place in `whole`.
    """
    try:
        return (NEWER if newer else CONVERTER).structure(plain, kind)
    except BaseValidationError as error:
        raise SerializationError(next(_problems(error, whole))) from error
    except _BadValueError as error:
        raise SerializationError(f"`{whole}` {error}") from error


def unstructured(value: object) -> dict[str, object]:
    """Return a value as `structured` takes it. Raises `SerializationError` for what would not come back as it is."""
    try:
        plain: dict[str, object] = CONVERTER.unstructure(value, type(value))
    except _BadValueError as error:
        raise SerializationError(f"a value of the {type(value).__name__} {error}") from error
    return plain


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object of JSON, unless one of its keys stands there twice: readers of JSON disagree on which counts."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _BadValueError(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


def _damaged(session: str, reason: str) -> SerializationError:
    return SerializationError(f"what is stored of session {session!r} cannot be read: {reason}")


def _problems(error: Exception, path: str) -> Iterator[str]:
    """Yield what was found wrong, each with its place; values are not repeated, keys are."""
    match error:
        case ClassValidationError():
            noted, bare = error.group_exceptions()
            for cause, note in noted:
                yield from _problems(cause, f"{path}.{note.name}" if path else note.name)
            for cause in bare:
                yield from _problems(cause, path)
        case IterableValidationError():
            for cause, item in error.group_exceptions()[0]:
                yield from _problems(cause, f"{path}[{item.index}]")
        case ForbiddenExtraKeysError():
            yield f"`{path or 'the session'}` has unknown keys: {_shown_keys(error.extra_fields)}"
        case KeyError():
            yield f"`{path}` is missing"
        case _BadValueError():
            yield f"`{path}` {error}"
        case WizardError():
            yield f"`{path}`: {error}" if path else str(error)
        case _:
            yield f"`{path}` is not what it should be: {type(error).__name__}"


def _shown_keys(keys: set[str]) -> str:
    shown = [repr(key if len(key) <= 60 else f"{key[:60]}...") for key in sorted(keys)[:SHOWN_KEYS]]
    return ", ".join([*shown, *(["..."] if len(keys) > SHOWN_KEYS else [])])


# -- the hooks ---------------------------------------------------------------------------------------


def _text(value: object, _type: object = None) -> str:
    if not isinstance(value, str):
        raise _BadValueError(f"must be a text, and is of type {type(value).__name__}")
    return str.__str__(value)


def _choice(value: object, kind: type[StrEnum]) -> StrEnum:
    if value not in kind.__members__.values():
        raise _BadValueError(f"must be one of {', '.join(kind)}")
    return kind(_text(value))


def _whole(value: object, _type: object = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= LARGEST_INTEGER:
        raise _BadValueError(f"must be a whole number of at most 64 bits, and is of type {type(value).__name__}")
    return int(value)


def _bool(value: object, _type: object = None) -> bool:
    if not isinstance(value, bool):
        raise _BadValueError(f"must be true or false, and is of type {type(value).__name__}")
    return value


def _number(value: object, _type: object = None) -> float:
    if isinstance(value, bool) or not isinstance(value, float | int):
        raise _BadValueError(f"must be a number, and is of type {type(value).__name__}")
    return float(value)


def _decimal(value: object, _type: object) -> Decimal:
    text = _text(value)
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise _BadValueError("must be a decimal number") from None
    if str(number) != text:  # Python also takes spaces, underscores and the digits of other scripts
        raise _BadValueError("must be a decimal number, in the form in which it was written")
    return number


def _bytes(value: object, _type: object) -> bytes:
    text = _text(value)
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise _BadValueError("must be base64 text") from None
    if _shown_bytes(data) != text:  # bits beside the last byte: another text for the same bytes
        raise _BadValueError("must be base64 text, in the form in which it was written")
    return data


def _shown_bytes(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _part(converter: Converter) -> Hook:
    def to_part(value: object, _type: object) -> Text | Image:
        plain = _mapping(value)
        kind = PARTS.get(_text(plain.get("type")))
        if kind is None:
            raise _BadValueError(f"must have one of the types {', '.join(PARTS)}")
        part: Text | Image = converter.structure({key: item for key, item in plain.items() if key != "type"}, kind)
        return part

    return to_part


def _shown_part(part: Text | Image) -> dict[str, object]:
    name, kind = ("text", Text) if isinstance(part, Text) else ("image", Image)
    return {"type": name, **CONVERTER.unstructure(part, kind)}


def _content(converter: Converter) -> Hook:
    def to_content(value: object, _type: object) -> Content:
        if not isinstance(value, list):
            return _text(value)
        parts: tuple[Text | Image, ...] = converter.structure(value, tuple[Text | Image, ...])
        return parts

    return to_content


def _shown_content(content: Content) -> object:
    return _text(content) if isinstance(content, str) else [_shown_part(part) for part in content]


def _mapping(value: object, _type: object = None) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _BadValueError(f"must be an object, and is of type {type(value).__name__}")
    return value


def _shown_mapping(value: object, _type: object = None) -> object:
    try:
        return frozen_json(value)  # a record's is already, unless somebody went round it
    except NotJsonError as error:
        raise _BadValueError(error.reason) from error


def _is_tuple(kind: object) -> bool:
    return isinstance(kind, types.GenericAlias) and kind.__origin__ is tuple


def _tuple(kind: Any, converter: Converter) -> Hook:  # noqa: ANN401 - a type form, which typing cannot name yet
    item_kind: Any = get_args(kind)[0]
    take: Hook = converter.get_structure_hook(item_kind)

    def to_tuple(value: object, _type: object) -> object:
        if not isinstance(value, list):
            raise _BadValueError(f"must be a list, and is of type {type(value).__name__}")
        taken: list[object] = []
        try:
            for item in value:
                taken.append(take(item, item_kind))  # noqa: PERF401 - their number says which one was wrong
        except Exception as error:  # noqa: BLE001 - goes on, with its place
            # The first is told: to collect what is wrong with each of many takes seconds in which nothing else runs.
            error.__notes__ = [IterableValidationNote("", len(taken), item_kind)]
            raise IterableValidationError("", [error], kind) from None
        return tuple(taken)

    return to_tuple


def _object(kind: Any, converter: Converter) -> Hook:  # noqa: ANN401 - as above
    fill: Hook = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=converter.forbid_extra_keys)
    return lambda value, _type: fill(_mapping(value), kind)  # cattrs alone would take "" for an object of defaults


def _shown_object(kind: Any, converter: Converter) -> Callable[[object], object]:  # noqa: ANN401 - as above
    show: Callable[[object], object] = make_dict_unstructure_fn(kind, converter, _cattrs_omit_if_default=True)

    def shown(value: object) -> object:
        if type(value) is not kind:  # a subclass has fields that would be lost
            raise _BadValueError(f"must be of type {kind.__name__} itself, and is of type {type(value).__name__}")
        return show(value)

    return shown


def _strict_converter(*, newer: bool = False) -> Converter:
    """Return a converter that takes nothing for something else, in either direction."""
    converter = Converter(detailed_validation=True, forbid_extra_keys=not newer, omit_if_default=True)
    converter.register_structure_hook(str, _text)
    for choice in (Role, FinishReason, SessionState):  # each by its class: they are texts too
        converter.register_structure_hook(choice, _choice)
    converter.register_structure_hook(int, _whole)
    converter.register_structure_hook(bool, _bool)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(Decimal, _decimal)
    converter.register_structure_hook(bytes, _bytes)
    converter.register_structure_hook_factory(is_mapping, lambda _kind: _mapping)
    converter.register_structure_hook_factory(_is_tuple, _tuple)
    converter.register_structure_hook_factory(attrs.has, _object)
    converter.register_structure_hook_func(lambda kind: bool(kind == PART), _part(converter))
    converter.register_structure_hook_func(lambda kind: bool(kind == CONTENT), _content(converter))

    converter.register_unstructure_hook(str, _text)
    converter.register_unstructure_hook(int, _whole)
    converter.register_unstructure_hook(bool, _bool)
    converter.register_unstructure_hook(float, _number)
    converter.register_unstructure_hook(Decimal, str)
    converter.register_unstructure_hook(bytes, _shown_bytes)
    converter.register_unstructure_hook_factory(is_mapping, lambda _kind: _shown_mapping)
    converter.register_unstructure_hook_factory(attrs.has, _shown_object)
    converter.register_unstructure_hook_func(lambda kind: bool(kind == PART), _shown_part)
    converter.register_unstructure_hook_func(lambda kind: bool(kind == CONTENT), _shown_content)
    return converter


PARTS: Final[Mapping[str, type[Text | Image]]] = types.MappingProxyType({"text": Text, "image": Image})
PART: Final = Text | Image
CONTENT: Final = str | tuple[Text | Image, ...]
CONVERTER: Final = _strict_converter()
NEWER: Final = _strict_converter(newer=True)
