"""Markdown as a session: what `wizard_actors.session_markdown` wrote, edited by hand or not, and what people wrote.

A document is cut into pieces, each begun by a comment of ours or by a heading that says who speaks, and the pieces are
put together again. Lines in quotes begin nothing, nor do headings in code blocks. A document without comments of ours
is a plain transcript:

    # alice

    ## System

    Be brief.

    ## User

    Why?

    ## Assistant

    Because.

Headings may have another level, one for all; the heading before them names the session. A system prompt comes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
from attrs import define, evolve, field

from wizard_actors.errors import SerializationError
from wizard_actors.session_json import decode_json, decode_session, structured
from wizard_actors.session_markdown import unix_lines
from wizard_actors.session_record import SessionRecord, SessionState, TurnRecord
from wizard_actors.types import Message, Role

__all__ = ["from_markdown"]

T = TypeVar("T")

MARK: Final = re.compile(r" {0,3}<!-- wizard[ \t]")
HEADING: Final = re.compile(r" {0,3}(#{1,6})[ \t]+([A-Za-z]+)")
TITLE: Final = re.compile(r" {0,3}#{1,6}[ \t]+")
FENCE: Final = re.compile(r"[ \t]*(`{3,}|~{3,})")
OURS: Final = 2  # the level of our headings


def from_markdown(text: str, session: str | None) -> SessionRecord:
    """Return the session that a document holds, under the name of `session` where that is given."""
    pieces = _Cutting().cut(unix_lines(text.removeprefix("\ufeff")).split("\n"))
    reading = _Reading()
    for piece in pieces[1:]:
        reading.take(piece)
    return reading.record(_title(pieces[0].body), session)


def _wrong(line: int, problem: str) -> SerializationError:
    return SerializationError(f"line {line}: {problem}")


# -- into pieces -------------------------------------------------------------------------------------


@define
class _Piece:
    """Some lines, the first of which says what they are: a `role`'s heading, or a comment of a `kind` with `fields`."""

    line: int
    kind: str = ""
    role: Role | None = None
    fields: dict[str, object] = field(factory=dict)
    body: list[str] = field(factory=list)

    def blank(self) -> bool:
        return not any(line.strip() for line in self.body)


@define
class _Cutting:
    """A document on its way into pieces, a line at a time. `fence` is that of the code block in which the line stands,
    which was opened at line `fenced`; `hidden` is the first line in it that looks like a heading of ours.
    """

    pieces: list[_Piece] = field(factory=lambda: [_Piece(1)])
    level: int | None = None
    fence: str = ""
    fenced: int = 0
    hidden: int = 0

    def cut(self, lines: Iterable[str]) -> list[_Piece]:
        for number, line in enumerate(lines, 1):
            if not self.begins(number, line):
                self.pieces[-1].body.append(line)
        if self.fence and self.hidden:
            raise _wrong(self.fenced, f"the code block that begins here never ends; line {self.hidden} is a heading")
        return self.pieces

    def begins(self, number: int, line: str) -> bool:
        """Whether a line begins a piece; if so, it is begun."""
        mark = MARK.match(line)
        if self.fence:
            self.inside(number, line, ours=mark is not None)
        elif mark is not None:
            self.comment(number, line)
            return True
        elif (opened := FENCE.match(line)) is not None and not (opened[1][0] == "`" and "`" in line[opened.end() :]):
            self.fence, self.fenced, self.hidden = opened[1], number, 0
        elif (found := self.heading(line)) is not None:
            self.level = found[0]
            self.pieces.append(_Piece(number, "heading", found[1]))
            return True
        return False

    def inside(self, number: int, line: str, *, ours: bool) -> None:
        """Look at a line in a code block."""
        closing = line.strip(" \t")
        if ours:
            raise _wrong(number, f"a comment of ours stands in the code block that begins at line {self.fenced}")
        if len(closing) >= len(self.fence) and not closing.strip(self.fence[0]):
            self.fence = ""
        elif not self.hidden and self.heading(line) is not None:
            self.hidden = number

    def heading(self, line: str) -> tuple[int, Role] | None:
        """Return level and role of a heading that says who speaks: `## User`, `## User (ann)`, `## User:`."""
        found = HEADING.match(line)
        if found is None or found[2].lower() not in Role.__members__.values():
            return None
        rest = line[found.end() :].strip(" \t").rstrip("#").rstrip(" \t").removesuffix(":")
        level = len(found[1])
        if level != (self.level or level) or (rest and not (rest[0] == "(" and rest[-1] == ")")):
            return None
        return level, Role(found[2].lower())

    def comment(self, number: int, line: str) -> None:
        whole = line.strip()
        if not whole.endswith("-->"):
            raise _wrong(number, "a comment of ours that does not end in its line")
        kind, _, written = whole[len("<!-- wizard") : -len("-->")].strip().partition(" ")
        if kind == "session":
            if not all(piece.kind == "heading" and piece.blank() for piece in self.pieces[1:]):
                raise _wrong(number, "the session's comment stands behind a message: it belongs to the beginning")
            del self.pieces[1:]  # the title may be `# User`
            self.level = OURS
        self.pieces.append(_Piece(number, kind, fields=_fields(number, written)))


