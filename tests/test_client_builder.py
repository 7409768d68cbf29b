"""The builder: what each method sets, that builders never change, and what is refused when a client is built."""

import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from typing import TypeAlias, get_type_hints

import attrs
import pytest

from tests.conversations import Shelf
from wizard_actors.client_builder import ClientBuilder
from wizard_actors.config import (
    BatchConfig,
    BreakerConfig,
    CacheConfig,
    ErrorRetryConfig,
    ModelConfig,
    RetryBudgetConfig,
    RetryConfig,
    RouteConfig,
    Secret,
    StreamConfig,
    TimeoutsConfig,
    WizardConfig,
    keywords,
)
from wizard_actors.config import model as model_tables
from wizard_actors.config import tables as shared_tables
from wizard_actors.config.assembly import EVERY_MODEL, SHARED
from wizard_actors.config.strict import is_seconds, settings
from wizard_actors.errors import ConfigError, EnvVarError
from wizard_actors.event_stream import EventStream
from wizard_actors.providers.base import Answer, Call, Provider
from wizard_actors.storage.memory import MemoryStorage
from wizard_actors.storage.opening import Opener as StorageOpener
from wizard_actors.strategies import Planning, RoutingStrategy

CANARY = "sk-canary-7f3a"
FILE = """
[[models]]
name = "a"
provider = "simulated"
retry = { max_attempts = 4, errors = { parse = { max_attempts = 1 } } }
[[models]]
name = "b"
provider = "simulated"
[fallback]
chain = ["b", "a"]
strategy = "hedged"
hedge_delay = 1
[[routes]]
name = "fast"
chain = ["b"]
[cache]
max_entries = 10
ttl = 5
"""


@attrs.frozen
class Opened:
    """What a client would have been opened with."""

    config: WizardConfig
    rng: Random | None
    events: EventStream | None
    providers: Mapping[str, Provider] | None
    strategies: Mapping[str, RoutingStrategy] | None
    storage: StorageOpener | None


class Backwards:
    """A strategy that nobody asks."""

    def order(self, planning: Planning) -> Sequence[str]:
        """Never."""
        raise NotImplementedError


class Stub:
    """A provider that nobody calls."""

    streams = True

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Never."""
        raise NotImplementedError


@asynccontextmanager
async def opened(
    config: WizardConfig,
    *,
    rng: Random | None = None,
    events: EventStream | None = None,
    providers: Mapping[str, Provider] | None = None,
    strategies: Mapping[str, RoutingStrategy] | None = None,
    storage: StorageOpener | None = None,
) -> AsyncIterator[Opened]:
    """Stand in for `ResilientClient.open`."""
    yield Opened(config, rng, events, providers, strategies, storage)


Builder: TypeAlias = ClientBuilder[AbstractAsyncContextManager[Opened]]


def empty() -> Builder:
    """Return a builder to which nothing was said."""
    return ClientBuilder(open=opened)


def one() -> Builder:
    """Return a builder of one model that needs no network."""
    return empty().with_model(name="a", provider="simulated")


def from_file() -> Builder:
    """Return a builder that starts from a file's settings."""
    return empty().with_config(WizardConfig.from_toml(FILE, env={}))


def loosely(builder: Builder, method: str, *args: object, **given: object) -> Builder:
    """Call a method as a program without a type checker may do."""
    changed = getattr(builder, method)(*args, **given)
    assert isinstance(changed, ClientBuilder)
    return changed


def refused(builder: Builder) -> dict[str, str]:
    """Build what is wrong, and return the problems: key and reason."""
    with pytest.raises(ConfigError) as caught:
        builder.build()
    return {problem.key: problem.reason for problem in caught.value.problems}


# -- every method -------------------------------------------------------------------------------------------------


async def test_a_built_client_gets_everything() -> None:
    """`build` returns what `open` returns, with configuration, events, random numbers, providers and strategies."""
    events, rng, providers, strategies = EventStream(), Random(1), {"a": Stub()}, {"backwards": Backwards()}
    builder = one().with_events(events).with_rng(rng).with_providers(providers).with_strategies(strategies)
    builder = builder.with_storage(MemoryStorage.open)

    async with builder.build() as client:
        assert client.config == WizardConfig(models=[ModelConfig(name="a", provider="simulated")])
        assert (client.rng, client.events) == (rng, events)
        assert (client.providers, client.strategies, client.storage) == (providers, strategies, MemoryStorage.open)
    async with one().build() as client:
        assert (client.rng, client.events, client.providers, client.strategies) == (None, None, None, None)


