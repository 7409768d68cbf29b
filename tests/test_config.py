"""Settings: what a file, the environment and code may give, what comes of it, and that no secret shows."""

import copy
import pickle
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest

from wizard_actors.config import (
    BatchConfig,
    BreakerConfig,
    CacheConfig,
    ErrorRetryConfig,
    LocalConfig,
    LoggingConfig,
    ModelConfig,
    PriceConfig,
    RetriedError,
    RetryConfig,
    RouteConfig,
    Secret,
    ServerConfig,
    SessionsConfig,
    SimulatedConfig,
    SupportsConfig,
    TimeoutsConfig,
    WizardConfig,
    split_address,
)
from wizard_actors.errors import ConfigError, EnvVarError, ProviderError, ProviderTimeoutError, TimeoutPhase
from wizard_actors.verdict import Again

CANARY = "sk-canary-7f3a"
ONE = '[[models]]\nname = "a"\nprovider = "simulated"\n'


def load(text: str, env: Mapping[str, str] | None = None) -> WizardConfig:
    """Load `text` as the file wizard.toml, in an environment of its own."""
    return WizardConfig.from_toml(text, "wizard.toml", env or {})


def origins(config: WizardConfig) -> dict[str, str]:
    """Return the origin of every setting by its key."""
    return {each.key: each.origin for each in config.effective()}


# -- files ----------------------------------------------------------------------------------------------------


def test_a_name_and_a_provider_are_enough() -> None:
    """Every other setting has the default that the reference states."""
    model = load(ONE).model("a")

    assert model.model == "a"
    assert model.max_concurrency == 32
    assert model.timeouts == TimeoutsConfig(connect=5, first_token=60, stall=30, total=300)
    assert (model.retry.max_attempts, model.retry.base_delay, model.retry.max_delay) == (3, 0.5, 8.0)
    assert model.circuit_breaker == BreakerConfig(failure_threshold=5, window=60, open_for=30, success_threshold=2)
    assert model.rate_limit.adaptive
    assert model.upstream == "auto"


def test_a_file_on_disk_is_loaded(tmp_path: Path) -> None:
    """`load` reads the file, with Windows' line ends too."""
    file = tmp_path / "wizard.toml"
    file.write_bytes(ONE.replace("\n", "\r\n").encode())

    assert WizardConfig.load(file, env={}) == load(ONE)
    assert WizardConfig.load(str(file), env={}) == load(ONE)


def test_the_designs_example_loads() -> None:
    """The file that the design shows is understood, value by value."""
    config = load(
        """
        [defaults]
        timeouts = { connect = 5, first_token = 60, stall = 30, total = 300 }
        retry = { max_attempts = 3, base_delay = 0.5, max_delay = 8 }
        circuit_breaker = { failure_threshold = 5, window = 60, open_for = 30, success_threshold = 2 }

        [[models]]
        name = "primary"
        provider = "openai"
        model = "gpt-5-mini"
        base_url = "http://127.0.0.1:8123/v1"
        api_key_env = "OPENAI_API_KEY"
        max_concurrency = 32
        rate_limit = { requests_per_minute = 500, tokens_per_minute = 200_000, burst = 10, adaptive = true }
        timeouts = { first_token = 10 }

        [[models]]
        name = "backup"
        provider = "anthropic"

        [fallback]
        strategy = "sequential"
        chain = ["primary", "backup"]
        [[routes]]
        name = "fast"
        chain = ["backup"]

        [cache]
        [sessions]
        storage = "sqlite:wizard.db"
        [stream]
        [server]
        drain_timeout = 10
        [logging]
        """,
        {"OPENAI_API_KEY": CANARY},
    )

    primary = config.model("primary")
    assert primary.base_url == "http://127.0.0.1:8123/v1"
    assert primary.rate_limit.tokens_per_minute == 200_000.0
    assert primary.timeouts == TimeoutsConfig(connect=5, first_token=10, stall=30, total=300)
    assert config.route("wizard").chain == ("primary", "backup")
    assert config.route("fast").chain == ("backup",)
    assert config.sessions.storage == "sqlite:wizard.db"


