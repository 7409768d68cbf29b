"""Stored sessions that Hypothesis makes up: everything that a record takes, and texts that are hard to keep."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import strategies as st

from wizard_actors.session_record import MAX_ID, NOT_IN_AN_ID, SessionRecord, SessionState, TurnRecord
from wizard_actors.types import FinishReason, Image, Message, Role, Signature, Text, Thought, TokenUsage, ToolCall

__all__ = ["ODD", "costs", "json_values", "messages", "records", "texts"]

ODD = (
    *("\n", "\r", "\r\n", " ", "\t", "\x00", "\x0c", "\x85", "\u2028", "\u202e", "\ufeff", "\U0001f9d9"),
    *("-->", "--!>", "<!--", "<!-- wizard message -->", "<!-- wizard session {} -->", "> ", ">", "\\", "]]>"),
    *("# ", "## User", "## Assistant", "## System (x)", "```", "````python", "~~~", "---", "===", "- ", "    ", "&lt;"),
)
texts = st.text(max_size=20) | st.lists(st.sampled_from(ODD) | st.text(max_size=3), max_size=8).map("".join)
wholes = st.integers(-(2**63) + 1, 2**63 - 1)
times = (
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e18, max_value=1e18) | st.integers(-(2**62), 2**62)
).map(lambda at: at or 0.0)  # -0.0 equals the default, and is left out as that
kinds = st.sampled_from(["image/png", "image/svg+xml"])
images = st.builds(Image, texts.map("https://x.test/".__add__)) | st.builds(
    Image, st.none(), st.binary(min_size=1, max_size=20), kinds
)
contents = texts | st.lists(st.builds(Text, texts) | images, max_size=4)
signatures = st.none() | st.builds(Signature, texts, texts)
calls = st.lists(st.builds(ToolCall, texts, texts, texts, signatures), max_size=2)
thoughts = st.lists(st.builds(Thought, texts, signatures, redacted=st.booleans(), id=st.none() | texts), max_size=2)
names = st.none() | texts
messages = st.one_of(
    st.builds(Message, st.sampled_from([Role.SYSTEM, Role.USER]), contents, name=names),
    st.builds(Message, st.just(Role.ASSISTANT), contents, calls, name=names, thoughts=thoughts),
    st.builds(
        Message, st.just(Role.TOOL), contents, tool_call_id=st.text(min_size=1), name=names, is_error=st.booleans()
    ),
)
costs = st.builds(
    Decimal,
    st.tuples(st.integers(0, 1), st.lists(st.integers(0, 9), min_size=1, max_size=25), st.integers(-100, 5)),
)
turns = st.builds(
    TurnRecord,
    st.lists(messages, min_size=1, max_size=3),
    at=times,
    model=texts,
    upstream_model=st.none() | texts,
    usage=st.none() | st.builds(TokenUsage, wholes, wholes, wholes, wholes),
    cost=st.none() | costs,
    finish_reason=st.sampled_from(FinishReason),
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
