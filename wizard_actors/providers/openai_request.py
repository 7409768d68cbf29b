"""A prompt as the body of a Chat Completions request, for OpenAI and those compatible with it. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from attrs import frozen

from wizard_actors.config import MaxTokensField, ReasoningField, SeedField
from wizard_actors.errors import SerializationError, UnsupportedError
from wizard_actors.providers.openai_chunks import DETAIL_TEXTS, PROTOCOL
from wizard_actors.types import Content, Image, Message, Prompt, Role, Text, Thought, Tool, ToolCall

__all__ = ["Dialect", "is_strict", "request_body", "schema_format"]

_encoder = msgspec.json.Encoder()

BOUNDS: Final = frozenset({"max_tokens", "max_completion_tokens"})

TOOL_ID_SIZE: Final = 9
"""Characters of the id that a tool call is given in place of one that the upstream would refuse: all take that many."""


@frozen
class Dialect:
    """What an upstream understands of the protocol.

    `stream`: it can stream; `stream_options`: it can be asked for the usage of a stream. `max_tokens_learned`: its own
    refusal has told the `max_tokens_field`. The rest is the preset's, see `wizard_actors.config.Preset`.
    """

    stream: bool = True
    stream_options: bool = True
    max_tokens_field: MaxTokensField = "max_tokens"
    max_tokens_learned: bool = False
    seed_field: SeedField = "seed"
    reasoning_field: ReasoningField | None = None
    tool_ids: str = "(?s:.*)"


def request_body(
    prompt: Prompt, *, model: str, upstream_model: str, dialect: Dialect, extra: Mapping[str, object]
) -> bytes:
    """Return the JSON body that asks `upstream_model` the prompt; `extra`, then the prompt's own, overrule the rest.

    Raises `UnsupportedError` for what the protocol has no place for, `SerializationError` for what JSON has none for;
    both name `model`, the configured name.
    """
    try:
        fields, overruling = _fields(prompt, model, upstream_model, dialect), {**extra, **prompt.extra}
        if not BOUNDS.isdisjoint(overruling):
            fields.pop(dialect.max_tokens_field, None)  # under both names it would be refused
        return _encoder.encode({**fields, **overruling})
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SerializationError(
            f"{model}: the request cannot be written as JSON: {error}; look at the tools, the schema and `extra`"
        ) from error


def _fields(prompt: Prompt, model: str, upstream_model: str, dialect: Dialect) -> dict[str, object]:
    fields: dict[str, object] = {
        "model": upstream_model,
        "messages": [_message(message, model, dialect) for message in prompt.conversation],
    }
    if dialect.stream:
        fields["stream"] = True
        if dialect.stream_options:
            fields["stream_options"] = {"include_usage": True}
    if prompt.tools:
        fields["tools"] = [_tool(tool) for tool in prompt.tools]
    if prompt.tool_choice is not None:
        fields["tool_choice"] = _tool_choice(prompt.tool_choice)
    if prompt.response_schema is not None:
        fields["response_format"] = {"type": "json_schema", "json_schema": schema_format(prompt.response_schema)}
    wished = {
        dialect.max_tokens_field: prompt.max_tokens,
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        dialect.seed_field: prompt.seed,
        "stop": prompt.stop or None,
    }
    fields.update({name: value for name, value in wished.items() if value is not None})
    return fields


# -- messages ----------------------------------------------------------------------------------------


def _message(message: Message, model: str, dialect: Dialect) -> dict[str, object]:
    shown: dict[str, object] = {"role": message.role.value, "content": _content(message.content, message.role, model)}
    if message.name is not None:
        shown["name"] = message.name
    if message.role is Role.ASSISTANT and dialect.reasoning_field is not None:
        shown.update(_reasoning(message, dialect.reasoning_field))
    if message.tool_calls:
        shown["tool_calls"] = [_tool_call(call, dialect) for call in message.tool_calls]
        if not message.content:
            shown["content"] = None  # an assistant that only calls tools says nothing
    if message.tool_call_id is not None:
        shown["tool_call_id"] = _tool_id(message.tool_call_id, dialect)
    return shown


def _content(content: Content, role: Role, model: str) -> str | list[dict[str, object]]:
    if isinstance(content, str):
        return content
    if role is not Role.USER and any(isinstance(part, Image) for part in content):
        raise UnsupportedError(
            f"{model}: an image can only stand in a user message, not in one of the {role.value}",
            feature="images outside user messages",
            model=model,
        )
    return [_part(part) for part in content]


def _part(part: Text | Image) -> dict[str, object]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    url = part.url
    if url is None:
        url = f"data:{part.media_type};base64,{base64.b64encode(part.data or b'').decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _tool_call(call: ToolCall, dialect: Dialect) -> dict[str, object]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": _tool_id(call.id, dialect), "type": "function", "function": function}


def _tool_id(call_id: str, dialect: Dialect) -> str:
    """Return the id as the upstream takes it: a conversation that another provider began has ids of its kind."""
    if re.fullmatch(dialect.tool_ids, call_id):
        return call_id
    return hashlib.blake2b(call_id.encode(errors="replace"), digest_size=5).hexdigest()[:TOOL_ID_SIZE]


# -- reasoning that goes back ------------------------------------------------------------------------


def _reasoning(message: Message, field: ReasoningField) -> dict[str, object]:
    if field == "reasoning_details":
        details = [detail for thought in message.thoughts if (detail := _detail(thought)) is not None]
        if details:
            return {field: details}
        field = "reasoning"
        text = "".join(thought.text for thought in message.thoughts if thought.signature is None)
    else:
        text = "".join(thought.text for thought in message.thoughts)
    if text or (message.tool_calls and field == "reasoning_content"):
        return {field: text}  # DeepSeek refuses a call of a tool without the field, empty as it may be
    return {}


def _detail(thought: Thought) -> dict[str, object] | None:
    """Return the thought as it came in `reasoning_details`, None for one that did not."""
    if thought.signature is None or thought.signature.protocol != PROTOCOL:
        return None
    try:
        detail = msgspec.json.decode(thought.signature.value, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError):
        return None
    place = DETAIL_TEXTS.get(str(detail.get("type")))
    return {**detail, place: thought.text} if place is not None and thought.text else detail


# -- tools and schemas -------------------------------------------------------------------------------


def _tool(tool: Tool) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = tool.parameters
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(choice: str) -> object:
    if choice in {"auto", "none", "required"}:
        return choice
    return {"type": "function", "function": {"name": choice}}


def schema_format(schema: Mapping[str, object]) -> dict[str, object]:
    """Return how OpenAI's protocols are told of the schema that an answer has to follow: `{name, schema, strict}`."""
    title = schema.get("title")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", title)[:64] if isinstance(title, str) and title else "answer"
    asked: dict[str, object] = {"name": name, "schema": schema}
    if is_strict(schema):
        asked["strict"] = True
    return asked


def is_strict(schema: object) -> bool:
    """Whether OpenAI takes the schema as strict: every object lists all its properties as required, and no others.

    Strict ones it guarantees; to one that does not qualify it would answer with a 400.
    """
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        if properties is not None or schema.get("type") == "object":
            required = schema.get("required")
            names = set(properties) if isinstance(properties, Mapping) else set()
            if schema.get("additionalProperties") is not False or not isinstance(required, Sequence):
                return False
            if set(required) != names:
                return False
        return all(is_strict(inner) for inner in schema.values())
    if isinstance(schema, (list, tuple)):
        return all(is_strict(inner) for inner in schema)
    return True
