"""What times contenders: how many calls it makes, what it counts, what it prints, and how it fails."""

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trio

from benchmarks.contenders import _harness
from benchmarks.contenders._harness import CHUNKS, FLAKY, Bench, Imports, importing, main

FIELDS = {
    "contender",
    "suite",
    "calls",
    "p50_us",
    "p99_us",
    "cpu_us",
    "rss_mib",
    "import_s",
    "import_rss_mib",
    "per_s",
    "calibration_s",
    "versions",
}


class Clock:
    """Time that passes only while a call is made: a second each, half of it spent working."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0
        self._lock = threading.Lock()

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now / 2

    def one(self) -> None:
        with self._lock:
            self.calls += 1
            self.now += 1.0

    async def one_async(self) -> None:
        self.one()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock of the harness."""
    clock = Clock()
    monkeypatch.setattr(_harness, "time", clock)
    return clock


def bench_of(calls: int = 30, callers: int = 4, upstream: str = "http://127.0.0.1:1") -> Bench:
    """Return a run whose upstream is nowhere, unless it is given."""
    return Bench(upstream, calls, callers)


def sequential(bench: Bench, clock: Clock) -> None:
    """Call one after another."""
    trio.run(bench.sequential, clock.one_async)


def blocking(bench: Bench, clock: Clock) -> None:
    """Call without any event loop."""
    bench.blocking(clock.one)


def trio_crowd(bench: Bench, clock: Clock) -> None:
    """Call from many tasks of Trio."""
    trio.run(bench.trio_crowd, clock.one_async)


def asyncio_crowd(bench: Bench, clock: Clock) -> None:
    """Call from many tasks of asyncio."""
    asyncio.run(bench.asyncio_crowd(clock.one_async))


def threads(bench: Bench, clock: Clock) -> None:
    """Call from many threads."""
    bench.threads(clock.one)


# -- what is timed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [sequential, blocking, trio_crowd, asyncio_crowd, threads])
def test_every_way_makes_so_many_calls_after_a_warm_up_and_times_these_alone(
    way: Callable[[Bench, Clock], None], clock: Clock
) -> None:
    """20 calls do not count, 30 do: their time, and the processor's, is what they took."""
    bench = bench_of(30)

    way(bench, clock)

    assert clock.calls == 50
    assert bench.times is not None
    assert len(bench.times.each) == 30
    assert bench.times.wall == 30.0
    assert bench.times.cpu == 15.0


@pytest.mark.parametrize("way", [sequential, blocking, trio_crowd, asyncio_crowd])
def test_a_call_took_what_passed_while_it_was_made(way: Callable[[Bench, Clock], None], clock: Clock) -> None:
    """A second each."""
    bench = bench_of(30)

    way(bench, clock)

    assert bench.times is not None
    assert bench.times.each == [1.0] * 30


@pytest.mark.parametrize(("calls", "callers", "warm_up"), [(10, 4, 20), (1_000, 4, 100), (10, 64, 64)])
def test_the_warm_up_is_a_tenth_at_least_20_and_one_by_each_caller(
    calls: int, callers: int, warm_up: int, clock: Clock
) -> None:
    """So every connection of a crowd is there before anything counts."""
    trio_crowd(bench_of(calls, callers), clock)

    assert clock.calls == calls + warm_up


def test_a_crowd_calls_at_once(clock: Clock) -> None:
    """There are as many calls under way as there are callers."""
    under_way, most = 0, 0

    async def one() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.lowlevel.checkpoint()
        under_way -= 1

    trio.run(bench_of(callers=7).trio_crowd, one)

    assert most == 7


async def asked_of_trio(bench: Bench, clock: Clock) -> None:
    """Share an ask among many tasks of Trio."""
    await bench.trio_crowd(clock.one_async, shared=True)


@pytest.mark.parametrize(
    "way",
    [
        lambda bench, clock: trio.run(asked_of_trio, bench, clock),
        lambda bench, clock: asyncio.run(bench.asyncio_crowd(clock.one_async, shared=True)),
        lambda bench, clock: bench.threads(clock.one, shared=True),
    ],
)
def test_a_shared_time_is_what_a_call_cost_in_each_part(way: Callable[[Bench, Clock], None], clock: Clock) -> None:
    """Twenty parts of five calls, and not how long a call waited among the others."""
    bench = bench_of(100, callers=4)

    way(bench, clock)

    assert bench.times is not None
    assert len(bench.times.each) == 20
    assert sum(bench.times.each) == 20.0
    assert bench.times.wall == 100.0


def test_what_counts_can_be_another_process(clock: Clock) -> None:
    """A server's processor time and memory, which the system tells, instead of the client's."""
    bench = bench_of()
    bench.server = os.getppid()

    blocking(bench, clock)

    assert bench.times is not None
    assert bench.times.cpu is not None
    assert bench.times.cpu < 15.0
    assert bench.times.rss == _harness.rss_mib(os.getppid())


