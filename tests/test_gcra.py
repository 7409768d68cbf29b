"""The rate limiter's core, case by case. Times are seconds from an arbitrary start."""

import heapq
import math
from itertools import count, pairwise

import pytest

from wizard_actors.config import RateLimitConfig
from wizard_actors.gcra import GcraCore, Grant
from wizard_actors.types import LimitHeaders, LimitWindow
from wizard_actors.waiting import Rejected, Waiting

NEVER = math.inf


def limiter(rate: float | None = 60, burst: int | None = 1, queue: int = 100) -> GcraCore[int]:
    """Return a limiter of one request a second, unless told otherwise; one without a rate has been answered once."""
    core = GcraCore[int](RateLimitConfig(requests_per_minute=rate, burst=burst, queue=queue))
    core.answered(0.0)
    return core


def headers(limit: float | None, remaining: float | None, reset: float | None) -> LimitHeaders:
    """Return headers that describe the limit of requests."""
    return LimitHeaders(requests=LimitWindow(limit, remaining, reset))


def granted(core: GcraCore[int], now: float) -> list[int]:
    """Return who is granted by a tick at `now`."""
    return [key for key, _ in core.tick(now).granted]


def run_out(core: GcraCore[int]) -> dict[int, float]:
    """Let time pass until nobody waits; return who was granted when."""
    due: dict[int, float] = {}
    while (now := core.wake_at()) < NEVER:
        due.update((key, now) for key, _ in core.tick(now).granted)
    return due


def sent_at_once(core: GcraCore[int], now: float) -> int:
    """Return how many of a thousand requests go without a wait at `now`."""
    return sum(isinstance(core.acquire(key, now, now), Grant) for key in range(1000))


def refused_for(answer: Grant | Waiting | Rejected) -> float:
    """Return for how many seconds a request was refused, which it must have been."""
    assert isinstance(answer, Rejected)
    assert answer.retry_after is not None
    return answer.retry_after


# -- the pace


@pytest.mark.parametrize(("rate", "at_once"), [(1, 1), (59, 1), (60, 1), (125, 2), (600, 10)])
def test_the_default_burst_is_what_a_second_allows(rate: float, at_once: int) -> None:
    """Without a configured burst, as many go at once as the rate allows in a second, at least one."""
    assert sent_at_once(limiter(rate, None), 0.0) == at_once


def test_after_the_burst_one_goes_each_interval() -> None:
    """Waiters follow each other at the pace, in order of arrival."""
    core = limiter(burst=2)
    assert sent_at_once(core, 0.0) == 2
    for key in range(3):
        core.acquire(key, 0.0, NEVER)
    assert run_out(core) == {0: 1.0, 1: 2.0, 2: 3.0}


@pytest.mark.parametrize("jump", [3.0, 1e3, 1e9])
def test_a_clock_that_jumps_ahead_frees_no_more_than_the_burst(jump: float) -> None:
    """However much time passes, or seems to, only the burst was saved up."""
    core = limiter(burst=3)
    sent_at_once(core, 0.0)
    assert sent_at_once(core, jump) == 3


def test_a_clock_that_goes_back_frees_nothing_early_and_does_not_spin() -> None:
    """A tick in the past changes nothing, and asks for no other tick there."""
    core = limiter()
    core.acquire(1, 1000.0, NEVER)
    core.acquire(2, 1000.0, NEVER)
    assert granted(core, 400.0) == []
    assert core.wake_at() == 1001.0
    assert run_out(core) == {2: 1001.0}


def test_a_429_on_a_clock_that_went_back_counts_from_the_latest_instant() -> None:
    """Nobody is promised a turn that comes at another time."""
    core = limiter(1)
    core.acquire(1, 1000.0, NEVER)
    core.slow_down(1000.0, 500.0)
    waiting = core.acquire(2, 500.0, NEVER)
    assert isinstance(waiting, Waiting)
    assert run_out(core) == {2: waiting.due}


def test_without_a_rate_everything_goes_at_once() -> None:
    """A limiter that knows no limit never makes anybody wait."""
    core = limiter(None)
    assert sent_at_once(core, 0.0) == 1000
    assert core.snapshot().rate is None


# -- the waiting room


def test_thirty_of_forty_waiters_leave_and_the_others_move_up_at_once() -> None:
    """Whoever leaves costs nothing: the last of ten is served after ten seconds, not after forty."""
    core = limiter()
    core.acquire(-1, 0.0, NEVER)
    for key in range(40):
        core.acquire(key, 0.0, NEVER)
    for key in range(40):
        if key % 4:
            core.forget(key)
    assert run_out(core) == {key: key / 4 + 1 for key in range(0, 40, 4)}


def test_a_request_that_would_come_too_late_is_rejected_at_once() -> None:
    """Nobody waits in vain; the rejected are told how long a newcomer would wait."""
    core = limiter()
    core.acquire(1, 0.0, NEVER)
    core.acquire(2, 0.0, NEVER)
    assert core.acquire(3, 0.0, 1.9) == Rejected(2.0)
    assert core.acquire(4, 0.0, 2.0) == Waiting(2.0)
    assert core.snapshot().rejected == 1


def test_a_turn_at_the_very_instant_of_giving_up_is_taken() -> None:
    """The instant of giving up belongs to the time that a caller has."""
    core = limiter()
    core.acquire(1, 0.0, NEVER)
    core.acquire(2, 0.0, 1.0)
    assert granted(core, 1.0) == [2]


def test_a_late_tick_grants_nothing_to_whoever_has_given_up() -> None:
    """When the loop was held up, the overdue are rejected wherever they stand, and the others served."""
    core = limiter()
    core.acquire(1, 0.0, NEVER)
    for key, give_up_at in ((2, 1.5), (3, NEVER), (4, NEVER), (5, 4.5), (6, NEVER)):
        core.acquire(key, 0.0, give_up_at)
    answers = core.tick(5.0)
    assert [key for key, _ in answers.granted] == [3]
    assert answers.rejected == (2, 5)
    assert run_out(core) == {4: 6.0, 6: 7.0}


@pytest.mark.parametrize(("late_ticks", "due"), [((1.04,), 3.04), ((1.04, 2.08), 4.08)])
def test_a_newcomer_is_told_of_the_time_that_late_ticks_have_cost(late_ticks: tuple[float, ...], due: float) -> None:
    """Each a little, and all together: who would be too late by it is rejected, and who would not waits."""
    core = limiter()
    for key in range(len(late_ticks) + 2):
        core.acquire(key, 0.0, NEVER)
    for now in late_ticks:
        assert len(core.tick(now).granted) == 1
    now = late_ticks[-1]
    assert refused_for(core.acquire(8, now, due - 0.02)) == pytest.approx(due - now)
    assert isinstance(core.acquire(9, now, due + 0.01), Waiting)


