"""Wizard Actors with every concern on, over its own transport in place of httpx's."""

from __future__ import annotations

from _harness import main
from wizard import Contender

if __name__ == "__main__":
    main(Contender("fast").suites(), "wizard-actors", "trio")
