"""What both formats have in common: events in lines, and bodies that are read in no more time than they are long."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from wizard_actors.errors import InvalidPromptError
from wizard_actors.http_api.anthropic_format import ANTHROPIC
from wizard_actors.http_api.fields import BadRequestError
from wizard_actors.http_api.format import Format, sse
from wizard_actors.http_api.openai_format import OPENAI

Json = dict[str, Any]  # as JSON comes

USER: Json = {"role": "user", "content": "Why?"}


def test_an_event_is_one_line_to_every_reader() -> None:
    """Some take for the end of a line what JSON leaves as it is, and would read half an event."""
    said = "".join(map(chr, range(0x3000))) + "\U0001f600"
    written = sse({"said": said}, "message").decode()
    assert len(written.splitlines()) == 3
    assert json.loads(written.splitlines()[1].removeprefix("data: ")) == {"said": said}


# -- how long reading takes ----------------------------------------------------------------------------


def _functions(count: int) -> list[Json]:
    return [{"type": "function", "function": {"name": f"f{index}"}} for index in range(count)]


def _allowed(count: int) -> Json:
    allowed = {"mode": "auto", "tools": _functions(count)}
    return {"tools": _functions(count), "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed}}


def _calls(count: int) -> Json:
    calls = [{"id": f"c{index}", "function": {"name": "f"}} for index in range(count)]
    own = [{"id": f"c{index}", "protocol": "gemini", "signature": "s"} for index in range(count)]
    results = [{"role": "tool", "tool_call_id": f"c{index}", "content": ""} for index in reversed(range(count))]
    return {"messages": [USER, {"role": "assistant", "tool_calls": calls, "wizard": {"calls": own}}, *results]}


def _details(count: int) -> Json:
    details = [{"type": "reasoning.text", "text": "a", "index": index} for index in range(count)]
    return {"messages": [USER, {"role": "assistant", "content": "x", "reasoning_details": details}, USER]}


def _parts(count: int) -> Json:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]} for _ in range(count)]
    return {"messages": [USER, {"role": "assistant", "content": parts}, USER]}


def _turns(count: int) -> Json:
    return {"messages": [USER, {"role": "assistant", "content": "x", "reasoning_content": "y"}] * count}


def _blocks(count: int) -> Json:
    uses = [{"type": "tool_use", "id": f"c{index}", "name": "f", "input": None} for index in range(count)]
    results = [{"type": "tool_result", "tool_use_id": f"c{index}"} for index in range(count)]
    return {"messages": [USER, {"role": "assistant", "content": uses}, {"role": "user", "content": results}]}


def _thoughts(count: int) -> Json:
    thoughts = [{"type": "thinking", "thinking": "x", "signature": "s"} for _ in range(count)]
    return {"messages": [USER, {"role": "assistant", "content": thoughts}, USER]}


def _tools(count: int) -> Json:
    tools = [{"name": f"f{index}", "input_schema": {}} for index in range(count)]
    return {"tools": tools, "tool_choice": {"type": "tool", "name": "f"}}


def _fields(count: int) -> Json:
    return {f"x{index}": index for index in range(count)}


def seconds(how: Format, body: Json) -> float:
    """Return the least processor time that reading takes, of three."""

    def once() -> float:
        began = time.process_time()
        with suppress(BadRequestError, InvalidPromptError):
            how.read({"model": "wizard", "max_tokens": 5, "messages": [USER], **body})
        return time.process_time() - began

    return min(once() for _ in range(3))


@pytest.mark.parametrize(
    ("how", "make", "count"),
    [
        (OPENAI, _allowed, 4000),
        (OPENAI, _calls, 2000),
        (OPENAI, _details, 4000),
        (OPENAI, _parts, 4000),
        (OPENAI, _turns, 2000),
        (OPENAI, _fields, 20000),
        (ANTHROPIC, _blocks, 2000),
        (ANTHROPIC, _thoughts, 4000),
        (ANTHROPIC, _tools, 4000),
        (ANTHROPIC, _fields, 20000),
    ],
)
def test_reading_takes_as_long_as_a_body_is(how: Format, make: Callable[[int], Json], count: int) -> None:
    """Four times as much takes four times as long, or little more: meanwhile the server does nothing else."""
    few, many = seconds(how, make(count // 4)), seconds(how, make(count))
    assert many < 10 * few + 0.02


@pytest.mark.parametrize("how", [OPENAI, ANTHROPIC])
def test_a_tool_that_is_not_there_is_told_without_all_that_are(how: Format) -> None:
    """A body may offer thousands."""
    with pytest.raises((BadRequestError, InvalidPromptError)) as caught:
        how.read(
            {
                "model": "wizard",
                "max_tokens": 5,
                "messages": [USER],
                **(
                    {"tools": _functions(5000), "tool_choice": {"type": "function", "function": {"name": "f"}}}
                    if how is OPENAI
                    else _tools(5000)
                ),
            }
        )
    assert len(str(caught.value)) < 300
