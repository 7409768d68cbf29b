"""Whose models' prices and context windows genai-prices may know: data and a rule, so that the library itself, which
takes a while to load, is loaded for nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from wizard_actors.config.presets import preset_of

__all__ = ["LISTED", "Listing", "listing_of"]

LISTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "anthropic": "anthropic",
        "azure": "azure",
        "cerebras": "cerebras",
        "deepseek": "deepseek",
        "fireworks": "fireworks",
        "gemini": "google",
        "groq": "groq",
        "mistral": "mistral",
        "openai": "openai",
        "openrouter": "openrouter",
        "perplexity": "perplexity",
        "together": "together",
        "xai": "x-ai",
    }
)
"""What genai-prices calls those of our providers whose models it knows."""


@frozen
class Listing:
    """Where genai-prices has to look for a model: under a provider's id, or at an address, which it may not know.

    An `api_url` is spelled as a pattern finds it: the host in small letters, no user or password, no query.
    """

    provider_id: str | None = None
    api_url: str | None = None


def listing_of(provider: object, base_url: object) -> Listing | None:
    """Return where genai-prices has to look for the models of `provider` at `base_url`, None where it need not be
    asked: who answers under an IP address, or a name without a dot, is nobody whom it knows.

    The values may be those of a file that has not been checked.
    """
    if not isinstance(provider, str) or provider not in LISTED:
        return None
    preset = preset_of(provider)
    own = None if preset is None else preset.base_url
    if not isinstance(base_url, str):
        return Listing(provider_id=LISTED[provider])
    address = _public_address(base_url)
    if address is not None and own is not None and address.rstrip("/") == own:
        return Listing(provider_id=LISTED[provider])
    return None if address is None else Listing(api_url=address)


def _public_address(url: str) -> str | None:
    """Return an address as one spelling of it, None where its host has no public name."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    try:
        ip_address(host)
    except ValueError:
        where = host if port is None else f"{host}:{port}"
        return f"{parts.scheme}://{where}{parts.path}" if "." in host else None
    return None
