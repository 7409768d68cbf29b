"""Settings that would have no effect beside the others of their table, and which of two sources gives way for that.

Tables are mappings of what somebody set, values as they were written; what is absent was left at its default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from wizard_actors.errors import ConfigProblem

__all__ = ["HEDGED_ONLY", "OF_A_MODEL", "Given", "idle", "idle_in_step", "merged"]

Given: TypeAlias = Mapping[str, object]
"""Some settings of a table."""

HEDGED_ONLY: Final = ("hedge_delay", "hedge_quantile")
"""The settings of a route that only the strategy "hedged" reads."""

OF_A_MODEL: Final = ("circuit_breaker", "rate_limit")
"""The tables of a model in which a setting can lack another one."""

EITHER: Final = {"failure_threshold": "failure_rate", "failure_rate": "failure_threshold"}
"""Settings of which a table has one: whoever gives the one means to replace the other."""

LEAVE_OUT: Final = "or leave it out"
BUDGET_MAX: Final = 100.0

MIDWAY: Final = frozenset({"disconnect", "truncate", "malformed", "stall"})
WITHOUT_STATUS: Final = frozenset({"ok", "slow_first_token", "silent", "stall", "truncate"})
DELAYED: Final = frozenset({"slow_first_token", "silent", "stall"})


def idle(table: str, given: Given) -> Iterator[ConfigProblem]:
    """Find the settings of the table of that name that have no effect; the keys are those within the table."""
    if table in FINDERS:
        yield from FINDERS[table](given)


def merged(table: str, lower: Given, upper: Given) -> dict[str, object]:
    """Return `upper` over `lower`. What had an effect in `lower`, and has none beside `upper`, is left out."""
    kept = {key: value for key, value in lower.items() if key not in upper and EITHER.get(key) not in upper}
    both = {**kept, **upper}
    before = {problem.key for problem in idle(table, lower)}
    lost = {problem.key for problem in idle(table, both)} - before - upper.keys()
    return {key: value for key, value in both.items() if key not in lost}


def idle_in_step(step: Given) -> Iterator[ConfigProblem]:
    """Find what one step of a simulated model's script says, and its fault does not read."""
    fault = step.get("fault")
    if not isinstance(fault, str):
        return
    pointless = {
        "after_words": bool(step.get("after_words")) and fault not in MIDWAY,
        "status": step.get("status") is not None and fault in WITHOUT_STATUS,
        "delay": step.get("delay") is not None and fault not in DELAYED,
    }
    for key, found in pointless.items():
        if found:
            yield ConfigProblem(key, f'has no effect: the fault is "{fault}"', "leave it out")


def _of_cache(given: Given) -> Iterator[ConfigProblem]:
    if not given.get("max_entries"):
        for key in given:
            if key != "max_entries":
                yield ConfigProblem(key, "has no effect while the cache is off", f"set `max_entries`, {LEAVE_OUT}")


def _of_breaker(given: Given) -> Iterator[ConfigProblem]:
    rate = given.get("failure_rate") is not None
    if rate and "failure_threshold" in given:
        reason = "has no effect beside `failure_rate`, which opens the circuit in its place"
        yield ConfigProblem("failure_threshold", reason, "keep one of them")
    if not rate and "minimum_calls" in given:
        yield ConfigProblem("minimum_calls", "has no effect without `failure_rate`", f"set that too, {LEAVE_OUT}")


def _of_limit(given: Given) -> Iterator[ConfigProblem]:
    if given.get("burst") is not None and given.get("requests_per_minute") is None:
        yield ConfigProblem("burst", "has no effect without `requests_per_minute`", f"set that too, {LEAVE_OUT}")


def _of_budget(given: Given) -> Iterator[ConfigProblem]:
    if given.get("enabled") is False:
        for key in given:
            if key != "enabled":
                yield ConfigProblem(key, "has no effect: the budget is off", f"remove `enabled = false`, {LEAVE_OUT}")
        return
    initial, most = given.get("initial"), given.get("max", BUDGET_MAX)
    if isinstance(initial, (int, float)) and isinstance(most, (int, float)) and initial > most:
        yield ConfigProblem("initial", f"must be at most `max`, which is {most}, got {initial}", "raise `max` too")


def _of_route(given: Given) -> Iterator[ConfigProblem]:
    strategy = given.get("strategy", "sequential")
    if strategy == "hedged":
        return
    for key in HEDGED_ONLY:
        if key in given:
            reason = f'has no effect: the strategy is "{strategy}"'
            yield ConfigProblem(key, reason, 'set `strategy = "hedged"`, or leave it out')


FINDERS: Final[Mapping[str, Callable[[Given], Iterator[ConfigProblem]]]] = {
    "cache": _of_cache,
    "circuit_breaker": _of_breaker,
    "rate_limit": _of_limit,
    "retry_budget": _of_budget,
    "fallback": _of_route,
}
