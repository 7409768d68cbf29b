"""`PersistentSession`: a conversation that is kept, for programs under Trio or asyncio; and the list of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from functools import partial
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn, Self, TypeAlias, Unpack

import anyio

from wizard_actors.ask_options import AskOptions, delivery_of
from wizard_actors.embed.host import Host
from wizard_actors.errors import InvalidStateTransitionError, SessionNotInitializedError
from wizard_actors.held_session import HeldSession
from wizard_actors.request import Delivery
from wizard_actors.response_stream import ResponseStream, Source, Taken
from wizard_actors.session import KEEP, Settings, TextOrKeep
from wizard_actors.session_question import Question, Said, again, as_question
from wizard_actors.session_record import SessionRecord, SessionState, SessionSummary, TurnRecord
from wizard_actors.session_text import to_json, to_markdown
from wizard_actors.session_turn import SessionSource, Turn
from wizard_actors.trio_client import TrioClient
from wizard_actors.types import Message, Prompt, TokenUsage, WizardResponse

__all__ = ["How", "PersistentSession", "Said", "SeenSession", "StoredSessions", "settings_of"]

How: TypeAlias = Delivery | Literal["live", "buffered"] | None
"""How a stream is delivered; None: as configured."""


def settings_of(
    system: TextOrKeep,
    route: TextOrKeep,
    model: TextOrKeep,
    context: Mapping[str, object] | None,
    forget: Collection[str] = (),
) -> Settings:
    """Return what is to be set of a session, as programs give it."""
    return Settings(system=system, route=route, model=model, context=context or {}, forget=forget)


class SeenSession(ABC):
    """What can be said of a session without waiting: as it was seen last, when it was opened, asked or refreshed."""

    def __init__(self, inside: TrioClient, held: HeldSession) -> None:
        self._inside = inside
        self._held = held
        self._entered: Literal["created", "open", "left"] = "created"
        self._streaming: Mapping[object, Turn] = {}
        """The turn of the newest stream of everybody who reads one; replaced as a whole, for threads look at it."""
        self._changing = Lock()

    @property
    def id(self) -> str:
        """The session's name."""
        return self._held.name

    @property
    def record(self) -> SessionRecord:
        """The session, whole. One that was never stored has no turn."""
        return self._held.session.record

    @property
    def history(self) -> tuple[Message, ...]:
        """The messages of all turns, in order."""
        return self.record.messages

    @property
    def state(self) -> SessionState:
        """Where the session is in its life, now."""
        return self._inside.sessions.state(self.record)

    @property
    def system(self) -> str | None:
        """The system prompt."""
        return self.record.system

    @property
    def route(self) -> str | None:
        """The route that answers where a turn names none; None: the default one."""
        return self.record.route

    @property
    def model(self) -> str | None:
        """The model that answers alone where a turn names none; None: the route's."""
        return self.record.model

    @property
    def context(self) -> Mapping[str, object]:
        """The program's own values, in JSON's types; `update` changes them."""
        return self.record.context

    @property
    def cost(self) -> Decimal | None:
        """What all turns cost together, in US dollars: one of unknown cost adds nothing; None where none is known."""
        return self.record.cost

    @property
    def usage(self) -> TokenUsage:
        """The tokens of all turns together; a turn of unknown usage adds nothing."""
        return self.record.usage

    @property
    def unsaved(self) -> TurnRecord | None:
        """A turn that was answered and could not be stored. The next turn stores it first, if nothing has changed
        since; `keep` adds it to what is stored now, `discard` drops it.
        """
        pending = self._held.pending
        return None if pending is None else pending.turn

    def discard(self) -> None:
        """Drop the turn that could not be stored."""
        self._held.discard()

    def export(self, form: Literal["markdown", "json"] = "markdown") -> str:
        """Return the session as a text, which `wizard sessions import` brings in again, also elsewhere."""
        forms = {"markdown": to_markdown, "json": to_json}
        if form not in forms:
            raise ValueError(f"a session is exported as 'markdown' or 'json', not {form!r}")
        return forms[form](self.record)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r}: {len(self.record.turns)} turns>"

    # -- for the two facades

    def _enter(self) -> None:
        if self._entered != "created":
            raise InvalidStateTransitionError(
                f"session {self.id!r}: its block is entered once: ask the client for another",
                from_state=self._entered,
                to_state="open",
            )
        self._entered = "open"

    def _leave(self) -> None:
        self._entered = "left"

    def _open(self) -> HeldSession:
        if self._entered != "open":
            raise SessionNotInitializedError(
                f"session {self.id!r} is used inside its block: with client.session({self.id!r}) as session, or async "
                "with",
                from_state=self._entered,
                to_state=SessionState.ACTIVE,
            )
        return self._held

    def _free(self) -> HeldSession:
        """Return the session for what changes it. Raises where a stream of it is being read here: that has its lease,
        and waits for its reader.
        """
        turn = self._streaming.get(self._who())
        if turn is not None and turn.in_progress:
            raise InvalidStateTransitionError(
                f"session {self.id!r} is in the middle of a stream: read it to its end, or leave its block, before the "
                "session is used again here",
                from_state="streaming",
                to_state=SessionState.ACTIVE,
            )
        return self._open()

    def _beginning(self, turn: Turn) -> Callable[[Taken], SessionSource]:
        """Return what begins the stream of a turn, for whoever calls this, and notes that it is being read."""
        self._free()
        reader = self._who()

        def begin(taken: Taken) -> SessionSource:
            with self._changing:
                others = {each: other for each, other in self._streaming.items() if not other.over}
                self._streaming = {**others, reader: turn}
            return self._inside.sessions.source(turn, taken)

        return begin

    @abstractmethod
    def _who(self) -> object:
        """Return what tells one caller from another: its task, or its thread."""

    def _turn(self, question: Question, how: How, options: AskOptions) -> Turn:
        held = self._free()
        if how is not Delivery.WHOLE:
            how = delivery_of(self._inside.config.stream.delivery if how is None else how)
        return self._inside.sessions.turn(held, question, how, options)


