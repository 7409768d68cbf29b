"""`simulate`: one scenario, played by a real client on a virtual clock, always in the same way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from decimal import localcontext
from functools import partial
from random import Random
from typing import Final, cast

import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from wizard_actors import ResilientClient
from wizard_actors.breaker_core import BreakerState
from wizard_actors.config import ModelConfig, TelemetryConfig
from wizard_actors.config.values import closest, described
from wizard_actors.cost import MONEY
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.providers.base import Provider
from wizard_actors.seats import model_path
from wizard_actors.supervisor import State
from wizard_actors.testing.simulation.actors import actors_of
from wizard_actors.testing.simulation.callers import BEYOND_IDLE, Callers
from wizard_actors.testing.simulation.invariants import INVARIANTS, Invariant, violations_of
from wizard_actors.testing.simulation.recorder import Recorder
from wizard_actors.testing.simulation.records import RequestRecord
from wizard_actors.testing.simulation.repeatable import ROUNDS, Standstill, repeatable
from wizard_actors.testing.simulation.report import Report
from wizard_actors.testing.simulation.scenario import ANY, ClockJump, Kill, Scenario
from wizard_actors.testing.simulation.storage import FaultyStorage
from wizard_actors.testing.simulation.transport import SimulatedHttp, provider_of, without_secrets
from wizard_actors.testing.simulation.upstream import UpstreamCore
from wizard_actors.testing.simulation.workload import requests
from wizard_actors.wall_clock import WALL

__all__ = ["simulate"]

EPOCH: Final = 1_767_225_600.0
"""The wall clock's seconds since 1970 as a scenario begins: 2026-01-01."""

LOOKS: Final = 600
"""How often it is looked at how everything stands, at most, while requests arrive."""

LEAST_BETWEEN_LOOKS: Final = 0.5
PATIENCE: Final = 86_400.0
"""Seconds after the last arrival for which requests may run on, beside what the scenario itself makes them wait:
whoever still waits then waits for ever. For so long the client may take to close, too.
"""

OTHER_EVENTS: Final = 8
"""How many events a stream has beside those of its pieces, at most."""

FOR_EVER: Final = 1e15
ROUNDS_EACH: Final = 50
"""How often tasks may run on at one instant for each of the requests that may arrive at once."""


def simulate(
    scenario: Scenario, *, seed: int | None = None, invariants: Sequence[Invariant] = INVARIANTS, logs: bool = False
) -> Report:
    """Play a scenario and return what came of it: a real client with its tree and its providers, on a virtual clock,
    with models that exist only as bytes. Nothing is sent anywhere, no key is read, and hardly any time passes.

    `seed` is in the place of the scenario's own. The same scenario with the same seed is always played in the same way,
    with one version of Python and of Trio. `invariants` are what is checked of the report, whose `violations` tell
    where they did not hold. The client's own warnings are not logged unless `logs` is true: outages make many. One
    simulation is played at a time: a second one, in another thread, waits for the first.

    Where somebody waits for ever, or tasks run for ever while no time passes, the run is broken off: the report is of
    what has happened until then, and not `finished`.

    Raises `ConfigError` for a scenario that cannot be played: a kill of an actor that there is not, say, or a name in
    the place of a scenario; and for invariants that are none;
    `UnsupportedError` inside a Trio run, and where this version of Trio cannot be made to repeat itself.
    """
    checked = _checked(scenario, invariants)
    played = scenario if seed is None else evolve(scenario, seed=seed)
    run = _Run(played)
    with repeatable(played.seed, logs=logs):
        trio.run(run.main, clock=run.clock, instruments=[run.standstill()])
    with localcontext(MONEY):  # the caller's own context may round, or raise
        report = run.report()
        return evolve(report, violations=violations_of(report, checked))


