"""Gemini over Google's own protocol, that of the Gemini API and of Vertex AI: `generateContent` and its stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Self

import httpx

from wizard_actors.config import NATIVE, ModelConfig
from wizard_actors.providers.gemini_request import GeminiWire
from wizard_actors.providers.http_provider import HttpProvider, HttpSettings

__all__ = ["GeminiProvider"]


class GeminiProvider(HttpProvider):
    """A `Provider` for one Gemini model, with or without "models/" before its name.

    The base URL excludes the version; one that names it ("/v1beta", "/v1") is taken as it is, and so is one of Vertex
    AI, which leads to "/publishers/google". Vertex takes a token of OAuth in place of a key: put it into the model's
    `headers`, as `authorization`. `rng` makes the ids of tool calls to which Gemini gives none.
    """

    def __init__(
        self,
        settings: HttpSettings,
        http: httpx.AsyncClient,
        *,
        wall_clock: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        wire = GeminiWire.of(settings, rng or Random())
        super().__init__(settings, wire, http, auth=_auth(settings), wall_clock=wall_clock)

    @classmethod
    def from_config(cls, model: ModelConfig, http: httpx.AsyncClient) -> Self:
        """Make the provider of a configured model. Raises `ConfigError` where it cannot be reached or has no key."""
        return cls(HttpSettings.from_config(model), http)


def _auth(settings: HttpSettings) -> Mapping[str, str]:
    key = settings.api_key
    return {} if key is None else {NATIVE["gemini"].key_header: key.reveal()}
