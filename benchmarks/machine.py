"""What the figures depend on besides the code: the machine, and the versions of what was measured."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from attrs import frozen

__all__ = ["Machine"]


@frozen
class Machine:
    """A processor's model, how many cores of it this process may use, and what runs on it."""

    cpu: str
    cores: int
    python: str
    system: str

    @classmethod
    def this(cls) -> Machine:
        """Return the one that this runs on."""
        return cls(
            cpu=_cpu(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            python=f"{platform.python_implementation()} {platform.python_version()}",
            system=f"{platform.system()} on {platform.machine()}",
        )


def _cpu() -> str:
    """Return the processor's model, as far as the system knows it."""
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        named = None
    return named[1].strip() if named else platform.processor() or "unknown"