def test_defaults_are_merged_key_by_key() -> None:
    """A model's own table replaces the keys that it names, at any depth, and no others."""
    config = load(
        """
        [defaults]
        max_concurrency = 4
        timeouts = { stall = "1m", total = "5m" }
        headers = { X-Team = "red", X-App = "wizard" }
        extra = { options = { seed = 1, top_k = 2 } }
        [[models]]
        name = "a"
        provider = "openai"
        timeouts = { total = 10 }
        headers = { X-Team = "blue" }
        extra = { options = { seed = 3 } }
        [[models]]
        name = "b"
        provider = "openai"
        max_concurrency = 5
        """
    )

    a, b = config.models
    assert (a.max_concurrency, b.max_concurrency) == (4, 5)
    assert (a.timeouts.stall, a.timeouts.total, b.timeouts.total) == (60.0, 10.0, 300.0)
    assert {name: value.reveal() for name, value in a.headers.items()} == {"X-Team": "blue", "X-App": "wizard"}
    assert a.extra == {"options": {"seed": 3, "top_k": 2}}


def test_policies_for_errors_are_merged_key_by_key() -> None:
    """A model adds to the policies of `[defaults]`, down to a single number."""
    config = load(
        """
        [defaults.retry]
        errors = { overloaded = { max_attempts = 5, base_delay = "2s" }, parse = { max_attempts = 1 } }
        [[models]]
        name = "a"
        provider = "openai"
        retry = { errors = { overloaded = { max_attempts = 6 }, timeout = { max_delay = 9 } } }
        [[models]]
        name = "b"
        provider = "openai"
        """
    )

    a, b = config.models
    shared: Mapping[RetriedError, ErrorRetryConfig] = {
        "overloaded": ErrorRetryConfig(max_attempts=5, base_delay=2),
        "parse": ErrorRetryConfig(max_attempts=1),
    }
    assert b.retry == RetryConfig(errors=shared)
    assert a.retry.errors == {
        **shared,
        "overloaded": ErrorRetryConfig(max_attempts=6, base_delay=2),
        "timeout": ErrorRetryConfig(max_delay=9),
    }
    found = origins(config)
    assert found["models[0].retry.errors.overloaded.max_attempts"] == "model"
    assert found["models[0].retry.errors.overloaded.base_delay"] == "defaults"
    assert found["models[0].retry.errors.overloaded.max_delay"] == "default"


def test_the_errors_with_a_policy_are_those_that_are_retried() -> None:
    """The codes that a file may name are the verdict table's: what is sent, fails, and may be asked again."""
    retried = {Again.AFTER_DELAY, Again.REACQUIRE, Again.IF_LAST}
    kinds: list[type[ProviderError]] = [ProviderError, *ProviderError.__subclasses__()]
    kinds.remove(ProviderTimeoutError)
    samples = [kind("x", model="m") for kind in kinds]
    samples += [ProviderTimeoutError("x", model="m", phase=phase) for phase in get_args(TimeoutPhase)]

    assert {error.code for error in samples if error.verdict.again in retried} == set(get_args(RetriedError))


def test_after_an_error_its_own_policy_holds() -> None:
    """Key by key over the model's, and for no other error."""
    config = RetryConfig(base_delay=1, errors={"overloaded": ErrorRetryConfig(max_attempts=5, max_delay=60)})

    after = config.after("overloaded")
    assert (after.max_attempts, after.base_delay, after.max_delay) == (5, 1.0, 60.0)
    assert config.after("network") is config


def test_a_model_supports_everything_unless_it_says_otherwise() -> None:
    """What it cannot do may stand in `[defaults]` as well."""
    config = load(f"[defaults.supports]\nimages = false\n{ONE}supports = {{ schema = false }}")

    assert load(ONE).model("a").supports == SupportsConfig(tools=True, images=True, schema=True)
    assert config.model("a").supports == SupportsConfig(images=False, schema=False)


def test_a_batch_asks_eight_at_once() -> None:
    """Unless the file or a variable says otherwise."""
    assert load(ONE).batch == BatchConfig(max_concurrency=8)
    assert load(ONE, {"WIZARD_BATCH_MAX_CONCURRENCY": "3"}).batch.max_concurrency == 3


def test_a_models_own_key_replaces_the_default_one_of_the_other_kind(tmp_path: Path) -> None:
    """A variable in `[defaults]` does not collide with a model's key file, nor burden a model that needs no key."""
    (tmp_path / "key").write_text(f"{CANARY}\n")

    config = load(
        f"""
        [defaults]
        api_key_env = "SHARED"
        simulated = {{ answer = "hello" }}
        [[models]]
        name = "a"
        provider = "openai"
        [[models]]
        name = "b"
        provider = "openai"
        api_key_file = '{tmp_path / "key"}'
        [[models]]
        name = "c"
        provider = "simulated"
        """,
        {"SHARED": " shared-key\n"},
    )

    keys = [model.api_key() for model in config.models]
    assert [None if key is None else key.reveal() for key in keys] == ["shared-key", CANARY, None]
    assert [model.simulated for model in config.models] == [None, None, SimulatedConfig(answer="hello")]


