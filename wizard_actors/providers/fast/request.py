"""The head of a request, in bytes: what goes out is checked here, for nothing behind it does."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import httpx
from attrs import frozen

__all__ = ["CHUNKED", "Head", "head_of"]

CHUNKED: Final = "chunked"

Framing: TypeAlias = int | Literal["chunked"]
"""How a body is sent: that many bytes, or in chunks."""

TOKEN: Final = (string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode()
"""What a method and the name of a header may hold."""

VISIBLE: Final = bytes(range(0x21, 0x7F))
"""What the address of a request may hold."""

VALUE: Final = b"\t " + VISIBLE + bytes(range(0x80, 0x100))
"""What the value of a header may hold: no control characters, so that none of them begins another header."""


@frozen
class Head:
    """A request's head: `data` as it is sent, how its body is sent, and whether the connection may serve once more."""

    data: bytes
    framing: Framing
    keep: bool


def head_of(request: httpx.Request) -> Head:
    """Return the head of `request`, made of its headers as they are.

    Raises `httpx.LocalProtocolError` for what HTTP does not allow: a line break in a header, no host or two of them, a
    body whose length is told twice.
    """
    raw = request.headers.raw
    method = request.method.encode("latin-1", "replace")
    names = method + b"".join([name for name, _ in raw])
    values = b"".join([value for _, value in raw])
    if names.translate(None, TOKEN) or values.translate(None, VALUE) or not method or method == b"CONNECT":
        raise httpx.LocalProtocolError("illegal method, or characters in a header", request=request)
    if request.url.raw_path.translate(None, VISIBLE):
        raise httpx.LocalProtocolError("illegal characters in the address", request=request)
    for name, value in raw:
        if not name or value != value.strip(b" \t"):
            raise httpx.LocalProtocolError("illegal header: no name, or spaces around its value", request=request)
    framing, keep = _meaning(raw, request)
    lines = [b"%b: %b\r\n" % each for each in raw]
    return Head(b"%b %b HTTP/1.1\r\n%b\r\n" % (method, request.url.raw_path, b"".join(lines)), framing, keep)


def _meaning(raw: Sequence[tuple[bytes, bytes]], request: httpx.Request) -> tuple[Framing, bool]:
    """Return what the headers say of the body and of the connection."""
    hosts, keep = 0, True
    length: bytes | None = None
    coding: bytes | None = None
    for name, value in raw:
        match name.lower():
            case b"host":
                hosts += 1
            case b"connection":
                keep = keep and b"close" not in [token.strip() for token in value.lower().split(b",")]
            case b"content-length" if length is None and value.isdigit():
                length = value
            case b"transfer-encoding" if coding is None and value.lower() == b"chunked":
                coding = value
            case b"content-length" | b"transfer-encoding":
                raise httpx.LocalProtocolError("the body's length is told twice, or as nobody can read it")
    if hosts != 1:
        raise httpx.LocalProtocolError("one host is needed", request=request)
    if coding is None:
        return int(length or b"0"), keep
    if length is not None:
        raise httpx.LocalProtocolError("the body's length is told twice, or as nobody can read it", request=request)
    return CHUNKED, keep
