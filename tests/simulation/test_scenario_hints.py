"""Scenarios that are something else: it is told what was given, and what to write."""

from pathlib import Path
from typing import Any

import pytest

from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.testing import load_scenario, scenario_from_toml, scenario_to_toml

MODELS = 'config = { models = [{ name = "primary", provider = "openai" }, { name = "backup", provider = "gemini" }] }\n'


def problems(text: str, file: str | None = None) -> dict[str, ConfigProblem]:
    """Return everything that is wrong with a scenario, by key."""
    with pytest.raises(ConfigError) as caught:
        scenario_from_toml(text, file)
    return {problem.key: problem for problem in caught.value.problems}


@pytest.mark.parametrize("source", [None, 3, b"brownout"])
def test_what_is_no_path_and_no_name_is_told(source: Any) -> None:  # noqa: ANN401 - the mistake
    """So is what is no text, and what is no scenario."""
    with pytest.raises(ConfigError, match="`source` must be a path or a scenario's name, got "):
        load_scenario(source)
    with pytest.raises(ConfigError, match="`text` must be a text, got "):
        scenario_from_toml(source)
    with pytest.raises(ConfigError, match="`scenario` must be a Scenario, got "):
        scenario_to_toml(source)


def test_a_shipped_scenario_that_is_called_like_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no such file."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no such file; the shipped scenario is called `flapping`"):
        load_scenario("flapping.toml")


def test_a_configuration_is_no_scenario_and_no_scenario_is_one(tmp_path: Path) -> None:
    """Each is told as what it is, in a single sentence, wherever it stands."""
    theirs = 'models = [{ name = "theirs", provider = "openai" }]\nbatch = { max_concurrency = 3 }\n'
    (tmp_path / "night.toml").write_text(MODELS + "duration = 3\n", encoding="utf-8")
    found = problems(theirs, "wizard.toml")
    named = problems('config = "night.toml"', str(tmp_path / "other.toml"))

    assert [each.reason for each in found.values()] == ["this is a configuration, not a scenario"]
    assert "--config" in found[""].hint
    assert "this is a scenario, not a configuration" in named["config"].reason


def test_a_value_in_the_place_of_a_table_is_told_what_to_write() -> None:
    """What varies is a table of its median; anything else gets no such hint."""
    found = problems(
        MODELS
        + """
        duration = "-5s"
        upstreams = [{ model = "*", tokens_per_second = 80, first_token = "200ms", connect = true }]
        workload = { deadline = 3, rate = "-2" }
        """
    )
    hints = {key: problem.hint for key, problem in found.items()}

    assert hints.pop("upstreams[0].tokens_per_second").endswith("`tokens_per_second = { median = 80 }`")
    assert hints.pop("upstreams[0].first_token").endswith('`first_token = { median = "200ms" }`')
    assert hints.pop("workload.deadline").endswith("`deadline = { median = 3 }`")
    assert hints.pop("duration") == "a duration is not negative"
    assert hints == {"upstreams[0].connect": "", "workload.rate": "write it without quotes"}
