"""`wizard simulate`: scenarios that are shown or piped, and what is said of what has no effect."""

from pathlib import Path

import pytest

from tests.wizard_cli import Wizard
from wizard_actors.cli_simulate.play import NOBODY_ASKED
from wizard_actors.testing.simulation.scenario_file import scenario_path

SCENARIO = """
name = "small"
about = "The first model is down all the time."
duration = 2
config.models = [
    { name = "primary", provider = "openai" },
    { name = "backup", provider = "openai" },
]
[[faults]]
kind = "down"
models = ["primary"]
"""


@pytest.fixture
def wizard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wizard:
    """The program, in a folder with a scenario and without any configuration."""
    wizard = Wizard(tmp_path, monkeypatch)
    wizard.config(SCENARIO, "small.toml")
    return wizard


def test_a_scenario_is_shown_as_it_is_written(wizard: Wizard) -> None:
    """To begin another one with: comments and all, and nothing is played."""
    shipped = scenario_path("flapping").read_text(encoding="utf-8")

    ran = wizard("simulate", "flapping", "--show")
    as_json = wizard("simulate", "--show", "--json", "small.toml").json

    assert (ran.status, ran.out, ran.err) == (0, shipped, "")
    assert as_json == {"scenario": "small", "toml": SCENARIO}


def test_a_scenario_may_come_on_standard_input(wizard: Wizard) -> None:
    """By the name that other commands have for it, and played as from a file."""
    piped = wizard("simulate", "-", stdin=SCENARIO.encode())

    assert (piped.status, piped.err) == (0, "")
    assert piped.out == wizard("simulate", "small.toml").out


@pytest.mark.parametrize(
    ("stdin", "said"), [(None, "it is closed"), (b"\xff", "is not UTF-8"), (b"x = 1", "`x` is unknown")]
)
def test_standard_input_that_holds_no_scenario_is_told(wizard: Wizard, stdin: bytes | None, said: str) -> None:
    """By its name, with status 2."""
    ran = wizard("simulate", "-", stdin=stdin)

    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("wizard: standard input: ")
    assert said in ran.err


# -- what has no effect ----------------------------------------------------------------------------------------------

USELESS = f"""{SCENARIO}start = 60
[workload]
burst = 7
"""
UNUSED = '`workload.burst` has no effect without `arrival = "bursts"`'
UNMET = 'the fault "down" of primary, from 60 s on, met no call'


def test_what_has_no_effect_is_told(wizard: Wizard) -> None:
    """A setting and a fault that no call met, a line each; the run counts all the same."""
    wizard.config(USELESS, "useless.toml")

    ran, as_json = (wizard("simulate", "useless.toml", *more) for more in ((), ("--json",)))

    assert (ran.status, ran.err) == (0, f"wizard: {UNUSED}\nwizard: {UNMET}\n")
    assert (as_json.err, as_json.json["notes"]) == ("", [UNUSED, UNMET])


def test_of_many_seeds_it_is_told_what_met_nobody_in_any(wizard: Wizard) -> None:
    """Once."""
    wizard.config(USELESS, "useless.toml")

    ran = wizard("simulate", "useless.toml", "--seeds", "2")

    assert (ran.status, ran.err) == (0, f"wizard: {UNUSED}\nwizard: with every seed {UNMET}\n")


def test_a_run_in_which_nobody_asks_is_no_success(wizard: Wizard) -> None:
    """Nothing was checked: that is said, alone, and the status is 1; also where it is so with all of many seeds."""
    wizard.config(f"{SCENARIO}[workload]\nrate = 0.0001\n", "silent.toml")

    ran, as_json, many = (wizard("simulate", "silent.toml", *more) for more in ((), ("--json",), ("--seeds", "2")))

    assert (ran.status, as_json.status, many.status) == (1, 1, 1)
    assert ran.err == f"wizard: {NOBODY_ASKED}\n"
    assert as_json.json["notes"] == [NOBODY_ASKED]
    assert many.err == f"wizard: with 2 seeds (1, 2) {NOBODY_ASKED}\n"


def test_a_scenario_with_a_cache_says_where_there_is_none(wizard: Wizard) -> None:
    """What it is about is not in the configuration that it is played with."""
    wizard.config(f"{SCENARIO}[config.cache]\nmax_entries = 9\n", "cached.toml")
    wizard.config('models = [{ name = "primary", provider = "openai" }, { name = "backup", provider = "openai" }]')
    said = "wizard: small is played with a cache, and wizard.toml has none: `[cache] max_entries` is 0\n"

    assert said in wizard("simulate", "cached.toml", "--config", "wizard.toml").err
    assert said not in wizard("simulate", "small.toml", "--config", "wizard.toml").err
    assert wizard("simulate", "cached.toml").err == ""
