"""The key that tells one question to the cache from every other. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import PurePath
from typing import Final, TypeAlias

import attrs
import msgspec

from wizard_actors.config import ModelConfig
from wizard_actors.types import Prompt

__all__ = ["OPERATIONAL", "Key", "cache_key"]

Key: TypeAlias = bytes
"""What tells one question from every other: see `cache_key`."""

KEY_BYTES: Final = 32
KNOWN_AT_MOST: Final = 256

OPERATIONAL: Final = frozenset(
    {
        "enabled",
        "max_concurrency",
        "context_window",
        "supports",
        "rate_limit_group",
        "proxy",
        "ca_file",
        "transport",
        "timeouts",
        "retry",
        "circuit_breaker",
        "rate_limit",
        "price",
        "_environ",
    }
)
"""Settings of a model that decide whether, when, how fast and over which way it is asked, not what it says."""

ENCODED: Final = tuple(
    each.name for each in attrs.fields(ModelConfig) if each.name not in OPERATIONAL and each.name != "headers"
)


def cache_key(prompt: Prompt, models: Sequence[ModelConfig], *, tenant: str = "") -> bytes | None:
    """Return what tells this question from every other: 32 bytes, the same for equal questions within this process.

    Everything that can change the answer counts: every field of the prompt, the models of the route in their order
    (all their settings but the operational ones, such as timeouts and limits), and the `tenant` who asks, any text. The
    order of a mapping's keys does not; 1, 1.0, "1" and True differ in it, while a temperature of 1 is one of 1.0. A
    header counts with its name and its value, the value by a hash that differs from process to process, so that a key
    tells nothing of a secret.

    None where the prompt or a model holds something that has no such form, such as an object in `extra`: such a
    request goes without the cache.
    """
    try:
        who = str.encode(tenant, "utf-8", "surrogatepass")  # a lone surrogate too: it is never sent
        encoded = _encoded((who, [_identity(model) for model in models], _with_fractions(prompt)))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    return blake2b(encoded, digest_size=KEY_BYTES).digest()


def _encoded(value: object) -> bytes:
    try:
        return _encoder.encode(value)
    except TypeError:  # keys that are no texts, or what cannot be encoded at all
        return _encoder.encode(("spelled out", _spelled_out(value)))


def _identity(model: ModelConfig) -> bytes:
    """Return what tells a model from every other; made once for each that never changes: a mapping is its owner's."""
    known = _known.get(id(model))
    if known is not None and known[0] is model:
        return known[1]
    settings: list[object] = [getattr(model, name) for name in ENCODED]
    settings.append(sorted((name.lower(), hash(value)) for name, value in model.headers.items()))
    identity = _encoded(settings)
    if not (model.extra or model.headers):
        if len(_known) >= KNOWN_AT_MOST:
            _known.clear()
        _known[id(model)] = (model, identity)
    return identity


def _with_fractions(prompt: Prompt) -> Prompt:
    """Return the prompt with its temperature and `top_p` as floats: to JSON, 1 and 1.0 are one number."""
    temperature, top_p = _fraction(prompt.temperature), _fraction(prompt.top_p)
    if temperature is prompt.temperature and top_p is prompt.top_p:
        return prompt
    return attrs.evolve(prompt, temperature=temperature, top_p=top_p)


def _fraction(value: int | float | None) -> float | None:  # noqa: PYI041 - mypy narrows no float to an int
    if not isinstance(value, int) or isinstance(value, bool) or float(value) != value:
        return value
    return float(value)


def _plainer(value: object) -> object:
    """Return the like of a value that the encoder does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form that a key could be made of")


_known: dict[int, tuple[ModelConfig, bytes]] = {}
"""The identities of the models that were asked for last, by the `id` of each, which lives for as long as it is here."""

_encoder = msgspec.msgpack.Encoder(order="deterministic", enc_hook=_plainer)


def _spelled_out(value: object) -> object:
    """Return `value` with each mapping as its sorted pairs: the encoder sorts mappings by text alone."""
    if isinstance(value, Mapping):
        return {"": sorted((_encoder.encode(key), _encoder.encode(_spelled_out(each))) for key, each in value.items())}
    if isinstance(value, (list, tuple)):
        return [_spelled_out(each) for each in value]
    if (kind := type(value)) and attrs.has(kind):
        return {each.name: _spelled_out(getattr(value, each.name)) for each in attrs.fields(kind)}
    return value
