"""The events in one chunk of a Chat Completions stream, or in a whole answer, which differs in a word only. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from wizard_actors.errors import OverloadedError, ProviderError
from wizard_actors.providers.json_parts import count_of, text_of
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

__all__ = ["DETAIL_TEXTS", "PROTOCOL", "ChunkReader"]

PROTOCOL: Final = "chat"
"""The protocol of signatures whose value is an entry of `reasoning_details`, without its text."""

DETAIL_TEXTS: Final[Mapping[str, str]] = MappingProxyType({"reasoning.text": "text", "reasoning.summary": "summary"})
"""Where the text stands in an entry of `reasoning_details`, by its type; other types show none."""

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
"""The words seen for each reason; any other is OTHER, but for those that are errors."""

BROKEN: Final[Mapping[str, tuple[type[ProviderError], str]]] = MappingProxyType(
    {
        "error": (ProviderError, "with an error"),
        "insufficient_system_resource": (OverloadedError, "because it has no room"),  # DeepSeek
    }
)
"""The words for an answer that was broken off, and what they mean."""


class ChunkReader:
    """The events in chunks, and in whole answers, which differ from a chunk in a word only."""

    def __init__(self, head: Head) -> None:
        self.model: str | None = None
        self.id: str | None = None
        self._head = head
        self._calls = _ToolCalls()
        self._thoughts = _Thoughts()
        self._created: object = None
        self._usage: TokenUsage | None = None
        self.finished = False
        self.ended = False  # the last word is no JSON
        self._blank: str | None = None  # the finish reason "" that some state; on a chunk it means nothing yet
        self._spoke = False

    def read(self, chunk: object, events: list[ModelEvent], *, whole: bool = False, name: str = "message") -> None:
        """Append the events in `chunk`. Raises the error in it, after the events before it."""
        if not isinstance(chunk, dict) or name == "error" or _is_error(chunk):
            if name == "error" or isinstance(chunk, (dict, list)):
                raise refusal(self._head, error_body(chunk))
            raise self._head.parse_error("is not a JSON object")
        if self.model is None:
            self.model, self.id = text_of(chunk.get("model")), text_of(chunk.get("id"))
            self._created = chunk.get("created")
        choices = chunk.get("choices")
        if whole and not _has_message(choices):
            raise self._head.parse_error("has no choices with a message")
        finish = self._read_choices(choices, events, whole=whole)
        self._read_usage(chunk, events)
        if whole and not self._spoke and not isinstance(finish, str):
            raise self._head.parse_error("says nothing, and not why it ended")
        if finish == "":
            self._blank = finish
        elif isinstance(finish, str):
            self._finish(finish, events)

    def end(self, events: list[ModelEvent]) -> None:
        """Append the sign of completion, where the answer is complete without having stated a reason.

        Some never state one, so `[DONE]` has to do; but not for an answer that has not said anything.
        """
        if not self.finished and (self._spoke or self._blank is not None):
            self._complete(Finished(FinishReason.STOP, self._blank), events)

    def _read_choices(self, choices: object, events: list[ModelEvent], *, whole: bool) -> object:
        """Append what is said; return the finish reason, None where none is stated."""
        finish: object = None
        before = len(events)
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and not choice.get("index"):  # more than one is nothing that we asked for
                delta = choice.get("message" if whole or "delta" not in choice else "delta")
                if isinstance(delta, dict):
                    self._read_delta(delta, events, whole=whole)
                finish = choice.get("finish_reason")
        self._spoke = self._spoke or len(events) > before
        return finish

    def _read_delta(self, delta: Mapping[str, object], events: list[ModelEvent], *, whole: bool) -> None:
        details = delta.get("reasoning_details")
        shown = isinstance(details, list) and self._thoughts.read_details(details, events, whole=whole)
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if reasoning and isinstance(reasoning, str) and not shown:
            self._thoughts.read_text(reasoning, events)
        content = delta.get("content") or delta.get("refusal")  # a refusal is what the model has to say
        if content:
            self._read_content(content, events)
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            self._calls.read(calls, events, whole=whole)
        call = delta.get("function_call")
        if isinstance(call, dict):
            self._calls.read([{"function": call, "index": 0}], events, whole=whole)

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
        if raw.lower() in BROKEN:
            kind, why = BROKEN[raw.lower()]
            raise kind(
                f"{self._head.model}: the model broke off {why}",
                model=self._head.model,
                status=self._head.status,
                request_id=self._head.request_id or self.id,
            )
        self._complete(Finished(FINISH_REASONS.get(raw.lower(), FinishReason.OTHER), raw), events)

    def _complete(self, sign: Finished, events: list[ModelEvent]) -> None:
        self.finished = True
        if sign.reason is FinishReason.STOP and self._calls.made:  # a call that was asked for by name ends so
            sign = Finished(FinishReason.TOOL_CALLS, sign.raw)
        self._thoughts.end(events)
        self._calls.name_all(f"{self._head.request_id or ''} {self.id or ''} {self._created or ''}".strip(), events)
        events.append(sign)


class _Thoughts:
    """The model's reasoning: plain text, or the entries of `reasoning_details`, which come in pieces and go back whole.

    OpenRouter, and those that speak as it does, state the text twice; where there are entries, theirs counts.
    """

    def __init__(self) -> None:
        self._entry: dict[str, object] | None = None  # the one that has no end yet, without its text
        self._loose = False  # there is text that belongs to no entry

    def read_text(self, text: str, events: list[ModelEvent]) -> None:
        self._loose = self._loose or self._entry is None
        events.append(ReasoningDelta(text))

    def read_details(self, details: Sequence[object], events: list[ModelEvent], *, whole: bool) -> bool:
        """Read the entries, which are `whole`, or pieces of some. Return whether any of them shows a text."""
        shown = False
        for piece in details:
            if not isinstance(piece, dict):
                continue
            place = _place(piece)
            if place is None or self._begins_another(piece):
                self.end(events)
            text = text_of(piece.get(place)) if place is not None else None
            self._add(piece, place, events)
            if text is not None:
                shown = True
                events.append(ReasoningDelta(text))
            if whole or place is None:
                self.end(events)
        return shown

    def end(self, events: list[ModelEvent]) -> None:
        """Append the end of the entry that has none yet."""
        if self._entry is not None:
            redacted = _place(self._entry) is None
            signature = Signature(PROTOCOL, _json(self._entry))
            events.append(ThoughtEnded(signature, redacted, text_of(self._entry.get("id"))))
            self._entry = None

    def _add(self, piece: Mapping[str, object], place: str | None, events: list[ModelEvent]) -> None:
        if self._entry is None:
            if self._loose:
                events.append(ThoughtEnded())
                self._loose = False
            self._entry = {}
        for name, value in piece.items():
            if name != place and (value or name not in self._entry):  # a later piece may state what was empty before
                self._entry[name] = value

    def _begins_another(self, piece: Mapping[str, object]) -> bool:
        known = self._entry
        if known is None:
            return False
        for name in ("type", "index", "id"):
            stated, before = piece.get(name), known.get(name)
            if stated is not None and before is not None and stated != before:
                return True
        return False


class _ToolCalls:
    """Which call each piece belongs to; upstreams may leave out the index, or give every call the same."""

    def __init__(self) -> None:
        self._known: list[tuple[str | None, str | None]] = []  # the id and the name of each call, by our index
        self._by_key: dict[int, int] = {}  # upstream's index -> ours, of the last call under it
        self._by_id: dict[tuple[int | None, str], int] = {}  # the same, and the id

    @property
    def made(self) -> bool:
        """Whether there is any call."""
        return bool(self._known)

    def read(self, calls: list[object], events: list[ModelEvent], *, whole: bool) -> None:
        """Read calls that are `whole`, or pieces of some."""
        named = set[int]()  # here: no piece says again what was just said
        for call in calls:
            if not isinstance(call, dict):
                continue
            function = call.get("function")
            function = function if isinstance(function, dict) else {}
            call_id, name = text_of(call.get("id")), text_of(function.get("name"))
            key = call.get("index")
            key = key if isinstance(key, int) else None
            index = None if whole else self._find(key, call_id, name)
            if index is None or self._is_another(index, call_id, name, named):
                index = len(self._known)
                self._known.append((None, None))
            known_id, known_name = self._note(index, key, call_id, name)
            if name is not None:
                named.add(index)
            delta = ToolCallDelta(
                index,
                call_id if known_id is None else None,
                name if known_name is None else None,
                _arguments(function.get("arguments")),
            )
            if delta.id or delta.name or delta.arguments:
                events.append(delta)

    def name_all(self, answer: str, events: list[ModelEvent]) -> None:
        """Append an id for each call that has none, made from what tells this `answer` from others: in a conversation
        no two calls may have the same.
        """
        for index, (call_id, _) in enumerate(self._known):
            if call_id is None and answer:
                made = hashlib.blake2b(f"{answer} {index}".encode(), digest_size=12).hexdigest()
                events.append(ToolCallDelta(index, f"call_{made}"))

    def _find(self, key: int | None, call_id: str | None, name: str | None) -> int | None:
        """Return which call a piece belongs to, by upstream's index and id; None for one that begins a call."""
        if call_id is not None and (key, call_id) in self._by_id:
            return self._by_id[key, call_id]
        if key is not None:
            return self._by_key.get(key)
        return len(self._known) - 1 if name is None and self._known else None  # more of the last one

    def _is_another(self, index: int, call_id: str | None, name: str | None, named: set[int]) -> bool:
        """Whether a piece begins another call under the same index: Gemini's compatible endpoint counts none."""
        known_id, known_name = self._known[index]
        if name is None:
            return False
        if known_name is not None and known_name != name:
            return True
        return index in named if known_id is None or call_id is None else known_id != call_id

    def _note(
        self, index: int, key: int | None, call_id: str | None, name: str | None
    ) -> tuple[str | None, str | None]:
        """Note what a piece says of its call; return the id and the name that were known before."""
        known_id, known_name = self._known[index]
        self._known[index] = (known_id or call_id, known_name or name)
        if key is not None:
            self._by_key[key] = index
        if call_id is not None:
            self._by_id[key, call_id] = index
        return known_id, known_name


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


