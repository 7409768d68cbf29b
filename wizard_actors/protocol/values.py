"""What people send and get, as JSON and back: prompts, answers, events of streams, sessions. Pure.

Read strictly on the way in: what a client sends wrongly is told with its place. Whatever a provider wants back with an
answer, signatures of its reasoning say, travels too, so that a conversation can go on from either side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar

from wizard_actors.errors import InvalidPromptError, ParseError, SerializationError
from wizard_actors.protocol.failures import attempt_from, attempt_to, cost_from
from wizard_actors.session_json import structured, unstructured
from wizard_actors.session_record import SessionRecord, SessionSummary
from wizard_actors.types import (
    End,
    FinishReason,
    Prompt,
    ReasoningDelta,
    Reset,
    ServedBy,
    StreamEvent,
    TextDelta,
    Thought,
    ThoughtEnded,
    TokenUsage,
    ToolCall,
    ToolCallDelta,
    UsageUpdate,
    WizardResponse,
)

__all__ = [
    "event_from",
    "event_to",
    "prompt_from",
    "prompt_to",
    "response_from",
    "response_to",
    "session_from",
    "session_to",
    "summary_from",
    "summary_to",
]

T = TypeVar("T")

Plain: TypeAlias = dict[str, object]

Delta: TypeAlias = TextDelta | ReasoningDelta | ThoughtEnded | ToolCallDelta | UsageUpdate | Reset

EVENTS: Final[Mapping[str, type[Delta]]] = MappingProxyType(
    {kind.type: kind for kind in (TextDelta, ReasoningDelta, ThoughtEnded, ToolCallDelta, UsageUpdate, Reset)}
)
"""What a stream consists of, by the names that events have; its end is the response of its request."""


# -- prompts -----------------------------------------------------------------------------------------


def prompt_to(prompt: str | Prompt) -> str | Plain:
    """Return a prompt: a text, or an object with the fields of a `Prompt` that are not at their defaults.

    Raises `InvalidPromptError` where one holds what JSON has no place for.
    """
    if isinstance(prompt, str):
        return prompt
    try:
        return unstructured(prompt)
    except SerializationError as error:
        raise InvalidPromptError(f"the prompt cannot be sent as JSON: {error.message}") from error


def prompt_from(value: object, place: str = "prompt") -> Prompt:
    """Return the prompt that somebody sent; `messages` may be a text. Raises `InvalidPromptError`, which names what is
    wrong by its place.
    """
    if isinstance(value, str):
        try:
            return Prompt(value)
        except InvalidPromptError as error:
            raise InvalidPromptError(f"`{place}`: {error.message}") from error
    if not isinstance(value, dict):
        raise InvalidPromptError(f"`{place}` must be a text, or an object with the fields of a prompt")
    if isinstance(value.get("messages"), str):
        value = {**value, "messages": [{"role": "user", "content": value["messages"]}]}
    try:
        return structured(value, Prompt, place)
    except SerializationError as error:
        raise InvalidPromptError(error.message) from error


# -- answers -----------------------------------------------------------------------------------------


def response_to(response: WizardResponse, *, now: float) -> Plain:
    """Return an answer: what `to_dict` shows, and what it takes to go on from it. `now` is in Unix seconds."""
    shown = response.to_dict()
    shown["attempts"] = [attempt_to(attempt, now=now) for attempt in response.attempts]
    if response.raw_finish_reason is not None:
        shown["raw_finish_reason"] = response.raw_finish_reason
    if response.thoughts:
        shown["thoughts"] = [unstructured(thought) for thought in response.thoughts]
    if response.tool_calls:
        shown["tool_calls"] = [unstructured(call) for call in response.tool_calls]
    return shown


def response_from(value: object, *, now: float) -> WizardResponse:
    """Return the answer that a server sent. Raises `ParseError` where it is none."""
    try:
        return _response(_object(value), now)
    except (SerializationError, LookupError, ValueError, TypeError) as error:
        raise _garbled("an answer", error) from error


def _response(data: Mapping[str, object], now: float) -> WizardResponse:
    usage = data.get("usage")
    upstream, finish = data.get("upstream_model"), data.get("raw_finish_reason")
    return WizardResponse(
        text=_text(data["text"]),
        model=_text(data["model"]),
        upstream_model=None if upstream is None else _text(upstream),
        usage=None if usage is None else _usage(_object(usage)),
        cost=cost_from(data.get("cost")),
        finish_reason=FinishReason(_text(data.get("finish_reason", FinishReason.STOP))),
        raw_finish_reason=None if finish is None else _text(finish),
        thoughts=tuple(_part(each, Thought, "thought") for each in _objects(data.get("thoughts", []))),
        tool_calls=tuple(_part(each, ToolCall, "tool_call") for each in _objects(data.get("tool_calls", []))),
        attempts=tuple(attempt_from(each, now=now) for each in _objects(data.get("attempts", []))),
        served_by=ServedBy(_text(data.get("served_by", ServedBy.DIRECT))),
        cached=data.get("cached") is True,
        stale=data.get("stale") is True,
        request_id=_text(data.get("request_id", "")),
        raw=tuple(_objects(data.get("raw", []))),
    )


def _usage(data: Mapping[str, object]) -> TokenUsage:
    return _part(data, TokenUsage, "usage")


# -- streams -----------------------------------------------------------------------------------------


def event_to(event: StreamEvent) -> Plain:
    """Return an event of a stream, but for its end, which is the response of the request."""
    if isinstance(event, End):
        raise TypeError("the end of a stream travels as the response of its request")
    return {"type": event.type, **unstructured(event)}


def event_from(value: object) -> Delta | None:
    """Return the event that a server sent; None for one of a kind that is not known here. Raises `ParseError`."""
    try:
        data = _object(value)
        kind = EVENTS.get(_text(data.get("type")))
        return None if kind is None else _part(data, kind, "event")
    except (SerializationError, LookupError, ValueError, TypeError) as error:
        raise _garbled("an event", error) from error


# -- sessions ----------------------------------------------------------------------------------------


def session_to(record: SessionRecord) -> Plain:
    """Return a session, whole."""
    return unstructured(record)


def session_from(value: object) -> SessionRecord:
    """Return the session that a server sent. Raises `ParseError` where it is none."""
    try:
        return _part(value, SessionRecord, "session")
    except SerializationError as error:
        raise _garbled("a session", error) from error


def summary_to(summary: SessionSummary) -> Plain:
    """Return what a list shows of a session."""
    return unstructured(summary)


def summary_from(value: object) -> SessionSummary:
    """Return what a server's list showed of a session. Raises `ParseError` where it is nothing of the kind."""
    try:
        return _part(value, SessionSummary, "session")
    except SerializationError as error:
        raise _garbled("a session of a list", error) from error


# -- what they are made of ---------------------------------------------------------------------------


def _part(value: object, kind: type[T], place: str) -> T:
    """Return what a server sent; a newer one may say more than is known here."""
    return structured(value, kind, place, newer=True)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text was expected, not {type(value).__name__}")
    return value


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"an object was expected, not {type(value).__name__}")
    return value


def _objects(value: object) -> Iterator[Mapping[str, object]]:
    if not isinstance(value, list):
        raise TypeError(f"a list was expected, not {type(value).__name__}")
    return map(_object, value)


def _garbled(what: str, error: Exception) -> ParseError:
    reason = f"`{error.args[0]}` is missing" if isinstance(error, KeyError) else str(error)
    return ParseError(f"the server sent {what} that cannot be read: {reason}", model="")
