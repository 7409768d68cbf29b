"""Reports at the very edge of what the invariants allow, and of what they except."""

from __future__ import annotations

from decimal import Decimal

from attrs import evolve

from tests.simulation.made_up import (
    BARRED,
    CONFIG,
    FAILED,
    FILTERED,
    KILLED,
    LIMITLESS,
    RATED,
    SCENARIO,
    SESSION,
    UNPRICED,
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
    spent,
    tampered,
    unanswered,
    unlimited,
    with_config,
    with_supervision,
)
from wizard_actors.config import SessionsConfig
from wizard_actors.testing import ClockJump, StorageFault
from wizard_actors.testing.simulation.records import CircuitChange

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
        [
            request(0, 0.0),
            request(1, 9.0, prompt=0, answer=0, cost=None, told_cost=Decimal(0), attempts=(), cache="hit"),
        ],
        [call(0, 0.0)],
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
            unanswered(each, 2.0 * each, "content_filter", attempts=(FILTERED,), estimated_tokens=600)
            for each in range(3)
        ],
        [call(each, 2.0 * each, end="refused", status=400, billed=0) for each in range(3)],
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
    "an error after which nobody else is asked": report(
        [unanswered(0, 0.0, "content_filter", attempts=(FILTERED,))],
        [call(0, 0.0, end="refused", status=400, billed=0)],
    ),
    "a live stream that broke off": report(
        [unanswered(0, 0.0, "stream_interrupted", kind="stream", attempts=(FAILED,))],
        [call(0, 0.0, end="broken", billed=0)],
    ),
    "another model that is barred": report(
        [
            unanswered(0, 0.0, "all_models_failed", attempts=(FAILED, BARRED), ended=2.0, fallbacks=1),
            unanswered(1, 9.0, "all_models_failed", attempts=(FAILED,)),
        ],
        [
            call(0, 0.0, end="broken", billed=0),
            call(1, 0.5, end="refused", status=401, billed=0, model="b", request_id="r0", prompt=0),
            call(2, 9.0, end="broken", billed=0, request_id="r1", prompt=1),
        ],
    ),
    "a crash where nothing is restarted": with_supervision(
        report([unanswered(0, 9.0, "actor_crashed")], (), scenario=KILLED)
    ),
    "hedges in time": hedged(0.0, 2.0, 4.0),
    "an answer that is as old as it may be": cached(3601.0),
    "a stale answer": with_config(
        LIMITLESS + "[cache]\nmax_entries = 9\nstale_if_error = 60\n",
        cached(3660.0, cache="lead", served_by="stale"),
    ),
    "a circuit that opens in time": failing(5, 0.5, opened=2.5),
    "failures too far apart": failing(5, 15.1),
    "too few failures": failing(4, 0.5),
    "a failure rate": with_config(RATED, failing(9, 0.5)),
    "calls after a pause, and one that was under way": paused(0.5, 9.0),
    "turns in their order": in_order(1, 2, 3),
    "an answer that is cut": tampered(cut=True, finish_reason="length"),
    "a crash after another": report([unanswered(0, 30.0, "actor_crashed")], (), scenario=KILLED),
    "a circuit that opens, probes, and closes": report(
        circuits=tuple(
            CircuitChange(float(at), "a", to)
            for at, to in enumerate(("open", "half_open", "open", "half_open", "closed"))
        )
    ),
}
