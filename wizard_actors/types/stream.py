"""What comes out in pieces: the events of streams. All frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, TypeAlias

from attrs import field, frozen

from wizard_actors.types.answer import FinishReason, TokenUsage, WizardResponse
from wizard_actors.types.parts import Signature

__all__ = [
    "ContentDelta",
    "End",
    "Finished",
    "ModelEvent",
    "Raw",
    "ReasoningDelta",
    "Reset",
    "StreamEvent",
    "TextDelta",
    "ThoughtEnded",
    "ToolCallDelta",
    "UsageUpdate",
]


@frozen
class TextDelta:
    """Some more of the answer's text."""

    type: ClassVar[Literal["text"]] = "text"
    text: str

    def to_dict(self) -> dict[str, object]:
        """Return `{type, text}`."""
        return {"type": self.type, "text": self.text}


@frozen
class ReasoningDelta:
    """Some more of the model's reasoning, which is no part of the answer."""

    type: ClassVar[Literal["reasoning"]] = "reasoning"
    text: str

    def to_dict(self) -> dict[str, object]:
        """Return `{type, text}`."""
        return {"type": self.type, "text": self.text}


@frozen
class ThoughtEnded:
    """A piece of the model's reasoning is complete, and this is what the provider wants back with it: see `Thought`."""

    type: ClassVar[Literal["thought"]] = "thought"
    signature: Signature | None = None
    redacted: bool = False
    id: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return `{type, redacted, id}`; the signature is for the provider alone."""
        return {"type": self.type, "redacted": self.redacted, "id": self.id}


@frozen
class ToolCallDelta:
    """Some more of the tool call number `index`; `id`, `name` and `signature` come once, `arguments` in pieces of JSON
    text.
    """

    type: ClassVar[Literal["tool_call"]] = "tool_call"
    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    signature: Signature | None = None

    def to_dict(self) -> dict[str, object]:
        """Return `{type, index, id, name, arguments}`."""
        return {
            "type": self.type,
            "index": self.index,
            "id": self.id,
            "name": self.name,
            "arguments": self.arguments,
        }


@frozen
class UsageUpdate:
    """What the answer has used so far; the last one counts."""

    type: ClassVar[Literal["usage"]] = "usage"
    usage: TokenUsage

    def to_dict(self) -> dict[str, object]:
        """Return `{type, usage}`."""
        return {"type": self.type, "usage": self.usage.to_dict()}


@frozen
class Reset:
    """Drop everything received so far: the answer broke off, and another model's whole answer follows."""

    type: ClassVar[Literal["reset"]] = "reset"
    model: str
    reason: str

    def to_dict(self) -> dict[str, object]:
        """Return `{type, model, reason}`; `model` is the one that broke off."""
        return {"type": self.type, "model": self.model, "reason": self.reason}


@frozen
class End:
    """The answer is complete: always the last event, and the only one that says so."""

    type: ClassVar[Literal["end"]] = "end"
    response: WizardResponse

    def to_dict(self) -> dict[str, object]:
        """Return `{type, <the response's fields>}`."""
        return {"type": self.type, **self.response.to_dict()}


@frozen
class Finished:
    """A model's own sign that its answer is complete. Providers yield it; the pipeline turns it into `End`."""

    reason: FinishReason
    raw: str | None = None


@frozen
class Raw:
    """A JSON object as it came over the wire, before the events in it; only where the call asks for it."""

    body: Mapping[str, object] = field(repr=False)


ContentDelta: TypeAlias = TextDelta | ReasoningDelta | ThoughtEnded | ToolCallDelta
"""What counts as a first token, and what cannot be taken back once delivered."""

ModelEvent: TypeAlias = TextDelta | ReasoningDelta | ThoughtEnded | ToolCallDelta | UsageUpdate | Finished | Raw
"""What a provider yields."""

StreamEvent: TypeAlias = TextDelta | ReasoningDelta | ThoughtEnded | ToolCallDelta | UsageUpdate | Reset | End
"""What a consumer of a stream receives."""
