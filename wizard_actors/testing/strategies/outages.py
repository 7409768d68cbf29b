"""Scenarios that Hypothesis makes up: who asks, and what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast, get_args

from hypothesis import strategies as st

from wizard_actors.config import WizardConfig
from wizard_actors.config.strict import chosen
from wizard_actors.testing.fault_plan import AppConfig, app_config
from wizard_actors.testing.simulation.actors import killable
from wizard_actors.testing.simulation.scenario import (
    ANY,
    Arrival,
    ClockJump,
    FaultKind,
    FaultWindow,
    Kill,
    Scenario,
    Spread,
    StorageFault,
    StorageFaultKind,
    Upstream,
    Workload,
)
from wizard_actors.testing.strategies.arguments import chosen_from, names, seconds
from wizard_actors.testing.strategies.configurations import configurations

__all__ = ["fault_plans", "scenarios", "workloads"]

KINDS: Final[tuple[FaultKind, ...]] = (
    "down",
    *(kind for kind in get_args(FaultKind) if kind != "down"),
)
ARRIVALS: Final[tuple[Arrival, ...]] = ("steady", "poisson", "bursts")
STORAGE_KINDS: Final[tuple[StorageFaultKind, ...]] = get_args(StorageFaultKind)
DURATIONS: Final = (10, 20, 30, 60)
MOST_FAULTS: Final = 4
LIMITED: Final = st.sampled_from([None, 30.0, 60.0])
SPREADS: Final = st.sampled_from(
    [Spread(median=1.0), Spread(median=0.2), Spread(median=5.0), Spread(median=0.5, p99=4.0)]
)
SHARES: Final = st.sampled_from([1.0, 0.5, 0.2])
RARE: Final = st.sampled_from([0.0, 0.0, 0.2, 0.5, 1.0])


def _within(duration: float, least: int = 0) -> st.SearchStrategy[float]:
    """Return whole seconds of a scenario, from `least` on: kills, jumps and faults of the storage begin at 1, when the
    sessions of the workload are open.
    """
    return st.integers(least, max(least, int(duration))).map(float)


def fault_plans(
    models: Sequence[str], duration: float, *, kinds: Sequence[FaultKind] = KINDS
) -> st.SearchStrategy[tuple[FaultWindow, ...]]:
    """Return up to 4 windows of faults of the `kinds` (default: all), at any of the `models` or at all of them, that
    begin within `duration` seconds, last a while or to the end, and perhaps come again.

    They shrink towards none, and then towards one at all models from the beginning to the end; a failure shows the
    settings of each that are not at their defaults. Raises `ConfigError` where no models are named, for kinds that
    there are not, and for a duration that is not above 0.
    """
    return _fault_plans(
        names("fault_plans", "models", models),
        seconds("fault_plans", "duration", duration),
        chosen_from("fault_plans", "kinds", kinds, KINDS),
    )


@st.composite
def _fault_plans(
    draw: st.DrawFn, models: Sequence[str], duration: float, kinds: Sequence[FaultKind]
) -> tuple[FaultWindow, ...]:
    # A number and then so many, not a list: what shrinks leaves out any one of them, however long it is.
    count = draw(st.integers(0, MOST_FAULTS))
    return tuple(draw(_fault(models, duration, kinds)) for _ in range(count))


@st.composite
def _fault(draw: st.DrawFn, models: Sequence[str], duration: float, kinds: Sequence[FaultKind]) -> FaultWindow:
    kind = draw(st.sampled_from(kinds))
    lasts = draw(st.none() | _within(duration, 1))
    pause = draw(st.none() | _within(duration, 1)) if lasts is not None else None
    midway = kind in {"cut", "truncated", "stall", "malformed"}
    slowed = kind in {"slow_first_token", "slow_tokens"}
    refuses = kind in {"rate_limit", "overloaded"}
    window = FaultWindow(
        kind=kind,
        models=tuple(draw(st.lists(st.sampled_from(models), unique=True, max_size=len(models)).map(sorted))),
        start=draw(_within(duration)),
        lasts=lasts,
        every=None if lasts is None or pause is None else lasts + pause,
        share=draw(SHARES),
        retry_after=draw(st.sampled_from([None, 0.0, 1.0, 20.0])) if refuses else None,
        factor=draw(st.sampled_from([10.0, 2.0, 100.0])) if slowed else 10.0,
        after_words=draw(st.sampled_from([10, 0, 1, 1000])) if midway else 10,
        requests_per_minute=draw(LIMITED) if kind == "rate_limit" else None,
    )
    # Hypothesis shows a value as the call that has built it: with these settings, and not with all that there are.
    return draw(st.builds(FaultWindow, **{name: st.just(value) for name, value in chosen(window).items()}))


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Return workloads of at most 2 requests a second: steady, at random or in bursts, of whole answers, streams and
    sessions, with deadlines, callers who hang up, and readers who are slow or stop.

    They shrink towards one request every two seconds, as steadily as can be, all for whole answers.
    """
    kind = draw(st.sampled_from(["whole", "stream", "buffered", "sessions", "mixed"]))
    share = {"whole": (0.0, 0.0, 0.0), "mixed": (0.25, 0.25, 0.25)}.get(
        kind, (float(kind == "stream"), float(kind == "buffered"), float(kind == "sessions"))
    )
    stream, buffered, sessions = share
    streams = stream + buffered > 0
    deadline = draw(st.none() | SPREADS)
    cancel_share = draw(RARE)
    arrival = draw(st.sampled_from(ARRIVALS))
    slow_readers = draw(st.sampled_from([0.0, 0.5])) if streams else 0.0
    return Workload(
        rate=draw(st.sampled_from([0.5, 1.0, 2.0])),
        arrival=arrival,
        burst=draw(st.sampled_from([5, 2, 20])) if arrival == "bursts" else 20,
        distinct=draw(st.sampled_from([None, 1, 3])),
        tenants=draw(st.sampled_from([1, 2])),
        stream=stream,
        buffered=buffered,
        sessions=draw(st.sampled_from([1, 3])) if sessions else 0,
        sessions_share=sessions,
        deadline=deadline,
        deadline_share=draw(SHARES) if deadline is not None else 1.0,
        cancel_share=cancel_share,
        cancel_after=draw(SPREADS) if cancel_share else Spread(median=0.5),
        slow_readers=slow_readers,
        stopped_readers=draw(st.sampled_from([0.0, 0.2])) if streams else 0.0,
    )


