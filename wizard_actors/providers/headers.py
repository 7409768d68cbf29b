"""What response headers say of an account's rate limits, in the dialects of OpenAI, those compatible with it, and
Anthropic. Pure.

Headers come as a mapping with lower-case names. Whatever is missing, absurd or not understood is None: a limiter that
believed a `-1` or a reset of 0 would stop, or never slow down.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from wizard_actors.retry import parse_retry_after
from wizard_actors.types import LimitHeaders, LimitWindow

__all__ = ["parse_duration", "parse_limits"]

OBEYED: Final = frozenset({429, 503, 529})
"""The statuses whose Retry-After is a demand; on a 200 it means nothing, and some send it."""

FURTHEST_RESET: Final = 7 * 86_400.0
"""Seconds: the longest window in use is a month's, which says nothing about the next call."""

EPOCH_FROM: Final = 1e9
"""A reset this large is no number of seconds from now, but an instant: since 1970, in seconds or milliseconds."""

DURATION_UNITS: Final[Mapping[str, float]] = MappingProxyType(
    {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
)
DURATION_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
DURATION: Final = re.compile(rf"(?:{DURATION_PART.pattern})+")

ANTHROPIC_TOKENS: Final = ("tokens", "input-tokens", "output-tokens")

MISTRAL_WINDOWS: Final = (("second", 1.0), ("10-second", 10.0), ("minute", 60.0))


def parse_limits(headers: Mapping[str, str], *, status: int, wall_now: float) -> LimitHeaders | None:
    """Return what the headers say, None where they say nothing usable.

    `wall_now` is the time since 1970 in seconds, for headers that give dates. Understood are `x-ratelimit-*-requests`
    and `-tokens` (OpenAI, Groq; Azure), `anthropic-ratelimit-*`, Mistral's names that hold their window, and the plain
    `x-ratelimit-*` and `ratelimit-*` of Together, OpenRouter and the IETF's draft, which count requests. Of Anthropic's
    token windows the tightest counts.
    """
    retry_after = parse_retry_after(headers, wall_now=wall_now) if status in OBEYED else None
    told = {name: value for name, value in headers.items() if "ratelimit" in name}
    requests, tokens = _windows(told, wall_now) if told else (None, None)
    if requests is None and tokens is None and retry_after is None:
        return None
    return LimitHeaders(requests=requests, tokens=tokens, retry_after=retry_after)


def _windows(headers: Mapping[str, str], wall_now: float) -> tuple[LimitWindow | None, LimitWindow | None]:
    """Return the windows of requests and of tokens."""
    requests = _window(headers, "x-ratelimit-{}-requests", wall_now) or _mistral(headers, "req")
    tokens = _window(headers, "x-ratelimit-{}-tokens", wall_now) or _mistral(headers, "tokens")
    if requests is None:
        requests = _window(headers, "anthropic-ratelimit-requests-{}", wall_now)
    if tokens is None:
        windows = (_window(headers, f"anthropic-ratelimit-{kind}-{{}}", wall_now) for kind in ANTHROPIC_TOKENS)
        tokens = min(filter(None, windows), key=_room, default=None)
    if requests is None:
        requests = _window(headers, "x-ratelimit-{}", wall_now) or _window(headers, "ratelimit-{}", wall_now)
    return requests, tokens


def parse_duration(text: str) -> float | None:
    """Return the seconds of a Go duration ("12ms", "17.4s", "6m0s", "1h2m3.5s"), None for anything else."""
    text = text.strip()
    if DURATION.fullmatch(text) is None:
        return None
    return sum(float(number) * DURATION_UNITS[unit] for number, unit in DURATION_PART.findall(text))


def _window(headers: Mapping[str, str], names: str, wall_now: float) -> LimitWindow | None:
    """Return the window whose headers are `names` with `limit`, `remaining` and `reset` in the gap."""
    limit = _number(headers.get(names.format("limit")))
    remaining = _number(headers.get(names.format("remaining")))
    # Azure's resets are whole milliseconds, and it alone names its windows' lengths: 500 beside 120 requests a minute
    # is the half second in which one comes back.
    milliseconds = names.format("renewalperiod") in headers
    reset = _reset(headers.get(names.format("reset")), wall_now, unit=1e-3 if milliseconds else 1.0)
    return _stated(limit, remaining, reset)


def _room(window: LimitWindow) -> float:
    """Return how many tokens a second a window has left until its reset; infinite where it does not say."""
    if window.remaining is None:
        return math.inf
    return window.remaining / (window.reset or 1.0)


def _mistral(headers: Mapping[str, str], kind: str) -> LimitWindow | None:
    """Return Mistral's shortest window, whose length stands in the name and is the longest its reset can take."""
    for name, seconds in MISTRAL_WINDOWS:
        limit = _number(headers.get(f"x-ratelimit-limit-{kind}-{name}"))
        remaining = _number(headers.get(f"x-ratelimit-remaining-{kind}-{name}"))
        window = _stated(limit, remaining, seconds)
        if window is not None:
            return window
    return None


def _stated(limit: float | None, remaining: float | None, reset: float | None) -> LimitWindow | None:
    limit = limit or None  # a limit of 0 is an unknown one: this very answer came through it
    if limit is None and remaining is None:
        return None
    if limit is not None and remaining is not None and remaining > limit:
        remaining = None
    return LimitWindow(limit=limit, remaining=remaining, reset=reset)


def _number(text: str | None) -> float | None:
    """Return a count, which is neither negative nor anything but a number."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _reset(text: str | None, wall_now: float, *, unit: float) -> float | None:
    """Return the seconds until a window is full: from a Go duration, a number of `unit` seconds, or an instant."""
    if text is None:
        return None
    seconds = parse_duration(text)
    if seconds is None:
        seconds = _until_date(text, wall_now)
    if seconds is None:
        number = _number(text)
        if number is None:
            return None
        if number >= EPOCH_FROM * 1000:
            seconds = number / 1000 - wall_now
        elif number >= EPOCH_FROM:
            seconds = number - wall_now
        else:
            seconds = number * unit
    return seconds if 0 < seconds <= FURTHEST_RESET else None


def _until_date(text: str, wall_now: float) -> float | None:
    """Return the seconds until an RFC 3339 date and time, at least a millisecond where it has just passed: it is
    rounded down to a second. None for anything else.
    """
    if "T" not in text:
        return None
    try:
        date = datetime.fromisoformat(text)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - wall_now
    except (ValueError, OverflowError):
        return None
    return max(seconds, 0.001) if seconds > -1.0 else seconds
