"""The events of one answer, as a server sends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import trio

from wizard_actors.errors import NetworkError, StreamInterruptedError, WizardError
from wizard_actors.protocol.values import event_from, response_from
from wizard_actors.remote.call import Call
from wizard_actors.types import End, Reset, StreamEvent, TextDelta, UsageUpdate, WizardResponse

__all__ = ["RemoteSource"]


class RemoteSource:
    """The events of `call`, which begins with the first read; `on_end` is told the whole answer, and what it was read
    from.
    """

    def __init__(self, call: Call, on_end: Callable[[WizardResponse, object], None] | None = None) -> None:
        self._call = call
        self._on_end = on_end
        self._text: list[str] = []
        self._begun = self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        while not self._over:
            item = await self._call.next()
            if item is None:
                return self._end()
            event = event_from(item.get("event"))
            if event is not None:  # else of a kind that a newer server has
                self._saw(event)
                return event
        raise StopAsyncIteration

    async def aclose(self) -> None:  # noqa: ASYNC124 - as other sources are closed
        """Have the call stopped, if it is not over."""
        self._over = True
        self._call.leave()

    def _saw(self, event: StreamEvent) -> None:
        if isinstance(event, TextDelta):
            self._text.append(event.text)
        elif isinstance(event, Reset):
            self._text.clear()
        self._begun = self._begun or not isinstance(event, UsageUpdate)

    def _end(self) -> End:
        self._over = True
        try:
            result = self._call.result()
            response = response_from(result, now=trio.current_time())
        except NetworkError as error:
            if error is not self._call.lost or not self._begun:
                raise
            raise self._interrupted(error) from error
        if self._on_end is not None:
            self._on_end(response, result)
        return End(response)

    def _interrupted(self, error: NetworkError) -> WizardError:
        return StreamInterruptedError(
            f"{error.message}: the answer broke off", model=error.model, partial="".join(self._text)
        )
