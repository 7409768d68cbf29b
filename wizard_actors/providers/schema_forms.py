"""JSON Schemas as each provider takes them. Pure.

A class's schema is in the strict form already, see `wizard_actors.strict_schema`; one of the caller's own may be any.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from wizard_actors.strict_schema import STRING_FORMATS, with_note

__all__ = ["UnfitSchemaError", "anthropic_form", "gemini_form", "is_strict"]

Schema = Mapping[str, object]

MAPS: Final = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
"""Keywords whose keys are names, and whose values are schemas."""

VALUES: Final = frozenset({"enum", "const", "default", "examples", "required"})
"""Keywords whose values hold no schemas."""

PRIMITIVE: Final = (str, int, float, bool, type(None))


DEFINITIONS: Final = ("$defs", "definitions")

ROOT: Final = "#"


class UnfitSchemaError(ValueError):
    """What a schema raises that a provider cannot follow, and that cannot be made fit; its message reads on from the
    place in the schema.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"`{place}` {reason}")


# -- OpenAI ------------------------------------------------------------------------------------------------------------

ABOUT: Final = frozenset({"title", "description", "default", "$schema", "$defs", "definitions"})

STRICT_KEYWORDS: Final = ABOUT | frozenset(
    {"type", "enum", "const", "anyOf", "properties", "required", "additionalProperties", "items", "minItems"}
    | {"maxItems", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)
"""See "Supported schemas" in https://platform.openai.com/docs/guides/structured-outputs"""

LOOK_AROUND: Final = re.compile(r"\(\?<?[=!]")
"""What a pattern may not hold."""


def is_strict(schema: object) -> bool:
    """Whether OpenAI takes the schema as strict: an object at the root; every object lists all its properties as
    required, and no others; each schema has a type, and no keyword beyond those that OpenAI knows.

    Answers to strict schemas it guarantees; to one that does not qualify it answers with a 400.
    """
    return isinstance(schema, Mapping) and schema.get("type") == "object" and "anyOf" not in schema and _strict(schema)


def _strict(schema: object) -> bool:
    if not isinstance(schema, Mapping):
        return False
    if isinstance(schema.get("$ref"), str):
        return len(schema) == 1 and schema["$ref"].startswith("#")
    if not STRICT_KEYWORDS.issuperset(schema) or not ("type" in schema or "anyOf" in schema):
        return False
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, Sequence) and not isinstance(kinds, str) else [kinds]
    return (
        ("object" not in kinds or _is_closed(schema))
        and ("array" not in kinds or "items" in schema)
        and all(_is_plain(value) for value in _each(schema.get("enum", ())))
        and _is_one_of(STRING_FORMATS, schema.get("format", "date"))
        and LOOK_AROUND.search(str(schema.get("pattern", ""))) is None
        and all(_strict(inner) for inner in _strict_parts(schema))
    )


def _is_closed(schema: Schema) -> bool:
    properties, required = schema.get("properties"), schema.get("required")
    return (
        schema.get("additionalProperties") is False
        and isinstance(properties, Mapping)
        and isinstance(required, Sequence)
        and sorted(required, key=str) == sorted(properties)
    )


def _strict_parts(schema: Schema) -> Iterator[object]:
    for names in ("properties", "$defs", "definitions"):
        named = schema.get(names, {})
        yield from named.values() if isinstance(named, Mapping) else [named]
    if "items" in schema:
        yield schema["items"]
    yield from _each(schema.get("anyOf", ()))


def _each(values: object) -> Iterable[object]:
    return values if isinstance(values, Sequence) and not isinstance(values, str) else [values]


def _is_plain(value: object) -> bool:
    return isinstance(value, PRIMITIVE)


def _is_one_of(known: frozenset[str], value: object) -> bool:
    return isinstance(value, str) and value in known


# -- Anthropic ---------------------------------------------------------------------------------------------------------

MEANINGLESS: Final = frozenset({"$schema", "$id", "$comment"})
"""What says nothing of an answer."""

WORDS: Final[tuple[str, ...]] = ("description", "title")

ANTHROPIC_FORMATS: Final = STRING_FORMATS | {"uri"}


