"""One turn of a session: a question on the way to its answer, and the answer on the way into the storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, Protocol, Self

import trio
from attrs import evolve

from wizard_actors.ask_options import AskOptions
from wizard_actors.context_window import budget_of, fit
from wizard_actors.errors import ConfigError, ConfigProblem, InvalidPromptError, TokenLimitError
from wizard_actors.estimate import estimate_input
from wizard_actors.events import SessionTurn
from wizard_actors.held_session import HeldSession
from wizard_actors.keeping import Keeping
from wizard_actors.port import deadline_exceeded
from wizard_actors.request import Delivery, Request
from wizard_actors.response_stream import Source, Taken
from wizard_actors.session import Session, turn_of
from wizard_actors.session_question import Question
from wizard_actors.session_record import SessionRecord, TurnRecord
from wizard_actors.session_store import Lease
from wizard_actors.types import End, Message, Prompt, Role, StreamEvent, WizardResponse

__all__ = ["Asker", "SessionSource", "Turn"]

UNKNOWN: Final = "?"
"""What stands for a question in a request that is only looked at: its options."""


class Asker(Protocol):
    """Who gets answers: the client."""

    def request(
        self, prompt: str | Prompt, delivery: Delivery, options: AskOptions, *, like: Request | None = None
    ) -> Request:
        """Return the request, or raise what is wrong with it. It is made in the configuration in which `like` was."""

    async def answer(self, request: Request) -> WizardResponse:
        """Return the whole answer."""

    def source(self, request: Request, *, on_lost: Callable[[], None] | None = None) -> Source:
        """Return the events of the answer; `on_lost` is called where nobody has read them for too long."""

    def room(self, request: Request) -> int | None:
        """Return the context window of the first model that has a known one, in tokens: of the request's route, in the
        configuration in which it was made.
        """


class Turn:
    """One turn, once. `begin` takes the session's lease, `commit` stores the answer, `end` returns the lease.

    It is ended by whoever made it, whatever happens. The deadline of the options counts from when it is made.
    """

    def __init__(
        self,
        keeping: Keeping,
        asker: Asker,
        held: HeldSession,
        question: Question,
        *,
        delivery: Delivery,
        options: AskOptions,
        context_tokens: int | None,
    ) -> None:
        self._keeping = keeping
        self._asker = asker
        self._held = held
        self._question = question
        self._again = question.again
        self._displaced: tuple[Question | None, bool] = (None, False)
        self._options = options
        self._context_tokens = context_tokens
        self._draft = asker.request(UNKNOWN, delivery, options)
        self._lease: Lease | None = None
        self._before: Session | None = None
        self._replaces: TurnRecord | None = None
        self._left_out = 0
        self._over = self._ended = False

    @property
    def request_id(self) -> str:
        """The id that runs through logs, events and headers."""
        return self._draft.request_id

    @property
    def over(self) -> bool:
        """Whether it has ended; in any thread."""
        return self._ended

    @property
    def in_progress(self) -> bool:
        """Whether it has the session's lease; in any thread."""
        return self._lease is not None

    async def begin(self) -> Request:
        """Wait for the turn, and return what is to be asked. Raises what stands against it, with nothing sent."""
        try:
            self._lease = await self._keeping.take(self._held.name, self.request_id, deadline=self._draft.deadline)
        finally:  # also where it never gets its turn; but a turn that only waits has asked nothing yet
            if not self._again:
                self._remember(unanswered=True)
        self._before = await self._current()
        if self._again:
            self._ask_again(self._before)
        return self._request(self._before)

    async def commit(self, response: WizardResponse) -> None:
        """Store the turn; then it is part of the session. Raises what the storage raises: then it is `pending`."""
        if self._before is None:
            raise RuntimeError("a turn is begun before it is stored")
        now, held = self._keeping.wall(), self._held
        if held.question is self._question:
            held.unanswered = False
        try:
            session = self._before.with_turn(turn_of(self._question.messages, response, now), now)
            await held.keep_turn(session, self._replaces)
        except Exception:
            self._publish("unsaved")
            raise
        self._publish("stored")

    def end(self, error: BaseException | None = None) -> None:
        """Give the lease back. A turn that is not stored was broken off by `error`, or by whoever asked."""
        if self._before is not None:
            self._publish("failed" if isinstance(error, Exception) else "cancelled")
        if isinstance(error, InvalidPromptError) and not isinstance(error, TokenLimitError):
            self._forget()  # no model would take it: there is nothing to ask again
        self._ended = True
        if self._draft.hold is not None:
            self._draft.hold.release()
        lease, self._lease = self._lease, None
        if lease is not None:
            self._keeping.give_back(lease)

    async def _current(self) -> Session:
        """Return the session to go on from, within the deadline: what is not stored yet is stored in any case."""
        with trio.CancelScope(deadline=self._draft.deadline):
            return await self._held.current()
        raise deadline_exceeded(self._draft.given)

    def _ask_again(self, session: Session) -> None:
        """Ask what got no answer, else the last turn's question, which gives way to this one; as it was asked here."""
        held, like, last = self._held, self._question.like, self._held.question
        if held.unanswered and last is not None:
            self._question = evolve(last, like=like or last.like)
            self._remember(unanswered=True)
            return
        self._before, self._replaces = session.without_last_turn(), session.record.turns[-1]
        messages = _asked(session)
        if like is None and last is not None and last.messages == messages:
            like = last.like
        self._question = Question(messages, like=like)
        self._remember(unanswered=False)  # the last turn has its answer

    def _remember(self, *, unanswered: bool) -> None:
        """Note in the session what is being asked: for `retry`."""
        held = self._held
        self._displaced = (held.question, held.unanswered)
        held.question, held.unanswered = self._question, unanswered

    def _forget(self) -> None:
        """Take that back, unless something else has been asked since, or this was asked before."""
        held = self._held
        if held.question is self._question and not self._again:
            held.question, held.unanswered = self._displaced

    def _request(self, session: Session) -> Request:
        record, options, question = session.record, self._options, self._question
        _check_tools(record, question)
        if options.get("route") is None and options.get("model") is None:
            options = {**options, "route": record.route, "model": record.model}
        asked = self._asked(options)
        window = fit(record.system, record.turns, question.messages, self._budget(asked))
        self._left_out = window.left_out
        prompt = question.prompt(window.messages, record.system)
        return evolve(self._draft, prompt=prompt, route=asked.route, hold=asked.hold)

    def _budget(self, asked: Request) -> int | None:
        """Return how many tokens the system prompt, the history and the question may take; None: nobody knows."""
        like = self._question.like
        room = budget_of(self._asker.room(asked), answer=None if like is None else like.max_tokens)
        limits = [limit for limit in (room, self._context_tokens) if limit is not None]
        beside = 0 if like is None else estimate_input(like) - estimate_input(Prompt(like.messages))
        return max(0, min(limits) - beside) if limits else None

    def _asked(self, options: AskOptions) -> Request:
        """Return a request with these options: as the configuration was when the turn was asked for, which a reload may
        have changed since; else, for what the session was told meanwhile, as it is now.
        """
        try:
            try:
                return self._asker.request(UNKNOWN, self._draft.delivery, options, like=self._draft)
            except ConfigError:
                return self._asker.request(UNKNOWN, self._draft.delivery, options)
        except ConfigError as error:
            name = self._held.name
            raise ConfigError(
                [
                    ConfigProblem(
                        problem.key, problem.reason, f"session {name!r} asks for it: session.update() changes that"
                    )
                    for problem in error.problems
                ],
                file=error.file,
            ) from error

    def _publish(self, outcome: Literal["stored", "failed", "cancelled", "unsaved"]) -> None:
        if not self._over:
            self._over = True
            turns = len(self._held.session.record.turns)
            self._keeping.events.publish(
                SessionTurn(
                    trio.current_time(),
                    session=self._held.name,
                    request_id=self.request_id,
                    outcome=outcome,
                    left_out=self._left_out,
                    turns=turns,
                )
            )


