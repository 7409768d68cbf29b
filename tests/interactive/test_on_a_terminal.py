"""`wizard chat` on a real pseudo-terminal: a person at the keyboard, a model that is simulated."""

import signal
import termios
from pathlib import Path

import pytest

from tests.interactive.terminal import Terminal, chatting
from tests.wizard_cli import PROGRAM

CONFIG = """
[[models]]
name = "talker"
provider = "simulated"
[models.simulated]
answer = '''
# A title

Some *words* here.

- one
- two

1. first
2. second'''
first_token = 0
per_chunk = 0.01

[[models]]
name = "slow"
provider = "simulated"
[models.simulated]
answer = "It began and never went on."
script = [{ fault = "stall", after_words = 2, times = 1000 }]
first_token = 0
per_chunk = 0

[[models]]
name = "broken"
provider = "simulated"
retry = { max_attempts = 1 }
simulated = { script = [{ fault = "error", times = 1000 }] }

[fallback]
chain = ["talker"]

[sessions]
storage = "file:kept"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration."""
    (tmp_path / "wizard.toml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


async def test_a_conversation_with_an_interrupt_in_it(folder: Path) -> None:
    """An answer is drawn, one is stopped, one taken back, one asked again; what is stored is there the next time."""
    async with chatting(folder) as terminal:
        await terminal.shows("new; the route wizard answers; kept in file:kept")
        await terminal.prompts()
        await terminal.type("Why?\r")
        await terminal.shows(" 2 second")
        await terminal.prompts()
        assert [line.strip() for line in terminal.emulator.lines if line.strip()][-8:] == [
            "> Why?", "A title", "Some words here.", "• one", "• two", "1 first", "2 second", ">",
        ]  # fmt: skip

        await terminal.type("/model slow\r")
        await terminal.shows("the model slow answers from now on")
        await terminal.prompts()
        await terminal.type("And how?\r")
        await terminal.shows("\nIt began")
        await terminal.type("\x03")
        await terminal.shows("stopped: this turn is not stored; /retry asks again")
        await terminal.prompts()
        await terminal.type("/cost\r")
        await terminal.shows("session: 1 turn, 1 tokens in")
        await terminal.prompts()

        await terminal.type("/route wizard\r")
        await terminal.shows("the route wizard answers from now on")
        await terminal.prompts()
        await terminal.type("/retry\r")
        await terminal.shows(" 2 second", times=2)
        await terminal.prompts()
        await terminal.type("/undo\r")
        await terminal.shows("taken back: 'And how?' and its answer; 1 turn left")
        await terminal.prompts()
        await terminal.type("/save it.md\r")
        await terminal.shows("1 turn written to it.md")
        await terminal.prompts()
        await terminal.type("/quit\r")
        assert await terminal.ends() == 0
        assert "Traceback" not in terminal.emulator.text

    assert "Some *words* here." in (folder / "it.md").read_text(encoding="utf-8")
    async with chatting(folder) as terminal:
        await terminal.shows(": 1 turn, last used")
        await terminal.prompts()
        await terminal.type("\x04")
        assert await terminal.ends() == 0


async def test_a_failed_turn_is_a_line_and_the_chat_goes_on(folder: Path) -> None:
    """The line names the model, and an unknown command the one that was meant."""
    async with chatting(folder, "--model", "broken") as terminal:
        await terminal.prompts()
        await terminal.type("Why?\r")
        await terminal.shows("broken: the provider failed (HTTP 500): simulated failure")
        await terminal.prompts()
        await terminal.type("/modle x\r")
        await terminal.shows("did you mean /model?")
        await terminal.prompts()
        await terminal.type("/model talkr\r")
        await terminal.shows("did you mean 'talker'?")
        await terminal.prompts()
        await terminal.type("/sessions elsewhere\r")
        await terminal.shows("session elsewhere: new")
        await terminal.prompts()
        await terminal.type("\x04")
        assert await terminal.ends() == 0


@pytest.mark.parametrize("word", ["exit", "/q"])
async def test_a_shells_word_leaves(folder: Path, word: str) -> None:
    """Alone in a line."""
    async with chatting(folder) as terminal:
        await terminal.prompts()
        await terminal.type(f"{word}\r")
        assert await terminal.ends() == 0


async def test_ctrl_c_at_the_prompt_clears_the_line(folder: Path) -> None:
    """The second one in a row with nothing to clear says how to leave."""
    async with chatting(folder) as terminal:
        await terminal.prompts()
        await terminal.type("half a question")
        await terminal.shows("> half a question")
        await terminal.type("\x03")
        for _ in range(2):
            await terminal.prompts()
            assert "leaves the chat" not in terminal.emulator.text
            await terminal.type("\x03")
        await terminal.shows("Ctrl-D or /quit leaves the chat")
        await terminal.prompts()
        await terminal.type("\x04")
        assert await terminal.ends() == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 0)])
