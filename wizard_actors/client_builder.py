"""`ClientBuilder`: a client put together call by call, in place of a configuration written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Generic, Protocol, Self, TypeVar, Unpack, overload

import attrs
from attrs import AttrsInstance, field, frozen

from wizard_actors.config import (
    BatchConfig,
    BreakerConfig,
    CacheConfig,
    LoggingConfig,
    ModelConfig,
    RateLimitConfig,
    RetryBudgetConfig,
    RetryConfig,
    ServerConfig,
    SessionsConfig,
    StreamConfig,
    SupervisionConfig,
    TelemetryConfig,
    TimeoutsConfig,
    WizardConfig,
)
from wizard_actors.config.assembly import Parts, Source, given_twice
from wizard_actors.config.keywords import (
    BatchSettings,
    BreakerSettings,
    CacheSettings,
    LoggingSettings,
    ModelSettings,
    RateLimitSettings,
    RetryBudgetSettings,
    RetrySettings,
    RouteSettings,
    ServerSettings,
    SessionsSettings,
    StreamSettings,
    SupervisionSettings,
    TelemetrySettings,
    TimeoutsSettings,
)
from wizard_actors.config.values import described
from wizard_actors.errors import ConfigProblem
from wizard_actors.event_stream import EventStream
from wizard_actors.providers.base import Provider
from wizard_actors.storage.opening import Opener as StorageOpener
from wizard_actors.strategies import RoutingStrategy

__all__ = ["ClientBuilder", "Opener"]

C_co = TypeVar("C_co", covariant=True)


class Opener(Protocol[C_co]):
    """What opens a client: `open` of a `ResilientClient` or of a `BlockingClient`."""

    def __call__(
        self,
        config: WizardConfig,
        /,
        *,
        rng: Random | None = ...,
        events: EventStream | None = ...,
        providers: Mapping[str, Provider] | None = ...,
        strategies: Mapping[str, RoutingStrategy] | None = ...,
        storage: StorageOpener | None = ...,
    ) -> C_co:
        """Return the client, or the block that opens it."""
        ...


@frozen(eq=False, repr=False, kw_only=True)
class ClientBuilder(Generic[C_co]):
    """A client put together call by call; every part is optional.

        builder = ResilientClient.builder().with_config("wizard.toml").with_retry(max_attempts=5)
        async with builder.with_cache(max_entries=1000, ttl="1h").build() as client:
            response = await client.generate("Why actors?")

    A builder never changes: each method returns another one, so that one builder can be the start of several. Settings
    are given as in a file, one by one ("30s" is a duration), or as a whole table. They replace the same settings of
    `with_config`, and what is not given stays. Without `with_config` and `with_model`, also where nothing was called,
    the models are those whose API keys the environment holds: OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY,
    GOOGLE_API_KEY. Such a client calls them, and they may cost money.

    Nothing is checked before `config()` or `build()`, which raise one `ConfigError` with everything that is wrong; each
    problem names the method. A setting given twice by the same method, with different values, is wrong too: the order
    of the calls says only in which order the models are tried.
    """

    _open: Opener[C_co]
    _parts: Parts = field(factory=Parts)
    _rng: Random | None = None
    _events: EventStream | None = None
    _providers: Mapping[str, Provider] = field(factory=dict)
    _strategies: Mapping[str, RoutingStrategy] = field(factory=dict)
    _storage: StorageOpener | None = None

    def __repr__(self) -> str:
        """Show the methods that were called, and no value: there may be a secret among them."""
        others = {
            "with_events()": self._events,
            "with_rng()": self._rng,
            "with_providers()": self._providers or None,
            "with_strategies()": self._strategies or None,
            "with_storage()": self._storage,
        }
        called = [*self._parts.calls(), *(method for method, given in others.items() if given is not None)]
        return f"ClientBuilder({', '.join(called)})"

    # -- where the settings come from ---------------------------------------------------------------------------------

    def with_config(self, config: Source, /) -> Self:
        """Start from `config`, or from the TOML file at that path, which is read when the client is built."""
        return attrs.evolve(self, parts=self._parts.with_source(config))

    @overload
    def with_model(self, whole: ModelConfig, /) -> Self: ...

    @overload
    def with_model(self, /, **settings: Unpack[ModelSettings]) -> Self: ...

    def with_model(self, whole: ModelConfig | None = None, /, **settings: object) -> Self:
        """Add a model, after those of `with_config`. What it says itself stands against what all models are given."""
        if whole is not None and settings:
            raise TypeError("with_model() takes a ModelConfig, or the settings of one")
        return attrs.evolve(self, parts=attrs.evolve(self._parts, models=(*self._parts.models, whole or settings)))

    # -- every model --------------------------------------------------------------------------------------------------

    def with_timeouts(self, table: TimeoutsConfig | None = None, /, **settings: Unpack[TimeoutsSettings]) -> Self:
        """Set the timeouts of every model's attempts."""
        return self._with("timeouts", table, settings)

    def with_retry(self, table: RetryConfig | None = None, /, **settings: Unpack[RetrySettings]) -> Self:
        """Set how often every model is tried, and how soon again."""
        return self._with("retry", table, settings)

    def with_circuit_breaker(self, table: BreakerConfig | None = None, /, **settings: Unpack[BreakerSettings]) -> Self:
        """Set when every model's circuit opens and closes."""
        return self._with("circuit_breaker", table, settings)

    def with_rate_limit(self, table: RateLimitConfig | None = None, /, **settings: Unpack[RateLimitSettings]) -> Self:
        """Set what every model's account allows."""
        return self._with("rate_limit", table, settings)

    # -- routes -------------------------------------------------------------------------------------------------------

    def with_fallback(self, *models: str, **settings: Unpack[RouteSettings]) -> Self:
        """Set which models the default route asks, in which order and how. No `models`: as before, else all of them."""
        parts = self._parts.with_table("fallback", None, settings)
        return attrs.evolve(self, parts=parts.with_table("fallback", None, {"chain": models}) if models else parts)

    def with_route(self, name: str, *models: str, **settings: Unpack[RouteSettings]) -> Self:
        """Add a route, or set what the route of that name does. No `models`: as before, else all of them."""
        parts = self._parts.with_route(name, settings)
        return attrs.evolve(self, parts=parts.with_route(name, {"chain": models}) if models else parts)

    # -- what all models share ----------------------------------------------------------------------------------------

    def with_cache(self, table: CacheConfig | None = None, /, **settings: Unpack[CacheSettings]) -> Self:
        """Set the response cache, which `max_entries` switches on."""
        return self._with("cache", table, settings)

    def with_sessions(self, table: SessionsConfig | None = None, /, **settings: Unpack[SessionsSettings]) -> Self:
        """Set where conversations are kept, and for how long."""
        return self._with("sessions", table, settings)

    def with_stream(self, table: StreamConfig | None = None, /, **settings: Unpack[StreamSettings]) -> Self:
        """Set how answers stream to whoever asked."""
        return self._with("stream", table, settings)

    def with_batch(self, table: BatchConfig | None = None, /, **settings: Unpack[BatchSettings]) -> Self:
        """Set how many prompts of a batch are asked at once."""
        return self._with("batch", table, settings)

    def with_server(self, table: ServerConfig | None = None, /, **settings: Unpack[ServerSettings]) -> Self:
        """Set the bounds of the whole client: calls in flight, and how long they wait."""
        return self._with("server", table, settings)

    def with_logging(self, table: LoggingConfig | None = None, /, **settings: Unpack[LoggingSettings]) -> Self:
        """Set what is logged."""
        return self._with("logging", table, settings)

    def with_telemetry(self, table: TelemetryConfig | None = None, /, **settings: Unpack[TelemetrySettings]) -> Self:
        """Set whether spans and metrics are recorded for OpenTelemetry."""
        return self._with("telemetry", table, settings)

    def with_supervision(
        self, table: SupervisionConfig | None = None, /, **settings: Unpack[SupervisionSettings]
    ) -> Self:
        """Set the bounds of every actor."""
        return self._with("supervision", table, settings)

    def with_retry_budget(
        self, table: RetryBudgetConfig | None = None, /, **settings: Unpack[RetryBudgetSettings]
    ) -> Self:
        """Set what the retries and hedges of all models may cost together."""
        return self._with("retry_budget", table, settings)

    # -- what is no setting -------------------------------------------------------------------------------------------

    def with_events(self, events: EventStream, /) -> Self:
        """Set where things are published as they happen."""
        if wrong := _unlike(EventStream, "an EventStream", "with_events()", events):
            return self._refusing(*wrong)
        if self._events not in (None, events):
            return self._refusing(given_twice("with_events()"))
        return attrs.evolve(self, events=events)

    def with_rng(self, rng: Random, /) -> Self:
        """Make delays and choices repeatable. Every client of this builder draws from the same `rng`."""
        if wrong := _unlike(Random, "a random.Random", "with_rng()", rng):
            return self._refusing(*wrong)
        if self._rng not in (None, rng):
            return self._refusing(given_twice("with_rng()"))
        return attrs.evolve(self, rng=rng)

    def with_providers(self, providers: Mapping[str, Provider], /) -> Self:
        """Replace the providers of the models that `providers` names."""
        if wrong := _unlike(Mapping, "a mapping from models' names to providers", "with_providers()", providers):
            return self._refusing(*wrong)
        found = [problem for name, provider in providers.items() for problem in self._against(name, provider)]
        return attrs.evolve(self._refusing(*found), providers={**providers, **self._providers})

    def with_strategies(self, strategies: Mapping[str, RoutingStrategy], /) -> Self:
        """Add routing strategies of one's own, which routes name `custom:NAME`."""
        if wrong := _unlike(Mapping, "a mapping from names to strategies", "with_strategies()", strategies):
            return self._refusing(*wrong)
        twice = [
            given_twice(f"with_strategies()[{name!r}]")
            for name, strategy in strategies.items()
            if self._strategies.get(name, strategy) is not strategy
        ]
        return attrs.evolve(self._refusing(*twice), strategies={**strategies, **self._strategies})

    def with_storage(self, storage: StorageOpener, /) -> Self:
        """Set what opens the storage of the sessions: a function that returns an async context manager."""
        given: object = storage  # a program without a type checker may give anything
        if not callable(given):
            return self._refusing(_must_get("a function that opens a storage", "with_storage()", given))
        if self._storage not in (None, storage):
            return self._refusing(given_twice("with_storage()"))
        return attrs.evolve(self, storage=storage)

    # -- what comes of it ---------------------------------------------------------------------------------------------

    def config(self) -> WizardConfig:
        """Return the configuration that the calls add up to; reads the file of `with_config`.

        Without `with_config` and `with_model` it looks for API keys in the environment, as `WizardConfig.from_env`.

        Raises `ConfigError` with everything that is wrong, `EnvVarError` where there is no model and no API key.
        """
        return self._parts.settle(self._providers)

    def build(self) -> C_co:
        """Return the client, which starts and stops with its block: `async with builder.build() as client`, or `with`
        for a `BlockingClient`, which starts here.

        Its configuration is that of `config`: without `with_config` and `with_model`, the models are those whose API
        keys are found in the environment.

        Raises what `config` raises, here and not when the block is entered.
        """
        return self._open(
            self.config(),
            rng=self._rng,
            events=self._events,
            providers=self._providers or None,
            strategies=self._strategies or None,
            storage=self._storage,
        )

    def _against(self, name: str, provider: Provider) -> Iterator[ConfigProblem]:
        call = f"with_providers()[{name!r}]"
        if not callable(getattr(provider, "open", None)) or not hasattr(provider, "streams"):
            yield _must_get("a provider, with `open` and `streams`", call, provider)
        if self._providers.get(name, provider) is not provider:
            yield given_twice(call)

    def _refusing(self, *problems: ConfigProblem) -> Self:
        return attrs.evolve(self, parts=self._parts.with_problems(problems))

    def _with(self, name: str, table: AttrsInstance | None, settings: Mapping[str, object]) -> Self:
        return attrs.evolve(self, parts=self._parts.with_table(name, table, settings))


def _unlike(kind: type, wanted: str, call: str, got: object) -> list[ConfigProblem]:
    return [] if isinstance(got, kind) else [_must_get(wanted, call, got)]


def _must_get(wanted: str, call: str, got: object) -> ConfigProblem:
    return ConfigProblem(call, f"must get {wanted}, got {described(got)}")
