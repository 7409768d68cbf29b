"""Plans and bars, case by case. Times are seconds from an arbitrary start."""

from decimal import Decimal
from random import Random

import pytest

from wizard_actors.config import PriceConfig, Strategy, SupportsConfig
from wizard_actors.errors import AuthError, NetworkError, QuotaExhaustedError, TokenLimitError, UnsupportedError
from wizard_actors.model_stats import ModelStats, Wait
from wizard_actors.needs import Needs
from wizard_actors.plan import Bar, Bars, Choice, ModelFacts, Plan, Skip, Skipped, Tactics, Why, plan

FREE = ModelFacts()
BAD_KEY = AuthError("bad key", model="a")


def barred(until: float, *, probing: bool = False) -> ModelFacts:
    """Return the facts of a model whose key failed."""
    return ModelFacts(bar=Bar(until, "auth", probing))


def planned(
    *facts: ModelFacts,
    tokens: int = 0,
    needs: Needs | None = None,
    now: float = 100.0,
    strategy: Strategy = "sequential",
    delay: float = 2.0,
    quantile: float | None = None,
    rng: Random | None = None,
) -> Plan:
    """Plan over models a, b, c, ... with these facts."""
    names = "abcdef"[: len(facts)]
    tactics = Tactics(strategy, delay, quantile)
    by_name = dict(zip(names, facts, strict=True))
    return plan(names, by_name, needs or Needs(tokens), now, tactics=tactics, rng=rng or Random(1))


def tried(made: Plan) -> str:
    """Return the names of the models to try."""
    return "".join(choice.model for choice in made.choices)


# -- plans


def test_the_chain_is_tried_in_its_order() -> None:
    """Sequential: the first model first."""
    made = planned(FREE, FREE, FREE)
    assert made == Plan((Choice("a", Why.IN_ORDER), Choice("b", Why.IN_ORDER), Choice("c", Why.IN_ORDER)))


def test_what_cannot_answer_is_skipped_with_the_reason() -> None:
    """Disabled, too small, DOWN, barred, or being probed."""
    small = ModelFacts(context_window=10)
    made = planned(
        ModelFacts(enabled=False),
        small,
        ModelFacts(down=True),
        barred(150.0),
        barred(90.0, probing=True),
        FREE,
        tokens=11,
    )
    assert tried(made) == "f"
    assert made.skipped == (
        Skipped("a", Skip.DISABLED),
        Skipped("b", Skip.TOO_LONG),
        Skipped("c", Skip.DOWN),
        Skipped("d", Skip.BARRED, 150.0),
        Skipped("e", Skip.PROBING, 90.0),
    )
    assert [skip.said.split(":")[0] for skip in made.skipped] == [
        "is disabled",
        "has too small a window",
        "is down",
        "is left out for a while",
        "is left out for a while",
    ]
    assert Skipped("a", Skip.UNSUPPORTED, lacks=("tools", "sampling")).said == (
        "does not support tools and `temperature` and `top_p`"
    )
    assert Skipped("a", Skip.NOT_CHOSEN).said == "was not chosen"


def test_a_window_is_large_enough_for_just_what_fits() -> None:
    """A model whose window is unknown is tried."""
    assert tried(planned(ModelFacts(context_window=10), FREE, tokens=10)) == "ab"
    assert tried(planned(ModelFacts(context_window=10), FREE, tokens=11)) == "b"


def test_a_model_whose_bar_has_expired_is_a_probe_in_its_place() -> None:
    """At the very instant of its end."""
    made = planned(FREE, barred(100.0))
    assert made.choices == (Choice("a", Why.IN_ORDER), Choice("b", Why.PROBE))


def test_where_all_are_barred_the_one_free_soonest_is_tried() -> None:
    """A late answer beats none; of equals, the first."""
    made = planned(barred(140.0), barred(120.0), barred(120.0))
    assert made.choices == (Choice("b", Why.LAST_RESORT),)
    assert made.skipped == (Skipped("a", Skip.BARRED, 140.0), Skipped("c", Skip.BARRED, 120.0))


def test_a_model_that_another_request_probes_is_nearer_to_free_than_a_barred_one() -> None:
    """Its bar has expired."""
    assert tried(planned(barred(140.0), barred(90.0, probing=True))) == "b"