async def test_a_signal_at_the_prompt_leaves_the_terminal_as_it_was(
    folder: Path, number: signal.Signals, status: int
) -> None:
    """SIGTERM and SIGHUP end the chat in good order; a SIGINT is as Ctrl-C, and the prompt is there again."""
    async with chatting(folder) as terminal:
        before = terminal.modes
        await terminal.prompts()
        assert terminal.modes != before
        await terminal.type("text")
        await terminal.shows("> text")
        terminal.process.send_signal(number)
        if number == signal.SIGINT:
            await terminal.prompts()
            await terminal.type("\x04")
        assert await terminal.ends() == status
        assert terminal.modes == before
        assert "Traceback" not in terminal.emulator.text


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, -signal.SIGQUIT)]
)
async def test_a_signal_mid_answer_leaves_the_terminal_as_it_was(
    folder: Path, number: signal.Signals, status: int
) -> None:
    """Keys are shown again after a chat that was stopped while it showed none."""
    async with chatting(folder, "--model", "slow") as terminal:
        before = terminal.modes
        await terminal.prompts()
        await terminal.type("Why?\r")
        await terminal.shows("\nIt began")
        assert terminal.modes != before
        terminal.process.send_signal(number)
        assert await terminal.ends() == status
        assert terminal.modes == before


async def test_keys_before_a_ctrl_c_are_kept_for_the_prompt(folder: Path) -> None:
    """As are those after it."""
    async with chatting(folder, "--model", "slow") as terminal:
        await terminal.prompts()
        await terminal.type("Why?\r")
        await terminal.shows("\nIt began")
        await terminal.type("typed")
        await terminal.type("\x03 ahead")
        await terminal.shows("> typed ahead")
        await terminal.type("\x03")
        await terminal.prompts()
        await terminal.type("\x04")
        assert await terminal.ends() == 0


async def search(terminal: Terminal) -> None:
    """Search for an earlier line, and find it."""
    await terminal.prompts()
    await terminal.type("\x12")
    await terminal.type("cos")
    await terminal.shows("I-search backward: cos")


async def test_a_line_is_searched_for_and_sent(folder: Path) -> None:
    """Enter takes what was found, the next one sends it, and the prompt after that is as any other."""
    async with chatting(folder) as terminal:
        await terminal.prompts()
        await terminal.type("/cost\r")
        await terminal.shows("session: 0 turns")
        await search(terminal)
        await terminal.type("\r")
        await terminal.until(lambda: terminal.emulator.lines[-1] == "> /cost", "what was found")
        await terminal.type("\r")
        await terminal.shows("session: 0 turns", times=2)
        await terminal.prompts()
        await terminal.type("/help\r")
        await terminal.shows("Alt-Enter")
        await terminal.prompts()
        await terminal.type("\x04")
        assert await terminal.ends() == 0


@pytest.mark.parametrize("interrupt", ["\x03", ""])
async def test_a_search_that_is_given_up_leaves_a_prompt(folder: Path, interrupt: str) -> None:
    """By Ctrl-C, or by a SIGINT, which ends the prompt it is in."""
    async with chatting(folder) as terminal:
        await terminal.prompts()
        await terminal.type("/cost\r")
        await terminal.shows("session: 0 turns")
        await search(terminal)
        if interrupt:
            await terminal.type(interrupt)
        else:
            terminal.process.send_signal(signal.SIGINT)
        await terminal.prompts()
        await terminal.type("/cost\r")
        await terminal.shows("session: 0 turns", times=2)
        await terminal.prompts()
        await terminal.type("\x04")
        assert await terminal.ends() == 0


def echoes(terminal: Terminal) -> bool:
    """Say whether the terminal shows what is typed."""
    modes = terminal.modes[3]
    assert isinstance(modes, int)
    return bool(modes & termios.ECHO)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is a job of a shell, which says when it has stopped, and has it go on after Enter."""
    job = '"$@"; echo stopped; read; fg; echo "ended $?"'
    monkeypatch.setattr("tests.interactive.terminal.PROGRAM", ["bash", "-mc", job, "bash", *PROGRAM])


@pytest.mark.usefixtures("shell")
async def test_ctrl_z_at_the_prompt_stops_the_program(folder: Path) -> None:
    """The line is there when it goes on."""
    async with chatting(folder) as terminal:
        await terminal.prompts()
        await terminal.type("/co")
        await terminal.shows("> /co")
        await terminal.type("\x1a")
        await terminal.shows("stopped")
        assert not terminal.reads_every_key
        await terminal.type("\n")
        await terminal.until(lambda: terminal.reads_every_key, "the prompt")
        await terminal.type("st\r")
        await terminal.shows("session: 0 turns")
        await terminal.prompts()
        await terminal.type("\x04")
        await terminal.shows("ended 0")


@pytest.mark.usefixtures("shell")
async def test_ctrl_z_mid_answer_stops_the_program_and_puts_the_terminal_right(folder: Path) -> None:
    """Its modes are the shell's until it goes on."""
    async with chatting(folder, "--model", "slow") as terminal:
        await terminal.prompts()
        await terminal.type("Why?\r")
        await terminal.shows("\nIt began")
        await terminal.type("\x1a")
        await terminal.shows("stopped")
        assert echoes(terminal)
        await terminal.type("\n")
        await terminal.until(lambda: not echoes(terminal), "quiet keys")
        await terminal.type("\x03")
        await terminal.shows("stopped: this turn is not stored")
        await terminal.prompts()
        await terminal.type("\x04")
        await terminal.shows("ended 0")


