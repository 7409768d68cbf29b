"""JSON-RPC 2.0 messages, one a frame, as texts: read with care, and written. Pure.

A request has an id, and gets just one response with that id; a notification has none. `docs/protocol.md` is the
reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, TypeAlias, TypeGuard

import msgspec
from attrs import field, frozen

from wizard_actors.errors import SerializationError
from wizard_actors.json_bytes import json_bytes
from wizard_actors.protocol.json_guard import MOST_VALUES, BadJsonError, check_amount, check_shape, decoded
from wizard_actors.types.given import as_unicode

__all__ = [
    "KEY_PREFIX",
    "SUBPROTOCOL",
    "Code",
    "Fault",
    "Incoming",
    "RequestId",
    "Response",
    "fault_text",
    "is_request_id",
    "notification_text",
    "read_answer",
    "read_request",
    "request_text",
    "result_text",
    "shown_text",
]

SUBPROTOCOL: Final = "wizard.v1"
"""What client and server agree on in the handshake."""

KEY_PREFIX: Final = "wizard.key."
"""What a browser, which cannot send a header, puts before its key and offers as a second subprotocol."""

LONGEST_ID: Final = 128
LARGEST_ID: Final = 2**53
MOST_ANSWERED: Final = 1_000_000
"""Values in what a server says, whose sessions may be long: a tenth of a second to read."""

RequestId: TypeAlias = str | int


class Code(IntEnum):
    """The codes of JSON-RPC errors: JSON-RPC's own, the Language Server Protocol's for what was cancelled, and one for
    every error of ours that is not about the request itself.
    """

    PARSE = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL = -32603
    CANCELLED = -32800
    FAILED = -32000


class Fault(Exception):  # noqa: N818 - what a frame says of itself, not an error of ours
    """An error as a frame carries it. `request` is the id of the request, None where that is unknown, or another's.

    `data` has our `code`, a text, and the facts.
    """

    def __init__(
        self, code: int, message: str, *, request: RequestId | None = None, data: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.request = request
        self.data: Mapping[str, object] = {"code": "protocol"} if data is None else data


@frozen
class Incoming:
    """A request, or, with `id` None, a notification."""

    method: str
    params: Mapping[str, object] = field(factory=dict)
    id: RequestId | None = None


@frozen
class Response:
    """The response to the request `id`: `result`, or `fault` where there is one."""

    id: RequestId | None
    result: object = None
    fault: Fault | None = None


# -- reading -----------------------------------------------------------------------------------------


def read_request(text: str | bytes, *, max_depth: int) -> Incoming:
    """Return the request or notification in a frame. Raises `Fault`, with the request's id where that could be read."""
    text = _checked_text(text)
    try:
        check_amount(text, MOST_VALUES)
        plain = decoded(text, max_depth)
    except BadJsonError as error:
        raise Fault(Code.PARSE, str(error)) from None
    if isinstance(plain, list):
        raise Fault(Code.INVALID_REQUEST, "a frame holds one message: send several requests in several frames")
    if not isinstance(plain, dict):
        raise Fault(Code.INVALID_REQUEST, "a message is a JSON object")
    has_id = "id" in plain
    number = _checked_id(plain["id"]) if has_id else None
    try:
        check_shape(plain, max_depth)
    except BadJsonError as error:
        raise Fault(Code.PARSE, str(error), request=number) from None
    return _incoming(plain, number)


def _checked_text(frame: str | bytes) -> str:
    if isinstance(frame, bytes):
        raise Fault(Code.PARSE, "a message is a text frame, and this one is binary")
    return frame


def _incoming(plain: Mapping[str, object], number: RequestId | None) -> Incoming:
    if plain.get("jsonrpc") != "2.0":
        raise Fault(Code.INVALID_REQUEST, '`jsonrpc` must be "2.0"', request=number)
    if unknown := sorted(set(plain) - {"jsonrpc", "id", "method", "params"}):
        raise Fault(Code.INVALID_REQUEST, f"the message has an unknown key: {shown_text(unknown[0])}", request=number)
    method, params = plain.get("method"), plain.get("params", {})
    if not isinstance(method, str):
        raise Fault(Code.INVALID_REQUEST, "`method` must be a text", request=number)
    if not isinstance(params, dict):
        raise Fault(Code.INVALID_PARAMS, "`params` must be an object: parameters have names here", request=number)
    return Incoming(method, params, number)


