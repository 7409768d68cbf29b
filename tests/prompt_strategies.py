"""Prompts that Hypothesis makes up: conversations that any provider could be asked, with everything our types can say.

    @given(prompt=prompts("anthropic", top_temperature=1.0))
    def test_...(prompt: Prompt) -> None: ...

They are in order as providers demand it: the user begins, each call of a tool is answered right behind the message that
makes it, the user or a tool has the last word, and only what `tools` offers is called.
"""

import json
from collections.abc import Sequence

from hypothesis import strategies as st

from wizard_actors.types import Content, Image, Message, Prompt, Role, Signature, Text, Thought, Tool, ToolCall

__all__ = ["ARGUMENTS", "IMAGES", "SCHEMAS", "contents", "prompts", "thoughts", "tools"]

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
SAID = TEXT.filter(lambda text: bool(text.strip()))
NAMES = st.sampled_from(["city", "get_weather", "b2"]) | st.text("aZ_", min_size=1, max_size=4)
PROTOCOLS = ("anthropic", "chat", "gemini", "responses")

JSON: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)

ARGUMENTS: st.SearchStrategy[str] = st.just("") | st.dictionaries(NAMES, JSON, max_size=2).map(
    lambda arguments: json.dumps(arguments, ensure_ascii=False)
)
"""The arguments of a call, as models write them: JSON objects, or nothing where a tool takes none."""

LEAVES: st.SearchStrategy[dict[str, object]] = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "description": "a word", "enum": ["a", "b"]},
        {"type": "integer"},
        {"type": "number"},
        {"type": "boolean"},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
    ]
)


def _objects(values: st.SearchStrategy[dict[str, object]]) -> st.SearchStrategy[dict[str, object]]:
    def closed(properties: dict[str, dict[str, object]]) -> dict[str, object]:
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def lax(properties: dict[str, dict[str, object]]) -> dict[str, object]:
        return {"type": "object", "properties": properties}

    properties = st.dictionaries(NAMES, values, max_size=3)
    return properties.map(closed) | properties.filter(bool).map(lax)  # Messages takes no answers of any names


SCHEMAS: st.SearchStrategy[dict[str, object]] = _objects(
    st.recursive(
        LEAVES,
        lambda inner: _objects(inner) | inner.map(lambda items: {"type": "array", "items": items}),
        max_leaves=3,
    )
)
"""JSON Schemas of objects: nested, closed or open."""

IMAGES: st.SearchStrategy[Image] = st.one_of(
    st.sampled_from(["https://x.test/a.png", "data:image/png;base64,AP8="]).map(lambda url: Image(url=url)),
    st.builds(
        lambda data, media_type: Image(data=data, media_type=media_type),
        st.binary(min_size=1, max_size=8),
        st.sampled_from(["image/png", "image/jpeg", "image/gif", "image/webp"]),
    ),
)
"""Pictures that every protocol has a place for: by address, in a data: URL, and as bytes."""


def contents(*, images: bool = True, said: st.SearchStrategy[str] = SAID) -> st.SearchStrategy[Content]:
    """Return contents: a text, or some parts, with pictures among them where there may be `images`."""
    texts = said.map(Text)
    parts: st.SearchStrategy[Text | Image] = texts | IMAGES if images else texts.map(_as_part)
    return st.one_of(said, st.lists(parts, min_size=1, max_size=3).map(tuple))


def _as_part(text: Text) -> Text | Image:
    return text


@st.composite
def thoughts(draw: st.DrawFn, protocol: str) -> Thought:
    """Return a piece of reasoning, with a signature of `protocol`, of another one, or none."""
    of = draw(st.sampled_from([protocol, protocol, *PROTOCOLS, None]))
    if of is None:
        return Thought(draw(SAID))
    signature = Signature(of, draw(st.sampled_from(["AP8=", "c2lnbmVk", "EqMB"])))
    redacted = draw(st.booleans())
    ids = st.sampled_from(["rs_1", "rs_2"])
    # Whoever has ids gives everything one.
    return Thought(
        "" if redacted else draw(SAID), signature, redacted=redacted, id=draw(ids) if of == "responses" else None
    )


@st.composite
def tools(draw: st.DrawFn, name: str) -> Tool:
    """Return a tool of that name: its arguments described, or left open."""
    parameters = draw(st.just({}) | SCHEMAS)
    return Tool(name, draw(st.just("") | SAID), parameters, strict=draw(st.booleans()))


@st.composite
def prompts(
    draw: st.DrawFn,
    protocol: str,
    *,
    seeds: bool = True,
    tool_images: bool = True,
    top_temperature: float = 2.0,
) -> Prompt:
    """Return a prompt for a model behind `protocol` ("anthropic", "chat", "gemini", "responses").

    `seeds`: it may have a seed; `tool_images`: a tool's result may hold pictures. Temperatures go up to
    `top_temperature`.
    """
    offered = [draw(tools(name)) for name in draw(st.lists(NAMES, max_size=3, unique=True))]
    names = [tool.name for tool in offered]
    conversation: list[Message] = []
    for turn in range(draw(st.integers(0, 2))):
        conversation.append(draw(_user()))
        conversation += draw(_answer(protocol, names, turn, tool_images=tool_images))
    if not conversation or conversation[-1].role is not Role.TOOL or draw(st.booleans()):
        conversation.append(draw(_user()))
    if draw(st.sampled_from([False, False, True])):
        first_call = next((place for place, each in enumerate(conversation) if each.tool_calls), len(conversation))
        place = draw(st.integers(0, first_call))  # never between a call and its result
        conversation.insert(place, Message(Role.SYSTEM, draw(contents(images=False))))
    some = st.none() | st.floats(0, 1)
    return Prompt(
        conversation,
        system=draw(st.none() | SAID),
        tools=offered,
        tool_choice=draw(st.sampled_from([None, "auto", "none", "required", *names])) if names else None,
        response_schema=draw(st.none() | SCHEMAS),
        temperature=draw(st.none() | st.floats(0, top_temperature)),
        top_p=draw(some),
        max_tokens=draw(st.none() | st.integers(16, 4096)),
        stop=draw(st.lists(SAID, max_size=2)),
        seed=draw(st.none() | st.integers(0, 2**31 - 1)) if seeds else None,
    )


def _user() -> st.SearchStrategy[Message]:
    return st.builds(
        lambda content, name: Message(Role.USER, content, name=name), contents(), st.sampled_from([None, None, "ann"])
    )


@st.composite
def _answer(draw: st.DrawFn, protocol: str, names: Sequence[str], turn: int, *, tool_images: bool) -> Sequence[Message]:
    """Return a model's message, and the results of the tools that it calls."""
    called = draw(st.lists(st.sampled_from(names), max_size=3)) if names else []
    calls = [ToolCall(f"call_{turn}_{place}", name, draw(ARGUMENTS)) for place, name in enumerate(called)]
    content = draw(st.just("") | contents(images=False)) if calls else draw(contents(images=False))
    said = Message(Role.ASSISTANT, content, tool_calls=calls, thoughts=draw(st.lists(thoughts(protocol), max_size=2)))
    results = [
        Message(
            Role.TOOL,
            draw(contents(images=tool_images, said=TEXT)),
            tool_call_id=call.id,
            is_error=draw(st.booleans()),
        )
        for call in draw(st.permutations(calls))
    ]
    return [said, *results]
