"""The core of the circuit breaker: whether something may be called, learned from how its calls end.

    CLOSED ──tripped──> OPEN ──due──> HALF_OPEN ──recovered──> CLOSED
                         └─<─failed, restarted─┘

CLOSED admits everybody and counts failures. OPEN admits nobody until `retry_at`. Then the first request to ask makes it
HALF_OPEN and is a probe. `success_threshold` successes close it, one failure opens it again, for longer.

Half-open, there are `half_open_probes` places. A probe holds one until it ends, or until its first content has been
heard: what streams for minutes, or to a reader who dawdles, keeps nobody waiting. A first content is no success, the
probe's end decides as ever. And at most `success_threshold` heard probes are without a place: so many can close the
circuit, and if the model falls silent after its first word, no more of its callers suffer from it. So no more than
`half_open_probes` wait for a first content at a time, and no more than both numbers together are out.

Each transition begins a new generation. A permit is worth something only in its own: what a call says that began before
a transition is fenced, neither closing nor opening anything. An ignored outcome gives a probe's place back and teaches
nothing. Every permit must come back: one that never does is a probe for ever, which is why a permit is a grant, which
its caller's end always returns.

What is told of a call that had no permit cannot be fenced. It counts as if it had been admitted and had ended in one
instant: where nobody would be admitted, it teaches nothing. So it is a probe once an open circuit is due, for callers
that only look whether the circuit is open; and while permits hold all the probes' places, those alone decide.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from random import Random
from types import MappingProxyType
from typing import Final, Self

from attrs import frozen

from wizard_actors.config import BreakerConfig
from wizard_actors.verdict import Outcome

__all__ = ["TRANSITIONS", "BreakerCore", "BreakerState", "Circuit", "Permit", "Refused", "Turn"]

PROBES_OUT_FOR: Final = 1.0
BUCKETS: Final = 10


class Circuit(StrEnum):
    """The states of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Turn(StrEnum):
    """What makes a circuit breaker change its state."""

    TRIPPED = "tripped"
    DUE = "due"
    RECOVERED = "recovered"
    FAILED = "failed"
    RESTARTED = "restarted"


TRANSITIONS: Mapping[Circuit, Mapping[Turn, Circuit]] = MappingProxyType(
    {
        Circuit.CLOSED: MappingProxyType({Turn.TRIPPED: Circuit.OPEN}),
        Circuit.OPEN: MappingProxyType({Turn.DUE: Circuit.HALF_OPEN}),
        Circuit.HALF_OPEN: MappingProxyType(
            {Turn.RECOVERED: Circuit.CLOSED, Turn.FAILED: Circuit.OPEN, Turn.RESTARTED: Circuit.OPEN}
        ),
    }
)
"""Every transition there is."""


@frozen(eq=False)
class Permit:
    """Leave to make one call, good for its `generation` only. No two permits are equal: each comes back as itself."""

    generation: int
    probe: bool


@frozen
class Refused:
    """No call now; `retry_at` is the instant at which it makes sense to ask again."""

    retry_at: float


@frozen
class BreakerState:
    """What others see of a breaker, and what its next incarnation starts from.

    `retry_at` is the instant from which an open circuit admits a probe. `failures` are those remembered, at most what
    trips the circuit, or all of a window where a rate does; `probes_free` the probes that a half-open circuit still
    admits. `trips` counts the times it opened since it was last closed, `opened` since the start. `in_flight` are the
    permits that are out; `fenced` counts the outcomes that taught nothing because they came from an earlier generation,
    or without a permit when none was to be had.
    """

    circuit: Circuit = Circuit.CLOSED
    generation: int = 0
    retry_at: float = -math.inf
    failures: int = 0
    probes_free: int = 0
    trips: int = 0
    opened: int = 0
    in_flight: int = 0
    admitted: int = 0
    refused: int = 0
    fenced: int = 0

    def allows(self, now: float) -> bool:
        """Whether a call would be admitted at `now`."""
        if self.circuit is Circuit.HALF_OPEN:
            return self.probes_free > 0
        return self.circuit is Circuit.CLOSED or now >= self.retry_at

    def honours(self, permit: Permit) -> bool:
        """Whether a call may begin with `permit`, to be asked in the very step in which it is to begin."""
        return permit.generation == self.generation


