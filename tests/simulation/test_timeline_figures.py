"""The arithmetic of a timeline: its buckets and ticks, and what is short, often or long."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from wizard_actors import WizardConfig
from wizard_actors.testing import FaultWindow, Scenario
from wizard_actors.testing.simulation.records import (
    CircuitChange,
    ModelSample,
    Sample,
)
from wizard_actors.testing.simulation.scenario import Kill
from wizard_actors.testing.simulation.timeline_figures import (
    Axis,
    circuit_spans,
    fault_spans,
    kill_instants,
    latency_ticks,
    quantile,
    queues,
    runs,
    share_text,
    time_text,
    time_ticks,
    value_ticks,
)
from wizard_actors.testing.simulation.timeline_lanes import Plot
from wizard_actors.testing.simulation.timeline_marks import shortened, spread, text_width, wrapped
from wizard_actors.testing.simulation.timeline_strips import happenings

WEEK = 7 * 86_400.0


def a_config(models: Sequence[str] = ("primary", "backup")) -> WizardConfig:
    """Return a configuration of models."""
    tables = "".join(
        f'[[models]]\nname = "{name}"\nprovider = "openai"\nbase_url = "http://h{index}/v1"\n'
        for index, name in enumerate(models)
    )
    return WizardConfig.from_toml(tables, env={})


def a_sample(at: float, models: Sequence[str], waiting: int = 0, paused: float = 0.0) -> Sample:
    """Return how every model stood at an instant."""
    seen = ModelSample(circuit="closed", slots_in_use=1, waiting=0, limiter_waiting=waiting, paused_for=paused)
    return Sample(at, 1, 10.0, dict.fromkeys(models, seen))


def test_many_windows_of_a_fault_have_one_label() -> None:
    """A fault that comes and goes has one row and one label, and faults beyond eight share a row."""
    plot = Plot(Axis(1.0, 100))
    flapping = Scenario(config=a_config(), faults=[FaultWindow(kind="error", models=["primary"], lasts=1.0, every=2.5)])
    many = Scenario(config=a_config(), faults=[FaultWindow(kind="error", share=index / 30) for index in range(1, 30)])
    assert [each.label for each in happenings(flapping, plot)] == ["error: primary"]
    assert [each.label for each in happenings(many, plot)][-1] == "and 22 others"
    assert len(happenings(many, plot)) == 8


def test_a_note_of_kills_has_room() -> None:
    """How often an actor is killed is noted; since when is to be seen beside it, and told to whoever points at it."""
    kills = [Kill(actor="router", at=760.0, every=260.0, times=10), Kill(actor="cache", at=5.0)]
    rows = happenings(Scenario(config=a_config(), duration=3600.0, kills=kills), Plot(Axis(60.0, 60)))
    assert [each.when for each in rows] == ["10x every 4 min 20 s", "at 5 s"]
    assert rows[0].told == "kill: router: 10x every 4 min 20 s, from 12 min 40 s"


def test_fault_windows_are_bounded_and_exact() -> None:
    """Windows are as the scenario says up to the end; those too close together to be seen apart are one."""
    fault = FaultWindow(kind="error", start=10.0, lasts=5.0, every=20.0, until=52.0)
    assert fault_spans(fault, 100.0, 0.5) == [(10.0, 15.0), (30.0, 35.0), (50.0, 52.0)]
    assert fault_spans(FaultWindow(kind="error", start=1.0), 100.0, 0.5) == [(1.0, 100.0)]
    assert fault_spans(FaultWindow(kind="error", start=200.0), 100.0, 0.5) == []
    often = FaultWindow(kind="error", start=1.0, lasts=0.001, every=0.002)
    assert fault_spans(often, WEEK, 1.0) == [(1.0, WEEK)]
    assert kill_instants(Kill(actor="*", at=3.0, every=4.0, times=3), 100.0, 1.0) == [3.0, 7.0, 11.0]
    assert kill_instants(Kill(actor="*", at=3.0, times=3), 100.0, 1.0) == [3.0]
    assert len(kill_instants(Kill(actor="*", at=0.0, every=0.001, times=10**9), 100.0, 1.0)) == 101


def test_what_is_short_is_seen_in_its_column() -> None:
    """A span has at least a column, neighbours are one, and what is outside is not drawn."""
    assert runs([(0.0, 0.001), (5.0, 5.0), (6.0, 7.5), (99.9, 200.0), (100.0, 101.0)], 100.0, 100) == [
        (0, 0),
        (5, 7),
        (99, 99),
    ]


def test_a_circuit_is_closed_until_it_changes() -> None:
    """The states of a circuit cover the whole time."""
    changes = [CircuitChange(3.0, "m", "open"), CircuitChange(8.0, "m", "half_open"), CircuitChange(9.0, "m", "closed")]
    assert circuit_spans(changes, 20.0) == {
        "closed": [(0.0, 3.0), (9.0, 20.0)],
        "open": [(3.0, 8.0)],
        "half_open": [(8.0, 9.0)],
    }


def test_a_queue_lasts_until_it_is_looked_at_again() -> None:
    """Between two looks a queue is as long as at the first of them."""
    samples = [
        a_sample(0.0, ["m"]),
        a_sample(2.0, ["m"], waiting=4),
        a_sample(4.0, ["m"], waiting=1),
        a_sample(5.0, ["m"]),
    ]
    assert queues(samples, "m", Axis(1.0, 8)) == [0, 0, 4, 4, 1, 0, 0, 0]


@pytest.mark.parametrize("end", [0.001, 0.5, 1.0, 7.3, 60.0, 61.0, 119.0, 600.0, 4000.0, 86_400.0, WEEK, 100 * WEEK])
def test_ticks_are_few_and_evenly_apart(end: float) -> None:
    """A time has three to eleven ticks, each with a name of its own."""
    ticks = time_ticks(end)
    assert 3 <= len(ticks) <= 11
    assert len({name for _, name in ticks}) == len(ticks)
    assert len({round((b - a) / end, 6) for (a, _), (b, _) in pairwise(ticks)}) == 1
    assert ticks[-1][0] <= end * (1 + 1e-6)


@pytest.mark.parametrize("highest", [0.0, 0.003, 0.7, 1.0, 3.9, 12.0, 999.0, 12_345.0])
def test_scales_hold_their_highest_value(highest: float) -> None:
    """A lane is never lower than its highest bar, nor much higher; one of latencies holds its lowest value too."""
    ticks = value_ticks(highest)
    assert 2 <= len(ticks) <= 6
    assert highest <= ticks[-1] * (1 + 1e-9)
    for lowest in (highest / 1000, highest):
        places, _ = latency_ticks(lowest, highest)
        assert places[0] <= max(lowest, 0.001)
        assert places[-1] >= highest * (1 - 1e-9)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.0205, "20.5 ms"),
        (0.9999, "1 s"),
        (1.5, "1.5 s"),
        (59.96, "1 min"),
        (90.0, "1 min 30 s"),
        (3600.0, "1 h"),
        (5400.0, "1 h 30 min"),
        (WEEK, "7 d"),
        (-300.0, "-5 min"),
    ],
)
def test_times_are_written_as_people_write_them(seconds: float, text: str) -> None:
    """Times have their two highest units."""
    assert time_text(seconds) == text


def test_shares_are_not_rounded_up_to_all() -> None:
    """One failure in 100,000 is no 100 %."""
    assert [share_text(share) for share in (None, 0.0, 0.5, 0.99999, 1.0)] == [
        "-",
        "0.00 %",
        "50.00 %",
        "99.99 %",
        "100.00 %",
    ]


def test_quantiles_are_values_that_occurred() -> None:
    """The nearest rank: the least value that so many do not exceed."""
    assert [quantile([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.5, 0.51, 0.99)] == [1.0, 2.0, 3.0, 4.0]
    assert quantile([], 0.5) is None


def test_lines_have_whole_words() -> None:
    """What does not fit into the last line is left out after a word; a word longer than a line loses its middle."""
    lines = wrapped("one two three four five six seven eight nine ten", 80, 11, 2)
    assert " ".join(lines) == "one two three four \N{HORIZONTAL ELLIPSIS}"
    assert wrapped("one two", 80, 11, 2) == ["one two"]
    assert all(text_width(line, 11, bold=True) <= 80 for line in wrapped("x" * 90 + " y", 80, 11, 1, bold=True))


def test_labels_keep_their_distance() -> None:
    """Labels are spread in their order, near where they are wanted."""
    assert spread([5.0, 5.0, 90.0], 10.0, 0.0, 100.0) == [5.0, 15.0, 90.0]
    assert spread([99.0, 99.0], 10.0, 0.0, 100.0) == [90.0, 100.0]


@pytest.mark.parametrize(
    "text", ["short", "a-very-long-name-of-a-model-in-a-region-far-away", "\u6a21\u578b" * 60, "x" * 10**5]
)
def test_shortened_texts_fit(text: str) -> None:
    """A text is as wide as its room at most, and keeps both of its ends."""
    kept = shortened(text, 100, 11)
    assert text_width(kept, 11) <= 100
    assert (kept[0], kept[-1]) == (text[0], text[-1])
