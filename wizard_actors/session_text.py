"""Sessions as texts for people to keep, and back: JSON and Markdown. What comes back is what was written, exactly."""

from __future__ import annotations

import json
from typing import Final

import msgspec
from attrs import evolve

from wizard_actors import session_transcript
from wizard_actors.errors import SerializationError
from wizard_actors.session_json import decode_json, decode_session, encode_session
from wizard_actors.session_markdown import to_markdown
from wizard_actors.session_record import SessionRecord

__all__ = ["MAX_TEXT", "from_json", "from_markdown", "to_json", "to_markdown"]

MAX_TEXT: Final = 64 * 2**20
"""The longest text that is read, in bytes of UTF-8."""


def to_json(record: SessionRecord) -> str:
    """Return the JSON of a session as it is stored, indented. Raises `SerializationError` where it cannot be stored."""
    return msgspec.json.format(encode_session(record), indent=2).decode() + "\n"


def from_json(text: str, *, session: str | None = None) -> SessionRecord:
    """Return the session that `to_json` wrote, under the name of `session` where that is given.

    Raises `SerializationError` for more than 64 MiB, and for what is damaged: it names the line, or the value.
    """
    data = _read(text).removeprefix("\ufeff").encode()
    try:
        plain = decode_json(data)
    except SerializationError as error:
        raise _at_its_line(data, error) from error
    name = plain.get("id") if isinstance(plain, dict) else None
    if not isinstance(name, str):
        raise SerializationError(
            "the text is no session: it has no `id`; what is read is the JSON that `wizard sessions export` writes, "
            "and Markdown with headings such as `## User` and `## Assistant`"
        )
    record = decode_session(data, name)
    return record if session is None else evolve(record, id=session)


def from_markdown(text: str, *, session: str | None = None) -> SessionRecord:
    """Return the session that `to_markdown` wrote, or that somebody wrote as a plain transcript under headings such as
    `## System`, `## User` and `## Assistant`; under the name of `session` where that is given.

    Where the text of a message was edited, the edited text counts; so do messages that were taken out, or written
    between others. A plain transcript is named by its title, and has no times: they are 0.

    Raises `SerializationError` for more than 64 MiB, and for what is damaged: it names the line.
    """
    return session_transcript.from_markdown(_read(text), session)


def _read(text: str) -> str:
    """Return a text that may be read."""
    try:
        size = len(text) if len(text) > MAX_TEXT else len(text.encode())
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise SerializationError(f"line {line}: it is not valid Unicode: {error.reason}") from error
    if size > MAX_TEXT:
        raise SerializationError(f"the text has {size:,} bytes or more, and {MAX_TEXT:,} at most are read")
    return text


def _at_its_line(data: bytes, error: SerializationError) -> SerializationError:
    """Return the error with its line, where that can be told."""
    try:
        json.loads(data, parse_int=str)
    except json.JSONDecodeError as found:
        return SerializationError(f"line {found.lineno}: it is no JSON: {found.msg}")
    except (ValueError, RecursionError):
        pass
    return SerializationError(f"the text cannot be read: {error.message}")
