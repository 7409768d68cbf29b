"""A prompt as the body of a request to OpenAI's Responses API. Pure.

Conversations are carried by whoever asks, so nothing is to be kept by the provider: `store` is false, and reasoning
comes and goes as `encrypted_content`, for which `include` asks. A model's or a prompt's `extra` overrules both.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Final, Self

import httpx
import msgspec
from attrs import evolve, frozen

from wizard_actors.errors import SerializationError, UnsupportedError
from wizard_actors.providers.base import Call
from wizard_actors.providers.extra_fields import extra_for, wants_json
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.openai_request import schema_format
from wizard_actors.providers.proofs import refuses_thoughts, without_thoughts
from wizard_actors.providers.refusals import ErrorBody, Head, refuses_stream
from wizard_actors.providers.responses_events import PROTOCOL, EventReader
from wizard_actors.providers.schema_forms import is_strict
from wizard_actors.providers.tool_rounds import fitting_id
from wizard_actors.providers.wire import Outgoing
from wizard_actors.types import Content, Image, Message, Prompt, Role, Text, Thought, Tool, ToolCall

__all__ = ["ResponsesWire"]

PROOF: Final = "reasoning.encrypted_content"
"""What `include` asks for, so that reasoning can be sent back to a provider that keeps nothing."""

SHORT: Final = "(?s:.{1,64})"
"""Longer ids of tool calls, which others make, are refused."""

NEVER_REASON: Final = re.compile(r"(?:chatgpt-|gpt-3|gpt-4)", re.IGNORECASE)
"""The model families that show no reasoning, and refuse to be asked for any, or to be shown that of others."""

REFUSES_PROOF: Final = re.compile(
    rf"{re.escape(PROOF)}|['\"`]include\b|encrypted content is not supported", re.IGNORECASE
)

_encoder = msgspec.json.Encoder()


@frozen(kw_only=True)
class ResponsesWire:
    """The Responses API, a `Wire`: `model` is the upstream's id of the model that is configured as `name`.

    `streams` and `proves`, whether reasoning is asked for in a form that can be sent back, are learned from refusals.
    `thoughts`: reasoning that came in that form goes back; one call is made without where it is refused.
    """

    name: str
    model: str
    url: httpx.URL
    streams: bool = True
    proves: bool = True
    thoughts: bool = True
    max_tokens: int | None = None
    extra: Mapping[str, object]

    @classmethod
    def of(cls, settings: HttpSettings, url: httpx.URL) -> Self:
        """Return the protocol as the model is known to understand it."""
        return cls(
            name=settings.name,
            model=settings.model,
            url=url,
            streams=settings.upstream != "unary",
            proves=NEVER_REASON.match(settings.model.rpartition("/")[2]) is None,
            max_tokens=settings.max_tokens,
            extra=settings.extra,
        )

    def request(self, call: Call) -> Outgoing:
        """Return the request; the model's `extra`, then the prompt's own, overrule the rest of its body, but `text` in
        them is added to a response schema, which is part of it.

        Raises `UnsupportedError` for what the protocol has no place for (`stop`, `seed`, images that a model or the
        system shows), `SerializationError` for what JSON has none for. A message's `name` is left out.
        """
        prompt = call.prompt
        self._check(prompt)
        try:
            fields = self._fields(prompt)
            for more in (self.extra, _own(prompt, self.extra)):
                text, added = fields.get("text"), more.get("text")
                fields.update(more)
                if isinstance(text, Mapping) and isinstance(added, Mapping):
                    fields["text"] = {**text, **added}
            return Outgoing(self.url, _encoder.encode(fields))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise SerializationError(
                f"{self.name}: the request cannot be written as JSON: {error}; "
                "look at the tools, the schema and `extra`"
            ) from error

    def reader(self, head: Head) -> EventReader:
        """Return what reads the answer that begins with `head`."""
        return EventReader(head)

    def without(self, refused: ErrorBody, *, keep_stream: bool) -> Self | None:
        """Return the dialect without what a refusal names: `include`, the reasoning in the conversation, `stream`."""
        if self.proves and (refused.param.startswith("include") or REFUSES_PROOF.search(refused.message)):
            return evolve(self, proves=False)
        if self.thoughts and refuses_thoughts(refused):
            return evolve(self, thoughts=False)
        if self.streams and not keep_stream and refuses_stream(refused):
            return evolve(self, streams=False)
        return None

    def lasting(self) -> Self:
        """Return the dialect with reasoning again: that of another conversation may be the provider's own."""
        return evolve(self, thoughts=True)

    def _check(self, prompt: Prompt) -> None:
        for feature, asked in (("stop", prompt.stop), ("seed", prompt.seed is not None)):
            if asked:
                raise UnsupportedError(
                    f"{self.name}: the Responses API has no `{feature}`; leave it out, or ask the model with "
                    '`api = "chat"`',
                    feature=feature,
                    model=self.name,
                )

    def _fields(self, prompt: Prompt) -> dict[str, object]:
        messages = prompt.messages if self.thoughts and self.proves else without_thoughts(prompt.messages)
        fields: dict[str, object] = {
            "model": self.model,
            "input": list(_input(messages, self.name)),
            "store": False,
        }
        max_tokens = self.max_tokens if prompt.max_tokens is None else prompt.max_tokens
        wished: dict[str, object] = {
            "instructions": prompt.system,
            "include": [PROOF] if self.proves else None,
            "stream": self.streams or None,
            "max_output_tokens": max_tokens,
            "temperature": prompt.temperature,
            "top_p": prompt.top_p,
            "tools": [_tool(tool) for tool in prompt.tools] or None,
            "tool_choice": _tool_choice(prompt.tool_choice),
            "parallel_tool_calls": prompt.parallel_tool_calls if prompt.tools else None,
            "text": _text(prompt),
        }
        fields.update({name: value for name, value in wished.items() if value is not None})
        return fields


