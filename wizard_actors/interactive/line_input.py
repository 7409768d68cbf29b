"""Where the lines of a chat come from: a person at a terminal, or a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, Protocol, TextIO

import trio
from attrs import frozen
from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application, run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus, is_searching
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth

from wizard_actors.cli_signals import Signals
from wizard_actors.errors import InvalidPromptError

if sys.platform == "win32":
    GONE: tuple[type[Exception], ...] = (OSError,)
else:
    import termios

    GONE = (OSError, termios.error)

__all__ = ["Cleared", "Ended", "Lines", "PipedLines", "TerminalLines", "Typed", "quiet_keys"]

PROMPT: Final = "> "
LONGEST_LINE: Final = 64 * 2**20
"""Bytes of a line from a pipe, at most."""

CompletionsOf = Callable[[str], tuple[str, list[str]]]


@frozen
class Typed:
    """A line, or several that are one message."""

    text: str


@frozen
class Cleared:
    """Ctrl-C at the prompt; `empty`: there was nothing to clear."""

    empty: bool


@frozen
class Ended:
    """No more lines."""


class Lines(Protocol):
    """Gives one line after the other."""

    async def read(self) -> Typed | Cleared | Ended:
        """Wait for the next line. Cancelled, it leaves the terminal as it was.

        Raises `InvalidPromptError` for a line that is no text; the next one can be read.
        """


# -- a pipe ------------------------------------------------------------------------------------------------------------


class PipedLines:
    """Lines of a pipe or a file, read as they come."""

    def __init__(self, stream: TextIO | None) -> None:
        """Read `stream`'s file; None: standard input is closed, and there is no line."""
        self._stream = stream
        self._data = bytearray()
        self._searched = 0
        self._whole = stream is None

    async def read(self) -> Typed | Ended:
        """Return the next line, without its end. Cancelled, it leaves a thread behind, and what that reads."""
        await trio.lowlevel.checkpoint()
        while (end := self._data.find(b"\n", self._searched)) < 0 and not self._whole:
            self._searched = len(self._data)
            await self._more()
        return Typed(_text(self._taken(end))) if self._data else Ended()

    def _taken(self, end: int) -> bytes:
        line = bytes(self._data if end < 0 else self._data[:end])
        del self._data[: len(line) + 1]
        self._searched = 0
        return line

    async def _more(self) -> None:
        # Not through Python's buffer: a thread left behind in it would hold up the interpreter's exit.
        piece = await trio.to_thread.run_sync(self._piece, abandon_on_cancel=True)
        self._whole = not piece
        self._data += piece
        if len(self._data) > LONGEST_LINE:
            self._whole, self._data = True, bytearray()
            raise InvalidPromptError(
                f"a line on standard input is longer than {LONGEST_LINE} bytes: nothing more is read"
            )

    def _piece(self) -> bytes:
        if self._stream is None:
            return b""
        try:
            return os.read(self._stream.fileno(), 2**16)
        except OSError as error:
            self._whole = True
            raise InvalidPromptError(f"standard input cannot be read: {error.strerror}") from error


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise InvalidPromptError(f"the line is not UTF-8 text: {error.reason} at byte {error.start}") from None


# -- a person ----------------------------------------------------------------------------------------------------------


class _LeftError(Exception):
    """Raised where the prompt is left from outside."""


class _ClearedError(Exception):
    """Raised by Ctrl-C; its argument says whether there was nothing to clear."""