def _checked(scenario: object, invariants: object) -> Sequence[Invariant]:
    """Return the invariants. Raises `ConfigError` for what is none, and for what is no scenario."""
    problems = []
    if not isinstance(scenario, Scenario):
        hint = "`load_scenario` makes one of a file or of a shipped scenario's name"
        problems.append(ConfigProblem("scenario", f"must be a Scenario, got {described(scenario)}", hint))
    is_list = isinstance(invariants, Iterable) and not isinstance(invariants, str)
    given: Sequence[object] = tuple(cast("Iterable[object]", invariants)) if is_list else ()
    if not is_list:
        hint = "`[]` for none of them, `[*INVARIANTS, yours]` for ours too"
        problems.append(ConfigProblem("invariants", f"must be a list of Invariants, got {described(invariants)}", hint))
    checked = [each for each in given if isinstance(each, Invariant)]
    strangers = [described(each) for each in given if not isinstance(each, Invariant)]
    problems += [ConfigProblem("invariants", f"must be Invariants, got {stranger}") for stranger in strangers]
    if problems:
        raise ConfigError(problems)
    return checked


def _patience(scenario: Scenario) -> float:
    """Return for how many seconds after the last arrival requests may run on."""
    workload = scenario.workload
    jumped = sum(jump.seconds for jump in scenario.clock_jumps if not jump.wall)
    pieces = max(upstream.pieces for upstream in (*scenario.upstreams, scenario.upstream(ANY)))
    slow = (pieces + OTHER_EVENTS) * workload.reads_every if workload.slow_readers else 0.0
    stopped = BEYOND_IDLE * scenario.config.stream.consumer_idle if workload.stopped_readers else 0.0
    config = scenario.config
    waits = sum(_longest(model) + model.retry.max_attempts * config.server.queue_timeout for model in config.models)
    return min(PATIENCE + jumped + max(slow, stopped) + waits, FOR_EVER)


def _longest(model: ModelConfig) -> float:
    """Return for how many seconds a request may be at a model, or wait for it, by its own settings."""
    retry = model.retry
    delay = max(retry.max_delay, retry.retry_after_cap)
    return retry.max_attempts * (model.timeouts.total + model.rate_limit.max_wait + delay)


