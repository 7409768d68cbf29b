"""What goes in and what comes out: prompts, messages, tools, responses and stream events. All frozen values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import ClassVar, Literal, TypeAlias

from attrs import Factory, field, frozen

from wizard_actors.errors import Attempt, InvalidPromptError

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
    "ReasoningDelta",
    "Reset",
    "Role",
    "ServedBy",
    "StreamEvent",
    "Text",
    "TextDelta",
    "TokenUsage",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "UsageUpdate",
    "WizardResponse",
]


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(StrEnum):
    """Why an answer ended, the same words for every provider. OTHER: look at `raw_finish_reason`."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    OTHER = "other"


class ServedBy(StrEnum):
    """Which step of the way answered: the cache, the first try, a further try of the same model, another model of the
    route; or, when all of them failed, an expired entry of the cache or the route's static answer.
    """

    CACHE = "cache"
    DIRECT = "direct"
    RETRY = "retry"
    FALLBACK = "fallback"
    STALE = "stale"
    STATIC = "static"


# -- prompts -----------------------------------------------------------------------------------------


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
class ToolCall:
    """A model's request to call a tool; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


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


@frozen
class Message:
    """One message of a conversation.

    `tool_calls` belongs to the assistant's messages, `tool_call_id` names the call that a tool's message answers.
    """

    role: Role = field(converter=_as_role)
    content: Content = field(default="", converter=_as_content)
    tool_calls: tuple[ToolCall, ...] = field(default=(), converter=_as_calls)
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The content's text, its parts joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, Text))

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.content, str) and not all(isinstance(part, Text | Image) for part in self.content):
            raise InvalidPromptError("a message's content is a text, or parts that are Text or Image objects")
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


# -- answers -----------------------------------------------------------------------------------------


@frozen
class TokenUsage:
    """Tokens that one answer used. `input_tokens` includes the cached ones, `output_tokens` the reasoning ones."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def to_dict(self) -> dict[str, int]:
        """Return the counts, the total among them."""
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "total_tokens": self.total_tokens,
        }


@frozen
class WizardResponse:
    """A whole answer, and how it came about.

    `model` is the configured name of the model that answered, `upstream_model` what the provider says of itself.
    `usage` and `cost` are None where the provider did not say or no price is known. `attempts` lists every attempt of
    this request, in the order of their beginning. `request_id` is ours, and runs through logs and headers.

    `cached`: another request's answer, from the cache or shared while it arrived; it cost nothing. `stale`: its time in
    the cache had passed, or it was to be refreshed, and every model failed. A static answer has no model: that is "".
    """

    text: str
    model: str
    upstream_model: str | None = None
    usage: TokenUsage | None = None
    cost: Decimal | None = None
    finish_reason: FinishReason = FinishReason.STOP
    raw_finish_reason: str | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    served_by: ServedBy = ServedBy.DIRECT
    cached: bool = False
    stale: bool = False
    request_id: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return the response in JSON's types, as `wizard ask --json` prints it."""
        shown: dict[str, object] = {
            "text": self.text,
            "model": self.model,
            "upstream_model": self.upstream_model,
            "usage": None if self.usage is None else self.usage.to_dict(),
            "finish_reason": self.finish_reason.value,
            "attempts": [attempt.to_dict() for attempt in self.attempts],
            "cost": None if self.cost is None else str(self.cost),
            "served_by": self.served_by.value,
            "cached": self.cached,
            "stale": self.stale,
            "request_id": self.request_id,
        }
        if self.reasoning:
            shown["reasoning"] = self.reasoning
        if self.tool_calls:
            shown["tool_calls"] = [
                {"id": call.id, "name": call.name, "arguments": call.arguments} for call in self.tool_calls
            ]
        return shown


@frozen
class LimitWindow:
    """One limit as an answer's headers state it: `limit` a window, `remaining` in it, `reset` seconds until it is full.

    None where a header is missing or absurd.
    """

    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None


@frozen
class LimitHeaders:
    """What one answer's headers say of its account's limits, and for how many seconds they ask us to stay away."""

    requests: LimitWindow | None = None
    tokens: LimitWindow | None = None
    retry_after: float | None = None


# -- streams -----------------------------------------------------------------------------------------


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
class ToolCallDelta:
    """Some more of the tool call number `index`; `id` and `name` come once, `arguments` in pieces of JSON text."""

    type: ClassVar[Literal["tool_call"]] = "tool_call"
    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""

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


ContentDelta: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta
"""What counts as a first token, and what cannot be taken back once delivered."""

ModelEvent: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta | UsageUpdate | Finished
"""What a provider yields."""

StreamEvent: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta | UsageUpdate | Reset | End
"""What a consumer of a stream receives."""
