"""The models of a simulation, as real providers reach them: an HTTP client without sockets, and who plays its replies.

A provider of the client's own makes the request and reads the answer's bytes. What is left out is what httpx does
between the two: sockets, redirects, cookies, pools.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from random import Random
from typing import Final, NoReturn

import attrs
import httpx
import trio

from wizard_actors.breaker_core import BreakerState
from wizard_actors.config import NATIVE, PRESETS, ModelConfig
from wizard_actors.providers.anthropic import AnthropicProvider
from wizard_actors.providers.base import Provider
from wizard_actors.providers.gemini import GeminiProvider
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.testing.simulation.formats import WireFormat, most_tokens
from wizard_actors.testing.simulation.recorder import Call, Recorder
from wizard_actors.testing.simulation.records import CallEnd
from wizard_actors.testing.simulation.upstream import Ending, Question, Reply, UpstreamCore

__all__ = ["SimulatedHttp", "format_of", "provider_of", "without_secrets"]

BYTES_A_TOKEN: Final = 5
"""Of a request's body, its JSON included."""

QUESTION: Final = re.compile(rb"question (\d+):")
"""How a prompt begins; see `Asked.text`."""

FIRST_ERROR: Final = 400
NO_CONNECTION: Final[Collection[Ending]] = frozenset({"refused", "unreachable"})
NOWHERE: Final = "http://simulated.invalid/v1"


def without_secrets(model: ModelConfig) -> ModelConfig:
    """Return a model's configuration as a simulation uses it: no key is read, and no file: nothing is sent anywhere.

    A model whose protocol is not one of ours (embedded, simulated, of a package or one's own) speaks OpenAI's.
    """
    ours = model.provider in NATIVE or model.provider in PRESETS
    return attrs.evolve(
        model,
        provider=model.provider if ours else "openai",
        base_url=model.base_url if ours else NOWHERE,
        api_version=model.api_version if ours else None,
        extra=model.extra if ours else {},
        api_key_env=None,
        api_key_file=None,
        headers={},
        proxy=None,
        ca_file=None,
        transport="httpx",
        simulated=None,
        local=None,
        options={},
        environ={},
    )


def provider_of(model: ModelConfig, http: httpx.AsyncClient, wall: Callable[[], float]) -> Provider:
    """Return the provider that the client has for such a model, over `http`."""
    settings = HttpSettings.from_config(without_secrets(model))
    if settings.provider == "anthropic":
        return AnthropicProvider(settings, http, wall_clock=wall)
    if settings.provider == "gemini":
        return GeminiProvider(settings, http, wall_clock=wall, rng=Random(settings.name))
    return OpenAIProvider(settings, http, wall_clock=wall)


def format_of(model: ModelConfig) -> WireFormat:
    """Return what a model speaks."""
    match model.provider:
        case "anthropic" | "gemini" as own:
            return own
        case _:
            return model.api


