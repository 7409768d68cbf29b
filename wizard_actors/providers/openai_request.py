"""A prompt as the body of a Chat Completions request, for OpenAI and those compatible with it. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from attrs import evolve, frozen

from wizard_actors.errors import SerializationError, UnsupportedError
from wizard_actors.providers.refusals import ErrorBody
from wizard_actors.types import Content, Image, Message, Prompt, Role, Text, Tool, ToolCall

__all__ = ["Dialect", "request_body", "without_refused_field"]

_encoder = msgspec.json.Encoder()


@frozen
class Dialect:
    """What an upstream understands of the protocol: learned from its refusals, except for `max_tokens_field`.

    `stream`: it can stream; `stream_options`: it can be asked for the usage of a stream.
    """

    stream: bool = True
    stream_options: bool = True
    max_tokens_field: str = "max_tokens"


REFUSES_STREAM: Final = re.compile(
    r"\bstream(?:ing)?\b.*(?:unsupported|support|unknown|unrecogni[sz]ed|allowed|permitted|forbidden|disabled|available)"
    r"|(?:unsupported|support|unknown|unrecogni[sz]ed|allowed|permitted|extra|invalid).*\bstream(?:ing)?\b",
    re.IGNORECASE | re.DOTALL,
)
"""A message that refuses streams; one that merely speaks of a stream ("unexpected end of stream") does not."""


def without_refused_field(dialect: Dialect, refused: ErrorBody, *, keep_stream: bool = False) -> Dialect | None:
    """Return the dialect without the field that a 400 or 422 names, None where it names neither of the two.

    With `keep_stream` the answer has to be a stream, so only `stream_options` may go.
    """
    named = f"{refused.param} {refused.message}"
    if dialect.stream and dialect.stream_options and re.search(r"\bstream_options\b", named):
        return evolve(dialect, stream_options=False)
    if dialect.stream and not keep_stream and (refused.param == "stream" or REFUSES_STREAM.search(refused.message)):
        return evolve(dialect, stream=False)
    return None


def request_body(
    prompt: Prompt, *, model: str, upstream_model: str, dialect: Dialect, extra: Mapping[str, object]
) -> bytes:
    """Return the JSON body that asks `upstream_model` the prompt; `extra`, then the prompt's own, overrule the rest.

    Raises `UnsupportedError` for what the protocol has no place for, `SerializationError` for what JSON has none for;
    both name `model`, the configured name.
    """
    try:
        return _encoder.encode({**_fields(prompt, model, upstream_model, dialect), **extra, **prompt.extra})
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SerializationError(
            f"{model}: the request cannot be written as JSON: {error}; look at the tools, the schema and `extra`"
        ) from error


def _fields(prompt: Prompt, model: str, upstream_model: str, dialect: Dialect) -> dict[str, object]:
    fields: dict[str, object] = {
        "model": upstream_model,
        "messages": [_message(message, model) for message in prompt.conversation],
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
        fields["response_format"] = _response_format(prompt.response_schema)
    wished = {
        dialect.max_tokens_field: prompt.max_tokens,
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "seed": prompt.seed,
        "stop": prompt.stop or None,
    }
    fields.update({name: value for name, value in wished.items() if value is not None})
    return fields


# -- messages ----------------------------------------------------------------------------------------


def _message(message: Message, model: str) -> dict[str, object]:
    shown: dict[str, object] = {"role": message.role.value, "content": _content(message.content, message.role, model)}
    if message.name is not None:
        shown["name"] = message.name
    if message.tool_calls:
        shown["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
        if not message.content:
            shown["content"] = None  # an assistant that only calls tools says nothing
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
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


def _tool_call(call: ToolCall) -> dict[str, object]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


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


def _response_format(schema: Mapping[str, object]) -> dict[str, object]:
    title = schema.get("title")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", title)[:64] if isinstance(title, str) and title else "answer"
    asked: dict[str, object] = {"name": name, "schema": schema}
    if _is_strict(schema):
        asked["strict"] = True
    return {"type": "json_schema", "json_schema": asked}


def _is_strict(schema: object) -> bool:
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
        return all(_is_strict(inner) for inner in schema.values())
    if isinstance(schema, (list, tuple)):
        return all(_is_strict(inner) for inner in schema)
    return True
