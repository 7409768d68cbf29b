"""What a simulation plays: a configuration, the models behind it, what goes wrong, and who asks.

Annotations in this file must stay objects, not strings: they are what the values are checked against.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Final, Literal, TypeAlias, cast

from attrs import field, frozen

from wizard_actors.config import WizardConfig
from wizard_actors.config.strict import strict
from wizard_actors.config.values import Check, Seconds, above, at_least, at_most, closest
from wizard_actors.errors import ConfigError, ConfigProblem

__all__ = [
    "ANY",
    "Arrival",
    "ClockJump",
    "FaultKind",
    "FaultWindow",
    "Kill",
    "Scenario",
    "Spread",
    "StorageFault",
    "StorageFaultKind",
    "Upstream",
    "Workload",
]

ANY: Final = "*"
"""Stands for every model without an entry of its own among the upstreams; as a kill's actor, for one chosen by lot."""

FaultKind: TypeAlias = Literal[
    "auth",
    "content_filter",
    "cut",
    "down",
    "error",
    "malformed",
    "overloaded",
    "quota",
    "rate_limit",
    "silent",
    "slow_first_token",
    "slow_tokens",
    "stall",
    "token_limit",
    "truncated",
    "unreachable",
]
StorageFaultKind: TypeAlias = Literal["slow", "failing", "corrupting"]
Arrival: TypeAlias = Literal["poisson", "steady", "bursts"]

ROUNDING: Final = 1e-9
"""What shares that are 1 together may be more, as floats."""

P99: Final = 2.3263478740408408
"""The 99th percentile of the standard normal distribution."""

SHARE: Final[list[Check]] = [at_least(0), at_most(1)]

LARGEST: Final = sys.float_info.max
MOST_REQUESTS: Final = 1_000_000
"""How many requests a run may have, about: each is kept with all its attempts."""

MOST: Final = 100_000
"""How many sessions there may be, requests of one burst, pieces of an answer, and kills."""

LONGEST: Final = 1e9
"""The seconds that requests may arrive for, and that the clock may jump by: a little more than thirty years."""

SHORTEST: Final = 1e-6
"""The seconds from one window to the next, at least."""


@frozen(kw_only=True, field_transformer=strict)
class Spread:
    """How a quantity varies from one call to the next: lognormal, given by its median and 99th percentile.

    Without `p99` it is always `median`. Times are in seconds, or texts such as "250ms".
    """

    median: Seconds = field(validator=at_least(0))
    p99: Seconds | None = field(default=None, validator=at_least(0))

    def __attrs_post_init__(self) -> None:
        if self.p99 is not None and (self.p99 < self.median or not self.median):
            hint = "leave `p99` out for a quantity that never varies"
            raise ConfigError([ConfigProblem("p99", "must be at least `median`, which must be above 0", hint)])

    def draw(self, rng: Random) -> float:
        """Return the next value; draws from `rng` only where the quantity varies."""
        if self.p99 is None or self.p99 == self.median:
            return self.median
        sigma = math.log(min(self.p99 / self.median, LARGEST)) / P99
        return min(self.median * math.exp(min(rng.gauss(0.0, sigma), math.log(LARGEST))), LARGEST)


@frozen(kw_only=True, field_transformer=strict)
class Upstream:
    """How a model behaves while nothing is wrong with it.

    `model` is its name in the configuration, "*" every one that has no entry of its own. `connect` is how long the
    response's head takes, `first_token` how long its first words take after that, in seconds. `tokens_per_second` is
    how fast an answer of `answer_tokens` comes; a stream comes in at most `pieces`. `region` is what faults can name.
    With `requests_per_minute` or `tokens_per_minute` it refuses what is beyond them with a 429, and says in its headers
    how much is left; it lets as much through at once as falls due in `burst` seconds.
    """

    model: str
    region: str | None = None
    connect: Spread = field(factory=lambda: Spread(median=0.02))
    first_token: Spread = field(factory=lambda: Spread(median=0.3))
    tokens_per_second: Spread = field(factory=lambda: Spread(median=80.0))
    answer_tokens: Spread = field(factory=lambda: Spread(median=40.0))
    pieces: int = field(default=3, validator=[at_least(1), at_most(MOST)])
    requests_per_minute: float | None = field(default=None, validator=above(0))
    tokens_per_minute: float | None = field(default=None, validator=above(0))
    burst: Seconds = field(default=5.0, validator=above(0))


def _as_names(names: Sequence[str]) -> tuple[str, ...]:
    return cast("tuple[str, ...]", names)


