"""The shape of the package: where imports point and stand, how long a file is, what it makes public."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wizard_actors

PACKAGE = Path(wizard_actors.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
LINES_AT_MOST = 450
EXTRAS = frozenset({"opentelemetry", "xllamacpp"})
"""What a function may import: the modules of optional extras, absent from a plain installation."""

LATE = frozenset(
    {
        "wizard_actors.asyncio_bell",
        "wizard_actors.cli",
        "wizard_actors.cli_serve",
        "wizard_actors.cli_simulate.play",
        "wizard_actors.embed.asyncio_host",
        "wizard_actors.interactive",
        "wizard_actors.server.http",
        "wizard_actors.otel.sdk",
        "wizard_actors.otel.spans",
    }
)
"""What else a function may import: what imports asyncio, which only programs that run it should pay for, and the
commands, before which signals are handled.
"""

HEAVY = frozenset({"genai_prices", "jsonschema", "referencing"})
"""And what takes long to load, which only programs that use it should pay for."""

every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def inner_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of every module that is imported inside a function of `tree`."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    for statement in (inner for function in functions for inner in ast.walk(function)):
        if isinstance(statement, ast.Import):
            yield from ((statement.lineno, alias.name) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield statement.lineno, "." * statement.level + (statement.module or "")


def declares_all(tree: ast.Module) -> bool:
    """Say whether the module of `tree` assigns `__all__` at its top."""
    names = (name for node in tree.body if isinstance(node, ast.Assign) for name in node.targets)
    return any(isinstance(name, ast.Name) and name.id == "__all__" for name in names)


def test_imports_point_one_way_only() -> None:
    """Every module imports only from the layers below it, and has its place among them."""
    lint_imports = Path(sys.executable).with_name("lint-imports")
    command = [str(lint_imports), "--no-cache"]
    run = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@every_module
def test_functions_import_only_extras(path: Path) -> None:
    """An import stands at the top of its file, unless it is of something that may not be installed, of asyncio, or of
    what is heavy.
    """
    found = inner_imports(ast.parse(path.read_text(encoding="utf-8")))
    allowed = EXTRAS | LATE | HEAVY
    misplaced = [f"{path.name}:{line}: {name}" for line, name in found if not {name, name.split(".")[0]} & allowed]
    assert not misplaced


@every_module
def test_files_stay_short(path: Path) -> None:
    """A file can be read in one sitting."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LINES_AT_MOST, f"{path.name} has {lines} lines: give its second half a file of its own"


@every_module
def test_public_modules_name_what_they_offer(path: Path) -> None:
    """A public module says in `__all__` what of it is meant for others."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    only_a_docstring = len(tree.body) <= 1
    assert only_a_docstring or path.stem == "__main__" or declares_all(tree), f"{path.name} has no __all__"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os", []),
        ("def f():\n    import os", [(2, "os")]),
        ("async def f():\n    from . import types", [(2, ".")]),
        (
            "class C:\n    def m(self):\n        from wizard_actors.types import Prompt",
            [(3, "wizard_actors.types")],
        ),
    ],
)
def test_an_import_inside_a_function_is_found(source: str, found: list[tuple[int, str]]) -> None:
    """The check sees plain and relative imports, in functions and methods, and leaves the top alone."""
    assert list(inner_imports(ast.parse(source))) == found
