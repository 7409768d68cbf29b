"""The circuit breaker's core, case by case. Times are seconds from an arbitrary start."""

import math
from random import Random

import pytest
from attrs import evolve

from wizard_actors.breaker_core import TRANSITIONS, BreakerCore, BreakerState, Circuit, Permit, Refused, Turn
from wizard_actors.config import BreakerConfig
from wizard_actors.errors import RateLimitError
from wizard_actors.verdict import Outcome

CONFIG = BreakerConfig()
FAILURE, SUCCESS, IGNORED = Outcome.FAILURE, Outcome.SUCCESS, Outcome.IGNORED


def breaker(**settings: float) -> BreakerCore:
    """Return a closed breaker with the defaults, but for `settings`."""
    return BreakerCore(BreakerConfig(**settings), Random(7))  # type: ignore[arg-type]  # names and types are checked there


def admitted(core: BreakerCore, now: float) -> Permit:
    """Return the permit that must be had at `now`."""
    permit = core.admit(now)
    assert isinstance(permit, Permit)
    return permit


def call(core: BreakerCore, outcome: Outcome, now: float) -> None:
    """Make a call that ends so."""
    core.settle(admitted(core, now), outcome, now)


def tripped(now: float = 0.0, **settings: float) -> BreakerCore:
    """Return a breaker that has opened at `now`."""
    core = breaker(**settings)
    for _ in range(5):
        call(core, FAILURE, now)
    return core


def half_open(now: float = 100.0, **settings: float) -> tuple[BreakerCore, Permit]:
    """Return a half-open breaker and its first probe."""
    core = tripped(**settings)
    return core, admitted(core, now)


def state(core: BreakerCore) -> Circuit:
    """Return the circuit's state."""
    return core.snapshot().circuit


# -- tripping


def test_five_failures_in_a_minute_trip() -> None:
    """The fifth one opens the circuit, and what follows is refused unsent."""
    core = breaker()
    for now in (0.0, 10.0, 20.0, 30.0):
        call(core, FAILURE, now)
    assert state(core) is Circuit.CLOSED
    call(core, FAILURE, 60.0)
    assert state(core) is Circuit.OPEN
    assert isinstance(core.admit(60.0), Refused)


def test_failures_that_are_spread_wider_do_not_trip() -> None:
    """A failure that has left the window does not count."""
    core = breaker()
    for index in range(100):
        call(core, FAILURE, index * 15.1)
    assert state(core) is Circuit.CLOSED


def test_a_slow_trickle_of_failures_does_not_hide_a_quick_series() -> None:
    """Whenever five of them fall into one window, it trips."""
    core = breaker()
    for index in range(20):
        call(core, FAILURE, index * 50.0)
    for now in (1000.0, 1001.0, 1002.0):
        call(core, FAILURE, now)
        assert state(core) is Circuit.CLOSED
    call(core, FAILURE, 1003.0)
    assert state(core) is Circuit.OPEN


def test_successes_between_failures_change_nothing() -> None:
    """The window slides by time alone."""
    core = breaker()
    for now in range(5):
        call(core, SUCCESS, now)
        call(core, FAILURE, now)
    assert state(core) is Circuit.OPEN


def test_ignored_outcomes_never_trip() -> None:
    """Cancellations, refused prompts and 429s say nothing about a model's health."""
    core = breaker()
    for now in range(100):
        call(core, IGNORED, now)
    assert core.snapshot() == BreakerState(admitted=100)


def test_a_healthy_model_costs_no_memory() -> None:
    """Nothing is kept of calls that have ended well."""
    core = breaker()
    for now in range(10_000):
        call(core, SUCCESS, now)
    assert core.snapshot() == BreakerState(admitted=10_000)


def test_a_rate_needs_enough_calls() -> None:
    """Half of the calls may fail while there are fewer than twenty; then the next failure trips."""
    core = breaker(failure_rate=0.5)
    for now in range(19):
        call(core, FAILURE if now % 2 else SUCCESS, now / 10)
    assert state(core) is Circuit.CLOSED
    call(core, FAILURE, 2.0)
    assert state(core) is Circuit.OPEN


