"""The events of a Messages stream, or of a whole message, turned into a model's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec
from attrs import define, evolve

from wizard_actors.errors import WizardError
from wizard_actors.providers.json_parts import count_of, table_of, text_of
from wizard_actors.providers.refusals import Head, error_body, refusal
from wizard_actors.types import (
    Finished,
    FinishReason,
    ModelEvent,
    ReasoningDelta,
    Signature,
    TextDelta,
    ThoughtEnded,
    TokenUsage,
    ToolCallDelta,
    UsageUpdate,
)

__all__ = ["PROTOCOL", "EventReader"]

PROTOCOL: Final = "anthropic"
"""What its signatures are named after."""

FINISH_REASONS: Final[Mapping[str, FinishReason]] = MappingProxyType(
    {
        "end_turn": FinishReason.STOP,
        "stop_sequence": FinishReason.STOP,
        "max_tokens": FinishReason.LENGTH,
        "model_context_window_exceeded": FinishReason.LENGTH,
        "tool_use": FinishReason.TOOL_CALLS,
        "refusal": FinishReason.CONTENT_FILTER,
    }
)
"""What each stop reason means; any other, such as pause_turn, is OTHER."""

STATUSES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "invalid_request_error": 400,
        "authentication_error": 401,
        "billing_error": 402,
        "permission_error": 403,
        "not_found_error": 404,
        "request_too_large": 413,
        "rate_limit_error": 429,
        "api_error": 500,
        "timeout_error": 504,
        "overloaded_error": 529,
    }
)
"""The HTTP status of each error type: under a 200, inside a stream, the type is all there is."""


COUNTS: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")


@define
class _Block:
    """A block of content that has begun. `call` is our index of a tool call, None for anything else.

    `signature` is a thought's, or what stands for one that is withheld. `given`: arguments that stood in the block's
    first event; they count where none follow in pieces.
    """

    kind: str
    call: int | None = None
    signature: str = ""
    given: str = ""
    spoke: bool = False


class EventReader:
    """The events in those of a stream, and in a whole message.

    What providers run themselves, such as a web search, and citations are no events: the answer's text has what comes
    of them.
    """

    def __init__(self, head: Head) -> None:
        self.model: str | None = None
        self.id: str | None = None
        self.finished = False
        self.ended = False
        self._head = head
        self._whole = False
        self._blocks: dict[int, _Block] = {}  # those that have no end yet
        self._calls = 0
        self._counts = dict.fromkeys((*COUNTS, "thinking_tokens"), 0)
        self._usage: TokenUsage | None = None

    def read(self, value: object, events: list[ModelEvent], *, whole: bool = False, name: str = "message") -> None:
        """Append the events in `value`. Raises the error in it, after the events before it."""
        if not isinstance(value, dict):
            if isinstance(value, list) or name == "error":
                raise self._refusal(value)
            raise self._head.parse_error("is not a JSON object")
        kind = value.get("type", name)
        if kind == "error" or name == "error" or value.get("error") or (kind == "message" and _is_error(value)):
            raise self._refusal(value)
        if whole or kind == "message":
            self._read_message(value, events, whole=whole)
        else:
            self._read_event(kind, value, events)

    def end(self, events: list[ModelEvent]) -> None:
        """Append the sign of completion where a whole message states no reason; a stream without one was cut."""
        if self._whole and not self.finished:
            self.finished = True
            events.append(Finished(FinishReason.STOP))

    def _read_event(self, kind: object, event: Mapping[str, object], events: list[ModelEvent]) -> None:
        match kind:
            case "message_start":
                message = table_of(event.get("message"))
                self._read_names(message)
                self._read_usage(message.get("usage"), events)
            case "content_block_start":
                self._start(_index(event), table_of(event.get("content_block")), events)
            case "content_block_delta":
                self._continue(_index(event), table_of(event.get("delta")), events)
            case "content_block_stop":
                self._stop(_index(event), events)
            case "message_delta":
                self._read_usage(event.get("usage"), events)
                self._finish(table_of(event.get("delta")).get("stop_reason"), events)
            case "message_stop":
                self.ended = True

    # -- whole messages ----------------------------------------------------------------------------------

    def _read_message(self, message: Mapping[str, object], events: list[ModelEvent], *, whole: bool) -> None:
        content = message.get("content")
        if not isinstance(content, list):
            if whole:
                raise self._head.parse_error("has no content")
            return  # an event of a stream that nobody knows
        self._whole = True
        self._read_names(message)
        for index, block in enumerate(content):
            self._start(index, table_of(block), events)
            self._stop(index, events)
        self._read_usage(message.get("usage"), events)
        self._finish(message.get("stop_reason"), events)

    def _read_names(self, message: Mapping[str, object]) -> None:
        self.model = self.model or text_of(message.get("model"))
        self.id = self.id or text_of(message.get("id"))

    # -- blocks of content -------------------------------------------------------------------------------

    def _start(self, index: int, content: Mapping[str, object], events: list[ModelEvent]) -> None:
        self._stop(index, events)
        block = self._blocks[index] = _Block(str(content.get("type")))
        match block.kind:
            case "text":
                self._say(content.get("text"), events)
            case "thinking":
                self._think(block, content.get("thinking"), events)
                block.signature = text_of(content.get("signature")) or ""
            case "redacted_thinking":
                block.signature = text_of(content.get("data")) or ""
            case "tool_use":
                block.call, self._calls = self._calls, self._calls + 1
                block.given = _arguments(content.get("input"))
                call_id, name = text_of(content.get("id")), text_of(content.get("name"))
                if call_id or name:
                    events.append(ToolCallDelta(block.call, call_id, name))

    def _continue(self, index: int, delta: Mapping[str, object], events: list[ModelEvent]) -> None:
        kind = str(delta.get("type"))
        # Some proxies leave out where a block begins: what is said counts all the same.
        block = self._blocks.setdefault(index, _Block(kind.removesuffix("_delta")))
        match block.kind, kind:
            case "text", "text_delta":
                self._say(delta.get("text"), events)
            case "thinking", "thinking_delta":
                self._think(block, delta.get("thinking"), events)
            case "thinking", "signature_delta":
                block.signature = text_of(delta.get("signature")) or block.signature
            case "tool_use", "input_json_delta":
                self._call(block, self._said(delta.get("partial_json")), events)

    def _stop(self, index: int, events: list[ModelEvent]) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        if block.call is not None and not block.spoke:
            self._call(block, block.given, events)
        elif block.kind == "thinking" and (block.spoke or block.signature):
            events.append(ThoughtEnded(Signature(PROTOCOL, block.signature) if block.signature else None))
        elif block.kind == "redacted_thinking" and block.signature:
            events.append(ThoughtEnded(Signature(PROTOCOL, block.signature), redacted=True))

    def _say(self, value: object, events: list[ModelEvent]) -> None:
        if text := self._said(value):
            events.append(TextDelta(text))

    def _think(self, block: _Block, value: object, events: list[ModelEvent]) -> None:
        if text := self._said(value):
            block.spoke = True
            events.append(ReasoningDelta(text))

    def _call(self, block: _Block, arguments: str, events: list[ModelEvent]) -> None:
        if arguments and block.call is not None:
            block.spoke = True
            events.append(ToolCallDelta(block.call, arguments=arguments))

    def _said(self, value: object) -> str:
        if value is None or isinstance(value, str):
            return value or ""
        raise self._head.parse_error(f"has a {type(value).__name__} for its text")

    # -- the end -----------------------------------------------------------------------------------------

    def _finish(self, raw: object, events: list[ModelEvent]) -> None:
        if self.finished or not isinstance(raw, str) or not raw:
            return
        for index in tuple(self._blocks):  # nothing follows a block that was left open
            self._stop(index, events)
        self.finished = True
        events.append(Finished(FINISH_REASONS.get(raw, FinishReason.OTHER), raw))

    def _read_usage(self, stated: object, events: list[ModelEvent]) -> None:
        """Note the counts, which are of all so far: a later one takes the place of an earlier one."""
        table = table_of(stated)
        details = table_of(table.get("output_tokens_details"))
        for name in self._counts:
            count = count_of(details.get(name)) if name == "thinking_tokens" else count_of(table.get(name))
            self._counts[name] = count or self._counts[name]  # proxies fill with zeros what they do not know
        fresh, read, written, out = (self._counts[name] for name in COUNTS)
        usage = TokenUsage(
            input_tokens=fresh + read + written,  # the protocol counts them apart
            output_tokens=out,
            cached_tokens=read,
            reasoning_tokens=min(self._counts["thinking_tokens"], out),
            cache_write_tokens=written,
        )
        if usage not in (self._usage, TokenUsage()):
            self._usage = usage
            events.append(UsageUpdate(usage))

    def _refusal(self, value: object) -> WizardError:
        body = error_body(value)
        status = next((STATUSES[code] for code in body.codes if code in STATUSES), body.status)
        head = self._head if self._head.request_id else evolve(self._head, request_id=_request_id(value))
        return refusal(head, evolve(body, status=status))


def _is_error(value: Mapping[str, object]) -> bool:
    """Whether what has no type is an error as proxies write them."""
    return "content" not in value and any(value.get(name) for name in ("message", "detail", "errors"))


def _request_id(value: object) -> str | None:
    return text_of(value.get("request_id")) if isinstance(value, dict) else None


def _index(event: Mapping[str, object]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else 0


def _arguments(value: object) -> str:
    """Return a call's whole arguments as JSON text; none are an empty object."""
    if value and isinstance(value, str):
        return value
    return msgspec.json.encode(value if isinstance(value, dict) else {}).decode()
