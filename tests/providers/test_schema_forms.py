"""JSON Schemas as each provider takes them."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from wizard_actors import json_schema_of
from wizard_actors.providers.schema_forms import UnfitSchemaError, anthropic_form, gemini_form, is_strict


def closed(**properties: object) -> dict[str, object]:
    """Return the schema of an object with just these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT = {"type": "string"}

NODE = closed(next={"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}, name=TEXT)


@attrs.frozen
class Tree:
    label: str
    children: list[Tree] = attrs.Factory(list)


@attrs.frozen
class Pairs:
    pairs: list[tuple[int, Tree]]
    names: frozenset[str]
    data: bytes


# -- OpenAI ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inner",
    [
        {"type": ["string", "null"], "enum": ["a", None], "default": None},
        {"type": "string", "const": "a", "title": "A", "description": "the a"},
        {"type": "string", "format": "date-time", "pattern": "^(?:a|b)$"},
        {"type": "integer", "minimum": 1, "maximum": 9, "multipleOf": 2},
        {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 3},
        {"anyOf": [TEXT, {"type": "null"}]},
        closed(properties=TEXT, required=TEXT),
    ],
    ids=str,
)
def test_what_openai_is_strict_with(inner: object) -> None:
    """What it documents, and what it has answered."""
    assert is_strict(closed(a=inner))
    assert is_strict({**closed(a={"$ref": "#/$defs/Inner"}), "$defs": {"Inner": inner}})


@pytest.mark.parametrize(
    "inner",
    [
        {},
        True,
        {"enum": ["a"]},
        {"type": "array"},
        {"type": "array", "items": {}},
        {"type": "array", "items": False, "prefixItems": [TEXT]},
        {"type": "array", "items": TEXT, "uniqueItems": True},
        {"type": "string", "contentEncoding": "base64"},
        {"type": "string", "format": "decimal"},
        {"type": "string", "minLength": 1},
        {"type": "string", "pattern": "(?=a)"},
        {"type": "string", "enum": [["a"]]},
        {"type": "object", "additionalProperties": False, "required": []},
        {"type": ["object", "null"]},
        {"$ref": "#/$defs/a", "description": "an a"},
        {"$ref": "https://example.com/a"},
        {"anyOf": [TEXT, {}]},
        {"allOf": [TEXT]},
        {**closed(a=TEXT), "required": []},
        {**closed(a=TEXT), "patternProperties": {}},
    ],
    ids=str,
)
def test_what_openai_is_not_strict_with(inner: object) -> None:
    """To each of these it would answer with a 400."""
    assert not is_strict(closed(a=inner))
    assert not is_strict({**closed(), "$defs": {"Inner": inner}})


@pytest.mark.parametrize(
    "schema", [TEXT, {}, [], None, {"anyOf": [closed()]}, {**closed(), "anyOf": [closed()]}], ids=str
)
def test_a_strict_schema_has_an_object_at_its_root(schema: object) -> None:
    """And no alternatives there."""
    assert not is_strict(schema)


def test_the_schema_of_a_class_is_strict() -> None:
    """Also where the class has tuples, sets and bytes; not where it lets names or types open."""
    assert is_strict(json_schema_of(Pairs))
    assert is_strict(json_schema_of(Tree))
    assert not is_strict(json_schema_of(dict[str, int]))
    assert not is_strict(json_schema_of(list[Any]))


# -- Anthropic ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (
            {"type": "integer", "minimum": 1, "description": "a number"},
            {"type": "integer", "description": "a number\n\n{minimum: 1}"},
        ),
        (
            {"type": "string", "pattern": "^a$", "default": "a"},
            {"type": "string", "description": "{pattern: ^a$, default: a}"},
        ),
        ({"type": "string", "format": "uri"}, {"type": "string", "format": "uri"}),
        ({"type": "string", "format": "decimal"}, {"type": "string", "description": "{format: decimal}"}),
        ({"type": "array", "items": TEXT, "minItems": 1}, {"type": "array", "items": TEXT, "minItems": 1}),
        (
            {"type": "array", "items": TEXT, "minItems": 2, "uniqueItems": True},
            {"type": "array", "items": TEXT, "description": "{minItems: 2, uniqueItems: true}"},
        ),
        ({"type": "string", "enum": ["a"]}, {"enum": ["a"]}),
        ({"oneOf": [TEXT, {"type": "null"}]}, {"anyOf": [TEXT, {"type": "null"}]}),
        ({"allOf": [{"$ref": "#/$defs/Text"}]}, {"anyOf": [{"$ref": "#/$defs/Text"}]}),
        ({"$ref": "#/$defs/Text", "description": "it"}, {"anyOf": [{"$ref": "#/$defs/Text"}], "description": "it"}),
        (
            {"type": ["string", "null"], "maxLength": 3, "description": "it"},
            {"anyOf": [{"type": "string", "description": "{maxLength: 3}"}, {"type": "null"}], "description": "it"},
        ),
        ({"properties": {"a": TEXT}}, {"type": "object", "properties": {"a": TEXT}, "additionalProperties": False}),
        (
            {**closed(a=TEXT), "additionalProperties": TEXT, "$comment": "words"},
            closed(a=TEXT),
        ),
    ],
    ids=str,
)
def test_what_anthropic_does_not_know_is_told_in_the_description(given: object, made: object) -> None:
    """Wherever it stands."""
    definitions = {"$defs": {"Text": TEXT}}

    assert anthropic_form({**closed(a=given), **definitions}) == {**closed(a=made), **definitions}
    assert anthropic_form({**closed(a={"type": "array", "items": given}), **definitions}) == {
        **closed(a={"type": "array", "items": made}),
        **definitions,
    }


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({**closed(a={"$ref": "#/$defs/Node"}), "$defs": {"Node": NODE}}, r"`#/\$defs/Node` refers to itself"),
        (closed(a={"$ref": "#"}), "`#` refers to itself"),
        (
            {**closed(), "$defs": {"A": closed(b={"$ref": "#/$defs/B"}), "B": closed(a={"$ref": "#/$defs/A"})}},
            r"`#/\$defs/A` refers to itself",
        ),
        (closed(a={"$ref": "https://example.com/a"}), "`#` refers to 'https://example.com/a', which is not in it"),
        (closed(a={}), r"`\$.properties.a` takes anything"),
        (closed(a=True), r"`\$.properties.a` takes anything"),
        (closed(a=False), r"`\$.properties.a` takes nothing"),
        (
            closed(a={"type": "object", "additionalProperties": TEXT}),
            r"`\$.properties.a` takes properties of any names",
        ),
        ({"type": "object"}, r"`\$` takes properties of any names"),
        ({"anyOf": [TEXT, {"required": ["a"]}]}, r"`\$.anyOf\[1\]` takes anything"),
    ],
    ids=str,
)
def test_what_anthropic_cannot_be_held_to_is_refused(schema: dict[str, object], reason: str) -> None:
    """With the place: what was sent in its stead would mean another thing."""
    with pytest.raises(UnfitSchemaError, match=reason):
        anthropic_form(schema)


