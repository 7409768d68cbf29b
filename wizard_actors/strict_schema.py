"""A class's JSON Schema in the strict form that providers hold their models to. Pure.

What OpenAI asks for, and no other provider minds: an object at the root; every property required; no other properties;
a type beside every `enum`; nothing but a reference beside `$ref`; no `oneOf`; one schema for all items of an array;
none of some keywords. What these would have said is said in the description, which models read. See
https://platform.openai.com/docs/guides/structured-outputs
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = ["STRING_FORMATS", "strict_schema", "with_note"]

MAPS: Final = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
"""Keywords whose keys are names, and whose values are schemas."""

LITERAL: Final = frozenset({"enum", "const", "examples", "required"})
"""Keywords whose values hold no schemas."""

DROPPED: Final = frozenset({"default", "discriminator"})
"""A default means nothing where every property is required; a discriminator is no keyword of JSON Schema."""

TOLD: Final[tuple[str, ...]] = (
    "minLength",
    "maxLength",
    "uniqueItems",
    "contentEncoding",
    "contentMediaType",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
)
"""Keywords that go into the description."""

STRING_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
"""The values of `format` that OpenAI takes; any other goes into the description."""

ROOT: Final = "#/$defs/"

TYPES: Final[Mapping[type, str]] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def strict_schema(written: Mapping[str, object]) -> tuple[dict[str, object], bool]:
    """Return a schema's strict form, and whether what it describes was no object, and so is the one property `value`
    of the object that is now described.
    """
    schema = _schema(written)
    root = _without_reference(schema)
    if root.get("type") == "object":
        return {"title": "answer", **root}, False
    definitions = root.pop("$defs", None)
    wrapped: dict[str, object] = {
        "title": root.get("title", "answer"),
        "type": "object",
        "properties": {"value": root},
        "required": ["value"],
        "additionalProperties": False,
    }
    return ({**wrapped, "$defs": definitions} if definitions else wrapped), True


def _schema(schema: Mapping[str, object]) -> dict[str, object]:
    """Return one schema in its strict form."""
    made: dict[str, object] = {}
    for keyword, value in schema.items():
        if keyword in DROPPED:
            continue
        if keyword in MAPS and isinstance(value, Mapping):
            made[keyword] = {name: _inner(inner) for name, inner in value.items()}
        else:
            made["anyOf" if keyword == "oneOf" else keyword] = value if keyword in LITERAL else _inner(value)
    properties = made.get("properties")
    if isinstance(properties, dict):
        made |= {"required": list(properties), "additionalProperties": False}
    if "enum" in made and "type" not in made:
        made |= _types_of(made["enum"])
    if "$ref" in made and len(made.keys() - {"$defs"}) > 1:
        made["anyOf"] = [{"$ref": made.pop("$ref")}]
    return _told(made)


def _told(made: dict[str, object]) -> dict[str, object]:
    """Return a schema with what cannot be held to in its description. Nothing is lost by it: answers are read by the
    class.
    """
    told: dict[str, object] = {keyword: made.pop(keyword) for keyword in TOLD if keyword in made}
    if "format" in made and made["format"] not in STRING_FORMATS:
        told["format"] = made.pop("format")
    places = made.pop("prefixItems", None)
    if isinstance(places, list):
        told["prefixItems"] = places
        different = [each for number, each in enumerate(places) if each not in places[:number]]
        if made.get("items") is False:
            made["items"] = different[0] if len(different) == 1 else {"anyOf": different}
    return with_note(made, told)


def with_note(schema: dict[str, object], told: Mapping[str, object]) -> dict[str, object]:
    """Return a schema with keywords in its description, behind what stands there: "{minLength: 1, format: decimal}"."""
    if not told:
        return schema
    note = ", ".join(
        f"{keyword}: {value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
        for keyword, value in told.items()
    )
    words = schema.get("description")
    return {**schema, "description": f"{words}\n\n{{{note}}}" if words else f"{{{note}}}"}


def _inner(value: object) -> object:
    if isinstance(value, Mapping):
        return _schema(value)
    return [_inner(each) for each in value] if isinstance(value, list) else value


def _types_of(values: object) -> dict[str, object]:
    """Return the `type` of an enumeration's values; nothing where one of them is a list or an object."""
    names = [TYPES.get(type(value), "") for value in values] if isinstance(values, list) else []
    several = list(dict.fromkeys(names))
    if not several or "" in several:
        return {}
    return {"type": several[0] if len(several) == 1 else several}


def _without_reference(schema: dict[str, object]) -> dict[str, object]:
    """Return the schema with what its root refers to in the reference's place. Its definition stays where it is
    referred to from elsewhere: a class that contains itself.
    """
    definitions = schema.get("$defs")
    reference = schema.get("$ref")
    if not isinstance(definitions, dict) or not isinstance(reference, str):
        return schema
    name = reference.removeprefix(ROOT)
    target = definitions[name]
    others = {key: value for key, value in definitions.items() if key != name}
    kept = definitions if _refers(definitions, reference) else others
    return {**target, "$defs": kept} if kept else dict(target)


def _refers(schema: object, reference: str) -> bool:
    """Whether `reference` stands anywhere in `schema`."""
    if isinstance(schema, Mapping):
        return schema.get("$ref") == reference or any(_refers(inner, reference) for inner in schema.values())
    return isinstance(schema, list) and any(_refers(inner, reference) for inner in schema)
