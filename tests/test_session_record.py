"""Stored sessions as values: what they take, what they refuse, and with which words."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from attrs import evolve, frozen
from attrs.exceptions import FrozenInstanceError

from wizard_actors.errors import SerializationError
from wizard_actors.frozen_json import MAX_DEPTH, MAX_VALUES
from wizard_actors.session_record import MAX_ID, SessionRecord, SessionState, SessionSummary, TurnRecord
from wizard_actors.types import Message, Role, TokenUsage

ASKED = [Message(Role.USER, "?")]


def record(**changes: Any) -> SessionRecord:  # noqa: ANN401 - of any field
    """Return a session with some fields of its own."""
    return SessionRecord(**{"id": "alice", "created_at": 5.0, **changes})


def test_a_new_session_has_never_changed() -> None:
    """Its other times are that of its creation, its version the first."""
    made = record()

    assert (made.version, made.state, made.updated_at, made.used_at) == (1, SessionState.CREATED, 5.0, 5.0)
    assert record(updated_at=7.0).used_at == 7.0


def test_the_messages_are_those_of_all_turns() -> None:
    """In order."""
    turns = [TurnRecord([Message(Role.USER, text), Message(Role.ASSISTANT, text * 2)], at=1) for text in "ab"]

    assert [message.text for message in record(turns=turns).messages] == ["a", "aa", "b", "bb"]


def test_cost_and_usage_are_those_of_all_turns() -> None:
    """Where they are known: a turn of unknown cost or usage adds nothing, and no known cost is none at all."""
    known = TurnRecord(ASKED, at=1, usage=TokenUsage(1, 2, 3, 4, 5), cost=Decimal("0.10"))
    unknown = TurnRecord(ASKED, at=1)

    both = record(turns=[known, unknown, known])

    assert (str(both.cost), both.usage) == ("0.20", TokenUsage(2, 4, 6, 8, 10))
    assert (record(turns=[unknown]).cost, record(turns=[unknown]).usage) == (None, TokenUsage())


def test_a_summary_has_no_content() -> None:
    """Id, version, state, number of turns and times, and nothing that anybody said."""
    made = record(turns=[TurnRecord(ASKED, at=1)], version=3, state="active", updated_at=6, used_at=7, system="secret")

    assert made.summary == SessionSummary("alice", 3, SessionState.ACTIVE, 1, 5.0, 6.0, 7.0)


def test_a_record_is_frozen() -> None:
    """It is changed by making another."""
    with pytest.raises(FrozenInstanceError):
        record().version = 2  # type: ignore[misc]  # what is tested


def test_context_is_a_copy() -> None:
    """What the program does to its own values later does not reach the record; tuples become lists."""
    tags = ["a"]
    made = record(context={"tags": tags, "pair": (1, 2)})
    tags.append("b")

    assert made.context == {"tags": ["a"], "pair": [1, 2]}


def test_context_cannot_be_changed() -> None:
    """At no depth: what was not checked would be stored as something else, or never be read again."""
    made: Any = record(context={"tags": ["a"], "user": {"id": 1}})

    changes: list[Callable[[], object]] = [
        lambda: made.context.update(score=math.nan),
        lambda: made.context["tags"].append({1, 2}),
        lambda: made.context["user"].pop("id"),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="cannot be changed"):
            change()

    assert made.context == {"tags": ["a"], "user": {"id": 1}}


def test_a_record_is_copied_and_pickled() -> None:
    """With its context, which stays frozen."""
    made = record(context={"tags": ["a"]}, turns=[TurnRecord([Message(Role.USER, "?")], at=1, cost=Decimal("0.10"))])

    for copied in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):  # noqa: S301
        assert copied == made
        with pytest.raises(TypeError, match="cannot be changed"):
            copied.context["x"] = 1  # type: ignore[index]  # the mistake


def test_context_has_a_bound() -> None:
    """A value that is shared again and again is refused after 100,000, before it is two to the power of fifty."""
    shared: object = 1
    for _ in range(50):
        shared = [shared, shared]

    with pytest.raises(SerializationError, match="a session's context holds more than 100,000 values"):
        record(context={"shared": shared})
    assert MAX_VALUES == 100_000


@frozen
class MarkedMessage(Message):
    mark: str = "lost"


@frozen
class CountedUsage(TokenUsage):
    calls: int = 1


def test_costs_of_many_digits_are_added() -> None:
    """The dearest turn and the cheapest one: nothing overflows, and nothing is printed on a thousand lines."""
    costs = [Decimal("9" * 30), Decimal("1E+29"), Decimal("1E-100"), Decimal("-1E+29")]
    made = record(turns=[TurnRecord(ASKED, at=1, cost=cost) for cost in costs])

    assert len(f"{made.cost:f}") < 200


def test_a_subclass_is_refused() -> None:
    """Its own fields would be lost without a word."""
    with pytest.raises(SerializationError, match="messages must be Message objects, not MarkedMessage"):
        TurnRecord([MarkedMessage(Role.USER, "?")], at=1)
    with pytest.raises(SerializationError, match="usage must be a TokenUsage, not CountedUsage"):
        TurnRecord(ASKED, at=1, usage=CountedUsage(1, 2))


@pytest.mark.parametrize("name", ["a", "a/b", "..", " ", "\u202e", "\U0001f9d9" * MAX_ID, "x" * MAX_ID])
def test_names_may_be_odd(name: str) -> None:
    """Up to 200 characters of any script."""
    assert record(id=name).id == name


@pytest.mark.parametrize("name", ["", "x" * (MAX_ID + 1), "a\nb", "\x00", "\x7f", "\x85", "\ud800", 5, None])
def test_names_without_use_are_refused(name: object) -> None:
    """None, too long, control characters, half a surrogate pair: some storage could not keep them."""
    with pytest.raises(SerializationError, match="a session's id is a text of 1 to 200 characters"):
        record(id=name)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: record(version=0), "version must be a whole number from 1 on, not 0"),
        (lambda: record(version=True), "version must be a whole number from 1 on, not True"),
        (lambda: record(state="asleep"), "state is one of created, active, closed, expired, not 'asleep'"),
        (lambda: record(created_at=math.nan), "times must be wall-clock seconds, finite numbers, not nan"),
        (lambda: record(used_at=10**400), "times must be wall-clock seconds"),
        (lambda: record(updated_at="now"), "times must be wall-clock seconds, finite numbers, not 'now'"),
        (lambda: record(created_at=True), "times must be wall-clock seconds, finite numbers, not True"),
        (lambda: record(system=5), "system must be a text, not int"),
        (lambda: record(system="\ud83d"), "system is not valid Unicode: surrogates not allowed at character 0"),
        (lambda: record(turns=["Why?"]), "turns must be TurnRecord objects, not str"),
        (lambda: record(context=[1]), "context must be a mapping, not list"),
        (lambda: record(context={1: 2}), "context has a key of type int; JSON's keys are texts"),
        (lambda: record(context={"\ud800": 2}), "context has a key that is not valid Unicode"),
        (lambda: record(context={"a": [{"b": {1, 2}}]}), r"context\['a'\]\[0\]\['b'\] is no JSON value.*type set"),
        (lambda: record(context={"a": math.inf}), r"context\['a'\] is no JSON value"),
        (lambda: record(context={"a": 2**63}), r"context\['a'\] is no JSON value.*64 bits"),
        (lambda: record(context={"a": b"x"}), r"context\['a'\] is no JSON value.*type bytes"),
        (lambda: record(context={"a": "\ud800"}), r"context\['a'\] is not valid Unicode"),
        (lambda: TurnRecord(["Why?"], at=1), "messages must be Message objects, not str"),  # type: ignore[list-item]
        (lambda: TurnRecord(ASKED, at=1, usage={}), "usage must be a TokenUsage, not dict"),  # type: ignore[arg-type]
        (lambda: TurnRecord([], at=1), "a turn has at least one message"),
        (lambda: TurnRecord(ASKED, at=1, cost=Decimal("NaN")), "cost must be a finite Decimal, not Decimal"),
        (lambda: TurnRecord(ASKED, at=1, cost=Decimal("1E+30")), "at most 30 digits before the point and 100 after"),
        (lambda: TurnRecord(ASKED, at=1, cost=Decimal("0E+9999999")), "at most 30 digits before the point"),
        (lambda: TurnRecord(ASKED, at=1, cost=Decimal("1E-101")), "at most 30 digits before the point"),
        (lambda: TurnRecord(ASKED, at=1, cost=0.1), "cost must be a finite Decimal, not 0.1"),  # type: ignore[arg-type]
        (lambda: TurnRecord(ASKED, at=1, finish_reason="stop"), "finish_reason must be a FinishReason"),  # type: ignore[arg-type]
        (lambda: TurnRecord(ASKED, at=1, model=None), "model must be a text, not NoneType"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_stored_is_refused_at_once(make: Callable[[], object], told: str) -> None:
    """Not only when it is saved; the message says which field, and what it takes."""
    with pytest.raises(SerializationError, match=told):
        make()


def test_context_that_contains_itself_is_refused() -> None:
    """As is what nests deeper than readers of JSON go."""
    loop: list[object] = []
    loop.append(loop)
    deep: object = 1
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]

    assert record(context={"deep": deep}).context == {"deep": deep}
    for value in (loop, [deep]):
        with pytest.raises(SerializationError, match="nests deeper than 64 levels"):
            record(context={"value": value})


def test_the_next_version_is_made_with_evolve() -> None:
    """And is checked like a new one."""
    assert evolve(record(), version=2).version == 2
    with pytest.raises(SerializationError):
        evolve(record(), version=-1)
