"""What became of requests of late: bounded, and no more of it than says what failed."""

from __future__ import annotations

from collections.abc import Iterable

from wizard_actors.errors import CircuitOpenError, OverloadedError, WizardError
from wizard_actors.events import (
    AttemptBegan,
    AttemptEnded,
    BreakerChanged,
    Event,
    FirstToken,
    RequestBegan,
    RequestEnded,
)
from wizard_actors.server.recent import ATTEMPTS_AT_MOST, FAILURES_KEPT, OPEN_AT_MOST, Recent

DOWN = OverloadedError("down", model="a", status=503)
OPEN = CircuitOpenError("open", model="a", retry_at=9.0, retry_after=8.0)


def told(*events: Event) -> Recent:
    """Return what has been told of `events`, at noon."""
    recent = Recent(clock=lambda: 43200.0)
    for event in events:
        recent.apply(event)
    return recent


def request(name: str, *attempts: WizardError | None, code: str | None = None, sent: bool = True) -> Iterable[Event]:
    """Yield the events of a request whose attempts end so, from 1.0 to 3.0."""
    yield RequestBegan(1.0, name, "wizard", "sequential")
    for number, error in enumerate(attempts, 1):
        yield AttemptBegan(1.0, name, "a", number)
        yield AttemptEnded(2.0, name, "a", number, sent, error, duration=0.5, delay=0.1)
    model = None if code else "a"
    yield RequestEnded(3.0, name, "wizard", model, code, len(attempts), 2.0, served_by=None if code else "retry")


def test_a_request_that_needed_more_than_one_attempt_is_kept_with_them() -> None:
    """With each attempt's model, error and time; the answer came in the end."""
    recent = told(*request("x", DOWN, None))
    assert recent.failures() == [
        {
            "request_id": "x",
            "time": 43200.0,
            "route": "wizard",
            "strategy": "sequential",
            "code": None,
            "model": "a",
            "served_by": "retry",
            "seconds": 2.0,
            "attempts": 2,
            "tried": [
                {
                    "number": 1,
                    "model": "a",
                    "sent": True,
                    "hedge": False,
                    "cancelled": False,
                    "seconds": 0.5,
                    "waited": 0.1,
                    "error": {"code": "overloaded", "status": 503, "message": "down"},
                },
                {
                    "number": 2,
                    "model": "a",
                    "sent": True,
                    "hedge": False,
                    "cancelled": False,
                    "seconds": 0.5,
                    "waited": 0.1,
                    "error": None,
                },
            ],
        }
    ]


def test_what_went_well_is_not_kept() -> None:
    """Neither is what its caller left, nor an answer that passed over an open circuit."""
    recent = told(
        *request("x", None),
        *request("y", code="cancelled"),
        *request("z", OPEN, None, sent=False),
    )
    assert recent.failures() == []


def test_a_request_that_nothing_answered_is_kept() -> None:
    """Also where nothing was sent, or none of its attempts is known."""
    recent = told(*request("x", OPEN, code="circuit_open", sent=False), *request("y", code="deadline_exceeded"))
    assert [(each["request_id"], each["code"]) for each in recent.failures()] == [
        ("y", "deadline_exceeded"),
        ("x", "circuit_open"),
    ]


def test_the_latest_are_kept() -> None:
    """As many as there is room for, the latest first."""
    recent = told(*(event for number in range(FAILURES_KEPT + 5) for event in request(str(number), DOWN, code="x")))
    names = [each["request_id"] for each in recent.failures()]
    assert names == [str(number) for number in reversed(range(5, FAILURES_KEPT + 5))]


def test_attempts_and_messages_are_bounded() -> None:
    """Of many attempts the last are kept, and of a long message the beginning."""
    wordy = OverloadedError("x" * 10_000, model="a", status=503)
    tried = told(*request("x", *[wordy] * 100, code="overloaded")).failures()[0]["tried"]
    assert isinstance(tried, list)
    assert [each["number"] for each in tried] == list(range(101 - ATTEMPTS_AT_MOST, 101))
    assert len(tried[0]["error"]["message"]) < 1000


def test_requests_that_never_end_are_bounded() -> None:
    """The oldest are followed no more."""
    recent = told(
        *(RequestBegan(float(number), str(number), "wizard", "sequential") for number in range(OPEN_AT_MOST + 1))
    )
    shown = recent.in_progress(5000.0, most=10_000)
    assert (len(shown), shown[0]["request_id"]) == (OPEN_AT_MOST, "1")


def test_a_request_in_progress_says_how_far_it_is() -> None:
    """Whom it asks, whether that answers, and for how long it has gone on; not once it has ended."""
    recent = told(
        RequestBegan(1.0, "x", "wizard", "sequential"),
        AttemptBegan(1.0, "x", "a", 1),
        AttemptEnded(2.0, "x", "a", 1, sent=True, error=DOWN),
        AttemptBegan(2.0, "x", "b", 2),
        FirstToken(3.0, "x", "b", 2, 1.0),
    )
    expected = {"route": "wizard", "seconds": 4.0, "attempts_ended": 1, "model": "b", "answering": True}
    assert recent.in_progress(5.0, most=10) == [{"request_id": "x", **expected}]
    recent.apply(RequestEnded(6.0, "x", "wizard", "b", None, 2, 5.0))
    assert recent.in_progress(6.0, most=10) == []


def test_a_circuit_says_since_when_it_is_as_it_is() -> None:
    """And when it is probed, where it is open."""
    recent = told(BreakerChanged(1.0, "a", "open", 11.0), BreakerChanged(2.0, "b", "closed", 0.0))
    assert recent.circuits(5.0) == {
        "a": {"circuit": "open", "seconds": 4.0, "probe_in": 6.0},
        "b": {"circuit": "closed", "seconds": 3.0, "probe_in": None},
    }


def test_what_ends_unknown_is_passed_over() -> None:
    """As requests do that were begun before somebody listened."""
    assert told(*list(request("x", DOWN, code="overloaded"))[1:]).failures() == []
