"""`BlockingSession`: a conversation that is kept, for programs without an event loop; and the list of all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self, Unpack

from wizard_actors.ask_options import AskOptions
from wizard_actors.blocking_stream import BlockingStream
from wizard_actors.embed.blocking_host import BlockingHost, BlockingSource
from wizard_actors.held_session import HeldSession
from wizard_actors.persistent_session import How, Said, SeenSession, settings_of
from wizard_actors.request import Delivery
from wizard_actors.session import KEEP, TextOrKeep
from wizard_actors.session_question import Question, again, as_question
from wizard_actors.session_record import SessionRecord, SessionSummary, TurnRecord
from wizard_actors.session_turn import Turn
from wizard_actors.trio_client import TrioClient
from wizard_actors.types import Prompt, WizardResponse

__all__ = ["BlockingSession", "BlockingStoredSessions"]


class BlockingSession(SeenSession):
    """A conversation that is kept, for plain programs and threads; see `PersistentSession`.

    with client.session("alice", system="Be brief") as session:
        response = session.send("Why actors?")
    """

    def __init__(self, inside: TrioClient, held: HeldSession, host: BlockingHost[TrioClient]) -> None:
        super().__init__(inside, held)
        self._host = host

    def __enter__(self) -> Self:
        self._enter()
        try:
            self._host.run(self._held.open)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    if not TYPE_CHECKING:  # where types are checked, it has none of these

        async def __aenter__(self) -> NoReturn:
            raise TypeError(f"this session's block is a plain one: with client.session({self.id!r}) as session")

        async def __aexit__(self, *error: object) -> None:
            """Never: it is not entered."""

    def send(self, prompt: Said, *, like: Prompt | None = None, **options: Unpack[AskOptions]) -> WizardResponse:
        """Return the answer to `prompt`, once the turn is stored; as `PersistentSession.send`."""
        turn = self._turn(as_question(prompt, like), Delivery.WHOLE, options)
        return self._host.run(partial(self._inside.sessions.send, turn))

    def stream(
        self, prompt: Said, *, like: Prompt | None = None, delivery: How = None, **options: Unpack[AskOptions]
    ) -> BlockingStream:
        """Return the answer as a stream of events; as `PersistentSession.stream`."""
        return self._stream(as_question(prompt, like), delivery, options)

    def retry(self, *, like: Prompt | None = None, **options: Unpack[AskOptions]) -> WizardResponse:
        """Ask the last question again; as `PersistentSession.retry`."""
        turn = self._turn(again(like), Delivery.WHOLE, options)
        return self._host.run(partial(self._inside.sessions.send, turn))

    def stream_retry(
        self, *, like: Prompt | None = None, delivery: How = None, **options: Unpack[AskOptions]
    ) -> BlockingStream:
        """Ask the last question again, and return the answer as a stream; as `PersistentSession.stream_retry`."""
        return self._stream(again(like), delivery, options)

    def undo(self) -> tuple[TurnRecord, ...]:
        """Take the newest turn back, and return it; as `PersistentSession.undo`."""
        return self._host.run(partial(self._inside.sessions.undo, self._free()))

    def update(
        self,
        *,
        system: TextOrKeep = KEEP,
        route: TextOrKeep = KEEP,
        model: TextOrKeep = KEEP,
        context: Mapping[str, object] | None = None,
        forget: Collection[str] = (),
    ) -> None:
        """Set what is given, and store it; as `PersistentSession.update`."""
        settings = settings_of(system, route, model, context, forget)
        self._host.run(partial(self._inside.sessions.update, self._free(), settings))

    def refresh(self) -> None:
        """See what is stored now."""
        self._host.run(self._open().refresh)

    def keep(self) -> None:
        """Store the turn that could not be stored, after whatever was stored since."""
        self._host.run(self._free().keep)

    def close(self) -> None:
        """Close the session for good: it takes no more turns, and stays to be read."""
        self._host.run(partial(self._inside.sessions.close, self._free()))

    def delete(self) -> bool:
        """Remove the session; False where it was not stored. A further turn begins a new one."""
        return self._host.run(self._free().delete)

    def _stream(self, question: Question, how: How, options: AskOptions) -> BlockingStream:
        turn = self._turn(question, how, options)
        patience = self._inside.config.stream.consumer_idle
        return BlockingStream(lambda: self._source(turn, patience), turn.request_id)

    def _source(self, turn: Turn, patience: float) -> BlockingSource:
        return self._host.source(self._beginning(turn), patience=patience)

    def _who(self) -> object:
        return get_ident()


class BlockingStoredSessions:
    """All sessions that are stored: `client.sessions` of a `BlockingClient`; as `StoredSessions`."""

    def __init__(self, inside: TrioClient, host: BlockingHost[TrioClient]) -> None:
        self._inside = inside
        self._host = host

    def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        """Return a page of the sessions whose names begin with `prefix`; as `StoredSessions.list`."""
        return self._host.run(partial(self._inside.sessions.list, limit=limit, after=after, prefix=prefix))

    def load(self, name: str) -> SessionRecord | None:
        """Return what is stored of a session; None where there is nothing."""
        return self._host.run(partial(self._inside.sessions.load, name))

    def delete(self, name: str) -> bool:
        """Remove a session, once the turn in progress has ended; False where there was none."""
        return self._host.run(partial(self._inside.sessions.delete, name))

    def purge(self, *, idle: float | None = None, age: float | None = None) -> tuple[str, ...]:
        """Remove old sessions, and return their names; as `StoredSessions.purge`."""
        return self._host.run(partial(self._inside.sessions.purge, idle=idle, age=age))

    def add(self, record: SessionRecord, *, replace: bool = False) -> SessionRecord:
        """Store a session that was exported; as `StoredSessions.add`."""
        return self._host.run(partial(self._inside.sessions.add, record, replace=replace))
