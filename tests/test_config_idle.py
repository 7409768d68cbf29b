"""Settings that would have no effect: each is a mistake, in a file, in code and in a variable."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from wizard_actors.config import (
    BreakerConfig,
    CacheConfig,
    ModelConfig,
    RateLimitConfig,
    RetryBudgetConfig,
    RouteConfig,
    ScriptStep,
    SimulatedConfig,
    WizardConfig,
)
from wizard_actors.errors import ConfigError

ONE = '[[models]]\nname = "a"\nprovider = "openai"\n'
TWO = ONE + ONE.replace('"a"', '"b"')
SIMULATED = '[[models]]\nname = "a"\nprovider = "simulated"\n'


def only(text: str, env: Mapping[str, str] | None = None) -> tuple[str, str, str]:
    """Load `text`, which has one mistake, and return its key, reason and hint."""
    with pytest.raises(ConfigError) as caught:
        WizardConfig.from_toml(text, "wizard.toml", env or {})
    (problem,) = caught.value.problems
    return problem.key, problem.reason, problem.hint


def test_a_static_answer_says_something() -> None:
    """An empty one would be an answer that nobody can tell from a broken one."""
    assert only(ONE + '[fallback]\nstatic_answer = " "')[:2] == ("fallback.static_answer", "must not be empty")


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        (ONE + '[cache]\nttl = "1h"', "cache.ttl", "while the cache is off"),
        (ONE + "[cache]\nmax_entries = 0\nmax_bytes = 9", "cache.max_bytes", "while the cache is off"),
        (
            ONE + "circuit_breaker = { failure_rate = 0.5, failure_threshold = 5 }",
            "models[0].circuit_breaker.failure_threshold",
            "beside `failure_rate`",
        ),
        (
            ONE + "circuit_breaker = { minimum_calls = 20 }",
            "models[0].circuit_breaker.minimum_calls",
            "without `failure_rate`",
        ),
        (ONE + "rate_limit = { burst = 3 }", "models[0].rate_limit.burst", "without `requests_per_minute`"),
        (
            "[defaults.circuit_breaker]\nfailure_rate = 0.5\nfailure_threshold = 3\n" + TWO,
            "defaults.circuit_breaker.failure_threshold",
            "beside `failure_rate`",
        ),
        (
            "[defaults.circuit_breaker]\nminimum_calls = 3\n" + TWO,
            "defaults.circuit_breaker.minimum_calls",
            "without `failure_rate`",
        ),
        ("[defaults.rate_limit]\nburst = 3\n" + TWO, "defaults.rate_limit.burst", "without `requests_per_minute`"),
        (
            "[defaults.rate_limit]\nburst = 3\n" + ONE + "rate_limit = { burst = 3, requests_per_minute = 9 }",
            "defaults.rate_limit.burst",
            "without `requests_per_minute`",
        ),
        (ONE + '[fallback]\nstrategy = "hedged"', "fallback.strategy", "the chain has one model"),
        (
            TWO + '[[routes]]\nname = "r"\nchain = ["b"]\nstrategy = "parallel"',
            "routes[0].strategy",
            "the chain has one model",
        ),
        (
            TWO.replace("openai", "vllm") + '[fallback]\nstrategy = "cheapest"',
            "fallback.strategy",
            "no model of the chain has a price",
        ),
        (ONE + "[retry_budget]\nenabled = false\ndeposit = 0.2", "retry_budget.deposit", "the budget is off"),
        (
            ONE + "[retry_budget]\ninitial = 101",
            "retry_budget.initial",
            "must be at most `max`, which is 100.0, got 101",
        ),
        (
            SIMULATED + 'simulated.script = [{ fault = "error", after_words = 2 }]',
            "models[0].simulated.script[0].after_words",
            'the fault is "error"',
        ),
        (
            SIMULATED + 'simulated.script = [{ fault = "ok" }, { fault = "ok", status = 500 }]',
            "models[0].simulated.script[1].status",
            'the fault is "ok"',
        ),
        (
            SIMULATED + 'simulated.script = [{ fault = "disconnect", delay = 2 }]',
            "models[0].simulated.script[0].delay",
            'the fault is "disconnect"',
        ),
        (
            '[defaults]\nsimulated.script = [{ fault = "ok", after_words = 2 }]\n' + SIMULATED,
            "defaults.simulated.script[0].after_words",
            'the fault is "ok"',
        ),
    ],
)
def test_a_setting_without_effect_is_refused_where_it_stands(text: str, key: str, reason: str) -> None:
    """Also at its default: whoever wrote it meant something by it."""
    found_key, found_reason, hint = only(text)

    assert found_key == key
    assert reason in found_reason
    assert hint


@pytest.mark.parametrize(
    ("maker", "key"),
    [
        (lambda: CacheConfig(ttl=5), "ttl"),
        (lambda: model_with(circuit_breaker=BreakerConfig(minimum_calls=5)), "models[0].circuit_breaker.minimum_calls"),
        (
            lambda: model_with(circuit_breaker=BreakerConfig(failure_rate=0.5, failure_threshold=3)),
            "models[0].circuit_breaker.failure_threshold",
        ),
        (lambda: model_with(rate_limit=RateLimitConfig(burst=5)), "models[0].rate_limit.burst"),
        (
            lambda: model_with(simulated=SimulatedConfig(script=[ScriptStep(fault="auth", delay=2)])),
            "simulated.script[0].delay",
        ),
        (lambda: config_with(retry_budget=RetryBudgetConfig(enabled=False, initial=3)), "retry_budget.initial"),
        (lambda: config_with(retry_budget=RetryBudgetConfig(initial=200)), "retry_budget.initial"),
        (lambda: config_with(fallback=RouteConfig(name="wizard", strategy="adaptive")), "fallback.strategy"),
        (lambda: RouteConfig(name="r", static_answer=""), "static_answer"),
    ],
)
def test_a_setting_of_code_without_effect_is_refused(maker: Callable[[], object], key: str) -> None:
    """Tables of models and routes alone may hold it, as parts of something; a configuration may not."""
    with pytest.raises(ConfigError) as caught:
        maker()

    assert [problem.key for problem in caught.value.problems] == [key]


def config_with(**tables: Any) -> WizardConfig:  # noqa: ANN401 - each is checked on its way in
    """Return a configuration of one model."""
    return WizardConfig(models=[ModelConfig(name="a", provider="simulated")], **tables)


def model_with(**tables: Any) -> WizardConfig:  # noqa: ANN401 - as above
    """Return a configuration of one model that has `tables`."""
    return WizardConfig(models=[ModelConfig(name="a", provider="simulated", **tables)])


def test_defaults_without_effect_in_some_models_are_no_mistake() -> None:
    """Each model takes what it can use, and its own choice stands against the other way of opening the circuit."""
    config = WizardConfig.from_toml(
        """
        [defaults]
        rate_limit = { burst = 9, queue = 5 }
        circuit_breaker = { failure_rate = 0.5, minimum_calls = 30, window = 7 }
        [[models]]
        name = "a"
        provider = "simulated"
        rate_limit = { requests_per_minute = 60 }
        [[models]]
        name = "b"
        provider = "simulated"
        circuit_breaker = { failure_threshold = 3 }
        """,
        env={},
    )

    a, b = config.models
    assert (a.rate_limit.burst, b.rate_limit.burst, b.rate_limit.queue) == (9, None, 5)
    assert a.circuit_breaker == BreakerConfig(failure_rate=0.5, minimum_calls=30, window=7)
    assert b.circuit_breaker == BreakerConfig(failure_threshold=3, window=7)
    origins = {each.key: each.origin for each in config.effective()}
    assert (origins["models[0].rate_limit.burst"], origins["models[1].rate_limit.burst"]) == ("defaults", "default")


def test_what_a_variable_switches_off_takes_the_files_settings_with_it() -> None:
    """Whoever runs a program can switch a thing off without its file; what a variable itself sets must have effect."""
    text = TWO + "[cache]\nmax_entries = 5\nttl = 9\n[retry_budget]\ninitial = 50\n"
    hedged = text + '[fallback]\nstrategy = "hedged"\nhedge_delay = 1\n'
    env = {
        "WIZARD_CACHE_MAX_ENTRIES": "0",
        "WIZARD_RETRY_BUDGET_ENABLED": "false",
        "WIZARD_FALLBACK_STRATEGY": "sequential",
    }

    config = WizardConfig.from_toml(hedged, env=env)

    assert (config.cache, config.retry_budget) == (CacheConfig(), RetryBudgetConfig(enabled=False))
    assert config.fallback == RouteConfig(name="wizard", chain=["a", "b"])
    assert {each.key: each.origin for each in config.effective()}["cache.ttl"] == "default"
    key, reason, _ = only(ONE, {"WIZARD_DEFAULTS_RATE_LIMIT_BURST": "5"})
    assert key == "defaults.rate_limit.burst"
    assert "WIZARD_DEFAULTS_RATE_LIMIT_BURST" in reason


def test_a_model_that_is_switched_off_leaves_the_routes_as_they_are() -> None:
    """A chain of two models is one of two while one of them is disabled, also when the configuration is changed."""
    config = WizardConfig.from_toml(TWO + 'enabled = false\n[fallback]\nstrategy = "hedged"\n', env={})

    changed = config.changed(cache=CacheConfig(max_entries=1))

    assert (changed.fallback.chain, changed.fallback.strategy) == (("a",), "hedged")


def test_a_value_that_is_wrong_is_not_called_idle_as_well() -> None:
    """One mistake is one problem."""
    assert only(ONE + "[cache]\nttl = -1")[1] == "must be above 0, got -1.0"
    assert only(ONE + "circuit_breaker = { failure_rate = 2, minimum_calls = 5 }")[0].endswith("failure_rate")
