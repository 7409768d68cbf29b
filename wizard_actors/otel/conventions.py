"""What spans and metrics are called, and what they say of a model. Pure, and without any library.

The names are those of the GenAI semantic conventions, which are under development, as they were when they moved from
`open-telemetry/semantic-conventions` to `open-telemetry/semantic-conventions-genai`; what those have no name for is
below `wizard.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from wizard_actors.config import ModelConfig, preset_of
from wizard_actors.errors import (
    ActorError,
    AuthError,
    CircuitOpenError,
    ContentFilterError,
    DeadlineExceededError,
    InvalidPromptError,
    MailboxFullError,
    ModelNotFoundError,
    NetworkError,
    OverloadedError,
    ParseError,
    ProviderBugError,
    ProviderError,
    ProviderTimeoutError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    StreamInterruptedError,
    TokenLimitError,
    UnsupportedError,
    WizardError,
)

__all__ = [
    "CHAT",
    "DURATION",
    "FIRST_CHUNK",
    "MOST_TEXT",
    "OURSELVES",
    "REASONS",
    "SECONDS",
    "TOKENS",
    "USAGE",
    "Ask",
    "Names",
    "Upstream",
    "number",
    "reason",
    "text",
    "unknown",
    "upstream_of",
]

CHAT: Final = "chat"
"""What every request and attempt is, in the conventions' words."""

OURSELVES: Final = "wizard"
"""The provider of a request's span: this client, whose routes stand where others have models."""


class Names:
    """The keys of attributes, and the names of events: `wizard.` is ours, all else the conventions'."""

    OPERATION: Final = "gen_ai.operation.name"
    PROVIDER: Final = "gen_ai.provider.name"
    REQUEST_MODEL: Final = "gen_ai.request.model"
    RESPONSE_MODEL: Final = "gen_ai.response.model"
    FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
    TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
    STREAM: Final = "gen_ai.request.stream"
    USED_INPUT: Final = "gen_ai.usage.input_tokens"
    USED_OUTPUT: Final = "gen_ai.usage.output_tokens"
    USED_TYPE: Final = "gen_ai.token.type"
    ADDRESS: Final = "server.address"
    PORT: Final = "server.port"
    ERROR: Final = "error.type"

    REQUEST_ID: Final = "wizard.request_id"
    ROUTE: Final = "wizard.route"
    STRATEGY: Final = "wizard.strategy"
    SERVED_BY: Final = "wizard.served_by"
    CACHED: Final = "wizard.cached"
    ATTEMPTS: Final = "wizard.attempts"
    UPSTREAM_CALLS: Final = "wizard.upstream_calls"
    OVERHEAD: Final = "wizard.overhead"
    HEARD: Final = "wizard.first_token"
    INPUT: Final = "wizard.input_tokens"
    OUTPUT: Final = "wizard.output_tokens"
    COST: Final = "wizard.cost"
    CANCELLED: Final = "wizard.cancelled"
    MODEL: Final = "wizard.model"
    ATTEMPT: Final = "wizard.attempt"
    HEDGE: Final = "wizard.hedge"
    SENT: Final = "wizard.sent"
    DELAY: Final = "wizard.delay"
    SLOT_WAIT: Final = "wizard.slot_wait"
    RATE_WAIT: Final = "wizard.rate_wait"

    FAILED_MODEL: Final = "wizard.failed_model"
    OUTCOME: Final = "wizard.outcome"

    RETRY_EVENT: Final = "wizard.retry"
    BUDGET_EVENT: Final = "wizard.budget_exhausted"
    FALLBACK_EVENT: Final = "wizard.fallback"
    CACHE_EVENT: Final = "wizard.cache"
    DEGRADED_EVENT: Final = "wizard.degraded"
    HEARD_EVENT: Final = "wizard.first_token"
    REFUSED_EVENT: Final = "wizard.circuit_open"


DURATION: Final = "gen_ai.client.operation.duration"
FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
USAGE: Final = "gen_ai.client.token.usage"

SECONDS: Final = tuple(0.01 * 2**doubled for doubled in range(14))
"""The bounds of the buckets that the conventions advise for durations, up to 81.92 seconds."""

