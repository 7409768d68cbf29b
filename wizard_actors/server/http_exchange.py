"""One HTTP request and its response: who asks, what its body says, and what every response of ours carries."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Final

import trio
from attrs import evolve, field, frozen

from wizard_actors.answering import SoFar
from wizard_actors.errors import AccessDeniedError, WizardError
from wizard_actors.http_api.fields import BadRequestError, said
from wizard_actors.http_api.format import Format
from wizard_actors.http_api.status import Failure, failure_of
from wizard_actors.json_bytes import json_bytes
from wizard_actors.protocol.json_guard import BadJsonError, read_json
from wizard_actors.server.access import Access, Caller
from wizard_actors.server.http_connection import Receive, Scope, Send
from wizard_actors.types import ServedBy

__all__ = ["Exchange", "caller_of", "facts_of", "header", "headers_of", "told_of"]

log = logging.getLogger("wizard_actors.server")

BEARER: Final = "bearer"
JSON: Final = (b"content-type", b"application/json")

CACHE: Final[Mapping[str, str]] = {"hit": "hit", "lead": "miss", "miss": "miss", "follow": "shared", "bypass": "bypass"}
"""What `x-wizard-cache` says of a look into the cache."""


@frozen
class Exchange:
    """One request, by its head, and how it is answered in its format."""

    scope: Scope
    receive: Receive
    send: Send
    format: Format
    request_id: str
    facts: dict[str, str] = field(factory=dict)
    """Headers that every response to it has."""

    async def json(self, *, most: int, max_depth: int) -> object:
        """Return the body. Raises `BadRequestError`: with 413 beyond `most` bytes, 408 where it does not come, and 400
        where it is no JSON.
        """
        body = await self._body(most)
        if not body.strip():
            raise BadRequestError("the body is empty: it has to be a JSON object, with `model` and `messages`")
        try:
            return read_json(body.decode(), max_depth=max_depth)
        except UnicodeDecodeError:
            raise BadRequestError("the body is not UTF-8") from None
        except BadJsonError as error:
            raise BadRequestError(str(error).replace("the message", "the body", 1)) from None

    async def _body(self, most: int) -> bytes:
        encoding = header(self.scope, b"content-encoding")
        if encoding is not None and encoding.casefold() != "identity":
            raise BadRequestError("the body is compressed, which is not understood here", status=415)
        length = header(self.scope, b"content-length")
        if length is not None and int(length) > most:
            raise _too_large(most)
        pieces, size = [], 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                if "malformed" in message:
                    raise BadRequestError("the body is not HTTP as it should be, or comes in very small chunks")
                raise BadRequestError("the body did not come in time, or not whole", status=408)
            pieces.append(message["body"])
            size += len(message["body"])
            if size > most:
                raise _too_large(most)
            if not message["more_body"]:
                return b"".join(pieces)

    async def gone(self) -> None:
        """Wait until the client is gone. The body has been read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def answer(self, status: int, value: object) -> None:
        """Send a whole response, as JSON."""
        await self._whole(status, json_bytes(value), {})

    async def fail(self, error: WizardError | BadRequestError) -> None:
        """Tell of a failure, in the format, with the status that it calls for; the log too, where the request has no
        line of its own there, for nothing was asked.
        """
        failure = told_of(error)
        headers: dict[str, str] = {}
        if failure.retry_after is not None:
            headers["retry-after"] = str(math.ceil(failure.retry_after))
            headers["retry-after-ms"] = str(math.ceil(failure.retry_after * 1000))
        if failure.status >= 500 and not failure.again:
            headers["x-should-retry"] = "false"  # the official SDKs would do all of it again, twice
        if failure.status == 401:
            self.scope["state"]["refusals"].log(401, failure.message, trio.current_time())
            headers["www-authenticate"] = "Bearer"
        elif not self.facts:
            self._log(failure)
        await self._whole(failure.status, json_bytes(self.format.error(failure, self.request_id)), headers)

    def _log(self, failure: Failure) -> None:
        state = self.scope["state"]
        of = f" of the key {state['caller']!r}" if state.get("caller") else ""
        what = f"{self.scope['method']} {said(self.scope['path'])}"
        log.info("request %s%s was refused with %d (%s): %s", self.request_id, of, failure.status, failure.code, what)

    async def _whole(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self.head(status, [JSON, length], headers)
        await self.send({"type": "http.response.body", "body": body})

    async def head(self, status: int, own: list[tuple[bytes, bytes]], headers: Mapping[str, str]) -> None:
        """Begin a response."""
        more = [
            (name.encode(), value.encode("latin-1", "replace")) for name, value in {**self.facts, **headers}.items()
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": [*own, *more]})


def _too_large(most: int) -> BadRequestError:
    return BadRequestError(f"the body is larger than {most:,} bytes, as many as server.max_message allows", status=413)


def told_of(error: WizardError | BadRequestError) -> Failure:
    """Return what a client is told of an error. Where access is denied to no key that is known, it is 401: there was
    none, it is wrong, or it is in force no more.
    """
    failure = failure_of(error)
    return evolve(failure, status=401) if isinstance(error, AccessDeniedError) and not error.key else failure


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header of a request, None where it has none. Raises `BadRequestError` where it stands there twice."""
    values = [value for each, value in scope["headers"] if each == name]
    if len(values) > 1:
        raise BadRequestError(f"the header {name.decode()} may stand there once")
    return values[0].decode("latin-1") if values else None


def headers_of(scope: Scope) -> dict[str, str]:
    """Return a request's headers; of one that stands there several times its values, joined by commas."""
    values: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        values.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return {name: ", ".join(several) for name, several in values.items()}


def caller_of(scope: Scope, access: Access) -> Caller:
    """Return who asks, by `Authorization: Bearer KEY`, or `x-api-key: KEY`, as Anthropic's clients have it. Raises
    `AccessDeniedError`.
    """
    scheme, _, key = (header(scope, b"authorization") or "").partition(" ")
    try:
        caller = access.caller(key.strip() if scheme.lower() == BEARER else header(scope, b"x-api-key"))
    except AccessDeniedError:
        scope["let_out"]()
        raise
    scope["state"]["caller"] = caller.name
    scope["let_in"](caller.name)  # from here on its connection is none of a stranger's
    return caller


def facts_of(so_far: SoFar) -> dict[str, str]:
    """Return the headers that say how an answer came about."""
    facts = {"x-wizard-attempts": str(so_far.attempts)}
    if so_far.overhead is not None:
        facts["x-wizard-overhead-ms"] = f"{so_far.overhead * 1000:.2f}"
    if so_far.served_by is not None:
        facts["x-wizard-served-by"] = so_far.served_by.value
    stale = so_far.served_by is ServedBy.STALE
    if so_far.cache is not None:
        facts["x-wizard-cache"] = "stale" if stale else CACHE[so_far.cache]
    return facts
