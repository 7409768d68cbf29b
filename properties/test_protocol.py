"""The wire: whatever people send and get comes back as it was, and whatever else arrives is refused in order."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from properties.session_records import costs, json_values, records, texts, wholes
from tests.prompt_strategies import prompts, thoughts
from tests.protocol.samples import error_classes, facts_of, sample
from wizard_actors.errors import Attempt, InvalidPromptError, ParseError, WizardError
from wizard_actors.protocol.failures import error_from, fault_of
from wizard_actors.protocol.frames import (
    Code,
    Fault,
    Incoming,
    RequestId,
    Response,
    fault_text,
    notification_text,
    read_answer,
    read_request,
    request_text,
    result_text,
)
from wizard_actors.protocol.values import (
    event_from,
    event_to,
    prompt_from,
    prompt_to,
    response_from,
    response_to,
    session_from,
    session_to,
    summary_from,
    summary_to,
)
from wizard_actors.session_record import SessionRecord
from wizard_actors.types import (
    FinishReason,
    Prompt,
    ReasoningDelta,
    Reset,
    ServedBy,
    Signature,
    StreamEvent,
    TextDelta,
    ThoughtEnded,
    TokenUsage,
    ToolCall,
    ToolCallDelta,
    UsageUpdate,
    WizardResponse,
)

PROTOCOLS = ("anthropic", "chat", "gemini", "responses")
DEPTH = 64

ids = st.text(min_size=1, max_size=128) | st.integers(1 - 2**53, 2**53 - 1)
objects = st.dictionaries(texts, json_values, max_size=3)
signatures = st.none() | st.builds(Signature, texts, texts)
usages = st.builds(TokenUsage, wholes, wholes, wholes, wholes, wholes)
seconds = st.floats(0, 1e9)
events: st.SearchStrategy[StreamEvent] = st.one_of(
    st.builds(TextDelta, texts),
    st.builds(ReasoningDelta, texts),
    st.builds(ThoughtEnded, signatures, st.booleans(), st.none() | texts),
    st.builds(ToolCallDelta, wholes, st.none() | texts, st.none() | texts, texts, signatures),
    st.builds(UsageUpdate, usages),
    st.builds(Reset, texts, texts),
)
failures: st.SearchStrategy[WizardError] = st.builds(sample, st.sampled_from(list(error_classes())), texts.filter(bool))
attempts = st.builds(
    Attempt, texts, seconds, seconds, seconds, st.none(), st.none() | costs, st.booleans(), st.booleans()
)
responses = st.builds(
    WizardResponse,
    texts,
    texts,
    st.none() | texts,
    st.none() | usages,
    st.none() | costs,
    st.sampled_from(FinishReason),
    st.none() | texts,
    st.lists(st.sampled_from(PROTOCOLS).flatmap(thoughts), max_size=2).map(tuple),
    st.lists(st.builds(ToolCall, texts, texts, texts, signatures), max_size=2).map(tuple),
    st.lists(attempts, max_size=2).map(tuple),
    st.sampled_from(ServedBy),
    st.booleans(),
    st.booleans(),
    texts,
    st.lists(objects, max_size=2).map(tuple),
)


def over_the_wire(plain: object) -> object:
    """Return a value as it comes out of a frame."""
    answer = read_answer(result_text(1, plain))
    assert isinstance(answer, Response)
    return answer.result


@given(prompt=st.sampled_from(PROTOCOLS).flatmap(prompts))
def test_any_prompt_comes_back(prompt: Prompt) -> None:
    """Equal, down to the bytes of its pictures."""
    read = read_request(request_text("generate", {"prompt": prompt_to(prompt)}, 1), max_depth=DEPTH)

    assert prompt_from(read.params["prompt"]) == prompt
    assert repr(prompt_from(read.params["prompt"])) == repr(prompt)


@given(response=responses)
def test_any_answer_comes_back(response: WizardResponse) -> None:
    """Equal, down to the digits of its costs."""
    read = response_from(over_the_wire(response_to(response, now=5.0)), now=1.0)

    assert read == response
    assert str(read.cost) == str(response.cost)
    assert read.message == response.message


@given(event=events)
def test_any_event_comes_back(event: StreamEvent) -> None:
    """Equal."""
    assert event_from(over_the_wire(event_to(event))) == event


@given(record=records)
def test_any_session_comes_back(record: SessionRecord) -> None:
    """Equal, and so does what a list shows of it."""
    assert session_from(over_the_wire(session_to(record))) == record
    assert summary_from(over_the_wire(summary_to(record.summary))) == record.summary


@given(error=failures, tried=st.lists(st.tuples(attempts, st.none() | failures), max_size=3), number=ids)
def test_any_error_comes_back(
    error: WizardError, tried: list[tuple[Attempt, WizardError | None]], number: RequestId
) -> None:
    """Of its class, with its facts, and the attempts with their own."""
    error.with_attempts([_failed(attempt, failure) for attempt, failure in tried])

    answer = read_answer(fault_text(fault_of(error, number, now=1e9)))

    assert isinstance(answer, Response)
    assert answer.id == number
    assert answer.fault is not None
    found = error_from(answer.fault, now=1.0)
    assert _told(found) == _told(error)
    assert [(_plain(each), each.error and _told(each.error)) for each in found.attempts] == [
        (_plain(each), each.error and _told(each.error)) for each in error.attempts
    ]


def _failed(attempt: Attempt, error: WizardError | None) -> Attempt:
    return Attempt(
        attempt.model,
        attempt.start,
        attempt.duration,
        attempt.delay,
        error,
        attempt.cost,
        attempt.sent,
        attempt.cancelled,
    )


def _plain(attempt: Attempt) -> tuple[object, ...]:
    cost: Decimal | None = attempt.cost
    return (attempt.model, attempt.start, attempt.duration, attempt.delay, cost, attempt.sent, attempt.cancelled)


def _told(error: WizardError) -> tuple[object, ...]:
    facts = {name: value for name, value in facts_of(error).items() if name != "retry_at"}  # of another clock
    return type(error), str(error), facts


@given(method=st.text(), params=objects, number=st.none() | ids)
def test_any_request_comes_back(method: str, params: dict[str, object], number: RequestId | None) -> None:
    """With its id, or as a notification without one."""
    text = notification_text(method, params) if number is None else request_text(method, params, number)

    assert read_request(text, max_depth=DEPTH) == Incoming(method, params, number)


messages = json_values | st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | json_values,
        "id": ids | json_values,
        "method": st.sampled_from(["generate", "cancel"]) | json_values,
        "params": objects | json_values,
        "result": json_values,
        "error": json_values
        | st.fixed_dictionaries({}, optional=dict.fromkeys(["code", "message", "data"], json_values)),
    },
)
frames = st.text(max_size=60) | st.binary(max_size=60) | messages.map(lambda plain: msgspec.json.encode(plain).decode())


@given(frame=frames)
def test_whatever_a_client_sends_is_a_request_or_a_fault(frame: str | bytes) -> None:
    """With one of JSON-RPC's codes, in a line, and a fault can itself be sent."""
    found = None
    try:
        read_request(frame, max_depth=DEPTH)
    except Fault as fault:
        found = fault
    assert found is None or found.code in {Code.PARSE, Code.INVALID_REQUEST, Code.INVALID_PARAMS}
    assert found is None or len(found.message) < 300
    assert found is None or isinstance(read_answer(fault_text(found)), Response)


