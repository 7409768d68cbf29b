"""The gate: which promises are broken, and what the program ends with."""

from __future__ import annotations

import sys

import pytest
from attrs import evolve

from benchmarks.gate import Measured, Size, broken, complaint, measure, slos
from benchmarks.upstream import running

MS = 1e-3
KEPT = Measured(
    hits={"httpx": [0.05 * MS] * 100},
    calls={"httpx": [1.5 * MS] * 100},
    firsts={"httpx": [2 * MS] * 100},
    retried={"httpx": [2.6 * MS] * 100},
    bare_call=[1 * MS] * 100,
    bare_first=[1 * MS] * 100,
    bare_refused=[1 * MS] * 100,
    cached_mib=8.0,
)


def test_what_is_kept_ends_with_status_0() -> None:
    """Nothing is broken, so there is nothing to say."""
    assert broken(slos(KEPT)) == []
    with pytest.raises(SystemExit) as ended:
        sys.exit(complaint(slos(KEPT)))
    assert not ended.value.code


@pytest.mark.parametrize(
    ("worse", "what"),
    [
        (evolve(KEPT, hits={"httpx": [2 * MS] * 100}), "a cache hit, p99"),
        (evolve(KEPT, calls={"httpx": [102 * MS] * 100}, retried={"httpx": [103 * MS]}), "added to a call"),
        (evolve(KEPT, firsts={"httpx": [202 * MS] * 100}), "added to a stream's first token"),
        (evolve(KEPT, retried={"httpx": [8 * MS] * 100}), "added by a retry"),
        (evolve(KEPT, cached_mib=60.0), "1,000 cached answers"),
    ],
)
def test_each_broken_promise_is_named_and_ends_with_status_1(worse: Measured, what: str) -> None:
    """A status is not 0 where `sys.exit` gets a text."""
    [found] = broken(slos(worse))

    assert found.what.startswith(what)
    assert (complaint(slos(worse)) or "").startswith(f"broken: {what}")


def test_one_slow_call_in_a_hundred_counts_and_one_in_a_thousand_does_not() -> None:
    """It is the 99th percentile that is promised."""
    rare = evolve(KEPT, hits={"httpx": [0.05 * MS] * 999 + [5 * MS]})
    often = evolve(KEPT, hits={"httpx": [0.05 * MS] * 98 + [5 * MS] * 2})

    assert broken(slos(rare)) == []
    assert len(broken(slos(often))) == 1


def test_an_aim_that_is_missed_breaks_nothing() -> None:
    """Aims are printed; promises are kept or broken."""
    slower = slos(evolve(KEPT, calls={"httpx": [9 * MS] * 100}, retried={"httpx": [10.1 * MS] * 100}))

    assert broken(slower) == []
    assert [each.aimed for each in slower if each.what.startswith("added to a call")] == [False]


async def test_it_measures_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of call was made as often as asked for, over each transport, and took its time."""
    monkeypatch.setattr("benchmarks.gate.ANSWERS", 5)
    monkeypatch.setattr("benchmarks.gate.WARM_UP", 1)

    with running(chunks=3) as url:
        found = await measure(url, Size(turns=2))

    assert "httpx" in found.calls
    for times in (*found.hits.values(), *found.calls.values(), found.bare_call):
        assert len(times) == 2
        assert min(times) > 0
    assert found.firsts.keys() == found.retried.keys() == found.calls.keys() == found.hits.keys()
    assert min(*found.bare_first, *found.bare_refused) > 0
