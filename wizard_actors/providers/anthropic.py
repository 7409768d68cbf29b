"""Anthropic's Messages API, and those who speak it at an address of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, Self

import httpx

from wizard_actors.config import ModelConfig
from wizard_actors.providers.anthropic_request import AnthropicWire
from wizard_actors.providers.http_provider import HttpProvider, HttpSettings, endpoint

__all__ = ["AnthropicProvider"]

API_VERSION: Final = "2023-06-01"
"""The version of the API that this is written for; a model's `headers` may name another."""


class AnthropicProvider(HttpProvider):
    """A `Provider` for one model that speaks Anthropic's Messages API.

    `base_url` is what stands before `/v1/messages`; one that ends in `/v1` is understood, too. Headers such as
    `anthropic-beta` are the model's `headers`.
    """

    def __init__(
        self, settings: HttpSettings, http: httpx.AsyncClient, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        wire = AnthropicWire.of(settings, _url(settings))
        super().__init__(settings, wire, http, auth=_auth(settings), wall_clock=wall_clock)

    @classmethod
    def from_config(cls, model: ModelConfig, http: httpx.AsyncClient) -> Self:
        """Make the provider of a configured model. Raises `ConfigError` where it cannot be reached or has no key."""
        return cls(HttpSettings.from_config(model), http)


def _url(settings: HttpSettings) -> httpx.URL:
    versioned = endpoint(settings, "").path.endswith("/v1")
    return endpoint(settings, "/messages" if versioned else "/v1/messages")


def _auth(settings: HttpSettings) -> Mapping[str, str]:
    version = {"anthropic-version": API_VERSION}
    return version if settings.api_key is None else {"x-api-key": settings.api_key.reveal(), **version}
