"""Recorded Chat Completions requests: said in our types and written again, they mean the same."""

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from attrs import frozen

from tests.recordings import recorded, replayed
from wizard_actors.config import ReasoningField
from wizard_actors.providers.openai_chunks import ChunkReader
from wizard_actors.providers.openai_request import Dialect, request_body
from wizard_actors.types import Image, Message, Prompt, Role, Text, Thought, Tool, ToolCall

REASONING: Sequence[ReasoningField] = ("reasoning_details", "reasoning_content", "reasoning")
ROLES = {"developer": Role.SYSTEM, **{role.value: role for role in Role}}
BOUNDS = ("max_tokens", "max_completion_tokens")
MESSAGE_FIELDS = {"role", "content", "name", "tool_calls", "tool_call_id", *REASONING}
FUNCTION_FIELDS = {"name", "description", "parameters", "strict"}
OUR_FIELDS = {"model", "messages", "stream", "stream_options", "tools", "tool_choice", "response_format", *BOUNDS}
SAME_NAME = ("temperature", "top_p", "seed")

Json = dict[str, object]


class NotSayableError(Exception):
    """Our types have no place for this."""


@frozen
class Said:
    """A request in our types: `extra` are the fields that only an escape hatch takes."""

    prompt: Prompt
    dialect: Dialect
    extra: Json


# -- from the wire to our types ------------------------------------------------------------------------


def said(request: Json) -> Said:
    """Return the request in our types. Raises `NotSayableError`."""
    request = {name: value for name, value in request.items() if value is not None}
    messages = objects(request["messages"])
    bounds = [name for name in BOUNDS if name in request]
    extra = {name: value for name, value in request.items() if name not in {*OUR_FIELDS, *SAME_NAME, "stop"}}
    schema = schema_of(request.get("response_format"))
    if schema is None and "response_format" in request:
        extra["response_format"] = request["response_format"]
    dialect = Dialect(
        stream=bool(request.get("stream")),
        stream_options=request.get("stream_options") == {"include_usage": True},
        max_tokens_field="max_completion_tokens" if "max_completion_tokens" in request else "max_tokens",
        reasoning_field=next((name for name in REASONING if any(message.get(name) for message in messages)), None),
    )
    fields = {name: request[name] for name in SAME_NAME if name in request}
    prompt = Prompt(
        [message_of(message) for message in messages],
        tools=[tool_of(tool) for tool in objects(request.get("tools", []))],
        tool_choice=choice_of(request.get("tool_choice")),
        response_schema=schema,
        max_tokens=request[bounds[0]] if bounds else None,  # type: ignore[arg-type]  # recorded, so a number
        stop=request.get("stop", ()),  # type: ignore[arg-type]  # recorded, so texts
        **fields,  # type: ignore[arg-type]  # recorded, so numbers
    )
    return Said(prompt, dialect, extra)


def objects(value: object) -> list[Json]:
    """Return a list of JSON objects."""
    assert isinstance(value, list)
    return value


def message_of(message: Json) -> Message:
    """Return a message in our types. The reasoning in it is read as our parser would have read it."""
    message = {name: value for name, value in message.items() if value not in (None, [])}
    for name in message.keys() - MESSAGE_FIELDS:
        raise NotSayableError(f"{name} in messages")
    if message["role"] != "assistant" and "tool_calls" in message:
        raise NotSayableError("tool_calls of others than assistants")
    content = message.get("content", "")
    return Message(
        ROLES[str(message["role"])],
        content if isinstance(content, str) else [part_of(part) for part in objects(content)],
        tool_calls=[call_of(call) for call in objects(message.get("tool_calls", []))],
        tool_call_id=message.get("tool_call_id"),  # type: ignore[arg-type]  # recorded, so a text
        name=message.get("name"),  # type: ignore[arg-type]  # recorded, so a text
        thoughts=thoughts_of(message),
    )


def part_of(part: Json) -> Text | Image:
    """Return a part of a message's content."""
    if part["type"] == "text" and part.keys() == {"type", "text"}:
        return Text(str(part["text"]))
    image = part.get("image_url")
    if part["type"] != "image_url" or not isinstance(image, dict) or image.keys() != {"url"}:
        raise NotSayableError(f"parts of type {part['type']}")
    data = re.fullmatch(r"data:([\w/+.-]+);base64,(.*)", image["url"])
    return Image(data=base64.b64decode(data[2]), media_type=data[1]) if data else Image(url=image["url"])


def call_of(call: Json) -> ToolCall:
    """Return a call of a tool."""
    function = call["function"]
    assert isinstance(function, dict)
    return ToolCall(str(call["id"]), function["name"], function["arguments"])


def thoughts_of(message: Json) -> Sequence[Thought]:
    """Return the reasoning in an assistant's message."""
    if not any(message.get(name) for name in REASONING):
        return ()
    answer = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    return replayed([answer], ChunkReader).assembly.thoughts


