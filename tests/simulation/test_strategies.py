"""The Hypothesis strategies: what they draw is valid, short, and shrinks to what a person can read."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, find, given, seed, settings
from hypothesis import strategies as st

from wizard_actors import ConfigError, Prompt, WizardConfig
from wizard_actors.config import ModelConfig
from wizard_actors.testing import FaultWindow, Invariant, Kill, Report, Scenario, Workload, simulate
from wizard_actors.testing.simulation.actors import killable
from wizard_actors.testing.simulation.formats import FORMATS, WireFormat
from wizard_actors.testing.simulation.scenario_file import scenario_from_toml, scenario_to_toml
from wizard_actors.testing.strategies import (
    ProviderResponse,
    byte_streams,
    check,
    configurations,
    fault_plans,
    prompts,
    provider_responses,
    scenarios,
    workloads,
)

some = settings(max_examples=25, deadline=None)
quick_find = settings(
    max_examples=500, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
formats = pytest.mark.parametrize("name", sorted(FORMATS))

WIZARD = """
[[models]]
name = "own"
provider = "openai"
"""


def least(wanted: Callable[[Scenario], bool]) -> str:
    """Return the TOML of the least scenario that is wanted."""
    return scenario_to_toml(find(scenarios(), wanted, settings=quick_find))


@some
@given(scenario=scenarios())
def test_a_scenario_is_the_same_when_it_is_read_back(scenario: Scenario) -> None:
    """What a failure prints is what failed."""
    assert scenario_from_toml(scenario_to_toml(scenario)) == scenario


@some
@given(scenario=scenarios())
def test_a_scenario_is_short(scenario: Scenario) -> None:
    """At most a minute with two requests a second on average."""
    assert 10 <= scenario.duration <= 60
    assert scenario.workload.rate <= 2
    assert 1 <= len(scenario.config.models) <= 4
    assert len(scenario.faults) <= 4


@some
@given(config=configurations(max_models=2, strategies=["sequential", "hedged"], formats=["chat"]))
def test_a_configuration_keeps_to_what_was_asked_for(config: WizardConfig) -> None:
    """No more models than that, no other strategy, no other protocol, and nothing of theirs on a disk."""
    assert len(config.models) <= 2
    assert config.fallback.strategy in {"sequential", "hedged"}
    assert {(model.provider, model.api) for model in config.models} == {("openai", "chat")}
    assert config.sessions.storage == "memory:"


@pytest.mark.parametrize("strategy", ["sequential", "parallel", "hedged", "adaptive", "cheapest"])
def test_every_strategy_comes_up(strategy: str) -> None:
    """A property that holds for all configurations says something of each."""
    find(configurations(), lambda config: config.fallback.strategy == strategy, settings=quick_find)


@some
@given(plan=fault_plans(["a", "b"], 30, kinds=["cut", "down"]))
def test_faults_are_of_the_kinds_and_models_that_were_asked_for(plan: tuple[FaultWindow, ...]) -> None:
    """And begin while the scenario lasts."""
    for fault in plan:
        assert fault.kind in {"cut", "down"}
        assert {*fault.models} <= {"a", "b"}
        assert fault.start <= 30


@some
@given(workload=workloads(), prompt=prompts())
def test_workloads_and_prompts_are_valid(workload: Workload, prompt: Prompt) -> None:
    """Making one checks it; the shares of a workload leave nobody out."""
    assert workload.stream + workload.buffered + workload.sessions_share <= 1
    assert prompt.messages[0].role == "user"


def test_prompts_shrink_to_one_question() -> None:
    """The least of them is a question without anything."""
    assert find(prompts(), lambda _: True) == Prompt("Why?")


@formats
def test_responses_say_what_they_are(name: WireFormat) -> None:
    """All of them have a body, and what is not a refusal has the status of an answer."""

    @some
    @given(response=provider_responses(name))
    def holds(response: ProviderResponse) -> None:
        assert response.complete
        assert response.status == 200 or response.refusal is not None
        assert response.body

    holds()


@formats
def test_byte_streams_are_whole_unless_they_say_otherwise(name: WireFormat) -> None:
    """However it is torn, nothing of it is empty, and a complete one has its end."""

    @some
    @given(response=byte_streams(name))
    def holds(response: ProviderResponse) -> None:
        sent = FORMATS[name].stream(response.said, [response.said.text])
        assert all(response.pieces)
        assert response.body.endswith(sent.closing[-10:]) or not response.complete

    holds()


def test_byte_streams_are_torn_within_a_character() -> None:
    """Whoever decodes piece by piece is found out."""

    def torn(response: ProviderResponse) -> bool:
        try:
            [piece.decode() for piece in response.pieces]
        except UnicodeDecodeError:
            return response.complete
        return False

    find(byte_streams("chat"), torn, settings=quick_find)


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "arguments", "told"),
    [
        (provider_responses, {"format": "chta"}, 'did you mean "chat"? there are: anthropic, chat, gemini, responses'),
        (byte_streams, {"format": None}, "byte_streams(): `format` names none that there is: nothing"),
        (fault_plans, {"models": "primary", "duration": 30}, "a list of names, got a text; write ['primary']"),
        (fault_plans, {"models": [], "duration": 30}, "`models` must have a name at least"),
        (fault_plans, {"models": 7, "duration": 30}, "`models` must be a list of names, got 7"),
        (fault_plans, {"models": ["a", None], "duration": 30}, "`models` must be a list of names, got nothing in it"),
        (fault_plans, {"models": ["a"], "duration": 0}, "`duration` must be above 0, got 0"),
        (fault_plans, {"models": ["a"], "duration": -5}, "`duration` must be above 0, got -5"),
        (fault_plans, {"models": ["a"], "duration": "soon"}, "`duration` must be a duration"),
        (fault_plans, {"models": ["a"], "duration": 9, "kinds": ["dwon"]}, "is: 'dwon'; did you mean \"down\"?"),
        (scenarios, {"kinds": "down"}, "scenarios(): `kinds` must be a list of names, got a text"),
        (scenarios, {"config": "a = 1"}, "a text of one line is taken for a path"),
        (configurations, {"max_models": 5}, "`max_models` must be a whole number from 1 to 4, got 5"),
        (configurations, {"strategies": ["hedge"]}, 'did you mean "hedged"?'),
    ],
)
def test_a_mistake_is_told_where_the_strategy_is_made(
    strategy: Callable[..., object], arguments: dict[str, object], told: str
) -> None:
    """With the argument that is wrong and what to write, before any example is drawn."""
    with pytest.raises(ConfigError) as raised:
        strategy(**arguments)

    assert told in str(raised.value)


def test_what_is_no_configuration_or_no_workload_is_a_type_error() -> None:
    """It says what would be one."""
    with pytest.raises(TypeError, match=r"not dict: make one of it with `WizardConfig.from_tables`"):
        scenarios(config={"models": []})  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match=r"not dict: write `Workload\(rate=1\)`"):
        scenarios(workload={"rate": 1})  # type: ignore[arg-type]  # the mistake


# -- shrinking ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_least_scenario_is_ten_seconds_of_nothing() -> None:
    """One model at its defaults, asked every other second."""
    assert tomllib.loads(least(lambda _: True)) == {
        "seed": 0,
        "duration": 10,
        "workload": {"rate": 0.5, "arrival": "steady"},
        "config": {"models": [{"name": "first", "provider": "openai"}], "sessions": {"storage": "memory:"}},
    }


@pytest.mark.long
def test_a_fault_shrinks_to_a_scenario_that_can_be_read() -> None:
    """The fault at its defaults, one model, and a text that fits on a screen."""
    text = least(lambda scenario: any(fault.kind == "stall" for fault in scenario.faults))

    assert len(text.splitlines()) < 40
    assert {"kind": "stall"} in tomllib.loads(text)["faults"]
    assert len(tomllib.loads(text)["config"]["models"]) == 1


def test_several_models_shrink_to_no_more_than_are_needed() -> None:
    """A failure that needs three models shows three, with nothing set."""
    text = least(lambda scenario: len(scenario.config.models) >= 3)

    assert [set(model) for model in tomllib.loads(text)["config"]["models"]] == [{"name", "provider"}] * 3


@pytest.mark.parametrize("start", [0, 6])
def test_one_of_several_faults_shrinks_to_that_one(start: int) -> None:
    """Wherever it stands among those that do not matter, and it is shown without what is at its default."""

    @seed(start)
    @settings(max_examples=60, deadline=None, database=None, phases=[Phase.generate, Phase.shrink])
    @given(faults=fault_plans(["a", "b"], 30, kinds=["down", "stall"]))
    def nothing_stalls(faults: tuple[FaultWindow, ...]) -> None:
        assert all(fault.kind != "stall" or fault.share < 1 for fault in faults)

    with pytest.raises(AssertionError) as raised:
        nothing_stalls()

    assert "faults=(FaultWindow(kind='stall'),)," in "\n".join(raised.value.__notes__)


# -- check -------------------------------------------------------------------------------------------------------------


def no_failures(report: Report) -> list[str]:
    """Return which requests failed."""
    return [f"request {request.number} failed" for request in report.requests if request.outcome != "answered"]


NO_FAILURES = Invariant("no-failures", "Everybody is answered.", no_failures)


def test_check_returns_the_report_where_all_is_well() -> None:
    """It has been simulated already: nobody needs to do it twice."""
    config = WizardConfig.from_toml(WIZARD)

    report = check(Scenario(config=config, duration=10), NO_FAILURES)

    assert report.requests
    assert not report.violations


def test_a_failed_check_is_played_again_from_its_message() -> None:
    """The TOML in it, with the seed that failed, has the same violations."""
    scenario = Scenario(config=WizardConfig.from_toml(WIZARD), duration=10, faults=[FaultWindow(kind="auth")])

    with pytest.raises(AssertionError) as failure:
        check(scenario, NO_FAILURES, seed=7)

    told, _, toml = str(failure.value).partition("with this in the file:")
    report = simulate(scenario_from_toml(toml), invariants=[NO_FAILURES])
    assert "scenario with seed 7 does not hold:\n  no-failures: request 0 failed" in told
    assert report.scenario.seed == 7
    assert str(report.violations[0]) in told


def test_a_failed_check_of_what_no_file_can_hold_is_told_all_the_same() -> None:
    """The scenario is shown as Python has it, and why."""
    config = WizardConfig(models=[ModelConfig(name="own", provider="openai", extra={"user": None})])

    with pytest.raises(AssertionError, match="no-failures: request 0 failed") as failure:
        check(Scenario(config=config, duration=10, faults=[FaultWindow(kind="auth")]), NO_FAILURES)

    assert "`config.models[0].extra.user` holds nothing (null)" in str(failure.value)
    assert "Scenario(name='scenario'" in str(failure.value)


@pytest.mark.long
def test_hypothesis_finds_the_least_scenario_that_breaks_a_promise() -> None:
    """A property with an invariant of one's own fails with a scenario that can be read."""

    @settings(quick_find, max_examples=200, phases=[Phase.generate, Phase.shrink])
    @given(scenario=scenarios(config=WizardConfig.from_toml(WIZARD), workload=Workload(rate=0.5), kinds=["auth"]))
    def everybody_is_answered(scenario: Scenario) -> None:
        check(scenario, NO_FAILURES)

    with pytest.raises(AssertionError) as failure:
        everybody_is_answered()

    told = str(failure.value)
    assert "no-failures: request" in told
    assert len(told.splitlines()) < 50


