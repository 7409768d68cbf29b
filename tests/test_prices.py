"""What is known of models, by whom, and what their answers cost by it."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Context, Decimal, localcontext
from types import ModuleType

import pytest
from attrs import evolve
from genai_prices.data_snapshot import get_snapshot, set_custom_snapshot

from tests.listed import listing, snapshot
from wizard_actors.config import ModelConfig, PriceConfig
from wizard_actors.config.listed import LISTED, Listing, listing_of
from wizard_actors.prices import NAMES_AT_MOST, KnownModel, ListedPrice, _library, known_models
from wizard_actors.types import TokenUsage

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp()
MIDNIGHT = datetime(2026, 5, 1, 23, tzinfo=UTC).timestamp()
USAGE = TokenUsage(input_tokens=1000, output_tokens=100)
OWN = PriceConfig(input=Decimal(100), output=Decimal(200))


@pytest.fixture(autouse=True)
def _own_list() -> Iterator[None]:
    with listing():
        yield


def known(
    model: str = "small",
    *,
    provider: str = "openai",
    base_url: str | None = None,
    window: int | None = None,
    price: PriceConfig | None = None,
    enabled: bool = True,
    now: float = NOON,
) -> KnownModel:
    """Return what is known of one model at an instant."""
    config = ModelConfig(
        name="a",
        provider=provider,
        model=model,
        base_url=base_url,
        context_window=window,
        price=price,
        enabled=enabled,
    )
    return known_models([config], wall_clock=lambda: now)["a"]


def cost(found: KnownModel, usage: TokenUsage = USAGE, upstream_model: str | None = None) -> Decimal | None:
    """Return what an answer of the model costs."""
    return None if found.price is None else found.price.cost(usage, upstream_model)


# -- who says what


def test_what_is_left_open_comes_from_the_list() -> None:
    """The window, and the price for planning and for reckoning up."""
    found = known()

    assert found.config.context_window == 100
    assert found.config.price == PriceConfig(input=1, output=2)
    assert (found.window_source, found.price_source) == ("genai-prices", "genai-prices")
    assert cost(found) == Decimal("0.0012")


def test_what_is_configured_counts_alone() -> None:
    """Whatever the list says, and whichever model the provider says that it was."""
    found = known(window=7, price=OWN)

    assert (found.config.context_window, found.config.price) == (7, OWN)
    assert (found.window_source, found.price_source) == ("config", "config")
    assert cost(found, upstream_model="large") == Decimal("0.12")


def test_each_figure_is_looked_up_for_itself() -> None:
    """A price of one's own leaves the window to the list, and the other way round."""
    assert known(price=OWN).config.context_window == 100
    assert known(price=OWN).config.price == OWN
    assert known(window=7).config.price == PriceConfig(input=1, output=2)


@pytest.mark.parametrize(
    "found",
    [
        lambda: known("nobody"),
        lambda: known(provider="vllm"),
        lambda: known(provider="ollama"),
        lambda: known(provider="simulated"),
        lambda: known(provider="custom"),
        lambda: known(enabled=False),
        lambda: known(provider="groq"),  # this list does not have that provider
    ],
)
def test_what_nobody_knows_is_none(found: object) -> None:
    """Never an exception, and never a guess."""
    assert callable(found)
    model = found()
    assert (model.config.context_window, model.config.price, cost(model)) == (None, None, None)
    assert (model.window_source, model.price_source) == (None, None)


@pytest.mark.parametrize("name", ["unpriced", "by-input"])
def test_a_model_that_is_not_billed_by_its_tokens_is_not_free(name: str) -> None:
    """A list without a price for them would come to 0."""
    found = known(name)

    assert cost(found) is None
    assert (found.config.price, found.price_source) == (None, None)


def test_a_window_is_known_without_a_price() -> None:
    """One has nothing to do with the other."""
    assert known("unpriced").config.context_window == 500


# -- which model, of which provider


def test_the_providers_own_name_for_the_model_counts_first() -> None:
    """An alias may stand for another model every day; what answered is billed."""
    assert cost(known("small"), upstream_model="large-2026-05-01") == Decimal("0.012")


@pytest.mark.parametrize("name", ["nobody", "", "large" * 10_000, None])
def test_a_name_that_nobody_knows_leaves_the_configured_one(name: str | None) -> None:
    """What a provider says may be anything."""
    assert cost(known("small"), upstream_model=name) == Decimal("0.0012")


