"""Programs that tests start and watch: how they end, how soon, and what they say.

A program is text, in which a line that opens a client ends with `# here`. It may use what `PRELUDE` imports, and calls
`last()` as its last statement.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from typing import Self

from attrs import define, frozen

from tests.models import Scripted, Turn, model, says
from wizard_actors import WizardConfig
from wizard_actors.config import ServerConfig

__all__ = [
    "CONFIG",
    "FORGOTTEN",
    "PRELUDE",
    "SLOW",
    "Ended",
    "Program",
    "last",
    "quick",
    "run",
    "slow",
    "start",
    "upstream",
]

ROOT = Path(__file__).resolve().parents[2]
FORGOTTEN = "the client that was opened here was never closed: use it in a `with` block, or close it"

PRELUDE = """\
import asyncio, atexit, contextlib, functools, gc, multiprocessing, os, signal, sys, threading, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from tests.embed.programs import CONFIG, last, quick, slow, upstream
from wizard_actors import *
from wizard_actors.blocking import BlockingClient
"""

SLOW = 60.0


CONFIG = WizardConfig(models=[model("a")], server=ServerConfig(drain_timeout=1.0))


def quick() -> dict[str, Scripted]:
    """Return a model that answers at once."""
    return {"a": Scripted(says(*["word "] * 100))}


def slow(closing: float = 0.0) -> dict[str, Scripted]:
    """Return a model that says a word and no more; the line "asked" tells when it has been asked."""

    def asked(_seen: object) -> None:
        print("asked", flush=True)  # noqa: T201 - whoever watches the program reads it

    return {"a": Scripted(Turn(("word ", SLOW), closing=closing), on_open=asked)}


def upstream(models: dict[str, Scripted]) -> str:
    """Return what has become of the calls: how each was left, "open" where it was not."""
    calls = models["a"].calls
    return ",".join(("open" if not call.closed else getattr(call.left_with, "__name__", "done")) for call in calls)


def last() -> None:
    """Say that the program is at its last line."""
    print("last", time.monotonic(), flush=True)  # noqa: T201 - whoever watches the program reads it


@frozen
class Ended:
    """How a program ended; `seconds` from its last line to its end, `here` the lines that open clients."""

    code: int
    out: list[str]
    err: str
    seconds: float
    path: Path
    here: list[int]

    def warned(self) -> str:
        """Return what is to stand on stderr where each client was forgotten."""
        lines = self.path.read_text().splitlines()
        return "".join(
            f"{self.path}:{number}: RuntimeWarning: {FORGOTTEN}\n  {lines[number - 1].strip()}\n"
            for number in self.here
        )


@define
class Program:
    """A program that runs."""

    process: subprocess.Popen[str]
    path: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        with self.process:
            pass  # closes its pipes

    def line(self) -> str:
        """Return its next line, once it has written that."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self, seconds: float = 15.0) -> Ended:
        """Wait for its end, and return how that was."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"it has not ended after {seconds} s: {out} {err}") from None
        at_end = time.monotonic()
        lines = out.splitlines()
        said = [line.split()[1] for line in lines if line.startswith("last ")]
        here = [number for number, line in enumerate(self.path.read_text().splitlines(), 1) if line.endswith("# here")]
        rest = [line for line in lines if not line.startswith("last ")]
        since = at_end - float(said[-1]) if said else 0.0
        return Ended(self.process.returncode, rest, err, since, self.path, here)


def start(folder: Path, text: str, *, options: Sequence[str] = ("-W", "default")) -> Program:
    """Start the program `text`, with the interpreter's `options`."""
    path = folder / "program.py"
    path.write_text(PRELUDE + dedent(text))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *options, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    )
    return Program(process, path)


def run(folder: Path, text: str, *, options: Sequence[str] = ("-W", "default")) -> Ended:
    """Run the program `text` to its end, and return how that was; where it took long, the quickest of three runs: the
    machine may be busy.
    """
    best: Ended | None = None
    for _ in range(3):
        with start(folder, text, options=options) as program:
            ended = program.ended()
        best = ended if best is None else min(best, ended, key=lambda each: each.seconds)
        if best.seconds < 1.0:
            break
    assert best is not None
    return best
