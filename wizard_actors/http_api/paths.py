"""Paths that are not there: what their client may have meant. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from wizard_actors.config.values import closest

__all__ = ["instead_of"]

ENDINGS: Final[Mapping[tuple[str, ...], str]] = MappingProxyType(
    {
        ("chat", "completions"): "/v1/chat/completions",
        ("messages",): "/v1/messages",
        ("models",): "/v1/models",
    }
)
"""What paths end with that a client made of another base URL."""

NOT_OFFERED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "batches": "there are no batches: send the requests one by one",
        "completions": "there is no such old form: POST /v1/chat/completions takes the text as a message of the user",
        "count_tokens": "tokens are not counted before: `usage` of an answer says what it took",
        "embeddings": "there are no embeddings: ask their provider itself",
        "responses": "there is no Responses API: use POST /v1/chat/completions",
    }
)
"""What paths end with that others offer, and what to do instead."""

BASE_URL: Final = "the base URL of OpenAI's clients ends with /v1, and that of Anthropic's has no /v1"


def instead_of(path: str, there: Iterable[str]) -> str:
    """Return what to tell whoever asked for `path`, which is none of the paths that are `there`: reads on from it."""
    parts, known = tuple(part for part in path.split("/") if part), tuple(there)
    plain = "/" + "/".join(parts)
    if plain in known:
        return f"is not offered here: did you mean {plain}?"
    for ending, meant in ENDINGS.items():
        if parts[-len(ending) :] == ending:
            return f"is not offered here: did you mean {meant}? {BASE_URL}"
    if parts and parts[-1] in NOT_OFFERED:
        return f"is not offered here: {NOT_OFFERED[parts[-1]]}"
    near = closest(plain, known)
    guess = f"did you mean {near}? " if near is not None else ""
    return f"is not offered here: {guess}GET /openapi.json lists what is"
