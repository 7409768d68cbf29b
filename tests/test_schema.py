"""From classes and JSON Schemas to the schema that is sent, and from an answer's text to a value."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypedDict, TypeVar

import attrs
import jsonschema
import msgspec
import pydantic
import pytest

from wizard_actors import InvalidPromptError, json_schema_of
from wizard_actors.json_values import Problem
from wizard_actors.schema import Found, form_of


def stripped(text: str) -> str:
    """Take white space off."""
    return text.strip()


@attrs.frozen
class Home:
    """Where somebody lives."""

    street: str = attrs.field(converter=stripped, validator=attrs.validators.min_len(2))
    number: int | None = None


@attrs.frozen
class Person:
    name: str
    age: int = attrs.field(validator=attrs.validators.ge(0))
    homes: list[Home] = attrs.Factory(list)
    likes: tuple[str, ...] = ()


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True)
class Span:
    first: date
    last: date

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise ValueError("it ends before it begins")


class Point(NamedTuple):
    x: int
    home: Home
    name: str = "here"


class Options(TypedDict, total=False):
    color: Color
    home: Home


class Cat(msgspec.Struct, tag="cat"):
    lives: Annotated[int, msgspec.Meta(ge=1, description="how many are left")] = 9


class Dog(msgspec.Struct, tag="dog"):
    owner: str


@attrs.frozen
class Described:
    home: Annotated[Home, msgspec.Meta(description="where to write to")]


@attrs.frozen
class Tree:
    label: str
    children: list[Tree] = attrs.Factory(list)


@attrs.frozen
class Everything:
    either: Home | list[Home] | str | int | None
    pet: Cat | Dog
    by_name: dict[str, Home]
    by_number: dict[int, Home]
    point: Point
    options: Options
    pair: tuple[Home, int]
    numbers: frozenset[int]
    kind: Literal["a", 1] | None
    size: Annotated[int, msgspec.Meta(ge=3)]
    anything: Any


class Model(pydantic.BaseModel):
    """A model of pydantic's."""

    name: str = pydantic.Field(description="as on the door")
    colors: list[Color] = []
    next: Model | None = pydantic.Field(None, description="the next one")
    pet: Annotated[MCat | MDog, pydantic.Field(discriminator="kind")]

    @pydantic.field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name == "nobody":
            raise ValueError("nobody is known by that name")
        return name.title()


class MCat(pydantic.BaseModel):
    kind: Literal["cat"]


class MDog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"


class Roots(pydantic.RootModel[list[int]]):
    pass


KINDS = [
    Home,
    Person,
    Span,
    Options,
    Tree,
    Cat,
    Everything,
    Model,
    list[Person],
    Color,
    Literal["a"],
    Roots,
    int | None,
]


def schemas_in(schema: object) -> Iterator[Mapping[str, object]]:
    """Yield every object in a schema that is not a map of names."""
    if isinstance(schema, dict):
        yield schema
        for key, inner in schema.items():
            yield from (
                found
                for each in (inner.values() if key in {"properties", "$defs"} else [inner])
                for found in schemas_in(each)
            )
    elif isinstance(schema, list):
        for inner in schema:
            yield from schemas_in(inner)


def value_of(kind: object, text: str) -> object:
    """Return the value that an answer holds."""
    found = form_of(kind).read(text)
    assert isinstance(found, Found), found
    return found.value


