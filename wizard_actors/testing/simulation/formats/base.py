"""What every wire format is asked for, and what it is given; see `wizard_actors.testing.simulation.formats`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol, TypeAlias

import msgspec
from attrs import frozen

__all__ = [
    "JSON_BODY",
    "JSON_TYPE",
    "SSE_TYPE",
    "Asking",
    "Format",
    "Left",
    "Refusal",
    "Refused",
    "Said",
    "Streamed",
    "WireFormat",
    "encode",
    "plain_seconds",
]

WireFormat: TypeAlias = Literal["chat", "responses", "anthropic", "gemini"]
Refusal: TypeAlias = Literal["auth", "content_filter", "error", "overloaded", "quota", "rate_limit", "token_limit"]

JSON_TYPE: Final = "application/json"
SSE_TYPE: Final = "text/event-stream"
JSON_BODY: Final[Mapping[str, str]] = {"content-type": JSON_TYPE}

encode: Final = msgspec.json.Encoder().encode


@frozen
class Said:
    """An answer: by which model, under which number, in which words, what it has cost in tokens, and whether it was cut
    where its caller wanted no more of them.
    """

    model: str
    number: int
    text: str
    input_tokens: int
    output_tokens: int
    cut: bool = False


@frozen
class Streamed:
    """An answer's stream: what comes before its first words, with each piece of text, and after the last of them."""

    opening: bytes
    pieces: tuple[bytes, ...]
    closing: bytes


@frozen
class Asking:
    """How a refusal is to look: its `status` (None: the usual one of its kind), for how many seconds it asks to be left
    alone (None: it does not say), and whether a stream was asked for.
    """

    status: int | None = None
    retry_after: float | None = None
    stream: bool = False


@frozen
class Refused:
    """A refusal on the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@frozen
class Left:
    """What a limit has left: `limit` in a minute, `remaining` now, and the seconds until all of it is there again."""

    limit: int
    remaining: int
    reset: float


class Format(Protocol):
    """How one protocol looks on the wire."""

    def ids(self, said: Said) -> Mapping[str, str]:
        """Return the headers that name the call."""

    def whole(self, said: Said) -> bytes:
        """Return the body of an answer that is no stream."""

    def stream(self, said: Said, texts: Sequence[str]) -> Streamed:
        """Return the stream of an answer whose text comes in these pieces."""

    def refusal(self, kind: Refusal, said: Said, asking: Asking) -> Refused:
        """Return what comes in the place of an answer."""

    def garbage(self) -> bytes:
        """Return what may come where an event should, and is none."""

    def limits(self, requests: Left | None, tokens: Left | None, wall_now: float) -> Mapping[str, str]:
        """Return the headers that say what is left; `wall_now` is in seconds since 1970."""


def plain_seconds(seconds: float) -> str:
    """Return seconds as headers have them: "20", "0.25"."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
