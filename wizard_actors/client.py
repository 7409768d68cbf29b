"""`ResilientClient`: the facade that programs under Trio or asyncio use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Final, Generic, Literal, NoReturn, ParamSpec, Self, TypeVar, Unpack, cast, overload

import trio

from wizard_actors.ask_options import AskOptions, delivery_of
from wizard_actors.bells import under_asyncio
from wizard_actors.cache import CacheState
from wizard_actors.client_builder import ClientBuilder
from wizard_actors.config import WizardConfig
from wizard_actors.embed.host import Here, Host, working
from wizard_actors.embed.place import Place, place_outside
from wizard_actors.errors import InvalidStateTransitionError, UnsupportedError, WizardError
from wizard_actors.event_stream import EventStream
from wizard_actors.metrics import MetricsSnapshot
from wizard_actors.persistent_session import PersistentSession, StoredSessions, settings_of
from wizard_actors.providers.base import Provider
from wizard_actors.reloading import Reloaded
from wizard_actors.request import Delivery
from wizard_actors.response_stream import AnswerSource, ResponseStream, Taken
from wizard_actors.session import KEEP, TextOrKeep
from wizard_actors.storage.opening import Opener
from wizard_actors.strategies import RoutingStrategy
from wizard_actors.structured import Structured
from wizard_actors.supervisor import Supervisor, TreeNode
from wizard_actors.trio_client import Progress, Prompts, Settings, TrioClient, Warmed
from wizard_actors.types import Prompt, WizardResponse

if TYPE_CHECKING:
    from wizard_actors.embed.asyncio_host import AsyncioHost

__all__ = ["ResilientClient"]

USE: Final = "async with {}.open(...) as client"
PLAIN: Final = "in a program without either, use a BlockingClient"

T = TypeVar("T")
C = TypeVar("C")
R = TypeVar("R")
P = ParamSpec("P")


class ResilientClient:
    """Language models behind limits, breakers, retries and fallbacks, for as long as its block lasts.

        async with ResilientClient.open("wizard.toml") as client:
            response = await client.generate("Why actors?")

    Any number of tasks may use one client at once. Under Trio it lives in the event loop of its block; under asyncio,
    uvloop too, in a thread of its own that runs Trio, and may be used from any asyncio loop of the process. Plain
    programs use a `BlockingClient`.
    """

    def __init__(self, inside: TrioClient, host: Host | None = None) -> None:
        if host is None or not isinstance(cast("object", inside), TrioClient):
            raise TypeError(f"a client is opened: async with {type(self).__name__}.open({inside!r}) as client")
        self.events: EventStream = inside.events
        self.supervisor: Supervisor = inside.supervisor
        """The tree that the client runs in. Its actors are asked, and it is changed, under Trio: see `run`."""
        self._inside = inside
        self._host = host

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(model.name for model in self.config.models)})"

    @classmethod
    def open(
        cls,
        config: Settings,
        *,
        rng: Random | None = None,
        events: EventStream | None = None,
        providers: Mapping[str, Provider] | None = None,
        strategies: Mapping[str, RoutingStrategy] | None = None,
        storage: Opener | None = None,
    ) -> AbstractAsyncContextManager[Self]:
        """Return a block that starts the supervision tree of `config`, or of the TOML file at that path, and stops it
        when it is left.

        `rng` makes delays and choices repeatable; `events` is where everything that happens is published (default:
        a stream of the client's own); `providers` replaces the providers of the models that it names, for tests and for
        protocols of one's own; `strategies` are those that routes name `custom:NAME`; `storage` opens what keeps the
        sessions, in place of `sessions.storage`: a function without arguments that returns an async context manager.

        Leaving waits for calls in flight in other tasks, at most `server.drain_timeout` seconds. Under asyncio it does
        so in any task, and a client that is never closed is stopped when the program ends, or nobody holds it any more,
        with a `RuntimeWarning` that names the line of this call.

        Entering raises `UnsupportedError` outside of Trio and asyncio, and `ConfigError` for a configuration that
        cannot be used. Where the tree cannot go on, every call fails with `SupervisorError`, and leaving raises it;
        under Trio the block is cancelled.
        """
        opening = partial(
            TrioClient.open,
            config,
            rng=rng,
            events=events,
            providers=providers,
            strategies=strategies,
            storage=storage,
        )
        return ClientBlock(cls, opening, place_outside())

    @classmethod
    def builder(cls) -> ClientBuilder[AbstractAsyncContextManager[Self]]:
        """Return a builder, for configurations made in code: `ResilientClient.builder().with_model(...).build()`."""
        return ClientBuilder(open=cls.open)

    @property
    def config(self) -> WizardConfig:
        """The configuration in force."""
        return self._inside.config

    async def reload(self, config: Settings) -> Reloaded:
        """Go by `config`, or the TOML file at that path, from now on: models, routes, limits and all else that requests
        read are added, changed, disabled and removed, and no request is dropped.

        A request ends in the configuration in which it was made, a stream and a turn of a session too. Whoever waits
        for a limit or a slot goes on waiting, by the new settings. What has been learned of a model stays (an open
        circuit, statistics), unless it is asked elsewhere or otherwise: with another provider, address, key, proxy or
        name upstream its circuit begins anew. What its limiter knows (pauses, debts, the minute's tokens) is its
        account's, and stays where provider, address and key do. Providers and strategies given in code stay in force
        for their names. Returns what was changed; settings that take effect only after a restart are named, and
        `config` does not show them. Several reloads are done one after the other.

        Raises `ConfigError` for a configuration that cannot be used, and `ActorStoppedError` once the client closes:
        then all is as it was. Cancelled, it has either done all or nothing; an engine that is being started is waited
        for, for `local.start_timeout` at most.
        """
        return await self._host.run(partial(self._inside.reload, config))

    # -- asking

    async def generate(self, prompt: str | Prompt, **options: Unpack[AskOptions]) -> WizardResponse:
        """Return a whole answer, from the first model of the route that gives one; for the options see `AskOptions`.

        A cancelled call stops upstream, gives everything back, and only then returns.

        Raises `InvalidPromptError` and `ConfigError` before anything is sent; `DeadlineExceededError`; where every
        model failed, `FallbackError`, or with one model `RetryError` or that model's own error. All list every attempt.
        """
        request = self._inside.request(prompt, Delivery.WHOLE, options)
        return await self._host.run(partial(self._inside.answer, request))

    @overload
    async def generate_as(
        self, prompt: str | Prompt, kind: type[T], **options: Unpack[AskOptions]
    ) -> Structured[T]: ...

    @overload
    async def generate_as(
        self, prompt: str | Prompt, kind: Mapping[str, object], **options: Unpack[AskOptions]
    ) -> Structured[object]: ...

    async def generate_as(
        self, prompt: str | Prompt, kind: object, **options: Unpack[AskOptions]
    ) -> Structured[object]:
        """Return an answer as a value: an instance of the class `kind`, or a JSON value where that is a JSON Schema.

        `kind` is an attrs class, a dataclass, a TypedDict, a NamedTuple, a `msgspec.Struct`, a pydantic model, a type
        made of them and of JSON's own, such as `list[Person]`, or a mapping, the JSON Schema itself. What is sent is
        told by `json_schema_of`; models that are known not to follow schemas are skipped. For the options see
        `AskOptions`.

        An answer that does not fit, or that the class refuses with a ValueError or TypeError, is repaired once: what is
        wrong with it is told, and the route asked again, with the same options. `deadline` bounds both together. The
        class's code runs in the caller's own task or thread. A cancelled call stops as `generate` does.

        Raises `InvalidPromptError` for what cannot be asked for, and for a prompt with tools or a schema of its own;
        `ParseError`, whose `text` is the answer, where the second one does not fit either, or one is cut off at its
        limit of tokens; `ContentFilterError` where a filter broke it off; and what `generate` raises.
        """
        request, form = self._inside.request_as(prompt, kind, options)
        return await self._host.run_for(lambda home: self._inside.answer_as(request, form, home))

    def stream(
        self,
        prompt: str | Prompt,
        *,
        delivery: Delivery | Literal["live", "buffered"] | None = None,
        **options: Unpack[AskOptions],
    ) -> ResponseStream:
        """Return the answer as a stream of events: use it as an async context manager; the call begins with the first
        read, and ends with the block at the latest.

        The options are those of `generate`; `delivery` overrides the configured one. Before the first content any
        failure falls back unseen. After it, a live stream raises `StreamInterruptedError` with the partial text, or
        sends a `Reset`, as `stream.on_interruption` says. A stream that is not read for `stream.consumer_idle` seconds
        is ended: reading on raises `DeadlineExceededError`.
        """
        how = delivery_of(self.config.stream.delivery if delivery is None else delivery)
        request = self._inside.request(prompt, how, options)
        patience = self.config.stream.consumer_idle

        def begin(_taken: Taken) -> AnswerSource:
            return self._inside.source(request)

        return ResponseStream(
            lambda: self._host.source(begin, patience=patience),
            request.request_id,
        )

    async def generate_batch(
        self,
        prompts: Prompts,
        *,
        max_concurrency: int | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[AskOptions],
    ) -> list[WizardResponse | WizardError]:
        """Return one outcome for each prompt, in their order: the response, or the error that `generate` raises.

        At most `max_concurrency` are asked at once (default: `batch.max_concurrency`); the next prompt is taken when
        one has ended. `on_progress(done, total)` is called after each; `total` is None where nobody knows. Prompts are
        taken in the caller's own task, and `on_progress` is called in its thread.

        A batch is patient: where a prompt is refused for now (a rate limit, an open circuit, full slots, too many calls
        in flight) all wait, and it is asked again, unless the wait named is longer than 10 minutes. `deadline` bounds
        each prompt from when it is first asked, waits included. What was sent and failed is an outcome.

        Raises `ConfigError` for options that no prompt could be asked with, and any error of `prompts` and
        `on_progress`: the outcomes so far are lost then. Cancelled, it leaves nothing running.
        """
        batch = partial(self._inside.generate_batch, max_concurrency=max_concurrency, on_progress=on_progress)
        return await self._host.run_for(lambda home: batch(prompts, home, **options))

    @overload
    async def run(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def run(self, function: Callable[..., object], *args: object, **kwargs: object) -> object:
        """Return what `function` returns where the supervision tree runs: an async function for Trio, or a plain one.

        For actors of one's own beside ours, from whatever event loop: `await client.run(ref.ask, message)`,
        `await client.run(client.supervisor.add, spec)`. Raises what `function` raises, `TypeError` for what is no
        function. Cancelled, it returns once `function` has ended, and what that has returned meanwhile is lost: ask for
        a grant, use it and give it back within one function.
        """
        return await self._host.run(working(function, *args, **kwargs))

    # -- sessions

    def session(
        self,
        name: str,
        *,
        system: TextOrKeep = KEEP,
        route: TextOrKeep = KEEP,
        model: TextOrKeep = KEEP,
        context: Mapping[str, object] | None = None,
    ) -> PersistentSession:
        """Return the session of that name, stored or new: use it as an async context manager.

        What is given is set when the block is entered: `system`, the system prompt; `route` or `model`, whom to ask
        where a turn does not say; `context`, values of the program's own, by name, in JSON's types. A session that has
        expired begins anew. Entering waits for a turn in progress where what is given changes what is stored.

        Raises `SerializationError` for a name, or values, that cannot be stored: a name has 1 to 200 characters, and no
        control character; `ConfigError` for a route or model that there is not. Entering raises `StorageError`, and
        `InvalidStateTransitionError` where the session is closed and what is given would change it.
        """
        settings = settings_of(system, route, model, context)
        return PersistentSession(self._inside, self._inside.sessions.held(name, settings), self._host)

    @property
    def sessions(self) -> StoredSessions:
        """All sessions that are stored: to be listed, loaded, removed and brought in."""
        return StoredSessions(self._inside, self._host)

    # -- the cache

    async def warm(
        self,
        prompts: Prompts,
        *,
        max_concurrency: int | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[AskOptions],
    ) -> Warmed:
        """Ask what is not in the cache yet, so that it is; the answers are not kept elsewhere.

        Patient, bounded and telling its progress as `generate_batch`. Stale and static answers count as failed; an
        answer that may not be stored, for it is not complete, counts nowhere.

        Raises `ConfigError` where the cache is off, or is not used, and else as `generate_batch`: what is stored stays.
        """
        warm = partial(self._inside.warm, max_concurrency=max_concurrency, on_progress=on_progress)
        return await self._host.run_for(lambda home: warm(prompts, home, **options))

    async def invalidate(self, model: str = "*", text: str = "*") -> int:
        """Drop every cached answer that a model of matching name gave to a prompt of matching text; return how many.

        Globs (`*`, `?`, `[a-z]`) match the whole name or text, at most 200 characters long. Raises `ConfigError` where
        the cache is off or a glob too long, `ActorError` where it does not answer.
        """
        return await self._host.run(partial(self._inside.invalidate, model, text))

    # -- looking

    def tree(self) -> TreeNode:
        """Return every actor as it stands: its state, restarts, last error, and how full its lanes are."""
        return self._host.look(self.supervisor.tree)

    def metrics(self) -> MetricsSnapshot:
        """Return what has been counted since the client was opened, and how everything stands now."""
        return self._host.look(self._inside.metrics)

    @property
    def cache(self) -> CacheState | None:
        """What the cache holds and has done; None where it is off, or has not started."""
        return self._inside.cache


class ClientBlock(AbstractAsyncContextManager[C], Generic[R, C]):
    """Opens a client where its program lives, and closes it; for one `async with`. `make` makes it of what `opening`
    opens under Trio; `name` is what it is called, `plain` what is said to a program without an event loop.
    """

    def __init__(
        self,
        make: Callable[[R, Host], C],
        opening: Callable[[], AbstractAsyncContextManager[R]],
        where: Place,
        *,
        name: str = "ResilientClient",
        plain: str = PLAIN,
    ) -> None:
        self._name, self._use, self._plain = name, USE.format(name), plain
        self._make = make
        self._opening = opening
        self._where = where
        self._entered = False
        self._native: AbstractAsyncContextManager[R] | None = None
        self._hosted: AsyncioHost[R] | None = None

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a client is opened by its block, and then has {name!r}: {self._use}")

    def __await__(self) -> NoReturn:
        raise TypeError(f"a client is opened by its block, not awaited: {self._use}")

    def __enter__(self) -> NoReturn:
        raise TypeError(f"a {self._name}'s block is asynchronous: {self._use}; {self._plain}")

    def __exit__(self, *error: object) -> None:
        """Never: it is not entered."""

    async def __aenter__(self) -> C:
        if self._entered:
            raise InvalidStateTransitionError(
                "a client is opened once: call open() for another", from_state="opened", to_state="created"
            )
        self._entered = True
        if trio.lowlevel.in_trio_task():
            self._native = self._opening()
            return self._make(await self._native.__aenter__(), Here(self._native))
        if not under_asyncio():
            raise UnsupportedError(
                f"a {self._name} runs under Trio or asyncio; {self._plain}",
                feature="event loop",
            )
        from wizard_actors.embed.asyncio_host import AsyncioHost  # who gets here has imported asyncio; nobody else pays

        self._hosted = AsyncioHost(self._opening, self._where)
        return self._make(await self._hosted.open(), self._hosted)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._native is not None:
            return await self._native.__aexit__(kind, error, trace)  # noqa: ASYNC102 - its own affair
        if self._hosted is not None:
            try:
                await self._hosted.close()  # noqa: ASYNC102 - it outlasts any cancel, for the drain timeout
            except WizardError:
                if error is None:
                    raise
        return None
