"""The life of a session: every step, every refusal, and what each leaves behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from attrs import evolve

from wizard_actors.errors import InvalidStateTransitionError, SerializationError
from wizard_actors.session import KEEP, Lifetime, Session, Settings, turn_of
from wizard_actors.session_record import SessionRecord, SessionState, TurnRecord
from wizard_actors.types import FinishReason, Message, Role, Thought, TokenUsage, ToolCall, WizardResponse

CREATED, ACTIVE, CLOSED, EXPIRED = SessionState


def turn(name: str = "a", *more: Message) -> TurnRecord:
    """Return a question and its answer."""
    return TurnRecord([Message(Role.USER, f"{name}?"), Message(Role.ASSISTANT, f"{name}!"), *more], at=1.0)


def calling(*ids: str) -> Message:
    """Return an assistant's message that calls tools."""
    return Message(Role.ASSISTANT, tool_calls=[ToolCall(each, "look", "{}") for each in ids])


def session(state: SessionState = ACTIVE, *, turns: int = 2, **fields: Any) -> Session:  # noqa: ANN401 - of any field
    """Return a session as it is stored, in version 5."""
    made = [turn(str(number)) for number in range(turns)]
    return Session.loaded(SessionRecord("alice", created_at=1.0, version=5, state=state, turns=made, **fields))


# -- new ones and stored ones


def test_a_new_session_waits_to_be_stored() -> None:
    """In version 1, with its settings, created when it was made."""
    made = Session.new("alice", 7.0, Settings(system="Be brief.", context={"a": 1}))

    assert made == Session(SessionRecord("alice", created_at=7.0, system="Be brief.", context={"a": 1}), stored=0)
    assert made.changed
    assert made.record.state is CREATED


def test_a_stored_session_waits_for_nothing() -> None:
    """Until it is changed, and again once that is stored."""
    stored = session()
    changed = stored.with_turn(turn(), 9.0)

    assert (stored.changed, changed.changed, changed.saved().changed) == (False, True, False)
    assert (changed.stored, changed.record.version, changed.saved().stored) == (5, 6, 6)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201])
def test_a_name_that_cannot_be_stored_is_refused_at_once(name: str) -> None:
    """Not when the first turn is to be stored."""
    with pytest.raises(SerializationError):
        Session.new(name, 1.0, Settings())


def test_a_session_is_known_by_name_and_birth() -> None:
    """One that was deleted and made anew is another."""
    mine = session()

    assert mine.is_of(evolve(mine.record, version=9, turns=()))
    assert not mine.is_of(evolve(mine.record, created_at=2.0))
    assert not mine.is_of(evolve(mine.record, id="bob"))


# -- steps

STEPS: dict[str, Callable[[Session], Session]] = {
    "turn": lambda made: made.with_turn(turn("new"), 9.0),
    "settings": lambda made: made.with_settings(Settings(model="other"), 9.0),
    "undo": lambda made: made.undone(9.0)[0],
    "close": lambda made: made.closed(9.0),
}
AFTER = {
    ("turn", CREATED): ACTIVE,
    ("turn", ACTIVE): ACTIVE,
    ("settings", CREATED): CREATED,
    ("settings", ACTIVE): ACTIVE,
    ("undo", CREATED): CREATED,
    ("undo", ACTIVE): ACTIVE,
    ("close", CREATED): CLOSED,
    ("close", ACTIVE): CLOSED,
    ("close", CLOSED): CLOSED,
}


@pytest.mark.parametrize("before", SessionState)
@pytest.mark.parametrize("step", STEPS)
def test_every_step_from_every_state(step: str, before: SessionState) -> None:
    """What is not in the table is refused, by name, and says from where."""
    made = session(before)
    after = AFTER.get((step, before))

    if after is not None:
        assert STEPS[step](made).record.state is after
        return
    with pytest.raises(InvalidStateTransitionError, match=f"session 'alice' (is|has) {before}") as refused:
        STEPS[step](made)
    assert refused.value.from_state == before


