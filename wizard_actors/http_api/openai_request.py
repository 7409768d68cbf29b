"""A Chat Completions request as a prompt. Pure.

What a prompt can say goes into it; what says nothing about the answer is passed over (`IGNORED`), and so is what is the
format's own default (`DEFAULTS`); what cannot be done is refused (`REFUSED`); all the rest is the prompt's `extra`,
which is marked as this protocol's. Of messages, parts and tools, what a prompt has no place for is passed over:
clients send much of what they were sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

from wizard_actors.config.values import closest
from wizard_actors.errors import InvalidPromptError
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.fields import BadRequestError, Fields, said
from wizard_actors.providers.openai_chunks import PROTOCOL, ChunkReader
from wizard_actors.providers.refusals import Head
from wizard_actors.streaming import Assembly
from wizard_actors.types import (
    Content,
    Image,
    Message,
    ModelEvent,
    Prompt,
    Role,
    Signature,
    Text,
    Thought,
    Tool,
    ToolCall,
)

__all__ = ["OWN", "meant", "read"]

T = TypeVar("T")

OWN: Final = "wizard"
"""The key of what this format has no place for: in an assistant's message the signatures that providers want back with
their thoughts and calls. Clients send it back with the message, as the official SDK does.
"""

CARRIED: Final = frozenset(
    {
        "model",
        "messages",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "temperature",
        "top_p",
        "max_completion_tokens",
        "max_tokens",
        "stop",
        "seed",
        "stream",
        "stream_options",
    }
)
"""The fields that are read one by one."""

IGNORED: Final = frozenset(
    {
        "metadata",  # for OpenAI's own records
        "moderation",  # beside the answer, not of it
        "prediction",  # makes the answer come sooner, not another
        "prompt_cache_key",  # what the provider keeps of the prompt, as the three below
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",  # who asks, as OpenAI wants to know it of its customers
        "service_tier",  # speed and price: the affair of whoever configures the model
        "store",  # whether OpenAI keeps the answer
        "usage",  # OpenRouter's way of asking for the usage, which is told anyhow
        "user",  # who asks, as above
    }
)
"""The fields that say nothing about the answer."""

DEFAULTS: Final[Mapping[str, object]] = MappingProxyType(
    {
        "frequency_penalty": 0,
        "functions": [],
        "logit_bias": {},
        "logprobs": False,
        "modalities": ["text"],
        "n": 1,
        "parallel_tool_calls": True,
        "presence_penalty": 0,
        "top_logprobs": 0,
        "top_p": 1,
        "verbosity": "medium",
    }
)
"""The values that are the same as none."""

ELSEWHERE: Final[Mapping[str, str]] = MappingProxyType({"output_format": "response_format", "stop_sequences": "stop"})
"""What fields of Messages are called here."""

OLD_CHOICES: Final = ("none", "auto")
"""What the old form of `tool_choice` may say: nothing, where there are no `functions`."""

REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "audio": "cannot be had: answers are text; leave it out",
        "functions": "is the old form of `tools`: use that",
        "function_call": "is the old form of `tool_choice`: use that",
        "logprobs": "must be false: the probabilities of tokens are not told",
        "modalities": 'must be ["text"]: answers are text',
        "n": "must be 1: a request has one answer; for more send it again",
        "top_logprobs": "must be 0: the probabilities of tokens are not told",
    }
)
"""The fields that nothing but their default can be done for, and what to do instead."""

ROLES: Final[Mapping[str, Role]] = MappingProxyType(
    {
        "developer": Role.SYSTEM,
        "system": Role.SYSTEM,
        "user": Role.USER,
        "assistant": Role.ASSISTANT,
        "tool": Role.TOOL,
    }
)

CHOICES: Final = ("none", "auto", "required")

THINKING: Final = "thinking"
"""The type of a part of an assistant's content in which Mistral has what its models show of their reasoning."""

SHOWING: Final = frozenset({Role.USER, Role.TOOL})
"""Whose messages may hold pictures."""

REASONING: Final = ("reasoning_content", "reasoning", "reasoning_details")
"""The fields in which clients send back what they were shown of a model's reasoning."""


def read(body: object) -> Asked:
    """Return what a body asks for. Raises `BadRequestError`, and `InvalidPromptError` for what is wrong as a whole."""
    fields = Fields.of(body)
    name = fields.needed_text("model")
    if not name:
        raise fields.wrong("model", "must be the name of a model, and is empty")
    given = Fields({name: value for name, value in fields.given.items() if not _is_default(name, value)})
    for field, reason in REFUSED.items():
        if given.get(field) is not None:
            raise given.wrong(field, reason)
    options = given.inner("stream_options")
    return Asked(
        name,
        _prompt(given),
        stream=given.flag("stream") or False,
        include_usage=(options is not None and options.flag("include_usage")) or False,
    )


