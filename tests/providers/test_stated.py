"""Figures in what providers say."""

import pytest

from wizard_actors.providers.stated import stated_tokens, stated_wait


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please try again in 1m2.5s. Visit ...", 62.5),
        ("Please try again in 6ms.", 0.006),
        ("Please try again in 1h0m3s.", 3603.0),
        ("Please retry after 54 seconds.", 54.0),
        ("try again in 20 seconds", 20.0),
        ("Retry in about 1 minute", 60.0),
        ("Try again in 2 minutes and 30 seconds", 150.0),
        ("try again in 1 hour, 5 mins", 3900.0),
        ("Please wait 3 secs before the next call", 3.0),
        ("retry after 250 milliseconds", 0.25),
        ("try again in 24h", 86_400.0),
        ("try again in 25h", None),
        ("try again in 9999999999 seconds", None),
        ("try again in 5 months", None),
        ("try again in 5", None),
        ("try again later", None),
        ("it took 5 seconds", None),
    ],
)
def test_a_wait_is_read_in_short_and_in_words(message: str, seconds: float | None) -> None:
    """Units as Go writes them, or spelled out; more than a day is no advice."""
    assert stated_wait(message) == (None if seconds is None else pytest.approx(seconds))


def test_figures_are_looked_for_at_the_beginning() -> None:
    """What stands beyond some thousand characters is not what the message is about."""
    assert stated_tokens("x" * 3000 + " 20 tokens > 10") == (20, 10)
    assert stated_tokens("x" * 3300 + " 20 tokens > 10") == (None, None)
    assert stated_wait("x" * 3300 + " try again in 5s") is None


def test_a_number_beyond_all_counts_is_none() -> None:
    """Nor is the end of one."""
    assert stated_tokens("9" * 3000 + " tokens > 10") == (None, None)
