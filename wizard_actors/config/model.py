"""The settings of one model, and the tables in them.

Annotations in this file must stay objects, not strings: they are what the values are checked against.
"""

import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Literal, Self, TypeAlias, cast

import attrs
from attrs import field, frozen

from wizard_actors import plugins
from wizard_actors.config.checks import PROVIDERS, model_conflicts
from wizard_actors.config.presets import ALSO_CALLED, PRESETS, Api, preset_of
from wizard_actors.config.secret import Environment, Secret, key_from_env, key_from_file, usual_variable
from wizard_actors.config.strict import strict
from wizard_actors.config.values import (
    BadValue,
    Seconds,
    above,
    at_least,
    at_most,
    closest,
    header_names,
    http_url,
    masked_url,
    plain_name,
    proxy_url,
    variable_name,
)
from wizard_actors.errors import ConfigError, ConfigProblem, EnvVarError

__all__ = [
    "PROVIDERS",
    "BreakerConfig",
    "ErrorRetryConfig",
    "Fault",
    "LocalConfig",
    "ModelConfig",
    "PriceConfig",
    "RateLimitConfig",
    "RetriedError",
    "RetryConfig",
    "ScriptStep",
    "SimulatedConfig",
    "SupportsConfig",
    "TimeoutsConfig",
    "Transport",
    "Upstream",
    "usual_variables",
]

Upstream: TypeAlias = Literal["auto", "stream", "unary"]
Fault: TypeAlias = Literal[
    "ok",
    "rate_limit",
    "error",
    "overloaded",
    "disconnect",
    "truncate",
    "malformed",
    "stall",
    "silent",
    "slow_first_token",
    "auth",
    "bad_request",
    "token_limit",
    "content_filter",
    "quota",
    "model_not_found",
]
Transport: TypeAlias = Literal["httpx", "fast"]
RetriedError: TypeAlias = Literal[
    "rate_limit",
    "overloaded",
    "network",
    "timeout",
    "parse",
    "stream_interrupted",
    "provider_error",
]
"""The codes of the errors after which the same model may be asked again. `provider_error`: any other 5xx, 408, 409."""


@frozen(kw_only=True, field_transformer=strict)
class SupportsConfig:
    """What a model can do. A prompt that needs more skips it. `sampling`: it takes `temperature` and `top_p`."""

    tools: bool = True
    images: bool = True
    schema: bool = True
    sampling: bool = True


@frozen(kw_only=True, field_transformer=strict)
class TimeoutsConfig:
    """How long each phase of one attempt may take, in seconds.

    `connect` ends with the connection, `first_token` with the first content, reasoning or tool delta, `total` with the
    attempt; `stall` bounds each wait for bytes after that first one.
    """

    connect: Seconds = field(default=5.0, validator=above(0))
    first_token: Seconds = field(default=60.0, validator=above(0))
    stall: Seconds = field(default=30.0, validator=above(0))
    total: Seconds = field(default=300.0, validator=above(0))


@frozen(kw_only=True, field_transformer=strict)
class ErrorRetryConfig:
    """What holds after one kind of error instead of the model's own settings. None: those settings."""

    max_attempts: int | None = field(default=None, validator=at_least(1))
    base_delay: Seconds | None = field(default=None, validator=at_least(0))
    max_delay: Seconds | None = field(default=None, validator=at_least(0))


def _as_policies(
    policies: Mapping[RetriedError, ErrorRetryConfig | Mapping[str, object]],
) -> Mapping[RetriedError, ErrorRetryConfig]:
    return cast("Mapping[RetriedError, ErrorRetryConfig]", policies)


