"""The endpoint in the words of OpenAPI 3.1: what `GET /openapi.json` shows. Pure.

The schemas of requests take what the readers take, as far as a schema can tell; beyond that a reader may still find a
request wrong (a result of a tool without its call, say), and answers 400.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from wizard_actors.http_api.openapi_chat import CHAT
from wizard_actors.http_api.openapi_messages import MESSAGES
from wizard_actors.http_api.openapi_schema import ANY_OBJECT, DATA, TEXT, Schema, ref, several, structure, word, words

__all__ = ["STATUSES", "document"]

STATUSES: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "The request is wrong in itself, or cannot be answered as it is by any model: the message says where",
        401: "No key, or none of this server's",
        403: "The key may not do that; or a web page may not, or not under this host's name",
        404: "There is no model or route of that name",
        408: "The body did not come in time",
        413: "The body is larger than `server.max_message`",
        415: "The body is compressed",
        429: "Too many requests: of the key, of the server, or at every model",
        431: "The head is larger than `server.max_header`",
        500: "A bug in this server",
        502: "Every model that could be tried has failed",
        503: "The server stops, or nobody may be asked just now: ask again",
        504: "Every model that could be tried was too late, or the deadline is over",
    }
)
"""What failures mean, by their status."""

EVERYWHERE: Final = (400, 403, 431, 500, 503)
"""The failures that any request may meet."""

BEFORE_ALL: Final = frozenset({400, 431, 500, 503})
"""The failures that may be told before it is known what is asked for: in OpenAI's shape, and without an id."""

REQUEST_ID: Final[Schema] = {
    "description": "What the request is called, here and in the server's log: as its client called it, or by chance",
    "schema": TEXT,
}
SECONDS: Final[Schema] = {"schema": {"type": "integer", "minimum": 0}}

ANSWERED: Final[Mapping[str, Schema]] = {
    "x-wizard-attempts": {"description": "How many calls of models it took", "schema": {"type": "integer"}},
    "x-wizard-overhead-ms": {"description": "Milliseconds beside what models took", "schema": {"type": "number"}},
    "x-wizard-served-by": {"description": "In what way it was answered", "schema": TEXT},
    "x-wizard-cache": {"description": "What the cache had: hit, miss, shared, stale, bypass", "schema": TEXT},
}
"""The headers that say how an answer came about."""

OWN_HEADERS: Final[Mapping[int, Mapping[str, Schema]]] = MappingProxyType(
    {
        401: {"www-authenticate": {"schema": word("Bearer")}},
        429: {
            "retry-after": {"description": "In seconds", "required": True, **SECONDS},
            "retry-after-ms": {"description": "The same in milliseconds", **SECONDS},
        },
        502: {"x-should-retry": {"description": "Clients should not ask again by themselves", "schema": word("false")}},
        503: {
            "retry-after": {"description": "In seconds", **SECONDS},
            "retry-after-ms": {"description": "The same in milliseconds", **SECONDS},
        },
        504: {"x-should-retry": {"description": "Clients should not ask again by themselves", "schema": word("false")}},
    }
)

