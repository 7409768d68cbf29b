"""The client as it is under Trio: its tree, its requests and its batches, for whichever host its callers use."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sized
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from inspect import iscoroutinefunction
from random import Random
from typing import Self, TypeAlias, TypeVar, Unpack

import trio
from attrs import evolve, frozen

from wizard_actors import otel
from wizard_actors.answering import Answering, SoFar
from wizard_actors.ask_options import AskOptions, check_options
from wizard_actors.background import background
from wizard_actors.batch import Patient, check_batch, gather, run_batch
from wizard_actors.builder import Builder, make_keeping
from wizard_actors.cache import CacheState
from wizard_actors.cache_messages import Invalidate, cacheable
from wizard_actors.config import RouteConfig, WizardConfig
from wizard_actors.embed.errands import Home
from wizard_actors.errors import ConfigError, ConfigProblem, InvalidPromptError, WizardError
from wizard_actors.event_stream import EventStream
from wizard_actors.gauges import gauges_of
from wizard_actors.health_log import HealthLog
from wizard_actors.json_values import Problem
from wizard_actors.keeping import Keeping
from wizard_actors.lag import watching
from wizard_actors.metrics import Metrics, MetricsSnapshot
from wizard_actors.patience import failure_behind
from wizard_actors.providers.base import Provider
from wizard_actors.reloading import Reloaded, Reloading
from wizard_actors.request import CacheUse, Delivery, Request
from wizard_actors.response_stream import AnswerSource, IdleWatch
from wizard_actors.schema import Form, Found, form_of
from wizard_actors.sessions import TrioSessions
from wizard_actors.shared import Shared
from wizard_actors.storage.opening import Opener
from wizard_actors.strategies import RoutingStrategy
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
        reloading: Reloading,
        tree: Supervisor,
        events: EventStream,
        metrics: Metrics,
        watch: IdleWatch,
        keeping: Keeping,
        health: HealthLog,
    ) -> None:
        self.keeping = keeping
        self.sessions = TrioSessions(keeping, self, reloading.shared.config.sessions)
        self.supervisor = tree
        self.events = events
        self._reloading = reloading
        self._metrics = metrics
        self._watch = watch
        self._health = health
        self._clock = trio.lowlevel.current_clock()

    @property
    def shared(self) -> Shared:
        """What the requests share that are made now; in any thread."""
        return self._reloading.shared

    @property
    def config(self) -> WizardConfig:
        """The configuration in force; in any thread."""
        return self._reloading.shared.config

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
        settings, randomness, stream = _loaded(config), rng or Random(), EventStream()
        builder = Builder(settings, rng=randomness, events=stream, providers=providers, strategies=strategies)
        metrics, health, watch = Metrics(trio.current_time()), HealthLog(), IdleWatch(settings.stream.consumer_idle)
        stream.listen(metrics.apply)
        stream.listen(health.hear)
        if events is not None:
            stream.listen(events.publish)
        try:
            with watching() as lag:
                layout = builder.layout(settings)
                tree = builder.tree(layout)
                reloading = Reloading(builder, layout, tree, lag)
                if settings.telemetry.otel:
                    stream.listen(otel.listener(lambda: reloading.shared.config))
                keeping, storing, purging = make_keeping(settings, tree, storage, events=stream)
                # The tree stops first: it waits for the turns in progress, which have yet to be stored.
                async with (
                    storing.running(),
                    tree,
                    watch.running(),
                    background(lambda _nursery: purging.run()),
                    background(lambda _nursery: reloading.run()),
                ):
                    yield cls(reloading, tree, events or stream, metrics, watch, keeping, health)
        finally:
            with trio.CancelScope(shield=True):  # closing sockets waits for nobody
                await builder.clients.aclose()

    async def reload(self, config: Settings) -> Reloaded:
        """Go by another configuration from now on; see `ResilientClient.reload`."""
        reloaded = await self._reloading.reload(_loaded(config))
        self._health.forget((*reloaded.changed, *reloaded.removed))
        return reloaded

    # -- asking

    def request(
        self, prompt: str | Prompt, delivery: Delivery, options: AskOptions, *, like: Request | None = None
    ) -> Request:
        """Return the request; its deadline counts from now. It ends in the configuration in which it is made: the one
        in force, or that of `like`, which has not ended. Raises `InvalidPromptError` and `ConfigError`.
        """
        if not isinstance(prompt, (str, Prompt)):
            raise InvalidPromptError(
                f"a prompt is a str or a Prompt, not {type(prompt).__name__}: messages go into a Prompt"
            )
        if like is None or like.hold is None:
            shared, hold = self._reloading.hold()
        else:
            shared, hold = self._reloading.held(like.hold), like.hold
        check_options(options, strategies=shared.strategies)
        deadline, route = options.get("deadline"), options.get("route")
        return Request(
            prompt=prompt if isinstance(prompt, Prompt) else Prompt(prompt),
            route=_route(
                shared,
                shared.config.fallback.name if route is None else route,
                options.get("model"),
                options.get("strategy"),
            ),
            request_id=self._new_id(),
            delivery=delivery,
            deadline=math.inf if deadline is None else self._clock.current_time() + deadline,
            given=deadline,
            cache=options.get("cache", "use"),
            tenant=options.get("tenant", ""),
            raw=options.get("raw", False),
            hold=hold,
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

    async def answer(self, request: Request, *, told: Callable[[SoFar], None] | None = None) -> WizardResponse:
        """Return the whole answer to `request`; `told` is called at its end, whatever it is, with how it stands."""
        answering = Answering(self._reloading.held(request.hold), request)
        try:
            return await answering.whole()
        finally:
            if told is not None:
                told(answering.so_far)

    async def answer_as(self, request: Request, form: Form[T], home: Home) -> Structured[T]:
        """Return the answer to `request` as a value. It is read at home: that runs code of the caller's class."""

        async def ask(prompt: Prompt, cache: CacheUse) -> tuple[WizardResponse, bool]:
            asked = evolve(request, prompt=prompt, cache=cache, request_id=self._new_id())
            answering = Answering(self._reloading.held(request.hold), asked)
            return await answering.whole(), answering.hit

        async def read(text: str) -> Found[T] | tuple[Problem, ...]:
            found: list[Found[T] | tuple[Problem, ...]] = []
            await home.told(lambda: found.append(form.read(text)))()
            return found[0]

        with request.hold or nullcontext():
            return await Asking(ask, read, cache=request.cache).result(request.prompt)

    def source(self, request: Request, *, on_lost: Callable[[], None] | None = None) -> AnswerSource:
        """Return the events of the answer to `request`; `on_lost` is called where nobody has read them for too long."""
        return AnswerSource(self._reloading.held(request.hold), request, self._watch, on_lost)

    def room(self, request: Request) -> int | None:
        """Return the context window of the first model that has a known one, in tokens: of the request's route, in the
        configuration in which it was made.
        """
        ports = self._reloading.held(request.hold).ports
        windows = (ports[name].config.context_window for name in request.route.chain if name in ports)
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
        at_once, draft = self._checked(prompts, max_concurrency, options)
        total = len(prompts) if isinstance(prompts, Sized) else None
        tell = _told(on_progress, home)

        async def progress(done: int) -> None:
            if tell is not None:
                await tell(done, total)

        ask = self._patient(draft, options)
        with draft.hold or nullcontext():
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
        at_once, draft = self._checked(prompts, max_concurrency, options)
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

        with draft.hold or nullcontext():
            await run_batch(self._patient(draft, options), home.items(prompts), max_concurrency=at_once, done=done)
        return Warmed(stored=stored, already=already, failed=tuple(sorted(failed.items())))

    async def _generate(self, draft: Request, prompt: str | Prompt, **options: Unpack[AskOptions]) -> WizardResponse:
        """Return the answer to a prompt of a batch: in the configuration in force, or, where a reload has taken away
        what the batch asks for, in that of `draft`, in which the batch began.
        """
        try:
            request = self.request(prompt, Delivery.WHOLE, options)
        except ConfigError:
            request = self.request(prompt, Delivery.WHOLE, options, like=draft)
        return await self.answer(request)

    def _patient(self, draft: Request, options: AskOptions) -> Patient[str | Prompt]:
        deadline = options.get("deadline")
        return Patient(partial(self._generate, draft, **options), rng=self.shared.rng, deadline=deadline)

    def _checked(self, prompts: Prompts, max_concurrency: int | None, options: AskOptions) -> tuple[int, Request]:
        """Return how many prompts are asked at once, and what a request of the batch is like; raise what is wrong with
        the batch, whatever its prompts.
        """
        at_once = self.config.batch.max_concurrency if max_concurrency is None else max_concurrency
        check_batch(prompts, at_once)
        return at_once, self.request("?", Delivery.WHOLE, options)

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
        return self._metrics.snapshot(
            now, gauges_of(self.shared, self.supervisor, self.events, now, former=self._reloading.former)
        )


def _loaded(config: Settings) -> WizardConfig:
    if not isinstance(config, WizardConfig | str | os.PathLike):
        raise ConfigError([ConfigProblem("config", f"must be a WizardConfig or a path, not {config!r}")])
    return config if isinstance(config, WizardConfig) else WizardConfig.load(config)


def _route(shared: Shared, name: str, model: str | None, strategy: str | None) -> RouteConfig:
    """Return the route with what the caller changed; made once, for a configuration is checked when it is made."""
    key = (name, model, strategy)
    if key not in shared.routes:
        route = shared.config.route(name)
        if model is not None:
            if not shared.config.model(model).enabled:
                raise ConfigError([ConfigProblem(f"models.{model}", "is disabled")])
            route = evolve(route, chain=(model,))
        shared.routes[key] = route if strategy is None else evolve(route, strategy=strategy)
    return shared.routes[key]


def _told(on_progress: Progress | None, home: Home) -> Callable[[int, int | None], Awaitable[None]] | None:
    if iscoroutinefunction(on_progress):
        raise TypeError(f"on_progress is a plain function, which is called after each prompt, not {on_progress!r}")
    return None if on_progress is None else home.told(on_progress)
