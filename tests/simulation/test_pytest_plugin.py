"""The pytest plugin: its fixtures under Trio, asyncio and in plain tests; where nobody uses it, it costs nothing."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from wizard_actors import ConfigError, Prompt, ResilientClient, RetryError, StreamInterruptedError, WizardConfig
from wizard_actors.providers.base import Provider
from wizard_actors.testing import Scenario, Spread, Upstream
from wizard_actors.testing.fault_plan import FaultPlan, SimulatedClients
from wizard_actors.testing.pytest_plugin import Simulation

ROOT = Path(__file__).resolve().parents[2]
HOME = "wizard_actors.testing.pytest_plugin"
CONFIG = """
[[models]]
name = "primary"
provider = "openai"
retry = { max_attempts = 2, base_delay = 0.01 }

[[models]]
name = "backup"
provider = "anthropic"
api_key_env = "A_KEY_THAT_IS_NOT_SET"
"""
ALONE = """
[[models]]
name = "primary"
provider = "gemini"
retry = { max_attempts = 2 }
"""


# -- under Trio --------------------------------------------------------------------------------------------------------


async def test_an_outage_on_virtual_time(
    autojump_clock: object, fault_plan: FaultPlan, simulated_client: SimulatedClients
) -> None:
    """The app's own configuration falls back while its first model is down, and comes back afterwards."""
    fault_plan.add("down", models=["primary"], lasts=60)

    async with simulated_client(CONFIG) as client:
        during = await client.generate("Why?")
        await trio.sleep(120)
        after = await client.generate("Why?")

    assert (during.model, after.model) == ("backup", "primary")
    assert [(call.model, call.fault) for call in fault_plan.calls] == [
        ("primary", "down"),
        ("primary", "down"),
        ("backup", None),
        ("primary", None),
    ]


async def test_faults_are_added_and_mended_while_the_app_runs(
    autojump_clock: object, fault_plan: FaultPlan, simulated_client: SimulatedClients
) -> None:
    """From that instant on, without a start, and until it is mended."""
    async with simulated_client(ALONE) as client:
        await client.generate("Why?")
        window = fault_plan.add("cut", after_words=3)
        with pytest.raises(StreamInterruptedError):
            async with client.stream("Why?") as stream:
                _ = [text async for text in stream.text()]
        fault_plan.mend()
        await client.generate("Why?")

    assert 0 < window.start < fault_plan.now()
    assert [call.fault for call in fault_plan.calls] == [None, "cut", None]
    assert len(fault_plan.faults) == 1


async def test_an_app_that_opens_its_client_itself_is_given_the_models(
    autojump_clock: object, fault_plan: FaultPlan, tmp_path: Path
) -> None:
    """By the providers of its own configuration's path; regions and latencies are those of the plan's upstreams."""
    path = tmp_path / "wizard.toml"
    path.write_text(ALONE, encoding="utf-8")
    fault_plan.upstreams.append(Upstream(model="primary", region="eu", first_token=Spread(median=7.0)))
    fault_plan.add("rate_limit", regions=["eu"], start=100, retry_after=1)

    async def app(providers: Mapping[str, Provider]) -> float:
        async with ResilientClient.open(path, providers=providers) as client:
            began = trio.current_time()
            await client.generate(Prompt("Why?", system="Be brief"))
            return trio.current_time() - began

    took = await app(fault_plan.providers(path))

    assert 7 < took < 8


async def test_a_simulation_under_trio_is_refused(simulation: Simulation) -> None:
    """It has a run of its own, and one cannot stand in another."""
    with pytest.raises(pytest.fail.Exception, match="has a clock and a run of its own"):
        simulation("brownout")


# -- under asyncio, and in plain tests ---------------------------------------------------------------------------------


def test_under_asyncio_models_answer_at_once(fault_plan: FaultPlan, simulated_client: SimulatedClients) -> None:
    """The clock is real there, and models cost no time unless the plan says so."""

    async def main() -> list[str]:
        fault_plan.add("error", models=["primary"])
        async with simulated_client(CONFIG) as client:
            answers = await asyncio.gather(*(client.generate(f"Why {number}?") for number in range(20)))
            return [answer.model for answer in answers]

    began = time.monotonic()

    assert asyncio.run(main()) == ["backup"] * 20
    assert time.monotonic() - began < 10
    assert fault_plan.now() > 0


def test_a_plain_program_meets_the_faults(fault_plan: FaultPlan, simulated_client: SimulatedClients) -> None:
    """A blocking client fails and recovers as the plan says."""
    with simulated_client.blocking(WizardConfig.from_toml(ALONE)) as client:
        fault_plan.add("overloaded", retry_after=0)
        with pytest.raises(RetryError):
            client.generate("Why?")
        fault_plan.mend()

        assert client.generate("Why?").model == "primary"
        with client.session("one") as session:
            session.send("Why?")


