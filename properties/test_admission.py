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
STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.booleans(), st.integers(0, 9)), max_size=40)


@given(STEPS)
def test_a_request_is_refused_exactly_where_a_bound_is_met(steps: list[tuple[str, int, bool, int]]) -> None:
    """Counts are those of what is in progress, whatever was refused or has ended; and nothing is left in the end."""
    admission = Admission()
    running: list[tuple[str, int, ExitStack]] = []
    for name, connection, begins, which in steps:
        if not begins:
            if running:
                running.pop(which % len(running))[2].close()
            continue
        keys, connections = Counter(key for key, _, _ in running), Counter(where for _, where, _ in running)
        room = connections[connection] < 2 and keys[name] < 3 and len(running) < 5
        stack = ExitStack()
        try:
            stack.enter_context(admission.request(Caller(name), connection, BOUNDS))
            running.append((name, connection, stack))
            assert room
        except MailboxFullError:
            assert not room
        assert admission.in_progress == len(running)
    for _, _, stack in running:
        stack.close()

    assert (admission.in_progress, len(admission._keys), len(admission._connections)) == (0, 0, 0)