def test_chains_are_spelled_out() -> None:
    """A route without a chain has the enabled models in the file's order; a disabled model keeps its place in one."""
    config = load(
        ONE
        + '[[models]]\nname = "b"\nprovider = "local"\nenabled = false\n'
        + '[[models]]\nname = "c"\nprovider = "simulated"\n'
        + '[[routes]]\nname = "all"\n[[routes]]\nname = "some"\nchain = ["c", "b"]\n'
    )

    assert config.fallback.chain == ("a", "c")
    assert config.route("all").chain == ("a", "c")
    assert config.route("some").chain == ("c", "b")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("0.25", 0.25), ("5", 5.0), ('"250ms"', 0.25), ('"30s"', 30), ('"1.5m"', 90), ('"2h"', 7200), ('"7d"', 604800)],
)
def test_durations_are_seconds_or_texts_with_a_unit(written: str, seconds: float) -> None:
    """A duration is a number of seconds, or a text with one unit."""
    assert load(f"{ONE}timeouts = {{ total = {written} }}").model("a").timeouts.total == seconds


def test_prices_are_exact() -> None:
    """0.1 in the file is a tenth of a dollar, not the nearest binary fraction."""
    price = load(f"{ONE}price = {{ input = 0.1, output = 2 }}").model("a").price

    assert price == PriceConfig(input=Decimal("0.1"), output=Decimal(2))


def test_a_simulated_model_has_its_table_and_an_answer_that_names_it() -> None:
    """Whoever builds the provider finds a complete table, and the answer tells two models apart."""
    simulated = load(ONE).model("a").simulated

    assert simulated is not None
    assert "the model a " in simulated.answer
    assert load(ONE.replace('"simulated"', '"local"')).model("a").local == LocalConfig()


def test_a_base_url_loses_its_last_slash() -> None:
    """Paths can be appended to it."""
    assert load(f'{ONE}base_url = "http://127.0.0.1:1/v1/"').model("a").base_url == "http://127.0.0.1:1/v1"


def test_paths_may_start_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tilde is the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text(CANARY)

    assert load(f'{ONE}api_key_file = "~/key"').model("a").api_key_file == tmp_path / "key"


def test_unknown_names_are_answered_with_what_there_is() -> None:
    """Asking for a model or a route that does not exist says which ones do."""
    config = load(ONE)

    with pytest.raises(ConfigError, match=r"none named 'b'.*there are: a"):
        config.model("b")
    with pytest.raises(ConfigError, match="did you mean 'wizard'"):
        config.route("wizzard")


# -- the environment ------------------------------------------------------------------------------------------


def test_variables_override_the_file() -> None:
    """WIZARD_<SECTION>_<KEY> beats the file, in the types of the file."""
    config = load(
        ONE + ONE.replace('"a"', '"b"') + '[logging]\nlevel = "INFO"\n[stream]\ndelivery = "live"\n',
        {
            "WIZARD_LOGGING_LEVEL": "DEBUG",
            "WIZARD_LOGGING_LOG_CONTENT": "true",
            "WIZARD_STREAM_DELIVERY": "buffered",
            "WIZARD_STREAM_CONSUMER_IDLE": "2m",
            "WIZARD_SERVER_MAX_IN_FLIGHT": "5",
            "WIZARD_SESSIONS_EXPIRE_IDLE": "1.5",
            "WIZARD_RETRY_BUDGET_DEPOSIT": "0.5",
            "WIZARD_FALLBACK_STRATEGY": "hedged",
            "WIZARD_DEFAULTS_TIMEOUTS_TOTAL": "20",
            "WIZARD_CONFIG": "elsewhere.toml",
            "PATH": "/bin",
        },
    )

    assert config.logging == LoggingConfig(level="DEBUG", log_content=True)
    assert (config.stream.delivery, config.stream.consumer_idle) == ("buffered", 120.0)
    assert config.server.max_in_flight == 5
    assert config.sessions.expire_idle == 1.5
    assert config.retry_budget.deposit == 0.5
    assert config.fallback.strategy == "hedged"
    assert config.model("a").timeouts.total == 20.0