def test_a_model_that_is_down_is_the_very_last_resort() -> None:
    """A barred one might answer; one without actors cannot. With nothing else, its own error says why."""
    assert tried(planned(ModelFacts(down=True), barred(1e6))) == "b"
    assert planned(ModelFacts(down=True), ModelFacts(enabled=False)).choices == (Choice("a", Why.LAST_RESORT),)


def test_of_models_that_are_down_the_one_that_nothing_bars_is_the_last_resort() -> None:
    """A bar counts for one that is DOWN too, and the skip tells until when."""
    out = ModelFacts(down=True, bar=Bar(150.0, "auth"))
    made = planned(out, ModelFacts(down=True))
    assert tried(made) == "b"
    assert made.skipped == (Skipped("a", Skip.DOWN, 150.0),)


def test_a_prompt_too_long_for_all_is_an_error_that_names_the_largest_window() -> None:
    """Nothing is sent."""
    windows = [ModelFacts(context_window=window) for window in (10, 30, 20)]
    with pytest.raises(TokenLimitError, match=r"at least 50 tokens, .* more than 30 \(b\)") as caught:
        planned(*windows, ModelFacts(enabled=False), tokens=50)
    assert (caught.value.model, caught.value.requested, caught.value.max) == ("b", 50, 30)


def test_a_prompt_too_long_for_the_free_ones_goes_to_the_barred_one() -> None:
    """A model that is suitable but barred is better than one that cannot."""
    assert tried(planned(ModelFacts(context_window=10), barred(150.0), tokens=50)) == "b"


def test_a_route_without_an_enabled_model_is_an_error_that_names_them() -> None:
    """The person can tell what to enable."""
    with pytest.raises(UnsupportedError, match="a, b"):
        planned(ModelFacts(enabled=False), ModelFacts(enabled=False))


@pytest.mark.parametrize("feature", ["tools", "images", "schema", "sampling"])
def test_a_model_that_cannot_do_what_the_prompt_needs_is_skipped(feature: str) -> None:
    """The skip names what it lacks; a prompt that does not need it goes there."""
    without = ModelFacts(supports=SupportsConfig(**{feature: False}))
    made = planned(without, FREE, needs=Needs(**{feature: True}))
    assert tried(made) == "b"
    assert made.skipped == (Skipped("a", Skip.UNSUPPORTED, lacks=(feature,)),)
    assert tried(planned(without, FREE)) == "ab"


def test_sampling_goes_by_the_names_that_a_prompt_has() -> None:
    """Nobody has asked for "sampling"."""
    with pytest.raises(UnsupportedError, match="a does not support `temperature` and `top_p`") as caught:
        planned(ModelFacts(supports=SupportsConfig(sampling=False)), needs=Needs(sampling=True))
    assert caught.value.feature == "sampling"


def test_a_prompt_that_no_model_can_answer_is_an_error_that_names_what_each_lacks() -> None:
    """Nothing is sent, and the person can tell which model to add or to correct."""
    blind = ModelFacts(supports=SupportsConfig(images=False))
    plain = ModelFacts(supports=SupportsConfig(images=False, tools=False))
    with pytest.raises(
        UnsupportedError, match="a does not support images; b does not support tools and images"
    ) as caught:
        planned(blind, plain, needs=Needs(images=True, tools=True))
    assert (caught.value.feature, caught.value.model) == ("images, tools", None)


def test_an_error_names_too_small_windows_beside_what_others_lack() -> None:
    """Both reasons stand in it: either kind of model may be the one to replace."""
    blind = ModelFacts(supports=SupportsConfig(images=False))
    with pytest.raises(UnsupportedError, match="b takes at most 10 tokens, and the prompt has at least 11") as caught:
        planned(blind, ModelFacts(context_window=10), needs=Needs(11, images=True))
    assert caught.value.model is None


def test_where_one_model_alone_is_in_the_way_the_error_is_its_own() -> None:
    """Beside one that is disabled, nobody else could be corrected."""
    blind = ModelFacts(supports=SupportsConfig(images=False))
    with pytest.raises(UnsupportedError) as caught:
        planned(ModelFacts(enabled=False), blind, needs=Needs(images=True))
    assert caught.value.model == "b"


def test_a_suitable_model_that_is_barred_is_better_than_one_that_cannot() -> None:
    """The last resort is never one that lacks what is needed."""
    blind = ModelFacts(supports=SupportsConfig(images=False))
    made = planned(blind, barred(150.0), needs=Needs(images=True))
    assert made.choices == (Choice("b", Why.LAST_RESORT),)


# -- hedging


