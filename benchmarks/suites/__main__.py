"""Measure one suite, in this process, and print its figures as JSON, one a line.

python -m benchmarks.suites NAME
"""

from __future__ import annotations

import json
import pkgutil
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import cast

from attrs import asdict

import benchmarks.suites
from benchmarks.figure import Figure


def names() -> list[str]:
    """Return the names of all suites: the modules beside this one."""
    found = (module.name for module in pkgutil.iter_modules(benchmarks.suites.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def main(name: str) -> None:
    """Measure the suite of that name."""
    suite = import_module(f"benchmarks.suites.{name}")
    figures = cast("Callable[[], Iterator[Figure]]", suite.figures)
    for figure in figures():
        sys.stdout.write(f"{json.dumps(asdict(figure))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in names():
        sys.exit(f"usage: python -m benchmarks.suites {'|'.join(names())}")
    main(sys.argv[1])