def test_a_newcomer_does_not_overtake_whoever_is_due_already() -> None:
    """Even where the tick is late, order of arrival counts."""
    core = limiter()
    core.acquire(1, 0.0, NEVER)
    core.acquire(2, 0.0, NEVER)
    assert isinstance(core.acquire(3, 5.0, NEVER), Waiting)
    assert granted(core, 5.0) == [2]


def test_a_full_room_takes_nobody_else() -> None:
    """The room is bounded; over the bound a request is rejected, with the wait that it would have had."""
    core = limiter(queue=2)
    for key in range(3):
        core.acquire(key, 0.0, NEVER)
    assert core.full
    assert core.acquire(9, 0.0, NEVER) == Rejected(3.0)


# -- refunds


def test_an_unsent_request_is_there_for_the_next_one() -> None:
    """A grant that came back at once has cost nothing."""
    core = limiter()
    grant = core.acquire(1, 0.0, NEVER)
    core.acquire(2, 0.0, NEVER)
    assert isinstance(grant, Grant)
    core.refund(grant, 0.0)
    assert core.wake_at() <= 0.0
    assert granted(core, 0.0) == [2]
    assert core.snapshot().refunded == 1


def test_every_refund_is_counted() -> None:
    """And none of them counts as sent."""
    core = limiter(None)
    for key in range(3):
        grant = core.acquire(key, 0.0, NEVER, 10)
        assert isinstance(grant, Grant)
        core.refund(grant, 1.0)
    assert (core.snapshot().refunded, core.snapshot().tokens_reserved) == (3, 0)


def test_a_late_refund_is_worth_what_nobody_else_got_the_use_of() -> None:
    """After a quarter of an interval three quarters are left of it; after a whole one, nothing."""
    core = limiter(burst=2)
    early, late = core.acquire(1, 0.0, NEVER), core.acquire(2, 0.0, NEVER)
    core.acquire(3, 0.0, NEVER)
    core.acquire(4, 0.0, NEVER)
    assert isinstance(early, Grant)
    assert isinstance(late, Grant)
    assert granted(core, 1.0) == [3]
    core.refund(early, 1.0)
    assert core.wake_at() == 2.0
    core.refund(Grant(0.75), 1.0)
    assert core.wake_at() == 1.25


def test_a_refund_at_a_learned_pace_counts_where_nothing_else_was_granted_since() -> None:
    """Without a configured rate nobody knows what refills, so a refund after another grant is worth nothing."""
    core = limiter(None)
    core.observe(headers(None, 2, 10), 0.0)
    early, late = core.acquire(1, 0.0, NEVER), core.acquire(2, 5.0, NEVER)
    assert isinstance(early, Grant)
    assert isinstance(late, Grant)
    core.refund(early, 5.0)
    assert sent_at_once(core, 5.0) == 0
    core.refund(late, 5.0)
    assert sent_at_once(core, 5.0) == 1


# -- pauses


def test_nobody_is_granted_before_the_end_of_a_pause() -> None:
    """A pause holds even a full bucket, and nothing is saved up in it."""
    core = limiter(burst=5)
    core.pause(10.0, 0.0)
    for key in range(3):
        core.acquire(key, 0.0, NEVER)
    assert run_out(core) == {0: 10.0, 1: 11.0, 2: 12.0}


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    """Of two pauses the later end counts, in whichever order they are heard of."""
    core = limiter()
    core.pause(10.0, 0.0)
    core.pause(2.0, 0.0)
    assert core.snapshot().paused_until == 10.0


def test_a_pause_rejects_at_once_whoever_it_makes_too_late() -> None:
    """Only they are rejected: those behind them move up, and wait where that is in time."""
    core = limiter()
    core.acquire(0, 0.0, NEVER)
    for key, give_up_at in ((1, 3.0), (2, 4.0), (3, NEVER), (4, 11.5)):
        core.acquire(key, 0.0, give_up_at)
    core.pause(10.0, 0.5)
    assert core.wake_at() <= 0.5
    assert core.tick(0.5).rejected == (1, 2)
    assert run_out(core) == {3: 10.0, 4: 11.0}


def test_a_pause_rejects_nobody_who_is_due_at_the_very_instant_of_giving_up() -> None:
    """That is in time."""
    core = limiter()
    core.acquire(1, 0.0, NEVER)
    assert core.acquire(2, 0.0, 1.0) == Waiting(1.0)
    core.pause(1.0, 0.0)
    assert core.tick(0.0).rejected == ()
    assert granted(core, 1.0) == [2]


def test_what_makes_nobody_later_wakes_nobody() -> None:
    """An answer that used what was reserved, a pause that was heard of before, and headers that say nothing."""
    core = limiter()
    grant = core.acquire(1, 0.0, NEVER, 10)
    assert isinstance(grant, Grant)
    core.pause(5.0, 0.0)
    core.acquire(2, 0.0, NEVER, 10)
    core.settle(grant, 10, 0.0)
    core.pause(5.0, 0.0)
    core.observe(LimitHeaders(), 0.0)
    assert core.wake_at() == 5.0


def test_a_waiter_may_leave_before_it_is_told_that_it_is_too_late() -> None:
    """Nobody is answered who has gone."""
    core = limiter()
    core.pause(1.0, 0.0)
    core.acquire(1, 0.0, 5.0)
    core.pause(10.0, 0.0)
    core.forget(1)
    assert core.wake_at() == NEVER
    assert core.tick(0.0).rejected == ()


def test_a_pause_is_as_long_as_it_says_whatever_the_pace_does() -> None:
    """A pace that changes meanwhile, and changes back, neither shortens nor lengthens it."""
    core = limiter()
    core.pause(20.0, 0.0)
    assert core.acquire(1, 0.0, NEVER) == Waiting(20.0)
    core.observe(headers(None, 1, 5), 0.0)
    assert core.acquire(2, 0.0, NEVER) == Waiting(21.0)
    core.tick(6.0)
    assert run_out(core) == {1: 20.0, 2: 21.0}


# -- slowing down


def test_a_429_halves_the_rate_which_recovers_within_half_a_minute_of_the_pause() -> None:
    """An eighth of the configured rate comes back every 7.5 seconds, counted from the end of the pause."""
    core = limiter()
    core.slow_down(0.0, 0.0)
    core.pause(100.0, 0.0)
    rates = []
    for now in (0.0, 100.0, 107.5, 115.0, 122.5, 130.0, 1000.0):
        core.tick(now)
        rates.append(core.snapshot().rate)
    assert rates == [30.0, 30.0, 37.5, 45.0, 52.5, 60.0, 60.0]