def test_a_schema_may_refer_to_one_part_often() -> None:
    """That is no circle."""
    schema = {**closed(a={"$ref": "#/$defs/A"}, b={"$ref": "#/$defs/A"}), "$defs": {"A": closed(c=TEXT)}}

    assert anthropic_form(schema) == schema


# -- Gemini ------------------------------------------------------------------------------------------------------------


def test_gemini_need_not_be_told_what_goes_round() -> None:
    """It takes a schema that refers to itself only where what does so is not required; all else stays."""
    schema = json_schema_of(Tree)

    made = gemini_form(schema)

    assert made == {**schema, "$defs": {"Tree": {**schema["$defs"]["Tree"], "required": ["label"]}}}  # type: ignore[index]  # a dict
    assert gemini_form(
        {**closed(a={"$ref": "#/definitions/Node"}), "definitions": {"Node": closed(a={"$ref": "#"})}}
    ) == {
        **closed(a={"$ref": "#/definitions/Node"}),
        "required": [],
        "definitions": {"Node": {**closed(a={"$ref": "#"}), "required": []}},
    }


def test_gemini_takes_nothing_beside_a_reference() -> None:
    """Beside an alternative of one it does; names that are like keywords are names."""
    schema = {**closed(a={"$ref": "#/$defs/A", "description": "it"}, enum=TEXT), "$defs": {"A": TEXT}}

    assert gemini_form(schema) == {
        **closed(a={"description": "it", "anyOf": [{"$ref": "#/$defs/A"}]}, enum=TEXT),
        "$defs": {"A": TEXT},
    }
    plain = closed(a={"type": "string", "enum": ["a"], "maxLength": 3}, b={"type": "array", "prefixItems": [TEXT]})
    assert gemini_form(plain) == plain
