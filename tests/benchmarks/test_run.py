"""A run of the benchmarks: every contender has its result or its reason, and nothing outlives its time."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks.children import ROOT, ChildError, output
from benchmarks.environments import python_of
from benchmarks.results import Missing
from benchmarks.run import CONTENDERS, SUITES, Race, command
from benchmarks.suites.__main__ import names


def says(text: str) -> list[str]:
    """Return a command that prints a text."""
    return [sys.executable, "-S", "-c", f"print({text!r})"]


def test_a_contender_s_result_is_kept() -> None:
    """What it printed last is its result, under the name of its script."""
    race = Race()

    race.run(
        "one", "call", says(json.dumps({"contender": "?", "suite": "?", "calls": 3, "p50_us": 7.5, "p99_us": None}))
    )

    [run] = race.runs
    assert (run.contender, run.suite, run.p50_us, run.p99_us) == ("one", "call", 7.5, None)
    assert race.missing == []


def test_a_contender_that_fails_is_told_with_its_last_words(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason stands in the results and is printed at once, and it is not tried again."""
    race = Race()

    race.run("one", "call", [sys.executable, "-S", "-c", "import sys; sys.exit('not available: no such key')"])

    assert race.missing == [Missing("one", "call", "not available: no such key")]
    assert race.failed("one", "call")
    assert not race.failed("one", "stream")
    assert "failed: not available: no such key" in capsys.readouterr().out


@pytest.mark.parametrize("printed", ["", "no JSON", "[]", '{"calls": 3}'])
def test_a_contender_that_prints_no_result_is_told(printed: str) -> None:
    """What cannot be read is a failure, and none of the run."""
    race = Race()

    race.run("one", "call", says(printed))

    assert race.runs == []
    assert [each.reason.startswith("printed no result") for each in race.missing] == [True]


def test_a_contender_that_hangs_ends_with_its_children(tmp_path: Path) -> None:
    """After its time it is killed, and so is what it has started."""
    race, beats = Race(), tmp_path / "beats"
    child = f"import time\nwhile True:\n  open({str(beats)!r}, 'a').write('.')\n  time.sleep(0.01)"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-S', '-c', {child!r}]); time.sleep(60)"

    race.run("one", "call", [sys.executable, "-S", "-c", parent], limit=0.3)

    assert race.missing == [Missing("one", "call", "took more than 0.3 s")]
    before = beats.stat().st_size if beats.exists() else 0
    time.sleep(0.05)
    assert (beats.stat().st_size if beats.exists() else 0) == before


def test_a_command_that_does_not_exist_is_a_reason() -> None:
    """An environment that lost its interpreter is told like every failure."""
    with pytest.raises(ChildError, match="cannot be started"):
        output(["/nowhere/python"], limit=1)


def test_an_environment_that_was_never_made_says_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one that was made for other pins."""
    monkeypatch.setattr("benchmarks.environments.PINS", tmp_path)
    monkeypatch.setattr("benchmarks.environments.PLACE", tmp_path)
    (tmp_path / "some.txt").write_text("some==2\n", encoding="utf-8")

    with pytest.raises(ChildError, match="make bench-peers"):
        python_of("some")
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "installed.txt").write_text("some==1\n", encoding="utf-8")
    with pytest.raises(ChildError, match="make bench-peers"):
        python_of("some")


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda each: each.name)
def test_every_contender_is_there(contender: object) -> None:
    """Its script exists, and its pins, and it has only suites that there are."""
    [each] = [one for one in CONTENDERS if one is contender]

    assert Path(command("python", each.name, each.suites[0], "http://u")[1]).is_file()
    assert set(each.suites) <= set(SUITES)
    assert each.environment is None or (ROOT / "benchmarks" / "peers" / f"{each.environment}.txt").is_file()


def test_no_suite_of_figures_has_the_name_of_a_suite_of_contenders() -> None:
    """`--only` names both."""
    assert names()
    assert not set(names()) & set(SUITES)
