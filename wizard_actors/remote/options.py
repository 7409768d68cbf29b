"""The options of a request to a server, as they travel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypedDict, cast

from wizard_actors.ask_options import AskOptions, check_options
from wizard_actors.errors import ConfigError, ConfigProblem, InvalidPromptError
from wizard_actors.protocol.values import prompt_to
from wizard_actors.request import CacheUse
from wizard_actors.types import Prompt

__all__ = ["RemoteOptions", "deadline_of", "options_to", "said"]


class RemoteOptions(TypedDict, total=False):
    """What every way to ask a server takes, all by keyword: the options of `AskOptions`, but for `tenant`. Each key is
    a tenant of its own.
    """

    route: str | None
    model: str | None
    strategy: str | None
    deadline: float | None
    cache: CacheUse
    raw: bool


def options_to(options: RemoteOptions) -> dict[str, object]:
    """Return the options as they travel, `deadline` apart. Raises `ConfigError` for what is none; what a server alone
    can know is checked there.
    """
    if "tenant" in options:
        hint = "each key of a server has cached answers of its own"
        raise ConfigError([ConfigProblem("tenant", "is no option of a request to a server", hint)], file="this call")
    here = {name: value for name, value in options.items() if name != "strategy"}
    check_options(cast("AskOptions", here), strategies=())
    return {name: value for name, value in options.items() if name != "deadline" and value is not None}


def deadline_of(options: RemoteOptions) -> float | None:
    """Return the deadline, in seconds; None where there is none."""
    deadline = options.get("deadline")
    return None if deadline is None or deadline == math.inf else float(deadline)


def said(prompt: str | Prompt) -> str | Mapping[str, object]:
    """Return a prompt as it travels. Raises `InvalidPromptError` for what is none."""
    if not isinstance(prompt, str | Prompt):
        raise InvalidPromptError(f"a prompt is a str or a Prompt, not {type(prompt).__name__}")
    return prompt_to(prompt)
