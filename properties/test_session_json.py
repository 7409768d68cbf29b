"""Stored sessions: whatever a session holds comes back as it was, and whatever else is found is one of our errors."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from properties.session_records import costs, json_values, messages, records
from wizard_actors.errors import SerializationError
from wizard_actors.session_json import decode_session, encode_session
from wizard_actors.session_record import SessionRecord, TurnRecord
from wizard_actors.types import Message


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


@given(record=records, message=messages, cost=costs)
def test_costs_keep_their_digits(record: SessionRecord, message: Message, cost: Decimal) -> None:
    """Trailing zeros and exponents too."""
    priced = evolve(record, turns=[TurnRecord([message], at=0.0, cost=cost)])

    assert str(decode_session(encode_session(priced), priced.id).turns[0].cost) == str(cost)
