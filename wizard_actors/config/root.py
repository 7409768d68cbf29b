"""The whole configuration, from a file, from the environment or from code.

Annotations in this file must stay objects, not strings: they are what the values are checked against.
"""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import attrs
from attrs import field, frozen

from wizard_actors.config.checks import DEFAULT_ROUTE, NamedModel, NamedRoute, conflicts
from wizard_actors.config.environment import API_KEYS, keys_without_model, models_from_keys
from wizard_actors.config.idle import HEDGED_ONLY, OF_A_MODEL
from wizard_actors.config.listed import listing_of
from wizard_actors.config.load import Loading
from wizard_actors.config.merge import Origin, Origins
from wizard_actors.config.model import ModelConfig
from wizard_actors.config.secret import Secret
from wizard_actors.config.source import parse, read
from wizard_actors.config.strict import Field, KeyPath, chosen, default_of, settings, shown_key, strict
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
from wizard_actors.config.values import closest
from wizard_actors.errors import ConfigError, ConfigProblem, EnvVarError

__all__ = ["Effective", "WizardConfig", "named_model", "named_route"]

N = TypeVar("N", ModelConfig, RouteConfig)


@frozen
class Effective:
    """One setting in force: its key, its value (`***` in place of a secret) and where the value came from."""

    key: str
    value: object
    origin: Origin


def _as_models(models: Sequence[ModelConfig]) -> tuple[ModelConfig, ...]:
    return cast("tuple[ModelConfig, ...]", models)


def _as_routes(routes: Sequence[RouteConfig]) -> tuple[RouteConfig, ...]:
    return cast("tuple[RouteConfig, ...]", routes)


