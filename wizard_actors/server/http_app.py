"""The application behind the HTTP endpoint: its paths, and what holds for every request."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias
from uuid import uuid4

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from wizard_actors import __version__
from wizard_actors.config.values import split_origin
from wizard_actors.errors import AccessDeniedError, WizardError
from wizard_actors.http_api.anthropic_format import ANTHROPIC
from wizard_actors.http_api.fields import BadRequestError, said
from wizard_actors.http_api.format import Format
from wizard_actors.http_api.openai_format import OPENAI
from wizard_actors.http_api.openapi import document
from wizard_actors.http_api.paths import instead_of
from wizard_actors.http_api.status import Failure
from wizard_actors.json_bytes import json_bytes
from wizard_actors.prometheus import exposition
from wizard_actors.server.access import check_origin
from wizard_actors.server.http_calls import Ask, unknown_name
from wizard_actors.server.http_connection import App, Message, Receive, Scope, Send
from wizard_actors.server.http_exchange import Exchange, caller_of, header
from wizard_actors.server.http_page import page_routes
from wizard_actors.server.refusals import Refusals
from wizard_actors.server.service import Service

__all__ = ["make_app"]

ID: Final = re.compile(r"[!-~]{1,128}")
"""What a request may be called by its client."""

HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z.-]+))(?::[0-9]+)?")
"""A host that is an IPv6 address, in brackets and of no zone, or anything else, and a port."""

SHOWN: Final = (
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-request-id",
    "x-should-retry",
    "x-wizard-attempts",
    "x-wizard-cache",
    "x-wizard-overhead-ms",
    "x-wizard-served-by",
)
"""Headers that a web page's script may read."""

JSON: Final = "application/json"


def make_app(service: Service) -> App:
    """Return the application that offers `service`."""
    looks, responses = _Looks(service), Counter[tuple[str, int]]()
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", Ask(service, OPENAI), methods=["POST"]),
            Route("/v1/messages", Ask(service, ANTHROPIC), methods=["POST"]),
            Route("/v1/models", _Look(looks.models), methods=["GET"]),
            Route("/v1/models/{name:path}", _Look(looks.model), methods=["GET"]),
            Route("/metrics", _Scrape(service, responses), methods=["GET"]),
            Route("/health/live", _Look(looks.live), methods=["GET"]),
            Route("/health/ready", _Look(looks.ready), methods=["GET"]),
            Route("/openapi.json", _Look(looks.openapi), methods=["GET"]),
            *page_routes(service),
        ],
        exception_handlers={HTTPException: _unknown, Exception: _bug},
    )
    app.router.redirect_slashes = False
    return _Guard(service, app, responses)


# -- what holds for every request --------------------------------------------------------------------


class _Guard:
    """Gives each request an id, and lets no web page in that may not use the server."""

    def __init__(self, service: Service, app: App, responses: Counter[tuple[str, int]]) -> None:
        self._service = service
        self._app = app
        self._responses = responses
        self._ids: set[str] = set()
        self._refusals = Refusals("a request")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = self._new_id(scope)
        scope["state"] = {"request_id": request_id, "refusals": self._refusals}
        named = _Named(scope, send, request_id, self._responses)
        self._ids.add(request_id)
        try:
            app, refused = self._app, None
            try:
                app = self._let_in(scope)
            except AccessDeniedError as error:
                self._refusals.log(403, error.message, trio.current_time())
                refused = Failure(403, error.code, error.message, error=error)
            except BadRequestError as error:
                refused = Failure(error.status, "bad_request", error.message)
            if refused is not None:
                app = _response(_format_of(scope), refused, request_id)
            await app(scope, receive, named)
        finally:
            self._ids.discard(request_id)

    def _new_id(self, scope: Scope) -> str:
        """Return the client's own id, where it is one, and no other request in progress has it."""
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
        if not ID.fullmatch(given):
            return uuid4().hex
        return f"{given}-{uuid4().hex[:8]}" if given in self._ids else given

    def _let_in(self, scope: Scope) -> App:
        """Return what answers the request. Raises `AccessDeniedError` for web pages that may not ask."""
        host, origin = header(scope, b"host") or "", header(scope, b"origin")
        if self._service.access.keys is None and not _is_here(host):
            raise AccessDeniedError(
                f"without keys this server answers for this machine alone, and not as {said(host)}: a web page could "
                "have sent this under a name of its own"
            )
        own = split_origin(f"{scope['scheme']}://{host}")
        if origin is None or (own is not None and split_origin(origin) == own):
            return self._app
        check_origin(origin, self._service.settings.origins)
        return CORSMiddleware(
            self._app, allow_origins=[origin], allow_methods=["GET", "POST"], allow_headers=["*"], expose_headers=SHOWN
        )


class _Named:
    """Sends a response with the request's id, by the name under which the client's SDK looks for it, too; counts it."""

    def __init__(self, scope: Scope, send: Send, request_id: str, responses: Counter[tuple[str, int]]) -> None:
        self._send = send
        self._responses = responses
        how = _format_of(scope)
        self._format = "other"
        if scope["path"].startswith("/v1/"):
            self._format = "anthropic" if how is ANTHROPIC else "openai"
        names = (b"x-request-id", b"request-id") if how is ANTHROPIC else (b"x-request-id",)
        self._headers = [(name, request_id.encode()) for name in names]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *self._headers]
            self._responses[self._format, message["status"]] += 1
        await self._send(message)


def _is_here(host: str) -> bool:
    """Return whether a `Host` names this machine as nobody else can."""
    found = HOST.fullmatch(host)
    if found is None:
        return False
    in_brackets, name = found.groups()
    try:
        if in_brackets is not None:
            return IPv6Address(in_brackets).is_loopback
        return name.casefold() == "localhost" or IPv4Address(name).is_loopback
    except ValueError:
        return False


