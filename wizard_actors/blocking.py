"""`BlockingClient`: the facade for plain programs, threads and notebooks."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from functools import partial
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn, ParamSpec, Self, TypeVar, Unpack, cast, overload

from wizard_actors.ask_options import AskOptions, delivery_of
from wizard_actors.blocking_session import BlockingSession, BlockingStoredSessions
from wizard_actors.blocking_stream import BlockingStream
from wizard_actors.cache import CacheState
from wizard_actors.client_builder import ClientBuilder
from wizard_actors.config import WizardConfig
from wizard_actors.embed.blocking_host import BlockingHost
from wizard_actors.embed.host import working
from wizard_actors.embed.place import place_outside
from wizard_actors.errors import InvalidPromptError, WizardError
from wizard_actors.event_stream import EventStream
from wizard_actors.metrics import MetricsSnapshot
from wizard_actors.persistent_session import settings_of
from wizard_actors.providers.base import Provider
from wizard_actors.reloading import Reloaded
from wizard_actors.request import Delivery
from wizard_actors.response_stream import AnswerSource, Taken
from wizard_actors.session import KEEP, TextOrKeep
from wizard_actors.storage.opening import Opener
from wizard_actors.strategies import RoutingStrategy
from wizard_actors.structured import Structured
from wizard_actors.supervisor import Supervisor, TreeNode
from wizard_actors.trio_client import Progress, Prompts, Settings, TrioClient, Warmed
from wizard_actors.types import Prompt, WizardResponse

__all__ = ["BlockingClient"]

T = TypeVar("T")
P = ParamSpec("P")


class BlockingClient:
    """Language models behind limits, breakers, retries and fallbacks, for programs without an event loop.

        with BlockingClient.open("wizard.toml") as client:
            response = client.generate("Why actors?")

    Any number of threads may use one client at once. It lives in a thread of its own, which runs Trio. A Ctrl-C, which
    Python raises in the main thread, stops the call that this thread waits for, and is raised once that has given
    everything back; a second one is raised at once.
    """

    def __init__(self, inside: TrioClient, host: BlockingHost[TrioClient] | None = None) -> None:
        if host is None or not isinstance(cast("object", inside), TrioClient):
            raise TypeError(f"a client is opened: with {type(self).__name__}.open({inside!r}) as client")
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
    ) -> Self:
        """Start the supervision tree of `config`, or of the TOML file at that path, and return its client.

        The arguments are those of `ResilientClient.open`. Use the client in a `with` block, or `close` it; one that is
        never closed is stopped when the program ends, or nobody holds it any more, with a `RuntimeWarning` that names
        the line of this call.

        Raises `ConfigError` for a configuration that cannot be used. Where the tree cannot go on, every call fails with
        `SupervisorError`, and `close` raises it.
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
        host = BlockingHost(opening, place_outside())
        return cls(host.open(), host)

    @classmethod
    def builder(cls) -> ClientBuilder[Self]:
        """Return a builder, for configurations made in code: `BlockingClient.builder().with_model(...).build()`."""
        return ClientBuilder(open=cls.open)

    def close(self) -> None:
        """Stop the tree. Calls in flight in other threads are waited for, at most `server.drain_timeout` seconds.

        Closing twice is closing once. A Ctrl-C ends the wait; the rest is done without anybody waiting.
        """
        self._host.close()

    if not TYPE_CHECKING:  # where types are checked, it has none of these

        async def __aenter__(self) -> NoReturn:
            self.close()
            raise TypeError("a BlockingClient's block is a plain one: with BlockingClient.open(...) as client")

        async def __aexit__(self, *error: object) -> None:
            """Never: it is not entered."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except WizardError:
            if error is None:
                raise

    @property
    def config(self) -> WizardConfig:
        """The configuration in force."""
        return self._inside.config

    def reload(self, config: Settings) -> Reloaded:
        """Go by `config`, or the TOML file at that path, from now on; as `ResilientClient.reload`."""
        return self._host.run(partial(self._inside.reload, config))

    # -- asking

    def generate(self, prompt: str | Prompt, **options: Unpack[AskOptions]) -> WizardResponse:
        """Return a whole answer, from the first model of the route that gives one; for the options see `AskOptions`.

        Raises what `ResilientClient.generate` raises.
        """
        request = self._inside.request(prompt, Delivery.WHOLE, options)
        return self._host.run(partial(self._inside.answer, request))

    @overload
    def generate_as(self, prompt: str | Prompt, kind: type[T], **options: Unpack[AskOptions]) -> Structured[T]: ...

    @overload
    def generate_as(
        self, prompt: str | Prompt, kind: Mapping[str, object], **options: Unpack[AskOptions]
    ) -> Structured[object]: ...

    def generate_as(self, prompt: str | Prompt, kind: object, **options: Unpack[AskOptions]) -> Structured[object]:
        """Return an answer as a value: an instance of the class `kind`, or a JSON value where that is a JSON Schema.

        As `ResilientClient.generate_as`. The class's code runs in the caller's own thread.
        """
        request, form = self._inside.request_as(prompt, kind, options)
        return self._host.run_for(lambda home: self._inside.answer_as(request, form, home))

    def stream(
        self,
        prompt: str | Prompt,
        *,
        delivery: Delivery | Literal["live", "buffered"] | None = None,
        **options: Unpack[AskOptions],
    ) -> BlockingStream:
        """Return the answer as a stream of events: use it as a context manager; the call begins with the first read,
        and ends with the block at the latest. The options and errors are those of `ResilientClient.stream`.
        """
        how = delivery_of(self.config.stream.delivery if delivery is None else delivery)
        request = self._inside.request(prompt, how, options)
        patience = self.config.stream.consumer_idle

        def begin(_taken: Taken) -> AnswerSource:
            return self._inside.source(request)

        return BlockingStream(
            lambda: self._host.source(begin, patience=patience),
            request.request_id,
        )

    def generate_batch(
        self,
        prompts: Iterable[str | Prompt],
        *,
        max_concurrency: int | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[AskOptions],
    ) -> list[WizardResponse | WizardError]:
        """Return one outcome for each prompt, in their order: the response, or the error that `generate` raises.

        As `ResilientClient.generate_batch`. `prompts` are taken, and `on_progress` is called, in the caller's thread.
        """
        batch = partial(self._inside.generate_batch, max_concurrency=max_concurrency, on_progress=on_progress)
        return self._host.run_for(lambda home: batch(_plain(prompts), home, **options))

    @overload
    def run(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    def run(self, function: Callable[..., object], *args: object, **kwargs: object) -> object:
        """Return what `function` returns where the supervision tree runs: an async function for Trio, or a plain one.

        As `ResilientClient.run`.
        """
        return self._host.run(working(function, *args, **kwargs))

    # -- sessions

    def session(
        self,
        name: str,
        *,
        system: TextOrKeep = KEEP,
        route: TextOrKeep = KEEP,
        model: TextOrKeep = KEEP,
        context: Mapping[str, object] | None = None,
    ) -> BlockingSession:
        """Return the session of that name: use it as a context manager; as `ResilientClient.session`."""
        settings = settings_of(system, route, model, context)
        return BlockingSession(self._inside, self._inside.sessions.held(name, settings), self._host)

    @property
    def sessions(self) -> BlockingStoredSessions:
        """All sessions that are stored: to be listed, loaded, removed and brought in."""
        return BlockingStoredSessions(self._inside, self._host)

    # -- the cache

    def warm(
        self,
        prompts: Iterable[str | Prompt],
        *,
        max_concurrency: int | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[AskOptions],
    ) -> Warmed:
        """Ask what is not in the cache yet, so that it is; as `ResilientClient.warm`."""
        warm = partial(self._inside.warm, max_concurrency=max_concurrency, on_progress=on_progress)
        return self._host.run_for(lambda home: warm(_plain(prompts), home, **options))

    def invalidate(self, model: str = "*", text: str = "*") -> int:
        """Drop every cached answer that matches, and return how many; as `ResilientClient.invalidate`."""
        return self._host.run(partial(self._inside.invalidate, model, text))

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


def _plain(prompts: Iterable[str | Prompt]) -> Prompts:
    if isinstance(prompts, AsyncIterable) and not isinstance(prompts, Iterable):
        raise InvalidPromptError("an async iterable of prompts waits on an event loop, and there is none here")
    return prompts
