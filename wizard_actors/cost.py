"""What an answer costs by a price of so much a token."""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from typing import Final

from attrs import frozen

from wizard_actors.config import PriceConfig
from wizard_actors.types import TokenUsage

__all__ = ["MONEY", "Billed", "billed", "cost_of"]

MILLION: Final = Decimal(1_000_000)

MONEY: Final = Context(prec=40)
"""In which costs are computed: the caller's own context may round, or raise."""


@frozen
class Billed:
    """The tokens of an answer by what each of them is billed at: no token is in two of the parts."""

    plain: int
    cached: int
    written: int
    output: int


def billed(usage: TokenUsage) -> Billed:
    """Return the parts of `usage`, whatever it says: a negative count is none, and what was read from a cache and what
    was written to one are parts of the input, in this order, and never more than it.
    """
    given = max(0, usage.input_tokens)
    cached = min(max(0, usage.cached_tokens), given)
    written = min(max(0, usage.cache_write_tokens), given - cached)
    return Billed(given - cached - written, cached, written, max(0, usage.output_tokens))


def cost_of(price: PriceConfig, usage: TokenUsage) -> Decimal:
    """Return what so many tokens cost, in US dollars."""
    parts = billed(usage)
    cached_price = price.input if price.cached_input is None else price.cached_input
    written_price = price.input if price.cache_write is None else price.cache_write
    with localcontext(MONEY):
        given = parts.plain * price.input + parts.cached * cached_price + parts.written * written_price
        return (given + parts.output * price.output) / MILLION
