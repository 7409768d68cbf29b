"""`wizard check` and `wizard models`: what is shown, where it came from, and how probes go."""

import sys
from pathlib import Path

import pytest

from tests.wizard_cli import SIMULATED, Wizard, two_models


@pytest.fixture
def wizard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wizard:
    """The program, in a folder and an environment without any configuration."""
    return Wizard(tmp_path, monkeypatch)


CHECKED = """
[defaults]
max_concurrency = 7
[[models]]
name = "pretender"
provider = "simulated"
retry = { max_attempts = 2 }
[cache]
max_entries = 9
ttl = "5m"
"""
ORIGINS = {
    "models[0].name": ("pretender", "model"),
    "models[0].max_concurrency": (7, "defaults"),
    "models[0].retry.max_attempts": (2, "model"),
    "models[0].timeouts.stall": (30.0, "default"),
    "cache.ttl": (300.0, "file"),
    "logging.level": ("ERROR", "environment"),
    "models[0].price": (None, "default"),
    "fallback.chain": (["pretender"], "default"),
}


def test_check_shows_every_value_and_its_origin(wizard: Wizard) -> None:
    """One row a setting: its key, the value in force, and where that came from."""
    wizard.config(CHECKED)
    wizard.monkeypatch.setenv("WIZARD_LOGGING_LEVEL", "ERROR")
    ran = wizard("check")
    assert (ran.status, ran.err) == (0, "")
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["models[0].max_concurrency", "7", "defaults"] in rows
    assert ["cache.ttl", "300", "file"] in rows
    assert ["logging.level", "ERROR", "environment"] in rows
    assert ["models[0].price", "-", "default"] in rows


def test_check_json_shows_the_same_as_objects(wizard: Wizard) -> None:
    """Values keep their types."""
    file = wizard.config(CHECKED)
    wizard.monkeypatch.setenv("WIZARD_LOGGING_LEVEL", "ERROR")
    shown = wizard("check", "--json").json
    assert shown["source"] == file.name
    assert "probes" not in shown
    settings = {each["key"]: (each["value"], each["origin"]) for each in shown["settings"]}
    assert {key: settings[key] for key in ORIGINS} == ORIGINS


def keyed(provider: str, more: str = "") -> str:
    """Return a configuration of one model of that provider."""
    return f'[[models]]\nname = "primary"\nprovider = "{provider}"\n{more}\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (keyed("anthropic"), "set ANTHROPIC_API_KEY, or name a variable"),
        (keyed("groq"), "set GROQ_API_KEY, or name a variable"),
        (keyed("openai", 'base_url = "https://api.openai.com/v1"'), "is sent: name a variable"),
        (keyed("azure", 'base_url = "https://mine.openai.azure.com"'), "is sent: name a variable"),
    ],
)
def test_check_says_who_has_no_key(wizard: Wizard, text: str, said: str) -> None:
    """Nobody is asked there without one; the configuration is right all the same."""
    wizard.config(text)
    ran = wizard("check")
    assert ran.status == 0
    assert "`models[0]` (primary) has no key, and none is sent: " in ran.err
    assert said in ran.err
    assert "api_key_env" in ran.err


@pytest.mark.parametrize(
    "text",
    [
        keyed("ollama"),
        keyed("openai", 'base_url = "http://127.0.0.1:9/v1"'),
        keyed("openai", 'headers = { Authorization = "Bearer mine" }'),
        keyed("gemini", 'headers = { x-goog-api-key = "mine" }'),
        keyed("mistral"),
    ],
)
def test_check_says_nothing_of_who_has_a_key_or_needs_none(wizard: Wizard, text: str) -> None:
    """Servers of one's own, keys in headers, the usual variable."""
    wizard.monkeypatch.setenv("MISTRAL_API_KEY", "sk-canary")
    wizard.config(text)
    ran = wizard("check")
    assert (ran.status, ran.err) == (0, "")


def test_check_shows_the_usual_variable_where_it_counts(wizard: Wizard) -> None:
    """As the one that is in force, and from where."""
    wizard.monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-canary")
    wizard.config(keyed("anthropic"))
    ran = wizard("check")
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["models[0].api_key_env", "ANTHROPIC_API_KEY", "environment"] in rows
    assert "sk-canary" not in ran.out + ran.err


@pytest.mark.parametrize("command", [("check",), ("ask", "Why?")])
def test_an_empty_usual_variable_is_told_alike(wizard: Wizard, command: tuple[str, ...]) -> None:
    """Whatever is run."""
    wizard.monkeypatch.setenv("OPENAI_API_KEY", " ")
    wizard.config(keyed("openai"))
    ran = wizard(*command)
    assert ran.status == 2
    assert "wizard.toml: `models[0].api_key_env` is left out, and the usual variable OPENAI_API_KEY is empty" in ran.err


