"""The contract of sinks: sound ones pass it, and each promise is broken by a sink that is caught by its test."""

from __future__ import annotations

import importlib
import pkgutil
import time
import unittest
from collections.abc import Callable, Collection
from contextlib import suppress

import pytest
from attrs import fields, frozen

import wizard_actors
from wizard_actors.errors import RateLimitError
from wizard_actors.event_stream import EventStream
from wizard_actors.events import AttemptEnded, Event, RequestEnded
from wizard_actors.metrics import Metrics
from wizard_actors.testing.sink import SinkContract, event_kinds, event_samples


class Counter:
    """Counts events by kind and model."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.closed = False

    def hear(self, event: Event) -> None:
        self.count(type(event).__name__, getattr(event, "model", None))

    def count(self, *labels: object) -> None:
        name = ".".join(str(label) for label in labels)
        self.counts[name] = self.counts.get(name, 0) + 1


class CounterContract(SinkContract):
    """Not collected by itself: its subclasses name the sink."""

    sink: type[Counter] = Counter

    def make(self, events: EventStream) -> Callable[[Event], None]:
        self.made = self.sink()
        return self.made.hear

    def series(self) -> Collection[str]:
        return self.made.counts

    def close(self) -> None:
        self.made.closed = True


class TestCounter(CounterContract):
    """A sound sink keeps every promise, and is closed each time."""

    def teardown_method(self) -> None:
        assert self.made.closed


class TestMetrics(SinkContract):
    """The counts behind `client.metrics()` are such a sink too; it has no names to tell."""

    def make(self, events: EventStream) -> Callable[[Event], None]:
        return Metrics(0.0).apply


# -- broken sinks, and which test catches them


def breaks(contract: SinkContract, test: str) -> str:
    """Run one test of the contract, and return what it complains of."""
    with pytest.raises(AssertionError) as caught:
        getattr(contract, test)()
    return str(caught.value)


class Choosy(Counter):
    """Knows two kinds of events, and takes the rest to be the second."""

    def hear(self, event: Event) -> None:
        if isinstance(event, AttemptEnded):
            self.count(event.model, event.sent)
        else:
            self.count(event.route, event.code)  # type: ignore[attr-defined]  # it is the bug


class Ascii(Counter):
    """Takes every name to be plain."""

    def hear(self, event: Event) -> None:
        str(getattr(event, "model", "")).encode("ascii")


class Priced(Counter):
    """Takes every answer to have a price."""

    def hear(self, event: Event) -> None:
        if isinstance(event, RequestEnded):
            float(event.cost)  # type: ignore[arg-type]  # it is the bug


class Closed(Counter):
    """Takes no kind that it has not heard of."""

    def hear(self, event: Event) -> None:
        if type(event) not in event_kinds():
            raise KeyError(type(event).__name__)


class Slow(Counter):
    def hear(self, event: Event) -> None:
        time.sleep(0.002)


class SlowEnd(Counter):
    """Is slow with one kind of events."""

    def hear(self, event: Event) -> None:
        if isinstance(event, RequestEnded):
            time.sleep(0.002)


class SlowFailure(Counter):
    """Is slow with some events of one kind."""

    def hear(self, event: Event) -> None:
        if isinstance(event, AttemptEnded) and event.error is not None:
            time.sleep(0.02)


class Flushing(Counter):
    """Is slow now and then."""

    def hear(self, event: Event) -> None:
        self.count("told")
        if self.counts["told"] % 50 == 0:
            time.sleep(0.1)


class ByRequest(Counter):
    """Has a series for each request."""

    def hear(self, event: Event) -> None:
        self.count(type(event).__name__, getattr(event, "request_id", None))


class ByInstant(Counter):
    """Has a series for each instant."""

    def hear(self, event: Event) -> None:
        self.count(type(event).__name__, event.at)


class SecondTime(Counter):
    """Bears every kind once."""

    def hear(self, event: Event) -> None:
        if self.counts.get(type(event).__name__, 0) > 100:
            raise OverflowError("too many")
        self.count(type(event).__name__)


@pytest.mark.parametrize(
    ("sink", "test", "complaint"),
    [
        (Choosy, "test_it_takes_every_event", "the sink raised AttributeError"),
        (Ascii, "test_it_takes_every_event", "the sink raised UnicodeEncodeError"),
        (Priced, "test_it_takes_every_event", "the sink raised TypeError"),
        (Closed, "test_it_takes_events_it_does_not_know", "the sink raised KeyError"),
        (Slow, "test_it_is_quick", "more than 1 ms: every request waits for the sink"),
        (SlowEnd, "test_it_is_quick", "an event RequestEnded took "),
        (SlowFailure, "test_it_is_quick", "an event AttemptEnded took "),
        (Flushing, "test_it_is_quick", "an event took "),
        (ByRequest, "test_an_outage_leaves_few_series", "is named after one request"),
        (ByInstant, "test_an_outage_leaves_few_series", "more than 1000: a label has too many values"),
        (SecondTime, "test_an_outage_leaves_few_series", "times during an outage"),
    ],
)
def test_a_broken_sink_is_caught(sink: type[Counter], test: str, complaint: str) -> None:
    """Each promise is broken by a sink, and the test that is named after the promise says so."""
    contract = CounterContract()
    contract.sink = sink

    assert complaint in breaks(contract, test)
    assert contract.made.closed


class Echoing(SinkContract):
    """Publishes what it hears, and swallows the refusal."""

    def make(self, events: EventStream) -> Callable[[Event], None]:
        def hear(event: Event) -> None:
            with suppress(RuntimeError):
                events.publish(event)

        return hear


class Answering(SinkContract):
    """Publishes what it has heard of one kind, where that has failed."""

    def make(self, events: EventStream) -> Callable[[Event], None]:
        def hear(event: Event) -> None:
            if isinstance(event, AttemptEnded) and isinstance(event.error, RateLimitError):
                with suppress(RuntimeError):
                    events.publish(event)

        return hear


def test_a_sink_that_publishes_at_some_events_is_caught() -> None:
    """Whatever stands in the event that makes it publish."""
    assert "the sink published AttemptEnded" in breaks(Answering(), "test_it_publishes_nothing")


def test_a_sink_that_publishes_is_caught() -> None:
    """It is caught though it swallows the refusal, and though every other test passes it."""
    assert "the sink published ActorChanged" in breaks(Echoing(), "test_it_publishes_nothing")


def test_the_contract_runs_without_pytest() -> None:
    """A subclass that is a `unittest.TestCase` too is run by the standard library's runner."""
    case = type("Case", (CounterContract, unittest.TestCase), {})
    result = unittest.TestResult()

    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)

    assert result.testsRun >= 5
    assert result.wasSuccessful(), result.failures


# -- the samples


def test_every_event_there_is_has_samples() -> None:
    """Each class of event in the package is told to a sink: one that comes to it without samples fails here."""
    public = {
        kind
        for module in pkgutil.walk_packages(wizard_actors.__path__, "wizard_actors.")
        if not module.name.startswith(("wizard_actors.testing", "wizard_actors.__main__"))
        for kind in vars(importlib.import_module(module.name)).values()
        if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
    }

    assert public == set(event_kinds())


@pytest.mark.parametrize("kind", event_kinds(), ids=lambda kind: kind.__name__)
def test_samples_are_of_their_kind_and_can_be_shown(kind: type[Event]) -> None:
    """Every sample is an event such as a client might publish: it has its type's facts, and a form in JSON's types."""
    samples = list(event_samples(kind))

    assert len(samples) > len(fields(kind))
    assert all(type(sample) is kind and sample.to_dict()["at"] is not None for sample in samples)


@frozen
class Odd(Event):
    what: complex


def test_a_fact_of_an_unknown_type_is_told() -> None:
    """An event whose facts the samples cannot make is an error, not passed over."""
    with pytest.raises(KeyError, match="complex"):
        list(event_samples(Odd))
