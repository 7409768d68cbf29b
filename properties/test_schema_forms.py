"""The forms of JSON Schemas that providers take, for any schema: as the official client makes them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress

import jsonschema
from anthropic import transform_schema
from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.providers.schema_forms import UnfitSchemaError, anthropic_form, gemini_form, is_strict

NAMES = st.sampled_from(["a", "b", "type", "enum"])
ABOUT = st.fixed_dictionaries({}, optional={"title": NAMES, "description": NAMES, "default": st.none() | NAMES})


def with_more(one: dict[str, object], **more: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Return a schema with keywords that it may have, and some words about it."""
    return st.tuples(st.just(one), st.fixed_dictionaries({}, optional=more), ABOUT).map(
        lambda parts: parts[0] | parts[1] | parts[2]
    )


LEAVES = (
    with_more({"type": "string"}, format=st.sampled_from(["date", "decimal"]), minLength=st.just(1))
    | with_more({"type": "integer"}, minimum=st.integers(0, 3))
    | with_more({"type": "null"})
    | with_more({"enum": ["a", None]}, type=st.just(["string", "null"]))
    | st.just({"$ref": "#/$defs/Leaf"})
)


def wider(inner: st.SearchStrategy[dict[str, object]]) -> st.SearchStrategy[dict[str, object]]:
    """Return schemas of arrays, objects and alternatives."""
    objects = st.dictionaries(NAMES, inner, min_size=1, max_size=3).flatmap(
        lambda properties: with_more(
            {"type": "object", "properties": properties},
            required=st.lists(st.sampled_from(sorted(properties)), unique=True),
            additionalProperties=st.booleans(),
            minProperties=st.just(1),
        )
    )
    arrays = inner.flatmap(
        lambda items: with_more(
            {"type": "array", "items": items}, minItems=st.integers(0, 3), uniqueItems=st.booleans()
        )
    )
    unions = st.lists(inner, min_size=2, max_size=3).flatmap(
        lambda parts: st.sampled_from(["anyOf", "oneOf", "allOf"]).flatmap(lambda keyword: with_more({keyword: parts}))
    )
    return objects | arrays | unions


SCHEMAS = st.tuples(st.recursive(LEAVES, wider, max_leaves=6), LEAVES.filter(lambda leaf: "$ref" not in leaf)).map(
    lambda parts: {**parts[0], "$defs": {"Leaf": parts[1]}}
)


def without_words(schema: object) -> object:
    """Return a schema without its descriptions, which each words as it likes."""
    if isinstance(schema, dict):
        return {
            key: without_words(value)
            for key, value in schema.items()
            if not (key == "description" and isinstance(value, str))
        }
    return [without_words(each) for each in schema] if isinstance(schema, list) else schema


def described(schema: object) -> int:
    """Count the descriptions in a schema."""
    if isinstance(schema, dict):
        return isinstance(schema.get("description"), str) + sum(map(described, schema.values()))
    return sum(map(described, schema)) if isinstance(schema, list) else 0


@given(SCHEMAS)
def test_anthropic_is_sent_what_its_own_client_sends(schema: dict[str, object]) -> None:
    """In every keyword, and with a description wherever that has one."""
    wanted = transform_schema(copy.deepcopy(schema))

    made = anthropic_form(schema)

    assert without_words(made) == without_words(wanted)
    assert described(made) == described(wanted)
    assert anthropic_form(made) == made
    jsonschema.Draft202012Validator.check_schema(made)


KEYWORDS = NAMES | st.sampled_from(
    [
        "properties",
        "items",
        "anyOf",
        "$ref",
        "$defs",
        "required",
        "additionalProperties",
        "format",
        "pattern",
        "const",
        "minItems",
    ]
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | NAMES | st.sampled_from(["object", "array", "string", "date"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYWORDS, JSON, max_size=5))
def test_any_json_has_a_form_or_none(schema: Mapping[str, object]) -> None:
    """Nothing else is raised for what is no JSON Schema: the provider has the last word on it."""
    before = copy.deepcopy(schema)
    with suppress(UnfitSchemaError):
        anthropic_form(schema)
    gemini_form(schema)
    is_strict(schema)
    assert schema == before
