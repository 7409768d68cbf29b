"""Settings under generated files: what is right comes back as written, what is wrong is a ConfigError, nothing else."""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wizard_actors.config import ModelConfig, RouteConfig, Secret, Strategy, WizardConfig
from wizard_actors.config.environment import variables
from wizard_actors.config.strict import inner_table, is_list, is_seconds, named_tables, settings
from wizard_actors.errors import ConfigError

pytestmark = pytest.mark.long

CANARY: Final = "sk-canary-7f3a"
Tables = dict[str, Any]

# Chosen so that they lie within the bounds of every setting of their type.
WHOLE = st.integers(400, 599)
NUMBER = st.floats(0.1, 0.9)
TEXT = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
DURATION = st.one_of(NUMBER, st.integers(1, 99), st.builds("{}{}".format, st.integers(1, 99), st.sampled_from("smhd")))
PLAIN: Final[Mapping[type, st.SearchStrategy[Any]]] = {
    bool: st.booleans(),
    int: WHOLE,
    float: NUMBER,
    Decimal: NUMBER,
    str: TEXT,
}
SPECIAL: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "provider": st.sampled_from(["openai", "anthropic", "groq"]),
    "storage": st.sampled_from(["memory:", "sqlite:wizard.db"]),
    "base_url": st.sampled_from(["http://127.0.0.1:1/v1", "https://api.example.com"]),
    "proxy": st.just(f"http://user:{CANARY}@127.0.0.1:3128"),
    "http": st.sampled_from(["127.0.0.1:0", "[::1]:8000"]),
    "websocket": st.just("localhost:8001"),
    "origins": st.lists(st.sampled_from(["https://example.com", "http://localhost:3000"]), max_size=2),
    "max_message": st.integers(1024, 10**6),
    "max_header": st.integers(1024, 10**6),
    "max_json_depth": st.integers(8, 99),
    "api_key_env": st.just("CANARY_KEY"),
    "headers": st.dictionaries(st.sampled_from(["X-A", "X-B"]), st.just(CANARY)),
    "strategy": st.sampled_from([*get_args(Strategy), "custom:night"]),
    "extra": st.dictionaries(TEXT, st.one_of(TEXT, WHOLE, st.lists(NUMBER, max_size=2)), max_size=2),
}
# Files would have to exist; chains have to name models; tables of other providers have to be absent.
ABSENT: Final = frozenset(
    {
        "api_key_file",
        "api_keys_file",
        "api_version",
        "ca_file",
        "chain",
        "enabled",
        "local",
        "options",
        "simulated",
        "tls_cert",
        "tls_key",
    }
)


def value_of(name: str, kind: object) -> st.SearchStrategy[Any]:
    """Return values that the setting `name` of type `kind` takes, as a file would write them."""
    if name in SPECIAL:
        return SPECIAL[name]
    table = inner_table(kind)
    if table is not None:
        return st.lists(table_of(table), max_size=2) if is_list(kind) else table_of(table)
    if is_seconds(kind):
        return DURATION
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    named = named_tables(kind)
    if named is not None:
        return st.dictionaries(st.sampled_from(named[0]), table_of(named[1]), max_size=2)
    inside = get_args(kind)
    return value_of(name, inside[0]) if inside else next(values for plain, values in PLAIN.items() if plain is kind)


def table_of(table: type[attrs.AttrsInstance]) -> st.SearchStrategy[Tables]:
    """Return tables with some of the keys of `table`, the required ones always."""
    known = {each.name: value_of(each.name, each.type) for each in settings(table) if each.name not in ABSENT}
    required = {each.name for each in settings(table) if each.default is attrs.NOTHING}
    return st.fixed_dictionaries(
        {name: values for name, values in known.items() if name in required},
        optional={name: values for name, values in known.items() if name not in required},
    )


@st.composite
def files(draw: st.DrawFn) -> Tables:
    """Draw the tables of a file in which nothing is wrong."""
    file: Tables = draw(table_of(WizardConfig))
    file["models"] = [draw(table_of(ModelConfig)) for _ in range(draw(st.integers(1, 3)))]
    file["routes"] = [draw(table_of(RouteConfig)) for _ in range(draw(st.integers(0, 2)))]
    names = draw(st.permutations([f"n{index}" for index in range(5)]))
    for thing, name in zip([*file["models"], *file["routes"]], names, strict=False):
        thing["name"] = name
    for route in file["routes"]:
        route["chain"] = draw(st.permutations([model["name"] for model in file["models"]]))
    file.get("fallback", {}).pop("name", None)
    if draw(st.booleans()):
        file["defaults"] = draw(table_of(ModelConfig))
        del file["defaults"]["name"]
        file["defaults"].pop("api", None)  # it reaches some models and not others
    make_agree(file)
    return file


