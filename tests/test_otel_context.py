"""What is current where a request is made is the parent of its span: in every host, and out of a caller's headers."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span, use_span
from trio.testing import MockClock

from tests.embed.hosts import HOSTS, Host, everywhere
from tests.models import Scripted, client_of, says
from tests.otel_recorded import Recorded, children
from wizard_actors.otel import incoming

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"

every_host = pytest.mark.parametrize("host", HOSTS, ids=[host.name for host in HOSTS])


@pytest.fixture
def recorded() -> Recorded:
    """Spans and measurements in memory."""
    return Recorded()


def trace_of(span: ReadableSpan) -> str:
    """Return the id of a span's trace."""
    inside = span.get_span_context()
    assert inside is not None
    return format_trace_id(inside.trace_id)


@every_host
@everywhere
async def test_the_current_span_is_the_parent_of_the_requests(host: Host, recorded: Recorded) -> None:
    """Of a whole answer, a stream and a batch; each of two callers has its own, and keeps it."""
    tracer = recorded.tracers.get_tracer("test")

    async def ask(name: str) -> None:
        with tracer.start_as_current_span(name):
            mine = get_current_span()
            await client.generate("Why?")
            async with client.stream("Why?") as stream:
                assert [text async for text in stream.text()] == ["yes"]
            await client.generate_batch(["Why?", "Why not?"])
            assert get_current_span() is mine

    async with host.open(Scripted(says(0.01, "yes"))) as client:
        recorded.of(client)
        for task in await host.together(partial(ask, "one"), partial(ask, "two")):
            task.result()

    for name in ("one", "two"):
        (caller,) = [span for span in recorded.spans if span.name == name]
        below = children(recorded.spans, caller)
        assert [span.name for span in below] == ["chat wizard"] * 4
        assert [len(children(recorded.spans, span)) for span in below] == [1] * 4
        assert {trace_of(each) for span in below for each in children(recorded.spans, span)} == {trace_of(caller)}


async def test_a_sessions_turn_is_below_the_span_in_which_it_is_made(
    recorded: Recorded, autojump_clock: MockClock
) -> None:
    """Whether it is read as a whole or as a stream."""
    tracer = recorded.tracers.get_tracer("test")
    async with client_of(Scripted(says("yes"))) as client, client.session("ada") as session:
        recorded.of(client)
        with tracer.start_as_current_span("turns"):
            await session.send("Why?")
            async with session.stream("Why not?") as stream:
                assert [text async for text in stream.text()] == ["yes"]

    (caller,) = [span for span in recorded.spans if span.name == "turns"]
    assert [span.name for span in children(recorded.spans, caller)] == ["chat wizard", "chat wizard"]


async def test_without_a_current_span_a_request_is_a_trace_of_its_own(
    recorded: Recorded, autojump_clock: MockClock
) -> None:
    """Two requests are two."""
    async with client_of(Scripted(says("yes"))) as client:
        recorded.of(client)
        await client.generate("Why?")
        await client.generate("Why?")

    assert [span.parent for span in recorded.requests] == [None, None]
    assert len({trace_of(span) for span in recorded.requests}) == 2


async def test_a_callers_headers_are_the_current_context_of_a_block(
    recorded: Recorded, autojump_clock: MockClock
) -> None:
    """A request in it is a part of the caller's trace; after it, all is as before."""
    headers = {"Traceparent": TRACEPARENT, "tracestate": "v=1", "BAGGAGE": "user=ada", "accept": "*/*"}
    async with client_of(Scripted(says("yes"))) as client:
        recorded.of(client)
        with incoming(headers):
            assert baggage.get_baggage("user") == "ada"
            await client.generate("Why?")
        assert baggage.get_baggage("user") is None
        await client.generate("Why?")

    first, second = recorded.requests
    assert first.parent is not None
    assert (trace_of(first), format_span_id(first.parent.span_id)) == (TRACE, CALLER)
    assert first.parent.trace_state == {"v": "1"}
    assert second.parent is None


@pytest.mark.parametrize(
    "headers",
    [{}, {"accept": "*/*"}, {"traceparent": "rubbish"}, {"traceparent": ""}, {"traceparent": f"00-{'0' * 32}-1-01"}],
)
def test_headers_that_are_missing_or_wrong_change_nothing(headers: dict[str, str], recorded: Recorded) -> None:
    """What is current stays so, in the block and after it."""
    with use_span(recorded.tracers.get_tracer("test").start_span("here")):
        here = get_current_span()
        with incoming(headers):
            assert get_current_span() is here
        assert get_current_span() is here


def test_an_error_in_the_block_ends_its_context() -> None:
    """And is raised as it is."""
    before = context.get_current()
    with pytest.raises(KeyError), incoming({"traceparent": TRACEPARENT}):
        raise KeyError("bug")
    assert context.get_current() == before


NOTHING = """
import sys, trio
from wizard_actors import ResilientClient, WizardConfig
from wizard_actors.otel import incoming, opened
config = WizardConfig.from_toml('[[models]]\\nname = "a"\\nprovider = "simulated"\\n', env={})
async def main():
    with incoming({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}):
        async with opened(config), ResilientClient.open(config) as client:
            await client.generate("Why?")
trio.run(main)
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""

MISSING = """
import sys, trio
sys.modules["opentelemetry"] = None
from wizard_actors import BlockingClient, ConfigError, WizardConfig
from wizard_actors.otel import opened, trace
text = '[telemetry]\\notel = true\\n[[models]]\\nname = "a"\\nprovider = "simulated"\\n'
config = WizardConfig.from_toml(text, env={})
def client():
    BlockingClient.open(config)
def block():
    opened(config)
for attempt in (client, block):
    try:
        attempt()
    except ConfigError as error:
        print(error)
"""


def run(program: str) -> str:
    """Run a program in a process of its own, and return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_who_does_not_use_it_does_not_load_it() -> None:
    """Not with a client, and not with a server's two calls."""
    assert run(NOTHING).strip() == "[]"


def test_without_the_extra_the_setting_says_what_to_install() -> None:
    """Wherever it is met first."""
    printed = run(MISSING)

    assert printed.count("`telemetry.otel` needs OpenTelemetry") == 2
    assert printed.count("pip install 'wizard-actors[otel]'") == 2
