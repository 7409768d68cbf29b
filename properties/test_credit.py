"""The credit of a request: nothing is sent that was not granted, and nothing granted is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.server.credit import MOST_CREDIT, Credit, OverdrawnError

STEPS = st.lists(st.one_of(st.none(), st.integers(1, MOST_CREDIT + 1)), max_size=50)
"""None: a notification is to be sent; a number: so many more are granted."""


@given(first=st.integers(0, MOST_CREDIT), steps=STEPS)
def test_as_many_are_sent_as_were_granted(first: int, steps: list[int | None]) -> None:
    """Spending succeeds while something is left, and what is left is what was granted and not spent; never too much."""
    credit, granted, spent = Credit(first), first, 0

    for more in steps:
        if more is None:
            may = granted > spent
            assert credit.spend() is may
            spent += may
            continue
        try:
            credit.grant(more)
        except OverdrawnError:
            assert granted - spent + more > MOST_CREDIT
        else:
            granted += more
        assert credit.left == granted - spent <= MOST_CREDIT
