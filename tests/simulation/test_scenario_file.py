"""Scenarios in TOML: read with every mistake told at once, written without defaults, and read back equal."""

import re
import tomllib
from decimal import Decimal
from pathlib import Path

import attrs
import pytest

from tests.test_config_docs import ROW
from wizard_actors.config import LocalConfig, ModelConfig, PriceConfig, RouteConfig, Secret, ServerConfig, WizardConfig
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.testing import (
    SHIPPED,
    ClockJump,
    FaultWindow,
    Kill,
    Scenario,
    Spread,
    StorageFault,
    Upstream,
    Workload,
    load_scenario,
    scenario_from_toml,
    scenario_to_toml,
    simulate,
)
from wizard_actors.testing.simulation.scenario_file import simulated_config

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "simulation.md"
MODELS = 'config = { models = [{ name = "primary", provider = "openai" }, { name = "backup", provider = "gemini" }] }\n'
CONFIG = tomllib.loads(MODELS)["config"]


def config(**settings: object) -> WizardConfig:
    """Return a configuration of two models."""
    models = [ModelConfig(name="primary", provider="openai"), ModelConfig(name="backup", provider="gemini")]
    return WizardConfig(models=models).changed(**settings)


def problems(text: str, file: str | None = None) -> dict[str, ConfigProblem]:
    """Return everything that is wrong with a scenario, by key."""
    with pytest.raises(ConfigError) as caught:
        scenario_from_toml(text, file)
    assert caught.value.file == file
    return {problem.key: problem for problem in caught.value.problems}


# -- reading -----------------------------------------------------------------------------------------------------------


def test_a_scenario_is_what_its_tables_say() -> None:
    """Each table becomes the value of its name; times are texts or numbers."""
    scenario = scenario_from_toml(
        MODELS
        + """
        name = "all"
        about = "Everything."
        seed = 7
        duration = "2m"
        upstreams = [{ model = "primary", region = "eu", first_token = { median = "250ms", p99 = 2 }, burst = "1s" }]
        faults = [{ kind = "down", regions = ["eu"], start = "10s", lasts = 5, every = "1m", until = "2m" }]
        workload = { rate = 2, arrival = "bursts", burst = 4, deadline = { median = 3 } }
        kills = [{ actor = "router", at = "3s" }]
        clock_jumps = [{ at = 5, seconds = -60, wall = true }]
        storage_faults = [{ kind = "slow", delay = "100ms" }]
        """
    )

    assert scenario == Scenario(
        name="all",
        about="Everything.",
        seed=7,
        duration=120.0,
        config=config(),
        upstreams=[Upstream(model="primary", region="eu", first_token=Spread(median=0.25, p99=2.0), burst=1.0)],
        faults=[FaultWindow(kind="down", regions=["eu"], start=10.0, lasts=5.0, every=60.0, until=120.0)],
        workload=Workload(rate=2.0, arrival="bursts", burst=4, deadline=Spread(median=3.0)),
        kills=[Kill(actor="router", at=3.0)],
        clock_jumps=[ClockJump(at=5.0, seconds=-60.0, wall=True)],
        storage_faults=[StorageFault(kind="slow", delay=0.1)],
    )


def test_defaults_are_merged_into_the_models() -> None:
    """The configuration is loaded as any other is."""
    text = '[config.defaults]\nretry = { max_attempts = 5 }\n[[config.models]]\nname = "a"\nprovider = "openai"\n'

    assert scenario_from_toml(text).config.models[0].retry.max_attempts == 5


def test_no_key_no_file_and_no_variable_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a simulation does not read is not looked for; a secret goes nowhere; the environment changes nothing."""
    monkeypatch.setenv("WIZARD_SERVER_MAX_IN_FLIGHT", "3")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    tables = {
        "defaults": {"api_key_env": "NOT_SET", "ca_file": "none.pem", "proxy": "http://user:word@proxy:1"},
        "models": [
            {"name": "a", "provider": "openai", "api_key_file": "none.key", "headers": {"x-secret": "word"}},
            {"name": "b", "provider": "local", "local": {"gguf": "none.gguf", "context": 4096}},
        ],
        "server": {"http": "127.0.0.1:1", "queue_timeout": 3},
        "telemetry": {"otel": True},
        "logging": {"log_content": True},
    }

    made = simulated_config(tables)

    assert made.models[0] == ModelConfig(name="a", provider="openai")
    assert made.models[1].local == LocalConfig(context=4096)
    assert made.server == ServerConfig(queue_timeout=3.0)
    assert not made.telemetry.otel
    assert not made.logging.log_content
    assert tables["models"][0]["headers"] == {"x-secret": "word"}  # type: ignore[index]  # what was given stays


def test_a_configuration_stands_beside_the_scenario(tmp_path: Path) -> None:
    """Its path is relative to the scenario's file, wherever the program runs."""
    (tmp_path / "wizard.toml").write_text('[[models]]\nname = "theirs"\nprovider = "openai"\n', encoding="utf-8")
    (tmp_path / "night.toml").write_text('config = "wizard.toml"\n', encoding="utf-8")

    assert load_scenario(tmp_path / "night.toml").config.model("theirs").provider == "openai"
    assert load_scenario(str(tmp_path / "night.toml")) == load_scenario(tmp_path / "night.toml")


