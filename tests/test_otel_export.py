"""What `telemetry.otel` switches on in a server's process: spans and metrics go to a collector; none holds it up."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import define, field
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.loopback import Wire, response, serving
from tests.wizard_cli import clean_environment
from wizard_actors import WizardConfig
from wizard_actors.errors import EnvVarError
from wizard_actors.otel import opened

PROGRAM = """
import logging, time, trio
from wizard_actors import ResilientClient, WizardConfig, logs
from wizard_actors.otel import opened
config = WizardConfig.load("wizard.toml")
logs.configure(config.logging)
async def main():
    with trio.CancelScope() as scope:
        async with opened(config), ResilientClient.open(config) as client:
            await client.generate("Why?")
            print("answered")
            began = time.monotonic()
            {more}
    print(f"ended within {{time.monotonic() - began:.1f}} s")
    logging.getLogger("opentelemetry.exporter").warning("said after the end")
trio.run(main)
"""

WITHOUT_BOUND = 9.0
"""Seconds. OpenTelemetry itself tries for ten."""

CONFIG = """
[telemetry]
otel = true
[logging]
format = "json"
[sessions]
storage = "memory:"
[[models]]
name = "a"
model = "upstream-a"
provider = "simulated"
simulated = { first_token = 0, per_chunk = 0 }
"""


@define
class Collector:
    """What came to a collector, by path."""

    base_url: str = ""
    traces: list[ExportTraceServiceRequest] = field(factory=list)
    metrics: list[ExportMetricsServiceRequest] = field(factory=list)
    headers: list[str | None] = field(factory=list)

    async def __call__(self, wire: Wire) -> None:
        """Take what comes."""
        while (request := await wire.request()) is not None:
            self.headers.append(request.headers.get("x-tenant"))
            if request.path.endswith("/traces"):
                self.traces.append(ExportTraceServiceRequest.FromString(request.body))
            else:
                self.metrics.append(ExportMetricsServiceRequest.FromString(request.body))
            await wire.send(response(200, {"content-type": "application/x-protobuf", "content-length": "0"}))

    @property
    def names(self) -> list[str]:
        """The names of the spans that came."""
        spans = [
            span
            for trace in self.traces
            for each in trace.resource_spans
            for of in each.scope_spans
            for span in of.spans
        ]
        return sorted(span.name for span in spans)

    @property
    def service(self) -> str:
        """Who told of the spans."""
        found = {pair.key: pair.value.string_value for pair in self.traces[0].resource_spans[0].resource.attributes}
        return str(found["service.name"])


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector on loopback."""
    collector = Collector()
    async with serving(collector) as base_url:
        collector.base_url = base_url
        yield collector


@define
class Ran:
    """What a program printed and logged; `stopped` is how many seconds its end took, once it had its answer."""

    printed: str
    logged: str
    stopped: float | None


async def run(folder: Path, endpoint: str, more: str = "", config: str = CONFIG, **env: str) -> Ran:
    """Run the program, which gets its answer and does `more`."""
    (folder / "wizard.toml").write_text(config, encoding="utf-8")
    kept = {name: value for name, value in clean_environment().items() if not name.startswith("OTEL_")}
    done = await trio.run_process(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(more=more)],
        env={**kept, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "PYTHONPATH": os.pathsep.join(sys.path), **env},
        cwd=folder,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    printed, logged = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, logged
    ended = re.search(r"answered\nended within (.*) s", printed)
    return Ran(printed, logged, None if ended is None else float(ended[1]))