def test_check_shows_paths_prices_and_tables(wizard: Wizard) -> None:
    """Values that JSON has no type for are texts."""
    (wizard.path / "some.key").write_text("sk-canary", encoding="utf-8")
    wizard.config(
        '[[models]]\nname = "a"\nprovider = "openai"\napi_key_file = "some.key"\nheaders = { x-token = "sk-canary" }\n'
        'price = { input = 0.25, output = 2 }\nextra = { stop = ["x"], deep = { a = 1 } }\n'
    )
    ran = wizard("check", "--json")
    settings = {each["key"]: each["value"] for each in ran.json["settings"]}
    assert settings["models[0].api_key_file"] == "some.key"
    assert settings["models[0].price.input"] == "0.25"
    assert settings["models[0].headers.x-token"] == "***"
    assert "sk-canary" not in ran.out + wizard("check").out


def test_probe_asks_each_model_once(wizard: Wizard) -> None:
    """The first model fails its first call and would answer a second one; the second model does not stand in for it."""
    wizard.config(two_models().replace("max_attempts = 1", "max_attempts = 3"))
    ran = wizard("check", "--probe", "--json")
    first, second = ran.json["probes"]
    assert ran.status == 1
    assert (first["model"], first["ok"], first["error"]["code"]) == ("first", False, "provider_error")
    assert (second["model"], second["ok"], second["error"]) == ("second", True, None)
    assert second["ms"] >= 0


def test_probe_shows_a_row_a_model(wizard: Wizard) -> None:
    """A model that fails shows its error beside the others' ok; all ok is status 0."""
    wizard.config(two_models())
    ran = wizard("check", "--probe")
    rows = ran.out.splitlines()[-2:]
    assert ran.status == 1
    assert "simulated failure" in rows[0]
    assert rows[1].split()[:2] == ["second", "ok"]
    wizard.config(SIMULATED)
    assert wizard("check", "--probe").status == 0


def test_probe_asks_around_a_model_that_cannot_be_asked(wizard: Wizard) -> None:
    """One that this version does not know fails alone; a disabled one is left out."""
    more = (
        '[[models]]\nname = "other"\nprovider = "gemini"\n[[models]]\nname = "off"\nprovider = "xai"\nenabled = false\n'
    )
    wizard.config(SIMULATED + more)
    ran = wizard("check", "--probe", "--json")
    assert ran.status == 1
    assert [(each["model"], each["ok"]) for each in ran.json["probes"]] == [("pretender", True), ("other", False)]


LISTED = """
[[models]]
name = "one"
provider = "simulated"
model = "upstream-one"
rate_limit = { requests_per_minute = 60 }
[[models]]
name = "two"
provider = "simulated"
enabled = false
[[routes]]
name = "fast"
chain = ["one"]
"""


def test_models_lists_models_and_routes(wizard: Wizard) -> None:
    """Each model with its upstream's id, its routes and its limits."""
    wizard.config(LISTED)
    shown = wizard("models", "--json").json
    one, two = shown["models"]
    assert (one["name"], one["provider"], one["model"]) == ("one", "simulated", "upstream-one")
    assert (one["enabled"], two["enabled"]) == (True, False)
    assert (one["routes"], two["routes"]) == (["wizard", "fast"], [])
    assert one["limits"]["requests_per_minute"] == 60
    assert shown["routes"] == [
        {"name": "wizard", "strategy": "sequential", "chain": ["one"]},
        {"name": "fast", "strategy": "sequential", "chain": ["one"]},
    ]


def test_models_prints_a_table(wizard: Wizard) -> None:
    """The same, for people."""
    wizard.config(LISTED)
    ran = wizard("models")
    assert ran.status == 0
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["one", "simulated", "upstream-one", "true", "wizard,", "fast"] in [row[:6] for row in rows]
    assert ["fast", "sequential", "one"] in rows


PRICED = """
[[models]]
name = "listed"
provider = "openai"
model = "gpt-4o"
[[models]]
name = "own"
provider = "openai"
model = "gpt-4o"
context_window = 5000
price = { input = 1.5, output = 2 }
[[models]]
name = "nobody"
provider = "ollama"
"""


