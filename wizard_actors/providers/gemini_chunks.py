"""The events in one chunk of a `streamGenerateContent` stream, or in a whole answer, which looks the same. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from wizard_actors.errors import ContentFilterError, ParseError, ProviderError, RequestError
from wizard_actors.providers.json_parts import count_of, text_of
from wizard_actors.providers.refusals import Head, error_body, excerpt, refusal
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

__all__ = ["MADE_UP", "PROTOCOL", "GeminiReader"]

PROTOCOL: Final = "gemini"
"""Of the signatures that belong here."""

MADE_UP: Final = "made_"
"""How the ids of tool calls begin that we made up, for Gemini gives most calls none. They are not sent back to it. The
letters, and the length of 40 at most, are those that every other provider takes.
"""

FINISH_REASONS: Final[Mapping[str, FinishReason]] = MappingProxyType(
    {
        "STOP": FinishReason.STOP,
        "MAX_TOKENS": FinishReason.LENGTH,
        **dict.fromkeys(
            (
                "SAFETY",
                "RECITATION",
                "LANGUAGE",
                "BLOCKLIST",
                "PROHIBITED_CONTENT",
                "SPII",
                "MODEL_ARMOR",
                "IMAGE_SAFETY",
                "IMAGE_PROHIBITED_CONTENT",
                "IMAGE_RECITATION",
            ),
            FinishReason.CONTENT_FILTER,
        ),
    }
)
"""The words for each reason; any other is OTHER, but for those that are errors."""

BROKEN: Final[Mapping[str, type[ProviderError]]] = MappingProxyType(
    {
        "MALFORMED_FUNCTION_CALL": ParseError,
        "MALFORMED_RESPONSE": ParseError,
        "UNEXPECTED_TOOL_CALL": ParseError,
        "MISSING_THOUGHT_SIGNATURE": RequestError,
    }
)
"""The words for an answer that is none. What the model wrote and Google could not read is a malformed answer like any
other: the next try often is a good one. A conversation without its signatures stays so.
"""

ProviderErrorT = TypeVar("ProviderErrorT", bound=ProviderError)


class GeminiReader:
    """The events in chunks, and in whole answers, which differ in nothing. `made_up` begins the ids of tool calls to
    which Gemini gives none.

    Only text, thoughts and tool calls are read: pictures and sound, and code that Google has run, are not.
    """

    def __init__(self, head: Head, made_up: str) -> None:
        self.model: str | None = None
        self.id: str | None = None
        self.finished = False
        self.ended = False  # the last word is the end of the body
        self._head = head
        self._made_up = made_up
        self._calls = 0
        self._usage: TokenUsage | None = None
        self._listed = False  # whether a stream has come as a list

    def read(self, value: object, events: list[ModelEvent], *, whole: bool = False, name: str = "message") -> None:
        """Append the events in `value`: a chunk, or a list of them. Raises the error in it, after the events before it.

        A list is what a stream is to a server that takes no notice of `alt=sse`.
        """
        self._listed = isinstance(value, list)
        for chunk in value if isinstance(value, list) and value else (value,):
            self._read(chunk, events, whole=whole and not self._listed, error=name == "error")

    def end(self, events: list[ModelEvent]) -> None:
        """Append the sign of completion to a whole answer that states no reason; a stream without one was cut."""
        if not self.finished and not self._listed:
            self.finished = True
            events.append(Finished(self._stop(), None))

    def _read(self, chunk: object, events: list[ModelEvent], *, whole: bool, error: bool) -> None:
        if not isinstance(chunk, dict) or error or _is_error(chunk):
            if error or isinstance(chunk, (dict, list)):
                raise refusal(self._head, error_body(chunk))
            raise self._head.parse_error("is not a JSON object")
        self.model = self.model or text_of(chunk.get("modelVersion"))
        self.id = self.id or text_of(chunk.get("responseId"))
        candidate = _first(chunk.get("candidates"))
        if candidate is not None:
            self._read_content(candidate.get("content"), events)
        self._read_usage(chunk.get("usageMetadata"), events)
        feedback = chunk.get("promptFeedback")
        if isinstance(feedback, dict) and feedback.get("blockReason") and not candidate:
            raise self._blocked(feedback)
        reason = None if candidate is None else text_of(candidate.get("finishReason"))
        if candidate is not None and reason is not None:
            self._finish(reason, candidate, events)
        elif whole and (candidate is None or not isinstance(candidate.get("content"), dict)):
            raise self._head.parse_error("has no candidate with content")

    # -- content

    def _read_content(self, content: object, events: list[ModelEvent]) -> None:
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if not isinstance(part, dict):
                continue
            value = text_of(part.get("thoughtSignature"))
            signature = None if value is None else Signature(PROTOCOL, value)
            call = part.get("functionCall")
            if isinstance(call, dict):
                self._read_call(call, signature, events)
                continue
            self._read_text(part.get("text"), events, thought=bool(part.get("thought")))
            if signature is not None:
                events.append(ThoughtEnded(signature))

    def _read_text(self, text: object, events: list[ModelEvent], *, thought: bool) -> None:
        if not text:
            return
        if not isinstance(text, str):
            raise self._head.parse_error(f"has a {type(text).__name__} for its text")
        events.append(ReasoningDelta(text) if thought else TextDelta(text))

    def _read_call(self, call: Mapping[str, object], signature: Signature | None, events: list[ModelEvent]) -> None:
        name = text_of(call.get("name"))
        if name is None:
            raise self._head.parse_error("calls a tool without a name")
        index, self._calls = self._calls, self._calls + 1
        call_id = text_of(call.get("id")) or f"{self._made_up}_{index}"
        events.append(ToolCallDelta(index, call_id, name, _arguments(call.get("args")), signature))

    def _read_usage(self, stated: object, events: list[ModelEvent]) -> None:
        usage = _usage(stated) if isinstance(stated, dict) else None
        if usage is not None and usage != self._usage:
            self._usage = usage
            events.append(UsageUpdate(usage))

    # -- the end

    def _stop(self) -> FinishReason:
        return FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP  # Gemini has no word for it

    def _finish(self, raw: str, candidate: Mapping[str, object], events: list[ModelEvent]) -> None:
        if self.finished:
            return
        if raw in BROKEN:
            said = self._said(candidate.get("finishMessage"))
            raise self._error(BROKEN[raw], f"the model broke off with {raw}{said}")
        self.finished = True
        reason = FINISH_REASONS.get(raw, FinishReason.OTHER)
        events.append(Finished(self._stop() if reason is FinishReason.STOP else reason, raw))

    def _blocked(self, feedback: Mapping[str, object]) -> ContentFilterError:
        reason = self._said(feedback.get("blockReason")) + self._said(feedback.get("blockReasonMessage"))
        return self._error(ContentFilterError, f"the provider refuses this prompt{reason}")

    def _said(self, text: object) -> str:
        said = excerpt(text, self._head.secrets) if isinstance(text, str) else ""
        return f": {said}" if said else ""

    def _error(self, kind: type[ProviderErrorT], what: str) -> ProviderErrorT:
        head = self._head
        return kind(
            f"{head.model}: {what}", model=head.model, status=head.status, request_id=head.request_id or self.id
        )


def _is_error(chunk: Mapping[str, object]) -> bool:
    return bool(chunk.get("error")) or (
        "candidates" not in chunk and any(chunk.get(name) for name in ("message", "detail", "errors"))
    )


def _first(candidates: object) -> Mapping[str, object] | None:
    """Return the first candidate: more than one is nothing that we asked for."""
    for candidate in candidates if isinstance(candidates, list) else ():
        if isinstance(candidate, dict) and not candidate.get("index"):
            return candidate
    return None


def _arguments(args: object) -> str:
    """Return a call's arguments as JSON text; a call of a tool that takes none may have none."""
    if isinstance(args, str):
        return args
    return "{}" if args is None else msgspec.json.encode(args).decode()


def _usage(stated: Mapping[str, object]) -> TokenUsage | None:
    """Return the usage, None where nothing is counted. Thoughts, and what tools of Google's have read, stand beside the
    answer and the prompt, not in them; what was read from a cache stands in the prompt.
    """
    inputs = count_of(stated.get("promptTokenCount")) + count_of(stated.get("toolUsePromptTokenCount"))
    thoughts = count_of(stated.get("thoughtsTokenCount"))
    outputs = count_of(stated.get("candidatesTokenCount")) + thoughts
    if not inputs and not outputs:
        return None
    return TokenUsage(
        input_tokens=inputs,
        output_tokens=outputs,
        cached_tokens=count_of(stated.get("cachedContentTokenCount")),
        reasoning_tokens=thoughts,
    )
