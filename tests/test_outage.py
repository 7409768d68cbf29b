"""Whole outages under a virtual clock: what people at 3 a.m. care about."""

import math
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Final

import pytest
import trio
from attrs import define, field, frozen

from tests.models import assert_nothing_held
from wizard_actors import DeadlineExceededError, ResilientClient, ServedBy, WizardConfig, WizardError
from wizard_actors.breaker_core import Circuit
from wizard_actors.config import Fault, ScriptStep, SimulatedConfig
from wizard_actors.event_stream import EventStream
from wizard_actors.events import BreakerChanged, Event
from wizard_actors.providers.base import Answer, Call, Provider
from wizard_actors.providers.simulated import SimulatedCall, SimulatedProvider
from wizard_actors.supervisor import State

TEN_MINUTES = 600.0
MINUTE: Final = 60.0


def chain(primary: str) -> WizardConfig:
    """A primary as described, and a healthy backup."""
    return WizardConfig.from_toml(
        f"""
        [[models]]
        name = "primary"
        provider = "simulated"
        simulated = {{ {primary} }}
        [[models]]
        name = "backup"
        provider = "simulated"
        simulated = {{ first_token = 0.3, per_chunk = 0.01 }}
        """,
        env={},
    )


@pytest.mark.long
async def test_a_silent_primary_costs_impatient_callers_no_answer(autojump_clock: trio.testing.MockClock) -> None:
    """The primary stays silent; callers with 2 s, far below its first-token limit, are all answered by the fallback."""
    served: Counter[str] = Counter()
    config = chain('script = [{ fault = "silent", times = 1_000_000 }]')

    async with ResilientClient.open(config, rng=Random(1)) as client, trio.open_nursery() as callers:

        async def caller() -> None:
            answer = await client.generate("quick, please", deadline=2.0)
            served[answer.model] += 1

        for _ in range(int(TEN_MINUTES * 2)):
            callers.start_soon(caller)
            await trio.sleep(0.5)

    assert served == {"backup": TEN_MINUTES * 2}


