"""Markdown that is still being written, cut into blocks: what is finished, and what may change yet. Pure.

Markdown is decided line by line: once a further block has begun, nothing that comes can change the ones before it but
the definition of a link, which is let be. A line is only judged when it is whole: `#` may become `# Title`, which
begins a block, or `#1`, which goes on with the paragraph before it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from markdown_it import MarkdownIt

__all__ = ["PARSER", "Blocks"]

PARSER: Final = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
"""Markdown as rich shows it, but for HTML: rich leaves that out, and a text is not to lose anything."""


class Blocks:
    """A text in Markdown as it comes: `tail` is what has come of its last block, and of a line that may begin another.

    The blocks that `finished` has returned and `tail`, put together, are the text. Its lines end with a line feed, and
    it has no carriage return.
    """

    def __init__(self) -> None:
        self.tail = ""
        self._seen = 0
        """Characters of `tail`, all of them whole lines, that hold no finished block."""

    def add(self, text: str) -> None:
        """Take some more of the text."""
        self.tail += text

    def finished(self) -> tuple[str, ...]:
        """Return the blocks that are finished, with the empty lines after them, and keep the rest."""
        whole = self.tail.rfind("\n") + 1
        if whole == self._seen:
            return ()
        *blocks, last = _cut(self.tail[:whole])
        self.tail = last + self.tail[whole:]
        self._seen = len(last)
        return tuple(blocks)

    def unfinished(self) -> tuple[str, ...]:
        """Return the rest, cut as it would be if nothing came after it."""
        return _cut(f"{self.tail}\n")


def _cut(text: str) -> tuple[str, ...]:
    """Cut whole lines where the outermost blocks begin; there is one at least."""
    lines = [f"{line}\n" for line in text.removesuffix("\n").split("\n")]
    tokens = (token for token in PARSER.parse(text) if token.level == 0 and token.nesting >= 0)
    starts = [token.map[0] for token in tokens if token.map]
    return tuple("".join(lines[first:end]) for first, end in pairwise([0, *starts[1:], len(lines)]))
