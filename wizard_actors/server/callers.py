"""What one caller may do with a client: as the client itself, within what its key allows and has left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, lru_cache
from typing import Final, Self, TypeAlias, Unpack

import trio
from attrs import evolve

from wizard_actors.answering import SoFar
from wizard_actors.ask_options import AskOptions, of_the_call
from wizard_actors.batch import Patient
from wizard_actors.config import DEFAULT_ROUTE, RouteConfig
from wizard_actors.errors import AccessDeniedError, ConfigError, ConfigProblem
from wizard_actors.protocol.frames import shown_text
from wizard_actors.request import Delivery, Request
from wizard_actors.response_stream import AnswerSource
from wizard_actors.server.access import Access, Caller
from wizard_actors.server.callers_sessions import CallersSessions
from wizard_actors.server.limits import Limits
from wizard_actors.server.reservation import Reservation
from wizard_actors.sessions import TrioSessions
from wizard_actors.strategies import CHAIN_ORDER
from wizard_actors.trio_client import TrioClient
from wizard_actors.types import End, Prompt, StreamEvent, WizardResponse

__all__ = ["CallersClient", "CallersSource", "fields_refused"]

HARMLESS: Final = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "output_config",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "thinking",
        "top_k",
        "verbosity",
    }
)
"""Fields that every key may have passed on as they are: they neither name a model nor change what limits count by."""

FIELDS_SHOWN: Final = 5
"""Of a prompt's `extra`, in an error."""

Begin: TypeAlias = Callable[[Callable[[], None] | None], AnswerSource]
"""Begins to answer; is given what to call where nobody has read the answer for too long."""


