"""How a request is counted, refused where it is one too many, and reported when it ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
from wizard_actors.shared import Shared

__all__ = ["reported"]

log = logging.getLogger("wizard_actors.requests")
log.addHandler(logging.NullHandler())  # its lines are fields, which a program without a handler would print as one word

FINE: Final = frozenset({None, "cancelled"})

OF_MANY: Final = frozenset({FallbackError.code, RetryError.code})
"""The codes that do not say why."""

OWN_FAULT: Final = (InvalidPromptError, ContentFilterError, RequestError, UnsupportedError)
"""What is wrong with the request itself, as models see it."""


@contextmanager
def reported(books: Books) -> Iterator[None]:
    """Count the request for as long as the block lasts, and report its end, once: its response or its error's code.

    The configuration in which it was made stays in use until then.

    Raises `MailboxFullError` where `server.max_in_flight` requests are in flight already, and `SupervisorError` in
    place of whatever the request met because its tree could not go on.
    """
    with books.request.hold or nullcontext():
        yield from _reported(books)


def _reported(books: Books) -> Iterator[None]:
    shared, request, code = books.shared, books.request, "cancelled"
    bound = shared.config.server.max_in_flight
    if shared.in_flight.count >= bound:
        books.publish(Shed(books.began, request.request_id, route=request.route.name))
        _log(books, MailboxFullError.code, 0.0)
        raise MailboxFullError(
            f"{bound} calls are in flight already, as many as server.max_in_flight allows", actor="wizard"
        )
    books.publish(RequestBegan(books.began, request.request_id, request.route.name, request.route.strategy))
    shared.in_flight.count += 1
    try:
        _check_open(shared)
        yield
    except WizardError as error:
        gone = shared.failure()
        code = error.code if gone is None else gone.code
        books.response = None
        if not error.attempts:
            error.with_attempts(books.attempts)
        if gone is not None:
            raise gone.copy().with_attempts(error.attempts) from error
        raise
    except Exception:
        code = "bug"
        raise
    finally:
        shared.in_flight.count -= 1
        _report(books, code)


def _check_open(shared: Shared) -> None:
    if shared.stopping.is_set():
        raise ActorStoppedError("the client is closed, or about to be: it takes no more requests", actor="wizard")


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
    log.log(logging.INFO if code in FINE else logging.WARNING, "request", extra={"fields": fields})