@pytest.mark.parametrize("step", STEPS)
def test_every_step_makes_the_next_version_now(step: str) -> None:
    """However many steps are taken before it is stored, and as a use of the session."""
    stepped = STEPS[step](session().with_settings(Settings(route="fast"), 8.0))

    record = stepped.record
    assert (stepped.stored, record.version, record.updated_at, record.used_at) == (5, 6, 9.0, 9.0)
    assert (record.route, record.created_at) == ("fast", 1.0)


def test_a_turn_comes_last() -> None:
    """Behind all others."""
    assert session().with_turn(turn("new"), 9.0).record.turns == (turn("0"), turn("1"), turn("new"))


def test_closing_twice_is_closing_once() -> None:
    """The second changes nothing, its times neither."""
    closed = session().closed(9.0)

    assert closed.closed(10.0) is closed


def test_an_expired_session_makes_room() -> None:
    """Whatever its state: it is marked in the next version, and was not used for that."""
    for state in (CREATED, ACTIVE, CLOSED):
        record = session(state, used_at=3.0).expired(9.0).record
        assert (record.state, record.version, record.updated_at, record.used_at) == (EXPIRED, 6, 9.0, 3.0)


# -- taking back


def test_the_last_turn_is_left_out_to_ask_again() -> None:
    """Nothing else changes before the new answer comes; what takes its place is one version later."""
    again = session().without_last_turn()

    assert again.record.turns == (turn("0"),)
    assert again.record == evolve(session().record, turns=[turn("0")])
    assert again.with_turn(turn("new"), 9.0).record.turns == (turn("0"), turn("new"))
    assert again.with_turn(turn("new"), 9.0).record.version == 6


def test_of_many_turns_only_the_last_is_left_out_or_undone() -> None:
    """The others stay, in their order, also where the last two go together."""
    many = session(turns=4)
    assert many.without_last_turn().record.turns == many.record.turns[:3]
    assert many.undone(9.0)[0].record.turns == many.record.turns[:3]

    asks = turn("b", calling("1"))
    ends = TurnRecord([Message(Role.TOOL, "x", tool_call_id="1"), Message(Role.ASSISTANT, "done")], at=1.0)
    left, taken = many.with_turn(asks, 8.0).with_turn(ends, 8.0).undone(9.0)
    assert (left.record.turns, taken) == (many.record.turns, (asks, ends))


def test_undo_takes_the_newest_turn() -> None:
    """And tells what it was."""
    left, taken = session().undone(9.0)

    assert (left.record.turns, taken) == ((turn("0"),), (turn("1"),))


def test_undo_takes_whole_rounds_of_tools() -> None:
    """What is left would otherwise wait for results that nobody sends."""
    first = turn("a")
    asks = turn("b", calling("1", "2"))
    goes_on = TurnRecord([Message(Role.TOOL, "x", tool_call_id=each) for each in "12"] + [calling("3")], at=1.0)
    ends = TurnRecord([Message(Role.TOOL, "y", tool_call_id="3"), Message(Role.ASSISTANT, "done")], at=1.0)
    whole = session(turns=0)
    for each in (first, asks, goes_on, ends):
        whole = whole.with_turn(each, 8.0)

    left, taken = whole.undone(9.0)

    assert (left.record.turns, taken) == ((first,), (asks, goes_on, ends))


def test_undo_takes_a_turn_that_waits_alone() -> None:
    """The turn before it, which waits for nothing, stays."""
    whole = session(turns=1).with_turn(turn("b", calling("1")), 8.0)

    assert whole.undone(9.0)[0].record.turns == (turn("0"),)


@pytest.mark.parametrize("step", [Session.without_last_turn, lambda made: made.undone(9.0)])
def test_where_no_turn_is_none_is_taken_back(step: Callable[[Session], object]) -> None:
    """The message names the session, and it stays in its state."""
    with pytest.raises(InvalidStateTransitionError, match="session 'alice' has no turn yet") as refused:
        step(session(turns=0))
    assert refused.value.from_state is refused.value.to_state is ACTIVE


# -- settings


