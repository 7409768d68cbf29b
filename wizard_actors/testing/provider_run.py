"""One run of a provider against an upstream that does as it is told, and what has to be as before when it is over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from itertools import count
from random import Random
from typing import ClassVar, Final, Protocol, TypeAlias
from unittest import SkipTest

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wizard_actors.client import ResilientClient
from wizard_actors.config import ModelConfig, RetryConfig, SimulatedConfig, TimeoutsConfig, WizardConfig
from wizard_actors.errors import WizardError
from wizard_actors.providers.base import Answer, Call, Provider
from wizard_actors.streaming import Assembly
from wizard_actors.types import Finished, LimitHeaders, ModelEvent, Prompt, TextDelta

__all__ = [
    "BREAKS",
    "CALL",
    "FAILURES",
    "MOST_READS",
    "PACE",
    "REFUSALS",
    "SPARE",
    "SWALLOWED",
    "WORDS",
    "Act",
    "Bench",
    "Trial",
    "another",
    "cancel",
    "client_of",
    "finished",
    "outcome",
    "promised",
    "quick",
    "read_all",
    "step",
    "text",
    "whole",
]

PACE: Final = 1.0
"""Seconds that a slow upstream waits before each piece."""

QUICK: Final = 0.25
"""Seconds within which an exchange is closed."""

LONGEST: Final = 300.0
"""Seconds after which a test gives up: something waits for ever."""

MOST_READS: Final = 10_000
"""Reads after which an answer counts as one without end."""

CALL: Final = Call(Prompt("Why?"), "contract-1")
SPARE: Final = "The spare model answers."
WORDS: Final = "because \N{LATIN SMALL LETTER E WITH ACUTE} \N{MAGE}."
"""What the answers of an upstream that can say anything end with: characters of one, two and four bytes in UTF-8."""

SWALLOWED: Final = "the call went on though its caller was cancelled: never catch trio.Cancelled without raising it on"


class Act(StrEnum):
    """What an upstream does with one call."""

    ANSWERS = "answers"
    """It sends the whole answer, at once."""
    SLOW = "slow"
    """It sends the head at once, then the whole answer in small pieces, each after `PACE` seconds. A piece may hold
    half an event, or nothing that is one."""
    JOINED = "joined"
    """It sends the whole answer at once, in a single piece."""
    TORN = "torn"
    """It sends the whole answer at once, torn into the smallest pieces there are, characters torn apart as well."""
    CUT = "cut"
    """It begins the answer, then the connection breaks."""
    ENDS_EARLY = "ends_early"
    """It begins the answer, then the body ends in good order, without the sign that the answer is complete."""
    STALLS = "stalls"
    """It begins the answer, then says nothing until its client leaves."""
    SILENT = "silent"
    """It takes the request and says nothing, not even a head, until its client leaves."""
    UNREACHABLE = "unreachable"
    """There is no connection."""
    GARBAGE = "garbage"
    """It sends what the protocol does not know, under a head that promises an answer."""
    REFUSES_KEY = "refuses_key"
    """It refuses the key."""
    LIMITED = "limited"
    """It says that the account has reached its limit."""
    FAILS = "fails"
    """It says that it has failed."""


class Bench(Protocol):
    """A provider, and the upstream behind it."""

    @property
    def provider(self) -> Provider:
        """The provider to try out."""

    @property
    def sent(self) -> int:
        """How many requests have reached upstream."""

    @property
    def held(self) -> int:
        """How many exchanges upstream still holds: begun, and neither at their end nor closed by the client."""

    def asked(self, number: int) -> str | None:
        """Return what request `number` said when it reached upstream, from 0; None where upstream cannot tell."""

    def text(self, number: int) -> str:
        """Return what the whole answer to call `number` says, from 0 in the order in which the calls are opened."""


REFUSALS: Final = (Act.REFUSES_KEY, Act.LIMITED, Act.FAILS)
BREAKS: Final = (Act.CUT, Act.ENDS_EARLY)
FAILURES: Final = (*REFUSALS, *BREAKS, Act.GARBAGE, Act.UNREACHABLE)
"""What no answer comes of, and what ends by itself."""

Scenario: TypeAlias = Callable[[Bench], Awaitable[None]]


class Trial:
    """What a subclass fills in, and how a test runs."""

    key: ClassVar[str] = ""
    retry_after: ClassVar[float | None] = None
    unsupported: ClassVar[Sequence[Prompt]] = ()

    def bench(self, *acts: Act) -> AbstractAsyncContextManager[Bench]:
        """Return a provider and its upstream, which does `acts` with the calls it gets, in order; then it ANSWERS."""
        raise NotImplementedError("bench() says how to set up the provider and its upstream")

    def has(self, act: Act) -> bool:
        """Say whether the protocol has this, and upstream can do it. ANSWERS is needed."""
        return True

    def clock(self) -> trio.abc.Clock | None:
        """Return the clock of each test: a virtual one. None, the real one, is for an upstream with sockets."""
        return MockClock(autojump_threshold=0)

    # -- how a test runs

    def expect(self, act: Act, kind: type[WizardError]) -> WizardError:
        """Let upstream do `act`, and return the error of that kind which comes of it."""
        found: list[WizardError] = []

        async def scenario(bench: Bench) -> None:
            _events, error = await outcome(bench)
            promised(isinstance(error, kind), f"{act.name} is a {kind.__name__}, not {error!r}")
            found.extend([error] if error is not None else [])

        self.play(scenario, act)
        return found[0]

    def play_each(self, scenario: Scenario, acts: Sequence[Act]) -> None:
        """Play `scenario` once for each of the `acts` that upstream can do."""
        able = [act for act in acts if self.has(act)]
        if not able:
            raise SkipTest(f"the protocol has none of {', '.join(acts)}")
        for act in able:
            try:
                self.play(scenario, act)
            except AssertionError as error:
                raise AssertionError(f"where upstream does {act.name}: {error}") from error

    def play(self, scenario: Scenario, *acts: Act) -> None:
        """Play `scenario` at a bench whose upstream does `acts`, and look for what is left afterwards."""
        for act in acts:
            if not self.has(act):
                raise SkipTest(f"the protocol has no {act.name}")

        async def main() -> None:
            with trio.fail_after(LONGEST):
                async with self.bench(*acts) as bench:
                    before = _tasks()
                    await scenario(bench)
                    await _nothing_left(bench, before)

        try:
            trio.run(main, clock=self.clock())
        except trio.TooSlowError as error:
            raise AssertionError(f"after {LONGEST:g} s it still waited for something") from error
        except BaseExceptionGroup as group:
            raise _single(group) from group


# -- steps of a test -----------------------------------------------------------------------------------


def promised(kept: bool, promise: str) -> None:
    """Fail with `promise`, which says what was broken and what to do, unless it was kept."""
    if not kept:
        raise AssertionError(promise)


async def step(answer: Answer) -> Sequence[ModelEvent] | None:
    """Read once, and look at what is returned."""
    events = await answer.read()
    if events is not None:
        try:
            Assembly().extend(events)
        except TypeError as error:
            raise AssertionError(f"what read() returned is a bug to a client: {error}") from error
    return events


def another(reads: int) -> bool:
    """Return True, or fail where an answer has no end after so many `reads`."""
    promised(
        reads < MOST_READS,
        f"after {MOST_READS} reads the answer has no end: read() returns None at the body's end, however early it "
        "comes, and waits wherever it has nothing to return",
    )
    return True


async def read_all(answer: Answer, into: list[ModelEvent] | None = None) -> list[ModelEvent]:
    """Read to the end, into a list that the caller may have: it holds what came before an error."""
    events = [] if into is None else into
    for reads in count():
        another(reads)
        got = await step(answer)
        if got is None:
            break
        events.extend(got)
    return events


async def whole(bench: Bench) -> list[ModelEvent]:
    """Ask once, and return everything that is answered."""
    async with bench.provider.open(CALL) as answer:
        return await read_all(answer)


async def outcome(bench: Bench) -> tuple[list[ModelEvent], WizardError | None]:
    """Ask once, and return what is answered until an error comes, and the error."""
    events: list[ModelEvent] = []
    try:
        async with bench.provider.open(CALL) as answer:
            await read_all(answer, events)
    except WizardError as error:
        return events, error
    return events, None


def text(events: Sequence[ModelEvent]) -> str:
    """Return the text in `events`."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def finished(events: Sequence[ModelEvent]) -> int:
    """Return how many signs of completeness `events` hold."""
    return sum(isinstance(event, Finished) for event in events)


