"""Conversations that a server keeps, and the list of them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Literal, Self, Unpack

from attrs import evolve

from wizard_actors.ask_options import delivery_of
from wizard_actors.embed.host import Host
from wizard_actors.errors import (
    InvalidPromptError,
    InvalidStateTransitionError,
    SerializationError,
    SessionNotInitializedError,
)
from wizard_actors.remote.call import Call
from wizard_actors.remote.exchange import CREDIT
from wizard_actors.remote.options import RemoteOptions, deadline_of, options_to
from wizard_actors.remote.streams import RemoteSource
from wizard_actors.remote.trio_remote import TrioRemote, created_at
from wizard_actors.request import Delivery
from wizard_actors.response_stream import ResponseStream
from wizard_actors.session import KEEP, TextOrKeep, turn_of
from wizard_actors.session_json import unstructured
from wizard_actors.session_question import Question, Said, as_question
from wizard_actors.session_record import SessionRecord, SessionState, SessionSummary, TurnRecord
from wizard_actors.types import Message, Prompt, WizardResponse

__all__ = ["How", "RemoteSession", "RemoteSessions", "given"]

How = Delivery | Literal["live", "buffered"] | None


def given(
    system: TextOrKeep, route: TextOrKeep, model: TextOrKeep, context: Mapping[str, object] | None
) -> dict[str, object]:
    """Return the settings of a session as they travel: those that are given."""
    settings: dict[str, object] = {"system": system, "route": route, "model": model}
    found = {name: value for name, value in settings.items() if value is not KEEP}
    return {**found, "context": dict(context)} if context else found


def travelling(question: Question) -> dict[str, object]:
    """Return what is asked in a turn as it travels. Raises `InvalidPromptError` where JSON has no place for it."""
    try:
        like = {} if question.like is None else unstructured(question.like)
        return {**like, "messages": [unstructured(message) for message in question.messages]}
    except SerializationError as error:
        raise InvalidPromptError(f"the prompt cannot be sent as JSON: {error.message}") from error


class RemoteSession:
    """A conversation that a server keeps: each turn goes on from the ones before, and is stored before it is answered.

        async with client.session("alice", system="Be brief") as session:
            response = await session.send("Why actors?")

    A turn that fails or is cancelled leaves the session as it was; where the connection is lost, nobody here knows:
    `refresh` tells. One turn runs at a time; further ones wait for it, at the server.
    """

    def __init__(self, inside: TrioRemote, name: str, settings: Mapping[str, object], host: Host) -> None:
        self.id = name
        """The session's name."""
        self._inside = inside
        self._settings = settings
        self._host = host
        self._record: SessionRecord | None = None
        self._asked: list[TurnRecord] = []  # answered here, and not known to be in what the server has shown last
        self._refreshes = self._seen = 0
        self._created_at: float | None = None  # of the session as it is stored; None: it may not be, yet
        self._state: Literal["created", "open", "left"] = "created"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r}>"

    async def __aenter__(self) -> Self:
        if self._state != "created":
            raise InvalidStateTransitionError(
                f"session {self.id!r}: its block is entered once: ask the client for another",
                from_state=self._state,
                to_state="open",
            )
        self._state = "open"
        self._record = record = await self._host.run(partial(self._inside.opened, self.id, self._settings))
        self._created_at = record.created_at if record.turns or self._settings else None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "left"

    @property
    def record(self) -> SessionRecord:
        """The session as it was seen last, when it was entered or refreshed, with the turns that were asked here since;
        its version and times are those seen last.
        """
        if self._record is None:
            raise self._not_open()
        return self._record

    @property
    def history(self) -> tuple[Message, ...]:
        """The messages of all turns of `record`, in order."""
        return self.record.messages

    async def send(
        self, prompt: Said, *, like: Prompt | None = None, **options: Unpack[RemoteOptions]
    ) -> WizardResponse:
        """Return the answer to `prompt`, once the turn is stored. A Prompt's tools and other parameters hold for this
        turn; `like` has those for messages that are given alone: the results of tools, say.

        Raises what `RemoteClient.generate` raises; `InvalidStateTransitionError` for a session that is closed or has
        expired; `SessionConflictError` where somebody else has changed or deleted it meanwhile; `MailboxFullError`
        where too many turns wait already; `StorageError`.
        """
        self._check_open()
        question = as_question(prompt, like)
        response, created = await self._host.run(partial(self._inside.send, self._turn(question), options))
        self._answered(question, response, created)
        return response

    def stream(
        self, prompt: Said, *, like: Prompt | None = None, delivery: How = None, **options: Unpack[RemoteOptions]
    ) -> ResponseStream:
        """Return the answer as a stream of events, as `RemoteClient.stream`. The turn begins with the first read, and
        is stored before the last event, `End`, is read; a stream that is left before that leaves the session as it was.
        """
        self._check_open()
        question = as_question(prompt, like)
        params = {**self._turn(question), **options_to(options)}
        if delivery is not None:
            params["delivery"] = delivery_of(delivery)
        call = Call(self._inside.link, "session.stream", params, credit=CREDIT, deadline=deadline_of(options))

        def answered(response: WizardResponse, result: object) -> None:
            self._answered(question, response, created_at(result))

        source = RemoteSource(call, answered)
        return ResponseStream(lambda: self._host.source(lambda _taken: source, patience=math.inf), call.id)

    async def refresh(self) -> None:
        """See what is stored now; a session that is not stored any more is seen as a new one."""
        self._check_open()
        self._refreshes += 1
        number, stored = self._refreshes, list(self._asked)  # what is answered already is in what comes now
        record = await self._host.run(partial(self._inside.opened, self.id, {}))
        if number > self._seen:  # else another one, begun later, was here first
            self._seen = number
            self._created_at = record.created_at if record.turns else None
            self._show(record, stored)

    async def delete(self) -> bool:
        """Remove the session; False where it was not stored. A further turn begins a new one."""
        self._check_open()
        deleted = await self._host.run(partial(self._inside.delete, self.id))
        await self.refresh()
        return deleted

    def _show(self, record: SessionRecord, stored: Sequence[TurnRecord]) -> None:
        """Take in what the server shows, which has the `stored` turns; those that crossed with it may be in it or not,
        and their requests tell.
        """
        known = {id(turn) for turn in stored}
        shown = {turn.request_id for turn in record.turns} - {""}
        self._asked = [turn for turn in self._asked if id(turn) not in known and turn.request_id not in shown]
        turns = (*record.turns, *self._asked)
        self._record = evolve(record, turns=turns, state=SessionState.ACTIVE if self._asked else record.state)

    def _turn(self, question: Question) -> dict[str, object]:
        """Return a turn as it travels: of the session that was seen, and no other one of its name."""
        seen = {} if self._created_at is None else {"created_at": self._created_at}
        return {"session": self.id, **seen, "prompt": travelling(question)}

    def _answered(self, question: Question, response: WizardResponse, created: float | None) -> None:
        self._created_at = created
        turn, turns = turn_of(question.messages, response, time.time()), self.record.turns
        if turn.request_id and any(each.request_id == turn.request_id for each in turns):
            return  # a refresh has seen it
        self._asked.append(turn)
        self._record = evolve(self.record, turns=(*turns, turn), state=SessionState.ACTIVE)

    def _check_open(self) -> None:
        if self._state != "open":
            raise self._not_open()

    def _not_open(self) -> SessionNotInitializedError:
        return SessionNotInitializedError(
            f"session {self.id!r} is used inside its block: async with client.session({self.id!r}) as session",
            from_state=self._state,
            to_state=SessionState.ACTIVE,
        )


class RemoteSessions:
    """All sessions that the server keeps for the client's key: `client.sessions`."""

    def __init__(self, inside: TrioRemote, host: Host) -> None:
        self._inside = inside
        self._host = host

    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        """Return a page of the sessions whose names begin with `prefix`, those used last first, `limit` at most: 1 to
        1,000. The next page is `after` the last of this one.
        """
        return await self._host.run(partial(self._inside.list, limit=limit, after=after, prefix=prefix))

    async def load(self, name: str) -> SessionRecord | None:
        """Return what is stored of a session; None where there is nothing."""
        return await self._host.run(partial(self._inside.load, name))

    async def delete(self, name: str) -> bool:
        """Remove a session; False where it was not stored. Waits for a turn in progress."""
        return await self._host.run(partial(self._inside.delete, name))