class CallersClient:
    """`client`, as `caller` may use it: by its key in `access` as it is when something is asked, each prompt of a batch
    too. Cheap: made for each request.

    Everything that asks raises `AccessDeniedError` where the key is good no more. Where it has limits, they are asked
    before anything is sent: what a request probably takes is reserved, and settled when it has ended. What came from
    the cache costs no tokens, and what was not sent nothing at all.
    """

    def __init__(self, client: TrioClient, caller: Caller, limits: Limits, access: Access) -> None:
        self._caller = caller
        self._client = client
        self._access = access
        self._limits = limits

    @property
    def caller(self) -> Caller:
        """Who asks, by its key as it is now. Raises `AccessDeniedError` where that is good no more."""
        self._caller = self._access.current(self._caller)
        return self._caller

    @cached_property
    def sessions(self) -> CallersSessions:
        """The caller's sessions, and no others."""
        client = self._client
        sessions = TrioSessions(client.keeping, self, client.config.sessions)
        return CallersSessions(sessions, self.caller.session_prefix)

    # -- asking

    def request(
        self, prompt: str | Prompt, delivery: Delivery, options: AskOptions, *, like: Request | None = None
    ) -> Request:
        """Return the request, for the models of its route that the key may use; its deadline counts from now.

        One that names no route goes the default one, or, where the key may not use that, the first of the key's.

        Raises `AccessDeniedError`, which names the route or model, where the key may not use it; `ConfigError`, also
        for a `tenant`: that is the key's own; `InvalidPromptError`.
        """
        return self._request(prompt, delivery, options, self.caller.tenant, like)

    def _request(
        self, prompt: str | Prompt, delivery: Delivery, options: AskOptions, tenant: str, like: Request | None = None
    ) -> Request:
        caller = self.caller
        if "tenant" in options:
            raise of_the_call([ConfigProblem("tenant", "is no option of a request here", "each key has its own")])
        self._check_extra(caller, prompt)
        route, model = self._route(caller, options.get("route")), options.get("model")
        if model is not None:
            self._check("model", model, self._models(caller))
        asked: AskOptions = {**options, "route": route, "tenant": tenant}
        request = self._client.request(prompt, delivery, asked, like=like)
        if caller.models is None:
            return request
        left = _left(request.route, caller.models)
        if left is None:
            raise _denied(caller, f"may use none of the models of the route {route!r}")
        return evolve(request, route=left)

    def request_for(self, name: str, prompt: Prompt, delivery: Delivery, options: AskOptions) -> Request | None:
        """Return the request for what `name` stands for: a route; or a model, which is asked first, and the others of
        its route after it: of the first one that has it and that the key may use, in their order, or, where its
        strategy knows several at once, by that. None: there is no such model or route.

        Raises what `request` raises.
        """
        config, caller = self._client.config, self.caller
        routes = [config.fallback, *config.routes]
        if name in {route.name for route in routes}:
            return self.request(prompt, delivery, {**options, "route": name})
        if name not in {model.name for model in config.models if model.enabled}:
            return None
        its = [route for route in routes if name in route.chain and _may_use(caller, route)]
        if not its:
            return self.request(prompt, delivery, {**options, "model": name})
        request = self.request(prompt, delivery, {**options, "route": its[0].name, "model": name})
        allowed = self._models(caller)
        return evolve(request, route=_led_by(its[0], name, None if allowed is None else tuple(allowed)))

    @trio.lowlevel.enable_ki_protection
    async def answer(self, request: Request, *, told: Callable[[SoFar], None] | None = None) -> WizardResponse:
        """Return the whole answer; `told` is called at its end, once anything was asked. Raises what the client raises;
        before anything is sent, `RateLimitError` (source "limiter") where the key is over a limit, with `retry_after`,
        and `AccessDeniedError`.
        """
        with request.hold or nullcontext():
            reservation = await self.reserve(request)
            response: WizardResponse | None = None
            try:
                response = await self._client.answer(request, told=told)
                return response
            finally:
                reservation.settle(response)

    def source(self, request: Request, *, on_lost: Callable[[], None] | None = None) -> CallersSource:
        """Return the events of the answer; the first read raises what `answer` does. `on_lost` is called where nobody
        has read them for too long.
        """

        def begin(lost: Callable[[], None] | None) -> AnswerSource:
            return self._client.source(request, on_lost=lost)

        return CallersSource(self, request, begin, on_lost)

    def room(self, request: Request) -> int | None:
        """Return the context window of the first model of the request's route that has a known one, in tokens."""
        return self._client.room(request)

    async def generate(self, prompt: str | Prompt, **options: Unpack[AskOptions]) -> WizardResponse:
        """Return the whole answer to a prompt; raises what `request` and `answer` raise."""
        return await self.answer(self.request(prompt, Delivery.WHOLE, options))

    @contextmanager
    def patient(self, options: AskOptions, *, tenant: str | None = None) -> Iterator[Patient[str | Prompt]]:
        """Yield the work of a batch, which waits out refusals, also those of the key's own limits. With `tenant` its
        answers are cached for that one instead. Until the block is left, what a reload takes away is there for the
        batch as it began. Raises what is wrong with the options.
        """
        for_whom = self.caller.tenant if tenant is None else tenant
        draft = self.request("?", Delivery.WHOLE, options)

        async def ask(prompt: str | Prompt, *, deadline: float | None) -> WizardResponse:
            asked: AskOptions = {**options, "deadline": deadline}
            try:
                request = self._request(prompt, Delivery.WHOLE, asked, for_whom)
            except ConfigError:
                request = self._request(prompt, Delivery.WHOLE, asked, for_whom, draft)
            return await self.answer(request)

        with draft.hold or nullcontext():
            yield Patient(ask, rng=self._client.shared.rng, deadline=options.get("deadline"))

    # -- looking

    @property
    def caching(self) -> bool:
        """Whether answers are cached at all."""
        return self._client.shared.cache is not None

    def models(self) -> dict[str, object]:
        """Return what the caller may use, in JSON's types: the names of models and routes, and of each route's chain
        what is left for it.
        """
        models, routes = self._usable()
        return {
            "models": [{"name": name} for name in models],
            "routes": [{"name": name, "models": chain} for name, chain in routes.items()],
        }

    def names(self) -> Sequence[str]:
        """Return the names of the models and the routes that the caller may use, each name once."""
        models, routes = self._usable()
        return tuple(dict.fromkeys([*models, *routes]))

    def _usable(self) -> tuple[Sequence[str], Mapping[str, Sequence[str]]]:
        config, caller = self._client.config, self.caller
        allowed = self._models(caller)
        enabled = [model.name for model in config.models if model.enabled]
        models = [name for name in enabled if allowed is None or name in allowed]
        routes = {
            route.name: [name for name in route.chain if name in models]
            for route in (config.fallback, *config.routes)
            if _may_use(caller, route)
        }
        return models, {name: chain for name, chain in routes.items() if chain}

    # -- what the key allows

    def _models(self, caller: Caller) -> Sequence[str] | None:
        """Return the models that the key may ask by name: those that it names, else those of its routes."""
        if caller.models is not None or caller.routes is None:
            return caller.models
        config = self._client.config
        chains = [route.chain for route in (config.fallback, *config.routes) if route.name in caller.routes]
        return tuple(dict.fromkeys(name for chain in chains for name in chain))

    def _route(self, caller: Caller, named: str | None) -> str:
        allowed = caller.routes
        if named is not None:
            self._check("route", named, allowed)
            return named
        return DEFAULT_ROUTE if allowed is None or DEFAULT_ROUTE in allowed else allowed[0]

    def _check(self, what: str, name: str, allowed: Sequence[str] | None) -> None:
        if allowed is not None and name not in allowed:
            raise _denied(self._caller, f"may not use the {what} {name!r}; {what}s for it: {', '.join(allowed)}")

    def _check_extra(self, caller: Caller, prompt: str | Prompt) -> None:
        """Check what goes to providers as it is: it could name another model, or take away what limits count by."""
        names = fields_refused(caller, prompt)
        if not names:
            return
        fields = ", ".join(shown_text(name) for name in names[:FIELDS_SHOWN])
        raise _denied(caller, f"may not send fields of its own to providers ({fields}): it lacks `extra = true`")

    async def reserve(self, request: Request) -> Reservation:
        """Return leave to ask, to be settled; see `Limits.reserve`. Raises `AccessDeniedError` where the key is good no
        more, also by the time it has leave: then its limits may be gone, too; and where it may not send what the prompt
        has. One that has another name by then has other limits, and needs theirs.
        """
        name = self.caller.name
        while True:
            reservation = await self._limits.reserve(name, request, self._client.shared.events)
            try:
                now = self._access.current(self._caller)
                self._check_extra(now, request.prompt)  # a turn's prompt is made after its request
            except BaseException:
                reservation.settle(None)
                raise
            if now.name == name:
                return reservation
            reservation.settle(None)
            name = now.name


