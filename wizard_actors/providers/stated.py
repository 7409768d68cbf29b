"""The figures in a provider's message: how many tokens, how long to wait. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from wizard_actors.providers.masking import SEARCHED
from wizard_actors.retry import LONGEST_RETRY_AFTER

__all__ = ["stated_tokens", "stated_wait"]

# A message may be anything, 64 KiB of digits too: each part of a pattern is bounded, only the beginning is searched.

COUNT: Final = r"\d[\d,]{0,14}"
REQUESTED: Final = rf"(?P<requested>{COUNT})"
ALLOWED: Final = rf"(?P<max>{COUNT})"
MAX_LENGTH: Final = rf"maximum (?:context|prompt) length (?:is|of) {ALLOWED}"
TOKENS: Final = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"(?<![\d,]){REQUESTED} tokens > {ALLOWED}",
        rf"token count \({REQUESTED}\).{{0,100}}?\({ALLOWED}\)",
        rf"contains {REQUESTED} tokens.{{0,100}}?with {ALLOWED}",
        rf"limit {ALLOWED}, requested {REQUESTED}",
        rf"must be <= {ALLOWED}\. given: {REQUESTED}",
        rf"exceed context limit: {COUNT} \+ {COUNT} > {ALLOWED}(?P<requested>)",
        rf"cannot exceed {ALLOWED}.{{0,60}}?received {REQUESTED}",
        rf"{MAX_LENGTH}.{{0,100}}?(?:resulted in|requested|contains|used|have)(?: about)? {REQUESTED}",
        rf"{MAX_LENGTH}(?P<requested>)",
    )
)

UNITS: Final[Mapping[str, float]] = MappingProxyType({"ms": 1e-3, "mil": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0})
"""Seconds, by how a unit begins, the longest beginning first."""

PART: Final = r"(\d{1,9}(?:\.\d{1,9})?)\s?(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h)(?![a-z])"
WAIT: Final = re.compile(
    rf"(?:try again|retry(?:ing)?|wait)(?: \w{{1,12}})?(?: in| after| for)?(?: about)? "
    rf"(?P<wait>{PART}(?:(?:,? and |,? )?{PART}){{0,3}})",
    re.IGNORECASE,
)


def stated_tokens(message: str) -> tuple[int | None, int | None]:
    """Return the tokens requested and the tokens allowed, None where not stated."""
    for pattern in TOKENS:
        found = pattern.search(message[:SEARCHED])
        if found:
            return _as_count(found["requested"]), _as_count(found["max"])
    return None, None


def stated_wait(message: str) -> float | None:
    """Return for how many seconds a message asks to be left alone ("try again in 6m2.5s", "retry after 54 seconds"),
    None where it does not say, or names more than a day.
    """
    found = WAIT.search(message[:SEARCHED])
    if found is None:
        return None
    parts = re.findall(PART, found["wait"], re.IGNORECASE)
    seconds = sum(float(number) * _unit(unit.lower()) for number, unit in parts)
    return seconds if seconds <= LONGEST_RETRY_AFTER else None


def _unit(name: str) -> float:
    return next(seconds for start, seconds in UNITS.items() if name.startswith(start))


def _as_count(digits: str | None) -> int | None:
    plain = (digits or "").replace(",", "")
    return int(plain) if plain else None