class PersistentSession(SeenSession):
    """A conversation that is kept: each turn goes on from the ones before, and is stored before it is acknowledged.

        async with client.session("alice", system="Be brief") as session:
            response = await session.send("Why actors?")
            async with session.stream("And why on Trio?") as stream:
                ...

    Nothing is stored before the first turn, or the first `update`. A turn that fails or is cancelled leaves the session
    as it was. One turn runs at a time, in whatever task; further ones wait for it, at most 16. What other programs have
    stored meanwhile counts: each turn begins with what is stored then.
    """

    def __init__(self, inside: TrioClient, held: HeldSession, host: Host) -> None:
        super().__init__(inside, held)
        self._host = host

    async def __aenter__(self) -> Self:
        self._enter()
        try:
            await self._host.run(self._held.open)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    if not TYPE_CHECKING:  # where types are checked, it has none of these

        def __await__(self) -> NoReturn:
            raise TypeError(f"a session is opened by its block, not awaited: async with client.session({self.id!r})")

        def __enter__(self) -> NoReturn:
            raise TypeError(f"a session's block is asynchronous here: async with client.session({self.id!r})")

        def __exit__(self, *error: object) -> None:
            """Never: it is not entered."""

    async def send(self, prompt: Said, *, like: Prompt | None = None, **options: Unpack[AskOptions]) -> WizardResponse:
        """Return the answer to `prompt`, once the turn is stored; for the options see `AskOptions`.

        A Prompt's messages are added to the conversation, and its tools and other parameters hold for this turn. `like`
        has those for messages that are given alone: the results of tools, say. The oldest turns are left out where the
        whole is too long for the model.

        Raises what `ResilientClient.generate` raises; `InvalidStateTransitionError` for a session that is closed or has
        expired; `SessionConflictError` where somebody else has changed or deleted it meanwhile; `MailboxFullError`
        where 16 turns wait already; `StorageError`. After the last two of storing, `unsaved` holds the turn.
        """
        turn = self._turn(as_question(prompt, like), Delivery.WHOLE, options)
        return await self._host.run(partial(self._inside.sessions.send, turn))

    def stream(
        self, prompt: Said, *, like: Prompt | None = None, delivery: How = None, **options: Unpack[AskOptions]
    ) -> ResponseStream:
        """Return the answer as a stream of events, as `ResilientClient.stream`; the options and errors are those of
        `send`. The turn begins with the first read, and is stored before the last event, `End`, is read; a stream that
        is left before that leaves the session as it was.
        """
        return self._stream(as_question(prompt, like), delivery, options)

    async def retry(self, *, like: Prompt | None = None, **options: Unpack[AskOptions]) -> WizardResponse:
        """Ask the last question again: one that got no answer here, else that of the last turn, past the cache. The old
        turn stays until the new answer is stored in its place. Tools and other parameters are those that the question
        was asked with here, unless `like` has others.

        Raises what `send` raises, and `InvalidStateTransitionError` where there is no turn.
        """
        turn = self._turn(again(like), Delivery.WHOLE, options)
        return await self._host.run(partial(self._inside.sessions.send, turn))

    def stream_retry(
        self, *, like: Prompt | None = None, delivery: How = None, **options: Unpack[AskOptions]
    ) -> ResponseStream:
        """Ask the last question again, as `retry`; return the answer as a stream, as `stream`."""
        return self._stream(again(like), delivery, options)

    async def undo(self) -> tuple[TurnRecord, ...]:
        """Take the newest turn back, and return it; with it go the turns whose calls of tools it had answered."""
        return await self._host.run(partial(self._inside.sessions.undo, self._free()))

    async def update(
        self,
        *,
        system: TextOrKeep = KEEP,
        route: TextOrKeep = KEEP,
        model: TextOrKeep = KEEP,
        context: Mapping[str, object] | None = None,
        forget: Collection[str] = (),
    ) -> None:
        """Set what is given, and store it; `context` sets the values that it names, `forget` takes some out.

        Raises `SerializationError` for what cannot be stored, and what `send` raises of the session itself.
        """
        settings = settings_of(system, route, model, context, forget)
        await self._host.run(partial(self._inside.sessions.update, self._free(), settings))

    async def refresh(self) -> None:
        """See what is stored now."""
        await self._host.run(self._open().refresh)

    async def keep(self) -> None:
        """Store the turn that could not be stored, after whatever was stored since; where nothing is stored any more,
        as the first one of a new session.

        Raises `SessionConflictError` where it does not fit what is stored now, as a second result of one call of a
        tool, or a retry of what is not the last turn any more; and `StorageError`. The turn is `unsaved` still.
        """
        await self._host.run(self._free().keep)

    async def close(self) -> None:
        """Close the session for good: it takes no more turns, and stays to be read."""
        await self._host.run(partial(self._inside.sessions.close, self._free()))

    async def delete(self) -> bool:
        """Remove the session; False where it was not stored. A further turn begins a new one."""
        return await self._host.run(self._free().delete)

    def _stream(self, question: Question, how: How, options: AskOptions) -> ResponseStream:
        turn = self._turn(question, how, options)
        patience = self._inside.config.stream.consumer_idle
        return ResponseStream(lambda: self._source(turn, patience), turn.request_id)

    def _source(self, turn: Turn, patience: float) -> Source:
        return self._host.source(self._beginning(turn), patience=patience)

    def _who(self) -> object:
        return anyio.get_current_task().id