def test_under_a_rate_the_count_does_not_matter() -> None:
    """Many failures among many more successes are no reason to open."""
    core = breaker(failure_rate=0.5)
    for index in range(300):
        call(core, SUCCESS if index % 3 else FAILURE, index / 10)
    assert state(core) is Circuit.CLOSED


def test_under_a_rate_old_calls_leave_the_window() -> None:
    """What went well an hour ago hides nothing."""
    core = breaker(failure_rate=0.5)
    for _ in range(1000):
        call(core, SUCCESS, 0.0)
    for _ in range(20):
        assert state(core) is Circuit.CLOSED
        call(core, FAILURE, 3600.0)
    assert state(core) is Circuit.OPEN


@pytest.mark.parametrize(("now", "circuit"), [(59.9, Circuit.OPEN), (60.0, Circuit.CLOSED)])
def test_under_a_rate_a_call_counts_for_a_window_at_most(now: float, circuit: Circuit) -> None:
    """A slice of the window leaves it as a whole."""
    core = breaker(failure_rate=0.5, minimum_calls=20)
    for _ in range(19):
        call(core, FAILURE, 0.0)
    call(core, FAILURE, now)
    assert state(core) is circuit


@pytest.mark.parametrize(
    ("rate", "before", "after"),
    [
        # ten calls of a minute ago would make the other ten enough
        (0.25, [SUCCESS] * 10, [SUCCESS] * 5 + [FAILURE] * 5),
        # ten failures of a minute ago would make most of the others failures
        (0.9, [SUCCESS] * 20 + [FAILURE] * 10, [SUCCESS] * 10 + [FAILURE] * 10),
    ],
)
def test_under_a_rate_neither_calls_nor_failures_of_a_window_ago_count(
    rate: float, before: list[Outcome], after: list[Outcome]
) -> None:
    """A slice that leaves the window takes both with it, also where there was nothing in between."""
    core = breaker(failure_rate=rate, minimum_calls=20)
    for outcome in before:
        call(core, outcome, 0.0)
    for outcome in after:
        call(core, outcome, 60.0)
    assert state(core) is Circuit.CLOSED


# -- open


@pytest.mark.parametrize("seed", range(20))
def test_an_open_circuit_waits_for_thirty_seconds_at_most(seed: int) -> None:
    """U(0.8, 1) of the open time: clients that saw the same outage do not all probe at once, nor later than set."""
    core = BreakerCore(CONFIG, Random(seed))
    for _ in range(5):
        call(core, FAILURE, 100.0)
    assert 124.0 <= core.snapshot().retry_at <= 130.0


def test_open_times_are_spread() -> None:
    """Many clients of one model come back one after the other."""
    ends = set()
    for seed in range(20):
        core = BreakerCore(CONFIG, Random(seed))
        for _ in range(5):
            call(core, FAILURE, 100.0)
        ends.add(core.snapshot().retry_at)
    assert len(ends) == 20


def test_a_refusal_names_the_instant_of_the_next_probe() -> None:
    """Up to it everybody is refused, at it somebody is admitted."""
    core = tripped()
    refused = core.admit(0.0)
    assert isinstance(refused, Refused)
    assert isinstance(core.admit(math.nextafter(refused.retry_at, 0.0)), Refused)
    assert admitted(core, refused.retry_at).probe


def test_every_refusal_is_counted() -> None:
    """While the circuit is open, and while all the probes are out."""
    core = tripped()
    for now in (1.0, 2.0, 3.0):
        core.admit(now)
    assert core.snapshot().refused == 3
    admitted(core, 100.0)
    core.admit(100.0)
    core.admit(100.0)
    assert core.snapshot().refused == 5


def test_it_stays_open_twice_as_long_after_a_failed_probe_and_never_longer() -> None:
    """A longer and longer time would find the model back late."""
    core = tripped()
    times = []
    for _ in range(6):
        opened = core.snapshot().retry_at
        call(core, FAILURE, opened)
        times.append(core.snapshot().retry_at - opened)
    assert all(48.0 <= time <= 60.0 for time in times)
    assert core.snapshot().trips == 7


