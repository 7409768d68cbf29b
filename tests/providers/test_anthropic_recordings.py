"""Recorded Messages traffic: answers read as the official SDK reads them, requests built again from our types."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anthropic
import httpx2  # what the official SDK speaks HTTP with
import pytest
from anthropic.types import Message as SdkMessage
from attrs import frozen

from tests.recordings import CUTS, Recording, recorded, replayed
from wizard_actors.providers.anthropic_events import EventReader
from wizard_actors.providers.anthropic_request import request_body
from wizard_actors.streaming import Assembly
from wizard_actors.types import (
    FinishReason,
    Image,
    Message,
    Prompt,
    Role,
    Signature,
    Text,
    Thought,
    TokenUsage,
    Tool,
    ToolCall,
)

# -- answers -----------------------------------------------------------------------------------------

FINISH = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
}


@frozen
class Reading:
    """What an answer says; arguments are decoded."""

    text: str
    thoughts: tuple[Thought, ...]
    calls: tuple[tuple[str, str, object], ...]
    usage: TokenUsage | None
    finish: FinishReason | None
    raw_finish: str | None
    model: str | None


def read_by_the_sdk(recording: Recording) -> SdkMessage:
    """Return what the official SDK makes of a recorded answer, without a network."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            recording.status, headers={"content-type": recording.headers["content-type"]}, content=recording.body
        )

    with anthropic.Anthropic(
        api_key="none", http_client=httpx2.Client(transport=httpx2.MockTransport(answer)), max_retries=0
    ) as client:
        if not recording.stream:
            return client.messages.create(model="any", max_tokens=1, messages=[{"role": "user", "content": "?"}])
        with client.messages.stream(model="any", max_tokens=1, messages=[{"role": "user", "content": "?"}]) as stream:
            return stream.get_final_message()


def sdk_reading(message: SdkMessage) -> Reading:
    """Return what an SDK's message says."""
    texts, thoughts, calls = list[str](), list[Thought](), list[tuple[str, str, object]]()
    for block in message.content:
        match block.type:
            case "text":
                texts.append(block.text)
            case "thinking":
                thoughts.append(Thought(block.thinking, Signature("anthropic", block.signature)))
            case "redacted_thinking":
                thoughts.append(Thought("", Signature("anthropic", block.data), redacted=True))
            case "tool_use":
                calls.append((block.id, block.name, block.input))
    usage = message.usage
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    details = usage.output_tokens_details
    raw = message.stop_reason
    return Reading(
        text="".join(texts),
        thoughts=tuple(thoughts),
        calls=tuple(calls),
        usage=TokenUsage(
            input_tokens=usage.input_tokens + cached + written,
            output_tokens=usage.output_tokens,
            cached_tokens=cached,
            cache_write_tokens=written,
            reasoning_tokens=0 if details is None else details.thinking_tokens,
        ),
        finish=None if raw is None else FINISH[raw],
        raw_finish=raw,
        model=message.model,
    )


def our_reading(assembly: Assembly, model: str | None) -> Reading:
    """Return what we read."""
    finished = assembly.finished
    return Reading(
        text=assembly.text,
        thoughts=assembly.thoughts,
        calls=tuple((call.id, call.name, json.loads(call.arguments)) for call in assembly.tool_calls),
        usage=assembly.usage,
        finish=None if finished is None else finished.reason,
        raw_finish=None if finished is None else finished.raw,
        model=model,
    )


@pytest.fixture(scope="module")
def readings(recordings: Path) -> Sequence[tuple[Recording, Reading]]:
    """Return each recorded exchange with what the SDK makes of its answer."""
    return [(each, sdk_reading(read_by_the_sdk(each))) for each in recorded(recordings, "anthropic-messages")]


@pytest.mark.parametrize("cut", CUTS)
def test_recorded_answers_read_as_the_sdk_reads_them(readings: Sequence[tuple[Recording, Reading]], cut: str) -> None:
    """Text, thoughts, tool calls, finish reason, usage and model, however the bytes arrive."""
    for recording, expected in readings:
        pieces = CUTS[cut](recording.body)
        content_type = recording.headers.get("content-type", "")
        found = replayed(pieces, EventReader, status=recording.status, content_type=content_type)
        assert our_reading(found.assembly, found.model) == expected, recording.name
        assert found.ended or not recording.stream, recording.name
    assert len(readings) == 89


