"""Answers, streams and errors as Chat Completions writes them. Pure.

Beyond what OpenAI writes there is `reasoning_content`, DeepSeek's and vLLM's field for what a model shows of its
reasoning, and the key `wizard`: in a message it holds the signatures that providers want back, in an error our own code
for it and what was tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from attrs import define, field

from wizard_actors.errors import ContentFilterError, TokenLimitError, WizardError
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.format import sse
from wizard_actors.http_api.openai_request import OWN
from wizard_actors.http_api.status import Failure
from wizard_actors.types import (
    End,
    FinishReason,
    ReasoningDelta,
    Signature,
    StreamEvent,
    TextDelta,
    Thought,
    ThoughtEnded,
    TokenUsage,
    ToolCallDelta,
    UsageUpdate,
    WizardResponse,
)

__all__ = ["ChunkWriter", "answer", "error"]

Json = dict[str, object]

FINISH_WORDS: Final[Mapping[FinishReason, str]] = MappingProxyType(
    {
        FinishReason.STOP: "stop",
        FinishReason.LENGTH: "length",
        FinishReason.TOOL_CALLS: "tool_calls",
        FinishReason.CONTENT_FILTER: "content_filter",
        FinishReason.OTHER: "stop",  # clients know no other words
    }
)

DONE: Final = sse("[DONE]")

# -- whole answers -----------------------------------------------------------------------------------


def answer(response: WizardResponse, name: str, *, created: int) -> Json:
    """Return a whole answer. Where the usage is unknown there is none: zeros would be taken for a count."""
    written: Json = {
        "id": _id(response.request_id),
        "object": "chat.completion",
        "created": created,
        "model": response.model or name,
        "choices": [
            {"index": 0, "message": _message(response), "logprobs": None, "finish_reason": _finish(response)},
        ],
    }
    if response.usage is not None:
        written["usage"] = _usage(response.usage)
    return written


def _id(request_id: str) -> str:
    return f"chatcmpl-{request_id}"


def _message(response: WizardResponse) -> Json:
    message: Json = {
        "role": "assistant",
        "content": None if response.tool_calls and not response.text else response.text,
        "refusal": None,
        "annotations": [],
    }
    if response.reasoning:
        message["reasoning_content"] = response.reasoning
    if response.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in response.tool_calls
        ]
    if own := _own(response):
        message[OWN] = own
    return message


def _finish(response: WizardResponse) -> str:
    word = FINISH_WORDS[response.finish_reason]
    return "tool_calls" if word == "stop" and response.tool_calls else word  # clients look here whether to call


def _usage(usage: TokenUsage) -> Json:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _own(response: WizardResponse) -> Json:
    """Return what only the providers' signatures need: nothing for most answers."""
    own: Json = {}
    if any(thought.signature is not None for thought in response.thoughts):
        own["thoughts"] = [_thought(thought) for thought in response.thoughts]
    signed = [{"id": call.id, **_signed(call.signature)} for call in response.tool_calls if call.signature is not None]
    if signed:
        own["calls"] = signed
    return own


def _thought(thought: Thought) -> Json:
    return {"text": thought.text, "redacted": thought.redacted, "id": thought.id, **_signed(thought.signature)}


def _signed(signature: Signature | None) -> Json:
    return {} if signature is None else {"protocol": signature.protocol, "signature": signature.value}


# -- streams -----------------------------------------------------------------------------------------


@define
class _Call:
    """A tool call that is being written: its place among those that were begun, None before."""

    id: str = ""
    name: str = ""
    held: list[str] = field(factory=list)
    place: int | None = None


