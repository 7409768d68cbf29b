"""The rounds of tools in a conversation: every result has its call, every call its result. Pure, one pass.

What any provider takes is let through: results in any order, anywhere behind their calls; ids that come again in a
later round, as some providers give them; a last message whose calls nobody has answered yet.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from wizard_actors.errors import InvalidPromptError
from wizard_actors.types.given import shown
from wizard_actors.types.message import Message, Role

__all__ = ["KEPT_ELSEWHERE", "check_tool_rounds"]

KEPT_ELSEWHERE = frozenset({"previous_response_id", "conversation"})
"""The fields of `extra` that name a conversation which OpenAI keeps: its calls are there, not in the prompt."""


def check_tool_rounds(messages: Sequence[Message], extra: Collection[str] = ()) -> None:
    """Raise `InvalidPromptError` where a result has no call before it, a call has two, or, with more after it, none."""
    waiting: dict[str, list[int]] = {}  # by id, the places of the calls that have no result yet
    answered = set[str]()
    for place, message in enumerate(messages):
        for call in message.tool_calls:
            waiting.setdefault(call.id, []).append(place)
        if message.role is Role.TOOL and message.tool_call_id is not None:
            _answer(message.tool_call_id, place, waiting, answered, known_only=KEPT_ELSEWHERE.isdisjoint(extra))
    if waiting:
        _check_left(messages, waiting)


def _answer(call_id: str, place: int, waiting: dict[str, list[int]], answered: set[str], *, known_only: bool) -> None:
    """Take the result of the latest call of that id."""
    places = waiting.get(call_id)
    if places is not None:
        places.pop()
        answered.add(call_id)
        if not places:
            del waiting[call_id]
    elif call_id in answered:
        raise InvalidPromptError(f"messages[{place}] is a second result of the tool call {shown(call_id)}: give one")
    elif known_only:
        raise InvalidPromptError(
            f"messages[{place}] is the result of the tool call {shown(call_id)}, and no message before it makes that "
            "call: put the assistant's message there (response.message), or cut the conversation elsewhere"
        )


def _check_left(messages: Sequence[Message], waiting: dict[str, list[int]]) -> None:
    """Refuse calls without a result, but for those of the last message."""
    last = max(place for place, message in enumerate(messages) if message.role is not Role.SYSTEM)
    for call_id, places in waiting.items():
        if places[0] < last:
            raise InvalidPromptError(
                f"messages[{places[0]}] makes the tool call {shown(call_id)}, and no message after it has the result: "
                f'add Message("tool", ..., tool_call_id={shown(call_id)}), with is_error=True where there is none'
            )
