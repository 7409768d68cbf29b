"""The HTTP endpoint under load, over real sockets: a quick look at what `python -m benchmarks.http` measures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from benchmarks.http import BAD, measure, started

A_MIB = 2**20


@pytest.mark.long
async def test_no_request_is_lost_and_no_memory_beside_bad_clients(report_line: Callable[[str], None]) -> None:
    """Each answer is whole and right though others leave in the middle and others misbehave, who are told so."""
    with trio.fail_after(60):
        async with started() as target:
            await measure(target, connections=64, requests=300)  # so that all is loaded
            load = await measure(target, connections=64, requests=600, bad=2)

    assert load.lost == []
    assert (load.answered, load.left) == (540, 60)
    assert load.rss[1] - load.rss[0] < 4 * A_MIB
    assert load.bad == {f"{kind}: {wanted}": 2 for kind, (_, _, wanted) in BAD.items()}
    report_line(f"load: {600 / load.seconds:,.0f} requests a second over HTTP, p99 {load.p99 * 1e3:.0f} ms")
