"""Frames: one JSON-RPC message each, read with care, refused with the code and the id that belong to it."""

from __future__ import annotations

import time

import pytest

from wizard_actors.errors import SerializationError
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

DEPTH = 64
LARGEST = 4 * 2**20
"""The default of `server.max_message`."""

PATIENCE = 0.5
"""Seconds of the processor that reading may take, in which nobody else is served; it takes a tenth of that."""


def refused(text: str | bytes, depth: int = DEPTH) -> Fault:
    """Return what reading a frame raises."""
    with pytest.raises(Fault) as caught:
        read_request(text, max_depth=depth)
    return caught.value


def test_a_request_is_read() -> None:
    """Its method, its parameters and its id."""
    text = request_text("generate", {"prompt": "Why?"}, "a")

    assert read_request(text, max_depth=DEPTH) == Incoming("generate", {"prompt": "Why?"}, "a")


def test_a_notification_has_no_id() -> None:
    """That is what makes it one; parameters may be left out."""
    assert read_request('{"jsonrpc":"2.0","method":"cancel"}', max_depth=DEPTH).id is None
    assert read_request(notification_text("credit", {"id": 1, "n": 5}), max_depth=DEPTH).params == {"id": 1, "n": 5}


@pytest.mark.parametrize("number", ["a", "x" * 128, "\U0001f600", 0, -1, 2**53 - 1, 1 - 2**53])
def test_ids_are_texts_or_whole_numbers(number: RequestId) -> None:
    """And come back as they were."""
    assert read_request(request_text("models", {}, number), max_depth=DEPTH).id == number
    answer = read_answer(result_text(number, None))
    assert isinstance(answer, Response)
    assert answer.id == number
    assert type(answer.id) is type(number)


@pytest.mark.parametrize("number", ["null", '""', '"%s"' % ("x" * 129), "true", "1.5", "1e3", "[1]", "{}", str(2**53)])
def test_other_ids_are_refused(number: str) -> None:
    """With an id of null: there is none to answer to. `null` is no notification either."""
    fault = refused(f'{{"jsonrpc":"2.0","id":{number},"method":"models"}}')

    assert (fault.code, fault.request) == (Code.INVALID_REQUEST, None)
    assert "`id` must be" in fault.message


@pytest.mark.parametrize(
    ("text", "code", "number"),
    [
        ("", Code.PARSE, None),
        ("{", Code.PARSE, None),
        ("NaN", Code.PARSE, None),
        ('{"a": "\\ud800"}', Code.PARSE, None),
        (b"{}", Code.PARSE, None),
        ("[]", Code.INVALID_REQUEST, None),
        ('[{"jsonrpc":"2.0","id":1,"method":"models"}]', Code.INVALID_REQUEST, None),
        ('"text"', Code.INVALID_REQUEST, None),
        ("5", Code.INVALID_REQUEST, None),
        ("null", Code.INVALID_REQUEST, None),
        ("{}", Code.INVALID_REQUEST, None),
        ('{"id":1,"method":"models"}', Code.INVALID_REQUEST, 1),
        ('{"jsonrpc":2.0,"id":1,"method":"models"}', Code.INVALID_REQUEST, 1),
        ('{"jsonrpc":"1.0","id":1,"method":"models"}', Code.INVALID_REQUEST, 1),
        ('{"jsonrpc":"2.0","id":1}', Code.INVALID_REQUEST, 1),
        ('{"jsonrpc":"2.0","id":1,"method":5}', Code.INVALID_REQUEST, 1),
        ('{"jsonrpc":"2.0","id":1,"method":"models","colour":"red"}', Code.INVALID_REQUEST, 1),
        ('{"jsonrpc":"2.0","id":1,"result":{}}', Code.INVALID_REQUEST, 1),
        ('{"jsonrpc":"2.0","id":1,"method":"models","params":[]}', Code.INVALID_PARAMS, 1),
        ('{"jsonrpc":"2.0","id":1,"method":"models","params":null}', Code.INVALID_PARAMS, 1),
        ('{"jsonrpc":"2.0","id":1,"method":"models","params":"x"}', Code.INVALID_PARAMS, 1),
    ],
)
def test_what_is_no_request_is_refused(text: str | bytes, code: Code, number: RequestId | None) -> None:
    """With JSON-RPC's code, and the request's id where it could be read."""
    fault = refused(text)

    assert (fault.code, fault.request) == (code, number)


