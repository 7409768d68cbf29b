"""Whole clients under generated workloads and a virtual clock, and what was sent: for properties of the whole attempt.

A `Scenario` is plain data: models, how they are asked, and a `Work` of requests that arrive, cancels that other tasks
make at some batch, and jumps of the clock. `play` runs it and returns what the models saw, in a `Played`.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from types import TracebackType
from typing import Final, TypeAlias, TypeVar

import pytest
import trio
from attrs import define, evolve, field, frozen
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning, NoSuchExample
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import DONE, SILENT, USAGE, Scripted, Turn, assert_nothing_held, client_of, cut, fails, says
from wizard_actors import (
    AuthError,
    ContentFilterError,
    ModelConfig,
    NetworkError,
    OverloadedError,
    Prompt,
    ProviderError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    ResilientClient,
    SerializationError,
    TokenLimitError,
    UnsupportedError,
    WizardError,
)
from wizard_actors.breaker_core import BreakerState
from wizard_actors.config import (
    CacheConfig,
    PriceConfig,
    RetryBudgetConfig,
    ServerConfig,
    Strategy,
    StreamConfig,
)
from wizard_actors.estimate import estimate_input, estimate_output
from wizard_actors.events import Event, RequestEnded
from wizard_actors.metrics import MetricsSnapshot
from wizard_actors.providers.base import Answer, Call
from wizard_actors.request import CacheUse, Delivery
from wizard_actors.types import (
    End,
    LimitHeaders,
    LimitWindow,
    ModelEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageUpdate,
)

HOUR: Final = 3600.0
FUZZ: Final = 1e-6
"""Seconds: what rounding may shift an instant by, and more."""

Pause: TypeAlias = int | float
"""How long a task waits: so many batches (int), or seconds (float)."""

# -- scenarios ---------------------------------------------------------------------------------------------------------


@frozen
class Ask:
    """One request, some time `after` the one before; a stream is left after `reads` events, if not before."""

    after: Pause = 0.0
    how: Delivery = Delivery.WHOLE
    prompt: Prompt = field(factory=lambda: Prompt("Why?"))
    deadline: float | None = None
    reads: int = 1000
    think: float = 0.0
    cache: CacheUse = "use"


@frozen
class Cancel:
    """Another task cancels one of the requests under way, by its place among them."""

    pause: Pause
    which: int


@frozen
class Jump:
    """The clock jumps: while everybody waits, or, not `quiet`, in the middle of whatever is going on."""

    pause: Pause
    seconds: float
    quiet: bool = True


@frozen
class Work:
    """What a client meets; `seed` is for the order in which Trio runs tasks, and for the client's own choices."""

    asks: tuple[Ask, ...]
    cancels: tuple[Cancel, ...] = ()
    jumps: tuple[Jump, ...] = ()
    seed: int = 0


@frozen
class Scenario:
    """A client, its models, the turns that each of them plays, and the work."""

    models: tuple[ModelConfig, ...]
    turns: tuple[tuple[Turn, ...], ...]
    work: Work
    strategy: Strategy = "sequential"
    cache: CacheConfig = field(factory=CacheConfig)
    stream: StreamConfig = field(factory=lambda: StreamConfig(consumer_idle=1e6))
    server: ServerConfig = field(factory=ServerConfig)
    budget: RetryBudgetConfig = field(factory=RetryBudgetConfig)


# -- what was sent -----------------------------------------------------------------------------------------------------


PRICE: Final = PriceConfig(input=Decimal(1), output=Decimal(2))


@define(eq=False)
class Sent:
    """One call, and how things stood as it was sent: the breaker's published state, the calls that were not over, the
    those of them that had not been heard of, the exchanges that were not closed, how many events had been published.

    `over_at` is when the model had said its last word, or nobody listened any more; `closed_at` when the exchange was
    left. `reserved` is the estimate in tokens, `billed` what the call has cost, as far as the model knows.
    """

    model: str
    request_id: str
    prompt: Prompt
    at: float
    breaker: BreakerState | None
    not_over: tuple[Sent, ...]
    unheard: tuple[Sent, ...]
    not_closed: tuple[Sent, ...]
    events: int
    heard: bool = False
    over_at: float | None = None
    closed_at: float | None = None
    billed: int = 0

    @property
    def reserved(self) -> int:
        return estimate_input(self.prompt) + estimate_output(self.prompt)

    def over(self, error: BaseException | None = None) -> None:
        if self.over_at is None:
            self.over_at = trio.current_time()
            if isinstance(error, ProviderError) and error.status is not None:
                self.billed = 0  # refused


