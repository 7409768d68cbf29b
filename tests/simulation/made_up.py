"""Reports that are made up by hand: of a run in which all went well, and of others."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from attrs import evolve

from wizard_actors import WizardConfig
from wizard_actors.config import SupervisionConfig
from wizard_actors.testing import ClockJump, Kill, Report, Scenario
from wizard_actors.testing.simulation.records import (
    AttemptRecord,
    CallRecord,
    CircuitChange,
    ModelSample,
    RequestRecord,
    Sample,
    Spent,
)
from wizard_actors.types import TokenUsage

CONFIG = WizardConfig.from_toml(
    """
    [[models]]
    name = "a"
    provider = "openai"
    max_concurrency = 2
    rate_limit = { requests_per_minute = 60, tokens_per_minute = 1000, burst = 3 }
    retry = { max_attempts = 2 }
    circuit_breaker = { half_open_probes = 1, success_threshold = 1 }
    price = { input = 1, output = 2 }
    [[models]]
    name = "b"
    provider = "openai"
    [cache]
    max_entries = 10
    [retry_budget]
    initial = 1
    refill_per_second = 0
    refill_to = 0
    deposit = 0.5
    max = 2
    """,
    env={},
)
SCENARIO = Scenario(config=CONFIG)
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
WINDOWED = LIMITLESS + "context_window = 4000\n"
RATED = LIMITLESS + "circuit_breaker = { failure_rate = 0.5 }\n"
GROUPED = """
    [[models]]
    name = "a"
    provider = "openai"
    rate_limit_group = "one"
    [[models]]
    name = "b"
    provider = "openai"
    rate_limit_group = "one"
    """
OTHER = """
    [[models]]
    name = "b"
    provider = "openai"
    """
POOR = LIMITLESS + "[retry_budget]\ninitial = 1\nrefill_per_second = 0\nrefill_to = 0\ndeposit = 0\n"


def attempt(number: int = 1, **facts: Any) -> AttemptRecord:  # noqa: ANN401 - fields of a record
    """An attempt at "a" that was answered, unless something else is said."""
    usual: dict[str, Any] = {
        "number": number,
        "model": "a",
        "began": 0.0,
        "ended": 1.0,
        "sent": True,
        "hedge": False,
        "cancelled": False,
        "error": None,
        "duration": 1.0,
        "delay": 0.0,
        "slot_wait": 0.0,
        "rate_wait": 0.0,
        "cost": Decimal("0.00003"),
    }
    return AttemptRecord(**usual | facts)


def call(number: int, at: float, **facts: Any) -> CallRecord:  # noqa: ANN401 - fields of a record
    """A call of request `number` to "a" of 10 tokens in and 10 out, answered after a second unless said otherwise."""
    usual: dict[str, Any] = {
        "number": number,
        "model": "a",
        "request_id": f"r{number}",
        "prompt": number,
        "tenant": "t",
        "began": at,
        "heard": at + 0.5,
        "over": at + 1,
        "closed": at + 1,
        "steps": (number * 4, number * 4 + 1, number * 4 + 2, number * 4 + 3),
        "circuit": "closed",
        "generation": 0,
        "fault": None,
        "status": 200,
        "end": "complete",
        "asked_tokens": 10,
        "billed": 20,
        "prompts": (facts.get("prompt", number),),
    }
    return CallRecord(**usual | facts)


def request(number: int, at: float, **facts: Any) -> RequestRecord:  # noqa: ANN401 - fields of a record
    """A request that call `number` answered after a second, unless something else is said."""
    usual: dict[str, Any] = {
        "number": number,
        "kind": "generate",
        "prompt": number,
        "prompt_words": 10,
        "tenant": "t",
        "session": None,
        "deadline": 5.0,
        "arrived": at,
        "ended": at + 1,
        "outcomes": ("answered",),
        "request_id": f"r{number}",
        "began_reports": 1,
        "ends": 1,
        "model": "a",
        "served_by": "direct",
        "answer": number,
        "cost": Decimal("0.00003"),
        "attempts": (attempt(began=at, ended=at + 1),),
        "estimated_tokens": 10,
        "cache": "lead",
        "delivered": facts.get("answer", number),
        "told_cost": facts.get("cost", Decimal("0.00003")),
        "told_usage": TokenUsage(input_tokens=10, output_tokens=10),
        "finish_reason": "stop",
    }
    return RequestRecord(**usual | facts)


def unanswered(number: int, at: float, outcome: str, **facts: Any) -> RequestRecord:  # noqa: ANN401 - fields of a record
    """A request without an answer, for which nothing was sent."""
    usual: dict[str, Any] = {
        "outcomes": (outcome,),
        "code": outcome,
        "model": None,
        "served_by": None,
        "answer": None,
        "cost": None,
        "attempts": (),
        "told_cost": None,
        "told_usage": None,
        "finish_reason": None,
    }
    return request(number, at, **usual | facts)


def report(
    requests: Sequence[RequestRecord] | None = None,
    calls: Sequence[CallRecord] | None = None,
    **facts: Any,  # noqa: ANN401 - fields of a report
) -> Report:
    """What came of a run in which all went well, unless something else is said; its metrics agree with all that."""
    made = [request(number, 10.0 * number) for number in range(3)] if requests is None else requests
    sent = [call(number, 10.0 * number) for number in range(3)] if calls is None else calls
    ends = [each for each in made if each.ends]
    usual: dict[str, Any] = {
        "scenario": SCENARIO,
        "requests": tuple(made),
        "calls": tuple(sent),
        "circuits": (),
        "spent": (),
        "samples": (),
        "lanes": {"wizard/router": (3, 256)},
        "restarts": {},
        "sessions": {},
        "counts": {
            "began": sum(each.began_reports for each in made),
            "answered": sum(each.code is None for each in ends),
            "cancelled": sum(each.code == "cancelled" for each in ends),
            "failed": sum(each.code not in {None, "cancelled"} for each in ends),
            "shed": sum(each.outcome == "mailbox_full" and not each.ends for each in made),
            "attempts": sum(len(each.attempts) for each in made),
            "upstream_calls": len(sent),
        },
        "held": (),
        "finished": True,
        "ended": 30.0,
    }
    return Report(**usual | facts)


def tampered(number: int = 0, **facts: Any) -> Report:  # noqa: ANN401 - fields of a record
    """A healthy report, but for one of its requests."""
    healthy = report()
    requests = [evolve(each, **facts) if each.number == number else each for each in healthy.requests]
    return report(requests, counts=healthy.counts)


def of_calls(*calls: CallRecord, **facts: Any) -> Report:  # noqa: ANN401 - fields of a record
    """A report with a request for each of these calls."""
    requests = [
        request(
            each.number,
            each.began,
            attempts=(attempt(model=each.model, began=each.began),),
            model=each.model,
            told_usage=TokenUsage(input_tokens=each.asked_tokens, output_tokens=each.billed - each.asked_tokens),
        )
        for each in calls
    ]
    return report(requests, calls, **facts)


def conversation(*shown: tuple[int, ...], failed: int | None = None) -> Report:
    """A report of a session, by the prompts that were shown for each turn; the answer of `failed` was not stored."""
    turns = [
        request(
            number,
            10.0 * number,
            kind="session",
            session="s",
            cache=None,
            outcomes=("storage" if number == failed else "answered",),
        )
        for number in range(len(shown))
    ]
    calls = [call(number, 10.0 * number, prompts=prompts) for number, prompts in enumerate(shown)]
    told = sum(turn.outcome == "answered" for turn in turns)
    return report(turns, calls, sessions={"s": (told, told)})


def with_config(text: str, made: Report) -> Report:
    """The same report of another configuration."""
    return evolve(made, scenario=Scenario(config=WizardConfig.from_toml(text, env={})))


def at_once(number: int, **facts: Any) -> list[CallRecord]:  # noqa: ANN401 - fields of a record
    """So many calls that begin one after the other at one instant, and all last a second."""
    late = {"steps": ()}
    calls = [call(each, 0.0, **late | facts) for each in range(number)]
    return [
        evolve(each, steps=(each.number, 100 + each.number, 200 + each.number, 300 + each.number)) for each in calls
    ]


def spent(at: float, request_id: str = "r0") -> Spent:
    """A retry that was paid for."""
    return Spent(at=at, request_id=request_id, model="a", hedge=False, paid=True)


def sample(**facts: int) -> Sample:
    """How a client stood: nobody was anywhere, unless something else is said."""
    usual: dict[str, Any] = {"circuit": "closed", "slots_in_use": 0, "waiting": 0, "limiter_waiting": 0}
    model = ModelSample(paused_for=0.0, **usual | {name: fact for name, fact in facts.items() if name in usual})
    return Sample(at=1.0, in_flight=facts.get("in_flight", 0), budget=1.0, models={"a": model})


def retried(times: int, *, paid: int, fallbacks: int = 0) -> Report:
    """A report with one request that made so many calls, the last of which answered."""
    calls = [call(number, 2.0 * number, request_id="r0", prompt=0) for number in range(times)]
    attempts = tuple(attempt(number + 1, error="network", cost=None) for number in range(times - 1))
    made = request(0, 0.0, attempts=(*attempts, attempt(times)), answer=times - 1, ended=4.0, fallbacks=fallbacks)
    return report([made], calls, spent=tuple(spent(float(number)) for number in range(paid)))


def unlimited(asked: RequestRecord, *calls: CallRecord, **facts: Any) -> Report:  # noqa: ANN401 - fields of a report
    """A report of one request, at a model without limits."""
    return with_config(LIMITLESS, report([asked], calls, **facts))


def jumping(at: float, *calls: CallRecord) -> Report:
    """A report of these calls, in which the clock jumps seven times, from an instant on."""
    jumps = tuple(ClockJump(at=at + 0.1 * number, seconds=10.0) for number in range(7))
    return evolve(of_calls(*calls), scenario=evolve(SCENARIO, clock_jumps=jumps))


def failing(times: int, apart: float, *, began: float = 0.0, opened: float | None = None) -> Report:
    """A report of requests whose calls fail after half a second; the circuit opens, or stays closed."""
    error: dict[str, Any] = {"error": "network", "duration": 0.5, "cost": None}
    asked, calls = [], []
    for each in range(times):
        at = began + each * apart
        tried = attempt(began=at, ended=at + 0.5, **error)
        asked.append(unanswered(each, at, "network", attempts=(tried,), ended=at + 0.5))
        calls.append(call(each, at, end="broken", billed=0, closed=at + 0.5))
    circuits = () if opened is None else (CircuitChange(opened, "a", "open"),)
    return with_config(LIMITLESS, report(asked, calls, circuits=circuits))


def paused(*begun: float, model: str = "a") -> Report:
    """A report of a call that met a 429 after a second, with 7 s to wait, and of others that began then."""
    limited = attempt(error="rate_limit", retry_after=7.0, cost=Decimal(0))
    first = unanswered(0, 0.0, "rate_limit", attempts=(limited,), cost=Decimal(0))
    others = [
        request(each, at, model=model, attempts=(attempt(model=model, began=at, ended=at + 1),))
        for each, at in enumerate(begun, 1)
    ]
    calls = [call(0, 0.0, end="refused", status=429, billed=0)]
    calls += [call(each, at, model=model) for each, at in enumerate(begun, 1)]
    return with_config(LIMITLESS, report([first, *others], calls))


def hedged(*begun: float) -> Report:
    """A report of a request whose attempts began at these instants, all but the first of them hedges of 2 s."""
    attempts = [
        attempt(number, began=at, hedge=number > 1, cancelled=True, cost=None) for number, at in enumerate(begun, 1)
    ]
    answered = evolve(attempts[0], cancelled=False, cost=Decimal("0.00003"), ended=9.0)
    asked = request(0, 0.0, attempts=(answered, *attempts[1:]), ended=9.0, deadline=None)
    calls = [call(number, at, request_id="r0", prompt=0, closed=9.0) for number, at in enumerate(begun)]
    paid = tuple(evolve(spent(at), hedge=True) for at in begun[1:])
    return with_config(
        LIMITLESS + OTHER + '[fallback]\nstrategy = "hedged"\nhedge_delay = 2\n[cache]\nmax_entries = 9\n',
        report([asked], calls, spent=paid),
    )


def cached(at: float, **facts: Any) -> Report:  # noqa: ANN401 - fields of a record
    """A report of two requests, of which the second got the answer of the first, in an hour's cache."""
    usual: dict[str, Any] = {"cache": "hit", "served_by": "cache", "cost": None, "told_cost": Decimal(0)}
    again = request(1, at, prompt=0, answer=0, attempts=(), **usual | facts)
    return report([request(0, 0.0), again], [call(0, 0.0)])


def in_order(*ends: float) -> Report:
    """A report of turns of one session that came one after the other, and ended at these instants."""
    turns = [
        request(number, 0.1 * number, ended=at, deadline=None, attempts=(attempt(began=at - 1, ended=at),), **SESSION)
        for number, at in enumerate(ends)
    ]
    order = sorted(range(len(ends)), key=lambda number: ends[number])
    calls = {
        number: call(number, ends[number] - 1, prompts=tuple(order[: place + 1])) for place, number in enumerate(order)
    }
    sent = [calls[number] for number in range(len(ends))]
    return with_config(LIMITLESS, report(turns, sent, sessions={"s": (len(ends), len(ends))}))


def with_supervision(made: Report) -> Report:
    """The same report of a client that restarts nothing."""
    config = made.scenario.config.changed(supervision=SupervisionConfig(max_restarts=0))
    return evolve(made, scenario=evolve(made.scenario, config=config))


FILTERED = attempt(error="content_filter", cost=None)
FAILED = attempt(error="network", cost=None)
BARRED = attempt(2, model="b", error="auth", cost=None)