def test_after_it_closed_the_next_outage_begins_with_the_short_time() -> None:
    """An outage that is over makes no later one longer."""
    core = tripped()
    call(core, FAILURE, 100.0)
    for _ in range(2):
        call(core, SUCCESS, 200.0)
    for _ in range(5):
        call(core, FAILURE, 300.0)
    assert core.snapshot().retry_at <= 330.0


# -- half-open


def test_only_so_many_probes_are_out_at_a_time() -> None:
    """Everybody else is refused until one of them has ended."""
    core, first = half_open(half_open_probes=2, success_threshold=3)
    second = admitted(core, 100.0)
    assert all(isinstance(core.admit(100.0), Refused) for _ in range(50))
    core.settle(first, SUCCESS, 101.0)
    third = admitted(core, 101.0)
    assert [permit.probe for permit in (first, second, third)] == [True] * 3


def test_two_successes_close_it() -> None:
    """One alone could be luck."""
    core, probe = half_open()
    core.settle(probe, SUCCESS, 101.0)
    assert state(core) is Circuit.HALF_OPEN
    call(core, SUCCESS, 102.0)
    assert state(core) is Circuit.CLOSED
    assert core.snapshot().trips == 0


def test_one_failure_opens_it_again() -> None:
    """Also after a success."""
    core, probe = half_open()
    core.settle(probe, SUCCESS, 101.0)
    call(core, FAILURE, 102.0)
    assert state(core) is Circuit.OPEN
    call(core, SUCCESS, 300.0)
    assert state(core) is Circuit.HALF_OPEN  # the earlier success does not count any more


def test_a_cancelled_probe_gives_its_place_back_and_decides_nothing() -> None:
    """Neither closed nor opened, nor stuck: the next one probes."""
    core, probe = half_open()
    core.settle(probe, IGNORED, 101.0)
    assert state(core) is Circuit.HALF_OPEN
    second = admitted(core, 101.0)
    core.forget(second)
    assert admitted(core, 101.0).probe


def test_it_forgets_the_failures_that_tripped_it() -> None:
    """Once closed again, it takes as many failures as before."""
    core, probe = half_open(now=31.0, success_threshold=1)
    core.settle(probe, SUCCESS, 31.0)
    call(core, FAILURE, 32.0)
    assert state(core) is Circuit.CLOSED


# -- probes that have been heard


def test_a_probe_that_streams_for_minutes_keeps_nobody_waiting() -> None:
    """Once its first content is there, others probe, and close the circuit long before its end; that is fenced."""
    core, stream = half_open()
    assert isinstance(core.admit(101.0), Refused)
    core.hear(stream)
    call(core, SUCCESS, 101.0)
    call(core, SUCCESS, 102.0)
    assert state(core) is Circuit.CLOSED
    core.settle(stream, FAILURE, 190.0)
    assert (state(core), core.snapshot().fenced, core.snapshot().in_flight) == (Circuit.CLOSED, 1, 0)


def test_probes_that_all_stream_for_minutes_close_it_side_by_side() -> None:
    """Nobody waits for the end of another one's stream."""
    core, first = half_open()
    core.hear(first)
    second = admitted(core, 101.0)
    core.hear(second)
    core.settle(first, SUCCESS, 190.0)
    core.settle(second, SUCCESS, 191.0)
    assert state(core) is Circuit.CLOSED


def test_a_first_content_is_no_success() -> None:
    """Whoever begins well may still break off."""
    core, probe = half_open(success_threshold=1)
    core.hear(probe)
    assert state(core) is Circuit.HALF_OPEN
    core.settle(probe, IGNORED, 101.0)
    assert state(core) is Circuit.HALF_OPEN


@pytest.mark.parametrize(("outcome", "circuit"), [(SUCCESS, Circuit.CLOSED), (FAILURE, Circuit.OPEN)])
def test_the_end_of_a_heard_probe_decides_as_ever(outcome: Outcome, circuit: Circuit) -> None:
    """It has given its place up, not its say."""
    core, probe = half_open(success_threshold=1)
    core.hear(probe)
    admitted(core, 101.0)
    core.settle(probe, outcome, 190.0)
    assert state(core) is circuit