async def test_several_lines_are_one_message(folder: Path) -> None:
    """A paste is not sent before Enter, and Alt-Enter begins another line."""
    async with chatting(folder) as terminal:
        await terminal.prompts()
        await terminal.type("\x1b[200~one\ntwo\x1b[201~")
        await terminal.shows("two")
        await terminal.type("\x1b\rthree")
        await terminal.shows("three")
        await terminal.type("\r")
        await terminal.shows(" 2 second")
        await terminal.prompts()
        await terminal.type("/undo\r")
        await terminal.shows("taken back: 'one two three' and its answer; 0 turns left")
        await terminal.type("\x04")
        assert await terminal.ends() == 0


async def test_what_was_typed_comes_back_and_is_the_owners_alone(folder: Path) -> None:
    """The arrow key brings the last chat's question, from a file of mode 0600 in the state folder."""
    state = {"XDG_STATE_HOME": str(folder / "state")}
    async with chatting(folder, env=state) as terminal:
        await terminal.prompts()
        await terminal.type("/cost\r")
        await terminal.shows("session: 0 turns")
        await terminal.prompts()
        await terminal.type("\x04")
        await terminal.ends()
    file = folder / "state" / "wizard" / "chat_history"
    assert file.stat().st_mode & 0o777 == 0o600
    async with chatting(folder, env=state) as terminal:
        await terminal.prompts()
        await terminal.type("\x1b[A")
        await terminal.shows("> /cost")
        await terminal.type("\t\r")
        await terminal.shows("session: 0 turns")


async def test_commands_and_names_are_completed(folder: Path) -> None:
    """Tab finishes what is begun."""
    async with chatting(folder) as terminal:
        await terminal.prompts()
        await terminal.type("/mo\t")
        await terminal.shows("> /model")
        await terminal.type(" tal\t")
        await terminal.shows("> /model talker")


@pytest.mark.parametrize(("width", "height"), [(12, 5), (30, 6), (0, 0)])
async def test_narrow_terminals_show_the_whole_answer_once(folder: Path, width: int, height: int) -> None:
    """Also one that is lower than the answer, and one that does not know its size."""
    async with chatting(folder, width=width, height=height) as terminal:
        terminal.emulator.width, terminal.emulator.height = width or 80, height or 24
        await terminal.until(lambda: terminal.emulator.lines[-1] == ">", "the prompt")
        await terminal.type("Why?\r")
        await terminal.shows("second")
        await terminal.until(lambda: terminal.emulator.lines[-1] == ">", "the prompt")
        lines = [line.strip() for line in terminal.emulator.lines]
        for once in ("A title", "• one", "• two", "1 first", "2 second"):
            assert lines.count(once) == 1, terminal.emulator.text


async def test_a_terminal_may_be_resized_mid_answer(folder: Path) -> None:
    """What comes after that is as wide as the terminal is now, and nothing stands there twice."""
    async with chatting(folder) as terminal:
        await terminal.prompts()
        await terminal.type("Why?\r")
        await terminal.shows("Some words")
        terminal.resize(30, 8)
        await terminal.shows(" 2 second")
        await terminal.prompts()
        lines = [line.strip() for line in terminal.emulator.lines]
        for once in ("A title", "Some words here.", "• one", "• two", "1 first", "2 second"):
            assert lines.count(once) == 1, terminal.emulator.text


async def test_colours_are_left_out_where_nobody_wants_them(folder: Path) -> None:
    """NO_COLOR leaves bold and italic."""
    for env, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        async with chatting(folder, env=env) as terminal:
            await terminal.prompts()
            await terminal.type("Why?\r")
            await terminal.shows(" 2 second")
            await terminal.prompts()
            assert ("\x1b[36m 1" in terminal.emulator.written) == coloured
            assert "\x1b[3mwords" in terminal.emulator.written


async def test_a_dumb_terminal_gets_plain_text(folder: Path) -> None:
    """One that cannot move its cursor shows the Markdown as it is."""
    async with chatting(folder, env={"TERM": "dumb"}) as terminal:
        await terminal.shows(">")
        await terminal.type("Why?\r")
        await terminal.shows("Some *words* here.")
        await terminal.shows("2. second")
        await terminal.type("\x04")
        assert await terminal.ends() == 0
