"""Gemini's pure parts for every input: prompts become requests that Google knows, answers become events or errors."""

import json
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.prompt_strategies import prompts
from tests.providers.gemini_wire import check_request
from wizard_actors.errors import WizardError
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.gemini_chunks import MADE_UP, GeminiReader
from wizard_actors.providers.gemini_request import GeminiDialect, request_body
from wizard_actors.providers.refusals import Head
from wizard_actors.streaming import Assembly
from wizard_actors.types import (
    Finished,
    FinishReason,
    ModelEvent,
    Prompt,
    ReasoningDelta,
    Role,
    TextDelta,
    ToolCallDelta,
)

KEY = "canary-0123456789"

# -- requests ----------------------------------------------------------------------------------------

DIALECTS = st.builds(GeminiDialect, call_ids=st.booleans(), signed_calls=st.booleans())


@given(prompt=prompts("gemini"), dialect=DIALECTS)
def test_any_prompt_becomes_a_request_that_google_knows(prompt: Prompt, dialect: GeminiDialect) -> None:
    """By its own description, in which a field that it does not name is a mistake, and by the types of its SDK."""
    check_request(request_body(prompt, model="primary", dialect=dialect, extra={}))


@given(prompt=prompts("gemini"), dialect=DIALECTS)
def test_nothing_that_was_said_is_lost(prompt: Prompt, dialect: GeminiDialect) -> None:
    """Every text of every message is there, each call has its result behind it, in order and under its name."""
    sent = json.loads(request_body(prompt, model="primary", dialect=dialect, extra={}))
    parts = [part for turn in sent["contents"] for part in turn["parts"]]
    said = "".join(part.get("text", "") for part in parts)
    assert said == "".join(each.text for each in prompt.messages if each.role in {Role.USER, Role.ASSISTANT})
    system = "".join(part["text"] for part in sent.get("systemInstruction", {"parts": []})["parts"])
    assert system == "".join(each.text for each in prompt.conversation if each.role is Role.SYSTEM)
    calls = [part["functionCall"]["name"] for part in parts if "functionCall" in part]
    assert calls == [call.name for each in prompt.messages for call in each.tool_calls]
    assert calls == [part["functionResponse"]["name"] for part in parts if "functionResponse" in part]
    for turn, after in zip(sent["contents"], [*sent["contents"][1:], {"parts": []}], strict=True):
        ids = [part["functionCall"].get("id") for part in turn["parts"] if "functionCall" in part]
        assert (None not in ids) or not dialect.call_ids
        if ids:
            results = [part["functionResponse"] for part in after["parts"] if "functionResponse" in part]
            assert [result.get("id") for result in results] == ids


# -- answers -----------------------------------------------------------------------------------------

