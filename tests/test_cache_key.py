"""The key of a question: whatever can change the answer changes it, and nothing else does."""

import math
import timeit
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import attrs
import pytest

from wizard_actors.cache_key import OPERATIONAL, cache_key
from wizard_actors.config import (
    LocalConfig,
    ModelConfig,
    RetryConfig,
    Secret,
    SimulatedConfig,
    SupportsConfig,
    TimeoutsConfig,
)
from wizard_actors.providers.openai_request import Dialect, request_body
from wizard_actors.types import Image, Message, Prompt, Role, Signature, Text, Thought, Tool, ToolCall

LOCAL = ModelConfig(name="m", provider="local")
PROMPT = Prompt("Why?")

OTHER_PROMPTS: Mapping[str, Callable[[], Prompt]] = {
    "messages": lambda: Prompt("Why not?"),
    "system": lambda: Prompt("Why?", system="Be brief"),
    "tools": lambda: Prompt("Why?", tools=[Tool("look")]),
    "tool_choice": lambda: Prompt("Why?", tool_choice="none"),
    "parallel_tool_calls": lambda: Prompt("Why?", parallel_tool_calls=False),
    "response_schema": lambda: Prompt("Why?", response_schema={"type": "object"}),
    "temperature": lambda: Prompt("Why?", temperature=0.0),
    "top_p": lambda: Prompt("Why?", top_p=0.5),
    "max_tokens": lambda: Prompt("Why?", max_tokens=5),
    "stop": lambda: Prompt("Why?", stop="."),
    "seed": lambda: Prompt("Why?", seed=0),
    "extra": lambda: Prompt("Why?", extra={"a": 1}),
    "extra_protocol": lambda: Prompt("Why?", extra_protocol="chat"),
}

OTHER_MODELS: Mapping[str, Callable[[], ModelConfig]] = {
    "name": lambda: attrs.evolve(LOCAL, name="other"),
    "provider": lambda: ModelConfig(name="m", provider="openai"),
    "model": lambda: attrs.evolve(LOCAL, model="other"),
    "base_url": lambda: attrs.evolve(LOCAL, base_url="http://127.0.0.1:1/v1"),
    "api_key_env": lambda: attrs.evolve(LOCAL, api_key_env="KEY"),
    "api_key_file": lambda: attrs.evolve(LOCAL, api_key_file=Path("key")),
    "upstream": lambda: attrs.evolve(LOCAL, upstream="unary"),
    "headers": lambda: attrs.evolve(LOCAL, headers={"X-Beta": "1"}),
    "extra": lambda: attrs.evolve(LOCAL, extra={"a": 1}),
    "simulated": lambda: ModelConfig(name="m", provider="simulated", simulated=SimulatedConfig(answer="Yes")),
    "local": lambda: attrs.evolve(LOCAL, local=LocalConfig(gguf=Path("other.gguf"))),
}


def key(prompt: Prompt = PROMPT, *models: ModelConfig, tenant: str = "") -> bytes:
    """Return the key, which there has to be."""
    found = cache_key(prompt, models or (LOCAL,), tenant=tenant)
    assert found is not None
    return found


@pytest.mark.parametrize("name", [each.name for each in attrs.fields(Prompt)])
def test_the_key_omits_no_field_of_a_prompt(name: str) -> None:
    """A new field fails here until somebody says what changes it."""
    assert key(OTHER_PROMPTS[name]()) != key()


