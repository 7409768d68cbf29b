"""Hypothesis strategies for scenarios and their parts, and `check`, which plays one. Needs the extra `testing`.

    @given(scenario=scenarios())
    def test_my_promise(scenario: Scenario) -> None:
        check(scenario, my_invariant)

What they draw is short, for many examples in a few seconds, and shrinks to what a person can read: few models, round
numbers, settings at their defaults.
"""

from __future__ import annotations

from wizard_actors.testing.simulation.checking import check

try:
    from wizard_actors.testing.strategies.configurations import configurations
    from wizard_actors.testing.strategies.outages import fault_plans, scenarios, workloads
    from wizard_actors.testing.strategies.questions import prompts
    from wizard_actors.testing.strategies.wire import ProviderResponse, byte_streams, provider_responses
except ModuleNotFoundError as error:
    if error.name != "hypothesis":
        raise
    raise ModuleNotFoundError(
        "these strategies are Hypothesis's, which is not installed: `pip install 'wizard-actors[testing]'`",
        name=error.name,
    ) from error

__all__ = [
    "ProviderResponse",
    "byte_streams",
    "check",
    "configurations",
    "fault_plans",
    "prompts",
    "provider_responses",
    "scenarios",
    "workloads",
]
