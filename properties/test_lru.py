"""The store against a plain list, at any instants; keys of any prompts."""

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from wizard_actors.config import ModelConfig
from wizard_actors.lru import ENTRY_OVERHEAD, Found, TtlLru, cache_key
from wizard_actors.types import Image, Message, Prompt, Text, Tool, ToolCall

KEYS = st.sampled_from([bytes([number]) for number in range(8)])
ROOM = 5 * (ENTRY_OVERHEAD + 50)
TTL, STALE_FOR = 10.0, 4.0


class Store(RuleBasedStateMachine):
    """Put, get, remove and expire in any order, at a clock that goes on and back; a list says what has to be there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.count = 0
        self.store: TtlLru[int] = TtlLru(max_entries=4, max_bytes=ROOM, ttl=TTL, stale_for=STALE_FOR)
        self.model: list[tuple[bytes, int, int, float]] = []  # key, value, size, stored at; the last used one last

    @rule(step=st.sampled_from([0.0, 1.0, 5.0, 12.0, -3.0]))
    def wait(self, step: float) -> None:
        self.now += step

    @rule(key=KEYS, size=st.integers(0, ENTRY_OVERHEAD * 6))
    def put(self, key: bytes, size: int) -> None:
        self.count += 1
        fits = self.store.put(key, self.count, size, self.now)
        assert fits is (size + ENTRY_OVERHEAD <= ROOM)
        self.model = [entry for entry in self.model if entry[0] != key]
        if not fits:
            return
        self.forget_what_is_gone()
        self.model.append((key, self.count, size, self.now))
        while len(self.model) > 4 or sum(entry[2] + ENTRY_OVERHEAD for entry in self.model) > ROOM:
            self.model.pop(0)

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        found = self.store.get(key, self.now)
        entry = next((entry for entry in self.model if entry[0] == key), None)
        if entry is None or self.now >= entry[3] + TTL + STALE_FOR:
            assert found is None
            self.model = [each for each in self.model if each is not entry]
        else:
            assert found == Found(entry[1], fresh=self.now < entry[3] + TTL)
            self.model.remove(entry)
            self.model.append(entry)

    @rule(key=KEYS)
    def remove(self, key: bytes) -> None:
        assert self.store.remove(key) is any(entry[0] == key for entry in self.model)
        self.model = [entry for entry in self.model if entry[0] != key]

    @rule()
    def expire(self) -> None:
        self.store.expire(self.now)
        assert self.store.next_expiry() > self.now
        self.forget_what_is_gone()

    def forget_what_is_gone(self) -> None:
        """Entries go by age: one that a clock gone back made younger than those after it keeps them for longer."""
        for entry in sorted(self.model, key=lambda entry: entry[1]):
            if self.now < entry[3] + TTL + STALE_FOR:
                return
            self.model.remove(entry)

    @invariant()
    def agrees(self) -> None:
        assert list(self.store) == [entry[0] for entry in self.model]
        assert len(self.store) == len(self.model) <= 4
        assert self.store.bytes == sum(entry[2] + ENTRY_OVERHEAD for entry in self.model) <= ROOM
        assert all(self.store.peek(key) == value for key, value, _, _ in self.model)


TestStore = Store.TestCase
TestStore.settings = settings(stateful_step_count=40, max_examples=2 * settings().max_examples)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, width=16) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.integers(0, 3), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)
PARTS = st.one_of(
    st.builds(Text, TEXTS),
    st.builds(Image, TEXTS.map("http://".__add__)),
    st.builds(Image, data=st.binary(max_size=4), media_type=TEXTS),
)
CALLS = st.builds(ToolCall, TEXTS, TEXTS, TEXTS)
MESSAGES = st.one_of(
    st.builds(Message, st.sampled_from(["user", "assistant"]), TEXTS | st.lists(PARTS, min_size=1, max_size=2)),
    st.builds(Message, st.just("assistant"), tool_calls=st.lists(CALLS, min_size=1, max_size=2)),
)
USUAL = Message("user", "Why?")
PROMPTS = st.builds(
    Prompt,
    st.lists(MESSAGES, max_size=3).map(lambda some: [USUAL, *some]),
    system=st.none() | TEXTS,
    tools=st.lists(st.builds(Tool, TEXTS, TEXTS, OBJECTS, st.booleans()), max_size=2),
    tool_choice=st.none() | TEXTS,
    response_schema=st.none() | OBJECTS,
    temperature=st.none() | st.integers(0, 2) | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    max_tokens=st.none() | st.integers(1, 9),
    stop=st.lists(TEXTS, max_size=2),
    seed=st.none() | st.integers(0, 9),
    extra=OBJECTS,
)
MODEL = ModelConfig(name="m", provider="openai")


def spelled(value: object) -> object:
    """Return `value` so that two are equal only where type and content are, whatever the order of a mapping's keys."""
    if isinstance(value, dict):
        return ("mapping", frozenset((spelled(key), spelled(each)) for key, each in value.items()))
    if isinstance(value, (list, tuple)):
        return ("list", tuple(map(spelled, value)))
    if isinstance(value, (Prompt, Message, Text, Image, Tool, ToolCall)):
        names = [each.name for each in attrs.fields(type(value))]
        return (type(value).__name__, tuple((name, spelled(getattr(value, name))) for name in names))
    return (type(value).__name__, repr(value))


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
