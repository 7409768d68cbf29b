"""JSON-RPC 2.0 messages, one a frame, as texts: read with care, and written. Pure.

A request has an id, and gets just one response with that id; a notification has none. `docs/protocol.md` is the
reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, TypeAlias

import msgspec
from attrs import field, frozen

from wizard_actors.errors import SerializationError
from wizard_actors.types.given import as_unicode

__all__ = [
    "KEY_PREFIX",
    "LARGEST_ID",
    "LONGEST_ID",
    "SUBPROTOCOL",
    "Code",
    "Fault",
    "Incoming",
    "RequestId",
    "Response",
    "fault_text",
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
MOST_VALUES: Final = 100_000
"""In one request: what is wrong with each of them has to be found out while everybody else waits."""

MOST_ANSWERED: Final = 1_000_000
"""The same of what a server says, whose sessions may be long: a tenth of a second to read."""

PIECE: Final = 2**20
"""Characters that are looked through at once."""

RequestId: TypeAlias = str | int


class Code(IntEnum):
    """The codes of JSON-RPC errors: JSON-RPC's own, the Language Server Protocol's for what was cancelled, and one for
    every error of ours that is not about the request itself.
    """

    PARSE = -32700
    INVALID_REQUEST = -32600
    UNKNOWN_METHOD = -32601
    INVALID_PARAMS = -32602
    BUG = -32603
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
    """A request, or, with `id` None, a notification. `size` is that of the frame, in characters."""

    method: str
    params: Mapping[str, object] = field(factory=dict)
    id: RequestId | None = None
    size: int = 0


@frozen
class Response:
    """The response to the request `id`: `result`, or `fault` where there is one."""

    id: RequestId | None
    result: object = None
    fault: Fault | None = None


# -- reading -----------------------------------------------------------------------------------------


def read_request(text: str | bytes, *, max_depth: int) -> Incoming:
    """Return the request or notification in a frame. Raises `Fault`, with the request's id where that could be read."""
    if isinstance(text, bytes):
        raise Fault(Code.PARSE, "a message is a text frame, and this one is binary")
    _check_amount(text, MOST_VALUES)
    plain = _decoded(text, max_depth)
    if isinstance(plain, list):
        raise Fault(Code.INVALID_REQUEST, "a frame holds one message: send several requests in several frames")
    if not isinstance(plain, dict):
        raise Fault(Code.INVALID_REQUEST, "a message is a JSON object")
    has_id = "id" in plain
    number = _checked_id(plain["id"]) if has_id else None
    _check_shape(plain, max_depth, number)
    return _incoming(plain, number, len(text))


def _incoming(plain: Mapping[str, object], number: RequestId | None, size: int) -> Incoming:
    if plain.get("jsonrpc") != "2.0":
        raise Fault(Code.INVALID_REQUEST, '`jsonrpc` must be "2.0"', request=number)
    if unknown := sorted(set(plain) - {"jsonrpc", "id", "method", "params"}):
        raise Fault(Code.INVALID_REQUEST, f"the message has an unknown key: {shown_text(unknown[0])}", request=number)
    method, params = plain.get("method"), plain.get("params", {})
    if not isinstance(method, str):
        raise Fault(Code.INVALID_REQUEST, "`method` must be a text", request=number)
    if not isinstance(params, dict):
        raise Fault(Code.INVALID_PARAMS, "`params` must be an object: parameters have names here", request=number)
    return Incoming(method, params, number, size)


def shown_text(text: str) -> str:
    """Return what somebody sent as it may stand in a message: quoted, and not longer than a line."""
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def _checked_id(value: object) -> RequestId:
    if isinstance(value, str) and 0 < len(value) <= LONGEST_ID:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST_ID:
        return value
    raise Fault(
        Code.INVALID_REQUEST,
        f"`id` must be a text of 1 to {LONGEST_ID} characters, or a whole number between -2^53 and 2^53",
    )