def test_a_models_own_table_beats_a_variable_for_the_defaults() -> None:
    """A variable stands for the same key of `[defaults]`, and gives way as that does."""
    config = load(f"{ONE}timeouts = {{ total = 7 }}", {"WIZARD_DEFAULTS_TIMEOUTS_TOTAL": "20"})

    assert config.model("a").timeouts.total == 7.0


def test_keys_in_the_environment_make_a_chain() -> None:
    """Each provider whose key is there is asked, in a fixed order, OpenAI at its own base URL."""
    env = {
        "GOOGLE_API_KEY": "g",
        "GEMINI_API_KEY": "h",
        "ANTHROPIC_API_KEY": "",
        "OPENAI_API_KEY": CANARY,
        "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
        "WIZARD_LOGGING_FORMAT": "json",
    }

    config = WizardConfig.from_env(env)

    assert config.fallback.chain == ("openai", "gemini")
    assert config.model("openai").base_url == "http://127.0.0.1:1/v1"
    assert config.model("openai").api_key() == Secret(CANARY)
    assert config.model("gemini").api_key_env == "GEMINI_API_KEY"
    assert config.logging.format == "json"


def test_an_environment_without_keys_makes_no_chain() -> None:
    """The error names every variable that would have done."""
    with pytest.raises(EnvVarError, match=r"OPENAI_API_KEY.*GOOGLE_API_KEY") as caught:
        WizardConfig.from_env({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"})

    assert caught.value.variable == "OPENAI_API_KEY"


def test_this_processs_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `env` the variables of the process count, at the time when they are read."""
    monkeypatch.setenv("CANARY_KEY", "first")
    monkeypatch.setenv("WIZARD_LOGGING_LEVEL", "ERROR")
    text = '[[models]]\nname = "a"\nprovider = "openai"\napi_key_env = "CANARY_KEY"\n'

    config = WizardConfig.from_toml(text)
    monkeypatch.setenv("CANARY_KEY", "second")

    assert config.logging.level == "ERROR"
    assert config.model("a").api_key() == Secret("second")


def test_a_key_that_vanished_is_an_error_when_it_is_read() -> None:
    """Between loading and building a variable may go; the error names it, not its value."""
    env = {"CANARY_KEY": CANARY}
    config = load('[[models]]\nname = "a"\nprovider = "openai"\napi_key_env = "CANARY_KEY"\n', env)
    del env["CANARY_KEY"]

    with pytest.raises(EnvVarError, match="CANARY_KEY, which is not set"):
        config.model("a").api_key()


# -- code -----------------------------------------------------------------------------------------------------


def test_code_may_give_lists_numbers_and_plain_texts() -> None:
    """What code gives becomes what a file would have given."""
    made = WizardConfig(
        models=[
            ModelConfig(
                name="a",
                provider="openai",
                timeouts=TimeoutsConfig(total=7),
                headers={"X-Team": "red"},
                price=PriceConfig(input=1, output=0.5),
                ca_file="ca.pem",
                extra={"stop": ("a", "b")},
            )
        ],
        routes=[RouteConfig(name="fast", chain=["a"])],
    )

    model = made.model("a")
    assert isinstance(made.models, tuple)
    assert made.route("fast").chain == ("a",)
    assert isinstance(model.timeouts.total, float)
    assert model.headers["X-Team"] == Secret("red")
    assert model.price == PriceConfig(input=Decimal(1), output=Decimal("0.5"))
    assert model.ca_file == Path("ca.pem")
    assert model.extra == {"stop": ["a", "b"]}
    assert model.api_key() is None


def test_settings_are_frozen() -> None:
    """Nobody changes a configuration under a running client."""
    config = load(ONE)

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.cache.ttl = 5.0  # type: ignore[misc]  # that it cannot be is what is tested


def test_evolving_checks_again() -> None:
    """`attrs.evolve` gives another configuration, or a ConfigError."""
    config = load(ONE)

    assert attrs.evolve(config, cache=CacheConfig(max_entries=5)).cache.max_entries == 5
    with pytest.raises(ConfigError, match="max_entries"):
        attrs.evolve(config.cache, max_entries=-1)


def test_an_address_is_taken_apart() -> None:
    """Whoever listens gets host and port, IPv6 without its brackets."""
    assert split_address("127.0.0.1:8000") == ("127.0.0.1", 8000)
    assert split_address("[::1]:0") == ("::1", 0)
    assert ServerConfig(http="localhost:80").http == "localhost:80"


# -- what is in force -----------------------------------------------------------------------------------------


def test_every_setting_in_force_has_its_origin() -> None:
    """`effective` lists each value of each model and table with the place that gave it."""
    config = load(
        """
        [defaults]
        timeouts = { stall = 9, total = 90 }
        simulated = { script = [{ fault = "stall" }] }
        [[models]]
        name = "a"
        provider = "simulated"
        timeouts = { total = 7 }
        extra = { seed = 1 }
        [cache]
        max_entries = 9
        ttl = 5
        """,
        {"WIZARD_LOGGING_LEVEL": "DEBUG", "WIZARD_DEFAULTS_RETRY_MAX_ATTEMPTS": "2"},
    )

    found = origins(config)
    assert found["models[0].name"] == "model"
    assert found["models[0].timeouts.total"] == "model"
    assert found["models[0].timeouts.stall"] == "defaults"
    assert found["models[0].timeouts.connect"] == "default"
    assert found["models[0].retry.max_attempts"] == "environment"
    assert found["models[0].simulated.script[0].fault"] == "defaults"
    assert found["models[0].extra.seed"] == "model"
    assert found["cache.ttl"] == "file"
    assert found["logging.level"] == "environment"
    assert found["fallback.chain"] == "default"
    assert len(found) == len(list(config.effective()))


def test_every_setting_is_listed() -> None:
    """Nothing that people can set is missing from what `effective` shows, whatever its value."""
    shown = {each.key for each in load(ONE).effective()}

    for section in (CacheConfig, LoggingConfig, ServerConfig, SessionsConfig):
        table = section.__name__.removesuffix("Config").lower()
        assert {f"{table}.{key}" for key in attrs.fields_dict(section)} <= shown
    model_keys = {key for key in attrs.fields_dict(ModelConfig) if not key.startswith("_")}
    empty = {"headers", "extra", "local", "price", "proxy"}
    assert {f"models[0].{key}" for key in empty} <= shown
    assert {
        re.split(r"[.\[]", key.removeprefix("models[0]."))[0] for key in shown if key[:9] == "models[0]"
    } == model_keys


def test_code_and_the_environment_are_origins_too() -> None:
    """A chain from API keys comes from the environment, a value that code chose from code."""
    from_keys = origins(WizardConfig.from_env({"OPENAI_API_KEY": CANARY}))
    from_code = origins(WizardConfig(models=[ModelConfig(name="a", provider="openai", max_concurrency=2)]))

    assert (from_keys["models[0].provider"], from_keys["models[0].upstream"]) == ("environment", "default")
    assert (from_code["models[0].max_concurrency"], from_code["models[0].upstream"]) == ("code", "default")
    assert from_code["models[0].model"] == "default"


# -- secrets --------------------------------------------------------------------------------------------------


def test_a_secret_shows_itself_nowhere() -> None:
    """Printing, formatting, logging and pickling give nothing away; copying and comparing work."""
    secret = Secret(CANARY)

    assert {str(secret), repr(secret), f"{secret}", f"{secret!r:>3}", "%s" % secret} == {"***"}  # noqa: UP031 - logging formats so
    assert CANARY not in repr([secret]) + repr(
        attrs.asdict(ModelConfig(name="a", provider="openai", headers={"X": secret}))
    )
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(AttributeError):
        secret._text = "other"
    with pytest.raises(AttributeError):
        del secret._text
    assert copy.deepcopy(secret) is secret is copy.copy(secret)
    assert secret == Secret(CANARY)
    assert hash(secret) == hash(Secret(CANARY))
    assert secret != CANARY
    assert secret.reveal() == CANARY


OPTIONS = {"voice": "calm", "tags": ["a", {"b": 1}]}


@pytest.mark.parametrize("options", [{}, OPTIONS])
def test_a_configuration_is_copied_and_pickled(options: dict[str, object]) -> None:
    """With options and without, from code and from a file; what was frozen stays so."""
    made = WizardConfig(
        models=[
            ModelConfig(
                name="a", provider="custom", options=options, extra=OPTIONS, retry=RetryConfig(errors={"timeout": {}})
            )
        ]
    )
    loaded = WizardConfig.from_toml('[[models]]\nname = "a"\nprovider = "custom"\noptions = { tags = [1] }\n', env={})

    for config in (made, loaded):
        for copied in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):  # noqa: S301
            assert copied == config
            assert repr(copied) == repr(config)
            with pytest.raises(TypeError, match="cannot be changed"):
                copied.models[0].options["x"] = 1  # type: ignore[index]  # the mistake


def test_an_environment_that_was_passed_is_not_pickled() -> None:
    """The keys in it do not leave the process by accident; a copy of the configuration still finds them."""
    text = '[[models]]\nname = "a"\nprovider = "openai"\napi_key_env = "KEY"\n'
    config = WizardConfig.from_toml(text, env={"KEY": CANARY})

    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(config)
    assert copy.deepcopy(config).models[0].api_key() == Secret(CANARY)


def test_tables_of_a_model_cannot_be_changed() -> None:
    """Neither by who gave them nor by who got them, at no depth; they are equal to what was given."""
    given: dict[str, Any] = {"voice": "calm", "tags": ["a", {"b": 1}]}
    model: Any = ModelConfig(
        name="a",
        provider="custom",
        options=given,
        extra=given,
        headers={"X": "y"},
        retry=RetryConfig(errors={"timeout": {}}),
    )
    given["tags"][1]["b"] = 2
    given["voice"] = "loud"

    assert model.options == model.extra == OPTIONS
    changes: list[Callable[[], object]] = [
        lambda: model.options.update(voice="loud"),
        lambda: model.options["tags"].append("c"),
        model.extra["tags"][1].clear,
        lambda: model.headers.pop("X"),
        model.retry.errors.clear,
    ]
    for change in changes:
        with pytest.raises(TypeError, match="cannot be changed"):
            change()


LOOP: dict[str, object] = {}
LOOP["a"] = LOOP


@pytest.mark.parametrize("table", ["options", "extra"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"n": {1: 2}}, r"\.n` has a key of type int; JSON's keys are texts"),
        ({"n": [{("a",): 2}]}, r"\.n` has a key of type tuple.*, at \[0\] in it"),
        (LOOP, r"\.a` nests deeper than 64 levels"),
        ({"n": "\ud800"}, r"\.n` is not valid Unicode"),
        ({"n": {"\ud800": 1}}, r"\.n` has a key that is not valid Unicode"),
        ({"\ud800": 1}, "` must be valid Unicode|` is not valid Unicode"),
    ],
)
def test_what_json_cannot_hold_is_refused_in_code(table: str, value: dict[str, object], reason: str) -> None:
    """A file cannot say it; code is told the same way, and not by a crash."""
    with pytest.raises(ConfigError, match=reason):
        ModelConfig(name="a", provider="custom", **{table: value})  # type: ignore[arg-type]  # the mistake


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    """It could be written nowhere."""
    with pytest.raises(ConfigError, match="`static_answer` must be valid Unicode"):
        RouteConfig(name="a", static_answer="sorry \ud83d")


def test_no_secret_shows_in_a_configuration(tmp_path: Path) -> None:
    """A canary in every place that may hold one is in no repr and in nothing that `effective` lists."""
    (tmp_path / "key").write_text(CANARY)
    config = load(
        f"""
        [[models]]
        name = "a"
        provider = "openai"
        api_key_env = "CANARY_KEY"
        proxy = "http://user:{CANARY}@127.0.0.1:3128"
        headers = {{ Authorization = "Bearer {CANARY}" }}
        [[models]]
        name = "b"
        provider = "openai"
        api_key_file = '{tmp_path / "key"}'
        """,
        {"CANARY_KEY": CANARY},
    )

    shown = repr(config) + repr(list(config.effective())) + repr([model.api_key() for model in config.models])
    assert CANARY not in shown
    assert {each.key: each.value for each in config.effective()}["models[0].proxy"] == "http://***@127.0.0.1:3128"
    assert config.models[0].proxy == f"http://user:{CANARY}@127.0.0.1:3128"


def test_sessions_may_be_kept_in_memory_a_file_or_a_database() -> None:
    """The three kinds of storage are accepted as they are written."""
    for storage in ("memory:", "sqlite:wizard.db", "file:some/folder"):
        assert SessionsConfig(storage=storage).storage == storage


def test_tables_that_are_parsed_already_are_loaded_as_a_file_is() -> None:
    """`[defaults]` and the environment count, messages name the file, and the tables stay as they were."""
    tables = {"defaults": {"timeouts": {"stall": 3}}, "models": [{"name": "a", "provider": "simulated"}]}
    before = copy.deepcopy(tables)

    config = WizardConfig.from_tables(tables, "part.toml", {"WIZARD_CACHE_MAX_ENTRIES": "5"})

    assert config.models[0].timeouts.stall == 3
    assert config.cache.max_entries == 5
    assert tables == before
    with pytest.raises(ConfigError, match=r"^part\.toml: `models` must be a list"):
        WizardConfig.from_tables({"models": 3}, "part.toml", {})
