"""The official SDKs as clients of a server on loopback whose first model fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeVar

import trio
from anthropic import Anthropic
from anthropic import DefaultHttpxClient as AnthropicHttp
from attrs import frozen
from openai import DefaultHttpxClient as OpenAIHttp
from openai import OpenAI
from pydantic import BaseModel

from tests.models import Scripted, Turn, fails, model
from tests.server.http_asked import listened
from tests.server.http_wire import Served, served
from wizard_actors import ModelConfig
from wizard_actors.config import RetryConfig
from wizard_actors.errors import ProviderError
from wizard_actors.providers.base import Answer, Call
from wizard_actors.server.key_settings import KeyConfig
from wizard_actors.types import Prompt

__all__ = ["DOWN", "ONCE", "PIXEL", "WEATHER", "Sdks", "Sentence", "Watched", "beside"]

T = TypeVar("T")

ONCE: Final = RetryConfig(max_attempts=1)

PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

WEATHER: Final[dict[str, object]] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


class Sentence(BaseModel):
    """What a model is to write."""

    subject: str
    words: int


class Watched(Scripted):
    """A scripted model that keeps the prompts it was asked with."""

    def __init__(self, *turns: Turn) -> None:
        super().__init__(*turns)
        self.prompts: list[Prompt] = []

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        self.prompts.append(call.prompt)
        return super().open(call)


@frozen
class Sdks:
    """A server on `port`, its models, and what speaks to it, unmodified, as its users have it."""

    server: Served
    port: int
    first: Watched
    second: Watched

    def openai(self, key: str = "none") -> OpenAI:
        """Return OpenAI's client, with its own settings but for a shorter patience."""
        return OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1",
            api_key=key,
            timeout=10,
            http_client=OpenAIHttp(trust_env=False),
        )

    def anthropic(self, key: str = "none") -> Anthropic:
        """Return Anthropic's client, in the same way."""
        return Anthropic(
            base_url=f"http://127.0.0.1:{self.port}",
            api_key=key,
            timeout=10,
            http_client=AnthropicHttp(trust_env=False),
        )

    async def ask_openai(self, ask: Callable[[OpenAI], T], key: str = "none") -> T:
        """Use OpenAI's client in a thread."""

        def use() -> T:
            with self.openai(key) as client:
                return ask(client)

        return await trio.to_thread.run_sync(use)

    async def ask_anthropic(self, ask: Callable[[Anthropic], T], key: str = "none") -> T:
        """Use Anthropic's client in a thread."""

        def use() -> T:
            with self.anthropic(key) as client:
                return ask(client)

        return await trio.to_thread.run_sync(use)

    async def left(self) -> float:
        """Wait until no call is open; return after how many seconds."""
        began = trio.current_time()
        with trio.fail_after(5):
            while self.first.in_flight or self.second.in_flight:  # noqa: ASYNC110 - sockets, and no event of ours
                await trio.sleep(0.005)
        return trio.current_time() - began


DOWN: Final = fails(ProviderError("down", model="first", status=500))


@asynccontextmanager
async def beside(
    *turns: Turn,
    first: Sequence[Turn] = (DOWN,),
    keys: Sequence[KeyConfig] | None = None,
    tables: Sequence[ModelConfig] | None = None,
) -> AsyncIterator[Sdks]:
    """Serve a model "first", which plays `first`: it fails, and beside it "second", which plays `turns`."""
    models = {"first": Watched(*first), "second": Watched(*turns)}
    tables = tables or [model(name, retry=ONCE) for name in models]
    with trio.fail_after(20):
        async with served(models, *tables, keys=keys) as server:
            sdks = Sdks(server, await listened(server), **models)
            yield sdks
            await sdks.left()
            await trio.testing.wait_all_tasks_blocked(0.005)
            assert server.client.supervisor.outstanding == {}
