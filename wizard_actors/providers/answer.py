"""What upstreams answer, turned into a model's events. Pure: bytes in, events out, no waiting.

A response's body is an event stream or one JSON object, whatever was asked for and whatever its content type says; its
first byte tells which.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from wizard_actors.conversion import from_json
from wizard_actors.errors import ParseError, WizardError
from wizard_actors.providers.json_parts import BAD_JSON, JsonStream, decode
from wizard_actors.providers.refusals import ErrorBody, Head, error_body, excerpt, page, refusal
from wizard_actors.providers.wire import Reader
from wizard_actors.streaming import SseDecoder
from wizard_actors.types import ModelEvent, Raw

__all__ = ["MAX_BODY", "MAX_ERROR_BODY", "AnswerParser"]

MAX_BODY: Final = 16 * 2**20
"""Bytes of a JSON answer that are held at most. They are decoded in one go: where all are empty lists, at worst, that
takes about a second, and twenty times their size.
"""

MAX_ERROR_BODY: Final = 64 * 2**10
"""Bytes of an error body that are looked at: more is a web page."""

SSE_STARTS: Final = b":deir"
"""First bytes of a comment and of the fields `data`, `event`, `id` and `retry`."""

INSIGNIFICANT: Final = b" \t\r\n\xef\xbb\xbf"
"""What may stand before either kind of body: white space, with which some keep a connection alive, and a BOM."""


class AnswerParser:
    """The events of one response's body, fed piece by piece, as `reader` reads its protocol.

    With `raw` each JSON object is an event too, before those in it. It never raises: what goes wrong is its `failure`,
    to be raised once the events before it are delivered.
    """

    def __init__(self, head: Head, reader: Reader, *, content_type: str = "", raw: bool = False) -> None:
        self._head = head
        self._content_type = content_type.partition(";")[0].strip().lower()
        self._sse: SseDecoder | None = None
        self._values = JsonStream()  # in the events of a stream
        # An error status decides too: what comes with it is no answer.
        self._whole: list[bytes] | None = [] if head.status >= 300 else None
        self._size = 0
        self._reader = reader
        self._raw = raw
        self._started = False
        self.ended = False
        """Whether the protocol's last word has come; nothing is parsed after it."""
        self.failure: WizardError | None = None
        """What went wrong; nothing is parsed after it."""
        self.refused: ErrorBody | None = None
        """What an error status came with, once it is here."""

    @property
    def finished(self) -> bool:
        """Whether the answer is complete, though more may come: usage, the protocol's last word."""
        return self._reader.finished

    @property
    def upstream_model(self) -> str | None:
        """What the provider calls the model, None until it has said so."""
        return self._reader.model

    @property
    def upstream_id(self) -> str | None:
        """The provider's id of this call: from the headers, else from the body."""
        return self._head.request_id or self._reader.id

    def feed(self, data: bytes) -> list[ModelEvent]:
        """Return the events that `data` completes."""
        events: list[ModelEvent] = []
        if self.failure is None and not self.ended:
            try:
                self._feed(data, events)
            except WizardError as error:
                self._fail(error, events)
        return events

    def close(self) -> list[ModelEvent]:
        """Return the events that the end of the body completes. Whether the answer is complete, `Finished` tells."""
        events: list[ModelEvent] = []
        if self.failure is None and not self.ended:
            try:
                self._close(events)
            except WizardError as error:
                self._fail(error, events)
        self.ended = True
        return events

    # -- both kinds of body --------------------------------------------------------------------------

    def _feed(self, data: bytes, events: list[ModelEvent]) -> None:
        if self._whole is None and self._sse is None:
            data = data.lstrip(INSIGNIFICANT)
            if data:
                self._begin(data)
        if self._whole is not None:
            self._collect(self._whole, data)
        elif self._sse is not None:
            self._stream(self._sse, data, events)

    def _begin(self, data: bytes) -> None:
        if data[0] in b"{[":
            self._whole = []
        elif self._content_type == "text/event-stream" or data[0] in SSE_STARTS:
            self._sse = SseDecoder()
        else:
            raise self._not_understood(data)

    def _close(self, events: list[ModelEvent]) -> None:
        if self._sse is not None:
            self._close_stream(self._sse, events)
        elif self._whole is not None:
            self._read_whole(b"".join(self._whole), events)
        elif self._content_type != "text/event-stream":
            raise self._head.parse_error("is empty")

    def _not_understood(self, data: bytes) -> ParseError:
        kind = f"of type {self._content_type} " if self._content_type else ""
        said = excerpt(data, self._head.secrets)
        return self._head.parse_error(f"{kind}is neither JSON nor an event stream: {said!r}; check base_url")

    def _fail(self, error: WizardError, events: list[ModelEvent]) -> None:
        try:
            self._read_all(self._values.flush(), events)
        except WizardError as earlier:
            error = earlier
        self.failure = error

    def _malformed(self, error: Exception, data: bytes) -> ParseError:
        head, said = self._head, excerpt(data, self._head.secrets)
        return from_json(error, model=head.model, status=head.status, request_id=head.request_id, excerpt=said)

    # -- an event stream -----------------------------------------------------------------------------

    def _stream(self, sse: SseDecoder, data: bytes, events: list[ModelEvent]) -> None:
        try:
            arrived = sse.feed(data)
        except ValueError as error:
            raise self._head.parse_error(f"cannot be understood: {error}") from error
        for event in arrived:
            self._take(event.data, events, event.name)
            if self.ended:
                return

    def _take(self, data: bytes, events: list[ModelEvent], name: str) -> None:
        if data == b"[DONE]" or data.strip() == b"[DONE]":
            if not self._started:
                raise self._head.parse_error("ends before it has begun")
            self._read_all(self._values.flush(), events)
            self.ended = True
            self._reader.end(events)
        elif data and not data.isspace():
            self._started = True
            try:
                values = self._values.feed(data, name)
            except BAD_JSON as error:
                raise self._malformed(error, data) from error
            self._read_all(values, events)

    def _read_all(self, values: Iterable[tuple[object, str]], events: list[ModelEvent]) -> None:
        for value, name in values:
            self._read(value, events, name=name)
            self.ended = self._reader.ended
            if self.ended:
                return

    def _close_stream(self, sse: SseDecoder, events: list[ModelEvent]) -> None:
        for event in sse.close():
            try:
                self._take(event.data, events, event.name)
            except ParseError:
                break  # half an event: the answer was cut, which is for the caller to see
        if not self.ended:
            self._read_all(self._values.flush(), events)
        if not self.finished and sse.stray:
            self._take_stray(b"\n".join(sse.stray))
        if not self._started and not self.ended and self._content_type != "text/event-stream":
            raise self._head.parse_error(f"of type {self._content_type or 'unknown'} holds no event")

    def _take_stray(self, stray: bytes) -> None:
        """Raise the error that stands in an unfinished stream as plain JSON, as Google's do."""
        try:
            value = decode(stray)
        except BAD_JSON:
            return
        if isinstance(value, (dict, list)):
            raise refusal(self._head, error_body(value))

    # -- one JSON object -----------------------------------------------------------------------------

    def _collect(self, whole: list[bytes], data: bytes) -> None:
        self._size += len(data)
        if self._head.status >= 300:
            whole.append(data)
            if self._size > MAX_ERROR_BODY:
                self._read_whole(b"".join(whole), [])
        elif self._size > MAX_BODY:
            whole.clear()
            raise self._head.parse_error(f"is larger than {MAX_BODY} bytes")
        else:
            whole.append(data)

    def _read_whole(self, data: bytes, events: list[ModelEvent]) -> None:
        if self._head.status >= 300:
            self.refused = self._refusal(data[:MAX_ERROR_BODY])
            raise refusal(self._head, self.refused)
        try:
            value = decode(data)
        except BAD_JSON as error:
            raise self._malformed(error, data) from error
        self._read(value, events, whole=True)
        self._reader.end(events)

    def _read(self, value: object, events: list[ModelEvent], *, whole: bool = False, name: str = "message") -> None:
        if self._raw:
            events += [Raw(each) for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]
        self._reader.read(value, events, whole=whole, name=name)

    def _refusal(self, data: bytes) -> ErrorBody:
        try:
            return error_body(decode(data.lstrip(INSIGNIFICANT)))
        except BAD_JSON:  # a proxy's page, or nothing: the status has to do
            return page(data)
