"""Looking into an actor from outside: what it still holds, and whether what it published has changed."""

from __future__ import annotations

import gc
import types
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from attrs import fields, has

from wizard_actors.ledger import Ledger
from wizard_actors.mailbox import Mailbox, Waiter

__all__ = ["frozen_copy", "held_replies"]

OBJECTS_AT_MOST: Final = 200_000
ELSEWHERE: Final = (type, types.ModuleType, types.CodeType, types.FrameType, Ledger, Mailbox)
"""What is not the actor's own: nothing behind it is looked at."""


def held_replies(root: object) -> Iterator[Waiter]:
    """Yield every reply that can be reached from `root`, through whatever it is kept in: a queue, a bound method, a
    closure.
    """
    seen: set[int] = set()
    found = [root]
    while found and len(seen) < OBJECTS_AT_MOST:
        value = found.pop()
        if id(value) in seen or isinstance(value, ELSEWHERE):
            continue
        seen.add(id(value))
        if isinstance(value, Waiter):
            yield value
        elif isinstance(value, types.FunctionType):  # its globals are its module's
            found += [value.__closure__, value.__defaults__, value.__kwdefaults__]
        else:
            found += gc.get_referents(value)


def frozen_copy(value: object) -> object:
    """Return a copy of `value` that later changes of it do not reach, and that is equal to that of an equal value.

    What has no parts and no equality of its own is shown by its class's name.
    """
    return _copy(value, ())


def _copy(value: object, above: tuple[int, ...]) -> object:
    kind = type(value)
    if id(value) in above:
        return f"<{kind.__qualname__} again>"
    if _is_value(value):
        return value
    within = (*above, id(value))
    if isinstance(value, AbstractSet):  # every copy is hashable
        return (kind.__qualname__, len(value), frozenset(_copy(item, within) for item in value))
    return (kind.__qualname__, *(_copy(part, within) for part in _parts(value)))


def _is_value(value: object) -> bool:
    """Whether `value` has no parts of ours, and is equal to its like."""
    kind = type(value)
    if has(kind) or isinstance(value, Mapping | list | tuple | AbstractSet):
        return False
    hashes: object = kind.__hash__  # None where it has none
    return hashes is not None and kind.__eq__ is not object.__eq__


def _parts(value: object) -> Iterable[object]:
    """Return what `value` consists of, in the same order for an equal value."""
    kind = type(value)
    if has(kind):
        return [getattr(value, part.name, None) for part in fields(kind)]
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, list | tuple):
        return value
    return sorted(getattr(value, "__dict__", {}).items())
