"""One turn of a session: a question on the way to its answer, and the answer on the way into the storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal, Protocol, Self, TypeAlias

import trio
from attrs import evolve, field, frozen

from wizard_actors.ask_options import AskOptions
from wizard_actors.config import RouteConfig
from wizard_actors.context_window import budget_of, fit
from wizard_actors.errors import ConfigError, ConfigProblem, InvalidPromptError
from wizard_actors.estimate import estimate_input
from wizard_actors.events import SessionTurn
from wizard_actors.held_session import HeldSession, Keeping
from wizard_actors.request import Delivery, Request
from wizard_actors.response_stream import Source
from wizard_actors.session import Session, turn_of
from wizard_actors.session_store import Lease
from wizard_actors.types import End, Message, Prompt, Role, StreamEvent, WizardResponse

__all__ = ["Asker", "Question", "Said", "SessionSource", "Turn", "as_question"]

Said: TypeAlias = str | Prompt | Message | Iterable[Message]
"""What a turn can begin with."""

UNKNOWN: Final = "?"
"""What stands for a question in a request that is only looked at: its options."""


class Asker(Protocol):
    """Who gets answers: the client."""

    def request(self, prompt: str | Prompt, delivery: Delivery, options: AskOptions) -> Request:
        """Return the request, or raise what is wrong with it."""

    async def answer(self, request: Request) -> WizardResponse:
        """Return the whole answer."""

    def source(self, request: Request, *, on_lost: Callable[[], None] | None = None) -> Source:
        """Return the events of the answer; `on_lost` is called where nobody has read them for too long."""

    def room(self, route: RouteConfig) -> int | None:
        """Return the context window of the first model of the route that has a known one, in tokens."""


@frozen
class Question:
    """What is asked in a turn: `messages`, and how, as `like` has it. No messages: the last turn's, once more."""

    messages: tuple[Message, ...] = ()
    like: Prompt | None = field(default=None, kw_only=True)

    @property
    def again(self) -> bool:
        """Whether the last turn is to be replaced."""
        return not self.messages

    def prompt(self, history: Iterable[Message], messages: Iterable[Message], system: str | None) -> Prompt:
        """Return the whole prompt. Raises `InvalidPromptError`, as where results of tools have no calls."""
        whole = (*history, *messages)
        return Prompt(whole, system=system) if self.like is None else evolve(self.like, messages=whole, system=system)


def as_question(said: Said | None, like: Prompt | None) -> Question:
    """Return what is asked, None: the last question again. Raises `InvalidPromptError` for what is no question."""
    if said is None:
        return Question(like=_without_system(like))
    if isinstance(said, Prompt):
        if like is not None:
            raise InvalidPromptError("a Prompt says itself how it is to be answered: leave `like` out")
        return Question(said.messages, like=_without_system(said))
    if isinstance(said, str):
        return Question(Prompt(said).messages, like=_without_system(like))
    messages = (said,) if isinstance(said, Message) else tuple(said)
    if not messages or not all(isinstance(message, Message) for message in messages):
        raise InvalidPromptError("a turn begins with a str, a Prompt, or Message objects")
    return Question(messages, like=_without_system(like))


def _without_system(prompt: Prompt | None) -> Prompt | None:
    if prompt is not None and prompt.system is not None:
        raise InvalidPromptError("a session has a system prompt of its own: session.update(system=...) sets it")
    return prompt


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
        self._options = options
        self._context_tokens = context_tokens
        self._draft = asker.request(UNKNOWN, delivery, options)
        self._lease: Lease | None = None
        self._before: Session | None = None
        self._messages: tuple[Message, ...] = ()
        self._left_out = 0
        self._over = False

    @property
    def request_id(self) -> str:
        """The id that runs through logs, events and headers."""
        return self._draft.request_id

    async def begin(self) -> Request:
        """Wait for the turn, and return what is to be asked. Raises what stands against it, with nothing sent."""
        held, draft = self._held, self._draft
        self._lease = await self._keeping.take(held.name, draft.request_id, deadline=draft.deadline)
        session = await held.current()
        if self._question.again:
            self._before = session.without_last_turn()
            self._messages = _asked(session)
        else:
            self._before, self._messages = session, self._question.messages
        return self._request(self._before)

    async def commit(self, response: WizardResponse) -> None:
        """Store the turn; then it is part of the session. Raises what the storage raises: then it is `unsaved`."""
        if self._before is None:
            raise RuntimeError("a turn is begun before it is stored")
        now = self._keeping.wall()
        session = self._before.with_turn(turn_of(self._messages, response, now), now)
        try:
            await self._held.keep_turn(session)
        except Exception:
            self._publish("unsaved")
            raise
        self._publish("stored")

    def end(self, error: BaseException | None = None) -> None:
        """Give the lease back. A turn that is not stored was broken off by `error`, or by whoever asked."""
        if self._before is not None:
            self._publish("failed" if isinstance(error, Exception) else "cancelled")
        lease, self._lease = self._lease, None
        if lease is not None:
            self._keeping.give_back(lease)

    def _request(self, session: Session) -> Request:
        record, options = session.record, self._options
        if options.get("route") is None and options.get("model") is None:
            options = {**options, "route": record.route, "model": record.model}
        route = self._route(options)
        window = fit(record.system, record.turns, self._messages, self._budget(route))
        self._left_out = window.left_out
        prompt = self._question.prompt(window.messages, self._messages, record.system)
        return evolve(self._draft, prompt=prompt, route=route)

    def _budget(self, route: RouteConfig) -> int | None:
        """Return how many tokens the system prompt, the history and the question may take; None: nobody knows."""
        like = self._question.like
        room = budget_of(self._asker.room(route), answer=None if like is None else like.max_tokens)
        limits = [limit for limit in (room, self._context_tokens) if limit is not None]
        beside = 0 if like is None else estimate_input(like) - estimate_input(Prompt(like.messages))
        return max(0, min(limits) - beside) if limits else None

    def _route(self, options: AskOptions) -> RouteConfig:
        try:
            return self._asker.request(UNKNOWN, self._draft.delivery, options).route
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


def _asked(session: Session) -> tuple[Message, ...]:
    """Return the question of the last turn."""
    messages = session.record.turns[-1].messages
    question = messages[:-1] if messages and messages[-1].role is Role.ASSISTANT else messages
    if not question:
        raise InvalidPromptError(f"session {session.record.id!r}: its last turn has no question to ask again")
    return question


class SessionSource:
    """The events of one turn's answer, read by one task at a time; the turn is stored before its `End` is read."""

    def __init__(self, turn: Turn, asker: Asker) -> None:
        self._turn = turn
        self._asker = asker
        self._source: Source | None = None
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        if self._ended:
            raise StopAsyncIteration
        try:
            if self._source is None:
                self._source = self._asker.source(await self._turn.begin(), on_lost=self._turn.end)
            event = await anext(self._source)
            if isinstance(event, End):
                await self._turn.commit(event.response)
        except BaseException as error:
            self._turn.end(error)
            raise
        if isinstance(event, End):
            self._ended = True
            self._turn.end()
        return event

    async def aclose(self) -> None:
        """Stop the call, if it is not over; the turn is then not stored."""
        self._ended = True
        try:
            if self._source is not None:
                await self._source.aclose()
        finally:
            self._turn.end()
