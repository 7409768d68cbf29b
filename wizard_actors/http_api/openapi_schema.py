"""Words of JSON Schema that the description of the endpoint is made of. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

__all__ = [
    "ANY_OBJECT",
    "DATA",
    "FLAG",
    "INPUT",
    "NAME",
    "NOTHING",
    "TEXT",
    "WHOLE",
    "Schema",
    "each",
    "maybe",
    "ref",
    "several",
    "structure",
    "word",
    "words",
]

Schema: TypeAlias = Mapping[str, object]

TEXT: Final[Schema] = {"type": "string"}
NAME: Final[Schema] = {"type": "string", "minLength": 1}
FLAG: Final[Schema] = {"type": "boolean"}
WHOLE: Final[Schema] = {"type": "integer"}
ANY_OBJECT: Final[Schema] = {"type": "object"}
NOTHING: Final[Schema] = {"type": "null"}

DATA: Final[Schema] = {"type": "string", "contentMediaType": "application/json"}
"""What an event of a stream holds."""

INPUT: Final[Schema] = {
    "type": "object",
    "description": "A JSON Schema of an object, a tool's arguments by name. Its first level alone is looked at.",
    "properties": {
        "type": {"anyOf": [{"const": "object"}, {"type": "array", "contains": {"const": "object"}}]},
        "properties": {"type": "object", "additionalProperties": {"type": ["object", "boolean"]}},
        "required": {"type": "array", "items": TEXT},
    },
}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def maybe(schema: Schema, says: str | None = None) -> Schema:
    """Return a schema that also takes null, which is the same as nothing; `says` what it is for."""
    kind = schema.get("type")
    told: Schema = {} if says is None else {"description": says}
    if isinstance(kind, str) and not {"enum", "const"} & schema.keys():
        return {**schema, "type": [kind, "null"], **told}
    return {"anyOf": [schema, NOTHING], **told}


def word(value: str) -> Schema:
    """Return the schema of one text."""
    return {"type": "string", "const": value}


def words(*values: str) -> Schema:
    """Return the schema of one of these texts."""
    return {"type": "string", "enum": list(values)}


def each(items: Schema, **more: object) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items, **more}


def several(*schemas: Schema) -> Schema:
    """Return the schema of whatever any of these takes."""
    return {"anyOf": list(schemas)}


def structure(
    properties: Mapping[str, Schema], required: Sequence[str] = (), *, closed: bool = False, says: str | None = None
) -> Schema:
    """Return the schema of an object; `closed`: it says nothing else, but for null, which says nothing."""
    schema: dict[str, object] = {"type": "object"} if says is None else {"type": "object", "description": says}
    schema["properties"] = properties
    if required:
        schema["required"] = list(required)
    if closed:
        schema["additionalProperties"] = NOTHING
    return schema
