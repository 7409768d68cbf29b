"""Scenarios in TOML: read, written, and the ones that come with this package."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final, TypeVar, cast

import attrs
import tomli_w
from cattrs.errors import BaseValidationError

from wizard_actors.config import LoggingConfig, ModelConfig, RouteConfig, ServerConfig, TelemetryConfig, WizardConfig
from wizard_actors.config.hints import Tree, tree_of, unknown_key
from wizard_actors.config.source import parse, read
from wizard_actors.config.strict import KeyPath, chosen, inner_table, problems_in, settings, shown_key, structure
from wizard_actors.config.values import BadValue, closest, described, parse_seconds
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.testing.simulation.scenario import ANY, FaultWindow, Scenario, Spread, Upstream, Workload

__all__ = [
    "SHIPPED",
    "load_scenario",
    "scenario_from_toml",
    "scenario_path",
    "scenario_text",
    "scenario_to_toml",
    "simulated_config",
]

SHIPPED: Final[tuple[str, ...]] = (
    "provider-outage",
    "brownout",
    "rate-limit-squeeze",
    "flapping",
    "slow-tokens",
    "mid-stream-cuts",
    "thundering-herd",
    "cache-stampede",
    "actor-crashes",
    "impatient-callers",
)
"""The names of the scenarios that come with this package."""

T = TypeVar("T")

HOME: Final = "wizard_actors.testing"
SUFFIX: Final = ".toml"
CONFIG: Final = "config"
SHIPPED_FILES: Final = frozenset(f"{name}{SUFFIX}" for name in SHIPPED)
INLINE: Final = 'write the configuration below `[config]`, or name its file: `config = "wizard.toml"`'
UNREAD: Final = ("api_key_env", "api_key_file", "ca_file", "proxy", "transport", "headers")
"""What a model says of keys and of the network, which a simulation has no use for."""

BOUNDS: Final = ("max_in_flight", "queue_timeout", "drain_timeout")
"""What holds for every client among a server's settings."""

OWN: Final = ("models", "fallback", "routes")
"""The tables of a configuration that are written in a way of their own."""

FREE: Final = (Mapping[str, object],)
"""The types of settings whose form is free."""

EXACT: Final = 1e15
"""Whole floats below this are written as integers."""


# -- reading -----------------------------------------------------------------------------------------------------------


def load_scenario(source: str | os.PathLike[str]) -> Scenario:
    """Return the scenario in the TOML file at a path or, where there is no such file, the shipped one of that name.

    Raises `ConfigError` as `scenario_from_toml` does, naming the file.
    """
    return scenario_from_toml(*scenario_text(source))


