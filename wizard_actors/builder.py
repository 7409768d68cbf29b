"""The only composition root: a configuration becomes a supervision tree, its providers and a pipeline; and the next one
what is added to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from random import Random
from types import MappingProxyType
from typing import Final, TypeAlias

import httpx
import trio
from attrs import define

from wizard_actors.actor import Ledger
from wizard_actors.breaker_core import BreakerState
from wizard_actors.cache import CacheState, ResponseCache
from wizard_actors.config import PRESETS, ModelConfig, RateLimitConfig, RetryConfig, Transport, WizardConfig
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.event_stream import EventStream
from wizard_actors.gcra import LimiterState
from wizard_actors.keeping import Keeping
from wizard_actors.lag import LagWatch
from wizard_actors.port import Port
from wizard_actors.prices import KnownModel, known_models
from wizard_actors.providers.anthropic import AnthropicProvider
from wizard_actors.providers.base import Provider
from wizard_actors.providers.engine import EngineState, LocalProvider
from wizard_actors.providers.gemini import GeminiProvider
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.providers.own import make_own, missing, usable
from wizard_actors.providers.simulated import SimulatedProvider
from wizard_actors.purging import Purging
from wizard_actors.retry import RetryBudget
from wizard_actors.routing import Reconfigure, Router, RouterState
from wizard_actors.seats import (
    Account,
    LimitSeat,
    Member,
    ModelSeat,
    Specs,
    account_of,
    asked,
    limit_path,
    model_path,
    patience,
    shared_limits,
)
from wizard_actors.session import Lifetime
from wizard_actors.session_store import SessionStore, SessionStoreState
from wizard_actors.shared import InFlight, Shared
from wizard_actors.slots import WorkerState
from wizard_actors.storage.opening import Opener, opener, scheme_of
from wizard_actors.storing import Storing
from wizard_actors.strategies import RoutingStrategy, known_strategies, own_strategies
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor
from wizard_actors.wall_clock import WallClock

__all__ = ["Builder", "Clients", "Layout", "make_keeping"]

NATIVE_PROVIDERS: Final[Mapping[str, type[OpenAIProvider | AnthropicProvider | GeminiProvider]]] = MappingProxyType(
    {"openai": OpenAIProvider, "anthropic": AnthropicProvider, "gemini": GeminiProvider}
)
"""Who speaks each protocol."""

Route: TypeAlias = tuple[str | None, str | None, Transport]
"""Through which proxy, trusting which authorities' file, and by which transport."""


class Clients:
    """The HTTP clients of one `ResilientClient`: a shared one, and one for each proxy, authority or transport that
    differs.
    """

    def __init__(self) -> None:
        self._clients: dict[Route, httpx.AsyncClient] = {}

    @staticmethod
    def route(config: ModelConfig) -> Route:
        """Return what decides which client reaches `config`'s model."""
        return (config.proxy, None if config.ca_file is None else str(config.ca_file), config.transport)

    def get(self, config: ModelConfig) -> httpx.AsyncClient:
        """Return the client that reaches `config`'s model. Raises what `make_http_client` raises."""
        proxy, ca_file, transport = route = self.route(config)
        if route not in self._clients:
            key = f"models.{config.name}.transport"
            self._clients[route] = make_http_client(proxy=proxy, ca_file=ca_file, transport=transport, key=key)
        return self._clients[route]

    async def keep(self, routes: Iterable[Route]) -> None:
        """Close every connection of the clients that reach nobody by `routes`."""
        with trio.CancelScope(shield=True):  # closing sockets waits for nobody
            for key in self._clients.keys() - set(routes):
                await self._clients.pop(key).aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()


@define(eq=False)
class Layout:
    """Where the enabled models of one configuration have their seats, by their names, and the shared limiters theirs;
    `strategies` are those that are not ours.
    """

    config: WizardConfig
    known: Mapping[str, KnownModel]
    strategies: Mapping[str, RoutingStrategy]
    models: dict[str, ModelSeat]
    limits: dict[str, LimitSeat]

    @property
    def configs(self) -> dict[str, ModelConfig]:
        """Every model's configuration, with what is known of it."""
        return {name: known.config for name, known in self.known.items()}

    def limiter(self, model: ModelConfig) -> str:
        """Return the path of the limiter of an enabled model."""
        own = self.models[model.name].limit
        return self.limits[str(model.rate_limit_group)].path if own is None else own.path

    def members(self, group: str) -> tuple[Member, ...]:
        """Return the models that share the limiter of `group`, with their accounts."""
        return tuple(
            (name, seat.account) for name, seat in self.models.items() if seat.config.rate_limit_group == group
        )

    def shared_limits(self) -> list[tuple[LimitSeat, tuple[RateLimitConfig, RetryConfig]]]:
        """Return the shared limiters' seats, each with what it is to go by."""
        enabled = [model for model in self.config.models if model.enabled]
        return [(self.limits[name], limits) for name, limits in shared_limits(enabled).items()]

    def routing(self, shared: Shared) -> Reconfigure:
        """Return what the router has to know."""
        paths = {name: port.worker.path for name, port in shared.ports.items()}
        return Reconfigure(self.configs, self.strategies, paths)