@pytest.mark.long
@pytest.mark.parametrize("every", [1, 5, 20, 90])
async def test_an_impatient_caller_does_not_close_a_healthy_primary_to_the_patient(
    autojump_clock: trio.testing.MockClock, every: int
) -> None:
    """One caller a second has less time than the primary takes; the patient ones, rare or not, all get the primary."""
    patient: Counter[str] = Counter()
    config = chain("first_token = 2, per_chunk = 0.01")

    async with ResilientClient.open(config, rng=Random(1)) as client, trio.open_nursery() as callers:

        async def impatient() -> None:
            answer = await client.generate("quick, please", deadline=1.5)
            assert answer.served_by is ServedBy.FALLBACK

        async def calm() -> None:
            patient[(await client.generate("take your time")).model] += 1

        for second in range(int(TEN_MINUTES)):
            if second % every == 0:
                callers.start_soon(calm)
            callers.start_soon(impatient)
            await trio.sleep(1)

    assert patient == {"primary": -(-TEN_MINUTES // every)}


async def test_a_deadline_that_no_model_meets_is_the_callers_error(autojump_clock: trio.testing.MockClock) -> None:
    """Where all are silent, the caller hears in time, with every attempt."""
    config = chain('script = [{ fault = "silent", times = 9 }]')

    async with ResilientClient.open(config, rng=Random(1)) as client:
        began = trio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.generate("anybody?", deadline=0.5)

    assert trio.current_time() - began == pytest.approx(0.5)
    assert [attempt.model for attempt in caught.value.attempts] == ["primary", "backup"]


async def test_actors_that_crash_six_times_in_a_row_lose_no_call(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Worker, limiter, breaker and router crash again and again; calls in flight and later ones are all answered."""
    caplog.set_level("CRITICAL", logger="wizard_actors.supervisor")
    config = chain("first_token = 1, per_chunk = 1")
    victims = ["router", *(f"models/model:primary/{name}" for name in ("worker", "limiter", "breaker"))]
    in_flight: list[str] = []
    later: list[str] = []

    async with ResilientClient.open(config, rng=Random(1)) as client:

        async def caller(answers: list[str]) -> None:
            answers.append((await client.generate("hold on")).model)

        async with trio.open_nursery() as callers:
            for _ in range(5):
                callers.start_soon(caller, in_flight)
            await trio.sleep(0.5)  # all of them are waiting for the primary's first token
            for _ in range(6):
                for victim in victims:
                    client.supervisor.kill(victim, RuntimeError("planned"))
                await trio.lowlevel.checkpoint()
                callers.start_soon(caller, later)
                await trio.sleep(1.5)
        crashed = {node.path: node for node in client.tree().walk() if node.error is not None}

        await trio.sleep(150)  # whoever is DOWN is tried again every minute
        states = {node.state for node in client.tree().walk()}
        recovered = (await client.generate("are you back?")).model

    assert in_flight == ["primary"] * 5
    assert len(later) == 6
    assert set(crashed) == {f"wizard/{victim}" for victim in victims}
    assert all(node.error == "RuntimeError: planned" and node.restarts >= 2 for node in crashed.values())
    assert states == {State.RUNNING}
    assert recovered == "primary"


# -- ten minutes without the primary -----------------------------------------------------------------------------------

HEALTHY: Final = SimulatedConfig(first_token=0.3, per_chunk=0.1, answer="one two three four", words_per_chunk=2)
FOR_EVER: Final = 1_000_000


class Primary:
    """A model that fails, as `step` says, from the instant `since` until `until`; `calls` are the instants of all."""

    streams = True

    def __init__(self, step: ScriptStep, since: float, until: float) -> None:
        self._healthy = SimulatedProvider("primary", settings=HEALTHY)
        self._dead = SimulatedProvider(
            "primary", settings=SimulatedConfig(answer=HEALTHY.answer, words_per_chunk=2, script=[step])
        )
        self._since, self._until = since, until
        self.calls: list[float] = []

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Begin a call."""
        now = trio.current_time()
        self.calls.append(now)
        return (self._dead if self._since <= now < self._until else self._healthy).open(call)


@frozen
class Asked:
    """One request: when it began and how long it took, and who answered it, None where nobody did."""

    began: float
    took: float
    model: str | None


@define
class Outage:
    """A minute without trouble, an outage, and a time after it: what became of every request of every second.

    Instants count from the outage's beginning.
    """

    length: float
    primary: list[float] = field(factory=list)
    backup: int = 0
    opened: int = 0
    asked: list[Asked] = field(factory=list)
    errors: Counter[str] = field(factory=Counter)

    def between(self, since: float, until: float) -> list[Asked]:
        """Return the requests that began then."""
        return [asked for asked in self.asked if since <= asked.began < until]

    def answered(self) -> float:
        """Return the share of all requests that was answered."""
        return sum(asked.model is not None for asked in self.asked) / len(self.asked)

    def wasted(self) -> float:
        """Return how many of the requests after the first minute reached the dead primary, as a share of them."""
        calls = sum(MINUTE <= call < self.length for call in self.primary)
        return calls / len(self.between(MINUTE, self.length))

    def back_after(self) -> float:
        """Return how long after its end the primary had more than 95 % of ten seconds' requests again."""
        for second in range(int(2 * MINUTE)):
            since = self.length + second
            models = [asked.model for asked in self.between(since, since + 10.0)]
            if models.count("primary") > 0.95 * len(models):
                return second
        return math.inf

    def slowest(self) -> float:
        """Return the 99th percentile of how long requests of the outage took."""
        took = sorted(asked.took for asked in self.between(0.0, self.length))
        return took[int(len(took) * 0.99)]

    def __str__(self) -> str:
        return (
            f"{self.answered():.2%} answered, p99 {self.slowest():.1f} s, {self.wasted():.2%} reach the dead primary "
            f"after a minute, back after {self.back_after():.0f} s, {self.opened} openings, errors {dict(self.errors)}"
        )


async def outage(
    fault: Fault,
    settings: str = "",
    *,
    rate: int,
    length: float = TEN_MINUTES,
    after: float = MINUTE + 15.0,
    stream: bool = False,
) -> Outage:
    """Ask `rate` times a second, before, during and after an outage of `length` seconds; `settings` is TOML."""
    begins = trio.current_time() + MINUTE
    step = ScriptStep(
        fault=fault,
        times=FOR_EVER,
        after_words=2 if stream else 0,
        retry_after=20.0 if fault == "rate_limit" else None,
    )
    primary = Primary(step, begins, begins + length)
    seen, events = Outage(length), EventStream()

    def count_backup(_: SimulatedCall) -> None:
        seen.backup += 1

    def count_openings(event: Event) -> None:
        seen.opened += isinstance(event, BreakerChanged) and event.circuit == Circuit.OPEN

    backup = SimulatedProvider("backup", settings=HEALTHY, on_call=count_backup)
    config = WizardConfig.from_toml(
        f"""
        models = [{{ name = "primary", provider = "simulated" }}, {{ name = "backup", provider = "simulated" }}]
        stream = {{ delivery = "buffered" }}
        {settings}
        """,
        env={},
    )
    events.listen(count_openings)
    providers: dict[str, Provider] = {"primary": primary, "backup": backup}

    async with ResilientClient.open(config, rng=Random(1), events=events, providers=providers) as client:

        async def ask(number: int) -> None:
            began, model = trio.current_time(), None
            try:
                if stream:
                    async with client.stream(f"question {number}") as answer:
                        async for _ in answer:
                            pass
                    model = answer.response.model
                else:
                    model = (await client.generate(f"question {number}")).model
            except WizardError as error:
                seen.errors[error.code] += 1
            seen.asked.append(Asked(began - begins, trio.current_time() - began, model))

        async with trio.open_nursery() as callers:
            for number in range(int((MINUTE + length + after) * rate)):
                callers.start_soon(ask, number)
                await trio.sleep_until(begins - MINUTE + (number + 1) / rate)
        await assert_nothing_held(client)

    seen.primary = [call - begins for call in primary.calls]
    return seen


def no_cascade(seen: Outage) -> bool:
    """Whether the backup got at most a tenth more calls than there were requests for it."""
    return seen.backup <= 1.1 * sum(asked.model != "primary" for asked in seen.asked)


HEDGED: Final = 'fallback = { strategy = "hedged" }'
WAYS_TO_FAIL: Final[dict[str, tuple[Fault, bool]]] = {
    "a 500 at once": ("error", False),
    "connection refused": ("disconnect", False),
    "streams end in the middle": ("truncate", True),
    "connections break in the middle": ("disconnect", True),
}


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["sequential", "hedged"])
@pytest.mark.parametrize("way", WAYS_TO_FAIL)
async def test_ten_minutes_without_the_primary(
    autojump_clock: trio.testing.MockClock, report_line: Callable[[str], None], way: str, strategy: str
) -> None:
    """All are answered, hardly anybody reaches the dead primary, it is back within a minute, the backup is not flooded.

    The first way at 20 requests a second, the others at fewer: the fewer there are, the more probes weigh.
    """
    fault, stream = WAYS_TO_FAIL[way]
    rate = 20 if (fault, strategy) == ("error", "sequential") else 4
    seen = await outage(fault, HEDGED if strategy == "hedged" else "", rate=rate, stream=stream)

    report_line(f"outage, {way}, {strategy}, {rate}/s: {seen}")
    assert seen.answered() >= 0.999
    assert seen.wasted() < 0.01
    assert seen.back_after() <= MINUTE
    assert seen.opened >= 5
    assert no_cascade(seen)
    assert seen.slowest() < 3.0


@pytest.mark.long
async def test_minutes_of_a_silent_primary(
    autojump_clock: trio.testing.MockClock, report_line: Callable[[str], None]
) -> None:
    """It costs the first callers their first-token limit, and whoever waits for a slot meanwhile as much at most.

    A probe is known to have failed only after that limit, so that it may take longer by as much until all is well.
    """
    seen = await outage("silent", "defaults = { timeouts = { first_token = 10 } }", rate=20, length=4 * MINUTE)

    report_line(f"outage, silence, first_token = 10, 20/s: {seen}")
    assert seen.answered() >= 0.999
    assert seen.wasted() < 0.01
    assert seen.back_after() <= MINUTE + 10.0
    assert no_cascade(seen)


@pytest.mark.long
async def test_a_silent_primary_fills_its_slots_and_nobody_is_turned_away_for_it(
    autojump_clock: trio.testing.MockClock, report_line: Callable[[str], None]
) -> None:
    """With nothing configured a first token may take a minute, which is longer than anybody waits for a slot."""
    seen = await outage("silent", rate=20, length=2 * MINUTE, after=1.0)

    report_line(f"outage, silence, nothing configured, 20/s, two minutes: {seen}")
    assert seen.answered() >= 0.999


@pytest.mark.long
async def test_hedges_do_not_hide_a_silent_primary(
    autojump_clock: trio.testing.MockClock, report_line: Callable[[str], None]
) -> None:
    """A model that loses hedge after hedge without a word is as dead as one that is waited for."""
    seen = await outage("silent", HEDGED, rate=4)

    report_line(f"outage, silence, hedged, 4/s: {seen}")
    assert seen.answered() >= 0.999
    assert seen.back_after() <= MINUTE
    assert no_cascade(seen)
    assert seen.wasted() < 0.01


@pytest.mark.long
async def test_minutes_of_429s_are_no_outage(
    autojump_clock: trio.testing.MockClock, report_line: Callable[[str], None]
) -> None:
    """Retry-After says when to come back: all are answered, the circuit stays closed, traffic is back in that time."""
    seen = await outage("rate_limit", rate=20, length=4 * MINUTE)

    report_line(f"outage, 429 with Retry-After 20: {seen}")
    assert seen.answered() >= 0.999
    assert seen.opened == 0
    assert seen.back_after() <= 20.0
    assert no_cascade(seen)
    assert seen.wasted() < 0.01


@pytest.mark.long
async def test_nobody_waits_out_a_pause_beyond_the_cap_while_another_model_remains(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whoever was waiting already when the 429 came moves on like those who come after it."""
    seen = await outage("rate_limit", rate=20, length=2 * MINUTE, after=30.0)

    assert seen.slowest() <= 6.0