def scenarios(
    *,
    config: AppConfig | st.SearchStrategy[WizardConfig] | None = None,
    workload: Workload | st.SearchStrategy[Workload] | None = None,
    kinds: Sequence[FaultKind] = KINDS,
    kills: bool = True,
    clock_jumps: bool = True,
    storage_faults: bool = True,
) -> st.SearchStrategy[Scenario]:
    """Return scenarios of 10 to 60 seconds: a configuration (default: any of `configurations`; your own app's, say, as
    a `WizardConfig`, TOML or the path of a file) and a workload (default: any of `workloads`), models that are slow or
    limited or not, faults of the `kinds`, and unless that is switched off, crashes of actors, jumps of the clocks and
    faults of the storage.

    They shrink towards a run of 10 seconds in which nothing goes wrong. Raises `ConfigError` for a configuration that
    cannot be used and for kinds that there are not, and `TypeError` for what is no configuration or no workload.
    """
    return _scenarios(
        _configs(config),
        _workloads(workload),
        chosen_from("scenarios", "kinds", kinds, KINDS),
        kills=kills,
        clock_jumps=clock_jumps,
        storage_faults=storage_faults,
    )


def _configs(config: AppConfig | st.SearchStrategy[WizardConfig] | None) -> st.SearchStrategy[WizardConfig]:
    if config is None:
        return configurations()
    return config if isinstance(config, st.SearchStrategy) else st.just(app_config(config))


def _workloads(workload: Workload | st.SearchStrategy[Workload] | None) -> st.SearchStrategy[Workload]:
    if workload is None:
        return workloads()
    if isinstance(workload, st.SearchStrategy):
        return workload
    if not isinstance(cast("object", workload), Workload):
        got = type(workload).__name__
        raise TypeError(f"a workload is a Workload or a strategy of them, not {got}: write `Workload(rate=1)`, say")
    return st.just(workload)


@st.composite
def _scenarios(
    draw: st.DrawFn,
    configs: st.SearchStrategy[WizardConfig],
    works: st.SearchStrategy[Workload],
    kinds: Sequence[FaultKind],
    *,
    kills: bool,
    clock_jumps: bool,
    storage_faults: bool,
) -> Scenario:
    made = draw(configs)
    work = draw(works)
    duration = float(draw(st.sampled_from(DURATIONS)))
    models = [model.name for model in made.models]
    return Scenario(
        seed=draw(st.integers(0, 999)),
        duration=duration,
        config=made,
        upstreams=tuple(draw(_upstreams(models))),
        faults=draw(_fault_plans(models, duration, kinds)),
        workload=work,
        kills=tuple(draw(st.lists(_kills(made, duration), max_size=2))) if kills else (),
        clock_jumps=tuple(draw(st.lists(_jumps(duration), max_size=2))) if clock_jumps else (),
        storage_faults=tuple(draw(st.lists(_storage(duration), max_size=2)))
        if storage_faults and work.sessions_share
        else (),
    )


@st.composite
def _upstreams(draw: st.DrawFn, models: Sequence[str]) -> list[Upstream]:
    chosen = draw(st.lists(st.sampled_from([ANY, *models]), unique=True, max_size=2))
    return [
        Upstream(
            model=model,
            first_token=draw(st.sampled_from([Spread(median=0.3), Spread(median=2.0), Spread(median=0.5, p99=5.0)])),
            answer_tokens=draw(st.sampled_from([Spread(median=40.0), Spread(median=2.0), Spread(median=400.0)])),
            requests_per_minute=draw(LIMITED),
            burst=draw(st.sampled_from([5.0, 60.0])),
        )
        for model in chosen
    ]


@st.composite
def _kills(draw: st.DrawFn, config: WizardConfig, duration: float) -> Kill:
    times = draw(st.sampled_from([1, 2, 8]))  # eight leave an actor DOWN
    return Kill(
        actor=draw(st.sampled_from([ANY, *killable(config)])),
        at=draw(_within(duration, 1)),
        every=None if times == 1 else draw(st.sampled_from([5.0, 0.5])),
        times=times,
    )


@st.composite
def _jumps(draw: st.DrawFn, duration: float) -> ClockJump:
    wall = draw(st.booleans())
    seconds = [10.0, 1.0, 600.0, *((-10.0, -600.0) if wall else ())]
    return ClockJump(at=draw(_within(duration, 1)), seconds=draw(st.sampled_from(seconds)), wall=wall)


@st.composite
def _storage(draw: st.DrawFn, duration: float) -> StorageFault:
    return StorageFault(
        kind=draw(st.sampled_from(STORAGE_KINDS)),
        start=draw(_within(duration, 1)),
        lasts=draw(st.none() | _within(duration, 1)),
        share=draw(SHARES),
    )
