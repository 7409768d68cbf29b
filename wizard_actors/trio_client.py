"""The client as it is under Trio: its tree, its requests and its batches, for whichever host its callers use."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sized
from contextlib import asynccontextmanager
from functools import partial
from inspect import iscoroutinefunction
from random import Random
from typing import Self, TypeAlias, TypeVar, Unpack

import trio
from attrs import evolve, frozen

from wizard_actors.answering import Answering
from wizard_actors.ask_options import AskOptions, check_options
from wizard_actors.background import background
from wizard_actors.batch import Patient, check_batch, gather, run_batch
from wizard_actors.builder import Clients, make_keeping, make_shared, make_tree
from wizard_actors.cache import CacheState
from wizard_actors.cache_messages import Invalidate, cacheable
from wizard_actors.config import RouteConfig, WizardConfig
from wizard_actors.embed.errands import Home
from wizard_actors.errors import ConfigError, ConfigProblem, InvalidPromptError, WizardError
from wizard_actors.event_stream import EventStream
from wizard_actors.gauges import gauges_of
from wizard_actors.json_values import Problem
from wizard_actors.keeping import Keeping
from wizard_actors.lag import watching
from wizard_actors.metrics import Metrics, MetricsSnapshot
from wizard_actors.patience import failure_behind
from wizard_actors.providers.base import Provider
from wizard_actors.request import CacheUse, Delivery, Request
from wizard_actors.response_stream import AnswerSource, IdleWatch
from wizard_actors.schema import Form, Found, form_of
from wizard_actors.sessions import TrioSessions
from wizard_actors.shared import Shared
from wizard_actors.storage.opening import Opener
from wizard_actors.strategies import RoutingStrategy, known_strategies
from wizard_actors.structured import Asking, Structured, prompt_for
from wizard_actors.supervisor import Supervisor
from wizard_actors.types import Prompt, WizardResponse

__all__ = ["Progress", "Prompts", "Settings", "TrioClient", "Warmed"]

T = TypeVar("T")

Settings: TypeAlias = WizardConfig | str | os.PathLike[str]
"""Where a client's settings come from: a configuration, or the path of a TOML file."""

