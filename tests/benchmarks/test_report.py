"""What is made of results: files that can be read back, medians, and tables that hide nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.children import ROOT
from benchmarks.figure import Figure
from benchmarks.machine import Machine
from benchmarks.promises import Promise, promises
from benchmarks.report import BEGIN, END, generated, promised, with_figures
from benchmarks.results import Missing, Outcome, Results, Run, medians, read, written

MACHINE = Machine("a processor", 2, "CPython 3.11", "Linux on x86_64")
RESULTS = Results(
    MACHINE,
    rounds=3,
    versions={"httpx": "0.28"},
    outcomes=(
        Outcome("httpx_trio", "call", 400, p50_us=400.0, p99_us=900.0, cpu_us=350.0, rss_mib=30.0, per_s=2_500.0),
        Outcome("wizard", "call", 400, p50_us=600.0),
        Outcome("openai_sdk", "call", 400, p50_us=1_500.0),
    ),
    missing=(Missing("langchain", "call", "cannot be installed: no such | wheel"),),
    figures=(Figure("imports", "import", "s", 0.2, bound=0.35), Figure("micro", "decode", "us", 1.5)),
)


def test_results_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    """Nothing is lost on the way through the file."""
    file = tmp_path / "results.json"

    file.write_text(written(RESULTS), encoding="utf-8")

    assert written(read(file)) == written(RESULTS)
    assert generated(read(file)) == generated(RESULTS)


def test_an_outcome_is_the_median_of_the_rounds_at_the_usual_pace() -> None:
    """A round in which the machine was half as fast counts as if it had not been."""
    rounds = [
        Run("one", "call", 10, p50_us=100.0, per_s=10.0, calibration_s=1.0),
        Run("one", "call", 10, p50_us=220.0, per_s=5.0, calibration_s=2.0),
        Run("one", "call", 10, p50_us=90.0, per_s=11.0, calibration_s=1.0),
    ]

    [outcome] = medians(rounds)

    assert (outcome.p50_us, outcome.per_s, outcome.p99_us) == (100.0, 10.0, None)


def test_a_broken_promise_is_marked_as_missed() -> None:
    """With how far it was missed; one that is kept says what is to spare, one without a figure says so."""
    table = promised(
        [
            Promise("slow", 10.0, 15.0, "us"),
            Promise("quick", 10.0, 5.0, "us"),
            Promise("few", 8.0, 6.0, at_least=True),
            Promise("unknown", 10.0, None, "us"),
        ]
    )

    slow, quick, few, unknown = table.splitlines()[2:]
    assert slow == "| slow | at most 10.0 us | 15.0 us | **missed** by 50 % |"
    assert quick == "| quick | at most 10.0 us | 5 us | 50 % to spare |"
    assert few == "| few | at least 8 x | 6 x | **missed** by 25 % |"
    assert unknown == "| unknown | at most 10.0 us | not measured | |"


def test_an_aim_that_is_missed_is_told() -> None:
    """Though the promise itself is kept."""
    assert "| 95 % to spare, but the aim is missed |" in promised([Promise("added", 100.0, 5.0, "ms", aim=2.0)])


def test_the_ratios_are_those_of_one_run() -> None:
    """Each is made of two contenders in the same suite; without one of them there is none."""
    found = {each.what: each for each in promises(RESULTS)}

    beside_httpx = found["a whole call over httpx's transport, beside bare httpx"]
    assert (beside_httpx.measured, beside_httpx.kept) == (1.5, False)
    assert found["a whole call over httpx's transport, beside the openai SDK"].kept is True
    assert found["a whole call over httpx's transport, beside litellm's Router"].kept is None
    assert found["imports: import"].kept is True


def test_no_failure_and_no_figure_is_left_out() -> None:
    """What could not be measured stands in a table of its own, with its reason."""
    page = generated(RESULTS)

    assert "| `langchain` | call | cannot be installed: no such \\| wheel |" in page
    assert "| `wizard` | 600 | | | | | | 1.5 x |" in page
    assert "| decode | 1.5 us | | | |" in page
    assert "a processor, 2 cores; CPython 3.11, Linux on x86_64; the medians of 3 rounds" in page


def test_a_page_without_the_marks_is_refused() -> None:
    """Figures never land where nobody looks for them."""
    with pytest.raises(ValueError, match="has not the marks"):
        with_figures(f"text\n{BEGIN}", "figures")
    assert with_figures(f"a\n{BEGIN}old\n{END}z\n", "new") == f"a\n{BEGIN}\nnew\n{END}z\n"


def test_the_page_is_what_the_kept_results_make() -> None:
    """docs/performance.md shows docs/performance.json, and nothing that somebody wrote between the marks."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")

    assert page == with_figures(page, generated(read(ROOT / "docs" / "performance.json")))
