"""Context windows: which turns go along with a question, and which never go apart."""

from __future__ import annotations

import time

import pytest

from wizard_actors.context_window import Window, budget_of, fit
from wizard_actors.estimate import estimate_input
from wizard_actors.session_record import TurnRecord
from wizard_actors.types import Message, Prompt, Role, ToolCall


def said(role: str, text: str) -> Message:
    """Return a message that takes 19 tokens: 4, and 15 for 56 characters."""
    return Message(role, text.ljust(56, "."))


def turn(*messages: Message) -> TurnRecord:
    """Return a turn."""
    return TurnRecord(messages, at=0.0)


def talk(name: str) -> TurnRecord:
    """Return a question and its answer, 38 tokens."""
    return turn(said("user", f"{name}?"), said("assistant", f"{name}!"))


def calls(*ids: str) -> Message:
    """Return an assistant's message that calls tools."""
    return Message(Role.ASSISTANT, tool_calls=[ToolCall(each, "look", "{}") for each in ids])


def result(call: str) -> Message:
    """Return the result of a call."""
    return Message(Role.TOOL, "found", tool_call_id=call)


NEW = (said("user", "new?"),)
ROUND = (said("user", "look?"), calls("1", "2"), result("2"), result("1"), said("assistant", "looked"))


@pytest.mark.parametrize(
    ("budget", "kept"),
    [(None, "abc"), (10_000, "abc"), (136, "abc"), (135, "bc"), (98, "bc"), (97, "c"), (60, "c"), (59, ""), (0, "")],
)
def test_the_newest_turns_that_fit_go_along(budget: int | None, kept: str) -> None:
    """To the token: 22 for the question and for the answer to begin, 38 a turn."""
    window = fit(None, [talk(name) for name in "abc"], NEW, budget)

    assert "".join(message.text[0] for message in window.messages if message.role is Role.USER) == kept
    assert window == Window(window.messages, 3 - len(kept), 22 + 38 * len(kept))


def test_the_system_prompt_counts() -> None:
    """It always goes along, so there is room for less."""
    assert fit(None, [talk("a")], NEW, 60).left_out == 0
    assert fit("Be brief.", [talk("a")], NEW, 60).left_out == 1


def test_the_estimate_is_that_of_the_prompt() -> None:
    """As everybody else estimates it."""
    window = fit("Be brief.", [talk("a"), talk("b")], NEW, 80)

    assert window.tokens == estimate_input(Prompt((*window.messages, *NEW), system="Be brief."))


def test_what_has_to_go_goes_although_it_does_not_fit() -> None:
    """The provider says that it is too long: nothing here knows better."""
    assert fit("Be brief. " * 100, [talk("a")], NEW, 10) == Window((), 1, 294)


def test_a_round_of_tools_goes_whole_or_not_at_all() -> None:
    """Its turn is left out, although the results alone would fit."""
    window = fit(None, [talk("a"), turn(*ROUND), talk("b")], NEW, 100)

    assert window.messages == talk("b").messages


def test_a_round_over_several_turns_goes_whole_or_not_at_all() -> None:
    """The calls ended one turn, and their results began the next."""
    asked, answered = turn(*ROUND[:2]), turn(*ROUND[2:])
    whole = fit(None, [talk("a"), asked, answered], NEW).tokens

    assert fit(None, [talk("a"), asked, answered], NEW, whole - 1).messages == ROUND
    assert fit(None, [talk("a"), asked, answered], NEW, whole - 39) == Window((), 3, 22)


def test_the_calls_that_the_question_answers_go_always() -> None:
    """With the question that led to them, also where that was turns ago."""
    chain = [talk("a"), turn(said("user", "look?"), calls("1")), turn(result("1"), calls("1"))]

    assert fit(None, chain, [result("1")], 0).messages == (*chain[1].messages, *chain[2].messages)


def test_results_may_come_late() -> None:
    """A call whose result is turns away keeps all turns between them."""
    far = [talk("a"), turn(said("user", "look?"), calls("1")), talk("b"), talk("c")]

    assert fit(None, far, [said("user", "?"), result("1")], 0).left_out == 1


def test_ids_that_come_again_are_other_calls() -> None:
    """A later round with the same ids does not hold on to the earlier one."""
    rounds = [turn(*ROUND), turn(*ROUND)]

    assert fit(None, rounds, NEW, fit(None, rounds[1:], NEW).tokens).left_out == 1


@pytest.mark.parametrize("first", [said("assistant", "hello"), result("elsewhere")])
def test_a_history_is_never_cut_before_another_than_the_user(first: Message) -> None:
    """Turns that an assistant or a tool begins go with the ones before them."""
    turns = [talk("a"), talk("b"), turn(first)]

    assert fit(None, turns, NEW, 60) == Window((), 3, 22)
    assert fit(None, turns, NEW, 85).messages == (*talk("b").messages, first)


def test_a_history_that_an_assistant_has_begun_stays_so_while_it_fits() -> None:
    """A greeting is somebody's intent; once turns are left out, it is the first to go."""
    turns = [turn(said("assistant", "Welcome")), talk("a")]

    assert fit(None, turns, NEW, 79).left_out == 0
    assert fit(None, turns, NEW, 78).left_out == 1


def test_a_system_message_may_stand_before_the_user_s() -> None:
    """It is no reason not to cut there, and none to begin with what follows it."""
    late = [talk("a"), turn(said("system", "In French."), *talk("b").messages)]
    greeting = [talk("a"), turn(said("system", "In French."), said("assistant", "Bonjour"))]

    assert fit(None, late, NEW, 80).left_out == 1
    assert fit(None, greeting, NEW, 80).left_out == 2


def test_a_turn_of_instructions_alone_changes_nothing_of_who_begins() -> None:
    """It goes along where it fits, with the turn of the user that it stands before."""
    turns = [talk("a"), turn(said("system", "In French.")), talk("b")]

    assert [fit(None, turns, NEW, budget).left_out for budget in (117, 79, 78)] == [0, 1, 2]


def test_somebody_always_says_something() -> None:
    """A question of white space has a sense only after what was said before: a prompt of that alone is refused."""
    window = fit(None, [talk("a"), talk("b"), turn(Message("user", " "))], [Message("user", "\n")], 0)

    assert window.left_out == 1
    assert window.messages[0].text.startswith("b?")


@pytest.mark.parametrize(
    ("window", "answer", "budget"),
    [
        (None, 100, None),
        (1_001, 0, 750),
        (8_000, 4_000, 3_000),
        (8_000, None, 5_808),
        (4_096, 4_096, 0),
        (100, 8_000, 0),
        (0, 1, 0),
    ],
)
def test_a_budget_leaves_room_for_the_answer(window: int | None, answer: int | None, budget: int | None) -> None:
    """And a quarter of the rest, because estimates are rough. A window that nobody knows has no budget."""
    assert budget_of(window, answer=answer) == budget


def test_a_long_history_takes_no_time() -> None:
    """A thousand turns are looked at in milliseconds; a hundred times that is what a busy machine gets."""
    turns = [turn(*ROUND), *(talk(str(number)) for number in range(1_000))]

    begun = time.process_time()
    window = fit(None, turns, NEW, 4_000)

    assert window.left_out > 800
    assert time.process_time() - begun < 0.5
