"""What became of the requests of late: those in progress, and the last ones in which something failed. Pure: it is told
events, and what time it is.

Nothing of what was asked or answered is kept, and no more than a bounded part of anything.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from attrs import define, field

from wizard_actors.errors import CircuitOpenError, WizardError
from wizard_actors.events import (
    AttemptBegan,
    AttemptEnded,
    BreakerChanged,
    Event,
    FirstToken,
    RequestBegan,
    RequestEnded,
)

__all__ = ["Recent"]

Json: TypeAlias = Mapping[str, object]

FAILURES_KEPT: Final = 50

OPEN_AT_MOST: Final = 4096
"""Requests in progress that are followed; of more, the oldest are not any more."""

ATTEMPTS_AT_MOST: Final = 32
"""Attempts that are kept of one request; of more, the last."""

CIRCUITS_AT_MOST: Final = 256

MESSAGE_AT_MOST: Final = 300
"""Letters that are kept of an error's message."""


@define(eq=False)
class _Open:
    """A request in progress."""

    began: RequestBegan
    tried: deque[Json] = field(factory=lambda: deque(maxlen=ATTEMPTS_AT_MOST))
    failed: bool = False
    model: str | None = None
    answering: bool = False


class Recent:
    """Follows requests: pass `apply` to `EventStream.listen`. `clock` returns the time of day, in Unix seconds.

    What failed is a request without an answer that its caller still waited for, and one of which an attempt failed; but
    where an answer came, that an open circuit was passed over is no failure: all others would drown in those.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._open: dict[str, _Open] = {}
        self._failures: deque[Json] = deque(maxlen=FAILURES_KEPT)
        self._circuits: dict[str, BreakerChanged] = {}

    def apply(self, event: Event) -> None:
        """Take note of `event`; kinds that teach nothing here are ignored."""
        match event:
            case RequestBegan():
                self._began(event)
            case RequestEnded():
                self._ended(event)
            case AttemptBegan() | FirstToken() | AttemptEnded():
                request = self._open.get(event.request_id)
                if request is not None:
                    _attempt(request, event)
            case BreakerChanged():
                self._circuits.pop(event.model, None)
                _make_room(self._circuits, CIRCUITS_AT_MOST)
                self._circuits[event.model] = event
            case _:
                pass

    def _began(self, event: RequestBegan) -> None:
        _make_room(self._open, OPEN_AT_MOST)
        self._open[event.request_id] = _Open(event)

    def _ended(self, event: RequestEnded) -> None:
        request = self._open.pop(event.request_id, None)
        if request is None or not (request.failed or event.code not in {None, "cancelled"}):
            return
        self._failures.appendleft(
            {
                "request_id": event.request_id,
                "time": round(self._clock(), 3),
                "route": event.route,
                "strategy": request.began.strategy,
                "code": event.code,
                "model": event.model,
                "served_by": event.served_by,
                "seconds": event.seconds,
                "attempts": event.attempts,
                "tried": list(request.tried),
            }
        )

    def failures(self) -> Sequence[Json]:
        """Return the last requests in which something failed, the latest first, in JSON's types. `tried` are their
        attempts in the order in which they ended; `code` is None where an answer came in the end.
        """
        return list(self._failures)

    def in_progress(self, now: float, most: int) -> Sequence[Json]:
        """Return up to `most` requests in progress at `now`, on Trio's clock, the oldest first, in JSON's types."""
        return [
            {
                "request_id": request.began.request_id,
                "route": request.began.route,
                "seconds": max(0.0, now - request.began.at),
                "attempts_ended": len(request.tried),
                "model": request.model,
                "answering": request.answering,
            }
            for _, request in zip(range(most), self._open.values(), strict=False)
        ]

    def circuits(self, now: float) -> Json:
        """Return, by model, for how many seconds its circuit has been as it is at `now`, and in how many it is probed
        where it is open, in JSON's types; of those that have changed.
        """
        return {
            model: {
                "circuit": str(event.circuit),
                "seconds": max(0.0, now - event.at),
                "probe_in": max(0.0, event.retry_at - now) if event.circuit == "open" else None,
            }
            for model, event in self._circuits.items()
        }


def _attempt(request: _Open, event: AttemptBegan | FirstToken | AttemptEnded) -> None:
    if not isinstance(event, AttemptEnded):
        request.model, request.answering = event.model, isinstance(event, FirstToken)
        return
    request.failed |= not (event.cancelled or event.error is None or isinstance(event.error, CircuitOpenError))
    request.answering = False
    request.tried.append(
        {
            "number": event.number,
            "model": event.model,
            "sent": event.sent,
            "hedge": event.hedge,
            "cancelled": event.cancelled,
            "seconds": event.duration,
            "waited": event.delay,
            "error": None if event.error is None or event.cancelled else _error(event.error),
        }
    )


def _error(error: WizardError) -> Json:
    status = getattr(error, "status", None)
    return {
        "code": error.code,
        "status": status if isinstance(status, int) else None,
        "message": error.message[:MESSAGE_AT_MOST],
    }


def _make_room(kept: dict[str, object] | dict[str, _Open] | dict[str, BreakerChanged], most: int) -> None:
    while len(kept) >= most:
        del kept[next(iter(kept))]
