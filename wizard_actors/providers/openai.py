"""The OpenAI provider: Chat Completions, of OpenAI itself and of everything compatible with it.

This is the thin part, which waits on sockets. What is sent is made in `openai_request`, what comes back is read in
`openai_answer` and judged in `refusals`.
"""

from __future__ import annotations

import math
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType, TracebackType
from typing import Final

import httpx
import trio
from attrs import Factory, field, frozen

from wizard_actors.config import ModelConfig, Secret, Upstream
from wizard_actors.conversion import from_httpx
from wizard_actors.errors import ConfigError, ConfigProblem, ProviderError
from wizard_actors.providers.base import Call
from wizard_actors.providers.headers import parse_limits
from wizard_actors.providers.http import Body, user_agent
from wizard_actors.providers.openai_answer import AnswerParser
from wizard_actors.providers.openai_request import Dialect, request_body, without_refused_field
from wizard_actors.providers.refusals import Head, excerpt
from wizard_actors.retry import parse_retry_after
from wizard_actors.types import LimitHeaders, ModelEvent

__all__ = ["BASE_URLS", "OpenAIAnswer", "OpenAIProvider", "OpenAISettings"]

BASE_URLS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "openai": "https://api.openai.com/v1",
        "cerebras": "https://api.cerebras.ai/v1",
        "deepseek": "https://api.deepseek.com/v1",
        "fireworks": "https://api.fireworks.ai/inference/v1",
        "groq": "https://api.groq.com/openai/v1",
        "lmstudio": "http://127.0.0.1:1234/v1",
        "mistral": "https://api.mistral.ai/v1",
        "ollama": "http://127.0.0.1:11434/v1",
        "openrouter": "https://openrouter.ai/api/v1",
        "perplexity": "https://api.perplexity.ai",
        "together": "https://api.together.xyz/v1",
        "vllm": "http://127.0.0.1:8000/v1",
        "xai": "https://api.x.ai/v1",
    }
)
"""Where the presets are when the configuration does not say; Azure has an address for each resource."""

ERROR_BODY_TIME: Final = 1.0
"""Seconds for which each piece of an error's body is awaited."""

REFUSING_FIELDS: Final = frozenset({400, 422})
"""The statuses under which an upstream refuses a field that it does not know."""

REQUEST_ID_HEADERS: Final = ("x-request-id", "request-id", "apim-request-id")


@frozen(kw_only=True)
class OpenAISettings:
    """One model behind Chat Completions.

    `name` is the configured name, for errors; `model` the upstream's id; `base_url` ends before `/chat/completions`.
    `key_header` carries the key: as a bearer in `authorization`, bare in any other. `connect_timeout` is in seconds,
    for the name, the connection and TLS. `headers` and `extra` (fields of the body) overrule what is sent otherwise.
    """

    name: str
    model: str
    base_url: str
    api_key: Secret | None = None
    key_header: str = "authorization"
    headers: Mapping[str, Secret] = Factory(dict)
    upstream: Upstream = "auto"
    connect_timeout: float = 5.0
    extra: Mapping[str, object] = field(factory=dict)

    @classmethod
    def from_config(cls, config: ModelConfig) -> OpenAISettings:
        """Take what concerns this protocol from a model's configuration, and read its key.

        Raises `ConfigError` where no address is known, or the key cannot be read.
        """
        base_url = config.base_url or BASE_URLS.get(config.provider)
        if base_url is None:
            raise ConfigError(
                [ConfigProblem(f"models.{config.name}.base_url", f"is required for the provider {config.provider!r}")]
            )
        return cls(
            name=config.name,
            model=config.model,
            base_url=base_url,
            api_key=config.api_key(),
            key_header="api-key" if config.provider == "azure" else "authorization",
            headers=config.headers,
            upstream=config.upstream,
            connect_timeout=config.timeouts.connect,
            extra=config.extra,
        )


