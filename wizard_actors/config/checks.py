"""What no single setting shows: names that must agree, and settings that exclude each other.

Each check takes plain values, so that a file with other mistakes in it is checked as far as it can be read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from attrs import evolve, field, frozen

from wizard_actors.config.idle import Given, idle, idle_in_step
from wizard_actors.config.presets import PRESETS, preset_of
from wizard_actors.config.values import closest
from wizard_actors.errors import ConfigProblem

__all__ = [
    "DEFAULT_ROUTE",
    "FAST_NEEDS",
    "PROVIDERS",
    "NamedModel",
    "NamedRoute",
    "conflicts",
    "model_conflicts",
    "speaks_openai",
    "takes_options",
]

DEFAULT_ROUTE: Final = "wizard"

FAST_NEEDS: Final = ("needs httptools, which is not installed", "pip install 'wizard-actors[fast]'")
"""What is wrong with `transport = "fast"` in a plain installation, and what to do."""

PROVIDERS: Final = ("openai", "anthropic", "gemini", "local", "simulated", "custom")
"""The wire protocols, the embedded model, the simulated one, and the one that is given in code."""

ENDINGS: Final = (
    "/chat/completions",
    "/completions",
    "/responses",
    "/messages",
    ":generateContent",
    ":streamGenerateContent",
)
"""What the protocols add to a base URL."""

AZURE_DEPLOYMENT: Final = re.compile(r"https?://[^/]+\.azure\.(com|us|cn)(:\d+)?/.*deployments/", re.IGNORECASE)
"""A deployment at Azure's own address; who passes calls on to one may add the version, too."""

MADE_FIELDS: Final = {
    "contents": "the prompt says it",
    "input": "the prompt says it",
    "messages": "the prompt says it",
    "model": "set the `model` of the model",
    "stream": 'set `upstream = "unary"` or `"stream"`',
}
"""The fields of a body that are not a model's to set: what an answer is read as depends on them."""

NO_MODEL: Final = ConfigProblem(
    "models", "is empty: at least one model is needed", "add a `[[models]]` table with a name and a provider"
)


@frozen
class NamedModel:
    """What the checks need of a model; `name`, `group` and `limits`, its rate limit, are None where unreadable.

    `priced` says whether it has a price, or genai-prices may know it; `tables` what was set in its tables.
    """

    name: str | None
    enabled: bool
    group: str | None = None
    limits: Mapping[str, object] | None = None
    priced: bool = True
    tables: Mapping[str, Given] = field(factory=dict)


@frozen
class NamedRoute:
    """What the checks need of a route.

    `key` is where it stands, `chain` the models it names, `given` which settings it makes; `strategy` is None where it
    cannot be read.
    """

    key: str
    name: str | None
    chain: Sequence[str]
    strategy: str | None = None
    given: Collection[str] = ()


def conflicts(
    models: Sequence[NamedModel], routes: Sequence[NamedRoute], tables: Mapping[str, Given]
) -> Iterator[ConfigProblem]:
    """Find names that are used twice, chains that name what is not there, models that share a limiter with different
    limits, and settings without effect. The first route is the default one; `tables` is what was set in the others.
    """
    if not models:
        yield NO_MODEL
    taken: dict[str, str] = {}
    for route in routes[:1]:
        taken[route.name or ""] = "the default route"
    for index, model in enumerate(models):
        yield from _taken(model.name, f"models[{index}].name", taken)
    for route in routes[1:]:
        yield from _taken(route.name, f"{route.key}.name", taken)
    enabled = {model.name: model.enabled for model in models if model.name is not None}
    for route in routes:
        yield from _chain_problems(route, enabled)
    if models and not any(model.enabled for model in models):
        yield ConfigProblem(
            "models",
            "are all disabled",
            "enable one: remove its `enabled = false`, or what sets WIZARD_DEFAULTS_ENABLED",
        )
    yield from _group_problems(models)
    for route in routes:
        yield from _strategy_problems(route, models)
    of_models = {
        f"models[{index}].{name}": given for index, each in enumerate(models) for name, given in each.tables.items()
    }
    for key, given in {**of_models, **tables}.items():
        yield from _within(key, idle(key.rpartition(".")[2], given))


def _within(key: str, problems: Iterator[ConfigProblem]) -> Iterator[ConfigProblem]:
    return (evolve(problem, key=f"{key}.{problem.key}") for problem in problems)


def _taken(name: str | None, key: str, taken: dict[str, str]) -> Iterator[ConfigProblem]:
    if name is None:
        return
    if name in taken:
        yield ConfigProblem(key, f"is {name!r}, as is {taken[name]}", "models and routes need names of their own")
    else:
        taken[name] = f"`{key}`"


def _chain_problems(route: NamedRoute, enabled: Mapping[str, bool]) -> Iterator[ConfigProblem]:
    seen: set[str] = set()
    for index, name in enumerate(route.chain):
        key = f"{route.key}.chain[{index}]"
        if name not in enabled:
            meant = closest(name, enabled)
            hint = f"did you mean {meant!r}?" if meant else f"models: {', '.join(map(repr, enabled)) or 'none'}"
            yield ConfigProblem(key, f"names no model: {name!r}", hint)
        elif name in seen:
            yield ConfigProblem(key, f"names {name!r} again: a chain tries each model once")
        seen.add(name)
    if any(enabled.values()) and seen and all(enabled.get(name) is False for name in seen):
        yield ConfigProblem(f"{route.key}.chain", "names only disabled models")