@frozen(kw_only=True, field_transformer=strict)
class FaultWindow:
    """Something that is wrong with models for a while.

    It meets `share` of the calls that begin within the window at the models and regions named (neither: at all of
    them). The window lasts from `start` for `lasts` seconds, and where `every` is set, comes again each so many
    seconds, up to `until` (None: the scenario's end). All times count from the scenario's beginning.

    | kind | what a call meets |
    |---|---|
    | `down` | connection refused; answers under way break when the window begins |
    | `unreachable` | no connection within its `timeouts.connect`; answers under way go on |
    | `error`, `overloaded` | a 500, a 503, or `status` |
    | `rate_limit` | a 429 with `retry_after`; with `requests_per_minute`, only beyond that quota |
    | `quota`, `auth`, `content_filter`, `token_limit` | the refusal of that name |
    | `silent` | no response, for as long as the caller waits |
    | `slow_first_token` | the first words take `factor` times as long, and `delay` seconds more |
    | `slow_tokens` | words come `factor` times as slowly |
    | `stall` | silence after `after_words` words |
    | `cut` | the connection breaks after `after_words` words |
    | `truncated` | the body ends there, without a finish |
    | `malformed` | garbage comes there |

    An answer of fewer words ends so after its last one, before its finish; of one that is no stream comes half the
    body. A call meets one fault: `down` or `unreachable` before any other, and else the first in the scenario's order
    that has it.
    """

    kind: FaultKind
    models: tuple[str, ...] = field(default=(), converter=_as_names)
    regions: tuple[str, ...] = field(default=(), converter=_as_names)
    start: Seconds = field(default=0.0, validator=at_least(0))
    lasts: Seconds | None = field(default=None, validator=above(0))
    every: Seconds | None = field(default=None, validator=at_least(SHORTEST))
    until: Seconds | None = field(default=None, validator=above(0))
    share: float = field(default=1.0, validator=SHARE)
    status: int | None = field(default=None, validator=[at_least(400), at_most(599)])
    retry_after: Seconds | None = field(default=None, validator=at_least(0))
    delay: Seconds = field(default=0.0, validator=at_least(0))
    factor: float = field(default=10.0, validator=above(0))
    after_words: int = field(default=10, validator=at_least(0))
    requests_per_minute: float | None = field(default=None, validator=above(0))

    def __attrs_post_init__(self) -> None:
        if self.every is not None and (self.lasts is None or self.lasts >= self.every):
            raise ConfigError([ConfigProblem("every", "must be more than `lasts`, which must be set")])
        if self.requests_per_minute is not None and self.kind != "rate_limit":
            raise ConfigError([ConfigProblem("requests_per_minute", 'is for `kind = "rate_limit"` alone')])

    def concerns(self, upstream: str, region: str | None) -> bool:
        """Whether a model, in its region, is one of those that it meets."""
        return not (self.models or self.regions) or upstream in self.models or region in self.regions

    def began(self, at: float) -> float | None:
        """Return when the window that is open at an instant began, None where none is."""
        if at < self.start or (self.until is not None and at >= self.until):
            return None
        began = self._start(self._last(at))
        return began if self.lasts is None or at < began + self.lasts else None

    def next_start(self, after: float) -> float:
        """Return when the first window begins after an instant, infinity where none does."""
        begins = self.start if after < self.start else self._start(self._last(after) + 1)
        return begins if self.until is None or begins < self.until else math.inf

    def _start(self, number: int) -> float:
        """Return when a window begins, the same for every instant within it."""
        if self.every is None:
            return self.start if number == 0 else math.inf
        return self.start + number * self.every

    def _last(self, at: float) -> int:
        """Return the number of the last window that has begun at an instant, not before the first."""
        if self.every is None:
            return 0
        number = math.floor((at - self.start) / self.every)
        if self._start(number + 1) <= at:  # the division was rounded down, or up
            return number + 1
        return number - 1 if self._start(number) > at else number


