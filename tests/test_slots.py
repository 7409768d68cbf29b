"""The bulkhead's core, case by case. Times are seconds from an arbitrary start."""

import math

import pytest

from wizard_actors.slots import Health, Slot, SlotCore
from wizard_actors.verdict import Outcome
from wizard_actors.waiting import Rejected, Waiting

NEVER = math.inf


def taken(core: SlotCore[int], key: int, now: float = 0.0) -> Slot:
    """Return the slot that must be had at once."""
    slot = core.take(key, f"request {key}", now, NEVER)
    assert isinstance(slot, Slot)
    return slot


def wait(core: SlotCore[int], key: int, give_up_at: float = NEVER) -> None:
    """Ask for a slot that has to be waited for."""
    assert core.take(key, f"request {key}", 0.0, give_up_at) == Waiting()


def granted(core: SlotCore[int], now: float) -> list[int]:
    """Return who gets a slot at `now`."""
    return [key for key, _ in core.tick(now).granted]


def test_a_slot_that_comes_back_goes_to_whoever_has_waited_longest() -> None:
    """Order of arrival counts, and a newcomer waits behind those who wait, even when a slot is free already."""
    core: SlotCore[int] = SlotCore(1, 10)
    slot = taken(core, 1)
    wait(core, 2)
    wait(core, 3)
    core.release(slot, 5.0)
    assert core.wake_at() == 5.0
    assert core.take(4, "request 4", 5.0, NEVER) == Waiting()
    assert granted(core, 5.0) == [2]
    assert core.wake_at() == NEVER


def test_a_slot_says_who_is_in_it_and_since_when() -> None:
    """What runs can be looked at, the longest first."""
    core: SlotCore[int] = SlotCore(2, 10)
    taken(core, 1, 3.0)
    second = taken(core, 2, 4.0)
    wait(core, 3)
    core.release(second, 6.0)
    core.tick(6.0)
    assert [(slot.request_id, slot.since) for slot in core.in_flight] == [("request 1", 3.0), ("request 3", 6.0)]


def test_a_slot_comes_back_once() -> None:
    """Giving it back again frees no second place."""
    core: SlotCore[int] = SlotCore(1, 10)
    slot = taken(core, 1)
    core.release(slot, 1.0)
    taken(core, 2)
    core.release(slot, 2.0)
    assert core.snapshot().in_use == 1


def test_whoever_leaves_costs_nothing() -> None:
    """The next one moves up."""
    core: SlotCore[int] = SlotCore(1, 10)
    slot = taken(core, 1)
    wait(core, 2)
    wait(core, 3)
    core.forget(2)
    core.release(slot, 1.0)
    assert granted(core, 1.0) == [3]


def test_whoever_gives_up_is_told_at_that_instant() -> None:
    """Wherever it stands; a slot that is free at that very instant is taken."""
    core: SlotCore[int] = SlotCore(1, 10)
    slot = taken(core, 1)
    wait(core, 2)
    wait(core, 3, 5.0)
    wait(core, 4, 6.0)
    assert core.wake_at() == 5.0
    assert core.tick(5.0).rejected == (3,)
    core.forget(2)
    core.release(slot, 6.0)
    assert granted(core, 6.0) == [4]


def test_a_late_tick_passes_over_whoever_has_given_up() -> None:
    """A slot is not wasted on a caller that is gone."""
    core: SlotCore[int] = SlotCore(1, 10)
    slot = taken(core, 1)
    wait(core, 2, 5.0)
    wait(core, 3)
    core.release(slot, 9.0)
    answers = core.tick(9.0)
    assert (answers.rejected, answers.rejection) == ((2,), Rejected())
    assert [key for key, _ in answers.granted] == [3]


def test_nobody_waits_without_patience_or_room() -> None:
    """Both are rejections at once, and counted."""
    core: SlotCore[int] = SlotCore(1, 1)
    taken(core, 1)
    assert core.take(2, "request 2", 0.0, 0.0) == Rejected()
    wait(core, 3)
    assert core.full
    assert core.take(4, "request 4", 0.0, NEVER) == Rejected()
    assert core.snapshot().rejected == 2


def test_who_gave_up_waiting_is_counted_as_rejected() -> None:
    """One after the other, or several at once."""
    core: SlotCore[int] = SlotCore(1, 10)
    taken(core, 1)
    for key, give_up_at in ((2, 5.0), (3, 6.0), (4, 6.0)):
        wait(core, key, give_up_at)
    core.tick(5.0)
    assert core.snapshot().rejected == 1
    core.tick(6.0)
    assert core.snapshot().rejected == 3