class SimulatedHttp(httpx.AsyncClient):
    """Everything that is sent over it reaches one simulated model; `wall` tells seconds since 1970, `breaker` what the
    model's breaker publishes.
    """

    def __init__(
        self,
        model: ModelConfig,
        core: UpstreamCore,
        recorder: Recorder,
        *,
        wall: Callable[[], float],
        breaker: Callable[[], BreakerState | None],
    ) -> None:
        super().__init__(transport=_Nowhere(), trust_env=False)
        self._model = model
        self._format = format_of(model)
        self._core = core
        self._recorder = recorder
        self._wall = wall
        self._breaker = breaker

    async def send(  # type: ignore[override]  # only what providers use: the rest of httpx's way is what is left out
        self, request: httpx.Request, *, stream: bool = False
    ) -> httpx.Response:
        """Return the head of what the model replies, once it is due; its body comes as it is read.

        Raises `httpx.ConnectError` where the model refuses the connection, `httpx.ConnectTimeout` where none is made in
        the model's `timeouts.connect`, `httpx.RemoteProtocolError` where it breaks before the head. Cancelled, the call
        is over: its caller has left.
        """
        content = request.content
        asked_tokens = max(1, len(content) // BYTES_A_TOKEN)
        streams = b'"stream":true' in content or "streamGenerateContent" in request.url.path
        began = trio.current_time()
        prompts = tuple(map(int, QUESTION.findall(content)))
        request_id = request.headers.get("x-request-id", "")
        call = self._recorder.call(self._model.name, request_id, self._breaker(), asked_tokens, prompts)
        question = Question(
            call.number,
            self._model.model,
            self._format,
            streams,
            asked_tokens,
            connect_timeout=self._model.timeouts.connect,
            max_tokens=most_tokens(content),
        )
        reply = self._core.reply(question, call.began, self._wall())
        exchange = _Exchange(reply, call, self._recorder, began)
        heads = False
        try:
            await exchange.wait(reply.connect)
            heads, call.status = reply.status is not None, reply.status
            if reply.status is None:
                exchange.over("refused" if reply.ending in NO_CONNECTION else "broken")
            elif reply.status >= FIRST_ERROR:
                call.end = "refused"  # also where nobody reads why
        finally:
            if not heads:
                exchange.close()
        if reply.status is None:
            raise _no_head(reply, request)
        return httpx.Response(reply.status, headers=reply.headers, stream=_Body(exchange), request=request)


def _no_head(reply: Reply, request: httpx.Request) -> httpx.TransportError:
    """Return what httpx raises where no head comes."""
    if reply.ending == "unreachable":
        return httpx.ConnectTimeout("", request=request)  # without a word, as httpx does it
    if reply.ending != "refused":
        return httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
    refused = httpx.ConnectError("All connection attempts failed", request=request)
    refused.__cause__ = ConnectionRefusedError()
    return refused


class _Nowhere(httpx.AsyncBaseTransport):
    """Stands for the network, which a simulation does not reach."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("a simulation reaches no network", request=request)


class _Exchange:
    """One call while its reply is played: what is written down of it, and when its next piece is due.

    Pieces are due at instants, not so long after the last was read: what a slow reader has not read yet lies ready.
    """

    def __init__(self, reply: Reply, call: Call, recorder: Recorder, began: float) -> None:
        self.reply = reply
        self.call = call
        self._recorder = recorder
        self._due = began
        call.fault = reply.met

    async def wait(self, seconds: float) -> None:
        """Wait until so many seconds after what was due last. Cancelled, that is still the last."""
        due = self._due + seconds
        await trio.sleep_until(due)
        self._due = due

    def hear(self) -> None:
        """Note that the answer's first word was read."""
        if self.call.heard is None:
            self.call.heard = self._recorder.moment()

    def over(self, end: CallEnd | None) -> None:
        """Note that the call is over, once, and as what; None: its caller left. From then on nothing is billed."""
        call, meter = self.call, self.reply.meter
        call.end = call.end or end
        if call.over is None:
            if end is not None:  # else its caller has left before
                call.fault = self.reply.fault
            call.over = self._recorder.moment()
            spent = math.inf if end == "complete" else call.over[0] - call.began
            call.billed = 0 if meter is None else meter.tokens(spent)

    def close(self) -> None:
        """Note that the connection is closed, once."""
        if self.call.closed is None:
            self.over(None)
            self.call.closed = self._recorder.moment()


class _Body(httpx.AsyncByteStream):
    """A response's body, played as its reply is laid out. No generator: what nobody reads leaves nothing to finish.

    A read that was cancelled has taken nothing; one after the body's end finds the end again.
    """

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self._read = 0
        self._ended = False

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        exchange, reply = self._exchange, self._exchange.reply
        if exchange.call.closed is not None:
            await trio.lowlevel.checkpoint()
            raise httpx.ReadError("the connection is closed")
        if self._read == len(reply.pieces):
            await self._end()
        delay, data = reply.pieces[self._read]
        await exchange.wait(delay)
        if self._read == reply.heard_at:
            exchange.hear()
        self._read += 1
        if self._read == len(reply.pieces) and reply.end is not None:
            exchange.over(reply.end)
        return data

    async def _end(self) -> NoReturn:
        """End the body: raises `StopAsyncIteration` or httpx's error, or waits for ever."""
        exchange, reply = self._exchange, self._exchange.reply
        if reply.ending == "silent":
            await trio.sleep_forever()
        await exchange.wait(0.0 if self._ended else reply.ends_after)
        self._ended = True
        exchange.over("broken")
        if reply.ending == "broken":
            raise httpx.ReadError("the connection broke, as the scenario says")
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the connection."""
        self._exchange.close()
