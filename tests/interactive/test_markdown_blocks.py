"""Markdown cut into blocks while it comes."""

import pytest

from wizard_actors.interactive.markdown_blocks import LONGEST, Block, Blocks


def blocks_of(text: str) -> list[str]:
    """Return the blocks of a text, the last one unfinished."""
    blocks = Blocks()
    blocks.add(text)
    return [*(block.text for block in blocks.finished()), blocks.tail]


@pytest.mark.parametrize(
    "blocks",
    [
        ["# Title\n", "Text\nof two lines\n\n", "more\n"],
        ["a\n\n", "```\nx\n\n# no title\n\n- no list\n```\n", "b\n"],
        ["```\nnever\n\nclosed\n\n"],
        ["- one\n\n  still one\n\n- two\n", "```\ncode\n"],
        ["- one\n  ```\n  code\n\n  more\n  ```\n- two\n\n", "end\n"],
        ["1. one\n2. two\n\n", "text\n"],
        ["| a | b |\n|---|---|\n| 1 | 2 |\n\n", "text\n"],
        ["> quote\nlazily\n\n", "text\n"],
        ["Title\n===\n", "text\n"],
        ["text\n\n", "---\n", "text\n"],
        ["<div>\n\n", "text\n"],
        ["    code\n\n    more\n\n", "text\n"],
        ["text with\u2028a line\x85break\n\n", "text\n"],
        ["text of [a link][1]\n\n", "[1]: http://one.example/\n"],
        [""],
    ],
)
def test_a_text_is_cut_where_its_blocks_begin(blocks: list[str]) -> None:
    """A block is finished when the next one has begun, and not before."""
    assert blocks_of("".join(blocks)) == blocks


def test_the_rest_is_cut_as_if_nothing_came_after_it() -> None:
    """What can be seen already is seen as what it is now."""
    blocks = Blocks()
    blocks.add("text\n# Tit")
    assert blocks.finished() == ()
    assert blocks.unfinished() == (Block("text\n"), Block("# Tit\n"))


@pytest.mark.parametrize(
    ("opening", "line"), [("```py\n", "x = 1\n"), ("|a|b|\n|-|-|\n", "|1|2|\n"), ("", "- item\n"), ("", "> a\n>\n")]
)
def test_a_long_block_is_cut_in_parts_of_its_kind(opening: str, line: str) -> None:
    """Each begins as the whole one does, and goes on with the one before it."""
    lines = LONGEST * 2 // len(line)
    blocks = Blocks()
    blocks.add(opening + line * lines)
    first, *others = blocks.finished()
    assert not first.goes_on
    assert all(block.goes_on for block in (*others, *blocks.unfinished()))
    parts = [block.text for block in (first, *others)] + [blocks.tail]
    assert len(parts) > 1
    assert all(part.startswith(opening) for part in parts)
    assert sum(part.count(line) for part in parts) == lines
    assert len(blocks.tail) <= LONGEST


def test_a_block_that_begins_after_a_long_one_stands_apart() -> None:
    """It does not go on with it."""
    blocks = Blocks()
    blocks.add("```\n" + "code\n" * LONGEST + "```\ntext\n# Title\n")
    assert blocks.finished()[-1] == Block("text\n")


def test_a_line_is_judged_when_it_is_whole() -> None:
    """A hash may begin a title, or go on with the paragraph."""
    for line, cut in (("# Title\n", True), ("#1\n", False)):
        blocks = Blocks()
        blocks.add("text\n#")
        assert blocks.finished() == ()
        blocks.add(line[1:])
        assert blocks.finished() == ((Block("text\n"),) if cut else ())
        assert blocks.tail == (line if cut else f"text\n{line}")