@frozen(kw_only=True, field_transformer=strict)
class WizardConfig:
    """Everything that people can set, checked as a whole: `WizardConfig(models=[ModelConfig(...)])`, or from a file.

    `fallback` is the default route, named "wizard", `routes` the others. Once made, every route's chain is spelled out.

    Raises `ConfigError` with every problem found: names used twice, chains that name no model, models of one
    `rate_limit_group` with different limits, settings without effect, as hedges of a route that does not hedge.
    """

    models: tuple[ModelConfig, ...] = field(converter=_as_models)
    fallback: RouteConfig = field(factory=lambda: RouteConfig(name=DEFAULT_ROUTE))
    routes: tuple[RouteConfig, ...] = field(default=(), converter=_as_routes)
    cache: CacheConfig = field(factory=CacheConfig)
    sessions: SessionsConfig = field(factory=SessionsConfig)
    stream: StreamConfig = field(factory=StreamConfig)
    batch: BatchConfig = field(factory=BatchConfig)
    server: ServerConfig = field(factory=ServerConfig)
    logging: LoggingConfig = field(factory=LoggingConfig)
    telemetry: TelemetryConfig = field(factory=TelemetryConfig)
    supervision: SupervisionConfig = field(factory=SupervisionConfig)
    retry_budget: RetryBudgetConfig = field(factory=RetryBudgetConfig)
    _origins: Origins | None = field(default=None, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        routes = [("fallback", self.fallback), *((f"routes[{i}]", route) for i, route in enumerate(self.routes))]
        models, named = [named_model(model) for model in self.models], [named_route(*each) for each in routes]
        problems = list(conflicts(models, named, {"retry_budget": chosen(self.retry_budget)}))
        if self.fallback.name != DEFAULT_ROUTE:
            problems.append(ConfigProblem("fallback.name", f'must be "{DEFAULT_ROUTE}"', "others go into `routes`"))
        if problems:
            raise ConfigError(problems)
        enabled = tuple(model.name for model in self.models if model.enabled)
        spelled = [route if route.chain else attrs.evolve(route, chain=enabled) for _, route in routes]
        object.__setattr__(self, "fallback", spelled[0])
        object.__setattr__(self, "routes", tuple(spelled[1:]))

    @classmethod
    def load(cls, path: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> Self:
        """Read the TOML file at `path`, and what `env` overrides (default: this process's environment).

        Raises `ConfigError` naming the file, each key and each reason; `EnvVarError` where all that is wrong is one
        environment variable.
        """
        return cls.from_toml(read(Path(path)), file=os.fspath(path), env=env)

    @classmethod
    def from_toml(cls, text: str, file: str | None = None, env: Mapping[str, str] | None = None) -> Self:
        """Read TOML from `text`, as `load` does; `file` is what messages call it."""
        tables = parse(text, file)
        return cls._settle(Loading(cls, tables, os.environ if env is None else env, file, text), env)

    @classmethod
    def from_tables(
        cls, tables: Mapping[str, object], file: str | None = None, env: Mapping[str, str] | None = None, text: str = ""
    ) -> Self:
        """Build it from what a TOML parser made of a file, or of a part of one, as `load` does; `file` is what messages
        call it, `text` the file's own text, for hints about its headers. The tables stay as they are.
        """
        own = copy.deepcopy(dict(tables))
        return cls._settle(Loading(cls, own, os.environ if env is None else env, file, text), env)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Self:
        """Build the chain from the API keys in `env`: OpenAI, Anthropic, Gemini, in this order. OPENAI_BASE_URL and
        ANTHROPIC_BASE_URL are obeyed.

        Raises `EnvVarError` where there is none, `ConfigError` where a WIZARD_* variable is wrong.
        """
        environ = os.environ if env is None else env
        models = models_from_keys(environ)
        if not models:
            reason = f"no API key in the environment: none of {', '.join(API_KEYS)}"
            also = "".join(f"; {seen}" for seen in keys_without_model(environ))
            raise EnvVarError(next(iter(API_KEYS)), key="", reason=reason + also)
        return cls._settle(Loading(cls, {"models": models}, environ, models_from="environment"), env)

    @classmethod
    def _settle(cls, loading: Loading[Self], env: Mapping[str, str] | None) -> Self:
        config = loading.finish()
        models = [attrs.evolve(model, environ=env) for model in config.models]
        return attrs.evolve(config, models=models, origins=loading.origins)

    def model(self, name: str) -> ModelConfig:
        """Return the model of that name; raises ConfigError where there is none."""
        return _named(name, self.models, "models")

    def route(self, name: str) -> RouteConfig:
        """Return the route of that name, "wizard" for the default one; raises ConfigError where there is none."""
        return _named(name, (self.fallback, *self.routes), "routes")

    def routes_as_given(self) -> tuple[RouteConfig, ...]:
        """Return every route, the default one first, without its chain where nobody gave one."""
        everything = tuple(model.name for model in self.models if model.enabled)
        keys = ["fallback.chain", *(f"routes[{index}].chain" for index in range(len(self.routes)))]
        return tuple(
            attrs.evolve(route, chain=()) if route.chain == everything and key not in (self._origins or {}) else route
            for key, route in zip(keys, (self.fallback, *self.routes), strict=True)
        )

    def changed(self, **changes: object) -> Self:
        """Return this configuration with some of its fields replaced; what is new in them comes from code.

        Raises `ConfigError` as the class does.
        """
        new: Any = changes  # each is checked on its way in
        made = attrs.evolve(self, **new)
        if self._origins is None:
            return made
        before = {path: value for path, value, _ in _leaves(self, ())}
        new_leaves = [(path, value, before.get(path, default)) for path, value, default in _leaves(made, ())]
        from_code = [shown_key(path) for path, value, old in new_leaves if value != old]
        return attrs.evolve(made, origins={**self._origins, **dict.fromkeys(from_code, "code")})

    def effective(self) -> Iterator[Effective]:
        """Every setting in force, of every model and table, with its origin; no secret is among the values. Where the
        key comes from the provider's usual variable, that is the `api_key_env` in force.
        """
        usual = {
            f"models[{index}].api_key_env": variable
            for index, model in enumerate(self.models)
            if model.api_key_env is None and (variable := model.key_variable()) is not None
        }
        for path, value, default in _leaves(self, ()):
            key = shown_key(path)
            if key in usual:
                yield Effective(key, usual[key], "environment")
            elif self._origins is None:
                yield Effective(key, value, "default" if value == default else "code")
            else:
                yield Effective(key, value, self._origins.get(key, "default"))


def named_model(model: ModelConfig) -> NamedModel:
    """Return what the checks need of `model`."""
    return NamedModel(
        model.name,
        model.enabled,
        model.rate_limit_group,
        attrs.asdict(model.rate_limit),
        priced=model.price is not None or listing_of(model.provider, model.base_url) is not None,
        tables={name: chosen(getattr(model, name)) for name in OF_A_MODEL},
    )


def named_route(key: str, route: RouteConfig) -> NamedRoute:
    """Return what the checks need of `route`, which stands at `key`."""
    defaults = RouteConfig(name=route.name)
    given = [name for name in HEDGED_ONLY if getattr(route, name) != getattr(defaults, name)]
    return NamedRoute(key, route.name, route.chain, route.strategy, given)


def _named(name: str, things: Sequence[N], key: str) -> N:
    by_name = {thing.name: thing for thing in things}
    if name not in by_name:
        meant = closest(name, by_name)
        hint = f"did you mean {meant!r}?" if meant else f"there are: {', '.join(by_name)}"
        raise ConfigError([ConfigProblem(key, f"hold none named {name!r}", hint)])
    return by_name[name]


def _leaves(table: attrs.AttrsInstance, path: KeyPath) -> Iterator[tuple[KeyPath, object, object]]:
    """Place, presentable value and default of each setting in `table`."""
    for setting in settings(type(table)):
        value = getattr(table, setting.name)
        yield from _within(value, (*path, setting.name), setting, default_of(setting, table))


def _within(
    value: object, path: KeyPath, setting: Field, default: object = attrs.NOTHING
) -> Iterator[tuple[KeyPath, object, object]]:
    if attrs.has(type(value)):
        yield from _leaves(cast("attrs.AttrsInstance", value), path)
    elif isinstance(value, tuple) and value and attrs.has(type(value[0])):
        for index, item in enumerate(value):
            yield from _within(item, (*path, index), setting)
    elif isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _within(item, (*path, key), setting)
    elif isinstance(value, Secret):
        yield path, repr(value), default
    else:
        yield path, setting.repr(value) if callable(setting.repr) and value is not None else value, default
