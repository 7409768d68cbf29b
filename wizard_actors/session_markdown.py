"""A stored session as Markdown for people to read, written so that `wizard_actors.session_transcript` reads it back.

    # alice

    <!-- wizard session {"schema":1,"id":"alice","created_at":1750000000.25,"version":2,"state":"active"} -->

    - Created: 2025-06-15 15:06:40 UTC

    <!-- wizard turn {"at":1750000001.25,"model":"primary"} -->

    ## User

    <!-- wizard message -->

    > Why?

What a message says stands in a quote, so that no heading, code block or comment in it becomes one of the document's;
whoever renders the document sees headings and quotes. What Markdown cannot show is in the comments, in the JSON of
`wizard_actors.session_json`. Headings and facts are for people alone, but for who speaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from wizard_actors.session_json import encode_session
from wizard_actors.session_record import SessionRecord, TurnRecord
from wizard_actors.types import Image, Message, Role, Text

__all__ = ["to_markdown", "unix_lines"]

NOT_IN_A_COMMENT: Final = re.compile("[<>\x7f-\x9f\u2028\u2029\ufeff]")
"""What could end a comment, or a line, for some reader: JSON has other ways to write it."""

MARKUP: Final = re.compile(r"[\\`*_{}\[\]<>()#|~&!$]")
LONGEST_FACT: Final = 80


def to_markdown(record: SessionRecord) -> str:
    """Return a session as Markdown: a title, facts, a heading for each message. `from_markdown` gives the same record.

    Raises `SerializationError` where the record cannot be stored either. What is more than 64 MiB is not read back.
    """
    plain: dict[str, Any] = msgspec.json.decode(encode_session(record))
    turns, _ = plain.pop("turns", ()), plain.pop("system", None)
    blocks = [f"# {_fact(record.id)}", _comment("session", plain), _facts(record)]
    if record.system is not None:
        blocks += ["## System", *_said("system", {}, record.system)]
    for turn, fields in zip(record.turns, turns, strict=True):
        blocks += _turn(turn, fields)
    return "\n\n".join(block for block in blocks if block) + "\n"


def unix_lines(text: str) -> str:
    """Return a text with the line ends that a document has, whatever an editor or a download made of them."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _turn(turn: TurnRecord, fields: dict[str, Any]) -> Iterator[str]:
    messages = fields.pop("messages")
    yield _comment("turn", fields)
    for place, (message, plain) in enumerate(zip(turn.messages, messages, strict=True)):
        yield _heading(message, turn if place == len(turn.messages) - 1 else None)
        yield from _message(message, plain)


def _message(message: Message, fields: dict[str, Any]) -> Iterator[str]:
    del fields["role"]
    parts = fields.pop("content", "")
    if isinstance(message.content, str):
        yield from _said("message", fields, message.content)
        return
    yield _comment("message", {"parts": True, **fields})
    for part, plain in zip(message.content, parts, strict=True):
        del plain["type"]
        if isinstance(part, Text):
            yield from _said("text", {}, part.text)
        else:
            yield _comment("image", plain)


def _said(kind: str, fields: Mapping[str, Any], text: str) -> Iterator[str]:
    """Yield a comment and a quote of what was said; whole in the comment, too, where a document would change it."""
    shown = unix_lines(text)
    yield _comment(kind, fields if shown == text else {**fields, "text": text})
    if shown:
        yield "\n".join(f"> {line}" if line else ">" for line in shown.split("\n"))


def _comment(kind: str, fields: Mapping[str, Any]) -> str:
    if not fields:
        return f"<!-- wizard {kind} -->"
    written = msgspec.json.encode(fields).decode()
    return f"<!-- wizard {kind} {NOT_IN_A_COMMENT.sub(_escape, written)} -->"


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


# -- for people alone --------------------------------------------------------------------------------


def _facts(record: SessionRecord) -> str:
    facts = {
        "Created": _time(record.created_at),
        "Last used": _time(record.used_at),
        "State": record.state.value,
        "Route": record.route,
        "Model": record.model,
        "Turns": str(len(record.turns)),
    }
    return "\n".join(f"- {name}: {_fact(value)}" for name, value in facts.items() if value)


def _heading(message: Message, turn: TurnRecord | None) -> str:
    """Return who speaks, and what is told of it; `turn` where it is the last message of one."""
    facts = [message.name, message.tool_call_id, "failed" if message.is_error else None]
    facts += [f"calls {call.name}" for call in message.tool_calls]
    if not isinstance(message.content, str):
        pictures = sum(isinstance(part, Image) for part in message.content)
        facts.append({0: None, 1: "1 picture"}.get(pictures, f"{pictures} pictures"))
    if turn is not None and message.role is Role.ASSISTANT:
        facts += [turn.model, _time(turn.at), None if turn.cost is None else f"{turn.cost} USD"]
    shown = ", ".join(_fact(fact) for fact in facts if fact)
    return f"## {message.role.capitalize()}" + (f" ({shown})" if shown else "")


def _time(at: float) -> str | None:
    """Return a time as people write it; None where nobody knew it, or no calendar does."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else None
    except (OverflowError, ValueError, OSError):
        return None


def _fact(text: str) -> str:
    """Return a text for one line, without effects: some names are odd."""
    short = text if len(text) <= LONGEST_FACT else f"{text[:LONGEST_FACT]}..."
    plain = "".join(char if char.isprintable() else " " for char in short)
    return MARKUP.sub(r"\\\g<0>", plain)
