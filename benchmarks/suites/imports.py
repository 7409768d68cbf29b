"""What it takes to import the package: time, memory, and which modules take the most of it."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from attrs import frozen

from benchmarks.figure import Figure
from benchmarks.suites._children import MIB, ROOT, child
from benchmarks.suites._measure import MICRO

__all__ = ["Size", "figures", "heaviest"]

HEAVIEST: Final = 10
SECONDS: Final = 0.35
RSS: Final = 40e6 / MIB
"""What importing may take; the memory in MiB."""
TIMED: Final = """
import json, os, time
began, spent = time.perf_counter(), time.process_time()
{statement}
took, cpu = time.perf_counter() - began, time.process_time() - spent
with open("/proc/self/statm") as file:
    pages = int(file.read().split()[1])
print(json.dumps(dict(took=took, cpu=cpu, rss=pages * os.sysconf("SC_PAGE_SIZE") / 2**20)))
"""
"""Imports nothing of ours to measure with."""
CLIENT: Final = "from wizard_actors import ResilientClient, WizardConfig"
"""What programs import. The package itself imports nothing before it is asked for something."""
STATEMENTS: Final = ("import trio, httpx", "import wizard_actors", CLIENT)
LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|(\s+)(\S+)")


@frozen
class Size:
    """How much is measured: so many `rounds`."""

    rounds: int = 9


def heaviest(trace: str) -> list[tuple[str, float]]:
    """Return the modules that took longest by themselves, and their milliseconds, from what `-X importtime` says."""
    own = [(found[4], int(found[1]) / 1_000) for found in map(LINE.match, trace.splitlines()) if found]
    return sorted(own, key=lambda each: each[1], reverse=True)[:HEAVIEST]


def _traced() -> str:
    # Compiled once, as everywhere but here: an environment may forbid to keep what was compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-X", "importtime", "-c", CLIENT]
    said = ""
    for _ in range(2):
        ran = subprocess.run(  # noqa: S603 - our own program
            command, cwd=ROOT, env=environment, check=True, stderr=subprocess.PIPE, text=True
        )
        said = ran.stderr
    return said


def figures(size: Size | None = None) -> Iterator[Figure]:
    """Measure imports, and yield the figures."""
    size = size or Size()
    trace = _traced()
    rounds = [{each: child(["-c", TIMED.format(statement=each)]) for each in STATEMENTS} for _ in range(size.rounds)]
    for name in STATEMENTS:
        took, cpu, rss = (statistics.median(each[name][key] for each in rounds) for key in ("took", "cpu", "rss"))
        seconds, mib = (None, None) if name != CLIENT else (SECONDS, RSS)
        yield Figure(
            suite="imports", name=name, unit="s", value=took, cpu=cpu * MICRO, bound=seconds, calls=size.rounds
        )
        yield Figure(suite="imports", name=f"memory after {name}", unit="MiB", value=rss, rss=rss, bound=mib)
    for module, milliseconds in heaviest(trace):
        yield Figure(suite="imports", name=f"{module} itself", unit="ms", value=milliseconds)
