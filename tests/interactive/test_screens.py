"""Answers on the screen of a chat."""

import sys
import threading
from collections.abc import AsyncIterator
from typing import cast

import trio

from wizard_actors.cli_output import Output
from wizard_actors.interactive.live_markdown import Painter, Size
from wizard_actors.interactive.screens import Drawn
from wizard_actors.response_stream import ResponseStream
from wizard_actors.types import TextDelta


class Written(Output):
    """Keeps what is printed."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self.data = b""
        self.begun = threading.Event()

    def write_now(self, data: bytes) -> None:
        """Print bytes."""
        self.data += data
        self.begun.set()


def stream_of(*texts: str) -> ResponseStream:
    """Return a stream of texts."""

    async def events() -> AsyncIterator[TextDelta]:
        for text in texts:
            await trio.lowlevel.checkpoint()
            yield TextDelta(text)

    return cast("ResponseStream", events())


def code(lines: int) -> str:
    """Return a long block of code."""
    return "```python\n" + "".join(f"def f{number}(): pass\n" for number in range(lines)) + "```\n"


async def test_an_answer_that_comes_at_once_is_drawn_to_its_end() -> None:
    """In steps, without anything that has to come after it."""
    written = Written()
    screen = Drawn(written, Painter(), Size)
    await screen.show(stream_of(code(500), "The end."))
    await screen.settle()
    assert b"f499" in written.data
    assert written.data.count(b"The end.") == 1


async def test_an_answer_that_is_long_to_draw_can_be_stopped() -> None:
    """Whoever wants to stop it has a turn between any two steps, and what has not been drawn is not drawn then."""
    written = Written()
    screen = Drawn(written, Painter(), Size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(screen.show, stream_of(code(5000)))
        await trio.to_thread.run_sync(written.begun.wait, 30)
        nursery.cancel_scope.cancel()
    await screen.settle()
    assert b"f10" in written.data
    assert b"f4000" not in written.data