@given(frame=frames)
def test_whatever_a_server_sends_is_an_answer_or_a_fault(frame: str | bytes) -> None:
    """And an error in it, one of ours."""
    try:
        answer = read_answer(frame)
    except Fault:
        return
    if isinstance(answer, Response) and answer.fault is not None:
        assert isinstance(error_from(answer.fault, now=1.0), WizardError)


@given(value=json_values)
def test_whatever_is_sent_as_a_prompt_is_one_or_is_refused(value: object) -> None:
    """With our error for it."""
    told = ""
    try:
        prompt_from(value)
    except InvalidPromptError as error:
        told = str(error)
    assert len(told) < 1000


odd_fields = st.dictionaries(
    st.sampled_from(
        ["text", "model", "usage", "cost", "finish_reason", "thoughts", "tool_calls", "attempts", "raw", "type", "id"]
    ),
    json_values | st.lists(objects, max_size=2),
)


@given(value=json_values | odd_fields)
def test_whatever_is_sent_as_an_answer_is_one_or_a_parse_error(value: object) -> None:
    """An event, or a session, likewise."""
    for read in (_response, event_from, session_from, summary_from):
        with suppress(ParseError):
            read(value)


def _response(value: object) -> object:
    return response_from(value, now=1.0)


@given(data=st.dictionaries(st.sampled_from(["code", "message", "attempts", "retry_after", "problems"]), json_values))
def test_whatever_is_sent_as_an_error_is_one(data: dict[str, object]) -> None:
    """As far as it can be read."""
    assert isinstance(error_from(Fault(Code.FAILED, "told", data=data), now=1.0), WizardError)
