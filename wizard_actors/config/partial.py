"""Some settings of a table, as code gives them over what a file or the defaults say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from attrs import AttrsInstance
from cattrs.errors import BaseValidationError

from wizard_actors.config.hints import tree_of, unknown_key
from wizard_actors.config.strict import KeyPath, check, default_of, problems_in, settings, structure
from wizard_actors.config.values import BadValue
from wizard_actors.errors import ConfigError, ConfigProblem

__all__ = ["admitted", "all_of", "chosen", "made", "overlaid"]

T = TypeVar("T", bound=AttrsInstance)


def admitted(table: type[AttrsInstance], given: Mapping[str, object]) -> tuple[dict[str, object], list[ConfigProblem]]:
    """Return the settings in `given` as `table` takes them, and what is wrong with the others."""
    fields = {each.name: each for each in settings(table)}
    values: dict[str, object] = {}
    problems: list[ConfigProblem] = []

    def hint(path: KeyPath) -> str:
        return unknown_key(path, tree_of(table))

    for name, value in given.items():
        if name not in fields:
            problems.append(ConfigProblem(name, "is unknown", hint((name,))))
            continue
        try:
            values[name] = check(fields[name], value)
        except (BadValue, BaseValidationError) as found:
            problems.extend(problems_in(found, (name,), hint))
    return values, problems


def made(table: type[T], given: Mapping[str, object]) -> T:
    """Return the whole `table`; raises `ConfigError` with everything that is wrong."""
    try:
        return structure(given, table)
    except BaseValidationError as found:
        problems = list(problems_in(found, hint=lambda path: unknown_key(path, tree_of(table))))
    raise ConfigError(problems)


def overlaid(table: T, given: Mapping[str, object]) -> T:
    """Return `table` with some other settings; raises `ConfigError` with everything that is wrong."""
    return made(type(table), {**all_of(table), **given})


def all_of(table: AttrsInstance) -> dict[str, object]:
    """Return every setting of `table`."""
    return {each.name: getattr(table, each.name) for each in settings(type(table))}


def chosen(table: AttrsInstance) -> dict[str, object]:
    """Return the settings of `table` that are not at their defaults."""
    defaults = {each.name: default_of(each, table) for each in settings(type(table))}
    return {name: value for name, value in all_of(table).items() if value != defaults[name]}
