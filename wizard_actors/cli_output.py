"""What the command line prints: answers, events and tables on standard output, notes and errors on standard error.

Both are written unbuffered: the first byte of an answer leaves at once, and nothing is left over for the interpreter's
own exit, which would complain about a broken pipe.
"""

from __future__ import annotations

import select
import traceback
from collections.abc import Mapping
from enum import IntEnum
from io import RawIOBase, StringIO
from typing import Final, TextIO, cast

import msgspec
import trio
from rich.console import Console
from rich.table import Table

from wizard_actors.conversion import from_os
from wizard_actors.errors import ConfigError, InvalidPromptError, UnsupportedError, WizardError

__all__ = ["Errors", "ExitStatus", "Output", "exit_status"]


class ExitStatus(IntEnum):
    """How the program ended, as the shell sees it."""

    OK = 0
    FAILED = 1
    WRONG = 2  # the input or the configuration
    BUG = 70  # sysexits.h: an internal software error
    HUNG_UP = 129  # 128 and the number of the signal, as a shell says it
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


THE_USERS: Final = (ConfigError, InvalidPromptError, UnsupportedError)
"""What is wrong with the input or the configuration, not with a model."""

CONTROLS: Final = {
    **dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "\N{REPLACEMENT CHARACTER}"),
    ord("\n"): "\n",
    ord("\t"): "\t",
    ord("\r"): None,
    **dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x2070), 0x2028, 0x2029), "\N{REPLACEMENT CHARACTER}"),
    **dict.fromkeys((0x061C, 0x200B, 0x200E, 0x200F, *range(0x2060, 0x2066), 0xFEFF), None),
}
"""What a terminal is shown in place of control characters: a model's text is not to move its cursor or worse.

So are the ones that turn the direction of a text, or part its lines elsewhere. Marks without a width are left out, for
they order what stands beside them; joiners (U+200C, U+200D) stay, without which some scripts are misspelled.
"""

UNBOUNDED: Final = 10_000
"""Columns of a table that goes into a file or a pipe: nothing in it is cut or wrapped."""


def exit_status(error: WizardError) -> ExitStatus:
    """Return the status with which a command ends because of `error`."""
    return ExitStatus.WRONG if isinstance(error, THE_USERS) else ExitStatus.FAILED


# -- standard output -------------------------------------------------------------------------------------------------


class Output:
    """Standard output. Every write raises `BrokenPipeError` where nobody reads it, and `StorageError` where it fails.

    Writing waits while the reader does, in a thread of its own: a reader that stops holds the answer back, but neither
    the event loop nor Ctrl-C. Cancelling leaves that thread behind with what it was writing.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """Write to `stream`'s file. None, which Python makes of a closed standard output, has no reader either."""
        self._raw = _raw(stream)
        self._encoding = "utf-8" if stream is None else stream.encoding
        self.is_terminal = stream is not None and stream.isatty()

    async def text(self, text: str) -> None:
        """Print `text`; on a terminal without its control characters."""
        shown = text.translate(CONTROLS) if self.is_terminal else text
        await self._write(shown.encode(self._encoding, "replace"))

    async def json(self, value: Mapping[str, object]) -> None:
        """Print one JSON object on a line of its own, in UTF-8."""
        await self._write(_json_line(value))

    async def tables(self, *tables: Table) -> None:
        """Print tables, a blank line between them: as wide as the terminal, elsewhere as wide as they need to be."""
        page = StringIO()
        console = self.console(page, width=None if self.is_terminal else UNBOUNDED)
        for number, table in enumerate(tables):
            if number:
                console.print()
            console.print(table)
        await self._write(self.rendered(page))

    def console(self, page: StringIO, *, width: int | None = None) -> Console:
        """Return a console that writes to `page` what would suit this output; `width` None: the terminal's, or 80."""
        return Console(file=page, force_terminal=self.is_terminal, width=width, legacy_windows=False)

    def rendered(self, page: StringIO) -> bytes:
        """Return what a console wrote to `page`, without the spaces that fill its lines up."""
        text = "".join(f"{line.rstrip()}\n" for line in page.getvalue().removesuffix("\n").split("\n"))
        return text.encode(self._encoding, "replace")

    def write_now(self, data: bytes) -> None:
        """Print bytes, and wait for the reader here. For before anything else runs."""
        if self._raw is None:
            raise BrokenPipeError
        try:
            _write_all(self._raw, data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise from_os(error, "standard output") from error

    async def _write(self, data: bytes) -> None:
        await trio.to_thread.run_sync(self.write_now, data, abandon_on_cancel=True)


def _raw(stream: TextIO | None) -> RawIOBase | None:
    """Return the unbuffered file below `stream`."""
    buffer = None if stream is None else stream.buffer
    # Where Python itself runs unbuffered, the buffer is the raw file.
    return cast("RawIOBase | None", getattr(buffer, "raw", buffer))


def _write_all(raw: RawIOBase, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        written = raw.write(rest)
        if written is None:  # somebody made the file non-blocking
            select.select([], [raw], [])
        else:
            rest = rest[written:]


def _json_line(value: object) -> bytes:
    return msgspec.json.encode(_encodable(value)) + b"\n"


def _encodable(value: object) -> object:
    """Return `value` with lone surrogates escaped: arguments and file names that are not UTF-8 bring them."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case Mapping():
            return {_encodable(key): _encodable(item) for key, item in value.items()}
        case list() | tuple():
            return [_encodable(item) for item in value]
    return value


# -- standard error --------------------------------------------------------------------------------------------------


class Errors:
    """Standard error: a line a message, with `as_json` an object a line.

    Writing never raises: there is nobody left to tell.
    """

    def __init__(self, stream: TextIO | None, *, as_json: bool = False, verbose: bool = False) -> None:
        """Write to `stream`'s file. With `verbose`, a bug comes with its traceback."""
        self._raw = _raw(stream)
        self._as_json = as_json
        self._verbose = verbose

    def note(self, message: str) -> None:
        """Say something that is no error."""
        self._say(message, {"note": message})

    def text(self, text: str) -> None:
        """Say whole lines as they are: a list, say."""
        self._write(text.translate(CONTROLS).encode("utf-8", "backslashreplace"))

    def usage(self, message: str) -> ExitStatus:
        """Report a command line that cannot be understood, and return the exit status."""
        self._say(message, {"code": "usage", "message": message})
        return ExitStatus.WRONG

    def failure(self, error: WizardError) -> ExitStatus:
        """Report why there is no answer, and return the exit status. Each problem of a configuration gets its line."""
        if isinstance(error, ConfigError) and not self._as_json:
            where = "" if error.file is None else f"{error.file}: "
            for problem in error.problems:
                self._say(f"{where}{problem}", {})
        else:
            self._say(error.message, error.to_dict())
        return exit_status(error)

    def bug(self, error: Exception) -> ExitStatus:
        """Report what nobody foresaw, and return the exit status."""
        advice = "" if self._verbose else "; --verbose shows where"
        message = f"this is a bug of wizard: {type(error).__name__}: {error} (please report it{advice})"
        self._say(message, {"code": "bug", "message": message})
        if self._verbose:
            self._write("".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace"))
        return ExitStatus.BUG

    def _say(self, message: str, as_json: Mapping[str, object]) -> None:
        line = " ".join(message.translate(CONTROLS).split())
        text = f"wizard: {line}\n".encode("utf-8", "backslashreplace")
        self._write(_json_line(as_json) if self._as_json else text)

    def _write(self, data: bytes) -> None:
        if self._raw is None:
            return
        try:
            _write_all(self._raw, data)
        except OSError:
            self._raw = None
