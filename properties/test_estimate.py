"""Estimates for any prompt: never nothing, never less for more."""

from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.estimate import estimate_input, estimate_output
from wizard_actors.types import Message, Prompt, Role

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200).filter(
    lambda text: bool(text.strip())
)


@given(TEXTS, TEXTS)
def test_more_text_never_takes_fewer_tokens(text: str, more: str) -> None:
    """And every prompt takes some."""
    short, long = estimate_input(Prompt(text)), estimate_input(Prompt(text + more))
    assert 1 <= short <= long


@given(st.lists(TEXTS, min_size=1, max_size=5), TEXTS)
def test_a_further_message_takes_tokens_of_its_own(texts: list[str], more: str) -> None:
    """Beside its text."""
    messages = [Message(Role.USER, text) for text in texts]
    before, after = Prompt(messages), Prompt([*messages, Message(Role.USER, more)])
    assert estimate_input(after) >= estimate_input(before) + 4


@given(TEXTS, st.one_of(st.none(), st.integers(1, 10**6)), st.one_of(st.none(), st.integers(0, 10**6)))
def test_an_answer_takes_at_least_a_token(text: str, most: int | None, typical: int | None) -> None:
    """And never more than it may, where that is said."""
    tokens = estimate_output(Prompt(text, max_tokens=most), typical)
    assert tokens >= 1
    assert most is None or tokens == most