@frozen(kw_only=True, field_transformer=strict)
class RetryConfig:
    """How often one model is tried, and how long to wait between: U(0, min(max_delay, base_delay * 2^n)) seconds.

    A provider's Retry-After is obeyed up to `retry_after_cap` seconds, up to `retry_after_cap_with_fallback` while
    another model of the route remains; beyond that the call moves on. `errors` holds other policies by error code.
    """

    max_attempts: int = field(default=3, validator=at_least(1))
    base_delay: Seconds = field(default=0.5, validator=at_least(0))
    max_delay: Seconds = field(default=8.0, validator=at_least(0))
    retry_after_cap: Seconds = field(default=60.0, validator=at_least(0))
    retry_after_cap_with_fallback: Seconds = field(default=5.0, validator=at_least(0))
    errors: Mapping[RetriedError, ErrorRetryConfig] = field(factory=dict, converter=_as_policies)

    def after(self, code: str) -> Self:
        """Return what holds after an error of that code: its own policy, key by key, over what holds for all."""
        own = next((policy for error, policy in self.errors.items() if error == code), None)
        given = {} if own is None else {name: value for name, value in attrs.asdict(own).items() if value is not None}
        return attrs.evolve(self, **given) if given else self


@frozen(kw_only=True, field_transformer=strict)
class BreakerConfig:
    """When a model's circuit opens, and how it closes again.

    It opens after `failure_threshold` failures within `window` seconds; where `failure_rate` is set, instead once
    that share of at least `minimum_calls` calls in the window failed. It stays open for about `open_for` seconds, then
    admits at most `half_open_probes` calls at a time, each until its first token, and closes after `success_threshold`
    successes.
    """

    failure_threshold: int = field(default=5, validator=at_least(1))
    window: Seconds = field(default=60.0, validator=above(0))
    open_for: Seconds = field(default=30.0, validator=above(0))
    success_threshold: int = field(default=2, validator=at_least(1))
    half_open_probes: int = field(default=1, validator=at_least(1))
    failure_rate: float | None = field(default=None, validator=[above(0), at_most(1)])
    minimum_calls: int = field(default=20, validator=at_least(1))


@frozen(kw_only=True, field_transformer=strict)
class RateLimitConfig:
    """What a model's account allows. None: no limit known, only what responses teach where `adaptive` is true.

    `burst` calls may go at once (None: decided from the rate). A call that would wait longer than `max_wait` seconds is
    rejected at once; at most `queue` calls wait, and more wait for room.
    """

    requests_per_minute: float | None = field(default=None, validator=above(0))
    tokens_per_minute: float | None = field(default=None, validator=above(0))
    burst: int | None = field(default=None, validator=at_least(1))
    adaptive: bool = True
    max_wait: Seconds = field(default=30.0, validator=at_least(0))
    queue: int = field(default=1000, validator=at_least(1))


def _as_decimal(value: Decimal | float) -> Decimal:
    return cast("Decimal", value)


def _as_optional_decimal(value: Decimal | float | None) -> Decimal | None:
    return cast("Decimal | None", value)


@frozen(kw_only=True, field_transformer=strict)
class PriceConfig:
    """US dollars a million tokens. `cached_input` is for tokens read from the provider's prompt cache, `cache_write`
    for those written to it; None: they cost what `input` says.
    """

    input: Decimal = field(converter=_as_decimal, validator=at_least(0))
    output: Decimal = field(converter=_as_decimal, validator=at_least(0))
    cached_input: Decimal | None = field(default=None, converter=_as_optional_decimal, validator=at_least(0))
    cache_write: Decimal | None = field(default=None, converter=_as_optional_decimal, validator=at_least(0))


@frozen(kw_only=True, field_transformer=strict)
class ScriptStep:
    """What the next `times` calls of a simulated model meet.

    `after_words` is how much of the answer comes before the fault, `retry_after` and `delay` are in seconds (None: no
    such header, and the fault's own pace), `status` replaces the fault's own HTTP status. A `ModelConfig` refuses what
    the fault does not read.
    """

    fault: Fault
    times: int = field(default=1, validator=at_least(1))
    after_words: int = field(default=0, validator=at_least(0))
    retry_after: Seconds | None = field(default=None, validator=at_least(0))
    status: int | None = field(default=None, validator=[at_least(400), at_most(599)])
    delay: Seconds | None = field(default=None, validator=at_least(0))


