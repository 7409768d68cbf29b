"""Gemini's `generateContent` and `streamGenerateContent?alt=sse` on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from wizard_actors.testing.simulation.formats.base import (
    JSON_BODY,
    SSE_TYPE,
    Asking,
    Left,
    Refusal,
    Refused,
    Said,
    Streamed,
    encode,
    plain_seconds,
)

__all__ = ["Gemini"]

QUOTA: Final = (
    "You exceeded your current quota, please check your plan and billing details.\n"
    "* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_requests, "
)
REFUSALS: Final[Mapping[Refusal, tuple[int, str, str]]] = MappingProxyType(
    {
        "auth": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
        "error": (500, "INTERNAL", "An internal error has occurred."),
        "overloaded": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
        "quota": (429, "RESOURCE_EXHAUSTED", QUOTA + "limit: 0, model: {model}"),
        "rate_limit": (429, "RESOURCE_EXHAUSTED", QUOTA + "limit: 10, model: {model}"),
        "token_limit": (
            400,
            "INVALID_ARGUMENT",
            "The input token count ({tokens}) exceeds the maximum number of tokens allowed ({most}).",
        ),
    }
)
"""By kind: the usual status, Google's own, and what it says. Content that it refuses is no error: see `refusal`."""

KEY_INVALID: Final[Mapping[str, object]] = MappingProxyType(
    {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
)
RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"


class Gemini:
    """Google's own protocol. It has no headers: neither ids nor limits nor Retry-After."""

    def ids(self, said: Said) -> Mapping[str, str]:
        """Return nothing: the answer names itself."""
        return {}

    def whole(self, said: Said) -> bytes:
        """Return a `GenerateContentResponse`."""
        return encode(_chunk(said, said.text, said.output_tokens, finish=_finish(said)))

    def stream(self, said: Said, texts: Sequence[str]) -> Streamed:
        """Return one `GenerateContentResponse` for each piece, with what is counted so far, and a last one."""
        pieces, counted = list[bytes](), 0
        for text in texts:
            counted += len(text.split())
            pieces.append(_data(_chunk(said, text, counted)))
        return Streamed(b"", tuple(pieces), _data(_chunk(said, "", said.output_tokens, finish=_finish(said))))

    def refusal(self, kind: Refusal, said: Said, asking: Asking) -> Refused:
        """Return Google's error body, or for content that it refuses an answer without any, under a 200 always."""
        if kind == "content_filter":
            blocked = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "modelVersion": said.model}
            if asking.stream:
                return Refused(200, {"content-type": SSE_TYPE}, _data(blocked))
            return Refused(200, JSON_BODY, encode(blocked))
        usual, word, says = REFUSALS[kind]
        status = asking.status or usual
        message = says.format(model=said.model, tokens=said.input_tokens, most=said.input_tokens - 1)
        details = [KEY_INVALID] if kind == "auth" else list[Mapping[str, object]]()
        if asking.retry_after is not None:
            wait = f"{plain_seconds(asking.retry_after)}s"
            message = f"{message}\nPlease retry in {wait}."
            details.append({"@type": RETRY_INFO, "retryDelay": wait})
        error = {"code": status, "message": message, "status": word, "details": [*map(dict, details)]}
        return Refused(status, JSON_BODY, encode({"error": error}))

    def garbage(self) -> bytes:
        """Return half of a chunk."""
        return b'data: {"candidates": [{"content": {"par\r\n\r\n'

    def limits(self, requests: Left | None, tokens: Left | None, wall_now: float) -> Mapping[str, str]:
        """Return nothing: Gemini does not say what is left."""
        return {}


def _finish(said: Said) -> str:
    return "MAX_TOKENS" if said.cut else "STOP"


def _chunk(said: Said, text: str, counted: int, finish: str | None = None) -> Mapping[str, object]:
    candidate: dict[str, object] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    usage = {
        "promptTokenCount": said.input_tokens,
        "candidatesTokenCount": counted,
        "totalTokenCount": said.input_tokens + counted,
    }
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": said.model,
        "responseId": f"response-{said.number}",
    }


def _data(value: object) -> bytes:
    return b"data: " + encode(value) + b"\r\n\r\n"
