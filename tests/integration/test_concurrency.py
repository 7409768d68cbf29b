"""Many calls at once, again and again: nothing is lost, nothing leaks."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROUNDS, CALLS = 10, 1000


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_ten_rounds_of_a_thousand_calls_are_answered_and_leave_nothing(report_line: Callable[[str], None]) -> None:
    """All are answered, memory does not grow from round 2 to 10, no task and no unclosed socket is left."""
    script = Path(__file__).with_name("rounds.py")
    command = [sys.executable, "-W", "error", "-X", "dev", str(script), str(ROUNDS), str(CALLS)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    *rounds, last = done.stdout.splitlines()
    for line in rounds:
        report_line(line)
    memory = [float(found[1]) for line in rounds if (found := re.search(r"rss ([\d.]+) MB", line))]
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [f"answered {CALLS} of {CALLS}" in line for line in rounds] == [True] * ROUNDS
    assert last == "tasks left 0"
    assert memory[-1] - memory[1] <= 5, memory