def test_sessions_leave_nothing_on_the_disk(
    simulated_client: SimulatedClients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever storage the configuration names."""
    monkeypatch.chdir(tmp_path)

    with simulated_client.blocking(ALONE) as client, client.session("one") as session:
        session.send("Why?")

    assert not list(tmp_path.iterdir())


# -- simulations -------------------------------------------------------------------------------------------------------


def test_a_simulation_is_a_scenario_or_the_name_or_the_file_of_one(simulation: Simulation, tmp_path: Path) -> None:
    """All three are played alike."""
    scenario = Scenario(config=WizardConfig.from_toml(ALONE), duration=10)
    path = tmp_path / "mine.toml"
    path.write_text(f"duration = 10\n[config]\n{ALONE.replace('[[models]]', '[[config.models]]')}", encoding="utf-8")

    assert simulation(scenario, seed=3).counts == simulation(path, seed=3).counts
    with pytest.raises(ConfigError, match="shipped"):
        simulation("no-such-scenario")


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_fault_of_a_model_that_there_is_not_is_found(
    fault_plan: FaultPlan, simulated_client: SimulatedClients
) -> None:
    """A test of an outage that never happens would pass."""
    fault_plan.add("down", models=["primry"])

    with pytest.raises(ConfigError, match="name no model of the configuration: 'primry'"):
        simulated_client(CONFIG)
    with pytest.raises(ConfigError, match="kind"):
        fault_plan.add("dwon")  # type: ignore[arg-type]  # as somebody may mistype it


def test_a_fault_of_a_region_that_there_is_not_is_found(fault_plan: FaultPlan) -> None:
    """The regions are those of the plan's upstreams."""
    fault_plan.add("down", regions=["eu"])

    with pytest.raises(ConfigError, match="name a region that no upstream is in: 'eu'"):
        fault_plan.providers(CONFIG)


# -- as an app's tests use it ------------------------------------------------------------------------------------------

APP_TESTS = f'''
import asyncio

CONFIG = """{ALONE}"""


def test_asyncio(simulated_client):
    async def main():
        async with simulated_client(CONFIG) as client:
            return (await client.generate("Why?")).model

    assert asyncio.run(main()) == "primary"


def test_plain(simulated_client, fault_plan):
    with simulated_client.blocking(CONFIG) as client:
        client.generate("Why?")
    assert len(fault_plan.calls) == 1


def test_broken(simulation, tmp_path):
    from wizard_actors.testing import Invariant

    path = tmp_path / "mine.toml"
    path.write_text("duration = 10\\n[config]" + CONFIG.replace("[[models]]", "[[config.models]]"))
    simulation(path, Invariant("none", "Nothing is answered.", lambda report: ["something was answered"]))
'''


def run_pytest(folder: Path, *arguments: str, **environment: str) -> str:
    """Run an app's tests in a process of their own; return what it says."""
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    env = {**os.environ, **environment}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.long
def test_an_app_without_plugins_for_event_loops_uses_the_fixtures(tmp_path: Path) -> None:
    """They are found without an import, and a broken promise is told with what plays it again."""
    (tmp_path / "test_app.py").write_text(APP_TESTS, encoding="utf-8")

    absent = ("trio", "anyio", "hypothesispytest", "schemathesis", "langsmith_plugin", "xdist")
    told = run_pytest(tmp_path, *(f"-pno:{name}" for name in absent))

    assert "1 failed, 2 passed" in told, told
    assert "none: something was answered" in told
    assert "[config]" in told


@pytest.mark.long
def test_a_client_that_a_test_leaves_open_is_closed_after_it(tmp_path: Path) -> None:
    """And the warning, here an error, names the line; also where something still holds it."""
    (tmp_path / "test_left.py").write_text(
        f'''
held = []

def test_left(simulated_client):
    held.append(simulated_client.blocking("""{ALONE}"""))  # here

def test_closed():
    import pytest
    from wizard_actors import WizardError

    with pytest.raises(WizardError, match="closed"):
        held[0].generate("Why?")
''',
        encoding="utf-8",
    )

    told = run_pytest(tmp_path)

    assert "2 passed, 1 error" in told, told
    assert "RuntimeWarning: the client that was opened here was never closed" in told


def test_nothing_is_imported_before_a_fixture_is_asked_for(tmp_path: Path) -> None:
    """A test run that has no use for the plugin does not pay for it."""
    (tmp_path / "test_other.py").write_text(
        """
import sys

def test_other():
    assert "wizard_actors.testing.pytest_plugin" in sys.modules
    heavy = {"trio", "httpx", "hypothesis", "attrs", "msgspec", "cattrs", "structlog"}
    assert not heavy & sys.modules.keys()
    ours = [name for name in sys.modules if name.startswith("wizard_actors")]
    assert ours == ["wizard_actors", "wizard_actors.testing", "wizard_actors.testing.pytest_plugin"]
""",
        encoding="utf-8",
    )

    told = run_pytest(tmp_path, "-p", HOME, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    assert "1 passed" in told, told


@pytest.mark.long
def test_what_the_guide_shows_as_tests_passes(tmp_path: Path) -> None:
    """Every program in it that has tests in it is run by pytest, too."""
    guide = (ROOT / "docs" / "property_testing.md").read_text(encoding="utf-8")
    programs = [
        text for text in re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL) if "def test_" in text
    ]
    for number, program in enumerate(programs):
        (tmp_path / f"test_{number}.py").write_text(program, encoding="utf-8")

    told = run_pytest(tmp_path)

    assert len(programs) == 6
    assert "7 passed" in told, told
