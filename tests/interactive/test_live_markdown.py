"""Answers drawn while they come, on a screen that is emulated."""

import re
from collections.abc import Callable

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


TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u206e\u2028\u2029"
MARKS = "\u200b\u200e\u200f\u061c\u2060\ufeff"


@pytest.mark.parametrize("spelled", [lambda each: each, lambda each: f"&#{ord(each)};", lambda each: f"`{each}`"])
def test_nothing_turns_the_direction_of_a_line(spelled: Callable[[str], str]) -> None:
    """What would is seen, what only orders its neighbours is left out, and joiners stay."""
    written = drawn(" ".join(map(spelled, TURNS + MARKS + "\u200c\u200d")) + " end\n", width=80, step=1000).written
    assert set(written) & {*TURNS, *MARKS} == set()
    assert {"\u200c", "\u200d"} <= set(written)
    assert written.count("\N{REPLACEMENT CHARACTER}") == len(TURNS)


def test_an_image_is_a_link_in_its_place() -> None:
    """The text about it stays, and its address is shown."""
    text = "- Before ![the *chart*](http://img.example/x.png) and\n  after.\n\n[![logo](/l.png)](http://to.example)\n"
    assert drawn(text, width=80).lines == [
        " • Before the chart (http://img.example/x.png) and after.",
        "",
        "logo (/l.png) (http://to.example)",
    ]


def test_links_that_are_defined_elsewhere_are_shown_as_they_are_written() -> None:
    """So are the definitions, each on a line of its own: the address is there, wherever they stand."""
    text = "See [the docs][1] and [more].\n\nThe end.\n\n[1]: http://one.example/\n[more]: <http://two.example/>\n"
    assert drawn(text, width=60).lines == [
        "See [the docs][1] and [more].", "", "The end.", "",
        "[1]: http://one.example/", "[more]: http://two.example/ (http://two.example/)",
    ]  # fmt: skip


def test_wide_characters_take_two_cells() -> None:
    """What is drawn again while it grows stands there once, in rows no wider than the terminal."""
    text = "漢字" * 12 + "\n\n- 🎉 " + "テスト" * 5 + "\n\n| 名前 | x |\n|---|---|\n| 山田太郎 | e\u0301 |\n"
    assert drawn(text, width=21).lines == [
        "漢字漢字漢字漢字漢字", "漢字漢字漢字漢字漢字", "漢字漢字", "",
        " • 🎉", "   テストテストテス", "   トテストテスト", "",
        " 名前      x", " ───────────", " 山田太郎  e\u0301",
    ]  # fmt: skip


# -- tables

COLUMNS = "| name | description |\n|---|---|\n"


def test_no_cell_of_a_table_is_cut() -> None:
    """A long word is broken, and so is an address."""
    text = f"{COLUMNS}| alpha | supercalifragilisticexpialidocious https://example.com/a/very/long/path |\n"
    said = "".join(drawn(text, width=30).text.split())
    assert said.startswith("namedescription")
    assert "alphasupercalifragilisticexpialidocioushttps://example.com/a/very/long/path" in said


def test_a_table_too_wide_for_the_terminal_is_drawn_as_text() -> None:
    """No column vanishes: the cells of a row stand one after the other."""
    names = ["alpha", "bravo", "charlie", "delta", "echo", "fox", "golf", "hotel", "india", "juliet"]
    text = f"|{'|'.join(names)}|\n|{'-|' * len(names)}\n|{'|'.join(reversed(names))}|\n"
    words = drawn(text, width=20).text.replace("|", " ").split()
    assert words == [*names, *reversed(names)]


@pytest.mark.long
@pytest.mark.parametrize(("width", "height"), [(40, 20), (50, 8), (20, 4), (10, 6)])
@pytest.mark.parametrize("before", ["", "Text:\n", "- item\n\n"])
def test_a_table_longer_than_the_screen_stands_there_once(width: int, height: int, before: str) -> None:
    """Though its last cell changes the width of every column."""
    indent = "  " if before.startswith("-") else ""
    rows = [f"| R{number} | words Z{number} |\n" for number in range(30)]
    lines = [*COLUMNS.splitlines(keepends=True), *rows, "| x | " + "many words " * 12 + "|\n"]
    text = before + "".join(indent + line for line in lines) + "\nafter\n"
    shown = drawn(text, width=width, height=height, step=5).text
    assert [int(each) for each in re.findall(r"R(\d+)", shown)] == list(range(30))
    assert [int(each) for each in re.findall(r"Z(\d+)", shown)] == list(range(30))
    assert shown.count("after") == shown.count("name") == 1


def test_a_table_that_grows_is_seen() -> None:
    """As text, of which the end stands on the screen."""
    emulator, live, size = Emulator(40, 6, onlcr=True), LiveMarkdown(Painter()), Size(40, 6)
    for line in [*COLUMNS.splitlines(keepends=True), *(f"| R{number} | x |\n" for number in range(9))]:
        live.add(line)
        emulator.feed(live.frame(size))
    assert emulator.lines == ["R5 | x", "R6 | x", "R7 | x", "R8 | x"]


# -- long answers

LINES = 500
LONG = {
    "code": ("```python\n", "def f{0}(): return 'some words, so that it is longer'\n", "```\n"),
    "list": ("", "- item f{0}() with some words, so that it is longer\n", ""),
    "numbers": ("", "{1}. item f{0}() with some words, so that it is longer\n", ""),
    "quote": ("", "> f{0}() with some words, so that it is longer\n>\n", ""),
    "lines": ("", "f{0}() with some words, so that it is longer\n", ""),
    "line": ("", "f{0}() with some words, so that it is longer ", "\n"),
    "table": ("| a | b |\n|---|---|\n", "| f{0}() | with some words, so that it is longer |\n", ""),
}


@pytest.mark.parametrize("kind", LONG)
def test_a_long_answer_is_drawn_in_short_steps(kind: str) -> None:
    """However much of it comes at once, no frame makes more than some rows, and nothing is lost or repeated."""
    begin, middle, end = LONG[kind]
    text = begin + "".join(middle.format(number, number + 1) for number in range(LINES)) + end + "\nThe end.\n"
    live, size, emulator = LiveMarkdown(Painter()), Size(120, 24), Emulator(120, 24, onlcr=True)
    live.add(text)
    frames = list[str]()
    while live.is_behind:
        frames.append(live.frame(size))
    for frame in (*frames, live.frame(size), live.finish(size)):
        assert frame.count("\n") < LINES // 2
        emulator.feed(frame)
    assert [int(each) for each in re.findall(r"f(\d+)\(", emulator.text)] == list(range(LINES))
    assert emulator.lines[-1] == "The end."
    if kind == "numbers":
        assert re.findall(r"^ *(\d+) item", emulator.text, re.MULTILINE) == [str(each + 1) for each in range(LINES)]
    if kind != "quote":
        assert emulator.lines.count("") == 1


def test_an_answer_that_is_stopped_goes_no_further() -> None:
    """What has come and was not drawn yet is not drawn at the end, but for what a frame would draw."""
    live = LiveMarkdown(Painter())
    live.add("word\n\n" * 10_000)
    live.frame(Size())
    assert live.finish(Size()).count("word") < 1000
    assert not live.is_behind


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


def test_a_line_that_seems_to_begin_a_block_goes_on_with_the_last_one() -> None:
    """`***` may be a rule, or the beginning of emphasis: nothing stands there twice on a low screen either."""
    assert drawn("1) one\n*** two\n", width=12, height=4, step=1).lines == [" 1 one ***", "   two"]


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
