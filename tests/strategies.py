"""Routing strategies for tests, and short ways to ask them: by a plan, by a router, behind a client."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from attrs import define, evolve, field
from trio.testing import wait_all_tasks_blocked

from tests.models import model
from wizard_actors import ConfigError, WizardConfig
from wizard_actors.actor import ActorRef
from wizard_actors.config import CacheConfig, RouteConfig, SimulatedConfig
from wizard_actors.needs import Needs
from wizard_actors.plan import Choice, ModelFacts, Plan, Tactics, Why, plan
from wizard_actors.routing import Router, RouterState
from wizard_actors.strategies import Planning, RoutingStrategy
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor

CHAIN = ("a", "b", "c")
IN_ORDER = tuple(Choice(name, Why.IN_ORDER) for name in CHAIN)

TOML = """
models = [{{ name = "a", provider = "simulated" }}, {{ name = "b", provider = "simulated" }}]
fallback = {{ strategy = "{}" }}
"""


@define
class Says:
    """A strategy that answers the same to everything, and keeps what it was asked."""

    answer: Any
    asked: list[Planning] = field(factory=list)

    def order(self, planning: Planning) -> Sequence[str]:
        self.asked.append(planning)
        answer: Sequence[str] = self.answer
        return answer


class Turns:
    """Gives each model the first place in turn."""

    def __init__(self) -> None:
        self.asked = 0

    def order(self, planning: Planning) -> Sequence[str]:
        names = [candidate.name for candidate in planning.models]
        first = self.asked % len(names)
        self.asked += 1
        return names[first:] + names[:first]


class Raises:
    """A strategy with a mistake in it."""

    def order(self, planning: Planning) -> Sequence[str]:
        raise ZeroDivisionError("a mistake of its own")


def planned(
    strategy: RoutingStrategy,
    facts: Mapping[str, ModelFacts] | None = None,
    *,
    needs: Needs | None = None,
    input_tokens: int = 0,
) -> Plan:
    """Plan over a, b and c, of which nothing else is known, by `strategy`."""
    known = {**dict.fromkeys(CHAIN, ModelFacts()), **(facts or {})}
    tactics = Tactics("custom:own", own=strategy)
    return plan(CHAIN, known, needs or Needs(), 1000.0, tactics=tactics, rng=Random(1), input_tokens=input_tokens)


@asynccontextmanager
async def router_of(**strategies: RoutingStrategy) -> AsyncIterator[tuple[Supervisor, ActorRef[RouterState]]]:
    """Run a router of a, b and c with strategies of one's own."""
    models = {name: model(name) for name in CHAIN}
    own = {f"custom:{name}": strategy for name, strategy in strategies.items()}
    spec = ChildSpec("router", lambda ledger, carry: Router(models, Random(1), ledger, carry, own))
    async with Supervisor(GroupSpec("wizard", [spec])) as tree:
        yield tree, tree.ref("router", RouterState)


async def failures(ref: ActorRef[RouterState]) -> Mapping[str, int]:
    """Return the strategies' failures as they are published once all is quiet."""
    await wait_all_tasks_blocked()
    assert ref.published is not None
    return ref.published.strategy_failures


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged about strategies with a traceback."""
    return [
        record.getMessage() for record in caplog.records if record.name == "wizard_actors.routing" and record.exc_info
    ]


def config_of(strategy: str = "custom:own", *, cache: int = 0) -> WizardConfig:
    """Return a configuration of a, b and c, all simulated, whose default route has this strategy."""
    return WizardConfig(
        models=[evolve(model(name), simulated=SimulatedConfig(first_token=0.1, per_chunk=0)) for name in CHAIN],
        fallback=RouteConfig(name="wizard", strategy=strategy),
        cache=CacheConfig(max_entries=cache),
    )


def problem_of(make: Callable[[], object]) -> tuple[str, str]:
    """Return the key and the whole text of the one problem that is found."""
    with pytest.raises(ConfigError) as caught:
        make()
    [problem] = caught.value.problems
    return problem.key, f"{problem.reason}; {problem.hint}"
