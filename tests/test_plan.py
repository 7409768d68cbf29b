"""Plans and bars, case by case. Times are seconds from an arbitrary start."""

import pytest

from wizard_actors.errors import AuthError, NetworkError, TokenLimitError, UnsupportedError
from wizard_actors.plan import Bar, Bars, Choice, ModelFacts, Needs, Plan, Skip, Skipped, Why, plan

FREE = ModelFacts()
BAD_KEY = AuthError("bad key", model="a")


def barred(until: float, *, probing: bool = False) -> ModelFacts:
    """Return the facts of a model whose key failed."""
    return ModelFacts(bar=Bar(until, "auth", probing))


def planned(*facts: ModelFacts, tokens: int = 0, now: float = 100.0) -> Plan:
    """Plan over models a, b, c, ... with these facts."""
    names = "abcdef"[: len(facts)]
    return plan(names, dict(zip(names, facts, strict=True)), Needs(tokens), now)


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


def test_a_prompt_too_long_for_all_is_an_error_that_names_the_largest_window() -> None:
    """Nothing is sent."""
    with pytest.raises(TokenLimitError) as caught:
        planned(ModelFacts(context_window=10), ModelFacts(context_window=30), ModelFacts(enabled=False), tokens=50)
    assert (caught.value.model, caught.value.requested, caught.value.max) == ("b", 50, 30)


def test_a_prompt_too_long_for_the_free_ones_goes_to_the_barred_one() -> None:
    """A model that is suitable but barred is better than one that cannot."""
    assert tried(planned(ModelFacts(context_window=10), barred(150.0), tokens=50)) == "b"


def test_a_route_without_an_enabled_model_is_an_error_that_names_them() -> None:
    """The person can tell what to enable."""
    with pytest.raises(UnsupportedError, match="a, b"):
        planned(ModelFacts(enabled=False), ModelFacts(enabled=False))


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
