"""Costs, whatever usage and prices: never negative, additive, and the same by a configured price as by a listed one."""

from decimal import Decimal

from attrs import evolve
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import ClauseEquals, ModelInfo, ModelPrice, Provider
from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.config import PriceConfig
from wizard_actors.cost import billed, cost_of
from wizard_actors.errors import Attempt, WizardError
from wizard_actors.failure import total_cost
from wizard_actors.prices import ListedPrice
from wizard_actors.types import TokenUsage

COUNTS = st.integers(-5, 10**9)
USAGES = st.builds(TokenUsage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
DOLLARS = st.decimals(0, 1000, places=4)
PRICES = st.builds(
    PriceConfig,
    input=DOLLARS,
    output=DOLLARS,
    cached_input=st.none() | DOLLARS,
    cache_write=st.none() | DOLLARS,
)
COSTS = st.none() | st.decimals(0, 10, places=9)
ATTEMPTS = st.lists(
    st.builds(
        Attempt,
        st.just("a"),
        st.just(0.0),
        st.just(0.0),
        error=st.none() | st.just(WizardError("no")),
        cost=COSTS,
        sent=st.booleans(),
        cancelled=st.booleans(),
    ),
    max_size=6,
)


@given(USAGES)
def test_every_token_is_billed_once(usage: TokenUsage) -> None:
    """The parts of the input are the input, and none is negative."""
    parts = billed(usage)
    assert min(parts.plain, parts.cached, parts.written, parts.output) >= 0
    assert parts.plain + parts.cached + parts.written == max(0, usage.input_tokens)


@given(PRICES, USAGES)
def test_a_cost_lies_between_those_of_the_lowest_and_the_highest_price(price: PriceConfig, usage: TokenUsage) -> None:
    """Whatever was cached."""
    kinds = [each for each in (price.input, price.cached_input, price.cache_write) if each is not None]
    given, output = max(0, usage.input_tokens), max(0, usage.output_tokens) * price.output
    cost = cost_of(price, usage) * 10**6
    assert given * min(kinds) + output <= cost <= given * max(kinds) + output


@given(PRICES, USAGES)
def test_a_price_of_the_cache_that_says_the_same_changes_nothing(price: PriceConfig, usage: TokenUsage) -> None:
    """Left out, it is that of any other input."""
    without = evolve(price, cached_input=None, cache_write=None)
    assert cost_of(without, usage) == cost_of(evolve(without, cached_input=price.input, cache_write=price.input), usage)


@given(PRICES, USAGES)
def test_a_listed_price_comes_to_what_a_configured_one_does(price: PriceConfig, usage: TokenUsage) -> None:
    """Where it has neither tiers nor times: the two calculations check each other."""
    prices = ModelPrice(
        input_mtok=price.input,
        output_mtok=price.output,
        cache_read_mtok=price.cached_input,
        cache_write_mtok=price.cache_write,
    )
    model = ModelInfo("m", ClauseEquals("m"), prices=prices)
    provider = Provider("p", "P", "https://p", models=[model])
    listed = ListedPrice(DataSnapshot([provider], from_auto_update=False), provider, model)
    assert listed.cost(usage) == cost_of(price, usage)


@given(ATTEMPTS)
def test_a_total_is_the_sum_of_what_is_known(attempts: list[Attempt]) -> None:
    """And None, never 0, where nothing was answered, and all that is known is that something cost nothing beside what
    nobody knows.
    """
    costs = [attempt.cost for attempt in attempts if attempt.cost is not None]
    total = total_cost(attempts)
    assert (total or Decimal(0)) == sum(costs)
    answered = any(each.cost is not None and each.error is None and not each.cancelled for each in attempts)
    unknown = any(attempt.sent and attempt.cost is None for attempt in attempts)
    if total is None:
        assert not answered
        assert not costs or unknown
    elif total == 0:
        assert answered or not unknown
