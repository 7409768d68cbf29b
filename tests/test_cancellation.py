"""Seeded chaos over whole clients: calls and streams that are cancelled at random batches, models that fail in every
way, actors that crash, clients that close meanwhile. Afterwards nothing may be held, and every request has ended once.

`pytest -q tests/test_cancellation.py --seeds 500` digs deeper. Each bug that is planted below makes the same run fail:
a chaos test that nothing fails proves nothing.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from decimal import Decimal
from random import Random

import pytest
import trio
import trio.testing
from attrs import define

from tests.models import DONE, SILENT, USAGE, Scripted, Seen, Step, Turn, model
from wizard_actors import (
    AuthError,
    ContentFilterError,
    ModelConfig,
    NetworkError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    ResilientClient,
    StreamEvent,
    TokenLimitError,
    UnsupportedError,
    WizardConfig,
    WizardError,
    reporting,
)
from wizard_actors.actor import Ledger
from wizard_actors.answering import Answering
from wizard_actors.attempt import Attempt
from wizard_actors.breaker_core import BreakerState, Circuit
from wizard_actors.config import (
    BreakerConfig,
    CacheConfig,
    PriceConfig,
    RateLimitConfig,
    RetryConfig,
    RouteConfig,
    ServerConfig,
    Strategy,
    StreamConfig,
    SupervisionConfig,
    TimeoutsConfig,
)
from wizard_actors.events import RequestEnded
from wizard_actors.gcra import LimiterState
from wizard_actors.lane import Lane
from wizard_actors.request import CacheUse, Delivery
from wizard_actors.response_stream import ResponseStream
from wizard_actors.slots import WorkerState
from wizard_actors.verdict import Outcome
from wizard_actors.worker import ModelWorker

SLOTS = 3
DRAIN = 1000.0
HOUR = 3600.0
MODELS = ("a", "b", "c")
STRATEGIES: tuple[Strategy, ...] = ("sequential", "hedged", "parallel", "adaptive", "cheapest")
ACTORS = [f"models/model:{name}/{actor}" for name in MODELS for actor in ("limiter", "breaker", "worker")]
ACTORS += ["router", "cache"]


@define
class Report:
    """What became of the requests: everything but the first four has to be zero."""

    requests: int = 0
    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    doubled: int = 0
    held: int = 0
    exchanges: int = 0
    crowded: int = 0
    against_the_breaker: int = 0
    unforeseen: int = 0
    late: int = 0
    tasks_left: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (
            self.lost
            or self.doubled
            or self.held
            or self.exchanges
            or self.crowded
            or self.against_the_breaker
            or self.unforeseen
            or self.late
            or self.tasks_left
        )

    def add(self, other: Report) -> None:
        """Add up."""
        for name in Report.__slots__:
            if name != "__weakref__":
                setattr(self, name, getattr(self, name) + getattr(other, name))


class World:
    """One seed: a client, its models, and the tasks that use, cancel and break it."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.report = Report()
        self.scopes: dict[int, trio.CancelScope] = {}
        self.trace: list[tuple[object, ...]] = []
        self.models = {name: Scripted(*self.turns(name), on_open=self.watch(name)) for name in MODELS}
        self.client: ResilientClient

    # -- what models do

    def turns(self, name: str) -> list[Turn]:
        return [self.turn(name) for _ in range(200)]

    def turn(self, name: str) -> Turn:
        rng = self.rng
        word: list[Step] = ["word ", "word ", ()]
        steps: list[Step] = []
        for _ in range(rng.randint(0, 4)):
            steps += [rng.choice([0.0, 0.0, 0.0, 0.1, 1.0, 20.0]), rng.choice(word)]
        ends: list[list[Step]] = [[DONE], [DONE], [DONE], [DONE], [DONE, USAGE], [DONE, 5.0, USAGE], []]
        steps += rng.choice([*ends, [self.error(name)]])
        heads: list[float | Exception] = [0.0, 0.0, 0.0, 0.0, 0.1, 3.0, self.error(name)]
        closings: list[float | Exception] = [0.0, 0.0, 0.0, 0.2, KeyError("closing")]
        return SILENT if rng.random() < 0.05 else Turn(tuple(steps), rng.choice(heads), closing=rng.choice(closings))

    def error(self, name: str) -> Exception:
        return self.rng.choice(
            [
                NetworkError("broken", model=name),
                OverloadedError("busy", model=name, retry_after=0.5),
                RateLimitError("slow down", model=name, retry_after=self.rng.choice([None, 0.3, 3.0, 30.0])),
                RequestError("no", model=name),
                AuthError("no key", model=name),
                QuotaExhaustedError("no credit", model=name),
                ContentFilterError("no", model=name),
                TokenLimitError("too long", model=name),
                UnsupportedError("no pictures", feature="image"),
                KeyError("bug"),
            ]
        )

    def watch(self, name: str) -> Callable[[Seen], None]:
        def look(_seen: Seen) -> None:
            breaker = self.client.supervisor.ref(f"models/model:{name}/breaker", BreakerState).published
            self.report.against_the_breaker += breaker is None or breaker.circuit is Circuit.OPEN
            self.report.crowded += self.models[name].in_flight > SLOTS

        return look

    def config(self) -> WizardConfig:
        rng = self.rng
        return WizardConfig(
            models=[
                model(
                    name,
                    slots=SLOTS,
                    window=rng.choice([None, 1000, 2000]),
                    timeouts=TimeoutsConfig(first_token=4.0, stall=3.0, total=30.0),
                    retry=RetryConfig(base_delay=rng.choice([0.0, 0.5])),
                    limit=RateLimitConfig(
                        requests_per_minute=(rate := rng.choice([None, 600, 60])),
                        tokens_per_minute=rng.choice([None, None, 60_000]),
                        burst=2 if rate else None,
                        queue=3,
                    ),
                    price=PriceConfig(input=Decimal(rng.randint(1, 3)), output=Decimal(1)),
                    breaker=BreakerConfig(failure_threshold=3, open_for=2.0, half_open_probes=rng.choice([1, 2])),
                )
                for name in MODELS
            ],
            fallback=RouteConfig(
                name="wizard",
                chain=(chain := rng.sample(MODELS, k=rng.randint(1, 3))),
                strategy=rng.choice(STRATEGIES) if len(chain) > 1 else "sequential",
                spill=rng.random() < 0.5,
                static_answer=rng.choice([None, None, "later"]),
            ),
            cache=CacheConfig(max_entries=20, ttl=5.0, stale_if_error=60.0),
            stream=StreamConfig(on_interruption=rng.choice(["fail", "reset"])),
            server=ServerConfig(queue_timeout=rng.choice([0.0, 2.0, 10.0]), drain_timeout=DRAIN),
            supervision=SupervisionConfig(mailbox=3, down_retry=5.0),
        )

    # -- who does what

    async def run(self) -> None:
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.move_on_after(HOUR) as limit:  # nothing here takes that long: who still waits then waits for ever
            await self.live()
        self.report.lost += limit.cancelled_caught
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        self.report.tasks_left += trio.lowlevel.current_statistics().tasks_living - before

    async def live(self) -> None:
        async with ResilientClient.open(self.config(), rng=self.rng, providers=self.models) as self.client:
            with self.client.events.subscribe(bound=100_000) as events:
                async with trio.open_nursery() as callers:
                    async with trio.open_nursery() as others:
                        for number in range(self.rng.randint(4, 10)):
                            callers.start_soon(self.caller, number)
                        for _ in range(3):
                            others.start_soon(self.canceller)
                        others.start_soon(self.crasher)
                    closed = self.rng.random() < 0.3
                    if closed:
                        callers.start_soon(self.close)
                if not closed:
                    await trio.sleep(10.0)  # whatever is in backoff or DOWN comes back, and settles
                    self.look_inside()
                ended = Counter(event.request_id for event in events.drain() if isinstance(event, RequestEnded))
            closing = trio.current_time()
        self.report.late += trio.current_time() - closing > 1.0
        self.count(ended)

    def count(self, ended: Counter[str]) -> None:
        report = self.report
        report.doubled += sum(times > 1 for times in ended.values())
        report.lost += report.requests - len(ended)
        report.held += sum(self.client.supervisor.outstanding.values())
        report.exchanges += sum(provider.in_flight for provider in self.models.values())

    def look_inside(self) -> None:
        report, supervisor = self.report, self.client.supervisor
        for name in MODELS:
            breaker = supervisor.ref(f"models/model:{name}/breaker", BreakerState).published
            limiter = supervisor.ref(f"models/model:{name}/limiter", LimiterState).published
            worker = supervisor.ref(f"models/model:{name}/worker", WorkerState).published
            assert breaker is not None
            assert limiter is not None
            assert worker is not None
            report.held += breaker.in_flight + limiter.waiting + worker.in_use + worker.waiting

    async def caller(self, number: int) -> None:
        for _ in range(self.rng.randint(2, 6)):
            with trio.CancelScope() as scope:
                self.scopes[number] = scope
                if self.rng.random() < 0.1:
                    scope.deadline = trio.current_time() + self.rng.choice([0.0, 0.1, 1.0])
                await self.call()
            self.report.cancelled += scope.cancelled_caught
            del self.scopes[number]
            await self.pause()

    async def call(self) -> None:
        self.report.requests += 1
        how = "cancelled"
        deadline = self.rng.choice([None, None, 0.05, 2.0, 15.0])
        try:
            await (self.generate if self.rng.random() < 0.4 else self.stream)(deadline)
            self.report.answered += 1
            how = "answered"
        except WizardError as error:
            error.to_dict()
            self.report.failed += 1
            how = error.code
        except Exception as error:  # noqa: BLE001 - any other error is a finding
            self.report.unforeseen += 1
            how = repr(error)
        finally:
            self.trace.append((trio.current_time(), how))

    async def generate(self, deadline: float | None) -> None:
        await self.client.generate(self.prompt(), deadline=deadline, cache=self.cache_use())

    def prompt(self) -> str:
        return self.rng.choice(["Why?", "Why?", "How?"])

    def cache_use(self) -> CacheUse:
        uses: list[CacheUse] = ["use", "refresh", "bypass", "bypass"]
        return self.rng.choice(uses)

    async def stream(self, deadline: float | None) -> None:
        delivery = self.rng.choice([Delivery.LIVE, Delivery.BUFFERED])
        reads = self.rng.choice([1, 2, 1000, 1000])
        use = self.cache_use()
        async with self.client.stream(self.prompt(), deadline=deadline, delivery=delivery, cache=use) as stream:
            async for _event in stream:
                reads -= 1
                if not reads:
                    return
                if self.rng.random() < 0.2:
                    await trio.sleep(self.rng.choice([0.01, 1.0, 40.0]))
            assert stream.response.request_id == stream.request_id

    async def canceller(self) -> None:
        for _ in range(15):
            await self.pause()
            if self.scopes and self.rng.random() < 0.5:
                self.scopes[self.rng.choice(sorted(self.scopes))].cancel()

    async def crasher(self) -> None:
        for _ in range(self.rng.randint(0, 10)):
            await self.pause()
            if self.rng.random() < 0.5:
                self.client.supervisor.kill(self.rng.choice(ACTORS), RuntimeError("planned"))

    async def close(self) -> None:
        """Take no more asks while calls are in flight, as a client that is being left does."""
        await self.pause()
        self.client.supervisor._root.close()

    async def pause(self) -> None:
        if self.rng.random() < 0.6:
            for _ in range(self.rng.randint(1, 40)):
                await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(self.rng.choice([0.05, 0.1, 1.0, 3.0]))


