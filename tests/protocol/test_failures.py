"""Errors on the wire: every class arrives as itself, with its facts, its attempts and its cause."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from tests.protocol.samples import NOW, error_classes, facts_of, sample
from wizard_actors.errors import (
    Attempt,
    CircuitOpenError,
    FallbackError,
    InvalidPromptError,
    NetworkError,
    ProviderTimeoutError,
    RateLimitError,
    RetryError,
    WizardError,
)
from wizard_actors.protocol.failures import attempt_from, cancelled, error_from, fault_of, invalid
from wizard_actors.protocol.frames import Code, Fault, Response, fault_text, read_answer

HERE = 50.0
"""The clock of the client that reads, which has nothing to do with the server's."""

every_class = pytest.mark.parametrize("kind", list(error_classes()), ids=lambda kind: kind.__name__)


def sent(error: WizardError, *, request: str = "1") -> Fault:
    """Return the fault as it comes out of a frame."""
    answer = read_answer(fault_text(fault_of(error, request, now=NOW)))
    assert isinstance(answer, Response)
    assert answer.id == request
    assert answer.fault is not None
    return answer.fault


def arrived(error: WizardError) -> WizardError:
    """Return the error as a client raises it."""
    return error_from(sent(error), now=HERE)


@every_class
def test_every_error_arrives_as_itself(kind: type[WizardError]) -> None:
    """Of its class, with its facts; the instant of a retry is moved to the reader's clock."""
    error = sample(kind)

    found = arrived(error)

    assert type(found) is kind
    assert str(found) == str(error)
    facts, expected = facts_of(found), facts_of(error)
    if "retry_at" in expected:
        assert isinstance(error, CircuitOpenError)
        expected["retry_at"] = HERE + error.retry_after
    assert facts == expected


@every_class
def test_every_error_arrives_with_its_attempts(kind: type[WizardError]) -> None:
    """And the attempts with their errors and costs."""
    attempts = [
        Attempt("primary", 1.5, 0.25, 0.5, sample(NetworkError, "reset"), Decimal("0.0120")),
        Attempt("backup", 2.0, 0.0, error=sample(CircuitOpenError, "open"), sent=False),
        Attempt("backup", 2.0, 1.0, cancelled=True),
        Attempt("backup", 2.0, 3.0, cost=Decimal(0)),
    ]

    found = arrived(sample(kind).with_attempts(attempts)).attempts

    assert [shown(attempt) for attempt in found] == [shown(attempt) for attempt in attempts]
    assert [type(attempt.error) for attempt in found] == [NetworkError, CircuitOpenError, type(None), type(None)]


def shown(attempt: Attempt) -> dict[str, object]:
    """Return what an attempt says, but for the instant that is another clock's."""
    plain = attempt.to_dict()
    error = plain["error"]
    if isinstance(error, dict):
        error.pop("retry_at", None)
    return plain


@pytest.mark.parametrize("kind", [FallbackError, RetryError])
def test_the_cause_is_the_first_failure_that_was_real(kind: type[WizardError]) -> None:
    """What was never sent is no cause."""
    attempts = [
        Attempt("a", 1.0, 0.0, error=sample(CircuitOpenError, "open"), sent=False),
        Attempt("b", 1.0, 0.0, error=sample(NetworkError, "reset")),
        Attempt("c", 1.0, 0.0, error=sample(ProviderTimeoutError, "late")),
    ]

    cause = arrived(kind("all failed").with_attempts(attempts)).__cause__

    assert isinstance(cause, NetworkError)
    assert str(cause) == "reset"


def test_the_time_of_a_retry_is_in_unix_seconds_on_the_wire() -> None:
    """No two machines share a supervisor's clock: `retry_at` is 4.25 s from now, whatever the server's says."""
    data = sent(sample(CircuitOpenError)).data

    assert data["retry_after"] == 4.25
    assert data["retry_at"] == NOW + 4.25