def test_a_model_that_falls_silent_after_its_first_word_meets_few_callers() -> None:
    """As many heard probes as can close the circuit are without a place; further ones keep theirs."""
    core, first = half_open(half_open_probes=2, success_threshold=3)
    out = [first]
    for _ in range(50):
        core.hear(out[-1])
        answer = core.admit(101.0)
        if isinstance(answer, Permit):
            out.append(answer)
    assert len(out) == 5
    core.settle(out[0], IGNORED, 130.0)
    assert admitted(core, 130.0).probe


def test_a_place_is_freed_once() -> None:
    """Heard twice, then over, then heard once more: one probe's place, and no more."""
    core, probe = half_open()
    core.hear(probe)
    core.hear(probe)
    assert core.snapshot().probes_free == 1
    core.settle(probe, IGNORED, 101.0)
    core.hear(probe)
    assert core.snapshot().probes_free == 1
    admitted(core, 101.0)
    assert isinstance(core.admit(101.0), Refused)


def test_a_call_of_an_earlier_generation_frees_no_place_when_it_is_heard() -> None:
    """Neither one from before the circuit opened nor a probe of an earlier half-open time held one of these."""
    core = breaker(half_open_probes=2)
    before = admitted(core, 0.0)
    for _ in range(5):
        call(core, FAILURE, 0.0)
    earlier = admitted(core, 100.0)
    core.settle(admitted(core, 100.0), FAILURE, 100.0)
    for _ in range(2):
        admitted(core, 300.0)
    core.hear(before)
    core.hear(earlier)
    assert isinstance(core.admit(300.0), Refused)


def test_what_was_heard_before_the_circuit_opened_again_makes_no_room_in_the_next_half_open_time() -> None:
    """Each time begins with its own places, however many streams of the last one still go on."""
    core, stream = half_open()
    core.hear(stream)
    call(core, FAILURE, 100.0)
    admitted(core, 300.0)
    assert isinstance(core.admit(300.0), Refused)


def test_in_a_closed_circuit_a_first_content_changes_nothing() -> None:
    """There are no places."""
    core = breaker()
    permit = admitted(core, 0.0)
    before = core.snapshot()
    core.hear(permit)
    assert core.snapshot() == before


def test_heard_probes_that_end_without_a_verdict_leak_no_place() -> None:
    """However many streams their readers leave, as many probes may follow: the circuit never sticks half-open."""
    core, probe = half_open()
    for _ in range(50):
        core.hear(probe)
        follower = admitted(core, 101.0)
        core.settle(probe, IGNORED, 101.0)
        probe = follower
    core.settle(probe, IGNORED, 101.0)
    assert (core.snapshot().probes_free, core.snapshot().in_flight) == (1, 0)


# -- what others have suffered from


def test_a_cancelled_call_counts_as_a_failure_nowhere() -> None:
    """Callers that lose patience trip no circuit, by number or by rate, and open none again."""
    for core in (breaker(failure_threshold=1), breaker(failure_rate=0.1, minimum_calls=1)):
        for now in range(100):
            call(core, IGNORED, now)
        assert state(core) is Circuit.CLOSED
    core, probe = half_open()
    core.settle(probe, IGNORED, 101.0)
    assert (state(core), core.snapshot().trips) == (Circuit.HALF_OPEN, 1)


def test_a_cancelled_call_counts_as_a_success_nowhere() -> None:
    """It neither closes a circuit, even where one success would, nor dilutes a rate."""
    core, probe = half_open(success_threshold=1)
    core.settle(probe, IGNORED, 101.0)
    for _ in range(100):
        call(core, IGNORED, 102.0)
    assert state(core) is Circuit.HALF_OPEN
    core = breaker(failure_rate=0.5, minimum_calls=4)
    for _ in range(100):
        call(core, IGNORED, 0.0)
    for _ in range(4):
        assert state(core) is Circuit.CLOSED
        call(core, FAILURE, 0.0)
    assert state(core) is Circuit.OPEN


def test_a_rate_limited_probe_is_no_success() -> None:
    """A 429 says that the model is there, not that it answers; the next request probes."""
    core, probe = half_open(success_threshold=1)
    core.settle(probe, RateLimitError("slow down", model="a").verdict.breaker, 101.0)
    assert state(core) is Circuit.HALF_OPEN
    assert admitted(core, 101.0).probe


