"""Whom a request asks, in which order, and when: the chain's first, the others where it failed or was late. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from wizard_actors.config import RouteConfig
from wizard_actors.errors import DeadlineExceededError, StreamInterruptedError
from wizard_actors.plan import SHORTEST_HEDGE_DELAY
from wizard_actors.strategies import CHAIN_ORDER, ORDERS
from wizard_actors.testing.simulation.invariants.invariant import FUZZ, Invariant
from wizard_actors.testing.simulation.invariants.jumps import Jumps, virtual_jumps
from wizard_actors.testing.simulation.invariants.verdicts import BARRING, VERDICT_OF
from wizard_actors.testing.simulation.records import AttemptRecord, RequestRecord
from wizard_actors.testing.simulation.report import Report
from wizard_actors.testing.simulation.scenario import Scenario
from wizard_actors.verdict import Next

__all__ = ["FALLBACK"]

GONE: Final = frozenset({"cancelled", "left", "nothing"})
STAND_INS: Final = frozenset({"stale", "static"})
TRIES_ALL: Final = CHAIN_ORDER | ORDERS.keys()
"""The strategies that leave no model out."""


def _route(scenario: Scenario) -> RouteConfig:
    """Return the route that all requests of a run take."""
    config, name = scenario.config, scenario.workload.route
    return next((route for route in config.routes if route.name == name), config.fallback)


def _falls_back(report: Report) -> Iterator[str]:
    scenario, route = report.scenario, _route(report.scenario)
    if scenario.kills or any(virtual_jumps(scenario)) or route.strategy not in TRIES_ALL:
        return
    configured = {model.name: model for model in scenario.config.models}
    chain = [configured[name] for name in route.chain or report.models]
    able = [model.name for model in chain if model.enabled and model.context_window is None]
    barred = _barred(report)
    for request in report.requests:
        if not request.attempts or not _failed(request) or _stopped(request, spill=route.spill):
            continue
        tried = {attempt.model for attempt in request.attempts}
        for model in able:
            if model not in tried and request.ended < barred.get(model, math.inf):
                how = f"ended in {request.code!r}" if request.served_by is None else f"got a {request.served_by} answer"
                yield f"request {request.number} {how}, and nobody has tried {model}"


def _follows_chain(report: Report) -> Iterator[str]:
    scenario, route = report.scenario, _route(report.scenario)
    if scenario.kills or route.strategy != "sequential":
        return
    configured = {model.name: model for model in scenario.config.models}
    chain = route.chain or report.models
    places = {model: place for place, model in enumerate(chain)}
    able = [model for model in chain if configured[model].enabled and configured[model].context_window is None]
    barred = _barred(report)
    for request in report.requests:
        tried = dict.fromkeys(attempt.model for attempt in sorted(request.attempts, key=_number))
        order = [places[model] for model in tried]
        if order != sorted(order):
            yield f"request {request.number} tried {', '.join(tried)}, and its route is {', '.join(chain)}"
            continue
        for model in able:
            over = order and places[model] < order[-1] and model not in tried
            if over and request.ended < barred.get(model, math.inf):
                yield f"request {request.number} tried {', '.join(tried)}, and passed {model} by"


def _number(attempt: AttemptRecord) -> int:
    return attempt.number


def _hedges_wait(report: Report) -> Iterator[str]:
    route = _route(report.scenario)
    if route.strategy != "hedged":
        return
    delay = route.hedge_delay
    if route.hedge_quantile is not None:
        delay = min(delay, SHORTEST_HEDGE_DELAY)
    jumps = Jumps(report.scenario)
    for request in report.requests:
        last = min((attempt.began for attempt in request.attempts), default=math.inf)
        for hedge in sorted((attempt for attempt in request.attempts if attempt.hedge), key=_number):
            # Where the clock jumps between a hedge's planning and an attempt's beginning, the delay has passed.
            if hedge.began < last + delay - jumps.begun_in(request.arrived, hedge.began) - FUZZ:
                yield (
                    f"request {request.number} began a hedge at {hedge.model} {hedge.began - last:.3f} s after the "
                    f"attempt before, where the delay is {delay:g} s"
                )
            last = hedge.began


def _failed(request: RequestRecord) -> bool:
    """Whether no model has answered, and its caller stayed to learn it."""
    if request.outcome in GONE or request.bug is not None or request.reader != "eager":
        return False
    return request.code is not None or request.served_by in STAND_INS


def _stopped(request: RequestRecord, *, spill: bool) -> bool:
    """Whether what it met may have been the end of it, as the verdict table says, or because its time was up, or
    because its caller had read half an answer.
    """
    if request.outcome == DeadlineExceededError.code or (request.served_by in STAND_INS and request.deadline):
        return True
    if request.kind == "stream" and request.outcome == StreamInterruptedError.code:
        return True
    rules = {VERDICT_OF[attempt.error].next for attempt in request.attempts if attempt.error is not None}
    return Next.NO in rules or (Next.IF_SPILL in rules and not spill)


def _barred(report: Report) -> dict[str, float]:
    """Return from when on each model may have been left out."""
    since: dict[str, float] = {}
    for request in report.requests:
        for attempt in request.attempts:
            if attempt.error in BARRING:
                since[attempt.model] = min(attempt.ended, since.get(attempt.model, math.inf))
    return since


FALLBACK: Final = (
    Invariant(
        "falls-back",
        "A request fails only once every model of its route was tried, or an error said that no other would do.",
        _falls_back,
    ),
    Invariant(
        "follows-chain",
        "A sequential route's models are tried in the chain's order, and none is passed by.",
        _follows_chain,
    ),
    Invariant("hedges-wait", "A hedge begins hedge_delay seconds after the attempt before it, or later.", _hedges_wait),
)