def problems_of(kind: object, text: str) -> list[Problem]:
    """Return what is wrong with an answer."""
    found = form_of(kind).read(text)
    assert isinstance(found, tuple), found
    return list(found)


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_a_class_becomes_a_strict_schema() -> None:
    """With its title, its description, all its properties and no others."""
    assert json_schema_of(Home) == {
        "title": "Home",
        "description": "Where somebody lives.",
        "type": "object",
        "properties": {"street": {"type": "string"}, "number": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
        "required": ["street", "number"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_schema_is_one_that_providers_are_strict_with(kind: object) -> None:
    """An object at the root with a title; all properties required, no others; a type beside each enumeration, nothing
    beside a reference, no defaults, no `oneOf`; and a valid JSON Schema.
    """
    schema = json_schema_of(kind)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert schema["title"]
    for inner in schemas_in(schema):
        if "properties" in inner:
            assert isinstance(inner["properties"], dict)
            assert inner["required"] == list(inner["properties"])
            assert inner["additionalProperties"] is False
        assert "enum" not in inner or "type" in inner
        assert "$ref" not in inner or list(inner) == ["$ref"]
        assert not inner.keys() & {"default", "oneOf", "discriminator"}


def test_a_class_that_holds_itself_keeps_its_definition() -> None:
    """The root is an object, and what refers to the class finds it."""
    schema = json_schema_of(Tree)

    assert schema["properties"] == {
        "label": {"type": "string"},
        "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
    }
    assert list(schema["$defs"]) == ["Tree"]  # type: ignore[call-overload]  # a dict


def test_properties_that_are_named_like_keywords_stay() -> None:
    """`default`, `enum` and `properties` are names there."""

    @attrs.frozen
    class Odd:
        default: int
        enum: int = 1
        properties: int = 2

    assert json_schema_of(Odd)["required"] == ["default", "enum", "properties"]


def test_what_is_no_object_becomes_the_property_of_one() -> None:
    """It is asked for as `value`, and the value is what comes back."""
    assert json_schema_of(list[int]) == {
        "title": "answer",
        "type": "object",
        "properties": {"value": {"type": "array", "items": {"type": "integer"}}},
        "required": ["value"],
        "additionalProperties": False,
    }
    assert json_schema_of(Color)["title"] == "Color"
    assert value_of(list[int], '{"value": [1, 2]}') == [1, 2]
    assert value_of(Color, '{"value": "red"}') is Color.RED
    assert value_of(Home | None, '{"value": null}') is None
    assert value_of(Roots, '{"value": [1]}') == Roots([1])
    assert problems_of(list[int], "[1, 2]") == [Problem("$", "must be an object with the property `value`")]
    assert problems_of(list[int], '{"value": [1, "2"]}') == [Problem("$.value[1]", "'2' is not of type 'integer'")]


def test_a_mapping_of_any_names_stays_one() -> None:
    """No property is forbidden or required in it."""
    assert json_schema_of(dict[str, int])["additionalProperties"] == {"type": "integer"}
    assert value_of(dict, '{"a": 1}') == {"a": 1}


def test_a_schema_of_ones_own_is_sent_as_it_is() -> None:
    """Equal in every part, and not changed with the caller's afterwards."""
    mine: dict[str, object] = {"type": "object", "properties": {"a": {"type": "integer", "default": 3}}}

    form = form_of(mine)
    mine["type"] = "array"

    assert form.schema == {"type": "object", "properties": {"a": {"type": "integer", "default": 3}}}
    assert form.read('{"b": 1}') == Found({"b": 1})
    assert form.read('{"a": "x"}') == (Problem("$.a", "'x' is not of type 'integer'"),)


def test_a_schema_that_was_returned_is_the_callers_own() -> None:
    """Whatever is done to it, the next one is as it was."""
    schema = json_schema_of(Home)
    schema["properties"].clear()  # type: ignore[attr-defined]  # a dict

    assert list(json_schema_of(Home)["properties"]) == ["street", "number"]  # type: ignore[call-overload]  # a dict


@attrs.frozen
class Private:
    _secret: str
    shown: int = attrs.field(alias="number", validator=attrs.validators.ge(0))
    length: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "length", len(self._secret))


@dataclasses.dataclass
class Counted:
    word: str
    length: int = dataclasses.field(init=False, default=0)


def test_what_is_asked_for_is_what_the_initialiser_takes() -> None:
    """By the names that it has there; a field that it does not take is not asked for."""
    assert json_schema_of(Private)["required"] == ["secret", "number"]
    assert value_of(Private, '{"secret": "abc", "number": 3}') == Private("abc", 3)
    assert problems_of(Private, '{"secret": 1, "number": 3}') == [Problem("$.secret", "1 is not of type 'string'")]
    assert json_schema_of(Counted)["required"] == ["word"]
    assert value_of(list[Counted], '{"value": [{"word": "a", "length": 7}]}') == [Counted("a")]


S = TypeVar("S")


class Single(msgspec.Struct, Generic[S]):
    one: S


def test_a_named_tuple_is_asked_for_by_its_names() -> None:
    """Wherever it stands, but for a `msgspec.Struct`'s, which is read as the list that it writes."""
    holder = msgspec.defstruct("Holder", [("point", tuple[Point, int])])

    assert json_schema_of(Point)["properties"] == {
        "x": {"type": "integer"},
        "home": {"$ref": "#/$defs/Home"},
        "name": {"type": "string"},
    }
    assert value_of(Point, '{"x": 1, "home": {"street": "Oak"}}') == Point(1, Home("Oak"))
    assert value_of(list[Point], '{"value": [{"x": 1, "home": {"street": "Oak"}, "name": "b"}]}') == [
        Point(1, Home("Oak"), "b")
    ]
    assert problems_of(Point, '{"x": "1", "home": {"street": "Oak"}}') == [
        Problem("$.x", "'1' is not of type 'integer'")
    ]
    assert value_of(holder, '{"point": [[1, {"street": "Oak"}], 2]}').point == (Point(1, Home("Oak")), 2)  # type: ignore[attr-defined]  # a Holder
    assert value_of(Single[Point], '{"one": [1, {"street": "Oak"}]}') == Single(Point(1, Home("Oak")))


@dataclasses.dataclass
class Quoted:
    kids: "list[Quoted]"  # noqa: UP037 - what is tested
    home: Optional["Home"] = None  # noqa: UP037, UP045 - what is tested


def test_names_in_quotes_are_looked_up_wherever_they_stand() -> None:
    """Inside of other types too, and in a function for the class itself."""

    @attrs.frozen
    class Inner:
        kids: list[Inner]

    node = attrs.make_class("node", {"kids": attrs.field(type=list["Leafless"])})
    typed = TypedDict("typed", {"kids": list["Leafless"]})  # noqa: UP013 - what is tested

    oak = value_of(Quoted, '{"kids": [{"kids": []}], "home": {"street": "Oak"}}')
    assert oak == Quoted([Quoted([])], Home("Oak"))
    assert value_of(node, '{"kids": [{"name": "a"}]}') == node([Leafless("a")])
    assert value_of(Inner, '{"kids": [{"kids": []}]}') == Inner([Inner([])])
    assert value_of(typed, '{"kids": [{"name": "a"}]}') == {"kids": [Leafless("a")]}


@attrs.frozen
class Leafless:
    name: str


@attrs.frozen
class Box(Generic[S]):
    content: S
    more: list[S] = attrs.Factory(list)


@attrs.frozen
class HomeBox(Box[Home]):
    label: str = ""


def test_a_generic_class_holds_what_it_is_told_to() -> None:
    """Itself, and what is derived from it."""
    home = '{"content": {"street": " Oak "}, "more": [{"street": "Elm"}]}'

    assert value_of(Box[Home], home) == Box(Home("Oak"), [Home("Elm")])
    assert value_of(HomeBox, home) == HomeBox(Home("Oak"), [Home("Elm")])
    assert problems_of(Box[int], home)[0] == Problem("$.content", "{'street': ' Oak '} is not of type 'integer'")
    assert value_of(Box, '{"content": [1]}') == Box([1])


def test_what_cannot_be_held_to_is_told_in_the_description() -> None:
    """In words that the model reads; the answer is held to it all the same."""
    bounded = Annotated[str, msgspec.Meta(min_length=2, description="a name")]

    assert json_schema_of(bounded)["properties"] == {
        "value": {"type": "string", "description": "a name\n\n{minLength: 2}"}
    }
    assert json_schema_of(tuple[int, str])["properties"] == {
        "value": {
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "description": '{prefixItems: [{"type":"integer"},{"type":"string"}]}',
        }
    }
    assert json_schema_of(set[Decimal])["properties"] == {
        "value": {
            "type": "array",
            "items": {"type": "string", "description": "{format: decimal}"},
            "description": "{uniqueItems: true}",
        }
    }
    assert problems_of(bounded, '{"value": "x"}') == [Problem("$.value", "'x' is too short")]
    assert problems_of(tuple[int, str], '{"value": ["x", 1]}') != []


def test_pydantic_models_stand_in_lists_dicts_and_unions() -> None:
    """Pydantic makes the whole of it."""
    cats = '{"value": [{"kind": "cat"}, null]}'

    assert value_of(list[MCat | None], cats) == [MCat(kind="cat"), None]
    assert value_of(dict[str, MDog], '{"a": {}}') == {"a": MDog()}
    assert json_schema_of(list[MCat])["required"] == ["value"]
    assert [problem.place for problem in problems_of(list[MCat], '{"value": [{"kind": "cow"}]}')] == ["$.value[0].kind"]


# -- what cannot be asked for ------------------------------------------------------------------------------------------


class Opaque:
    """No fields that anybody could know of."""


def test_a_class_without_a_schema_is_refused() -> None:
    """With the class, the reason, and what can be given."""
    uncallable = pydantic.create_model("Uncallable", a=(type(len), ...), __config__={"arbitrary_types_allowed": True})
    unhashable = Annotated[int, []]
    holder = attrs.make_class("Holder", {"a": attrs.field(type=unhashable)})
    mistakes: list[object] = [Home("street"), "Home", len, Home | Span, unhashable, holder]
    for kind in [Opaque, complex, list[Opaque], uncallable, *mistakes]:
        with pytest.raises(
            InvalidPromptError, match=r"no answer can be asked for in the form of .*give an attrs class"
        ):
            form_of(kind)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Opaque, "Opaque has no fields with types that could be asked for"),
        (list[object], "object has no fields with types"),
        (attrs.make_class("Holder", {"a": attrs.field(type=MCat)}), "MCat is a pydantic model, which can stand in"),
        ([Home], r"it is a list; its type is written `list\[Book\]`"),
        (Home("Oak"), "it is an instance; its class is Home"),
        (attrs.make_class("Lost", {"a": attrs.field(type=list["Nowhere"])}), "name 'Nowhere' is not defined"),  # type: ignore[name-defined]  # noqa: F821
        (attrs.make_class("Lost", {"a": attrs.field(type=list["no type"])}), "must be an expression"),  # type: ignore[valid-type]  # noqa: F722
        (list[MCat | Home], "Home"),
    ],
    ids=str,
)
def test_the_reason_is_told(kind: object, reason: str) -> None:
    """In words that say what to change."""
    with pytest.raises(InvalidPromptError, match=reason):
        form_of(kind)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "objekt"}, r"is no JSON Schema: `\$.type`: 'objekt'"),
        ({"properties": {"a": {"required": 1}}}, r"`\$.properties.a.required`"),
        ({"pattern": "("}, r"`\$.pattern`: '\(' is not a 'regex'"),
        ({"$ref": "#/$defs/a"}, r"refers to '#/\$defs/a', which is not in it"),
        ({"prefixItems": [{"$ref": "https://example.com/a"}]}, r"refers to 'https://example.com/a'"),
        ({"enum": [{1, 2}]}, r"schema\['enum'\]\[0\] is no JSON value"),
    ],
)
def test_a_wrong_schema_is_refused(schema: dict[str, object], reason: str) -> None:
    """With the place and the reason; nothing is fetched."""
    with pytest.raises(InvalidPromptError, match=reason):
        form_of(schema)


