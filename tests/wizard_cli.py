"""The program `wizard`, run in this process or in one of its own, with nothing of the machine's that could answer.

wizard = Wizard(tmp_path, monkeypatch)
ran = wizard("ask", "--config", "wizard.toml", "Why?")
assert ran.status == 0
"""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from attrs import frozen

from wizard_actors import cli
from wizard_actors.cli_signals import Signals

PROGRAM = [sys.executable, "-m", "wizard_actors"]

SIMULATED = """
[[models]]
name = "pretender"
provider = "simulated"
[models.simulated]
answer = "All is well."
first_token = 0
per_chunk = 0
"""

TWO_MODELS = """
[[models]]
name = "first"
provider = "simulated"
retry = {{ max_attempts = 1 }}
[models.simulated]
answer = "This one breaks off."
first_token = 0
per_chunk = 0
script = [{{ fault = "{fault}", after_words = {after_words} }}]

[[models]]
name = "second"
provider = "simulated"
[models.simulated]
answer = "A whole answer."
first_token = 0
per_chunk = 0
"""


def two_models(fault: str = "error", *, after_words: int = 0, more: str = "") -> str:
    """Return a configuration whose first model meets `fault` once, and whose second one answers."""
    return more + TWO_MODELS.format(fault=fault, after_words=after_words)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without keys and settings."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith("WIZARD_") and "API_KEY" not in name
    }


@frozen
class Ran:
    """How one run of the program ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        """What it printed, decoded."""
        return msgspec.json.decode(self.out)

    @property
    def json_lines(self) -> list[Any]:
        """The objects that it printed, one a line."""
        return [msgspec.json.decode(line) for line in self.out.splitlines()]

    @property
    def json_error(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        """What it said on standard error, decoded."""
        return msgspec.json.decode(self.err)


class Wizard:
    """Runs commands in this process, in the folder `path`; its environment is empty of keys and settings."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.monkeypatch = monkeypatch
        monkeypatch.chdir(path)
        for name in os.environ.keys() - clean_environment().keys():
            monkeypatch.delenv(name)

    def config(self, text: str, name: str = "wizard.toml") -> Path:
        """Write a configuration file."""
        file = self.path / name
        file.write_text(text, encoding="utf-8")
        return file

    def __call__(self, *tokens: str, stdin: bytes | None = b"") -> Ran:
        """Run a command to its end; its streams are files, standard input perhaps closed."""
        files = [self.path / f".std{name}" for name in ("in", "out", "err")]
        files[0].write_bytes(stdin or b"")
        with open_streams(files) as streams, self.monkeypatch.context() as patch, logs_restored():
            for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
                patch.setattr(sys, name, None if stdin is None and name == "stdin" else stream)
            status = cli.run(list(tokens), Signals())
        out, err = (file.read_bytes().decode() for file in files[1:])
        return Ran(status, out, err)


@contextmanager
def open_streams(files: list[Path]) -> Iterator[list[Any]]:
    """Open the first file to be read, the others to be written."""
    with files[0].open() as given, files[1].open("w") as out, files[2].open("w") as err:
        yield [given, out, err]


@contextmanager
def logs_restored() -> Iterator[None]:
    """Put back what a command did to this process's logging."""
    root, package = logging.getLogger(), logging.getLogger("wizard_actors")
    before = (root.level, package.level, package.propagate, list(package.handlers))
    try:
        yield
    finally:
        root.level, package.level, package.propagate, package.handlers[:] = before
        for logger in (root, package):
            logger.setLevel(logger.level)  # forgets what was cached


async def start(
    *arguments: str | bytes,
    cwd: Path,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    env: Mapping[str, str] | None = None,
) -> trio.Process:
    """Start the program in a process of its own; standard output and error are pipes."""
    return await trio.lowlevel.open_process(
        [*PROGRAM, *arguments],
        cwd=cwd,
        env={**clean_environment(), **(env or {})},
        stdin=stdin,
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.PIPE,
    )
