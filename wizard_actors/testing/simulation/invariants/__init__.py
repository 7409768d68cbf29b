"""What has to hold of every run, whatever goes wrong in it: named checks of a report. Pure. See docs/invariants.md."""

from __future__ import annotations

from typing import Final

from wizard_actors.testing.simulation.invariants.answers import ANSWERS
from wizard_actors.testing.simulation.invariants.bugs import BUGS
from wizard_actors.testing.simulation.invariants.cached import CACHED
from wizard_actors.testing.simulation.invariants.calls import CALLS
from wizard_actors.testing.simulation.invariants.circuits import CIRCUITS
from wizard_actors.testing.simulation.invariants.fallback import FALLBACK
from wizard_actors.testing.simulation.invariants.invariant import Invariant, violations_of
from wizard_actors.testing.simulation.invariants.limits import LIMITS
from wizard_actors.testing.simulation.invariants.liveness import LIVENESS
from wizard_actors.testing.simulation.invariants.money import MONEY
from wizard_actors.testing.simulation.invariants.prompts import PROMPTS
from wizard_actors.testing.simulation.invariants.turns import TURNS

__all__ = ["INVARIANTS", "Invariant", "violations_of"]

INVARIANTS: Final[tuple[Invariant, ...]] = (
    *ANSWERS,
    *LIVENESS,
    *FALLBACK,
    *BUGS,
    *PROMPTS,
    *TURNS,
    *CALLS,
    *CACHED,
    *CIRCUITS,
    *LIMITS,
    *MONEY,
)
"""All of them."""
