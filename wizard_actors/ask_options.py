"""The options that every way to ask takes, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypedDict, get_args

from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.request import CacheUse, Delivery
from wizard_actors.strategies import strategy_problem

__all__ = ["AskOptions", "check_options", "delivery_of", "of_the_call"]


class AskOptions(TypedDict, total=False):
    """What every way to ask takes, all by keyword.

    `route` names a route (default: "wizard"), `model` asks one model only, of the route's or any other, with what else
    the route says (`spill`, `static_answer`); `strategy` replaces the route's. `deadline` bounds the request, in
    seconds. `cache`: "use" it, "refresh" what it has, or "bypass" it. Callers of different `tenant` never see each
    other's cached answers. `raw`: the response has what came over the wire, too; such a request has nothing to do with
    the cache, and shares no call.
    """

    route: str | None
    model: str | None
    strategy: str | None
    deadline: float | None
    cache: CacheUse
    tenant: str
    raw: bool


def check_options(options: AskOptions, *, strategies: Collection[str]) -> None:
    """Raise what is wrong with the options of a request, whatever the prompt; `strategies` are the ones there are."""
    if not options:
        return
    problems = [
        ConfigProblem(name, "is no option of a request", "what belongs to the prompt goes into a Prompt")
        for name in options
        if name not in AskOptions.__annotations__
    ]
    deadline, strategy, cache = options.get("deadline"), options.get("strategy"), options.get("cache", "use")
    if deadline is not None and (isinstance(deadline, bool | str | complex) or not deadline > 0):
        problems.append(ConfigProblem("deadline", f"must be more than 0 seconds, not {deadline!r}"))
    wrong = None if strategy is None else strategy_problem(strategy, strategies)
    if wrong is not None:
        problems.append(wrong)
    if strategy is not None and options.get("model") is not None:
        problems.append(ConfigProblem("strategy", "has no effect where one model is asked alone"))
    if cache not in get_args(CacheUse):
        problems.append(ConfigProblem("cache", f"must be one of {', '.join(get_args(CacheUse))}, not {cache!r}"))
    raw: object = options.get("raw", False)
    if not isinstance(raw, bool):
        problems.append(ConfigProblem("raw", f"must be True or False, not {raw!r}"))
    names: dict[str, object] = {name: options.get(name) for name in ("route", "model")}
    names["tenant"] = options.get("tenant", "")
    problems += [
        ConfigProblem(name, f"must be a text, not {value!r}")
        for name, value in names.items()
        if not isinstance(value, str) and (value is not None or name == "tenant")
    ]
    if problems:
        raise of_the_call(problems)


def of_the_call(problems: Sequence[ConfigProblem]) -> ConfigError:
    """Return the error for options that are wrong: no configuration is."""
    error = ConfigError(problems)
    error.message = error.message.replace("configuration", "this call", 1)
    return error


def delivery_of(how: str) -> Delivery:
    """Return how a stream is delivered. Raises `ConfigError` for what is no way to do that."""
    if how not in {"live", "buffered"}:
        raise of_the_call([ConfigProblem("delivery", f'must be "live" or "buffered", not {how!r}')])
    return Delivery(how)
