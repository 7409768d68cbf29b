"""Chat Completions as a format of the HTTP endpoint, for every body, every prompt, every answer."""

import json
from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.prompt_strategies import ARGUMENTS, prompts, thoughts
from tests.recordings import Read, replayed
from wizard_actors.errors import InvalidPromptError
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.fields import BadRequestError
from wizard_actors.http_api.openai_format import OPENAI
from wizard_actors.json_bytes import json_bytes
from wizard_actors.providers.openai_chunks import ChunkReader
from wizard_actors.providers.openai_request import Dialect, request_body
from wizard_actors.streaming import Assembly
from wizard_actors.types import (
    ContentDelta,
    End,
    FinishReason,
    Prompt,
    ReasoningDelta,
    Signature,
    TextDelta,
    Thought,
    ThoughtEnded,
    TokenUsage,
    ToolCall,
    ToolCallDelta,
    WizardResponse,
)

# -- every body ----------------------------------------------------------------------------------------

TEXT = st.text(max_size=6)
JSON: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


RICH: dict[str, object] = {
    "model": "wizard",
    "messages": [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief"}]},
        {
            "role": "user",
            "name": "ann",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AP8=", "detail": "low"}}],
        },
        {
            "role": "assistant",
            "content": None,
            "refusal": "No",
            "reasoning_content": "Hm",
            "reasoning_details": [{"type": "reasoning.text", "text": "Hm", "signature": "s", "index": 0}],
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get", "arguments": "{}"}}],
            "wizard": {
                "thoughts": [{"text": "Hm", "redacted": False, "id": "t", "protocol": "chat", "signature": "{}"}],
                "calls": [{"id": "c1", "protocol": "gemini", "signature": "g"}],
            },
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ],
    "tools": [{"type": "function", "function": {"name": "get", "parameters": {"type": "object"}, "strict": True}}],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "get"}}]},
    },
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "a", "description": "b", "strict": True, "schema": {"type": "object"}},
    },
    "temperature": 0.5,
    "top_p": 0.5,
    "max_tokens": 5,
    "max_completion_tokens": 5,
    "stop": ["x"],
    "seed": 1,
    "n": 1,
    "stream": True,
    "stream_options": {"include_usage": True},
    "parallel_tool_calls": False,
    "reasoning_effort": "low",
    "user": "u",
}
"""A request with nearly all that can be in one."""

ODD = JSON | st.sampled_from(
    ["\ud800", "tool", "system", "user", "assistant", "function", "required", "get", "json_object", "refusal", 2**70]
)


@st.composite
def spoiled(draw: st.DrawFn) -> object:
    """Return the rich request, in which some values are others, or missing."""
    body = json.loads(json.dumps(RICH))
    for _ in range(draw(st.integers(0, 4))):
        places = list(_places(body))
        container, key = places[draw(st.integers(0, len(places) - 1))]
        if draw(st.booleans()):
            del container[key]  # type: ignore[attr-defined]  # a list or an object
        else:
            container[key] = draw(ODD)  # type: ignore[index]  # the same
    return body


