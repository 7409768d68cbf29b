"""What OpenAI's two protocols have in common: refusals, and the headers of limits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from wizard_actors.testing.simulation.formats.base import (
    JSON_BODY,
    Asking,
    Left,
    Refusal,
    Refused,
    Said,
    encode,
    plain_seconds,
)

__all__ = ["OpenAI"]

REFUSALS: Final[Mapping[Refusal, tuple[int, str, str | None, str]]] = MappingProxyType(
    {
        "auth": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
        "content_filter": (
            400,
            "invalid_request_error",
            "content_filter",
            "The response was filtered due to the prompt triggering the content management policy.",
        ),
        "error": (500, "server_error", None, "The server had an error while processing your request."),
        "overloaded": (503, "server_error", "overloaded", "The engine is currently overloaded, please try again later"),
        "quota": (
            429,
            "insufficient_quota",
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
        ),
        "rate_limit": (429, "requests", "rate_limit_exceeded", "Rate limit reached for {model}."),
        "token_limit": (
            400,
            "invalid_request_error",
            "context_length_exceeded",
            "Your input exceeds the context window of this model. Please adjust your input and try again.",
        ),
    }
)
"""By kind: the usual status, the error's type and code, and what it says."""

MILLISECONDS_BELOW: Final = 1.0
MINUTE: Final = 60.0


class OpenAI:
    """The headers and the errors of OpenAI, and of those compatible with it."""

    def ids(self, said: Said) -> Mapping[str, str]:
        """Return `x-request-id`."""
        return {"x-request-id": f"req_{said.number}"}

    def refusal(self, kind: Refusal, said: Said, asking: Asking) -> Refused:
        """Return OpenAI's error body, and Retry-After."""
        status, sort, code, says = REFUSALS[kind]
        message, headers = says.format(model=said.model), JSON_BODY
        if asking.retry_after is not None:
            wait = plain_seconds(asking.retry_after)
            message, headers = f"{message} Please try again in {wait}s.", {**JSON_BODY, "retry-after": wait}
        error = {"message": message, "type": sort, "param": None, "code": code}
        return Refused(asking.status or status, headers, encode({"error": error}))

    def limits(self, requests: Left | None, tokens: Left | None, wall_now: float) -> Mapping[str, str]:
        """Return `x-ratelimit-*`."""
        headers = {}
        for name, left in (("requests", requests), ("tokens", tokens)):
            if left is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(left.limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(left.remaining)
                headers[f"x-ratelimit-reset-{name}"] = _go_duration(left.reset)
        return headers


def _go_duration(seconds: float) -> str:
    if seconds < MILLISECONDS_BELOW:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, MINUTE)
    return f"{minutes:.0f}m{rest:.3f}s" if minutes else f"{rest:.3f}s"
