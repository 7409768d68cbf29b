"""What the verdict table says of errors, by their codes: reports keep no more of an error than that. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from wizard_actors import errors
from wizard_actors.errors import MailboxFullError, ProviderTimeoutError, RateLimitError, WizardError
from wizard_actors.verdict import VERDICTS, Outcome, Row, Verdict

__all__ = ["BARRING", "COUNTED", "VERDICT_OF"]

DEPENDS: Final = {
    MailboxFullError.code: Row.FULL,
    ProviderTimeoutError.code: Row.SILENT,
    RateLimitError.code: Row.RATE_LIMITED,
}
"""Errors whose row depends on more than their class, each with the one that promises least."""

KINDS: Final = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WizardError)]

VERDICT_OF: Final[Mapping[str, Verdict]] = MappingProxyType(
    {
        kind.code: VERDICTS[DEPENDS.get(kind.code, kind._row)]  # noqa: SLF001 - of the class: there is no error to ask
        for kind in KINDS
    }
)
"""The verdict on an error of each code."""

COUNTED: Final = frozenset(code for code, verdict in VERDICT_OF.items() if verdict.breaker is Outcome.FAILURE)
"""The codes of errors that a breaker counts."""

BARRING: Final = frozenset(code for code, verdict in VERDICT_OF.items() if verdict.bars_model)
"""The codes of errors after which a model is left out for a while."""
