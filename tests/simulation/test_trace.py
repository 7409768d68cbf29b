"""A run written down: always in the same bytes, with everything in it and no secret."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping

import msgspec
import pytest
from attrs import evolve

from wizard_actors import WizardConfig
from wizard_actors.testing import (
    FaultWindow,
    Kill,
    Report,
    Scenario,
    Spread,
    StorageFault,
    Upstream,
    Workload,
    scenario_from_toml,
    scenario_to_toml,
    simulate,
)
from wizard_actors.testing.simulation.trace import trace, trace_hash

MODELS = """
[[models]]
name = "primary"
provider = "openai"
price = { input = 1, output = 2 }
[[models]]
name = "backup"
provider = "anthropic"
[[models]]
name = "third"
provider = "openai"
rate_limit = { requests_per_minute = 300, tokens_per_minute = 50_000 }
[fallback]
strategy = "hedged"
hedge_delay = 0.4
[cache]
max_entries = 20
stale_if_error = "1h"
"""
SCENARIO = Scenario(
    name="everything",
    config=WizardConfig.from_toml(MODELS, env={}),
    duration=30,
    upstreams=(Upstream(model="*", first_token=Spread(median=0.3, p99=2.0)),),
    faults=(
        FaultWindow(kind="down", models=("primary",), start=5, lasts=10),
        FaultWindow(kind="error", models=("backup",), share=0.2),
    ),
    workload=Workload(
        rate=6,
        stream=0.3,
        buffered=0.1,
        sessions=3,
        sessions_share=0.2,
        distinct=50,
        tenants=3,
        deadline=Spread(median=3.0),
        deadline_share=0.5,
        cancel_share=0.2,
        slow_readers=0.1,
    ),
    kills=(Kill(actor="*", at=4, every=3, times=8),),
    storage_faults=(StorageFault(kind="slow", start=10, lasts=10, share=0.5),),
)

PLAY_IT = """
import sys
from wizard_actors.testing import scenario_from_toml, simulate
from wizard_actors.testing.simulation.trace import trace_hash
print(trace_hash(simulate(scenario_from_toml(sys.stdin.read()))))
"""


@pytest.fixture(scope="module")
def report() -> Report:
    """What came of the scenario."""
    return simulate(SCENARIO)


def facts(report: Report) -> list[Mapping[str, object]]:
    """The lines of a trace, decoded."""
    return [msgspec.json.decode(line) for line in trace(report)]


def test_every_fact_has_its_line(report: Report) -> None:
    """The scenario first, the end last, and between them whatever was recorded."""
    found = facts(report)
    assert (found[0]["fact"], found[-1]["fact"]) == ("scenario", "end")
    assert Counter(str(each["fact"]) for each in found[1:-1]) == {
        "request": len(report.requests),
        "call": len(report.calls),
        "circuit": len(report.circuits),
        "budget": len(report.spent),
        "sample": len(report.samples),
    }
    assert min(map(len, (report.requests, report.calls, report.circuits, report.spent, report.samples))) > 1


def test_facts_stand_in_the_order_of_their_beginning(report: Report) -> None:
    """So the first line that differs tells when two runs parted."""
    instants = [each.get("arrived", each.get("began", each.get("at"))) for each in facts(report)[1:-1]]
    assert instants == sorted(instants, key=lambda at: float(str(at)))


@pytest.mark.long
def test_a_trace_plays_itself_again(report: Report) -> None:
    """Its first line has the scenario, seed and all."""
    seeded = simulate(SCENARIO, seed=9)
    again = simulate(scenario_from_toml(str(facts(seeded)[0]["toml"])))
    assert trace_hash(again) == trace_hash(seeded)
    assert trace_hash(seeded) != trace_hash(report)


@pytest.mark.long
def test_the_same_scenario_has_the_same_trace_in_one_process(report: Report) -> None:
    """Line for line: nothing of one run is left for the next."""
    assert list(trace(simulate(SCENARIO))) == list(trace(report))


@pytest.mark.parametrize("change", ["requests", "calls", "circuits", "spent", "samples", "held"])
def test_whatever_differs_changes_the_hash(report: Report, change: str) -> None:
    """One fact more or less is another run."""
    changed = (
        evolve(report, held=("a slot",))
        if change == "held"
        else evolve(report, **{change: getattr(report, change)[1:]})
    )
    assert trace_hash(changed) != trace_hash(report)


def test_no_key_and_no_header_is_in_it() -> None:
    """A trace is shown to others."""
    text = (
        '[[models]]\nname = "m"\nprovider = "openai"\napi_key_env = "MY_KEY"\nheaders = { x-team = "canary-header" }\n'
    )
    config = WizardConfig.from_toml(text, env={"MY_KEY": "canary-key", "OPENAI_API_KEY": "canary-key"})
    written = "".join(trace(simulate(Scenario(config=config, duration=2))))
    assert "canary" not in written
    assert "MY_KEY" not in written


@pytest.mark.long
def test_the_same_scenario_has_the_same_trace_in_every_process(report: Report) -> None:
    """Whatever Python's hashes are, that order its sets."""
    command = [sys.executable, "-c", PLAY_IT]
    toml = scenario_to_toml(SCENARIO)
    hashes = {
        seed: subprocess.run(
            command, input=toml, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert hashes == dict.fromkeys(hashes, trace_hash(report))
