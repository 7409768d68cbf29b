"""The life of a server: it opens, serves, reads its files again when it is told to, and stops in order."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol, TypeAlias

import trio
from attrs import frozen

from wizard_actors import otel
from wizard_actors.config import ServerConfig, WizardConfig
from wizard_actors.errors import ConfigError, ConfigProblem, WizardError
from wizard_actors.server.access import Access, check_names
from wizard_actors.server.changes import certificate_changes, config_changes, key_changes
from wizard_actors.server.doors import Door, Endpoint, check_addresses, opened
from wizard_actors.server.key_settings import KeysConfig
from wizard_actors.server.keys_file import load_keys
from wizard_actors.server.limits import Limits
from wizard_actors.server.listening import Intake, content_of, load_tls
from wizard_actors.server.service import Service
from wizard_actors.trio_client import TrioClient

__all__ = ["Loaded", "Read", "Reporter", "Server", "check_start", "load_files"]

log = logging.getLogger("wizard_actors.server")

Read: TypeAlias = Callable[[], Awaitable[WizardConfig]]
"""Reads the configuration, at the start and for each reload. Raises `ConfigError`."""

LAST_CALL: Final = 0.05
"""Seconds in which a server that stops still takes what waits in its backlog, to refuse it politely."""

GRACE: Final = 3.0
"""Seconds that connections have to send what they end with."""

LONGEST_READ: Final = 30.0
"""Seconds after which files are given up that nobody delivers: pipes, or a file system that hangs."""


class Reporter(Protocol):
    """Is told what becomes of a server. Nothing of it waits or raises."""

    def ready(self, endpoints: Sequence[str], config: WizardConfig, keys: KeysConfig | None) -> None:
        """It takes connections at `endpoints`, URLs such as "ws://127.0.0.1:8000"."""

    def reloading(self) -> None:
        """It reads its files again."""

    def reloaded(self, changes: Sequence[str], config: WizardConfig) -> None:
        """What they say is in force from now on, `config` with it; `changes` says what is new, in words."""

    def refused(self, error: Exception) -> None:
        """What they say is not taken up, and all stays as it was."""

    def stopping(self, in_progress: int) -> None:
        """It takes no new requests, and waits for those in progress."""


@frozen
class Loaded:
    """All that a server reads from files; `tls` None: it speaks none. `certificate` tells one from another."""

    config: WizardConfig
    keys: KeysConfig | None
    tls: ssl.SSLContext | None
    certificate: str


class Server:
    """A client, offered on the endpoints that its configuration names. `stop` and `reload` may be called at any time,
    before `run` too, by whoever runs under the same Trio.
    """

    def __init__(self, read: Read, *, env: Mapping[str, str], reporter: Reporter) -> None:
        self._read = read
        self._env = env
        self._report = reporter
        self._whole = trio.CancelScope()
        self._stop = trio.Event()
        self._serving = False
        self._stops_by = 0.0
        self._ask, self._asked = trio.open_memory_channel[None](1)

    def stop(self) -> None:
        """Stop in order: no new requests, and those in progress end within `server.drain_timeout`. Before it serves, it
        is given up at once.
        """
        self._stop.set()
        if not self._serving:
            self._whole.cancel()

    def reload(self) -> None:
        """Read the files again, after the reload in progress if there is one. One that waits already will do."""
        try:
            self._ask.send_nowait(None)
        except trio.WouldBlock:
            return  # what is written now, the one that waits will read

    async def run(self) -> None:
        """Serve until `stop`, and stop in order: within `server.drain_timeout` and some seconds, three of them for
        telemetry.

        Raises `ConfigError` where the configuration, the keys, the certificate or the address will not do, before
        a client is opened; `SupervisorError` where the tree cannot go on; `StorageError` where what sessions have
        said cannot be stored at the end. Cancelling ends everything at once.
        """
        with self._whole:
            loaded = await self._load(starting=True)
            check_start(loaded, self._env)
            access = Access(loaded.keys)
            async with (
                otel.opened(loaded.config),
                opened(loaded.config.server, access) as doors,
                TrioClient.open(loaded.config) as client,
            ):
                limits = Limits(client.supervisor)
                await limits.prepare(loaded.keys)
                await self._serve(Service(client, access, limits), doors, loaded)
                client.supervisor.drain_timeout = max(GRACE, self._stops_by - trio.current_time())

    async def _serve(self, service: Service, doors: Sequence[Door], loaded: Loaded) -> None:
        endpoints = [door.endpoint(service) for door in doors]
        intakes = [_intake(endpoint, loaded.tls, service.settings) for endpoint in endpoints]
        open_ones = trio.CancelScope()
        async with trio.open_nursery() as closing:
            with open_ones:
                async with trio.open_nursery() as connections:
                    await self._take(service, doors, intakes, connections, loaded)
                    closing.start_soon(_cut_off, service, open_ones, self._stops_by)
                    for intake, endpoint in zip(intakes, endpoints, strict=True):
                        intake.close_shaking()
                        endpoint.close_idle()
            closing.cancel_scope.cancel()

    async def _take(
        self,
        service: Service,
        doors: Sequence[Door],
        intakes: Sequence[Intake],
        connections: trio.Nursery,
        loaded: Loaded,
    ) -> None:
        """Take connections until it is time to stop, and a moment longer."""
        async with trio.open_nursery() as taking:
            for door, intake in zip(doors, intakes, strict=True):
                for listener in door.listeners:
                    taking.start_soon(intake.accept, listener, connections)
            bound = [address for door in doors for address in door.bound]
            taking.start_soon(self._reload_when_asked, service, intakes, bound, loaded)
            self._serving = True
            urls = [url for door in doors for url in door.urls(tls=loaded.tls is not None)]
            self._report.ready(urls, service.client.config, service.access.keys)
            await self._stop.wait()
            self._stops_by = trio.current_time() + service.settings.drain_timeout
            service.draining.set()
            self._report.stopping(service.admission.in_progress)
            taking.cancel_scope.deadline = trio.current_time() + LAST_CALL

    # -- reading files

    async def _load(self, *, starting: bool) -> Loaded:
        """Read everything. Raises `ConfigError`."""
        with trio.move_on_after(LONGEST_READ):
            config = await self._read()
            read = partial(load_files, config, self._env, starting=starting)
            return await trio.to_thread.run_sync(read, abandon_on_cancel=True)
        raise ConfigError([ConfigProblem("", f"could not be read within {LONGEST_READ:g} seconds")])

    async def _reload_when_asked(
        self, service: Service, intakes: Sequence[Intake], bound: Sequence[str], loaded: Loaded
    ) -> None:
        async for _ in self._asked:
            self._report.reloading()
            try:
                former, now = loaded, await self._load(starting=False)
                changes = await _take_up(now, former, service, intakes, bound)
            except WizardError as error:
                self._report.refused(error)
            except Exception as error:  # a bug here is no reason to end what is being served
                log.exception("a bug has ended a reload")
                self._report.refused(error)
            else:
                loaded = now
                self._report.reloaded(changes, service.client.config)


def _intake(endpoint: Endpoint, tls: ssl.SSLContext | None, settings: ServerConfig) -> Intake:
    return Intake(endpoint.handle, tls, settings.handshake_timeout, settings.max_connections)


async def _cut_off(service: Service, connections: trio.CancelScope, at: float) -> None:
    """End what has not ended by itself when the time to drain is up: with an error, then without a word."""
    await trio.sleep_until(at)
    service.ending.set()
    connections.deadline = trio.current_time() + GRACE


def load_files(config: WizardConfig, env: Mapping[str, str], *, starting: bool = True) -> Loaded:
    """Read what `[server]` of `config` names: the keys, unless they are in `env`, and the certificate. A server that is
    `starting` needs a key that is enabled. Reads files, so it belongs into a thread.

    Raises `ConfigError` for what cannot be read, does not belong together, or names what is not in `config`.
    """
    server = config.server
    tls, certificate = None, ""
    if server.tls_cert is not None and server.tls_key is not None:
        certificate = content_of(server.tls_cert, server.tls_key)
        tls = load_tls(server.tls_cert, server.tls_key)
    keys = load_keys(server, env, starting=starting)
    check_names(keys, config)
    return Loaded(config, keys, tls, certificate)


def check_start(loaded: Loaded, env: Mapping[str, str]) -> None:
    """Check what can be known of a server before it listens: its addresses, by its keys, and packages that are needed.
    One that names no address is none, and nothing is checked.

    Raises `ConfigError`, and `EnvVarError` for what the variables OTEL_* in `env` ask for.
    """
    if check_addresses(loaded.config.server, Access(loaded.keys)):
        otel.check(loaded.config, env)


async def _take_up(
    loaded: Loaded, former: Loaded, service: Service, intakes: Sequence[Intake], bound: Sequence[str]
) -> Sequence[str]:
    """Put in force what was read, and return what has changed; raise before anything has where something will not do.

    Models come before the keys that may name them, and limits before the keys that they bound; the limits of keys that
    are gone go last: until then somebody may use them.
    """
    _check_same_guard(loaded, service.access.keys, former.tls)
    was, keys = service.client.config, service.access.keys
    reloaded = await service.client.reload(loaded.config)
    await service.limits.prepare(loaded.keys)
    service.access.replace(loaded.keys, bound=bound)
    await service.limits.drop(loaded.keys)
    for intake in intakes:
        intake.tls = loaded.tls
        intake.handshake_timeout = service.settings.handshake_timeout
        intake.max_connections = service.settings.max_connections
    return [
        *config_changes(was, service.client.config, reloaded),
        *key_changes(keys, loaded.keys),
        *certificate_changes(former.certificate, loaded.certificate),
    ]


def _check_same_guard(loaded: Loaded, keys: KeysConfig | None, tls: ssl.SSLContext | None) -> None:
    """Check that a reload lets in nobody whom the server has asked for a key, and neither begins nor ends TLS."""
    problems = []
    if keys is not None and loaded.keys is None:
        reason = "is not set any more: without keys everybody would be an admin"
        problems.append(ConfigProblem("server.api_keys_file", reason, "set it again, or restart the server"))
    if (tls is None) != (loaded.tls is None):
        reason = "is set now, but the server speaks no TLS" if tls is None else "is not set any more, but it speaks TLS"
        problems.append(ConfigProblem("server.tls_cert", reason, "that takes a restart of the server"))
    if problems:
        raise ConfigError(problems)
