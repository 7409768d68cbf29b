"""OpenAI's Chat Completions on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wizard_actors.testing.simulation.formats.base import Said, Streamed, encode
from wizard_actors.testing.simulation.formats.openai import OpenAI

__all__ = ["Chat"]


class Chat(OpenAI):
    """OpenAI's Chat Completions."""

    def whole(self, said: Said) -> bytes:
        """Return a `chat.completion`."""
        message = {"role": "assistant", "content": said.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(said)}
        return encode(_head(said, "chat.completion", [choice]) | {"usage": _usage(said)})

    def stream(self, said: Said, texts: Sequence[str]) -> Streamed:
        """Return `chat.completion.chunk`s, the usage, and [DONE]."""
        table = _head(said, "chat.completion.chunk", [])

        def chunk(delta: Mapping[str, str], finish: str | None = None) -> bytes:
            table["choices"] = [{"index": 0, "delta": delta, "finish_reason": finish}]
            return b"data: " + encode(table) + b"\n\n"

        usage = b"data: " + encode({**table, "usage": _usage(said)}) + b"\n\n"
        return Streamed(
            chunk({"role": "assistant", "content": ""}),
            tuple([chunk({"content": text}) for text in texts]),
            chunk({}, _finish(said)) + usage + b"data: [DONE]\n\n",
        )

    def garbage(self) -> bytes:
        """Return half of a chunk."""
        return b'data: {"id": "chatcmpl-\n\n'


def _finish(said: Said) -> str:
    return "length" if said.cut else "stop"


def _head(said: Said, kind: str, choices: Sequence[object]) -> dict[str, object]:
    return {
        "id": f"chatcmpl-{said.number}",
        "object": kind,
        "created": 0,
        "model": said.model,
        "choices": choices,
    }


def _usage(said: Said) -> Mapping[str, int]:
    total = said.input_tokens + said.output_tokens
    return {"prompt_tokens": said.input_tokens, "completion_tokens": said.output_tokens, "total_tokens": total}
