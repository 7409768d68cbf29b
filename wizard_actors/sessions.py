"""The sessions of a client, as they are under Trio: opened, asked, listed, brought in and removed."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from wizard_actors.ask_options import AskOptions
from wizard_actors.config import SessionsConfig
from wizard_actors.errors import (
    ConfigError,
    ConfigProblem,
    InvalidStateTransitionError,
    SerializationError,
    SessionConflictError,
)
from wizard_actors.held_session import HeldSession
from wizard_actors.keeping import Keeping, Removal
from wizard_actors.request import Delivery
from wizard_actors.response_stream import Taken
from wizard_actors.session import Session, Settings
from wizard_actors.session_question import Question
from wizard_actors.session_record import SessionRecord, SessionState, SessionSummary, TurnRecord, check_id
from wizard_actors.session_store import Busy
from wizard_actors.session_turn import Asker, SessionSource, Turn
from wizard_actors.storage.base import MAX_PAGE
from wizard_actors.types import WizardResponse

__all__ = ["TrioSessions"]


class TrioSessions:
    """All sessions of a client. `held`, `state` and `turn` may be called in any thread, all else in Trio's."""

    def __init__(self, keeping: Keeping, asker: Asker, config: SessionsConfig) -> None:
        self._keeping = keeping
        self._asker = asker
        self._config = config

    def state(self, record: SessionRecord) -> SessionState:
        """Return the state that a session is in now; in any thread."""
        return self._keeping.lifetime.state(record, self._keeping.wall())

    # -- one session

    def held(self, name: str, settings: Settings) -> HeldSession:
        """Return a session to be opened. Raises `SerializationError` for a name or settings that cannot be stored, and
        `ConfigError` for a route or model that there is not.
        """
        self._check(settings)
        return HeldSession(self._keeping, name, settings)

    def turn(self, held: HeldSession, question: Question, delivery: Delivery, options: AskOptions) -> Turn:
        """Return a turn to be begun. Raises `ConfigError` for options that are wrong."""
        if question.again:
            options = {"cache": "refresh", **options}  # else it would be the same answer once more
        return Turn(
            self._keeping,
            self._asker,
            held,
            question,
            delivery=delivery,
            options=options,
            context_tokens=self._config.context_tokens,
        )

    async def send(self, turn: Turn) -> WizardResponse:
        """Return the whole answer of a turn, once it is stored."""
        try:
            response = await self._asker.answer(await turn.begin())
            await turn.commit(response)
        except BaseException as error:
            turn.end(error)
            raise
        turn.end()
        return response

    def source(self, turn: Turn, taken: Taken) -> SessionSource:
        """Return the events of a turn's answer; `taken` waits for its reader."""
        return SessionSource(turn, self._asker, taken)

    async def undo(self, held: HeldSession) -> tuple[TurnRecord, ...]:
        """Take the newest turn back, and return what was taken."""
        taken: list[tuple[TurnRecord, ...]] = []

        def step(session: Session, now: float) -> Session:
            left, turns = session.undone(now)
            taken.append(turns)
            return left

        await held.change(step)
        held.unanswered = False
        return taken[0]

    async def update(self, held: HeldSession, settings: Settings) -> None:
        """Set what is given, and store it. Raises `ConfigError` for a route or model that there is not."""
        self._check(settings)
        await held.change(lambda session, now: session.with_settings(settings, now))

    async def close(self, held: HeldSession) -> None:
        """Close the session for good, and store that. Closing twice is closing once."""
        try:
            await held.change(lambda session, now: session.closed(now))
        except InvalidStateTransitionError as error:
            if error.from_state != SessionState.CLOSED:
                raise

    # -- all of them

    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        """Return a page of what is stored, each in the state that it is in now."""
        if not isinstance(after, SessionSummary | None):
            raise TypeError(f"after is a SessionSummary, the last of the page before, not {after!r}")
        page = await self._keeping.storage.list(limit=limit, after=after, prefix=prefix)
        now = self._keeping.wall()
        return [evolve(each, state=self._keeping.lifetime.state(each, now)) for each in page]

    async def load(self, name: str) -> SessionRecord | None:
        """Return what is stored of a session, in the state that it is in now."""
        check_id(name)
        record = await self._keeping.storage.load(name)
        if record is None:
            return None
        return evolve(record, state=self._keeping.lifetime.state(record, self._keeping.wall()))

    async def delete(self, name: str) -> bool:
        """Remove a session, once the turn in progress has ended."""
        check_id(name)
        async with self._keeping.lease(name):
            return await self._keeping.storage.delete(name)

    async def add(self, record: SessionRecord, *, replace: bool = False) -> SessionRecord:
        """Store a record as a new session, or as the next version of the one that it replaces; return what is stored.

        One step: where it fails, what was there is there.
        """
        if not isinstance(record, SessionRecord):
            raise SerializationError(
                "what is added is a SessionRecord, as from_json and from_markdown of wizard_actors.session_text return "
                f"it, not a {type(record).__name__}"
            )
        keeping = self._keeping
        async with keeping.lease(record.id):
            there, now = await keeping.find(record.id), keeping.wall()
            if there is not None and not replace:
                raise SessionConflictError(
                    f"session {record.id!r} is there already: take another name, or replace it",
                    session=record.id,
                    version=1,
                    stored=there.stored,
                )
            added = _made_now(record, now)
            if there is None:
                return (await keeping.put(Session(added))).record
            added = evolve(added, version=there.stored + 1, created_at=there.record.created_at)
            return (await keeping.put(evolve(there, record=added))).record

    async def purge(self, *, idle: float | None = None, age: float | None = None) -> tuple[str, ...]:
        """Remove every session that was idle for so long, or is so old; None for both: as configured."""
        if idle is None and age is None:
            idle, age = self._config.expire_idle, self._config.expire_age
        given: dict[str, object] = {"idle": idle, "age": age}
        for name, value in given.items():
            if value is not None and (isinstance(value, bool | str) or not isinstance(value, float | int) or value < 0):
                raise ConfigError([ConfigProblem(name, f"must be 0 seconds or more, a number, not {value!r}")])
        if idle is None and age is None:
            raise ConfigError([ConfigProblem("sessions", "expire never", "say how old: idle=..., age=..., in seconds")])
        keeping, removed = self._keeping, list[str]()
        now = keeping.wall()
        removal = Removal.of_older(now, idle=idle, age=age)
        with keeping.removing(removal):  # first: a turn that begins after the store was asked finds it
            while True:
                page = await keeping.storage.purge(
                    limit=MAX_PAGE,
                    used_before=removal.used_before,
                    created_before=removal.created_before,
                    busy=await keeping.store.ask(Busy()),
                )
                removed += page
                if len(page) < MAX_PAGE:
                    return tuple(removed)

    def _check(self, settings: Settings) -> None:
        """Raise `ConfigError` for a route or model that there is not, or that is disabled."""
        options: AskOptions = {}
        if isinstance(settings.route, str):
            options["route"] = settings.route
        if isinstance(settings.model, str):
            options["model"] = settings.model
        if options:
            self._asker.request("?", Delivery.WHOLE, options)


def _made_now(record: SessionRecord, now: float) -> SessionRecord:
    """Return a record as that of a session which begins now. Its turns keep their times."""
    state = record.state
    if state is SessionState.EXPIRED:
        state = SessionState.ACTIVE if record.turns else SessionState.CREATED
    return evolve(record, version=1, state=state, created_at=now, updated_at=now, used_at=now)