def waited(*seconds: float) -> ModelFacts:
    """Return the facts of a model whose first tokens came after so long."""
    return ModelFacts(stats=ModelStats(waits=tuple(map(Wait, seconds))))


@pytest.mark.parametrize("strategy", ["sequential", "adaptive", "cheapest"])
def test_only_hedged_routes_hedge(strategy: Strategy) -> None:
    """The others try one model after the other."""
    assert planned(FREE, FREE, strategy=strategy).hedge_delay is None


def test_parallel_is_hedged_without_a_delay() -> None:
    """Whatever the delay and the quantile are set to."""
    slow = waited(*[3.0] * 50)
    assert planned(slow, FREE, strategy="parallel", quantile=0.5).hedge_delay == 0.0


def test_hedges_start_after_the_configured_delay() -> None:
    """Where no quantile is asked for, and where too few first tokens are known to have one."""
    assert planned(waited(*[3.0] * 50), FREE, strategy="hedged").hedge_delay == 2.0
    assert planned(waited(*[3.0] * 19), FREE, strategy="hedged", quantile=0.9).hedge_delay == 2.0


def test_hedges_start_after_the_first_models_quantile_once_it_is_known() -> None:
    """Of the first that will be tried, which need not be the chain's first."""
    first = waited(*[0.1 * n for n in range(1, 21)])
    assert planned(first, waited(*[9.0] * 50), strategy="hedged", quantile=0.9).hedge_delay == pytest.approx(1.8)
    assert planned(barred(150.0), first, FREE, strategy="hedged", quantile=0.9).hedge_delay == pytest.approx(1.8)


def test_a_learned_hedge_delay_has_a_floor() -> None:
    """A model that always answers within a few milliseconds is not late after a few more. A configured one stays."""
    fast = waited(*[0.001] * 50)
    assert planned(fast, FREE, strategy="hedged", quantile=0.9).hedge_delay == 0.05
    assert planned(fast, FREE, strategy="hedged", delay=0.01).hedge_delay == 0.01


def test_there_is_no_hedge_where_a_single_model_is_left() -> None:
    """Nothing could be started beside it."""
    assert planned(FREE, ModelFacts(down=True), strategy="hedged").hedge_delay is None


# -- orders


def known(successes: float = 0.0, failures: float = 0.0, cost: float | None = None, dollars: str = "") -> ModelFacts:
    """Return the facts of a model with these counts, this mean cost of an answer, and this price a million tokens."""
    price = PriceConfig(input=Decimal(dollars), output=Decimal(dollars)) if dollars else None
    priced = 0.0 if cost is None else 1.0
    return ModelFacts(price=price, stats=ModelStats(0, successes, failures, cost, priced, at=100.0))


def firsts(*facts: ModelFacts, strategy: Strategy = "adaptive", now: float = 100.0) -> dict[str, int]:
    """Return how many of 1,000 plans each model comes first in."""
    rng = Random(7)
    first = [planned(*facts, strategy=strategy, now=now, rng=rng).choices[0].model for _ in range(1000)]
    return {model: first.count(model) for model in "abcdef"[: len(facts)]}


def test_what_answered_best_lately_goes_first() -> None:
    """Most of the time, so that the others are not forgotten."""
    first = firsts(known(3.0, 7.0), known(9.0, 1.0))
    assert 950 < first["b"] < 1000


def test_what_was_learned_long_ago_no_longer_decides() -> None:
    """An hour later the one is as unknown as the other."""
    first = firsts(known(3.0, 7.0), known(9.0, 1.0), now=3700.0)
    assert 450 < first["a"] < 550


def test_models_of_which_nothing_is_known_take_turns() -> None:
    """None of them has earned a place yet."""
    first = firsts(FREE, FREE, FREE)
    assert all(250 < count < 420 for count in first.values())


def test_an_adaptive_plan_tries_all_models_in_the_drawn_order() -> None:
    """Fallback goes on as ever: what is skipped is skipped, a probe is a probe."""
    made = planned(FREE, barred(90.0), barred(150.0), FREE, strategy="adaptive")
    assert sorted(tried(made)) == ["a", "b", "d"]
    assert Choice("b", Why.PROBE) in made.choices
    assert made.skipped == (Skipped("c", Skip.BARRED, 150.0),)


