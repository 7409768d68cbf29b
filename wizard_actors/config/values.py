"""The kinds of values that settings hold, and what bounds them: durations, URLs, addresses, names.

Every check raises `BadValue` with a reason that reads on from the key's name ("must be ..."), and that never repeats
text from the file: the text may be a key that stands in the wrong place.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

__all__ = [
    "DURATION",
    "BadValue",
    "Seconds",
    "above",
    "address",
    "at_least",
    "at_most",
    "between",
    "closest",
    "described",
    "header_names",
    "http_url",
    "masked_url",
    "not_empty",
    "origins",
    "parse_seconds",
    "plain_name",
    "proxy_url",
    "split_address",
    "split_origin",
    "variable_name",
]

DURATION: Final = "duration"

Seconds: TypeAlias = Annotated[float, DURATION]
"""A float of seconds; in TOML and in the environment also "250ms", "30s", "5m", "2h" or "7d"."""

Check: TypeAlias = Callable[[object, object, Any], None]
"""A validator of attrs, `(instance, attribute, value)`: the value has the field's type already, and is not None."""

UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION_TEXT: Final = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,15})?) ?(?P<unit>ms|s|m|h|d)", re.ASCII)
VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]*", re.ASCII)
HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)  # RFC 9110's token
PORTS: Final[Mapping[str, int]] = MappingProxyType({"http": 80, "https": 443})
LONGEST_NAME: Final = 200
SHOWN: Final[Sequence[tuple[type, str]]] = (
    (str, "a text"),
    (Mapping, "a table"),
    (list, "a list"),
    (tuple, "a list"),
    (NoneType, "nothing"),
)
LONGEST_EXPONENT: Final = 20
LONGEST_NUMBER: Final = 10**LONGEST_EXPONENT


class BadValue(ValueError):  # noqa: N818 - a finding on its way to a ConfigError, not an error that anyone meets
    """One value is not what its setting takes. `reason` reads on from the key's name; `hint` says what to do."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def described(value: object) -> str:
    """Say what `value` is without repeating any text in it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            # Python refuses to print integers of very many digits.
            return str(value) if abs(value) < LONGEST_NUMBER else "a very large number"
        case Decimal():
            return str(value) if not value.is_finite() or value.adjusted() < LONGEST_EXPONENT else "a very large number"
    return next((shown for kind, shown in SHOWN if isinstance(value, kind)), f"a value of type {type(value).__name__}")


def parse_seconds(value: object) -> float:
    """Return the seconds that `value` stands for: a finite number, or a text such as "250ms" or "5m"."""
    if isinstance(value, str):
        found = DURATION_TEXT.fullmatch(value)
        if found is None:
            raise BadValue("must be a duration", 'a number of seconds, or "250ms", "30s", "5m", "2h", "7d"')
        # Through Decimal: 100 * 0.001 is exact there, and "0.1s" equals 0.1.
        return float(Decimal(found["number"]) * Decimal(str(UNITS[found["unit"]])))
    return parse_number(value, 'a number of seconds, or a duration such as "30s"')


