"""A prompt as the body of a `generateContent` request, for Gemini. Pure."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import count, groupby
from random import Random
from typing import Final, Self
from urllib.parse import quote

import httpx
import msgspec
from attrs import evolve, field, frozen

from wizard_actors.errors import SerializationError, UnsupportedError
from wizard_actors.providers.base import Call
from wizard_actors.providers.extra_fields import extra_for, wants_json
from wizard_actors.providers.gemini_chunks import MADE_UP, PROTOCOL, GeminiReader
from wizard_actors.providers.http_provider import HttpSettings, endpoint
from wizard_actors.providers.proofs import refuses_thoughts, without_thoughts
from wizard_actors.providers.refusals import ErrorBody, Head
from wizard_actors.providers.schema_forms import gemini_form
from wizard_actors.providers.tool_rounds import OpenCalls
from wizard_actors.providers.wire import Outgoing
from wizard_actors.types import Image, Message, Prompt, Role, Signature, Text, Tool, ToolCall

__all__ = ["GeminiDialect", "GeminiWire", "request_body"]

VERSIONED: Final = re.compile(r"/v\d+\w*$")

SIGNS_CALLS: Final = re.compile(r"\bgemini-(?:[3-9]|\d\d|[a-z-]+-latest$)")
"""The models that refuse a tool call without signature; of any other the first refusal tells."""

WANTS_SIGNATURE: Final = re.compile(r"\bmissing a thought_signature\b")

UNSIGNED: Final = "skip_thought_signature_validator"
"""Google's own word for "another model made this call", where a signature is demanded."""

MERGED: Final = "generationConfig"

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


@frozen
class GeminiDialect:
    """What sets upstreams apart: whether they know ids of tool calls (Vertex AI has none), and whether the first call
    of a message has to be signed (from Gemini 3 on). `thoughts`: signatures go back; one call is made without where
    they are refused.
    """

    call_ids: bool = True
    signed_calls: bool = False
    thoughts: bool = True


@frozen(kw_only=True)
class GeminiWire:
    """Gemini's protocol, a `Wire`. It has one URL for streams and another one for whole answers, and no field for it:
    all that refusals teach is about signatures.
    """

    name: str
    url: httpx.URL
    streams: bool
    dialect: GeminiDialect
    max_tokens: int | None = None
    extra: Mapping[str, object] = field(factory=dict)
    rng: Random = field(eq=False, repr=False)

    @classmethod
    def of(cls, settings: HttpSettings, rng: Random) -> Self:
        """Return the protocol for a model. Raises `ConfigError` where its base URL is none."""
        streams = settings.upstream != "unary"
        return cls(
            name=settings.name,
            url=_url(settings, streams=streams),
            streams=streams,
            dialect=GeminiDialect(
                call_ids=not _is_vertex(endpoint(settings, "")),
                signed_calls=SIGNS_CALLS.search(settings.model) is not None,
            ),
            max_tokens=settings.max_tokens,
            extra=settings.extra,
            rng=rng,
        )

    def request(self, call: Call) -> Outgoing:
        """Return the request; raises what `request_body` raises."""
        body = request_body(
            call.prompt, model=self.name, dialect=self.dialect, max_tokens=self.max_tokens, extra=self.extra
        )
        return Outgoing(self.url, body)

    def reader(self, head: Head) -> GeminiReader:
        """Return what reads the answer that begins with `head`."""
        return GeminiReader(head, made_up=f"{MADE_UP}{self.rng.getrandbits(64):016x}")

    def without(self, refused: ErrorBody, *, keep_stream: bool) -> Self | None:
        """Return the dialect with signed calls where a refusal misses a signature, without any where it refuses one."""
        dialect = self.dialect
        if not dialect.signed_calls and WANTS_SIGNATURE.search(refused.message):
            return evolve(self, dialect=evolve(dialect, signed_calls=True))
        if dialect.thoughts and refuses_thoughts(refused):
            return evolve(self, dialect=evolve(dialect, thoughts=False))
        return None

    def lasting(self) -> Self:
        """Return the dialect with signatures again: those of another conversation may be the model's own."""
        return evolve(self, dialect=evolve(self.dialect, thoughts=True))