def _group_problems(models: Sequence[NamedModel]) -> Iterator[ConfigProblem]:
    first: dict[str, NamedModel] = {}
    for index, model in enumerate(models):
        if model.group is None or model.limits is None or not model.enabled:
            continue
        other = first.setdefault(model.group, model)
        if other.limits is not None and model.limits != other.limits:
            differing = ", ".join(f"`{key}`" for key, limit in model.limits.items() if limit != other.limits.get(key))
            yield ConfigProblem(
                f"models[{index}].rate_limit",
                f"differs in {differing} from that of the model {other.name!r}, and {model.name!r} shares its limiter: "
                f"both are of the group {model.group!r}",
                "give every model of a group the same limits",
            )


def _strategy_problems(route: NamedRoute, models: Sequence[NamedModel]) -> Iterator[ConfigProblem]:
    if route.strategy is None:
        return
    yield from _within(route.key, idle("fallback", {**dict.fromkeys(route.given), "strategy": route.strategy}))
    enabled = [model.name for model in models if model.enabled]
    # Switching a model off for a while leaves the routes as they are: it counts in a chain of all models.
    everything = not route.chain or list(route.chain) == enabled
    asked = [model for model in models if everything or model.name in route.chain]
    if route.strategy == "sequential" or not asked:
        return
    if len(asked) == 1:
        reason, hint = "has no effect: the chain has one model", "add another model to it, or leave the strategy out"
        yield ConfigProblem(f"{route.key}.strategy", reason, hint)
    elif route.strategy == "cheapest" and not any(model.priced for model in asked):
        reason, hint = "has no effect: no model of the chain has a price", "give its models a `price`"
        yield ConfigProblem(f"{route.key}.strategy", reason, hint)


def model_conflicts(model: Mapping[str, object]) -> Iterator[ConfigProblem]:
    """Find settings of one model that exclude each other, or lack each other."""
    provider = model.get("provider")
    if model.get("api_key_env") is not None and model.get("api_key_file") is not None:
        yield ConfigProblem("api_key_file", "cannot stand beside `api_key_env`", "keep one of them")
    for table in ("simulated", "local"):
        if model.get(table) is not None and isinstance(provider, str) and provider != table:
            yield ConfigProblem(table, f'is only for models with `provider = "{table}"`')
    if model.get("transport") == "fast" and model.get("proxy") is not None:
        reason = 'is "fast", which connects directly, and the model has a `proxy`'
        yield ConfigProblem("transport", reason, "leave one of them out: a proxy is served by httpx's own transport")
    options = model.get("options")
    if isinstance(options, Mapping) and options and not takes_options(provider):
        yield ConfigProblem(
            "options", "is only for providers that are not built in", "what goes into the body: `extra`"
        )
    yield from _script_problems(model.get("simulated"))
    if isinstance(provider, str) and provider in (*PROVIDERS, *PRESETS):
        yield from _protocol_problems(provider, model)
    if isinstance(provider, str) and preset_of(provider) is not None:
        yield from _sent_problems(provider, model)
    if provider == "azure" and model.get("base_url") is None:
        yield ConfigProblem("base_url", 'is required where `provider = "azure"`: each resource has its own')


def _protocol_problems(provider: str, model: Mapping[str, object]) -> Iterator[ConfigProblem]:
    """Find settings that the protocol of a provider of ours does not read."""
    if model.get("api") == "responses" and not speaks_openai(provider):
        yield ConfigProblem("api", f"has no effect where `provider = {provider!r}`: it is OpenAI's choice of protocols")
    if model.get("api_version") is not None and provider != "azure":
        yield ConfigProblem("api_version", 'is only for models with `provider = "azure"`')


def _sent_problems(provider: str, model: Mapping[str, object]) -> Iterator[ConfigProblem]:
    """Find settings that spoil what a provider of ours is sent."""
    if isinstance(model.get("base_url"), str):
        yield from _address_problems(provider, model, str(model["base_url"]).rstrip("/"))
    extra = model.get("extra")
    for name, hint in MADE_FIELDS.items():
        if isinstance(extra, Mapping) and name in extra:
            yield ConfigProblem(f"extra.{name}", "is no field to set here: it is made from what is asked", hint)


def _address_problems(provider: str, model: Mapping[str, object], base_url: str) -> Iterator[ConfigProblem]:
    """Find addresses that are certain to lead nowhere: the whole URL of a call, copied from a provider's page."""
    ending = next((ending for ending in ENDINGS if base_url.endswith(ending)), None)
    if ending is not None:
        yield ConfigProblem("base_url", f"must end before `{ending}`, which is added to it", "leave that out")
    elif provider == "azure" and model.get("api_version") is None and AZURE_DEPLOYMENT.match(base_url) is not None:
        reason = "is required where `base_url` names a deployment of Azure's"
        yield ConfigProblem("api_version", reason, 'such as "2024-10-21"; or end `base_url` before `/openai`')


def speaks_openai(provider: object) -> bool:
    """Say whether models of that provider are asked in one of OpenAI's protocols."""
    return provider in ("openai", *PRESETS)  # not a set: a file may say a list


def takes_options(provider: object) -> bool:
    """Say whether `[models.options]` means anything to models of that provider: those that are not ours take them."""
    return provider == "custom" or provider not in (*PROVIDERS, *PRESETS)  # not a set: a file may say a list


def _script_problems(simulated: object) -> Iterator[ConfigProblem]:
    script = simulated.get("script") if isinstance(simulated, Mapping) else None
    for index, step in enumerate(script if isinstance(script, (list, tuple)) else ()):
        if isinstance(step, Mapping):
            yield from _within(f"simulated.script[{index}]", idle_in_step(step))
