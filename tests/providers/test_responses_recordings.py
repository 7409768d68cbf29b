"""All recorded traffic of the Responses API, read as the official SDK's types read it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from openai.types.responses import Response

from tests.recordings import CUTS, Recording, recorded, replayed
from wizard_actors.providers.responses_events import EventReader


def official(recording: Recording) -> Response:
    """Return the response as the official SDK's types give it; a proof of reasoning is sealed anew in each event."""
    body = recording.body.decode()
    if not recording.stream:
        return Response.model_construct(**json.loads(body))
    events = [json.loads(line[5:]) for line in body.splitlines() if line.startswith("data:")]
    items = [each["item"] for each in events if each["type"] == "response.output_item.done"]
    return Response.model_construct(**{**events[-1]["response"], "output": items})


def said(response: Response) -> Mapping[str, object]:
    """Return what a response says, in the words of the official types."""
    calls = [item for item in response.output if item.type == "function_call"]
    usage = response.usage
    return {
        "text": response.output_text,
        "thoughts": list(_thoughts(response)),
        "calls": [(item.call_id, item.name, item.arguments) for item in calls],
        "usage": usage
        and (
            usage.input_tokens,
            usage.output_tokens,
            usage.input_tokens_details.cached_tokens,
            usage.output_tokens_details.reasoning_tokens,
        ),
        "finish": ("tool_calls" if calls else "stop", response.status),
        "model": response.model,
    }


def _thoughts(response: Response) -> Iterator[tuple[str, str | None, str]]:
    for item in response.output:
        if item.type == "reasoning":
            text = "".join(part.text for part in (*item.summary, *(item.content or ())))
            if text or item.encrypted_content:
                yield text, item.encrypted_content, item.id


@pytest.mark.long
def test_all_recorded_answers_read_as_the_official_types_do(recordings: Path) -> None:
    """In one piece, byte by byte, cut anywhere, and with other line ends."""
    answers = 0
    for recording in recorded(recordings, "openai-responses"):
        expected = said(official(recording))
        for how, cut in CUTS.items():
            read = replayed(cut(recording.body), EventReader, status=recording.status)
            parts = read.assembly
            assert parts.usage is not None
            assert parts.finished is not None
            assert read.ended is recording.stream, f"{recording.name} {how}"
            assert expected == {
                "text": parts.text,
                "thoughts": [(each.text, each.signature and each.signature.value, each.id) for each in parts.thoughts],
                "calls": [(call.id, call.name, call.arguments) for call in parts.tool_calls],
                "usage": (
                    parts.usage.input_tokens,
                    parts.usage.output_tokens,
                    parts.usage.cached_tokens,
                    parts.usage.reasoning_tokens,
                ),
                "finish": (parts.finished.reason, parts.finished.raw),
                "model": read.model,
            }, f"{recording.name} {how}"
        answers += 1
    assert answers >= 142