def quick(start: float) -> None:
    """Fail where more time has passed since `start` than closing may take."""
    took = trio.current_time() - start
    promised(took <= QUICK, f"closing took {took:.3g} s: read no answer to its end on the way out, close it")


async def cancel(call: Callable[[trio.CancelScope], Awaitable[None]]) -> None:
    """Run `call` in a task, cancel it from another one once it waits for its upstream, and check how it ends."""
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await call(scope)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(PACE)
        start = trio.current_time()
        scope.cancel()
    promised(scope.cancelled_caught, SWALLOWED)
    quick(start)


def client_of(bench: Bench) -> AbstractAsyncContextManager[ResilientClient]:
    """Return a client of the provider, named "yours", with a spare model behind it; little patience, no retries."""
    timeouts = TimeoutsConfig(first_token=10 * PACE, stall=1.5 * PACE, total=60 * PACE)
    yours = ModelConfig(name="yours", provider="custom", timeouts=timeouts, retry=RetryConfig(max_attempts=1))
    spare = ModelConfig(name="spare", provider="simulated", simulated=SimulatedConfig(answer=SPARE))
    config = WizardConfig(models=[yours, spare])
    return ResilientClient.open(config, rng=Random(1), providers={"yours": _Ending(bench.provider)})


class _Ending:
    """The provider, and an end to answers that have none: under a virtual clock no deadline would pass meanwhile."""

    def __init__(self, inner: Provider) -> None:
        self._inner = inner

    @property
    def streams(self) -> bool:
        return self._inner.streams

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Answer]:
        async with self._inner.open(call) as answer:
            yield _EndingAnswer(answer)


