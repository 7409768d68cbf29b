"""Leave from a rate limiter in a `with` block, for whatever has a limit: an API, a database, a printer.

limits = RateLimitConfig(requests_per_minute=120, burst=5)
spec = ChildSpec("limiter", RateLimiter.factory("geocoder", limits))
async with Supervisor(GroupSpec("app", [spec])) as tree:
    limiter = Limiter(tree.ref("limiter", LimiterState))
    async with limiter.request(max_wait=10):
        ...
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Final

import trio
from attrs import evolve

from wizard_actors.actor import ActorRef
from wizard_actors.gcra import Grant, LimiterState
from wizard_actors.rate_limit import Acquire, HeadersSeen, Settle, check_seconds, check_tokens
from wizard_actors.types import LimitHeaders

__all__ = ["Leave", "Limiter"]


RUN_IT_THERE: Final = (
    "put the whole block into an async function, and `await client.run(function)`, or `client.run(function)` of a "
    "BlockingClient"
)


class Leave:
    """Leave to send one request, granted at the instant `at`. What is said of it counts when the block is left."""

    def __init__(self, ref: ActorRef[LimiterState], grant: Grant) -> None:
        self._ref = ref
        self._grant = grant
        self._settle = Settle()

    @property
    def at(self) -> float:
        """The instant at which it was granted."""
        return self._grant.at

    def used(self, tokens: int) -> None:
        """Say how many tokens, or whatever units were reserved, the request used; unsaid, the reservation counts.

        Raises `TypeError` and `ValueError` for what is no whole number of at least 0.
        """
        self._settle = evolve(self._settle, tokens=tokens)

    def limited(self, retry_after: float | None = None) -> None:
        """Say that the request was refused for its rate: everybody waits `retry_after` seconds, or, where it is None, a
        while that grows from refusal to refusal. What is no time to come (zero, negative, NaN) says as little as None,
        and more than a day is a day. Raises `TypeError` for what is no number.
        """
        self._settle = evolve(self._settle, limited=True, retry_after=retry_after)

    def unsent(self) -> None:
        """Say that nothing was sent: the request costs nothing."""
        self._settle = evolve(self._settle, sent=False)

    def learn(self, limits: LimitHeaders) -> None:
        """Say what the answer told of the limits; counts at once.

        Raises `TypeError` and `ValueError` for what is no number.
        """
        self._ref.notify(self._grant, HeadersSeen(limits))

    def settle(self, *, succeeded: bool) -> None:
        """Give the leave back; what leaving the block does. Counts once."""
        self._ref.give_back(self._grant, evolve(self._settle, succeeded=succeeded))


class _Request:
    """An async context manager: waits for leave, and gives it back however the block ends."""

    def __init__(self, ref: ActorRef[LimiterState], ask: tuple[int, float, float, str | None]) -> None:
        self._ref = ref
        self._ask = ask
        self._leave: Leave | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Leave:
        if self._leave is not None:
            raise RuntimeError("this request has been made already: call `request` again for another one")
        self._ref.check_here(RUN_IT_THERE)
        tokens, max_wait, deadline, name = self._ask
        acquire = Acquire(self._ref.now, max_wait, deadline, tokens, name)
        self._leave = Leave(self._ref, await self._ref.ask(acquire, deadline=deadline))
        return self._leave

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leave is not None:
            self._leave.settle(succeeded=kind is None)


class Limiter:
    """A rate limiter to ask for leave, by its `ref`; any number of tasks may share it."""

    def __init__(self, ref: ActorRef[LimiterState]) -> None:
        self._ref = ref

    @property
    def state(self) -> LimiterState | None:
        """How the limiter stands now, read from any thread; None before its start."""
        published = self._ref.published
        return None if published is None else published.at(self._ref.now)

    def request(
        self, tokens: int = 0, *, max_wait: float | None = 30.0, deadline: float = math.inf, name: str | None = None
    ) -> _Request:
        """Return an async context manager that waits for leave to send one request, with `tokens` reserved.

        Leaving it normally counts as answered; leaving it by an exception or a cancellation as sent, so that it costs
        what was reserved. No leave is ever lost. `max_wait` is in seconds, None: for ever. `name` is whom the error
        names where several share the limiter. Raises `TypeError` and `ValueError` for arguments that are no numbers of
        that kind.

        Entering raises `RateLimitError` as soon as it is clear that the request would wait for more than `max_wait`
        seconds or beyond the instant `deadline`, `DeadlineExceededError` where `deadline` passes before the limiter has
        answered, `ActorCrashedError` and `ActorStoppedError`; and `UnsupportedError` in another thread or event loop
        than the limiter's tree lives in.
        """
        patience = math.inf if max_wait is None else max_wait
        check_seconds("max_wait", patience)
        if patience < 0.0:
            raise ValueError(f"max_wait is at least 0, not {patience}")
        check_seconds("deadline", deadline)
        check_tokens("tokens", tokens)
        return _Request(self._ref, (tokens, patience, deadline, name))