def test_every_table_of_the_configuration_has_a_method() -> None:
    """Whatever a file can say, code can: the tables that exist once, those of every model, models and routes."""
    of_models = {"models": "with_model", "routes": "with_route"}
    for name in attrs.fields_dict(WizardConfig):
        if not name.startswith("_"):
            assert hasattr(ClientBuilder, of_models.get(name, f"with_{name}")), name
    assert set(EVERY_MODEL) <= set(attrs.fields_dict(ModelConfig))
    for name in (*EVERY_MODEL, *SHARED):
        assert hasattr(ClientBuilder, f"with_{name}"), name


def test_the_methods_take_every_setting() -> None:
    """What type checkers know of the keyword arguments is what the tables hold; durations may be texts."""
    tables = {**vars(model_tables), **vars(shared_tables)}
    missing = {"RouteSettings": {"name"}}
    checked = [name for name in keywords.__all__ if name != "Duration"]
    for name in checked:
        table = tables[name.replace("Settings", "Config")]
        hints = get_type_hints(getattr(keywords, name))
        fields = {each.name: each for each in settings(table)}
        assert set(hints) == fields.keys() - missing.get(name, set()), name
        for key, hint in hints.items():
            assert ("str" in str(hint)) or not is_seconds(fields[key].type), (name, key)
    assert len(checked) == 20


@pytest.mark.parametrize(
    ("method", "given", "field", "expected"),
    [
        ("with_stream", {"delivery": "buffered", "consumer_idle": "2m"}, "stream.consumer_idle", 120.0),
        ("with_cache", {"max_entries": 5, "ttl": "2h"}, "cache.ttl", 7200.0),
        ("with_sessions", {"expire_idle": "1h"}, "sessions.expire_idle", 3600.0),
        ("with_batch", {"max_concurrency": 2}, "batch.max_concurrency", 2),
        ("with_server", {"max_in_flight": 5}, "server.max_in_flight", 5),
        ("with_logging", {"level": "DEBUG"}, "logging.level", "DEBUG"),
        ("with_telemetry", {"otel": True}, "telemetry.otel", True),
        ("with_supervision", {"mailbox": 9}, "supervision.mailbox", 9),
        ("with_retry_budget", {"initial": 3}, "retry_budget.initial", 3.0),
        ("with_fallback", {"strategy": "hedged", "hedge_delay": "250ms"}, "fallback.hedge_delay", 0.25),
        ("with_timeouts", {"first_token": "10s"}, "models[0].timeouts.first_token", 10.0),
        ("with_retry", {"max_attempts": 5}, "models[0].retry.max_attempts", 5),
        ("with_circuit_breaker", {"open_for": "5s"}, "models[0].circuit_breaker.open_for", 5.0),
        ("with_rate_limit", {"requests_per_minute": 60}, "models[0].rate_limit.requests_per_minute", 60.0),
    ],
)
def test_each_method_sets_its_table(method: str, given: dict[str, object], field: str, expected: object) -> None:
    """Settings come as in a file, and the others keep their defaults."""
    models = one().with_model(name="b", provider="simulated") if "strategy" in given else one()

    config = getattr(models, method)(**given).config()

    changed = {each.key: each.value for each in config.effective() if each.origin == "code"}
    assert changed[field] == expected
    always = {f"models[{index}].{key}" for index in (0, 1) for key in ("name", "provider", "simulated.answer")}
    always.add("fallback.name")
    table = field.rpartition(".")[0]
    assert changed.keys() - always - {"fallback.chain"} == {f"{table}.{key}" for key in given}


def test_a_method_takes_a_whole_table() -> None:
    """The values that files are read into work too."""
    config = (
        one()
        .with_model(ModelConfig(name="b", provider="simulated"))
        .with_retry(RetryConfig(max_attempts=7))
        .with_stream(StreamConfig(delivery="buffered"))
        .config()
    )

    assert [model.retry for model in config.models] == [RetryConfig(max_attempts=7)] * 2
    assert config.stream == StreamConfig(delivery="buffered")