def test_a_schema_of_an_older_draft_is_understood() -> None:
    """It names its draft, and is validated by it."""
    draft7 = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": {"a": {"type": "integer"}},
        "items": [{"$ref": "#/definitions/a"}],
    }

    assert problems_of(draft7, '["x"]') == [Problem("$[0]", "'x' is not of type 'integer'")]


# -- what comes back ---------------------------------------------------------------------------------------------------


def test_a_class_is_made_by_its_own_initialiser() -> None:
    """Converters run, then validators; defaults fill in what is missing, and what no field takes is ignored."""
    ada = '{"name": "Ada", "age": 36, "homes": [{"street": "  Main St "}], "likes": ["cats"], "more": 1}'

    assert value_of(Person, ada) == Person("Ada", 36, [Home("Main St")], ("cats",))


def test_classes_stand_wherever_types_let_them() -> None:
    """In unions, mappings with any keys, tuples, named tuples and typed dicts; each is made by its own initialiser."""
    home = {"street": " Oak "}
    given = {
        "either": [home],
        "pet": {"type": "cat"},
        "by_name": {"a": home},
        "by_number": {"1": home},
        "point": {"x": 1, "home": home},
        "options": {"color": "red", "home": home},
        "pair": [home, 2],
        "numbers": [1, 2],
        "kind": None,
        "size": 3,
        "anything": {"x": [1]},
    }

    made = value_of(Everything, msgspec.json.encode(given).decode())

    oak = Home("Oak")
    assert made == Everything(
        either=[oak],
        pet=Cat(),
        by_name={"a": oak},
        by_number={1: oak},
        point=Point(1, oak),
        options={"color": Color.RED, "home": oak},
        pair=(oak, 2),
        numbers=frozenset({1, 2}),
        kind=None,
        size=3,
        anything={"x": [1]},
    )
    for either in (home, "text", 5, None):
        made = value_of(Everything, msgspec.json.encode({**given, "either": either}).decode())
        assert isinstance(made, Everything)
        assert made.either == (oak if isinstance(either, dict) else either)