def nested(levels: int) -> str:
    """Return a request whose params are at level 1, and nest down to `levels`."""
    inner = levels - 2
    return '{"jsonrpc":"2.0","id":1,"method":"models","params":{"a":' + "[" * inner + "]" * inner + "}}"


def test_levels_are_counted_from_the_message() -> None:
    """The message is the first, its params the second."""
    assert read_request(nested(8), max_depth=8).id == 1

    fault = refused(nested(9), depth=8)

    assert (fault.code, fault.request) == (Code.PARSE, 1)
    assert "at most 8 levels" in fault.message


@pytest.mark.parametrize("text", ["[" * 90_000, '{"a":' * 90_000, "[" * 90_000 + "]" * 90_000])
def test_nothing_is_nested_too_deeply_to_be_refused(text: str) -> None:
    """However deep it goes."""
    assert refused(text).code == Code.PARSE


def test_a_hundred_thousand_values_are_enough() -> None:
    """A message of just as many is read; one more is told with its id."""

    def of(values: int) -> str:
        # The message's own four, `params`' one, and the list's items.
        return request_text("models", {"a": [0] * (values - 6)}, 1)

    assert read_request(of(100_000), max_depth=DEPTH).id == 1
    fault = refused(of(100_001))
    assert (fault.code, fault.request) == (Code.PARSE, 1)
    assert "more than 100,000 values" in fault.message


@pytest.mark.parametrize("said", [",[{" * 400_000, '\\",\\\\' * 400_000, "\\\\\\\\" * 400_000 + ",", '",' * 3])
def test_signs_inside_of_texts_are_no_values(said: str) -> None:
    """A prompt may consist of commas and brackets, quoted ones too."""
    text = request_text("generate", {"prompt": said}, 1)

    assert read_request(text, max_depth=DEPTH).params == {"prompt": said}


@pytest.mark.parametrize(
    "text",
    [
        "[" + ",".join(["[]"] * 1_390_000) + "]",
        "[" + ",".join(["{}"] * 1_390_000) + "]",
        "[" + ",".join(["1"] * 2_000_000) + "]",
        "[" + ",".join(["[" * 60 + "]" * 60] * 34_000) + "]",
        "[" + ",".join(['""'] * 1_390_000) + "]",
        "{" + ",".join(['"a":1'] * 690_000) + "}",
        '{"jsonrpc":"2.0","id":1,"method":"m","params":{' + ",".join(f'"{n}":[]' for n in range(49_990)) + "}}",
        '{"jsonrpc":"2.0",' + ",".join(f'"{n}":1' for n in range(99_000)) + "}",
        '{"jsonrpc":"2.0","id":' + "9" * 4_000_000 + "}",
        "[" * (LARGEST // 2),
        '"' + "\\u0041" * 690_000 + '"',
        '"' + "\U0001f600" * 1_000_000 + '"',
        " " * LARGEST,
    ],
    ids=lambda text: f"{text[:40]}...",
)
def test_no_message_takes_long_to_be_read(text: str) -> None:
    """Everybody else waits meanwhile: the longest there may be, of whatever takes longest."""
    assert len(text.encode()) <= LARGEST
    best = min(seconds_to_read(text) for _ in range(2))

    assert best < PATIENCE


def seconds_to_read(text: str) -> float:
    """Return how long it takes to read a frame, or to refuse it."""
    began = time.thread_time()
    try:
        read_request(text, max_depth=DEPTH)
    except Fault as fault:
        assert len(fault.message) < 300, "nobody wants to read that"  # noqa: PT017 - of whatever is raised
    return time.thread_time() - began


# -- what a server says ------------------------------------------------------------------------------


def test_a_result_comes_back() -> None:
    """With the id of its request."""
    assert read_answer(result_text("a", {"total": 2})) == Response("a", {"total": 2})


def test_a_fault_comes_back() -> None:
    """Code, message, data and id; without an id where that was unknown."""
    answer = read_answer(fault_text(Fault(Code.METHOD_NOT_FOUND, "no such method", data={"code": "x"})))

    assert isinstance(answer, Response)
    assert answer.id is None
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.message, answer.fault.data) == (-32601, "no such method", {"code": "x"})


