"""A deterministic model without sockets: scripted latency, chunking and faults, all its time from Trio.

Under `trio.testing.MockClock` it takes no real time. Its errors are made as those of a real upstream are, so that
whatever stands above it cannot tell the difference.

Before it answers, a call is laid out as a list of beats: after so many seconds, these events, or this error. What a
fault does to an answer is therefore one pure function, `beats`.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import chain, count, repeat
from types import MappingProxyType
from typing import Final, Literal

import trio
from attrs import define, frozen

from wizard_actors.config import ModelConfig, ScriptStep, SimulatedConfig
from wizard_actors.errors import NetworkError, ParseError, ProviderError, StreamInterruptedError, WizardError
from wizard_actors.providers.base import Answer, Call
from wizard_actors.providers.refusals import ErrorBody, Head, refusal
from wizard_actors.types import (
    Finished,
    FinishReason,
    LimitHeaders,
    ModelEvent,
    Prompt,
    TextDelta,
    TokenUsage,
    UsageUpdate,
)

__all__ = ["Beat", "CallEnd", "SimulatedCall", "SimulatedProvider", "beats"]

CallEnd = Literal["running", "complete", "truncated", "failed", "cancelled"]
"""How a call stands: under way; answered, the finish included; read to an end without a finish; failed by an error of
the model's; or left before any of these, by a cancellation or because its caller had enough."""

CALLS_KEPT: Final = 1000
SLOW_FIRST_TOKEN: Final = 30.0
"""Seconds until the first chunk of a "slow_first_token" without a `delay`: half of the default first-token limit."""

MIDWAY: Final = frozenset({"disconnect", "truncate", "malformed", "stall"})
"""The faults that break in after `after_words` words."""

OK: Final = ScriptStep(fault="ok")


# -- how an answer goes -----------------------------------------------------------------------------------------------


@frozen
class Beat:
    """One thing a model does: `delay` seconds after the last, it sends `events`, or fails with `error`."""

    delay: float
    events: tuple[ModelEvent, ...] = ()
    error: ProviderError | None = None


def beats(settings: SimulatedConfig, step: ScriptStep, *, answer: str, usage: TokenUsage, head: Head) -> Iterator[Beat]:
    """Yield what a model sends once its response's head is out, up to the end of the body.

    `step` names a fault of the body or "ok"; those of the head ("silent", a refusal) change nothing here.
    """
    words = _words(answer)
    breaks_at = step.after_words if step.fault in MIDWAY else len(words)
    pauses = chain([_first_token(settings, step)], repeat(settings.per_chunk))
    for events in _chunks(words[:breaks_at], settings.words_per_chunk):
        yield Beat(next(pauses), events)
    match step.fault:
        case "truncate":
            return
        case "disconnect":
            yield Beat(next(pauses), error=_broken_off(head))
            return
        case "malformed":
            yield Beat(next(pauses), error=_not_understood(head))
            return
        case "stall":
            yield Beat(_or_for_ever(step.delay))
    for events in _chunks(words[breaks_at:], settings.words_per_chunk):
        yield Beat(next(pauses), events)
    yield Beat(0.0, (UsageUpdate(usage), Finished(FinishReason.STOP, "stop")))


def _first_token(settings: SimulatedConfig, step: ScriptStep) -> float:
    if step.fault != "slow_first_token":
        return settings.first_token
    return SLOW_FIRST_TOKEN if step.delay is None else step.delay


def _or_for_ever(delay: float | None) -> float:
    return math.inf if delay is None else delay


def _words(text: str) -> list[str]:
    """Cut `text` into words, each with the white space before it; the last one has what follows it too."""
    return re.findall(r"\s*\S+(?:\s+\Z)?", text)


def _chunks(words: Sequence[str], size: int) -> Iterator[tuple[ModelEvent, ...]]:
    return ((TextDelta("".join(words[start : start + size])),) for start in range(0, len(words), size))


# -- what goes wrong --------------------------------------------------------------------------------------------------

REFUSALS: Final[Mapping[str, tuple[int, str, str]]] = MappingProxyType(
    {
        "rate_limit": (429, "rate_limit_exceeded", "simulated rate limit"),
        "quota": (429, "insufficient_quota", "simulated quota"),
        "error": (500, "server_error", "simulated failure"),
        "overloaded": (503, "overloaded_error", "simulated overload"),
        "auth": (401, "invalid_api_key", "simulated refusal of the key"),
        "model_not_found": (404, "model_not_found", "simulated absence"),
        "bad_request": (400, "invalid_request_error", "simulated refusal of the request"),
        "content_filter": (400, "content_filter", "simulated content filter"),
        "token_limit": (400, "context_length_exceeded", "simulated context limit"),
    }
)
"""Status, code and text of the error body that stands for each refusal."""


def _refused(step: ScriptStep, head: Head, usage: TokenUsage) -> WizardError | None:
    """Return the error of a `step` that refuses the call, None where it does not."""
    if step.fault not in REFUSALS:
        return None
    _status, code, text = REFUSALS[step.fault]
    counted = usage.input_tokens if step.fault == "token_limit" else None
    return refusal(head, ErrorBody(message=text, codes=(code,), requested=counted))


def _broken_off(head: Head) -> StreamInterruptedError:
    return StreamInterruptedError(
        f"{head.model}: it broke off its answer, as scripted",
        model=head.model,
        status=head.status,
        request_id=head.request_id,
    )