def test_importing_is_timed_and_takes_the_contenders_off_the_path(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A contender with the name of its library would import itself."""
    folder = str(Path(_harness.__file__).parent)
    monkeypatch.setattr(sys, "path", [folder, *sys.path])
    monkeypatch.setattr(Imports, "seconds", None)
    monkeypatch.setattr(Imports, "rss_mib", None)

    with importing():
        clock.one()

    assert folder not in sys.path
    assert Imports.seconds == 1.0


# -- what is printed ---------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, suites: dict[str, Callable[[Bench], None]], *arguments: str) -> None:
    """Run a contender named `some` with this command line."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/some.py", *arguments])
    main(suites, "trio")


def test_the_result_is_one_json_object(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the fields that the runner reads, times in microseconds, and the fixed loop's from before and after."""
    arguments = ["call", "--upstream", "http://127.0.0.1:1", "--calls", "40", "--callers", "2", "--calibrate"]
    monkeypatch.setattr(_harness, "calibration", iter([0.01, 0.03]).__next__)

    run(monkeypatch, {"call": lambda bench: bench.blocking(clock.one)}, *arguments)

    result = json.loads(capsys.readouterr().out)
    assert set(result) == FIELDS
    assert (result["contender"], result["suite"], result["calls"]) == ("some", "call", 40)
    assert (result["p50_us"], result["p99_us"], result["cpu_us"], result["per_s"]) == (1e6, 1e6, 5e5, 1.0)
    assert result["versions"] == {"trio": trio.__version__}
    assert result["calibration_s"] == 0.02


def test_an_unknown_suite_is_told_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing runs."""
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, {"ask": print, "hit": print}, "cal", "--upstream", "http://127.0.0.1:1")

    told = capsys.readouterr()
    assert stopped.value.code == 2
    assert told.out == ""
    assert "'cal'" in told.err
    assert "'ask', 'hit'" in told.err


def failing(error: Exception) -> Callable[[Bench], None]:
    """Return a suite that fails."""

    def suite(_bench: Bench) -> None:
        raise error

    return suite


@pytest.mark.parametrize("error", [ValueError("no answer"), ExceptionGroup("some", [ValueError("no answer")])])
def test_a_suite_that_fails_ends_with_1_and_its_reason(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The traceback is there too, and the reason says what of a group went wrong."""
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, {"call": failing(error)}, "call", "--upstream", "http://127.0.0.1:1")

    told = capsys.readouterr()
    assert stopped.value.code == "some: call failed: ValueError: no answer"  # which is status 1, and goes to stderr
    assert told.out == ""
    assert "Traceback" in told.err


def test_a_suite_that_times_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to print."""
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, {"call": lambda _bench: None}, "call", "--upstream", "http://127.0.0.1:1")

    assert stopped.value.code == "some: call failed: ValueError: it timed nothing"


# -- what the answers have to be ---------------------------------------------------------------------


class Answering(BaseHTTPRequestHandler):
    """Answers "All is well.", and a flaky model alternately with 503 and that."""

    refused = False

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked["model"] == FLAKY:
            type(self).refused = not self.refused
        status = 503 if asked["model"] == FLAKY and self.refused else 200
        body = json.dumps({"choices": [{"message": {"content": "All is well."}}]}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of what it takes the place of
        pass


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of an upstream."""
    monkeypatch.setattr(Answering, "refused", False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        serving = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        serving.join()


def test_an_answer_has_to_be_the_upstreams(upstream: str) -> None:
    """Whatever the client returns beside it is no answer."""
    bench = bench_of(upstream=upstream)

    bench.same("All is well.")
    with pytest.raises(ValueError, match=r"the answer is 'All', not 'All is well\.'"):
        bench.same("All")


def test_a_stream_has_to_be_the_answer_in_all_its_chunks(upstream: str) -> None:
    """An empty one does not count, as the first of most libraries is."""
    bench = bench_of(upstream=upstream)
    chunks = ["All is well.", *[""] * CHUNKS]

    with pytest.raises(ValueError, match="the answer is 1, not 50"):
        bench.same_stream(chunks)


@pytest.mark.parametrize("status", [503, 200])
@pytest.mark.parametrize("asked_before", [0, 1])
def test_the_next_answer_of_the_flaky_model_can_be_chosen(upstream: str, status: int, asked_before: int) -> None:
    """Wherever it stands. A request more or less than is wanted is noticed."""
    bench = bench_of(upstream=upstream)
    for _ in range(asked_before):
        bench.flaky_next(200)

    bench.flaky_next(status)

    bench.flaky_is(status)
    with pytest.raises(ValueError, match="another number of times"):
        bench.flaky_is(status)
