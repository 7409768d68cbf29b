"""JSON values that cannot be changed: what they refuse, what they are equal to, and what is no JSON value."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from wizard_actors.frozen_json import MAX_DEPTH, MAX_VALUES, FrozenDict, FrozenList, NotJsonError, frozen_json

PLAIN: dict[str, Any] = {"a": [1, {"b": "c"}], "d": None, "e": -0.5, "f": {}}

CHANGES: list[Callable[[Any], object]] = [
    lambda value: value.__setitem__("a", 1),
    lambda value: value.__delitem__("a"),
    lambda value: value.__ior__({"x": 1}),
    lambda value: value.update(x=1),
    lambda value: value.setdefault("x", 1),
    lambda value: value.pop("a"),
    lambda value: value.popitem(),
    lambda value: value.clear(),
    lambda value: value["a"].__setitem__(0, 2),
    lambda value: value["a"].__delitem__(0),
    lambda value: value["a"].__iadd__([2]),
    lambda value: value["a"].__imul__(2),
    lambda value: value["a"].append(2),
    lambda value: value["a"].extend([2]),
    lambda value: value["a"].insert(0, 2),
    lambda value: value["a"].pop(),
    lambda value: value["a"].remove(1),
    lambda value: value["a"].reverse(),
    lambda value: value["a"].sort(),
    lambda value: value["a"].clear(),
    lambda value: value["a"][1].update(b="x"),
]


def frozen() -> Any:  # noqa: ANN401 - tests try on it what its type does not let them
    """Return the plain values, frozen."""
    return frozen_json(PLAIN)


@pytest.mark.parametrize("change", CHANGES)
def test_no_method_changes_anything(change: Callable[[Any], object]) -> None:
    """At no depth; the error says what makes a copy that can be changed."""
    value = frozen()

    with pytest.raises(TypeError, match=r"cannot be changed: `dict\(\.\.\.\)` or `list\(\.\.\.\)`"):
        change(value)

    assert value == PLAIN


def test_every_method_that_changes_a_dict_or_a_list_is_refused() -> None:
    """None that Python has is left out: each is overridden, or only looks."""
    looks = {"copy", "count", "fromkeys", "get", "index", "items", "keys", "values"}

    for plain, kind in ((dict, FrozenDict), (list, FrozenList)):
        public = {name for name in vars(plain) if not name.startswith("_")}
        assert public - looks <= vars(kind).keys()
        assert {"__setitem__", "__delitem__", "__ior__", "__iadd__", "__imul__"} & vars(plain).keys() <= vars(
            kind
        ).keys()


def test_what_is_given_and_what_is_frozen_are_apart() -> None:
    """Whoever changes his own values later changes nothing here."""
    given: dict[str, Any] = {"a": [1], "b": {"c": 2}}
    value = frozen_json(given)
    given["a"].append(2)
    given["b"]["d"] = 3

    assert value == {"a": [1], "b": {"c": 2}}


def test_readers_see_a_dict_and_a_list() -> None:
    """Equal to plain ones, shown like them, written by encoders of JSON; tuples and other mappings become them."""
    assert frozen() == PLAIN
    assert repr(frozen()) == repr(PLAIN)
    assert json.loads(json.dumps(frozen())) == msgspec.json.decode(msgspec.json.encode(frozen())) == PLAIN
    assert frozen_json({"a": (1, 2), "b": MappingProxyType({"c": 1})}) == {"a": [1, 2], "b": {"c": 1}}


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, *(lambda value, p=p: pickle.loads(pickle.dumps(value, p)) for p in range(6))],  # noqa: S301
)
def test_it_is_copied_and_pickled(copied: Callable[[object], Any]) -> None:
    """The copy is equal, and as frozen as it was, all through."""
    value = copied(frozen())

    assert value == PLAIN
    assert (type(value), type(value["a"]), type(value["a"][1])) == (FrozenDict, FrozenList, FrozenDict)


def test_a_copy_of_it_can_be_changed() -> None:
    """`dict`, `list`, `|` and `+` make plain ones."""
    value = frozen()
    made = {**dict(value), "a": [*value["a"], 2]} | {"g": 1}
    made["h"] = list(value["a"])
    made["h"].append(3)

    assert made == {**PLAIN, "a": [1, {"b": "c"}, 2], "g": 1, "h": [1, {"b": "c"}, 3]}
    assert value == PLAIN


@pytest.mark.parametrize(
    ("value", "place", "reason"),
    [
        ({"a": [{"b": {1}}]}, "['a'][0]['b']", "is no JSON value: it is of type set; JSON holds texts, numbers"),
        ({"a": [1, 2], "b": object()}, "['b']", "is of type object"),
        ([date(2025, 1, 1)], "[0]", "is of type date"),
        ([b""], "[0]", "is of type bytes"),
        ([Decimal(1)], "[0]", "is of type Decimal"),
        (math.nan, "", "a number that is not finite"),
        ([-math.inf], "[0]", "a number that is not finite"),
        ([2**63], "[0]", "at most 64 bits"),
        ([-(2**63) - 1], "[0]", "at most 64 bits"),
        ({"a": {"b": 1, 2: 3}}, "['a']", "has a key of type int; JSON's keys are texts"),
        ({"a": {("b",): 1}}, "['a']", "has a key of type tuple"),
        ({"a": "x\ud800"}, "['a']", "is not valid Unicode: surrogates not allowed at character 1"),
        ({"a": {"\ud800": 1}}, "['a']", "has a key that is not valid Unicode"),
    ],
)
def test_what_is_no_json_is_named_with_its_place(value: object, place: str, reason: str) -> None:
    """What JSON cannot hold, or what its readers disagree on."""
    with pytest.raises(NotJsonError) as raised:
        frozen_json(value)

    assert raised.value.place == place
    assert reason in raised.value.reason
    assert str(raised.value) == f"{place} {raised.value.reason}".strip()


def test_the_edges_are_taken() -> None:
    """The largest and smallest integers and floats, the empty ones, 64 levels, 100,000 values."""
    deep: object = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]

    for value in (2**63 - 1, -(2**63), 1.7e308, 5e-324, "", [], {}, "\0", deep, [0] * (MAX_VALUES - 1)):
        assert frozen_json(value) == value


def test_subclasses_become_what_json_reads_back() -> None:
    """A text, a number and a flag of a class of one's own are plain ones."""

    class Word(str):
        __slots__ = ()

    class Count(int):
        pass

    taken: Any = frozen_json([Word("a"), Count(1), True])

    assert [type(each) for each in taken] == [str, int, bool]


def nested(value: object, times: int) -> object:
    """Return a value in so many lists."""
    for _ in range(times):
        value = [value]
    return value


def test_what_holds_itself_is_refused() -> None:
    """As is all that is nested deeper than readers of JSON go."""
    loop: dict[str, object] = {}
    loop["a"] = loop

    for value in (loop, nested(1, MAX_DEPTH + 1), nested([], MAX_DEPTH)):
        with pytest.raises(NotJsonError, match=r"^nests deeper than 64 levels$"):
            frozen_json(value)


def test_what_grows_when_it_is_written_is_refused_in_time() -> None:
    """Fifty lists that hold the one before twice are 2^50 values in JSON, and are refused after 100,000."""
    shared: object = 1
    for _ in range(50):
        shared = [shared, shared]

    for value in (shared, [0] * MAX_VALUES):
        with pytest.raises(NotJsonError, match=r"^holds more than 100,000 values$"):
            frozen_json(value)