def test_a_notification_of_a_server_comes_back() -> None:
    """Its own kind of message."""
    text = notification_text("draining", {"seconds": 10})

    assert read_answer(text) == Incoming("draining", {"seconds": 10}, None)


@pytest.mark.parametrize("said", ["[]", "{}", "[[1]]", '{"a":""}', '""', '",]"'])
def test_an_answer_of_millions_of_values_is_a_fault_before_it_is_read(said: str) -> None:
    """What a server sends may take neither the program's time nor its memory; ten times a request's values may come."""
    many = ",".join([said] * 3_000_000)
    began = time.thread_time()
    with pytest.raises(Fault, match="more than 1,000,000 values"):
        read_answer(f'{{"jsonrpc":"2.0","id":"a","result":[{many}]}}')

    assert time.thread_time() - began < PATIENCE
    assert isinstance(read_answer(result_text("a", [{"a": "[,]"}] * 400_000)), Response)


def test_an_answers_texts_may_hold_any_number_of_signs() -> None:
    """Wherever one of its pieces ends: a quoted quote is no end of a text."""
    text = result_text("a", ["[,{" * 900_000, *['\\",[' * 10, ',\\\\"'] * 50_000])

    assert isinstance(read_answer(text), Response)


def test_a_request_that_is_not_valid_unicode_names_the_place() -> None:
    """It would be another one with anything else in its place."""
    for params, place in (
        ({"session": "na\ud800me"}, "`session`"),
        ({"prompt": {"messages": [{"content": "x"}, {"content": "\udfff"}]}}, r"`prompt\.messages\[1\]\.content`"),
        ({"context": {"\ud800": 1}}, "a name in it"),
        ({"prompts": ["x", "\ud83d\ude00"]}, r"`prompts\[1\]`"),
    ):
        with pytest.raises(SerializationError, match=f"^{place} is not valid Unicode"):
            request_text("generate", params, 1)


def test_what_is_told_of_something_done_is_sent_all_the_same() -> None:
    """Half a surrogate pair in an answer, which is paid for and stored, is replaced as sessions replace it."""
    assert read_answer(result_text(1, {"text": "half \ud83d"})) == Response(
        1, {"text": "half \N{REPLACEMENT CHARACTER}"}
    )
    assert '"half \N{REPLACEMENT CHARACTER}"' in notification_text("event", {"text": "half \ud83d"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        b"\xff",
        b'{"jsonrpc":"2.0","id":1,"result":1}',
        "[]",
        "5",
        "[" * 100_000,
        '{"jsonrpc":"2.0","id":true,"result":1}',
        '{"jsonrpc":"2.0","id":[],"result":1}',
        '{"jsonrpc":"2.0","id":"","result":1}',
        '{"jsonrpc":"2.0","id":1,"error":5}',
        '{"jsonrpc":"2.0","method":5}',
    ],
)
def test_what_no_server_says_is_a_fault(text: str | bytes) -> None:
    """And nothing else is raised."""
    with pytest.raises(Fault):
        read_answer(text)


def test_an_error_without_anything_in_it_is_one() -> None:
    """Of some other server's making."""
    answer = read_answer('{"jsonrpc":"2.0","id":1,"error":{}}')

    assert isinstance(answer, Response)
    assert answer.fault is not None
    assert answer.fault.code == Code.INTERNAL