def test_many_429s_at_once_halve_the_rate_once() -> None:
    """What was sent before the rate was halved says nothing about the new one; what was sent after it does."""
    core = limiter()
    for _ in range(20):
        core.slow_down(0.0, 1.0)
    assert core.snapshot().rate == 30.0
    core.slow_down(2.0, 3.0)
    assert core.snapshot().rate == 15.0


def test_a_429_to_a_request_of_the_very_instant_of_the_halving_halves_nothing() -> None:
    """It may have been sent at the former rate."""
    core = limiter(60)
    core.slow_down(0.0, 1.0)
    core.slow_down(1.0, 2.0)
    assert core.snapshot().rate == 30.0


def test_the_rate_never_falls_below_a_sixteenth() -> None:
    """A client that only meets 429s still finds out when they are over."""
    core = limiter()
    for now in range(1, 20):
        core.slow_down(now - 0.1, float(now))
    assert core.snapshot().rate == 60 / 16


def test_a_burst_is_not_repeated_after_a_429() -> None:
    """What was saved up is gone, also where no pause follows."""
    core = limiter(burst=10)
    core.slow_down(0.0, 0.0)
    assert sent_at_once(core, 0.0) == 1


def test_without_a_rate_a_429_starts_slowly_again() -> None:
    """There is nothing to halve, but after the pause not everybody goes at once either."""
    core = limiter(None)
    core.slow_down(0.0, 0.0)
    assert sent_at_once(core, 0.0) == 1
    core.answered(1.0)
    assert sent_at_once(core, 1.0) == 1000


def test_an_answer_to_a_request_of_before_the_429_does_not_end_the_slow_start() -> None:
    """It proves nothing of what is allowed now; nor do headers that only repeat the pause."""
    core = limiter(None)
    before = core.acquire(1, 0.0, NEVER)
    assert isinstance(before, Grant)
    core.slow_down(0.0, 1.0)
    core.answered(2.0, before)
    core.observe(LimitHeaders(retry_after=3.0), 2.0)
    assert sent_at_once(core, 2.0) <= 2


def test_an_answer_to_a_request_of_the_very_instant_of_the_429_does_not_end_the_slow_start() -> None:
    """Nobody knows which of the two the provider saw first."""
    core = limiter(None)
    at_once = core.acquire(1, 1.0, NEVER)
    assert isinstance(at_once, Grant)
    core.slow_down(0.0, 1.0)
    core.answered(2.0, at_once)
    assert sent_at_once(core, 2.0) <= 2


# -- the slow start


def test_the_first_answer_moves_everybody_up_during_a_pause_too() -> None:
    """A newcomer whom the slow start would have made too late waits, and goes with the others as the pause ends."""
    core = GcraCore[int](RateLimitConfig())
    core.pause(1.0, 0.0)
    for key in range(40):
        assert isinstance(core.acquire(key, 0.0, NEVER), Waiting)
    assert isinstance(core.acquire(40, 0.0, 2.0), Rejected)
    core.answered(0.5)
    assert isinstance(core.acquire(41, 0.5, 2.0), Waiting)
    assert set(run_out(core).values()) == {1.0}


def test_before_the_first_answer_a_bounded_number_goes_at_once() -> None:
    """Nobody knows yet what the account allows: 32 go, then 4 a second."""
    core = GcraCore[int](RateLimitConfig())
    assert sent_at_once(core, 0.0) == 32
    assert sent_at_once(core, 1.0) == 4


def test_before_the_first_answer_a_bounded_number_of_tokens_goes_at_once() -> None:
    """20,000, then 1,000 a second."""
    core = GcraCore[int](RateLimitConfig())
    assert sum(isinstance(core.acquire(key, 0.0, 0.0, 2_000), Grant) for key in range(30)) == 10
    waiting = core.acquire(99, 0.0, NEVER, 1_000)
    assert isinstance(waiting, Waiting)
    assert waiting.due == pytest.approx(1.0)


@pytest.mark.parametrize("answer", ["without headers", "with headers", "with absurd headers", "none for five seconds"])
def test_the_first_answer_ends_the_slow_start(answer: str) -> None:
    """So do five seconds without one: a slow model delays nobody for longer."""
    core = GcraCore[int](RateLimitConfig())
    assert sent_at_once(core, 0.0) == 32
    if answer == "without headers":
        core.answered(0.5)
    elif answer == "with headers":
        core.observe(headers(10_000, 9_000, 6), 0.5)
    elif answer == "with absurd headers":
        core.observe(headers(-1, -1, 0), 0.5)
        assert sent_at_once(core, 0.5) < 10  # they say nothing: it is the answer that counts
        core.answered(0.5)
    now = 5.0 if answer == "none for five seconds" else 0.5
    assert sent_at_once(core, now) == 1000


def test_a_limit_that_learns_nothing_does_not_start_slowly() -> None:
    """Whoever turned learning off gets what is configured: nothing."""
    assert sent_at_once(GcraCore[int](RateLimitConfig(adaptive=False)), 0.0) == 1000


# -- what headers teach


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "rate"),
    [
        (100, 20, 20, 60.0),  # one a second until then
        (100, 20, 40, 30.0),
        (100, 51, 6000, 100.0),  # more than half is left: no slower than all of it a minute
        (100, 60, 20, 120.0),  # forty come back in twenty seconds
        (None, 5, 10, 30.0),
        (100, 0, 60, 10.0),  # as if a tenth were left
        (14_400, 0, 86_400, 1.0),  # a limit a day: an answer a minute tells when it is over
        (None, 0, 86_400, 1.0),
        (100_000, 99_990, 1, None),  # not worth keeping
        (100, -1, 60, None),
        (100, 10, 0, None),
        (100, 10, -5, None),
        (100, 10, math.nan, None),
        (100, math.nan, 10, None),
        (100, math.inf, 10, None),
        (100, 10, math.inf, None),
        (100, None, 10, None),
        (100, 10, None, None),
        (-1, 10, 20, 30.0),
        (0, 10, 20, 30.0),
        (math.nan, 10, 20, 30.0),
    ],
)
def test_headers_pace_what_remains_until_the_reset(
    limit: float | None, remaining: float | None, reset: float | None, rate: float | None
) -> None:
    """Half of the limit goes freely, the other half is spread; what is absurd or missing teaches nothing."""
    core = limiter(None)
    core.observe(headers(limit, remaining, reset), 0.0)
    learned = core.snapshot().rate
    assert learned == rate if rate is None else learned == pytest.approx(rate)


def test_headers_never_speed_up() -> None:
    """The configured rate is the most that goes."""
    core = limiter(60)
    core.observe(headers(1_000, 400, 10), 0.0)
    assert core.snapshot().rate == 60.0


