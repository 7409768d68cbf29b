"""Prompts that Hypothesis makes up."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from wizard_actors.types import Message, Prompt, Tool, ToolCall

__all__ = ["prompts"]

TEXT: Final = st.sampled_from(["Why?", "Say hello.", "Zażółć gęślą jaźń 🙂", "line\nbreak", "data: [DONE]\n\n"])
WEATHER: Final = Tool(
    name="weather",
    description="The weather in a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    """Return prompts that any provider could be asked: a question or a conversation of a few turns, perhaps with a
    system prompt, parameters, a tool, and a call of it with its result.

    They shrink towards `Prompt("Why?")`.
    """
    messages = [Message("user", draw(TEXT))]
    for _ in range(draw(st.integers(0, 2))):
        messages += [Message("assistant", draw(TEXT)), Message("user", draw(TEXT))]
    tools = (WEATHER,) if draw(st.booleans()) else ()
    if tools and draw(st.booleans()):
        call = ToolCall(id="call-1", name=WEATHER.name, arguments='{"city": "Oslo"}')
        messages += [
            Message("assistant", tool_calls=(call,)),
            Message("tool", draw(TEXT), tool_call_id=call.id),
        ]
    return Prompt(
        messages,
        system=draw(st.none() | TEXT),
        tools=tools,
        temperature=draw(st.sampled_from([None, 0.0, 1.0])),
        max_tokens=draw(st.sampled_from([None, 1, 100])),
        stop=draw(st.sampled_from([(), ("END",)])),
        seed=draw(st.sampled_from([None, 1])),
    )
