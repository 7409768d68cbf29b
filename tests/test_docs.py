"""What the documents show works as they show it: every program, every command, every configuration, every link.

How a document is read:

- its blocks are run from top to bottom, in one empty folder of its own;
- a `python` block is a whole program; a `text` block right after it is what it prints;
- a `console` block holds commands after `$`, each with what it prints, standard error included; one that is shown
  without any output has to end with status 0;
- every line of a `sh` block is a command;
- a `toml` block is a configuration; where the paragraph before it speaks of "this `NAME.toml`" it is written there;
- `...` in what is shown stands for anything;
- `<!-- not run: REASON -->` before a block leaves it out.
"""

import contextlib
import doctest
import io
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from attrs import frozen

from wizard_actors.config import WizardConfig
from wizard_actors.config.environment import API_KEYS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_HERE = [document for document in DOCUMENTS if document.name != "cli.md"]  # tests/test_cli_docs.py runs that one
EVERY_DOCUMENT = [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
KEYS = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "GEMINI_API_KEY": "k"}

FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^>]*?) -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
THIS_FILE = re.compile(r"\bthis\s`(?P<name>[\w.-]+\.toml)`")
LINK = re.compile(r"\]\((?!https?:|mailto:)(?P<path>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")
CHECKER = doctest.OutputChecker()


@frozen
class Block:
    """One fenced block of a document; `where` names its first line."""

    where: str
    language: str
    text: str
    file: str | None = None
    not_run: str | None = None
    output: str | None = None


@frozen
class Command:
    """One command of a block, and what the document says that it prints."""

    line: str
    output: str


def blocks(document: Path) -> list[Block]:
    """Return the fenced blocks of a document, each program with the output that follows it."""
    text = document.read_text(encoding="utf-8")
    found: list[Block] = []
    ended = -1
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        before = text[: match.start()].rstrip().rpartition("\n\n")[2]
        this = THIS_FILE.search(before) if match["language"] == "toml" else None
        block = Block(
            where=f"{document.name}:{line}",
            language=match["language"],
            text=match["text"],
            file=this and this["name"],
            not_run=match["reason"],
        )
        follows = found and found[-1].language == "python" and not text[ended : match.start()].strip()
        if block.language == "text" and follows and not found[-1].not_run:
            program = found.pop()
            block = Block(program.where, program.language, program.text, output=block.text)
        found.append(block)
        ended = match.end()
    return found


def commands(block: Block) -> Iterator[Command]:
    """Return the commands of a `console` or `sh` block."""
    if block.language != "console":
        lines = [line for line in block.text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
        yield from (Command(line, "") for line in lines)
        return
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not parts[0], f"{block.where}: the first line of a console block is a command after `$ `"
    for part in parts[1:]:
        line, _, output = re.sub(r"\\\n\s*", " ", part).partition("\n")
        yield Command(line, output)


def same(shown: str, printed: str) -> bool:
    """Say whether a document shows what was printed; spaces at the ends of lines do not count."""
    plain = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    return CHECKER.check_output(shown, plain, doctest.ELLIPSIS)


def run_program(block: Block) -> None:
    """Run a program here, and compare what it prints."""
    module = ModuleType("__main__")
    printed = io.StringIO()
    logger = logging.getLogger("wizard_actors")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, block.where, "exec"), module.__dict__)  # noqa: S102 - it is what is tested
    logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate  # as it was before a set-up
    if block.output is not None:
        assert same(block.output, printed.getvalue()), f"{block.where} prints:\n{printed.getvalue()}"


