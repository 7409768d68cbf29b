"""The Responses API for every prompt: each request is one that the API describes, and says what the prompt says."""

import base64
import json

import httpx
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.prompt_strategies import prompts
from tests.responses_api import check_request, prompt_of
from wizard_actors.providers.base import Call
from wizard_actors.providers.responses_request import ResponsesWire
from wizard_actors.types import Content, Image, Message, Prompt, Role, Text

WIRE = ResponsesWire(name="primary", model="up-1", url=httpx.URL("https://up.test/v1/responses"), extra={})


def said(prompt: Prompt, *, proves: bool = True) -> list[object]:
    """Return what a prompt says, without what this protocol has no words for: names, and proofs of other protocols.

    A model that `proves` nothing is sent no proofs either.
    """
    said: list[object] = [prompt.system, prompt.tool_choice, prompt.max_tokens, prompt.temperature, prompt.top_p]
    for message in prompt.messages:
        proved = [each for each in message.thoughts if each.signature and each.signature.protocol == "responses"]
        said += [(thought.text, thought.signature, thought.id) for thought in proved if proves]
        if message.role is Role.ASSISTANT:
            said += [message.text] if message.content else []
        else:
            said.append((message.role, message.tool_call_id, shown(message.content)))
        said += message.tool_calls
    return said


def shown(content: Content) -> object:
    """Return a content with all its pictures at an address."""
    return content if isinstance(content, str) else [_shown(part) for part in content]


def _shown(part: Text | Image) -> Text | Image:
    if isinstance(part, Text) or part.data is None:
        return part
    return Image(url=f"data:{part.media_type};base64,{base64.b64encode(part.data).decode()}")


# Each example is looked at by a schema of many alternatives, and by the official types.
@settings(max_examples=60)
@given(prompt=prompts("responses", seeds=False), streams=st.booleans(), proves=st.booleans())
def test_every_request_is_one_that_the_api_describes(prompt: Prompt, streams: bool, proves: bool) -> None:
    """By the official schema and the official types; and read back it says the same."""
    prompt = evolve(prompt, stop=())
    wire = evolve(WIRE, streams=streams, proves=proves)
    sent = json.loads(wire.request(Call(prompt, "1")).body)
    check_request(sent)
    assert sent.get("stream", False) is streams
    assert ("include" in sent) is proves
    read, _ = prompt_of(sent)
    assert said(read) == said(prompt, proves=proves)
    assert [evolve(tool, parameters=tool.parameters or OPEN) for tool in prompt.tools] == list(read.tools)
    assert read.response_schema == prompt.response_schema


OPEN: dict[str, object] = {"type": "object", "properties": {}}
"""What a tool without parameters takes."""


@given(
    text=st.text(min_size=1).filter(lambda text: bool(text.strip())),
    extra=st.dictionaries(st.sampled_from(["temperature", "store", "input"]), st.integers()),
)
def test_any_text_is_sent_as_it_is_and_extra_over_all(text: str, extra: dict[str, object]) -> None:
    """Whatever characters it holds."""
    sent = json.loads(WIRE.request(Call(Prompt([Message("user", text)], extra=extra), "1")).body)
    assert sent["input"] == extra.get("input", [{"role": "user", "content": text}])
    assert {name: sent[name] for name in extra} == extra
