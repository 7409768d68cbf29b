"""What an invariant is, and how a report is checked against many of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from attrs import frozen

from wizard_actors.testing.simulation.records import Violation
from wizard_actors.testing.simulation.report import Report

__all__ = ["FUZZ", "Invariant", "violations_of"]

MOST_EACH: Final = 20
"""How many violations of one invariant are told."""

FUZZ: Final = 1e-6
"""What rounding may shift an instant, or an amount, by, and more."""


@frozen
class Invariant:
    """A promise: its `name`, what it says in a sentence, and `check`, which yields what it finds against it.

    A check gets the whole report, of a run that may have been broken off too, and yields sentences that name requests
    and calls by their numbers. It should be no slower than sorting: reports have many thousands of both.
    """

    name: str
    promise: str
    check: Callable[[Report], Iterable[str]]


def violations_of(report: Report, invariants: Sequence[Invariant]) -> tuple[Violation, ...]:
    """Return where a report is against the invariants, at most 20 places of each; a check that raises, or that returns
    no sentences, is one.
    """
    return tuple(found for invariant in invariants for found in _found(report, invariant))


def _found(report: Report, invariant: Invariant) -> Iterator[Violation]:
    try:
        told: object = invariant.check(report)
        if isinstance(told, str) or not isinstance(told, Iterable):
            yield Violation(invariant.name, f"its check must return sentences, a list of them, not {told!r:.80}")
            return
        for what in islice(told, MOST_EACH):
            yield Violation(invariant.name, what if isinstance(what, str) else f"its check told no sentence: {what!r}")
    except Exception as error:  # noqa: BLE001 - of whoever wrote the check: what the others found is told all the same
        yield Violation(invariant.name, f"its check raised {type(error).__name__}: {error}")
