"""The seam between an attempt and a wire protocol: what a provider is given, and what it gives back.

A provider knows a protocol and nothing of limits, retries or other models. It runs in the task of whoever asked, over
the shared HTTP client, and is called by `wizard_actors.attempt` alone:

    async with provider.open(call) as answer:      # the request is sent, the response's head is here
        while (events := await answer.read()) is not None:
            ...

The attempt puts its deadlines round `open` and round each `read`; a provider itself bounds only the connection.

An exchange may be left in another task than the one that entered it: the winner of a race is read by the caller, and a
stream that nobody reads is closed by the client. So nothing that belongs to a task, a nursery or a cancel scope, may be
open between an exchange's entry and its end, but for the duration of one call.

`wizard_actors.testing.provider.ProviderContract` checks what is promised here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import httpx
from attrs import frozen

from wizard_actors.config import ModelConfig
from wizard_actors.types import LimitHeaders, ModelEvent, Prompt

__all__ = ["Answer", "Call", "Provider", "ProviderFactory"]


@frozen
class Call:
    """One call of one model: the prompt, and the id that runs through logs, events and headers.

    `raw`: whoever asks wants to see what comes over the wire, too, as `Raw` events. A provider that has nothing of the
    kind sends none.
    """

    prompt: Prompt
    request_id: str
    raw: bool = False


class Answer(Protocol):
    """One answer while it arrives."""

    @property
    def upstream_model(self) -> str | None:
        """What the provider says the model is called, None until it has said so."""

    @property
    def limits(self) -> LimitHeaders | None:
        """What the response's headers say of rate limits, None where nothing usable; known from the start."""

    @property
    def upstream_id(self) -> str | None:
        """The provider's own id of this call, for its support desk."""

    async def read(self) -> Sequence[ModelEvent] | None:
        """Wait for the next bytes and return the events in them, possibly none; None at the protocol's end.

        One call makes at most one wait on the socket, so that the time it takes is the provider's and nobody else's.
        A complete answer contains one `Finished`; the body's end without it means that the answer was cut, which the
        caller judges. An empty text, a role-only chunk and a ping are no events. Events come in a list or a tuple, and
        hold what their types say.

        A read that has nothing to return waits for something: one that returns () without a wait keeps the processor
        busy, for its caller gives way to other tasks only once in many reads.

        Raises a `ProviderError` (or `TokenLimitError`) for an error status, an error inside the stream, a broken
        connection or bytes that cannot be understood.
        """


class Provider(Protocol):
    """One model behind one wire protocol. Holds nothing of a call between calls but what it learned of the model."""

    @property
    def streams(self) -> bool:
        """Whether the next call asks for a stream, so that first-token and stall deadlines make sense."""

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Send the request; entered once the response's head is here, whatever its status says.

        Leaving closes the exchange, also under cancellation, and is quick: a body that is not at its end costs its
        connection.

        Raises on entry: `NetworkError`, or `ProviderTimeoutError` (phase "connect"), where no head came;
        `UnsupportedError` before anything is sent where the prompt asks for what this provider cannot do.
        """


class ProviderFactory(Protocol):
    """What an entry point of the group "wizard_actors.providers" names: it makes the provider of one configured model.

    It is called once for each enabled model where the client is opened, again by a reload for each that is new or
    changed, also where only its key is another one, and sends nothing. What it made before goes on answering the
    requests that were made before the reload. `http` is shared with other models and closed by the client; the model's
    `proxy` and `ca_file` are in force in it, and it has no timeouts of its own. `config.api_key()` reads the key, None
    where the model names none; `config.options` are the provider's own settings.

    Raises `ConfigError` for settings that cannot work; anything else is wrapped in one, for it is a bug.
    """

    def __call__(self, config: ModelConfig, http: httpx.AsyncClient, /) -> Provider:
        """Return the provider of that model."""