def simulate(seed: int) -> World:
    """Run one seed under a virtual clock, Trio's own scheduling seeded as well."""
    run = trio._core._run  # Trio has no public way to seed its scheduling
    run._r.seed(seed)
    world = World(Random(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        patch.setattr("wizard_actors.plan.BARRED_FOR", 3.0)  # so that there is something to probe
        trio.run(world.run, clock=trio.testing.MockClock(autojump_threshold=0))
    return world


def run_seeds(seeds: int) -> Report:
    """Run many seeds; return what became of all requests."""
    total = Report()
    for seed in range(seeds):
        total.add(simulate(seed).report)
    return total


def finds(count: str, seeds: int) -> bool:
    """Say whether one of so many seeds has what a report counts so; none after it is run."""
    return any(getattr(simulate(seed).report, count) for seed in range(seeds))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of planned crashes need no log."""
    caplog.set_level("CRITICAL", logger="wizard_actors")


@pytest.mark.long
def test_whatever_happens_nothing_is_held_and_every_request_ends_once(
    pytestconfig: pytest.Config, report_line: Callable[[str], None]
) -> None:
    """No slot, permit, turn, probe, exchange or task is left; no exchange was one too many, or against the breaker."""
    seeds = pytestconfig.getoption("seeds")

    total = run_seeds(seeds)

    report_line(str(total))
    gc.collect()  # what nobody closed would warn now, and warnings are errors
    assert total.clean, str(total)
    assert min(total.answered, total.failed, total.cancelled) > 2 * seeds


def test_the_same_seed_gives_the_same_trace() -> None:
    """A failure that a seed has found can be looked at again."""
    for seed in range(5):
        assert simulate(seed).trace == simulate(seed).trace


# -- planted bugs: each has to be found

PLANTED_SEEDS = 12


def test_a_slot_that_a_cancelled_call_keeps_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancellation is an end like any other."""
    release = Attempt._release

    def forgetful(self: Attempt) -> None:
        if self._ending is not Outcome.IGNORED:
            release(self)

    monkeypatch.setattr(Attempt, "_release", forgetful)

    assert finds("held", PLANTED_SEEDS)


def test_a_permit_that_does_not_come_back_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A neutral end is one, too."""
    settle = Attempt._settle

    def forgetful(self: Attempt, outcome: Outcome, error: WizardError | None) -> None:
        if outcome is Outcome.IGNORED and self.assembly.started:
            self._permit = None
        settle(self, outcome, error)

    monkeypatch.setattr(Attempt, "_settle", forgetful)

    assert finds("held", PLANTED_SEEDS)


def test_a_probe_that_does_not_come_back_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leave to probe is a grant."""
    close = Lane.close

    def forgetful(self: Lane) -> None:
        self._probe = None
        close(self)

    monkeypatch.setattr(Lane, "close", forgetful)

    assert finds("held", 3 * PLANTED_SEEDS)


def test_an_exchange_that_a_leaving_consumer_leaves_open_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream would go on, and be paid for."""
    leave = Attempt.__aexit__

    async def careless(self: Attempt, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is GeneratorExit:
            self._exchange = None
        await leave(self, kind, *rest)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(Attempt, "__aexit__", careless)

    assert finds("exchanges", PLANTED_SEEDS)


def test_a_slot_that_is_free_before_its_exchange_is_closed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model would have one exchange more than it has slots."""
    settle = Attempt._settle

    def hasty(self: Attempt, outcome: Outcome, error: WizardError | None) -> None:
        settle(self, outcome, error)
        self._release()

    monkeypatch.setattr(Attempt, "_settle", hasty)

    assert finds("crowded", PLANTED_SEEDS)


def test_a_worker_that_forgets_its_calls_at_a_crash_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another way to one exchange too many."""

    def forgetful(config: ModelConfig, queue: int, _ledger: Ledger, carry: object) -> ModelWorker:
        return ModelWorker(config, queue, Ledger(), carry)

    monkeypatch.setattr("wizard_actors.worker.ModelWorker", forgetful)

    assert finds("crowded", 5 * PLANTED_SEEDS)


def test_a_request_that_ends_twice_or_never_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters and logs live on that."""
    report = reporting._report

    def doubled(*facts: object) -> None:
        report(*facts)  # type: ignore[arg-type]  # passed on as they came
        report(*facts)  # type: ignore[arg-type]  # passed on as they came

    with monkeypatch.context() as patch:
        patch.setattr(reporting, "_report", doubled)
        assert finds("doubled", 3)
    monkeypatch.setattr(reporting, "_report", lambda *facts: None)
    assert finds("lost", 3)


def test_a_stream_whose_generator_nobody_closes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exchange would live until the garbage collector comes by."""
    kept: list[AsyncGenerator[StreamEvent, None]] = []
    begin = Answering.events

    def keep(self: Answering) -> AsyncGenerator[StreamEvent, None]:
        kept.append(begin(self))
        return kept[-1]

    async def nothing(*_args: object) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Answering, "events", keep)
    monkeypatch.setattr(ResponseStream, "__aexit__", nothing)

    total = run_seeds(6)

    assert total.held
    assert total.exchanges
