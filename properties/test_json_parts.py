"""JSON as others write it, for every value, and for every text that is cut anywhere between two values."""

import json
import math
from functools import reduce

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.providers.json_parts import BAD_JSON, JsonStream, decode

UNITS = st.text(st.sampled_from("a\\u\ud83d\ude00\U0001f600"), max_size=6)
JSON: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | UNITS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(UNITS, inner, max_size=3),
    max_leaves=8,
)


def valid(text: str) -> str:
    """Return the text with its pairs of halves joined, and U+FFFD for every other."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def mended(value: object) -> object:
    """Return what a value is when all in it is valid."""
    match value:
        case str():
            return valid(value)
        case float():
            return value if math.isfinite(value) else None
        case list():
            return [mended(each) for each in value]
        case dict():
            return {valid(key): mended(each) for key, each in value.items()}
    return value


@given(value=JSON)
def test_every_value_is_read_as_valid_json(value: object) -> None:
    """What leaves can be written as JSON again, and says the same."""
    read = decode(json.dumps(value).encode())
    assert read == mended(value)
    assert msgspec.json.decode(msgspec.json.encode(read)) == read


@given(data=st.binary(max_size=20) | JSON.map(lambda value: json.dumps(value).encode()[:-1]))
def test_what_is_no_json_raises_one_of_the_named_errors(data: bytes) -> None:
    """And what is, is what the standard library reads."""
    try:
        read = decode(data)
    except BAD_JSON:
        return
    assert read == mended(json.loads(data))


@given(
    pieces=st.lists(UNITS.filter(bool), min_size=1, max_size=6),
    path=st.lists(st.sampled_from(["a", 0, 1]), min_size=1, max_size=3),
)
def test_a_text_in_pieces_says_the_same_as_in_one(pieces: list[str], path: list[str | int]) -> None:
    """However deep it stands; all that came is told once, in order, and each value under its name."""

    def at(text: object) -> object:
        for key in reversed(path):
            text = {key: text} if isinstance(key, str) else [None] * key + [text]
        return text

    stream = JsonStream()
    told = [
        each for name, piece in enumerate(pieces) for each in stream.feed(json.dumps(at(piece)).encode(), str(name))
    ] + stream.flush()
    assert [name for _, name in told] == [str(name) for name in range(len(pieces))]
    assert "".join(str(reduce(inside, path, value)) for value, _ in told) == valid("".join(map(plain, pieces)))
    assert stream.flush() == []


def inside(value: object, key: str | int) -> object:
    """Return what a list or an object holds there."""
    assert isinstance(value, dict if isinstance(key, str) else list)
    return value[key]  # type: ignore[index]  # as was just asserted


def plain(text: str) -> str:
    """Return the text as JSON says it: two halves that stand together are a character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