def test_the_path_in_a_text_starts_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text has no folder of its own."""
    monkeypatch.chdir(tmp_path)
    Path("wizard.toml").write_text('[[models]]\nname = "theirs"\nprovider = "openai"\n', encoding="utf-8")

    assert scenario_from_toml('config = "wizard.toml"').config.models[0].name == "theirs"


def test_a_file_comes_before_a_shipped_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a file of that name means it."""
    monkeypatch.chdir(tmp_path)
    assert load_scenario("brownout").name == "brownout"
    Path("brownout").write_text(MODELS + 'name = "mine"\n', encoding="utf-8")

    assert load_scenario("brownout").name == "mine"


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_every_mistake_is_told_at_once() -> None:
    """Of the scenario, of its tables, of its configuration; each with its key."""
    found = problems(
        """
        nam = "x"
        duration = "soon"
        seed = -1
        upstreams = [{ model = "*", first_token = 3 }, { region = "eu", pices = 3 }]
        faults = [{ kind = "dwon" }, { kind = "down", every = 5 }, { kind = "down", requests_per_minute = 5 }]
        workload = { rate = 0, max_entries = 3 }
        kills = [{ actor = "router" }]
        clock_jumps = [{ at = 1, seconds = -1 }]
        storage_faults = { kind = "slow" }
        [config.defaults]
        retry = { max_attempts = 0 }
        [[config.models]]
        name = "a"
        provider = "opnai"
        """,
        "night.toml",
    )

    assert set(found) == {
        "nam",
        "duration",
        "seed",
        "upstreams[0].first_token",
        "upstreams[1].model",
        "upstreams[1].pices",
        "faults[0].kind",
        "faults[1].every",
        "faults[2].requests_per_minute",
        "workload.rate",
        "workload.max_entries",
        "kills[0].at",
        "clock_jumps[0].seconds",
        "storage_faults",
        "config.defaults.retry.max_attempts",
        "config.models[0].provider",
    }
    assert found["nam"].hint == "did you mean `name`?"
    assert found["upstreams[1].pices"].hint == "did you mean `upstreams[1].pieces`?"
    assert found["workload.max_entries"].hint == "did you mean `config.cache.max_entries`?"
    assert found["faults[0].kind"].hint == 'did you mean "down"?'
    assert found["kills[0].at"].reason == "is required"


def test_an_unknown_key_of_the_configuration_is_placed_in_the_scenario() -> None:
    """What was meant is named as it has to be written there."""
    found = problems('[config]\nmodels = [{ name = "a", provider = "openai" }]\n[config.cach]\nttl = 3\n')

    assert found["config.cach"].reason == "is unknown"
    assert found["config.cach"].hint == "did you mean `config.cache`?"


def test_strangers_are_told_beside_other_mistakes() -> None:
    """A model, a region or a route that there is not is found although another table cannot be read."""
    found = problems(
        MODELS
        + """
        upstreams = [{ model = "primery" }, { model = "backup", region = "eu", burst = 0 }]
        faults = [{ kind = "down", models = ["bakcup"], regions = ["eu", "us"] }, { kind = "dwon" }]
        workload = { route = "qiuck", burst = 0 }
        """
    )

    assert set(found) == {
        "workload.burst",
        "workload.route",
        "upstreams[0].model",
        "upstreams[1].burst",
        "faults[0].models",
        "faults[0].regions",
        "faults[1].kind",
    }
    assert "'us'" in found["faults[0].regions"].reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is required"),
        ("config = 3", "must be a table or the path of a file, got 3"),
        ('config = ""', "this is a directory, not a file"),
        ('config = "none.toml"', "there is no such file"),
        ("config = []", "must be a table or the path of a file, got a list"),
    ],
)
def test_a_scenario_without_a_configuration_is_told_what_to_write(text: str, reason: str, tmp_path: Path) -> None:
    """Both forms are shown, or the file that was looked for."""
    found = problems(text, str(tmp_path / "night.toml"))

    assert reason in found["config"].reason
    assert "wizard.toml" in found["config"].hint or str(tmp_path) in found["config"].reason
    assert "wizard init" not in str(found["config"]) or "none.toml" in text


