"""What a format is to the endpoint: how its requests are read, and its answers, streams and errors written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.status import Failure
from wizard_actors.json_bytes import json_bytes
from wizard_actors.types import StreamEvent, WizardResponse

__all__ = ["PING", "Format", "StreamWriter", "sse"]

PING = b": ping\n\n"
"""A comment, which every reader of server-sent events passes over."""


class StreamWriter(Protocol):
    """Writes one answer as server-sent events, each method what it adds; nothing of it waits."""

    def begin(self, model: str) -> bytes:
        """Return what comes before the first event: `model` is the one that answers."""

    def event(self, event: StreamEvent) -> bytes:
        """Return what an event of the answer becomes, b"" where the format has nothing to say; for `End` all that ends
        the stream. `Reset` never comes here: no format can say it. Raises `ParseError` for what makes no answer of this
        format: `failed` comes next.
        """

    def failed(self, failure: Failure) -> bytes:
        """Return what ends a stream that fails after its beginning."""


class Format(Protocol):
    """One format, of requests and of what they get. Stateless."""

    def read(self, body: object) -> Asked:
        """Return what a body, as JSON was read, asks for. Raises `BadRequestError` and `InvalidPromptError`."""

    def meant(self, name: str) -> str | None:
        """Return the field of a body that somebody meant who wrote `name`, None where nothing is near."""

    def answer(self, response: WizardResponse, name: str, *, created: int) -> dict[str, object]:
        """Return a whole answer. `name` stands for the model where none answered; `created` is in Unix seconds."""

    def stream(self, asked: Asked, request_id: str, *, created: int) -> StreamWriter:
        """Return what writes the answer to a request in pieces."""

    def error(self, failure: Failure, request_id: str) -> dict[str, object]:
        """Return the body that tells of a failure."""

    def models(self, names: Sequence[str], *, created: int) -> dict[str, object]:
        """Return the list of what may be asked by name."""

    def model(self, name: str, *, created: int) -> dict[str, object]:
        """Return one of them."""


LINE_ENDS: Final = {end.encode(): rf"\u{ord(end):04x}".encode() for end in "\u0085\u2028\u2029"}
"""What JSON leaves as it is, and Python's `splitlines` takes for the end of a line: readers that use it would see half
an event.
"""


def sse(data: object, event: str | None = None) -> bytes:
    """Return one server-sent event: `data` as JSON in one line, whoever counts lines; a text as it is."""
    body = data.encode() if isinstance(data, str) else json_bytes(data)
    for end, escape in LINE_ENDS.items():
        body = body.replace(end, escape)
    name = b"" if event is None else b"event: " + event.encode() + b"\n"
    return name + b"data: " + body + b"\n\n"
