"""Many items through one piece of work: order, bounds, outcomes, and how it all ends."""

import math
from collections.abc import AsyncIterator, Iterator
from random import Random

import pytest
import trio
from attrs import Factory, define

from wizard_actors.batch import Patient, gather, run_batch
from wizard_actors.errors import (
    ActorStoppedError,
    ConfigError,
    DeadlineExceededError,
    InvalidPromptError,
    NetworkError,
    RateLimitError,
    WizardError,
)
from wizard_actors.types import WizardResponse


def failure(name: object) -> NetworkError:
    """Return an error that tells whose it is."""
    return NetworkError(f"{name} failed", model="primary")


@define
class Work:
    """Takes as many seconds as the item says, and remembers how many ran at once."""

    running: int = 0
    most: int = 0

    async def __call__(self, item: float) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(item)
        finally:
            self.running -= 1
        return f"slept {item}"


async def numbers(count: int) -> AsyncIterator[float]:
    """Yield the numbers below `count`, one a second."""
    for number in range(count):
        await trio.sleep(1)
        yield float(number)


# -- gather ----------------------------------------------------------------------------------------------------------


async def test_outcomes_keep_the_items_order(autojump_clock: trio.testing.MockClock) -> None:
    """The last to end may be the first of the list."""
    assert await gather(Work(), [3.0, 1.0, 2.0], max_concurrency=3) == ["slept 3.0", "slept 1.0", "slept 2.0"]


async def test_no_more_than_max_concurrency_run_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Ten items of a second take four rounds of three, and all three places are used."""
    work, began = Work(), trio.current_time()
    await gather(work, [1.0] * 10, max_concurrency=3)
    assert (work.most, trio.current_time() - began) == (3, 4.0)


async def test_an_error_is_an_outcome_and_stops_nobody() -> None:
    """A `WizardError` stands in its item's place."""

    async def work(item: int) -> int:
        await trio.lowlevel.checkpoint()
        if item == 1:
            raise failure(item)
        return item

    outcomes = await gather(work, range(3), max_concurrency=2)
    assert [outcomes[0], outcomes[2]] == [0, 2]
    assert isinstance(outcomes[1], NetworkError)


async def test_progress_is_told_after_each_item() -> None:
    """How many have ended; each item's place is free only once that has been taken in."""
    told: list[int] = []

    async def progress(done: int) -> None:
        told.append(done)

    await gather(Work(), iter([0.0] * 3), max_concurrency=2, on_progress=progress)
    assert told == [1, 2, 3]


async def test_items_may_come_in_their_own_time(autojump_clock: trio.testing.MockClock) -> None:
    """An asynchronous iterator is read while others are at work."""
    began = trio.current_time()
    outcomes = await gather(Work(), numbers(4), max_concurrency=4)
    assert outcomes == [f"slept {float(number)}" for number in range(4)]
    assert trio.current_time() - began == 4 + 3


async def test_an_error_of_on_progress_is_raised() -> None:
    """It ends the batch: whoever wants the outcomes so far keeps it from raising."""

    async def told(_done: int) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await gather(Work(), [0.0] * 3, max_concurrency=1, on_progress=told)


async def test_no_items_are_no_outcomes() -> None:
    """Nothing is called."""
    assert await gather(Work(), [], max_concurrency=1) == []


async def test_a_stop_in_the_middle_gives_each_remaining_item_its_error(autojump_clock: trio.testing.MockClock) -> None:
    """What is asked of a client that has been closed fails at once, and the batch comes to its end."""
    closed_at = trio.current_time() + 2.5

    async def work(item: int) -> int:
        with trio.move_on_at(closed_at) as scope:
            await trio.sleep(1)
            return item
        assert scope.cancelled_caught
        raise ActorStoppedError("the client is closed", actor="wizard")

    with trio.fail_after(3):
        outcomes = await gather(work, range(1000), max_concurrency=2)
    assert outcomes[:4] == [0, 1, 2, 3]
    assert [type(outcome) for outcome in outcomes[4:]] == [ActorStoppedError] * 996


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, -1, True])
async def test_max_concurrency_is_at_least_one(number: int) -> None:
    """A batch that could not begin is refused."""
    with pytest.raises(ConfigError, match="max_concurrency"):
        await gather(Work(), [1.0], max_concurrency=number)


async def test_a_single_text_is_no_batch() -> None:
    """It would be taken apart into letters."""

    async def work(item: str) -> str:
        raise AssertionError(item)

    with pytest.raises(InvalidPromptError, match="list"):
        await gather(work, "Why?", max_concurrency=1)


