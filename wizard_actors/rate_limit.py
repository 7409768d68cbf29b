"""The rate limiter: grants requests when they are due, in order, and learns from what providers say.

Nothing in it is particular to language models: `RateLimiter.factory` puts one under any supervisor, and
`wizard_actors.limiter_handle` asks it for leave in a `with` block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from math import isnan
from random import Random
from typing import Final

import trio
from attrs import frozen

from wizard_actors.actor import Actor, Ask, Ledger, Notice, Reply, Return, Waiter, handles, hears, takes_back
from wizard_actors.config import RateLimitConfig, RetryConfig
from wizard_actors.errors import RateLimitError
from wizard_actors.gcra import GcraCore, Grant, LimiterState
from wizard_actors.types import LimitHeaders, LimitWindow
from wizard_actors.waiting import Rejected, Waiting

__all__ = ["Acquire", "HeadersSeen", "RateLimiter", "Reconfigure", "Settle", "check_seconds", "check_tokens"]


LONGEST_PAUSE: Final = 86_400.0
"""A day: whoever asks for more has a broken clock, and nothing would ever end the pause."""

TOLD_FROM: Final = 0.1
"""Seconds; a shorter wait that was in vain is not worth telling."""

MOST_TOKENS: Final = 10**12
"""More than anybody sells; an amount above it counts as this one."""


@frozen
class Acquire(Ask[Grant]):
    """Ask for leave to send one request, and reserve `tokens` for it: an estimate of its input and output together.

    Fails with `RateLimitError` (source "limiter") as soon as it is clear that it would come later than `max_wait`
    seconds after `asked_at`, or than the instant `deadline`. What is due at once is not too late for any `max_wait`.
    A 429's pause of more than `longest_pause` seconds is not waited out: who waits when it comes fails at once.
    `model` is whom the error names, where several share the limiter; None: the limiter itself. `expected` is how many
    of the tokens are merely what is expected of the answer, because the prompt names no most: of these no more than a
    quarter of `tokens_per_minute` is reserved.

    Raises `TypeError` and `ValueError` for what is no number of seconds (infinity is one) or of tokens.
    """

    asked_at: float
    max_wait: float
    deadline: float = math.inf
    tokens: int = 0
    model: str | None = None
    longest_pause: float = math.inf
    expected: int = 0

    def __attrs_post_init__(self) -> None:
        for seconds in (self.asked_at, self.max_wait, self.deadline, self.longest_pause):
            if type(seconds) is not float or isnan(seconds):  # else all is well, and most calls are
                for name in ("asked_at", "max_wait", "deadline", "longest_pause"):
                    check_seconds(name, getattr(self, name))
        check_tokens("tokens", self.tokens)
        check_tokens("expected", self.expected)


@frozen
class HeadersSeen(Notice[Grant]):
    """What the answer's headers say of limits. Raises `TypeError` and `ValueError` for what is no number."""

    limits: LimitHeaders

    def __attrs_post_init__(self) -> None:
        for window in (self.limits.requests, self.limits.tokens):
            if window is not None:
                _check_window(window)


@frozen
class Settle(Return[Grant]):
    """The request is over. `sent` False: it costs nothing. `succeeded`: it was answered; `limited`: it was answered
    with a 429.

    `retry_after` is for how many seconds the 429 asked us to stay away, None where it did not say; what is no time to
    come (zero, negative, NaN) says nothing either, and more than a day is a day. `tokens` is what the request used,
    None where nobody knows: then a 429 is taken to have used none, and any other request, a cancelled one too, what was
    reserved for it. Raises `TypeError` and `ValueError` for what is no number.
    """

    sent: bool = True
    succeeded: bool = False
    limited: bool = False
    retry_after: float | None = None
    tokens: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.retry_after is not None and not isinstance(self.retry_after, float | int):
            raise TypeError(f"retry_after is a number of seconds or None, not {self.retry_after!r}")
        if self.tokens is not None:
            check_tokens("tokens", self.tokens)


@frozen
class Reconfigure:
    """Told: other limits hold from now on, and other delays after a refusal that names none (`retry` None: the same).

    Nothing is lost: who waits goes on waiting, by the new pace; a running pause, debts and the minute's tokens go on.
    Told, not asked: a limiter whose waiting room is full takes no asks.
    """

    limits: RateLimitConfig
    retry: RetryConfig | None = None