class BreakerCore:
    """The circuit breaker of one thing. `rng` spreads the ends of open times, so that not all clients probe at once."""

    def __init__(self, config: BreakerConfig, rng: Random) -> None:
        self._config = config
        self._rng = rng
        self._circuit = Circuit.CLOSED
        self._generation = 0
        self._retry_at = -math.inf
        self._failures = _failures(config)
        self._fragile_until = -math.inf
        self._successes = 0
        self._trips = 0
        self._live: set[Permit] = set()
        self._probes_out = 0
        self._heard: set[Permit] = set()
        self._opened = self._admitted = self._refused = self._fenced = 0

    @classmethod
    def restore(cls, config: BreakerConfig, rng: Random, carry: BreakerState, now: float) -> Self:
        """Make the next incarnation after a crash. Permits of the last one are fenced.

        A circuit that was not closed is open until the carried `retry_at`, and probes then. One that was closed stays
        so, but trips on its first failure until a window has passed: what it had counted is lost.
        """
        core = cls(config, rng)
        core._circuit, core._generation, core._retry_at = carry.circuit, carry.generation, carry.retry_at
        core._trips, core._opened = carry.trips, carry.opened
        core._admitted, core._refused, core._fenced = carry.admitted, carry.refused, carry.fenced
        if carry.circuit is Circuit.HALF_OPEN:
            core._turn(Turn.RESTARTED)
        else:
            core._generation += 1
        if carry.circuit is Circuit.CLOSED:
            core._fragile_until = now + config.window
        return core

    def reconfigure(self, config: BreakerConfig) -> None:
        """Go by `config` from now on, in the state that the circuit is in: an open one stays open until its `retry_at`,
        permits and probes stay out, and what has been counted counts on, so far as the new window and threshold know of
        it. Only between counting failures and measuring their rate nothing can be carried over.
        """
        if config == self._config:
            return
        failures, self._failures = self._failures, _failures(config)
        self._config = config
        self._failures.take_over(failures)

    def come_due(self, now: float) -> None:
        """Make an open circuit half-open once it is due, as every call that would be a probe does by itself."""
        if self._circuit is Circuit.OPEN and now >= self._retry_at:
            self._turn(Turn.DUE)

    def admit(self, now: float) -> Permit | Refused:
        """Ask for leave to make one call. The first to ask once an open circuit is due becomes its probe."""
        self.come_due(now)
        if self._circuit is Circuit.OPEN:
            self._refused += 1
            return Refused(self._retry_at)
        if self._circuit is Circuit.HALF_OPEN:
            if not self._probes_free:
                self._refused += 1
                return Refused(now + PROBES_OUT_FOR)  # a guess: it depends on how long the probes take
            self._probes_out += 1
        self._admitted += 1
        permit = Permit(self._generation, probe=self._circuit is Circuit.HALF_OPEN)
        self._live.add(permit)
        return permit

    def hear(self, permit: Permit) -> None:
        """Note that the call of `permit` got its first content: as a probe it makes room for another one.

        Nothing is learned from it. Only the first time counts, and only in the permit's own generation.
        """
        if permit in self._live and permit.generation == self._generation:
            self._heard.add(permit)

    def settle(self, permit: Permit, outcome: Outcome, now: float) -> None:
        """Take a permit back with how its call ended. Counts once; a permit of an older generation teaches nothing."""
        if permit not in self._live:
            return
        self._live.remove(permit)
        self._heard.discard(permit)
        if permit.generation != self._generation:
            self._fenced += 1
            return
        if self._circuit is Circuit.HALF_OPEN:
            self._probes_out -= 1
        self._learn(outcome, now)

    def record(self, outcome: Outcome, now: float) -> None:
        """Learn from a call that had no permit, as if it had been admitted and had ended in this instant."""
        self.come_due(now)
        if self._circuit is Circuit.OPEN or (self._circuit is Circuit.HALF_OPEN and not self._probes_free):
            self._fenced += 1
        else:
            self._learn(outcome, now)

    def forget(self, permit: Permit) -> None:
        """Take a permit back whose call was never made, or never told."""
        self.settle(permit, Outcome.IGNORED, -math.inf)

    def snapshot(self) -> BreakerState:
        """Return the state, for readers and for the next incarnation."""
        return BreakerState(
            circuit=self._circuit,
            generation=self._generation,
            retry_at=self._retry_at,
            failures=self._failures.count,
            probes_free=self._probes_free if self._circuit is Circuit.HALF_OPEN else 0,
            trips=self._trips,
            opened=self._opened,
            in_flight=len(self._live),
            admitted=self._admitted,
            refused=self._refused,
            fenced=self._fenced,
        )

    @property
    def _probes_free(self) -> int:
        without_a_place = min(len(self._heard), self._config.success_threshold)
        # Below none where a new configuration has fewer places than there are probes.
        return max(0, self._config.half_open_probes - self._probes_out + without_a_place)

    def _learn(self, outcome: Outcome, now: float) -> None:
        if self._circuit is Circuit.HALF_OPEN:
            self._learn_of_probe(outcome, now)
        elif outcome is Outcome.FAILURE:
            self._failures.failed(now)
            if self._failures.too_many(now) or now < self._fragile_until:
                self._open(Turn.TRIPPED, now)
        elif outcome is Outcome.SUCCESS:
            self._failures.succeeded(now)

    def _learn_of_probe(self, outcome: Outcome, now: float) -> None:
        if outcome is Outcome.FAILURE:
            self._open(Turn.FAILED, now)
        elif outcome is Outcome.SUCCESS:
            self._successes += 1
            if self._successes >= self._config.success_threshold:
                self._turn(Turn.RECOVERED)
                self._trips = 0

    def _open(self, turn: Turn, now: float) -> None:
        self._turn(turn)
        self._trips += 1
        self._opened += 1
        # Twice as long from the second time on, but never longer: that would be late when the model is back.
        open_for = min(self._trips, 2) * self._config.open_for
        self._retry_at = now + open_for * self._rng.uniform(0.8, 1.0)

    def _turn(self, turn: Turn) -> None:
        """Change the state by the table, and begin a generation that knows nothing of the last one."""
        self._circuit = TRANSITIONS[self._circuit][turn]
        self._generation += 1
        self._failures = _failures(self._config)
        self._fragile_until = -math.inf
        self._successes = 0
        self._probes_out = 0
        self._heard.clear()


