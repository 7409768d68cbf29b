"""The endpoints of a server: where each listens, and who answers there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Protocol, TypeAlias

import trio
from attrs import frozen

from wizard_actors.config import ServerConfig, split_address
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.server.access import Access
from wizard_actors.server.listening import listening, shown_address
from wizard_actors.server.service import Service
from wizard_actors.server.websocket import WebSocketEndpoint

__all__ = ["Door", "Endpoint", "Make", "check_addresses", "opened"]


class Endpoint(Protocol):
    """Serves connections of one kind."""

    async def handle(self, stream: trio.abc.Stream, let_in: Callable[[], object]) -> None:
        """Serve one connection to its end; see `Intake`."""

    def close_idle(self) -> None:
        """Close the connections on which nothing is in progress: the server stops."""


Make: TypeAlias = Callable[[Service], Endpoint]
"""Makes an endpoint that offers a service."""


@frozen
class Door:
    """One endpoint: the `scheme` of its URLs, without TLS; its sockets, their addresses, and who serves them."""

    scheme: str
    listeners: Sequence[trio.SocketListener]
    bound: Sequence[str]
    endpoint: Make

    def urls(self, *, tls: bool) -> Sequence[str]:
        """Return where it can be reached."""
        return [f"{self.scheme}{'s' if tls else ''}://{address}" for address in self.bound]


def _http() -> Make:
    """Return the HTTP endpoint, which an extra brings. Raises `ConfigError` where that is not installed."""
    try:
        from wizard_actors.server.http import HttpEndpoint
    except ImportError as error:
        if error.name is None or error.name.startswith("wizard_actors"):
            raise
        reason = f"needs a package that is not installed ({error.name})"
        hint = "pip install 'wizard-actors[http]'"
        raise ConfigError([ConfigProblem("server.http", reason, hint)]) from error
    return HttpEndpoint


KINDS: Final[Mapping[str, tuple[str, Callable[[], Make]]]] = {
    "http": ("http", _http),
    "websocket": ("ws", lambda: WebSocketEndpoint),
}
"""The settings that name addresses, the scheme of each, and what returns its endpoint."""


def check_addresses(settings: ServerConfig, access: Access) -> Mapping[str, Make]:
    """Check what can be known before anybody listens; return what makes the endpoint of each setting that is set.

    Raises `ConfigError` where not everybody who could connect there may use the server, where two ask for one address,
    and where a package is missing.
    """
    addresses = {name: getattr(settings, name) for name in KINDS if getattr(settings, name) is not None}
    for address in addresses.values():
        access.check_bind(address)
    if len(addresses) > 1 and _meet(addresses["http"], addresses["websocket"]):
        reason = f"asks for the same address as `server.http`: {addresses['websocket']}"
        raise ConfigError([ConfigProblem("server.websocket", reason, "give each a port of its own")])
    return {name: KINDS[name][1]() for name in addresses}


def _meet(one: str, other: str) -> bool:
    """Return whether nobody could listen on both."""
    (host, port), (other_host, other_port) = split_address(one), split_address(other)
    return port == other_port != 0 and any(_same(a, b) for a in _hosts(host) for b in _hosts(other_host))


def _hosts(host: str) -> Sequence[IPv4Address | IPv6Address | str]:
    """Return what a host stands for, as far as that is known without asking anybody."""
    if host.casefold() == "localhost":
        return IPv4Address("127.0.0.1"), IPv6Address("::1")
    try:
        return (ip_address(host),)
    except ValueError:
        return (host.casefold(),)


def _same(one: IPv4Address | IPv6Address | str, other: IPv4Address | IPv6Address | str) -> bool:
    if one == other:
        return True
    of_a_kind = not isinstance(one, str) and not isinstance(other, str) and one.version == other.version
    return of_a_kind and any(not isinstance(each, str) and each.is_unspecified for each in (one, other))


@asynccontextmanager
async def opened(settings: ServerConfig, access: Access) -> AsyncIterator[Sequence[Door]]:
    """Listen, for the length of a block, wherever the settings say.

    Raises `ConfigError` where they say nowhere, where one of them will not do, or where not everybody who could connect
    there may use the server.
    """
    endpoints = check_addresses(settings, access)
    if not endpoints:
        hint = 'name an address to listen on, such as "127.0.0.1:8000"'
        raise ConfigError([ConfigProblem("server.http", "is not set, nor server.websocket: nothing to serve", hint)])
    async with AsyncExitStack() as stack:
        doors = []
        for name, endpoint in endpoints.items():
            listeners = await stack.enter_async_context(listening(getattr(settings, name), f"server.{name}"))
            bound = [shown_address(*listener.socket.getsockname()[:2]) for listener in listeners]
            for each in bound:  # what a name stands for is known only now
                access.check_bind(each)
            doors.append(Door(KINDS[name][0], listeners, bound, endpoint))
        yield doors
