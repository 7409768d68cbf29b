"""A provider's own text, fit for an error: short, one line, without what nobody may see. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote

from wizard_actors.config import Secret

__all__ = ["LONGEST_MESSAGE", "SEARCHED", "SHORTEST_SECRET", "excerpt", "secret_forms"]

LONGEST_MESSAGE: Final = 400
"""Characters of a provider's own text that an error repeats at most."""

SEARCHED: Final = 8 * LONGEST_MESSAGE
"""Characters of a provider's own text that are looked at: what it is about comes first, and the rest may be endless."""

SHORTEST_SECRET: Final = 4
"""Characters: masking anything shorter would only garble the text."""

OF_SECRETS: Final = re.compile(r"auth|cookie|token|key|secret", re.IGNORECASE)
"""In the name of a header whose value is a secret in each of its parts."""

SCHEME: Final = re.compile(r"(?:bearer|basic|digest|token|api-?key)\s", re.IGNORECASE)
"""What stands before the secret in the value of any header."""


def excerpt(text: str | bytes, secrets: Iterable[str] = ()) -> str:
    """Return the beginning of a provider's text, fit for an error: one line, no control characters, no secrets."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    for secret in secrets:  # before any cut, which could leave half of one
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "***")
    text = text[:SEARCHED]
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 3] + "..."


def secret_forms(key: Secret | None, headers: Mapping[str, Secret]) -> tuple[str, ...]:
    """Return what no error may repeat, in each form in which one might: as it is, quoted, in an address; of a header
    like `authorization: Bearer ...` the token without its scheme too. The longest comes first: one may hold another.
    """
    values = {form for name, secret in headers.items() for form in _parts(name, secret.reveal())}
    if key is not None:
        values.update(_parts("key", key.reveal()))
    forms = {form for value in values for form in (value, repr(value)[1:-1], quote(value, safe=""))}
    return tuple(sorted((form for form in forms if len(form) >= SHORTEST_SECRET), key=len, reverse=True))


def _parts(name: str, value: str) -> list[str]:
    """Return a header's value, and its parts behind the first where that is a scheme, or a cookie's name."""
    if OF_SECRETS.search(name) or SCHEME.match(value):
        return [value, *re.split(r"[\s,;=]+", value)[1:]]
    return [value]
