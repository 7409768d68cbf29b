"""A session's life, as a pure state machine over its records: every step returns the next version, and stores nothing.

    created ──first turn──> active ──close──> closed
       └────────close───────────┴──────────────^
    created, active, closed ──idle or too old──> expired

A session is open while it is created or active, and only then takes turns and other settings. Closed and expired ones
can be read, exported and deleted. Expired is what the clock says: it holds before anything is removed, and whether or
not anything is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Final, Literal, Self, TypeAlias

from attrs import evolve, field, frozen

from wizard_actors.errors import InvalidStateTransitionError, SessionConflictError
from wizard_actors.session_record import SessionRecord, SessionState, SessionSummary, TurnRecord
from wizard_actors.types import Message, WizardResponse
from wizard_actors.types.given import as_unicode

__all__ = ["KEEP", "Keep", "Lifetime", "Session", "Settings", "TextOrKeep", "turn_of"]


class Keep(Enum):
    """What stands for a setting that stays as it is: None is a value of its own."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP

TextOrKeep: TypeAlias = str | Literal[Keep.KEEP] | None


@frozen
class Lifetime:
    """For how long sessions last, in seconds: `idle` after they were last used, `age` after they were created; None:
    for ever.
    """

    idle: float | None = None
    age: float | None = None

    def ends_at(self, session: SessionRecord | SessionSummary) -> float:
        """Return the wall-clock instant after which the session has expired, if nobody uses it; infinite: never."""
        ends = [math.inf]
        if self.idle is not None:
            ends.append(session.used_at + self.idle)
        if self.age is not None:
            ends.append(session.created_at + self.age)
        return min(ends)

    def over(self, session: SessionRecord | SessionSummary, now: float) -> bool:
        """Whether the session has expired by `now`."""
        return now > self.ends_at(session)

    def state(self, session: SessionRecord | SessionSummary, now: float) -> SessionState:
        """Return the state that a session is in at `now`."""
        return SessionState.EXPIRED if self.over(session, now) else session.state


@frozen(kw_only=True)
class Settings:
    """What may be set of a session; `KEEP` leaves it as it is.

    `context` holds values to set, name by name, the others stay; `forget` names those to take out, also of what
    `context` sets. One text is one name. A route takes the model back, which would be asked alone, unless both are set.
    """

    system: TextOrKeep = KEEP
    route: TextOrKeep = KEEP
    model: TextOrKeep = KEEP
    context: Mapping[str, object] = field(factory=dict)
    forget: Collection[str] = ()

    def applied(self, record: SessionRecord) -> SessionRecord:
        """Return the record with these settings, the very same one where they change nothing.

        Raises `SerializationError` for what cannot be stored.
        """
        context = {**record.context, **self.context}
        for name in (self.forget,) if isinstance(self.forget, str) else self.forget:
            context.pop(name, None)
        new = evolve(
            record,
            system=record.system if self.system is KEEP else self.system,
            route=record.route if self.route is KEEP else self.route,
            model=record.model if self.model is KEEP else self.model,
            context=context,
        )
        if self.model is KEEP and self.route is not KEEP and self.route is not None and self.route != record.route:
            new = evolve(new, model=None)
        same = new == record and repr(new.context) == repr(record.context)  # to Python, True equals 1
        return record if same else new