class TerminalLines:
    """Lines that a person edits at the prompt: with a history, and completion of commands."""

    def __init__(self, history: History, completions: CompletionsOf, *, colors: bool, stop: Callable[[], None]) -> None:
        """Edit lines; `stop` is what Ctrl-Z calls, in another thread and on a terminal that is put right: it returns
        when the program goes on.
        """
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation="  ",
            history=history,
            completer=_Commands(completions),
            complete_while_typing=False,
            key_bindings=_keys(stop),
            color_depth=None if colors else ColorDepth.DEPTH_1_BIT,
        )

    async def read(self) -> Typed | Cleared | Ended:
        """Show the prompt, and wait for a line, in a thread: the prompt has an event loop of its own.

        Cancelled, it leaves the prompt, and returns when the terminal is as it was.
        """
        prompting = _Prompting(self._session)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prompting.leave_when_cancelled)
            line = await trio.to_thread.run_sync(prompting.run)
            nursery.cancel_scope.cancel()
        await trio.lowlevel.checkpoint()
        return line


class _Prompting:
    """One prompt, and its end from outside."""

    def __init__(self, session: PromptSession[str]) -> None:
        self._session = session
        self._left = False

    def run(self) -> Typed | Cleared | Ended:
        """Prompt for a line, in this thread."""
        try:
            return Typed(self._session.prompt(pre_run=self._begin))
        except _ClearedError as cleared:
            return Cleared(cleared.args[0])
        except (EOFError, _LeftError, *GONE):  # the terminal's errors: it is gone
            return Ended()

    async def leave_when_cancelled(self) -> None:
        """Leave the prompt when this task is cancelled."""
        try:
            await trio.sleep_forever()
        finally:
            self._left = True
            loop = self._session.app.loop
            if loop is not None:
                with suppress(RuntimeError):  # it has just been closed
                    loop.call_soon_threadsafe(self._leave)

    def _begin(self) -> None:
        self._session.app.layout.focus(DEFAULT_BUFFER)  # a prompt that was left while searching has another one
        if self._left:  # before it began
            self._leave()

    def _leave(self) -> None:
        app: Application[str] = self._session.app
        if app.future is not None and not app.future.done():
            app.exit(exception=_LeftError())


def _keys(stop: Callable[[], None]) -> KeyBindings:
    """Return the keys that mean something else here: Enter sends, Alt-Enter begins another line."""
    keys = KeyBindings()
    editing = has_focus(DEFAULT_BUFFER) & ~is_searching  # a search has its own Enter and Ctrl-C

    @keys.add("enter", filter=editing)
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=editing)
    def begin_another_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c", filter=editing)
    def clear(event: KeyPressEvent) -> None:
        event.app.exit(exception=_ClearedError(not event.current_buffer.text), style="class:aborting")

    @keys.add("c-z")
    async def stop_the_program(_event: KeyPressEvent) -> None:
        await run_in_terminal(stop)

    return keys


class _Commands(Completer):
    """Completes commands, and names after them."""

    def __init__(self, completions: CompletionsOf) -> None:
        self._completions = completions

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what the word before the cursor may become."""
        word, found = self._completions(document.text_before_cursor)
        return (Completion(each, start_position=-len(word)) for each in found)


@contextmanager
def quiet_keys(stream: TextIO, signals: Signals) -> Iterator[None]:
    """Show no key that is pressed while an answer is drawn; it is kept for the prompt, also after Ctrl-C. At the end
    the terminal is as it was, and so it is where a signal ends or stops the process.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = stream.fileno()
    before, quiet = termios.tcgetattr(descriptor), termios.tcgetattr(descriptor)
    quiet[3] &= ~(termios.ECHO | termios.ICANON)  # in lines, a Ctrl-D typed ahead would be lost
    quiet[3] |= termios.NOFLSH

    def put_right() -> Callable[[], None]:
        try:
            now = termios.tcgetattr(descriptor)
        except termios.error:  # a terminal that is gone needs nothing
            now = quiet
        _set(descriptor, before)
        return partial(_set, descriptor, now)

    with signals.at_terminal(put_right):
        _set(descriptor, quiet)
        try:
            yield
        finally:
            _set(descriptor, before)


def _set(descriptor: int, modes: list[Any]) -> None:
    """Set a terminal's modes; one that is gone has none."""
    if sys.platform != "win32":
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, modes)
