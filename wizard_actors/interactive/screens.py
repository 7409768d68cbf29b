"""Where a chat is seen: on a terminal, with Markdown drawn while it comes, or in a pipe, as plain text."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import trio

from wizard_actors.cli_output import Errors, Output
from wizard_actors.errors import StorageError
from wizard_actors.interactive.live_markdown import LiveMarkdown, Painter, Size
from wizard_actors.response_stream import ResponseStream
from wizard_actors.types import ReasoningDelta, Reset, TextDelta

__all__ = ["Drawn", "Piped", "Screen", "UnwritableError", "size_of"]

FRAME: Final = 0.05
"""Seconds between two frames, at least."""

DRAWING_SHARE: Final = 4
"""How many times as long as the last frame took the next one waits: a long block is drawn less often."""

THINKING: Final = "thinking ..."


class UnwritableError(Exception):
    """Raised when what is said cannot be written; `error` says why. It is no failure of a turn: the chat ends."""

    def __init__(self, error: StorageError) -> None:
        super().__init__(error.message)
        self.error = error


def _void(event: Reset) -> str:
    return f"{event.model} broke off ({event.reason}): the text so far is void, the answer starts again"


class Screen(Protocol):
    """What a chat shows. Every method raises `BrokenPipeError` where nobody reads it, and `UnwritableError`."""

    async def show(self, events: ResponseStream) -> None:
        """Show an answer as it comes. Raises what reading it raises; what has been shown stays."""

    async def settle(self) -> None:
        """End the line, and whatever else the answer has left open: it goes no further."""

    async def text(self, text: str) -> None:
        """Show what a command answers: whole lines."""

    async def note(self, text: str) -> None:
        """Say something about the conversation, in a line."""

    async def failure(self, text: str) -> None:
        """Say what went wrong, in a line."""


class Piped:
    """Shows answers as plain text, and all else on standard error: in pipes, on terminals that cannot move a cursor."""

    def __init__(self, output: Output, errors: Errors) -> None:
        self._output = output
        self._errors = errors
        self._midway = False

    async def show(self, events: ResponseStream) -> None:
        """Print the text as it comes; after a reset it begins on a new line."""
        async for event in events:
            if isinstance(event, TextDelta):
                self._midway = True
                await self._print(event.text)
            elif isinstance(event, Reset):
                await self.settle()
                await self.note(_void(event))
        self._midway = True  # an answer without any text is a line too

    async def settle(self) -> None:
        """End the line."""
        midway, self._midway = self._midway, False
        if midway:
            await self._print("\n")

    async def text(self, text: str) -> None:
        """Print the lines on standard error."""
        await trio.lowlevel.checkpoint()
        self._errors.text(text)

    async def _print(self, text: str) -> None:
        try:
            await self._output.text(text)
        except StorageError as error:
            raise UnwritableError(error) from error

    async def note(self, text: str) -> None:
        """Print a line on standard error."""
        await trio.lowlevel.checkpoint()
        self._errors.note(text)

    async def failure(self, text: str) -> None:
        """Print a line on standard error."""
        await self.note(text)


class Drawn:
    """Draws on a terminal. Notes and errors stand there too, between the answers: dim, and red."""

    def __init__(self, output: Output, painter: Painter, size: Callable[[], Size]) -> None:
        self._output = output
        self._painter = painter
        self._size = size
        self._live: LiveMarkdown | None = None

    async def show(self, events: ResponseStream) -> None:
        """Draw the answer while it comes, in a task of its own: its last words stand there while the next ones wait."""
        live = LiveMarkdown(self._painter)
        self._live = live
        drawing = _Drawing(live, self._draw)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drawing.run, nursery.cancel_scope)
            try:
                async for event in events:
                    if isinstance(event, Reset):
                        await self.settle()
                        await self.note(_void(event))
                        self._live = drawing.live = live = LiveMarkdown(self._painter)
                    elif isinstance(event, TextDelta):
                        live.add(event.text)
                    elif isinstance(event, ReasoningDelta):
                        live.say(THINKING)
                    drawing.news.set()
            except Exception as error:  # noqa: BLE001 - raised again below, and not in a group
                drawing.failed = drawing.failed or error
            drawing.end()
        if drawing.failed is not None:
            raise drawing.failed

    async def settle(self) -> None:
        """Draw what is left of the answer, for good."""
        live, self._live = self._live, None
        if live is not None:
            await self._draw(live.finish)
            await self._write("\n")  # answers stand apart

    async def text(self, text: str) -> None:
        """Show lines as they are."""
        await self._say(text, "")

    async def note(self, text: str) -> None:
        """Show a dim line."""
        await self._say(text, "dim")

    async def failure(self, text: str) -> None:
        """Show a red line."""
        await self._say(text, "red")

    async def _say(self, text: str, style: str) -> None:
        rows = self._painter.plain(text.removesuffix("\n"), self._size().width, style=style)
        await self._write("".join(f"{row.drawn}\n" for row in rows))

    async def _draw(self, frame: Callable[[Size], str]) -> None:
        await self._write(frame(self._size()))

    async def _write(self, drawn: str) -> None:
        if not drawn:
            return
        data = drawn.encode("utf-8", "replace")
        try:
            await trio.to_thread.run_sync(self._output.write_now, data, abandon_on_cancel=True)
        except StorageError as error:
            raise UnwritableError(error) from error


class _Drawing:
    """Draws an answer whenever there are `news`, but not too often."""

    def __init__(self, live: LiveMarkdown, draw: Callable[[Callable[[Size], str]], Awaitable[None]]) -> None:
        self.live = live
        self.news = trio.Event()
        self.failed: Exception | None = None
        self._draw = draw
        self._over = trio.Event()

    def end(self) -> None:
        """Draw no more."""
        self._over.set()
        self.news.set()

    async def run(self, reading: trio.CancelScope) -> None:
        """Draw until the end. What keeps it from drawing ends the `reading`."""
        try:
            while self.live.is_behind or not self._over.is_set():
                await self.news.wait()
                self.news = trio.Event()
                begun, in_part = trio.current_time(), self.live.is_behind
                await self._draw(self.live.frame)
                if in_part:
                    self.news.set()
                await self._rest(trio.current_time() - begun)
        except (BrokenPipeError, UnwritableError) as error:
            self.failed = error
            reading.cancel()

    async def _rest(self, taken: float) -> None:
        """Wait before the next frame, of which the last one has taken so long, unless there is more to draw."""
        if self.live.is_behind:
            await trio.lowlevel.checkpoint()  # a frame that draws nothing writes nothing either
            return
        with trio.move_on_after(max(FRAME, DRAWING_SHARE * taken)):
            await self._over.wait()


def size_of(descriptor: int) -> Size:
    """Return the size of the terminal behind a file; one that does not know its own is 80 columns by 24 rows."""
    try:
        width, height = os.get_terminal_size(descriptor)
    except OSError:
        return Size()
    return Size(width or Size().width, height or Size().height)
