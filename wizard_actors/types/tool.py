"""A function that a model may call."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from attrs import Factory, field, frozen

from wizard_actors.errors import InvalidPromptError
from wizard_actors.types.given import instance_of, shown

if TYPE_CHECKING:
    from attrs import Attribute

__all__ = ["Tool"]

NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

KEYWORDS: Final = frozenset(
    {
        "$comment",
        "$defs",
        "$id",
        "$ref",
        "$schema",
        "additionalProperties",
        "allOf",
        "anyOf",
        "default",
        "definitions",
        "dependentRequired",
        "dependentSchemas",
        "description",
        "else",
        "enum",
        "examples",
        "if",
        "maxProperties",
        "minProperties",
        "not",
        "oneOf",
        "patternProperties",
        "properties",
        "propertyNames",
        "required",
        "then",
        "title",
        "type",
        "unevaluatedProperties",
    }
)
"""What a JSON Schema may say of an object."""

EXAMPLE: Final = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'


def _check_name(_tool: Tool, _place: Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InvalidPromptError(
            "the name of a Tool is made of 1 to 128 letters (a-z, A-Z), digits, `_`, `-`, `.` and `:`, not "
            f"{shown(value)}"
        )


def _check_parameters(tool: Tool, _place: Attribute[Any], value: object) -> None:
    wrong = next(_mistakes(value), None) if isinstance(value, Mapping) else f"it is {shown(value)}"
    if wrong is not None:
        raise InvalidPromptError(
            f"the parameters of the Tool {tool.name!r} are a JSON Schema of an object, such as {EXAMPLE}: {wrong}"
        )


def _mistakes(schema: Mapping[object, object]) -> Iterator[str]:
    """Yield what is wrong with the first level of a schema; the rest is the provider's affair."""
    if not all(isinstance(key, str) for key in schema):
        yield "a key of it is no text"
    elif schema and KEYWORDS.isdisjoint(schema):
        yield f"no key of it is one of a schema: {shown(list(schema))}; put them under `properties`"
    kind, properties, required = schema.get("type", "object"), schema.get("properties", {}), schema.get("required", ())
    if kind != "object" and not (isinstance(kind, list | tuple) and "object" in kind):
        yield f'its `type` has to be "object", and is {shown(kind)}'
    if not isinstance(properties, Mapping):
        yield "its `properties` are no mapping"
    elif not all(isinstance(name, str) and isinstance(inner, Mapping | bool) for name, inner in properties.items()):
        yield "each of its `properties` has a schema, a mapping, and a name"
    if not isinstance(required, list | tuple) or not all(isinstance(name, str) for name in required):
        yield "its `required` is no list of names"


@frozen
class Tool:
    """A function that a model may call; `parameters` is a JSON Schema of an object, the function's arguments by name.

    `strict` asks the provider to guarantee that the arguments follow the schema, where it can for this schema.

    Raises `InvalidPromptError` for a name that no provider takes, for parameters that are no such schema, as far as
    their first level tells, and for a field of another type.
    """

    name: str = field(validator=_check_name)
    description: str = field(default="", validator=instance_of("a text", str))
    parameters: Mapping[str, object] = field(default=Factory(dict), validator=_check_parameters)
    strict: bool = field(default=False, validator=instance_of("True or False", bool))
