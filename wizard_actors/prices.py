"""What is known of models: their context windows, and what their answers cost.

What the configuration says counts. What it leaves open is looked up in genai-prices, a library that carries its data
with it: nothing is fetched. Nobody guesses: where neither knows, a window and a cost are None.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from attrs import evolve, frozen

from wizard_actors.config import ModelConfig, PriceConfig
from wizard_actors.config.listed import Listing, listing_of
from wizard_actors.cost import MONEY, billed, cost_of
from wizard_actors.types import TokenUsage

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice, Provider

__all__ = ["Bill", "ConfiguredPrice", "KnownModel", "ListedPrice", "Price", "Source", "known_models"]

Source: TypeAlias = Literal["config", "genai-prices"]
"""Who says so."""

log = logging.getLogger("wizard_actors.prices")

NAMES_AT_MOST: Final = 64
"""So many of a provider's names for a model are remembered with what they stand for: some route each call elsewhere."""

NAME_AT_MOST: Final = 200
"""Characters. No model's name is longer; what a provider says is searched with regular expressions."""

HOST: Final = re.compile(r"[^:]*://[^/]*")

DEPLOYMENTS: Final = frozenset({"azure"})
"""The providers, as genai-prices calls them, whose customers name models as they like: a deployment that is called as a
model is need not be that one. Only what its answers say is the model's name.
"""


class Price(Protocol):
    """What the answers of one model cost."""

    def cost(self, usage: TokenUsage, upstream_model: str | None = None) -> Decimal | None:
        """Return what an answer that ended now cost, in US dollars, None where that is not known; `upstream_model` is
        what the provider said that the model is.
        """


@frozen
class ConfiguredPrice:
    """A price that the configuration names."""

    price: PriceConfig

    def cost(self, usage: TokenUsage, upstream_model: str | None = None) -> Decimal | None:
        """Return what these tokens cost, whichever model the provider says that it was."""
        return cost_of(self.price, usage)


