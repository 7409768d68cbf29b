"""The JSON of stored sessions: how it looks, what is refused, and that errors name the session and the place."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from attrs import evolve, frozen

from wizard_actors.errors import SerializationError
from wizard_actors.session_json import SCHEMA, decode_session, encode_session
from wizard_actors.session_record import SessionRecord, TurnRecord
from wizard_actors.testing.storage_bench import born, everything, later
from wizard_actors.types import Image, Message, Role, TokenUsage, ToolCall


def test_the_json_of_a_session() -> None:
    """What is at its default is left out; a reader of this schema depends on each of these names."""
    assert msgspec.json.decode(encode_session(later(born("alice", 1.5), "Why?", at=2.5))) == {
        "schema": 1,
        "id": "alice",
        "created_at": 1.5,
        "version": 2,
        "state": "active",
        "turns": [
            {
                "messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Why? Because."}],
                "at": 2.5,
                "model": "primary",
                "usage": {"input_tokens": 9, "output_tokens": 2},
                "cost": "0.0012",
            }
        ],
        "updated_at": 2.5,
    }


def test_everything_comes_back() -> None:
    """Pictures by url and by bytes, tool calls, reasoning, costs, context, odd characters."""
    assert decode_session(encode_session(everything()), "everything") == everything()


def test_a_newer_schema_is_refused_by_name() -> None:
    """A session that a newer version stored is left alone, and the message says what to do."""
    data = encode_session(born("alice")).replace(b'"schema":1', b'"schema":2')

    with pytest.raises(SerializationError, match=r"session 'alice' was stored by a newer version.*schema 2.*upgrade"):
        decode_session(data, "alice")


def test_a_newer_schema_is_told_from_damage() -> None:
    """However different its form is."""
    with pytest.raises(SerializationError, match="newer version"):
        decode_session(msgspec.json.encode({"schema": SCHEMA + 1, "turns": 5}), "alice")


def spoiled(path: str, value: object) -> bytes:
    """Return the JSON of `everything` with one value replaced, or removed."""
    plain: Any = msgspec.json.decode(encode_session(everything()))
    inner: Any = plain
    *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in way:
        inner = inner[key]
    inner[last] = value
    return msgspec.json.encode(plain)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("schema", "1", "it has no `schema`"),
        ("schema", 0, "it has no `schema`"),
        ("schema", True, "it has no `schema`"),
        ("id", "bob", "it holds the session 'bob'"),
        ("id", "", "a session's id is a text"),
        ("colour", "red", "unknown keys: 'colour'"),
        ("version", "5", "`version` must be a whole number"),
        ("version", 1.0, "`version` must be a whole number"),
        ("version", True, "`version` must be a whole number"),
        ("version", 2**63, "`version` must be a whole number"),
        ("created_at", "1", "`created_at` must be a number"),
        ("created_at", False, "`created_at` must be a number"),
        ("created_at", None, "`created_at` must be a number"),
        ("state", "asleep", "`state` must be one of created"),
        ("state", 5, "`state` must be one of created"),
        ("route", 5, "`route` must be a text"),
        ("context", [], "`context` must be an object"),
        ("turns", {}, "`turns` must be a list"),
        ("turns", "abc", "`turns` must be a list"),
        ("turns.0", "", r"`turns\[0\]` must be an object"),
        ("turns.0.usage", "", r"`turns\[0\]\.usage` must be an object"),
        ("turns.0.usage.input_tokens", "7", r"`turns\[0\]\.usage\.input_tokens` must be a whole number"),
        ("turns.0.cost", 0.1, r"`turns\[0\]\.cost` must be a text"),
        ("turns.0.cost", "a lot", r"`turns\[0\]\.cost` must be a decimal number"),
        ("turns.0.cost", "1_0.5", r"`turns\[0\]\.cost` must be a decimal number, in the form"),
        ("turns.0.cost", " 1.5 ", r"`turns\[0\]\.cost` must be a decimal number, in the form"),
        ("turns.0.cost", "\u0661", r"`turns\[0\]\.cost` must be a decimal number, in the form"),
        ("turns.0.cost", "+1", r"`turns\[0\]\.cost` must be a decimal number, in the form"),
        ("turns.0.cost", "NaN", "cost must be a finite Decimal"),
        ("turns.0.finish_reason", "done", r"`turns\[0\]\.finish_reason` must be one of stop"),
        ("turns.0.messages.0.role", "wizard", r"`turns\[0\]\.messages\[0\]\.role` must be one of system"),
        ("turns.0.messages.0.content", 5, r"`turns\[0\]\.messages\[0\]\.content` must be a text"),
        ("turns.0.messages.0.content", {"type": "text"}, r"\.content` must be a text"),
        ("turns.0.messages.0.content.0", "Hi", r"\.content\[0\]` must be an object"),
        ("turns.0.messages.0.content.0.type", "sound", r"\.content\[0\]` must have one of the types text, image"),
        ("turns.0.messages.0.content.0.type", ["text"], r"\.content\[0\]` must be a text"),
        ("turns.0.messages.0.content.1.url", None, r"`turns\[0\]\.messages\[0\]\.content\[1\]`: an Image takes either"),
        ("turns.0.messages.0.content.2.data", "AP8", r"\.content\[2\]\.data` must be base64 text"),
        ("turns.0.messages.0.content.2.data", "QR==", r"\.content\[2\]\.data` must be base64 text, in the form"),
        ("turns.0.messages.1.tool_calls.0.arguments", {}, r"\.tool_calls\[0\]\.arguments` must be a text"),
        ("turns.0.messages.2.tool_call_id", None, r"`turns\[0\]\.messages\[2\]`: a tool message needs"),
    ],
)
def test_what_is_damaged_is_named_with_its_place(path: str, value: object, told: str) -> None:
    """The message names the session and the place, whatever is wrong there, and nothing is taken for something else."""
    with pytest.raises(SerializationError, match=rf"what is stored of session 'everything' cannot be read: .*{told}"):
        decode_session(spoiled(path, value), "everything")


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('"version": 2, "version": 3', "version"),
        ('"id": "alice"', "id"),
        ('"context": {"x": 1, "x": 2}', "x"),
        ('"context": {"a": [{"x": 1, "y": 2, "\\u0078": 1}]}', "x"),
        ('"turns": [{"messages": [{"role": "user", "content": "a", "content": "b"}], "at": 1}]', "content"),
    ],
)
def test_a_key_that_stands_twice_is_damage(more: str, key: str) -> None:
    """Readers of JSON disagree on which of the two counts, so neither does."""
    data = f'{{"schema": 1, "id": "alice", "created_at": 1.0, {more}}}'

    with pytest.raises(SerializationError, match=f"session 'alice' cannot be read: the key '{key}' stands twice"):
        decode_session(data.encode(), "alice")


def test_other_spaces_and_another_order_are_no_damage() -> None:
    """A database may have written the same JSON in its own way."""
    plain = msgspec.json.decode(encode_session(everything()))
    data = json.dumps(dict(reversed(plain.items())), indent=2).encode()

    assert decode_session(data, "everything") == everything()


@pytest.mark.parametrize("number", ["9" * 5_000, "123456789012345678901234567890", "1e400", "-" + "9" * 5_000])
def test_a_number_beyond_all_bounds_is_damage(number: str) -> None:
    """However many digits it has."""
    data = f'{{"schema": 1, "id": "alice", "created_at": 1, "context": {{"x": {number}}}}}'

    with pytest.raises(SerializationError, match="session 'alice' cannot be read"):
        decode_session(data.encode(), "alice")


def test_what_is_missing_is_named() -> None:
    """A field without a default has to be there."""
    with pytest.raises(SerializationError, match="`created_at` is missing"):
        decode_session(b'{"schema": 1, "id": "alice"}', "alice")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"null", b"[]", b"5", b'"\xff"', b"[" * 100_000, b"1e999"])
def test_what_is_no_session_at_all_is_an_error_of_ours(data: bytes) -> None:
    """Cut off, other bytes, other JSON, too deep: a SerializationError with the session's name."""
    with pytest.raises(SerializationError, match="session 'alice' cannot be read: it is no"):
        decode_session(data, "alice")


