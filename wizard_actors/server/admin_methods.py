"""The methods of admins: they look at the server, and change its cache."""

from __future__ import annotations

import time
from typing import Final

import trio

from wizard_actors.ask_options import AskOptions
from wizard_actors.embed.errands import AT_HOME
from wizard_actors.events import plain
from wizard_actors.protocol.failures import error_to
from wizard_actors.protocol.values import prompt_from
from wizard_actors.server.call import Call
from wizard_actors.server.credit import MOST_CREDIT
from wizard_actors.server.params import ASKING

__all__ = ["invalidate", "stats", "subscribe", "tree", "warm"]

EVENTS_KEPT: Final = 1024
"""What a subscription holds that does not say, unread."""


async def tree(call: Call) -> object:  # noqa: ASYNC124 - called as all of them are
    """Return every actor as it stands."""
    call.check_admin()
    call.params.only()
    return plain(call.service.client.supervisor.tree())


async def stats(call: Call) -> object:  # noqa: ASYNC124 - called as all of them are
    """Return what has been counted, and how everything stands."""
    call.check_admin()
    call.params.only()
    return call.service.client.metrics().to_dict()


async def invalidate(call: Call) -> object:
    """Drop cached answers, of all keys; the globs match all by default."""
    call.check_admin()
    call.params.only("model", "text")
    dropped = await call.service.client.invalidate(call.params.text("model", "*"), call.params.text("text", "*"))
    return {"dropped": dropped}


async def warm(call: Call) -> object:
    """Ask what is not in the cache yet, for the caller, or for the holder of the key named `key`."""
    call.check_admin()
    call.params.only("prompts", "key", *ASKING, "max_concurrency")
    prompts = [prompt_from(each, f"prompts[{index}]") for index, each in enumerate(call.params.items("prompts"))]
    options: AskOptions = {**call.params.options(), "tenant": _tenant(call)}
    warmed = await call.service.client.warm(prompts, AT_HOME, max_concurrency=call.at_once(), **options)
    now = time.time()
    return {
        "stored": warmed.stored,
        "already": warmed.already,
        "failed": [[index, error_to(error, now=now)] for index, error in warmed.failed],
    }


def _tenant(call: Call) -> str:
    name = call.params.text("key", call.client.caller.tenant)
    keys = call.service.access.keys
    if name and (keys is None or name not in {key.name for key in keys.keys}):
        raise call.params.wrong("`key` must be the name of one of the server's keys")
    return name


async def subscribe(call: Call) -> object:
    """Send the client's events as they happen, until it is unsubscribed. Nobody waits for the subscriber: what there is
    no credit for is kept, as far as there is room, and then the oldest is dropped.
    """
    call.check_admin()
    call.params.only("types", "bound", "credit")
    types, bound = call.params.texts("types"), call.params.whole("bound", EVENTS_KEPT, least=1, most=MOST_CREDIT)
    call.may_notify()
    with call.service.client.events.subscribe(bound=bound) as events:
        with trio.CancelScope() as reading:
            call.running.unsubscribe = reading.cancel
            if call.service.draining.is_set():
                reading.cancel()
            async for event in events:
                shown = event.to_dict()
                if types is None or shown["type"] in types:
                    call.check_admin()
                    await call.notify("event", {"event": shown}, patient=True)
        return {"dropped": events.dropped}
