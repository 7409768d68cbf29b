"""What has to hold of every run, whatever goes wrong in it: named checks of a report. Pure. See docs/invariants.md."""

from __future__ import annotations

from typing import Final

from wizard_actors.testing.simulation.invariants.answers import ANSWERS
from wizard_actors.testing.simulation.invariants.bugs import BUGS
from wizard_actors.testing.simulation.invariants.calls import CALLS
from wizard_actors.testing.simulation.invariants.invariant import Invariant, violations_of
from wizard_actors.testing.simulation.invariants.limits import LIMITS
from wizard_actors.testing.simulation.invariants.liveness import LIVENESS
from wizard_actors.testing.simulation.invariants.prompts import PROMPTS

__all__ = ["INVARIANTS", "Invariant", "violations_of"]

INVARIANTS: Final[tuple[Invariant, ...]] = (*ANSWERS, *LIVENESS, *BUGS, *PROMPTS, *CALLS, *LIMITS)
"""All of them."""