class Upstream(Scripted):
    """A scripted model that keeps what it was sent, and what it knew of the breaker then."""

    def __init__(self, name: str, turns: Sequence[Turn], played: Played) -> None:
        super().__init__(*turns)
        self.name = name
        self.played = played
        self.client: ResilientClient

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Begin a call; a prompt that cannot be sent is refused before it is."""
        head = self.turns[0].head
        exchange = super().open(call)
        if isinstance(head, UnsupportedError | SerializationError):
            raise head.copy()
        return _Exchange(self, exchange, call)

    def send(self, call: Call) -> Sent:
        breaker = self.client.supervisor.ref(f"models/model:{self.name}/breaker", BreakerState).published
        log = self.played.sent
        sent = Sent(
            self.name,
            call.request_id,
            call.prompt,
            trio.current_time(),
            breaker,
            not_over=tuple(other for other in log if other.over_at is None),
            unheard=tuple(other for other in log if other.over_at is None and not other.heard),
            not_closed=tuple(other for other in log if other.closed_at is None),
            events=len(self.played.events),
        )
        sent.billed = sent.reserved
        log.append(sent)
        return sent


class _Exchange(AbstractAsyncContextManager[Answer]):
    def __init__(self, model: Upstream, exchange: AbstractAsyncContextManager[Answer], call: Call) -> None:
        self._model, self._exchange, self._call = model, exchange, call
        self._sent: Sent

    async def __aenter__(self) -> Answer:
        self._sent = sent = self._model.send(self._call)
        try:
            return _Answer(await self._exchange.__aenter__(), sent)
        except BaseException as error:
            sent.over(error)
            sent.closed_at = trio.current_time()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sent.over()
        try:
            await self._exchange.__aexit__(kind, error, trace)
        finally:
            self._sent.closed_at = trio.current_time()


class _Answer:
    def __init__(self, answer: Answer, sent: Sent) -> None:
        self._answer, self._sent = answer, sent
        self.limits, self.upstream_model, self.upstream_id = answer.limits, answer.upstream_model, answer.upstream_id

    async def read(self) -> Sequence[ModelEvent] | None:
        try:
            events = await self._answer.read()
        except BaseException as error:
            self._sent.over(error)
            raise
        if events is None:
            self._sent.over()
        for event in events or ():
            self._sent.heard |= isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta)
            if isinstance(event, UsageUpdate):
                self._sent.billed = event.usage.total_tokens
        return events


# -- a run -------------------------------------------------------------------------------------------------------------


@define(eq=False)
class Played:
    """What came of a scenario. `outcomes` has one entry for each request that was made: the error's code, "answered",
    "left" for a stream that its reader left, "cancelled".
    """

    scenario: Scenario
    sent: list[Sent] = field(factory=list)
    outcomes: dict[int, list[str]] = field(factory=dict)
    ids: dict[int, str] = field(factory=dict)
    events: list[Event] = field(factory=list)
    metrics: MetricsSnapshot | None = None
    began: float = 0.0
    tasks_left: int = 0
    finished: bool = False
    scopes: dict[int, trio.CancelScope] = field(factory=dict)

    def to(self, *models: str) -> list[Sent]:
        """Return what was sent to one of `models`, in order."""
        return [sent for sent in self.sent if sent.model in models]

    @property
    def ended(self) -> list[RequestEnded]:
        return [event for event in self.events if isinstance(event, RequestEnded)]


Afterwards: TypeAlias = Callable[[ResilientClient, dict[str, Upstream]], Awaitable[None]]


class _Run:
    def __init__(self, scenario: Scenario, clock: MockClock, afterwards: Afterwards | None) -> None:
        self.scenario, self.clock, self.afterwards = scenario, clock, afterwards
        self.played = Played(scenario)
        self.client: ResilientClient

    async def main(self) -> None:
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.move_on_after(10 * HOUR):
            await self.live()
            self.played.finished = True
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        self.played.tasks_left = trio.lowlevel.current_statistics().tasks_living - before

    async def live(self) -> None:
        scenario, played = self.scenario, self.played
        pairs = zip(scenario.models, scenario.turns, strict=True)
        upstreams = {config.name: Upstream(config.name, turns, played) for config, turns in pairs}
        played.began = trio.current_time()
        async with client_of(
            upstreams,
            *(evolve(each, price=each.price or PRICE) for each in scenario.models),  # "cheapest" needs one
            seed=scenario.work.seed,
            strategy=scenario.strategy,
            cache=scenario.cache,
            stream=scenario.stream,
            server=scenario.server,
            budget=scenario.budget,
        ) as self.client:
            for upstream in upstreams.values():
                upstream.client = self.client
            stop = self.client.events.listen(played.events.append)
            async with trio.open_nursery() as others:
                others.start_soon(self.cancel)
                others.start_soon(self.jump)
                async with trio.open_nursery() as callers:
                    for number, ask in enumerate(scenario.work.asks):
                        if ask.after:
                            await _wait(ask.after)
                        callers.start_soon(self.call, number, ask)
                others.cancel_scope.cancel()
            played.metrics = self.client.metrics()
            if not any(config.rate_limit_group for config in scenario.models):
                await assert_nothing_held(self.client, *upstreams.values())
            assert self.client.supervisor.outstanding == {}
            if self.afterwards is not None:
                await self.afterwards(self.client, upstreams)
            stop()

    async def call(self, number: int, ask: Ask) -> None:
        outcomes = self.played.outcomes.setdefault(number, [])
        with trio.CancelScope() as scope:
            self.played.scopes[number] = scope
            try:
                outcomes.append(await (self.generate if ask.how is Delivery.WHOLE else self.stream)(number, ask))
            except WizardError as error:
                outcomes.append(error.code)
        del self.played.scopes[number]
        if scope.cancelled_caught:
            outcomes.append("cancelled")

    async def generate(self, number: int, ask: Ask) -> str:
        response = await self.client.generate(ask.prompt, deadline=ask.deadline, cache=ask.cache)
        self.played.ids[number] = response.request_id
        return "answered"

    async def stream(self, number: int, ask: Ask) -> str:
        reads = ask.reads
        how = self.client.stream(ask.prompt, deadline=ask.deadline, cache=ask.cache, delivery=ask.how)
        async with how as stream:
            self.played.ids[number] = stream.request_id
            async for event in stream:
                if isinstance(event, End):
                    return "answered"
                reads -= 1
                if not reads:
                    return "left"
                if ask.think:
                    await trio.sleep(ask.think)
        raise AssertionError("a stream ends by its End, or by an error")

    async def cancel(self) -> None:
        for cancel in self.scenario.work.cancels:
            await _wait(cancel.pause)
            if scopes := self.played.scopes:
                scopes[sorted(scopes)[cancel.which % len(scopes)]].cancel()

    async def jump(self) -> None:
        for jump in self.scenario.work.jumps:
            await _wait(jump.pause)
            if jump.quiet:
                await wait_all_tasks_blocked()
            self.clock.jump(jump.seconds)


async def _wait(pause: Pause) -> None:
    if isinstance(pause, float):
        await trio.sleep(pause)
    else:
        for _ in range(pause):
            await trio.lowlevel.checkpoint()


def play(scenario: Scenario, afterwards: Afterwards | None = None) -> Played:
    """Run a scenario under a virtual clock, Trio's own scheduling seeded as well; what it holds at its end fails it."""
    run = trio._core._run  # Trio has no public way to seed its scheduling
    run._r.seed(scenario.work.seed)
    clock = MockClock(autojump_threshold=0)
    made = _Run(scenario, clock, afterwards)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        trio.run(made.main, clock=clock)
    assert made.played.finished, "somebody waits for ever"
    assert made.played.tasks_left == 0
    return made.played


