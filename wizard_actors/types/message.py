"""One message of a conversation."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from attrs import field, frozen

from wizard_actors.errors import InvalidPromptError
from wizard_actors.types.given import check_unicode, instance_of, several, shown
from wizard_actors.types.parts import Content, Image, Text, Thought, ToolCall

__all__ = ["Message", "Role"]


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


a_text_or_none: Final = instance_of("a text or None", str, None)


def _as_role(value: str) -> Role:
    if type(value) is Role:
        return value
    try:
        return Role(value)
    except ValueError:
        raise InvalidPromptError(f"a message's role is one of {', '.join(Role)}, not {shown(value)}") from None


def _as_content(value: str | Iterable[Text | Image]) -> Content:
    if isinstance(value, str):
        return str(value)  # of a subclass the text: others make JSON of it
    if not isinstance(value, Iterable):
        raise InvalidPromptError(f"a message's content is a text, or parts of one, not {shown(value)}")
    parts = tuple(value)
    if not all(isinstance(part, Text | Image) for part in parts):
        raise InvalidPromptError("a message's content is a text, or parts that are Text or Image objects")
    return parts


def _as_calls(value: ToolCall | Iterable[ToolCall]) -> tuple[ToolCall, ...]:
    return several(value, ToolCall, "the tool_calls of a message") if value != () else ()


def _as_thoughts(value: Thought | Iterable[Thought]) -> tuple[Thought, ...]:
    return several(value, Thought, "the thoughts of a message") if value != () else ()


@frozen
class Message:
    """One message of a conversation.

    `tool_calls` and `thoughts` belong to the assistant's messages: append `response.message` and both are right.
    `tool_call_id` names the call that a tool's message answers; `is_error`: it tells that the tool has failed. `name`
    is the speaker's, where a protocol has a place for it.

    Raises `InvalidPromptError` for a field of another type, for one that is of another role, and for what is not valid
    Unicode.
    """

    role: Role = field(converter=_as_role)
    content: Content = field(default="", converter=_as_content)
    tool_calls: tuple[ToolCall, ...] = field(default=(), converter=_as_calls)
    tool_call_id: str | None = field(default=None, validator=a_text_or_none)
    name: str | None = field(default=None, validator=a_text_or_none)
    thoughts: tuple[Thought, ...] = field(default=(), converter=_as_thoughts)
    is_error: bool = field(default=False, validator=instance_of("True or False", bool))

    @property
    def text(self) -> str:
        """The content's text, its parts joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, Text))

    @property
    def speaks(self) -> bool:
        """Whether there is more in it than white space: words, a picture, a call of a tool, or the result of one."""
        if isinstance(self.content, str):
            said = bool(self.content) and not self.content.isspace()
        else:
            said = any(isinstance(part, Image) or part.text.strip() for part in self.content)
        return said or bool(self.tool_calls) or self.role is Role.TOOL

    def __attrs_post_init__(self) -> None:
        check_unicode(self.text, f"the {self.role} message")
        if self.tool_calls or self.thoughts or self.tool_call_id or self.is_error or self.role is Role.TOOL:
            self._check_role()

    def _check_role(self) -> None:
        if self.role is Role.TOOL and not self.tool_call_id:
            raise InvalidPromptError("a tool message needs the tool_call_id of the call that it answers")
        for name, owner in (
            ("tool_calls", Role.ASSISTANT),
            ("thoughts", Role.ASSISTANT),
            ("tool_call_id", Role.TOOL),
            ("is_error", Role.TOOL),
        ):
            if getattr(self, name) and self.role is not owner:
                raise InvalidPromptError(f"{name} belongs to messages of the {owner}, not to one of the {self.role}")
