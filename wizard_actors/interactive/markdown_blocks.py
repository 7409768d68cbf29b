"""Markdown that is still being written, cut into blocks: what is finished, and what may change yet. Pure.

Markdown is decided line by line: once a further block has begun, nothing that comes can change the ones before it. The
definition of a link could, so that it is no more than text here. A line is only judged when it is whole: `#` may become
`# Title`, which begins a block, or `#1`, which goes on with the paragraph before it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from attrs import frozen
from markdown_it import MarkdownIt

__all__ = ["LONGEST", "PARSER", "Block", "Blocks"]

PARSER: Final = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("reference")
"""Markdown as rich shows it, but for HTML and definitions: rich leaves them out, and a text is to lose nothing."""

LONGEST: Final = 6 * 1024
"""Characters of a block from which on it is cut in two: every one that comes means that all of it is drawn again."""

UTMOST: Final = 4 * LONGEST
"""Characters from which on it is cut wherever a line ends, and a line anywhere."""

OPENING: Final = {"fence": 1, "table_open": 2}
"""Lines with which such a block begins, and which the second part has as well."""


@frozen
class Block:
    """A block of Markdown; where it `goes_on`, it is a further part of a long one, and no empty row parts them."""

    text: str
    goes_on: bool = False


class Blocks:
    """A text in Markdown as it comes: `tail` is what has come of its last block, and of a line that may begin another.

    The blocks that `finished` has returned and `tail`, put together, are the text, but for what opens the parts of a
    fence or a table of more than `LONGEST` characters anew. Its lines end with a line feed, and it has no carriage
    return.
    """

    def __init__(self) -> None:
        self.tail = ""
        self._seen = 0
        """Characters of `tail`, all of them whole lines, that hold no finished block."""
        self._goes_on = False

    def add(self, text: str) -> None:
        """Take some more of the text."""
        self.tail += text

    def finished(self) -> tuple[Block, ...]:
        """Return the blocks that are finished, with the empty lines after them, and keep the rest."""
        whole = self.tail.rfind("\n") + 1
        if whole == self._seen and len(self.tail) <= UTMOST:
            return ()
        *texts, last = _cut(self.tail[:whole]) if whole else ("",)
        rest = self.tail[whole:]
        blocks = [self._block(text) for text in texts]
        while len(last) > LONGEST and (parts := _parts(last)):
            first, last = parts
            blocks.append(self._block(first, to_be_continued=True))
        if len(last) + len(rest) > UTMOST:
            place = len(last) or UTMOST
            blocks.append(self._block(f"{last}{rest}"[:place], to_be_continued=True))
            last, rest = "", f"{last}{rest}"[place:]
        self.tail, self._seen = last + rest, len(last)
        return tuple(blocks)

    def unfinished(self) -> tuple[Block, ...]:
        """Return the rest, cut as it would be if nothing came after it."""
        first, *others = _cut(f"{self.tail}\n")
        return (Block(first, self._goes_on), *map(Block, others))

    def _block(self, text: str, *, to_be_continued: bool = False) -> Block:
        goes_on, self._goes_on = self._goes_on, to_be_continued
        return Block(text, goes_on)


def _cut(text: str) -> tuple[str, ...]:
    """Cut whole lines where the outermost blocks begin; there is one at least."""
    tokens = (token for token in PARSER.parse(text) if token.level == 0 and token.nesting >= 0)
    starts = [token.map[0] for token in tokens if token.map]
    lines = _lines(text)
    return tuple("".join(lines[first:end]) for first, end in pairwise([0, *starts[1:], len(lines)]))


def _parts(text: str) -> tuple[str, str] | None:
    """Cut a long block in two that are drawn as the whole one would be; None where nothing in it ends."""
    tokens = [token for token in PARSER.parse(text) if token.map and token.nesting >= 0]
    if not tokens:
        return None
    lines, kind, (begin, _) = _lines(text), tokens[0].type, tokens[0].map or (0, 0)
    opening = lines[begin : begin + OPENING.get(kind, 0)]
    if opening:
        first, places = begin + len(opening) + 1, range(len(lines) - 1, 0, -1)
        between = (place for place in places if lines[place - 1].strip() and lines[place].strip())
        place = next(between, 0)
    else:
        first = begin + 1
        place = max((token.map[0] for token in tokens if token.level == 1 and token.map), default=0)
    again = "".join(opening)
    if place < first or len(again) > LONGEST // 2:
        return None
    return "".join(lines[:place]), again + "".join(lines[place:])


def _lines(text: str) -> list[str]:
    return [f"{line}\n" for line in text.removesuffix("\n").split("\n")]
