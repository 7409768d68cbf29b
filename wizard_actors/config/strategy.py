"""The names a route's strategy can have: ours, what installed packages offer, and what code gives to the client."""

import json
from typing import Final, Literal, TypeAlias, get_args

from wizard_actors.config.values import BadValue, closest, plain_name
from wizard_actors.plugins import STRATEGIES, names

__all__ = ["CUSTOM_STRATEGY", "Strategy", "strategy_name"]

Strategy: TypeAlias = Literal["sequential", "parallel", "hedged", "adaptive", "cheapest"]
"""The names of ours."""

CUSTOM_STRATEGY: Final = "custom:"
"""What the name of a strategy begins with that code gives to the client."""


def strategy_name(_instance: object, _attribute: object, value: str) -> None:
    """Check the name of a strategy. Whether code gives one `custom:NAME` is seen when a client is opened."""
    ours = get_args(Strategy)
    if value in ours:
        return
    if value.startswith(CUSTOM_STRATEGY):
        plain_name(_instance, _attribute, value.removeprefix(CUSTOM_STRATEGY))
        return
    offered = names(STRATEGIES)
    if value in offered:
        return
    meant = closest(value, [*ours, *offered])
    listed = ", ".join(json.dumps(name) for name in (*ours, *offered))
    raise BadValue(
        f'must be one of {listed}, or "{CUSTOM_STRATEGY}NAME" for one that code gives',
        f"did you mean {json.dumps(meant)}?" if meant else "",
    )