class Builder:
    """Builds one client, from its first configuration, and what each later one adds.

    `providers` replaces the providers of the models that it names, `strategies` are those that code gives: both for as
    long as the client is open, as are the tree's bounds.
    """

    def __init__(
        self,
        config: WizardConfig,
        *,
        rng: Random,
        events: EventStream,
        providers: Mapping[str, Provider] | None = None,
        strategies: Mapping[str, RoutingStrategy] | None = None,
    ) -> None:
        self.clients = Clients()
        self.specs = Specs(config.supervision, rng=rng, events=events)
        self._rng = rng
        self._events = events
        self._given = dict(providers or {})
        self._strategies = strategies
        self._own: dict[str, RoutingStrategy] = {}
        self._routing = Reconfigure({})

    def layout(
        self, config: WizardConfig, standing: Sequence[ModelSeat | LimitSeat] = (), taken: Iterable[str] = ()
    ) -> Layout:
        """Return where the models of `config` are to have their seats: those that stand already, where they are asked
        as before, else new ones: beside those that stand where the account is the same, else away from them and from
        the paths that are `taken`.

        Raises `ConfigError` where a route's strategy was not given, or cannot be loaded: see `own_strategies`.
        """
        own = own_strategies(config, self._strategies, self._own)
        enabled = [model for model in config.models if model.enabled]
        paths = set(taken)
        models = {model.name: self._seat(model, standing, paths) for model in enabled}
        layout = Layout(config, known_models(config.models), own, models, {})
        for name, (rates, retry) in shared_limits(enabled).items():
            members = layout.members(name)
            # The newest first: an older one may stand only for as long as a former configuration's requests do.
            there = (seat for seat in reversed(standing) if isinstance(seat, LimitSeat) and seat.name == name)
            known = next((seat for seat in there if seat.shares_account(members)), None)
            layout.limits[name] = known or LimitSeat(_free(limit_path(name), paths), name, rates, retry, members)
        return layout

    def _seat(self, model: ModelConfig, standing: Sequence[ModelSeat | LimitSeat], taken: set[str]) -> ModelSeat:
        """Return the seat at which `model` is asked so, or where there is none, a new one."""
        given = model.name in self._given
        how, account = asked(model, given=given), account_of(model, given=given)
        there = [seat for seat in standing if isinstance(seat, ModelSeat) and seat.name == model.name]
        for seat in there:
            if seat.asked == how:
                return seat
        for seat in there:
            if seat.account == account and seat.config.rate_limit_group == model.rate_limit_group:
                beside = (ModelSeat(seat.path, how, account, model, seat.limit, number) for number in count(1))
                return next(new for new in beside if new.worker not in taken)
        path = _free(model_path(model.name), taken)
        limit = None if model.rate_limit_group is not None else _limit(f"{path}/limiter", model, account)
        return ModelSeat(path, how, account, model, limit)

    def tree(self, layout: Layout) -> Supervisor:
        """Return the supervision tree of a client, not started yet.

        wizard ─ cache and limits ─ <group>, where there are any; router; sessions; models ─ model:<name> ─ its actors.
        """
        config, specs, rng = layout.config, self.specs, self._rng
        self._own = dict(layout.strategies)
        self._routing = Reconfigure(layout.configs, layout.strategies)

        def make_router(ledger: Ledger, carry: object) -> Router:
            now = self._routing
            return Router(now.models, rng, ledger, carry, now.strategies, now.workers)

        children: list[ChildSpec | GroupSpec] = [
            specs.child("router", make_router),
            specs.child("sessions", lambda ledger, carry: SessionStore(config.sessions.max_sessions, ledger, carry)),
            specs.group("models", *(specs.model(seat) for seat in layout.models.values())),
        ]
        if layout.limits:
            children.insert(0, specs.group("limits", *(specs.limiter(seat) for seat in layout.limits.values())))
        if config.cache.max_entries:
            children.insert(0, specs.child("cache", lambda ledger, carry: ResponseCache(config.cache, ledger, carry)))
        return Supervisor(
            specs.group("wizard", *children),
            rng=rng,
            drain_timeout=config.server.drain_timeout,
            events=self._events,
        )

    def first(self, layout: Layout, tree: Supervisor, lag: LagWatch) -> Shared:
        """Return what the requests of the client's first configuration share.

        Raises `ConfigError` where a key cannot be read or code gives a provider for no model.
        """
        config = layout.config
        strangers = sorted(self._given.keys() - layout.known.keys())
        if strangers:
            raise ConfigError([ConfigProblem("providers", f"names no model: {name!r}") for name in strangers])
        shared = Shared(
            config=config,
            models=layout.configs,
            ports=self.ports(layout, tree, lag, self.providers(layout)),
            strategies=known_strategies(config, self._strategies),
            router=tree.ref("router", RouterState),
            cache=tree.ref("cache", CacheState) if config.cache.max_entries else None,
            budget=RetryBudget(config.retry_budget, trio.current_time()),
            stopping=tree.stopping,
            failure=lambda: tree.failure,
            events=self._events,
            rng=self._rng,
            in_flight=InFlight(),
        )
        self._routing = layout.routing(shared)
        return shared

    def next(self, layout: Layout, before: Shared, ports: Mapping[str, Port]) -> Shared:
        """Return what the requests of another configuration share: `ports`, and what all of the client's share."""
        return Shared(
            config=layout.config,
            models=layout.configs,
            ports=ports,
            strategies=known_strategies(layout.config, self._strategies),
            router=before.router,
            cache=before.cache,
            budget=before.budget,
            stopping=before.stopping,
            failure=before.failure,
            events=before.events,
            rng=before.rng,
            in_flight=before.in_flight,
        )

    def settle(self, layout: Layout, shared: Shared) -> Reconfigure:
        """Let the router's next incarnations go by `layout`, and return what this one is to be told."""
        self._own = dict(layout.strategies)
        self._routing = layout.routing(shared)
        return self._routing

    def reused(self, layout: Layout, known: Iterable[tuple[Layout, Shared]]) -> dict[str, Port]:
        """Return the ports that models of `layout` keep: of those that nothing has changed for."""
        ports: dict[str, Port] = {}
        for before, shared in known:
            for name, seat in layout.models.items():
                port = shared.ports.get(name)
                if name not in ports and port is not None and before.models[name] is seat:
                    was, now = before.config.model(name), layout.config.model(name)
                    if before.limiter(was) != layout.limiter(now):
                        continue
                    # Both: a price that is set now may be the one that was known, and yet it has none of its tiers.
                    if was == now and port.config == layout.known[name].config:
                        ports[name] = port
        return ports

    def providers(self, layout: Layout, ports: Mapping[str, Port] = MappingProxyType({})) -> dict[str, Provider]:
        """Return the providers of the models that have no port yet, but for the embedded ones, whose engines have to
        stand first. Raises `ConfigError` where a key cannot be read, or none can be made.
        """
        configs = {name: layout.known[name].config for name in layout.models if name not in ports}
        return {name: self._provider(model) for name, model in configs.items() if not self._embedded(model)}

    def ports(
        self,
        layout: Layout,
        tree: Supervisor,
        lag: LagWatch,
        providers: Mapping[str, Provider],
        kept: Mapping[str, Port] = MappingProxyType({}),
    ) -> dict[str, Port]:
        """Return the port of every enabled model: one that is `kept`, or a new one. Their seats have to stand."""
        ports: dict[str, Port] = {}
        for name, seat in layout.models.items():
            model = layout.known[name].config
            ports[name] = kept.get(name) or Port(
                config=model,
                provider=providers[name] if name in providers else self._local(seat, model, tree),
                worker=tree.ref(seat.worker, WorkerState),
                limiter=tree.ref(layout.limiter(model), LimiterState),
                breaker=tree.ref(seat.breaker, BreakerState),
                lag=lag,
                price=layout.known[name].price,
            )
        return ports

    def routes(self, layout: Layout) -> set[Route]:
        """Return which HTTP clients the models of `layout` use."""
        configs = (seat.config for seat in layout.models.values() if seat.name not in self._given)
        return {Clients.route(config) for config in configs if config.provider != "simulated"}

    def _embedded(self, model: ModelConfig) -> bool:
        return model.provider == "local" and model.name not in self._given

    def _local(self, seat: ModelSeat, model: ModelConfig, tree: Supervisor) -> Provider:
        return LocalProvider(model, tree.ref(seat.engine, EngineState), self.clients.get(model))

    def _provider(self, model: ModelConfig) -> Provider:
        if model.name in self._given:
            key = f"providers[{model.name!r}]"
            return usable(self._given[model.name], key=key, source="what was passed here")
        if model.provider == "simulated":
            return SimulatedProvider.from_config(model)
        if model.provider == "custom":
            raise missing(model)
        make = OpenAIProvider if model.provider in PRESETS else NATIVE_PROVIDERS.get(model.provider)
        http = self.clients.get(model)
        return make_own(model, http) if make is None else make.from_config(model, http)


def _limit(path: str, model: ModelConfig, account: Account) -> LimitSeat:
    return LimitSeat(path, model.name, model.rate_limit, patience([model]), ((model.name, account),))


def _free(path: str, taken: set[str]) -> str:
    """Take `path`, or the first of it with a number that nobody has."""
    number, free = 1, path
    while free in taken:
        number += 1
        free = f"{path}#{number}"
    taken.add(free)
    return free


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
