"""Streams on the way in: server-sent events out of bytes, and the parts of an answer out of a model's events.

Both are pure: no I/O, no clock. Both take time linear in what they are fed, however it is cut into pieces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from attrs import define, field, frozen

from wizard_actors.types import (
    Finished,
    FinishReason,
    ModelEvent,
    Raw,
    ReasoningDelta,
    Signature,
    TextDelta,
    Thought,
    ThoughtEnded,
    TokenUsage,
    ToolCall,
    ToolCallDelta,
    UsageUpdate,
)

__all__ = ["MAX_EVENT", "Assembly", "SseDecoder", "SseEvent"]

MAX_EVENT: Final = 8 * 2**20
"""Bytes of one event that a decoder holds at most: no provider's chunk comes near, an endless line passes it."""

MOST_TOKENS: Final = 2**63
"""Beyond any count of tokens, and still a number to calculate with."""

SEQUENCES: Final = (list, tuple)

MAX_STRAY: Final = 64 * 2**10
"""Bytes that stand between events, and are no part of one, which are kept at most."""

OTHER_FIELDS: Final = (b":", b"id", b"retry")

BOM: Final = b"\xef\xbb\xbf"


@frozen
class SseEvent:
    """One server-sent event: its `data` lines joined by LF, as they came on the wire, and its name."""

    data: bytes
    name: str = "message"


class SseDecoder:
    """Server-sent events out of bytes that arrive in any pieces.

    It follows the WHATWG HTML standard, section 9.2.6: lines end in LF, CRLF or CR, a blank line ends an event, a byte
    order mark at the start and comments do not count. The fields `id` and `retry` are dropped, for nobody reconnects
    here. Lines that are no field at all are kept aside as `stray`, up to `MAX_STRAY` bytes: Google breaks a stream off
    with an error as plain JSON. An event of more than `max_event` bytes fails the stream: the events before it are
    returned first, and every call after them raises `ValueError`.
    """

    __slots__ = (
        "_at_start",
        "_cr_last",
        "_data",
        "_held",
        "_line",
        "_max_event",
        "_name",
        "_room",
        "_too_large",
        "stray",
    )

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self._line: list[bytes] = []  # pieces of the line that has no end yet
        self._data: list[bytes] = []  # the data lines of the event that has no end yet
        self._name = ""
        self._held = 0  # bytes in both lists
        self._at_start = True
        self._cr_last = False  # the last byte was a CR: an LF now is the rest of that line's end
        self._too_large = False
        self.stray: list[bytes] = []
        self._room = MAX_STRAY

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the events that `data` completes. Raises `ValueError` where an event is too large."""
        if self._cr_last and data:
            self._cr_last = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._cr_last = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events: list[SseEvent] = []
        if b"\n" not in data:
            self._hold(data)
        elif not self._too_large:
            self._take_lines(data.split(b"\n"), events)
        if self._too_large and not events:
            raise ValueError(f"an event of more than {self._max_event} bytes")
        return events

    def close(self) -> list[SseEvent]:
        """Return what the end of the bytes completes: an event that lacks only its blank line.

        The standard drops such an event. Some servers end with one, so the caller is given it to judge.
        """
        return self.feed(b"\n\n")

    def _take_lines(self, lines: list[bytes], events: list[SseEvent]) -> None:
        if self._line:
            self._held -= sum(map(len, self._line))
            lines[0] = b"".join((*self._line, lines[0]))
            self._line.clear()
        if self._at_start:
            self._at_start = False
            if len(lines[0]) <= self._max_event:  # a line too large stays so, as it is where it comes in pieces
                lines[0] = lines[0].removeprefix(BOM)
        rest = lines.pop()
        for line in lines:
            self._take_line(line, events)
            if self._too_large:
                return
        self._hold(rest)

    def _take_line(self, line: bytes, events: list[SseEvent]) -> None:
        if not line:
            if self._data:
                events.append(SseEvent(b"\n".join(self._data), self._name or "message"))
                self._data.clear()
                self._held = 0
            self._name = ""
        elif self._held + len(line) > self._max_event:
            self._too_large = True
        elif line.startswith(b"data:") or line == b"data":
            value = line[6:] if line.startswith(b"data: ") else line[5:]
            self._data.append(value)
            self._held += len(value) + 1
        elif line.startswith(b"event:") or line == b"event":
            self._name = line[6:].removeprefix(b" ").decode(errors="replace")
        elif not line.startswith(OTHER_FIELDS) and len(line) < self._room:
            self.stray.append(line)
            self._room -= len(line) + 1

    def _hold(self, piece: bytes) -> None:
        if piece and not self._too_large:
            self._line.append(piece)
            self._held += len(piece)
            self._too_large = self._held > self._max_event


@define
class _Call:
    """A tool call while its pieces arrive."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(factory=list)
    signature: Signature | None = None