def test_it_wakes_at_the_instant_at_which_a_slot_came_back() -> None:
    """Slots that came back, or were added, while nobody waited are no reason to wake earlier."""
    core: SlotCore[int] = SlotCore(1, 10)
    core.release(taken(core, 1), 1.0)
    core.reconfigure(2, 2.0)
    slots = [taken(core, 2, 3.0), taken(core, 3, 3.0)]
    wait(core, 4)
    core.reconfigure(1, 4.0)
    core.reconfigure(2, 5.0)
    assert core.wake_at() == NEVER
    core.release(slots[0], 9.0)
    assert core.wake_at() == 9.0


def test_a_new_incarnation_adopts_the_live_slots() -> None:
    """With more of them than there are places now, nobody gets one until enough came back."""
    old: SlotCore[int] = SlotCore(3, 10)
    live = [taken(old, key) for key in range(3)]
    core = SlotCore[int].restore(2, 10, live, old.snapshot())
    wait(core, 9)
    core.forget(7)  # who waited before the crash has been told
    core.release(live[0], 1.0)
    assert granted(core, 1.0) == []
    core.release(live[1], 2.0)
    assert granted(core, 2.0) == [9]
    assert (core.snapshot().granted, core.snapshot().slots) == (4, 2)


def test_health_remembers_the_last_of_each_and_counts() -> None:
    """Also over a restart; an earlier instant told later does not count as the last."""
    old: SlotCore[int] = SlotCore(1, 1)
    old.first_token(0.5, 7.0)
    old.first_token(1.5, 5.0)
    old.ended(Outcome.SUCCESS, 8.0)
    old.ended(Outcome.FAILURE, 9.0)
    old.ended(Outcome.IGNORED, 10.0)
    core = SlotCore[int].restore(1, 1, [], old.snapshot())
    assert core.snapshot().health == Health(
        first_token_at=7.0, first_tokens=(0.5, 1.5), success_at=8.0, failure_at=9.0, succeeded=1, failed=1, ignored=1
    )


def typical_after(*answers: int) -> int | None:
    """Return what is typical after answers of these lengths."""
    core: SlotCore[int] = SlotCore(1, 1)
    for tokens in answers:
        core.ended(Outcome.SUCCESS, 1.0, tokens)
    return core.snapshot().health.typical_output


def test_no_single_answer_makes_a_model_one_of_long_answers() -> None:
    """Whether it was the first or a later one; absurd lengths too."""
    assert typical_after(10**400) == 1_024
    assert typical_after(60_000, *[100] * 20) == pytest.approx(212, abs=3)
    assert typical_after(*[100] * 20, 10**9) == pytest.approx(192, abs=3)
    assert typical_after(*[2_000] * 60, 10**9) == pytest.approx(2_600, abs=20)


def test_what_is_typical_follows_the_answers() -> None:
    """Short ones at once, long ones after a dozen."""
    assert typical_after() is None
    assert typical_after(40) == 40
    assert typical_after(*[8_000] * 25) == pytest.approx(8_000, rel=0.15)


def test_the_slowest_of_the_newest_first_tokens_is_known() -> None:
    """Of sixteen: one that was slow long ago is forgotten."""
    core: SlotCore[int] = SlotCore(1, 1)
    assert core.snapshot().health.slowest_first_token == 0.0
    core.first_token(9.0, 0.0)
    for now in range(1, 16):
        core.first_token(1.0, now)
    assert core.snapshot().health.slowest_first_token == 9.0
    core.first_token(1.0, 16.0)
    assert core.snapshot().health.slowest_first_token == 1.0


def test_a_model_is_silent_once_nobody_who_asks_has_heard_from_it_for_ten_seconds() -> None:
    """Whoever asks next does not begin the time anew, and a first token ends it."""
    core: SlotCore[int] = SlotCore(9, 1)
    assert core.snapshot().health.silent_for(1000.0) == 0.0
    taken(core, 1, 5.0)
    taken(core, 2, 12.0)
    health = core.snapshot().health
    assert health.silent_for(15.0) == 10.0
    assert not health.silent(15.0)
    assert health.silent(15.1)
    core.first_token(11.0, 16.0)
    assert core.snapshot().health.silent_for(1000.0) == 0.0
    taken(core, 3, 1000.0)
    assert core.snapshot().health.silent_for(1003.0) == 3.0


def test_a_model_whose_first_tokens_are_slow_is_silent_later() -> None:
    """It must have said nothing for longer than the slowest of them took."""
    core: SlotCore[int] = SlotCore(9, 1)
    core.first_token(30.0, 0.0)
    taken(core, 1, 1.0)
    assert not core.snapshot().health.silent(31.0)
    assert core.snapshot().health.silent(31.1)


def test_who_asks_at_the_instant_of_a_first_token_begins_no_silence() -> None:
    """It may have asked before the token came; the next one who asks begins one."""
    core: SlotCore[int] = SlotCore(9, 1)
    core.first_token(1.0, 7.0)
    taken(core, 1, 7.0)
    assert core.snapshot().health.silent_for(9.0) == 0.0
    taken(core, 2, 9.0)
    assert core.snapshot().health.silent_for(10.0) == 1.0
