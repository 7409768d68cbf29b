"""The reference of the command line: its examples print what it says, and it leaves nothing out."""

import re
import shlex
from pathlib import Path

import pytest

from tests.wizard_cli import Wizard
from wizard_actors import cli, errors
from wizard_actors.cli_output import ExitStatus
from wizard_actors.errors import WizardError

REFERENCE = (Path(__file__).resolve().parent.parent / "docs" / "cli.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```console\n(.*?)^```$", REFERENCE, re.MULTILINE | re.DOTALL)
CONFIGURATION = re.findall(r"^```toml\n(.*?)^```$", REFERENCE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def wizard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wizard:
    """The program, in a folder with the reference's configuration."""
    wizard = Wizard(tmp_path, monkeypatch)
    assert len(CONFIGURATION) == 1
    wizard.config(CONFIGURATION[0])
    return wizard


def shell(wizard: Wizard, line: str, status: int) -> tuple[str, int]:
    """Run one line of an example: a command, one with a prompt piped into it, or `echo $?` after it."""
    if line == "echo $?":
        return f"{status}\n", 0
    said, _, command = line.rpartition(" | ")
    program, *tokens = shlex.split(command)
    assert program == "wizard"
    ran = wizard(*tokens, stdin="".join(f"{word}\n" for word in shlex.split(said)[1:]).encode())
    return ran.err + ran.out, ran.status


def matches(printed: str, shown: str) -> bool:
    """Compare an output with what is shown of it: `...` leaves something out, columns may be wider or narrower."""
    printed, shown = (re.sub(" +", " ", text) for text in (printed, shown))
    pattern = "".join(".*?" if part == "..." else re.escape(part) for part in re.split(r"(\.\.\.)", shown))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.splitlines()[0])
def test_the_examples_print_what_is_shown(wizard: Wizard, example: str) -> None:
    """Each command of an example is run, and prints what stands below it."""
    status = 0
    for step in re.split(r"^\$ ", example, flags=re.MULTILINE)[1:]:
        line, _, shown = step.partition("\n")
        printed, status = shell(wizard, line, status)
        assert matches(printed, shown), f"{line}\n{printed}"


def test_there_are_examples() -> None:
    """The pattern that finds them does."""
    assert len(EXAMPLES) == REFERENCE.count("```console") > 5


def test_every_command_and_flag_is_described() -> None:
    """What the program understands stands in the reference's first lines."""
    synopsis = REFERENCE.partition("\n\nStandard output")[0]
    for name in ("ask", "chat", "batch", "serve", "simulate", "check", "models", "init", "demo"):
        command = cli.app[name]
        arguments = command.assemble_argument_collection()
        names = [argument.name for argument in arguments if argument.parse]
        section = "".join(block for block in synopsis.split("    wizard ") if block.startswith(name))
        assert [each for each in names if each not in section] == []


def test_every_exit_status_is_described() -> None:
    """A row each."""
    rows = re.findall(r"^\| (\d+) \|", REFERENCE, re.MULTILINE)
    assert [int(row) for row in rows] == sorted(ExitStatus)


def test_the_codes_that_are_named_exist() -> None:
    """Every code in the reference is some error's."""
    kinds = [getattr(errors, name) for name in errors.__all__]
    known = {kind.code for kind in kinds if isinstance(kind, type) and issubclass(kind, WizardError)} | {"usage", "bug"}
    named = re.search(r"`code` is stable: (.*?)\.\.\.", REFERENCE, re.DOTALL)
    assert named is not None
    assert set(re.findall(r"`(\w+)`", named[1])) <= known