def test_models_are_tried_in_the_order_in_which_they_were_added() -> None:
    """Unless a chain says otherwise."""
    builder = one().with_model(
        name="b", provider="simulated", timeouts={"stall": "9s"}, price={"input": 1, "output": 2}
    )

    assert builder.config().fallback.chain == ("a", "b")
    assert builder.config().model("b").timeouts.stall == 9.0
    assert builder.with_fallback("b", "a", strategy="adaptive").config().fallback == RouteConfig(
        name="wizard", chain=["b", "a"], strategy="adaptive"
    )


def test_routes_are_added_by_name() -> None:
    """Each with its own chain and strategy; without a chain it has all models."""
    config = one().with_route("fast", "a", spill=True).with_route("all", static_answer="Sorry").config()

    assert config.route("fast") == RouteConfig(name="fast", chain=["a"], spill=True)
    assert config.route("all") == RouteConfig(name="all", chain=["a"], static_answer="Sorry")


def test_what_is_for_every_model_leaves_a_models_own_settings() -> None:
    """As `[defaults]` in a file: key by key, in whatever order the methods are called."""
    every = empty().with_retry(max_attempts=9, base_delay=1).with_timeouts(TimeoutsConfig(stall=3))
    builder = (
        every.with_model(name="a", provider="simulated", retry={"max_attempts": 3}, timeouts=TimeoutsConfig(total=7))
        .with_model(ModelConfig(name="b", provider="simulated", retry=RetryConfig(base_delay=4)))
        .with_model(name="c", provider="simulated")
    )

    a, b, c = builder.config().models
    assert (a.retry.max_attempts, a.retry.base_delay) == (3, 1.0)
    assert (a.timeouts.stall, a.timeouts.total) == (3.0, 7.0)
    assert (b.retry.max_attempts, b.retry.base_delay) == (9, 4.0)
    assert (c.retry.max_attempts, c.retry.base_delay) == (9, 1.0)


# -- over a file --------------------------------------------------------------------------------------------------


def test_methods_replace_single_settings_of_a_file() -> None:
    """What is not given stays, also in the same table."""
    config = from_file().with_retry(base_delay=2).with_cache(ttl="10s").with_route("fast", spill=True).config()

    a, b = config.models
    assert (a.retry.max_attempts, a.retry.base_delay, b.retry.base_delay) == (4, 2.0, 2.0)
    assert a.retry.errors == {"parse": ErrorRetryConfig(max_attempts=1)}
    assert config.cache == CacheConfig(max_entries=10, ttl=10)
    assert config.route("fast") == RouteConfig(name="fast", chain=["b"], spill=True)
    assert config.fallback.chain == ("b", "a")


def test_a_files_path_is_read_when_the_client_is_built(tmp_path: Path) -> None:
    """So that a builder may be made before the file."""
    builder = empty().with_config(tmp_path / "wizard.toml")

    with pytest.raises(ConfigError, match="there is no such file"):
        builder.build()
    (tmp_path / "wizard.toml").write_text(FILE)
    assert builder.config().cache.max_entries == 10
    assert empty().with_config(str(tmp_path / "wizard.toml")).config() == builder.config()


def test_where_a_setting_came_from_is_still_told() -> None:
    """What a method gave is code's, the rest is the file's."""
    config = from_file().with_cache(ttl=9).with_model(name="c", provider="simulated").config()

    origins = {each.key: each.origin for each in config.effective()}
    assert (origins["cache.ttl"], origins["cache.max_entries"], origins["cache.max_bytes"]) == (
        "code",
        "file",
        "default",
    )
    assert (origins["models[0].name"], origins["models[2].name"], origins["models[2].upstream"]) == (
        "model",
        "code",
        "default",
    )


def test_a_model_more_joins_the_routes_that_have_all_models() -> None:
    """Where a file gives a chain, that stays."""
    models = '[[models]]\nname = "a"\nprovider = "simulated"\n'
    file = models + '[[routes]]\nname = "r"\nchain = ["a"]\n[[routes]]\nname = "s"\n'
    base = WizardConfig.from_toml(file, env={})

    config = empty().with_config(base).with_model(name="b", provider="simulated").config()

    assert [route.chain for route in (config.fallback, *config.routes)] == [("a", "b"), ("a",), ("a", "b")]


def test_another_strategy_takes_the_files_hedges_with_it() -> None:
    """They would have no effect, and nobody gave them to the builder."""
    assert from_file().with_fallback(strategy="adaptive").config().fallback == RouteConfig(
        name="wizard", chain=["b", "a"], strategy="adaptive"
    )
    assert from_file().with_fallback("a", "b").config().fallback.hedge_delay == 1.0


