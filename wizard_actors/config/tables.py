"""The settings of everything but models: routes, cache, sessions, streams, batches, endpoints, logs, and what bounds
actors and retries.

Annotations in this file must stay objects, not strings: they are what the values are checked against.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, cast

from attrs import field, frozen

from wizard_actors.config.idle import idle
from wizard_actors.config.storage import shown_storage, storage_url
from wizard_actors.config.strategy import strategy_name
from wizard_actors.config.strict import chosen, strict
from wizard_actors.config.values import Seconds, above, address, at_least, between, not_empty, origins, plain_name
from wizard_actors.errors import ConfigError, ConfigProblem

__all__ = [
    "BatchConfig",
    "CacheConfig",
    "Delivery",
    "LogFormat",
    "LogLevel",
    "LoggingConfig",
    "OnInterruption",
    "RetryBudgetConfig",
    "RouteConfig",
    "ServerConfig",
    "SessionsConfig",
    "StreamConfig",
    "SupervisionConfig",
    "TelemetryConfig",
]

Delivery: TypeAlias = Literal["live", "buffered"]
OnInterruption: TypeAlias = Literal["fail", "reset"]
LogLevel: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LogFormat: TypeAlias = Literal["text", "json"]


def _as_names(names: Sequence[str]) -> tuple[str, ...]:
    return cast("tuple[str, ...]", names)


@frozen(kw_only=True, field_transformer=strict)
class RouteConfig:
    """Which models answer, and in which order they are tried.

    `chain` empty: the enabled models in the file's order. `strategy` is one of ours (`Strategy`), one that an installed
    package offers, or "custom:NAME", one that is given to the client by that name. With `strategy = "hedged"` the next
    model starts when the first is `hedge_delay` seconds late, or later than the `hedge_quantile` of what was observed,
    once enough was.
    `spill`: calls that waited `queue_timeout` for a full model move on. `static_answer`: given when all models failed.
    """

    name: str = field(validator=plain_name)
    chain: tuple[str, ...] = field(default=(), converter=_as_names)
    strategy: str = field(default="sequential", validator=strategy_name)
    hedge_delay: Seconds = field(default=2.0, validator=at_least(0))
    hedge_quantile: float | None = field(default=None, validator=between(0, 1))
    spill: bool = False
    static_answer: str | None = field(default=None, validator=not_empty)


@frozen(kw_only=True, field_transformer=strict)
class CacheConfig:
    """The response cache, off while `max_entries` is 0, and then without any other setting.

    `max_bytes` bounds the cached answers, `ttl` is in seconds. An entry that expired less than `stale_if_error` seconds
    ago is served, marked, when all models fail. Raises `ConfigError` for settings of a cache that is off.
    """

    max_entries: int = field(default=0, validator=at_least(0))
    max_bytes: int = field(default=64 * 1024 * 1024, validator=at_least(1))
    ttl: Seconds = field(default=3600.0, validator=above(0))
    stale_if_error: Seconds = field(default=0.0, validator=at_least(0))

    def __attrs_post_init__(self) -> None:
        if problems := list(idle("cache", chosen(self))):
            raise ConfigError(problems)


@frozen(kw_only=True, field_transformer=strict)
class SessionsConfig:
    """Conversations: where they are kept, for how long, in seconds, and what a model is shown of them.

    `storage` is "memory:", "sqlite:PATH", "file:FOLDER", or "NAME:..." where an installed package offers NAME in the
    entry point group "wizard_actors.storages"; paths are relative to the working directory, and nothing is opened
    before a session is used. A session expires `expire_idle` after it was last used, by its last turn or another stored
    change, and at the age `expire_age`; None: never. At most `max_sessions` turns are in progress or wait. A call of
    the storage may take `timeout` seconds. Of a long conversation the newest turns that fit into `context_tokens` are
    shown to the model; None: what the first model of the route has room for.
    """

    storage: str = field(default="sqlite:wizard.db", validator=storage_url, repr=shown_storage)
    expire_idle: Seconds | None = field(default=None, validator=above(0))
    expire_age: Seconds | None = field(default=None, validator=above(0))
    max_sessions: int = field(default=10_000, validator=at_least(1))
    timeout: Seconds = field(default=10.0, validator=above(0))
    context_tokens: int | None = field(default=None, validator=at_least(1))


@frozen(kw_only=True, field_transformer=strict)
class StreamConfig:
    """How answers stream to whoever asked.

    `live` passes text on as it comes, `buffered` holds it until it is complete. After an interruption `fail` raises,
    `reset` tells the consumer to drop what it has and sends the fallback's whole answer. A consumer that reads nothing
    for `consumer_idle` seconds loses its stream.
    """

    delivery: Delivery = "live"
    on_interruption: OnInterruption = "fail"
    consumer_idle: Seconds = field(default=300.0, validator=above(0))


@frozen(kw_only=True, field_transformer=strict)
class BatchConfig:
    """How many prompts of one batch are asked at once."""

    max_concurrency: int = field(default=8, validator=at_least(1))


def _as_path(value: str | Path | None) -> Path | None:
    return cast("Path | None", value)


@frozen(kw_only=True, field_transformer=strict)
class ServerConfig:
    """The endpoints ("HOST:PORT", None: closed) and the bounds of the whole client, embedded or serving.

    `max_in_flight` calls run at once, more are refused. A call waits at most `queue_timeout` seconds for room at a full
    model. Stopping waits `drain_timeout` seconds for calls in flight.

    All else is for endpoints. `api_keys_file` holds who may use them; without keys they are open to this machine alone.
    `origins` are the web pages' origins ("https://example.com") from which browsers may connect, `tls_cert` and
    `tls_key` files in PEM form. At most `max_connections` are open, `max_connections_per_key` with one key; a message
    has at most `max_message` bytes, a handshake at most `max_header`, JSON nests at most `max_json_depth` levels, and
    so many requests are in progress a connection and a key. A handshake takes at most `handshake_timeout` seconds; a
    connection on which nothing happens for `idle_timeout` is closed, and one that takes nothing of what is sent for
    `send_timeout`.
    """

    http: str | None = field(default=None, validator=address)
    websocket: str | None = field(default=None, validator=address)
    api_keys_file: Path | None = field(default=None, converter=_as_path)
    max_in_flight: int = field(default=1000, validator=at_least(1))
    queue_timeout: Seconds = field(default=30.0, validator=at_least(0))
    drain_timeout: Seconds = field(default=10.0, validator=at_least(0))
    origins: tuple[str, ...] = field(default=(), converter=_as_names, validator=origins)
    tls_cert: Path | None = field(default=None, converter=_as_path)
    tls_key: Path | None = field(default=None, converter=_as_path)
    max_connections: int = field(default=4096, validator=at_least(1))
    max_connections_per_key: int = field(default=1024, validator=at_least(1))
    max_message: int = field(default=4 * 1024 * 1024, validator=at_least(1024))
    max_header: int = field(default=16 * 1024, validator=at_least(1024))
    max_json_depth: int = field(default=64, validator=at_least(8))
    max_per_connection: int = field(default=128, validator=at_least(1))
    max_per_key: int = field(default=256, validator=at_least(1))
    handshake_timeout: Seconds = field(default=10.0, validator=above(0))
    idle_timeout: Seconds = field(default=600.0, validator=above(0))
    send_timeout: Seconds = field(default=30.0, validator=above(0))

    def __attrs_post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_cert", "tls_key") if self.tls_key is None else ("tls_key", "tls_cert")
            raise ConfigError([ConfigProblem(missing, f"is needed where `{given}` is set", "TLS takes both files")])


@frozen(kw_only=True, field_transformer=strict)
class LoggingConfig:
    """One line a request, on stderr. Prompts and answers appear only where `log_content` is true."""

    level: LogLevel = "INFO"
    format: LogFormat = "text"
    log_content: bool = False


@frozen(kw_only=True, field_transformer=strict)
class TelemetryConfig:
    """Spans and metrics for OpenTelemetry, of which no prompt and no answer is a part; off while `otel` is false.

    They go to the program's own providers; `wizard serve` makes some, which export by the variables OTEL_*.
    """

    otel: bool = False


@frozen(kw_only=True, field_transformer=strict)
class SupervisionConfig:
    """The bounds of every actor: its lanes, and how often it may crash.

    `mailbox` bounds the ask lane, `tells` the tells. More than `max_restarts` crashes in `restart_window` seconds: the
    actor is DOWN, and tried again every `down_retry` seconds.
    """

    mailbox: int = field(default=256, validator=at_least(1))
    tells: int = field(default=1024, validator=at_least(1))
    max_restarts: int = field(default=5, validator=at_least(0))
    restart_window: Seconds = field(default=30.0, validator=above(0))
    down_retry: Seconds = field(default=60.0, validator=above(0))


@frozen(kw_only=True, field_transformer=strict)
class RetryBudgetConfig:
    """What retries and hedges of the whole client may cost, in retries; one costs 1.

    Starts with `initial`, refills by `refill_per_second` up to `refill_to`; each request adds `deposit`, up to `max`.
    A `WizardConfig` refuses an `initial` above `max`, and other settings beside `enabled = False`.
    """

    initial: float = field(default=10.0, validator=at_least(0))
    refill_per_second: float = field(default=10.0, validator=at_least(0))
    refill_to: float = field(default=10.0, validator=at_least(0))
    deposit: float = field(default=0.2, validator=at_least(0))
    max: float = field(default=100.0, validator=at_least(0))
    enabled: bool = True
