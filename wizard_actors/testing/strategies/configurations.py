"""Configurations that Hypothesis makes up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias, get_args

from hypothesis import strategies as st

from wizard_actors.config import Strategy, WizardConfig
from wizard_actors.testing.simulation.formats import WireFormat
from wizard_actors.testing.strategies.arguments import chosen_from, whole

__all__ = ["FORMAT_NAMES", "configurations"]

FORMAT_NAMES: Final[tuple[WireFormat, ...]] = get_args(WireFormat)
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)
MODELS: Final = ("first", "second", "third", "fourth")

Table: TypeAlias = dict[str, object]

SPEAKS: Final[dict[WireFormat, Table]] = {
    "chat": {"provider": "openai"},
    "responses": {"provider": "openai", "api": "responses"},
    "anthropic": {"provider": "anthropic"},
    "gemini": {"provider": "gemini"},
}


def _one_of(*values: object) -> st.SearchStrategy[object]:
    return st.sampled_from(values)


def _some(**settings: st.SearchStrategy[object]) -> st.SearchStrategy[Table]:
    """Return tables with any of the settings, none of them where it is shrunk."""
    return st.fixed_dictionaries({}, optional=settings)


TIMEOUTS: Final = _some(
    connect=_one_of(1, 5), first_token=_one_of(1, 2, 10), stall=_one_of(1, 2, 10), total=_one_of(2, 5, 20)
)
RETRY: Final = _some(
    max_attempts=_one_of(1, 2, 5), base_delay=_one_of(0, 1), max_delay=_one_of(1, 4), retry_after_cap=_one_of(0, 5, 20)
)
BREAKER: Final = _some(
    failure_threshold=_one_of(1, 2, 3),
    window=_one_of(5, 10),
    open_for=_one_of(1, 5, 10),
    success_threshold=_one_of(1, 3),
    half_open_probes=_one_of(1, 2),
) | st.fixed_dictionaries({"failure_rate": _one_of(0.5, 1)}, optional={"minimum_calls": _one_of(1, 5)})
LIMITED: Final[dict[str, st.SearchStrategy[object]]] = {
    "tokens_per_minute": _one_of(1000, 6000),
    "adaptive": st.booleans(),
    "max_wait": _one_of(0, 1, 10),
    "queue": _one_of(1, 10),
}
RATE_LIMIT: Final = _some(**LIMITED) | st.fixed_dictionaries(
    {"requests_per_minute": _one_of(600, 60, 30)}, optional={**LIMITED, "burst": _one_of(1, 5)}
)
MODEL: Final = _some(
    max_concurrency=_one_of(1, 2, 8),
    timeouts=TIMEOUTS,
    retry=RETRY,
    circuit_breaker=BREAKER,
    rate_limit=RATE_LIMIT,
    price=st.fixed_dictionaries({"input": _one_of(1, 10), "output": _one_of(2, 30)}),
)
CACHE: Final = st.fixed_dictionaries(
    {"max_entries": _one_of(100, 2)}, optional={"ttl": _one_of(5, 60), "stale_if_error": _one_of(30)}
)
SESSIONS: Final = _some(timeout=_one_of(1), max_sessions=_one_of(1, 3))
STREAM: Final = _some(delivery=_one_of("buffered"), on_interruption=_one_of("reset"), consumer_idle=_one_of(2, 10))
BUDGET: Final = st.just({"enabled": False}) | _some(
    initial=_one_of(0, 1), refill_per_second=_one_of(0, 1), refill_to=_one_of(0, 1), deposit=_one_of(0, 1)
)
WHOLE: Final = _some(cache=CACHE, sessions=SESSIONS, stream=STREAM, retry_budget=BUDGET)


def configurations(
    *,
    max_models: int = len(MODELS),
    strategies: Sequence[Strategy] = STRATEGIES,
    formats: Sequence[WireFormat] = FORMAT_NAMES,
) -> st.SearchStrategy[WizardConfig]:
    """Return configurations of 1 to `max_models` (4) models that speak any of `formats`, asked by any of `strategies`:
    with limits, breakers, timeouts, retries, prices, the cache, sessions (in memory), streams and the retry budget at
    their defaults or set to something that matters within a minute.

    They shrink towards one model with nothing set. Raises `ConfigError` for strategies and formats that there are not.
    """
    return _configurations(
        whole("configurations", "max_models", max_models, len(MODELS)),
        chosen_from("configurations", "strategies", strategies, STRATEGIES),
        chosen_from("configurations", "formats", formats, FORMAT_NAMES),
    )


@st.composite
def _configurations(
    draw: st.DrawFn, max_models: int, strategies: Sequence[Strategy], formats: Sequence[WireFormat]
) -> WizardConfig:
    names = MODELS[: draw(st.integers(1, max_models))]
    models = [{"name": name, **SPEAKS[draw(st.sampled_from(formats))], **draw(MODEL)} for name in names]
    tables: Table = {"models": models, **draw(WHOLE)}
    strategy = draw(st.sampled_from(strategies)) if len(names) > 1 else "sequential"
    if strategy != "sequential":
        tables["fallback"] = _route(draw, strategy, models)
    tables["sessions"] = {"storage": "memory:", **_table(tables.get("sessions"))}
    return WizardConfig.from_tables(tables, env={})


def _route(draw: st.DrawFn, strategy: Strategy, models: Sequence[Table]) -> Table:
    """Return the default route; a strategy that goes by prices has one to go by."""
    if strategy == "cheapest" and not any("price" in model for model in models):
        models[0]["price"] = {"input": 1, "output": 2}
    hedges = _some(hedge_delay=_one_of(0, 1, 5)) if strategy == "hedged" else st.just(Table())
    return {"strategy": strategy, **draw(hedges)}


def _table(value: object) -> Table:
    return value if isinstance(value, dict) else {}