@pytest.mark.parametrize("kind", [Message, Text, Image, Tool, ToolCall, Thought, Signature])
def test_the_key_omits_no_field_of_a_prompts_parts(
    kind: type[Message | Text | Image | Tool | ToolCall | Thought | Signature],
) -> None:
    """Each of them in turn is another than in the same prompt otherwise."""
    parts: dict[type[object], list[object]] = {
        Message: [
            Message("user", "a"),
            Message("user", "b"),
            Message("assistant", "a"),
            Message("user", "a", name="n"),
            Message("tool", "a", tool_call_id="i"),
            Message("tool", "a", tool_call_id="j"),
            Message("tool", "a", tool_call_id="i", is_error=True),
            Message("assistant", "a", tool_calls=[ToolCall("i", "n", "{}")]),
            Message("assistant", "a", thoughts=[Thought("a")]),
        ],
        Text: [Text("a"), Text("b")],
        Image: [
            Image("http://a"),
            Image("http://b"),
            Image(data=b"a", media_type="image/png"),
            Image(data=b"b", media_type="image/png"),
            Image(data=b"a", media_type="image/gif"),
        ],
        Tool: [Tool("a"), Tool("b"), Tool("a", "d"), Tool("a", parameters={"type": "object"}), Tool("a", strict=True)],
        ToolCall: [
            ToolCall("i", "n", "a"),
            ToolCall("j", "n", "a"),
            ToolCall("i", "m", "a"),
            ToolCall("i", "n", "b"),
            ToolCall("i", "n", "a", Signature("p", "a")),
        ],
        Thought: [Thought(), Thought("a"), Thought(redacted=True), Thought(id="a"), Thought("", Signature("p", "a"))],
        Signature: [Signature("p", "a"), Signature("q", "a"), Signature("p", "b")],
    }
    different = parts[kind]
    changed = {
        each.name
        for each in attrs.fields(kind)
        for one in different
        if getattr(one, each.name) != getattr(different[0], each.name)
    }
    assert changed == {each.name for each in attrs.fields(kind)}
    assert len({key(_prompt_of(one)) for one in different}) == len(different)


def _prompt_of(part: object) -> Prompt:
    match part:
        case Message():
            return Prompt(part, extra={"previous_response_id": "r"})  # the call of a result is there
        case Text() | Image():
            return Prompt(Message("user", (part, Text("x"))))
        case Tool():
            return Prompt("x", tools=[part])
        case ToolCall():
            return Prompt([Message("user", "x"), Message("assistant", tool_calls=[part])])
        case Thought():
            return Prompt([Message("user", "x"), Message("assistant", "y", thoughts=[part])])
        case Signature():
            return _prompt_of(Thought(signature=part))
        case _:
            raise AssertionError(part)


FIELDS = [each.name for each in attrs.fields(ModelConfig) if each.name not in OPERATIONAL]


@pytest.mark.parametrize("name", FIELDS)
def test_the_key_omits_no_setting_that_changes_the_answer(name: str) -> None:
    """Whatever is not known to be operational counts."""
    if name in OTHER_MODELS:
        assert key(PROMPT, OTHER_MODELS[name]()) != key()
    else:
        altered = attrs.evolve(LOCAL)
        object.__setattr__(altered, name, "something else")
        assert key(PROMPT, altered) != key()


def test_two_files_of_weights_are_two_models() -> None:
    """A path counts as what it says; so do two files that hold keys."""
    models = [attrs.evolve(LOCAL, local=LocalConfig(gguf=Path(name))) for name in ("a.gguf", "b.gguf")]
    models += [attrs.evolve(LOCAL, api_key_file=Path(name)) for name in ("a", "b")]
    assert len({key(PROMPT, model) for model in models}) == 4


def test_operational_settings_leave_the_key_alone() -> None:
    """An answer is the same however long one was ready to wait for it, and whatever else its model might be asked."""
    patient = attrs.evolve(
        LOCAL, max_concurrency=7, timeouts=TimeoutsConfig(total=9), retry=RetryConfig(max_attempts=9), enabled=False
    )
    assert key(PROMPT, patient) == key()
    assert key(PROMPT, attrs.evolve(LOCAL, supports=SupportsConfig(tools=False))) == key()


def test_a_header_counts_with_its_value_and_shows_nothing_of_it() -> None:
    """Its name in any case; two values give two keys."""
    first, second = ({"X-Beta": Secret(value)} for value in ("canary-1", "canary-2"))
    keys = {key(PROMPT, attrs.evolve(LOCAL, headers=headers)) for headers in (first, second)}
    assert len(keys) == 2
    assert key(PROMPT, attrs.evolve(LOCAL, headers={"x-beta": Secret("canary-1")})) in keys


def test_the_order_of_the_chain_and_the_tenant_count() -> None:
    """The first model that answers is another; and a tenant gets no other's answers."""
    other = attrs.evolve(LOCAL, name="other")
    assert key(PROMPT, LOCAL, other) != key(PROMPT, other, LOCAL) != key(PROMPT, LOCAL)
    assert len({key(tenant=tenant) for tenant in ("", "a", "b")}) == 3
    assert cache_key(PROMPT, [LOCAL]) == key(tenant="")


