"""OpenAI's Responses API on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final

from wizard_actors.testing.simulation.formats.base import Said, Streamed, encode
from wizard_actors.testing.simulation.formats.openai import OpenAI

__all__ = ["Responses"]

EMPTY: Final[Sequence[object]] = ()


class Responses(OpenAI):
    """OpenAI's Responses API."""

    def whole(self, said: Said) -> bytes:
        """Return a `response`."""
        status = _status(said)
        return encode(_response(said, status, [_message(said, status, said.text)], _usage(said)))

    def stream(self, said: Said, texts: Sequence[str]) -> Streamed:
        """Return the events of one message in pieces; each tells its own name, and there is no [DONE]."""
        numbers = count()
        item, place = f"msg_{said.number}", {"output_index": 0, "content_index": 0}

        def event(kind: str, table: Mapping[str, object]) -> bytes:
            body = encode({"type": f"response.{kind}", "sequence_number": next(numbers), **table})
            return b"event: response.%b\ndata: %b\n\n" % (kind.encode(), body)

        begun = {"response": _response(said, "in_progress", EMPTY, None)}
        of_text = {"item_id": item, **place}
        opening = b"".join(
            (
                event("created", begun),
                event("in_progress", begun),
                event("output_item.added", {"output_index": 0, "item": _message(said, "in_progress", None)}),
                event("content_part.added", {**of_text, "part": _part("")}),
            )
        )
        pieces = tuple([event("output_text.delta", {**of_text, "delta": text, "logprobs": EMPTY}) for text in texts])
        status = _status(said)
        message = _message(said, status, said.text)
        closing = b"".join(
            (
                event("output_text.done", {**of_text, "text": said.text, "logprobs": EMPTY}),
                event("content_part.done", {**of_text, "part": _part(said.text)}),
                event("output_item.done", {"output_index": 0, "item": message}),
                event(status, {"response": _response(said, status, [message], _usage(said))}),
            )
        )
        return Streamed(opening, pieces, closing)

    def garbage(self) -> bytes:
        """Return half of an event."""
        return b'event: response.output_text.delta\ndata: {"type": "response.output_te\n\n'


def _status(said: Said) -> str:
    return "incomplete" if said.cut else "completed"


def _response(
    said: Said, status: str, output: Sequence[object], usage: Mapping[str, object] | None
) -> Mapping[str, object]:
    return {
        "id": f"resp_{said.number}",
        "object": "response",
        "created_at": 0,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": said.model,
        "output": output,
        "usage": usage,
    }


def _message(said: Said, status: str, text: str | None) -> Mapping[str, object]:
    content = EMPTY if text is None else [_part(text)]
    return {"id": f"msg_{said.number}", "type": "message", "status": status, "content": content, "role": "assistant"}


def _part(text: str) -> Mapping[str, object]:
    return {"type": "output_text", "annotations": EMPTY, "logprobs": EMPTY, "text": text}


def _usage(said: Said) -> Mapping[str, object]:
    return {
        "input_tokens": said.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": said.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": said.input_tokens + said.output_tokens,
    }
