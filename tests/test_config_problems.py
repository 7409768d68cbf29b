"""Mistakes in a configuration: each is a ConfigError that names the file, the key and the reason, all at once."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from wizard_actors.config import (
    CacheConfig,
    ModelConfig,
    PriceConfig,
    RateLimitConfig,
    RouteConfig,
    ServerConfig,
    SessionsConfig,
    TimeoutsConfig,
    WizardConfig,
)
from wizard_actors.errors import ConfigError, ConfigProblem, EnvVarError

CANARY = "sk-canary-7f3a"
ONE = '[[models]]\nname = "a"\nprovider = "openai"\n'
TWO = ONE + ONE.replace('"a"', '"b"')


def problems(text: str, env: Mapping[str, str] | None = None) -> list[ConfigProblem]:
    """Load `text`, which is wrong, and return what was found."""
    with pytest.raises(ConfigError) as caught:
        WizardConfig.from_toml(text, "wizard.toml", env or {})
    assert caught.value.file == "wizard.toml"
    assert str(caught.value).startswith("wizard.toml: ")
    return list(caught.value.problems)


def only(text: str, env: Mapping[str, str] | None = None) -> tuple[str, str, str]:
    """Load `text`, which has one mistake, and return its key, reason and hint."""
    (problem,) = problems(text, env)
    return problem.key, problem.reason, problem.hint


# -- all at once ----------------------------------------------------------------------------------------------


def test_five_mistakes_of_five_kinds_are_found_at_once() -> None:
    """An unknown key, a wrong type, a negative bound, names and a variable: one error tells them all, once each."""
    text = """
        [[models]]
        name = "a"
        provider = "openai"
        api_key_env = "NOT_THERE"
        enabled = "true"
        [models.timeouts]
        max_concurrency = 4
        [[models]]
        name = "a"
        provider = "openai"
        api_key_env = "NOT_THERE"
        api_key_file = "missing.key"
        [fallback]
        chain = ["a", "nobody"]
        [cache]
        ttl = -1
        """

    found = [problem.key for problem in problems(text)]

    assert sorted(found) == [
        "cache.ttl",
        "fallback.chain[1]",
        "models[0].api_key_env",
        "models[0].enabled",
        "models[0].timeouts.max_concurrency",
        "models[1].api_key_env",
        "models[1].api_key_file",
        "models[1].api_key_file",
        "models[1].name",
    ]


def test_code_is_told_the_key_and_the_reason() -> None:
    """The same checks hold for values made in code, with the path as far as it is known there."""
    makers: list[tuple[Callable[[], object], str, str]] = [
        (lambda: TimeoutsConfig(stall=-1), "stall", "must be above 0"),
        (lambda: ModelConfig(name="a", provider="nobody"), "provider", "no known provider"),
        (lambda: ModelConfig(name="a", provider="openai", api_key_env=CANARY), "api_key_env", "must be the name of"),
        (lambda: CacheConfig(max_entries=True), "max_entries", "must be a whole number, got true"),
        (lambda: WizardConfig(models=[]), "models", "at least one model"),
        (lambda: RouteConfig(name="r", chain="ab"), "chain", "must be a list, got a text"),
        (lambda: PriceConfig(input=Decimal("NaN"), output=1), "input", "must be a number"),
        (
            lambda: WizardConfig(
                models=[ModelConfig(name="a", provider="simulated")], fallback=RouteConfig(name="other")
            ),
            "fallback.name",
            'must be "wizard"',
        ),
    ]
    unknown: object = {"stahl": 1}
    makers.append((lambda: ModelConfig(name="a", provider="openai", timeouts=unknown), "timeouts.stahl", "is unknown"))  # type: ignore[arg-type]  # what a program without a type checker may do
    for make, key, reason in makers:
        with pytest.raises(ConfigError) as caught:
            make()
        assert [problem.key for problem in caught.value.problems] == [key]
        assert reason in caught.value.problems[0].reason


# -- files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'[[models]]\nname = "a\n', "not valid TOML: .*line 2, column 10"),
        (b"[cache\n", "not valid TOML: .*line 1"),
        (b"[cache]\n[cache]\n", "not valid TOML"),
        (b"[cache]\nttl = yes\n", "not valid TOML: Invalid value .*line 2.*stands in quotes"),
        (b"x = " + b"1" * 5000, "too many digits"),
        (b"x = " + b"[" * 5000, "nested too deeply"),
        (b".".join([b"x"] * 300) + b" = 1", "nested too deeply"),
        (b"\xef\xbb\xbf" + ONE.encode(), "byte order mark"),
        (ONE.encode("utf-16"), "not UTF-8"),
        (b'[[models]]\nname = "a"\nprovider = "\xff"\n', "not UTF-8 text .line 3."),
        (b"", "at least one model"),
        (b"#" * (4 * 1024 * 1024 + 1), "larger than"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_a_file_that_cannot_be_read_as_toml_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    """What is wrong with the file itself is told with its place, whatever the bytes."""
    file = tmp_path / "wizard.toml"
    file.write_bytes(content)

    with pytest.raises(ConfigError, match=reason) as caught:
        WizardConfig.load(file, env={})
    assert caught.value.file == str(file)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    """A missing file, a directory and an impossible path are told apart."""
    with pytest.raises(ConfigError, match=r"no such file.*wizard init"):
        WizardConfig.load(tmp_path / "wizard.toml", env={})
    with pytest.raises(ConfigError, match="this is a directory"):
        WizardConfig.load(tmp_path, env={})
    with pytest.raises(ConfigError, match="cannot be the path"):
        WizardConfig.load("a\0b", env={})
    with pytest.raises(ConfigError, match="cannot be read: File name too long"):
        WizardConfig.load("x" * 5000, env={})


def test_the_decoders_error_does_not_carry_the_file_along(tmp_path: Path) -> None:
    """A traceback of the error holds no bytes of the file: there may be a secret among them."""
    file = tmp_path / "wizard.toml"
    file.write_bytes(CANARY.encode() + b"\xff")

    with pytest.raises(ConfigError) as caught:
        WizardConfig.load(file, env={})
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


# -- unknown keys ---------------------------------------------------------------------------------------------


def test_a_key_that_slid_into_a_sub_table_is_sent_back_above_its_header() -> None:
    """The classic mistake of TOML gets the whole remedy."""
    text = ONE + "[models.timeouts]\nmax_concurrency = 4\n"

    assert only(text) == (
        "models[0].timeouts.max_concurrency",
        "is unknown",
        "did you mean `models[0].max_concurrency`? Move it above `[models.timeouts]`",
    )


def test_the_header_named_is_the_first_of_that_model() -> None:
    """Above a later header the key would slide into the table before."""
    text = (
        ONE
        + '[models.retry]\n[[models]]\nname = "b"\nprovider = "openai"\n'
        + "  [models.rate_limit] # limits\n[models.timeouts]\nmax_concurrency = 4\n"
    )

    assert only(text)[2] == "did you mean `models[1].max_concurrency`? Move it above `[models.rate_limit]`"


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        (
            ONE + "timeouts = { max_concurrency = 4 }",
            "timeouts.max_concurrency",
            "did you mean `models[0].max_concurrency`?",
        ),
        (ONE + "max_concurency = 4", "max_concurency", "did you mean `models[0].max_concurrency`?"),
        (
            ONE + "timeouts = { max_concurency = 4 }",
            "timeouts.max_concurency",
            "did you mean `models[0].max_concurrency`?",
        ),
        (ONE + "first_token = 4", "first_token", "did you mean `models[0].timeouts.first_token`?"),
        (ONE + "cache = {}", "cache", "did you mean `cache`?"),
        (ONE + "log_content = true", "log_content", "did you mean `logging.log_content`?"),
        (ONE + 'api_key = "x"', "api_key", "name its variable with `api_key_env`"),
        (ONE + "_environ = {}", "_environ", "known keys: name, provider"),
        (ONE + "environ = {}", "environ", "known keys: name, provider"),
        (
            ONE + "circuit_breaker = { enabled = false }",
            "circuit_breaker.enabled",
            "always on; `failure_threshold` says when",
        ),
        (ONE + "circuit_breaker = { disabled = true }", "circuit_breaker.disabled", "always on"),
        (ONE + "rate_limit = { enable = true }", "rate_limit.enable", "where `requests_per_minute`"),
        (ONE + "timeouts = { enabled = true }", "timeouts.enabled", "known keys: connect"),
        (ONE + '"two words" = 1', '"two words"', "known keys"),
        (ONE + "price = { input = 1, output = 1, Input = 1 }", "price.Input", "did you mean `models[0].price.input`?"),
    ],
)
def test_an_unknown_key_of_a_model_is_told_where_it_belongs(text: str, key: str, hint: str) -> None:
    """Misspelled, misplaced or forbidden: the hint says what to write instead."""
    found_key, reason, found_hint = only(text)

    assert (found_key, reason) == (f"models[0].{key}", "is unknown")
    assert hint in found_hint


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("[cashe]", "cashe", "did you mean `cache`?"),
        ("[request]", "request", "known keys: models"),
        ("[defaults]\nstall = 4", "defaults.stall", "did you mean `defaults.timeouts.stall`?"),
        ("[defaults.timeouts]\nstahl = 4", "defaults.timeouts.stahl", "did you mean `defaults.timeouts.stall`?"),
        ('[defaults]\nname = "a"', "defaults.name", "each model has a name of its own"),
        ('[fallback]\nname = "a"', "fallback.name", 'always "wizard"'),
        ('[[routes]]\nname = "r"\nstratgy = "hedged"', "routes[0].stratgy", "did you mean `routes[0].strategy`?"),
        ("[cache]\nmax_in_flight = 4", "cache.max_in_flight", "did you mean `server.max_in_flight`?"),
        ("[cache]\nname = 4", "cache.name", "known keys: max_entries"),
        ("[cache]\nenabled = true", "cache.enabled", "set `max_entries`: the cache is on"),
        ("[stream]\nenabled = true", "stream.enabled", "known keys: delivery"),
        ("[defaults.circuit_breaker]\nenabled = false", "defaults.circuit_breaker.enabled", "is always on"),
    ],
)
def test_an_unknown_key_elsewhere_is_told_where_it_belongs(text: str, key: str, hint: str) -> None:
    """Tables and keys outside models get hints of the same kind."""
    found_key, reason, found_hint = only(f"{text}\n{ONE}")

    assert (found_key, reason) == (key, "is unknown")
    assert hint in found_hint


# -- wrong values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ('enabled = "false"', "must be true or false, got a text"),
        ("enabled = 0", "must be true or false, got 0"),
        ("model = 5", "must be a text, got 5"),
        ('model = ""', "must not be empty"),
        ('model = " a"', "must be printable text without a space"),
        ('model = "a\\u001b[2J"', "must be printable text"),
        (f'model = "{"a" * 201}"', "at most 200 characters long, got 201"),
        ("max_concurrency = true", "must be a whole number, got true"),
        ("max_concurrency = 1.0", "must be a whole number, got 1.0"),
        ('max_concurrency = "4"', "must be a whole number, got a text"),
        ("max_concurrency = 0", "must be at least 1, got 0"),
        ("max_concurrency = 0x8000_0000_0000_0000", "at most 64 bits"),
        ("model = 0x" + "f" * 5000, "must be a text, got a very large number"),
        ("extra.n = 0x" + "f" * 5000, "at most 64 bits"),
        ("timeouts.total = nan", "not finite"),
        ("timeouts.total = inf", "not finite"),
        ("timeouts.total = 1e999", "not finite"),
        ("timeouts.total = 0x" + "f" * 500, "not finite"),
        ("timeouts.total = 0", "must be above 0"),
        ("timeouts.total = true", "must be a number of seconds"),
        ('timeouts.total = "30"', "must be a duration"),
        ('timeouts.total = "1h30m"', "must be a duration"),
        ('timeouts.total = "-1s"', "must be a duration"),
        ("timeouts = 5", "must be a table, got 5"),
        ("timeouts = []", "must be a table, got a list"),
        ("retry.base_delay = -0.1", "must be at least 0"),
        ('upstream = "Auto"', 'must be one of "auto", "stream", "unary"'),
        ("upstream = 5", 'must be one of "auto"'),
        ("circuit_breaker.failure_rate = 1.5", "must be at most 1"),
        ("rate_limit.requests_per_minute = 0", "must be above 0"),
        ('rate_limit.requests_per_minute = "1m"', "must be a number"),
        ("price.input = 1", "is required"),
        ('price = { input = "1", output = 1 }', "must be a number, got a text"),
        ("price = { input = -1.5, output = 1 }", "must be at least 0, got -1.5"),
        ("price = { input = 1, output = nan }", "not finite"),
        ("extra.at = 1979-05-27", "it is of type date"),
        ("extra.at = [nan]", "not finite"),
        ("headers = 5", "must be a table"),
        ("headers = { X = 5 }", "must be a text"),
        ('headers = { X = "a\\nb" }', "no HTTP header may hold"),
        ('headers = { "X Y" = "a" }', "must name HTTP headers"),
        ('ca_file = ""', "must be the path of a file"),
        ('ca_file = "a\\u0000b"', "must be the path of a file"),
        ('ca_file = "~nobody-of-that-name/x"', "home of an unknown user"),
        ('base_url = "api.example.com"', "with http or https"),
        ('base_url = "ftp://api.example.com"', "with http or https"),
        ('base_url = "http://"', "with a host"),
        ('base_url = "http://[::1"', "cannot be read"),
        ('base_url = "http://h:99999"', "cannot be read"),
        ('base_url = "http://h/a b"', "must be a URL"),
        ('base_url = "http://h/v1?key=x"', "without `?`"),
        ('base_url = "http://h/v1#x"', "without `?` or `#`"),
        ('base_url = "http://u:p@h/v1"', "user name or password"),
        ('proxy = "socks5://h:1"', "with http or https"),
        ("simulated = {}", 'only for models with `provider = "simulated"`'),
        ("local = {}", 'only for models with `provider = "local"`'),
    ],
    ids=lambda text: text[:40],
)
def test_a_wrong_value_is_named_with_what_would_be_right(setting: str, reason: str) -> None:
    """Nothing is converted, and nothing out of bounds is taken."""
    key = setting.partition(" = ")[0]

    (problem,) = problems(ONE + setting)

    assert problem.key.startswith(f"models[0].{key}".removesuffix(".input"))
    assert reason in problem.reason


@pytest.mark.parametrize(
    ("table", "key", "reason"),
    [
        ("models = 5", "models", "must be a list, got 5"),
        ('[models]\nname = "a"', "models", "must be a list, got a table"),
        ("models = [5]", "models[0]", "must be a table, got 5"),
        ("models = []", "models", "at least one model"),
        (ONE + "[[cache]]", "cache", "must be a table, got a list"),
        (ONE + "[routes]", "routes", "must be a list, got a table"),
        (ONE + "[[routes]]", "routes[0].name", "is required"),
        ('[[models]]\nname = "a"', "models[0].provider", "is required"),
        (
            '[[models]]\nname = "a"\nprovider = "simulated"\n[models.simulated.script]\nfault = "ok"',
            "models[0].simulated.script",
            "must be a list, got a table",
        ),
        (
            '[[models]]\nname = "a"\nprovider = "simulated"\n[[models.simulated.script]]\nfault = "okay"',
            "models[0].simulated.script[0].fault",
            'must be one of "ok", "rate_limit"',
        ),
        ('[[models]]\nname = "a"\nprovider = []', "models[0].provider", "must be a text"),
        ('[[models]]\nname = "a"\nprovider = {}', "models[0].provider", "must be a text"),
        ("defaults = 5\n" + ONE, "defaults", "must be a table, got 5"),
        ("[defaults]\ntimeouts = 5\n" + ONE, "defaults.timeouts", "must be a table, got 5"),
        ("[defaults]\nmax_concurrency = 0\n" + ONE, "defaults.max_concurrency", "at least 1"),
        (ONE + "[fallback]\nchain = 5", "fallback.chain", "must be a list"),
        (ONE + "[fallback]\nchain = []", "fallback.chain", "is empty"),
        (ONE + "[fallback]\nchain = [5]", "fallback.chain[0]", "must be a text"),
        (
            TWO + '[fallback]\nstrategy = "hedged"\nhedge_quantile = 1',
            "fallback.hedge_quantile",
            "must be between 0 and 1",
        ),
        (ONE + "[batch]\nmax_concurrency = 0", "batch.max_concurrency", "must be at least 1, got 0"),
        (ONE + "retry.errors = 5", "models[0].retry.errors", "must be a table, got 5"),
        (ONE + "retry.errors.network = 5", "models[0].retry.errors.network", "must be a table, got 5"),
        (
            ONE + "retry.errors.network.max_attempts = 0",
            "models[0].retry.errors.network.max_attempts",
            "must be at least 1, got 0",
        ),
        (ONE + '[server]\nhttp = "8000"', "server.http", "must be HOST:PORT"),
        (ONE + '[server]\nhttp = "::1:8000"', "server.http", "must be HOST:PORT"),
        (ONE + '[server]\nhttp = "h:65536"', "server.http", "at most 65535"),
        (ONE + '[server]\ntls_cert = "cert.pem"', "server.tls_key", "is needed where `tls_cert` is set"),
        (ONE + '[server]\norigins = ["https://a.com/"]', "server.origins", "must hold origins"),
        (ONE + '[server]\ntls_key = "key.pem"', "server.tls_cert", "is needed where `tls_key` is set"),
        (ONE + '[sessions]\nstorage = "redis:x"', "sessions.storage", 'must be "memory:"'),
        (ONE + '[sessions]\nstorage = "memory"', "sessions.storage", 'must be "memory:"'),
        (ONE + '[sessions]\nstorage = "memory:x"', "sessions.storage", 'must be "memory:" alone'),
        (ONE + '[sessions]\nstorage = "sqlite:"', "sessions.storage", "must name a path"),
        (ONE + '[sessions]\nstorage = "sqlite:///x.db"', "sessions.storage", "not a URL"),
        (ONE + "[sessions]\ntimeout = 0", "sessions.timeout", "must be above 0, got 0"),
        (ONE + "[sessions]\ncontext_tokens = 0", "sessions.context_tokens", "must be at least 1, got 0"),
        (ONE + '[logging]\nlevel = "debug"', "logging.level", 'must be one of "DEBUG"'),
        ('[[models]]\nname = "a"\nprovider = "azure"', "models[0].base_url", "is required where"),
    ],
)
def test_a_wrong_table_is_named_with_what_would_be_right(table: str, key: str, reason: str) -> None:
    """Lists and tables are told apart, and `[defaults]` is reported once, where it stands."""
    found_key, found_reason, _ = only(table)

    assert found_key == key
    assert reason in found_reason


def test_hints_lead_from_the_mistake_to_the_value() -> None:
    """Quotes too many, quotes missing, brackets, capitals: each has its remedy."""
    assert only(ONE + 'max_concurrency = "4"')[2] == "write it without quotes"
    assert only(ONE + 'enabled = "false"')[2] == "write it without quotes"
    assert only(ONE + "model = 5")[2] == "write it in quotes"
    assert only(ONE + "[routes]")[2] == "write its header with double brackets: `[[...]]`"
    assert only(ONE + "[[cache]]")[2] == "write its header with single brackets: `[...]`"
    assert only(ONE + '[logging]\nlevel = "debug"')[2] == 'did you mean "DEBUG"?'
    assert only(ONE.replace("openai", "opnai"))[2] == 'did you mean "openai"?'
    assert "known: openai, anthropic" in only(ONE.replace("openai", "zzz"))[2]


# -- names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        (ONE + ONE, "models[1].name", "is 'a', as is `models[0].name`"),
        (ONE + '[[routes]]\nname = "a"', "routes[0].name", "is 'a', as is `models[0].name`"),
        (ONE + '[[routes]]\nname = "wizard"', "routes[0].name", "is 'wizard', as is the default route"),
        (ONE.replace('"a"', '"wizard"'), "models[0].name", "as is the default route"),
        (ONE + '[[routes]]\nname = "r"\n[[routes]]\nname = "r"', "routes[1].name", "as is `routes[0].name`"),
        (ONE + '[fallback]\nchain = ["a", "a"]', "fallback.chain[1]", "names 'a' again"),
        (ONE + '[fallback]\nchain = ["b"]', "fallback.chain[0]", "names no model: 'b'"),
        (ONE + '[[routes]]\nname = "r"\nchain = ["r"]', "routes[0].chain[0]", "names no model: 'r'"),
        (ONE + "enabled = false", "models", "are all disabled"),
        (
            ONE + '[[models]]\nname = "b"\nprovider = "local"\nenabled = false\n[fallback]\nchain = ["b"]',
            "fallback.chain",
            "names only disabled models",
        ),
    ],
)
def test_names_must_agree(text: str, key: str, reason: str) -> None:
    """Each name stands for one thing, and chains name what is there and enabled."""
    found_key, found_reason, _ = only(text)

    assert found_key == key
    assert reason in found_reason


def test_a_chains_misspelled_model_gets_a_hint() -> None:
    """The nearest model is proposed, or all are listed."""
    text = ONE.replace('"a"', '"primary"') + "[fallback]\nchain = "

    assert only(text + '["primray"]')[2] == "did you mean 'primary'?"
    assert only(text + '["b"]')[2] == "models: 'primary'"


# -- what agrees, and what has an effect ----------------------------------------------------------------------


GROUPED = """
    [[models]]
    name = "a"
    provider = "simulated"
    rate_limit_group = "account"
    rate_limit = { requests_per_minute = 60, burst = 2 }
    [[models]]
    name = "b"
    provider = "simulated"
    rate_limit_group = "account"
    rate_limit = { requests_per_minute = 50 }
    """


def test_models_that_share_a_limiter_have_the_same_limits() -> None:
    """The problem names both models, their group and what differs; one that is disabled does not count."""
    key, reason, _ = only(GROUPED)

    assert key == "models[1].rate_limit"
    assert "`requests_per_minute`, `burst`" in reason
    assert "'a'" in reason and "'b'" in reason and "'account'" in reason  # noqa: PT018 - one sentence
    WizardConfig.from_toml(GROUPED.replace("50 }", '60.0, burst = 2, max_wait = "30s" }'), env={})
    WizardConfig.from_toml(GROUPED + "enabled = false", env={})
    WizardConfig.from_toml(GROUPED.replace('group = "account"', 'group = "other"', 1), env={})


def test_models_of_code_that_share_a_limiter_have_the_same_limits() -> None:
    """The same check holds for values made in code."""
    models = [
        ModelConfig(name=name, provider="simulated", rate_limit_group="g", rate_limit=RateLimitConfig(burst=burst))
        for name, burst in (("a", 1), ("b", 2))
    ]

    with pytest.raises(ConfigError, match=r"models\[1\]\.rate_limit.*`burst`.*'a'"):
        WizardConfig(models=models)


def test_limits_that_cannot_be_read_are_compared_with_nothing() -> None:
    """Only the mistake itself is reported."""
    assert only(GROUPED.replace("burst = 2", "burst = 0"))[0] == "models[0].rate_limit.burst"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[fallback]\nhedge_delay = 2", "fallback.hedge_delay"),
        ('[fallback]\nstrategy = "adaptive"\nhedge_quantile = 0.9', "fallback.hedge_quantile"),
        ('[[routes]]\nname = "r"\nstrategy = "parallel"\nhedge_delay = "1s"', "routes[0].hedge_delay"),
    ],
)
def test_a_hedge_of_a_route_that_does_not_hedge_has_no_effect(text: str, key: str) -> None:
    """Also at its default: whoever wrote it meant something by it."""
    found_key, reason, hint = only(TWO + text)

    assert (found_key, hint) == (key, 'set `strategy = "hedged"`, or leave it out')
    assert reason.startswith('has no effect: the strategy is "')


def test_a_hedge_of_code_that_does_not_hedge_has_no_effect() -> None:
    """A route alone may hold it, so that its strategy can be changed; a configuration may not."""
    route = RouteConfig(name="wizard", hedge_delay=1)

    with pytest.raises(ConfigError, match=r"fallback\.hedge_delay` has no effect"):
        WizardConfig(models=[ModelConfig(name="a", provider="simulated")], fallback=route)


def test_a_strategy_that_is_misspelled_is_the_only_mistake() -> None:
    """What the hedge would be good for is not guessed."""
    assert only(ONE + '[fallback]\nstrategy = "hegded"\nhedge_delay = 1')[0] == "fallback.strategy"


def test_stale_answers_need_a_cache() -> None:
    """An entry can only be stale where there are entries."""
    assert only(ONE + "[cache]\nstale_if_error = 60")[0] == "cache.stale_if_error"
    assert WizardConfig.from_toml(ONE + "[cache]\nstale_if_error = 60\nmax_entries = 1", env={}).cache.max_entries == 1
    with pytest.raises(ConfigError, match="`stale_if_error` has no effect while the cache is off"):
        CacheConfig(stale_if_error=60)


def test_an_unknown_error_code_is_told_the_closest() -> None:
    """Errors that are not retried are no codes here, and all that are stand in the message."""
    key, reason, hint = only(ONE + "retry.errors.rate_limits.max_attempts = 2")
    assert (key, hint) == ("models[0].retry.errors.rate_limits", 'did you mean "rate_limit"?')
    assert '"overloaded"' in reason
    assert only("[defaults.retry.errors.auth]\n" + ONE)[0] == "defaults.retry.errors.auth"
    assert only(ONE + "retry.errors.network.max_atempts = 2")[2].startswith(
        "did you mean `models[0].retry.errors.network.max_attempts`?"
    )
    assert only(ONE + "retry.overloaded.max_attempts = 2")[2] == "did you mean `models[0].retry.errors.overloaded`?"


# -- keys and files -------------------------------------------------------------------------------------------


def test_a_missing_variable_is_an_env_var_error_where_it_is_the_only_problem() -> None:
    """The error names file, key path and variable; among other problems it is one of a ConfigError's."""
    text = ONE + 'api_key_env = "NOT_THERE"\n'

    with pytest.raises(EnvVarError) as caught:
        WizardConfig.from_toml(text, "wizard.toml", {})
    assert (caught.value.variable, caught.value.file) == ("NOT_THERE", "wizard.toml")
    assert caught.value.problems[0].key == "models[0].api_key_env"
    assert "NOT_THERE, which is not set" in caught.value.problems[0].reason

    found = problems(text + "max_concurrency = 0\n")
    assert [problem.key for problem in found] == ["models[0].max_concurrency", "models[0].api_key_env"]

    with pytest.raises(ConfigError) as several:
        WizardConfig.from_toml(text + text.replace('"a"', '"b"'), env={})
    assert not isinstance(several.value, EnvVarError)
    assert len(several.value.problems) == 2