@pytest.mark.parametrize("strategy", ["adaptive", "cheapest"])
def test_a_model_of_25_straight_500s_does_not_stay_first(strategy: Strategy) -> None:
    """A known trap: 25 straight 500s stayed in rotation."""
    stats = ModelStats()
    for second in range(25):
        error = NetworkError("500", model="a")
        stats = stats.observed(error, started=75.0 + second, now=75.0 + second)
    price = PriceConfig(input=Decimal("0.01"), output=Decimal("0.01"))
    first = firsts(ModelFacts(stats=stats, price=price), known(5.0, 0.0, dollars="10"), strategy=strategy)
    assert first["a"] <= 10


def test_the_cheapest_success_goes_first() -> None:
    """An answer at half the price that comes one time in four costs twice as much in the end."""
    assert tried(planned(known(99, 0, 0.02), known(25, 75, 0.01), known(99, 0, 0.03), strategy="cheapest")) == "acb"


def test_of_equally_cheap_models_the_chains_first_goes_first() -> None:
    """Free ones, for instance."""
    assert tried(planned(known(1, 0, 0.0), known(5, 0, 0.0), known(1, 0, 0.0), strategy="cheapest")) == "abc"


def test_a_model_without_a_known_price_comes_after_those_with_one() -> None:
    """Unknown is not free."""
    assert tried(planned(known(50), known(dollars="100"), strategy="cheapest")) == "ba"


def test_a_listed_price_counts_until_an_answer_was_paid_for() -> None:
    """A thousand tokens in and five hundred out."""
    assert tried(planned(known(dollars="2"), known(dollars="1"), strategy="cheapest")) == "ba"


def test_a_listed_price_is_compared_in_answers_of_the_same_size() -> None:
    """Model a's answers cost a tenth of what its price lets one expect; so will those of b, which is cheaper still."""
    dear, cheap = known(1, 0, 0.0003, dollars="2"), known(dollars="1")
    assert tried(planned(dear, cheap, strategy="cheapest")) == "ba"


@pytest.mark.parametrize("dollars", ["0", "0.001", "0.6", "0.99"])
def test_a_dead_cheap_model_is_neither_first_for_ever_nor_forgotten_for_ever(dollars: str) -> None:
    """However cheap, it steps back after a few failures, and is tried again while nothing else changes."""
    cheap, other = (PriceConfig(input=Decimal(price), output=Decimal(price)) for price in (dollars, "1"))
    dead, firsts_at = ModelStats(), []
    for second in range(3600):
        now = float(second)
        facts = ModelFacts(price=cheap, stats=dead), ModelFacts(price=other, stats=ModelStats(0, 100.0, at=now))
        if tried(planned(*facts, now=now, strategy="cheapest"))[0] == "a":
            firsts_at.append(now)
            dead = dead.observed(NetworkError("dead", model="a"), started=now, now=now)

    assert 2 <= len(firsts_at) <= 3600 / 60
    assert firsts_at[-1] > 600.0


# -- bars


def test_a_barring_error_bars_for_a_minute() -> None:
    """Then one request may probe."""
    bars = Bars()
    bars.record("a", BAD_KEY, started=99.0, now=100.0)
    assert bars.snapshot() == {"a": Bar(160.0, "auth")}
    assert bars.claim("a", 159.9) is None
    assert bars.claim("a", 160.0) is not None


def test_other_errors_bar_nothing() -> None:
    """Failures are the circuit breaker's."""
    bars = Bars()
    bars.record("a", NetworkError("reset", model="a"), started=99.0, now=100.0)
    assert bars.snapshot() == {}


def expired() -> Bars:
    """Return bars of which that of model a has expired at 160."""
    bars = Bars()
    bars.record("a", BAD_KEY, started=99.0, now=100.0)
    return bars


def test_one_request_probes_at_a_time() -> None:
    """The others go on without the model until it is known how that ended."""
    bars = expired()
    assert bars.claim("a", 160.0) is not None
    assert bars.snapshot()["a"].probing
    assert bars.claim("a", 1000.0) is None


def test_an_abandoned_probe_leaves_the_next_request_to_probe() -> None:
    """A caller that was cancelled, or never came so far, taught nothing."""
    bars = expired()
    probe = bars.claim("a", 160.0)
    assert probe is not None
    bars.abandon(probe)
    assert bars.claim("a", 160.0) is not None


@pytest.mark.parametrize("error", [None, NetworkError("reset", model="a")])
def test_a_probe_that_meets_no_barring_error_frees_the_model(error: NetworkError | None) -> None:
    """Key, name and quota are in order again; the rest is not the bar's business."""
    bars = expired()
    probe = bars.claim("a", 160.0)
    bars.record("a", error, started=160.0, now=161.0)
    assert bars.snapshot() == {}
    assert probe is not None
    bars.abandon(probe)
    assert bars.snapshot() == {}