def _places(value: object) -> Iterator[tuple[object, object]]:
    """Yield every container in a value, with each key of it."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])  # type: ignore[index]  # a list or an object


def test_the_rich_request_is_one() -> None:
    """Or what is spoiled in it would prove nothing."""
    prompt = OPENAI.read(RICH).prompt
    assert (prompt.parallel_tool_calls, prompt.extra) == (False, {"reasoning_effort": "low"})


@given(body=st.one_of(JSON, spoiled(), spoiled(), spoiled()))
def test_any_body_is_a_request_or_refused(body: object) -> None:
    """Never another exception, and what is refused says why."""
    try:
        asked = OPENAI.read(body)
    except (BadRequestError, InvalidPromptError):
        return
    assert asked.name


# -- every prompt --------------------------------------------------------------------------------------


@given(prompt=prompts("chat", tool_images=False), stream=st.booleans())
def test_any_prompt_that_our_provider_writes_is_read_again(prompt: Prompt, stream: bool) -> None:
    """The conversation, the tools and every parameter; but for what the format has no place for."""
    dialect = Dialect(stream=stream, reasoning_field="reasoning_content")
    sent = request_body(prompt, model="m", upstream_model="wizard", dialect=dialect, extra={})
    asked = OPENAI.read(json.loads(sent))
    read = asked.prompt
    assert (asked.name, asked.stream, asked.include_usage) == ("wizard", stream, stream)
    for before, after in zip(prompt.conversation, read.messages, strict=True):
        assert (before.role, before.content, before.name) == (after.role, after.content, after.name)
        assert (before.tool_calls, before.tool_call_id) == (after.tool_calls, after.tool_call_id)
    assert [(tool.name, tool.description, tool.parameters) for tool in read.tools] == [
        (tool.name, tool.description, tool.parameters) for tool in prompt.tools
    ]
    assert read.tool_choice == (None if prompt.tool_choice == "auto" else prompt.tool_choice)
    assert read.top_p == (None if prompt.top_p == 1 else prompt.top_p)
    assert (read.temperature, read.max_tokens, read.stop, read.seed) == (
        prompt.temperature,
        prompt.max_tokens,
        prompt.stop,
        prompt.seed,
    )
    assert read.response_schema == (
        None if prompt.response_schema is None else {"title": "answer", **prompt.response_schema}
    )
    assert not read.extra


# -- every answer --------------------------------------------------------------------------------------

SAID = st.text(min_size=1, max_size=6)
USAGES = st.none() | st.builds(
    TokenUsage, st.integers(1, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)
)


@st.composite
def events(draw: st.DrawFn) -> Sequence[ContentDelta]:
    """Return the deltas of an answer, the pieces of its calls in any order, their ids and names early or late."""
    made: list[ContentDelta] = []
    queues: list[list[ContentDelta]] = [
        draw(st.lists(SAID.map(TextDelta) | SAID.map(ReasoningDelta) | st.just(ThoughtEnded()), max_size=6))
    ]
    for index in draw(st.lists(st.integers(0, 5), max_size=3, unique=True)):
        pieces = [ToolCallDelta(index, arguments=piece) for piece in draw(st.lists(SAID, max_size=3))]
        for fact in (
            ToolCallDelta(index, name=draw(st.sampled_from(["get", "put"]))),
            *([ToolCallDelta(index, id=f"id_{index}")] if draw(st.booleans()) else []),
        ):
            pieces.insert(draw(st.integers(0, len(pieces))), fact)
        queues.append([*pieces])
    while any(queues):
        made.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    return made


def response_of(deltas: Sequence[ContentDelta], reason: FinishReason, usage: TokenUsage | None) -> WizardResponse:
    """Return the whole answer that is in deltas."""
    assembly = Assembly()
    assembly.extend(deltas)
    return WizardResponse(
        assembly.text,
        "primary",
        usage=usage,
        finish_reason=reason,
        thoughts=assembly.thoughts,
        tool_calls=assembly.tool_calls,
        request_id="r1",
    )


def check(read: Read, response: WizardResponse) -> None:
    """Check that our provider reads the answer that was written; calls may have come in another order."""
    assembly, reason = read.assembly, response.finish_reason
    if reason is FinishReason.OTHER:
        reason = FinishReason.STOP
    if reason is FinishReason.STOP and response.tool_calls:
        reason = FinishReason.TOOL_CALLS
    assert assembly.finished is not None
    assert assembly.finished.reason is reason
    assert (assembly.text, assembly.reasoning, assembly.usage) == (response.text, response.reasoning, response.usage)
    assert sorted(map(plain, assembly.tool_calls)) == sorted(map(plain, response.tool_calls))
    assert read.model == "primary"


def plain(call: ToolCall) -> tuple[str, str, str]:
    """Return a call without its signature."""
    return call.id, call.name, call.arguments


@given(deltas=events(), reason=st.sampled_from(FinishReason), usage=USAGES)
def test_any_answer_that_is_written_is_read_as_the_same(
    deltas: Sequence[ContentDelta], reason: FinishReason, usage: TokenUsage | None
) -> None:
    """Whole and in pieces, by our own provider and by the official SDK."""
    response = response_of(deltas, reason, usage)
    whole = json_bytes(OPENAI.answer(response, "wizard", created=0))
    completion = ChatCompletion.model_validate_json(whole)
    check(replayed([whole], ChunkReader), response)

    writer = OPENAI.stream(Asked("wizard", Prompt("x"), stream=True, include_usage=True), "r1", created=0)
    pieces = [writer.begin("primary"), *(writer.event(delta) for delta in deltas), writer.event(End(response))]
    check(replayed(pieces, ChunkReader), response)
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for line in b"".join(pieces).split(b"\n\n")[:-2]:
        state.handle_chunk(ChatCompletionChunk.model_validate_json(line.removeprefix(b"data: ")))
    message = state.current_completion_snapshot.choices[0].message
    assert message.content == response.text
    assert completion.choices[0].finish_reason == state.current_completion_snapshot.choices[0].finish_reason
    assert sorted(
        (each.id, each.function.name, each.function.arguments) for each in message.tool_calls or ()
    ) == sorted(map(plain, response.tool_calls))


SIGNATURES = st.none() | st.builds(Signature, st.sampled_from(["gemini", "chat"]), SAID)
CALLS = st.lists(
    st.builds(ToolCall, st.sampled_from(["a", "b", "c"]), st.just("get"), ARGUMENTS, SIGNATURES),
    max_size=3,
    unique_by=lambda call: call.id,
)


@given(text=st.just("") | SAID, reasoning=st.lists(thoughts("anthropic"), max_size=3), calls=CALLS)
def test_any_message_that_comes_back_is_the_one_that_was_answered(
    text: str, reasoning: list[Thought], calls: list[ToolCall]
) -> None:
    """With every signature; thoughts that nobody has signed come back as one."""
    response = WizardResponse(text, "primary", thoughts=tuple(reasoning), tool_calls=tuple(calls), request_id="r1")
    written = json.loads(json_bytes(OPENAI.answer(response, "wizard", created=0)))
    results = [{"role": "tool", "tool_call_id": call.id, "content": "x"} for call in calls]
    conversation = [written["choices"][0]["message"], *results, {"role": "user", "content": "And?"}]
    read = OPENAI.read({"model": "m", "messages": conversation}).prompt.messages[0]
    assert (read.text, read.tool_calls) == (text, tuple(calls))
    if any(thought.signature for thought in reasoning) or len(reasoning) < 2:
        assert read.thoughts == tuple(reasoning)
    else:
        assert "".join(thought.text for thought in read.thoughts) == response.reasoning
