"""Stored sessions: whatever a session holds comes back as it was, and whatever else is found is one of our errors."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.errors import SerializationError
from wizard_actors.session_json import decode_session, encode_session
from wizard_actors.session_record import MAX_ID, NOT_IN_AN_ID, SessionRecord, SessionState, TurnRecord
from wizard_actors.types import FinishReason, Image, Message, Role, Text, TokenUsage, ToolCall

texts = st.text(max_size=20)
wholes = st.integers(-(2**63) + 1, 2**63 - 1)
times = (
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e18, max_value=1e18) | st.integers(-(2**62), 2**62)
).map(lambda at: at or 0.0)  # -0.0 equals the default, and is left out as that
kinds = st.sampled_from(["image/png", "image/svg+xml"])
images = st.builds(Image, texts.map("https://x.test/".__add__)) | st.builds(
    Image, st.none(), st.binary(min_size=1, max_size=20), kinds
)
contents = texts | st.lists(st.builds(Text, texts) | images, max_size=4)
calls = st.lists(st.builds(ToolCall, texts, texts, texts), max_size=2)
names = st.none() | texts
messages = st.one_of(
    st.builds(Message, st.sampled_from([Role.SYSTEM, Role.USER]), contents, name=names),
    st.builds(Message, st.just(Role.ASSISTANT), contents, calls, name=names),
    st.builds(
        Message, st.just(Role.TOOL), contents, tool_call_id=st.text(min_size=1), name=names, is_error=st.booleans()
    ),
)
turns = st.builds(
    TurnRecord,
    st.lists(messages, max_size=3),
    at=times,
    model=texts,
    upstream_model=st.none() | texts,
    usage=st.none() | st.builds(TokenUsage, wholes, wholes, wholes, wholes),
    cost=st.none() | st.decimals(allow_nan=False, allow_infinity=False),
    finish_reason=st.sampled_from(FinishReason),
    reasoning=texts,
    request_id=texts,
)
json_values = st.recursive(
    st.none() | st.booleans() | wholes | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
ids = st.text(min_size=1, max_size=MAX_ID).filter(lambda text: not NOT_IN_AN_ID.search(text))
records = st.builds(
    SessionRecord,
    ids,
    created_at=times,
    version=st.integers(1, 2**63 - 1),
    state=st.sampled_from(SessionState),
    system=st.none() | texts,
    route=st.none() | texts,
    model=st.none() | texts,
    context=st.dictionaries(texts, json_values, max_size=3),
    turns=st.lists(turns, max_size=3),
    updated_at=times,
    used_at=times,
)


@given(record=records)
def test_any_session_survives_json(record: SessionRecord) -> None:
    """What comes back is equal, down to the digits of a cost and the bytes of a picture."""
    decoded = decode_session(encode_session(record), record.id)

    assert decoded == record
    assert repr(decoded) == repr(record)
    assert encode_session(decoded) == encode_session(record)


@given(data=st.binary(max_size=40) | json_values.map(msgspec.json.encode))
def test_whatever_is_found_is_a_session_or_our_error(data: bytes) -> None:
    """Bytes that are no session are a SerializationError that names the session, and no other error."""
    with pytest.raises(SerializationError, match="'alice'"):
        decode_session(data, "alice")


@given(record=records, place=st.randoms(use_true_random=False), value=json_values)
def test_a_spoiled_session_is_never_another_value(record: SessionRecord, place: object, value: object) -> None:
    """One value replaced by another: our error, or a session that holds just what is written there."""
    plain = msgspec.json.decode(encode_session(record))
    _replace(plain, place, value)
    spoiled = msgspec.json.encode(plain)

    told = ""
    try:
        decoded = decode_session(spoiled, record.id)
    except SerializationError as error:
        told = str(error)
    else:
        assert decode_session(encode_session(decoded), record.id) == decoded
    assert not told or repr(record.id) in told


def _replace(plain: object, random: object, value: object) -> None:
    """Replace one value somewhere in JSON."""
    pick = random.choice  # type: ignore[attr-defined]  # Hypothesis gives a Random of its own
    while isinstance(plain, dict | list) and plain:
        key = pick(sorted(plain)) if isinstance(plain, dict) else pick(range(len(plain)))
        if not isinstance(plain[key], dict | list) or not plain[key] or pick([True, False]):
            plain[key] = value
            return
        plain = plain[key]


@given(record=records, cut=st.integers(0, 10_000))
def test_a_session_that_was_cut_off_is_found_out(record: SessionRecord, cut: int) -> None:
    """The beginning of a session is no session."""
    whole = encode_session(record)

    with pytest.raises(SerializationError):
        decode_session(whole[: cut % len(whole)], record.id)


@given(record=records, cost=st.decimals(allow_nan=False, allow_infinity=False))
def test_costs_keep_their_digits(record: SessionRecord, cost: Decimal) -> None:
    """Trailing zeros and exponents too."""
    priced = evolve(record, turns=[TurnRecord([], at=0.0, cost=cost)])

    assert str(decode_session(encode_session(priced), priced.id).turns[0].cost) == str(cost)
