"""What a request says of the answer that it wants, in any of the protocols. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["most_tokens"]


class _Generation(msgspec.Struct, frozen=True):
    most: int | None = msgspec.field(default=None, name="maxOutputTokens")


class _Request(msgspec.Struct, frozen=True):
    """The names that a bound has: OpenAI's old one, which is Anthropic's too, its new one, and those of Responses and
    Gemini.
    """

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    generation: _Generation | None = msgspec.field(default=None, name="generationConfig")


DECODER: Final = msgspec.json.Decoder(_Request)


def most_tokens(body: bytes) -> int | None:
    """Return how many tokens a request wants at most, None where it does not say, or not as its protocol has it."""
    try:
        asked = DECODER.decode(body)
    except msgspec.DecodeError:
        return None
    said = (asked.max_tokens, asked.max_completion_tokens, asked.max_output_tokens)
    nested = None if asked.generation is None else asked.generation.most
    return next((most for most in (*said, nested) if most is not None), None)