def run_commands(block: Block) -> None:
    """Run commands as a reader would, and compare what they print."""
    folder = str(Path(sys.executable).parent)
    env = {name: value for name, value in os.environ.items() if name not in API_KEYS and not name.startswith("WIZARD_")}
    env |= {"PATH": os.pathsep.join([folder, env.get("PATH", "")]), "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
    status = 0
    for command in commands(block):
        done = subprocess.run(
            ["/bin/sh", "-c", f"(exit {status})\n{command.line}"],  # for a command that asks for $?
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            timeout=60,
            env=env,
            check=False,
        )
        status, found = done.returncode, f"`{command.line}` ends with {done.returncode} and prints:\n{done.stdout}"
        if command.output:
            assert same(command.output, done.stdout), f"{block.where}: {found}"
        else:
            assert status == 0, f"{block.where}: {found}"


def use_configuration(block: Block) -> None:
    """Load a configuration, or write it where the document puts it."""
    if block.file is not None:
        Path(block.file).write_text(block.text, encoding="utf-8")
    WizardConfig.from_toml(block.text, env=KEYS)


RUN = {"python": run_program, "console": run_commands, "sh": run_commands, "toml": use_configuration}


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", RUN_HERE, ids=lambda path: path.name)
def test_everything_shown_works(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program, command and configuration of a document runs, and prints what the document says it does."""
    monkeypatch.chdir(tmp_path)
    for name in (*API_KEYS, *(name for name in os.environ if name.startswith("WIZARD_"))):
        monkeypatch.delenv(name, raising=False)
    for block in blocks(document):
        if block.not_run is None and block.language in RUN:
            RUN[block.language](block)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_says_what_it_is(document: Path) -> None:
    """A block has a language that is known here, or is plain text; one that is not run gives a reason."""
    for block in blocks(document):
        assert block.language in {*RUN, "text"}, f"{block.where}: {block.language!r}"
        assert block.not_run is None or len(block.not_run.split()) >= 3, f"{block.where}: why is it not run?"


@pytest.mark.parametrize("document", EVERY_DOCUMENT, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """A link to a file or a heading of the project leads to one that is there."""
    for match in LINK.finditer(document.read_text(encoding="utf-8")):
        target = document.parent / match["path"] if match["path"] else document
        assert target.exists(), f"{document.name} links to {match['path']}"
        if match["anchor"]:
            assert match["anchor"] in anchors(target), f"{document.name} links to {match['path']}#{match['anchor']}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_is_named_is_there(document: Path) -> None:
    """A document that names a test as its proof names one that is run."""
    sources = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "properties").rglob("test_*.py")]
    known = {path.stem for path in sources} | {
        name for path in sources for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }

    named = set(re.findall(r"`(test_\w+)`", document.read_text(encoding="utf-8")))

    assert named <= known, f"not there: {sorted(named - known)}"


# -- the reader of documents itself ----------------------------------------------------------------------------------


def reading(tmp_path: Path, text: str) -> list[Block]:
    """Return the blocks of a document with this text."""
    path = tmp_path / "imagined.md"
    path.write_text(text, encoding="utf-8")
    return blocks(path)


def test_another_output_is_found(tmp_path: Path) -> None:
    """A program that prints something else than the document says is an error that shows what it prints."""
    [block] = reading(tmp_path, "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n")

    with pytest.raises(AssertionError, match=r"prints:\s+2"):
        run_program(block)


def test_a_failing_command_is_found(tmp_path: Path) -> None:
    """A command that fails is an error, unless the document shows what it then prints."""
    [fails, told] = reading(tmp_path, "```console\n$ exit 3\n```\n```console\n$ ls /no; echo $?\nls...no...\n2\n```\n")

    run_commands(told)
    with pytest.raises(AssertionError, match="ends with 3"):
        run_commands(fails)


def test_a_command_runs_with_this_python(tmp_path: Path) -> None:
    """`wizard` is the program of the environment in which the tests run."""
    [block] = reading(tmp_path, f"```console\n$ command -v wizard\n{shlex.quote(sys.prefix)}/...wizard\n```\n")

    run_commands(block)


def test_dots_stand_for_anything() -> None:
    """What differs from run to run need not be shown."""
    assert same("took ... s\n...\nend\n", "took 1.2 s  \nmuch\nmore\nend\n")
    assert not same("took ... s\n", "it took 1.2 s\n")


def test_a_block_that_is_not_run_gives_its_reason(tmp_path: Path) -> None:
    """The reason stands in a comment before the block, and belongs to that block alone."""
    [first, second] = reading(tmp_path, "<!-- not run: it needs a key -->\n\n```sh\nfalse\n```\n```sh\ntrue\n```\n")

    assert first.not_run == "it needs a key"
    assert second.not_run is None
