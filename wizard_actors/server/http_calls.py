"""Questions over HTTP: answered whole, or in pieces as server-sent events; stopped when their client is gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import trio
from attrs import evolve

from wizard_actors.ask_options import AskOptions, delivery_of
from wizard_actors.errors import AccessDeniedError, ActorStoppedError, StreamInterruptedError, WizardError
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.fields import BadRequestError, Fields, said
from wizard_actors.http_api.format import PING, Format, StreamWriter
from wizard_actors.otel import incoming
from wizard_actors.request import Delivery, Request
from wizard_actors.server.access import Caller
from wizard_actors.server.callers import CallersClient, CallersSource, fields_refused
from wizard_actors.server.http_connection import Receive, Scope, Send
from wizard_actors.server.http_exchange import Exchange, caller_of, facts_of, header, headers_of, told_of
from wizard_actors.server.service import Service
from wizard_actors.types import End, Reset, StreamEvent

__all__ = ["Ask", "unknown_name"]

log = logging.getLogger("wizard_actors.server")

T = TypeVar("T")

PING_EVERY: Final = 10.0
"""Seconds of silence after which a stream says that it is there; and for which it waits to tell its status truly."""

NAMES_SHOWN: Final = 20
"""Of what may be asked by name, in an error."""

STREAM: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Ask:
    """An ASGI application that answers questions of one format."""

    def __init__(self, service: Service, how: Format) -> None:
        self._service = service
        self._format = how

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever is wrong with it."""
        exchange = Exchange(scope, receive, send, self._format, scope["state"]["request_id"])
        try:
            caller = caller_of(scope, self._service.access)
            _check_open(self._service)
            settings = self._service.settings
            with incoming(headers_of(scope)), self._service.admission.request(caller, exchange.request_id, settings):
                asked = self._format.read(await self._body(exchange))
                await self._answer(exchange, caller, asked)
        except (WizardError, BadRequestError) as error:
            await exchange.fail(error)

    async def _body(self, exchange: Exchange) -> object:
        """Return the body. Raises what `Exchange.json` does, and `ActorStoppedError` where the server stops before it
        has come.
        """
        settings, draining = self._service.settings, self._service.draining
        bodies: list[object] = []
        errors: list[BadRequestError] = []
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await draining.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(give_up)
            try:
                bodies.append(await exchange.json(most=settings.max_message, max_depth=settings.max_json_depth))
            except BadRequestError as error:
                errors.append(error)
            nursery.cancel_scope.cancel()
        if errors:
            raise errors[0]
        _check_open(self._service)
        return bodies[0]

    async def _answer(self, exchange: Exchange, caller: Caller, asked: Asked) -> None:
        client, config = self._service.client_of(caller), self._service.client.config
        _check_fields(client.caller, asked, self._format)
        delivery = delivery_of(config.stream.delivery) if asked.stream else Delivery.WHOLE
        request = client.request_for(asked.name, asked.prompt, delivery, _options(exchange))
        if request is None:
            raise unknown_name(asked.name, client.names())
        request = evolve(request, request_id=exchange.request_id)
        if asked.stream:
            await _Streamed(self._service, exchange, caller, asked).run(client, request)
        else:
            await self._whole(exchange, caller, client, request, asked)

    async def _whole(
        self, exchange: Exchange, caller: Caller, client: CallersClient, request: Request, asked: Asked
    ) -> None:
        response = await _while_wanted(
            self._service,
            exchange,
            caller,
            lambda: client.answer(request, told=lambda so_far: exchange.facts.update(facts_of(so_far))),
        )
        if response is not None:
            await exchange.answer(200, self._format.answer(response, asked.name, created=int(time.time())))