def test_a_mistake_in_the_configuration_s_file_names_that_file(tmp_path: Path) -> None:
    """Both files and the key are told, beside the scenario's own mistakes."""
    (tmp_path / "wizard.toml").write_text('[[models]]\nname = "a"\nprovider = "opnai"\n', encoding="utf-8")

    found = problems('config = "wizard.toml"\nnam = "x"\n', str(tmp_path / "night.toml"))

    assert set(found) == {"config", "nam"}
    assert (
        found["config"].reason == f"names {tmp_path / 'wizard.toml'}, where `models[0].provider` is no known provider"
    )
    assert found["config"].hint == 'did you mean "openai"?'


@pytest.mark.parametrize(
    ("source", "hint"),
    [("provder-outage", "did you mean `provider-outage`?"), ("xyz", f"shipped: {', '.join(SHIPPED)}")],
)
def test_a_name_that_is_none_is_told_the_names(source: str, hint: str) -> None:
    """A typing mistake is answered with what was meant, anything else with all there are."""
    with pytest.raises(ConfigError) as caught:
        load_scenario(source)

    assert caught.value.file == source
    assert caught.value.problems[0].hint == hint


def test_a_file_that_is_not_there_or_no_toml_is_named(tmp_path: Path) -> None:
    """A path is never taken for a name; nothing speaks of how configurations are made."""
    with pytest.raises(ConfigError, match=r"none\.toml: there is no such file$"):
        load_scenario(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = ", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.toml: not valid TOML"):
        load_scenario(tmp_path / "bad.toml")


# -- writing -----------------------------------------------------------------------------------------------------------

WHOLE = [
    Scenario(config=config()),
    Scenario(config=config(), name='a "name"\n', about="ünï", seed=3, duration=0.1),
    Scenario(
        config=config(routes=[RouteConfig(name="r")]),
        upstreams=[
            Upstream(model="*", connect=Spread(median=0.0), pieces=1, requests_per_minute=60.5, tokens_per_minute=1e6),
            Upstream(model="backup", region="eu", tokens_per_second=Spread(median=1e-7, p99=3.0), burst=0.25),
        ],
        faults=[
            FaultWindow(kind="rate_limit", models=["primary"], requests_per_minute=3.0, retry_after=0.0, status=429),
            FaultWindow(kind="stall", regions=["eu"], start=1e16, share=0.0, after_words=0, factor=0.5, delay=2.5),
        ],
        workload=Workload(deadline=Spread(median=2.0, p99=2.5), distinct=1, sessions=2, sessions_share=0.5, route="r"),
        kills=[Kill(actor="*", at=0.0, every=1.5, times=3)],
        clock_jumps=[ClockJump(at=1.0, seconds=3600.0), ClockJump(at=2.0, seconds=-0.5, wall=True)],
        storage_faults=[StorageFault(kind="failing", lasts=1.0), StorageFault(kind="slow", delay=0.0)],
    ),
    Scenario(
        config=config(
            models=[
                ModelConfig(
                    name="a b",
                    provider="openai",
                    model="m",
                    max_concurrency=3,
                    price=PriceConfig(input=Decimal("0.15"), output=Decimal(10), cached_input=Decimal("1E-7")),
                    extra={"n": 1.0, "deep": {"list": [1, {"x": "y"}], "empty": {}}, "yes": True},
                    retry={"errors": {"timeout": {"max_attempts": 1, "base_delay": 0.25}}},  # type: ignore[arg-type]  # admitted
                ),
                ModelConfig(name="local", provider="local"),
                ModelConfig(name="off", provider="simulated", enabled=False),
            ],
            fallback=RouteConfig(name="wizard", chain=["local", "a b"], strategy="hedged", hedge_delay=0.5),
            routes=[RouteConfig(name="all"), RouteConfig(name="one", chain=["a b"], static_answer="later")],
            cache={"max_entries": 5, "ttl": 0.5},
            server={"max_in_flight": 3},
            supervision={"max_restarts": 9},
        ),
    ),
]