def test_what_headers_taught_ends_with_the_reset() -> None:
    """From then on the window is full again."""
    core = limiter(60)
    core.observe(headers(None, 1, 30), 0.0)
    assert core.snapshot().rate == 2.0
    core.tick(30.0)
    assert core.snapshot().rate == 60.0


def test_a_waiter_is_planned_with_the_pace_of_its_time() -> None:
    """Who would be too late at the learned pace, but not after the reset, waits."""
    core = limiter(60)
    core.observe(headers(None, 1, 30), 0.0)
    for key, due in enumerate((30.0, 31.0, 32.0)):
        core.acquire(-1, 0.0, 0.0)
        assert core.acquire(key, 0.0, 40.0) == Waiting(due)
    assert run_out(core) == {0: 30.0, 1: 31.0, 2: 32.0}


def test_what_was_saved_up_is_not_there_if_the_provider_does_not_know_of_it() -> None:
    """No more go at once than the headers say remain."""
    core = limiter(600, burst=10)
    core.observe(headers(None, 2, 10), 0.0)
    assert sent_at_once(core, 0.0) == 2


def test_no_headers_teach_nothing() -> None:
    """Headers about tokens, or about nothing, leave the pace alone; so does a Retry-After on an answer."""
    core = limiter(None)
    core.observe(LimitHeaders(tokens=LimitWindow(10, 0, 60), retry_after=30.0), 0.0)
    assert core.snapshot().rate is None
    assert sent_at_once(core, 0.0) == 1000


def test_what_is_over_half_of_the_limit_may_go_at_once() -> None:
    """Less what was granted after the call that was answered: the account may not know of it yet."""
    core = GcraCore[int](RateLimitConfig())
    first = core.acquire(-1, 0.0, 0.0)
    assert isinstance(first, Grant)
    assert sum(isinstance(core.acquire(key, 0.0, 0.0), Grant) for key in range(4)) == 4
    core.observe(headers(60, 59, 1), 0.0, first)
    assert sent_at_once(core, 0.0) == 59 - 4 - 30


def test_answers_to_requests_of_one_instant_all_teach() -> None:
    """Neither is older than the other, so the one that came last counts."""
    core = limiter(None)
    one, other = core.acquire(1, 0.0, NEVER), core.acquire(2, 0.0, NEVER)
    assert isinstance(one, Grant)
    assert isinstance(other, Grant)
    core.observe(headers(100, 2, 20), 1.0, one)
    core.observe(headers(100, 20, 20), 1.0, other)
    assert core.snapshot().rate == pytest.approx(60.0)


def test_a_newcomer_is_in_time_where_headers_have_just_let_the_others_move_up() -> None:
    """Two seconds each in place of a minute count for it at once, before any tick."""
    core = limiter(None)
    core.observe(headers(None, 1, 60), 0.0)
    assert sent_at_once(core, 0.0) == 1
    assert core.acquire(1, 0.0, NEVER) == Waiting(60.0)
    core.observe(headers(None, 10, 20), 0.0)
    assert core.acquire(2, 0.0, 10.0) == Waiting(4.0)
    assert run_out(core) == {1: 2.0, 2: 4.0}


def test_headers_of_no_known_request_know_of_all_that_was_granted() -> None:
    """Nothing is taken off what they say remains."""
    core = limiter(None)
    core.acquire(1, 0.0, NEVER, 500)
    core.observe(LimitHeaders(LimitWindow(60, 50, 40), LimitWindow(1000, 800, 42)), 1.0)
    assert (core.snapshot().remaining_requests, core.snapshot().remaining_tokens) == (50, 800)


def test_an_answer_to_an_earlier_request_is_old_news() -> None:
    """What a later one said already counts."""
    core = limiter(None)
    early, late = core.acquire(1, 0.0, NEVER), core.acquire(2, 1.0, NEVER)
    assert isinstance(early, Grant)
    assert isinstance(late, Grant)
    core.observe(headers(100, 20, 20), 2.0, late)
    core.observe(headers(100, 2, 20), 3.0, early)
    assert core.snapshot().rate == pytest.approx(60.0)


class RefillingAccount:
    """A provider whose limit refills steadily."""

    def __init__(self, limit: int) -> None:
        self.limit, self.level, self.seen = limit, float(limit), 0.0

    def send(self, now: float) -> LimitHeaders | None:
        self.level = min(self.limit, self.level + (now - self.seen) * self.limit / 60)
        self.seen = now
        self.level -= 1
        missing = (self.limit - self.level) * 60 / self.limit
        return headers(self.limit, math.floor(self.level), missing) if self.level >= 0 else None


