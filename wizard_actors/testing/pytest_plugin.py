"""Fixtures for the tests of an app: `fault_plan`, `simulated_client` and `simulation`. pytest loads them by itself
where this package is installed; nothing else is imported before a test asks for one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from wizard_actors.testing.fault_plan import FaultPlan, SimulatedClients
    from wizard_actors.testing.simulation.invariants import Invariant
    from wizard_actors.testing.simulation.report import Report
    from wizard_actors.testing.simulation.scenario import Scenario

__all__ = ["Simulation", "fault_plan", "simulated_client", "simulation"]

HOME = "wizard_actors.testing"


class Simulation(Protocol):
    """What the fixture `simulation` is."""

    def __call__(
        self, scenario: Scenario | str | os.PathLike[str], *invariants: Invariant, seed: int | None = None
    ) -> Report:
        """Play a scenario, a file with one, or a shipped one by its name; see `check`."""


@pytest.fixture
def fault_plan() -> FaultPlan:
    """What goes wrong with the app's models: `fault_plan.add("down", models=["primary"])`, before the app runs or while
    it does. An app that opens its client itself gets its models by `fault_plan.providers(config)`.
    """
    plan: FaultPlan = import_module(f"{HOME}.fault_plan").FaultPlan()
    return plan


@pytest.fixture
def simulated_client(fault_plan: FaultPlan) -> Iterator[SimulatedClients]:
    """A client of the app's own configuration, answered by models that fail as `fault_plan` says:
    `async with simulated_client("wizard.toml") as client`, under Trio and asyncio, and
    `with simulated_client.blocking("wizard.toml") as client` in plain programs. What these leave open is closed after
    the test, with a `RuntimeWarning` that names the line that opened it.
    """
    clients: SimulatedClients = import_module(f"{HOME}.fault_plan").SimulatedClients(fault_plan)
    yield clients
    clients.close()


@pytest.fixture
def simulation() -> Simulation:
    """What plays a scenario and returns its report; the test fails where an invariant does not hold, with the scenario
    as TOML: `report = simulation("provider-outage")`. Each run has a clock of its own: use it in a plain
    `def test_...`.
    """

    def play(scenario: Scenario | str | os.PathLike[str], *invariants: Invariant, seed: int | None = None) -> Report:
        __tracebackhide__ = True
        if import_module("trio").lowlevel.in_trio_run():
            pytest.fail(
                "a simulation has a clock and a run of its own: use it in a plain `def test_...`, not under Trio"
            )
        home = f"{HOME}.simulation"
        played = import_module(f"{home}.scenario").Scenario
        if not isinstance(scenario, played):
            scenario = import_module(f"{home}.scenario_file").load_scenario(scenario)
        report: Report = import_module(f"{home}.checking").check(scenario, *invariants, seed=seed)
        return report

    return play
