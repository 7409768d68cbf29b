"""A price list of our own in genai-prices' form: its real one changes with every release."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import time
from decimal import Decimal

from genai_prices.data_snapshot import DataSnapshot, set_custom_snapshot
from genai_prices.types import (
    ClauseEquals,
    ClauseStartsWith,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

__all__ = ["listing", "snapshot"]


def tiered(base: int, above: int) -> TieredPrices:
    """Return a price that rises where the prompt has more than 1,000 tokens."""
    return TieredPrices(base=Decimal(base), tiers=[Tier(start=1000, price=Decimal(above))])


def snapshot() -> DataSnapshot:
    """Return a list of some providers and models, at round prices."""
    small = ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2))
    night = ModelPrice(input_mtok=Decimal("0.5"), output_mtok=Decimal(1))
    cached = ModelPrice(
        input_mtok=Decimal(10), output_mtok=Decimal(20), cache_read_mtok=Decimal(1), cache_write_mtok=Decimal(12)
    )
    openai = Provider(
        id="openai",
        name="OpenAI",
        api_pattern=r"https://api\.openai\.com",
        models=[
            ModelInfo("small", ClauseEquals("small"), context_window=100, prices=small),
            ModelInfo("large", ClauseStartsWith("large"), context_window=1000, prices=cached),
            ModelInfo(
                "tiers", ClauseEquals("tiers"), prices=ModelPrice(input_mtok=tiered(1, 3), output_mtok=Decimal(2))
            ),
            ModelInfo(
                "nights",
                ClauseEquals("nights"),
                prices=[
                    ConditionalPrice(prices=small),
                    ConditionalPrice(constraint=TimeOfDateConstraint(time(22), time(6)), prices=night),
                ],
            ),
            ModelInfo(
                "reasons",
                ClauseEquals("reasons"),
                prices=ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2), output_reasoning_mtok=Decimal(5)),
            ),
            ModelInfo("unpriced", ClauseEquals("unpriced"), context_window=500, prices=ModelPrice()),
            ModelInfo("by-input", ClauseEquals("by-input"), prices=ModelPrice(input_mtok=Decimal(1))),
        ],
    )
    azure = Provider(
        id="azure", name="Azure", api_pattern=r"https://[^.]*\.openai\.azure\.com", fallback_model_providers=["openai"]
    )
    other = Provider(
        id="other",
        name="Other",
        api_pattern=r"https://api\.other\.example",
        models=[
            ModelInfo("small", ClauseEquals("small"), prices=ModelPrice(input_mtok=Decimal(7), output_mtok=Decimal(7)))
        ],
    )
    # Patterns as real ones are: one leaves the last name open, one takes whatever comes first, one wants a path.
    open_end, wide, path = (
        Provider(id=id_, name=id_, api_pattern=pattern, models=other.models)
        for id_, pattern in [
            ("open-end", r"https://api\.moon\."),
            ("wide", r"https://(.*\.)?wide\.example"),
            ("path", r"https://router\.example/path"),
        ]
    )
    return DataSnapshot(providers=[openai, azure, other, open_end, wide, path], from_auto_update=False)


@contextmanager
def listing() -> Iterator[None]:
    """Let genai-prices know nothing but `snapshot()`."""
    set_custom_snapshot(snapshot())
    try:
        yield
    finally:
        set_custom_snapshot(None)
