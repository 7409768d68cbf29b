"""`wizard chat` without a terminal: one message a line, plain text, and an exit status."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from tests.interactive.terminal import PATIENCE
from tests.wizard_cli import SIMULATED, Wizard, start, two_models

RESET = '[stream]\non_interruption = "reset"\n'
KEPT = '[sessions]\nstorage = "file:kept"\n'


@pytest.fixture
def wizard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wizard:
    """The program, in a folder with a model that answers."""
    wizard = Wizard(tmp_path, monkeypatch)
    wizard.config(KEPT + SIMULATED)
    return wizard


def test_a_line_is_a_message(wizard: Wizard) -> None:
    """Its answer stands on standard output, and which session it is in on standard error."""
    ran = wizard("chat", stdin="Why?\r\n\n  \nAnd größer?".encode())
    assert (ran.status, ran.out) == (0, "All is well.\nAll is well.\n")
    assert ran.err.startswith("wizard: session chat-")
    assert ": new; the route wizard answers; kept in file:kept\n" in ran.err
    assert ran.err.count("\n") == 1


def test_no_line_is_no_failure(wizard: Wizard) -> None:
    """Also where standard input is closed."""
    assert wizard("chat").status == 0
    assert wizard("chat", stdin=None).status == 0


def test_a_pipe_begins_a_session_of_its_own_and_goes_on_with_one_that_is_named(wizard: Wizard) -> None:
    """A script does not go on where somebody happened to be."""
    wizard("chat", "--session", "mine", stdin=b"one\n")
    assert "new;" in wizard("chat", stdin=b"two\n").err
    ran = wizard("chat", "--session", "mine", stdin=b"three\n/cost\n")
    assert "session mine: 1 turn, last used" in ran.err
    assert ran.out == "All is well.\n"
    assert "session: 2 turns" in ran.err


def test_a_script_of_commands(wizard: Wizard) -> None:
    """Each does what it says; answers stand on standard output, all else on standard error."""
    wizard.config(KEPT + two_models(more="", fault="ok") + '[[routes]]\nname = "back"\nchain = ["second"]\n')
    script = """
