"""From a class, or a JSON Schema, to the schema that a model is sent, and from its answer's text to a value. Pure.

The schema sent for a class is in the form that providers hold their models to: an object at the root, every object
with all its properties required and no others, `$defs` and `$ref`, a title. A JSON Schema is sent as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, NoReturn, Protocol, TypeAlias, TypeVar, cast, get_args

import attrs
import msgspec
from attrs import frozen
from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError

from wizard_actors.class_fields import stand_in
from wizard_actors.errors import InvalidPromptError
from wizard_actors.frozen_json import NotJsonError, frozen_json
from wizard_actors.json_text import NoJsonError, json_in
from wizard_actors.json_values import Problem, converter, problems_in
from wizard_actors.strict_schema import strict_schema

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

__all__ = ["Form", "Found", "form_of", "json_schema_of"]

T = TypeVar("T")
JsonObject: TypeAlias = "Mapping[str, object]"

MOST_PROBLEMS: Final = 20
"""How many problems of one answer are told."""

UNSUITABLE: Final = (TypeError, ValueError, NameError, RuntimeError, SyntaxError, AttributeError)
"""What msgspec and pydantic raise for a class that they can write no schema of, and annotations that name nothing."""


@frozen
class Found(Generic[T]):
    """The value that an answer holds."""

    value: T


@frozen
class Form(Generic[T]):
    """What an answer has to look like: the `schema` to send, and how to `read` an answer.

    `wrapped`: what is wanted is the one property `value` of the object that is asked for.
    """

    schema: JsonObject
    _make: Callable[[object, str], Found[T] | tuple[Problem, ...]]
    wrapped: bool = False

    def read(self, text: str) -> Found[T] | tuple[Problem, ...]:
        """Return the value in the text of an answer, or what is wrong with it, 20 problems at most. A field that has a
        default may be missing, and what no field takes is ignored.

        Raises what a class's own code raises other than ValueError and TypeError.
        """
        try:
            value = json_in(text, an_object=self.schema.get("type") == "object")
        except NoJsonError as error:
            return (Problem("$", str(error)),)
        place = "$"
        if self.wrapped:
            if not isinstance(value, dict) or "value" not in value:
                return (Problem("$", "must be an object with the property `value`"),)
            place, value = "$.value", value["value"]
        try:
            return self._make(value, place)
        except RecursionError:
            return (Problem(place, "nests too deeply"),)


def json_schema_of(kind: object) -> dict[str, object]:
    """Return the JSON Schema of a class in the strict form that providers want, for `Prompt.response_schema` and
    `Tool.parameters`.

    `kind` is an attrs class, a dataclass, a TypedDict, a NamedTuple, a `msgspec.Struct`, a pydantic model, or a type
    made of them and of JSON's own: `list[Person]`, `Literal["a", "b"]`, an enum. The properties are the parameters of
    the class's initialiser. What is no object becomes one, with the one property `value`. Every property is required,
    also where the class has a default: a model that may leave a thing out says so with null, where the class takes
    None. What providers refuse in such a schema, as the length of a text, stands in a description instead.

    Raises `InvalidPromptError` for what has no such schema.
    """
    plain: dict[str, object] = msgspec.json.decode(msgspec.json.encode(form_of(kind).schema))
    return plain


def form_of(kind: object) -> Form[object]:
    """Return the form of an answer that is to be a `kind`: see `json_schema_of`. A mapping is a JSON Schema, sent as it
    is, whose answers are JSON values.

    Raises `InvalidPromptError` for a class that has no schema, and for a schema that is none.
    """
    if isinstance(kind, Mapping):
        return _form_of_schema(kind)
    if isinstance(kind, list | tuple | set):
        raise _unsuitable(kind, TypeError(f"it is a {type(kind).__name__}; its type is written `list[Book]`"))
    try:
        hash(kind)
    except TypeError as error:  # of a type annotated with something that can be changed
        raise _unsuitable(kind, error) from error
    return _form_of_kind(kind)


def _made_for(kind: object) -> Form[object]:
    return _form_of_pydantic(kind) if _holds_pydantic(kind) else _form_of_class(kind)


_form_of_kind = lru_cache(maxsize=64)(_made_for)
"""A form takes longer to make than to use."""


# -- a JSON Schema ----------------------------------------------------------------------------------------------------


def _form_of_schema(given: JsonObject) -> Form[object]:
    schema = _sendable(given)
    check = _validator(schema)

    def make(value: object, place: str) -> Found[object] | tuple[Problem, ...]:
        return _problems(check, value, place) or Found(value)

    return Form(schema, make)


def _sendable(schema: JsonObject) -> JsonObject:
    """Return a copy that nobody can change. Raises `InvalidPromptError` for what is no JSON."""
    try:
        return cast("JsonObject", frozen_json(schema))
    except NotJsonError as error:
        raise InvalidPromptError(f"the schema cannot be sent: schema{error.place} {error.reason}") from None


def _validator(schema: JsonObject) -> Validator:
    """Return what validates values by `schema`, fetching nothing. Raises `InvalidPromptError` for a wrong one."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import NoSuchResource, Unresolvable
    from referencing.jsonschema import DRAFT202012

    validator = validator_for(schema, default=Draft202012Validator)
    try:
        validator.check_schema(cast("dict[str, object]", schema))
    except SchemaError as error:
        raise InvalidPromptError(
            f"the schema is no JSON Schema: `{error.json_path}`: {_short(error.message)}"
        ) from None
    resolver = Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver()
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except (Unresolvable, NoSuchResource):
            raise InvalidPromptError(
                f"the schema refers to {reference!r}, which is not in it: put that under its `$defs`"
            ) from None
    return validator(schema, registry=Registry())


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, Mapping):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            yield reference
        for inner in schema.values():
            yield from _references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _references(inner)


