"""Where an unknown key belongs: under another name, in another table, or above the header of a sub-table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from attrs import AttrsInstance

from wizard_actors.config.strict import KeyPath, inner_table, named_tables, settings, shown_key
from wizard_actors.config.values import closest

__all__ = ["Tree", "tree_of", "unknown_key"]

Tree: TypeAlias = "dict[str, Tree | None]"
"""The keys of a table; None where a key holds a value, or a table whose keys are free."""

HEADER: Final = re.compile(r"[ \t]*(?P<header>\[\[?(?P<name>[^\[\]\n]+)\]\]?)[ \t]*(#.*)?", re.ASCII)
KEY_WORDS: Final = frozenset({"api_key", "apikey", "api-key", "key", "token", "secret", "password"})

GENERIC: Final = frozenset({"enabled", "name", "model", "max"})
"""Keys that mean something else in every table that has them."""

SWITCHES: Final = {
    "cache": "set `max_entries`: the cache is on where that is above 0",
    "circuit_breaker": "a circuit breaker is always on; `failure_threshold` says when it opens",
    "rate_limit": "a limit is on where `requests_per_minute` or `tokens_per_minute` is set",
    "retry": "`max_attempts = 1` switches retries off",
}
"""What stands for `enabled` in tables that have no such key."""


def tree_of(table: type[AttrsInstance]) -> Tree:
    """Return every key of `table` and of the tables in it."""
    return {field.name: _tree_in(field.type) for field in settings(table)}


def _tree_in(kind: object) -> Tree | None:
    inner, by_name = inner_table(kind), named_tables(kind)
    if by_name is not None:
        names, each = by_name
        return {name: tree_of(each) for name in names}
    return None if inner is None else tree_of(inner)


def unknown_key(path: KeyPath, tree: Tree, text: str = "", *, table: str = "") -> str:
    """Return what to do about the unknown key at `path`, given the tree of all keys and the file's text.

    `table` is the name of the table whose tree it is, where that is not the whole.
    """
    *above, key = path
    if not isinstance(key, str):
        return ""
    if key.casefold() in KEY_WORDS:
        return "a key never stands in this file: name its variable with `api_key_env`, or its file with `api_key_file`"
    here = _table_at(tree, above) or {}
    names = [part for part in (table, *above) if isinstance(part, str)]
    if names and names[-1] in SWITCHES and closest(key, ["enabled", "disabled"]):
        return SWITCHES[names[-1]]
    return (
        _in_a_table_above(key, above, tree, text)
        or _meant(_inside(key, above, here))
        or _meant(_near(key, above, tree))
        or _meant(_elsewhere(key, tree))
        or f"known keys: {', '.join(here)}"
    )


def _in_a_table_above(key: str, above: Sequence[str | int], tree: Tree, text: str) -> str:
    """The classic mistake: a key written below the header of a sub-table lands in that sub-table."""
    for depth in range(len(above) - 1, 0, -1):
        outer = above[:depth]
        keys = _table_at(tree, outer)
        if keys is None or key not in keys or isinstance(above[depth], int) or key == "enabled":
            continue
        header = _first_header_below(outer, text)
        return _meant(shown_key((*outer, key))) + (f" Move it above `{header}`" if header else "")
    return ""


def _inside(key: str, above: Sequence[str | int], here: Tree) -> str:
    owners = [name for name, keys in here.items() if keys is not None and key in keys and key not in GENERIC]
    return shown_key((*above, owners[0], key)) if owners else ""


def _near(key: str, above: Sequence[str | int], tree: Tree) -> str:
    """A key spelled like `key`, of its own table or else of one round that; the root's are its tables' names."""
    for depth in range(len(above), -1, -1):
        if depth and isinstance(above[depth - 1], str) and depth < len(above) and isinstance(above[depth], int):
            continue  # "models" of ("models", 0): the same table without its index
        meant = closest(key, _table_at(tree, above[:depth]) or {})
        if meant and (depth == len(above) or meant not in GENERIC):
            return shown_key((*above[:depth], meant))
    return ""


def _elsewhere(key: str, tree: Tree) -> str:
    if key in GENERIC:
        return ""
    return next((shown_key(path) for path in _all_keys(tree) if path[-1] == key), "")


def _meant(place: str) -> str:
    return f"did you mean `{place}`?" if place else ""


def _all_keys(tree: Tree, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, keys in tree.items():
        yield (*above, key)
        yield from _all_keys(keys or {}, (*above, key))


def _table_at(tree: Tree, path: Sequence[str | int]) -> Tree | None:
    found: Tree | None = tree
    for part in path:
        if isinstance(part, str):
            found = (found or {}).get(part)
    return found


def _first_header_below(table: Sequence[str | int], text: str) -> str:
    """Return the header of the first sub-table of `table` in the file: what its own keys must stand above."""
    root, place = table[0], table[1] if len(table) > 1 and isinstance(table[1], int) else 0
    inner = ".".join(part for part in table if isinstance(part, str)) + "."
    seen = -1
    for match in filter(None, map(HEADER.fullmatch, text.splitlines())):
        name = "".join(match["name"].split())
        seen += name == root
        if seen == place and name.startswith(inner):
            return match["header"]
    return ""