@pytest.mark.parametrize("where", ["extra", "parameters", "schema", "model"])
def test_the_order_of_a_mapping_does_not_count(where: str) -> None:
    """At any depth, whatever kind of mapping it is."""

    def asked(mapping: Mapping[str, object]) -> bytes:
        if where == "model":
            return key(PROMPT, attrs.evolve(LOCAL, extra=mapping))
        if where == "parameters":
            return key(Prompt("Why?", tools=[Tool("t", parameters={"default": mapping})]))
        return key(Prompt("Why?", extra=mapping) if where == "extra" else Prompt("Why?", response_schema=mapping))

    one: Mapping[str, object] = {"a": 1, "b": {"c": [1], "d": 2}}
    two: Mapping[str, object] = {"b": {"d": 2, "c": [1]}, "a": 1}
    assert asked(one) == asked(two) == asked(MappingProxyType(two)) != asked({"a": 1, "b": {"c": [2], "d": 1}})


def test_types_are_told_apart() -> None:
    """What is equal in Python is not always the same question."""
    values: list[object] = [
        1,
        1.0,
        "1",
        True,
        [1],
        {"1": 1},
        {1: 1},
        None,
        "",
        [],
        {},
        b"1",
        math.nan,
        math.inf,
        -0.0,
        0.0,
    ]
    assert len({key(Prompt("Why?", extra={"x": value})) for value in values}) == len(values)


def test_a_whole_temperature_is_the_same_as_a_fraction() -> None:
    """As to the JSON that is sent, and to nothing else: true is no number there."""
    assert key(Prompt("Why?", temperature=1)) == key(Prompt("Why?", temperature=1.0)) != key(Prompt("Why?"))
    assert key(Prompt("Why?", top_p=1)) == key(Prompt("Why?", top_p=1.0)) != key(Prompt("Why?", temperature=1))
    assert key(Prompt("Why?", temperature=0)) == key(Prompt("Why?", temperature=0.0))
    assert key(Prompt("Why?", temperature=True)) != key(Prompt("Why?", temperature=1))
    assert key(Prompt("Why?", temperature=2**60 + 1)) != key(Prompt("Why?", temperature=2**60))
    assert cache_key(Prompt("Why?", temperature=10**400), [LOCAL]) is None


def test_an_empty_system_message_is_another_question() -> None:
    """It is sent."""
    asked = [Prompt("Why?", system=""), Prompt("Why?")]
    sent = {request_body(each, model="m", upstream_model="m", dialect=Dialect(), extra={}) for each in asked}
    assert len({key(each) for each in asked}) == len(sent) == 2


def test_a_tenant_may_have_any_name() -> None:
    """One that is no valid Unicode has a key as well, and one of its own."""
    names = ["", "a", "\ud800", "\ud801", "\\ud800", "?", "\ufffd", "\xed\xa0\x80"]
    assert len({key(tenant=name) for name in names}) == len(names)


def test_keys_that_are_no_texts_have_their_place() -> None:
    """As in a `logit_bias`: in any order too."""
    one, two, other = {50256: -100, 7: {"a": 1, "b": 2}}, {7: {"b": 2, "a": 1}, 50256: -100}, {50256: -100, "7": 1}
    asked = [key(Prompt("Why?", extra={"logit_bias": bias})) for bias in (one, two, other)]
    assert asked[0] == asked[1] != asked[2]
    assert key(Prompt("Why?", extra={"logit_bias": {7: 1}})) != key(Prompt("Why?", extra={"logit_bias": {8: 1}}))


def test_what_cannot_be_encoded_has_no_key() -> None:
    """Such a request goes without the cache; it does not fail."""
    loop: dict[str, object] = {}
    loop["loop"] = loop
    knot: dict[object, object] = {}
    knot[1] = knot
    for value in (object(), "\ud800", loop, knot, 2**70, {1: object()}, Secret("canary")):
        assert cache_key(Prompt("Why?", extra={"x": value}), [LOCAL]) is None


def test_a_key_is_quick() -> None:
    """A few microseconds for a short prompt; the bound allows for a slow and busy machine."""
    prompt, chain = Prompt("Why is the sky blue?", system="Be brief"), (LOCAL, attrs.evolve(LOCAL, name="other"))
    seconds = min(timeit.repeat(lambda: cache_key(prompt, chain), number=200, repeat=5)) / 200
    assert seconds < 100e-6


def test_a_key_is_the_same_for_the_same_question() -> None:
    """However it was put together."""
    assert key(Prompt("Why?")) == key(Prompt([Message(Role.USER, "Why?")]))
    assert len(key()) == 32
