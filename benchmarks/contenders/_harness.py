"""What every contender shares: its command line, how calls are timed, and the one JSON object that it prints.

    ENV/bin/python benchmarks/contenders/NAME.py SUITE --upstream URL --calls N --callers M

A contender is a script that imports its library inside `importing()`, has a function for each suite that it can run,
and ends with `main({"call": call, ...}, "its-distribution")`. It runs in an environment that has its library and
nothing of ours, so this module is of the standard library alone, but for Trio, which only `trio_crowd` needs. What it
imports for itself it imports when it needs it: otherwise a library that needs the same would seem to import faster.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

__all__ = ["CHUNKS", "FLAKY", "Bench", "Times", "importing", "main", "rss_mib"]

FLAKY = "flaky"
"""The model that the upstream answers alternately with 503 and 200."""

PARTS = 20
"""Of so many parts of the calls a shared time is told."""

CHUNKS = 50
"""The pieces of text in which the upstream streams an answer."""


class Times:
    """What was measured: seconds of `each` call or part, of all together, and of processor time; and the MiB of memory
    that the process had at the end that did the work. None is what the system does not tell.
    """

    def __init__(self, each: list[float], wall: float, cpu: float | None, rss: float | None) -> None:
        self.each = each
        self.wall = wall
        self.cpu = cpu
        self.rss = rss


class Imports:
    """What importing the library took: seconds, and the memory of the process afterwards."""

    seconds: float | None = None
    rss_mib: float | None = None


@contextmanager
def importing() -> Iterator[None]:
    """Time the imports in the block. A contender may have the name of its library, so its folder leaves the path first,
    for good.
    """
    folder = Path(__file__).parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).absolute() != folder]
    began = time.perf_counter()
    yield
    Imports.seconds = time.perf_counter() - began
    Imports.rss_mib = rss_mib()


class Bench:
    """One run of one suite: what it is to do, and what times it. Calls are made one after another by `sequential` and
    `blocking`, and by `callers` at once by the others; each makes a tenth of them first, at least 20 and one by each
    caller, which do not count.

    With `shared`, what one call costs is measured where so many are under way, and not how long it waits among them:
    the time that a part of the calls took together, divided by their number, for each of `PARTS` parts.
    """

    def __init__(self, upstream: str, calls: int, callers: int) -> None:
        self.upstream = upstream.rstrip("/")
        """The base URL of the upstream, without /v1."""
        self.calls = calls
        self.callers = callers
        self.server: int | None = None
        """The process whose processor time and memory count; this one, where it is None."""
        self.times: Times | None = None

    # -- timing --------------------------------------------------------------------------------------

    async def sequential(self, one: Callable[[], Awaitable[object]]) -> None:
        """Time calls of a coroutine function, one after another, under any event loop."""

        async def run(calls: int, each: list[float]) -> None:
            for _ in range(calls):
                began = time.perf_counter()
                await one()
                each.append(time.perf_counter() - began)

        await run(self._warm_up(1), [])
        with self._timing() as each:
            await run(self.calls, each)

    async def trio_crowd(self, one: Callable[[], Awaitable[object]], *, shared: bool = False) -> None:
        """Time calls of a coroutine function from many tasks of Trio at once."""
        import trio

        caller = _finisher if shared else _caller

        async def run(calls: int, each: list[float]) -> None:
            numbers = iter(range(calls))
            async with trio.open_nursery() as nursery:
                for _ in range(self.callers):
                    nursery.start_soon(caller, one, numbers, each)

        await run(self._warm_up(self.callers), [])
        with self._timing(shared=shared) as each:
            await run(self.calls, each)

    async def asyncio_crowd(self, one: Callable[[], Awaitable[object]], *, shared: bool = False) -> None:
        """Time calls of a coroutine function from many tasks of asyncio at once."""
        import asyncio

        caller = _finisher if shared else _caller

        async def run(calls: int, each: list[float]) -> None:
            numbers = iter(range(calls))
            async with asyncio.TaskGroup() as group:
                for _ in range(self.callers):
                    group.create_task(caller(one, numbers, each))

        await run(self._warm_up(self.callers), [])
        with self._timing(shared=shared) as each:
            await run(self.calls, each)

    def blocking(self, one: Callable[[], object]) -> None:
        """Time calls of a function, one after another."""

        def run(calls: int, each: list[float]) -> None:
            for _ in range(calls):
                began = time.perf_counter()
                one()
                each.append(time.perf_counter() - began)

        run(self._warm_up(1), [])
        with self._timing() as each:
            run(self.calls, each)

    def threads(self, one: Callable[[], object], *, shared: bool = False) -> None:
        """Time calls of a function from many threads at once. Starting the threads does not count."""
        from concurrent.futures import ThreadPoolExecutor

        def caller(numbers: Iterator[int], each: list[float]) -> None:
            for _ in numbers:  # a range's iterator gives each number once, to whichever thread asks
                began = 0.0 if shared else time.perf_counter()
                one()
                each.append(time.perf_counter() - began)

        def run(calls: int, each: list[float]) -> None:
            numbers = iter(range(calls))
            for done in [pool.submit(caller, numbers, each) for _ in range(self.callers)]:
                done.result()

        with ThreadPoolExecutor(self.callers) as pool:
            run(self._warm_up(self.callers), [])
            with self._timing(shared=shared) as each:
                run(self.calls, each)

    def _warm_up(self, callers: int) -> int:
        return max(20, self.calls // 10, callers)

    @contextmanager
    def _timing(self, *, shared: bool = False) -> Iterator[list[float]]:
        each: list[float] = []
        worked, began = self._worked(), time.perf_counter()
        yield each
        wall, now = time.perf_counter() - began, self._worked()
        cpu = None if now is None or worked is None else now - worked
        rss = rss_mib("self" if self.server is None else self.server)
        self.times = Times(_parts(began, each) if shared else each, wall, cpu, rss)

    def _worked(self) -> float | None:
        return time.process_time() if self.server is None else cpu_s(self.server)

    # -- what the answers have to be -----------------------------------------------------------------

    def same(self, text: object, wanted: object = None) -> None:
        """Raise `ValueError` unless the text of an answer is what the upstream says, or what is `wanted`."""
        right = self.answer if wanted is None else wanted
        if text != right:
            raise ValueError(f"the answer is {text!r}, not {right!r}")

    def same_stream(self, texts: Sequence[str]) -> None:
        """Raise `ValueError` unless the texts of a stream's chunks are the upstream's answer, in `CHUNKS` pieces."""
        self.same("".join(texts))
        self.same(sum(1 for text in texts if text), CHUNKS)

    @property
    def answer(self) -> str:
        """The text that the upstream answers with, asked of it directly."""
        import json

        status, body = self._ask("any")
        if status != 200:
            raise ValueError(f"the upstream answered {status}")
        text = json.loads(body)["choices"][0]["message"]["content"]
        if not isinstance(text, str) or not text:
            raise ValueError(f"the upstream's answer has no text: {body!r}")
        return text

    def flaky_next(self, status: int) -> None:
        """See that the upstream answers the next request for `FLAKY` with that status, 503 or 200. A call that is
        answered from a cache leaves that as it was, and so does one that is sent twice.
        """
        if self._ask(FLAKY)[0] == status:
            self._ask(FLAKY)

    def flaky_is(self, status: int) -> None:
        """Raise `ValueError` unless the upstream answers a request for `FLAKY`, which this makes, with that status."""
        if (got := self._ask(FLAKY)[0]) != status:
            raise ValueError(f"the upstream was asked another number of times than is wanted: {got}, not {status}")

    def _ask(self, model: str) -> tuple[int, bytes]:
        import json
        from http.client import HTTPConnection
        from urllib.parse import urlsplit

        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Go."}]})
        connection = HTTPConnection(urlsplit(self.upstream).netloc, timeout=30)
        try:
            connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()


async def _caller(one: Callable[[], Awaitable[object]], numbers: Iterator[int], each: list[float]) -> None:
    for _ in numbers:
        began = time.perf_counter()
        await one()
        each.append(time.perf_counter() - began)


async def _finisher(one: Callable[[], Awaitable[object]], numbers: Iterator[int], ends: list[float]) -> None:
    for _ in numbers:
        await one()
        ends.append(time.perf_counter())


def _parts(began: float, ends: list[float]) -> list[float]:
    """Return the seconds that a call took in each part, from when all began and each ended."""
    from itertools import pairwise

    size = max(len(ends) // PARTS, 1)
    marks = [began, *ends[size - 1 :: size]]
    return [(end - start) / size for start, end in pairwise(marks)]


def rss_mib(pid: int | str = "self") -> float | None:
    """Return the memory that a process has, in MiB; None where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def cpu_s(pid: int) -> float | None:
    """Return the seconds of processor time that a process has had; None where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return None
    user, system = status.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def calibration() -> float:
    """Return the seconds that a fixed loop takes, to compare machines and moments by: the best of five."""

    def once() -> float:
        began = time.perf_counter()
        total = 0
        for number in range(200_000):
            total += number & 7
        return time.perf_counter() - began

    return min(once() for _ in range(5))


def main(suites: dict[str, Callable[[Bench], None]], *packages: str) -> None:
    """Run the suite that the command line names, and print what it measured as one JSON object, with the versions of
    `packages`. Exits with status 2 where the suite is unknown, and with 1 and the reason on the standard error where
    it fails.
    """
    import argparse
    import json
    import statistics
    import traceback
    from importlib.metadata import version

    contender = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(prog=contender)
    parser.add_argument("suite", choices=suites)
    parser.add_argument("--upstream", required=True, metavar="URL", help="base URL of the upstream, without /v1")
    parser.add_argument("--calls", type=int, default=200, metavar="N")
    parser.add_argument("--callers", type=int, default=32, metavar="M", help="how many at once, where many call")
    parser.add_argument("--calibrate", action="store_true", help="time a fixed loop before and after, too")
    args = parser.parse_args()
    bench = Bench(args.upstream, args.calls, args.callers)
    before = calibration() if args.calibrate else None
    try:
        suites[args.suite](bench)
        times = bench.times
        if times is None or not times.each:
            raise ValueError("it timed nothing")  # noqa: TRY301 - told like everything that fails in a suite
    except Exception as error:  # noqa: BLE001 - whatever a library raises is the reason that is told
        traceback.print_exc()
        sys.exit(f"{contender}: {args.suite} failed: {_reason(error)}")
    result = {
        "contender": contender,
        "suite": args.suite,
        "calls": bench.calls,
        "p50_us": statistics.median(times.each) * 1e6,
        "p99_us": statistics.quantiles(times.each, n=100)[98] * 1e6 if len(times.each) > 1 else None,
        "cpu_us": None if times.cpu is None else times.cpu / bench.calls * 1e6,
        "rss_mib": times.rss,
        "import_s": Imports.seconds,
        "import_rss_mib": Imports.rss_mib,
        "per_s": bench.calls / times.wall,
        "calibration_s": None if before is None else (before + calibration()) / 2,
        "versions": {package: version(package) for package in packages},
    }
    sys.stdout.write(f"{json.dumps(result)}\n")


def _reason(error: BaseException) -> str:
    """Return what went wrong: of a group of errors, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
