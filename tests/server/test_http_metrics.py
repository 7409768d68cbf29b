"""What the HTTP endpoint counts of itself, and how it answers many scrapes at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import pytest
import trio
from opentelemetry import baggage
from opentelemetry.trace import get_current_span
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import Scripted
from tests.server.http_asked import FORMATS, PATHS, ask, whole
from tests.server.http_wire import HttpWire, Reply, served
from tests.server.keyed import key
from wizard_actors.metrics import MetricsSnapshot
from wizard_actors.otel import incoming
from wizard_actors.prometheus import Responses, exposition
from wizard_actors.server import http_app
from wizard_actors.server.http_exchange import headers_of

ADMIN = "Bearer wz_root"
OPENMETRICS = "application/openmetrics-text"
TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def scraped(wire: HttpWire) -> Mapping[tuple[str, str], float]:
    """Return how many responses there were, by format and status."""
    shown = await wire.ask("GET", "/metrics", authorization=ADMIN)
    return {
        (sample.labels["format"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(shown.body.decode())
        for sample in family.samples
        if sample.name == "wizard_http_responses_total"
    }


async def test_what_the_endpoint_answers_and_refuses_is_counted(autojump_clock: MockClock) -> None:
    """By format and status, whether a model was asked or not, and once each."""
    async with served(Scripted(whole()), keys=[key("root", admin=True)]) as server:
        wire = server.connect()
        for how in FORMATS:
            assert (await ask(wire, how, authorization=ADMIN)).status == 200
            assert (await ask(wire, how, stream=True, authorization=ADMIN)).status == 200
            assert (await ask(server.connect(), how)).status == 401
            assert (await wire.ask("POST", PATHS[how], b"{", authorization=ADMIN)).status == 400
            assert (await ask(wire, how, model="nobody", authorization=ADMIN)).status == 404
        assert (await wire.ask("POST", "/v1/embeddings", {}, anthropic_version="1")).status == 404
        assert (await wire.ask("GET", "/health/live")).status == 200
        assert (await wire.ask("GET", "/nowhere")).status == 404
        found = await scraped(wire)
        again = await scraped(wire)

    assert found == {
        ("openai", "200"): 2,
        ("openai", "401"): 1,
        ("openai", "400"): 1,
        ("openai", "404"): 1,
        ("anthropic", "200"): 2,
        ("anthropic", "401"): 1,
        ("anthropic", "400"): 1,
        ("anthropic", "404"): 2,
        ("other", "200"): 1,
        ("other", "404"): 1,
    }
    assert again == {**found, ("other", "200"): 2}


async def test_a_bug_of_ours_is_counted_too(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the 500 that it is."""
    async with served(Scripted(whole()), keys=[key("root", admin=True)]) as server:
        with monkeypatch.context() as patched:
            patched.setattr(server.service, "client_of", lambda *_: 1 / 0)
            assert (await ask(server.connect(), authorization=ADMIN)).status == 500
        assert (await scraped(server.connect()))["openai", "500"] == 1


async def test_many_scrapes_at_once_are_written_by_one_thread_and_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has its own; those that come meanwhile share the next, which counts what happened before they came."""
    begun, ended, most, written = threading.Event(), threading.Event(), list[int](), list[str | None]()
    running = 0

    def slow(metrics: MetricsSnapshot, accept: str | None, responses: Responses) -> tuple[bytes, str]:
        nonlocal running
        running += 1
        most.append(running)
        written.append(accept)
        begun.set()
        if len(written) == 1:
            ended.wait(10)
        time.sleep(0.01)
        running -= 1
        return exposition(metrics, accept, responses)

    monkeypatch.setattr(http_app, "exposition", slow)
    replies: list[Reply] = []
    async with served(Scripted(whole())) as server:
        wires = [server.connect() for _ in range(10)]

        async def scrape(wire: HttpWire, **headers: str) -> None:
            replies.append(await wire.ask("GET", "/metrics", **headers))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(scrape, wires[0])
            await trio.to_thread.run_sync(begun.wait, 10)
            assert (await ask(server.connect())).status == 200
            for wire in wires[1:]:
                nursery.start_soon(scrape, wire)
            await wait_all_tasks_blocked(0.05)
            ended.set()
        assert most == [1, 1]
        assert all(reply.status == 200 for reply in replies)
        assert len({reply.body for reply in replies[1:]}) == 1
        assert b"wizard_requests_total{" not in replies[0].body
        assert b"wizard_requests_total{" in replies[1].body


async def test_scrapers_that_want_another_format_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shared is what both accept."""
    async with served(Scripted(whole())) as server, trio.open_nursery() as nursery:
        wires = [server.connect() for _ in range(4)]
        kinds: list[tuple[bool, bool]] = []

        async def scrape(wire: HttpWire, accept: str) -> None:
            reply = await wire.ask("GET", "/metrics", accept=accept)
            kinds.append((OPENMETRICS in accept, reply.headers["content-type"].startswith(OPENMETRICS)))

        for number, wire in enumerate(wires):
            nursery.start_soon(scrape, wire, OPENMETRICS if number % 2 else "text/plain")
    assert sorted(kinds) == [(False, False)] * 2 + [(True, True)] * 2


async def test_a_callers_trace_may_be_told_in_several_lines(autojump_clock: MockClock) -> None:
    """HTTP lets a list stand in several headers of one name, as `tracestate` and `baggage` do."""
    scope = {"headers": [(b"tracestate", b"a=1"), (b"baggage", b"user=ada"), (b"tracestate", b"b=2")]}
    headers = headers_of({**scope, "headers": [*scope["headers"], (b"traceparent", TRACEPARENT), (b"baggage", b"x=y")]})

    with incoming(headers):
        state = get_current_span().get_span_context().trace_state
        assert list(state.items()) == [("a", "1"), ("b", "2")]
        assert dict(baggage.get_all()) == {"user": "ada", "x": "y"}
