"""Reports in which something does not hold, each with the invariant that is to catch it."""

from __future__ import annotations

from decimal import Decimal

from attrs import evolve

from tests.simulation.made_up import (
    FAILED,
    GROUPED,
    KILLED,
    LIMITLESS,
    POOR,
    SESSION,
    at_once,
    attempt,
    cached,
    call,
    conversation,
    failing,
    hedged,
    in_order,
    jumping,
    of_calls,
    paused,
    report,
    request,
    retried,
    sample,
    spent,
    tampered,
    unanswered,
    unlimited,
    with_config,
)
from wizard_actors.testing import Report
from wizard_actors.testing.simulation.records import CircuitChange
from wizard_actors.types import TokenUsage

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
    ("falls-back", "one of two was tried", report([unanswered(0, 0.0, "network", attempts=(FAILED,))], ())),
    (
        "falls-back",
        "a stand-in for what nobody was asked for",
        report([request(0, 0.0, answer=None, model="", served_by="static", attempts=(FAILED,), deadline=None)], ()),
    ),
    (
        "follows-chain",
        "the second one first",
        report([request(0, 0.0, model="b", attempts=(attempt(1, model="b"),))], [call(0, 0.0, model="b")]),
    ),
    (
        "follows-chain",
        "the first one last",
        report([request(0, 0.0, attempts=(attempt(1, model="b", error="network"), attempt(2)))], [call(0, 0.0)]),
    ),
    ("hedges-wait", "half its delay", hedged(0.0, 1.0)),
    ("hedges-wait", "the second one", hedged(0.0, 2.0, 3.0)),
    ("fresh-answers", "a second too old", cached(3602.0)),
    ("fresh-answers", "a stale one, an hour too old", cached(3602.0, cache="lead", served_by="stale")),
    ("circuit-opens", "never", failing(5, 0.5)),
    ("circuit-opens", "too late", failing(5, 0.5, opened=4.0)),
    ("circuit-opens", "one of before", failing(5, 0.5, began=30.0, opened=20.0)),
    ("pauses-kept", "a call within it", paused(5.0)),
    ("pauses-kept", "a call of another model of its group", with_config(GROUPED, paused(5.0, model="b"))),
    ("told-right", "a thousand times the cost", tampered(told_cost=Decimal("0.03"))),
    ("told-right", "no cost", tampered(told_cost=None)),
    ("told-right", "no usage", tampered(told_usage=None)),
    ("told-right", "another usage", tampered(told_usage=TokenUsage(input_tokens=11, output_tokens=10))),
    ("told-right", "another end", tampered(finish_reason="length")),
    ("told-right", "what was cut for whole", tampered(cut=True)),
    ("turns-in-order", "the first one last", in_order(3, 1, 2)),
    ("turns-in-order", "only the last two", in_order(1, 3, 2)),
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
