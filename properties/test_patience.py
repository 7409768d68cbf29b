"""The gate of a batch under any order of refusals, outcomes and passages."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.patience import Gate, Refusal

REFUSALS = st.builds(Refusal, st.floats(0, 600), named=st.booleans(), sent=st.booleans())
STEPS = st.lists(st.tuples(st.sampled_from(["pass", "end", "old"]) | REFUSALS, st.floats(0, 100)), max_size=40)


@given(steps=STEPS, seed=st.integers(0, 9))
def test_nobody_passes_before_the_instant_named_and_everybody_passes_in_the_end(
    steps: list[tuple[str | Refusal, float]], seed: int
) -> None:
    """No named instant is undercut, no wait is longer than the longest one named, and two never pass at once after a
    refusal until somebody has had an outcome.
    """
    gate, now, named, bound, passed_at, proven = Gate(Random(seed)), 0.0, 0.0, 0.0, -1.0, True
    ticket = gate.passed(now)
    for step, later in steps:
        now += later
        if isinstance(step, Refusal):
            gate.refused(step, now)
            named = max(named, now + step.seconds) if step.named else named
            bound = max(bound, now + max(step.seconds, 1.0) + 0.2)
            passed_at, proven = -1.0, False
        elif step == "pass":
            now = max(now, gate.opens_at)
            assert now >= named
            assert proven or now > passed_at
            ticket, passed_at = gate.passed(now), now
            bound = max(bound, now + 0.1)
        else:
            gate.ended(ticket if step == "end" else -1, now)
            proven = proven or (step == "end" and passed_at >= 0.0)
        assert gate.opens_at <= bound