def _as_steps(steps: Sequence[ScriptStep]) -> tuple[ScriptStep, ...]:
    return cast("tuple[ScriptStep, ...]", steps)


@frozen(kw_only=True, field_transformer=strict)
class SimulatedConfig:
    """How a simulated model answers: `answer`, in chunks of `words_per_chunk` words.

    `connect`, `first_token` and `per_chunk` are in seconds. Calls consume the steps of `script` in order; after the
    last one the model answers normally. An empty `answer` stands for a sentence that names the model.
    """

    answer: str = ""
    connect: Seconds = field(default=0.0, validator=at_least(0))
    first_token: Seconds = field(default=0.05, validator=at_least(0))
    per_chunk: Seconds = field(default=0.02, validator=at_least(0))
    words_per_chunk: int = field(default=1, validator=at_least(1))
    script: tuple[ScriptStep, ...] = field(default=(), converter=_as_steps)


def _as_path(value: str | Path | None) -> Path | None:
    return cast("Path | None", value)


@frozen(kw_only=True, field_transformer=strict)
class LocalConfig:
    """The embedded model. `gguf` None: the SmolLM2 weights of the extra `local`.

    `context` is in tokens, `threads` None: one for every two cores, `start_timeout` in seconds.
    """

    gguf: Path | None = field(default=None, converter=_as_path)
    context: int = field(default=2048, validator=at_least(1))
    threads: int | None = field(default=None, validator=at_least(1))
    start_timeout: Seconds = field(default=30.0, validator=above(0))


def _known_provider(_instance: object, _attribute: object, value: str) -> None:
    known = (*PROVIDERS, *PRESETS)
    if value in known:
        return
    offered = plugins.names(plugins.PROVIDERS)
    if value in offered:
        try:
            plugins.find(plugins.PROVIDERS, value)
        except ConfigError as error:
            raise BadValue(error.problems[0].reason, error.problems[0].hint) from None
        return
    near = closest(value, (*known, *offered))
    meant = ALSO_CALLED.get(value.strip().casefold()) or (f'"{near}"' if near else "")
    hint = f"did you mean {meant}?" if meant else f"known: {', '.join(known)}"
    also = f"; installed packages offer: {', '.join(offered)}" if offered else ""
    raise BadValue("is no known provider", hint + also)


def _as_headers(value: Mapping[str, str | Secret]) -> Mapping[str, Secret]:
    return cast("Mapping[str, Secret]", value)


