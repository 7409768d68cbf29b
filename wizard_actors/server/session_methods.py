"""The methods of sessions: each opens the session, does one thing, and keeps nothing of it here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import trio

from wizard_actors.ask_options import delivery_of
from wizard_actors.errors import (
    InvalidPromptError,
    ParseError,
    SerializationError,
    SessionConflictError,
    WizardError,
)
from wizard_actors.held_session import NOT_LOST, HeldSession
from wizard_actors.protocol.values import prompt_from, response_to, session_to, summary_from, summary_to
from wizard_actors.request import Delivery
from wizard_actors.server.call import Call, streamed
from wizard_actors.server.params import ASKING
from wizard_actors.session import Settings
from wizard_actors.session_json import structured
from wizard_actors.session_question import Question, as_question
from wizard_actors.session_record import SessionSummary
from wizard_actors.storage.base import MAX_PAGE
from wizard_actors.types import Message

__all__ = ["create_session", "delete_session", "list_sessions", "send_turn", "session_history", "stream_turn"]


async def create_session(call: Call) -> object:
    """Open a session, and store what is given of it; one that is not stored, with nothing given, begins with its first
    turn.
    """
    params = call.params
    params.only("session", "system", "route", "model", "context")
    given = Settings(
        system=params.text_or_keep("system"),
        route=params.text_or_keep("route"),
        model=params.text_or_keep("model"),
        context=params.mapping("context") or {},
    )
    held = await call.client.sessions.open(params.text("session"), given)
    if given != Settings() and not held.session.stored:
        await call.client.sessions.update(held, given)
    return session_to(call.client.sessions.record(held))


async def send_turn(call: Call) -> object:
    """Return the answer of a turn, once it is stored."""
    call.params.only("session", "created_at", "prompt", *ASKING)
    question, options = _question(call.params.value("prompt")), call.params.options()
    held = await _opened(call)
    try:
        response = await call.client.sessions.send(call.client.sessions.turn(held, question, Delivery.WHOLE, options))
    except WizardError as error:
        _lost(held, error)
        raise
    return _of_session(response_to(response, now=time.time()), held)


async def stream_turn(call: Call) -> object:
    """Send the events of a turn's answer. The turn is stored when all of them have been sent: then the end is sent."""
    call.params.only("session", "created_at", "prompt", *ASKING, "delivery", "credit")
    call.may_notify()
    how = delivery_of(call.params.text("delivery", call.config.stream.delivery))
    question, options = _question(call.params.value("prompt")), call.params.options()
    held = await _opened(call)
    turn = call.client.sessions.turn(held, question, how, options)
    try:
        return _of_session(await streamed(call, call.client.sessions.source(turn, trio.lowlevel.checkpoint)), held)
    except WizardError as error:
        _lost(held, error)
        raise


async def session_history(call: Call) -> object:
    """Return what is stored of a session; null where there is nothing."""
    call.params.only("session")
    record = await call.client.sessions.load(call.params.text("session"))
    return None if record is None else session_to(record)


async def list_sessions(call: Call) -> object:
    """Return a page of the caller's sessions, and whether there are more after it."""
    params, sessions = call.params, call.client.sessions
    params.only("limit", "after", "prefix")
    limit, prefix = params.whole("limit", 50, least=1, most=MAX_PAGE), params.text("prefix", "")
    page = await sessions.list(limit=limit, after=_after(call), prefix=prefix)
    more = len(page) == limit and bool(await sessions.list(limit=1, after=page[-1], prefix=prefix))
    return {"sessions": [summary_to(each) for each in page], "more": more}


async def delete_session(call: Call) -> object:
    """Remove a session."""
    call.params.only("session")
    return {"deleted": await call.client.sessions.delete(call.params.text("session"))}


async def _opened(call: Call) -> HeldSession:
    """Return the session of a turn. Raises `SessionConflictError` where it is not the one that the client has seen:
    its system prompt and its history are gone, and the turn would begin another one, without a word.
    """
    name, created_at = call.params.text("session"), call.params.number("created_at")
    held = await call.client.sessions.open(name)
    seen = held.session
    if created_at is not None and not (seen.stored and seen.record.created_at == created_at):
        again = "and another one of the same name was created since" if seen.stored else "or has expired"
        raise SessionConflictError(f"session {name!r} was deleted, {again}: see what is there now", session=name)
    return held


def _of_session(answer: Mapping[str, object], held: HeldSession) -> Mapping[str, object]:
    """Return the answer of a turn with what tells its session from others of that name."""
    return {**answer, "session": {"created_at": held.session.record.created_at}}


def _after(call: Call) -> SessionSummary | None:
    given = call.params.mapping("after")
    try:
        return None if given is None else summary_from(given)
    except ParseError:
        raise call.params.wrong("`after` must be the last entry of the page before, as it came") from None


def _question(value: object) -> Question:
    """Return what a turn begins with: a prompt, or, in its place, messages that go on from the session's own."""
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        prompt = prompt_from(value)
        messages: Sequence[Message] = prompt.messages
    else:
        prompt = prompt_from({**value, "messages": "?"})  # all but the messages, which need not stand alone
        messages = [_message(each, f"prompt.messages[{index}]") for index, each in enumerate(value["messages"])]
    if prompt.system is not None:
        raise InvalidPromptError("`prompt.system`: a session has a system prompt of its own, which session.create sets")
    return as_question(messages, prompt)


def _message(value: object, place: str) -> Message:
    try:
        return structured(value, Message, place)
    except SerializationError as error:
        raise InvalidPromptError(error.message) from error


def _lost(held: HeldSession, error: WizardError) -> None:
    """Say of an answer that could not be stored what is so here: nobody holds the session after this request."""
    if held.pending is not None:
        error.message = error.message.replace(NOT_LOST, "the answer is not stored, and lost: send the turn again")
