"""JSON values that cannot be changed: equal to what was given, whatever it is, through copies and encoders."""

from __future__ import annotations

import copy
import pickle

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.frozen_json import FrozenDict, FrozenList, NotJsonError, frozen_json

texts = st.text(max_size=5)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
json_values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
any_values = st.recursive(
    scalars | st.text(st.characters(), max_size=3) | st.integers() | st.floats() | st.binary(max_size=2) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(texts | st.integers(), inner),
    max_leaves=10,
)


@given(json_values)
def test_what_is_frozen_is_equal_to_what_was_given(value: object) -> None:
    """As are its copies, and what is read back of its JSON; freezing it again changes nothing."""
    frozen = frozen_json(value)

    assert frozen == value == frozen_json(frozen)
    assert repr(frozen) == repr(value)
    assert copy.deepcopy(frozen) == pickle.loads(pickle.dumps(frozen)) == value  # noqa: S301
    assert msgspec.json.decode(msgspec.json.encode(frozen)) == value


@given(json_values)
def test_nothing_in_it_can_be_changed(value: object) -> None:
    """Each dict and each list in it is a frozen one."""
    waiting = [frozen_json(value)]
    while waiting:
        each = waiting.pop()
        assert not isinstance(each, dict | list) or type(each) in {FrozenDict, FrozenList}
        waiting += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()


@given(any_values)
def test_any_value_is_frozen_or_refused(value: object) -> None:
    """With a reason, and what is not refused is read back from JSON as it is."""
    reason = "is JSON"
    try:
        written = msgspec.json.encode(frozen_json(value))
    except NotJsonError as error:
        reason = error.reason
    else:
        assert msgspec.json.decode(written) == frozen_json(value)
    assert reason.startswith(("is ", "has "))
