"""Which call a result answers, and ids that fit."""

import re

import pytest

from wizard_actors.providers.tool_rounds import OpenCalls, fitting_id


def test_calls_of_one_message_are_answered_in_their_order() -> None:
    """Whatever comes between them; some providers give all of them the same id."""
    calls = OpenCalls[str]()
    calls.called([("0", "a"), ("1", "b"), ("0", "c"), ("0", "d")])
    assert [calls.answered(each) for each in ("0", "1", "0", "0")] == ["a", "b", "c", "d"]


def test_a_result_too_many_is_the_last_calls() -> None:
    """There is nothing better to make of it."""
    calls = OpenCalls[str]()
    calls.called([("0", "a"), ("0", "b")])
    assert [calls.answered("0") for _ in range(3)] == ["a", "b", "b"]


def test_an_id_that_comes_again_means_the_latest_message() -> None:
    """Also where a call before it was never answered; the calls of other ids stay."""
    calls = OpenCalls[str]()
    calls.called([("0", "old"), ("0", "older"), ("1", "other")])
    calls.called([("0", "new")])
    assert (calls.answered("0"), calls.answered("1")) == ("new", "other")


def test_a_result_of_no_call_answers_none() -> None:
    """It is for the protocol to say what that means."""
    assert OpenCalls[str]().answered("0") is None


@pytest.mark.parametrize("pattern", ["(?s:.{1,40})", "[A-Za-z0-9]{9}"])
@pytest.mark.parametrize("call_id", ["", "c" * 41, "functions.get:0", "\ud83d" * 50, "abc123XYZ"])
def test_an_id_fits_and_is_always_the_same(call_id: str, pattern: str) -> None:
    """One that fits already is kept."""
    fitting = fitting_id(call_id, pattern)
    assert re.fullmatch(pattern, fitting)
    assert fitting_id(call_id, pattern) == fitting
    assert (fitting == call_id) is (re.fullmatch(pattern, call_id) is not None)
