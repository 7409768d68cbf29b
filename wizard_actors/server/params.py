"""The parameters of one request, read strictly: what is wrong with them is told by its name. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, cast

from wizard_actors.ask_options import AskOptions
from wizard_actors.protocol.failures import invalid
from wizard_actors.protocol.frames import Fault, RequestId, is_request_id, shown_text
from wizard_actors.session import KEEP, TextOrKeep

__all__ = ["ASKING", "Params"]

OPTIONS: Final[Mapping[str, tuple[tuple[type, ...], str]]] = MappingProxyType(
    {
        "route": ((str,), "a text"),
        "model": ((str,), "a text"),
        "strategy": ((str,), "a text"),
        "deadline": ((int, float), "a number of seconds"),
        "cache": ((str,), "a text"),
        "raw": ((bool,), "true or false"),
    }
)
"""The options of `AskOptions` that a client may give, and what they are on the wire. null counts as not given."""

ASKING: Final = tuple(OPTIONS)

KINDS: Final[Mapping[type, str]] = MappingProxyType(
    {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
        type(None): "null",
    }
)
"""What JSON calls the types that it is read into."""


class Params:
    """The parameters of the request `request`; None: of a notification.

    All methods raise `Fault` where a parameter is not what it has to be.
    """

    def __init__(self, given: Mapping[str, object], request: RequestId | None) -> None:
        self._given = given
        self._request = request

    def only(self, *names: str) -> None:
        """Check that there are no others."""
        unknown = sorted(set(self._given) - set(names))
        if unknown:
            known = f"it takes {', '.join(f'`{name}`' for name in names)}" if names else "it takes none"
            raise self.wrong(f"unknown parameters: {', '.join(map(shown_text, unknown[:10]))}; {known}")

    def value(self, name: str) -> object:
        """Return what has to be there, whatever it is."""
        if name not in self._given:
            raise self.wrong(f"the parameter `{name}` is missing")
        return self._given[name]

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text. Without a default it has to be there."""
        value = self._given.get(name, default) if default is not None else self.value(name)
        if not isinstance(value, str):
            raise self._no(name, "a text", value)
        return value

    def text_or_keep(self, name: str) -> TextOrKeep:
        """Return a text, None for null, and `KEEP` where it is not given."""
        if name not in self._given:
            return KEEP
        return None if self._given[name] is None else self.text(name)

    def whole(self, name: str, default: int | None = None, *, least: int, most: int | None = None) -> int:
        """Return a whole number between the bounds. Without a default it has to be there."""
        value = self._given.get(name, default) if default is not None else self.value(name)
        top = "" if most is None else f" to {most:,}"
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._no(name, f"a whole number from {least}{top or ' on'}", value)
        if value < least or (most is not None and value > most):
            raise self.wrong(f"`{name}` must be a whole number from {least}{top or ' on'}")
        return value

    def number(self, name: str) -> float | None:
        """Return a number, None where it is not given."""
        value = self._given.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, float | int):
            raise self._no(name, "a number", value)
        try:
            return float(value)
        except OverflowError:  # JSON's whole numbers have no bound
            raise self.wrong(f"`{name}` is too large a number") from None

    def request_id(self, name: str) -> RequestId:
        """Return the id of another request."""
        value = self.value(name)
        if not is_request_id(value):
            raise self.wrong(f"`{name}` must be the id of a request: a text, or a whole number")
        return value

    def items(self, name: str) -> Sequence[object]:
        """Return a list that has to be there."""
        value = self.value(name)
        if not isinstance(value, list):
            raise self._no(name, "a list", value)
        return value

    def texts(self, name: str) -> frozenset[str] | None:
        """Return a list of texts, None where it is not given."""
        if self._given.get(name) is None:
            return None
        items = self.items(name)
        texts = frozenset(item for item in items if isinstance(item, str))
        if len(texts) < len(set(map(repr, items))):
            raise self.wrong(f"`{name}` must be a list of texts")
        return texts

    def mapping(self, name: str) -> Mapping[str, object] | None:
        """Return an object, None where it is not given."""
        value = self._given.get(name)
        if value is not None and not isinstance(value, dict):
            raise self._no(name, "an object", value)
        return value

    def options(self) -> AskOptions:
        """Return the options of a request; what they say is checked by whoever asks."""
        found: dict[str, object] = {}
        for name, (kinds, what) in OPTIONS.items():
            value = self._given.get(name)
            if value is None:
                continue
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise self._no(name, what, value)
            found[name] = self.number(name) if float in kinds else value
        return cast("AskOptions", found)

    def wrong(self, message: str) -> Fault:
        """Return the fault for what is wrong with them."""
        return invalid(message, self._request)

    def _no(self, name: str, what: str, value: object) -> Fault:
        return self.wrong(f"`{name}` must be {what}, not {KINDS[type(value)]}")
