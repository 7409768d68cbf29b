"""Context windows of any conversation: valid wherever the whole is, within the budget, and as much as fits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.context_window import Window, budget_of, fit
from wizard_actors.errors import InvalidPromptError
from wizard_actors.estimate import estimate_input
from wizard_actors.session_record import TurnRecord
from wizard_actors.types import Message, Prompt, Role, ToolCall

NAME = "f" * 56  # 56 characters are 15 tokens, without a fraction: sums are exact in any order
SAID = st.sampled_from(["?" * 56, "x" * 112, " " * 56, ""])
IDS = st.sampled_from(["a", "b", "c"])  # few: they come again in later rounds
BUDGETS = st.none() | st.integers(0, 250)


@st.composite
def rounds(draw: st.DrawFn) -> list[Message]:
    """Return a round of tools: a call of some, other messages of calls, results in any order."""
    waiting: list[str] = []
    said: list[Message] = []
    for _ in range(draw(st.integers(1, 2))):
        called = draw(st.lists(IDS, min_size=1, max_size=3, unique=True))
        said.append(Message(Role.ASSISTANT, draw(SAID), tool_calls=[ToolCall(each, NAME, "") for each in called]))
        waiting += called
        if not draw(st.integers(0, 2)):
            said.append(Message(Role.USER, draw(SAID)))  # results may come anywhere behind their calls
        for each in draw(st.permutations(waiting)):
            if draw(st.integers(0, 5)):
                said.append(Message(Role.TOOL, draw(SAID), tool_call_id=each))
                waiting.remove(each)
    said += [Message(Role.TOOL, draw(SAID), tool_call_id=each) for each in draw(st.permutations(waiting))]
    return said


@st.composite
def conversations(draw: st.DrawFn) -> tuple[tuple[TurnRecord, ...], tuple[Message, ...]]:
    """Return turns of history, cut anywhere, and new messages."""
    said: list[Message] = []
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["user", "user", "user", "system", "assistant", "round", "round"]))
        said += draw(rounds()) if kind == "round" else [Message(kind, draw(SAID))]
        if kind == "user" and draw(st.booleans()):
            said.append(Message(Role.ASSISTANT, draw(SAID)))
    cuts = sorted(draw(st.lists(st.integers(0, len(said)), max_size=6)))
    edges = [0, *cuts, len(said)]
    parts = [said[start:end] for start, end in itertools.pairwise(edges)]
    if draw(st.booleans()):
        parts.append([Message(Role.USER, draw(SAID))])
    return tuple(TurnRecord(part, at=0.0) for part in parts[:-1] if part), tuple(parts[-1])


def valid(messages: Sequence[Message]) -> bool:
    """Whether a prompt takes them."""
    try:
        Prompt(messages)
    except InvalidPromptError:
        return False
    return True


def flat(turns: Sequence[TurnRecord]) -> tuple[Message, ...]:
    """Return the messages of turns."""
    return tuple(message for turn in turns for message in turn.messages)


def cuts(turns: Sequence[TurnRecord], new: Sequence[Message]) -> list[int]:
    """Return by brute force where a valid conversation may be cut: what comes after makes sense without the rest."""
    found = [0]
    for place in range(1, len(turns) + 1):
        rest = (*flat(turns[place:]), *new)
        first = next((message.role for message in rest if message.role is not Role.SYSTEM), None)
        if first is Role.USER and valid(rest):
            found.append(place)
    return found


@given(conversation=conversations(), system=st.none() | SAID, budget=BUDGETS)
def test_a_window_is_the_newest_part_that_fits(
    conversation: tuple[tuple[TurnRecord, ...], tuple[Message, ...]], system: str | None, budget: int | None
) -> None:
    """Of a valid conversation it is a valid one, cut in the first place that fits; if none does, in the last of all."""
    turns, new = conversation
    if not valid((*flat(turns), *new)):
        return

    window = fit(system, turns, new, budget)

    def tokens(start: int) -> int:
        return estimate_input(Prompt((*flat(turns[start:]), *new), system=system))

    places = cuts(turns, new)
    start = next((place for place in places if budget is None or tokens(place) <= budget), places[-1])
    assert window == Window(flat(turns[start:]), start, tokens(start))


@given(conversation=conversations(), budget=BUDGETS)
def test_any_history_has_a_window(
    conversation: tuple[tuple[TurnRecord, ...], tuple[Message, ...]], budget: int | None
) -> None:
    """Also one that nobody could send: it is the end of the history, and all of it where there is no budget."""
    turns, new = conversation

    window = fit(None, turns, new, budget)

    assert window.messages == flat(turns[window.left_out :])
    assert budget is not None or window.left_out == 0


@given(conversation=conversations(), budget=st.integers(0, 250), more=st.integers(0, 250))
def test_more_room_never_keeps_less(
    conversation: tuple[tuple[TurnRecord, ...], tuple[Message, ...]], budget: int, more: int
) -> None:
    """A larger budget leaves out no turn that a smaller one keeps."""
    turns, new = conversation

    assert fit(None, turns, new, budget + more).left_out <= fit(None, turns, new, budget).left_out


@given(window=st.integers(0, 10**7), answer=st.none() | st.integers(1, 10**7))
def test_a_budget_leaves_room(window: int, answer: int | None) -> None:
    """For the answer, and for a third more tokens than were estimated."""
    budget = budget_of(window, answer=answer)

    assert budget is not None
    assert budget == 0 or budget * 4 / 3 + (answer or 1) <= window