class _Count:
    """The newest failures: too many once `threshold` of them lie within `window` seconds."""

    def __init__(self, threshold: int, window: float) -> None:
        self._threshold = threshold
        self._window = window
        self._instants: deque[float] = deque(maxlen=threshold)

    @property
    def count(self) -> int:
        """How many failures are held, the oldest of which may lie outside the window."""
        return len(self._instants)

    def take_over(self, other: _Count | _Rate) -> None:
        """Begin with what `other` has counted, where it has counted the same."""
        if isinstance(other, _Count):
            self._instants.extend(other._instants)  # noqa: SLF001 - of the same class

    def failed(self, now: float) -> None:
        """Count a failure."""
        self._instants.append(now)

    def succeeded(self, now: float) -> None:
        """Ignore a success: only failures count."""

    def too_many(self, now: float) -> bool:
        """Whether the circuit trips."""
        return len(self._instants) == self._threshold and now - self._instants[0] <= self._window


class _Rate:
    """Calls and failures in slices of the window: too many failures once they are the share `rate` of enough calls.

    A slice is a tenth of the window, and leaves it as a whole.
    """

    def __init__(self, rate: float, minimum_calls: int, window: float) -> None:
        self._rate = rate
        self._minimum_calls = minimum_calls
        self._slice = window / BUCKETS
        self._slices: deque[tuple[int, int, int]] = deque(maxlen=BUCKETS)  # (number of the slice, calls, failures)

    @property
    def count(self) -> int:
        """How many failures are held."""
        return sum(failures for _, _, failures in self._slices)

    def take_over(self, other: _Count | _Rate) -> None:
        """Begin with what `other` has counted, where it has counted the same. Slices of another length go as a whole
        into the one in which they began.
        """
        if not isinstance(other, _Rate):
            return
        merged: dict[int, tuple[int, int]] = {}
        length = other._slice  # noqa: SLF001 - of the same class
        for number, calls, failures in other._slices:  # noqa: SLF001 - of the same class
            mine = number if length == self._slice else self._number(number * length)
            before = merged.get(mine, (0, 0))
            merged[mine] = (before[0] + calls, before[1] + failures)
        self._slices.extend((number, *counts) for number, counts in merged.items())

    def failed(self, now: float) -> None:
        """Count a call that failed."""
        self._add(now, 1)

    def succeeded(self, now: float) -> None:
        """Count a call that succeeded."""
        self._add(now, 0)

    def too_many(self, now: float) -> bool:
        """Whether the circuit trips."""
        oldest = self._number(now) - BUCKETS
        calls = sum(calls for number, calls, _ in self._slices if number > oldest)
        failures = sum(failures for number, _, failures in self._slices if number > oldest)
        return calls >= self._minimum_calls and failures / calls >= self._rate

    def _add(self, now: float, failures: int) -> None:
        number = self._number(now)
        if self._slices and number == self._slices[-1][0]:
            _, calls, failed = self._slices.pop()
            self._slices.append((number, calls + 1, failed + failures))
        else:
            self._slices.append((number, 1, failures))

    def _number(self, now: float) -> int:
        return math.floor(now / self._slice)


def _failures(config: BreakerConfig) -> _Count | _Rate:
    if config.failure_rate is None:
        return _Count(config.failure_threshold, config.window)
    return _Rate(config.failure_rate, config.minimum_calls, config.window)