def test_a_recorded_stream_cut_anywhere_before_its_stop_reason_does_not_finish(recordings: Path) -> None:
    """The end of the body alone completes nothing."""
    for recording in recorded(recordings, "anthropic-messages"):
        if recording.stream:
            events = recording.body.split(b"event: message_delta")[0]
            for end in range(0, len(events), max(1, len(events) // 20)):
                content_type = "text/event-stream"
                found = replayed([events[:end]], EventReader, content_type=content_type)
                assert found.assembly.finished is None, recording.name


# -- requests ----------------------------------------------------------------------------------------

TYPED = frozenset(
    {"model", "messages", "max_tokens", "stream", "system", "tools", "tool_choice", "temperature", "top_p"}
    | {"stop_sequences", "output_config", "output_format"}
)
"""The fields that our types have words for; any other has to go through `extra`."""

Json = dict[str, Any]  # as JSON comes, whose shape the recordings have


class Unsayable(Exception):  # noqa: N818 - it is no error, but what a test counts
    """Our types have no words for a part of the request."""


def texts_of(content: object) -> Iterator[Json]:
    """Yield the blocks of a content, whose text alone is one block."""
    blocks: Any = [{"type": "text", "text": content}] if isinstance(content, str) else content
    yield from blocks


def only(block: Json, *names: str) -> Json:
    """Return a block that has these fields only."""
    if unknown := {name for name, value in block.items() if value is not None} - {"type", *names}:
        raise Unsayable(", ".join(sorted(unknown)))
    return block


def part_of(block: Json) -> Text | Image:
    """Return a part of a content."""
    if block["type"] == "text":
        return Text(only(block, "text")["text"])
    if block["type"] != "image":
        raise Unsayable(block["type"])
    source = only(block, "source")["source"]
    if source["type"] == "url":
        return Image(url=source["url"])
    return Image(url=f"data:{source['media_type']};base64,{source['data']}")


def messages_of(message: Json) -> Iterator[Message]:
    """Yield one recorded message as ours: each result of a tool is one of its own."""
    blocks = list(texts_of(message["content"]))
    if message["role"] == "assistant":
        yield Message(
            Role.ASSISTANT,
            [part_of(block) for block in blocks if block["type"] not in {"tool_use", "thinking"}],
            tool_calls=[
                ToolCall(block["id"], block["name"], json.dumps(only(block, "id", "name", "input")["input"]))
                for block in blocks
                if block["type"] == "tool_use"
            ],
            thoughts=[
                Thought(block["thinking"], Signature("anthropic", block["signature"]))
                for block in blocks
                if block["type"] == "thinking"
            ],
        )
        return
    for block in blocks:
        if block["type"] == "tool_result":
            only(block, "tool_use_id", "content", "is_error")
            parts = [part_of(each) for each in texts_of(block.get("content", []))]
            failed = block.get("is_error", False)
            yield Message(Role.TOOL, parts, tool_call_id=block["tool_use_id"], is_error=failed)
    if rest := [part_of(block) for block in blocks if block["type"] != "tool_result"]:
        yield Message(Role.USER, rest)


def tool_of(tool: Json) -> Tool:
    """Return a tool of ours."""
    only(tool, "name", "description", "input_schema", "strict")
    if "input_schema" not in tool:
        raise Unsayable(str(tool["type"]))  # one that Anthropic defines
    return Tool(tool["name"], tool.get("description", ""), tool["input_schema"], strict=tool.get("strict", False))


def choice_of(choice: Json) -> str:
    """Return the word for a tool choice."""
    if choice.get("disable_parallel_tool_use"):
        raise Unsayable("disable_parallel_tool_use")
    kind = str(choice["type"])
    words: dict[str, str] = {"any": "required", "tool": choice.get("name", "")}
    return words.get(kind, kind)


def schema_of(request: Json) -> Json | None:
    """Return the schema of the answer, be it under the name that it had as a beta."""
    asked = request.get("output_format") or only(request.get("output_config") or {}, "format").get("format")
    return None if asked is None else asked["schema"]


def prompt_of(request: Json, *, with_extra: bool) -> Prompt:
    """Return the prompt that says what a recorded request says, with what is left in `extra` or without it.

    Raises `Unsayable` where it cannot.
    """
    left = {name: value for name, value in request.items() if name not in TYPED}

    system, tools, choice = "", list[Tool](), None
    try:
        system = "\n\n".join(only(each, "text")["text"] for each in texts_of(request.get("system", [])))
    except Unsayable:
        left["system"] = request["system"]
    try:
        tools = [tool_of(tool) for tool in request.get("tools", ())]
    except Unsayable:
        left["tools"] = request["tools"]
    try:
        choice = choice_of(request["tool_choice"]) if "tool_choice" in request else None
    except Unsayable:
        left["tool_choice"] = request["tool_choice"]
    messages = request["messages"]
    if mark := _last_block(messages).get("cache_control"):
        left["cache_control"] = mark
        messages = _with_last_block(messages, cache_control=None)
    if left and not with_extra:
        raise Unsayable(", ".join(left))
    return Prompt(
        [each for message in messages for each in messages_of(message)],
        system=system or None,
        tools=tools,
        tool_choice=choice,
        response_schema=schema_of(request),
        temperature=request.get("temperature"),
        top_p=request.get("top_p"),
        max_tokens=request["max_tokens"],
        stop=request.get("stop_sequences", ()),
        extra=left,
    )


def _last_block(messages: Sequence[Json]) -> Json:
    return list(texts_of(messages[-1]["content"]))[-1]


def _with_last_block(messages: Sequence[Json], **fields: object) -> list[Json]:
    """Return the messages, the last block of the last one with these fields."""
    *blocks, last = texts_of(messages[-1]["content"])
    return [*messages[:-1], {**messages[-1], "content": [*blocks, {**last, **fields}]}]


def meaning(request: Json) -> Json:
    """Return a request in the one form that stands for all that mean the same."""
    shown = {**request}
    if shown.pop("output_format", None) is not None:
        shown["output_config"] = {"format": request["output_format"]}
    if "system" in shown:
        shown["system"] = list(texts_of(shown["system"]))
    if shown.get("tool_choice", {}).get("disable_parallel_tool_use") is False:
        shown["tool_choice"] = {k: v for k, v in shown["tool_choice"].items() if k != "disable_parallel_tool_use"}
    if "tools" in shown:  # a description that is empty says nothing
        shown["tools"] = [{k: v for k, v in tool.items() if v or k != "description"} for tool in shown["tools"]]
    if not shown.get("stream"):
        shown.pop("stream", None)
    if mark := shown.pop("cache_control", None):  # above the messages it is the mark of their last block
        shown["messages"] = _with_last_block(shown["messages"], cache_control=mark)
    shown["messages"] = [_meaning_of_message(message) for message in shown["messages"]]
    return shown


def _meaning_of_message(message: Mapping[str, Any]) -> Json:
    blocks = [dict(block) for block in texts_of(message["content"])]
    for block in blocks:
        if "content" in block:
            block["content"] = list(texts_of(block["content"]))
        if not block.get("is_error", True):
            del block["is_error"]
    return {**message, "content": blocks}


def rebuilt(recording: Recording, *, with_extra: bool) -> str:
    """Return "" where a recorded request is built again from our types, else what they cannot say."""
    request: Json = recording.request
    try:
        prompt = prompt_of(request, with_extra=with_extra)
    except Unsayable as unsayable:
        return str(unsayable)
    stream = bool(request.get("stream"))
    sent = request_body(prompt, model="primary", upstream_model=request["model"], stream=stream, extra={})
    assert meaning(json.loads(sent)) == meaning(request), recording.name
    return ""


def test_recorded_requests_are_built_again(recordings: Path, report_line: Callable[[str], None]) -> None:
    """Wherever our types can say what was asked, what is sent means the same; and nearly everywhere they can."""
    everything = list(recorded(recordings, "anthropic-messages"))
    alone = [rebuilt(recording, with_extra=False) for recording in everything]
    with_extra = [rebuilt(recording, with_extra=True) for recording in everything]
    total, typed, extended = len(everything), alone.count(""), with_extra.count("")
    report_line(
        f"anthropic requests built again: {typed} of {total} ({typed / total:.0%}) by typed fields alone, "
        f"{extended} of {total} ({extended / total:.0%}) with extra"
    )
    assert extended / total >= 0.9, sorted(filter(None, with_extra))
    assert typed / total >= 0.5, sorted(filter(None, alone))
