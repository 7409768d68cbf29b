"""What one caller may do with a client: as the client itself, within what its key allows and has left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property, lru_cache, partial
from typing import Self, TypeAlias, Unpack

import trio
from attrs import evolve

from wizard_actors.ask_options import AskOptions
from wizard_actors.batch import Patient
from wizard_actors.config import DEFAULT_ROUTE, RouteConfig
from wizard_actors.errors import AccessDeniedError, ConfigError, ConfigProblem
from wizard_actors.request import Delivery, Request
from wizard_actors.response_stream import Source
from wizard_actors.server.access import Caller
from wizard_actors.server.callers_sessions import CallersSessions
from wizard_actors.server.limits import Limits, Reservation
from wizard_actors.sessions import TrioSessions
from wizard_actors.trio_client import TrioClient
from wizard_actors.types import End, Prompt, StreamEvent, WizardResponse

__all__ = ["CallersClient", "Limits"]

Begin: TypeAlias = Callable[[Callable[[], None]], Source]
"""Begins to answer; is given what to call where nobody has read the answer for too long."""


class CallersClient:
    """`client`, as `caller` may use it. Cheap: made for each request, so that it goes by the keys of that moment.

    Where the key has limits, they are asked before anything is sent: what a request probably takes is reserved, and
    settled when it has ended. What came from the cache costs no tokens, and what was not sent nothing at all.
    """

    def __init__(self, client: TrioClient, caller: Caller, limits: Limits) -> None:
        self.caller = caller
        self._client = client
        self._limits = limits

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
        if "tenant" in options:
            raise _of_the_call(ConfigProblem("tenant", "is no option of a request here", "each key has its own"))
        route, model = self._route(options.get("route")), options.get("model")
        if model is not None:
            self._check("model", model, self.caller.models)
        asked: AskOptions = {**options, "route": route, "tenant": self.caller.tenant}
        request = self._client.request(prompt, delivery, asked, like=like)
        if self.caller.models is None:
            return request
        left = _left(request.route, self.caller.models)
        if left is None:
            raise self._denied(f"none of the models of the route {route!r}")
        return evolve(request, route=left)

    @trio.lowlevel.enable_ki_protection
    async def answer(self, request: Request) -> WizardResponse:
        """Return the whole answer. Raises what the client raises; before anything is sent, `RateLimitError` (source
        "limiter") where the key is over a limit, with `retry_after`.
        """
        if not self._limits.bound(self.caller.name):
            return await self._client.answer(request)
        with request.hold or nullcontext():
            reservation = await self.reserve(request)
            response: WizardResponse | None = None
            try:
                response = await self._client.answer(request)
                return response
            finally:
                reservation.settle(response)

    def source(self, request: Request, *, on_lost: Callable[[], None] | None = None) -> Source:
        """Return the events of the answer; the first read raises what `answer` does. `on_lost` is called where nobody
        has read them for too long.
        """
        if not self._limits.bound(self.caller.name):
            return self._client.source(request, on_lost=on_lost)

        def begin(lost: Callable[[], None]) -> Source:
            return self._client.source(request, on_lost=lost)

        return _LimitedSource(self, request, begin, on_lost)

    def room(self, route: RouteConfig) -> int | None:
        """Return the context window of the first model of `route` that has a known one, in tokens."""
        return self._client.room(route)

    async def generate(self, prompt: str | Prompt, **options: Unpack[AskOptions]) -> WizardResponse:
        """Return the whole answer to a prompt; raises what `request` and `answer` raise."""
        return await self.answer(self.request(prompt, Delivery.WHOLE, options))

    def patient(self, options: AskOptions) -> Patient[str | Prompt]:
        """Return the work of a batch, which waits out refusals, also those of the key's own limits. Raises what is
        wrong with the options.
        """
        self.request("?", Delivery.WHOLE, options)
        ask = partial(self.generate, **options)
        return Patient(ask, rng=self._client.shared.rng, deadline=options.get("deadline"))

    # -- looking

    def models(self) -> dict[str, object]:
        """Return what the caller may use, in JSON's types: the names of models and routes, and of each route's chain
        what is left for it.
        """
        config, caller = self._client.config, self.caller
        enabled = [model.name for model in config.models if model.enabled]
        models = [name for name in enabled if caller.models is None or name in caller.models]
        routes = {
            route.name: [name for name in route.chain if name in models]
            for route in (config.fallback, *config.routes)
            if caller.routes is None or route.name in caller.routes
        }
        return {
            "models": [{"name": name} for name in models],
            "routes": [{"name": name, "models": chain} for name, chain in routes.items() if chain],
        }

    # -- what the key allows

    def _route(self, named: str | None) -> str:
        allowed = self.caller.routes
        if named is not None:
            self._check("route", named, allowed)
            return named
        return DEFAULT_ROUTE if allowed is None or DEFAULT_ROUTE in allowed else allowed[0]

    def _check(self, what: str, name: str, allowed: Sequence[str] | None) -> None:
        if allowed is not None and name not in allowed:
            raise self._denied(f"the {what} {name!r}; {what}s for it: {', '.join(allowed)}")

    def _denied(self, what: str) -> AccessDeniedError:
        return AccessDeniedError(f"the key {self.caller.name!r} may not use {what}", key=self.caller.name)

    async def reserve(self, request: Request) -> Reservation:
        """Return leave from the key's limiters, to be settled; see `Limits.reserve`."""
        return await self._limits.reserve(self.caller.name, request, self._client.shared.events)


def _of_the_call(problem: ConfigProblem) -> ConfigError:
    """Return the error for an option that is wrong: no configuration is."""
    error = ConfigError([problem])
    error.message = error.message.replace("configuration", "this call", 1)
    return error


@lru_cache(maxsize=256)  # a configuration is checked when it is made
def _left(route: RouteConfig, models: tuple[str, ...]) -> RouteConfig | None:
    """Return the route with those of its models alone; None where none is left."""
    chain = tuple(name for name in route.chain if name in models)
    if chain == route.chain:
        return route
    return evolve(route, chain=chain) if chain else None


class _LimitedSource:
    """The events of one answer, for which leave is got with the first read."""

    def __init__(
        self, asker: CallersClient, request: Request, begin: Begin, on_lost: Callable[[], None] | None
    ) -> None:
        self._asker = asker
        self._request = request
        self._begin = begin
        self._on_lost = on_lost
        self._source: Source | None = None
        self._reservation: Reservation | None = None
        self._over = False

    def __aiter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> StreamEvent:
        if self._over:
            raise StopAsyncIteration
        try:
            if self._source is None:
                self._reservation = await self._asker.reserve(self._request)
                self._source = self._begin(self._lost)
            event = await anext(self._source)
        except BaseException:
            self._settle(None)
            raise
        if isinstance(event, End):
            self._settle(event.response)
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
