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
    """Where genai-prices has to look for a model: under a provider's id, or at an address, which it may not know."""

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
    if not isinstance(base_url, str) or (own is not None and base_url.rstrip("/") == own):
        return Listing(provider_id=LISTED[provider])
    return Listing(api_url=base_url) if _has_public_name(base_url) else None


def _has_public_name(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    try:
        ip_address(host)
    except ValueError:
        return "." in host
    return False