class StoredSessions:
    """All sessions that are stored: `client.sessions`. `add` and `delete` wait for a turn in progress."""

    def __init__(self, inside: TrioClient, host: Host) -> None:
        self._inside = inside
        self._host = host

    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        """Return a page of the sessions whose names begin with `prefix`, those used last first, `limit` at most: 1 to
        1,000. The next page is `after` the last of this one.
        """
        return await self._host.run(partial(self._inside.sessions.list, limit=limit, after=after, prefix=prefix))

    async def load(self, name: str) -> SessionRecord | None:
        """Return what is stored of a session; None where there is nothing."""
        return await self._host.run(partial(self._inside.sessions.load, name))

    async def delete(self, name: str) -> bool:
        """Remove a session, once the turn in progress has ended; False where there was none."""
        return await self._host.run(partial(self._inside.sessions.delete, name))

    async def purge(self, *, idle: float | None = None, age: float | None = None) -> tuple[str, ...]:
        """Remove the sessions that were unused for `idle` seconds, or are `age` seconds old, whatever their state, and
        return their names. Neither: those that have expired. None with a turn in progress here is removed.

        Raises `ConfigError` where neither is given and none expires.
        """
        return await self._host.run(partial(self._inside.sessions.purge, idle=idle, age=age))

    async def add(self, record: SessionRecord, *, replace: bool = False) -> SessionRecord:
        """Store a session that was exported, as one that begins now, and return it as it is stored.

        With `replace` it becomes the next version of the one of that name, and keeps its age. Raises
        `SessionConflictError` where there is one of that name, and it is not to be replaced.
        """
        return await self._host.run(partial(self._inside.sessions.add, record, replace=replace))