def test_a_model_that_is_not_listed_may_answer_under_a_name_that_is() -> None:
    """Then its cost is known, and nothing before."""
    found = known("nobody")

    assert found.price_source is None
    assert cost(found, upstream_model="small") == Decimal("0.0012")


def test_a_deployment_is_not_the_model_of_its_name() -> None:
    """Azure's customers name them as they like: a window by that name would refuse what the model takes."""
    found = known("small", provider="azure", base_url="https://mine.openai.azure.com/openai/v1")

    assert (found.config.context_window, found.config.price, cost(found)) == (None, None, None)
    assert cost(found, upstream_model="large") == Decimal("0.012")


@pytest.mark.parametrize(
    ("base_url", "price"),
    [
        (None, "0.0012"),
        ("https://api.openai.com/v1", "0.0012"),
        ("https://api.openai.com/v1/", "0.0012"),
        ("https://api.openai.com/v2", "0.0012"),
        ("https://API.OpenAI.com/v1", "0.0012"),
        ("https://api.openai.com:443/v1", "0.0012"),
        ("https://api.other.example/v1", "0.0077"),
        ("https://api.moon.cn/v1", "0.0077"),
        ("https://eu.wide.example/v1", "0.0077"),
        ("https://router.example/path/v1", "0.0077"),
        ("https://api.openai.com.example.net/v1", None),
        ("https://api.openai.community/v1", None),
        ("https://api.moon.example.net/v1", None),
        ("https://llm.example.net/a.wide.example/v1", None),
        ("https://router.example/other/v1", None),
        ("https://llm.example.com/v1", None),
        ("http://127.0.0.1:8123/v1", None),
        ("http://[::1]:8123/v1", None),
        ("http://localhost:8123/v1", None),
        ("http://gateway/v1", None),
    ],
)
def test_whose_prices_hold_is_decided_by_the_address(base_url: str | None, price: str | None) -> None:
    """Who is asked somewhere else is asked at the prices of that place, if they are known."""
    assert cost(known(base_url=base_url)) == (None if price is None else Decimal(price))


@pytest.mark.parametrize("provider", sorted(LISTED))
def test_genai_prices_knows_every_provider_that_is_said_to_be_listed(provider: str) -> None:
    """With models, under that id: in the list that the library brings."""
    set_custom_snapshot(None)
    found = get_snapshot().find_provider(None, LISTED[provider], None)
    assert found.id == LISTED[provider]
    assert found.models


@pytest.mark.parametrize(
    ("provider", "base_url"),
    [
        (3, None),
        (None, None),
        ("openai", "http://["),
        ("openai", "http://127.0.0.1/v1"),
        ("openai", "http://localhost:8123/v1"),
        ("groq", "http://gateway/v1"),
    ],
)
def test_what_cannot_be_listed_is_not_looked_for(provider: object, base_url: object) -> None:
    """Nobody loads a list over it; files are asked about before they are known to be right."""
    assert listing_of(provider, base_url) is None


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://User:Pass@API.Example.com:8443/V1/", "https://api.example.com:8443/V1/"),
        ("https://api.openai.com@llm.example.com/v1", "https://llm.example.com/v1"),
    ],
)
def test_an_address_is_looked_for_in_one_spelling(url: str, address: str) -> None:
    """Hosts know no capital letters, and who logs in there is nobody's name."""
    assert listing_of("openai", url) == Listing(api_url=address)


# -- how much


def test_what_was_written_to_a_prompt_cache_has_its_configured_price() -> None:
    """As what was read from it; without one, each costs what other input does."""
    usage = TokenUsage(input_tokens=1000, output_tokens=100, cached_tokens=600, cache_write_tokens=300)
    price = PriceConfig(input=10, output=20, cached_input=1, cache_write=12)

    assert cost(known(price=price), usage) == Decimal("0.0072")
    assert cost(known(price=evolve(price, cache_write=None)), usage) == Decimal("0.0066")
    assert cost(known(price=evolve(price, cached_input=None)), usage) == Decimal("0.0126")


def test_reasoning_that_has_a_price_of_its_own_costs_it() -> None:
    """It is a part of the output."""
    usage = TokenUsage(input_tokens=1000, output_tokens=100, reasoning_tokens=60)
    assert cost(known("reasons"), usage) == Decimal("0.00138")  # 1000 x 1 + 40 x 2 + 60 x 5, a million
    assert cost(known("small"), usage) == Decimal("0.0012")


