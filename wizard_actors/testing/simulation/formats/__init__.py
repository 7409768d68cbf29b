"""How models put their answers on the wire, by protocol: bodies, streams, refusals and the headers of limits. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from wizard_actors.testing.simulation.formats.anthropic import Anthropic
from wizard_actors.testing.simulation.formats.asked import most_tokens
from wizard_actors.testing.simulation.formats.base import (
    JSON_TYPE,
    SSE_TYPE,
    Asking,
    Format,
    Left,
    Refusal,
    Refused,
    Said,
    Streamed,
    WireFormat,
)
from wizard_actors.testing.simulation.formats.chat import Chat
from wizard_actors.testing.simulation.formats.gemini import Gemini
from wizard_actors.testing.simulation.formats.responses import Responses

__all__ = [
    "FORMATS",
    "JSON_TYPE",
    "SSE_TYPE",
    "Asking",
    "Format",
    "Left",
    "Refusal",
    "Refused",
    "Said",
    "Streamed",
    "WireFormat",
    "most_tokens",
]

FORMATS: Final[Mapping[WireFormat, Format]] = MappingProxyType(
    {"chat": Chat(), "responses": Responses(), "anthropic": Anthropic(), "gemini": Gemini()}
)
"""Every format, by its protocol."""