def test_named_tuples_are_read_however_they_were_made() -> None:
    """By a class statement or a call, with types or without."""
    made_by_call = NamedTuple("made_by_call", [("name", str)])  # noqa: UP014 - what is tested
    untyped = namedtuple("untyped", ["name"])  # noqa: PYI024 - what is tested
    for kind in (made_by_call, untyped):
        holder = attrs.make_class("Holder", {"a": attrs.field(type=kind)})

        assert value_of(holder, '{"a": {"name": " Oak "}}') == holder(kind(" Oak "))


def test_everything_that_is_wrong_is_told_at_once_with_its_place() -> None:
    """What is missing, and of another type; of a text no number is made."""
    wrong = '{"age": "36", "homes": [{"street": "Oak"}, {"street": 3}], "likes": "cats"}'

    assert problems_of(Person, wrong) == [
        Problem("$.age", "'36' is not of type 'integer'"),
        Problem("$.homes[1].street", "3 is not of type 'string'"),
        Problem("$.likes", "'cats' is not of type 'array'"),
        Problem("$", "'name' is a required property"),
    ]


def test_what_validators_and_initialisers_refuse_is_told_with_its_place() -> None:
    """Each ValueError and TypeError of theirs, as they word it."""
    wrong = '{"name": "Ada", "age": 1, "homes": [{"street": "Oak"}, {"street": " x "}, {"street": "y"}]}'

    assert problems_of(Person, wrong) == [
        Problem("$.homes[1]", "Length of 'street' must be >= 2: 1"),
        Problem("$.homes[2]", "Length of 'street' must be >= 2: 1"),
    ]
    assert problems_of(Span, '{"first": "2024-02-01", "last": "2024-01-01"}') == [
        Problem("$", "it ends before it begins")
    ]
    assert problems_of(Span, '{"first": "2024-02-31", "last": "soon"}') == [
        Problem("$.first", "Invalid RFC3339 encoded date"),
        Problem("$.last", "Invalid RFC3339 encoded date"),
    ]