def test_what_is_kept_stays() -> None:
    """KEEP is the default of each; None takes a setting away."""
    made = session(system="Be brief.", route="fast", model="primary", context={"a": 1})

    assert made.with_settings(Settings(), 9.0) is made
    assert made.with_settings(Settings(system=KEEP, route=KEEP, model=KEEP), 9.0) is made
    assert made.with_settings(Settings(system="Be brief.", context={"a": 1}, forget=["b"]), 9.0) is made
    bare = made.with_settings(Settings(system=None, route=None, model=None, forget=["a"]), 9.0).record
    assert (bare.system, bare.route, bare.model, bare.context) == (None, None, None, {})


@pytest.mark.parametrize(
    ("settings", "route", "model"),
    [
        (Settings(route="fast"), "fast", None),
        (Settings(route="usual"), "usual", "large"),
        (Settings(route=None), None, "large"),
        (Settings(route="fast", model="small"), "fast", "small"),
        (Settings(system="Be brief."), "usual", "large"),
        (Settings(model="small"), "usual", "small"),
    ],
)
def test_another_route_takes_the_model_back(settings: Settings, route: str | None, model: str | None) -> None:
    """It would be asked alone; unless both are set, or the route is the same, or none."""
    record = session(route="usual", model="large").with_settings(settings, 9.0).record

    assert (record.route, record.model) == (route, model)


def test_an_empty_system_prompt_is_not_none() -> None:
    """Nor is an empty text for a model."""
    made = session().with_settings(Settings(system=""), 9.0)

    assert (made.record.system, made.changed) == ("", True)


def test_context_is_set_by_name() -> None:
    """Other names stay; the value of a name is replaced, not merged into; what is forgotten is gone, also if set."""
    made = session(context={"a": 1, "b": {"x": 1}, "c": 3})

    changed = made.with_settings(Settings(context={"b": {"y": 2}, "d": 4, "e": 5}, forget={"c", "e", "z"}), 9.0)

    assert changed.record.context == {"a": 1, "b": {"y": 2}, "d": 4}
    assert made.record.context == {"a": 1, "b": {"x": 1}, "c": 3}


def test_one_text_is_one_name_to_forget() -> None:
    """Not as many as it has letters."""
    made = session(context={"key": 1, "k": 2, "e": 3})

    assert made.with_settings(Settings(forget="key"), 9.0).record.context == {"k": 2, "e": 3}


@pytest.mark.parametrize(("before", "after"), [(1, True), (True, 1), (1, 1.0), (0.0, -0.0), ([0], [False])])
def test_values_that_only_python_takes_for_equal_are_a_change(before: object, after: object) -> None:
    """In JSON they are not."""
    made = session(context={"a": before})

    changed = made.with_settings(Settings(context={"a": after}), 9.0)

    assert changed.changed
    assert repr(changed.record.context) == repr({"a": after})


def test_settings_that_cannot_be_stored_are_refused() -> None:
    """At once; the session stays as it was."""
    with pytest.raises(SerializationError, match="context"):
        session().with_settings(Settings(context={"a": math.nan}), 9.0)


# -- the end


@pytest.mark.parametrize(
    ("lifetime", "ends"),
    [
        (Lifetime(), math.inf),
        (Lifetime(idle=10.0), 30.0),
        (Lifetime(age=10.0), 15.0),
        (Lifetime(idle=10.0, age=40.0), 30.0),
        (Lifetime(idle=100.0, age=40.0), 45.0),
        (Lifetime(idle=0.0), 20.0),
    ],
)
def test_a_session_ends_after_that_instant_and_not_at_it(lifetime: Lifetime, ends: float) -> None:
    """Of idle time and age the first counts, in a list as well as in the session's own hands."""
    record = SessionRecord("alice", created_at=5.0, used_at=20.0, state=ACTIVE)
    made = Session.loaded(record)

    assert lifetime.ends_at(record) == ends
    for now, state in ((-math.inf, ACTIVE), (ends, ACTIVE), (math.nextafter(ends, math.inf), EXPIRED)):
        if now < math.inf:
            assert lifetime.state(record, now) is lifetime.state(record.summary, now) is state
            assert lifetime.over(record, now) is (state is EXPIRED)
            if state is ACTIVE:
                made.check_open(lifetime, now)
            else:
                with pytest.raises(InvalidStateTransitionError, match="'alice' has expired: open it again"):
                    made.check_open(lifetime, now)


