"""JSON of ours, written so that nothing that is told is lost over a text that is not valid Unicode."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from wizard_actors.types.given import as_unicode

__all__ = ["json_bytes"]


def json_bytes(value: object) -> bytes:
    """Return `value` as JSON, with U+FFFD in place of what is not valid Unicode, as sessions have it: an answer that
    has been paid for is not lost over half a pair of surrogates in it, nor an error with an operating system's text.
    """
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_valid(value))


def _valid(value: object) -> object:
    match value:
        case str():
            return as_unicode(value)
        case Mapping():
            return {_valid(key): _valid(item) for key, item in value.items()}
        case list() | tuple():
            return [_valid(item) for item in value]
    return value
