"""Where the traps are that made other libraries fail, and the tests that show that they are avoided here.

`test_known_traps_actors.py`    actor runtimes, Trio, circuit breakers, rate limiters, retries and hedges
`test_known_traps_gateways.py`  gateways and clients of language models

Each of the two has tests named after the traps, and a table of those that the test of a module meets already. Here
stands that the tables tell the truth.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import test_known_traps_actors, test_known_traps_gateways

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^    (\S.*)\n        ((?:tests|properties)/[\w/]+\.py)::(test_\w+)$", re.MULTILINE)
CATALOGUES = {
    "actors": test_known_traps_actors,
    "gateways": test_known_traps_gateways,
}


def rows(text: str) -> list[tuple[str, str, str]]:
    """Return the trap, the file and the test of each row of a table."""
    return [(trap, path, name) for trap, path, name in ROW.findall(text)]


def functions_of(path: Path) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the tests at the top of a file, by their names; none where there is no such file."""
    tree = ast.parse(path.read_text(encoding="utf-8") if path.is_file() else "")
    functions = (node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return {node.name: node for node in functions if node.name.startswith("test_")}


def missing(text: str) -> Iterator[str]:
    """Yield every row that names a test that is not there."""
    for _, path, name in rows(text):
        if name not in functions_of(ROOT / path):
            yield f"{path}::{name}"


@pytest.mark.parametrize("catalogue", CATALOGUES.values(), ids=CATALOGUES.keys())
def test_every_test_of_a_table_exists(catalogue: object) -> None:
    """A trap whose test was renamed or removed is not met any more."""
    table = catalogue.__doc__ or ""

    assert list(missing(table)) == []
    assert len(rows(table)) == table.count("::") >= 20


@pytest.mark.parametrize("name", CATALOGUES)
def test_every_trap_says_where_it_was_seen(name: str) -> None:
    """A reader can look it up, and judge whether it was understood."""
    traps = functions_of(ROOT / f"tests/test_known_traps_{name}.py")

    silent = [trap for trap, node in traps.items() if not re.match("Seen|Suspected", ast.get_docstring(node) or "")]
    assert traps
    assert silent == []


def test_a_row_without_its_test_is_found() -> None:
    """The check itself fails where it should."""
    here = "    a trap\n        tests/test_known_traps.py::test_a_row_without_its_test_is_found\n"
    gone = here.replace("is_found", "is_lost")
    nowhere = here.replace("tests/test_known_traps.py", "tests/test_of_nothing.py")

    assert len(rows(here + gone + nowhere)) == 3
    assert len(list(missing(here + gone + nowhere))) == 2
