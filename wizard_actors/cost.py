"""What an answer costs: its tokens at its model's prices."""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from typing import Final

from wizard_actors.config import PriceConfig
from wizard_actors.types import TokenUsage

__all__ = ["cost_of"]

MILLION: Final = Decimal(1_000_000)
MONEY: Final = Context(prec=40)


def cost_of(price: PriceConfig, usage: TokenUsage) -> Decimal:
    """Return what so many tokens cost, in US dollars. A negative count is none; cached tokens are part of the input."""
    cached_price = price.input if price.cached_input is None else price.cached_input
    total = max(0, usage.input_tokens)
    cached = min(max(0, usage.cached_tokens), total)
    with localcontext(MONEY):  # the caller's own may round, or raise
        spoken = max(0, usage.output_tokens) * price.output
        return ((total - cached) * price.input + cached * cached_price + spoken) / MILLION
