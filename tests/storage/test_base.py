"""What every storage shares: the comparison of versions, the order of lists, the errors."""

from __future__ import annotations

import re
from typing import Any

import pytest
from attrs import evolve

from wizard_actors.errors import SessionConflictError
from wizard_actors.session_record import SessionRecord, SessionState
from wizard_actors.storage.base import (
    MAX_PAGE,
    check_busy,
    check_limit,
    check_prefix,
    check_replaces,
    newest_first,
    storage_error,
)
from wizard_actors.testing.storage_bench import born, later


def test_a_version_replaces_the_one_before() -> None:
    """Version 1 goes where nothing is, version 2 over version 1."""
    check_replaces("memory", born("alice"), None)
    check_replaces("memory", later(born("alice")), born("alice").summary)


def test_an_expired_session_makes_room() -> None:
    """Version 1 goes over a session that is stored as expired; a later version of another one does not."""
    stored = evolve(later(born("alice")), state=SessionState.EXPIRED).summary

    check_replaces("memory", born("alice", 5.0), stored)
    with pytest.raises(SessionConflictError):
        check_replaces("memory", later(born("alice", 5.0)), stored)


@pytest.mark.parametrize(
    ("record", "stored", "told"),
    [
        (later(born("alice")), None, "is not stored: it was deleted, or never saved"),
        (born("alice"), born("alice"), "is stored in version 1"),
        (later(born("alice")), later(born("alice")), "is stored in version 2"),
        (later(born("alice")), born("alice", 5.0), "was deleted, and another one of the same name was created since"),
    ],
)
def test_a_conflict_says_what_was_found(record: SessionRecord, stored: SessionRecord | None, told: str) -> None:
    """The message names backend, session and versions, and says what to do."""
    with pytest.raises(SessionConflictError) as raised:
        check_replaces("memory", record, None if stored is None else stored.summary)

    advice = "there is nothing to load, begin it anew" if stored is None else "load the session again"
    refused = f"version {record.version} was not saved"
    assert str(raised.value) == f"memory: session 'alice' {told}; {refused}: {advice}"


def test_lists_go_by_time_then_by_code_points() -> None:
    """The newest first; names of the same time in the order of their code points, not of any language."""
    records = [born("\u00e9", 1.0), born("z", 1.0), born("B", 1.0), born("a", 1.0), born("old", 0.5), born("new", 2.0)]

    names = [each.id for each in sorted((record.summary for record in records), key=newest_first)]

    assert names == ["new", "B", "a", "z", "\u00e9", "old"]


def test_a_list_goes_by_when_a_session_was_used() -> None:
    """Not by when it was created or changed."""
    used, changed = evolve(born("a", 1.0), used_at=9.0), evolve(born("b", 2.0), updated_at=8.0)

    assert newest_first(used.summary) < newest_first(changed.summary)


@pytest.mark.parametrize("limit", [0, -1, MAX_PAGE + 1])
def test_pages_have_bounds(limit: int) -> None:
    """A limit out of them is a ValueError; the bounds themselves are not."""
    check_limit(1)
    check_limit(MAX_PAGE)
    with pytest.raises(ValueError, match=f"1 to 1000, not {limit}"):
        check_limit(limit)


@pytest.mark.parametrize("limit", [2.5, 5.0, True, "5", None])
def test_a_limit_is_a_whole_number(limit: Any) -> None:  # noqa: ANN401 - the mistake
    """Anything else is a ValueError, with what was given."""
    with pytest.raises(ValueError, match=re.escape(f"1 to 1000, not {limit!r}")):
        check_limit(limit)


def test_a_text_is_no_collection_of_ids() -> None:
    """Its letters would be taken for ids, and the session of that name removed though busy."""
    with pytest.raises(TypeError, match=r"not a text: \['alice'\]"):
        check_busy("alice")

    for ids in (["alice"], ("alice",), {"alice"}, {"alice": 1}.keys()):
        assert check_busy(ids) == {"alice"}
    assert check_busy(()) == frozenset()


@pytest.mark.parametrize("prefix", [None, b"a", 1, ["a"]])
def test_a_prefix_is_a_text(prefix: Any) -> None:  # noqa: ANN401 - the mistake
    """Anything else is a TypeError, with what was given; the empty text is one."""
    assert check_prefix("") == ""
    with pytest.raises(TypeError, match=re.escape(f"not {prefix!r}")):
        check_prefix(prefix)


def test_an_error_names_backend_session_and_file() -> None:
    """What is about all sessions names none."""
    about_one = storage_error("sqlite", "a/b", "cannot be read: disk I/O error", path="wizard.db")
    about_all = storage_error("sqlite", None, "is locked")

    assert str(about_one) == "sqlite: session 'a/b' cannot be read: disk I/O error"
    assert about_one.path == "wizard.db"
    assert str(about_all) == "sqlite: is locked"
