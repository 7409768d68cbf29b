"""Chat Completions in the words of OpenAPI: what is read, and what is written. Pure.

What is passed over, and what goes to the provider as it is, has no schema: anything may stand there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from wizard_actors.http_api.openai_answer import FINISH_WORDS
from wizard_actors.http_api.openai_request import CHOICES, OLD_CHOICES, OWN, THINKING
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

__all__ = ["CHAT"]

URL: Final[Schema] = {"type": "string", "pattern": "^(https?|gs|data):"}
NONE_YET: Final[Schema] = {"type": ["array", "null"], "maxItems": 0}
NO_WORD: Final[Schema] = {"type": ["string", "null"], "maxLength": 0}

# -- what is read ------------------------------------------------------------------------------------

TEXT_PART: Final = structure({"type": word("text"), "text": TEXT}, ["type", "text"])
REFUSAL_PART: Final = structure({"type": word("refusal"), "refusal": TEXT}, ["type", "refusal"])
THINKING_PART: Final = structure(
    {"type": word(THINKING), THINKING: {"description": "As Mistral writes it: a text, or parts of text"}}, ["type"]
)
IMAGE_PART: Final = structure(
    {"type": word("image_url"), "image_url": structure({"url": URL}, ["url"])},
    ["type", "image_url"],
    says="A picture, by its URL, or as a `data:` URL. `detail` is passed over.",
)

PARTS: Final = each({"oneOf": [ref("ChatText"), ref("ChatRefusal")]})
SAID_PARTS: Final = each({"oneOf": [ref("ChatText"), ref("ChatRefusal"), ref("ChatThinking")]})
TEXTS: Final = several(TEXT, PARTS)
SHOWING: Final = several(TEXT, each({"oneOf": [ref("ChatText"), ref("ChatRefusal"), ref("ChatImage")]}))

UNSAID: Final[Mapping[str, Schema]] = {
    "name": maybe(TEXT),
    "audio": NOTHING,
    "function_call": NOTHING,
}

OWN_FIELDS: Final = structure(
    {
        "thoughts": maybe(
            each(
                structure(
                    {
                        "text": maybe(TEXT),
                        "redacted": maybe(FLAG),
                        "id": maybe(TEXT),
                        "signature": maybe(TEXT),
                        "protocol": maybe(TEXT),
                    }
                )
            )
        ),
        "calls": maybe(
            each(structure({"id": TEXT, "signature": maybe(TEXT), "protocol": maybe(TEXT)}, ["id"])),
        ),
    },
    says="What providers want back with a message: send it back as it came.",
)

CALL: Final = structure(
    {
        "id": TEXT,
        "type": maybe(word("function")),
        "function": structure(
            {"name": TEXT, "arguments": {"type": ["string", "object", "null"], "description": "JSON, as a text"}},
            ["name"],
        ),
    },
    ["id", "function"],
)

SYSTEM: Final = structure(
    {
        "role": words("system", "developer"),
        "content": TEXTS,
        "tool_calls": NONE_YET,
        "tool_call_id": NO_WORD,
        **UNSAID,
    },
    ["role", "content"],
)
USER: Final = structure(
    {"role": word("user"), "content": SHOWING, "tool_calls": NONE_YET, "tool_call_id": NO_WORD, **UNSAID},
    ["role", "content"],
)
ASSISTANT: Final = structure(
    {
        "role": word("assistant"),
        "content": several(TEXT, SAID_PARTS, NOTHING),
        "tool_calls": maybe(each(ref("ChatCall"))),
        "tool_call_id": NO_WORD,
        "refusal": {"description": "Read where there is no `content`"},
        "reasoning_content": {
            "description": "Of DeepSeek's and vLLM's form, as `reasoning_details` is of OpenRouter's"
        },
        OWN: maybe(OWN_FIELDS),
        **UNSAID,
    },
    ["role"],
)
RESULT: Final = structure(
    {"role": word("tool"), "content": SHOWING, "tool_call_id": NAME, "tool_calls": NONE_YET, **UNSAID},
    ["role", "content", "tool_call_id"],
)

FUNCTION: Final = structure(
    {
        "type": word("function"),
        "function": structure(
            {
                "name": {"type": "string", "pattern": f"^{TOOL_NAME.pattern}$"},
                "description": maybe(TEXT),
                "parameters": maybe(INPUT),
                "strict": maybe(FLAG),
            },
            ["name"],
        ),
    },
    ["type", "function"],
)

FUNCTION_NAME: Final = structure({"name": TEXT}, ["name"])
NAMED: Final = structure({"function": FUNCTION_NAME}, ["function"])
CHOICE: Final = several(
    words(*CHOICES),
    structure({"type": words(*CHOICES)}, ["type"]),
    structure({"type": maybe(word("function")), "function": FUNCTION_NAME}, ["function"]),
    structure(
        {
            "type": word("allowed_tools"),
            "allowed_tools": structure(
                {"mode": maybe(words("auto", "required")), "tools": each(NAMED, minItems=1)}, ["tools"]
            ),
        },
        ["type", "allowed_tools"],
    ),
    NOTHING,
)

FORMAT: Final = {
    "oneOf": [
        structure({"type": word("text")}, ["type"]),
        structure({"type": word("json_object")}, ["type"]),
        structure(
            {
                "type": word("json_schema"),
                "json_schema": structure(
                    {"schema": ANY_OBJECT, "name": maybe(TEXT), "description": maybe(TEXT), "strict": maybe(FLAG)},
                    ["schema"],
                ),
            },
            ["type", "json_schema"],
        ),
        NOTHING,
    ]
}

REQUEST: Final = structure(
    {
        "model": {**NAME, "description": "A configured model, a route, or `wizard`"},
        "messages": each(ref("ChatMessage"), minItems=1),
        "tools": maybe(each(ref("ChatTool"))),
        "tool_choice": CHOICE,
        "parallel_tool_calls": maybe(FLAG, "`false`: one answer calls one tool at most"),
        "response_format": FORMAT,
        "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
        "top_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "max_completion_tokens": {"type": ["integer", "null"], "minimum": 1},
        "max_tokens": {"type": ["integer", "null"], "minimum": 1, "description": "The old name of that"},
        "stop": {"type": ["string", "array", "null"], "items": TEXT},
        "seed": maybe(WHOLE),
        "stream": maybe(FLAG, "whether the answer comes in pieces, as server-sent events"),
        "stream_options": maybe(structure({"include_usage": maybe(FLAG)})),
        "n": {"enum": [1, None]},
        "audio": NOTHING,
        "function_call": {"enum": [*OLD_CHOICES, None]},
        "functions": NONE_YET,
        "logprobs": {"enum": [False, None]},
        "top_logprobs": {"enum": [0, None]},
        "modalities": {"enum": [["text"], None]},
    },
    ["model", "messages"],
    says="Any other field goes to the model's provider as it is, where the key allows that.",
)

# -- what is written ---------------------------------------------------------------------------------

USAGE: Final = structure(
    {
        "prompt_tokens": WHOLE,
        "completion_tokens": WHOLE,
        "total_tokens": WHOLE,
        "prompt_tokens_details": structure({"cached_tokens": WHOLE, "cache_write_tokens": WHOLE}),
        "completion_tokens_details": structure({"reasoning_tokens": WHOLE}),
    },
    ["prompt_tokens", "completion_tokens", "total_tokens"],
)

ANSWER: Final = structure(
    {
        "id": TEXT,
        "object": word("chat.completion"),
        "created": WHOLE,
        "model": {**TEXT, "description": "The model that answered"},
        "choices": each(
            structure(
                {
                    "index": {"const": 0},
                    "message": structure(
                        {
                            "role": word("assistant"),
                            "content": maybe(TEXT),
                            "refusal": NOTHING,
                            "annotations": {"type": "array", "maxItems": 0},
                            "reasoning_content": TEXT,
                            "tool_calls": each(ref("ChatCall"), minItems=1),
                            OWN: OWN_FIELDS,
                        },
                        ["role", "content"],
                    ),
                    "logprobs": NOTHING,
                    "finish_reason": words(*sorted(set(FINISH_WORDS.values()))),
                },
                ["index", "message", "finish_reason"],
            ),
            minItems=1,
            maxItems=1,
        ),
        "usage": USAGE,
    },
    ["id", "object", "created", "model", "choices"],
)

ERROR: Final = structure(
    {
        "error": structure(
            {
                "message": TEXT,
                "type": words("invalid_request_error", "requests", "server_error"),
                "param": maybe(TEXT, "the place in the body"),
                "code": TEXT,
                OWN: structure(
                    {
                        "code": {**TEXT, "description": "Ours, which is stable"},
                        "request_id": TEXT,
                        "retry_after": {"type": "number", "minimum": 0},
                        "attempts": each(
                            structure(
                                {"model": TEXT, "error": maybe(TEXT), "seconds": {"type": "number"}},
                                ["model", "error", "seconds"],
                            )
                        ),
                    },
                    ["code", "request_id"],
                ),
            },
            ["message", "type", "param", "code"],
        )
    },
    ["error"],
)

MODEL: Final = structure(
    {"id": TEXT, "object": word("model"), "created": WHOLE, "owned_by": TEXT}, ["id", "object", "created", "owned_by"]
)

CHAT: Final[Mapping[str, Schema]] = {
    "ChatRequest": REQUEST,
    "ChatMessage": {"oneOf": [SYSTEM, USER, ASSISTANT, RESULT]},
    "ChatText": TEXT_PART,
    "ChatRefusal": REFUSAL_PART,
    "ChatThinking": THINKING_PART,
    "ChatImage": IMAGE_PART,
    "ChatCall": CALL,
    "ChatTool": FUNCTION,
    "ChatAnswer": ANSWER,
    "ChatEvent": structure(
        {"data": DATA},
        ["data"],
        says="A `chat.completion.chunk`, or what a `ChatError` is; the last of a whole answer is `[DONE]`, no JSON.",
    ),
    "ChatError": ERROR,
    "ChatModel": MODEL,
    "ChatModels": structure({"object": word("list"), "data": each(ref("ChatModel"))}, ["object", "data"]),
}
"""The schemas by their names in the document."""
