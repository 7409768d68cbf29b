"""Invariants: each of them passes a healthy report, and catches one in which what it promises does not hold."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve

from tests.simulation.broken_reports import BROKEN
from tests.simulation.fine_reports import FINE
from tests.simulation.made_up import (
    LIMITLESS,
    SESSION,
    WINDOWED,
    call,
    of_calls,
    report,
    request,
    spent,
    unanswered,
    with_config,
)
from wizard_actors import WizardConfig
from wizard_actors.testing import (
    INVARIANTS,
    ClockJump,
    Invariant,
    Report,
    Scenario,
    Violation,
    simulate,
)
from wizard_actors.testing.simulation.invariants import violations_of


def names(made: Report) -> set[str]:
    """Return the names of the invariants that a report is against."""
    return {violation.invariant for violation in violations_of(made, INVARIANTS)}


def test_a_healthy_report_is_against_none() -> None:
    """Else what the others catch would say nothing."""
    assert violations_of(report(), INVARIANTS) == ()


@pytest.mark.parametrize(
    ("name", "broken"), [pytest.param(name, made, id=f"{name}: {what}") for name, what, made in BROKEN]
)
def test_what_does_not_hold_is_caught(name: str, broken: Report) -> None:
    """By the invariant that promises it."""
    assert name in names(broken)


def test_every_invariant_has_been_seen_to_fail() -> None:
    """One that cannot fail is none; and names are unique, and promises sentences."""
    assert {name for name, _, _ in BROKEN} == {invariant.name for invariant in INVARIANTS}
    assert len({invariant.name for invariant in INVARIANTS}) == len(INVARIANTS)
    assert all(invariant.promise.endswith(".") for invariant in INVARIANTS)


@pytest.mark.parametrize("made", [pytest.param(made, id=what) for what, made in FINE.items()])
def test_what_is_no_breach_is_none(made: Report) -> None:
    """What the promises except, and the very edge of what they allow."""
    assert violations_of(made, INVARIANTS) == ()


def test_a_run_that_never_ended_says_only_that() -> None:
    """Nobody has looked at the books of such a run."""
    waiting = unanswered(0, 0.0, "nothing", outcomes=(), code=None, ends=0)

    assert names(report([waiting], (), finished=False, counts={})) == {"answered-once", "nothing-left"}


def test_twenty_of_a_kind_are_told() -> None:
    """Nobody reads on, and a report of an outage would else be as long as the outage."""
    asked = [evolve(request(number, 0.0), outcomes=()) for number in range(100)]

    told = [each for each in violations_of(report(asked, ()), INVARIANTS) if each.invariant == "answered-once"]

    assert len(told) == 20
    assert str(told[0]) == "answered-once: request 0 had 0 outcomes: none"


def test_an_invariant_of_ones_own_is_checked() -> None:
    """Beside ours, of the same report."""

    def few(made: Report) -> Iterator[str]:
        if len(made.requests) > 3:
            yield f"{len(made.requests)} requests"

    own = Invariant("few-requests", "Hardly anybody asks.", few)
    calm = Scenario(config=WizardConfig.from_toml(LIMITLESS, env={}), duration=2.0)

    found = simulate(calm, invariants=[*INVARIANTS, own]).violations

    assert [each.invariant for each in found] == ["few-requests"]
    assert isinstance(found[0], Violation)


@pytest.mark.long
def test_72_000_requests_are_checked_in_seconds() -> None:
    """No check looks at every two of them."""
    calls = [call(number, 2.0 * number) for number in range(72_000)]
    large = of_calls(*calls, spent=tuple(spent(2.0 * number, f"r{number}") for number in range(0, 72_000, 10)))
    began = time.process_time()

    violations_of(large, INVARIANTS)

    assert time.process_time() - began < 15


@pytest.mark.long
def test_long_sessions_and_many_jumps_of_the_clock_are_checked_in_seconds() -> None:
    """What a call shows is not compared with all turns before it, nor a request with all jumps."""
    turns = [request(number, 10.0 * number, **SESSION) for number in range(8_000)]
    calls = [call(number, 10.0 * number) for number in range(8_000)]
    jumps = tuple(ClockJump(at=float(number), seconds=0.001) for number in range(8_000))
    windowed = with_config(WINDOWED, report(turns, calls, sessions={"s": (8_000, 8_000)}))
    large = evolve(windowed, scenario=evolve(windowed.scenario, clock_jumps=jumps))
    began = time.process_time()

    found = violations_of(large, INVARIANTS)

    assert found == ()
    assert time.process_time() - began < 4


def test_a_check_that_raises_is_told_and_so_is_what_the_others_found() -> None:
    """As a violation of its own, after what it had found before."""

    def broken(made: Report) -> Iterator[str]:
        yield f"{len(made.requests)} requests"
        raise KeyError("x")

    own = Invariant("broken", "It raises.", broken)
    other = Invariant("other", "It finds.", lambda _: ["something"])

    found = violations_of(report(), [own, other])

    assert [each.invariant for each in found] == ["broken", "broken", "other"]
    assert found[1].what == "its check raised KeyError: 'x'"


@pytest.mark.parametrize(
    ("told", "what"),
    [
        (None, "its check must return sentences, a list of them, not None"),
        ("one", "its check must return sentences, a list of them, not 'one'"),
        ([7], "its check told no sentence: 7"),
    ],
)
def test_a_check_that_returns_no_sentences_is_told(told: Any, what: str) -> None:  # noqa: ANN401 - the mistake
    """Nothing is no sentence, and a text is one and not many."""
    own = Invariant("own", "It tells.", lambda _: told)

    assert violations_of(report(), [own]) == (Violation("own", what),)
