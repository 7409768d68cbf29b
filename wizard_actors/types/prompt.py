"""What goes in: a prompt, and everything that it may say. All frozen values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import field, frozen

from wizard_actors.errors import InvalidPromptError
from wizard_actors.types.given import check_unicode, instance_of, several, shown
from wizard_actors.types.message import Message, Role
from wizard_actors.types.tool import Tool
from wizard_actors.types.tool_round import check_tool_rounds

__all__ = ["Prompt"]

CHOICES: Final = frozenset({"auto", "none", "required"})

NAMES_SHOWN: Final = 10
"""Of a prompt's tools, in an error."""


def _as_messages(value: str | Message | Iterable[Message]) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message(Role.USER, value),)
    return several(value, Message, "a Prompt takes a text or Message objects; its messages")


def _as_tools(value: Tool | Iterable[Tool]) -> tuple[Tool, ...]:
    return several(value, Tool, "the tools of a Prompt") if value != () else ()


def _as_stop(value: str | Iterable[str]) -> tuple[str, ...]:
    if value == ():
        return ()
    if not isinstance(value, Iterable):
        raise InvalidPromptError(f"stop is a text, or several, not {shown(value)}")
    return several(value, str, "the stop sequences of a Prompt")


@frozen
class Prompt:
    """A question for a model: plain text, or the messages of a conversation, and how to answer.

    `Prompt("Why?", system="Be brief")` or `Prompt([Message("user", "Why?"), ...])`. Generation parameters that are None
    are left to the model: `temperature` (from 0), `top_p` (0 to 1), `max_tokens` (of the answer, from 1), `stop`
    (sequences that end it), `seed`. `tool_choice` is "auto", "none", "required" or a tool's name. `response_schema` is
    a JSON Schema that the answer has to follow. `parallel_tool_calls` is False where one answer is to call one tool at
    most; a protocol without a word for that is not told.

    `extra` goes into the provider's request body as it is. Where `extra_protocol` names a protocol ("chat",
    "responses", "anthropic", "gemini"), it is in the words of that one: models that speak another get of it what theirs
    has, too.

    Raises `InvalidPromptError` for what no provider takes: a prompt in which nobody says anything, values of another
    type or beyond their range, results of tools without their calls and calls without their results (but for those of
    the last message), two tools of one name, a `tool_choice` without its tool.
    """

    messages: tuple[Message, ...] = field(converter=_as_messages)
    system: str | None = field(default=None, kw_only=True)
    tools: tuple[Tool, ...] = field(default=(), converter=_as_tools, kw_only=True)
    tool_choice: str | None = field(default=None, kw_only=True)
    parallel_tool_calls: bool | None = field(default=None, kw_only=True)
    response_schema: Mapping[str, object] | None = field(default=None, kw_only=True)
    temperature: float | None = field(default=None, kw_only=True)
    top_p: float | None = field(default=None, kw_only=True)
    max_tokens: int | None = field(default=None, kw_only=True)
    stop: tuple[str, ...] = field(default=(), converter=_as_stop, kw_only=True)
    seed: int | None = field(default=None, kw_only=True)
    extra: Mapping[str, object] = field(
        factory=dict, kw_only=True, validator=instance_of("a mapping: fields of the request's body", Mapping)
    )
    extra_protocol: str | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.system is not None:
            _check_system(self.system)
        self._check_messages()
        self._check_parameters()
        if self.tools:
            _check_names(self.tools)
        if self.tool_choice is not None:
            self._check_tool_choice(self.tool_choice)

    def _check_messages(self) -> None:
        speaks = others = tools = False
        for message in self.messages:
            if message.role is Role.SYSTEM:
                continue
            others = True
            speaks = speaks or message.speaks
            tools = tools or bool(message.tool_calls) or message.role is Role.TOOL
        if not speaks:
            systems_only = not others and any(message.speaks for message in self.messages)
            raise InvalidPromptError(
                "the prompt has system messages only; a model needs something to answer"
                if systems_only
                else "the prompt is empty: nobody but the system says anything other than white space"
            )
        if tools:
            check_tool_rounds(self.messages, self.extra)

    def _check_parameters(self) -> None:
        if not isinstance(self.response_schema, Mapping | None):
            raise InvalidPromptError("a response_schema is a JSON Schema, as a mapping")
        if not isinstance(self.parallel_tool_calls, bool | None):
            raise InvalidPromptError(f"parallel_tool_calls is True or False, not {shown(self.parallel_tool_calls)}")
        if not isinstance(self.extra_protocol, str | None):
            raise InvalidPromptError(f"extra_protocol is the name of a protocol, not {shown(self.extra_protocol)}")
        if self.temperature is not None:
            _check_number("temperature", self.temperature, math.inf)
        if self.top_p is not None:
            _check_number("top_p", self.top_p, 1.0)
        for name, value in (("max_tokens", self.max_tokens), ("seed", self.seed)):
            if not isinstance(value, int | None):
                raise InvalidPromptError(f"{name} must be a whole number, not {shown(value)}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise InvalidPromptError(f"max_tokens must be at least 1, not {self.max_tokens}")

    def _check_tool_choice(self, choice: object) -> None:
        names = [tool.name for tool in self.tools]
        own = "tools" in self.extra  # the provider's own stand there
        if not isinstance(choice, str) or not (own or choice in CHOICES or choice in names):
            raise InvalidPromptError(
                f'tool_choice is "auto", "none", "required" or the name of a tool of the prompt '
                f"({_list(names)}), not {shown(choice)}"
            )
        if choice == "required" and not (own or names):
            raise InvalidPromptError('tool_choice is "required", and the prompt has no tools')

    @property
    def conversation(self) -> tuple[Message, ...]:
        """All messages, `system` first where it is given."""
        return self.messages if self.system is None else (Message(Role.SYSTEM, self.system), *self.messages)


def _list(names: Sequence[str]) -> str:
    more = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{', '.join(names[:NAMES_SHOWN])}{more}" if names else "it has none"


def _check_system(system: object) -> None:
    if not isinstance(system, str):
        raise InvalidPromptError(f"the system of a Prompt is a text, not {shown(system)}")
    check_unicode(system, "the system message")


def _check_number(name: str, value: object, most: float) -> None:
    if not isinstance(value, float | int):
        raise InvalidPromptError(f"{name} must be a number, not {shown(value)}")
    if not 0 <= value <= most or value == math.inf:
        raise InvalidPromptError(
            f"{name} must be {'0 or more' if most == math.inf else f'from 0 to {most:g}'}, not {value}"
        )


def _check_names(tools: Sequence[Tool]) -> None:
    seen = set[str]()
    for tool in tools:
        if tool.name in seen:
            raise InvalidPromptError(f"two tools of the prompt are named {tool.name!r}: a call could mean either")
        seen.add(tool.name)
