"""Reloads: another configuration for a running client, whose requests notice nothing.

    prepare ─> start what is new ─> switch, in one step ─> remove, once nobody uses it

What is new starts beside what there is; where that fails, or is cancelled, it is stopped again: nothing has changed.
The switch is one step: the actors that stay are told of their new settings, and the next request is made in the new
configuration. Each request ends in the one in which it was made. What only a former configuration has (actors, HTTP
clients) is removed once the last of its requests has ended; what its limiters knew of an account is remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import attrs
import trio
from attrs import define, evolve, frozen

from wizard_actors.bells import TrioBell
from wizard_actors.builder import Builder, Layout
from wizard_actors.config import WizardConfig
from wizard_actors.errors import ActorError, ActorStoppedError
from wizard_actors.events import BreakerChanged
from wizard_actors.gcra import LimiterState
from wizard_actors.holds import Hold, Holds
from wizard_actors.lag import LagWatch
from wizard_actors.limit_memory import LimitMemory
from wizard_actors.seats import LimitSeat, ModelSeat, closed
from wizard_actors.shared import Shared
from wizard_actors.supervisor import Supervisor

__all__ = ["Reloaded", "Reloading"]

TABLES: Final = ("cache", "sessions", "supervision", "retry_budget", "telemetry")
"""What is fixed when a client is opened: whole tables, and settings of others."""

SETTINGS: Final = (
    ("stream", "consumer_idle"),
    ("server", "http"),
    ("server", "websocket"),
    ("server", "drain_timeout"),
)

MEMBERS: Final = 256
"""Of a shared limiter, present and former ones, at most."""


@frozen
class Reloaded:
    """What a reload has changed: the names of models that were `added`, `changed` (also disabled or enabled, or given
    another key) and `removed`.

    `later` are the keys of settings that are different, but take effect only after a restart, such as "cache.ttl": the
    configuration in force keeps their former values.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    later: tuple[str, ...] = ()


@define(eq=False)
class Generation:
    """One configuration of the client, from its reload on until nobody uses it."""

    layout: Layout
    shared: Shared


