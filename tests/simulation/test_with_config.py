"""A scenario that is played with somebody's own configuration."""

from typing import Any

import pytest
from attrs import evolve

from wizard_actors import ConfigError, WizardConfig
from wizard_actors.testing import FaultWindow, Kill, Scenario, Upstream, Workload, simulate
from wizard_actors.testing.simulation.with_config import part_of, with_config


def config(*names: str, more: str = "", of_each: str = "") -> WizardConfig:
    """A configuration of models, in this order."""
    models = "".join(f'[[models]]\nname = "{name}"\nprovider = "openai"\n{of_each}\n' for name in names)
    return WizardConfig.from_toml(models + more, env={})


SCENARIO = Scenario(
    name="outage",
    duration=5,
    config=config("primary", "backup"),
    upstreams=(
        Upstream(model="primary", region="east"),
        Upstream(model="backup", region="west"),
        Upstream(model="*", pieces=7),
    ),
    faults=(
        FaultWindow(kind="down", models=("primary",)),
        FaultWindow(kind="error", models=("backup", "primary")),
        FaultWindow(kind="stall", models=("backup",)),
        FaultWindow(kind="cut", regions=("west",)),
        FaultWindow(kind="silent"),
    ),
    kills=(
        Kill(actor="*", at=1),
        Kill(actor="router", at=1),
        Kill(actor="models/model:primary/limiter", at=1),
        Kill(actor="models/model:backup/breaker", at=1),
    ),
)


def actors(scenario: Scenario) -> list[str]:
    """Who is killed."""
    return [kill.actor for kill in scenario.kills]


def test_models_have_the_part_of_those_at_their_place() -> None:
    """The first that is asked takes the first's, in faults, upstreams and kills alike, also where they swap names."""
    own = config("backup", "primary")
    made = with_config(SCENARIO, own)
    assert made.config is own
    assert [(each.model, each.region) for each in made.upstreams][:2] == [("backup", "east"), ("primary", "west")]
    assert [fault.models for fault in made.faults][:3] == [("backup",), ("primary", "backup"), ("primary",)]
    assert actors(made)[2:] == ["models/model:backup/limiter", "models/model:primary/breaker"]


def test_the_order_is_that_in_which_models_are_asked() -> None:
    """The chain of the default route, then the other enabled models; of the scenario's, the route that it asks."""
    own = config("a", "b", "c", more='[fallback]\nchain = ["c", "a"]\n')
    assert part_of(SCENARIO, own) == {"primary": "c", "backup": "a"}
    routed = config("x", "primary", "backup", more='[[routes]]\nname = "quick"\nchain = ["backup", "x"]\n')
    scenario = Scenario(config=routed, workload=Workload(route="quick"))
    assert part_of(scenario, own) == {"backup": "c", "x": "a", "primary": "b"}
    assert with_config(scenario, own).workload.route is None


def test_a_model_that_is_disabled_has_no_part() -> None:
    """It is never asked."""
    off = '[[models]]\nname = "off"\nprovider = "openai"\nenabled = false\n'
    assert part_of(SCENARIO, config("on", "also", more=off)) == {"primary": "on", "backup": "also"}
    turned = WizardConfig.from_toml(off + '[[models]]\nname = "on"\nprovider = "openai"\n', env={})
    assert part_of(SCENARIO, turned) == {"primary": "on", "backup": None}


def test_what_happens_to_a_model_that_there_is_none_for_is_left_out() -> None:
    """A fault of one model, or of a region that is gone, never becomes everybody's."""
    made = with_config(SCENARIO, config("mine"))
    assert part_of(SCENARIO, config("mine")) == {"primary": "mine", "backup": None}
    assert [each.model for each in made.upstreams] == ["mine", "*"]
    assert [(fault.kind, fault.models) for fault in made.faults] == [
        ("down", ("mine",)),
        ("error", ("mine",)),
        ("silent", ()),
    ]
    assert actors(made) == ["*", "router", "models/model:mine/limiter"]


def test_models_beyond_the_scenarios_behave_as_all_the_others() -> None:
    """As the upstream "*" says, and they meet the faults that name nobody."""
    made = with_config(SCENARIO, config("a", "b", "c"))
    assert made.upstream("c").pieces == 7
    assert [fault.kind for fault in made.faults if fault.concerns("c", made.upstream("c").region)] == ["silent"]


def test_actors_that_such_a_client_has_not_are_not_killed() -> None:
    """A cache that is off; the limiter of a model whose group has one."""
    scenario = evolve(SCENARIO, kills=(*SCENARIO.kills, Kill(actor="cache", at=1), Kill(actor="limits/others", at=1)))
    grouped = 'rate_limit_group = "team"\nrate_limit = { requests_per_minute = 600 }'
    assert actors(with_config(scenario, config("a", "b", of_each=grouped))) == [
        "*",
        "router",
        "limits/team",
        "models/model:b/breaker",
    ]
    assert "cache" in actors(with_config(scenario, config("a", more="[cache]\nmax_entries = 5\n")))


def test_what_is_made_can_be_played() -> None:
    """With more models, with fewer, and in a group: every actor that is killed is there."""
    grouped = 'rate_limit_group = "team"\nrate_limit = { requests_per_minute = 600 }'
    for own in (config("a"), config("a", "b", "c"), config("a", "b", of_each=grouped)):
        report = simulate(with_config(SCENARIO, own))
        assert len(report.requests) > 5
        assert report.restarts


@pytest.mark.parametrize(
    ("scenario", "config_", "said"),
    [
        ("provider-outage", config("a"), "`scenario` must be a Scenario, got a text; `load_scenario` makes one"),
        (SCENARIO, "wizard.toml", "`config` must be a WizardConfig, got a text; `WizardConfig.load` reads a file"),
    ],
)
def test_what_is_no_scenario_and_no_configuration_is_told(scenario: Any, config_: Any, said: str) -> None:  # noqa: ANN401
    """By what was wanted, and what makes it."""
    with pytest.raises(ConfigError, match=said):
        with_config(scenario, config_)
