"""The template that `wizard init` writes and the reference: complete, true, and loadable as they stand."""

import re
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import get_args

import attrs
import certifi
import pytest

from wizard_actors.config import (
    PRESETS,
    PROVIDERS,
    TEMPLATE,
    BatchConfig,
    BreakerConfig,
    CacheConfig,
    ErrorRetryConfig,
    LocalConfig,
    LoggingConfig,
    ModelConfig,
    PriceConfig,
    RateLimitConfig,
    RetriedError,
    RetryBudgetConfig,
    RetryConfig,
    RouteConfig,
    ScriptStep,
    ServerConfig,
    SessionsConfig,
    SimulatedConfig,
    StreamConfig,
    SupervisionConfig,
    SupportsConfig,
    TelemetryConfig,
    TimeoutsConfig,
    WizardConfig,
)

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
ENV = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "AZURE_OPENAI_API_KEY": "k"}
TABLES: dict[str, type[attrs.AttrsInstance]] = {
    "## `[[models]]`": ModelConfig,
    "### `[models.supports]`": SupportsConfig,
    "### `[models.timeouts]`": TimeoutsConfig,
    "### `[models.retry]`": RetryConfig,
    "### `[models.retry.errors]`": ErrorRetryConfig,
    "### `[models.circuit_breaker]`": BreakerConfig,
    "### `[models.rate_limit]`": RateLimitConfig,
    "### `[models.price]`": PriceConfig,
    "### `[models.simulated]`": SimulatedConfig,
    "### `[[models.simulated.script]]`": ScriptStep,
    "### `[models.local]`": LocalConfig,
    "## `[fallback]` and `[[routes]]`": RouteConfig,
    "## `[cache]`": CacheConfig,
    "## `[sessions]`": SessionsConfig,
    "## `[stream]`": StreamConfig,
    "## `[batch]`": BatchConfig,
    "## `[server]`": ServerConfig,
    "## `[logging]`": LoggingConfig,
    "## `[telemetry]`": TelemetryConfig,
    "## `[supervision]`": SupervisionConfig,
    "## `[retry_budget]`": RetryBudgetConfig,
}
ROW = re.compile(r"^\| `(?P<key>\w+)` \|[^|]*\| (?P<default>[^|]*?) \|", re.MULTILINE)


def settings(table: type[attrs.AttrsInstance]) -> dict[str, object]:
    """Return the keys of a table, each with its default."""
    return {each.name: each.default for each in attrs.fields(table) if not each.name.startswith("_")}


def all_tables(root: type[attrs.AttrsInstance]) -> Iterator[type[attrs.AttrsInstance]]:
    """Return `root` and every table inside it, found by their types' names in the annotations."""
    known = {table.__name__: table for table in TABLES.values()}
    yield root
    for each in attrs.fields(root):
        for name in re.findall(r"\w+(?:Config|Step)\b", str(each.type)):
            yield from all_tables(known[name])


def section(heading: str) -> str:
    """Return what stands below `heading` in the reference."""
    found = REFERENCE.read_text(encoding="utf-8").partition(f"\n{heading}\n")[2]
    assert found, f"the reference has no section {heading}"
    return re.split(r"^#", found, maxsplit=1, flags=re.MULTILINE)[0]


def uncommented() -> str:
    """Return the template with every setting in it switched on."""
    return re.sub(r"^#(?=[\w\[])", "", TEMPLATE, flags=re.MULTILINE)


# -- the reference -----------------------------------------------------------------------------------------------


def test_the_reference_has_a_section_for_every_table() -> None:
    """No table of the schema is left out of the list that the other tests walk."""
    assert set(all_tables(WizardConfig)) == {WizardConfig, *TABLES.values()}


