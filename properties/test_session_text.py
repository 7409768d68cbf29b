"""Exported sessions: whatever a session holds is read back as it was, and any other text is one of our errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties.session_records import ODD, records, texts
from wizard_actors.errors import SerializationError
from wizard_actors.session_record import SessionRecord
from wizard_actors.session_text import from_json, from_markdown, to_json, to_markdown

pytestmark = pytest.mark.long


@given(record=records)
def test_any_session_survives_markdown(record: SessionRecord) -> None:
    """Down to the last space, line end, digit and picture."""
    written = to_markdown(record)

    read = from_markdown(written)

    assert read == record
    assert repr(read) == repr(record)
    assert to_markdown(read) == written


@given(record=records)
def test_any_session_survives_other_line_ends(record: SessionRecord) -> None:
    """An editor or a download may turn all of a document's."""
    assert from_markdown("\ufeff" + to_markdown(record).replace("\n", "\r\n")) == record


@given(record=records)
def test_any_session_survives_json(record: SessionRecord) -> None:
    """Indented as well as in one line."""
    read = from_json(to_json(record))

    assert read == record
    assert repr(read) == repr(record)


@given(lines=st.lists(st.one_of(st.sampled_from(ODD), texts, st.just("<!-- wizard turn {} -->")), max_size=12))
def test_any_other_text_is_a_session_or_our_error(lines: list[str]) -> None:
    """Also one that is full of what means something to the reader; a session that is read can be written."""
    for read in (from_markdown, from_json):
        try:
            record = read("\n".join(lines))
        except SerializationError:
            continue
        assert from_markdown(to_markdown(record)) == record


@given(record=records, place=st.integers(0), added=texts)
def test_a_document_that_was_spoiled_is_a_session_or_our_error(record: SessionRecord, place: int, added: str) -> None:
    """Whatever somebody writes wherever."""
    written = to_markdown(record)
    cut = place % len(written)

    for spoiled in (written[:cut], written[:cut] + added + written[cut:]):
        try:
            read = from_markdown(spoiled)
        except SerializationError:
            continue
        assert from_markdown(to_markdown(read)) == read


@given(said=st.lists(st.tuples(st.sampled_from(["User", "Assistant"]), texts), min_size=1, max_size=5))
def test_edited_texts_count(said: list[tuple[str, str]]) -> None:
    """A transcript that is written by hand says what stands there, where that is no markup of ours."""
    plain = [(role, " ".join(char for char in text if char.isalnum())) for role, text in said]
    written = "# talk\n" + "".join(f"\n## {role}\n{text}\n" for role, text in plain)

    record = from_markdown(written)

    assert [(message.role.capitalize(), message.text) for message in record.messages] == plain