def test_own_configurations_and_workloads_are_taken_as_they_are(tmp_path: Path) -> None:
    """A value or a strategy, TOML or a path: an app's own client in every outage."""
    config, work = WizardConfig.from_toml(WIZARD), Workload(rate=1)
    path = tmp_path / "wizard.toml"
    path.write_text(WIZARD, encoding="utf-8")

    for given_config, given_work in ((WIZARD, work), (path, st.just(work))):
        found = find(scenarios(config=given_config, workload=given_work), lambda _: True)
        assert (found.config, found.workload) == (config, work)


GROUPED = """
[[models]]
name = "meta/llama"
provider = "openai"
rate_limit = { requests_per_minute = 60 }
rate_limit_group = "shared"

[[models]]
name = "off"
provider = "openai"
enabled = false
"""


@settings(max_examples=50)
@given(scenario=scenarios(config=GROUPED))
def test_only_actors_that_there_are_are_killed(scenario: Scenario) -> None:
    """Not of a model that is off; one of a group has no limiter of its own; a `/` is no end of a name."""
    assert {kill.actor for kill in scenario.kills} <= {"*", *killable(scenario.config)}
    assert killable(scenario.config) == [
        "router",
        "sessions",
        "models/model:meta%2Fllama/breaker",
        "models/model:meta%2Fllama/worker",
        "limits/shared",
    ]


def test_killable_actors_are_those_of_the_tree() -> None:
    """All that a client of that configuration has."""
    config = WizardConfig.from_toml(GROUPED, env={})
    kills = [Kill(actor=actor, at=1.0) for actor in killable(config)]

    assert set(simulate(Scenario(config=config, duration=2.0, kills=kills)).restarts) == {
        f"wizard/{kill.actor}" for kill in kills
    }


def test_without_hypothesis_it_is_said_what_to_install() -> None:
    """Importing the strategies says it; importing the rest does without."""
    code = """
import sys
sys.modules["hypothesis"] = None
import wizard_actors.testing.fault_plan
try:
    import wizard_actors.testing.strategies
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "pip install 'wizard-actors[testing]'" in done.stdout