class _EndingAnswer:
    def __init__(self, inner: Answer) -> None:
        self._inner = inner
        self._reads = 0

    @property
    def limits(self) -> LimitHeaders | None:
        return self._inner.limits

    @property
    def upstream_model(self) -> str | None:
        return self._inner.upstream_model

    @property
    def upstream_id(self) -> str | None:
        return self._inner.upstream_id

    async def read(self) -> Sequence[ModelEvent] | None:
        self._reads += another(self._reads)
        return await self._inner.read()


# -- what is left ----------------------------------------------------------------------------------------


def _tasks() -> list[trio.lowlevel.Task]:
    """Return every task of this run."""
    root = trio.lowlevel.current_root_task()
    found = [] if root is None else [root]
    for task in found:
        found.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return found


async def _nothing_left(bench: Bench, before: Sequence[trio.lowlevel.Task]) -> None:
    with trio.move_on_after(PACE):  # what goes over a socket takes a moment to arrive
        while bench.held:  # noqa: ASYNC110 - upstream counts, and sends no event
            await trio.sleep(PACE / 100)
    promised(
        bench.held == 0,
        f"after the calls upstream still holds {bench.held}: close the exchange in __aexit__, and where __aenter__ "
        "fails or is cancelled, shielded from cancellation",
    )
    await wait_all_tasks_blocked()
    left = [task.name for task in _tasks() if task not in before]
    promised(not left, f"after the calls there are tasks left: {', '.join(left)}")


def _single(error: BaseException) -> BaseException:
    """Return what a group of one holds."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