# -- the conversation --------------------------------------------------------------------------------


def _input(messages: tuple[Message, ...], model: str) -> Iterator[dict[str, object]]:
    numbers = count()
    for message in messages:
        match message.role:
            case Role.ASSISTANT:
                yield from _answer(message, numbers, model)
            case Role.TOOL:
                output = _content(message.content)
                call_id = fitting_id(message.tool_call_id or "", SHORT)
                yield {"type": "function_call_output", "call_id": call_id, "output": output}
            case role:
                if role is Role.SYSTEM:
                    _check_images(message, model)
                yield {"role": role.value, "content": _content(message.content)}


def _answer(message: Message, numbers: Iterator[int], model: str) -> Iterator[dict[str, object]]:
    """Yield the items of a model's message: what it thought, what it said, what it called."""
    _check_images(message, model)
    # Reasoning of which nothing came is refused: "provided without its required following item".
    for thought in message.thoughts if message.text or message.tool_calls else ():
        if thought.signature is not None and thought.signature.protocol == PROTOCOL:
            yield _reasoning(thought, thought.signature.value, f"rs_{next(numbers)}")
    if message.text:
        # A plain text: a list of parts would need the id under which the provider has stored it.
        yield {"role": "assistant", "content": message.text}
    for call in message.tool_calls:
        yield _call(call)


def _reasoning(thought: Thought, proof: str, default_id: str) -> dict[str, object]:
    summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
    return {"type": "reasoning", "id": thought.id or default_id, "summary": summary, "encrypted_content": proof}


def _call(call: ToolCall) -> dict[str, object]:
    call_id = fitting_id(call.id, SHORT)
    return {"type": "function_call", "call_id": call_id, "name": call.name, "arguments": call.arguments}


def _check_images(message: Message, model: str) -> None:
    if not isinstance(message.content, str) and any(isinstance(part, Image) for part in message.content):
        raise UnsupportedError(
            f"{model}: an image can stand in a message of the user or a tool, not in one of the {message.role.value}",
            feature="images outside user and tool messages",
            model=model,
        )


def _content(content: Content) -> str | list[dict[str, object]]:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _part(part: Text | Image) -> dict[str, object]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    url = part.url
    if url is None:
        url = f"data:{part.media_type};base64,{base64.b64encode(part.data or b'').decode()}"
    return {"type": "input_image", "image_url": url, "detail": "auto"}  # its default, and yet required


# -- tools and schemas -------------------------------------------------------------------------------


def _tool(tool: Tool) -> dict[str, object]:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    described = {"description": tool.description} if tool.description else {}
    # Said in any case: null makes it strict where the schema can be brought to that, as leaving it out does; a schema
    # that is called strict and is not would be refused.
    strict = (is_strict(parameters) or None) if tool.strict else False
    return {"type": "function", "name": tool.name, **described, "parameters": parameters, "strict": strict}


def _tool_choice(choice: str | None) -> object:
    if choice is None or choice in {"auto", "none", "required"}:
        return choice
    return {"type": "function", "name": choice}


def _own(prompt: Prompt, configured: Mapping[str, object]) -> dict[str, object]:
    """Return the prompt's own fields; of those in the words of Chat Completions also what has another place here."""
    own = dict(extra_for(prompt, PROTOCOL))
    if prompt.extra_protocol != "chat":
        return own
    if "reasoning_effort" in prompt.extra:
        reasoning = configured.get("reasoning")
        known = reasoning if isinstance(reasoning, Mapping) else {}
        own["reasoning"] = {**known, "effort": prompt.extra["reasoning_effort"]}
    if "verbosity" in prompt.extra and "text" not in own:
        own["text"] = {"verbosity": prompt.extra["verbosity"]}
    return own


def _text(prompt: Prompt) -> dict[str, object] | None:
    if wants_json(prompt, PROTOCOL):
        return {"format": {"type": "json_object"}}
    schema = prompt.response_schema
    return None if schema is None else {"format": {"type": "json_schema", **schema_format(schema)}}