class ListedPrice:
    """The prices of one provider in genai-prices: tiers, prices by the time of day, and what a prompt cache costs.

    `model` counts where an answer does not say which model it is of, or says what is not known; None: nothing does.
    `wall_clock` returns seconds since 1970.
    """

    def __init__(
        self,
        snapshot: DataSnapshot,
        provider: Provider,
        model: ModelInfo | None,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._provider = provider
        self._model = model
        self._wall_clock = wall_clock
        self._find = lru_cache(NAMES_AT_MOST)(partial(_find, snapshot, provider))

    def cost(self, usage: TokenUsage, upstream_model: str | None = None) -> Decimal | None:
        """Return what an answer that ended now cost, by what the list says of now."""
        model = (None if upstream_model is None else self._find(upstream_model)) or self._model
        return None if model is None else _listed_cost(self._provider, model, usage, _at(self._wall_clock))


class Bill:
    """What one answer costs while it arrives, at a `price` that may be unknown.

    The price is asked once for each usage and name: the cost is wanted by a record, the router and an event.
    """

    __slots__ = ("_last", "_price")

    def __init__(self, price: Price | None) -> None:
        self._price = price
        self._last: tuple[TokenUsage, str | None, Decimal | None] | None = None

    def cost(self, usage: TokenUsage, upstream_model: str | None) -> Decimal | None:
        """Return what the answer costs, in US dollars, None where that is not known."""
        if self._last is None or self._last[0] is not usage or self._last[1] != upstream_model:
            cost = None if self._price is None else self._price.cost(usage, upstream_model)
            self._last = usage, upstream_model, cost
        return self._last[2]


@frozen
class KnownModel:
    """A model, and what is known of it, by whom: None where nobody does.

    `config` is its configuration, with the window and the price filled in where only the list knows them. There, a
    price is that of a short prompt at the time of the looking up: `price` has its other tiers and times, too.
    """

    config: ModelConfig
    price: Price | None = None
    window_source: Source | None = None
    price_source: Source | None = None


def known_models(
    models: Sequence[ModelConfig], *, wall_clock: Callable[[], float] = time.time
) -> dict[str, KnownModel]:
    """Return what is known of `models`, by their names. Of a disabled one, only what is configured.

    `wall_clock` returns seconds since 1970. The first model that genai-prices may know loads that library: see `_load`.
    """
    return {model.name: _known(model, wall_clock) for model in models}


def _known(model: ModelConfig, wall_clock: Callable[[], float]) -> KnownModel:
    known = KnownModel(
        model,
        price=None if model.price is None else ConfiguredPrice(model.price),
        window_source=None if model.context_window is None else "config",
        price_source=None if model.price is None else "config",
    )
    complete = model.price is not None and model.context_window is not None
    listing = listing_of(model.provider, model.base_url) if model.enabled and not complete else None
    return known if listing is None else _looked_up(known, listing, wall_clock)


def _looked_up(known: KnownModel, listing: Listing, wall_clock: Callable[[], float]) -> KnownModel:
    """Return `known` with what the list adds to it."""
    snapshot = _load()
    provider = None if snapshot is None else _provider(snapshot, listing)
    if snapshot is None or provider is None:
        return known
    model = None if provider.id in DEPLOYMENTS else _find(snapshot, provider, known.config.model)
    if known.price is None:
        listed = ListedPrice(snapshot, provider, model, wall_clock=wall_clock)
        price = None if model is None else _short_price(model.get_prices(_at(wall_clock)))
        known = evolve(
            known,
            config=evolve(known.config, price=price),
            price=listed,
            price_source=None if price is None else "genai-prices",
        )
    if known.config.context_window is None and model is not None and model.context_window:
        config = evolve(known.config, context_window=model.context_window)
        known = evolve(known, config=config, window_source="genai-prices")
    return known


# -- genai-prices ------------------------------------------------------------------------------------------------------


def _load() -> DataSnapshot | None:
    """Return the list, None where the library cannot be loaded: see `_library`."""
    library = _library()
    return None if library is None else library()


@lru_cache(1)
def _library() -> Callable[[], DataSnapshot] | None:
    """Load the library, once a process: some 0.15 s, most of it for pydantic. None where that fails, which is logged:
    prices are worth a warning, and no client that does not open.

    In the thread that asks, not in another one. While a thread works, the virtual clock of a test would see everybody
    wait, and run on to the next deadline; and a program under Trio opens its client before it serves anybody. Under
    asyncio, and for plain programs, the client has a thread of its own in any case.
    """
    try:
        from genai_prices.data_snapshot import get_snapshot
    except Exception as error:  # noqa: BLE001 - told, and done without; a broken installation raises more than ImportError
        log.warning(
            "genai-prices cannot be loaded, so nothing is known of prices and context windows but what is configured: "
            "%s: %s",
            type(error).__name__,
            error,
        )
        return None
    return get_snapshot


def _provider(snapshot: DataSnapshot, listing: Listing) -> Provider | None:
    try:
        provider = snapshot.find_provider(None, listing.provider_id, listing.api_url)
    except LookupError:
        return None
    return provider if listing.api_url is None or _is_at(provider, listing.api_url) else None


def _is_at(provider: Provider, url: str) -> bool:
    """Say whether a host that a provider's pattern finds is the provider's own: patterns only say how an address
    begins, so that https://api.openai.com.example.net would do, and of some any path would.
    """
    host = HOST.match(url)
    end = len(url) if host is None else host.end()
    found = re.match(provider.api_pattern, url[:end] + url[end:].replace(".", "_"))
    if found is None:
        return False
    rest = url[found.end() : end].partition(":")[0]
    return not rest or (found[0].endswith(".") and "." not in rest)  # "https://api.moonshot." leaves the last name open


def _find(snapshot: DataSnapshot, provider: Provider, name: str) -> ModelInfo | None:
    """Find a model as the provider does; the snapshot's own search would remember every name for ever."""
    return provider.find_model(name, all_providers=snapshot.providers) if len(name) <= NAME_AT_MOST else None


def _at(wall_clock: Callable[[], float]) -> datetime:
    return datetime.fromtimestamp(wall_clock(), UTC)


def _listed_cost(provider: Provider, model: ModelInfo, usage: TokenUsage, at: datetime) -> Decimal | None:
    from genai_prices import Usage

    if not _per_token(model.get_prices(at)):  # it would be computed as free
        return None
    parts = billed(usage)
    counts = Usage(
        input_tokens=parts.plain + parts.cached + parts.written,
        cache_read_tokens=parts.cached or None,
        cache_write_tokens=parts.written or None,
        output_tokens=parts.output,
        output_reasoning_tokens=min(max(0, usage.reasoning_tokens), parts.output) or None,
    )
    with localcontext(MONEY):
        return model.calc_price(counts, provider, genai_request_timestamp=at).total_price


def _per_token(prices: ModelPrice) -> bool:
    """Say whether prompts and answers are billed by their tokens: some models' are not, or nobody knows."""
    return prices.input_mtok is not None and prices.output_mtok is not None


def _short_price(prices: ModelPrice) -> PriceConfig | None:
    """Return what tokens cost where the prompt is short, None where they have no price."""
    if not _per_token(prices):
        return None
    keys = {"input": "input_mtok", "output": "output_mtok"}
    keys |= {"cached_input": "cache_read_mtok", "cache_write": "cache_write_mtok"}
    tiers = {name: getattr(prices, key) for name, key in keys.items()}
    return PriceConfig(**{name: getattr(price, "base", price) for name, price in tiers.items()})
