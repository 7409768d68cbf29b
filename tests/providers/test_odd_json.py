"""JSON that breaks the standard's rules: characters cut in two, numbers that are none; in every protocol's answers."""

import json
from collections.abc import Callable

import pytest

from wizard_actors.errors import ParseError, WizardError
from wizard_actors.providers import anthropic_events, responses_events
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.gemini_chunks import GeminiReader
from wizard_actors.providers.json_parts import MOST_ODD, decode
from wizard_actors.providers.openai_chunks import ChunkReader
from wizard_actors.providers.refusals import Head
from wizard_actors.providers.wire import Reader
from wizard_actors.streaming import Assembly
from wizard_actors.types import Finished, FinishReason, ModelEvent, TextDelta

HEAD = Head("primary")
GRIN = "\N{GRINNING FACE}"
FIRST, SECOND = "\ud83d", "\ude00"
"""The halves of it; `json.dumps` writes each as its escape."""


def chat(text: str, finish: str | None = None) -> dict[str, object]:
    """Return a chunk of Chat Completions."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def chat_arguments(text: str) -> dict[str, object]:
    """Return a chunk with more of a call's arguments."""
    return {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": text}}]}}]}


def responses(text: str) -> dict[str, object]:
    """Return an event of Responses."""
    return {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text}


def messages(text: str) -> dict[str, object]:
    """Return an event of Messages."""
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def gemini(text: str) -> dict[str, object]:
    """Return a chunk of `generateContent`."""
    return {"candidates": [{"content": {"parts": [{"text": text}]}}]}


PROTOCOLS: dict[str, tuple[Callable[[Head], Reader], Callable[[str], dict[str, object]]]] = {
    "chat": (ChunkReader, chat),
    "responses": (responses_events.EventReader, responses),
    "anthropic": (anthropic_events.EventReader, messages),
    "gemini": (lambda head: GeminiReader(head, "made_x"), gemini),
}


def event(value: object) -> bytes:
    """Return one event of a stream."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def read(*pieces: bytes, reader: Reader | None = None, raw: bool = False) -> tuple[Assembly, WizardError | None]:
    """Return what the events of a body make up, and what it failed with."""
    parser = AnswerParser(HEAD, reader or ChunkReader(HEAD), raw=raw)
    assembly = Assembly()
    for piece in pieces:
        assembly.extend(parser.feed(piece))
    assembly.extend(parser.close())
    return assembly, parser.failure


def events_of(*pieces: bytes) -> list[ModelEvent]:
    """Return the events of a Chat Completions stream."""
    parser = AnswerParser(HEAD, ChunkReader(HEAD))
    return [event for piece in pieces for event in parser.feed(piece)] + parser.close()


# -- characters cut in two ---------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([f"a{FIRST}", f"{SECOND}b"], f"a{GRIN}b"),
        ([FIRST, SECOND], GRIN),
        ([FIRST, f"{SECOND}{FIRST}", f"{SECOND}{FIRST}", SECOND], GRIN * 3),
        ([f"a{FIRST}", "b"], "a\ufffdb"),
        (["a", f"{SECOND}b"], "a\ufffdb"),
        ([f"a{FIRST}", f"{FIRST}b"], "a\ufffd\ufffdb"),
        ([f"a{FIRST}b{SECOND}c{SECOND}{FIRST}d"], "a\ufffdb\ufffdc\ufffd\ufffdd"),
        ([f"a{FIRST}"], "a\ufffd"),
    ],
)
def test_characters_cut_in_two_are_joined_where_they_meet(protocol: str, texts: list[str], said: str) -> None:
    """Half a character that is left alone is U+FFFD, and nothing else is lost."""
    make, piece = PROTOCOLS[protocol]
    answer, failure = read(*(event(piece(text)) for text in texts), reader=make(HEAD))
    assert failure is None
    assert answer.text == said


def test_arguments_of_calls_are_joined_too() -> None:
    """At whatever place of a chunk the text stands."""
    answer, failure = read(event(chat_arguments(f'{{"x": "{FIRST}')), event(chat_arguments(f'{SECOND}"}}')), DONE)
    assert failure is None
    assert [call.arguments for call in answer.tool_calls] == [f'{{"x": "{GRIN}"}}']


def test_the_last_word_waits_for_nothing() -> None:
    """What ended in half a character is told before the answer's end."""
    end = [TextDelta("a\ufffd"), Finished(FinishReason.STOP)]
    assert events_of(event(chat(f"a{FIRST}")), DONE) == end
    assert events_of(event(chat(f"a{FIRST}")) + DONE) == end


def test_a_second_half_elsewhere_is_another_character() -> None:
    """What two calls say at once is not mixed up."""
    other = {"choices": [{"delta": {"content": "", "reasoning_content": f"{SECOND}b"}}]}
    answer, _ = read(event(chat(f"a{FIRST}")), event(other), DONE)
    assert (answer.text, answer.reasoning) == ("a\ufffd", "\ufffdb")


@pytest.mark.parametrize("following", [17, {"choices": 3}, {"choices": []}, {"choices": [{"delta": None}]}, [1]])
def test_what_follows_half_a_character_may_be_anything(following: object) -> None:
    """The text before it is told."""
    answer, _ = read(event(chat(f"a{FIRST}")), event(following))
    assert answer.text == "a\ufffd"


@pytest.mark.parametrize("last", [b"data: {broken\n\n", b"data: " + b"x" * 9_000_000, event({"error": "gone"})])
def test_text_before_a_failure_is_told_though_it_ended_in_half_a_character(last: bytes) -> None:
    """It waited for the rest when the stream failed."""
    answer, failure = read(event(chat(f"a{FIRST}")), last)
    assert answer.text == "a\ufffd"
    assert failure is not None


def test_an_error_that_ends_in_half_a_character_is_raised_before_what_follows() -> None:
    """Also where that cannot be read."""
    _, failure = read(event({"error": {"message": f"gone{FIRST}"}}), b"data: {broken\n\n")
    assert "gone\ufffd" in str(failure)


def test_nothing_is_read_after_the_last_word_that_waited() -> None:
    """The last event of a response may end in half a character as well."""
    last = {"type": "response.completed", "response": {"model": f"m{FIRST}", "output": []}}
    answer, failure = read(event(last), event({"error": "late"}), reader=responses_events.EventReader(HEAD))
    assert failure is None
    assert answer.finished == Finished(FinishReason.STOP, "completed")


def test_other_events_come_at_once() -> None:
    """Only what ends in half a character waits, and no longer than for the next event."""
    parser = AnswerParser(HEAD, ChunkReader(HEAD))
    assert parser.feed(event(chat(f"{SECOND}a"))) == [TextDelta("\ufffda")]
    assert parser.feed(event(chat(f"b{FIRST}"))) == []
    assert parser.feed(event(chat("c"))) == [TextDelta("b\ufffd"), TextDelta("c")]
    assert parser.feed(event(chat("d"))) == [TextDelta("d")]


def test_everything_that_leaves_is_valid_unicode() -> None:
    """Names, ids, keys, a call's arguments and the raw JSON, in streams and in whole answers."""
    call = {"functionCall": {"name": f"f{SECOND}", "id": f"i{FIRST}", "args": {f"k{FIRST}": [f"{SECOND}v{FIRST}"]}}}
    candidate = {"content": {"parts": [call, {"text": f"a{FIRST}"}]}, "finishReason": f"STOP{SECOND}"}
    value = {"modelVersion": f"m{FIRST}", "candidates": [candidate]}
    for body in (event(value), json.dumps(value).encode()):
        answer, failure = read(body, reader=GeminiReader(HEAD, "made_x"), raw=True)
        assert failure is None
        assert answer.tool_calls[0].arguments == '{"k\ufffd":["\ufffdv\ufffd"]}'
        assert answer.text == "a\ufffd"
        assert FIRST not in f"{answer.tool_calls} {answer.finished} {answer.raw}"
        assert SECOND not in f"{answer.tool_calls} {answer.finished} {answer.raw}"


def test_a_text_that_is_all_of_the_json_is_valid_too() -> None:
    """As some errors are."""
    assert decode(json.dumps(f"{SECOND}a{FIRST}").encode()) == "\ufffda\ufffd"


def test_escapes_of_whole_characters_are_nothing_odd() -> None:
    """Nor is a text that speaks of an escape."""
    assert events_of(event(chat(GRIN))) == [TextDelta(GRIN)]
    assert events_of(event(chat(r"\ud83d"))) == [TextDelta(r"\ud83d")]
    mixed = rb'data: {"choices":[{"delta":{"content":"\\ud83d \ud83d\ude00"},"logprobs":NaN}]}' + b"\n\n"
    assert events_of(mixed) == [TextDelta(rf"\ud83d {GRIN}")]


# -- numbers that are none ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_json_does_not_have_cost_no_answer(number: str) -> None:
    """They are None, for what is passed on has to be JSON again."""
    chunk = f'{{"choices":[{{"delta":{{"content":"a"}},"logprobs":[{number},0.5]}}]}}'.encode()
    answer, failure = read(b"data: " + chunk + b"\n\n", raw=True)
    assert failure is None
    assert answer.text == "a"
    assert answer.raw == ({"choices": [{"delta": {"content": "a"}, "logprobs": [None, 0.5]}]},)
    whole = f'{{"choices":[{{"message":{{"content":"a"}},"logprobs":{number}}}]}}'.encode()
    assert read(whole)[0].text == "a"


@pytest.mark.parametrize("bad", [b"{", b"[1,]", b'{"a":"\xff"}', b'"\n"', b"9" * 5000, b"[" * 100_000, b"'a'", b"nan"])
def test_what_is_no_json_stays_none(bad: bytes) -> None:
    """The second look forgives no more than it should, and its own failures are not seen."""
    answer, failure = read(event(chat("a")), b"data: " + bad.replace(b"\n", b"\t") + b"\n\n")
    assert answer.text == "a"
    assert isinstance(failure, ParseError)
    assert "Expecting" not in str(failure)


def test_a_second_look_is_taken_at_small_bodies_alone() -> None:
    """It is slow, and what is large is no chunk."""
    assert decode(b'["' + b"x" * (MOST_ODD - 8) + b'",NaN]')
    with pytest.raises(ValueError, match="malformed"):
        decode(b'["' + b"x" * (MOST_ODD - 7) + b'",NaN]')
