"""The benchmark of stored sessions, with small numbers: it runs, and its figures are of what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sessions import Figures, Size, measure, report


async def test_the_benchmark_measures_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each figure has been taken, as often as asked for, and is printed with its bound."""
    size = Size(sessions=20, turns=3, rounds=5, tasks=4, seconds=0.1)

    found: Figures = await measure(tmp_path, size)
    report(size, found)

    assert (len(found.lists), len(found.loads)) == (5, 5)
    assert min(*found.lists, *found.loads, *found.loads_beside_turns, found.turns_a_second, found.filling) > 0
    assert found.turns_beside_loads > 0
    printed = capsys.readouterr().out
    assert "20 sessions of 3 turns" in printed
    assert [bound in printed for bound in ("bound 20 ms", "bound 5 ms", "bound 1,000")] == [True] * 3
