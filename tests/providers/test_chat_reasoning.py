"""Reasoning over Chat Completions: read piece by piece, and sent back to those that want it."""

import json
from collections.abc import Mapping

import httpx
import msgspec
import pytest

from tests.recordings import replayed
from wizard_actors.config import ReasoningField
from wizard_actors.providers.base import Call
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.openai_chunks import ChunkReader
from wizard_actors.providers.openai_request import Dialect, request_body
from wizard_actors.providers.openai_wire import ChatWire
from wizard_actors.providers.refusals import ErrorBody
from wizard_actors.types import Message, Prompt, Signature, Thought, ToolCall

CALL = ToolCall("call_1", "get", "{}")
URL = httpx.URL("https://gateway.test/v1/chat/completions")
CLAUDE = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
SECRET = {"type": "reasoning.encrypted", "data": "gAAA", "format": "openai-responses-v1", "id": "rs_1", "index": 0}
SUMMARY = {"type": "reasoning.summary", "format": "openai-responses-v1", "index": 0}


def streamed(*deltas: Mapping[str, object]) -> tuple[Thought, ...]:
    """Return the thoughts in a stream of these deltas."""
    events = [{"choices": [{"delta": delta}]} for delta in deltas] + [{"choices": [{"finish_reason": "stop"}]}]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    return replayed([body], ChunkReader).assembly.thoughts


def whole(message: Mapping[str, object]) -> tuple[Thought, ...]:
    """Return the thoughts in a whole answer."""
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    return replayed([body], ChunkReader).assembly.thoughts


def sent_back(field: ReasoningField | None, message: Message) -> dict[str, object]:
    """Return the assistant's message as it is sent."""
    results = [Message("tool", "1", tool_call_id=call.id) for call in message.tool_calls]
    prompt = Prompt([Message("user", "x"), message, *results, Message("user", "y")])
    body = request_body(prompt, model="m", upstream_model="u", dialect=Dialect(reasoning_field=field), extra={})
    sent: dict[str, object] = msgspec.json.decode(body)["messages"][1]
    return sent


def signature(**entry: object) -> Signature:
    """Return the signature of an entry of `reasoning_details`."""
    return Signature("chat", json.dumps(entry))


# -- reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_plain_reasoning_is_one_thought_without_signature(field: str) -> None:
    """There is nothing to prove."""
    assert streamed({field: "Hm"}, {field: "m."}, {"content": "Yes"}) == (Thought("Hmm."),)
    assert whole({field: "Hmm.", "content": "Yes"}) == (Thought("Hmm."),)


def test_the_pieces_of_an_entry_become_one_thought() -> None:
    """Its text in pieces, its signature last; the text is not read twice, though it is stated twice."""
    (thought,) = streamed(
        {"reasoning": "Hm", "reasoning_details": [{**CLAUDE, "text": "Hm", "signature": ""}]},
        {"reasoning": "m.", "reasoning_details": [{**CLAUDE, "text": "m.", "signature": ""}]},
        {"reasoning_details": [{**CLAUDE, "signature": "EqMB"}]},
        {"content": "Yes"},
    )
    assert thought.text == "Hmm."
    assert thought.signature is not None
    assert json.loads(thought.signature.value) == {**CLAUDE, "signature": "EqMB"}
    assert not thought.redacted


def test_an_encrypted_entry_is_a_thought_of_its_own() -> None:
    """What is shown and what is not stay apart, in their order; the id is the provider's."""
    said = {"reasoning": "Hmm.", "reasoning_details": [{**SUMMARY, "summary": "Hmm."}]}
    first, second = streamed(said, {"reasoning": None, "reasoning_details": [SECRET]}, {"content": "Yes"})
    assert (first.text, first.redacted, first.id) == ("Hmm.", False, None)
    assert (second.text, second.redacted, second.id) == ("", True, "rs_1")
    assert whole({**said, "reasoning_details": [{**SUMMARY, "summary": "Hmm."}, SECRET]}) == (first, second)


