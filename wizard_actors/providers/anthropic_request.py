"""A prompt as the body of a Messages request. Pure.

What sets the protocol apart from a conversation as our types have it:

- There is one system text, above the conversation: all system messages are joined there, in order, parted by a blank
  line. So one from the middle of a conversation holds from its beginning.
- The user and the assistant take turns: messages of one side that follow each other become one. Tools' results are the
  user's, and stand before anything else that the user says in that turn.
- A text without anything but white space is refused: it is left out, and so is a message that has nothing else. An
  answer that is begun, the conversation's last message, may not end in white space.
- Of thoughts only those go back that Anthropic has signed, before the message's text, and where there is one: no turn
  may end in them. Names of speakers have no place.
- Calls of tools may stand only where tools are offered.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self

import httpx
import msgspec
from attrs import evolve, frozen

from wizard_actors.errors import SerializationError, UnsupportedError
from wizard_actors.providers.anthropic_events import PROTOCOL, EventReader
from wizard_actors.providers.base import Call
from wizard_actors.providers.extra_fields import JSON_TOLD, extra_for, wants_json
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.proofs import refuses_thoughts, without_thoughts
from wizard_actors.providers.refusals import ErrorBody, Head, refuses_stream
from wizard_actors.providers.schema_forms import UnfitSchemaError, anthropic_form
from wizard_actors.providers.tool_rounds import OpenCalls
from wizard_actors.providers.wire import Outgoing
from wizard_actors.types import Image, Message, Prompt, Role, Text, Thought, Tool, ToolCall

__all__ = ["DEFAULT_MAX_TOKENS", "AnthropicWire", "request_body"]

DEFAULT_MAX_TOKENS: Final = 8192
"""The protocol demands a bound for the answer; this one stands where neither prompt nor model names one."""

Block = dict[str, object]

_encoder = msgspec.json.Encoder()
_arguments = msgspec.json.Decoder(dict[str, object])


@frozen(kw_only=True)
class AnthropicWire:
    """The Messages API, a `Wire`: `model` is the upstream's id of the model that is configured as `name`.

    `streams`: it is asked for a stream, until it has refused one. `thoughts`: those that Anthropic has signed go back;
    one call is made without where they are refused. `max_tokens` bounds answers to prompts that do not.
    """

    name: str
    model: str
    url: httpx.URL
    streams: bool = True
    thoughts: bool = True
    max_tokens: int = DEFAULT_MAX_TOKENS
    extra: Mapping[str, object]

    @classmethod
    def of(cls, settings: HttpSettings, url: httpx.URL) -> Self:
        """Return the protocol as a model's settings want it spoken."""
        return cls(
            name=settings.name,
            model=settings.model,
            url=url,
            streams=settings.upstream != "unary",
            max_tokens=DEFAULT_MAX_TOKENS if settings.max_tokens is None else settings.max_tokens,
            extra=settings.extra,
        )

    def request(self, call: Call) -> Outgoing:
        """Return the request; raises what `request_body` raises."""
        body = request_body(
            call.prompt,
            model=self.name,
            upstream_model=self.model,
            stream=self.streams,
            thoughts=self.thoughts,
            max_tokens=self.max_tokens,
            extra=self.extra,
        )
        return Outgoing(self.url, body)

    def reader(self, head: Head) -> EventReader:
        """Return what reads the answer that begins with `head`."""
        return EventReader(head)

    def without(self, refused: ErrorBody, *, keep_stream: bool) -> Self | None:
        """Return the dialect without what a refusal names: the thoughts in the conversation, or streams."""
        if self.thoughts and refuses_thoughts(refused):
            return evolve(self, thoughts=False)
        named = refuses_stream(refused)
        return evolve(self, streams=False) if named and self.streams and not keep_stream else None

    def lasting(self) -> Self:
        """Return the dialect with thoughts again: those of another conversation may be the provider's own."""
        return evolve(self, thoughts=True)