@pytest.mark.parametrize("scenario", [*WHOLE, *map(load_scenario, SHIPPED)], ids=lambda scenario: scenario.name)
def test_what_is_written_reads_back_equal(scenario: Scenario) -> None:
    """Nothing is lost, and writing it again writes the same."""
    text = scenario_to_toml(scenario)

    again = scenario_from_toml(text)

    assert again == scenario
    assert scenario_to_toml(again) == text


def test_numbers_keep_their_kind_where_a_provider_sees_them() -> None:
    """1.0 in a request's extra fields is not 1."""
    again = scenario_from_toml(scenario_to_toml(WHOLE[-1]))

    assert repr(again.config.models[0].extra["n"]) == "1.0"


def test_only_what_is_no_default_is_written() -> None:
    """A short scenario is a short text."""
    text = scenario_to_toml(Scenario(config=config(), duration=90.0, workload=Workload(rate=2.0)))

    assert tomllib.loads(text) == {"config": CONFIG, "duration": 90, "workload": {"rate": 2}}
    assert "duration = 90\n" in text


def test_secrets_and_what_is_not_read_are_not_written() -> None:
    """A scenario can be shown to anybody."""
    model = ModelConfig(
        name="a",
        provider="openai",
        api_key_file=Path("k"),
        headers={"x-secret": Secret("word")},
        proxy="http://user:word@proxy:1",
    )
    scenario = Scenario(config=WizardConfig(models=[model], server=ServerConfig(http="127.0.0.1:1")))

    text = scenario_to_toml(scenario)

    assert tomllib.loads(text) == {"config": {"models": [{"name": "a", "provider": "openai"}]}}


def test_what_toml_has_no_word_for_is_refused() -> None:
    """Nothing (null) among the extra fields of a request; its key is named."""
    model = ModelConfig(name="a", provider="openai", extra={"deep": [{"none": None}]})

    with pytest.raises(ConfigError) as caught:
        scenario_to_toml(Scenario(config=WizardConfig(models=[model])))

    assert caught.value.problems[0].key == "config.models[0].extra.deep[0].none"


# -- the page ----------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, type[attrs.AttrsInstance]] = {
    "## The scenario file": Scenario,
    "### Quantities that vary": Spread,
    "### `[[upstreams]]`": Upstream,
    "### `[[faults]]`": FaultWindow,
    "### `[workload]`": Workload,
    "### `[[kills]]`": Kill,
    "### `[[clock_jumps]]`": ClockJump,
    "### `[[storage_faults]]`": StorageFault,
}


@pytest.mark.parametrize(("heading", "table"), SECTIONS.items(), ids=[table.__name__ for table in SECTIONS.values()])
def test_the_page_has_every_key_with_its_default(heading: str, table: type[attrs.AttrsInstance]) -> None:
    """In the order of the fields; what varies is shown as the table that it is."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n{heading}\n")[2]
    # A heading ends a section; the comments of an example are none.
    rows = {
        row["key"]: row["default"] for row in ROW.finditer(re.split(r"^##", text, maxsplit=1, flags=re.MULTILINE)[0])
    }

    fields = {each.name: each.default for each in attrs.fields(table)}
    assert list(rows) == list(fields)
    for key, written in rows.items():
        default = fields[key]
        if written == "required":
            assert default is attrs.NOTHING
        elif written == "none":
            assert default is None
        elif written == "empty":
            assert default == ()
        elif written == "its defaults":
            assert default.factory() == Workload()
        else:
            value = tomllib.loads(f"x = {written.strip('`')}")["x"]
            assert (Spread(**value) if isinstance(value, dict) else value) == (
                default.factory() if isinstance(value, dict) else default
            )


def test_the_page_names_every_kind() -> None:
    """No word that a key takes has to be guessed."""
    text = PAGE.read_text(encoding="utf-8")
    types = [
        attrs.fields(FaultWindow).kind.type,
        attrs.fields(StorageFault).kind.type,
        attrs.fields(Workload).arrival.type,
    ]

    words = [word for kind in types for word in re.findall(r"'(\w+)'", str(kind))]

    assert len(words) == 22
    assert [word for word in words if f'`"{word}"`' not in text] == []


def test_the_page_s_scenario_can_be_played() -> None:
    """It answers everybody but those whose stream broke off as the model went down."""
    example = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)[0]

    report = simulate(attrs.evolve(scenario_from_toml(example), duration=90.0))

    assert report.violations == ()
    assert (report.summary.availability or 0) > 0.99
