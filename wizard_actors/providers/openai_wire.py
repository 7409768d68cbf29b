"""Chat Completions as a wire protocol, in the dialect an upstream speaks: known from its preset, else learned. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Self

import httpx
from attrs import evolve, frozen

from wizard_actors.config import MaxTokensField, Preset, preset_of
from wizard_actors.providers.base import Call
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.masking import SEARCHED
from wizard_actors.providers.openai_chunks import ChunkReader
from wizard_actors.providers.openai_request import Dialect, request_body
from wizard_actors.providers.proofs import refuses_thoughts
from wizard_actors.providers.refusals import ErrorBody, Head, refuses_stream
from wizard_actors.providers.wire import Outgoing

__all__ = ["ChatWire", "dialect_of", "without_refused_field"]


@frozen(kw_only=True)
class ChatWire:
    """Chat Completions, a `Wire`: `model` is the upstream's id of the model that is configured as `name`."""

    name: str
    model: str
    url: httpx.URL
    dialect: Dialect
    max_tokens: int | None = None
    extra: Mapping[str, object]

    @classmethod
    def of(cls, settings: HttpSettings, url: httpx.URL) -> Self:
        """Return the protocol as the model's provider is known to speak it."""
        dialect = dialect_of(preset_of(settings.provider), url.host)
        return cls(
            name=settings.name,
            model=settings.model,
            url=url,
            dialect=evolve(dialect, stream=settings.upstream != "unary"),
            max_tokens=settings.max_tokens,
            extra=settings.extra,
        )

    @property
    def streams(self) -> bool:
        """Whether requests ask for a stream."""
        return self.dialect.stream

    def request(self, call: Call) -> Outgoing:
        """Return the request; raises what `request_body` raises."""
        prompt = call.prompt
        if prompt.max_tokens is None and self.max_tokens is not None:
            prompt = evolve(prompt, max_tokens=self.max_tokens)
        body = request_body(prompt, model=self.name, upstream_model=self.model, dialect=self.dialect, extra=self.extra)
        return Outgoing(self.url, body)

    def reader(self, head: Head) -> ChunkReader:
        """Return what reads the answer that begins with `head`."""
        return ChunkReader(head)

    def without(self, refused: ErrorBody, *, keep_stream: bool) -> Self | None:
        """Return the dialect without the field that a refusal names."""
        dialect = without_refused_field(self.dialect, refused, keep_stream=keep_stream)
        return None if dialect is None else evolve(self, dialect=dialect)

    def lasting(self) -> Self:
        """Return the dialect with reasoning again: that of another conversation may be the provider's own."""
        return evolve(self, dialect=evolve(self.dialect, thoughts=True))


def dialect_of(preset: Preset | None, host: str) -> Dialect:
    """Return what is known of a provider's dialect before anything was asked. `host`: OpenAI's own, and Azure, want the
    field of today, whereas others that are configured as "openai" know the old one.
    """
    if preset is None:
        return Dialect()
    own = host.endswith((".openai.com", ".openai.azure.com"))
    return Dialect(
        max_tokens_field="max_completion_tokens" if own else preset.max_tokens_field,
        seed_field=preset.seed_field,
        reasoning_field=preset.reasoning_field,
        tool_ids=preset.tool_ids,
        json_schema=preset.json_schema,
    )


# -- what refusals teach -----------------------------------------------------------------------------


BOUND: Final = re.compile(r"\bmax_(?:completion_)?tokens\b")

UNKNOWN_FIELD: Final = re.compile(
    r"unsupported[_ ](?:parameter|argument|field)|(?:not|n.t) (?:supported|permitted|allowed|recogni[sz]ed)"
    r"|unknown|unrecogni[sz]ed|unexpected|extra_forbidden|deprecated|no longer",
    re.IGNORECASE,
)
"""A message that refuses a field, whatever it says; not one that refuses what it says ("is too large")."""


def without_refused_field(dialect: Dialect, refused: ErrorBody, *, keep_stream: bool = False) -> Dialect | None:
    """Return the dialect without the field that a 400 or 422 names, None where it names none that can go.

    The bound of an answer goes by its other name instead, once. With `keep_stream` the answer has to be a stream.
    """
    named = f"{refused.param} {refused.message[:SEARCHED]}"
    if dialect.stream and dialect.stream_options and re.search(r"\bstream_options\b", named):
        return evolve(dialect, stream_options=False)
    if _refuses_bound(dialect, refused, named):
        old = dialect.max_tokens_field == "max_tokens"
        other: MaxTokensField = "max_completion_tokens" if old else "max_tokens"
        return evolve(dialect, max_tokens_field=other, max_tokens_learned=True)
    if dialect.thoughts and dialect.reasoning_field is not None and refuses_thoughts(refused):
        return evolve(dialect, thoughts=False)
    if dialect.stream and not keep_stream and refuses_stream(refused):
        return evolve(dialect, stream=False)
    return None


def _refuses_bound(dialect: Dialect, refused: ErrorBody, named: str) -> bool:
    blamed = BOUND.search(named)  # the first that is named: the other may be what is to be used instead
    if dialect.max_tokens_learned or blamed is None or blamed[0] != dialect.max_tokens_field:
        return False
    return UNKNOWN_FIELD.search(" ".join((refused.message[:SEARCHED], *refused.codes))) is not None
