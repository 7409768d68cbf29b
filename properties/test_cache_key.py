"""Keys of any prompts: the same for the same question, and for no other."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.cache_key import cache_key
from wizard_actors.config import ModelConfig
from wizard_actors.types import Image, Message, Prompt, Text, Tool, ToolCall

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, width=16) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.integers(0, 3), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)
PARTS = st.one_of(
    st.builds(Text, TEXTS),
    st.builds(Image, TEXTS.map("https://x.test/".__add__)),
    st.builds(Image, data=st.binary(min_size=1, max_size=4), media_type=st.sampled_from(["image/png", "image/gif"])),
)
CALLS = st.builds(ToolCall, TEXTS.map("c".__add__), TEXTS, TEXTS)
MESSAGES = st.one_of(
    st.builds(Message, st.sampled_from(["user", "assistant"]), TEXTS | st.lists(PARTS, min_size=1, max_size=2)),
    st.builds(Message, st.just("assistant"), tool_calls=st.lists(CALLS, min_size=1, max_size=2)),
)
USUAL = Message("user", "Why?")
NAMES = st.text("ab_", min_size=1, max_size=3)
SCHEMAS = OBJECTS.map(lambda some: {**some, "type": "object", "properties": {}, "required": ["a"]})


def answered(some: list[Message]) -> list[Message]:
    """Return a conversation of these messages, in which every call of a tool has its result."""
    conversation = [USUAL]
    for message in some:
        results = [Message("tool", "x", tool_call_id=call.id) for call in message.tool_calls]
        conversation += [message, *results]
    return conversation


PROMPTS = st.builds(
    Prompt,
    st.lists(MESSAGES, max_size=3).map(answered),
    system=st.none() | TEXTS,
    tools=st.lists(st.builds(Tool, NAMES, TEXTS, SCHEMAS, st.booleans()), max_size=2, unique_by=lambda tool: tool.name),
    tool_choice=st.sampled_from([None, "auto", "none"]),
    response_schema=st.none() | OBJECTS,
    temperature=st.none() | st.integers(0, 2) | st.floats(0, 2),
    top_p=st.none() | st.integers(0, 1) | st.floats(0, 1),
    max_tokens=st.none() | st.integers(1, 9),
    stop=st.lists(TEXTS, max_size=2),
    seed=st.none() | st.integers(0, 9),
    extra=OBJECTS,
)
MODEL = ModelConfig(name="m", provider="openai")


def spelled(value: object) -> object:
    """Return `value` so that two are equal only where type and content are, whatever the order of a mapping's keys; the
    type of a temperature or a `top_p` does not count.
    """
    if isinstance(value, dict):
        return ("mapping", frozenset((spelled(key), spelled(each)) for key, each in value.items()))
    if isinstance(value, (list, tuple)):
        return ("list", tuple(map(spelled, value)))
    if isinstance(value, (Prompt, Message, Text, Image, Tool, ToolCall)):
        names = [each.name for each in attrs.fields(type(value))]
        return (type(value).__name__, tuple((name, spelled(of_any_type(name, getattr(value, name)))) for name in names))
    return (type(value).__name__, repr(value))


def of_any_type(name: str, value: object) -> object:
    """Return a field's value, as a float where whole numbers and fractions are the same there."""
    return float(value) if name in {"temperature", "top_p"} and isinstance(value, int) else value


@given(PROMPTS, st.data())
def test_changing_any_field_changes_the_key(prompt: Prompt, data: st.DataObject) -> None:
    """And the same question has the same key, in whatever order its mappings were made."""
    other = data.draw(PROMPTS)
    name = data.draw(st.sampled_from([each.name for each in attrs.fields(Prompt)]))
    changed = attrs.evolve(prompt, **{name: getattr(other, name)})

    one, two = cache_key(prompt, [MODEL]), cache_key(changed, [MODEL])
    assert one is not None
    assert two is not None
    assert (one == two) is (spelled(prompt) == spelled(changed))


@given(JSON)
def test_the_order_of_keys_never_counts(value: object) -> None:
    """At any depth."""
    assert cache_key(Prompt("Why?", extra={"x": value}), []) == cache_key(
        Prompt("Why?", extra={"x": turned(value)}), []
    )


def turned(value: object) -> object:
    """Return `value` with every mapping the other way round."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(each) for each in value] if isinstance(value, list) else value