class Reloading:
    """The configurations of one client: the current one, and those before it that requests still use.

    `run` removes what nobody uses: run it in a task of its own, for as long as the client is open.
    """

    def __init__(self, builder: Builder, layout: Layout, tree: Supervisor, lag: LagWatch) -> None:
        self._builder = builder
        self._tree = tree
        self._lag = lag
        self._current = Generation(layout, builder.first(layout, tree, lag))
        self._former: dict[Holds, Generation] = {}
        self._standing: list[ModelSeat | LimitSeat] = _seats(layout)
        self._memory = LimitMemory()
        self._changing = trio.Lock()
        self._emptied = TrioBell()
        self._token = trio.lowlevel.current_trio_token()
        for seat in layout.models.values():
            seat.in_force = True

    @property
    def shared(self) -> Shared:
        """What the requests of the current configuration share; in any thread."""
        return self._current.shared

    @property
    def former(self) -> list[Shared]:
        """What the requests of the former configurations share that are still in use, the latest first."""
        return [generation.shared for generation in reversed(self._former.values())]

    def hold(self) -> tuple[Shared, Hold]:
        """Return what the requests of the current configuration share, and what keeps that in use; in any thread."""
        while True:
            shared = self._current.shared
            if (hold := shared.holds.hold()) is not None:
                return shared, hold

    def held(self, hold: Hold | None) -> Shared:
        """Return what a request with this hold shares; in any thread."""
        generation = None if hold is None else self._former.get(hold.holds)
        return self.shared if generation is None else generation.shared

    # -- reloads

    async def reload(self, config: WizardConfig) -> Reloaded:
        """Make `config` the current configuration; see `ResilientClient.reload`."""
        async with self._changing:
            self._check_open()
            before = self._current
            config, later = in_force(config, before.layout.config)
            layout = self._layout(config)
            started: list[ModelSeat | LimitSeat] = []
            try:
                known = [(each.layout, each.shared) for each in (before, *reversed(self._former.values()))]
                kept = self._builder.reused(layout, known)
                providers = self._builder.providers(layout, kept)
                await self._start(layout, started)
                await trio.lowlevel.checkpoint_if_cancelled()
                self._check_open()  # a client that closes meanwhile ends as it was
                self._check_there(layout)
                ports = self._builder.ports(layout, self._tree, self._lag, providers, kept)
                after = Generation(layout, self._builder.next(layout, before.shared, ports))
            except BaseException:
                with trio.CancelScope(shield=True):  # bounded by the actors' own timeouts
                    await self._remove(started)  # noqa: ASYNC102, ASYNC120 - shielded
                    await self._close_clients()  # noqa: ASYNC102, ASYNC120 - shielded
                raise
            with trio.CancelScope(shield=True):  # the router is told too, and never waits for anybody
                await self._switch(before, after)
            return _summary(before.layout, layout, later)

    def _layout(self, config: WizardConfig) -> Layout:
        """Return where the models of `config` are to have their seats. What somebody else has taken out of the tree
        stands no more, and what else there is in it stays where it is.
        """
        there = self._paths()
        standing = [seat for seat in self._standing if _paths_of(seat) <= there]
        taken = there.union(*map(_paths_of, self._standing))
        return self._builder.layout(config, standing, taken)

    def _paths(self) -> set[str]:
        root = self._tree.tree()
        return {node.path.removeprefix(f"{root.path}/") for node in root.walk()}

    def _check_there(self, layout: Layout) -> None:
        """Raise `ActorStoppedError` where somebody has taken out of the tree what `layout` needs in it."""
        missing = set[str]().union(*map(_paths_of, _seats(layout))) - self._paths()
        if missing:
            raise _taken_out(min(missing))

    async def _start(self, layout: Layout, started: list[ModelSeat | LimitSeat]) -> None:
        """Start the actors that do not stand yet, and note them."""
        for seat in [seat for seat in _seats(layout) if seat not in self._standing]:
            await trio.lowlevel.checkpoint_if_cancelled()  # a start itself is not cancelled
            limit = seat if isinstance(seat, LimitSeat) else seat.limit
            if limit is not None and limit.path not in self._paths():
                self._memory.successor(limit, self._limiters(), trio.current_time())
            self._standing.append(seat)
            started.append(seat)  # before: also where only some of its actors have started
            try:
                await (self._start_limit(seat) if isinstance(seat, LimitSeat) else self._start_model(seat))
            except KeyError as error:
                raise _taken_out(seat.path) from error

    async def _start_limit(self, seat: LimitSeat) -> None:
        tree, specs = self._tree, self._builder.specs
        if "limits" in self._paths():
            await tree.add(specs.limiter(seat), under="limits")
        else:
            await tree.add(specs.group("limits", specs.limiter(seat)))

    async def _start_model(self, seat: ModelSeat) -> None:
        tree, specs = self._tree, self._builder.specs
        if seat.path not in self._paths():
            await tree.add(specs.model(seat), under="models")
            return
        for actor in specs.actors(seat):
            await tree.add(actor, under=seat.path)

    def _limiters(self) -> list[tuple[LimitSeat, LimiterState]]:
        """Return the limiters that stand, and how."""
        seats = (seat if isinstance(seat, LimitSeat) else seat.limit for seat in self._standing)
        there = self._paths()
        known = [(seat, self._tree.ref(seat.path, LimiterState)) for seat in seats if seat and seat.path in there]
        return [(seat, ref.published) for seat, ref in known if ref.published is not None]

    async def _switch(self, before: Generation, after: Generation) -> None:
        """Let the actors that stay go by their new settings, and the next request be made in the new configuration: in
        one step, up to the first wait.
        """
        routing = self._builder.settle(after.layout, after.shared)
        for name, seat in after.layout.models.items():
            seat.settle(after.layout.config.model(name), self._tree)
        for limit, now in after.layout.shared_limits():
            limit.settle(*now, self._tree)
            members = dict.fromkeys((*after.layout.members(limit.name), *limit.members))
            limit.members = tuple(members)[:MEMBERS]
        self._former[before.shared.holds] = before
        self._current = after
        self._tell_circuits(before.layout, after.layout)
        before.shared.holds.retire(self._ring)
        with suppress(ActorError):  # an incarnation after a crash finds out by itself
            await after.shared.router.ask(routing)

    def _tell_circuits(self, before: Layout, after: Layout) -> None:
        """Let the breakers that are asked from now on be heard, and no others; and tell of each model whose circuit is
        another one for it.
        """
        now = trio.current_time()
        for seat in before.models.values():
            seat.in_force = False
        for seat in after.models.values():
            seat.in_force = True
        for name in before.models | after.models:
            was, circuit = (_circuit(layout, name, now) for layout in (before, after))
            if circuit.circuit != was.circuit:
                self._current.shared.events.publish(circuit)

    def _check_open(self) -> None:
        shared = self.shared
        if (failure := shared.failure()) is not None:
            raise failure.copy()
        if shared.stopping.is_set():
            raise ActorStoppedError("the client is closed, or about to be: it cannot be changed", actor="wizard")

    # -- what nobody uses any more

    async def run(self) -> None:
        """Remove what only former configurations have, whenever one of them is in use no more. Runs until cancelled."""
        while True:
            await self._emptied.heard()
            async with self._changing:
                ended = [holds for holds in self._former if holds.end()]
                for holds in ended:
                    del self._former[holds]
                if ended:
                    used = {seat for each in self._generations() for seat in _seats(each.layout)}
                    await self._remove([seat for seat in self._standing if seat not in used])
                    await self._close_clients()

    def _generations(self) -> Iterator[Generation]:
        yield self._current
        yield from self._former.values()

    def _ring(self) -> None:
        """Wake `run`, from wherever: an object that goes may call this in the middle of anything."""
        with suppress(trio.RunFinishedError, OSError):  # OSError: Trio itself broke down
            self._token.run_sync_soon(self._emptied.ring)

    async def _remove(self, seats: list[ModelSeat | LimitSeat]) -> None:
        """Stop these actors, the last started first, and take them out of the tree."""
        for seat in reversed(seats):
            self._standing.remove(seat)
            others = [other for other in self._standing if isinstance(other, type(seat))]
            if isinstance(seat, LimitSeat):
                await self._remove_limiter(seat, seat.path if others else "limits")
            elif any(other.path == seat.path for other in others):
                for path in reversed(seat.actors):
                    await self._take_out(path)
            else:
                await self._remove_limiter(seat.limit, seat.path)

    async def _remove_limiter(self, limit: LimitSeat | None, path: str) -> None:
        """Take out what stands at `path`, with this limiter in it, and remember how that stood."""
        ref = None
        if limit is not None and limit.path in self._paths():
            ref = self._tree.ref(limit.path, LimiterState)
        await self._take_out(path)
        if limit is not None and ref is not None and ref.published is not None:
            self._memory.keep(limit, ref.published, trio.current_time())

    async def _take_out(self, path: str) -> None:
        with suppress(KeyError):  # somebody else has taken it out
            await self._tree.remove(path)

    async def _close_clients(self) -> None:
        used = {route for each in self._generations() for route in self._builder.routes(each.layout)}
        await self._builder.clients.keep(used)