async def test_what_is_left_at_the_end_is_sent(tmp_path: Path) -> None:
    """Spans and metrics, by the standard variables; the service is "wizard"."""
    async with collecting() as collector:
        ran = await run(tmp_path, collector.base_url, OTEL_EXPORTER_OTLP_HEADERS="x-tenant=acme")

    assert ran.stopped is not None
    assert "collector" not in ran.logged
    assert collector.names == ["chat upstream-a", "chat wizard"]
    assert collector.service == "wizard"
    assert set(collector.headers) == {"acme"}
    told = {
        metric.name
        for each in collector.metrics
        for resource in each.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert "gen_ai.client.operation.duration" in told


async def test_the_environment_names_the_service_and_what_is_not_sent(tmp_path: Path) -> None:
    """`none` is an exporter, too; a sampler that takes nothing sends nothing."""
    async with collecting() as collector:
        await run(tmp_path, collector.base_url, OTEL_SERVICE_NAME="answers", OTEL_METRICS_EXPORTER="none")
        assert (collector.service, collector.metrics) == ("answers", [])
        collector.traces.clear()
        await run(tmp_path, collector.base_url, OTEL_TRACES_SAMPLER="always_off", OTEL_METRICS_EXPORTER="none")
        assert collector.traces == []


async def test_a_collector_that_is_down_holds_nobody(tmp_path: Path) -> None:
    """The process ends within some seconds, and its log says so, in its own format, to a thread's very last line."""
    with socket.socket() as nobody:  # the port is taken, and nobody listens
        nobody.bind(("127.0.0.1", 0))
        ran = await run(tmp_path, f"http://127.0.0.1:{nobody.getsockname()[1]}")

    assert ran.stopped is not None
    assert ran.stopped < WITHOUT_BOUND
    assert all(line.startswith("{") for line in ran.logged.splitlines()), ran.logged
    assert "the collector did not take all spans and metrics within 3 s" in ran.logged
    assert "said after the end" in ran.logged


async def test_a_collector_that_says_nothing_holds_nobody(tmp_path: Path) -> None:
    """Not even where the process is cancelled at its end."""

    async def silent(wire: Wire) -> None:
        await wire.request()
        await trio.sleep_forever()

    async with serving(silent) as endpoint:
        ran = await run(tmp_path, endpoint, more="scope.cancel()")

    assert ran.stopped is not None
    assert ran.stopped < WITHOUT_BOUND
    assert "did not take all spans" in ran.logged


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_TRACES_EXPORTER", "console"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_METRICS_EXPORTER", "x")],
)
async def test_what_is_not_possible_is_refused_at_the_start(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name of the variable: a server that sends nothing where somebody waits for it is worse."""
    monkeypatch.setenv(variable, value)
    config = WizardConfig.from_toml(CONFIG, env={})

    with pytest.raises(EnvVarError, match=rf"{variable} asks for '{value}': only .* is possible here") as raised:
        async with opened(config):
            raise AssertionError("it was opened")
    assert raised.value.variable == variable


async def test_what_the_sdk_refuses_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as everything that is wrong with a variable, and the SDK's log is given back."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "0")
    theirs = logging.getLogger("opentelemetry")
    before = (theirs.propagate, list(theirs.handlers))

    with pytest.raises(EnvVarError, match="the SDK refuses: schedule_delay_millis must be positive"):
        async with opened(WizardConfig.from_toml(CONFIG, env={})):
            raise AssertionError("it was opened")

    assert (theirs.propagate, theirs.handlers) == before


async def test_what_the_sdk_says_keeps_to_the_level_of_the_log(tmp_path: Path) -> None:
    """Whoever wants errors alone gets no warnings of a collector that is down."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        ran = await run(
            tmp_path, f"http://127.0.0.1:{port}", config=CONFIG.replace('"json"', '"json"\nlevel = "ERROR"')
        )

    assert ran.logged == ""


async def test_a_process_that_has_providers_keeps_them(tmp_path: Path) -> None:
    """Such as one that was started by an agent of OpenTelemetry's: nothing is sent twice, and none is closed."""
    async with collecting() as collector:
        before = "from opentelemetry import trace; from opentelemetry.sdk.trace import TracerProvider; "
        (tmp_path / "sitecustomize.py").write_text(before + "trace.set_tracer_provider(TracerProvider())\n", "utf-8")
        path = os.pathsep.join([str(tmp_path), *sys.path])
        ran = await run(tmp_path, collector.base_url, PYTHONPATH=path)

    assert ran.stopped is not None
    assert (collector.traces, collector.metrics) == ([], [])