def tool_of(tool: Json) -> Tool:
    """Return a tool."""
    function = tool.get("function")
    if tool["type"] != "function" or not isinstance(function, dict) or function.keys() - FUNCTION_FIELDS:
        raise NotSayableError("tools that are no functions")
    return Tool(
        function["name"],
        function.get("description", ""),
        function.get("parameters", {}),
        strict=bool(function.get("strict")),
    )


def choice_of(choice: object) -> str | None:
    """Return the choice of a tool."""
    if isinstance(choice, dict):
        return str(choice["function"]["name"])
    return None if choice is None else str(choice)


def schema_of(wanted: object) -> Json | None:
    """Return the schema of a wanted answer, None where our way of asking for it would say something else."""
    if not isinstance(wanted, dict) or wanted["type"] != "json_schema":
        return None
    asked = wanted["json_schema"]
    schema: Json = asked["schema"]
    ours = json.loads(
        request_body(Prompt("x", response_schema=schema), model="", upstream_model="", dialect=Dialect(), extra={})
    )
    return schema if meaning(ours["response_format"]["json_schema"]) == meaning(asked) else None


# -- what a request means ------------------------------------------------------------------------------


def meaning(request: Json) -> Json:
    """Return the request without differences that make none: what is null or the default, other names of the same."""
    plain = {name: value for name, value in request.items() if value is not None and value is not False}
    for name in BOUNDS:
        if name in plain:
            plain["max_tokens"] = plain.pop(name)
    if isinstance(plain.get("stop"), str):
        plain["stop"] = [plain["stop"]]
    if "messages" in plain:
        plain["messages"] = [message_meaning(message) for message in objects(plain["messages"])]
    if "tools" in plain:
        plain["tools"] = [meaning_of_tool(tool) for tool in objects(plain["tools"])]
    return plain


def message_meaning(message: Json) -> Json:
    """Return the meaning of a message: OpenAI takes `developer` and `system` as the same."""
    plain = {name: value for name, value in message.items() if value not in (None, [], "")}
    if plain["role"] == "developer":
        plain["role"] = "system"
    content = plain.get("content")
    if isinstance(content, list) and [part.get("type") for part in content] == ["text"]:
        plain["content"] = content[0]["text"]
    if "reasoning_details" in plain:
        plain.pop("reasoning", None)  # the same text again
    return plain


def meaning_of_tool(tool: Json) -> Json:
    """Return the meaning of a tool."""
    function = tool["function"]
    assert isinstance(function, Mapping)
    return {**tool, "function": {name: value for name, value in function.items() if value not in (False, "", {})}}


def written(request: Json, ours: Said, extra: Json) -> Json:
    """Return the request that we write."""
    body = request_body(
        ours.prompt, model="primary", upstream_model=str(request["model"]), dialect=ours.dialect, extra=extra
    )
    read: Json = json.loads(body)
    return read


# -- the share -----------------------------------------------------------------------------------------


def test_nearly_every_recorded_request_can_be_said(recordings: Path, report_line: Callable[[str], None]) -> None:
    """By our types alone, or with `extra` for single fields; what is left is counted by its reason."""
    by = Counter[str]()
    needed, unsayable = Counter[str](), Counter[str]()
    for recording in recorded(recordings, "openai-chat"):
        request = recording.request
        try:
            ours = said(request)
        except NotSayableError as reason:
            by["not sayable"] += 1
            unsayable[str(reason)] += 1
            continue
        assert meaning(written(request, ours, ours.extra)) == meaning(request), recording.name
        by["with extra" if ours.extra else "by our types alone"] += 1
        needed.update(list(ours.extra))
    total = by.total()
    shares = ", ".join(f"{way} {count} ({count / total:.1%})" for way, count in by.most_common())
    report_line(f"recorded chat requests: {shares}")
    report_line(f"  in extra: {', '.join(f'{name} {count}' for name, count in needed.most_common())}")
    report_line(f"  not sayable: {', '.join(f'{why} {count}' for why, count in unsayable.most_common())}")
    assert total == 659
    assert by["not sayable"] <= total * 0.1


def test_a_difference_in_meaning_is_seen(recordings: Path) -> None:
    """The comparison would notice a message, a tool or a number that was lost on the way."""
    request = next(each.request for each in recorded(recordings, "openai-chat") if "tools" in each.request)
    ours = written(request, said(request), {})
    changed: list[Json] = [
        {**ours, "messages": objects(ours["messages"])[1:]},
        {**ours, "tools": [{"type": "function", "function": {"name": "other"}}]},
        {**ours, "temperature": 0.123},
    ]
    for other in changed:
        assert meaning(other) != meaning(ours)


@pytest.mark.parametrize("name", ["cache_control", "audio"])
def test_what_has_no_place_is_not_said(name: str) -> None:
    """And so counted, rather than lost."""
    with pytest.raises(NotSayableError, match=name):
        said({"model": "m", "messages": [{"role": "user", "content": "x", name: {"type": "x"}}]})