class WindowedAccount:
    """A provider whose limit is a fixed window of a minute."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used, self.window = limit, 0, 0

    def send(self, now: float) -> LimitHeaders | None:
        if now // 60 != self.window:
            self.window, self.used = int(now // 60), 0
        self.used += 1
        reset = 60 - now % 60
        return headers(self.limit, self.limit - self.used, reset) if self.used <= self.limit else None


@pytest.mark.parametrize("kind", [RefillingAccount, WindowedAccount])
def test_a_client_without_a_configured_rate_never_meets_a_429(
    kind: type[RefillingAccount] | type[WindowedAccount],
) -> None:
    """Headers alone keep an eager client within its limit for ten minutes, and let it use most of it."""
    account = kind(120)
    core = limiter(None)
    now, sent = 0.0, 0
    core.acquire(0, now, NEVER)
    while now < 600.0:
        limits = account.send(now)
        assert limits is not None, f"a 429 after {sent} requests, at {now}"
        sent += 1
        core.observe(limits, now)
        if isinstance(core.acquire(sent, now, NEVER), Waiting):
            now = core.wake_at()
            while not core.tick(now).granted:
                now = core.wake_at()
    assert sent > 0.75 * 120 * 10


# -- tokens


def tokens_a_minute(limit: float, rate: float | None = None, queue: int = 100) -> GcraCore[int]:
    """Return a limiter of tokens, of requests too where a rate is given, which has been answered once."""
    core = GcraCore[int](RateLimitConfig(requests_per_minute=rate, tokens_per_minute=limit, queue=queue))
    core.answered(0.0)
    return core


def in_any_minute(granted: list[tuple[float, int]]) -> int:
    """Return the most tokens that were granted in any sixty seconds."""
    return max(sum(tokens for at, tokens in granted if start <= at <= start + 60.0) for start, _ in granted)


def tokens_granted(core: GcraCore[int], amounts: list[int], until: float = NEVER) -> list[tuple[float, int]]:
    """Let requests of these amounts come at once, and time pass; return what was granted when."""
    granted = []
    for key, amount in enumerate(amounts):
        if isinstance(core.acquire(key, 0.0, NEVER, amount), Grant):
            granted.append((0.0, amount))
    while (now := core.wake_at()) < until:
        granted += [(now, grant.tokens) for _, grant in core.tick(now).granted]
    return granted


def test_token_limits_race_five_concurrent_calls_spent_663_tokens_of_100() -> None:
    """What is granted counts before it is used: five calls of 150 never have more than 400 of a minute."""
    granted = tokens_granted(tokens_a_minute(400), [150] * 5)
    assert len(granted) == 5
    assert in_any_minute(granted) == 300


def test_fixed_windows_let_twice_the_rate_through_at_a_boundary() -> None:
    """Here a minute is any minute, wherever it begins."""
    core = tokens_a_minute(600)
    granted = []
    for half_second in range(400):
        now = 50.0 + half_second / 2  # a quiet time, then as much as goes
        while isinstance(answer := core.acquire(half_second, now, now, 20), Grant):
            granted.append((now, answer.tokens))
    assert in_any_minute(granted) == 600


def test_tokens_flow_at_their_rate_and_not_in_lumps() -> None:
    """Under steady overload a call goes each second, but for one wait of ten seconds: what the first burst took."""
    granted = tokens_granted(tokens_a_minute(6000, queue=1000), [100] * 601)
    instants = [at for at, _ in granted]
    assert instants[:10] == [0.0] * 10
    gaps = sorted(later - earlier for earlier, later in pairwise(instants[10:]))
    assert gaps[-1] == pytest.approx(10.25, abs=0.3)
    assert gaps[-2] <= 1.3
    assert instants[-1] <= 601 / 600 * 600 * 1.01
    assert in_any_minute(granted) <= 6000


def test_a_heap_ordered_by_amount_starved_an_8_unit_waiter_behind_1_unit_ones_for_4_s() -> None:
    """One queue: whoever wants much waits its turn, and those behind it wait for it."""
    core = tokens_a_minute(480)
    core.acquire(-1, 0.0, NEVER, 80)  # all that may go at once
    core.acquire(8, 0.0, NEVER, 8)
    for key in range(40, 80):
        core.acquire(key, 0.0, NEVER, 1)
    assert next(iter(run_out(core).items())) == (8, 1.0)


def test_a_request_of_more_than_a_minute_allows_goes_alone() -> None:
    """Whether it is too large is the provider's to say; but nothing goes beside it."""
    core = tokens_a_minute(100)
    core.acquire(1, 0.0, NEVER, 10)
    core.acquire(2, 1.0, NEVER, 250)
    core.acquire(3, 1.0, NEVER, 10)
    granted = run_out(core)
    assert granted[2] >= 60.0
    assert granted[3] >= granted[2] + 60.0


def test_what_was_reserved_too_much_comes_back_and_the_others_move_up() -> None:
    """Both to the pace and to the minute."""
    core = tokens_a_minute(600)
    grant = core.acquire(1, 0.0, NEVER, 600)
    assert isinstance(grant, Grant)
    core.acquire(2, 1.0, NEVER, 50)
    assert core.wake_at() > 60.0
    core.settle(grant, 50, 1.0)
    assert granted_at_once(core, 1.0) == [2]
    assert core.snapshot().tokens_settled == 50


def granted_at_once(core: GcraCore[int], now: float) -> list[int]:
    """Return who is granted at `now`, where the limiter wants to be woken by then."""
    assert core.wake_at() <= now
    return granted(core, now)


def test_a_newcomer_is_in_time_where_others_have_just_moved_up() -> None:
    """What came back counts for it at once, before any tick."""
    core = tokens_a_minute(600)
    first = core.acquire(1, 0.0, NEVER, 500)
    assert isinstance(first, Grant)
    assert isinstance(core.acquire(2, 0.0, NEVER, 300), Waiting)
    assert isinstance(core.acquire(3, 0.0, 40.0, 10), Rejected)
    core.settle(first, 0, 1.0)
    assert isinstance(core.acquire(4, 1.0, 40.0, 10), Waiting)
    assert max(run_out(core).values()) <= 40.0


def test_what_all_answers_used_is_counted() -> None:
    """As they tell it, one after the other."""
    core = tokens_a_minute(600)
    for used in (50, 70):
        grant = core.acquire(1, 0.0, NEVER, 40)
        assert isinstance(grant, Grant)
        core.settle(grant, used, 1.0)
    assert core.snapshot().tokens_settled == 120


def test_what_was_reserved_too_little_is_a_debt_that_delays_the_next() -> None:
    """And whoever is too late for it is told at once."""
    core = tokens_a_minute(600)
    grant = core.acquire(1, 0.0, NEVER, 100)
    assert isinstance(grant, Grant)
    core.acquire(2, 0.0, 20.0, 100)
    core.acquire(3, 0.0, NEVER, 100)
    core.settle(grant, 400, 1.0)
    assert core.snapshot().token_debt == pytest.approx(290.0)
    assert core.wake_at() <= 1.0
    assert core.tick(1.0).rejected == (2,)
    assert run_out(core) == {3: pytest.approx(40.0)}


def test_a_request_that_was_never_sent_gives_its_tokens_back() -> None:
    """Interrupted before the send: requests and tokens are as before."""
    core = tokens_a_minute(600, rate=60)
    grant = core.acquire(1, 0.0, NEVER, 600)
    assert isinstance(grant, Grant)
    core.refund(grant, 0.0)
    assert isinstance(core.acquire(2, 0.0, 0.0, 600), Grant)
    state = core.snapshot()
    assert (state.granted, state.refunded, state.tokens_reserved, state.tokens_settled) == (2, 1, 600, 0)


def test_an_interrupted_waiter_holds_no_tokens() -> None:
    """Whoever leaves the queue costs nothing; the small one behind it goes at once."""
    core = tokens_a_minute(600)
    core.acquire(1, 0.0, NEVER, 50)
    core.acquire(2, 0.0, NEVER, 600)
    core.acquire(3, 0.0, NEVER, 50)
    core.forget(2)
    assert granted_at_once(core, 0.0) == [3]


def test_a_small_one_behind_one_who_turns_out_to_be_too_late_goes_at_once() -> None:
    """In the very tick that finds it out."""
    core = tokens_a_minute(600)
    core.acquire(1, 0.0, NEVER, 100)
    core.acquire(2, 0.0, 6.0, 50)
    core.acquire(3, 0.0, NEVER, 0)
    core.slow_down(0.0, 0.0)
    answers = core.tick(0.0)
    assert answers.rejected == (2,)
    assert [key for key, _ in answers.granted] == [3]


def test_both_limits_hold_together() -> None:
    """A request goes once it is due by both."""
    core = tokens_a_minute(600, rate=60)
    granted = tokens_granted(core, [100, 1, 1, 100])
    assert [at for at, _ in granted] == pytest.approx([0.0, 1.0, 2.0, 10.2])


