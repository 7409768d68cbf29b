"""For the tests of whoever builds on this package: simulations of whole outages, and conformance suites for a provider,
a strategy, a storage, an actor or a sink of one's own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from wizard_actors.testing.simulation.invariants import INVARIANTS, Invariant
    from wizard_actors.testing.simulation.records import Violation
    from wizard_actors.testing.simulation.report import Report
    from wizard_actors.testing.simulation.run import simulate
    from wizard_actors.testing.simulation.scenario import (
        ClockJump,
        FaultWindow,
        Kill,
        Scenario,
        Spread,
        StorageFault,
        Upstream,
        Workload,
    )
    from wizard_actors.testing.simulation.scenario_file import (
        SHIPPED,
        load_scenario,
        scenario_from_toml,
        scenario_to_toml,
    )
    from wizard_actors.testing.simulation.summary import Summary
    from wizard_actors.testing.simulation.timeline import timeline_svg
    from wizard_actors.testing.simulation.trace import trace, trace_hash
    from wizard_actors.testing.simulation.with_config import with_config

__all__ = [
    "INVARIANTS",
    "SHIPPED",
    "ClockJump",
    "FaultWindow",
    "Invariant",
    "Kill",
    "Report",
    "Scenario",
    "Spread",
    "StorageFault",
    "Summary",
    "Upstream",
    "Violation",
    "Workload",
    "load_scenario",
    "scenario_from_toml",
    "scenario_to_toml",
    "simulate",
    "timeline_svg",
    "trace",
    "trace_hash",
    "with_config",
]

_HOMES: Final = (
    "scenario",
    "run",
    "report",
    "records",
    "invariants",
    "scenario_file",
    "summary",
    "timeline",
    "trace",
    "with_config",
)

if not TYPE_CHECKING:  # where types are checked, a wrong name is an error

    def __getattr__(name: str) -> object:
        """Import the public name `name` at its first use: a suite for an actor needs no language models."""
        if name in __all__:
            for home in _HOMES:
                module = import_module(f"{__name__}.simulation.{home}")
                if name in module.__all__:
                    value = globals()[name] = getattr(module, name)
                    return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
