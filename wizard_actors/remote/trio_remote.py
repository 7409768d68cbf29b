"""The client of a server as it is under Trio, for whichever host its callers use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Sized
from contextlib import asynccontextmanager
from random import Random
from typing import Final, Self, TypeVar

import trio

from wizard_actors.batch import check_batch
from wizard_actors.embed.errands import Home
from wizard_actors.errors import (
    ConfigError,
    ConfigProblem,
    DeadlineExceededError,
    InvalidPromptError,
    ParseError,
    WizardError,
)
from wizard_actors.frozen_json import LARGEST_INTEGER
from wizard_actors.json_values import Problem
from wizard_actors.protocol.failures import error_from
from wizard_actors.protocol.frames import Code, Fault
from wizard_actors.protocol.values import response_from, session_from, summary_from, summary_to
from wizard_actors.remote.address import Address
from wizard_actors.remote.call import Call, asked
from wizard_actors.remote.exchange import CREDIT
from wizard_actors.remote.handshake import Connect, connect_to
from wizard_actors.remote.link import Link
from wizard_actors.remote.options import RemoteOptions, deadline_of, options_to, said
from wizard_actors.remote.parts import Parts
from wizard_actors.request import CacheUse
from wizard_actors.schema import Form, Found, form_of
from wizard_actors.session_record import SessionRecord, SessionSummary
from wizard_actors.structured import Asking, Structured, prompt_for
from wizard_actors.trio_client import Progress, Prompts, Warmed
from wizard_actors.types import Prompt, WizardResponse

__all__ = ["LARGEST_MESSAGE", "TrioRemote", "created_at"]

T = TypeVar("T")

LARGEST_MESSAGE: Final = 64 * 2**20


class TrioRemote:
    """A server, over `link`. All methods are called in the thread in which Trio runs."""

    def __init__(self, link: Link) -> None:
        self.link = link

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        address: Callable[[], Address],
        *,
        connect_timeout: float = 10.0,
        max_message_size: int = LARGEST_MESSAGE,
        connect: Connect | None = None,
        rng: Random | None = None,
    ) -> AsyncIterator[Self]:
        """Connect to the server, and close the connection when the block is left; see `RemoteClient.open`.

        `connect` opens the stream, in place of a TCP connection to the address.
        """
        _check_bounds(connect_timeout, max_message_size)
        found = address()
        link = Link(
            found,
            connect or connect_to(found),
            connect_timeout=connect_timeout,
            max_message_size=max_message_size,
            rng=rng or Random(),
        )
        async with link.running():
            yield cls(link)

    # -- asking

    async def generate(self, prompt: str | Prompt, options: RemoteOptions) -> WizardResponse:
        """Return the whole answer."""
        params = {"prompt": said(prompt), **options_to(options)}
        return self._response(await asked(Call(self.link, "generate", params, deadline=deadline_of(options))))

    async def answer_as(self, prompt: str | Prompt, form: Form[T], home: Home, options: RemoteOptions) -> Structured[T]:
        """Return the answer to `prompt`, which asks for this form, as a value. It is read at home."""
        deadline, began_at = deadline_of(options), trio.current_time()

        async def ask(prompt: Prompt, cache: CacheUse) -> tuple[WizardResponse, bool]:
            now_: RemoteOptions = {**options, "cache": cache}
            if deadline is not None:
                left = deadline - (trio.current_time() - began_at)
                if left <= 0:
                    raise DeadlineExceededError(f"the deadline of {deadline:g} s has passed", deadline=deadline)
                now_["deadline"] = left
            response = await self.generate(prompt, now_)
            return response, response.cached

        async def read(text: str) -> Found[T] | tuple[Problem, ...]:
            found: list[Found[T] | tuple[Problem, ...]] = []
            await home.told(lambda: found.append(form.read(text)))()
            return found[0]

        return await Asking(ask, read, cache=options.get("cache", "use")).result(_as_prompt(prompt))

    def asked_as(self, prompt: str | Prompt, kind: object) -> tuple[Prompt, Form[object]]:
        """Return the prompt for an answer that is a `kind`, and its form. May be called in any thread."""
        form = form_of(kind)
        return prompt_for(_as_prompt(prompt), form), form

    # -- batches

    async def batch(
        self,
        prompts: Prompts,
        home: Home,
        *,
        max_concurrency: int | None,
        on_progress: Progress | None,
        options: RemoteOptions,
    ) -> list[WizardResponse | WizardError]:
        """Return one outcome for each prompt, in their order; see `RemoteClient.generate_batch`."""
        check_batch(prompts, 1 if max_concurrency is None else max_concurrency)
        params = options_to(options)
        deadline = deadline_of(options)
        if deadline is not None:
            params["deadline"] = deadline  # of each prompt: the server alone knows when each is asked
        if max_concurrency is not None:
            params["max_concurrency"] = max_concurrency
        outcomes: dict[int, WizardResponse | WizardError] = {}
        count = 0
        parts, total = self._parts(prompts, home), len(prompts) if isinstance(prompts, Sized) else None
        told = None if on_progress is None else home.told(on_progress)

        async def tell() -> None:
            if told is not None:
                await told(len(outcomes), total)

        while part := await parts.next():
            await self._part(part, count, params, outcomes, tell)
            count += len(part)
        if len(outcomes) != count:
            raise self._strange("a batch ended before every prompt had an outcome")
        return [outcomes[index] for index in range(count)]

    def _parts(self, prompts: Prompts, home: Home) -> Parts:
        return Parts(home.items(prompts), largest=self.link.max_request)

    async def _part(
        self,
        part: Sequence[object],
        first: int,
        params: Mapping[str, object],
        outcomes: dict[int, WizardResponse | WizardError],
        tell: Callable[[], Awaitable[None]],
    ) -> None:
        """Ask some prompts of a batch, the first of which is number `first`."""
        call = Call(self.link, "batch", {"prompts": part, **params}, credit=CREDIT)
        try:
            while (item := await call.next()) is not None:
                index = item.get("index")
                if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(part):
                    raise self._strange("an outcome of no prompt of the batch")
                outcomes[first + index] = self._outcome(item)
                await tell()
            call.result()
        finally:
            call.leave()

    def _outcome(self, item: Mapping[str, object]) -> WizardResponse | WizardError:
        return self._error(item["error"]) if "error" in item else self._response(item.get("response"))

    # -- sessions

    async def opened(self, name: str, settings: Mapping[str, object]) -> SessionRecord:
        """Return a session as it is now; `settings` are stored."""
        return session_from(await self.ask("session.create", {"session": name, **settings}))

    async def load(self, name: str) -> SessionRecord | None:
        """Return what is stored of a session; None where there is nothing."""
        found = await self.ask("session.history", {"session": name})
        return None if found is None else session_from(found)

    async def send(self, turn: Mapping[str, object], options: RemoteOptions) -> tuple[WizardResponse, float | None]:
        """Return the answer of a turn, once it is stored, and when its session was created; `turn` names that, and has
        the prompt as it travels.
        """
        params = {**turn, **options_to(options)}
        result = await asked(Call(self.link, "session.send", params, deadline=deadline_of(options)))
        return self._response(result), created_at(result)

    async def list(self, *, limit: int, after: SessionSummary | None, prefix: str) -> Sequence[SessionSummary]:
        """Return a page of the sessions."""
        params: dict[str, object] = {"limit": limit, "prefix": prefix}
        if after is not None:
            params["after"] = summary_to(after)
        sessions = (await self.mapping("session.list", params)).get("sessions")
        if not isinstance(sessions, list):
            raise self._strange("a list of sessions that is none")
        return [summary_from(each) for each in sessions]

    async def delete(self, name: str) -> bool:
        """Remove a session; False where it was not stored."""
        return (await self.mapping("session.delete", {"session": name})).get("deleted") is True

    # -- the server

    async def warm(
        self, prompts: Prompts, home: Home, *, key: str | None, max_concurrency: int | None, options: RemoteOptions
    ) -> Warmed:
        """Have the server ask what is not in its cache yet; see `RemoteClient.warm`."""
        check_batch(prompts, 1 if max_concurrency is None else max_concurrency)
        given: dict[str, object] = {"key": key, "max_concurrency": max_concurrency, "deadline": deadline_of(options)}
        params = {name: value for name, value in given.items() if value is not None} | options_to(options)
        warmed, count = Warmed(), 0
        parts = self._parts(prompts, home)
        while part := await parts.next():
            warmed = self._warmed(warmed, await self.mapping("cache.warm", {"prompts": part, **params}), count)
            count += len(part)
        return warmed

    def _warmed(self, warmed: Warmed, found: Mapping[str, object], first: int) -> Warmed:
        stored, already, listed = found.get("stored"), found.get("already"), found.get("failed", [])
        if not isinstance(stored, int) or not isinstance(already, int) or not isinstance(listed, list):
            raise self._strange("counts of the cache that are none")
        failed = list(warmed.failed)
        for each in listed:
            if not isinstance(each, list) or len(each) != 2 or not isinstance(each[0], int):
                raise self._strange("failures of the cache that are none")
            failed.append((first + each[0], self._error(each[1])))
        return Warmed(stored=warmed.stored + stored, already=warmed.already + already, failed=tuple(failed))

    async def invalidate(self, model: str, text: str) -> int:
        """Drop matching answers of the server's cache, and return how many."""
        dropped = (await self.mapping("cache.invalidate", {"model": model, "text": text})).get("dropped")
        if isinstance(dropped, bool) or not isinstance(dropped, int):
            raise self._strange("a count that is none")
        return dropped

    async def ask(self, method: str, params: Mapping[str, object]) -> object:
        """Return the result of a request."""
        return await asked(Call(self.link, method, params))

    async def mapping(self, method: str, params: Mapping[str, object]) -> Mapping[str, object]:
        """Return the result of a request, which is a mapping."""
        result = await self.ask(method, params)
        if not isinstance(result, Mapping):
            raise self._strange(f"a result of {method} that is none")
        return result

    # -- what a server says

    def _response(self, value: object) -> WizardResponse:
        return response_from(value, now=trio.current_time())

    def _error(self, value: object) -> WizardError:
        """Return an error that stands in a result, as the `data` of a JSON-RPC error says it."""
        if not isinstance(value, Mapping):
            raise self._strange("an error that is none")
        return error_from(Fault(Code.FAILED, "", data=value), now=trio.current_time())

    def _strange(self, what: str) -> ParseError:
        return ParseError(f"the server at {self.link.where} sent {what}", model=self.link.where)


def _as_prompt(prompt: str | Prompt) -> Prompt:
    if not isinstance(prompt, str | Prompt):
        raise InvalidPromptError(f"a prompt is a str or a Prompt, not {type(prompt).__name__}")
    return prompt if isinstance(prompt, Prompt) else Prompt(prompt)


def _check_bounds(connect_timeout: float, max_message_size: int) -> None:
    given: dict[str, object] = {"connect_timeout": connect_timeout, "max_message_size": max_message_size}
    problems = [
        ConfigProblem(name, f"must be more than 0, not {value!r}")
        for name, value in given.items()
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0
    ]
    if problems:
        raise ConfigError(problems, file="this client")


def created_at(result: object) -> float | None:
    """Return when the session of a turn was created, as the turn's result tells; None from a server that does not."""
    session = result.get("session") if isinstance(result, Mapping) else None
    instant = session.get("created_at") if isinstance(session, Mapping) else None
    return float(instant) if isinstance(instant, float | int) and abs(instant) < LARGEST_INTEGER else None