def meant(name: str) -> str | None:
    """Return the field that somebody meant who wrote `name`, None where nothing is near."""
    return ELSEWHERE.get(name) or closest(name, sorted(CARRIED | IGNORED | DEFAULTS.keys()))


def _is_default(name: str, value: object) -> bool:
    if name == "function_call":
        return isinstance(value, str) and value in OLD_CHOICES
    default = DEFAULTS.get(name)
    return value == default and isinstance(value, bool) == isinstance(default, bool)  # true is no 1


def _prompt(fields: Fields) -> Prompt:
    if fields.items("messages") is None:
        raise fields.missing("messages")
    tools, choice = _choice(fields, [_at(tool.place, _tool, tool) for tool in fields.each("tools")])
    parallel = fields.flag("parallel_tool_calls")
    schema, extra = _schema(fields), fields.rest(CARRIED | IGNORED)
    if schema is None and _format(fields) == "json_object":
        extra["response_format"] = {"type": "json_object"}  # JSON of any form: no schema says that everywhere
    return Prompt(
        [_at(message.place, _message, message) for message in fields.each("messages")],
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel if tools else None,  # says nothing without any
        response_schema=schema,
        temperature=_number(fields, "temperature", 2),
        top_p=_number(fields, "top_p", 1),
        max_tokens=_bound(fields),
        stop=fields.texts("stop"),
        seed=fields.whole("seed"),
        extra=extra,
        extra_protocol=PROTOCOL if extra else None,
    )


def _at(place: str, make: Callable[[Fields], T], fields: Fields) -> T:
    """Return what is made of the fields at a place; what is wrong with it is told with the place."""
    try:
        return make(fields)
    except InvalidPromptError as error:
        raise BadRequestError(f"`{place}`: {error.message}", param=place) from error


def _number(fields: Fields, name: str, most: int) -> float | None:
    value = fields.number(name)
    if value is not None and not 0 <= value <= most:
        raise fields.wrong(name, f"must be from 0 to {most}")
    return value


def _bound(fields: Fields) -> int | None:
    """Return the bound of the answer, by its name of today or its old one."""
    bound, old = fields.whole("max_completion_tokens"), fields.whole("max_tokens")
    if None not in {bound, old} and bound != old:
        raise fields.wrong("max_tokens", "is the old name of `max_completion_tokens`, and says otherwise: give one")
    for name, value in (("max_completion_tokens", bound), ("max_tokens", old)):
        if value is not None and value < 1:
            raise fields.wrong(name, "must be at least 1")
    return old if bound is None else bound


# -- messages ----------------------------------------------------------------------------------------


def _message(fields: Fields) -> Message:
    said_by = fields.one_of("role", ROLES)
    if said_by is None:
        raise fields.missing("role")
    role = ROLES[said_by]
    for name in ("audio", "function_call"):
        if fields.get(name) is not None:
            raise fields.wrong(name, "cannot be sent to a model: say it as `content` or `tool_calls`")
    own = fields.inner(OWN) if role is Role.ASSISTANT else None
    return Message(
        role,
        _content(fields, role),
        tool_calls=_calls(fields, own),
        tool_call_id=fields.needed_text("tool_call_id") if role is Role.TOOL else fields.text("tool_call_id"),
        name=fields.text("name"),
        thoughts=_thoughts(fields, own) if role is Role.ASSISTANT else (),
    )


def _content(fields: Fields, role: Role) -> Content:
    content = fields.get("content")
    if not content and role is Role.ASSISTANT and content in (None, "", []):
        return fields.text("refusal") or ""  # a refusal is what the model had to say
    if isinstance(content, str):
        return content
    if content is None:
        raise fields.missing("content")
    if not isinstance(content, list):
        raise fields.no("content", "a text, or a list of parts")
    parts = [part for part in fields.each("content") if role is not Role.ASSISTANT or part.get("type") != THINKING]
    return tuple(_at(part.place, lambda each: _part(each, role), part) for part in parts)


def _part(fields: Fields, role: Role) -> Text | Image:
    kind = fields.needed_text("type")
    if kind in {"text", "refusal"}:
        return Text(fields.needed_text(kind))
    if kind == "image_url" and role in SHOWING:
        return Image(url=fields.needed_inner(kind).needed_text("url"))  # `detail` has no place in a prompt
    taken = "text or image_url" if role in SHOWING else "text"
    raise fields.wrong("type", f"must be {taken} in a message of the {role}, not {said(kind)}")