def _fields(number: int, written: str) -> dict[str, object]:
    """Return what a comment holds."""
    if not written:
        return {}
    try:
        fields = decode_json(written.encode())
    except SerializationError as error:
        raise _wrong(number, f"what the comment holds cannot be read: {error.message}") from error
    if not isinstance(fields, dict):
        raise _wrong(number, "what the comment holds is no JSON object")
    return fields


def _title(lines: Iterable[str]) -> str | None:
    """Return the first heading before all messages."""
    first = next((line for line in lines if line.strip()), "")
    found = TITLE.match(first)
    return None if found is None else first[found.end() :].strip() or None


# -- into a session ----------------------------------------------------------------------------------


@define
class _Reading:
    """A session on its way out of pieces: what was found so far, the last message not finished."""

    session: _Piece | None = None
    system: str | None = None
    turns: list[tuple[_Piece, list[Message]]] = field(factory=list)
    pieces: list[_Piece] = field(factory=list)  # of the last message: its heading, and comments after it

    def take(self, piece: _Piece) -> None:
        """Take the next piece. Raises `SerializationError` for one that cannot stand there."""
        match piece.kind:
            case "heading" | "turn" | "session":
                self.finish()
                if piece.kind == "heading":
                    self.pieces = [piece]
                elif piece.kind == "turn":
                    self.turns.append((piece, []))
                else:
                    self.session = piece
            case "message" | "system":
                if len(self.pieces) != 1:
                    raise _wrong(piece.line, "no heading such as `## User` stands before the comment of a message")
                self.pieces.append(piece)
            case "text" | "image":
                if not self.pieces or self.pieces[-1].kind == "system":
                    raise _wrong(piece.line, "part of a message, and no message stands before it")
                self.pieces.append(piece)
            case _:
                raise _wrong(piece.line, f"there is no comment of the kind {piece.kind!r}: `wizard` is for ours")

    def finish(self) -> None:
        """Add the last message."""
        pieces, self.pieces = self.pieces, []
        if not pieces:
            return
        heading, *comments = pieces
        ours = comments[0] if comments and comments[0].kind in {"message", "system"} else None
        is_first = self.system is None and not self.turns
        if ours is not None:
            ours.body[:0] = heading.body
        if ours is not None and ours.kind == "system":
            self.prompt(heading, ours)
        elif not comments and heading.role is Role.SYSTEM and is_first:
            self.system = _shown(heading.body, quoted=False)
        else:
            self.add(heading, _message(heading, ours, comments if ours is None else comments[1:]), by_hand=ours is None)

    def prompt(self, heading: _Piece, piece: _Piece) -> None:
        """Take the system prompt."""
        if self.system is not None or heading.role is not Role.SYSTEM:
            raise _wrong(piece.line, "a session has one system prompt, under a heading that says `System`")
        self.system = _text(piece)
        if piece.fields:
            raise _wrong(piece.line, f"unknown keys: {', '.join(sorted(map(repr, piece.fields)))}")

    def add(self, heading: _Piece, message: Message, *, by_hand: bool) -> None:
        """Add a message to the last turn; one that somebody wrote begins a turn where a question follows an answer."""
        if not self.turns:
            self.turns.append((heading, []))
        messages = self.turns[-1][1]
        asks = message.role in {Role.USER, Role.SYSTEM}
        if by_hand and asks and messages and messages[-1].role in {Role.ASSISTANT, Role.TOOL}:
            self.turns.append((heading, [message]))
        else:
            messages.append(message)

    def record(self, title: str | None, session: str | None) -> SessionRecord:
        """Return the whole."""
        self.finish()
        if self.session is None and not any(messages for _, messages in self.turns):
            raise SerializationError("the text is no session: it has no heading `## User` or `## Assistant`")
        bare = self.bare(title if session is None else session)
        turns, at = list[TurnRecord](), bare.created_at
        for piece, messages in self.turns:
            fields = piece.fields if piece.kind == "turn" else {"at": at}
            stand_in = {"role": Role.USER}  # its own messages are no JSON any more
            turn = _structured(piece.line, {**fields, "messages": [stand_in]}, TurnRecord)
            at = turn.at
            if messages:  # else somebody took all of them out
                turns.append(evolve(turn, messages=messages))
        return evolve(bare, id=bare.id if session is None else session, system=self.system, turns=turns)

    def bare(self, name: str | None) -> SessionRecord:
        """Return the session without what was said."""
        if self.session is None:
            if name is None:
                raise SerializationError(
                    "the text names no session: give it a name (--as NAME), or a title, `# name`, to begin with"
                )
            return SessionRecord(name, created_at=0.0, state=SessionState.ACTIVE)
        fields, line = self.session.fields, self.session.line
        if not isinstance(fields.get("id"), str):
            raise _wrong(line, "the session has no `id`")
        try:
            return decode_session(msgspec.json.encode(fields), str(fields["id"]))
        except SerializationError as error:
            raise _wrong(line, error.message) from error


