"""Properties of the counts of what is in progress, over any order in which requests come and go."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.config import ServerConfig
from wizard_actors.errors import MailboxFullError
from wizard_actors.server.access import Caller
from wizard_actors.server.admission import Admission

BOUNDS = ServerConfig(max_per_connection=2, max_per_key=3, max_in_flight=5)
STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.booleans(), st.integers(0, 9), st.integers(1, 3)),
    max_size=40,
)


@given(STEPS)
def test_a_request_is_refused_exactly_where_a_bound_is_met(steps: list[tuple[str, int, bool, int, int]]) -> None:
    """Counts are those of what is in progress, whatever was refused or has ended; and nothing is left in the end."""
    admission = Admission()
    running: list[tuple[str, int, int, ExitStack]] = []
    for name, connection, begins, which, most in steps:
        if not begins:
            if running:
                running.pop(which % len(running))[3].close()
            continue
        keys, connections = Counter[str](), Counter(where for _, where, _, _ in running)
        for who, _, taken, _ in running:
            keys[who] += taken
        left = min(3 - keys[name], 5 - sum(keys.values()))
        assert admission.room(Caller(name), BOUNDS) == left
        room = connections[connection] < 2 and left > 0
        stack = ExitStack()
        try:
            stack.enter_context(admission.request(Caller(name), connection, BOUNDS))
            at_once = stack.enter_context(admission.several(Caller(name), BOUNDS, most))
            running.append((name, connection, at_once, stack))
            assert (room, at_once) == (True, min(most, left))
        except MailboxFullError:
            assert not room
        assert admission.in_progress == sum(taken for _, _, taken, _ in running)
    for _, _, _, stack in running:
        stack.close()

    assert (admission.in_progress, len(admission._keys), len(admission._connections)) == (0, 0, 0)
