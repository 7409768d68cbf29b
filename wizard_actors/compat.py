"""What code written for the first Wizard calls: `GenAiClient.from_env(model)`, over `ResilientClient`. Deprecated."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self

import attrs

from wizard_actors.client import ResilientClient
from wizard_actors.config import ModelConfig, RouteConfig, WizardConfig
from wizard_actors.config.environment import API_KEYS
from wizard_actors.errors import (
    ConfigError,
    ConfigProblem,
    EnvVarError,
    InvalidStateTransitionError,
    WizardError,
)
from wizard_actors.response_stream import ResponseStream
from wizard_actors.types import Prompt, WizardResponse

__all__ = ["GenAiClient"]

PREFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "openai": ("gpt-", "chatgpt-", "o1", "o3", "o4"),
    "anthropic": ("claude-",),
    "gemini": ("gemini-",),
}
"""How the ids of a provider's models begin."""


class GenAiClient:
    """One model, as the first Wizard had it. Use `ResilientClient`, which takes whole routes, instead.

        async with GenAiClient.from_env("gpt-5-mini") as client:
            response = await client.generate("Why actors?")

    The supervision tree lives in the block, and once only; outside of it each method raises
    `InvalidStateTransitionError`. Limits, breaker and retries have their defaults, or what WIZARD_DEFAULTS_* variables
    say. The methods raise what those of `ResilientClient` raise, and are cancelled as they are.
    """

    def __init__(self, config: WizardConfig) -> None:
        self.config = config
        self._state = "created"
        self._opened: AbstractAsyncContextManager[ResilientClient] | None = None
        self._client: ResilientClient | None = None

    @classmethod
    def from_env(cls, model: str, env: Mapping[str, str] | None = None) -> Self:
        """Return a client, not open yet, of the model of this id, whose provider's key `env` holds (default: this
        process's environment). The name of a provider stands for its default model.

        Warns `DeprecationWarning`. Raises `ConfigError` for an id that belongs to no provider known here, `EnvVarError`
        where its key is missing.
        """
        warnings.warn(
            "GenAiClient.from_env(model) is deprecated: use ResilientClient.open(WizardConfig.from_env()), or a "
            "configuration that names the model",
            DeprecationWarning,
            stacklevel=2,
        )
        return cls(_config_of(model, os.environ if env is None else env))

    async def __aenter__(self) -> Self:
        if self._state != "created":
            raise InvalidStateTransitionError(
                "a GenAiClient is one block, and this one has had it: make another one with from_env()",
                from_state=self._state,
                to_state="open",
            )
        self._state = "opening"
        self._opened = ResilientClient.open(self.config)
        self._client = await self._opened.__aenter__()
        self._state = "open"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        opened, self._opened = self._opened, None
        try:
            # Shielded where that has to be by the client's own exit, which waits for calls in flight.
            return None if opened is None else await opened.__aexit__(kind, error, trace)  # noqa: ASYNC102
        finally:
            self._state = "closed"

    async def generate(self, prompt: str | Prompt) -> WizardResponse:
        """Return the model's whole answer."""
        return await self._entered("generate").generate(prompt)

    def stream(self, prompt: str | Prompt) -> ResponseStream:
        """Return the model's answer as a stream: an async context manager."""
        return self._entered("stream").stream(prompt)

    async def generate_batch(self, prompts: Iterable[str | Prompt]) -> list[WizardResponse | WizardError]:
        """Return one outcome for each prompt, in their order: the response, or the error that `generate` raises."""
        return await self._entered("generate_batch").generate_batch(prompts)

    def _entered(self, method: str) -> ResilientClient:
        if self._client is None or self._state != "open":
            raise InvalidStateTransitionError(
                f"GenAiClient.{method}() outside of the client's block: "
                "`async with GenAiClient.from_env(model) as client:` opens it",
                from_state=self._state,
                to_state=method,
            )
        return self._client


def _config_of(model: str, env: Mapping[str, str]) -> WizardConfig:
    """Return the configuration that the environment gives, with this model alone."""
    provider = next((each for each, starts in PREFIXES.items() if model == each or model.startswith(starts)), None)
    if provider is None:
        hint = f"ids here begin with {', '.join(start for starts in PREFIXES.values() for start in starts)}"
        raise ConfigError(
            [ConfigProblem("model", f"belongs to no provider known here: {model!r}", f"{hint}; a file can name any")]
        )
    variables = [variable for variable, (each, _) in API_KEYS.items() if each == provider]
    if not any(env.get(variable, "").strip() for variable in variables):
        reason = f"no API key for {model!r} in the environment: set {' or '.join(variables)}"
        raise EnvVarError(variables[0], key="", reason=reason)
    config = WizardConfig.from_env(env)
    found = config.model(provider)  # from_env() names each model after its provider
    # How several models take turns is for clients of several.
    route = RouteConfig(name=config.fallback.name, static_answer=config.fallback.static_answer)
    return config.changed(models=(_named(found, model),), fallback=route)


def _named(found: ModelConfig, model: str) -> ModelConfig:
    """Return the provider's model, or another one of that provider under its own id."""
    return found if found.name == model else attrs.evolve(found, name=model, model=model)