def test_what_a_method_switches_off_takes_the_files_settings_with_it() -> None:
    """They would have no effect, and nobody gave them to the builder."""
    file = """
        [[models]]
        name = "a"
        provider = "simulated"
        circuit_breaker = { failure_rate = 0.5, minimum_calls = 9, window = 5 }
        [retry_budget]
        initial = 50
        """
    builder = empty().with_config(WizardConfig.from_toml(file, env={}))

    config = builder.with_retry_budget(enabled=False).with_circuit_breaker(failure_threshold=3).config()

    assert config.retry_budget == RetryBudgetConfig(enabled=False)
    assert config.model("a").circuit_breaker == BreakerConfig(failure_threshold=3, window=5)
    assert from_file().with_cache(max_entries=0).config().cache == CacheConfig()


def test_what_is_for_every_model_goes_to_those_that_it_has_an_effect_in() -> None:
    """As `[defaults]`: nothing is refused because of a model that it cannot concern."""
    limited = one().with_model(name="b", provider="simulated", rate_limit={"requests_per_minute": 60})
    rated = limited.with_model(name="c", provider="simulated", circuit_breaker={"failure_rate": 0.5})

    config = rated.with_rate_limit(burst=9).with_circuit_breaker(failure_threshold=3, window=7).config()

    assert [model.rate_limit.burst for model in config.models] == [None, 9, None]
    assert [model.circuit_breaker.failure_threshold for model in config.models] == [3, 3, 5]
    assert {model.circuit_breaker.window for model in config.models} == {7.0}


def test_a_route_is_named_by_keyword_too() -> None:
    """With its chain by keyword then."""
    config = one().with_route(name="fast", chain=["a"], spill=True).config()

    assert config.route("fast") == RouteConfig(name="fast", chain=["a"], spill=True)


def test_without_any_model_the_environments_keys_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a file; other settings apply to what is found."""
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(EnvVarError, match="OPENAI_API_KEY"):
        empty().build()

    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    config = empty().with_retry(max_attempts=2).config()
    assert [(model.name, model.retry.max_attempts) for model in config.models] == [("openai", 2)]


# -- builders never change ----------------------------------------------------------------------------------------


def test_a_branch_does_not_change_the_other() -> None:
    """Two builders from one have nothing in common but what it had."""
    trunk = one().with_retry(max_attempts=2)
    left = trunk.with_cache(max_entries=1).with_route("left", "a").with_retry(base_delay=1)
    right = trunk.with_cache(max_entries=2).with_model(name="b", provider="simulated").with_rng(Random(1))

    assert trunk.config() == one().with_retry(max_attempts=2).config()
    assert (left.config().cache.max_entries, right.config().cache.max_entries) == (1, 2)
    assert ([route.name for route in left.config().routes], right.config().routes) == (["left"], ())
    assert (len(left.config().models), len(right.config().models)) == (1, 2)
    assert (left.config().model("a").retry.base_delay, right.config().model("a").retry.base_delay) == (1.0, 0.5)


def test_no_method_changes_its_builder() -> None:
    """Each returns another one, and a builder's fields cannot be set."""
    builder = one()
    before = repr(builder)
    calls: list[Callable[[], object]] = [
        lambda: builder.with_config(WizardConfig.from_toml(FILE, env={})),
        lambda: builder.with_model(name="b", provider="simulated"),
        lambda: builder.with_fallback("a"),
        lambda: builder.with_route("r", "a"),
        lambda: builder.with_cache(max_entries=1),
        lambda: builder.with_rng(Random(1)),
        lambda: builder.with_events(EventStream()),
        lambda: builder.with_providers({}),
        lambda: builder.with_batch(BatchConfig(max_concurrency=1)),
    ]
    assert all(call() is not builder for call in calls)
    assert repr(builder) == before
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        builder._rng = Random(1)  # type: ignore[misc]  # that it cannot be is what is tested


def test_a_builder_shows_its_methods_and_no_value() -> None:
    """A header may hold a key."""
    builder = (
        empty()
        .with_model(name="a", provider="openai", headers={"X": CANARY, "Y": Secret(CANARY)})
        .with_retry(max_attempts=2)
        .with_route("fast", "a")
        .with_rng(Random(1))
    )

    assert repr(builder) == "ClientBuilder(with_model('a'), with_retry(), with_route('fast'), with_rng())"
    assert CANARY not in repr(builder._parts)