def test_entries_are_told_apart_by_index_type_or_id() -> None:
    """Each keeps its own text; of a whole answer every entry is complete."""
    other = {**CLAUDE, "index": 1}
    pieces: list[dict[str, object]] = [{**CLAUDE, "text": "a"}, {**CLAUDE, "text": "b"}, {**other, "text": "c"}]
    assert [thought.text for thought in streamed(*({"reasoning_details": [piece]} for piece in pieces))] == ["ab", "c"]
    assert [thought.text for thought in whole({"reasoning_details": pieces})] == ["a", "b", "c"]


def test_plain_text_before_an_entry_is_not_the_entrys() -> None:
    """An encrypted entry has no text, and would lose it."""
    first, second = streamed({"reasoning": "Hmm."}, {"reasoning_details": [SECRET]})
    assert first == Thought("Hmm.")
    assert second.text == ""


def test_a_stream_that_is_cut_has_no_finished_entry() -> None:
    """Half of a signed text proves nothing."""
    body = json.dumps({"choices": [{"delta": {"reasoning_details": [{**CLAUDE, "text": "Hm"}]}}]}).encode()
    assert replayed([b"data: " + body + b"\n\n"], ChunkReader).assembly.thoughts == (Thought("Hm"),)


@pytest.mark.parametrize("details", [[7, None, "x"], "x", {}, [{"type": 5, "index": []}], [{"type": ["x"]}]])
def test_odd_details_harm_nothing(details: object) -> None:
    """The text beside them is read."""
    thoughts = streamed({"reasoning": "Hmm.", "reasoning_details": details}, {"content": "Yes"})
    assert "".join(thought.text for thought in thoughts) == "Hmm."


# -- sending back --------------------------------------------------------------------------------------


def test_a_conversation_goes_on_with_the_same_details() -> None:
    """What came is what goes back, entry by entry."""
    details = [{**SUMMARY, "summary": "Hmm."}, SECRET, {**CLAUDE, "text": "Well.", "signature": "EqMB"}]
    thoughts = whole({"reasoning": "Hmm.Well.", "reasoning_details": details, "content": "Yes"})
    sent = sent_back("reasoning_details", Message("assistant", "Yes", thoughts=thoughts))
    assert sent == {"role": "assistant", "content": "Yes", "reasoning_details": details}


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_goes_back_as_text(field: ReasoningField) -> None:
    """To those that read a field of text, and know no signatures; what came over another protocol is not theirs."""
    thoughts = [Thought("Hm", signature(**CLAUDE)), Thought("No.", Signature("anthropic", "EqMB")), Thought("m.")]
    sent = sent_back(field, Message("assistant", "Yes", thoughts=thoughts))
    assert sent == {"role": "assistant", "content": "Yes", field: "Hmm."}
    assert sent_back(field, Message("assistant", "Yes", thoughts=thoughts[1:2])) == {
        "role": "assistant",
        "content": "Yes",
    }


def test_nothing_goes_back_to_those_that_want_none() -> None:
    """OpenAI, and most of those compatible with it."""
    message = Message("assistant", "Yes", thoughts=[Thought("Hmm.", signature(**CLAUDE))])
    assert sent_back(None, message) == {"role": "assistant", "content": "Yes"}


def test_a_call_of_a_tool_states_that_nothing_was_thought() -> None:
    """DeepSeek refuses one without the field; a conversation may have begun with a model that shows no reasoning."""
    calling = Message("assistant", tool_calls=[CALL])
    assert sent_back("reasoning_content", calling)["reasoning_content"] == ""
    assert "reasoning" not in sent_back("reasoning", calling)
    assert "reasoning_content" not in sent_back("reasoning_content", Message("assistant", "Yes"))


