"""What the strategies are given, checked when they are made: what goes wrong while an example is drawn is told with it.

Each check names the `strategy` and the `key` that was given wrongly in a `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

from wizard_actors.config.values import BadValue, closest, described, parse_seconds
from wizard_actors.errors import ConfigError, ConfigProblem

__all__ = ["chosen_from", "names", "one_of", "seconds", "whole"]

Name = TypeVar("Name", bound=str)


def names(strategy: str, key: str, given: Sequence[Name]) -> tuple[Name, ...]:
    """Return a list of names that has one at least."""
    listed = cast("object", given)
    if isinstance(listed, str):
        raise _wrong(strategy, key, "must be a list of names, got a text", f"write [{listed!r}]")
    if not isinstance(listed, Iterable):
        raise _wrong(strategy, key, f"must be a list of names, got {described(listed)}", 'such as ["primary"]')
    kept = tuple(given)
    for name in kept:
        if not isinstance(cast("object", name), str):
            raise _wrong(strategy, key, f"must be a list of names, got {described(name)} in it", 'such as ["primary"]')
    if not kept:
        raise _wrong(strategy, key, "must have a name at least, got none", "there would be nothing to draw from")
    return kept


def chosen_from(strategy: str, key: str, given: Sequence[Name], known: Sequence[Name]) -> tuple[Name, ...]:
    """Return a list of names, all of which are `known`."""
    return tuple(one_of(strategy, key, name, known) for name in names(strategy, key, given))


def one_of(strategy: str, key: str, given: Name, known: Sequence[Name]) -> Name:
    """Return a name that is `known`."""
    if given not in known:
        shown = repr(given) if isinstance(cast("object", given), str) else described(given)
        meant = closest(given, known)
        there = f"there are: {', '.join(sorted(known))}"
        hint = there if meant is None else f'did you mean "{meant}"? {there}'
        raise _wrong(strategy, key, f"names none that there is: {shown}", hint)
    return given


def seconds(strategy: str, key: str, given: float) -> float:
    """Return a time, above 0: a number of seconds, or a text such as "30s"."""
    try:
        lasts = parse_seconds(given)
    except BadValue as bad:
        raise _wrong(strategy, key, bad.reason, bad.hint) from None
    if lasts <= 0:
        raise _wrong(strategy, key, f"must be above 0, got {described(lasts)}", "it is in seconds")
    return lasts


def whole(strategy: str, key: str, given: int, most: int) -> int:
    """Return a whole number from 1 to `most`."""
    if isinstance(given, bool) or not isinstance(cast("object", given), int) or not 1 <= given <= most:
        raise _wrong(strategy, key, f"must be a whole number from 1 to {most}, got {described(given)}")
    return given


def _wrong(strategy: str, key: str, reason: str, hint: str = "") -> ConfigError:
    return ConfigError([ConfigProblem(key, reason, hint)], file=f"{strategy}()")
