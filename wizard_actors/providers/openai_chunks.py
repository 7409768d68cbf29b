"""The events in one chunk of a Chat Completions stream, or in a whole answer, which differs in a word only. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from wizard_actors.errors import ProviderError
from wizard_actors.providers.refusals import Head, error_body, refusal
from wizard_actors.types import (
    Finished,
    FinishReason,
    ModelEvent,
    ReasoningDelta,
    TextDelta,
    TokenUsage,
    ToolCallDelta,
    UsageUpdate,
)

__all__ = ["ChunkReader"]

FINISH_REASONS: Final[Mapping[str, FinishReason]] = MappingProxyType(
    {
        "stop": FinishReason.STOP,
        "eos": FinishReason.STOP,
        "end_turn": FinishReason.STOP,
        "stop_sequence": FinishReason.STOP,
        "length": FinishReason.LENGTH,
        "max_tokens": FinishReason.LENGTH,
        "model_length": FinishReason.LENGTH,
        "tool_calls": FinishReason.TOOL_CALLS,
        "tool_use": FinishReason.TOOL_CALLS,
        "function_call": FinishReason.TOOL_CALLS,
        "content_filter": FinishReason.CONTENT_FILTER,
        "safety": FinishReason.CONTENT_FILTER,
    }
)
"""The words seen for each reason; any other is OTHER."""


class ChunkReader:
    """The events in chunks, and in whole answers, which differ from a chunk in a word only."""

    def __init__(self, head: Head) -> None:
        self.model: str | None = None
        self.id: str | None = None
        self._head = head
        self._calls = _ToolCalls()
        self._usage: TokenUsage | None = None
        self.finished = False
        self._blank: str | None = None  # the finish reason "" that some state; on a chunk it means nothing yet

    def read(self, chunk: object, events: list[ModelEvent], *, whole: bool = False, is_error: bool = False) -> None:
        """Append the events in `chunk`. Raises the error in it, after the events before it."""
        if not isinstance(chunk, dict) or is_error or _is_error(chunk):
            if is_error or isinstance(chunk, (dict, list)):
                raise refusal(self._head, error_body(chunk))
            raise self._head.parse_error("is not a JSON object")
        if self.model is None:
            self.model, self.id = _text(chunk.get("model")), _text(chunk.get("id"))
        choices = chunk.get("choices")
        if whole and not _has_message(choices):
            raise self._head.parse_error("has no choices with a message")
        finish: object = None
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and not choice.get("index"):  # more than one is nothing that we asked for
                delta = choice.get("message" if whole or "delta" not in choice else "delta")
                if isinstance(delta, dict):
                    self._read_delta(delta, events)
                finish = choice.get("finish_reason")
        self._read_usage(chunk, events)
        if finish == "":
            self._blank = finish
        elif isinstance(finish, str):
            self._finish(finish, events)

    def end(self, events: list[ModelEvent]) -> None:
        """Append the sign of completion, where the answer is complete without having stated a reason."""
        if not self.finished:
            self.finished = True
            events.append(Finished(FinishReason.STOP, self._blank))

    def _read_delta(self, delta: Mapping[str, object], events: list[ModelEvent]) -> None:
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if reasoning and isinstance(reasoning, str):
            events.append(ReasoningDelta(reasoning))
        content = delta.get("content") or delta.get("refusal")  # a refusal is what the model has to say
        if content:
            self._read_content(content, events)
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            self._calls.read(calls, events)
        call = delta.get("function_call")
        if isinstance(call, dict):
            self._calls.read([{"function": call, "index": 0}], events)

    def _read_content(self, content: object, events: list[ModelEvent]) -> None:
        if isinstance(content, str):
            events.append(TextDelta(content))
        elif isinstance(content, list):
            for part in content:
                if isinstance(part, dict) and "thinking" in part:  # Mistral
                    events.extend(ReasoningDelta(text) for text in _texts(part["thinking"]))
                else:
                    events.extend(TextDelta(text) for text in _texts([part]))
        else:
            raise self._head.parse_error(f"has a {type(content).__name__} for its text")

    def _read_usage(self, chunk: Mapping[str, object], events: list[ModelEvent]) -> None:
        stated = chunk.get("usage")
        if not stated and isinstance(groq := chunk.get("x_groq"), dict):
            stated = groq.get("usage")
        usage = _usage(stated) if isinstance(stated, dict) else None
        if usage is not None and usage != self._usage:
            self._usage = usage
            events.append(UsageUpdate(usage))

    def _finish(self, raw: str, events: list[ModelEvent]) -> None:
        if self.finished:
            return  # OpenRouter says it again beside the usage
        if raw.lower() == "error":
            raise ProviderError(
                f"{self._head.model}: the model broke off with an error",
                model=self._head.model,
                status=self._head.status,
                request_id=self._head.request_id or self.id,
            )
        self.finished = True
        events.append(Finished(FINISH_REASONS.get(raw.lower(), FinishReason.OTHER), raw))


class _ToolCalls:
    """Which call each piece belongs to; upstreams may leave out the index, or give every call the same."""

    def __init__(self) -> None:
        self._known: list[tuple[str | None, str | None]] = []  # the id and the name of each call, by our index
        self._by_key: dict[int, int] = {}  # upstream's index -> ours

    def read(self, calls: list[object], events: list[ModelEvent]) -> None:
        for call in calls:
            if not isinstance(call, dict):
                continue
            function = call.get("function")
            function = function if isinstance(function, dict) else {}
            call_id, name = _text(call.get("id")), _text(function.get("name"))
            index = self._index(call.get("index"), call_id, name)
            known_id, known_name = self._known[index]
            self._known[index] = (known_id or call_id, known_name or name)
            delta = ToolCallDelta(
                index,
                call_id if known_id is None else None,
                name if known_name is None else None,
                _arguments(function.get("arguments")),
            )
            if delta.id or delta.name or delta.arguments:
                events.append(delta)

    def _index(self, key: object, call_id: str | None, name: str | None) -> int:
        if isinstance(key, int):
            index = self._by_key.get(key)
        else:
            ids = [known for known, _ in self._known]
            index = ids.index(call_id) if call_id in ids and call_id is not None else None
            if index is None and name is None and self._known:
                index = len(self._known) - 1  # more of the last one
        if index is not None and name is not None and call_id is not None:
            known_id = self._known[index][0]
            if known_id is not None and known_id != call_id:
                index = None  # another call under the same index: Gemini's compatible endpoint counts none
        if index is None:
            index = len(self._known)
            self._known.append((None, None))
        if isinstance(key, int):
            self._by_key[key] = index
        return index


# -- the parts of a chunk ----------------------------------------------------------------------------


def _is_error(chunk: Mapping[str, object]) -> bool:
    """Whether the chunk is an error, or holds one, be it beside its choices."""
    if chunk.get("error") or chunk.get("object") == "error":
        return True
    return "choices" not in chunk and any(chunk.get(name) for name in ("message", "detail", "errors"))


def _texts(content: object) -> Iterator[str]:
    """Yield the texts in a text, or in a list of texts and text parts; other parts have none."""
    for part in content if isinstance(content, list) else (content,):
        text = part.get("text") if isinstance(part, dict) else part
        if text and isinstance(text, str):
            yield text


def _text(value: object) -> str | None:
    return value if value and isinstance(value, str) else None


def _arguments(value: object) -> str:
    """Return a tool call's arguments as JSON text; some send the object itself."""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, (dict, list)) else ""


def _usage(stated: Mapping[str, object]) -> TokenUsage | None:
    """Return the usage, None where nothing is counted: some send zeros until they know."""
    inputs, outputs = _count(stated.get("prompt_tokens")), _count(stated.get("completion_tokens"))
    if not inputs and not outputs:
        return None
    reasoning = _detail(stated, "completion_tokens_details", "reasoning_tokens")
    if reasoning and _count(stated.get("total_tokens")) == inputs + outputs + reasoning:
        outputs += reasoning  # xAI counts the reasoning beside the answer, not in it
    cached = _detail(stated, "prompt_tokens_details", "cached_tokens")
    return TokenUsage(
        input_tokens=inputs,
        output_tokens=outputs,
        cached_tokens=cached or _count(stated.get("prompt_cache_hit_tokens")),
        reasoning_tokens=reasoning,
    )


def _detail(stated: Mapping[str, object], table: str, name: str) -> int:
    details = stated.get(table)
    return _count(details.get(name)) if isinstance(details, dict) else 0


def _count(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _has_message(choices: object) -> bool:
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict):
        return False
    return isinstance(first.get("message", first.get("delta")), dict) or bool(first.get("finish_reason"))
