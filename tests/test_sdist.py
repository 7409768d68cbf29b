"""The source distribution: whoever unpacks it can check, test and change everything."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INCLUDED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"][
    "sdist"
]["include"]
ALWAYS = {"LICENSE", "README.md", "pyproject.toml"}
"""What the build backend adds by itself."""

MADE = re.compile(r"build|dist|mutants|\.venv|\.coverage.*|\.hypothesis|\..*_cache")
"""What targets make, and remove again."""


def named(text: str) -> set[str]:
    """Return the files and folders at the top of the project that a text names."""
    words = {word.partition("/")[0] for word in re.findall(r"[\w./-]+", text)}
    return {word for word in words if word.strip(".") and (ROOT / word).exists() and not MADE.fullmatch(word)}


@pytest.mark.parametrize("file", ["Makefile", ".ci/run", "CONTRIBUTING.md", "README.md", ".pre-commit-config.yaml"])
def test_what_the_project_s_own_files_name_is_in_it(file: str) -> None:
    """The targets of the Makefile find what they run and check, and a page links to nothing that is not there."""
    inside = {entry.strip("/") for entry in INCLUDED} | ALWAYS

    assert file.partition("/")[0] in inside
    assert named((ROOT / file).read_text(encoding="utf-8")) <= inside


def test_all_that_is_in_it_is_there() -> None:
    """A folder that was renamed is missed here, not by whoever unpacks it."""
    assert [entry for entry in INCLUDED if not (ROOT / entry.strip("/")).exists()] == []
