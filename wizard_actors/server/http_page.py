"""The live page at `/`: its files, which say nothing and are for everybody, and its data, which are for admins."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Final

import trio
from starlette.responses import Response
from starlette.routing import Route

from wizard_actors import __version__
from wizard_actors.config import WizardConfig
from wizard_actors.errors import AccessDeniedError, ActorStoppedError, WizardError
from wizard_actors.event_stream import Subscription
from wizard_actors.events import Event, event_types, plain, type_of
from wizard_actors.http_api.fields import BadRequestError, said
from wizard_actors.http_api.format import PING, sse
from wizard_actors.http_api.openai_format import OPENAI
from wizard_actors.json_bytes import json_bytes
from wizard_actors.metrics import MetricsSnapshot
from wizard_actors.server.access import Caller
from wizard_actors.server.admin_methods import keys_left
from wizard_actors.server.http_connection import Receive, Scope, Send
from wizard_actors.server.http_exchange import Exchange, caller_of
from wizard_actors.server.recent import Recent
from wizard_actors.server.service import Service
from wizard_actors.specs import TreeNode

__all__ = ["page_routes"]

FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.svg": ("page.svg", "image/svg+xml"),
}
"""The paths of the page's files, their names and media types."""

ONLY_FROM_HERE: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
"""Headers of the page's files: nothing comes from elsewhere, nothing is sent elsewhere, and nobody frames it."""

PING_EVERY: Final = 10.0
"""Seconds of silence after which the stream of events says that it is there."""

EVENTS_KEPT: Final = 1024
"""Events that a reader may be late by, before it loses the oldest."""

SHOWN_AT_MOST: Final = 50
"""Requests in progress that are shown one by one."""

STREAM: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]


def page_routes(service: Service) -> Sequence[Route]:
    """Return the paths of the page. From now on it is followed what becomes of the client's requests, by a listener
    that goes with the client.
    """
    recent = Recent()
    service.client.events.listen(recent.apply)
    return [
        *(Route(path, _File(*each), methods=["GET"]) for path, each in FILES.items()),
        Route("/api/state", _State(service, recent), methods=["GET"]),
        Route("/api/events", _Events(service), methods=["GET"]),
    ]


class _File:
    """An ASGI application that sends one of the page's files."""

    def __init__(self, name: str, media_type: str) -> None:
        self._body = files("wizard_actors.server").joinpath("page", name).read_bytes()
        self._media_type = media_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = Response(self._body, media_type=self._media_type, headers=ONLY_FROM_HERE)
        await response(scope, receive, send)


# -- who may see the data ----------------------------------------------------------------------------


async def _admin(service: Service, exchange: Exchange) -> Caller | None:
    """Return the admin who asks; None where nobody does, which has been answered."""
    try:
        caller = caller_of(exchange.scope, service.access)
        caller.check_admin()
    except (AccessDeniedError, BadRequestError) as error:
        await exchange.fail(error)
    else:
        return caller
    return None


def _exchange(scope: Scope, receive: Receive, send: Send) -> Exchange:
    return Exchange(scope, receive, send, OPENAI, scope["state"]["request_id"])


# -- how everything stands ---------------------------------------------------------------------------


class _State:
    """An ASGI application that shows how everything stands. A thread writes it: many models take their time."""

    def __init__(self, service: Service, recent: Recent) -> None:
        self._service = service
        self._recent = recent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _exchange(scope, receive, send)
        if await _admin(self._service, exchange) is None:
            return
        client, now = self._service.client, trio.current_time()
        metrics = client.metrics()
        shown = {
            "server": _server(self._service, metrics),
            **_configured(client.config),
            "keys": keys_left(self._service),
            "circuits": self._recent.circuits(now),
            "failures": self._recent.failures(),
            "in_progress": self._recent.in_progress(now, SHOWN_AT_MOST),
        }
        body = await trio.to_thread.run_sync(_written, shown, client.supervisor.tree(), metrics)
        response = Response(body, media_type="application/json", headers={"cache-control": "no-store"})
        await response(scope, receive, send)


def _server(service: Service, metrics: MetricsSnapshot) -> Mapping[str, object]:
    config = service.client.config
    return {
        "version": __version__,
        "time": round(time.time(), 3),
        "uptime": metrics.at - metrics.since,
        "draining": service.draining.is_set(),
        "keys": service.access.keys is not None,
        "max_in_flight": config.server.max_in_flight,
        "retry_budget": config.retry_budget.max if config.retry_budget.enabled else None,
        "cache_entries": config.cache.max_entries,
    }


def _configured(config: WizardConfig) -> Mapping[str, object]:
    routes = (config.fallback, *config.routes)
    return {
        "models": [
            {"name": model.name, "provider": model.provider, "model": model.model, "enabled": model.enabled}
            for model in config.models
        ],
        "routes": [{"name": each.name, "strategy": each.strategy, "chain": list(each.chain)} for each in routes],
    }