def anthropic_form(schema: Schema) -> dict[str, object]:
    """Return the schema with what Anthropic's models cannot be held to in descriptions, and objects closed, which they
    have to be; what an answer to it may be is a part of what it might have been. As the official client does it.

    Raises `UnfitSchemaError` for one that has no such form: that refers to itself, lets anything in, or leaves the
    names of properties open. See "JSON Schema limitations" in
    https://platform.claude.com/docs/en/build-with-claude/structured-outputs
    """
    for holder, reference in _Cycles(schema).references():
        if not reference.startswith("#"):
            raise UnfitSchemaError(holder, f"refers to {reference!r}, which is not in it")
    for holder in _Cycles(schema).closed():
        raise UnfitSchemaError(holder, "refers to itself")
    return _closed(schema, "$")


def _closed(given: object, place: str) -> dict[str, object]:
    if not isinstance(given, Mapping):
        raise UnfitSchemaError(place, "takes anything" if given else "takes nothing")
    rest = {keyword: value for keyword, value in given.items() if keyword not in MEANINGLESS}
    made: dict[str, object] = {}
    for names in DEFINITIONS:
        if isinstance(named := rest.pop(names, None), Mapping):
            made[names] = {name: _closed(inner, f"{place}.{names}.{name}") for name, inner in named.items()}
    kinds = rest.get("type")
    if "$ref" in rest:
        reference = {"$ref": rest.pop("$ref")}
        made |= {"anyOf": [reference]} if rest else reference  # beside it nothing may stand
    elif isinstance(kinds, Sequence) and not isinstance(kinds, str) and not {"enum", "const"} & rest.keys():
        return made | _of_several_types(rest, [str(kind) for kind in kinds], place)
    else:
        made |= _literals(rest) or _union(rest, place) or _typed(rest, place)
    made |= {keyword: rest.pop(keyword) for keyword in WORDS if keyword in rest}
    return with_note(made, rest)


def _of_several_types(rest: dict[str, object], kinds: list[str], place: str) -> dict[str, object]:
    about: dict[str, object] = {keyword: rest.pop(keyword) for keyword in WORDS if keyword in rest}
    parts = [_closed({"type": "null"} if kind == "null" else {**rest, "type": kind}, place) for kind in kinds]
    return {"anyOf": parts, **about}


def _literals(rest: dict[str, object]) -> dict[str, object]:
    """Take the values that are listed out of `rest`, and the type, which they have."""
    taken: dict[str, object] = {}
    values = rest.get("enum")
    if isinstance(values, Sequence) and values and all(_is_plain(value) for value in values):
        taken["enum"] = rest.pop("enum")
    if "const" in rest and _is_plain(rest["const"]):
        taken["const"] = rest.pop("const")
    if taken:
        rest.pop("type", None)
    return taken


def _union(rest: dict[str, object], place: str) -> dict[str, object]:
    for keyword in ("anyOf", "oneOf", "allOf"):
        parts = rest.get(keyword)
        if isinstance(parts, Sequence) and parts:
            del rest[keyword]
            rest.pop("type", None)
            made = [_closed(part, f"{place}.{keyword}[{number}]") for number, part in enumerate(parts)]
            # Of one part both say the same, and a reference may stand in one of them only.
            return {"allOf" if keyword == "allOf" and len(made) > 1 else "anyOf": made}
    return {}


def _typed(rest: dict[str, object], place: str) -> dict[str, object]:
    kind = rest.pop("type", "object" if "properties" in rest else "array" if "items" in rest else None)
    if kind is None:
        raise UnfitSchemaError(place, "takes anything: name a `type`")
    taken: dict[str, object] = {"type": kind}
    if kind == "object":
        taken |= _object(rest, place)
    elif kind == "array":
        taken |= _array(rest, place)
    elif kind == "string" and _is_one_of(ANTHROPIC_FORMATS, rest.get("format")):
        taken["format"] = rest.pop("format")
    return taken


def _object(rest: dict[str, object], place: str) -> dict[str, object]:
    properties = rest.pop("properties", {})
    if not isinstance(properties, Mapping):
        raise UnfitSchemaError(f"{place}.properties", "is no object")
    if not properties and rest.get("additionalProperties") is not False:
        raise UnfitSchemaError(place, "takes properties of any names: list them, or ask for a list of names and values")
    rest.pop("additionalProperties", None)
    made: dict[str, object] = {
        "properties": {name: _closed(inner, f"{place}.properties.{name}") for name, inner in properties.items()},
        "additionalProperties": False,
    }
    return made | ({"required": rest.pop("required")} if "required" in rest else {})


