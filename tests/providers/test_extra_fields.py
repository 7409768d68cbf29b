"""What a prompt says in the words of one protocol, and what models of another are sent of it."""

import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import httpx
import msgspec
import pytest

from tests.test_docs import ROOT
from wizard_actors.http_api.anthropic_format import ANTHROPIC
from wizard_actors.http_api.openai_format import OPENAI
from wizard_actors.providers.anthropic_request import AnthropicWire
from wizard_actors.providers.base import Call
from wizard_actors.providers.extra_fields import OF_OTHERS
from wizard_actors.providers.gemini_request import GeminiWire
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.openai_wire import ChatWire
from wizard_actors.providers.responses_request import ResponsesWire
from wizard_actors.providers.wire import Wire
from wizard_actors.types import Prompt, Tool

Json = dict[str, Any]  # as JSON comes

URL = httpx.URL("http://x.test/v1")
TOOL = Tool("look")

CHAT: Json = {
    "reasoning_effort": "low",
    "frequency_penalty": 0.5,
    "logit_bias": {"1": 2},
    "verbosity": "low",
    "min_p": 0.1,
}
CLAUDES: Json = {"thinking": {"type": "adaptive"}, "top_k": 3, "output_config": {"effort": "high"}}
"""What a coding agent sends."""

OFFERED: Json = {"tools": [{"type": "function", "function": {"name": "look"}}]}
ASKED: Json = {"model": "wizard", "max_tokens": 9, "messages": [{"role": "user", "content": "Why?"}]}


def settings(extra: Mapping[str, object] | None = None) -> HttpSettings:
    """Return a model's settings."""
    return HttpSettings(name="primary", model="m", base_url="http://x.test/v1", upstream="auto", extra=extra or {})


WIRES: Mapping[str, Callable[[HttpSettings], Wire]] = {
    "chat": lambda given: ChatWire.of(given, URL),
    "responses": lambda given: ResponsesWire.of(given, URL),
    "anthropic": lambda given: AnthropicWire.of(given, URL),
    "gemini": lambda given: GeminiWire.of(given, Random(0)),
}


def sent(protocol: str, prompt: Prompt, extra: Mapping[str, object] | None = None) -> Json:
    """Return the body that a model of a protocol is sent."""
    body = WIRES[protocol](settings(extra)).request(Call(prompt, "r-1")).body
    return msgspec.json.decode(body, type=Json)


def added(protocol: str, prompt: Prompt) -> Json:
    """Return what a body has more than that of the same prompt without fields of its own."""
    plain = sent(protocol, Prompt(prompt.messages, max_tokens=prompt.max_tokens))
    return {name: value for name, value in sent(protocol, prompt).items() if plain.get(name) != value}


@pytest.mark.parametrize("protocol", WIRES)
def test_fields_of_no_protocol_go_to_any_model_as_they_are(protocol: str) -> None:
    """Whoever makes a prompt for one model knows which it is."""
    extra = {**CHAT, **CLAUDES}
    assert added(protocol, Prompt("Why?", extra=extra)) == extra


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("chat", CHAT),
        ("responses", {"reasoning": {"effort": "low"}, "text": {"verbosity": "low"}}),
        ("anthropic", {}),
        ("gemini", {}),
    ],
)
def test_a_chat_request_is_refused_by_no_model_for_its_fields(protocol: str, expected: Json) -> None:
    """A model of another protocol gets what its own has."""
    assert added(protocol, OPENAI.read({**ASKED, **CHAT}).prompt) == expected


@pytest.mark.parametrize(
    ("protocol", "expected"), [("chat", {}), ("responses", {}), ("anthropic", CLAUDES), ("gemini", {})]
)
def test_a_messages_request_is_refused_by_no_model_for_its_fields(protocol: str, expected: Json) -> None:
    """Though a coding agent sends some with every request."""
    assert added(protocol, ANTHROPIC.read({**ASKED, **CLAUDES}).prompt) == expected


