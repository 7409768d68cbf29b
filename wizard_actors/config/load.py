"""From plain tables to settings: the environment's overrides, `[defaults]` merged into every model, and every problem
found in one go, whichever table it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Generic, TypeVar

import attrs
from attrs import AttrsInstance, define, field
from cattrs.errors import BaseValidationError

from wizard_actors.config.checks import DEFAULT_ROUTE, FAST_NEEDS, NamedModel, NamedRoute, conflicts, model_conflicts
from wizard_actors.config.environment import overrides, set_by
from wizard_actors.config.hints import Tree, tree_of, unknown_key
from wizard_actors.config.idle import OF_A_MODEL, Given, idle, merged
from wizard_actors.config.listed import listing_of
from wizard_actors.config.merge import Origin, Origins, merge_defaults, note
from wizard_actors.config.model import LocalConfig, ModelConfig, RateLimitConfig, usual_variables
from wizard_actors.config.secret import (
    key_from_env,
    key_from_file,
    require_certificates,
    require_file,
    usual_variable,
)
from wizard_actors.config.strict import (
    Field,
    KeyPath,
    check,
    inner_table,
    is_list,
    problems_in,
    settings,
    shown_key,
    structure,
)
from wizard_actors.config.tables import RouteConfig
from wizard_actors.config.values import BadValue, described
from wizard_actors.errors import ConfigError, ConfigProblem, EnvVarError

__all__ = ["Loading"]

C = TypeVar("C", bound=AttrsInstance)

REQUIRED: Final = "is required"
NAMED_FALLBACK: Final = ConfigProblem(
    "fallback.name", "is unknown", f'the default route is always "{DEFAULT_ROUTE}"; others stand in `[[routes]]`'
)
NAMED_DEFAULTS: Final = ConfigProblem("defaults.name", "is unknown", "each model has a name of its own")


@define(eq=False, repr=False)
class Loading(Generic[C]):
    """One configuration while it is put together; `finish` returns it, or raises everything that is wrong with it.

    `schema` is the class of the whole configuration, `tables` what a file holds (they are used up), `text` the file's
    own text, for hints about its headers, `models_from` what gave the models. `origins` says afterwards where each
    value came from.
    """

    schema: type[C]
    tables: dict[str, object]
    env: Mapping[str, str]
    file: str | None = None
    text: str = ""
    models_from: Origin = "model"
    origins: Origins = field(factory=dict)
    _problems: dict[ConfigProblem, str | None] = field(factory=dict)
    """In the order in which they were found, each once, with the variable that is to hold a key and does not."""

    _inherited: set[str] = field(factory=set)
    """The keys of models whose values come from `[defaults]`."""

    _variables: dict[str, str] = field(factory=dict)
    """By key, the variables that override settings."""

    def finish(self) -> C:
        """Return the configuration; raises `ConfigError`, or `EnvVarError` where one variable is the only problem."""
        self._note_origins()
        self._apply_environment()
        self._check_defaults()
        self._name_fallback()
        self._merge_defaults()
        made = self._structure()
        named = self._named_models()
        if named is not None:
            self._add_new(conflicts(named, self._named_routes(), self._single_tables()))
        for index, model in self._tables_in("models"):
            self._check_model(index, model)
        if made is None or self._problems:
            raise self._error()
        return made

    def _error(self) -> ConfigError:
        (problem, variable), *others = self._problems.items()
        if variable is not None and not others:
            return EnvVarError(variable, key=problem.key, file=self.file, reason=problem.reason)
        return ConfigError(list(self._problems), file=self.file)

    def _add(self, problems: Iterator[ConfigProblem]) -> None:
        for problem in problems:
            variable = self._variables.get(problem.key)
            reason = problem.reason if variable is None else set_by(variable, BadValue(problem.reason)).reason
            self._problems.setdefault(attrs.evolve(problem, reason=reason))

    def _add_new(self, problems: Iterator[ConfigProblem]) -> None:
        """Add what is wrong with settings that are right by themselves."""
        known = {problem.key for problem in self._problems}
        self._add(problem for problem in problems if problem.key not in known)

    # -- what the tables hold, as far as they can be read -------------------------------------------------------------

    def _table(self, name: str) -> dict[str, object]:
        value = self.tables.get(name)
        return value if isinstance(value, dict) else {}

    def _tables_in(self, name: str) -> Iterator[tuple[int, dict[str, object]]]:
        listed = self.tables.get(name)
        for index, table in enumerate(listed if isinstance(listed, list) else ()):
            yield index, table if isinstance(table, dict) else {}

    def _sections(self) -> dict[str, type[AttrsInstance]]:
        single = ((each.name, inner_table(each.type)) for each in settings(self.schema) if not is_list(each.type))
        return {"defaults": ModelConfig, **{name: table for name, table in single if table is not None}}

    @cached_property
    def _tree(self) -> Tree:
        tree: Tree = {**tree_of(self.schema), "defaults": tree_of(ModelConfig)}
        for table in (tree["defaults"], tree["fallback"]):
            (table or {}).pop("name", None)
        return tree

    def _hint(self, path: KeyPath) -> str:
        return unknown_key(path, self._tree, self.text)

    # -- the steps ----------------------------------------------------------------------------------------------------

    def _note_origins(self) -> None:
        for section, value in self.tables.items():
            note(self.origins, value, (section,), lambda path: "defaults" if path[0] == "defaults" else "file")

    def _apply_environment(self) -> None:
        found, problems = overrides(self.env, self._sections())
        self._add(iter(problems))
        given: dict[KeyPath, dict[str, object]] = {}
        for override in found:
            given.setdefault(override.path[:-1], {})[str(override.path[-1])] = override.value
            self._variables[shown_key(override.path)] = override.variable
        for path, values in given.items():
            table: object = self.tables
            for part in path:
                table = table.setdefault(part, {}) if isinstance(table, dict) else None
            if isinstance(table, dict):
                self._override(path, table, values)

    def _override(self, path: KeyPath, table: dict[str, object], values: Given) -> None:
        """Put the environment's `values` into the file's `table`; what they switch off there goes with them."""
        kept = merged(str(path[-1]), table, values)
        for key in table.keys() - kept.keys():
            del self.origins[shown_key((*path, key))]
        table.clear()
        table.update(kept)
        self.origins |= {shown_key((*path, key)): "environment" for key in values}

    def _check_defaults(self) -> None:
        """Report mistakes in `[defaults]` once, there, and not in every model."""
        value = self.tables.setdefault("defaults", {})
        if not isinstance(value, dict):
            self._add(problems_in(BadValue(f"must be a table, got {described(value)}"), ("defaults",)))
        known = {each.name: each for each in settings(ModelConfig)}
        for key, default in self._table("defaults").items():
            if key == "name":
                self._problems.setdefault(NAMED_DEFAULTS)
            elif key in known:
                self._try_default(("defaults", key), known[key], default)
            else:
                path = ("defaults", key)
                self._problems.setdefault(ConfigProblem(shown_key(path), "is unknown", self._hint(path)))

    def _try_default(self, path: KeyPath, setting: Field, default: object) -> None:
        try:
            check(setting, default)
        except (BadValue, BaseValidationError) as error:
            # What a table of defaults lacks may stand in the models.
            found = problems_in(error, path, self._hint)
            self._add(problem for problem in found if problem.reason != REQUIRED)

    def _name_fallback(self) -> None:
        table = self.tables.setdefault("fallback", {})
        if isinstance(table, dict):
            if "name" in table:
                self._problems.setdefault(NAMED_FALLBACK)
            table["name"] = DEFAULT_ROUTE

    def _merge_defaults(self) -> None:
        defaults = self._table("defaults")
        del self.tables["defaults"]
        models = self.tables.setdefault("models", [])
        if not isinstance(models, list):
            return
        for index, model in enumerate(models):
            if isinstance(model, dict):
                models[index], keys = merge_defaults(defaults, model, index, self.origins, self.models_from)
                self._inherited |= keys
        self._add_new(self._idle_defaults(defaults))

    def _idle_defaults(self, defaults: Given) -> Iterator[ConfigProblem]:
        """Find the defaults that have an effect in no model."""
        for name in OF_A_MODEL:
            table = defaults.get(name)
            for problem in idle(name, table) if isinstance(table, Mapping) else ():
                places = (shown_key(("models", index, name, problem.key)) for index, _ in self._tables_in("models"))
                if self._inherited.isdisjoint(places):
                    yield attrs.evolve(problem, key=shown_key(("defaults", name, problem.key)))

    def _structure(self) -> C | None:
        try:
            return structure(self.tables, self.schema)
        except BaseValidationError as error:
            found = problems_in(error, hint=self._hint)
            self._add(problem for problem in found if problem.key not in self._inherited)
            return None

    # -- what no single value shows -----------------------------------------------------------------------------------

    def _named_models(self) -> list[NamedModel] | None:
        if not isinstance(self.tables.get("models"), list):
            return None
        return [
            NamedModel(
                _text(model.get("name")),
                enabled=model.get("enabled") is not False,
                group=_text(model.get("rate_limit_group")),
                limits=_limits(model.get("rate_limit", {})),
                priced=model.get("price") is not None
                or listing_of(model.get("provider"), model.get("base_url")) is not None,
                tables={name: given for name in OF_A_MODEL if isinstance(given := model.get(name), dict)},
            )
            for _, model in self._tables_in("models")
        ]

    def _named_routes(self) -> list[NamedRoute]:
        routes = [("fallback", self._table("fallback"))]
        routes += [(f"routes[{index}]", route) for index, route in self._tables_in("routes")]
        for key, route in routes:
            if route.get("chain") == []:
                self._problems.setdefault(ConfigProblem(f"{key}.chain", "is empty", "leave it out for all models"))
        return [
            NamedRoute(key, _text(route.get("name")), _texts(route.get("chain")), _strategy(route), route)
            for key, route in routes
        ]

    def _single_tables(self) -> dict[str, Given]:
        """Return what was set in the tables that no model and no route has."""
        return {name: self._table(name) for name in self._sections() if name not in {"defaults", "fallback"}}

    def _check_model(self, index: int, model: dict[str, object]) -> None:
        path = ("models", index)
        for conflict in model_conflicts(model):
            self._blame(f"{shown_key(path)}.{conflict.key}", BadValue(conflict.reason, conflict.hint))
        if model.get("enabled") is False:
            return
        self._check_variable((*path, "api_key_env"), model)
        self._check_file((*path, "api_key_file"), model, ModelConfig, key_from_file)
        self._check_file((*path, "ca_file"), model, ModelConfig, require_certificates)
        if model.get("transport") == "fast" and find_spec("httptools") is None:
            self._blame(shown_key((*path, "transport")), BadValue(*FAST_NEEDS))
        local = model.get("local")
        if isinstance(local, dict):
            self._check_file((*path, "local", "gguf"), local, LocalConfig, require_file)

    def _check_variable(self, path: KeyPath, model: Mapping[str, object]) -> None:
        variable = _admitted(ModelConfig, "api_key_env", model)
        usual = not isinstance(variable, str) and model.keys().isdisjoint(("api_key_env", "api_key_file"))
        if usual:
            variable = usual_variable(usual_variables(model.get("provider"), model.get("base_url")), self.env)
        if isinstance(variable, str):
            try:
                key_from_env(variable, self.env, usual=usual)
            except BadValue as bad:
                self._blame(shown_key(path), bad, variable)

    def _check_file(
        self,
        path: KeyPath,
        table: Mapping[str, object],
        kind: type[AttrsInstance],
        check_file: Callable[[Path], object],
    ) -> None:
        file = _admitted(kind, path[-1], table)
        if isinstance(file, Path):
            try:
                check_file(file)
            except BadValue as bad:
                self._blame(shown_key(path), bad)

    def _blame(self, key: str, bad: BadValue, variable: str | None = None) -> None:
        """Report a value where it was given: in its own table, in `[defaults]`, or by a variable."""
        if key in self._inherited:
            key = f"defaults{key[key.index('.') :]}"  # from "models[0].ca_file"
        if key in self._variables:
            bad = set_by(self._variables[key], bad)
        self._problems.setdefault(ConfigProblem(key, bad.reason, bad.hint), variable)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _limits(table: object) -> Mapping[str, object] | None:
    try:
        return attrs.asdict(structure(table, RateLimitConfig)) if isinstance(table, Mapping) else None
    except BaseValidationError:
        return None


def _strategy(route: Mapping[str, object]) -> str | None:
    return _text(_admitted(RouteConfig, "strategy", {"strategy": "sequential", **route}))


def _admitted(kind: type[AttrsInstance], key: str | int, table: Mapping[str, object]) -> object:
    """Return the setting's value, None where it is absent or wrong (which is reported elsewhere)."""
    setting = next(each for each in settings(kind) if each.name == key)
    try:
        return check(setting, table.get(setting.name))
    except BadValue:
        return None
