"""The bases of what an actor is sent, and its caller waits for or gives back."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Ask", "Notice", "Return"]

G = TypeVar("G")
R_co = TypeVar("R_co", covariant=True)


class Ask(Generic[R_co]):
    """Base of the messages that are answered with an `R_co`."""

    __slots__ = ()


class Return(Generic[G]):
    """Base of the messages that give a grant `G` back. The first one ends the grant; any further one is ignored."""

    __slots__ = ()


class Notice(Generic[G]):
    """Base of the messages that tell something of a live grant `G`. One waits at most: the latest wins."""

    __slots__ = ()