@frozen(kw_only=True, field_transformer=strict)
class Workload:
    """Who asks: how often, what, and how patiently.

    `rate` is requests a second; with `arrival = "bursts"` they come `burst` at once. Prompts are about `prompt_tokens`
    long, and one of `distinct` (None: no two are equal), from one of `tenants`. Of the requests `stream` are live
    streams and `buffered` ones whose answers come once they are whole; `sessions_share` go to one of `sessions`
    conversations; the others ask for the whole answer. `deadline` is what `deadline_share` of them have; `cancel_share`
    are cancelled after `cancel_after` seconds. Of the streams, `slow_readers` wait `reads_every` seconds before each
    read, and `stopped_readers` stop for good after the first event. `route` is who is asked, None the default route.
    """

    rate: float = field(default=5.0, validator=above(0))
    arrival: Arrival = "poisson"
    burst: int = field(default=20, validator=[at_least(1), at_most(MOST)])
    prompt_tokens: Spread = field(factory=lambda: Spread(median=30.0))
    distinct: int | None = field(default=None, validator=at_least(1))
    tenants: int = field(default=1, validator=at_least(1))
    stream: float = field(default=0.0, validator=SHARE)
    buffered: float = field(default=0.0, validator=SHARE)
    sessions: int = field(default=0, validator=[at_least(0), at_most(MOST)])
    sessions_share: float = field(default=0.0, validator=SHARE)
    deadline: Spread | None = None
    deadline_share: float = field(default=1.0, validator=SHARE)
    cancel_share: float = field(default=0.0, validator=SHARE)
    cancel_after: Spread = field(factory=lambda: Spread(median=0.5))
    slow_readers: float = field(default=0.0, validator=SHARE)
    reads_every: Seconds = field(default=1.0, validator=at_least(0))
    stopped_readers: float = field(default=0.0, validator=SHARE)
    route: str | None = None

    def __attrs_post_init__(self) -> None:
        problems = []
        kinds = self.stream + self.buffered + self.sessions_share
        if kinds > 1 + ROUNDING:
            problems.append(
                ConfigProblem("stream", f"and `buffered` and `sessions_share` must be 1 together, at most: {kinds:g}")
            )
        if self.slow_readers + self.stopped_readers > 1:
            problems.append(ConfigProblem("slow_readers", "and `stopped_readers` must be 1 together, at most"))
        if self.sessions_share and not self.sessions:
            problems.append(ConfigProblem("sessions", "must be at least 1 where `sessions_share` is set"))
        if problems:
            raise ConfigError(problems)


@frozen(kw_only=True, field_transformer=strict)
class Kill:
    """Crashes an actor of the client's, by its path below the root ("router", "models/model:NAME/breaker"), or one
    chosen by lot ("*"): at an instant, and where `every` is set, each so many seconds up to the scenario's end, `times`
    in all.
    """

    actor: str
    at: Seconds = field(validator=at_least(0))
    every: Seconds | None = field(default=None, validator=above(0))
    times: int = field(default=1, validator=at_least(1))

    def within(self, duration: float) -> int:
        """Return how often it kills before `duration`."""
        if self.every is None or self.at >= duration:
            return 1 if self.at < duration else 0
        return min(self.times, math.ceil(min((duration - self.at) / self.every, LARGEST)))


@frozen(kw_only=True, field_transformer=strict)
class ClockJump:
    """The clock jumps at an instant: by so many `seconds`, forward, as on a computer that was asleep. With
    `wall = true` only the wall clock is set, forward or back.
    """

    at: Seconds = field(validator=at_least(0))
    seconds: Seconds
    wall: bool = False

    def __attrs_post_init__(self) -> None:
        if self.seconds < 0 and not self.wall:
            hint = "only a wall clock goes back: `wall = true`"
            raise ConfigError([ConfigProblem("seconds", "must be at least 0", hint)])
        if abs(self.seconds) > LONGEST:
            raise ConfigError([ConfigProblem("seconds", f"must be {LONGEST:,.0f} at most, forward or back")])


@frozen(kw_only=True, field_transformer=strict)
class StorageFault:
    """Something that is wrong with the sessions' storage, from `start` for `lasts` seconds (None: to the end): it is
    "slow" by `delay` seconds, "failing" with an error before it has done anything, or "corrupting" what it reads; for
    `share` of what it is asked.
    """

    kind: StorageFaultKind
    start: Seconds = field(default=0.0, validator=at_least(0))
    lasts: Seconds | None = field(default=None, validator=above(0))
    share: float = field(default=1.0, validator=SHARE)
    delay: Seconds = field(default=1.0, validator=at_least(0))

    def is_on(self, at: float) -> bool:
        """Whether it is wrong at an instant."""
        return self.start <= at < self.start + (math.inf if self.lasts is None else self.lasts)


def _as_upstreams(upstreams: Sequence[Upstream]) -> tuple[Upstream, ...]:
    return cast("tuple[Upstream, ...]", upstreams)


def _as_faults(faults: Sequence[FaultWindow]) -> tuple[FaultWindow, ...]:
    return cast("tuple[FaultWindow, ...]", faults)