# -- what is refused ----------------------------------------------------------------------------------------------


def test_everything_wrong_is_told_at_once_with_its_method() -> None:
    """Values, names and contradictions: one error, when the client is built and not before."""
    builder = (
        one()
        .with_model(name="a", provider="simulated", max_concurrency=0)
        .with_retry(max_attempts=0)
        .with_fallback("a", "nobody", "a")
        .with_route("r", "b", hedge_delay=1)
        .with_cache(max_entries=1)
        .with_cache(max_entries=2)
        .with_stream(consumer_idle="soon")
        .with_providers({"z": Stub()})
    )

    assert refused(builder).keys() == {
        "with_model('a').max_concurrency",
        "with_model('a').name",
        "with_retry().max_attempts",
        "with_fallback().chain[1]",
        "with_fallback().chain[2]",
        "with_route('r').chain[0]",
        "with_route('r').hedge_delay",
        "with_cache().max_entries",
        "with_stream().consumer_idle",
        "with_providers()",
    }


@pytest.mark.parametrize(
    ("builder", "key", "reason"),
    [
        (lambda: one().with_retry(max_attempts=2).with_retry(max_attempts=3), "with_retry().max_attempts", "twice"),
        (lambda: one().with_retry(RetryConfig()).with_retry(max_attempts=2), "with_retry().max_attempts", "twice"),
        (lambda: one().with_retry(RetryConfig(), max_attempts=2), "with_retry().max_attempts", "twice"),
        (lambda: one().with_fallback("a").with_fallback("a", "b"), "with_fallback().chain", "twice"),
        (lambda: one().with_route("r", "a").with_route("r", "b"), "with_route('r').chain", "twice"),
        (lambda: one().with_rng(Random(1)).with_rng(Random(2)), "with_rng()", "twice"),
        (lambda: one().with_events(EventStream()).with_events(EventStream()), "with_events()", "twice"),
        (lambda: one().with_storage(MemoryStorage.open).with_storage(Shelf().open), "with_storage()", "twice"),
        (
            lambda: one().with_strategies({"x": Backwards()}).with_strategies({"x": Backwards()}),
            "with_strategies()['x']",
            "twice",
        ),
        (
            lambda: one().with_providers({"a": Stub()}).with_providers({"a": Stub()}),
            "with_providers()['a']",
            "twice",
        ),
        (lambda: from_file().with_config("wizard.toml"), "with_config()", "twice"),
        (lambda: from_file().with_model(name="a", provider="simulated"), "with_model('a').name", "as is `models[0]"),
        (lambda: one().with_model(name="wizard", provider="simulated"), "with_model('wizard').name", "default route"),
        (lambda: one().with_route("wizard", "a"), "with_route('wizard').name", "default route"),
        (lambda: one().with_route("a"), "with_route('a').name", "as is `with_model('a').name`"),
        (lambda: one().with_route(" "), "with_route(' ').name", "must not be empty"),
        (lambda: one().with_fallback(hedge_delay=2), "with_fallback().hedge_delay", "no effect"),
        (lambda: one().with_fallback(hedge_delay=3), "with_fallback().hedge_delay", "no effect"),
        (lambda: one().with_cache(ttl="1h"), "with_cache()", "leaves the cache off"),
        (lambda: one().with_cache(stale_if_error=5), "with_cache()", "leaves the cache off"),
        (lambda: one().with_cache(max_entries=0, stale_if_error=5), "with_cache().stale_if_error", "no effect"),
        (lambda: from_file().with_cache(max_entries=0, stale_if_error=5), "with_cache().stale_if_error", "no effect"),
        (lambda: loosely(one(), "with_retry", max_atempts=2), "with_retry().max_atempts", "is unknown"),
        (
            lambda: one().with_retry(errors={"network": {"max_attempts": 0}}),
            "with_retry().errors.network.max_attempts",
            "1",
        ),
        (lambda: loosely(one(), "with_fallback", name="x"), "with_fallback().name", "is unknown"),
        (lambda: one().with_route("r", "a", chain=["b"]), "with_route('r').chain", "twice"),
        (lambda: one().with_fallback("a", chain=["b"]), "with_fallback().chain", "twice"),
        (lambda: one().with_model(name="a", provider="simulated"), "with_model('a').name", "the name of two models"),
        (lambda: loosely(empty(), "with_config", None), "with_config()", "or the path of a file, got nothing"),
        (lambda: loosely(one(), "with_config", 5), "with_config()", "or the path of a file, got 5"),
        (lambda: loosely(one(), "with_rng", 5), "with_rng()", "must get a random.Random, got 5"),
        (lambda: loosely(one(), "with_events", 5), "with_events()", "must get an EventStream, got 5"),
        (lambda: loosely(one(), "with_providers", 5), "with_providers()", "must get a mapping"),
        (lambda: loosely(one(), "with_strategies", 5), "with_strategies()", "must get a mapping"),
        (lambda: loosely(one(), "with_providers", {"a": 5}), "with_providers()['a']", "must get a provider"),
        (
            lambda: loosely(one(), "with_circuit_breaker", enabled=False),
            "with_circuit_breaker().enabled",
            "is unknown",
        ),
        (lambda: one().with_rate_limit(burst=2), "with_rate_limit().burst", "without `requests_per_minute`"),
        (
            lambda: one().with_circuit_breaker(failure_rate=0.5, failure_threshold=3),
            "with_circuit_breaker().failure_threshold",
            "beside `failure_rate`",
        ),
        (
            lambda: empty().with_model(name="a", provider="simulated", circuit_breaker={"minimum_calls": 5}),
            "with_model('a').circuit_breaker.minimum_calls",
            "without `failure_rate`",
        ),
        (lambda: one().with_retry_budget(enabled=False, initial=5), "with_retry_budget().initial", "budget is off"),
        (lambda: one().with_retry_budget(initial=50, max=20), "with_retry_budget().initial", "at most `max`"),
        (lambda: one().with_fallback(strategy="adaptive"), "with_fallback().strategy", "one model"),
        (lambda: one().with_route("r", strategy="parallel"), "with_route('r').strategy", "one model"),
        (lambda: from_file().with_fallback(strategy="cheapest"), "with_fallback().strategy", "has a price"),
        (lambda: one().with_fallback(static_answer=""), "with_fallback().static_answer", "must not be empty"),
        (lambda: one().with_cache(max_entries=0, ttl=5), "with_cache().ttl", "cache is off"),
        (lambda: loosely(empty(), "with_model", name="a"), "with_model('a').provider", "is required"),
        (lambda: loosely(empty(), "with_model"), "with_model().name", "is required"),
        (lambda: empty().with_model(name="a", provider="simulated", enabled=False), "models", "all disabled"),
    ],
)
def test_a_contradiction_is_refused(builder: Callable[[], Builder], key: str, reason: str) -> None:
    """The problem names the method and the setting."""
    assert reason in refused(builder())[key]


