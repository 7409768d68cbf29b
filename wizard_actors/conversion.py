"""Other people's errors turned into ours, in one place: HTTP, files and JSON.

The messages say what happened, to which model or file, and what to do. They never repeat a URL's path, query
or user, and never what was sent: a key may stand there. Callers chain: `raise from_httpx(error, ...) from error`.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import httpx

from wizard_actors.errors import (
    NetworkError,
    ParseError,
    ProviderError,
    ProviderTimeoutError,
    RequestError,
    StorageError,
    StreamInterruptedError,
    TimeoutPhase,
)

__all__ = ["from_httpx", "from_json", "from_os"]

# -- HTTP --------------------------------------------------------------------------------------------

PHASES: Final[Mapping[type[httpx.TimeoutException], TimeoutPhase]] = MappingProxyType(
    {
        httpx.ConnectTimeout: "connect",
        httpx.PoolTimeout: "connect",
        httpx.WriteTimeout: "total",
        httpx.ReadTimeout: "stall",
    }
)


def from_httpx(
    error: httpx.HTTPError | httpx.InvalidURL,
    *,
    model: str,
    status: int | None = None,
    request_id: str | None = None,
    proxy: str | None = None,
) -> ProviderError:
    """Return our error for one of httpx's.

    `status` is given where the response's head had arrived: what fails after that interrupted an answer
    (`StreamInterruptedError`), before it no answer came (`NetworkError`, or `ProviderTimeoutError`). A URL that cannot
    be called at all is a `RequestError`: another try does not help. `proxy` is the `host:port` of the proxy on the way,
    where there is one: what fails while connecting is rather its than the provider's.
    """
    where = _host(error) if proxy is None else f"{_host(error)}, by way of the proxy {proxy}"
    if isinstance(error, httpx.TimeoutException):
        phase = PHASES.get(type(error), "total")
        late = f"{model}: no connection to {where} in time" if phase == "connect" else f"{model}: {where} was too slow"
        return ProviderTimeoutError(late, model=model, phase=phase, status=status, request_id=request_id)
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return RequestError(
            f"{model}: its base_url cannot be called: it needs http:// or https:// and a host", model=model
        )
    if isinstance(error, httpx.LocalProtocolError):
        return RequestError(
            f"{model}: the request breaks HTTP's rules: look for unusual characters in its headers and key",
            model=model,
        )
    if status is not None:
        return StreamInterruptedError(
            f"{model}: {where} broke off its answer: {_reason(error)}",
            model=model,
            status=status,
            request_id=request_id,
        )
    return NetworkError(f"{model}: {_reason(error, proxied=proxy is not None)} ({where})", model=model)


def _host(error: httpx.HTTPError | httpx.InvalidURL) -> str:
    """Return `host:port` of the request, and nothing else of its URL."""
    try:
        url = error.request.url if isinstance(error, httpx.HTTPError) else None
    except RuntimeError:  # httpx's way to say that it does not know
        url = None
    if url is None or not url.host:
        return "the provider"
    return f"{url.host}:{url.port}" if url.port is not None else url.host


def _reason(error: httpx.HTTPError | httpx.InvalidURL, *, proxied: bool = False) -> str:
    """Say in plain words why a connection failed. httpx's own texts are often empty, or quote what was received."""
    # What is connected to is the proxy; TLS then goes through it, to the provider.
    explain = _proxy_cause if proxied and isinstance(error, httpx.ConnectError) else _cause
    for cause in _causes(error):
        if (reason := explain(cause)) is not None:
            return reason
    if isinstance(error, httpx.ProxyError):
        return "the proxy refused the connection: check the model's proxy"
    if isinstance(error, httpx.RemoteProtocolError):
        # "Server disconnected without sending a response", says httpcore, and h11 has a like sentence for half a body
        early = "without sending" in str(error)
        reason = "the connection was closed too early" if early else "what came is not HTTP: check base_url"
        return f"{reason}; if TLS is spoken there, base_url begins with https://" if _is_plain(error) else reason
    return "the connection broke"


def _is_plain(error: httpx.HTTPError) -> bool:
    """Say whether the request went out without TLS."""
    try:
        return error.request.url.scheme == "http"
    except RuntimeError:
        return False


def _cause(cause: BaseException) -> str | None:
    reason = None
    match cause:
        case ssl.SSLCertVerificationError():
            reason = f"its TLS certificate is not trusted: {cause.verify_message}; is the model's ca_file right?"
        case ssl.SSLError():
            reason = f"TLS failed: {cause.reason or 'no reason given'}; is base_url's https:// right?"
        case socket.gaierror():
            reason = "its host name cannot be resolved: check base_url and the name server"
        case ConnectionRefusedError():
            reason = "the connection was refused: is the server running, is base_url's port right?"
        case OSError() if cause.errno is not None:
            reason = f"the connection failed: {cause.strerror or errno.errorcode.get(cause.errno, 'unknown error')}"
    return reason


def _proxy_cause(cause: BaseException) -> str | None:
    """Return what kept a connection to a proxy from being made."""
    reason = None
    match cause:
        case ssl.SSLError():
            reason = _cause(cause)
        case socket.gaierror():
            reason = "the proxy's host name cannot be resolved: check the model's proxy and the name server"
        case ConnectionRefusedError():
            reason = "the connection to the proxy was refused: is it running, is the port in the model's proxy right?"
        case OSError() if cause.errno is not None:
            reason = f"the connection to the proxy failed: {cause.strerror or errno.errorcode.get(cause.errno, '')}"
    return reason


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors below `error`, those in groups too: Trio tries all addresses of a host at once."""
    below = error.__cause__
    if below is None and type(error).__module__.startswith("httpcore"):
        # Its pool raises again `from None`, so the cause is only left as the context. Elsewhere a context may be some
        # earlier attempt's error, and no cause of this one.
        below = error.__context__
    inside = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for cause in (*inside, *(() if below is None else (below,))):
        yield cause
        yield from _causes(cause)


# -- files, JSON, environment ------------------------------------------------------------------------


def from_os(error: OSError, path: str) -> StorageError:
    """Return our error for a file that cannot be read or written."""
    match error:
        case FileNotFoundError():
            reason = "does not exist"
        case PermissionError():
            reason = "may not be opened: permission denied"
        case IsADirectoryError():
            reason = "is a directory"
        case FileExistsError():
            reason = "exists already"
        case _:
            reason = f"cannot be read or written: {error.strerror or type(error).__name__}"
    return StorageError(f"{path} {reason}", path=path)


def from_json(
    error: Exception,
    *,
    model: str,
    status: int | None = None,
    request_id: str | None = None,
    excerpt: str = "",
) -> ParseError:
    """Return our error for an answer that is not the JSON it should be; `excerpt` is its cleaned beginning."""
    what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return ParseError(
        f"{model}: its answer cannot be understood: {what}" + (f" in {excerpt!r}" if excerpt else ""),
        model=model,
        status=status,
        request_id=request_id,
    )