def test_a_probe_that_meets_it_again_bars_for_another_minute() -> None:
    """And giving the probe back afterwards changes nothing."""
    bars = expired()
    probe = bars.claim("a", 160.0)
    bars.record("a", BAD_KEY, started=160.0, now=161.0)
    assert probe is not None
    bars.abandon(probe)
    assert bars.snapshot() == {"a": Bar(221.0, "auth")}
    assert bars.claim("a", 220.0) is None


def test_what_began_before_the_bar_does_not_lift_it() -> None:
    """A long answer that ends well after the key was revoked says nothing of the key."""
    bars = expired()
    bars.record("a", None, started=50.0, now=120.0)
    assert bars.claim("a", 159.0) is None


def test_what_began_before_the_model_was_freed_does_not_bar_it() -> None:
    """An old refusal that comes late says nothing of the new key."""
    bars = expired()
    bars.claim("a", 160.0)
    bars.record("a", None, started=160.0, now=161.0)
    bars.record("a", BAD_KEY, started=155.0, now=162.0)
    assert bars.snapshot() == {}


def test_a_last_resort_that_answers_frees_the_model() -> None:
    """It was barred, and tried all the same."""
    bars = expired()
    bars.record("a", None, started=120.0, now=121.0)
    assert bars.snapshot() == {}


def test_a_model_that_was_freed_meanwhile_is_free_for_whoever_planned_a_probe() -> None:
    """Nothing needs to be probed any more, and nobody is kept from it."""
    bars = expired()
    bars.record("a", None, started=160.0, now=161.0)
    assert bars.claim("a", 162.0) is not None
    assert bars.claim("a", 162.0) is not None
    assert bars.snapshot() == {}


def test_a_new_incarnation_keeps_the_bars_and_fences_the_probes() -> None:
    """A probe from before neither blocks the model nor ends a later probe."""
    old = expired()
    probe = old.claim("a", 160.0)
    bars = Bars(old.snapshot())
    assert bars.claim("a", 160.0) is not None
    assert probe is not None
    bars.abandon(probe)
    assert bars.claim("a", 160.0) is None


def test_a_shorter_bar_never_replaces_a_longer_one() -> None:
    """A known trap: a cooldown's shorter deadline overwrites a longer one. Here even where the clock went back."""
    bars = expired()
    bars.record("a", QuotaExhaustedError("no credit", model="a"), started=100.0, now=70.0)
    assert bars.snapshot() == {"a": Bar(160.0, "quota_exhausted")}


def test_a_fallback_that_fails_is_barred_like_a_first_choice() -> None:
    """A known trap: failed fallbacks never cooled."""
    bars = expired()
    bars.record("b", AuthError("bad key", model="b"), started=101.0, now=102.0)
    assert bars.snapshot() == {"a": Bar(160.0, "auth"), "b": Bar(162.0, "auth")}


def test_what_is_known_of_models_that_are_gone_is_forgotten() -> None:
    """Their bars, their probes, and what was old news of them; the others' stay."""
    bars = expired()
    bars.record("b", AuthError("bad key", model="b"), started=99.0, now=100.0)
    probe = bars.claim("b", 160.0)
    assert probe is not None
    bars.keep(["a"])
    bars.abandon(probe)
    assert bars.snapshot() == {"a": Bar(160.0, "auth")}
    bars.record("b", AuthError("bad key", model="b"), started=50.0, now=161.0)  # one that is new has no past
    bars.record("a", None, started=50.0, now=161.0)
    assert bars.snapshot() == {"a": Bar(160.0, "auth"), "b": Bar(221.0, "auth")}


def test_a_model_that_is_another_one_now_is_free() -> None:
    """Neither an attempt nor a probe at the former one says anything of it, but one that began since does."""
    bars = expired()
    probe = bars.claim("a", 160.0)
    assert probe is not None
    bars.drop("a", 170.0)
    assert bars.snapshot() == {}
    bars.record("a", BAD_KEY, started=169.0, now=171.0)
    bars.abandon(probe)
    bars.drop("b", 170.0)
    assert bars.snapshot() == {}
    bars.record("a", BAD_KEY, started=170.0, now=172.0)
    assert bars.snapshot() == {"a": Bar(232.0, "auth")}
