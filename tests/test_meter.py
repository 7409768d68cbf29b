"""One limit, of requests or of tokens, alone and exactly. Times are seconds from an arbitrary start."""

import math

import pytest
from attrs import evolve

from wizard_actors.meter import Meter, MeterState
from wizard_actors.pace import REQUESTS, TOKENS, Pace
from wizard_actors.types import LimitWindow

NO_PAUSE = -math.inf
DAY = 86_400.0

ONE_A_SECOND = MeterState(base=1.0, burst=10.0)
NO_RATE = MeterState(burst=1.0)
"""As a limit of requests is without a rate."""

TEN_TOKENS_A_SECOND = MeterState(base=0.1, burst=100.0, limit=600)


def observe(
    meter: Meter, limit: float | None, remaining: float | None, reset: float | None, *, unseen: int = 0
) -> bool:
    """Let an answer describe the limit so at the instant 10; return whether anybody may be later for it."""
    return meter.observe(LimitWindow(limit, remaining, reset), unseen, 10.0, NO_PAUSE)


# -- other settings


def test_a_limit_that_comes_back_knows_what_was_taken_of_it() -> None:
    """However many other settings came between, of which none limited anything."""
    meter = Meter(REQUESTS, ONE_A_SECOND)
    for _ in range(10):
        meter.take(1, 0.0, NO_PAUSE)
    assert meter.due(1) == 1.0
    for _ in range(2):
        meter.reconfigure(NO_RATE, adaptive=False, now=0.0, paused_until=NO_PAUSE)
        assert meter.due(1) == -math.inf
    meter.reconfigure(ONE_A_SECOND, adaptive=False, now=0.0, paused_until=NO_PAUSE)
    assert meter.due(1) == 1.0


def test_a_limit_that_is_new_counts_for_the_time_that_it_is_meant_for() -> None:
    """What is spent of a day's amount is not back after a minute."""
    meter = Meter(TOKENS, MeterState(window=DAY))
    meter.reconfigure(MeterState(limit=100, window=DAY), adaptive=False, now=0.0, paused_until=NO_PAUSE)
    meter.take(100, 0.0, NO_PAUSE)
    assert meter.remaining(3_600.0) == 0.0


def test_a_rate_that_goes_away_leaves_one_slow_start() -> None:
    """The next settings without a rate, after an answer, leave no other."""
    meter = Meter(REQUESTS, ONE_A_SECOND)
    meter.reconfigure(NO_RATE, adaptive=True, now=0.0, paused_until=NO_PAUSE)
    assert meter.pace == Pace.start(REQUESTS)
    meter.answered(1.0, NO_PAUSE)
    meter.reconfigure(evolve(NO_RATE, burst=2.0), adaptive=True, now=2.0, paused_until=NO_PAUSE)
    assert meter.pace == Pace()


def test_a_debt_that_other_limits_make_longer_ends_in_a_minute_at_the_whole_rate() -> None:
    """In two at half of it: that is how long a 429 may keep anybody waiting for it."""
    meter = Meter(TOKENS, MeterState(Pace(share=0.5, step_at=1_000.0), base=1.0, burst=10.0, limit=60))
    meter.take(1_000, 0.0, NO_PAUSE)
    given = MeterState(base=2.0, burst=5.0, limit=30)
    meter.reconfigure(given, adaptive=True, now=0.0, paused_until=NO_PAUSE)
    assert meter.bucket.empty_at == 120.0


# -- what was used


SLOW_START = Pace.start(TOKENS)
MORE_THAN_HALF = Pace(learned=0.05, at_once=100.0)
LITTLE = Pace(learned=0.05, at_once=0.0, learned_until=160.0)


@pytest.mark.parametrize(
    ("base", "pace", "counts"),
    [
        (0.0, SLOW_START, True),
        (0.0, MORE_THAN_HALF, False),
        (0.0, LITTLE, False),
        (1.0, Pace(), True),
        (1.0, MORE_THAN_HALF, True),
        (1.0, LITTLE, False),
    ],
)
def test_what_was_used_changes_no_pace_that_headers_set(base: float, pace: Pace, counts: bool) -> None:
    """Theirs it is where nothing else is known, or little is left; else the rest comes back, or is owed."""
    for used in (30, 70):
        meter = Meter(TOKENS, MeterState(pace, base, burst=10.0, empty_at=100.0))
        owed = (used - 50) * meter.bucket.interval if counts else 0.0
        meter.settle(50, used, 90.0, 100.0)
        assert meter.bucket.empty_at == pytest.approx(100.0 + owed)


def test_what_used_all_that_was_reserved_leaves_everything_as_it_was() -> None:
    """Nothing comes back, nothing is owed, and nobody's turn is another."""
    meter = Meter(TOKENS, TEN_TOKENS_A_SECOND)
    meter.take(50, 0.0, NO_PAUSE)
    before = meter.state
    meter.settle(50, 50, 0.0, 30.0)
    assert meter.state == before


def test_what_was_not_used_is_back_however_late_it_is_known() -> None:
    """In the minute, and in the bucket: turns are where they would be, had it never been taken, and none is later."""
    meter, other = Meter(TOKENS, TEN_TOKENS_A_SECOND), Meter(TOKENS, TEN_TOKENS_A_SECOND)
    meter.take(50, 0.0, NO_PAUSE)
    other.take(30, 0.0, NO_PAUSE)
    meter.settle(50, 30, 0.0, 30.0)
    assert meter.due(100) == pytest.approx(other.due(100))
    assert meter.remaining(30.0) == other.remaining(30.0) == 570.0


