"""`check`: a simulation that fails with all that is needed to play it again."""

from __future__ import annotations

from typing import Final

from wizard_actors.errors import ConfigError
from wizard_actors.testing.simulation.invariants import INVARIANTS, Invariant
from wizard_actors.testing.simulation.report import Report
from wizard_actors.testing.simulation.run import simulate
from wizard_actors.testing.simulation.scenario import Scenario
from wizard_actors.testing.simulation.scenario_file import scenario_to_toml

__all__ = ["check"]

MOST_SHOWN: Final = 10
"""How many violations a message shows; there may be as many as requests."""

OWN: Final = (
    "# `wizard simulate` checks the built-in invariants alone; your own are checked again by\n"
    '# check(load_scenario("FILE"), ...)'
)
"""What is said of invariants of one's own: as a comment, for it stands below TOML."""


def check(scenario: Scenario, *invariants: Invariant, seed: int | None = None) -> Report:
    """Play a scenario as `simulate` does, and return what came of it; `invariants` are checked beside `INVARIANTS`.

    Raises `AssertionError` where one of them does not hold. Its message has what was found, the seed, and the scenario
    as TOML: written to a file, `wizard simulate FILE` plays the same run again, and checks `INVARIANTS` alone. A
    scenario that TOML cannot hold is shown as Python has it. Else raises what `simulate` raises.
    """
    __tracebackhide__ = True
    report = simulate(scenario, seed=seed, invariants=(*INVARIANTS, *invariants))
    if report.violations:
        raise AssertionError("\n".join([_message(report), *([OWN] if invariants else [])]))
    return report


def _message(report: Report) -> str:
    played, violations = report.scenario, report.violations
    shown = [f"  {violation}" for violation in violations[:MOST_SHOWN]]
    if len(violations) > MOST_SHOWN:
        shown.append(f"  and {len(violations) - MOST_SHOWN} more")
    return "\n".join(
        [
            f"{played.name} with seed {played.seed} does not hold:",
            *shown,
            "",
            *_again(played),
        ]
    )


def _again(played: Scenario) -> tuple[str, ...]:
    """Return how to play a scenario again."""
    try:
        return "`wizard simulate FILE` plays it again, with this in the file:", "", scenario_to_toml(played)
    except ConfigError as error:
        return "`simulate` plays it again (it cannot be written to a file):", f"  {error}", "", repr(played)
