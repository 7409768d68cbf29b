"""Scripted models for the tests of the request's way, and short ways to open clients of them and to look inside.

A scripted model plays one `Turn` a call, in order, and the last one for ever. A turn is a list of steps:

    "text"              one chunk of text                 5.0             wait so many seconds
    TextDelta(...)      one event                         NetworkError()  raise
    (event, event)      several events in one read        DONE            the model's sign that it is complete

What a turn does not end by `DONE` is truncated.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from types import TracebackType
from typing import Final, TypeAlias, TypeVar

import trio
from attrs import define, field, frozen
from trio.testing import wait_all_tasks_blocked

from wizard_actors import ModelConfig, ResilientClient, TextDelta, TokenUsage, WizardConfig, WizardError, WizardResponse
from wizard_actors.breaker_core import BreakerState
from wizard_actors.config import (
    BatchConfig,
    BreakerConfig,
    CacheConfig,
    LoggingConfig,
    PriceConfig,
    RateLimitConfig,
    RetryBudgetConfig,
    RetryConfig,
    RouteConfig,
    ServerConfig,
    SessionsConfig,
    SimulatedConfig,
    Strategy,
    StreamConfig,
    SupervisionConfig,
    TimeoutsConfig,
)
from wizard_actors.event_stream import EventStream
from wizard_actors.gcra import LimiterState
from wizard_actors.providers.base import Answer, Call, Provider
from wizard_actors.slots import WorkerState
from wizard_actors.specs import TreeNode
from wizard_actors.storage.opening import Opener
from wizard_actors.types import Finished, FinishReason, LimitHeaders, ModelEvent, UsageUpdate

Step: TypeAlias = str | float | ModelEvent | tuple[ModelEvent, ...] | Exception

DONE: Final = Finished(FinishReason.STOP, "stop")
USAGE: Final = UsageUpdate(TokenUsage(input_tokens=10, output_tokens=5))


@frozen
class Turn:
    """One call: `head` seconds until the response's head, or an error in its place; then `steps`.

    `limits` are the head's; `closing` is how long leaving takes, in seconds, or what it raises.
    """

    steps: tuple[Step, ...] = ()
    head: float | Exception = 0.0
    limits: LimitHeaders | None = None
    closing: float | Exception = 0.0


def says(*steps: Step) -> Turn:
    """Return a turn that ends well after `steps`."""
    return Turn((*steps, DONE))


def cut(*steps: Step) -> Turn:
    """Return a turn whose body ends after `steps`, without a sign that it is complete."""
    return Turn(steps)


def fails(error: Exception) -> Turn:
    """Return a turn that is refused."""
    return Turn((error,))


SILENT: Final = Turn(head=math.inf)
"""Never a head."""


@define(eq=False)
class Seen:
    """One call as the model saw it; `closed` once its exchange was left, under `left_with`."""

    request_id: str
    prompt: str
    start: float
    end: float = math.inf
    opened: bool = False
    closed: bool = False
    left_with: type[BaseException] | None = None


class Scripted:
    """A model that plays `turns`. `on_open` is called as each call begins, with what can be known of it."""

    def __init__(self, *turns: Turn, streams: bool = True, on_open: Callable[[Seen], None] | None = None) -> None:
        self.turns = list(turns) or [says("Hello")]
        self.streams = streams
        self.on_open = on_open
        self.calls: list[Seen] = []

    @property
    def in_flight(self) -> int:
        """Calls that have begun and not been left."""
        return sum(not call.closed for call in self.calls)

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Begin a call."""
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        seen = Seen(call.request_id, "".join(message.text for message in call.prompt.conversation), trio.current_time())
        return _Exchange(self, turn, seen)


class _Exchange(AbstractAsyncContextManager[Answer]):
    def __init__(self, model: Scripted, turn: Turn, seen: Seen) -> None:
        self._model, self._turn, self._seen = model, turn, seen

    async def __aenter__(self) -> Answer:
        self._model.calls.append(self._seen)
        if self._model.on_open is not None:
            self._model.on_open(self._seen)
        try:
            await self._head(self._turn.head)
        except BaseException as error:
            self._leave(type(error))
            raise
        self._seen.opened = True
        return _Answer(self._turn)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closing = self._turn.closing
        try:
            if isinstance(closing, Exception):
                raise closing
            with trio.CancelScope(shield=True):
                await trio.sleep(closing)
        finally:
            self._leave(kind)

    async def _head(self, head: float | Exception) -> None:
        if isinstance(head, Exception):
            raise fresh(head)
        await trio.sleep(head)

    def _leave(self, kind: type[BaseException] | None) -> None:
        self._seen.left_with = kind
        self._seen.closed, self._seen.end = True, trio.current_time()


class _Answer:
    def __init__(self, turn: Turn) -> None:
        self._steps: Iterator[Step] = iter(turn.steps)
        self.limits = turn.limits
        self.upstream_model: str | None = "upstream"
        self.upstream_id: str | None = "id"

    async def read(self) -> Sequence[ModelEvent] | None:
        for step in self._steps:
            if isinstance(step, Exception):
                await trio.lowlevel.checkpoint()
                raise fresh(step)
            if isinstance(step, (int, float)):
                await trio.sleep(step)
                continue
            await trio.lowlevel.checkpoint()
            if isinstance(step, str):
                return (TextDelta(step),)
            return step if isinstance(step, tuple) else (step,)
        await trio.lowlevel.checkpoint()
        return None