def test_a_429_halves_both_rates() -> None:
    """It does not say which limit was met."""
    core = tokens_a_minute(600, rate=60)
    core.slow_down(0.0, 0.0)
    assert (core.snapshot().rate, core.snapshot().token_rate) == (30.0, 300.0)


def test_a_learned_token_window_works_without_a_configured_one() -> None:
    """What remains has to last: three thousand tokens in thirty seconds are a hundred a second."""
    core = limiter(None)
    core.observe(LimitHeaders(tokens=LimitWindow(20_000, 3_000, 30)), 0.0)
    core.acquire(1, 0.0, NEVER, 500)
    core.acquire(2, 0.0, NEVER, 500)
    assert run_out(core) == {2: pytest.approx(5.0)}
    assert core.snapshot().token_rate is not None


def test_the_state_tells_what_remains() -> None:
    """Of the configured minute before any headers; then what they said, less what was granted since."""
    core = tokens_a_minute(600)
    grant = core.acquire(1, 0.0, NEVER, 100)
    assert isinstance(grant, Grant)
    assert (core.snapshot().remaining_requests, core.snapshot().remaining_tokens) == (None, 500)
    core.observe(LimitHeaders(LimitWindow(60, 50, 40), LimitWindow(1000, 800, 42)), 0.0, grant)
    core.acquire(2, 30.0, NEVER, 50)
    assert (core.snapshot().remaining_requests, core.snapshot().remaining_tokens) == (49, 750)


def test_what_headers_said_to_be_left_is_forgotten_after_their_reset() -> None:
    """Nobody knows then, but for a configured minute; where they named no reset, it holds for a minute."""
    core = tokens_a_minute(600)
    core.observe(LimitHeaders(LimitWindow(60, 50, 40), LimitWindow(1000, 800, None)), 0.0)
    state = core.snapshot()
    left = [(state.at(now).remaining_requests, state.at(now).remaining_tokens) for now in (39.9, 40.0, 59.9, 60.0)]
    assert left == [(50, 800), (None, 800), (None, 800), (None, 600)]


def test_the_state_as_of_a_later_instant_is_what_the_limiter_would_tell_then() -> None:
    """Minutes pass, debts are paid and paces recover though no message comes; the state that was read stays."""
    core = tokens_a_minute(600, rate=60)
    grant = core.acquire(1, 0.0, NEVER, 100)
    assert isinstance(grant, Grant)
    core.settle(grant, 550, 1.0)
    core.pause(5.0, 1.0)
    core.slow_down(0.0, 1.0)
    state = core.snapshot()
    for now in (1.0, 5.0, 30.0, 61.5, 3600.0):
        core.tick(now)
        then, told = core.snapshot(), state.at(now)
        assert (told.rate, told.token_rate, told.burst_used) == (then.rate, then.token_rate, then.burst_used)
        assert (told.token_debt, told.remaining_tokens) == pytest.approx((then.token_debt, then.remaining_tokens))
    after = state.at(3600.0)
    assert (after.rate, after.token_rate, after.burst_used) == (60.0, 600.0, 0.0)
    assert (after.token_debt, after.remaining_tokens) == (0.0, 600)
    assert (state.rate, state.remaining_tokens) == (30.0, 50)
    assert state.token_debt > 400.0


def test_a_pause_is_no_rest() -> None:
    """When it ends, one request may go at once, and only then are others saved up."""
    core = limiter(burst=10)
    core.acquire(1, 0.0, NEVER)
    core.pause(100.0, 1.0)
    state = core.snapshot()
    assert [state.at(now).burst_used for now in (100.0, 103.0, 109.0)] == [9.0, 6.0, 0.0]


def test_a_limiter_that_has_heard_nothing_yet_tells_what_is_configured() -> None:
    """Before its first message too."""
    state = GcraCore[int](RateLimitConfig(requests_per_minute=60, burst=3, tokens_per_minute=600)).snapshot()
    assert (state.rate, state.burst_used, state.token_debt, state.remaining_tokens) == (60.0, 0.0, 0.0, 600)
    assert state.at(50.0).burst_used == 0.0


def test_what_has_no_limit_is_never_used_up() -> None:
    """There is nothing that it could owe, nor any rate."""
    core = limiter(None, burst=None)
    for key in range(100):
        core.acquire(key, 1.0, NEVER, 1_000)
    state = core.snapshot()
    assert (state.burst_used, state.token_debt, state.rate, state.token_rate) == (0.0, 0.0, None, None)


def test_the_burst_comes_back_at_the_rate_of_the_limit() -> None:
    """A tenth of a second for each request of ten a second."""
    core = limiter(600, burst=10)
    for key in range(4):
        core.acquire(key, 50.0, NEVER)
    state = core.snapshot()
    assert [state.at(now).burst_used for now in (50.0, 50.2, 51.0)] == pytest.approx([4.0, 2.0, 0.0])


def test_what_is_used_up_is_none_left() -> None:
    """By the headers, and of a configured minute; never less than none."""
    core = tokens_a_minute(600)
    first = core.acquire(1, 0.0, NEVER, 100)
    assert isinstance(first, Grant)
    core.settle(first, 900, 1.0)
    assert core.snapshot().remaining_tokens == 0.0
    known = limiter(None)
    second = known.acquire(1, 0.0, NEVER)
    assert isinstance(second, Grant)
    known.observe(headers(60, 0, 40), 1.0, second)
    assert known.snapshot().remaining_requests == 0.0


@pytest.mark.parametrize("used", [60_000, 10**9])
def test_one_huge_usage_shuts_a_model_for_a_minute_and_no_longer(used: int) -> None:
    """The provider forgets in a minute; the next call goes then, and those after it at the usual pace."""
    core = tokens_a_minute(10_000)
    grants = [core.acquire(key, 0.0, NEVER, 300) for key in range(3)]
    for grant in grants:
        assert isinstance(grant, Grant)
        core.settle(grant, used, 1.0)
    for key in range(10, 13):
        core.acquire(key, 1.0, NEVER, 300)
    granted = run_out(core)
    assert 61.0 <= granted[10] <= 63.0
    assert granted[12] <= granted[10] + 4.0
    assert core.snapshot().token_debt == 0.0


def test_a_call_of_many_minutes_tokens_shuts_a_model_for_a_minute_and_no_longer() -> None:
    """Whether it was reserved or used."""
    core = tokens_a_minute(10_000)
    core.acquire(1, 0.0, NEVER, 200_000)
    core.acquire(2, 0.0, NEVER, 300)
    assert 60.0 <= run_out(core)[2] <= 62.0


