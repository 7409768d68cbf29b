"""A resilient client for large language models, built from supervised actors on Trio.

What stands here is imported when it is first used, so that the kernel (`wizard_actors.actor`,
`wizard_actors.supervisor`) and the errors can be had without the client and what it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wizard_actors.ask_options import AskOptions
    from wizard_actors.blocking import BlockingClient
    from wizard_actors.blocking_session import BlockingSession
    from wizard_actors.blocking_stream import BlockingStream
    from wizard_actors.client import ResilientClient
    from wizard_actors.client_builder import ClientBuilder
    from wizard_actors.config import ModelConfig, WizardConfig
    from wizard_actors.errors import (
        AccessDeniedError,
        ActorCrashedError,
        ActorError,
        ActorStoppedError,
        Attempt,
        AuthError,
        CircuitOpenError,
        ConfigError,
        ConfigProblem,
        ContentFilterError,
        DeadlineExceededError,
        EnvVarError,
        FallbackError,
        InvalidPromptError,
        InvalidStateTransitionError,
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
        RetryError,
        SerializationError,
        SessionConflictError,
        SessionNotInitializedError,
        StorageError,
        StreamInterruptedError,
        SupervisorError,
        TokenLimitError,
        UnsupportedError,
        WizardError,
    )
    from wizard_actors.metrics import MetricsSnapshot
    from wizard_actors.persistent_session import PersistentSession
    from wizard_actors.reloading import Reloaded
    from wizard_actors.request import Delivery
    from wizard_actors.response_stream import ResponseStream
    from wizard_actors.schema import json_schema_of
    from wizard_actors.session_record import SessionRecord, SessionState, SessionSummary, TurnRecord
    from wizard_actors.structured import Structured
    from wizard_actors.trio_client import Warmed
    from wizard_actors.types import (
        End,
        FinishReason,
        Image,
        Message,
        Prompt,
        ReasoningDelta,
        Reset,
        Role,
        ServedBy,
        Signature,
        StreamEvent,
        Text,
        TextDelta,
        Thought,
        ThoughtEnded,
        TokenUsage,
        Tool,
        ToolCall,
        ToolCallDelta,
        UsageUpdate,
        WizardResponse,
    )

__version__ = "0.1.0"

__all__ = [
    "AccessDeniedError",
    "ActorCrashedError",
    "ActorError",
    "ActorStoppedError",
    "AskOptions",
    "Attempt",
    "AuthError",
    "BlockingClient",
    "BlockingSession",
    "BlockingStream",
    "CircuitOpenError",
    "ClientBuilder",
    "ConfigError",
    "ConfigProblem",
    "ContentFilterError",
    "DeadlineExceededError",
    "Delivery",
    "End",
    "EnvVarError",
    "FallbackError",
    "FinishReason",
    "Image",
    "InvalidPromptError",
    "InvalidStateTransitionError",
    "MailboxFullError",
    "Message",
    "MetricsSnapshot",
    "ModelConfig",
    "ModelNotFoundError",
    "NetworkError",
    "OverloadedError",
    "ParseError",
    "PersistentSession",
    "Prompt",
    "ProviderBugError",
    "ProviderError",
    "ProviderTimeoutError",
    "QuotaExhaustedError",
    "RateLimitError",
    "ReasoningDelta",
    "Reloaded",
    "RequestError",
    "Reset",
    "ResilientClient",
    "ResponseStream",
    "RetryError",
    "Role",
    "SerializationError",
    "ServedBy",
    "SessionConflictError",
    "SessionNotInitializedError",
    "SessionRecord",
    "SessionState",
    "SessionSummary",
    "Signature",
    "StorageError",
    "StreamEvent",
    "StreamInterruptedError",
    "Structured",
    "SupervisorError",
    "Text",
    "TextDelta",
    "Thought",
    "ThoughtEnded",
    "TokenLimitError",
    "TokenUsage",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "TurnRecord",
    "UnsupportedError",
    "UsageUpdate",
    "Warmed",
    "WizardConfig",
    "WizardError",
    "WizardResponse",
    "json_schema_of",
]

_HOMES = (
    "errors",
    "types",
    "metrics",
    "request",
    "config",
    "ask_options",
    "response_stream",
    "schema",
    "structured",
    "client_builder",
    "session_record",
    "trio_client",
    "reloading",
    "blocking_stream",
    "persistent_session",
    "client",
    "blocking_session",
    "blocking",
)
"""Where the names above are defined, in the order in which they are looked for: what costs least comes first."""

if not TYPE_CHECKING:  # where types are checked, a name that is not imported above is an error

    def __getattr__(name: str) -> object:
        """Import the public name `name` at its first use."""
        if name in __all__:
            for home in _HOMES:
                module = import_module(f"{__name__}.{home}")
                if name in module.__all__:
                    value = globals()[name] = getattr(module, name)
                    return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
