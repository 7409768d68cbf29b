"""Values of any classes come back from the JSON that is made of them, and the schema that is sent describes it."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal

import attrs
import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.schema import Found, form_of, json_schema_of

pytestmark = pytest.mark.long

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


def stripped(text: str) -> str:
    """Take white space off: twice is as once."""
    return text.strip()


@attrs.frozen
class Leaf:
    name: str = attrs.field(converter=stripped)
    number: Annotated[int, msgspec.Meta(ge=-9, le=9)] = 0


@dataclasses.dataclass(frozen=True)
class Inner:
    leaves: tuple[Leaf, ...]
    kind: Literal["a", "b"] | None = None


LEAVES = st.builds(Leaf, TEXTS, st.integers(-9, 9))
INNERS = st.builds(Inner, st.lists(LEAVES, max_size=2).map(tuple), st.sampled_from(["a", "b", None]))

SIMPLE: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers(-(2**40), 2**40)),
    (str, TEXTS),
    (bool, st.booleans()),
    (float, st.floats(-1e6, 1e6).map(lambda number: round(number, 3))),
    (Literal["x", 3], st.sampled_from(["x", 3])),
    (Leaf, LEAVES),
    (Inner, INNERS),
]


def wider(kind: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:  # noqa: ANN401 - of any type
    """Return types made of `kind`, each with its values."""
    return st.sampled_from(
        [
            (kind, values),
            (list[kind], st.lists(values, max_size=3)),
            (tuple[kind, int], st.tuples(values, st.integers(0, 5))),
            (dict[str, kind], st.dictionaries(TEXTS, values, max_size=3)),
            (dict[int, kind], st.dictionaries(st.integers(-5, 5), values, max_size=3)),
            (kind | None, st.none() | values),
            (kind | list[kind], values | st.lists(values, max_size=3)),
        ]
    )


TYPES = st.sampled_from(SIMPLE).flatmap(lambda made: wider(*made)).flatmap(lambda made: wider(*made))


def describable(kind: Any) -> bool:  # noqa: ANN401 - of any type
    """Say whether a schema can be written: of unions that JSON cannot tell apart it cannot."""
    try:
        msgspec.json.schema(kind)
    except TypeError:
        return False
    return True


@st.composite
def made(draw: st.DrawFn) -> tuple[type[object], object]:
    """Return an attrs class or a dataclass of any fields, and an instance."""
    fields = draw(st.lists(TYPES.filter(lambda one: describable(one[0])), min_size=1, max_size=3))
    names = [f"f{number}" for number in range(len(fields))]
    kinds = dict(zip(names, (kind for kind, _ in fields), strict=True))
    if draw(st.booleans()):
        made = attrs.make_class("Made", {name: attrs.field(type=kind) for name, kind in kinds.items()}, frozen=True)
    else:
        made = dataclasses.make_dataclass("Made", list(kinds.items()), frozen=True)
    return made, made(*[draw(values) for _, values in fields])


@given(made())
def test_a_value_comes_back_from_its_json_which_its_schema_describes(found: tuple[type[object], object]) -> None:
    """Written as JSON, validated by the schema that is sent, and read: an equal value."""
    kind, value = found
    text = msgspec.json.encode(value).decode()

    jsonschema.Draft202012Validator(json_schema_of(kind)).validate(json.loads(text))
    assert form_of(kind).read(text) == Found(value)


@given(made(), st.sampled_from(["{}", "```json\n{}\n```", "Here it is: {}\nAnything else?", "\n{}  "]))
def test_words_and_fences_change_nothing(found: tuple[type[object], object], around: str) -> None:
    """Around any JSON object."""
    kind, value = found
    text = around.replace("{}", msgspec.json.encode(value).decode())

    assert form_of(kind).read(text) == Found(value)


@given(
    st.text(st.sampled_from('{}[]",:1 a`\n\\') | st.characters(), max_size=60),
    st.sampled_from([Leaf, Inner, list[int]]),
)
def test_any_text_is_a_value_or_has_problems(text: str, kind: type[object]) -> None:
    """Nothing is raised, whatever a model writes."""
    found = form_of(kind).read(text)

    assert isinstance(found, Found) or all(problem.place.startswith("$") and problem.reason for problem in found)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "number", "leaves", "kind", "value"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(JSON, st.sampled_from([Leaf, Inner, list[Leaf], Leaf | None, dict[int, Leaf]]))
def test_any_json_is_a_value_that_fits_or_has_problems(value: object, kind: type[object]) -> None:
    """What is read from it is written as JSON that its schema describes."""
    found = form_of(kind).read(json.dumps(value))

    if isinstance(found, Found):
        written = json.loads(msgspec.json.encode(found.value))
        whole = {"value": written} if form_of(kind).wrapped else written
        jsonschema.Draft202012Validator(json_schema_of(kind)).validate(whole)
    else:
        assert found
