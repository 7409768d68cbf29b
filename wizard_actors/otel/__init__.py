"""OpenTelemetry: what a client does as spans and metrics, by the GenAI semantic conventions. See `docs/tracing.md`.

trace          for a client that is open                 incoming    a caller's headers as the current context
listener       what a client's own events are told to    opened      the SDK, for `wizard serve`
check          whether `opened` can do what it is asked for

Nothing of OpenTelemetry is imported before one of them is used: it is an extra, `otel`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol

from wizard_actors.config import WizardConfig
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.event_stream import EventStream
from wizard_actors.events import Event

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from wizard_actors.otel.spans import OpenTelemetry

__all__ = ["Traced", "check", "incoming", "listener", "opened", "trace"]

INSTALL: Final = "pip install 'wizard-actors[otel]'"
SETTING: Final = "telemetry.otel"


class Traced(Protocol):
    """A client of any kind."""

    @property
    def events(self) -> EventStream:
        """What happens in it."""

    @property
    def config(self) -> WizardConfig:
        """Its configuration in force."""


def trace(
    client: Traced, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Callable[[], None]:
    """Make spans and metrics of what `client` does from now on; return what ends that, and every span that is open.

    They go to the providers that are given, else to those that the program has set for the whole process, now or later.
    A request that has begun before gets no span. Where the configuration says `telemetry.otel`, a client does this by
    itself.

    Raises `ConfigError` where the extra `otel` is not installed.
    """
    telemetry = _recorder()(lambda: client.config, tracer_provider=tracer_provider, meter_provider=meter_provider)
    remove = client.events.listen(telemetry.hear)

    def stop() -> None:
        remove()
        telemetry.close()

    return stop


def listener(config: Callable[[], WizardConfig]) -> Callable[[Event], None]:
    """Return what makes spans and metrics, for the process's providers, of the events of a client whose configuration
    `config` returns. Raises `ConfigError` where the extra `otel` is not installed.
    """
    return _recorder()(config).hear


def check(config: WizardConfig, env: Mapping[str, str]) -> None:
    """Check that `opened` could do what `telemetry.otel` asks for, by the variables in `env`. Raises as it does."""
    if not config.telemetry.otel:
        return
    try:
        from wizard_actors.otel.sdk import check_variables
    except ImportError as error:
        raise missing(error) from error
    check_variables(env)


def opened(config: WizardConfig) -> AbstractAsyncContextManager[None]:
    """Return a block, to be entered under Trio, in which what the process records is sent to a collector, where
    `telemetry.otel` asks for it; else one that does nothing.

    The standard variables OTEL_* say where it goes; the service is "wizard" where they name none. Leaving sends what is
    left, for 3 seconds at most, whatever has become of the collector. A process that has providers already keeps them.

    Raises `ConfigError` where the extra `otel` is not installed, and, entered, `EnvVarError` where a variable asks for
    another exporter or protocol than OTLP over HTTP.
    """
    if not config.telemetry.otel:
        return nullcontext()
    try:
        from wizard_actors.otel.sdk import exporting
    except ImportError as error:
        raise missing(error) from error
    return exporting()


@contextmanager
def incoming(headers: Mapping[str, str]) -> Iterator[None]:
    """Make what a caller's headers say, `traceparent`, `tracestate` and `baggage`, the current context of the block:
    the spans of requests made in it are part of the caller's trace. Headers that are missing or wrong change nothing.

    The block is to be entered and left in one task. It costs nothing in a process that has not loaded OpenTelemetry.
    """
    if "opentelemetry.trace" not in sys.modules:
        yield
        return
    from opentelemetry import context, propagate

    fields = propagate.get_global_textmap().fields
    carrier = {name.lower(): value for name, value in headers.items() if name.lower() in fields}
    if not carrier:
        yield
        return
    token = context.attach(propagate.extract(carrier, context.get_current()))
    try:
        yield
    finally:
        context.detach(token)


def _recorder() -> type[OpenTelemetry]:
    try:
        from wizard_actors.otel.spans import OpenTelemetry
    except ImportError as error:
        raise missing(error) from error
    return OpenTelemetry


def missing(error: ImportError) -> ConfigError:
    """Return what to say where the extra is not installed."""
    return ConfigError([ConfigProblem(SETTING, f"needs OpenTelemetry, which cannot be imported ({error})", INSTALL)])