def request_body(
    prompt: Prompt,
    *,
    model: str,
    upstream_model: str,
    stream: bool,
    thoughts: bool = True,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    extra: Mapping[str, object],
) -> bytes:
    """Return the JSON body that asks `upstream_model` the prompt; `extra`, then the prompt's own, overrule the rest.

    But `output_config` in them is added to a response schema, which is part of it, rather than put in its place.
    `max_tokens` bounds the answer where the prompt does not.

    Raises `UnsupportedError` for what the protocol has no place for, `SerializationError` for what JSON has none for;
    both name `model`, the configured name.
    """
    if prompt.seed is not None:
        said = "Anthropic's models take no seed; leave it out, or ask a model of another provider"
        raise UnsupportedError(f"{model}: {said}", feature="seed", model=model)
    fields: dict[str, object] = {
        "model": upstream_model,
        "max_tokens": max_tokens if prompt.max_tokens is None else prompt.max_tokens,
        **({"stream": True} if stream else {}),
    }
    try:
        own = extra_for(prompt, PROTOCOL)
        fields |= _fields(prompt, model, thoughts=thoughts)
        if not prompt.tools and "tools" not in {*extra, *own}:
            fields |= _tools_of(prompt.messages)
        for more in (extra, own):
            config, added = fields.get("output_config"), more.get("output_config")
            fields.update(more)
            if isinstance(config, Mapping) and isinstance(added, Mapping):
                fields["output_config"] = {**config, **added}
        return _encoder.encode(fields)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SerializationError(
            f"{model}: the request cannot be written as JSON: {error}; look at the tools, the schema and `extra`"
        ) from error


def _fields(prompt: Prompt, model: str, *, thoughts: bool) -> dict[str, object]:
    messages = prompt.messages if thoughts else without_thoughts(prompt.messages)
    fields: dict[str, object] = {"messages": _turns(messages, model)}
    system = _system(prompt.conversation, model)
    if wants_json(prompt, PROTOCOL):
        system = f"{system}\n\n{JSON_TOLD}" if system else JSON_TOLD
    if system:
        fields["system"] = system
    if prompt.tools:
        fields["tools"] = [_tool(tool) for tool in prompt.tools]
    one_call = prompt.parallel_tool_calls is False and bool(prompt.tools)
    if prompt.tool_choice is not None or one_call:
        fields["tool_choice"] = _tool_choice(prompt.tool_choice or "auto", one_call=one_call)
    if prompt.response_schema is not None:
        fields["output_config"] = {"format": {"type": "json_schema", "schema": _form(prompt.response_schema, model)}}
    wished = {"temperature": prompt.temperature, "top_p": prompt.top_p, "stop_sequences": prompt.stop or None}
    fields.update({name: value for name, value in wished.items() if value is not None})
    return fields


class _Ids:
    """The ids of a conversation's tool calls, as the protocol takes them.

    It takes letters, digits, `_` and `-`, and each id but once; a conversation that another provider had a part in may
    have more, and the same in one answer after the other.
    """

    def __init__(self) -> None:
        self._calls = OpenCalls[str]()
        self._times: Counter[str] = Counter()

    def of_calls(self, calls: Iterable[ToolCall]) -> list[str]:
        """Return the ids of one message's calls."""
        sent = [(call.id, self._once(call.id)) for call in calls]
        self._calls.called(sent)
        return [each for _, each in sent]

    def of_result(self, call_id: str) -> str:
        """Return the id of the call that the next result with this id answers."""
        return self._calls.answered(call_id) or _plain_id(call_id)

    def _once(self, call_id: str) -> str:
        plain = sent = _plain_id(call_id)
        while self._times[sent]:
            self._times[plain] += 1
            sent = f"{plain}_{self._times[plain]}"
        self._times[sent] += 1
        return sent


def _plain_id(call_id: str) -> str:
    return re.sub("[^A-Za-z0-9_-]", "_", call_id) or "_"


# -- messages ----------------------------------------------------------------------------------------


def _system(conversation: Iterable[Message], model: str) -> str:
    said = [message for message in conversation if message.role is Role.SYSTEM]
    for message in said:
        _without_images(message, model)
    return "\n\n".join(message.text for message in said if message.text.strip())


def _turns(conversation: Iterable[Message], model: str) -> list[Block]:
    """Return the turns of the conversation, results of tools before what else the user says."""
    turns: list[tuple[str, list[Block]]] = []
    ids = _Ids()
    for message in conversation:
        if message.role is Role.SYSTEM:
            continue
        speaker = "assistant" if message.role is Role.ASSISTANT else "user"
        blocks = _blocks(message, ids, model)
        if blocks and turns and turns[-1][0] == speaker:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((speaker, blocks))
    for _, blocks in turns:
        blocks.sort(key=lambda block: block["type"] != "tool_result")
    if turns and turns[-1][0] == "assistant":
        _strip_end(turns[-1][1][-1])
    return [{"role": speaker, "content": _plain(blocks)} for speaker, blocks in turns]


def _strip_end(last: Block) -> None:
    text = last.get("text")
    if isinstance(text, str):
        last["text"] = text.rstrip()


def _plain(blocks: list[Block]) -> object:
    """Return the blocks, a lone text as nothing but that."""
    return blocks[0]["text"] if len(blocks) == 1 and blocks[0]["type"] == "text" else blocks


