"""Recorded traffic of Gemini: read as Google's own SDK reads it, asked again in the same words."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from attrs import frozen
from google.genai import types as sdk

from tests.providers.gemini_wire import as_prompt, check_request, meaning, settings_for
from tests.recordings import CUTS, Recording, recorded, replayed
from wizard_actors.providers.base import Call
from wizard_actors.providers.gemini_chunks import GeminiReader
from wizard_actors.providers.gemini_request import GeminiWire
from wizard_actors.providers.refusals import Head
from wizard_actors.streaming import Assembly
from wizard_actors.types import FinishReason, TokenUsage


@frozen
class Reading:
    """What an answer says: `calls` are ids, "" where Gemini gives none, names and arguments."""

    text: str
    thoughts: str
    calls: tuple[tuple[str, str, object], ...]
    signatures: tuple[bytes, ...]
    finish: str | None
    usage: TokenUsage | None
    model: str | None


def reader(head: Head) -> GeminiReader:
    """Return a reader that makes up the same ids each time."""
    return GeminiReader(head, made_up="made_0")


def read_by_the_sdk(recording: Recording) -> Reading:
    """Return what the types of Google's SDK make of an answer."""
    body = recording.body.decode()
    lines = [line[5:] for line in body.splitlines() if line.startswith("data:")] if recording.stream else [body]
    chunks = [sdk.GenerateContentResponse.model_validate_json(line) for line in lines]
    candidates = [candidate for chunk in chunks for candidate in chunk.candidates or ()]
    parts = [part for candidate in candidates if candidate.content for part in candidate.content.parts or ()]
    usages = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    calls = [part.function_call for part in parts if part.function_call]
    finishes = [candidate.finish_reason for candidate in candidates if candidate.finish_reason]
    return Reading(
        text="".join(part.text or "" for part in parts if not part.thought),
        thoughts="".join(part.text or "" for part in parts if part.thought),
        calls=tuple((call.id or "", call.name or "", call.args) for call in calls),
        signatures=tuple(sorted(part.thought_signature for part in parts if part.thought_signature)),
        finish=finishes[-1].value if finishes else None,
        usage=_usage(usages[-1]) if usages else None,
        model=chunks[-1].model_version,
    )


def _usage(stated: sdk.GenerateContentResponseUsageMetadata) -> TokenUsage:
    thoughts = stated.thoughts_token_count or 0
    return TokenUsage(
        input_tokens=(stated.prompt_token_count or 0) + (stated.tool_use_prompt_token_count or 0),
        output_tokens=(stated.candidates_token_count or 0) + thoughts,
        cached_tokens=stated.cached_content_token_count or 0,
        reasoning_tokens=thoughts,
    )


def as_reading(assembly: Assembly, model: str | None) -> Reading:
    """Return what the reader has made of an answer."""
    signatures = [thought.signature for thought in assembly.thoughts] + [call.signature for call in assembly.tool_calls]
    return Reading(
        text=assembly.text,
        thoughts=assembly.reasoning,
        calls=tuple(
            ("" if call.id.startswith("made_0_") else call.id, call.name, json.loads(call.arguments))
            for call in assembly.tool_calls
        ),
        signatures=tuple(sorted(base64.b64decode(signature.value) for signature in signatures if signature)),
        finish=None if assembly.finished is None else assembly.finished.raw,
        usage=assembly.usage,
        model=model,
    )


@pytest.mark.parametrize("cut", CUTS)
def test_every_recorded_answer_reads_as_the_sdk_reads_it(recordings: Path, cut: str) -> None:
    """In whatever pieces it comes: text, thoughts, tool calls, signatures, finish reason, usage and model."""
    answers = 0
    for recording in recorded(recordings, "gemini"):
        read = replayed(CUTS[cut](recording.body), reader, status=recording.status)
        assert as_reading(read.assembly, read.model) == read_by_the_sdk(recording), recording.name
        assert read.assembly.finished is not None
        called = bool(read.assembly.tool_calls)
        assert read.assembly.finished.reason is (FinishReason.TOOL_CALLS if called else FinishReason.STOP)
        ids = [call.id for call in read.assembly.tool_calls]
        assert len(set(ids)) == len(ids)
        answers += 1
    assert answers == 86


def test_recorded_requests_can_be_said_in_our_types(recordings: Path, report_line: Callable[[str], None]) -> None:
    """Each one comes out of the builder with the same meaning, to the same address; most without `extra`."""
    typed, with_extra, requests = 0, 0, 0
    for recording in recorded(recordings, "gemini"):
        wire = GeminiWire.of(settings_for(recording.url), Random(1))
        for extra in (False, True):
            sent = wire.request(Call(as_prompt(recording.request, extra=extra), "1"))
            assert str(sent.url) == recording.url
            check_request(sent.body)
            same = meaning(json.loads(sent.body)) == meaning(recording.request)
            typed, with_extra = typed + (same and not extra), with_extra + (same and extra)
        requests += 1
    report_line(
        f"gemini: {typed} of {requests} recorded requests said by typed fields alone, {with_extra} with `extra`"
    )
    assert requests == 86
    assert typed >= 0.85 * requests  # the rest ask for thoughts, of which our types say nothing
    assert with_extra >= 0.9 * requests