def _check_tools(record: SessionRecord, question: Question) -> None:
    """Refuse a question where results of tools are waited for: after a program that ended before it had them, say."""
    calls = record.messages[-1].tool_calls if record.turns else ()
    if calls and not question.answers_tools:
        named = ", ".join(f"{call.name} ({call.id})" for call in calls)
        raise InvalidPromptError(
            f"session {record.id!r} waits for the results of the tools that its last answer calls: {named}: send them, "
            "or take that turn back with session.undo()"
        )


def _asked(session: Session) -> tuple[Message, ...]:
    """Return the question of the last turn."""
    messages = session.record.turns[-1].messages
    question = messages[:-1] if messages and messages[-1].role is Role.ASSISTANT else messages
    if not question:
        raise InvalidPromptError(f"session {session.record.id!r}: its last turn has no question to ask again")
    return question


class SessionSource:
    """The events of one turn's answer, read by one task at a time; the turn is stored before its `End` is read, and not
    before that is asked for: `taken` waits for it.
    """

    def __init__(self, turn: Turn, asker: Asker, taken: Taken) -> None:
        self._turn = turn
        self._asker = asker
        self._taken = taken
        self._source: Source | None = None
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        if self._ended:
            raise StopAsyncIteration
        try:
            if self._source is None:
                request = await self._turn.begin()
                if self._left():  # it was left while it waited for its turn
                    self._turn.end()
                    raise StopAsyncIteration  # noqa: TRY301 - ended as by any error
                self._source = self._asker.source(request, on_lost=self._turn.end)
            event = await anext(self._source)
            if isinstance(event, End):
                await self._taken()  # who leaves before the end leaves the session as it was
                await self._turn.commit(event.response)
        except BaseException as error:
            self._turn.end(error)
            raise
        if isinstance(event, End):
            self._ended = True
            self._turn.end()
        return event

    def _left(self) -> bool:
        return self._ended

    async def aclose(self) -> None:
        """Stop the call, if it is not over; the turn is then not stored."""
        self._ended = True
        try:
            if self._source is not None:
                await self._source.aclose()
        finally:
            self._turn.end()
