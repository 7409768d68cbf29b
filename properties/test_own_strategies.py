"""Whatever a strategy answers, or raises: a request is planned, and a plan that follows it says what it said."""

from collections.abc import Callable, Sequence
from random import Random

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from properties.test_plan import ROUTES
from wizard_actors.errors import TokenLimitError, UnsupportedError
from wizard_actors.needs import Needs
from wizard_actors.plan import ModelFacts, Plan, Skip, Tactics, Why, plan
from wizard_actors.strategies import Planning, RoutingStrategy, checked_order

NAMES = st.sampled_from([*"abcdef", "z", ""])
ANYTHING = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=3), NAMES),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.tuples(inner, inner), st.sets(NAMES)),
    max_leaves=6,
)
ORDERS = st.one_of(ANYTHING, st.lists(NAMES, max_size=6), st.lists(NAMES, unique=True).map(tuple))


@frozen
class Answers:
    """A strategy that answers what a function makes of the names it is given."""

    answer: Callable[[list[str]], Sequence[str]]

    def order(self, planning: Planning) -> Sequence[str]:
        """Return the answer."""
        return self.answer([model.name for model in planning.models])


def planned(route: dict[str, ModelFacts], strategy: RoutingStrategy | None) -> Plan | None:
    """Return the plan for a route, None where no model is suitable."""
    try:
        return plan(tuple(route), route, Needs(), 5.0, tactics=Tactics("custom:own", own=strategy), rng=Random(0))
    except (TokenLimitError, UnsupportedError):
        return None


@given(ORDERS, st.lists(NAMES, min_size=1, unique=True))
def test_an_order_is_some_of_the_models_or_refused(answer: object, offered: list[str]) -> None:
    """What passes is a part of what was offered, each once, as it was said; nothing else raises than what is caught."""
    try:
        order = checked_order(answer, offered)
    except (TypeError, ValueError):
        return
    assert isinstance(answer, (list, tuple))
    assert order == tuple(answer)
    assert len(set(order)) == len(order)
    assert set(order) <= set(offered)


@given(ROUTES, st.randoms(use_true_random=False), st.floats(0, 1))
def test_a_plan_follows_any_order(route: dict[str, ModelFacts], rng: Random, share: float) -> None:
    """Every model is tried or skipped, once; what was named is tried, in order; what was left out is said to be."""
    said: list[str] = []

    def answer(names: list[str]) -> list[str]:
        said[:] = [name for name in rng.sample(names, len(names)) if rng.random() < share]
        return said

    made, plain = planned(route, Answers(answer)), planned(route, None)

    assert (made is None) is (plain is None)
    if made is None or plain is None:
        return
    tried = [choice.model for choice in made.choices]
    assert sorted(tried + [skip.model for skip in made.skipped]) == sorted(route)
    assert [skip.model for skip in made.skipped] == sorted(skip.model for skip in made.skipped)
    assert made.hedge_delay is None
    if said:
        assert tried == said
        left_out = {skip.model for skip in made.skipped if skip.reason is Skip.NOT_CHOSEN}
        assert left_out == {choice.model for choice in plain.choices} - set(said)
        assert all(choice in plain.choices for choice in made.choices)
    else:
        assert made == plain
    assert not (said and Why.LAST_RESORT in {choice.why for choice in made.choices})
