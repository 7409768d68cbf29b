"""A scenario with somebody's own configuration in the place of its own. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest

from attrs import evolve

from wizard_actors.config import WizardConfig
from wizard_actors.config.values import described
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.seats import limit_path, model_path
from wizard_actors.testing.simulation.scenario import ANY, FaultWindow, Kill, Scenario, Upstream

__all__ = ["part_of", "with_config"]


def with_config(scenario: Scenario, config: WizardConfig) -> Scenario:
    """Return `scenario` as it happens to `config`: the same workload, faults, kills and jumps of the clock.

    A model of the configuration has the part of the scenario's model that stands at its place (`part_of`). What happens
    to models for which the configuration has none is left out; models beyond the scenario's behave as its upstream "*"
    says, and meet the faults that name nobody. The default route is asked. A kill of an actor that such a client has
    not, as of the cache where that is off, is left out.

    Raises `ConfigError` where one of the two is something else, as a path.
    """
    _check(scenario, config)
    named = {theirs: ours for theirs, ours in part_of(scenario, config).items() if ours is not None}
    upstreams = tuple(_upstreams(scenario.upstreams, named))
    regions = {upstream.region for upstream in upstreams}
    return evolve(
        scenario,
        config=config,
        upstreams=upstreams,
        faults=tuple(_faults(scenario.faults, named, regions)),
        kills=tuple(_kills(scenario.kills, named, config)),
        workload=evolve(scenario.workload, route=None),
    )


def _check(scenario: object, config: object) -> None:
    if not isinstance(scenario, Scenario):
        hint = "`load_scenario` makes one of a file or of a shipped scenario's name"
        raise ConfigError([ConfigProblem("scenario", f"must be a Scenario, got {described(scenario)}", hint)])
    if not isinstance(config, WizardConfig):
        reason = f"must be a WizardConfig, got {described(config)}"
        raise ConfigError([ConfigProblem("config", reason, "`WizardConfig.load` reads a file")])


def part_of(scenario: Scenario, config: WizardConfig) -> Mapping[str, str | None]:
    """Return by the name of each of the scenario's models that of the configuration's that has its part, None: none.

    Both are taken in the order in which they are asked: the first of the scenario's route is the first of the default
    route of `config`, and so on; after those of the route come the other models that are enabled, in their order.
    """
    theirs = _in_order(scenario.config, scenario.workload.route)
    ours = _in_order(config, None)
    return {their: our for their, our in zip_longest(theirs, ours[: len(theirs)]) if their is not None}


def _in_order(config: WizardConfig, route: str | None) -> list[str]:
    chain = (config.fallback if route is None else config.route(route)).chain
    enabled = [model.name for model in config.models if model.enabled]
    return list(dict.fromkeys([*(name for name in chain if name in enabled), *enabled]))


def _upstreams(upstreams: Iterable[Upstream], named: Mapping[str, str]) -> Iterator[Upstream]:
    for upstream in upstreams:
        if upstream.model == ANY:
            yield upstream
        elif upstream.model in named:
            yield evolve(upstream, model=named[upstream.model])


def _faults(
    faults: Sequence[FaultWindow], named: Mapping[str, str], regions: Iterable[str | None]
) -> Iterator[FaultWindow]:
    """Yield the faults with the names that there are; a fault that names somebody never becomes everybody's."""
    for fault in faults:
        models = tuple(named[name] for name in fault.models if name in named)
        left = tuple(region for region in fault.regions if region in regions)
        if models or left or not (fault.models or fault.regions):
            yield evolve(fault, models=models, regions=left)


def _kills(kills: Iterable[Kill], named: Mapping[str, str], config: WizardConfig) -> Iterator[Kill]:
    """Yield the kills of actors that there are: not every client has a cache, and models of a group share a limiter."""
    groups = {model.name: model.rate_limit_group for model in config.models if model.rate_limit_group is not None}
    shared = {"router", "sessions", ANY, *(limit_path(group) for group in groups.values())}
    if config.cache.max_entries:
        shared.add("cache")
    places = {model_path(theirs): ours for theirs, ours in named.items()}
    for kill in kills:
        place, _, actor = kill.actor.rpartition("/")
        ours = places.get(place)
        if kill.actor in shared:
            yield kill
        elif ours is not None:
            limited = actor == "limiter" and ours in groups
            yield evolve(kill, actor=limit_path(groups[ours]) if limited else f"{model_path(ours)}/{actor}")
