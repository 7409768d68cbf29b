"""OpenAI and everything compatible with it: Chat Completions, and Responses where a model's `api` says so."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Final, Self

import httpx

from wizard_actors.config import ModelConfig, preset_of
from wizard_actors.providers.http_provider import HttpProvider, HttpSettings, endpoint
from wizard_actors.providers.openai_wire import ChatWire
from wizard_actors.providers.responses_request import ResponsesWire
from wizard_actors.providers.wire import Wire

__all__ = ["OpenAIProvider"]

DATED: Final = re.compile(r"\d{4}-")
"""How Azure's older versions begin; the API below `/v1` knows none of them, only "preview" and "v1"."""


class OpenAIProvider(HttpProvider):
    """A `Provider` for one model that speaks OpenAI's protocols; what sets its kind apart stands in its preset."""

    def __init__(
        self, settings: HttpSettings, http: httpx.AsyncClient, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(settings, _wire(settings), http, auth=_auth(settings), wall_clock=wall_clock)

    @classmethod
    def from_config(cls, model: ModelConfig, http: httpx.AsyncClient) -> Self:
        """Make the provider of a configured model. Raises `ConfigError` where it cannot be reached or has no key."""
        return cls(HttpSettings.from_config(model), http)


def _wire(settings: HttpSettings) -> Wire:
    if settings.api == "responses":
        return ResponsesWire.of(settings, _url(settings, "/responses"))
    return ChatWire.of(settings, _url(settings, "/chat/completions"))


def _url(settings: HttpSettings, path: str) -> httpx.URL:
    """Return where requests go. An Azure resource has an address for each deployment, where its API has a version."""
    if settings.provider != "azure":
        return endpoint(settings, path)
    query = {} if settings.api_version is None else {"api-version": settings.api_version}
    base = endpoint(settings, "").path.rstrip("/")
    if "/deployments/" in base or base.endswith("/v1"):
        return endpoint(settings, path, query)
    if not DATED.match(settings.api_version or ""):
        return endpoint(settings, f"{_below_openai(base)}/v1{path}", query)
    deployment = "" if settings.api == "responses" else f"/deployments/{settings.model}"
    return endpoint(settings, f"{_below_openai(base)}{deployment}{path}", query)


def _below_openai(base: str) -> str:
    return "" if base.endswith("/openai") else "/openai"


def _auth(settings: HttpSettings) -> Mapping[str, str]:
    if settings.api_key is None:
        return {}
    preset = preset_of(settings.provider)
    header = "authorization" if preset is None else preset.key_header
    bearer = "Bearer " if header == "authorization" else ""
    return {header: bearer + settings.api_key.reveal()}