JSON: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e9, 1e9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def odd(usual: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Return what a field usually holds, and now and then anything else."""
    return st.one_of(usual, usual, usual, JSON)


def table(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Return objects that have any of the fields."""
    return st.fixed_dictionaries({}, optional={name: odd(value) for name, value in fields.items()})


CALL = table(name=st.sampled_from(["a", "b"]), args=st.just({"x": 1}), id=st.sampled_from(["1", ""]))
PART = table(text=st.text(max_size=6), thought=st.booleans(), thoughtSignature=st.just("AP8="), functionCall=CALL)
CANDIDATE = table(
    content=table(role=st.just("model"), parts=st.lists(PART, max_size=3)),
    finishReason=st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY", "MALFORMED_FUNCTION_CALL"]),
    finishMessage=st.just(f"no {KEY}"),
    index=st.integers(0, 1),
)
ERROR = table(
    code=st.sampled_from([400, 429, 503]),
    message=st.just(f"limit: 0 for {KEY}"),
    status=st.sampled_from(["RESOURCE_EXHAUSTED", "UNAVAILABLE", KEY]),
    details=st.lists(table(retryDelay=st.sampled_from(["1s", "-1s", "x"]), reason=st.just("API_KEY_INVALID"))),
)
COUNTS = st.integers(0, 2**62)
CHUNK = table(
    candidates=st.lists(CANDIDATE, max_size=2),
    usageMetadata=table(promptTokenCount=COUNTS, candidatesTokenCount=COUNTS, thoughtsTokenCount=COUNTS),
    promptFeedback=table(blockReason=st.just("SAFETY"), blockReasonMessage=st.just(KEY)),
    modelVersion=st.text(max_size=4),
    responseId=st.text(max_size=4),
)
BODY = st.one_of(CHUNK, CHUNK, table(error=ERROR), st.lists(CHUNK | table(error=ERROR), max_size=3), JSON)


def as_event(body: object) -> bytes:
    """Return the body as one event of a stream."""
    return b"data: " + json.dumps(body).encode() + b"\r\n\r\n"


EVENT = (
    CHUNK.map(as_event) | BODY.map(as_event) | st.sampled_from([b": ping\n\n", b"data: [DONE]\n\n", b"event: error\n"])
)
ANSWERS = st.one_of(
    st.lists(EVENT, max_size=5).map(b"".join), BODY.map(lambda body: json.dumps(body).encode()), st.binary(max_size=40)
)
STATUSES = st.sampled_from([200, 200, 200, 204, 302, 400, 404, 429, 500, 503])


def read(pieces: Sequence[bytes], status: int) -> tuple[list[ModelEvent], WizardError | None, bool]:
    """Return the events, the failure, and whether the answer was found complete."""
    head = Head("primary", status, secrets=(KEY,))
    parser = AnswerParser(head, GeminiReader(head, made_up=f"{MADE_UP}0"))
    events = [event for piece in pieces for event in parser.feed(piece)]
    events += parser.close()
    return events, parser.failure, parser.finished


@given(answer=ANSWERS, cuts=st.lists(st.integers(0, 300), max_size=6), status=STATUSES)
def test_any_answer_becomes_events_or_one_of_our_errors(answer: bytes, cuts: list[int], status: int) -> None:
    """Never another exception, never an empty event, one end at most, no key in an error, however it is cut."""
    places = sorted({min(cut, len(answer)) for cut in cuts})
    pieces = [answer[start:end] for start, end in zip([0, *places], [*places, len(answer)], strict=True)]
    events, failure, finished = read([answer], status)
    again, failure_again, _ = read(pieces, status)
    assert again == events
    assert type(failure_again) is type(failure)
    assert sum(isinstance(event, Finished) for event in events) == finished
    for event in events:
        if isinstance(event, (TextDelta, ReasoningDelta)):
            assert event.text
        if isinstance(event, ToolCallDelta):
            assert event.id
            assert event.name
    if failure is not None:
        assert KEY not in f"{failure} {failure.to_dict()} {failure.__cause__}"
        assert len(str(failure)) < 1000
    Assembly().extend(events)


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
SAID = st.fixed_dictionaries({"text": TEXTS}, optional={"thought": st.just(True), "thoughtSignature": st.just("AP8=")})
CALLED = st.fixed_dictionaries({"functionCall": st.fixed_dictionaries({"name": st.sampled_from(["a", "b"])})})


@given(chunks=st.lists(st.lists(SAID | CALLED, max_size=3), min_size=1, max_size=4), listed=st.booleans())
def test_every_part_is_kept_in_its_place(chunks: list[list[dict[str, object]]], listed: bool) -> None:
    """Texts, thoughts, signatures and calls add up to what was sent, as events or as a list."""
    bodies: list[dict[str, object]] = [{"candidates": [{"content": {"parts": parts}}]} for parts in chunks]
    bodies.append({"candidates": [{"finishReason": "STOP"}]})
    body = json.dumps(bodies).encode() if listed else b"".join(map(as_event, bodies))
    events, failure, finished = read([body], 200)
    assert failure is None
    assert finished
    assembly = Assembly()
    assembly.extend(events)
    parts = [part for each in chunks for part in each]
    texts = [part for part in parts if "text" in part]
    assert assembly.text == "".join(str(part["text"]) for part in texts if "thought" not in part)
    assert assembly.reasoning == "".join(str(part["text"]) for part in texts if "thought" in part)
    assert sum(thought.signature is not None for thought in assembly.thoughts) == sum(
        "thoughtSignature" in part for part in texts
    )
    ids = [call.id for call in assembly.tool_calls]
    assert len(set(ids)) == len(ids) == len(parts) - len(texts)
    assert assembly.finished == Finished(FinishReason.TOOL_CALLS if ids else FinishReason.STOP, "STOP")
