"""A `BlockingClient` behind the methods of a `ResilientClient`, so that what is written for one runs with the other.

None of these coroutines ever suspends: `drive` runs a whole program of them in a plain thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import ParamSpec, Self, TypeVar, Unpack, cast

from wizard_actors import BlockingClient, Prompt, StreamEvent, Structured, WizardError, WizardResponse
from wizard_actors.ask_options import AskOptions
from wizard_actors.blocking_stream import BlockingStream
from wizard_actors.cache import CacheState
from wizard_actors.metrics import MetricsSnapshot
from wizard_actors.specs import TreeNode
from wizard_actors.trio_client import Progress, Prompts, Warmed

T = TypeVar("T")
P = ParamSpec("P")


def drive(program: Coroutine[object, object, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        program.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    program.close()
    raise AssertionError("this behaviour waits for an event loop, and there is none in a plain thread")


class Awaited:
    """The client."""

    def __init__(self, client: BlockingClient) -> None:
        self.blocking = client
        self.config, self.events, self.supervisor = client.config, client.events, client.supervisor

    async def generate(self, prompt: str | Prompt, **options: Unpack[AskOptions]) -> WizardResponse:
        return self.blocking.generate(prompt, **options)

    async def generate_as(self, prompt: str | Prompt, kind: type[T], **options: Unpack[AskOptions]) -> Structured[T]:
        return self.blocking.generate_as(prompt, kind, **options)

    def stream(self, prompt: str | Prompt, *, delivery: str | None = None, **options: Unpack[AskOptions]) -> Stream:
        return Stream(self.blocking.stream(prompt, delivery=delivery, **options))  # type: ignore[arg-type]  # on purpose

    async def generate_batch(
        self,
        prompts: Prompts,
        *,
        max_concurrency: int | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[AskOptions],
    ) -> list[WizardResponse | WizardError]:
        return self.blocking.generate_batch(
            cast("Iterable[str | Prompt]", prompts), max_concurrency=max_concurrency, on_progress=on_progress, **options
        )

    async def run(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        return self.blocking.run(function, *args, **kwargs)

    async def warm(
        self,
        prompts: Prompts,
        *,
        max_concurrency: int | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[AskOptions],
    ) -> Warmed:
        plain = cast("Iterable[str | Prompt]", prompts)  # what is not is refused, which is tested
        return self.blocking.warm(plain, max_concurrency=max_concurrency, on_progress=on_progress, **options)

    async def invalidate(self, model: str = "*", text: str = "*") -> int:
        return self.blocking.invalidate(model, text)

    def tree(self) -> TreeNode:
        return self.blocking.tree()

    def metrics(self) -> MetricsSnapshot:
        return self.blocking.metrics()

    @property
    def cache(self) -> CacheState | None:
        return self.blocking.cache


class Stream:
    """One of its streams."""

    def __init__(self, stream: BlockingStream) -> None:
        self._stream = stream
        self.request_id = stream.request_id

    @property
    def response(self) -> WizardResponse:
        return self._stream.response

    def text(self) -> Text:
        return Text(self._stream.text())

    async def __aenter__(self) -> Self:
        self._stream.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.__exit__(kind, error, trace)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        try:
            return next(self._stream)
        except StopIteration:
            raise StopAsyncIteration from None


class Text:
    """Its text."""

    def __init__(self, text: Iterator[str]) -> None:
        self._text = text

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        try:
            return next(self._text)
        except StopIteration:
            raise StopAsyncIteration from None