def test_types_of_no_class_are_read_strictly() -> None:
    """A date is one, or a problem; an enumeration has the types of its values."""
    assert value_of(date, '{"value": "2024-02-29"}') == date(2024, 2, 29)
    assert problems_of(date, '{"value": "soon"}') == [Problem("$.value", "Invalid RFC3339 encoded date")]
    assert json_schema_of(Literal["a", 2, None])["properties"] == {  # noqa: PYI061 - what is tested
        "value": {"enum": [None, 2, "a"], "type": ["null", "integer", "string"]}
    }


def test_a_bug_in_a_class_is_raised() -> None:
    """It is no fault of the answer's."""

    @attrs.frozen
    class Buggy:
        a: int = attrs.field(validator=lambda _self, _field, value: 1 / value)

    with pytest.raises(ZeroDivisionError):
        form_of(Buggy).read('{"a": 0}')


def test_a_pydantic_model_validates_itself() -> None:
    """Its validators run, and what it finds wrong is told with its place."""
    assert value_of(Model, '{"name": "ada", "colors": ["red"], "pet": {"kind": "cat"}}') == Model(
        name="Ada", colors=[Color.RED], next=None, pet=MCat(kind="cat")
    )

    wrong = '{"name": "nobody", "colors": ["red", "green"], "pet": {"kind": "cow"}}'
    assert [(problem.place, problem.reason.partition(":")[0]) for problem in problems_of(Model, wrong)] == [
        ("$.name", "Value error, nobody is known by that name"),
        ("$.colors[1]", "Input should be 'red' or 'blue'"),
        ("$.pet", "Input tag 'cow' found using 'kind' does not match any of the expected tags"),
    ]


def test_problems_are_bounded() -> None:
    """20 at most, each of a few hundred characters, however long and wrong an answer is."""
    long = "x" * 100_000
    wrong = msgspec.json.encode({"value": [long] * 1000}).decode()

    for kind in (list[int], list[Home]):
        problems = problems_of(kind, wrong)
        assert len(problems) == 20
        assert max(len(str(problem)) for problem in problems) < 300
        assert problems[0].reason.endswith(("is not of type 'integer'", "is not of type 'object'"))
    streets = msgspec.json.encode({"value": [{"street": "x"}] * 1000}).decode()
    assert len(problems_of(list[Home], streets)) == 20


def test_an_answer_that_nests_without_end_is_refused() -> None:
    """Where the class itself allows any depth."""
    deep = '{"label": "a", "children": [' * 400 + "]}" * 400

    [problem] = problems_of(Tree, deep)

    assert problem.reason in {
        "nests too deeply",
        "is no JSON that can be read: it nests too deeply, or is not valid Unicode",
    }
