"""The only composition root: a configuration becomes a supervision tree, its providers and a pipeline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Final, TypeAlias

import httpx
import trio
from attrs import frozen

from wizard_actors.actor import Actor
from wizard_actors.breaker_core import BreakerState
from wizard_actors.cache import CacheState, ResponseCache
from wizard_actors.circuit_breaker import CircuitBreaker
from wizard_actors.config import PRESETS, ModelConfig, WizardConfig
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.event_stream import EventStream
from wizard_actors.gcra import LimiterState
from wizard_actors.keeping import Keeping
from wizard_actors.lag import LagWatch
from wizard_actors.mailbox import Ledger
from wizard_actors.port import Port
from wizard_actors.prices import known_models
from wizard_actors.providers.anthropic import AnthropicProvider
from wizard_actors.providers.base import Provider
from wizard_actors.providers.engine import Engine, EngineState, LocalProvider
from wizard_actors.providers.gemini import GeminiProvider
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.providers.own import make_own, missing, usable
from wizard_actors.providers.simulated import SimulatedProvider
from wizard_actors.purging import Purging
from wizard_actors.rate_limit import RateLimiter
from wizard_actors.retry import RetryBudget
from wizard_actors.routing import Router, RouterState
from wizard_actors.session import Lifetime
from wizard_actors.session_store import SessionStore, SessionStoreState
from wizard_actors.shared import Shared
from wizard_actors.slots import WorkerState
from wizard_actors.storage.opening import Opener, opener, scheme_of
from wizard_actors.storing import Storing
from wizard_actors.strategies import RoutingStrategy, own_strategies
from wizard_actors.supervisor import ChildSpec, GroupSpec, RestartPolicy, Supervisor
from wizard_actors.wall_clock import WallClock
from wizard_actors.worker import ModelWorker

__all__ = ["Clients", "make_keeping", "make_shared", "make_tree", "not_used"]

log = logging.getLogger("wizard_actors.client")

NATIVE_PROVIDERS: Final[Mapping[str, type[OpenAIProvider | AnthropicProvider | GeminiProvider]]] = MappingProxyType(
    {"openai": OpenAIProvider, "anthropic": AnthropicProvider, "gemini": GeminiProvider}
)
"""Who speaks each protocol."""

Make: TypeAlias = Callable[[Ledger, object], Actor]


class Clients:
    """The HTTP clients of one `ResilientClient`: a shared one, and one for each proxy or authority that differs."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str | None, str | None], httpx.AsyncClient] = {}

    def get(self, config: ModelConfig) -> httpx.AsyncClient:
        """Return the client that reaches `config`'s model."""
        key = (config.proxy, None if config.ca_file is None else str(config.ca_file))
        if key not in self._clients:
            self._clients[key] = make_http_client(proxy=key[0], ca_file=key[1])
        return self._clients[key]

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()


@frozen
class _Builder:
    config: WizardConfig
    rng: Random
    events: EventStream

    def child(self, name: str, make: Make, *, start_timeout: float = 30.0) -> ChildSpec:
        bounds = self.config.supervision
        return ChildSpec(name, make, mailbox=bounds.mailbox, tells=bounds.tells, start_timeout=start_timeout)

    def group(self, name: str, *children: ChildSpec | GroupSpec) -> GroupSpec:
        bounds = self.config.supervision
        policy = RestartPolicy(
            max_restarts=bounds.max_restarts, window=bounds.restart_window, down_retry=bounds.down_retry
        )
        return GroupSpec(name, children, policy=policy)

    def model(self, model: ModelConfig) -> GroupSpec:
        queue = self.config.supervision.mailbox
        breaker = CircuitBreaker.factory(model.name, model.circuit_breaker, rng=self.rng, events=self.events)
        children = [
            self.child("breaker", breaker),
            self.child("worker", lambda ledger, carry: ModelWorker(model, queue, ledger, carry)),
        ]
        if model.rate_limit_group is None:
            children.insert(0, self.limiter("limiter", model.name, [model]))
        if model.local is not None:
            local = model.local
            children.append(
                self.child("engine", lambda _ledger, _carry: Engine(local), start_timeout=local.start_timeout)
            )
        return self.group(f"model:{model.name}", *children)

    def limiter(self, name: str, limited: str, models: Sequence[ModelConfig]) -> ChildSpec:
        """The limiter of `models`, whose limits are the same. After a 429 that names no time it waits as the most
        patient of their retry policies says.
        """
        policies = [model.retry.after("rate_limit") for model in models]
        retry = max(policies, key=lambda policy: (policy.base_delay, policy.max_delay))
        return self.child(name, RateLimiter.factory(limited, models[0].rate_limit, retry=retry, rng=self.rng))

    def limits(self) -> list[ChildSpec]:
        """The limiters that several models share, one for each group."""
        groups: dict[str, list[ModelConfig]] = {}
        for model in self.config.models:
            if model.enabled and model.rate_limit_group is not None:
                groups.setdefault(model.rate_limit_group, []).append(model)
        return [self.limiter(name, name, models) for name, models in groups.items()]


