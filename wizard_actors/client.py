"""`ResilientClient`: the facade that programs use."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from types import TracebackType
from typing import Literal, Self

import trio
from attrs import evolve

from wizard_actors.builder import Clients, make_pipeline, make_tree
from wizard_actors.config import RouteConfig, WizardConfig
from wizard_actors.errors import (
    ConfigError,
    ConfigProblem,
    InvalidPromptError,
    InvalidStateTransitionError,
    UnsupportedError,
)
from wizard_actors.events import EventStream
from wizard_actors.pipeline import Delivery, Pipeline, Request
from wizard_actors.providers.base import Provider
from wizard_actors.supervisor import Supervisor, TreeNode
from wizard_actors.types import End, Prompt, Reset, StreamEvent, TextDelta, WizardResponse

__all__ = ["ResilientClient", "ResponseStream"]


class ResilientClient:
    """Language models behind limits, breakers, retries and fallbacks, for as long as its block lasts.

        async with ResilientClient.open("wizard.toml") as client:
            response = await client.generate("Why actors?")

    Any number of tasks may use one client at once, under Trio.
    """

    def __init__(self, config: WizardConfig, tree: Supervisor, pipeline: Pipeline, events: EventStream, rng: Random):
        self.config = config
        self.events = events
        self.supervisor = tree
        self._pipeline = pipeline
        self._rng = rng
        self._solos: dict[tuple[str, str], RouteConfig] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: WizardConfig | str | os.PathLike[str],
        *,
        rng: Random | None = None,
        events: EventStream | None = None,
        providers: Mapping[str, Provider] | None = None,
    ) -> AsyncIterator[Self]:
        """Start the supervision tree of `config`, or of the TOML file at that path, and stop it when the block is left.

        `rng` makes delays and choices repeatable; `events` is where things are published as they happen; `providers`
        replaces the providers of the models that it names, for tests and for protocols of one's own.

        Leaving waits for calls in flight in other tasks, at most `server.drain_timeout` seconds.

        Raises `UnsupportedError` outside of Trio, `ConfigError` for a configuration that cannot be used, and
        `SupervisorError` where the tree cannot go on; the block is cancelled then.
        """
        if not trio.lowlevel.in_trio_run():
            raise UnsupportedError("a ResilientClient runs under Trio, in trio.run(main)", feature="event loop")
        settings = config if isinstance(config, WizardConfig) else WizardConfig.load(config)
        randomness, stream = rng or Random(), events or EventStream()
        clients = Clients()
        try:
            tree = make_tree(settings, rng=randomness, events=stream)
            pipeline = make_pipeline(settings, tree, clients, rng=randomness, events=stream, providers=providers)
            async with tree:
                yield cls(settings, tree, pipeline, stream, randomness)
        finally:
            with trio.CancelScope(shield=True):  # closing sockets waits for nobody
                await clients.aclose()

    async def generate(
        self,
        prompt: str | Prompt,
        *,
        route: str | None = None,
        model: str | None = None,
        deadline: float | None = None,
    ) -> WizardResponse:
        """Return a whole answer, from the first model of the route that gives one.

        `route` names a route (default: "wizard"), `model` asks one model only. `deadline` bounds the request, in
        seconds. A cancelled call stops upstream, and gives everything back.

        Raises `InvalidPromptError` and `ConfigError` before anything is sent; `DeadlineExceededError`; where every
        model failed, `FallbackError`, or with one model `RetryError` or that model's own error. All list every attempt.
        """
        events = self._pipeline.events_of(self._request(prompt, route, model, deadline, Delivery.WHOLE))
        try:
            async for event in events:
                if isinstance(event, End):
                    return event.response
        finally:
            await events.aclose()
        raise AssertionError("a request ends with a response or an error")

    def stream(
        self,
        prompt: str | Prompt,
        *,
        route: str | None = None,
        model: str | None = None,
        deadline: float | None = None,
        delivery: Delivery | Literal["live", "buffered"] | None = None,
    ) -> ResponseStream:
        """Return the answer as a stream of events: use it as an async context manager; the call begins with the first
        read, and ends with the block at the latest.

        The arguments are those of `generate`; `delivery` overrides the configured one. Before the first content any
        failure falls back unseen. After it, a live stream raises `StreamInterruptedError` with the partial text, or
        sends a `Reset`, as `stream.on_interruption` says.
        """
        how = self.config.stream.delivery if delivery is None else delivery
        if how not in {"live", "buffered"}:
            raise ConfigError([ConfigProblem("delivery", f'must be "live" or "buffered", not {how!r}')])
        return ResponseStream(self._pipeline, self._request(prompt, route, model, deadline, Delivery(how)))

    def tree(self) -> TreeNode:
        """Return every actor as it stands: its state, restarts, last error, and how full its lanes are."""
        return self.supervisor.tree()

    def _request(
        self, prompt: str | Prompt, route: str | None, model: str | None, deadline: float | None, delivery: Delivery
    ) -> Request:
        if not isinstance(prompt, (str, Prompt)):
            raise InvalidPromptError(
                f"a prompt is a str or a Prompt, not {type(prompt).__name__}: messages go into a Prompt"
            )
        if deadline is not None and (isinstance(deadline, (bool, str)) or not deadline > 0):
            raise ConfigError([ConfigProblem("deadline", f"must be more than 0 seconds, not {deadline!r}")])
        chosen = self.config.route(route) if route is not None else self.config.fallback
        if model is not None:
            if not self.config.model(model).enabled:
                raise ConfigError([ConfigProblem(f"models.{model}", "is disabled")])
            chosen = self._solo(chosen, model)
        return Request(
            prompt=prompt if isinstance(prompt, Prompt) else Prompt(prompt),
            route=chosen,
            request_id=f"{self._rng.getrandbits(64):016x}",
            delivery=delivery,
            deadline=math.inf if deadline is None else trio.current_time() + deadline,
            given=deadline,
        )

    def _solo(self, route: RouteConfig, model: str) -> RouteConfig:
        """Return `route` with `model` alone; made once, for a configuration is checked whenever one is made."""
        key = (route.name, model)
        if key not in self._solos:
            self._solos[key] = evolve(route, chain=(model,))
        return self._solos[key]


class ResponseStream:
    """One answer as it arrives.

        async with client.stream("Tell a story") as stream:
            async for text in stream.text():
                print(text, end="")
        response = stream.response

    Iterate the stream itself for typed events. Leaving the block early cancels the call upstream.
    """

    def __init__(self, pipeline: Pipeline, request: Request) -> None:
        self._pipeline = pipeline
        self._request = request
        self._events: AsyncGenerator[StreamEvent, None] | None = None
        self._entered = False
        self._response: WizardResponse | None = None

    @property
    def request_id(self) -> str:
        """The id that runs through logs, events and headers."""
        return self._request.request_id

    @property
    def response(self) -> WizardResponse:
        """The whole response. Raises `InvalidStateTransitionError` before the stream has ended."""
        if self._response is None:
            raise InvalidStateTransitionError(
                "the stream has not ended: read it to its end before asking for the response",
                from_state="streaming",
                to_state="ended",
            )
        return self._response

    def text(self) -> AsyncIterator[str]:
        """Return the answer's text as it comes. Reading it raises where it is interrupted.

        A reset cannot be told in plain text: it raises `InvalidStateTransitionError`; iterate the events instead, or
        use buffered delivery.
        """
        return _Text(self)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise InvalidStateTransitionError(
                "a stream is one call, and this one has been made: ask the client for another",
                from_state="streaming",
                to_state="created",
            )
        self._entered = True
        self._events = self._pipeline.events_of(self._request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        events, self._events = self._events, None
        if events is not None:
            await events.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        if self._events is None:
            raise InvalidStateTransitionError(
                "a stream is read inside its block: async with client.stream(...) as stream",
                from_state="created",
                to_state="streaming",
            )
        event = await anext(self._events)
        if isinstance(event, End):
            self._response = event.response
        return event


class _Text:
    """A stream's text. No generator: one that its reader leaves early would have to be closed."""

    def __init__(self, events: ResponseStream) -> None:
        self._events = events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        async for event in self._events:
            if isinstance(event, TextDelta):
                return event.text
            if isinstance(event, Reset):
                raise InvalidStateTransitionError(
                    f"{event.model} broke off and the answer starts again, which plain text cannot say: "
                    'iterate the stream\'s events, or set stream.delivery = "buffered"',
                    from_state="streaming",
                    to_state="reset",
                )
        raise StopAsyncIteration
