"""Anthropic's Messages on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from wizard_actors.testing.simulation.formats.base import (
    JSON_BODY,
    Asking,
    Left,
    Refusal,
    Refused,
    Said,
    Streamed,
    encode,
    plain_seconds,
)

__all__ = ["Anthropic"]

REFUSALS: Final[Mapping[Refusal, tuple[int, str, str]]] = MappingProxyType(
    {
        "auth": (401, "authentication_error", "invalid x-api-key"),
        "content_filter": (400, "invalid_request_error", "Output blocked by content filtering policy"),
        "error": (500, "api_error", "Internal server error"),
        "overloaded": (529, "overloaded_error", "Overloaded"),
        "quota": (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing.",
        ),
        "rate_limit": (
            429,
            "rate_limit_error",
            "This request would exceed your organization's rate limit. Please try again later.",
        ),
        "token_limit": (400, "invalid_request_error", "prompt is too long: {tokens} tokens > {most} maximum"),
    }
)
"""By kind: the usual status, the error's type, and what it says."""

PING: Final = b'event: ping\ndata: {"type": "ping"}\n\n'


class Anthropic:
    """Anthropic's Messages API."""

    def ids(self, said: Said) -> Mapping[str, str]:
        """Return `request-id`."""
        return {"request-id": f"req_{said.number}"}

    def whole(self, said: Said) -> bytes:
        """Return a `message`."""
        usage = {"input_tokens": said.input_tokens, "output_tokens": said.output_tokens}
        return encode(_message(said, [{"type": "text", "text": said.text}], _reason(said), usage))

    def stream(self, said: Said, texts: Sequence[str]) -> Streamed:
        """Return the events of a message with one block of text, and a ping among them."""
        usage = {"input_tokens": said.input_tokens, "output_tokens": 1}
        ended = {"stop_reason": _reason(said), "stop_sequence": None}
        opening = (
            _event("message_start", {"message": _message(said, (), None, usage)})
            + _event("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}})
            + PING
        )
        deltas = [
            _event("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": text}}) for text in texts
        ]
        closing = (
            _event("content_block_stop", {"index": 0})
            + _event("message_delta", {"delta": ended, "usage": {"output_tokens": said.output_tokens}})
            + _event("message_stop", {})
        )
        return Streamed(opening, tuple(deltas), closing)

    def refusal(self, kind: Refusal, said: Said, asking: Asking) -> Refused:
        """Return Anthropic's error body, and Retry-After."""
        status, sort, says = REFUSALS[kind]
        message = says.format(tokens=said.input_tokens, most=said.input_tokens - 1)
        headers = JSON_BODY
        if asking.retry_after is not None:
            headers = {**JSON_BODY, "retry-after": plain_seconds(asking.retry_after)}
        error = {"type": "error", "error": {"type": sort, "message": message}, "request_id": f"req_{said.number}"}
        return Refused(asking.status or status, headers, encode(error))

    def garbage(self) -> bytes:
        """Return half of an event."""
        return b'event: content_block_delta\ndata: {"type": "content_block_del\n\n'

    def limits(self, requests: Left | None, tokens: Left | None, wall_now: float) -> Mapping[str, str]:
        """Return `anthropic-ratelimit-*`, whose resets are dates, rounded down to a second."""
        headers = {}
        for name, left in (("requests", requests), ("tokens", tokens)):
            if left is not None:
                reset = datetime.fromtimestamp(int(wall_now + left.reset), UTC)
                headers[f"anthropic-ratelimit-{name}-limit"] = str(left.limit)
                headers[f"anthropic-ratelimit-{name}-remaining"] = str(left.remaining)
                headers[f"anthropic-ratelimit-{name}-reset"] = f"{reset:%Y-%m-%dT%H:%M:%SZ}"
        return headers


def _reason(said: Said) -> str:
    return "max_tokens" if said.cut else "end_turn"


def _message(
    said: Said, content: Sequence[object], reason: str | None, usage: Mapping[str, int]
) -> Mapping[str, object]:
    return {
        "id": f"msg_{said.number}",
        "type": "message",
        "role": "assistant",
        "model": said.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": usage,
    }


def _event(kind: str, table: Mapping[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, **table}))
