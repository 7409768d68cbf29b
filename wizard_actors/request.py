"""What a caller asks of the pipeline."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Literal, TypeAlias

from attrs import field, frozen

from wizard_actors.config import RouteConfig
from wizard_actors.holds import Hold
from wizard_actors.types import Prompt

__all__ = ["CacheUse", "Delivery", "Request"]

CacheUse: TypeAlias = Literal["use", "refresh", "bypass"]
"""Whether a request may be answered from the cache, only fills it, or has nothing to do with it."""


class Delivery(StrEnum):
    """How an answer reaches the caller: as it comes, in pieces once it is complete, or as a whole."""

    LIVE = "live"
    BUFFERED = "buffered"
    WHOLE = "whole"


@frozen
class Request:
    """One request. `deadline` is an instant, `given` what the caller named, in seconds.

    `tenant` parts callers who must not see each other's cached answers. `raw`: what comes over the wire is kept. `hold`
    keeps the configuration in use in which the request was made.
    """

    prompt: Prompt
    route: RouteConfig
    request_id: str
    delivery: Delivery
    deadline: float = math.inf
    given: float | None = None
    cache: CacheUse = "use"
    tenant: str = ""
    raw: bool = False
    hold: Hold | None = field(default=None, eq=False, repr=False)
