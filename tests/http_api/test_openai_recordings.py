"""Recorded Chat Completions traffic: requests are read without loss, answers written again are the same answers."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import frozen
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.providers.test_chat_recorded_requests import BOUNDS, REASONING, meaning
from tests.recordings import Read, recorded, replayed
from wizard_actors.errors import WizardError
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.fields import BadRequestError
from wizard_actors.http_api.openai_format import OPENAI
from wizard_actors.json_bytes import json_bytes
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.openai_chunks import ChunkReader
from wizard_actors.providers.openai_request import Dialect, request_body
from wizard_actors.providers.refusals import Head
from wizard_actors.streaming import Assembly
from wizard_actors.types import End, Finished, FinishReason, ModelEvent, Prompt, Raw, WizardResponse

Json = dict[str, object]

FEW = 40
"""Chunks of a stream that the SDK puts together in no time: it copies all that it has with each."""

# -- requests ------------------------------------------------------------------------------------------


def written(asked: Asked, request: Json) -> Json:
    """Return the request as our provider would send it in the dialect that it was recorded in."""
    messages = request["messages"]
    assert isinstance(messages, list)
    dialect = Dialect(
        stream=asked.stream,
        stream_options=asked.include_usage,
        max_tokens_field="max_completion_tokens" if "max_completion_tokens" in request else "max_tokens",
        reasoning_field=next((name for name in REASONING if any(message.get(name) for message in messages)), None),
    )
    body = request_body(asked.prompt, model="primary", upstream_model=asked.name, dialect=dialect, extra={})
    sent: Json = json.loads(body)
    return sent


def comparable(request: Json) -> Json:
    """Return the meaning of a request, without what is said to be passed over."""
    plain = meaning(request)
    for name in ("service_tier", "usage"):
        plain.pop(name, None)
    for name, default in {"n": 1, "tool_choice": "auto", "presence_penalty": 0, "frequency_penalty": 0}.items():
        if plain.get(name) == default:
            del plain[name]
    if plain.get("top_p") == 1:
        del plain["top_p"]
    wanted = plain.pop("response_format", None)
    if isinstance(wanted, dict) and wanted["type"] == "json_schema":
        asked = wanted["json_schema"]
        schema = {"title": asked["name"], **asked["schema"]}  # its name, and elsewhere its description, go there
        plain["wanted"] = {keyword: value for keyword, value in schema.items() if keyword != "description"}
    bare: Json = json.loads(json.dumps(plain), object_hook=without_notes)
    return bare


def without_notes(table: Json) -> Json:
    """Return an object without what is passed over in messages, calls and tools."""
    return {name: value for name, value in table.items() if name not in {"cache_control", "annotations"}}


def test_recorded_requests_are_read_without_loss(recordings: Path, report_line: Callable[[str], None]) -> None:
    """Written again as our provider does, each means what it meant; the rest is refused by the name of a field."""
    refused, total, loss = Counter[str](), 0, list[str]()
    for recording in recorded(recordings, "openai-chat"):
        total += 1
        try:
            asked = OPENAI.read(recording.request)
        except BadRequestError as error:
            refused[str(error.param)] += 1
            continue
        if comparable(written(asked, recording.request)) != comparable(recording.request):
            loss.append(recording.name)
    report_line(f"recorded chat requests read: {total - refused.total()} of {total}; refused for {dict(refused)}")
    assert loss == []
    assert total == 659
    assert refused == {"functions": 12, "n": 2}


def test_a_request_that_was_changed_is_seen(recordings: Path) -> None:
    """The comparison would notice a message or a number that was lost on the way."""
    request = next(each.request for each in recorded(recordings, "openai-chat") if any(map(each.request.get, BOUNDS)))
    sent = written(OPENAI.read(request), request)
    messages = request["messages"]
    assert isinstance(messages, list)
    assert comparable(sent) == comparable(request)
    assert comparable(sent) != comparable({**request, "messages": messages[1:]})
    assert comparable(sent) != comparable({**request, "temperature": 0.123})


# -- answers -------------------------------------------------------------------------------------------


@frozen
class Recorded:
    """A recorded answer, as our provider reads it: piece by piece, and whole."""

    name: str
    events: Sequence[ModelEvent]
    response: WizardResponse


def answers(folder: Path) -> Sequence[Recorded]:
    """Return the recorded answers; errors are none."""
    found = list[Recorded]()
    for recording in recorded(folder, "openai-chat"):
        if recording.status != 200:
            continue
        head = Head("primary", recording.status)
        parser = AnswerParser(head, ChunkReader(head), content_type=recording.headers.get("content-type", ""))
        events = [*parser.feed(recording.body), *parser.close()]
        if parser.failure is None:
            found.append(Recorded(recording.name, events, response_of(events)))
    return found


def response_of(events: Sequence[ModelEvent]) -> WizardResponse:
    """Return the whole answer that is in events."""
    assembly = Assembly()
    assembly.extend(events)
    assert assembly.finished is not None
    return WizardResponse(
        assembly.text,
        "primary",
        usage=assembly.usage,
        finish_reason=assembly.finished.reason,
        thoughts=assembly.thoughts,
        tool_calls=assembly.tool_calls,
        request_id="r1",
    )


def streamed(answer: Recorded) -> bytes:
    """Return an answer as we stream it."""
    writer = OPENAI.stream(Asked("wizard", Prompt("x"), stream=True, include_usage=True), "r1", created=0)
    events = [writer.event(event) for event in answer.events if not isinstance(event, Finished | Raw)]
    return writer.begin("primary") + b"".join(events) + writer.event(End(answer.response))


def same(read: Read, response: WizardResponse) -> bool:
    """Say whether what our provider reads is the answer that was written; signatures are not for it."""
    assembly = read.assembly
    reason = FinishReason.STOP if response.finish_reason is FinishReason.OTHER else response.finish_reason
    assert assembly.finished is not None
    return (
        (assembly.text, assembly.reasoning, assembly.usage) == (response.text, response.reasoning, response.usage)
        and [(call.id, call.name, call.arguments) for call in assembly.tool_calls]
        == [(call.id, call.name, call.arguments) for call in response.tool_calls]
        and assembly.finished.reason is reason
        and read.model == "primary"
    )


def test_a_recorded_answer_that_is_written_again_is_the_same(
    recordings: Path, report_line: Callable[[str], None]
) -> None:
    """Text, reasoning, calls, reason and usage: whole, and in pieces, as our provider reads them."""
    read = answers(recordings)
    for answer in read:
        whole = json_bytes(OPENAI.answer(answer.response, "wizard", created=0))
        ChatCompletion.model_validate_json(whole)
        assert same(replayed([whole], ChunkReader), answer.response), answer.name
        assert same(replayed([streamed(answer)], ChunkReader), answer.response), answer.name
    report_line(f"recorded chat answers written again, whole and in pieces: {len(read)}")
    assert len(read) > 640


def test_the_sdk_puts_recorded_streams_together_as_we_do(recordings: Path) -> None:
    """From chunks of ours, each of which its types take."""
    count = 0
    for answer in answers(recordings):
        chunks = [json.loads(line[6:]) for line in streamed(answer).split(b"\n\n")[:-2]]
        if len(chunks) > FEW:
            continue
        count += 1
        state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
        for chunk in chunks:
            state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
        message = state.current_completion_snapshot.choices[0].message
        assert message.content == answer.response.text, answer.name
        assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()] == [
            (call.id, call.name, call.arguments) for call in answer.response.tool_calls
        ]
        assert message.to_dict().get("reasoning_content", "") == answer.response.reasoning
    assert count > 300


def test_a_message_that_comes_back_is_the_one_that_was_answered(recordings: Path) -> None:
    """With all that its provider wants back: no client has to know of it."""
    for answer in answers(recordings):
        choices = json.loads(json_bytes(OPENAI.answer(answer.response, "wizard", created=0)))["choices"]
        message: Mapping[str, object] = choices[0]["message"]
        results = [{"role": "tool", "tool_call_id": call.id, "content": "x"} for call in answer.response.tool_calls]
        conversation = [message, *results, {"role": "user", "content": "And?"}]
        read = OPENAI.read({"model": "m", "messages": conversation}).prompt.messages[0]
        assert read.text == answer.response.text
        assert read.tool_calls == answer.response.tool_calls
        assert read.thoughts == answer.response.thoughts


def test_a_recorded_error_is_no_answer(recordings: Path) -> None:
    """So the share above is of all that are."""
    failed = [each for each in recorded(recordings, "openai-chat") if each.status != 200]
    for recording in failed:
        head = Head("primary", recording.status)
        parser = AnswerParser(head, ChunkReader(head))
        parser.feed(recording.body)
        parser.close()
        assert isinstance(parser.failure, WizardError)
    assert failed