def _not_understood(head: Head) -> ParseError:
    return ParseError(
        f"{head.model}: its answer cannot be understood, as scripted",
        model=head.model,
        status=head.status,
        request_id=head.request_id,
    )


def _unreachable(model: str) -> NetworkError:
    return NetworkError(f"{model}: the connection was refused, as scripted", model=model)


# -- the provider -----------------------------------------------------------------------------------------------------


@define
class SimulatedCall:
    """One call as the model saw it: its `prompt`, the `fault` it met, `start` and `end` on Trio's clock, how it ended.

    `end` is None and `ended` "running" while the call is under way.
    """

    request_id: str
    prompt: Prompt
    fault: str
    start: float
    end: float | None = None
    ended: CallEnd = "running"


class SimulatedProvider:
    """A scripted model.

    Calls consume the steps of `settings.script` in order, each step `times` calls, as they begin; after the last, every
    call is answered. `on_call` is told of each call as it begins. The last `calls_kept` calls are kept in `calls`.
    """

    def __init__(
        self,
        name: str,
        *,
        settings: SimulatedConfig | None = None,
        on_call: Callable[[SimulatedCall], None] | None = None,
        calls_kept: int = CALLS_KEPT,
    ) -> None:
        self.name = name
        self._settings = settings or SimulatedConfig()
        self._answer = self._settings.answer or f"This is a simulated answer from {name}."
        self._script = chain.from_iterable(repeat(step, step.times) for step in self._settings.script)
        self._on_call = on_call
        self._ids = count(1)
        self.calls: deque[SimulatedCall] = deque(maxlen=calls_kept)
        """The last calls, oldest first, those under way among them."""
        self.in_flight = 0
        """Calls under way."""
        self.highest_in_flight = 0
        """The most calls that were ever under way at once."""

    @classmethod
    def from_config(cls, model: ModelConfig) -> SimulatedProvider:
        """Return the provider of a model whose `provider` is "simulated"."""
        return cls(model.name, settings=model.simulated)

    def __repr__(self) -> str:
        return f"<SimulatedProvider {self.name}: {self.in_flight} in flight>"

    @property
    def streams(self) -> bool:
        """True: a simulated model always streams."""
        return True

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Answer]:
        """Begin a call: consume a step of the script, and wait for the response's head.

        Raises `NetworkError` for a "disconnect" before the first word. Leaving ends the call, also under cancellation.
        """
        step = next(self._script, OK)
        seen = self._begin(call, step)
        try:
            await trio.sleep(self._settings.connect)
            if step.fault == "disconnect" and step.after_words == 0:
                seen.ended = "failed"
                raise _unreachable(self.name)
            if step.fault == "silent":
                await trio.sleep(_or_for_ever(step.delay))
            yield self._answer_to(call, step, seen)
        finally:
            self._end(seen)

    def _begin(self, call: Call, step: ScriptStep) -> SimulatedCall:
        seen = SimulatedCall(call.request_id, call.prompt, step.fault, trio.current_time())
        self.calls.append(seen)
        self.in_flight += 1
        self.highest_in_flight = max(self.highest_in_flight, self.in_flight)
        if self._on_call is not None:
            self._on_call(seen)
        return seen

    def _end(self, seen: SimulatedCall) -> None:
        seen.end = trio.current_time()
        if seen.ended == "running":
            seen.ended = "cancelled"
        self.in_flight -= 1

    def _answer_to(self, call: Call, step: ScriptStep, seen: SimulatedCall) -> _Answer:
        usage = TokenUsage(
            input_tokens=sum(len(message.text.split()) for message in call.prompt.conversation),
            output_tokens=len(self._answer.split()),
        )
        status = REFUSALS[step.fault][0] if step.fault in REFUSALS else 200
        head = Head(
            model=self.name,
            status=step.status or status,
            request_id=f"simulated-{next(self._ids)}",
            retry_after=step.retry_after,
        )
        return _Answer(
            head=head,
            seen=seen,
            refused=_refused(step, head, usage),
            beats=beats(self._settings, step, answer=self._answer, usage=usage, head=head),
        )


@define
class _Answer:
    """One simulated answer while it arrives; see `Answer`."""

    _head: Head
    _seen: SimulatedCall
    _refused: WizardError | None
    _beats: Iterator[Beat]

    @property
    def upstream_model(self) -> str | None:
        """The model's configured name, from the start."""
        return self._head.model

    @property
    def upstream_id(self) -> str | None:
        """The number of the call at this model."""
        return self._head.request_id

    @property
    def limits(self) -> LimitHeaders | None:
        """The script's `retry_after`, where it has one."""
        retry_after = self._head.retry_after
        return None if retry_after is None else LimitHeaders(retry_after=retry_after)

    async def read(self) -> Sequence[ModelEvent] | None:
        """Wait for the next beat, and return its events or raise its error; None at the end."""
        if self._refused is not None:
            await trio.lowlevel.checkpoint()
            self._seen.ended = "failed"
            raise self._refused
        beat = next(self._beats, None)
        if beat is None:
            await trio.lowlevel.checkpoint()
            if self._seen.ended == "running":
                self._seen.ended = "truncated"
            return None
        await trio.sleep(beat.delay)
        if beat.error is not None:
            self._seen.ended = "failed"
            raise beat.error
        if any(isinstance(event, Finished) for event in beat.events):
            self._seen.ended = "complete"
        return beat.events
