"""The kernel alone: actors and supervision without any part that has to do with language models."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import wizard_actors

PACKAGE = Path(wizard_actors.__file__).parent
KERNEL = {
    f"wizard_actors.{name}"
    for name in [
        "actor",
        "actor_loop",
        "bells",
        "errors",
        "event_stream",
        "events",
        "failure",
        "group",
        "leaf",
        "ledger",
        "mailbox",
        "message",
        "restarts",
        "specs",
        "supervisor",
        "verdict",
    ]
}
"""What may be imported for actors and their supervision. Errors and events name models, and know nothing of them."""

HEAVY = {"httpx", "httpcore", "msgspec", "cattrs", "structlog", "cyclopts", "rich", "asyncio", "sqlite3"}


def imported(program: str) -> set[str]:
    """Return the modules that a fresh interpreter has imported after `program`."""
    report = f"{program}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    run = subprocess.run(
        [sys.executable, "-c", report],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
        env=unmeasured,  # coverage imports asyncio
    )
    return set(json.loads(run.stdout))


def kernel_by_itself(module: str) -> str:
    """Return a program that imports a module of the package, but not the package's own `__init__`."""
    return (
        "import importlib, sys, types\n"
        "bare = types.ModuleType('wizard_actors')\n"
        f"bare.__path__ = [{str(PACKAGE)!r}]\n"
        "sys.modules['wizard_actors'] = bare\n"
        f"importlib.import_module({module!r})\n"
    )


@pytest.mark.parametrize("module", ["wizard_actors.actor", "wizard_actors.supervisor"])
def test_the_kernel_needs_nothing_of_language_models(module: str) -> None:
    """What an actor and its supervisor import, and what that imports, ends at errors, events and Trio."""
    modules = imported(kernel_by_itself(module))

    ours = {name for name in modules if name.startswith("wizard_actors.")}
    assert module in ours
    assert ours <= KERNEL
    assert not modules & HEAVY


def test_the_kernel_runs_without_anything_else() -> None:
    """A tree of actors works where nothing but the kernel can be imported."""
    program = kernel_by_itself("wizard_actors.supervisor") + (
        "import trio\n"
        "from wizard_actors.actor import Actor, Ask, handles\n"
        "from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor\n"
        "class Hello(Ask): pass\n"
        "class Greeter(Actor):\n"
        "    @handles(Hello)\n"
        "    def hello(self, message, reply, now): reply.send('hello')\n"
        "async def main():\n"
        "    spec = GroupSpec('alone', [ChildSpec('greeter', lambda ledger, carry: Greeter())])\n"
        "    async with Supervisor(spec) as alone:\n"
        "        assert await alone.ref('greeter', object).ask(Hello()) == 'hello'\n"
        "trio.run(main)\n"
    )

    modules = imported(program)

    assert not modules & HEAVY
    assert {name for name in modules if name.startswith("wizard_actors.")} <= KERNEL


# -- the package's front door, which opens only as far as it is pushed


@pytest.mark.parametrize("statement", ["import wizard_actors.supervisor", "from wizard_actors import WizardError"])
def test_an_import_of_the_kernel_imports_nothing_else(statement: str) -> None:
    """Whoever imports the kernel, or an error, by its public path does not pay for the client."""
    modules = imported(statement)

    assert {name for name in modules if name.startswith("wizard_actors.")} <= KERNEL
    assert not modules & HEAVY


def test_every_public_name_is_there() -> None:
    """What `__all__` offers can be imported, is listed by `dir`, and nothing else is made up."""
    names: dict[str, object] = {}

    exec("from wizard_actors import *", names)  # noqa: S102 - a star may stand nowhere else

    assert set(wizard_actors.__all__) <= set(names)
    assert set(wizard_actors.__all__) <= set(dir(wizard_actors))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wizard_actors.nothing  # type: ignore[attr-defined]  # it is what is tested


def test_a_name_is_the_same_for_type_checkers_and_at_run_time() -> None:
    """What is imported for type checkers is what is imported at first use, and all of `__all__`."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    [checked] = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    homes = {
        alias.name: statement.module
        for statement in checked.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }

    assert sorted(homes) == wizard_actors.__all__
    for name, home in homes.items():
        assert getattr(wizard_actors, name) is getattr(import_module(str(home)), name)
