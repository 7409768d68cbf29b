"""Where sessions are kept, as one text: a scheme, a colon, and the place that it means to whoever keeps them there."""

from typing import Final

from wizard_actors.config.values import BadValue
from wizard_actors.errors import ConfigError
from wizard_actors.plugins import STORAGES, find, names

__all__ = ["STORAGE_SCHEMES", "shown_storage", "storage_url"]

STORAGE_SCHEMES: Final = ("memory", "sqlite", "file")
"""Ours; others are names in the entry point group "wizard_actors.storages"."""

PLACES: Final = {"sqlite": "PATH", "file": "FOLDER"}


def storage_url(_instance: object, _attribute: object, value: str) -> None:
    """Check where sessions are kept. Nothing is repeated of it but a scheme that is known: there may be a password."""
    scheme, colon, place = value.partition(":")
    if not colon or not place.isprintable():
        raise _unknown()
    if scheme == "memory":
        if place:
            raise BadValue('must be "memory:" alone')
    elif scheme in PLACES:
        _check_path(scheme, place)
    elif scheme in names(STORAGES):
        try:
            find(STORAGES, scheme)
        except ConfigError as error:
            raise BadValue(error.problems[0].reason, error.problems[0].hint) from None
    else:
        raise _unknown()


def shown_storage(value: str) -> str:
    """Return what may be shown of where sessions are kept: the place only where a scheme of ours keeps them."""
    scheme, colon, _ = value.partition(":")
    return value if scheme in STORAGE_SCHEMES else f"{scheme}{colon}***"


def _check_path(scheme: str, place: str) -> None:
    if not place.strip():
        raise BadValue(f'must name a path after "{scheme}:"')
    if place.startswith("//"):
        raise BadValue(f'must name a path after "{scheme}:", not a URL', f'"{scheme}:{PLACES[scheme]}", without `//`')
    if place == ":memory:":
        raise BadValue("must name a path", 'write "memory:" for sessions that nothing keeps')


def _unknown() -> BadValue:
    offered = [f'"{name}:..."' for name in names(STORAGES)]
    known = [f'"{scheme}:{PLACES.get(scheme, "")}"' for scheme in STORAGE_SCHEMES]
    *others, last = [*known, *offered]
    return BadValue(f"must be {', '.join(others)} or {last}", "another scheme needs the package that offers it")
