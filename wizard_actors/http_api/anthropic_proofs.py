"""Where a Messages conversation carries what only the model's own provider can read. Pure.

A thought's `signature` there is Anthropic's, and a call of a tool has none. Models behind other protocols have proofs
of their own, and ids of thoughts. Clients send signatures and the ids of calls back as they came: so what such a model
wants back is sealed into these, and opened when it returns. What is Anthropic's stands there as it is.
"""

from __future__ import annotations

import base64
from typing import Final

import msgspec

from wizard_actors.json_bytes import json_bytes
from wizard_actors.types import Signature, ToolCall

__all__ = ["PROTOCOL", "BrokenSealError", "opened_id", "opened_signature", "sealed_id", "sealed_signature"]

PROTOCOL: Final = "anthropic"
"""What Anthropic's own signatures are named after."""

SEAL: Final = "wizard_sealed_"
"""How begins what is sealed; its letters are those that Anthropic takes in the ids of calls."""

_thought = msgspec.json.Decoder(tuple[str | None, str, str | None, bool])
_call = msgspec.json.Decoder(tuple[str, str | None, str])


class BrokenSealError(ValueError):
    """Raised for what was sealed, and has been changed since; its message reads on from the name of the field."""


def sealed_signature(signature: Signature | None, thought_id: str | None = None, *, redacted: bool = False) -> str:
    """Return the `signature` of a thought with all that belongs to it: "" for none."""
    plain = "" if signature is None else signature.value
    anthropic = signature is not None and signature.protocol == PROTOCOL and plain and not plain.startswith(SEAL)
    if (anthropic or signature is None) and thought_id is None and not redacted:
        return plain
    return _sealed((None if signature is None else signature.protocol, plain, thought_id, redacted))


def opened_signature(written: str) -> tuple[Signature | None, str | None, bool]:
    """Return signature, id and whether it is redacted. Raises `BrokenSealError`."""
    if not written.startswith(SEAL):
        return (Signature(PROTOCOL, written) if written else None), None, False
    try:
        protocol, value, thought_id, redacted = _thought.decode(_unsealed(written))
    except (ValueError, msgspec.DecodeError) as error:
        raise BrokenSealError("has been changed: send it back as it came") from error
    return (None if protocol is None else Signature(protocol, value)), thought_id, redacted


def sealed_id(call: ToolCall) -> str:
    """Return the id of a call, with its signature where it has one."""
    if call.signature is None and not call.id.startswith(SEAL):
        return call.id
    signature = call.signature
    return _sealed((call.id, *((None, "") if signature is None else (signature.protocol, signature.value))))


def opened_id(written: str) -> tuple[str, Signature | None]:
    """Return a call's own id, and its signature. Raises `BrokenSealError`."""
    if not written.startswith(SEAL):
        return written, None
    try:
        call_id, protocol, value = _call.decode(_unsealed(written))
    except (ValueError, msgspec.DecodeError) as error:
        raise BrokenSealError("has been changed: send it back as it came") from error
    return call_id, None if protocol is None else Signature(protocol, value)


def _sealed(parts: tuple[object, ...]) -> str:
    return SEAL + base64.urlsafe_b64encode(json_bytes(parts)).decode().rstrip("=")


def _unsealed(written: str) -> bytes:
    text = written.removeprefix(SEAL)
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
