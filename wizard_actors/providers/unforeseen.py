"""What the code of a provider raises unforeseen: as an error of ours, without the key that it may repeat."""

from __future__ import annotations

import traceback
from typing import Final

from attrs import frozen

from wizard_actors.config import ModelConfig
from wizard_actors.errors import ProviderBugError, WizardError
from wizard_actors.providers.masking import excerpt, secret_forms

__all__ = ["Unforeseen", "bug"]

MOST_FRAMES: Final = 50
"""Of a traceback that is searched for secrets: the limit is for the endless ones."""


@frozen
class Unforeseen:
    """What a provider of `config` raised: `text` says it in one line, its secrets masked; `cause` is what to chain it
    from, None where the error, or one behind it, repeats a secret.
    """

    text: str
    cause: Exception | None

    @classmethod
    def of(cls, error: Exception, config: ModelConfig) -> Unforeseen:
        """Look at `error`, whose text may be anything, or impossible to get."""
        secrets = _secrets(config)
        shown = "".join(traceback.format_exception(error, limit=-MOST_FRAMES))
        told = any(secret in shown for secret in secrets)
        return cls(
            excerpt("".join(traceback.format_exception_only(error)), secrets),
            None if told else error,
        )


def bug(error: Exception, config: ModelConfig) -> ProviderBugError:
    """Return the error for what a provider of `config` raised unforeseen in a call, chained where that is safe.

    Raise it `from` its own `__cause__`.
    """
    seen = Unforeseen.of(error, config)
    found = ProviderBugError(f"the provider of {config.name} failed unexpectedly: {seen.text}", model=config.name)
    found.__cause__ = seen.cause
    return found


def _secrets(config: ModelConfig) -> tuple[str, ...]:
    """Return what no error may repeat; a key that cannot be read is no secret."""
    try:
        key = config.api_key()
    except WizardError:
        key = None
    return secret_forms(key, config.headers)
