"""What clients of both formats send over HTTP, and what they hear: a question, and an answer whole or in pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import trio
from attrs import define, field

from tests.models import USAGE, Step, Turn, says
from tests.server.http_wire import HttpWire, Reply, Served

__all__ = [
    "ANSWER",
    "FORMATS",
    "PATHS",
    "PROMPT_TOKENS",
    "Heard",
    "How",
    "ask",
    "body_of",
    "heard",
    "heard_so_far",
    "listened",
    "whole",
]

How: TypeAlias = Literal["openai", "anthropic"]

FORMATS: Final[Sequence[How]] = ("openai", "anthropic")

PATHS: Final[Mapping[How, str]] = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}

ANSWER: Final = "All is well, says the backup."
PROMPT_TOKENS: Final = (10, 5)
"""What `USAGE` counts: tokens read and written."""


def whole(*before: Step) -> Turn:
    """Return a turn that gives `ANSWER`, word by word, with its usage; `before` it, other steps."""
    return says(*before, *(f"{word} " for word in ANSWER.split()[:-1]), ANSWER.split()[-1], USAGE)


def body_of(how: How, text: str = "Why?", *, model: str = "wizard", stream: bool = False, **more: object) -> object:
    """Return a request's body."""
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
    if how == "anthropic":
        body["max_tokens"] = 1000
    elif stream:
        body["stream_options"] = {"include_usage": True}
    return {**body, **more}


async def ask(
    wire: HttpWire, how: How = "openai", *, model: str = "wizard", stream: bool = False, **headers: str
) -> Reply:
    """Ask, and return the whole response."""
    return await wire.ask("POST", PATHS[how], body_of(how, model=model, stream=stream), **headers)


async def listened(server: Served) -> int:
    """Have a server in memory listen on loopback too, for clients of other makes; return the port."""
    listeners: list[trio.SocketListener] = await server.nursery.start(
        partial(trio.serve_tcp, host="127.0.0.1"), server.endpoint.handle, 0
    )
    return int(listeners[0].socket.getsockname()[1])


@define
class Heard:
    """What a client makes of a response. `ended`: it may take the text for the whole answer."""

    text: str = ""
    model: str | None = None
    usage: tuple[int, int] | None = None
    ended: bool = False
    errors: list[dict[str, Any]] = field(factory=list)
    last_is_error: bool = False

    @property
    def broken(self) -> bool:
        """Whether it fails cleanly: one error, which is the last word, and no sign of a whole answer."""
        return not self.ended and len(self.errors) == 1 and self.last_is_error


def heard(how: How, reply: Reply) -> Heard:
    """Return what a response says."""
    if reply.headers["content-type"].startswith("text/event-stream"):
        return heard_so_far(how, reply.body)
    return (_openai_whole if how == "openai" else _anthropic_whole)(reply.json)


def heard_so_far(how: How, body: bytes) -> Heard:
    """Return what the events that have come of a stream say."""
    said = Heard()
    for line in body.decode().splitlines():
        if line.startswith("data: "):
            (_openai_event if how == "openai" else _anthropic_event)(said, line[6:])
    return said


def _openai_whole(value: Any) -> Heard:  # noqa: ANN401 - JSON
    if "error" in value:
        return Heard(errors=[value["error"]], last_is_error=True)
    choice, usage = value["choices"][0], value.get("usage")
    counts = None if usage is None else (usage["prompt_tokens"], usage["completion_tokens"])
    return Heard(choice["message"]["content"], value["model"], counts, choice["finish_reason"] is not None)


def _openai_event(said: Heard, data: str) -> None:
    assert not said.ended, "nothing follows [DONE]"
    said.last_is_error = False
    if data == "[DONE]":
        said.ended = True
        return
    value = json.loads(data)
    if "error" in value:
        said.errors.append(value["error"])
        said.last_is_error = True
        return
    said.model = value["model"]
    if value.get("usage"):
        said.usage = (value["usage"]["prompt_tokens"], value["usage"]["completion_tokens"])
    for choice in value["choices"]:
        said.text += choice["delta"].get("content") or ""


def _anthropic_whole(value: Any) -> Heard:  # noqa: ANN401 - JSON
    if value["type"] == "error":
        return Heard(errors=[value["error"]], last_is_error=True)
    text = "".join(block["text"] for block in value["content"] if block["type"] == "text")
    counts = (value["usage"]["input_tokens"], value["usage"]["output_tokens"])
    return Heard(text, value["model"], counts, value["stop_reason"] is not None)


def _anthropic_event(said: Heard, data: str) -> None:
    assert not said.ended, "nothing follows message_stop"
    value = json.loads(data)
    said.last_is_error = False
    match value["type"]:
        case "message_start":
            said.model = value["message"]["model"]
        case "content_block_delta":
            said.text += value["delta"].get("text", "")
        case "message_delta":
            said.usage = (value["usage"].get("input_tokens", 0), value["usage"]["output_tokens"])
        case "message_stop":
            said.ended = True
        case "error":
            said.errors.append(value["error"])
            said.last_is_error = True