@frozen
class Session:
    """A session as somebody holds it: a `record`, and the version of it that is `stored`, 0 where there is none.

    Where the two versions differ, the record has changed since and waits to be stored.
    """

    record: SessionRecord
    stored: int = 0

    @classmethod
    def new(cls, name: str, now: float, settings: Settings) -> Self:
        """Return a session that is not stored yet. Raises `SerializationError` for what cannot be."""
        return cls(settings.applied(SessionRecord(name, created_at=now)))

    @classmethod
    def loaded(cls, record: SessionRecord) -> Self:
        """Return a session as it is stored."""
        return cls(record, record.version)

    def saved(self) -> Self:
        """Return the session once its record is stored."""
        return evolve(self, stored=self.record.version)

    @property
    def changed(self) -> bool:
        """Whether the record waits to be stored."""
        return self.stored != self.record.version

    def is_of(self, record: SessionRecord) -> bool:
        """Whether `record` is of this very session, and not of one that was made anew under its name."""
        return (record.id, record.created_at) == (self.record.id, self.record.created_at)

    # -- steps

    def check_open(self, lifetime: Lifetime, now: float) -> None:
        """Raise `InvalidStateTransitionError` where the session is closed, or has expired by `now`."""
        self._check_state(lifetime.state(self.record, now))

    def with_settings(self, settings: Settings, now: float) -> Self:
        """Return the session with other settings, the very same where they change nothing.

        Raises `InvalidStateTransitionError` where it is closed or stored as expired, `SerializationError` for what
        cannot be stored.
        """
        record = settings.applied(self.record)
        return self if record is self.record else self._next(record, now)

    def with_turn(self, turn: TurnRecord, now: float) -> Self:
        """Return the session with one more turn. Raises `InvalidStateTransitionError` as `with_settings`."""
        record = evolve(self.record, turns=(*self.record.turns, turn), state=SessionState.ACTIVE)
        return self._next(record, now)

    def without_last_turn(self) -> Self:
        """Return the session as it was before its last turn, to go on from there; nothing but that is changed yet.

        Raises `InvalidStateTransitionError` where it has no turn.
        """
        return evolve(self, record=evolve(self.record, turns=self._some_turns()[:-1]))

    def undone(self, now: float) -> tuple[Self, tuple[TurnRecord, ...]]:
        """Return the session without its newest turn, and what was taken out: with it go the turns before it that wait
        for the results of tools, so that what is left can be gone on with.

        Raises `InvalidStateTransitionError` where it has no turn, and as `with_settings`.
        """
        turns = self._some_turns()
        left = turns[:-1]
        while left and left[-1].messages and left[-1].messages[-1].tool_calls:
            left = left[:-1]
        return self._next(evolve(self.record, turns=left), now), turns[len(left) :]

    def closed(self, now: float) -> Self:
        """Return the session closed; the very same where it is already.

        Raises `InvalidStateTransitionError` where it is stored as expired.
        """
        if self.record.state is SessionState.CLOSED:
            return self
        return self._next(evolve(self.record, state=SessionState.CLOSED), now)

    def expired(self, now: float) -> Self:
        """Return the session as one that another of its name may take the place of: see `check_replaces`."""
        record = evolve(self.record, version=self.stored + 1, state=SessionState.EXPIRED, updated_at=now)
        return evolve(self, record=record)

    def moved_on(self, stored: SessionRecord | None) -> SessionConflictError:
        """Return the error for a session that is not stored as it was: somebody else has changed it."""
        if stored is None:
            found = "was deleted: session.refresh() begins anew"
        elif not self.stored:
            found = "was created by somebody else meanwhile"
        elif not self.is_of(stored):
            found = "was deleted, and another one of the same name was created since: session.refresh() sees that one"
        else:
            found = f"was changed by somebody else: version {stored.version} is stored, and not {self.stored}"
        return SessionConflictError(
            f"session {self.record.id!r} {found}",
            session=self.record.id,
            version=self.stored + 1,
            stored=None if stored is None else stored.version,
        )

    def _next(self, record: SessionRecord, now: float) -> Self:
        self._check_state(self.record.state)
        return evolve(self, record=evolve(record, version=self.stored + 1, updated_at=now, used_at=now))

    def _check_state(self, state: SessionState) -> None:
        name = self.record.id
        if state is SessionState.EXPIRED:
            problem = f"session {name!r} has expired: open it again, and it begins anew"
        elif state is SessionState.CLOSED:
            problem = f"session {name!r} is closed: it can be read, exported and deleted, and takes nothing new"
        else:
            return
        raise InvalidStateTransitionError(problem, from_state=state, to_state=SessionState.ACTIVE)

    def _some_turns(self) -> tuple[TurnRecord, ...]:
        if not self.record.turns:
            raise InvalidStateTransitionError(
                f"session {self.record.id!r} has no turn yet: there is none to take back or to ask again",
                from_state=self.record.state,
                to_state=self.record.state,
            )
        return self.record.turns


def turn_of(question: Collection[Message], response: WizardResponse, at: float) -> TurnRecord:
    """Return what is stored of one turn: the messages that it added, and what the answer cost.

    Half a surrogate pair in an answer cannot be stored: U+FFFD stands in its place.
    """
    answer = evolve(
        response,
        text=as_unicode(response.text),
        tool_calls=tuple(evolve(call, arguments=as_unicode(call.arguments)) for call in response.tool_calls),
        thoughts=tuple(evolve(thought, text=as_unicode(thought.text)) for thought in response.thoughts),
    )
    return TurnRecord(
        (*question, answer.message),
        at=at,
        model=response.model,
        upstream_model=None if response.upstream_model is None else as_unicode(response.upstream_model),
        usage=response.usage,
        cost=response.cost,
        finish_reason=response.finish_reason,
        request_id=response.request_id,
    )
