"""The endpoint under load, over real sockets: a quick look at what `python -m benchmarks.websocket` measures."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
import trio

from benchmarks.websocket import measure_gone, measure_many, measure_stalled, started

A_MIB = 2**20


@pytest.mark.long
async def test_a_stalled_reader_stalls_nobody_else_and_fills_no_memory(report_line: Callable[[str], None]) -> None:
    """Others get their first events about as soon as without it; an endless answer stays where it is."""
    with trio.fail_after(60):
        stalled = await measure_stalled(rounds=1, seconds=1.2, connections=20)

    [without], [beside] = stalled.idle, stalled.stalled
    assert min(len(without), len(beside)) >= 20
    assert statistics.median(beside) < 3 * statistics.median(without) + 0.05
    assert max(beside) < 1.0
    assert stalled.filled < 30 * A_MIB
    assert stalled.grown < 4 * A_MIB
    assert stalled.cost < 0.2
    medians = [statistics.median(samples) * 1e3 for samples in (without, beside)]
    report_line("load: first events after {:.1f} ms, beside a stalled reader {:.1f} ms".format(*medians))


async def test_no_request_is_lost_on_many_connections() -> None:
    """Each is answered, and a connection costs little memory."""
    with trio.fail_after(60):
        async with started() as target:
            many = await measure_many(target, connections=100, requests=500)

    assert many.answered == 500
    assert many.bytes_a_connection < 300 * 1024


async def test_the_call_of_a_client_that_is_gone_is_stopped_at_once() -> None:
    """Its model sees the end of it within 200 ms of the reset."""
    with trio.fail_after(60):
        gone = await measure_gone(rounds=3)

    assert len(gone.seconds) == 3
    assert statistics.median(gone.seconds) < 0.2
