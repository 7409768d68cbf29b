"""What is learned about a model, against plain accounts of the same observations."""

import math
from decimal import Decimal

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.errors import AuthError, ContentFilterError, NetworkError, ProviderTimeoutError, WizardError
from wizard_actors.model_stats import BELIEVED_FROM, HALF_LIFE, WINDOW, ModelStats

FAILURES = (NetworkError("reset", model="m"), ProviderTimeoutError("late", model="m", phase="first_token"))
NEUTRAL = (AuthError("bad key", model="m"), ContentFilterError("no", model="m"))


@frozen
class End:
    """How one attempt ended, `step` seconds after the one before."""

    step: float
    lasted: float
    error: WizardError | None
    first_token: float | None
    cost: Decimal | None
    cancelled: bool


def ends(steps: st.SearchStrategy[float]) -> st.SearchStrategy[list[End]]:
    """Return ends of attempts with such steps of time between them."""
    return st.lists(
        st.builds(
            End,
            step=steps,
            lasted=st.floats(0, 100),
            error=st.sampled_from([None, None, *FAILURES, *NEUTRAL]),
            first_token=st.one_of(st.none(), st.floats(0, 10)),
            cost=st.one_of(st.none(), st.decimals(0, 10, places=4)),
            cancelled=st.sampled_from([False, False, True]),
        ),
        max_size=40,
    )


def observe(stats: ModelStats, end: End, now: float) -> ModelStats:
    """Return the statistics after one more end."""
    return stats.observed(
        end.error,
        started=now - end.lasted,
        now=now,
        first_token=end.first_token,
        cost=end.cost,
        cancelled=end.cancelled,
    )


@given(ends(st.floats(0, 1000)))
def test_counts_are_sums_of_what_each_observation_is_still_worth(history: list[End]) -> None:
    """Half after each half-life, however many others came between; the mean cost is weighed by the same."""
    stats, now, seen = ModelStats(), 0.0, []
    for end in history:
        now += end.step
        stats = observe(stats, end, now)
        seen.append((end, now))

    worth = [(end, 0.5 ** ((now - at) / HALF_LIFE)) for end, at in seen if not end.cancelled]
    answers = [(end, left) for end, left in worth if end.error is None]
    priced = [(float(end.cost), left) for end, left in answers if end.cost is not None]
    assert stats.attempts == len(history)
    assert math.isclose(stats.successes, sum(left for _, left in answers), rel_tol=1e-9, abs_tol=1e-12)
    failures = sum(left for end, left in worth if end.error in FAILURES)
    assert math.isclose(stats.failures, failures, rel_tol=1e-9, abs_tol=1e-12)
    weight = sum(left for _, left in priced)
    if stats.cost_per_answer is not None:
        mean = sum(cost * left for cost, left in priced) / weight
        assert math.isclose(stats.cost_per_answer, mean, rel_tol=1e-6, abs_tol=1e-9)
    else:
        assert weight < 0.1 + 1e-9


@given(ends(st.floats(-1e6, 1e6)))
def test_any_clock_is_harmless(history: list[End]) -> None:
    """It may jump either way: counts stay between none and all, chances are chances, and nothing grows for ever."""
    stats, now = ModelStats(), 0.0
    for end in history:
        now += end.step
        stats = observe(stats, end, now)
        assert 0.0 <= stats.successes <= stats.attempts
        assert 0.0 <= stats.failures <= stats.attempts
        assert 0.0 < stats.success_chance <= 1.0
        assert stats.mean_cost is None or 0.0 <= stats.mean_cost <= 10.0 + 1e-9
        assert all(wait.seconds >= 0.0 for wait in stats.waits)
        assert len(stats.waits) <= WINDOW


@given(st.lists(st.floats(0, 100), min_size=BELIEVED_FROM, max_size=3 * WINDOW), st.floats(0.001, 0.999))
def test_a_quantile_is_that_of_the_sorted_newest(waits: list[float], share: float) -> None:
    """Where every first token was waited for, the product-limit estimator is the plain quantile."""
    stats = ModelStats()
    for wait in waits:
        stats = stats.observed(None, started=0.0, now=1.0, first_token=wait)
    newest = sorted(waits[-WINDOW:])
    rank = math.ceil(share * len(newest) - 1e-6)
    assert stats.first_token_quantile(share) == newest[max(rank, 1) - 1]


@given(
    st.lists(st.floats(0, 10), min_size=BELIEVED_FROM, max_size=60),
    st.lists(st.floats(0, 20), max_size=60),
    st.floats(0.001, 0.999),
)
def test_waits_that_were_broken_off_never_make_a_model_look_faster(
    waits: list[float], broken_off: list[float], share: float
) -> None:
    """A quantile with them is at least the one without, or unknown; and at most the plain one of those that came, were
    all others still outstanding, where that is known.
    """
    stats = ModelStats()
    for wait in waits:
        stats = stats.observed(None, started=0.0, now=100.0, first_token=wait)
    plain = stats.first_token_quantile(share)
    assert plain is not None
    for wait in broken_off:
        stats = stats.observed(None, started=0.0, now=wait, cancelled=True)
    found = stats.first_token_quantile(share)
    assert found is None or plain <= found
    outstanding = sorted([*waits, *[math.inf] * len(broken_off)])[
        math.ceil(share * (len(waits) + len(broken_off)) - 1e-6) - 1
    ]
    assert outstanding == math.inf or (found is not None and found <= outstanding)