def _problems(check: Validator, value: object, place: str) -> tuple[Problem, ...]:
    errors = islice(check.iter_errors(value), MOST_PROBLEMS)  # type: ignore[arg-type]  # JSON: the stubs spell it out
    return tuple(_problem(error, place) for error in errors)


def _problem(error: ValidationError, place: str) -> Problem:
    """Return an error as a problem: of a union, what is wrong with the member that came closest."""
    from jsonschema.exceptions import best_match

    closest = best_match([error]) or error
    return Problem(f"{place}{closest.json_path[1:]}", _short(closest.message))


def _short(text: str, most: int = 200) -> str:
    """Return `text` without its middle where it is long: it begins with the value, and ends with what is wrong."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


# -- classes ----------------------------------------------------------------------------------------------------------


def _form_of_class(kind: object) -> Form[object]:
    try:
        written = msgspec.json.schema(stand_in(kind), schema_hook=_refuse)
    except UNSUITABLE as error:
        raise _unsuitable(kind, error) from error
    check, made = _validator(written), converter()
    schema, wrapped = strict_schema(written)
    wanted = cast("type[object]", kind)
    try:
        made.get_structure_hook(wanted)
    except (StructureHandlerNotFoundError, *UNSUITABLE) as error:
        raise _unsuitable(kind, error) from error

    def make(value: object, place: str) -> Found[object] | tuple[Problem, ...]:
        problems = _problems(check, value, place)
        if problems:
            return problems
        try:
            return Found(made.structure(value, wanted))
        except BaseValidationError as error:
            found = islice(problems_in(error, place), MOST_PROBLEMS)
            return tuple(Problem(each.place, _short(each.reason)) for each in found)
        except (ValueError, TypeError) as error:  # of a kind that holds no others
            return (Problem(place, _short(str(error))),)

    return Form(_sendable(schema), make, wrapped)


def _refuse(kind: type) -> NoReturn:
    """Say why a class that msgspec does not know has no schema."""
    if _is_pydantic(kind):
        raise TypeError(
            f"{kind.__name__} is a pydantic model, which can stand in another one and in lists, dicts and unions, but "
            "not in the fields of other classes: make those pydantic models, too"
        )
    raise TypeError(f"{kind.__name__} has no fields with types that could be asked for")


def _unsuitable(kind: object, error: Exception) -> InvalidPromptError:
    reason = " ".join(str(error).split())
    if not isinstance(kind, type) and (attrs.has(type(kind)) or dataclasses.is_dataclass(kind)):
        reason = f"it is an instance; its class is {type(kind).__name__}"
    return InvalidPromptError(
        f"no answer can be asked for in the form of {_short(repr(kind))}: {_short(reason, 300)}; give an attrs class, "
        "a dataclass, a TypedDict, a pydantic model, a type made of these, or a JSON Schema"
    )


# -- pydantic, which need not be installed -----------------------------------------------------------------------------


class TypeAdapter(Protocol):
    """What pydantic makes of a type."""

    def json_schema(self) -> dict[str, object]:
        """Return the schema of what the type takes."""

    def validate_json(self, data: bytes) -> object:
        """Return the value that is made from JSON."""


def _is_pydantic(kind: object) -> bool:
    return isinstance(kind, type) and hasattr(kind, "model_json_schema") and hasattr(kind, "model_validate_json")


def _holds_pydantic(kind: object) -> bool:
    """Whether `kind` is a pydantic model, or a type that is made of one."""
    return _is_pydantic(kind) or any(_holds_pydantic(argument) for argument in get_args(kind))


def _form_of_pydantic(kind: object) -> Form[object]:
    pydantic = import_module("pydantic")  # which has made the model
    try:
        adapter: TypeAdapter = pydantic.TypeAdapter(kind)
        written = adapter.json_schema()
    except UNSUITABLE as error:
        raise _unsuitable(kind, error) from error
    schema, wrapped = strict_schema(written)

    def make(value: object, place: str) -> Found[object] | tuple[Problem, ...]:
        try:
            return Found(adapter.validate_json(msgspec.json.encode(value)))
        except ValueError as error:
            return tuple(_pydantic_problems(error, place))

    return Form(_sendable(schema), make, wrapped)


def _pydantic_problems(error: ValueError, place: str) -> Iterator[Problem]:
    """Yield what pydantic's ValidationError, a ValueError, lists."""
    listed = getattr(error, "errors", None)
    if listed is None:
        yield Problem(place, _short(str(error)))
        return
    for found in islice(listed(include_url=False, include_context=False, include_input=False), MOST_PROBLEMS):
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in found["loc"])
        yield Problem(place + steps, _short(found["msg"]))
