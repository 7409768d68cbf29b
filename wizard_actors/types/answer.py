"""What comes out as a whole: responses, and what they tell of tokens and limits. All frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

from attrs import field, frozen

from wizard_actors.errors import Attempt
from wizard_actors.types.message import Message, Role
from wizard_actors.types.parts import Thought, ToolCall

__all__ = ["FinishReason", "LimitHeaders", "LimitWindow", "ServedBy", "TokenUsage", "WizardResponse"]


class FinishReason(StrEnum):
    """Why an answer ended, the same words for every provider. OTHER: look at `raw_finish_reason`."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    OTHER = "other"


class ServedBy(StrEnum):
    """Which step of the way answered: the cache, the first try, a further try of the same model, another model of the
    route; or, when all of them failed, an expired entry of the cache or the route's static answer.
    """

    CACHE = "cache"
    DIRECT = "direct"
    RETRY = "retry"
    FALLBACK = "fallback"
    STALE = "stale"
    STATIC = "static"


@frozen
class TokenUsage:
    """Tokens that one answer used.

    `input_tokens` includes those read from a prompt cache of the provider (`cached_tokens`) and those written to it
    (`cache_write_tokens`), `output_tokens` the reasoning ones.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def to_dict(self) -> dict[str, int]:
        """Return the counts, the total among them."""
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "total_tokens": self.total_tokens,
        }


@frozen
class WizardResponse:
    """A whole answer, and how it came about.

    `model` is the configured name of the model that answered, `upstream_model` what the provider says of itself.
    `usage` is the answer's, None where the provider did not say. `cost` is what all attempts cost together, in US
    dollars: an attempt of unknown cost adds nothing, and where that is the one that answered, the whole is None.
    `attempts` lists every attempt of this request, in the order of their beginning. `request_id` is ours, and runs
    through logs and headers.

    `cached`: another request's answer, from the cache or shared while it arrived; it cost nothing. `stale`: its time in
    the cache had passed, or it was to be refreshed, and every model failed. A static answer has no model: that is "".

    `raw`: what came over the wire, where the request asked for it: one JSON object, or that of each event of a stream.
    """

    text: str
    model: str
    upstream_model: str | None = None
    usage: TokenUsage | None = None
    cost: Decimal | None = None
    finish_reason: FinishReason = FinishReason.STOP
    raw_finish_reason: str | None = None
    thoughts: tuple[Thought, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    served_by: ServedBy = ServedBy.DIRECT
    cached: bool = False
    stale: bool = False
    request_id: str = ""
    raw: tuple[Mapping[str, object], ...] = field(default=(), repr=False)

    @property
    def reasoning(self) -> str:
        """The text of the model's reasoning, "" where it shows none."""
        return "".join(thought.text for thought in self.thoughts)

    @property
    def message(self) -> Message:
        """The answer as the assistant's message, with everything its provider wants back: append it to the conversation
        before the tools' results, or the next question.
        """
        return Message(Role.ASSISTANT, self.text, tool_calls=self.tool_calls, thoughts=self.thoughts)

    def to_dict(self) -> dict[str, object]:
        """Return the response in JSON's types, as `wizard ask --json` prints it."""
        shown: dict[str, object] = {
            "text": self.text,
            "model": self.model,
            "upstream_model": self.upstream_model,
            "usage": None if self.usage is None else self.usage.to_dict(),
            "finish_reason": self.finish_reason.value,
            "attempts": [attempt.to_dict() for attempt in self.attempts],
            "cost": None if self.cost is None else str(self.cost),
            "served_by": self.served_by.value,
            "cached": self.cached,
            "stale": self.stale,
            "request_id": self.request_id,
        }
        if self.reasoning:
            shown["reasoning"] = self.reasoning
        if self.raw:
            shown["raw"] = list(self.raw)
        if self.tool_calls:
            shown["tool_calls"] = [
                {"id": call.id, "name": call.name, "arguments": call.arguments} for call in self.tool_calls
            ]
        return shown


@frozen
class LimitWindow:
    """One limit as an answer's headers state it: `limit` a window, `remaining` in it, `reset` seconds until it is full.

    None where a header is missing or absurd.
    """

    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None


@frozen
class LimitHeaders:
    """What one answer's headers say of its account's limits, and for how many seconds they ask us to stay away."""

    requests: LimitWindow | None = None
    tokens: LimitWindow | None = None
    retry_after: float | None = None