def _array(rest: dict[str, object], place: str) -> dict[str, object]:
    made: dict[str, object] = {}
    if isinstance(rest.get("items"), Mapping):
        made["items"] = _closed(rest.pop("items"), f"{place}.items")
    if rest.get("minItems") in (0, 1):
        made["minItems"] = rest.pop("minItems")
    return made


# -- Gemini ------------------------------------------------------------------------------------------------------------


def gemini_form(schema: Schema) -> dict[str, object]:
    """Return the schema with no property required through which it holds itself, for Gemini takes no others there, and
    with nothing beside a reference. What else it does not know, it passes over.

    See "JSON Schema support" in https://ai.google.dev/gemini-api/docs/structured-output
    """
    cycles = _Cycles(schema)
    made = {
        names: {name: _opened(inner, _pointer(names, name), cycles) for name, inner in named.items()}
        for names in DEFINITIONS
        if isinstance(named := schema.get(names), Mapping)
    }
    root = {keyword: value for keyword, value in schema.items() if keyword not in made}
    opened = _opened(root, ROOT, cycles)
    return {**(opened if isinstance(opened, dict) else {}), **made}


def _opened(schema: object, holder: str, cycles: _Cycles) -> object:
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [_opened(each, holder, cycles) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, object] = {}
    for keyword, value in schema.items():
        if keyword in MAPS and isinstance(value, Mapping):
            made[keyword] = {name: _opened(inner, holder, cycles) for name, inner in value.items()}
        else:
            made[keyword] = value if keyword in VALUES else _opened(value, holder, cycles)
    properties, required = schema.get("properties"), schema.get("required")
    if isinstance(properties, Mapping) and isinstance(required, Sequence):
        made["required"] = [
            name for name in required if not isinstance(name, str) or not cycles.lead_back(properties.get(name), holder)
        ]
    if "$ref" in made and any(not keyword.startswith("$") for keyword in made):
        made["anyOf"] = [{"$ref": made.pop("$ref")}]
    return made


# -- references --------------------------------------------------------------------------------------------------------


class _Cycles:
    """Which parts of a schema refer to themselves: its definitions, and all the rest, which is its root."""

    def __init__(self, schema: Schema) -> None:
        definitions = {
            _pointer(names, name): tuple(_references(inner))
            for names in DEFINITIONS
            if isinstance(named := schema.get(names), Mapping)
            for name, inner in named.items()
        }
        rest = {keyword: value for keyword, value in schema.items() if keyword not in DEFINITIONS}
        self._references = {ROOT: tuple(_references(rest)), **definitions}

    def references(self) -> Iterator[tuple[str, str]]:
        """Yield every reference, and before it the part that it stands in."""
        for part, references in self._references.items():
            yield from ((part, reference) for reference in references)

    def closed(self) -> Iterator[str]:
        """Yield the parts that refer to themselves, be it through others."""
        return (part for part, references in self._references.items() if self._reach(references, part))

    def lead_back(self, schema: object, part: str) -> bool:
        """Whether what a schema in `part` refers to leads to `part`."""
        return self._reach(_references(schema), part)

    def _reach(self, references: Iterable[str], part: str) -> bool:
        ahead, seen = list(references), set[str]()
        while ahead:
            found = self._part_of(ahead.pop())
            if found == part:
                return True
            if found not in seen:
                seen.add(found)
                ahead += self._references[found]
        return False

    def _part_of(self, reference: str) -> str:
        """Return the part that a reference leads into."""
        definition = "/".join(reference.split("/", 3)[:3])
        return definition if definition in self._references else ROOT


def _pointer(names: str, name: str) -> str:
    return f"{ROOT}/{names}/{name.replace('~', '~0').replace('/', '~1')}"


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, Mapping):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            yield reference
        for keyword, inner in schema.items():
            if keyword not in VALUES or isinstance(inner, Mapping):
                yield from _references(inner)
    elif isinstance(schema, Sequence) and not isinstance(schema, str):
        for inner in schema:
            yield from _references(inner)
