"""Whether and when the same model is asked again: delays, the client-wide retry budget, and what Retry-After says.

All of it is pure: the instant `now` and the random numbers are passed in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from random import Random
from typing import Final

from wizard_actors.config import RetryBudgetConfig, RetryConfig
from wizard_actors.errors import ProviderError, WizardError
from wizard_actors.verdict import Again

__all__ = ["LONGEST_RETRY_AFTER", "RetryBudget", "full_jitter", "parse_retry_after", "parse_retry_delay", "retry_delay"]

LONGEST_RETRY_AFTER: Final = 86_400.0
"""A day. A server that names more has sent an instant in place of a duration, or has a broken clock."""

PROTOBUF_DURATION: Final = re.compile(r"(?P<seconds>-?[0-9]{1,12}(\.[0-9]{1,9})?)s", re.ASCII)


def full_jitter(doublings: int, config: RetryConfig, rng: Random) -> float:
    """Return a delay in seconds: U(0, min(max_delay, base_delay * 2^doublings)).

    The bound is cut before the draw, not the draw after it, or every delay at the cap would be the same. The formula is
    "Full Jitter" of Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """
    return rng.uniform(0.0, min(config.max_delay, config.base_delay * 2.0 ** min(doublings, 64)))


def retry_delay(failures: Sequence[WizardError], config: RetryConfig, *, last: bool, rng: Random) -> float | None:
    """Return how many seconds to wait before the same model is asked again, None where it is not to be asked.

    `failures` are this model's failures within this request, oldest first, not empty; the newest one's verdict decides
    whether, and its policy in `config.errors`, key by key over what holds for all, how often and how soon. `last` says
    that no other model of the route remains.

    An attempt is the last one where it is the model's `max_attempts`-th in this request, whatever the ones before ended
    in; which `max_attempts`, the error that it ended in decides, and its own replaces the model's, larger or smaller.
    So every bound counts the same thing, as tenacity's `attempt_number` does, and a model never gets more attempts than
    the largest of them. An attempt that failed before anything was sent does not count, but is made up for only once;
    a model that stayed silent is asked again only if `last`, and once, unless its error has a `max_attempts` of its
    own.

    A Retry-After within its cap is waited for, and the jitter comes on top, so that not everybody is back at one
    instant; beyond its cap it ends the matter. After a 429 the delay is 0.0: the rate limiter holds the pause, and the
    call only acquires again.
    """
    error = failures[-1]
    again, policy = error.verdict.again, config.after(error.code)
    if again is Again.AT_ONCE:
        return None if _met_before(again, failures) else 0.0
    sent = sum(failure.verdict.again is not Again.AT_ONCE for failure in failures)
    if again is Again.NO or sent >= policy.max_attempts:
        return None
    if again is Again.IF_LAST and not (last and (_counted(error, config) or not _met_before(again, failures))):
        return None
    wanted = _asked_for(error)
    if wanted > (config.retry_after_cap if last else config.retry_after_cap_with_fallback):
        return None
    return 0.0 if again is Again.REACQUIRE else wanted + full_jitter(sent - 1, policy, rng)


def _met_before(again: Again, failures: Sequence[WizardError]) -> bool:
    return any(earlier.verdict.again is again for earlier in failures[:-1])


def _counted(error: WizardError, config: RetryConfig) -> bool:
    """Say whether somebody decided how many attempts this error is worth."""
    return any(code == error.code and policy.max_attempts is not None for code, policy in config.errors.items())


def _asked_for(error: WizardError) -> float:
    """Return for how many seconds the provider asked to be left alone; what is no such number counts as not said."""
    wanted = error.retry_after if isinstance(error, ProviderError) else None
    return wanted if wanted is not None and wanted > 0 else 0.0  # a NaN is not more than 0


def parse_retry_after(headers: Mapping[str, str], *, wall_now: float) -> float | None:
    """Return for how many seconds a server asks to be left alone, None where it does not say so in a usable way.

    `headers` has lower-case names; `wall_now` is the wall clock as seconds since 1970, for a server that names a date.
    `retry-after-ms` comes before `retry-after`, which is a number of seconds, also a fraction, or an HTTP date. What is
    past counts as 0.0; what cannot be read, or lies more than a day ahead, as not said.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    text = headers.get("retry-after")
    seconds = _number(text)
    instant = None if text is None else _http_date(text)
    for delay in (
        None if milliseconds is None else milliseconds / 1000,
        seconds,
        None if instant is None else instant - wall_now,
    ):
        if delay is not None and delay <= LONGEST_RETRY_AFTER:  # False for NaN too
            return max(delay, 0.0)
    return None


def parse_retry_delay(text: str) -> float | None:
    """Return the seconds of a Protobuf duration in JSON ("48s", "1.5s"), None where it cannot be used.

    Gemini puts one into the body of a 429, as `retryDelay` of its `RetryInfo`, and sends no Retry-After. What is past
    and what lies more than a day ahead count as in `parse_retry_after`.
    """
    found = PROTOBUF_DURATION.fullmatch(text)
    delay = math.inf if found is None else float(found["seconds"])
    return max(delay, 0.0) if delay <= LONGEST_RETRY_AFTER else None


def _number(text: str | None) -> float | None:
    try:
        number = math.nan if text is None else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _http_date(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        # A date without a zone is in UTC: RFC 9110 knows no other.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


class RetryBudget:
    """What all retries and hedges of one client may cost together, so that an outage is not answered with a flood.

    One balance with two ceilings. Time fills it only up to `refill_to`: enough for a client that rarely asks. Each
    request adds `deposit` up to `max`: a busy client may retry that share of its requests. A retry or hedge costs 1.
    The idea is Finagle's `RetryBudget`, with a balance in place of its window.

    The balance is a whole number of 10^-15 retries and time one of nanoseconds, so that nothing is lost or won by how
    often anybody looks. Time counts once: a clock that goes back refills nothing until it has caught up.
    """

    _ONE: Final = 10**15

    def __init__(self, config: RetryBudgetConfig, now: float) -> None:
        self._enabled = config.enabled
        self._max = self._amount(config.max)
        self._refill_to = min(self._amount(config.refill_to), self._max)
        self._per_nanosecond = round(config.refill_per_second * 10**6)
        self._deposit = self._amount(config.deposit)
        self._balance = min(self._amount(config.initial), self._max)
        self._seen = self._nanoseconds(now)

    def deposit(self, now: float) -> None:
        """Count one request, not a retry, that begins."""
        self._refill(now)
        self._balance = min(self._balance + self._deposit, self._max)

    def try_spend(self, now: float) -> bool:
        """Pay for one retry or hedge; return whether there was enough. Always true where the budget is off."""
        self._refill(now)
        if not self._enabled:
            return True
        if self._balance < self._ONE:
            return False
        self._balance -= self._ONE
        return True

    def balance(self, now: float) -> float:
        """Return what is left, in retries."""
        self._refill(now)
        return self._balance / self._ONE

    def _refill(self, now: float) -> None:
        instant = self._nanoseconds(now)
        elapsed = instant - self._seen
        if elapsed <= 0:
            return
        self._seen = instant
        if self._balance < self._refill_to:
            self._balance = min(self._balance + elapsed * self._per_nanosecond, self._refill_to)

    def _amount(self, retries: float) -> int:
        return round(retries * self._ONE)

    @staticmethod
    def _nanoseconds(now: float) -> int:
        return int(now * 1e9)
