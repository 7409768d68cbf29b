"""The settings as keyword arguments, for type checkers: each table's keys, as `Unpack` takes them.

A `Duration` is a number of seconds or a text such as "30s", as in a file. What stands in a table's place is the table
or its keys.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Required, TypeAlias, TypedDict

from wizard_actors.config.model import (
    BreakerConfig,
    ErrorRetryConfig,
    LocalConfig,
    PriceConfig,
    RateLimitConfig,
    RetriedError,
    RetryConfig,
    ScriptStep,
    SimulatedConfig,
    SupportsConfig,
    TimeoutsConfig,
    Transport,
    Upstream,
)
from wizard_actors.config.presets import Api
from wizard_actors.config.secret import Secret
from wizard_actors.config.strategy import Strategy
from wizard_actors.config.tables import Delivery, LogFormat, LogLevel, OnInterruption

__all__ = [
    "BatchSettings",
    "BreakerSettings",
    "CacheSettings",
    "Duration",
    "ErrorRetrySettings",
    "LocalSettings",
    "LoggingSettings",
    "ModelSettings",
    "PriceSettings",
    "RateLimitSettings",
    "RetryBudgetSettings",
    "RetrySettings",
    "RouteSettings",
    "ServerSettings",
    "SessionsSettings",
    "SimulatedSettings",
    "StreamSettings",
    "SupervisionSettings",
    "SupportsSettings",
    "TelemetrySettings",
    "TimeoutsSettings",
]

Duration: TypeAlias = float | str


class TimeoutsSettings(TypedDict, total=False):
    """The keys of `TimeoutsConfig`."""

    connect: Duration
    first_token: Duration
    stall: Duration
    total: Duration


class ErrorRetrySettings(TypedDict, total=False):
    """The keys of `ErrorRetryConfig`."""

    max_attempts: int | None
    base_delay: Duration | None
    max_delay: Duration | None


class RetrySettings(TypedDict, total=False):
    """The keys of `RetryConfig`."""

    max_attempts: int
    base_delay: Duration
    max_delay: Duration
    retry_after_cap: Duration
    retry_after_cap_with_fallback: Duration
    errors: Mapping[RetriedError, ErrorRetryConfig | ErrorRetrySettings]


class BreakerSettings(TypedDict, total=False):
    """The keys of `BreakerConfig`."""

    failure_threshold: int
    window: Duration
    open_for: Duration
    success_threshold: int
    half_open_probes: int
    failure_rate: float | None
    minimum_calls: int


class RateLimitSettings(TypedDict, total=False):
    """The keys of `RateLimitConfig`."""

    requests_per_minute: float | None
    tokens_per_minute: float | None
    burst: int | None
    adaptive: bool
    max_wait: Duration
    queue: int


class SupportsSettings(TypedDict, total=False):
    """The keys of `SupportsConfig`."""

    tools: bool
    images: bool
    schema: bool
    sampling: bool


class PriceSettings(TypedDict, total=False):
    """The keys of `PriceConfig`."""

    input: Required[Decimal | float]
    output: Required[Decimal | float]
    cached_input: Decimal | float | None
    cache_write: Decimal | float | None


class SimulatedSettings(TypedDict, total=False):
    """The keys of `SimulatedConfig`."""

    answer: str
    connect: Duration
    first_token: Duration
    per_chunk: Duration
    words_per_chunk: int
    script: Sequence[ScriptStep]


class LocalSettings(TypedDict, total=False):
    """The keys of `LocalConfig`."""

    gguf: str | Path | None
    context: int
    threads: int | None
    start_timeout: Duration


class ModelSettings(TypedDict, total=False):
    """The keys of `ModelConfig`."""

    name: Required[str]
    provider: Required[str]
    model: str
    base_url: str | None
    api_key_env: str | None
    api_key_file: str | Path | None
    enabled: bool
    upstream: Upstream
    api: Api
    api_version: str | None
    max_tokens: int | None
    max_concurrency: int
    context_window: int | None
    supports: SupportsConfig | SupportsSettings
    rate_limit_group: str | None
    proxy: str | None
    ca_file: str | Path | None
    transport: Transport
    timeouts: TimeoutsConfig | TimeoutsSettings
    retry: RetryConfig | RetrySettings
    circuit_breaker: BreakerConfig | BreakerSettings
    rate_limit: RateLimitConfig | RateLimitSettings
    price: PriceConfig | PriceSettings | None
    headers: Mapping[str, str | Secret]
    extra: Mapping[str, object]
    simulated: SimulatedConfig | SimulatedSettings | None
    local: LocalConfig | LocalSettings | None
    options: Mapping[str, object]


class RouteSettings(TypedDict, total=False):
    """The keys of `RouteConfig` but its name."""

    chain: Sequence[str]
    strategy: Strategy | str
    hedge_delay: Duration
    hedge_quantile: float | None
    spill: bool
    static_answer: str | None


class CacheSettings(TypedDict, total=False):
    """The keys of `CacheConfig`."""

    max_entries: int
    max_bytes: int
    ttl: Duration
    stale_if_error: Duration


class SessionsSettings(TypedDict, total=False):
    """The keys of `SessionsConfig`."""

    storage: str
    expire_idle: Duration | None
    expire_age: Duration | None
    max_sessions: int
    timeout: Duration
    context_tokens: int | None


class StreamSettings(TypedDict, total=False):
    """The keys of `StreamConfig`."""

    delivery: Delivery
    on_interruption: OnInterruption
    consumer_idle: Duration


class BatchSettings(TypedDict, total=False):
    """The keys of `BatchConfig`."""

    max_concurrency: int


class ServerSettings(TypedDict, total=False):
    """The keys of `ServerConfig`."""

    http: str | None
    websocket: str | None
    api_keys_file: str | Path | None
    max_in_flight: int
    queue_timeout: Duration
    drain_timeout: Duration
    origins: Sequence[str]
    tls_cert: str | Path | None
    tls_key: str | Path | None
    max_connections: int
    max_connections_per_key: int
    max_message: int
    max_header: int
    max_json_depth: int
    max_per_connection: int
    max_per_key: int
    handshake_timeout: Duration
    idle_timeout: Duration
    send_timeout: Duration


class LoggingSettings(TypedDict, total=False):
    """The keys of `LoggingConfig`."""

    level: LogLevel
    format: LogFormat
    log_content: bool


class TelemetrySettings(TypedDict, total=False):
    """The keys of `TelemetryConfig`."""

    otel: bool


class SupervisionSettings(TypedDict, total=False):
    """The keys of `SupervisionConfig`."""

    mailbox: int
    tells: int
    max_restarts: int
    restart_window: Duration
    down_retry: Duration


class RetryBudgetSettings(TypedDict, total=False):
    """The keys of `RetryBudgetConfig`."""

    initial: float
    refill_per_second: float
    refill_to: float
    deposit: float
    max: float
    enabled: bool
