"""Every wire protocol over HTTP: the part that waits on sockets, which is the same for all of them.

What is sent is made by a `Wire`, what comes back is read by its `Reader`, from bytes that `answer` has decoded, and
judged in `refusals`.
"""

from __future__ import annotations

import math
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType, TracebackType
from typing import Final, Self

import httpx
import trio
from attrs import evolve, field, frozen

from wizard_actors.config import Api, ModelConfig, Secret, Upstream, preset_of
from wizard_actors.conversion import from_httpx
from wizard_actors.errors import ConfigError, ConfigProblem, ProviderError
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.base import Call
from wizard_actors.providers.headers import parse_limits
from wizard_actors.providers.http import Body, send, user_agent
from wizard_actors.providers.masking import excerpt, secret_forms
from wizard_actors.providers.refusals import Advice, ErrorBody, Head
from wizard_actors.providers.refused_fields import refuses_stream_beside
from wizard_actors.providers.wire import Outgoing, Wire
from wizard_actors.retry import parse_retry_after
from wizard_actors.types import LimitHeaders, ModelEvent

__all__ = ["HttpAnswer", "HttpProvider", "HttpSettings", "endpoint"]

ERROR_BODY_TIME: Final = 1.0
"""Seconds for which an error's body is read: what it says matters less than its status."""

REFUSING_FIELDS: Final = frozenset({400, 422})
"""The statuses under which an upstream refuses a field that it does not know."""

NO_SUCH_PATH: Final = frozenset({404, 405})

ADDRESSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "anthropic": "that of Anthropic's protocol ends before /v1/messages",
        "gemini": "that of Gemini's protocol ends before /v1beta",
        "azure": "check it, api_version, and `model`, which is the deployment's name",
    }
)
"""What to know of a base URL, by provider."""

OPENAI_ADDRESS: Final = "that of OpenAI and its compatibles ends in /v1"

REQUEST_ID_HEADERS: Final = ("x-request-id", "request-id", "apim-request-id")


@frozen(kw_only=True)
class HttpSettings:
    """One model behind a wire protocol over HTTP.

    `name` is the configured name, for errors; `model` the upstream's id; `provider` the configured kind; `base_url`
    what stands before the protocol's own path. `headers` and `extra` (fields of the body) overrule what is sent
    otherwise. `max_tokens` is sent where a prompt does not say. `connect_timeout` is in seconds, for the name, the
    connection and TLS. `api_version` is Azure's. `proxy` is the `host:port` of the proxy on the way, for errors.
    """

    name: str
    model: str
    base_url: str
    provider: str = "openai"
    api: Api = "chat"
    api_key: Secret | None = None
    headers: Mapping[str, Secret] = field(factory=dict)
    upstream: Upstream = "auto"
    connect_timeout: float = 5.0
    max_tokens: int | None = None
    api_version: str | None = None
    extra: Mapping[str, object] = field(factory=dict)
    proxy: str | None = None

    @classmethod
    def from_config(cls, config: ModelConfig) -> Self:
        """Take what concerns the protocol from a model's configuration, and read its key.

        Raises `ConfigError` where no address is known, or the key cannot be read.
        """
        preset = preset_of(config.provider)
        base_url = config.base_url or (None if preset is None else preset.base_url)
        if base_url is None:
            raise ConfigError(
                [ConfigProblem(f"models.{config.name}.base_url", f"is required for the provider {config.provider!r}")]
            )
        return cls(
            name=config.name,
            model=config.model,
            base_url=base_url,
            provider=config.provider,
            api=config.api,
            api_key=config.api_key(),
            headers=config.headers,
            upstream=config.upstream,
            connect_timeout=config.timeouts.connect,
            max_tokens=config.max_tokens,
            api_version=config.api_version,
            extra=config.extra,
            proxy=None if config.proxy is None else httpx.URL(config.proxy).netloc.decode("ascii"),
        )