def _url(settings: HttpSettings, *, streams: bool) -> httpx.URL:
    base = endpoint(settings, "").path.rstrip("/")
    name = settings.model.strip("/")
    path = name if name.startswith(("models/", "tunedModels/")) else f"models/{name}"
    if base.endswith("/models"):
        path = path.removeprefix("models/")
    elif not VERSIONED.search(base) and "/publishers/" not in base:
        path = f"v1beta/{path}"
    method, query = ("streamGenerateContent", {"alt": "sse"}) if streams else ("generateContent", {})
    return endpoint(settings, f"/{quote(path, safe='/@')}:{method}", query)


def _is_vertex(url: httpx.URL) -> bool:
    return "/publishers/" in url.path or url.host.endswith("aiplatform.googleapis.com")


def request_body(
    prompt: Prompt,
    *,
    model: str,
    dialect: GeminiDialect,
    max_tokens: int | None = None,
    extra: Mapping[str, object],
) -> bytes:
    """Return the JSON body that asks the prompt; `max_tokens` holds where it does not say.

    `extra`, then the prompt's own, overrule the rest, field by field; of `generationConfig` key by key, so that a
    `thinkingConfig` there leaves the temperature as it is.

    What the protocol has no place for and can do without is left out: the names of users, whether a tool is strict, and
    whether several may be called at once.

    Raises `UnsupportedError` for what it has no place for, `SerializationError` for what JSON has none for; both name
    `model`, the configured name.
    """
    messages = prompt.messages if dialect.thoughts else without_thoughts(prompt.messages)
    fields: dict[str, object] = {"contents": _contents(messages, model, dialect)}
    system = [message for message in prompt.conversation if message.role is Role.SYSTEM and message.content]
    if system:
        fields["systemInstruction"] = {"parts": [part for each in system for part in _system(each, model)]}
    if prompt.tools:
        fields["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in prompt.tools]}]
    if prompt.tool_choice is not None:
        fields["toolConfig"] = {"functionCallingConfig": _tool_choice(prompt.tool_choice)}
    try:
        if generation := _generation(prompt, max_tokens):
            fields[MERGED] = generation
        for overruling in (extra, extra_for(prompt, PROTOCOL)):
            _overrule(fields, overruling)
        return _encoder.encode(fields)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SerializationError(
            f"{model}: the request cannot be written as JSON: {error}; look at the tools, the schema and `extra`"
        ) from error


def _overrule(fields: dict[str, object], extra: Mapping[str, object]) -> None:
    for name, value in extra.items():
        known = fields.get(name)
        both = name == MERGED and isinstance(known, Mapping) and isinstance(value, Mapping)
        fields[name] = {**known, **value} if both else value  # type: ignore[dict-item]  # `both` says so


def _generation(prompt: Prompt, max_tokens: int | None) -> dict[str, object]:
    wished: dict[str, object] = {
        "temperature": prompt.temperature,
        "topP": prompt.top_p,
        "maxOutputTokens": max_tokens if prompt.max_tokens is None else prompt.max_tokens,
        "stopSequences": prompt.stop or None,
        "seed": prompt.seed,
    }
    if wants_json(prompt, PROTOCOL):
        wished["responseMimeType"] = "application/json"
    if prompt.response_schema is not None:
        schema = gemini_form(prompt.response_schema)
        wished |= {"responseMimeType": "application/json", "responseJsonSchema": schema}
    return {name: value for name, value in wished.items() if value is not None}


# -- messages ----------------------------------------------------------------------------------------


def _contents(messages: Iterable[Message], model: str, dialect: GeminiDialect) -> list[dict[str, object]]:
    """Return the turns. The results of several tools are one turn, as their calls are."""
    contents: list[dict[str, object]] = []
    calls = OpenCalls[tuple[int, str]]()  # of each its place among all calls, and its name
    places = count()
    turns = [message for message in messages if message.role is not Role.SYSTEM]
    for is_tool, group in groupby(turns, key=lambda message: message.role is Role.TOOL):
        if is_tool:
            contents.append({"role": "user", "parts": _results(list(group), calls, model, dialect)})
            continue
        for message in group:
            calls.called((call.id, (next(places), call.name)) for call in message.tool_calls)
            said = _said(message, dialect)
            if message.role is Role.USER:
                contents.append({"role": "user", "parts": said or [{"text": ""}]})
            elif said:  # a turn without parts is refused
                contents.append({"role": "model", "parts": said})
    return contents


def _said(message: Message, dialect: GeminiDialect) -> list[dict[str, object]]:
    parts = _parts(message)
    if message.role is not Role.ASSISTANT:
        return parts
    # Whether a signature came with a text or behind it makes no difference to Gemini, only that it comes back.
    signatures = (_own(thought.signature) for thought in message.thoughts)
    parts += [{"text": "", "thoughtSignature": signature} for signature in signatures if signature]
    calls = [_call(call, dialect) for call in message.tool_calls]
    if dialect.signed_calls and calls and not any("thoughtSignature" in call for call in calls):
        calls[0]["thoughtSignature"] = UNSIGNED
    return parts + calls


def _parts(message: Message) -> list[dict[str, object]]:
    content = (Text(message.content),) if isinstance(message.content, str) else message.content
    return [
        _picture(part) if isinstance(part, Image) else {"text": part.text}
        for part in content
        if isinstance(part, Image) or part.text
    ]


def _system(message: Message, model: str) -> list[dict[str, object]]:
    if not isinstance(message.content, str) and any(isinstance(part, Image) for part in message.content):
        raise UnsupportedError(
            f"{model}: an image cannot stand in a system message", feature="images in system messages", model=model
        )
    return _parts(message)


def _picture(image: Image) -> dict[str, object]:
    if image.url is None:
        data = base64.b64encode(image.data or b"").decode()
        return {"inlineData": {"mimeType": image.media_type, "data": data}}
    file: dict[str, object] = {"fileUri": image.url}
    if image.media_type is not None:
        file["mimeType"] = image.media_type
    return {"fileData": file}


def _own(signature: Signature | None) -> str | None:
    return signature.value if signature is not None and signature.protocol == PROTOCOL else None


# -- tools -------------------------------------------------------------------------------------------


def _call(call: ToolCall, dialect: GeminiDialect) -> dict[str, object]:
    shown: dict[str, object] = {"name": call.name, "args": _arguments(call.arguments)}
    if _has_id(call.id, dialect):
        shown["id"] = call.id
    signature = _own(call.signature)
    return {"functionCall": shown} | ({"thoughtSignature": signature} if signature else {})


def _arguments(text: str) -> object:
    """Return a call's arguments as the object that they have to be: what another model has spoiled is told as it is,
    for the tool's result tells what came of it.
    """
    if not text.strip():
        return {}  # how some models call a tool that takes nothing
    stated = _object(text)
    return {"arguments": text} if stated is None else stated


def _results(
    messages: Sequence[Message], calls: OpenCalls[tuple[int, str]], model: str, dialect: GeminiDialect
) -> list[dict[str, object]]:
    """Return the results in the order of their calls, which is what tells them apart where these have no ids."""
    parts: list[dict[str, object]] = []
    answering = [(calls.answered(message.tool_call_id or "") or (sys.maxsize, message.name)) for message in messages]
    for (_, name), message in sorted(zip(answering, messages, strict=True), key=lambda each: each[0][0]):
        if not name:
            raise UnsupportedError(
                f"{model}: no call of the conversation has the id {message.tool_call_id!r} of a tool's result, and "
                "Gemini knows results by the tool's name: put the assistant's message before it, or give it a name",
                feature="tool results without their calls",
                model=model,
            )
        shown: dict[str, object] = {"name": name, "response": _response(message)}
        if message.tool_call_id is not None and _has_id(message.tool_call_id, dialect):
            shown["id"] = message.tool_call_id
        parts.append({"functionResponse": shown})
        # Only the newest models take pictures inside of a result; right behind it all do.
        parts += [part for part in _parts(message) if "text" not in part]
    return parts


def _has_id(call_id: str, dialect: GeminiDialect) -> bool:
    return dialect.call_ids and not call_id.startswith(MADE_UP)


def _response(message: Message) -> object:
    """Return a tool's result as the object that it has to be: Gemini knows a failure by the key `error`."""
    stated = _object(message.text)
    if message.is_error:
        return {"error": message.text if stated is None else stated}
    return {"result": message.text} if stated is None else stated


def _object(text: str) -> msgspec.Raw | None:
    """Return a text that is a JSON object, to be sent as it stands; None for any other."""
    try:
        data = text.encode()
        stated = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return msgspec.Raw(data) if isinstance(stated, dict) else None


def _declaration(tool: Tool) -> dict[str, object]:
    shown: dict[str, object] = {"name": tool.name}
    if tool.description:
        shown["description"] = tool.description
    if tool.parameters:
        shown["parametersJsonSchema"] = tool.parameters
    return shown


def _tool_choice(choice: str) -> dict[str, object]:
    modes = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
    return {"mode": modes[choice]} if choice in modes else {"mode": "ANY", "allowedFunctionNames": [choice]}