# -- pauses and 429s


def test_after_a_pause_all_of_a_bucket_of_tokens_is_used() -> None:
    """Of requests one may go at once then, of tokens none."""
    tokens, requests = Meter(TOKENS, ONE_A_SECOND), Meter(REQUESTS, ONE_A_SECOND)
    assert (tokens.used(5.0, 5.0), requests.used(5.0, 5.0)) == (10.0, 9.0)


def test_after_a_429_no_token_goes_at_once() -> None:
    """The first comes at the halved rate; of requests one may go."""
    tokens, requests = Meter(TOKENS, ONE_A_SECOND), Meter(REQUESTS, ONE_A_SECOND)
    for meter in (tokens, requests):
        meter.slow_down(10.0, NO_PAUSE)
    assert (tokens.due(1), requests.due(1), requests.due(2)) == (12.0, 10.0, 12.0)


def test_a_429_leaves_a_learned_pace_and_takes_what_was_saved_up() -> None:
    """The headers know better than a slow start: one may go, and then they count."""
    meter = Meter(REQUESTS, MeterState(Pace(learned=2.0, at_once=10.0)))
    meter.slow_down(10.0, NO_PAUSE)
    assert meter.pace == Pace(learned=2.0, at_once=10.0)
    assert (meter.due(1), meter.due(2)) == (10.0, 12.0)


@pytest.mark.parametrize("pace", [Pace(), Pace.start(REQUESTS)])
def test_a_429_where_nothing_is_known_starts_at_a_quarter_after_the_pause(pace: Pace) -> None:
    """With a single request, and one a second."""
    meter = Meter(REQUESTS, MeterState(pace))
    meter.slow_down(10.0, 30.0)
    assert (meter.due(1), meter.due(2)) == (30.0, 31.0)


# -- what headers teach


@pytest.mark.parametrize(
    ("reset", "until"), [(0.5, 10.5), (90.0, 100.0), (0.0, 70.0), (-1.0, 70.0), (math.inf, 70.0), (None, 70.0)]
)
def test_what_is_said_to_be_left_holds_until_the_reset(reset: float | None, until: float) -> None:
    """For a minute where none is named, or an absurd one."""
    meter = Meter(REQUESTS, NO_RATE)
    observe(meter, 100.0, 90.0, reset)
    assert (meter.remaining(math.nextafter(until, 0.0)), meter.remaining(until)) == (90.0, None)


@pytest.mark.parametrize("remaining", [None, -1.0, math.inf, math.nan])
def test_nobody_knows_what_is_left_by_absurd_headers(remaining: float | None) -> None:
    """They delay nobody either."""
    meter = Meter(REQUESTS, NO_RATE)
    assert not observe(meter, 100.0, remaining, 60.0)
    assert meter.remaining(10.0) is None


def test_what_the_answer_did_not_know_of_is_taken_off() -> None:
    """Five that went after the call that was answered are no longer left."""
    meter = Meter(REQUESTS, NO_RATE)
    observe(meter, 100.0, 90.0, 60.0, unseen=5)
    assert meter.remaining(10.0) == 85.0


def test_a_limit_of_another_time_than_a_minute_refills_in_that() -> None:
    """A thousand in a thousand seconds come back one a second."""
    meter = Meter(REQUESTS, MeterState(window=1_000.0))
    observe(meter, 1_000.0, 1_000.0, 5.0)
    assert meter.bucket.interval == 1.0


def test_an_answer_without_headers_delays_nobody() -> None:
    """Nor does one that says nothing of this limit."""
    meter = Meter(REQUESTS, ONE_A_SECOND)
    assert not meter.observe(None, 0, 10.0, NO_PAUSE)
    assert not observe(meter, None, None, None)


def test_headers_that_are_heard_again_delay_nobody_again() -> None:
    """Once somebody may be later for them, and then nobody."""
    meter = Meter(REQUESTS, ONE_A_SECOND)
    assert observe(meter, 100.0, 2.0, 60.0)
    assert not observe(meter, 100.0, 2.0, 60.0)


def test_a_limit_that_is_not_worth_keeping_takes_nothing_of_what_was_saved_up() -> None:
    """Its hundred are back in a hundredth of a second, so two hundred may go."""
    meter = Meter(REQUESTS, evolve(ONE_A_SECOND, burst=200.0))
    assert not observe(meter, None, 100.0, 0.01)
    assert meter.due(200) == -math.inf


def test_where_more_went_than_was_left_nothing_saved_up_goes() -> None:
    """Five went unseen where two were left: the next has to wait for a whole interval."""
    meter = Meter(REQUESTS, ONE_A_SECOND)
    observe(meter, 100.0, 2.0, 60.0, unseen=5)
    assert meter.due(1) == 10.0 + meter.bucket.interval


@pytest.mark.parametrize(("remaining", "at_once"), [(50.5, 1.0), (51.0, 1.0), (52.0, 2.0), (90.0, 40.0)])
def test_what_is_over_the_half_goes_at_once_and_one_at_least(remaining: float, at_once: float) -> None:
    """Where only the headers say what is allowed."""
    meter = Meter(REQUESTS, NO_RATE)
    observe(meter, 100.0, remaining, 60.0)
    assert meter.bucket.saved(10.0) == pytest.approx(at_once)
