"""How a request is counted, refused where it is one too many, and reported when it ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Final

import trio

from wizard_actors.books import Books
from wizard_actors.errors import (
    ActorStoppedError,
    ContentFilterError,
    FallbackError,
    InvalidPromptError,
    MailboxFullError,
    RequestError,
    RetryError,
    UnsupportedError,
    WizardError,
)
from wizard_actors.events import RequestBegan, RequestEnded, Shed
from wizard_actors.failure import Attempt, total_cost
from wizard_actors.metrics import overhead

__all__ = ["Reported"]

log = logging.getLogger("wizard_actors.requests")
log.addHandler(logging.NullHandler())  # its lines are fields, which a program without a handler would print as one word

FINE: Final = frozenset({None, "cancelled"})

OF_MANY: Final = frozenset({FallbackError.code, RetryError.code})
"""The codes that do not say why."""

OWN_FAULT: Final = (InvalidPromptError, ContentFilterError, RequestError, UnsupportedError)
"""What is wrong with the request itself, as models see it."""


class Reported:
    """Counts a request for as long as its block lasts, and reports its end, once: its response or its error's code.

    The configuration in which it was made stays in use until then.

    Entering raises `MailboxFullError` where `server.max_in_flight` requests are in flight already, and
    `ActorStoppedError` once the client is closing; leaving raises `SupervisorError` in place of whatever the request
    met because its tree could not go on. A class, for a generator costs several times as much, and a request has one.
    """

    __slots__ = ("_books",)

    def __init__(self, books: Books) -> None:
        self._books = books

    def __enter__(self) -> None:
        hold = self._books.request.hold
        if hold is not None:
            hold.__enter__()
        try:
            self._begin()
        except BaseException as error:
            if hold is not None:
                hold.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hold = self._books.request.hold
        try:
            self._end(error)
        finally:
            if hold is not None:
                hold.__exit__(kind, error, trace)

    def _begin(self) -> None:
        books, shared, request = self._books, self._books.shared, self._books.request
        bound = shared.config.server.max_in_flight
        if shared.in_flight.count >= bound:
            books.publish(Shed(books.began, request.request_id, route=request.route.name))
            _log(books, MailboxFullError.code, 0.0)
            raise MailboxFullError(
                f"{bound} calls are in flight already, as many as server.max_in_flight allows", actor="wizard"
            )
        books.publish(RequestBegan(books.began, request.request_id, request.route.name, request.route.strategy))
        shared.in_flight.count += 1
        if shared.stopping.is_set():
            said = "the client is closed, or about to be: it takes no more requests"
            closed = ActorStoppedError(said, actor="wizard")
            self._end(closed)
            raise closed

    def _end(self, error: BaseException | None) -> None:
        books, shared, code = self._books, self._books.shared, "cancelled"
        gone: WizardError | None = None
        if isinstance(error, WizardError):
            gone = shared.failure()
            code = error.code if gone is None else gone.code
            books.response = None
            if not error.attempts:
                error.with_attempts(books.attempts)
        elif isinstance(error, Exception):
            code = "bug"
        shared.in_flight.count -= 1
        _report(books, code)
        if gone is not None and isinstance(error, WizardError):
            raise gone.copy().with_attempts(error.attempts) from error


def _report(books: Books, code: str) -> None:
    """Publish the end, and log one line; `code` says how a request ended that has no response."""
    now, request, response, records = trio.current_time(), books.request, books.response, books.attempts
    ended = code if response is None else None
    usage = None if response is None else response.usage
    books.publish(
        RequestEnded(
            now,
            request.request_id,
            request.route.name,
            None if response is None else response.model,
            ended,
            len(records),
            now - books.began,
            served_by=None if response is None else response.served_by.value,
            overhead=overhead(books.began, now, books.waits),
            first_token=books.first_token,
            input_tokens=0 if usage is None else usage.input_tokens,
            output_tokens=0 if usage is None else usage.output_tokens,
            cost=total_cost(records),
            upstream_calls=sum(record.sent for record in records),
            refused=ended in OF_MANY and _own_fault(records),
        )
    )
    _log(books, ended, now - books.began)


def _own_fault(records: Sequence[Attempt]) -> bool:
    """Say whether what each model came to in the end was the request's own fault."""
    last = {record.model: record.error for record in records if record.error is not None}
    return bool(last) and all(isinstance(error, OWN_FAULT) for error in last.values())


def _log(books: Books, code: str | None, seconds: float) -> None:
    level = logging.INFO if code in FINE else logging.WARNING
    if not log.isEnabledFor(level):
        return
    request, response = books.request, books.response
    cost = total_cost(books.attempts)
    fields: dict[str, object] = {
        "request_id": request.request_id,
        "route": request.route.name,
        "model": None if response is None else response.model,
        "served_by": None if response is None else response.served_by.value,
        "attempts": len(books.attempts),
        "error": code,
        "ms": round(seconds * 1000, 1),
        "cost": None if cost is None else str(cost),
    }
    if request.tenant:
        fields["tenant"] = request.tenant
    if books.shared.config.logging.log_content:
        fields["prompt"] = [message.text for message in request.prompt.conversation]
        fields["answer"] = None if response is None else response.text
    log.log(level, "request", extra={"fields": fields})
