"""How sessions look on standard output. What is in them is somebody else's: no name and no text of theirs drives a
terminal, or passes for something of ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Final

import attrs
import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from wizard_actors.cost import MONEY
from wizard_actors.session_record import SessionRecord, SessionSummary, TurnRecord
from wizard_actors.types import FinishReason, Image, Message, Role

__all__ = ["conversation", "facts_table", "list_table", "plain", "shown_summary"]

INDENT: Final = "    "


def plain(text: str) -> str:
    """Return a text with everything escaped that is not printed as it is: controls, line ends, changes of direction."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


# -- lists -----------------------------------------------------------------------------------------------------------


def list_table(summaries: Sequence[SessionSummary]) -> Table:
    """Return a table of sessions, a row each."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("session", "state", "turns", "used", "created"):
        table.add_column(column, overflow="fold", justify="right" if column == "turns" else "left")
    for each in summaries:
        cells = (plain(each.id), each.state.value, str(each.turns), _when(each.used_at), _when(each.created_at))
        table.add_row(*map(Text, cells))
    return table


def shown_summary(summary: SessionSummary) -> Mapping[str, object]:
    """Return a summary in JSON's types, the times in seconds since 1970."""
    return attrs.asdict(summary)


# -- one session -----------------------------------------------------------------------------------------------------


def facts_table(record: SessionRecord) -> Table:
    """Return a table of what is known of a session, a row a fact; what is not there has none."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in _facts(record):
        table.add_row(Text(name), Text(plain(value)))
    return table


def _facts(record: SessionRecord) -> Iterator[tuple[str, str]]:
    yield "session", record.id
    yield "state", record.state.value
    yield "turns", str(len(record.turns))
    for name, at in (("created", record.created_at), ("changed", record.updated_at), ("used", record.used_at)):
        yield name, _when(at)
    yield "version", str(record.version)
    if record.route is not None:
        yield "route", record.route
    if record.model is not None:
        yield "model", record.model
    if answered := dict.fromkeys(turn.model for turn in record.turns if turn.model):
        yield "answered by", ", ".join(answered)
    if used := [turn.usage for turn in record.turns if turn.usage is not None]:
        yield "tokens", f"{sum(each.input_tokens for each in used)} in, {sum(each.output_tokens for each in used)} out"
    if costs := [turn.cost for turn in record.turns if turn.cost is not None]:
        with localcontext(MONEY):
            yield "cost", f"{sum(costs, Decimal(0)):f}"
    for name, value in record.context.items():
        yield f"context {plain(name)}", msgspec.json.encode(value).decode()


def conversation(record: SessionRecord) -> str:
    """Return the system prompt and the messages as text. What they say stands indented below who says it."""
    parts = []
    if record.system is not None:
        parts.append(("system", record.system))
    for turn in record.turns:
        parts += [(_speaker(message, turn), _said(message)) for message in turn.messages]
        if turn.finish_reason is FinishReason.LENGTH:
            parts.append(("the answer was cut off where it reached its longest length", ""))
    return "".join(f"\n{speaker}\n{_indented(said)}" for speaker, said in parts)


def _speaker(message: Message, turn: TurnRecord) -> str:
    match message.role:
        case Role.TOOL:
            return plain(f"tool, {message.tool_call_id}{', failed' if message.is_error else ''}")
        case Role.ASSISTANT if message is turn.messages[-1]:
            when = f", {_when(turn.at)}" if turn.at else ""  # a transcript by hand has no times
            return plain(f"assistant, {turn.model or 'no model'}{when}")
    return plain(f"{message.role} {message.name}" if message.name else message.role)


def _said(message: Message) -> str:
    said = message.text
    for part in () if isinstance(message.content, str) else message.content:
        if isinstance(part, Image):
            said += f"\n(picture: {part.url or _size_of(part)})"
    for call in message.tool_calls:
        said += f"\n(call {call.id}: {call.name} {call.arguments})"
    return said.removeprefix("\n") if not message.text else said


def _size_of(image: Image) -> str:
    return f"{image.media_type}, {len(image.data or b'')} bytes"


def _indented(text: str) -> str:
    return "".join(f"{INDENT}{line}".rstrip() + "\n" for line in text.split("\n")) if text else ""


def _when(at: float) -> str:
    """Return a wall-clock time in the local time zone; a time that no calendar has in seconds since 1970."""
    try:
        return datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{at:.0f} s"
