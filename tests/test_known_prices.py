"""Known windows and prices at work: prompts that are too long, what requests cost, and which model is cheapest."""

from collections.abc import Iterator
from decimal import Decimal

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from tests.listed import listing
from tests.models import DONE, NO_JITTER, USAGE, Scripted, Turn, client_of, cut, fails, model, says
from wizard_actors import (
    FallbackError,
    ModelConfig,
    NetworkError,
    OverloadedError,
    ParseError,
    Prompt,
    ProviderError,
    RateLimitError,
    RetryError,
    TokenLimitError,
    TokenUsage,
    WizardError,
)
from wizard_actors.attempt import Attempt
from wizard_actors.config import PriceConfig, RetryConfig, RouteConfig
from wizard_actors.events import RequestEnded
from wizard_actors.port import Patience
from wizard_actors.providers.base import Answer, Call
from wizard_actors.types import ServedBy, UsageUpdate

ONCE = RetryConfig(max_attempts=1)
PRICE = PriceConfig(input=Decimal(10), output=Decimal(20))
PAID = Decimal("0.0002")
"""What `USAGE` costs at that price."""

BROKEN = NetworkError("the connection broke", model="a")
REFUSED = OverloadedError("overloaded", model="a", status=503)
CUT = cut("Too", USAGE)
PLAYED = says("fine", USAGE)


class Large:
    """An answer that says that it is of the model "large"."""

    def __init__(self, answer: Answer) -> None:
        self.limits, self.upstream_id, self.upstream_model = answer.limits, answer.upstream_id, "large"
        self.read = answer.read


@pytest.fixture(autouse=True)
def _own_list() -> Iterator[None]:
    with listing():
        yield


def listed(name: str, upstream: str, *, retry: RetryConfig = ONCE) -> ModelConfig:
    """Return the configuration of a model that the list may know."""
    return evolve(model(name, retry=retry), provider="openai", model=upstream, simulated=None)


# -- windows


async def test_a_prompt_that_is_clearly_too_long_is_not_sent(autojump_clock: MockClock) -> None:
    """Nothing is configured: the list knows the window."""
    a = Scripted(PLAYED)
    async with client_of(a, listed("a", "small")) as client:
        with pytest.raises(TokenLimitError, match="set its `context_window`") as caught:
            await client.generate("word " * 101)
        assert (caught.value.requested, caught.value.max, caught.value.attempts) == (101, 100, ())
        assert a.calls == []

        await client.generate("word " * 100)
        assert len(a.calls) == 1


async def test_a_model_that_is_too_small_is_passed_over(autojump_clock: MockClock) -> None:
    """By one whose window is larger, and by one whose window nobody knows."""
    models = {name: Scripted(PLAYED) for name in "abc"}
    configs = listed("a", "small"), listed("b", "large"), listed("c", "nobody")
    async with client_of(models, *configs) as client:
        assert (await client.generate("word " * 101)).model == "b"
        assert (await client.generate("word " * 1001)).model == "c"
        assert models["a"].calls == []


async def test_a_refused_prompt_goes_on_to_larger_windows_only(autojump_clock: MockClock) -> None:
    """The bound was too low, and the model said so: who is no larger need not be asked."""
    too_long = TokenLimitError("too long", model="b")
    models = {"b": Scripted(fails(too_long)), "a": Scripted(PLAYED), "c": Scripted(PLAYED)}
    async with client_of(models, listed("b", "large"), listed("a", "small"), listed("c", "nobody")) as client:
        assert (await client.generate("Why?")).model == "c"
        assert models["a"].calls == []


async def test_the_configured_window_holds_against_the_list(autojump_clock: MockClock) -> None:
    """Lists grow old."""
    a = Scripted(PLAYED)
    async with client_of(a, evolve(listed("a", "small"), context_window=200)) as client:
        await client.generate("word " * 150)
        with pytest.raises(TokenLimitError):
            await client.generate("word " * 201)


# -- what a request costs


async def test_an_answer_costs_what_the_list_says(autojump_clock: MockClock) -> None:
    """Its response, its attempt, its events and the metrics agree."""
    a = Scripted(says("fine", UsageUpdate(TokenUsage(1000, 100, cached_tokens=600, cache_write_tokens=300))))
    async with client_of(a, listed("a", "large")) as client:
        answer = await client.generate("Why?")

        assert answer.cost == Decimal("0.0072")
        assert [attempt.cost for attempt in answer.attempts] == [answer.cost]
        seen = client.metrics()
        assert (seen.requests.cost, seen.attempts.cost, seen.attempts.unpriced) == (answer.cost, answer.cost, 0)