class RateLimiter(Actor):
    """Requests and tokens a minute, for one model, for several that share an account, or for anything else that has a
    limit. After a crash its buckets are empty; a running pause, debts and the minute's tokens go on.

    `name` is what errors call it. `started` is the instant at which the incarnation begins. `window`: see `factory`.
    """

    def __init__(
        self,
        name: str,
        limits: RateLimitConfig,
        retry: RetryConfig,
        rng: Random,
        carry: object,
        started: float,
        *,
        window: float | None = None,
    ) -> None:
        self._name = name
        self._limits = limits
        self._retry = retry
        self._rng = rng
        self._core: GcraCore[Waiter] = (
            GcraCore.restore(limits, carry, started, window=window)
            if isinstance(carry, LimiterState)
            else GcraCore(limits, window=window)
        )
        self._kept: dict[Waiter, tuple[Reply[Grant], Acquire]] = {}
        self._limited_in_a_row = 0
        self._limited_at = -math.inf

    @classmethod
    def factory(
        cls,
        name: str,
        limits: RateLimitConfig,
        *,
        retry: RetryConfig | None = None,
        rng: Random | None = None,
        window: float | None = None,
    ) -> Callable[[Ledger, object], RateLimiter]:
        """Return what a `ChildSpec` makes each incarnation with.

        `retry` (None: its defaults) holds the delays by which a refusal that names no time is answered, `rng` their
        jitter (None: from the system). With `window`, in seconds, `requests_per_minute` and `tokens_per_minute` are for
        so long a time, such as a day's budget, and are not spread over it: where nothing was spent in the last window,
        all of it may go at once. No more tokens than that go in any window; of requests, which come back one by one
        like those of a minute, up to twice as many do.

        Raises `ValueError` for a `window` that is no time.
        """
        if window is not None and not 0.0 < window < math.inf:
            raise ValueError(f"window is a number of seconds above 0, not {window}")
        policy, random = retry or RetryConfig(), rng or Random()
        return lambda _ledger, carry: cls(name, limits, policy, random, carry, trio.current_time(), window=window)

    def accepting(self) -> bool:
        """Whether there is room to wait in."""
        return not self._core.full

    @handles(Acquire)
    def acquire(self, message: Acquire, reply: Reply[Grant], now: float) -> None:
        """Grant the request, let it wait its turn, or refuse it at once where its turn would come too late."""
        give_up_at = min(message.deadline, max(now, message.asked_at + message.max_wait))
        pause = self._core.paused_until - now
        if pause > message.longest_pause:
            reply.fail(self._paused(message, pause))
            return
        tokens, expected = min(message.tokens, MOST_TOKENS), min(message.expected, message.tokens, MOST_TOKENS)
        match self._core.acquire(reply, now, give_up_at, tokens, expected):
            case Grant() as grant:
                self._deliver(reply, grant, now)
            case Waiting():
                self._kept[reply] = (reply, message)
            case Rejected(wait):
                reply.fail(self._too_late(message, now, wait, coming=wait))

    @takes_back(HeadersSeen)
    def headers_seen(self, grant: Grant, message: HeadersSeen, now: float) -> None:
        """Slow down before the first 429."""
        if self._limits.adaptive:
            self._core.observe(message.limits, now, grant)

    @takes_back(Settle)
    def settle(self, grant: Grant, message: Settle, now: float) -> None:
        """Account for a request that is over; a 429 pauses everybody, and halves a configured rate."""
        if not message.sent:
            self._core.refund(grant, now)
            return
        estimate = 0 if message.limited else grant.tokens
        self._core.settle(grant, estimate if message.tokens is None else min(message.tokens, MOST_TOKENS), now)
        if message.limited:
            self._core.pause(now + self._pause(message.retry_after, grant, now), now)
            if self._limits.adaptive:
                self._core.slow_down(grant.at, now)
            self._turn_out(now)
        elif message.succeeded:
            self._core.answered(now, grant)
            if grant.at > self._limited_at:
                self._limited_in_a_row = 0

    @hears(Reconfigure)
    def reconfigure(self, message: Reconfigure, now: float) -> None:
        """Go by other limits."""
        self._limits = message.limits
        self._retry = message.retry or self._retry
        self._core.reconfigure(message.limits, now)
        if self._core.wake_at() <= now:
            self.tick(now)

    def forget(self, waiter: Waiter, now: float) -> None:
        """Let those behind a caller that has gone move up."""
        self._core.forget(waiter)
        del self._kept[waiter]

    def wake_at(self) -> float:
        """Return when the first in the queue is due, or gives up."""
        return self._core.wake_at()

    def tick(self, now: float) -> None:
        """Grant what is due."""
        ticked = self._core.tick(now)
        for waiter, grant in ticked.granted:
            self._deliver(self._kept.pop(waiter)[0], grant, now)
        for waiter in ticked.rejected:
            reply, message = self._kept.pop(waiter)
            reply.fail(self._too_late(message, now, ticked.rejection.retry_after))

    def snapshot(self) -> LimiterState:
        """Return the pause, the rates, and what has been granted."""
        return self._core.snapshot()

    def _turn_out(self, now: float) -> None:
        """Refuse those who would not wait out the pause that has just been asked for."""
        pause = self._core.paused_until - now
        for waiter, (reply, message) in tuple(self._kept.items()):
            if pause > message.longest_pause:
                self._core.forget(waiter)
                del self._kept[waiter]
                reply.fail(self._paused(message, pause))

    def _pause(self, retry_after: float | None, grant: Grant, now: float) -> float:
        """Return for how many seconds to stay away: as told, else a growing time that not all clients share.

        Calls that were under way together and all met a 429 have met one, not one after the other.
        """
        if grant.at > self._limited_at:
            self._limited_in_a_row += 1
            self._limited_at = now
        if retry_after is not None and retry_after > 0.0:  # a zero is no advice: the provider has just refused
            return min(retry_after, LONGEST_PAUSE)
        doublings = min(max(self._limited_in_a_row - 1, 0), 60)
        limit = min(self._retry.max_delay, self._retry.base_delay * 2.0**doublings)
        return self._rng.uniform(limit / 2, limit)  # never next to nothing: the provider has just refused

    def _deliver(self, reply: Reply[Grant], grant: Grant, now: float) -> None:
        if not reply.grant(grant):
            self._core.refund(grant, now)

    def _too_late(
        self, message: Acquire, now: float, retry_after: float | None, coming: float | None = None
    ) -> RateLimitError:
        """Return the error for a call whose turn would come too late: `coming` seconds from now, None: when is not
        known. `retry_after` is for how long a newcomer would wait.
        """
        waited, left = now - message.asked_at, max(message.deadline - now, 0.0)
        if message.deadline < message.asked_at + message.max_wait:
            bound, over = f"its deadline, in {_seconds(left)}, allows", "its deadline has come"
            up = left == 0.0
        else:
            bound = f"{self._max_wait(message)} ({_seconds(message.max_wait)}) allows"
            over, up = f"that is all that {bound}", waited >= message.max_wait
        if coming is not None:
            then = f"would wait another {_seconds(coming)}, longer than {bound}"
        else:
            then = over if up else f"would wait for longer than {bound}"
        waiting = f"has waited {_seconds(waited)}, and " if coming is None or waited >= TOLD_FROM else ""
        return self._refusal(message, f"the call {waiting}{then}", retry_after)

    def _paused(self, message: Acquire, pause: float) -> RateLimitError:
        """Return the error for a call that does not wait out a `pause` that long."""
        cap = _seconds(message.longest_pause)
        said = f"a 429 has paused it for another {_seconds(pause)}, longer than the cap on Retry-After ({cap}) allows"
        return self._refusal(message, said, pause)

    def _refusal(self, message: Acquire, said: str, retry_after: float | None) -> RateLimitError:
        model = self._name if message.model is None else message.model
        return RateLimitError(
            f"{model} is at its rate limit: {said}", model=model, retry_after=retry_after, source="limiter"
        )

    def _max_wait(self, message: Acquire) -> str:
        """Return what the caller has its patience from: the model's configuration, or its own."""
        configured = message.model is not None and message.max_wait == self._limits.max_wait
        return "rate_limit.max_wait" if configured else "max_wait"


def check_seconds(name: str, seconds: float) -> None:
    """Raise `TypeError` or `ValueError` where `seconds` is no number that can be reckoned with; infinity is one."""
    _check_number(name, seconds)
    if isnan(seconds):
        raise ValueError(f"{name} is a number of seconds, not {seconds}")


def check_tokens(name: str, tokens: int) -> None:
    """Raise `TypeError` or `ValueError` where `tokens` is no number of tokens."""
    if not isinstance(tokens, int):
        raise TypeError(f"{name} is a whole number, not {tokens!r}")
    if tokens < 0:
        raise ValueError(f"{name} is at least 0, not {tokens}")


def _check_window(window: LimitWindow) -> None:
    for name, number in (("limit", window.limit), ("remaining", window.remaining), ("reset", window.reset)):
        if number is not None:
            _check_number(name, number)


def _check_number(name: str, number: float) -> None:
    if not isinstance(number, float | int):
        raise TypeError(f"{name} is a number, not {number!r}")
    if type(number) is int and abs(number) > MOST_TOKENS:  # as a float it may be none
        raise ValueError(f"{name} is at most {MOST_TOKENS} if it is whole")


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 1000.0 else f"{seconds:.0f} s"
