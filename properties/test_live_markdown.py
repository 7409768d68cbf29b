"""Answers in Markdown while they come: whatever the pieces, nothing is lost, and no fence is torn apart."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.interactive.terminal import Emulator
from wizard_actors.interactive.live_markdown import LiveMarkdown, Painter, Size
from wizard_actors.interactive.markdown_blocks import PARSER, Blocks

pytestmark = pytest.mark.long

MARKS = [
    "#",
    "# t",
    "- a",
    "  b",
    "    c",
    "1. d",
    "```",
    "~~~",
    "> q",
    "|a|b|",
    "|-|-|",
    "---",
    "===",
    "[r]: /u",
    "[r]",
]
MARKS += [
    "",
    "",
    "word",
    "*e*",
    "**",
    "`",
    "<div>",
    "</div>",
    "&#27;",
    "\t",
    "日本",
    "👩‍👧",
    "![i](u)",
    "[l](u 't')",
    "\\",
    "![",
]
markdown = st.lists(st.sampled_from(MARKS) | st.text("ab *_`#-\n>|[]()<&;!", max_size=8), max_size=14).map("\n".join)
pieces = st.lists(st.integers(1, 9), min_size=1, max_size=30)

FENCES = ["```\nx\n\n# y\n\n- z\n```\n", "~~~~\n```\n\ninside\n~~~~\n", "```py\n\n\n```\n"]
PROSE = ["text\n\n", "# title\n", "- item\n\n", "1. one\n2. two\n", "\n", "> quote\n\n", "|a|\n|-|\n\n"]


def cut(text: str, sizes: list[int]) -> list[str]:
    """Return a text in pieces of such sizes, over and over."""
    found, start, number = [], 0, 0
    while start < len(text):
        size = sizes[number % len(sizes)]
        found.append(text[start : start + size])
        start, number = start + size, number + 1
    return found


def finished(text: str, sizes: list[int]) -> tuple[list[str], str]:
    """Return the blocks of a text that came in pieces, and what was left."""
    blocks, found = Blocks(), list[str]()
    for piece in cut(text, sizes):
        blocks.add(piece)
        found += [block.text for block in blocks.finished()]
    return found, blocks.tail


@given(markdown, pieces)
def test_the_blocks_and_the_rest_are_the_text(text: str, sizes: list[int]) -> None:
    """Whatever comes, in whatever pieces."""
    found, tail = finished(text, sizes)
    assert "".join(found) + tail == text
    assert "" not in found


@given(markdown, pieces)
def test_the_blocks_are_those_of_the_whole_text(text: str, sizes: list[int]) -> None:
    """A cut stands only where an outermost block of the whole text begins: nothing that came later has changed it."""
    starts = {token.map[0] for token in PARSER.parse(text) if token.level == 0 and token.map}
    found, _ = finished(text, sizes)
    lines = 0
    for block in found:
        lines += block.count("\n")
        assert lines in starts


@given(st.lists(st.sampled_from(FENCES + PROSE), max_size=12), pieces)
def test_no_fence_is_torn_apart(parts: list[str], sizes: list[int]) -> None:
    """A fence that begins at the margin is in one block from its beginning to its end."""
    found, tail = finished("".join(parts), sizes)
    for fence in FENCES:
        assert sum(block.count(fence) for block in (*found, tail)) >= sum(part == fence for part in parts)


steps = st.lists(st.integers(5, 30), min_size=1, max_size=9)
cells = st.lists(st.text("abc漢é", min_size=1, max_size=12), min_size=2, max_size=4)


@given(st.lists(cells, min_size=2, max_size=5), st.sampled_from(["", "- text\n\n  ", "> "]), st.integers(8, 40), steps)
def test_every_cell_of_a_table_stands_there_once(
    rows: list[list[str]], before: str, width: int, sizes: list[int]
) -> None:
    """At any width, on a screen lower than the table is, however it comes."""
    columns = min(map(len, rows))
    lines = [" | ".join(row[:columns]) for row in rows]
    lines.insert(1, " | ".join(["---"] * columns))
    indent = "> " if before.startswith(">") else " " * 2 * bool(before)
    text = before + f"\n{indent}".join(f"| {line} |" for line in lines) + "\n"
    emulator, live, size = Emulator(width, 6, onlcr=True), LiveMarkdown(Painter()), Size(width, 6)
    for piece in cut(text, sizes):
        live.add(piece)
        emulator.feed(live.frame(size))
    emulator.feed(live.finish(size))
    letters = Counter(character for row in rows for cell in row[:columns] for character in cell)
    assert {each: emulator.text.count(each) for each in letters} == letters


@given(markdown, pieces, st.integers(1, 60), st.integers(1, 12))
def test_any_text_can_be_drawn_at_any_size(text: str, sizes: list[int], width: int, height: int) -> None:
    """Nothing but rows of text and known sequences reaches the terminal, and what stands there at the end is what would
    stand there had the text come at once.
    """
    at_once, in_pieces = (Emulator(max(width, 4), 1000, onlcr=True) for _ in range(2))
    size = Size(max(width, 4), 1000)
    whole = LiveMarkdown(Painter())
    whole.add(text)
    at_once.feed(whole.finish(size))
    live = LiveMarkdown(Painter())
    for piece in cut(text, sizes):
        live.add(piece)
        in_pieces.feed(live.frame(size))
    in_pieces.feed(live.finish(size))
    if "\u200d" not in text:  # terminals do not agree on how wide joined emoji are, nor so on where a line of them ends
        assert in_pieces.lines == at_once.lines
    low = LiveMarkdown(Painter())
    for piece in cut(text, sizes):
        low.add(piece)
        Emulator(width, height, onlcr=True).feed(low.frame(Size(width, height)))
    low.finish(Size(width, height))