async def test_a_cost_follows_the_usage_and_the_name_of_what_answered(autojump_clock: MockClock) -> None:
    """It is reckoned up once for each of them, and again where one changes."""
    first, last = UsageUpdate(TokenUsage(1000, 0)), UsageUpdate(TokenUsage(2000, 0))
    async with client_of(Scripted(says(first, "fine", last)), listed("a", "small")) as client:
        port, call = client._inside.shared.ports["a"], Call(Prompt("Why?"), "id")
        async with Attempt(port, call, Patience(queue_timeout=1.0, max_wait=1.0)) as attempt:
            attempt._answer = Large(attempt._answer)
            costs = [attempt.cost]
            while await attempt.read() is not None:
                costs.append(attempt.cost)
            costs.append(attempt.cost)

    listed_cost, later = Decimal("0.001"), Decimal("0.002")
    assert costs == [None, listed_cost, listed_cost, later, later, Decimal("0.02")]


async def test_an_answer_costs_what_its_failed_attempts_cost_too(autojump_clock: MockClock) -> None:
    """They are billed; and each is counted once wherever costs are added up."""
    models = {"a": Scripted(CUT), "b": Scripted(CUT, PLAYED)}
    configs = model("a", price=PRICE, retry=ONCE), model("b", price=PRICE, retry=NO_JITTER)
    ended: list[RequestEnded] = []
    async with client_of(models, *configs) as client:
        client.events.listen(lambda event: ended.append(event) if isinstance(event, RequestEnded) else None)
        answer = await client.generate("Why?")

        assert [attempt.cost for attempt in answer.attempts] == [PAID, PAID, PAID]
        assert answer.cost == 3 * PAID
        seen = client.metrics()
        assert seen.requests.cost == seen.attempts.cost == 3 * PAID
        assert (seen.models["a"].cost, seen.models["b"].cost) == (PAID, 2 * PAID)
        assert [event.cost for event in ended] == [3 * PAID]


async def test_a_stream_costs_what_its_failed_attempts_cost_too(autojump_clock: MockClock) -> None:
    """What broke off before the first content, and nobody saw, is billed all the same."""
    models = {"a": Scripted(cut(USAGE)), "b": Scripted(PLAYED)}
    configs = model("a", price=PRICE, retry=ONCE), model("b", price=PRICE)
    async with client_of(models, *configs) as client, client.stream("Why?") as stream:
        assert [text async for text in stream.text()] == ["fine"]
        assert stream.response.cost == 2 * PAID


async def test_a_lost_hedge_that_stated_its_usage_costs_it(autojump_clock: MockClock) -> None:
    """One that did not is of unknown cost, and adds nothing."""
    models = {
        "a": Scripted(says(USAGE, 9.0, "late")),
        "b": Scripted(says(0.5, "fine", USAGE)),
        "c": Scripted(says(9.0)),
    }
    configs = [model(name, price=PRICE) for name in models]
    async with client_of(models, *configs, strategy="parallel") as client:
        answer = await client.generate("Why?")

        assert {attempt.model: attempt.cost for attempt in answer.attempts} == {"a": PAID, "b": PAID, "c": None}
        assert answer.cost == 2 * PAID


async def test_an_answer_of_unknown_cost_makes_the_whole_unknown(autojump_clock: MockClock) -> None:
    """A part of it would look like all of it; what is known of the others stands in their records."""
    models = {"a": Scripted(CUT), "b": Scripted(PLAYED)}
    async with client_of(models, model("a", price=PRICE, retry=ONCE), model("b")) as client:
        answer = await client.generate("Why?")

        assert answer.cost is None
        assert [attempt.cost for attempt in answer.attempts] == [PAID, None]
        assert client.metrics().requests.cost == PAID


async def test_without_a_usage_a_cost_is_unknown(autojump_clock: MockClock) -> None:
    """However well the price is known: tokens that we estimate are not billed."""
    async with client_of(Scripted(says("fine")), listed("a", "small")) as client:
        assert (await client.generate("Why?")).cost is None


@pytest.mark.parametrize("first", [cut("Too"), fails(REFUSED)], ids=["of unknown cost", "refused"])
async def test_a_free_answer_costs_nothing_whatever_came_before(autojump_clock: MockClock, first: Turn) -> None:
    """The sum of what is known is 0, where the answer's own cost is."""
    free = model("a", price=PriceConfig(input=0, output=0), retry=NO_JITTER)
    ended: list[RequestEnded] = []
    async with client_of(Scripted(first, PLAYED), free) as client:
        client.events.listen(lambda event: ended.append(event) if isinstance(event, RequestEnded) else None)
        answer = await client.generate("Why?")

    assert answer.cost == 0
    assert [event.cost for event in ended] == [0]