Prompts: TypeAlias = Iterable[str | Prompt] | AsyncIterable[str | Prompt]

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with how many prompts of a batch have ended, and of how many, None where nobody knows."""


@frozen
class Warmed:
    """What became of the prompts that were to be in the cache: `stored` now, there `already`, or `failed`, each with
    its number in the order given, from 0, and its error.
    """

    stored: int = 0
    already: int = 0
    failed: tuple[tuple[int, WizardError], ...] = ()


class TrioClient:
    """A running tree, and everything that requests over it share. `request` may be called in any thread, all else in
    the one in which Trio runs.
    """

    def __init__(
        self,
        shared: Shared,
        tree: Supervisor,
        events: EventStream,
        metrics: Metrics,
        watch: IdleWatch,
        strategies: tuple[str, ...],
        keeping: Keeping,
    ) -> None:
        self.sessions = TrioSessions(keeping, self, shared.config.sessions)
        self.shared = shared
        self.config = shared.config
        self.supervisor = tree
        self.events = events
        self._metrics = metrics
        self._watch = watch
        self._strategies = strategies
        self._clock = trio.lowlevel.current_clock()
        self._routes: dict[tuple[str, str | None, str | None], RouteConfig] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: Settings,
        *,
        rng: Random | None = None,
        events: EventStream | None = None,
        providers: Mapping[str, Provider] | None = None,
        strategies: Mapping[str, RoutingStrategy] | None = None,
        storage: Opener | None = None,
    ) -> AsyncIterator[Self]:
        """Start the supervision tree of `config`, and stop it when the block is left; see `ResilientClient.open`."""
        if not isinstance(config, WizardConfig | str | os.PathLike):
            raise ConfigError([ConfigProblem("config", f"must be a WizardConfig or a path, not {config!r}")])
        settings = config if isinstance(config, WizardConfig) else WizardConfig.load(config)
        randomness, stream, clients = rng or Random(), EventStream(), Clients()
        metrics, watch = Metrics(trio.current_time()), IdleWatch(settings.stream.consumer_idle)
        stream.listen(metrics.apply)
        if events is not None:
            stream.listen(events.publish)
        try:
            with watching() as lag:
                tree = make_tree(settings, rng=randomness, events=stream, strategies=strategies)
                shared = make_shared(
                    settings, tree, clients, rng=randomness, events=stream, lag=lag, providers=providers
                )
                keeping, storing, purging = make_keeping(settings, tree, storage, events=stream)
                # The tree stops first: it waits for the turns in progress, which have yet to be stored.
                async with storing.running(), tree, watch.running(), background(lambda _nursery: purging.run()):
                    known = known_strategies(settings, strategies)
                    yield cls(shared, tree, events or stream, metrics, watch, known, keeping)
        finally:
            with trio.CancelScope(shield=True):  # closing sockets waits for nobody
                await clients.aclose()

    # -- asking

    def request(self, prompt: str | Prompt, delivery: Delivery, options: AskOptions) -> Request:
        """Return the request; its deadline counts from now. Raises `InvalidPromptError` and `ConfigError`."""
        if not isinstance(prompt, (str, Prompt)):
            raise InvalidPromptError(
                f"a prompt is a str or a Prompt, not {type(prompt).__name__}: messages go into a Prompt"
            )
        check_options(options, strategies=self._strategies)
        deadline, route = options.get("deadline"), options.get("route")
        return Request(
            prompt=prompt if isinstance(prompt, Prompt) else Prompt(prompt),
            route=self._route(
                self.config.fallback.name if route is None else route, options.get("model"), options.get("strategy")
            ),
            request_id=self._new_id(),
            delivery=delivery,
            deadline=math.inf if deadline is None else self._clock.current_time() + deadline,
            given=deadline,
            cache=options.get("cache", "use"),
            tenant=options.get("tenant", ""),
            raw=options.get("raw", False),
        )

    def request_as(self, prompt: str | Prompt, kind: object, options: AskOptions) -> tuple[Request, Form[object]]:
        """Return the request for an answer that is a `kind`, and its form; see `ResilientClient.generate_as`. May be
        called in any thread.
        """
        form = form_of(kind)
        request = self.request(prompt, Delivery.WHOLE, options)
        return evolve(request, prompt=prompt_for(request.prompt, form)), form

    def _new_id(self) -> str:
        return f"{self.shared.rng.getrandbits(64):016x}"

    async def answer(self, request: Request) -> WizardResponse:
        """Return the whole answer to `request`."""
        return await Answering(self.shared, request).whole()

    async def answer_as(self, request: Request, form: Form[T], home: Home) -> Structured[T]:
        """Return the answer to `request` as a value. It is read at home: that runs code of the caller's class."""

        async def ask(prompt: Prompt, cache: CacheUse) -> tuple[WizardResponse, bool]:
            asked = evolve(request, prompt=prompt, cache=cache, request_id=self._new_id())
            answering = Answering(self.shared, asked)
            return await answering.whole(), answering.hit

        async def read(text: str) -> Found[T] | tuple[Problem, ...]:
            found: list[Found[T] | tuple[Problem, ...]] = []
            await home.told(lambda: found.append(form.read(text)))()
            return found[0]

        return await Asking(ask, read, cache=request.cache).result(request.prompt)

    def source(self, request: Request, *, on_lost: Callable[[], None] | None = None) -> AnswerSource:
        """Return the events of the answer to `request`; `on_lost` is called where nobody has read them for too long."""
        return AnswerSource(self.shared, request, self._watch, on_lost)

    def room(self, route: RouteConfig) -> int | None:
        """Return the context window of the first model of `route` that has a known one, in tokens."""
        windows = (self.shared.ports[name].config.context_window for name in route.chain if name in self.shared.ports)
        return next((window for window in windows if window is not None), None)

    # -- batches

    async def generate_batch(
        self,
        prompts: Prompts,
        home: Home,
        *,
        max_concurrency: int | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[AskOptions],
    ) -> list[WizardResponse | WizardError]:
        """Return one outcome for each prompt, in their order; see `ResilientClient.generate_batch`."""
        at_once = self._checked(prompts, max_concurrency, options)
        total = len(prompts) if isinstance(prompts, Sized) else None
        tell = _told(on_progress, home)

        async def progress(done: int) -> None:
            if tell is not None:
                await tell(done, total)

        ask = self._patient(options)
        return await gather(ask, home.items(prompts), max_concurrency=at_once, on_progress=progress)

    async def warm(
        self,
        prompts: Prompts,
        home: Home,
        *,
        max_concurrency: int | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[AskOptions],
    ) -> Warmed:
        """Ask what is not in the cache yet, so that it is; see `ResilientClient.warm`."""
        if self.shared.cache is None or options.get("cache") == "bypass":
            raise ConfigError([ConfigProblem("cache", "is off", "set cache.max_entries")])
        at_once = self._checked(prompts, max_concurrency, options)
        total = len(prompts) if isinstance(prompts, Sized) else None
        tell = _told(on_progress, home)
        ended = stored = already = 0
        failed: dict[int, WizardError] = {}

        async def done(index: int, _prompt: str | Prompt, outcome: WizardResponse | WizardError) -> None:
            nonlocal ended, stored, already
            failure = failure_behind(outcome)
            if failure is not None:
                failed[index] = failure
            elif isinstance(outcome, WizardResponse):
                already += outcome.cached
                stored += cacheable(outcome)
            ended += 1
            if tell is not None:
                await tell(ended, total)

        await run_batch(self._patient(options), home.items(prompts), max_concurrency=at_once, done=done)
        return Warmed(stored=stored, already=already, failed=tuple(sorted(failed.items())))

    async def _generate(self, prompt: str | Prompt, **options: Unpack[AskOptions]) -> WizardResponse:
        return await self.answer(self.request(prompt, Delivery.WHOLE, options))

    def _patient(self, options: AskOptions) -> Patient[str | Prompt]:
        deadline = options.get("deadline")
        return Patient(partial(self._generate, **options), rng=self.shared.rng, deadline=deadline)

    def _checked(self, prompts: Prompts, max_concurrency: int | None, options: AskOptions) -> int:
        """Return how many prompts are asked at once; raise what is wrong with the batch, whatever its prompts."""
        at_once = self.config.batch.max_concurrency if max_concurrency is None else max_concurrency
        check_batch(prompts, at_once)
        self.request("?", Delivery.WHOLE, options)
        return at_once

    # -- the cache

    async def invalidate(self, model: str, text: str) -> int:
        """Drop matching answers; see `ResilientClient.invalidate`."""
        if self.shared.cache is None:
            raise ConfigError([ConfigProblem("cache", "is off", "set cache.max_entries")])
        try:
            message = Invalidate(model, text)
        except ValueError as error:
            raise ConfigError([ConfigProblem("invalidate", str(error))]) from None
        return await self.shared.cache.ask(message)

    # -- looking

    @property
    def cache(self) -> CacheState | None:
        """What the cache holds and has done; None where it is off, or has not started."""
        return None if self.shared.cache is None else self.shared.cache.published

    def metrics(self) -> MetricsSnapshot:
        """Return what has been counted since the client was opened, and how everything stands now."""
        now = self._clock.current_time()
        return self._metrics.snapshot(now, gauges_of(self.shared, self.supervisor, self.events, now))

    # -- routes

    def _route(self, name: str, model: str | None, strategy: str | None) -> RouteConfig:
        """Return the route with what the caller changed; made once, for a configuration is checked when it is made."""
        key = (name, model, strategy)
        if key not in self._routes:
            route = self.config.route(name)
            if model is not None:
                if not self.config.model(model).enabled:
                    raise ConfigError([ConfigProblem(f"models.{model}", "is disabled")])
                route = evolve(route, chain=(model,))
            self._routes[key] = route if strategy is None else evolve(route, strategy=strategy)
        return self._routes[key]


def _told(on_progress: Progress | None, home: Home) -> Callable[[int, int | None], Awaitable[None]] | None:
    if iscoroutinefunction(on_progress):
        raise TypeError(f"on_progress is a plain function, which is called after each prompt, not {on_progress!r}")
    return None if on_progress is None else home.told(on_progress)