def _as_kills(kills: Sequence[Kill]) -> tuple[Kill, ...]:
    return cast("tuple[Kill, ...]", kills)


def _as_jumps(jumps: Sequence[ClockJump]) -> tuple[ClockJump, ...]:
    return cast("tuple[ClockJump, ...]", jumps)


def _as_storage(faults: Sequence[StorageFault]) -> tuple[StorageFault, ...]:
    return cast("tuple[StorageFault, ...]", faults)


@frozen(kw_only=True, field_transformer=strict)
class Scenario:
    """A whole run: what the client is made of, how the models behind it behave, what goes wrong, and who asks.

    Requests arrive for `duration` seconds; the run ends when the last of them has. `seed` decides everything that is
    left to chance. `about` is a sentence for whoever reads it.

    Raises `ConfigError` where an upstream, a fault or the workload names a model or a route that the configuration does
    not have, or a region that no upstream is in; and for more than 1,000,000 requests or 100,000 kills.
    """

    name: str = "scenario"
    about: str = ""
    seed: int = field(default=1, validator=at_least(0))
    duration: Seconds = field(default=60.0, validator=[above(0), at_most(LONGEST)])
    config: WizardConfig
    upstreams: tuple[Upstream, ...] = field(default=(), converter=_as_upstreams)
    faults: tuple[FaultWindow, ...] = field(default=(), converter=_as_faults)
    workload: Workload = field(factory=Workload)
    kills: tuple[Kill, ...] = field(default=(), converter=_as_kills)
    clock_jumps: tuple[ClockJump, ...] = field(default=(), converter=_as_jumps)
    storage_faults: tuple[StorageFault, ...] = field(default=(), converter=_as_storage)

    def __attrs_post_init__(self) -> None:
        problems = [*_stranger_problems(self), *_twice(self.upstreams), *_too_many(self)]
        if problems:
            raise ConfigError(problems)

    def upstream(self, model: str) -> Upstream:
        """Return how a model behaves: by its own entry, that of "*", or as an `Upstream` does without any setting."""
        by_name = {upstream.model: upstream for upstream in self.upstreams}
        return by_name.get(model) or by_name.get(ANY) or Upstream(model=model)


def _stranger_problems(scenario: Scenario) -> Iterator[ConfigProblem]:
    """Yield where models, regions and routes are named that there are not."""
    models = {model.name for model in scenario.config.models}
    regions = {upstream.region for upstream in scenario.upstreams}
    for index, upstream in enumerate(scenario.upstreams):
        if upstream.model not in models | {ANY}:
            reason = f"names no model: {upstream.model!r}"
            yield ConfigProblem(f"upstreams[{index}].model", reason, _there_are(models))
    for index, fault in enumerate(scenario.faults):
        if fault.until is not None and fault.until <= fault.start:
            yield ConfigProblem(f"faults[{index}].until", f"must be more than `start`, {fault.start:g}")
        for name in fault.models:
            if name not in models:
                yield ConfigProblem(f"faults[{index}].models", f"name no model: {name!r}", _there_are(models))
        for name in fault.regions:
            if name not in regions:
                yield ConfigProblem(f"faults[{index}].regions", f"name a region that no upstream is in: {name!r}")
    routes = {route.name for route in (scenario.config.fallback, *scenario.config.routes)}
    route = scenario.workload.route
    if route is not None and route not in routes:
        meant = closest(route, routes)
        hint = f"did you mean {meant!r}?" if meant else _there_are(routes)
        yield ConfigProblem("workload.route", f"names no route: {route!r}", hint)


def _twice(upstreams: Sequence[Upstream]) -> Iterator[ConfigProblem]:
    described = [upstream.model for upstream in upstreams]
    for index, name in enumerate(described):
        if name in described[:index]:
            yield ConfigProblem(f"upstreams[{index}].model", f"stands twice: {name!r}")


def _too_many(scenario: Scenario) -> Iterator[ConfigProblem]:
    """Yield what would take hours, and more memory than there is."""
    if scenario.workload.rate * scenario.duration > MOST_REQUESTS:
        reason = f"and `duration` make more than {MOST_REQUESTS:,} requests"
        yield ConfigProblem("workload.rate", reason, "ask more rarely, or for a shorter time")
    if sum(kill.within(scenario.duration) for kill in scenario.kills) > MOST:
        yield ConfigProblem("kills", f"are more than {MOST:,} within `duration`", "kill more rarely, or fewer `times`")


def _there_are(names: Iterable[str]) -> str:
    return f"there are: {', '.join(sorted(names))}"
