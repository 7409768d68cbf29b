"""Properties of the ids under which the sessions of keys are stored: nobody's name reaches another key's space."""

from __future__ import annotations

from typing import cast

from hypothesis import assume, given
from hypothesis import strategies as st

from wizard_actors.errors import SerializationError
from wizard_actors.server.access import Caller
from wizard_actors.server.callers_sessions import CallersSessions
from wizard_actors.server.key_settings import KeyConfig
from wizard_actors.server.keys_file import hash_of
from wizard_actors.session_record import check_id
from wizard_actors.sessions import TrioSessions

KEYS = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
NAMES = st.text(max_size=220) | st.builds("{}/{}".format, KEYS, st.text(max_size=20)) | st.just("../bob/x")


def space(key: str) -> CallersSessions:
    """Return the sessions of a key."""
    assert KeyConfig(name=key, hash=hash_of(key)).name == key
    return CallersSessions(cast("TrioSessions", None), Caller(key).session_prefix)


def stored(sessions: CallersSessions, name: str) -> str:
    """Return the id under which a session is stored; skip names that none can have."""
    try:
        return sessions._stored(name)
    except SerializationError:
        assume(False)
        raise


@given(KEYS, KEYS, NAMES, NAMES)
def test_no_name_of_one_key_reaches_a_session_of_another(one: str, other: str, name: str, others_name: str) -> None:
    """Neither by an id, nor by what a list of the other's shows."""
    assume(one != other)

    mine, others = stored(space(one), name), stored(space(other), others_name)

    assert mine != others
    assert not mine.startswith(Caller(other).session_prefix)


@given(KEYS, NAMES, NAMES)
def test_a_name_comes_back_as_it_was_and_is_one_sessions_alone(key: str, name: str, another: str) -> None:
    """What is stored is a name that a session can have."""
    sessions = space(key)

    found = stored(sessions, name)

    check_id(found)
    assert sessions._seen(found) == name
    assert (found == stored(sessions, another)) == (name == another)


@given(NAMES)
def test_without_keys_names_are_ids(name: str) -> None:
    """As they always were."""
    assert stored(CallersSessions(cast("TrioSessions", None), Caller().session_prefix), name) == name