def make_agree(file: Tables) -> None:
    """Take out of a file what it may not have beside its other settings."""
    for index, model in enumerate(file["models"]):
        if "rate_limit_group" in model:
            model["rate_limit_group"] = f"g{index}"
    file.get("defaults", {}).pop("rate_limit_group", None)
    for table in (*file["models"], file.get("defaults", {})):
        make_tables_agree(table)
        make_ways_agree(table, file.get("defaults", {}))
    priced = any("price" in model for model in (*file["models"], file.get("defaults", {})))
    for route in (*file["routes"], file.get("fallback", {})):
        if len(file["models"]) == 1 or (route.get("strategy") == "cheapest" and not priced):
            route.pop("strategy", None)
        if route.get("strategy") != "hedged":
            route.pop("hedge_delay", None)
            route.pop("hedge_quantile", None)
    if file.get("cache"):
        file["cache"].setdefault("max_entries", 400)
    budget = file.get("retry_budget", {})
    if budget.get("enabled") is False:
        file["retry_budget"] = {"enabled": False}
    elif budget.get("initial", 0) > budget.get("max", 100):
        del budget["initial"]


def make_ways_agree(model: Tables, defaults: Tables) -> None:
    """Take out of a model, or of the defaults, a transport or a proxy that could not stand beside the other one."""
    if "proxy" in model or "proxy" in defaults:
        model.pop("transport", None)
    if "transport" in defaults:
        model.pop("proxy", None)  # such a model would not inherit it


def make_tables_agree(model: Tables) -> None:
    """Take out of a model, or of the defaults, what would have no effect there, whatever else there is."""
    if model.get("provider") == "anthropic":
        model.pop("api", None)
    breaker = model.get("circuit_breaker", {})
    breaker.pop("failure_threshold" if "failure_rate" in breaker else "minimum_calls", None)
    if "requests_per_minute" not in model.get("rate_limit", {}):
        model.get("rate_limit", {}).pop("burst", None)


def toml(value: object) -> str:
    """Write `value` as TOML, all tables inline."""
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value)


def written(file: Tables) -> str:
    """Write the tables of a file, one a line."""
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in file.items())


def load(text: str, env: Mapping[str, str] | None = None) -> WizardConfig:
    """Load `text` in an environment that has the one key."""
    return WizardConfig.from_toml(text, "wizard.toml", {"CANARY_KEY": CANARY, **(env or {})})


def as_written(value: object) -> object:
    """Return a setting's value as a file may have written it."""
    if isinstance(value, Secret):
        return value.reveal()
    return float(value) if isinstance(value, Decimal) else value


def differences(file: object, made: object, path: str = "") -> list[str]:
    """Return where `made` is not what `file` says; durations and prices are compared as numbers."""
    if isinstance(file, Mapping) and made is not None:
        values = made if isinstance(made, Mapping) else {key: getattr(made, key) for key in file}
        return [each for key in file for each in differences(file[key], values[key], f"{path}.{key}")]
    if isinstance(file, list) and isinstance(made, tuple):
        pairs = [differences(*pair, f"{path}[]") for pair in zip(file, made, strict=True)]
        return [each for found in pairs for each in found]
    if isinstance(file, str) and isinstance(made, float):
        unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}[file[-1]]
        return [] if made == int(file[:-1]) * unit else [path]
    return [] if as_written(made) == file else [path]


@given(files())
def test_what_a_file_says_is_what_comes_of_it(file: Tables) -> None:
    """Every value of a right file is in force, and no other place changes it."""
    config = load(written(file))

    expected = {key: value for key, value in file.items() if key != "defaults"}
    assert differences(expected, config) == []
    for model, made in zip(file["models"], config.models, strict=True):
        inherited = {key: value for key, value in file.get("defaults", {}).items() if key not in model}
        assert differences(inherited, made) == []


@given(files())
def test_origins_tell_the_files_values_from_the_others(file: Tables) -> None:
    """A value is said to be built in only where it is, and each key is listed once."""
    config = load(written(file))
    bare = load(written({"models": [{"name": each["name"], "provider": "openai"} for each in file["models"]]}))

    listed = list(config.effective())
    built_in = {each.key: each.value for each in bare.effective()}
    assert len({each.key for each in listed}) == len(listed)
    for each in listed:
        # The upstream's id is the name, and a chain the models, where nothing else is said.
        if each.origin == "default" and each.key in built_in:
            assert each.value == built_in[each.key]


@given(files())
def test_no_secret_of_a_right_file_shows(file: Tables) -> None:
    """Neither the repr nor what is in force holds a key, a header's value or a proxy's password."""
    config = load(written(file))

    assert CANARY not in repr(config) + repr(list(config.effective()))


# -- what is wrong ------------------------------------------------------------------------------------------------

