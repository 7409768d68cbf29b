"""`BlockingStream`: one answer as it arrives, for programs without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from wizard_actors.embed.blocking_host import BlockingSource
from wizard_actors.response_stream import Reading, refuse_reset
from wizard_actors.types import StreamEvent, TextDelta, WizardResponse

__all__ = ["BlockingStream"]


class BlockingStream:
    """One answer as it arrives.

        with client.stream("Tell a story") as stream:
            for text in stream.text():
                print(text, end="")
        response = stream.response

    Iterate the stream itself for typed events. Leaving the block early cancels the call upstream. One thread at a time
    reads it.
    """

    def __init__(self, begin: Callable[[], BlockingSource], request_id: str) -> None:
        self.request_id = request_id
        """The id that runs through logs, events and headers."""
        self._begin = begin
        self._source: BlockingSource | None = None
        self._reading = Reading()

    @property
    def response(self) -> WizardResponse:
        """The whole response. Raises `InvalidStateTransitionError` before the stream has ended."""
        return self._reading.response

    def text(self) -> Iterator[str]:
        """Yield the answer's text as it comes. Raises where it is interrupted, or reset; as `ResponseStream.text`."""
        for event in self:
            refuse_reset(event)
            if isinstance(event, TextDelta):
                yield event.text

    def __enter__(self) -> Self:
        self._reading.enter()
        self._source = self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.leave()
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def __iter__(self) -> Iterator[StreamEvent]:
        return self

    def __next__(self) -> StreamEvent:
        if not self._reading.goes_on() or self._source is None:
            raise StopIteration
        self._reading.begin()
        try:
            event = next(self._source)
        except BaseException as error:
            self._reading.failed(error)
            raise
        self._reading.saw(event)
        return event