def says_that_it_is(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have every answer say from its head on that it is of the model `name`."""
    stated = property(lambda self: name, lambda self, value: None)
    monkeypatch.setattr("tests.models._Answer.upstream_model", stated, raising=False)


async def test_a_broken_answer_is_billed_as_what_it_said_to_be(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some providers say at once which model it is; an answer need not be whole to be billed."""
    says_that_it_is(monkeypatch, "large")
    async with client_of(Scripted(CUT), listed("a", "small")) as client:
        with pytest.raises(ProviderError) as caught:
            await client.generate("Why?")
        assert caught.value.cost == PAID
        assert client.metrics().models["a"].cost == PAID


async def test_a_cancelled_answer_is_billed_as_what_it_said_to_be(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that broke off."""
    says_that_it_is(monkeypatch, "large")
    async with client_of(Scripted(says("Hello", USAGE, 9.0)), listed("a", "small")) as client:
        with trio.move_on_after(5):
            await client.generate("Why?")
        assert client.metrics().models["a"].cost == PAID


async def test_a_refused_call_costs_nothing(autojump_clock: MockClock) -> None:
    """Nobody is billed for an error in place of an answer, whatever the model's price."""
    a = Scripted(fails(REFUSED), PLAYED)
    async with client_of(a, model("a", price=PRICE, retry=NO_JITTER)) as client:
        answer = await client.generate("Why?")

        assert [attempt.cost for attempt in answer.attempts] == [Decimal(0), PAID]
        assert answer.cost == PAID


@pytest.mark.parametrize(
    ("turn", "cost"),
    [
        (fails(REFUSED), Decimal(0)),
        (Turn((USAGE, REFUSED)), PAID),
        (Turn(("Some", REFUSED)), None),
        (fails(BROKEN), None),
        (fails(ParseError("no answer", model="a", status=200)), None),
        (fails(RateLimitError("slow down", model="a", source="limiter")), None),
    ],
    ids=[
        "refused",
        "refused after its usage",
        "broken off after content",
        "no answer",
        "an answer of rubbish",
        "no status",
    ],
)
async def test_what_a_failed_attempt_costs(autojump_clock: MockClock, turn: Turn, cost: Decimal | None) -> None:
    """Nothing only where the provider refused it; what it stated; else nobody knows."""
    async with client_of(Scripted(turn), model("a", price=PRICE, retry=ONCE)) as client:
        with pytest.raises(ProviderError) as caught:
            await client.generate("Why?")

        assert [attempt.cost for attempt in caught.value.attempts] == [cost]
        assert caught.value.cost == cost


@pytest.mark.parametrize(
    ("first", "second", "kind", "cost"),
    [
        (CUT, CUT, RetryError, 2 * PAID),
        (CUT, fails(BROKEN), RetryError, PAID),
        (fails(REFUSED), fails(REFUSED), RetryError, Decimal(0)),
        (fails(REFUSED), fails(BROKEN), RetryError, None),
    ],
    ids=["both", "one", "nothing", "nobody knows"],
)
async def test_an_error_tells_what_its_attempts_cost(
    autojump_clock: MockClock, first: Turn, second: Turn, kind: type[WizardError], cost: Decimal | None
) -> None:
    """As far as it is known; a refusal's 0 is not said of what may have cost something."""
    a = Scripted(first, second)
    async with client_of(a, model("a", price=PRICE, retry=evolve(NO_JITTER, max_attempts=2))) as client:
        with pytest.raises(kind) as caught:
            await client.generate("Why?")

        assert caught.value.cost == cost
        assert caught.value.to_dict()["cost"] == (None if cost is None else str(cost))


async def test_an_error_of_several_models_tells_what_all_of_them_cost(autojump_clock: MockClock) -> None:
    """Together, and each in its record."""
    models = {"a": Scripted(CUT), "b": Scripted(CUT)}
    async with client_of(models, *[model(name, price=PRICE, retry=ONCE) for name in models]) as client:
        with pytest.raises(FallbackError) as caught:
            await client.generate("Why?")

        assert caught.value.cost == 2 * PAID


async def test_what_stands_in_costs_what_was_tried_before(autojump_clock: MockClock) -> None:
    """The answer itself is free, the attempts in vain were not."""
    route = RouteConfig(name="wizard", static_answer="Later.")
    async with client_of(Scripted(CUT), model("a", price=PRICE, retry=ONCE), route=route) as client:
        answer = await client.generate("Why?")

        assert (answer.served_by, answer.cost) == (ServedBy.STATIC, PAID)
        assert client.metrics().requests.cost == PAID


async def test_a_consumer_that_leaves_early_costs_what_was_stated(autojump_clock: MockClock) -> None:
    """A stream that nobody reads on is noted in the metrics."""
    a = Scripted(Turn(("Hello", USAGE, " there", 9.0, DONE)))
    async with client_of(a, model("a", price=PRICE)) as client:
        async with client.stream("Why?") as stream:
            async for text in stream.text():
                if text == " there":
                    break
        assert client.metrics().attempts.cost == PAID


# -- which is cheapest


async def test_the_cheapest_by_the_list_is_asked_first(autojump_clock: MockClock) -> None:
    """Nothing is configured but the models."""
    models = {"large": Scripted(PLAYED), "small": Scripted(PLAYED), "nobody": Scripted(PLAYED)}
    configs = [listed(name, name) for name in ("nobody", "large", "small")]
    async with client_of(models, *configs, strategy="cheapest") as client:
        assert (await client.generate("Why?")).model == "small"
        assert (await client.generate("word " * 101)).model == "large"
