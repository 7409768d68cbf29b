"""The peers' environments: one in `build/peers/NAME` for each `benchmarks/peers/NAME.txt`, made once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from benchmarks.children import ROOT, ChildError, output

__all__ = ["installed", "python_of"]

PINS: Final = ROOT / "benchmarks" / "peers"
PLACE: Final = ROOT / "build" / "peers"
LIMIT: Final = 900.0
"""Seconds that making one may take."""


def python_of(name: str) -> Path:
    """Return the interpreter of an environment. Raises `ChildError` where it has not been made for these pins."""
    pins = _pins(name)
    stamp = PLACE / name / "installed.txt"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != pins:
        raise ChildError("is not installed: `make bench-peers` does that")
    return PLACE / name / "bin" / "python"


def installed(name: str) -> Path:
    """Make an environment where it is missing or was made for other pins, and return its interpreter.

    Raises `ChildError` where that fails.
    """
    try:
        return python_of(name)
    except ChildError:
        pins = _pins(name)
    folder = PLACE / name
    output([sys.executable, "-m", "venv", "--clear", folder], limit=LIMIT)
    python = folder / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    try:
        output([*pip, "--requirement", PINS / f"{name}.txt"], limit=LIMIT)
    except ChildError as error:
        raise ChildError(f"cannot be installed: {error}") from error
    # Last of all, so that what was broken off is begun anew.
    (folder / "installed.txt").write_text(pins, encoding="utf-8")
    return python


def _pins(name: str) -> str:
    try:
        return (PINS / f"{name}.txt").read_text(encoding="utf-8")
    except OSError as error:
        raise ChildError(f"has no pins: {error}") from error
