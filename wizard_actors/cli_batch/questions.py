"""What a line of a batch's input may hold, and the prompt that it means."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec
from attrs import frozen

from wizard_actors.cli_batch.lines import Line
from wizard_actors.errors import InvalidPromptError
from wizard_actors.types import Content, Image, Message, Prompt, Role, Text, Tool, ToolCall

__all__ = ["LONGEST_LINE", "Question", "question_of"]

LONGEST_LINE: Final = 16 * 2**20
"""Bytes of an input line, at most."""

Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object of the input. A key that is unknown is an error: it was meant to do something."""


class TextGiven(Given, frozen=True, tag_field="type", tag="text"):
    """A part of a message: some text."""

    text: str


class ImageGiven(Given, frozen=True, tag_field="type", tag="image"):
    """A part of a message: a picture, `data` in base64."""

    url: str | None = None
    data: bytes | None = None
    media_type: str | None = None


class CallGiven(Given, frozen=True):
    """A call of a tool that the assistant made."""

    id: str
    name: str
    arguments: str


class MessageGiven(Given, frozen=True):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[TextGiven | ImageGiven] = ""
    tool_calls: list[CallGiven] = []
    tool_call_id: str | None = None
    name: str | None = None
    is_error: bool = False

    def message(self) -> Message:
        """Return the message."""
        content: Content = self.content if isinstance(self.content, str) else tuple(map(_part, self.content))
        calls = [ToolCall(call.id, call.name, call.arguments) for call in self.tool_calls]
        return Message(Role(self.role), content, calls, self.tool_call_id, self.name, is_error=self.is_error)


def _part(given: TextGiven | ImageGiven) -> Text | Image:
    return Text(given.text) if isinstance(given, TextGiven) else Image(given.url, given.data, given.media_type)


class ToolGiven(Given, frozen=True):
    """A tool that the model may call."""

    name: str
    description: str = ""
    parameters: dict[str, object] = {}
    strict: bool = False


class LineGiven(Given, frozen=True):
    """A line that is an object: the fields of a `Prompt`, and an `id` that is repeated in the output."""

    prompt: str | list[MessageGiven]
    id: str | int | None = None
    system: str | None = None
    tools: list[ToolGiven] = []
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    response_schema: dict[str, object] | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] = []
    seed: Seed | None = None
    extra: dict[str, object] = {}
    extra_protocol: str | None = None

    def as_prompt(self) -> Prompt:
        """Return the prompt; raises `InvalidPromptError` for one that no model can be asked."""
        return Prompt(
            _checked(self.prompt) if isinstance(self.prompt, str) else [each.message() for each in self.prompt],
            system=self.system,
            tools=[Tool(each.name, each.description, each.parameters, each.strict) for each in self.tools],
            tool_choice=self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls,
            response_schema=self.response_schema,
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            stop=self.stop,
            seed=self.seed,
            extra=self.extra,
            extra_protocol=self.extra_protocol,
        )


def _checked(text: str) -> str:
    if not text.strip():
        raise InvalidPromptError("the prompt is empty")
    return text


@frozen
class Question:
    """One line of the input, ready to be asked."""

    line: int
    id: str | int | None
    digest: str
    prompt: Prompt


DECODER: Final = msgspec.json.Decoder(str | LineGiven)
KEYS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

FOREIGN: Final = frozenset({"custom_id", "body", "messages"})
"""Keys of lines for OpenAI's batch endpoint and the like."""
HINT: Final = 'a line here is {"id": ..., "prompt": ...}, and messages are a list under "prompt"'
OPENAIS: Final = {
    b"image_url": 'a picture here is {"type": "image", "url": ...}, or "data" in base64 with "media_type"',
    b"function": 'a tool here is {"name": ..., "description": ..., "parameters": ...}, a call {"id": ..., "name": ..., '
    '"arguments": ...}',
}
"""What to say of pictures, tools and calls as OpenAI's protocol has them, by the word that gives them away."""


def question_of(line: Line) -> Question:
    """Return what a line asks. Raises `InvalidPromptError`, which says what is wrong with the line."""
    if line.text is None:
        raise InvalidPromptError(f"it is longer than {LONGEST_LINE} bytes")
    try:
        line.text.decode()
        given = DECODER.decode(line.text)
    except UnicodeDecodeError as error:
        raise InvalidPromptError(f"it is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise InvalidPromptError("it is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise InvalidPromptError(f"{error}{_hint(line.text)}") from None
    asked = LineGiven(given) if isinstance(given, str) else given
    return Question(line.number, asked.id, line.digest, asked.as_prompt())


def _hint(text: bytes) -> str:
    """Return what to say to a line that was written for somebody else; nothing where it was not."""
    try:
        foreign = sorted(FOREIGN & KEYS.decode(text).keys())
    except (msgspec.DecodeError, RecursionError):
        return ""
    if foreign:
        return f" ({', '.join(foreign)}: as in OpenAI's batch format; {HINT})"
    said = [hint for word, hint in OPENAIS.items() if re.search(rb'"type"\s*:\s*"%s"' % word, text) is not None]
    return f" (as in OpenAI's protocol; {'; '.join(said)})" if said else ""