def test_neutral_outcomes_leak_no_half_open_place() -> None:
    """However many probes end without a verdict, as many may follow."""
    core, first = half_open(half_open_probes=3)
    out = [first, admitted(core, 100.0), admitted(core, 100.0)]
    for _ in range(50):
        core.settle(out.pop(0), IGNORED, 100.0)
        out.append(admitted(core, 100.0))
        assert isinstance(core.admit(100.0), Refused)


def test_a_model_that_answers_nothing_but_500_leaves_rotation() -> None:
    """Of 25 calls in a row that fail, the sixth and all after it are not made."""
    core, made = breaker(), 0
    for now in range(25):
        permit = core.admit(float(now))
        if isinstance(permit, Permit):
            made += 1
            core.settle(permit, FAILURE, float(now))
    assert made == 5


def test_fifty_callers_at_the_end_of_the_open_time_make_one_probe() -> None:
    """Whoever comes while it is out is refused, and told to come back."""
    core = tripped()
    due = core.snapshot().retry_at
    answers = [core.admit(due) for _ in range(50)]
    assert sum(isinstance(answer, Permit) for answer in answers) == 1
    assert core.snapshot().refused == 49


# -- calls without a permit


def test_recorded_outcomes_count_like_those_of_admitted_calls() -> None:
    """In a closed circuit, by number and by rate."""
    core = breaker()
    for _ in range(4):
        core.record(FAILURE, 0.0)
    call(core, FAILURE, 0.0)
    assert state(core) is Circuit.OPEN
    core = breaker(failure_rate=0.5, minimum_calls=4)
    for outcome in (SUCCESS, SUCCESS, FAILURE, FAILURE):
        assert state(core) is Circuit.CLOSED
        core.record(outcome, 0.0)
    assert state(core) is Circuit.OPEN


def test_a_recorded_outcome_teaches_an_open_circuit_nothing_before_it_is_due() -> None:
    """It is of a call that began before the circuit opened, or against its advice."""
    core = tripped()
    before = core.snapshot()
    core.record(SUCCESS, 20.0)
    core.record(FAILURE, 20.0)
    assert core.snapshot() == evolve(before, fenced=2)


@pytest.mark.parametrize(("outcome", "circuit"), [(SUCCESS, Circuit.CLOSED), (FAILURE, Circuit.OPEN)])
def test_a_recorded_outcome_is_a_probe_once_an_open_circuit_is_due(outcome: Outcome, circuit: Circuit) -> None:
    """Whoever uses no permits gets the circuit closed again, and opened for longer."""
    core = tripped()
    core.record(outcome, 30.0)
    core.record(outcome, 30.0)
    assert state(core) is circuit
    assert core.snapshot().opened == (1 if circuit is Circuit.CLOSED else 2)
    assert core.snapshot().in_flight == 0


@pytest.mark.parametrize("outcome", [SUCCESS, FAILURE])
def test_recorded_outcomes_decide_nothing_past_the_probes(outcome: Outcome) -> None:
    """While permits hold the place of every probe, those alone close or open the circuit."""
    core, probe = half_open()
    for _ in range(10):
        core.record(outcome, 101.0)
    assert state(core) is Circuit.HALF_OPEN
    assert core.snapshot().honours(probe)
    core.settle(probe, SUCCESS, 102.0)
    call(core, SUCCESS, 102.0)
    assert state(core) is Circuit.CLOSED


def test_recorded_outcomes_leak_no_probe() -> None:
    """They take no place: as many permits are to be had as before, and no more."""
    core = tripped(half_open_probes=2, success_threshold=10)
    for _ in range(5):
        core.record(SUCCESS, 30.0)
    first = admitted(core, 30.0)
    core.record(SUCCESS, 30.0)
    admitted(core, 30.0)
    assert isinstance(core.admit(30.0), Refused)
    core.settle(first, IGNORED, 30.0)
    assert core.snapshot().probes_free == 1


# -- fences