# -- generated workloads -----------------------------------------------------------------------------------------------

LONG: Final = LimitHeaders(requests=LimitWindow(limit=100, remaining=3, reset=6.0))

ANSWERS: Final = (
    says("Hello"),
    says("Hello ", 0.5, "you", USAGE),
    Turn(("Hello ", 5.0, "you", DONE, 0.5, USAGE), head=1.0),
    Turn((3.0, "slowly", DONE), head=2.0, closing=0.3),
    Turn(("limits", DONE), limits=LONG),
    Turn(("Hello", DONE, 5.0, USAGE)),
)
REFUSALS: Final = (
    fails(NetworkError("broken", model="m")),
    Turn(head=NetworkError("broken", model="m")),
    Turn(head=OverloadedError("busy", model="m", status=529)),
    fails(OverloadedError("busy", model="m", status=503, retry_after=0.5)),
    Turn((1.0, OverloadedError("busy", model="m"))),
    Turn(head=RateLimitError("slow down", model="m", status=429)),
    Turn(head=RateLimitError("slow down", model="m", status=429, retry_after=0.3)),
    Turn(head=RateLimitError("slow down", model="m", status=429, retry_after=4.0)),
    Turn(head=RateLimitError("slow down", model="m", status=429, retry_after=40.0)),
    cut("cut "),
    Turn(("broken ", 0.5, NetworkError("broken", model="m")), closing=0.2),
    Turn((20.0,), head=0.1),
    SILENT,
    Turn(("stall", 100.0)),
    fails(KeyError("bug")),
    Turn(("Hello", DONE), closing=KeyError("closing")),
)
ODD: Final = (
    fails(RequestError("no", model="m", status=400)),
    fails(AuthError("no key", model="m", status=401)),
    fails(QuotaExhaustedError("no credit", model="m", status=429)),
    fails(ContentFilterError("no", model="m")),
    fails(TokenLimitError("too long", model="m")),
    Turn(head=UnsupportedError("no pictures", feature="image")),
    Turn(head=SerializationError("not JSON")),
)
EVERYTHING: Final = st.one_of(
    st.sampled_from(ANSWERS), st.sampled_from(ANSWERS), st.sampled_from(REFUSALS), st.sampled_from(ODD)
)