KEYS = st.sampled_from([*attrs.fields_dict(ModelConfig), *attrs.fields_dict(RouteConfig), "cache", "a b", ""])
PLAIN_JUNK = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.sampled_from(["CANARY_KEY", "wizard", "", "~", "openai", "simulated", "local"]),
)
JUNK = st.recursive(
    PLAIN_JUNK, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner)), max_leaves=6
)


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of everything in `value`."""
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [each for key, inner in items for each in ((*path, key), *places(inner, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> Tables:
    """Draw a file in which some values were replaced, added or removed."""
    file = copy.deepcopy(draw(files()))
    for _ in range(draw(st.integers(1, 4))):
        *path, key = draw(st.sampled_from(places(file) or [("models",)]))
        table: Any = file
        for part in path:
            table = table[part]
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "remove":
            table.pop(key, None) if isinstance(table, dict) else table.pop()
        elif action == "add" and isinstance(table, dict):
            table[draw(KEYS)] = draw(JUNK)
        else:
            table[key] = draw(JUNK)
    return file


@st.composite
def leaking(draw: st.DrawFn) -> Tables:
    """Draw a file in which a key stands in the wrong place: anywhere but where models and routes are named."""
    file = copy.deepcopy(draw(files()))
    for _ in range(draw(st.integers(1, 3))):
        spots = [each for each in places(file) if isinstance(each[-1], str) and each[-1] not in {"name", "chain"}]
        *path, key = draw(st.sampled_from(spots))
        table: Any = file
        for part in path:
            table = table[part]
        table[draw(st.sampled_from([key, "zzz"]))] = draw(st.sampled_from([CANARY, [CANARY], {"x": CANARY}]))
    return file


def wrong(text: str, env: Mapping[str, str] | None = None) -> ConfigError | None:
    """Load `text` and return the ConfigError, None where nothing is wrong. Any other error fails the test."""
    try:
        load(text, env)
    except ConfigError as error:
        return error
    return None


def keys_of(error: ConfigError | None) -> set[str]:
    """Return the keys that an error is about."""
    return set() if error is None else {problem.key for problem in error.problems}


@given(mutated())
def test_a_wrong_file_gives_a_config_or_a_config_error(file: Tables) -> None:
    """Whatever the values, nothing else is raised, and each problem has a reason and stands once."""
    error = wrong(written(file))

    if error is not None:
        assert error.file == "wizard.toml"
        assert all(problem.reason for problem in error.problems)
        assert len(set(error.problems)) == len(error.problems) > 0


@given(st.sampled_from(["models", "defaults"]), st.sampled_from(sorted(attrs.fields_dict(ModelConfig))), JUNK)
@example("models", "provider", ["openai"])
@example("defaults", "provider", {"a": 1})
def test_any_value_of_any_key_beside_options_gives_a_config_or_a_config_error(where: str, key: str, junk: Any) -> None:  # noqa: ANN401 - any at all
    """What is judged by two keys is judged where either cannot be read."""
    model: Tables = {"name": "a", "options": {"a": 1}}
    file: Tables = {"defaults": {"provider": "custom", "options": {"b": 1}}, "models": [model]}
    (model if where == "models" else file["defaults"])[key] = junk

    error = wrong(written(file))

    assert error is None or error.problems


@given(leaking())
def test_a_secret_in_the_wrong_place_is_not_repeated(file: Tables) -> None:
    """Only names are repeated in messages; any other text may be a key that slipped."""
    error = wrong(written(file))

    if error is not None:
        assert CANARY not in f"{error} {error!r} {error.to_dict()}"


@given(mutated())
def test_one_mistake_more_hides_no_other(file: Tables) -> None:
    """Everything wrong is found in one go: an unknown table adds its problem to the same others."""
    before = keys_of(wrong(written(file)))

    assert keys_of(wrong(written({**file, "zzz": 1}))) == before | {"zzz"}


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("=")
@example("a" + ".a" * 3000 + "=1")
def test_any_text_gives_a_config_error(text: str) -> None:
    """A text that names no model is never a configuration, and never a crash."""
    assert wrong(text) is not None


@given(st.binary())
@example(b"\xff")
def test_any_bytes_give_a_config_error(content: bytes) -> None:
    """A file of any bytes is refused as a file of settings, and never a crash."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "wizard.toml")
        file.write_bytes(content)
        with pytest.raises(ConfigError):
            WizardConfig.load(file, env={})


VARIABLES = sorted(
    name for name in variables({"defaults": ModelConfig, "fallback": RouteConfig}) if "PRICE" not in name
)
"""A price needs two values, so that one variable alone is blamed on neither."""


@given(st.dictionaries(st.one_of(st.sampled_from(VARIABLES), st.builds("WIZARD_{}".format, TEXT)), st.text(max_size=9)))
def test_any_environment_gives_a_config_or_a_config_error(env: dict[str, str]) -> None:
    """Variables are as safe as files, and each problem names its variable."""
    error = wrong('[[models]]\nname = "a"\nprovider = "openai"\n', env)

    for problem in () if error is None else error.problems:
        assert any(variable in f"{problem.key} {problem.reason} {problem.hint}" for variable in env)
