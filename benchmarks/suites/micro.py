"""What the pieces of a call cost by themselves: decisions, keys, bytes in and bytes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from random import Random
from typing import Final

from attrs import frozen

from benchmarks.figure import Figure
from benchmarks.suites._measure import Rounds, together
from wizard_actors.breaker_core import BreakerCore, Permit
from wizard_actors.cache_key import cache_key
from wizard_actors.config import BreakerConfig, ModelConfig, RateLimitConfig
from wizard_actors.gcra import GcraCore, Grant
from wizard_actors.lru import TtlLru
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.base import Call
from wizard_actors.providers.http_provider import HttpSettings, endpoint
from wizard_actors.providers.openai_chunks import ChunkReader
from wizard_actors.providers.openai_wire import ChatWire
from wizard_actors.providers.refusals import Head
from wizard_actors.streaming import SseDecoder
from wizard_actors.types import Prompt
from wizard_actors.verdict import Outcome

__all__ = ["ANSWER", "CHUNK", "Size", "figures"]

PROMPT: Final = Prompt("Why is the sky blue at noon, and red in the evening? " * 19, system="Be brief.")
"""About 1 KB."""
CHUNK: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
)
ANSWER: Final = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"' + b"All is well, says the model. " * 21 + b'"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":12,"completion_tokens":140,"total_tokens":152}}'
)
"""About 0.9 KB, with its head."""
ENTRIES: Final = 1_000
HEAD: Final = Head(model="m", status=200)
MODELS: Final = tuple(ModelConfig(name=name, provider="openai", api_key_env="UNUSED") for name in ("one", "two"))


@frozen
class Size:
    """How much is measured: so many `rounds`, of so many `runs` of each piece."""

    rounds: int = 15
    runs: int = 2_000


def deciding() -> Callable[[], object]:
    """Return a decision of the limiter: a request goes at once, and is settled as it was estimated."""
    limits = RateLimitConfig(requests_per_minute=1e7, tokens_per_minute=1e10, burst=1_000_000)
    core: GcraCore[int] = GcraCore(limits)
    clock = count()

    def decide() -> None:
        now = next(clock) / 1_000.0
        grant = core.acquire(1, now, math.inf, tokens=100)
        if not isinstance(grant, Grant):
            raise TypeError(f"the limiter was to let every request go, not to say {grant!r}")
        core.settle(grant, 100, now)

    return decide


def admitting() -> Callable[[], object]:
    """Return a breaker's leave for one call, and the call's end."""
    core, clock = BreakerCore(BreakerConfig(), Random(1)), count()

    def admit() -> None:
        now = next(clock) / 1_000.0
        permit = core.admit(now)
        if not isinstance(permit, Permit):
            raise TypeError(f"the breaker was to admit every call, not to say {permit!r}")
        core.settle(permit, Outcome.SUCCESS, now)

    return admit


def getting() -> Callable[[], object]:
    """Return a look into a full store."""
    store: TtlLru[str] = TtlLru(max_entries=ENTRIES, max_bytes=2**30, ttl=3600.0)
    for number in range(ENTRIES):
        store.put(number.to_bytes(32, "big"), "an answer", 9, 0.0)
    numbers = count()
    return lambda: store.get((next(numbers) % ENTRIES).to_bytes(32, "big"), 1.0)


def decoding() -> Callable[[], object]:
    """Return the decoding of one server-sent event."""
    decoder = SseDecoder()
    return lambda: decoder.feed(CHUNK)


def chunk_reading() -> Callable[[], object]:
    """Return what becomes of one streamed chunk's bytes: an event of the model."""
    parser = AnswerParser(HEAD, ChunkReader(HEAD), content_type="text/event-stream")
    return lambda: parser.feed(CHUNK)


def writing() -> Callable[[], object]:
    """Return the writing of a request."""
    settings = HttpSettings(name="m", model="m", base_url="http://127.0.0.1:9/v1")
    wire, call = ChatWire.of(settings, endpoint(settings, "/chat/completions")), Call(PROMPT, "0f3c2a")
    return lambda: wire.request(call)


def parse() -> None:
    """Read a whole answer."""
    parser = AnswerParser(HEAD, ChunkReader(HEAD), content_type="application/json")
    parser.feed(ANSWER)
    parser.close()
    if parser.failure is not None:
        raise parser.failure


def pieces() -> Mapping[str, Callable[[], object]]:
    """Return each piece by its name, ready to be run again and again."""
    return {
        "rate limit decision and its settlement": deciding(),
        "breaker admission and its end": admitting(),
        "cache key of a 1 KB prompt": lambda: cache_key(PROMPT, MODELS),
        "look into the LRU store": getting(),
        "server-sent event decoded": decoding(),
        "streamed chunk read": chunk_reading(),
        "request written, 1 KB": writing(),
        "answer read, 0.9 KB": parse,
    }


def figures(size: Size | None = None) -> Iterator[Figure]:
    """Measure each piece, and yield the figures."""
    size = size or Size()
    rounds, work = Rounds("micro"), pieces()
    for _ in range(size.rounds):
        for name, piece in work.items():
            rounds.add(name, together(piece, size.runs))
    yield from rounds.figures()
