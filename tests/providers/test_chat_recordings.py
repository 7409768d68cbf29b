"""Recorded Chat Completions traffic: every answer reads as the official SDK's types read it, however it is cut."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from attrs import frozen
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion_chunk import ChoiceDelta

from tests.recordings import CUTS, Recording, recorded, replayed
from wizard_actors.errors import (
    ContentFilterError,
    ModelNotFoundError,
    ProviderError,
    RequestError,
    WizardError,
)
from wizard_actors.providers.openai_chunks import ChunkReader
from wizard_actors.types import ToolCall

ERRORS: dict[str, type[WizardError]] = {
    "DeploymentNotFound": ModelNotFoundError,
    "model_not_found": ModelNotFoundError,
    "content_filter": ContentFilterError,
    "invalid_image_url": RequestError,
    "invalid_image_format": RequestError,
}
"""What each code that fails in the recordings means; each stands there once."""


@frozen
class Counted:
    """The tokens of an answer."""

    input: int
    output: int
    cached: int
    reasoning: int
    written: int


@frozen
class Reading:
    """What an answer says. A call has an id, a name and arguments; the id is "" where the provider gave none."""

    text: str
    reasoning: str
    calls: tuple[tuple[str, str, str], ...]
    usage: Counted | None
    finish: str | None
    model: str | None


def is_answer(recording: Recording) -> bool:
    """Whether the body is an answer, and no error."""
    return recording.status == 200 and b'"choices"' in recording.body


def answers(folder: Path) -> Iterator[Recording]:
    """Yield the recordings that hold answers."""
    return filter(is_answer, recorded(folder, "openai-chat"))


# -- the SDK's reading ---------------------------------------------------------------------------------


def read_by_the_sdk(recording: Recording) -> Reading:
    """Read an answer with the official SDK's types, made as the SDK makes them: unchecked."""
    body = recording.body.decode()
    if not recording.stream:
        answer = ChatCompletion.construct(**json.loads(body))
        stated = [getattr(choice, "message", None) for choice in answer.choices[:1]]
        messages = [message for message in stated if message is not None]  # Azure leaves out one that it filtered
        usages = [answer.usage] if answer.usage else []
        return _reading(messages, usages, [answer.choices[0].finish_reason], answer.model)
    lines = [line[5:].strip() for line in body.splitlines() if line.startswith("data:")]
    chunks = [ChatCompletionChunk.construct(**json.loads(line)) for line in lines if line != "[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk.choices if not choice.index]
    return _reading(
        [choice.delta for choice in choices],
        [usage for chunk in chunks if (usage := chunk.usage or _groq(chunk)) is not None],
        [choice.finish_reason for choice in choices],
        next((chunk.model for chunk in chunks if chunk.model), None),
    )


def _groq(chunk: ChatCompletionChunk) -> CompletionUsage | None:
    said = (chunk.model_extra or {}).get("x_groq") or {}
    return CompletionUsage.model_validate(said["usage"]) if said.get("usage") else None


def _reading(
    deltas: Sequence[ChoiceDelta | ChatCompletionMessage],
    usages: Sequence[CompletionUsage],
    finishes: Sequence[str | None],
    model: str | None,
) -> Reading:
    return Reading(
        text="".join(delta.content or delta.refusal or "" for delta in deltas),
        reasoning="".join(_reasoning(delta.model_extra or {}) for delta in deltas),
        calls=_calls(deltas),
        usage=_counted(usages[-1]) if usages else None,
        finish=next(filter(None, finishes), None),
        model=model,
    )


def _reasoning(extra: Mapping[str, object]) -> str:
    return str(extra.get("reasoning_content") or extra.get("reasoning") or "")


def _calls(deltas: Sequence[ChoiceDelta | ChatCompletionMessage]) -> tuple[tuple[str, str, str], ...]:
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        for place, call in enumerate(delta.tool_calls or ()):
            assert call.type != "custom"
            function = call.function
            index = getattr(call, "index", place)
            parts = calls.setdefault(index, [call.id or "", (function and function.name) or "", ""])
            parts[2] += (function and function.arguments) or ""
        if delta.function_call is not None:
            parts = calls.setdefault(0, ["", "", ""])
            parts[1] += delta.function_call.name or ""
            parts[2] += delta.function_call.arguments or ""
    return tuple((call[0], call[1], call[2]) for _, call in sorted(calls.items()))


def _counted(usage: CompletionUsage) -> Counted:
    inputs, outputs = usage.prompt_tokens_details, usage.completion_tokens_details
    deepseek = (usage.model_extra or {}).get("prompt_cache_hit_tokens") or 0
    return Counted(
        input=usage.prompt_tokens,
        output=usage.total_tokens - usage.prompt_tokens,  # some count the reasoning beside the answer
        cached=(inputs and inputs.cached_tokens) or deepseek,
        reasoning=(outputs and outputs.reasoning_tokens) or 0,
        written=((inputs and inputs.model_extra) or {}).get("cache_write_tokens") or 0,
    )


# -- ours --------------------------------------------------------------------------------------------


def read_by_us(recording: Recording, pieces: list[bytes]) -> tuple[Reading, tuple[ToolCall, ...]]:
    """Read an answer with the parser; return the calls with their ids, too, made ones among them."""
    read = replayed(pieces, ChunkReader, content_type=recording.headers.get("content-type", ""))
    assembly, usage = read.assembly, read.assembly.usage
    assert assembly.finished is not None
    if recording.stream:
        assert read.ended is (b"[DONE]" in recording.body)
    counted = None
    if usage is not None:
        outputs = (usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens, usage.cache_write_tokens)
        counted = Counted(usage.input_tokens, *outputs)
    calls = tuple((call.id, call.name, call.arguments) for call in assembly.tool_calls)
    return (
        Reading(assembly.text, assembly.reasoning, calls, counted, assembly.finished.raw, read.model),
        assembly.tool_calls,
    )


def agrees(ours: Reading, theirs: Reading) -> bool:
    """Whether both say the same; a call has an id in ours even where the provider gave none."""
    if len(ours.calls) != len(theirs.calls):
        return False
    calls = tuple(
        (call_id or mine[0], name, arguments)
        for mine, (call_id, name, arguments) in zip(ours.calls, theirs.calls, strict=True)
    )
    same = Reading(theirs.text, theirs.reasoning, calls, theirs.usage, theirs.finish, theirs.model)
    return ours == same and all(call_id for call_id, _, _ in ours.calls)


@pytest.mark.long
@pytest.mark.parametrize("way", CUTS)
def test_every_recorded_answer_reads_as_the_sdk_reads_it(recordings: Path, way: str) -> None:
    """Text, reasoning, tool calls, finish reason, usage and model, however the bytes come."""
    count = 0
    for recording in answers(recordings):
        ours, _ = read_by_us(recording, CUTS[way](recording.body))
        theirs = read_by_the_sdk(recording)
        assert agrees(ours, theirs), f"{recording.name}: {ours} {theirs}"
        count += 1
    assert count == 654


def test_every_recorded_error_is_the_right_one(recordings: Path) -> None:
    """By its code, whether it comes with an error status or inside a 200."""
    met = Counter[str]()
    for recording in recorded(recordings, "openai-chat"):
        if is_answer(recording):
            continue
        code = json.loads(recording.body)["error"]["code"]
        for cut in CUTS.values():
            with pytest.raises(ERRORS[code]) as caught:
                replayed(cut(recording.body), ChunkReader, status=recording.status)
            assert isinstance(caught.value, ProviderError)
            assert recording.status in {200, caught.value.status}
        met[code] += 1
    assert met == dict.fromkeys(ERRORS, 1)


def test_ids_that_are_made_are_each_their_own(recordings: Path, report_line: Callable[[str], None]) -> None:
    """The provider gave none to these calls; no two answers share one, so a conversation can hold them all."""
    made = list[str]()
    for recording in answers(recordings):
        theirs = read_by_the_sdk(recording)
        if any(not call_id for call_id, _, _ in theirs.calls):
            _, calls = read_by_us(recording, [recording.body])
            _, again = read_by_us(recording, CUTS["cut at random"](recording.body))
            assert calls == again
            made += [call.id for call in calls]
    report_line(f"recorded chat answers: {len(made)} tool calls without an id")
    assert len(made) == 12
    assert len(set(made)) == len(made)
