"""A Messages API in the words of OpenAPI: what is read, and what is written. Pure.

This format is read strictly: what says more than can be carried is refused. null is the same as nothing, anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from wizard_actors.http_api.anthropic_answer import ERROR_TYPES, OWN_REASONS, STOP_REASONS
from wizard_actors.http_api.anthropic_request import (
    BLOCK_DEFAULTS,
    BLOCK_IGNORED,
    CHOICES,
    IN_ASSISTANT,
    IN_RESULT,
    IN_SYSTEM,
    IN_USER,
    TOOL_DEFAULTS,
    TOOL_IGNORED,
)
from wizard_actors.http_api.openapi_schema import (
    ANY_OBJECT,
    DATA,
    FLAG,
    INPUT,
    NAME,
    NOTHING,
    TEXT,
    WHOLE,
    Schema,
    each,
    maybe,
    ref,
    several,
    structure,
    word,
    words,
)
from wizard_actors.types.tool import NAME as TOOL_NAME

__all__ = ["MESSAGES"]

# -- what is read ------------------------------------------------------------------------------------


def _default(value: object) -> Schema:
    return {"enum": [value, None]}


def _block(kind: str, properties: Mapping[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    ignored: Mapping[str, Schema] = {name: {"description": "Passed over"} for name in sorted(BLOCK_IGNORED)}
    defaults = {name: _default(value) for name, value in BLOCK_DEFAULTS.items()}
    return structure({"type": word(kind), **properties, **ignored, **defaults}, ["type", *required], closed=True)


def _blocks(*kinds: str) -> Schema:
    return each({"oneOf": [ref(f"MessageBlock_{kind}") for kind in kinds]})


SOURCE: Final = {
    "oneOf": [
        structure(
            {
                "type": word("base64"),
                "media_type": {"type": "string", "pattern": "^image/"},
                "data": {"type": "string", "contentEncoding": "base64"},
                "url": {},
                "file_id": {},
            },
            ["type", "media_type", "data"],
            closed=True,
        ),
        structure(
            {
                "type": word("url"),
                "url": {"type": "string", "pattern": "^(https?|gs|data):"},
                "media_type": {},
                "data": {},
                "file_id": {},
            },
            ["type", "url"],
            closed=True,
        ),
    ]
}

BLOCKS: Final[Mapping[str, Schema]] = {
    "text": _block("text", {"text": TEXT}, ("text",)),
    "image": _block("image", {"source": SOURCE}, ("source",)),
    "thinking": _block("thinking", {"thinking": TEXT, "signature": maybe(TEXT)}, ("thinking",)),
    "redacted_thinking": _block("redacted_thinking", {"data": maybe(TEXT)}),
    "tool_use": _block("tool_use", {"id": TEXT, "name": TEXT, "input": maybe(ANY_OBJECT)}, ("id", "name", "input")),
    "tool_result": _block(
        "tool_result",
        {
            "tool_use_id": NAME,
            "content": several(TEXT, _blocks(*IN_RESULT), NOTHING),
            "is_error": maybe(FLAG),
        },
        ("tool_use_id",),
    ),
}


def _said_by(role: str, *kinds: str) -> Schema:
    content = several(TEXT, _blocks(*kinds))
    return structure({"role": word(role), "content": content}, ["role", "content"], closed=True)


TOOL: Final = structure(
    {
        "type": maybe(word("custom")),
        "name": {"type": "string", "pattern": f"^{TOOL_NAME.pattern}$"},
        "description": maybe(TEXT),
        "input_schema": INPUT,
        "strict": maybe(FLAG),
        **{name: {"description": "Passed over"} for name in sorted(TOOL_IGNORED)},
        **{name: _default(value) for name, value in TOOL_DEFAULTS.items()},
    },
    ["name", "input_schema"],
    closed=True,
)

CHOICE: Final = {
    "oneOf": [
        structure(
            {"type": words(*CHOICES), "name": {}, "disable_parallel_tool_use": maybe(FLAG)}, ["type"], closed=True
        ),
        structure(
            {"type": word("tool"), "name": TEXT, "disable_parallel_tool_use": maybe(FLAG)},
            ["type", "name"],
            closed=True,
        ),
        NOTHING,
    ]
}

FORMAT: Final = maybe(
    structure({"type": word("json_schema"), "schema": ANY_OBJECT}, ["type", "schema"], closed=True),
    "the schema that the answer has to follow",
)

REQUEST: Final = structure(
    {
        "model": {**NAME, "description": "A configured model, a route, or `wizard`"},
        "messages": each(ref("MessageParam"), minItems=1),
        "max_tokens": {"type": "integer", "minimum": 1},
        "system": several(TEXT, _blocks(*IN_SYSTEM), NOTHING),
        "tools": maybe(each(ref("MessageTool"))),
        "tool_choice": CHOICE,
        "stop_sequences": {"type": ["string", "array", "null"], "items": TEXT},
        "temperature": {"type": ["number", "null"], "minimum": 0},
        "top_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "output_config": maybe(structure({"format": FORMAT})),
        "output_format": FORMAT,
        "stream": maybe(FLAG, "whether the answer comes in pieces, as server-sent events"),
        "container": NOTHING,
        "mcp_servers": {"type": ["array", "null"], "maxItems": 0},
    },
    ["model", "messages", "max_tokens"],
    says="Any other field goes to the model's provider as it is, where the key allows that.",
)

# -- what is written ---------------------------------------------------------------------------------

USAGE: Final = structure(
    {
        "input_tokens": WHOLE,
        "output_tokens": WHOLE,
        "cache_creation_input_tokens": WHOLE,
        "cache_read_input_tokens": WHOLE,
        "output_tokens_details": structure({"thinking_tokens": WHOLE}),
    },
    ["input_tokens", "output_tokens"],
)

ANSWER: Final = structure(
    {
        "id": TEXT,
        "type": word("message"),
        "role": word("assistant"),
        "model": {**TEXT, "description": "The model that answered"},
        "content": _blocks("text", "thinking", "redacted_thinking", "tool_use"),
        "stop_reason": words(*sorted({*STOP_REASONS.values(), *OWN_REASONS})),
        "stop_sequence": maybe(TEXT),
        "usage": USAGE,
    },
    ["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"],
)

EVENTS: Final = (
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "error",
)

ERROR: Final = structure(
    {
        "type": word("error"),
        "error": structure(
            {
                "type": words(*sorted({*ERROR_TYPES.values(), "invalid_request_error", "api_error"})),
                "message": TEXT,
                "code": {**TEXT, "description": "Ours, which is stable"},
                "param": {**TEXT, "description": "The place in the body"},
            },
            ["type", "message", "code"],
        ),
        "request_id": TEXT,
    },
    ["type", "error", "request_id"],
)

MODEL: Final = structure(
    {
        "type": word("model"),
        "id": TEXT,
        "display_name": TEXT,
        "created_at": {"type": "string", "format": "date-time"},
        "lifecycle": TEXT,
    },
    ["type", "id", "display_name", "created_at"],
)

MODELS: Final = structure(
    {
        "data": each(ref("MessageModel")),
        "has_more": {"const": False},
        "first_id": maybe(TEXT),
        "last_id": maybe(TEXT),
    },
    ["data", "has_more", "first_id", "last_id"],
)

MESSAGES: Final[Mapping[str, Schema]] = {
    "MessageRequest": REQUEST,
    "MessageParam": {
        "oneOf": [_said_by("user", *IN_USER), _said_by("assistant", *IN_ASSISTANT), _said_by("system", *IN_SYSTEM)]
    },
    **{f"MessageBlock_{kind}": schema for kind, schema in BLOCKS.items()},
    "MessageTool": TOOL,
    "MessageAnswer": ANSWER,
    "MessageEvent": structure({"event": words(*EVENTS), "data": DATA}, ["event", "data"]),
    "MessageError": ERROR,
    "MessageModel": MODEL,
    "MessageModels": MODELS,
}
"""The schemas by their names in the document."""
