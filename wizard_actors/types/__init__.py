"""What goes in and what comes out: prompts, messages, tools, responses and stream events. All frozen values."""

from wizard_actors.types.answer import (
    FinishReason,
    LimitHeaders,
    LimitWindow,
    ServedBy,
    TokenUsage,
    WizardResponse,
)
from wizard_actors.types.message import Message, Role
from wizard_actors.types.parts import Content, Image, Signature, Text, Thought, ToolCall
from wizard_actors.types.prompt import Prompt
from wizard_actors.types.stream import (
    ContentDelta,
    End,
    Finished,
    ModelEvent,
    Raw,
    ReasoningDelta,
    Reset,
    StreamEvent,
    TextDelta,
    ThoughtEnded,
    ToolCallDelta,
    UsageUpdate,
)
from wizard_actors.types.tool import Tool

__all__ = [
    "Content",
    "ContentDelta",
    "End",
    "FinishReason",
    "Finished",
    "Image",
    "LimitHeaders",
    "LimitWindow",
    "Message",
    "ModelEvent",
    "Prompt",
    "Raw",
    "ReasoningDelta",
    "Reset",
    "Role",
    "ServedBy",
    "Signature",
    "StreamEvent",
    "Text",
    "TextDelta",
    "Thought",
    "ThoughtEnded",
    "TokenUsage",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "UsageUpdate",
    "WizardResponse",
]
