"""Sessions as files: what is read of them, and written. All of it waits, so it is for a thread."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

from wizard_actors.conversion import from_os
from wizard_actors.errors import InvalidPromptError, SerializationError
from wizard_actors.session_record import SessionRecord
from wizard_actors.session_text import MAX_TEXT, from_json, from_markdown, to_json, to_markdown
from wizard_actors.whole_file import is_special, write_all, write_over

__all__ = ["FORMATS", "read_input", "record_of", "write_file"]

PIECE: Final = 2**20

FORMATS: Final[Mapping[Literal["markdown", "json"], Callable[[SessionRecord], str]]] = {
    "markdown": to_markdown,
    "json": to_json,
}


def read_input(file: str) -> bytes:
    """Return what a file holds, or for "-" standard input. Raises `InvalidPromptError` where it cannot be read."""
    if file == "-" and sys.stdin is None:
        raise InvalidPromptError("there is no standard input to read the session from: it is closed")
    named = "standard input" if file == "-" else file
    pieces, size = [], 0
    try:
        # Not through Python's buffer: a thread left behind in it would hold up the interpreter's exit.
        with open(sys.stdin.fileno() if file == "-" else file, "rb", buffering=0, closefd=file != "-") as source:
            while piece := source.read(PIECE):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_TEXT:
                    raise InvalidPromptError(f"{named} is longer than {MAX_TEXT} bytes")
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidPromptError(f"{named} cannot be read: {reason}") from error
    return b"".join(pieces)


def record_of(data: bytes, file: str, name: str | None) -> SessionRecord:
    """Return the session that was exported as `data`, under the name `name` where that is given: JSON where it begins
    like that, whatever the file is called, or where the file's name says so and it does not begin like Markdown.

    Raises `SerializationError`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SerializationError(f"is not UTF-8 text: {error.reason} at byte {error.start}") from None
    begins = text.lstrip()[:1]
    if begins == "{" or (begins != "#" and Path(file).suffix.lower() == ".json"):
        return from_json(text, session=name)
    return from_markdown(text, session=name)


def write_file(file: str, text: str) -> None:
    """Write a file anew, in UTF-8: whole or not at all, so that what was there stays where this fails. A new one can be
    read by its owner alone, as the storages can; one that was there keeps its rights. What is special is written to.

    Raises `StorageError` where that fails.
    """
    try:
        if is_special(file):
            _append(file, text.encode())
        else:
            write_over(Path(file), text)
    except OSError as error:
        raise from_os(error, file) from error


def _append(file: str, data: bytes) -> None:
    """Write to what may stand behind a redirection: what is there already is not ours to cut off."""
    handle = os.open(file, os.O_WRONLY | os.O_APPEND)
    try:
        write_all(handle, data)
    finally:
        os.close(handle)
