"""Child processes that cannot outlive the run: each has a time limit, and takes its own children with it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "ChildError", "output"]

ROOT: Final = Path(__file__).resolve().parent.parent


class ChildError(Exception):
    """Raised when a child process fails or takes too long; the message is the reason, in a line."""


def output(command: Sequence[str | Path], *, limit: float) -> str:
    """Run a command in the project's folder, and return its standard output. Python keeps what it compiles there, as it
    does for those who use it, even where this environment forbids it: else an import would be a compilation.

    Raises `ChildError` where it cannot be started, ends with another status than 0, or takes more than `limit` seconds.
    However this is left, by Ctrl-C too, the command and all that it has started end first.
    """
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    try:
        process = subprocess.Popen(  # noqa: S603 - a program of ours, or pip
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        raise ChildError(f"cannot be started: {error}") from error
    with process:
        try:
            said, complained = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise ChildError(f"took more than {limit:g} s") from None
        finally:
            _end(process)
    if process.returncode:
        raise ChildError(_last_line(complained) or f"ended with status {process.returncode} and said nothing")
    return said


def _end(process: subprocess.Popen[str]) -> None:
    """Kill what is left of a process's group, also of one that has ended: it may have left children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
