"""Some settings of a table, as code gives them over what a file or the defaults say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from attrs import AttrsInstance
from cattrs.errors import BaseValidationError

from wizard_actors.config.hints import tree_of, unknown_key
from wizard_actors.config.strict import KeyPath, all_of, check, problems_in, settings, structure
from wizard_actors.config.values import BadValue
from wizard_actors.errors import ConfigError, ConfigProblem

__all__ = ["admitted", "made", "overlaid"]

T = TypeVar("T", bound=AttrsInstance)


def admitted(
    table: type[AttrsInstance], given: Mapping[str, object], name: str = ""
) -> tuple[dict[str, object], list[ConfigProblem]]:
    """Return the settings in `given` as `table`, of that name, takes them, and what is wrong with the others."""
    fields = {each.name: each for each in settings(table)}
    values: dict[str, object] = {}
    problems: list[ConfigProblem] = []

    def hint(path: KeyPath) -> str:
        return unknown_key(path, tree_of(table), table=name)

    for key, value in given.items():
        if key not in fields:
            problems.append(ConfigProblem(key, "is unknown", hint((key,))))
            continue
        try:
            values[key] = check(fields[key], value)
        except (BadValue, BaseValidationError) as found:
            problems.extend(problems_in(found, (key,), hint))
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
