"""A session under any steps, against a plain model of it: what it holds, its version, and whether it is open."""

from __future__ import annotations

import copy
from typing import TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wizard_actors.errors import InvalidStateTransitionError
from wizard_actors.session import KEEP, Lifetime, Session, Settings, TextOrKeep
from wizard_actors.session_record import SessionState, TurnRecord
from wizard_actors.types import Message, Role, ToolCall

Context: TypeAlias = "dict[str, object]"

CREATED, ACTIVE, CLOSED, EXPIRED = SessionState
LIFETIME = Lifetime(idle=30.0, age=100.0)
NAMES = st.sampled_from("abc")
CONTEXT = st.dictionaries(NAMES, st.sampled_from([None, 0, 1, True, 1.0, "1", [1], {"x": 1}]), max_size=2)
TEXTS: st.SearchStrategy[TextOrKeep] = st.sampled_from([KEEP, None, "", "x"])


class Sessions(RuleBasedStateMachine):
    """The session, and beside it what it should be. `turns`: of each a name, and whether it waits for tools."""

    @initialize(context=CONTEXT, system=TEXTS)
    def begin(self, context: Context, system: TextOrKeep) -> None:
        self.now = self.used = self.born = 1000.0
        self.session = Session.new("alice", self.now, Settings(context=context, system=system))
        self.state = CREATED
        self.context = copy.deepcopy(context)
        self.system = None if system is KEEP else system
        self.turns: list[tuple[str, bool]] = []
        self.stored, self.version, self.asked = 0, 1, 0

    # -- what is expected of a step

    def stepped(self) -> None:
        self.version, self.used = self.stored + 1, self.now

    def refused(self) -> bool:
        """Whether the session is closed or stored as expired."""
        return self.state not in {CREATED, ACTIVE}

    # -- steps

    @rule(seconds=st.sampled_from([0.0, 1.0, 29.5, 30.0, 30.5]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(waits=st.booleans(), again=st.booleans())
    def ask(self, waits: bool, again: bool) -> None:
        self.asked += 1
        answer = Message(Role.ASSISTANT, "!", tool_calls=[ToolCall("1", "f", "")] if waits else ())
        turn = TurnRecord([Message(Role.USER, str(self.asked)), answer], at=self.now)
        before = self.session.without_last_turn() if again and self.turns else self.session
        if self.refused():
            with pytest.raises(InvalidStateTransitionError):
                before.with_turn(turn, self.now)
            return
        self.session = before.with_turn(turn, self.now)
        self.turns = [*self.turns[: len(before.record.turns)], (str(self.asked), waits)]
        self.state = ACTIVE
        self.stepped()

    @rule(context=CONTEXT, forget=st.sets(NAMES, max_size=2), system=TEXTS)
    def set(self, context: Context, forget: set[str], system: TextOrKeep) -> None:
        wanted = {name: value for name, value in {**self.context, **context}.items() if name not in forget}
        prompt = self.system if system is KEEP else system
        chosen = Settings(context=context, forget=forget, system=system)
        if repr(wanted) == repr(self.context) and prompt == self.system:
            assert self.session.with_settings(chosen, self.now) is self.session
        elif self.refused():
            with pytest.raises(InvalidStateTransitionError):
                self.session.with_settings(chosen, self.now)
        else:
            self.session = self.session.with_settings(chosen, self.now)
            self.context, self.system = copy.deepcopy(wanted), prompt
            self.stepped()

    @rule()
    def undo(self) -> None:
        if self.refused() or not self.turns:
            with pytest.raises(InvalidStateTransitionError):
                self.session.undone(self.now)
            return
        self.session, taken = self.session.undone(self.now)
        gone = [self.turns.pop()]
        while self.turns and self.turns[-1][1]:
            gone.insert(0, self.turns.pop())
        assert [turn.messages[0].text for turn in taken] == [name for name, _ in gone]
        self.stepped()

    @rule()
    def save(self) -> None:
        self.session = self.session.saved()
        self.stored = self.version

    @rule()
    def load(self) -> None:
        if self.stored == self.version:
            self.session = Session.loaded(self.session.record)

    @precondition(lambda self: self.asked > 3)
    @rule()
    def close(self) -> None:
        if self.state is EXPIRED:
            with pytest.raises(InvalidStateTransitionError):
                self.session.closed(self.now)
        elif self.state is CLOSED:
            assert self.session.closed(self.now) is self.session
        else:
            self.session = self.session.closed(self.now)
            self.state = CLOSED
            self.stepped()

    @precondition(lambda self: self.asked > 6)
    @rule()
    def expire(self) -> None:
        self.session = self.session.expired(self.now)
        self.state, self.version = EXPIRED, self.stored + 1

    # -- what holds always

    @invariant()
    def holds_what_it_should(self) -> None:
        record = self.session.record
        assert (record.id, record.created_at, record.state) == ("alice", self.born, self.state)
        assert [turn.messages[0].text for turn in record.turns] == [name for name, _ in self.turns]
        assert repr(record.context) == repr(self.context)
        assert record.system == self.system
        assert record.used_at == self.used
        assert (self.session.stored, record.version) == (self.stored, self.version)
        assert self.session.changed is (self.stored != self.version)

    @invariant()
    def is_open_or_not(self) -> None:
        over = self.now > min(self.used + 30.0, self.born + 100.0)
        state = EXPIRED if over else self.state
        assert LIFETIME.state(self.session.record, self.now) is state
        if state in {CREATED, ACTIVE}:
            self.session.check_open(LIFETIME, self.now)
        else:
            with pytest.raises(InvalidStateTransitionError) as refused:
                self.session.check_open(LIFETIME, self.now)
            assert refused.value.from_state == state


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=25)