# -- paths that nobody asks anything on ---------------------------------------------------------------


Shown: TypeAlias = tuple[int, bytes, str]
"""A status, a body, and its media type."""


class _Showing(ABC):
    """An ASGI application that shows something, to whoever may see it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, _format_of(scope), scope["state"]["request_id"])
        try:
            status, body, kind = await self.shown(scope)
        except (WizardError, BadRequestError) as error:
            await exchange.fail(error)
        else:
            await Response(body, status, media_type=kind)(scope, receive, send)

    @abstractmethod
    async def shown(self, scope: Scope) -> Shown:
        """Return what is shown. Raises `AccessDeniedError` and `BadRequestError`."""


class _Look(_Showing):
    """Shows what can be told at once."""

    def __init__(self, show: Callable[[Scope], Shown]) -> None:
        self._show = show

    async def shown(self, scope: Scope) -> Shown:  # noqa: ASYNC124 - others wait
        return self._show(scope)


Written: TypeAlias = tuple[int, str | None, tuple[bytes, str]]
"""The number of a scrape, what its first reader accepts, and the body with its media type."""

NOT_WRITTEN: Final[Written] = (0, None, (b"", ""))


class _Scrape(_Showing):
    """Shows the metrics, written in a thread: with many models that takes longer than a request should wait for.

    One is written at a time. Who waits for that shares the next one with all others who do, and want it alike.
    """

    def __init__(self, service: Service, responses: Counter[tuple[str, int]]) -> None:
        self._service = service
        self._responses = responses
        self._writing = trio.Lock()
        self._begun = 0
        self._written = NOT_WRITTEN

    async def shown(self, scope: Scope) -> Shown:
        caller_of(scope, self._service.access).check_admin()
        accept = header(scope, b"accept")
        body, kind = await self._next(accept)
        return 200, body, kind

    async def _next(self, accept: str | None) -> tuple[bytes, str]:
        """Return metrics that are counted no earlier than now."""
        before = self._begun
        async with self._writing:
            number, accepted, written = self._written
            if number > before and accepted == accept:
                return written
            self._begun += 1
            number, metrics, responses = self._begun, self._service.client.metrics(), dict(self._responses)
            written = await trio.to_thread.run_sync(exposition, metrics, accept, responses)
            waited_for = self._writing.statistics().tasks_waiting > 0
            self._written = (number, accept, written) if waited_for else NOT_WRITTEN
            return written


class _Looks:
    """What is shown of `service`: a status, a body and its media type each."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._created = int(time.time())

    def models(self, scope: Scope) -> Shown:
        """Show what may be asked by name."""
        names = self._service.client_of(caller_of(scope, self._service.access)).names()
        return 200, json_bytes(_format_of(scope).models(names, created=self._created)), JSON

    def model(self, scope: Scope) -> Shown:
        """Show one of them."""
        name = str(scope["path_params"]["name"])
        names = self._service.client_of(caller_of(scope, self._service.access)).names()
        if not name.strip("/"):
            reason = instead_of(scope["path"], ["/v1/models"])
            raise BadRequestError(f"GET {said(scope['path'])} {reason}", status=404, code="not_found")
        if name not in names:
            raise unknown_name(name, names)
        return 200, json_bytes(_format_of(scope).model(name, created=self._created)), JSON

    def live(self, _scope: Scope) -> Shown:
        """Say that the server runs."""
        return 200, json_bytes({"status": "live"}), JSON

    def ready(self, _scope: Scope) -> Shown:
        """Say whether it takes requests."""
        if self._service.draining.is_set():
            return 503, json_bytes({"status": "draining"}), JSON
        return 200, json_bytes({"status": "ready"}), JSON

    def openapi(self, _scope: Scope) -> Shown:
        """Describe all of this."""
        return 200, json_bytes(document(version=__version__, keyed=self._service.access.keys is not None)), JSON


# -- errors -------------------------------------------------------------------------------------------


def _format_of(scope: Scope) -> Format:
    """Return the format in which the client of a request reads errors and lists."""
    anthropic = any(name == b"anthropic-version" for name, _ in scope["headers"])
    return ANTHROPIC if anthropic or scope["path"].startswith("/v1/messages") else OPENAI


# Coroutines, for Starlette runs what is none in a thread.


async def _unknown(request: Request, error: Exception) -> Response:  # noqa: ASYNC124 - see above
    """Return the response for a path that is not there, or takes another method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = f"{request.method} {said(request.url.path)}"
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status == 404:
        plain = [route.path for route in request.app.routes if isinstance(route, Route) and "{" not in route.path]
        reason = instead_of(request.url.path, plain)
    else:
        reason = f"takes {' or '.join(sorted(headers.get('Allow', 'another method').split(', ')))}"
    failure = Failure(status, "not_found" if status == 404 else "method_not_allowed", f"{path} {reason}")
    return _response(_format_of(request.scope), failure, request.state.request_id, headers)


async def _bug(request: Request, _error: Exception) -> Response:  # noqa: ASYNC124 - see above
    """Return the response where something is wrong here; what it was, the log says."""
    failure = Failure(500, "internal", "a bug in this server: its log says more")
    again = {"x-should-retry": "false"}
    return _response(_format_of(request.scope), failure, request.state.request_id, again)


def _response(how: Format, failure: Failure, request_id: str, headers: dict[str, str] | None = None) -> Response:
    return Response(json_bytes(how.error(failure, request_id)), failure.status, headers, media_type=JSON)