def test_an_error_that_knows_only_how_long_to_wait_says_until_when() -> None:
    """A 429 has no instant of its own."""
    assert sent(sample(RateLimitError)).data["retry_at"] == NOW + 4.25
    assert "retry_at" not in sent(NetworkError("reset", model="a")).data


@every_class
def test_the_code_tells_a_wrong_request_from_what_went_wrong_then(kind: type[WizardError]) -> None:
    """-32602 for what was asked wrongly, -32000 for everything else of ours."""
    wrong = {"access_denied", "config", "env_var", "invalid_prompt", "token_limit", "serialization"}

    assert sent(sample(kind)).code == (Code.INVALID_PARAMS if kind.code in wrong else Code.FAILED)


def test_an_error_of_a_newer_server_is_still_one() -> None:
    """A class that is not known here is the base of all."""
    fault = Fault(Code.FAILED, "new", request=1, data={"code": "from_tomorrow", "message": "new", "flux": 3})

    found = error_from(fault, now=HERE)

    assert type(found) is WizardError
    assert str(found) == "new"


@pytest.mark.parametrize(
    ("fault", "told"),
    [(cancelled(1), "cancelled"), (invalid("`credit` must be", 1), "`credit` must be"), (Fault(-1, "odd"), "odd")],
)
def test_what_the_protocol_says_itself_is_an_error_too(fault: Fault, told: str) -> None:
    """With the text that it has."""
    found = error_from(fault, now=HERE)

    assert isinstance(found, WizardError)
    assert told in str(found)


@pytest.mark.parametrize(
    "data",
    [
        {"code": "circuit_open"},
        {"code": "circuit_open", "retry_after": "soon"},
        {"code": "circuit_open", "retry_after": 10**400},
        {"code": ["network"]},
        {"code": "config", "problems": [{"key": {}, "reason": []}, 5]},
        {"code": "config", "problems": 5},
        {"code": "network", "message": {}, "attempts": [5, {"start": "x", "cost": "NaN", "error": {"code": 9}}]},
        {"code": "network", "attempts": {"a": 1}},
        {},
    ],
)
def test_a_garbled_error_is_still_one(data: dict[str, object]) -> None:
    """As far as it can be read; nothing else is raised in its place."""
    assert isinstance(error_from(Fault(Code.FAILED, "told", data=data), now=HERE), WizardError)


def test_errors_that_nest_without_end_are_read_so_far() -> None:
    """An attempt's error may have attempts; at some level that is no news any more."""
    data: dict[str, object] = {"code": "network"}
    for _ in range(5000):
        data = {"code": "network", "attempts": [{"error": data, "model": data}]}

    assert len(error_from(Fault(Code.FAILED, "deep", data=data), now=HERE).attempts) == 1


@pytest.mark.parametrize("cost", ["NaN", "sNaN", "Infinity", "1e999999", "x", "", 5, None])
def test_costs_that_cannot_be_added_up_are_unknown(cost: object) -> None:
    """One that arrived broken does not make every later sum raise."""
    assert attempt_from({"cost": cost}, now=HERE).cost is None


def test_half_a_surrogate_pair_in_a_message_is_replaced() -> None:
    """An operating system's text may hold one; a frame may not."""
    found = arrived(InvalidPromptError("file \udcff"))

    assert str(found) == "file \N{REPLACEMENT CHARACTER}"


def test_what_is_sent_is_json_for_any_client() -> None:
    """Strings, numbers, booleans, null, lists, objects."""
    error = sample(FallbackError).with_attempts([Attempt("a", 1.0, 2.0, error=sample(RateLimitError))])

    plain = msgspec.json.decode(fault_text(fault_of(error, 7, now=NOW)))

    assert plain["jsonrpc"] == "2.0"
    assert plain["id"] == 7
    assert plain["error"]["data"]["code"] == "all_models_failed"
    assert plain["error"]["data"]["attempts"][0]["error"]["retry_at"] == NOW + 4.25