PAUSES: Final = st.one_of(st.integers(0, 15), st.integers(0, 60), st.sampled_from([0.05, 0.5, 1.0, 3.0, 12.0]))
GAPS: Final[st.SearchStrategy[Pause]] = st.sampled_from([0, 0, 0, 0, 1, 2, 3, 7, 0.1, 0.5, 0.5, 2.0, 10.0])
DEADLINES: Final = st.sampled_from([None, None, None, 0.05, 2.0, 15.0])
CANCELS: Final = st.lists(st.builds(Cancel, PAUSES, st.integers(0, 20)), max_size=12).map(tuple)
LENGTHS: Final = st.sampled_from([0.01, 0.3, 1.0, 7.0, 61.0])
JUMPS: Final = st.lists(st.builds(Jump, PAUSES, LENGTHS, st.booleans()), max_size=4).map(tuple)
QUIET_JUMPS: Final = st.lists(st.builds(Jump, PAUSES, LENGTHS), max_size=4).map(tuple)
SEEDS: Final = st.integers(0, 2**16)
HOWS: Final = st.sampled_from([Delivery.WHOLE, Delivery.WHOLE, Delivery.LIVE, Delivery.BUFFERED])


def asks(
    *,
    how: st.SearchStrategy[Delivery] = HOWS,
    prompts: Sequence[Prompt] = (Prompt("Why?"),),
    cache: Sequence[CacheUse] = ("use",),
    gaps: st.SearchStrategy[Pause] = GAPS,
    deadlines: st.SearchStrategy[float | None] = DEADLINES,
    least: int = 6,
    most: int = 30,
) -> st.SearchStrategy[tuple[Ask, ...]]:
    """Return requests."""
    one = st.builds(
        Ask,
        after=gaps,
        how=how,
        prompt=st.sampled_from(prompts),
        deadline=deadlines,
        reads=st.sampled_from([1, 2, 1000, 1000]),
        think=st.sampled_from([0.0, 0.0, 0.01, 2.0]),
        cache=st.sampled_from(cache),
    )
    return st.lists(one, min_size=least, max_size=most).map(tuple)


def works(
    asked: st.SearchStrategy[tuple[Ask, ...]] | None = None,
    *,
    cancels: st.SearchStrategy[tuple[Cancel, ...]] = CANCELS,
    jumps: st.SearchStrategy[tuple[Jump, ...]] = JUMPS,
) -> st.SearchStrategy[Work]:
    """Return work for a client."""
    return st.builds(Work, asks() if asked is None else asked, cancels, jumps, SEEDS)


def turns(*, each: st.SearchStrategy[Turn] = EVERYTHING) -> st.SearchStrategy[tuple[Turn, ...]]:
    """Return what a model plays, the last turn for ever."""
    return st.lists(each, min_size=5, max_size=30).map(tuple)


# -- bugs that are planted ---------------------------------------------------------------------------------------------

C = TypeVar("C")


def few(part: int = 2) -> settings:
    """Return settings for a property whose examples are whole simulations: a part of what the profile says."""
    every = settings.default.max_examples if settings.default is not None else 100
    return settings(max_examples=max(1, every // part), suppress_health_check=[HealthCheck.too_slow], deadline=None)


def finds(cases: st.SearchStrategy[C], holds: Callable[[C], None], *, most: int = 60) -> bool:
    """Say whether some case makes `holds` fail; always the same cases are looked at, and none is made smaller."""

    def fails(case: C) -> bool:
        try:
            holds(case)
        except AssertionError:
            return True
        return False

    how = settings(
        max_examples=most,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HypothesisWarning)  # the case that was found is long, and nobody reads it
            find(cases, fails, settings=how)
    except NoSuchExample:
        return False
    return True
