"""A client that is traced into memory, for the tests of spans and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from wizard_actors.config import WizardConfig
from wizard_actors.event_stream import EventStream
from wizard_actors.otel import Traced
from wizard_actors.otel.conventions import Names
from wizard_actors.otel.spans import OpenTelemetry


class Recorded:
    """Spans and measurements in memory. `of` begins; `telemetry` is what listens."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.telemetry: OpenTelemetry

    def of(self, client: Traced) -> OpenTelemetry:
        """Record what `client` does from now on."""
        self.on(client.events, client.config)
        return self.telemetry

    def on(self, events: EventStream, config: WizardConfig) -> None:
        """Record what is published there."""
        self.telemetry = OpenTelemetry(lambda: config, tracer_provider=self.tracers, meter_provider=self.meters)
        events.listen(self.telemetry.hear)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Every span that has ended, in the order of their ends."""
        return self.exporter.get_finished_spans()

    @property
    def requests(self) -> list[ReadableSpan]:
        """The spans of requests."""
        return [span for span in self.spans if span.kind is SpanKind.INTERNAL and Names.REQUEST_ID in facts(span)]

    @property
    def attempts(self) -> list[ReadableSpan]:
        """The spans of attempts, in the order of their numbers."""
        return sorted(
            (span for span in self.spans if span.kind is SpanKind.CLIENT),
            key=lambda span: int(str(facts(span)[Names.ATTEMPT])),
        )

    def points(self, metric: str) -> list[HistogramDataPoint]:
        """Return what was measured under that name."""
        return [point for name, point in self._points() if name == metric]

    def _points(self) -> Iterator[tuple[str, HistogramDataPoint]]:
        data = self.reader.get_metrics_data()
        for resource in () if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        assert isinstance(point, HistogramDataPoint)
                        yield metric.name, point


def facts(span: ReadableSpan) -> Mapping[str, object]:
    """Return the attributes of a span."""
    return dict(span.attributes or {})


def happened(span: ReadableSpan) -> list[tuple[str, dict[str, object]]]:
    """Return the events of a span, each with its attributes."""
    return [(event.name, dict(event.attributes or {})) for event in span.events]


def seconds(span: ReadableSpan) -> float:
    """Return how long a span is."""
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def failed(span: ReadableSpan) -> bool:
    """Say whether a span is an error."""
    return span.status.status_code is StatusCode.ERROR


def children(spans: Sequence[ReadableSpan], parent: ReadableSpan) -> list[ReadableSpan]:
    """Return the spans right below `parent`."""
    above = parent.get_span_context()
    assert above is not None
    return [span for span in spans if span.parent is not None and span.parent.span_id == above.span_id]