def test_a_variable_of_the_defaults_is_missed_once() -> None:
    """Models that share a missing variable give one problem, at the place that names it."""
    text = '[defaults]\napi_key_env = "NOT_THERE"\n' + ONE + ONE.replace('"a"', '"b"')

    assert only(text)[0] == "defaults.api_key_env"


@pytest.mark.parametrize("value", ["", "  \n", "sk\nkey", "sk-\u2011key"])
def test_a_variable_that_holds_no_key_is_found_when_loading(value: str) -> None:
    """An empty variable, or one that no HTTP header can carry, does not wait for the first request."""
    with pytest.raises(EnvVarError, match="environment variable KEY"):
        WizardConfig.from_toml(ONE + 'api_key_env = "KEY"\n', env={"KEY": value})


def test_a_disabled_model_needs_no_key() -> None:
    """What is switched off does not keep the rest from starting."""
    text = ONE + '[[models]]\nname = "b"\nprovider = "openai"\nenabled = false\napi_key_env = "NOT_THERE"\n'

    assert WizardConfig.from_toml(text, env={}).fallback.chain == ("a",)


def test_files_that_settings_name_must_be_there(tmp_path: Path) -> None:
    """Key files and certificates are looked for when loading: absent, not a file, empty, too large, not a key."""
    contents = {"empty": b" \n", "large": b"x" * 70_000, "binary": b"\x00\xff"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    expected = {
        "absent": "does not exist",
        "": "not a file",
        "empty": "is empty",
        "large": "too large",
        "binary": "holds characters that no HTTP header may hold",
        "empty/x": "does not exist",
        "x" * 300: "cannot be read: File name too long",
    }

    for name, reason in expected.items():
        key, found, _ = only(f"{ONE}api_key_file = '{tmp_path}/{name}'")
        assert key == "models[0].api_key_file"
        assert reason in found
    assert only(f"{ONE}ca_file = '{tmp_path}/absent'")[0] == "models[0].ca_file"
    local = ONE.replace("openai", "local")
    assert only(f"{local}local = {{ gguf = '{tmp_path}/absent' }}")[0] == "models[0].local.gguf"


def test_a_key_file_that_vanished_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    """In code nothing is read before the model is built; then the error names the key."""
    model = ModelConfig(name="a", provider="openai", api_key_file=tmp_path / "absent")

    with pytest.raises(ConfigError, match=r"models\.a\.api_key_file.*does not exist"):
        model.api_key()


# -- variables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "key", "reason"),
    [
        ("WIZARD_LOGGING_LEVEL", "debug", "logging.level", "WIZARD_LOGGING_LEVEL sets it, must be one of"),
        ("WIZARD_LOGGING_LEVEL", "", "logging.level", "must not be empty"),
        ("WIZARD_LOGGING_LOG_CONTENT", "1", "logging.log_content", "must be true or false"),
        ("WIZARD_LOGGING_LOG_CONTENT", "yes", "logging.log_content", "must be true or false"),
        ("WIZARD_CACHE_TTL", "-1", "cache.ttl", "must be above 0"),
        ("WIZARD_CACHE_TTL", "x", "cache.ttl", "must be a duration"),
        ("WIZARD_CACHE_TTL", "1\n[logging]", "cache.ttl", "must be printable"),
        ("WIZARD_CACHE_MAX_ENTRIES", "1.5", "cache.max_entries", "must be a whole number, got 1.5"),
        ("WIZARD_SESSIONS_STORAGE", "sqlite:\udcff", "sessions.storage", "must be printable"),
        ("WIZARD_CACHE_STALE_IF_ERROR", "60", "cache.stale_if_error", "sets it, has no effect"),
        ("WIZARD_FALLBACK_HEDGE_DELAY", "1", "fallback.hedge_delay", "sets it, has no effect"),
        ("WIZARD_DEFAULTS_TIMEOUTS_STALL", "0", "defaults.timeouts.stall", "must be above 0"),
        ("WIZARD_FALLBACK_CHAIN", "a", "WIZARD_FALLBACK_CHAIN", "is an unknown environment variable"),
        ("WIZARD_FALLBACK_NAME", "a", "WIZARD_FALLBACK_NAME", "is an unknown environment variable"),
        ("WIZARD_NONSENSE", "a", "WIZARD_NONSENSE", "is an unknown environment variable"),
    ],
)
def test_variables_are_as_strict_as_the_file(variable: str, value: str, key: str, reason: str) -> None:
    """A variable's name and value are checked like a key's, and the message names the variable."""
    found_key, found_reason, _ = only(ONE, {variable: value})

    assert found_key == key
    assert reason in found_reason
    assert variable in f"{found_key} {found_reason}"