PARAMETERS: Final[Mapping[str, Schema]] = {
    "RequestId": {
        "name": "x-request-id",
        "in": "header",
        "description": "What the request is to be called: 1 to 128 characters of ASCII, no spaces. Else it gets a name",
        "schema": TEXT,
    },
    "Deadline": {
        "name": "x-wizard-deadline",
        "in": "header",
        "description": "Seconds that the whole request may take",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    },
    "AnthropicVersion": {
        "name": "anthropic-version",
        "in": "header",
        "description": "Where it is given, whatever it says, lists and errors are in Anthropic's shape",
        "schema": TEXT,
    },
    "EventTypes": {
        "name": "types",
        "in": "query",
        "description": "The types of events that are wanted, parted by commas; all of them where it is left out",
        "schema": TEXT,
    },
    "ModelName": {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
}

KEYS: Final[Sequence[Mapping[str, Sequence[str]]]] = ({"bearer": []}, {"apiKey": []})

NO_OTHER: Final[Mapping[str, Schema]] = MappingProxyType({})

EITHER_ERROR: Final = several(ref("ChatError"), ref("MessageError"))


def document(*, version: str, keyed: bool) -> dict[str, object]:
    """Return the document of a server of this version; `keyed`: it asks for keys."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "wizard",
            "version": version,
            "description": "Language models behind one endpoint, in OpenAI's and in Anthropic's words.",
        },
        "servers": [{"url": "/"}],
        "security": list(KEYS) if keyed else [],
        "paths": {
            "/v1/chat/completions": {"post": _ask("chat", "Answer in OpenAI's words", "Chat")},
            "/v1/messages": {"post": _ask("messages", "Answer in Anthropic's words", "Message")},
            "/v1/models": {"get": _models()},
            "/v1/models/{name}": {"get": _model()},
            "/metrics": {"get": _metrics()},
            "/health/live": {"get": _open("live", "Whether the server runs", _status("live"))},
            "/health/ready": {"get": _ready()},
            "/api/state": {"get": _look("state", "How everything stands, for an admin's key", _json(ANY_OBJECT))},
            "/api/events": {"get": _events()},
            "/openapi.json": {"get": _open("openapi", "This document", ANY_OBJECT)},
        },
        "components": {
            "schemas": {**CHAT, **MESSAGES, "EitherError": EITHER_ERROR},
            "parameters": PARAMETERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


# -- operations --------------------------------------------------------------------------------------


def _ask(name: str, summary: str, kind: str) -> Schema:
    answer = {
        "description": "The answer; with `stream` its events, of which the last tells whether it is whole",
        "headers": _headers(ANSWERED, named=True),
        "content": {
            "application/json": {"schema": ref(f"{kind}Answer")},
            "text/event-stream": {"schema": ref(f"{kind}Event")},
        },
    }
    failures = {
        str(status): _failure(status, _error_of(kind, status), named=status not in BEFORE_ALL) for status in STATUSES
    }
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [_parameter("RequestId"), _parameter("Deadline")],
        "requestBody": {"required": True, "content": _json(ref(f"{kind}Request"))},
        "responses": {"200": answer, **failures},
    }


def _error_of(kind: str, status: int) -> Schema:
    return ref("EitherError" if status in BEFORE_ALL else f"{kind}Error")


def _models() -> Schema:
    return _look("models", "What may be asked by name", _json(several(ref("ChatModels"), ref("MessageModels"))))


def _model() -> Schema:
    shown = _json(several(ref("ChatModel"), ref("MessageModel")))
    return _look("model", "One of them", shown, failures=(401, 404), parameters=("ModelName",))


def _metrics() -> Schema:
    kinds = ("text/plain", "application/openmetrics-text")
    return _look("metrics", "The metrics, for an admin's key", {kind: {"schema": TEXT} for kind in kinds})


def _events() -> Schema:
    shown = {"text/event-stream": {"schema": structure({"event": words("dropped", "end"), "data": DATA}, ["data"])}}
    return _look("events", "What happens, as it happens, for an admin's key", shown, parameters=("EventTypes",))


def _ready() -> Schema:
    draining = {
        "description": "The server stops",
        "headers": _headers({}, named=False),
        "content": _json(several(_status("draining"), ref("EitherError"))),
    }
    return _open("ready", "Whether the server takes requests", _status("ready"), instead={"503": draining})


def _status(said: str) -> Schema:
    return structure({"status": word(said)}, ["status"])


def _open(name: str, summary: str, shown: Schema, *, instead: Mapping[str, Schema] = NO_OTHER) -> Schema:
    """Return what anybody may look at."""
    return {**_look(name, summary, _json(shown), failures=(), instead=instead), "security": []}


def _look(
    name: str,
    summary: str,
    content: Schema,
    *,
    failures: Sequence[int] = (401,),
    parameters: Sequence[str] = (),
    instead: Mapping[str, Schema] = NO_OTHER,
) -> Schema:
    """Return what shows something: `failures` beside those that any request may meet, `instead` some responses."""
    success = {"description": summary, "headers": _headers({}, named=True), "content": content}
    failed = {
        str(status): _failure(status, ref("EitherError"), named=status not in BEFORE_ALL)
        for status in sorted({*EVERYWHERE, *failures})
    }
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [_parameter(each) for each in ("RequestId", "AnthropicVersion", *parameters)],
        "responses": {"200": success, **failed, **instead},
    }


def _failure(status: int, shape: Schema, *, named: bool) -> Schema:
    return {
        "description": STATUSES[status],
        "headers": _headers(OWN_HEADERS.get(status, {}), named=named),
        "content": _json(shape),
    }


def _json(shape: Schema) -> Schema:
    return {"application/json": {"schema": shape}}


def _headers(own: Mapping[str, Schema], *, named: bool) -> Schema:
    return {"x-request-id": {**REQUEST_ID, "required": named}, **own}


def _parameter(name: str) -> Schema:
    return {"$ref": f"#/components/parameters/{name}"}
