"""What the chat says of sessions, settings and answers, as texts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from wizard_actors.config import WizardConfig
from wizard_actors.config.storage import shown_storage
from wizard_actors.persistent_session import PersistentSession
from wizard_actors.session_record import SessionState, SessionSummary, TurnRecord
from wizard_actors.types import FinishReason, ServedBy, TokenUsage, WizardResponse

__all__ = ["costs", "greeting", "model_names", "route_names", "session_list", "what_is_known", "what_it_is"]

DEFAULT_ROUTE: Final = "wizard"


def greeting(session: PersistentSession, config: WizardConfig) -> str:
    """Return which session this is, who answers, how long it is and where it is kept, in a line."""
    record = session.record
    turns = f"{_turns(len(record.turns))}, last used {when(record.used_at)}" if record.turns else "new"
    who = "it is closed and takes no more turns" if session.state is SessionState.CLOSED else f"{_who(session)} answers"
    return f"session {session.id}: {turns}; {who}; {_place(config.sessions.storage)}"


def _turns(number: int) -> str:
    return "1 turn" if number == 1 else f"{number} turns"


def _who(session: PersistentSession) -> str:
    if session.model is not None:
        return f"the model {session.model}"
    return f"the route {session.route or DEFAULT_ROUTE}"


def _place(storage: str) -> str:
    return "kept in memory until the chat ends" if storage == "memory:" else f"kept in {shown_storage(storage)}"


def when(instant: float) -> str:
    """Return a wall-clock instant in local time, to the minute."""
    try:
        return f"{datetime.fromtimestamp(instant, UTC).astimezone():%Y-%m-%d %H:%M}"
    except (OverflowError, ValueError, OSError):  # a record may say any number
        return "at an unknown time"


def model_names(session: PersistentSession, config: WizardConfig) -> str:
    """Return the models, a line each; the one that is asked alone is marked."""
    lines = [f"{'*' if each.name == session.model else ' '} {each.name}" for each in config.models]
    who = "" if session.model is not None else f"{_who(session)} chooses\n"
    return who + "".join(f"{line}\n" for line in lines)


def route_names(session: PersistentSession, config: WizardConfig) -> str:
    """Return the routes with their models, a line each; the one that is asked is marked."""
    asked = None if session.model is not None else session.route or DEFAULT_ROUTE
    routes = [config.route(name) for name in dict.fromkeys([DEFAULT_ROUTE, *(each.name for each in config.routes)])]
    lines = [f"{'*' if each.name == asked else ' '} {each.name}: {' > '.join(each.chain)}" for each in routes]
    who = "" if session.model is None else f"{_who(session)} is asked alone\n"
    return who + "".join(f"{line}\n" for line in lines)


def session_list(page: Sequence[SessionSummary], current: str, *, more: bool) -> str:
    """Return stored sessions, a line each, the newest first."""
    if not page:
        return "no session is stored yet\n"
    width = max(len(each.id) for each in page)
    lines = [
        f"{'*' if each.id == current else ' '} {each.id:<{width}}  {_turns(each.turns):<9}  {when(each.used_at)}"
        f"{'' if each.state in {'active', 'created'} else f'  {each.state}'}"
        for each in page
    ]
    return "".join(f"{line}\n" for line in [*lines, *(["  more: wizard sessions list"] if more else [])])


def costs(session: PersistentSession) -> str:
    """Return the tokens and the cost of the session, and of its last turn."""
    turns = session.record.turns
    lines = [f"session: {_turns(len(turns))}, {_tokens(session.usage)}, {_money(session.cost)}"]
    if turns:
        last = turns[-1]
        used = "tokens not known" if last.usage is None else _tokens(last.usage)
        lines.append(f"last turn: {used}, {_money(last.cost)}{f', by {last.model}' if last.model else ''}")
    return "".join(f"{line}\n" for line in lines)


def _tokens(usage: TokenUsage) -> str:
    cached = f" ({usage.cached_tokens:,} of them cached)" if usage.cached_tokens else ""
    return f"{usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,} out"


def _money(cost: Decimal | None) -> str:
    return "cost not known" if cost is None else f"${cost:.6f}"


def what_it_is(response: WizardResponse) -> Iterator[str]:
    """Yield where an answer is less than it seems."""
    failed = ", ".join(dict.fromkeys(attempt.model for attempt in response.attempts)) or "none was asked"
    if response.served_by is ServedBy.STATIC:
        yield f"no model answered ({failed} failed): this is the route's static answer"
    if response.served_by is ServedBy.STALE:
        yield f"no model answered ({failed} failed): this is an older answer to the same question"
    yield from _cut_off(response.finish_reason)


def what_is_known(turn: TurnRecord) -> Iterator[str]:
    """Yield where the answer of a turn is less than it seems, as far as its record tells."""
    if not turn.model:
        yield "no model answered: this is the route's static answer"
    yield from _cut_off(turn.finish_reason)


def _cut_off(reason: FinishReason) -> Iterator[str]:
    if reason is FinishReason.LENGTH:
        yield "the answer was cut off where it reached its longest length: it is not complete"
    if reason is FinishReason.CONTENT_FILTER:
        yield "the provider's content filter broke the answer off: it is not complete"
