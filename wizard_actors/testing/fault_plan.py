"""An app's own configuration, answered by simulated models that fail as a test says: `FaultPlan`.

What an app's client is given are providers of the kinds that its configuration names, which send over nothing: no
socket is opened and no key is read. The pytest plugin makes a plan for each test, as the fixture `fault_plan`.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from pathlib import Path
from random import Random
from threading import RLock
from typing import Final, TypeAlias, TypedDict, Unpack, cast, overload

from attrs import evolve

from wizard_actors.blocking import BlockingClient
from wizard_actors.client import ResilientClient
from wizard_actors.config import ModelConfig, WizardConfig
from wizard_actors.config.source import parse, read
from wizard_actors.config.values import closest
from wizard_actors.embed.place import Place, place_outside
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.providers.base import Provider
from wizard_actors.strategies import RoutingStrategy
from wizard_actors.testing.plan_clock import PlanClock, is_virtual
from wizard_actors.testing.simulation.recorder import Recorder
from wizard_actors.testing.simulation.records import CallRecord
from wizard_actors.testing.simulation.scenario import ANY, FaultKind, FaultWindow, Spread, Upstream
from wizard_actors.testing.simulation.transport import SimulatedHttp, provider_of, without_secrets
from wizard_actors.testing.simulation.upstream import UpstreamCore

__all__ = ["AppConfig", "FaultPlan", "FaultSettings", "SimulatedClients", "app_config"]

AppConfig: TypeAlias = WizardConfig | str | os.PathLike[str]
"""A configuration, the TOML of one, or the path of a TOML file."""

UNREAD: Final = ("api_key_env", "api_key_file", "ca_file", "headers", "proxy", "transport")
"""What a model says of keys and of the network."""

EARLIEST: Final = 1e-9
"""An instant at which a window can have ended."""

AT_ONCE: Final = Upstream(
    model=ANY, connect=Spread(median=0.0), first_token=Spread(median=0.0), tokens_per_second=Spread(median=1e9)
)
"""A model that costs no time, for clocks that are real."""

A_LINE: Final = "a text of one line is taken for a path: TOML has a line break in it, at its end if nowhere else"
NEVER_CLOSED: Final = "the client that was opened here was never closed: use it in a `with` block, or close it"


class FaultSettings(TypedDict, total=False):
    """The settings of a `FaultWindow`, but for its kind, its models and its start."""

    regions: Sequence[str]
    lasts: float
    every: float
    until: float
    share: float
    status: int
    retry_after: float
    delay: float
    factor: float
    after_words: int
    requests_per_minute: float


class FaultPlan:
    """What goes wrong with the models of an app, and the models: add faults before the app runs, or while it does.

    Times are in seconds since its first providers were made, on the clock of whoever made them: Trio's, virtual where
    the test's is, and else the real one. They stand still once that run of Trio is over, and go on where providers are
    made in another. Where the clock is real, models answer at once, unless `upstreams` say otherwise. `faults` are
    there from the first, as those that Hypothesis makes up; `seed` decides which calls the faults with a `share` meet.

    It may be used from any thread, within a run of Trio and after it.
    """

    def __init__(
        self, *, faults: Sequence[FaultWindow] = (), upstreams: Sequence[Upstream] = (), seed: int = 1
    ) -> None:
        self.upstreams: list[Upstream] = list(upstreams)
        """How the models behave; one of the model "*" is for all that have none of their own. For providers to come."""
        self._seed = seed
        self._windows = list(faults)
        self._clock = PlanClock()
        self._recorder = Recorder(self.now)
        self._made = 0
        self._names: set[str] = set()
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._windows))})"

    @property
    def faults(self) -> tuple[FaultWindow, ...]:
        """All windows that were added, in their order; which of them a call meets: see `add`."""
        return tuple(self._windows)

    @property
    def calls(self) -> tuple[CallRecord, ...]:
        """The calls that have reached a model so far, in their order."""
        return tuple(call.record() for call in list(self._recorder.calls))

    def now(self) -> float:
        """Return the seconds since the first providers were made, 0 before that; after a run, those of its end."""
        return self._clock.now()

    def add(
        self,
        kind: FaultKind,
        *,
        models: Sequence[str] = (),
        start: float | None = None,
        **settings: Unpack[FaultSettings],
    ) -> FaultWindow:
        """Plan a fault, and return its window: from `start` (default: now) for `lasts` seconds (default: until
        `mend`), at `models` (default: all). Which kinds there are, and what the settings mean: see `FaultWindow`.

        It meets the calls that begin later, in any case. Of several that are open, "down" and "unreachable" win over
        the others, and else the one that was added first. Raises `ConfigError` for values that make no window, and once
        the first providers were made, for models and regions that there are not; `TypeError` for a setting that there
        is not.
        """
        _check_call(models, settings)
        begins = self.now() if start is None else start
        window = FaultWindow(kind=kind, models=tuple(models), start=begins, **settings)
        with self._lock:
            if self._names:
                _refuse(self._strange([window], self._names))
            self._windows.append(window)
        return window

    def mend(self) -> None:
        """End every fault now, those that are still to come too."""
        with self._lock:
            now = max(self.now(), EARLIEST)
            # Each keeps its place: what models remember of a window goes by that.
            for index, window in enumerate(self._windows):
                self._windows[index] = evolve(window, until=now if window.until is None else min(window.until, now))

    def providers(self, config: AppConfig) -> Mapping[str, Provider]:
        """Return a provider for each of the configuration's models, for an app that opens its client itself:
        `ResilientClient.open(config, providers=fault_plan.providers(config))`.

        Make them where the client is opened: under Trio the plan goes by the clock there, and else by the real one.
        Raises `ConfigError` for a configuration that cannot be used, and for a fault of a model or a region that
        neither it nor one before it has.
        """
        settings = app_config(config)
        with self._lock:
            names = self._names | {model.name for model in settings.models}
            _refuse([*self._unheard_of(names), *self._strange(self._windows, names)])
            self._names = names
            self._clock.follow()
            self._made += 1
            return {model.name: self._provider(model) for model in settings.models}

    def _provider(self, model: ModelConfig) -> Provider:
        by_name = {upstream.model: upstream for upstream in self.upstreams}
        usual = Upstream(model=model.name) if is_virtual() else AT_ONCE
        upstream = by_name.get(model.name) or by_name.get(ANY) or usual
        rng = Random(f"{self._seed} {self._made} {model.name}")
        core = UpstreamCore(upstream, _Concerning(self._windows, model.name, upstream.region), rng, self.now())
        http = SimulatedHttp(model, core, self._recorder, wall=time.time, breaker=lambda: None)
        return provider_of(model, http, time.time)

    def _unheard_of(self, names: Collection[str]) -> Iterator[ConfigProblem]:
        """Yield the upstreams of models that there are not."""
        for upstream in self.upstreams:
            if upstream.model != ANY and upstream.model not in names:
                yield _stranger("upstreams", "name no model of the configuration", upstream.model, names)

    def _strange(self, windows: Iterable[FaultWindow], names: Collection[str]) -> Iterator[ConfigProblem]:
        """Yield what windows name that there is not."""
        regions = {upstream.region for upstream in self.upstreams if upstream.region is not None}
        for window in windows:
            for name in window.models:
                if name not in names:
                    yield _stranger("faults", "name no model of the configuration", name, names)
            for name in window.regions:
                if name not in regions:
                    yield _stranger("faults", "name a region that no upstream is in", name, regions)


def _check_call(models: Sequence[str], settings: Iterable[str]) -> None:
    """Raise for a name in the place of a list, and for settings that there are not."""
    if isinstance(models, str):
        raise ConfigError([ConfigProblem("models", "must be a list of names, got a text", f"write [{models!r}]")])
    known = {"models", "start", *FaultSettings.__annotations__}
    for name in settings:
        if name not in known:
            raise TypeError(f"a fault has no setting {name!r}; {_there_are(name, known)}")


def _stranger(key: str, reason: str, name: str, known: Collection[str]) -> ConfigProblem:
    return ConfigProblem(key, f"{reason}: {name!r}", _there_are(name, known))


def _there_are(name: str, known: Collection[str]) -> str:
    """Return which name somebody may have meant, and all that there are."""
    meant = closest(name, known)
    there = f"there are: {', '.join(sorted(known)) or 'none'}"
    return there if meant is None else f'did you mean "{meant}"? {there}'


def _refuse(found: Iterable[ConfigProblem]) -> None:
    """Raise what was found, if anything was."""
    problems = list(found)
    if problems:
        raise ConfigError(problems)


class SimulatedClients:
    """Opens clients of an app's own configuration, answered by the models of a plan."""

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._open: weakref.WeakSet[_SimulatedBlockingClient] = weakref.WeakSet()

    def __call__(
        self, config: AppConfig, *, strategies: Mapping[str, RoutingStrategy] | None = None
    ) -> AbstractAsyncContextManager[ResilientClient]:
        """Return a block with a client, under Trio or asyncio; `strategies` are those of the app's own.

        Sessions are kept in memory, whatever the configuration says. Under asyncio the client lives in a thread of its
        own, on the real clock. Raises what `ResilientClient.open` raises.
        """
        settings, providers = self._with_models(config)
        return ResilientClient.open(settings, rng=Random(1), providers=providers, strategies=strategies)

    def blocking(self, config: AppConfig, *, strategies: Mapping[str, RoutingStrategy] | None = None) -> BlockingClient:
        """Open a client for a program without an event loop, on the real clock; use it in a `with` block."""
        settings, providers = self._with_models(config)
        client = _SimulatedBlockingClient.open(settings, rng=Random(1), providers=providers, strategies=strategies)
        client.opened = place_outside()
        self._open.add(client)
        return client

    def close(self) -> None:
        """Close those clients of plain programs that still are open, each with a `RuntimeWarning` that names the line
        that opened it. Raises what closing one raises, once all are closed.
        """
        with ExitStack() as closing:
            for client in list(self._open):
                if not client.closed:
                    closing.callback(client.opened.warn, NEVER_CLOSED)
                    closing.callback(client.close)

    def _with_models(self, config: AppConfig) -> tuple[WizardConfig, Mapping[str, Provider]]:
        given = app_config(config)
        settings = given.changed(
            models=[without_secrets(model) for model in given.models],
            sessions=evolve(given.sessions, storage="memory:"),
        )
        return settings, self._plan.providers(settings)


