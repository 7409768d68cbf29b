"""What is spent, and what there is to spend: rates, tokens, retries, attempts, money, room to wait. Pure."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final

from wizard_actors.config import ModelConfig, RateLimitConfig
from wizard_actors.cost import cost_of
from wizard_actors.testing.simulation.invariants.answers import virtual_jumps
from wizard_actors.testing.simulation.invariants.invariant import FUZZ, Invariant
from wizard_actors.testing.simulation.invariants.liveness import most_at_once
from wizard_actors.testing.simulation.records import AttemptRecord, CallRecord, RequestRecord
from wizard_actors.testing.simulation.report import Report
from wizard_actors.types import TokenUsage

__all__ = ["LIMITS"]

MINUTE: Final = 60.0
LATE: Final = 0.05
"""Seconds by which leave may be older than its use at first, four times as many each time that the clock jumps."""

MOST_DOUBLED: Final = 50


def _limiters(report: Report) -> Iterator[tuple[str, RateLimitConfig, frozenset[str]]]:
    """Yield the name of each limiter, what it goes by, and whose calls it grants."""
    enabled = [model for model in report.scenario.config.models if model.enabled]
    groups: dict[str, list[ModelConfig]] = {}
    for model in enabled:
        if model.rate_limit_group is None:
            yield model.name, model.rate_limit, frozenset({model.name})
        else:
            groups.setdefault(model.rate_limit_group, []).append(model)
    for name, members in groups.items():
        yield name, members[0].rate_limit, frozenset(member.name for member in members)


class _Lateness:
    """By how many seconds a call may begin later than it was granted: the clock may jump in between."""

    def __init__(self, report: Report) -> None:
        self._jumps: list[tuple[float, float, float]] = []
        longest = 0.0
        for number, (at, after) in enumerate(virtual_jumps(report.scenario)):
            longest = max(longest, after - at)
            late = min(longest, LATE * 4.0 ** min(number, MOST_DOUBLED))
            self._jumps.append((at - late - FUZZ, after + late + FUZZ, late))

    def of(self, call: CallRecord) -> float:
        """Return it for a call; it is nothing for one that begins at no jump, nor beside one that does."""
        return max((late for since, until, late in self._jumps if since <= call.began <= until), default=0.0)


# -- requests and tokens a minute --------------------------------------------------------------------------------------


def _requests_per_minute(report: Report) -> Iterator[str]:
    lateness = _Lateness(report)
    for name, limits, models in _limiters(report):
        if limits.requests_per_minute is None:
            continue
        interval = MINUTE / limits.requests_per_minute
        burst = limits.burst or max(1, int(limits.requests_per_minute // MINUTE))
        most = burst + FUZZ
        least, since = math.inf, 0.0
        for number, call in enumerate(call for call in report.calls if call.model in models):
            behind = number - call.began / interval  # of two calls, their difference: more than the rate allows
            granted = behind + lateness.of(call) / interval  # as if it began when it was granted
            if granted < least:
                least, since = granted, call.began
            if behind - least + 1 > most:
                yield (
                    f"call {call.number} at {call.began:.3f} s is one too many since {since:.3f} s for {name}: "
                    f"{limits.requests_per_minute:g} a minute, {burst} at once"
                )


def _tokens_per_minute(report: Report) -> Iterator[str]:
    requests = {request.request_id: request for request in report.requests}
    lateness = _Lateness(report)
    for name, limits, models in _limiters(report):
        if limits.tokens_per_minute is None:
            continue
        most = max(1, int(limits.tokens_per_minute))
        window = _Minute(requests, lateness)
        for call in report.calls:
            if call.model in models:
                total, counting = window.add(call)
                if total > most and counting > 1:
                    yield (
                        f"call {call.number} at {call.began:.3f} s makes at least {total} tokens of {most} in the "
                        f"minute before it, for {name}"
                    )


class _Minute:
    """The calls of the last minute, and what each of them is known to count for: see `_known`."""

    def __init__(self, requests: dict[str | None, RequestRecord], lateness: _Lateness) -> None:
        self._requests = requests
        self._lateness = lateness
        self._granted: list[tuple[float, int]] = []
        self._counts: dict[int, int] = {}
        self._closing: list[tuple[float, int, CallRecord]] = []
        self._total = self._counting = 0

    def add(self, call: CallRecord) -> tuple[int, int]:
        """Count a call, and return the tokens that then count, and the number of calls that are to blame."""
        late = self._lateness.of(call)
        while self._closing and self._closing[0][0] < call.began - late:
            closed = heapq.heappop(self._closing)[2]
            if closed.number in self._counts:
                self._count(closed.number, self._known(closed, over=True))
        while self._granted and self._granted[0][0] <= call.began - MINUTE + FUZZ:
            gone = heapq.heappop(self._granted)[1]
            self._count(gone, 0)
            del self._counts[gone]
        heapq.heappush(self._granted, (call.began - late, call.number))
        self._counts[call.number] = 0
        self._count(call.number, self._known(call, over=False))
        if call.closed is not None:
            heapq.heappush(self._closing, (call.closed, call.number, call))
        return self._total, self._counting

    def _count(self, number: int, tokens: int) -> None:
        before, self._counts[number] = self._counts[number], tokens
        self._total += tokens - before
        self._counting += bool(tokens) - bool(before)

    def _known(self, call: CallRecord, *, over: bool) -> int:
        """Return as how many tokens a call counts at least: what it cost once its caller has read it all; before that,
        and where it was broken off, its prompt as it was estimated; nothing where it was refused.
        """
        request = self._requests.get(call.request_id)
        if over and request is not None and request.answer == call.number:
            return call.billed
        return min(call.billed, 0 if request is None else request.estimated_tokens)


# -- the retry budget --------------------------------------------------------------------------------------------------


def _retry_budget(report: Report) -> Iterator[str]:
    yield from _unpaid(report)
    budget = report.scenario.config.retry_budget
    if not budget.enabled:
        return
    # When a request adds its deposit is not told: between its arrival and its first attempt.
    arrived = sorted(request.arrived for request in report.requests)
    begun = sorted(_first_attempt(request) for request in report.requests)
    least, since = math.inf, 0.0
    for number, at in enumerate(spent.at for spent in report.spent if spent.paid):
        gained = budget.refill_per_second * at + budget.deposit * bisect_right(arrived, at)
        before = budget.refill_per_second * at + budget.deposit * bisect_left(begun, at)
        if number - before < least:
            least, since = number - before, at
        if number + 1 - gained > min(budget.initial, budget.max) + FUZZ:
            yield f"{number + 1} retries and hedges were paid for by {at:.3f} s, more than the budget ever had"
        elif number + 1 - gained - least > budget.max + FUZZ:
            yield f"more retries and hedges were paid for between {since:.3f} and {at:.3f} s than the budget could hold"


def _first_attempt(request: RequestRecord) -> float:
    return min((attempt.began for attempt in request.attempts), default=request.ended)


def _unpaid(report: Report) -> Iterator[str]:
    paid = Counter(spent.request_id for spent in report.spent if spent.paid)
    calls = Counter(call.request_id for call in report.calls)
    for request in report.requests:
        made = 0 if request.request_id is None else calls[request.request_id]
        free = 1 + request.fallbacks
        if made > free + paid[request.request_id or ""]:
            yield (
                f"request {request.number} made {made} calls: {free} were free, and {paid[request.request_id or '']} "
                "paid for"
            )


def _attempts_bounded(report: Report) -> Iterator[str]:
    most = {model.name: _most_attempts(model) for model in report.scenario.config.models}
    calls = Counter((call.request_id, call.model) for call in report.calls)
    raced_again = {request.request_id for request in report.requests if _may_race_again(request, report)}
    for (request_id, model), made in calls.items():
        bound = most[model] * (len(report.models) if request_id in raced_again else 1)
        if made > bound:
            yield f"request {request_id} made {made} calls to {model}, where {bound} are the most"


def _most_attempts(model: ModelConfig) -> int:
    own = (policy.max_attempts for policy in model.retry.errors.values())
    return max(model.retry.max_attempts, *(most for most in own if most is not None), 1)


def _may_race_again(request: RequestRecord, report: Report) -> bool:
    """Whether who lost a race may have been asked again: the winner broke off, and its text could be taken back."""
    resets = report.scenario.config.stream.on_interruption == "reset"
    return resets and request.kind == "stream" and any(attempt.hedge for attempt in request.attempts)


def _no_cascade(report: Report) -> Iterator[str]:
    budget = report.scenario.config.retry_budget
    if not budget.enabled:
        return
    lanes = sum(len(report.models) if _may_race_again(request, report) else 1 for request in report.requests)
    for model in report.models:
        calls = [call.began for call in report.calls if call.model == model]
        earned = budget.deposit * len(report.requests) + budget.refill_per_second * max(calls, default=0.0)
        most = lanes + min(budget.initial, budget.max) + earned
        if len(calls) > most + FUZZ:
            yield f"{len(calls)} calls reached {model}, where {len(report.requests)} requests allow {most:.1f}"


# -- money and room ----------------------------------------------------------------------------------------------------


def _costs_add_up(report: Report) -> Iterator[str]:
    prices = {model.name: model.price for model in report.scenario.config.models}
    calls: dict[tuple[str, str], list[CallRecord]] = {}
    for call in report.calls:
        calls.setdefault((call.request_id, call.model), []).append(call)
    for request in report.requests:
        total = sum((attempt.cost for attempt in request.attempts if attempt.cost is not None), Decimal(0))
        if total != (request.cost or Decimal(0)):
            yield f"request {request.number} cost {request.cost}, and its attempts {total}"
        for attempt, call in _pairs(request, calls):
            price = prices[call.model]
            if price is None or attempt.error is not None or attempt.cancelled:
                continue
            usage = TokenUsage(input_tokens=call.asked_tokens, output_tokens=call.billed - call.asked_tokens)
            billed = cost_of(price, usage)
            if attempt.cost != billed:
                yield f"call {call.number} cost {billed}, and request {request.number} says {attempt.cost}"


def _pairs(
    request: RequestRecord, calls: dict[tuple[str, str], list[CallRecord]]
) -> Iterable[tuple[AttemptRecord, CallRecord]]:
    """Return the attempts of a request that were sent, each with its call: a model's come one after the other."""
    sent: dict[str, list[AttemptRecord]] = {}
    for attempt in sorted(request.attempts, key=lambda attempt: attempt.number):
        if attempt.sent:
            sent.setdefault(attempt.model, []).append(attempt)
    for model, attempts in sent.items():
        yield from zip(attempts, calls.get((request.request_id or "", model), ()), strict=False)


