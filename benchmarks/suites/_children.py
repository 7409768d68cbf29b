"""Measuring in processes of their own, so that one thing's memory is not another's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["MIB", "ROOT", "child", "found", "rss"]

ROOT: Final = Path(__file__).resolve().parents[2]
MIB: Final = 2**20


def rss() -> float:
    """Return the memory that this process has now, in MiB. Linux alone tells."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def found(figures: dict[str, float]) -> None:
    """Tell the parent process what was found."""
    sys.stdout.write(json.dumps(figures) + "\n")


def child(arguments: Sequence[str]) -> dict[str, float]:
    """Run Python with these arguments, and return what it has found. Raises `CalledProcessError` where it fails."""
    ran = subprocess.run(  # noqa: S603 - our own programs
        [sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    told: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return told
