"""What simulations have found, each kept as a scenario: docs/found-by-simulation.md tells of them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from wizard_actors.testing import load_scenario, simulate

HERE: Final = Path(__file__).resolve().parent
FOUND: Final = sorted((HERE / "found").glob("*.toml"))
PAGE: Final = HERE.parents[1] / "docs" / "found-by-simulation.md"


@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.stem)
def test_what_was_found_once_is_not_there_again(file: Path) -> None:
    """The scenario in which it showed is against no invariant."""
    assert simulate(load_scenario(file)).violations == ()


def test_the_page_tells_of_each() -> None:
    """By the name of its scenario, with its cause and its fix."""
    told = PAGE.read_text(encoding="utf-8")

    for file in FOUND:
        assert f"## `{file.stem}`" in told
    assert told.count("\n## `") == told.count("**Cause.**") == told.count("**Fix.**") == len(FOUND)