@pytest.mark.parametrize(("heading", "table"), TABLES.items(), ids=[table.__name__ for table in TABLES.values()])
def test_the_reference_lists_every_setting_with_its_default(heading: str, table: type[attrs.AttrsInstance]) -> None:
    """Each key of a table has its row, and the default there is the one in force."""
    rows = {row["key"]: row["default"] for row in ROW.finditer(section(heading))}

    expected = settings(table)
    assert list(rows) == list(expected)
    for key, written in rows.items():
        default = expected[key]
        value = tomllib.loads(f"x = {written.strip('`')}")["x"] if written.startswith("`") else written
        if value == "required":
            assert default is attrs.NOTHING
        elif value == "none":
            assert default is None
        elif value in {"empty", "its defaults", "the name", "by provider"}:
            assert default == () or (default != default.__class__ and hasattr(default, "factory"))
        else:
            assert value == default
            assert isinstance(value, bool) == isinstance(default, bool)


def test_every_example_of_the_reference_loads() -> None:
    """What people copy works."""
    examples = re.findall(r"```toml\n(.*?)```", REFERENCE.read_text(encoding="utf-8"), flags=re.DOTALL)

    assert len(examples) >= 4
    for example in examples:
        WizardConfig.from_toml(example, env=ENV)


def test_the_reference_names_every_provider_fault_and_error() -> None:
    """No word that a setting takes has to be guessed."""
    text = REFERENCE.read_text(encoding="utf-8")
    faults = re.findall(r"'(\w+)'", str(attrs.fields(ScriptStep).fault.type))

    assert len(faults) == 16
    assert [word for word in (*PROVIDERS, *PRESETS, *faults, *get_args(RetriedError)) if f"`{word}`" not in text] == []


# -- the template ------------------------------------------------------------------------------------------------


def test_the_template_loads_and_changes_no_default() -> None:
    """As it is written it gives one model, and everything else as without a file."""
    smallest = '[[models]]\nname="primary"\nprovider="openai"\nmodel="gpt-5-mini"\napi_key_env="OPENAI_API_KEY"\n'

    assert WizardConfig.from_toml(TEMPLATE, env=ENV) == WizardConfig.from_toml(smallest, env=ENV)


def test_the_template_loads_with_every_line_switched_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each commented line is right as well, given the files that it names."""
    monkeypatch.chdir(tmp_path)
    for file in ("company-ca.pem", "anthropic.key", "model.gguf"):
        (tmp_path / file).write_text("something")
    (tmp_path / "company-ca.pem").write_bytes(Path(certifi.where()).read_bytes())

    config = WizardConfig.from_toml(uncommented(), env=ENV)

    assert [model.provider for model in config.models] == [
        "openai",
        "anthropic",
        "azure",
        "local",
        "simulated",
        "custom",
    ]
    price = config.model("primary").price
    assert price is not None
    assert price.cached_input == Decimal("0.025")
    simulated = config.model("pretender").simulated
    assert simulated is not None
    assert [step.fault for step in simulated.script] == [
        "rate_limit",
        "disconnect",
        "slow_first_token",
        "error",
    ]


def test_the_template_names_every_setting() -> None:
    """Nothing has to be looked up elsewhere to be found."""
    written = set(re.findall(r"\b(\w+) = ", uncommented())) | set(re.findall(r"[\[.](\w+)\]", uncommented()))

    for table in TABLES.values():
        assert set(settings(table)) <= written, table.__name__


def test_the_templates_defaults_are_the_ones_in_force() -> None:
    """A line that shows no example of another value shows the default: switched on, it changes nothing."""
    sections = {"supervision": SupervisionConfig, "retry_budget": RetryBudgetConfig, "logging": LoggingConfig}
    sections |= {"stream": StreamConfig, "batch": BatchConfig}
    defaults = {"timeouts": TimeoutsConfig, "retry": RetryConfig}
    tables = tomllib.loads(uncommented())

    for name, table in sections.items():
        assert getattr(WizardConfig.from_toml(TEMPLATE, env=ENV), name) == attrs.evolve(table(), **tables[name])
    for name, table in defaults.items():
        assert attrs.evolve(table(), **tables["defaults"][name]) == table()
