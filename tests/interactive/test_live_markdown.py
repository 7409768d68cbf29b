"""Answers drawn while they come, on a screen that is emulated."""

import re

import pytest

from tests.interactive.terminal import Emulator
from wizard_actors.interactive.live_markdown import LiveMarkdown, Painter, Size

STORY = "# Story\n\n" + "\n".join(f"- item {number}" for number in range(40)) + "\n\nThe *end*.\n"


@pytest.fixture(autouse=True)
def _a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing depends on where the tests run."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def drawn(text: str, *, width: int = 40, height: int = 10, step: int = 7) -> Emulator:
    """Return the screen on which a text was drawn piece by piece."""
    emulator, live, size = Emulator(width, height, onlcr=True), LiveMarkdown(Painter()), Size(width, height)
    for start in range(0, len(text), step):
        live.add(text[start : start + step])
        emulator.feed(live.frame(size))
    emulator.feed(live.finish(size))
    return emulator


@pytest.mark.parametrize(("width", "height"), [(40, 10), (12, 4), (200, 100), (4, 2)])
def test_an_answer_longer_than_the_screen_stands_there_once(width: int, height: int) -> None:
    """Its beginning has scrolled away, and nothing is repeated or lost."""
    lines = [line.strip() for line in drawn(STORY, width=width, height=height).lines if line.strip()]
    whole = "".join(lines).replace(" ", "")
    assert whole == "Story" + "".join(f"•item{number}" for number in range(40)) + "Theend."


def test_blocks_stand_apart() -> None:
    """An empty row parts them, however they came."""
    text = "one\n\ntwo\n```\ncode\n```\n- a\n- b\n"
    assert [line.strip() for line in drawn(text).lines] == ["one", "", "two", "", "code", "", "• a", "• b"]


def test_an_unfinished_line_is_shown() -> None:
    """The last words stand there as soon as they are drawn."""
    emulator, live = Emulator(onlcr=True), LiveMarkdown(Painter())
    live.add("Some **bo")
    emulator.feed(live.frame(Size()))
    assert emulator.lines == ["Some **bo"]
    live.add("ld**")
    emulator.feed(live.frame(Size()))
    assert emulator.lines == ["Some bold"]
    assert live.frame(Size()) == ""


@pytest.mark.parametrize(
    "spelled", ["\x1b[2J", "&#27;[2J", "&#x1b;[2J", "`\x1b[2J`", "\x9b2J", "&#155;2J", "\x00&#13;&#12;\x07\x08"]
)
def test_control_characters_never_reach_the_terminal(spelled: str) -> None:
    """Neither as they are nor as what Markdown makes of an entity."""
    written = drawn(f"text {spelled}\n\n```\n{spelled}\n```\n[{spelled}](http://{spelled})\n").written
    assert {character for character in written if not character.isprintable()} <= {"\x1b", "\n", "\r"}
    sequences = re.findall(r"\x1b[^A-Za-z]*[A-Za-z]", written)
    assert [each for each in sequences if not re.fullmatch(r"\x1b\[([\d;]*m|J|\d+A|\?7[lh])", each)] == []
    assert "\N{REPLACEMENT CHARACTER}" in written


def test_html_is_shown_as_it_is() -> None:
    """No part of an answer is left out."""
    assert "Use the <b> tag." in drawn("Use the <b> tag.\n\n<div>\nhello\n</div>\n").text
    assert "<div> hello </div>" in drawn("<div>\nhello\n</div>\n").text


@pytest.mark.parametrize("widths", [(40, 20), (20, 40), (40, 10, 60)])
def test_a_terminal_of_another_size_shows_what_comes_once(widths: tuple[int, ...]) -> None:
    """Midway in a block that is longer than the screen, too: no item is lost, and the end stands there once."""
    emulator, live = Emulator(widths[0], 8, onlcr=True), LiveMarkdown(Painter())
    part = -(-len(STORY) // len(widths))
    for number, width in enumerate(widths):
        emulator.width = width
        for start in range(number * part, min((number + 1) * part, len(STORY)), 5):
            live.add(STORY[start : min(start + 5, (number + 1) * part)])
            emulator.feed(live.frame(Size(width, 8)))
    emulator.feed(live.finish(Size(widths[-1], 8)))
    assert [number for number in range(40) if f"• item {number}\n" not in f"{emulator.text}\n"] == []
    assert emulator.text.count("The end.") == 1


def test_a_status_goes_when_the_answer_comes() -> None:
    """What goes on is shown below, until there is more to see."""
    emulator, live = Emulator(onlcr=True), LiveMarkdown(Painter())
    live.say("thinking ...")
    emulator.feed(live.frame(Size()))
    assert emulator.lines == ["thinking ..."]
    live.add("Well")
    emulator.feed(live.frame(Size()))
    live.say("thinking ...")
    emulator.feed(live.frame(Size()))
    assert emulator.lines == ["Well", "thinking ..."]
    emulator.feed(live.finish(Size()))
    assert emulator.lines == ["Well"]