def test_equal_settings_may_be_given_again() -> None:
    """Also in another notation: parts of a program may each say what they need."""
    builder = one().with_timeouts(stall="30s").with_timeouts(stall=30).with_timeouts(total=9)
    rng = Random(1)

    assert builder.with_rng(rng).with_rng(rng).config().models[0].timeouts == TimeoutsConfig(stall=30, total=9)
    assert from_file().with_config(WizardConfig.from_toml(FILE, env={})).config().cache.max_entries == 10


def test_models_of_a_group_that_differ_are_named_by_their_method() -> None:
    """Both models stand in the problem; limits for every model make them equal."""
    builder = empty()
    for name, burst in (("a", 1), ("b", 2)):
        builder = builder.with_model(name=name, provider="simulated", rate_limit_group="g", rate_limit={"burst": burst})

    assert "'a'" in refused(builder)["with_model('b').rate_limit"]


def test_a_model_is_given_whole_or_in_parts() -> None:
    """A call that means two things is a bug of the calling program, told at once."""
    with pytest.raises(TypeError, match="takes a ModelConfig, or the settings"):
        loosely(empty(), "with_model", ModelConfig(name="a", provider="simulated"), enabled=False)


def test_methods_say_what_they_set() -> None:
    """Each has a docstring, and returns the builder's own type."""
    methods = [method for name, method in inspect.getmembers(ClientBuilder, callable) if name.startswith("with_")]
    assert len(methods) == len(EVERY_MODEL) + len(SHARED) + 9
    assert all(method.__doc__ for method in methods)
