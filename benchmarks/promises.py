"""What was promised, beside what was measured: the design's figures, most of them ratios within one run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

from attrs import frozen

from benchmarks.figure import Unit
from benchmarks.results import Results

__all__ = ["Promise", "promises"]


@frozen
class Promise:
    """One promise: `measured`, in `unit`, is to be `bound` at most, or at least where `at_least`.

    `measured` is None where there is no figure. `aim` is what we want of ourselves beyond it, where that is stricter.
    """

    what: str
    bound: float
    measured: float | None
    unit: Unit = "x"
    at_least: bool = False
    aim: float | None = None

    @property
    def kept(self) -> bool | None:
        """Whether it is kept; None where nothing was measured."""
        return self._within(self.bound)

    @property
    def aimed(self) -> bool | None:
        """Whether the aim is met; None where there is none, or nothing was measured."""
        return None if self.aim is None else self._within(self.aim)

    @property
    def margin(self) -> float | None:
        """The part of the bound that is to spare; negative where the promise is broken."""
        if self.measured is None:
            return None
        part = self.measured / self.bound
        return part - 1 if self.at_least else 1 - part

    def _within(self, bound: float) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= bound if self.at_least else self.measured <= bound


OURS: Final = {"wizard": "httpx's transport", "wizard_fast": "our transport"}
"""The contenders that are whole clients of ours, and what each goes over."""


def promises(results: Results) -> list[Promise]:
    """Return every promise of the design, with what a run measured."""
    return [*_calls(results), *_asks(results), *_endpoint(results), *_bounds(results)]


def _calls(results: Results) -> Iterator[Promise]:
    for ours, over in OURS.items():
        beside_httpx = {"wizard": 1.25, "wizard_fast": 0.7}[ours]
        for peer, named, bound in (
            ("httpx_trio", "bare httpx", beside_httpx),
            ("openai_sdk", "the openai SDK", 0.5),
            ("litellm_router", "litellm's Router", 0.1),
        ):
            ratio = _ratio(results, "call", "p50_us", ours, peer)
            yield Promise(f"a whole call over {over}, beside {named}", bound, ratio)
        for peer, named, bound in (
            ("openai_sdk", "the openai SDK", 0.25),
            ("litellm_router", "litellm's Router", 0.05),
        ):
            ratio = _ratio(results, "stream", "cpu_us", ours, peer)
            yield Promise(f"processor time of a 50-chunk stream over {over}, beside {named}", bound, ratio)
    yield Promise("a cache hit", 40.0, _value(results, "hit", "p50_us", "wizard"), "us")


def _asks(results: Results) -> Iterator[Promise]:
    yield Promise("an ask", 15.0, _value(results, "ask", "p50_us", "wizard_messages"), "us")
    # By processor time: among so many at once, what one costs is not how long its caller waits.
    together = _value(results, "ask64", "cpu_us", "wizard_messages")
    yield Promise("an ask, 64 callers at once, processor time", 4.0, together, "us")
    for peer, named, bound in (("pykka", "Pykka", 4.0), ("triotp", "triotp", 1.5)):
        times = _ratio(results, "ask", "p50_us", peer, "wizard_messages")
        yield Promise(f"how many times as long {named} takes for an ask", bound, times, at_least=True)


def _endpoint(results: Results) -> Iterator[Promise]:
    times = _ratio(results, "endpoint", "per_s", "wizard_endpoint", "litellm_proxy")
    named = "the HTTP endpoint's {} over 16 connections, beside litellm's proxy"
    yield Promise(named.format("requests a second"), 8.0, times, at_least=True)
    late = _ratio(results, "endpoint", "p99_us", "wizard_endpoint", "litellm_proxy")
    yield Promise(named.format("99th percentile"), 1.0, late)


def _bounds(results: Results) -> Iterator[Promise]:
    """Yield what is bounded among the figures of a single process."""
    for figure in results.figures:
        if figure.bound is not None:
            what = f"{figure.suite}: {figure.name}"
            yield Promise(what, figure.bound, figure.value, figure.unit, at_least=figure.unit == "1/s")


def _ratio(results: Results, suite: str, measure: str, one: str, other: str) -> float | None:
    above, below = _value(results, suite, measure, one), _value(results, suite, measure, other)
    return None if above is None or not below else above / below


def _value(results: Results, suite: str, measure: str, contender: str) -> float | None:
    found = results.outcome(contender, suite)
    return None if found is None else cast("float | None", getattr(found, measure))
