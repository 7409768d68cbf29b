"""The watch on the event loop's stalls against a list of what the loop did. Times are exact in binary."""

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.lag import LagWatch, excused

TICK = 1 / 64
THRESHOLD = 4 * TICK
TICKS = st.one_of(st.integers(0, 3), st.integers(4, 6), st.integers(7, 500)).map(lambda ticks: ticks * TICK)


@frozen
class Turn:
    """A batch, its part before a mark, and the wait after it: how long it took, and its timeout."""

    before: float
    after: float
    waited: float
    timeout: float

    @property
    def batch(self) -> float:
        """How long the batch took in all."""
        return self.before + self.after

    @property
    def late(self) -> float:
        """How late the wait was."""
        return self.waited - self.timeout


TURNS = st.lists(st.builds(Turn, TICKS, TICKS, TICKS, TICKS), min_size=1, max_size=20)


def stall(seconds: float) -> float:
    """Return what counts of a time in which the loop stood still."""
    return seconds if seconds > THRESHOLD else 0.0


@given(TURNS, st.data())
def test_it_sums_exactly_the_stalls(turns: list[Turn], data: st.DataObject) -> None:
    """In all; and from any mark on, up to what is too short to be a stall."""
    now = 0.0
    watch = LagWatch(threshold=THRESHOLD, clock=lambda: now)
    marked_in = data.draw(st.integers(0, len(turns) - 1))
    mark = 0.0
    watch.before_io_wait(0.0)
    watch.after_io_wait(0.0)
    for number, turn in enumerate(turns):
        now += turn.before
        if number == marked_in:
            mark = watch.mark()
            assert watch.since(mark) == 0.0
        now += turn.after
        watch.before_io_wait(turn.timeout)
        now += turn.waited
        watch.after_io_wait(turn.timeout)

    stalls = [seconds for turn in turns for seconds in (stall(turn.batch), stall(turn.late)) if seconds]
    assert (watch.stalled, watch.longest, watch.count) == (sum(stalls), max(stalls, default=0.0), len(stalls))
    first, *rest = turns[marked_in:]
    overlap = (first.after if stall(first.batch) else 0.0) + stall(first.late)
    overlap += sum(stall(turn.batch) + stall(turn.late) for turn in rest)
    assert overlap <= watch.since(mark) <= overlap + THRESHOLD


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_more_of_a_stall_excuses_more_and_a_longer_limit_less(
    stalled: float, more: float, limit: float, longer: float
) -> None:
    """And what lasted as long as its limit, and for a tenth of a second, is always excused."""
    if excused(stalled, limit):
        assert excused(stalled + more, limit)
    else:
        assert not excused(stalled, limit + longer)
    assert excused(max(0.1, limit), limit)