@pytest.mark.parametrize("used", [100, 500, 2_000])
def test_what_answers_used_beyond_their_estimates_counts_in_any_minute(used: int) -> None:
    """Once it is known, nothing is granted that would not fit beside it."""
    core = tokens_a_minute(1_000)
    counted: list[tuple[float, int]] = []

    def fits_and_ends(grants: list[Grant], now: float) -> None:
        for grant in grants:
            minute = sum(tokens for at, tokens in counted if now - 60.0 <= at)
            assert minute + grant.tokens <= 1_000
            counted.append((now, grant.tokens))
        for grant in grants:
            core.settle(grant, used, now)
            counted.append((now, used - grant.tokens))

    fits_and_ends([grant for key in range(80) if isinstance(grant := core.acquire(key, 0.0, NEVER, 50), Grant)], 0.0)
    while (now := core.wake_at()) < NEVER:
        fits_and_ends([grant for _, grant in core.tick(now).granted], now)
    assert len(counted) == 160


def test_of_what_is_merely_expected_a_quarter_of_a_minute_is_reserved() -> None:
    """Else a model of long answers would get each small prompt alone, in an empty minute."""
    core = tokens_a_minute(10_000)
    for key, (tokens, expected, reserved) in enumerate(
        [(50_015, 50_000, 2_515), (2_415, 2_400, 2_415), (3_000, 0, 3_000), (60_000, 0, 60_000)]
    ):
        at = 1_000.0 * key
        grant = core.acquire(key, at, at, tokens, expected)
        assert isinstance(grant, Grant)
        assert grant.tokens == reserved
    unlimited = limiter(None).acquire(1, 0.0, 0.0, 15_000, 14_000)
    assert isinstance(unlimited, Grant)
    assert unlimited.tokens == 15_000


def test_after_a_crash_the_minutes_tokens_and_debts_go_on() -> None:
    """A limiter that crashes grants no second minute."""
    config = RateLimitConfig(tokens_per_minute=600)
    core = GcraCore[int](config)
    grant = core.acquire(1, 0.0, NEVER, 500)
    assert isinstance(grant, Grant)
    core.settle(grant, 900, 1.0)
    again = GcraCore[int].restore(config, core.snapshot(), 2.0)
    assert again.snapshot().token_debt == core.snapshot().token_debt - 10.0
    again.acquire(2, 2.0, NEVER, 100)
    assert again.wake_at() == min(core.wake_at(), again.wake_at())
    assert run_out(again)[2] > 60.0


def test_the_carry_is_bounded() -> None:
    """Ten minutes of calls leave no more than a minute's slots."""
    core = tokens_a_minute(1e6)
    for tick in range(6000):
        core.acquire(tick, tick / 10, tick / 10, 10)
    assert len(core.snapshot().tokens.spent[1]) <= 242


def test_a_thousand_waiters_are_planned_in_bounded_time() -> None:
    """A pause and a thousand settlements in one tick make one plan, not a thousand."""
    core = tokens_a_minute(600_000, rate=6000, queue=2000)
    grants = [answer for key in range(100) if isinstance(answer := core.acquire(key, 0.0, NEVER, 10), Grant)]
    for key in range(1000):
        core.acquire(100 + key, 0.0, 1000.0, 10)
    for grant in grants:
        core.settle(grant, 11, 0.5)
    core.pause(30.0, 0.5)
    assert core.tick(0.5).rejected == ()
    for key in range(1100):
        core.forget(key)
    assert core.wake_at() == NEVER
    assert core.snapshot().waiting == 0


# -- what llmock does: a quota of requests and tokens that refills steadily, its headers on every answer


class Quota:
    """A provider that charges `charge` tokens a request against both limits."""

    def __init__(self, requests: int, tokens: int, charge: int) -> None:
        self.limits, self.levels = (requests, tokens), [float(requests), float(tokens)]
        self.charges, self.seen = (1, charge), 0.0

    def send(self, now: float) -> tuple[LimitHeaders, float]:
        """Return the headers, and the seconds to stay away: 0.0 where the request is taken."""
        wait = 0.0
        for i, limit in enumerate(self.limits):
            self.levels[i] = min(limit, self.levels[i] + (now - self.seen) * limit / 60)
            wait = max(wait, (self.charges[i] - self.levels[i]) * 60 / limit)
        self.seen = now
        if wait <= 0.0:
            self.levels = [level - charge for level, charge in zip(self.levels, self.charges, strict=True)]
        requests, tokens = (
            LimitWindow(limit, math.floor(level), round((limit - level) * 60 / limit, 2) or None)
            for limit, level in zip(self.limits, self.levels, strict=True)
        )
        return LimitHeaders(requests, tokens), max(wait, 0.0)


@pytest.mark.parametrize("slots", [32, 200])
@pytest.mark.parametrize("latency", [0.005, 0.5, 3.0])
@pytest.mark.parametrize(("estimate", "charge"), [(300, 60), (1100, 1050), (60, 60), (150, 300)])
def test_200_requests_at_once_with_nothing_configured_meet_at_most_two_429s(
    slots: int, latency: float, estimate: int, charge: int
) -> None:
    """Against 60 requests and 20,000 tokens a minute; and they take little longer than they must."""
    core = GcraCore[int](RateLimitConfig())
    quota, refused, done = Quota(60, 20_000, charge), 0, 0
    pending: list[tuple[float, int, Grant, LimitHeaders, float]] = []
    now, todo, free, number, order = 0.0, 200, slots, 0, count()

    def send(grant: Grant) -> None:
        limits, wait = quota.send(now)
        takes = 0.003 if wait else latency * (0.5 + number % 10 / 10)
        heapq.heappush(pending, (now + takes, next(order), grant, limits, wait))

    while done < 200:
        while todo and free:
            todo, free, number = todo - 1, free - 1, number + 1
            if isinstance(answer := core.acquire(number, now, NEVER, estimate), Grant):
                send(answer)
        now = max(now, min(core.wake_at(), pending[0][0] if pending else NEVER))
        while pending and pending[0][0] <= now:
            _, _, grant, limits, wait = heapq.heappop(pending)
            free += 1
            if wait:
                refused, todo = refused + 1, todo + 1
                core.settle(grant, 0, now)
                core.pause(now + wait, now)
                core.slow_down(grant.at, now)
            else:
                done += 1
                core.observe(limits, now, grant)
                core.settle(grant, charge, now)
        if core.wake_at() <= now:
            for _, grant in core.tick(now).granted:
                send(grant)
    assert refused <= 2
    assert now <= 1.3 * max(140.0, (200 * charge - 20_000) / 20_000 * 60)


# -- restarts


def test_a_new_incarnation_begins_with_an_empty_bucket() -> None:
    """What the last one granted is unknown: the first goes after an interval, and nothing was saved up."""
    core = GcraCore[int].restore(RateLimitConfig(requests_per_minute=60, burst=5), limiter().snapshot(), 50.0)
    assert sent_at_once(core, 50.0) == 0
    assert sent_at_once(core, 51.0) == 1


