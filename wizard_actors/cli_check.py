"""`wizard check` and `wizard models`: what is configured, where it came from, and whether the models answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

import trio
from attrs import evolve, frozen
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from wizard_actors.client import ResilientClient
from wizard_actors.config import Effective, ModelConfig, WizardConfig, preset_of
from wizard_actors.errors import WizardError
from wizard_actors.prices import KnownModel, known_models
from wizard_actors.types import Prompt

__all__ = [
    "Probe",
    "in_force",
    "keyless",
    "models_table",
    "probe_models",
    "probes_table",
    "routes_table",
    "settings_table",
    "shown_models",
    "shown_setting",
]

TINY: Final = Prompt("Reply with the word: ok", max_tokens=16)
PROBES_AT_ONCE: Final = 8
PROBE_DEADLINE: Final = 30.0

LIMITS: Final = ("requests_per_minute", "tokens_per_minute", "burst")
PRICES: Final = ("input", "output", "cached_input", "cache_write")


# -- settings --------------------------------------------------------------------------------------------------------


def in_force(config: WizardConfig) -> list[Effective]:
    """Return every setting of `config`, and in place of the windows and prices that it leaves open what genai-prices
    says.
    """
    added: dict[str, list[Effective]] = {}
    for index, known in enumerate(known_models(config.models).values()):
        window, price = f"models[{index}].context_window", f"models[{index}].price"
        if known.window_source == "genai-prices":
            added[window] = [Effective(window, known.config.context_window, "genai-prices")]
        if known.price_source == "genai-prices":
            listed = [(f"{price}.{name}", getattr(known.config.price, name)) for name in PRICES]
            added[price] = [Effective(key, value, "genai-prices") for key, value in listed]
    return [shown for setting in config.effective() for shown in added.get(setting.key, [setting])]


def keyless(config: WizardConfig) -> list[str]:
    """Return a sentence for each model that is asked at its provider's own address without a key."""
    return [
        f"`models[{index}]` ({model.name}) has no key, and none is sent: {advice}"
        for index, model in enumerate(config.models)
        if model.enabled and (advice := _key_advice(model))
    ]


def _key_advice(model: ModelConfig) -> str:
    """Return what a model needs in order to have a key; nothing where it has one, or may do without."""
    preset = preset_of(model.provider)
    if preset is None or model.api_key_file is not None or model.key_variable() is not None:
        return ""
    if {"authorization", preset.key_header} & {header.lower() for header in model.headers}:
        return ""
    if model.provider != "azure" and (preset.key_env is None or model.base_url not in (None, preset.base_url)):
        return ""
    usual = f"set {preset.key_env}, or " if preset.key_env is not None and model.base_url is None else ""
    return f"{usual}name a variable or a file that holds it (`api_key_env`, `api_key_file`)"


def shown_setting(setting: Effective) -> dict[str, object]:
    """Return a setting in JSON's types: `{key, value, origin}`."""
    return {"key": setting.key, "value": _plain(setting.value), "origin": setting.origin}


def settings_table(settings: Sequence[Effective], source: str) -> Table:
    """Return a table of every setting of the configuration in `source`; what somebody has chosen stands out."""
    table = _table("setting", "value", "from")
    table.title, table.title_justify = Text(f"configuration: {source}"), "left"
    for setting in settings:
        style = "dim" if setting.origin == "default" else ""
        table.add_row(Text(setting.key, style), Text(_readable(setting.value), style), Text(setting.origin, style))
    return table