def test_what_began_before_the_circuit_opened_neither_closes_nor_reopens_it() -> None:
    """An outcome counts in its own generation only, and its permit is forgotten all the same."""
    core = breaker()
    old = [admitted(core, 0.0) for _ in range(4)]
    for _ in range(5):
        call(core, FAILURE, 0.0)
    probe = admitted(core, 50.0)
    retry_at = core.snapshot().retry_at
    for outcome, permit in zip((SUCCESS, SUCCESS, FAILURE, IGNORED), old, strict=True):
        core.settle(permit, outcome, 51.0)
    assert state(core) is Circuit.HALF_OPEN
    assert (core.snapshot().retry_at, core.snapshot().in_flight, core.snapshot().fenced) == (retry_at, 1, 4)
    core.settle(probe, SUCCESS, 52.0)
    assert state(core) is Circuit.HALF_OPEN


def test_a_probe_of_an_earlier_half_open_time_frees_no_place_in_this_one() -> None:
    """Each time has its own bound."""
    core, first = half_open(half_open_probes=2)
    core.settle(admitted(core, 100.0), FAILURE, 100.0)
    probes = [admitted(core, 300.0), admitted(core, 300.0)]
    core.settle(first, SUCCESS, 300.0)
    assert isinstance(core.admit(300.0), Refused)
    assert core.snapshot().in_flight == len(probes)


def test_an_outcome_counts_once() -> None:
    """Telling it again is no second failure."""
    core = breaker()
    permit = admitted(core, 0.0)
    for _ in range(5):
        core.settle(permit, FAILURE, 0.0)
    assert core.snapshot().failures == 1


def test_the_published_generation_tells_whether_a_permit_is_still_good() -> None:
    """A call that was about to begin when the circuit opened does not."""
    core = breaker()
    permit = admitted(core, 0.0)
    assert core.snapshot().honours(permit)
    for _ in range(5):
        call(core, FAILURE, 0.0)
    assert not core.snapshot().honours(permit)


def test_the_published_state_tells_whether_a_call_would_be_admitted() -> None:
    """Open: not before it is due. Half-open: while a probe is free. Closed: always."""
    core = tripped()
    due = core.snapshot().retry_at
    assert not core.snapshot().allows(due - 0.001)
    assert core.snapshot().allows(due)
    probe = admitted(core, due)
    assert not core.snapshot().allows(due + 1000)
    core.forget(probe)
    assert core.snapshot().allows(due)
    for _ in range(2):
        call(core, SUCCESS, due)
    assert core.snapshot().allows(0.0)


# -- restarts


def test_after_a_crash_a_closed_circuit_trips_on_its_first_failure() -> None:
    """What it had counted is lost, so one more may have been enough."""
    core = BreakerCore.restore(CONFIG, Random(1), breaker().snapshot(), 10.0)
    call(core, SUCCESS, 69.0)
    assert state(core) is Circuit.CLOSED
    call(core, FAILURE, 69.9)
    assert state(core) is Circuit.OPEN


def test_a_window_after_a_crash_one_failure_is_one_failure_again() -> None:
    """By then whatever was lost would not count any more."""
    core = BreakerCore.restore(CONFIG, Random(1), breaker().snapshot(), 10.0)
    call(core, FAILURE, 70.0)
    assert state(core) is Circuit.CLOSED


def test_after_a_recovery_a_crash_is_forgotten() -> None:
    """Whoever was probed and found well is trusted again."""
    core = BreakerCore.restore(CONFIG, Random(1), breaker().snapshot(), 0.0)
    call(core, FAILURE, 0.0)
    for _ in range(2):
        call(core, SUCCESS, 30.0)
    call(core, FAILURE, 31.0)
    assert state(core) is Circuit.CLOSED


def test_after_a_crash_an_open_circuit_stays_open_until_it_is_due() -> None:
    """The crash makes it neither shorter nor longer; the trips go on."""
    old = tripped()
    core = BreakerCore.restore(CONFIG, Random(1), old.snapshot(), 5.0)
    due = old.snapshot().retry_at
    assert core.admit(5.0) == Refused(due)
    call(core, FAILURE, due)
    assert core.snapshot().retry_at - due >= 48.0


def test_after_a_crash_a_half_open_circuit_probes_again() -> None:
    """Its probes are fenced, and a new one goes at once: no place is lost."""
    old, probe = half_open()
    core = BreakerCore.restore(CONFIG, Random(1), old.snapshot(), 101.0)
    core.settle(probe, FAILURE, 101.0)
    assert admitted(core, 101.0).probe
    assert isinstance(core.admit(101.0), Refused)
    assert not core.snapshot().honours(probe)