@frozen(kw_only=True, field_transformer=strict)
class ModelConfig:
    """One model: where it is, what it allows, and how patiently it is asked.

    `name` is what callers, routes, logs and metrics use, `model` the upstream's id (default: the name). The key is
    never held here: `api_key_env` names a variable, `api_key_file` a file, and `api_key()` reads it. `api` is the
    protocol in which OpenAI and those compatible with it are asked, `api_version` Azure's, `max_tokens` the bound of an
    answer where the prompt has none (None: the provider's own; Anthropic wants one: 8192). `max_concurrency`
    is the number of calls at once (default: 32; 1 for the embedded model, which answers one after the other). Models of
    one `rate_limit_group` share one limiter, and so have equal `rate_limit` tables. `extra` goes into the body of every
    request as it is. `transport` says who speaks HTTP for it: "fast" needs the extra of that name, and no
    `proxy`. `context_window` is in tokens, None where unknown. `simulated` and `local` are set exactly for
    those providers. `options` are the settings of a provider that is not built in: whatever that one documents.

    `provider` is built in, or a name that an installed package offers in the entry point group
    "wizard_actors.providers", or "custom": then the provider is given in code, where the client is opened.

    Raises `ConfigError` naming the key and the reason.
    """

    name: str = field(validator=plain_name)
    provider: str = field(validator=_known_provider)
    model: str = field(default=attrs.Factory(lambda self: self.name, takes_self=True), validator=plain_name)
    base_url: str | None = field(default=None, validator=http_url)
    api_key_env: str | None = field(default=None, validator=variable_name)
    api_key_file: Path | None = field(default=None, converter=_as_path)
    enabled: bool = True
    upstream: Upstream = "auto"
    api: Api = "chat"
    api_version: str | None = field(default=None, validator=plain_name)
    max_tokens: int | None = field(default=None, validator=at_least(1))
    max_concurrency: int = field(
        default=attrs.Factory(lambda self: 1 if self.provider == "local" else 32, takes_self=True),
        validator=at_least(1),
    )
    context_window: int | None = field(default=None, validator=at_least(1))
    supports: SupportsConfig = field(factory=SupportsConfig)
    rate_limit_group: str | None = field(default=None, validator=plain_name)
    proxy: str | None = field(default=None, validator=proxy_url, repr=lambda url: str(masked_url(url)))
    ca_file: Path | None = field(default=None, converter=_as_path)
    transport: Transport = "httpx"
    timeouts: TimeoutsConfig = field(factory=TimeoutsConfig)
    retry: RetryConfig = field(factory=RetryConfig)
    circuit_breaker: BreakerConfig = field(factory=BreakerConfig)
    rate_limit: RateLimitConfig = field(factory=RateLimitConfig)
    price: PriceConfig | None = None
    headers: Mapping[str, Secret] = field(factory=dict, converter=_as_headers, validator=header_names)
    extra: Mapping[str, object] = field(factory=dict)
    simulated: SimulatedConfig | None = None
    local: LocalConfig | None = None
    options: Mapping[str, object] = field(factory=dict)
    _environ: Mapping[str, str] | None = field(
        default=None, converter=attrs.converters.optional(Environment), repr=False, eq=False
    )

    def __attrs_post_init__(self) -> None:
        tables = {each.name: getattr(self, each.name) for each in attrs.fields(type(self))}
        problems = list(model_conflicts({**tables, "simulated": self.simulated and attrs.asdict(self.simulated)}))
        if problems:
            raise ConfigError(problems)
        if self.base_url is not None:
            object.__setattr__(self, "base_url", self.base_url.rstrip("/"))
        if self.provider == "simulated":
            table = self.simulated or SimulatedConfig()
            answer = table.answer or f"This answer is simulated: the model {self.name} made it up."
            object.__setattr__(self, "simulated", attrs.evolve(table, answer=answer))
        if self.provider == "local" and self.local is None:
            object.__setattr__(self, "local", LocalConfig())

    def api_key(self) -> Secret | None:
        """Read the key, now, from the environment that the configuration was loaded with, or from its file.

        Where the model names neither, and no address either, the variable in which the provider's customers keep their
        key counts; it goes to that provider and nowhere else. None where that is not set. Raises `EnvVarError` or
        `ConfigError` where the key cannot be read.
        """
        if self.api_key_file is not None:
            try:
                return key_from_file(self.api_key_file)
            except BadValue as found:
                key = f"models.{self.name}.api_key_file"
                raise ConfigError([ConfigProblem(key, found.reason, found.hint)]) from None
        variable = self.key_variable()
        try:
            usual = self.api_key_env is None
            return None if variable is None else key_from_env(variable, self._variables(), usual=usual)
        except BadValue as found:
            raise EnvVarError(variable or "", key=f"models.{self.name}.api_key_env", reason=found.reason) from None

    def key_variable(self) -> str | None:
        """Return the environment variable from which the key comes: the one that is named, else the provider's usual
        one where that counts and is set; None where there is none, or a file holds the key.
        """
        if self.api_key_env is not None or self.api_key_file is not None:
            return self.api_key_env
        return usual_variable(usual_variables(self.provider, self.base_url), self._variables())

    def _variables(self) -> Mapping[str, str]:
        return os.environ if self._environ is None else self._environ


def usual_variables(provider: object, base_url: object) -> tuple[str, ...]:
    """Return the variables that may hold the key of a model that names none, in the order in which they count: those
    of its provider, and none at any address but the provider's own. The values may be those of a file that has not been
    checked.
    """
    preset = preset_of(provider) if isinstance(provider, str) and base_url is None else None
    return () if preset is None else preset.key_variables