def fresh(error: Exception) -> Exception:
    """Return an error of the same news: a model that fails twice does not raise one object twice."""
    if not isinstance(error, WizardError):
        return error
    news = error.copy()
    news.__cause__ = error.__cause__
    return news


# -- configurations ----------------------------------------------------------------------------------------------------

NO_JITTER: Final = RetryConfig(base_delay=0.0)
"""Retries at once: for tests that are not about delays."""


def model(
    name: str = "a",
    *,
    slots: int = 32,
    window: int | None = None,
    enabled: bool = True,
    timeouts: TimeoutsConfig | None = None,
    retry: RetryConfig | None = None,
    breaker: BreakerConfig | None = None,
    limit: RateLimitConfig | None = None,
    price: PriceConfig | None = None,
    simulated: SimulatedConfig | None = None,
) -> ModelConfig:
    """Return the configuration of a simulated model."""
    return ModelConfig(
        name=name,
        provider="simulated",
        enabled=enabled,
        max_concurrency=slots,
        context_window=window,
        timeouts=timeouts or TimeoutsConfig(),
        retry=retry or RetryConfig(),
        circuit_breaker=breaker or BreakerConfig(),
        rate_limit=limit or RateLimitConfig(),
        price=price,
        simulated=simulated,
    )


@asynccontextmanager
async def client_of(
    providers: Mapping[str, Provider] | Provider,
    *models: ModelConfig,
    seed: int = 1,
    spill: bool = False,
    strategy: Strategy = "sequential",
    route: RouteConfig | None = None,
    cache: CacheConfig | None = None,
    batch: BatchConfig | None = None,
    routes: Sequence[RouteConfig] = (),
    stream: StreamConfig | None = None,
    server: ServerConfig | None = None,
    supervision: SupervisionConfig | None = None,
    budget: RetryBudgetConfig | None = None,
    logging: LoggingConfig | None = None,
    sessions: SessionsConfig | None = None,
    events: EventStream | None = None,
    storage: Opener | None = None,
) -> AsyncIterator[ResilientClient]:
    """Open a client of `providers` by name, or of one named "a"; models that are not given are `model(name)`."""
    by_name = providers if isinstance(providers, Mapping) else {"a": providers}
    config = WizardConfig(
        models=models or [model(name) for name in by_name],
        fallback=route or RouteConfig(name="wizard", spill=spill, strategy=strategy),
        routes=routes,
        cache=cache or CacheConfig(),
        batch=batch or BatchConfig(),
        stream=stream or StreamConfig(),
        server=server or ServerConfig(),
        supervision=supervision or SupervisionConfig(),
        retry_budget=budget or RetryBudgetConfig(),
        logging=logging or LoggingConfig(),
        sessions=sessions or SessionsConfig(storage="memory:"),
    )
    async with ResilientClient.open(
        config, rng=Random(seed), providers=by_name, events=events, storage=storage
    ) as client:
        yield client


# -- looking inside ----------------------------------------------------------------------------------------------------


async def limiter(client: ResilientClient, name: str = "a") -> LimiterState:
    """Return what the limiter of a model publishes once all is quiet."""
    await wait_all_tasks_blocked()
    return _seen(client.supervisor.ref(f"models/model:{name}/limiter", LimiterState).published)


async def breaker(client: ResilientClient, name: str = "a") -> BreakerState:
    """Return what the breaker of a model publishes once all is quiet."""
    await wait_all_tasks_blocked()
    return _seen(client.supervisor.ref(f"models/model:{name}/breaker", BreakerState).published)


async def worker(client: ResilientClient, name: str = "a") -> WorkerState:
    """Return what the worker of a model publishes once all is quiet."""
    await wait_all_tasks_blocked()
    return _seen(client.supervisor.ref(f"models/model:{name}/worker", WorkerState).published)


S = TypeVar("S")


def _seen(state: S | None) -> S:
    assert state is not None
    return state


def node(client: ResilientClient, path: str) -> TreeNode:
    """Return a node of the client's tree, by its path below the root."""
    return next(found for found in client.tree().walk() if found.path == f"wizard/{path}")


async def assert_nothing_held(client: ResilientClient, *providers: Scripted) -> None:
    """Everything granted has been given back, and no exchange is open."""
    await wait_all_tasks_blocked()
    assert client.supervisor.outstanding == {}
    for config in client.config.models:
        if config.enabled:
            slots = await worker(client, config.name)
            assert (slots.in_use, slots.waiting) == (0, 0)
            assert (await breaker(client, config.name)).in_flight == 0
            assert (await limiter(client, config.name)).waiting == 0
    assert [provider.in_flight for provider in providers] == [0] * len(providers)


# -- callers -----------------------------------------------------------------------------------------------------------


@define
class Calls:
    """What became of calls that run in tasks of their own: answers and errors, in the order in which they ended."""

    answers: list[WizardResponse] = field(factory=list)
    errors: list[Exception] = field(factory=list)

    async def generate(
        self, client: ResilientClient, prompt: str = "Why?", *, deadline: float | None = None, model: str | None = None
    ) -> None:
        """Ask, and keep what comes of it."""
        try:
            self.answers.append(await client.generate(prompt, deadline=deadline, model=model))
        except Exception as error:  # noqa: BLE001 - kept, for the test to judge
            self.errors.append(error)