def _calls(fields: Fields, own: Fields | None) -> Sequence[ToolCall]:
    signed = {call.needed_text("id"): _signature(call) for call in own.each("calls")} if own is not None else {}
    return [_call(call, signed) for call in fields.each("tool_calls")]


def _call(fields: Fields, signed: Mapping[str, Signature | None]) -> ToolCall:
    fields.one_of("type", ("function",))
    call_id, function = fields.needed_text("id"), fields.needed_inner("function")
    arguments = function.get("arguments")
    written = arguments if isinstance(arguments, dict) else function.text("arguments") or ""
    return ToolCall(call_id, function.needed_text("name"), written, signed.get(call_id))


def _thoughts(fields: Fields, own: Fields | None) -> Sequence[Thought]:
    """Return the reasoning in an assistant's message: as we wrote it, or as other endpoints do."""
    if own is not None and own.items("thoughts"):
        return [
            Thought(thought.text("text") or "", _signature(thought), bool(thought.flag("redacted")), thought.text("id"))
            for thought in own.each("thoughts")
        ]
    shown = {name: fields.given[name] for name in REASONING if fields.get(name) is not None}
    if not shown and isinstance(fields.get("content"), list):
        parts = [part.given for part in fields.each("content") if part.get("type") == THINKING]
        shown = {"content": parts} if parts else {}
    if not shown:
        return ()
    events: list[ModelEvent] = []
    try:
        # As an answer is read: it was one.
        ChunkReader(Head("", 200)).read({"choices": [{"message": shown, "finish_reason": "stop"}]}, events, whole=True)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise fields.wrong("reasoning_details", "cannot be written as JSON") from error
    assembly = Assembly()
    assembly.extend(events)
    return assembly.thoughts


def _signature(fields: Fields) -> Signature | None:
    value = fields.text("signature")
    return None if value is None else Signature(fields.needed_text("protocol"), value)


# -- tools and schemas -------------------------------------------------------------------------------


def _tool(fields: Fields) -> Tool:
    kind = fields.needed_text("type")
    if kind != "function":
        raise fields.wrong("type", f"must be function: other tools have no place in a prompt, not {said(kind)}")
    function = fields.needed_inner("function")
    return Tool(
        function.needed_text("name"),
        function.text("description") or "",
        function.mapping("parameters") or {},
        strict=function.flag("strict") or False,
    )


def _choice(fields: Fields, tools: Sequence[Tool]) -> tuple[Sequence[Tool], str | None]:
    """Return the tools that may be called, and which of them is to be. "auto" is the default."""
    given = fields.get("tool_choice")
    if given is None or isinstance(given, str):
        return tools, _word(fields.one_of("tool_choice", CHOICES), tools)
    if not isinstance(given, dict):
        raise fields.no("tool_choice", "a text, or an object")
    choice = fields.needed_inner("tool_choice")
    kind, known = choice.one_of("type", ("function", "allowed_tools", *CHOICES)), {tool.name for tool in tools}
    if kind in CHOICES:  # the word as others write it
        return tools, _word(kind, tools)
    if kind != "allowed_tools":
        return tools, _named(choice, known)
    allowed = choice.needed_inner("allowed_tools")
    names = {_named(each, known) for each in allowed.each("tools")}
    if not names:
        raise allowed.missing("tools")
    must = allowed.one_of("mode", ("auto", "required")) == "required"
    return [tool for tool in tools if tool.name in names], "required" if must else None


def _word(word: str | None, tools: Sequence[Tool]) -> str | None:
    return word if word == "required" or (word == "none" and tools) else None


def _named(fields: Fields, known: Collection[str]) -> str:
    """Return the name of a function that has to be one of the tools; a prompt tells it from a word by that."""
    function = fields.needed_inner("function")
    name = function.needed_text("name")
    if name in CHOICES or name not in known:
        raise function.wrong(
            "name", f"must be the name of one of `tools`, and no word of `tool_choice`, not {said(name)}"
        )
    return name


def _format(fields: Fields) -> str | None:
    wanted = fields.inner("response_format")
    if wanted is None:
        return None
    kind = wanted.one_of("type", ("text", "json_object", "json_schema"))
    if kind is None:
        raise wanted.missing("type")
    return kind


def _schema(fields: Fields) -> Mapping[str, object] | None:
    """Return the schema that the answer has to follow, with its name as its title, from which providers make it again.

    Whether providers are to guarantee it (`strict`) is not asked: they do where they can.
    """
    if _format(fields) != "json_schema":
        return None
    described = fields.needed_inner("response_format").needed_inner("json_schema")
    schema = described.mapping("schema")
    if schema is None:
        raise described.missing("schema")
    described.flag("strict")
    about = {"title": described.text("name"), "description": described.text("description")}
    return {**{keyword: text for keyword, text in about.items() if text}, **schema}
