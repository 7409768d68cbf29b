"""How many tokens a prompt will probably use: rules of thumb, for reserving before anybody knows. Pure.

No tokenizer is asked: each model has its own, the large ones take longer than the rest of a call, and the answer's
usage settles the difference. The rules lean to the large side for English prose:

- text: the mean of a token for 4 characters and one for 3.5 bytes of UTF-8. Where a character takes one byte that is a
  token for 3.7 characters; a Cyrillic letter counts for 0.41 tokens, a Chinese character for 0.55.
- each message 4 tokens, and 3 for the answer to begin (OpenAI's cookbook); a tool call as its text and 8.
- a tool or a schema: its JSON text as text, and 10.
- an image: 1,000, whatever its size; OpenAI's "high" is 765 for 1024 x 1024, Anthropic's about 1,600 at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from wizard_actors.types import Image, Message, Prompt

__all__ = ["THE_ANSWER", "TYPICAL_OUTPUT", "estimate_input", "estimate_message", "estimate_output", "estimate_text"]

TYPICAL_OUTPUT: Final = 256
"""Tokens of an answer, before a model's own answers have shown what is typical of it."""

AN_IMAGE: Final = 1000.0
A_MESSAGE: Final = 4.0
A_TOOL_CALL: Final = 8.0
A_SCHEMA: Final = 10.0
THE_ANSWER: Final = 3.0
"""Tokens that a prompt has beside its messages, for the answer to begin."""


def estimate_input(prompt: Prompt) -> int:
    """Return about how many tokens `prompt` takes as input, at least 1. Takes about a microsecond a message."""
    tokens = THE_ANSWER + sum(map(estimate_message, prompt.conversation))
    for tool in prompt.tools:
        tokens += A_SCHEMA + estimate_text(tool.name) + estimate_text(tool.description) + _json(tool.parameters)
    if prompt.response_schema is not None:
        tokens += A_SCHEMA + _json(prompt.response_schema)
    return max(1, math.ceil(tokens))


def estimate_output(prompt: Prompt, typical: int | None = None) -> int:
    """Return about how many tokens the answer will take: `max_tokens` where the prompt has it, because that is what
    providers reserve; else what is `typical` of the model, None: 256. Of the latter the limiter reserves a quarter of a
    minute's tokens at most: see `Acquire.expected`.
    """
    if prompt.max_tokens is not None:
        return prompt.max_tokens
    return TYPICAL_OUTPUT if typical is None else max(1, typical)


def estimate_message(message: Message) -> float:
    """Return about how many tokens one message takes in a prompt, at least 4.

    Its thoughts count nothing: providers drop those of earlier turns.
    """
    tokens = A_MESSAGE + estimate_text(message.text) + estimate_text(message.name or "")
    if not isinstance(message.content, str):
        tokens += AN_IMAGE * sum(isinstance(part, Image) for part in message.content)
    for call in message.tool_calls:
        tokens += A_TOOL_CALL + estimate_text(call.name) + estimate_text(call.arguments)
    return tokens


def estimate_text(text: str) -> float:
    """Return about how many tokens a text takes; those of its parts add up to those of the whole."""
    size = len(text) if text.isascii() else len(text.encode(errors="replace"))
    return len(text) / 8 + size / 7


def _json(schema: Mapping[str, object]) -> float:
    """Return the tokens of a schema as it would be sent; what is no JSON is counted as Python shows it."""
    try:
        return len(msgspec.json.encode(schema)) * (1 / 8 + 1 / 7)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return estimate_text(repr(schema))