class _Run:
    """One run of a scenario. Each thing that is left to chance has a source of its own, made of the scenario's seed."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = MockClock(autojump_threshold=0)
        self._wall_offset = EPOCH
        self._began = self.clock.current_time()
        self._recorder = Recorder(self._now)
        self._held: list[str] = []
        self._sessions: dict[str, tuple[int, int]] = {}
        self._counts: dict[str, int] = {}
        self._restarts: dict[str, int] = {}
        self._patience = _patience(scenario)
        self._scopes: list[trio.CancelScope] = []
        """What can be broken off, the innermost last."""
        self._spins = False
        self._complete = False
        self._finished = False
        self._ended = 0.0

    def _now(self) -> float:
        return self.clock.current_time() - self._began

    def _wall(self) -> float:
        return self._now() + self._wall_offset

    def _random(self, name: str) -> Random:
        return Random(f"{self.scenario.seed} {name}")

    # -- the run -----------------------------------------------------------------------------------------------------

    async def main(self) -> None:
        """Open the client, let everything happen, and look at what is left of it."""
        WALL.set(self._wall)
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.move_on_after(self.scenario.duration + self._patience + PATIENCE) as scope:
            self._scopes.append(scope)
            await self._live()
            self._finished = self._complete
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        left = trio.lowlevel.current_statistics().tasks_living - before
        if left:
            self._held.append(f"{left} tasks run on after the client was closed")

    async def _live(self) -> None:
        scenario, recorder = self.scenario, self._recorder
        models = [without_secrets(model) for model in scenario.config.models]
        config = scenario.config.changed(models=models, telemetry=TelemetryConfig())
        breakers = _Breakers()
        providers = {model.name: self._provider(model, breakers) for model in config.models}
        async with (
            FaultyStorage.open(scenario.storage_faults, self._now, self._random("storage")) as storage,
            ResilientClient.open(
                config, rng=self._random("client"), providers=providers, storage=lambda: nullcontext(storage)
            ) as client,
        ):
            breakers.client = client
            self._check_kills(client)
            stop = client.events.listen(recorder.hear)
            callers = Callers(client, scenario.workload, recorder)
            await self._let_happen(client, callers)
            self._ended = self._now()
            await self._look_back(client, callers, storage)
            stop()

    async def _let_happen(self, client: ResilientClient, callers: Callers) -> None:
        """Have all requests made, and everything done that happens beside them, as long as it may take."""
        scenario = self.scenario
        with trio.move_on_after(scenario.duration + self._patience) as scope:
            self._scopes.append(scope)
            async with trio.open_nursery() as others:
                others.start_soon(self._look_on, client)
                for index, kill in enumerate(scenario.kills):
                    others.start_soon(self._kill, client, kill, index)
                for jump in scenario.clock_jumps:
                    others.start_soon(self._jump, jump)
                asked = requests(scenario.workload, scenario.duration, self._random("workload"))
                await callers.run(asked, self._began)
                others.cancel_scope.cancel()
            self._complete = True
        self._scopes.pop()

    def _provider(self, model: ModelConfig, breakers: _Breakers) -> Provider:
        scenario = self.scenario
        upstream = scenario.upstream(model.name)
        faults = [fault for fault in scenario.faults if fault.concerns(model.name, upstream.region)]
        core = UpstreamCore(upstream, faults, self._random(f"model {model.name}"))
        http = SimulatedHttp(
            model, core, self._recorder, wall=self._wall, breaker=partial(breakers.published, model.name)
        )
        return provider_of(model, http, self._wall)

    # -- what happens beside the requests ------------------------------------------------------------------------------

    async def _look_on(self, client: ResilientClient) -> None:
        every = max(self.scenario.duration / LOOKS, LEAST_BETWEEN_LOOKS)
        while True:
            self._look(client)
            # Somebody may wait for ever: then it is looked at ever more rarely.
            await trio.sleep(max(every, (self._now() - self.scenario.duration) / 10))

    def _look(self, client: ResilientClient) -> None:
        gauges = client.metrics().gauges
        if gauges is not None:
            self._recorder.look(gauges)

    def _check_kills(self, client: ResilientClient) -> None:
        actors = _actors(client)
        problems = [
            ConfigProblem(
                f"kills[{index}].actor",
                f"names no actor of this client: {kill.actor!r}",
                f"did you mean {meant!r}?" if (meant := closest(kill.actor, actors)) else f"any: {', '.join(actors)}",
            )
            for index, kill in enumerate(self.scenario.kills)
            if kill.actor not in {ANY, *actors}
        ]
        if problems:
            raise ConfigError(problems)

    async def _kill(self, client: ResilientClient, kill: Kill, index: int) -> None:
        lot = self._random(f"kill {index} {kill.actor} at {kill.at}")
        await trio.sleep(kill.at)
        for _ in range(max(1, kill.within(self.scenario.duration))):
            victim = lot.choice(_actors(client)) if kill.actor == ANY else kill.actor
            client.supervisor.kill(victim, RuntimeError("killed, as the scenario says"))
            await trio.sleep(math.inf if kill.every is None else kill.every)

    async def _jump(self, jump: ClockJump) -> None:
        await trio.sleep(jump.at)
        if jump.wall:
            self._wall_offset += jump.seconds
        else:
            self.clock.jump(jump.seconds)

    def standstill(self) -> Standstill:
        """Return what notices that no time passes any more."""
        workload = self.scenario.workload
        at_once = workload.burst if workload.arrival == "bursts" else 0
        return Standstill(self.clock, self._break_off, ROUNDS + ROUNDS_EACH * at_once)

    def _break_off(self) -> None:
        """Note that tasks run on at one instant, and cancel them: the requests, and if that does not help, all."""
        if not self._spins:
            self._held.append(f"spins at t = {self._now():.3f} s: tasks run on and on, and no time passes")
        self._spins = True
        for scope in self._scopes[::-1]:
            if not scope.cancel_called:
                scope.cancel()
                return

    # -- what is left of it --------------------------------------------------------------------------------------------

    async def _look_back(self, client: ResilientClient, callers: Callers, storage: FaultyStorage) -> None:
        if self._spins:  # then they are never all blocked
            for _ in range(10):
                await trio.lowlevel.checkpoint()
        else:
            await wait_all_tasks_blocked()
        self._look(client)
        self._restarts = {node.path: node.restarts for node in client.tree().walk() if node.restarts}
        self._count(client)
        self._held += self._still_held(client)
        for session, turns in callers.sessions.items():
            self._sessions[session] = (turns, await storage.turns(session))

    def _still_held(self, client: ResilientClient) -> list[str]:
        """Return what should have been given back, or be over."""
        metrics, models = client.metrics(), self.scenario.config.models
        held = [f"{path} has granted {count} that nobody gave back" for path, count in _outstanding(client)]
        gauges = {} if metrics.gauges is None else metrics.gauges.models
        down = _down(client)
        for model in models:
            # What an actor that is DOWN shows is of before that.
            if model.name in gauges and not any(path in down for path in actors_of(model)):
                gauge = gauges[model.name]
                counts = {"slots": gauge.slots_in_use, "queued": gauge.waiting, "limited": gauge.limiter_waiting}
                held += [f"{model.name}: {count} {what} when all was over" for what, count in counts.items() if count]
        if metrics.requests.in_flight:
            held.append(f"{metrics.requests.in_flight} requests counted as in flight when all was over")
        held += [f"the exchange of call {call.number} is open" for call in self._recorder.calls if call.closed is None]
        return held

    def _count(self, client: ResilientClient) -> None:
        requests_ = client.metrics().requests
        self._counts = {
            "began": requests_.began,
            "answered": sum(requests_.answered.values()),
            "failed": sum(requests_.failed.values()),
            "cancelled": requests_.cancelled,
            "shed": requests_.shed,
            "attempts": requests_.attempts,
            "upstream_calls": requests_.upstream_calls,
        }

    def _whole(self, request: RequestRecord) -> RequestRecord:
        """Return what is known of a request: one that got nothing was waiting to the end."""
        return request if request.outcomes else evolve(request, ended=max(request.arrived, self._ended))

    def report(self) -> Report:
        """Return all that was written down."""
        recorder = self._recorder
        return Report(
            scenario=self.scenario,
            requests=tuple(self._whole(request.record()) for request in recorder.requests),
            calls=tuple(call.record() for call in recorder.calls),
            circuits=tuple(recorder.circuits),
            spent=tuple(recorder.spent),
            samples=tuple(recorder.samples),
            lanes=dict(recorder.lanes),
            restarts=self._restarts,
            sessions=self._sessions,
            counts=self._counts,
            held=tuple(self._held),
            finished=self._finished,
            ended=self._ended,
        )


class _Breakers:
    """What the client's breakers publish: the models are made before it is opened."""

    def __init__(self) -> None:
        self.client: ResilientClient | None = None

    def published(self, model: str) -> BreakerState | None:
        if self.client is None:
            return None
        return self.client.supervisor.ref(f"{model_path(model)}/breaker", BreakerState).published


def _actors(client: ResilientClient) -> list[str]:
    """Return the paths of all actors, below the root."""
    root = client.tree()
    return [node.path.removeprefix(f"{root.path}/") for node in root.walk() if node.lanes is not None]


def _down(client: ResilientClient) -> set[str]:
    """Return the paths of the actors that do not run, below the root."""
    root = client.tree()
    nodes = [node for node in root.walk() if node.lanes is not None and node.state is not State.RUNNING]
    return {node.path.removeprefix(f"{root.path}/") for node in nodes}


def _outstanding(client: ResilientClient) -> list[tuple[str, int]]:
    return sorted(client.supervisor.outstanding.items())
