"""`ResilientClient`: the facade that programs use."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sized
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Literal, Self, TypedDict, Unpack, get_args

import trio
from attrs import evolve, frozen

from wizard_actors.answering import Answering
from wizard_actors.batch import Patient, gather, run_batch
from wizard_actors.builder import Clients, make_shared, make_tree
from wizard_actors.cache import CacheState
from wizard_actors.cache_messages import Invalidate, cacheable
from wizard_actors.client_builder import ClientBuilder
from wizard_actors.config import RouteConfig, Strategy, WizardConfig
from wizard_actors.errors import ConfigError, ConfigProblem, InvalidPromptError, UnsupportedError, WizardError
from wizard_actors.events import EventStream
from wizard_actors.gauges import gauges_of
from wizard_actors.lag import watching
from wizard_actors.metrics import Metrics, MetricsSnapshot
from wizard_actors.patience import failure_behind
from wizard_actors.providers.base import Provider
from wizard_actors.request import CacheUse, Delivery, Request
from wizard_actors.response_stream import IdleWatch, ResponseStream
from wizard_actors.shared import Shared
from wizard_actors.supervisor import Supervisor, TreeNode
from wizard_actors.types import Prompt, WizardResponse

__all__ = ["AskOptions", "ResilientClient", "Warmed"]


class AskOptions(TypedDict, total=False):
    """What every way to ask takes, all by keyword.

    `route` names a route (default: "wizard"), `model` asks one model only, `strategy` replaces the route's. `deadline`
    bounds the request, in seconds. `cache`: "use" it, "refresh" what it has, or "bypass" it. Callers of different
    `tenant` never see each other's cached answers.
    """

    route: str | None
    model: str | None
    strategy: Strategy | None
    deadline: float | None
    cache: CacheUse
    tenant: str


@frozen
class Warmed:
    """What became of the prompts that were to be in the cache: `stored` now, there `already`, or `failed`, each with
    its number in the order given, from 0, and its error.
    """

    stored: int = 0
    already: int = 0
    failed: tuple[tuple[int, WizardError], ...] = ()


class ResilientClient:
    """Language models behind limits, breakers, retries and fallbacks, for as long as its block lasts.

        async with ResilientClient.open("wizard.toml") as client:
            response = await client.generate("Why actors?")

    Any number of tasks may use one client at once, under Trio.
    """

    def __init__(
        self, shared: Shared, tree: Supervisor, events: EventStream, metrics: Metrics, watch: IdleWatch
    ) -> None:
        self.config = shared.config
        self.events = events
        self.supervisor = tree
        self._shared = shared
        self._metrics = metrics
        self._watch = watch
        self._routes: dict[tuple[str, str | None, str | None], RouteConfig] = {}

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

        `rng` makes delays and choices repeatable; `events` is where everything that happens is published (default:
        a stream of the client's own); `providers` replaces the providers of the models that it names, for tests and for
        protocols of one's own.

        Leaving waits for calls in flight in other tasks, at most `server.drain_timeout` seconds.

        Raises `UnsupportedError` outside of Trio, `ConfigError` for a configuration that cannot be used, and
        `SupervisorError` where the tree cannot go on; the block is cancelled then.
        """
        if not trio.lowlevel.in_trio_run():
            raise UnsupportedError("a ResilientClient runs under Trio, in trio.run(main)", feature="event loop")
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
                tree = make_tree(settings, rng=randomness, events=stream)
                shared = make_shared(
                    settings, tree, clients, rng=randomness, events=stream, lag=lag, providers=providers
                )
                async with tree, watch.running():
                    yield cls(shared, tree, events or stream, metrics, watch)
        finally:
            with trio.CancelScope(shield=True):  # closing sockets waits for nobody
                await clients.aclose()

    @classmethod
    def builder(cls) -> ClientBuilder[Self]:
        """Return a builder, for configurations made in code: `ResilientClient.builder().with_model(...).build()`."""
        return ClientBuilder(open=cls.open)

    # -- asking

    async def generate(self, prompt: str | Prompt, **options: Unpack[AskOptions]) -> WizardResponse:
        """Return a whole answer, from the first model of the route that gives one; for the options see `AskOptions`.

        A cancelled call stops upstream, and gives everything back.

        Raises `InvalidPromptError` and `ConfigError` before anything is sent; `DeadlineExceededError`; where every
        model failed, `FallbackError`, or with one model `RetryError` or that model's own error. All list every attempt.
        """
        return await Answering(self._shared, self._request(prompt, Delivery.WHOLE, options)).whole()

    def stream(
        self,
        prompt: str | Prompt,
        *,
        delivery: Delivery | Literal["live", "buffered"] | None = None,
        **options: Unpack[AskOptions],
    ) -> ResponseStream:
        """Return the answer as a stream of events: use it as an async context manager; the call begins with the first
        read, and ends with the block at the latest.

        The options are those of `generate`; `delivery` overrides the configured one. Before the first content any
        failure falls back unseen. After it, a live stream raises `StreamInterruptedError` with the partial text, or
        sends a `Reset`, as `stream.on_interruption` says. A stream that is not read for `stream.consumer_idle` seconds
        is ended: reading on raises `DeadlineExceededError`.
        """
        how = self.config.stream.delivery if delivery is None else delivery
        if how not in {"live", "buffered"}:
            raise ConfigError([ConfigProblem("delivery", f'must be "live" or "buffered", not {how!r}')])
        return ResponseStream(self._shared, self._request(prompt, Delivery(how), options), self._watch)

    async def generate_batch(
        self,
        prompts: Iterable[str | Prompt] | AsyncIterable[str | Prompt],
        *,
        max_concurrency: int | None = None,
        on_progress: Callable[[int, int | None], None] | None = None,
        **options: Unpack[AskOptions],
    ) -> list[WizardResponse | WizardError]:
        """Return one outcome for each prompt, in their order: the response, or the error that `generate` raises.

        At most `max_concurrency` are asked at once (default: `batch.max_concurrency`); the next prompt is taken when
        one has ended. `on_progress(done, total)` is called after each; `total` is None where nobody knows.

        A batch is patient: where a prompt is refused for now (a rate limit, an open circuit, full slots, too many calls
        in flight) all wait, and it is asked again, unless the wait named is longer than 10 minutes. `deadline` bounds
        each prompt from when it is first asked, waits included. What was sent and failed is an outcome.

        Raises `ConfigError` for options that no prompt could be asked with, and any error of `prompts` and
        `on_progress`: the outcomes so far are lost then. Cancelled, it leaves nothing running.
        """
        self._check(options)
        return await gather(
            Patient(partial(self.generate, **options), rng=self._shared.rng, deadline=options.get("deadline")),
            prompts,
            max_concurrency=self._at_once(max_concurrency),
            on_progress=on_progress,
        )

    # -- the cache

    async def warm(
        self,
        prompts: Iterable[str | Prompt] | AsyncIterable[str | Prompt],
        *,
        max_concurrency: int | None = None,
        on_progress: Callable[[int, int | None], None] | None = None,
        **options: Unpack[AskOptions],
    ) -> Warmed:
        """Ask what is not in the cache yet, so that it is; the answers are not kept elsewhere.

        Patient, bounded and telling its progress as `generate_batch`. Stale and static answers count as failed; an
        answer that may not be stored, for it is not complete, counts nowhere.

        Raises `ConfigError` where the cache is off, or is not used, and else as `generate_batch`: what is stored stays.
        """
        if self._shared.cache is None or options.get("cache") == "bypass":
            raise ConfigError([ConfigProblem("cache", "is off", "set cache.max_entries")])
        self._check(options)
        ask = Patient(partial(self.generate, **options), rng=self._shared.rng, deadline=options.get("deadline"))
        total = len(prompts) if isinstance(prompts, Sized) else None
        ended = stored = already = 0
        failed: dict[int, WizardError] = {}

        async def done(  # noqa: ASYNC124 - for run_batch to await
            index: int, _prompt: str | Prompt, outcome: WizardResponse | WizardError
        ) -> None:
            nonlocal ended, stored, already
            failure = failure_behind(outcome)
            if failure is not None:
                failed[index] = failure
            elif isinstance(outcome, WizardResponse):
                already += outcome.cached
                stored += cacheable(outcome)
            ended += 1
            if on_progress is not None:
                on_progress(ended, total)

        await run_batch(ask, prompts, max_concurrency=self._at_once(max_concurrency), done=done)
        return Warmed(stored=stored, already=already, failed=tuple(sorted(failed.items())))

    async def invalidate(self, model: str = "*", text: str = "*") -> int:
        """Drop every cached answer that a model of matching name gave to a prompt of matching text; return how many.

        Globs (`*`, `?`, `[a-z]`) match the whole name or text, at most 200 characters long. Raises `ConfigError` where
        the cache is off or a glob too long, `ActorError` where it does not answer.
        """
        if self._shared.cache is None:
            raise ConfigError([ConfigProblem("cache", "is off", "set cache.max_entries")])
        try:
            message = Invalidate(model, text)
        except ValueError as error:
            raise ConfigError([ConfigProblem("invalidate", str(error))]) from None
        return await self._shared.cache.ask(message)

    # -- looking

    def tree(self) -> TreeNode:
        """Return every actor as it stands: its state, restarts, last error, and how full its lanes are."""
        return self.supervisor.tree()

    def metrics(self) -> MetricsSnapshot:
        """Return what has been counted since the client was opened, and how everything stands now."""
        return self._metrics.snapshot(trio.current_time(), gauges_of(self._shared, self.supervisor, self.events))

    @property
    def cache(self) -> CacheState | None:
        """What the cache holds and has done; None where it is off, or has not started."""
        return None if self._shared.cache is None else self._shared.cache.published

    # -- what was asked

    def _check(self, options: AskOptions) -> None:
        """Raise what is wrong with the options, whatever the prompt."""
        self._request("?", Delivery.WHOLE, options)

    def _at_once(self, max_concurrency: int | None) -> int:
        return self.config.batch.max_concurrency if max_concurrency is None else max_concurrency

    def _request(self, prompt: str | Prompt, delivery: Delivery, options: AskOptions) -> Request:
        if not isinstance(prompt, (str, Prompt)):
            raise InvalidPromptError(
                f"a prompt is a str or a Prompt, not {type(prompt).__name__}: messages go into a Prompt"
            )
        _check_options(options)
        deadline, route = options.get("deadline"), options.get("route")
        return Request(
            prompt=prompt if isinstance(prompt, Prompt) else Prompt(prompt),
            route=self._route(
                self.config.fallback.name if route is None else route, options.get("model"), options.get("strategy")
            ),
            request_id=f"{self._shared.rng.getrandbits(64):016x}",
            delivery=delivery,
            deadline=math.inf if deadline is None else trio.current_time() + deadline,
            given=deadline,
            cache=options.get("cache", "use"),
            tenant=options.get("tenant", ""),
        )

    def _route(self, name: str, model: str | None, strategy: Strategy | None) -> RouteConfig:
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