def make_tree(
    config: WizardConfig,
    *,
    rng: Random,
    events: EventStream,
    strategies: Mapping[str, RoutingStrategy] | None = None,
) -> Supervisor:
    """Return the supervision tree of a client, not started yet; `strategies` are those that code gives.

    wizard ─ cache and limits ─ <group>, where there are any; router; sessions; models ─ model:<name> ─ its actors.

    Raises `ConfigError` where a route's strategy was not given, or cannot be loaded: see `own_strategies`.
    """
    builder = _Builder(config, rng, events)
    models = {name: known.config for name, known in known_models(config.models).items()}
    own = own_strategies(config, strategies)
    children: list[ChildSpec | GroupSpec] = [
        builder.child("router", lambda ledger, carry: Router(models, rng, ledger, carry, own)),
        builder.child("sessions", lambda ledger, carry: SessionStore(config.sessions.max_sessions, ledger, carry)),
        builder.group("models", *(builder.model(model) for model in config.models if model.enabled)),
    ]
    if limits := builder.limits():
        children.insert(0, builder.group("limits", *limits))
    if config.cache.max_entries:
        children.insert(0, builder.child("cache", lambda ledger, carry: ResponseCache(config.cache, ledger, carry)))
    return Supervisor(
        builder.group("wizard", *children), rng=rng, drain_timeout=config.server.drain_timeout, events=events
    )


def make_shared(
    config: WizardConfig,
    tree: Supervisor,
    clients: Clients,
    *,
    rng: Random,
    events: EventStream,
    lag: LagWatch,
    providers: Mapping[str, Provider] | None = None,
) -> Shared:
    """Return what all requests over `tree` share; `providers` replaces those of the models that it names.

    Raises `ConfigError` where a key cannot be read or `providers` names no model.
    """
    strangers = sorted(set(providers or {}) - {model.name for model in config.models})
    if strangers:
        raise ConfigError([ConfigProblem("providers", f"names no model: {name!r}") for name in strangers])
    for setting in not_used(config):
        log.warning("%s", setting)
    ports: dict[str, Port] = {}
    for known in known_models(config.models).values():
        model = known.config
        if model.enabled:
            path, group = f"models/model:{model.name}", model.rate_limit_group
            given = (providers or {}).get(model.name)
            ports[model.name] = Port(
                config=model,
                provider=_provider(model, tree, clients)
                if given is None
                else usable(given, key=f"providers[{model.name!r}]", source="what was passed here"),
                worker=tree.ref(f"{path}/worker", WorkerState),
                limiter=tree.ref(f"{path}/limiter" if group is None else f"limits/{group}", LimiterState),
                breaker=tree.ref(f"{path}/breaker", BreakerState),
                lag=lag,
                price=known.price,
            )
    return Shared(
        config=config,
        ports=ports,
        router=tree.ref("router", RouterState),
        cache=tree.ref("cache", CacheState) if config.cache.max_entries else None,
        budget=RetryBudget(config.retry_budget, trio.current_time()),
        stopping=tree.stopping,
        failure=lambda: tree.failure,
        events=events,
        rng=rng,
    )


def make_keeping(
    config: WizardConfig, tree: Supervisor, storage: Opener | None, *, events: EventStream
) -> tuple[Keeping, Storing, Purging]:
    """Return what all sessions over `tree` share, their storage and its purge, neither of them running yet; `storage`
    opens it in place of the configured one.

    Raises `ConfigError` where nobody offers the storage that is configured, and for what opens nothing.
    """
    given: object = storage
    if given is not None and not callable(given):
        reason = f"must be a function that opens a storage, such as MemoryStorage.open, not {given!r}"
        raise ConfigError([ConfigProblem("storage", reason, "a name such as sqlite:FILE goes into `sessions.storage`")])
    settings, wall = config.sessions, WallClock()
    name = scheme_of(settings.storage) if storage is None else "storage"
    storing = Storing(opener(settings.storage) if storage is None else storage, name=name, timeout=settings.timeout)
    store = tree.ref("sessions", SessionStoreState)
    lifetime = Lifetime(idle=settings.expire_idle, age=settings.expire_age)
    return Keeping(store, storing, lifetime, wall, events), storing, Purging(storing, store, lifetime, wall)


def _unused(config: WizardConfig) -> Iterator[str]:
    """Yield what is set, valid, and without effect in this version."""
    for name in ("http", "websocket", "api_keys_file"):
        if getattr(config.server, name) is not None:
            yield f"server.{name}"


def not_used(config: WizardConfig) -> list[str]:
    """Return a sentence for each setting that is valid, and set, and without effect in this version."""
    return [f"{setting} is set, but this version does not use it yet" for setting in _unused(config)]


def _provider(model: ModelConfig, tree: Supervisor, clients: Clients) -> Provider:
    if model.provider == "simulated":
        return SimulatedProvider.from_config(model)
    if model.provider == "local":
        return LocalProvider(model, tree.ref(f"models/model:{model.name}/engine", EngineState), clients.get(model))
    if model.provider == "custom":
        raise missing(model)
    make = OpenAIProvider if model.provider in PRESETS else NATIVE_PROVIDERS.get(model.provider)
    return make_own(model, clients.get(model)) if make is None else make.from_config(model, clients.get(model))
