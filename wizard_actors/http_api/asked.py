"""What a request's body asks for, whichever format it was written in."""

from __future__ import annotations

from attrs import frozen

from wizard_actors.types import Prompt

__all__ = ["Asked"]


@frozen
class Asked:
    """One request. `name` is what its `model` says: a configured model, a route, or "wizard".

    `stream`: the answer is to come in pieces; `include_usage`: with what it used at the end, where the format leaves
    the choice.
    """

    name: str
    prompt: Prompt
    stream: bool = False
    include_usage: bool = False