def _written(shown: Mapping[str, object], tree: TreeNode, metrics: MetricsSnapshot) -> bytes:
    return json_bytes({**shown, "tree": plain(tree), "metrics": metrics.to_dict()})


# -- what happens ------------------------------------------------------------------------------------


class _Events:
    """An ASGI application that sends the client's events as they happen, as server-sent events.

    `?types=NAME,NAME` chooses among them. Nobody waits for the reader: what it does not take in time makes room, which
    it is told. It ends, and says why, when the server drains, or the reader's key is no admin's any more.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _exchange(scope, receive, send)
        caller = await _admin(self._service, exchange)
        if caller is None:
            return
        try:
            types = _types(scope)
            if self._service.draining.is_set():
                raise ActorStoppedError("the server stops: ask its successor", actor="server")
        except (WizardError, BadRequestError) as error:
            await exchange.fail(error)
            return
        if not await _read_to_its_end(receive):  # after it comes the end of the connection, which is waited for
            return
        await exchange.head(200, STREAM, {})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        with self._service.client.events.subscribe(bound=EVENTS_KEPT) as events:
            await _Feed(self._service, exchange, caller, events, types).run()


async def _read_to_its_end(receive: Receive) -> bool:
    """Pass over what a request has of a body; return whether all of it has come."""
    while (message := await receive())["type"] == "http.request":
        if not message["more_body"]:
            return True
    return False


def _types(scope: Scope) -> frozenset[str] | None:
    """Return which events are asked for, None: all. Raises `BadRequestError`."""
    query = scope["query_string"].decode("latin-1")
    if not query:
        return None
    name, _, value = query.partition("=")
    if name != "types":
        raise BadRequestError(f"there is no parameter {said(name)} here, only `types`")
    types, known = frozenset(value.replace("%2C", ",").split(",")), event_types()
    if unknown := sorted(types - known):
        raise BadRequestError(f"`types` has {said(unknown[0])}, and there are: {', '.join(sorted(known))}")
    return types


class _Feed:
    """One reader of events."""

    def __init__(
        self,
        service: Service,
        exchange: Exchange,
        caller: Caller,
        events: Subscription,
        types: frozenset[str] | None,
    ) -> None:
        self._service = service
        self._exchange = exchange
        self._caller = caller
        self._events = events
        self._types = types
        self._sending = trio.Lock()  # between events, and what says that there are none
        self._said_at = trio.current_time()
        self._dropped_told = 0

    async def run(self) -> None:
        """Send what happens, until somebody wants no more of it. Raises `trio.BrokenResourceError`."""
        reasons: list[WizardError] = []
        async with trio.open_nursery() as nursery:

            async def until(wait: Callable[[], Awaitable[WizardError | None]]) -> None:
                reason = await wait()
                if reason is not None:
                    reasons.append(reason)
                nursery.cancel_scope.cancel()

            nursery.start_soon(until, self._exchange.gone)
            nursery.start_soon(until, self._drains)
            nursery.start_soon(until, self._no_admin_s)
            nursery.start_soon(self._ping)
            await self._tell()
        if reasons:
            await self._say(sse({"code": reasons[0].code, "message": reasons[0].message}, "end"), more=False)

    async def _drains(self) -> WizardError:
        await self._service.draining.wait()
        return ActorStoppedError("the server stops", actor="server")

    async def _no_admin_s(self) -> WizardError:
        while True:
            changed = self._service.access.changed
            try:
                self._service.access.current(self._caller).check_admin()
            except AccessDeniedError as error:
                return error
            await changed.wait()

    async def _tell(self) -> None:
        await self._say(b": here\n\n")  # the head is out, and the reader knows that it is heard
        async for event in self._events:
            data = self._shown([event, *self._events.drain()])
            if data:
                await self._say(data)

    def _shown(self, events: Iterable[Event]) -> bytes:
        now, data = round(time.time(), 3), b""
        if self._events.dropped > self._dropped_told:
            data = sse({"dropped": self._events.dropped - self._dropped_told}, "dropped")
            self._dropped_told = self._events.dropped
        for event in events:
            if self._types is None or type_of(type(event)) in self._types:
                data += sse({"event": event.to_dict(), "time": now})
        return data

    async def _ping(self) -> None:
        while True:
            silent_until = self._said_at + PING_EVERY
            if trio.current_time() < silent_until:
                await trio.sleep_until(silent_until)
            else:
                await self._say(PING)

    async def _say(self, data: bytes, *, more: bool = True) -> None:
        async with self._sending:
            await self._exchange.send({"type": "http.response.body", "body": data, "more_body": more})
            self._said_at = trio.current_time()
