"""The bound on a prompt's tokens is below what any tokenizer makes of it that parts text at white space."""

import re

from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.needs import needs_of
from wizard_actors.types import Message, Prompt

# The parting of GPT-4o's tokenizer in short: a word with the mark or space before it; marks with the line breaks after
# them; white space. The best that any vocabulary could do is a token for each part of at most 128 characters.
PARTS = re.compile(r"[^\r\n\w]?\w+|\s?[^\s\w]+[\r\n/]*|\s+")

TEXT = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from(
            [" ", "\n", " " * 80, "word", "x" * 300, "}\n}", ".\n///", "=" * 500, "日本語" * 100, "1 2", "_"]
        ),
    )
).map("".join)


def fewest_tokens(text: str) -> int:
    """Return how many tokens the text has at the very least."""
    return sum(-(-len(part) // 128) for part in PARTS.findall(text))


@given(TEXT)
def test_the_bound_never_exceeds_the_tokens(text: str) -> None:
    """So no model is skipped that had room."""
    assert needs_of(Prompt([Message("user", text), Message("user", "?")])).tokens <= fewest_tokens(text)


@given(TEXT, TEXT)
def test_more_messages_never_need_less(first: str, second: str) -> None:
    """The bounds of messages add up."""
    last = Message("user", "?")
    alone = [needs_of(Prompt([Message("user", text), last])).tokens for text in (first, second)]
    both = needs_of(Prompt([Message("user", first), Message("assistant", second), last]))
    assert both.tokens == sum(alone)


@given(st.integers(0, 300))
def test_words_are_counted(count: int) -> None:
    """The bound is worth something: a prompt of plain words is known to be long."""
    assert needs_of(Prompt("?" + " word" * count)).tokens == count