class ChunkWriter:
    """Writes one answer as chunks, a `StreamWriter`.

    A call begins with its id and name, as clients expect it: pieces that come before those are held until they do.
    Calls are counted from 0, in the order in which they begin.
    """

    def __init__(self, asked: Asked, request_id: str, *, created: int) -> None:
        self._asked = asked
        self._request_id = request_id
        self._created = created
        self._model = asked.name
        self._calls: dict[int, _Call] = {}
        self._begun = 0

    def begin(self, model: str) -> bytes:
        """Return the first chunk, which says who speaks."""
        self._model = model or self._asked.name
        return self._delta({"role": "assistant", "content": "", "refusal": None})

    def event(self, event: StreamEvent) -> bytes:
        """Return the chunk for an event, b"" where there is nothing to say yet. Raises `TypeError` for a `Reset`."""
        match event:
            case TextDelta(text=text):
                return self._delta({"content": text})
            case ReasoningDelta(text=text):
                return self._delta({"reasoning_content": text})
            case ToolCallDelta():
                return self._call(event)
            case ThoughtEnded() | UsageUpdate():
                return b""  # `End` has it
            case End(response=response):
                return b"".join(self._end(response))
            case _:
                raise TypeError(f"Chat Completions cannot say a {type(event).__name__}")

    def failed(self, failure: Failure) -> bytes:
        """Return the error, which is the last word: without `[DONE]` nobody takes the answer for a whole one."""
        return sse(error(failure, self._request_id))

    def _end(self, response: WizardResponse) -> Iterator[bytes]:
        for index, call in sorted(self._calls.items()):
            if call.place is None:
                call.id = call.id or f"call_{index}"  # as the assembled answer has it
                yield self._pieces(call)
        if own := _own(response):
            yield self._delta({OWN: own})
        yield self._delta({}, _finish(response))
        if self._asked.include_usage and response.usage is not None:
            yield sse({**self._chunk([]), "usage": _usage(response.usage)})
        yield DONE

    def _call(self, event: ToolCallDelta) -> bytes:
        call = self._calls.setdefault(event.index, _Call())
        call.id = call.id or event.id or ""
        call.name = call.name or event.name or ""
        if event.arguments:
            call.held.append(event.arguments)
        if not (call.id and call.name) or (call.place is not None and not call.held):
            return b""
        return self._pieces(call)

    def _pieces(self, call: _Call) -> bytes:
        """Return what is held of a call; before the first of it, what it is."""
        function: Json = {"arguments": "".join(call.held)}
        call.held.clear()
        if call.place is not None:
            return self._delta({"tool_calls": [{"index": call.place, "function": function}]})
        call.place = self._begun
        self._begun += 1
        begun = {"index": call.place, "id": call.id, "type": "function", "function": {"name": call.name, **function}}
        return self._delta({"tool_calls": [begun]})

    def _delta(self, delta: Json, finish: str | None = None) -> bytes:
        return sse(self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]))

    def _chunk(self, choices: list[Json]) -> Json:
        chunk: Json = {
            "id": _id(self._request_id),
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }
        if self._asked.include_usage:
            chunk["usage"] = None
        return chunk


# -- errors ------------------------------------------------------------------------------------------


def error(failure: Failure, request_id: str) -> Json:
    """Return the body of an error: `{"error": {message, type, param, code, wizard}}`.

    `type` and `code` are OpenAI's own for what clients act on: "context_length_exceeded" and "content_filter" (400),
    "invalid_api_key" (401), "model_not_found" (404, about the `model`), "rate_limit_exceeded" (429). Any other `code`
    is ours. `wizard` always has ours, which is stable, the request's id, and what was tried: of each attempt the model,
    the code of its error, and the seconds that it took.
    """
    own: Json = {"code": failure.code, "request_id": request_id}
    if failure.retry_after is not None:
        own["retry_after"] = failure.retry_after
    if failure.error is not None and failure.error.attempts:
        own["attempts"] = [
            {
                "model": attempt.model,
                "error": None if attempt.error is None else attempt.error.code,
                "seconds": round(attempt.duration, 3),
            }
            for attempt in failure.error.attempts
        ]
    told: Json = {
        "message": failure.message,
        "type": _type(failure.status),
        "param": failure.param,
        "code": _code(failure),
        OWN: own,
    }
    return {"error": told}


def _type(status: int) -> str:
    if status >= 500:
        return "server_error"
    return "requests" if status == 429 else "invalid_request_error"  # what there were too many of


def _code(failure: Failure) -> str:
    match failure.status:
        case 400:
            return _code_of(failure.error) or failure.code
        case 401:
            return "invalid_api_key"
        case 404 if failure.param == "model":
            return "model_not_found"
        case 429:
            return "rate_limit_exceeded"
    return failure.code


def _code_of(error: WizardError | None) -> str | None:
    """Return OpenAI's code for a prompt that was refused, by one model or by all of a route."""
    errors = [] if error is None else [error, *(attempt.error for attempt in error.attempts)]
    if any(isinstance(each, TokenLimitError) for each in errors):
        return "context_length_exceeded"
    return "content_filter" if any(isinstance(each, ContentFilterError) for each in errors) else None