class HttpProvider:
    """A `Provider` for one model behind a wire protocol.

    It asks for a stream unless `upstream` says otherwise or the model has refused it; see
    `wizard_actors.providers.base` for what `open` promises. `auth` are the headers that carry the key. `http` is shared
    and not closed here; `wall_clock` returns seconds since 1970, for headers that give dates.
    """

    def __init__(
        self,
        settings: HttpSettings,
        wire: Wire,
        http: httpx.AsyncClient,
        *,
        auth: Mapping[str, str],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.wire = wire
        self.http = http
        self.wall_clock = wall_clock
        self.headers = _headers(settings, auth)
        self._raw_headers = [(name.encode(), value.encode()) for name, value in self.headers]
        self._names_host = any(name == "host" for name, _ in self.headers)
        self.secrets = secret_forms(settings.api_key, settings.headers)
        self.advice = _advice(settings, auth)
        # None of its own timeouts but this one: the attempt's deadlines bound everything else.
        self.timeout = httpx.Timeout(None, connect=settings.connect_timeout).as_dict()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings.name!r} at {httpx.URL(self.settings.base_url).host}>"

    @property
    def streams(self) -> bool:
        """Whether the next call asks for a stream."""
        return self.wire.streams

    def advice_on(self, url: httpx.URL) -> Advice:
        """Return what to do where nothing is found at `url`. Only what stands below the base URL is repeated."""
        below = url.path.removeprefix(httpx.URL(self.settings.base_url).path.rstrip("/"))
        return evolve(self.advice, path=f"asked for {below} below its base_url: {self.advice.path}")

    def open(self, call: Call) -> AbstractAsyncContextManager[HttpAnswer]:
        """Send the call. Leaving reads a finished answer to its end, for 50 ms at most, else closes the connection."""
        return _Exchange(self, call)

    def learn(self, lessons: Sequence[ErrorBody]) -> None:
        """Take what refusals have taught into the dialect of later calls, beside what other calls have taught it."""
        for refused in lessons:
            if not refuses_stream_beside(refused):
                self.wire = self.without(self.wire, refused) or self.wire
        self.wire = self.wire.lasting()

    def without(self, wire: Wire, refused: ErrorBody) -> Wire | None:
        """Return the dialect without what a refusal names, None where it names nothing that can go."""
        return wire.without(refused, keep_stream=self.settings.upstream == "stream")

    async def ask(self, call: Call, wire: Wire, outgoing: Outgoing) -> HttpAnswer:
        """Send the call as the dialect has written it, and return its answer once the head is here; the caller closes
        it. Raises what `open` raises.
        """
        # With its stream, host and length given, httpx has nothing to find out: that halves what a request costs.
        headers = [
            (b"host", outgoing.url.netloc),
            *self._raw_headers,
            (b"x-request-id", _header_value(call.request_id).encode("latin-1")),
            (b"content-length", b"%d" % len(outgoing.body)),
        ]
        request = httpx.Request(
            "POST",
            outgoing.url,
            headers=headers[1:] if self._names_host else headers,
            stream=httpx.ByteStream(outgoing.body),
            extensions={"timeout": self.timeout},
        )
        request.read()  # transports look whether the body is here already
        try:
            response = await send(self.http, request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise from_httpx(error, model=self.settings.name, proxy=self.settings.proxy) from error
        return HttpAnswer(response, call, wire, self)


class _Exchange(AbstractAsyncContextManager["HttpAnswer"]):
    """One call, from the request to the end of its answer; asks again where the upstream refuses a field."""

    def __init__(self, provider: HttpProvider, call: Call) -> None:
        self._provider = provider
        self._call = call
        self._answer: HttpAnswer | None = None

    async def __aenter__(self) -> HttpAnswer:
        provider, lessons = self._provider, list[ErrorBody]()
        wire = provider.wire
        outgoing = wire.request(self._call)
        while True:
            answer = await provider.ask(self._call, wire, outgoing)
            simpler = None
            try:
                simpler = await self._simpler(answer, wire, outgoing)
                if simpler is None:
                    self._answer = answer
            finally:
                if self._answer is None:
                    await answer.aclose()
            if simpler is None:
                if lessons and answer.status < 300:
                    provider.learn(lessons)  # remembered once it has helped
                return answer
            refused, wire, outgoing = simpler
            lessons.append(refused)

    async def _simpler(
        self, answer: HttpAnswer, wire: Wire, outgoing: Outgoing
    ) -> tuple[ErrorBody, Wire, Outgoing] | None:
        """Return a refusal, and how to ask without what it names; None where that would not change what is sent."""
        if answer.status not in REFUSING_FIELDS:
            return None
        refused = await answer.refusal()
        simpler = self._provider.without(wire, refused)
        if simpler is None:
            return None
        changed = simpler.request(self._call)
        return None if changed == outgoing else (refused, simpler, changed)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._answer is not None:
            await self._answer.aclose()


class HttpAnswer:
    """An `Answer` over one HTTP response."""

    def __init__(self, response: httpx.Response, call: Call, wire: Wire, provider: HttpProvider) -> None:
        wall_now, secrets = provider.wall_clock(), provider.secrets
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw}
        status = response.status_code
        ids = (headers[name] for name in REQUEST_ID_HEADERS if headers.get(name))
        self._head = Head(
            model=provider.settings.name,
            status=status,
            request_id=excerpt(next(ids, ""), secrets) or None,
            retry_after=parse_retry_after(headers, wall_now=wall_now) if status >= 400 else None,
            location=headers.get("location", ""),
            secrets=secrets,
            advice=provider.advice_on(response.request.url) if status in NO_SUCH_PATH else provider.advice,
        )
        self._proxy = provider.settings.proxy
        self._limits = parse_limits(headers, status=status, wall_now=wall_now)
        self._parser = AnswerParser(
            self._head, wire.reader(self._head), content_type=headers.get("content-type", ""), raw=call.raw
        )
        self._body = Body(response)
        self._until = math.inf

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._head.status

    @property
    def upstream_model(self) -> str | None:
        """What the provider says the model is called, None until it has said so."""
        return self._parser.upstream_model

    @property
    def limits(self) -> LimitHeaders | None:
        """What the response's headers say of rate limits."""
        return self._limits

    @property
    def upstream_id(self) -> str | None:
        """The provider's own id of this call: from the headers, else from the body once it is here."""
        return self._parser.upstream_id

    async def read(self) -> Sequence[ModelEvent] | None:
        """Wait for the next bytes and return the events in them, possibly none; None at the protocol's end.

        Raises the refusal of an error status and the error inside a stream, classified; `StreamInterruptedError` where
        the connection breaks before the answer is complete; `ParseError` for what cannot be understood. Events that
        came before an error are returned first. Cancelling closes the connection.
        """
        parser = self._parser
        if parser.failure is None and not parser.ended:
            events = await self._read()
            if events:
                return events
        if parser.failure is not None:
            raise parser.failure
        return None if parser.ended else ()

    async def refusal(self) -> ErrorBody:
        """Read what an error status comes with to its end, and return what it says."""
        while self._parser.failure is None:
            await self._read()
        return self._parser.refused or ErrorBody()

    async def aclose(self) -> None:
        """Give the connection back, or close it: at once, except for the 50 ms that a finished answer may take."""
        await self._body.aclose(drain=self._parser.finished or self._parser.ended)

    async def _read(self) -> list[ModelEvent]:
        parser = self._parser
        data: bytes | None = None
        try:
            data = await (self._body.read() if self.status < 300 else self._read_error())
        except (httpx.HTTPError, zlib.error) as error:
            # After its last word a broken connection takes nothing from an answer; under an error status the status
            # says more than the connection.
            if not parser.finished and self.status < 300:
                raise self._broken(error) from error
            data = None
        return parser.close() if data is None else parser.feed(data)

    async def _read_error(self) -> bytes | None:
        """Wait for more of an error's body, as long as there is time for it; None at its end."""
        if self._until == math.inf:
            self._until = trio.current_time() + ERROR_BODY_TIME
        with trio.CancelScope(deadline=self._until):
            return await self._body.read()
        return None

    def _broken(self, error: httpx.HTTPError | zlib.error) -> ProviderError:
        head = self._head
        if isinstance(error, httpx.HTTPError):
            return from_httpx(
                error, model=head.model, status=head.status, request_id=head.request_id, proxy=self._proxy
            )
        return head.parse_error(f"cannot be decompressed: {error}")


