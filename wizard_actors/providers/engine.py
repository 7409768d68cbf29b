"""The embedded model under supervision: an actor that owns the server's process, and the provider in front of it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Final

import httpx
import trio
from attrs import frozen

from wizard_actors.actor import Actor, ActorRef
from wizard_actors.config import LocalConfig, ModelConfig, Secret
from wizard_actors.errors import ConfigError, NetworkError, UnsupportedError, WizardError
from wizard_actors.providers.base import Answer, Call
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.local import LocalServer
from wizard_actors.providers.openai import OpenAIProvider

__all__ = ["Engine", "EngineState", "LocalProvider"]

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at whether the process still runs."""


@frozen
class EngineState:
    """Where the embedded server listens, and the key that it asks for."""

    base_url: str
    api_key: Secret | None


class Engine(Actor):
    """The process of one embedded model. If it dies, the actor crashes, and its next incarnation starts another."""

    def __init__(self, config: LocalConfig) -> None:
        self._server = LocalServer(config.gguf, context=config.context, threads=config.threads)
        self._state: EngineState | None = None
        self._look_at = 0.0

    async def start(self) -> None:
        """Load the model."""
        self._state = EngineState(await self._server.start(), self._server.api_key)
        self._look_at = trio.current_time() + LOOK_EVERY

    async def stop(self) -> None:
        """End the process."""
        await self._server.stop()

    def wake_at(self) -> float:
        """Return when to look at the process again."""
        return self._look_at

    def tick(self, now: float) -> None:
        """Crash where the process has."""
        if (status := self._server.exit_status) is not None:
            raise RuntimeError(f"the embedded model's process ended with status {status}")
        self._look_at = now + LOOK_EVERY

    def snapshot(self) -> EngineState | None:
        """Return where the server is."""
        return self._state


class LocalProvider:
    """The OpenAI provider in front of an embedded server, wherever that is after its last start."""

    streams = True

    def __init__(self, config: ModelConfig, engine: ActorRef[EngineState], http: httpx.AsyncClient) -> None:
        self._config = config
        self._engine = engine
        self._http = http
        self._provider: OpenAIProvider | None = None
        self._state: EngineState | None = None

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Send the request; raises `NetworkError` while the engine is not running, `UnsupportedError`
        where it cannot run here.
        """
        state = self._engine.published if self._engine.available else None
        if state is None:
            raise self._not_running()
        if self._provider is None or state is not self._state:
            self._provider, self._state = self._in_front_of(state), state
        return self._provider.open(call)

    def _not_running(self) -> WizardError:
        """Return the error while no server runs: where it cannot start, asking again is of no use."""
        name, why = self._config.name, self._engine.failure
        said = f"the embedded model {name} is not running: {why or 'it has not started yet'}"
        hopeless = isinstance(why, (ConfigError, UnsupportedError))
        error = UnsupportedError(said, feature="local", model=name) if hopeless else NetworkError(said, model=name)
        error.__cause__ = why
        return error

    def _in_front_of(self, state: EngineState) -> OpenAIProvider:
        settings = HttpSettings(
            name=self._config.name,
            model=self._config.model,
            base_url=state.base_url,
            api_key=state.api_key,
            upstream="stream",  # closing a unary call's connection does not stop the engine
            connect_timeout=self._config.timeouts.connect,
            max_tokens=self._config.max_tokens,
            extra=self._config.extra,
        )
        return OpenAIProvider(settings, self._http)