def _lanes_bounded(report: Report) -> Iterator[str]:
    yield from _in_flight(report)
    for path, (deepest, bound) in report.lanes.items():
        if deepest > bound:
            yield f"{deepest} asks waited for {path}, which has room for {bound}"
    config = report.scenario.config
    queues = {model: limits.queue for _, limits, models in _limiters(report) for model in models}
    slots = {model.name: model.max_concurrency for model in config.models}
    for sample in report.samples:
        bounds = [("in flight", sample.in_flight, config.server.max_in_flight)]
        for name, model in sample.models.items():
            bounds += [
                (f"waiting for a slot of {name}", model.waiting, config.supervision.mailbox),
                (f"waiting for the limiter of {name}", model.limiter_waiting, queues[name]),
                (f"in the slots of {name}", model.slots_in_use, slots[name]),
            ]
        yield from _too_many(sample.at, bounds)


def _in_flight(report: Report) -> Iterator[str]:
    """Tell where more were in flight than may be, as callers saw it: from their asking to their answer."""
    if report.scenario.clock_jumps:
        return  # whoever has an answer may read it later
    bound = report.scenario.config.server.max_in_flight
    certain = [
        request
        for request in report.requests
        if request.began_reports and request.session is None and request.reader == "eager"
    ]
    most = most_at_once(certain)
    if most > bound:
        yield f"{most} requests were in flight at one time, of {bound} at most"


def _too_many(at: float, bounds: Sequence[tuple[str, int, int]]) -> Iterator[str]:
    for what, number, bound in bounds:
        if number > bound:
            yield f"{number} were {what} at {at:.3f} s, of {bound} at most"


LIMITS: Final = (
    Invariant(
        "requests-per-minute",
        "In no span of time do more calls begin than the burst and what requests_per_minute allows in it.",
        _requests_per_minute,
    ),
    Invariant(
        "tokens-per-minute",
        "In no minute do calls begin that together cost more than tokens_per_minute, as far as was known.",
        _tokens_per_minute,
    ),
    Invariant(
        "retry-budget",
        "Every call beyond a request's first and its fallbacks is paid for, and never more than the budget allows.",
        _retry_budget,
    ),
    Invariant("attempts-bounded", "A request calls each model max_attempts times at most.", _attempts_bounded),
    Invariant(
        "no-cascade",
        "A model gets no more calls than there are requests, and what the retry budget allows in the whole run.",
        _no_cascade,
    ),
    Invariant(
        "costs-add-up", "A request costs what its attempts cost, and those what their models billed.", _costs_add_up
    ),
    Invariant("lanes-bounded", "Nothing that waits anywhere is ever more than its bound.", _lanes_bounded),
)