def test_models_shows_windows_and_prices_and_who_says_so(wizard: Wizard) -> None:
    """What the configuration leaves open is what the list says, and marked."""
    wizard.config(PRICED)
    listed, own, nobody = wizard("models", "--json").json["models"]
    assert listed["sources"] == {"context_window": "genai-prices", "price": "genai-prices"}
    assert listed["limits"]["context_window"] > 5000
    assert float(listed["price"]["output"]) > float(listed["price"]["input"]) > 0
    assert own["sources"] == {"context_window": "config", "price": "config"}
    assert own["limits"]["context_window"] == 5000
    assert own["price"] == {"input": "1.5", "output": "2", "cached_input": None, "cache_write": None}
    assert (nobody["price"], nobody["limits"]["context_window"]) == (None, None)
    assert nobody["sources"] == {"context_window": None, "price": None}

    rows = {line.split()[0]: line for line in wizard("models").out.splitlines() if line.split()}
    assert rows["listed"].count("(genai-prices)") == 2
    assert "(genai-prices)" not in rows["own"]
    assert "context_window = 5000 " in rows["own"]
    assert rows["own"].endswith("input = 1.5, output = 2")
    assert rows["nobody"].endswith("-")


def test_check_fills_in_what_the_list_says(wizard: Wizard) -> None:
    """As settings like any other; what is configured keeps its origin, and what nobody knows its default."""
    wizard.config(PRICED)
    settings = {each["key"]: (each["value"], each["origin"]) for each in wizard("check", "--json").json["settings"]}
    assert settings["models[0].context_window"][1] == "genai-prices"
    assert settings["models[0].price.input"][1] == "genai-prices"
    assert "models[0].price" not in settings
    assert settings["models[1].context_window"] == (5000, "model")
    assert settings["models[1].price.input"] == ("1.5", "model")
    assert settings["models[2].price"] == (None, "default")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('api_keys_file = "keys.toml"', "keys.toml: `keys` hold none that is enabled"),
        ('api_keys_file = "none.toml"', "`server.api_keys_file`"),
        ('api_keys_file = "other.toml"', "names no model: 'big'"),
        (
            'tls_cert = "none.pem"\ntls_key = "none.pem"',
            "wizard.toml: `server.tls_cert` names a file, none.pem, that cannot be read",
        ),
        ('http = "0.0.0.0:8000"', "`server.api_keys_file` is needed to listen on 0.0.0.0:8000"),
        (
            'http = "127.0.0.1:8000"\nwebsocket = "127.0.0.1:8000"',
            "wizard.toml: `server.websocket` asks for the same address as `server.http`: 127.0.0.1:8000",
        ),
        ('http = "127.0.0.1:0"\n[telemetry]\notel = true', "OTEL_TRACES_EXPORTER asks for 'console'"),
    ],
)
def test_what_the_server_would_refuse_is_told(wizard: Wizard, settings: str, said: str) -> None:
    """Before it is started, by the words and with the status that `wizard serve` ends with."""
    wizard.monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    key = f'[[keys]]\nname = "alice"\nhash = "sha256:{"0" * 64}"\n'
    wizard.config(f"{key}enabled = false\n", "keys.toml")
    wizard.config(f'{key}models = ["big"]\n', "other.toml")
    wizard.config(f"[server]\n{settings}\n{SIMULATED}")
    ran = wizard("check")
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err
    flags = () if "http" in settings else ("--http", "127.0.0.1:0")
    served = wizard("serve", *flags)
    assert (served.status, served.err.splitlines()[-1]) == (2, ran.err.splitlines()[-1])


@pytest.mark.parametrize(
    ("module", "settings", "said"),
    [
        ("wizard_actors.server.http", "", "`server.http` needs a package that is not installed (starlette)"),
        ("wizard_actors.otel.sdk", "[telemetry]\notel = true\n", "`telemetry.otel` needs OpenTelemetry"),
    ],
)
def test_an_extra_that_the_server_would_miss_is_told(wizard: Wizard, module: str, settings: str, said: str) -> None:
    """With what installs it."""

    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == module:
                raise ModuleNotFoundError("No module named 'starlette'", name="starlette")

    wizard.monkeypatch.delitem(sys.modules, module, raising=False)
    wizard.monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    wizard.config(f'{settings}[server]\nhttp = "127.0.0.1:0"\n{SIMULATED}')
    ran = wizard("check")
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err
    assert "pip install 'wizard-actors[" in ran.err


def test_what_only_a_server_needs_is_not_asked_of_others(wizard: Wizard) -> None:
    """A configuration that names no endpoint is a program's, which may export what it records as it likes."""
    wizard.monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    wizard.config(f"[telemetry]\notel = true\n{SIMULATED}")
    assert wizard("check").status == 0
