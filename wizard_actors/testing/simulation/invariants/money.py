"""What calls cost, what was billed for them, and what callers are told of both. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from wizard_actors.cost import cost_of
from wizard_actors.testing.simulation.invariants.invariant import Invariant
from wizard_actors.testing.simulation.invariants.pairs import pairs
from wizard_actors.testing.simulation.records import CallRecord, RequestRecord
from wizard_actors.testing.simulation.report import Report
from wizard_actors.types import FinishReason, TokenUsage

__all__ = ["MONEY"]


def _costs_add_up(report: Report) -> Iterator[str]:
    for request in report.requests:
        total = sum((attempt.cost for attempt in request.attempts if attempt.cost is not None), Decimal(0))
        if total != (request.cost or Decimal(0)):
            yield f"request {request.number} cost {request.cost}, and its attempts {total}"
    prices = {model.name: model.price for model in report.scenario.config.models}
    for request, attempt, call in pairs(report):
        price = prices[call.model]
        if price is None or attempt.error is not None or attempt.cancelled:
            continue
        billed = cost_of(price, _usage(call))
        if attempt.cost != billed:
            yield f"call {call.number} cost {billed}, and request {request.number} says {attempt.cost}"


def _usage(call: CallRecord) -> TokenUsage:
    """Return what a model billed for an answer that was read to its end."""
    return TokenUsage(input_tokens=call.asked_tokens, output_tokens=call.billed - call.asked_tokens)


def _told_right(report: Report) -> Iterator[str]:
    priced = {model.name for model in report.scenario.config.models if model.price is not None}
    for request in report.requests:
        if request.outcome != "answered" or request.answer is None or not 0 <= request.answer < len(report.calls):
            continue
        call, told = report.calls[request.answer], request.told_usage
        billed = _usage(call)
        if told != billed:
            yield f"request {request.number} is told of {_said(told)}, and call {call.number} billed {_said(billed)}"
        finish = FinishReason.LENGTH if request.cut else FinishReason.STOP
        if request.finish_reason != finish and billed.output_tokens > 1:  # a single word does not tell
            yield f"the answer to request {request.number} ended by {finish}, and it is told {request.finish_reason!r}"
        expected = _expected_cost(request, call)
        if request.told_cost != expected and (call.model in priced or request.told_cost is not None):
            yield f"request {request.number} is told that it cost {request.told_cost}, and it cost {expected}"


def _expected_cost(request: RequestRecord, call: CallRecord) -> Decimal | None:
    """Return what a request has to be told that it cost: an answer of another one's call comes for nothing, beside what
    its own attempts cost.
    """
    return request.cost if call.request_id == request.request_id else request.cost or Decimal(0)


def _said(usage: TokenUsage | None) -> str:
    return "no usage" if usage is None else f"{usage.input_tokens} tokens in and {usage.output_tokens} out"


MONEY: Final = (
    Invariant(
        "costs-add-up", "A request costs what its attempts cost, and those what their models billed.", _costs_add_up
    ),
    Invariant(
        "told-right",
        "Who is answered is told what the answer's call billed, what the request cost, and how the answer ended.",
        _told_right,
    ),
)