def _blocks(message: Message, ids: _Ids, model: str) -> list[Block]:
    match message.role:
        case Role.TOOL:
            return [_tool_result(message, ids, model)]
        case Role.ASSISTANT:
            _without_images(message, model)
            sent_ids = ids.of_calls(message.tool_calls)
            calls = [_tool_use(call, sent_id) for call, sent_id in zip(message.tool_calls, sent_ids, strict=True)]
            said = [*_content(message, model), *calls]
            thoughts = [block for thought in message.thoughts for block in _thought(thought)]
            return [*thoughts, *said] if said else []
        case _:
            return _content(message, model)


def _content(message: Message, model: str) -> list[Block]:
    parts = (Text(message.content),) if isinstance(message.content, str) else message.content
    return [
        {"type": "text", "text": part.text} if isinstance(part, Text) else _image(part, model)
        for part in parts
        if not isinstance(part, Text) or part.text.strip()
    ]


def _without_images(message: Message, model: str) -> None:
    if not isinstance(message.content, str) and any(isinstance(part, Image) for part in message.content):
        raise UnsupportedError(
            f"{model}: an image can stand in a message of the user or of a tool, not in one of the "
            f"{message.role.value}",
            feature=f"images in {message.role.value} messages",
            model=model,
        )


def _thought(thought: Thought) -> Sequence[Block]:
    signature = thought.signature
    if signature is None or signature.protocol != PROTOCOL:
        return ()
    if thought.redacted:
        return ({"type": "redacted_thinking", "data": signature.value},)
    return ({"type": "thinking", "thinking": thought.text, "signature": signature.value},)


def _tool_use(call: ToolCall, sent_id: str) -> Block:
    return {"type": "tool_use", "id": sent_id, "name": call.name, "input": _input(call.arguments)}


def _input(arguments: str) -> object:
    """Return the arguments as the object that the protocol wants, their numbers as the model wrote them.

    What is none goes back as https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
    advises, so that the model sees what it wrote.
    """
    if not arguments.strip():
        return {}
    try:
        _arguments.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return {"INVALID_JSON": arguments}
    return msgspec.Raw(arguments.encode())


def _tool_result(message: Message, ids: _Ids, model: str) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": ids.of_result(message.tool_call_id or "")}
    if content := _content(message, model):
        block["content"] = _plain(content)
    if message.is_error:
        block["is_error"] = True
    return block


# -- images ------------------------------------------------------------------------------------------


def _image(image: Image, model: str) -> Block:
    if image.url is None:
        data = base64.b64encode(image.data or b"").decode()
        return {"type": "image", "source": {"type": "base64", "media_type": image.media_type, "data": data}}
    if image.url[:5].lower() == "gs://":
        raise UnsupportedError(
            f"{model}: Anthropic reads no gs:// pictures: give the picture's data, or an https:// url",
            feature="gs:// pictures",
            model=model,
        )
    return {"type": "image", "source": {"type": "url", "url": image.url}}


# -- tools -------------------------------------------------------------------------------------------


def _tool(tool: Tool) -> Block:
    schema: Block = {"type": "object", **tool.parameters}
    shown: Block = {"name": tool.name, "input_schema": schema}
    if tool.description:
        shown["description"] = tool.description
    if tool.strict:
        try:
            shown |= {"input_schema": anthropic_form(schema), "strict": True}
        except UnfitSchemaError:
            return shown  # any schema will do for a tool that is not strict
    return shown


def _form(schema: Mapping[str, object], model: str) -> Block:
    """Return a schema for answers as the protocol takes it."""
    try:
        return anthropic_form(schema)
    except UnfitSchemaError as error:
        raise UnsupportedError(
            f"{model}: Anthropic's models cannot be held to the response schema: {error}; change it there, or ask for "
            "the JSON in words",
            feature="response schemas of this form",
            model=model,
        ) from error


def _tools_of(messages: Iterable[Message]) -> dict[str, object]:
    """Return the fields that a conversation with calls demands, though its prompt offers no tools: none is to be called
    any more.
    """
    names = dict.fromkeys(call.name for message in messages for call in message.tool_calls)
    if not names:
        return {}
    return {"tools": [_tool(Tool(name)) for name in names], "tool_choice": {"type": "none"}}


def _tool_choice(choice: str, *, one_call: bool) -> Block:
    if choice == "none":
        return {"type": choice}
    said: Block = {"disable_parallel_tool_use": True} if one_call else {}
    if choice in {"auto", "required"}:
        return {"type": "any" if choice == "required" else choice, **said}
    return {"type": "tool", "name": choice, **said}
