"""What is known of providers by name: data, so that another compatible one is a line and no code."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from attrs import frozen

__all__ = [
    "ALSO_CALLED",
    "NATIVE",
    "PRESETS",
    "Api",
    "MaxTokensField",
    "Preset",
    "ReasoningField",
    "SeedField",
    "preset_of",
]

Api: TypeAlias = Literal["chat", "responses"]
"""Which of OpenAI's protocols a model is asked in: Chat Completions or Responses."""

MaxTokensField: TypeAlias = Literal["max_tokens", "max_completion_tokens"]
ReasoningField: TypeAlias = Literal["reasoning_content", "reasoning", "reasoning_details"]
SeedField: TypeAlias = Literal["seed", "random_seed"]


@frozen(kw_only=True)
class Preset:
    """One provider: where it is, and what sets its dialect apart.

    `base_url` None: each customer has an address of their own. `key_env` is the variable in which its customers keep
    their key, None where it takes none; `other_key_env` a second one, which counts where the first is not set.
    `key_header` carries the key: as a bearer in `authorization`, bare in any
    other. `max_tokens_field` bounds an answer, `seed_field` takes the prompt's seed. `reasoning_field`: the field in
    which an assistant's message carries its reasoning back to a model that wants it, None where none does. `tool_ids`
    is what an id of a tool call has to match, as a regular expression. `json_schema`: an answer can be held to a
    schema; others are told of it in the prompt, and held to JSON.
    """

    base_url: str | None
    key_env: str | None = None
    other_key_env: str | None = None
    key_header: str = "authorization"
    max_tokens_field: MaxTokensField = "max_tokens"
    seed_field: SeedField = "seed"
    reasoning_field: ReasoningField | None = None
    tool_ids: str = "(?s:.*)"
    json_schema: bool = True

    @property
    def key_variables(self) -> tuple[str, ...]:
        """The variables in which its customers keep their key, in the order in which they count."""
        return tuple(filter(None, (self.key_env, self.other_key_env)))


SHORT: Final = "(?s:.{1,40})"
"""OpenAI refuses longer ids of tool calls, which others make."""

NATIVE: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        "openai": Preset(base_url="https://api.openai.com/v1", key_env="OPENAI_API_KEY", tool_ids=SHORT),
        "anthropic": Preset(base_url="https://api.anthropic.com", key_env="ANTHROPIC_API_KEY", key_header="x-api-key"),
        "gemini": Preset(
            base_url="https://generativelanguage.googleapis.com",
            key_env="GEMINI_API_KEY",
            other_key_env="GOOGLE_API_KEY",
            key_header="x-goog-api-key",
        ),
    }
)
"""The providers with a protocol of their own."""

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        "azure": Preset(
            base_url=None,
            key_header="api-key",
            max_tokens_field="max_completion_tokens",
            tool_ids=SHORT,
        ),
        "cerebras": Preset(
            base_url="https://api.cerebras.ai/v1",
            key_env="CEREBRAS_API_KEY",
            max_tokens_field="max_completion_tokens",
        ),
        "deepseek": Preset(
            base_url="https://api.deepseek.com/v1",
            key_env="DEEPSEEK_API_KEY",
            reasoning_field="reasoning_content",
            json_schema=False,
        ),
        "fireworks": Preset(
            base_url="https://api.fireworks.ai/inference/v1",
            key_env="FIREWORKS_API_KEY",
            reasoning_field="reasoning_content",
        ),
        "groq": Preset(
            base_url="https://api.groq.com/openai/v1",
            key_env="GROQ_API_KEY",
            max_tokens_field="max_completion_tokens",
        ),
        "lmstudio": Preset(base_url="http://127.0.0.1:1234/v1"),
        "mistral": Preset(
            base_url="https://api.mistral.ai/v1",
            key_env="MISTRAL_API_KEY",
            seed_field="random_seed",
            tool_ids="[A-Za-z0-9]{9}",
        ),
        "ollama": Preset(base_url="http://127.0.0.1:11434/v1", reasoning_field="reasoning"),
        "openrouter": Preset(
            base_url="https://openrouter.ai/api/v1", key_env="OPENROUTER_API_KEY", reasoning_field="reasoning_details"
        ),
        "perplexity": Preset(base_url="https://api.perplexity.ai", key_env="PERPLEXITY_API_KEY"),
        "together": Preset(base_url="https://api.together.xyz/v1", key_env="TOGETHER_API_KEY"),
        "vllm": Preset(base_url="http://127.0.0.1:8000/v1", reasoning_field="reasoning"),
        "xai": Preset(base_url="https://api.x.ai/v1", key_env="XAI_API_KEY", max_tokens_field="max_completion_tokens"),
    }
)
"""The providers that speak OpenAI's protocol at an address of their own."""

WITH_ADDRESS: Final = '"openai" with its `base_url`'

ALSO_CALLED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "azure-openai": '"azure"',
        "azure_openai": '"azure"',
        "azureopenai": '"azure"',
        "chatgpt": '"openai"',
        "claude": '"anthropic"',
        "google": '"gemini"',
        "google-genai": '"gemini"',
        "gpt": '"openai"',
        "grok": '"xai"',
        "litellm": WITH_ADDRESS,
        "llama-cpp": f'"local", or {WITH_ADDRESS}',
        "llama.cpp": f'"local", or {WITH_ADDRESS}',
        "llamacpp": f'"local", or {WITH_ADDRESS}',
        "openai-compatible": WITH_ADDRESS,
        "openai_compatible": WITH_ADDRESS,
        "vertex": '"gemini" with a `base_url`',
        "vertex_ai": '"gemini" with a `base_url`',
        "vertexai": '"gemini" with a `base_url`',
    }
)
"""What others call our providers, and what to say here: `did you mean ...?`."""


def preset_of(provider: str) -> Preset | None:
    """Return what is known of a provider, None for one that is not reached over HTTP, or is not ours."""
    return NATIVE.get(provider) or PRESETS.get(provider)
