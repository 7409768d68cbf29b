"""OpenTelemetry's SDK for `wizard serve`: everything goes to a collector over OTLP, as the variables OTEL_* say."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import trio
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from wizard_actors.errors import EnvVarError

__all__ = ["FLUSH", "check_variables", "exporting"]

log = logging.getLogger("wizard_actors.otel")

FLUSH: Final = 3.0
"""Seconds in which what is left is sent at the end. A collector that is down holds nobody longer."""

DEFAULT_NAME: Final = "wizard"

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "OTEL_TRACES_EXPORTER": ("otlp", "none"),
    "OTEL_METRICS_EXPORTER": ("otlp", "none"),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("http/protobuf",),
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": ("http/protobuf",),
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": ("http/protobuf",),
}
"""What is possible here of what the variables may ask for."""


@asynccontextmanager
async def exporting() -> AsyncIterator[None]:
    """Set the process's providers, and send what they record for as long as the block lasts; then send what is left,
    within `FLUSH` seconds, cancelled or not.

    A process whose providers are set already keeps them: then nothing is done. Raises `EnvVarError` where a variable
    asks for what is not there, or has a value that the SDK refuses.
    """
    check_variables(os.environ)
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        yield
        return
    give_back, closing = _take_log(), list[Callable[[], None]]()
    try:
        try:
            _set_up(os.environ, closing)
        except ValueError as error:
            raise EnvVarError("OTEL_*", key="telemetry.otel", reason=f"is on, and the SDK refuses: {error}") from error
        yield
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + FLUSH) as scope:
            async with trio.open_nursery() as nursery:
                for close in closing:
                    nursery.start_soon(_in_thread, close)
        if scope.cancelled_caught:  # threads of the SDK go on, and what they say still belongs into our log
            log.warning("the collector did not take all spans and metrics within %g s: the rest is lost", FLUSH)
        else:
            give_back()


def check_variables(env: Mapping[str, str]) -> None:
    """Check that what the variables ask for is there. Raises `EnvVarError`."""
    for variable, choices in CHOICES.items():
        value = env.get(variable, "").strip()
        if value and value not in choices:
            known = " or ".join(choices)
            reason = f"is on, and the environment variable {variable} asks for {value!r}: only {known} is possible here"
            raise EnvVarError(variable, key="telemetry.otel", reason=reason)


def _set_up(env: Mapping[str, str], closing: list[Callable[[], None]]) -> None:
    """Set the providers, and add to `closing` what closes them: of each as it is there, should the next one fail."""
    resource = _resource()
    if env.get("OTEL_TRACES_EXPORTER", "").strip() != "none":
        tracing = TracerProvider(resource=resource, shutdown_on_exit=False)
        closing.append(tracing.shutdown)
        tracing.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(tracing)
    if env.get("OTEL_METRICS_EXPORTER", "").strip() != "none":
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        metering = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        closing.append(metering.shutdown)
        metrics.set_meter_provider(metering)


def _resource() -> Resource:
    """Return what says of whom it is all told, as the variables say, `DEFAULT_NAME` where they say no name."""
    found = Resource.create()
    named = not str(found.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service")
    return found if named else found.merge(Resource({SERVICE_NAME: DEFAULT_NAME}))


async def _in_thread(close: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(_closed, close, abandon_on_cancel=True)


def _closed(close: Callable[[], None]) -> None:
    try:
        close()
    except Exception:  # of a library that is not ours: it must not fail the stop
        log.warning("not all spans and metrics could be sent", exc_info=True)


# -- what the SDK says of itself


class _Passing(logging.Handler):
    """Passes what another logger says on to ours, which is set up."""

    def emit(self, record: logging.LogRecord) -> None:
        """Have it written where our own lines are, from the same level on."""
        if log.isEnabledFor(record.levelno):
            log.handle(record)


def _take_log() -> Callable[[], None]:
    """Have the SDK's warnings, of a collector that does not answer, where a server's log is, in its format.

    Returns what ends that.
    """
    theirs, handler = logging.getLogger("opentelemetry"), _Passing()
    before, theirs.propagate = theirs.propagate, False
    theirs.addHandler(handler)

    def give_back() -> None:
        theirs.removeHandler(handler)
        theirs.propagate = before

    return give_back