def test_use_puts_the_end_off() -> None:
    """Of idle time; age goes on."""
    used = session(used_at=1.0).with_turn(turn(), 9.0)

    assert Lifetime(idle=10.0).ends_at(used.record) == 19.0
    assert Lifetime(age=10.0).ends_at(used.record) == 11.0


@pytest.mark.parametrize("state", [CLOSED, EXPIRED])
def test_only_open_sessions_are_open(state: SessionState) -> None:
    """Created and active ones."""
    for fine in (CREATED, ACTIVE):
        session(fine).check_open(Lifetime(), 9.0)
    with pytest.raises(InvalidStateTransitionError, match=f"session 'alice' (is|has) {state}") as refused:
        session(state).check_open(Lifetime(), 9.0)
    assert (refused.value.from_state, refused.value.to_state) == (state, ACTIVE)


def test_a_closed_session_expires_too() -> None:
    """And is then called expired."""
    with pytest.raises(InvalidStateTransitionError, match="has expired"):
        session(CLOSED).check_open(Lifetime(age=1.0), 9.0)


# -- others


@pytest.mark.parametrize(
    ("mine", "stored", "told"),
    [
        (session(), None, "session 'alice' was deleted"),
        (
            session(),
            session(used_at=2.0).with_turn(turn(), 2.0).record,
            "changed by somebody else: version 6 is stored",
        ),
        (
            session(),
            SessionRecord("alice", created_at=2.0),
            "was deleted, and another one of the same name was created",
        ),
        (Session.new("alice", 1.0, Settings()), session().record, "was created by somebody else meanwhile"),
    ],
)
def test_a_conflict_says_what_has_happened(mine: Session, stored: SessionRecord | None, told: str) -> None:
    """With the versions as numbers."""
    error = mine.moved_on(stored)

    assert told in str(error)
    assert (error.session, error.version) == ("alice", mine.stored + 1)
    assert error.stored == (None if stored is None else stored.version)


def test_a_turn_holds_the_whole_answer() -> None:
    """Its thoughts and calls, and what it cost."""
    question = [Message(Role.USER, "Why?")]
    response = WizardResponse(
        "Because.",
        "primary",
        upstream_model="gpt",
        usage=TokenUsage(3, 2),
        cost=Decimal("0.10"),
        finish_reason=FinishReason.TOOL_CALLS,
        thoughts=(Thought("Hm."),),
        tool_calls=(ToolCall("1", "look", "{}"),),
        request_id="r1",
    )

    made = turn_of(question, response, 9.0)

    assert made == TurnRecord(
        [*question, response.message],
        at=9.0,
        model="primary",
        upstream_model="gpt",
        usage=TokenUsage(3, 2),
        cost=Decimal("0.10"),
        finish_reason=FinishReason.TOOL_CALLS,
        request_id="r1",
    )
    assert made.messages[-1].thoughts == response.thoughts


def test_half_a_surrogate_pair_in_an_answer_does_not_keep_a_turn_from_being_stored() -> None:
    """U+FFFD stands in its place, in the text, in thoughts, in what tools are called with and in the model's name."""
    half = "a\ud800"
    response = WizardResponse(
        half,
        "primary",
        upstream_model=half,
        thoughts=(Thought(half),),
        tool_calls=(ToolCall("1", "look", half),),
    )

    made = turn_of([], response, 9.0)

    (answer,) = made.messages
    (call,) = answer.tool_calls
    (thought,) = answer.thoughts
    assert {answer.text, made.upstream_model, thought.text, call.arguments} == {"a\ufffd"}
    assert turn_of([], evolve(response, upstream_model=None), 9.0).upstream_model is None
