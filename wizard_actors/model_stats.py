"""What the routes have learned about one model: how often it answers, how soon its first token comes, what it costs.

Successes and failures are counted with a half-life, so that what a model did lately weighs most, and one that nobody
has asked for a while becomes unknown again rather than staying good or bad for ever.

Waits for a first token that were broken off, by a hedge that won or by a limit, are not left out: only the fast ones
would be known then, and a model would look the faster the more often it is slow. Nor does such a wait count as the
first token's own: it is known only that the token would have come later. So quantiles are those of the product-limit
estimator (Kaplan and Meier 1958), which is made for such observations, and is the plain quantile where there are none.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final, NamedTuple

from attrs import evolve, frozen

from wizard_actors.errors import WizardError
from wizard_actors.verdict import Next, Row

__all__ = ["BELIEVED_FROM", "HALF_LIFE", "WINDOW", "ModelStats", "Wait"]

HALF_LIFE: Final = 300.0
"""Seconds after which an observation counts half."""

WINDOW: Final = 128
"""The newest waits for a first token that are kept."""

BELIEVED_FROM: Final = 20
"""First tokens that have to be known before a quantile is believed."""

COST_KNOWN_FROM: Final = 0.1
"""The decayed number of priced answers from which their mean is believed: one answer is for about 1,000 s."""

FAILING_FROM: Final = 3.0
"""The decayed number of ends from which a model can be called failing."""

FAILING_BELOW: Final = 0.2
"""The share of successes below which it is."""

ROUNDING: Final = 1e-9

BROKEN_OFF: Final = frozenset({Row.SILENT, Row.FINAL})
"""The errors by which we stopped waiting, rather than the model answering with an error."""


class Wait(NamedTuple):
    """How long a call waited for its first token, in seconds. `broken_off`: it had not come by then."""

    seconds: float
    broken_off: bool = False


@frozen
class ModelStats:
    """The statistics of one model, a plain frozen value: it is published, and carried over crashes and reloads.

    `attempts` counts all that were sent and have ended, cancelled ones too. `successes` and `failures` are decayed
    counts as of the instant `at`; read them from `aged(now)`. `mean_cost` is that of an answer in US dollars, the newer
    ones weighing more, None before the first with a known cost; `priced` is the decayed number of answers in it.
    `waits` are the newest waits for a first token, at most `WINDOW` of them, the oldest first.
    """

    attempts: int = 0
    successes: float = 0.0
    failures: float = 0.0
    mean_cost: float | None = None
    priced: float = 0.0
    waits: tuple[Wait, ...] = ()
    at: float = -math.inf

    def observed(
        self,
        error: WizardError | None,
        *,
        started: float,
        now: float,
        first_token: float | None = None,
        cost: Decimal | None = None,
        cancelled: bool = False,
    ) -> ModelStats:
        """Return the statistics once an attempt that was sent at `started` has ended at `now`.

        An answer is a success. An error after which another model is asked is a failure, but for those that bar the
        model: bars see to them. Everything else is neutral: a cancelled attempt, the prompt's own faults, the caller's
        deadline. `first_token` is in seconds from `started`; where none came and the wait was broken off, it is kept as
        that, and where the model refused or answered in one piece, nothing is.
        """
        aged = self.aged(now)
        succeeded = error is None and not cancelled
        failed = error is not None and not cancelled and error.verdict.next is Next.YES and not error.verdict.bars_model
        mean, priced = aged.mean_cost, aged.priced
        if succeeded and cost is not None:
            priced += 1.0
            mean = float(cost) if mean is None else mean + (float(cost) - mean) / priced
        return evolve(
            aged,
            attempts=self.attempts + 1,
            successes=aged.successes + succeeded,
            failures=aged.failures + failed,
            mean_cost=mean,
            priced=priced,
            waits=self._waits_with(_wait(error, now - started, first_token, cancelled=cancelled)),
        )

    def aged(self, now: float) -> ModelStats:
        """Return the statistics as they count at `now`. A clock that went back ages nothing."""
        left = 0.5 ** (max(0.0, now - self.at) / HALF_LIFE)
        return evolve(
            self, successes=self.successes * left, failures=self.failures * left, priced=self.priced * left, at=now
        )

    @property
    def success_chance(self) -> float:
        """How probably the next call succeeds: (s + 1) / (s + f + 1), as if one more had succeeded. A model of which
        nothing is known, or known no longer, is expected to work: else nobody would find out.
        """
        return (self.successes + 1.0) / (self.successes + self.failures + 1.0)

    @property
    def failing(self) -> bool:
        """Whether hardly any call succeeded lately: fewer than one in five, of at least three."""
        ends = self.successes + self.failures
        return ends >= FAILING_FROM and self.successes < FAILING_BELOW * ends

    @property
    def cost_per_answer(self) -> float | None:
        """The mean cost of an answer in US dollars; None where none is known, or all are too old to be believed."""
        return self.mean_cost if self.priced >= COST_KNOWN_FROM else None

    def first_token_quantile(self, share: float) -> float | None:
        """Return within how many seconds this share of the first tokens comes, between 0 and 1.

        None where fewer than `BELIEVED_FROM` first tokens are known, or too many waits were broken off to tell.
        """
        if sum(not wait.broken_off for wait in self.waits) < BELIEVED_FROM:
            return None
        later = 1.0
        for rank, wait in enumerate(sorted(self.waits)):
            if wait.broken_off:
                continue
            waiting = len(self.waits) - rank
            later *= (waiting - 1) / waiting
            if later <= 1.0 - share + ROUNDING:
                return wait.seconds
        return None

    def _waits_with(self, wait: Wait | None) -> tuple[Wait, ...]:
        """Return the waits with one more. One that was broken off sooner than any first token came says nothing, and
        callers in a hurry do not push out those that do.
        """
        if wait is None:
            return self.waits
        if wait.broken_off and wait.seconds < min(
            (known.seconds for known in self.waits if not known.broken_off), default=0.0
        ):
            return self.waits
        return (*self.waits[1 - WINDOW :], wait)


def _wait(error: WizardError | None, lasted: float, first_token: float | None, *, cancelled: bool) -> Wait | None:
    if first_token is not None:
        return Wait(max(0.0, first_token))
    if cancelled or (error is not None and error.row in BROKEN_OFF):
        return Wait(max(0.0, lasted), broken_off=True)
    return None