def read_answer(text: str | bytes) -> Incoming | Response:
    """Return the response or notification in a frame that a server sent. Raises `Fault` for what is neither, or holds
    far more than `MOST_ANSWERED` values.
    """
    if isinstance(text, str):
        _check_amount(text, MOST_ANSWERED)
    plain = _decoded(text)
    if not isinstance(plain, dict):
        raise Fault(Code.INVALID_REQUEST, "the server sent what is no message")
    if "method" in plain:
        return _incoming(plain, None, len(text))
    number: object = plain.get("id")
    if number is not None and (isinstance(number, bool) or not isinstance(number, str | int)):
        raise Fault(Code.INVALID_REQUEST, "the server answered with an id that is none")
    if "error" not in plain:
        return Response(number, plain.get("result"))
    return Response(number, fault=_fault(plain["error"], number))


def _fault(error: object, number: RequestId | None) -> Fault:
    if not isinstance(error, dict):
        raise Fault(Code.INVALID_REQUEST, "the server sent an error that is no object", request=number)
    code, message, data = error.get("code"), error.get("message"), error.get("data")
    return Fault(
        code if isinstance(code, int) else Code.BUG,
        message if isinstance(message, str) else "",
        request=number,
        data=data if isinstance(data, dict) else None,
    )


def _decoded(text: str | bytes, max_depth: int | None = None) -> object:
    try:
        plain: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Fault(Code.PARSE, f"the message is no JSON: {error}") from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    return plain


def _check_amount(text: str, most: int) -> None:
    """Raise where a message surely holds more than `most` values, before anything is made of it: millions of empty
    lists would take most of a second, and fifty times the message's size.
    """
    signs = 2 * most  # a value has a comma or a bracket before it, an empty list or object a bracket inside
    if _signs(text) <= signs:
        return
    bare = text.replace("\\\\", "").replace('\\"', "")
    if bare.count('"') > 4 * most:  # a value has at most its own text, and its key's
        raise _too_many(None, most)
    outside = inside = 0
    for start in range(0, len(bare), PIECE):
        pieces = bare[start : start + PIECE].split('"')
        outside += _signs("".join(pieces[inside::2]))
        inside ^= len(pieces) % 2 ^ 1
        if outside > signs:
            raise _too_many(None, most)


def _signs(text: str) -> int:
    return text.count(",") + text.count("[") + text.count("{")


def _too_many(request: RequestId | None, most: int) -> Fault:
    return Fault(Code.PARSE, f"the message holds more than {most:,} values", request=request)


def _too_deep(max_depth: int | None, request: RequestId | None = None) -> Fault:
    bound = "" if max_depth is None else f": at most {max_depth} levels (server.max_json_depth)"
    return Fault(Code.PARSE, f"the message is nested too deeply{bound}", request=request)


def _check_shape(value: object, max_depth: int, request: RequestId | None) -> None:
    """Raise where `value` nests more than so many levels of lists and objects, or holds more than `MOST_VALUES`."""
    row, values, levels = [value], 1, 0
    while outer := [item for item in row if isinstance(item, dict | list)]:
        row = [item for each in outer for item in (each.values() if isinstance(each, dict) else each)]
        values, levels = values + len(row), levels + 1
        if values > MOST_VALUES:
            raise _too_many(request, MOST_VALUES)
    if levels > max_depth:
        raise _too_deep(max_depth, request)


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
    return _text({"jsonrpc": "2.0", "method": method, "params": params})


def result_text(request: RequestId, result: object) -> str:
    """Return the response to a request that was done."""
    return _text({"jsonrpc": "2.0", "id": request, "result": result})


def fault_text(fault: Fault) -> str:
    """Return the response to a request that failed."""
    error = {"code": int(fault.code), "message": fault.message, "data": fault.data}
    return _text({"jsonrpc": "2.0", "id": fault.request, "error": error})


def _text(message: Mapping[str, object]) -> str:
    """Return what is told of something that has been done: an answer that is paid for, and stored, is not lost over
    half a pair of surrogates in it, nor an error with an operating system's text.
    """
    try:
        return msgspec.json.encode(message).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(_valid(message)).decode()


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


def _valid(value: object) -> object:
    """Return `value` with U+FFFD in place of what is not valid Unicode, as sessions have it."""
    match value:
        case str():
            return as_unicode(value)
        case Mapping():
            return {_valid(key): _valid(item) for key, item in value.items()}
        case list() | tuple():
            return [_valid(item) for item in value]
    return value
