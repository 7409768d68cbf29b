"""The Anthropic format for every input: any body is read or refused, any answer says the same once it is written."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message as SdkMessage
from anthropic.types import RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.prompt_strategies import ARGUMENTS, prompts
from wizard_actors.errors import InvalidPromptError
from wizard_actors.http_api.anthropic_format import ANTHROPIC
from wizard_actors.http_api.anthropic_proofs import opened_id, opened_signature, sealed_id, sealed_signature
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.fields import BadRequestError
from wizard_actors.json_bytes import json_bytes
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.anthropic_events import EventReader
from wizard_actors.providers.anthropic_request import request_body
from wizard_actors.providers.refusals import Head
from wizard_actors.streaming import Assembly
from wizard_actors.types import (
    End,
    FinishReason,
    Prompt,
    ReasoningDelta,
    Signature,
    StreamEvent,
    TextDelta,
    Thought,
    ThoughtEnded,
    TokenUsage,
    ToolCall,
    ToolCallDelta,
    WizardResponse,
)

Json = dict[str, Any]  # as JSON comes

# -- requests ----------------------------------------------------------------------------------------

ODD: st.SearchStrategy[object] = st.sampled_from(
    [None, True, -1, 0.5, 10**20, "", "x", "\ud800", [], [1], {}, {"type": "text"}, "wizard_sealed_x"]
)
WORD = st.sampled_from(["a", "weather", "AP8=", "https://x.test/a", "image/png", "", "any", "user"])


def odd(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[object]:
    """Return what a field usually holds, and now and then anything else."""
    return st.one_of(usual, usual, usual, usual, ODD)


def table(kinds: Sequence[str], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Return objects of one of the types that have any of the fields."""
    return st.fixed_dictionaries(
        {"type": st.sampled_from(kinds)}, optional={name: odd(values) for name, values in fields.items()}
    )


SOURCE = table(["base64", "url", "file"], url=WORD, media_type=WORD, data=WORD)
PLAIN_BLOCK = table(["text", "image", "document"], text=WORD, source=SOURCE, cache_control=st.just({}))
BLOCK = st.one_of(
    PLAIN_BLOCK,
    table(["thinking", "redacted_thinking"], thinking=WORD, signature=WORD, data=WORD),
    table(["tool_use"], id=WORD, name=WORD, input=st.dictionaries(WORD, ODD, max_size=2)),
    table(["tool_result"], tool_use_id=WORD, content=WORD | st.lists(PLAIN_BLOCK, max_size=2), is_error=st.booleans()),
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": odd(st.sampled_from(["user", "assistant", "system"])),
        "content": odd(WORD | st.lists(odd(BLOCK), max_size=3)),
        "name": ODD,
    },
)
SCHEMA = st.fixed_dictionaries({}, optional={"type": odd(st.just("object")), "properties": ODD, "required": ODD})
BODY = st.fixed_dictionaries(
    {"model": odd(st.just("m")), "max_tokens": odd(st.just(9)), "messages": odd(st.lists(odd(MESSAGE), max_size=3))},
    optional={
        "system": odd(WORD | st.lists(PLAIN_BLOCK, max_size=2)),
        "tools": odd(st.lists(table(["custom", "web"], name=WORD, input_schema=SCHEMA, strict=ODD), max_size=2)),
        "tool_choice": odd(table(["auto", "any", "tool"], name=WORD, disable_parallel_tool_use=st.booleans())),
        "output_config": odd(st.fixed_dictionaries({"format": odd(table(["json_schema"], schema=SCHEMA))})),
        "output_format": ODD,
        "stop_sequences": ODD,
        "temperature": ODD,
        "top_p": ODD,
        "stream": ODD,
        "thinking": ODD,
        "mcp_servers": ODD,
        "service_tier": ODD,
    },
)


@given(body=BODY | ODD)
def test_any_body_is_asked_or_refused(body: object) -> None:
    """Never another error; what is refused is said, in a line or two."""
    assert outcome_of(body)


def outcome_of(body: object) -> Asked | str:
    """Return what is asked, or why it is refused."""
    try:
        return ANTHROPIC.read(body)
    except (BadRequestError, InvalidPromptError) as error:
        said = str(error)
    assert 0 < len(said) < 1000
    return said