@pytest.mark.parametrize(
    "foreign",
    [
        Signature("anthropic", "{}"),
        Signature("chat", "no JSON"),
        Signature("chat", "[]"),
        Signature("chat", "[" * 9999),
    ],
)
def test_foreign_and_broken_signatures_are_not_sent(foreign: Signature) -> None:
    """They mean nothing to whoever is asked."""
    sent = sent_back("reasoning_details", Message("assistant", "Yes", thoughts=[Thought("Hmm.", foreign)]))
    assert sent == {"role": "assistant", "content": "Yes"}


def test_entries_that_are_refused_are_left_out_of_one_call() -> None:
    """Whoever is behind OpenRouter today may not have signed them; the next conversation has its own."""
    wire = ChatWire.of(HttpSettings(name="m", model="u", base_url=str(URL), provider="openrouter"), URL)
    prompt = Prompt(
        [
            Message("user", "x"),
            Message("assistant", "y", thoughts=[Thought("Hm", signature(**CLAUDE))]),
            Message("user", "z"),
        ]
    )
    refused = ErrorBody("messages.1.content.0: Invalid `signature` in `thinking` block")
    simpler = wire.without(refused, keep_stream=False)
    assert simpler is not None
    assert b"reasoning_details" in wire.request(Call(prompt, "1")).body
    assert b"reasoning" not in simpler.request(Call(prompt, "1")).body
    assert simpler.without(refused, keep_stream=False) is None
    assert simpler.lasting() == wire
    plain = ChatWire.of(HttpSettings(name="m", model="u", base_url=str(URL), provider="groq"), URL)
    assert plain.without(refused, keep_stream=False) is None


def test_text_without_entries_goes_back_as_text() -> None:
    """A model behind OpenRouter that gave no entries gets its words back."""
    sent = sent_back("reasoning_details", Message("assistant", "Yes", thoughts=[Thought("Hmm.")]))
    assert sent == {"role": "assistant", "content": "Yes", "reasoning": "Hmm."}


# -- ids of tool calls, and usage ----------------------------------------------------------------------


def calls(answer: dict[str, object]) -> list[str]:
    """Return the ids of the calls in an answer that gives none."""
    functions = [{"function": {"name": "get", "arguments": "{}"}}] * 2
    body = {**answer, "choices": [{"message": {"tool_calls": functions}, "finish_reason": "tool_calls"}]}
    assembly = replayed([json.dumps(body).encode()], ChunkReader).assembly
    return [call.id for call in assembly.tool_calls]


def test_made_ids_differ_from_answer_to_answer() -> None:
    """A conversation holds several answers, and providers refuse one in which two calls have the same id."""
    ids = [*calls({"id": "c-1"}), *calls({"id": "c-2"}), *calls({"id": "c-1", "created": 1}), *calls({"created": 2})]
    assert len(set(ids)) == 8
    assert calls({"id": "c-1"}) == ids[:2]
    assert all(len(call_id) <= 40 for call_id in ids)


def test_ids_that_were_given_are_kept() -> None:
    """Also one that comes late."""
    deltas: list[dict[str, object]] = [
        {"tool_calls": [{"index": 0, "function": {"name": "get", "arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "id": "late", "function": {"arguments": "}"}}]},
    ]
    chunks = [{"id": "c-1", "choices": [{"delta": delta}]} for delta in deltas]
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    assert replayed([body], ChunkReader).assembly.tool_calls == (ToolCall("late", "get", "{}"),)


def test_tokens_written_to_a_cache_are_counted() -> None:
    """As OpenRouter states them: part of the prompt's."""
    details = {"cached_tokens": 5, "cache_write_tokens": 7}
    usage = {"prompt_tokens": 20, "completion_tokens": 1, "prompt_tokens_details": details}
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    counted = replayed([json.dumps(body).encode()], ChunkReader).assembly.usage
    assert counted is not None
    assert (counted.input_tokens, counted.cached_tokens, counted.cache_write_tokens) == (20, 5, 7)
