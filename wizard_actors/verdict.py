"""The verdict table: what follows from each kind of error, as data.

Every error class names its `Row`; code asks `error.verdict` and never tests error types by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from attrs import frozen

__all__ = ["VERDICTS", "Again", "Next", "Outcome", "Row", "Verdict"]


class Outcome(StrEnum):
    """What a circuit breaker learns from one call."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"


class Again(StrEnum):
    """Whether the same model is asked again after an error."""

    NO = "no"
    AFTER_DELAY = "after_delay"
    AT_ONCE = "at_once"  # once, without a delay: nothing was sent
    REACQUIRE = "reacquire"  # the limiter holds the pause; the call only acquires again
    IF_LAST = "if_last"  # once, and only while no other model remains


class Next(StrEnum):
    """Whether the next model of the route is tried after an error."""

    NO = "no"
    YES = "yes"
    IF_LARGER = "if_larger"  # except where its known context window is not larger
    IF_SPILL = "if_spill"  # only where the route says `spill = true`


class Row(StrEnum):
    """The lines of the table."""

    BAD_PROMPT = "bad_prompt"
    TOO_LONG = "too_long"
    REFUSED = "refused"
    BUG = "bug"
    CRASHED = "crashed"
    BARRED = "barred"
    RATE_LIMITED = "rate_limited"
    FAILED = "failed"
    SILENT = "silent"
    UNSENT = "unsent"
    FULL = "full"
    FINAL = "final"


@frozen
class Verdict:
    """What follows from an error: for this model, for the rest of the route, for the breaker."""

    again: Again
    next: Next
    breaker: Outcome
    bars_model: bool = False
    """Whether the model is left out for a minute, for every request."""


VERDICTS: Mapping[Row, Verdict] = MappingProxyType(
    {
        Row.BAD_PROMPT: Verdict(Again.NO, Next.NO, Outcome.IGNORED),
        Row.TOO_LONG: Verdict(Again.NO, Next.IF_LARGER, Outcome.IGNORED),
        Row.REFUSED: Verdict(Again.NO, Next.YES, Outcome.IGNORED),
        Row.BUG: Verdict(Again.NO, Next.YES, Outcome.IGNORED),
        Row.CRASHED: Verdict(Again.AT_ONCE, Next.YES, Outcome.IGNORED),
        Row.BARRED: Verdict(Again.NO, Next.YES, Outcome.IGNORED, bars_model=True),
        Row.RATE_LIMITED: Verdict(Again.REACQUIRE, Next.YES, Outcome.IGNORED),
        Row.FAILED: Verdict(Again.AFTER_DELAY, Next.YES, Outcome.FAILURE),
        Row.SILENT: Verdict(Again.IF_LAST, Next.YES, Outcome.FAILURE),
        Row.UNSENT: Verdict(Again.NO, Next.YES, Outcome.IGNORED),
        Row.FULL: Verdict(Again.NO, Next.IF_SPILL, Outcome.IGNORED),
        Row.FINAL: Verdict(Again.NO, Next.NO, Outcome.IGNORED),
    }
)
"""The whole policy."""
