"""The description of the endpoint says what the code does: every path, status and field, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR
from starlette.applications import Starlette
from starlette.routing import Route

from tests.models import Scripted
from tests.server.http_wire import served
from wizard_actors.errors import WizardError
from wizard_actors.http_api import anthropic_request, openai_request
from wizard_actors.http_api.anthropic_format import ANTHROPIC
from wizard_actors.http_api.fields import BadRequestError
from wizard_actors.http_api.format import Format
from wizard_actors.http_api.openai_format import OPENAI
from wizard_actors.http_api.openapi import STATUSES, document
from wizard_actors.http_api.status import STATUSES as OF_ERRORS
from wizard_actors.server.http_app import make_app

DOCUMENT: Final[dict[str, Any]] = document(version="1", keyed=True)
SCHEMAS: Final[dict[str, Any]] = DOCUMENT["components"]["schemas"]
BEFORE_FORMATS: Final = {401, 404, 408, 413, 415, 431, 500}
"""The statuses of what is no error of a model's: see `http_app`, `http_exchange` and `http_connection`."""
PAGE: Final = re.compile(r"/(page\.\w+)?")
"""The paths of the page, which is for people, not for programs."""


def inside(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield every object of the document."""
    if isinstance(value, Mapping):
        yield value
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from inside(each)


def validator(name: str) -> Draft202012Validator:
    """Return what validates by a schema of the document."""
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})


# -- as a document -----------------------------------------------------------------------------------


@pytest.mark.parametrize("keyed", [False, True])
def test_it_is_valid_by_the_specifications_own_schema(keyed: bool) -> None:
    """As somebody else has it."""
    described = document(version="1", keyed=keyed)

    OPENAPI_31_VALIDATOR.validate(described)
    assert bool(described["security"]) is keyed


def test_its_schemas_are_valid_and_its_references_lead_somewhere() -> None:
    """All of them, and none stands there for nothing."""
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)
    targets = {each["$ref"] for each in inside(DOCUMENT) if isinstance(each.get("$ref"), str)}
    there = {
        f"#/components/{kind}/{name}" for kind in ("schemas", "parameters") for name in DOCUMENT["components"][kind]
    }
    assert targets == there


# -- against the code --------------------------------------------------------------------------------


async def test_it_has_every_path_of_the_server_and_no_other() -> None:
    """With their methods."""
    async with served(Scripted()) as server:
        app = make_app(server.service)
        while not isinstance(app, Starlette):
            app = app._app  # type: ignore[attr-defined]  # what stands round it has it by that name
    described = {(path, method.upper()) for path, item in DOCUMENT["paths"].items() for method in item}
    offered = {
        (re.sub(r":\w+}", "}", route.path), method)
        for route in app.routes
        if isinstance(route, Route) and not PAGE.fullmatch(route.path)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described == offered


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_it_has_every_status(path: str) -> None:
    """Of the errors' table, and of what is wrong before."""
    responses = DOCUMENT["paths"][path]["post"]["responses"]

    assert set(STATUSES) == {*OF_ERRORS.values(), *BEFORE_FORMATS}
    assert set(responses) == {"200", *map(str, STATUSES)}


def test_it_has_every_field_that_is_read() -> None:
    """Those that are carried or refused, with what may stand there; what is passed over needs no description."""
    for schema, module in (("ChatRequest", openai_request), ("MessageRequest", anthropic_request)):
        described = set(SCHEMAS[schema]["properties"])
        assert described == {*module.CARRIED, *module.REFUSED}
        assert described.isdisjoint(module.IGNORED)


def test_it_has_every_block_with_its_fields() -> None:
    """Of a Messages API, which says no more than that."""
    everywhere = {"type", *anthropic_request.BLOCK_IGNORED, *anthropic_request.BLOCK_DEFAULTS}
    for kind, fields in anthropic_request.BLOCKS.items():
        assert set(SCHEMAS[f"MessageBlock_{kind}"]["properties"]) == fields | everywhere
    tool = {*anthropic_request.TOOL, *anthropic_request.TOOL_IGNORED, *anthropic_request.TOOL_DEFAULTS}
    assert set(SCHEMAS["MessageTool"]["properties"]) == tool


def test_defaults_are_taken() -> None:
    """By the schema, as by the readers: a client that writes them out says nothing by that."""
    for schema, module in (("ChatRequest", openai_request), ("MessageRequest", anthropic_request)):
        for name, value in module.DEFAULTS.items():
            body = {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 5, name: value}
            assert validator(schema).is_valid(body), name


TEXT: Final = {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 5}
TOOL: Final = {"name": "look", "input_schema": {"type": "object"}}
FUNCTION: Final = {"type": "function", "function": {"name": "look"}}

WRONG: Final[list[tuple[str, Format, dict[str, object]]]] = [
    (schema, how, {**TEXT, **more})
    for schema, how in (("ChatRequest", OPENAI), ("MessageRequest", ANTHROPIC))
    for more in list[dict[str, object]](
        [
            {"model": ""},
            {"model": 5},
            {"messages": []},
            {"messages": None},
            {"messages": [{"role": "nobody", "content": "Why?"}]},
            {"messages": [{"role": "user"}]},
            {"messages": [{"role": "user", "content": [{"type": "sound"}]}]},
            {"messages": [{"role": "assistant", "content": [{"type": "text"}]}]},
            {"max_tokens": 0},
            {"max_tokens": 1.5},
            {"top_p": 1.1},
            {"temperature": -1},
            {"stream": "yes"},
            {"tools": [{}]},
            {"tool_choice": "perhaps"},
            {"tools": [TOOL if how is OPENAI else FUNCTION]},
        ]
    )
    if not (how is ANTHROPIC and more == {"model": ""})
]


@pytest.mark.parametrize(("schema", "how", "body"), WRONG)
def test_what_it_refuses_is_refused(schema: str, how: Format, body: dict[str, object]) -> None:
    """By the schema and by the reader alike."""
    assert not validator(schema).is_valid(body)
    with pytest.raises((BadRequestError, WizardError)):
        how.read(body)


@pytest.mark.parametrize(
    ("schema", "how", "tool"), [("ChatRequest", OPENAI, FUNCTION), ("MessageRequest", ANTHROPIC, TOOL)]
)
def test_what_it_takes_is_taken(schema: str, how: Format, tool: dict[str, object]) -> None:
    """A request in which everything is in order."""
    body = {**TEXT, "tools": [tool], "temperature": 0.5, "stream": True, "thinking": {"type": "adaptive"}}

    assert list(validator(schema).iter_errors(body)) == []
    assert how.read(body).stream
