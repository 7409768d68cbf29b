"""When an item of a batch is asked again, and when none of its items is: rules, without waiting or clocks.

    asked ──answer, real failure──> its outcome
      │
      └──refusal: nothing was sent, or a 429 that says when to come back──> the gate, then asked again

All workers of a batch pass one gate, for they ask the same models: after a refusal nobody passes before the instant
that it names. Then one goes first, and the others follow it a moment apart; each outcome halves that moment, and a new
refusal shuts the gate again. Where a refusal names no instant, the next outcome of another item opens the gate: it
means that there is room.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random
from typing import Final

from attrs import frozen

from wizard_actors.errors import CircuitOpenError, FallbackError, ProviderError, RetryError, WizardError
from wizard_actors.types import ServedBy, WizardResponse
from wizard_actors.verdict import Row

__all__ = ["Barred", "Gate", "Refusal", "failure_behind", "refusal_of", "wait_after"]

LONGEST_WAIT: Final = 600.0
"""Seconds. Whoever names a longer time is not waited for."""

GUESS: Final = 1.0
"""Seconds until the next try where a refusal names no time."""

MOST_SENT: Final = 5
"""How many 429s of an item's are waited out: each was sent, and counted by the provider."""

SPACING: Final = 0.1
"""Seconds between those who follow the first one through the gate; also the shortest wait."""

CLOSEST: Final = 0.001
"""Seconds between two below which nobody is kept apart any more."""

JITTER: Final = 0.1
"""Seconds, at most, that are added to a wait: several clients of one account are not to be back at one instant."""

SUMMARIES: Final = (FallbackError, RetryError)
"""Errors that say no more than their attempts do."""

STAND_INS: Final = frozenset({ServedBy.STALE, ServedBy.STATIC})


@frozen
class Refusal:
    """An item was refused for now: it makes sense to ask again after `seconds`.

    `named`: they are known, else guessed. `sent`: a provider refused, with a 429; else nothing was sent.
    """

    seconds: float
    named: bool
    sent: bool


def refusal_of(error: WizardError, now: float) -> Refusal | None:
    """Return what waiting there is after `error`; None where it is no mere refusal.

    It is one where every attempt was refused unsent (the limiter, an open circuit, a full queue or a client with too
    many calls in flight) or met a 429 that says when to come back. The time is the shortest that any of them names.
    """
    errors = [record.error for record in error.attempts if record.error is not None]
    if not isinstance(error, SUMMARIES):
        errors.append(error)
    if not errors or not all(map(_refused, errors)):
        return None
    times = [time for time in (_time(each, now) for each in errors) if time is not None]
    sent = any(each.row is Row.RATE_LIMITED for each in errors)
    return Refusal(min(times, default=GUESS), bool(times), sent)


def wait_after(error: WizardError, now: float, *, sent: int = 0) -> Refusal | None:
    """Return how long to wait before an item that ended in `error` is asked again; None where that is its outcome.

    Nobody is waited for longer than 10 minutes at a time. `sent` is how many 429s of this item's have been waited out:
    at most 5 are.
    """
    refusal = refusal_of(error, now)
    if refusal is None or refusal.seconds > LONGEST_WAIT or (refusal.sent and sent >= MOST_SENT):
        return None
    return refusal


def _refused(error: WizardError) -> bool:
    if error.row is Row.RATE_LIMITED:  # where it says nothing, the model's own attempts have waited as is usual
        return isinstance(error, ProviderError) and bool(error.retry_after)
    return error.row in {Row.UNSENT, Row.FULL}


def _time(error: WizardError, now: float) -> float | None:
    """Return for how many seconds a refusal asks to be left alone; None where it does not say."""
    if isinstance(error, CircuitOpenError):
        return max(error.retry_at - now, 0.0)
    return error.retry_after if isinstance(error, ProviderError) else None


def failure_behind(outcome: WizardResponse | WizardError) -> WizardError | None:
    """Return why no model has answered; None where one has.

    For a static or stale answer that is the last attempt's error, and lists every attempt.
    """
    if isinstance(outcome, WizardError):
        return outcome
    if outcome.served_by not in STAND_INS:
        return None
    errors = [record.error for record in outcome.attempts if record.error is not None]
    if errors:
        return errors[-1].copy().with_attempts(outcome.attempts)
    return FallbackError(
        f"no model answered another request that asked the same: its {outcome.served_by} answer is none"
    )


class Gate:
    """What the workers of one batch pass before each question. Every method takes the present instant `now`."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._shut_until = -math.inf
        self._guess = -math.inf
        """Until when to wait where nobody has named an instant."""
        self._spacing = 0.0
        self._refusals = 0

    @property
    def opens_at(self) -> float:
        """The instant from which the next one may pass."""
        return max(self._shut_until, self._guess)

    def passed(self, now: float) -> int:
        """Note that somebody passes, and return a ticket for `ended`."""
        if self._spacing:
            self._shut_until = now + self._spacing
        return self._refusals

    def refused(self, refusal: Refusal, now: float) -> None:
        """Shut the gate for as long as `refusal` says, and a little longer."""
        self._refusals += 1
        self._spacing = SPACING
        until = now + max(refusal.seconds, SPACING) + self._rng.uniform(0.0, JITTER)
        if refusal.named:
            self._shut_until = max(self._shut_until, until)
        else:
            self._guess = until

    def ended(self, ticket: int, now: float) -> None:
        """Note that whoever passed with `ticket` has an outcome that is no refusal."""
        self._guess = -math.inf
        if ticket == self._refusals:  # else it passed before the gate was shut, and tells nothing about now
            self._spacing = self._spacing / 2 if self._spacing > 2 * CLOSEST else 0.0


class Barred:
    """Which of a route's models refuse for a reason that no waiting cures: their key, quota or name."""

    def __init__(self, models: Iterable[str]) -> None:
        self._models = frozenset(models)
        self._barred: set[str] = set()

    def heard(self, outcome: WizardResponse | WizardError) -> bool:
        """Take an outcome in; return whether it failed because every model of the route is barred.

        A model's last word counts, whichever outcome has told it: one that was barred a moment ago is not even asked.
        """
        words = {record.model: record.error for record in outcome.attempts if record.sent and not record.cancelled}
        for model, error in words.items():
            if error is not None and error.verdict.bars_model:
                self._barred.add(model)
            else:
                self._barred.discard(model)
        failed = isinstance(outcome, WizardError) or outcome.served_by in STAND_INS
        return failed and bool(words) and words.keys() <= self._barred and self._models <= self._barred
