"""One request as a method sees it; and a stream of an answer, on its way to the wire."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import trio
from attrs import frozen

from wizard_actors.config import WizardConfig
from wizard_actors.protocol.frames import notification_text
from wizard_actors.protocol.values import event_to, prompt_from, response_to
from wizard_actors.response_stream import Source
from wizard_actors.server.callers import CallersClient
from wizard_actors.server.credit import FIRST_CREDIT, MOST_CREDIT
from wizard_actors.server.params import Params
from wizard_actors.server.running import Running
from wizard_actors.server.service import Service
from wizard_actors.types import End, Prompt

__all__ = ["MOST_PROMPTS", "Call", "streamed"]

MOST_PROMPTS: Final = 10_000
"""Prompts in one request."""

AT_A_TIME: Final = 100
"""Prompts that are read before others have a turn."""


@frozen
class Call:
    """One request: with what, and how to send notifications meanwhile. `client` is what its caller may use."""

    service: Service
    client: CallersClient
    params: Params
    running: Running
    say: Callable[[str], Awaitable[None]]

    @property
    def config(self) -> WizardConfig:
        """The configuration in force."""
        return self.service.client.config

    def check_admin(self) -> None:
        """Raise `AccessDeniedError` where the caller's key is not, or is no more, one that may look at the server."""
        self.client.caller.check_admin()

    def at_once(self) -> int:
        """Return how many prompts of a batch are asked at once: as many as configured, or fewer."""
        most = self.config.batch.max_concurrency
        return min(most, self.params.whole("max_concurrency", most, least=1))

    async def prompts(self) -> Iterable[str | Prompt]:
        """Check all of `prompts`, and return them, each made of what came when it is its turn: thousands of them would
        take much more memory than that.

        Raises `Fault` where there are more than `MOST_PROMPTS`, `InvalidPromptError` for the first that is none.
        """
        given = self.params.items("prompts")
        if len(given) > MOST_PROMPTS:
            raise self.params.wrong(
                f"`prompts` has {len(given):,} prompts, and {MOST_PROMPTS:,} are the most: send several"
            )
        for index, each in enumerate(given):
            if index % AT_A_TIME == 0:
                await trio.lowlevel.checkpoint()
            prompt_from(each, _place(index))
        return (prompt_from(each, _place(index)) for index, each in enumerate(given))

    def may_notify(self) -> None:
        """Read how many notifications the client takes; for methods that send some."""
        self.running.opened(self.params.whole("credit", FIRST_CREDIT, least=0, most=MOST_CREDIT))

    async def notify(self, method: str, facts: Mapping[str, object], *, patient: bool = False) -> None:
        """Send a notification, once there is credit for it; return when it is being written.

        Where there is none for `stream.consumer_idle` seconds the request is over, unless it is `patient`.
        """
        await self.running.afford(math.inf if patient else self.config.stream.consumer_idle)
        await self.say(notification_text(method, {"id": self.running.id, **facts}))


def _place(index: int) -> str:
    return f"prompts[{index}]"


async def streamed(call: Call, source: Source) -> dict[str, object]:
    """Send the events of an answer as they come; return the whole answer, for the response. Cancelled, or without
    credit, its call upstream is stopped.
    """
    try:
        async for event in source:
            if isinstance(event, End):
                return response_to(event.response, now=time.time())
            await call.notify("event", {"event": event_to(event)})
            call.running.sent(event)
    finally:
        await source.aclose()  # noqa: ASYNC102 - it stops what it holds, and shields that itself
    raise RuntimeError("a stream has ended without its end")