def _place(detail: Mapping[str, object]) -> str | None:
    """Return the field of an entry of `reasoning_details` that holds its text, None for one that shows none."""
    kind = detail.get("type")
    return DETAIL_TEXTS.get(kind) if isinstance(kind, str) else None


def _arguments(value: object) -> str:
    """Return a tool call's arguments as JSON text; some send the object itself."""
    if isinstance(value, str):
        return value
    return _json(value) if isinstance(value, (dict, list)) else ""


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _usage(stated: Mapping[str, object]) -> TokenUsage | None:
    """Return the usage, None where nothing is counted: some send zeros until they know."""
    inputs, outputs = count_of(stated.get("prompt_tokens")), count_of(stated.get("completion_tokens"))
    if not inputs and not outputs:
        return None
    reasoning = _detail(stated, "completion_tokens_details", "reasoning_tokens")
    if reasoning and count_of(stated.get("total_tokens")) == inputs + outputs + reasoning:
        outputs += reasoning  # xAI counts the reasoning beside the answer, not in it
    cached = _detail(stated, "prompt_tokens_details", "cached_tokens")
    return TokenUsage(
        input_tokens=inputs,
        output_tokens=outputs,
        cached_tokens=cached or count_of(stated.get("prompt_cache_hit_tokens")),
        reasoning_tokens=reasoning,
        cache_write_tokens=_detail(stated, "prompt_tokens_details", "cache_write_tokens"),
    )


def _detail(stated: Mapping[str, object], table: str, name: str) -> int:
    details = stated.get(table)
    return count_of(details.get(name)) if isinstance(details, dict) else 0


def _has_message(choices: object) -> bool:
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict):
        return False
    return isinstance(first.get("message", first.get("delta")), dict) or bool(first.get("finish_reason"))
