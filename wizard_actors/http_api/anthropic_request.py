"""The body of a Messages request, as a prompt. Pure.

What it says stands in our types as follows; what has no place in them is in the tables below.

- Results of tools are blocks of the user there, and messages of their own here. They come before what else the user
  says beside them, wherever it stands: every provider wants them right behind their calls.
- Thoughts, text and calls of one message are its `thoughts`, its `content` and its `tool_calls`.
- Signatures and the ids of calls are opened, see `anthropic_proofs`; `{"INVALID_JSON": text}` is the text again.
- The blocks of a system text are joined, parted by a blank line.
- Fields that the format knows and our types do not, such as `thinking` and `top_k`, go into `extra`, which is marked as
  this protocol's.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from wizard_actors.config.values import closest
from wizard_actors.errors import InvalidPromptError
from wizard_actors.http_api.anthropic_answer import INVALID_JSON, arguments_in
from wizard_actors.http_api.anthropic_proofs import BrokenSealError, opened_id, opened_signature
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.fields import BadRequestError, Fields, said
from wizard_actors.providers.anthropic_events import PROTOCOL
from wizard_actors.types import Image, Message, Prompt, Role, Signature, Text, Thought, Tool, ToolCall

__all__ = ["asked", "meant"]

CARRIED: Final = frozenset(
    {"model", "messages", "max_tokens", "system", "tools", "tool_choice", "stop_sequences", "temperature", "top_p"}
    | {"output_config", "output_format", "stream"}
)

IGNORED: Final = frozenset(
    {
        "cache_control",  # where a provider may cache: its price, not its answer; a prompt has no such marks
        "context_management",  # what the provider is to clear of a conversation that has grown long, unasked nothing
        "diagnostics",  # asks why a cache was missed
        "metadata",  # who the caller's user is, for Anthropic's watch over abuse: our callers are known by their keys
    }
)
"""What says nothing about the answer."""

DEFAULTS: Final[Mapping[str, object]] = MappingProxyType(
    {"mcp_servers": [], "service_tier": "auto", "speed": "standard"}
)
"""What a field says that might as well not be there."""

ELSEWHERE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "max_completion_tokens": "max_tokens",
        "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
        "response_format": "output_config.format",
        "stop": "stop_sequences",
        "user": "metadata.user_id",
    }
)
"""What fields of Chat Completions are called here."""

REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "container": "is for tools that Anthropic runs, and is not possible here: run tools yourself",
        "mcp_servers": "is not possible here: call the server yourself, and offer its tools in `tools`",
    }
)

CHOICES: Final[Mapping[str, str]] = MappingProxyType({"auto": "auto", "any": "required", "none": "none"})

BLOCKS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "text": frozenset({"text"}),
        "image": frozenset({"source"}),
        "thinking": frozenset({"thinking", "signature"}),
        "redacted_thinking": frozenset({"data"}),
        "tool_use": frozenset({"id", "name", "input"}),
        "tool_result": frozenset({"tool_use_id", "content", "is_error"}),
    }
)
"""The fields of each block that can be carried, beside its type."""

BLOCK_IGNORED: Final = frozenset(
    {
        "cache_control",  # as above
        "citations",  # where an earlier answer had something from: the text stands without them
    }
)

BLOCK_DEFAULTS: Final[Mapping[str, object]] = MappingProxyType({"caller": {"type": "direct"}})

IN_SYSTEM: Final = ("text",)
IN_RESULT: Final = ("text", "image")
IN_USER: Final = ("text", "image", "tool_result")
IN_ASSISTANT: Final = ("text", "thinking", "redacted_thinking", "tool_use")

TOOL: Final = frozenset({"type", "name", "description", "input_schema", "strict"})

TOOL_IGNORED: Final = frozenset(
    {
        "cache_control",  # as above
        "eager_input_streaming",  # how large the pieces of a stream are: ours are the model's own
    }
)

TOOL_DEFAULTS: Final[Mapping[str, object]] = MappingProxyType(
    {"allowed_callers": ["direct"], "defer_loading": False, "input_examples": []}
)

NOTHING: Final[Mapping[str, object]] = MappingProxyType({})

PLACE: Final = re.compile(r"\Amessages\[(\d{1,9})\]")


def asked(value: object) -> Asked:
    """Return what a body asks for. Raises `BadRequestError` and `InvalidPromptError`."""
    body = Fields.of(value)
    for name, reason in REFUSED.items():
        if body.get(name) is not None and body.get(name) != DEFAULTS.get(name):
            raise body.wrong(name, reason)
    name, stream = body.needed_text("model"), body.flag("stream") or False
    try:
        return Asked(name, _prompt(body), stream=stream)
    except RecursionError as error:
        raise BadRequestError("the body nests too deeply") from error


def meant(name: str) -> str | None:
    """Return the field that somebody meant who wrote `name`, None where nothing is near."""
    return ELSEWHERE.get(name) or closest(name, sorted(CARRIED | IGNORED | DEFAULTS.keys()))


def _prompt(body: Fields) -> Prompt:
    messages, places = _messages(body)
    choice, parallel = _tool_choice(body)
    tools = [_tool(tool) for tool in body.each("tools")]
    schema, config_extra = _schema(body)
    extra = {**_rest(body, CARRIED | IGNORED, DEFAULTS), **config_extra}
    max_tokens = body.whole("max_tokens")
    if max_tokens is None:
        raise body.missing("max_tokens")
    try:
        return Prompt(
            messages,
            system=_system(body),
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=parallel if tools else None,
            response_schema=schema,
            temperature=body.number("temperature"),
            top_p=body.number("top_p"),
            max_tokens=max_tokens,
            stop=body.texts("stop_sequences"),
            extra=extra,
            extra_protocol=PROTOCOL if extra else None,
        )
    except InvalidPromptError as error:  # it counts our messages, of which one of theirs may have become several
        raise InvalidPromptError(PLACE.sub(lambda found: _place(found, places), str(error))) from error


def _place(found: re.Match[str], places: Sequence[int]) -> str:
    number = int(found[1])
    return f"messages[{places[number]}]" if number < len(places) else found[0]


def _rest(fields: Fields, known: Collection[str], defaults: Mapping[str, object]) -> dict[str, object]:
    """Return the fields that are not `known`, and say something."""
    found = fields.rest(known)
    return {name: value for name, value in found.items() if name not in defaults or value != defaults[name]}


def _only(fields: Fields, known: Collection[str], what: str, defaults: Mapping[str, object] = NOTHING) -> None:
    """Refuse an object that says more than can be carried: none of it is dropped unseen."""
    if left := next(iter(_rest(fields, known, defaults)), None):
        raise fields.wrong(left, f"is no field of {what} that is possible here")


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Tell of what makes no part of a prompt by its place."""
    try:
        yield
    except InvalidPromptError as error:
        raise BadRequestError(f"`{place}`: {error}", param=place) from error


