"""What is spent, and what there is to spend: rates, pauses, tokens, retries, attempts, room to wait. Pure."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from wizard_actors.config import ModelConfig, RateLimitConfig
from wizard_actors.errors import RateLimitError
from wizard_actors.retry import LONGEST_RETRY_AFTER
from wizard_actors.testing.simulation.invariants.invariant import FUZZ, Invariant
from wizard_actors.testing.simulation.invariants.jumps import virtual_jumps
from wizard_actors.testing.simulation.invariants.liveness import most_at_once
from wizard_actors.testing.simulation.invariants.pairs import pairs
from wizard_actors.testing.simulation.records import CallRecord, RequestRecord
from wizard_actors.testing.simulation.report import Report

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
        self._late: list[float] = []
        self._since: list[float] = []
        self._until: list[float] = []
        longest = 0.0
        for number, (at, after) in enumerate(virtual_jumps(report.scenario)):
            longest = max(longest, after - at)
            late = min(longest, LATE * 4.0 ** min(number, MOST_DOUBLED))
            self._late.append(late)
            self._since.append(at - late - FUZZ)
            self._until.append(after + late + FUZZ)
        # Of a jump or any later one: who begins before that is beside none of these.
        self._since = [*accumulate(reversed(self._since), min)][::-1]

    def of(self, call: CallRecord) -> float:
        """Return it for a call; it is nothing for one that begins at no jump, nor beside one that does."""
        newest = bisect_right(self._since, call.began) - 1  # of those beside which it may be: the one that allows most
        return self._late[newest] if newest >= 0 and call.began <= self._until[newest] else 0.0


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


def _pauses_kept(report: Report) -> Iterator[str]:
    lateness, asked = _Lateness(report), _pauses(report)
    for _, _, models in _limiters(report):
        pauses = sorted(pause for model in models for pause in asked.get(model, ()))
        since = [at for at, _ in pauses]
        until = list(accumulate((until for _, until in pauses), max))
        for call in report.calls:
            before = bisect_left(since, call.began - LATE - lateness.of(call)) if call.model in models else 0
            if before and call.began < until[before - 1] - FUZZ:
                yield (
                    f"call {call.number} to {call.model} began at {call.began:.3f} s, in a pause until "
                    f"{until[before - 1]:.3f} s that a 429 had asked for"
                )


def _pauses(report: Report) -> dict[str, list[tuple[float, float]]]:
    """Return from when to when each model wanted to be left alone, as its 429s said."""
    asked: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _, attempt, call in pairs(report):
        wanted = attempt.retry_after or 0.0
        if attempt.error == RateLimitError.code and not attempt.cancelled and wanted > 0:
            met = call.began + attempt.duration
            asked[call.model].append((met, met + min(wanted, LONGEST_RETRY_AFTER)))
    return asked


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


# -- room --------------------------------------------------------------------------------------------------------------


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
        "pauses-kept",
        "No call begins at a model while it wants to be left alone, as the Retry-After of a 429 said.",
        _pauses_kept,
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
    Invariant("lanes-bounded", "Nothing that waits anywhere is ever more than its bound.", _lanes_bounded),
)