class _SimulatedBlockingClient(BlockingClient):
    """A client that can say whether it was closed, and who opened it."""

    opened = Place("<unknown>", 0)
    closed = False

    def close(self) -> None:
        self.closed = True  # also where that fails, or is interrupted: it ends then by itself
        super().close()


def app_config(config: AppConfig) -> WizardConfig:
    """Return a configuration from whatever says it; a text of one line is a path. What it says of keys and of the way
    to its models is not read, and no environment variable changes it.

    Raises `ConfigError` for one that cannot be used, and `TypeError` for what says none.
    """
    if isinstance(config, WizardConfig):
        return config
    if not isinstance(cast("object", config), str | os.PathLike):
        hint = ": make one of it with `WizardConfig.from_tables`" if isinstance(cast("object", config), Mapping) else ""
        raise TypeError(f"a configuration is a WizardConfig, TOML, or a file's path, not {type(config).__name__}{hint}")
    inline = isinstance(config, str) and "\n" in config
    file = None if inline else os.fspath(config)
    text = str(config) if inline else _read(config)
    tables = parse(text, file)
    models = tables.get("models")
    for table in [tables.get("defaults"), *(models if isinstance(models, list) else ())]:
        if isinstance(table, dict):
            for key in UNREAD:
                table.pop(key, None)
    return WizardConfig.from_tables(tables, file, {}, text=text)


class _Concerning(Sequence[FaultWindow]):
    """Those windows of a plan that concern one model, as they are at the moment."""

    def __init__(self, windows: Sequence[FaultWindow], model: str, region: str | None) -> None:
        self._windows = windows
        self._model = model
        self._region = region

    def _now(self) -> list[FaultWindow]:
        return [window for window in tuple(self._windows) if window.concerns(self._model, self._region)]

    def __iter__(self) -> Iterator[FaultWindow]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    @overload
    def __getitem__(self, index: int) -> FaultWindow: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[FaultWindow]: ...

    def __getitem__(self, index: int | slice) -> FaultWindow | Sequence[FaultWindow]:
        return self._now()[index]


def _read(source: str | os.PathLike[str]) -> str:
    """Return the text of a file; where its path looks like TOML the error says so, and does not repeat it."""
    try:
        return read(Path(source))
    except ConfigError as error:
        if not isinstance(source, str) or "=" not in source:
            raise
        reason = error.problems[0].reason
    raise ConfigError([ConfigProblem("", f"this is no path of a file that can be used ({reason})", A_LINE)])
