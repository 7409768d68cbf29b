"""`RemoteClient`: a server's models, for programs under Trio or asyncio."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final, Literal, Self, TypeVar, Unpack, cast, overload

from wizard_actors.ask_options import delivery_of
from wizard_actors.client import ClientBlock
from wizard_actors.config.secret import Secret
from wizard_actors.embed.host import Host
from wizard_actors.embed.place import place_outside
from wizard_actors.errors import WizardError
from wizard_actors.remote.address import address_of
from wizard_actors.remote.call import Call
from wizard_actors.remote.events import RemoteEvents
from wizard_actors.remote.exchange import CREDIT
from wizard_actors.remote.options import RemoteOptions, deadline_of, options_to, said
from wizard_actors.remote.sessions import RemoteSession, RemoteSessions, given
from wizard_actors.remote.streams import RemoteSource
from wizard_actors.remote.trio_remote import LARGEST_MESSAGE, TrioRemote
from wizard_actors.request import Delivery
from wizard_actors.response_stream import ResponseStream
from wizard_actors.session import KEEP, TextOrKeep
from wizard_actors.structured import Structured
from wizard_actors.trio_client import Progress, Prompts, Warmed
from wizard_actors.types import Prompt, WizardResponse

__all__ = ["RemoteClient"]

T = TypeVar("T")

PLAIN: Final = "a program without either runs it in trio.run or asyncio.run"


class RemoteClient:
    """The language models of a server elsewhere, for as long as its block lasts: the methods of `ResilientClient`.

        async with RemoteClient.open("ws://127.0.0.1:8000", key_env="WIZARD_KEY") as client:
            response = await client.generate("Why actors?")

    Any number of tasks may use one client at once, over one connection. Under Trio it lives in the event loop of its
    block; under asyncio in a thread of its own that runs Trio.

    A lost connection is an error, and nothing is sent twice without being told: requests in progress raise
    `NetworkError`, streams that had begun `StreamInterruptedError`. The next request connects again. A server that
    stops in order takes no new requests; those go to its successor, at the same address.
    """

    def __init__(self, inside: TrioRemote, host: Host | None = None) -> None:
        if host is None or not isinstance(cast("object", inside), TrioRemote):
            raise TypeError(f"a client is opened: async with {type(self).__name__}.open({inside!r}) as client")
        self._inside = inside
        self._host = host

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._inside.link.where})"

    @classmethod
    def open(
        cls,
        url: str,
        *,
        key: str | Secret | None = None,
        key_env: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        connect_timeout: float = 10.0,
        max_message_size: int = LARGEST_MESSAGE,
    ) -> AbstractAsyncContextManager[Self]:
        """Return a block that connects to the server at `url`, "ws://HOST:PORT" or "wss://HOST:PORT", and closes the
        connection when it is left; what is in progress then is cancelled.

        `key` is the key that the server asks for, `key_env` the environment variable that holds it; `ca_file` has the
        certificates, in PEM, that sign the server's, where the system does not know them. Connecting takes at most
        `connect_timeout` seconds, in which it is tried up to four times. A message of more than `max_message_size`
        characters (default: 2**26) ends the connection.

        Entering raises `ConfigError` for an address or a file that is none, `EnvVarError` where the variable is not
        set, `NetworkError` where nobody answers, `AccessDeniedError` where the server does not take the key, and
        `UnsupportedError` where it is no server of ours, or outside of Trio and asyncio.
        """
        address = partial(address_of, url, key=key, key_env=key_env, ca_file=ca_file)
        opening = partial(TrioRemote.open, address, connect_timeout=connect_timeout, max_message_size=max_message_size)
        return ClientBlock(cls, opening, place_outside(), name=cls.__name__, plain=PLAIN)

    # -- asking

    async def generate(self, prompt: str | Prompt, **options: Unpack[RemoteOptions]) -> WizardResponse:
        """Return a whole answer; for the options see `RemoteOptions`.

        `deadline` is the server's to keep; where it says nothing, this client waits 5 seconds longer. A cancelled call
        returns at once, and the server is told to stop.

        Raises what `ResilientClient.generate` raises, with every attempt, and `NetworkError` where the connection is
        lost: whether the request was answered, and paid for, nobody knows then.
        """
        return await self._host.run(partial(self._inside.generate, prompt, options))

    @overload
    async def generate_as(
        self, prompt: str | Prompt, kind: type[T], **options: Unpack[RemoteOptions]
    ) -> Structured[T]: ...

    @overload
    async def generate_as(
        self, prompt: str | Prompt, kind: Mapping[str, object], **options: Unpack[RemoteOptions]
    ) -> Structured[object]: ...

    async def generate_as(
        self, prompt: str | Prompt, kind: object, **options: Unpack[RemoteOptions]
    ) -> Structured[object]:
        """Return an answer as a value, as `ResilientClient.generate_as`: the schema is made, and the answer read, here.

        Raises what that raises, and what `generate` raises.
        """
        asked, form = self._inside.asked_as(prompt, kind)
        return await self._host.run_for(lambda home: self._inside.answer_as(asked, form, home, options))

    def stream(
        self,
        prompt: str | Prompt,
        *,
        delivery: Delivery | Literal["live", "buffered"] | None = None,
        **options: Unpack[RemoteOptions],
    ) -> ResponseStream:
        """Return the answer as a stream of events, as `ResilientClient.stream`: the call begins with the first read,
        and ends with the block at the latest.

        A stream that is not read holds up nobody else: the server sends 32 events ahead, and ends one that is not read
        for its `stream.consumer_idle`. `request_id` is the id of the request on the connection; the response has the
        server's own.
        """
        params = {"prompt": said(prompt), **options_to(options)}
        if delivery is not None:
            params["delivery"] = delivery_of(delivery)
        call = Call(self._inside.link, "stream", params, credit=CREDIT, deadline=deadline_of(options))
        source = RemoteSource(call)
        return ResponseStream(lambda: self._host.source(lambda _taken: source, patience=math.inf), call.id)

    async def generate_batch(
        self,
        prompts: Prompts,
        *,
        max_concurrency: int | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[RemoteOptions],
    ) -> list[WizardResponse | WizardError]:
        """Return one outcome for each prompt, in their order: the response, or the error that `generate` raises.

        The server asks at most `max_concurrency` at once (default: its `batch.max_concurrency`), and is patient as
        `ResilientClient.generate_batch`. `on_progress(done, total)` is called after each. Prompts are taken in the
        caller's own task; they travel in parts of at most 1,000, or 1 MiB, one after the other.

        Raises `NetworkError` where the connection is lost: the outcomes so far are lost then; `ConfigError` for options
        that no prompt could be asked with, and any error of `prompts` and `on_progress`.
        """
        return await self._host.run_for(
            lambda home: self._inside.batch(
                prompts, home, max_concurrency=max_concurrency, on_progress=on_progress, options=options
            )
        )

    # -- sessions

    def session(
        self,
        name: str,
        *,
        system: TextOrKeep = KEEP,
        route: TextOrKeep = KEEP,
        model: TextOrKeep = KEEP,
        context: Mapping[str, object] | None = None,
    ) -> RemoteSession:
        """Return the session of that name, stored or new, as `ResilientClient.session`: use it as an async context
        manager. What is given is stored when the block is entered.
        """
        return RemoteSession(self._inside, name, given(system, route, model, context), self._host)

    @property
    def sessions(self) -> RemoteSessions:
        """All sessions that the server keeps for this client's key."""
        return RemoteSessions(self._inside, self._host)

    # -- the server

    async def models(self) -> Mapping[str, object]:
        """Return what the key may use: `models` and `routes`, two lists."""
        return await self._host.run(partial(self._inside.mapping, "models", {}))

    async def tree(self) -> Mapping[str, object]:
        """Return every actor of the server as it stands. Raises `AccessDeniedError` where the key is no admin's."""
        return await self._host.run(partial(self._inside.mapping, "tree", {}))

    async def stats(self) -> Mapping[str, object]:
        """Return what the server has counted, and how it stands. Raises `AccessDeniedError` as `tree`."""
        return await self._host.run(partial(self._inside.mapping, "stats", {}))

    async def invalidate(self, model: str = "*", text: str = "*") -> int:
        """Drop every answer in the server's cache that matches, as `ResilientClient.invalidate`; return how many.

        Raises `ConfigError` where the cache is off or a glob too long, and `AccessDeniedError` as `tree`.
        """
        return await self._host.run(partial(self._inside.invalidate, model, text))

    async def warm(
        self,
        prompts: Prompts,
        *,
        key: str | None = None,
        max_concurrency: int | None = None,
        **options: Unpack[RemoteOptions],
    ) -> Warmed:
        """Have the server ask what is not in its cache yet, so that it is; `key` names the key whose answers they are
        to be (default: this client's own).

        Raises `ConfigError` where the cache is off, and `AccessDeniedError` as `tree`.
        """
        return await self._host.run_for(
            lambda home: self._inside.warm(prompts, home, key=key, max_concurrency=max_concurrency, options=options)
        )

    def subscribe(self, types: Collection[str] | None = None, *, bound: int | None = None) -> RemoteEvents:
        """Return what happens in the server from now on, as events: use it as an async context manager.

        `types` names the kinds of event to be told (default: all), `bound` how many the server keeps for a reader who
        is slow. Reading raises `AccessDeniedError` as `tree`, and `NetworkError` where the connection is lost.
        """
        params: dict[str, object] = {} if types is None else {"types": sorted(types)}
        if bound is not None:
            params["bound"] = bound
        return RemoteEvents(Call(self._inside.link, "subscribe", params, credit=CREDIT), self._host)