TOKENS: Final = tuple(4**power for power in range(14))
"""And for tokens, up to 67,108,864."""

PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "azure": "azure.ai.openai",
        "gemini": "gcp.gemini",
        "mistral": "mistral_ai",
        "xai": "x_ai",
    }
)
"""Our providers which the conventions call otherwise."""

VERTEX: Final = "aiplatform.googleapis.com"
PORTS: Final[Mapping[str, int]] = MappingProxyType({"http": 80, "https": 443})

MOST_TEXT: Final = 2000
"""Characters of an error's message, and of what a provider says of itself, that are recorded."""

REASONS: Final[Mapping[type[WizardError], str]] = MappingProxyType(
    {
        InvalidPromptError: "the prompt cannot be sent",
        TokenLimitError: "the prompt is longer than the model's context window",
        UnsupportedError: "the model cannot do what was asked",
        DeadlineExceededError: "the deadline has passed",
        ProviderError: "the provider failed",
        AuthError: "the provider refused the key",
        ContentFilterError: "the provider refused to answer this content",
        ModelNotFoundError: "the provider does not know the model",
        QuotaExhaustedError: "the account has no credit left",
        RateLimitError: "over a limit",
        RequestError: "the provider refused the request as wrong",
        OverloadedError: "the provider is overloaded or unavailable",
        NetworkError: "the connection failed",
        ProviderTimeoutError: "the provider was late",
        ParseError: "the answer cannot be understood",
        StreamInterruptedError: "the answer ended before it was complete",
        ProviderBugError: "the provider's code here raised something unforeseen",
        CircuitOpenError: "the circuit is open",
        MailboxFullError: "the queue has no room",
        ActorError: "an actor could not answer",
    }
)
"""What is said of an error, by its class or the nearest base of it: an error's own message may quote a prompt or an
answer, for providers do in theirs.
"""

MOST: Final = 2**63 - 1
"""The greatest number that can be sent."""

Ask = Mapping[str, str | int]
"""What is known of a call before it is made; the labels of its measurements, too."""


@frozen
class Upstream:
    """Where a model's calls go: `span` is the name of their spans, `ask` what stands in each of them."""

    span: str
    ask: Ask


def upstream_of(model: ModelConfig) -> Upstream:
    """Return where the calls of `model` go, as its configuration says."""
    preset = preset_of(model.provider)
    address, port = _place(model.base_url or (preset and preset.base_url) or "")
    provider = PROVIDERS.get(model.provider, model.provider)
    if provider == "gcp.gemini" and address.endswith(VERTEX):
        provider = "gcp.vertex_ai"
    return _upstream(provider, model.model, {Names.ADDRESS: address, Names.PORT: port} if address and port else {})


def unknown(name: str) -> Upstream:
    """Return what can be said of a model that no configuration names."""
    return _upstream("unknown", name, {})


def _upstream(provider: str, model: str, place: Ask) -> Upstream:
    ask = {Names.OPERATION: CHAT, Names.PROVIDER: text(provider), Names.REQUEST_MODEL: text(model), **place}
    return Upstream(f"{CHAT} {text(model)}", MappingProxyType(ask))


def _place(base_url: str) -> tuple[str, int]:
    """Return host and port of an address, "" and 0 where there is none."""
    try:
        parts = urlsplit(base_url)
        return parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", 0


def reason(error: WizardError) -> str:
    """Return why something failed, in words of ours alone: "over a limit (HTTP 429)"."""
    said = next((REASONS[kind] for kind in type(error).__mro__ if kind in REASONS), error.code)
    match error:
        case ProviderTimeoutError():
            return f"{said} ({error.phase})"
        case RateLimitError(source="limiter"):
            return f"{said} (our own)"
        case ProviderError(status=int()):
            return f"{said} (HTTP {error.status})"
    return said


def text(value: str) -> str:
    """Return `value` as it can be sent: not longer than need be, and without halves of characters, for one of which an
    exporter would drop all that it was to send.
    """
    cut = value[:MOST_TEXT]
    return cut if cut.isascii() else cut.encode("utf-8", "replace").decode("utf-8")


def number(value: int) -> int:
    """Return `value` as it can be sent."""
    return min(value, MOST)
