"""A prompt as the body of a Chat Completions request, for OpenAI and those compatible with it. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from itertools import takewhile
from typing import Final

import msgspec
from attrs import frozen

from wizard_actors.config import MaxTokensField, ReasoningField, SeedField
from wizard_actors.errors import SerializationError, UnsupportedError
from wizard_actors.providers.extra_fields import extra_for
from wizard_actors.providers.openai_chunks import DETAIL_TEXTS, PROTOCOL
from wizard_actors.providers.proofs import without_thoughts
from wizard_actors.providers.schema_forms import is_strict
from wizard_actors.providers.tool_rounds import fitting_id
from wizard_actors.types import Content, Image, Message, Prompt, Role, Text, Thought, Tool, ToolCall

__all__ = ["Dialect", "request_body", "schema_format"]

_encoder = msgspec.json.Encoder()

SCHEMA_TOLD: Final = "Answer with nothing but one JSON value that follows this JSON Schema:\n"

BOUNDS: Final = frozenset({"max_tokens", "max_completion_tokens"})


@frozen
class Dialect:
    """What an upstream understands of the protocol.

    `stream`: it can stream; `stream_options`: it can be asked for the usage of a stream. `max_tokens_learned`: its own
    refusal has told the `max_tokens_field`. `thoughts`: reasoning goes back in the `reasoning_field`, if there is one;
    one call is made without where it is refused. The rest is the preset's, see `wizard_actors.config.Preset`.
    """

    stream: bool = True
    stream_options: bool = True
    max_tokens_field: MaxTokensField = "max_tokens"
    max_tokens_learned: bool = False
    thoughts: bool = True
    seed_field: SeedField = "seed"
    reasoning_field: ReasoningField | None = None
    tool_ids: str = "(?s:.*)"
    json_schema: bool = True


def request_body(
    prompt: Prompt, *, model: str, upstream_model: str, dialect: Dialect, extra: Mapping[str, object]
) -> bytes:
    """Return the JSON body that asks `upstream_model` the prompt; `extra`, then the prompt's own, overrule the rest.

    Raises `UnsupportedError` for what the protocol has no place for, `SerializationError` for what JSON has none for;
    both name `model`, the configured name.
    """
    try:
        fields = _fields(prompt, model, upstream_model, dialect)
        overruling = {**extra, **extra_for(prompt, PROTOCOL)}
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
        "messages": [_message(message, model, dialect) for message in _conversation(prompt, dialect)],
    }
    if dialect.stream:
        fields["stream"] = True
        if dialect.stream_options:
            fields["stream_options"] = {"include_usage": True}
    if prompt.tools:
        fields["tools"] = [_tool(tool) for tool in prompt.tools]
        if prompt.parallel_tool_calls is not None:  # refused where there are no tools
            fields["parallel_tool_calls"] = prompt.parallel_tool_calls
    if prompt.tool_choice is not None:
        fields["tool_choice"] = _tool_choice(prompt.tool_choice)
    if prompt.response_schema is not None:
        fields["response_format"] = _response_format(prompt.response_schema, dialect)
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


def _conversation(prompt: Prompt, dialect: Dialect) -> tuple[Message, ...]:
    """Return the messages to send. A schema that the upstream has no field for is told by a system message, after
    those that begin the conversation.
    """
    messages = prompt.conversation if dialect.thoughts else without_thoughts(prompt.conversation)
    if prompt.response_schema is None or dialect.json_schema:
        return messages
    told = Message(Role.SYSTEM, SCHEMA_TOLD + _encoder.encode(prompt.response_schema).decode())
    start = sum(1 for _ in takewhile(lambda message: message.role is Role.SYSTEM, messages))
    return (*messages[:start], told, *messages[start:])


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
        shown["tool_call_id"] = fitting_id(message.tool_call_id, dialect.tool_ids)
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
    return {"id": fitting_id(call.id, dialect.tool_ids), "type": "function", "function": function}


# -- reasoning that goes back ------------------------------------------------------------------------


def _reasoning(message: Message, field: ReasoningField) -> dict[str, object]:
    if field == "reasoning_details":
        details = [detail for thought in message.thoughts if (detail := _detail(thought)) is not None]
        if details:
            return {field: details}
        field = "reasoning"
        text = "".join(thought.text for thought in message.thoughts if thought.signature is None)
    else:
        # What others have signed is theirs: the model would take it for its own.
        own = (thought for thought in message.thoughts if _is_ours_or_nobodys(thought))
        text = "".join(thought.text for thought in own)
    if text or (message.tool_calls and field == "reasoning_content"):
        return {field: text}  # DeepSeek refuses a call of a tool without the field, empty as it may be
    return {}


def _is_ours_or_nobodys(thought: Thought) -> bool:
    return thought.signature is None or thought.signature.protocol == PROTOCOL


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


def _response_format(schema: Mapping[str, object], dialect: Dialect) -> dict[str, object]:
    if dialect.json_schema:
        return {"type": "json_schema", "json_schema": schema_format(schema)}
    return {"type": "json_object"}


def _tool(tool: Tool) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = tool.parameters
    if tool.strict and is_strict(tool.parameters):
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