# -- messages ----------------------------------------------------------------------------------------


def _messages(body: Fields) -> tuple[list[Message], list[int]]:
    """Return the messages, and for each the number of the one that it stands in."""
    if body.items("messages") is None:
        raise body.missing("messages")
    messages, places = list[Message](), list[int]()
    for number, fields in enumerate(body.each("messages")):
        _only(fields, {"role", "content"}, "a message")
        with _at(fields.place):
            found = _one_message(fields)
        messages += found
        places += [number] * len(found)
    return messages, places


def _one_message(fields: Fields) -> list[Message]:
    match fields.one_of("role", ("user", "assistant", "system")):
        case "user":
            return _user(_blocks(fields, "content", IN_USER))
        case "assistant":
            return [_assistant(_blocks(fields, "content", IN_ASSISTANT))]
        case "system":
            return [Message(Role.SYSTEM, _content(_blocks(fields, "content", IN_SYSTEM)))]
    raise fields.missing("role")


def _blocks(fields: Fields, name: str, kinds: Collection[str]) -> Sequence[Fields]:
    """Return the blocks of a content, which are of these kinds; a text alone is one."""
    content = fields.get(name)
    if content is None:
        raise fields.missing(name)
    if isinstance(content, str):
        return (Fields({"type": "text", "text": content}, fields.path(name)),)
    if not isinstance(content, list):
        raise fields.no(name, "a text or a list of blocks")
    blocks = fields.each(name)
    for block in blocks:
        kind = block.needed_text("type")
        if kind not in kinds:
            raise block.wrong("type", f"is {said(kind)}, and what can stand here is {', '.join(kinds)}")
        _only(block, BLOCKS[kind] | {"type"} | BLOCK_IGNORED, f"a block {said(kind)}", BLOCK_DEFAULTS)
    return blocks


def _user(blocks: Sequence[Fields]) -> list[Message]:
    results = [_result(block) for block in blocks if block.get("type") == "tool_result"]
    rest = [block for block in blocks if block.get("type") != "tool_result"]
    return [*results, Message(Role.USER, _content(rest))] if rest or not results else results


def _result(block: Fields) -> Message:
    call_id, _ = _opened_id(block, "tool_use_id")
    content = () if block.get("content") is None else _blocks(block, "content", IN_RESULT)
    return Message(Role.TOOL, _content(content), tool_call_id=call_id, is_error=block.flag("is_error") or False)


def _assistant(blocks: Sequence[Fields]) -> Message:
    return Message(
        Role.ASSISTANT,
        _content([block for block in blocks if block.get("type") == "text"]),
        tool_calls=[_call(block) for block in blocks if block.get("type") == "tool_use"],
        thoughts=[_thought(block) for block in blocks if block.get("type") in {"thinking", "redacted_thinking"}],
    )


