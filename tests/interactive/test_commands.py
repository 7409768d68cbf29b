"""What a line that is typed into the chat means."""

import pytest

from wizard_actors.interactive.commands import COMMANDS, Command, Message, Unknown, completions, help_text, parse


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("Why?", Message("Why?")),
        ("  two\nlines \n", Message("  two\nlines")),
        ("  //usr", Message("  /usr")),
        ("  /help", Command("help")),
        ("exit", Command("quit")),
        (" Quit ", Command("quit")),
        ("/exit", Command("quit")),
        ("/q", Command("quit")),
        ("exit.", Message("exit.")),
        ("exit now", Message("exit now")),
        ("//usr/bin is a folder", Message("/usr/bin is a folder")),
        ("/help", Command("help")),
        ("/Model fast one ", Command("model", "fast one")),
        ("/system Be\nbrief", Command("system", "Be\nbrief")),
        ("/system\nBe brief", Command("system", "Be brief")),
        ("", None),
        (" \n\t", None),
    ],
)
def test_a_line_is_a_message_or_a_command(line: str, meaning: object) -> None:
    """A slash begins a command, two a text that begins with one; leaving needs none, as in a shell."""
    assert parse(line) == meaning


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/modle x", "there is no command /modle; did you mean /model?"),
        ("/quitt", "did you mean /quit? A text"),
        ("/", "/help lists what there is. A text"),
        ("/ model", "there is no command /; "),
        ("/qqqq", "/help lists what there is"),
        ("/usr/bin", "is sent with two: //usr/bin"),
        ("/save", "/save needs FILE"),
        ("/undo all", "/undo takes nothing after it"),
    ],
)
def test_what_is_no_command_says_what_to_do(line: str, said: str) -> None:
    """It names the closest one, or where to look."""
    meaning = parse(line)
    assert isinstance(meaning, Unknown)
    assert said in meaning.said


def test_help_names_every_command() -> None:
    """A line each."""
    lines = help_text().splitlines()
    assert [line.split()[0] for line in lines[: len(COMMANDS)]] == [f"/{name}" for name in COMMANDS]


@pytest.mark.parametrize(
    ("text", "word", "found"),
    [
        ("/mo", "/mo", ["/model"]),
        ("/S", "/S", ["/system", "/save", "/sessions"]),
        ("/model f", "f", ["fast"]),
        ("/route ", "", ["one", "two"]),
        ("/save f", "f", []),
        ("//mo", "", []),
        ("mo", "", []),
    ],
)
def test_commands_and_their_names_are_completed(text: str, word: str, found: list[str]) -> None:
    """Models after /model, routes after /route."""
    assert completions(text, ["fast", "slow"], ["one", "two"]) == (word, found)
