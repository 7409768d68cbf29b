"""What an attempt is given: the model it reaches, what can be seen of it, and how long it may take."""

from __future__ import annotations

import math

import trio
from attrs import frozen

from wizard_actors.actor import ActorRef
from wizard_actors.breaker_core import BreakerState
from wizard_actors.circuit_breaker import refusal
from wizard_actors.config import ModelConfig
from wizard_actors.errors import DeadlineExceededError, RateLimitError
from wizard_actors.gcra import LimiterState
from wizard_actors.lag import LagWatch
from wizard_actors.prices import Price
from wizard_actors.providers.base import Provider
from wizard_actors.slots import WorkerState

__all__ = ["Patience", "Port", "deadline_exceeded"]


@frozen
class Port:
    """One model, as an attempt reaches it. `limiter` may be shared with other models; `lag` watches the event loop;
    `price` says what its answers cost, None where nobody knows.
    """

    config: ModelConfig
    provider: Provider
    worker: ActorRef[WorkerState]
    limiter: ActorRef[LimiterState]
    breaker: ActorRef[BreakerState]
    lag: LagWatch
    price: Price | None = None

    @property
    def name(self) -> str:
        """What callers call the model."""
        return self.config.name

    @property
    def down(self) -> bool:
        """Whether one of the model's actors takes no asks."""
        return not (self.worker.available and self.limiter.available and self.breaker.available)

    @property
    def silent(self) -> bool:
        """Whether it is known to say nothing: its calls wait for their first tokens in vain."""
        state = self.worker.published
        return state is not None and state.health.silent(trio.current_time())

    def peek(self, longest_pause: float) -> None:
        """Raise where it is known that there would be no leave, so that nothing is spent on it."""
        now, circuit, limiter = trio.current_time(), self.breaker.published, self.limiter.published
        if circuit is not None and (refused := refusal(self.name, circuit, now)) is not None:
            raise refused
        pause = 0.0 if limiter is None else limiter.paused_until - now
        if pause > longest_pause:
            raise self.rate_limited(pause)

    def rate_limited(self, pause: float) -> RateLimitError:
        """Return the error for a call that the limiter would hold back for too long; `pause` is its present one."""
        how = f" for another {pause:.3g} s" if pause > 0 else ""
        return RateLimitError(
            f"{self.name} is at its rate limit{how}",
            model=self.name,
            retry_after=pause if pause > 0 else None,
            source="limiter",
        )


@frozen
class Patience:
    """How long one attempt may take.

    `deadline` is the request's, an instant; `given` is what the caller had named, in seconds. At most `queue_timeout`
    seconds are waited for a slot, `max_wait` for the limiter's turn, nothing while the limiter stands still for more
    than `longest_pause`. `last`: no other model waits to be asked; else a first token gets at most half of what remains
    of the caller's time when the request is sent.
    """

    queue_timeout: float
    max_wait: float
    longest_pause: float = math.inf
    deadline: float = math.inf
    given: float | None = None
    last: bool = True


def deadline_exceeded(given: float | None) -> DeadlineExceededError:
    """Return the error for a request whose deadline, `given` seconds, has passed."""
    return DeadlineExceededError(
        "the request's deadline passed" if given is None else f"the request's deadline of {given:g} s passed",
        deadline=given,
    )