class _Streamed:
    """One answer in pieces. Its status is sent with the first of them, or when nothing has come for a while."""

    def __init__(self, service: Service, exchange: Exchange, caller: Caller, asked: Asked) -> None:
        self._service = service
        self._exchange = exchange
        self._caller = caller
        self._asked = asked
        self._writer: StreamWriter = exchange.format.stream(asked, exchange.request_id, created=int(time.time()))
        self._begun = False  # the status is out
        self._closing = False  # the end is out, or nothing but the end is to come
        self._sending = trio.Lock()  # between the answer and what says that it is still waited for
        self._said_at = trio.current_time()

    async def run(self, client: CallersClient, request: Request) -> None:
        """Answer. Raises what is wrong as long as the status can still tell it."""
        source = client.source(request)
        try:
            await _while_wanted(
                self._service, self._exchange, self._caller, lambda: self._deliver(source), lambda: self._ping(source)
            )
        except (WizardError, BadRequestError) as error:
            if not self._begun:
                self._note(source)
                raise
            await self._say(self._writer.failed(told_of(error)), more=False)

    async def _deliver(self, source: CallersSource) -> bool:
        first = True
        try:
            async for event in source:
                data = b""
                if first:
                    so_far = source.so_far
                    model = "" if so_far is None else so_far.model
                    data, first = self._writer.begin(model or self._asked.name), False
                data += self._written(event)
                ends = isinstance(event, End)
                if data or ends:
                    await self._say(data, source, more=not ends)
        except (WizardError, BadRequestError):
            # A ping on its way gets there: nothing could follow the half of one.
            async with self._sending:  # noqa: ASYNC120 - who cancels this has a reason of their own to tell
                self._closing = True
            raise
        finally:
            await source.aclose()  # noqa: ASYNC102 - it stops what it holds, and shields that itself
        return True

    def _written(self, event: StreamEvent) -> bytes:
        """Return what an event becomes in the format. Raises, and logs, why the answer cannot be told in it: for the
        client's log, the request will have been stopped by its reader.
        """
        try:
            if isinstance(event, Reset):
                raise _unsayable(event)
            return self._writer.event(event)
        except WizardError as error:
            log.warning("request %s: %s", self._exchange.request_id, error)
            raise

    async def _ping(self, source: CallersSource) -> None:
        while True:
            await trio.sleep_until(self._said_at + PING_EVERY)
            async with self._sending:
                if self._closing:
                    return
                if trio.current_time() >= self._said_at + PING_EVERY:
                    await self._write(PING, source)

    async def _say(self, data: bytes, source: CallersSource | None = None, *, more: bool = True) -> None:
        async with self._sending:
            self._closing = not more
            await self._write(data, source, more=more)

    async def _write(self, data: bytes, source: CallersSource | None, *, more: bool = True) -> None:
        if not self._begun:
            self._note(source)
            self._begun = True
            await self._exchange.head(200, STREAM, {})
        await self._exchange.send({"type": "http.response.body", "body": data, "more_body": more})
        self._said_at = trio.current_time()

    def _note(self, source: CallersSource | None) -> None:
        """Take down for the head how the answer comes about."""
        so_far = None if source is None else source.so_far
        if so_far is not None:
            self._exchange.facts.update(facts_of(so_far))


def unknown_name(name: str, names: Sequence[str]) -> BadRequestError:
    """Return the error for a name that is none of `names`: what may be asked."""
    there = ", ".join(names[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more: GET /v1/models lists them" if len(names) > NAMES_SHOWN else ""
    reason = f"there is no model or route {said(name)} here; there are {there}{more}"
    return BadRequestError(reason, param="model", status=404)


def _unsayable(event: Reset) -> StreamInterruptedError:
    return StreamInterruptedError(
        f"{event.model} broke off ({event.reason}), and what was sent of its answer cannot be taken back over HTTP: "
        'stream.delivery = "buffered" delivers whole answers alone',
        model=event.model,
    )


async def _while_wanted(
    service: Service,
    exchange: Exchange,
    caller: Caller,
    work: Callable[[], Awaitable[T]],
    beside: Callable[[], Awaitable[None]] | None = None,
) -> T | None:
    """Return what `work` comes to; None where the client is gone before. It is stopped then, and when the server's time
    to drain is up, or the caller's key is in force no more, for which this raises.
    """
    results: list[T] = []
    reasons: list[WizardError | BadRequestError] = []
    async with trio.open_nursery() as nursery:

        async def until(wait: Callable[[], Awaitable[WizardError | None]]) -> None:
            reason = await wait()
            if reason is not None:
                reasons.append(reason)
            nursery.cancel_scope.cancel()

        async def left() -> None:
            await exchange.gone()

        async def cut_off() -> WizardError:
            await service.ending.wait()
            return ActorStoppedError("the server stops: the request was begun, and cut off", actor="wizard")

        nursery.start_soon(until, left)
        nursery.start_soon(until, cut_off)
        nursery.start_soon(until, lambda: _revoked(service, caller))
        if beside is not None:
            nursery.start_soon(beside)
        try:
            results.append(await work())
        except (WizardError, BadRequestError) as error:
            reasons.append(error)
        nursery.cancel_scope.cancel()
    if results:
        return results[0]
    if reasons:
        raise reasons[0]
    return None


async def _revoked(service: Service, caller: Caller) -> WizardError:
    """Wait until the caller's key is in force no more; return what it is told."""
    while True:
        changed = service.access.changed
        try:
            service.access.current(caller)
        except AccessDeniedError as error:
            return error
        await changed.wait()


def _check_fields(caller: Caller, asked: Asked, how: Format) -> None:
    """Raise where a body has a field that this caller may not send, most likely by mistake: with what was meant."""
    refused = fields_refused(caller, asked.prompt)
    if not refused:
        return
    place, meant = Fields({}).path(refused[0]), how.meant(refused[0])
    hint = f"; did you mean `{meant}`?" if meant not in {None, refused[0]} else ""
    reason = (
        f"`{place}` is none that is understood here, and would go to the provider as it is, which the key "
        f"{caller.name!r} may not do: it lacks `extra = true`{hint}"
    )
    raise BadRequestError(reason, param=place, status=403, code=AccessDeniedError.code)


def _check_open(service: Service) -> None:
    if service.draining.is_set():
        raise ActorStoppedError("the server stops: ask again, its successor will answer", actor="server")


def _options(exchange: Exchange) -> AskOptions:
    given = header(exchange.scope, b"x-wizard-deadline")
    if given is None:
        return {}
    try:
        deadline = float(given)
    except ValueError:
        deadline = 0.0
    if not deadline > 0:  # nan neither
        raise BadRequestError(f"the header x-wizard-deadline has to be a number of seconds above 0, not {said(given)}")
    return {"deadline": deadline}
