"""The methods of admins: they look at the server, and change its cache."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from wizard_actors.events import event_types, plain
from wizard_actors.protocol.failures import error_to
from wizard_actors.protocol.frames import shown_text
from wizard_actors.server.call import Call
from wizard_actors.server.credit import MOST_CREDIT
from wizard_actors.server.params import ASKING
from wizard_actors.server.service import Service
from wizard_actors.server.warming import warm as warm_cache

__all__ = ["invalidate", "keys_left", "stats", "subscribe", "tree", "warm"]

EVENTS_KEPT: Final = 1024
"""What a subscription holds that does not say, unread."""


async def tree(call: Call) -> object:  # noqa: ASYNC124 - called as all of them are
    """Return every actor as it stands."""
    call.check_admin()
    call.params.only()
    return plain(call.service.client.supervisor.tree())


async def stats(call: Call) -> object:  # noqa: ASYNC124 - called as all of them are
    """Return what has been counted, and how everything stands, what keys have left among it."""
    call.check_admin()
    call.params.only()
    return {**call.service.client.metrics().to_dict(), "keys": keys_left(call.service)}


def keys_left(service: Service) -> Mapping[str, Mapping[str, object]]:
    """Return what each key has left, and how many requests of it are in progress, by its name."""
    keys = service.access.keys
    return {} if keys is None else {key.name: _left(service, key.name) for key in keys.keys}


def _left(service: Service, name: str) -> Mapping[str, object]:
    left = service.limits.left(name)
    return {
        "requests_left": left.requests,
        "tokens_left": left.tokens,
        "budget_left": left.budget,
        "in_progress": service.admission.of_key(name),
    }


async def invalidate(call: Call) -> object:
    """Drop cached answers, of all keys; the globs match all by default."""
    call.check_admin()
    call.params.only("model", "text")
    dropped = await call.service.client.invalidate(call.params.text("model", "*"), call.params.text("text", "*"))
    return {"dropped": dropped}


async def warm(call: Call) -> object:
    """Ask what is not in the cache yet, for the caller, or for the holder of the key named `key`; by what the caller's
    own key may do, and has left.
    """
    call.check_admin()
    call.params.only("prompts", "key", *ASKING, "max_concurrency")
    tenant, prompts, options = _tenant(call), await call.prompts(), call.params.options()
    most = min(call.at_once(), len(call.params.items("prompts")))
    with call.service.admission.several(call.client.caller, call.service.settings, most) as at_once:
        warmed = await warm_cache(call.client, prompts, options, tenant=tenant, at_once=at_once)
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
    types, bound = _types(call), call.params.whole("bound", EVENTS_KEPT, least=1, most=MOST_CREDIT)
    call.may_notify()
    with call.service.client.events.subscribe(bound=bound) as events:
        with call.running.reading as reading:
            if call.service.draining.is_set():
                reading.cancel()
            async for event in events:
                shown = event.to_dict()
                if types is None or shown["type"] in types:
                    call.check_admin()
                    await call.notify("event", {"event": shown, "time": round(time.time(), 3)}, patient=True)
        return {"dropped": events.dropped}


def _types(call: Call) -> frozenset[str] | None:
    types, known = call.params.texts("types"), event_types()
    if unknown := sorted((types or frozenset()) - known):
        raise call.params.wrong(f"`types` has {shown_text(unknown[0])}, and there are: {', '.join(sorted(known))}")
    return types