def test_an_error_repeats_nothing_that_was_said() -> None:
    """What people and models say does not get into messages."""
    data = spoiled("turns.0.messages.0.content", {"canary": "c4n4ry"})

    with pytest.raises(SerializationError) as raised:
        decode_session(data, "everything")

    assert "c4n4ry" not in str(raised.value)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (Message(Role.ASSISTANT, "", [ToolCall("1", "f", "\ud800")]), "is not valid Unicode"),
    ],
)
def test_what_would_not_come_back_is_not_stored(message: Message, told: str) -> None:
    """A value that the types of Python let through, and that could never be loaded again, is refused with a name."""
    record = SessionRecord("alice", created_at=1, turns=[TurnRecord([message], at=1)])

    with pytest.raises(SerializationError, match=f"session 'alice' cannot be stored: a value of it {told}"):
        encode_session(record)


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, b"abc", 2**70, Decimal("1.5"), {1: 2}, object()])
def test_context_that_somebody_changed_is_not_stored(value: object) -> None:
    """Who goes round the record's frozen context is told when it is stored, and nothing is stored as something else."""
    record = SessionRecord("alice", created_at=1, context={"list": []})
    assert isinstance(record.context, dict)
    dict.__setitem__(record.context, "x", value)

    with pytest.raises(SerializationError, match="session 'alice' cannot be stored: a value of it "):
        encode_session(record)


@frozen
class Picture(Image):
    """A part with a field of its own."""

    title: str = "lost"


@frozen
class Call(ToolCall):
    """A tool call with a field of its own."""

    mark: str = "lost"


@frozen
class Session(SessionRecord):
    """A session with a field of its own."""

    owner: str = "lost"


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (Session("alice", created_at=1), "SessionRecord itself, and is of type Session"),
        (
            SessionRecord(
                "alice", created_at=1, turns=[TurnRecord([Message(Role.USER, [Picture(url="https://a/b")])], at=1)]
            ),
            "Image itself, and is of type Picture",
        ),
        (
            SessionRecord(
                "alice",
                created_at=1,
                turns=[TurnRecord([Message(Role.ASSISTANT, "", [Call("1", "f", "{}")])], at=1)],
            ),
            "ToolCall itself, and is of type Call",
        ),
    ],
)
def test_a_subclass_is_not_stored(record: SessionRecord, told: str) -> None:
    """Its own fields would be lost without a word."""
    with pytest.raises(
        SerializationError, match=f"session 'alice' cannot be stored: a value of it must be of type {told}"
    ):
        encode_session(record)


def test_counts_are_whole_numbers() -> None:
    """A usage with half a token is refused when it is stored, not when it is needed."""
    halves = TokenUsage(0.5, 1)  # type: ignore[arg-type]
    record = evolve(born("alice"), turns=[TurnRecord([Message(Role.USER, "?")], at=1, usage=halves)])

    with pytest.raises(SerializationError, match="must be a whole number"):
        encode_session(record)
