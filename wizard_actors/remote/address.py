"""Where a server is, and with which key it is asked."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from attrs import field, frozen

from wizard_actors.config.secret import Secret, key_from_env, require_certificates, secret
from wizard_actors.config.values import BadValue
from wizard_actors.errors import ConfigError, ConfigProblem, EnvVarError

__all__ = ["Address", "address_of"]

PORTS: Final = {"ws": 80, "wss": 443}


@frozen
class Address:
    """A server: `host` and `port`, the `resource` of the WebSocket there, `tls` where encrypted, and the `key`."""

    host: str
    port: int
    resource: str = "/"
    tls: ssl.SSLContext | None = field(default=None, eq=False)
    key: Secret | None = None

    @property
    def where(self) -> str:
        """The server, as errors name it: `HOST:PORT`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the handshake carries: the key, where there is one."""
        return [] if self.key is None else [(b"Authorization", b"Bearer " + self.key.reveal().encode("ascii"))]


def address_of(
    url: str,
    *,
    key: str | Secret | None = None,
    key_env: str | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Address:
    """Return the server at `url`, "ws://HOST:PORT" or "wss://HOST:PORT".

    Raises `ConfigError` for what is none, and `EnvVarError` where the variable `key_env` is not set or empty.
    """
    parts, port = _parts(url)
    tls = _tls(parts.scheme, ca_file)
    if key is not None and key_env is not None:
        raise _wrong("key", "is given twice, as `key` and as `key_env`", "leave one out")
    path = parts.path or "/"
    return Address(
        host=parts.hostname or "",
        port=port,
        resource=f"{path}?{parts.query}" if parts.query else path,
        tls=tls,
        key=_key(key) if key_env is None else _key_from(key_env, os.environ if env is None else env),
    )


def _parts(url: object) -> tuple[SplitResult, int]:
    hint = 'give "ws://HOST:PORT", or "wss://HOST:PORT" where the server has a certificate'
    if not isinstance(url, str):
        raise _wrong("url", f"must be a text, not {type(url).__name__}", hint)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _wrong("url", "is no URL", hint) from None
    if parts.scheme not in PORTS or not parts.hostname:
        raise _wrong("url", "is no address of a WebSocket server", hint)
    if parts.username is not None or parts.password is not None:
        raise _wrong("url", "holds a user or password", "give the key as `key` or `key_env`")
    if not all("!" <= char <= "~" for char in parts.path + parts.query):
        raise _wrong("url", "holds characters that no URL may hold", "write them as %XX")
    return parts, PORTS[parts.scheme] if port is None else port


def _tls(scheme: str, ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext | None:
    if ca_file is None:
        return ssl.create_default_context() if scheme == "wss" else None
    if scheme != "wss":
        raise _wrong("ca_file", "is for encrypted connections only", 'begin the url with "wss://", or leave it out')
    file = os.fspath(ca_file)
    try:
        require_certificates(Path(file))
    except BadValue as bad:
        raise _wrong("ca_file", bad.reason, bad.hint) from None
    return ssl.create_default_context(cafile=file)


def _key(given: str | Secret | None) -> Secret | None:
    if given is None:
        return None
    try:
        key = secret(given)
    except BadValue as bad:
        raise _wrong("key", bad.reason, bad.hint) from None
    if not key.reveal().strip():
        raise _wrong("key", "is empty", "leave it out for a server without keys")
    return key


def _key_from(variable: str, env: Mapping[str, str]) -> Secret:
    try:
        return key_from_env(variable, env)
    except BadValue as bad:
        if env.get(variable, "").strip():
            raise _wrong("key_env", bad.reason, bad.hint) from None
        raise EnvVarError(variable, key="key_env", file="this client", reason=bad.reason) from None


def _wrong(name: str, reason: str, hint: str) -> ConfigError:
    return ConfigError([ConfigProblem(name, reason, hint)], file="this client")