def parse_number(value: object, wanted: str = "a number") -> float:
    """Return `value` as a finite float; true and false are no numbers."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadValue(f"must be {wanted}, got {described(value)}", unquoted(value, float))
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadValue(f"must be {wanted}, got one that is not finite")
    return number


def unquoted(value: object, kind: Callable[[str], object]) -> str:
    """Return the hint for a value that would be right without its quotes, else nothing."""
    if not isinstance(value, str):
        return ""
    try:
        kind(value)
    except ValueError:
        return ""
    return "write it without quotes"


def closest(word: object, options: Iterable[str]) -> str | None:
    """Return which of `options` somebody meant who wrote `word`, None where nothing is near."""
    if not isinstance(word, str):
        return None
    by_folded = {option.casefold(): option for option in options}
    near = difflib.get_close_matches(word[:LONGEST_NAME].strip().casefold(), by_folded, n=1, cutoff=0.7)
    return by_folded[near[0]] if near else None


# -- bounds: validators for attrs' fields -----------------------------------------------------------------------------


def at_least(bound: float) -> Check:
    """Check that a number is `bound` or more."""
    return _bounded(lambda value: value >= bound, f"must be at least {bound}")


def at_most(bound: float) -> Check:
    """Check that a number is `bound` or less."""
    return _bounded(lambda value: value <= bound, f"must be at most {bound}")


def above(bound: float) -> Check:
    """Check that a number is more than `bound`."""
    return _bounded(lambda value: value > bound, f"must be above {bound}")


def between(low: float, high: float) -> Check:
    """Check that a number is strictly between `low` and `high`."""
    return _bounded(lambda value: low < value < high, f"must be between {low} and {high}, both excluded")


def _bounded(holds: Callable[[float], bool], reason: str) -> Check:
    def check(value: float) -> None:
        if not holds(value):
            raise BadValue(f"{reason}, got {described(value)}")

    return _validator(check)


def _validator(check: Callable[[Any], None]) -> Check:
    """Make a check of one value what attrs calls a validator."""
    return lambda _instance, _attribute, value: check(value)


# -- texts with a form: validators too --------------------------------------------------------------------------------


@_validator
def plain_name(value: str) -> None:
    """Check the name of a model, a route or a group: short, printable, no space at its ends."""
    if not value.strip():
        raise BadValue("must not be empty")
    if value != value.strip() or not value.isprintable():
        raise BadValue("must be printable text without a space at its ends")
    if len(value) > LONGEST_NAME:
        raise BadValue(f"must be at most {LONGEST_NAME} characters long, got {len(value)}")


@_validator
def not_empty(value: str) -> None:
    """Check that a text says something."""
    if not value.strip():
        raise BadValue("must not be empty")


@_validator
def variable_name(value: str) -> None:
    """Check the name of an environment variable. Capitals alone: most keys hold small letters, and are caught here."""
    if VARIABLE.fullmatch(value) is None:
        raise BadValue(
            "must be the name of an environment variable: capital letters, digits and `_`",
            "if this is the key itself: put it into a variable, and the variable's name here",
        )


@_validator
def header_names(value: Mapping[str, object]) -> None:
    """Check that every name in a table of HTTP headers can be sent."""
    if not all(HEADER_NAME.fullmatch(header) for header in value):
        raise BadValue("must name HTTP headers: letters, digits and `-`, no spaces")


@_validator
def http_url(value: str) -> None:
    """Check the base URL of an API: http or https, a host, perhaps a port and a path, and nothing else."""
    parts = _split(value, "must be a URL such as `https://api.example.com/v1`")
    if parts.username is not None or parts.password is not None:
        raise BadValue("must not hold a user name or password", "name the key with `api_key_env`, or set `headers`")
    if "?" in value or "#" in value:
        raise BadValue("must end with its path, without `?` or `#`", _instead_of(parts.query))


def _instead_of(query: str) -> str:
    """Return where what stands in a URL's query belongs."""
    names = {part.partition("=")[0].casefold() for part in query.split("&")}
    if "api-version" in names:
        return "the version goes into `api_version`, and `base_url` ends before `/chat/completions`"
    if "key" in names:
        return "a key stands in a variable, which `api_key_env` names"
    return "what is fixed goes into `extra` or `headers`"


@_validator
def proxy_url(value: str) -> None:
    """Check the URL of an HTTP proxy; it may hold a user name and password."""
    _split(value, "must be a URL such as `http://proxy.example.com:3128`")


def _split(value: str, reason: str) -> SplitResult:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise BadValue(reason)
    try:
        parts = urlsplit(value)
        complete = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise BadValue(f"{reason}: its host or port cannot be read") from None
    if parts.scheme not in {"http", "https"}:
        raise BadValue(f"{reason}, with http or https")
    if not complete:
        raise BadValue(f"{reason}, with a host")
    return parts


def masked_url(url: str | None) -> str | None:
    """Return `url` with `***` in place of any user name and password."""
    if url is None or "@" not in url:
        return url
    scheme, _, rest = url.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}"


@_validator
def address(value: str) -> None:
    """Check an address to listen on, "HOST:PORT"."""
    split_address(value)


def split_address(text: str) -> tuple[str, int]:
    """Return the host and the port of "127.0.0.1:8000", "localhost:0" or "[::1]:8000"; port 0 is any free one."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    colons = ":" in bare and bare == host  # IPv6 without its brackets: where would the port begin?
    if not bare or colons or not bare.isprintable() or " " in bare or re.fullmatch("[0-9]{1,5}", port) is None:
        raise BadValue("must be HOST:PORT", 'such as "127.0.0.1:8000" or "[::1]:8000"')
    if int(port) > 65535:
        raise BadValue("must have a port of at most 65535")
    return bare, int(port)


def split_origin(text: str) -> tuple[str, str, int] | None:
    """Return the scheme, the host and the port of a web page's origin, in small letters; None for what is none: that
    has a scheme, a host, perhaps a port, and nothing else.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    bare = f"[{host}]" if ":" in host else host
    whole = f"{parts.scheme}://{bare}" + ("" if port is None else f":{port}")
    if parts.scheme not in PORTS or not host or text.lower() != whole:  # what urlsplit overlooks counts too
        return None
    return parts.scheme, host, PORTS[parts.scheme] if port is None else port


@_validator
def origins(values: Sequence[str]) -> None:
    """Check the origins of web pages."""
    for value in values:
        if split_origin(value) is None:
            raise BadValue("must hold origins: a scheme and a host, perhaps a port", 'such as "https://example.com"')