/system Be brief
/system
/model
/model second
/model
/route
Why?
/cost
/retry
//slash
/undo
/save a.json
/route back
/route
/sessions
/sessions other
/sessions
/system -
"""
    ran = wizard("chat", "--session", "mine", stdin=script.encode())
    assert ran.status == 0, ran.err
    assert ran.out == "A whole answer.\n" * 3
    said = [line.split("  2")[0].rstrip() for line in ran.err.splitlines() if not line.startswith("wizard: ")]
    assert said == [
        "Be brief",
        "the route wizard chooses",
        "  first",
        "  second",
        "  first",
        "* second",
        "the model second is asked alone",
        "  wizard: first > second",
        "  back: second",
        "session: 1 turn, 3 tokens in, 3 out, cost not known",
        "last turn: 3 tokens in, 3 out, cost not known, by second",
        "  wizard: first > second",
        "* back: second",
        "* mine  1 turn",
        "  mine  1 turn",
    ]
    assert "taken back: '/slash' and its answer; 1 turn left" in ran.err
    saved = json.loads((wizard.path / "a.json").read_text(encoding="utf-8"))
    assert "Why?" in json.dumps(saved)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/modle", "did you mean /model?"),
        ("/model pretendr", "did you mean 'pretender'?"),
        ("/route nowhere", "`routes` hold none named 'nowhere'"),
        ("/undo", "has no turn yet"),
        ("/retry", "has no turn yet"),
        ("/save it.txt", "name the file it.md or .json"),
        ("/save missing/it.md", "missing/it.md does not exist"),
        ("/save wizard.json", "wizard.json exists already: take another name"),
        ("/save \0.md", "embedded null byte"),
        ("gr\udcfc\udcdfe", "the line is not UTF-8 text: invalid start byte at byte 2"),
    ],
)
def test_a_line_that_fails_is_told_and_the_next_one_is_read(wizard: Wizard, line: str, said: str) -> None:
    """One line on standard error; the exit status remembers it."""
    (wizard.path / "wizard.json").touch()
    ran = wizard("chat", stdin=f"{line}\nWhy?\n".encode("utf-8", "surrogateescape"))
    assert (ran.status, ran.out) == (1, "All is well.\n")
    assert said in ran.err
    assert ran.err.count("\n") == 2


def test_a_failed_turn_names_every_model(wizard: Wizard) -> None:
    """And is not stored: the question can be asked again."""
    wizard.config(KEPT + two_models("auth").replace("All", "") + '[fallback]\nchain = ["first"]\n')
    ran = wizard("chat", stdin=b"Why?\n/cost\n/retry\n/cost\n")
    assert ran.status == 1
    assert "first: " in ran.err.splitlines()[1]
    assert "session: 0 turns" in ran.err.splitlines()[2]
    assert ran.out == "This one breaks off.\n"


def test_a_file_is_saved_again_in_the_same_chat(wizard: Wizard) -> None:
    """What is there already is nobody's to overwrite but the chat's that wrote it."""
    assert wizard("chat", stdin=b"one\n/save it.md\ntwo\n/save it.md\n").status == 0
    assert (wizard.path / "it.md").read_text(encoding="utf-8").count("All is well.") == 2
    assert wizard("chat", stdin=b"/save it.md\n").status == 1


def test_a_reset_begins_a_new_line(wizard: Wizard) -> None:
    """A note says that the text so far is void."""
    wizard.config(KEPT + two_models("disconnect", after_words=2, more=RESET))
    ran = wizard("chat", stdin=b"Why?\n")
    assert (ran.status, ran.out) == (0, "This one\nA whole answer.\n")
    assert "the text so far is void, the answer starts again" in ran.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--new", "--session", "x"], "leave --session out"),
        (["--model", "pretendr"], "did you mean 'pretender'?"),
        (["--route", "nowhere"], "hold none named 'nowhere'"),
        (["--config", "nowhere.toml"], "there is no such file"),
        (["hello"], "hello"),
        (["--session", "a\tb"], "no control character"),
        (["--session", ""], "a text of 1 to 200 characters"),
        (["--session", "\udcff"], "half a surrogate pair"),
        (["--system", "\udcff"], "--system: the text is not valid UTF-8"),
    ],
)
def test_wrong_arguments_are_refused_in_a_line(wizard: Wizard, flags: list[str], said: str) -> None:
    """With status 2, before anything is read."""
    ran = wizard("chat", *flags, stdin=b"Why?\n")
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_flags_set_the_session(wizard: Wizard) -> None:
    """--route takes the place of a model, --model of whatever was there."""
    wizard.config(KEPT + two_models("ok"))
    wizard("chat", "--session", "s", "--model", "second", "--system", "Be brief", stdin=b"one\n")
    assert "the model second answers" in wizard("chat", "--session", "s", stdin=b"").err
    ran = wizard("chat", "--session", "s", "--route", "wizard", stdin=b"/system\n")
    assert "the route wizard answers" in ran.err
    assert ran.err.endswith("\nBe brief\n")


def test_a_session_that_cannot_be_opened_ends_a_script(wizard: Wizard) -> None:
    """Its further lines were meant for that session."""
    (wizard.path / "kept").mkdir()
    wizard("chat", "--session", "bad", stdin=b"one\n")
    for file in (wizard.path / "kept").rglob("*.json"):
        file.write_text("{", encoding="utf-8")
    ran = wizard("chat", "--session", "good", stdin=b"/sessions bad\nWhy?\n")
    assert ran.status == 1
    assert ran.out == ""
    assert "'bad'" in ran.err
    assert "Traceback" not in ran.err


async def talking(tmp_path: Path, answer: str = "drip") -> trio.Process:
    """Return a chat of its own process, in the middle of an answer that goes on for ever."""
    config = SIMULATED.replace("All is well.", f"{answer} " * 2000).replace("per_chunk = 0", "per_chunk = 0.01")
    (tmp_path / "wizard.toml").write_text(KEPT + config, encoding="utf-8")
    process = await start("chat", cwd=tmp_path, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.send_all(b"Why?\n")
    assert (await process.stdout.receive_some()).startswith(answer.encode())
    return process


async def rest_of(stream: trio.abc.ReceiveStream) -> bytes:
    """Read a stream to its end."""
    return b"".join([data async for data in stream])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGTERM, 143)])
async def test_a_signal_ends_the_program(tmp_path: Path, number: signal.Signals, status: int) -> None:
    """In good order: there is nobody to go on with."""
    with trio.fail_after(PATIENCE):
        process = await talking(tmp_path)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.send_signal(number)
        await rest_of(process.stdout)
        assert (await rest_of(process.stderr)).count(b"\n") == 1
        assert await process.wait() == status
        await process.stdin.aclose()


async def test_a_broken_pipe_is_silent(tmp_path: Path) -> None:
    """`wizard chat | head -1`: nothing is said about it."""
    with trio.fail_after(PATIENCE):
        process = await talking(tmp_path)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        await process.stdout.aclose()
        assert (await rest_of(process.stderr)).count(b"\n") == 1
        assert await process.wait() == 141
        await process.stdin.aclose()


async def test_ctrl_c_ends_a_chat_that_waits_for_a_line(tmp_path: Path) -> None:
    """The thread that reads does not hold it up."""
    (tmp_path / "wizard.toml").write_text(KEPT + SIMULATED, encoding="utf-8")
    with trio.fail_after(PATIENCE):
        process = await start("chat", cwd=tmp_path, stdin=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        await process.stdin.send_all(b"Why?\n")
        seen = b""
        while not seen.endswith(b"\n"):
            seen += await process.stdout.receive_some()
        assert seen == b"All is well.\n"
        process.send_signal(signal.SIGINT)
        await rest_of(process.stdout)
        await rest_of(process.stderr)
        assert await process.wait() == 130
        await process.stdin.aclose()


async def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """What cannot be printed ends the chat with a line, and no traceback."""
    (tmp_path / "wizard.toml").write_text(KEPT + SIMULATED, encoding="utf-8")
    full = os.open("/dev/full", os.O_WRONLY)
    process = await start("chat", cwd=tmp_path, stdin=subprocess.PIPE, stdout=full)
    os.close(full)
    assert process.stdin is not None
    assert process.stderr is not None
    with trio.fail_after(PATIENCE):
        await process.stdin.send_all(b"Why?\n")
        await process.stdin.aclose()
        said = await rest_of(process.stderr)
        assert await process.wait() == 1
    assert b"wizard: standard output cannot be read or written: No space left on device\n" in said
    assert b"Traceback" not in said
