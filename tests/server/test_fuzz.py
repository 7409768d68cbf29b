"""Bad clients by the hundred: the server goes on, tells each what it did wrong, and keeps nothing of any.

`make fuzz` runs ten thousand of them; `make fuzz CASES=...` as many as one likes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.server.fuzz import KINDS, fuzz
from wizard_actors.protocol.frames import Incoming
from wizard_actors.server.access import Caller
from wizard_actors.server.admission import Admission
from wizard_actors.server.connection import Connection
from wizard_actors.server.handshake import Handshake

CASES = int(os.environ.get("FUZZ_CASES", "600"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))


@pytest.mark.long
def test_bad_clients_are_told_so_and_leave_nothing_behind(report_line: Callable[[str], None]) -> None:
    """Nothing escapes, nobody waits in vain, good clients are answered throughout, and nothing is left afterwards."""
    report = fuzz(SEED, CASES)

    assert report.problems == []
    assert report.cases.total() == CASES
    assert set(report.cases) == set(KINDS)
    assert report.answered >= CASES / 8
    report_line(f"fuzz: {CASES:,} cases of {len(report.cases)} kinds, {report.answered:,} answers to good clients")


def test_a_run_is_known_by_its_seed() -> None:
    """What a seed found can be found again."""
    assert fuzz(7, 40).cases == fuzz(7, 40).cases


def found(kinds: list[str], told: str) -> bool:
    """Say whether the fuzzer finds a fault that was planted, and names it so."""
    return any(told in problem for problem in fuzz(1, 40, kinds).problems)


def test_an_exception_beside_all_guards_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a frame raises in the connection itself."""

    async def take(_self: Connection, _incoming: Incoming) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Connection, "_take", take)

    assert found(["bad_messages"], "planted")


def test_an_exception_that_leaves_the_handler_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nothing catches."""

    async def caller(_self: Handshake, _access: object) -> None:
        raise KeyboardInterrupt("planted")

    monkeypatch.setattr(Handshake, "caller", caller)

    with pytest.raises(BaseExceptionGroup):
        fuzz(1, 1, ["good"])


def test_what_is_left_behind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is counted for ever."""
    real, kept = Admission.request, []

    @contextmanager
    def request(self: Admission, caller: Caller, connection: object, settings: object) -> Iterator[None]:
        whole = real(self, caller, connection, settings)  # type: ignore[arg-type]  # passed on as they came
        whole.__enter__()
        kept.append(whole)
        yield

    monkeypatch.setattr(Admission, "request", request)

    assert found(["good"], "in the end there were left")


def test_a_wrong_code_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that says something else."""
    monkeypatch.setattr("wizard_actors.server.connection.METHODS", {})

    assert found(["good"], "owed")


@pytest.mark.long
def test_a_request_without_an_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody waits for it in vain."""

    async def say(_self: Connection, _text: str) -> None:
        """Lose it."""

    monkeypatch.setattr(Connection, "_say", say)

    assert found(["bad_messages"], "waited in vain") or found(["bad_messages"], "was closed")
