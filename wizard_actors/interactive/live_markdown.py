"""An answer in Markdown, drawn while it comes.

Finished blocks are printed for good. Only the last block is drawn again, and only what of it fits on the screen: where
it is longer, its upper lines are printed for good too, so that it scrolls as any text does and nothing stands there
twice. A table is printed when it is whole: any cell may change all of it. Nothing here writes or waits: a frame is a
text for the terminal, and takes so little of the answer that it is soon drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO
from itertools import takewhile
from typing import Final

from attrs import evolve, frozen
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from wizard_actors.cli_output import CONTROLS
from wizard_actors.interactive.markdown_blocks import Block, Blocks
from wizard_actors.interactive.markdown_view import Document, is_pending

__all__ = ["LiveMarkdown", "Painter", "Row", "Size"]

STEP: Final = 2048
"""Characters of the answer that a frame takes at most: some hundredths of a second of drawing."""

SURE: Final = 32
"""Letters by which the place where the printing stopped is found again in a row that is drawn otherwise."""

NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"
"""A terminal that thinks a character wider than rich does cuts the row, rather than make two of it."""

ERASE_BELOW: Final = "\r\x1b[J"
LEAST_WIDTH: Final = 4
"""Columns of the narrowest terminal that is drawn for."""

MARGIN, NARROW = 1, 20
"""Columns left free at the right, for characters wider than they are thought to be; none on a narrow terminal."""


@frozen
class Size:
    """Columns and rows of a terminal."""

    width: int = 80
    height: int = 24


@frozen
class Row:
    """One row on the screen: `drawn` for the terminal, `cells` wide, with these `letters` that are no white space.

    One that is `pending` may be drawn as something else when more of the text has come.
    """

    drawn: str
    cells: int = 0
    letters: str = ""
    pending: bool = False


class Painter:
    """Turns texts into rows, in the colours that the terminal has and the environment wants (`NO_COLOR`)."""

    def __init__(self) -> None:
        self._page = StringIO()
        self._console = Console(file=self._page, force_terminal=True, legacy_windows=False, highlight=False)

    @property
    def can_draw(self) -> bool:
        """Whether the terminal can move its cursor."""
        return not self._console.is_dumb_terminal

    def markdown(self, text: str, width: int, *, growing: bool = False) -> list[Row]:
        """Return a text in Markdown as rows; more of it may come where it is `growing`.

        No control character gets through, however it is spelled.
        """
        options = self._console.options.update(width=max(width, LEAST_WIDTH))
        document = Document(text, growing=growing)
        rows = [self._row(row) for row in self._console.render_lines(document, options, pad=False)]
        said = [number for number, row in enumerate(rows) if row.letters]  # code and tables have empty rows about them
        return rows[said[0] : said[-1] + 1] if said else []

    def plain(self, text: str, width: int, *, style: str = "") -> list[Row]:
        """Return a text as it is, as rows in one style."""
        options = self._console.options.update(width=max(width, LEAST_WIDTH))
        shown = Text(text.translate(CONTROLS), style=style)
        return [self._row(row) for row in self._console.render_lines(shown, options, pad=False)]

    def _row(self, segments: Iterable[Segment]) -> Row:
        shown = _trimmed([Segment(each.text.translate(CONTROLS), each.style) for each in segments if not each.control])
        self._console.print(Segments(shown), end="", soft_wrap=True)
        drawn = self._page.getvalue()
        self._page.seek(0)
        self._page.truncate()
        letters = "".join("".join(each.text.split()) for each in shown)
        return Row(drawn, Segment.get_line_length(shown), letters, any(is_pending(each.style) for each in shown))


def _trimmed(segments: list[Segment]) -> list[Segment]:
    """Return a row without the spaces at its end that nobody sees."""
    while segments and not segments[-1].text.strip() and not _is_seen(segments[-1].style):
        segments.pop()
    if segments and not _is_seen(segments[-1].style):
        segments[-1] = Segment(segments[-1].text.rstrip(), segments[-1].style)
    return segments


def _is_seen(style: Style | None) -> bool:
    return style is not None and bool(style.bgcolor or style.underline or style.reverse or style.strike)


class LiveMarkdown:
    """One answer on a terminal. What `frame` and `finish` return is to be written in that order, each whole."""

    def __init__(self, painter: Painter) -> None:
        self._painter = painter
        self._waiting = ""
        self._blocks = Blocks()
        self._status = ""
        self._region: list[Row] = []
        """What stands on the screen and may be drawn again; the cursor is at the beginning of the row below."""
        self._width = 0
        self._begun = False
        """Whether a block has been printed, so that the next one follows after an empty row."""
        self._printed: list[Row] = []
        """The upper rows of what is unfinished, as far as they are printed for good."""

    def add(self, text: str) -> None:
        """Take some more of the answer."""
        self._status = ""
        self._waiting += text.translate(CONTROLS)

    def say(self, status: str) -> None:
        """Show what goes on, below the answer, until more of it comes."""
        self._status = status

    @property
    def is_behind(self) -> bool:
        """Whether there is more than the next frame will show."""
        return len(self._waiting) > STEP

    def frame(self, size: Size) -> str:
        """Return what makes the terminal show what there is, or the next part of it: then `is_behind` holds before."""
        behind = self.is_behind
        final = [row for block in self._taken() for row in self._for_good(block, size)]
        if behind and not final:
            return ""
        gone = self._rows_taken(size)
        rest = [] if behind else self._not_printed(self._unfinished(size), size)
        room = max(size.height - 2, 1)  # a row for the cursor, and one for a terminal that shrinks
        settled = sum(1 for _ in takewhile(lambda row: not row.pending, rest))
        over = rest[: min(max(len(rest) - room, 0), settled)]
        self._printed += over
        status = self._painter.plain(self._status, size.width, style="dim")[:1] if self._status else []
        return self._redraw(gone, [*final, *over], [*rest[len(over) :][-room:], *status], size)

    def finish(self, size: Size) -> str:
        """Return what makes the terminal show the answer as it is, for good.

        Of what no frame has taken it draws no more than a frame would: an answer that is stopped does not go on.
        """
        gone = self._rows_taken(size)
        self._status = ""
        blocks = (*self._taken(), *self._blocks.unfinished())
        final = [row for block in blocks for row in self._for_good(block, size)]
        self._blocks, self._printed, self._waiting = Blocks(), [], ""
        return self._redraw(gone, final, [], size)

    def _taken(self) -> tuple[Block, ...]:
        """Take the next part of the answer, and return the blocks that are finished with it."""
        self._blocks.add(self._waiting[:STEP])
        self._waiting = self._waiting[STEP:]
        return self._blocks.finished()

    # -- rows

    def _for_good(self, block: Block, size: Size) -> list[Row]:
        """Return what is to be printed of a block that is finished."""
        rows = self._rows(block, size, apart=self._begun)
        self._begun = self._begun or bool(rows)
        printed = self._printed
        rest = self._not_printed(rows, size)
        self._printed = printed[_as_far_as(rows, printed, same_width=size.width == self._width) :]
        return rest

    def _unfinished(self, size: Size) -> list[Row]:
        rows: list[Row] = []
        for block in self._blocks.unfinished():
            if rows:  # a line that is not whole seems to begin a block, and may yet go on with the one before it
                rows[-1] = evolve(rows[-1], pending=True)
            rows += self._rows(block, size, apart=self._begun or bool(rows), growing=True)
        return rows

    def _rows(self, block: Block, size: Size, *, apart: bool, growing: bool = False) -> list[Row]:
        """Return the rows of a block, an empty one before them where it stands `apart` from another."""
        width = size.width - MARGIN if size.width > NARROW else size.width
        rows = self._painter.markdown(block.text, width, growing=growing)
        return [Row(""), *rows] if rows and apart and not block.goes_on else rows

    def _not_printed(self, rows: list[Row], size: Size) -> list[Row]:
        """Return the rows that are not printed for good; the ones that are count as they are broken now."""
        count = _as_far_as(self._printed, rows, same_width=size.width == self._width)
        self._printed = rows[:count]
        return rows[count:]

    # -- the terminal

    def _rows_taken(self, size: Size) -> int:
        """Return how many rows of the screen the region takes now: a narrower terminal has broken its rows anew."""
        if size.width == self._width:
            return len(self._region)
        return sum(max(-(-min(row.cells, self._width) // max(size.width, 1)), 1) for row in self._region)

    def _redraw(self, taken: int, final: list[Row], region: list[Row], size: Size) -> str:
        same = 0
        if size.width == self._width:
            pairs = zip(self._region, [*final, *region], strict=False)
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        up = taken - same
        self._region, self._width = region, size.width
        new_final, new_region = final[same:], region[max(same - len(final), 0) :]
        if not (up or new_final or new_region):
            return ""
        move = f"\x1b[{up}A" if up else ""
        return f"{move}{ERASE_BELOW}{_lines(new_final)}{NO_WRAP}{_lines(new_region)}{WRAP}"


def _lines(rows: Iterable[Row]) -> str:
    return "".join(f"{row.drawn}\n" for row in rows)


def _as_far_as(printed: Sequence[Row], rows: Sequence[Row], *, same_width: bool) -> int:
    """Return how many of `rows` are printed.

    On a terminal of another width they are broken otherwise, and so they are where marks in the text have found their
    counterparts, which come late, and are no letters any more.
    """
    if not printed:
        return 0
    if same_width and all(old.letters == new.letters for old, new in zip(printed, rows, strict=False)):
        return len(printed)
    place, seen = _place(_letters(printed), _letters(rows)), 0
    for number, row in enumerate(rows):
        seen += len(row.letters)
        if seen > place:
            return number
    return len(rows)


def _place(printed: str, letters: str) -> int:
    """Return up to where `letters` are `printed`: by their beginning, or else by the end of what was printed."""
    if letters.startswith(printed) or printed.startswith(letters):
        return len(printed)
    end = printed[-SURE:]
    found = letters.rfind(end, 0, len(printed) + SURE)
    return found + len(end) if found >= 0 else len(printed)


def _letters(rows: Iterable[Row]) -> str:
    return "".join(row.letters for row in rows)
