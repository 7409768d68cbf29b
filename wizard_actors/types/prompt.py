"""What goes in: prompts, messages, tools. All frozen values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeAlias

from attrs import Factory, field, frozen

from wizard_actors.errors import InvalidPromptError

__all__ = ["Content", "Image", "Message", "Prompt", "Role", "Signature", "Text", "Thought", "Tool", "ToolCall"]


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@frozen
class Text:
    """A piece of text in a message of several parts."""

    text: str


@frozen
class Image:
    """A picture: either a `url`, or `data` with its `media_type` ("image/png")."""

    url: str | None = None
    data: bytes | None = field(default=None, repr=False)
    media_type: str | None = None

    def __attrs_post_init__(self) -> None:
        if (self.url is None) == (self.data is None):
            raise InvalidPromptError("an Image takes either a url or data, and just one of them")
        if self.data is not None and self.media_type is None:
            raise InvalidPromptError("an Image made of data needs its media_type, such as 'image/png'")


Content: TypeAlias = "str | tuple[Text | Image, ...]"
"""A message's content: plain text, or parts."""


@frozen
class Signature:
    """An opaque proof that a model's provider wants back, unchanged, with what it belongs to.

    `protocol` names the wire protocol it came over ("anthropic", "gemini", "responses"): to models behind any other it
    means nothing, and is not sent.
    """

    protocol: str
    value: str = field(repr=False)


@frozen
class Thought:
    """A piece of a model's reasoning, to be sent back with the rest of its message.

    `redacted`: the provider shows none of it, the `signature` is all there is. `id` is the provider's own.
    """

    text: str = ""
    signature: Signature | None = None
    redacted: bool = False
    id: str | None = None


@frozen
class ToolCall:
    """A model's request to call a tool; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str
    signature: Signature | None = None


def _as_role(value: str) -> Role:
    try:
        return Role(value)
    except ValueError:
        raise InvalidPromptError(f"a message's role is one of {', '.join(Role)}, not {value!r}") from None


def _as_content(value: str | Iterable[Text | Image]) -> Content:
    if not isinstance(value, Iterable):
        raise InvalidPromptError(f"a message's content is a text, or parts of one, not {value!r}")
    return str(value) if isinstance(value, str) else tuple(value)  # of a subclass the text: others make JSON of it


def _as_calls(calls: Iterable[ToolCall]) -> tuple[ToolCall, ...]:
    return tuple(calls)


def _as_thoughts(thoughts: Iterable[Thought]) -> tuple[Thought, ...]:
    return tuple(thoughts)


@frozen
class Message:
    """One message of a conversation.

    `tool_calls` and `thoughts` belong to the assistant's messages: append `response.message` and both are right.
    `tool_call_id` names the call that a tool's message answers; `is_error`: it tells that the tool has failed.
    """

    role: Role = field(converter=_as_role)
    content: Content = field(default="", converter=_as_content)
    tool_calls: tuple[ToolCall, ...] = field(default=(), converter=_as_calls)
    tool_call_id: str | None = None
    name: str | None = None
    thoughts: tuple[Thought, ...] = field(default=(), converter=_as_thoughts)
    is_error: bool = False

    @property
    def text(self) -> str:
        """The content's text, its parts joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, Text))

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.content, str) and not all(isinstance(part, Text | Image) for part in self.content):
            raise InvalidPromptError("a message's content is a text, or parts that are Text or Image objects")
        if not all(isinstance(call, ToolCall) for call in self.tool_calls):
            raise InvalidPromptError("the tool_calls of a message are ToolCall objects")
        if not all(isinstance(thought, Thought) for thought in self.thoughts):
            raise InvalidPromptError("the thoughts of a message are Thought objects")
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise InvalidPromptError(
                f"the {self.role} message is not valid Unicode text: {error.reason} at character {error.start}"
            ) from error
        if self.role is Role.TOOL and not self.tool_call_id:
            raise InvalidPromptError("a tool message needs the tool_call_id of the call that it answers")


@frozen
class Tool:
    """A function that a model may call; `parameters` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] = Factory(dict)
    strict: bool = False


def _as_messages(value: str | Message | Iterable[Message]) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message(Role.USER, value),)
    return (value,) if isinstance(value, Message) else tuple(value)


def _as_tools(tools: Iterable[Tool]) -> tuple[Tool, ...]:
    return tuple(tools)


def _as_stop(value: str | Iterable[str]) -> tuple[str, ...]:
    if not isinstance(value, Iterable):
        raise InvalidPromptError(f"stop is a text, or several, not {value!r}")
    return (value,) if isinstance(value, str) else tuple(value)


@frozen
class Prompt:
    """A question for a model: plain text, or the messages of a conversation, and how to answer.

    `Prompt("Why?", system="Be brief")` or `Prompt([Message("user", "Why?"), ...])`. Generation parameters that are None
    are left to the model: `temperature`, `top_p`, `max_tokens` (of the answer), `stop` (sequences that end it), `seed`.
    `tool_choice` is "auto", "none", "required" or a tool's name. `response_schema` is a JSON Schema that the answer has
    to follow. `extra` goes into the provider's request body as it is.

    Raises `InvalidPromptError` for a prompt without any content, or one that is not valid Unicode.
    """

    messages: tuple[Message, ...] = field(converter=_as_messages)
    system: str | None = field(default=None, kw_only=True)
    tools: tuple[Tool, ...] = field(default=(), converter=_as_tools, kw_only=True)
    tool_choice: str | None = field(default=None, kw_only=True)
    response_schema: Mapping[str, object] | None = field(default=None, kw_only=True)
    temperature: float | None = field(default=None, kw_only=True)
    top_p: float | None = field(default=None, kw_only=True)
    max_tokens: int | None = field(default=None, kw_only=True)
    stop: tuple[str, ...] = field(default=(), converter=_as_stop, kw_only=True)
    seed: int | None = field(default=None, kw_only=True)
    extra: Mapping[str, object] = field(factory=dict, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not all(isinstance(message, Message) for message in self.messages):
            raise InvalidPromptError("a Prompt takes a text or Message objects")
        if not any(message.content or message.tool_calls for message in self.messages):
            raise InvalidPromptError("the prompt is empty")
        if not any(message.role is not Role.SYSTEM for message in self.messages):
            raise InvalidPromptError("the prompt has system messages only; a model needs something to answer")
        self._check_parameters()
        if self.system is not None:
            Message(Role.SYSTEM, self.system)  # the same check of its text

    def _check_parameters(self) -> None:
        if not all(isinstance(tool, Tool) for tool in self.tools):
            raise InvalidPromptError("the tools of a Prompt are Tool objects")
        if not isinstance(self.response_schema, Mapping | None):
            raise InvalidPromptError("a response_schema is a JSON Schema, as a mapping")
        for name in ("temperature", "top_p"):
            if not isinstance(getattr(self, name), float | int | None):
                raise InvalidPromptError(f"{name} must be a number, not {getattr(self, name)!r}")
        for name in ("max_tokens", "seed"):
            if not isinstance(getattr(self, name), int | None):
                raise InvalidPromptError(f"{name} must be a whole number, not {getattr(self, name)!r}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise InvalidPromptError(f"max_tokens must be at least 1, not {self.max_tokens}")

    @property
    def conversation(self) -> tuple[Message, ...]:
        """All messages, `system` first where it is given."""
        return self.messages if self.system is None else (Message(Role.SYSTEM, self.system), *self.messages)
