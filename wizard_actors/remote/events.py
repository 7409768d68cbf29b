"""What happens in a server, as it tells those who subscribe."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Self

from wizard_actors.embed.host import Host
from wizard_actors.errors import InvalidStateTransitionError
from wizard_actors.remote.call import Call

__all__ = ["RemoteEvents"]


class RemoteEvents:
    """A server's events from the beginning of its block on, each a mapping: `type`, and its facts.

        async with client.subscribe() as events:
            async for event in events:
                print(event["type"])

    A reader who is too slow loses events, which the server counts, never the newest; it ends when the server stops.
    """

    def __init__(self, call: Call, host: Host) -> None:
        self._call = call
        self._host = host
        self._state = "created"

    async def __aenter__(self) -> Self:
        if self._state != "created":
            raise InvalidStateTransitionError(
                "a subscription is entered once: ask the client for another", from_state=self._state, to_state="open"
            )
        self._state = "open"
        try:
            await self._host.run(self._call.begin)
        except BaseException:  # under asyncio it may have begun all the same
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._state = "left"
        self._host.look(self._call.leave)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Mapping[str, object]:
        """Return the next event. Raises `NetworkError` where the connection is lost, and the server's error."""
        if self._state == "created":
            raise InvalidStateTransitionError(
                "a subscription is read inside its block: async with client.subscribe() as events",
                from_state="created",
                to_state="open",
            )
        event = None if self._state == "left" else await self._host.run(partial(_event, self._call))
        if event is None:
            raise StopAsyncIteration
        return event


async def _event(call: Call) -> Mapping[str, object] | None:
    """Return the next event; None at the end."""
    while (item := await call.next()) is not None:
        event = item.get("event")
        if isinstance(event, Mapping):
            return event
    call.result()
    return None