def _check_options(options: AskOptions) -> None:
    """Raise what is wrong with the options of a request, whatever the prompt."""
    problems = [
        ConfigProblem(name, "is no option of a request", "what belongs to the prompt goes into a Prompt")
        for name in options
        if name not in AskOptions.__annotations__
    ]
    deadline, strategy, cache = options.get("deadline"), options.get("strategy"), options.get("cache", "use")
    if deadline is not None and (isinstance(deadline, bool | str | complex) or not deadline > 0):
        problems.append(ConfigProblem("deadline", f"must be more than 0 seconds, not {deadline!r}"))
    if strategy is not None and strategy not in get_args(Strategy):
        known = ", ".join(get_args(Strategy))
        problems.append(ConfigProblem("strategy", f"must be one of {known}, not {strategy!r}"))
    if strategy is not None and options.get("model") is not None:
        problems.append(ConfigProblem("strategy", "has no effect where one model is asked alone"))
    if cache not in get_args(CacheUse):
        problems.append(ConfigProblem("cache", f"must be one of {', '.join(get_args(CacheUse))}, not {cache!r}"))
    names: dict[str, object] = {name: options.get(name) for name in ("route", "model")}
    names["tenant"] = options.get("tenant", "")
    problems += [
        ConfigProblem(name, f"must be a text, not {value!r}")
        for name, value in names.items()
        if not isinstance(value, str) and (value is not None or name == "tenant")
    ]
    if problems:
        raise ConfigError(problems)