def _plain(value: object) -> object:
    match value:
        case Decimal() | Path():
            return str(value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
    return value


def _readable(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ", ".join(map(_readable, value)) or "-"
        case Mapping():
            return ", ".join(f"{key} = {_readable(item)}" for key, item in value.items()) or "-"
    return str(value)


# -- models and routes -----------------------------------------------------------------------------------------------


def shown_models(config: WizardConfig) -> dict[str, object]:
    """Return the models and the routes in JSON's types: `{models: [...], routes: [...]}`."""
    return {
        "models": [
            {
                "name": name,
                "provider": known.config.provider,
                "model": known.config.model,
                "enabled": known.config.enabled,
                "routes": _routes_of(known.config, config),
                "limits": _limits(known.config),
                "price": _price(known),
                "sources": {"context_window": known.window_source, "price": known.price_source},
            }
            for name, known in known_models(config.models).items()
        ],
        "routes": [
            {"name": route.name, "strategy": route.strategy, "chain": list(route.chain)}
            for route in (config.fallback, *config.routes)
        ],
    }


def models_table(config: WizardConfig) -> Table:
    """Return a table of the models, in the file's order."""
    table = _table("model", "provider", "upstream id", "enabled", "routes", "limits", "price")
    for known in known_models(config.models).values():
        model = known.config
        limits = {name: value for name, value in _limits(model).items() if value is not None}
        if known.window_source == "genai-prices":
            limits["context_window"] = f"{model.context_window} (genai-prices)"
        price = {name: value for name, value in (_price(known) or {}).items() if value is not None}
        shown = _readable(price) + (" (genai-prices)" if known.price_source == "genai-prices" else "")
        cells = (model.name, model.provider, model.model, model.enabled, _routes_of(model, config), limits, shown)
        style = "" if model.enabled else "dim"
        table.add_row(*(Text(_readable(cell), style) for cell in cells))
    return table


def routes_table(config: WizardConfig) -> Table:
    """Return a table of the routes, the default one first."""
    table = _table("route", "strategy", "chain")
    for route in (config.fallback, *config.routes):
        table.add_row(Text(route.name), Text(route.strategy), Text(" > ".join(route.chain)))
    return table


def _routes_of(model: ModelConfig, config: WizardConfig) -> list[str]:
    return [route.name for route in (config.fallback, *config.routes) if model.name in route.chain]


def _limits(model: ModelConfig) -> dict[str, object]:
    return {
        "max_concurrency": model.max_concurrency,
        **{name: getattr(model.rate_limit, name) for name in LIMITS},
        "context_window": model.context_window,
    }


def _price(known: KnownModel) -> dict[str, str | None] | None:
    """Return a model's price in US dollars a million tokens, None where nobody knows it."""
    price = known.config.price
    if price is None:
        return None
    values = {name: getattr(price, name) for name in PRICES}
    return {name: None if value is None else f"{value:f}" for name, value in values.items()}


# -- probes ----------------------------------------------------------------------------------------------------------


@frozen
class Probe:
    """How one tiny call went: after `seconds` the model answered, or failed with `error`."""

    model: str
    seconds: float
    error: WizardError | None = None

    def to_dict(self) -> dict[str, object]:
        """Return `{model, ok, ms, error}` in JSON's types."""
        return {
            "model": self.model,
            "ok": self.error is None,
            "ms": round(self.seconds * 1000, 1),
            "error": None if self.error is None else self.error.to_dict(),
        }


async def probe_models(config: WizardConfig) -> list[Probe]:
    """Make one tiny call to each enabled model, at most 8 at once and for at most 30 seconds each, and return how they
    went, in the file's order. A call is not repeated, and none is another model's fallback.
    """
    probes: dict[str, Probe] = {}
    limiter = trio.CapacityLimiter(PROBES_AT_ONCE)
    models = [model for model in config.models if model.enabled]

    async def one(model: ModelConfig) -> None:
        async with limiter:
            probes[model.name] = await _probe(model, config)

    async with trio.open_nursery() as nursery:
        for model in models:
            nursery.start_soon(one, model)
    return [probes[model.name] for model in models]


async def _probe(model: ModelConfig, config: WizardConfig) -> Probe:
    """Ask one model by a client of its own, so that what is wrong with another one does not matter."""
    alone = WizardConfig(
        models=(evolve(model, retry=evolve(model.retry, max_attempts=1, errors={})),),
        server=config.server,
        supervision=config.supervision,
    )
    began = trio.current_time()
    try:
        async with ResilientClient.open(alone) as client:
            began = trio.current_time()
            await client.generate(TINY, deadline=PROBE_DEADLINE)
            return Probe(model.name, trio.current_time() - began)
    except WizardError as error:
        return Probe(model.name, trio.current_time() - began, error)


def probes_table(probes: Sequence[Probe]) -> Table:
    """Return a table of how the probes went."""
    table = _table("model", "probe", "time")
    for each in probes:
        result = Text("ok", "green") if each.error is None else Text(each.error.message, "red")
        table.add_row(Text(each.model), result, Text(f"{each.seconds * 1000:.0f} ms"))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
