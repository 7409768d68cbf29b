"""Which turns of a conversation go along with the next question: the newest ones that fit. Pure, linear in its length.

A conversation may only be cut where what is left still makes sense, to people and to providers:

- between two turns, so that a question goes with its answer;
- not between a call of a tool and its result: rounds that reach over several turns go together or not at all, and the
  turns whose calls the new messages answer go always;
- before a message of the user (system messages may stand before it): providers refuse a conversation that an
  assistant or a tool begins. One that has begun so from its first turn on stays so while all of it fits;
- where somebody still says something: a `Prompt` of white space alone is refused.

So what is left makes a valid `Prompt` whenever the whole conversation would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import frozen

from wizard_actors.estimate import THE_ANSWER, TYPICAL_OUTPUT, estimate_message
from wizard_actors.session_record import TurnRecord
from wizard_actors.types import Message, Role

__all__ = ["Window", "budget_of", "fit"]


@frozen
class Window:
    """What goes along with a question.

    `messages` are those of the history that do, in order, without the system prompt and the question; `left_out` is the
    number of turns that do not. `tokens` is the estimate of the whole, system prompt, history and question together, as
    `estimate_input` has it.
    """

    messages: tuple[Message, ...]
    left_out: int
    tokens: int


def budget_of(window: int | None, *, answer: int | None) -> int | None:
    """Return how many tokens of prompt, as we estimate them, a model with such a context window has room for; None
    where nobody knows the window.

    `answer` is what the answer may take (`max_tokens`), None: 256, which is typical. A quarter of the rest stays free,
    because estimates are rough: a prompt may have a third more tokens than `wizard_actors.estimate` says. An answer as
    long as the window leaves 0: only what has to go along then does.
    """
    if window is None:
        return None
    return max(0, (window - (TYPICAL_OUTPUT if answer is None else answer)) * 3 // 4)


def fit(
    system: str | None, turns: Sequence[TurnRecord], messages: Sequence[Message], budget: int | None = None
) -> Window:
    """Return the part of the history, `turns`, that goes along with the new `messages` in a budget of tokens; None: all
    of it.

    The system prompt and the new messages go in any case, and so do the turns that they cannot do without. Where not
    even that fits, it is returned all the same, and nothing more: the model's provider says then that it is too long,
    with a `TokenLimitError`. Tools and a schema are not counted: whoever sends them takes them off the budget.
    """
    segments = [*(turn.messages for turn in turns), tuple(messages)]
    needs = _needed(segments)
    total = THE_ANSWER + (0.0 if system is None else estimate_message(Message(Role.SYSTEM, system)))
    start, tokens, needed = -1, 0, len(turns)
    opening, speaks = Role.USER, False  # who would begin; whether anybody says something
    for place in range(len(turns), -1, -1):
        segment = segments[place]
        total += sum(map(estimate_message, segment))
        if start >= 0 and budget is not None and math.ceil(total) > budget:
            break
        needed = min(needed, needs[place])
        opening = next((message.role for message in segment if message.role is not Role.SYSTEM), opening)
        speaks = speaks or any(message.speaks for message in segment if message.role is not Role.SYSTEM)
        if place == 0 or (needed >= place and opening is Role.USER and speaks):
            start, tokens = place, math.ceil(total)
    kept = tuple(message for segment in segments[start:-1] for message in segment)
    return Window(kept, left_out=start, tokens=tokens)


def _needed(segments: Sequence[Sequence[Message]]) -> list[int]:
    """Return for each segment the first one whose calls it answers, itself where there is none before it.

    A result answers the latest call of its id that has none yet, as in `check_tool_rounds`: ids may come again.
    """
    needs = list(range(len(segments)))
    waiting: dict[str, list[int]] = {}
    for place, segment in enumerate(segments):
        for message in segment:
            for call in message.tool_calls:
                waiting.setdefault(call.id, []).append(place)
            if message.role is Role.TOOL and (places := waiting.get(message.tool_call_id or "")):
                needs[place] = min(needs[place], places.pop())
    return needs
