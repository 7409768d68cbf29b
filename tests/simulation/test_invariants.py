"""Invariants: each of them passes a healthy report, and catches one in which what it promises does not hold."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from attrs import evolve

from tests.simulation.made_up import (
    CONFIG,
    SCENARIO,
    at_once,
    attempt,
    call,
    conversation,
    of_calls,
    report,
    request,
    retried,
    sample,
    spent,
    tampered,
    unanswered,
    with_config,
)
from wizard_actors import WizardConfig
from wizard_actors.config import SessionsConfig
from wizard_actors.testing import (
    INVARIANTS,
    ClockJump,
    Invariant,
    Kill,
    Report,
    Scenario,
    StorageFault,
    Violation,
    simulate,
)
from wizard_actors.testing.simulation.invariants import violations_of
from wizard_actors.testing.simulation.records import CallRecord, CircuitChange, RequestRecord

KILLED = evolve(SCENARIO, kills=(Kill(actor="router", at=8.0), Kill(actor="router", at=20.0)))
SESSION = {"kind": "session", "session": "s", "cache": None}
LIMITLESS = """
    [[models]]
    name = "a"
    provider = "openai"
    price = { input = 1, output = 2 }
    """

UNPRICED = """
    [[models]]
    name = "a"
    provider = "openai"
    rate_limit = { tokens_per_minute = 1000 }
    """
POOR = LIMITLESS + "[retry_budget]\ninitial = 1\nrefill_per_second = 0\nrefill_to = 0\ndeposit = 0\n"


def unlimited(asked: RequestRecord, *calls: CallRecord, **facts: Any) -> Report:  # noqa: ANN401 - fields of a report
    """A report of one request, at a model without limits."""
    return with_config(LIMITLESS, report([asked], calls, **facts))


def jumping(at: float, *calls: CallRecord) -> Report:
    """A report of these calls, in which the clock jumps seven times, from an instant on."""
    jumps = tuple(ClockJump(at=at + 0.1 * number, seconds=10.0) for number in range(7))
    return evolve(of_calls(*calls), scenario=evolve(SCENARIO, clock_jumps=jumps))


BROKEN: list[tuple[str, str, Report]] = [
    ("answered-once", "nobody answered", tampered(outcomes=())),
    ("answered-once", "answered twice", tampered(outcomes=("answered", "cancelled"))),
    ("answered-once", "begun twice", tampered(began_reports=2)),
    ("answered-once", "never ended", tampered(ends=0)),
    ("answered-once", "reported as failed", tampered(code="network")),
    ("answered-once", "reported as answered", report([unanswered(0, 0.0, "network", code=None)], ())),
    ("answered-once", "never reported", report([unanswered(0, 0.0, "network", began_reports=0, ends=0)], ())),
    (
        "answered-once",
        "an eager reader whose call was stopped",
        report([unanswered(0, 0.0, "deadline_exceeded", code="cancelled")], ()),
    ),
    (
        "answered-once",
        "a cancelled request that is told as answered",
        report([unanswered(0, 0.0, "cancelled", code=None, cache=None)], ()),
    ),
    (
        "answered-once",
        "a deadline that there was not",
        report([unanswered(0, 0.0, "deadline_exceeded", deadline=None)], ()),
    ),
    ("nothing-left", "somebody waits", report([unanswered(0, 0.0, "x", outcomes=(), ends=0)], (), finished=False)),
    ("nothing-left", "a slot is taken", report(held=("a: 1 slots when all was over",))),
    ("whole-answers", "no call's answer", tampered(answer=None)),
    ("whole-answers", "a call that was cut", report(calls=[call(0, 0.0, end="broken"), *report().calls[1:]])),
    ("whole-answers", "another model's call", tampered(model="b")),
    ("whole-answers", "an answer to another prompt", tampered(answer=1)),
    ("whole-answers", "a caller who read something else", tampered(delivered=None)),
    ("no-bug", "an error of no kind", tampered(outcomes=("bug:KeyError",), code="bug", bug="KeyError: 'x'")),
    ("no-provider-bug", "an attempt", tampered(attempts=(attempt(error="provider_bug", cost=None),), cost=None)),
    ("right-prompt", "another prompt", report(calls=[call(0, 0.0, prompts=(7,)), *report().calls[1:]])),
    ("right-prompt", "no prompt", report(calls=[call(0, 0.0, prompts=()), *report().calls[1:]])),
    ("right-prompt", "a prompt too many", report(calls=[call(0, 0.0, prompts=(1, 0)), *report().calls[1:]])),
    ("right-prompt", "nobody's call", report(calls=[call(0, 0.0, request_id="x"), *report().calls[1:]])),
    ("right-prompt", "turns that are not shown", conversation((0,), (1,), (0, 2))),
    ("right-prompt", "turns in another order", conversation((0,), (0, 1), (1, 0, 2))),
    ("right-prompt", "another session's turn", conversation((0,), (9, 0, 1))),
    ("answers-where-it-can", "refused for nothing", unlimited(unanswered(0, 0.0, "network"))),
    (
        "answers-where-it-can",
        "refused while all circuits are closed again",
        evolve(
            unlimited(unanswered(0, 9.0, "all_models_failed")),
            circuits=tuple(
                CircuitChange(at, "a", to) for at, to in ((1.0, "open"), (2.0, "half_open"), (3.0, "closed"))
            ),
        ),
    ),
    (
        "answers-where-it-can",
        "a deadline that it does not have",
        unlimited(unanswered(0, 0.0, "deadline_exceeded", deadline=None)),
    ),
    ("crash-survived", "the first one", report([unanswered(0, 9.0, "actor_crashed")], (), scenario=KILLED)),
    (
        "whole-calls-count",
        "a failed attempt",
        unlimited(request(0, 0.0, deadline=None, attempts=(attempt(error="network"),)), call(0, 0.0)),
    ),
    ("calls-end", "a call that goes on", report(calls=[call(0, 0.0, closed=1.5), *report().calls[1:]])),
    (
        "timeouts-kept",
        "a call that takes for ever",
        unlimited(request(0, 0.0, ended=301.0), call(0, 0.0, closed=301.0)),
    ),
    ("tenants-apart", "another tenant's answer", tampered(tenant="u")),
    ("deadlines-kept", "waited too long", tampered(deadline=0.5)),
    (
        "sessions-stored",
        "a turn was lost",
        report([request(0, 0.0, **SESSION)], [call(0, 0.0)], sessions={"s": (1, 0)}),
    ),
    (
        "sessions-stored",
        "a turn nobody asked for",
        report([request(0, 0.0, **SESSION)], [call(0, 0.0)], sessions={"s": (1, 2)}),
    ),
    (
        "sessions-stored",
        "a turn that is not told",
        report([request(0, 0.0, **SESSION)], [call(0, 0.0)], sessions={"s": (0, 0)}),
    ),
    ("metrics-agree", "an answer is missing", evolve(report(), counts={**report().counts, "answered": 2})),
    ("metrics-agree", "a request too many is shed", evolve(report(), counts={**report().counts, "shed": 1})),
    ("metrics-agree", "a call that no attempt made", report(calls=[*report().calls, call(3, 30.0)])),
    ("no-call-while-open", "a call", of_calls(call(0, 0.0, circuit="open"))),
    ("probes-bounded", "two unheard", of_calls(*at_once(2, circuit="half_open", generation=2))),
    (
        "probes-bounded",
        "three heard",
        of_calls(
            *(
                evolve(each, steps=(10 * each.number, 10 * each.number + 1, 100, 100))
                for each in at_once(3, circuit="half_open")
            )
        ),
    ),
    ("legal-circuits", "closed to half-open", report(circuits=(CircuitChange(1.0, "a", "half_open"),))),
    ("bulkhead", "three of two", of_calls(*at_once(3))),
    (
        "one-call-per-key",
        "two requests",
        of_calls(*at_once(1), *(evolve(each, prompt=0, prompts=(0,)) for each in at_once(2)[1:])),
    ),
    ("requests-per-minute", "four at once", of_calls(*(call(each, 0.0) for each in range(4)))),
    ("requests-per-minute", "a little too fast", of_calls(*(call(each, 0.9 * each) for each in range(60)))),
    (
        "requests-per-minute",
        "too fast, long before the clock jumps",
        jumping(50.0, *(call(each, 0.9 * each) for each in range(50))),
    ),
    (
        "tokens-per-minute",
        "more than the minute has, long before the clock jumps",
        jumping(50.0, *(call(each, 2.0 * each, billed=400) for each in range(4))),
    ),
    (
        "tokens-per-minute",
        "more than the minute has",
        of_calls(*(call(each, 2.0 * each, billed=400) for each in range(4))),
    ),
    ("retry-budget", "a retry that nobody paid for", retried(2, paid=0)),
    ("retry-budget", "more than there ever was", report(spent=tuple(map(spent, (0.0, 0.1, 0.2))))),
    ("retry-budget", "more than it can hold", with_config(POOR, report(spent=(spent(0.0), spent(9.0))))),
    ("attempts-bounded", "three of two", retried(3, paid=2)),
    ("no-cascade", "a flood", with_config(POOR, retried(4, paid=3))),
    ("costs-add-up", "a request that tells more", tampered(cost=Decimal(1))),
    ("costs-add-up", "a call that was billed higher", report(calls=[call(0, 0.0, billed=21), *report().calls[1:]])),
    ("lanes-bounded", "a lane", report(lanes={"wizard/router": (257, 256)})),
    ("lanes-bounded", "requests in flight", report(samples=(sample(in_flight=1001),))),
    (
        "lanes-bounded",
        "requests in flight, as callers saw it",
        with_config(
            LIMITLESS + "[server]\nmax_in_flight = 2\n", report([request(each, 0.1 * each) for each in range(3)])
        ),
    ),
    ("lanes-bounded", "the limiter's queue", report(samples=(sample(limiter_waiting=1001),))),
    ("lanes-bounded", "the worker's queue", report(samples=(sample(waiting=257),))),
    ("lanes-bounded", "slots", report(samples=(sample(slots_in_use=3),))),
]


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


FINE = {
    "a request that was cancelled before it began": report(
        [unanswered(0, 0.0, "cancelled", code=None, began_reports=0, ends=0)], ()
    ),
    "one that was cancelled with its answer on the way": report(
        [request(0, 0.0, outcomes=("cancelled",))], [call(0, 0.0)]
    ),
    "one that was shed": report([unanswered(0, 0.0, "mailbox_full", code=None, began_reports=0, ends=0)], ()),
    "a stopped reader": report(
        [unanswered(0, 0.0, "deadline_exceeded", code="cancelled", reader="stopped", ended=90.0)], ()
    ),
    "a turn whose answer could not be stored": report(
        [request(0, 0.0, outcomes=("storage",), **SESSION)], [call(0, 0.0)], sessions={"s": (0, 0)}
    ),
    "one that was stored when nobody waited any more": report(
        [request(0, 0.0, outcomes=("cancelled",), **SESSION)], [call(0, 0.0)], sessions={"s": (0, 1)}
    ),
    "a static answer": report([request(0, 0.0, answer=None, model="", served_by="static", cost=None, attempts=())], ()),
    "an answer from the cache": report(
        [request(0, 0.0), request(1, 9.0, prompt=0, answer=0, cost=None, attempts=(), cache="hit")], [call(0, 0.0)]
    ),
    "a deadline that a jump of the clock ran over": evolve(
        tampered(number=1, deadline=5.0, ended=70.0),
        scenario=evolve(SCENARIO, clock_jumps=(ClockJump(at=11.0, seconds=55.0),)),
    ),
    "a deadline while the storage is slow": evolve(
        report([request(0, 0.0, deadline=0.5, **SESSION)], [call(0, 0.0)], sessions={"s": (1, 1)}),
        scenario=evolve(SCENARIO, storage_faults=(StorageFault(kind="slow"),)),
    ),
    "a request that bypassed the cache": with_config(
        LIMITLESS + "[cache]\nmax_entries = 9\n",
        report(
            [request(0, 0.0), request(1, 0.0, prompt=0, cache="bypass")],
            [evolve(each, prompt=0, prompts=(0,)) for each in at_once(2)],
        ),
    ),
    "a hedge": with_config(
        LIMITLESS + "[cache]\nmax_entries = 9\n",
        report(
            [request(0, 0.0, attempts=(attempt(), attempt(2, hedge=True, cancelled=True, cost=None)))],
            [evolve(each, prompt=0, prompts=(0,), request_id="r0") for each in at_once(2)],
            spent=(spent(0.0),),
        ),
    ),
    "one whose circuit is open": unlimited(
        unanswered(0, 9.0, "all_models_failed"), circuits=(CircuitChange(1.0, "a", "open"),)
    ),
    "one whose attempt failed": unlimited(
        unanswered(0, 0.0, "all_models_failed", attempts=(attempt(error="network", cost=None),)),
        call(0, 0.0, end="broken", billed=0),
    ),
    "one after a model was barred": with_config(
        LIMITLESS,
        report(
            [
                unanswered(0, 0.0, "all_models_failed", attempts=(attempt(error="auth", cost=None),)),
                unanswered(1, 9.0, "all_models_failed"),
            ],
            [call(0, 0.0, end="refused", status=401, billed=0)],
        ),
    ),
    "one with the error of whom it followed": unlimited(unanswered(0, 0.0, "all_models_failed", cache="follow")),
    "calls that were granted before the clock jumped": jumping(
        9.0, *(call(each, at) for each, at in enumerate((0.0, 0.0, 0.0, 79.0, 79.0, 79.0, 79.8)))
    ),
    "a session whose turns are all shown": conversation((0,), (0, 1), (0, 1, 2)),
    "a session of which the newest turns are shown": evolve(
        conversation((0,), (0, 1), (1, 2)),
        scenario=evolve(SCENARIO, config=CONFIG.changed(sessions=SessionsConfig(context_tokens=9))),
    ),
    "a turn that may be stored, and is not shown": conversation((0,), (1,), failed=0),
    "a retry that was paid for": retried(2, paid=1),
    "one call that costs more than a minute has": with_config(
        UNPRICED, of_calls(call(0, 0.0, billed=5000), call(1, 61.0))
    ),
    "a call that was refused costs no tokens": report(
        [
            unanswered(
                each, 2.0 * each, "network", attempts=(attempt(error="network", cost=None),), estimated_tokens=600
            )
            for each in range(3)
        ],
        [call(each, 2.0 * each, end="refused", status=500, billed=0) for each in range(3)],
    ),
    "as many as may go at once": of_calls(
        *(call(each, 0.0, steps=(each * 4, each * 4 + 1, each * 4 + 2, each * 4 + 3)) for each in range(3))
    ),
    "a probe after another was heard": of_calls(
        *(
            evolve(each, steps=(10 * each.number, 10 * each.number + 1, 100, 100))
            for each in at_once(2, circuit="half_open")
        )
    ),
    "a crash after another": report([unanswered(0, 30.0, "actor_crashed")], (), scenario=KILLED),
    "a circuit that opens, probes, and closes": report(
        circuits=tuple(
            CircuitChange(float(at), "a", to)
            for at, to in enumerate(("open", "half_open", "open", "half_open", "closed"))
        )
    ),
}


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
