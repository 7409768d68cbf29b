"""What a prompt needs of a model: room for so many tokens at least, tools, pictures, a schema."""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from attrs import frozen

from wizard_actors.types import Image, Message, Prompt, Role

__all__ = ["Needs", "needs_of"]

LONGEST_TOKEN: Final = 128
"""Characters; no longer ones are known of any published vocabulary."""

_first_character = itemgetter(0)


@frozen
class Needs:
    """What a prompt needs of a model: room for at least `tokens`, a lower bound where nobody has counted; `tools`,
    `images`, answers that follow a `schema`, and `sampling` as the prompt says.
    """

    tokens: int = 0
    tools: bool = False
    images: bool = False
    schema: bool = False
    sampling: bool = False


def needs_of(prompt: Prompt, *, smallest_window: float = 0.0) -> Needs:
    """Return what `prompt` needs. A text of no more characters than the `smallest_window` of the models in question
    fits in any of them: its tokens are not counted.

    `tokens` is a lower bound, so that no model is skipped which could have answered: a word that begins with a letter
    or a digit after white space is one token at least, since tokenizers part text there before they merge anything, and
    so are 256 characters of any unbroken run. White space, marks that stand alone, tools, schemas, pictures and what
    surrounds the messages count nothing. English text really has about a third more tokens; text without spaces has
    far more. Nor does `max_tokens` count: some providers refuse a prompt that leaves too little room for it, others
    just end the answer there. A prompt that is too long after all costs one refusal, and the call moves on.

    A conversation with tool calls or their results in it needs tools, whether it offers any or not.
    """
    messages = prompt.conversation
    texts = [message.text for message in messages]
    fits = sum(map(len, texts)) <= smallest_window
    return Needs(
        tokens=0 if fits else sum(map(_least_tokens, texts)),
        tools=bool(prompt.tools) or any(message.tool_calls or message.role is Role.TOOL for message in messages),
        images=any(_shows_pictures(message) for message in messages),
        schema=prompt.response_schema is not None,
        sampling=prompt.temperature is not None or prompt.top_p is not None,
    )


def _shows_pictures(message: Message) -> bool:
    return not isinstance(message.content, str) and any(isinstance(part, Image) for part in message.content)


def _least_tokens(text: str) -> int:
    runs = text.split()
    words = sum(map(str.isalnum, map(_first_character, runs)))
    # Of each 256 characters one token is that of the word, which is counted already.
    return words + sum(length // (2 * LONGEST_TOKEN) for length in map(len, runs) if length >= 2 * LONGEST_TOKEN)