def test_a_new_incarnation_goes_on_with_pause_slow_down_and_counts() -> None:
    """A crash is no reason to be less careful with a provider."""
    old = limiter()
    old.acquire(1, 0.0, NEVER)
    old.slow_down(0.0, 1.0)
    old.pause(20.0, 1.0)
    core = GcraCore[int].restore(RateLimitConfig(requests_per_minute=60, burst=1), old.snapshot(), 5.0)
    state = core.snapshot()
    assert (state.paused_until, state.rate, state.granted) == (20.0, 30.0, 1)
    core.slow_down(0.5, 6.0)  # an answer to what was sent before the rate was halved
    assert core.snapshot().rate == 30.0
    assert core.acquire(2, 5.0, NEVER) == Waiting(20.0)


def test_a_grant_from_before_a_restart_is_refunded_into_the_empty_bucket() -> None:
    """Its worth is what the time until the restart left of it."""
    core = GcraCore[int].restore(RateLimitConfig(requests_per_minute=60, burst=1), limiter().snapshot(), 10.0)
    core.refund(Grant(9.5), 10.0)
    core.acquire(1, 10.0, NEVER)
    assert core.wake_at() == 10.5
    core.refund(Grant(2.0), 10.0)
    assert core.wake_at() == 10.5


def test_new_limits_keep_what_was_spent_and_owed() -> None:
    """The minute's tokens count on under another limit, and a waiter is due by the new pace, or too late by it."""
    core = GcraCore[int](RateLimitConfig(tokens_per_minute=600, adaptive=False))
    core.acquire(1, 0.0, NEVER, 600)
    assert isinstance(core.acquire(2, 0.0, NEVER, 300), Waiting)
    assert isinstance(core.acquire(3, 0.0, 100.0, 300), Waiting)

    core.reconfigure(RateLimitConfig(tokens_per_minute=900, adaptive=False), 1.0)
    assert granted(core, 1.0) == []
    assert core.wake_at() < 60.0
    core.reconfigure(RateLimitConfig(tokens_per_minute=300, adaptive=False), 2.0)
    ticked = core.tick(2.0)

    assert (ticked.granted, ticked.rejected) == ((), (3,))
    assert run_out(core) == {2: 72.0}  # the debt is paid within a minute of the change; then the bucket has to fill


def test_what_a_minute_has_spent_outlasts_a_time_without_limits_and_an_incarnation() -> None:
    """The provider counts on, whatever is configured and whoever counts here."""
    unlimited, limited = (RateLimitConfig(tokens_per_minute=most, adaptive=False) for most in (None, 600))
    core = GcraCore[int](limited)
    core.acquire(1, 0.0, NEVER, 600)
    core.reconfigure(unlimited, 1.0)
    for at in (2.0, 3.0):
        core = GcraCore[int].restore(unlimited, core.snapshot(), at)

    core.reconfigure(limited, 4.0)
    again = core.acquire(2, 4.0, NEVER, 600)

    assert isinstance(again, Waiting)
    assert again.due is not None
    assert again.due >= 60.0


def test_a_smaller_room_turns_nobody_out() -> None:
    """Who waits stays; nobody else comes in before enough have left."""
    core = limiter(queue=3)
    for key in range(4):
        core.acquire(key, 0.0, NEVER)
    core.reconfigure(RateLimitConfig(requests_per_minute=60, burst=1, queue=1), 0.0)

    assert core.full
    assert [core.snapshot().waiting, granted(core, 1.0), granted(core, 2.0), core.full] == [3, [1], [2], True]
    assert granted(core, 3.0) == [3]
    assert not core.full


def test_a_pause_and_a_halved_rate_outlast_new_limits() -> None:
    """What the provider has said does not depend on what is configured here."""
    core = limiter()
    core.acquire(1, 0.0, NEVER)
    core.pause(20.0, 1.0)
    core.slow_down(0.0, 1.0)
    core.reconfigure(RateLimitConfig(requests_per_minute=120, burst=1), 2.0)

    assert (core.snapshot().paused_until, core.snapshot().rate) == (20.0, 60.0)
    assert core.acquire(2, 2.0, NEVER) == Waiting(20.0)


def test_a_budget_of_a_day_may_be_spent_at_once() -> None:
    """And no more than it in any day, whatever has come back meanwhile."""
    day = 86_400.0
    core = GcraCore[int](RateLimitConfig(tokens_per_minute=1000, requests_per_minute=10, adaptive=False), window=day)
    assert [type(core.acquire(key, 0.0, 0.0, 100)) for key in range(10)] == [Grant] * 10
    assert isinstance(core.acquire(11, 0.5 * day, 0.5 * day, 1), Rejected)

    later = day * (1 + 1 / 100)
    assert isinstance(core.acquire(12, later, later, 1000), Grant)
    again = GcraCore[int].restore(
        RateLimitConfig(tokens_per_minute=1000, adaptive=False), core.snapshot(), later + 1.0, window=day
    )
    assert refused_for(again.acquire(13, later + 1.0, later + 1.0, 1)) == pytest.approx(day, rel=0.01)


def test_a_budget_of_a_day_stays_one_of_a_day_under_new_limits() -> None:
    """Requests come back over a day, and tokens that were spent are back after one."""
    day = 86_400.0
    requests = GcraCore[int](RateLimitConfig(requests_per_minute=4, adaptive=False), window=day)
    assert [type(requests.acquire(key, 0.0, 0.0)) for key in range(4)] == [Grant] * 4
    requests.reconfigure(RateLimitConfig(requests_per_minute=8, adaptive=False), 0.0)
    assert refused_for(requests.acquire(9, 0.0, 0.0)) == pytest.approx(day / 8)

    tokens = GcraCore[int](RateLimitConfig(tokens_per_minute=400, adaptive=False), window=day)
    assert isinstance(tokens.acquire(1, 0.0, 0.0, 400), Grant)
    tokens.reconfigure(RateLimitConfig(tokens_per_minute=600, adaptive=False), 0.0)
    assert [type(tokens.acquire(key, 0.0, 0.0, 100)) for key in (2, 3)] == [Grant] * 2
    assert refused_for(tokens.acquire(3, 0.0, 0.0, 100)) == pytest.approx(day, rel=0.01)


def test_the_counts_say_what_happened() -> None:
    """Granted, throttled, rejected and waiting add up."""
    core = limiter()
    core.acquire(1, 0.0, NEVER)
    core.acquire(2, 0.0, NEVER)
    core.acquire(3, 0.0, 0.5)
    core.acquire(4, 0.0, NEVER)
    core.tick(1.0)
    state = core.snapshot()
    assert (state.granted, state.throttled, state.rejected, state.waiting) == (2, 2, 1, 1)