def _seats(layout: Layout) -> list[ModelSeat | LimitSeat]:
    """Return every seat of `layout` in the order of their start, but for limiters that stand in a model's own group."""
    return [*layout.limits.values(), *layout.models.values()]


def _circuit(layout: Layout, name: str, now: float) -> BreakerChanged:
    """Return how the circuit of a model stands; a model that is not asked has a closed one."""
    return layout.models[name].circuit(now) if name in layout.models else closed(name, now)


def _taken_out(path: str) -> ActorStoppedError:
    return ActorStoppedError(
        f"{path!r} was taken out of the tree during the reload, which has changed nothing: reload once more", actor=path
    )


def _paths_of(seat: ModelSeat | LimitSeat) -> set[str]:
    """Return what has to be in the tree for `seat` to stand."""
    if isinstance(seat, LimitSeat):
        return {seat.path}
    return {seat.path, *seat.actors, *([] if seat.limit is None else [seat.limit.path])}


def in_force(config: WizardConfig, before: WizardConfig) -> tuple[WizardConfig, tuple[str, ...]]:
    """Return `config` as a client that goes by `before` can go by it, and the keys of the settings that it keeps from
    `before` because they are fixed.
    """
    fixed = [(table, field.name) for table in TABLES for field in attrs.fields(type(getattr(config, table)))]
    later = [
        (table, name)
        for table, name in (*fixed, *SETTINGS)
        if getattr(getattr(config, table), name) != getattr(getattr(before, table), name)
    ]
    if not later:
        return config, ()
    tables: dict[str, object] = {table: getattr(before, table) for table in TABLES}
    for table in {table for table, _ in later} - set(TABLES):
        kept = {name: getattr(getattr(before, table), name) for of, name in later if of == table}
        tables[table] = evolve(getattr(config, table), **kept)
    return config.changed(**tables), tuple(f"{table}.{name}" for table, name in later)


def _summary(before: Layout, after: Layout, later: tuple[str, ...]) -> Reloaded:
    was = {model.name: model for model in before.config.models}
    now = {model.name: model for model in after.config.models}
    changed = (
        name
        for name in now
        if name in was and (was[name] != now[name] or before.models.get(name) is not after.models.get(name))
    )
    return Reloaded(
        added=tuple(name for name in now if name not in was),
        changed=tuple(changed),
        removed=tuple(name for name in was if name not in now),
        later=later,
    )