def test_another_protocols_own_fields_reach_it() -> None:
    """A client of Chat Completions may so have a Claude think."""
    thinking = {"thinking": {"type": "adaptive"}}
    assert added("anthropic", OPENAI.read({**ASKED, **CHAT, **thinking}).prompt) == thinking
    config = {"generationConfig": {"topK": 3}}
    assert sent("gemini", OPENAI.read({**ASKED, **config}).prompt)["generationConfig"]["topK"] == 3


@pytest.mark.parametrize(
    ("protocol", "head"),
    [("chat", "Chat Completions"), ("responses", "Responses"), ("anthropic", "Messages"), ("gemini", "Gemini's")],
)
def test_the_fields_that_another_protocol_gets_are_in_the_docs(protocol: str, head: str) -> None:
    """Nobody is to guess what is left out."""
    section = (ROOT / "docs" / "http.md").read_text(encoding="utf-8").partition("## Models of another protocol\n")[2]
    [row] = re.findall(rf"^\| {head} \| ([^;|]*)", section.partition("\n## ")[0], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == OF_OTHERS[protocol]


def test_an_effort_leaves_what_else_is_configured_of_reasoning() -> None:
    """The two names are one setting of two protocols."""
    body = sent(
        "responses", OPENAI.read({**ASKED, **CHAT}).prompt, {"reasoning": {"summary": "auto", "effort": "high"}}
    )
    assert body["reasoning"] == {"summary": "auto", "effort": "low"}


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("chat", {"parallel_tool_calls": False}),
        ("responses", {"parallel_tool_calls": False}),
        ("anthropic", {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
        ("gemini", {}),
    ],
)
def test_one_call_at_a_time_is_said_in_each_protocols_way(protocol: str, expected: Json) -> None:
    """Nothing of it where there are no tools, which some refuse; Gemini cannot be told."""
    body = sent(protocol, Prompt("Why?", tools=TOOL, parallel_tool_calls=False))
    assert body == {**sent(protocol, Prompt("Why?", tools=TOOL)), **expected}
    assert sent(protocol, Prompt("Why?", parallel_tool_calls=False)) == sent(protocol, Prompt("Why?"))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", {"type": "any", "disable_parallel_tool_use": True}),
        ("look", {"type": "tool", "name": "look", "disable_parallel_tool_use": True}),
        ("none", {"type": "none"}),  # there are no calls then, and the protocol has no such field there
    ],
)
def test_one_call_at_a_time_leaves_the_choice_of_a_messages_request(choice: str, expected: Json) -> None:
    """It is said beside it."""
    assert sent("anthropic", Prompt("Why?", tools=TOOL, tool_choice=choice, parallel_tool_calls=False))[
        "tool_choice"
    ] == (expected)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("chat", {"response_format": {"type": "json_object"}}),
        ("responses", {"text": {"format": {"type": "json_object"}}}),
        ("anthropic", {"system": "Answer with nothing but one JSON object."}),
        ("gemini", {"generationConfig": {"maxOutputTokens": 9, "responseMimeType": "application/json"}}),
    ],
)
def test_json_of_any_form_is_asked_for_in_each_protocols_way(protocol: str, expected: Json) -> None:
    """Or in words where it has none."""
    wanted = {"max_completion_tokens": 9, "response_format": {"type": "json_object"}}
    asked = OPENAI.read({"model": "wizard", "messages": ASKED["messages"], **wanted})
    assert added(protocol, asked.prompt) == expected


def test_json_of_any_form_is_asked_for_behind_the_system_text() -> None:
    """Which stays."""
    asked = OPENAI.read(
        {
            "model": "wizard",
            "messages": [{"role": "system", "content": "Be brief"}, *ASKED["messages"]],
            "response_format": {"type": "json_object"},
        }
    )
    assert sent("anthropic", asked.prompt)["system"] == "Be brief\n\nAnswer with nothing but one JSON object."