def scenario_text(source: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the text that `load_scenario` reads, and the file that it is in. Raises `ConfigError`."""
    if not isinstance(source, (str, os.PathLike)):
        raise ConfigError([ConfigProblem("source", f"must be a path or a scenario's name, got {described(source)}")])
    path = Path(source)
    if isinstance(source, str) and not path.suffix and path.name == source and not path.is_file():
        path = scenario_path(source)
    return _text(path), os.fspath(path)


def scenario_from_toml(text: str, file: str | None = None) -> Scenario:
    """Return the scenario in a text; `file` is what messages call it, and where its paths start: from the current
    directory where it is None.

    The configuration stands inline, below `[config]`, or in a file that `config` names. No environment variable
    changes it; what it says of keys, certificates, proxies and headers is not read, and its endpoints, logs and
    telemetry are left out.

    Raises `ConfigError` with everything that is wrong: the file, each key, each reason, and what to do about it.
    """
    if not isinstance(text, str):
        raise ConfigError([ConfigProblem("text", f"must be a text, got {described(text)}")], file=file)
    tables = parse(text, file)
    if "models" in tables and CONFIG not in tables:
        reason = "this is a configuration, not a scenario"
        hint = 'a scenario names it, by `config = "wizard.toml"`; `wizard simulate --config` plays any scenario with it'
        raise ConfigError([ConfigProblem("", reason, hint)], file=file)
    given = tables.pop(CONFIG, None)
    config, problems = _config(given, file)
    made: Scenario | None = None
    try:
        made = structure(tables if config is None else {**tables, CONFIG: config}, Scenario)
    except BaseValidationError as error:
        found = [problem for problem in problems_in(error, hint=_hint) if problem.key != CONFIG]
        problems = found + problems
        if config is not None:
            problems += [problem for problem in _strangers(tables, config) if problem not in problems]
    if made is None or problems:
        values = dict(_values_of(tables))
        raise ConfigError([_with_hint(problem, values.get(problem.key)) for problem in problems], file=file)
    return made


def simulated_config(tables: Mapping[str, object], file: str | None = None, text: str = "") -> WizardConfig:
    """Return the configuration in `tables` as simulations use it: no variable of the environment counts, and nothing
    in it names a key or a file. `text` is the file's own, for hints. Raises `ConfigError` as `WizardConfig.load` does.
    """
    if CONFIG in tables and "models" not in tables:
        reason = "this is a scenario, not a configuration"
        raise ConfigError([ConfigProblem("", reason, "`wizard simulate FILE` plays it")], file=file)
    kept = dict(tables)
    if "defaults" in kept:
        kept["defaults"] = _unread_dropped(kept["defaults"])
    models = kept.get("models")
    if isinstance(models, list):
        kept["models"] = [_unread_dropped(model) for model in models]
    return _without_surroundings(WizardConfig.from_tables(kept, file, {}, text=text))


def _without_surroundings(config: WizardConfig) -> WizardConfig:
    """Return a configuration without endpoints, logs and telemetry, which a simulation has no use for."""
    server = ServerConfig(**{name: getattr(config.server, name) for name in BOUNDS})
    return config.changed(server=server, logging=LoggingConfig(), telemetry=TelemetryConfig())


def _unread_dropped(model: object) -> object:
    if not isinstance(model, Mapping):
        return model
    kept = {key: value for key, value in model.items() if key not in UNREAD}
    if isinstance(local := kept.get("local"), Mapping):
        kept["local"] = {key: value for key, value in local.items() if key != "gguf"}
    return kept


def scenario_path(name: str) -> Path:
    """Return where the shipped scenario of that name is; raises `ConfigError` where there is none."""
    if name not in SHIPPED:
        meant = closest(name, SHIPPED)
        hint = f"did you mean `{meant}`?" if meant else f"shipped: {', '.join(SHIPPED)}"
        reason = "there is no such file, and no shipped scenario of this name"
        raise ConfigError([ConfigProblem("", reason, hint)], file=name)
    return Path(str(files(HOME))) / "scenarios" / f"{name}{SUFFIX}"


def _text(path: Path) -> str:
    try:
        return read(path)
    except ConfigError as error:
        # What makes a configuration makes no scenario.
        hint = f"the shipped scenario is called `{path.stem}`" if str(path) in SHIPPED_FILES else ""
        problems = [
            attrs.evolve(each, hint=hint if "wizard init" in each.hint else each.hint) for each in error.problems
        ]
        raise ConfigError(problems, file=error.file) from error


def _config(given: object, file: str | None) -> tuple[WizardConfig | None, list[ConfigProblem]]:
    """Return the configuration, or what is wrong with it."""
    if given is None:
        return None, [ConfigProblem(CONFIG, "is required", INLINE)]
    if isinstance(given, Mapping):
        try:
            return simulated_config(given, file), []
        except ConfigError as error:
            return None, [_inline(problem) for problem in error.problems]
    if not isinstance(given, str):
        return None, [ConfigProblem(CONFIG, f"must be a table or the path of a file, got {described(given)}", INLINE)]
    path = (Path() if file is None else Path(file).parent) / Path(given)
    try:
        text = read(path)
        return simulated_config(parse(text, str(path)), str(path), text), []
    except ConfigError as error:
        return None, [
            attrs.evolve(each, key=CONFIG, reason=f"names {path}{_where(each.key)} {each.reason}")
            for each in error.problems
        ]


def _where(key: str) -> str:
    return f", where `{key}`" if key else ":"


def _inline(problem: ConfigProblem) -> ConfigProblem:
    """Return a problem of a configuration that is part of a scenario, with its keys as they are there."""
    key = f"{CONFIG}.{problem.key}" if problem.key else CONFIG
    return attrs.evolve(problem, key=key, hint=problem.hint.replace("did you mean `", f"did you mean `{CONFIG}."))


def _strangers(tables: Mapping[str, object], config: WizardConfig) -> Sequence[ConfigProblem]:
    """Return where models, regions and routes are named that there are not, among what can be read of a scenario that
    has mistakes elsewhere.
    """
    upstreams = [_readable(table, Upstream, _somewhere(table)) for table in _listed(tables.get("upstreams"))]
    faults = [_readable(table, FaultWindow, FaultWindow(kind="error")) for table in _listed(tables.get("faults"))]
    try:
        Scenario(config=config, upstreams=upstreams, faults=faults, workload=_asking(tables.get("workload")))
    except ConfigError as error:
        return error.problems
    return ()


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _readable(table: object, kind: type[T], otherwise: T) -> T:
    try:
        return structure(cast("Mapping[str, object]", table), kind)
    except (BaseValidationError, BadValue):
        return otherwise


def _somewhere(table: object) -> Upstream:
    """Return any upstream, in the region of one that has mistakes."""
    region = table.get("region") if isinstance(table, Mapping) else None
    return Upstream(model=ANY, region=region if isinstance(region, str) else None)


def _values_of(value: object, path: KeyPath = ()) -> Iterator[tuple[str, object]]:
    """Yield the values within tables that are no tables or lists, each with its key."""
    match value:
        case Mapping():
            inner: Iterable[tuple[str | int, object]] = value.items()
        case list():
            inner = enumerate(value)
        case _:
            yield shown_key(path), value
            return
    for key, each in inner:
        yield from _values_of(each, (*path, key))


def _with_hint(problem: ConfigProblem, value: object) -> ConfigProblem:
    """Return a problem with what to write in the place of a value, where that is plain."""
    name = problem.key.rpartition(".")[2]
    if name in VARYING and _is_time(value):
        return attrs.evolve(problem, hint=f"what varies is a table: `{name} = {{ median = {json.dumps(value)} }}`")
    if isinstance(value, str) and value.startswith("-") and _is_time(value[1:]):
        return attrs.evolve(problem, hint="a duration is not negative")
    return problem


def _is_time(value: object) -> bool:
    try:
        return parse_seconds(value) >= 0
    except BadValue:
        return False


VARYING: Final = frozenset(
    each.name for table in (Upstream, Workload) for each in settings(table) if inner_table(each.type) is Spread
)
"""The settings that hold a `Spread`."""


def _hint(path: KeyPath) -> str:
    return unknown_key(path, TREE)


def _asking(table: object) -> Workload:
    """Return any workload, of the route of one that has mistakes."""
    route = table.get("route") if isinstance(table, Mapping) else None
    return Workload(route=route if isinstance(route, str) else None)


def _tree() -> Tree:
    """Return the keys of a scenario, with all those of its configuration."""
    config = {**tree_of(WizardConfig), "defaults": tree_of(ModelConfig)}
    return {**tree_of(Scenario), CONFIG: config}


TREE: Final = _tree()


# -- writing -----------------------------------------------------------------------------------------------------------


def scenario_to_toml(scenario: Scenario) -> str:
    """Return a scenario as TOML, its configuration inline: only what is not at its default, times in seconds. Reading
    it back gives an equal scenario, but for what simulations do not read: see `scenario_from_toml`.

    Raises `ConfigError` for what TOML cannot hold: nothing (null), in a model's `extra` or `options`.
    """
    if not isinstance(scenario, Scenario):
        raise ConfigError([ConfigProblem("scenario", f"must be a Scenario, got {described(scenario)}")])
    tables = {name: _value(value, (name,)) for name, value in chosen(scenario).items() if name != CONFIG}
    tables[CONFIG] = _config_table(scenario.config)
    return tomli_w.dumps(_values_first(tables))


def _config_table(config: WizardConfig) -> dict[str, object]:
    """Return what is to be written of a configuration."""
    config = _without_surroundings(config)
    everything = tuple(model.name for model in config.models if model.enabled)
    routes = [_table(_as_given(route, everything), (CONFIG, "routes")) for route in config.routes]
    fallback = _table(_as_given(config.fallback, everything), (CONFIG, "fallback"))
    del fallback["name"]
    tables = {
        **{name: _value(value, (CONFIG, name)) for name, value in chosen(config).items() if name not in OWN},
        "models": [
            _unread_dropped(_table(each, (CONFIG, "models", index))) for index, each in enumerate(config.models)
        ],
        "fallback": fallback,
        "routes": routes,
    }
    return {name: table for name, table in tables.items() if table}


def _as_given(route: RouteConfig, everything: tuple[str, ...]) -> RouteConfig:
    """Return a route without its chain where that is all models."""
    return attrs.evolve(route, chain=()) if route.chain == everything else route


def _table(table: attrs.AttrsInstance, path: KeyPath) -> dict[str, object]:
    """Return what is to be written of a table."""
    free = {each.name for each in settings(type(table)) if each.type in FREE}
    return _values_first(
        {
            name: _json(value, (*path, name)) if name in free else _value(value, (*path, name))
            for name, value in chosen(table).items()
        }
    )


def _values_first(table: dict[str, object]) -> dict[str, object]:
    """Return a table with its inner tables last: what stands below a header belongs to that."""
    return dict(sorted(table.items(), key=lambda item: isinstance(item[1], dict)))


def _value(value: object, path: KeyPath) -> object:
    """Return a setting's value as TOML has it."""
    match value:
        case float() if value.is_integer() and abs(value) < EXACT:
            return int(value)
        case tuple():
            return [_value(item, (*path, index)) for index, item in enumerate(value)]
        case Mapping():
            return {key: _value(item, (*path, key)) for key, item in value.items()}
        case Path():
            return str(value)
        case _ if attrs.has(type(value)):
            return _table(cast("attrs.AttrsInstance", value), path)
        case _:
            return value


def _json(value: object, path: KeyPath) -> object:
    """Return a value whose form is free as TOML has it: numbers stay what they are."""
    match value:
        case None:
            reason = "holds nothing (null), which TOML has no word for"
            raise ConfigError([ConfigProblem(shown_key(path), reason, "leave the key out")])
        case Mapping():
            return {key: _json(item, (*path, key)) for key, item in value.items()}
        case list() | tuple():
            return [_json(item, (*path, index)) for index, item in enumerate(value)]
        case _:
            return value