@settings(max_examples=40)
@given(prompt=prompts("anthropic", seeds=False, top_temperature=1.0), stream=st.booleans())
def test_what_our_own_provider_sends_means_the_same_once_it_is_read(prompt: Prompt, stream: bool) -> None:
    """A server of ours behind another asks the model what the first was asked."""
    body = sent(prompt, stream=stream)
    asked = ANTHROPIC.read(body)
    assert (asked.name, asked.stream) == ("up-1", stream)
    assert sent(asked.prompt, stream=stream) == body


def sent(prompt: Prompt, *, stream: bool) -> Json:
    """Return the body that our provider sends for a prompt."""
    body: Json = json.loads(request_body(prompt, model="primary", upstream_model="up-1", stream=stream, extra={}))
    return body


# -- answers -----------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
SIGNATURE = st.none() | st.builds(
    Signature, st.sampled_from(["anthropic", "gemini", "responses"]), st.sampled_from(["AP8=", "", "wizard_sealed_x"])
)
ID = st.sampled_from([None, "rs_1"])


@st.composite
def answers(draw: st.DrawFn) -> list[StreamEvent]:
    """Return the content of an answer: thoughts, texts and pieces of calls, by turns as they like."""
    said: st.SearchStrategy[StreamEvent] = st.one_of(
        st.builds(TextDelta, TEXT),
        st.builds(ReasoningDelta, TEXT),
        st.builds(ThoughtEnded, SIGNATURE, st.booleans(), ID),
    )
    calls = [_pieces(draw, index) for index in range(draw(st.integers(0, 3)))]
    lanes: list[list[StreamEvent]] = [draw(st.lists(said, max_size=6)), *calls]
    events = list[StreamEvent]()
    while lanes := [lane for lane in lanes if lane]:
        events.append(draw(st.sampled_from(lanes)).pop(0))
    return events


def _pieces(draw: st.DrawFn, index: int) -> list[StreamEvent]:
    """Return the pieces of one call, whose id, name and signature come with the first."""
    arguments = draw(ARGUMENTS)
    cut = draw(st.integers(0, len(arguments)))
    call_id, signature = draw(st.sampled_from([f"id_{index}", None])), draw(SIGNATURE)
    return [
        ToolCallDelta(index, call_id, "weather", arguments[:cut], signature),
        ToolCallDelta(index, arguments=arguments[cut:]),
    ]


USAGES = st.none() | st.builds(
    lambda fresh, read, written, out, thought: TokenUsage(
        fresh + read + written, out + thought, read, thought, written
    ),
    *[st.integers(0, 9)] * 5,
)


def response_of(events: Sequence[StreamEvent], usage: TokenUsage | None) -> WizardResponse:
    """Return the answer that the events are."""
    assembly = Assembly()
    assembly.extend([event for event in events if not isinstance(event, End)])  # type: ignore[misc]  # no Reset is drawn
    return WizardResponse(
        assembly.text,
        "sonnet",
        usage=usage,
        thoughts=assembly.thoughts,
        tool_calls=assembly.tool_calls,
        finish_reason=FinishReason.TOOL_CALLS if assembly.tool_calls else FinishReason.STOP,
    )


def streamed(events: Sequence[StreamEvent], response: WizardResponse) -> bytes:
    """Return the answer as a stream of ours."""
    writer = ANTHROPIC.stream(Asked("m", Prompt("?"), stream=True), "r-1", created=0)
    return b"".join([writer.begin("sonnet"), *map(writer.event, events), writer.event(End(response))])


@attrs.frozen
class Meaning:
    """What an answer says; its calls by their ids. Where a piece of unsigned reasoning ends means nothing: of the
    texts, what they are together.
    """

    text: str
    reasoning: str
    proofs: Sequence[object]
    calls: Mapping[str, object]
    usage: tuple[int, ...]
    reason: str | None


def meaning(response: WizardResponse) -> Meaning:
    """Return what an answer of ours says."""
    usage = response.usage or TokenUsage()
    return Meaning(
        response.text,
        response.reasoning,
        [(each.signature, each.id, each.redacted) for each in response.thoughts if _proves(each)],
        {call.id: (call.name, json.loads(call.arguments or "{}"), call.signature) for call in response.tool_calls},
        attrs.astuple(usage),
        "tool_use" if response.tool_calls else "end_turn",
    )


def _proves(thought: Thought) -> bool:
    return thought.signature is not None or thought.id is not None or thought.redacted