def _content(blocks: Sequence[Fields]) -> str | list[Text | Image]:
    """Return texts and pictures; a text alone is nothing but that."""
    parts = [Text(block.needed_text("text")) if block.get("type") == "text" else _image(block) for block in blocks]
    if not parts:
        return ""
    first = parts[0]
    return first.text if len(parts) == 1 and isinstance(first, Text) else parts


def _image(block: Fields) -> Image:
    source = block.needed_inner("source")
    _only(source, {"type", "url", "media_type", "data", "file_id"}, "a source")
    kind = source.needed_text("type")
    with _at(source.place):
        if kind == "url":
            return Image(url=source.needed_text("url"))
        if kind != "base64":
            raise source.wrong("type", f"is {said(kind)}, and what is possible here is base64, url")
        media_type, data = source.needed_text("media_type"), source.needed_text("data")
        try:
            return Image(data=base64.b64decode(data, validate=True), media_type=media_type)
        except ValueError as error:
            raise source.wrong("data", "is not valid base64") from error


def _thought(block: Fields) -> Thought:
    if block.get("type") == "redacted_thinking":
        signature, thought_id, _ = _opened_signature(block, "data")
        return Thought("", signature, redacted=True, id=thought_id)
    signature, thought_id, redacted = _opened_signature(block, "signature")
    return Thought(block.needed_text("thinking"), signature, redacted=redacted, id=thought_id)


def _call(block: Fields) -> ToolCall:
    call_id, signature = _opened_id(block, "id")
    given = block.mapping("input")
    if given is None and "input" in block.given:
        given = {}  # the SDK's reading of arguments that are null
    if given is None:
        raise block.missing("input")
    invalid = given.get(INVALID_JSON) if len(given) == 1 else None
    arguments = invalid if isinstance(invalid, str) and arguments_in(invalid) is None else given
    with _at(block.path("input")):
        return ToolCall(call_id, block.needed_text("name"), arguments, signature)


def _opened_signature(block: Fields, name: str) -> tuple[Signature | None, str | None, bool]:
    try:
        return opened_signature(block.text(name) or "")
    except BrokenSealError as error:
        raise block.wrong(name, str(error)) from error


def _opened_id(block: Fields, name: str) -> tuple[str, Signature | None]:
    try:
        return opened_id(block.needed_text(name))
    except BrokenSealError as error:
        raise block.wrong(name, str(error)) from error


# -- how to answer -----------------------------------------------------------------------------------


def _system(body: Fields) -> str | None:
    if body.get("system") is None:
        return None
    texts = [block.needed_text("text") for block in _blocks(body, "system", IN_SYSTEM)]
    return "\n\n".join(text for text in texts if text.strip()) or None


def _tool(tool: Fields) -> Tool:
    kind = tool.text("type")
    if kind not in {None, "custom"}:
        raise tool.wrong(
            "type", f"is {said(kind or '')}, a tool that Anthropic defines: only those of type custom are possible here"
        )
    _only(tool, TOOL | TOOL_IGNORED, "a tool", TOOL_DEFAULTS)
    schema = tool.needed_inner("input_schema").given
    with _at(tool.place):
        return Tool(
            tool.needed_text("name"), tool.text("description") or "", schema, strict=tool.flag("strict") or False
        )


def _tool_choice(body: Fields) -> tuple[str | None, bool | None]:
    """Return the word for it, and False where calls may not be several at once."""
    choice = body.inner("tool_choice")
    if choice is None:
        return None, None
    _only(choice, {"type", "name", "disable_parallel_tool_use"}, "a tool choice")
    kind = choice.one_of("type", (*CHOICES, "tool"))
    if kind is None:
        raise choice.missing("type")
    word = CHOICES.get(kind) or choice.needed_text("name")
    if kind == "tool" and word in {*CHOICES.values()}:
        raise choice.wrong("name", f"is {said(word)}: a tool of that name cannot be the one to call")
    return word, False if choice.flag("disable_parallel_tool_use") else None


def _schema(body: Fields) -> tuple[Mapping[str, object] | None, dict[str, object]]:
    """Return the schema of the answer, and the rest of `output_config` for `extra`."""
    config = body.inner("output_config") or Fields({}, "output_config")
    rest = config.rest({"format"})
    asked_for = config.inner("format")
    beta = body.inner("output_format")  # its name while it was a beta
    if asked_for is not None and beta is not None:
        raise body.wrong("output_format", "is an older name of `output_config.format`: give one of them")
    form = asked_for or beta
    if form is None:
        return None, {"output_config": rest} if rest else {}
    _only(form, {"type", "schema"}, "a format")
    if form.one_of("type", ("json_schema",)) is None:
        raise form.missing("type")
    return form.needed_inner("schema").given, {"output_config": rest} if rest else {}
