"""What a builder was given, part by part, and the configuration that the parts add up to."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Self, TypeAlias

import attrs
from attrs import AttrsInstance, define, field, frozen

from wizard_actors.config.checks import DEFAULT_ROUTE, NamedModel, NamedRoute, conflicts
from wizard_actors.config.idle import HEDGED_ONLY, OF_A_MODEL, Given, idle, merged
from wizard_actors.config.model import BreakerConfig, ModelConfig, RateLimitConfig, RetryConfig, TimeoutsConfig
from wizard_actors.config.partial import admitted, made, overlaid
from wizard_actors.config.root import WizardConfig, named_model, named_route
from wizard_actors.config.strict import all_of, chosen, settings
from wizard_actors.config.tables import (
    BatchConfig,
    CacheConfig,
    LoggingConfig,
    RetryBudgetConfig,
    RouteConfig,
    ServerConfig,
    SessionsConfig,
    StreamConfig,
    SupervisionConfig,
    TelemetryConfig,
)
from wizard_actors.config.values import closest, described
from wizard_actors.errors import ConfigError, ConfigProblem

__all__ = ["EVERY_MODEL", "SHARED", "Given", "Parts", "Source", "given_twice"]

Source: TypeAlias = WizardConfig | str | os.PathLike[str]

EVERY_MODEL: Final[Mapping[str, type[AttrsInstance]]] = {
    "timeouts": TimeoutsConfig,
    "retry": RetryConfig,
    "circuit_breaker": BreakerConfig,
    "rate_limit": RateLimitConfig,
}
"""The tables of a model that can be given for all of them at once."""

SHARED: Final[Mapping[str, type[AttrsInstance]]] = {
    "cache": CacheConfig,
    "sessions": SessionsConfig,
    "stream": StreamConfig,
    "batch": BatchConfig,
    "server": ServerConfig,
    "logging": LoggingConfig,
    "telemetry": TelemetryConfig,
    "supervision": SupervisionConfig,
    "retry_budget": RetryBudgetConfig,
}
"""The tables that a configuration has once."""

TABLES: Final[Mapping[str, type[AttrsInstance]]] = {**EVERY_MODEL, **SHARED, "fallback": RouteConfig}
A_MODEL: Final = re.compile(r"models\[([0-9]+)\]")


@frozen(eq=False)
class Parts:
    """What was given so far, by table; `settle` makes a configuration of it. Parts never change.

    A setting that was given twice with different values is kept as a problem, for `settle` to raise with the others.
    """

    source: Source | None = None
    models: tuple[ModelConfig | Given, ...] = field(default=(), repr=False)
    routes: Mapping[str, Given] = field(factory=dict, repr=False)
    tables: Mapping[str, Given] = field(factory=dict, repr=False)
    problems: tuple[ConfigProblem, ...] = ()

    def calls(self) -> list[str]:
        """Return the methods that gave the parts, without any value."""
        called = [] if self.source is None else ["with_config()"]
        return [*called, *map(_model_call, self.models), *map(_call, self.tables), *map(_route_call, self.routes)]

    def with_problems(self, problems: Sequence[ConfigProblem]) -> Self:
        """Add what else is wrong."""
        return attrs.evolve(self, problems=(*self.problems, *problems))

    def with_table(self, name: str, whole: AttrsInstance | None, given: Given) -> Self:
        """Add some settings of the table `name`, or the `whole` of it."""
        before = self.tables.get(name, {})
        filled = {**before, **({} if whole is None else all_of(whole))}
        clashes = [
            *_clashes(_call(name), TABLES[name], before, filled),
            *_clashes(_call(name), TABLES[name], filled, given),
        ]
        return attrs.evolve(self, tables={**self.tables, name: {**filled, **given}}).with_problems(clashes)

    def with_route(self, name: str, given: Given) -> Self:
        """Add some settings of the route `name`."""
        before = self.routes.get(name, {})
        clashes = list(_clashes(_route_call(name), RouteConfig, before, given))
        return attrs.evolve(self, routes={**self.routes, name: {**before, **given}}).with_problems(clashes)

    def with_source(self, source: Source) -> Self:
        """Start from `source`."""
        given: object = source  # a program without a type checker may give anything
        if not isinstance(given, (WizardConfig, str, os.PathLike)):
            reason = f"must get a configuration or the path of a file, got {described(given)}"
            return self.with_problems([ConfigProblem("with_config()", reason, "leave it out for none")])
        before = self.source
        found = [] if before is None or before == source else [given_twice("with_config()")]
        return attrs.evolve(self, source=source if before is None else before).with_problems(found)

    def settle(self, providers: Collection[str]) -> WizardConfig:
        """Return the configuration, of which some models have `providers` of the caller's own.

        Raises `ConfigError` with everything that is wrong, `EnvVarError` where there is no model and no API key.
        """
        if self.source is None and any(problem.key == "with_config()" for problem in self.problems):
            raise ConfigError(list(dict.fromkeys(self.problems)))  # without it nothing else can be judged
        if isinstance(self.source, WizardConfig):
            base: WizardConfig | None = self.source
        elif self.source is not None:
            base = WizardConfig.load(self.source)
        else:
            base = None if self.models else WizardConfig.from_env()
        return _Settling(self, base, list(self.problems)).config(providers)


@define(eq=False)
class _Settling:
    parts: Parts
    base: WizardConfig | None
    problems: list[ConfigProblem]

    def config(self, providers: Collection[str]) -> WizardConfig:
        models, routes, shared = self._models(), self._routes(), self._shared()
        named = [each if isinstance(each, NamedModel) else named_model(each) for each in models]
        self.problems += [self._renamed(problem) for problem in conflicts(named, [at for at, _ in routes], {})]
        self.problems += _strangers(providers, named)
        if self.problems:
            raise ConfigError(list(dict.fromkeys(self.problems)))
        fallback, *others = (route for _, route in routes)
        changes = {"models": models, "fallback": fallback, "routes": others, **shared}
        return made(WizardConfig, changes) if self.base is None else self.base.changed(**changes)

    def _blame(self, call: str, problems: Sequence[ConfigProblem]) -> None:
        self.problems += [attrs.evolve(problem, key=f"{call}.{problem.key}") for problem in problems]

    # -- models

    def _models(self) -> list[ModelConfig | NamedModel]:
        """Return every model; of one that is wrong, its name."""
        every = {name: self._values(name) for name in EVERY_MODEL if name in self.parts.tables}
        models: list[ModelConfig | NamedModel] = (
            [] if self.base is None else [_over_tables(model, every) for model in self.base.models]
        )
        for each in self.parts.models:
            try:
                model = each if isinstance(each, ModelConfig) else made(ModelConfig, each)
            except ConfigError as error:
                self._blame(_model_call(each), error.problems)
                models.append(NamedModel(_name_of(each), enabled=True))
            else:
                models.append(_under_tables(model, every, {name: _own(each, name) for name in every}))
        for name in every.keys() & set(OF_A_MODEL):
            readable = [getattr(model, name) for model in models if isinstance(model, ModelConfig)]
            if len(readable) == len(models):
                self._find_idle(name, every[name], readable)
        return models

    def _find_idle(self, name: str, given: Given, in_force: Sequence[AttrsInstance]) -> None:
        """Blame what is for every model, and has an effect in none. What cannot be read is blamed already."""
        defaults = {each.name: each.default for each in settings(TABLES[name])}
        said = {key: value for key, value in {**self.parts.tables[name], **given}.items() if value != defaults.get(key)}
        unused = [
            problem
            for problem in idle(name, said)
            if problem.key in given and not any(getattr(table, problem.key) == said[problem.key] for table in in_force)
        ]
        self._blame(_call(name), unused)

    def _values(self, name: str) -> dict[str, object]:
        values, problems = admitted(TABLES[name], self.parts.tables[name], name)
        self._blame(_call(name), problems)
        return values

    def _renamed(self, problem: ConfigProblem) -> ConfigProblem:
        """Return a problem that names a model by its place as one that names it by its method."""
        first = 0 if self.base is None else len(self.base.models)

        def name(found: re.Match[str]) -> str:
            index = int(found[1]) - first
            return found[0] if index < 0 else _model_call(self.parts.models[index])

        key, reason = A_MODEL.sub(name, problem.key), A_MODEL.sub(name, problem.reason)
        if reason.endswith(f"as is `{key}`"):  # both are the method of that name
            reason = "is the name of two models that were added"
        return attrs.evolve(problem, key=key, reason=reason)

    # -- routes

    def _routes(self) -> list[tuple[NamedRoute, RouteConfig]]:
        """Return every route, the default one first, with where it comes from."""
        default = RouteConfig(name=DEFAULT_ROUTE)
        fallback, *others = (default,) if self.base is None else self.base.routes_as_given()
        routes = [self._route("fallback", _call("fallback"), fallback, self.parts.tables.get("fallback"))]
        for index, route in enumerate(others):
            changes = self.parts.routes.get(route.name)
            routes.append(self._route(f"routes[{index}]", _route_call(route.name), route, changes))
        known = {route.name for route in others}
        for name, given in self.parts.routes.items():
            if name in known:
                continue
            try:
                route = RouteConfig(name=name)
            except ConfigError as error:
                self._blame(_route_call(name), error.problems)
            else:
                routes.append(self._route("", _route_call(name), route, given))
        return routes

    def _route(self, key: str, call: str, route: RouteConfig, given: Given | None) -> tuple[NamedRoute, RouteConfig]:
        if given is None:
            return named_route(key, route), route
        values, problems = admitted(RouteConfig, given)
        if values.pop("name", None) is not None:
            problems.append(ConfigProblem("name", "is unknown", "a route's name is the first argument of `with_route`"))
        self._blame(call, problems)
        if values.get("strategy", "hedged") != "hedged":
            # Another strategy than the file's takes the file's hedges with it.
            defaults = chosen(route).keys() & set(HEDGED_ONLY)
            values = {**{name: attrs.fields_dict(RouteConfig)[name].default for name in defaults}, **values}
        changed = overlaid(route, values)
        named = named_route(call, changed)
        return attrs.evolve(named, given={*named.given, *given}), changed

    # -- the rest

    def _shared(self) -> dict[str, AttrsInstance]:
        return {
            name: table
            for name in SHARED
            if name in self.parts.tables and (table := self._shared_table(name)) is not None
        }

    def _shared_table(self, name: str) -> AttrsInstance | None:
        found = len(self.problems)
        values = self._values(name)
        before: AttrsInstance = SHARED[name]() if self.base is None else getattr(self.base, name)
        if isinstance(before, CacheConfig) and not before.max_entries and "max_entries" not in self.parts.tables[name]:
            reason, hint = "leaves the cache off", "say how many answers it may hold: `max_entries`"
            self.problems.append(ConfigProblem(_call(name), reason, hint))
        if len(self.problems) > found:
            return None
        try:
            table = made(SHARED[name], merged(name, chosen(before), values))
        except ConfigError as error:
            self._blame(_call(name), error.problems)
            return None
        self._blame(_call(name), list(idle(name, chosen(table))))
        return table


def _call(name: str) -> str:
    return f"with_{name}()"


def _route_call(name: str) -> str:
    return f"with_route({name!r})"


def _model_call(model: ModelConfig | Given) -> str:
    name = _name_of(model)
    return "with_model()" if name is None else f"with_model({name!r})"


def _name_of(model: ModelConfig | Given) -> str | None:
    name = model.name if isinstance(model, ModelConfig) else model.get("name")
    return name if isinstance(name, str) else None


def _own(model: ModelConfig | Given, name: str) -> Collection[str]:
    """Return what a model says itself in its table `name`."""
    if isinstance(model, ModelConfig):
        return chosen(getattr(model, name))
    table: Any = model.get(name, {})  # the table or its keys: the model has been made of it
    return chosen(table) if isinstance(table, TABLES[name]) else table


def _over_tables(model: ModelConfig, every: Mapping[str, Given]) -> ModelConfig:
    """Return `model` with the settings for every model in place of its own."""
    return _with_tables(model, {name: (chosen(getattr(model, name)), given) for name, given in every.items()}, every)


def _under_tables(model: ModelConfig, every: Mapping[str, Given], own: Mapping[str, Collection[str]]) -> ModelConfig:
    """Return `model` with the settings for every model where it has no `own` ones."""
    tables = {
        name: (given, {key: getattr(getattr(model, name), key) for key in own[name]}) for name, given in every.items()
    }
    others = {name: {key: given[key] for key in given if key not in own[name]} for name, given in every.items()}
    return _with_tables(model, tables, others)


def _with_tables(
    model: ModelConfig, tables: Mapping[str, tuple[Given, Given]], every: Mapping[str, Given]
) -> ModelConfig:
    """Return `model` with `tables`, each a lower and an upper one, without what is for every model and idle here."""
    changed: dict[str, object] = {}
    for name, (lower, upper) in tables.items():
        both = merged(name, lower, upper)
        idle_here = {problem.key for problem in idle(name, both)} & every[name].keys()
        changed[name] = made(TABLES[name], {key: value for key, value in both.items() if key not in idle_here})
    new: Any = changed
    return attrs.evolve(model, **new) if changed else model


def given_twice(key: str) -> ConfigProblem:
    """Return the problem of what got two different values."""
    return ConfigProblem(key, "is given twice, with different values", "keep one of them")


def _clashes(call: str, table: type[AttrsInstance], before: Given, now: Given) -> Iterator[ConfigProblem]:
    """Find what is given again with another value; "30s" and 30 are one."""
    both = [name for name in now if name in before and before[name] is not now[name]]
    old, _ = admitted(table, {name: before[name] for name in both})
    new, _ = admitted(table, {name: now[name] for name in both})
    for name in both:
        if old.get(name, before[name]) != new.get(name, now[name]):
            yield given_twice(f"{call}.{name}")


def _strangers(providers: Collection[str], models: Sequence[NamedModel]) -> Iterator[ConfigProblem]:
    names = [model.name for model in models if model.name is not None]
    for provider in providers:
        if provider not in names:
            meant = closest(provider, names)
            hint = f"did you mean {meant!r}?" if meant else f"models: {', '.join(map(repr, names))}"
            yield ConfigProblem("with_providers()", f"names no model: {provider!r}", hint)