def sdk_meaning(message: SdkMessage) -> Meaning:
    """Return what an answer says as the official SDK has read it, its seals opened."""
    blocks: list[Json] = [block.model_dump() for block in message.content]
    thoughts = [_thought(block) for block in blocks if "thinking" in block["type"]]
    usage = message.usage
    read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    thought = 0 if usage.output_tokens_details is None else usage.output_tokens_details.thinking_tokens
    calls = [(opened_id(block["id"]), block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]
    return Meaning(
        "".join(block["text"] for block in blocks if block["type"] == "text"),
        "".join(thought.text for thought in thoughts),
        [(each.signature, each.id, each.redacted) for each in thoughts if _proves(each)],
        {call_id: (name, given, proof) for (call_id, proof), name, given in calls},
        (usage.input_tokens + read + written, usage.output_tokens, read, thought, written),
        message.stop_reason,
    )


def _thought(block: Mapping[str, Any]) -> Thought:
    if block["type"] == "redacted_thinking":
        signature, thought_id, _ = opened_signature(block["data"])
        return Thought("", signature, redacted=True, id=thought_id)
    signature, thought_id, redacted = opened_signature(block["signature"])
    return Thought(block["thinking"], signature, redacted=redacted, id=thought_id)


EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


def accumulated(body: bytes) -> SdkMessage:
    """Return what the official SDK puts together from a stream; each event is one that its types take."""
    message, buffers = None, dict[int, bytes]()
    for line in body.decode().split("\n"):
        if line.startswith("data: "):
            event = EVENT.validate_json(line.removeprefix("data: "))
            message = accumulate_event(event=event, current_snapshot=message, json_bufs=buffers)
    assert message is not None
    return message


@settings(max_examples=50)
@given(events=answers(), usage=USAGES)
def test_a_stream_says_to_the_sdk_what_the_answer_says(events: list[StreamEvent], usage: TokenUsage | None) -> None:
    """However its pieces come by turns: text, reasoning, signatures, calls, usage and reason."""
    response = response_of(events, usage)
    assert sdk_meaning(accumulated(streamed(events, response))) == meaning(response)


@given(events=answers(), usage=USAGES)
def test_a_whole_answer_says_to_the_sdk_what_the_answer_says(
    events: list[StreamEvent], usage: TokenUsage | None
) -> None:
    """And strictly so: every field is of the type that the SDK states."""
    response = response_of(events, usage)
    message = SdkMessage.model_validate_json(json_bytes(ANTHROPIC.answer(response, "m", created=0)), strict=True)
    assert sdk_meaning(message) == meaning(response)


@given(events=answers(), usage=USAGES)
def test_our_own_provider_reads_the_same_in_a_stream_and_in_the_whole(
    events: list[StreamEvent], usage: TokenUsage | None
) -> None:
    """What is sealed stays so on the way."""
    response = response_of(events, usage)
    whole = read(json_bytes(ANTHROPIC.answer(response, "m", created=0)), "application/json")
    stream = read(streamed(events, response), "text/event-stream")
    for found in (whole, stream):
        assert (found.text, found.reasoning) == (response.text, response.reasoning)
        assert found.usage == (response.usage if response.usage != TokenUsage() else None)
        assert found.finished is not None
        calls = {opened_id(call.id): (call.name, json.loads(call.arguments)) for call in found.tool_calls}
        assert calls == {
            (call.id, call.signature): (call.name, json.loads(call.arguments or "{}")) for call in response.tool_calls
        }


def read(body: bytes, content_type: str) -> Assembly:
    """Return what our provider reads."""
    head = Head("primary")
    parser, assembly = AnswerParser(head, EventReader(head), content_type=content_type), Assembly()
    assembly.extend(parser.feed(body))
    assembly.extend(parser.close())
    assert parser.failure is None
    return assembly


# -- seals -------------------------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=8) | st.text("AP8=_-", max_size=8).map(
    "wizard_sealed_".__add__
)
ANY_SIGNATURE = st.none() | st.builds(Signature, st.just("anthropic") | ANY_TEXT, ANY_TEXT)


@given(signature=ANY_SIGNATURE, thought_id=st.none() | ANY_TEXT, redacted=st.booleans(), call_id=ANY_TEXT)
def test_whatever_is_sealed_is_what_is_opened(
    signature: Signature | None, thought_id: str | None, redacted: bool, call_id: str
) -> None:
    """Of thoughts and of calls."""
    sealed = sealed_signature(signature, thought_id, redacted=redacted)
    assert opened_signature(sealed) == (signature, thought_id, redacted)
    assert opened_id(sealed_id(ToolCall(call_id, "weather", "{}", signature))) == (call_id, signature)