def test_what_was_read_from_a_prompt_cache_and_written_to_it_has_its_price() -> None:
    """Both are parts of the input."""
    usage = TokenUsage(input_tokens=1000, output_tokens=100, cached_tokens=600, cache_write_tokens=300)
    assert cost(known("large"), usage) == Decimal("0.0072")  # 100 x 10 + 600 x 1 + 300 x 12 + 100 x 20, a million


def test_a_long_prompt_costs_the_price_of_its_tier() -> None:
    """In planning, the price of a short one counts."""
    found = known("tiers")

    assert found.config.price == PriceConfig(input=1, output=2)
    assert cost(found, TokenUsage(input_tokens=1000)) == Decimal("0.001")
    assert cost(found, TokenUsage(input_tokens=1001)) == Decimal("0.003003")


def test_prices_by_the_time_of_day_are_those_of_now() -> None:
    """Of the wall clock that was passed in."""
    assert cost(known("nights", now=NOON)) == Decimal("0.0012")
    assert cost(known("nights", now=MIDNIGHT)) == Decimal("0.0006")


def test_the_callers_own_arithmetic_rounds_no_price() -> None:
    """A program that computes with three digits is told what it was, in all of them."""
    with localcontext(Context(prec=3)):
        assert cost(known(), TokenUsage(input_tokens=123_456, output_tokens=1)) == Decimal("0.123458")


@pytest.mark.parametrize(
    "usage",
    [
        TokenUsage(-5, -5, -5, -5, -5),
        TokenUsage(10, 5, cached_tokens=11),
        TokenUsage(10, 5, cached_tokens=8, cache_write_tokens=8),
        TokenUsage(10, 5, reasoning_tokens=6),
        TokenUsage(10**30, 10**30),
    ],
)
@pytest.mark.parametrize("name", ["small", "large"])
def test_no_usage_is_too_odd_to_be_priced(usage: TokenUsage, name: str) -> None:
    """Parts never exceed the whole, and nothing is negative."""
    found = cost(known(name), usage)
    assert found is not None
    assert found >= 0


def test_names_are_remembered_up_to_a_bound() -> None:
    """A provider that says another one each time costs no memory."""
    list_ = snapshot()
    price = ListedPrice(list_, list_.providers[0], None)
    for number in range(2 * NAMES_AT_MOST):
        assert price.cost(USAGE, f"model-{number}") is None

    assert price._find.cache_info().currsize == NAMES_AT_MOST


# -- when it is loaded

LOADED = """
import sys
import trio
import wizard_actors
from wizard_actors import ModelConfig, ResilientClient, WizardConfig, actor, supervisor

async def main():
    async with ResilientClient.open(WizardConfig(models=[ModelConfig(name="a", {settings})])):
        pass

trio.run(main)
print("genai_prices" in sys.modules)
"""


@pytest.mark.parametrize(
    ("settings", "loaded"),
    [
        ('provider="simulated"', False),
        ('provider="ollama"', False),
        ('provider="openai", base_url="http://127.0.0.1:9/v1"', False),
        ('provider="openai", context_window=9, price={"input": 1, "output": 2}', False),
        ('provider="openai", context_window=9', True),
    ],
)
def test_the_list_is_loaded_only_where_it_may_be_of_use(settings: str, loaded: bool) -> None:
    """It takes a while, which nobody else should pay for."""
    program = LOADED.replace("{settings}", settings)
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.stderr) == (str(loaded), "")


class Broken(ModuleType):
    """A module of a library that was installed badly."""

    def __getattr__(self, name: str) -> object:
        raise SystemError("the installed core is of another version")


@pytest.mark.parametrize(
    ("module", "kind"),
    [(None, "ModuleNotFoundError"), (Broken("genai_prices.data_snapshot"), "SystemError: the installed core")],
)
def test_without_the_list_nothing_is_known_but_what_is_configured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, module: ModuleType | None, kind: str
) -> None:
    """A client opens all the same; why nothing is known is said once."""
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", module)
    _library.cache_clear()
    try:
        models = known(), known(window=7), known(price=OWN)
    finally:
        _library.cache_clear()

    assert [model.config.context_window for model in models] == [None, 7, None]
    assert [cost(model) for model in models] == [None, None, Decimal("0.12")]
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("genai-prices cannot be loaded, so nothing is known of prices")
    assert kind in record.getMessage()


def test_a_disabled_model_is_what_its_configuration_says() -> None:
    """It is not looked up, and comes out as it went in."""
    config = ModelConfig(name="a", provider="openai", model="small", enabled=False, price=OWN)
    assert known_models([config, evolve(config, name="b")])["b"].config == evolve(config, name="b")
