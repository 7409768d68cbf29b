"""How providers refuse reasoning that goes back to them: who else has sealed it cannot be seen from the outside. Pure.

A signature says over which protocol it came. Not by which account, which provider of that protocol or which generation
of models it was made, and others cannot open it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from attrs import evolve

from wizard_actors.providers.refusals import ErrorBody
from wizard_actors.types import Message

__all__ = ["refuses_thoughts", "without_thoughts"]

LONGEST_SEARCHED: Final = 3000
"""Characters of a refusal that are looked at; what it is about comes first."""

REFUSED_CODE: Final = "invalid_encrypted_content"

REFUSED: Final = re.compile(
    r"encrypted[ _]content\b.{0,200}could not be|could not decrypt.{0,80}encrypted"  # OpenAI, xAI
    r"|item.{0,100}of type .reasoning. was provided without"
    r"|(?:signature|data)\W{1,4}in\W{1,4}(?:redacted_)?thinking"  # Anthropic
    r"|thinking\W{1,3}blocks?\b.{0,60}cannot be modified"
    r"|(?:invalid|corrupted) thought[_ ]?signature|thought[_ ]?signature.{0,30}not valid",  # Google
    re.IGNORECASE | re.DOTALL,
)


def refuses_thoughts(refused: ErrorBody) -> bool:
    """Whether a 400 or 422 refuses the reasoning in the conversation, rather than the conversation."""
    return REFUSED_CODE in refused.codes or REFUSED.search(refused.message[:LONGEST_SEARCHED]) is not None


def without_thoughts(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return the conversation without reasoning and signatures: what was said, and what was called."""
    return tuple(_plain(message) if message.thoughts or message.tool_calls else message for message in messages)


def _plain(message: Message) -> Message:
    return evolve(message, thoughts=(), tool_calls=[evolve(call, signature=None) for call in message.tool_calls])
