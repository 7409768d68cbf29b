"""How routing strategies of one's own are made known: by code, by a configuration, by an installed package."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from trio.testing import MockClock

from tests.models import model
from tests.strategies import TOML, Turns, config_of, problem_of
from wizard_actors import ConfigError, ResilientClient, WizardConfig
from wizard_actors.config import RouteConfig, Strategy
from wizard_actors.strategies import Planning, known_strategies, own_strategies, strategy_problem

# -- by code


def test_a_strategy_that_nobody_gave_is_an_error_that_says_what_to_pass() -> None:
    """It names the route, the strategy and the argument."""
    key, said = problem_of(lambda: own_strategies(config_of("custom:night"), {"day": Turns()}))

    assert key == "fallback.strategy"
    assert "'wizard'" in said
    assert "'custom:night'" in said
    assert 'strategies={"night": ...}' in said
    assert "'day'" in said


async def test_a_client_does_not_open_without_it(autojump_clock: MockClock) -> None:
    """It is found when the client is opened, before anything is asked."""
    with pytest.raises(ConfigError, match="custom:own"):
        async with ResilientClient.open(config_of()):
            raise AssertionError("opened")


def test_every_route_is_looked_at() -> None:
    """A named route's strategy is missed like the default one's."""
    routes = [RouteConfig(name="fast", chain=("a", "b"), strategy="custom:night")]
    key, said = problem_of(lambda: own_strategies(evolve(config_of("sequential"), routes=routes)))

    assert key == "routes[0].strategy"
    assert "'fast'" in said


class Later:
    """A strategy that would have to be awaited."""

    async def order(self, planning: Planning) -> Sequence[str]:
        return []


NOT_ONE: dict[str, tuple[object, object, str]] = {
    "a class": ("own", Turns, "is a class"),
    "no method": ("own", object(), "no method `order`"),
    "a function": ("own", lambda planning: [], "no method `order`"),
    "async": ("own", Later(), "async"),
    "one of ours": ("adaptive", Turns(), "a name of ours"),
    "with the prefix": ("custom:own", Turns(), "its name is 'own'"),
    "no name": ("", Turns(), "a name is a text"),
    "no text": (7, Turns(), "a name is a text"),
}


@pytest.mark.parametrize(("name", "strategy", "reason"), NOT_ONE.values(), ids=NOT_ONE)
def test_what_is_no_strategy_is_refused_when_a_client_opens(name: object, strategy: object, reason: str) -> None:
    """Not when the first request comes; and no name of ours can be taken over."""
    given: Any = {name: strategy}
    _, said = problem_of(lambda: own_strategies(config_of("sequential"), given))

    assert reason in said


def test_what_a_request_may_name() -> None:
    """Ours, what was given, and what a route names."""
    known = known_strategies(config_of("custom:own"), {"own": Turns(), "night": Turns()})

    assert known == ("sequential", "parallel", "hedged", "adaptive", "cheapest", "custom:own", "custom:night")
    assert [strategy_problem(name, known) for name in known] == [None] * len(known)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("custom:nigth", "did you mean 'custom:night'?"),
        ("Adaptive", "did you mean 'adaptive'?"),
        ("custom:xyz", '"xyz": ...'),
        (7, "must be one of"),
        (["adaptive"], "must be one of"),
    ],
)
def test_a_request_that_names_another_is_told_what_there_is(name: object, said: str) -> None:
    """With what was probably meant."""
    problem = strategy_problem(name, known_strategies(config_of("sequential"), {"night": Turns()}))

    assert problem is not None
    assert problem.key == "strategy"
    assert said in f"{problem.reason}; {problem.hint}"


# -- by a configuration


def test_a_configuration_names_one_that_code_gives() -> None:
    """It loads without the code; from a file, from the environment and from code alike."""
    assert WizardConfig.from_toml(TOML.format("custom:night"), env={}).fallback.strategy == "custom:night"
    env = {"WIZARD_FALLBACK_STRATEGY": "custom:night"}
    assert WizardConfig.from_toml(TOML.format("hedged"), env=env).fallback.strategy == "custom:night"
    built = ResilientClient.builder().with_model(model("a")).with_model(model("b"))
    assert built.with_fallback(strategy="custom:night").config().fallback.strategy == "custom:night"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adaptiv", 'did you mean "adaptive"?'),
        ("custom", "custom:NAME"),
        ("custom:", "must not be empty"),
        ("custom: night", "without a space"),
        ("night", '"cheapest", or "custom:NAME"'),
    ],
)
def test_a_typo_is_found_while_the_configuration_is_loaded(name: str, said: str) -> None:
    """With what was probably meant."""
    key, found = problem_of(lambda: WizardConfig.from_toml(TOML.format(name), env={}))

    assert key == "fallback.strategy"
    assert said in found


def test_hedges_have_no_effect_beside_it() -> None:
    """As beside any strategy that waits until a model has been given up."""
    text = TOML.format("custom:night").replace(" }}\n", "").replace('night" }', 'night", hedge_delay = 2 }')
    key, said = problem_of(lambda: WizardConfig.from_toml(text, env={}))

    assert key == "fallback.hedge_delay"
    assert "custom:night" in said


# -- by an installed package


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, target: str, *, name: str = "night") -> None:
    """Install a package that offers a strategy: a module, and what says so."""
    (folder / "acme_night.py").write_text(
        "made = []\n"
        "class Night:\n"
        "    def __init__(self):\n"
        "        made.append(self)\n"
        "    def order(self, planning):\n"
        "        return [model.name for model in reversed(planning.models)]\n"
        "class Needy(Night):\n"
        "    def __init__(self, region):\n"
        "        self.region = region\n"
        "nothing = 7\n"
        "def useless():\n"
        "    return 7\n"
        "async def later():\n"
        "    return Night()\n",
        encoding="utf-8",
    )
    info = folder / "acme_night-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-night\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[wizard_actors.strategies]\n{name} = {target}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "acme_night", raising=False)


async def test_an_installed_package_offers_one_by_its_name(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plain name stands in the configuration, and it is made once for a client."""
    installed(tmp_path, monkeypatch, "acme_night:Night")
    config = config_of("night")

    async with ResilientClient.open(config) as client:
        responses = [await client.generate("Why?") for _ in range(2)]

    assert [response.model for response in responses] == ["c", "c"]
    assert len(sys.modules["acme_night"].made) == 1


def test_a_typo_of_its_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What packages offer is known while the configuration is loaded, though nothing of it is imported."""
    installed(tmp_path, monkeypatch, "acme_night:Night")

    _, said = problem_of(lambda: WizardConfig.from_toml(TOML.format("nigth"), env={}))

    assert 'did you mean "night"?' in said
    assert "acme_night" not in sys.modules


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("acme_night:Missing", "cannot be loaded"),
        ("acme_night:Needy", "called without arguments"),
        ("acme_night:nothing", "cannot be called"),
        ("acme_night:useless", "no method `order`"),
        ("acme_night:later", "is a coroutine: an async function made it"),
    ],
)
def test_a_package_whose_strategy_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, said: str
) -> None:
    """When a client opens, as an error of the configuration."""
    installed(tmp_path, monkeypatch, target)

    key, found = problem_of(lambda: own_strategies(config_of("night")))

    assert key == "fallback.strategy"
    assert said in found


@pytest.mark.parametrize("name", ["adaptive", "sequential"])
def test_no_package_takes_over_a_name_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Strategy) -> None:
    """Ours stays ours."""
    installed(tmp_path, monkeypatch, "acme_night:Night", name=name)

    assert own_strategies(config_of(name)) == {}
