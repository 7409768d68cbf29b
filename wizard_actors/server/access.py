"""Who may use a server: keys, and where nobody has one, this machine alone.

A caller is known by the key that it presents, never by a name; only hashes are kept and compared.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import trio
from attrs import field, frozen

from wizard_actors.config import WizardConfig, split_address
from wizard_actors.config.values import BadValue, closest, split_origin
from wizard_actors.errors import AccessDeniedError, ConfigError, ConfigProblem
from wizard_actors.server.key_settings import KeyConfig, KeysConfig
from wizard_actors.server.keys_file import API_KEYS, hash_of

__all__ = ["Access", "Caller", "check_names", "check_origin"]

IPV6_LOOPBACK: Final = IPv6Address("::1")


@frozen
class Caller:
    """Who asks: the key's `name`, "" where the server has no keys.

    `admin`: may look at the whole server. `routes` and `models` are those that it may use, None: all. `max_in_flight`
    requests of it may be in progress at once, None: `server.max_per_key`. `extra`: its prompts may hold fields that
    go to providers as they are.
    """

    name: str = ""
    admin: bool = False
    routes: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    max_in_flight: int | None = None
    extra: bool = False
    key_hash: str = field(default="", repr=False)
    """What tells its key from another one of the same name."""

    @property
    def tenant(self) -> str:
        """Whose cached answers it sees: its own alone."""
        return self.name

    @property
    def session_prefix(self) -> str:
        """What the ids of its sessions begin with in the storage. No name of a key has a "/"."""
        return f"{self.name}/" if self.name else ""

    def check_admin(self) -> None:
        """Raise `AccessDeniedError` where it may not look at the whole server."""
        if not self.admin:
            raise AccessDeniedError(f"the key {self.name!r} may not do that: it is no admin's", key=self.name)


ANYBODY: Final = Caller(admin=True, extra=True)


def _caller(key: KeyConfig) -> Caller:
    return Caller(key.name, key.admin, key.routes, key.models, key.max_in_flight, key.extra, key.hash)


class Access:
    """Who may use a server: the holders of `keys`; None: everybody on this machine, as an admin."""

    def __init__(self, keys: KeysConfig | None) -> None:
        self._keys = keys
        self._callers = _callers(keys)
        self.changed = trio.Event()
        """Is set when other keys are in force, and takes a new one's place then."""

    @property
    def keys(self) -> KeysConfig | None:
        """The keys in force."""
        return self._keys

    def caller(self, presented: str | None) -> Caller:
        """Return who presents a key, None: none. Takes as long whichever key it is, and whether or not it is one.

        Raises `AccessDeniedError` for what is no key, and for one that is not enabled. Without keys, whatever is
        presented is ignored.
        """
        if self._keys is None:
            return ANYBODY
        given, found = hash_of(presented or ""), None
        for key in self._keys.keys:
            if hmac.compare_digest(given, key.hash):
                found = key
        if presented is None:
            raise AccessDeniedError(
                "this server asks for a key: send it as `Authorization: Bearer KEY`, or, over HTTP, as `x-api-key: KEY`"
            )
        if found is None or not found.enabled:
            raise AccessDeniedError("this key is not one of this server's, or is not in force")
        return _caller(found)

    def current(self, caller: Caller) -> Caller:
        """Return who `caller` is now, by its key: what it may do may have changed since it was let in.

        Raises `AccessDeniedError` where its key is gone, is not enabled any more, or was replaced by another one.
        """
        if self._keys is None and not caller.key_hash:
            return ANYBODY
        now = self._callers.get(caller.key_hash)
        if now is None:
            raise AccessDeniedError("the key that this connection was opened with is in force no more")
        return now

    def replace(self, keys: KeysConfig | None, *, bound: Iterable[str]) -> None:
        """Let other keys be in force from now on. `bound` are the addresses on which the server listens.

        Raises `ConfigError`, and leaves everything as it is, where there would be no keys, and others than this machine
        could connect.
        """
        new = Access(keys)
        for address in bound:
            new.check_bind(address)
        self._keys, self._callers = new._keys, new._callers
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    def check_bind(self, address: str) -> None:
        """Check that a server may listen on `address`, "HOST:PORT": without keys, only where nobody but this machine
        connects. A host that is a name counts as such only where it is "localhost": others may become any address.

        Raises `ConfigError`, which names `server.api_keys_file`.
        """
        if self._keys is None and not _is_loopback(address):
            reason = f"is needed to listen on {address}: without keys only this machine may use the server"
            hint = "`wizard serve --new-key NAME` makes a key and the file; without one, listen on 127.0.0.1"
            raise ConfigError([ConfigProblem("server.api_keys_file", reason, hint)])


def _callers(keys: KeysConfig | None) -> dict[str, Caller]:
    return {key.hash: _caller(key) for key in (() if keys is None else keys.keys) if key.enabled}


def check_names(keys: KeysConfig | None, config: WizardConfig) -> None:
    """Check that the routes and models that keys may use are there, enabled or not.

    Raises `ConfigError` with every name that there is not: the keys' file, the key and its setting, and what there is.
    """
    if keys is None:
        return
    models = [model.name for model in config.models]
    routes = [route.name for route in (config.fallback, *config.routes)]
    problems: list[ConfigProblem] = []
    for index, key in enumerate(keys.keys):
        for what, names, there in (("route", key.routes, routes), ("model", key.models, models)):
            problems += _unknown(
                f"keys[{index}].{what}s", f"of the key {key.name!r} names no {what}", names or (), there
            )
    if problems:
        raise ConfigError(problems, file=str(config.server.api_keys_file or API_KEYS))


def _unknown(setting: str, said: str, names: Sequence[str], there: Sequence[str]) -> Iterator[ConfigProblem]:
    for index, name in enumerate(names):
        if name not in there:
            meant = closest(name, there)
            hint = f"did you mean {meant!r}?" if meant else f"there are {', '.join(map(repr, there))}"
            yield ConfigProblem(f"{setting}[{index}]", f"{said}: {name!r}", hint)


def _is_loopback(address: str) -> bool:
    try:
        host, _ = split_address(address)
        if host.casefold() == "localhost":
            return True
        ip = ip_address(host)
    except (BadValue, ValueError):
        return False
    return ip.is_loopback if isinstance(ip, IPv4Address) else ip == IPV6_LOOPBACK


def check_origin(origin: str | None, allowed: Iterable[str]) -> None:
    """Check the `Origin` of a handshake: a web page's scheme, host and port have to be those of one in `allowed`. None,
    no such header, is fine: that is no browser.

    Raises `AccessDeniedError`. "null", which sandboxed pages and local files send, is never allowed.
    """
    if origin is None:
        return
    given = split_origin(origin)
    if given is None or given not in {split_origin(each) for each in allowed}:
        raise AccessDeniedError("web pages of this origin may not connect: `server.origins` names those that may")
