"""Answers and failures as a Messages API writes them. Pure.

A message's content is thoughts, then text, then calls of tools. Arguments that are no JSON object stand there as
`{"INVALID_JSON": "<what the model wrote>"}`, the form that Anthropic recommends; a request that brings them back is
read accordingly.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from wizard_actors.http_api.anthropic_proofs import sealed_id, sealed_signature
from wizard_actors.http_api.status import Failure
from wizard_actors.types import FinishReason, Thought, TokenUsage, ToolCall, WizardResponse

__all__ = [
    "INVALID_JSON",
    "NULL",
    "arguments_in",
    "call_block",
    "error_body",
    "message",
    "redacted_block",
    "stop_reason",
    "usage_fields",
]

INVALID_JSON: Final = "INVALID_JSON"

NULL: Final = "null"
"""How some models write that a call has no arguments; clients would send it back as no object, which is refused."""

STOP_REASONS: Final[Mapping[FinishReason, str]] = MappingProxyType(
    {
        FinishReason.STOP: "end_turn",
        FinishReason.LENGTH: "max_tokens",
        FinishReason.TOOL_CALLS: "tool_use",
        FinishReason.CONTENT_FILTER: "refusal",
        FinishReason.OTHER: "end_turn",  # the format has no word for it, and its clients know no other
    }
)

OWN_REASONS: Final[Mapping[str, FinishReason]] = MappingProxyType(
    {
        "end_turn": FinishReason.STOP,
        "stop_sequence": FinishReason.STOP,
        "max_tokens": FinishReason.LENGTH,
        "model_context_window_exceeded": FinishReason.LENGTH,
        "tool_use": FinishReason.TOOL_CALLS,
        "refusal": FinishReason.CONTENT_FILTER,
        "pause_turn": FinishReason.OTHER,
    }
)
"""Anthropic's own words, each with what it has to mean to be one: what another provider says may sound alike."""

ERROR_TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
        529: "overloaded_error",
    }
)
"""The type of an error by its status; any other below 500 is the request's fault, any other from there ours."""

_object = msgspec.json.Decoder(dict[str, object])


# -- messages ----------------------------------------------------------------------------------------


def message(response: WizardResponse, name: str) -> dict[str, object]:
    """Return a whole message, in plain JSON values; `name` stands for the model where none answered."""
    return {
        "id": f"msg_{response.request_id}",
        "type": "message",
        "role": "assistant",
        "model": response.model or name,
        "content": _content(response),
        "stop_reason": stop_reason(response),
        "stop_sequence": None,
        "usage": usage_fields(response.usage),
    }


def stop_reason(response: WizardResponse) -> str:
    """Return why an answer ended: Anthropic's own word where it has said one; where tools are called, always that, for
    clients look nowhere else to see that it is their turn.
    """
    raw, reason = response.raw_finish_reason, response.finish_reason
    if raw is not None and OWN_REASONS.get(raw) is reason:
        return raw
    if response.tool_calls and reason in {FinishReason.STOP, FinishReason.OTHER}:
        return "tool_use"
    return STOP_REASONS[reason]


def usage_fields(usage: TokenUsage | None) -> dict[str, object]:
    """Return a usage as the format counts: what a cache was read or written for apart from the rest of the input.

    What nobody knows is 0, for a client's types demand a number.
    """
    if usage is None:
        return {"input_tokens": 0, "output_tokens": 0}
    fields: dict[str, object] = {
        "input_tokens": max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning_tokens:
        fields["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return fields


def _content(response: WizardResponse) -> list[object]:
    blocks: list[object] = [_thought(thought) for thought in response.thoughts if thought != Thought()]
    if response.text:
        blocks.append({"type": "text", "text": response.text})
    calls = ({**call_block(call), "input": _input(call.arguments)} for call in response.tool_calls)
    return [*blocks, *calls]


def _thought(thought: Thought) -> dict[str, object]:
    if thought.redacted and not thought.text:
        return redacted_block(thought)
    signature = sealed_signature(thought.signature, thought.id, redacted=thought.redacted)
    return {"type": "thinking", "thinking": thought.text, "signature": signature}


def redacted_block(thought: Thought) -> dict[str, object]:
    """Return the block of a thought of which nothing is shown."""
    return {"type": "redacted_thinking", "data": sealed_signature(thought.signature, thought.id)}


def call_block(call: ToolCall) -> dict[str, object]:
    """Return the block of a call, without its arguments."""
    return {"type": "tool_use", "id": sealed_id(call), "name": call.name, "input": {}}


def _input(arguments: str) -> object:
    found = arguments_in(arguments)
    return {INVALID_JSON: arguments} if found is None else found


def arguments_in(written: str) -> dict[str, object] | None:
    """Return the object that a call's arguments are: an empty one where nothing is written, or null; None where it is
    none.
    """
    if written.strip() in {"", NULL}:
        return {}
    try:
        return _object.decode(written)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


# -- failures ----------------------------------------------------------------------------------------


def error_body(failure: Failure, request_id: str) -> dict[str, object]:
    """Return `{type, error: {type, message, code}, request_id}`: `code` is the error's own, as everywhere in this
    project, and `param` beside it the place in the body that is at fault, where there is one.
    """
    kind = ERROR_TYPES.get(failure.status, "invalid_request_error" if failure.status < 500 else "api_error")
    error: dict[str, object] = {"type": kind, "message": failure.message, "code": failure.code}
    if failure.param is not None:
        error["param"] = failure.param
    return {"type": "error", "error": error, "request_id": request_id}
