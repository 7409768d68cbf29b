"""What of a prompt's `extra` goes to a model, by the protocol whose words it is in. Pure.

A request that comes in one protocol's format may be answered by a model of another one, for which fields that it does
not have would be a reason to refuse all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from wizard_actors.types import Prompt

__all__ = ["JSON_TOLD", "extra_for", "wants_json"]

JSON_TOLD: Final = "Answer with nothing but one JSON object."

OF_OTHERS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "chat": frozenset({"reasoning_effort", "verbosity", "frequency_penalty", "presence_penalty", "logit_bias"}),
        "responses": frozenset({"text", "truncation", "previous_response_id", "conversation", "max_tool_calls"}),
        "anthropic": frozenset({"thinking", "top_k", "output_config", "inference_geo"}),
        "gemini": frozenset({"generationConfig", "safetySettings", "cachedContent"}),
    }
)
"""By protocol, the fields that a request in the words of another one may have for its models: what the other means by
them, if anything, is the same.
"""


def extra_for(prompt: Prompt, protocol: str) -> Mapping[str, object]:
    """Return the fields of the prompt's `extra` that go to a model which speaks `protocol`."""
    if prompt.extra_protocol in {None, protocol}:
        return prompt.extra
    known = OF_OTHERS[protocol]
    return {name: value for name, value in prompt.extra.items() if name in known}


def wants_json(prompt: Prompt, protocol: str) -> bool:
    """Say whether the prompt asks for JSON of any form as Chat Completions has it, which a model of another protocol
    has to be told in that one's words. A schema says more.
    """
    if prompt.extra_protocol != "chat" or protocol == "chat" or prompt.response_schema is not None:
        return False
    wanted = prompt.extra.get("response_format")
    return isinstance(wanted, Mapping) and wanted.get("type") == "json_object"
