"""What the methods do: from the parameters on the wire to what the client does, and back to the wire."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from wizard_actors.ask_options import delivery_of
from wizard_actors.batch import run_batch
from wizard_actors.errors import WizardError
from wizard_actors.protocol.failures import error_to
from wizard_actors.protocol.values import prompt_from, response_to
from wizard_actors.request import Delivery
from wizard_actors.server.admin_methods import invalidate, stats, subscribe, tree, warm
from wizard_actors.server.call import Call, streamed
from wizard_actors.server.params import ASKING
from wizard_actors.server.session_methods import (
    create_session,
    delete_session,
    list_sessions,
    send_turn,
    session_history,
    stream_turn,
)
from wizard_actors.types import Prompt, WizardResponse

__all__ = ["METHODS"]

Method: TypeAlias = Callable[[Call], Awaitable[object]]
"""Does what is asked, and returns the result in JSON's types. Raises `Fault` and `WizardError`."""


async def generate(call: Call) -> object:
    """Return a whole answer."""
    call.params.only("prompt", *ASKING)
    prompt, options = prompt_from(call.params.value("prompt")), call.params.options()
    response = await call.client.answer(call.client.request(prompt, Delivery.WHOLE, options))
    return response_to(response, now=time.time())


async def stream(call: Call) -> object:
    """Send an answer's events."""
    call.params.only("prompt", *ASKING, "delivery", "credit")
    call.may_notify()
    how = delivery_of(call.params.text("delivery", call.config.stream.delivery))
    prompt, options = prompt_from(call.params.value("prompt")), call.params.options()
    return await streamed(call, call.client.source(call.client.request(prompt, how, options)))


async def batch(call: Call) -> object:
    """Send one outcome for each prompt, as they end. All prompts are checked before the first is asked. As many are
    asked at once as are asked for, and as there is room for when it begins.
    """
    call.params.only("prompts", *ASKING, "max_concurrency", "credit")
    call.may_notify()
    prompts, options = await call.prompts(), call.params.options()
    most = min(call.at_once(), len(call.params.items("prompts")))

    async def done(index: int, _prompt: str | Prompt, outcome: WizardResponse | WizardError) -> None:
        now = time.time()
        if isinstance(outcome, WizardError):
            await call.notify("outcome", {"index": index, "error": error_to(outcome, now=now)})
        else:
            await call.notify("outcome", {"index": index, "response": response_to(outcome, now=now)})

    with (
        call.client.patient(options) as ask,
        call.service.admission.several(call.client.caller, call.service.settings, most) as at_once,
    ):
        return {"total": await run_batch(ask, prompts, max_concurrency=at_once, done=done)}


async def models(call: Call) -> object:  # noqa: ASYNC124 - called as all of them are
    """Return the names of what the caller may use."""
    call.params.only()
    return call.client.models()


METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {
        "generate": generate,
        "stream": stream,
        "batch": batch,
        "session.create": create_session,
        "session.send": send_turn,
        "session.stream": stream_turn,
        "session.history": session_history,
        "session.list": list_sessions,
        "session.delete": delete_session,
        "models": models,
        "tree": tree,
        "stats": stats,
        "cache.invalidate": invalidate,
        "cache.warm": warm,
        "subscribe": subscribe,
    }
)
"""All methods that are requests of their own; `cancel` and `unsubscribe` are about other ones."""
