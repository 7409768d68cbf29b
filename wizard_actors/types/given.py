"""What the fields of prompts and messages take: converters and checks for attrs, and their words for a mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from wizard_actors.errors import InvalidPromptError

if TYPE_CHECKING:
    from attrs import Attribute

__all__ = ["Check", "as_unicode", "check_unicode", "instance_of", "several", "shown"]

T = TypeVar("T")

Check: TypeAlias = "Callable[[object, Attribute[Any], object], None]"

LONGEST_SHOWN: Final = 60


def as_unicode(text: str) -> str:
    """Return a text that can be sent and stored: half a surrogate pair, which a provider of somebody's own may let
    through, is replaced by U+FFFD.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def instance_of(what: str, *kinds: type | None) -> Check:
    """Return a validator: the value is of one of `kinds`, None among them for a field that may be left out."""
    taken = tuple(type(None) if kind is None else kind for kind in kinds)

    def check(thing: object, place: Attribute[Any], value: object) -> None:
        if not isinstance(value, taken):
            raise InvalidPromptError(f"`{type(thing).__name__}.{place.name}` is {what}, not {shown(value)}")

    return check


def several(value: object, kind: type[T], where: str) -> tuple[T, ...]:
    """Return one object, or an iterable of them, as a tuple. `where` begins the sentence about anything else."""
    if isinstance(value, kind):
        return (value,)
    found: tuple[object, ...] = tuple(value) if isinstance(value, Iterable) else (value,)
    for each in found:
        if not isinstance(each, kind):
            raise InvalidPromptError(f"{where} are {kind.__name__} objects, not {shown(each)}")
    return found  # type: ignore[return-value]  # each was looked at


def check_unicode(text: str, where: str) -> None:
    """Refuse what no request could carry: halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidPromptError(
            f"{where} is not valid Unicode text: {error.reason} at character {error.start}"
        ) from error


def shown(value: object) -> str:
    """Return a value for an error's text, not all of a long one."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