def test_unknown_variables_get_hints() -> None:
    """A misspelled variable is told the right one; models are pointed to the file."""
    assert only(ONE, {"WIZARD_LOGING_LEVEL": "INFO"})[2] == "did you mean WIZARD_LOGGING_LEVEL?"
    assert "set in the file" in only(ONE, {"WIZARD_MODELS_0_NAME": "x"})[2]
    assert "WIZARD_<SECTION>_<KEY>" in only(ONE, {"WIZARD_ZZZ": "x"})[2]


def test_a_variable_does_not_hide_a_wrong_table() -> None:
    """Where the file holds something else than a table, that is what is reported."""
    assert only("logging = 5\n" + ONE, {"WIZARD_LOGGING_LEVEL": "INFO"})[:2] == ("logging", "must be a table, got 5")


# -- secrets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        ONE + f'api_key = "{CANARY}"',
        ONE + f'key = ["{CANARY}"]',
        ONE + f'api_key_env = "{CANARY}"',
        ONE + f'api_key_file = "{CANARY}"',
        ONE + f'ca_file = "{CANARY}"',
        ONE + f'base_url = "http://user:{CANARY}@h"',
        ONE + f'base_url = "http://h?key={CANARY}"',
        ONE + f'base_url = "{CANARY}"',
        ONE + f'proxy = "http://user:{CANARY}@h:99999"',
        ONE + f'headers = {{ X = "{CANARY}\\n" }}',
        ONE + f'headers = "{CANARY}"',
        ONE + f'timeouts = "{CANARY}"',
        ONE + f'max_concurrency = "{CANARY}"',
        ONE + f'upstream = "{CANARY}"',
        ONE + f'enabled = "{CANARY}"',
        ONE + f'provider = "{CANARY}"',
        ONE.replace("openai", CANARY),
        ONE + f'[server]\nhttp = "{CANARY}"',
        ONE + f'[sessions]\nstorage = "postgres://user:{CANARY}@h"',
        f'[cache]\nttl = "{CANARY}"\n' + ONE,
        f'[cache]\nttl = "{CANARY}\n' + ONE,
    ],
)
def test_no_error_repeats_a_text_from_the_file(text: str) -> None:
    """A key that stands in the wrong place is not copied into a message, a repr or a chained error."""
    with pytest.raises(ConfigError) as caught:
        WizardConfig.from_toml(text, env={"KEY": CANARY})

    error: BaseException | None = caught.value
    shown = repr(caught.value.to_dict())
    while error is not None:
        shown += str(error) + repr(error)
        error = error.__cause__ or error.__context__
    assert CANARY not in shown


def test_no_error_repeats_a_key_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """A key that cannot be sent is described, not shown."""
    (tmp_path / "key").write_text(f"{CANARY}\x01")

    with pytest.raises(ConfigError) as from_env:
        WizardConfig.from_toml(ONE + 'api_key_env = "KEY"', env={"KEY": f"{CANARY}\x01"})
    with pytest.raises(ConfigError) as from_file:
        WizardConfig.from_toml(f"{ONE}api_key_file = '{tmp_path}/key'", env={})

    assert CANARY not in repr(from_env.value) + repr(from_file.value)


def test_wrong_values_in_code_are_named_by_their_field() -> None:
    """The last resort of a program without a type checker."""
    with pytest.raises(ConfigError, match=r"`http` must be HOST:PORT"):
        ServerConfig(http="nowhere")
    with pytest.raises(ConfigError, match=r"`storage` must be"):
        SessionsConfig(storage="nowhere")