def shown_text(text: str) -> str:
    """Return what somebody sent as it may stand in a message: quoted, and not longer than a line."""
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def is_request_id(value: object) -> TypeGuard[RequestId]:
    """Whether a value may be the id of a request: a text that is not empty, nor too long, or a whole number."""
    if isinstance(value, str):
        return 0 < len(value) <= LONGEST_ID
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST_ID


def _checked_id(value: object) -> RequestId:
    if is_request_id(value):
        return value
    raise Fault(
        Code.INVALID_REQUEST,
        f"`id` must be a text of 1 to {LONGEST_ID} characters, or a whole number between -2^53 and 2^53",
    )


def read_answer(text: str | bytes) -> Incoming | Response:
    """Return the response or notification in a frame that a server sent. Raises `Fault` for what is neither, or holds
    far more than `MOST_ANSWERED` values.
    """
    text = _checked_text(text)
    try:
        check_amount(text, MOST_ANSWERED)
        plain = decoded(text)
    except BadJsonError as error:
        raise Fault(Code.PARSE, str(error)) from None
    if not isinstance(plain, dict):
        raise Fault(Code.INVALID_REQUEST, "the server sent what is no message")
    if "method" in plain:
        return _incoming(plain, None)
    number: object = plain.get("id")
    if number is not None and not is_request_id(number):
        raise Fault(Code.INVALID_REQUEST, "the server answered with an id that is none")
    if "error" not in plain:
        return Response(number, plain.get("result"))
    return Response(number, fault=_fault(plain["error"], number))


def _fault(error: object, number: RequestId | None) -> Fault:
    if not isinstance(error, dict):
        raise Fault(Code.INVALID_REQUEST, "the server sent an error that is no object", request=number)
    code, message, data = error.get("code"), error.get("message"), error.get("data")
    return Fault(
        code if isinstance(code, int) else Code.INTERNAL,
        message if isinstance(message, str) else "",
        request=number,
        data=data if isinstance(data, dict) else None,
    )


# -- writing -----------------------------------------------------------------------------------------


def request_text(method: str, params: Mapping[str, object], request: RequestId) -> str:
    """Return a request as a text. Raises `SerializationError`, which names the place, for a text that is not valid
    Unicode: with another one in its place it would be another request.
    """
    message = {"jsonrpc": "2.0", "id": request, "method": method, "params": params}
    try:
        return msgspec.json.encode(message).decode()
    except UnicodeEncodeError as error:
        place = _invalid(params, "") or "a name in it"
        raise SerializationError(f"{place} is not valid Unicode: {error.reason}") from None


def notification_text(method: str, params: Mapping[str, object]) -> str:
    """Return a notification as a text."""
    return json_bytes({"jsonrpc": "2.0", "method": method, "params": params}).decode()


def result_text(request: RequestId, result: object) -> str:
    """Return the response to a request that was done."""
    return json_bytes({"jsonrpc": "2.0", "id": request, "result": result}).decode()


def fault_text(fault: Fault) -> str:
    """Return the response to a request that failed."""
    error = {"code": int(fault.code), "message": fault.message, "data": fault.data}
    return json_bytes({"jsonrpc": "2.0", "id": fault.request, "error": error}).decode()


def _invalid(value: object, place: str) -> str | None:
    """Return the place in `value` of a text that is not valid Unicode; keys have none."""
    match value:
        case str():
            return f"`{place}`" if as_unicode(value) != value else None
        case Mapping():
            inner = [(item, f"{place}.{key}" if place else str(key)) for key, item in value.items()]
        case list() | tuple():
            inner = [(item, f"{place}[{index}]") for index, item in enumerate(value)]
        case _:
            return None
    return next(filter(None, (_invalid(item, where) for item, where in inner)), None)