# -- how it ends -----------------------------------------------------------------------------------------------------


async def test_a_bug_cancels_the_rest_and_is_raised_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    """Not as a group of one; and nothing runs on."""
    ended: list[str] = []

    async def work(item: int) -> None:
        if item == 2:
            await trio.sleep(1)
            raise KeyError(item)
        try:
            await trio.sleep_forever()
        finally:
            ended.append("cancelled")

    with pytest.raises(KeyError):
        await gather(work, range(10), max_concurrency=3)
    assert ended == ["cancelled"] * 2


async def test_bugs_of_the_same_moment_come_as_a_group() -> None:
    """None of them is swallowed."""
    together = trio.Event()

    async def work(item: int) -> None:
        if item == 2:
            together.set()
            return
        await together.wait()
        raise KeyError(item)

    with pytest.raises(ExceptionGroup) as caught:
        await gather(work, range(3), max_concurrency=3)
    assert [type(bug) for bug in caught.value.exceptions] == [KeyError, KeyError]


async def test_an_error_of_the_items_is_raised() -> None:
    """Even one that would be an outcome had the work raised it."""

    def items() -> Iterator[float]:
        yield 0.0
        raise failure("the file")

    with pytest.raises(NetworkError, match="the file"):
        await gather(Work(), items(), max_concurrency=2)


async def test_an_error_of_whoever_takes_the_outcomes_is_raised() -> None:
    """It is not mistaken for an outcome."""

    async def done(_index: int, _item: float, _outcome: str | WizardError) -> None:
        raise failure("the disk")

    with pytest.raises(NetworkError, match="the disk"):
        await run_batch(Work(), [0.0], max_concurrency=1, done=done)


async def test_a_cause_stays_chained() -> None:
    """Taking a bug out of its group leaves its cause alone."""

    async def work(_item: int) -> None:
        raise KeyError from failure("a model")

    with pytest.raises(KeyError) as caught:
        await gather(work, [1], max_concurrency=1)
    assert isinstance(caught.value.__cause__, NetworkError)


async def test_cancelling_stops_everything(autojump_clock: trio.testing.MockClock) -> None:
    """No work runs on, no item is pulled any more."""
    work, pulled = Work(), []

    def items() -> Iterator[float]:
        for number in range(1000):
            pulled.append(number)
            yield 1.0

    with trio.move_on_after(1.5):
        await gather(work, items(), max_concurrency=3)
    assert (work.running, pulled) == (0, list(range(6)))


# -- backpressure ----------------------------------------------------------------------------------------------------


async def test_items_are_pulled_only_when_there_is_room(autojump_clock: trio.testing.MockClock) -> None:
    """An endless supply is read as far as it is needed."""
    pulled: list[int] = []

    def items() -> Iterator[float]:
        while True:
            pulled.append(1)
            yield 10.0

    with trio.move_on_after(5):
        await gather(Work(), items(), max_concurrency=4)
    assert len(pulled) == 4


async def test_a_slow_consumer_stops_the_pulling(autojump_clock: trio.testing.MockClock) -> None:
    """An item keeps its place until its outcome is taken."""
    pulled: list[int] = []

    def items() -> Iterator[float]:
        while len(pulled) < 100:
            pulled.append(1)
            yield 0.0

    async def done(_index: int, _item: float, _outcome: str | WizardError) -> None:
        await trio.sleep(10)

    with trio.move_on_after(25):
        await run_batch(Work(), items(), max_concurrency=2, done=done)
    assert len(pulled) == 6


async def test_an_idle_supply_does_not_hold_outcomes_up(autojump_clock: trio.testing.MockClock) -> None:
    """An outcome is handed over while the next item is still awaited."""
    taken: list[tuple[int, float]] = []

    async def items() -> AsyncIterator[float]:
        yield 1.0
        await trio.sleep(60)
        yield 1.0

    async def done(index: int, _item: float, _outcome: str | WizardError) -> None:
        taken.append((index, trio.current_time() - began))

    began = trio.current_time()
    assert await run_batch(Work(), items(), max_concurrency=1, done=done) == 2
    assert taken[0] == (0, 1.0)


# -- patience --------------------------------------------------------------------------------------------------------


def refusal(seconds: float | None) -> RateLimitError:
    """Return the limiter's."""
    return RateLimitError("at its limit", model="a", retry_after=seconds, source="limiter")