class Assembly:
    """The parts of one answer, put together event by event. Whoever made them, what is in it is of the stated types."""

    __slots__ = ("_calls", "_raw", "_reasoning", "_text", "_thoughts", "finished", "usage")

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []  # of the thought that has no end yet
        self._thoughts: list[Thought] = []
        self._raw: list[Mapping[str, object]] = []
        self._calls: dict[int, _Call] = {}
        self.usage: TokenUsage | None = None
        """The last usage that was stated, None where none was."""
        self.finished: Finished | None = None
        """The model's own sign that its answer is complete, None until it came."""

    def add(self, event: ModelEvent) -> None:
        """Put one more event in its place. Raises `TypeError` for what is none, or holds what none can hold."""
        match event:
            case TextDelta():
                text: object = event.text
                self._text.append(text if isinstance(text, str) else _refuse(event))
            case ReasoningDelta():
                thought: object = event.text
                self._reasoning.append(thought if isinstance(thought, str) else _refuse(event))
            case ThoughtEnded(signature=Signature() | None, redacted=bool(), id=str() | None):
                self._thoughts.append(Thought(self._thought(), event.signature, event.redacted, event.id))
            case ToolCallDelta():
                self._add_call(event)
            case UsageUpdate():
                self.usage = _counted(event.usage)
            case Finished(reason=FinishReason(), raw=str() | None):
                self.finished = event
            case Raw(body=Mapping()):
                self._raw.append(event.body)
            case _:
                _refuse(event)

    def extend(self, events: Sequence[ModelEvent]) -> None:
        """Put more events in their places, in order. Raises `TypeError` at the first that cannot be."""
        if type(events) not in SEQUENCES:
            _check_sequence(events)
        for event in events:
            if type(event) is TextDelta and type(event.text) is str:  # nearly all of them are
                self._text.append(event.text)
            else:
                self.add(event)

    @property
    def started(self) -> bool:
        """Whether any content has arrived: text, reasoning or a tool call."""
        return bool(self._text or self._reasoning or self._thoughts or self._calls)

    @property
    def text(self) -> str:
        """The answer's text so far."""
        return _joined(self._text)

    @property
    def thoughts(self) -> tuple[Thought, ...]:
        """The model's reasoning so far, piece by piece; the last one may have no end yet."""
        return (*self._thoughts, Thought(_joined(self._reasoning))) if self._reasoning else tuple(self._thoughts)

    @property
    def reasoning(self) -> str:
        """The text of the model's reasoning so far."""
        return "".join(thought.text for thought in self.thoughts)

    @property
    def raw(self) -> tuple[Mapping[str, object], ...]:
        """What came over the wire so far, where the call asked for it."""
        return tuple(self._raw)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls so far, in the order of their indices; one without an id is given `call_<index>`."""
        return tuple(
            ToolCall(call.id or f"call_{index}", call.name, _joined(call.arguments), call.signature)
            for index, call in sorted(self._calls.items())
        )

    def _thought(self) -> str:
        """Take the text of the thought that ends."""
        text = _joined(self._reasoning)
        self._reasoning.clear()
        return text

    def _add_call(self, delta: ToolCallDelta) -> None:
        _check_call(delta)
        call = self._calls.setdefault(delta.index, _Call())
        call.id = call.id or delta.id or ""
        call.name = call.name or delta.name or ""
        call.signature = call.signature or delta.signature
        if delta.arguments:
            call.arguments.append(delta.arguments)


def _joined(pieces: list[str]) -> str:
    """Join the pieces, once: they become one."""
    if len(pieces) > 1:
        pieces[:] = ["".join(pieces)]
    return pieces[0] if pieces else ""


# What comes from a provider of somebody's own was checked by nobody, and a wrong part would fail much later, in the
# books of the limiter, the worker or the caller.


def _check_sequence(events: object) -> None:
    if not isinstance(events, Sequence):  # an iterator could be read but once, and may have no end
        raise TypeError(f"read() returns a list or a tuple of events, or None, not {_kind(events)}")


def _check_call(delta: ToolCallDelta) -> None:
    match delta:
        case ToolCallDelta(
            index=int(index), id=str() | None, name=str() | None, arguments=str(), signature=Signature() | None
        ) if not isinstance(index, bool):
            return
    raise TypeError(
        "a ToolCallDelta has a whole number as its index, texts or None as its id and name, a text as its arguments, "
        "and a Signature or None"
    )


def _counted(usage: TokenUsage) -> TokenUsage:
    """Return the usage, which is nothing but what its counts say."""
    if not _is_usage(usage):
        raise TypeError(f"an UsageUpdate holds a TokenUsage, not a value of type {type(usage).__name__}")
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        usage.cache_write_tokens,
    )
    for count in counts:
        if type(count) is not int or not -MOST_TOKENS < count < MOST_TOKENS:
            raise TypeError(f"a TokenUsage counts in whole numbers, not in {_kind(count)}")
    return usage if type(usage) is TokenUsage else TokenUsage(*counts)


def _refuse(event: object) -> NoReturn:
    kind = type(event).__name__
    if isinstance(event, TextDelta | ReasoningDelta):
        raise TypeError(f"the text of a {kind} is a str, not {_kind(event.text)}")
    if isinstance(event, ThoughtEnded):
        raise TypeError("a ThoughtEnded holds a Signature or None, whether it is redacted, and an id or None")
    if isinstance(event, Raw):
        raise TypeError(f"a Raw holds a JSON object, not {_kind(event.body)}")
    if isinstance(event, Finished):
        raise TypeError(
            f"a Finished holds a FinishReason and the upstream's own word or None, not {_kind(event.reason)} and "
            f"{_kind(event.raw)}"
        )
    raise TypeError(f"read() returns model events, not {_kind(event)}")


def _is_usage(value: object) -> bool:
    return isinstance(value, TokenUsage)


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"
