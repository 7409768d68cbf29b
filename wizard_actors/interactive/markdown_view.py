"""Markdown as rich draws it, but for what rich would leave out or move: images, wide tables, numbers of long lists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import ClassVar, Final

from markdown_it.token import Token
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import ListItem, Markdown, MarkdownElement, Paragraph, TableElement
from rich.style import Style
from rich.table import Table
from rich.text import Text

from wizard_actors.cli_output import CONTROLS
from wizard_actors.interactive.markdown_blocks import PARSER

__all__ = ["Document", "is_pending"]

CODE_THEME: Final = "ansi_dark"
"""Code in the terminal's own colours, on its own background."""

LEAST_COLUMN: Final = 6
"""Columns of the terminal for one of a table, on average: on fewer, its cells stand one after the other."""

HEADER_LINES: Final = 2
"""The lines that make a table of a paragraph: its header, and the one below."""

TABLE_PARTS: Final = frozenset({"thead_open", "tbody_open", "tr_open", "th_open", "td_open"})

DEFINITION: Final = re.compile(r"\[[^\]]+\]:")

PENDING: Final = "pending"
DIM: Final = Style(dim=True, meta={PENDING: True})
UNDECIDED: Final = Style(meta={PENDING: True})


def is_pending(style: Style | None) -> bool:
    """Return whether what has this style will be drawn otherwise when more of the text has come."""
    return style is not None and PENDING in style.meta


class Document(Markdown):
    """A text in Markdown, to be drawn by rich.

    Images are links. The cells of a table are never cut. A row depends on what comes after it in a table alone: while
    a block is `growing`, the table at its end stands there as text, and is pending.
    """

    elements: ClassVar[dict[str, type[MarkdownElement]]]

    def __init__(self, text: str, *, growing: bool = False) -> None:
        super().__init__("", code_theme=CODE_THEME, hyperlinks=False)
        tokens = PARSER.parse(text)
        if growing:
            _mark(tokens)
        self.parsed = list(_drawable(tokens))


def _mark(tokens: Sequence[Token]) -> None:
    """Mark the table at the end, or the paragraph there that may be the header of one."""
    for place in range(len(tokens) - 1, -1, -1):
        token = tokens[place]
        if token.type == "table_open":
            token.meta[PENDING] = True
        elif token.type == "inline" and tokens[place - 1].type == "paragraph_open":
            last = token.content.split("\n")[-HEADER_LINES:]
            tokens[place - 1].meta[PENDING] = any("|" in line for line in last)
        if token.nesting >= 0 and not (token.type == "inline" or token.type in TABLE_PARTS):
            return


def _drawable(tokens: Sequence[Token]) -> Iterator[Token]:
    """Put links in the place of images, and definitions of links on lines of their own; drop control characters."""
    for token, following in zip_longest(tokens, tokens[1:]):
        token.content = token.content.translate(CONTROLS)
        if token.type == "image":
            yield Token("link_open", "a", 1, attrs={"href": token.attrs.get("src", "")})
            yield from _drawable(token.children or [])
            yield Token("link_close", "a", -1)
            continue
        if token.type == "softbreak" and following is not None and DEFINITION.match(following.content):
            token.type = "hardbreak"
        if token.children:
            token.children = list(_drawable(token.children))
        yield token


class _Paragraph(Paragraph):
    """A paragraph that may yet become the header of a table."""

    pending = False

    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> _Paragraph:
        paragraph = cls(justify=markdown.justify or "left")
        paragraph.pending = bool(token.meta.get(PENDING))
        return paragraph

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.pending:
            self.text.stylize(UNDECIDED)
        yield from super().__rich_console__(console, options)


class _Item(ListItem):
    """An item whose number takes the room that it needs, and not what a later one needs."""

    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> RenderResult:
        del last_number
        yield from super().render_number(console, options, number, number)


class _Table(TableElement):
    """A table whose cells are folded. Where there is no room for that, and until it is whole, it is drawn as text."""

    pending = False

    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> _Table:
        del markdown
        table = cls()
        table.pending = bool(token.meta.get(PENDING))
        return table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = list(self._cells())
        if self.pending:
            text = _as_text(rows)
            text.stylize(DIM)
            yield text
        elif options.max_width < LEAST_COLUMN * len(rows[0]):
            yield _as_text(rows)
        else:
            yield _as_table(rows)

    def _cells(self) -> Iterator[list[Text]]:
        """Return the rows, the header first."""
        if self.header is not None and self.header.row is not None:
            header = [cell.content.copy() for cell in self.header.row.cells]
            for cell in header:
                cell.stylize("markdown.table.header")
            yield header
        if self.body is not None:
            yield from ([cell.content for cell in row.cells] for row in self.body.rows)


def _as_text(rows: Sequence[Sequence[Text]]) -> Text:
    return Text("\n").join(Text(" | ").join(row) for row in rows)


def _as_table(rows: Sequence[Sequence[Text]]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False, style="markdown.table.border", collapse_padding=True)
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    return table


Document.elements = {
    **Markdown.elements,
    "paragraph_open": _Paragraph,
    "list_item_open": _Item,
    "table_open": _Table,
}
