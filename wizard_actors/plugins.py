"""What other packages offer: objects named in entry points, found and loaded when a configuration asks for one.

A package says in its own `pyproject.toml`

    [project.entry-points."wizard_actors.providers"]
    acme = "acme_wizard:make_provider"

and `provider = "acme"` is a provider from then on. Nothing is looked for, let alone imported, until a configuration
holds a name that is not built in: every look goes through all installed packages, which takes some milliseconds.
Built-in names are never looked up here, so that no package can take one over.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from typing import Final

from attrs import frozen

from wizard_actors.errors import ConfigError, ConfigProblem

__all__ = ["PROVIDERS", "STORAGES", "STRATEGIES", "Offer", "find", "load", "names"]

PROVIDERS: Final = "wizard_actors.providers"
"""The group of what makes providers: each is a `wizard_actors.providers.base.ProviderFactory`."""

STORAGES: Final = "wizard_actors.storages"
"""The group of what opens storages of sessions: each is a function of a place that returns an async context manager of
a `wizard_actors.storage.base.SessionStorage`.
"""

STRATEGIES: Final = "wizard_actors.strategies"
"""The group of strategies of routes."""

NAMELESS: Final = "of unknown name"


@frozen
class Offer:
    """One entry point: what `package` offers in `group` under `name`, at `target` ("module:attribute")."""

    group: str
    name: str
    package: str
    target: str

    def __str__(self) -> str:
        return f"the entry point {self.name} = {self.target!r} of the package {self.package}"


def names(group: str) -> tuple[str, ...]:
    """Return the names that installed packages offer in `group`, sorted, each once; nothing is imported.

    Raises `ConfigError` where the entry points of a package cannot be read, of whatever group.
    """
    return tuple(sorted({each.name for each in _offered(group, "")}))


def find(group: str, name: str, *, key: str = "") -> Offer:
    """Return the one offer of `name` in `group`; nothing is imported.

    Raises `ConfigError`, about the setting `key`, where no package offers the name, or several do, and where the entry
    points of a package cannot be read.
    """
    return _offer(_found(group, name, key))


def load(group: str, name: str, *, key: str = "") -> object:
    """Import what is offered in `group` as `name`, and return it.

    Raises `ConfigError`, about the setting `key`: where no package offers the name; where several do, naming them,
    for which one is meant nobody can tell; where the entry points of a package cannot be read; and where the import
    fails, chained from what it raised.
    """
    found = _found(group, name, key)
    try:
        return found.load()
    except Exception as error:
        raise _problem(
            key,
            f"names {name!r}, {_offer(found)}, which cannot be loaded: {type(error).__name__}: {error}",
            f"repair or reinstall {_package(found)}",
        ) from error


def _offered(group: str, key: str) -> Sequence[EntryPoint]:
    """Return the entry points of `group`."""
    try:
        return tuple(entry_points(group=group))
    except Exception as error:  # one file is not as it should be, and all are read together
        reason = f"cannot be looked up: the entry points of {_unreadable()} cannot be read"
        said = f"{reason}: {type(error).__name__}: {error}"
        raise _problem(key or group, said, "repair or uninstall that package") from error


def _unreadable() -> str:
    """Return the first package whose entry points or name cannot be read."""
    for package in distributions():
        name, readable = NAMELESS, False
        with suppress(Exception):  # which one it is has been told by whoever reads them all
            name = _name(package)
            readable = name != NAMELESS and all(isinstance(each.name, str) for each in package.entry_points)
        if not readable:
            return f"the package {name}, in {package.locate_file('')},"
    return "an installed package"


def _found(group: str, name: str, key: str) -> EntryPoint:
    """Return the entry point of that name, of the one package that has it."""
    by_package = {_package(each): each for each in _offered(group, key) if each.name == name}
    if not by_package:
        known = ", ".join(map(repr, names(group))) or "none"
        raise _problem(key, f"names {name!r}, which no installed package offers in {group!r}", f"offered: {known}")
    if len(by_package) > 1:
        offers = " and ".join(str(_offer(each)) for _, each in sorted(by_package.items()))
        raise _problem(
            key, f"names {name!r}, which several packages offer in {group!r}: {offers}", "uninstall all but one"
        )
    return next(iter(by_package.values()))


def _offer(found: EntryPoint) -> Offer:
    return Offer(found.group, found.name, _package(found), found.value)


def _package(found: EntryPoint) -> str:
    return NAMELESS if found.dist is None else _name(found.dist)


def _name(package: Distribution) -> str:
    found = package.metadata
    return found["Name"] if "Name" in found else NAMELESS  # noqa: SIM401 - its type has no `get` before Python 3.12


def _problem(key: str, reason: str, hint: str) -> ConfigError:
    return ConfigError([ConfigProblem(key, reason, hint)])
