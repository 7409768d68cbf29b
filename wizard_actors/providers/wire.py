"""The seam between HTTP and a wire protocol: what a protocol makes of a call, and of what comes back. Pure.

A protocol is a `Wire`: a frozen value that writes requests and makes readers of answers. Everything that waits on
sockets is `wizard_actors.providers.http_provider`'s, which serves all of them, and bytes become JSON in
`wizard_actors.providers.answer`. So recordings and fuzzers need neither a socket nor a mock.
"""

from __future__ import annotations

from typing import Protocol, Self

import httpx
from attrs import frozen

from wizard_actors.providers.base import Call
from wizard_actors.providers.refusals import ErrorBody, Head
from wizard_actors.types import ModelEvent

__all__ = ["Outgoing", "Reader", "Wire"]


@frozen
class Outgoing:
    """A request as it is sent: a POST of a JSON `body` to `url`."""

    url: httpx.URL
    body: bytes


class Reader(Protocol):
    """The events in the JSON values of one answer, read in order."""

    @property
    def finished(self) -> bool:
        """Whether the answer is complete, though more may come: usage, the protocol's last word."""

    @property
    def ended(self) -> bool:
        """Whether the protocol's last word has come; nothing is read after it."""

    @property
    def model(self) -> str | None:
        """What the provider calls the model, None until it has said so."""

    @property
    def id(self) -> str | None:
        """The provider's id of the call as the body states it, None until it has."""

    def read(self, value: object, events: list[ModelEvent], *, whole: bool = False, name: str = "message") -> None:
        """Append the events in `value`: one event's data in a stream, where `name` is the event's, or a `whole` body.

        Raises the error that is in it, after the events before it; `ParseError` for what makes no sense.
        """

    def end(self, events: list[ModelEvent]) -> None:
        """Append `Finished` where the protocol says no more, and the answer is complete without having said why."""


class Wire(Protocol):
    """One model behind one wire protocol, in the dialect that it is known to understand."""

    @property
    def streams(self) -> bool:
        """Whether requests ask for a stream."""

    def request(self, call: Call) -> Outgoing:
        """Return the request that makes the call.

        Raises `UnsupportedError` for what the protocol has no place for, `SerializationError` for what JSON has none
        for; both name the configured model.
        """

    def reader(self, head: Head) -> Reader:
        """Return what reads the answer that begins with `head`."""

    def without(self, refused: ErrorBody, *, keep_stream: bool) -> Self | None:
        """Return the dialect without the field that a 400 or 422 names, None where it names none that can go.

        With `keep_stream` the answer has to be a stream.
        """

    def lasting(self) -> Self:
        """Return the dialect for later calls: with what was left out for the sake of one conversation alone."""