class OpenAIProvider:
    """A `Provider` for one model that speaks Chat Completions.

    It asks for a stream, with the usage at its end, unless `upstream` says otherwise or the model has refused it; see
    `wizard_actors.providers.base` for what `open` promises. `http` is shared and not closed here; `wall_clock` returns
    seconds since 1970, for headers that give dates.
    """

    def __init__(
        self, settings: OpenAISettings, http: httpx.AsyncClient, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings
        self.http = http
        self.wall_clock = wall_clock
        self.url = _endpoint(settings)
        self.headers = _headers(settings)
        self.secrets = _secrets(settings)
        # None of its own timeouts but this one: the attempt's deadlines bound everything else.
        self.timeout = httpx.Timeout(None, connect=settings.connect_timeout).as_dict()
        self.dialect = Dialect(
            stream=settings.upstream != "unary",
            max_tokens_field="max_completion_tokens" if _is_openai(self.url.host) else "max_tokens",
        )

    @classmethod
    def from_config(cls, model: ModelConfig, http: httpx.AsyncClient) -> OpenAIProvider:
        """Make the provider of a configured model. Raises `ConfigError` where it cannot be reached or has no key."""
        return cls(OpenAISettings.from_config(model), http)

    def __repr__(self) -> str:
        return f"<OpenAIProvider {self.settings.name!r} at {self.url.host}>"

    @property
    def streams(self) -> bool:
        """Whether the next call asks for a stream."""
        return self.dialect.stream

    def open(self, call: Call) -> AbstractAsyncContextManager[OpenAIAnswer]:
        """Send the call. Leaving reads a finished answer to its end, for 50 ms at most, else closes the connection."""
        return _Exchange(self, call)

    async def ask(self, call: Call, dialect: Dialect) -> OpenAIAnswer:
        """Send the call in this dialect, and return its answer once the head is here; the caller closes it.

        Raises what `open` raises.
        """
        settings = self.settings
        body = request_body(
            call.prompt, model=settings.name, upstream_model=settings.model, dialect=dialect, extra=settings.extra
        )
        request = httpx.Request(
            "POST",
            self.url,
            headers=[*self.headers, ("x-request-id", _header_value(call.request_id))],
            content=body,
            extensions={"timeout": self.timeout},
        )
        try:
            response = await self.http.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise from_httpx(error, model=settings.name) from error
        return OpenAIAnswer(response, settings.name, self.secrets, self.wall_clock())


class _Exchange(AbstractAsyncContextManager["OpenAIAnswer"]):
    """One call, from the request to the end of its answer; asks again where the upstream refuses a field."""

    def __init__(self, provider: OpenAIProvider, call: Call) -> None:
        self._provider = provider
        self._call = call
        self._answer: OpenAIAnswer | None = None

    async def __aenter__(self) -> OpenAIAnswer:
        provider = self._provider
        dialect = known = provider.dialect
        while True:
            answer = await provider.ask(self._call, dialect)
            simpler = None
            try:
                if answer.status in REFUSING_FIELDS and dialect.stream:
                    keep_stream = provider.settings.upstream == "stream"
                    simpler = await answer.dialect_without_refused_field(dialect, keep_stream=keep_stream)
                if simpler is None:
                    self._answer = answer
            finally:
                if self._answer is None:
                    await answer.aclose()
            if simpler is None:
                if dialect != known and answer.status < 300:
                    provider.dialect = dialect  # remembered once it has helped
                return answer
            dialect = simpler

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._answer is not None:
            await self._answer.aclose()


class OpenAIAnswer:
    """An `Answer` over one HTTP response."""

    def __init__(self, response: httpx.Response, model: str, secrets: tuple[str, ...], wall_now: float) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw}
        status = response.status_code
        ids = (headers[name] for name in REQUEST_ID_HEADERS if headers.get(name))
        self._head = Head(
            model=model,
            status=status,
            request_id=excerpt(next(ids, ""), secrets) or None,
            retry_after=parse_retry_after(headers, wall_now=wall_now) if status >= 400 else None,
            location=headers.get("location", ""),
            secrets=secrets,
        )
        self._limits = parse_limits(headers, status=status, wall_now=wall_now)
        self._parser = AnswerParser(self._head, content_type=headers.get("content-type", ""))
        self._body = Body(response)

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

    async def dialect_without_refused_field(self, dialect: Dialect, *, keep_stream: bool) -> Dialect | None:
        """Read the refusal to its end, and return the dialect without the field that it names, None for none."""
        while self._parser.failure is None:
            await self._read()
        refused = self._parser.refused
        return None if refused is None else without_refused_field(dialect, refused, keep_stream=keep_stream)

    async def aclose(self) -> None:
        """Give the connection back, or close it: at once, except for the 50 ms that a finished answer may take."""
        await self._body.aclose(drain=self._parser.finished or self._parser.ended)

    async def _read(self) -> list[ModelEvent]:
        parser = self._parser
        # What an error's body says matters less than its status, so it is not waited for as an answer is.
        limit = ERROR_BODY_TIME if self.status >= 300 else math.inf
        data: bytes | None = None
        try:
            with trio.move_on_after(limit):
                data = await self._body.read()
        except (httpx.HTTPError, zlib.error) as error:
            # After its last word a broken connection takes nothing from an answer; under an error status the status
            # says more than the connection.
            if not parser.finished and self.status < 300:
                raise self._broken(error) from error
            data = None
        return parser.close() if data is None else parser.feed(data)

    def _broken(self, error: httpx.HTTPError | zlib.error) -> ProviderError:
        head = self._head
        if isinstance(error, httpx.HTTPError):
            return from_httpx(error, model=head.model, status=head.status, request_id=head.request_id)
        return head.parse_error(f"cannot be decompressed: {error}")


# -- what stays the same for every call --------------------------------------------------------------


def _endpoint(settings: OpenAISettings) -> httpx.URL:
    key = f"models.{settings.name}.base_url"
    try:
        url = httpx.URL(settings.base_url)
        url.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigError([ConfigProblem(key, "is not a URL")]) from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigError([ConfigProblem(key, "must be a URL with http or https and a host")])
    return url.copy_with(path=url.path.rstrip("/") + "/chat/completions")


def _is_openai(host: str) -> bool:
    return host == "api.openai.com" or host.endswith(".openai.com")


def _headers(settings: OpenAISettings) -> list[tuple[str, str]]:
    headers = {
        "accept": "application/json",
        # A proxy that compresses a stream holds it back until it has enough to compress.
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": user_agent(),
    }
    if settings.api_key is not None:
        bearer = "Bearer " if settings.key_header.lower() == "authorization" else ""
        headers[settings.key_header.lower()] = bearer + settings.api_key.reveal()
    headers.update({name.lower(): value.reveal() for name, value in settings.headers.items()})
    for name, value in headers.items():
        if not (name.isascii() and value.isascii() and name.isprintable() and value.isprintable()):
            # Found here, because the HTTP library's own error would quote the value.
            raise ConfigError([ConfigProblem(f"models.{settings.name}", f"the header {name!r} holds odd characters")])
    return list(headers.items())


def _secrets(settings: OpenAISettings) -> tuple[str, ...]:
    """Return what no error may repeat, the longest first: one may hold another."""
    secrets = {value.reveal() for value in settings.headers.values()}
    if settings.api_key is not None:
        secrets.add(settings.api_key.reveal())
    return tuple(sorted(filter(None, secrets), key=len, reverse=True))


def _header_value(request_id: str) -> str:
    return re.sub(r"[^\x21-\x7e]", "_", request_id)