def test_a_restart_of_a_half_open_circuit_is_a_transition_of_the_table() -> None:
    """Until somebody asks again, it is open; and the probes that failed before count for how long it stays so."""
    old, probe = half_open()
    old.settle(probe, FAILURE, 100.0)
    admitted(old, 200.0)
    core = BreakerCore.restore(CONFIG, Random(1), old.snapshot(), 201.0)
    assert state(core) is TRANSITIONS[Circuit.HALF_OPEN][Turn.RESTARTED] is Circuit.OPEN
    call(core, FAILURE, 201.0)
    assert core.snapshot().retry_at >= 249.0
    assert core.snapshot().opened == 3


def test_fewer_places_than_probes_admit_nobody_else() -> None:
    """Until enough of them have ended: a new policy takes nobody's permit away."""
    core, probe = half_open(half_open_probes=3, success_threshold=3)
    others = [admitted(core, 100.0), admitted(core, 100.0)]
    core.reconfigure(BreakerConfig(half_open_probes=1, success_threshold=3))

    assert core.snapshot().probes_free == 0
    for permit in others:
        assert isinstance(core.admit(100.0), Refused)
        core.settle(permit, IGNORED, 100.0)
    core.settle(probe, SUCCESS, 100.0)
    assert admitted(core, 100.0).probe


def test_a_rate_is_measured_on_over_another_window() -> None:
    """What failed lately still counts: the fourth failure of four calls trips."""
    core = breaker(failure_rate=0.9, minimum_calls=4, window=60.0)
    for now in (30.0, 31.0, 32.0):
        call(core, FAILURE, now)
    core.reconfigure(BreakerConfig(failure_rate=0.9, minimum_calls=4, window=90.0))

    assert core.snapshot().failures == 3
    call(core, FAILURE, 33.0)
    assert state(core) is Circuit.OPEN


def of_a_rate(window: float, minimum_calls: int = 4, rate: float = 0.9) -> BreakerConfig:
    """Return the configuration of a breaker that measures a rate."""
    return BreakerConfig(failure_rate=rate, minimum_calls=minimum_calls, window=window)


@pytest.mark.parametrize(("now", "circuit"), [(680.0, Circuit.OPEN), (700.0, Circuit.CLOSED)])
def test_what_was_counted_before_another_window_leaves_it_in_time(now: float, circuit: Circuit) -> None:
    """Each call counts from the instant at which it ended, wherever the new slices begin."""
    core = BreakerCore(of_a_rate(60.0), Random(7))
    for instant in (600.0, 601.0, 602.0):
        call(core, FAILURE, instant)
    core.reconfigure(of_a_rate(90.0))
    call(core, FAILURE, now)
    assert state(core) is circuit


def test_slices_that_fall_into_one_of_a_longer_window_are_added_up() -> None:
    """Calls and failures of each: the tenth call of which five failed trips."""
    core = BreakerCore(of_a_rate(60.0, 10, 0.5), Random(7))
    for instant, outcome in ((600.0, SUCCESS), (600.0, SUCCESS), (600.0, FAILURE), (606.0, SUCCESS), (606.0, FAILURE)):
        call(core, outcome, instant)
    core.reconfigure(of_a_rate(600.0, 10, 0.5))
    for outcome in (FAILURE, SUCCESS, SUCCESS, FAILURE):
        call(core, outcome, 607.0)
    assert state(core) is Circuit.CLOSED
    call(core, FAILURE, 607.0)
    assert state(core) is Circuit.OPEN


def test_another_threshold_moves_no_call_out_of_its_slice() -> None:
    """The window stays, and what was counted leaves it when it would have: not a slice sooner, by rounding."""
    window = 7.0
    end = 3 * (window / 10)  # the fourth slice begins; 3 * 0.7 / 0.7 is a little less than 3
    core = BreakerCore(of_a_rate(window), Random(7))
    for _ in range(3):
        call(core, FAILURE, end + 0.01)
    core.reconfigure(of_a_rate(window, rate=0.8))
    call(core, FAILURE, end + window - 0.01)
    assert state(core) is Circuit.OPEN