def fields_refused(caller: Caller, prompt: str | Prompt) -> Sequence[str]:
    """Return the fields of a prompt that would go to a provider as they are, and that this caller may not send."""
    if caller.extra or not isinstance(prompt, Prompt) or not prompt.extra:
        return ()
    return [name for name in prompt.extra if name not in HARMLESS]


def _denied(caller: Caller, what: str) -> AccessDeniedError:
    return AccessDeniedError(f"the key {caller.name!r} {what}", key=caller.name)


@lru_cache(maxsize=256)  # a configuration is checked when it is made
def _left(route: RouteConfig, models: tuple[str, ...]) -> RouteConfig | None:
    """Return the route with those of its models alone; None where none is left."""
    chain = tuple(name for name in route.chain if name in models)
    if chain == route.chain:
        return route
    return evolve(route, chain=chain) if chain else None


def _may_use(caller: Caller, route: RouteConfig) -> bool:
    return caller.routes is None or route.name in caller.routes


@lru_cache(maxsize=256)
def _led_by(route: RouteConfig, model: str, allowed: tuple[str, ...] | None) -> RouteConfig:
    """Return the route with `model` first. A strategy that would put another one first is not asked."""
    others = (name for name in route.chain if name != model and (allowed is None or name in allowed))
    strategy = route.strategy if route.strategy in CHAIN_ORDER else "sequential"
    return evolve(route, chain=(model, *others), strategy=strategy)


class CallersSource:
    """The events of one answer, for which leave is got with the first read."""

    def __init__(
        self, asker: CallersClient, request: Request, begin: Begin, on_lost: Callable[[], None] | None
    ) -> None:
        self._asker = asker
        self._request = request
        self._begin = begin
        self._on_lost = on_lost
        self._source: AnswerSource | None = None
        self._reservation: Reservation | None = None
        self._over = False

    @property
    def so_far(self) -> SoFar | None:
        """How the request stands now; None before it was begun."""
        return None if self._source is None else self._source.so_far

    def __aiter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> StreamEvent:
        if self._over:
            raise StopAsyncIteration
        try:
            if self._source is None:
                reservation = self._reservation = await self._asker.reserve(self._request)
                self._source = self._begin(self._lost if reservation.limited else self._on_lost)
            event = await anext(self._source)
        except BaseException:
            self._settle(None)
            raise
        if isinstance(event, End):
            self._settle(event.response)
        elif self._reservation is not None and self._reservation.limited:
            self._reservation.saw(event)
        return event

    async def aclose(self) -> None:
        """Stop the call, if it is not over, and give everything back."""
        self._over = True
        try:
            if self._source is not None:
                await self._source.aclose()
            elif self._request.hold is not None:
                self._request.hold.release()  # nobody else does where nothing was read
        finally:
            self._settle(None)

    def _lost(self) -> None:
        if self._reservation is not None:
            self._reservation.lost()
        self._settle(None)
        if self._on_lost is not None:
            self._on_lost()

    def _settle(self, response: WizardResponse | None) -> None:
        if self._reservation is not None:
            self._reservation.settle(response)