def _message(heading: _Piece, ours: _Piece | None, parts: Sequence[_Piece]) -> Message:
    """Return a message: its comment, where it is ours, says what its heading and its text do not."""
    first = heading if ours is None else ours
    several = first.fields.pop("parts", None) is True or bool(parts)
    text = _text(first) if several or ours is not None else _shown(first.body, quoted=False)
    content: list[dict[str, object]] = [{"type": "text", "text": text}] if text else []
    for part in parts:
        if part.kind == "text":
            content.append({"type": "text", "text": _text(part), **part.fields})
            continue
        content.append({"type": "image", **part.fields})
        if added := _shown(part.body, quoted=True):
            content.append({"type": "text", "text": added})
    spoken = {"role": heading.role, "content": content if several else text}
    return _structured(first.line, {**first.fields, **spoken}, Message)


def _text(piece: _Piece) -> str:
    """Return what was said: as shown, unless the comment has the very same with other line ends."""
    shown = _shown(piece.body, quoted=True)
    exact = piece.fields.pop("text", shown)
    return exact if isinstance(exact, str) and unix_lines(exact) == shown else shown


def _shown(lines: Iterable[str], *, quoted: bool) -> str:
    """Return the text of some lines, without the empty ones around it; of `quoted` ones that stand in no quote, as it
    stands: somebody added it.
    """
    body = list(lines)
    while body and not body[-1].strip():
        body.pop()
    start = next((place for place, line in enumerate(body) if line.strip()), 0)
    return "\n".join(map(_unquoted, body[start:]) if quoted else body[start:])


def _unquoted(line: str) -> str:
    return line[1:].removeprefix(" ") if line.startswith(">") else line


def _structured(line: int, plain: Mapping[str, object], kind: type[T]) -> T:
    try:
        return structured(plain, kind)
    except SerializationError as error:
        raise _wrong(line, error.message) from error