@define
class Shop:
    """Answers from the instant `opens` on, and refuses before it; remembers when it was asked, and within what time."""

    opens: float
    takes: float = 0.0
    asked: list[tuple[float, float | None]] = Factory(list)

    async def __call__(self, item: float, /, *, deadline: float | None) -> WizardResponse:
        now = trio.current_time()
        self.asked.append((now, deadline))
        await trio.lowlevel.checkpoint()
        if now < self.opens:
            raise refusal(self.opens - now)
        with trio.move_on_after(math.inf if deadline is None else deadline):
            await trio.sleep(self.takes)
            return WizardResponse(str(item), "a")
        raise DeadlineExceededError("late", deadline=deadline)


async def test_nobody_asks_before_the_instant_that_a_refusal_names(autojump_clock: trio.testing.MockClock) -> None:
    """Then one goes first, the others follow a moment apart, in their order."""
    shop = Shop(trio.current_time() + 30.0)
    patient = Patient(shop, rng=Random(1))
    outcomes = await gather(patient, range(20), max_concurrency=5)
    assert [each.text for each in outcomes if isinstance(each, WizardResponse)] == [str(n) for n in range(20)]
    times = [at for at, _ in shop.asked if at > shop.asked[0][0]]
    assert min(times) >= shop.opens
    assert times[1] - times[0] > 0.01


async def test_a_deadline_runs_from_the_first_asking_and_includes_waits(autojump_clock: trio.testing.MockClock) -> None:
    """What is left of it goes to the next asking, and an error names the whole of it."""
    shop = Shop(trio.current_time() + 3.0, takes=100.0)
    [outcome] = await gather(Patient(shop, rng=Random(1), deadline=10.0), [1], max_concurrency=1)
    assert isinstance(outcome, DeadlineExceededError)
    assert outcome.deadline == 10.0
    assert shop.asked[0][1] == 10.0
    assert shop.asked[1][1] == pytest.approx(7.0, abs=0.2)
    assert trio.current_time() == pytest.approx(shop.asked[0][0] + 10.0)


async def test_a_wait_beyond_the_deadline_is_not_begun(autojump_clock: trio.testing.MockClock) -> None:
    """The refusal is the outcome, at once; the next item waits at the gate in its own time, and is answered."""
    shop = Shop(trio.current_time() + 30.0)
    began = trio.current_time()
    refused, answered = await gather(Patient(shop, rng=Random(1), deadline=10.0), [1, 2], max_concurrency=1)
    assert isinstance(refused, RateLimitError)
    assert isinstance(answered, WizardResponse)
    assert len(shop.asked) == 2
    assert trio.current_time() - began >= 30.0


async def test_a_gate_that_is_shut_again_ends_a_wait_at_its_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """With the refusal that it had."""
    calls = 0

    async def ask(item: float, /, *, deadline: float | None) -> WizardResponse:
        nonlocal calls
        calls += 1
        await trio.sleep(item / 10)
        raise refusal(1.0 if item == 1 else 8.0)

    began = trio.current_time()
    outcomes = await gather(Patient(ask, rng=Random(1), deadline=5.0), [1, 2], max_concurrency=2)
    assert all(isinstance(each, RateLimitError) for each in outcomes)
    assert (calls, trio.current_time() - began) == (2, 5.0)


async def test_a_wait_of_ten_minutes_is_the_longest(autojump_clock: trio.testing.MockClock) -> None:
    """A refusal that names more is the outcome."""
    shop = Shop(trio.current_time() + 700.0)
    [outcome] = await gather(Patient(shop, rng=Random(1)), [1], max_concurrency=1)
    assert isinstance(outcome, RateLimitError)
    assert len(shop.asked) == 1


async def test_named_waits_are_told(autojump_clock: trio.testing.MockClock) -> None:
    """With the refusal and the seconds."""
    told: list[tuple[str, float]] = []
    shop = Shop(trio.current_time() + 30.0)
    patient = Patient(shop, rng=Random(1), waits=lambda error, seconds: told.append((error.code, seconds)))
    await gather(patient, [1], max_concurrency=1)
    assert told == [("rate_limit", 30.0)]


async def test_a_cancelled_wait_lets_the_next_one_through(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever stands first at the gate may go without holding it up."""
    shop = Shop(trio.current_time() + 30.0)
    patient, answered = Patient(shop, rng=Random(1)), list[str]()

    async def ask(item: float, patience: float) -> None:
        with trio.move_on_after(patience):
            answered.append((await patient(item)).text)

    async with trio.open_nursery() as nursery:
        for number, patience in enumerate((5.0, 6.0, 60.0)):
            nursery.start_soon(ask, number, patience)
            await trio.testing.wait_all_tasks_blocked()
    assert answered == ["2"]
