"""Markdown cut into blocks while it comes."""

import pytest

from wizard_actors.interactive.markdown_blocks import Blocks


def blocks_of(text: str) -> list[str]:
    """Return the blocks of a text, the last one unfinished."""
    blocks = Blocks()
    blocks.add(text)
    return [*blocks.finished(), blocks.tail]


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
    assert blocks.unfinished() == ("text\n", "# Tit\n")


def test_a_line_is_judged_when_it_is_whole() -> None:
    """A hash may begin a title, or go on with the paragraph."""
    for line, cut in (("# Title\n", True), ("#1\n", False)):
        blocks = Blocks()
        blocks.add("text\n#")
        assert blocks.finished() == ()
        blocks.add(line[1:])
        assert blocks.finished() == (("text\n",) if cut else ())
        assert blocks.tail == (line if cut else f"text\n{line}")