# -- what stays the same for every call --------------------------------------------------------------


def endpoint(settings: HttpSettings, path: str, query: Mapping[str, str] | None = None) -> httpx.URL:
    """Return the URL of `path` below the model's base URL; a query that stands there stays, and `query` is added.

    Raises `ConfigError` where the base URL is none that could be sent to.
    """
    key = f"models.{settings.name}.base_url"
    try:
        url = httpx.URL(settings.base_url)
        url.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigError([ConfigProblem(key, "is not a URL")]) from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigError([ConfigProblem(key, "must be a URL with http or https and a host")])
    whole = url.copy_with(path=url.path.rstrip("/") + path)
    return whole.copy_merge_params(query) if query else whole


def _headers(settings: HttpSettings, auth: Mapping[str, str]) -> list[tuple[str, str]]:
    headers = {
        "accept": "application/json",
        # A proxy that compresses a stream holds it back until it has enough to compress.
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": user_agent(),
    }
    headers.update(auth)
    headers.update({name.lower(): value.reveal() for name, value in settings.headers.items()})
    for name, value in headers.items():
        if not (name.isascii() and value.isascii() and name.isprintable() and value.isprintable()):
            # Found here, because the HTTP library's own error would quote the value.
            raise ConfigError([ConfigProblem(f"models.{settings.name}", f"the header {name!r} holds odd characters")])
    return list(headers.items())


def _advice(settings: HttpSettings, auth: Mapping[str, str]) -> Advice:
    path = ADDRESSES.get(settings.provider, OPENAI_ADDRESS)
    preset = preset_of(settings.provider)
    sent = {name.lower() for name in (*auth, *settings.headers)}
    if settings.api_key is not None or sent & {"authorization", "api-key" if preset is None else preset.key_header}:
        return Advice(path=path)
    key = "no key was sent: name a variable or a file that holds it, api_key_env or api_key_file"
    if preset is not None and preset.key_env is not None:
        own = settings.base_url == preset.base_url
        key += f"; {preset.key_env} counts by itself" + ("" if own else " only where there is no base_url")
    return Advice(key=key, path=path, keyless=True)


def _header_value(request_id: str) -> str:
    return re.sub(r"[^\x21-\x7e]", "_", request_id)
